"""Rows per second and memory of minibatches, by where the data lie and how many there are.

    python -m benchmarks.minibatches [rows ...]

Each line is a process of its own, because peak memory never falls. Half an epoch is shuffled, copied
to the device and summed there; the first call, which compiles, is not on the clock. `start_mb` is
the memory before the feed is made. `own_mb` leaves out pages of mapped files, which the system
takes back when it needs them; it is sampled, on Linux only.
"""

import json
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from benchmarks.streaming import write

SIZES = (2_000_000, 20_000_000)
BATCH, CALL = 1024, 64  # rows of a batch, batches of a compiled call
COLUMNS = ("g", "x1", "x2", "y")


def make(kind: str, folder: Path):
    import taut

    if kind == "parquet":
        return taut.data.make_feed(taut.data.Parquet(folder), BATCH)
    mode = "r" if kind == "memmap" else None
    arrays = {n: np.load(folder / f"{n}.npy", mmap_mode=mode) for n in COLUMNS}
    return taut.data.make_feed(arrays, BATCH)


def own_mb() -> float:
    status = Path("/proc/self/status")
    if not status.exists():
        return float("nan")
    (line,) = (s for s in status.read_text().splitlines() if s.startswith("RssAnon"))
    return int(line.split()[1]) / 1024


def run(kind: str, folder: Path) -> dict[str, float | str]:
    import jax
    import jax.numpy as jnp

    def total(resident, items):
        def add(sums, item):
            batch = feed.batch(resident, item)
            return {n: sums[n] + jnp.dot(batch.weight, batch.columns[n]) for n in sums}, None

        return jax.lax.scan(add, dict.fromkeys(COLUMNS, jnp.zeros(())), items)[0]

    jax.block_until_ready(jnp.ones(3) + 1)
    start = own_mb()
    feed = make(kind, folder)
    summed = jax.jit(total)
    began = time.perf_counter()
    jax.block_until_ready(summed(feed.resident, feed.take(CALL)))
    first, most, taken = time.perf_counter() - began, own_mb(), 0
    began = time.perf_counter()
    while taken < feed.num_rows // 2:
        jax.block_until_ready(summed(feed.resident, feed.take(CALL)))
        taken += CALL * BATCH
        most = max(most, own_mb())
    return {
        "kind": kind,
        "rows": feed.num_rows,
        "first_seconds": round(first, 2),
        "rows_per_second": round(taken / (time.perf_counter() - began)),
        "start_mb": round(start),
        "own_mb": round(most),
        "peak_mb": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024),
    }


def to_arrays(folder: Path, rows: int) -> None:
    """Write the columns of the Parquet file as NumPy's files, a piece at a time."""
    from pyarrow import parquet

    (file,) = folder.glob("*.parquet")
    with parquet.ParquetFile(file) as opened:
        for name in COLUMNS:
            dtype = np.int32 if name == "g" else np.float64
            path = folder / f"{name}.npy"
            array = np.lib.format.open_memmap(path, "w+", dtype=dtype, shape=(rows,))
            at = 0
            for batch in opened.iter_batches(columns=[name]):
                array[at : at + len(batch)] = batch.column(0).to_numpy()
                at += len(batch)
            array.flush()


def main(sizes: tuple[int, ...]) -> None:
    names: list[str] = []
    for rows in sizes:
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            write(folder / "rows.parquet", rows)
            to_arrays(folder, rows)
            for kind in ("parquet", "memmap", "memory"):
                command = [sys.executable, "-m", "benchmarks.minibatches", kind, name]
                done = subprocess.run(command, capture_output=True, text=True, check=True)
                found = json.loads(done.stdout.strip().splitlines()[-1])
                if not names:
                    names = list(found)
                    print("| " + " | ".join(names) + " |\n" + "|---" * len(names) + "|")
                shown = (f"{v:,}" if isinstance(v, int) else str(v) for v in found.values())
                print("| " + " | ".join(shown) + " |", flush=True)


if __name__ == "__main__":
    if len(sys.argv) == 3 and Path(sys.argv[2]).is_dir():
        print(json.dumps(run(sys.argv[1], Path(sys.argv[2]))))
    else:
        main(tuple(int(a) for a in sys.argv[1:]) or SIZES)
