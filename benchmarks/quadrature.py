"""Answers by quadrature: given one scale the rest of these models is Gaussian in closed form.

The scale is integrated on a grid of its logarithm by the trapezoidal rule, which converges
faster than any power of the spacing here; moments follow from those given the scale.
"""

from collections.abc import Callable

import numpy as np

from benchmarks.accuracy import Truth

LOG_SCALES = np.linspace(-16.0, 14.0, 6001)
# Given the scale: log density of data, conditional means and variances of the other parameters.
Conditional = Callable[[float], tuple[float, np.ndarray, np.ndarray]]


def regression(x: np.ndarray, y: np.ndarray) -> Truth:
    """Slope and intercept ~ Normal(0, 100), noise sd ~ HalfCauchy(5)."""
    design = np.column_stack([np.ones_like(x), x])
    gram, moment = design.T @ design, design.T @ y

    def given(s: float) -> tuple[float, np.ndarray, np.ndarray]:
        precision = gram / s**2 + np.eye(2) / 100.0**2
        cov = np.linalg.inv(precision)
        mean = cov @ moment / s**2
        fit = y @ y / s**2 - mean @ precision @ mean
        log_det = np.linalg.slogdet(precision)[1] + 4 * np.log(100.0) + 2 * len(y) * np.log(s)
        return -0.5 * (fit + log_det + len(y) * np.log(2 * np.pi)), mean, np.diag(cov)

    return _integrate(given, 5.0, ("a", "b"), "s")


def eight_schools(y: np.ndarray, sigma: np.ndarray) -> Truth:
    """Effects ~ Normal(mu, tau), mu ~ Normal(0, 5), tau ~ HalfCauchy(5)."""

    def given(tau: float) -> tuple[float, np.ndarray, np.ndarray]:
        marginal = sigma**2 + tau**2  # of y - mu
        precision = 1 / 25.0 + np.sum(1 / marginal)
        mu = np.sum(y / marginal) / precision
        fit = np.sum(y**2 / marginal) - precision * mu**2
        log_det = np.sum(np.log(marginal)) + np.log(25.0 * precision)
        weight = tau**2 / marginal  # of the data in an effect
        mean = weight * y + (1 - weight) * mu
        variance = weight * sigma**2 + (1 - weight) ** 2 / precision
        log_density = -0.5 * (fit + log_det + len(y) * np.log(2 * np.pi))
        return log_density, np.append(mu, mean), np.append(1 / precision, variance)

    return _integrate(given, 5.0, ("mu", *(f"theta[{j + 1}]" for j in range(len(y)))), "tau")


def _integrate(given: Conditional, prior_scale: float, names: tuple[str, ...], scale: str) -> Truth:
    """Integrate the scale, which has a half-Cauchy prior, out of the conditional moments."""
    scales = np.exp(LOG_SCALES)
    parts = [given(s) for s in scales]
    log_prior = np.log(2 / (np.pi * prior_scale)) - np.log1p((scales / prior_scale) ** 2)
    log_weight = np.array([p[0] for p in parts]) + log_prior + LOG_SCALES  # d scale = scale d log
    weight = np.exp(log_weight - log_weight.max())
    step = LOG_SCALES[1] - LOG_SCALES[0]
    log_evidence = log_weight.max() + np.log(step * weight.sum())
    weight /= weight.sum()
    means, variances = np.array([p[1] for p in parts]), np.array([p[2] for p in parts])
    mean = weight @ means
    variance = weight @ (variances + (means - mean) ** 2)
    centre = weight @ scales
    spread = weight @ (scales - centre) ** 2
    return Truth(
        names=(*names, scale),
        mean=np.append(mean, centre),
        sd=np.sqrt(np.append(variance, spread)),
        source="quadrature",
        log_evidence=float(log_evidence),
    )
