"""Many quasi-Newton paths to the modes, advanced together.

Every round evaluates one trial point per path in one batched call, so a path in its line
search never waits for another. BFGS with the weak Wolfe bisection of Lewis and Overton
(2013); the inverse Hessian is dense up to ``DENSE_LIMIT`` coordinates, and the limited-memory
two-loop recursion (Nocedal 1980) beyond.
"""

import dataclasses

import numpy as np
from jaxtyping import Float

from taut._core.progress import Watch
from taut.problem.evaluator import Evaluator

DENSE_LIMIT = 256
HISTORY = 20
MAX_TRIALS = 24  # trial points in one line search before the path is given up
CALM_STEPS = 3  # steps in a row that must promise little: one may only look along the wrong axis
LONGEST_STEP = 10.0  # in coordinates' own (prior) units
SUFFICIENT, CURVATURE = 1e-4, 0.9


@dataclasses.dataclass(frozen=True)
class Snapshot:
    """A point on a path with the inverse Hessian known there.

    Attributes:
        point: shape (d,).
        covariance: inverse Hessian, (d, d), or its diagonal, (d,), beyond the dense limit.
    """

    point: np.ndarray
    covariance: np.ndarray


@dataclasses.dataclass(frozen=True)
class DescentPath:
    """One path from a start towards a mode.

    Attributes:
        start: first point, (d,).
        end: best point, (d,).
        log_joint: at the end.
        gradient: at the end.
        snapshots: points kept on the way, the last one at the end.
        converged: the predicted gain at the end is below the tolerance.
        num_steps: accepted steps.
    """

    start: np.ndarray
    end: np.ndarray
    log_joint: float
    gradient: np.ndarray
    snapshots: tuple[Snapshot, ...]
    converged: bool
    num_steps: int


class _Curvature:
    """Inverse Hessians of all paths."""

    def __init__(self, num_paths: int, dim: int) -> None:
        self.dense = dim <= DENSE_LIMIT
        self.matrix = (
            np.broadcast_to(np.eye(dim), (num_paths, dim, dim)).copy() if self.dense else None
        )
        self.pairs: list[list[tuple[np.ndarray, np.ndarray, float]]] = [
            [] for _ in range(num_paths)
        ]
        self.fresh = np.ones(num_paths, bool)

    def step(self, k: int, gradient: np.ndarray) -> np.ndarray:
        """Inverse Hessian times a gradient."""
        if self.matrix is not None:
            return self.matrix[k] @ gradient
        return two_loop(self.pairs[k], gradient)

    def update(self, k: int, s: np.ndarray, y: np.ndarray) -> None:
        """Add one pair of steps and (negative log joint) gradient differences."""
        sy, yy = float(s @ y), float(y @ y)
        if not sy > 1e-10 * np.sqrt(yy * float(s @ s)):
            return
        if self.matrix is None:
            self.pairs[k] = [*self.pairs[k][-HISTORY + 1 :], (s, y, 1.0 / sy)]
            return
        h = self.matrix[k]
        if self.fresh[k]:
            h *= sy / yy
            self.fresh[k] = False
        hy = h @ y
        h += (
            np.outer(s, s) * ((sy + float(y @ hy)) / sy**2)
            - (np.outer(hy, s) + np.outer(s, hy)) / sy
        )

    def covariance(self, k: int) -> np.ndarray:
        """The inverse Hessian, or its diagonal estimate for the limited-memory form."""
        if self.matrix is not None:
            return self.matrix[k].copy()
        return secant_diagonal(self.pairs[k])


def two_loop(pairs: list[tuple[np.ndarray, np.ndarray, float]], gradient: np.ndarray) -> np.ndarray:
    """Limited-memory inverse Hessian times a gradient (Nocedal and Wright, algorithm 7.4)."""
    q, alphas = gradient.copy(), []
    for s, y, rho in reversed(pairs):
        alphas.append(rho * float(s @ q))
        q -= alphas[-1] * y
    if pairs:
        s, y, rho = pairs[-1]
        q /= rho * float(y @ y)
    for (s, y, rho), alpha in zip(pairs, reversed(alphas), strict=True):
        q += (alpha - rho * float(y @ q)) * s
    return q


def secant_diagonal(pairs: list[tuple[np.ndarray, np.ndarray, float]]) -> np.ndarray:
    """Diagonal inverse Hessian from secant pairs (Gilbert and Lemarechal 1989; Pathfinder's alpha)."""
    alpha = np.ones(len(pairs[0][0])) if pairs else np.ones(1)
    for s, y, _ in pairs:
        a, b, c = float(y @ (alpha * y)), float(y @ s), float(s @ (s / alpha))
        alpha = 1.0 / (a / (b * alpha) + y**2 / b - a * s**2 / (b * c * alpha**2))
        alpha = np.maximum(alpha, 1e-12)
    return alpha


def _kept(step: int) -> bool:
    """Whether a step count is one of 1, 2, 3, 4, 6, 8, 11, 16, 23, 32, ..."""
    return step < 4 or round(2 * np.log2(step + 1)) != round(2 * np.log2(step))


class _Search:
    """State of all paths; one trial point each per round."""

    def __init__(self, starts: np.ndarray, values: np.ndarray, grads: np.ndarray) -> None:
        count, dim = starts.shape
        self.x, self.f, self.g = starts.copy(), -values, -grads
        self.curvature = _Curvature(count, dim)
        self.steps, self.trials = np.zeros(count, int), np.zeros(count, int)
        self.t, self.low, self.high = np.ones(count), np.zeros(count), np.full(count, np.inf)
        self.direction = np.zeros_like(starts)
        self.active, self.converged = np.isfinite(values), np.zeros(count, bool)
        self.calm = np.zeros(count, int)
        self.snapshots: list[list[Snapshot]] = [[] for _ in range(count)]
        for k in np.flatnonzero(self.active).tolist():
            self.aim(k, 0.0)

    def aim(self, k: int, tolerance: float) -> None:
        """Choose the next direction of a path, or end the path if little can be gained."""
        direction = -self.curvature.step(k, self.g[k])
        slope = float(self.g[k] @ direction)
        if not slope < 0:
            direction, slope = -self.g[k], -float(self.g[k] @ self.g[k])
        if self.steps[k] == 0:
            direction /= max(
                np.sqrt(-slope), 1e-300
            )  # a unit step: nothing is known of the scale yet
        else:
            self.calm[k] = self.calm[k] + 1 if -slope < 2.0 * tolerance else 0
            if self.calm[k] == CALM_STEPS:
                self.converged[k], self.active[k] = True, False
        length = float(np.sqrt(direction @ direction))
        self.direction[k] = direction * min(
            1.0, LONGEST_STEP * np.sqrt(len(direction)) / max(length, 1e-300)
        )
        self.t[k], self.low[k], self.high[k], self.trials[k] = 1.0, 0.0, np.inf, 0

    def judge(self, k: int, f: float, g: np.ndarray, tolerance: float) -> None:
        """Accept a trial point or narrow the bracket of the line search."""
        slope = float(self.g[k] @ self.direction[k])
        self.trials[k] += 1
        fell = np.isfinite(f) and f <= self.f[k] + SUFFICIENT * self.t[k] * slope
        out_of_trials = self.trials[k] >= MAX_TRIALS
        if fell and (float(g @ self.direction[k]) >= CURVATURE * slope or out_of_trials):
            self.accept(k, f, g, tolerance)
        elif out_of_trials:
            self.active[k] = False
        elif fell:
            self.low[k] = self.t[k]
            self.t[k] = (
                2.0 * self.t[k] if np.isinf(self.high[k]) else 0.5 * (self.low[k] + self.high[k])
            )
        else:
            self.high[k] = self.t[k]
            self.t[k] = 0.5 * (self.low[k] + self.high[k])

    def accept(self, k: int, f: float, g: np.ndarray, tolerance: float) -> None:
        """Move a path to its trial point."""
        step = self.t[k] * self.direction[k]
        self.curvature.update(k, step, g - self.g[k])
        self.x[k] += step
        self.f[k], self.g[k] = f, g
        self.steps[k] += 1
        if _kept(int(self.steps[k])):
            self.snapshots[k].append(Snapshot(self.x[k].copy(), self.curvature.covariance(k)))
        self.aim(k, tolerance)


def descend(
    evaluator: Evaluator,
    starts: Float[np.ndarray, "k d"],
    watch: Watch,
    tolerance: float = 1e-4,
    max_rounds: int = 400,
) -> list[DescentPath]:
    """Follow quasi-Newton paths from several starts.

    Args:
        evaluator: the problem's log joint.
        starts: finite starting points.
        watch: ends the search early on budget or interrupt.
        tolerance: a path ends when a Newton step promises less than this, in nats.
        max_rounds: largest number of rounds, one gradient per live path each.

    Returns:
        The paths whose start was finite, best end first.
    """
    search = _Search(starts, *evaluator.value_and_grad(starts))
    for _ in range(max_rounds):
        live = np.flatnonzero(search.active)
        if not live.size or watch.over:
            break
        trial = search.x[live] + search.t[live, None] * search.direction[live]
        values, grads = evaluator.value_and_grad(trial)
        for k, value, grad in zip(live.tolist(), values, grads, strict=True):
            search.judge(k, -value, -grad, tolerance)
    paths = [_path(search, starts, k) for k in np.flatnonzero(np.isfinite(search.f)).tolist()]
    return sorted(paths, key=lambda path: -path.log_joint)


def _path(search: _Search, starts: np.ndarray, k: int) -> DescentPath:
    end = Snapshot(search.x[k].copy(), search.curvature.covariance(k))
    return DescentPath(
        start=starts[k],
        end=end.point,
        log_joint=-float(search.f[k]),
        gradient=-search.g[k],
        snapshots=(*search.snapshots[k], end),
        converged=bool(search.converged[k]),
        num_steps=int(search.steps[k]),
    )
