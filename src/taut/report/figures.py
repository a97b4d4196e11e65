"""The figures about the posterior: marginal densities, pairs, ELBO history, restarts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import combinations

import numpy as np

from taut.report import charts
from taut.report.charts import Axis, Frame
from taut.report.content import ReportContent
from taut.report.density import (
    fine_grid,
    finite,
    is_discrete,
    mass_contours,
    reach,
    shares,
    smooth_density,
    usable,
    widen,
)
from taut.report.numbers import fixed, fmt
from taut.report.select import Scalar, drifts, tight

MAX_POINTS = 400
_UNIT = Axis(0.0, 1.08)
_CURVE = 60  # grid points of a density
_KNEE = 0.1  # nats; distances to the last ELBO are on a log scale beyond this


def thin(values: np.ndarray, most: int) -> np.ndarray:
    """At most `most` rows, evenly spread."""
    if len(values) <= most:
        return values
    return values[np.linspace(0, len(values) - 1, most).round().astype(int)]


def _range(sets: Sequence[np.ndarray]) -> tuple[float, float]:
    reaches = [reach(s) for s in sets if s.size]
    low, high = widen(min(r[0] for r in reaches), max(r[1] for r in reaches))
    floor = min(float(s.min()) for s in sets if s.size)
    ceiling = max(float(s.max()) for s in sets if s.size)
    low = 0.0 if low < 0 <= floor and floor < 0.1 * high else low
    return low, (1.0 if low == 0 and 0.95 < ceiling <= 1 else high)


# -- marginal densities ---------------------------------------------------------------------------


def marginal(content: ReportContent, scalar: Scalar) -> str:
    """Panel that compares corrected draws of one parameter with q."""
    every = scalar.of(content.draws)
    drawn, raw = finite(every), finite(scalar.of(content.raw_draws))
    drift = drifts(content).get(tight(scalar.label))
    head = [charts.text(18.0, 16.0, _shorten(scalar.label), "panel", "start")]
    if drift is not None:
        head.append(charts.text(250.0, 16.0, f"drift {fmt(drift, 2)} sd", "tick", "end"))
    notes = [f"{every.size - drawn.size} draws not finite"] if every.size > drawn.size else []
    label = f"Density of {scalar.label}: corrected draws and q"
    if drawn.size == 0:
        body = [charts.text(134.0, 85.0, "no finite draws", "label")]
        return charts.svg(268.0, 168.0, f"{label}. No finite draws.", head + body)
    frame = Frame(_marginal_axis(drawn, raw), _UNIT, 18.0, 26.0, 232.0, 104.0)
    if np.ptp(drawn) == 0:
        notes.append(f"all draws equal {fmt(drawn[0], 6)}")
    elif drawn.size < 20:
        notes.append(f"{drawn.size} draws, each a rule")
    if _both_discrete(drawn, raw):
        body = _discrete(frame, drawn, raw)
    else:
        frame, body = _smooth(frame, drawn, raw)
    tail = [charts.x_axis(frame)]
    if notes:
        tail.append(charts.text(134.0, 163.0, "; ".join(notes), "tick"))
    return charts.svg(
        268.0, 168.0, f"{label}. {'; '.join(notes)}", head + body + tail, charts.readout(frame)
    )


def _both_discrete(drawn: np.ndarray, raw: np.ndarray) -> bool:
    return is_discrete(drawn) and (raw.size == 0 or bool(np.all(raw == np.round(raw))))


def _marginal_axis(drawn: np.ndarray, raw: np.ndarray) -> Axis:
    low, high = _range([drawn, raw])
    if _both_discrete(drawn, raw):
        low, high = min(low, drawn.min() - 0.6), max(high, drawn.max() + 0.6)
        return charts.whole_axis(float(low), float(high), 6)
    return charts.linear_axis(low, high, 4)


def _discrete(frame: Frame, drawn: np.ndarray, raw: np.ndarray) -> list[str]:
    values = np.arange(max(np.ceil(frame.x.low), -1e9), min(frame.x.high, 1e9) + 1e-9)
    have, fit = shares(drawn, values), shares(raw, values) if raw.size else np.zeros(values.size)
    top = max(have.max(), fit.max(), 1e-12)
    words = [
        f"{value:g}: corrected {a:.3f}" + (f", q {b:.3f}" if raw.size else "")
        for value, a, b in zip(values, have, fit, strict=True)
    ]
    parts = [charts.bars(frame, values, have / top, 0.7, "bar", words)]
    if raw.size:
        parts.append(charts.points(frame, values, fit / top, "dot-q"))
    return parts


def _smooth(frame: Frame, drawn: np.ndarray, raw: np.ndarray) -> tuple[Frame, list[str]]:
    grid = fine_grid(frame.x.low, frame.x.high, _CURVE, drawn, raw)
    curves = {name: _curve(values, grid) for name, values in (("corrected", drawn), ("q", raw))}
    top = max([float(c.max()) for c in curves.values() if c is not None], default=1.0) or 1.0
    frame = replace(frame, y=Axis(0.0, 1.08 * top))
    parts = []
    for name, values in (("corrected", drawn), ("q", raw)):
        curve = curves[name]
        if curve is None and values.size:
            css = "rule-q" if name == "q" else "rule"
            parts.append(charts.rules(frame, np.unique(thin(values, 20)), css, 0.9))
        elif curve is not None:
            if name == "corrected":
                parts.append(charts.area(frame, grid, curve, "fill"))
            css = "curve-q" if name == "q" else "curve"
            parts.append(charts.line(frame, grid, curve, css, name))
    return frame, [charts.clip(frame, parts)]


def _curve(values: np.ndarray, grid: np.ndarray) -> np.ndarray | None:
    if values.size < 20 or np.ptp(values) <= 1e-12 * np.abs(values).max():
        return None
    return smooth_density(values, grid)


def _shorten(label: str, most: int = 24) -> str:
    return label if len(label) <= most else f"{label[: most - 1]}\u2026"


# -- pairs ----------------------------------------------------------------------------------------


def pairs(content: ReportContent, chosen: Sequence[Scalar]) -> str:
    """Scatter plots of the chosen parameters, with contours of q, densities on the diagonal."""
    moving = [s for s in chosen if _moves(finite(s.of(content.draws)))]
    count = len(moving)
    if count < 2:
        return ""
    cell = {2: 250.0, 3: 210.0}.get(count, 178.0)
    left, top, gap = 66.0, 8.0, 12.0
    axes = [charts.linear_axis(*_range(_sets(content, s)), 3) for s in moving]

    def frame(row: int, column: int) -> Frame:
        y = axes[row] if row != column else _UNIT
        side = cell - gap
        return Frame(axes[column], y, left + column * cell, top + row * cell, side, side)

    parts = [_diagonal(content, s, frame(k, k)) for k, s in enumerate(moving)]
    for column, row in combinations(range(count), 2):
        parts.append(_scatter(content, moving[column], moving[row], frame(row, column)))
        parts.append(_correlation(content, moving[column], moving[row], frame(column, row)))
    for k, scalar in enumerate(moving):
        parts.append(charts.x_axis(frame(count - 1, k), _shorten(scalar.label)))
        if k:
            parts.append(charts.y_axis(frame(k, 0), grid=False))
            parts.append(_side_label(_shorten(scalar.label), frame(k, 0)))
    names = ", ".join(s.label for s in moving)
    side = count * cell
    return charts.svg(
        left + side, top + side + 32.0, f"Pairs of {names}: corrected draws and q", parts
    )


def _moves(draws: np.ndarray) -> bool:
    return draws.size > 1 and float(np.ptp(draws)) > 0


def _sets(content: ReportContent, scalar: Scalar) -> list[np.ndarray]:
    return [finite(scalar.of(content.draws)), finite(scalar.of(content.raw_draws))]


def _side_label(words: str, frame: Frame) -> str:
    x, y = frame.left - 50, frame.top + frame.height / 2
    spin = f'<g transform="rotate(-90 {charts.num(x)} {charts.num(y)})">'
    return f"{spin}{charts.text(x, y, words, 'label')}</g>"


def _border(frame: Frame) -> str:
    n = charts.num
    return (
        f'<rect class="border" x="{n(frame.left)}" y="{n(frame.top)}" '
        f'width="{n(frame.width)}" height="{n(frame.height)}"/>'
    )


def _diagonal(content: ReportContent, scalar: Scalar, frame: Frame) -> str:
    drawn, raw = _sets(content, scalar)
    return _border(frame) + "".join(_smooth(frame, drawn, raw)[1])


def _paired(draws: Mapping[str, np.ndarray], a: Scalar, b: Scalar) -> np.ndarray:
    x, y = a.of(draws), b.of(draws)
    if x.size != y.size:
        return np.empty((0, 2))
    xy = np.column_stack([x, y])
    return xy[usable(xy).all(axis=1)]


def _scatter(content: ReportContent, a: Scalar, b: Scalar, frame: Frame) -> str:
    shown = thin(_paired(content.draws, a, b), MAX_POINTS)
    raw = _paired(content.raw_draws, a, b)
    parts = [charts.points(frame, shown[:, 0], shown[:, 1], "dot")]
    if len(raw):
        for lines, css in zip(mass_contours(raw, (0.5, 0.9)), ("ring", "ring outer"), strict=True):
            for ring in lines:
                parts.append(charts.line(frame, ring[:, 0], ring[:, 1], css))
    return _border(frame) + charts.clip(frame, parts)


def _correlation(content: ReportContent, a: Scalar, b: Scalar, frame: Frame) -> str:
    x, y = frame.left + frame.width / 2, frame.top + frame.height / 2
    words = [("corrected", _paired(content.draws, a, b)), ("q", _paired(content.raw_draws, a, b))]
    lines = [charts.text(x, y - 16.0, "correlation", "tick")]
    for k, (name, xy) in enumerate((n, v) for n, v in words if len(v) > 2):
        flat = np.ptp(xy, axis=0).min() == 0
        value = (
            "undefined"
            if flat
            else fixed(
                float(np.asarray(np.corrcoef(xy.T / np.abs(xy).max(axis=0)[:, None]))[0, 1]), 2
            )
        )
        lines.append(
            charts.text(x, y + 6 + 20 * k, f"{name} {value}", "ink-q" if name == "q" else "ink")
        )
    return "".join(lines)


# -- ELBO history and restarts --------------------------------------------------------------------


def history(points: Sequence[tuple[int, float]]) -> str:
    """The ELBO by iteration, as the distance to its last value where the range is large."""
    pairs_ = np.array([(float(i), float(e)) for i, e in points], dtype=float).reshape(-1, 2)
    good = pairs_[np.isfinite(pairs_).all(axis=1)]
    if len(good) == 0:
        return ""
    good = thin(good, 300)
    final = good[-1, 1]
    gaps = good[:, 1] - final
    spread = float(np.abs(gaps).max())
    wide = spread > 5
    y_axis = (
        _gap_axis(gaps) if wide else charts.linear_axis(*widen(good[:, 1].min(), good[:, 1].max()))
    )
    if len(good) == 1:
        y_axis = charts.linear_axis(*widen(final, final))
    x_axis = charts.linear_axis(*_steps(good[:, 0]), 6)
    frame = Frame(x_axis, y_axis, 74.0, 30.0, 670.0, 210.0)
    y = gaps if wide else good[:, 1]
    title = (
        f"ELBO minus its last value {final:.2f} (nats, symmetric log scale)"
        if wide
        else "ELBO (nats)"
    )
    curve = charts.line(frame, good[:, 0], y, "curve", "ELBO minus last" if wide else "ELBO")
    dots = charts.points(frame, good[:, 0], y, "dot big") if len(good) <= 40 else ""
    parts = [
        charts.y_axis(frame, title),
        charts.x_axis(frame, "iteration"),
        charts.clip(frame, [curve]),
        dots,
    ]
    label = f"ELBO by iteration, from {fmt(good[0, 1], 6)} to {fmt(final, 6)} nats"
    return charts.svg(760.0, 280.0, label, parts, charts.readout(frame))


def _steps(iterations: np.ndarray) -> tuple[float, float]:
    low, high = float(iterations.min()), float(iterations.max())
    return (low - 0.5, high + 0.5) if low == high else (low, high)


def _gap_axis(gaps: np.ndarray) -> Axis:
    low, high = float(gaps.min()), float(gaps.max())
    return charts.symlog_axis(min(1.6 * low, -_KNEE), max(1.6 * high, 0.5 * _KNEE), _KNEE, 9)


def starts(values: Sequence[float]) -> str:
    """Where each restart ended, as the distance to the best; restarts that meet share a dot."""
    ends = np.sort(finite(np.asarray(list(values), dtype=float)))
    if ends.size < 2:
        return ""
    gaps = ends - ends[-1]
    low = float(gaps[0])
    if low < -50:
        axis = charts.symlog_axis(low * 1.6, 0.5, 1.0)
    else:
        axis = charts.linear_axis(*(widen(low, 0.0) if low < 0 else (-1.0, 0.1)), 6)
    frame = Frame(axis, _UNIT, 30.0, 14.0, 714.0, 38.0)
    y = frame.top + 0.62 * frame.height
    parts = [charts.x_axis(frame, "nats from the best restart")]
    for group in _together(np.asarray(frame.px(gaps)), 15.0):
        x = float(frame.px(gaps[group]).mean())
        tip = ", ".join(fmt(end, 7) for end in ends[group])
        parts.append(
            f'<circle class="start" cx="{charts.num(x)}" cy="{charts.num(y)}" r="7">'
            f"<title>{tip}</title></circle>"
        )
        if len(group) > 1:
            parts.append(charts.text(x, y - 13.0, f"{len(group)} restarts", "tick", "end"))
    return charts.svg(
        760.0, 92.0, f"{ends.size} restarts, {fmt(-low)} nats between best and worst", parts
    )


def _together(positions: np.ndarray, near: float) -> list[list[int]]:
    """Groups of increasing positions that are closer than `near` to the first of their group."""
    groups: list[list[int]] = []
    for k, position in enumerate(positions):
        if groups and position - positions[groups[-1][0]] < near:
            groups[-1].append(k)
        else:
            groups.append([k])
    return groups
