"""Directions that the data do not identify, and posteriors that cannot be normalised."""

import numpy as np

from taut._core.errors import ImproperPosteriorError
from taut.families import AbstractGaussian, DenseGaussian
from taut.problem.evaluator import Evaluator
from taut.solvers.start import Start

FAR_AWAY = 1e6  # in coordinates' own units: paths that get there without a mode are on their way to infinity
FLAT = 1e-7  # eigenvalue of the precision below which a direction has no scale of its own
PRIOR_ONLY = 1e-3  # relative excess of the posterior's precision over the prior's
MAX_REACH = 10.0  # nats the log joint must have fallen at a million sds


def check(evaluator: Evaluator, start: Start, q: AbstractGaussian) -> tuple[str, ...]:
    """Refuse improper posteriors; describe directions that only the prior identifies.

    Raises:
        ImproperPosteriorError: if the log joint does not fall along q's widest direction, far out.
    """
    direction, sd = _widest(q)
    if sd > 1e3 or any(np.abs(p.end).max() > FAR_AWAY for p in start.paths):
        _refuse_if_unbounded(evaluator, q.mean, direction, sd)
    return _unidentified(evaluator, q)


def _widest(q: AbstractGaussian) -> tuple[np.ndarray, float]:
    if isinstance(q, DenseGaussian):
        left, values, _ = np.linalg.svd(q.factor)
        return left[:, 0], float(values[0])
    worst = int(np.argmax(q.variance))
    return np.eye(q.dim)[worst], float(q.sd[worst])


def _refuse_if_unbounded(evaluator: Evaluator, mean: np.ndarray, direction: np.ndarray, sd: float) -> None:
    far = np.array([10.0, 1e2, 1e3])
    for sign in (1.0, -1.0):
        values = evaluator.value(mean + sign * far[:, None] * sd * direction)
        middle = evaluator.value(mean[None])[0]
        finite = values[np.isfinite(values)]
        if len(finite) == len(values) and finite[-1] > middle - MAX_REACH and finite[-1] >= finite[0] - 1e-3 * far[-1]:
            raise ImproperPosteriorError(
                f"the posterior cannot be normalised: the log joint does not fall along {in_words(evaluator, direction)}, "
                f"even {far[-1] * sd:.3g} units away. Give those latents proper priors, or drop what is collinear"
            )


def _unidentified(evaluator: Evaluator, q: AbstractGaussian) -> tuple[str, ...]:
    """Directions among prior-standardised latents in which the posterior is as wide as the prior."""
    fixed = [s for s in evaluator.problem.latents if s.centring is not None and not s.parents and s.support == "real"]
    index = np.concatenate([np.arange(s.start, s.stop) for s in fixed]) if fixed else np.array([], int)
    if not len(index) or not isinstance(q, DenseGaussian):
        return ()
    precision = np.linalg.inv(q.covariance[np.ix_(index, index)])
    values, vectors = np.linalg.eigh(precision)
    notes = []
    for value, vector in zip(values, vectors.T, strict=True):
        if value > 1.0 + PRIOR_ONLY or len(notes) == 3:
            break
        full = np.zeros(q.dim)
        full[index] = vector
        notes.append(
            f"the data do not identify {in_words(evaluator, full)}: only the prior does. "
            "Look for collinear or constant predictors"
        )
    return tuple(notes)


def in_words(evaluator: Evaluator, direction: np.ndarray, most: int = 4) -> str:
    """Write a direction as a combination of latents, largest loadings first."""
    labels = evaluator.problem.labels()
    order = [i for i in np.argsort(-np.abs(direction)) if abs(direction[i]) > 0.1 * np.abs(direction).max()]
    terms = [f"{direction[i]:+.2f} {labels[i]}" for i in order[:most]]
    more = f" and {len(order) - most} more" if len(order) > most else ""
    return "the direction " + " ".join(terms) + more
