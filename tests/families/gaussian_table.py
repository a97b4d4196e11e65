"""One member of every distribution in taut.families with its moments from plain NumPy."""

from typing import NamedTuple

import numpy as np
from scipy import stats

from taut.families import (
    AbstractDistribution,
    BlockGaussian,
    DenseGaussian,
    DiagonalGaussian,
    LowRankGaussian,
    MixtureGaussian,
)


class Member(NamedTuple):
    """A distribution with the (weight, mean, covariance) of each of its components."""

    q: AbstractDistribution
    parts: list[tuple[float, np.ndarray, np.ndarray]]

    @property
    def covariance(self) -> np.ndarray:
        return self.parts[0][2]

    def logpdf(self, points: np.ndarray) -> np.ndarray:
        each = [
            np.log(w) + stats.multivariate_normal(m, c).logpdf(points) for w, m, c in self.parts
        ]
        return np.logaddexp.reduce(np.stack([np.atleast_1d(e) for e in each]), axis=0)


def _mean_scale(dim):
    rng = np.random.default_rng((3, dim))
    return rng.standard_normal(dim) * 3.0, np.exp(rng.standard_normal(dim)), rng


def _factor(rng, dim):
    lower = np.tril(rng.standard_normal((dim, dim)))
    return np.where(np.eye(dim, dtype=bool), np.abs(lower) + 0.3, lower)


def diagonal(dim):
    mean, scale, _ = _mean_scale(dim)
    return Member(DiagonalGaussian(mean, scale), [(1.0, mean, np.diag(scale**2))])


def dense(dim):
    mean, _, rng = _mean_scale(dim)
    factor = _factor(rng, dim)
    return Member(DenseGaussian(mean, factor), [(1.0, mean, factor @ factor.T)])


def low_rank(dim):
    mean, scale, rng = _mean_scale(dim)
    columns = rng.standard_normal((dim, 2))
    covariance = np.diag(scale**2) + (scale[:, None] * columns) @ (scale[:, None] * columns).T
    return Member(LowRankGaussian.from_columns(mean, scale, columns), [(1.0, mean, covariance)])


def block(dim):
    """Blocks of sizes 1 and, as far as they fit, 2; their coordinates interleaved."""
    mean, _, rng = _mean_scale(dim)
    order, covariance = rng.permutation(dim), np.zeros((dim, dim))
    pairs = order[: dim // 2 * 2].reshape(-1, 2)
    groups = {1: order[dim // 2 * 2 :].reshape(-1, 1), 2: pairs}
    indices = [g for g in groups.values() if len(g)]
    factors = [np.stack([_factor(rng, g.shape[1]) for _ in g]) for g in indices]
    for index, factor in zip(indices, factors, strict=True):
        for i, f in zip(index, factor, strict=True):
            covariance[np.ix_(i, i)] = f @ f.T
    return Member(BlockGaussian(mean, tuple(indices), tuple(factors)), [(1.0, mean, covariance)])


def mixture(dim):
    mean, _, rng = _mean_scale(dim)
    weights = np.array([0.5, 0.3, 0.2])
    factors = [_factor(rng, dim) for _ in weights]
    means = [mean + 2.0 * rng.standard_normal(dim) for _ in weights]
    q = MixtureGaussian(
        tuple(DenseGaussian(m, f) for m, f in zip(means, factors, strict=True)), np.log(weights)
    )
    return Member(q, [(w, m, f @ f.T) for w, m, f in zip(weights, means, factors, strict=True)])


GAUSSIANS = {
    DiagonalGaussian: diagonal,
    DenseGaussian: dense,
    LowRankGaussian: low_rank,
    BlockGaussian: block,
}
DISTRIBUTIONS = {**GAUSSIANS, MixtureGaussian: mixture}
