"""Indices in the data that point past the end of what they index.

JAX does not check them: an index one too large silently reads the last element, so data that
count from 1 make a wrong model without a word. Here the part of the traced model that computes
indices from data is run again on the actual values, in NumPy.
"""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.extend.core as jex
import jax.numpy as jnp
import numpy as np

from taut._core.errors import DataError
from taut.problem.data import Path, name_of


@dataclasses.dataclass(frozen=True)
class IndexCheck:
    """The gathers of a traced model.

    Attributes:
        jaxpr: the trace; its inputs are the latents' coordinates and then the data arrays.
        constants: values of its constants.
        paths: names of the data arrays, in order.
    """

    jaxpr: Any
    constants: list[Any]
    paths: tuple[Path, ...]

    def check(self, arrays: Mapping[Path, Any]) -> None:
        """Raise DataError if an index computed from the data is out of range."""
        known: dict[Any, _Value] = {}
        known.update(_constants(self.jaxpr.constvars, self.constants))
        data = self.jaxpr.invars[len(self.jaxpr.invars) - len(self.paths) :]
        for var, path in zip(data, self.paths, strict=True):
            known[var] = _Value(np.asarray(arrays[path]), frozenset([path]))
        _walk(self.jaxpr, known)


@dataclasses.dataclass(frozen=True)
class _Value:
    array: np.ndarray
    origin: frozenset[Path]


def make_check(fn: Callable[..., Any], point: Any, arrays: Mapping[Path, Any]) -> IndexCheck | None:
    """Trace ``fn(point, *arrays)``; None where nothing is indexed."""
    closed = jax.make_jaxpr(fn)(point, *arrays.values())
    if not _has_gather(closed.jaxpr):
        return None
    return IndexCheck(closed.jaxpr, list(closed.consts), tuple(arrays))


def _has_gather(jaxpr: Any) -> bool:
    return any(
        e.primitive.name == "gather" or any(_has_gather(i) for i in _inner(e)) for e in jaxpr.eqns
    )


def _inner(equation: Any) -> list[Any]:
    found = [getattr(v, "jaxpr", v) for v in equation.params.values()]
    return [j for j in found if hasattr(j, "eqns")]


def _walk(jaxpr: Any, known: dict[Any, _Value]) -> None:
    """Compute what depends on integer data only, and check it where it is used as an index."""

    def read(atom: Any) -> _Value | None:
        if isinstance(atom, jex.Literal):
            return _Value(np.asarray(atom.val), frozenset())
        return known.get(atom)

    for equation in jaxpr.eqns:
        inputs, name = [read(v) for v in equation.invars], equation.primitive.name
        if name == "gather" and inputs[1] is not None:
            _check_gather(equation, inputs[1])
        elif name in ("jit", "pjit"):
            _enter(equation, inputs, known)
        elif name in _NUMPY and all(v is not None for v in inputs):
            arrays = [v.array for v in inputs if v is not None]
            origin = frozenset().union(*(v.origin for v in inputs if v is not None))
            if all(a.dtype.kind in "iub" for a in arrays):
                found = np.asarray(_NUMPY[name](equation.params, *arrays))
                known[equation.outvars[0]] = _Value(found, origin)


def _enter(equation: Any, inputs: list[_Value | None], known: dict[Any, _Value]) -> None:
    closed = equation.params["jaxpr"]
    inner = _constants(closed.jaxpr.constvars, closed.consts)
    inner.update({v: i for v, i in zip(closed.jaxpr.invars, inputs, strict=True) if i is not None})
    _walk(closed.jaxpr, inner)
    for outer, var in zip(equation.outvars, closed.jaxpr.outvars, strict=True):
        if not isinstance(var, jex.Literal) and var in inner:
            known[outer] = inner[var]


def _constants(variables: Sequence[Any], values: Sequence[Any]) -> dict[Any, _Value]:
    """Constants of integers and truth values; others, such as random keys, are no indices."""
    return {
        var: _Value(np.asarray(value), frozenset())
        for var, value in zip(variables, values, strict=True)
        if any(
            jnp.issubdtype(jax.dtypes.result_type(value), kind) for kind in (np.integer, np.bool)
        )
    }


def _check_gather(equation: Any, index: _Value) -> None:
    shape, numbers = equation.invars[0].aval.shape, equation.params["dimension_numbers"]
    for column, axis in enumerate(numbers.start_index_map):
        last = shape[axis] - equation.params["slice_sizes"][axis]
        values = index.array[..., column]
        bad = (values < 0) | (values > last)
        if bad.any():
            raise _out_of_range(
                int(values[bad].flat[0]), last, bool(values.min() > 0), index.origin
            )


def _out_of_range(value: int, last: int, none_is_zero: bool, origin: frozenset[Path]) -> DataError:
    names = " with ".join(f"data {name_of(p)}" for p in sorted(origin)) or "an array of the model"
    value = value if value >= 0 else value - last - 1  # as the model wrote it
    if value == last + 1 and none_is_zero:
        hint = "It seems to count from 1: subtract 1"
    else:
        hint = "If it is padding under a mask, clip it with jnp.clip"
    return DataError(
        f"{names} is used as an index and holds {value}, outside of 0 to {last}: "
        f"JAX would silently read another element. {hint}"
    )


def _broadcast(params: Mapping[str, Any], x: np.ndarray) -> np.ndarray:
    shape = [1] * len(params["shape"])
    for axis, size in zip(params["broadcast_dimensions"], x.shape, strict=True):
        shape[axis] = size
    return np.broadcast_to(x.reshape(shape), params["shape"])


def _select(params: Mapping[str, Any], which: np.ndarray, *cases: np.ndarray) -> np.ndarray:
    return np.asarray(np.choose(which.astype(int), np.broadcast_arrays(*cases)))


def _slice(params: Mapping[str, Any], x: np.ndarray) -> np.ndarray:
    strides = params["strides"] or (1,) * x.ndim
    starts, stops = params["start_indices"], params["limit_indices"]
    return x[tuple(slice(a, b, c) for a, b, c in zip(starts, stops, strides, strict=True))]


_NUMPY: dict[str, Callable[..., Any]] = {
    "lt": lambda p, x, y: x < y,
    "gt": lambda p, x, y: x > y,
    "le": lambda p, x, y: x <= y,
    "ge": lambda p, x, y: x >= y,
    "eq": lambda p, x, y: x == y,
    "ne": lambda p, x, y: x != y,
    "add": lambda p, x, y: x + y,
    "sub": lambda p, x, y: x - y,
    "mul": lambda p, x, y: x * y,
    "max": lambda p, x, y: np.maximum(x, y),
    "min": lambda p, x, y: np.minimum(x, y),
    "clamp": lambda p, low, x, high: np.clip(x, low, high),
    "select_n": _select,
    "convert_element_type": lambda p, x: x.astype(p["new_dtype"]),
    "broadcast_in_dim": _broadcast,
    "reshape": lambda p, x: x.reshape(p["new_sizes"]),
    "squeeze": lambda p, x: x.squeeze(tuple(p["dimensions"])),
    "transpose": lambda p, x: x.transpose(p["permutation"]),
    "concatenate": lambda p, *xs: np.concatenate(xs, axis=p["dimension"]),
    "slice": _slice,
    "iota": lambda p: np.indices(p["shape"])[p["dimension"]],
    "copy": lambda p, x: x,
    "stop_gradient": lambda p, x: x,
}
