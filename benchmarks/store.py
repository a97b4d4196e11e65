"""Results as JSON lines: one record per line, appended as soon as it is known."""

import json
from pathlib import Path
from typing import Any


def append(path: Path, record: dict[str, Any]) -> None:
    """Add one record; the folder is made if missing."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a") as handle:
        handle.write(json.dumps(record) + "\n")


def read(path: Path, key: tuple[str, ...]) -> list[dict[str, Any]]:
    """All records; of several with the same ``key`` fields the last one holds."""
    lines = [json.loads(line) for line in path.read_text().splitlines() if line.strip()]
    return list({tuple(r.get(k) for k in key): r for r in lines}.values())


def cell(value: float | None, digits: int = 2, empty: str = "-") -> str:
    """A number for a table, with ``digits`` decimals, or ``empty``."""
    return empty if value is None else f"{value:.{digits}f}"


def table(header: list[str], rows: list[list[str]], left: int = 1) -> str:
    """A Markdown table; the first ``left`` columns are text."""
    marks = [":--"] * left + ["--:"] * (len(header) - left)
    return "\n".join("| " + " | ".join(row) + " |" for row in [header, marks, *rows])
