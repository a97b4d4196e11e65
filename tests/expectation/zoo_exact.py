"""Models without labels whose expected log joint is exact: Gaussians, gammas and monomials."""

from functools import partial

import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
from zoo_case import Case, register

CASES: list[Case] = []
exact = partial(register, CASES, method="exact")

RNG = np.random.default_rng(20)
N, D, GROUPS = 24, 3, 4
X = RNG.standard_normal((N, D))
GROUP = np.arange(N) % GROUPS
CROSSED = np.arange(N) // 4 % 5
ETA = X @ np.array([0.6, -0.4, 0.2]) + 0.3
Y = ETA + 0.5 * RNG.standard_normal(N)
COUNTS = RNG.poisson(np.exp(ETA))
TIMES = RNG.exponential(np.exp(ETA)) + 0.01
SPD = np.array([[1.5, 0.4, 0.1], [0.4, 1.0, -0.3], [0.1, -0.3, 0.8]])
POINTS = RNG.multivariate_normal(np.array([0.5, -1.0, 0.2]), SPD, 15)


@exact("linear regression", factors={"w": "gaussian"}, x=X, y=Y)
def linear(x, y):
    w = numpyro.sample("w", dist.Normal(0.0, 2.0).expand([x.shape[1]]).to_event(1))
    with numpyro.plate("rows", x.shape[0]):
        numpyro.sample("y", dist.Normal(x @ w, 0.7), obs=y)


@exact("linear regression, unknown precision", factors={"w": "gaussian", "tau": "gamma"}, x=X, y=Y)
def linear_precision(x, y):
    tau = numpyro.sample("tau", dist.Gamma(2.0, 1.0))
    w = numpyro.sample("w", dist.Normal(0.0, 2.0).expand([x.shape[1]]).to_event(1))
    with numpyro.plate("rows", x.shape[0]):
        numpyro.sample("y", dist.Normal(x @ w, 1.0 / jnp.sqrt(tau)), obs=y)


OWN = {"intercept": "gaussian:own", "slope": "gaussian:own", "tau": "gamma", "alpha": "gamma"}


@exact("linear regression, factorised, relevance", factors=OWN, x=X[:, 0], y=Y)
def linear_factorised(x, y):
    tau = numpyro.sample("tau", dist.Gamma(2.0, 1.0))
    alpha = numpyro.sample("alpha", dist.Gamma(1.0, 1.0))
    intercept = numpyro.sample("intercept", dist.Normal(0.0, 5.0))
    slope = numpyro.sample("slope", dist.Normal(0.0, alpha**-0.5))
    numpyro.sample("y", dist.Normal(intercept + slope * x, 1.0 / jnp.sqrt(tau)), obs=y)


def hierarchical(x, group, y):
    mu = numpyro.sample("mu", dist.Normal(0.0, 3.0))
    b = numpyro.sample("b", dist.Normal(0.0, 2.0))
    tau_a = numpyro.sample("tau_a", dist.Gamma(2.0, 1.0))
    tau = numpyro.sample("tau", dist.Gamma(2.0, 1.0))
    with numpyro.plate("groups", GROUPS):
        a = numpyro.sample("a", dist.Normal(mu, 1.0 / jnp.sqrt(tau_a)))
    with numpyro.plate("rows", len(y)):
        numpyro.sample("y", dist.Normal(a[group] + b * x, 1.0 / jnp.sqrt(tau)), obs=y)


for label, block in (("joint", "gaussian"), ("factorised", "gaussian:own")):
    of_block = {"mu": block, "a": block, "b": block, "tau": "gamma", "tau_a": "gamma"}
    rows = {"x": X[:, 0], "group": GROUP, "y": Y}
    exact(f"hierarchical linear, {label}", factors=of_block, **rows)(hierarchical)


def mixed(x, group, crossed, y):
    """Scales are latents of the block: a^2 exp(-2 log sd) is one term of it."""
    sd_a = numpyro.sample("sd_a", dist.HalfNormal(1.0))
    sd_c = numpyro.sample("sd_c", dist.LogNormal(0.0, 0.5))
    sigma = numpyro.sample("sigma", dist.HalfNormal(1.0))
    beta = numpyro.sample("beta", dist.Normal(0.0, 2.0).expand([x.shape[1]]).to_event(1))
    with numpyro.plate("groups", GROUPS):
        a = numpyro.sample("a", dist.Normal(0.0, sd_a))
    with numpyro.plate("crossed", 5):
        c = numpyro.sample("c", dist.Normal(0.0, sd_c))
    with numpyro.plate("rows", len(y)):
        numpyro.sample("y", dist.Normal(x @ beta + a[group] + c[crossed], sigma), obs=y)


for label, block in (("joint", "gaussian"), ("factorised", "gaussian:own")):
    of_block = dict.fromkeys(("sd_a", "sd_c", "sigma", "beta", "a", "c"), block)
    rows = {"x": X, "group": GROUP, "crossed": CROSSED, "y": Y}
    exact(f"mixed linear, {label}", factors=of_block, **rows)(mixed)


@exact(
    "non-centred linear",
    factors={"mu": "gaussian", "log_sd": "gaussian", "z": "gaussian", "tau": "gamma"},
    group=GROUP,
    y=Y,
)
def non_centred(group, y):
    mu = numpyro.sample("mu", dist.Normal(0.0, 3.0))
    log_sd = numpyro.sample("log_sd", dist.Normal(0.0, 0.5))
    tau = numpyro.sample("tau", dist.Gamma(2.0, 1.0))
    with numpyro.plate("groups", GROUPS):
        z = numpyro.sample("z", dist.Normal(0.0, 1.0))
    a = numpyro.deterministic("a", mu + jnp.exp(log_sd) * z)
    numpyro.sample("y", dist.Normal(a[group], 1.0 / jnp.sqrt(tau)), obs=y)


@exact(
    "varying intercept and slope",
    factors={"mu": "gaussian", "coef": "gaussian", "tau_coef": "gamma", "tau": "gamma"},
    x=X[:, 0],
    group=GROUP,
    y=Y,
)
def varying_slope(x, group, y):
    mu = numpyro.sample("mu", dist.Normal(0.0, 2.0).expand([2]).to_event(1))
    tau_coef = numpyro.sample("tau_coef", dist.Gamma(2.0, 1.0).expand([2]).to_event(1))
    tau = numpyro.sample("tau", dist.Gamma(2.0, 1.0))
    with numpyro.plate("groups", GROUPS):
        coef = numpyro.sample("coef", dist.Normal(mu, 1.0 / jnp.sqrt(tau_coef)).to_event(1))
    mean = coef[group, 0] + coef[group, 1] * x
    numpyro.sample("y", dist.Normal(mean, 1.0 / jnp.sqrt(tau)), obs=y)


@exact("Poisson regression", factors={"w": "gaussian", "a": "gaussian"}, x=X, group=GROUP, y=COUNTS)
def poisson(x, group, y):
    w = numpyro.sample("w", dist.Normal(0.0, 1.0).expand([x.shape[1]]).to_event(1))
    with numpyro.plate("groups", GROUPS):
        a = numpyro.sample("a", dist.Normal(0.0, 1.0))
    numpyro.sample("y", dist.Poisson(jnp.exp(x @ w + a[group])), obs=y)


@exact("gamma regression, log link", factors={"w": "gaussian"}, x=X, y=TIMES)
def gamma_regression(x, y):
    w = numpyro.sample("w", dist.Normal(0.0, 1.0).expand([x.shape[1]]).to_event(1))
    numpyro.sample("y", dist.Gamma(2.5, 2.5 / jnp.exp(x @ w)), obs=y)


@exact("heteroscedastic regression", factors={"b": "gaussian", "g": "gaussian"}, x=X, y=Y)
def heteroscedastic(x, y):
    b = numpyro.sample("b", dist.Normal(0.0, 2.0).expand([x.shape[1]]).to_event(1))
    g = numpyro.sample("g", dist.Normal(0.0, 0.5).expand([x.shape[1]]).to_event(1))
    numpyro.sample("y", dist.Normal(x @ b, jnp.exp(x @ g)), obs=y)


@exact("log-normal regression", factors={"w": "gaussian", "tau": "gamma"}, x=X, y=TIMES)
def log_normal(x, y):
    w = numpyro.sample("w", dist.Normal(0.0, 1.0).expand([x.shape[1]]).to_event(1))
    tau = numpyro.sample("tau", dist.Gamma(2.0, 1.0))
    numpyro.sample("y", dist.LogNormal(x @ w, 1.0 / jnp.sqrt(tau)), obs=y)


@exact("exponential survival", factors={"w": "gaussian"}, x=X, y=TIMES)
def exponential(x, y):
    w = numpyro.sample("w", dist.Normal(0.0, 1.0).expand([x.shape[1]]).to_event(1))
    numpyro.sample("y", dist.Exponential(jnp.exp(-(x @ w))), obs=y)


SEEN = np.arange(N) % 3 > 0


@exact("Weibull survival, known shape", factors={"w": "gaussian"}, x=X, y=TIMES, seen=SEEN)
def weibull(x, y, seen):
    """Censored rows add the log survival function, -(y / scale)^shape."""
    w = numpyro.sample("w", dist.Normal(0.0, 1.0).expand([x.shape[1]]).to_event(1))
    scale = jnp.exp(x @ w)
    with numpyro.handlers.mask(mask=seen):
        numpyro.sample("y", dist.Weibull(scale, 1.7), obs=y)
    numpyro.factor("censored", jnp.where(seen, 0.0, -((y / scale) ** 1.7)))


@exact("inverse-gamma variance", factors={"mu": "gaussian", "v": "inverse_gamma"}, y=Y)
def inverse_gamma(y):
    mu = numpyro.sample("mu", dist.Normal(0.0, 3.0))
    v = numpyro.sample("v", dist.InverseGamma(3.0, 2.0))
    numpyro.sample("y", dist.Normal(mu, jnp.sqrt(v)), obs=y)


@exact("beta-binomial", factors={"p": "beta"}, group=GROUP, total=COUNTS + 3, y=COUNTS)
def beta_binomial(group, total, y):
    with numpyro.plate("groups", GROUPS):
        p = numpyro.sample("p", dist.Beta(2.0, 1.5))
    numpyro.sample("y", dist.Binomial(total, probs=p[group]), obs=y)


@exact("gamma-Poisson", factors={"rate": "gamma", "scale": "gamma"}, group=GROUP, y=COUNTS)
def gamma_poisson(group, y):
    scale = numpyro.sample("scale", dist.Gamma(2.0, 2.0))
    with numpyro.plate("groups", GROUPS):
        rate = numpyro.sample("rate", dist.Gamma(3.0, scale))
    numpyro.sample("y", dist.Poisson(rate[group]), obs=y)


TABLE = RNG.multinomial(12, [0.2, 0.5, 0.3], 6)


@exact("multinomial", factors={"p": "dirichlet"}, y=TABLE)
def multinomial(y):
    p = numpyro.sample("p", dist.Dirichlet(jnp.array([1.0, 2.0, 0.5])))
    numpyro.sample("y", dist.Multinomial(12, probs=p), obs=y)


@exact("multivariate normal, covariance", factors={"mu": "gaussian"}, cov=SPD, y=POINTS)
def normal_covariance(cov, y):
    mu = numpyro.sample("mu", dist.MultivariateNormal(jnp.ones(3), 2.0 * cov))
    numpyro.sample("y", dist.MultivariateNormal(mu, cov), obs=y)


@exact("multivariate normal, scale_tril", factors={"w": "gaussian"}, x=X[:15, 0], y=POINTS)
def normal_scale_tril(x, y):
    root = np.linalg.cholesky(SPD)
    w = numpyro.sample("w", dist.MultivariateNormal(jnp.zeros(3), scale_tril=root))
    numpyro.sample("y", dist.MultivariateNormal(x[:, None] * w, scale_tril=root), obs=y)


@exact("Wishart precision", factors={"mu": "gaussian", "precision": "wishart"}, y=POINTS)
def wishart(y):
    mu = numpyro.sample("mu", dist.Normal(0.0, 3.0).expand([3]).to_event(1))
    precision = numpyro.sample("precision", dist.Wishart(5.0, scale_matrix=np.eye(3) / 5.0))
    numpyro.sample("y", dist.MultivariateNormal(mu, precision_matrix=precision), obs=y)
