"""Which precision a Gaussian block is joined with: normal-gamma and normal-Wishart factors.

The joint factor contains the product of a Gaussian block and its precision's own factor as a
limit, so where the terms allow it the bound is tighter; see :mod:`taut.expectation.scaled`.
"""

from collections.abc import Mapping, Sequence

import numpy as np

from taut.expectation.scaled import is_contracted
from taut.expectation.terms import Power, Term
from taut.problem import Latent

ONE = Power(power=1.0)


def joint_precision(
    group: Sequence[str],
    kinds: Mapping[str, str],
    latents: Mapping[str, Latent],
    terms: Sequence[Term],
    largest: int,
) -> str:
    """The latent that multiplies every term of a block once, as in a conjugate prior, or "".

    Args:
        group: latents of the block.
        kinds: the factor of every latent.
        latents: all of them, by name.
        terms: of the model.
        largest: coordinates that share one precision, at most.
    """
    mine = [t for t in terms if t.latents & set(group)]
    if not mine or any(t.exponents or t.functions for t in mine):
        return ""
    common = frozenset.intersection(
        *(frozenset(e.latent for e, p in t.powers if p == ONE) for t in mine)
    )
    fits = [
        n for n in common
        if kinds.get(n) in ("gamma", "wishart")
        and _fits(group, latents, latents[n], kinds[n], largest)
        and all(_is_statistic(t, group, latents[n], kinds[n]) for t in mine)
    ]  # fmt: skip
    return fits[0] if len(fits) == 1 else ""


def batch_of(precision: Latent, kind: str) -> tuple[int, ...]:
    """The shape of the independent precisions in a latent."""
    return precision.shape[:-2] if kind == "wishart" else precision.shape


def _fits(
    group: Sequence[str],
    latents: Mapping[str, Latent],
    precision: Latent,
    kind: str,
    largest: int,
) -> bool:
    """Whether every independent precision has its elements of the block, and not too many."""
    shapes, batch = [latents[n].unconstrained_shape for n in group], batch_of(precision, kind)
    if kind == "wishart":
        return shapes == [precision.shape[:-1]] and precision.shape[-1] <= largest
    size = sum(int(np.prod(s[len(batch) :], dtype=int)) for s in shapes)
    return all(s[: len(batch)] == batch for s in shapes) and size <= largest


def _is_statistic(term: Term, group: Sequence[str], precision: Latent, kind: str) -> bool:
    """Whether a term is linear in the statistics of the joint factor."""
    entries = [e for e, _ in term.powers if e.latent == precision.name]
    mine = [e for e in term.linear if e.latent in group]
    if len(entries) != 1 or len(mine) > 2:
        return False
    batch = len(batch_of(precision, kind))
    if any(e.index[:batch] != entries[0].index[:batch] for e in mine):
        return False
    return kind == "gamma" or is_contracted(term, entries[0], mine, precision.shape[-1])
