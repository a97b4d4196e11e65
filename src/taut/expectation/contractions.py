"""Operations that sum and multiply axes: products of arrays and linear maps along one axis."""

from typing import Any

import jax.numpy as jnp
import numpy as np
from jax.scipy.linalg import solve_triangular

from taut.expectation import algebra
from taut.expectation.elementwise import Node, Unreadable, Value, attach, constant_node, forced
from taut.expectation.pool import Pool
from taut.expectation.structural import Params, dense
from taut.expectation.terms import Tensor, collect, contract, fresh, product, rename

MAX_CUMULATIVE = 4000  # length of an axis that is summed cumulatively by a triangular matrix


def reduce_sum(pool: Pool, params: Params, value: Value) -> Value:
    """Sum over dimensions."""
    axes = params["axes"]
    kept = [i for i in range(len(value.shape)) if i not in axes]
    shape, dims = tuple(value.shape[i] for i in kept), tuple(value.dims[i] for i in kept)
    summed = {d for i in axes if (d := value.dims[i]) is not None}
    size = {value.dims[i]: value.shape[i] for i in axes}
    blank = int(np.prod([value.shape[i] for i in axes if value.dims[i] is None], dtype=int))
    value = attach(value, summed)
    terms = []
    for term in forced(value):
        missing = [size[a] for a in summed if a not in term.axes]
        term = term.scaled(float(blank) * float(np.prod(missing)))
        terms.append(rename(term, {a: fresh() for a in summed}))
    if all(t.is_constant for t in terms):
        outer = (*(d for d in dims if d is not None), *(g for _, g in value.guards))
        total = algebra.constant_value(tuple(terms), outer)
        return Value(shape, dims, constant_node(total), value.guards)
    return Value(shape, dims, Node(collect(tuple(terms))), value.guards)


def dot_general(pool: Pool, params: Params, a: Value, b: Value) -> Value:
    """Multiply and sum over contracted dimensions."""
    (contract_a, contract_b), (batch_a, batch_b) = params["dimension_numbers"]
    b = b.rename({x: fresh() for x in b.dims if x is not None})
    names = {}
    pairs = [*zip(batch_a, batch_b, strict=True), *zip(contract_a, contract_b, strict=True)]
    for i, j in pairs:
        if a.dims[i] is not None and b.dims[j] is not None:
            names[b.dims[j]] = a.dims[i]
    b = b.rename(names)  # type: ignore[arg-type]
    free_a = [i for i in range(len(a.shape)) if i not in contract_a and i not in batch_a]
    free_b = [j for j in range(len(b.shape)) if j not in contract_b and j not in batch_b]
    batch = [(a.shape[i], a.dims[i] or b.dims[j]) for i, j in zip(batch_a, batch_b, strict=True)]
    rest = [(a.shape[i], a.dims[i]) for i in free_a] + [(b.shape[j], b.dims[j]) for j in free_b]
    inner = [
        (a.shape[i], a.dims[i] or b.dims[j]) for i, j in zip(contract_a, contract_b, strict=True)
    ]
    layout = [*batch, *rest, *inner]
    shape, dims = tuple(n for n, _ in layout), tuple(d for _, d in layout)
    a, b = attach(a), attach(b)
    outer = tuple(d for d in dims if d is not None)
    axes = {"axes": tuple(range(len(batch) + len(rest), len(layout)))}
    if a.is_constant and b.is_constant:
        kept = tuple(d for _, d in [*batch, *rest] if d is not None)
        missing = [
            n for n, d in inner if d is None or d not in (*a.constant.axes, *b.constant.axes)
        ]
        total = contract([_as_jax(a.constant), _as_jax(b.constant)], kept)
        total = Tensor(total.array * float(np.prod(missing)), total.axes)
        size = len(batch) + len(rest)
        return Value(shape[:size], dims[:size], constant_node(total))
    terms = []
    for s in forced(a):
        for t in forced(b):
            terms.append(product(s, t, outer))
    if len(terms) > algebra.MAX_TERMS:
        raise Unreadable(f"a product of sums with {len(terms)} terms")
    return reduce_sum(pool, axes, Value(shape, dims, Node(collect(tuple(terms)))))


def _as_jax(x: Tensor) -> Tensor:
    return Tensor(jnp.asarray(x.array), x.axes)


def cumsum(pool: Pool, params: Params, value: Value) -> Value:
    """Cumulative sums, as a product with a triangle of ones."""
    at, size = params["axis"], value.shape[params["axis"]]
    if size > MAX_CUMULATIVE:
        raise Unreadable(f"a cumulative sum over {size} elements")
    if size == 1:
        return value
    triangle = np.tri(size).T if params.get("reverse") else np.tri(size)
    return _times_matrix(value, at, triangle)


def _times_matrix(value: Value, at: int, matrix: Any) -> Value:
    """sum_j matrix[i, j] value[..., j, ...]."""
    new, old, label = fresh(), fresh(), value.dims[at]
    value = attach(value, set() if label is None else {label})
    terms = []
    for term in forced(value):
        if label not in term.axes:
            terms.append(term.times(Tensor(matrix.sum(axis=1), (new,))))
        else:
            terms.append(rename(term, {label: old}).times(Tensor(matrix, (new, old))))  # type: ignore[dict-item]
    dims = (*value.dims[:at], new, *value.dims[at + 1 :])
    return Value(value.shape, dims, Node(tuple(terms)), value.guards)


def triangular_solve(pool: Pool, params: Params, a: Value, b: Value) -> Value:
    """Solve with a constant triangular matrix, as a product with its inverse."""
    if not a.is_constant or len(a.shape) != 2:
        raise Unreadable("a triangular solve with a matrix that depends on latents")
    inverse = solve_triangular(
        jnp.asarray(dense(a)), jnp.eye(a.shape[0]), lower=params["lower"],
        trans=1 if params["transpose_a"] else 0, unit_diagonal=params["unit_diagonal"],
    )  # fmt: skip
    at = len(b.shape) - (2 if params["left_side"] else 1)
    return _times_matrix(b, at, inverse if params["left_side"] else inverse.T)
