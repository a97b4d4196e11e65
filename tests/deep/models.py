"""Models with known answers, and networks for them."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist

import taut

NOISE = 0.5


class Linear(eqx.Module):
    """A linear map, with a scale that is free of the data for encoders."""

    weight: jax.Array
    bias: jax.Array
    log_scale: jax.Array

    def __init__(self, size_in, size_out, key):
        self.weight = 0.3 * jax.random.normal(key, (size_out, size_in))
        self.bias = jnp.zeros(size_out)
        self.log_scale = jnp.zeros(size_out)

    def __call__(self, x):
        return jnp.concatenate([self.weight @ x + self.bias, self.log_scale])


def component_data(count=600, dim=5, seed=0):
    """Draws of x = w z + b + noise with one z."""
    rng = np.random.default_rng(seed)
    w, b = rng.normal(size=dim), rng.normal(size=dim)
    x = rng.normal(size=(count, 1)) * w + b + NOISE * rng.normal(size=(count, dim))
    return x.astype(np.float32), w, b


def component_model(x):
    """Probabilistic principal component analysis with one component and known noise."""
    w = numpyro.param("w", 0.1 * jnp.ones(x.shape[1]))
    b = numpyro.param("b", jnp.zeros(x.shape[1]))
    with numpyro.plate("rows", len(x)):
        z = numpyro.sample("z", dist.Normal(0, 1))
        numpyro.sample("x", dist.Normal(z[:, None] * w + b, NOISE).to_event(1), obs=x)


def component_evidence(x, w, b):
    """Log evidence of each row: a Gaussian with covariance w w' + noise."""
    cov = np.outer(w, w) + NOISE**2 * np.eye(len(w))
    residual = np.asarray(x, float) - b
    solved = np.linalg.solve(cov, residual.T).T
    return -0.5 * (np.sum(residual * solved, 1) + np.linalg.slogdet(2 * np.pi * cov)[1])


def fit_component(x, **options):
    encoder = Linear(x.shape[1], 1, jax.random.key(1))
    family = taut.families.Amortised({"z": encoder})
    return taut.fit(component_model, {"x": x}, family=family, **options)
