"""The factor of discrete latents."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array
from typing_extensions import override

from taut._core.errors import ArgumentError
from taut.expectation.factor import AbstractDiscrete, Parameters
from taut.families.factors import all_true, build, is_concrete


class Categorical(AbstractDiscrete):
    """Integers 0 ... K-1: statistic the one-hot, natural parameter log p up to a constant.

    Args:
        probs: non-negative, summing to one over the last axis, shape (..., K).
    """

    natural: Parameters
    mean: Parameters

    def __init__(self, probs: Any) -> None:
        probs = jnp.asarray(probs, dtype=float)
        total = jnp.sum(probs, axis=-1, keepdims=True)
        if is_concrete(probs):
            known, size = np.asarray(probs), np.asarray(total)
            if not (np.all(known >= 0) and np.allclose(size, 1.0, rtol=0, atol=1e-5)):
                raise ArgumentError(
                    "Categorical.probs must be non-negative and sum to 1 over the last axis, got "
                    f"sums from {size.min():g} to {size.max():g} and a smallest value of "
                    f"{known.min():g}; divide by their sum"
                )
        self.natural = (jnp.log(probs / total),)
        self.mean = (probs / total,)

    @classmethod
    @override
    def from_natural(cls, natural: Parameters) -> "Categorical":
        return build(cls, natural=natural, mean=(jax.nn.softmax(natural[0], axis=-1),))

    @property
    @override
    def probs(self) -> Array:
        return self.mean[0]

    @property
    def _log_probs(self) -> Array:
        return jax.nn.log_softmax(self.natural[0], axis=-1)

    @property
    @override
    def log_normalizer(self) -> Array:
        # The same steps as in jax.nn.softmax, so that XLA computes the exponentials once.
        logits = self.natural[0]
        highest = jax.lax.stop_gradient(jnp.max(logits, axis=-1, keepdims=True))
        total = jnp.sum(jnp.exp(logits - highest), axis=-1, keepdims=True)
        return (highest + jnp.log(total))[..., 0]

    @property
    @override
    def shape(self) -> tuple[int, ...]:
        return self.natural[0].shape[:-1]

    @override
    def is_proper(self) -> Array:
        return all_true(~jnp.isnan(self.natural[0]), jnp.isfinite(jnp.max(self.natural[0], -1)))

    @override
    def gradient(self, cotangent: Any) -> Parameters:
        return (cotangent.mean[0] + softmax_solve(self.mean[0], cotangent.natural[0]),)

    @property
    @override
    def entropy(self) -> Array:
        return -jnp.sum(masked_product(self.mean[0], self._log_probs))

    @override
    def log_prob(self, value: Array) -> Array:
        return jnp.sum(jnp.take_along_axis(self._log_probs, value[..., None], axis=-1))

    @override
    def sample(self, key: Array, num_draws: int) -> Array:
        return jax.random.categorical(key, self.natural[0], shape=(num_draws, *self.shape))


def softmax_solve(probs: Array, cotangent: Array) -> Array:
    """Solve (diag(p) - p p') v = c over all axes at once: v = c / p, up to a constant.

    The cotangent of logits sums to zero, which makes c / p a solution; where p has underflowed
    so has c, and nothing is known of v.
    """
    held = probs > 0
    return jnp.where(held, cotangent / jnp.where(held, probs, 1.0), 0.0)


def masked_product(probs: Array, logs: Array) -> Array:
    """Multiply, with 0 x (-infinity) = 0."""
    return probs * jnp.where(probs > 0, logs, 0.0)
