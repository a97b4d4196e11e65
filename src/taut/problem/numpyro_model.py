"""NumPyro model functions as problems."""

import collections
import dataclasses
import functools
import inspect
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
from numpyro import handlers
from numpyro.distributions.transforms import biject_to
from numpyro.infer import init_to_uniform
from numpyro.primitives import Messenger

from taut._core.tracing import dependencies, shapes_of
from taut.problem import checks, coordinates
from taut.problem.data import Path, fingerprint, join, name_of, read, split
from taut.problem.types import Arrays, Latent, Observed, Predictor, Problem, Program

Model = Callable[..., Any]
Trace = Mapping[str, dict[str, Any]]
LOG_DET = "_{}_log_det"
_PROGRAMS: collections.OrderedDict[Any, tuple[Program, frozenset[Path]]] = collections.OrderedDict()
_PREDICTORS: dict[Any, Any] = {}
_MAX_PROGRAMS = 64


def from_numpyro(model: Model, data: Any = None, observe: Mapping[str, Any] | None = None) -> Problem:
    """Describe a NumPyro model conditioned on data.

    Args:
        model: a NumPyro model function.
        data: mapping of the model's keyword arguments, or a data frame with them as columns.
        observe: values of any sites to condition on, by site name.

    Returns:
        The problem. Arrays are arguments of its functions; other values are static.

    Raises:
        DataError: if the data do not fit the model's arguments.
        ModelError: if the model cannot be traced or has nothing that can be inferred.
    """
    kwargs = bind_arguments(model, read(data))
    arrays, static = split(kwargs)
    observed = {name: np.asarray(value) for name, value in (observe or {}).items()}
    key = _key(model, arrays, static, observed)
    if key not in _PROGRAMS:
        _PROGRAMS[key] = _read_program(model, arrays, static, observed)
        while len(_PROGRAMS) > _MAX_PROGRAMS:
            _PROGRAMS.popitem(last=False)
    program, concrete = _PROGRAMS[key]
    if concrete:  # arrays whose values set shapes: part of the structure, so their content is part of the key
        key = (*key, tuple(fingerprint(np.asarray(arrays[p])) for p in sorted(concrete)))
        if key not in _PROGRAMS:
            _PROGRAMS[key] = _read_program(model, arrays, static, observed)
        program, concrete = _PROGRAMS[key]
    dynamic = {path: value for path, value in arrays.items() if path not in concrete}
    return Problem(
        name=getattr(model, "__name__", type(model).__name__),
        program=program,
        arrays={
            "data": join(dynamic),
            "observe": observed,
            "centring": {s.name: np.zeros(s.centring) for s in program.latents if s.centring is not None},
        },
        rebind=functools.partial(from_numpyro, model, observe=observe),
        predictor=functools.partial(_predictor, model, observe, tuple(s.name for s in program.observed), data),
        relations=functools.partial(_relations, model, kwargs, observed),
    )


def _key(model: Model, arrays: Mapping[Path, Any], static: Mapping[Path, Any], observed: Mapping[str, Any]) -> Any:
    shapes = tuple(sorted((p, np.shape(a), str(np.result_type(a))) for p, a in {**arrays}.items()))
    sites = tuple(sorted((n, np.shape(a), str(np.result_type(a))) for n, a in observed.items()))
    try:
        hash(model)
    except TypeError:
        model = id(model)  # type: ignore[assignment]
    return model, shapes, sites, tuple(sorted((p, fingerprint(v)) for p, v in static.items()))


def bind_arguments(model: Model, data: Mapping[str, Any], response_optional: bool = False) -> dict[str, Any]:
    """Match data to the model's arguments.

    Args:
        model: the model function.
        data: values by name; of a frame, only columns that the model asks for are taken.
        response_optional: give None to arguments that are missing (for prediction).

    Raises:
        DataError: if an argument is missing or a name is not an argument of the model.
    """
    parameters = inspect.signature(model).parameters
    takes_any = any(p.kind is p.VAR_KEYWORD for p in parameters.values())
    named = {n: p for n, p in parameters.items() if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)}
    checks.check_arguments(model, data, parameters, takes_any, None if response_optional else named)
    names = [n for n in data if takes_any or n in named]
    bound = {name: data[name] for name in names}
    if response_optional:
        bound.update({n: None for n, p in named.items() if n not in bound and p.default is p.empty})
    return bound


# --- running the model ------------------------------------------------------------------------


def _run(model: Model, kwargs: Mapping[str, Any], observed: Mapping[str, Any], substitute_fn: Any, key: Any) -> Trace:
    """Trace the model with sites substituted by ``substitute_fn`` and conditioned on ``observed``."""
    conditioned = handlers.condition(model, data=dict(observed)) if observed else model
    substituted = handlers.substitute(handlers.seed(conditioned, key), substitute_fn=substitute_fn)
    return handlers.trace(substituted).get_trace(**kwargs)


def _substitute_unconstrained(values: Mapping[str, Any], centring: Mapping[str, Any], site: dict[str, Any]) -> Any:
    """Give a latent site its value from coordinates and add the log Jacobian as a factor."""
    name = site["name"]
    if site["type"] != "sample" or site["is_observed"] or name not in values:
        return None
    u, lam = values[name], centring.get(name)
    index = site["infer"].get("_scan_current_index", None)
    if index is not None and jnp.ndim(u) > len(_domain_shape(site["fn"])):
        u, lam = u[index], None if lam is None else lam[index]
    value, log_det = coordinates.constrain(site["fn"], u, lam)
    numpyro.factor(LOG_DET.format(name), log_det)
    return value


def _domain_shape(fn: Any) -> tuple[int, ...]:
    return tuple(biject_to(fn.support).inverse_shape(fn.shape()))


def _is_factor(site: Mapping[str, Any]) -> bool:
    return isinstance(coordinates.unwrap(site["fn"]), numpyro.distributions.Unit)


def _is_latent(site: Mapping[str, Any]) -> bool:
    return site["type"] == "sample" and not site["is_observed"]


def _log_prob(site: Mapping[str, Any]) -> Any:
    """Pointwise log density of a traced site."""
    if site["intermediates"]:
        return site["fn"].log_prob(site["value"], site["intermediates"])
    return site["fn"].log_prob(site["value"])


class _Functions:
    """The pure functions of one model structure."""

    def __init__(self, model: Model, fixed: Mapping[Path, Any], latents: tuple[Latent, ...]) -> None:
        self.model, self.fixed, self.latents = model, fixed, latents

    def kwargs(self, arrays: Arrays) -> dict[str, Any]:
        dynamic, _ = split(arrays["data"])
        return join(dynamic, self.fixed)

    def unravel(self, u: Any) -> dict[str, Any]:
        return {s.name: u[s.slice].reshape(s.unconstrained_shape) for s in self.latents}

    def trace(self, u: Any, arrays: Arrays) -> Trace:
        return self.trace_sites(self.unravel(u), arrays)

    def trace_sites(self, values: Mapping[str, Any], arrays: Arrays) -> Trace:
        substitute = functools.partial(_substitute_unconstrained, values, arrays["centring"])
        return _run(self.model, self.kwargs(arrays), arrays["observe"], substitute, jax.random.key(0))

    def log_joint_sites(self, u: Any, arrays: Arrays) -> dict[str, Any]:
        totals: dict[str, Any] = {}
        jacobians = {LOG_DET.format(s.name): s.name for s in self.latents}
        for name, site in self.trace(u, arrays).items():
            if site["type"] != "sample":
                continue
            value = jnp.sum(_log_prob(site))
            if name not in jacobians and site["scale"] is not None:
                value = value * site["scale"]
            owner = jacobians.get(name, name)
            totals[owner] = totals.get(owner, 0.0) + jnp.asarray(value, u.dtype)
        return totals

    def constrain(self, u: Any, arrays: Arrays) -> dict[str, Any]:
        latents = {s.name for s in self.latents}
        return {
            name: jnp.asarray(site["value"])
            for name, site in self.trace(u, arrays).items()
            if name in latents or site["type"] == "deterministic"
        }

    def unconstrain(self, values: Mapping[str, Any], arrays: Arrays) -> Any:
        names = {s.name for s in self.latents}
        trace = _run(
            self.model,
            self.kwargs(arrays),
            arrays["observe"],
            lambda site: jnp.asarray(values[site["name"]], float) if site["name"] in names else None,
            jax.random.key(0),
        )
        parts = [
            coordinates.unconstrain(trace[s.name]["fn"], trace[s.name]["value"], arrays["centring"].get(s.name))
            for s in self.latents
        ]
        return jnp.concatenate([jnp.ravel(p) for p in parts])

    def observed(self, u: Any, arrays: Arrays) -> Trace:
        return {
            name: site
            for name, site in self.trace(u, arrays).items()
            if site["type"] == "sample" and site["is_observed"] and not _is_factor(site)
        }

    def log_likelihood(self, u: Any, arrays: Arrays) -> dict[str, Any]:
        return {name: _log_prob(site) for name, site in self.observed(u, arrays).items()}

    def observed_values(self, arrays: Arrays) -> dict[str, Any]:
        point = jnp.zeros(sum(s.size for s in self.latents))
        return {name: site["value"] for name, site in self.observed(point, arrays).items()}


class _unobserve(Messenger):  # noqa: N801 - NumPyro names handlers in lower case
    """Handler that forgets the values of observed sites, so that they are drawn anew."""

    def __init__(self, fn: Model, names: tuple[str, ...]) -> None:
        super().__init__(fn)
        self.names = names

    def process_message(self, msg: dict[str, Any]) -> None:
        """Turn the named observed sites into sites to be drawn."""
        if msg["type"] == "sample" and msg["is_observed"] and msg["name"] in self.names:
            msg["is_observed"], msg["value"] = False, None


# --- reading the structure --------------------------------------------------------------------


def _read_program(
    model: Model, arrays: Mapping[Path, Any], static: Mapping[Path, Any], observed: Mapping[str, Any]
) -> tuple[Program, frozenset[Path]]:
    concrete = _concrete_arrays(model, arrays, static, observed)
    dynamic = {p: a for p, a in arrays.items() if p not in concrete}
    fixed = {**static, **{p: arrays[p] for p in concrete}}
    facts = _facts(model, dynamic, fixed, observed)
    checks.check_sites(model, facts, observed)
    latents = _place(facts)
    functions = _Functions(model, fixed, latents)
    example: Arrays = shapes_of(
        {
            "data": join(dynamic),
            "observe": dict(observed),
            "centring": {s.name: np.zeros(s.centring) for s in latents if s.centring is not None},
        }
    )
    latents = _with_parents(functions, latents, example)
    functions.latents = latents
    notes = tuple(f"data {name_of(p)} is static: the model needs its values to set shapes" for p in sorted(concrete))
    program = Program(
        log_joint_sites=functions.log_joint_sites,
        constrain=functions.constrain,
        unconstrain=functions.unconstrain,
        log_likelihood=functions.log_likelihood,
        observed_values=functions.observed_values,
        latents=latents,
        observed=tuple(
            Observed(f.name, f.shape, f.distribution, f.plates, f.dims) for f in facts if f.kind == "observed"
        ),
        deterministic={f.name: f.shape for f in facts if f.kind == "deterministic"},
        notes=notes + checks.structure_notes(facts),
    )
    return program, concrete


def _abstract_trace(
    model: Model, dynamic: Mapping[Path, Any], fixed: Mapping[Path, Any], observed: Mapping[str, Any], inspect_trace: Any
) -> Any:
    """Run the model without computing anything and return what ``inspect_trace`` reads off it."""
    found: list[Any] = []

    def run(arrays: Mapping[Path, Any], values: Mapping[str, Any]) -> int:
        found[:] = [
            inspect_trace(
                _run(model, join(dict(zip(paths, arrays, strict=True)), fixed), values, init_to_uniform, jax.random.key(0))
            )
        ]
        return 0

    paths = list(dynamic)
    jax.eval_shape(run, shapes_of([dynamic[p] for p in paths]), shapes_of(dict(observed)))
    return found[0]


def _concrete_arrays(
    model: Model, arrays: Mapping[Path, Any], static: Mapping[Path, Any], observed: Mapping[str, Any]
) -> frozenset[Path]:
    """Find the arrays whose values the model needs while it is traced (for shapes or branches)."""

    def traces(concrete: frozenset[Path]) -> Exception | None:
        dynamic = {p: a for p, a in arrays.items() if p not in concrete}
        fixed = {**static, **{p: np.asarray(arrays[p]) for p in concrete}}
        try:
            _abstract_trace(model, dynamic, fixed, observed, lambda trace: None)
        except (jax.errors.JAXTypeError, jax.errors.JAXIndexError, NotImplementedError) as error:
            return error
        except Exception as error:
            raise checks.model_failure(model, arrays, static, error) from error
        return None

    if traces(frozenset()) is None:
        return frozenset()
    concrete = frozenset(arrays)
    error = traces(concrete)
    if error is not None:
        raise checks.model_failure(model, arrays, static, error) from error
    for path in arrays:
        if traces(concrete - {path}) is None:
            concrete -= {path}
    return concrete


def _facts(
    model: Model, dynamic: Mapping[Path, Any], fixed: Mapping[Path, Any], observed: Mapping[str, Any]
) -> list[checks.SiteFacts]:
    return _abstract_trace(model, dynamic, fixed, observed, checks.read_sites)


def _place(facts: list[checks.SiteFacts]) -> tuple[Latent, ...]:
    """Give each latent its slice of the flat vector."""
    latents, start = [], 0
    for fact in facts:
        if fact.kind != "latent":
            continue
        latent = Latent(
            name=fact.name,
            shape=fact.shape,
            support=fact.support,
            distribution=fact.distribution,
            plates=fact.plates,
            dims=fact.dims,
            unconstrained_shape=fact.unconstrained_shape,
            start=start,
            centring=fact.unconstrained_shape if fact.movable else None,
        )
        latents.append(latent)
        start = latent.stop
    return tuple(latents)


def _with_parents(functions: _Functions, latents: tuple[Latent, ...], example: Arrays) -> tuple[Latent, ...]:
    """Record which latents each movable prior's location and scale depend on."""

    def affines(values: dict[str, Any], arrays: Arrays) -> dict[str, Any]:
        trace = functions.trace_sites(values, {**arrays, "centring": {}})
        return {s.name: coordinates.affine_of(trace[s.name]["fn"]) for s in latents if s.centring is not None}

    if not any(s.centring is not None for s in latents):
        return latents
    inputs = {s.name: jax.ShapeDtypeStruct(s.unconstrained_shape, jnp.float64) for s in latents}
    parents = dependencies(affines, inputs, example)
    return tuple(dataclasses.replace(s, parents=tuple(sorted(parents.get(s.name, ())))) for s in latents)


# --- other data, and the graph ----------------------------------------------------------------


def _predictor(
    model: Model, observe: Mapping[str, Any] | None, names: tuple[str, ...], fitted_to: Any,
    new_data: Any = None, sites: tuple[str, ...] | None = None,
) -> Predictor:  # fmt: skip
    """A function that draws the observed sites for other data; missing responses are None."""
    kwargs = bind_arguments(model, read(fitted_to if new_data is None else new_data), response_optional=new_data is not None)
    arrays, static = split(kwargs)
    fixed_sites = {n: np.asarray(v) for n, v in (observe or {}).items() if n not in names}
    wanted = names if sites is None else sites
    key = ("predict", _key(model, arrays, static, fixed_sites), wanted)
    if key not in _PREDICTORS or _PREDICTORS[key][1]:  # where values set shapes, the cache does not hold
        _PREDICTORS[key] = _simulator(model, names, wanted, fixed_sites, arrays, static)
    simulate, concrete = _PREDICTORS[key]
    return Predictor(simulate, {p: a for p, a in arrays.items() if p not in concrete})


def _simulator(
    model: Model, names: tuple[str, ...], wanted: tuple[str, ...], sites: Mapping[str, Any],
    arrays: Mapping[Path, Any], static: Mapping[Path, Any],
) -> tuple[Any, frozenset[Path]]:  # fmt: skip
    def build(fixed: Mapping[Path, Any]) -> Any:
        def simulate(key: Any, values: Mapping[str, Any], dynamic: Mapping[Path, Any]) -> dict[str, Any]:
            conditioned = handlers.condition(model, data=dict(sites)) if sites else model
            replay = handlers.substitute(handlers.seed(_unobserve(conditioned, names), key), data=dict(values))
            trace = handlers.trace(replay).get_trace(**join(dynamic, fixed))
            return {n: trace[n]["value"] for n in wanted}

        return simulate

    try:
        simulate = build(static)
        jax.eval_shape(lambda a: simulate(jax.random.key(0), {}, a), shapes_of(dict(arrays)))
        return simulate, frozenset()
    except (jax.errors.JAXTypeError, jax.errors.JAXIndexError):
        return build({**static, **{p: np.asarray(a) for p, a in arrays.items()}}), frozenset(arrays)
    except NotImplementedError:  # an improper prior cannot be drawn from; its value is given at run time
        return simulate, frozenset()
    except Exception as error:
        raise checks.model_failure(model, arrays, static, error) from error


def _relations(model: Model, kwargs: Mapping[str, Any], observed: Mapping[str, Any]) -> dict[str, Any]:
    from numpyro.infer.inspect import get_model_relations

    conditioned = handlers.condition(model, data=dict(observed)) if observed else model
    return get_model_relations(conditioned, model_kwargs=dict(kwargs))
