r"""The Wishart factor, of precision and covariance matrices."""

import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.scipy.linalg import cho_solve
from jax.scipy.special import digamma
from jaxtyping import Array
from typing_extensions import override

from taut._core.errors import ArgumentError
from taut.expectation.factor import AbstractContinuous, Parameters
from taut.families.factors import Number, all_true, build, is_concrete, positive
from taut.families.special import HALF_LOG_2PI, binet, gamma_entropy, trigamma, trigamma_excess

LOG_PI = math.log(math.pi)


def _transposed(x: Array) -> Array:
    return jnp.swapaxes(x, -1, -2)


def _symmetric(x: Array) -> Array:
    return 0.5 * (x + _transposed(x))


def _inverse(x: Array) -> Array:
    """Inverse of positive definite matrices; NaN where they are not."""
    factor = jnp.linalg.cholesky(x)
    eye = jnp.broadcast_to(jnp.eye(x.shape[-1], dtype=x.dtype), x.shape)
    return _symmetric(cho_solve((factor, True), eye))


def _log_det(x: Array) -> Array:
    diagonal = jnp.diagonal(jnp.linalg.cholesky(x), axis1=-2, axis2=-1)
    return 2.0 * jnp.sum(jnp.log(diagonal), axis=-1)


def _trace(x: Array, y: Array) -> Array:
    return jnp.sum(x * _transposed(y), axis=(-2, -1))


class Wishart(AbstractContinuous):
    r"""Wishart over the last two axes, E[X] = df * scale, with independent matrices in front.

    Statistics (log det X, X); natural parameter :math:`((\nu - p - 1)/2, -W^{-1}/2)`. Gradients with
    respect to matrices are symmetric.

    Args:
        df: degrees of freedom nu, larger than p - 1, shape (...).
        scale: W, positive definite, shape (..., p, p).

    Source:
        Bishop (2006), appendix B.
    """

    natural: Parameters
    mean: Parameters

    def __init__(self, df: Any, scale: Any) -> None:
        df, scale = positive("Wishart.df", df), jnp.asarray(scale, dtype=float)
        if scale.ndim < 2 or scale.shape[-1] != scale.shape[-2]:
            raise ArgumentError(
                f"Wishart.scale must be square over its last two axes, got shape {scale.shape}; "
                "for variances alone use families.Gamma"
            )
        size = scale.shape[-1]
        _check_wishart(df, scale)
        batch = jnp.broadcast_shapes(df.shape, scale.shape[:-2])
        df = jnp.broadcast_to(df, batch)
        scale = jnp.broadcast_to(scale, (*batch, size, size))
        self.natural = ((df - size - 1.0) / 2.0, -0.5 * _inverse(scale))
        self.mean = _wishart_mean(df, scale)

    @classmethod
    @override
    def from_natural(cls, natural: Parameters) -> "Wishart":
        power, matrix = natural[0], _symmetric(natural[1])
        df = 2.0 * power + matrix.shape[-1] + 1.0
        mean = _wishart_mean(df, _inverse(-2.0 * matrix))
        return build(cls, natural=(power, matrix), mean=mean)

    @property
    def df(self) -> Array:
        """Degrees of freedom, shape (...)."""
        return 2.0 * self.natural[0] + self._size + 1.0

    @property
    def scale(self) -> Array:
        """W, shape (..., p, p)."""
        return self.mean[1] / self.df[..., None, None]

    @property
    def _size(self) -> int:
        return self.natural[1].shape[-1]

    @property
    def _halves(self) -> Array:
        """Concentrations (nu - i) / 2, i = 0 ... p - 1, of the chi-square variables in X."""
        return (self.df[..., None] - jnp.arange(self._size)) / 2.0

    @property
    @override
    def shape(self) -> tuple[int, ...]:
        return self.natural[1].shape

    @override
    def is_proper(self) -> Array:
        definite = jnp.isfinite(jnp.linalg.cholesky(-self.natural[1]))
        return all_true(self.df > self._size - 1.0, definite)

    @override
    def gradient(self, cotangent: Any) -> Parameters:
        # With M = -natural[1] and a = nu / 2, the Fisher information sends (h, H) to
        # (psi_p'(a) h + tr(M^-1 H), h M^-1 + a M^-1 H M^-1).
        first, second = cotangent.natural[0], _symmetric(cotangent.natural[1])
        matrix, half = -self.natural[1], self.df / 2.0
        i = jnp.arange(self._size)
        excess = trigamma_excess(self._halves) + 0.5 * i * trigamma(self._halves)
        power = (half * first - _trace(second, matrix)) / jnp.sum(excess, axis=-1)
        inner = matrix @ second @ matrix - power[..., None, None] * matrix
        mean = cotangent.mean[0], _symmetric(cotangent.mean[1])
        return mean[0] + power, mean[1] + inner / half[..., None, None]

    @property
    @override
    def entropy(self) -> Array:
        i, size = jnp.arange(self._size), self._size
        terms = gamma_entropy(self._halves) + 0.5 * i
        terms = terms + 0.5 * (size - 1 - i) * digamma(self._halves)
        log_det = 0.5 * (size + 1) * _log_det(-self.natural[1])
        constant = 0.25 * size * (size - 1) * LOG_PI
        return jnp.sum(jnp.sum(terms, axis=-1) - log_det + constant)

    @override
    def log_prob(self, value: Array) -> Array:
        """Log density, summed over matrices; Stirling's formula removes the large parts."""
        size, half, halves = self._size, self.df / 2.0, self._halves
        i, log_det = jnp.arange(size), _log_det(value)
        kernel = log_det + _log_det(-self.natural[1]) - size * jnp.log(half)
        kernel = half * kernel + _trace(self.natural[1], value) + size * half
        terms = -half[..., None] * jnp.log1p(-0.5 * i / half[..., None])
        terms = terms - 0.5 * i + 0.5 * (i + 1) * jnp.log(halves) - HALF_LOG_2PI - binet(halves)
        constant = 0.25 * size * (size - 1) * LOG_PI + 0.5 * (size + 1) * log_det
        return jnp.sum(kernel + jnp.sum(terms, axis=-1) - constant)

    @override
    def sample(self, key: Array, num_draws: int) -> Array:
        """Draws by Bartlett's decomposition, shape (num_draws, ..., p, p)."""
        keys, size = jax.random.split(key), self._size
        shape = (num_draws, *self.shape)
        squares = 2.0 * jax.random.gamma(keys[0], self._halves, shape[:-1])
        below = jnp.tril(jax.random.normal(keys[1], shape, self.natural[1].dtype), -1)
        root = below + jnp.sqrt(squares)[..., None] * jnp.eye(size)
        root = jnp.linalg.cholesky(self.scale) @ root
        return root @ _transposed(root)

    @property
    @override
    def kind(self) -> str:
        return "matrix"

    @override
    def moment(self, power: Number, logs: int, copower: Number, cologs: int) -> Array | None:
        """E[X] for the first power of the elements; None for any other."""
        return self.mean[1] if (power, logs, copower, cologs) == (1, 0, 0, 0) else None

    @override
    def grid(self, num_points: int) -> None:
        """None: elements of a matrix are not independent."""
        return


def _wishart_mean(df: Array, scale: Array) -> Parameters:
    size = scale.shape[-1]
    halves = (df[..., None] - jnp.arange(size)) / 2.0
    log_det = jnp.sum(digamma(halves), axis=-1) + size * math.log(2.0) + _log_det(scale)
    return log_det, df[..., None, None] * scale


def _check_wishart(df: Array, scale: Array) -> None:
    size = scale.shape[-1]
    if is_concrete(df) and np.any(np.asarray(df) <= size - 1):
        raise ArgumentError(
            f"Wishart.df must be larger than {size - 1} for {size} x {size} matrices, "
            f"got {np.min(np.asarray(df)):g}; {size + 1} is the usual weak choice"
        )
    if is_concrete(scale):
        known = np.asarray(scale)
        if not np.allclose(known, known.swapaxes(-1, -2), rtol=1e-6):
            raise ArgumentError(
                "Wishart.scale must be symmetric, got a matrix that differs from its transpose; "
                "average the two"
            )
        smallest = np.linalg.eigvalsh(known).min()
        if not smallest > 0:
            raise ArgumentError(
                f"Wishart.scale must be positive definite, got a smallest eigenvalue of {smallest:g}; "
                "add a small multiple of the identity"
            )
