"""Plain JAX log densities as problems."""

import dataclasses
import functools
import inspect
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from numpyro.distributions import constraints
from numpyro.distributions.transforms import biject_to

from taut._core.errors import ArgumentError, DataError, ModelError, listing, nearest
from taut._core.precision import double_precision
from taut._core.tracing import shapes_of
from taut.problem.checks import BY_NAME, model_failure, model_name
from taut.problem.data import LazyColumns, Path, join, read, split
from taut.problem.identity import fingerprint
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
            raise ModelError(
                "shapes is empty: the density has no latent variables, so there is nothing to infer"
            )
        for name in self.supports:
            if name not in self.shapes:
                raise ArgumentError(
                    f"supports names '{name}', which is not in shapes{nearest(name, self.shapes) or ''}"
                )
        for name in self.shapes:
            self.support(name)

    def support(self, name: str) -> Any:
        """Return the constraint of one latent.

        Args:
            name: of the latent.

        Raises:
            ArgumentError: if its support is given by a name that is not known.
        """
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

    Raises:
        DataError: if the data do not fit the arguments of the density's functions.
        ModelError: if the log density fails or is no scalar.
    """
    with double_precision():
        columns = read(data)
        _check_names(density, columns)
        arrays, static = split({name: columns[name] for name in columns})
        shapes = sorted((p, np.shape(a), str(jax.dtypes.result_type(a))) for p, a in arrays.items())
        functions = (density.log_density, density.log_likelihood, density.simulate)
        key = (tuple(shapes), fingerprint((functions, sorted(static.items(), key=lambda i: i[0]))))
        if key not in density._programs:
            density._programs[key] = _program(density, arrays, static)
    return Problem(
        name=model_name(density.log_density),
        program=density._programs[key],
        arrays={"data": join(arrays), "centring": {}},
        rebind=lambda more, observe=None: from_density(density, read(more, like=data)),
        predictor=functools.partial(predictor, density, data),
    )


def predictor(
    density: Density, fitted_to: Any, new_data: Any = None, sites: tuple[str, ...] | None = None
) -> Predictor:
    """Return what simulates the observed values for other data.

    Args:
        density: the density with its ``simulate``.
        fitted_to: data of the fit, or None where they are not at hand.
        new_data: data to predict for; None for those of the fit.
        sites: latents to return zeros for, in their declared shapes; None simulates.
    """
    simulate = density.simulate
    if simulate is None:
        raise ModelError(
            "this Density has no simulate function, so it cannot predict; pass Density(..., simulate=...)"
        )
    columns = read(fitted_to) if new_data is None else read(new_data, like=fitted_to)
    arrays, static = split({name: columns[name] for name in columns})
    if sites is not None:
        zeros = {name: jnp.zeros(density.shapes[name]) for name in sites}
        return Predictor(lambda key, values, dynamic: zeros, arrays)

    def run(key: Any, values: Mapping[str, Any], dynamic: Mapping[Path, Any]) -> dict[str, Any]:
        return _call(simulate, key, values, data=join(dynamic, static))

    return Predictor(run, arrays)


def _parameters(fn: Callable[..., Any], given: int) -> tuple[dict[str, inspect.Parameter], bool]:
    """Arguments that data can fill, after the first ``given`` ones, and whether any name is taken."""
    parameters = list(inspect.signature(fn).parameters.values())
    takes_any = any(p.kind is p.VAR_KEYWORD for p in parameters)
    return {p.name: p for p in parameters[given:] if p.kind in BY_NAME}, takes_any


def _call(fn: Callable[..., Any], *args: Any, data: Mapping[str, Any]) -> Any:
    """Call one of the density's functions with those data that it takes."""
    named, takes_any = _parameters(fn, len(args))
    return fn(*args, **{k: v for k, v in data.items() if takes_any or k in named})


def _check_names(density: Density, data: Mapping[str, Any]) -> None:
    needs, takes_any = _parameters(density.log_density, 1)
    known, any_name = set(needs), takes_any
    for fn, given in ((density.log_likelihood, 1), (density.simulate, 2)):
        if fn is not None:
            more, takes_any = _parameters(fn, given)
            known, any_name = known | set(more), any_name or takes_any
    if not any_name and not isinstance(data, LazyColumns):
        for key in data:
            if key not in known:
                raise DataError(
                    f"data has '{key}', which is not an argument of the density's functions"
                    f"{nearest(key, known) or ';'} their arguments are {listing(sorted(known))}"
                )
    missing = [n for n, p in needs.items() if p.default is p.empty and n not in data]
    if missing:
        raise DataError(
            f"log_density needs {listing(missing)}, which {'is' if len(missing) == 1 else 'are'} not in data; "
            f"data has {listing(data)}"
        )


def _place(density: Density) -> tuple[Latent, ...]:
    """Give each latent its slice of the flat vector."""
    latents: list[Latent] = []
    for name, given in density.shapes.items():
        shape = tuple(int(n) for n in ((given,) if isinstance(given, int) else given))
        try:
            inner = tuple(biject_to(density.support(name)).inverse_shape(shape))
        except (NotImplementedError, ValueError) as error:
            raise ModelError(
                f"latent '{name}' of shape {shape} cannot have support {density.supports.get(name, 'real')}: {error}"
            ) from error
        dims = tuple(f"{name}_dim_{i}" for i in range(len(shape)))
        start = latents[-1].stop if latents else 0
        support = str(density.supports.get(name, "real"))
        latents.append(Latent(name, shape, support, "", (), dims, inner, start))
    if not any(s.size for s in latents):
        raise ModelError(f"the latents have no elements: shapes is {dict(density.shapes)}")
    return tuple(latents)


def _program(density: Density, arrays: Mapping[Any, Any], static: Mapping[Any, Any]) -> Program:
    latents = _place(density)
    transforms = {s.name: biject_to(density.support(s.name)) for s in latents}

    def values_of(u: Any) -> tuple[dict[str, Any], Any]:
        values, log_det = {}, 0.0
        for s in latents:
            v = u[s.slice].reshape(s.unconstrained_shape)
            values[s.name] = transforms[s.name](v)
            log_det = log_det + jnp.sum(transforms[s.name].log_abs_det_jacobian(v, values[s.name]))
        return values, log_det

    def data_of(arrays: Any) -> dict[str, Any]:
        return join(split(arrays["data"])[0], static)

    def log_joint_sites(u: Any, arrays: Any) -> dict[str, Any]:
        values, log_det = values_of(u)
        total = _call(density.log_density, values, data=data_of(arrays))
        return {"log_density": jnp.asarray(total, u.dtype) + log_det}

    def densities(
        given: Mapping[str, Any], arrays: Any, own: frozenset[str], log_density: Any
    ) -> dict[str, Any]:
        values, log_det = dict(given), 0.0
        for name in given:
            if name not in own:
                values[name] = transforms[name](given[name])
                log_det += jnp.sum(transforms[name].log_abs_det_jacobian(given[name], values[name]))
        return {"log_density": _call(density.log_density, values, data=data_of(arrays)) + log_det}

    def unconstrain(values: Mapping[str, Any], arrays: Any) -> Any:
        return jnp.concatenate(
            [jnp.ravel(transforms[s.name].inv(jnp.asarray(values[s.name], float))) for s in latents]
        )

    def log_likelihood(u: Any, arrays: Any) -> dict[str, Any]:
        if density.log_likelihood is None:
            raise ModelError(
                "this Density has no pointwise log_likelihood; pass Density(..., log_likelihood=...)"
            )
        return _call(density.log_likelihood, values_of(u)[0], data=data_of(arrays))

    return Program(
        log_joint_sites=log_joint_sites,
        constrain=lambda u, arrays: values_of(u)[0],
        unconstrain=unconstrain,
        log_likelihood=log_likelihood,
        observed_values=lambda arrays: {},
        densities=densities,
        latents=latents,
        observed=_observed(density, latents, arrays, static),
        deterministic={},
    )


def _observed(
    density: Density,
    latents: tuple[Latent, ...],
    arrays: Mapping[Path, Any],
    static: Mapping[Path, Any],
) -> tuple[Observed, ...]:
    """Run the density's functions abstractly; names and shapes of what is observed."""
    values = {s.name: jax.ShapeDtypeStruct(s.shape, jnp.float64) for s in latents}

    def run(values: Any, given: list[Any]) -> Any:
        data = join(dict(zip(arrays, given, strict=True)), static)
        total = _call(density.log_density, values, data=data)
        if jnp.shape(total) != ():
            raise ModelError(
                f"log_density must return a scalar, got shape {jnp.shape(total)}; sum it"
            )
        if density.simulate is not None:
            return _call(density.simulate, jax.random.key(0), values, data=data)
        if density.log_likelihood is not None:
            return _call(density.log_likelihood, values, data=data)
        return {}

    try:
        found = jax.eval_shape(run, values, shapes_of(list(arrays.values())))
    except Exception as error:
        raise model_failure(density.log_density, arrays, static, error) from error
    return tuple(
        Observed(n, tuple(v.shape), "", (), tuple(f"{n}_dim_{i}" for i in range(len(v.shape))))
        for n, v in found.items()
    )
