"""What the tests of networks share."""

import jax
import numpy as np

from taut.networks.architecture import take_apart
from taut.networks.posteriors import Task
from taut.networks.priors import Isotropic
from taut.networks.regression import Normal


def make_task(module, datum, likelihood=None, prior=None, num_rows=10):
    architecture = take_apart(module, datum)
    prior = Isotropic() if prior is None else prior
    likelihood = Normal() if likelihood is None else likelihood
    return Task(architecture, likelihood, prior.scales(architecture), num_rows)


def some_scales(weights, key):
    """Sds between 0.1 and 0.5, all different."""
    keys = jax.random.split(key, len(weights))
    return [
        jax.random.uniform(k, w.shape, w.dtype, 0.1, 0.5)
        for k, w in zip(keys, weights, strict=True)
    ]


def z_scores(draws, mean):
    """Distances of the draws' means from known ones, in standard errors."""
    draws = np.asarray(draws, float)
    error = draws.std(0, ddof=1) / np.sqrt(len(draws))
    return np.abs(draws.mean(0) - np.asarray(mean, float)) / np.where(error > 0, error, np.inf)


def regression(key, rows, columns, noise=0.5):
    """Rows of a linear model, and its coefficients."""
    first, second, third = jax.random.split(key, 3)
    x = jax.random.normal(first, (rows, columns))
    w = jax.random.normal(second, (columns,))
    y = x @ w + noise * jax.random.normal(third, (rows,))
    return np.asarray(x, float), np.asarray(y, float), np.asarray(w, float)
