"""Kullback-Leibler divergences in closed form.

NumPyro's, and those that it lacks: between categorical and Bernoulli distributions however they
are written, and between equal transformations of distributions.
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpyro.distributions as dist
from jaxtyping import Array
from numpyro.distributions import Distribution
from numpyro.distributions.kl import kl_divergence

from taut.bounds import discrete


def closed_divergence(q: Distribution, p: Distribution) -> Array | None:
    """KL(q || p) in nats, in q's batch shape; None where there is no closed form.

    Args:
        q: a distribution.
        p: one of the same event shape, whose batch shape broadcasts to q's.
    """
    elements = discrete.element_of(q), discrete.element_of(p)
    for kind, rule in _ELEMENTWISE:
        if all(isinstance(e, kind) for e in elements):
            terms = rule(q, p)
            return jnp.sum(terms, axis=tuple(range(len(q.batch_shape), terms.ndim)))
    if _is_series(*elements):
        return None
    if all(isinstance(e, dist.LogNormal) for e in elements):
        q, p = (_of_logarithm(d) for d in (q, p))
    try:
        return jnp.broadcast_to(kl_divergence(q, p), q.batch_shape)
    except NotImplementedError:
        return None


def _is_series(q: Any, p: Any) -> bool:
    """Whether NumPyro's formula is a truncated series, whose error no draw averages away."""
    return isinstance(q, dist.Kumaraswamy) and isinstance(p, dist.Beta)


def _of_logarithm(distribution: Any) -> Distribution:
    """The normal distribution of the logarithm, shaped alike: a bijection keeps divergences."""
    element: Any = discrete.element_of(distribution)
    shape, event_dim = distribution.shape(), distribution.event_dim
    loc, scale = (jnp.broadcast_to(x, shape) for x in (element.loc, element.scale))
    return dist.Normal(loc, scale).to_event(event_dim)


def _bernoulli(q: Distribution, p: Distribution) -> Array:
    logits = discrete.bernoulli_logits(q)
    others = jnp.broadcast_to(discrete.bernoulli_logits(p), logits.shape)
    # Zero times infinity is zero: the first factor decides which logarithm counts.
    on = _weighted(jax.nn.sigmoid(logits), jax.nn.log_sigmoid(logits), jax.nn.log_sigmoid(others))
    off = _weighted(
        jax.nn.sigmoid(-logits), jax.nn.log_sigmoid(-logits), jax.nn.log_sigmoid(-others)
    )
    return on + off


def _categorical(q: Distribution, p: Distribution) -> Array:
    logits = discrete.categorical_logits(q)
    others = jnp.broadcast_to(discrete.categorical_logits(p), logits.shape)
    return jnp.sum(_weighted(jnp.exp(logits), logits, others), axis=-1)


def _weighted(probs: Array, logits: Array, others: Array) -> Array:
    present = probs > 0
    safe, other = jnp.where(present, logits, 0.0), jnp.where(present, others, 0.0)
    return jnp.where(present, probs * (safe - other), 0.0)


_ELEMENTWISE = ((discrete.BERNOULLI, _bernoulli), (discrete.CATEGORICAL, _categorical))
