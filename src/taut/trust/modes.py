"""Restarts that ended elsewhere."""

import dataclasses

import numpy as np

from taut._core.progress import Watch
from taut.families import AbstractGaussian, DenseGaussian
from taut.problem.evaluator import Evaluator
from taut.solvers.natural import OnDraws, climb
from taut.solvers.start import Start, curvature_root

FAR = 3.0  # sds of q
VALLEY = 1.0  # nats below the lower end of the line between two points
NEGLIGIBLE = 5.0  # nats: a mode that much lighter holds under 1% of the mass
LINE = np.linspace(0.0, 1.0, 17)[1:-1, None]
MAX_MODES = 4


@dataclasses.dataclass(frozen=True)
class Mode:
    """A separate mode.

    Attributes:
        q: a Gaussian fitted there.
        elbo: its ELBO on a few draws: the log of the mode's mass, from below.
        distance: from the main q, in its sds.
        weight: estimated share of the posterior's mass.
    """

    q: AbstractGaussian
    elbo: float
    distance: float
    weight: float


def other_modes(
    evaluator: Evaluator, start: Start, q: AbstractGaussian, elbo: float, seed: int, watch: Watch
) -> tuple[Mode, ...]:
    """Find separate modes among the ends of the restarts.

    An end counts if it is more than three sds of q away, if the log joint falls into a valley
    on the way there, and if the Gaussian fitted there holds at least about 1% of the mass.

    Args:
        evaluator: the problem.
        start: the restarts.
        q: the main fit.
        elbo: of the main fit.
        seed: of the draws.
        watch: ends the search early.
    """
    found: list[Mode] = []
    basins: list[np.ndarray] = []  # ends already climbed from, one per basin
    for path in start.paths:
        too_low = path.log_joint < start.paths[0].log_joint - 50.0 - q.dim
        if watch.over or len(found) == MAX_MODES or too_low:
            break
        if _near(q, path.end) or not _valley(evaluator, q.mean, path.end):
            continue
        if any(not _valley(evaluator, end, path.end) for end in basins):
            continue
        basins.append(path.end)
        mode = _fit_mode(evaluator, path.end, q, seed, watch)
        heavy = mode is not None and not mode.elbo < elbo - NEGLIGIBLE
        if mode is not None and heavy and not any(_near(m.q, mode.q.mean) for m in found):
            found.append(mode)
    if not found:
        return ()
    logs = np.array([elbo if np.isfinite(elbo) else -np.inf, *(m.elbo for m in found)])
    weights = np.exp(logs - np.logaddexp.reduce(logs))
    return tuple(
        dataclasses.replace(m, weight=float(w)) for m, w in zip(found, weights[1:], strict=True)
    )


def _fit_mode(
    evaluator: Evaluator, end: np.ndarray, q: AbstractGaussian, seed: int, watch: Watch
) -> Mode | None:
    """A Gaussian fitted at the end of a path; None if it comes back to the main mode."""
    num_draws = max(64, 2 * q.dim + 2)
    objective = OnDraws(evaluator, num_draws, seed)
    fitted = climb(objective, end, curvature_root(evaluator, end), watch)
    candidate = DenseGaussian.from_root(fitted.mean, fitted.root)
    if not np.isfinite(fitted.elbo) or _near(q, candidate.mean):
        return None
    if not _valley(evaluator, q.mean, candidate.mean):
        return None
    distance = float(np.abs(q.whiten((candidate.mean - q.mean)[None])).max())
    return Mode(candidate, fitted.elbo, distance, np.nan)


def _near(q: AbstractGaussian, point: np.ndarray) -> bool:
    return bool(np.abs(q.whiten((point - q.mean)[None])).max() < FAR)


def _valley(evaluator: Evaluator, a: np.ndarray, b: np.ndarray) -> bool:
    ends = evaluator.value(np.stack([a, b]))
    between = evaluator.value(a + LINE * (b - a))
    return bool(between.min() < ends.min() - VALLEY)
