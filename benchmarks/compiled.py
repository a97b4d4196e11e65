"""The compiled ELBO beside the field: the same model, data, start and machine, in one run.

    python -m benchmarks.compiled
    python -m benchmarks.compiled --cases mixture,bayespy

Cases: mixture and full-mixture (scikit-learn), topics (scikit-learn, gensim), bayespy (BayesPy's example models),
and hierarchical, logistic, poisson (NumPyro's SVI). Every case runs in a process of its own, so
that a first fit compiles; peers that are not installed and data that are not there are skipped.
"""

import argparse
import os
from pathlib import Path
from typing import Any

from benchmarks import fresh, store

CASES: dict[str, tuple[str, dict[str, Any]]] = {
    "mixture": ("benchmarks.peers_mixture:measure", {"kind": "diag"}),
    "full-mixture": ("benchmarks.peers_mixture:measure", {"kind": "full"}),
    "topics": ("benchmarks.peers_topics:measure", {}),
    "bayespy": ("benchmarks.peers_bayespy:measure", {}),
    "hierarchical": ("benchmarks.peers_svi:measure", {"name": "hierarchical"}),
    "logistic": ("benchmarks.peers_svi:measure", {"name": "logistic"}),
    "poisson": ("benchmarks.peers_svi:measure", {"name": "poisson"}),
}


def run(case: str, limit: float) -> dict[str, Any]:
    """One record: the rows of a case, or why there are none."""
    target, arguments = CASES[case]
    before = os.getloadavg()[0]
    record = fresh.call(target, arguments, limit)
    load = {"before": before, "after": os.getloadavg()[0], "cores": os.cpu_count()}
    return {"case": case, "load": load} | record


def show(record: dict[str, Any]) -> str:
    """A record as a Markdown table."""
    load = record["load"]
    busy = f"load {load['before']:.1f} before, {load['after']:.1f} after, {load['cores']} cores"
    if record["status"] != "ok":
        return f"## {record['case']}\n\n{record['status']}: {record['reason']} ({busy})"
    value = record["value"]
    rows = value["rows"]
    if not rows:
        return f"## {value['title']}\n\nskipped: {value['note']}"
    header = list(dict.fromkeys(key for row in rows for key in row))
    cells = [[_cell(row.get(key)) for key in header] for row in rows]
    return f"## {value['title']}\n\n{store.table(header, cells)}\n\n{value['note']} {busy}."


def _cell(value: Any) -> str:
    if value is None:
        return "-"
    if not isinstance(value, float):
        return str(value)
    return f"{value:.1f}" if abs(value) >= 100 else f"{value:.4g}"


def main(arguments: list[str] | None = None) -> int:
    """Command line."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.compiled",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--cases", default="all", help=f"all, or of {', '.join(CASES)}")
    parser.add_argument("--out", type=Path, default=fresh.ROOT / "benchmarks" / "results")
    parser.add_argument("--limit", type=float, default=1200.0, help="seconds per case")
    options = parser.parse_args(arguments)
    names = list(CASES) if options.cases == "all" else options.cases.split(",")
    if unknown := [n for n in names if n not in CASES]:
        parser.error(f"no case {', '.join(unknown)}; they are {', '.join(CASES)}")
    for name in names:
        record = run(name, options.limit)
        store.append(options.out / "compiled.jsonl", record)
        print(show(record), end="\n\n", flush=True)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
