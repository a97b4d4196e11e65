"""Where rows come from: Parquet files, or any iterable of batches."""

import abc
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from typing_extensions import override

from taut._core.errors import ArgumentError, DataError, UnsupportedError, listing, nearest
from taut.problem.data import is_frame

BATCH_ROWS = 262_144  # some megabytes a column: large enough to keep the processor busy
Columns = dict[str, Any]


class AbstractSource(abc.ABC):
    """Rows of named columns, read from the first to the last.

    Args:
        fixed: arguments of the model that are no columns.
        batch_rows: rows that are folded at a time, at least 2; None takes the length of the
            first piece.
    """

    def __init__(self, fixed: Mapping[str, Any] | None, batch_rows: int | None) -> None:
        whole = isinstance(batch_rows, int | np.integer) and not isinstance(batch_rows, bool)
        if batch_rows is not None and not (whole and batch_rows >= 2):
            raise ArgumentError(
                f"batch_rows must be a whole number of at least 2, got {batch_rows!r}"
            )
        if fixed is not None and not isinstance(fixed, Mapping):
            raise ArgumentError(
                f"fixed must be a mapping of the model's arguments that are no columns, got {type(fixed).__name__}"
            )
        self.fixed = dict(fixed or {})
        self.batch_rows = None if batch_rows is None else int(batch_rows)

    @property
    @abc.abstractmethod
    def num_rows(self) -> int | None:
        """Rows in all, where that is known before they are read."""

    @abc.abstractmethod
    def pieces(self, wanted: Sequence[str] | None) -> Iterator[Columns]:
        """Columns by name, a piece of any length at a time.

        Args:
            wanted: columns that the model takes; None for all. Others may be left out.
        """


class Batches(AbstractSource):
    """Rows from an iterable of batches, or from a function that returns one.

    Args:
        batches: mappings from column names to arrays of one common length, or data frames; or a
            function without arguments that returns an iterable of them.
        num_rows: rows in all, for the progress display; checked at the end.
        batch_rows: rows folded at a time, whatever the length of the batches; None takes that of
            the first.
        fixed: arguments of the model that are no columns.
    """

    def __init__(
        self,
        batches: Iterable[Mapping[str, Any]] | Callable[[], Iterable[Mapping[str, Any]]],
        num_rows: int | None = None,
        *,
        batch_rows: int | None = None,
        fixed: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__(fixed, batch_rows)
        if isinstance(batches, Mapping) or not (callable(batches) or np.iterable(batches)):
            raise ArgumentError(
                "batches must be an iterable of mappings of columns, or a function that returns one, "
                f"got {type(batches).__name__}"
            )
        self._batches, self._num_rows = batches, num_rows

    @property
    @override
    def num_rows(self) -> int | None:
        """Rows in all, if they were given."""
        return self._num_rows

    @override
    def pieces(self, wanted: Sequence[str] | None) -> Iterator[Columns]:
        found = self._batches() if callable(self._batches) else self._batches
        for at, batch in enumerate(found):
            if is_frame(batch):
                yield {str(name): batch[name] for name in batch.columns}  # type: ignore[attr-defined]
            elif isinstance(batch, Mapping):
                yield {str(name): value for name, value in batch.items()}
            else:
                raise DataError(
                    f"batch {at} must be a mapping of columns or a data frame, got {type(batch).__name__}"
                )


class Parquet(AbstractSource):
    """Rows of a Parquet file, or of all Parquet files in a folder in the order of their names.

    Needs pyarrow: ``pip install 'taut[parquet]'``. A column of fixed-size lists is a matrix.

    Args:
        path: of the file or folder.
        columns: columns that may be read; None for all. Only those that the model takes are read.
        batch_rows: rows read and folded at a time.
        fixed: arguments of the model that are no columns, such as a number of groups.
    """

    def __init__(
        self,
        path: str | Path,
        columns: Sequence[str] | None = None,
        batch_rows: int = BATCH_ROWS,
        *,
        fixed: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__(fixed, batch_rows)
        self._files = [_opened(file) for file in _files_of(Path(path))]
        for file, opened in self._files:
            known = opened.schema_arrow.names
            for name in columns or ():
                if name not in known:
                    raise ArgumentError(
                        f"columns has '{name}', which {file} lacks{nearest(name, known) or ';'} "
                        f"it has {listing(known)}"
                    )
        self._columns = None if columns is None else tuple(columns)

    @property
    @override
    def num_rows(self) -> int | None:
        """Rows in all, from the files' footers."""
        return sum(opened.metadata.num_rows for _, opened in self._files)

    @override
    def pieces(self, wanted: Sequence[str] | None) -> Iterator[Columns]:
        known = self._columns or self._files[0][1].schema_arrow.names
        names = [n for n in known if wanted is None or n in wanted]
        for file, opened in self._files:
            if missing := [n for n in names if n not in opened.schema_arrow.names]:
                raise DataError(
                    f"{file} lacks column '{missing[0]}', which {self._files[0][0]} has"
                )
            for batch in opened.iter_batches(batch_size=self.batch_rows, columns=names):
                yield {n: _array(batch.column(n), n) for n in names}


def _files_of(path: Path) -> list[Path]:
    if not path.exists():
        raise ArgumentError(
            f"path must be a Parquet file or a folder of them, {path} does not exist"
        )
    files = sorted(path.rglob("*.parquet")) if path.is_dir() else [path]
    if not files:
        raise ArgumentError(f"path is a folder without a file named *.parquet: {path}")
    return files


def _opened(file: Path) -> tuple[Path, Any]:
    try:
        from pyarrow import ArrowException, parquet
    except ImportError as error:
        raise UnsupportedError(
            "taut.data.Parquet needs pyarrow: pip install 'taut[parquet]'"
        ) from error
    try:
        # pyarrow would otherwise keep the bytes of row groups that have been read.
        return file, parquet.ParquetFile(file, pre_buffer=False)
    except (ArrowException, OSError) as error:
        raise DataError(f"{file} cannot be read as Parquet: {error}") from error


def _array(column: Any, name: str) -> np.ndarray:
    """A column as NumPy: missing numbers become NaN, fixed-size lists rows of a matrix."""
    import pyarrow

    kind = column.type
    if pyarrow.types.is_dictionary(kind):
        raise DataError(
            f"column '{name}' holds categories, whose codes may differ from one part of a file to the next; "
            "write it as integers"
        )
    if pyarrow.types.is_fixed_size_list(kind):
        if column.null_count:
            raise DataError(
                f"column '{name}' has {column.null_count} missing lists; drop those rows"
            )
        # Not .values, which ignores that the batch may be a slice of a longer column.
        return _array(column.flatten(), name).reshape(len(column), kind.list_size)
    if column.null_count and (pyarrow.types.is_boolean(kind) or pyarrow.types.is_integer(kind)):
        column = column.cast(pyarrow.float64(), safe=False)
    return column.to_numpy(zero_copy_only=False)
