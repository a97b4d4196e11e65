"""What a case of the zoo is, and the Monte Carlo truth that E_q[log p] is checked against."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
from numpyro import handlers

from taut._core.precision import double_precision

FACTORS = (
    "gaussian",  # in the one joint Gaussian block, over unconstrained coordinates (biject_to)
    "gaussian:own",  # in a Gaussian block of its own, over its unconstrained coordinates
    "gamma",
    "inverse_gamma",
    "beta",
    "dirichlet",
    "wishart",
    "categorical",
    "grid",
)
METHODS = ("exact", "quadrature", "draws")  # from the strongest to the weakest

Model = Callable[..., None]
Draws = Mapping[str, Any]


@dataclass(frozen=True)
class Case:
    """A model, a q and how its expected log joint should be found.

    Attributes:
        name: unique.
        model: a NumPyro model.
        data: keyword arguments of the model; arrays have 5 to 40 rows.
        factors: latent -> one of FACTORS. Factors of different latents are independent, but for
            those called "gaussian".
        method: the weakest of METHODS that a site of the model needs, constants aside.
    """

    name: str
    model: Model
    data: Mapping[str, Any]
    factors: Mapping[str, str]
    method: str


def register(
    cases: list[Case], name: str, method: str, factors: Mapping[str, str], **data: Any
) -> Callable[[Model], Model]:
    """Decorate a model: append the case that it makes to ``cases``."""

    def add(model: Model) -> Model:
        cases.append(Case(name, model, data, factors, method))
        return model

    return add


class Mean(NamedTuple):
    """An estimated mean and its standard error, both in nats."""

    mean: float
    error: float


def site_log_probs(case: Case, latents: Draws) -> dict[str, jax.Array]:
    """Log probability of each sample site, summed over its elements, in nats.

    Args:
        case: whose model is run; its plates' scales and masks count.
        latents: one value for every latent, in its own support.
    """
    model = handlers.substitute(handlers.seed(case.model, 0), data=dict(latents))
    trace = handlers.trace(model).get_trace(**case.data)
    sites = {name: site for name, site in trace.items() if site["type"] == "sample"}
    found = {name for name, site in sites.items() if not site["is_observed"]}
    assert found == set(latents), f"latents of {case.name}: {sorted(found)}"
    return {
        name: jnp.sum(site["fn"].log_prob(site["value"]) * (site["scale"] or 1.0))
        for name, site in sites.items()
    }


def monte_carlo(
    case: Case, q_sampler: Callable[[int], Draws], num: int, chunk: int = 10_000
) -> dict[str, Mean]:
    """Estimate the mean of each site's log probability under q, by independent draws.

    Args:
        case: the model and its data.
        q_sampler: given n, draws latent -> (n, *shape), each in its own support (what the model's
            sample statement would return). Called once for every chunk; it must give new draws.
        num: number of draws.
        chunk: draws evaluated at once.

    Returns:
        Site -> mean and standard error in nats. "total" is the log joint, whose standard error
        is not the sum of its sites': they share the draws.
    """
    with double_precision():
        evaluate = jax.jit(jax.vmap(lambda latents: site_log_probs(case, latents)))
        parts = []
        for start in range(0, num, chunk):
            draws = q_sampler(min(chunk, num - start))
            logs = evaluate({name: jnp.asarray(value) for name, value in draws.items()})
            parts.append({name: np.asarray(value) for name, value in logs.items()})
    values = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
    values["total"] = np.sum(list(values.values()), axis=0)
    root = np.sqrt(num)
    return {k: Mean(float(v.mean()), float(v.std(ddof=1) / root)) for k, v in values.items()}


def latents_of(case: Case) -> dict[str, dict[str, Any]]:
    """The traced sites of the latents, by name."""
    with double_precision():
        trace = handlers.trace(handlers.seed(case.model, 0)).get_trace(**case.data)
    return {
        name: site
        for name, site in trace.items()
        if site["type"] == "sample" and not site["is_observed"]
    }


def spread_draws(case: Case, seed: int, scale: float = 0.3) -> Callable[[int], Draws]:
    """A sampler of some q: normals around zero in unconstrained coordinates, uniform labels.

    It serves to see that a model runs at all; it is no particular factor.
    """
    sites, rng = latents_of(case), np.random.default_rng(seed)

    def draw(name: str, num: int) -> Any:
        fn, shape = sites[name]["fn"], np.shape(sites[name]["value"])
        if case.factors[name] == "categorical":
            return rng.integers(0, fn.enumerate_support(expand=False).size, (num, *shape))
        transform = dist.biject_to(fn.support)
        unconstrained = transform.inverse_shape(shape)
        return jax.vmap(transform)(jnp.asarray(scale * rng.standard_normal((num, *unconstrained))))

    def sample(num: int) -> Draws:
        with double_precision():
            return {name: draw(name, num) for name in sites}

    return sample
