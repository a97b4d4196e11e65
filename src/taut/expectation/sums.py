"""Folded terms that add up over batches of data.

A log likelihood of independent rows is a sum over rows. Folded, that of a batch is a sum of terms
that are each a constant array times a fixed function of the latents; so over batches the arrays
add, and what is left of all rows has the size of one batch's terms.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from taut.expectation.evaluate import expect
from taut.expectation.moments import AtPoint
from taut.expectation.pool import expand
from taut.expectation.terms import Entry, IndexRef, Tensor, Term, contract, union
from taut.expectation.transform import Compiled

MOST = 2**26  # numbers in one folded array


def summand(compiled: Compiled) -> Compiled:
    """The same with one constant array to each term, which holds its scale: it may be added.

    The number of rows stands in scales (of -n/2 log 2 pi, say), which are part of the structure.
    """
    used = {r.slot for t in compiled.terms for r in _references(t)}
    nothing = jnp.zeros((), int)
    arrays = tuple(a if at in used else nothing for at, a in enumerate(compiled.arrays))
    return Compiled(tuple(_with_one_array(t) for t in compiled.terms), arrays)


def _with_one_array(term: Term) -> Term:
    whole = contract(term.operands, union(*(t.axes for t in term.operands)))
    array = term.scale * jnp.asarray(whole.array, float)
    return dataclasses.replace(term, scale=1.0, operands=(Tensor(array, whole.axes),))


def why_not(compiled: Compiled) -> str:
    """Why a site's terms cannot be added over batches; "" if they can."""
    if compiled.function is not None:
        return f"it cannot be read: {compiled.reason}"
    for term in compiled.terms:
        names = ", ".join(sorted(term.latents))
        if term.functions or term.onehots:
            return f"it holds a nonlinear function of {names} in every row"
        own = {i for e in _entries(term) for i in e.index if isinstance(i, int)}
        inner = union(*(a.axes for a in term.exponents), *(t.axes for t in term.operands))
        if not own.issuperset(inner) or any(r.axes for r in _references(term)):
            return f"a product of {names} differs from row to row"
        sizes = {a: n for t in term.operands for a, n in zip(t.axes, t.array.shape, strict=True)}
        if np.prod(list(sizes.values()), dtype=float) > MOST:
            return f"the sums for {names} would need {np.prod(list(sizes.values())):,} numbers"
    return ""


def _entries(term: Term) -> list[Entry]:
    inner = [e for a in term.exponents for t in a.terms for e in t.linear]
    return [*term.linear, *(e for e, _ in term.powers), *inner]


def _references(term: Term) -> list[IndexRef]:
    return [i for e in _entries(term) for i in e.index if isinstance(i, IndexRef)]


# --- adding ----------------------------------------------------------------------------------------


@jax.jit
def added(a: Any, b: Any) -> Any:
    """Two summands of equal structure, of sites by name; what must be equal is taken from ``a``."""

    def one(s: Term, t: Term) -> Term:
        (x,), (y,) = s.operands, t.operands
        return dataclasses.replace(s, operands=(Tensor(x.array + y.array, x.axes),))

    return {
        name: dataclasses.replace(
            a[name],
            terms=tuple(one(s, t) for s, t in zip(a[name].terms, b[name].terms, strict=True)),
        )
        for name in a
    }


def constants(site: Compiled) -> list[np.ndarray]:
    """What must be the same in all batches: constants inside of exponentials, and indices."""
    inner: list[Any] = [t.exponents for t in site.terms]
    return [np.asarray(x) for x in jax.tree.leaves((inner, site.arrays))]


def merged(a: Compiled, b: Compiled) -> Compiled | None:
    """The sum of two summands of unequal structure; None if their indices are not the same."""
    old, new = ([np.asarray(x) for x in c.arrays] for c in (a, b))
    if len(old) != len(new) or not all(map(np.array_equal, old, new)):
        return None
    terms = list(a.terms)
    for term in b.terms:
        name = _atoms(term)
        at = next((i for i, t in enumerate(terms) if name and _atoms(t) == name), None)
        if at is None:
            terms.append(term)
            continue
        (x,), (y,) = terms[at].operands, term.operands
        axes = union(x.axes, y.axes)
        total = Tensor(expand(x, axes) + expand(y, axes), axes)
        terms[at] = dataclasses.replace(term, operands=(total,))
    return dataclasses.replace(a, terms=tuple(terms))


def _atoms(term: Term) -> Any:
    """What makes two terms like terms; exponentials are never taken to be alike."""
    return None if term.exponents else ("atoms", term.linear, term.powers)


# --- at a point ------------------------------------------------------------------------------------


def value_at(summands: tuple[Compiled, ...], values: Mapping[str, Any]) -> Any:
    """The log likelihood of all rows at values of the latents, a scalar.

    Written in JAX, so that it can be read again as if it were the model's own.
    """
    parts = [expect(c.terms, AtPoint(values, list(c.arrays))) for c in summands]
    return sum(parts, start=jnp.zeros(()))
