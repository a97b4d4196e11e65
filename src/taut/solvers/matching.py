"""Score-based solvers: batch-and-match, and multi-path Pathfinder."""

import dataclasses

import numpy as np
from typing_extensions import override

from taut._core.errors import ArgumentError
from taut._core.progress import Watch
from taut._core.status import Status
from taut.expectation import fixed_normals, matched_normals
from taut.families import AbstractFamily, Dense, DenseGaussian, DiagonalGaussian
from taut.families.gaussian import AbstractGaussian
from taut.problem.evaluator import Evaluator
from taut.solvers.base import AbstractSolver, Solution, gaussian_of
from taut.solvers.descent import DescentPath
from taut.solvers.start import Start, cholesky


def _require_dense(solver: AbstractSolver, family: AbstractFamily) -> None:
    if not isinstance(family, Dense):
        raise ArgumentError(
            f"solvers.{type(solver).__name__} fits families.Dense() only, got {family}"
        )


@dataclasses.dataclass(frozen=True)
class BatchMatch(AbstractSolver):
    """Match q's scores to the target's on batches of draws of q.

    Minimises the covariance-weighted Fisher divergence with a proximal KL term; each step is
    closed form. Started from the tournament's winner: cold starts diverge on badly scaled models.

    Attributes:
        batch_size: draws per step; None: 2 d + 2, at least 32.
        max_steps: largest number of steps.

    Source:
        Cai, Modi, Pillaud-Vivien, Margossian, Gower, Blei and Saul (2024), "Batch and match:
        black-box variational inference with a score-based divergence", ICML, eqs. 7 to 10. The
        quadratic matrix equation is solved in coordinates whitened by V's Cholesky factor.
    """

    batch_size: int | None = None
    max_steps: int = 50

    @override
    def describe(self) -> str:
        return "batch and match: closed-form score matching"

    @override
    def solve(
        self, evaluator: Evaluator, family: AbstractFamily, start: Start, seed: int, watch: Watch
    ) -> Solution:
        _require_dense(self, family)
        dim = evaluator.problem.dim
        size = self.batch_size or max(32, 2 * dim + 2)
        root = start.root if start.root.ndim == 2 else np.diag(start.root)
        mean, root = start.mean, DenseGaussian.from_root(start.mean, root).factor
        history: list[float] = []
        best, status = (-np.inf, mean, root), Status.MAX_STEPS
        for step in range(self.max_steps):
            noise = fixed_normals(size, dim, seed + step)
            points = mean + noise @ root.T
            values, scores = evaluator.value_and_grad(points)
            elbo = float(np.mean(values - DenseGaussian(mean, root).log_prob_of_noise(noise)))
            history.append(elbo)
            if elbo > best[0] or best[0] == -np.inf:
                best = (elbo, mean, root)
            if watch.over:
                status = Status.INTERRUPTED if watch.interrupted else Status.BUDGET
                break
            if len(history) > 10 and max(history[-5:]) < max(history[:-5]) + 0.01:
                status = Status.CONVERGED if np.isfinite(best[0]) else Status.NONFINITE
                break
            learning = size * dim / (step + 1)
            moved = _matched(mean, root, points, values, scores, learning)
            if moved is None:
                status = Status.STALLED
                break
            mean, root = moved
            watch.report("batch and match", ELBO=elbo)
        if best[0] == -np.inf and status is Status.MAX_STEPS:
            status = Status.NONFINITE
        q = DenseGaussian(best[1], best[2])
        return Solution(q, _fresh_elbo(evaluator, q, seed + self.max_steps), status, tuple(history))


def _matched(
    mean: np.ndarray, root: np.ndarray, points: np.ndarray,
    values: np.ndarray, scores: np.ndarray, learning: float,
) -> tuple[np.ndarray, np.ndarray] | None:  # fmt: skip
    """The mean and factor after a step; None where the covariance is not positive definite.

    Draws without a density are left out; where most are, q is too wide and narrowed instead.
    """
    finite = np.isfinite(values)
    if 2 * finite.sum() <= len(values):
        return mean, 0.5 * root
    mean, covariance = match(mean, root @ root.T, points[finite], scores[finite], learning)
    new = cholesky(covariance)
    return None if new is None else (mean, new)


def _fresh_elbo(evaluator: Evaluator, q: AbstractGaussian, seed: int) -> float:
    """ELBO on draws that did not choose q: the best of many noisy ELBOs is too high."""
    noise = matched_normals(max(256, 2 * q.dim), q.dim, seed)
    return float(np.mean(evaluator.value(q.place(noise)) - q.log_prob_of_noise(noise)))


def match(
    mean: np.ndarray,
    covariance: np.ndarray,
    points: np.ndarray,
    scores: np.ndarray,
    learning: float,
) -> tuple[np.ndarray, np.ndarray]:
    """One closed-form step of batch and match: the new mean and covariance.

    Args:
        mean: (d,).
        covariance: (d, d).
        points: draws of the current q, (n, d).
        scores: gradients of the log joint there, (n, d).
        learning: proximal weight; infinity matches the scores at once.
    """
    x, g = points.mean(axis=0), scores.mean(axis=0)
    c = (points - x).T @ (points - x) / len(points)
    gamma = (scores - g).T @ (scores - g) / len(points)
    share = learning / (1.0 + learning)
    u = learning * gamma + share * np.outer(g, g)
    v = covariance + learning * c + share * np.outer(mean - x, mean - x)
    k = np.linalg.cholesky(v)
    values, vectors = np.linalg.eigh(k.T @ u @ k)
    inner = (vectors * (2.0 / (1.0 + np.sqrt(1.0 + 4.0 * np.maximum(values, 0.0))))) @ vectors.T
    new = k @ inner @ k.T
    new = 0.5 * (new + new.T)
    return mean / (1.0 + learning) + share * (new @ g + x), new


@dataclasses.dataclass(frozen=True)
class Pathfinder(AbstractSolver):
    """Multi-path Pathfinder: the Gaussian of highest ELBO along each quasi-Newton path.

    The paths' winners form a mixture in the paper, resampled by importance; here q is the best
    single winner, and the certificate's importance weights do the rest.

    Attributes:
        num_draws: draws for each ELBO.

    Source:
        Zhang, Carpenter, Gelman and Vehtari (2022), "Pathfinder: parallel quasi-Newton
        variational inference", JMLR 23. Means are x + H g, the Newton point of each iterate.
    """

    num_draws: int = 25

    @override
    def describe(self) -> str:
        return "multi-path Pathfinder"

    @override
    def solve(
        self, evaluator: Evaluator, family: AbstractFamily, start: Start, seed: int, watch: Watch
    ) -> Solution:
        _require_dense(self, family)
        noise = fixed_normals(self.num_draws, evaluator.problem.dim, seed)
        winners, status = [], Status.CONVERGED
        for path in start.paths:
            winner = _best_on_path(evaluator, path, noise)
            winners += [winner] if winner is not None else []
            if watch.over:
                status = Status.INTERRUPTED if watch.interrupted else Status.BUDGET
                break
        if not winners:
            note = "no point on the paths had a finite ELBO: q is where the search began"
            return Solution(
                gaussian_of(start), start.elbo, Status.NONFINITE, (start.elbo,), notes=(note,)
            )
        elbos = [w[0] for w in winners]
        best = int(np.argmax(elbos))
        return Solution(winners[best][1], elbos[best], status, tuple(elbos))


def _best_on_path(
    evaluator: Evaluator, path: DescentPath, noise: np.ndarray
) -> tuple[float, AbstractGaussian] | None:
    best: tuple[float, AbstractGaussian] | None = None
    points = np.stack([s.point for s in path.snapshots])
    _, grads = evaluator.value_and_grad(points)
    for snapshot, gradient in zip(path.snapshots, grads, strict=True):
        dense = snapshot.covariance.ndim == 2
        root = cholesky(snapshot.covariance) if dense else None
        if dense and root is None:
            continue
        step = snapshot.covariance @ gradient if dense else snapshot.covariance * gradient
        mean = snapshot.point + step
        q: AbstractGaussian = (
            DenseGaussian(mean, root)
            if root is not None
            else DiagonalGaussian(mean, np.sqrt(snapshot.covariance))
        )
        elbo = float(np.mean(evaluator.value(q.place(noise)) - q.log_prob_of_noise(noise)))
        if np.isfinite(elbo) and (best is None or elbo > best[0]):
            best = (elbo, q)
    return best
