"""Watching the clock and the keyboard, and telling the user how far a fit is."""

import signal
import sys
import threading
import time
from collections.abc import Callable, Sequence
from typing import Any

Callback = Callable[[str, dict[str, Any]], bool | None]
"""Called with the stage's name and its numbers; returning True ends the fit with the best so far."""

BAR = 20  # characters


class Watch:
    """Deadline, interrupt and display of one fit.

    As a context manager it turns Ctrl-C into a request to stop, so that a compiled call is
    never torn down half way and the best so far is returned. A second Ctrl-C interrupts at once.

    Args:
        budget: seconds, or None for no limit.
        progress: True shows a status line, False none, None only on a terminal.
        callbacks: called with every report.
    """

    def __init__(
        self,
        budget: float | None = None,
        progress: bool | None = False,
        callbacks: Sequence[Callback] = (),
    ) -> None:
        self.started = time.perf_counter()
        self.budget = budget
        self.interrupted = False
        self._callbacks = tuple(callbacks)
        self._show = sys.stderr.isatty() if progress is None else progress
        self._previous: Any = None
        self._width = 0

    def __enter__(self) -> "Watch":
        """Start listening to the keyboard."""
        if threading.current_thread() is threading.main_thread():
            self._previous = signal.signal(signal.SIGINT, self._interrupt)
        return self

    def __exit__(self, *exc: object) -> None:
        """Give the keyboard back and clear the line."""
        if self._previous is not None:
            signal.signal(signal.SIGINT, self._previous)
        if self._width:
            sys.stderr.write("\r" + " " * self._width + "\r")
            sys.stderr.flush()

    def _interrupt(self, signum: int, frame: Any) -> None:
        if self.interrupted:
            raise KeyboardInterrupt
        self.interrupted = True

    @property
    def seconds(self) -> float:
        """Seconds since the fit began."""
        return time.perf_counter() - self.started

    @property
    def left(self) -> float:
        """Seconds left of the budget."""
        return float("inf") if self.budget is None else self.budget - self.seconds

    @property
    def over(self) -> bool:
        """True if the fit should end with what it has."""
        return self.interrupted or self.left <= 0

    def report(self, stage: str, **numbers: Any) -> None:
        """Tell the user and the callbacks where the fit is."""
        for callback in self._callbacks:
            if callback(stage, numbers):
                self.interrupted = True
        if self._show:
            shown = {k: v for k, v in numbers.items() if k not in ("step", "epochs")}
            text = f"taut {self.seconds:6.1f}s  {stage}  {self._bar(numbers)}" + "  ".join(
                f"{k} {_short(v)}" for k, v in shown.items()
            )
            self._width = max(self._width, len(text))
            sys.stderr.write("\r" + text.ljust(self._width))
            sys.stderr.flush()

    def _bar(self, numbers: dict[str, Any]) -> str:
        """A bar and the time left, where the number of epochs is known; "" otherwise."""
        total, done = numbers.get("epochs"), numbers.get("epoch", 0.0)
        if not total or done <= 0:
            return ""
        share = min(done / total, 1.0)
        left = self.seconds * (1 - share) / share
        filled = round(BAR * share)
        return f"[{'#' * filled}{'.' * (BAR - filled)}] {_clock(left)} left  "


def _clock(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes}:{rest:02d}"


def _short(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)
