"""Operations that rename, move, gather and join axes."""

import dataclasses
from collections.abc import Iterable, Mapping
from typing import Any

import jax.numpy as jnp
import numpy as np
from jax.lax import GatherScatterMode

from taut.expectation.elementwise import (
    Node,
    Unreadable,
    Value,
    aligned,
    attach,
    constant_node,
    forced,
)  # fmt: skip
from taut.expectation.pool import Pool, expand
from taut.expectation.terms import (
    Tensor,
    collect,
    fresh,
    union,
)  # fmt: skip

Params = Mapping[str, Any]


# --- axes that are renamed, dropped or added --------------------------------------------------


def broadcast_in_dim(pool: Pool, params: Params, value: Value) -> Value:
    """Add dimensions."""
    shape = tuple(params["shape"])
    dims: list[int | None] = [None] * len(shape)
    for at, target in enumerate(params["broadcast_dimensions"]):
        dims[target] = value.dims[at]
    return Value(shape, tuple(dims), value.node, value.guards)


def transpose(pool: Pool, params: Params, value: Value) -> Value:
    """Reorder dimensions."""
    order = params["permutation"]
    shape = tuple(value.shape[i] for i in order)
    return Value(shape, tuple(value.dims[i] for i in order), value.node, value.guards)


def squeeze(pool: Pool, params: Params, value: Value) -> Value:
    """Drop dimensions of size one."""
    kept = [i for i in range(len(value.shape)) if i not in params["dimensions"]]
    shape = tuple(value.shape[i] for i in kept)
    return Value(shape, tuple(value.dims[i] for i in kept), value.node, value.guards)


def expand_dims(pool: Pool, params: Params, value: Value) -> Value:
    """Add dimensions of size one."""
    rank = len(value.shape) + len(params["dimensions"])
    shape, dims = list(value.shape), list(value.dims)
    for at in sorted(d % rank for d in params["dimensions"]):
        shape.insert(at, 1)
        dims.insert(at, None)
    return Value(tuple(shape), tuple(dims), value.node, value.guards)


def reshape(pool: Pool, params: Params, value: Value) -> Value:
    """Split and join dimensions."""
    new = tuple(params["new_sizes"])
    if params.get("dimensions") is not None:
        raise Unreadable("a reshape with reordered dimensions")
    old_at = [i for i, n in enumerate(value.shape) if n != 1]
    new_at = [i for i, n in enumerate(new) if n != 1]
    if [value.shape[i] for i in old_at] == [new[i] for i in new_at]:
        dims: list[int | None] = [None] * len(new)
        for a, b in zip(old_at, new_at, strict=True):
            dims[b] = value.dims[a]
        return Value(new, tuple(dims), value.node, value.guards)
    if value.is_constant:
        return from_dense(pool, dense(value).reshape(new))
    labels = tuple(None if n == 1 else fresh() for n in new)
    kept = tuple(a for a in labels if a is not None)
    flat = np.arange(int(np.prod(new))).reshape([n for n in new if n != 1])
    where = np.unravel_index(flat, value.shape)
    result = value
    for at in old_at:
        if result.dims[at] is not None:
            node, guards = result.reindexed(pool, at, _narrow(Tensor(where[at], kept)))
            spent = tuple(None if i == at else d for i, d in enumerate(result.dims))
            result = Value(value.shape, spent, node, guards)
    return Value(new, labels, result.node, result.guards)


def _narrow(index: Tensor) -> Tensor:
    """An index array over only the axes that it varies on."""
    array, axes = index.array, list(index.axes)
    for at in reversed(range(array.ndim)):
        first = array.take([0], axis=at)
        if array.shape[at] > 0 and (array == first).all():
            array, _ = first.squeeze(at), axes.pop(at)
    return Tensor(np.asarray(array), tuple(axes))


# --- slices and gathers -----------------------------------------------------------------------


def pick(
    pool: Pool, value: Value, at: int, index: Tensor, shape: tuple[int, ...], dims: Any,
    taken: Iterable[int] = (),
) -> Value:  # fmt: skip
    """Replace dimension ``at`` by an index array.

    ``shape`` and ``dims`` are the result's; ``taken`` are labels that other dimensions have got.
    """
    label = value.dims[at]
    if label is None:
        return Value(shape, dims, value.node, value.guards)
    whole = index.is_static and np.array_equal(index.array, np.arange(value.shape[at]))
    if whole and len(index.axes) == 1 and index.axes[0] not in {*value.outer, *taken}:
        return dataclasses.replace(value.rename({label: index.axes[0]}), shape=shape, dims=dims)
    node, guards = value.reindexed(pool, at, index)
    return Value(shape, dims, node, guards)


def _pick_along(pool: Pool, value: Value, at: int, index: np.ndarray) -> Value:
    size = len(index)
    label = fresh() if size != 1 else None
    array = Tensor(index, (label,)) if label is not None else Tensor(index[0])
    shape = (*value.shape[:at], size, *value.shape[at + 1 :])
    dims = (
        *value.dims[:at],
        label if value.dims[at] is not None else None,
        *value.dims[at + 1 :],
    )
    return pick(pool, value, at, array, shape, dims)


def slice_(pool: Pool, params: Params, value: Value) -> Value:
    """A strided slice."""
    strides = params["strides"] or (1,) * len(value.shape)
    for at, (a, b, s) in enumerate(
        zip(params["start_indices"], params["limit_indices"], strides, strict=True)
    ):
        if (a, b, s) != (0, value.shape[at], 1):
            value = _pick_along(pool, value, at, np.arange(a, b, s))
    return value


def rev(pool: Pool, params: Params, value: Value) -> Value:
    """Reversed dimensions."""
    for at in params["dimensions"]:
        value = _pick_along(pool, value, at, np.arange(value.shape[at])[::-1].copy())
    return value


def dynamic_slice(pool: Pool, params: Params, value: Value, *starts: Value) -> Value:
    """A slice whose start is a constant, or a discrete latent's enumerated values."""
    for at, start in enumerate(starts):
        size = params["slice_sizes"][at]
        if size == value.shape[at]:
            continue
        if start.node.constant is None:
            raise Unreadable("a slice whose start depends on latents in a nonlinear way")
        value = _apart(value, start)
        begin = _within(pool, start.node.constant, value.shape[at] - size)
        label = fresh() if size != 1 else None
        shape = (*value.shape[:at], size, *value.shape[at + 1 :])
        is_varying = value.dims[at] is not None
        dims = (*value.dims[:at], label if is_varying else None, *value.dims[at + 1 :])
        value = pick(pool, value, at, _plus_range(begin, size, label), shape, dims)
        guards = dict(start.guards) | dict(value.guards)
        value = dataclasses.replace(value, guards=tuple(guards.items()))
    return value


def _within(pool: Pool, index: Tensor, last: int) -> Tensor:
    """An index clipped to 0 ... last."""
    if index.is_static:
        return Tensor(np.clip(index.array, 0, last), index.axes)
    clipped = pool.once(("clip", last), [index.array], lambda: jnp.clip(index.array, 0, last))
    return Tensor(clipped, index.axes)


def gather(pool: Pool, params: Params, value: Value, indices: Value) -> Value:
    """Advanced indexing by a constant array, or by a discrete latent's enumerated values."""
    if indices.node.constant is None:
        raise Unreadable("an index that depends on latents in a nonlinear way")
    numbers, sizes = params["dimension_numbers"], params["slice_sizes"]
    batch_shape = indices.shape[:-1]
    offset = [
        i for i in range(len(batch_shape) + len(numbers.offset_dims)) if i in numbers.offset_dims
    ]
    batch = [
        i
        for i in range(len(batch_shape) + len(numbers.offset_dims))
        if i not in numbers.offset_dims
    ]
    shape: list[int] = [0] * (len(offset) + len(batch))
    dims: list[int | None] = [None] * len(shape)
    value = _apart(value, indices)
    for i, at in enumerate(batch):
        shape[at], dims[at] = batch_shape[i], indices.dims[i]
    taken: set[int] = set()
    dropped = (*numbers.collapsed_slice_dims, *numbers.operand_batching_dims)
    offsets = iter(offset)
    for d, size in enumerate(sizes):
        target = None if d in dropped else next(offsets)
        label = fresh() if target is not None and size != 1 else None
        if d in numbers.operand_batching_dims:
            partner = numbers.start_indices_batching_dims[numbers.operand_batching_dims.index(d)]
            other = indices.dims[partner]
            index = Tensor(np.arange(value.shape[d]), (other,)) if other is not None else None
        elif d in numbers.start_index_map:
            index = _start(pool, indices, numbers.start_index_map.index(d))
            index = _in_bounds(pool, params["mode"], index, value.shape[d] - size)
            index = _plus_range(index, size, label)
        else:
            index = None
        if target is not None:
            shape[target] = size
            dims[target] = value.dims[d] if index is None else label
        if index is not None and value.dims[d] is not None:
            rest = (*value.dims[:d], None, *value.dims[d + 1 :])
            value = pick(pool, value, d, index, value.shape, rest, taken)
            taken |= set(index.axes)
    guards = dict(indices.guards) | dict(value.guards)
    return Value(tuple(shape), tuple(dims), value.node, tuple(guards.items()))


def _apart(value: Value, indices: Value) -> Value:
    """Give ``value`` labels that the indices do not use, but for guards on the same element."""
    known, taken = dict(indices.guards), set(indices.outer)
    names = {
        g: known[e] if e in known else fresh() for e, g in value.guards if e in known or g in taken
    }
    names |= {d: fresh() for d in value.dims if d in taken}
    return value.rename({a: b for a, b in names.items() if a is not None})


def _start(pool: Pool, indices: Value, component: int) -> Tensor:
    """One component of the index vectors."""
    tensor, label = (
        indices.constant if not indices.guards else indices.node.constant,
        indices.dims[-1],
    )
    assert tensor is not None
    if label is None or label not in tensor.axes:
        return tensor
    taken = pool._take(tensor, label, Tensor(np.asarray(component)))
    return _narrow(taken) if taken.is_static else taken


def _in_bounds(pool: Pool, mode: Any, index: Tensor, last: int) -> Tensor:
    """What an index means that may lie beyond the end."""
    if mode == GatherScatterMode.CLIP:
        return _within(pool, index, last)
    beyond = index.is_static and bool(np.any((index.array < 0) | (index.array > last)))
    if beyond and mode == GatherScatterMode.FILL_OR_DROP:
        raise Unreadable("an index beyond the end of what it picks from")
    return index


def _plus_range(index: Tensor, size: int, label: int | None) -> Tensor:
    if label is None:
        return index
    steps = np.arange(size)
    array = index.array[..., None] + steps if np.ndim(index.array) else index.array + steps
    return Tensor(array, (*index.axes, label))


# --- joining ----------------------------------------------------------------------------------


def concatenate(pool: Pool, params: Params, *values: Value) -> Value:
    """Join along a dimension: masked, shifted copies are added."""
    at, sizes = params["dimension"], [v.shape[params["dimension"]] for v in values]
    total = sum(sizes)
    shape = (*values[0].shape[:at], total, *values[0].shape[at + 1 :])
    if all(v.is_constant for v in values):
        return from_dense(
            pool, _numpy_or_jax(values).concatenate([dense(v) for v in values], axis=at)
        )
    return _joined(pool, values, at, np.cumsum([0, *sizes]), shape)


def _joined(pool: Pool, values: Any, at: int, starts: Any, shape: tuple[int, ...]) -> Value:
    label, parts = fresh(), []
    is_known = all(v.node.constant is not None for v in values)  # but for who is enumerated
    for value, begin in zip(values, starts, strict=False):
        size = value.shape[at]
        place = np.arange(shape[at]) - begin
        mask = Tensor(((place >= 0) & (place < size)).astype(float), (label,))
        index = Tensor(np.clip(place, 0, size - 1), (label,))
        dims = (*value.dims[:at], label, *value.dims[at + 1 :])
        moved = pick(pool, value, at, index, shape, dims)
        node = _masked_constant(moved, mask) if is_known else _masked_terms(moved, mask)
        parts.append(Value(shape, dims, node, moved.guards))
    found, shape, dims = aligned(parts)
    guards = dict(pair for v in found for pair in v.guards)
    if is_known:
        terms = [v.node.constant for v in found]
        axes = union(*(t.axes for t in terms))  # type: ignore[union-attr]
        total = sum(expand(t, axes) for t in terms)  # type: ignore[arg-type]
        return Value(shape, dims, constant_node(Tensor(total, axes)), tuple(guards.items()))
    if any(len(v.guards) != len(guards) for v in found):
        found = [attach(v) for v in found]
        guards = {}
    terms = collect(tuple(t for v in found for t in v.node.terms or ()))
    return Value(shape, dims, Node(terms), tuple(guards.items()))


def _masked_terms(value: Value, mask: Tensor) -> Node:
    return Node(tuple(t.times(mask) for t in forced(value)))


def _masked_constant(value: Value, mask: Tensor) -> Node:
    """Numbers, or enumerated values of discrete latents, which keep their type."""
    known = value.node.constant
    assert known is not None
    axes = union(known.axes, mask.axes)
    kept = Tensor(mask.array.astype(known.array.dtype), mask.axes)
    return constant_node(Tensor(expand(known, axes) * expand(kept, axes), axes))


def pad(pool: Pool, params: Params, value: Value, filler: Value) -> Value:
    """Pad with zeros."""
    if not (filler.is_constant and filler.constant.is_static and not np.any(filler.constant.array)):
        raise Unreadable("padding with a value other than zero")
    for at, (low, high, inner) in enumerate(params["padding_config"]):
        if inner or low < 0 or high < 0:
            raise Unreadable("padding between elements")
        if low or high:
            shape = (*value.shape[:at], low + value.shape[at] + high, *value.shape[at + 1 :])
            value = _joined(pool, [value], at, [low], shape)
    return value


# --- constants --------------------------------------------------------------------------------


def dense(value: Value) -> Any:
    """A constant as an array of its full shape."""
    axes = tuple(d for d in value.dims if d is not None)
    tensor = value.constant
    array = expand(tensor, axes)
    sizes = iter(np.shape(array))
    lined_up = array.reshape(tuple(1 if d is None else next(sizes) for d in value.dims))
    numpy_or_jax = np if tensor.is_static else jnp
    return numpy_or_jax.broadcast_to(lined_up, value.shape)


def from_dense(pool: Pool, array: Any) -> Value:
    """A constant from an array."""
    from taut.expectation.elementwise import constant

    return constant(array)


def _numpy_or_jax(values: Any) -> Any:
    return np if all(v.constant.is_static for v in values) else jnp
