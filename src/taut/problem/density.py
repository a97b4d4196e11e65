"""Plain JAX log densities as problems."""

import dataclasses
import functools
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from numpyro.distributions import constraints
from numpyro.distributions.transforms import biject_to

from taut._core.errors import ArgumentError, DataError, ModelError, listing, nearest
from taut.problem.data import join, read, split
from taut.problem.types import Latent, Observed, Predictor, Problem, Program

SUPPORTS = {
    "real": constraints.real,
    "positive": constraints.positive,
    "unit_interval": constraints.unit_interval,
    "simplex": constraints.simplex,
    "ordered_vector": constraints.ordered_vector,
    "positive_ordered_vector": constraints.positive_ordered_vector,
    "corr_cholesky": constraints.corr_cholesky,
    "positive_definite": constraints.positive_definite,
    "lower_cholesky": constraints.lower_cholesky,
}


@dataclasses.dataclass(frozen=True, eq=False)
class Density:
    """A model given by its log density in plain JAX.

    Attributes:
        log_density: ``(latents, **data) -> scalar``: the log joint density of a dict of latents
            (in their own supports, no Jacobian) and the data, in nats. Any constant that it
            leaves out is missing from ELBO and evidence too.
        shapes: latent name -> shape.
        supports: latent name -> support: a name such as "real" (the default), "positive",
            "unit_interval", "simplex", "ordered_vector", or a NumPyro constraint.
        log_likelihood: optional ``(latents, **data) -> {observed name: pointwise log likelihood}``;
            without it there is no LOO.
        simulate: optional ``(key, latents, **data) -> {observed name: values}``; without it there
            is no posterior predictive.
    """

    log_density: Callable[..., Any]
    shapes: Mapping[str, tuple[int, ...]]
    supports: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    log_likelihood: Callable[..., dict[str, Any]] | None = None
    simulate: Callable[..., dict[str, Any]] | None = None
    _programs: dict[Any, Program] = dataclasses.field(default_factory=dict, repr=False)

    def __post_init__(self) -> None:
        """Check the description."""
        if not self.shapes:
            raise ModelError("shapes is empty: the density has no latent variables, so there is nothing to infer")
        for name in self.supports:
            if name not in self.shapes:
                raise ArgumentError(f"supports names '{name}', which is not in shapes{nearest(name, self.shapes) or ''}")
        for name in self.shapes:
            self.support(name)

    def support(self, name: str) -> Any:
        """The constraint of one latent."""
        support = self.supports.get(name, "real")
        if not isinstance(support, str):
            return support
        if support not in SUPPORTS:
            raise ArgumentError(
                f"support of '{name}' is '{support}', which is not known{nearest(support, SUPPORTS) or ';'} "
                f"known are {listing(SUPPORTS)}, or pass a numpyro constraint"
            )
        return SUPPORTS[support]


def from_density(density: Density, data: Any = None) -> Problem:
    """Describe a plain log density with data.

    Args:
        density: the log density and its latents.
        data: mapping of keyword arguments of ``log_density``.
    """
    columns = read(data)
    arrays, static = split({name: columns[name] for name in columns})
    key = (
        tuple(sorted((p, np.shape(a), str(np.result_type(a))) for p, a in arrays.items())),
        tuple(sorted((p, repr(v)) for p, v in static.items())),
    )
    if key not in density._programs:
        density._programs[key] = _program(density, arrays, static)
    return Problem(
        name=getattr(density.log_density, "__name__", "density"),
        program=density._programs[key],
        arrays={"data": join(arrays), "centring": {}},
        rebind=lambda data, observe=None: from_density(density, data),
        predictor=functools.partial(_predictor, density, data),
    )


def _predictor(density: Density, fitted_to: Any, new_data: Any = None, sites: tuple[str, ...] | None = None) -> Predictor:
    if density.simulate is None:
        raise ModelError("this Density has no simulate function, so it cannot predict; pass Density(..., simulate=...)")
    columns = read(fitted_to if new_data is None else new_data)
    arrays, static = split({name: columns[name] for name in columns})
    simulate = density.simulate
    if sites is not None:  # latents, whose shapes are declared
        zeros = {name: jnp.zeros(density.shapes[name]) for name in sites}
        return Predictor(lambda key, values, dynamic: zeros, arrays)
    return Predictor(lambda key, values, dynamic: simulate(key, values, **join(dynamic, static)), arrays)


def _program(density: Density, arrays: Mapping[Any, Any], static: Mapping[Any, Any]) -> Program:
    latents, start = [], 0
    for name, shape in density.shapes.items():
        support, shape = density.support(name), tuple(np.atleast_1d(np.asarray(shape, int))) if shape != () else ()
        shape = tuple(int(s) for s in shape)
        inner = tuple(biject_to(support).inverse_shape(shape))
        dims = tuple(f"{name}_dim_{i}" for i in range(len(shape)))
        latents.append(Latent(name, shape, str(density.supports.get(name, "real")), "", (), dims, inner, start))
        start = latents[-1].stop
    transforms = {s.name: biject_to(density.support(s.name)) for s in latents}

    def values_of(u: Any) -> tuple[dict[str, Any], Any]:
        values, log_det = {}, 0.0
        for s in latents:
            v = u[s.slice].reshape(s.unconstrained_shape)
            values[s.name] = transforms[s.name](v)
            log_det = log_det + jnp.sum(transforms[s.name].log_abs_det_jacobian(v, values[s.name]))
        return values, log_det

    def call(fn: Callable[..., Any], *args: Any, arrays: Any) -> Any:
        return fn(*args, **join(split(arrays["data"])[0], static))

    def log_joint_sites(u: Any, arrays: Any) -> dict[str, Any]:
        values, log_det = values_of(u)
        total = call(density.log_density, values, arrays=arrays)
        if jnp.shape(total) != ():
            raise ModelError(f"log_density must return a scalar, got shape {jnp.shape(total)}; sum it")
        return {"log_density": total + log_det}

    def unconstrain(values: Mapping[str, Any], arrays: Any) -> Any:
        return jnp.concatenate([jnp.ravel(transforms[s.name].inv(jnp.asarray(values[s.name], float))) for s in latents])

    def log_likelihood(u: Any, arrays: Any) -> dict[str, Any]:
        if density.log_likelihood is None:
            raise ModelError("this Density has no pointwise log_likelihood; pass Density(..., log_likelihood=...)")
        return call(density.log_likelihood, values_of(u)[0], arrays=arrays)

    program = Program(
        log_joint_sites=log_joint_sites,
        constrain=lambda u, arrays: values_of(u)[0],
        unconstrain=unconstrain,
        log_likelihood=log_likelihood,
        observed_values=lambda arrays: {},
        latents=tuple(latents),
        observed=_observed(density, latents, arrays, static),
        deterministic={},
    )
    return program


def _observed(density: Density, latents: list[Latent], arrays: Any, static: Any) -> tuple[Observed, ...]:
    """Names and shapes of what ``log_likelihood`` or ``simulate`` returns."""
    values = {s.name: jax.ShapeDtypeStruct(s.shape, jnp.float64) for s in latents}
    kwargs = {p: a for p, a in arrays.items()}

    def run(values: Any, arrays: Any) -> Any:
        data = join(dict(zip(kwargs, arrays, strict=True)), static)
        if density.simulate is not None:
            return density.simulate(jax.random.key(0), values, **data)
        return density.log_likelihood(values, **data) if density.log_likelihood is not None else {}

    try:
        found = jax.eval_shape(run, values, list(kwargs.values()))
    except Exception as error:
        raise DataError(f"the Density's functions fail on these data: {str(error).splitlines()[0]}") from error
    return tuple(
        Observed(n, tuple(v.shape), "", (), tuple(f"{n}_dim_{i}" for i in range(len(v.shape)))) for n, v in found.items()
    )
