"""Starts that break the symmetry between components of a mixture."""

from typing import Any

import numpy as np

from taut.expectation.factor import AbstractDiscrete
from taut.families import Categorical, Chain, Dirichlet
from taut.problem import Problem

CONFIDENCE = 0.9  # probability of the component that a point starts in
LLOYD_STEPS = 5
MAX_POINTS = 20_000  # on which the centres are moved


def responsibilities(
    problem: Problem, name: str, shape: tuple[int, ...], rng: np.random.Generator
) -> np.ndarray:
    """Probabilities to start a discrete latent from.

    Where a numeric observed site has a row for each of its elements: k-means++ centres (Arthur
    and Vassilvitskii 2007) moved a few times, and each row in the component of the nearest one.
    Random otherwise.

    Args:
        problem: the model with its data.
        name: the latent.
        shape: of the probabilities, (*elements, components).
        rng: of the seeds.
    """
    rows = _rows(problem, shape[:-1])
    num = shape[-1]
    if rows is None:
        return rng.dirichlet(np.full(num, 1.0), size=shape[:-1])
    nearest = _nearest(rows, kmeans(rows, num, rng))
    probs = np.full((len(rows), num), (1.0 - CONFIDENCE) / num)
    probs[np.arange(len(rows)), nearest] += CONFIDENCE
    return probs.reshape(shape)


def centred_on(factor: AbstractDiscrete, probs: np.ndarray) -> AbstractDiscrete:
    """A factor of the same kind with independent elements of these probabilities."""
    if isinstance(factor, Chain):
        return Chain(np.log(probs), np.zeros_like(factor.natural[1]))
    return Categorical(probs)


def _rows(problem: Problem, elements: tuple[int, ...]) -> np.ndarray | None:
    """Standardised rows of the real-valued observed sites that have one per element."""
    columns = []
    kinds = {o.name: o.distribution for o in problem.observed}
    for site, values in problem.observed_values().items():
        counted = any(word in kinds[site] for word in ("Categorical", "Ordered"))
        if not elements or counted or values.shape[: len(elements)] != elements:
            continue
        columns.append(values.reshape(int(np.prod(elements)), -1).astype(float))
    if not columns:
        return None
    rows = np.concatenate(columns, axis=1)
    spread = rows.std(axis=0)
    return (rows - rows.mean(axis=0)) / np.where(spread > 0, spread, 1.0)


def kmeans(rows: np.ndarray, num: int, rng: np.random.Generator) -> np.ndarray:
    """Centres (num, features): k-means++ seeds and a few steps of Lloyd's algorithm."""
    if len(rows) > MAX_POINTS:
        rows = rows[rng.choice(len(rows), MAX_POINTS, replace=False)]
    centres = rows[[rng.integers(len(rows))]]
    for _ in range(num - 1):
        distance = _squared(rows, centres).min(axis=1)
        total = distance.sum()
        chances = distance / total if total > 0 else None
        centres = np.concatenate([centres, rows[[rng.choice(len(rows), p=chances)]]])
    for _ in range(LLOYD_STEPS):
        nearest = _nearest(rows, centres)
        for k in range(num):
            if (nearest == k).any():
                centres[k] = rows[nearest == k].mean(axis=0)
    return centres


def _squared(rows: np.ndarray, centres: np.ndarray) -> np.ndarray:
    cross = rows @ centres.T
    return np.maximum((rows**2).sum(1)[:, None] - 2.0 * cross + (centres**2).sum(1), 0.0)


def _nearest(rows: np.ndarray, centres: np.ndarray) -> np.ndarray:
    return _squared(rows, centres).argmin(axis=1)


def jittered(factor: Any, rng: np.random.Generator) -> Any:
    """A factor whose components differ a little; only Dirichlet ones need it."""
    if not isinstance(factor, Dirichlet):
        return factor
    concentration = np.asarray(factor.concentration)
    return Dirichlet(concentration * rng.gamma(20.0, 0.05, concentration.shape) + 1e-3)
