"""Directions that the data do not identify, and posteriors that cannot be normalised.

A posterior is improper where the log joint does not fall along some direction. Signs are looked for
that a proper posterior does not show: a path on which the log joint rose beyond any likelihood;
a fit that ran away to where double precision ends, or onto a point; a direction whose width is
set by nothing but rounding; and a log joint that a thousand standard deviations away
has not fallen as any density must.
"""

import numpy as np

from taut._core.errors import ImproperPosteriorError, listing
from taut.families import AbstractGaussian, DenseGaussian
from taut.problem import STAND_IN, Latent
from taut.problem.evaluator import Evaluator
from taut.solvers.start import Start

RUNAWAY = 1e12  # nats: no likelihood of continuous data is that high
REAL_LIMIT = 1e15  # coordinates of real latents beyond this have lost their units' digits
OTHER_LIMIT = 300.0  # the same for coordinates that exp or a logistic maps: 1e130
NARROWEST = 1e-13  # sd relative to the value, about the rounding of double precision
WIDE = 3.0  # in prior sds; narrower directions have fallen already
MOST_RAYS = 32
NEAR, FAR = 10.0, 1000.0  # sds
LEAST_NEAR = (
    0.25  # nats within 10 sds, where nothing farther can be represented: a tail exp(a u) is
)
# fitted by an sd of about a^-1/2, and so falls by 10 a^1/2
LEAST_FALL = 4.6  # nats from NEAR to FAR: a density falls faster than 1 / distance, log(100) = 4.6
REACH = 8.0  # nats below the middle at FAR: any density has fallen by log(1000) = 6.9 there
ROUNDING_SD, ROUNDING = 1e6, 0.1
AS_THE_PRIOR = 0.03  # relative difference of the posterior's precision from the prior's
SD_AS_THE_PRIOR = 0.15  # difference of a single latent's sd from the prior's
SAYS_NOTHING = 0.02  # nats that the likelihood changes by within three prior sds


def check(evaluator: Evaluator, start: Start, q: AbstractGaussian) -> tuple[str, ...]:
    """Refuse improper posteriors; describe directions that only the prior identifies.

    Args:
        evaluator: the problem's log joint.
        start: with the descent paths.
        q: the fitted Gaussian.

    Raises:
        ImproperPosteriorError: if the posterior cannot be normalised.
    """
    _refuse_rising(evaluator, start)
    _refuse_runaway(evaluator, q)
    _refuse_spike(evaluator, q)
    _refuse_flat(evaluator, q)
    return _unidentified(evaluator, q)


def _refuse_rising(evaluator: Evaluator, start: Start) -> None:
    for path in start.paths:
        if path.log_joint > RUNAWAY:
            raise ImproperPosteriorError(
                "the posterior cannot be normalised: the log joint rises without bound along "
                f"{in_words(evaluator, path.end - path.start)}, to {path.log_joint:.3g} nats so far. "
                "Check the signs of factors and of hand-written densities"
            )


def _refuse_runaway(evaluator: Evaluator, q: AbstractGaussian) -> None:
    limit = np.full(q.dim, REAL_LIMIT)
    for latent in evaluator.problem.latents:
        if not _is_real(latent):
            limit[latent.slice] = OTHER_LIMIT
    reach = np.maximum(np.abs(q.mean), np.where(limit == REAL_LIMIT, q.sd, 0.0)) / limit
    worst = int(np.argmax(reach))
    if not reach[worst] > 1.0:
        return
    direction = np.where(reach > 1.0, q.mean if abs(q.mean[worst]) > q.sd[worst] else q.sd, 0.0)
    if isinstance(q, DenseGaussian) and abs(q.mean[worst]) <= q.sd[worst]:
        direction = _principal(q)[0][:, 0]
    raise ImproperPosteriorError(
        f"the posterior cannot be normalised: the fit ran away along {in_words(evaluator, direction)}, to where "
        f"double precision ends. {_advice(direction)}"
    )


def _refuse_spike(evaluator: Evaluator, q: AbstractGaussian) -> None:
    """A density that rises without bound onto a point, as where a scale shrinks to zero."""
    real = np.concatenate([np.full(s.size, _is_real(s)) for s in evaluator.problem.latents])
    width = np.where(real, q.sd / np.maximum(np.abs(q.mean), 1.0), 1.0)
    worst = int(np.argmin(width))
    if width[worst] < NARROWEST:
        raise ImproperPosteriorError(
            "the posterior cannot be normalised: the density rises without bound onto one value of "
            f"{evaluator.problem.labels()[worst]}, more narrowly than double precision resolves. "
            "Are the data constant, so that a scale can shrink to zero? Give it a prior that keeps it from zero"
        )


def _refuse_flat(evaluator: Evaluator, q: AbstractGaussian) -> None:
    directions, sds = _principal(q)
    wide = np.flatnonzero(sds > WIDE)[:MOST_RAYS]
    if not len(wide):
        return
    rays = np.concatenate([directions[:, wide], -directions[:, wide]], axis=1).T
    lengths = np.tile(sds[wide], 2)
    points = [q.mean + (far * lengths)[:, None] * rays for far in (NEAR, FAR)]
    values = evaluator.value(np.concatenate([q.mean[None], *points]))
    middle, near, far = values[0], *np.split(values[1:], 2)
    flat = np.where(
        np.isfinite(far),
        (far > middle - REACH) & (far > near - LEAST_FALL),
        near > middle - LEAST_NEAR,  # beyond what exp can represent
    )
    for i, ray in enumerate(rays):
        rounding = lengths[i] > ROUNDING_SD and _is_rounding(evaluator, q.mean, lengths[i] * ray)
        if flat[i] or rounding:
            raise ImproperPosteriorError(
                "the posterior cannot be normalised: the log joint does not fall along "
                f"{in_words(evaluator, ray)}, even many standard deviations of the fit away. {_advice(ray)}"
            )


def _is_rounding(evaluator: Evaluator, mean: np.ndarray, step: np.ndarray) -> bool:
    """True if moving by billionths changes the log joint: the fall is rounding, not density."""
    points = mean + NEAR * (1.0 + 1e-9 * np.arange(8.0))[:, None] * step
    values, grads = evaluator.value_and_grad(points)
    if not np.isfinite(values).all():
        return False
    steep = np.abs((points[-1] - points[0]) @ grads[0])  # what the density itself changes by
    return bool(np.ptp(values) > ROUNDING + 10.0 * steep)


def _principal(q: AbstractGaussian) -> tuple[np.ndarray, np.ndarray]:
    """Directions as columns and their standard deviations, widest first."""
    if isinstance(q, DenseGaussian):
        left, values, _ = np.linalg.svd(q.factor)
        return left, values
    order = np.argsort(-q.sd)[:MOST_RAYS]
    return np.eye(q.dim)[:, order], q.sd[order]


def _unidentified(evaluator: Evaluator, q: AbstractGaussian) -> tuple[str, ...]:
    """Directions among latents of standardised normal priors in which the posterior is the prior."""
    problem = evaluator.problem
    named = [s for s in problem.latents if s.name != STAND_IN]
    normal = [s for s in named if s.distribution == "Normal" and s.centring is not None]
    fixed = [np.arange(s.start, s.stop) for s in normal if not s.parents]
    if not fixed or not problem.observed or not isinstance(q, DenseGaussian):
        return ()
    index = np.concatenate(fixed)
    single = np.eye(q.dim)[index[np.abs(q.sd[index] - 1.0) < SD_AS_THE_PRIOR]]
    single = single[_only_the_prior(evaluator, q.mean, single, index)]
    rest = np.setdiff1d(index, np.argmax(single, axis=1)) if len(single) else index
    values, vectors = np.linalg.eigh(np.linalg.inv(q.covariance[np.ix_(rest, rest)]))
    vectors = vectors[:, np.abs(values - 1.0) < AS_THE_PRIOR]
    mixed = np.zeros((vectors.shape[1], q.dim))
    mixed[:, rest] = vectors.T
    return _notes(evaluator, single, mixed[_only_the_prior(evaluator, q.mean, mixed, index)])


def _only_the_prior(
    evaluator: Evaluator, mean: np.ndarray, directions: np.ndarray, index: np.ndarray
) -> np.ndarray:
    """Which directions change the log joint by nothing but standard normals at ``index``."""
    if not len(directions):
        return np.zeros(0, bool)
    points = np.concatenate([mean[None], mean + 3.0 * directions, mean - 3.0 * directions])
    rest = evaluator.value(points) + 0.5 * np.sum(points[:, index] ** 2, axis=1)
    return np.abs(rest[1:] - rest[0]).reshape(2, -1).max(axis=0) < SAYS_NOTHING


def _notes(evaluator: Evaluator, single: np.ndarray, mixed: np.ndarray) -> tuple[str, ...]:
    labels, notes = evaluator.problem.labels(), []
    if len(single):
        names = [labels[i] for i in np.argmax(single, axis=1)]
        notes.append(
            f"the data say nothing of {listing(names, 4)}: the posterior is the prior there"
        )
    for direction in mixed[:3]:
        notes.append(
            f"the data do not identify {in_words(evaluator, direction)}: only the prior does. "
            "Look for collinear or constant predictors"
        )
    return tuple(notes)


def in_words(evaluator: Evaluator, direction: np.ndarray, most: int = 4) -> str:
    """Write a direction as a combination of latents, largest loadings first.

    Real latents are weighed in the model's own units, others in their unconstrained coordinates.
    """
    weights, labels = _in_own_units(evaluator, direction), evaluator.problem.labels()
    weights = weights / max(np.sqrt(weights @ weights), 1e-300)
    order = [
        i for i in np.argsort(-np.abs(weights)) if abs(weights[i]) > 0.1 * np.abs(weights).max()
    ]
    if len(order) == 1:
        return f"the direction of {labels[order[0]]}"
    terms = [f"{weights[i]:+.2f} {labels[i]}" for i in order[:most]]
    more = f" and {len(order) - most} more" if len(order) > most else ""
    return "the direction " + " ".join(terms) + more


def _in_own_units(evaluator: Evaluator, direction: np.ndarray) -> np.ndarray:
    unit = direction / max(np.abs(direction).max(), 1e-300)
    moved = evaluator.constrain(np.stack([-unit, unit]))
    out = unit.copy()
    for latent in evaluator.problem.latents:
        change = moved[latent.name][1] - moved[latent.name][0]
        if _is_real(latent) and np.isfinite(change).all():
            out[latent.slice] = 0.5 * change.ravel()
    return out


def _advice(direction: np.ndarray) -> str:
    if np.sum(np.abs(direction) > 0.1 * np.abs(direction).max()) > 1:
        return "Give those latents proper priors, or drop what is collinear or constant"
    return "Give it a proper prior, or data that speak of it"


def _is_real(latent: Latent) -> bool:
    return latent.support in ("real", "") and latent.shape == latent.unconstrained_shape
