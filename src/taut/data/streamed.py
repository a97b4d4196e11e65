"""Minibatches of rows that are read again each epoch, because they are larger than memory."""

import abc
import collections
import math
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from typing_extensions import override

from taut._core.errors import ArgumentError, DataError
from taut.data.checks import Checker, Columns, check_total, whole_number
from taut.data.chunks import Waiting, joined
from taut.data.feeds import Layout
from taut.data.host import AbstractHostFeed, Window
from taut.data.sources import AbstractBlockSource, AbstractSource

LANES = 8  # blocks that are open at a time, and so mixed
Segment = tuple[int, int, int]  # block, first row in it, rows


class Streamed(AbstractHostFeed):
    """Minibatches from a source; memory does not grow with the number of rows.

    Rows are shuffled in windows of about ``source.buffer_rows`` rows. Where the source can be read
    by block, as Parquet files can, blocks come in another order each epoch and a window has rows
    of several; otherwise rows come in the order of the source. Going to a position reads the
    blocks that are open there, or of other sources what comes before it in the epoch.

    Floats of at most 32 bits stay single precision; other numbers get JAX's own types when they
    are taken: 32 bits, unless ``jax_enable_x64`` is set.

    Args:
        source: of the rows.
        batch_size: rows of a batch, at least 1; all rows where there are fewer.
        seed: of the shuffles.
        shuffle: False keeps the order of the rows.
        num_rows: rows in all, where the source does not say.
        part: (i, n) gives the i-th of n equal parts of every batch, for process i of n; each
            process reads all rows.
        wanted: columns that are taken; None for all.
    """

    def __init__(
        self,
        source: AbstractSource,
        batch_size: int,
        seed: int = 0,
        shuffle: bool = True,
        *,
        num_rows: int | None = None,
        part: tuple[int, int] = (0, 1),
        wanted: Sequence[str] | None = None,
    ) -> None:
        total = _declared(source.num_rows, num_rows)
        layout = Layout.make(total, batch_size, seed, shuffle, part)
        if isinstance(source, AbstractBlockSource):
            reader: _AbstractReader = _Blocks(source, layout, wanted)
        else:
            reader = _Passes(source, layout, wanted)
        super().__init__(layout, reader.windows)


def _declared(known: int | None, num_rows: int | None) -> int:
    """Rows in all."""
    if num_rows is not None:
        num_rows = whole_number("num_rows", num_rows, 1)
    if known is None and num_rows is None:
        raise ArgumentError(
            "minibatches need the number of rows in all, for which each batch stands: declare it, as in "
            "taut.data.Batches(batches, num_rows=1_000_000)"
        )
    if known is not None and num_rows is not None and known != num_rows:
        raise ArgumentError(
            f"num_rows is {num_rows:,}, but the source says {known:,}; leave it out"
        )
    check_total(total := num_rows if known is None else known, None)  # type: ignore[arg-type]
    return total  # type: ignore[return-value]


class _AbstractReader(abc.ABC):
    """Windows of a source. It knows no feed, so that a thread which reads keeps none alive."""

    def __init__(self, source: Any, layout: Layout, wanted: Sequence[str] | None) -> None:
        self._source, self._layout, self._wanted = source, layout, wanted
        # Whole batches, so that no batch is shared by two windows.
        self._batches = max(1, source.buffer_rows // layout.batch_size)
        self._window_rows = self._batches * layout.batch_size

    def windows(self, epoch: int, step: int) -> Iterator[Window]:
        """All windows from a batch on, without end."""
        while True:
            yield from self._of_epoch(epoch, step)
            epoch, step = epoch + 1, 0

    @abc.abstractmethod
    def _of_epoch(self, epoch: int, step: int) -> Iterator[Window]:
        """The windows of an epoch, from a batch on."""

    def _window(
        self, columns: Columns, rows: np.ndarray, epoch: int, number: int, step: int
    ) -> Window:
        """Shuffle rows and cut them into batches, of which those before ``step`` are left out."""
        order, weight = self._layout.cut(self._layout.order(len(rows), epoch, number, 29))
        done = max(step - number * self._batches, 0)
        order, weight = order[done:], weight[done:]
        return Window({n: v[order] for n, v in columns.items()}, weight, rows[order])

    def _checker(self) -> Checker:
        return Checker(self._wanted, self._source.fixed, single=True)


# --- any iterable ----------------------------------------------------------------------------------


class _Passes(_AbstractReader):
    """Windows of consecutive rows."""

    @override
    def _of_epoch(self, epoch: int, step: int) -> Iterator[Window]:
        total, size = self._layout.num_rows, self._window_rows
        check, waiting, given, read = self._checker(), Waiting(), 0, 0
        for raw in self._source.pieces(self._wanted):
            piece = check(raw, read)
            if piece is None:
                continue
            read += len(next(iter(piece.values())))
            if read > 2 * total:  # of an endless source the end is not waited for
                check_total(read, total, more=True)
            if read > total:
                continue  # to count them
            waiting.add(piece)
            # The last window waits until the number of rows has proved right.
            while waiting.held >= size and given + size < total:
                columns, first = waiting.take(size), given
                given += size
                if given > step * self._layout.batch_size:
                    rows = _numbers(first, given)
                    yield self._window(columns, rows, epoch, first // size, step)
        self._check_end(read, epoch)
        rows = _numbers(given, total)
        yield self._window(waiting.take(total - given), rows, epoch, given // size, step)

    def _check_end(self, read: int, epoch: int) -> None:
        if epoch and not read:
            raise DataError(
                f"the source has no rows in epoch {epoch} (counted from 0); a function passed as batches "
                "must return a new iterable each time"
            )
        check_total(read, self._layout.num_rows)


# --- blocks ----------------------------------------------------------------------------------------


class _Blocks(_AbstractReader):
    """Windows of rows from several blocks, which come in a shuffled order."""

    def __init__(
        self, source: AbstractBlockSource, layout: Layout, wanted: Sequence[str] | None
    ) -> None:
        super().__init__(source, layout, wanted)
        self._sizes = source.block_rows
        self._firsts = np.cumsum([0, *self._sizes])

    @override
    def _of_epoch(self, epoch: int, step: int) -> Iterator[Window]:
        check, opened = self._checker(), {}
        for number, segments in enumerate(self._plan(epoch)):
            if (number + 1) * self._batches <= step:
                continue
            pieces, rows = [], []
            for block, start, count in segments:
                if block not in opened:
                    opened[block] = _Reading(self._source, block, start, self._wanted)
                first = int(self._firsts[block])
                pieces.append(opened[block].take(count, check, first))
                rows.append(_numbers(first + start, first + start + count))
                if start + count == self._sizes[block]:
                    del opened[block]
            yield self._window(joined(pieces), np.concatenate(rows), epoch, number, step)

    def _plan(self, epoch: int) -> Iterator[list[Segment]]:
        """What each window of an epoch reads. Known without reading, so that it can be skipped."""
        waiting = collections.deque(map(int, self._layout.order(len(self._sizes), epoch, 31)))
        lanes = LANES if self._layout.shuffle else 1
        most = math.ceil(self._window_rows / lanes)
        opened: collections.deque[tuple[int, int]] = collections.deque()
        while waiting or opened:
            segments, left = [], self._window_rows
            while left and (waiting or opened):
                while waiting and len(opened) < lanes:
                    opened.append((waiting.popleft(), 0))
                block, start = opened.popleft()
                count = min(most, left, self._sizes[block] - start)
                segments.append((block, start, count))
                left -= count
                if start + count < self._sizes[block]:
                    opened.append((block, start + count))
            yield segments


class _Reading:
    """A block that is being read."""

    def __init__(
        self, source: AbstractBlockSource, block: int, start: int, wanted: Sequence[str] | None
    ) -> None:
        self._pieces, self._block = source.read_block(block, start, wanted), block
        self._row, self._waiting = start, Waiting()

    def take(self, count: int, check: Checker, first: int) -> Columns:
        """The next rows of a block whose first row has a number."""
        while self._waiting.held < count:
            raw = next(self._pieces, None)
            if raw is None:
                raise DataError(f"block {self._block} has fewer rows than block_rows says")
            if (piece := check(raw, first + self._row)) is not None:
                self._row += self._waiting.add(piece)
        return self._waiting.take(count)


def _numbers(start: int, stop: int) -> np.ndarray:
    return np.arange(start, stop, dtype=np.int32 if stop <= np.iinfo(np.int32).max else np.int64)
