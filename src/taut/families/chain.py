"""The factor of a sequence of discrete latents that keeps the dependence of neighbours."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.scipy.special import logsumexp
from jaxtyping import Array
from typing_extensions import override

from taut._core.errors import ArgumentError
from taut.expectation.factor import AbstractChain, Parameters
from taut.families.categorical import masked_product
from taut.families.factors import all_true, build, is_concrete


class Chain(AbstractChain):
    r"""A Markov chain of integers 0 ... K-1 along the last axis, with independent chains in front.

    .. math:: q(z) \propto \exp\Big(\sum_t a_t[z_t] + \sum_t b_t[z_t, z_{t+1}]\Big)

    Statistics are the one-hots of elements and of neighbours; the mean parameters are their
    probabilities, by the forward-backward algorithm. The statistics determine each other in part,
    so many natural parameters give the same q.

    Args:
        logits: a, of any level, shape (..., T, K); -infinity excludes a value.
        pair_logits: b, shape (..., T - 1, K, K), the earlier element first.

    Source:
        Rabiner (1989), section III; Bishop (2006), section 13.2. As q: MacKay (1997); Ghahramani
        and Jordan (1997), section 3.3.
    """

    natural: Parameters
    mean: Parameters

    def __init__(self, logits: Any, pair_logits: Any) -> None:
        a, b = jnp.asarray(logits, dtype=float), jnp.asarray(pair_logits, dtype=float)
        wanted = (*a.shape[:-2], a.shape[-2] - 1, a.shape[-1], a.shape[-1]) if a.ndim > 1 else ()
        if a.ndim < 2 or b.shape != wanted:
            raise ArgumentError(
                "Chain.logits must have shape (..., T, K) and Chain.pair_logits (..., T - 1, K, K), got "
                f"{a.shape} and {b.shape}; for independent elements use families.Categorical"
            )
        self.natural = (a, b)
        self.mean = _forward_backward(a, b)
        if is_concrete(self.mean[0]) and not np.isfinite(np.asarray(self.mean[0])).all():
            raise ArgumentError(
                "Chain.logits and Chain.pair_logits must leave at least one path with a positive "
                "probability and be no NaN, got none; look for rows that are -infinity throughout"
            )

    @classmethod
    @override
    def from_natural(cls, natural: Parameters) -> "Chain":
        return build(cls, natural=natural, mean=_forward_backward(*natural))

    @property
    @override
    def probs(self) -> Array:
        return self.mean[0]

    @property
    @override
    def pairs(self) -> Array:
        return self.mean[1]

    @property
    @override
    def shape(self) -> tuple[int, ...]:
        return self.natural[0].shape[:-1]

    @property
    @override
    def log_normalizer(self) -> Array:
        """Log of the sum over all paths of the exponential, nats, shape (...)."""
        return _forward(*self.natural)[1]

    @override
    def is_proper(self) -> Array:
        known = (~jnp.isnan(x) for x in self.natural)
        return all_true(*known, jnp.isfinite(self.log_normalizer), jnp.isfinite(self.mean[0]))

    @override
    def gradient(self, cotangent: Any) -> Parameters:
        # Expectations read nothing but the mean parameters of a chain, so nothing is left to be
        # pulled over from the natural ones.
        return cotangent.mean

    @property
    @override
    def entropy(self) -> Array:
        energies = zip(self.mean, self.natural, strict=True)
        energy = sum(jnp.sum(masked_product(p, logits)) for p, logits in energies)
        return jnp.sum(self.log_normalizer) - energy

    @override
    def log_prob(self, value: Array) -> Array:
        value = jnp.asarray(value)
        alone = jnp.take_along_axis(self.natural[0], value[..., None], axis=-1)
        of_first = jnp.take_along_axis(self.natural[1], value[..., :-1, None, None], axis=-2)
        both = jnp.take_along_axis(of_first, value[..., 1:, None, None], axis=-1)
        return jnp.sum(alone) + jnp.sum(both) - jnp.sum(self.log_normalizer)

    @override
    def sample(self, key: Array, num_draws: int) -> Array:
        """Forward filtering, backward sampling; shape (num_draws, ..., T)."""
        forward = jnp.moveaxis(_forward(*self.natural)[0], -2, 0)
        pairs, keys = jnp.moveaxis(self.natural[1], -3, 0), jax.random.split(key, len(forward))
        last = jax.random.categorical(keys[-1], forward[-1], shape=(num_draws, *self.shape[:-1]))

        def step(later: Array, given: Any) -> tuple[Array, Array]:
            message, pair, key = given  # (..., K), (..., K, K)
            column = jnp.take_along_axis(pair[None], later[..., None, None], axis=-1)[..., 0]
            drawn = jax.random.categorical(key, message + column)
            return drawn, drawn

        _, rest = jax.lax.scan(step, last, (forward[:-1], pairs, keys[:-1]), reverse=True)
        return jnp.concatenate([jnp.moveaxis(rest, 0, -1), last[..., None]], axis=-1)


def _forward(logits: Array, pair_logits: Array) -> tuple[Array, Array]:
    """Messages log q(z_t | what comes before), each normalised, (..., T, K); log normaliser (...)."""
    rows, pairs = jnp.moveaxis(logits, -2, 0), jnp.moveaxis(pair_logits, -3, 0)

    def step(message: Array, given: tuple[Array, Array]) -> tuple[Array, Any]:
        row, pair = given
        new, total = _normalised(row + logsumexp(message[..., :, None] + pair, axis=-2))
        return new, (new, total)

    first, start = _normalised(rows[0])
    _, (messages, totals) = jax.lax.scan(step, first, (rows[1:], pairs))
    messages = jnp.concatenate([first[None], messages])
    return jnp.moveaxis(messages, 0, -2), start + jnp.sum(totals, axis=0)


def _backward(logits: Array, pair_logits: Array) -> Array:
    """Messages from what comes after, each normalised, (..., T, K)."""
    rows, pairs = jnp.moveaxis(logits, -2, 0), jnp.moveaxis(pair_logits, -3, 0)

    def step(message: Array, given: tuple[Array, Array]) -> tuple[Array, Array]:
        row, pair = given
        new, _ = _normalised(logsumexp(pair + (row + message)[..., None, :], axis=-1))
        return new, new

    last = jnp.zeros_like(rows[0])
    _, messages = jax.lax.scan(step, last, (rows[1:], pairs), reverse=True)
    return jnp.moveaxis(jnp.concatenate([messages, last[None]]), 0, -2)


def _normalised(logits: Array) -> tuple[Array, Array]:
    """Logits less their total, so that long chains lose no digits, and that total."""
    total = logsumexp(logits, axis=-1)
    return logits - total[..., None], total


def _forward_backward(logits: Array, pair_logits: Array) -> Parameters:
    """Probabilities of elements, (..., T, K), and of neighbours, (..., T - 1, K, K)."""
    forward, backward = _forward(logits, pair_logits)[0], _backward(logits, pair_logits)
    later = (logits + backward)[..., 1:, None, :]
    joint = forward[..., :-1, :, None] + pair_logits + later
    joint = jax.nn.softmax(joint, axis=(-2, -1))
    return jax.nn.softmax(forward + backward, axis=-1), joint
