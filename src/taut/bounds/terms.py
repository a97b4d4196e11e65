"""Sums of terms that belong to one datum each and of terms that all data share."""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array

from taut._core.errors import ArgumentError


class Terms(NamedTuple):
    """A number split by what it belongs to; runs may add axes in front.

    Attributes:
        shared: what all data share, ().
        local: what belongs to each datum, (n,); (0,) without a data axis.
    """

    shared: Array
    local: Array

    @classmethod
    def zero(cls, num_data: int) -> "Terms":
        """Nothing yet."""
        return cls(jnp.zeros(()), jnp.zeros(num_data))

    def add(self, term: Array) -> "Terms":
        """Add a number or an array with one element per datum."""
        if jnp.ndim(term):
            return Terms(self.shared, self.local + term)
        return Terms(self.shared + term, self.local)


def log_joint_terms(returned: Any, num_data: int) -> Terms:
    """What a log joint returned, added up."""
    terms = map(jnp.asarray, jax.tree.leaves(returned))
    return functools.reduce(Terms.add, terms, Terms.zero(num_data))


def vectorised(function: Callable[..., Any], *axes: Array) -> Any:
    """Map a function over the product of several axes, which lead the axes of its results."""
    if not axes:
        return function()

    def inner(element: Any) -> Any:
        return vectorised(functools.partial(function, element), *axes[1:])

    if len(axes[0]) == 1:  # an axis of one would turn every matrix product into a batched one
        return jax.tree.map(lambda x: jnp.asarray(x)[None], inner(axes[0][0]))
    return jax.vmap(inner)(axes[0])


def gradient_only(term: Array) -> Array:
    """Zero, with the gradient of the term."""
    return term - jax.lax.stop_gradient(term)


def check_samples(samples: int, least: int = 1) -> None:
    """Raise an ArgumentError for too few samples."""
    if samples < least:
        raise ArgumentError(f"samples must be at least {least}, got {samples}")
