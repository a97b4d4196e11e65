"""Fit the same models by every method, side by side.

    python -m benchmarks.compare --models small
    python -m benchmarks.compare --models regression,schools-centred --methods taut,svi-mvn,nuts

Models: small (shipped), reference (beside the checkout), all, or names. Every pair runs in a
process of its own: cold is its first fit, compiling included; warm the next, with another seed.
"""

import argparse
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from benchmarks import cases, fresh, report, store
from benchmarks.methods import METHODS, names
from benchmarks.twins import TWINS

Pair = tuple[str, str, float | None]


def pairs(models: list[str], methods: list[str], rates: list[float] | None) -> Iterator[Pair]:
    """All (model, method, rate)."""
    for model in models:
        for method in methods:
            own = METHODS[method].rates
            for rate in rates if rates and own != (None,) else own:
                yield model, method, rate


def run(pair: Pair, folder: Path, limit: float) -> dict[str, Any]:
    """One record; pairs that cannot be run say why."""
    model, method, rate = pair
    record: dict[str, Any] = {"model": model, "method": method, "rate": rate}
    if METHODS[method].twin and model not in TWINS:
        return record | {"status": "skipped", "reason": "no PyMC version of this model"}
    arguments = record | {"folder": str(folder.resolve()), "limit": limit}
    return record | fresh.call("benchmarks.methods:measure", arguments, limit)


def _line(record: dict[str, Any]) -> str:
    pair = f"{record['model']} {record['method']}" + (
        f" @{record['rate']:g}" if record["rate"] else ""
    )
    if record["status"] != "ok":
        return f"{pair}: {record['status']}: {record['reason']}"
    times = [
        f"{label} {run['seconds']:.2f} s, accurate {store.cell(run['accurate'], 2, 'never')}"
        for label, run in zip(("cold", "warm"), record["value"]["runs"], strict=True)
    ]
    return f"{pair}: {'; '.join(times)}"


def _options(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.compare",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--models", default="small", help="small, reference, all, or names")
    parser.add_argument("--methods", default="all", help=f"all, or of {', '.join(METHODS)}")
    parser.add_argument("--rates", help="learning rates to try instead of 0.1,0.01,0.001")
    parser.add_argument("--out", type=Path, default=fresh.ROOT / "benchmarks" / "results")
    parser.add_argument("--limit", type=float, default=600.0, help="seconds per process")
    parser.add_argument("--resume", action="store_true", help="leave out pairs that are done")
    options = parser.parse_args(arguments)
    try:
        options.models, options.methods = cases.names(options.models), names(options.methods)
    except ValueError as error:
        parser.error(str(error))
    options.rates = [float(r) for r in options.rates.split(",")] if options.rates else None
    return options


def main(arguments: list[str] | None = None) -> int:
    """Command line."""
    options = _options(arguments)
    path = options.out / "compare.jsonl"
    if not options.resume:
        path.unlink(missing_ok=True)
    done = report.load(path) if path.exists() else []
    finished = {(r["model"], r["method"], r["rate"]) for r in done if r["status"] == "ok"}
    for model in options.models:
        cases.prepare(model, options.out)
    for pair in pairs(options.models, options.methods, options.rates):
        if pair in finished:
            continue
        record = run(pair, options.out, options.limit)
        store.append(path, record)
        print(_line(record), flush=True)
    if path.exists():
        report.write(path)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
