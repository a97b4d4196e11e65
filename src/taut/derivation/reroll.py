"""Writing terms that differ in one element each as one term with a sum over elements.

Folding unrolls short axes; a reader wants them back: -0.75 E[w_0^2] - 0.75 E[w_1^2] is
-0.75 sum_j E[w_j^2].
"""

import dataclasses
import itertools
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from taut.expectation.terms import Entry, IndexRef, Tensor, Term, Terms, fresh, key

Shapes = Mapping[str, tuple[int, ...]]


def rerolled(terms: Terms, arrays: Sequence[Any], shapes: Shapes) -> Terms:
    """The same sum with fewer terms.

    Args:
        terms: of one site.
        arrays: the index arrays that they refer to.
        shapes: shape of each latent.
    """
    groups: dict[Any, list[tuple[Term, tuple[int, ...]]]] = {}
    for term in (_without_sure(_with_plain_scale(t), shapes) for t in terms):
        holes = _holes(term, shapes)
        values = tuple(int(np.asarray(arrays[h[0]])) % h[1] for h in holes)
        kinds = [(v, latent, at) for v, (_, _, latent, at) in zip(values, holes, strict=True)]
        pattern = tuple(kinds.index(k) for k in kinds)
        name = (_skeleton(term), pattern, tuple(h[1] for h in holes))
        groups.setdefault(name, []).append((term, values))
    found: list[Term] = []
    for (_, pattern, sizes), members in groups.items():
        found += _joined(members, pattern, sizes)
    return tuple(found)


def _with_plain_scale(term: Term) -> Term:
    """Scalar constants become part of the scale."""
    scale, operands = term.scale, []
    for t in term.operands:
        if np.size(t.array) == 1:
            scale *= float(np.reshape(np.asarray(t.array), ()))
        else:
            operands.append(t)
    return dataclasses.replace(term, scale=scale, operands=tuple(operands))


def _without_sure(term: Term, shapes: Shapes) -> Term:
    """Without indicators that are summed over all values by themselves: sum_e 1[z = e] = 1."""
    for at, (entry, axis) in enumerate(term.onehots):
        rest = dataclasses.replace(term, onehots=(*term.onehots[:at], *term.onehots[at + 1 :]))
        if axis in rest.axes or not all(isinstance(i, int) for i in entry.index):
            continue
        sizes = zip(entry.index, shapes[entry.latent], strict=False)
        alone = [size for i, size in sizes if i not in rest.axes]
        return _without_sure(rest.scaled(float(np.prod(alone, dtype=float))), shapes)
    return term


def entries(term: Term) -> tuple[Entry, ...]:
    """Elements of latents in a product, without those inside of functions and exponents."""
    return (*term.linear, *(e for e, _ in term.powers), *(e for e, _ in term.onehots))


def _holes(term: Term, shapes: Shapes) -> list[tuple[int, int, str, int]]:
    """Slot, length, latent and dimension of every single number that an element is picked by."""
    return [
        (i.slot, size, e.latent, at)
        for e in entries(term)
        for at, (i, size) in enumerate(zip(e.index, shapes[e.latent], strict=False))
        if isinstance(i, IndexRef) and not i.axes
    ]


def _skeleton(term: Term) -> Any:
    """What must be equal for terms to be joined."""

    def blank(e: Entry) -> Any:
        index = tuple("#" if isinstance(i, IndexRef) and not i.axes else i for i in e.index)
        return e.latent, index

    operands: Any = tuple(t.axes for t in term.operands)
    if len(operands) > 1:
        operands = id(term)
    return (
        tuple(blank(e) for e in term.linear), tuple((blank(e), p) for e, p in term.powers),
        tuple((blank(e), g) for e, g in term.onehots), operands,
        tuple(key(a) for a in term.exponents), tuple(key(f) for f in term.functions),
    )  # fmt: skip


def _joined(
    members: list[tuple[Term, tuple[int, ...]]], pattern: tuple[int, ...], sizes: tuple[int, ...]
) -> list[Term]:
    """One term, if the members are all elements of some axes; else the members."""
    plain = [m for m, _ in members]
    table = np.array([v for _, v in members]).reshape(len(members), len(pattern))
    firsts = [c for c in range(len(pattern)) if pattern[c] == c and np.ptp(table[:, c])]
    lengths = [sizes[c] for c in firsts]
    full = set(itertools.product(*map(range, lengths)))
    if not firsts or len(members) != len(full) or {tuple(r) for r in table[:, firsts]} != full:
        return plain
    order = np.lexsort(table[:, firsts[::-1]].T)
    labels = {c: fresh() for c in firsts}
    columns = [labels.get(pattern[c]) for c in range(len(pattern))]
    first = _filled(plain[0], iter(columns))
    return [_with_coefficients(first, [plain[i] for i in order], list(labels.values()), lengths)]


def _filled(term: Term, columns: Any) -> Term:
    """Put labels into the holes, in the order of :func:`_holes`."""

    def change(e: Entry) -> Entry:
        index = []
        for i in e.index:
            label = next(columns) if isinstance(i, IndexRef) and not i.axes else None
            index.append(i if label is None else label)
        return e._replace(index=tuple(index))

    return dataclasses.replace(
        term,
        linear=tuple(change(e) for e in term.linear),
        powers=tuple((change(e), p) for e, p in term.powers),
        onehots=tuple((change(e), g) for e, g in term.onehots),
    )


def _with_coefficients(
    term: Term, members: list[Term], labels: list[int], lengths: list[int]
) -> Term:
    """The constants of all members as one constant over the new axes."""
    arrays = [np.asarray(t.array, float) for m in members for t in m.operands]
    scales = np.array([m.scale for m in members])
    same = not arrays or all(np.array_equal(a, arrays[0]) for a in arrays)
    if same and np.allclose(scales, scales[0], rtol=1e-12, atol=0):
        return term
    if same:
        weights = Tensor(scales.reshape(lengths), tuple(labels))
        return dataclasses.replace(term, scale=1.0, operands=(*term.operands, weights))
    stacked = np.stack([s * a for s, a in zip(scales, arrays, strict=True)])
    tensor = Tensor(
        stacked.reshape((*lengths, *arrays[0].shape)), (*labels, *term.operands[0].axes)
    )
    return dataclasses.replace(term, scale=1.0, operands=(tensor,))
