"""Minibatches that are gathered on the host, ahead of need, and travel to the device whole."""

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import jax
import numpy as np
from typing_extensions import override

from taut.data.ahead import read_ahead
from taut.data.checks import check_finite
from taut.data.feeds import AbstractLaidOut, Batch, Layout, name_at, rows_of

WINDOW_BYTES = 1 << 22  # of rows that are gathered at a time
WINDOW_ROWS = 8192
AHEAD = 1  # windows that wait, beside the one in use and the one being made


class Window(NamedTuple):
    """Consecutive batches of one epoch.

    Attributes:
        columns: arrays, (batches, rows, ...), nested like the data.
        weight: (batches, rows).
        rows: their numbers, (batches, rows).
    """

    columns: Any
    weight: np.ndarray
    rows: np.ndarray


class AbstractHostFeed(AbstractLaidOut):
    """A feed whose items hold the columns themselves, so that they can be placed on a mesh.

    Args:
        layout: of the batches.
        windows: a function of epoch and batch that returns all windows from there on, without
            end. It must not refer to the feed: a thread that reads ahead would keep it alive.
    """

    def __init__(self, layout: Layout, windows: Callable[[int, int], Iterator[Window]]) -> None:
        super().__init__(layout)
        self._read = windows
        self._ahead: Iterator[Window] | None = None
        self._window: Window | None = None
        self._used = 0

    @property
    @override
    def resident(self) -> Any:
        return ()

    @override
    def batch(self, resident: Any, item: Any) -> Batch:
        return Batch(item["columns"], item["weight"], item["rows"])

    @override
    def _next(self, most: int) -> Any:
        if self._window is None:
            if self._ahead is None:
                self._ahead = read_ahead(self._read(self._epoch, self._step), AHEAD)
            self._window, self._used = next(self._ahead), 0
        some = slice(self._used, self._used + most)
        found = jax.tree.map(lambda x: x[some], self._window._asdict())
        self._used += len(found["rows"])
        if self._used == len(self._window.rows):
            self._window = None
        return found

    @override
    def _moved(self) -> None:
        if self._ahead is not None:
            self._ahead.close()  # type: ignore[attr-defined]
        self._ahead = self._window = None


class HostBatches(AbstractHostFeed):
    """The rows of :class:`taut.data.InMemory` in the same order, gathered on the host.

    Arrays that are mapped from files (``numpy.load(file, mmap_mode="r")``) are never read as a
    whole: the rows of some batches are read in the order of the file. The order of an epoch takes
    4 bytes a row; where that is too much, write Parquet files.

    Args:
        columns: arrays with the rows along their first axis, nested as one likes.
        batch_size: rows of a batch, at least 1; all rows where there are fewer.
        seed: of the shuffles.
        shuffle: False keeps the order of the rows.
        part: (i, n) gives the i-th of n equal parts of every batch, for process i of n.
    """

    def __init__(
        self,
        columns: Any,
        batch_size: int,
        seed: int = 0,
        shuffle: bool = True,
        *,
        part: tuple[int, int] = (0, 1),
    ) -> None:
        layout = Layout.make(rows_of(columns), batch_size, seed, shuffle, part)
        gather = _Gather(jax.tree.map(np.asarray, columns), layout)
        super().__init__(layout, gather.windows)


class _Gather:
    """Windows of arrays."""

    def __init__(self, columns: Any, layout: Layout) -> None:
        self._columns, self._layout = columns, layout
        leaves = jax.tree.leaves(columns)
        bytes_each = sum(x.dtype.itemsize * int(np.prod(x.shape[1:])) for x in leaves)
        rows = min(WINDOW_BYTES // max(bytes_each, 1), WINDOW_ROWS)
        self._batches = max(1, rows // (layout.stop - layout.start))

    def windows(self, epoch: int, step: int) -> Iterator[Window]:
        size, layout = self._layout.batch_size, self._layout
        while True:
            order = layout.epoch(epoch)
            for first in range(step, layout.steps, self._batches):
                rows, weight = layout.cut(order[first * size : (first + self._batches) * size])
                yield Window(self._gathered(rows), weight, rows)
            epoch, step = epoch + 1, 0

    def _gathered(self, rows: np.ndarray) -> Any:
        flat = rows.ravel()
        places = np.argsort(flat, kind="stable")
        numbers = flat[places]  # ascending, as a file is read fastest

        def gather(path: Any, x: np.ndarray) -> np.ndarray:
            found = x[numbers]
            check_finite(found, name_at(path), numbers)
            placed = np.empty_like(found)
            placed[places] = found
            return placed.reshape(*rows.shape, *x.shape[1:])

        return jax.tree_util.tree_map_with_path(gather, self._columns)
