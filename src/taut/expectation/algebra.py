"""Elementwise operations on sums of terms."""

import dataclasses
import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import jax.numpy as jnp
import numpy as np
from scipy import special

from taut.expectation.pool import Pool, expand
from taut.expectation.terms import (
    Affine,
    Power,
    Tensor,
    Term,
    Terms,
    collect,
    constant_term,
    contract,
    product,
    union,
)  # fmt: skip

if TYPE_CHECKING:
    from taut.expectation.elementwise import Node

MAX_TERMS = 400  # beyond, a product is left as it was made
NUMPY = {
    "add": np.add, "sub": np.subtract, "mul": np.multiply, "div": np.true_divide, "neg": np.negative,
    "exp": np.exp, "log": np.log, "log1p": np.log1p, "expm1": np.expm1, "sqrt": np.sqrt, "abs": np.abs,
    "max": np.maximum, "min": np.minimum, "pow": np.power, "eq": np.equal, "ne": np.not_equal,
    "lt": np.less, "le": np.less_equal, "gt": np.greater, "ge": np.greater_equal, "sign": np.sign,
    "and": np.bitwise_and, "or": np.bitwise_or, "not": np.invert, "is_finite": np.isfinite,
    "square": np.square, "lgamma": special.gammaln, "digamma": special.digamma, "add_any": np.add,
    "rsqrt": lambda x: 1.0 / np.sqrt(x), "rem": np.fmod, "floor": np.floor,
}  # fmt: skip


def on_constants(
    pool: Pool, name: str, prim: Any, params: Mapping[str, Any], tensors: list[Tensor]
) -> Tensor:
    """Apply an elementwise operation to constants, over the axes that they vary on only."""
    axes = union(*(t.axes for t in tensors))
    if all(t.is_static for t in tensors):
        arrays = [np.asarray(expand(t, axes)) for t in tensors]
        found = _on_numpy(name, params, arrays)
        if found is not None:
            return Tensor(found, axes)

    def compute() -> Any:
        arrays = [jnp.asarray(expand(t, axes)) for t in tensors]
        shape = np.broadcast_shapes(*(a.shape for a in arrays))
        return prim.bind(*(jnp.broadcast_to(a, shape) for a in arrays), **params)

    label = (prim, repr(sorted(params.items())), tuple(t.axes for t in tensors))
    return Tensor(pool.once(label, [t.array for t in tensors], compute), axes)


def _on_numpy(name: str, params: Mapping[str, Any], arrays: list[np.ndarray]) -> Any:
    with np.errstate(all="ignore"):
        if name == "select_n":
            if len(arrays) != 3 or arrays[0].dtype != bool:
                return None
            found = np.where(arrays[0], arrays[2], arrays[1])
        elif name == "convert_element_type":
            found = arrays[0].astype(params["new_dtype"])
        elif name == "integer_pow":
            found = arrays[0].astype(float) ** params["y"]
        elif name in ("copy", "stop_gradient"):
            found = arrays[0]
        elif name == "div" and all(a.dtype.kind in "iu" for a in arrays):
            return None
        elif name in NUMPY:
            found = NUMPY[name](*arrays)
        else:
            return None
    return np.asarray(found)


# --- operations -------------------------------------------------------------------------------


def on_terms(
    name: str, params: Mapping[str, Any], nodes: "list[Node]", outer: tuple[int, ...]
) -> Terms | None:
    """Terms of an elementwise operation's result; None where it is no sum of terms."""
    sides = [n.terms for n in nodes]
    if name == "select_n":
        return choose(nodes, sides, outer)
    if any(s is None for s in sides):
        return None
    a: Any = sides[0]
    if is_identity(name, params):
        return a
    if name in ("add", "add_any", "sub"):
        b: Any = sides[1]
        if name == "sub":
            return complement(a, b) or collect(a + negated(b))
        return complement(a, negated(b)) or complement(b, negated(a)) or collect(a + b)
    if name == "neg":
        return tuple(t.scaled(-1.0) for t in a)
    if name == "mul":
        return multiply(a, sides[1], outer)  # type: ignore[arg-type]
    if name == "div":
        inverse = raised(sides[1], -1.0, outer)  # type: ignore[arg-type]
        return None if inverse is None else multiply(a, inverse, outer)
    if name == "integer_pow":
        return power(a, params["y"], outer)
    if name == "square":
        return power(a, 2, outer)
    if name in ("sqrt", "rsqrt"):
        return raised(a, 0.5 if name == "sqrt" else -0.5, outer)
    if name == "pow":
        return _raised_to(a, nodes[1].constant, outer)
    if name == "exp":
        return exponential(a, outer)
    if name == "log":
        return logarithm(a, outer)
    if name == "log1p":
        inner = complement((Term(),), tuple(t.scaled(-1.0) for t in a))
        return None if inner is None else logarithm(inner, outer)
    return None


def is_identity(name: str, params: Mapping[str, Any]) -> bool:
    """True for operations that leave real numbers as they are."""
    if name == "convert_element_type":
        return jnp.issubdtype(params["new_dtype"], jnp.floating)
    return name in ("copy", "stop_gradient", "reduce_precision")


def choose(nodes: "list[Node]", sides: list[Terms | None], outer: tuple[int, ...]) -> Terms | None:
    """Terms of a choice by a constant mask; ``sides`` are those of mask, false and true branch."""
    mask = nodes[0].constant
    if mask is None or len(nodes) != 3:
        return None
    if any(s is None for s in sides[1:]):
        return None
    found: list[Term] = []
    for at, node in enumerate(nodes[1:]):
        on = Tensor(jnp.asarray(mask.array) == bool(at), mask.axes)
        if node.constant is not None:  # 0 * inf must not become NaN
            axes = union(mask.axes, node.constant.axes)
            kept = jnp.where(expand(on, axes), expand(_jax(node.constant), axes), 0.0)
            found.append(constant_term(Tensor(kept, axes)))
        else:
            found += [t.times(Tensor(on.array.astype(float), on.axes)) for t in sides[at + 1] or ()]
    return tuple(found)


def _jax(tensor: Tensor) -> Tensor:
    return Tensor(jnp.asarray(tensor.array), tensor.axes)


def complement(a: Terms, b: Terms) -> Terms | None:
    """1 - x of a unit-interval latent, and 1 - (1 - x), as single terms."""
    one = len(a) == 1 and a[0].is_constant and not a[0].operands and a[0].scale == 1.0
    if not one or len(b) != 1:
        return None
    (term,) = b
    bare = Term(scale=term.scale, powers=term.powers)
    if term != bare or term.scale != 1.0 or len(term.powers) != 1:
        return None
    ((entry, p),) = term.powers
    if not entry.unit:
        return None
    if p == Power(power=1.0):
        return (Term(powers=((entry, Power(copower=1.0)),)),)
    return (Term(powers=((entry, Power(power=1.0)),)),) if p == Power(copower=1.0) else None


def multiply(a: Terms, b: Terms, outer: tuple[int, ...]) -> Terms | None:
    """Product of two sums."""
    if len(a) * len(b) > MAX_TERMS:
        return None
    return collect(tuple(product(s, t, outer) for s in a for t in b))


def power(a: Terms, exponent: float | int, outer: tuple[int, ...]) -> Terms | None:
    """A sum to a constant power."""
    exponent = float(exponent)
    if exponent == 0:
        return (Term(),)
    if exponent in (1, 2, 3, 4) and not (
        len(a) == 1 and a[0].is_monomial and is_local(a[0], outer)
    ):
        found: Terms | None = a
        for _ in range(int(exponent) - 1):
            found = None if found is None else multiply(found, a, outer)
        return found
    return raised(a, exponent, outer)


def _raised_to(a: Terms, exponent: Tensor | None, outer: tuple[int, ...]) -> Terms | None:
    if exponent is None or not exponent.is_static or np.ndim(exponent.array) > 0:
        return None
    return power(a, float(exponent.array), outer)


def is_local(term: Term, outer: tuple[int, ...]) -> bool:
    """Whether a term sums over nothing."""
    return set(term.axes) <= set(outer)


def raised(a: Terms, exponent: float | int, outer: tuple[int, ...]) -> Terms | None:
    """A single product of powers to any power."""
    if not a and exponent > 0:
        return ()
    if all(t.is_constant for t in a):
        base = constant_value(a, outer)
        return (constant_term(Tensor(base.array**exponent, base.axes)),)
    if len(a) != 1 or not a[0].is_monomial or not is_local(a[0], outer):
        return None
    (term,) = a
    if term.scale <= 0 and exponent != int(exponent):
        return None
    return (
        Term(
            operands=tuple(Tensor(t.array**exponent, t.axes) for t in map(_jax, term.operands)),
            exponents=tuple(
                Affine(tuple(t.scaled(exponent) for t in e.terms), e.axes) for e in term.exponents
            ),
            scale=term.scale**exponent,
            powers=tuple(
                (e, Power(power=exponent * p.power, copower=exponent * p.copower))
                for e, p in term.powers
            ),
        ),
    )


def constant_value(terms: Terms, outer: tuple[int, ...]) -> Tensor:
    """The array of a sum of constants."""
    found = []
    for term in terms:
        tensor = contract(term.operands, outer)
        found.append(Tensor(tensor.array * term.scale, tensor.axes))
    axes = union(*(t.axes for t in found))
    total: Any = 0.0
    for tensor in found:
        total = total + expand(tensor, axes)
    return Tensor(np.asarray(total) if isinstance(total, float) else total, axes)


def exponential(a: Terms, outer: tuple[int, ...]) -> Terms | None:
    """Exp of constants, affine forms and multiples of log x."""
    if not all(t.is_affine or _is_log(t) for t in a):
        return None
    constants = tuple(t for t in a if t.is_constant)
    static = [t for t in constants if not t.operands]
    arrays = tuple(t for t in constants if t.operands)
    affine = tuple(t for t in a if t.linear)
    powers: dict[Any, Power] = {}
    for term in a:
        if not _is_log(term):
            continue
        ((entry, p),) = term.powers
        step = Power(power=term.scale) if p.logs else Power(copower=term.scale)
        powers[entry] = powers.get(entry, Power()) * step
    operands: tuple[Tensor, ...] = ()
    if arrays:
        total = constant_value(arrays, outer)
        operands = (Tensor(jnp.exp(total.array), total.axes),)
    kept = tuple(x for x in union(*(t.axes for t in affine)) if x in set(outer))
    return (
        Term(
            operands=operands,
            exponents=(Affine(affine, kept),) if affine else (),
            scale=math.exp(sum(t.scale for t in static)),
            powers=tuple((e, p) for e, p in sorted(powers.items(), key=repr) if any(p)),
        ),
    )


def _is_log(term: Term) -> bool:
    """A number times log x or log(1 - x)."""
    bare = Term(scale=term.scale, powers=term.powers)
    return (
        term == bare
        and len(term.powers) == 1
        and term.powers[0][1] in (Power(logs=1), Power(cologs=1))
    )


def logarithm(a: Terms, outer: tuple[int, ...]) -> Terms | None:
    """Log of a single product of powers."""
    if all(t.is_constant for t in a):
        base = constant_value(a, outer)
        return (constant_term(Tensor(jnp.log(base.array), base.axes)),)
    if (masked := cases(a)) is not None:
        logs = [logarithm((term,), outer) for _, term in masked]
        if any(x is None for x in logs):
            return None
        return tuple(t.times(m) for (m, _), x in zip(masked, logs, strict=True) for t in x or ())
    if len(a) != 1 or not a[0].is_monomial or not is_local(a[0], outer) or a[0].scale <= 0:
        return None
    (term,) = a
    found = [Term(scale=math.log(term.scale))] if term.scale != 1.0 else []
    found += [Term(operands=(Tensor(jnp.log(t.array), t.axes),)) for t in map(_jax, term.operands)]
    for entry, p in term.powers:
        if p.power:
            found.append(Term(scale=p.power, powers=((entry, Power(logs=1)),)))
        if p.copower:
            found.append(Term(scale=p.copower, powers=((entry, Power(cologs=1)),)))
    for exponent in term.exponents:
        found += exponent.terms
    return collect(tuple(found))


def cases(a: Terms) -> list[tuple[Tensor, Term]] | None:
    """The terms with their masks, where exactly one of them is on everywhere (a concatenation)."""
    found = []
    for term in a if len(a) > 1 else ():
        masks = [
            t for t in term.operands if t.is_static and np.ndim(t.array) and _is_binary(t.array)
        ]
        if len(masks) != 1:
            return None
        rest = tuple(t for t in term.operands if t is not masks[0])
        found.append((masks[0], dataclasses.replace(term, operands=rest)))
    if len({m.axes for m, _ in found}) != 1:
        return None
    total = sum(np.asarray(m.array) for m, _ in found)
    return found if np.all(total == 1) else None


def _is_binary(array: Any) -> bool:
    return bool(np.all((array == 0) | (array == 1)))


def negated(terms: Terms) -> Terms:
    """Minus a sum."""
    return tuple(dataclasses.replace(t, scale=-t.scale) for t in terms)
