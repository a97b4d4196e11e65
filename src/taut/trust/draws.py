"""Draws that stand for the posterior, in the model's own space."""

import dataclasses
from collections.abc import Mapping

import numpy as np

from taut.problem import Problem, scalar_labels
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
        """Rows that make ``num_draws`` equally weighted draws: systematic resampling, shuffled.

        Equal weights give rows without repetition as far as there are enough of them.
        """
        rng = np.random.default_rng((seed, 11))
        order = rng.permutation(len(self.points))
        edges = np.cumsum(self._probabilities()[order])
        places = (np.arange(num_draws) + rng.uniform()) / num_draws * edges[-1]
        picked = np.minimum(np.searchsorted(edges, places, side="right"), len(edges) - 1)
        return rng.permutation(order[picked])

    def moments(self) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
        """Weighted means and standard deviations by site."""
        w = self._probabilities()
        means = {n: np.asarray(np.tensordot(w, v, axes=1)) for n, v in self.values.items()}
        sds = {
            n: np.asarray(np.sqrt(np.tensordot(w, (v - means[n]) ** 2, axes=1)))
            for n, v in self.values.items()
        }
        return means, sds

    def spread_error(self, problem: Problem, ess: float) -> tuple[float, str]:
        """Largest relative standard error of a latent's sd, and that latent's label.

        From the kurtosis: sqrt((kurtosis - 1) / (4 ess)). Heavy tails make it large, however
        good the draws are: then sds, and for the heaviest tails means, cannot be had from draws.
        """
        means, sds = self.moments()
        w = self._probabilities()
        worst, where = 0.0, ""
        for latent in problem.latents:
            mean = means[latent.name]
            sd = np.where(
                sds[latent.name] > 1e-12 * np.abs(mean), sds[latent.name], np.inf
            )  # constants have no tail
            with np.errstate(over="ignore", invalid="ignore"):
                kurtosis = np.tensordot(w, ((self.values[latent.name] - mean) / sd) ** 4, axes=1)
                error = np.nan_to_num(
                    np.sqrt(np.maximum(kurtosis - 1.0, 0.0) / (4.0 * max(ess, 1.0))), nan=np.inf
                )
            if error.size and error.max() > worst:
                worst = float(error.max())
                where = scalar_labels(latent.name, latent.shape)[int(np.argmax(error))]
        return worst, where

    def _probabilities(self) -> np.ndarray:
        n = len(self.points)
        return np.full(n, 1.0 / n) if self.weights is None else self.weights / self.weights.sum()


def thinned(points: np.ndarray, most: int) -> np.ndarray:
    """At most ``most`` rows, evenly spaced."""
    return points[np.linspace(0, len(points) - 1, min(most, len(points))).astype(int)]


def make_draws(
    evaluator: Evaluator, points: np.ndarray, weights: np.ndarray | None = None
) -> Draws:
    """Map unconstrained points to the model's space, leaving out what would not fit in memory."""
    problem = evaluator.problem
    sizes = {
        n: int(np.prod(s, dtype=int)) * len(points)
        for n, s in problem.program.deterministic.items()
    }
    left_out = tuple(n for n, size in sizes.items() if size > MAX_NUMBERS)
    if left_out:
        parts = [
            {
                n: v
                for n, v in evaluator.constrain(points[i : i + CHUNK]).items()
                if n not in left_out
            }
            for i in range(0, len(points), CHUNK)
        ]
        values = {n: np.concatenate([p[n] for p in parts]) for n in parts[0]}
    else:
        values = evaluator.constrain(points)
    ordered = [s.name for s in problem.latents] + [
        n for n in problem.program.deterministic if n in values
    ]
    return Draws(points, {n: values[n] for n in ordered}, weights, left_out)
