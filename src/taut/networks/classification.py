"""Likelihoods of labels."""

import dataclasses
import math
from typing import ClassVar

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array
from typing_extensions import override

from taut._core.errors import DataError, ModelError
from taut.networks.likelihoods import (
    AbstractClassification,
    Params,
    check_rows,
    drawn,
)
from taut.networks.propagate import Gaussian


@dataclasses.dataclass(frozen=True)
class Categorical(AbstractClassification):
    """Labels 0, 1, ... whose log odds are the output, one number for each class."""

    name: ClassVar[str] = "categorical"
    separable: ClassVar[bool] = False

    @override
    def targets(self, y: np.ndarray, output_shape: tuple[int, ...]) -> np.ndarray:
        if len(output_shape) != 1 or output_shape[0] < 2:
            raise ModelError(
                "module: likelihood 'categorical' needs one output for each class, two or more; "
                f"its output for one datum has shape {output_shape}"
                + (
                    "; for two classes with one output there is 'bernoulli'"
                    * (math.prod(output_shape) == 1)
                )
            )
        return _labels(y, output_shape[0])

    @override
    def start(self, y: np.ndarray, scale: np.ndarray) -> tuple[Params, Params]:
        return {}, {}

    @override
    def log_prob(self, output: Array, y: Array, params: Params) -> Array:
        return self.log_proba(output)[y]

    @override
    def expected_log_prob(self, output: Gaussian, y: Array, params: Params, noise: Array) -> Array:
        return self.log_prob(drawn(output, noise), y, params)

    @override
    def fisher(self, output: Array, params: Params) -> Array:
        proba = jax.nn.softmax(output)
        return jnp.diag(proba) - jnp.outer(proba, proba)

    @override
    def sample(self, output: Array, params: Params, key: Array) -> Array:
        return jax.random.categorical(key, output)

    @override
    def log_proba(self, output: Array) -> Array:
        return jax.nn.log_softmax(output)


@dataclasses.dataclass(frozen=True)
class Bernoulli(AbstractClassification):
    """Labels 0 and 1; the output, one number, is the log odds of 1."""

    name: ClassVar[str] = "bernoulli"

    @override
    def targets(self, y: np.ndarray, output_shape: tuple[int, ...]) -> np.ndarray:
        if math.prod(output_shape) != 1:
            raise ModelError(
                "module: likelihood 'bernoulli' needs one output, the log odds of label 1; its output "
                f"for one datum has shape {output_shape}; for several classes there is 'categorical'"
            )
        return _labels(y, 2)

    @override
    def start(self, y: np.ndarray, scale: np.ndarray) -> tuple[Params, Params]:
        return {}, {}

    @override
    def log_prob(self, output: Array, y: Array, params: Params) -> Array:
        return self.log_proba(output)[y]

    @override
    def expected_log_prob(self, output: Gaussian, y: Array, params: Params, noise: Array) -> Array:
        return self.log_prob(drawn(output, noise), y, params)

    @override
    def fisher(self, output: Array, params: Params) -> Array:
        proba = jax.nn.sigmoid(jnp.reshape(output, (1, 1)))
        return proba * (1 - proba)

    @override
    def sample(self, output: Array, params: Params, key: Array) -> Array:
        return jax.random.bernoulli(key, jax.nn.sigmoid(jnp.reshape(output, ()))).astype(int)

    @override
    def log_proba(self, output: Array) -> Array:
        logit = jnp.reshape(output, ())
        return jnp.stack([-jax.nn.softplus(logit), -jax.nn.softplus(-logit)])


def _labels(y: np.ndarray, classes: int) -> np.ndarray:
    """Labels as (rows,) integers."""
    flat = np.asarray(y).reshape(len(y), -1)
    if flat.shape[1] != 1:
        raise DataError(
            f"y must hold one label a row for a module with {classes} classes, got rows of shape "
            f"{np.shape(y)[1:]}; of one-hot rows take y.argmax(-1)"
        )
    flat = flat[:, 0].astype(float)
    valid = (flat == np.round(flat)) & (flat >= 0) & (flat < classes)
    check_rows(flat, valid, f"a label from 0 to {classes - 1}")
    return flat.astype(np.int32)
