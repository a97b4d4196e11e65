"""Likelihoods of numbers."""

import dataclasses
import math
from typing import ClassVar

import jax
import jax.numpy as jnp
import numpy as np
from jax.scipy.special import gammaln, ndtr
from jaxtyping import Array
from typing_extensions import override

from taut._core.errors import ArgumentError, ModelError
from taut.networks.likelihoods import (
    AbstractRegression,
    Params,
    check_rows,
    drawn,
)
from taut.networks.propagate import Gaussian

HALF_LOG_2PI = 0.9189385332046727
LOG_SCALE_BOUND = 7.0  # heteroscedastic sds lie between e^-7 and e^7 of the targets' own sd
START_LOG_SCALE = -1.0  # noise sd at the start, log of a share of the targets' own sd


@dataclasses.dataclass(frozen=True)
class Normal(AbstractRegression):
    """Targets are the output plus Gaussian noise of one sd for each element of a target.

    Attributes:
        noise: standard deviation of the noise, in the units of y; None learns it by maximising
            the ELBO.
    """

    noise: float | None = None
    name: ClassVar[str] = "normal"
    standardised: ClassVar[bool] = True

    def __post_init__(self) -> None:
        """Check the noise."""
        if self.noise is not None and not (self.noise > 0 and math.isfinite(self.noise)):
            raise ArgumentError(f"noise must be positive and finite, or None, got {self.noise}")

    @override
    def targets(self, y: np.ndarray, output_shape: tuple[int, ...]) -> np.ndarray:
        return _real_targets(y, math.prod(output_shape), self.name, output_shape)

    @override
    def start(self, y: np.ndarray, scale: np.ndarray) -> tuple[Params, Params]:
        if self.noise is None:
            return {"log_scale": jnp.full(y.shape[1], START_LOG_SCALE)}, {}
        known = np.log(self.noise / np.broadcast_to(scale, y.shape[1]))
        return {}, {"log_scale": jnp.asarray(known)}

    @override
    def log_prob(self, output: Array, y: Array, params: Params) -> Array:
        return _normal_log_prob(_vector(output), params["log_scale"], y)

    @override
    def expected_log_prob(self, output: Gaussian, y: Array, params: Params, noise: Array) -> Array:
        spread = jnp.sum(_vector(output.variance) * jnp.exp(-2 * params["log_scale"]))
        return self.log_prob(output.mean, y, params) - 0.5 * spread

    @override
    def fisher(self, output: Array, params: Params) -> Array:
        precision = jnp.exp(-2 * params["log_scale"])
        return jnp.diag(jnp.broadcast_to(precision, _vector(output).shape))

    @override
    def sample(self, output: Array, params: Params, key: Array) -> Array:
        mean = _vector(output)
        noise = jax.random.normal(key, mean.shape, mean.dtype)
        return mean + jnp.exp(params["log_scale"]) * noise

    @override
    def mean(self, output: Array, params: Params) -> Array:
        return _vector(output)

    @override
    def variance(self, output: Array, params: Params) -> Array:
        return jnp.broadcast_to(jnp.exp(2 * params["log_scale"]), _vector(output).shape)

    @override
    def cdf(self, output: Array, y: Array, params: Params) -> Array:
        return ndtr((y - _vector(output)) * jnp.exp(-params["log_scale"]))


@dataclasses.dataclass(frozen=True)
class Heteroscedastic(AbstractRegression):
    """Gaussian noise whose sd depends on the input: the module emits means, then log sds.

    The log sd is bounded smoothly, at plus and minus 7 of the targets' own.
    """

    name: ClassVar[str] = "heteroscedastic"
    separable: ClassVar[bool] = False
    standardised: ClassVar[bool] = True

    @override
    def targets(self, y: np.ndarray, output_shape: tuple[int, ...]) -> np.ndarray:
        return _real_targets(y, math.prod(output_shape), self.name, output_shape)

    @override
    def start(self, y: np.ndarray, scale: np.ndarray) -> tuple[Params, Params]:
        return {}, {}

    @override
    def log_prob(self, output: Array, y: Array, params: Params) -> Array:
        mean, log_scale = _mean_and_log_scale(output)
        return _normal_log_prob(mean, log_scale, y)

    @override
    def expected_log_prob(self, output: Gaussian, y: Array, params: Params, noise: Array) -> Array:
        # Exact in the mean, by one draw in the log scale.
        _, log_scale = _mean_and_log_scale(drawn(output, noise))
        mean, variance = (jnp.split(_vector(x), 2)[0] for x in output)
        spread = jnp.sum(variance * jnp.exp(-2 * log_scale))
        return _normal_log_prob(mean, log_scale, y) - 0.5 * spread

    @override
    def fisher(self, output: Array, params: Params) -> Array:
        _, log_scale = _mean_and_log_scale(output)
        raw = jnp.split(_vector(output), 2)[1]
        slope = 1.0 - jnp.tanh(raw / LOG_SCALE_BOUND) ** 2
        return jnp.diag(jnp.concatenate([jnp.exp(-2 * log_scale), 2.0 * slope**2]))

    @override
    def sample(self, output: Array, params: Params, key: Array) -> Array:
        mean, log_scale = _mean_and_log_scale(output)
        return mean + jnp.exp(log_scale) * jax.random.normal(key, mean.shape, mean.dtype)

    @override
    def mean(self, output: Array, params: Params) -> Array:
        return _mean_and_log_scale(output)[0]

    @override
    def variance(self, output: Array, params: Params) -> Array:
        return jnp.exp(2 * _mean_and_log_scale(output)[1])

    @override
    def cdf(self, output: Array, y: Array, params: Params) -> Array:
        mean, log_scale = _mean_and_log_scale(output)
        return ndtr((y - mean) * jnp.exp(-log_scale))


def _mean_and_log_scale(output: Array) -> tuple[Array, Array]:
    mean, raw = jnp.split(_vector(output), 2)
    return mean, LOG_SCALE_BOUND * jnp.tanh(raw / LOG_SCALE_BOUND)


@dataclasses.dataclass(frozen=True)
class Poisson(AbstractRegression):
    """Counts whose log mean is the output."""

    name: ClassVar[str] = "poisson"

    @override
    def targets(self, y: np.ndarray, output_shape: tuple[int, ...]) -> np.ndarray:
        flat = _real_targets(y, math.prod(output_shape), self.name, output_shape)
        check_rows(flat, (flat >= 0) & (flat == np.round(flat)), "a count: 0, 1, 2, ...")
        return flat

    @override
    def start(self, y: np.ndarray, scale: np.ndarray) -> tuple[Params, Params]:
        return {}, {}

    @override
    def log_prob(self, output: Array, y: Array, params: Params) -> Array:
        log_rate = _vector(output)
        return jnp.sum(y * log_rate - jnp.exp(log_rate) - gammaln(y + 1))

    @override
    def expected_log_prob(self, output: Gaussian, y: Array, params: Params, noise: Array) -> Array:
        mean, variance = map(_vector, output)
        return jnp.sum(y * mean - jnp.exp(mean + 0.5 * variance) - gammaln(y + 1))

    @override
    def fisher(self, output: Array, params: Params) -> Array:
        return jnp.diag(jnp.exp(_vector(output)))

    @override
    def sample(self, output: Array, params: Params, key: Array) -> Array:
        rate = jnp.exp(_vector(output))
        return jax.random.poisson(key, rate).astype(rate.dtype)

    @override
    def mean(self, output: Array, params: Params) -> Array:
        return jnp.exp(_vector(output))

    @override
    def variance(self, output: Array, params: Params) -> Array:
        return jnp.exp(_vector(output))

    @override
    def cdf(self, output: Array, y: Array, params: Params) -> Array:
        count = jnp.floor(y)
        return jnp.where(
            count < 0,
            0.0,
            jax.scipy.special.gammaincc(jnp.maximum(count, 0) + 1, jnp.exp(_vector(output))),
        )


def _vector(output: Array) -> Array:
    return jnp.reshape(output, (-1,))


def _normal_log_prob(mean: Array, log_scale: Array, y: Array) -> Array:
    z = (y - mean) * jnp.exp(-log_scale)
    return jnp.sum(-0.5 * z**2 - log_scale - HALF_LOG_2PI)


def _real_targets(
    y: np.ndarray, num_outputs: int, name: str, output: tuple[int, ...]
) -> np.ndarray:
    """Targets as (rows, k); the module has to emit one number for each."""
    flat = np.asarray(y, float).reshape(len(y), -1)
    if flat.shape[1] * (2 if name == "heteroscedastic" else 1) != num_outputs:
        each = "a mean and a log scale" if name == "heteroscedastic" else "one number"
        raise ModelError(
            f"module: its output for one datum has shape {output}, and likelihood '{name}' needs {each} for "
            f"each of the {flat.shape[1]} numbers in a row of y"
        )
    return flat
