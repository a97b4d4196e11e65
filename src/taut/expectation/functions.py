"""Nonlinear functions of few affine forms: found in the tree of operations."""

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np

from taut.expectation import algebra
from taut.expectation.certain import is_positive
from taut.expectation.elementwise import Node, Unreadable
from taut.expectation.expression import Expr
from taut.expectation.terms import (
    Affine,
    Entry,
    Function,
    Tensor,
    Term,
    Terms,
    fresh,
    key,
    union,
)  # fmt: skip

MAX_ARGS = 6  # Gaussian arguments of one function
KINKS = frozenset("abs max min sign select_n clamp floor ceil round".split())


def force(node: Node, outer: tuple[int, ...]) -> Terms:
    """Write a node as a sum of terms, with functions where it is no polynomial.

    Raises:
        Unreadable: if some part of it has no place in the algebra.
    """
    if node.terms is not None:
        return node.terms
    if node.op is None:
        raise Unreadable("a value that is neither a sum of terms nor an elementwise operation")
    name, children = node.op[0], node.children
    if algebra.is_identity(name, dict(node.op[2])) and children[0].op is not None:
        return force(children[0], outer)
    if name == "neg":
        return algebra.negated(force(children[0], outer))
    if name in ("add", "add_any", "sub"):
        return _added(node, outer)
    if name in ("mul", "div") and (split := _split(node, outer)) is not None:
        return split
    if name == "select_n" and (masked := _masked(node, outer)) is not None:
        return masked
    if name == "abs" and (pulled := _absolute_of_product(node)) is not None:
        return force(pulled, outer)
    return _compose(node, outer)


def _added(node: Node, outer: tuple[int, ...]) -> Terms:
    """A sum, part by part; functions of the same arguments in one.

    That saves integrals, and parts with kinks whose sum is smooth, such as max(t, 0) and
    log1p(exp(-|t|)), see one rule.
    """
    a, b = node.children
    left, right = force(a, outer), force(b, outer)
    if node.op is not None and node.op[0] == "sub":
        right = algebra.negated(right)
    alone = len(left) == len(right) == 1 and bool(left[0].functions and right[0].functions)
    if a.terms is None and b.terms is None and alone and not _differ_in_kinks(left, right):
        joint = _tried(node, outer)
        if joint is not None and _cost(joint) <= max(_cost(left), _cost(right)):
            return joint
    return left + right


def _differ_in_kinks(left: Terms, right: Terms) -> bool:
    """Whether one side is |a|, whose mean is known, and the other is smooth."""
    sides = [[f for t in side for f in t.functions] for side in (left, right)]
    known = [all(absolute_form(f) is not None for f in side) for side in sides]
    bent = [any(_has_kink(f.expr) for f in side) for side in sides]
    return (known[0] and not bent[1]) or (known[1] and not bent[0])


def _has_kink(expr: Expr) -> bool:
    stack, seen = [expr], set()
    while stack:
        e = stack.pop()
        if id(e) in seen:
            continue
        seen.add(id(e))
        if e[0] == "op" and e[1] in KINKS:
            return True
        inner = e[4] if e[0] == "op" else e[1:] if e[0] in ("times", "plus", "exp", "power") else ()
        stack += [x for x in inner if isinstance(x, tuple) and x and isinstance(x[0], str)]
    return False


def _tried(node: Node, outer: tuple[int, ...]) -> Terms | None:
    try:
        return _compose(node, outer)
    except Unreadable:
        return None


def _cost(terms: Terms) -> tuple[int, int]:
    """Dimensions of the worst integral: of Gaussian arguments, and on grids."""
    counts = [
        (sum(len(f.args) for f in t.functions), sum(len(f.grids) for f in t.functions))
        for t in terms
    ]
    return max(counts, default=(0, 0))


def _split(node: Node, outer: tuple[int, ...]) -> Terms | None:
    """A product factor by factor.

    Factors that share Gaussian latents are multiplied where that takes fewer arguments than one
    function of all of them: exp(affine) shifts the other factor's mean, and elements are
    regressed on its arguments.
    """
    a, b = node.children
    try:
        left = force(a, outer)
        if node.op is not None and node.op[0] == "mul":
            right: Terms | None = force(b, outer)
        else:
            right = None if b.terms is None else algebra.raised(b.terms, -1.0, outer)
    except Unreadable:
        return None
    found = None if right is None else algebra.multiply(left, right, outer)
    if found is None or right is None:
        return None
    shared = _latents(left) & _latents(right)
    if not shared:
        return found
    single = all(len(t.functions) < 2 and len(t.linear) < 2 for t in found)
    if not single or shared - _gaussian(left) or shared - _gaussian(right):
        return None
    joint = _tried(node, outer)
    return found if joint is None or _cost(found) < _cost(joint) else joint


def _latents(terms: Terms) -> frozenset[str]:
    return frozenset().union(*(t.latents for t in terms))


def _gaussian(terms: Terms) -> frozenset[str]:
    """Names of Gaussian latents."""
    inner = [t for s in terms for a in s.exponents for t in a.terms]
    inner += [t for s in terms for f in s.functions for a in f.args for t in a.terms]
    return frozenset(e.latent for t in (*terms, *inner) for e in t.linear)


def _absolute_of_product(node: Node) -> Node | None:
    """|x y| as |x| y for positive y."""
    inner = node.children[0]
    if inner.op is None or inner.op[0] not in ("mul", "div"):
        return None
    a, b = inner.children
    if is_positive(b):
        return Node(None, None, inner.op, (Node(None, None, node.op, (a,)), b))
    if inner.op[0] == "mul" and is_positive(a):
        return Node(None, None, inner.op, (Node(None, None, node.op, (b,)), a))
    return None


def _masked(node: Node, outer: tuple[int, ...]) -> Terms | None:
    """A choice by a constant mask, branch by branch."""
    if node.children[0].constant is None or len(node.children) != 3:
        return None
    branches = [c.terms if c.constant is not None else force(c, outer) for c in node.children[1:]]
    return algebra.choose(list(node.children), [None, *branches], outer)


# --- composing ---------------------------------------------------------------------------------


@dataclasses.dataclass
class _Leaves:
    """Arguments of a function under construction."""

    outer: tuple[int, ...]
    args: list[Affine] = dataclasses.field(default_factory=list)
    keys: list[Any] = dataclasses.field(default_factory=list)
    consts: list[Tensor] = dataclasses.field(default_factory=list)
    grids: dict[Entry, int] = dataclasses.field(default_factory=dict)

    def constant(self, tensor: Tensor) -> Expr:
        if tensor.is_static and np.ndim(tensor.array) == 0:
            return ("number", np.asarray(tensor.array).item())
        for i, known in enumerate(self.consts):
            if known.array is tensor.array and known.axes == tensor.axes:
                return ("const", i)
        self.consts.append(tensor)
        return ("const", len(self.consts) - 1)

    def affine(self, terms: Terms) -> Expr:
        """An affine form, as number * argument + constant."""
        fixed = tuple(t for t in terms if t.is_constant)
        moving = tuple(t for t in terms if not t.is_constant)
        scale = moving[0].scale
        moving = tuple(t.scaled(1.0 / scale) for t in moving)
        kept = set(self.outer)
        form = Affine(moving, tuple(a for a in union(*(t.axes for t in moving)) if a in kept))
        name = key(form)
        if name not in self.keys:
            self.keys.append(name)
            self.args.append(form)
        expr: Expr = ("arg", self.keys.index(name))
        if scale != 1.0:
            expr = ("times", ("number", scale), expr)
        if fixed:
            shift = self.constant(algebra.constant_value(fixed, self.outer))
            expr = ("plus", expr, shift)
        return expr

    def grid(self, entry: Entry) -> Expr:
        """An element of a latent that is no Gaussian, enumerated on a grid."""
        self.grids.setdefault(entry, fresh())
        return ("grid", list(self.grids).index(entry))


def _compose(node: Node, outer: tuple[int, ...]) -> Terms:
    leaves = _Leaves(outer)
    expr = _walk(node, leaves, {})
    if len(leaves.args) > MAX_ARGS:
        raise Unreadable(f"a nonlinear function of {len(leaves.args)} affine forms")
    grids = tuple(leaves.grids.items())
    function = Function(tuple(leaves.args), tuple(leaves.consts), expr, grids)
    return (Term(functions=(function,), onehots=grids),)


def _walk(node: Node, leaves: _Leaves, memo: dict[int, Expr]) -> Expr:
    """Expression of a node over the topmost affine forms below it."""
    if id(node) in memo:
        return memo[id(node)]
    terms = node.terms
    if node.constant is not None:
        expr = leaves.constant(node.constant)
    elif terms is not None and all(t.is_affine for t in terms) and any(t.linear for t in terms):
        expr = leaves.affine(terms)
    elif node.op is not None:
        name, prim, params = node.op
        expr = ("op", name, prim, params, tuple(_walk(c, leaves, memo) for c in node.children))
    elif terms is not None:
        expr = _sum(terms, leaves)
    else:
        raise Unreadable("a value that is no elementwise function of affine forms")
    memo[id(node)] = expr
    return expr


def _sum(terms: Terms, leaves: _Leaves) -> Expr:
    """A sum of local products as an expression of its atoms."""
    if not terms:
        return ("number", 0.0)
    parts = []
    for term in terms:
        if term.onehots or term.functions or not set(term.axes) <= set(leaves.outer):
            raise Unreadable("a nonlinear function of a sum over products of latents")
        factors: list[Expr] = [("number", term.scale)]
        factors += [leaves.constant(t) for t in term.operands]
        factors += [leaves.affine((Term(linear=(e,)),)) for e in term.linear]
        factors += [("exp", leaves.affine(a.terms)) for a in term.exponents]
        factors += [("power", leaves.grid(e), p) for e, p in term.powers]
        parts.append(("times", *factors))
    return parts[0] if len(parts) == 1 else ("plus", *parts)


def join_dependent(term: Term, block_of: Mapping[str, Any]) -> Term:
    """Join functions of latents that are correlated into one function of all their arguments.

    Args:
        term: whose functions are joined.
        block_of: latent -> what its Gaussian block is known by.

    Raises:
        Unreadable: if the arguments are too many.
    """
    groups: list[tuple[set[Any], Function]] = []
    for function in term.functions:
        blocks = {block_of[e.latent] for a in function.args for t in a.terms for e in t.linear}
        for group in [g for g in groups if g[0] & blocks]:
            groups.remove(group)
            blocks, function = group[0] | blocks, _product(group[1], function)
        groups.append((blocks, function))
    return dataclasses.replace(term, functions=tuple(f for _, f in groups))


def _product(a: Function, b: Function) -> Function:
    """One function that is the product of two."""
    args, names = list(a.args), [key(x) for x in a.args]
    places = {"arg": [], "const": [], "grid": []}  # type: dict[str, list[int]]
    for arg in b.args:
        if key(arg) not in names:
            args.append(arg)
            names.append(key(arg))
        places["arg"].append(names.index(key(arg)))
    if len(args) > MAX_ARGS:
        raise Unreadable(f"a product of nonlinear functions of {len(args)} affine forms")
    grids = dict(a.grids) | dict(b.grids)
    places["const"] = [len(a.consts) + i for i in range(len(b.consts))]
    places["grid"] = [list(grids).index(e) for e, _ in b.grids]
    expr = ("times", a.expr, _renumbered(b.expr, places, {}))
    return Function(tuple(args), a.consts + b.consts, expr, tuple(grids.items()))


def _renumbered(expr: Expr, places: Mapping[str, list[int]], memo: dict[int, Expr]) -> Expr:
    """An expression whose leaves stand at other places."""
    if id(expr) in memo:
        return memo[id(expr)]
    kind = expr[0]
    if kind in places:
        found: Expr = (kind, places[kind][expr[1]])
    elif kind == "op":
        found = (*expr[:4], tuple(_renumbered(e, places, memo) for e in expr[4]))
    elif kind == "power":
        found = (kind, _renumbered(expr[1], places, memo), expr[2])
    elif kind == "number":
        found = expr
    else:
        found = (kind, *(_renumbered(e, places, memo) for e in expr[1:]))
    memo[id(expr)] = found
    return found


# --- forms that are known ----------------------------------------------------------------------


def absolute_form(function: Function) -> tuple[float, Expr] | None:
    """(s, c) of a function ``|s a + c|`` of one affine form a; its mean has a closed form."""
    expr = function.expr
    if len(function.args) != 1 or function.grids or expr[:2] != ("op", "abs"):
        return None
    (inner,) = expr[4]
    shift: Expr = ("number", 0.0)
    if inner[0] == "plus" and len(inner) == 3 and inner[2][0] in ("const", "number"):
        _, inner, shift = inner
    scale = 1.0
    if inner[0] == "times" and len(inner) == 3 and inner[1][0] == "number":
        _, (_, scale), inner = inner
    return (scale, shift) if inner == ("arg", 0) else None
