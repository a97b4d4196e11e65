"""Fit every reference posterior with defaults and hold the answers against the known ones.

    python -m benchmarks.reference
    python -m benchmarks.reference --only eight_schools --out benchmarks/results

The rule: the means from ``draws()`` are within 0.1 sd and the sds within 10% for every
parameter, or the verdict is not "good".
"""

import argparse
import statistics
import time
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import fresh, posteriors, store
from benchmarks.accuracy import compare, finite

NUM_DRAWS = 20_000
SEEDS = (0, 1)  # cold, warm
LARGE = 200  # latents; the aim speaks of models up to here


def measure(name: str) -> dict[str, Any]:
    """Fit one reference posterior twice; runs in a process of its own."""
    began = time.perf_counter()
    import taut

    fit = taut.fit  # loads what it needs
    imported = time.perf_counter() - began
    reference = posteriors.load(name)
    fits, dim = [], 0
    for seed in SEEDS:
        began = time.perf_counter()
        posterior = fit(reference.model, posteriors.arguments(reference), seed=seed, progress=False)
        seconds = time.perf_counter() - began
        fits.append(_judge(posterior, reference) | {"seed": seed, "seconds": seconds})
        dim = _dimension(posterior)
    return {"dim": dim, "import_s": imported, "fits": fits}


def _dimension(posterior: Any) -> int:
    return int(posterior.q.sample(np.random.default_rng(0), 1).shape[-1])


def _judge(posterior: Any, reference: Any) -> dict[str, Any]:
    """Verdict and errors of one fit."""
    truth, sites = posteriors.truth(reference), reference.NAMES
    began = time.perf_counter()
    corrected = compare(posterior.draws(NUM_DRAWS), sites, truth)
    drawing = time.perf_counter() - began
    raw = compare(posterior.draws(NUM_DRAWS, corrected=False), sites, truth)
    trust = posterior.trust
    return {
        "verdict": trust.verdict,
        "reasons": list(trust.reasons),
        "khat": finite(trust.khat),
        "correction": getattr(trust, "correction", "?"),
        "ess": finite(getattr(trust, "ess", None)),
        "elbo": finite(posterior.elbo),
        "log_evidence": finite(posterior.evidence.estimate),
        "true_log_evidence": finite(truth.log_evidence),
        "gradients": getattr(posterior.history, "num_gradients", None),
        "ended": str(getattr(posterior.history, "status", "")),
        "draws_s": drawing,
        "raw": raw.to_json(),
        "corrected": corrected.to_json(),
        "fine": corrected.fine,
        "rule": corrected.fine or trust.verdict != "good",
    }


# --- the table --------------------------------------------------------------------------------

HEADER = [
    "posterior", "D", "cold s", "warm s", "k-hat", "verdict", "raw mean", "raw sd",
    "mean error", "sd ratio", "correction", "rule", "worst",
]  # fmt: skip


def row(record: dict[str, Any]) -> list[str]:
    """One line of the table: the fit with the first seed, and the second one's time."""
    if record["status"] != "ok":
        blank = [""] * (len(HEADER) - 2)
        blank[4] = record["status"]
        return [record["name"], *blank, record["reason"].replace("|", "/")[:80]]
    first, second = record["value"]["fits"][:2]
    raw, corrected = first["raw"], first["corrected"]
    return [
        record["name"],
        str(record["value"]["dim"]),
        store.cell(first["seconds"]),
        store.cell(second["seconds"]),
        store.cell(first["khat"]),
        first["verdict"]
        + ("" if second["verdict"] == first["verdict"] else f"/{second['verdict']}"),
        store.cell(raw["mean_error"], 3, "inf"),
        store.cell(raw["sd_ratio"], 3, "inf"),
        store.cell(corrected["mean_error"], 3, "inf"),
        store.cell(corrected["sd_ratio"], 3, "inf"),
        first["correction"],
        ("holds" if all(f["rule"] for f in (first, second)) else "BROKEN")
        + ("" if first["fine"] and second["fine"] else ", off"),
        _where(corrected),
    ]


def _where(corrected: dict[str, Any]) -> str:
    share = "" if corrected["num_compared"] == corrected["num_known"] else (
        f" ({corrected['num_compared']} of {corrected['num_known']} compared)"
    )  # fmt: skip
    return f"{corrected['mean_at']}, {corrected['sd_at']}{share}"


def summary(records: list[dict[str, Any]]) -> list[str]:
    """What the table says in sentences; a fit is one seed of one posterior."""
    done = [r for r in records if r["status"] == "ok"]
    fits = [f for r in done for f in r["value"]["fits"]]
    lines = [f"{len(done)} of {len(records)} posteriors ended within the limit; {len(fits)} fits."]
    broken = sorted({r["name"] for r in done if not all(f["rule"] for f in r["value"]["fits"])})
    lines.append(
        f"Called good and wrong: {', '.join(broken)}."
        if broken
        else "None is called good and wrong."
    )
    small = [f for r in done if r["value"]["dim"] <= LARGE for f in r["value"]["fits"]]
    failed = sum(r["status"] != "ok" for r in records) * len(SEEDS)
    met = sum(f["fine"] and f["verdict"] in ("good", "usable") for f in small)
    total = len(small) + failed
    share = 100 * met / total if total else 0.0
    lines.append(
        f"D <= {LARGE}: {met} of {total} fits ({share:.0f}%) are accurate and called good or usable "
        "(those that did not end count as not)."
    )
    honest = sum(not f["fine"] and f["verdict"] == "usable" for f in fits)
    shy = sum(f["fine"] and f["verdict"] == "bad" for f in fits)
    lines.append(f"Usable but off: {honest}. Accurate but called bad: {shy}.")
    lines.append(_verdicts(fits))
    lines += _times(done)
    return lines


def _verdicts(fits: list[dict[str, Any]]) -> str:
    words = ("good", "usable", "bad")
    return (
        "Verdicts: " + ", ".join(f"{sum(f['verdict'] == w for f in fits)} {w}" for w in words) + "."
    )


def _times(done: list[dict[str, Any]]) -> list[str]:
    lines = []
    for label, i in (("cold", 0), ("warm", 1)):
        seconds = sorted(r["value"]["fits"][i]["seconds"] for r in done)
        if seconds:
            lines.append(
                f"Seconds {label}: median {statistics.median(seconds):.2f}, "
                f"largest {seconds[-1]:.2f}, sum {sum(seconds):.1f}."
            )
    return lines


def render(records: list[dict[str, Any]]) -> str:
    """Table and sentences, in Markdown."""
    rows = [row(r) for r in sorted(records, key=lambda r: r["name"])]
    note = (
        "Errors are the worst over all parameters: means in reference sds, sds as ratios to the "
        f"reference; raw: {NUM_DRAWS} draws of q. Two verdicts: the seeds differ. \"off\": with a "
        "seed, the corrected draws miss 0.1 sd or 10%."
    )  # fmt: skip
    return "\n".join(
        [store.table(HEADER, rows), "", note, "", *(f"- {s}" for s in summary(records))]
    )


def _options(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.reference",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--only", action="append", default=[], help="part of a name; repeatable")
    parser.add_argument("--out", type=Path, default=fresh.ROOT / "benchmarks" / "results")
    parser.add_argument("--limit", type=float, default=300.0, help="seconds per posterior")
    parser.add_argument("--keep", action="store_true", help="add to what the folder holds already")
    return parser.parse_args(arguments)


def main(arguments: list[str] | None = None) -> int:
    """Command line."""
    options = _options(arguments)
    only = options.only
    chosen = [n for n in posteriors.names() if not only or any(o in n for o in only)]
    if not chosen:
        print("No reference posteriors here (or none of that name): nothing to do.")
        return 0
    path = options.out / "reference.jsonl"
    if not options.keep:
        path.unlink(missing_ok=True)
    for name in chosen:
        found = fresh.call("benchmarks.reference:measure", {"name": name}, options.limit)
        record = {"name": name} | found
        store.append(path, record)
        print("| " + " | ".join(row(record)) + " |", flush=True)
    text = render(store.read(path, ("name",)))
    (options.out / "reference.md").write_text(text + "\n")
    print("\n" + text)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
