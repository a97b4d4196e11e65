"""Values of a function that is being read: sums of terms, with the way they were computed.

Every value keeps both what it *is*, where that is a sum of terms, and how it was *made*, a tree
of elementwise operations: from the expanded square of y - Xw the residual cannot be recovered,
and a nonlinear function wants one affine argument, not three.
"""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from taut.expectation import algebra
from taut.expectation.certain import almost_sure
from taut.expectation.pool import Pool
from taut.expectation.terms import (
    Entry,
    Tensor,
    Term,
    Terms,
    constant_term,
    fresh,
    rename,
    with_onehots,
)


class Unreadable(Exception):
    """Part of a function has no place in the algebra; the message says which and why."""


@dataclasses.dataclass(frozen=True, eq=False)
class Node:
    """One elementwise value.

    Attributes:
        terms: what it is, or None where it is no sum of terms.
        constant: its array, if it does not depend on latents.
        op: name, primitive and parameters that made it from its children, or None.
        children: operands of ``op``.
    """

    terms: Terms | None
    constant: Tensor | None = None
    op: tuple[str, Any, tuple[tuple[str, Any], ...]] | None = None
    children: tuple["Node", ...] = ()

    def map(self, change: Callable[[Any], Any], memo: dict[int, "Node"] | None = None) -> "Node":
        """Apply a change of axes to all terms and constants below."""
        memo = {} if memo is None else memo
        if id(self) not in memo:
            constant = None if self.constant is None else change(self.constant)
            terms = self.terms
            if constant is not None:
                terms = (constant_term(constant),)
            elif terms is not None:
                terms = tuple(change(t) for t in terms)
            children = tuple(c.map(change, memo) for c in self.children)
            memo[id(self)] = Node(terms, constant, self.op, children)
        return memo[id(self)]


def constant_node(tensor: Tensor) -> Node:
    """A node that does not depend on latents."""
    return Node((constant_term(tensor),), tensor)


@dataclasses.dataclass(frozen=True, eq=False)
class Value:
    """An array that may depend on latents.

    Attributes:
        shape: its shape.
        dims: a label per dimension; None where it does not vary along it (or has size 1).
        node: its elements.
        guards: elements of discrete latents whose values are enumerated, each with the axis
            of its values; the value stands for sum_e 1[z = e] node_e.
    """

    shape: tuple[int, ...]
    dims: tuple[int | None, ...]
    node: Node
    guards: tuple[tuple[Entry, int], ...] = ()

    @property
    def outer(self) -> tuple[int, ...]:
        """Labels that are not summed: dimensions and enumerations."""
        return (*(d for d in self.dims if d is not None), *(g for _, g in self.guards))

    @property
    def is_constant(self) -> bool:
        """True if it depends on no latent."""
        return self.node.constant is not None and not self.guards

    @property
    def constant(self) -> Tensor:
        """Its array; only for constants."""
        assert self.node.constant is not None
        return self.node.constant

    def rename(self, names: Mapping[int, int]) -> "Value":
        """The value with other labels."""
        names = {a: b for a, b in names.items() if a != b}
        if not names:
            return self
        dims = tuple(None if d is None else names.get(d, d) for d in self.dims)
        guards = tuple((rename(e, names), names.get(g, g)) for e, g in self.guards)
        return Value(self.shape, dims, self.node.map(lambda x: rename(x, names)), guards)

    def reindexed(self, pool: Pool, at: int, index: Tensor) -> tuple[Node, Any]:
        """Node and guards with dimension ``at`` replaced by an index array."""
        axis = self.dims[at]
        assert axis is not None
        node = self.node.map(lambda x: pool.reindex(x, axis, index))
        return node, tuple((pool.reindex(e, axis, index), g) for e, g in self.guards)


def constant(array: Any) -> Value:
    """A constant array as a value."""
    shape = tuple(np.shape(array))
    dims = tuple(None if n == 1 else fresh() for n in shape)
    kept = tuple(d for d in dims if d is not None)
    if 1 in shape:
        array = array.reshape(tuple(n for n in shape if n != 1))
    if isinstance(array, np.ndarray) and array.ndim == 0:
        array = array[()]
    return Value(shape, dims, constant_node(Tensor(array, kept)))


def aligned(values: list[Value]) -> tuple[list[Value], tuple[int, ...], tuple[int | None, ...]]:
    """Give common labels to values of one shape (scalars and sizes of one are broadcast).

    Returns:
        The values, the common shape, and a label per dimension.
    """
    shape = tuple(np.broadcast_shapes(*(v.shape for v in values)))
    chosen: list[int | None] = [None] * len(shape)
    guards: dict[Entry, int] = {}
    found = []
    for value in values:
        names: dict[int, int] = {}
        for at, label in enumerate(value.dims):
            if label is None:
                continue
            if chosen[at] is None:
                taken = {c for c in chosen if c is not None} | set(guards.values())
                chosen[at] = fresh() if label in taken else label
            names[label] = chosen[at]  # type: ignore[assignment]
        value = value.rename(names)
        value = value.rename({g: guards[e] for e, g in value.guards if e in guards})
        clash = {g: fresh() for e, g in value.guards if e not in guards and g in guards.values()}
        value = value.rename(clash)
        guards.update(dict(value.guards))
        found.append(value)
    return found, shape, tuple(chosen)


def apply(
    pool: Pool, name: str, prim: Any, params: Mapping[str, Any], inputs: list[Value]
) -> Value:
    """An elementwise operation."""
    values, shape, dims = aligned(inputs)
    guards = dict(pair for v in values for pair in v.guards)
    nodes = [v.node for v in values]
    outer = (*(d for d in dims if d is not None), *guards.values())
    known = almost_sure(name, nodes, outer)
    if known is not None:
        if isinstance(known, Node):
            return Value(shape, dims, known, tuple(guards.items()))
        return Value(shape, dims, constant_node(known))
    if all(n.constant is not None for n in nodes):
        tensor = algebra.on_constants(pool, name, prim, params, [n.constant for n in nodes])  # type: ignore[misc]
        return Value(shape, dims, constant_node(tensor), tuple(guards.items()))
    terms = algebra.on_terms(name, params, nodes, outer)
    op = (name, prim, tuple(sorted(params.items(), key=lambda item: item[0])))
    return Value(shape, dims, Node(terms, None, op, tuple(nodes)), tuple(guards.items()))


def attach(value: Value, axes: set[int] | None = None) -> Value:
    """Turn guards into indicator atoms: all, or those whose element varies on ``axes``.

    The enumerating axes become summed ones.
    """
    chosen = [(e, g) for e, g in value.guards if axes is None or axes & set(e.axes)]
    if not chosen:
        return value
    terms = forced(value)
    for entry, axis in chosen:
        new = fresh()
        terms = tuple(with_onehots(rename(t, {axis: new}), ((entry, new),)) for t in terms)
    kept = tuple(pair for pair in value.guards if pair not in chosen)
    return Value(value.shape, value.dims, Node(terms), kept)


def forced(value: Value) -> Terms:
    """The value as a sum of terms, whatever it takes.

    Raises:
        Unreadable: if it cannot be written so.
    """
    from taut.expectation.functions import force

    return force(value.node, value.outer)


def is_one(term: Term) -> bool:
    """True for the constant one."""
    return term.is_constant and not term.operands and term.scale == 1.0
