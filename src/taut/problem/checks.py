"""What a model's sites are, and what is wrong with them, said before anything is compiled."""

import dataclasses
import inspect
import re
from collections.abc import Iterable, Mapping
from typing import Any

import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
from jax.core import Tracer
from numpyro.distributions.transforms import biject_to

from taut._core.errors import ArgumentError, DataError, ModelError, TautError, listing, nearest
from taut.problem import coordinates
from taut.problem.data import LazyColumns, Path, name_of

BY_NAME = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)


@dataclasses.dataclass(frozen=True)
class SiteFacts:
    """Static facts of one site, read off an abstract trace."""

    name: str
    kind: str  # latent, observed, factor, deterministic, param, subsampled
    shape: tuple[int, ...]
    distribution: str = ""
    support: str = ""
    plates: tuple[str, ...] = ()
    dims: tuple[str, ...] = ()
    unconstrained_shape: tuple[int, ...] = ()
    movable: bool = False
    discrete: bool = False
    num_values: int = 0
    batch_shape: tuple[int, ...] = ()
    event_dim: int = 0
    log_prob_shape: tuple[int, ...] = ()
    supportless: str = ""


# --- reading ----------------------------------------------------------------------------------


def read_sites(trace: Mapping[str, dict[str, Any]]) -> list[SiteFacts]:
    """Read the facts of every site of a trace."""
    return [fact for name, site in trace.items() if (fact := _facts_of(name, site)) is not None]


def subsampled(trace: Mapping[str, dict[str, Any]]) -> list[str]:
    """Plates that a trace has subsampled, in words."""
    plates = [(n, s["args"]) for n, s in trace.items() if s["type"] == "plate"]
    return [f"plate '{n}' ({k} of {size})" for n, (size, k) in plates if k not in (None, size)]


def _facts_of(name: str, site: Mapping[str, Any]) -> SiteFacts | None:
    kind = site["type"]
    if kind in ("deterministic", "param"):
        return SiteFacts(name, kind, tuple(jnp.shape(site["value"])))
    if kind == "plate" and "subsample_size" in site.get("infer", {}):
        return SiteFacts(name, "subsampled", (site["infer"]["subsample_size"], site["args"][0]))
    if kind != "sample":
        return None
    if isinstance(coordinates.unwrap(site["fn"]), dist.Unit):
        return SiteFacts(name, "factor", ())
    return _observed_facts(name, site) if site["is_observed"] else _latent_facts(name, site)


def _common_facts(name: str, shape: tuple[int, ...], site: Mapping[str, Any]) -> dict[str, Any]:
    fn, stack = site["fn"], site["cond_indep_stack"]
    return {
        "name": name,
        "shape": shape,
        "distribution": type(coordinates.unwrap(fn)).__name__,
        "plates": tuple(f.name for f in sorted(stack, key=lambda f: f.dim)),
        "dims": _dims(name, shape, fn.event_dim, stack),
        "batch_shape": tuple(fn.batch_shape),
        "event_dim": fn.event_dim,
    }


def _observed_facts(name: str, site: Mapping[str, Any]) -> SiteFacts:
    fn, value = site["fn"], site["value"]
    if isinstance(value, list | tuple | str | dict):
        raise DataError(
            f"observed site '{name}' was given a {type(value).__name__}; give it an array: lists are passed on "
            "to the model as they are, so write np.asarray(...) around the values in data"
        )
    shape = tuple(jnp.shape(value))
    try:
        log_prob = fn.log_prob(value)
    except (TypeError, ValueError) as error:
        if shape[len(shape) - fn.event_dim :] == fn.event_shape and _broadcasts(shape, fn.shape()):
            raise
        raise DataError(
            f"observed site '{name}' has values of shape {shape}, which do not fit its distribution's "
            f"shape {tuple(fn.shape())}{_plates_in_words(site)}"
        ) from error
    facts = _common_facts(name, shape, site)
    return SiteFacts(kind="observed", log_prob_shape=tuple(jnp.shape(log_prob)), **facts)


def _latent_facts(name: str, site: Mapping[str, Any]) -> SiteFacts:
    fn, shape = site["fn"], tuple(jnp.shape(site["value"]))
    facts = _common_facts(name, shape, site)
    if isinstance(coordinates.unwrap(fn), dist.Delta):
        raise ModelError(
            f"latent '{name}' is a Delta, a point mass without a density; "
            f"use numpyro.deterministic('{name}', value) for a value that is computed"
        )
    if fn.support is not None and fn.support.is_discrete:
        count = _num_values(fn)
        return SiteFacts(kind="latent", discrete=True, num_values=count, **facts)
    try:
        inner = tuple(biject_to(fn.support).inverse_shape(shape))
    except NotImplementedError:
        return SiteFacts(kind="latent", supportless=_name_of_support(fn.support), **facts)
    return SiteFacts(
        kind="latent",
        support=_name_of_support(fn.support),
        unconstrained_shape=inner,
        movable=coordinates.affine_of(fn) is not None and inner == shape,
        **facts,
    )


def _num_values(fn: Any) -> int:
    """Number of values of a discrete latent; 0 where they cannot be enumerated."""
    base = coordinates.unwrap(fn)
    if fn.event_dim or not base.has_enumerate_support:
        return 0
    return int(base.enumerate_support(expand=False).shape[0])


def _broadcasts(*shapes: tuple[int, ...]) -> bool:
    try:
        np.broadcast_shapes(*shapes)
    except ValueError:
        return False
    return True


def _plates_in_words(site: Mapping[str, Any]) -> str:
    frames = [f"'{f.name}' of size {f.size}" for f in site["cond_indep_stack"]]
    return f" (plate {', '.join(frames)})" if frames else ""


def _name_of_support(support: Any) -> str:
    while hasattr(support, "base_constraint"):
        support = support.base_constraint
    if _is_unit_interval(support):
        return "unit interval"
    name = type(support).__name__.strip("_").replace("_", " ")
    return re.sub(r"(?<=[a-z])(?=[A-Z])", " ", name).lower()


def _is_unit_interval(support: Any) -> bool:
    """Whether bounds are known to be 0 and 1, as of ``Uniform(0, 1)``."""
    bounds = [getattr(support, side, None) for side in ("lower_bound", "upper_bound")]
    if any(b is None or isinstance(b, Tracer) for b in bounds):
        return False
    return all(np.all(np.asarray(b) == want) for b, want in zip(bounds, (0.0, 1.0), strict=True))


def _dims(name: str, shape: tuple[int, ...], event_dim: int, stack: Any) -> tuple[str, ...]:
    """Name each axis: plates name theirs, the others are numbered as ArviZ does."""
    by_axis = {len(shape) - event_dim + frame.dim: frame for frame in stack}
    return tuple(
        by_axis[i].name if i in by_axis and by_axis[i].size == n else f"{name}_dim_{i}"
        for i, n in enumerate(shape)
    )


# --- checking ---------------------------------------------------------------------------------


def check_sites(facts: list[SiteFacts], observed: Mapping[str, Any]) -> None:
    """Refuse sites that cannot be inferred, and say what to do."""
    _check_observe(facts, observed)
    params = [f.name for f in facts if f.kind == "param"]
    if params:
        raise ModelError(
            f"the model has numpyro.param sites ({listing(params)}); they are trained with "
            "family=families.Point(), families.Amortised(...) or solver=solvers.Stochastic(), or with neither; "
            "or give them a prior with numpyro.sample"
        )
    latents = [f for f in facts if f.kind == "latent"]
    if not latents:
        raise ModelError(
            "the model has no latent variables, so there is nothing to infer; "
            f"its observed sites are {listing(f.name for f in facts if f.kind == 'observed')}"
        )
    _check_latents(latents)
    for fact in facts:
        if fact.kind == "observed":
            _check_broadcast(fact)


def _check_observe(facts: list[SiteFacts], observed: Mapping[str, Any]) -> None:
    known = [f.name for f in facts if f.kind in ("latent", "observed")]
    computed = [f.name for f in facts if f.kind == "deterministic"]
    for name in observed:
        if name in computed:
            raise ArgumentError(
                f"observe names '{name}', which is a deterministic site: only sites made by numpyro.sample "
                f"can be observed, which are {listing(known)}"
            )
        if name not in known:
            raise ArgumentError(
                f"observe names '{name}', which is not a site of the model{nearest(name, known) or ';'} "
                f"its sites are {listing(known)}"
            )


def _check_latents(latents: list[SiteFacts]) -> None:
    for fact in latents:
        if fact.discrete and not fact.num_values:
            raise ModelError(
                f"discrete latent '{fact.name}' ({fact.distribution}) has no finite list of values to sum over; "
                "use a Categorical, Bernoulli, Binomial or DiscreteUniform, truncated where its probability is "
                "negligible, or sum it out by hand (logsumexp in a numpyro.factor)"
            )
        if fact.supportless:
            raise ModelError(
                f"latent '{fact.name}' has support {fact.supportless}, which no bijection to the real line "
                "covers; reparameterise it, for circles and spheres with "
                "numpyro.infer.reparam.ProjectedNormalReparam or CircularReparam"
            )
        if 0 in fact.shape:
            raise DataError(
                f"latent '{fact.name}' has shape {fact.shape}, with no elements; "
                "check the data that set its size"
            )


def _check_broadcast(fact: SiteFacts) -> None:
    """Refuse values that silently broadcast against their distribution."""
    batch = fact.shape[: len(fact.shape) - fact.event_dim]
    counted = int(np.prod(fact.log_prob_shape, dtype=int))
    size = max(int(np.prod(batch, dtype=int)), int(np.prod(fact.batch_shape, dtype=int)))
    stretched = len(batch) == len(fact.batch_shape) and any(
        have == 1 and want > 1 for have, want in zip(batch, fact.batch_shape, strict=True)
    )
    if counted > size or stretched:
        raise DataError(
            f"observed site '{fact.name}' has values of shape {fact.shape} but its distribution has batch shape "
            f"{fact.batch_shape}: together they would broadcast to {fact.log_prob_shape}, counting every value "
            "several times. Give both the same shape, for a column vector y[:, 0] or y.ravel()"
        )


def structure_notes(facts: list[SiteFacts]) -> tuple[str, ...]:
    """Say what is unusual but allowed."""
    notes = [
        f"plate '{f.name}' subsamples {f.shape[0]} of {f.shape[1]} in the model; all of it was used"
        for f in facts
        if f.kind == "subsampled"
    ]
    if not any(f.kind in ("observed", "factor") for f in facts):
        notes.append(
            "the model has no observed site: the posterior is the prior. "
            "Pass the data, or observe={site: values}"
        )
    return tuple(notes)


def check_parameters(model: Any, parameters: Mapping[str, inspect.Parameter]) -> None:
    """Refuse models whose arguments cannot be given by name."""
    nameless = [
        n for n, p in parameters.items() if p.kind is p.POSITIONAL_ONLY and p.default is p.empty
    ]
    if nameless:
        raise ModelError(
            f"{model_name(model)} takes {listing(nameless)} by position only, but data are given by name: "
            "remove the '/' from its arguments"
        )
    only_star = [n for n, p in parameters.items() if p.kind is p.VAR_POSITIONAL]
    if only_star and not any(p.kind in (*BY_NAME, p.VAR_KEYWORD) for p in parameters.values()):
        raise ModelError(
            f"{model_name(model)} takes its data as *{only_star[0]}, but data are given by name: "
            "give its arguments names"
        )


def check_arguments(
    model: Any, data: Mapping[str, Any], named: Mapping[str, Any], takes_any: bool, required: bool
) -> None:
    """Compare names in ``data`` with the model's arguments."""
    name, known = model_name(model), list(named)
    if not takes_any and not isinstance(data, LazyColumns):
        for key in data:
            if key not in known:
                raise DataError(
                    f"data has '{key}', which is not an argument of {name}{nearest(key, known) or ';'} "
                    f"its arguments are {listing(known)}"
                )
    missing = [n for n, p in named.items() if p.default is p.empty and n not in data]
    if missing and required:
        hint = nearest(missing[0], [k for k in data if k not in known])
        raise DataError(
            f"{name} needs {listing(missing)}, which {'is' if len(missing) == 1 else 'are'} not in data"
            f"{hint or ';'} data has {listing(data)}"
        )


def model_name(model: Any) -> str:
    """The model's name, that of the function inside for partial objects."""
    name = getattr(model, "__name__", None) or getattr(
        getattr(model, "func", None), "__name__", None
    )
    return name or type(model).__name__


def model_failure(
    model: Any, arrays: Mapping[Path, Any], static: Mapping[Path, Any], error: Exception
) -> TautError:
    """Explain an exception that the model itself raised while being traced."""
    if isinstance(error, TautError):
        return error
    name, kind = model_name(model), type(error).__name__
    shapes = "The data have shapes: " + _shapes(arrays)
    text = next(iter(str(error).strip().splitlines()), "").rstrip(".") or kind
    if "TracerBool" in kind:
        return ModelError(
            f"{name} branches in Python on the value of a latent or of something computed from it ({text}); "
            "use jnp.where or jax.lax.cond instead"
        )
    if "TracerInteger" in kind or "Concretization" in kind or "TracerArray" in kind:
        return ModelError(
            f"{name} needs the value of a latent, or of something computed from it, as a plain number ({text}); "
            "use jax.numpy functions throughout"
        )
    if "unique names" in text:
        return ModelError(
            f"{name} uses one site name twice: {text}. Give every site a name of its own"
        )
    if isinstance(error, (ValueError, TypeError)) and re.search(
        "shape|broadcast|inhomogeneous", text
    ):
        return DataError(f"{name} fails on shapes: {text}. {shapes}{_lists(static)}")
    failure = DataError if "'list'" in text and _lists(static) else ModelError
    return failure(f"{name} raised {kind} while being traced: {text}. {shapes}{_lists(static)}")


def _shapes(arrays: Mapping[Path, Any]) -> str:
    return ", ".join(f"{name_of(p)} {np.shape(a)}" for p, a in arrays.items()) or "no arrays"


def _lists(static: Mapping[Path, Any]) -> str:
    """Point at lists among the data, which models often take for arrays."""
    lists: Iterable[str] = [
        name_of(p) for p, v in static.items() if isinstance(v, list | tuple) and v
    ]
    named = ", ".join(lists)
    return (
        f". {named} came as a list; if the model computes with it, pass np.asarray(...)"
        if named
        else ""
    )
