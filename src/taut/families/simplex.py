"""Exponential-family factors of probabilities."""

from typing import Any

import jax
import jax.numpy as jnp
from jax.scipy.special import digamma
from jaxtyping import Array
from typing_extensions import override

from taut._core.errors import ArgumentError
from taut.expectation.factor import AbstractContinuous, Parameters
from taut.families.factors import (
    MAX_LOGS,
    Number,
    all_true,
    build,
    draw_log_gamma,
    positive,
    real_power,
)
from taut.families.nodes import Nodes, beta_nodes
from taut.families.special import (
    HALF_LOG_2PI,
    binet,
    digamma_rise,
    gamma_entropy,
    gamma_power,
    trigamma,
    trigamma_defect,
)


def _beta_moment(
    concentrations: tuple[Array, Array], means: tuple[Array, Array],
    powers: tuple[Number, Number], logs: tuple[int, int],
) -> Array | None:  # fmt: skip
    """E[x^p log(x)^k (1-x)^r log(1-x)^l] with k + l <= 2, by differentiating B(a + p, b + r)."""
    if sum(logs) > MAX_LOGS:
        return None
    (a, b), (p, r) = concentrations, powers
    exists = (a + p > 0) & (b + r > 0)
    a, b = jnp.where(exists, a, abs(p) + 1.0), jnp.where(exists, b, abs(r) + 1.0)
    total = a + b
    scale = real_power(a / total, p) * real_power(b / total, r)
    scale = scale * gamma_power(a, p) * gamma_power(b, r) / gamma_power(total, p + r)
    fall = digamma_rise(total, p + r) if p or r else 0.0
    log_x = means[0] + (digamma_rise(a, p) if p else 0.0) - fall
    log_1mx = means[1] + (digamma_rise(b, r) if r else 0.0) - fall
    factor = {
        (0, 0): lambda: 1.0,
        (1, 0): lambda: log_x,
        (0, 1): lambda: log_1mx,
        (2, 0): lambda: log_x**2 + trigamma(a + p) - trigamma(total + p + r),
        (1, 1): lambda: log_x * log_1mx - trigamma(total + p + r),
        (0, 2): lambda: log_1mx**2 + trigamma(b + r) - trigamma(total + p + r),
    }[logs]()
    return jnp.where(exists, scale * factor, (-1.0) ** sum(logs) * jnp.inf)


def _dirichlet_entropy(concentration: Array) -> Array:
    """Entropies over the last axis, written through those of gamma variables: no cancellation."""
    total, size = jnp.sum(concentration, axis=-1), concentration.shape[-1]
    entropies = jnp.sum(gamma_entropy(concentration), axis=-1) - gamma_entropy(total)
    return entropies - (size - 1) * digamma(total)


def _dirichlet_log_prob(concentration: Array, logs: Array) -> Array:
    """Log densities over the last axis; Stirling's formula removes the large parts.

    ``logs`` are those of the point in the simplex, whose log(x_1 ... x_K) is subtracted.
    """
    total, size = jnp.sum(concentration, axis=-1), concentration.shape[-1]
    log_shares = jnp.log(concentration / total[..., None])
    terms = concentration * (logs - log_shares) - logs
    terms = terms + 0.5 * jnp.log(concentration) - binet(concentration)
    rest = binet(total) - 0.5 * jnp.log(total) - (size - 1) * HALF_LOG_2PI
    return jnp.sum(terms, axis=-1) + rest


def _dirichlet_solve(concentration: Array, cotangent: Array) -> Array:
    """Inverse Fisher information (diagonal minus rank one) times vectors over the last axis."""
    scaled = cotangent / trigamma(concentration)
    total = jnp.sum(concentration, axis=-1)
    # 1/trigamma(total) - sum of 1/trigamma(concentration), its linear parts cancelled.
    gap = jnp.sum(trigamma_defect(concentration), axis=-1) - trigamma_defect(total)
    shift = jnp.sum(scaled, axis=-1) / gap
    return scaled + shift[..., None] / trigamma(concentration)


class Beta(AbstractContinuous):
    """Beta: statistics (log x, log(1 - x)), natural parameter (a - 1, b - 1).

    Args:
        concentration1: a, positive, any shape; the mean is a / (a + b).
        concentration0: b, positive, broadcast against it.
    """

    natural: Parameters
    mean: Parameters

    def __init__(self, concentration1: Any, concentration0: Any) -> None:
        a = positive("Beta.concentration1", concentration1)
        a, b = jnp.broadcast_arrays(a, positive("Beta.concentration0", concentration0))
        self.natural = (a - 1.0, b - 1.0)
        self.mean = (-digamma_rise(a, b), -digamma_rise(b, a))

    @classmethod
    @override
    def from_natural(cls, natural: Parameters) -> "Beta":
        a, b = natural[0] + 1.0, natural[1] + 1.0
        return build(cls, natural=natural, mean=(-digamma_rise(a, b), -digamma_rise(b, a)))

    @property
    def concentration1(self) -> Array:
        """Shape a of x, above 0."""
        return self.natural[0] + 1.0

    @property
    def concentration0(self) -> Array:
        """Shape b of 1 - x, above 0."""
        return self.natural[1] + 1.0

    @property
    def _pair(self) -> Array:
        return jnp.stack([self.concentration1, self.concentration0], axis=-1)

    @property
    @override
    def shape(self) -> tuple[int, ...]:
        return self.natural[0].shape

    @override
    def is_proper(self) -> Array:
        return all_true(self.concentration1 > 0, self.concentration0 > 0)

    @override
    def gradient(self, cotangent: Any) -> Parameters:
        solved = _dirichlet_solve(self._pair, jnp.stack(cotangent.natural, axis=-1))
        return cotangent.mean[0] + solved[..., 0], cotangent.mean[1] + solved[..., 1]

    @property
    @override
    def entropy(self) -> Array:
        return jnp.sum(_dirichlet_entropy(self._pair))

    @override
    def log_prob(self, value: Array) -> Array:
        logs = jnp.stack([jnp.log(value), jnp.log1p(-value)], axis=-1)
        return jnp.sum(_dirichlet_log_prob(self._pair, logs))

    @override
    def sample(self, key: Array, num_draws: int) -> Array:
        keys = jax.random.split(key)
        logit = draw_log_gamma(keys[0], self.concentration1, num_draws)
        logit = logit - draw_log_gamma(keys[1], self.concentration0, num_draws)
        info = jnp.finfo(logit.dtype)
        return jnp.clip(jax.nn.sigmoid(logit), info.tiny, 1.0 - info.epsneg)

    @property
    @override
    def is_unit(self) -> bool:
        return True

    @override
    def moment(self, power: Number, logs: int, copower: Number, cologs: int) -> Array | None:
        concentrations = self.concentration1, self.concentration0
        means = self.mean[0], self.mean[1]
        return _beta_moment(concentrations, means, (power, copower), (logs, cologs))

    @override
    def grid(self, num_points: int) -> Nodes:
        return beta_nodes(self.concentration1, self.concentration0, num_points)


class Dirichlet(AbstractContinuous):
    """Dirichlet over the last axis: statistic log x, natural parameter alpha - 1.

    Args:
        concentration: alpha, positive, shape (..., K) with K at least 2.
    """

    natural: Parameters
    mean: Parameters

    def __init__(self, concentration: Any) -> None:
        alpha = positive("Dirichlet.concentration", concentration)
        if alpha.ndim == 0 or alpha.shape[-1] < 2:
            raise ArgumentError(
                "Dirichlet.concentration must have a last axis of two or more categories, "
                f"got shape {alpha.shape}; for one probability use families.Beta"
            )
        made = self.from_natural((alpha - 1.0,))
        self.natural, self.mean = made.natural, made.mean

    @classmethod
    @override
    def from_natural(cls, natural: Parameters) -> "Dirichlet":
        alpha = natural[0] + 1.0
        mean = -digamma_rise(alpha, jnp.sum(alpha, axis=-1, keepdims=True) - alpha)
        return build(cls, natural=natural, mean=(mean,))

    @property
    def concentration(self) -> Array:
        """alpha, shape (..., K)."""
        return self.natural[0] + 1.0

    @property
    def _rest(self) -> Array:
        """The second concentration of each element's beta marginal, shape (..., K)."""
        alpha = self.concentration
        return jnp.sum(alpha, axis=-1, keepdims=True) - alpha

    @property
    @override
    def shape(self) -> tuple[int, ...]:
        return self.natural[0].shape

    @override
    def is_proper(self) -> Array:
        return all_true(self.concentration > 0)

    @override
    def gradient(self, cotangent: Any) -> Parameters:
        solved = _dirichlet_solve(self.concentration, cotangent.natural[0])
        return (cotangent.mean[0] + solved,)

    @property
    @override
    def entropy(self) -> Array:
        return jnp.sum(_dirichlet_entropy(self.concentration))

    @override
    def log_prob(self, value: Array) -> Array:
        return jnp.sum(_dirichlet_log_prob(self.concentration, jnp.log(value)))

    @override
    def sample(self, key: Array, num_draws: int) -> Array:
        logs = draw_log_gamma(key, self.concentration, num_draws)
        return jnp.clip(jax.nn.softmax(logs, axis=-1), jnp.finfo(logs.dtype).tiny)

    @property
    @override
    def is_unit(self) -> bool:
        return True

    @override
    def moment(self, power: Number, logs: int, copower: Number, cologs: int) -> Array | None:
        rest = self._rest
        means = self.mean[0], -digamma_rise(rest, self.concentration) if cologs else self.mean[0]
        concentrations = self.concentration, rest
        return _beta_moment(concentrations, means, (power, copower), (logs, cologs))

    def pair(self) -> Array:
        """E[x_j x_k], shape (..., K, K)."""
        alpha = self.concentration
        total = jnp.sum(alpha, axis=-1)[..., None, None]
        mean = alpha / total[..., 0]
        products = mean[..., :, None] * alpha[..., None, :] / (total + 1.0)
        return products + jnp.eye(alpha.shape[-1]) * (mean / (total[..., 0] + 1.0))[..., None]

    @override
    def grid(self, num_points: int) -> Nodes:
        return beta_nodes(self.concentration, self._rest, num_points)
