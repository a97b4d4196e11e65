"""Reducing terms once, so that their expectation costs nothing in the data that they fold over."""

import dataclasses
import itertools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from taut.expectation.pool import Pool, expand
from taut.expectation.terms import (
    Entry,
    IndexRef,
    Tensor,
    Term,
    Terms,
    collect,
    contract,
    fresh,
    rename,
    union,
)  # fmt: skip

ROOM = 4.0  # a folded array may be this many times as large as what it was folded from
SMALL = 65536  # or have this many elements


def fold(terms: Terms, pool: Pool, sizes: dict[str, tuple[int, ...]]) -> Terms:
    """Contract constants, replace gathers by sums per index, and merge equal terms.

    Args:
        terms: a scalar sum.
        pool: the index arrays.
        sizes: shape of each latent.
    """
    found = [_contracted(t) for t in collect(terms)]
    found = [_contracted(_ungathered(t, pool, sizes)) for t in found]
    merged: dict[Any, Term] = {}
    for term in found:
        term = _canonical(term)
        name = _structure(term)
        if name in merged:
            term = _added(merged[name], term)
        merged[name] = term
    return tuple(merged.values())


def _contracted(term: Term) -> Term:
    """Multiply constants that share an axis which no atom has, and sum over it."""
    needed = set(term.atom_axes)
    operands = list(term.operands)
    for axis in [a for a in union(*(t.axes for t in operands)) if a not in needed]:
        group = [t for t in operands if axis in t.axes]
        rest = [t for t in operands if axis not in t.axes]
        summed = {a for t in group for a in t.axes} - needed - {a for t in rest for a in t.axes}
        kept = tuple(a for a in union(*(t.axes for t in group)) if a not in summed)
        if group:
            operands = [*rest, contract(group, kept)]
    return dataclasses.replace(term, operands=_joined(operands))


def _joined(operands: list[Tensor]) -> tuple[Tensor, ...]:
    """Multiply constants where the product is no larger than they are."""
    sizes = {a: n for t in operands for a, n in zip(t.axes, np.shape(t.array), strict=True)}
    operands = sorted(operands, key=lambda t: len(t.axes))
    found: list[Tensor] = []
    for t in operands:
        if found:
            last = found[-1]
            axes = union(last.axes, t.axes)
            size = np.prod([sizes[a] for a in axes])
            if size <= max(SMALL, np.size(last.array) + np.size(t.array)):
                found[-1] = contract([_jax(last), _jax(t)], axes)
                continue
        found.append(t)
    return tuple(found)


def _jax(t: Tensor) -> Tensor:
    return Tensor(jnp.asarray(t.array), t.axes)


def _ungathered(term: Term, pool: Pool, sizes: dict[str, tuple[int, ...]]) -> Term:
    """Replace index arrays over data axes by sums of the constants per index."""
    if term.functions:
        return term
    refs = {}
    entries = _entries(term)
    for entry in entries:
        for at, i in enumerate(entry.index):
            if isinstance(i, IndexRef) and i.axes:
                refs[i] = sizes[entry.latent][at]
    paired = {i for e in paired_onehots(term) for i in e.index}
    for ref, group in _groups(refs).items():
        if paired & set(group):
            continue  # whether two elements are neighbours would be lost
        term = _summed_by_index(term, ref, group, refs, pool)
    return term


def paired_onehots(term: Term) -> list[Entry]:
    """Elements of discrete latents that occur beside another element of the same one."""
    names = [e.latent for e, _ in term.onehots]
    return [e for e, _ in term.onehots if names.count(e.latent) > 1]


def _groups(refs: dict[IndexRef, int]) -> dict[tuple[int, ...], list[IndexRef]]:
    """Index arrays by the axes that they vary on."""
    found: dict[tuple[int, ...], list[IndexRef]] = {}
    for ref in refs:
        found.setdefault(ref.axes, []).append(ref)
    return found


def _entries(term: Term) -> list[Entry]:
    inner = [e for a in term.exponents for t in a.terms for e in t.linear]
    return [*term.linear, *(e for e, _ in term.powers), *(e for e, _ in term.onehots), *inner]


def _plain_axes(term: Term) -> set[int]:
    """Axes that occur outside of index arrays and of the term's own constants."""
    found = {i for e in _entries(term) for i in e.index if isinstance(i, int)}
    found |= {axis for _, axis in term.onehots}
    return found | {x for a in term.exponents for t in a.terms for o in t.operands for x in o.axes}


def _summed_by_index(
    term: Term, axes: tuple[int, ...], group: list[IndexRef], refs: dict[IndexRef, int], pool: Pool
) -> Term:
    others = {a for r in refs if r not in group for a in r.axes}
    if set(axes) & (_plain_axes(term) | others):
        return term
    with_axes = [t for t in term.operands if set(t.axes) & set(axes)]
    rest = [t for t in term.operands if not set(t.axes) & set(axes)]
    arrays = [jnp.asarray(pool.arrays[r.slot]) for r in group]
    ones = Tensor(jnp.ones(arrays[0].shape), axes)
    whole = contract([*map(_jax, with_axes), ones], (*axes, *union(*(t.axes for t in with_axes))))
    lengths = [refs[r] for r in group]
    inner = np.shape(whole.array)[len(axes) :]
    if np.prod([*lengths, *inner]) > max(SMALL, ROOM * np.size(whole.array)):
        return term
    flat: Any = 0
    for array, length in zip(arrays, lengths, strict=True):
        flat = flat * length + jnp.where(array < 0, array + length, array)
    table = jax.ops.segment_sum(
        whole.array.reshape((-1, *inner)), flat.reshape(-1), num_segments=int(np.prod(lengths))
    )
    labels = [fresh() for _ in group]
    table = Tensor(table.reshape((*lengths, *inner)), (*labels, *whole.axes[len(axes) :]))
    term = dataclasses.replace(term, operands=(*rest, table))
    return _reindexed(term, dict(zip(group, labels, strict=True)))


def _reindexed(term: Term, labels: dict[IndexRef, int]) -> Term:
    """Replace index arrays by plain axes."""

    def change(entry: Entry) -> Entry:
        index = tuple(labels.get(i, i) if isinstance(i, IndexRef) else i for i in entry.index)
        return entry._replace(index=index)

    exponents = []
    for form in term.exponents:
        terms = tuple(
            dataclasses.replace(t, linear=tuple(change(e) for e in t.linear)) for t in form.terms
        )
        axes = union(*(t.axes for t in terms))
        exponents.append(dataclasses.replace(form, terms=terms, axes=_outer_of(form, axes, labels)))
    return dataclasses.replace(
        term,
        linear=tuple(change(e) for e in term.linear),
        powers=tuple((change(e), p) for e, p in term.powers),
        onehots=tuple((change(e), g) for e, g in term.onehots),
        exponents=tuple(exponents),
    )


def _outer_of(form: Any, axes: tuple[int, ...], labels: dict[IndexRef, int]) -> tuple[int, ...]:
    spent = {a for r in labels for a in r.axes}
    new = set(labels.values())
    return (*(a for a in form.axes if a not in spent), *(a for a in axes if a in new))


# --- merging ------------------------------------------------------------------------------------


def _canonical(term: Term) -> Term:
    """Sort the atoms and number the axes by first appearance."""
    linear = tuple(sorted(term.linear, key=lambda e: (e.latent, *map(_kind, e.index))))
    term = dataclasses.replace(term, linear=linear)
    axes = union(
        *(e.axes for e in term.linear), *(e.axes for e, _ in term.powers),
        *((*e.axes, g) for e, g in term.onehots),
    )  # fmt: skip
    numbers = itertools.count(-1, -1)
    return rename(term, {a: next(numbers) for a in union(axes, term.axes)})


def _kind(i: int | IndexRef) -> tuple[int, int]:
    return (1, i.slot) if isinstance(i, IndexRef) else (0, 0)


def _structure(term: Term) -> Any:
    """Terms of equal structure may be added; those with inner axes are left alone."""
    if term.exponents or term.functions or len(term.operands) > 1:
        return id(term)
    return term.linear, term.powers, term.onehots


def _added(a: Term, b: Term) -> Term:
    """Add two terms with the same atoms."""
    parts = [
        Tensor(t.scale * jnp.asarray(o.array), o.axes)
        for t in (a, b) for o in (t.operands or (Tensor(jnp.ones(())),))
    ]  # fmt: skip
    axes = union(*(p.axes for p in parts))
    total = expand(parts[0], axes) + expand(parts[1], axes)
    return dataclasses.replace(a, scale=1.0, operands=(Tensor(total, axes),))
