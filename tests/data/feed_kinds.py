"""The same rows as every kind of data, and what their minibatches hold.

Column x of row i is 1000 + i, column m is (i, -i): what a batch holds follows from row numbers.
"""

import jax
import numpy as np

import taut
from taut.data import Batches, HostBatches, Parquet


def columns_of(rows):
    number = np.arange(rows)
    return {"x": 1000.0 + number, "g": number % 5, "m": np.stack([number, -number], 1) * 1.0}


def pieces_of(columns, size):
    rows = len(next(iter(columns.values())))
    return [{n: v[i : i + size] for n, v in columns.items()} for i in range(0, rows, size)]


def write(path, columns, row_group_size=7):
    import pyarrow as pa
    from pyarrow import parquet

    if path.exists():  # and perhaps being read
        return
    table = {}
    for name, values in columns.items():
        flat = pa.array(values.ravel())
        wide = values.ndim == 2
        table[name] = pa.FixedSizeListArray.from_arrays(flat, values.shape[1]) if wide else flat
    parquet.write_table(pa.table(table), path, row_group_size=row_group_size)


def mapped(folder, columns):
    found = {}
    for name, values in columns.items():
        if not (folder / f"{name}.npy").exists():  # to write into mapped memory ends the process
            np.save(folder / f"{name}.npy", values)
        found[name] = np.load(folder / f"{name}.npy", mmap_mode="r")
    return found


def feed_of(kind, folder, rows, size, seed=0, columns=None, **options):
    """A feed of one kind."""
    columns = columns or columns_of(rows)
    if kind == "host":
        return HostBatches(columns, size, seed, **options)
    if kind == "memory":
        data = {n: jax.numpy.asarray(v) if n == "x" else v for n, v in columns.items()}
    elif kind in ("pandas", "polars"):
        library = __import__(kind)
        data = library.DataFrame({n: v for n, v in columns.items() if v.ndim == 1})
    elif kind == "mapped":
        data = mapped(folder, columns)
    elif kind == "parquet":
        write(folder / "a.parquet", {n: v[: rows // 3] for n, v in columns.items()})
        write(folder / "b.parquet", {n: v[rows // 3 :] for n, v in columns.items()})
        data = Parquet(folder, buffer_rows=10)
    else:
        batches = pieces_of(columns, 4)
        data = Batches(lambda: iter(batches), num_rows=rows, buffer_rows=10)
    return taut.data.make_feed(data, size, seed, **options)


KINDS = ("memory", "pandas", "polars", "host", "mapped", "parquet", "batches")


def taken(feed, count):
    """The next batches as NumPy: columns, weights and row numbers, (count, rows, ...)."""

    @jax.jit
    def batches(resident, items):
        return jax.vmap(lambda item: feed.batch(resident, item))(items)

    return jax.tree.map(np.asarray, batches(feed.resident, feed.take(count)))


def order_of(feed, epochs=1):
    """Row numbers in the order in which they come, without padding, by epoch."""
    found = []
    for _ in range(epochs):
        items = feed.take(feed.steps_per_epoch)
        found.append(np.asarray(items["rows"])[np.asarray(items["weight"]) > 0])
    return found


def assert_same(first, second):
    """Bit for bit, types included."""
    a, b = jax.tree.leaves_with_path(first), jax.tree.leaves_with_path(second)
    assert [p for p, _ in a] == [p for p, _ in b]
    for (path, x), (_, y) in zip(a, b, strict=True):
        assert x.dtype == y.dtype, path
        np.testing.assert_array_equal(x, y)
