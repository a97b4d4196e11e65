"""What the table of log densities is made of: its register, and parts of formulas."""

from collections.abc import Callable
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist

Formula = Callable[[Any, Any], Any]
Decorated = TypeVar("Decorated", bound=Formula)

TABLE: dict[type, Formula] = {}


def register(*classes: type) -> Callable[[Decorated], Decorated]:
    """Put a log density into the table.

    Args:
        *classes: distributions that it is for; subclasses of them are not meant.

    Returns:
        A decorator for a function of (distribution, value) that returns log densities over the
        distribution's batch shape, or of a shape that broadcasts to it, or None where it has no
        formula after all.
    """

    def decorate(formula: Decorated) -> Decorated:
        for cls in classes:
            TABLE[cls] = formula
        return formula

    return decorate


def log_density(fn: Any, value: Any, is_data: bool = False) -> Any:
    """Log density of a distribution by its entry in the table.

    Args:
        fn: a NumPyro distribution; independent, expanded and masked ones are unwrapped.
        value: shape (..., *batch_shape, *event_shape).
        is_data: whether the value holds data, which may be anything (such as NaN) where a mask
            is false, and is replaced there.

    Returns:
        Log densities, shape (..., *batch_shape), in nats; None where the table has no entry.
    """
    if isinstance(fn, dist.Independent):
        inner, count = log_density(fn.base_dist, value, is_data), fn.reinterpreted_batch_ndims
        return inner if inner is None or not count else _sum_last(inner, count)
    if isinstance(fn, dist.MaskedDistribution):
        return _masked(fn, value, is_data)
    if isinstance(fn, dist.ExpandedDistribution):
        found = log_density(fn.base_dist, value, is_data)
    else:
        formula = TABLE.get(type(fn))
        found = None if formula is None else formula(fn, value)
    if found is None:
        return None
    # Some densities do not depend on the value, which may have more axes than the distribution.
    drawn = jnp.shape(value)[: max(jnp.ndim(value) - fn.event_dim, 0)]
    return _broadcast(found, jnp.broadcast_shapes(drawn, fn.batch_shape))


def _sum_last(x: Any, count: int) -> Any:
    return jnp.sum(x, axis=tuple(range(-count, 0)))


def _broadcast(x: Any, shape: tuple[int, ...]) -> Any:
    """Broadcast without an equation where nothing changes."""
    shape = jnp.broadcast_shapes(jnp.shape(x), shape)
    return x if jnp.shape(x) == shape else jnp.broadcast_to(x, shape)


def _masked(fn: Any, value: Any, is_data: bool) -> Any:
    mask = fn._mask  # NumPyro has no public name for it
    if mask is not None and not isinstance(mask, bool):
        if is_data:
            over = jnp.reshape(mask, (*jnp.shape(mask), *(1,) * fn.event_dim))
            value = jnp.where(over, value, fn.base_dist.support.feasible_like(value))
        mask = jnp.asarray(mask)
    found = log_density(fn.base_dist, value, is_data)
    if found is None or mask is None or mask is True:
        return found
    return _broadcast(jnp.zeros(()) if mask is False else found * mask, fn.batch_shape)


# --- parts of formulas --------------------------------------------------------------------------


@jax.jit
def log_det(matrix: Any) -> Any:
    """Log determinant of positive definite matrices; known by name when a jaxpr is read."""
    factor = jnp.linalg.cholesky(matrix)
    return 2.0 * jnp.sum(jnp.log(diagonal(factor)), axis=-1)


def diagonal(matrix: Any) -> Any:
    """Diagonals over the last two axes, as one gather."""
    rows = np.arange(matrix.shape[-1])
    return matrix[..., rows, rows]


def pick(table: Any, index: Any) -> Any:
    """table[..., index], elementwise over batch axes: one plain gather.

    Args:
        table: shape (*batch, K).
        index: integers; their shape broadcasts against the batch shape.
    """
    table, index = jnp.asarray(table), jnp.asarray(index)
    if not jnp.issubdtype(index.dtype, jnp.integer):
        index = index.astype(int)
    batch = table.shape[:-1]
    where = []
    for axis, size in enumerate(batch):
        shape = (size, *(1,) * (len(batch) - axis - 1))
        where.append(np.arange(size).reshape(shape) if size > 1 else 0)
    if not any(size > 1 for size in batch):
        table, where = table.reshape(table.shape[-1]), []
    return _broadcast(table[(*where, index)], batch)


def lgamma(x: Any) -> Any:
    """Log gamma function."""
    return jax.scipy.special.gammaln(x)


def log_sum_exp(x: Any) -> Any:
    """Over the last axis, as it is defined: exponents beyond 700 overflow."""
    return jnp.log(jnp.sum(jnp.exp(x), axis=-1))


def log_binomial(n: Any, k: Any) -> Any:
    """Log of the binomial coefficient."""
    return lgamma(n + 1) - lgamma(k + 1) - lgamma(n - k + 1)


def matrix_parameter(d: Any, name: str) -> Any:
    """A parameter of a distribution if it was given (not derived from others), or None."""
    return vars(d).get(name)
