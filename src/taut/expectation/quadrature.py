"""Expectations of nonlinear functions of few Gaussian variables."""

import functools
from typing import Any

import jax.numpy as jnp
import numpy as np

from taut.expectation.draws import matched_normals

SPACING_1D, REACH_1D = 0.40625, 6.5  # 33 nodes
SPACING_2D, REACH_2D = 0.58, 5.9  # 379 nodes
NUM_DRAWS = 512  # fixed quasi-random nodes from three dimensions on


@functools.cache
def nodes(dim: int) -> tuple[np.ndarray, np.ndarray]:
    """Nodes (n, dim) and weights (n,) for expectations under a standard normal.

    The trapezoidal rule in one dimension, and on a hexagonal lattice in two; fixed moment-matched
    scrambled-Sobol normals beyond. Means and covariances of all of them are exact. For functions
    with poles near the real axis, such as log(1 + x^2), the error is 10 to 30 times less than
    that of Gauss-Hermite rules of as many nodes, which spend half of them where nothing is.

    Source:
        Trefethen and Weideman (2014), The exponentially convergent trapezoidal rule.
    """
    if dim > 2:
        return matched_normals(NUM_DRAWS, dim), np.full(NUM_DRAWS, 1.0 / NUM_DRAWS)
    points = _line() if dim == 1 else _hexagons()
    weights = np.exp(-0.5 * np.sum(points**2, axis=1))
    weights /= weights.sum()
    return points / np.sqrt(weights @ points[:, :1] ** 2), weights


def _line() -> np.ndarray:
    steps = round(REACH_1D / SPACING_1D)
    return SPACING_1D * np.arange(-steps, steps + 1)[:, None]


def _hexagons() -> np.ndarray:
    """A hexagonal lattice within a disc."""
    steps = np.arange(-25, 26)
    i, j = (x.ravel() for x in np.meshgrid(steps, steps))
    points = SPACING_2D * np.stack([i + 0.5 * j, np.sqrt(0.75) * j], axis=1)
    return points[np.sum(points**2, axis=1) <= REACH_2D**2]


def describe(dim: int) -> str:
    """A few words on the rule of this dimension."""
    if dim > 2:
        return f"fixed draws ({NUM_DRAWS} of dimension {dim})"
    return f"quadrature (dimension {dim}, {len(nodes(dim)[1])} nodes)"


def root(covariance: list[list[Any]]) -> list[list[Any]]:
    """Cholesky factor of a covariance matrix of arrays that broadcast against each other.

    Args:
        covariance: lower triangle, entry [i][j] for j <= i; None for zero.

    Returns:
        Its lower triangle, likewise.
    """
    rows: list[list[Any]] = []
    for i, of_row in enumerate(covariance):
        row = forward_substitution(rows, of_row[:i])
        rest = of_row[i]
        for x in row:
            rest = _minus(rest, _times(x, x))
        rows.append([*row, _root(rest)])
    return rows


def forward_substitution(rows: list[list[Any]], right: list[Any]) -> list[Any]:
    """Solve L x = b for a lower triangle of arrays; zero where a variance is zero."""
    found: list[Any] = []
    for row, rest in zip(rows, right, strict=True):
        for x, weight in zip(found, row, strict=False):
            rest = _minus(rest, _times(x, weight))
        found.append(None if rest is None else _ratio(rest, row[-1]))
    return found


def coloured(means: list[Any], rows: list[list[Any]], z: np.ndarray) -> list[Any]:
    """Nodes of jointly normal variables, each over its axes and a last axis of nodes.

    Args:
        means: per variable, arrays that broadcast against each other.
        rows: Cholesky factor of their covariance, see :func:`root`.
        z: standard nodes, (n, dim).
    """
    found = []
    for mean, row in zip(means, rows, strict=True):
        point = mean[..., None]
        for k, weight in enumerate(row):
            if weight is not None:
                point = point + weight[..., None] * z[:, k]
        found.append(point)
    return found


def _times(a: Any, b: Any) -> Any:
    return None if a is None or b is None else a * b


def _minus(a: Any, b: Any) -> Any:
    if b is None:
        return a
    return -b if a is None else a - b


def _root(variance: Any) -> Any:
    """Square root, with a finite gradient where a variable has no variance of its own."""
    if variance is None:
        return None
    positive = variance > 1e-14
    return jnp.where(positive, jnp.sqrt(jnp.where(positive, variance, 1.0)), 0.0)


def _ratio(a: Any, b: Any) -> Any:
    if b is None:
        return None
    return jnp.where(b > 0, a / jnp.where(b > 0, b, 1.0), 0.0)


def folded_normal_mean(mean: Any, variance: Any) -> Any:
    """E|x| of a normal variable, whose kink a rule sees badly."""
    from jax.scipy.special import erf

    sd = _root(variance)
    safe = jnp.where(sd > 0, sd, 1.0)
    ratio = mean / safe
    found = safe * np.sqrt(2 / np.pi) * jnp.exp(-0.5 * ratio**2) + mean * erf(ratio / np.sqrt(2))
    return jnp.where(sd > 0, found, jnp.abs(mean))
