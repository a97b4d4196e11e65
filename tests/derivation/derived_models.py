"""Models whose derivations are known in closed form, and one that needs quadrature."""

import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist

Y = np.array([0.4, 1.9, 1.1, 0.7])
COUNTS = np.array([3, 1, 4, 2, 0])


def normal_normal(y):
    mu = numpyro.sample("mu", dist.Normal(0.5, 2.0))
    with numpyro.plate("rows", len(y)):
        numpyro.sample("y", dist.Normal(mu, 0.7), obs=y)


def gamma_poisson(y):
    rate = numpyro.sample("rate", dist.Gamma(2.0, 1.5))
    with numpyro.plate("rows", len(y)):
        numpyro.sample("y", dist.Poisson(rate), obs=y)


def groups(y):
    mu = numpyro.sample("mu", dist.Normal(0.0, 3.0))
    with numpyro.plate("group", len(y)):
        a = numpyro.sample("a", dist.Normal(mu, 1.0))
        numpyro.sample("y", dist.Normal(a, 0.5), obs=y)


def regression(x, y):
    tau = numpyro.sample("tau", dist.Gamma(2.0, 1.0))
    w = numpyro.sample("w", dist.Normal(0.0, 2.0).expand([2]).to_event(1))
    with numpyro.plate("rows", len(y)):
        numpyro.sample("y", dist.Normal(x @ w, 1.0 / jnp.sqrt(tau)), obs=y)


def regression_data():
    rng = np.random.default_rng(0)
    x = np.column_stack([np.ones(12), rng.standard_normal(12)])
    return {"x": x, "y": x @ np.array([0.5, -1.0]) + 0.7 * rng.standard_normal(12)}


def mixture(y):
    pi = numpyro.sample("pi", dist.Dirichlet(jnp.full(2, 1.5)))
    with numpyro.plate("components", 2):
        mu = numpyro.sample("mu", dist.Normal(0.0, 3.0))
    with numpyro.plate("rows", len(y)):
        z = numpyro.sample("z", dist.Categorical(pi))
        numpyro.sample("y", dist.Normal(mu[z], 0.8), obs=y)


def mixture_data():
    return {"y": np.array([-2.1, -1.7, -2.4, 1.8, 2.2, 2.6, 1.9, -1.2])}


def logistic(x, y):
    slope = numpyro.sample("slope_{1} & more", dist.Normal(0.0, 1.5))
    with numpyro.plate("rows_%", len(y)):
        numpyro.sample("y#", dist.Bernoulli(logits=slope * x), obs=y)


def logistic_data():
    return {"x": np.array([-1.0, 0.3, 0.8, 1.5]), "y": np.array([0, 1, 0, 1])}


def normal_gamma(y):
    tau = numpyro.sample("tau", dist.Gamma(2.0, 1.5))
    mu = numpyro.sample("mu", dist.Normal(0.5, 1.0 / jnp.sqrt(0.4 * tau)))
    with numpyro.plate("rows", len(y)):
        numpyro.sample("y", dist.Normal(mu, 1.0 / jnp.sqrt(tau)), obs=y)
