"""What a model's sites are, and what is wrong with them, said before anything is compiled."""

import dataclasses
from collections.abc import Mapping
from typing import Any

import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
from numpyro.distributions.transforms import biject_to

from taut._core.errors import ArgumentError, DataError, ModelError, TautError, listing, nearest
from taut.problem import coordinates
from taut.problem.data import LazyColumns, Path, name_of


@dataclasses.dataclass(frozen=True)
class SiteFacts:
    """Static facts of one site, read off an abstract trace."""

    name: str
    kind: str  # latent, observed, factor, deterministic, param
    shape: tuple[int, ...]
    distribution: str = ""
    support: str = ""
    plates: tuple[str, ...] = ()
    dims: tuple[str, ...] = ()
    unconstrained_shape: tuple[int, ...] = ()
    movable: bool = False
    discrete: bool = False
    batch_shape: tuple[int, ...] = ()
    event_dim: int = 0
    log_prob_shape: tuple[int, ...] = ()
    supportless: str = ""


def read_sites(trace: Mapping[str, dict[str, Any]]) -> list[SiteFacts]:
    """Read the facts of every site of a trace."""
    return [fact for name, site in trace.items() if (fact := _facts_of(name, site)) is not None]


def _facts_of(name: str, site: Mapping[str, Any]) -> SiteFacts | None:
    shape = tuple(jnp.shape(site["value"])) if site["type"] in ("sample", "deterministic", "param") else ()
    if site["type"] in ("deterministic", "param"):
        return SiteFacts(name, site["type"], shape)
    if site["type"] != "sample":
        return None
    fn, base = site["fn"], coordinates.unwrap(site["fn"])
    plates = tuple(f.name for f in sorted(site["cond_indep_stack"], key=lambda f: f.dim))
    if isinstance(base, dist.Unit):
        return SiteFacts(name, "factor", shape)
    facts: dict[str, Any] = {
        "distribution": type(base).__name__,
        "plates": plates,
        "dims": _dims(name, shape, fn.event_dim, site["cond_indep_stack"]),
        "batch_shape": tuple(fn.batch_shape),
        "event_dim": fn.event_dim,
    }
    if site["is_observed"]:
        log_prob = fn.log_prob(site["value"])
        return SiteFacts(name, "observed", shape, log_prob_shape=tuple(jnp.shape(log_prob)), **facts)
    if fn.support is not None and fn.support.is_discrete:
        return SiteFacts(name, "latent", shape, discrete=True, **facts)
    try:
        inner = tuple(biject_to(fn.support).inverse_shape(shape))
    except NotImplementedError:
        return SiteFacts(name, "latent", shape, supportless=str(fn.support), **facts)
    movable = coordinates.affine_of(fn) is not None and inner == shape
    return SiteFacts(
        name, "latent", shape, support=_name_of_support(fn.support), unconstrained_shape=inner, movable=movable, **facts
    )


def _name_of_support(support: Any) -> str:
    while hasattr(support, "base_constraint"):
        support = support.base_constraint
    return type(support).__name__.strip("_").replace("_", " ").lower()


def _dims(name: str, shape: tuple[int, ...], event_dim: int, stack: Any) -> tuple[str, ...]:
    """Name each axis: plates name theirs, the others are numbered as ArviZ does."""
    by_axis = {len(shape) - event_dim + frame.dim: frame for frame in stack}
    return tuple(
        by_axis[i].name if i in by_axis and by_axis[i].size == shape[i] else f"{name}_dim_{i}" for i in range(len(shape))
    )


def check_sites(model: Any, facts: list[SiteFacts], observed: Mapping[str, Any]) -> None:
    """Refuse sites that cannot be inferred, and say what to do."""
    sites = [f for f in facts if f.kind in ("latent", "observed")]
    known = [f.name for f in sites]
    for name in observed:
        if name not in known:
            raise ArgumentError(
                f"observe names '{name}', which is not a site of the model{nearest(name, known) or ';'} "
                f"its sites are {listing(known)}"
            )
    latents = [f for f in facts if f.kind == "latent"]
    if not latents:
        raise ModelError(
            "the model has no latent variables, so there is nothing to infer; "
            f"its observed sites are {listing(f.name for f in facts if f.kind == 'observed')}"
        )
    _check_latents(latents)
    params = [f.name for f in facts if f.kind == "param"]
    if params:
        raise ModelError(
            f"the model has numpyro.param sites ({listing(params)}); point parameters are not supported yet: "
            "give them a prior with numpyro.sample"
        )
    for fact in facts:
        if fact.kind == "observed":
            _check_broadcast(fact)


def _check_latents(latents: list[SiteFacts]) -> None:
    discrete = [f.name for f in latents if f.discrete]
    if discrete:
        raise ModelError(
            f"{listing(discrete)} {'is a discrete latent' if len(discrete) == 1 else 'are discrete latents'}; "
            "this version infers continuous latents only: sum the discrete ones out by hand "
            "(numpyro.distributions.MixtureSameFamily for mixtures, logsumexp in a numpyro.factor otherwise). "
            "Enumeration inside the expectation will handle them"
        )
    for fact in latents:
        if fact.supportless:
            raise ModelError(
                f"latent '{fact.name}' has support {fact.supportless}, which no bijection to the real line covers; "
                "reparameterise it, for circles and spheres with numpyro.infer.reparam.ProjectedNormalReparam or CircularReparam"
            )
        if 0 in fact.shape:
            raise DataError(f"latent '{fact.name}' has shape {fact.shape}, with no elements; check the data that set its size")


def _check_broadcast(fact: SiteFacts) -> None:
    """Refuse values that silently broadcast against their distribution."""
    batch = fact.shape[: len(fact.shape) - fact.event_dim]
    size = max(int(np.prod(batch, dtype=int)), int(np.prod(fact.batch_shape, dtype=int)))
    if int(np.prod(fact.log_prob_shape, dtype=int)) > size:
        raise DataError(
            f"observed site '{fact.name}' has values of shape {fact.shape} but its distribution has batch shape "
            f"{fact.batch_shape}: together they would broadcast to {fact.log_prob_shape}, counting every value several times. "
            "Give both the same shape, for a column vector y[:, 0] or y.ravel()"
        )


def structure_notes(facts: list[SiteFacts]) -> tuple[str, ...]:
    """Say what is unusual but allowed."""
    if not any(f.kind in ("observed", "factor") for f in facts):
        return ("the model has no observed site: the posterior is the prior. Pass the data, or observe={site: values}",)
    return ()


def check_arguments(
    model: Any, data: Mapping[str, Any], parameters: Mapping[str, Any], takes_any: bool, required: Mapping[str, Any] | None
) -> None:
    """Compare names in ``data`` with the model's arguments."""
    name = getattr(model, "__name__", "the model")
    known = [n for n, p in parameters.items() if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)]
    if not takes_any and not isinstance(data, LazyColumns):
        for key in data:
            if key not in known:
                raise DataError(
                    f"data has '{key}', which is not an argument of {name}{nearest(key, known) or ';'} "
                    f"its arguments are {listing(known)}"
                )
    missing = [n for n, p in (required or {}).items() if p.default is p.empty and n not in data]
    if missing:
        hint = nearest(missing[0], [k for k in data if k not in known])
        raise DataError(
            f"{name} needs {listing(missing)}, which {'is' if len(missing) == 1 else 'are'} not in data"
            f"{hint or ';'} data has {listing(data)}"
        )


def model_failure(
    model: Any, arrays: Mapping[Path, Any], static: Mapping[Path, Any], error: Exception
) -> TautError:
    """Explain an exception that the model itself raised while being traced."""
    name = getattr(model, "__name__", "the model")
    shapes = ", ".join(f"{name_of(p)} {np.shape(a)}" for p, a in arrays.items()) or "no arrays"
    text = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
    if isinstance(error, TautError):
        return error
    if "TracerBool" in type(error).__name__:
        return ModelError(
            f"{name} branches in Python on the value of a latent or of something computed from it ({text}); "
            "use jnp.where or jax.lax.cond instead"
        )
    if isinstance(error, (ValueError, TypeError)) and ("shape" in text.lower() or "broadcast" in text.lower()):
        return DataError(f"{name} fails on shapes: {text}. The data have shapes: {shapes}")
    return ModelError(f"{name} raised {type(error).__name__} while being traced: {text}. The data have shapes: {shapes}")
