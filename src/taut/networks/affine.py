r"""Gaussian posteriors where outputs are affine in the weights, exactly or after linearisation.

With outputs :math:`f_n = c_n + A_n w`, a prior :math:`N(\mu_0, P^{-1})` and precisions
:math:`\Lambda_n` of the targets around them, the posterior is Gaussian with precision
:math:`\sum_n A_n^\top \Lambda_n A_n + P`.
"""

import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import scipy.linalg
import scipy.optimize
from jaxtyping import Array

from taut._core.errors import ModelError

LARGEST = 4096  # weights of a dense covariance
HELD = 2**24  # slopes that are held at a time
BOUNDS = (-6.0, 6.0)  # of the log of a factor of a scale


class Selection(NamedTuple):
    """Some of the weights, as one vector.

    Attributes:
        positions: of the weights among all, in order.
        shapes: of these weights.
    """

    positions: tuple[int, ...]
    shapes: tuple[tuple[int, ...], ...]

    @property
    def sizes(self) -> tuple[int, ...]:
        """Elements of each."""
        return tuple(math.prod(s) for s in self.shapes)

    @property
    def dim(self) -> int:
        """Elements of all."""
        return sum(self.sizes)

    def put(self, weights: Sequence[Array], vector: Array) -> list[Array]:
        """All weights, with these taken from a vector."""
        found, start = list(weights), 0
        for position, shape, size in zip(self.positions, self.shapes, self.sizes, strict=True):
            found[position] = vector[start : start + size].reshape(shape)
            start += size
        return found

    def take(self, weights: Sequence[Array]) -> Array:
        """These weights as a vector."""
        return jnp.concatenate([jnp.ravel(weights[p]) for p in self.positions])

    def spread(self, values: Sequence[Any] | np.ndarray) -> np.ndarray:
        """One number for each weight, repeated for its elements, (dim,)."""
        return np.concatenate(
            [np.full(n, float(v)) for v, n in zip(values, self.sizes, strict=True)]
        )


def select(weights: Sequence[Array], positions: Sequence[int]) -> Selection:
    """Some of the weights."""
    return Selection(tuple(positions), tuple(weights[p].shape for p in positions))


def check_dense(selection: Selection, remedy: str) -> None:
    """Raise a ModelError where a dense covariance would be too large."""
    if selection.dim > LARGEST:
        raise ModelError(
            f"posterior: a dense covariance of {selection.dim} weights is more than the {LARGEST} that are "
            f"allowed; try {remedy}"
        )


class Statistics(NamedTuple):
    """Sums over rows for a Gaussian likelihood, for each output apart.

    Attributes:
        gram: sums of A^T A, (outputs, dim, dim).
        cross: sums of A^T (y - c), (outputs, dim).
        square: sums of (y - c)^2, (outputs,).
        rows: how many.
    """

    gram: np.ndarray
    cross: np.ndarray
    square: np.ndarray
    rows: float


class Conjugate(NamedTuple):
    """The exact posterior of a linear Gaussian model.

    Attributes:
        mean: (dim,).
        root: lower-triangular root of the covariance, (dim, dim).
        log_evidence: in nats.
    """

    mean: np.ndarray
    root: np.ndarray
    log_evidence: float


def conjugate(
    statistics: Statistics, noise: np.ndarray, prior_mean: np.ndarray, prior_scale: np.ndarray
) -> Conjugate:
    """The posterior and the evidence of y = c + A w + noise.

    Args:
        statistics: sums over rows.
        noise: sd of each output's noise, (outputs,).
        prior_mean: of w, (dim,).
        prior_scale: sds of w, (dim,).
    """
    weights, precision = noise**-2.0, prior_scale**-2.0
    total = np.tensordot(weights, statistics.gram, 1) + np.diag(precision)
    right = weights @ statistics.cross + precision * prior_mean
    lower = scipy.linalg.cholesky(total, lower=True)
    half = scipy.linalg.solve_triangular(lower, right, lower=True)
    mean = scipy.linalg.solve_triangular(lower, half, lower=True, trans=1)
    misfit = weights @ statistics.square + np.sum(precision * prior_mean**2) - half @ half
    log_det = 2 * np.sum(np.log(np.diagonal(lower))) + 2 * np.sum(np.log(prior_scale))
    constant = statistics.rows * np.sum(math.log(2 * math.pi) + 2 * np.log(noise))
    # The inverse of the precision's root, transposed, is an upper root of the covariance.
    inverse = scipy.linalg.solve_triangular(lower, np.eye(len(lower)), lower=True)
    root = scipy.linalg.cholesky(inverse.T @ inverse, lower=True)
    return Conjugate(mean, root, float(-0.5 * (misfit + log_det + constant)))


def maximise(function: Callable[[np.ndarray], float], size: int) -> np.ndarray:
    """Logs of factors that maximise a smooth function of few of them, from all zero."""
    if not size:
        return np.zeros(0)
    found = scipy.optimize.minimize(
        lambda v: -function(v), np.zeros(size), method="L-BFGS-B", bounds=[BOUNDS] * size
    )
    return found.x


def matched(draws: Array, mean: Array, variance: Array) -> Array:
    """Draws shifted and scaled so that their mean and variance are the exact ones.

    Args:
        draws: of Gaussians, (draws, ...); what they have in common along the other axes is kept.
        mean: exact, (...).
        variance: exact, (...).
    """
    if len(draws) == 1:
        return draws
    spread = jnp.std(draws, 0)
    scale = jnp.where(spread > 0, jnp.sqrt(variance) / jnp.where(spread > 0, spread, 1.0), 0.0)
    return mean + (draws - jnp.mean(draws, 0)) * scale


def over_slopes(
    function: Callable[[Array, Array], Array],
    point: Array,
    x: Array,
    use: Callable[[Array, Array], Any],
) -> Any:
    """What a function of outputs and their slopes gives for each row, some rows at a time.

    Args:
        function: (vector of weights, datum) -> output.
        point: the vector.
        x: rows.
        use: (outputs (outputs,), slopes (outputs, dim)) -> arrays, which are stacked over rows.
    """

    def flat(vector: Array, x: Array) -> Array:
        return jnp.reshape(function(vector, x), (-1,))

    def one(x: Array) -> Any:
        return use(flat(point, x), jax.jacrev(flat)(point, x))

    outputs = jax.eval_shape(flat, point, x[0]).size
    return jax.lax.map(one, x, batch_size=max(1, min(64, HELD // (outputs * point.size))))
