"""Numbers as text: cells of a table, ticks of an axis."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

_STEPS = (1.0, 2.0, 2.5, 5.0, 10.0)
_MAX_DIGITS = 6  # a tick label with more digits than this is written as an offset


def fmt(value: float | int, digits: int = 3) -> str:
    """Writes a number with `digits` significant digits, without needless zeros."""
    value = float(value)
    if math.isnan(value):
        return "NaN"
    if math.isinf(value):
        return "inf" if value > 0 else "-inf"
    size = abs(value)
    if size != 0 and (size < 1e-4 or size >= 1e7):
        return _short(f"{value:.{digits - 1}e}")
    if size >= 10**digits:
        return f"{value:.0f}"
    return f"{value:.{digits}g}"


def fixed(value: float | int, decimals: int) -> str:
    """Writes a number with a fixed number of decimals, or as `fmt` where that would not be short."""
    value = float(value)
    if not math.isfinite(value) or abs(value) >= 1e7:
        return fmt(value)
    text = f"{value:.{decimals}f}"
    return text.removeprefix("-") if float(text) == 0 else text


def decimals_for(sd: float, digits: int = 3) -> int | None:
    """Decimals that show `digits` significant digits of `sd`; None where fixed point is no good."""
    if not math.isfinite(sd) or sd <= 0:
        return None
    decimals = digits - 1 - math.floor(math.log10(sd))
    return None if decimals > 8 else max(decimals, 0)


def nice_ticks(low: float | int, high: float | int, count: int = 5) -> list[float]:
    """Round tick positions inside [low, high], about `count` of them."""
    low, high = float(low), float(high)
    span = high - low
    if not math.isfinite(span) or span <= 0:
        return [low] if math.isfinite(low) else []
    rough = span / max(count, 1)
    power = 10.0 ** math.floor(math.log10(rough))
    step = min((s * power for s in _STEPS), key=lambda s: abs(math.log(s / rough)))
    first = math.ceil(low / step - 1e-9)
    last = math.floor(high / step + 1e-9)
    return [k * step for k in range(first, last + 1)]


def tick_labels(ticks: Sequence[float]) -> tuple[list[str], str]:
    """Shortest labels that tell the ticks apart, and an offset to add to them ("" for none)."""
    if not ticks:
        return [], ""
    largest = max(abs(t) for t in ticks)
    step = min(np.diff(ticks)) if len(ticks) > 1 else largest
    if largest == 0 or step <= 0:
        return [fmt(t) for t in ticks], ""
    digits = math.ceil(math.log10(largest / step) + 1e-9) + 1
    if digits > _MAX_DIGITS:
        base = ticks[0]
        return tick_labels([t - base for t in ticks])[0], _plus(base)
    if largest >= 1e5 or largest < 1e-3:
        texts = [_short(f"{t:.{min(digits, _MAX_DIGITS)}e}") if t else "0" for t in ticks]
        return texts, ""
    decimals = max(0, 1 - math.floor(math.log10(step) + 1e-9))
    texts = [fixed(t, decimals) for t in ticks]
    while decimals > 0 and all(t.endswith("0") for t in texts):
        decimals -= 1
        texts = [fixed(t, decimals) for t in ticks]
    return texts, ""


def _plus(base: float) -> str:
    text = f"{base:.15g}"
    return text if text.startswith("-") else f"+{text}"


def _short(text: str) -> str:
    """Turns 1.20e+07 into 1.2e7."""
    if "e" not in text:
        return text
    mantissa, exponent = text.split("e")
    if "." in mantissa:
        mantissa = mantissa.rstrip("0").rstrip(".")
    return f"{mantissa}e{int(exponent)}"
