"""Reading a model: its parameters, its sites, and which of them belong to rows."""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from numpyro import handlers
from numpyro.distributions.transforms import biject_to

from taut._core.errors import DataError, ModelError, listing
from taut.deep.rows import OBSERVED, UNOBSERVED, Clean, RowModel, Site
from taut.problem.replay import is_factor, log_prob

TRIED = (6, 10)  # rows on which the model is tried; its sites' shapes show what runs along them


def read_rows(
    model: Callable[..., Any], name: str, data: Mapping[str, Any], num_rows: int | None = None
) -> tuple[RowModel, int]:
    """Read a model: its parameters, its sites, and which of them belong to rows.

    Args:
        model: a NumPyro model function.
        name: of the model.
        data: its arguments; of a source, some of the first rows.
        num_rows: length of the arguments with rows; None finds it.

    Returns:
        The model, and the number of rows in ``data``.

    Raises:
        ModelError: if the model cannot be run on some of its rows, keeps a state, or has sites
            that mix rows.
        DataError: if no argument has rows.
    """
    lengths = _lengths(data) if num_rows is None else [num_rows]
    reasons: list[ModelError] = []
    for length in lengths:
        rows = tuple(n for n, v in data.items() if _runs(v, length))
        try:
            return _read(model, name, data, rows, length), length
        except ModelError as reason:
            reasons.append(reason)
    if reasons:
        raise reasons[0]
    raise DataError(
        "the data have no array with rows to draw minibatches from; give the observations as arguments of the model"
    )


def _lengths(data: Mapping[str, Any]) -> list[int]:
    """Lengths that may be the number of rows: the one of most arguments first, then the longest."""
    found = [np.shape(leaf)[0] for leaf in jax.tree.leaves(dict(data)) if np.ndim(leaf)]
    return sorted({x for x in found if x > 0}, key=lambda x: (-found.count(x), -x))


def _runs(value: Any, length: int) -> bool:
    leaves = jax.tree.leaves(value)
    return bool(leaves) and all(
        isinstance(x, np.ndarray | jax.Array) and np.shape(x)[:1] == (length,) for x in leaves
    )


def _read(
    model: Callable[..., Any],
    name: str,
    data: Mapping[str, Any],
    row_names: tuple[str, ...],
    length: int,
) -> RowModel:
    static = {n: v for n, v in data.items() if n not in row_names}
    bare = RowModel(model, name, static, row_names, {}, {}, (), {}, {}, False, {}, {}, False)
    examples, larger = (_rows_of(data, row_names, size, length) for size in TRIED)
    first, draws_keys = _tried(bare, examples)
    second = _shaped(bare, larger)
    latents, observed, partly = _sites(first, second)
    initial, constraints = _parameters(first)
    return RowModel(
        model,
        name,
        static,
        row_names,
        latents,
        observed,
        partly,
        initial,
        constraints,
        draws_keys,
        examples,
        _arguments(first, observed, examples),
        any(s.row_axis is None for s in (*latents.values(), *observed.values())),
    )


def _sites(
    first: Mapping[str, Any], second: Mapping[str, Any]
) -> tuple[dict[str, Site], dict[str, Site], tuple[str, ...]]:
    """Latents, observed sites, and the names of latents that are observed in some rows."""
    latents, observed, partly = {}, {}, []
    for name, site in first.items():
        if site["type"] != "sample":
            continue
        found = _site(name, site, second.get(name))
        base = name.removesuffix(UNOBSERVED)
        if base != name and base + OBSERVED in first:
            partly.append(base)
            latents[base] = dataclasses.replace(found, name=base)
        elif site["is_observed"]:
            observed[name] = found
        else:
            latents[name] = found
    observed = {n: s for n, s in observed.items() if n.removesuffix(OBSERVED) not in partly}
    return latents, observed, tuple(partly)


def _parameters(trace: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Initial values of the parameters, unconstrained, and their constraints."""
    params = {n: s for n, s in trace.items() if s["type"] == "param"}
    known = {n: s["kwargs"].get("constraint") for n, s in params.items()}
    constraints = {n: c for n, c in known.items() if c is not None}
    initial = {
        n: biject_to(constraints[n]).inv(s["value"]) if n in constraints else s["value"]
        for n, s in params.items()
    }
    return initial, constraints


def _arguments(
    trace: Mapping[str, Any], observed: dict[str, Site], columns: dict[str, Any]
) -> dict[str, str]:
    """Observed site -> the argument with the same values."""
    found = {}
    for name in observed:
        value = np.asarray(trace[name]["value"])
        for argument, column in columns.items():
            if np.shape(column) == value.shape and np.array_equal(column, value):
                found[name] = argument
    return found


def _rows_of(
    data: Mapping[str, Any], row_names: tuple[str, ...], size: int, length: int
) -> dict[str, Any]:
    """The first rows of the arguments that have them, and again from the first where too few."""
    index = np.arange(size) % length
    return jax.tree.map(lambda x: jnp.asarray(x[index]), {n: data[n] for n in row_names})


def _tried(model: RowModel, columns: dict[str, Any]) -> tuple[dict[str, Any], bool]:
    """A trace on some rows, and whether the model drew keys of its own.

    The model is compiled: one by one its operations would take many times as long.
    """
    seen: dict[str, Any] = {}

    def run(columns: dict[str, Any]) -> Any:
        trace, seen["draws"] = _trace(model, columns)
        seen["trace"] = trace
        return {n: _arrays_of(s) for n, s in trace.items()}

    found = jax.jit(run)(columns)
    trace = {n: {**site, **_filled(site, found[n])} for n, site in seen["trace"].items()}
    return trace, seen["draws"]


def _arrays_of(site: dict[str, Any]) -> dict[str, Any]:
    """What is kept of a traced site: its value, and its constraint where bounds are computed."""
    if site["type"] not in ("sample", "param"):
        return {}
    constraint = _constraint(site)
    traced = any(isinstance(x, Tracer) for x in jax.tree.leaves(constraint))
    return {"value": site["value"], **({"constraint": constraint} if traced else {})}


def _constraint(site: dict[str, Any]) -> Any:
    return site["support"] if site["type"] == "sample" else site["kwargs"].get("constraint")


def _filled(site: dict[str, Any], found: dict[str, Any]) -> dict[str, Any]:
    """The parts of a site that were computed, by the names under which they are looked up."""
    if not found:
        return {}
    constraint = found.get("constraint", _constraint(site))
    if site["type"] == "sample":
        return {"value": found["value"], "support": constraint}
    return {"value": found["value"], "kwargs": {**site["kwargs"], "constraint": constraint}}


def _shaped(model: RowModel, columns: dict[str, Any]) -> dict[str, Any]:
    """A trace on some rows of which only shapes are used: nothing is computed."""
    seen: dict[str, Any] = {}

    def run(columns: dict[str, Any]) -> None:
        seen.update(_trace(model, columns)[0])

    jax.eval_shape(run, columns)
    return seen


def _trace(model: RowModel, columns: dict[str, Any]) -> tuple[dict[str, Any], bool]:
    rows = len(jax.tree.leaves(columns)[0])
    clean = Clean(model.model, rows, frozenset())
    try:
        with handlers.seed(rng_seed=0):
            trace = handlers.trace(clean).get_trace(**model.static, **columns)
    except ModelError:
        raise
    except Exception as error:  # the model's own code
        line = str(error).strip().split("\n")[0]
        raise ModelError(
            f"{model.name} cannot be run on {rows} of its rows (arguments with rows: {listing(model.row_names)}): "
            f"{type(error).__name__}: {line}"
        ) from error
    for site in trace.values():  # while what was computed is still at hand
        if site["type"] == "sample":
            site["support"] = site["fn"].support
            site["terms"] = np.shape(log_prob(site))
            site["num_values"] = _num_values(site["fn"])
    if state := [n for n, s in trace.items() if s["type"] == "mutable"]:
        raise ModelError(
            f"'{state[0]}' is a state that the model changes (numpyro_mutable, BatchNorm): rows are then not "
            "independent and the bound has no meaning; use a layer without state, such as LayerNorm"
        )
    return dict(trace), clean.draws_keys


def _site(name: str, site: dict[str, Any], other: dict[str, Any] | None) -> Site:
    """What is known of a site from its traces at two numbers of rows."""
    fn, value = site["fn"], site["value"]
    if other is None:
        raise ModelError(f"site '{name}' is not there with another number of rows")
    shapes = [s["terms"] for s in (site, other)]
    return Site(
        name=name,
        shape=tuple(np.shape(value)),
        event_dims=len(fn.event_shape),
        support=site["support"],
        discrete=bool(getattr(site["support"], "is_discrete", False)),
        num_values=site["num_values"],
        row_axis=None if is_factor(site) and not shapes[0] else _row_axis(name, *shapes),
        distribution=_class_name(fn),
        initial=value,
    )


def _row_axis(name: str, shape: tuple[int, ...], other: tuple[int, ...]) -> int | None:
    if len(shape) != len(other):
        raise ModelError(f"site '{name}' changes its number of axes with the number of rows")
    axes = [
        i - len(shape) for i, pair in enumerate(zip(shape, other, strict=True)) if pair == TRIED
    ]
    if len(axes) > 1 or (shape != other and not axes):
        raise ModelError(
            f"site '{name}' has log densities of shape {shape} for {TRIED[0]} rows and {other} for {TRIED[1]}; "
            "minibatches need one axis along the rows, such as that of numpyro.plate('rows', len(y))"
        )
    return axes[0] if axes else None


def _num_values(fn: Any) -> int:
    fn = _element(fn)
    if not getattr(fn, "has_enumerate_support", False):
        return 0
    try:
        return int(fn.enumerate_support(expand=False).shape[0])
    except (NotImplementedError, ValueError, jax.errors.ConcretizationTypeError):
        return 0


def _class_name(fn: Any) -> str:
    return type(_element(fn)).__name__


def _element(fn: Any) -> Any:
    """A distribution without what groups, repeats or masks its elements."""
    while hasattr(fn, "base_dist") and type(fn).__name__ in (
        "Independent",
        "ExpandedDistribution",
        "MaskedDistribution",
    ):
        fn = fn.base_dist
    return fn
