"""The certificate of a fit: what short chains, importance weights and restarts say of q."""

import dataclasses
from collections.abc import Mapping

import numpy as np

from taut._core.progress import Watch
from taut.expectation import fixed_normals
from taut.families import AbstractGaussian, Product, nearest_gaussian
from taut.problem import Problem, scalar_labels
from taut.problem.evaluator import Evaluator
from taut.trust.chains import (
    LEAPFROGS,
    TRANSITIONS,
    Agreement,
    Chains,
    Record,
    agreement,
    normal_scores,
    prepare,
)
from taut.trust.draws import Draws
from taut.trust.psis import Smoothed, pareto_smooth

NUM_CHAINS = 256
NUM_DRAWS, FEWEST_DRAWS = 4096, 512
LONG_MEMORY = 3.0  # autocorrelation time beyond which trajectories are made longer
FIRST_MOVE = NUM_CHAINS * 2 * TRANSITIONS * LEAPFROGS  # gradients of tuning and one record
DENSE_LIMIT = 1000  # beyond, chains are preconditioned by marginal scales only


@dataclasses.dataclass(frozen=True)
class Weighted:
    """Draws of q with importance weights.

    Attributes:
        points: (n, d), unconstrained.
        log_ratio: log p - log q, (n,).
        smoothed: Pareto-smoothed weights; None if too few ratios are finite.
        elbo: mean log ratio, nats; -inf if a draw has no density.
        elbo_error: its Monte Carlo standard error (an upper bound: the draws are Sobol's).
        num_outside: draws where the log joint is not finite.
    """

    points: np.ndarray
    log_ratio: np.ndarray
    smoothed: Smoothed | None
    elbo: float
    elbo_error: float
    num_outside: int

    @property
    def khat(self) -> float:
        """Pareto tail index; inf where no weights could be had."""
        return self.smoothed.khat if self.smoothed else np.inf

    @property
    def ess(self) -> float:
        """Effective sample size of the weights."""
        return self.smoothed.ess if self.smoothed else 0.0


@dataclasses.dataclass(frozen=True)
class Drift:
    """Movement of the chains away from q, per scalar parameter in the model's own space.

    Attributes:
        labels: scalar parameters, such as ``theta[3]``.
        mean: mean of the chains' normal scores: shift in sds of q, (p,).
        log_sd: log sd of the scores: log of the chains' spread over q's, (p,).
        error: standard error of the larger of the two, (p,).
    """

    labels: tuple[str, ...]
    mean: np.ndarray
    log_sd: np.ndarray
    error: np.ndarray

    @property
    def size(self) -> np.ndarray:
        """The larger of the two movements, (p,)."""
        return np.maximum(np.abs(self.mean), np.abs(self.log_sd))

    @property
    def largest(self) -> float:
        """Largest movement of any parameter."""
        return float(self.size.max())

    @property
    def worst(self) -> int:
        """Index of the parameter that moved most."""
        return int(np.argmax(self.size))


@dataclasses.dataclass(frozen=True)
class Moved:
    """Outcome of the chains.

    Attributes:
        points: recorded draws, (transitions, chains, d), unconstrained.
        log_joint: (transitions, chains).
        agreement: whether they converged.
        acceptance: mean acceptance probability.
        stuck: share of chains that never moved.
        num_transitions: transitions run in all, also those not recorded.
    """

    points: np.ndarray
    log_joint: np.ndarray
    agreement: Agreement
    acceptance: float
    stuck: float
    num_transitions: int

    @property
    def flat(self) -> np.ndarray:
        """All recorded draws, (n, d)."""
        return self.points.reshape(-1, self.points.shape[2])


def weigh(
    evaluator: Evaluator,
    q: AbstractGaussian | Product,
    seed: int,
    num_draws: int = NUM_DRAWS,
    watch: Watch | None = None,
) -> Weighted:
    """Draw from q and weigh the draws against the joint density; fewer where time is up."""
    noise = fixed_normals(num_draws, q.dim, seed)
    values: list[np.ndarray] = []
    for i in range(0, num_draws, FEWEST_DRAWS):
        if values and watch is not None and watch.over:
            break
        values.append(evaluator.value(q.place(noise[i : i + FEWEST_DRAWS])))
    log_joint = np.concatenate(values)
    noise = noise[: len(log_joint)]
    return weigh_points(q.place(noise), log_joint, q.log_prob_of_noise(noise))


def weigh_points(points: np.ndarray, log_joint: np.ndarray, log_q: np.ndarray) -> Weighted:
    """Weigh draws of q given both log densities."""
    log_ratio = log_joint - log_q
    outside = ~np.isfinite(log_ratio)
    smoothed = pareto_smooth(log_ratio) if outside.mean() < 0.5 else None
    elbo = float(log_ratio.mean()) if not outside.any() else -np.inf
    error = (
        float(log_ratio[~outside].std() / np.sqrt(len(log_ratio))) if not outside.all() else np.inf
    )
    return Weighted(points, log_ratio, smoothed, elbo, error, int(outside.sum()))


def whitening(q: AbstractGaussian) -> np.ndarray:
    """A square root of q's covariance, or its scales where that would be too large."""
    return q.colour(np.eye(q.dim)).T if q.dim <= DENSE_LIMIT else q.sd


def prepare_chains(evaluator: Evaluator, num_chains: int = NUM_CHAINS) -> None:
    """Begin to compile the chains in the background, while the solver runs."""
    prepare(evaluator, num_chains, 2 if evaluator.problem.dim <= DENSE_LIMIT else 1)


def start_chains(
    evaluator: Evaluator, q: AbstractGaussian | Product, seed: int, num_chains: int = NUM_CHAINS
) -> Chains:
    """Chains started from q and preconditioned by it."""
    z = fixed_normals(num_chains, q.dim, seed + 101)
    gaussian = nearest_gaussian(q)
    if isinstance(q, Product):
        z = gaussian.whiten(q.place(z) - gaussian.mean)
    return Chains(evaluator, gaussian.mean, whitening(gaussian), z, seed)


def first_move(chains: Chains) -> tuple[Moved, Record]:
    """One block to tune the step size, one to record."""
    warmup = chains.run(1, adapt=True)
    record = chains.run(1, adapt=False)
    return _moved(chains, record, len(warmup.z) + len(record.z)), record


def _moved(chains: Chains, record: Record, transitions: int) -> Moved:
    points = chains.points(record.z)
    return Moved(
        points=points,
        log_joint=record.log_joint,
        agreement=agreement(points),
        acceptance=float(record.acceptance.mean()),
        stuck=float(1.0 - record.moved.mean()),
        num_transitions=transitions,
    )


def keep_moving(
    chains: Chains, moved: Moved, watch: Watch, max_rounds: int = 6, min_ess: float = 2000.0
) -> Moved:
    """Run the chains on, re-whitened by their own covariance, until they agree.

    Each round doubles the recorded transitions and discards what came before it.
    """
    blocks = 1
    for _ in range(max_rounds):
        if (moved.agreement.converged and moved.agreement.ess >= min_ess) or watch.over:
            break
        if not moved.agreement.converged:
            _rewhiten(chains, moved)
        if moved.agreement.iact > LONG_MEMORY:
            chains.lengthen()
        warmup = chains.run(max(1, blocks), adapt=True)
        blocks *= 2
        record = chains.run(blocks, adapt=False)
        moved = _moved(chains, record, moved.num_transitions + len(warmup.z) + len(record.z))
        watch.report(
            "chains",
            transitions=moved.num_transitions,
            ESS=moved.agreement.ess,
            iact=moved.agreement.iact,
        )
    return moved


def _rewhiten(chains: Chains, moved: Moved) -> None:
    """Take the chains' own mean and covariance as coordinates, shrunk to the old where they are few."""
    draws = moved.flat
    mean, dim = draws.mean(axis=0), draws.shape[1]
    if chains.root.ndim == 1:
        chains.rewhiten(mean, np.maximum(draws.std(axis=0), 1e-12))
        return
    count = moved.points.shape[1]
    weight = count / (count + dim)
    old = chains.root @ chains.root.T
    covariance = weight * np.cov(draws.T).reshape(dim, dim) + (1.0 - weight) * old
    try:
        chains.rewhiten(mean, np.linalg.cholesky(covariance))
    except np.linalg.LinAlgError:
        return


def measure_drift(
    problem: Problem,
    moved: Moved,
    q_values: Mapping[str, np.ndarray],
    chain_values: Mapping[str, np.ndarray],
) -> Drift:
    """Compare the chains with q, per latent in the model's own space.

    Values are turned into normal scores by their rank among draws of q, so that heavy tails and
    the choice of a parameter's scale do not matter; q itself then has mean 0 and sd 1.

    Args:
        problem: gives the latents.
        moved: the chains.
        q_values: latents at draws of q, each (n, *shape).
        chain_values: latents at the flattened recorded draws, each (transitions * chains, *shape).
    """
    length, count, _ = moved.points.shape
    labels: list[str] = []
    columns: list[list[np.ndarray]] = [[], [], []]
    for latent in problem.latents:
        reference = q_values[latent.name].reshape(len(q_values[latent.name]), -1)
        values = chain_values[latent.name].reshape(length * count, -1)
        scores = normal_scores(values, reference).reshape(length, count, -1)
        constant = (
            np.ptp(reference, axis=0) == 0.0
        )  # such as the corner of a correlation's Cholesky factor
        labels += scalar_labels(latent.name, latent.shape)
        for column, found in zip(columns, _moments(scores), strict=True):
            column.append(np.where(constant, 0.0, found))
    return Drift(tuple(labels), *(np.concatenate(c) for c in columns))


def weighted_drift(problem: Problem, raw: Draws, weighted: Weighted) -> Drift:
    """The same by importance weights, where these are nearly even: no gradients needed."""
    assert weighted.smoothed is not None
    weights = np.exp(weighted.smoothed.log_weights)
    labels: list[str] = []
    columns: list[list[np.ndarray]] = [[], [], []]
    for latent in problem.latents:
        values = raw.values[latent.name].reshape(len(weights), -1)
        scores = normal_scores(values, values)
        mean = weights @ scores
        variance = weights @ (scores - mean) ** 2
        error = np.sqrt((weights - 1.0 / len(weights)) ** 2 @ (scores - mean) ** 2)
        constant = np.ptp(values, axis=0) == 0.0
        labels += scalar_labels(latent.name, latent.shape)
        log_sd = 0.5 * np.log(np.maximum(variance, 1e-12))
        for column, found in zip(columns, (mean, log_sd, error), strict=True):
            column.append(np.where(constant, 0.0, found))
    return Drift(tuple(labels), *(np.concatenate(c) for c in columns))


def _moments(scores: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Mean, log sd and the larger of their standard errors, from independent chains."""
    count = scores.shape[1]
    mean = scores.mean(axis=(0, 1))
    squares = (scores - mean) ** 2
    variance = np.maximum(squares.mean(axis=(0, 1)), 1e-12)
    mean_error = scores.mean(axis=0).std(axis=0, ddof=1) / np.sqrt(count)
    sd_error = squares.mean(axis=0).std(axis=0, ddof=1) / np.sqrt(count) / (2.0 * variance)
    return mean, 0.5 * np.log(variance), np.maximum(mean_error, sd_error)


__all__ = [
    "Drift",
    "Moved",
    "Weighted",
    "first_move",
    "keep_moving",
    "measure_drift",
    "prepare_chains",
    "start_chains",
    "weigh",
    "weigh_points",
    "weighted_drift",
]
