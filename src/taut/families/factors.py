r"""Exponential-family factors of positive latents, and what factors have in common.

All have carrier measure 1, so the natural parameter of an optimal factor is the gradient of the
expected log joint with respect to the factor's mean parameter; see
:mod:`taut.expectation.factor`. Moments are written as a power of a mean parameter times a function
near one, so that little is left for the inverse Fisher information to amplify.

Source: Wainwright and Jordan (2008), section 3; Nielsen and Garcia (2009), Statistical
exponential families: a digest with flash cards.
"""

from typing import Any, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jax.scipy.special import digamma
from jaxtyping import Array
from typing_extensions import override

from taut._core.errors import ArgumentError
from taut.expectation.factor import AbstractContinuous, AbstractFactor, Parameters
from taut.families.nodes import Nodes, gamma_nodes
from taut.families.special import (
    HALF_LOG_2PI,
    binet,
    digamma_rise,
    gamma_entropy,
    gamma_power,
    trigamma,
    trigamma_excess,
)

Member = TypeVar("Member", bound=AbstractFactor)
Number = float | int
MAX_LOGS = 2


def build(cls: type[Member], **fields: Any) -> Member:
    """Make a factor from its fields, without the checks of its constructor."""
    self = object.__new__(cls)
    for name, value in fields.items():
        object.__setattr__(self, name, value)
    return self


def is_concrete(value: Any) -> bool:
    """Whether the values of an array are known, so that they can be checked."""
    return not isinstance(value, Tracer)


def positive(what: str, value: Any) -> Array:
    """The argument as an array; an error if an element is known not to be positive and finite."""
    array = jnp.asarray(value, dtype=float)
    if is_concrete(array):
        known = np.asarray(array)
        wrong = known[~((known > 0) & np.isfinite(known))]
        if wrong.size:
            name = what.split(".")[-1]
            raise ArgumentError(
                f"{what} must be positive and finite, got {wrong.flat[0]:g}; "
                f"look at how {name} is computed"
            )
    return array


def all_true(*conditions: Array) -> Array:
    """Whether everything holds: one boolean."""
    return jnp.all(jnp.stack([jnp.all(c) for c in conditions]))


# --- gamma and inverse gamma ------------------------------------------------------------------


def _gamma_moment(
    concentration: Array, mean_log: Array, mean: Array, power: Number, logs: int
) -> Array:
    """E[x^power log(x)^logs] of a gamma variable, by differentiating Gamma(a + p) in p."""
    exists = concentration + power > 0
    a = jnp.where(exists, concentration, abs(power) + 1.0)
    log_x = mean_log if power == 0 else mean_log + digamma_rise(a, power)
    scale = real_power(mean, power) * gamma_power(a, power)
    factor = (1.0, log_x, log_x**2 + trigamma(a + power) if logs == 2 else 0.0)[logs]
    return jnp.where(exists, scale * factor, (-1.0) ** logs * jnp.inf)


def real_power(x: Array, power: Number) -> Array:
    """x^power, as a product where the power is an integer."""
    return x ** (int(power) if float(power).is_integer() else float(power))


def _gamma_entropy(concentration: Array, rate: Array, sign: float) -> Array:
    """Entropy of x (sign 1) or of 1/x (sign -1), for x ~ Gamma."""
    entropy = gamma_entropy(concentration) - jnp.log(rate)
    if sign < 0:  # the Jacobian of 1/x
        entropy = entropy - 2.0 * (digamma(concentration) - jnp.log(rate))
    return jnp.sum(entropy)


def _gamma_log_prob(concentration: Array, rate: Array, value: Array) -> Array:
    """Elementwise log density times the value; Stirling's formula removes the large parts."""
    a, excess = concentration, (rate * value - concentration) / concentration
    kernel = jnp.log1p(excess) - excess
    return a * kernel + 0.5 * jnp.log(a) - HALF_LOG_2PI - binet(a)


def _gamma_solve(concentration: Array, rate: Array, cotangent: Parameters) -> tuple[Array, Array]:
    """Inverse Fisher information of (log x, x) times a vector."""
    a, b, (c1, c2) = concentration, rate, cotangent
    det = trigamma_excess(a)  # times 1/b^2
    first = (a * c1 - b * c2) / det
    return first, b * (b * c2 - first) / a


def draw_log_gamma(key: Array, concentration: Array, num_draws: int) -> Array:
    """Logarithms of Gamma(concentration, 1) draws, shape (num_draws, ...)."""
    return jax.random.loggamma(key, concentration, (num_draws, *concentration.shape))


class Gamma(AbstractContinuous):
    """Gamma(concentration, rate): statistics (log x, x), natural parameter (a - 1, -b).

    Args:
        concentration: a, positive, any shape.
        rate: b, positive, broadcast against it.
    """

    natural: Parameters
    mean: Parameters

    def __init__(self, concentration: Any, rate: Any) -> None:
        a, b = positive("Gamma.concentration", concentration), positive("Gamma.rate", rate)
        a, b = jnp.broadcast_arrays(a, b)
        self.natural = (a - 1.0, -b)
        self.mean = (digamma(a) - jnp.log(b), a / b)

    @classmethod
    @override
    def from_natural(cls, natural: Parameters) -> "Gamma":
        a, b = natural[0] + 1.0, -natural[1]
        return build(cls, natural=natural, mean=(digamma(a) - jnp.log(b), a / b))

    @property
    def concentration(self) -> Array:
        """Shape a, above 0."""
        return self.natural[0] + 1.0

    @property
    def rate(self) -> Array:
        """Rate b, above 0."""
        return -self.natural[1]

    @property
    @override
    def shape(self) -> tuple[int, ...]:
        return self.natural[0].shape

    @override
    def is_proper(self) -> Array:
        return all_true(self.concentration > 0, self.rate > 0)

    @override
    def gradient(self, cotangent: Any) -> Parameters:
        solved = _gamma_solve(self.concentration, self.rate, cotangent.natural)
        return cotangent.mean[0] + solved[0], cotangent.mean[1] + solved[1]

    @property
    @override
    def entropy(self) -> Array:
        return _gamma_entropy(self.concentration, self.rate, 1.0)

    @override
    def log_prob(self, value: Array) -> Array:
        terms = _gamma_log_prob(self.concentration, self.rate, value) - jnp.log(value)
        return jnp.sum(terms)

    @override
    def sample(self, key: Array, num_draws: int) -> Array:
        log_x = draw_log_gamma(key, self.concentration, num_draws) - jnp.log(self.rate)
        return jnp.clip(jnp.exp(log_x), jnp.finfo(log_x.dtype).tiny)

    @override
    def moment(self, power: Number, logs: int, copower: Number, cologs: int) -> Array | None:
        if copower or cologs or logs > MAX_LOGS:
            return None
        mean_log, mean = self.mean
        return _gamma_moment(self.concentration, mean_log, mean, power, logs)

    @override
    def grid(self, num_points: int) -> Nodes:
        return gamma_nodes(self.concentration, self.rate, num_points)


class InverseGamma(AbstractContinuous):
    """1/x is Gamma(concentration, rate): statistics (log x, 1/x), natural (-a - 1, -b).

    Args:
        concentration: a, positive, any shape.
        rate: b, positive, broadcast against it; the scale of x.
    """

    natural: Parameters
    mean: Parameters

    def __init__(self, concentration: Any, rate: Any) -> None:
        a = positive("InverseGamma.concentration", concentration)
        a, b = jnp.broadcast_arrays(a, positive("InverseGamma.rate", rate))
        self.natural = (-a - 1.0, -b)
        self.mean = (jnp.log(b) - digamma(a), a / b)

    @classmethod
    @override
    def from_natural(cls, natural: Parameters) -> "InverseGamma":
        a, b = -natural[0] - 1.0, -natural[1]
        return build(cls, natural=natural, mean=(jnp.log(b) - digamma(a), a / b))

    @property
    def concentration(self) -> Array:
        """Shape a, above 0."""
        return -self.natural[0] - 1.0

    @property
    def rate(self) -> Array:
        """Rate b, above 0."""
        return -self.natural[1]

    @property
    @override
    def shape(self) -> tuple[int, ...]:
        return self.natural[0].shape

    @override
    def is_proper(self) -> Array:
        return all_true(self.concentration > 0, self.rate > 0)

    @override
    def gradient(self, cotangent: Any) -> Parameters:
        first, second = cotangent.natural
        solved = _gamma_solve(self.concentration, self.rate, (-first, second))
        return cotangent.mean[0] - solved[0], cotangent.mean[1] + solved[1]

    @property
    @override
    def entropy(self) -> Array:
        return _gamma_entropy(self.concentration, self.rate, -1.0)

    @override
    def log_prob(self, value: Array) -> Array:
        terms = _gamma_log_prob(self.concentration, self.rate, 1.0 / value) - jnp.log(value)
        return jnp.sum(terms)

    @override
    def sample(self, key: Array, num_draws: int) -> Array:
        log_x = jnp.log(self.rate) - draw_log_gamma(key, self.concentration, num_draws)
        return jnp.clip(jnp.exp(log_x), max=jnp.finfo(log_x.dtype).max)

    @override
    def moment(self, power: Number, logs: int, copower: Number, cologs: int) -> Array | None:
        if copower or cologs or logs > MAX_LOGS:
            return None
        mean_log, mean = self.mean
        value = _gamma_moment(self.concentration, -mean_log, mean, -power, logs)
        return -value if logs % 2 else value

    @override
    def grid(self, num_points: int) -> Nodes:
        points, probs = gamma_nodes(self.concentration, self.rate, num_points)
        return Nodes(1.0 / points, probs)
