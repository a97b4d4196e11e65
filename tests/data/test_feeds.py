"""Minibatches of every kind of data: each row once an epoch, exact weights, exact resume."""

import gc
import json
import subprocess
import sys
import threading
import time
from pathlib import Path

import jax
import numpy as np
import pytest
from feed_kinds import KINDS, assert_same, columns_of, feed_of, order_of, taken
from jaxtyping import TypeCheckError

import taut
from taut._core.errors import ArgumentError, DataError
from taut.data import HostBatches, InMemory

SIZES = [(23, 1), (23, 7), (21, 7), (23, 50), (23, 23), (1, 4)]  # rows, batch size


@pytest.mark.parametrize(
    ("rows", "size", "shuffle"), [*((*s, True) for s in SIZES), (23, 7, False), (23, 50, False)]
)
@pytest.mark.parametrize("kind", KINDS)
def test_every_row_once_an_epoch(kind, rows, size, shuffle, tmp_path):
    feed = feed_of(kind, tmp_path, rows, size, shuffle=shuffle)
    size = min(size, rows)
    steps = -(-rows // size)
    assert (feed.num_rows, feed.batch_size, feed.steps_per_epoch) == (rows, size, steps)
    for _ in range(2):
        batch = taken(feed, steps)
        assert batch.rows.shape == batch.weight.shape == (steps, size)
        real = batch.weight > 0
        seen = batch.rows[real]
        np.testing.assert_array_equal(seen if not shuffle else np.sort(seen), np.arange(rows))
        # Padding stands last in the last batch, and repeats rows of it.
        assert real[:-1].all()
        left = rows - size * (steps - 1)
        np.testing.assert_array_equal(real[-1], np.arange(size) < left)
        assert set(batch.rows[-1]) == set(batch.rows[-1, :left])
        np.testing.assert_array_equal(batch.columns["x"], 1000 + batch.rows)
        np.testing.assert_array_equal(batch.columns["g"], batch.rows % 5)
        if "m" in batch.columns:
            expected = np.stack([batch.rows, -batch.rows], -1)
            np.testing.assert_array_equal(batch.columns["m"], expected)


@pytest.mark.parametrize(("rows", "size"), [(23, 7), (21, 7), (23, 50)])
@pytest.mark.parametrize("kind", KINDS)
def test_weighted_sums_are_those_of_all_rows(kind, rows, size, tmp_path):
    """Each batch stands for all rows; batches by their number of rows give the sum exactly."""
    with jax.enable_x64(True):
        feed = feed_of(kind, tmp_path, rows, size)
        batch = taken(feed, feed.steps_per_epoch)
    np.testing.assert_allclose(batch.weight.sum(1), rows, rtol=1e-14)
    sums = (batch.weight * batch.columns["x"]).sum(1)
    share = (batch.weight > 0).sum(1) / rows
    assert share @ sums == pytest.approx(1000 * rows + rows * (rows - 1) / 2, rel=1e-13)


@pytest.mark.stat
def test_the_padded_batch_is_unbiased():
    """The last batch has 2 of 23 rows. |z| < 4.9 over 600 epochs fails once in 10^6 seeds."""
    rows, epochs, last = 23, 600, 2
    feed = InMemory(columns_of(rows), 7, seed=5)
    order = np.stack(order_of(feed, epochs))
    estimates = rows / last * order[:, -last:].sum(1)
    total, spread = rows * (rows - 1) / 2, np.arange(rows).var(ddof=1)
    variance = rows**2 * spread / last * (1 - last / rows)
    assert abs(estimates.mean() - total) < 4.9 * np.sqrt(variance / epochs)
    # The sd that this rests on, to 8 of its own standard errors.
    assert estimates.std() == pytest.approx(np.sqrt(variance), rel=8 / np.sqrt(2 * epochs))


@pytest.mark.parametrize("kind", KINDS)
def test_resume_is_as_if_nothing_had_happened(kind, tmp_path):
    """At every batch of three epochs, their ends included, through text, into a new feed."""
    feed = feed_of(kind, tmp_path, 23, 4, seed=3)
    states, items = [], []
    for _ in range(3 * feed.steps_per_epoch):
        states.append(json.dumps(feed.state()))
        items.append(feed.take(1))
    for at, state in enumerate(states[:-4]):
        other = feed_of(kind, tmp_path, 23, 4, seed=3)
        other.take(2)
        other.restore(json.loads(state))
        assert other.state() == json.loads(state)
        expected = jax.tree.map(lambda *x: np.concatenate(x), *items[at : at + 4])
        assert_same(other.take(4), expected)
        assert_same(other.take(1), items[at + 4])
    epochs = np.split(np.concatenate([i["rows"] for i in items]), 3)
    assert not np.array_equal(epochs[0], epochs[1])
    assert not np.array_equal(epochs[1], epochs[2])


@pytest.mark.parametrize("kind", ["memory", "mapped", "parquet", "batches"])
def test_resume_in_another_process(kind, tmp_path):
    program = f"""
import pathlib, sys, json
sys.path.insert(0, {str(Path(__file__).parent)!r})
from feed_kinds import feed_of
feed = feed_of({kind!r}, pathlib.Path({str(tmp_path)!r}), 23, 4, seed=3)
feed.restore({{"epoch": 1, "step": 4}})
print(json.dumps(feed.take(5)["rows"].tolist()))
"""
    feed = feed_of(kind, tmp_path, 23, 4, seed=3)
    feed.take(10)
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == feed.take(5)["rows"].tolist()


@pytest.mark.parametrize("kind", ["memory", "parquet"])
def test_order_depends_on_seed_and_epoch(kind, tmp_path):
    """Two shuffles of 600 rows share 1 place on average; 30 happen in under 1 of 10^9."""
    feeds = [feed_of(kind, tmp_path, 600, 100, seed=s) for s in (0, 0, 1)]
    first, again, other = (order_of(f, 2) for f in feeds)
    assert_same(first, again)
    for a, b in ((first[0], first[1]), (first[0], other[0])):
        assert np.sum(a == b) < 30


# --- on the host, in parts -------------------------------------------------------------------------


@pytest.mark.parametrize("shuffle", [True, False])
@pytest.mark.parametrize(("rows", "size"), SIZES)
def test_host_batches_are_those_in_memory(rows, size, shuffle):
    flat = columns_of(rows)
    columns = {"data": {"x": flat["x"], "m": flat["m"]}, "g": flat["g"].astype(np.int16)}
    memory = InMemory(columns, size, seed=9, shuffle=shuffle)
    host = HostBatches(columns, size, seed=9, shuffle=shuffle)
    for count in (1, 2, memory.steps_per_epoch + 1):
        assert_same(taken(host, count), taken(memory, count))


def test_windows_do_not_show():
    """More rows than are gathered at a time; the order is that in memory all the same."""
    columns = {"x": np.arange(150_000.0)}
    memory, host = InMemory(columns, 1000, seed=2), HostBatches(columns, 1000, seed=2)
    items = host.take(200)
    np.testing.assert_array_equal(items["rows"], memory.take(200)["rows"])
    np.testing.assert_array_equal(items["columns"]["x"], items["rows"])


@pytest.mark.parametrize("parts", [2, 4])
@pytest.mark.parametrize("kind", KINDS)
def test_parts_make_up_the_whole(kind, parts, tmp_path):
    whole = taken(feed_of(kind, tmp_path, 30, 8), 9)
    found = [feed_of(kind, tmp_path, 30, 8, part=(i, parts)) for i in range(parts)]
    assert {(f.batch_size, f.steps_per_epoch) for f in found} == {(8, 4)}
    batches = [taken(feed, 9) for feed in found]
    assert all(b.rows.shape == (9, 8 // parts) for b in batches)
    assert_same(jax.tree.map(lambda *x: np.concatenate(x, 1), *batches), whole)


@pytest.mark.parametrize("kind", KINDS)
def test_every_array_of_an_item_has_the_rows_second(kind, tmp_path):
    """So one sharding fits them all."""
    items = feed_of(kind, tmp_path, 30, 8).take(3)
    assert {np.shape(x)[:2] for x in jax.tree.leaves(items)} == {(3, 8)}
    assert all(isinstance(x, np.ndarray) for x in jax.tree.leaves(items))


def test_mapped_arrays_are_not_loaded(tmp_path):
    """200 GB with holes: whoever read them as a whole would not come back."""
    rows, width = 1_000_000, 50_000
    try:
        made = np.lib.format.open_memmap(tmp_path / "x.npy", "w+", np.float32, (rows, width))
    except OSError:
        pytest.skip("the file system has no files with holes")
    made[:4] = np.arange(1, 5)[:, None]
    made[-4:] = np.arange(5, 9)[:, None]
    del made
    data = {"data": {"x": np.load(tmp_path / "x.npy", mmap_mode="r")[:, 1:]}}
    feed = taut.data.make_feed(data, 4, shuffle=False)
    assert isinstance(feed, HostBatches)
    np.testing.assert_array_equal(feed.take(1)["columns"]["data"]["x"][0, :, 7], [1, 2, 3, 4])
    feed.restore({"epoch": 0, "step": rows // 4 - 1})
    np.testing.assert_array_equal(feed.take(1)["columns"]["data"]["x"][0, :, 99], [5, 6, 7, 8])


# --- numbers ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
def test_types_follow_jax(kind, tmp_path):
    """Single floats stay; all else is what JAX computes with at the time."""
    columns = {n: np.arange(9.0).astype(n) for n in ("float32", "float64", "int8", "int64", "bool")}
    single = taken(feed_of(kind, tmp_path, 9, 4, columns=columns), 1).columns
    assert {n: str(v.dtype) for n, v in single.items() if n != "int8"} == {
        "float32": "float32", "float64": "float32", "int64": "int32", "bool": "bool"
    }  # fmt: skip
    assert single["int8"].dtype.kind == "i"
    with jax.enable_x64(True):
        double = taken(feed_of(kind, tmp_path, 9, 4, columns=columns), 1).columns
    assert {n: str(v.dtype) for n, v in double.items() if n != "int8"} == {
        "float32": "float32", "float64": "float64", "int64": "int64", "bool": "bool"
    }  # fmt: skip


@pytest.mark.parametrize("kind", KINDS)
def test_integers_that_do_not_fit_are_no_others(kind, tmp_path):
    columns = {"g": np.array([1, 2, 3_000_000_000, 4])}

    def rows():
        return taken(feed_of(kind, tmp_path, 4, 4, columns=columns, shuffle=False), 1)

    with pytest.raises(DataError, match=r"'g' holds 3,000,000,000.*32 bits.*jax_enable_x64"):
        rows()
    with jax.enable_x64(True):
        np.testing.assert_array_equal(rows().columns["g"][0], columns["g"])


# --- reading ahead ---------------------------------------------------------------------------------


def readers():
    return [t for t in threading.enumerate() if t.name == "taut-read"]


def test_reading_is_ahead_and_ends_with_the_feed():
    seen = []

    def batches():
        for i in range(50):
            seen.append(threading.current_thread().name)
            yield {"x": np.arange(10.0) + i}

    others = set(readers())
    feed = taut.data.make_feed(taut.data.Batches(batches, num_rows=500, buffer_rows=20), 10)
    feed.take(1)
    deadline = time.monotonic() + 10
    while len(seen) < 6 and time.monotonic() < deadline:
        time.sleep(0.01)
    assert set(seen) == {"taut-read"}
    assert 6 <= len(seen) < 20, "some batches ahead, not all"
    del feed
    gc.collect()
    while set(readers()) - others and time.monotonic() < deadline:
        time.sleep(0.01)
    assert not set(readers()) - others


def test_an_error_leaves_the_feed_where_it_was():
    broken = [True]

    def batches():
        yield {"x": np.arange(10.0)}
        if broken:
            raise OSError("disk away")
        yield {"x": np.arange(10.0, 20.0)}

    source = taut.data.Batches(batches, num_rows=20, buffer_rows=5)
    feed = taut.data.make_feed(source, 5, shuffle=False)
    feed.take(1)
    for _ in range(2):
        with pytest.raises(OSError, match="disk away"):
            feed.take(3)
        assert feed.state() == {"epoch": 0, "step": 1}
    broken.clear()
    np.testing.assert_array_equal(feed.take(3)["rows"].ravel(), np.arange(5, 20))


# --- arguments -------------------------------------------------------------------------------------

X = np.arange(12.0)


@pytest.mark.parametrize("size", [0, -3, 2.5, True, "8", None])
def test_batch_size_is_a_number_of_rows(size):
    with pytest.raises((ArgumentError, TypeCheckError), match="batch_size"):
        taut.data.make_feed({"x": X}, size)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"seed": -1}, "seed must be a whole number of at least 0, got -1"),
        ({"part": (2, 2)}, r"part must be \(i, n\) with 0 <= i < n, got \(2, 2\)"),
        ({"part": (0, 3)}, r"batch_size must be a multiple of the 3 parts.*got 8$"),
        ({"part": (0, 8), "batch_size": 16}, "got 12, all the rows there are, of batch_size=16"),
        ({"num_rows": 13}, "num_rows is 13, but the data have 12 rows"),
        ({"wanted": ["X"]}, "wanted has 'X'.*did you mean 'x'"),
    ],
)
def test_arguments_are_checked(options, message):
    with pytest.raises(ArgumentError, match=message):
        taut.data.make_feed({"x": X}, **{"batch_size": 8, **options})


@pytest.mark.parametrize(
    ("state", "message"),
    [
        ({}, "state must be what a feed's state"),
        ({"epoch": 0, "step": 4}, "batch 4 of an epoch, which has 3 here"),
        ({"epoch": -1, "step": 0}, r"state\['epoch'\] must be a whole number"),
    ],
)
def test_states_of_other_feeds_are_refused(state, message):
    with pytest.raises(ArgumentError, match=message):
        InMemory({"x": X}, 5).restore(state)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (3, "data must be a mapping of arrays, a data frame or a source.*got int"),
        ({"x": X, "n": 7}, "data 'n' is a int.*numpy.asarray"),
        ({"x": X, "z": [1.0] * 12}, "data 'z' is a list"),
        ({"x": X, "d": {"y": X[:5]}}, r"common number of rows, got 'd'\['y'\]: 5, 'x': 12"),
        ({"x": X, "c": np.array(1.0)}, "'c': a single value"),
        ({}, "got no arrays"),
        ({"x": X[:0]}, "'x' is empty"),
        ({"x": X, "t": np.array(["a"] * 12)}, "'t' holds text"),
        ({"x": np.where(X == 7, np.nan, X)}, "'x' is NaN in 1 of 12 values, first at row 7"),
        ({"x": np.where(X == 7, np.inf, X)}, "'x' is infinite.*row 7"),
    ],
)
def test_data_in_memory_are_checked(data, message):
    with pytest.raises(DataError, match=message):
        taut.data.make_feed(data, 5)


def test_text_that_is_not_wanted_is_no_error():
    pandas = pytest.importorskip("pandas")
    frame = pandas.DataFrame({"x": X, "name": ["a"] * 12})
    with pytest.raises(DataError, match="'name' holds text"):
        taut.data.make_feed(frame, 5)
    assert set(taut.data.make_feed(frame, 5, wanted=["x"]).resident) == {"x"}


def test_no_batches_are_not_taken():
    with pytest.raises(ArgumentError, match="count must be a whole number of at least 1, got 0"):
        InMemory({"x": X}, 5).take(0)
