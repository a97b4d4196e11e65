"""Minibatches of sources: how well blocks are shuffled, and what is refused."""

import os

import jax
import numpy as np
import pytest
from feed_kinds import columns_of, order_of, pieces_of, write

import taut
from taut._core.errors import ArgumentError, DataError
from taut.data import AbstractBlockSource, Batches, HostBatches, Parquet

pytest.importorskip("pyarrow")
ROWS = 20_000


def written(path, rows=ROWS, group=50):
    write(path, {"x": np.arange(rows, dtype=np.float32)}, group)
    return path


def correlation(order):
    return np.corrcoef(np.arange(len(order)), order)[0, 1]


@pytest.mark.stat
def test_blocks_are_shuffled(tmp_path):
    """Rank correlation of row and time.

    400 blocks in random order: sd 0.05, so that 0.2 is passed by 1 seed of 10^4; a shuffle inside
    windows of 2,000 rows alone would leave more than 0.99.
    """
    source = Parquet(written(tmp_path / "x.parquet"), buffer_rows=2000)
    feed = taut.data.make_feed(source, 64, seed=4)
    first, second = order_of(feed, 2)
    (other,) = order_of(taut.data.make_feed(source, 64, seed=5))
    for order in (first, second, other):
        assert abs(correlation(order)) < 0.2
    for a, b in ((first, second), (first, other)):
        assert abs(np.corrcoef(a, b)[0, 1]) < 0.2
        # Blocks are not only moved: rows that were neighbours are so no more. By chance 40 are.
        assert np.sum(np.abs(np.diff(a)) == 1) < 200


def test_a_window_has_rows_of_several_blocks(tmp_path):
    """With 8 blocks open at a time, whatever their size, each gives an eighth of a window."""
    source = Parquet(written(tmp_path / "x.parquet", group=2000), buffer_rows=1000)
    (order,) = order_of(taut.data.make_feed(source, 100, seed=1))
    assert len(source.block_rows) == 10
    np.testing.assert_array_equal(np.sort(np.bincount(order[:1000] // 2000))[-8:], [125] * 8)


def test_one_row_group_is_taken_in_parts(tmp_path):
    """In four of them: the first window has rows of every quarter."""
    path = written(tmp_path / "x.parquet", group=ROWS)
    source = Parquet(path, buffer_rows=1000, batch_rows=1000)
    assert source.block_rows == (5000,) * 4
    items = taut.data.make_feed(source, 100, seed=1).take(ROWS // 100)
    np.testing.assert_array_equal(items["columns"]["x"], items["rows"])
    order = items["rows"].ravel()
    assert list(np.bincount(order[:1000] // 5000)) == [250] * 4
    np.testing.assert_array_equal(np.sort(order), np.arange(ROWS))
    resumed = taut.data.make_feed(source, 100, seed=1)
    resumed.restore({"epoch": 0, "step": 125})
    items = resumed.take(75)
    np.testing.assert_array_equal(items["columns"]["x"], items["rows"])
    np.testing.assert_array_equal(items["rows"].ravel(), order[12_500:])


def test_batches_are_shuffled_inside_a_buffer():
    """600 rows at a time, whole batches of 200 of the 700 that the buffer may hold."""
    rows = columns_of(3000)
    source = Batches(pieces_of(rows, 170), num_rows=3000, buffer_rows=700)
    first, second = order_of(taut.data.make_feed(source, 200), 2)
    for order in (first, second):
        for at in range(0, 3000, 600):
            window = order[at : at + 600]
            np.testing.assert_array_equal(np.sort(window), np.arange(at, at + 600))
            assert not np.array_equal(window, np.arange(at, at + 600))
    assert not np.array_equal(first, second)


class Counted(AbstractBlockSource):
    """Blocks of 10 rows that note which rows were read."""

    def __init__(self, blocks, buffer_rows):
        super().__init__(None, None, buffer_rows)
        self.blocks, self.read = blocks, []

    @property
    def num_rows(self):
        return 10 * self.blocks

    @property
    def block_rows(self):
        return (10,) * self.blocks

    def pieces(self, wanted):
        raise NotImplementedError

    def read_block(self, block, start, wanted):
        for row in range(10 * block + start, 10 * (block + 1)):
            self.read.append(row)
            yield {"x": np.array([1.0 * row])}


def test_resume_reads_nothing_of_the_past():
    """From window 15 of 20 on what is read is what comes; open blocks begin where they were."""
    rows, window = 800, 40
    (order,) = order_of(taut.data.make_feed(Counted(80, window), 20, seed=2))
    source = Counted(80, window)
    feed = taut.data.make_feed(source, 20, seed=2)
    feed.restore({"epoch": 0, "step": 31})
    items = feed.take(9)
    np.testing.assert_array_equal(items["rows"].ravel(), order[31 * 20 :])
    read = [r for r in source.read if r not in set(order[: 30 * 20])]
    assert len(read) >= rows - 30 * 20
    # Beside them only what was read ahead, of the next epoch.
    late = source.read[: rows - 30 * 20]
    assert set(late) == set(order[30 * 20 :])


def test_blocks_that_are_too_short_are_named():
    class Short(Counted):
        def read_block(self, block, start, wanted):
            yield {"x": np.arange(6.0)}

    with pytest.raises(DataError, match=r"block \d has fewer rows than block_rows says"):
        taut.data.make_feed(Short(3, 30), 5).take(1)


def test_files_are_not_kept_open(tmp_path):
    descriptors = "/proc/self/fd"
    if not os.path.isdir(descriptors):
        pytest.skip("the system does not list open files")
    for i in range(40):
        write(tmp_path / f"{i:02}.parquet", {"x": np.arange(5.0) + 5 * i})
    before = len(os.listdir(descriptors))
    source = Parquet(tmp_path)
    assert len(os.listdir(descriptors)) < before + 5
    feed = taut.data.make_feed(source, 8, shuffle=False)
    np.testing.assert_array_equal(feed.take(25)["columns"]["x"].ravel(), np.arange(200.0))


# --- what is refused -------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["parquet", "batches", "mapped"])
@pytest.mark.parametrize(("value", "word"), [(np.nan, "NaN"), (-np.inf, "infinite")])
def test_a_late_nan_is_named_by_row_and_column(kind, value, word, tmp_path):
    columns = {"g": np.zeros(1_000_003, np.int8), "y": np.ones(1_000_003, np.float32)}
    columns["y"][1_000_000] = value
    if kind == "parquet":
        write(tmp_path / "x.parquet", columns, 300_000)
        feed = taut.data.make_feed(Parquet(tmp_path), 100_000)
    elif kind == "batches":
        source = Batches(pieces_of(columns, 100_000), num_rows=1_000_003)
        feed = taut.data.make_feed(source, 100_000)
    else:
        feed = HostBatches(columns, 100_000)
    with pytest.raises(DataError, match=rf"column 'y' is {word} or missing at row 1,000,000 "):
        feed.take(feed.steps_per_epoch)


def test_missing_numbers_in_parquet_are_named(tmp_path):
    pa = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    table = pa.table({"x": np.arange(30.0), "k": pa.array([*range(17), None, *range(12)])})
    parquet.write_table(table, tmp_path / "x.parquet", row_group_size=4)
    with pytest.raises(DataError, match="'k' is NaN or missing at row 17 "):
        taut.data.make_feed(Parquet(tmp_path), 5).take(6)
    # What is not wanted is not read.
    feed = taut.data.make_feed(Parquet(tmp_path), 5, wanted=["x"])
    assert set(feed.take(6)["columns"]) == {"x"}


def epoch_of(batches, rows, **options):
    feed = taut.data.make_feed(Batches(batches, rows, buffer_rows=10), 5, **options)
    return order_of(feed, 2)


X = {"x": np.arange(20.0)}


@pytest.mark.parametrize(
    ("batches", "rows", "message"),
    [
        ([X], 23, "source gave 20 rows, but num_rows says 23"),
        ([X, X], 23, "source gave 40 rows, but num_rows says 23"),
        ([X] * 1000, 23, "source gave at least 60 rows, but num_rows says 23"),
        ([], 23, "source has no rows"),
        ([{"x": X["x"][:0]}], 23, "source has no rows"),
        (iter([X]), 20, "list_iterator, which can be read once only.*pass a function"),
        ((b for b in [X]), 20, "generator, which can be read once only.*pass a function"),
        ([{"x": X["x"], "y": np.zeros(19)}], 20, r"different lengths.*row 0: .*'x': 20, 'y': 19"),
        ([X, {"x": np.arange(20)}], 40, r"'x' holds int64 .*row 20 on, elsewhere float64"),
        ([X, {"x": np.zeros((20, 2))}], 40, r"'x' holds float64 of shape \(2,\) from row 20 on"),
        ([X, {"z": X["x"]}], 40, "'x' is not in all batches; it differs at row 20"),
        ([{"x": [[1.0], [2.0, 3.0]]}], 2, "'x' is ragged.*row 0"),
        ([{"x": ["a"] * 20}], 20, "'x' holds text"),
        ([{"x": 3.0}], 20, "'x' is a single value"),
        ([{"x": np.array(3.0)}], 20, "'x' is a single value"),
        ([X, 3], 40, "batch 1 must be a mapping of columns or a data frame, got int"),
    ],
)
def test_bad_batches_are_refused(batches, rows, message):
    with pytest.raises(DataError, match=message):
        epoch_of(batches, rows)


def test_categories_are_refused():
    pandas = pytest.importorskip("pandas")
    frame = pandas.DataFrame({"x": pandas.Categorical(["a", "b"] * 10)})
    with pytest.raises(DataError, match="'x' holds categories, whose codes may differ"):
        epoch_of([frame], 20)


def test_a_generator_gives_one_epoch():
    feed = taut.data.make_feed(Batches((b for b in [X]), 20), 5)
    assert len(feed.take(4)["rows"]) == 4
    assert feed.state() == {"epoch": 0, "step": 4}
    with pytest.raises(DataError, match="is a generator, which can be read once only"):
        feed.take(1)


def test_a_function_must_return_new_batches():
    once = iter([X])
    with pytest.raises(DataError, match=r"no rows in epoch 1.*return a new iterable each time"):
        epoch_of(lambda: once, 20)


@pytest.mark.parametrize("rows", [0, -1, 2.0, True])
def test_num_rows_is_a_number_of_rows(rows):
    with pytest.raises(Exception, match="num_rows"):
        Batches([X], rows)


def test_the_number_of_rows_must_be_known():
    with pytest.raises(ArgumentError, match=r"declare it, as in .*num_rows=1_000_000"):
        taut.data.make_feed(Batches([X]), 5)
    assert taut.data.make_feed(Batches([X]), 5, num_rows=20).num_rows == 20
    with pytest.raises(ArgumentError, match="num_rows is 30, but the source says 20"):
        taut.data.make_feed(Batches([X], 20), 5, num_rows=30)


def test_parquet_without_rows_or_columns_is_refused(tmp_path):
    write(tmp_path / "a.parquet", {"x": np.zeros(0)})
    with pytest.raises(DataError, match="no rows"):
        taut.data.make_feed(Parquet(tmp_path), 5)
    write(tmp_path / "b.parquet", {"x": np.zeros(5)})
    assert taut.data.make_feed(Parquet(tmp_path), 5).take(1)["rows"].shape == (1, 5)
    write(tmp_path / "c.parquet", {"y": np.zeros(5)})
    with pytest.raises(DataError, match=r"c.parquet lacks column 'x', which .*a.parquet has"):
        taut.data.make_feed(Parquet(tmp_path), 5).take(2)


def test_parquet_files_of_different_types_are_refused(tmp_path):
    """Whichever comes first in the shuffle: what a column is must not depend on the seed."""
    write(tmp_path / "a.parquet", {"x": np.zeros(5)})
    write(tmp_path / "b.parquet", {"x": np.zeros(5, np.float32)})
    for seed in range(4):
        with pytest.raises(DataError, match=r"'x' holds float.*write it in one form"):
            taut.data.make_feed(Parquet(tmp_path), 10, seed).take(1)


def test_buffers_are_checked(tmp_path):
    with pytest.raises(ArgumentError, match="buffer_rows must be a whole number of at least 1"):
        Batches([X], 20, buffer_rows=0)
    with pytest.raises(ArgumentError, match="buffer_rows must be"):
        Parquet(written(tmp_path / "x.parquet", 10), buffer_rows=-5)


def test_items_serve_a_compiled_loop(tmp_path):
    """Fixed shapes and types: two calls, a padded batch among them, and one compilation."""
    feed = taut.data.make_feed(Parquet(written(tmp_path / "x.parquet", 1000)), 64)
    traced = []

    @jax.jit
    def total(resident, items):
        traced.append(1)

        def add(sums, item):
            batch = feed.batch(resident, item)
            return sums + batch.weight @ batch.columns["x"], None

        return jax.lax.scan(add, 0.0, items)[0]

    sums = [float(total(feed.resident, feed.take(8))) for _ in range(2)]
    assert len(traced) == 1
    assert all(abs(s / 8 - 499_500) < 0.2 * 499_500 for s in sums)
