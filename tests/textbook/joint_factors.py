"""Factors over several latents jointly: normal-gamma, normal-Wishart, and a Markov chain."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy import special, stats
from scipy.special import logsumexp, softmax

from textbook.factors import LOG_2PI, AbstractFactor, Categorical, Gamma, Wishart


@dataclass(frozen=True)
class NormalGamma(AbstractFactor):
    """tau ~ Gamma(a, b), mu | tau ~ N(mean, 1 / (kappa tau)), elementwise. PRML 2.154.

    Draws are (mu, tau).
    """

    mean: Any
    kappa: Any
    a: Any
    b: Any

    @property
    def tau(self) -> Gamma:
        """The marginal of tau."""
        return Gamma(self.a, self.b)

    def mean_log_prob(self, q: "NormalGamma") -> float:
        away = 1.0 / q.kappa + q.tau.mean * (np.asarray(q.mean) - self.mean) ** 2
        normal = 0.5 * (np.log(self.kappa) - LOG_2PI + q.tau.log - self.kappa * away)
        return float(np.sum(normal)) + self.tau.mean_log_prob(q.tau)

    def log_prob(self, *values: np.ndarray) -> np.ndarray:
        mu, tau = values
        normal = stats.norm(self.mean, 1.0 / np.sqrt(self.kappa * tau)).logpdf(mu)
        return normal.reshape(len(mu), -1).sum(axis=1) + self.tau.log_prob(tau)

    def draw(self, rng: np.random.Generator, num: int) -> tuple[np.ndarray, np.ndarray]:
        tau = self.tau.draw(rng, num)
        return rng.normal(self.mean, 1.0 / np.sqrt(self.kappa * tau)), tau

    def nudged(self, rng: np.random.Generator, size: float) -> "NormalGamma":
        noise = size * rng.standard_normal((4, *np.shape(self.mean)))
        scale = np.exp(noise[1:])
        mean = self.mean + noise[0]
        return NormalGamma(mean, self.kappa * scale[0], self.a * scale[1], self.b * scale[2])


@dataclass(frozen=True)
class NormalWishart(AbstractFactor):
    """Lambda ~ Wishart(df, scale), mu | Lambda ~ N(mean, (kappa Lambda)^-1). PRML 2.157.

    Draws are (mu, Lambda). Shapes: mean (..., d), kappa and df (...), scale (..., d, d).
    """

    mean: np.ndarray
    kappa: Any
    df: Any
    scale: np.ndarray

    @property
    def precision(self) -> Wishart:
        """The marginal of Lambda."""
        return Wishart(self.df, self.scale)

    def mean_log_prob(self, q: "NormalWishart") -> float:
        d, away = self.mean.shape[-1], q.mean - self.mean
        square = d / q.kappa + np.einsum("...i,...ij,...j->...", away, q.precision.mean, away)
        normal = 0.5 * (d * (np.log(self.kappa) - LOG_2PI) + q.precision.log_det)
        normal = normal - 0.5 * self.kappa * square
        return float(np.sum(normal)) + self.precision.mean_log_prob(q.precision)

    def log_prob(self, *values: np.ndarray) -> np.ndarray:
        mu, precision = values
        total = self.precision.log_prob(precision)
        for n, *at in np.ndindex(mu.shape[:-1]):
            part = tuple(at)
            covariance = np.linalg.inv(np.asarray(self.kappa)[part] * precision[(n, *at)])
            one = stats.multivariate_normal(self.mean[part], covariance)
            total[n] += one.logpdf(mu[(n, *at)])
        return total

    def draw(self, rng: np.random.Generator, num: int) -> tuple[np.ndarray, np.ndarray]:
        precision = self.precision.draw(rng, num)
        covariance = np.linalg.inv(np.asarray(self.kappa)[..., None, None] * precision)
        noise = rng.standard_normal((num, *self.mean.shape))
        away = np.einsum("...ij,...j->...i", np.linalg.cholesky(covariance), noise)
        return self.mean + away, precision

    def nudged(self, rng: np.random.Generator, size: float) -> "NormalWishart":
        mean = self.mean + size * rng.standard_normal(self.mean.shape)
        kappa = self.kappa * np.exp(size * rng.standard_normal(np.shape(self.kappa)))
        precision = self.precision.nudged(rng, size)
        return NormalWishart(mean, kappa, precision.df, precision.scale)


@dataclass(frozen=True)
class Chain(AbstractFactor):
    """A Markov chain over labels: initial (k,), conditional transitions (t - 1, k, k).

    Draws are a tuple of t arrays (n,), one for each time.
    """

    initial: np.ndarray
    transitions: np.ndarray

    @staticmethod
    def from_potentials(initial: Any, transition: Any, emission: np.ndarray) -> "Chain":
        """Normalise exp(initial[z0] + sum transition[z, z'] + sum emission[t, z]).

        The backward pass of forward-backward in the log domain, PRML 13.2.2. The forward pass
        is in :attr:`marginals`.

        Args:
            initial: logits, (k,).
            transition: logits, (k, k).
            emission: logits, (t, k).
        """
        message, conditionals = np.zeros(emission.shape[1]), []
        for t in range(len(emission) - 1, 0, -1):
            logits = transition + emission[t] + message  # (from, to)
            conditionals.append(softmax(logits, axis=1))
            message = logsumexp(logits, axis=1)
        return Chain(softmax(initial + emission[0] + message), np.stack(conditionals[::-1]))

    @property
    def marginals(self) -> np.ndarray:
        """q(z_t), (t, k)."""
        found = [self.initial]
        for transition in self.transitions:
            found.append(found[-1] @ transition)
        return np.stack(found)

    @property
    def pairs(self) -> np.ndarray:
        """q(z_t, z_{t+1}), (t - 1, k, k)."""
        return self.marginals[:-1, :, None] * self.transitions

    def mean_log_prob(self, q: "Chain") -> float:
        first = np.sum(special.xlogy(q.initial, self.initial))
        return float(first + np.sum(special.xlogy(q.pairs, self.transitions)))

    def log_prob(self, *values: np.ndarray) -> np.ndarray:
        total = np.log(self.initial[values[0]])
        for t, transition in enumerate(self.transitions):
            total = total + np.log(transition[values[t], values[t + 1]])
        return total

    def draw(self, rng: np.random.Generator, num: int) -> tuple[np.ndarray, ...]:
        labels = [Categorical(self.initial).draw(rng, num)]
        for transition in self.transitions:
            edges = np.cumsum(transition, axis=1)[labels[-1], :-1]
            labels.append(np.sum(rng.uniform(size=(num, 1)) > edges, axis=1))
        return tuple(labels)

    def nudged(self, rng: np.random.Generator, size: float) -> "Chain":
        first = Categorical(self.initial).nudged(rng, size).probs
        return Chain(first, Categorical(self.transitions).nudged(rng, size).probs)
