r"""A derivation as LaTeX: macros and one align* environment."""

import re
from typing import TYPE_CHECKING

import numpy as np

from taut.derivation.notation import LATEX, Formula, escaped
from taut.derivation.records import Parameter, Site

if TYPE_CHECKING:
    from taut.derivation.derivation import Derivation

MACROS = (r"\providecommand{\E}{\mathbb{E}}", r"\providecommand{\KL}{\mathrm{KL}}")
SHOWN = 6
PER_LINE = 120  # characters of source in one line of an equation


def page(d: "Derivation", standalone: bool) -> str:
    """Macros and formulas; a whole document if ``standalone``."""
    lines = [*MACROS, r"\begin{align*}", " \\\\\n".join(_lines(d)), r"\end{align*}"]
    if not standalone:
        return "% needs \\usepackage{amsmath,amssymb}\n" + "\n".join(lines)
    head = [r"\documentclass{article}", r"\usepackage{amsmath,amssymb}", r"\allowdisplaybreaks"]
    title = f"\\section*{{Variational inference of {escaped(d.name)}}}"
    return "\n".join([*head, r"\begin{document}", title, *lines, r"\end{document}"])


def inline(d: "Derivation") -> str:
    """Formulas for a notebook's MathJax, macros written out."""
    body = " \\\\\n".join(_lines(d))
    body = re.sub(r"\\E(?![A-Za-z])", r"\\mathbb{E}", body)
    body = re.sub(r"\\KL(?![A-Za-z])", r"\\mathrm{KL}", body)
    return f"$$\\begin{{aligned}}\n{body}\n\\end{{aligned}}$$"


def array(x: np.ndarray) -> str:
    """A scalar or short vector in full, anything larger as shape and norm."""
    x = np.squeeze(np.asarray(x))
    if x.ndim == 0:
        return LATEX.number(float(x))
    if x.ndim == 1 and x.size <= SHOWN:
        return f"({', '.join(LATEX.number(v) for v in x)})"
    shape = r" \times ".join(map(str, x.shape))
    return f"\\langle {shape},\\ \\text{{norm }} {LATEX.number(float(np.linalg.norm(x)))} \\rangle"


# --- sections -------------------------------------------------------------------------------------


def _lines(d: "Derivation") -> list[str]:
    found = [_heading("The model"), *(_model(s) for s in d.sites)]
    found += [_heading("The variational family"), _aligned(d.factorisation.latex, "=")]
    found += [f"&{f.formula.latex}\\text{{: {escaped(f.family)}}}" for f in d.factors]
    found += [
        _heading("The expected log joint"),
        r"F &= \E[\log p] = \sum_{\text{sites}} \E[\log p(\text{site})]",
    ]
    for s in d.sites:
        found += _site(s)
    found.append(_heading("The updates, and their values at the optimum"))
    for f in d.factors:
        found.append(f"&{f.formula.latex}\\text{{: {escaped(f.family)}}}")
        for p in f.parameters:
            found += _parameter(p)
    if d.constants:
        found.append(_heading("where"))
        found += [
            f"{c.symbol.latex} &= {array(c.value)} \\quad \\text{{({escaped(c.what)})}}"
            for c in d.constants
        ]
    return [*found, _heading("The bound, in nats"), *_bound(d)]


def _heading(words: str) -> str:
    return f"&\\textbf{{{escaped(words)}}}"


def _aligned(formula: str, at: str) -> str:
    left, _, right = formula.partition(f" {at} ")
    return f"{left} &{at} {right}"


def _model(s: Site) -> str:
    formula = _aligned(s.formula.latex, r"\sim") if r" \sim " in s.formula.latex else (
        f"&{s.formula.latex}"
    )  # fmt: skip
    marks = [f"{name} ({size})" for name, size in s.plates]
    marks += [] if s.kind == "latent" else [s.kind]
    return formula + (f" \\qquad \\text{{{escaped(', '.join(marks))}}}" if marks else "")


def _site(s: Site) -> list[str]:
    how = "; ".join(m for m in s.methods if m != "exact") or "exact"
    head = f"\\E[\\log p({LATEX.name(s.name)})]"
    value = f"{LATEX.number(s.expected)} \\quad \\text{{({escaped(how)})}}"
    if not s.terms:
        return [f"{head} &= {value}"]
    return [*_equation(head, [t.latex for t in s.terms]), f"&= {value}"]


def _parameter(p: Parameter) -> list[str]:
    found = [f"{_left(p.symbol)} &= {p.rule.latex}"]
    if p.written and r"\mathrel{+}=" in p.written[0].latex:
        found += [w.latex.replace(r" \mathrel{+}= ", r" &\mathrel{+}= ", 1) for w in p.written]
    elif p.written:
        found += _equation("", [w.latex for w in p.written])
    sent = [f"\\underbrace{{{array(m)}}}_{{{_site_name(s)}}}" for s, m in p.messages.items()]
    sent = [LATEX.number(p.offset), *sent] if p.offset else sent
    found += _equation("", [f"{'+ ' if k else ''}{x}" for k, x in enumerate(sent)])
    return [*found, f"&= {array(p.value)}"]


def _left(symbol: Formula) -> str:
    return symbol.latex.replace(" = ", " := ")


def _site_name(site: str) -> str:
    return f"\\text{{{escaped(site)}}}"


def _equation(left: str, parts: list[str]) -> list[str]:
    """An equation over as many lines as it takes."""
    lines, line = [], f"{left} &= "
    for part in parts:
        if len(line) + len(part) > PER_LINE and not line.endswith("&= "):
            lines.append(line.rstrip())
            line = "&\\quad "
        line += part + " "
    return [*lines, line.rstrip()]


def _bound(d: "Derivation") -> list[str]:
    rows = []
    for name, value in d.expected_log_likelihood.items():
        x = LATEX.name(name)
        rows.append(f"\\E[\\log p({x} \\mid \\text{{parents}})] &= {value:.6f}")
    for f in d.factors:
        x = ", ".join(LATEX.name(n) for n in f.latents)
        rows.append(f"\\KL(q({x}) \\,\\|\\, p({x} \\mid \\text{{parents}})) &= {f.kl:.6f}")
    total = r"\text{ELBO} &= \sum \E[\log p(\text{data} \mid \text{parents})] - \sum \KL"
    return [*rows, f"{total} = {d.elbo:.6f}"]
