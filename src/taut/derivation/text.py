"""A derivation as plain text."""

from typing import TYPE_CHECKING

import numpy as np

from taut.derivation.notation import plain_number
from taut.derivation.records import Constant, Factor, Parameter, Site

if TYPE_CHECKING:
    from taut.derivation.derivation import Derivation

WIDTH = 96
SHOWN = 6  # elements that are written out; larger arrays by shape and norm


def page(d: "Derivation") -> str:
    """The whole derivation."""
    parts = [
        f"Variational inference of {d.name}", _model(d), _family(d),
        _integrals(d), _updates(d), _constants(d), _bound(d),
    ]  # fmt: skip
    return "\n\n".join(p for p in parts if p)


def array(x: np.ndarray) -> str:
    """A scalar or short vector in full, anything larger as shape and norm."""
    x = np.squeeze(np.asarray(x))
    if x.ndim == 0:
        return plain_number(float(x))
    if x.ndim == 1 and x.size <= SHOWN:
        return f"[{', '.join(plain_number(v) for v in x)}]"
    if x.ndim == 2 and x.size <= SHOWN:
        return f"[{', '.join(array(row) for row in x)}]"
    shape = " x ".join(map(str, x.shape))
    return f"<{shape}, norm {plain_number(float(np.linalg.norm(x)))}>"


def residual(p: Parameter) -> float:
    """Largest distance from the update, relative to the largest element or 1."""
    away = np.abs(np.asarray(p.optimum) - p.value)
    finite = away[np.isfinite(away)]
    scale = 1.0 + np.max(np.abs(p.value[np.isfinite(p.value)]), initial=0.0)
    return float(np.max(finite, initial=0.0) / scale)


# --- sections -------------------------------------------------------------------------------------


def _model(d: "Derivation") -> str:
    lines = [f"  {s.formula.text}{_shape(s)}{_marks(s)}" for s in d.sites]
    if d.indices:
        of = ", ".join(f"{letter} = 0..{n - 1} ({dim})" for letter, dim, n in d.indices)
        lines += _wrapped(f"indices: {of}", "  ")
    return "\n".join(["1. The model", *lines])


def _shape(site: Site) -> str:
    return f"  [{', '.join(map(str, site.shape))}]" if site.shape else ""


def _marks(site: Site) -> str:
    plates = ", ".join(f"{name} ({size})" if size else name for name, size in site.plates)
    plates = f"  in {plates}" if plates else ""
    return f"{plates}{'' if site.kind == 'latent' else '  ' + site.kind}"


def _family(d: "Derivation") -> str:
    lines = ["2. The variational family", f"  {d.factorisation.text}"]
    width = max(len(f.formula.text) for f in d.factors)
    for f in d.factors:
        lines.append(f"  {f.formula.text:<{width}}  {f.family}:")
        lines += _wrapped(f.why, " " * (width + 4))
    lines += [
        "  The ELBO is F + entropy of q, with F = E_q[log p(data, latents)], a sum over sites.",
        "  Each factor's optimum, others fixed, has the natural parameter dF/dmu, the gradient of F",
        "  with respect to the factor's mean parameter mu (the mean of its sufficient statistics).",
    ]
    return "\n".join(lines)


def _integrals(d: "Derivation") -> str:
    lines = ["3. The expected log joint F, site by site"]
    for s in d.sites:
        methods = "; ".join(m for m in s.methods if m != "exact") or "exact"
        lines.append(f"  E[log p({s.name})] = {plain_number(s.expected)}   ({methods})")
        if s.terms:
            lines += [f"      {'= ' if not k else '  '}{t.text}" for k, t in enumerate(s.terms)]
    return "\n".join(lines)


def _updates(d: "Derivation") -> str:
    lines = ["4. The updates, and their values at the optimum"]
    for f in d.factors:
        lines.append(f"  {f.formula.text}: {f.family}")
        for p in f.parameters:
            lines += _parameter(p, f)
    lines.append(
        f"  Every factor is at its own update to within {d.residual:.1g} (relative); "
        f"{len(d.history) - 1} sweeps; {d.status.value}."
    )
    return "\n".join(lines)


def _parameter(p: Parameter, f: Factor) -> list[str]:
    lines = [f"    {p.symbol.text} = {p.rule.text}"]
    if p.written and "+=" in p.written[0].text:
        lines += [f"        {w.text}" for w in p.written]
    elif p.written:
        lines += _packed([w.text for w in p.written], "        = ", "          ")
    sent = [f"{array(m)} ({site})" for site, m in p.messages.items()]
    sent = [plain_number(p.offset), *sent] if p.offset else sent
    lines += _packed(
        [f"{'+ ' if k else ''}{x}" for k, x in enumerate(sent)], "        = ", "          "
    )
    lines.append(f"        = {array(p.value)}")
    return lines


def _constants(d: "Derivation") -> str:
    if not d.constants:
        return ""
    return "\n".join(["  where", *(f"    {_constant(c)}" for c in d.constants)])


def _constant(c: Constant) -> str:
    return f"{c.symbol.text} = {array(c.value)}   ({c.what})"


def _bound(d: "Derivation") -> str:
    rows = [(f"E[log p({n} | parents)]", v) for n, v in d.expected_log_likelihood.items()]
    rows += [(f"- KL(q({n}) || p({n} | parents))", -v) for n, v in d.kl.items()]
    width = max(len(label) for label, _ in rows)
    lines = ["5. The ELBO, nats", "  sum of expected log likelihoods - sum of KL divergences"]
    lines += [f"  {label:<{width}}  {v:>16.6f}" for label, v in rows]
    lines.append(f"  {'ELBO':<{width}}  {sum(v for _, v in rows):>16.6f}")
    lines += [
        "  KL(q(x) || p(x | parents)) = -(E[log p(x | parents)] + entropy of q(x)), averaged over q of",
        "  the parents.",
    ]
    return "\n".join(lines)


# --- lines ----------------------------------------------------------------------------------------


def _wrapped(words: str, indent: str) -> list[str]:
    return _packed(words.split(" "), indent, indent + "  ")


def _packed(parts: list[str], first: str, rest: str) -> list[str]:
    """Parts separated by spaces, in lines of limited width."""
    lines, line = [], first
    for part in parts:
        if len(line) + len(part) > WIDTH and line.strip() not in ("", "="):
            lines.append(line.rstrip())
            line = rest
        line += part + " "
    return [*lines, line.rstrip()]
