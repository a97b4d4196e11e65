"""NumPyro models that carry their truth: posterior moments and evidence in closed form.

None of the numbers comes from taut: they are textbook formulas, evaluated with NumPy and SciPy.
"""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
from scipy import special, stats


@dataclasses.dataclass(frozen=True)
class Known:
    """A model with data whose posterior is known.

    Attributes:
        model: NumPyro model function.
        data: its arguments.
        mean: latent -> posterior mean.
        sd: latent -> posterior standard deviation.
        log_evidence: log p(data), nats.
    """

    model: Callable[..., Any]
    data: Mapping[str, Any]
    mean: Mapping[str, np.ndarray]
    sd: Mapping[str, np.ndarray]
    log_evidence: float


def normal_mean_model(y):
    m = numpyro.sample("m", dist.Normal(1.0, 2.0))
    with numpyro.plate("n", len(y)):
        numpyro.sample("y", dist.Normal(m, 1.5), obs=y)


def normal_mean(size: int = 12) -> Known:
    """A normal mean with known spread: Gaussian in the model's own space."""
    y = np.random.default_rng(1).normal(2.0, 1.5, size)
    precision = 1 / 2.0**2 + size / 1.5**2
    mean = (1.0 / 2.0**2 + y.sum() / 1.5**2) / precision
    covariance = 1.5**2 * np.eye(size) + 2.0**2
    evidence = stats.multivariate_normal.logpdf(y, np.ones(size), covariance)
    return Known(
        normal_mean_model,
        {"y": y},
        {"m": np.asarray(mean)},
        {"m": np.asarray(precision**-0.5)},
        float(evidence),
    )


def regression_model(x, y):
    b = numpyro.sample("b", dist.Normal(0.0, 3.0).expand([x.shape[1]]).to_event(1))
    with numpyro.plate("n", len(y)):
        numpyro.sample("y", dist.Normal(x @ b, 0.7), obs=y)


def regression(size: int = 25, width: int = 3) -> Known:
    """Linear regression with known noise: correlated Gaussian posterior."""
    rng = np.random.default_rng(2)
    x = rng.normal(size=(size, width)) @ (np.eye(width) + 0.6)
    y = x @ np.arange(1.0, width + 1) + 0.7 * rng.normal(size=size)
    covariance = np.linalg.inv(x.T @ x / 0.7**2 + np.eye(width) / 9.0)
    mean = covariance @ x.T @ y / 0.7**2
    marginal = 9.0 * x @ x.T + 0.7**2 * np.eye(size)
    evidence = stats.multivariate_normal.logpdf(y, np.zeros(size), marginal)
    sd = np.sqrt(np.diagonal(covariance))
    return Known(regression_model, {"x": x, "y": y}, {"b": mean}, {"b": sd}, float(evidence))


def counts_model(y):
    rate = numpyro.sample("rate", dist.Gamma(2.0, 0.5))
    with numpyro.plate("n", len(y)):
        numpyro.sample("y", dist.Poisson(rate), obs=y)


def counts() -> Known:
    """Gamma prior and Poisson counts: a skewed posterior, in which a sign error shows."""
    y = np.array([1, 0, 2, 1, 3])
    a, b = 2.0 + y.sum(), 0.5 + len(y)
    evidence = (
        2.0 * np.log(0.5) - special.gammaln(2.0) + special.gammaln(a) - a * np.log(b)
    ) - special.gammaln(y + 1.0).sum()
    return Known(
        counts_model,
        {"y": y},
        {"rate": np.asarray(a / b)},
        {"rate": np.asarray(np.sqrt(a) / b)},
        float(evidence),
    )


def share_model(successes, trials):
    p = numpyro.sample("p", dist.Beta(2.0, 3.0))
    with numpyro.plate("n", len(successes)):
        numpyro.sample("k", dist.Binomial(trials, p), obs=successes)


def share() -> Known:
    """Beta prior and binomial counts."""
    successes, trials = np.array([3, 1, 4]), np.array([5, 6, 9])
    a, b = 2.0 + successes.sum(), 3.0 + (trials - successes).sum()
    evidence = special.betaln(a, b) - special.betaln(2.0, 3.0)
    evidence += sum(np.log(special.comb(trials, successes)))
    return Known(
        share_model,
        {"successes": successes, "trials": trials},
        {"p": np.asarray(stats.beta.mean(a, b))},
        {"p": np.asarray(stats.beta.std(a, b))},
        float(evidence),
    )


ALL = {"normal mean": normal_mean, "regression": regression, "counts": counts, "share": share}


# --- models that bad input is tried on --------------------------------------------------------


def line(x, y):
    """Straight line with proper priors."""
    a = numpyro.sample("a", dist.Normal(0, 10))
    b = numpyro.sample("b", dist.Normal(0, 10))
    s = numpyro.sample("s", dist.HalfNormal(5))
    numpyro.sample("y", dist.Normal(a + b * x, s), obs=y)


def line_data(size: int = 30) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(3)
    x = rng.normal(size=size)
    return {"x": x, "y": 1 + 2 * x + rng.normal(size=size)}


def many_predictors(x, y, flat=False):
    """Intercept and predictors, with proper or with flat priors."""
    real = dist.constraints.real
    one = dist.ImproperUniform(real, (), ()) if flat else dist.Normal(0, 10)
    all_of = dist.ImproperUniform(real, (), (x.shape[1],))
    if not flat:
        all_of = dist.Normal(jnp.zeros(x.shape[1]), 10).to_event(1)
    a = numpyro.sample("a", one)
    b = numpyro.sample("b", all_of)
    s = numpyro.sample("s", dist.HalfNormal(5))
    numpyro.sample("y", dist.Normal(a + x @ b, s), obs=y)
