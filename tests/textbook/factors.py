"""Variational factors of the textbooks in plain NumPy, with the moments that updates need.

Formulas: Bishop (2006), Pattern Recognition and Machine Learning, appendix B. Each factor gives

- ``mean_log_prob(q)``: E_q[log of this density] when x ~ q, q of the same class, summed over
  elements, in nats. Entropy is minus its value at q itself.
- ``log_prob(x)``: log density of draws x, (n, *shape) -> (n,), through SciPy: another way.
- ``draw(rng, n)``: (n, *shape). A joint factor draws a tuple, one array for each latent.
- ``nudged(rng, size)``: a factor nearby, for tests of stationarity.
"""

import abc
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy import special, stats
from scipy.special import digamma, gammaln, multigammaln, softmax

LOG_2PI = np.log(2.0 * np.pi)


def _scaled(x: Any, rng: np.random.Generator, size: float) -> np.ndarray:
    return np.asarray(x) * np.exp(size * rng.standard_normal(np.shape(x)))


def _moved(x: Any, rng: np.random.Generator, size: float) -> np.ndarray:
    return np.asarray(x) + size * rng.standard_normal(np.shape(x))


def _bent(matrix: np.ndarray, rng: np.random.Generator, size: float) -> np.ndarray:
    """Positive-definite matrices near the given ones."""
    bend = np.eye(matrix.shape[-1]) + size * rng.standard_normal(matrix.shape)
    return bend @ matrix @ np.swapaxes(bend, -1, -2)


def _outer(x: np.ndarray) -> np.ndarray:
    return x[..., :, None] * x[..., None, :]


def _total(x: Any) -> np.ndarray:
    """Sum over every axis but the first, the draws."""
    return np.asarray(x).reshape(len(x), -1).sum(axis=1)


class AbstractFactor(abc.ABC):
    """A distribution over one latent, or over several jointly."""

    @abc.abstractmethod
    def mean_log_prob(self, q: Any) -> float:
        """E_q[log density of self], in nats."""

    @abc.abstractmethod
    def log_prob(self, *values: np.ndarray) -> np.ndarray:
        """Log density of draws, (n,), in nats."""

    @abc.abstractmethod
    def draw(self, rng: np.random.Generator, num: int) -> Any:
        """Independent draws, (num, *shape)."""

    @abc.abstractmethod
    def nudged(self, rng: np.random.Generator, size: float) -> "AbstractFactor":
        """A nearby distribution."""

    def entropy(self) -> float:
        """Entropy in nats."""
        return -self.mean_log_prob(self)


@dataclass(frozen=True)
class Normal(AbstractFactor):
    """Independent normals: mean and variance of the latent's shape."""

    mean: Any
    variance: Any

    @property
    def second(self) -> np.ndarray:
        """E[x^2]."""
        return np.asarray(self.mean) ** 2 + self.variance

    def mean_log_prob(self, q: "Normal") -> float:
        away = q.variance + (np.asarray(q.mean) - self.mean) ** 2
        return float(np.sum(-0.5 * (LOG_2PI + np.log(self.variance) + away / self.variance)))

    def log_prob(self, *values: np.ndarray) -> np.ndarray:
        return _total(stats.norm(self.mean, np.sqrt(self.variance)).logpdf(values[0]))

    def draw(self, rng: np.random.Generator, num: int) -> np.ndarray:
        return rng.normal(self.mean, np.sqrt(self.variance), (num, *np.shape(self.mean)))

    def nudged(self, rng: np.random.Generator, size: float) -> "Normal":
        return Normal(_moved(self.mean, rng, size), _scaled(self.variance, rng, size))


@dataclass(frozen=True)
class Gaussian(AbstractFactor):
    """Multivariate normals: mean (..., d), covariance (..., d, d)."""

    mean: np.ndarray
    covariance: np.ndarray

    @property
    def second(self) -> np.ndarray:
        """E[x x'], (..., d, d)."""
        return self.covariance + _outer(self.mean)

    def mean_log_prob(self, q: "Gaussian") -> float:
        away = q.covariance + _outer(q.mean - self.mean)
        square = np.sum(np.linalg.inv(self.covariance) * away, axis=(-1, -2))
        log_det = np.linalg.slogdet(self.covariance)[1]
        return float(np.sum(-0.5 * (q.mean.shape[-1] * LOG_2PI + log_det + square)))

    def log_prob(self, *values: np.ndarray) -> np.ndarray:
        total = np.zeros(len(values[0]))
        for at in np.ndindex(self.mean.shape[:-1]):
            one = stats.multivariate_normal(self.mean[at], self.covariance[at])
            total += one.logpdf(values[0][(slice(None), *at)])
        return total

    def draw(self, rng: np.random.Generator, num: int) -> np.ndarray:
        noise = rng.standard_normal((num, *self.mean.shape))
        return self.mean + np.einsum(
            "...ij,n...j->n...i", np.linalg.cholesky(self.covariance), noise
        )

    def nudged(self, rng: np.random.Generator, size: float) -> "Gaussian":
        return Gaussian(_moved(self.mean, rng, size), _bent(self.covariance, rng, size))


@dataclass(frozen=True)
class Gamma(AbstractFactor):
    """Gamma: concentration a, rate b. PRML B.26."""

    a: Any
    b: Any

    @property
    def mean(self) -> Any:
        """E[x]."""
        return self.a / self.b

    @property
    def log(self) -> Any:
        """E[log x]."""
        return digamma(self.a) - np.log(self.b)

    def mean_log_prob(self, q: "Gamma") -> float:
        constant = self.a * np.log(self.b) - gammaln(self.a)
        return float(np.sum(constant + (self.a - 1.0) * q.log - self.b * q.mean))

    def log_prob(self, *values: np.ndarray) -> np.ndarray:
        return _total(stats.gamma(self.a, scale=1.0 / np.asarray(self.b)).logpdf(values[0]))

    def draw(self, rng: np.random.Generator, num: int) -> np.ndarray:
        shape = np.broadcast_shapes(np.shape(self.a), np.shape(self.b))
        return rng.gamma(self.a, 1.0 / np.asarray(self.b), (num, *shape))

    def nudged(self, rng: np.random.Generator, size: float) -> "Gamma":
        return Gamma(_scaled(self.a, rng, size), _scaled(self.b, rng, size))


@dataclass(frozen=True)
class InverseGamma(AbstractFactor):
    """1 / x ~ Gamma(a, b)."""

    a: Any
    b: Any

    def mean_log_prob(self, q: "InverseGamma") -> float:
        constant = self.a * np.log(self.b) - gammaln(self.a)
        log, inverse = np.log(q.b) - digamma(q.a), q.a / q.b
        return float(np.sum(constant - (self.a + 1.0) * log - self.b * inverse))

    def log_prob(self, *values: np.ndarray) -> np.ndarray:
        return _total(stats.invgamma(self.a, scale=self.b).logpdf(values[0]))

    def draw(self, rng: np.random.Generator, num: int) -> np.ndarray:
        return 1.0 / Gamma(self.a, self.b).draw(rng, num)

    def nudged(self, rng: np.random.Generator, size: float) -> "InverseGamma":
        return InverseGamma(_scaled(self.a, rng, size), _scaled(self.b, rng, size))


@dataclass(frozen=True)
class Beta(AbstractFactor):
    """Beta: a counts ones, b counts zeros. PRML B.6."""

    a: Any
    b: Any

    @property
    def log(self) -> Any:
        """E[log x]."""
        return digamma(self.a) - digamma(np.add(self.a, self.b))

    @property
    def log_rest(self) -> Any:
        """E[log(1 - x)]."""
        return digamma(self.b) - digamma(np.add(self.a, self.b))

    def mean_log_prob(self, q: "Beta") -> float:
        logs = (self.a - 1.0) * q.log + (self.b - 1.0) * q.log_rest
        return float(np.sum(logs - special.betaln(self.a, self.b)))

    def log_prob(self, *values: np.ndarray) -> np.ndarray:
        return _total(stats.beta(self.a, self.b).logpdf(values[0]))

    def draw(self, rng: np.random.Generator, num: int) -> np.ndarray:
        return rng.beta(self.a, self.b, (num, *np.shape(self.a)))

    def nudged(self, rng: np.random.Generator, size: float) -> "Beta":
        return Beta(_scaled(self.a, rng, size), _scaled(self.b, rng, size))


@dataclass(frozen=True)
class Dirichlet(AbstractFactor):
    """Dirichlet: concentration (..., k). PRML B.16."""

    a: np.ndarray

    @property
    def log(self) -> np.ndarray:
        """E[log x], (..., k)."""
        return digamma(self.a) - digamma(self.a.sum(axis=-1, keepdims=True))

    def mean_log_prob(self, q: "Dirichlet") -> float:
        a = np.broadcast_to(self.a, q.a.shape)
        constant = gammaln(a.sum(axis=-1)) - gammaln(a).sum(axis=-1)
        return float(np.sum(constant + np.sum((a - 1.0) * q.log, axis=-1)))

    def log_prob(self, *values: np.ndarray) -> np.ndarray:
        total = np.zeros(len(values[0]))
        for at in np.ndindex(self.a.shape[:-1]):
            total += stats.dirichlet(self.a[at]).logpdf(values[0][(slice(None), *at)].T)
        return total

    def draw(self, rng: np.random.Generator, num: int) -> np.ndarray:
        gammas = rng.standard_gamma(self.a, (num, *self.a.shape))
        return gammas / gammas.sum(axis=-1, keepdims=True)

    def nudged(self, rng: np.random.Generator, size: float) -> "Dirichlet":
        return Dirichlet(_scaled(self.a, rng, size))


@dataclass(frozen=True)
class Wishart(AbstractFactor):
    """Wishart: degrees of freedom (...), scale (..., d, d); mean df * scale. PRML B.78."""

    df: Any
    scale: np.ndarray

    @property
    def mean(self) -> np.ndarray:
        """E[X]."""
        return np.asarray(self.df)[..., None, None] * self.scale

    @property
    def log_det(self) -> np.ndarray:
        """E[log det X]; PRML B.81."""
        d = self.scale.shape[-1]
        halves = 0.5 * (np.asarray(self.df)[..., None] - np.arange(d))
        constant = d * np.log(2.0) + np.linalg.slogdet(self.scale)[1]
        return digamma(halves).sum(axis=-1) + constant

    def mean_log_prob(self, q: "Wishart") -> float:
        d = self.scale.shape[-1]
        log_det = np.linalg.slogdet(self.scale)[1]
        constant = -0.5 * self.df * (d * np.log(2.0) + log_det) - multigammaln(0.5 * self.df, d)
        trace = np.sum(np.linalg.inv(self.scale) * q.mean, axis=(-1, -2))
        return float(np.sum(constant + 0.5 * (self.df - d - 1.0) * q.log_det - 0.5 * trace))

    def log_prob(self, *values: np.ndarray) -> np.ndarray:
        total, x = np.zeros(len(values[0])), np.moveaxis(values[0], 0, -1)
        for at in np.ndindex(np.shape(self.df)):
            total += stats.wishart(np.asarray(self.df)[at], self.scale[at]).logpdf(x[at])
        return total

    def draw(self, rng: np.random.Generator, num: int) -> np.ndarray:
        """Bartlett's decomposition."""
        df, d = np.asarray(self.df), self.scale.shape[-1]
        root = np.tril(rng.standard_normal((num, *self.scale.shape)), -1)
        chi = rng.chisquare(df[..., None] - np.arange(d), (num, *df.shape, d))
        root[..., np.arange(d), np.arange(d)] = np.sqrt(chi)
        root = np.linalg.cholesky(self.scale) @ root
        return root @ np.swapaxes(root, -1, -2)

    def nudged(self, rng: np.random.Generator, size: float) -> "Wishart":
        return Wishart(_scaled(self.df, rng, size), _bent(self.scale, rng, size))


@dataclass(frozen=True)
class Categorical(AbstractFactor):
    """Labels: probs (..., k)."""

    probs: np.ndarray

    @staticmethod
    def from_logits(logits: np.ndarray) -> "Categorical":
        """Normalise exp(logits) over the last axis."""
        return Categorical(softmax(logits, axis=-1))

    def mean_log_prob(self, q: "Categorical") -> float:
        return float(np.sum(special.xlogy(q.probs, self.probs)))

    def log_prob(self, *values: np.ndarray) -> np.ndarray:
        of_value = np.take_along_axis(self.probs[None], values[0][..., None], axis=-1)
        return _total(np.log(of_value))

    def draw(self, rng: np.random.Generator, num: int) -> np.ndarray:
        uniform = rng.uniform(size=(num, *self.probs.shape[:-1], 1))
        edges = np.cumsum(self.probs, axis=-1)[..., :-1]
        return np.sum(uniform > edges, axis=-1)

    def nudged(self, rng: np.random.Generator, size: float) -> "Categorical":
        weights = _scaled(self.probs, rng, size)
        return Categorical(weights / weights.sum(axis=-1, keepdims=True))
