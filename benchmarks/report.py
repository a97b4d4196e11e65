"""Tables and a plot from the records of ``benchmarks.compare``.

python -m benchmarks.report benchmarks/results/compare.jsonl
"""

import argparse
import math
import statistics
from pathlib import Path
from typing import Any

from benchmarks import store
from benchmarks.methods import METHODS

Record = dict[str, Any]
HEADER = [
    "method", "rate", "cold end s", "cold accurate s", "warm end s", "warm accurate s",
    "ELBO", "mean error", "sd ratio", "what it says",
]  # fmt: skip
PHASES = (("cold", 0), ("warm", 1))
MARGIN = 0.05  # nats by which a bound may be lower than a peer's


def load(path: Path) -> list[Record]:
    """Records of a file; of repeated ones the last holds."""
    return store.read(path, ("model", "method", "rate"))


def accurate(record: Record, phase: int) -> float:
    """Seconds to accuracy; infinite if never."""
    if record["status"] != "ok":
        return math.inf
    found = record["value"]["runs"][phase]["accurate"]
    return math.inf if found is None else found


def bound(record: Record) -> float:
    """The better ELBO of the two fits; -inf where there is none."""
    if record["status"] != "ok":
        return -math.inf
    found = [r["elbo"] for r in record["value"]["runs"] if r["elbo"] is not None]
    return max(found, default=-math.inf)


def best_rates(records: list[Record]) -> list[Record]:
    """Of each method and model the rate that was accurate first, else had the best bound."""
    groups: dict[tuple[str, str], list[Record]] = {}
    for record in records:
        groups.setdefault((record["model"], record["method"]), []).append(record)
    return [min(g, key=lambda r: (accurate(r, 0), -bound(r))) for g in groups.values()]


# --- tables -----------------------------------------------------------------------------------


def _row(record: Record) -> list[str]:
    method = METHODS[record["method"]]
    name = method.label + (" [*]" if method.note else "")
    rate = f"{record['rate']:g}" if record["rate"] else ""
    if record["status"] != "ok":
        said = f"{record['status']}: {record['reason']}".replace("|", "/")[:100]
        return [name, rate, *[""] * (len(HEADER) - 3), said]
    cold, warm = record["value"]["runs"]
    errors = cold["accuracy"]
    return [
        name,
        rate,
        store.cell(cold["seconds"]),
        store.cell(cold["accurate"], 2, "never"),
        store.cell(warm["seconds"]),
        store.cell(warm["accurate"], 2, "never"),
        store.cell(cold["elbo"], 3),
        store.cell(errors["mean_error"], 3, "inf"),
        store.cell(errors["sd_ratio"], 3, "inf"),
        cold["verdict"] or cold["ended"],
    ]


def tables(records: list[Record]) -> str:
    """One table per model."""
    parts = []
    for model in dict.fromkeys(r["model"] for r in records):
        rows = [_row(r) for r in records if r["model"] == model]
        parts.append(f"### {model}\n\n{store.table(HEADER, rows)}\n")
    return "\n".join(parts)


def _notes(records: list[Record]) -> list[str]:
    used = dict.fromkeys(r["method"] for r in records)
    return [f"[*] {METHODS[m].note}." for m in used if METHODS[m].note]


# --- comparison -------------------------------------------------------------------------------


def _ratio(ours: float, theirs: float) -> float | None:
    """Our time over theirs; None if neither got there."""
    if math.isinf(ours) and math.isinf(theirs):
        return None
    return math.inf if math.isinf(ours) else ours / theirs


def _ratio_cell(ratio: float | None) -> str:
    if ratio is None:
        return "-"
    return "inf" if math.isinf(ratio) else ("0 (peers never)" if ratio == 0 else f"{ratio:.3g}")


def speed(records: list[Record]) -> str:
    """Time to accuracy of taut over that of the best peer, model by model, and the medians."""
    header = ["model", "cold: taut s", "best peer s", "which", "ratio"]
    header += ["warm: taut s", "best peer s", "which", "ratio"]
    rows, ratios = [], {"cold": [], "warm": []}
    for model in dict.fromkeys(r["model"] for r in records):
        own = [r for r in records if r["model"] == model and METHODS[r["method"]].role == "taut"]
        peers = [r for r in records if r["model"] == model and METHODS[r["method"]].role == "peer"]
        peers = [r for r in peers if r["status"] != "skipped"]
        if not own or not peers:
            continue
        cells = [model]
        for label, phase in PHASES:
            ours, best = accurate(own[0], phase), min(peers, key=lambda r: accurate(r, phase))
            theirs = accurate(best, phase)
            ratio = _ratio(ours, theirs)
            ratios[label] += [] if ratio is None else [ratio]
            which = "none" if math.isinf(theirs) else best["method"]
            cells += [_seconds(ours), _seconds(theirs), which, _ratio_cell(ratio)]
        rows.append(cells)
    medians = [
        f"Median {label} ratio: {_ratio_cell(statistics.median(found))} over {len(found)} models; "
        f"no peer got there in {found.count(0.0)}, taut not in {found.count(math.inf)}."
        for label, found in ratios.items()
        if found
    ]
    return "\n".join([store.table(header, rows), "", *(f"- {m}" for m in medians)]) if rows else ""


def _seconds(value: float) -> str:
    return "never" if math.isinf(value) else f"{value:.2f}"


def bounds(records: list[Record]) -> str:
    """ELBO of taut minus that of the best peer with the same family."""
    header, rows, low = ["model", "family", "taut", "best peer", "difference", "which"], [], []
    for model in dict.fromkeys(r["model"] for r in records):
        for family in ("diagonal", "dense"):
            same = [
                r for r in records if r["model"] == model and METHODS[r["method"]].family == family
            ]
            own = [bound(r) for r in same if METHODS[r["method"]].role == "bound"]
            peers = [r for r in same if METHODS[r["method"]].role == "peer"]
            if not own or not peers or math.isinf(max(map(bound, peers))):
                continue
            best = max(peers, key=bound)
            gap = max(own) - bound(best)
            low += [f"{model} ({family}, {gap:+.3f})"] if gap < -MARGIN else []
            numbers = [f"{max(own):.3f}", f"{bound(best):.3f}", f"{gap:+.3f}"]
            rows.append([model, family, *numbers, best["method"]])
    if not rows:
        return ""
    said = f"Lower by more than {MARGIN} nat: {', '.join(low) or 'none'}."
    return "\n".join([store.table(header, rows, left=2), "", f"- {said}"])


def render(records: list[Record]) -> str:
    """Everything, in Markdown."""
    chosen = best_rates(records)
    parts = [
        "# Time to accuracy\n",
        "Accurate: all posterior means within 0.1 sd of the known ones, from then on. End of a "
        "stepwise method: the first time its ELBO is within 0.1 nat of the best it reaches. Of "
        "several learning rates the best one is shown, and only its time counts.\n",
        "## taut over the best other variational method\n",
        speed(chosen),
        "\n## ELBO with the same family (nats)\n",
        bounds(records),
        "\n![time to accuracy](compare.svg)\n",
        "## By model\n",
        tables(chosen),
        *_notes(chosen),
    ]
    return "\n".join(parts)


# --- plot -------------------------------------------------------------------------------------


def plot(records: list[Record], path: Path) -> None:
    """Seconds to accuracy by model: hollow is cold, filled is warm, the top line is never."""
    from matplotlib.backends.backend_svg import FigureCanvasSVG
    from matplotlib.figure import Figure

    models = list(dict.fromkeys(r["model"] for r in records))
    used = [m for m in METHODS if any(r["method"] == m for r in records)]
    used = [m for m in used if METHODS[m].role != "bound"]
    times = [accurate(r, p) for r in records for _, p in PHASES]
    never = 3 * max((t for t in times if math.isfinite(t)), default=1.0)
    figure = Figure(figsize=(max(7.0, 1.3 * len(models) + 2), 5.4), layout="constrained")
    axes = figure.subplots()
    for i, method in enumerate(used):
        shift = (i - (len(used) - 1) / 2) * 0.8 / max(len(used), 1)
        _points(axes, [r for r in records if r["method"] == method], models, shift, i, never)
    axes.axhline(never, color="0.6", linewidth=0.8, linestyle=":")
    axes.text(-0.45, never * 1.08, "never", color="0.4", fontsize=8)
    axes.set_yscale("log")
    axes.set_xticks(range(len(models)), models, rotation=20 if len(models) < 8 else 60, ha="right")
    axes.set_xlim(-0.5, len(models) - 0.5)
    axes.set_ylabel("seconds until all means are within 0.1 sd")
    axes.set_title("hollow: first fit of a process; filled: the next", fontsize=9)
    figure.legend(fontsize=7, loc="outside lower center", ncols=3, frameon=False)
    FigureCanvasSVG(figure).print_svg(path, metadata={"Date": None})


def _points(
    axes: Any, records: list[Record], models: list[str], shift: float, index: int, never: float
) -> None:
    colour, marker = f"C{index}", "osD^vP*Xph"[index % 10]
    label = METHODS[records[0]["method"]].label
    label += " (wrong gradient sign)" if METHODS[records[0]["method"]].note else ""
    shown = [r for r in records if r["status"] != "skipped"]
    for name, phase in PHASES:
        x = [models.index(r["model"]) + shift for r in shown]
        y = [min(accurate(r, phase), never) for r in shown]
        face = "none" if name == "cold" else colour
        axes.scatter(x, y, s=30, marker=marker, facecolors=face, edgecolors=colour,
                     label=label if name == "warm" else None)  # fmt: skip


def write(path: Path) -> str:
    """Write ``compare.md`` and ``compare.svg`` beside the records; the text is also returned."""
    records = load(path)
    text = render(records)
    path.with_suffix(".md").write_text(text + "\n")
    try:
        plot(best_rates(records), path.with_suffix(".svg"))
    except ModuleNotFoundError:
        print("no plot: matplotlib is not installed")
    return text


def main(arguments: list[str] | None = None) -> int:
    """Command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.report", description=__doc__)
    parser.add_argument("results", type=Path, help="a file that benchmarks.compare wrote")
    print(write(parser.parse_args(arguments).results))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
