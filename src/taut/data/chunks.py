"""From pieces of any length to checked chunks of one length, read ahead in another thread."""

import collections
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np

from taut.data.ahead import read_ahead
from taut.data.checks import Checker, Columns, check_total
from taut.data.sources import AbstractSource

AHEAD = 2  # chunks that wait, so that memory holds few of them


class Chunk(NamedTuple):
    """Consecutive rows.

    Attributes:
        columns: name -> values, (rows, *shape).
        first: number of the first row, from 0.
        rows: how many.
    """

    columns: dict[str, np.ndarray]
    first: int
    rows: int


class Waiting:
    """Pieces that wait to be taken from the front, by any number of rows.

    Attributes:
        held: rows that wait.
    """

    def __init__(self) -> None:
        self._pieces: collections.deque[Columns] = collections.deque()
        self.held = 0

    def add(self, piece: Columns) -> int:
        """Put a piece at the end; its number of rows."""
        rows = len(next(iter(piece.values())))
        self._pieces.append(piece)
        self.held += rows
        return rows

    def take(self, count: int) -> Columns:
        """The first rows, of which there must be so many."""
        taken, left = [], count
        while left:
            piece = self._pieces.popleft()
            rows = len(next(iter(piece.values())))
            if rows > left:
                self._pieces.appendleft({n: v[left:] for n, v in piece.items()})
                piece, rows = {n: v[:left] for n, v in piece.items()}, left
            taken.append(piece)
            left -= rows
        self.held -= count
        return joined(taken)


def joined(pieces: Sequence[Columns]) -> Columns:
    """Pieces one after the other."""
    if len(pieces) == 1:
        return pieces[0]
    return {n: np.concatenate([p[n] for p in pieces]) for n in pieces[0]}


def read_chunks(source: AbstractSource, wanted: Sequence[str] | None) -> Iterator[Chunk]:
    """Read all rows in chunks of one length.

    All chunks have ``batch_rows`` rows but the last, which takes what is left beside its own and
    so is never short: a short one would be compiled for its own sake, and could be too short to
    be worth a sum for each group.

    Args:
        source: of the rows.
        wanted: columns that the model takes; None for all.

    Raises:
        DataError: if a column holds NaN, infinity or no numbers, if lengths or kinds differ, or
            if there are no rows.
    """
    return read_ahead(_chunks(source, wanted), AHEAD)


def _chunks(source: AbstractSource, wanted: Sequence[str] | None) -> Iterator[Chunk]:
    check, waiting = Checker(wanted, source.fixed), Waiting()
    size, read, emitted = source.batch_rows, 0, 0
    for raw in source.pieces(wanted):
        piece = check(raw, read)
        if piece is None:
            continue
        rows = waiting.add(piece)
        read += rows
        size = size or max(rows, 2)
        while waiting.held >= 2 * size:
            yield Chunk(waiting.take(size), emitted, size)
            emitted += size
    if waiting.held:
        yield Chunk(waiting.take(waiting.held), emitted, read - emitted)
    check_total(read, source.num_rows)
