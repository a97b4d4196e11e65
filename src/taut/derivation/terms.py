"""Terms of an expected log density, written for a reader."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from taut.derivation.notation import AbstractNotation, Formula, both, signed_sum
from taut.derivation.reroll import Shapes
from taut.derivation.symbols import Symbols
from taut.expectation.terms import (
    Affine,
    Entry,
    Function,
    IndexRef,
    Power,
    Tensor,
    Term,
    Terms,
    contract,
    union,
)  # fmt: skip

ELEMENTWISE = ("log", "logit")  # maps to real coordinates that keep the shape
MAX_WRITTEN = 160  # characters of one nonlinear function, beyond which it is phi(its arguments)


@dataclasses.dataclass(frozen=True)
class Writer:
    """Writes terms of one site.

    Attributes:
        symbols: letters.
        arrays: index arrays of the site.
        shapes: shape of each latent.
        blocks: latent -> key of its factor; means of products over several factor are products.
        matrices: latents that are matrices, whose log means that of the determinant.
        coordinates: latents that are inferred in real coordinates -> the map to them.
    """

    symbols: Symbols
    arrays: Sequence[Any]
    shapes: Shapes
    blocks: Mapping[str, str]
    matrices: frozenset[str]
    coordinates: Mapping[str, str]

    def summand(
        self, term: Term, free: Mapping[int, str] | None = None, conditions: tuple[Any, ...] = (),
        sign: float | int = 1.0,
    ) -> tuple[float, Formula]:  # fmt: skip
        """Sign and body of a term under q.

        Args:
            term: a product.
            free: axes that are not summed, with their letters.
            conditions: pairs (index, letter) that restrict the sum.
            sign: what the term is multiplied by.
        """
        letters = self._letters(term, dict(free or {}), conditions)
        value = sign * term.scale
        body = both(lambda n: self._body(term, letters, set(free or {}), conditions, n, abs(value)))
        return value, body

    # --- letters ---------------------------------------------------------------------------------

    def _letters(
        self, term: Term, letters: dict[int, str], conditions: tuple[Any, ...]
    ) -> dict[int, str]:
        """A letter for every axis: that of the latent's dimension where it is free."""
        reserved = {letter for _, letter in conditions}
        inner = [e for a in self._forms(term) for t in a.terms for e in t.linear]
        found = [*term.linear, *(e for e, _ in term.powers), *(e for e, _ in term.onehots), *inner]
        for entry in found:
            names = self.symbols.letters_of(entry.latent, len(entry.index))
            for i, name in zip(entry.index, names, strict=True):
                if isinstance(i, int) and i not in letters:
                    used = {*letters.values(), *reserved}
                    letters[i] = name if name not in used else self.symbols.spare(used)
        for axis, size in self._sizes(term).items():
            if axis not in letters:
                used = {*letters.values(), *reserved}
                mine = self.symbols.plate_letter(size, used)
                letters[axis] = mine or self.symbols.spare(used)
        for axis in union(term.axes, *(i.axes for i, _ in conditions if isinstance(i, IndexRef))):
            letters.setdefault(axis, self.symbols.spare({*letters.values(), *reserved}))
        return letters

    def _forms(self, term: Term) -> list[Affine]:
        return [*term.exponents, *(a for f in term.functions for a in f.args)]

    def _sizes(self, term: Term) -> dict[int, int]:
        """Lengths of axes, as far as constants know them."""
        tensors = list(term.operands)
        tensors += [o for a in self._forms(term) for t in a.terms for o in t.operands]
        tensors += [c for f in term.functions for c in f.consts]
        inner = [e for a in self._forms(term) for t in a.terms for e in t.linear]
        for entry in (
            *term.linear,
            *(e for e, _ in term.powers),
            *(e for e, _ in term.onehots),
            *inner,
        ):
            tensors += [
                Tensor(self.arrays[i.slot], i.axes) for i in entry.index if isinstance(i, IndexRef)
            ]
        return {a: n for t in tensors for a, n in zip(t.axes, np.shape(t.array), strict=True)}

    # --- a product -------------------------------------------------------------------------------

    def _body(
        self, term: Term, letters: dict[int, str], free: set[int], conditions: tuple[Any, ...],
        n: AbstractNotation, size: float | int,
    ) -> str:  # fmt: skip
        parts = [(t.axes, self.tensor(t, letters, n)) for t in term.operands]
        parts += [self._condition(c, letters, n) for c in conditions]
        parts += self._means(term, letters, n)
        summed = [a for a in union(term.axes, *(axes for axes, _ in parts)) if a not in free]
        front = [text for axes, text in parts if not set(axes) & set(summed)]
        inside = [text for axes, text in parts if set(axes) & set(summed)]
        found = [] if size == 1.0 and parts else [n.number(size)]
        if front:
            found.append(n.product(front))
        if inside:
            found.append(n.total([letters[a] for a in summed], n.product(inside)))
        return n.scaled(found)

    def _condition(self, condition: Any, letters: dict[int, str], n: AbstractNotation) -> Any:
        index, letter = condition
        axes = index.axes if isinstance(index, IndexRef) else (index,)
        return axes, f"[{letter} = {self.index(index, letters, n)}]"

    def _means(
        self, term: Term, letters: dict[int, str], n: AbstractNotation
    ) -> list[tuple[tuple[int, ...], str]]:
        """Expectations, one for each factor of q that takes part."""
        atoms: list[tuple[frozenset[str], tuple[int, ...], str]] = []
        for entry in dict.fromkeys(term.linear):
            count = term.linear.count(entry)
            text = self.element(entry, letters, n)
            text = n.power(
                f"({text})" if count > 1 and entry.latent in self.coordinates else text, count
            )
            atoms.append((frozenset([self.blocks[entry.latent]]), entry.axes, text))
        for entry, power in term.powers:
            text = self.power(entry, power, letters, n)
            atoms.append((frozenset([self.blocks[entry.latent]]), entry.axes, text))
        for form in term.exponents:
            text = n.function("exp", self.form(form, letters, n))
            atoms.append((self._touched(form), form.axes, text))
        for function in term.functions:
            grids = frozenset(self.blocks[e.latent] for e, _ in function.grids)
            touched = grids.union(*(self._touched(a) for a in function.args))
            atoms.append((touched, function.axes, self.nonlinear(function, letters, n)))
        gridded = {e for f in term.functions for e, _ in f.grids}
        events: dict[str, list[tuple[tuple[int, ...], str]]] = {}
        for e, g in term.onehots:
            if e not in gridded:  # the dependence of neighbours in a chain is kept
                text = f"{self.element(e, letters, n)} = {letters[g]}"
                events.setdefault(e.latent, []).append(((*e.axes, g), text))
        found = [
            (union(*(axes for axes, _ in pairs)), f"q({', '.join(text for _, text in pairs)})")
            for pairs in events.values()
        ]
        return found + [(axes, n.mean(n.product(texts))) for axes, texts in _by_factor(atoms)]

    def _touched(self, form: Affine) -> frozenset[str]:
        return frozenset(self.blocks[e.latent] for t in form.terms for e in t.linear)

    # --- parts -----------------------------------------------------------------------------------

    def tensor(self, t: Tensor, letters: Mapping[int, str], n: AbstractNotation) -> str:
        """A constant."""
        if np.size(t.array) == 1 and not t.axes:
            return n.number(float(np.asarray(t.array)))
        return n.indexed(n.name(self.symbols.of_array(t.array)), [letters[a] for a in t.axes])

    def index(self, i: int | IndexRef, letters: Mapping[int, str], n: AbstractNotation) -> str:
        """What an element is picked by."""
        if isinstance(i, int):
            return letters[i]
        if not i.axes:
            return str(int(np.asarray(self.arrays[i.slot])))
        name = n.name(self.symbols.of_array(self.arrays[i.slot], is_index=True))
        return f"{name}({','.join(letters[a] for a in i.axes)})"

    def element(self, entry: Entry, letters: Mapping[int, str], n: AbstractNotation) -> str:
        """An element of a latent."""
        name, indices = n.name(entry.latent), [self.index(i, letters, n) for i in entry.index]
        if entry.latent not in self.coordinates:
            return n.indexed(name, indices)
        change = self.coordinates[entry.latent]
        if change in ELEMENTWISE:
            return n.function(change, n.indexed(name, indices))
        return n.indexed(n.function(change, name), indices)

    def power(self, entry: Entry, p: Power, letters: Mapping[int, str], n: AbstractNotation) -> str:
        """A monomial of an element, of its complement, and of their logarithms."""
        x = self.element(entry, letters, n)
        log = "log det" if entry.latent in self.matrices else "log"
        found = []
        for base, exponent, logs in ((x, p.power, p.logs), (f"(1 - {x})", p.copower, p.cologs)):
            inner = base[1:-1] if base.startswith("(") else base
            found += [n.power(base, exponent)] if exponent else []
            found += [n.power(n.function(log, inner), logs)] if logs == 1 else []
            found += [n.power(f"({n.function(log, inner)})", logs)] if logs > 1 else []
        return n.product(found)

    def form(self, form: Affine, letters: Mapping[int, str], n: AbstractNotation) -> str:
        """An affine form."""
        parts = []
        for t in form.terms:
            summed = [a for a in t.axes if a not in form.axes]
            inside = [self.tensor(o, letters, n) for o in t.operands]
            inside += [self.element(e, letters, n) for e in t.linear]
            inside += [self.power(e, p, letters, n) for e, p in t.powers]
            size = [] if abs(t.scale) == 1.0 and inside else [n.number(abs(t.scale))]
            named = dict(letters)
            for a in summed:
                named.setdefault(a, self.symbols.spare(named.values()))
            body = n.total([named[a] for a in summed], n.product(inside)) if inside else ""
            parts.append((t.scale, n.scaled([*size, *([body] if body else [])])))
        return signed_sum(parts, n)

    def nonlinear(self, f: Function, letters: Mapping[int, str], n: AbstractNotation) -> str:
        """A nonlinear function of affine forms."""
        leaves = {
            "arg": [self.form(a, letters, n) for a in f.args],
            "const": [self.tensor(c, letters, n) for c in f.consts],
            "grid": [self.element(e, letters, n) for e, _ in f.grids],
        }
        text = expression(f.expr, leaves, n)
        if len(text) > MAX_WRITTEN:
            text = n.function(n.name("phi"), *leaves["arg"], *leaves["grid"])
        return text


def _by_factor(atoms: list[Any]) -> list[tuple[tuple[int, ...], list[str]]]:
    """Join atoms whose factors overlap: their mean is no product."""
    groups: list[tuple[frozenset[str], tuple[int, ...], list[str]]] = []
    for touched, axes, text in atoms:
        mine = [g for g in groups if g[0] & touched]
        rest = [g for g in groups if not g[0] & touched]
        joined = (
            touched.union(*(g[0] for g in mine)), union(*(g[1] for g in mine), axes),
            [*(t for g in mine for t in g[2]), text],
        )  # fmt: skip
        groups = [*rest, joined]
    return [(axes, texts) for _, axes, texts in groups]


def free_constant(terms: Terms) -> tuple[float, Terms]:
    """The part that depends on no latent, and the rest."""
    value = 0.0
    for t in terms:
        if t.is_constant:
            value += t.scale * float(np.asarray(contract(t.operands, ()).array))
    return value, tuple(t for t in terms if not t.is_constant)


# --- nonlinear functions --------------------------------------------------------------------------

PASSED = ("convert_element_type", "copy", "stop_gradient", "broadcast_in_dim")


def expression(e: Any, leaves: Mapping[str, list[str]], n: AbstractNotation) -> str:
    """An expression tree as text."""
    kind = e[0]
    if kind in leaves:
        return leaves[kind][e[1]]
    if kind == "number":
        return n.number(float(e[1]))
    if kind == "power":
        x, p = expression(e[1], leaves, n), e[2]
        parts = [n.power(f"({x})", p.power)] if p.power else []
        parts += [n.function("log", x)] * p.logs
        parts += [n.power(f"(1 - {x})", p.copower)] if p.copower else []
        return n.product(parts + [n.function("log", f"1 - {x}")] * p.cologs)
    if kind == "op":
        return _operation(e[1], dict(e[3]), [expression(c, leaves, n) for c in e[4]], n)
    inside = [expression(c, leaves, n) for c in e[1:]]
    if kind == "exp":
        return n.function("exp", inside[0])
    return n.scaled(_grouped(x) for x in inside) if kind == "times" else " + ".join(inside)


def _operation(name: str, params: Mapping[str, Any], xs: list[str], n: AbstractNotation) -> str:
    if name in PASSED:
        return xs[0]
    if name == "neg":
        return f"-{_grouped(xs[0])}"
    if name == "add":
        return f"{xs[0]} + {xs[1]}"
    if name == "sub":
        return f"{xs[0]} - {_grouped(xs[1])}"
    if name == "mul":
        return n.scaled(_grouped(x) for x in xs)
    if name == "div":
        return n.ratio(_grouped(xs[0]), _grouped(xs[1]))
    if name in ("integer_pow", "square"):
        return n.power(f"({xs[0]})", params.get("y", 2))
    known = {"logistic": "sigmoid", "abs": "abs"}
    return n.function(known.get(name, name), *xs)


def _grouped(text: str) -> str:
    """In parentheses if it has more than one part."""
    return text if " " not in text or _is_call(text) else f"({text})"


def _is_call(text: str) -> bool:
    """Whether the text is one pair of parentheses with at most a name before it."""
    head, _, rest = text.partition("(")
    depth, inside = 1, rest[:-1]
    for c in inside:
        depth += (c == "(") - (c == ")")
        if depth == 0:
            return False
    return " " not in head and rest.endswith(")")
