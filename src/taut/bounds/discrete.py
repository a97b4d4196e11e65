"""What the estimators need of discrete distributions: supports, log probabilities, relaxations.

NumPyro's ``to_event`` and ``expand`` are looked through, since an estimator for independent elements
does not mind how they are grouped. A mask is not: with it probabilities no longer sum to one.
"""

import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
from jaxtyping import Array
from numpyro.distributions import Distribution

_WRAPPERS = (dist.Independent, dist.ExpandedDistribution)
BERNOULLI = (dist.BernoulliLogits, dist.BernoulliProbs)
CATEGORICAL = (dist.CategoricalLogits, dist.CategoricalProbs)
RELAXABLE = (*BERNOULLI, *CATEGORICAL)


def element_of(distribution: Distribution) -> Distribution:
    """The distribution without the wrappers that group or repeat its elements."""
    while isinstance(distribution, _WRAPPERS):
        distribution = distribution.base_dist
    return distribution


def is_discrete(distribution: Distribution) -> bool:
    """Whether its values are counts or labels."""
    support = distribution.support
    return bool(support is not None and support.is_discrete)


def support_size(distribution: Distribution) -> int:
    """Number of values of one element; 0 where the support is infinite or not elementwise."""
    element = element_of(distribution)
    if isinstance(element, CATEGORICAL):
        return categorical_logits(element).shape[-1]
    masked = isinstance(element, dist.MaskedDistribution)
    if masked or not element.has_enumerate_support or element.event_shape:
        return 0
    try:
        return element.enumerate_support(expand=False).shape[0]
    except NotImplementedError:  # elements of different supports, or sizes known when run only
        return 0


def configurations(distribution: Distribution, indices: Array) -> Array:
    """Values at indices into the support, in the shape of the indices."""
    return element_of(distribution).enumerate_support(expand=False).ravel()[indices]


def grid(num_values: int, num_cells: int) -> np.ndarray:
    """All settings of some cells: indices into the support, (num_values**num_cells, num_cells)."""
    count = num_values**num_cells
    digits = num_values ** np.arange(num_cells)
    return np.arange(count)[:, None] // digits[None, :] % num_values


def bernoulli_logits(distribution: Distribution) -> Array:
    """Log odds of every element, in the shape of a draw."""
    element: Any = element_of(distribution)
    if isinstance(element, dist.BernoulliLogits):
        logits = jnp.asarray(element.logits)
    else:
        probs = jnp.asarray(element.probs)
        logits = jnp.log(probs) - jnp.log1p(-probs)
    return jnp.broadcast_to(logits, distribution.shape())


def categorical_logits(distribution: Distribution) -> Array:
    """Normalised log probabilities, in the shape of a draw with the categories last."""
    element: Any = element_of(distribution)
    if isinstance(element, dist.CategoricalLogits):
        logits = jax.nn.log_softmax(jnp.asarray(element.logits))
    else:
        probs = jnp.asarray(element.probs)
        logits = jnp.log(probs / jnp.sum(probs, axis=-1, keepdims=True))
    return jnp.broadcast_to(logits, (*distribution.shape(), logits.shape[-1]))


def relaxed_draw(
    distribution: Distribution,
    key: Any,
    temperature: float | int,
    sample_shape: tuple[int, ...] = (),
) -> Array:
    """A Gumbel-softmax (categorical: one more axis) or logistic (Bernoulli) draw."""
    if isinstance(element_of(distribution), BERNOULLI):
        logits = bernoulli_logits(distribution)
        noise = jax.random.logistic(key, (*sample_shape, *logits.shape), logits.dtype)
        return jax.nn.sigmoid((logits + noise) / temperature)
    logits = categorical_logits(distribution)
    noise = jax.random.gumbel(key, (*sample_shape, *logits.shape), logits.dtype)
    return jax.nn.softmax((logits + noise) / temperature)


def hard(distribution: Distribution, relaxed: Array) -> Array:
    """The corner nearest to a relaxed draw; it has the law of the discrete distribution."""
    if isinstance(element_of(distribution), BERNOULLI):
        return (relaxed > 0.5).astype(relaxed.dtype)
    return jax.nn.one_hot(jnp.argmax(relaxed, -1), relaxed.shape[-1], dtype=relaxed.dtype)


def probabilities(distribution: Distribution) -> Array:
    """The mean of a draw written as 0/1 (Bernoulli) or one-hot (categorical)."""
    if isinstance(element_of(distribution), BERNOULLI):
        return jax.nn.sigmoid(bernoulli_logits(distribution))
    return jnp.exp(categorical_logits(distribution))


def linear_log_prob(distribution: Distribution, value: Array) -> Array:
    """The log probability, continued linearly from 0/1 or one-hot values, element by element."""
    if isinstance(element_of(distribution), BERNOULLI):
        logits = bernoulli_logits(distribution)
        on, off = jax.nn.log_sigmoid(logits), jax.nn.log_sigmoid(-logits)
        return _times(value, on) + _times(1 - value, off)
    return jnp.sum(_times(value, categorical_logits(distribution)), axis=-1)


def _times(value: Array, logs: Array) -> Array:
    """Their product, where zero times minus infinity is zero: what is impossible did not occur."""
    return value * jnp.where((value == 0) & jnp.isneginf(logs), 0.0, logs)


def log_prob(distribution: Distribution, value: Any) -> Array:
    """Log probability by batch element, or by draw's element for a Bernoulli with logits.

    There NumPyro's derivative is wrong at a logit of exactly zero, where networks often start: it
    is the sum of derivatives of two functions with a kink.
    """
    if isinstance(element_of(distribution), dist.BernoulliLogits):
        return linear_log_prob(distribution, jnp.asarray(value))
    return jnp.asarray(distribution.log_prob(value))


def num_cells(shape: tuple[int, ...], local: bool) -> int:
    """Elements that are enumerated jointly: those of one datum where the site is local."""
    return math.prod(shape[1:] if local else shape)
