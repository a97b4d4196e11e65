"""Hierarchical linear model, every latent with a factor of its own.

y_n ~ N(a_g[n] + b x_n, 1 / tau), a_g ~ N(mu, 1 / tau_a). The updates follow from Bishop (2006),
eq. 10.9; Murphy (2023), Probabilistic Machine Learning: Advanced Topics, chapter 10.
"""

import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist

from textbook.ascent import Textbook
from textbook.factors import LOG_2PI, Gamma, Normal

GROUPS = 6
MU, SLOPE = Normal(0.0, 9.0), Normal(0.0, 4.0)
TAU, TAU_A = Gamma(2.0, 1.0), Gamma(1.5, 1.0)


def make_data():
    rng = np.random.default_rng(33)
    group = rng.integers(0, GROUPS, 50)
    x, a = rng.standard_normal(50), 1.0 + 0.8 * rng.standard_normal(GROUPS)
    return {"x": x, "group": group, "y": a[group] - 0.7 * x + 0.5 * rng.standard_normal(50)}


def model(x, group, y):
    mu = numpyro.sample("mu", dist.Normal(MU.mean, MU.variance**0.5))
    b = numpyro.sample("b", dist.Normal(SLOPE.mean, SLOPE.variance**0.5))
    tau_a = numpyro.sample("tau_a", dist.Gamma(TAU_A.a, TAU_A.b))
    tau = numpyro.sample("tau", dist.Gamma(TAU.a, TAU.b))
    with numpyro.plate("groups", GROUPS):
        a = numpyro.sample("a", dist.Normal(mu, 1.0 / jnp.sqrt(tau_a)))
    with numpyro.plate("rows", len(y)):
        numpyro.sample("y", dist.Normal(a[group] + b * x, 1.0 / jnp.sqrt(tau)), obs=y)


def update_mu(data, q):
    precision = 1.0 / MU.variance + GROUPS * q["tau_a"].mean
    total = MU.mean / MU.variance + q["tau_a"].mean * q["a"].mean.sum()
    return Normal(total / precision, 1.0 / precision)


def update_a(data, q):
    count = np.bincount(data["group"], minlength=GROUPS)
    rest = data["y"] - q["b"].mean * data["x"]
    precision = q["tau_a"].mean + q["tau"].mean * count
    sums = np.bincount(data["group"], rest, minlength=GROUPS)
    total = q["tau_a"].mean * q["mu"].mean + q["tau"].mean * sums
    return Normal(total / precision, 1.0 / precision)


def update_b(data, q):
    x, rest = data["x"], data["y"] - q["a"].mean[data["group"]]
    precision = 1.0 / SLOPE.variance + q["tau"].mean * np.sum(x**2)
    total = SLOPE.mean / SLOPE.variance + q["tau"].mean * np.sum(x * rest)
    return Normal(total / precision, 1.0 / precision)


def _residual_square(data, q):
    """E sum (y - a - b x)^2."""
    x, group, a, b = data["x"], data["group"], q["a"], q["b"]
    away = data["y"] - a.mean[group] - b.mean * x
    return np.sum(away**2 + a.variance[group] + b.variance * x**2)


def _group_square(q):
    """E sum (a - mu)^2."""
    a, mu = q["a"], q["mu"]
    return np.sum((a.mean - mu.mean) ** 2 + a.variance + mu.variance)


def update_tau(data, q):
    return Gamma(TAU.a + 0.5 * len(data["y"]), TAU.b + 0.5 * _residual_square(data, q))


def update_tau_a(data, q):
    return Gamma(TAU_A.a + 0.5 * GROUPS, TAU_A.b + 0.5 * _group_square(q))


def expected_log_joint(data, q):
    tau, tau_a = q["tau"], q["tau_a"]
    rows = len(data["y"]) * (tau.log - LOG_2PI) - tau.mean * _residual_square(data, q)
    groups = GROUPS * (tau_a.log - LOG_2PI) - tau_a.mean * _group_square(q)
    priors = (("mu", MU), ("b", SLOPE), ("tau", TAU), ("tau_a", TAU_A))
    return 0.5 * (rows + groups) + sum(prior.mean_log_prob(q[name]) for name, prior in priors)


def make_start(data):
    return {
        "mu": Normal(0.0, 1.0),
        "a": Normal(np.zeros(GROUPS), np.ones(GROUPS)),
        "b": Normal(0.0, 1.0),
        "tau": Gamma(1.0, 1.0),
        "tau_a": Gamma(1.0, 1.0),
    }


BOOKS = (
    Textbook(
        "hierarchical linear model",
        "Bishop (2006), eq. 10.9; Murphy (2023), chapter 10",
        model,
        make_data,
        make_start,
        {"mu": update_mu, "a": update_a, "b": update_b, "tau": update_tau, "tau_a": update_tau_a},
        expected_log_joint,
    ),
)
