"""From pieces of any length to checked chunks of one length, read ahead in another thread."""

import queue
import threading
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np

from taut._core.errors import DataError, listing
from taut.data.sources import AbstractSource
from taut.problem.data import read

AHEAD = 2  # chunks that wait, so that memory holds few of them
WIDE = {"i": np.int64, "u": np.int64, "f": np.float64, "b": np.bool_}


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
    return _ahead(_chunks(source, wanted))


def _chunks(source: AbstractSource, wanted: Sequence[str] | None) -> Iterator[Chunk]:
    size, waiting, held, emitted = source.batch_rows, [], 0, 0
    for piece in _checked(source, wanted):
        rows = len(next(iter(piece.values())))
        size = size or max(rows, 2)
        waiting.append(piece)
        held += rows
        while held >= 2 * size:
            chunk, waiting = _split(waiting, size)
            yield Chunk(chunk, emitted, size)
            held, emitted = held - size, emitted + size
    if not held:
        raise DataError("the source has no rows; a fit needs at least two")
    yield Chunk(_joined(waiting), emitted, held)
    if source.num_rows is not None and emitted + held != source.num_rows:
        raise DataError(
            f"the source gave {emitted + held:,} rows, but num_rows says {source.num_rows:,}"
        )


def _split(waiting: list[Any], size: int) -> tuple[dict[str, np.ndarray], list[Any]]:
    """The first rows, and pieces with the rest."""
    taken, count = [], 0
    while count < size:
        piece = waiting[0]
        rows = len(next(iter(piece.values())))
        if count + rows <= size:
            taken.append(waiting.pop(0))
            count += rows
        else:
            cut = size - count
            taken.append({n: v[:cut] for n, v in piece.items()})
            waiting[0] = {n: v[cut:] for n, v in piece.items()}
            count = size
    return _joined(taken), waiting


def _joined(pieces: list[Any]) -> dict[str, np.ndarray]:
    if len(pieces) == 1:
        return pieces[0]
    return {n: np.concatenate([p[n] for p in pieces]) for n in pieces[0]}


# --- checking --------------------------------------------------------------------------------------


def _checked(
    source: AbstractSource, wanted: Sequence[str] | None
) -> Iterator[dict[str, np.ndarray]]:
    """Pieces with rows, as arrays of doubles, 64-bit integers or truth values."""
    first: dict[str, np.ndarray] = {}
    row = 0
    for raw in source.pieces(wanted):
        names = [n for n in raw if wanted is None or n in wanted]
        if not names:
            raise DataError(f"none of the columns {listing(raw)} is an argument of the model")
        if clash := [n for n in names if n in source.fixed]:
            raise DataError(
                f"'{clash[0]}' is a column and in fixed too; leave it out of one of them"
            )
        if all(len(raw[n]) == 0 for n in names):
            continue
        piece = {n: _column(raw[n], n, row) for n in names}
        _agree(piece, first, row)
        first = first or {n: v[:0] for n, v in piece.items()}
        yield {n: piece[n] for n in first}
        row += len(next(iter(piece.values())))


def _column(values: Any, name: str, row: int) -> np.ndarray:
    if str(getattr(values, "dtype", "")).lower().startswith(("category", "categorical", "enum")):
        raise DataError(
            f"column '{name}' holds categories, whose codes may differ from batch to batch; "
            "pass integers that mean the same in all of them"
        )
    array = read({name: values})[name]
    array = read({name: np.asarray(array)})[name]  # lists count as static and were left alone
    if array.ndim == 0:
        raise DataError(f"column '{name}' is a single value; pass it in fixed")
    array = array.astype(WIDE[array.dtype.kind], copy=False)
    if array.dtype.kind == "f" and not np.isfinite(array).all():
        bad = np.argwhere(~np.isfinite(array))[0]
        kind = "NaN" if np.isnan(array[tuple(bad)]) else "infinite"
        raise DataError(
            f"column '{name}' is {kind} or missing at row {row + int(bad[0]):,} (counted from 0); "
            "drop that row, or fill the value in"
        )
    return array


def _agree(piece: dict[str, np.ndarray], first: dict[str, np.ndarray], row: int) -> None:
    """Refuse columns of different lengths, and what differs from the first piece."""
    lengths = {n: len(v) for n, v in piece.items()}
    if len(set(lengths.values())) > 1:
        raise DataError(f"columns have different lengths in the batch at row {row:,}: {lengths}")
    if not first:
        return
    if set(piece) != set(first):
        odd = sorted(set(piece) ^ set(first))
        raise DataError(f"column '{odd[0]}' is not in all batches; it differs at row {row:,}")
    for name, values in piece.items():
        old = first[name]
        if values.dtype != old.dtype or values.shape[1:] != old.shape[1:]:
            raise DataError(
                f"column '{name}' holds {values.dtype} of shape {values.shape[1:]} from row {row:,} on, "
                f"before that {old.dtype} of shape {old.shape[1:]}; write it in one form"
            )


# --- reading ahead ---------------------------------------------------------------------------------


def _ahead(chunks: Iterator[Chunk]) -> Iterator[Chunk]:
    """Read in a thread of its own, at most a few chunks ahead; it ends with its reader."""
    ready: queue.Queue[Any] = queue.Queue(AHEAD)
    ended = threading.Event()

    def offer(item: Any) -> bool:
        while not ended.is_set():
            try:
                ready.put(item, timeout=0.1)
            except queue.Full:
                continue
            return True
        return False

    def work() -> None:
        try:
            for chunk in chunks:
                if not offer((chunk, None)):
                    return
            offer((None, None))
        except BaseException as error:  # handed to the reader, who raises it
            offer((None, error))

    threading.Thread(target=work, name="taut-read", daemon=True).start()
    try:
        while True:
            chunk, error = ready.get()
            if error is not None:
                raise error
            if chunk is None:
                return
            yield chunk
    finally:
        ended.set()
