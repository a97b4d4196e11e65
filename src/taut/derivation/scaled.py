r"""Updates of a Gaussian block joined with its precision: the normal-gamma distribution.

.. math:: q(w, \tau) = N(w \mid m, V / \tau)\, \mathrm{Gamma}(\tau \mid a, b)

has the statistics :math:`\tau w w^\top, \tau w, \tau, \log \tau` (Bishop 2006, section 2.3.6).
"""

from collections.abc import Mapping
from typing import Any

import jax
import numpy as np

from taut.derivation.conjugate import LOG, ONE, gradient
from taut.derivation.gaussian import precision_symbol, read_off
from taut.derivation.notation import AbstractNotation, Formula, both
from taut.derivation.records import Parameter
from taut.derivation.terms import Writer
from taut.expectation.gaussian import Scaled
from taut.expectation.terms import Power, Term, Terms
from taut.expectation.transform import Compiled


def parameters(
    name: str,
    q: Mapping[str, Any],
    sites: Mapping[str, Compiled],
    writers: Mapping[str, Writer],
    terms: Mapping[str, Terms],
) -> tuple[Parameter, ...]:
    """The four parameters; see :func:`taut.derivation.conjugate.parameters` for the arguments."""
    factor: Scaled = q[name]
    tau, m = factor.precision_name, np.asarray(factor.normal.mean)[0]
    p = np.linalg.inv(np.asarray(factor.normal.covariance)[0])
    a, b = 1.0 + np.asarray(factor.precision.natural[0]), -np.asarray(factor.precision.natural[1])
    sent = {s: _message(q, name, c, m) for s, c in sites.items()}
    square = 0.5 * m @ p @ m
    offset = 1.0 - 0.5 * len(m)
    of_b = {s: np.asarray(-x[2]) for s, x in sent.items()} | {
        "completed square": np.asarray(-square)
    }
    lines: dict[int, list[Formula]] = {1: [], 2: []}
    pulled: dict[str, list[Formula]] = {"a": [], "b": []}
    for site, these in terms.items():
        for term in these:
            _sort(term, factor, writers[site], lines, pulled)
    return (
        Parameter(both(precision_symbol), both(lambda n: _rule(tau, "matrix", n)),
                  tuple(lines[2]), p, 0.0, {s: x[0] for s, x in sent.items()}),
        Parameter(both(lambda n: f"h = {precision_symbol(n)} m"),
                  both(lambda n: _rule(tau, "vector", n)),
                  tuple(lines[1]), p @ m, 0.0, {s: x[1] for s, x in sent.items()}),
        Parameter(both(lambda n: n.name("a")), both(lambda n: _rule(tau, "log", n)),
                  tuple(pulled["a"]), np.asarray(a), offset, {s: x[3] for s, x in sent.items()}),
        Parameter(both(lambda n: n.name("b")), both(lambda n: _rule(tau, "level", n)),
                  tuple(pulled["b"]), np.asarray(b), 0.0, of_b),
    )  # fmt: skip


def _message(q: Mapping[str, Any], name: str, c: Compiled, m: np.ndarray) -> tuple[np.ndarray, ...]:
    """A site's gradient with respect to the means of -tau w w'/2, tau w, tau and log tau."""
    got = jax.grad(lambda f: c({**q, name: f}))(q[name])
    mean_tau = float(q[name].precision.mean[1])
    slope, bend = np.asarray(got.normal.mean)[0], np.asarray(got.normal.covariance)[0]
    bend = 0.5 * (bend + bend.T)
    linear = slope / mean_tau - 2.0 * bend @ m
    level = np.asarray(got.precision.mean[1]) - m @ bend @ m - linear @ m
    return -2.0 * bend, linear, np.asarray(level), np.asarray(got.precision.mean[0])


def _sort(
    term: Term, factor: Scaled, writer: Writer, lines: dict[int, list[Formula]],
    pulled: dict[str, list[Formula]],
) -> None:  # fmt: skip
    """Write a term as a part of the parameter that it contributes to."""
    tau = factor.precision_name
    power = next((p for e, p in term.powers if e.latent == tau), Power())
    rest = Term(
        term.operands, term.exponents, term.functions, term.scale, term.linear,
        tuple((e, p) for e, p in term.powers if e.latent != tau), term.onehots,
    )  # fmt: skip
    if power == LOG:
        pulled["a"].append(_added("a", *writer.summand(rest)))
    elif power == ONE and not any(e.latent in factor.normal.names for e in rest.linear):
        pulled["b"].append(_added("b", *writer.summand(rest, sign=-1.0)))
    elif power == ONE:
        read_off(rest, factor.normal, writer, lines)


def _added(symbol: str, sign: float, body: Formula) -> Formula:
    minus = "-" if sign < 0 else ""
    return Formula(
        f"{symbol} += {minus}{body.text}", rf"{symbol} \mathrel{{+}}= {minus}{body.latex}"
    )


def _rule(tau: str, which: str, n: AbstractNotation) -> str:
    t = n.name(tau)
    if which == "matrix":
        return f"-2 {gradient(n.mean(n.product([t, 'w', n.words('w^T')])), n)}"
    if which == "vector":
        return gradient(n.mean(n.product([t, "w"])), n)
    if which == "log":
        return f"1 + {gradient(n.mean(n.function('log', t)), n)} - {n.words('dim')} / 2"
    return f"-{gradient(n.mean(t), n)} - {n.ratio('1', '2')} {n.product(['m', 'h'])}"
