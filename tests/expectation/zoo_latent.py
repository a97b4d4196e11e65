"""Models with labels, latent series or products of latents; their expected log joint is exact."""

from functools import partial

import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
from zoo_case import Case, register

CASES: list[Case] = []
exact = partial(register, CASES, method="exact")

RNG = np.random.default_rng(21)
N, K = 30, 3
LABEL = np.arange(N) % K
CLOUD = np.array([[-2.0, 0.0], [0.0, 1.5], [2.0, -1.0]])[LABEL] + 0.6 * RNG.standard_normal((N, 2))
BINARY = (RNG.uniform(size=(N, 4)) < np.array([0.2, 0.5, 0.8])[LABEL, None]).astype(int)
X = RNG.standard_normal((N, 2))
Y = np.sum(X * CLOUD, axis=1) + 0.3 * RNG.standard_normal(N)
SERIES = np.cumsum(RNG.standard_normal(20)) * 0.5
SHORT = SERIES[:8]


@exact(
    "mixture of Gaussians",
    factors={"pi": "dirichlet", "mu": "gaussian:own", "tau": "gamma", "z": "categorical"},
    y=CLOUD,
)
def gaussian_mixture(y):
    pi = numpyro.sample("pi", dist.Dirichlet(jnp.ones(K)))
    with numpyro.plate("components", K):
        mu = numpyro.sample("mu", dist.Normal(0.0, 3.0).expand([2]).to_event(1))
        tau = numpyro.sample("tau", dist.Gamma(2.0, 1.0).expand([2]).to_event(1))
    with numpyro.plate("rows", len(y)):
        z = numpyro.sample("z", dist.Categorical(pi))
        numpyro.sample("y", dist.Normal(mu[z], 1.0 / jnp.sqrt(tau[z])).to_event(1), obs=y)


@exact(
    "mixture of Gaussians, Wishart precisions",
    factors={"pi": "dirichlet", "mu": "gaussian:own", "precision": "wishart", "z": "categorical"},
    y=CLOUD,
)
def wishart_mixture(y):
    pi = numpyro.sample("pi", dist.Dirichlet(jnp.ones(K)))
    with numpyro.plate("components", K):
        mu = numpyro.sample("mu", dist.MultivariateNormal(jnp.zeros(2), 9.0 * jnp.eye(2)))
        precision = numpyro.sample("precision", dist.Wishart(4.0, scale_matrix=jnp.eye(2)))
    with numpyro.plate("rows", len(y)):
        z = numpyro.sample("z", dist.Categorical(pi))
        of_row = dist.MultivariateNormal(mu[z], precision_matrix=precision[z])
        numpyro.sample("y", of_row, obs=y)


@exact(
    "mixture of Bernoullis",
    factors={"pi": "dirichlet", "theta": "beta", "z": "categorical"},
    y=BINARY,
)
def bernoulli_mixture(y):
    pi = numpyro.sample("pi", dist.Dirichlet(2.0 * jnp.ones(K)))
    with numpyro.plate("components", K):
        theta = numpyro.sample("theta", dist.Beta(1.5, 1.5).expand([4]).to_event(1))
    with numpyro.plate("rows", len(y)):
        z = numpyro.sample("z", dist.Categorical(pi))
        numpyro.sample("y", dist.Bernoulli(theta[z]).to_event(1), obs=y)


@exact(
    "mixture of regressions",
    factors={"pi": "dirichlet", "w": "gaussian", "tau": "gamma", "z": "categorical"},
    x=X,
    y=Y,
)
def regression_mixture(x, y):
    pi = numpyro.sample("pi", dist.Dirichlet(jnp.ones(K)))
    with numpyro.plate("components", K):
        w = numpyro.sample("w", dist.Normal(0.0, 2.0).expand([2]).to_event(1))
        tau = numpyro.sample("tau", dist.Gamma(2.0, 1.0))
    with numpyro.plate("rows", len(y)):
        z = numpyro.sample("z", dist.Categorical(pi))
        mean = jnp.sum(x * w[z], axis=-1)
        numpyro.sample("y", dist.Normal(mean, 1.0 / jnp.sqrt(tau[z])), obs=y)


DOC, WORD = np.repeat(np.arange(5), 8), RNG.integers(0, 6, 40)


@exact(
    "latent Dirichlet allocation",
    factors={"topic": "dirichlet", "theta": "dirichlet", "z": "categorical"},
    doc=DOC,
    word=WORD,
)
def lda(doc, word):
    with numpyro.plate("topics", K):
        topic = numpyro.sample("topic", dist.Dirichlet(0.5 * jnp.ones(6)))
    with numpyro.plate("docs", 5):
        theta = numpyro.sample("theta", dist.Dirichlet(jnp.ones(K)))
    with numpyro.plate("words", len(word)):
        z = numpyro.sample("z", dist.Categorical(theta[doc]))
        numpyro.sample("word", dist.Categorical(topic[z]), obs=word)


LOADED = CLOUD @ RNG.standard_normal((2, 4)) + 0.2 * RNG.standard_normal((N, 4))


@exact(
    "probabilistic PCA",
    factors={"w": "gaussian:own", "z": "gaussian:own", "mu": "gaussian:own", "tau": "gamma"},
    y=LOADED,
)
def ppca(y):
    tau = numpyro.sample("tau", dist.Gamma(2.0, 1.0))
    mu = numpyro.sample("mu", dist.Normal(0.0, 3.0).expand([4]).to_event(1))
    w = numpyro.sample("w", dist.Normal(0.0, 1.0).expand([4, 2]).to_event(2))
    with numpyro.plate("rows", len(y)):
        z = numpyro.sample("z", dist.Normal(0.0, 1.0).expand([2]).to_event(1))
        numpyro.sample("y", dist.Normal(z @ w.T + mu, 1.0 / jnp.sqrt(tau)).to_event(1), obs=y)


USER, ITEM = np.divmod(np.flatnonzero(RNG.uniform(size=42) < 0.6), 7)


@exact(
    "matrix factorisation",
    factors={"u": "gaussian:own", "v": "gaussian:own", "tau": "gamma"},
    user=USER,
    item=ITEM,
    y=RNG.standard_normal(len(USER)),
)
def matrix_factorisation(user, item, y):
    tau = numpyro.sample("tau", dist.Gamma(2.0, 1.0))
    with numpyro.plate("users", 6):
        u = numpyro.sample("u", dist.Normal(0.0, 1.0).expand([2]).to_event(1))
    with numpyro.plate("items", 7):
        v = numpyro.sample("v", dist.Normal(0.0, 1.0).expand([2]).to_event(1))
    score = jnp.einsum("nk,nk->n", u[user], v[item])
    numpyro.sample("y", dist.Normal(score, 1.0 / jnp.sqrt(tau)), obs=y)


LABELS = {f"z_{t}": "categorical" for t in range(len(SHORT))}


@exact(
    "hidden Markov model, factorised labels",
    factors={"rows": "dirichlet", "mu": "gaussian:own", **LABELS},
    y=SHORT,
)
def hmm(y):
    with numpyro.plate("states", K):
        rows = numpyro.sample("rows", dist.Dirichlet(jnp.ones(K)))
        mu = numpyro.sample("mu", dist.Normal(0.0, 3.0))
    z = numpyro.sample("z_0", dist.Categorical(jnp.ones(K) / K))
    numpyro.sample("y_0", dist.Normal(mu[z], 0.5), obs=y[0])
    for t in range(1, len(y)):
        z = numpyro.sample(f"z_{t}", dist.Categorical(rows[z]))
        numpyro.sample(f"y_{t}", dist.Normal(mu[z], 0.5), obs=y[t])


@exact(
    "random walk, cumulated steps",
    factors={"start": "gaussian", "step": "gaussian", "tau_step": "gamma", "tau": "gamma"},
    y=SERIES,
)
def random_walk(y):
    tau_step = numpyro.sample("tau_step", dist.Gamma(2.0, 1.0))
    tau = numpyro.sample("tau", dist.Gamma(2.0, 1.0))
    start = numpyro.sample("start", dist.Normal(0.0, 3.0))
    with numpyro.plate("steps", len(y) - 1):
        step = numpyro.sample("step", dist.Normal(0.0, 1.0 / jnp.sqrt(tau_step)))
    level = start + jnp.concatenate([jnp.zeros(1), jnp.cumsum(step)])
    numpyro.sample("y", dist.Normal(level, 1.0 / jnp.sqrt(tau)), obs=y)


@exact("GaussianRandomWalk", factors={"level": "gaussian", "tau": "gamma"}, y=SERIES)
def gaussian_random_walk(y):
    tau = numpyro.sample("tau", dist.Gamma(2.0, 1.0))
    level = numpyro.sample("level", dist.GaussianRandomWalk(0.5, num_steps=len(y)))
    numpyro.sample("y", dist.Normal(level, 1.0 / jnp.sqrt(tau)), obs=y)


LEVELS = {f"x_{t}": "gaussian" for t in range(len(SHORT))}


@exact(
    "latent autoregression, unknown coefficient",
    factors={"phi": "gaussian", "tau": "gamma", **LEVELS},
    y=SHORT,
)
def autoregression(y):
    """phi is in the block with the states that it multiplies: moments of order four."""
    phi = numpyro.sample("phi", dist.Normal(0.0, 1.0))
    tau = numpyro.sample("tau", dist.Gamma(2.0, 1.0))
    x = numpyro.sample("x_0", dist.Normal(0.0, 2.0))
    numpyro.sample("y_0", dist.Normal(x, 0.3), obs=y[0])
    for t in range(1, len(y)):
        x = numpyro.sample(f"x_{t}", dist.Normal(phi * x, 1.0 / jnp.sqrt(tau)))
        numpyro.sample(f"y_{t}", dist.Normal(x, 0.3), obs=y[t])


TIME = np.linspace(0.0, 3.0, 12)
KERNEL = np.exp(-0.5 * (TIME[:, None] - TIME) ** 2) + 1e-4 * np.eye(12)
GP = {"f": "gaussian", "tau": "gamma"}


@exact("Gaussian process, fixed kernel", factors=GP, kernel=KERNEL, y=np.sin(TIME))
def gaussian_process(kernel, y):
    tau = numpyro.sample("tau", dist.Gamma(2.0, 1.0))
    f = numpyro.sample("f", dist.MultivariateNormal(jnp.zeros(len(y)), kernel))
    numpyro.sample("y", dist.Normal(f, 1.0 / jnp.sqrt(tau)), obs=y)


EVENTS = RNG.poisson(np.exp(np.sin(TIME)))


@exact("log-Gaussian Cox process", factors={"f": "gaussian"}, kernel=KERNEL, y=EVENTS)
def cox_process(kernel, y):
    root = jnp.linalg.cholesky(kernel)
    f = numpyro.sample("f", dist.MultivariateNormal(jnp.zeros(len(y)), scale_tril=root))
    numpyro.sample("y", dist.Poisson(jnp.exp(f)), obs=y)
