"""The expectation of a sum of terms, and how each was obtained."""

from typing import Any

import jax.numpy as jnp

from taut.expectation import quadrature
from taut.expectation.elementwise import Unreadable
from taut.expectation.expression import power_of
from taut.expectation.functions import absolute_form
from taut.expectation.integrals import of_function, with_elements
from taut.expectation.moments import AbstractMoments, Product
from taut.expectation.scaled import precision_entry
from taut.expectation.terms import (
    Affine,
    Entry,
    Function,
    Power,
    Tensor,
    Term,
    Terms,
    merge_exponents,
)  # fmt: skip


def expect(terms: Terms, moments: AbstractMoments) -> Any:
    """Expectation of a scalar sum of terms.

    Raises:
        Unreadable: if the moments of some term have no formula here.
    """
    found: Any = jnp.zeros(())
    for term in terms:
        found = found + term.scale * expect_term(term, moments)
    return found


def expect_term(term: Term, moments: AbstractMoments) -> Any:
    """Expectation of one term without its scale."""
    exponents = merge_exponents(term.exponents)
    shift = exponents[0] if exponents else None
    fixed = list(term.operands)
    if shift is not None:
        fixed.append(moments.tilt(shift))
    onehots, powers = term.onehots, term.powers
    gridded = {e: axis for e, axis in onehots if hasattr(moments.q[e.latent], "grid")}
    fixed += moments.onehots(onehots)
    scaled = _scaled_blocks(term, moments)
    fixed += _powers(tuple(x for x in powers if x[0].latent not in scaled), gridded, moments)
    pairings = _with_functions(term, shift, moments)
    sums: Any = 0.0
    for product in pairings:
        rest = [_of_scale(e, powers, product, moments) for e in scaled.values()]
        sums = sums + moments.contract(Product((*fixed, *rest)) * product, ()).array
    return sums


def _scaled_blocks(term: Term, moments: AbstractMoments) -> dict[str, Entry]:
    """Precisions of the blocks whose elements the term has, each at the term's element of it."""
    inner = [t for a in term.exponents for t in a.terms]
    inner += [t for f in term.functions for a in f.args for t in a.terms]
    if any(moments.precision_of(e) for t in inner for e in t.linear):
        raise Unreadable("a nonlinear function of a block that has its precision inside")
    names = dict.fromkeys(moments.precision_of(e) for e in term.linear)
    return {name: precision_entry(term, moments.q[name]) for name in names if name}


def _of_scale(entry: Entry, powers: Any, product: Product, moments: AbstractMoments) -> Tensor:
    """Moment of a block's precision: its own power less one for each covariance."""
    count = product.scales.count(entry.latent)
    p = dict(powers).get(entry, Power()) * Power(power=-float(count))
    return moments.power(entry, p) if any(p) else Tensor(jnp.ones(()))


def _powers(
    powers: tuple[tuple[Entry, Power], ...], gridded: dict[Entry, int], moments: AbstractMoments
) -> list[Tensor]:
    """Moments of elements that are not Gaussian; different latents are independent."""
    found, seen = [], {e.latent: e for e in gridded}
    for entry, p in powers:
        if entry in gridded:
            points = moments.on_grid(entry, gridded[entry], which=0)
            found.append(Tensor(power_of(points.array, p), points.axes))
            continue
        if entry.latent in seen:
            raise Unreadable(f"a product of different elements of '{entry.latent}'")
        seen[entry.latent] = entry
        found.append(moments.power(entry, p))
    return found


def _with_functions(term: Term, shift: Affine | None, moments: AbstractMoments) -> list[Product]:
    """Products whose sum is the Gaussian part of the expectation."""
    if not term.functions:
        return list(moments.wick(term.linear, shift))
    if len(term.functions) > 1:
        _check_disjoint(term.functions, moments)
    found = [Product(())]
    rest = term.linear
    for function in term.functions:
        touched = tuple(e for e in rest if _touches(e, function, moments))
        rest = tuple(e for e in rest if e not in touched)
        if touched:
            one = with_elements(function, touched, shift, moments)
        else:
            one = [Product((of_function(function, shift, moments),))]
        found = [a * b for a in found for b in one]
    return [a * b for a in found for b in moments.wick(rest, shift)]


def _check_disjoint(functions: tuple[Function, ...], moments: AbstractMoments) -> None:
    blocks = [{moments.q[e.latent].names for e in _entries(f)} for f in functions]
    for at, mine in enumerate(blocks):
        if any(mine & other for other in blocks[:at]):
            raise Unreadable("a product of nonlinear functions of latents in one block")


def _entries(function: Function) -> list[Entry]:
    return [e for a in function.args for t in a.terms for e in t.linear]


def _touches(entry: Entry, function: Function, moments: AbstractMoments) -> bool:
    return any(moments.share_block(entry, e) for e in _entries(function))


def method_of(term: Term) -> str:
    """How the expectation of a term is obtained, in words."""
    parts = []
    if any(e for e, _ in term.onehots if all(e not in dict(f.grids) for f in term.functions)):
        parts.append("enumerated")
    if term.functions:
        dim = max(len(f.args) for f in term.functions)
        grids = sum(len(f.grids) for f in term.functions)
        absolute = all(absolute_form(f) is not None for f in term.functions)
        if dim and not absolute:
            parts.append(quadrature.describe(dim))
        if grids:
            parts.append("quadrature on a grid")
    return ", ".join(parts) or "exact"
