"""Entries of the table for discrete distributions; formulas from NumPyro's documentation.

A value may itself be latent. It is used as an index or as a factor, and compared only with zero
or the last category.
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpyro.distributions as dist
from numpyro.distributions.util import clamp_probs

from taut.expectation.registry import lgamma, log_binomial, log_density, log_sum_exp, pick, register

# --- categories -----------------------------------------------------------------------------------


@register(dist.BernoulliProbs)
def _bernoulli_probs(d: Any, x: Any) -> Any:
    p = clamp_probs(d.probs)
    return x * jnp.log(p) + (1 - x) * jnp.log1p(-p)


@register(dist.BernoulliLogits)
def _bernoulli_logits(d: Any, x: Any) -> Any:
    return x * d.logits - jax.nn.softplus(d.logits)


@register(dist.CategoricalProbs)
def _categorical_probs(d: Any, x: Any) -> Any:
    return pick(jnp.log(d.probs), x)


@register(dist.CategoricalLogits)
def _categorical_logits(d: Any, x: Any) -> Any:
    return pick(d.logits, x) - log_sum_exp(d.logits)


@register(dist.OrderedLogistic)
def _ordered_logistic(d: Any, x: Any) -> Any:
    last = jnp.shape(d.cutpoints)[-1]
    upper = pick(d.cutpoints, jnp.minimum(x, last - 1)) - d.predictor
    lower = pick(d.cutpoints, jnp.maximum(x - 1, 0)) - d.predictor
    above = jnp.where(jnp.equal(x, last), 1.0, jax.nn.sigmoid(upper))
    return jnp.log(above - jnp.where(jnp.equal(x, 0), 0.0, jax.nn.sigmoid(lower)))


@register(dist.DiscreteUniform)
def _discrete_uniform(d: Any, x: Any) -> Any:
    return -jnp.log(jnp.subtract(d.high, d.low) + 1.0)


# --- counts of successes --------------------------------------------------------------------------


@register(dist.BinomialProbs)
def _binomial_probs(d: Any, x: Any) -> Any:
    n, p = d.total_count, clamp_probs(d.probs)
    return x * jnp.log(p) + (n - x) * jnp.log1p(-p) + log_binomial(n, x)


@register(dist.BinomialLogits)
def _binomial_logits(d: Any, x: Any) -> Any:
    n = d.total_count
    return x * d.logits - n * jax.nn.softplus(d.logits) + log_binomial(n, x)


@register(dist.BetaBinomial)
def _beta_binomial(d: Any, x: Any) -> Any:
    a, b, n = d.concentration1, d.concentration0, d.total_count
    prior = lgamma(a + b) - lgamma(a) - lgamma(b)
    return prior + lgamma(x + a) + lgamma(n - x + b) - lgamma(n + a + b) + log_binomial(n, x)


@register(dist.MultinomialProbs)
def _multinomial_probs(d: Any, x: Any) -> Any:
    kernel = jnp.sum(x * jnp.log(d.probs), axis=-1)
    return kernel + lgamma(d.total_count + 1) - jnp.sum(lgamma(x + 1), axis=-1)


@register(dist.MultinomialLogits)
def _multinomial_logits(d: Any, x: Any) -> Any:
    kernel = jnp.sum(x * d.logits, axis=-1) - d.total_count * log_sum_exp(d.logits)
    return kernel + lgamma(d.total_count + 1) - jnp.sum(lgamma(x + 1), axis=-1)


@register(dist.DirichletMultinomial)
def _dirichlet_multinomial(d: Any, x: Any) -> Any:
    alpha, n = d.concentration, d.total_count
    total = jnp.sum(alpha, axis=-1)
    each = lgamma(alpha + x) - lgamma(alpha) - lgamma(x + 1)
    return jnp.sum(each, axis=-1) + lgamma(n + 1) + lgamma(total) - lgamma(total + n)


# --- counts without a bound -----------------------------------------------------------------------


@register(dist.Poisson)
def _poisson(d: Any, x: Any) -> Any:
    return x * jnp.log(d.rate) - d.rate - lgamma(x + 1)


@register(dist.GeometricProbs)
def _geometric_probs(d: Any, x: Any) -> Any:
    return x * jnp.log1p(-d.probs) + jnp.log(d.probs)


@register(dist.GeometricLogits)
def _geometric_logits(d: Any, x: Any) -> Any:
    return d.logits - (x + 1) * jax.nn.softplus(d.logits)


def _log_ways(count: Any, x: Any) -> Any:
    return lgamma(count + x) - lgamma(count) - lgamma(x + 1)


@register(dist.GammaPoisson, dist.NegativeBinomial2)
def _gamma_poisson(d: Any, x: Any) -> Any:
    a, b = d.concentration, d.rate
    return a * jnp.log(b) - (a + x) * jnp.log1p(b) + _log_ways(a, x)


@register(dist.NegativeBinomialProbs)
def _negative_binomial_probs(d: Any, x: Any) -> Any:
    a, p = d.total_count, d.probs
    return a * jnp.log1p(-p) + x * jnp.log(p) + _log_ways(a, x)


@register(dist.NegativeBinomialLogits)
def _negative_binomial_logits(d: Any, x: Any) -> Any:
    a = d.total_count
    return x * d.logits - (a + x) * jax.nn.softplus(d.logits) + _log_ways(a, x)


@register(dist.ZeroInflatedProbs, dist.ZeroInflatedPoisson)
def _zero_inflated_probs(d: Any, x: Any) -> Any:
    base = log_density(d.base_dist, x)
    if base is None:
        return None
    zero = jnp.log(d.gate + (1.0 - d.gate) * jnp.exp(_at_zero(d.base_dist, x)))
    return jnp.where(jnp.equal(x, 0), zero, jnp.log1p(-d.gate) + base)


@register(dist.ZeroInflatedLogits)
def _zero_inflated_logits(d: Any, x: Any) -> Any:
    base, gate = log_density(d.base_dist, x), d.gate_logits
    if base is None:
        return None
    zero = jax.nn.softplus(_at_zero(d.base_dist, x) - gate) - jax.nn.softplus(-gate)
    return jnp.where(jnp.equal(x, 0), zero, base - jax.nn.softplus(gate))


def _at_zero(base: Any, x: Any) -> Any:
    """Log mass at zero, written without the terms that vanish there."""
    inner = base.base_dist if isinstance(base, dist.ExpandedDistribution) else base
    if type(inner) is dist.Poisson:
        return jnp.negative(inner.rate)
    return log_density(base, jnp.zeros_like(x))
