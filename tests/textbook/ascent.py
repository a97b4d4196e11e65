"""Coordinate ascent over named factors, as in Bishop (2006), section 10.1.1."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from textbook.factors import AbstractFactor

Names = str | tuple[str, ...]  # a latent, or latents with one joint factor
Factors = Mapping[Names, Any]
Data = Mapping[str, Any]


class Reference(NamedTuple):
    """Where coordinate ascent has come.

    Attributes:
        factors: latent, or tuple of latents, -> its factor.
        elbo: E_q[log p] + entropy with every constant, in nats.
        history: the ELBO at the start and after each sweep, (iterations + 1,).
    """

    factors: dict[Names, AbstractFactor]
    elbo: float
    history: np.ndarray


@dataclass(frozen=True)
class Textbook:
    """A model with its coordinate ascent.

    Attributes:
        name: unique.
        source: where the updates are found.
        model: the NumPyro model; its latents are those of the factors.
        make_data: makes the model's keyword arguments, the same at every call.
        make_start: makes q of every latent from the data, the same at every call.
        updates: names -> the optimal factor given the others, in the order of a sweep.
        expected_log_joint: E_q[log p(x, z)] in nats.
    """

    name: str
    source: str
    model: Callable[..., None]
    make_data: Callable[[], dict[str, Any]]
    make_start: Callable[[Data], dict[Names, Any]]
    updates: Mapping[Names, Callable[[Data, Factors], AbstractFactor]]
    expected_log_joint: Callable[[Data, Factors], float]

    def elbo(self, data: Data, q: Factors) -> float:
        """The evidence lower bound in nats."""
        return self.expected_log_joint(data, q) + sum(factor.entropy() for factor in q.values())

    def reference(
        self, data: Data | None = None, iterations: int = 500, start: Factors | None = None
    ) -> Reference:
        """Sweep ``iterations`` times over the updates, from ``start`` or else ``make_start``."""
        data = self.make_data() if data is None else data
        q = dict(self.make_start(data) if start is None else start)
        history = [self.elbo(data, q)]
        for _ in range(iterations):
            for names, update in self.updates.items():
                q[names] = update(data, q)
            history.append(self.elbo(data, q))
        return Reference(q, history[-1], np.array(history))


def draws_of(factors: Factors, rng: np.random.Generator, num: int) -> dict[str, np.ndarray]:
    """Independent draws of q: latent -> (num, *shape)."""
    draws = {}
    for names, factor in factors.items():
        drawn = factor.draw(rng, num)
        each = {names: drawn} if isinstance(names, str) else dict(zip(names, drawn, strict=True))
        draws.update(each)
    return draws


def log_q(factors: Factors, draws: Mapping[str, np.ndarray]) -> np.ndarray:
    """Log density of q at draws, (num,), in nats."""
    total = 0.0
    for names, factor in factors.items():
        each = (names,) if isinstance(names, str) else names
        total = total + factor.log_prob(*[draws[name] for name in each])
    return np.asarray(total)
