"""Models of rows with shared latents, their data, and truths computed without the library."""

import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist

NODES, WEIGHTS = np.polynomial.hermite_e.hermegauss(40)
GROUPS = 40


def logistic(x, y):
    b = numpyro.sample("b", dist.Normal(0.0, 2.0).expand([x.shape[1]]).to_event(1))
    with numpyro.plate("rows", len(y)):
        numpyro.sample("y", dist.Bernoulli(logits=x @ b), obs=y)


def grouped(group, x, y):
    """Effects of groups as shared latents, all scales unknown."""
    mu = numpyro.sample("mu", dist.Normal(0.0, 5.0))
    tau = numpyro.sample("tau", dist.HalfNormal(2.0))
    slope = numpyro.sample("slope", dist.Normal(0.0, 2.0))
    sigma = numpyro.sample("sigma", dist.HalfNormal(2.0))
    with numpyro.plate("groups", GROUPS):
        a = numpyro.sample("a", dist.Normal(mu, tau))
    with numpyro.plate("rows", len(y)):
        numpyro.sample("y", dist.Normal(a[group] + slope * x, sigma), obs=y)


def grouped_counts(group, x, n):
    """A Poisson mixed model."""
    mu = numpyro.sample("mu", dist.Normal(0.0, 2.0))
    tau = numpyro.sample("tau", dist.HalfNormal(1.0))
    slope = numpyro.sample("slope", dist.Normal(0.0, 1.0))
    with numpyro.plate("groups", GROUPS):
        a = numpyro.sample("a", dist.Normal(mu, tau))
    with numpyro.plate("rows", len(n)):
        numpyro.sample("n", dist.Poisson(jnp.exp(a[group] + slope * x)), obs=n)


def growth(t, y):
    """A mean that no rule of the compiled expectation reads."""
    rate = numpyro.sample("rate", dist.LogNormal(0.0, 1.0))
    top = numpyro.sample("top", dist.LogNormal(0.0, 1.0))
    with numpyro.plate("rows", len(y)):
        numpyro.sample("y", dist.Normal(top / (1.0 + 3.0 * jnp.exp(-rate * (t - 1.0))), 0.3), obs=y)


# --- plates that the user subsamples -------------------------------------------------------------


def line(x, y):
    b = numpyro.sample("b", dist.Normal(0.0, 2.0).expand([2]).to_event(1))
    with numpyro.plate("rows", len(y)):
        numpyro.sample("y", dist.Normal(x @ b, 1.0), obs=y)


def by_index(x, y):
    b = numpyro.sample("b", dist.Normal(0.0, 2.0).expand([2]).to_event(1))
    with numpyro.plate("rows", len(y), subsample_size=50) as index:
        numpyro.sample("y", dist.Normal(x[index] @ b, 1.0), obs=y[index])


def by_subsample(x, y):
    b = numpyro.sample("b", dist.Normal(0.0, 2.0).expand([2]).to_event(1))
    with numpyro.plate("rows", y.shape[0], subsample_size=50):
        few = numpyro.subsample(x, event_dim=1)
        numpyro.sample("y", dist.Normal(few @ b, 1.0), obs=numpyro.subsample(y, event_dim=0))


def by_numbers(x, y, total, size):
    b = numpyro.sample("b", dist.Normal(0.0, 2.0).expand([2]).to_event(1))
    with numpyro.plate("rows", total, subsample_size=size) as index:
        numpyro.sample("y", dist.Normal(x[index] @ b, 1.0), obs=y[index])


def of_fixed_size(x, y):
    b = numpyro.sample("b", dist.Normal(0.0, 2.0).expand([2]).to_event(1))
    with numpyro.plate("rows", 600):
        numpyro.sample("y", dist.Normal(x @ b, 1.0), obs=y)


def scaled_by_hand(x, y):
    """The user counts every row three times; no batch may change that."""
    b = numpyro.sample("b", dist.Normal(0.0, 2.0).expand([2]).to_event(1))
    with numpyro.plate("rows", len(y)), numpyro.handlers.scale(scale=3.0):
        numpyro.sample("y", dist.Normal(x @ b, 1.0), obs=y)


# --- data ----------------------------------------------------------------------------------------


def make_binary(num, dim=4):
    rng = np.random.default_rng(11)
    x = rng.standard_normal((num, dim))
    logits = x @ np.linspace(-1.0, 1.5, dim)
    return {"x": x, "y": (rng.uniform(size=num) < 1.0 / (1.0 + np.exp(-logits))).astype(float)}


def make_grouped(num):
    rng = np.random.default_rng(12)
    group, x = rng.integers(0, GROUPS, num), rng.standard_normal(num)
    effects = 1.0 + 0.8 * rng.standard_normal(GROUPS)
    y = effects[group] + 0.5 * x + 0.7 * rng.standard_normal(num)
    return {"group": group, "x": x, "y": y}


def make_grouped_counts(num):
    rng = np.random.default_rng(13)
    group, x = rng.integers(0, GROUPS, num), rng.standard_normal(num)
    effects = 0.3 + 0.6 * rng.standard_normal(GROUPS)
    return {"group": group, "x": x, "n": rng.poisson(np.exp(effects[group] + 0.4 * x))}


def make_growth(num):
    rng = np.random.default_rng(14)
    t = rng.uniform(0.0, 3.0, num)
    y = 2.0 / (1.0 + 3.0 * np.exp(-1.3 * (t - 1.0))) + 0.3 * rng.standard_normal(num)
    return {"t": t, "y": y}


def make_line(num):
    rng = np.random.default_rng(15)
    x = rng.standard_normal((num, 2))
    return {"x": x, "y": x @ [1.0, -0.5] + rng.standard_normal(num)}


# --- truths --------------------------------------------------------------------------------------


def line_posterior(x, y, times=1.0):
    """Mean and sds of the coefficients, every row counted so often."""
    precision = np.eye(2) / 4.0 + times * x.T @ x
    return np.linalg.solve(precision, times * x.T @ y), np.sqrt(np.diag(np.linalg.inv(precision)))


def logistic_elbo(mean, covariance, x, y, prior_sd=2.0):
    """ELBO of a Gaussian over the coefficients, one quadrature of 40 nodes a row."""
    center, sd = x @ mean, np.sqrt(np.einsum("ni,ij,nj->n", x, covariance, x))
    eta = center[:, None] + sd[:, None] * NODES
    softplus = np.logaddexp(0.0, eta) @ (WEIGHTS / WEIGHTS.sum())
    prior = -0.5 * (mean @ mean + np.trace(covariance)) / prior_sd**2
    prior -= len(mean) * (np.log(prior_sd) + 0.5 * np.log(2.0 * np.pi))
    entropy = 0.5 * np.linalg.slogdet(2.0 * np.pi * np.e * covariance)[1]
    return float(np.sum(y * center - softplus) + prior + entropy)


def logistic_fit(x, y, prior_sd=2.0, steps=100):
    """The best Gaussian for logistic regression, by the fixed point of its mean and precision."""
    dim = x.shape[1]
    mean, covariance = np.zeros(dim), np.eye(dim)
    for _ in range(steps):
        center, sd = x @ mean, np.sqrt(np.einsum("ni,ij,nj->n", x, covariance, x))
        probs = 1.0 / (1.0 + np.exp(-(center[:, None] + sd[:, None] * NODES)))
        slope = (probs * (1.0 - probs)) @ WEIGHTS / WEIGHTS.sum()
        precision = np.eye(dim) / prior_sd**2 + (x.T * slope) @ x
        score = x.T @ (y - probs @ WEIGHTS / WEIGHTS.sum()) - mean / prior_sd**2
        covariance = np.linalg.inv(precision)
        mean = mean + covariance @ score
    return mean, covariance


def grouped_posterior(group, x, y):
    """Exact means and sds of mu and slope in ``grouped``: a grid over both scales, the rest in closed form."""
    design = np.concatenate([np.ones((len(y), 1)), x[:, None], np.eye(GROUPS)[group]], axis=1)
    squares, cross, total = design.T @ design, design.T @ y, y @ y
    logs, means, seconds = [], [], []
    for tau in np.exp(np.linspace(-1.0, 0.6, 80)):
        for sigma in np.exp(np.linspace(-0.5, -0.2, 40)):
            prior = np.diag(np.r_[1 / 25.0, 1 / 4.0, np.full(GROUPS, tau**-2)])
            precision = prior + squares / sigma**2
            mean = np.linalg.solve(precision, cross / sigma**2)
            log = -len(y) * np.log(sigma) - 0.5 * total / sigma**2 - GROUPS * np.log(tau)
            log += 0.5 * mean @ precision @ mean - 0.5 * np.linalg.slogdet(precision)[1]
            log += -0.5 * (tau**2 + sigma**2) / 4.0 + np.log(tau) + np.log(sigma)
            logs.append(log)
            means.append(mean[:2])
            seconds.append(np.diag(np.linalg.inv(precision))[:2] + mean[:2] ** 2)
    weights = np.exp(np.array(logs) - np.max(logs))
    weights /= weights.sum()
    mean = weights @ np.array(means)
    return mean, np.sqrt(weights @ np.array(seconds) - mean**2)
