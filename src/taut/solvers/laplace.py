"""Gaussians from the curvature at the mode, raw or corrected by fixed draws."""

import dataclasses
import functools
from typing import Any

import jax
import numpy as np

from taut._core.errors import ArgumentError
from taut._core.precision import double_precision
from taut._core.progress import Watch
from taut._core.status import Status
from taut.expectation import fixed_normals
from taut.families import AbstractFamily, Dense, DenseGaussian
from taut.families.gaussian import LOG_2PI
from taut.problem.evaluator import Evaluator
from taut.solvers.base import AbstractSolver, Solution
from taut.solvers.start import Start, cholesky

MAX_DIM = 2000  # a d x d matrix is factorised; 2000 takes about a second
MODE_TOLERANCE = 1e-10  # nats
MAX_NEWTON = 50
RELATIVE_FLOOR = 1e-10  # smallest eigenvalue of the negative Hessian, over its largest


@functools.partial(jax.jit, static_argnums=0)
def _hessian(program: Any, prepared: Any, point: Any) -> Any:
    gradient = jax.grad(lambda u: program.log_joint(u, prepared))
    basis = jax.numpy.eye(len(point))
    return jax.lax.map(lambda v: jax.jvp(gradient, (point,), (v,))[1], basis, batch_size=min(32, len(point)))


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

    def describe(self) -> str:
        return "Laplace: mode and curvature"

    def solve(self, evaluator: Evaluator, family: AbstractFamily, start: Start, seed: int, watch: Watch) -> Solution:
        _check(self, evaluator, family)
        mode, steps, status = find_mode(evaluator, start.paths[0].end, watch)
        root, notes = curvature(evaluator, mode)
        q = DenseGaussian.from_root(mode, root)
        status = Status.INDEFINITE if notes else status
        return Solution(q, float("nan"), status, steps, notes=notes)


@dataclasses.dataclass(frozen=True)
class ResidualLaplace(AbstractSolver):
    """Laplace, then moved and rescaled on fixed draws.

    The residual r = g + z of the whitened score is zero for a Gaussian target, so a few draws
    correct mean and scales in hundreds of dimensions: m += L E[r], and column i of L is divided
    by the root of w_i = 1 - E[z_i r_i] / E[z_i^2].

    Attributes:
        num_draws: fixed draws per step.
        max_steps: largest number of steps.
    """

    num_draws: int = 64
    max_steps: int = 20

    def describe(self) -> str:
        return "curvature at the mode, mean and scales corrected on fixed quasi-random draws"

    def solve(self, evaluator: Evaluator, family: AbstractFamily, start: Start, seed: int, watch: Watch) -> Solution:
        _check(self, evaluator, family)
        mode, history, status = find_mode(evaluator, start.paths[0].end, watch)
        root, notes = curvature(evaluator, mode)
        noise = fixed_normals(self.num_draws, len(mode), seed)
        noise = noise - noise.mean(axis=0)
        mean, root, elbos, error, status = self._correct(evaluator, mode, root, noise, watch)
        return Solution(DenseGaussian.from_root(mean, root), elbos[-1], status, tuple(elbos), error, notes)

    def _correct(
        self, evaluator: Evaluator, mean: np.ndarray, root: np.ndarray, noise: np.ndarray, watch: Watch
    ) -> tuple[np.ndarray, np.ndarray, list[float], float, Status]:
        dim, elbos, status, error = len(mean), [], Status.MAX_STEPS, float("nan")
        best = (-np.inf, mean, root)
        for _ in range(self.max_steps):
            values, grads = evaluator.value_and_grad(mean + noise @ root.T)
            log_det = np.linalg.slogdet(root)[1]
            elbo = float(values.mean() + 0.5 * dim * (1.0 + LOG_2PI) + log_det)
            elbos.append(elbo)
            if not np.isfinite(elbo):
                if best[0] == -np.inf:
                    root = 0.5 * root
                    continue
                status = Status.NONFINITE
                break
            if elbo <= best[0] + 0.01:
                status = Status.CONVERGED
                break
            best = (elbo, mean, root)
            residual = grads @ root + noise
            shift = residual.mean(axis=0)
            error = float(residual.std(axis=0).max() / np.sqrt(len(noise)))
            width = np.clip(1.0 - (noise * residual).mean(axis=0) / (noise**2).mean(axis=0), 0.25, 4.0)
            if watch.over:
                status = Status.INTERRUPTED if watch.interrupted else Status.BUDGET
                break
            length = np.sqrt(shift @ shift)
            mean = mean + root @ (shift * min(1.0, 2.0 * np.sqrt(dim) / max(length, 1e-300)))
            root = root / np.sqrt(width)
            watch.report("residual correction", ELBO=elbo, shift=float(np.abs(shift).max()))
        return best[1], best[2], elbos, error, status


def _check(solver: AbstractSolver, evaluator: Evaluator, family: AbstractFamily) -> None:
    if not isinstance(family, Dense):
        raise ArgumentError(f"solvers.{type(solver).__name__} fits families.Dense() only, got {family}")
    if evaluator.problem.dim > MAX_DIM:
        raise ArgumentError(
            f"solvers.{type(solver).__name__} factorises a d x d matrix, up to {MAX_DIM} latents; "
            f"this problem has {evaluator.problem.dim}: use families.Diagonal() with solvers.FixedDraws()"
        )


def find_mode(evaluator: Evaluator, point: np.ndarray, watch: Watch) -> tuple[np.ndarray, tuple[float, ...], Status]:
    """Polish a point to a mode by damped Newton steps.

    Returns:
        The mode, the log joint after each step, and why the iteration ended.
    """
    value, gradient = (x[0] for x in evaluator.value_and_grad(point[None]))
    history = [float(value)]
    for _ in range(MAX_NEWTON):
        if watch.over:
            return point, tuple(history), Status.INTERRUPTED if watch.interrupted else Status.BUDGET
        values, vectors = np.linalg.eigh(-hessian(evaluator, point))
        floor = max(RELATIVE_FLOOR * np.abs(values).max(), 1e-300)
        step = vectors @ ((vectors.T @ gradient) / np.maximum(np.abs(values), floor))
        if 0.5 * float(step @ gradient) < MODE_TOLERANCE:
            return point, tuple(history), Status.CONVERGED
        sizes = 0.5 ** np.arange(8)
        trials = point + sizes[:, None] * step
        found, grads = evaluator.value_and_grad(trials)
        best = int(np.argmax(found))
        if not found[best] > value:
            done = 0.5 * float(step @ gradient) < 1e-6
            return point, tuple(history), Status.CONVERGED if done else Status.STALLED
        point, value, gradient = trials[best], found[best], grads[best]
        history.append(float(value))
    return point, tuple(history), Status.MAX_STEPS


def curvature(evaluator: Evaluator, mode: np.ndarray) -> tuple[np.ndarray, tuple[str, ...]]:
    """Square root of the inverse negative Hessian, and what is wrong with it, in sentences."""
    values, vectors = np.linalg.eigh(-hessian(evaluator, mode))
    floor = RELATIVE_FLOOR * np.abs(values).max()
    bad = values <= floor
    if not bad.any():
        root = cholesky((vectors / values) @ vectors.T)
        if root is not None:
            return root, ()
    labels = evaluator.problem.labels()
    worst = labels[int(np.argmax(np.abs(vectors[:, 0])))]
    note = (
        f"the negative Hessian at the mode is not positive definite in {int(bad.sum())} of {len(values)} directions "
        f"(smallest eigenvalue {values[0]:.3g}, mostly {worst}): a Laplace approximation does not exist there"
    )
    return vectors / np.sqrt(np.maximum(np.abs(values), max(floor, 1e-300))), (note,)
