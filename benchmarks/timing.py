"""What one fit is worth: its times, its bound and its errors."""

import contextlib
import dataclasses
import math
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from benchmarks.accuracy import Accuracy, compare, finite
from benchmarks.cases import Case

CHUNK = 500  # steps between looks
MAX_STEPS = 50_000
PATIENCE = 6  # chunks without a gain: then the rate falls tenfold, in the end the fit stops
GAIN = 0.1  # nats
FALLS = 2  # of the rate


@dataclasses.dataclass(frozen=True)
class Fit:
    """One fit.

    Attributes:
        seconds: to the method's own end.
        stopped: to the moment when its stopping rule fired; the same unless that looks back.
        accurate: to the first time from which on all means are within 0.1 sd; None: never.
        elbo: final ELBO in nats; None where the method has none.
        accuracy: errors at the end.
        steps: gradient steps, where they are counted.
        verdict: the method's own words about the answer, if any.
        ended: why it ended.
    """

    seconds: float
    stopped: float
    accurate: float | None
    elbo: float | None
    accuracy: Accuracy
    steps: int | None = None
    verdict: str = ""
    ended: str = ""

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        plain = dataclasses.asdict(self) | {"accuracy": self.accuracy.to_json()}
        return plain | {"elbo": finite(self.elbo)}


class Clock:
    """A stop watch that can be held while something is looked at."""

    def __init__(self) -> None:
        self._began, self._held = time.perf_counter(), 0.0

    @property
    def seconds(self) -> float:
        """Seconds since the start, pauses left out."""
        return time.perf_counter() - self._began - self._held

    @contextlib.contextmanager
    def held(self) -> Iterator[None]:
        """Time spent in here does not count."""
        began = time.perf_counter()
        try:
            yield
        finally:
            self._held += time.perf_counter() - began


def at_once(
    case: Case, seconds: float, draws: Mapping[str, Any], elbo: float | None = None, **more: Any
) -> Fit:
    """The record of a method whose answer comes only at its end."""
    accuracy = compare(draws, case.sites, case.truth)
    return Fit(seconds, seconds, seconds if accuracy.means_fine else None, elbo, accuracy, **more)


@dataclasses.dataclass
class Look:
    """The state of a stepwise fit at the end of a chunk."""

    seconds: float
    elbo: float
    accuracy: Accuracy


def descend(
    case: Case,
    clock: Clock,
    rate: float,
    advance: Callable[[float], None],
    elbo: Callable[[], float],
    draws: Callable[[], Mapping[str, Any]],
    budget: float,
) -> Fit:
    """Step until the ELBO has stopped rising at the last of three falling rates.

    Args:
        case: gives the truth.
        clock: was started before the fit was set up; looking does not run on it.
        rate: the first learning rate.
        advance: runs CHUNK steps at the rate given.
        elbo: ELBO of the current q on draws that stay the same.
        draws: draws of the current q.
        budget: seconds after which the fit ends anyway.
    """
    looks: list[Look] = []
    ended, falls, since = f"{MAX_STEPS} steps", 0, 0
    while len(looks) * CHUNK < MAX_STEPS:
        advance(rate * 0.1**falls)
        seconds = clock.seconds
        with clock.held():
            looks.append(Look(seconds, elbo(), compare(draws(), case.sites, case.truth)))
        if _levelled(looks, since):
            falls, since = falls + 1, len(looks)
        if falls > FALLS or seconds > budget:
            ended = "ELBO no longer rises" if falls > FALLS else "out of time"
            break
    return _summed_up(looks, ended)


def _summed_up(looks: list[Look], ended: str) -> Fit:
    last = looks[-1]
    return Fit(
        seconds=_plateau(looks),
        stopped=last.seconds,
        accurate=_accurate_from(looks),
        elbo=last.elbo,
        accuracy=last.accuracy,
        steps=len(looks) * CHUNK,
        ended=ended,
    )


def _levelled(looks: list[Look], since: int) -> bool:
    """Whether the last chunks, all at one rate, brought no gain over the best before them."""
    if len(looks) < max(since, 1) + PATIENCE:
        return False
    before, after = _best(looks[:-PATIENCE]), _best(looks[-PATIENCE:])
    return not after > before + GAIN


def _best(looks: list[Look]) -> float:
    return max((k.elbo for k in looks if math.isfinite(k.elbo)), default=-math.inf)


def _plateau(looks: list[Look]) -> float:
    """Seconds to the first look at which the ELBO is within GAIN of the best."""
    best = _best(looks)
    return next((k.seconds for k in looks if k.elbo >= best - GAIN), looks[-1].seconds)


def _accurate_from(looks: list[Look]) -> float | None:
    found = None
    for look in reversed(looks):
        if not look.accuracy.means_fine:
            break
        found = look.seconds
    return found
