"""SVG primitives: axes with round ticks, lines, areas, bars, points. Every function returns text.

Colours come from the classes of `page.css`, so that one drawing serves light and dark.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from html import escape

import numpy as np

from taut.report.numbers import nice_ticks, tick_labels


@dataclass(frozen=True)
class Axis:
    """One axis: its range, ticks, and how values are spread along it.

    Attributes:
        low: Value at the start of the axis.
        high: Value at its end.
        ticks: Where the ticks are.
        labels: Their texts.
        offset: Text of a number to add to every label, "" for none.
        knee: None for a linear axis; else linear below the knee and logarithmic above, in both signs.
    """

    low: float
    high: float
    ticks: tuple[float, ...] = ()
    labels: tuple[str, ...] = ()
    offset: str = ""
    knee: float | None = None

    def warp(self, values: np.ndarray | float) -> np.ndarray:
        """Values as lengths along the axis, before they are scaled to the page."""
        values = np.asarray(values, dtype=float)
        if self.knee is None:
            return values
        return np.asarray(np.sign(values) * np.log1p(np.abs(values) / self.knee))

    def share(self, values: np.ndarray | float) -> np.ndarray:
        """Values as shares of the axis' length."""
        start, end = self.warp(self.low), self.warp(self.high)
        return np.asarray((self.warp(values) - start) / (end - start))


def linear_axis(low: float, high: float, count: int = 5) -> Axis:
    """A linear axis with about `count` round ticks."""
    ticks = nice_ticks(low, high, count)
    labels, offset = tick_labels(ticks)
    return Axis(low, high, tuple(ticks), tuple(labels), offset)


def whole_axis(low: float, high: float, count: int = 5) -> Axis:
    """A linear axis with ticks at whole numbers only."""
    ticks = [t for t in nice_ticks(low, high, count) if t == round(t)]
    labels, offset = tick_labels(ticks)
    return Axis(low, high, tuple(ticks), tuple(labels), offset)


def symlog_axis(low: float, high: float, knee: float, most: int = 7) -> Axis:
    """An axis that is linear around zero and logarithmic beyond, with ticks at powers of ten."""
    top = int(np.ceil(np.log10(max(abs(low), abs(high), knee))))
    bottom = int(np.floor(np.log10(knee) + 1e-9))
    stride = max(1, -(-2 * (top - bottom + 1) // most) // 2)
    powers = [10.0**k for k in range(bottom, top + 1, stride)]
    values = sorted([-p for p in powers] + [0.0] + powers)
    ticks = tuple(v for v in values if low <= v <= high)
    return Axis(low, high, ticks, tuple(_power_label(t) for t in ticks), "", knee)


def _power_label(value: float) -> str:
    if value == 0 or 1e-3 <= abs(value) < 1e4:
        return f"{value:g}"
    return f"{'-' if value < 0 else ''}1e{round(np.log10(abs(value)))}"


@dataclass(frozen=True)
class Frame:
    """A rectangle of the drawing, in drawing units, with an axis along each side."""

    x: Axis
    y: Axis
    left: float
    top: float
    width: float
    height: float

    def px(self, values: np.ndarray | float) -> np.ndarray:
        """Horizontal positions of x values."""
        return np.asarray(self.left + self.width * self.x.share(values))

    def py(self, values: np.ndarray | float) -> np.ndarray:
        """Vertical positions of y values."""
        return np.asarray(self.top + self.height * (1 - self.y.share(values)))


def num(value: float) -> str:
    """A coordinate with one decimal, as short as it can be written."""
    text = f"{value:.1f}"
    text = text.removesuffix(".0")
    return "0" if text == "-0" else text


def svg(width: float, height: float, label: str, body: Iterable[str], extra: str = "") -> str:
    """A drawing with a spoken label."""
    return (
        f'<svg role="img" viewBox="0 0 {num(width)} {num(height)}" width="{num(width)}" '
        f'height="{num(height)}" aria-label="{escape(label)}"{extra}>{"".join(body)}</svg>'
    )


def readout(frame: Frame) -> str:
    """Attributes of a drawing whose curves the page's script reads out under the pointer."""
    values = (frame.left, frame.width, frame.x.low, frame.x.high)
    y_values = (frame.top, frame.height, frame.y.low, frame.y.high, frame.y.knee or 0.0)
    return (
        f' data-x="{" ".join(f"{v:.7g}" for v in values)}"'
        f' data-y="{" ".join(f"{v:.7g}" for v in y_values)}"'
    )


def clip(frame: Frame, body: Iterable[str]) -> str:
    """Draws `body` inside the frame only."""
    box = " ".join(num(v) for v in (frame.left, frame.top, frame.width, frame.height))
    return (
        f'<svg x="{num(frame.left)}" y="{num(frame.top)}" width="{num(frame.width)}" '
        f'height="{num(frame.height)}" viewBox="{box}">{"".join(body)}</svg>'
    )


def text(x: float, y: float, words: str, css: str = "", anchor: str = "middle") -> str:
    """A line of text."""
    style = f' class="{css}"' if css else ""
    return f'<text x="{num(x)}" y="{num(y)}" text-anchor="{anchor}"{style}>{escape(words)}</text>'


def x_axis(frame: Frame, title: str = "", grid: bool = False) -> str:
    """Ticks, labels and title below the frame."""
    base = frame.top + frame.height
    parts = [f'<path class="axis" d="M{num(frame.left)} {num(base)}h{num(frame.width)}"/>']
    start = frame.top if grid else base
    for tick, label in zip(frame.x.ticks, frame.x.labels, strict=True):
        x = float(frame.px(tick))
        css = "grid" if grid else "axis"
        parts.append(f'<path class="{css}" d="M{num(x)} {num(start)}V{num(base + 4)}"/>')
        parts.append(text(x, base + 16, label, "tick"))
    if frame.x.offset:
        parts.append(text(frame.left + frame.width, base + 29, frame.x.offset, "tick", "end"))
    if title:
        parts.append(text(frame.left + frame.width / 2, base + 33, title, "label"))
    return "".join(parts)


def y_axis(frame: Frame, title: str = "", grid: bool = True) -> str:
    """Ticks, labels and title left of the frame."""
    parts = []
    end = frame.left + frame.width if grid else frame.left
    for tick, label in zip(frame.y.ticks, frame.y.labels, strict=True):
        y = float(frame.py(tick))
        parts.append(f'<path class="grid" d="M{num(frame.left - 4)} {num(y)}H{num(end)}"/>')
        parts.append(text(frame.left - 7, y + 4, label, "tick", "end"))
    if frame.y.offset:
        parts.append(text(frame.left - 7, frame.top - 6, frame.y.offset, "tick", "end"))
    if title:
        parts.append(text(frame.left - 40, frame.top - 12, title, "label", "start"))
    return "".join(parts)


def path_data(x: np.ndarray, y: np.ndarray) -> str:
    """Path through pixel positions in relative steps of a tenth; broken where a value is not finite."""
    xs, ys = np.round(np.asarray(x) * 10), np.round(np.asarray(y) * 10)
    good = np.isfinite(xs) & np.isfinite(ys)
    parts: list[str] = []
    last: tuple[float, float] | None = None
    for a, b, ok in zip(xs, ys, good, strict=True):
        if not ok:
            last = None
            continue
        if last is None:
            parts.append(f"M{num(a / 10)} {num(b / 10)}")
        else:
            parts.append(f"l{num((a - last[0]) / 10)} {num((b - last[1]) / 10)}")
        last = (a, b)
    return "".join(parts)


def line(frame: Frame, x: np.ndarray, y: np.ndarray, css: str, name: str = "") -> str:
    """A curve; with a name it is read out under the pointer."""
    if name:
        keep = np.isfinite(x) & np.isfinite(y)
        pairs = zip(frame.px(x[keep]), frame.py(y[keep]), strict=True)
        points = " ".join(f"{num(a)},{num(b)}" for a, b in pairs)
        if keep.all():
            return f'<polyline class="{css}" data-name="{escape(name)}" points="{points}"/>'
    return f'<path class="{css}" d="{path_data(frame.px(x), frame.py(y))}"/>'


def area(frame: Frame, x: np.ndarray, y: np.ndarray, css: str) -> str:
    """The area between a curve and the bottom of the frame."""
    base = frame.top + frame.height
    data = path_data(frame.px(x), frame.py(y))
    return (
        f'<path class="{css}" d="{data}V{num(base)}H{num(float(frame.px(x[0])))}z"/>'
        if data
        else ""
    )


def points(frame: Frame, x: np.ndarray, y: np.ndarray, css: str) -> str:
    """Dots, as one path of zero-length strokes with round caps."""
    pairs = zip(frame.px(x), frame.py(y), strict=True)
    dots = [f"M{num(a)} {num(b)}h0" for a, b in pairs if np.isfinite(a) and np.isfinite(b)]
    return f'<path class="{css}" d="{"".join(dots)}"/>'


def bars(
    frame: Frame, x: np.ndarray, y: np.ndarray, wide: float, css: str, titles: Sequence[str]
) -> str:
    """Bars from the bottom of the frame, centred at x, `wide` in x units, each with a tooltip."""
    base = frame.top + frame.height
    parts = []
    for centre, top, words in zip(x, y, titles, strict=True):
        left, right = float(frame.px(centre - wide / 2)), float(frame.px(centre + wide / 2))
        height = max(base - float(frame.py(top)), 0)
        parts.append(
            f'<rect class="{css}" x="{num(left)}" y="{num(base - height)}" '
            f'width="{num(max(right - left, 0.5))}" height="{num(height)}">'
            f"<title>{escape(words)}</title></rect>"
        )
    return "".join(parts)


def spans(frame: Frame, x: np.ndarray, low: np.ndarray, high: np.ndarray, css: str) -> str:
    """Vertical intervals at x."""
    triples = zip(frame.px(x), frame.py(low), frame.py(high), strict=True)
    return f'<path class="{css}" d="{"".join(f"M{num(a)} {num(b)}V{num(c)}" for a, b, c in triples)}"/>'


def rules(frame: Frame, x: np.ndarray, css: str, share: float = 1.0) -> str:
    """Vertical rules at x, from the bottom up to a share of the frame's height."""
    base = frame.top + frame.height
    top = base - share * frame.height
    return f'<path class="{css}" d="{"".join(f"M{num(v)} {num(base)}V{num(top)}" for v in frame.px(x))}"/>'
