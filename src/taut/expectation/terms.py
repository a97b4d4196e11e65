r"""The algebra of expectations: sums of lazy einsums of atoms.

A :class:`Term` is a product of constant arrays and of *atoms*, functions of the latents whose
moments are known, with one integer label per axis; labels that are not outer axes of the
expression are summed over. Affine maps, gathers, matrix products, quadratic forms and monomials
are special cases, not classes. Atoms are

- ``linear``: an element of a Gaussian latent;
- ``powers``: :math:`x^p \log^k x \, (1-x)^r \log^l (1-x)` of an element of any other latent;
- ``onehots``: :math:`1[z = e]` of an element of a discrete latent, or of one that is integrated
  on a grid, with the axis that enumerates its values;
- ``exponents``: :math:`\exp` of an affine form of Gaussian latents;
- ``functions``: a nonlinear function of few affine forms.

Labels are plain integers, unique for each internal axis, so terms never capture each other's.
"""

import dataclasses
import functools
import itertools
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

_LABELS = itertools.count(1)


def fresh() -> int:
    """A label that no other axis has."""
    return next(_LABELS)


class IndexRef(NamedTuple):
    """An index array of the pool, over some axes."""

    slot: int
    axes: tuple[int, ...]


class Entry(NamedTuple):
    """Elements of a latent: for each of its dimensions an axis label or an index array.

    ``signed`` marks latents of either sign, which have no logarithms; ``unit`` those between 0
    and 1, of which 1 - x is an atom too.
    """

    latent: str
    index: tuple[int | IndexRef, ...]  # type: ignore[assignment]
    signed: bool = False
    unit: bool = False

    @property
    def axes(self) -> tuple[int, ...]:
        """The axes that it varies on."""
        found: dict[int, None] = {}
        for i in self.index:
            found.update(dict.fromkeys(i.axes if isinstance(i, IndexRef) else (i,)))
        return tuple(found)


class Power(NamedTuple):
    """Exponents of x, log x, 1 - x and log(1 - x)."""

    power: float = 0.0
    logs: int = 0
    copower: float = 0.0
    cologs: int = 0

    def __mul__(self, other: "Power") -> "Power":  # type: ignore[override]
        return Power(
            self.power + other.power,
            self.logs + other.logs,
            self.copower + other.copower,
            self.cologs + other.cologs,
        )


def _static(default: Any = dataclasses.MISSING) -> Any:
    return dataclasses.field(default=default, metadata={"static": True})


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Tensor:
    """An array with one label per dimension."""

    array: Any
    axes: tuple[int, ...] = _static(())

    @property
    def is_static(self) -> bool:
        """True if its values are known while tracing."""
        return isinstance(self.array, np.ndarray | np.generic | float | int | bool)


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Affine:
    """A sum of terms with at most one Gaussian element each; ``axes`` are not summed."""

    terms: tuple["Term", ...]
    axes: tuple[int, ...] = _static()


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Function:
    """A nonlinear function, elementwise over its axes.

    Attributes:
        args: Gaussian affine forms.
        consts: constant arguments.
        expr: expression tree; see :mod:`taut.expectation.elementwise`.
        grids: elements that are integrated on a grid, with the grid's axis.
    """

    args: tuple[Affine, ...]
    consts: tuple[Tensor, ...]
    expr: Any = _static()  # noqa: RUF009
    grids: tuple[tuple[Entry, int], ...] = _static(())

    @property
    def axes(self) -> tuple[int, ...]:
        """The axes that it varies on."""
        return union(
            *(a.axes for a in self.args),
            *(c.axes for c in self.consts),
            *((*e.axes, axis) for e, axis in self.grids),
        )


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Term:
    """A product; see the module's text."""

    operands: tuple[Tensor, ...] = ()
    exponents: tuple[Affine, ...] = ()
    functions: tuple[Function, ...] = ()
    scale: float = _static(1.0)
    linear: tuple[Entry, ...] = _static(())
    powers: tuple[tuple[Entry, Power], ...] = _static(())
    onehots: tuple[tuple[Entry, int], ...] = _static(())

    @functools.cached_property
    def axes(self) -> tuple[int, ...]:
        """All of its axes, outer and summed, without those inside of affine forms."""
        return union(*(t.axes for t in self.operands), self.atom_axes)

    @functools.cached_property
    def atom_axes(self) -> tuple[int, ...]:
        """The axes of its atoms."""
        return union(
            *(e.axes for e in self.linear),
            *(e.axes for e, _ in self.powers),
            *((*e.axes, axis) for e, axis in self.onehots),
            *(a.axes for a in self.exponents),
            *(f.axes for f in self.functions),
        )

    @property
    def is_constant(self) -> bool:
        """True if it has no atoms."""
        return not (self.linear or self.powers or self.onehots or self.exponents or self.functions)

    @property
    def is_affine(self) -> bool:
        """True if it is a constant or has one Gaussian element and nothing else."""
        others = self.powers or self.onehots or self.exponents or self.functions
        return not others and len(self.linear) <= 1

    @property
    def is_monomial(self) -> bool:
        """True if powers and logarithms of it are products again."""
        return not (self.linear or self.onehots or self.functions) and all(
            not (p.logs or p.cologs or e.signed) for e, p in self.powers
        )

    @property
    def latents(self) -> frozenset[str]:
        """Names of the latents that it depends on."""
        names = {e.latent for e in self.linear} | {e.latent for e, _ in self.powers}
        names |= {e.latent for e, _ in self.onehots}
        inner = [t for a in self.exponents for t in a.terms]
        for f in self.functions:
            names |= {e.latent for e, _ in f.grids}
            inner += [t for a in f.args for t in a.terms]
        return frozenset(names).union(*(t.latents for t in inner))

    def scaled(self, factor: float) -> "Term":
        """The term times a number."""
        return dataclasses.replace(self, scale=self.scale * factor)

    def times(self, *operands: Tensor) -> "Term":
        """The term times constants."""
        return dataclasses.replace(self, operands=(*self.operands, *operands))


Terms = tuple[Term, ...]


def union(*groups: Iterable[int]) -> tuple[int, ...]:
    """Labels of all groups, in order of appearance, without repetition."""
    return tuple(dict.fromkeys(itertools.chain(*groups)))


def constant_term(tensor: Tensor) -> Term:
    """A constant as a term; a static scalar becomes its scale."""
    if tensor.is_static and np.ndim(tensor.array) == 0:
        return Term(scale=float(tensor.array))
    return Term(operands=(tensor,))


# --- renaming ---------------------------------------------------------------------------------


def rename(x: Any, names: Mapping[int, int]) -> Any:
    """Replace axis labels in any part of a term."""
    if not names:
        return x
    if isinstance(x, Term):
        return dataclasses.replace(
            x,
            operands=tuple(rename(t, names) for t in x.operands),
            exponents=tuple(rename(a, names) for a in x.exponents),
            functions=tuple(rename(f, names) for f in x.functions),
            linear=tuple(rename(e, names) for e in x.linear),
            powers=tuple((rename(e, names), p) for e, p in x.powers),
            onehots=_rename_pairs(x.onehots, names),
        )
    if isinstance(x, Tensor):
        return dataclasses.replace(x, axes=tuple(names.get(a, a) for a in x.axes))
    if isinstance(x, Entry):
        return x._replace(index=tuple(_rename_index(i, names) for i in x.index))
    if isinstance(x, Affine):
        terms = tuple(rename(t, names) for t in x.terms)
        return Affine(terms, tuple(names.get(a, a) for a in x.axes))
    return dataclasses.replace(
        x,
        args=tuple(rename(a, names) for a in x.args),
        consts=tuple(rename(t, names) for t in x.consts),
        grids=_rename_pairs(x.grids, names),
    )


def _rename_pairs(pairs: Any, names: Mapping[int, int]) -> tuple[tuple[Entry, int], ...]:
    return tuple((rename(e, names), names.get(axis, axis)) for e, axis in pairs)


def _rename_index(index: int | IndexRef, names: Mapping[int, int]) -> int | IndexRef:
    if isinstance(index, IndexRef):
        return IndexRef(index.slot, tuple(names.get(a, a) for a in index.axes))
    return names.get(index, index)


def with_fresh(term: Term, outer: Iterable[int]) -> Term:
    """The term with new labels for its summed axes."""
    kept = set(outer)
    return rename(term, {a: fresh() for a in term.axes if a not in kept})


# --- sums and products ------------------------------------------------------------------------


def product(a: Term, b: Term, outer: Iterable[int]) -> Term:
    """Multiply two terms with common outer axes."""
    shared = set(a.axes) - set(outer)
    if shared:
        b = rename(b, {x: fresh() for x in b.axes if x in shared})
    powers = dict(a.powers)
    for entry, power in b.powers:
        powers[entry] = powers.get(entry, Power()) * power
    term = Term(
        operands=a.operands + b.operands,
        exponents=merge_exponents(a.exponents + b.exponents),
        functions=a.functions + b.functions,
        scale=a.scale * b.scale,
        linear=tuple(sorted(a.linear + b.linear, key=repr)),
        powers=tuple((e, p) for e, p in sorted(powers.items(), key=repr) if any(p)),
        onehots=a.onehots,
    )
    return with_onehots(term, b.onehots)


def with_onehots(term: Term, onehots: tuple[tuple[Entry, int], ...]) -> Term:
    """Multiply by indicators; two of the same element are one, with one axis."""
    for entry, axis in onehots:
        known = dict(term.onehots).get(entry)
        if known is None:
            term = dataclasses.replace(term, onehots=(*term.onehots, (entry, axis)))
        elif known != axis:
            term = rename(term, {axis: known})
    return term


def merge_exponents(exponents: tuple[Affine, ...]) -> tuple[Affine, ...]:
    """Join exp(a) exp(b) to exp(a + b)."""
    if len(exponents) < 2:
        return exponents
    terms = collect(tuple(t for a in exponents for t in a.terms))
    if not terms:
        return ()
    return (Affine(terms, union(*(a.axes for a in exponents))),)


def collect(terms: Terms) -> Terms:
    """Add up terms that are equal but for their scale, and drop what cancels."""
    if len(terms) < 2:
        return tuple(t for t in terms if t.scale != 0.0)
    found: dict[Any, Term] = {}
    for term in terms:
        name = key(term)
        if name in found:
            term = dataclasses.replace(term, scale=found[name].scale + term.scale)
        found[name] = term
    return tuple(t for t in found.values() if t.scale != 0.0)


def key(x: Any) -> Any:
    """What makes two terms equal but for their scale; arrays count by identity."""
    if isinstance(x, Term):
        return (
            frozenset((id(t.array), t.axes) for t in x.operands) if len(x.operands) < 2
            else tuple(sorted((id(t.array), t.axes) for t in x.operands)),
            x.linear, x.powers, x.onehots,
            tuple(key(a) for a in x.exponents), tuple(key(f) for f in x.functions),
        )  # fmt: skip
    if isinstance(x, Affine):
        return tuple(sorted(((t.scale, key(t)) for t in x.terms), key=repr)), x.axes
    return (
        x.expr, x.grids, tuple(key(a) for a in x.args),
        tuple((id(t.array), t.axes) for t in x.consts),
    )  # fmt: skip


def contract(tensors: Iterable[Tensor], axes: tuple[int, ...]) -> Tensor:
    """Multiply tensors and sum over all axes but ``axes`` (of those that they have)."""
    tensors = list(tensors)
    present = set(union(*(t.axes for t in tensors)))
    out = tuple(a for a in dict.fromkeys(axes) if a in present)
    if not tensors:
        return Tensor(np.float64(1.0))
    if len(tensors) == 1 and tensors[0].axes == out:
        return tensors[0]
    compact = {a: i for i, a in enumerate(union(*(t.axes for t in tensors)))}
    parts: list[Any] = []
    for t in tensors:
        array = t.array.astype(float) if t.array.dtype in (bool, np.int32, np.int64) else t.array
        parts += [array, [compact[a] for a in t.axes]]
    return Tensor(jnp.einsum(*parts, [compact[a] for a in out]), out)
