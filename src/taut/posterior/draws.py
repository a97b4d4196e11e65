"""Draws that stand for the posterior, in the model's own space."""

import dataclasses
from collections.abc import Mapping

import numpy as np

from taut.problem import Problem
from taut.problem.evaluator import Evaluator

MAX_NUMBERS = 2**25  # deterministic sites larger than this over all draws are left out
CHUNK = 1024


@dataclasses.dataclass(frozen=True)
class Draws:
    """A pool of draws with weights.

    Attributes:
        points: unconstrained, (n, d).
        values: latents and deterministic sites, each (n, *shape).
        weights: probabilities, (n,), or None for equal ones.
        left_out: deterministic sites too large to keep.
    """

    points: np.ndarray
    values: Mapping[str, np.ndarray]
    weights: np.ndarray | None
    left_out: tuple[str, ...] = ()

    def indices(self, num_draws: int, seed: int) -> np.ndarray:
        """Rows that make ``num_draws`` equally weighted draws: systematic resampling, shuffled."""
        rng = np.random.default_rng((seed, 11))
        if self.weights is None and num_draws <= len(self.points):
            return rng.permutation(np.linspace(0, len(self.points) - 1, num_draws).astype(int))
        weights = np.full(len(self.points), 1.0) if self.weights is None else self.weights
        edges = np.cumsum(weights) / np.sum(weights)
        places = (np.arange(num_draws) + rng.uniform()) / num_draws
        return rng.permutation(np.minimum(np.searchsorted(edges, places), len(edges) - 1))

    def moments(self) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
        """Weighted means and standard deviations by site."""
        w = np.full(len(self.points), 1.0 / len(self.points)) if self.weights is None else self.weights / self.weights.sum()
        means = {name: np.tensordot(w, v, axes=1) for name, v in self.values.items()}
        sds = {name: np.sqrt(np.tensordot(w, (v - means[name]) ** 2, axes=1)) for name, v in self.values.items()}
        return means, sds


def make_draws(problem: Problem, points: np.ndarray, weights: np.ndarray | None) -> Draws:
    """Map unconstrained points to the model's space, leaving out what would not fit in memory."""
    sizes = {n: int(np.prod(s, dtype=int)) * len(points) for n, s in problem.program.deterministic.items()}
    left_out = tuple(n for n, size in sizes.items() if size > MAX_NUMBERS)
    evaluator, parts = Evaluator(problem), []
    for i in range(0, len(points), CHUNK):
        found = evaluator.constrain(points[i : i + CHUNK])
        parts.append({n: v for n, v in found.items() if n not in left_out})
    values = {n: np.concatenate([p[n] for p in parts]) for n in parts[0]}
    ordered = [s.name for s in problem.latents] + [n for n in problem.program.deterministic if n in values]
    return Draws(points, {n: values[n] for n in ordered if n in values}, weights, left_out)
