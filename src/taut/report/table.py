"""The summary table: cells with as many digits as each row's sd deserves."""

from __future__ import annotations

import math
from html import escape
from typing import Any

import pandas as pd

from taut.report.content import ReportContent
from taut.report.numbers import decimals_for, fixed, fmt
from taut.report.select import drifts, tight

MAX_ROWS = 500
SHORT_ROWS = 20


def summary_table(content: ReportContent) -> str:
    """The table of parameters, sortable by the page's script."""
    frame = content.summary
    total = len(frame)
    if total == 0:
        return "<p>There is no summary.</p>"
    frame = frame.assign(drift=_drifts(content)) if _wants_drift(content) else frame
    note = ""
    if total > MAX_ROWS:
        frame = _most_moved(frame)
        note = (
            f"<p>{MAX_ROWS} of {total} parameters are shown, those that moved most. "
            "<code>posterior.summary()</code> has them all.</p>"
        )
    heads = "".join(_head(str(c)) for c in frame.columns)
    rows = "".join(
        _row(str(label), row) for label, row in zip(frame.index, _rows(frame), strict=True)
    )
    button = '<button type="button" id="more" hidden></button>' if len(frame) > SHORT_ROWS else ""
    return (
        f'{note}<div class="scroll" tabindex="0" role="region" aria-label="Summary table">'
        f'<table id="summary" data-short="{SHORT_ROWS}"><caption class="hidden">Posterior summary, '
        f"one row per parameter</caption><thead><tr>{_head('parameter')}{heads}</tr></thead>"
        f"<tbody>{rows}</tbody></table></div>{button}"
    )


def _wants_drift(content: ReportContent) -> bool:
    return bool(content.drift) and "drift" not in content.summary.columns


def _drifts(content: ReportContent) -> list[float]:
    known = drifts(content)
    return [known.get(tight(str(label)), math.nan) for label in content.summary.index]


def _most_moved(frame: pd.DataFrame) -> pd.DataFrame:
    column = next((c for c in ("drift", "shift") if c in frame.columns), None)
    if column is None:
        return frame.head(MAX_ROWS)
    size = frame[column].abs().to_numpy()
    keep = sorted(sorted(range(len(frame)), key=lambda k: -_key(size[k]))[:MAX_ROWS])
    return frame.iloc[keep]


def _key(value: float) -> float:
    return math.inf if math.isnan(value) else float(value)


def _head(name: str) -> str:
    by_size = name in ("drift", "shift")
    size = ' data-size="1"' if by_size else ""
    words = escape(f"Sort by {'size of ' if by_size else ''}{name}")
    return (
        f'<th scope="col" aria-sort="none"{size}><button type="button" title="{words}">'
        f"{escape(name)}</button></th>"
    )


def _rows(frame: pd.DataFrame) -> list[dict[str, Any]]:
    columns = [str(c) for c in frame.columns]
    values = [frame.iloc[:, k].tolist() for k in range(len(columns))]
    return [dict(zip(columns, row, strict=True)) for row in zip(*values, strict=True)]


def _row(label: str, row: dict[str, Any]) -> str:
    sd = row.get("sd")
    decimals = decimals_for(float(sd)) if isinstance(sd, int | float) else None
    cells = "".join(
        f"<td>{escape(cell(name, value, decimals))}</td>" for name, value in row.items()
    )
    return f'<tr><th scope="row">{escape(label)}</th>{cells}</tr>'


def cell(column: str, value: Any, decimals: int | None) -> str:
    """Text of one cell.

    Args:
        column: Name of its column.
        value: What it holds.
        decimals: Decimals of the row's estimates, None for significant digits.

    Returns:
        The text, not yet escaped.
    """
    if value is None:
        return ""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return str(value)
    on_scale = column in ("mean", "sd", "median") or column.startswith(("hdi", "eti", "q"))
    if on_scale and decimals is not None:
        return fixed(value, decimals)
    if column.startswith("ess"):
        return fmt(round(value) if math.isfinite(value) else value, 4)
    if column in ("shift", "drift", "r_hat", "khat"):
        return fixed(value, 2)
    return fmt(value, 4 if on_scale else 3)
