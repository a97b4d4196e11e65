r"""Updates of Gaussian blocks: variational Newton, and what it reads for quadratic log joints."""

from collections.abc import Mapping
from typing import Any

import jax
import numpy as np

from taut.derivation.conjugate import MAX_PARTS, bind, gradient
from taut.derivation.notation import LATEX, PLAIN, AbstractNotation, Formula, both
from taut.derivation.records import Parameter
from taut.derivation.terms import Writer
from taut.expectation.gaussian import Gaussian
from taut.expectation.terms import Entry, Term, Terms
from taut.expectation.transform import Compiled


def parameters(
    name: str, q: Mapping[str, Any], sites: Mapping[str, Compiled], writers: Mapping[str, Writer],
    terms: Mapping[str, Terms], is_quadratic: bool,
) -> tuple[Parameter, ...]:  # fmt: skip
    """Precision and precision times mean of one block; see :func:`conjugate.parameters`.

    Args:
        name: its key in q.
        q: all factors, at the optimum.
        sites: the parts of each site that depend on it, its own priors first.
        writers: for each site.
        terms: the terms of each of those sites, as they are written.
        is_quadratic: whether every term is quadratic in the block, so that they can be read off.
    """
    factor: Gaussian = q[name]
    mean = np.asarray(factor.mean)
    precision = np.linalg.inv(np.asarray(factor.covariance))
    of_precision, of_pull = {}, {}
    for site, c in sites.items():
        got = jax.grad(lambda f, c=c: c({**q, name: f}))(factor)
        curvature = np.asarray(got.covariance)
        of_precision[site] = -(curvature + curvature.swapaxes(-1, -2))
        pull = np.einsum("bij,bj->bi", of_precision[site], mean)
        of_pull[site] = np.asarray(got.mean) + pull
    lines: dict[int, list[Formula]] = {1: [], 2: []}
    if is_quadratic:
        for site, these in terms.items():
            for term in these:
                read_off(term, factor, writers[site], lines)
    few = {k: tuple(v) if len(v) <= MAX_PARTS else () for k, v in lines.items()}
    vh = np.einsum("bij,bj->bi", precision, mean)
    return (
        Parameter(both(precision_symbol), both(_newton), few[2], precision, 0.0, of_precision),
        Parameter(both(_pull), both(_step), few[1], vh, 0.0, of_pull),
    )


def is_read_off(terms: Mapping[str, Terms], latents: tuple[str, ...]) -> bool:
    """Whether every term is at most quadratic in the latents, and in nothing bent."""
    for term in (t for these in terms.values() for t in these):
        if sum(e.latent in latents for e in term.linear) > 2:
            return False
        inner = [*term.exponents, *(a for f in term.functions for a in f.args)]
        if any(e.latent in latents for a in inner for t in a.terms for e in t.linear):
            return False
    return True


def read_off(term: Term, factor: Gaussian, writer: Writer, lines: dict[int, list[Formula]]) -> None:
    """Add what a term gives to the precision (two elements) or to the pull (one)."""
    mine = [e for e in term.linear if e.latent in factor.names]
    if len(mine) not in (1, 2):
        return
    others = tuple(e for e in term.linear if e.latent not in factor.names)
    rest = Term(
        term.operands, term.exponents, term.functions, term.scale, others, term.powers, term.onehots
    )
    scale = 1.0 if len(mine) == 1 else -2.0 if mine[0].latent == mine[1].latent else -1.0
    letters = _letters(mine, writer)
    index = tuple(i for e in mine for i in e.index)
    bound, conditions = bind(index, tuple(x for each in letters for x in each))
    if len(mine) == 2 and mine[0] == mine[1]:  # the diagonal: no second set of letters
        letters = [letters[0], letters[0]]
        bound, conditions = bind(mine[0].index, tuple(letters[0]))
    sign, body = writer.summand(rest, bound, conditions, scale)
    names = [(e, tuple(x)) for e, x in zip(mine, letters, strict=True)]
    lines[len(mine)].append(both(lambda n: _line(names, sign, body, writer, n)))


def _letters(mine: list[Entry], writer: Writer) -> list[list[str]]:
    """Letters for the elements, those of the second different from the first's."""
    found: list[list[str]] = []
    used: list[str] = []
    for entry in mine:
        each = []
        for letter in writer.symbols.letters_of(entry.latent, len(entry.index)):
            new = letter if letter not in used else writer.symbols.spare(
                {*used, *writer.symbols.dims.values()}
            )  # fmt: skip
            used.append(new)
            each.append(new)
        found.append(each)
    return found


def _line(
    names: list[tuple[Entry, tuple[str, ...]]], sign: float, body: Formula, writer: Writer,
    n: AbstractNotation,
) -> str:  # fmt: skip
    shown = []
    for entry, letters in names:
        x = n.indexed(n.name(entry.latent), letters)
        change = writer.coordinates.get(entry.latent)
        shown.append(x if change is None else n.function(change, x))
    head = precision_symbol(n) if len(names) == 2 else n.name("h")
    plus = "+=" if n is PLAIN else r"\mathrel{+}="
    text = body.text if n is PLAIN else body.latex
    return f"{head}[{', '.join(shown)}] {plus} {'-' if sign < 0 else ''}{text}"


def precision_symbol(n: AbstractNotation) -> str:
    """The inverse of the covariance."""
    return "V^{-1}" if n is LATEX else "V^-1"


def _newton(n: AbstractNotation) -> str:
    return f"-2 {gradient('V', n)}"


def _pull(n: AbstractNotation) -> str:
    return f"h = {precision_symbol(n)} m"


def _step(n: AbstractNotation) -> str:
    arrow = "<-" if n is PLAIN else r"\leftarrow"
    follows = "so that" if n is PLAIN else r"\;\Leftrightarrow\;"
    return f"{gradient('m', n)} + {precision_symbol(n)} m, {follows} m {arrow} m + V {gradient('m', n)}"
