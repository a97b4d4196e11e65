"""Scores of predictive distributions; the proper ones are smaller or larger as they are better."""

import math

import jax
import jax.numpy as jnp
import numpy as np
from jax.scipy.special import ndtr
from jaxtyping import Array

MAX_COUNTS = 4096  # support points over which the score of a count is summed


def _absolute(mean: Array, variance: Array) -> Array:
    """E|X| of a Gaussian."""
    sd = jnp.sqrt(variance)
    z = mean / sd
    return 2 * sd * jnp.exp(-0.5 * z**2) / math.sqrt(2 * math.pi) + mean * (2 * ndtr(z) - 1)


def normal_mixture_crps(y: Array, means: Array, variances: Array) -> Array:
    """Continuous ranked probability score of an even mixture of Gaussians, E|X - y| - E|X - X'|/2.

    In the units of y; smaller is better. Source: Grimit et al. (2006), equation 8.

    Args:
        y: what happened, ().
        means: of the components, (draws,).
        variances: of the components, (draws,).
    """
    pairs = _absolute(means[:, None] - means, variances[:, None] + variances)
    return jnp.mean(_absolute(y - means, variances)) - 0.5 * jnp.mean(pairs)


def count_crps(y: Array, cdf: Array) -> Array:
    """Ranked probability score of a count, the sum over c of (F(c) - 1{y <= c})^2.

    Args:
        y: what happened, ().
        cdf: F(0), F(1), ..., far enough for it to be one, (counts,).
    """
    return jnp.sum((cdf - (y <= jnp.arange(len(cdf)))) ** 2)


def calibration_error(proba: np.ndarray, labels: np.ndarray, bins: int = 15) -> float:
    """Expected calibration error of the most probable label, in [0, 1].

    The mean distance of accuracy from confidence over even bins of confidence, by their rows.
    Source: Guo et al. (2017), equation 3.

    Args:
        proba: probabilities of the labels, (rows, labels).
        labels: the true ones, (rows,).
        bins: number of bins.
    """
    confidence, right = proba.max(1), proba.argmax(1) == labels
    at = np.minimum((confidence * bins).astype(int), bins - 1)
    sums = [np.bincount(at, v, bins) for v in (confidence, right.astype(float))]
    return float(np.abs(sums[0] - sums[1]).sum() / len(labels))


def brier(proba: np.ndarray, labels: np.ndarray) -> float:
    """Mean squared distance of the probabilities from the labels' indicators, in [0, 2]."""
    return float(np.mean(np.sum((proba - np.eye(proba.shape[1])[labels]) ** 2, 1)))


def entropy(log_proba: Array) -> Array:
    """Entropy over the last axis, in nats."""
    return -jnp.sum(jax.scipy.special.xlogy(jnp.exp(log_proba), jnp.exp(log_proba)), -1)
