"""The models that come with the benchmarks: NumPyro functions and their data."""

from typing import Any

import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist

Data = dict[str, np.ndarray]


def regression_data() -> Data:
    """Seven points; pymc-devs/pymc#2162 shows ADVI getting the slope's sign wrong on them."""
    x = np.array([1.17, 2.97, 3.26, 4.69, 5.83, 6.0, 6.41])
    y = np.array([78.93, 58.2, 67.47, 37.47, 45.65, 32.92, 29.97])
    return {"x": x, "y": y}


def regression(x: Any, y: Any) -> None:
    """A straight line."""
    a = numpyro.sample("a", dist.Normal(0.0, 100.0))
    b = numpyro.sample("b", dist.Normal(0.0, 100.0))
    s = numpyro.sample("s", dist.HalfCauchy(5.0))
    numpyro.sample("obs", dist.Normal(a + b * x, s), obs=y)


def schools_data() -> Data:
    """Eight coaching programmes (Rubin 1981)."""
    y = np.array([28.0, 8.0, -3.0, 7.0, -1.0, 1.0, 18.0, 12.0])
    return {"y": y, "sigma": np.array([15.0, 10.0, 16.0, 11.0, 9.0, 11.0, 10.0, 18.0])}


def schools_centred(y: Any, sigma: Any) -> None:
    """Eight schools as written in textbooks: a funnel."""
    mu = numpyro.sample("mu", dist.Normal(0.0, 5.0))
    tau = numpyro.sample("tau", dist.HalfCauchy(5.0))
    with numpyro.plate("school", len(y)):
        theta = numpyro.sample("theta", dist.Normal(mu, tau))
        numpyro.sample("obs", dist.Normal(theta, sigma), obs=y)


def schools_noncentred(y: Any, sigma: Any) -> None:
    """Eight schools with standardised effects."""
    mu = numpyro.sample("mu", dist.Normal(0.0, 5.0))
    tau = numpyro.sample("tau", dist.HalfCauchy(5.0))
    with numpyro.plate("school", len(y)):
        z = numpyro.sample("z", dist.Normal(0.0, 1.0))
        theta = numpyro.deterministic("theta", mu + tau * z)
        numpyro.sample("obs", dist.Normal(theta, sigma), obs=y)


def logistic_data() -> Data:
    """2,000 rows, 20 correlated predictors."""
    rng = np.random.default_rng(20)
    x = 0.8 * rng.normal(size=(2000, 1)) + 0.6 * rng.normal(size=(2000, 20))
    w = rng.normal(size=20) * 0.7
    y = rng.random(2000) < 1 / (1 + np.exp(-x @ w))
    return {"x": x, "y": y.astype(float)}


def logistic(x: Any, y: Any) -> None:
    """Logistic regression."""
    w = numpyro.sample("w", dist.Normal(0.0, 2.5).expand([x.shape[1]]).to_event(1))
    numpyro.sample("obs", dist.Bernoulli(logits=x @ w), obs=y)


def poisson_data() -> Data:
    """40 groups of 8 counts."""
    rng = np.random.default_rng(40)
    group = np.repeat(np.arange(40), 8)
    x = rng.normal(size=320)
    effect = rng.normal(size=40) * 0.5
    return {"x": x, "group": group, "y": rng.poisson(np.exp(0.7 + 0.4 * x + effect[group]))}


def poisson_effects(x: Any, group: Any, y: Any) -> None:
    """Poisson regression with a random intercept per group."""
    a = numpyro.sample("a", dist.Normal(0.0, 2.0))
    b = numpyro.sample("b", dist.Normal(0.0, 1.0))
    sigma = numpyro.sample("sigma", dist.HalfNormal(1.0))
    with numpyro.plate("groups", 40):
        u = numpyro.sample("u", dist.Normal(0.0, sigma))
    numpyro.sample("obs", dist.Poisson(jnp.exp(a + b * x + u[group])), obs=y)
