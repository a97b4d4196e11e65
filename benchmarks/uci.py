"""Test error and log likelihood of one-layer networks on the UCI regression sets.

    python -m benchmarks.uci [--sets boston yacht] [--methods mean_field ivon] [--splits 20]

The protocol of Hernandez-Lobato and Adams (2015): 1 x 50 ReLU units (100 for protein), the 20
standard splits (5 for protein), mean and standard error over splits. One set of defaults for all
sets. The data are read from ../shared/data/uci, or from the folder that TAUT_UCI names: files
<name>.npz with x, y and test_index (splits, test rows). They are not part of this project.
"""

import argparse
import json
import math
import os
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

FOLDER = Path(__file__).resolve().parents[2] / "shared" / "data" / "uci"
SETS = ("boston", "concrete", "energy", "kin8nm", "naval", "power", "protein", "wine", "yacht")
METHODS = ("mean_field", "ivon", "last_layer", "ensemble")
DRAWS = 200  # of the weights, for predictions
LANES = 20  # networks that are trained side by side, members of ensembles not counted

# Probabilistic backpropagation and deep ensembles: tables 1 and 2 of Lakshminarayanan, Pritzel and
# Blundell (2017); MC dropout: table 1 of Gal and Ghahramani (2016). (RMSE, log likelihood).
PUBLISHED = {
    "PBP": {
        "boston": (3.01, -2.57), "concrete": (5.67, -3.16), "energy": (1.80, -2.04),
        "kin8nm": (0.10, 0.90), "naval": (0.01, 3.73), "power": (4.12, -2.84),
        "protein": (4.73, -2.97), "wine": (0.64, -0.97), "yacht": (1.02, -1.63),
    },
    "MC dropout": {
        "boston": (2.97, -2.46), "concrete": (5.23, -3.04), "energy": (1.66, -1.99),
        "kin8nm": (0.10, 0.95), "naval": (0.01, 3.80), "power": (4.02, -2.80),
        "protein": (4.36, -2.89), "wine": (0.62, -0.93), "yacht": (1.11, -1.55),
    },
    "deep ensemble": {
        "boston": (3.28, -2.41), "concrete": (6.03, -3.06), "energy": (2.09, -1.38),
        "kin8nm": (0.09, 1.20), "naval": (0.00, 5.63), "power": (4.11, -2.79),
        "protein": (4.71, -2.83), "wine": (0.64, -0.94), "yacht": (1.58, -1.18),
    },
}  # fmt: skip


def posterior(method: str) -> Any:
    from taut import networks

    return {
        "mean_field": networks.MeanField(),
        "ivon": networks.IVON(),
        "last_layer": networks.LastLayer(),
        "ensemble": networks.Ensemble(networks.MeanField(), members=5),
    }[method]


def splits(folder: Path, name: str, most: int) -> tuple[np.ndarray, ...]:
    """Inputs and targets of each split: (splits, rows, columns) and (splits, rows), twice."""
    with np.load(folder / f"{name}.npz") as file:
        x, y, test = file["x"], file["y"], file["test_index"][:most]
    train = np.stack([np.setdiff1d(np.arange(len(y)), rows) for rows in test])
    return x[train], y[train], x[test], y[test]


def run(folder: Path, name: str, method: str, most: int) -> dict[str, Any]:
    """Train on every split and score the test rows."""
    import equinox as eqx
    import jax

    from taut import networks

    x, y, x_test, y_test = splits(folder, name, most)
    width = 100 if name == "protein" else 50
    module = eqx.nn.MLP(x.shape[-1], 1, width, 1, key=jax.random.key(0))
    network = networks.BayesianNetwork(module, posterior=posterior(method))
    began, rows, bounds = time.perf_counter(), [], []
    for start in range(0, len(x), LANES):
        part = slice(start, start + LANES)
        fits = network.fit_many(x[part], y[part], progress=False)
        for fit, new, true in zip(fits, x_test[part], y_test[part], strict=True):
            prediction = fit.predict(new, draws=DRAWS)
            error = math.sqrt(np.mean((prediction.mean - true) ** 2))
            rows.append((error, float(prediction.log_prob(true).mean())))
            bounds.append(fit.elbo / x.shape[1])
    values = np.array(rows)
    return {
        "set": name,
        "method": method,
        "splits": len(values),
        "rmse": [float(values[:, 0].mean()), _error(values[:, 0])],
        "log_likelihood": [float(values[:, 1].mean()), _error(values[:, 1])],
        "elbo_per_row": float(np.mean(bounds)),
        "seconds": round(time.perf_counter() - began, 1),
    }


def _error(values: np.ndarray) -> float:
    """Standard error of the mean."""
    return float(values.std(ddof=1) / math.sqrt(len(values))) if len(values) > 1 else math.nan


def table(records: list[dict[str, Any]], score: str) -> str:
    """Sets by methods, the published ones first, in Markdown."""
    sets = [s for s in SETS if any(r["set"] == s for r in records)]
    methods = [m for m in METHODS if any(r["method"] == m for r in records)]
    found = {(r["set"], r["method"]): r for r in records}
    at = 0 if score == "rmse" else 1
    lines = [
        "| " + " | ".join([score, *PUBLISHED, *methods]) + " |",
        "|---" * (1 + len(PUBLISHED) + len(methods)) + "|",
    ]
    for name in sets:
        cells = [f"{PUBLISHED[p][name][at]:.2f}" for p in PUBLISHED]
        for method in methods:
            record = found.get((name, method))
            cells.append("" if record is None else "{:.3f} ± {:.3f}".format(*record[score]))
        lines.append("| " + " | ".join([name, *cells]) + " |")
    return "\n".join(lines)


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])  # type: ignore[union-attr]
    parser.add_argument("--sets", nargs="+", choices=SETS, default=list(SETS))
    parser.add_argument("--methods", nargs="+", choices=METHODS, default=list(METHODS))
    parser.add_argument("--splits", type=int, default=20, help="the first so many")
    parser.add_argument(
        "--out", type=Path, help="file that gets one JSON record a line, and is gone on with"
    )
    chosen = parser.parse_args(arguments)
    folder = Path(os.environ.get("TAUT_UCI", FOLDER))
    if not folder.is_dir():
        print(f"skipped: there are no data in {folder}; set TAUT_UCI to their folder")
        return 0
    done = chosen.out is not None and chosen.out.exists()
    records = [json.loads(line) for line in chosen.out.read_text().splitlines()] if done else []
    for name in chosen.sets:
        for method in chosen.methods:
            if any((r["set"], r["method"]) == (name, method) for r in records):
                continue
            records.append(run(folder, name, method, chosen.splits))
            print(json.dumps(records[-1]), file=sys.stderr, flush=True)
            if chosen.out is not None:
                with chosen.out.open("a") as file:
                    file.write(json.dumps(records[-1]) + "\n")
    for score in ("rmse", "log_likelihood"):
        print(table(records, score) + "\n")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
