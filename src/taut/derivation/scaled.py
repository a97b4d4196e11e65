r"""Updates of a Gaussian block joined with its precisions: normal-gamma and normal-Wishart.

.. math:: q(w, \tau) = N(w \mid m, V / \tau)\, \mathrm{Gamma}(\tau \mid a, b)

has the statistics :math:`\tau w w^\top, \tau w, \tau, \log \tau`, and with a matrix for its precision
:math:`w^\top \Lambda w, \Lambda w, \Lambda, \log|\Lambda|`; see :mod:`taut.expectation.scaled`.
"""

from collections.abc import Mapping
from typing import Any

import jax
import numpy as np

from taut.derivation.conjugate import LOG, ONE, gradient
from taut.derivation.gaussian import precision_symbol, read_off
from taut.derivation.notation import LATEX, AbstractNotation, Formula, both
from taut.derivation.records import Parameter
from taut.derivation.terms import Writer
from taut.expectation import scaled
from taut.expectation.gaussian import Scaled
from taut.expectation.scaled import Natural
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
    now = scaled.natural_of(factor)
    sent = {s: _message(q, name, c) for s, c in sites.items()}
    if factor.is_matrix:
        return _of_matrix(factor, now, sent)
    return _of_scalar(factor, now, sent, _written(factor, writers, terms))


def _message(q: Mapping[str, Any], name: str, c: Compiled) -> Natural:
    """A site's gradient with respect to the mean parameters."""
    factor = q[name]
    return scaled.gradient(factor, jax.grad(lambda f: c({**q, name: f}))(factor))


def _of_scalar(
    factor: Scaled, now: Natural, sent: Mapping[str, Natural], written: Mapping[str, Any]
) -> tuple[Parameter, ...]:
    """V^-1, h, a and b of the normal-gamma."""
    tau, shape = factor.precision_name, factor.precision.shape
    offset = 1.0 - 0.5 * factor.size
    a, b = 1.0 + factor.precision.natural[0], -factor.precision.natural[1]
    square = -0.5 * np.einsum("bi,bi->b", factor.normal.mean, now.linear)
    of_a = {s: np.asarray(x.log).reshape(shape) for s, x in sent.items()}
    of_b = {s: np.asarray(-x.level).reshape(shape) for s, x in sent.items()}
    of_b["completed square"] = square.reshape(shape)
    return (
        Parameter(both(precision_symbol), both(lambda n: _rule(tau, "matrix", n)),
                  written["square"], -2.0 * np.asarray(now.square), 0.0,
                  {s: -2.0 * np.asarray(x.square) for s, x in sent.items()}),
        Parameter(both(lambda n: f"h = {precision_symbol(n)} m"),
                  both(lambda n: _rule(tau, "vector", n)),
                  written["linear"], np.asarray(now.linear), 0.0,
                  {s: np.asarray(x.linear) for s, x in sent.items()}),
        Parameter(both(lambda n: n.name("a")), both(lambda n: _rule(tau, "log", n)),
                  written["a"], np.asarray(a), offset, of_a),
        Parameter(both(lambda n: n.name("b")), both(lambda n: _rule(tau, "level", n)),
                  written["b"], np.asarray(b), 0.0, of_b),
    )  # fmt: skip


def _of_matrix(factor: Scaled, now: Natural, sent: Mapping[str, Natural]) -> tuple[Parameter, ...]:
    """kappa, h, nu and W^-1 of the normal-Wishart; its rules are not written out."""
    name, size = factor.precision_name, factor.size
    power, inverse = factor.precision.natural
    pair = -np.einsum("bi,bj->bij", now.linear, factor.normal.mean).reshape(inverse.shape)
    of_inverse = {s: np.asarray(-2.0 * x.level).reshape(inverse.shape) for s, x in sent.items()} | {
        "completed square": pair
    }
    return (
        Parameter(both(lambda n: n.name("kappa")), both(lambda n: _matrix_rule(name, "kappa", n)),
                  (), _kappa(now), 0.0, {s: _kappa(x) for s, x in sent.items()}),
        Parameter(both(lambda n: f"h = {n.name('kappa')} m"),
                  both(lambda n: _matrix_rule(name, "vector", n)), (), np.asarray(now.linear), 0.0,
                  {s: np.asarray(x.linear) for s, x in sent.items()}),
        Parameter(both(lambda n: n.name("nu")), both(lambda n: _matrix_rule(name, "nu", n)),
                  (), np.asarray(2.0 * power + size + 1.0), float(size),
                  {s: np.asarray(2.0 * x.log).reshape(power.shape) for s, x in sent.items()}),
        Parameter(both(_inverse_scale), both(lambda n: _matrix_rule(name, "level", n)),
                  (), -2.0 * np.asarray(inverse), 0.0, of_inverse),
    )  # fmt: skip


def _kappa(natural: Natural) -> np.ndarray:
    return -2.0 * np.asarray(natural.square)[:, 0, 0]


def _written(
    factor: Scaled, writers: Mapping[str, Writer], terms: Mapping[str, Terms]
) -> dict[str, tuple[Formula, ...]]:
    """Every parameter as its sites make it up, where one precision serves the whole block."""
    lines: dict[int, list[Formula]] = {1: [], 2: []}
    pulled: dict[str, list[Formula]] = {"a": [], "b": []}
    if factor.precision.shape == ():
        for site, these in terms.items():
            for term in these:
                _sort(term, factor, writers[site], lines, pulled)
    found = {"square": lines[2], "linear": lines[1], **pulled}
    return {k: tuple(v) for k, v in found.items()}


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


def _matrix_rule(name: str, which: str, n: AbstractNotation) -> str:
    x, w = n.name(name), n.words("w^T")
    if which == "kappa":
        return f"-2 {gradient(n.mean(n.product([w, x, 'w'])), n)}"
    if which == "vector":
        return gradient(n.mean(n.product([x, "w"])), n)
    if which == "nu":
        return f"{n.words('dim')} + 2 {gradient(n.mean(n.function('log det', x)), n)}"
    return f"-2 {gradient(n.mean(x), n)} - {n.product(['h', n.words('m^T')])}"


def _inverse_scale(n: AbstractNotation) -> str:
    return "W^{-1}" if n is LATEX else "W^-1"
