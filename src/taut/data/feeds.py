"""Shuffled minibatches of one size, as compiled loops take them."""

import abc
import dataclasses
import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array
from typing_extensions import override

from taut._core.errors import ArgumentError, DataError
from taut.data.checks import at_use, whole_number

FAR = np.iinfo(np.int32).max  # rows whose numbers need no more than 32 bits


class Batch(NamedTuple):
    """Some rows of the data.

    Attributes:
        columns: arrays with the rows along their first axis, (size, ...), nested like the data.
        weight: for each row how many rows of the whole it stands for, (size,); 0 for padding.
            They sum to the number of rows in all, so that weighted sums over a batch are unbiased
            for sums over all rows.
        rows: numbers of the rows, (size,); those of padding repeat some of the batch.
    """

    columns: Any
    weight: Array
    rows: Array


class AbstractFeed(abc.ABC):
    """Minibatches without end, epoch after epoch.

    An epoch visits every row once. Its last batch may be padded, so that all have one shape. What
    a feed gives depends on its seed and its position only, which ``state`` and ``restore`` carry
    from one process to the next.

    Attributes:
        num_rows: rows in all.
        batch_size: rows of a batch, padding included; of a feed that gives a part of every batch,
            rows of the whole batch.
    """

    num_rows: int
    batch_size: int

    @property
    def steps_per_epoch(self) -> int:
        """Batches that visit all rows once."""
        return math.ceil(self.num_rows / self.batch_size)

    @property
    @abc.abstractmethod
    def resident(self) -> Any:
        """Arrays that stay on the device, an argument of the compiled loop."""

    @abc.abstractmethod
    def take(self, count: int) -> Any:
        """The next batches: a pytree of arrays, (count, rows, ...), to scan over.

        Args:
            count: how many, at least 1.
        """

    @abc.abstractmethod
    def batch(self, resident: Any, item: Any) -> Batch:
        """One batch from the resident arrays and one element of what ``take`` gave (traced).

        Args:
            resident: what ``resident`` gave.
            item: an element, without the leading axis.
        """

    @abc.abstractmethod
    def state(self) -> dict[str, int]:
        """Where the feed is: the epoch, and the batches of it that were taken."""

    @abc.abstractmethod
    def restore(self, state: dict[str, int]) -> None:
        """Go to a position.

        Args:
            state: what ``state`` gave, here or in another process.
        """


# --- how rows become batches -----------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class Layout:
    """How the rows of an epoch become batches, and which rows of every batch are given.

    Attributes:
        num_rows: rows in all.
        batch_size: rows of a whole batch.
        start: first row of every batch that is given.
        stop: the row after the last that is given.
        seed: of the shuffles.
        shuffle: False keeps the order of the rows.
    """

    num_rows: int
    batch_size: int
    start: int
    stop: int
    seed: int
    shuffle: bool

    @staticmethod
    def make(
        num_rows: int, batch_size: int, seed: int, shuffle: bool, part: tuple[int, int]
    ) -> "Layout":
        """Check the arguments of a feed; a batch has no more rows than there are.

        Raises:
            ArgumentError: if an argument breaks its rule.
        """
        size = min(check_batch_size(batch_size), num_rows)
        index, parts = part
        if not 0 <= index < parts:
            raise ArgumentError(f"part must be (i, n) with 0 <= i < n, got {part!r}")
        if size % parts:
            why = (
                ""
                if size == batch_size
                else f", all the rows there are, of batch_size={batch_size}"
            )
            raise ArgumentError(
                f"batch_size must be a multiple of the {parts} parts that part={part!r} asks for, "
                f"got {size}{why}"
            )
        each = size // parts
        seed = whole_number("seed", seed, 0)
        return Layout(num_rows, size, index * each, (index + 1) * each, seed, shuffle)

    @property
    def steps(self) -> int:
        """Batches of an epoch."""
        return math.ceil(self.num_rows / self.batch_size)

    def order(self, count: int, *key: int) -> np.ndarray:
        """Numbers from 0 in the order that a key stands for."""
        numbers = np.arange(count, dtype=np.int32 if count <= FAR else np.int64)
        if not self.shuffle:
            return numbers
        return np.random.default_rng((self.seed, *key)).permutation(numbers)

    def epoch(self, epoch: int) -> np.ndarray:
        """All rows in the order of an epoch, of feeds that can go to any row."""
        return self.order(self.num_rows, epoch, 23)

    def cut(self, order: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Cut what consecutive batches of one epoch hold, the last of which may be short.

        Args:
            order: elements of the batches, one after the other.

        Returns:
            the elements and the weights of the rows that are given, (batches, rows).
        """
        size = self.batch_size
        num = math.ceil(len(order) / size)
        real = np.full((num, 1), size)
        real[-1] = len(order) - (num - 1) * size
        padding = np.resize(order[(num - 1) * size :], size)[int(real[-1, 0]) :]
        whole = np.concatenate([order, padding]).reshape(num, size)
        weight = weights(self.num_rows, size, real)
        return whole[:, self.start : self.stop], np.asarray(weight)[:, self.start : self.stop]


class AbstractLaidOut(AbstractFeed):
    """A feed that is at some batch of some epoch of a layout."""

    def __init__(self, layout: Layout) -> None:
        self.num_rows, self.batch_size = layout.num_rows, layout.batch_size
        self._layout = layout
        self._epoch, self._step = 0, 0

    @abc.abstractmethod
    def _next(self, most: int) -> Any:
        """The next batches, at least 1 and all of this epoch, in types of the host."""

    @abc.abstractmethod
    def _moved(self) -> None:
        """Forget what belongs to another place."""

    @override
    def take(self, count: int) -> Any:
        left, parts, at = whole_number("count", count, 1), [], self.state()
        try:
            while left:
                if self._step == self.steps_per_epoch:
                    self._epoch, self._step = self._epoch + 1, 0
                part = self._next(min(left, self.steps_per_epoch - self._step))
                self._step += len(part["rows"])
                left -= len(part["rows"])
                parts.append(jax.tree_util.tree_map_with_path(_at_use, part))
        except BaseException:  # an interrupt too: nothing was given, so nothing counts as taken
            self._epoch, self._step = at["epoch"], at["step"]
            self._moved()
            raise
        return parts[0] if len(parts) == 1 else jax.tree.map(_one_after_the_other, *parts)

    @override
    def state(self) -> dict[str, int]:
        return {"epoch": self._epoch, "step": self._step}

    @override
    def restore(self, state: dict[str, int]) -> None:
        if set(state) != {"epoch", "step"}:
            raise ArgumentError(f"state must be what a feed's state() gave, got {state!r}")
        epoch, step = (whole_number(f"state['{n}']", state[n], 0) for n in ("epoch", "step"))
        if step > self.steps_per_epoch:
            raise ArgumentError(
                f"state is that of other data or another batch_size: it is at batch {step:,} of an epoch, "
                f"which has {self.steps_per_epoch:,} here"
            )
        if (epoch, step) != (self._epoch, self._step):
            self._epoch, self._step = epoch, step
            self._moved()


class InMemory(AbstractLaidOut):
    """Rows of arrays that fit into memory; batches are gathered on the device.

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
        super().__init__(Layout.make(rows_of(columns), batch_size, seed, shuffle, part))
        self._columns = jax.tree_util.tree_map_with_path(_on_device, columns)
        self._order: tuple[int, np.ndarray] | None = None

    @property
    @override
    def resident(self) -> Any:
        return self._columns

    @override
    def batch(self, resident: Any, item: Any) -> Batch:
        columns = jax.tree.map(lambda x: x[item["rows"]], resident)
        return Batch(columns, item["weight"], item["rows"])

    @override
    def _next(self, most: int) -> Any:
        if self._order is None or self._order[0] != self._epoch:
            self._order = self._epoch, self._layout.epoch(self._epoch)
        first = self._step * self.batch_size
        rows, weight = self._layout.cut(self._order[1][first : first + most * self.batch_size])
        return {"rows": rows, "weight": weight}

    @override
    def _moved(self) -> None:
        pass


def weights(num_rows: int, size: int, real: Any) -> Array | np.ndarray:
    """Weights of a batch whose first ``real`` rows are no padding; in NumPy if ``real`` is."""
    xp = jnp if isinstance(real, jax.Array) else np
    return xp.where(xp.arange(size) < real, num_rows / real, 0.0)


def check_batch_size(batch_size: Any) -> int:
    """The number of rows in a batch.

    Raises:
        ArgumentError: if it is not a whole number of at least 1.
    """
    whole = isinstance(batch_size, int | np.integer) and not isinstance(batch_size, bool)
    if not whole or batch_size < 1:
        raise ArgumentError(
            f"batch_size must be a whole number of rows, at least 1, got {batch_size!r}"
        )
    return int(batch_size)


def rows_of(columns: Any) -> int:
    """The number of rows of columns.

    Raises:
        DataError: if they differ in it, or have none.
    """
    found = jax.tree_util.tree_flatten_with_path(columns)[0]
    lengths = {name_at(path): np.shape(x)[:1] for path, x in found}
    if len(set(lengths.values())) != 1 or () in lengths.values():
        shown = ", ".join(f"{n}: {x[0] if x else 'a single value'}" for n, x in lengths.items())
        raise DataError(
            f"minibatches need arrays with one common number of rows, got {shown or 'no arrays'}"
        )
    (length,) = next(iter(lengths.values()))
    if not length:
        raise DataError("the data have no rows")
    return length


def name_at(path: Any) -> str:
    """A path in nested columns as the user would write it: ``'data'['y']``."""
    shown = jax.tree_util.keystr(path)
    first, closed, rest = shown.partition("]")
    return first[1:] + rest if closed else shown or "the array"


def _at_use(path: Any, x: np.ndarray) -> np.ndarray:
    return at_use(x, f"column {name_at(path[1:])}" if path[0].key == "columns" else "rows")


def _on_device(path: Any, x: Any) -> Array:
    return jnp.asarray(at_use(x, f"column {name_at(path)}") if isinstance(x, np.ndarray) else x)


def _one_after_the_other(*parts: np.ndarray) -> np.ndarray:
    return np.concatenate(parts)
