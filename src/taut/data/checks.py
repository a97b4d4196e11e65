"""What columns must be like, whichever source they come from."""

from collections.abc import Mapping, Sequence
from typing import Any

import jax
import numpy as np

from taut._core.errors import ArgumentError, DataError, listing
from taut.problem.data import read

WIDE = {"i": np.int64, "u": np.int64, "f": np.float64, "b": np.bool_}
Columns = dict[str, np.ndarray]


def whole_number(name: str, value: Any, least: int) -> int:
    """An argument that counts something.

    Raises:
        ArgumentError: if it is not a whole number of at least ``least``.
    """
    whole = isinstance(value, int | np.integer) and not isinstance(value, bool)
    if not whole or value < least:
        raise ArgumentError(f"{name} must be a whole number of at least {least}, got {value!r}")
    return int(value)


class Checker:
    """Turns pieces of a source into arrays that agree with each other.

    Numbers become doubles and 64-bit integers, so that pieces of a column have one type.

    Args:
        wanted: columns that are taken; None for all.
        fixed: names that must be no columns.
        single: whether floats of at most 32 bits stay single precision.
    """

    def __init__(
        self, wanted: Sequence[str] | None, fixed: Mapping[str, Any], single: bool = False
    ) -> None:
        self._wanted, self._fixed, self._single = wanted, fixed, single
        self._first: Columns = {}

    def __call__(self, raw: Mapping[str, Any], row: int) -> Columns | None:
        """The piece whose first row has this number in the source; None if it has no rows.

        Raises:
            DataError: if a column holds NaN, infinity or no numbers, or if lengths or kinds differ.
        """
        names = [n for n in raw if self._wanted is None or n in self._wanted]
        if not names:
            raise DataError(f"none of the columns {listing(raw)} is an argument of the model")
        if clash := [n for n in names if n in self._fixed]:
            raise DataError(
                f"'{clash[0]}' is a column and in fixed too; leave it out of one of them"
            )
        if all(_length(raw[n], n) == 0 for n in names):
            return None
        piece = {n: self._column(raw[n], n, row) for n in names}
        _agree(piece, self._first, row)
        self._first = self._first or {n: v[:0].copy() for n, v in piece.items()}
        return {n: piece[n] for n in self._first}

    def _column(self, values: Any, name: str, row: int) -> np.ndarray:
        kind = str(getattr(values, "dtype", "")).lower()
        if kind.startswith(("category", "categorical", "enum")):
            raise DataError(
                f"column '{name}' holds categories, whose codes may differ from batch to batch; "
                "pass integers that mean the same in all of them"
            )
        array = read({name: values})[name]
        try:
            array = np.asarray(array)  # lists count as static and were left alone
        except ValueError as error:
            raise DataError(
                f"column '{name}' is ragged: its rows have different shapes, in the batch at row {row:,}; "
                "pad them to one shape"
            ) from error
        array = read({name: array})[name]
        single = self._single and array.dtype.kind == "f" and array.dtype.itemsize <= 4
        array = array.astype(np.float32 if single else WIDE[array.dtype.kind], copy=False)
        check_finite(array, f"'{name}'", range(row, row + len(array)))
        return array


def _length(values: Any, name: str) -> int:
    try:
        return len(values)
    except TypeError as error:
        raise DataError(f"column '{name}' is a single value; pass it in fixed") from error


def _agree(piece: Columns, first: Columns, row: int) -> None:
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
                f"elsewhere {old.dtype} of shape {old.shape[1:]}; write it in one form"
            )


def check_finite(array: np.ndarray, name: str, rows: Sequence[int] | np.ndarray) -> None:
    """Refuse NaN and infinity.

    Args:
        array: values, the rows along the first axis.
        name: of the column, in quotes.
        rows: their numbers in the source.

    Raises:
        DataError: naming column and row.
    """
    if array.dtype.kind != "f" or np.isfinite(array).all():
        return
    bad = np.argwhere(~np.isfinite(array))[0]
    kind = "NaN" if np.isnan(array[tuple(bad)]) else "infinite"
    raise DataError(
        f"column {name} is {kind} or missing at row {int(rows[int(bad[0])]):,} (counted from 0); "
        "drop that row, or fill the value in"
    )


def check_total(rows: int, declared: int | None, more: bool = False) -> None:
    """Refuse a source that gave another number of rows than it said, or none.

    Args:
        rows: how many it gave.
        declared: how many it said; None if it did not say.
        more: whether it has more, uncounted.

    Raises:
        DataError: naming both numbers.
    """
    if not rows:
        raise DataError("the source has no rows; a fit needs at least two")
    if declared is not None and rows != declared:
        raise DataError(
            f"the source gave {'at least ' * more}{rows:,} rows, but num_rows says {declared:,}"
        )


def at_use(array: np.ndarray, name: str) -> np.ndarray:
    """An array in the type that JAX computes with at present, so that it is copied once only.

    JAX would cut integers that do not fit to their last 32 bits, without a word.

    Args:
        array: values.
        name: what to call it.

    Raises:
        DataError: if integers do not fit.
    """
    dtype = jax.dtypes.canonicalize_dtype(array.dtype)
    if dtype == array.dtype:
        return array
    if array.dtype.kind in "iu" and array.size:
        limits, worst = np.iinfo(dtype), max(int(array.max()), int(array.min()), key=abs)
        if not limits.min <= worst <= limits.max:
            raise DataError(
                f"{name} holds {worst:,}, which does not fit into the {limits.bits} bits of JAX's integers; "
                "number from 0, or call jax.config.update('jax_enable_x64', True)"
            )
    return array.astype(dtype)
