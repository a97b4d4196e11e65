"""The page: one self-contained HTML file, readable without a network."""

from __future__ import annotations

import math
from collections.abc import Iterable
from html import escape
from importlib import resources

import numpy as np

from taut.report import figures, graph, predictive
from taut.report.content import ReportContent
from taut.report.select import worst
from taut.report.table import summary_table

MAX_MARGINALS = 12
MAX_PAIRS = 4
MAX_SITES = 6

# Word, sign and meaning, so that the verdict is never told by colour alone.
_VERDICTS = {
    "good": ("\u2713", "The approximation can be used as it is."),
    "usable": ("~", "The corrected draws can be used; q alone should not be."),
    "bad": ("\u2715", "Do not rely on these results."),
}


def render(content: ReportContent) -> str:
    """Renders a report.

    Args:
        content: What to show.

    Returns:
        One HTML5 page with its styles, drawings and script inside. It asks for nothing over the
        network, and the same content gives the same bytes.
    """
    sections = [
        ("summary-section", "Summary", _summary(content)),
        ("marginals", "Marginal densities", _marginals(content)),
        ("pairs", "Pairs", _pairs(content)),
        ("history", "ELBO history", _history(content)),
        ("predictive", "Posterior predictive check", _predictive(content)),
        ("graph", "The model's graph", _graph(content)),
        ("plan", "Plan", _plan(content)),
        ("derivation", "Derivation", _derivation(content)),
        ("versions", "Versions", _versions(content)),
    ]
    shown = [s for s in sections if s[2]]
    links = "".join(f'<a href="#{key}">{escape(name)}</a>' for key, name, _ in shown)
    body = "".join(
        f'<section id="{key}" aria-labelledby="{key}-h"><h2 id="{key}-h">{escape(name)}</h2>{inner}</section>'
        for key, name, inner in shown
    )
    return (
        '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        '<meta name="color-scheme" content="light dark">'
        '<meta http-equiv="Content-Security-Policy" content="default-src \'none\'; '
        "style-src 'unsafe-inline'; script-src 'unsafe-inline'\">"
        f"<title>{escape(content.title)} \u00b7 taut</title><style>{_asset('page.css')}</style></head>"
        f"<body><main><header><p class='kicker'>taut report</p><h1>{escape(content.title)}</h1>"
        f"{_banner(content)}{_facts(content)}<nav aria-label='Sections'>{links}</nav></header>"
        f"{body}</main><script>{_asset('page.js')}</script></body></html>\n"
    )


def _asset(name: str) -> str:
    return resources.files("taut.report").joinpath(name).read_text(encoding="utf-8")


def _list(items: Iterable[str]) -> str:
    return f"<ul>{''.join(f'<li>{escape(item)}</li>' for item in items)}</ul>"


def _banner(content: ReportContent) -> str:
    known = content.verdict in _VERDICTS
    sign, meaning = _VERDICTS.get(content.verdict, ("?", "No verdict was reached."))
    reasons = f"<h2>Why</h2>{_list(content.reasons)}" if content.reasons else ""
    advice = f"<h2>What to do</h2>{_list(content.advice)}" if content.advice else ""
    columns = (
        f'<div class="why"><div>{reasons}</div><div>{advice}</div></div>'
        if reasons or advice
        else ""
    )
    return (
        f'<div id="verdict" class="verdict {content.verdict if known else "unknown"}">'
        f'<p class="word"><span class="sign" aria-hidden="true">{sign}</span>'
        f"<span>Verdict: <strong>{escape(content.verdict)}</strong></span></p>"
        f"<p>{escape(meaning)}</p>{columns}</div>"
    )


def _facts(content: ReportContent) -> str:
    if not content.facts:
        return ""
    items = "".join(
        f"<div><dt>{escape(k)}</dt><dd>{escape(str(v))}</dd></div>"
        for k, v in content.facts.items()
    )
    return f'<dl class="facts" aria-label="Facts">{items}</dl>'


def _summary(content: ReportContent) -> str:
    return summary_table(content)


def _figure(drawing: str, caption: str = "", css: str = "") -> str:
    """A figure; the caption is HTML that is already escaped."""
    words = f"<figcaption>{caption}</figcaption>" if caption else ""
    return f'<figure class="{css}"><div class="plot">{drawing}</div>{words}</figure>'


def _legend(content: ReportContent) -> str:
    q = '<span><i class="key-q"></i>q, the fitted approximation</span>' if content.raw_draws else ""
    return f'<p class="legend"><span><i class="key"></i>corrected draws</span>{q}</p>'


def _marginals(content: ReportContent) -> str:
    chosen, total = worst(content, MAX_MARGINALS)
    if not chosen:
        return ""
    hidden = total - len(chosen)
    which = "with the largest drift" if content.drift else "that come first in the model"
    note = ""
    if hidden:
        note = f"<p>The {len(chosen)} parameters {which}; {hidden} of {total} are not shown.</p>"
    panels = "".join(_figure(figures.marginal(content, s)) for s in chosen)
    return f'{note}{_legend(content)}<div class="panels">{panels}</div>'


def _pairs(content: ReportContent) -> str:
    chosen, _ = worst(content, MAX_PAIRS)
    drawing = figures.pairs(content, chosen)
    if not drawing:
        return ""
    which = "with the largest drift" if content.drift else "that come first"
    rings = " Dashed lines enclose 50% and 90% of q." if content.raw_draws else ""
    caption = f"The parameters {which}. Dots are up to {figures.MAX_POINTS} corrected draws.{rings}"
    return _legend(content) + _figure(drawing, caption, "wide")


def _history(content: ReportContent) -> str:
    curve = figures.history(content.history)
    ends = figures.starts(content.starts)
    missing = sum(1 for _, value in content.history if not math.isfinite(value))
    lost = f" {missing} values were not finite and are left out." if missing else ""
    parts = []
    if curve:
        parts.append(_figure(curve, f"The ELBO by iteration.{lost}", "wide"))
    elif content.history:
        parts.append(f"<p>No value of the ELBO was finite ({missing} iterations).</p>")
    if ends:
        failed = sum(1 for value in content.starts if not math.isfinite(value))
        caption = f"Where each of {len(content.starts) - failed} restarts ended."
        caption += f" {failed} more ended at a value that is not finite." if failed else ""
        parts.append(_figure(ends, caption, "wide"))
    return "".join(parts)


def _predictive(content: ReportContent) -> str:
    sites = list(content.predictive.items())
    most = 30 if len(sites) <= 2 else 15
    parts = [_site(name, *values, most) for name, values in sites[:MAX_SITES]]
    if len(sites) > MAX_SITES:
        others = ", ".join(name for name, _ in sites[MAX_SITES:])
        parts.append(f"<p>Not shown: {escape(others)}.</p>")
    return "".join(parts)


def _site(name: str, observed: np.ndarray, replicated: np.ndarray, most: int) -> str:
    check = predictive.prepare(observed, replicated)
    head = f"<h3>{escape(name)}</h3>"
    if isinstance(check, str):
        return f"{head}<p>{escape(check)}</p>"
    overlay = predictive.overlay(check, name, most)
    plots = _figure(overlay, predictive.caption(check))
    drawing, sentence = predictive.intervals(check, name)
    if drawing:
        edge = " Squares at the edge lie beyond it." if predictive.outside(check) else ""
        plots += _figure(
            drawing, f"{sentence} Dots: observed; squares: observed, outside the 90% one.{edge}"
        )
    notes = f"<p>{escape(' '.join(check.notes))}</p>" if check.notes else ""
    return f'{head}{notes}<div class="duo">{plots}</div>{_statistics(check)}'


def _statistics(check: predictive.Check) -> str:
    rows = predictive.statistics(check)
    if not rows:
        return ""
    heads = ("statistic", "observed", "90% of replicates", "share of replicates above")
    head = "".join(f'<th scope="col">{h}</th>' for h in heads)
    body = "".join(
        f'<tr><th scope="row">{row[0]}</th>{"".join(f"<td>{c}</td>" for c in row[1:])}</tr>'
        for row in rows
    )
    return (
        f'<div class="scroll" tabindex="0"><table class="plain small"><thead><tr>{head}</tr></thead>'
        f"<tbody>{body}</tbody></table></div>"
    )


def _graph(content: ReportContent) -> str:
    if content.graph is None or not content.graph.nodes:
        return ""
    drawing = graph.draw(content.graph)
    if not drawing.startswith("<svg"):
        return drawing
    caption = (
        "Shaded: observed. Dashed: computed from its parents. Boxes: plates, with their sizes."
    )
    table = (
        f"<details><summary>The same as a table</summary>{graph.listing(content.graph)}</details>"
    )
    return _figure(drawing, caption, "wide natural") + table


def _plan(content: ReportContent) -> str:
    return f'<pre tabindex="0">{escape(content.plan)}</pre>' if content.plan else ""


def _derivation(content: ReportContent) -> str:
    if not content.derivation:
        return ""
    latex = f'<pre tabindex="0">{escape(content.derivation_latex)}</pre>'
    return (
        "<p>Coordinate ascent on the ELBO of this model: its factors, their updates with the numbers "
        "of this fit, and the ELBO site by site, in nats.</p>"
        f'<pre tabindex="0">{escape(content.derivation)}</pre>'
        f"<details><summary>The same in LaTeX</summary>{latex}</details>"
    )


def _versions(content: ReportContent) -> str:
    words = ", ".join(f"{escape(k)} {escape(str(v))}" for k, v in content.versions.items())
    return f"<p>{words}</p>" if words else ""
