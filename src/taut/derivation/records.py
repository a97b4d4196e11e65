"""What a derivation is made of: plain frozen records."""

import dataclasses
from collections.abc import Mapping

import numpy as np

from taut.derivation.notation import Formula


@dataclasses.dataclass(frozen=True)
class Site:
    """One site of the model.

    Attributes:
        name: the site.
        kind: "latent", "observed" or "factor".
        formula: "w ~ Normal(0, 2)".
        shape: its shape.
        plates: names of the plates around it, outermost first, with their sizes.
        methods: how its expected log density is obtained.
        terms: its expected log density, summand by summand; empty where it could not be read.
        expected: E_q[log p] of the site, nats.
    """

    name: str
    kind: str
    formula: Formula
    shape: tuple[int, ...]
    plates: tuple[tuple[str, int], ...]
    methods: tuple[str, ...]
    terms: tuple[Formula, ...]
    expected: float


@dataclasses.dataclass(frozen=True)
class Parameter:
    """One parameter of a factor and what it is at the optimum.

    Attributes:
        symbol: its symbol.
        rule: the update in general, such as "1 + dF/dE[log tau]".
        written: the same written out for this model; empty where that is the rule itself.
        value: where the ascent ended.
        offset: the part that no site sends.
        messages: site -> what it adds; they and ``offset`` sum to the optimum.
    """

    symbol: Formula
    rule: Formula
    written: tuple[Formula, ...]
    value: np.ndarray
    offset: float
    messages: Mapping[str, np.ndarray]

    @property
    def optimum(self) -> np.ndarray:
        """Value of the rule, given the other factors."""
        return np.asarray(sum(self.messages.values(), np.full(self.value.shape, self.offset)))


@dataclasses.dataclass(frozen=True)
class Factor:
    """One factor of q.

    Attributes:
        name: its key in q.
        latents: the latents that it holds.
        formula: its place in the factorisation.
        family: the family, in words.
        why: why it has it.
        parameters: its parameters with their updates.
        entropy: nats.
        kl: KL(q || prior given parents), averaged over q of the parents, nats.
    """

    name: str
    latents: tuple[str, ...]
    formula: Formula
    family: str
    why: str
    parameters: tuple[Parameter, ...]
    entropy: float
    kl: float


@dataclasses.dataclass(frozen=True)
class Constant:
    """An array that stands in formulas under a letter, and what it is."""

    symbol: Formula
    value: np.ndarray
    what: str
