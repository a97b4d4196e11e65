"""The log evidence from below, by estimate, and from above."""

import dataclasses

import numpy as np

from taut.trust.certificate import Moved, Weighted

MAX_KHAT = 0.7
HEALTHY_SHARE = 0.9  # share of draws that weights keep: above it the tail index is about noise


@dataclasses.dataclass(frozen=True)
class Evidence:
    """Log evidence in nats with standard errors.

    Attributes:
        lower: the ELBO, below the log evidence in expectation.
        lower_error: its standard error.
        estimate: importance-sampling or bridge estimate.
        estimate_error: its standard error.
        upper: mean log ratio under the corrected draws, above the log evidence as far as they
            are draws of the posterior; inf where there are none.
        upper_error: its standard error.
        method: how ``estimate`` was made.
    """

    lower: float
    lower_error: float
    estimate: float
    estimate_error: float
    upper: float
    upper_error: float
    method: str

    def __str__(self) -> str:
        """One line with all three."""
        return (
            f"{self.lower:.3f} ± {self.lower_error:.3f}  <=  {self.estimate:.3f} ± {self.estimate_error:.3f} "
            f"({self.method})  <=  {self.upper:.3f} ± {self.upper_error:.3f}"
        )


def bracket(weighted: Weighted, moved: Moved | None, log_q_moved: np.ndarray | None) -> Evidence:
    """Bracket the log evidence.

    Args:
        weighted: draws of q with log ratios.
        moved: chains, used if they have converged.
        log_q_moved: log density of q at the chains' draws, (transitions, chains).

    Returns:
        ELBO; importance estimate if k-hat is below 0.7, else the bridge estimate of Meng and
        Wong (1996) between q and the chains; and the upper estimate E_p[log p - log q].
    """
    ratio = None
    if moved is not None and moved.agreement.converged and log_q_moved is not None:
        ratio = moved.log_joint - log_q_moved
    upper, upper_error = _upper(weighted, ratio)
    if weighted.smoothed is not None and (weighted.khat < MAX_KHAT or ratio is None):
        estimate, error = weighted.smoothed.log_mean, _importance_error(weighted)
        method = "importance sampling"
    elif ratio is not None:
        (estimate, error), method = bridge(weighted.log_ratio, ratio), "bridge sampling"
    else:
        estimate, error, method = np.nan, np.inf, "none"
    return Evidence(weighted.elbo, weighted.elbo_error, estimate, error, upper, upper_error, method)


def _importance_error(weighted: Weighted) -> float:
    """From the effective sample size; not known where few draws hold most of the weight."""
    size = len(weighted.log_ratio)
    if weighted.ess <= 0 or (weighted.khat >= MAX_KHAT and weighted.ess < HEALTHY_SHARE * size):
        return np.inf
    return float(np.sqrt(max(1.0 / weighted.ess - 1.0 / size, 0.0)))


def _upper(weighted: Weighted, ratio: np.ndarray | None) -> tuple[float, float]:
    if ratio is not None:
        per_chain = ratio.mean(axis=0)
        return float(per_chain.mean()), float(per_chain.std(ddof=1) / np.sqrt(len(per_chain)))
    if weighted.smoothed is None or weighted.khat >= MAX_KHAT:
        return np.inf, np.inf
    weights = np.exp(weighted.smoothed.log_weights)
    values = np.where(weights > 0, weighted.log_ratio, 0.0)
    mean = float(weights @ values)
    return mean, float(np.sqrt(np.sum(weights**2 * (values - mean) ** 2)))


def bridge(
    log_ratio_q: np.ndarray, log_ratio_p: np.ndarray, max_steps: int = 1000
) -> tuple[float, float]:
    """Bridge estimate of the log evidence (Meng and Wong 1996, optimal bridge).

    Args:
        log_ratio_q: log p - log q at draws of q, (n,).
        log_ratio_p: the same at draws of the posterior, (transitions, chains).
        max_steps: largest number of fixed-point steps.

    Returns:
        Estimate and standard error (Fruehwirth-Schnatter 2004, autocorrelation from chain means).
    """
    a, b = np.where(np.isnan(log_ratio_q), -np.inf, log_ratio_q), log_ratio_p.ravel()
    share_q = len(a) / (len(a) + len(b))
    log_sq, log_sp = np.log(share_q), np.log1p(-share_q)
    estimate = float(np.median(b))
    for _ in range(max_steps):
        top = np.logaddexp.reduce(a - np.logaddexp(log_sp + a, log_sq + estimate)) - np.log(len(a))
        bottom = np.logaddexp.reduce(-np.logaddexp(log_sp + b, log_sq + estimate)) - np.log(len(b))
        new = float(top - bottom)
        if abs(new - estimate) < 1e-10:
            break
        estimate = new
    f_q = np.exp(a - np.logaddexp(log_sp + a, log_sq + estimate))
    f_p = np.exp(estimate - np.logaddexp(log_sp + log_ratio_p, log_sq + estimate))
    chain_means = f_p.mean(axis=0)
    relative = np.var(f_q) / np.mean(f_q) ** 2 / len(a)
    relative += np.var(chain_means, ddof=1) / np.mean(f_p) ** 2 / len(chain_means)
    return estimate, float(np.sqrt(relative))
