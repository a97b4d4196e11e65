"""Scalar parameters by label: which draws belong to `theta[3]`, and which are the worst."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from taut.report.content import ReportContent


@dataclass(frozen=True)
class Scalar:
    """One scalar parameter: its label, its site and its place in the flattened site."""

    label: str
    site: str
    place: int

    def of(self, draws: Mapping[str, np.ndarray]) -> np.ndarray:
        """The draws of this parameter as floats, NaN included; empty where there are none."""
        if self.site not in draws:
            return np.empty(0)
        values = np.asarray(draws[self.site])
        flat = values.reshape(values.shape[0], -1) if values.size else np.empty((0, 0))
        return flat[:, self.place].astype(float) if self.place < flat.shape[1] else np.empty(0)


def scalars(content: ReportContent) -> list[Scalar]:
    """All scalar parameters in the model's order, labelled as the summary labels them."""
    found = []
    for site, values in content.draws.items():
        shape = np.shape(values)[1:]
        for place, index in enumerate(np.ndindex(*shape)):
            suffix = f"[{', '.join(map(str, index))}]" if shape else ""
            found.append(Scalar(f"{site}{suffix}", site, place))
    labels = [str(label) for label in content.summary.index]
    if len(labels) == len(found) and all(
        label == s.site or label.startswith(f"{s.site}[")
        for label, s in zip(labels, found, strict=True)
    ):
        return [Scalar(label, s.site, s.place) for label, s in zip(labels, found, strict=True)]
    return found


def drifts(content: ReportContent) -> dict[str, float]:
    """Drift by label without blanks: `a[0, 1]` and `a[0,1]` are the same parameter."""
    return {tight(key): float(value) for key, value in content.drift.items()}


def tight(label: str) -> str:
    """A label without blanks."""
    return label.replace(" ", "")


def worst(content: ReportContent, most: int) -> tuple[list[Scalar], int]:
    """The scalars with the largest drift, the worst first; without drift, the first ones.

    Args:
        content: The report's content.
        most: How many are wanted.

    Returns:
        Up to `most` scalars, and how many there are in all.
    """
    everything = scalars(content)
    known = drifts(content)

    def badness(scalar: Scalar) -> float:
        size = abs(known.get(tight(scalar.label), 0.0))
        return math.inf if math.isnan(size) else size

    return sorted(everything, key=lambda s: -badness(s))[:most], len(everything)
