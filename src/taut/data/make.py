"""The minibatches that fit the data."""

import mmap
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from taut._core.errors import ArgumentError, DataError, listing, nearest
from taut.data.feeds import AbstractFeed, InMemory, rows_of
from taut.data.host import HostBatches
from taut.data.sources import AbstractSource
from taut.data.streamed import Streamed
from taut.problem.data import is_frame, join, name_of, nonfinite, read, split


def make_feed(
    data: Any,
    batch_size: int,
    seed: int = 0,
    *,
    shuffle: bool = True,
    num_rows: int | None = None,
    part: tuple[int, int] = (0, 1),
    wanted: Sequence[str] | None = None,
) -> AbstractFeed:
    """Shuffled minibatches of data of any kind.

    Arrays and data frames stay on the device and batches are gathered there. Arrays mapped from
    files are gathered on the host. Sources are read again each epoch.

    Args:
        data: a mapping of arrays, which may be nested; a pandas or polars data frame; a mapping
            with arrays from ``numpy.load(file, mmap_mode="r")``; or a source such as
            ``taut.data.Parquet(folder)``.
        batch_size: rows of a batch, at least 1; all rows where there are fewer.
        seed: of the shuffles.
        shuffle: False keeps the order of the rows.
        num_rows: rows in all, where a source does not say.
        part: (i, n) gives the i-th of n equal parts of every batch, for process i of n.
        wanted: columns that are taken; None for all.

    Raises:
        ArgumentError: if an argument breaks its rule.
        DataError: if the data cannot be used.
    """
    if isinstance(data, AbstractSource):
        return Streamed(
            data, batch_size, seed, shuffle, num_rows=num_rows, part=part, wanted=wanted
        )
    columns = _columns(data, wanted)
    if num_rows is not None and num_rows != (found := rows_of(columns)):
        raise ArgumentError(f"num_rows is {num_rows!r}, but the data have {found:,} rows")
    arrays, _ = split(columns)
    if any(_is_mapped(array) for array in arrays.values()):
        return HostBatches(columns, batch_size, seed, shuffle, part=part)
    if broken := nonfinite(arrays):
        raise DataError(f"{broken[0]} (counted from 0); drop those rows, or fill the values in")
    return InMemory(columns, batch_size, seed, shuffle, part=part)


def _columns(data: Any, wanted: Sequence[str] | None) -> dict[str, Any]:
    """The arrays of data in memory."""
    if not (is_frame(data) or isinstance(data, Mapping)):
        raise DataError(
            "data must be a mapping of arrays, a data frame or a source such as taut.data.Batches, "
            f"got {type(data).__name__}"
        )
    found = read(data)
    for name in wanted or ():
        if name not in found:
            raise ArgumentError(
                f"wanted has '{name}', which the data lack{nearest(name, found) or ';'} "
                f"they have {listing(found)}"
            )
    # A frame converts a column when it is asked for, so that text which is not wanted is no error.
    arrays, static = split(
        {name: found[name] for name in found if wanted is None or name in wanted}
    )
    if static:
        path, value = next(iter(static.items()))
        raise DataError(
            f"data {name_of(path)} is a {type(value).__name__}, and minibatches need arrays with the rows along "
            "their first axis; write numpy.asarray(...), or leave it out"
        )
    return join(arrays)


def _is_mapped(array: Any) -> bool:
    """True for arrays that lie in a file, and for parts of them."""
    while isinstance(array, np.ndarray):
        if isinstance(array, np.memmap):
            return True
        array = array.base
    return isinstance(array, mmap.mmap)
