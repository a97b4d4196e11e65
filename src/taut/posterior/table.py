"""The summary table, as a data frame and as text."""

from collections.abc import Mapping

import numpy as np
import pandas as pd

from taut.problem import scalar_labels
from taut.report.numbers import decimals_for, fixed, fmt
from taut.trust.draws import Draws

TABLE_DRAWS = 8192
MAX_ROWS = 36  # of the printed table; long sites are abbreviated to get there
FEW = 4  # rows that an abbreviated site keeps, the last of them its last one
MOST_VALUES = 6  # of a discrete latent whose probabilities are printed
ON_SCALE = ("mean", "sd", "hdi")


def summary_table(
    corrected: Draws,
    raw: Draws,
    ess: float,
    var_names: list[str],
    hdi_prob: float,
    seed: int,
) -> pd.DataFrame:
    """Mean, sd, highest-density interval, Monte Carlo error and shift from q, per scalar."""
    means, sds = corrected.moments()
    q_means, _ = raw.moments()
    index = corrected.indices(TABLE_DRAWS, seed) if corrected.weights is not None else slice(None)
    low, high = f"hdi_{_percent((1 - hdi_prob) / 2)}", f"hdi_{_percent((1 + hdi_prob) / 2)}"
    parts, labels = [], []
    for name in var_names:
        values = corrected.values[name]
        flat = values[index].reshape(-1, int(np.prod(values.shape[1:], dtype=int)))
        mean, sd = np.ravel(means[name]), np.ravel(sds[name])
        bounds = highest_density(flat, hdi_prob)
        sd = np.where(
            sd > 1e-12 * np.abs(mean), sd, 0.0
        )  # a constant of the model, but for rounding
        with np.errstate(invalid="ignore", divide="ignore"):
            shift = np.where(sd > 0, (mean - np.ravel(q_means[name])) / sd, 0.0)
        error = sd / np.sqrt(max(ess, 1.0))
        parts.append(np.column_stack([mean, sd, *bounds, error, shift]))
        labels += scalar_labels(name, values.shape[1:])
    columns = ["mean", "sd", low, high, "mcse_mean", "shift"]
    numbers = np.concatenate(parts) if parts else np.zeros((0, len(columns)))
    return pd.DataFrame(numbers, index=labels, columns=columns)


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


# --- as text ----------------------------------------------------------------------------------


def as_text(table: pd.DataFrame) -> str:
    """The table with as many digits as each row's sd deserves, decimal points aligned.

    Args:
        table: as :func:`summary_table` makes it; long sites are abbreviated.
    """
    rows = _shown(list(table.index))
    records = [{str(c): float(v) for c, v in row.items()} for row in table.to_dict("records")]
    cells = [_cells(records[r]) if isinstance(r, int) else None for r in rows]
    columns = [_aligned(str(c), [row[j] for row in cells if row]) for j, c in enumerate(table)]
    labels = [str(table.index[r]) if isinstance(r, int) else r for r in rows]
    width = max(map(len, labels))
    lines = [" ".join([" " * width, *(column[0] for column in columns)])]
    numbers = iter(zip(*(column[1:] for column in columns), strict=True))
    for label, row in zip(labels, cells, strict=True):
        lines.append(" ".join([label.ljust(width), *(next(numbers) if row else ())]).rstrip())
    return "\n".join(line.rstrip() for line in lines)


def labels_as_text(
    probabilities: Mapping[str, np.ndarray], values: Mapping[str, np.ndarray]
) -> str:
    """A line for every element of few discrete latents: the probability of each value.

    Args:
        probabilities: latent -> (*shape, num_values).
        values: latent -> the values, (num_values,).
    """
    lines = []
    for name, found in probabilities.items():
        if found.shape[-1] > MOST_VALUES or found[..., 0].size > MAX_ROWS // 2:
            continue
        labels = scalar_labels(name, found.shape[:-1])
        for label, row in zip(labels, found.reshape(-1, found.shape[-1]), strict=True):
            pairs = zip(values[name], row, strict=True)
            lines.append((label, "  ".join(f"P({fmt(float(v), 4)}) {p:.4f}" for v, p in pairs)))
    width = max((len(label) for label, _ in lines), default=0)
    return "\n".join(f"{label.ljust(width)}  {text}" for label, text in lines)


def _shown(labels: list[str]) -> list[int | str]:
    """Rows to show: all, or of each long site the first and the last, with a line between."""
    if len(labels) <= MAX_ROWS:
        return list(range(len(labels)))
    sites: dict[str, list[int]] = {}
    for i, label in enumerate(labels):
        sites.setdefault(label.split("[")[0], []).append(i)
    short = sum(len(own) for own in sites.values() if len(own) <= FEW)
    long = sum(len(own) > FEW for own in sites.values())
    keep = max(FEW, (MAX_ROWS - short) // max(long, 1) - 1)
    rows: list[int | str] = []
    for own in sites.values():
        left = len(own) - keep
        rows += own if left <= 3 else [*own[: keep - 1], f"  ... {left:,} more", own[-1]]
    if len(rows) <= 2 * MAX_ROWS:
        return rows
    shown = rows[: 2 * MAX_ROWS]
    left = len(labels) - sum(isinstance(r, int) for r in shown)
    return [*shown, f"... {left:,} more rows: posterior.summary()"]


def _cells(row: dict[str, float]) -> list[str]:
    decimals = decimals_for(row["sd"])
    return [_cell(name, value, decimals) for name, value in row.items()]


def _cell(column: str, value: float, decimals: int | None) -> str:
    if column == "shift":
        return fixed(value, 2)
    if decimals is None:
        return fmt(value, 4)
    return fixed(value, decimals if column.startswith(ON_SCALE) else decimals + 1)


def _aligned(head: str, texts: list[str]) -> list[str]:
    """The heading and the numbers of one column, at one width."""
    split = [text.partition(".") for text in texts]
    left = max((len(whole) for whole, _, _ in split), default=0)
    right = max((len(point + rest) for _, point, rest in split), default=0)
    padded = [whole.rjust(left) + (point + rest).ljust(right) for whole, point, rest in split]
    width = max(len(head), left + right) + 1
    return [text.rjust(width) for text in (head, *padded)]
