"""Models with rows, and models whose rows are none, for the stochastic natural solver."""

import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist

TOPICS, WORDS, LENGTH = 3, 12, 20
CENTRES = np.array([[-4.0, 0.0], [3.0, 3.0], [3.0, -4.0]])


# --- rows -------------------------------------------------------------------------------------


def mean_of_rows(x):
    m = numpyro.sample("m", dist.Normal(0.0, 10.0))
    with numpyro.plate("rows", len(x)):
        numpyro.sample("x", dist.Normal(m, 1.0), obs=x)


def mixture(y):
    pi = numpyro.sample("pi", dist.Dirichlet(jnp.full(3, 1.5)))
    with numpyro.plate("components", 3):
        mu = numpyro.sample("mu", dist.Normal(0.0, 5.0).expand([2]).to_event(1))
        tau = numpyro.sample("tau", dist.Gamma(2.0, 1.5).expand([2]).to_event(1))
    with numpyro.plate("rows", len(y)):
        z = numpyro.sample("z", dist.Categorical(pi))
        numpyro.sample("y", dist.Normal(mu[z], 1.0 / jnp.sqrt(tau[z])).to_event(1), obs=y)


def mixture_of_known_spread(y):
    with numpyro.plate("components", 3):
        mu = numpyro.sample("mu", dist.Normal(0.0, 5.0).expand([2]).to_event(1))
    with numpyro.plate("rows", len(y)):
        z = numpyro.sample("z", dist.Categorical(jnp.array([0.5, 0.3, 0.2])))
        numpyro.sample("y", dist.Normal(mu[z], 1.0).to_event(1), obs=y)


def topics(words):
    """Latent Dirichlet allocation; a row is a document."""
    docs, length = words.shape
    with numpyro.plate("topics", TOPICS):
        topic = numpyro.sample("topic", dist.Dirichlet(jnp.full(WORDS, 0.2)))
    with numpyro.plate("docs", docs, dim=-2):
        theta = numpyro.sample("theta", dist.Dirichlet(jnp.full(TOPICS, 0.5)))
        with numpyro.plate("tokens", length, dim=-1):
            z = numpyro.sample("z", dist.Categorical(theta))
            numpyro.sample("word", dist.Categorical(topic[z]), obs=words)


def topics_across(words):
    """The same with documents along the last axis of z."""
    docs, length = words.shape
    with numpyro.plate("topics", TOPICS):
        topic = numpyro.sample("topic", dist.Dirichlet(jnp.full(WORDS, 0.2)))
    with numpyro.plate("docs", docs):
        theta = numpyro.sample("theta", dist.Dirichlet(jnp.full(TOPICS, 0.5)))
        with numpyro.plate("tokens", length):
            z = numpyro.sample("z", dist.Categorical(theta))
            numpyro.sample("word", dist.Categorical(topic[z]), obs=words.T)


def counts(x, n):
    """Overdispersed counts: an effect of every row beside a slope that they share."""
    slope = numpyro.sample("slope", dist.Normal(0.0, 2.0))
    tau = numpyro.sample("tau", dist.Gamma(2.0, 1.0))
    with numpyro.plate("rows", len(n)):
        effect = numpyro.sample("effect", dist.Normal(slope * x, 1.0 / jnp.sqrt(tau)))
        numpyro.sample("n", dist.Poisson(jnp.exp(effect)), obs=n)


def groups(x, group, of_group, y):
    """Rows in groups; the groups' effects are shared by rows."""
    b = numpyro.sample("b", dist.Normal(0.0, 2.0))
    with numpyro.plate("groups", 7):
        a = numpyro.sample("a", dist.Normal(of_group, 1.0))
    with numpyro.plate("rows", len(y)):
        numpyro.sample("y", dist.Normal(a[group] + b * x, 0.5), obs=y)


# --- no rows ----------------------------------------------------------------------------------


def plate_of_fixed_size(y):
    m = numpyro.sample("m", dist.Normal(0.0, 1.0))
    with numpyro.plate("rows", 60):
        numpyro.sample("y", dist.Normal(m, 1.0), obs=y)


def latents_of_fixed_size(y):
    with numpyro.plate("rows", 60):
        u = numpyro.sample("u", dist.Normal(0.0, 1.0))
    numpyro.sample("y", dist.Normal(jnp.sum(u), 1.0), obs=jnp.sum(y))


def random_walk(y):
    m = numpyro.sample("m", dist.Normal(0.0, 1.0))
    numpyro.sample("first", dist.Normal(m, 1.0), obs=y[0])
    numpyro.sample("steps", dist.Normal(m * y[:-1], 1.0), obs=y[1:])


def centred_rows(y):
    m = numpyro.sample("m", dist.Normal(0.0, 1.0))
    with numpyro.plate("rows", len(y)):
        numpyro.sample("y", dist.Normal(m, 1.0), obs=y - jnp.mean(y))


def prior_from_data(y):
    m = numpyro.sample("m", dist.Normal(jnp.mean(y), 1.0))
    with numpyro.plate("rows", len(y)):
        numpyro.sample("y", dist.Normal(m, 1.0), obs=y)


def no_data():
    m = numpyro.sample("m", dist.Normal(0.0, 1.0))
    numpyro.sample("y", dist.Normal(m, 1.0), obs=jnp.array([0.3, 0.1]))


# --- data -------------------------------------------------------------------------------------


def make_points(num):
    rng = np.random.default_rng(3)
    z = rng.choice(3, num, p=[0.5, 0.3, 0.2])
    return {"y": CENTRES[z] + rng.standard_normal((num, 2)) * np.array([0.7, 1.2])}


def make_words(docs):
    rng = np.random.default_rng(4)
    topic = rng.dirichlet(np.full(WORDS, 0.2), TOPICS)
    theta = rng.dirichlet(np.full(TOPICS, 0.4), docs)
    z = np.array([rng.choice(TOPICS, LENGTH, p=t) for t in theta])
    return {"words": np.array([[rng.choice(WORDS, p=topic[k]) for k in row] for row in z])}


def make_counts(num):
    rng = np.random.default_rng(5)
    x = rng.standard_normal(num)
    return {"x": x, "n": rng.poisson(np.exp(0.8 * x + 0.6 * rng.standard_normal(num)))}


def make_groups(num):
    rng = np.random.default_rng(6)
    x, group, of_group = (
        rng.standard_normal(num), rng.integers(0, 7, num), rng.standard_normal(7)
    )  # fmt: skip
    y = of_group[group] + 0.5 * x + 0.5 * rng.standard_normal(num)
    return {"x": x, "group": group, "of_group": of_group, "y": y}
