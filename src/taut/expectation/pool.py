"""Index arrays and constants met while a function is read, each kept once."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from taut.expectation.terms import (
    Affine,
    Entry,
    Function,
    IndexRef,
    Tensor,
    Term,
    union,
)  # fmt: skip


@jax.tree_util.register_static
class StaticIndex:
    """An index array that stays known when compiled terms travel through ``jax.jit``."""

    def __init__(self, array: np.ndarray) -> None:
        self.array = array
        self._name = (array.shape, array.tobytes())

    def __hash__(self) -> int:
        return hash(self._name)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, StaticIndex) and self._name == other._name


class Pool:
    """Keeps index arrays by slot; equal arrays share one, so equal indices compare equal.

    Arrays known while tracing are compared by content, others by identity, which is enough
    because equal computations on them are done once (:meth:`once`).
    """

    def __init__(self, arrays: tuple[Any, ...] = ()) -> None:
        self.arrays: list[Any] = list(arrays)
        self._slots: dict[Any, int] = {}
        self._results: dict[Any, Any] = {}

    def add(self, array: Any) -> int:
        """Slot of an index array."""
        known = isinstance(array, np.ndarray | np.generic)
        name = (array.shape, array.tobytes()) if known else id(array)
        if name not in self._slots:
            self._slots[name] = len(self.arrays)
            self.arrays.append(array)
        return self._slots[name]

    def once(self, name: Any, inputs: list[Any], compute: Callable[[], Any]) -> Any:
        """Result of a computation, done once for the same inputs; numbers are told by value."""
        numbers = (np.ndim(x) == 0 and isinstance(x, np.ndarray | np.generic) for x in inputs)
        known = zip(inputs, numbers, strict=True)
        full = (name, tuple((x.dtype.str, x.item()) if number else id(x) for x, number in known))
        if full not in self._results:
            self._results[full] = (compute(), inputs)  # inputs are kept, so their ids are too
        return self._results[full][0]

    # --- replacing an axis by an index array -------------------------------------------------

    def reindex(self, x: Any, axis: int, index: Tensor) -> Any:
        """Replace an axis in any part of a term by an index array over other axes."""
        if axis not in x.axes:
            return x
        if isinstance(x, Tensor):
            return self._take(x, axis, index)
        if isinstance(x, Entry):
            return x._replace(index=tuple(self._reindex_one(i, axis, index) for i in x.index))
        if isinstance(x, Affine):
            outer = tuple(a for a in x.axes if a != axis)
            terms = tuple(self.reindex(t, axis, index) for t in x.terms)
            return Affine(terms, union(outer, index.axes))
        if isinstance(x, Function):
            return Function(
                tuple(self.reindex(a, axis, index) for a in x.args),
                tuple(self.reindex(c, axis, index) for c in x.consts),
                x.expr,
                tuple((self.reindex(e, axis, index), g) for e, g in x.grids),
            )
        return self._reindex_term(x, axis, index)

    def _reindex_term(self, x: Term, axis: int, index: Tensor) -> Term:
        return Term(
            tuple(self.reindex(t, axis, index) for t in x.operands),
            tuple(self.reindex(a, axis, index) for a in x.exponents),
            tuple(self.reindex(f, axis, index) for f in x.functions),
            x.scale,
            tuple(self.reindex(e, axis, index) for e in x.linear),
            tuple((self.reindex(e, axis, index), p) for e, p in x.powers),
            tuple((self.reindex(e, axis, index), g) for e, g in x.onehots),
        )

    def _reindex_one(self, i: int | IndexRef, axis: int, index: Tensor) -> int | IndexRef:
        if isinstance(i, IndexRef):
            if axis not in i.axes:
                return i
            taken = self._take(Tensor(self.arrays[i.slot], i.axes), axis, index)
            return IndexRef(self.add(taken.array), taken.axes)
        return IndexRef(self.add(index.array), index.axes) if i == axis else i

    def _take(self, x: Tensor, axis: int, index: Tensor) -> Tensor:
        """``x[..., index, ...]``; axes that both have are matched."""
        if not set(index.axes) & (set(x.axes) - {axis}):
            at = x.axes.index(axis)
            axes = (*x.axes[:at], *index.axes, *x.axes[at + 1 :])
            numpy_only = x.is_static and index.is_static
            take = np.take if numpy_only else jnp.take
            array = self.once(
                ("take", at), [x.array, index.array], lambda: take(x.array, index.array, axis=at)
            )
            return Tensor(array, axes)
        out = union((a for a in x.axes if a != axis), index.axes)
        where = {a: Tensor(np.arange(x.array.shape[i]), (a,)) for i, a in enumerate(x.axes)}
        picks = [expand(index if a == axis else where[a], out) for a in x.axes]
        return Tensor(x.array[tuple(picks)], out)


def expand(x: Tensor, axes: tuple[int, ...]) -> Any:
    """The array with its axes in the order of ``axes``, of size one where it has none."""
    order = [x.axes.index(a) for a in axes if a in x.axes]
    array = x.array.transpose(order) if order != sorted(order) else x.array
    at = tuple(slice(None) if a in x.axes else None for a in axes)
    return array[at] if axes else array
