"""Models with a site that no low-dimensional rule reaches: it is left to draws."""

from functools import partial

import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
from zoo_case import Case, register

CASES: list[Case] = []
drawn = partial(register, CASES, method="draws")

RNG = np.random.default_rng(23)
N, GROUPS = 24, 4
X = RNG.standard_normal((N, 3))
GROUP = np.arange(N) % GROUPS
ETA = X @ np.array([0.6, -0.4, 0.2]) + 0.3
Y = ETA + 0.5 * RNG.standard_normal(N)
BINARY = (RNG.uniform(size=N) < 1.0 / (1.0 + np.exp(-ETA))).astype(int)
ORDER = np.digitize(Y, [-0.5, 0.6])


@drawn("softmax regression", factors={"w": "gaussian"}, x=X, y=ORDER)
def softmax(x, y):
    w = numpyro.sample("w", dist.Normal(0.0, 1.0).expand([x.shape[1], 3]).to_event(2))
    numpyro.sample("y", dist.Categorical(logits=x @ w), obs=y)


NON_CENTRED = {"mu": "gaussian", "sd": "gaussian", "z": "gaussian"}


@drawn("hierarchical logistic, non-centred", factors=NON_CENTRED, group=GROUP, y=BINARY)
def non_centred_logistic(group, y):
    mu = numpyro.sample("mu", dist.Normal(0.0, 1.5))
    sd = numpyro.sample("sd", dist.HalfNormal(1.0))
    with numpyro.plate("groups", GROUPS):
        z = numpyro.sample("z", dist.Normal(0.0, 1.0))
    numpyro.sample("y", dist.Bernoulli(logits=(mu + sd * z)[group]), obs=y)


MIXTURE = {"pi": "dirichlet", "mu": "gaussian", "sigma": "gaussian:own"}


@drawn("marginalised mixture", factors=MIXTURE, y=3.0 * Y)
def marginal_mixture(y):
    pi = numpyro.sample("pi", dist.Dirichlet(jnp.ones(2)))
    mu = numpyro.sample("mu", dist.Normal(0.0, 3.0).expand([2]).to_event(1))
    sigma = numpyro.sample("sigma", dist.LogNormal(0.0, 0.5).expand([2]).to_event(1))
    parts = dist.Normal(mu, sigma)
    numpyro.sample("y", dist.MixtureSameFamily(dist.Categorical(pi), parts), obs=y)


CUTS = {"w": "gaussian", "cutpoints": "gaussian"}


@drawn("ordered logistic, unknown cutpoints", factors=CUTS, x=X, y=ORDER)
def ordered_logistic(x, y):
    w = numpyro.sample("w", dist.Normal(0.0, 1.5).expand([x.shape[1]]).to_event(1))
    ordered = dist.transforms.OrderedTransform()
    base = dist.Normal(0.0, 1.0).expand([2]).to_event(1)
    cutpoints = numpyro.sample("cutpoints", dist.TransformedDistribution(base, ordered))
    numpyro.sample("y", dist.OrderedLogistic(x @ w, cutpoints), obs=y)


SLOPES = dict.fromkeys(("mu", "sd", "root", "coef"), "gaussian") | {"tau": "gamma"}


@drawn("varying slopes, LKJ correlation", factors=SLOPES, x=X[:, 0], group=GROUP, y=Y)
def correlated_slopes(x, group, y):
    mu = numpyro.sample("mu", dist.Normal(0.0, 2.0).expand([2]).to_event(1))
    sd = numpyro.sample("sd", dist.HalfNormal(1.0).expand([2]).to_event(1))
    root = numpyro.sample("root", dist.LKJCholesky(2, concentration=2.0))
    tau = numpyro.sample("tau", dist.Gamma(2.0, 1.0))
    with numpyro.plate("groups", GROUPS):
        scaled = dist.MultivariateNormal(mu, scale_tril=sd[:, None] * root)
        coef = numpyro.sample("coef", scaled)
    mean = coef[group, 0] + coef[group, 1] * x
    numpyro.sample("y", dist.Normal(mean, 1.0 / jnp.sqrt(tau)), obs=y)


POINTS = RNG.standard_normal((12, 3)) @ np.array([[1.0, 0.5, 0.2], [0, 0.8, -0.3], [0, 0, 0.6]])
COVARIANCE = {"mu": "gaussian", "sd": "gaussian:own", "root": "gaussian:own"}


@drawn("multivariate normal, LKJ correlation", factors=COVARIANCE, y=POINTS)
def lkj_covariance(y):
    mu = numpyro.sample("mu", dist.Normal(0.0, 2.0).expand([3]).to_event(1))
    sd = numpyro.sample("sd", dist.HalfNormal(1.0).expand([3]).to_event(1))
    root = numpyro.sample("root", dist.LKJCholesky(3, concentration=1.5))
    numpyro.sample("y", dist.MultivariateNormal(mu, scale_tril=sd[:, None] * root), obs=y)
