"""Entries of the table for continuous distributions; formulas from NumPyro's documentation."""

import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist

from taut.expectation.registry import (
    diagonal,
    lgamma,
    log_det,
    matrix_parameter,
    register,
)

HALF_LOG_2PI = 0.5 * math.log(2.0 * math.pi)
LOG_PI, LOG_2 = math.log(math.pi), math.log(2.0)

# --- on the real line ---------------------------------------------------------------------------


@register(dist.Normal)
def _normal(d: Any, x: Any) -> Any:
    return -0.5 * ((x - d.loc) / d.scale) ** 2 - jnp.log(d.scale) - HALF_LOG_2PI


@register(dist.StudentT)
def _student_t(d: Any, x: Any) -> Any:
    kernel = 0.5 * (d.df + 1.0) * jnp.log1p(((x - d.loc) / d.scale) ** 2 / d.df)
    constant = lgamma(0.5 * (d.df + 1.0)) - lgamma(0.5 * d.df) - 0.5 * (jnp.log(d.df) + LOG_PI)
    return -kernel - jnp.log(d.scale) + constant


@register(dist.Cauchy)
def _cauchy(d: Any, x: Any) -> Any:
    return -jnp.log1p(((x - d.loc) / d.scale) ** 2) - jnp.log(d.scale) - LOG_PI


@register(dist.Laplace)
def _laplace(d: Any, x: Any) -> Any:
    return -jnp.abs((x - d.loc) / d.scale) - jnp.log(d.scale) - LOG_2


@register(dist.SoftLaplace)
def _soft_laplace(d: Any, x: Any) -> Any:
    z = (x - d.loc) / d.scale
    return LOG_2 - LOG_PI - jnp.log(d.scale) - z - jax.nn.softplus(-2.0 * z)


@register(dist.Logistic)
def _logistic(d: Any, x: Any) -> Any:
    z = (x - d.loc) / d.scale
    return -z - 2.0 * jax.nn.softplus(-z) - jnp.log(d.scale)


@register(dist.Gumbel)
def _gumbel(d: Any, x: Any) -> Any:
    z = (x - d.loc) / d.scale
    return -z - jnp.exp(-z) - jnp.log(d.scale)


@register(dist.GaussianRandomWalk)
def _gaussian_random_walk(d: Any, x: Any) -> Any:
    steps = (x[..., 1:] - x[..., :-1]) / jnp.expand_dims(d.scale, -1)
    squares = (x[..., 0] / d.scale) ** 2 + jnp.sum(steps**2, axis=-1)
    return -0.5 * squares - d.num_steps * (jnp.log(d.scale) + HALF_LOG_2PI)


@register(dist.LeftTruncatedDistribution)
def _left_truncated(d: Any, x: Any) -> Any:
    return _truncated(d.base_dist, x, d.low, 1.0)


@register(dist.RightTruncatedDistribution)
def _right_truncated(d: Any, x: Any) -> Any:
    return _truncated(d.base_dist, x, d.high, -1.0)


def _truncated(base: Any, x: Any, bound: Any, sign: float) -> Any:
    """A normal truncated on one side; others have no formula here."""
    if not _is_normal(base):
        return None
    z = jnp.subtract(bound, base.loc) / base.scale
    return _normal(base, x) - jnp.log(jax.lax.erfc(sign * math.sqrt(0.5) * z)) + LOG_2


def _is_normal(d: Any) -> bool:
    return type(d) is dist.Normal


# --- on the positive half-line --------------------------------------------------------------------


@register(dist.LogNormal)
def _log_normal(d: Any, x: Any) -> Any:
    log_x = jnp.log(x)
    return -0.5 * ((log_x - d.loc) / d.scale) ** 2 - jnp.log(d.scale) - log_x - HALF_LOG_2PI


@register(dist.HalfNormal)
def _half_normal(d: Any, x: Any) -> Any:
    return -0.5 * (x / d.scale) ** 2 - jnp.log(d.scale) + LOG_2 - HALF_LOG_2PI


@register(dist.HalfCauchy)
def _half_cauchy(d: Any, x: Any) -> Any:
    return -jnp.log1p((x / d.scale) ** 2) - jnp.log(d.scale) + LOG_2 - LOG_PI


@register(dist.Exponential)
def _exponential(d: Any, x: Any) -> Any:
    return jnp.log(d.rate) - d.rate * x


@register(dist.Gamma)
def _gamma(d: Any, x: Any) -> Any:
    a, b = d.concentration, d.rate
    return a * jnp.log(b) - lgamma(a) + (a - 1.0) * jnp.log(x) - b * x


@register(dist.Chi2)
def _chi2(d: Any, x: Any) -> Any:
    half = 0.5 * d.df
    return (half - 1.0) * jnp.log(x) - 0.5 * x - half * LOG_2 - lgamma(half)


@register(dist.InverseGamma)
def _inverse_gamma(d: Any, x: Any) -> Any:
    a, b = d.concentration, d.rate
    return a * jnp.log(b) - lgamma(a) - (a + 1.0) * jnp.log(x) - b / x


@register(dist.Weibull)
def _weibull(d: Any, x: Any) -> Any:
    k = d.concentration
    rest = (k - 1.0) * jnp.log(x) - (x / d.scale) ** k
    return jnp.log(k) - k * jnp.log(d.scale) + rest


@register(dist.Pareto)
def _pareto(d: Any, x: Any) -> Any:
    return jnp.log(d.alpha) + d.alpha * jnp.log(d.scale) - (d.alpha + 1.0) * jnp.log(x)


@register(dist.Levy)
def _levy(d: Any, x: Any) -> Any:
    away = x - d.loc
    return 0.5 * jnp.log(d.scale) - 0.5 * d.scale / away - 1.5 * jnp.log(away) - HALF_LOG_2PI


@register(dist.LogUniform)
def _log_uniform(d: Any, x: Any) -> Any:
    return -jnp.log(x) - jnp.log(jnp.log(d.high) - jnp.log(d.low))


# --- on intervals and simplexes, and without a density --------------------------------------------


@register(dist.Uniform)
def _uniform(d: Any, x: Any) -> Any:
    return -jnp.log(jnp.subtract(d.high, d.low))


@register(dist.Beta, dist.BetaProportion)
def _beta(d: Any, x: Any) -> Any:
    a, b = d.concentration1, d.concentration0
    constant = lgamma(a + b) - lgamma(a) - lgamma(b)
    return (a - 1.0) * jnp.log(x) + (b - 1.0) * jnp.log1p(-x) + constant


@register(dist.Kumaraswamy)
def _kumaraswamy(d: Any, x: Any) -> Any:
    a, b = d.concentration1, d.concentration0
    return jnp.log(a) + jnp.log(b) + (a - 1.0) * jnp.log(x) + (b - 1.0) * jnp.log1p(-(x**a))


@register(dist.Dirichlet)
def _dirichlet(d: Any, x: Any) -> Any:
    alpha = d.concentration
    constant = lgamma(jnp.sum(alpha, axis=-1)) - jnp.sum(lgamma(alpha), axis=-1)
    return jnp.sum((alpha - 1.0) * jnp.log(x), axis=-1) + constant


@register(dist.ImproperUniform)
def _improper_uniform(d: Any, x: Any) -> Any:
    return jnp.zeros(d.batch_shape)


@register(dist.Unit)
def _unit(d: Any, x: Any) -> Any:
    return d.log_factor


# --- vectors and matrices -------------------------------------------------------------------------


@register(dist.MultivariateNormal)
def _multivariate_normal(d: Any, x: Any) -> Any:
    away, size = x - d.loc, d.event_shape[-1]
    precision = matrix_parameter(d, "precision_matrix")
    if precision is not None:
        square = jnp.einsum("...i,...ij,...j->...", away, precision, away)
        return 0.5 * log_det(precision) - 0.5 * square - size * HALF_LOG_2PI
    root = d.scale_tril
    log_root = jnp.sum(jnp.log(diagonal(root)), axis=-1)
    square = jnp.sum(_whitened(root, away) ** 2, axis=-1)
    return -0.5 * square - log_root - size * HALF_LOG_2PI


def _whitened(root: Any, away: Any) -> Any:
    """L^-1 r over the last axis, without copies of L where one serves all."""
    size = root.shape[-1]
    if all(n == 1 for n in root.shape[:-2]):
        rows, root = away.reshape(-1, size), root.reshape(size, size)
        solved = jax.lax.linalg.triangular_solve(
            root, rows, left_side=False, lower=True, transpose_a=True
        )
        return solved.reshape(away.shape)
    batch = jnp.broadcast_shapes(root.shape[:-2], away.shape[:-1])
    root = jnp.broadcast_to(root, (*batch, size, size))
    columns = jnp.broadcast_to(away, (*batch, size))[..., None]
    return jax.lax.linalg.triangular_solve(root, columns, left_side=True, lower=True)[..., 0]


@register(dist.Wishart)
def _wishart(d: Any, x: Any) -> Any:
    base, size = d.base_dist, d.event_shape[-1]
    half, rate = 0.5 * base.concentration, matrix_parameter(d.base_dist, "rate_matrix")
    if rate is None:
        rate = base.rate_matrix
        log_rate = -2.0 * jnp.sum(jnp.log(diagonal(base.scale_tril)), axis=-1)
    else:
        log_rate = log_det(rate)
    kernel = (half - 0.5 * (size + 1)) * log_det(x) - 0.5 * jnp.einsum("...ij,...ij->...", rate, x)
    return kernel + half * log_rate - half * size * LOG_2 - _multivariate_lgamma(half, size)


def _multivariate_lgamma(x: Any, size: int) -> Any:
    total = sum(lgamma(x - 0.5 * i) for i in range(size))
    return total + 0.25 * size * (size - 1) * LOG_PI


@register(dist.LKJCholesky)
def _lkj_cholesky(d: Any, x: Any) -> Any:
    size, rows = d.dimension, np.arange(1, d.dimension)
    order = 2.0 * jnp.expand_dims(d.concentration, -1) - (3.0 - size) - rows
    return jnp.sum(order * jnp.log(x[..., rows, rows]), axis=-1) - _lkj_constant(d)


@register(dist.LKJ)
def _lkj(d: Any, x: Any) -> Any:
    return (d.concentration - 1.0) * log_det(x) - _lkj_constant(d)


def _lkj_constant(d: Any) -> Any:
    """Log normaliser; Lewandowski, Kurowicka and Joe (2009), page 1999."""
    rest = d.dimension - 1
    half = d.concentration + 0.5 * rest
    return 0.5 * rest * LOG_PI + _multivariate_lgamma(half - 0.5, rest) - rest * lgamma(half)
