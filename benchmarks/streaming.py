"""Rows per second and peak memory of a fit from Parquet, at two sizes.

    python -m benchmarks.streaming [rows ...]

Each size runs in a process of its own, because peak memory never falls.
"""

import json
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

SIZES = (2_000_000, 20_000_000)
WRITTEN = 500_000  # rows in memory while the file is written
GROUPS = 500


def hierarchical(g, x1, x2, num_groups, y=None):
    import numpyro
    import numpyro.distributions as dist

    mu = numpyro.sample("mu", dist.Normal(0, 5))
    tau = numpyro.sample("tau", dist.HalfNormal(2))
    b = numpyro.sample("b", dist.Normal(0, 5).expand([2]).to_event(1))
    s = numpyro.sample("s", dist.HalfNormal(2))
    with numpyro.plate("groups", num_groups):
        theta = numpyro.sample("theta", dist.Normal(mu, tau))
    with numpyro.plate("rows", len(g)):
        numpyro.sample("y", dist.Normal(theta[g] + b[0] * x1 + b[1] * x2, s), obs=y)


def write(path: Path, rows: int) -> None:
    import pyarrow as pa
    from pyarrow import parquet

    rng = np.random.default_rng(0)
    theta = rng.normal(1.0, 0.5, GROUPS)
    names = [("g", pa.int32()), ("x1", pa.float64()), ("x2", pa.float64()), ("y", pa.float64())]
    with parquet.ParquetWriter(path, pa.schema(names)) as file:
        for start in range(0, rows, WRITTEN):
            n = min(WRITTEN, rows - start)
            g = rng.integers(0, GROUPS, n).astype(np.int32)
            x1, x2 = rng.normal(size=(2, n))
            y = theta[g] + 0.5 * x1 - 0.25 * x2 + rng.normal(size=n)
            file.write_table(pa.table({"g": g, "x1": x1, "x2": x2, "y": y}))


def fit(path: str) -> dict[str, float]:
    """Fit, and time what reading and folding take apart from the rest."""
    import taut

    source = taut.data.Parquet(path, fixed={"num_groups": GROUPS})
    began, ends = time.perf_counter(), []

    def watch(stage, numbers):
        if stage == "reading":
            ends.append((time.perf_counter() - began, numbers["rows"]))

    posterior = taut.fit(hierarchical, source, callbacks=[watch])
    (first, few), (last, rows) = ends[0], ends[-1]
    return {
        "rows": rows,
        "seconds": round(time.perf_counter() - began, 2),
        "reading_seconds": round(last, 2),
        "rows_per_second_after_compiling": round((rows - few) / max(last - first, 1e-9)),
        "peak_mb": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024),
        "elbo": posterior.elbo,
        "verdict": posterior.trust.verdict,
    }


def main(sizes: tuple[int, ...]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        for rows in sizes:
            path = Path(folder) / f"{rows}.parquet"
            write(path, rows)
            command = [sys.executable, "-m", "benchmarks.streaming", str(path)]
            done = subprocess.run(command, capture_output=True, text=True, check=True)
            print(done.stdout.strip().splitlines()[-1], f"file_mb={path.stat().st_size >> 20}")
            path.unlink()


if __name__ == "__main__":
    if len(sys.argv) == 2 and Path(sys.argv[1]).exists():
        print(json.dumps(fit(sys.argv[1])))
    else:
        main(tuple(int(a) for a in sys.argv[1:]) or SIZES)
