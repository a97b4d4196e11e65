"""Gaussian variational distributions over the unconstrained space.

All of them are u = mean + colour(z) with z standard normal; they differ in how much of the
covariance they hold, and so in what colouring costs. Arrays are NumPy or JAX float64.
"""

import abc
from collections.abc import Callable

import equinox as eqx
import numpy as np
from jaxtyping import Float
from scipy.linalg import solve_triangular
from typing_extensions import override

LOG_2PI = float(np.log(2.0 * np.pi))
Points = Float[np.ndarray, "n d"]
Vector = Float[np.ndarray, " d"]


class AbstractDistribution(eqx.Module):
    """A normalised q on R^d that can be drawn from and evaluated."""

    @property
    @abc.abstractmethod
    def dim(self) -> int:
        """Number of coordinates."""

    @property
    @abc.abstractmethod
    def sd(self) -> Vector:
        """Marginal standard deviations, shape (d,)."""

    @abc.abstractmethod
    def sample(self, rng: np.random.Generator, num_draws: int) -> Points:
        """Draw from q, shape (num_draws, d)."""

    @abc.abstractmethod
    def log_prob(self, points: Points) -> Float[np.ndarray, " n"]:
        """Log density at points, shape (n, d), in nats."""


class AbstractGaussian(AbstractDistribution):
    """A normalised Gaussian q on R^d.

    Attributes:
        mean: shape (d,).
    """

    mean: eqx.AbstractVar[np.ndarray]

    @abc.abstractmethod
    def colour(self, noise: Points) -> Points:
        """Turn standard normals, shape (n, d), into centred draws of q."""

    @abc.abstractmethod
    def whiten(self, centred: Points) -> Points:
        """Invert :meth:`colour`."""

    @abc.abstractmethod
    def pull_back(self, grads: Points) -> Points:
        """Gradients with respect to the noise: multiply each row by the factor's transpose."""

    @property
    @abc.abstractmethod
    def log_det(self) -> float:
        """Log determinant of the factor, half that of the covariance."""

    @property
    @abc.abstractmethod
    def variance(self) -> Vector:
        """Marginal variances, shape (d,)."""

    @property
    def dim(self) -> int:
        """Number of coordinates."""
        return len(self.mean)

    @property
    def sd(self) -> Vector:
        """Marginal standard deviations, shape (d,)."""
        return np.sqrt(self.variance)

    @property
    def entropy(self) -> float:
        """Differential entropy in nats."""
        return float(0.5 * self.dim * (1.0 + LOG_2PI) + self.log_det)

    @property
    def covariance(self) -> Float[np.ndarray, "d d"]:
        """Covariance matrix; costs O(d^2) memory whatever the family."""
        root = self.colour(np.eye(self.dim))
        return root.T @ root

    def place(self, noise: Points) -> Points:
        """Turn standard normals into draws of q, shape (n, d)."""
        return self.mean + self.colour(noise)

    def sample(self, rng: np.random.Generator, num_draws: int) -> Points:
        """Draw from q, shape (num_draws, d)."""
        return self.place(rng.standard_normal((num_draws, self.dim)))

    def log_prob(self, points: Points) -> Float[np.ndarray, " n"]:
        """Log density at points, shape (n, d), in nats."""
        return self.log_prob_of_noise(self.whiten(points - self.mean))

    def log_prob_of_noise(self, noise: Points) -> Float[np.ndarray, " n"]:
        """Log density of the draws that ``place`` makes of standard normals."""
        return -0.5 * (np.sum(noise**2, axis=1) + self.dim * LOG_2PI) - self.log_det


class DiagonalGaussian(AbstractGaussian):
    """Independent coordinates: O(d) memory and time.

    Attributes:
        mean: shape (d,).
        scale: standard deviations, shape (d,), positive.
    """

    mean: np.ndarray
    scale: np.ndarray

    @override
    def colour(self, noise: Points) -> Points:
        return noise * self.scale

    @override
    def whiten(self, centred: Points) -> Points:
        return centred / self.scale

    @override
    def pull_back(self, grads: Points) -> Points:
        return grads * self.scale

    @property
    @override
    def log_det(self) -> float:
        return float(np.sum(np.log(self.scale)))

    @property
    @override
    def variance(self) -> Vector:
        return self.scale**2


class DenseGaussian(AbstractGaussian):
    """Full covariance S = L L': O(d^2) memory.

    Attributes:
        mean: shape (d,).
        factor: lower-triangular L with a positive diagonal, shape (d, d).
    """

    mean: np.ndarray
    factor: np.ndarray

    @override
    def colour(self, noise: Points) -> Points:
        return noise @ self.factor.T

    @override
    def whiten(self, centred: Points) -> Points:
        return solve_triangular(self.factor, centred.T, lower=True, check_finite=False).T

    @override
    def pull_back(self, grads: Points) -> Points:
        return grads @ self.factor

    @property
    @override
    def log_det(self) -> float:
        return float(np.sum(np.log(np.diagonal(self.factor))))

    @property
    @override
    def variance(self) -> Vector:
        return np.sum(self.factor**2, axis=1)

    @staticmethod
    def from_root(mean: np.ndarray, root: np.ndarray) -> "DenseGaussian":
        """Build from any square root B of the covariance, S = B B'."""
        upper = np.asarray(np.linalg.qr(root.T, mode="r"))
        return DenseGaussian(mean, (upper * np.where(np.diagonal(upper) < 0, -1.0, 1.0)[:, None]).T)


class LowRankGaussian(AbstractGaussian):
    r"""Diagonal plus low rank, :math:`S = D (I + V V^T) D`: O(d r) memory.

    Colouring uses the symmetric root :math:`D (I + Q (\sqrt{1 + s^2} - 1) Q^T)` with
    :math:`V = Q s W^T`.

    Attributes:
        mean: shape (d,).
        scale: the diagonal of D, shape (d,), positive.
        basis: orthonormal Q, shape (d, r).
        strength: singular values s, shape (r,).
    """

    mean: np.ndarray
    scale: np.ndarray
    basis: np.ndarray
    strength: np.ndarray

    @property
    def _stretch(self) -> np.ndarray:
        return np.sqrt(1.0 + self.strength**2)

    def _root(self, x: Points, gain: np.ndarray) -> Points:
        return x + ((x @ self.basis) * gain) @ self.basis.T

    @override
    def colour(self, noise: Points) -> Points:
        return self._root(noise, self._stretch - 1.0) * self.scale

    @override
    def whiten(self, centred: Points) -> Points:
        return self._root(centred / self.scale, 1.0 / self._stretch - 1.0)

    @override
    def pull_back(self, grads: Points) -> Points:
        return self._root(grads * self.scale, self._stretch - 1.0)

    @property
    @override
    def log_det(self) -> float:
        return float(np.sum(np.log(self.scale)) + np.sum(np.log(self._stretch)))

    @property
    @override
    def variance(self) -> Vector:
        return self.scale**2 * (1.0 + np.sum((self.basis * self.strength) ** 2, axis=1))

    @staticmethod
    def from_columns(mean: np.ndarray, scale: np.ndarray, columns: np.ndarray) -> "LowRankGaussian":
        """Build from V, shape (d, r)."""
        basis, strength, _ = np.linalg.svd(columns, full_matrices=False)
        return LowRankGaussian(mean, scale, basis, strength)


class BlockGaussian(AbstractGaussian):
    """Independent dense blocks: O(sum of squared block sizes) memory.

    Blocks of one size are held together so that they are coloured in one product.

    Attributes:
        mean: shape (d,).
        indices: for each size, the coordinates of its blocks, shape (blocks, size).
        factors: for each size, lower-triangular factors, shape (blocks, size, size).
    """

    mean: np.ndarray
    indices: tuple[np.ndarray, ...]
    factors: tuple[np.ndarray, ...]

    def _each(self, x: Points, apply: Callable[[np.ndarray, np.ndarray], np.ndarray]) -> Points:
        out = np.empty_like(x)
        for index, factor in zip(self.indices, self.factors, strict=True):
            stacked = x[:, index].transpose(1, 2, 0)  # (blocks, size, n)
            out[:, index] = apply(factor, stacked).transpose(2, 0, 1)
        return out

    @override
    def colour(self, noise: Points) -> Points:
        return self._each(noise, np.matmul)

    @override
    def whiten(self, centred: Points) -> Points:
        return self._each(centred, np.linalg.solve)

    @override
    def pull_back(self, grads: Points) -> Points:
        return self._each(grads, lambda factor, x: factor.transpose(0, 2, 1) @ x)

    @property
    @override
    def log_det(self) -> float:
        return float(sum(np.log(np.einsum("bii->bi", f)).sum() for f in self.factors))

    @property
    @override
    def variance(self) -> Vector:
        out = np.empty_like(self.mean)
        for index, factor in zip(self.indices, self.factors, strict=True):
            out[index] = np.sum(factor**2, axis=2)
        return out


class MixtureGaussian(AbstractDistribution):
    """Mixture of dense Gaussians.

    Attributes:
        parts: the components.
        log_weights: their normalised log weights, (k,).
    """

    parts: tuple[DenseGaussian, ...]
    log_weights: np.ndarray

    @property
    @override
    def dim(self) -> int:
        return self.parts[0].dim

    @property
    def mean(self) -> Vector:
        """Mean of the mixture, (d,)."""
        return np.exp(self.log_weights) @ np.stack([p.mean for p in self.parts])

    @property
    @override
    def sd(self) -> Vector:
        away = np.stack([p.mean for p in self.parts]) - self.mean
        variances = np.stack([p.variance for p in self.parts])
        return np.sqrt(np.exp(self.log_weights) @ (variances + away**2))

    @override
    def sample(self, rng: np.random.Generator, num_draws: int) -> Points:
        weights = np.exp(self.log_weights)
        counts = rng.multinomial(num_draws, weights / weights.sum())
        draws = np.concatenate(
            [p.sample(rng, int(n)) for p, n in zip(self.parts, counts, strict=True)]
        )
        return rng.permutation(draws)

    @override
    def log_prob(self, points: Points) -> Float[np.ndarray, " n"]:
        each = np.stack(
            [p.log_prob(points) + w for p, w in zip(self.parts, self.log_weights, strict=True)]
        )
        return np.logaddexp.reduce(each, axis=0)
