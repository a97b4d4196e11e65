"""What is known almost surely: comparisons and guards that have one outcome with probability one.

Densities clip and compare to stay finite in floating point; under q these guards say nothing.
"""

from typing import TYPE_CHECKING

import numpy as np

from taut.expectation.algebra import cases, is_local
from taut.expectation.terms import Tensor, Terms

if TYPE_CHECKING:
    from taut.expectation.elementwise import Node

TINY = 1e-6  # a bound this near to a latent's limit is a guard against rounding


def almost_sure(name: str, nodes: "list[Node]", outer: tuple[int, ...]) -> "Tensor | Node | None":
    """Result of a comparison or a guard that has one outcome with probability one."""
    if all(n.constant is not None for n in nodes):
        return None
    if name == "select_n" and len(nodes) == 3 and (mask := nodes[0].constant) is not None:
        known = mask.is_static and np.ndim(mask.array) == 0
        return nodes[2 if bool(mask.array) else 1] if known else None
    if name == "is_finite":
        return Tensor(np.bool_(True))
    if name in ("ne", "eq") and nodes[0] is nodes[1]:
        return Tensor(np.bool_(name == "eq"))
    if name in ("gt", "ge", "lt", "le", "max", "min"):
        return _against_bound(name, nodes[0], nodes[1], outer)
    if name == "clamp":
        low, x, high = nodes
        inside = _below(low, TINY) and is_positive(x) and _is_static_near(high, 1.0)
        return x if inside and _is_unit(x, outer) else None
    return None


def _against_bound(
    name: str, a: "Node", b: "Node", outer: tuple[int, ...]
) -> "Tensor | Node | None":
    """A positive latent against zero, one below 1 against 1, or as good as those."""
    if name in ("max", "min"):
        x, bound = (a, b) if b.constant is not None else (b, a)
        if name == "max" and is_positive(x) and _below(bound, 1e-30):
            return x
        below = name == "min" and _is_static_near(bound, 1.0) and _is_unit(x, outer)
        return x if below else None
    if is_positive(a) and _below(b, 0.0):
        return Tensor(np.bool_(name in ("gt", "ge")))
    if is_positive(b) and _below(a, 0.0):
        return Tensor(np.bool_(name in ("lt", "le")))
    return None


def _below(node: "Node", bound: float) -> bool:
    tensor = node.constant
    return (
        tensor is not None and tensor.is_static and bool(np.all(np.asarray(tensor.array) <= bound))
    )


def _is_static_near(node: "Node", target: float) -> bool:
    tensor = node.constant
    if tensor is None or not tensor.is_static:
        return False
    return bool(np.all(np.abs(np.asarray(tensor.array) - target) <= TINY))


def is_positive(node: "Node") -> bool:
    """Products of powers of positive latents and exponentials, with positive numbers."""
    return bool(node.terms) and all(
        not t.is_constant and t.is_monomial and not t.operands and t.scale > 0
        for t in _branches(node.terms or ())
    )


def _branches(terms: Terms) -> Terms:
    """The terms of a sum; those of a concatenation without their masks."""
    masked = cases(terms)
    return terms if masked is None else tuple(t for _, t in masked)


def _is_unit(node: "Node", outer: tuple[int, ...]) -> bool:
    """A product of latents between 0 and 1, or a concatenation of such products."""
    terms = node.terms or ()
    if not is_positive(node) or (len(terms) > 1 and cases(terms) is None):
        return False
    return all(
        t.scale <= 1.0 and not t.exponents and is_local(t, outer)
        and all(e.unit and p.power >= 0 and p.copower >= 0 for e, p in t.powers)
        for t in _branches(terms)
    )  # fmt: skip
