"""Where rows come from: Parquet files, or any iterable of batches."""

import abc
import itertools
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from typing_extensions import override

from taut._core.errors import ArgumentError, DataError, UnsupportedError, listing, nearest
from taut.data.checks import whole_number
from taut.problem.data import is_frame

BATCH_ROWS = 262_144  # some megabytes a column: large enough to keep the processor busy
BUFFER_ROWS = 131_072
READ_BYTES = 1 << 20  # of a file at a time; Arrow would read whole columns of a row group
READ_ROWS = 16_384  # of a block at a time, since several blocks are open
FEW_BLOCKS = 32  # below this row groups are taken in parts, for the sake of the shuffle
MOST_PARTS = 4  # of a row group: to start inside one, what comes before it is read too
Columns = dict[str, Any]


class AbstractSource(abc.ABC):
    """Rows of named columns, read from the first to the last.

    Args:
        fixed: arguments of the model that are no columns.
        batch_rows: rows that are folded at a time, at least 2; None takes the length of the
            first piece.
        buffer_rows: rows among which minibatches are shuffled; memory holds some times as many.
    """

    def __init__(
        self,
        fixed: Mapping[str, Any] | None,
        batch_rows: int | None,
        buffer_rows: int = BUFFER_ROWS,
    ) -> None:
        if fixed is not None and not isinstance(fixed, Mapping):
            raise ArgumentError(
                f"fixed must be a mapping of the model's arguments that are no columns, got {type(fixed).__name__}"
            )
        self.fixed = dict(fixed or {})
        self.batch_rows = None if batch_rows is None else whole_number("batch_rows", batch_rows, 2)
        self.buffer_rows = whole_number("buffer_rows", buffer_rows, 1)

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


class AbstractBlockSource(AbstractSource):
    """Rows that can be read a block at a time, in any order of the blocks."""

    @property
    @abc.abstractmethod
    def block_rows(self) -> tuple[int, ...]:
        """Rows of each block, at least 1; blocks follow each other in the order of the rows."""

    @abc.abstractmethod
    def read_block(self, block: int, start: int, wanted: Sequence[str] | None) -> Iterator[Columns]:
        """Columns of one block by name, a piece of any length at a time.

        Several blocks are read at a time, and threads may read at once.

        Args:
            block: which.
            start: row of the block to begin with.
            wanted: columns that the model takes; None for all. Others may be left out.
        """


class Batches(AbstractSource):
    """Rows from an iterable of batches, or from a function that returns one.

    Args:
        batches: mappings from column names to arrays of one common length, or data frames; or a
            function without arguments that returns an iterable of them, which is asked for
            each time that the rows are read.
        num_rows: rows in all, for the progress display and the weights of minibatches; checked
            at the end.
        batch_rows: rows folded at a time, whatever the length of the batches; None takes that of
            the first.
        buffer_rows: rows among which minibatches are shuffled.
        fixed: arguments of the model that are no columns.
    """

    def __init__(
        self,
        batches: Iterable[Any] | Callable[[], Iterable[Any]],
        num_rows: int | None = None,
        *,
        batch_rows: int | None = None,
        buffer_rows: int = BUFFER_ROWS,
        fixed: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__(fixed, batch_rows, buffer_rows)
        if isinstance(batches, Mapping) or not (callable(batches) or np.iterable(batches)):
            raise ArgumentError(
                "batches must be an iterable of mappings of columns, or a function that returns one, "
                f"got {type(batches).__name__}"
            )
        self._batches, self._begun = batches, False
        self._num_rows = None if num_rows is None else whole_number("num_rows", num_rows, 1)

    @property
    @override
    def num_rows(self) -> int | None:
        """Rows in all, if they were given."""
        return self._num_rows

    @override
    def pieces(self, wanted: Sequence[str] | None) -> Iterator[Columns]:
        found = self._batches() if callable(self._batches) else self._batches
        if not callable(self._batches) and iter(found) is found:
            if self._begun:
                raise DataError(
                    f"batches is a {type(found).__name__}, which can be read once only, and its rows are "
                    "needed again; pass a function that returns a new one each time"
                )
            self._begun = True
        for at, batch in enumerate(found):
            if is_frame(batch):
                yield {str(name): batch[name] for name in batch.columns}  # type: ignore[attr-defined]
            elif isinstance(batch, Mapping):
                yield {str(name): value for name, value in batch.items()}
            else:
                raise DataError(
                    f"batch {at} must be a mapping of columns or a data frame, got {type(batch).__name__}"
                )


class _File(NamedTuple):
    """A Parquet file that was looked into; kept closed, since a folder may hold thousands.

    Attributes:
        path: of the file.
        metadata: its footer.
        names: of its columns.
    """

    path: Path
    metadata: Any
    names: list[str]


class _Block(NamedTuple):
    """Consecutive rows of a row group.

    Attributes:
        file: which of the files.
        group: which of its row groups.
        start: the first row in the group.
        rows: how many.
    """

    file: int
    group: int
    start: int
    rows: int


class Parquet(AbstractBlockSource):
    """Rows of a Parquet file, or of all Parquet files in a folder in the order of their names.

    Needs pyarrow: ``pip install 'taut[parquet]'``. A column of fixed-size lists is a matrix.
    Minibatches are shuffled best where row groups are many; where they are few, parts of them
    are taken.

    Args:
        path: of the file or folder.
        columns: columns that may be read; None for all. Only those that the model takes are read.
        batch_rows: rows read and folded at a time.
        buffer_rows: rows among which minibatches are shuffled, from several row groups.
        fixed: arguments of the model that are no columns, such as a number of groups.
    """

    def __init__(
        self,
        path: str | Path,
        columns: Sequence[str] | None = None,
        batch_rows: int = BATCH_ROWS,
        *,
        buffer_rows: int = BUFFER_ROWS,
        fixed: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__(fixed, batch_rows, buffer_rows)
        self._files = [_looked_into(file) for file in _files_of(Path(path))]
        for file in self._files:
            for name in columns or ():
                if name not in file.names:
                    raise ArgumentError(
                        f"columns has '{name}', which {file.path} lacks{nearest(name, file.names) or ';'} "
                        f"it has {listing(file.names)}"
                    )
        self._columns = None if columns is None else tuple(columns)
        self._blocks = _blocks_of(self._files, batch_rows)

    @property
    @override
    def num_rows(self) -> int | None:
        """Rows in all, from the files' footers."""
        return sum(file.metadata.num_rows for file in self._files)

    @property
    @override
    def block_rows(self) -> tuple[int, ...]:
        """Rows of each row group, or of the parts in which it is taken."""
        return tuple(block.rows for block in self._blocks)

    @override
    def pieces(self, wanted: Sequence[str] | None) -> Iterator[Columns]:
        for file in self._files:
            names = self._names(file, wanted)
            yield from _read(file, names, self.batch_rows or BATCH_ROWS, None)

    @override
    def read_block(self, block: int, start: int, wanted: Sequence[str] | None) -> Iterator[Columns]:
        at = self._blocks[block]
        file, skip, left = self._files[at.file], at.start + start, at.rows - start
        rows = min(self.batch_rows or BATCH_ROWS, READ_ROWS)
        for piece in _read(file, self._names(file, wanted), rows, [at.group], skip):
            yield {n: v[:left] for n, v in piece.items()}
            left -= len(next(iter(piece.values())))
            if left <= 0:
                return

    def _names(self, file: _File, wanted: Sequence[str] | None) -> list[str]:
        known = self._columns or self._files[0].names
        names = [n for n in known if wanted is None or n in wanted]
        if missing := [n for n in names if n not in file.names]:
            raise DataError(
                f"{file.path} lacks column '{missing[0]}', which {self._files[0].path} has"
            )
        return names


def _blocks_of(files: Sequence[_File], batch_rows: int) -> list[_Block]:
    groups = [
        (number, group, file.metadata.row_group(group).num_rows)
        for number, file in enumerate(files)
        for group in range(file.metadata.num_row_groups)
    ]
    most = min(MOST_PARTS, -(-FEW_BLOCKS // max(len(groups), 1)))
    found = []
    for number, group, rows in groups:
        parts = min(most, -(-rows // batch_rows))
        ends = [rows * i // parts for i in range(parts + 1)] if parts else [0]
        found += [_Block(number, group, a, b - a) for a, b in itertools.pairwise(ends)]
    return found


def _read(
    file: _File, names: list[str], rows: int, groups: list[int] | None, skip: int = 0
) -> Iterator[Columns]:
    """Pieces of a file or of row groups, after some rows that are passed over."""
    with _open(file.path, file.metadata) as opened:
        for batch in opened.iter_batches(batch_size=rows, columns=names, row_groups=groups):
            passed = min(skip, len(batch))
            skip -= passed
            if passed < len(batch):
                batch = batch.slice(passed)
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


def _looked_into(file: Path) -> _File:
    with _open(file, None) as opened:
        return _File(file, opened.metadata, opened.schema_arrow.names)


def _open(file: Path, metadata: Any) -> Any:
    try:
        from pyarrow import ArrowException, parquet
    except ImportError as error:
        raise UnsupportedError(
            "taut.data.Parquet needs pyarrow: pip install 'taut[parquet]'"
        ) from error
    try:
        # pyarrow would otherwise keep the bytes of row groups that have been read.
        options = {"pre_buffer": False, "buffer_size": READ_BYTES}
        return parquet.ParquetFile(file, metadata=metadata, **options)
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
