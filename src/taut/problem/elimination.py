"""Sums over discrete variables by variable elimination in plates and along chains.

Log densities come as tables with named dimensions. A variable with the most axes goes first:
its tables are added, axes that it does not have are summed (independent copies), and it is summed
out; what is left is a table of its neighbours. This is tensor variable elimination (Obermeyer and
others 2019); a chain takes the forward recursion instead, over the joint state of all chains that
touch. The same code gives, with another way to sum: the log of the sum, its maximum, whose
gradient marks the best values (Viterbi), or a sum whose gradient marks an exact posterior draw
(forward filtering, backward sampling).
"""

import dataclasses
import functools
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from taut._core.errors import ModelError, listing

MAX_NUMBERS = 2**26  # in one table


class Dim(NamedTuple):
    """A dimension of a table.

    Attributes:
        kind: ``axis`` for independent elements or the steps of a chain, ``value`` for a
            variable's value, ``previous`` for that one step earlier.
        name: of the axis or the variable.
    """

    kind: str
    name: str


class Table(NamedTuple):
    """A log density by named dimensions."""

    dims: tuple[Dim, ...]
    array: Any


@dataclasses.dataclass(frozen=True)
class Variable:
    """A discrete variable to be summed out.

    Attributes:
        name: its name.
        axes: the axes along which it has independent elements, or elements of a chain.
        chain: the axis among them along which each element depends on the one before, or "".
    """

    name: str
    axes: tuple[str, ...]
    chain: str = ""


# --- ways to sum ------------------------------------------------------------------------------

Combine = Callable[[Any, int, Any], Any]
"""(log table, axis, random key or None) -> log of what is left."""


def log_sum(array: Any, axis: int, key: Any) -> Any:
    """Log of the sum of exponentials; its gradient is zero, not NaN, where all are -inf."""
    del key
    top = jax.lax.stop_gradient(jnp.max(array, axis, keepdims=True))
    top = jnp.where(jnp.isfinite(top), top, 0.0)
    total = jnp.sum(jnp.exp(array - top), axis)
    impossible = total == 0
    log_total = jnp.log(jnp.where(impossible, 1.0, total)) + jnp.squeeze(top, axis)
    return jnp.where(impossible, -jnp.inf, log_total)


def maximum(array: Any, axis: int, key: Any) -> Any:
    """The largest; its gradient marks the first place where it is."""
    del key
    best = jax.nn.one_hot(jnp.argmax(array, axis), array.shape[axis], axis=axis)
    return jnp.sum(jnp.where(best > 0, array, 0.0), axis)


def draw(array: Any, axis: int, key: Any) -> Any:
    """As :func:`log_sum`, but the gradient marks one place, drawn with its probability."""
    noisy = array + jax.random.gumbel(key, array.shape, array.dtype)
    return _marked(array, noisy, axis)


@functools.partial(jax.custom_vjp, nondiff_argnums=(2,))
def _marked(array: Any, noisy: Any, axis: int) -> Any:
    del noisy
    return log_sum(array, axis, None)


def _marked_forward(array: Any, noisy: Any, axis: int) -> Any:
    return log_sum(array, axis, None), noisy


def _marked_backward(axis: int, noisy: Any, cotangent: Any) -> Any:
    mark = jax.nn.one_hot(jnp.argmax(noisy, axis), noisy.shape[axis], axis=axis)
    return mark * jnp.expand_dims(cotangent, axis), jnp.zeros_like(noisy)


_marked.defvjp(_marked_forward, _marked_backward)


# --- elimination ------------------------------------------------------------------------------


def eliminate(
    tables: Sequence[Table],
    variables: Sequence[Variable],
    combine: Combine,
    key: Any = None,
    most: int | None = None,
) -> Table:
    """Sum all variables out of one connected set of tables.

    Args:
        tables: log densities that are to be multiplied.
        variables: those to be summed out: all that the tables have.
        combine: way to sum.
        key: random key for :func:`draw`.
        most: numbers that a table may have; None for any.

    Returns:
        A table over the axes that all share: the sum is a product of independent parts along
        them.

    Raises:
        ModelError: if the variables cannot be told apart, as where rows and columns cross.
        TooManyError: if a table gets larger than ``most``.
    """
    add = functools.partial(_add, most=most)
    rest, known = list(tables), {v.name: v for v in variables}
    turn = 0
    while known:
        variable = _next(rest, known)
        own = None if key is None else jax.random.fold_in(key, turn)
        cluster = _cluster(rest, known, variable)
        near = [t for t in rest if _names(t) & {v.name for v in cluster}]
        rest = [t for t in rest if not _names(t) & {v.name for v in cluster}]
        shared = [_only(t, cluster[0], known) for t in near]
        if variable.chain:
            rest.append(_sum_chain(functools.reduce(add, shared), cluster, combine, own))
        else:
            rest.append(_sum_value(functools.reduce(add, shared), variable, combine, own))
        for gone in cluster:
            del known[gone.name]
        turn += 1
    return functools.reduce(add, rest)


def _names(table: Table) -> set[str]:
    return {d.name for d in table.dims if d.kind != "axis"}


def _next(tables: list[Table], known: Mapping[str, Variable]) -> Variable:
    """Most axes first, chains last among those, the cheapest first."""

    def cost(v: Variable) -> tuple[int, bool, float]:
        sizes = {
            d: n
            for t in tables
            if v.name in _names(t)
            for d, n in zip(t.dims, t.array.shape, strict=True)
        }
        return -len(v.axes), bool(v.chain), float(math.prod(sizes.values()))

    return min(known.values(), key=cost)


def _cluster(
    tables: list[Table], known: Mapping[str, Variable], variable: Variable
) -> list[Variable]:
    """The variable with all chains that it touches along its own time."""
    found, new = {variable.name}, bool(variable.chain)
    while new:
        touching = set().union(*(_names(t) for t in tables if _names(t) & found))
        same = {n for n in touching & set(known) if known[n].chain == variable.chain}
        new = not same <= found
        found |= same
    cluster = [known[n] for n in sorted(found)]
    if any(set(v.axes) != set(variable.axes) for v in cluster):
        raise _crossed([v.name for v in cluster])
    return cluster


def _only(table: Table, variable: Variable, known: Mapping[str, Variable]) -> Table:
    """The table with the axes that the variable does not have summed."""
    extra = [d.name for d in table.dims if d.kind == "axis" and d.name not in variable.axes]
    clash = [n for n in _names(table) & set(known) if set(known[n].axes) & set(extra)]
    if clash:
        raise _crossed([variable.name, *clash])
    array = jnp.sum(table.array, [i for i, d in enumerate(table.dims) if d.name in extra])
    return Table(tuple(d for d in table.dims if d.name not in extra), array)


def _crossed(names: list[str]) -> ModelError:
    return ModelError(
        f"the discrete latents {listing(sorted(set(names)))} depend on each other across different plates, so "
        "no order of summing them out is cheap; put them into one plate, or sum by hand"
    )


def _add(a: Table, b: Table, most: int | None) -> Table:
    dims = (*a.dims, *(d for d in b.dims if d not in a.dims))
    x, y = _aligned(a, dims), _aligned(b, dims)
    numbers = math.prod(max(m, n) for m, n in zip(x.shape, y.shape, strict=True))
    if most is not None and numbers > most:
        names = sorted({d.name for d in dims if d.kind != "axis"})
        raise too_many(names, numbers)
    return Table(dims, x + y)


class TooManyError(ModelError):
    """A sum over discrete latents would not fit into memory."""


def too_many(names: Sequence[str], numbers: int) -> TooManyError:
    """The error for a sum that would not fit into memory."""
    return TooManyError(
        f"summing the discrete latents {listing(names)} out needs tables of {numbers:,} numbers (the limit "
        f"is {MAX_NUMBERS:,}); use fewer values or elements, latents that are independent given the others, or "
        "rows along the leading axis of the data, which are then summed a few at a time"
    )


def _aligned(table: Table, dims: Sequence[Dim]) -> Any:
    """The array with its dimensions in this order, those that it lacks of size one."""
    order = [table.dims.index(d) for d in dims if d in table.dims]
    shape = iter(jnp.transpose(table.array, order).shape)
    return jnp.transpose(table.array, order).reshape(
        [next(shape) if d in table.dims else 1 for d in dims]
    )


def _sum_value(table: Table, variable: Variable, combine: Combine, key: Any) -> Table:
    axis = table.dims.index(Dim("value", variable.name))
    dims = tuple(d for i, d in enumerate(table.dims) if i != axis)
    return Table(dims, combine(table.array, axis, key))


def _sum_chain(table: Table, cluster: Sequence[Variable], combine: Combine, key: Any) -> Table:
    """The forward recursion over the joint state of the cluster's chains."""
    time = Dim("axis", cluster[0].chain)
    before = [Dim("previous", v.name) for v in cluster]
    here = [Dim("value", v.name) for v in cluster]
    rest = [d for d in table.dims if d not in (time, *before, *here)]
    array = _aligned(table, [time, *rest, *before, *here])
    values = array.shape[len(array.shape) - len(here) :]
    array = jnp.broadcast_to(array, (*array.shape[: 1 + len(rest)], *values, *values))
    states = math.prod(values)
    array = array.reshape(*array.shape[: 1 + len(rest)], states, states)
    keys = None if key is None else jax.random.split(key, len(array))
    first = None if keys is None else keys[0]

    def step(alpha: Any, at: tuple[Any, Any]) -> tuple[Any, None]:
        potential, own = at
        return combine(alpha[..., :, None] + potential, alpha.ndim - 1, own), None

    start = array[0][..., 0, :]  # the first element has none before it
    last, _ = jax.lax.scan(step, start, (array[1:], None if keys is None else keys[1:]))
    return Table(tuple(rest), combine(last, last.ndim - 1, first))
