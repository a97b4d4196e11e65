"""Joint probabilities of elements of one discrete latent."""

from typing import Any

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from taut.expectation.factor import AbstractChain, AbstractDiscrete
from taut.expectation.pool import StaticIndex
from taut.expectation.terms import Entry, IndexRef

Indicator = tuple[Entry, int]
"""An element of a discrete latent, and the axis of its values."""


def joint_probs(
    factor: AbstractDiscrete, first: Indicator, second: Indicator, arrays: list[Any]
) -> tuple[Array, tuple[int | IndexRef, ...]] | None:
    """Joint probability of two elements that lie side by side, apart or on each other.

    Returns:
        An array and the index to look it up at; None where the two are independent, or where
        their places are not known.
    """
    (a, at_a), (b, at_b) = first, second
    where = positions(a, b, arrays, factor.shape[-1]) if factor.shape else None
    if where is None:
        return None
    x, y, axes = where
    same = (x == y)[..., None, None]
    if isinstance(factor, AbstractChain):
        if np.any(np.abs(x - y) > 1):
            return None
        if np.all(same):
            joint = jnp.zeros(())
        else:
            earlier = np.minimum(np.minimum(x, y), factor.shape[-1] - 2)
            joint = jnp.take(factor.pairs, earlier, axis=-3)
            joint = jnp.where((y < x)[..., None, None], joint.mT, joint)
    elif not same.any():
        return None  # independent
    else:
        of_a, of_b = (jnp.take(factor.probs, i, axis=-2) for i in (x, y))
        joint = of_a[..., :, None] * of_b[..., None, :]
    if same.any():
        probs = jnp.take(factor.probs, x, axis=-2)
        joint = jnp.where(same, probs[..., None] * np.eye(probs.shape[-1]), joint)
    return joint, (*a.index[:-1], *axes, at_a, at_b)


def positions(
    a: Entry, b: Entry, arrays: Any, size: int
) -> tuple[np.ndarray, np.ndarray, tuple[int, ...]] | None:
    """Places of two elements of a latent along its last dimension, and the axes they vary on.

    None where they are not known while tracing, or where the elements differ in other dimensions.
    """
    if a.index[:-1] != b.index[:-1]:
        return None
    found = []
    for last in (a.index[-1], b.index[-1]):
        if not isinstance(last, IndexRef):
            found.append((np.arange(size), (last,)))
            continue
        array = arrays[last.slot]
        array = array.array if isinstance(array, StaticIndex) else array
        if not isinstance(array, np.ndarray | np.generic):
            return None
        places = np.asarray(array, int)
        found.append((np.where(places < 0, places + size, places), last.axes))
    (x, axes), (y, others) = found
    if axes and others and axes != others:
        return None
    x, y = np.broadcast_arrays(x, y)
    return x, y, axes or others


def are_distinct(group: list[Indicator], arrays: list[Any]) -> bool:
    """True if no two of the elements can be the same one."""
    entries = [e for e, _ in group]
    return all(
        any(_differ(i, j, arrays) for i, j in zip(a.index, b.index, strict=True))
        for n, a in enumerate(entries) for b in entries[:n]
    )  # fmt: skip


def _differ(i: int | IndexRef, j: int | IndexRef, arrays: list[Any]) -> bool:
    if not (isinstance(i, IndexRef) and isinstance(j, IndexRef)) or i.axes != j.axes:
        return False
    x, y = arrays[i.slot], arrays[j.slot]
    static = isinstance(x, np.ndarray) and isinstance(y, np.ndarray)
    return static and bool(np.all(x != y))
