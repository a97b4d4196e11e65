"""Callbacks that keep what a fit reports."""

import json
from pathlib import Path
from typing import Any

from taut._core.errors import UnsupportedError


class TensorBoard:
    """Writes the numbers that a fit reports for TensorBoard; a callback of ``taut.fit``.

    Needs tensorboardX: ``pip install 'taut[tensorboard]'``.

    Args:
        folder: of the event files.

    Raises:
        UnsupportedError: if tensorboardX is not installed.
    """

    def __init__(self, folder: str | Path) -> None:
        try:
            from tensorboardX import SummaryWriter
        except ImportError as error:
            raise UnsupportedError(
                "taut.training.TensorBoard needs tensorboardX: pip install 'taut[tensorboard]'"
            ) from error
        self._writer = SummaryWriter(str(folder))
        self._count = 0

    def __call__(self, stage: str, numbers: dict[str, Any]) -> None:
        """Write one report."""
        self._count += 1
        step = int(numbers.get("step", self._count))
        for name, value in numbers.items():
            if name != "step" and isinstance(value, int | float):
                self._writer.add_scalar(f"{stage}/{name}", value, step)
        self._writer.flush()


class JsonLines:
    """Writes each report of a fit as a line of JSON; a callback of ``taut.fit``.

    Args:
        path: of the file, to which lines are appended.
    """

    def __init__(self, path: str | Path) -> None:
        self._path = Path(path)

    def __call__(self, stage: str, numbers: dict[str, Any]) -> None:
        """Write one report."""
        plain = {n: v if isinstance(v, int | float | str) else str(v) for n, v in numbers.items()}
        with open(self._path, "a", encoding="utf-8") as file:
            file.write(json.dumps({"stage": stage, **plain}) + "\n")
