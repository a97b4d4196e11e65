"""Rows for training: from arrays, frames, mapped files and sources, on one device or a mesh."""

import dataclasses
import inspect
from collections.abc import Callable, Mapping
from typing import Any

import jax
import numpy as np

from taut._core.errors import DataError
from taut.data import AbstractFeed, AbstractSource, HostBatches, make_feed
from taut.deep.rows import RowModel
from taut.problem.data import read
from taut.problem.numpyro_model import bind_arguments
from taut.training.placing import Placing

EXAMPLES = 64  # rows of a source on which the model is read
MONITORED = 20_000  # rows on which the bound is read at the end


@dataclasses.dataclass(frozen=True, eq=False)
class Supply:
    """Data, opened.

    Attributes:
        data: what the user gave.
        arguments: of the model: all of them; of a source, its first rows.
        num_examples: rows of the arguments, where a source gave them; None: to be found.
        num_rows: rows of the source in all; None for arrays.
    """

    data: Any
    arguments: Mapping[str, Any]
    num_examples: int | None
    num_rows: int | None

    def feed(
        self, rows: RowModel, size: int, seed: int, mesh: Any, shuffle: bool = True
    ) -> AbstractFeed:
        """Minibatches; on a mesh, this process's part of them.

        Raises:
            ArgumentError: if a batch cannot be shared out over the mesh.
            DataError: if a value is NaN or infinite.
        """
        placing = Placing(mesh)
        placing.check(size)
        if isinstance(self.data, AbstractSource):
            return make_feed(
                self.data, size, seed, shuffle=shuffle, part=placing.parts, wanted=rows.row_names
            )
        columns = {n: self.arguments[n] for n in rows.row_names}
        feed = make_feed(columns, size, seed, shuffle=shuffle)
        if mesh is None or isinstance(feed, HostBatches):
            return make_feed(columns, size, seed, shuffle=shuffle, part=placing.parts)
        return HostBatches(columns, size, seed, shuffle, part=placing.parts)

    def monitored(self, rows: RowModel, size: int, seed: int) -> dict[str, Any]:
        """Arguments with rows: all rows, or so many that a bound can be read on them."""
        if isinstance(self.data, AbstractSource):
            return _first_rows(self.data, rows.row_names, MONITORED, seed)
        columns = {n: self.arguments[n] for n in rows.row_names}
        count = len(jax.tree.leaves(columns)[0])
        if count <= MONITORED:
            return jax.tree.map(np.asarray, columns)
        index = np.sort(np.random.default_rng(seed).permutation(count)[:MONITORED])
        return jax.tree.map(lambda x: np.asarray(x[index]), columns)


def open_data(model: Callable[..., Any], data: Any) -> Supply:
    """Match data to the model's arguments.

    Raises:
        DataError: if an argument is missing, or the source has no rows.
    """
    if not isinstance(data, AbstractSource):
        return Supply(data, bind_arguments(model, read(data)), None, None)
    names = [n for n in inspect.signature(model).parameters if n not in data.fixed]
    columns = _first_rows(data, names, EXAMPLES, 0)
    arguments = bind_arguments(model, {**data.fixed, **columns})
    if data.num_rows is None:
        raise DataError(
            "a source that does not know its number of rows must be given it: Batches(..., num_rows=N); minibatches "
            "are scaled to N rows"
        )
    return Supply(data, arguments, len(jax.tree.leaves(columns)[0]), data.num_rows)


def _first_rows(source: AbstractSource, names: Any, most: int, seed: int) -> dict[str, Any]:
    """Some rows of a source."""
    size = min(most, 1000)
    feed = make_feed(source, size, seed, wanted=list(names))
    count = max(1, min(most, feed.num_rows) // feed.batch_size)
    items = feed.take(count)
    parts = [feed.batch((), jax.tree.map(lambda x, i=i: x[i], items)) for i in range(count)]
    real = [np.asarray(p.weight) > 0 for p in parts]
    chosen = [
        jax.tree.map(lambda x, r=r: np.asarray(x)[r], p.columns)
        for p, r in zip(parts, real, strict=True)
    ]
    return jax.tree.map(lambda *xs: np.concatenate(xs), *chosen)
