"""Models with data, and the closed forms that they are judged by."""

import dataclasses

import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist

SIGMA = np.array([15.0, 10, 16, 11, 9, 11, 10, 18])
EFFECT = np.array([28.0, 8, -3, 7, -1, 1, 18, 12])


def schools(sigma, y=None):
    mu = numpyro.sample("mu", dist.Normal(0, 5))
    tau = numpyro.sample("tau", dist.HalfCauchy(5))
    with numpyro.plate("school", len(sigma)):
        theta = numpyro.sample("theta", dist.Normal(mu, tau))
        numpyro.sample("y", dist.Normal(theta, sigma), obs=y)


def schools_standardised(sigma, y=None):
    mu = numpyro.sample("mu", dist.Normal(0, 5))
    tau = numpyro.sample("tau", dist.HalfCauchy(5))
    with numpyro.plate("school", len(sigma)):
        z = numpyro.sample("z", dist.Normal(0, 1))
        theta = numpyro.deterministic("theta", mu + tau * z)
        numpyro.sample("y", dist.Normal(theta, sigma), obs=y)


def line(x, y=None):
    """A regression with noise of sd 1, whose posterior is a Gaussian."""
    beta = numpyro.sample("beta", dist.Normal(0, 10).expand([2]).to_event(1))
    numpyro.sample("y", dist.Normal(beta[0] + beta[1] * x, 1.0), obs=y)


@dataclasses.dataclass(frozen=True)
class Line:
    """Data of the regression, and its posterior."""

    x: np.ndarray
    y: np.ndarray

    @staticmethod
    def make(count=40, seed=1):
        rng = np.random.default_rng(seed)
        x = rng.uniform(-2, 3, count)
        return Line(x, 1.5 - 0.7 * x + rng.normal(size=count))

    @property
    def data(self):
        return {"x": self.x, "y": self.y}

    @property
    def covariance(self):
        design = np.column_stack([np.ones_like(self.x), self.x])
        return np.linalg.inv(design.T @ design + np.eye(2) / 100)

    @property
    def mean(self):
        design = np.column_stack([np.ones_like(self.x), self.x])
        return self.covariance @ design.T @ self.y

    @property
    def log_evidence(self):
        design = np.column_stack([np.ones_like(self.x), self.x])
        total = np.eye(len(self.x)) + 100 * design @ design.T
        fit = self.y @ np.linalg.solve(total, self.y)
        return -0.5 * (fit + np.linalg.slogdet(total)[1] + len(self.x) * np.log(2 * np.pi))


def groups(group, count, y=None):
    """Group means; the plate of the groups holds no observed site."""
    mu = numpyro.sample("mu", dist.Normal(0, 5))
    spread = numpyro.sample("spread", dist.HalfNormal(2))
    with numpyro.plate("group", count):
        alpha = numpyro.sample("alpha", dist.Normal(mu, spread))
    with numpyro.plate("row", len(group)):
        numpyro.sample("y", dist.Normal(alpha[group], 0.5), obs=y)


def grouped_data(count=6, rows=60, seed=2):
    rng = np.random.default_rng(seed)
    group = rng.integers(0, count, rows)
    alpha = np.linspace(-3, 3, count)
    return {"group": group, "count": count, "y": alpha[group] + 0.5 * rng.normal(size=rows)}


def with_effects(x, y=None):
    """Latents of the observations themselves: their plate holds the observed site."""
    slope = numpyro.sample("slope", dist.Normal(0, 2))
    spread = numpyro.sample("spread", dist.HalfNormal(1))
    with numpyro.plate("row", len(x)):
        noise = numpyro.sample("noise", dist.Normal(0, spread))
        numpyro.sample("y", dist.Poisson(jnp.exp(slope * x + noise)), obs=y)
