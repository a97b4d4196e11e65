r"""Natural-gradient steps of a dense Gaussian on fixed draws.

In coordinates whitened by the current q, the gradient of the log joint at the draws is fitted
by least squares, :math:`g(z) \approx b + A z`. By Bonnet's and Price's theorems b estimates
:math:`E[\nabla \log p]` and A the expected Hessian; both are exact when the target is Gaussian,
so their error is proportional to how far it is from that, not to the number of dimensions.
A natural-gradient step of size rho is then :math:`P \leftarrow (1-\rho) I - \rho A`,
:math:`m \leftarrow m + \rho P^{-1} b`, taken only if the ELBO on the same draws rises.
"""

import dataclasses
from typing import NamedTuple

import numpy as np

from taut._core.progress import Watch
from taut._core.status import Status
from taut.expectation import matched_normals
from taut.families.gaussian import LOG_2PI
from taut.problem.evaluator import Evaluator

SMALLEST_STEP = 1e-4
MAX_HALVINGS = 20
MIN_PRECISION, MAX_STRETCH = 0.01, 0.05


@dataclasses.dataclass(frozen=True)
class Fitted:
    """A dense Gaussian and how well it is known.

    Attributes:
        mean: (d,).
        root: square root of the covariance, (d, d).
        elbo: on the fixed draws, nats.
        gain: predicted gain of one more step, nats.
        mean_error: largest Monte Carlo standard error of the mean, in sds of q.
        status: why the iteration ended.
        history: ELBO after each step.
    """

    mean: np.ndarray
    root: np.ndarray
    elbo: float
    gain: float
    mean_error: float
    status: Status
    history: tuple[float, ...]


@dataclasses.dataclass
class _Point:
    mean: np.ndarray
    root: np.ndarray
    elbo: float
    scores: np.ndarray


class _Direction(NamedTuple):
    """A natural-gradient step in whitened coordinates.

    Attributes:
        b: expected whitened score, (d,).
        precision: eigenvalues of the expected negative Hessian, (d,).
        vectors: its eigenvectors, (d, d).
        gain: predicted gain of the full step, nats.
        error: largest standard error of b.
    """

    b: np.ndarray
    precision: np.ndarray
    vectors: np.ndarray
    gain: float
    error: float


class _Regression:
    """Least squares of whitened scores on fixed draws.

    The draws' mean is zero and their covariance the identity, so the columns of the design are
    orthogonal and its pseudo-inverse is its transpose.
    """

    def __init__(self, noise: np.ndarray) -> None:
        self.noise = noise
        self.design = np.concatenate([np.ones((len(noise), 1)), noise], axis=1)

    def direction(self, scores: np.ndarray) -> _Direction:
        """The step that the fit g ~ b + A z asks for."""
        coefficients = self.design.T @ scores / len(scores)
        residual = scores - self.design @ coefficients
        freedom = max(len(scores) - self.design.shape[1], 1)
        spread = np.sqrt(np.sum(residual**2, axis=0) / freedom / len(scores))
        b, slope = coefficients[0], coefficients[1:]
        precision, vectors = np.linalg.eigh(-0.5 * (slope + slope.T))
        gain = predicted_gain(b, precision)
        return _Direction(
            b, np.maximum(precision, MIN_PRECISION), vectors, gain, float(spread.max())
        )


def climb(
    evaluator: Evaluator, mean: np.ndarray, root: np.ndarray, num_draws: int, seed: int, watch: Watch,
    tolerance: float = 0.01, max_steps: int = 60,
) -> Fitted:  # fmt: skip
    """Raise the ELBO of a dense Gaussian on fixed draws until a step promises less than ``tolerance``.

    Args:
        evaluator: the problem's log joint.
        mean: starting mean, (d,).
        root: starting square root of the covariance, (d, d).
        num_draws: fixed draws, at least 2 d.
        seed: of the draws.
        watch: ends the iteration early.
        tolerance: nats.
        max_steps: largest number of batches of gradients.

    Returns:
        The fitted Gaussian. Costs ``num_draws`` gradients and O(d^3 + num_draws d^2) a step.
    """
    regression = _Regression(matched_normals(num_draws, len(mean), seed))
    point = _start(evaluator, mean, root, regression.noise)
    direction = regression.direction(point.scores)
    history, rho, status = [point.elbo], 1.0, Status.MAX_STEPS
    for _ in range(max_steps):
        if (
            np.isfinite(point.elbo) and direction.gain < tolerance
        ):  # one last step: it squares the distance to the optimum
            trial = _evaluate(evaluator, *_step(point, direction, 1.0), regression.noise)
            point, status = _better(point, trial), Status.CONVERGED
            history.append(point.elbo)
            break
        if rho < SMALLEST_STEP or not np.isfinite(point.elbo):
            status = Status.STALLED if np.isfinite(point.elbo) else Status.NONFINITE
            break
        if watch.over:
            status = Status.INTERRUPTED if watch.interrupted else Status.BUDGET
            break
        trial = _evaluate(evaluator, *_step(point, direction, rho), regression.noise)
        if not trial.elbo > point.elbo:
            rho *= 0.5
            continue
        rho, point, direction = min(1.0, 2.0 * rho), trial, regression.direction(trial.scores)
        history.append(point.elbo)
        watch.report("natural gradient", ELBO=point.elbo, gain=direction.gain)
    return Fitted(
        point.mean, point.root, point.elbo, direction.gain, direction.error, status, tuple(history)
    )


def _start(evaluator: Evaluator, mean: np.ndarray, root: np.ndarray, noise: np.ndarray) -> _Point:
    """Evaluate q, narrowed until all of its draws have a density."""
    point = _evaluate(evaluator, mean, root, noise)
    for _ in range(MAX_HALVINGS):
        if np.isfinite(point.elbo):
            break
        point = _evaluate(evaluator, mean, 0.5 * point.root, noise)
    return point


def _better(a: _Point, b: _Point) -> _Point:
    return b if b.elbo > a.elbo else a


def predicted_gain(b: np.ndarray, precision: np.ndarray) -> float:
    """Second-order prediction of what a full step gains, in nats, from whitened b and -A's eigenvalues."""
    return float(0.5 * b @ b + 0.25 * np.sum(((precision - 1.0) / np.maximum(precision, 1.0)) ** 2))


def _step(point: _Point, direction: _Direction, rho: float) -> tuple[np.ndarray, np.ndarray]:
    """Mean and root after a step of size rho, the move capped at two sds per coordinate."""
    vectors = direction.vectors
    precision = np.maximum(1.0 + rho * (direction.precision - 1.0), MAX_STRETCH)
    shift = rho * (vectors @ ((vectors.T @ direction.b) / precision))
    length = np.sqrt(shift @ shift)
    shift *= min(1.0, 2.0 * np.sqrt(len(shift)) / max(length, 1e-300))
    root = point.root @ ((vectors / np.sqrt(precision)) @ vectors.T)
    return point.mean + point.root @ shift, root


def _evaluate(
    evaluator: Evaluator, mean: np.ndarray, root: np.ndarray, noise: np.ndarray
) -> _Point:
    values, grads = evaluator.value_and_grad(mean + noise @ root.T)
    _, log_det = np.linalg.slogdet(root)
    elbo = float(values.mean() + 0.5 * len(mean) * (1.0 + LOG_2PI) + log_det)
    return _Point(mean, root, elbo, grads @ root)
