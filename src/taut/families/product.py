r"""Products of factors over the real coordinates of a problem.

A factor over a positive or simplex latent is, in the coordinates in which weights and chains
work, a density on the real line with a closed form and a quantile function; a product of such
parts and Gaussian blocks is drawn from by turning standard normals into quantiles, part by part.
"""

import abc

import numpy as np
from jaxtyping import Float
from scipy import special
from typing_extensions import override

from taut.families.gaussian import (
    LOG_2PI,
    AbstractDistribution,
    AbstractGaussian,
    DenseGaussian,
    DiagonalGaussian,
    Points,
    Vector,
)

MAX_DENSE = 2000  # coordinates of which a square root of the covariance is formed
TINY, LARGE = 1e-300, 1.0 - 1e-16


class AbstractPart(AbstractDistribution):
    """A density on R^k that standard normals can be turned into draws of."""

    @property
    @abc.abstractmethod
    def mean(self) -> Vector:
        """Means, shape (k,)."""

    @abc.abstractmethod
    def place(self, noise: Points) -> Points:
        """Turn standard normals, shape (n, k), into draws."""

    @property
    @override
    def dim(self) -> int:
        return len(self.mean)

    @override
    def sample(self, rng: np.random.Generator, num_draws: int) -> Points:
        return self.place(rng.standard_normal((num_draws, self.dim)))


class LogGamma(AbstractPart):
    """Logs of independent gamma variables, or of inverse-gamma ones where ``sign`` is -1.

    Attributes:
        concentration: shape (k,).
        rate: shape (k,).
        sign: 1 or -1.
    """

    concentration: np.ndarray
    rate: np.ndarray
    sign: np.ndarray

    @property
    @override
    def mean(self) -> Vector:
        return self.sign * (special.digamma(self.concentration) - np.log(self.rate))

    @property
    @override
    def sd(self) -> Vector:
        return np.sqrt(special.polygamma(1, self.concentration))

    @override
    def place(self, noise: Points) -> Points:
        uniform = np.clip(special.ndtr(noise), TINY, LARGE)
        draws = special.gammaincinv(self.concentration, uniform)
        return self.sign * (np.log(np.maximum(draws, TINY)) - np.log(self.rate))

    @override
    def log_prob(self, points: Points) -> Float[np.ndarray, " n"]:
        t = self.sign * points + np.log(self.rate)
        logs = self.concentration * t - np.exp(t) - special.gammaln(self.concentration)
        return logs.sum(axis=1)


class LogitBeta(AbstractPart):
    """Logits of independent beta variables, shifted: the sticks of a Dirichlet are such.

    Attributes:
        concentration1: shape (k,).
        concentration0: shape (k,).
        shift: added to the logits, shape (k,).
    """

    concentration1: np.ndarray
    concentration0: np.ndarray
    shift: np.ndarray

    @property
    @override
    def mean(self) -> Vector:
        return (
            special.digamma(self.concentration1) - special.digamma(self.concentration0) + self.shift
        )

    @property
    @override
    def sd(self) -> Vector:
        a, b = self.concentration1, self.concentration0
        return np.sqrt(special.polygamma(1, a) + special.polygamma(1, b))

    @override
    def place(self, noise: Points) -> Points:
        a, b = self.concentration1, self.concentration0
        x = special.betaincinv(a, b, np.clip(special.ndtr(noise), TINY, LARGE))
        rest = special.betaincinv(b, a, np.clip(special.ndtr(-noise), TINY, LARGE))
        return np.log(np.maximum(x, TINY)) - np.log(np.maximum(rest, TINY)) + self.shift

    @override
    def log_prob(self, points: Points) -> Float[np.ndarray, " n"]:
        t, a, b = points - self.shift, self.concentration1, self.concentration0
        logs = -a * np.logaddexp(0.0, -t) - b * np.logaddexp(0.0, t) - special.betaln(a, b)
        return logs.sum(axis=1)

    @staticmethod
    def of_dirichlet(concentration: np.ndarray) -> "LogitBeta":
        """The stick-breaking coordinates of Dirichlet variables, shape (..., K) -> (... (K-1),)."""
        size = concentration.shape[-1]
        after = np.cumsum(concentration[..., ::-1], axis=-1)[..., ::-1][..., 1:]
        shift = np.broadcast_to(np.log(size - 1.0 - np.arange(size - 1)), after.shape)
        return LogitBeta(concentration[..., :-1].ravel(), after.ravel(), shift.ravel())


class CholeskyWishart(AbstractPart):
    """Independent Wishart matrices by their Cholesky factors, with log diagonals (Bartlett 1933).

    Attributes:
        df: degrees of freedom, shape (b,).
        factor: lower Cholesky factors of the scales, shape (b, p, p).
    """

    df: np.ndarray
    factor: np.ndarray

    @property
    def _size(self) -> int:
        return self.factor.shape[-1]

    @property
    def _freedom(self) -> np.ndarray:
        return self.df[:, None] - np.arange(self._size)

    @override
    def place(self, noise: Points) -> Points:
        n, b, p = len(noise), len(self.df), self._size
        noise = noise.reshape(n, b, -1)
        lower = np.zeros((n, b, p, p))
        row, column = np.tril_indices(p, -1)
        lower[..., row, column] = noise[..., : len(row)]
        uniform = np.clip(special.ndtr(noise[..., len(row) :]), TINY, LARGE)
        chi = np.sqrt(2.0 * special.gammaincinv(0.5 * self._freedom, uniform))
        lower[..., np.arange(p), np.arange(p)] = np.maximum(chi, TINY)
        root = self.factor @ lower
        logs = np.log(np.einsum("nbii->nbi", root))
        return np.concatenate([root[..., row, column], logs], axis=-1).reshape(n, -1)

    @override
    def log_prob(self, points: Points) -> Float[np.ndarray, " n"]:
        p, root = self._size, self.roots(points)
        row, column = np.tril_indices(p, -1)
        logs = np.log(np.einsum("nbii->nbi", root))
        lower = np.linalg.solve(np.broadcast_to(self.factor, root.shape), root)
        diagonal = np.einsum("nbii->nbi", lower)
        half = 0.5 * self._freedom
        chi = (2.0 * half - 1.0) * np.log(diagonal) - 0.5 * diagonal**2 + (1.0 - half) * np.log(2.0)
        normal = -0.5 * lower[..., row, column] ** 2 - 0.5 * np.log(2.0 * np.pi)
        scale = np.log(np.einsum("bii->bi", self.factor)) @ (1.0 + np.arange(p))
        total = (chi - special.gammaln(half) + logs).sum(axis=(1, 2)) + normal.sum(axis=(1, 2))
        return total - scale.sum()

    def roots(self, points: Points) -> np.ndarray:
        """The Cholesky factors, shape (n, b, p, p), of coordinates (n, k)."""
        p = self._size
        row, column = np.tril_indices(p, -1)
        points = points.reshape(len(points), len(self.df), -1)
        root = np.zeros((*points.shape[:2], p, p))
        root[..., row, column] = points[..., : len(row)]
        root[..., np.arange(p), np.arange(p)] = np.exp(points[..., len(row) :])
        return root

    @property
    def _moments(self) -> tuple[np.ndarray, np.ndarray]:
        from taut.expectation.draws import fixed_normals

        size = len(self.df) * self._size * (self._size + 1) // 2
        draws = self.place(fixed_normals(1024, size, 0))
        return draws.mean(axis=0), draws.std(axis=0)

    @property
    @override
    def mean(self) -> Vector:
        return self._moments[0]

    @property
    @override
    def sd(self) -> Vector:
        return self._moments[1]


class ScaledNormal(AbstractPart):
    """Blocks w ~ N(location, L L' / tau), each with its tau: all w first, then all log tau.

    Attributes:
        location: of the w, shape (b, k).
        factor: lower-triangular L, shape (b, k, k).
        log_tau: densities of the b log tau.
    """

    location: np.ndarray
    factor: np.ndarray
    log_tau: LogGamma

    @property
    @override
    def mean(self) -> Vector:
        return np.append(self.location, self.log_tau.mean)

    @property
    @override
    def sd(self) -> Vector:
        a, b = self.log_tau.concentration, self.log_tau.rate
        inverse = b / np.where(a > 1.0, a - 1.0, a)
        return np.append(np.sqrt(inverse[:, None] * (self.factor**2).sum(axis=2)), self.log_tau.sd)

    @override
    def place(self, noise: Points) -> Points:
        size = self.location.size
        log_tau = self.log_tau.place(noise[:, size:])
        z = noise[:, :size].reshape(-1, *self.location.shape)
        away = np.einsum("bij,nbj->nbi", self.factor, z) * np.exp(-0.5 * log_tau)[..., None]
        return np.concatenate([(self.location + away).reshape(-1, size), log_tau], axis=1)

    @override
    def log_prob(self, points: Points) -> Float[np.ndarray, " n"]:
        size, k = self.location.size, self.location.shape[1]
        log_tau = points[:, size:]
        away = points[:, :size].reshape(-1, *self.location.shape) - self.location
        z = np.linalg.solve(self.factor, away.transpose(1, 2, 0))
        square = (z**2).sum(axis=1).T
        log_det = np.log(np.einsum("bii->bi", self.factor)).sum()
        normal = 0.5 * (k * (log_tau - LOG_2PI) - np.exp(log_tau) * square).sum(axis=1) - log_det
        return normal + self.log_tau.log_prob(log_tau)


class Tabulated(AbstractPart):
    """Independent densities tabulated on points of the real coordinate, log-linear in between.

    Attributes:
        points: increasing over the first axis, shape (g, k).
        log_density: normalised, shape (g, k).
    """

    points: np.ndarray
    log_density: np.ndarray

    @property
    def _mass(self) -> np.ndarray:
        gap, low, high = np.diff(self.points, axis=0), self.log_density[:-1], self.log_density[1:]
        step = high - low
        near = np.abs(step) < 1e-6
        ratio = np.where(near, 1.0 + 0.5 * step, np.expm1(step) / np.where(near, 1.0, step))
        return gap * np.exp(low) * ratio

    @property
    @override
    def mean(self) -> Vector:
        middle = 0.5 * (self.points[1:] + self.points[:-1])
        return (self._mass * middle).sum(axis=0) / self._mass.sum(axis=0)

    @property
    @override
    def sd(self) -> Vector:
        middle = 0.5 * (self.points[1:] + self.points[:-1])
        mass = self._mass / self._mass.sum(axis=0)
        return np.sqrt((mass * (middle - self.mean) ** 2).sum(axis=0))

    @override
    def place(self, noise: Points) -> Points:
        uniform, mass, found = special.ndtr(noise), self._mass, np.empty_like(noise)
        for j in range(noise.shape[1]):
            edges = np.concatenate([[0.0], np.cumsum(mass[:, j])])
            aim = uniform[:, j] * edges[-1]
            i = np.clip(np.searchsorted(edges, aim) - 1, 0, len(mass) - 1)
            share = np.clip((aim - edges[i]) / mass[i, j], 0.0, 1.0)
            gap = self.points[i + 1, j] - self.points[i, j]
            step = self.log_density[i + 1, j] - self.log_density[i, j]
            flat = np.abs(step) < 1e-6
            bent = np.log1p(share * np.expm1(step)) / np.where(flat, 1.0, step)
            found[:, j] = self.points[i, j] + gap * np.where(flat, share, bent)
        return found

    @override
    def log_prob(self, points: Points) -> Float[np.ndarray, " n"]:
        total = np.zeros(len(points))
        for j in range(points.shape[1]):
            total += np.interp(
                points[:, j], self.points[:, j], self.log_density[:, j], -np.inf, -np.inf
            )
        return total - np.log(self._mass.sum(axis=0)).sum()


class Product(AbstractDistribution):
    """Independent parts over groups of coordinates.

    Attributes:
        parts: densities, Gaussian or not.
        indices: the coordinates of each part.
    """

    parts: tuple[AbstractDistribution, ...]
    indices: tuple[np.ndarray, ...]

    @property
    @override
    def dim(self) -> int:
        return sum(len(i) for i in self.indices)

    def _joined(self, name: str) -> Vector:
        found = np.empty(self.dim)
        for part, index in zip(self.parts, self.indices, strict=True):
            found[index] = getattr(part, name)
        return found

    @property
    def mean(self) -> Vector:
        """Mean, (d,)."""
        return self._joined("mean")

    @property
    @override
    def sd(self) -> Vector:
        return self._joined("sd")

    def place(self, noise: Points) -> Points:
        """Turn standard normals into draws of q, shape (n, d)."""
        found = np.empty_like(noise)
        for part, index in zip(self.parts, self.indices, strict=True):
            found[:, index] = part.place(noise[:, index])  # type: ignore[attr-defined]
        return found

    def log_prob_of_noise(self, noise: Points) -> Float[np.ndarray, " n"]:
        """Log density of the draws that ``place`` makes of standard normals."""
        return self.log_prob(self.place(noise))

    @override
    def sample(self, rng: np.random.Generator, num_draws: int) -> Points:
        return self.place(rng.standard_normal((num_draws, self.dim)))

    @override
    def log_prob(self, points: Points) -> Float[np.ndarray, " n"]:
        total = np.zeros(len(points))
        for part, index in zip(self.parts, self.indices, strict=True):
            total += part.log_prob(points[:, index])
        return total


def nearest_gaussian(q: AbstractDistribution) -> AbstractGaussian:
    """A Gaussian with q's mean and scales; q itself if it is one.

    The covariance is kept within parts up to 2,000 coordinates, beyond only the scales are.
    """
    if isinstance(q, AbstractGaussian):
        return q
    mean = np.asarray(q.mean)  # type: ignore[attr-defined]
    if not isinstance(q, Product) or q.dim > MAX_DENSE:
        return DiagonalGaussian(mean, q.sd)
    factor = np.zeros((q.dim, q.dim))
    for part, index in zip(q.parts, q.indices, strict=True):
        dense = isinstance(part, AbstractGaussian)
        factor[np.ix_(index, index)] = part.covariance if dense else np.diag(part.sd**2)
    return DenseGaussian(mean, np.linalg.cholesky(factor))
