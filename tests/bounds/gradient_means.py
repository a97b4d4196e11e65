"""Means of gradient estimates over many keys, and truths by enumeration.

Each comparison of an element's mean with the truth is at four standard errors, which a correct
estimator fails with probability 6.3e-5; keys are fixed.
"""

import itertools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree

STANDARD_ERRORS = 4.0


def estimates(call: Callable[..., Any], params: Any, num_keys: int = 4000, seed: int = 0):
    """Values and flat gradients of ``call(params, key) -> Estimate`` for many keys."""

    def surrogate(params, key):
        estimate = call(params, key)
        return estimate.surrogate, estimate.value

    def one(key):
        gradient, value = jax.grad(surrogate, has_aux=True)(params, key)
        return value, ravel_pytree(gradient)[0]

    values, gradients = jax.jit(jax.vmap(one))(jax.random.split(jax.random.key(seed), num_keys))
    return np.asarray(values), np.asarray(gradients)


def standardised(sample: np.ndarray, truth: Any) -> np.ndarray:
    """Distance of the mean from the truth in standard errors; rounding does not count."""
    mean, sd = sample.mean(0), sample.std(0)
    error = np.abs(mean - truth) - 1e-10 * (1.0 + np.abs(truth))
    return np.maximum(error, 0.0) / np.maximum(sd / np.sqrt(len(sample)), 1e-300)


def assert_unbiased(sample: np.ndarray, truth: Any) -> None:
    distance = standardised(sample, np.asarray(truth))
    assert np.all(distance < STANDARD_ERRORS), f"{distance}, {sample.mean(0)} against {truth}"


def flat_gradient(function: Callable[[Any], Any], params: Any) -> np.ndarray:
    return np.asarray(ravel_pytree(jax.grad(function)(params))[0])


def settings(*sizes: int):
    """All tuples of indices below the sizes."""
    return [jnp.array(s) for s in itertools.product(*map(range, sizes))]


def hermite(num_points: int = 40) -> tuple[np.ndarray, np.ndarray]:
    """Nodes and weights of the standard normal's expectation."""
    nodes, weights = np.polynomial.hermite_e.hermegauss(num_points)
    return nodes, weights / weights.sum()
