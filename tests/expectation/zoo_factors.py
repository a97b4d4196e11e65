"""A random q for every case of the zoo, its compiled sites, and Monte Carlo in the same coordinates."""

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import jax
import numpy as np
from numpyro.distributions import biject_to
from zoo_case import Case, Mean, latents_of

from taut.expectation.check import draw
from taut.expectation.gaussian import Gaussian
from taut.expectation.table import log_density
from taut.expectation.transform import Compiled, compile_terms
from taut.families import Beta, Categorical, Dirichlet, Gamma, Grid, InverseGamma, Wishart
from taut.problem.data import split
from taut.problem.replay import Functions


def spd(rng, size, batch=()):
    """A positive definite matrix of moderate size."""
    root = rng.normal(size=(*batch, size, size))
    return root @ np.swapaxes(root, -1, -2) / size + 0.3 * np.eye(size)


@dataclass(frozen=True)
class Posed:
    """A case with a random q.

    Attributes:
        case: of the zoo.
        seed: of q.
    """

    case: Case
    seed: int = 3

    @cached_property
    def sites(self) -> dict[str, Any]:
        """The traced sites of the latents."""
        return latents_of(self.case)

    @cached_property
    def own(self) -> frozenset[str]:
        """Latents that are not in Gaussian blocks."""
        return frozenset(n for n, k in self.case.factors.items() if not k.startswith("gaussian"))

    @cached_property
    def data(self) -> dict[str, Any]:
        """Arrays of the model's arguments."""
        return {k: v for k, v in self.case.data.items() if isinstance(v, np.ndarray)}

    @cached_property
    def q(self) -> dict[str, Any]:
        """Random factors of the kinds that the case names."""
        rng, found, joint = np.random.default_rng(self.seed), {}, {}
        for name, site in self.sites.items():
            kind = self.case.factors[name]
            shape = tuple(np.shape(site["value"]))
            if kind in ("gaussian", "gaussian:own"):
                coordinates = tuple(biject_to(site["fn"].support).inverse_shape(shape))
                if kind == "gaussian":
                    joint[name] = coordinates
                else:
                    found[name] = normal({name: coordinates}, rng)
            else:
                found[name] = FACTORIES[kind](rng, shape, site["fn"])
        return found | ({"joint": normal(joint, rng)} if joint else {})

    def densities(self, latents: Any, data: Any, density: Any = log_density) -> dict[str, Any]:
        """Site -> log density, Jacobians with the latents that they belong to."""
        fixed = split({k: v for k, v in self.case.data.items() if k not in self.data})[1]
        arrays = {"data": data, "observe": {}, "centring": {}}
        return Functions(self.case.model, fixed, ()).densities(latents, arrays, self.own, density)

    def truth(self, latents: Any, data: Any) -> dict[str, Any]:
        """The same by NumPyro's own densities."""
        return self.densities(latents, data, lambda *_: None)

    @cached_property
    def names(self) -> list[str]:
        """The sites."""
        one = {n: v[0] for n, v in draw(self.q, 0, 1).items()}
        return list(jax.eval_shape(self.densities, one, self.data))

    def compile(self, data: Any) -> dict[str, Compiled]:
        """Read every site."""
        return {
            name: compile_terms(lambda u, d, n=name: self.densities(u, d)[n], self.q, data)
            for name in self.names
        }

    @cached_property
    def compiled(self) -> dict[str, Compiled]:
        """The sites, read and folded in one program."""
        assert self.q  # made outside of the program
        return jax.jit(self.compile)(self.data)

    def monte_carlo(self, num: int, seed: int = 0, chunk: int = 2_000) -> dict[str, Mean]:
        """Mean of every site over draws of q, and the draws' standard deviation."""
        evaluate = jax.jit(jax.vmap(lambda u: self.truth(u, self.data)))
        seeds = range(seed, seed + num // chunk)
        parts = [evaluate(draw(self.q, each, chunk)) for each in seeds]
        values = {n: np.concatenate([np.asarray(p[n]) for p in parts]) for n in parts[0]}
        return {n: Mean(float(v.mean()), float(v.std())) for n, v in values.items()}


def normal(shapes, rng):
    """A correlated Gaussian block."""
    size = sum(int(np.prod(s)) for s in shapes.values())
    return Gaussian(shapes, 0.3 * rng.normal(size=size), 0.1 * spd(rng, size))


def grid(rng, shape, fn):
    """A free-form factor within the support."""
    z = np.linspace(-6.0, 6.0, 80).reshape((-1,) + (1,) * len(shape)) * np.ones(shape)
    low = getattr(fn.support, "lower_bound", None)
    high = getattr(fn.support, "upper_bound", None)
    centred = -0.5 * (z - 0.3 * rng.normal(size=shape)) ** 2
    if low is None and high is None:
        return Grid(z, centred)
    if high is None:
        return Grid(np.exp(0.4 * z), centred - 0.4 * z)
    part = 1.0 / (1.0 + np.exp(-z))
    return Grid(low + (high - low) * part, centred - np.log(part * (1.0 - part)))


FACTORIES = {
    "gamma": lambda r, s, fn: Gamma(r.uniform(2, 6, s), r.uniform(1, 3, s)),
    "inverse_gamma": lambda r, s, fn: InverseGamma(r.uniform(3, 6, s), r.uniform(1, 3, s)),
    "beta": lambda r, s, fn: Beta(r.uniform(1, 6, s), r.uniform(1, 3, s)),
    "dirichlet": lambda r, s, fn: Dirichlet(r.uniform(1, 6, s)),
    "wishart": lambda r, s, fn: Wishart(s[-1] + 3.0 * np.ones(s[:-2]), spd(r, s[-1], s[:-2])),
    "categorical": lambda r, s, fn: Categorical(
        r.dirichlet(np.ones(fn.enumerate_support(expand=False).size), size=s)
    ),
    "grid": grid,
}
