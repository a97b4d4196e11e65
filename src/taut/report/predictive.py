"""The posterior predictive check: replicated data against the data that were observed."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from taut.report import charts
from taut.report.charts import Axis, Frame
from taut.report.density import fine_grid, finite, is_discrete, reach, smooth_density, usable, widen
from taut.report.numbers import fmt

_MOST_OBSERVED = 20_000
_MOST_REPLICATES = 400
_MOST_INTERVALS = 80
_CURVE = 56  # grid points of a density


@dataclass(frozen=True)
class Check:
    """One observed site, ready to draw.

    Attributes:
        observed: (m,) observed values that are finite.
        replicated: (n, m) replicates of them.
        notes: What was left out, in sentences.
    """

    observed: np.ndarray
    replicated: np.ndarray
    notes: tuple[str, ...]

    @property
    def discrete(self) -> bool:
        """Whether values are few whole numbers, each to be drawn as a bar."""
        whole = finite(self.replicated)
        return is_discrete(np.concatenate([self.observed, whole]))


def prepare(observed: np.ndarray, replicated: np.ndarray) -> Check | str:
    """Aligns observed and replicated values; a sentence where that cannot be done."""
    seen = np.asarray(observed, dtype=float)
    again = np.asarray(replicated, dtype=float)
    if again.ndim == 0 or again.shape[0] == 0 or seen.size == 0:
        return "There are no values to compare."
    if again.shape[1:] != seen.shape:
        return (
            f"Replicates of shape {again.shape[1:]} cannot be compared with "
            f"observed values of shape {seen.shape}."
        )
    seen, again = seen.reshape(-1), again.reshape(again.shape[0], -1)
    notes = []
    stride = -(-seen.size // _MOST_OBSERVED)
    if stride > 1:
        notes.append(f"One in {stride} of the {seen.size} observations is used.")
    again = again[:: -(-again.shape[0] // _MOST_REPLICATES), ::stride]
    seen = seen[::stride]
    good = usable(seen)
    if not good.all():
        notes.append(f"{int((~good).sum())} observed values are not finite and are left out.")
    rows = usable(again[:, good]).all(axis=1)
    if not rows.all():
        notes.append(
            f"{int((~rows).sum())} of {rows.size} replicates are not finite and are left out."
        )
    if not good.any() or not rows.any():
        return "There are no finite values to compare."
    return Check(seen[good], again[rows][:, good], tuple(notes))


def overlay(check: Check, site: str, most: int) -> str:
    """Distribution of the observed values over those of up to `most` replicates."""
    label = f"Posterior predictive check of {site}: "
    if check.observed.size < 5:
        return _few(check, label + "observed values among replicates", site)
    if check.discrete:
        return _counts(check, label + "share of each value, observed and replicated", site)
    return _densities(check, label + "density of the observed values over replicates", site, most)


def caption(check: Check) -> str:
    """What the marks of `overlay` mean."""
    if check.observed.size < 5:
        return "Rules: observed values. Bars: replicated values."
    if check.discrete:
        return "Bars: observed. Dots and lines: median and 90% interval of the replicates."
    far = outside(check)
    lost = f" {far} observed values lie beyond the frame." if far else ""
    return f"Heavy line: observed. Thin lines: replicated data sets.{lost}"


def _frame(x: Axis, y: Axis) -> Frame:
    return Frame(x, y, 58.0, 26.0, 472.0, 190.0)


def bulk(check: Check) -> tuple[float, float]:
    """A range that holds most of the values; only far outliers, as of a Cauchy, are left out."""
    ends = []
    for values in (check.observed, check.replicated.reshape(-1)):
        low, high = np.quantile(values, [0.05, 0.95])
        room = 2 * (high - low) if high > low else np.inf
        ends.append((max(values.min(), low - room), min(values.max(), high + room)))
    low, high = min(e[0] for e in ends), max(e[1] for e in ends)
    return widen(float(low), float(high))


def outside(check: Check) -> int:
    """How many observed values lie outside of `bulk`."""
    low, high = bulk(check)
    return int(((check.observed < low) | (check.observed > high)).sum())


def _densities(check: Check, label: str, site: str, most: int) -> str:
    some = check.replicated[np.linspace(0, len(check.replicated) - 1, most).astype(int)]
    some = np.unique(some, axis=0) if len(check.replicated) < most else some
    span = float(np.ptp(check.observed))
    axis = charts.linear_axis(*bulk(check), 6)
    grid = fine_grid(axis.low, axis.high, _CURVE, check.observed)
    curves = [smooth_density(row, grid) for row in some if np.ptp(row) > 0]
    seen_curve = smooth_density(check.observed, grid) if span > 0 else None
    tops = [float(c.max()) for c in curves] + (
        [] if seen_curve is None else [float(seen_curve.max())]
    )
    top = min(max(tops, default=1.0), 3 * float(np.median(tops)) if tops else 1.0)
    frame = _frame(axis, charts.linear_axis(0.0, 1.05 * (top or 1.0), 4))
    body = [charts.line(frame, grid, curve, "curve-rep") for curve in curves]
    if seen_curve is None:
        body.append(charts.rules(frame, check.observed[:1], "rule-ink"))
    else:
        body.append(charts.line(frame, grid, seen_curve, "curve-obs", "observed"))
    parts = [charts.y_axis(frame, "density"), charts.x_axis(frame, site), charts.clip(frame, body)]
    return charts.svg(544.0, 256.0, label, parts, charts.readout(frame))


def _counts(check: Check, label: str, site: str) -> str:
    low = float(min(check.observed.min(), check.replicated.min()))
    high = float(max(check.observed.max(), check.replicated.max()))
    values = np.arange(low, high + 0.5)
    seen = (check.observed[:, None] == values).mean(axis=0)
    again = np.column_stack([(check.replicated == v).mean(axis=1) for v in values])
    lower, middle, upper = np.quantile(again, [0.05, 0.5, 0.95], axis=0)
    top = max(float(seen.max()), float(upper.max()))
    axis = charts.whole_axis(low - 0.7, high + 0.7, min(8, len(values)))
    frame = _frame(axis, charts.linear_axis(0.0, 1.05 * top, 4))
    words = [
        f"{v:g}: observed {s:.3f}, replicated {m:.3f} ({a:.3f} to {b:.3f})"
        for v, s, m, a, b in zip(values, seen, middle, lower, upper, strict=True)
    ]
    parts = [
        charts.y_axis(frame, "share of the values"),
        charts.bars(frame, values, seen, 0.7, "bar-obs", words),
        charts.spans(frame, values, lower, upper, "span"),
        charts.points(frame, values, middle, "dot-rep"),
        charts.x_axis(frame, site),
    ]
    return charts.svg(544.0, 256.0, label, parts)


def _few(check: Check, label: str, site: str) -> str:
    pool = check.replicated.reshape(-1)
    ranges = [reach(pool), (float(check.observed.min()), float(check.observed.max()))]
    axis = charts.linear_axis(*widen(min(r[0] for r in ranges), max(r[1] for r in ranges)), 6)
    y_axis = Axis(0.0, 1.0)
    body = []
    if np.ptp(pool) > 0 and pool.size > 19:
        counts, edges = np.histogram(pool, bins=30, range=(axis.low, axis.high))
        middles = (edges[1:] + edges[:-1]) / 2
        y_axis = charts.linear_axis(0.0, 1.05 * max(counts.max() / pool.size, 1e-9), 4)
        words = [f"{fmt(m)}: {c} replicated values" for m, c in zip(middles, counts, strict=True)]
        frame = _frame(axis, y_axis)
        body.append(
            charts.bars(frame, middles, counts / pool.size, edges[1] - edges[0], "bar", words)
        )
    frame = _frame(axis, y_axis)
    body.append(charts.rules(frame, check.observed, "rule-ink"))
    parts = [charts.y_axis(frame, "share of the values"), charts.x_axis(frame, site), *body]
    return charts.svg(544.0, 256.0, label, parts)


def intervals(check: Check, site: str) -> tuple[str, str]:
    """Each observed value with its 50% and 90% predictive interval, and their coverage in words.

    Args:
        check: The site.
        site: Its name.

    Returns:
        A drawing and a sentence, both "" where intervals say nothing (few replicates, few values).
    """
    many, size = check.replicated.shape
    if many < 20 or size < 5 or (check.discrete and np.ptp(check.replicated) < 5):
        return "", ""
    levels = np.quantile(check.replicated, [0.05, 0.25, 0.5, 0.75, 0.95], axis=0)
    seen = check.observed
    in_90 = (seen >= levels[0]) & (seen <= levels[4])
    in_50 = (seen >= levels[1]) & (seen <= levels[3])
    sentence = (
        f"{in_90.mean():.0%} of the observed values lie in their 90% predictive interval, "
        f"{in_50.mean():.0%} in their 50% one."
    )
    order = np.argsort(levels[2], kind="stable")
    order = order[np.linspace(0, size - 1, min(size, _MOST_INTERVALS)).astype(int)]
    levels, seen, in_90 = levels[:, order], seen[order], in_90[order]
    place = np.arange(order.size)
    low, high = bulk(check)
    shown = np.clip(levels, low, high)
    frame = _frame(Axis(-1.0, float(order.size)), charts.linear_axis(low, high, 5))
    which = "observations" if size == order.size else f"{order.size} of {size} observations"
    parts = [
        charts.y_axis(frame, site),
        charts.spans(frame, place, shown[0], shown[4], "span"),
        charts.spans(frame, place, shown[1], shown[3], "span thick"),
        charts.points(frame, place[in_90], seen[in_90], "dot-obs"),
        charts.points(frame, place[~in_90], np.clip(seen[~in_90], low, high), "dot-out"),
        charts.x_axis(frame, f"{which}, by predicted median"),
    ]
    return charts.svg(544.0, 256.0, f"Predictive intervals of {site}. {sentence}", parts), sentence


def statistics(check: Check) -> list[tuple[str, str, str, str]]:
    """Rows (statistic, observed, 90% interval of replicates, share of replicates above)."""
    if check.observed.size < 2 or len(check.replicated) < 20:
        return []
    rows = []
    scale = float(np.abs(check.observed).max()) or 1.0  # squares of huge values overflow
    for name, f in (("mean", np.mean), ("sd", np.std), ("smallest", np.min), ("largest", np.max)):
        again = f(check.replicated / scale, axis=1) * scale
        here = float(f(check.observed / scale)) * scale
        low, high = np.quantile(again, [0.05, 0.95])
        above = float((again > here).mean() + 0.5 * (again == here).mean())
        rows.append((name, fmt(here, 4), f"{fmt(low, 4)} to {fmt(high, 4)}", f"{above:.2f}"))
    return rows
