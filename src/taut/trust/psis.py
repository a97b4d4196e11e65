"""Pareto-smoothed importance sampling."""

from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from taut._core.errors import ArgumentError

MIN_RATIOS = 100
FLAT = 1e-6  # relative difference of the largest weights below which there is no tail


class Smoothed(NamedTuple):
    """Tail index and smoothed weights.

    Attributes:
        khat: estimated tail index; below 0.7 the weights can be used.
        log_weights: smoothed, normalised log weights, (n,).
        log_mean: log of the mean of the smoothed ratios: the log evidence estimate, in nats.
        ess: effective sample size of the weights.
    """

    khat: float
    log_weights: np.ndarray
    log_mean: float
    ess: float


def pareto_smooth(log_ratio: Float[np.ndarray, " n"]) -> Smoothed:
    """Smooth the largest importance ratios by a generalised Pareto tail.

    Args:
        log_ratio: log p - log q at n draws of q, in nats, up to one constant; -inf is a weight
            of zero. Shape (n,), n >= 100. Note the sign: ArviZ's own function wants -log_ratio.

    Returns:
        Tail index, weights, the log of their mean and their effective sample size. The index is
        -inf where the ratios, or the largest of them, are all but equal, and inf where so few
        outweigh all others that no tail can be fitted.

    Raises:
        ArgumentError: if n < 100, a ratio is NaN or +inf, or all are -inf.

    Notes:
        Cost O(n log n).

    Source:
        Vehtari, Simpson, Gelman, Yao and Gabry (2024), "Pareto smoothed importance sampling",
        JMLR 25; tail fitted by Zhang and Stephens (2009) with the weakly informative prior.
    """
    log_ratio = _checked(log_ratio)
    n, peak = len(log_ratio), log_ratio.max()
    x = log_ratio - peak
    khat, x = _smooth_tail(x)
    total = np.logaddexp.reduce(x)
    log_weights = x - total
    ess = float(np.exp(-np.logaddexp.reduce(2.0 * log_weights)))
    return Smoothed(khat, log_weights, float(total + peak - np.log(n)), ess)


def _checked(log_ratio: np.ndarray) -> np.ndarray:
    log_ratio = np.asarray(log_ratio, float)
    n = len(log_ratio)
    if n < MIN_RATIOS:
        raise ArgumentError(f"log_ratio must hold at least {MIN_RATIOS} draws, got {n}")
    bad = int(np.sum(np.isnan(log_ratio) | (log_ratio == np.inf)))
    if bad:
        raise ArgumentError(
            f"log_ratio has {bad} of {n} values that are NaN or +inf; "
            "only finite values and -inf are allowed"
        )
    if log_ratio.max() == -np.inf:
        raise ArgumentError(
            f"log_ratio is -inf at all of {n} draws: q lies where the target has no density"
        )
    return log_ratio


def _smooth_tail(x: np.ndarray) -> tuple[float, np.ndarray]:
    """Replace the upper tail by expected order statistics of the fitted Pareto."""
    n = len(x)
    size = int(np.ceil(min(0.2 * n, 3.0 * np.sqrt(n))))
    order = np.argsort(x)
    tail, cutoff = order[-size:], x[order[-size - 1]]
    cutoff = max(cutoff, np.log(np.finfo(float).tiny))
    exceed = np.exp(x[tail]) - np.exp(cutoff)
    if np.var(x[np.isfinite(x)]) < 1e-12 or exceed[-1] < FLAT:
        return -np.inf, x
    if not exceed[size // 4] > np.finfo(float).tiny:  # a few ratios outweigh all others
        return np.inf, x
    khat, sigma = fit_pareto(exceed)
    if not np.isfinite(khat):
        return np.inf, x
    quantiles = (np.arange(size) + 0.5) / size
    smoothed = _pareto_quantile(quantiles, khat, sigma) + np.exp(cutoff)
    x = x.copy()
    x[tail] = np.minimum(np.log(smoothed), 0.0)
    return khat, x


def fit_pareto(exceed: Float[np.ndarray, " m"]) -> tuple[float, float]:
    """Shape and scale of a generalised Pareto from sorted exceedances (Zhang and Stephens 2009)."""
    m = len(exceed)
    grid = 30 + int(np.sqrt(m))
    quartile = exceed[int(m / 4 + 0.5) - 1]
    theta = 1.0 - np.sqrt(grid / (np.arange(1, grid + 1) - 0.5))
    theta = theta / (3.0 * max(quartile, np.finfo(float).tiny)) + 1.0 / exceed[-1]
    shape = np.log1p(-theta[:, None] * exceed).mean(axis=1)
    profile = m * (np.log(-theta / shape) - shape - 1.0)
    weights = np.exp(profile - np.logaddexp.reduce(profile))
    weights = np.where(weights >= 10 * np.finfo(float).eps, weights, 0.0)
    best = float(np.sum(theta * weights) / weights.sum())
    khat = float(np.log1p(-best * exceed).mean())
    sigma = -khat / best
    return (khat * m + 5.0) / (m + 10.0), sigma  # prior: ten observations at k = 0.5


def _pareto_quantile(p: np.ndarray, k: float, sigma: float) -> np.ndarray:
    if abs(k) < 1e-12:
        return -sigma * np.log1p(-p)
    return sigma * np.expm1(-k * np.log1p(-p)) / k
