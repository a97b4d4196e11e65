r"""Natural-gradient steps of a dense Gaussian.

The ELBO and its natural gradient come from an objective: exactly, from the compiled expectation,
or from fixed draws. There, in coordinates whitened by the current q, the gradient of the log
joint at the draws is fitted by least squares, :math:`g(z) \approx b + A z`. By Bonnet's and
Price's theorems b estimates :math:`E[\nabla \log p]` and A the expected Hessian; both are exact
when the target is Gaussian, so their error is proportional to how far it is from that, not to the
number of dimensions.
A natural-gradient step of size rho is then :math:`P \leftarrow (1-\rho) I - \rho A`,
:math:`m \leftarrow m + \rho P^{-1} b`, taken only if the ELBO rises.
"""

import abc
import dataclasses
from typing import NamedTuple

import numpy as np
from typing_extensions import override

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


class Direction(NamedTuple):
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


class Point(NamedTuple):
    """A Gaussian, its ELBO, and the step that it asks for.

    Attributes:
        mean: (d,).
        root: square root of the covariance, (d, d).
        elbo: nats.
        direction: the natural-gradient step.
    """

    mean: np.ndarray
    root: np.ndarray
    elbo: float
    direction: Direction


class AbstractObjective(abc.ABC):
    """The ELBO of a dense Gaussian as a deterministic function."""

    @abc.abstractmethod
    def look(self, mean: np.ndarray, root: np.ndarray) -> Point:
        """ELBO and natural gradient at a mean and a square root of the covariance."""


class OnDraws(AbstractObjective):
    """The ELBO on fixed draws, its natural gradient by least squares of whitened scores.

    The draws' mean is zero and their covariance the identity, so the columns of the design are
    orthogonal and its pseudo-inverse is its transpose.

    Args:
        evaluator: the problem's log joint.
        num_draws: at least 2 d.
        seed: of the draws.
    """

    def __init__(self, evaluator: Evaluator, num_draws: int, seed: int) -> None:
        self.evaluator = evaluator
        self.noise = matched_normals(num_draws, evaluator.problem.dim, seed)
        self.design = np.concatenate([np.ones((len(self.noise), 1)), self.noise], axis=1)

    @override
    def look(self, mean: np.ndarray, root: np.ndarray) -> Point:
        values, grads = self.evaluator.value_and_grad(mean + self.noise @ root.T)
        elbo = float(values.mean()) + entropy_of(root)
        return Point(mean, root, elbo, self._direction(grads @ root))

    def _direction(self, scores: np.ndarray) -> Direction:
        """The step that the fit g ~ b + A z asks for."""
        coefficients = self.design.T @ scores / len(scores)
        residual = scores - self.design @ coefficients
        freedom = max(len(scores) - self.design.shape[1], 1)
        spread = np.sqrt(np.sum(residual**2, axis=0) / freedom / len(scores))
        return direction(coefficients[0], coefficients[1:], float(spread.max()))


def direction(b: np.ndarray, hessian: np.ndarray, error: float) -> Direction:
    """The step from the expected gradient and Hessian in whitened coordinates."""
    if not (np.isfinite(b).all() and np.isfinite(hessian).all()):
        dim = len(b)
        return Direction(np.zeros(dim), np.ones(dim), np.eye(dim), np.inf, np.inf)
    precision, vectors = np.linalg.eigh(-0.5 * (hessian + hessian.T))
    gain = predicted_gain(b, precision)
    return Direction(b, np.maximum(precision, MIN_PRECISION), vectors, gain, error)


def entropy_of(root: np.ndarray) -> float:
    """Entropy of a Gaussian from a square root of its covariance, nats."""
    return float(0.5 * len(root) * (1.0 + LOG_2PI) + np.linalg.slogdet(root)[1])


def climb(
    objective: AbstractObjective, mean: np.ndarray, root: np.ndarray, watch: Watch,
    tolerance: float = 0.01, max_steps: int = 60,
) -> Fitted:  # fmt: skip
    """Raise the ELBO of a dense Gaussian until a step promises less than ``tolerance``.

    Args:
        objective: the ELBO.
        mean: starting mean, (d,).
        root: starting square root of the covariance, (d, d).
        watch: ends the iteration early.
        tolerance: nats.
        max_steps: largest number of batches of gradients.

    Returns:
        The fitted Gaussian. A step costs one look at the objective and O(d^3).
    """
    point = _start(objective, mean, root)
    history, rho, status = [point.elbo], 1.0, Status.MAX_STEPS
    for _ in range(max_steps):
        if (
            np.isfinite(point.elbo) and point.direction.gain < tolerance
        ):  # one last step: it squares the distance to the optimum
            trial = objective.look(*_step(point, 1.0))
            point, status = _better(point, trial), Status.CONVERGED
            history.append(point.elbo)
            break
        if rho < SMALLEST_STEP or not np.isfinite(point.elbo):
            status = Status.STALLED if np.isfinite(point.elbo) else Status.NONFINITE
            break
        if watch.over:
            status = Status.INTERRUPTED if watch.interrupted else Status.BUDGET
            break
        trial = objective.look(*_step(point, rho))
        if not trial.elbo > point.elbo:
            rho *= 0.5
            continue
        rho, point = min(1.0, 2.0 * rho), trial
        history.append(point.elbo)
        watch.report("natural gradient", ELBO=point.elbo, gain=point.direction.gain)
    gain, error = point.direction.gain, point.direction.error
    return Fitted(point.mean, point.root, point.elbo, gain, error, status, tuple(history))


def _start(objective: AbstractObjective, mean: np.ndarray, root: np.ndarray) -> Point:
    """Evaluate q, narrowed until its ELBO is finite."""
    point = objective.look(mean, root)
    for _ in range(MAX_HALVINGS):
        if np.isfinite(point.elbo):
            break
        point = objective.look(mean, 0.5 * point.root)
    return point


def _better(a: Point, b: Point) -> Point:
    return b if b.elbo > a.elbo else a


def predicted_gain(b: np.ndarray, precision: np.ndarray) -> float:
    """Second-order prediction of what a full step gains, in nats, from whitened b and -A's eigenvalues."""
    return float(0.5 * b @ b + 0.25 * np.sum(((precision - 1.0) / np.maximum(precision, 1.0)) ** 2))


def _step(point: Point, rho: float) -> tuple[np.ndarray, np.ndarray]:
    """Mean and root after a step of size rho, the move capped at two sds per coordinate."""
    direction = point.direction
    vectors = direction.vectors
    precision = np.maximum(1.0 + rho * (direction.precision - 1.0), MAX_STRETCH)
    shift = rho * (vectors @ ((vectors.T @ direction.b) / precision))
    length = np.sqrt(shift @ shift)
    shift *= min(1.0, 2.0 * np.sqrt(len(shift)) / max(length, 1e-300))
    root = point.root @ ((vectors / np.sqrt(precision)) @ vectors.T)
    return point.mean + point.root @ shift, root
