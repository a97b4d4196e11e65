"""Gaussians from the curvature at the mode, raw or corrected by fixed draws."""

import dataclasses
import functools
from typing import Any, NamedTuple

import jax
import numpy as np
from typing_extensions import override

from taut._core.errors import ArgumentError
from taut._core.precision import double_precision
from taut._core.progress import Watch
from taut._core.status import Status
from taut.expectation import matched_normals
from taut.families import AbstractFamily, Dense, DenseGaussian
from taut.families.gaussian import LOG_2PI
from taut.problem.evaluator import Evaluator
from taut.solvers.base import AbstractSolver, Solution
from taut.solvers.start import Start

MAX_DIM = 2000  # a d x d matrix is factorised; 2000 takes about a second
MODE_TOLERANCE = 1e-10  # nats
MAX_NEWTON = 50
RELATIVE_FLOOR = 1e-12  # smallest eigenvalue of the unit-free negative Hessian, over its largest
NUM_DRAWS = 64  # for the ELBO
TOLERANCE = 1e-3  # nats
SMALLEST_STEP, MAX_HALVINGS = 1e-3, 20


@functools.partial(jax.jit, static_argnums=0)
def _hessian(program: Any, prepared: Any, point: Any) -> Any:
    gradient = jax.grad(lambda u: program.log_joint(u, prepared))
    basis = jax.numpy.eye(len(point))
    return jax.lax.map(
        lambda v: jax.jvp(gradient, (point,), (v,))[1], basis, batch_size=min(32, len(point))
    )


def hessian(evaluator: Evaluator, point: np.ndarray) -> np.ndarray:
    """Hessian of the log joint at a point, (d, d), by forward over reverse; costs d products."""
    with double_precision():
        matrix = np.asarray(_hessian(evaluator.problem.program, evaluator.prepared, point))
    evaluator.num_gradients += 2 * len(point)
    return 0.5 * (matrix + matrix.T)


@dataclasses.dataclass(frozen=True)
class Laplace(AbstractSolver):
    """Gaussian at the mode with the inverse negative Hessian as covariance.

    Exact for Gaussian posteriors; misplaced for skewed ones and meaningless at the edge of a
    hierarchy's scales. Where the Hessian is not negative definite the status is INDEFINITE, the
    note says how many directions are affected, and q uses absolute curvatures there.
    """

    @override
    def describe(self) -> str:
        return "Laplace: mode and curvature"

    @override
    def solve(
        self, evaluator: Evaluator, family: AbstractFamily, start: Start, seed: int, watch: Watch
    ) -> Solution:
        _check(self, evaluator, family)
        mode, history, status = find_mode(evaluator, start.paths[0].end, watch)
        root, problem, notes = curvature(evaluator, mode)
        noise = matched_normals(NUM_DRAWS, len(mode), seed)
        elbo = _look(evaluator, mode, root, noise).elbo
        return Solution(
            DenseGaussian.from_root(mode, root), elbo, problem or status, history, notes=notes
        )


@dataclasses.dataclass(frozen=True)
class ResidualLaplace(AbstractSolver):
    """Laplace, or the start where its ELBO is higher, then moved and rescaled on fixed draws.

    The residual r = g + z of the whitened score is zero for a Gaussian target, so a few draws
    correct mean and scales in hundreds of dimensions: m += L E[r], and column i of L is divided
    by the root of w_i = 1 - E[z_i r_i]. On draws with matched moments both are steps uphill on
    the ELBO of those draws; a step that does not raise it is halved.

    Attributes:
        num_draws: fixed draws per step.
        max_steps: largest number of steps.
    """

    num_draws: int = 64
    max_steps: int = 20

    @override
    def describe(self) -> str:
        return "curvature at the mode, mean and scales corrected on fixed quasi-random draws"

    @override
    def solve(
        self, evaluator: Evaluator, family: AbstractFamily, start: Start, seed: int, watch: Watch
    ) -> Solution:
        _check(self, evaluator, family)
        mode, _, _ = find_mode(evaluator, start.paths[0].end, watch)
        root, _, notes = curvature(evaluator, mode)
        noise = matched_normals(self.num_draws, len(mode), seed)
        point = _look(evaluator, mode, root, noise)
        found = _look(evaluator, start.mean, _square(start.root), noise)
        if found.elbo > point.elbo:  # a mode at the edge of a hierarchy is far from the mass
            point = found
        for _ in range(MAX_HALVINGS):  # narrow q until all of its draws have a density
            if np.isfinite(point.elbo):
                break
            point = _look(evaluator, point.mean, 0.5 * point.root, noise)
        return self._correct(evaluator, point, noise, watch, notes)

    def _correct(
        self,
        evaluator: Evaluator,
        point: "_Point",
        noise: np.ndarray,
        watch: Watch,
        notes: tuple[str, ...],
    ) -> Solution:
        history, rho, status, error = [point.elbo], 1.0, Status.MAX_STEPS, float("nan")
        for _ in range(self.max_steps):
            shift, width, error = _residuals(point, noise)
            status = _ended(point, shift, width, rho, watch)
            if status is not Status.MAX_STEPS:
                break
            trial = _look(evaluator, *_moved(point, rho * shift, width**rho), noise)
            rho = min(1.0, 2.0 * rho) if trial.elbo > point.elbo else 0.5 * rho
            if trial.elbo > point.elbo:
                point = trial
                history.append(point.elbo)
                watch.report(
                    "residual correction", ELBO=point.elbo, shift=float(np.abs(shift).max())
                )
        q = DenseGaussian.from_root(point.mean, point.root)
        return Solution(q, point.elbo, status, tuple(history), error, notes)


class _Point(NamedTuple):
    mean: np.ndarray
    root: np.ndarray
    elbo: float
    scores: np.ndarray  # whitened


def _square(root: np.ndarray) -> np.ndarray:
    return root if root.ndim == 2 else np.diag(root)


def _look(evaluator: Evaluator, mean: np.ndarray, root: np.ndarray, noise: np.ndarray) -> _Point:
    values, grads = evaluator.value_and_grad(mean + noise @ root.T)
    elbo = float(values.mean() + 0.5 * len(mean) * (1.0 + LOG_2PI) + np.linalg.slogdet(root)[1])
    return _Point(mean, root, elbo, grads @ root)


def _residuals(point: _Point, noise: np.ndarray) -> tuple[np.ndarray, np.ndarray, float]:
    """Mean residual, precision of each whitened coordinate, and the largest error of the mean."""
    residual = point.scores + noise
    width = np.clip(1.0 - np.mean(noise * residual, axis=0), 0.25, 4.0)
    error = residual.std(axis=0).max() / np.sqrt(len(noise))
    return residual.mean(axis=0), width, float(error)


def _ended(point: _Point, shift: np.ndarray, width: np.ndarray, rho: float, watch: Watch) -> Status:
    """Why the correction is over; MAX_STEPS if it is not."""
    if not np.isfinite(point.elbo):
        return Status.NONFINITE
    gain = 0.5 * float(shift @ shift) + 0.25 * float(
        np.sum(((width - 1.0) / np.maximum(width, 1.0)) ** 2)
    )
    if gain < TOLERANCE:
        return Status.CONVERGED
    if watch.over:
        return Status.INTERRUPTED if watch.interrupted else Status.BUDGET
    return Status.STALLED if rho < SMALLEST_STEP else Status.MAX_STEPS


def _moved(
    point: _Point, shift: np.ndarray, precision: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Mean and root after a step; moves of more than two typical lengths are cut."""
    length = np.sqrt(shift @ shift)
    shift = shift * min(1.0, 2.0 * np.sqrt(len(shift)) / max(length, 1e-300))
    return point.mean + point.root @ shift, point.root / np.sqrt(precision)


def _check(solver: AbstractSolver, evaluator: Evaluator, family: AbstractFamily) -> None:
    if not isinstance(family, Dense):
        raise ArgumentError(
            f"solvers.{type(solver).__name__} fits families.Dense() only, got {family}"
        )
    if evaluator.problem.dim > MAX_DIM:
        raise ArgumentError(
            f"solvers.{type(solver).__name__} factorises a d x d matrix, up to {MAX_DIM} latents; "
            f"this problem has {evaluator.problem.dim}: use families.Diagonal() with solvers.FixedDraws()"
        )


def find_mode(
    evaluator: Evaluator, point: np.ndarray, watch: Watch
) -> tuple[np.ndarray, tuple[float, ...], Status]:
    """Polish a point to a mode by damped Newton steps.

    Returns:
        The mode, the log joint after each step, and why the iteration ended.
    """
    value, gradient = (x[0] for x in evaluator.value_and_grad(point[None]))
    history = [float(value)]
    for _ in range(MAX_NEWTON):
        if watch.over:
            return point, tuple(history), Status.INTERRUPTED if watch.interrupted else Status.BUDGET
        matrix = -hessian(evaluator, point)
        if not (np.isfinite(value) and np.isfinite(matrix).all()):
            return point, tuple(history), Status.NONFINITE
        values, directions = _unit_free(matrix)
        slopes = directions.T @ gradient
        step = directions @ (
            slopes / np.maximum(np.abs(values), RELATIVE_FLOOR * np.abs(values).max())
        )
        if 0.5 * float(step @ gradient) < MODE_TOLERANCE:
            return point, tuple(history), Status.CONVERGED
        trials = point + 0.5 ** np.arange(8)[:, None] * step
        found, grads = evaluator.value_and_grad(trials)
        best = int(np.argmax(found))
        if not found[best] > value:
            done = 0.5 * float(step @ gradient) < 1e-6
            return point, tuple(history), Status.CONVERGED if done else Status.STALLED
        point, value, gradient = trials[best], found[best], grads[best]
        history.append(float(value))
    return point, tuple(history), Status.MAX_STEPS


def _unit_free(matrix: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Eigenvalues of a symmetric matrix scaled to a unit diagonal, and diagonalising directions.

    Whether a matrix is positive definite does not depend on its rows' units, but how well that
    can be seen in floating point does. With values w and directions V, V' matrix V = diag(w).
    """
    diagonal = np.abs(np.diagonal(matrix))
    scale = 1.0 / np.sqrt(
        np.where(diagonal > 0, diagonal, max(float(np.abs(matrix).max()), 1e-300))
    )
    values, vectors = np.linalg.eigh(matrix * scale * scale[:, None])
    if not np.abs(values).max() > 0:
        values = np.full_like(values, 1e-300)
    return values, scale[:, None] * vectors


def curvature(
    evaluator: Evaluator, mode: np.ndarray
) -> tuple[np.ndarray, Status | None, tuple[str, ...]]:
    """Square root of the inverse negative Hessian, what is wrong with it, and that in sentences.

    Where the Hessian is not negative definite the root uses absolute curvatures; where it is
    not finite, unit scales.
    """
    matrix = -hessian(evaluator, mode)
    if not np.isfinite(matrix).all():
        note = "the Hessian at the mode is not finite: a Laplace approximation does not exist there"
        return np.eye(len(mode)), Status.NONFINITE, (note,)
    values, directions = _unit_free(matrix)
    floor = RELATIVE_FLOOR * np.abs(values).max()
    root = directions / np.sqrt(np.maximum(np.abs(values), max(floor, 1e-300)))
    root = DenseGaussian.from_root(mode, root).factor
    bad = values <= floor
    if not bad.any():
        return root, None, ()
    unit = directions[:, 0] / np.abs(directions[:, 0]).max()
    worst = evaluator.problem.labels()[int(np.argmax(np.abs(unit)))]
    curve = float(directions[:, 0] @ matrix @ directions[:, 0]) / float(
        directions[:, 0] @ directions[:, 0]
    )
    note = (
        f"the negative Hessian at the mode is not positive definite in {int(bad.sum())} of {len(values)} directions "
        f"(curvature {curve:.3g}, mostly {worst}): a Laplace approximation does not exist there"
    )
    return root, Status.INDEFINITE, (note,)
