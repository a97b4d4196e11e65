"""The summary table."""

import numpy as np
import pandas as pd

from taut.trust.draws import Draws
from taut.problem import scalar_labels

TABLE_DRAWS = 8192


def summary_table(
    corrected: Draws, raw: Draws, ess: float, var_names: list[str] | None, hdi_prob: float, seed: int
) -> pd.DataFrame:
    """Mean, sd, highest-density interval, Monte Carlo error and shift from q, per scalar."""
    means, sds = corrected.moments()
    q_means, _ = raw.moments()
    index = corrected.indices(TABLE_DRAWS, seed) if corrected.weights is not None else slice(None)
    low, high = f"hdi_{_percent((1 - hdi_prob) / 2)}", f"hdi_{_percent((1 + hdi_prob) / 2)}"
    parts, labels = [], []
    for name in var_names or corrected.values:
        values = corrected.values[name]
        flat = values[index].reshape(-1, int(np.prod(values.shape[1:], dtype=int)))
        mean, sd = np.ravel(means[name]), np.ravel(sds[name])
        bounds = highest_density(flat, hdi_prob)
        with np.errstate(invalid="ignore", divide="ignore"):
            shift = (mean - np.ravel(q_means[name])) / sd
        parts.append(np.column_stack([mean, sd, *bounds, sd / np.sqrt(max(ess, 1.0)), np.where(sd > 0, shift, 0.0)]))
        labels += scalar_labels(name, values.shape[1:])
    return pd.DataFrame(np.concatenate(parts), index=labels, columns=["mean", "sd", low, high, "mcse_mean", "shift"])


def _percent(p: float) -> str:
    return f"{100 * p:.3g}%"


def highest_density(draws: np.ndarray, prob: float) -> tuple[np.ndarray, np.ndarray]:
    """Shortest interval that holds ``prob`` of the draws, per column of (n, p)."""
    order = np.sort(draws, axis=0)
    n = len(order)
    inside = min(max(int(np.floor(prob * n)), 1), n - 1) if n > 1 else 0
    widths = order[inside:] - order[: n - inside]
    first = np.argmin(widths, axis=0)
    columns = np.arange(order.shape[1])
    return order[first, columns], order[first + inside, columns]
