"""Models with discrete latents, small enough for all of their values to be listed."""

import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
from numpyro import handlers
from numpyro.contrib.control_flow import scan

Y = np.array([-1.2, 0.4, 2.1, 1.7, -0.3, 0.9])
COUNTS = np.array([0, 3, 0, 2, 5, 0])
PAIRS = np.array([[0.3, -1.0], [1.4, 0.2], [2.2, -0.7]])


def locations(count=3):
    return numpyro.sample("mu", dist.Normal(0, 2).expand([count]).to_event(1))


def transitions(count=3):
    return numpyro.sample("A", dist.Dirichlet(jnp.full((count, count), 2.0)).to_event(1))


def mixture(y):
    w, mu = numpyro.sample("w", dist.Dirichlet(jnp.ones(3))), locations()
    with numpyro.plate("n", len(y)):
        z = numpyro.sample("z", dist.Categorical(w))
        numpyro.sample("y", dist.Normal(mu[z], 1.0), obs=y)


def two_sites(y):
    w, mu = numpyro.sample("w", dist.Beta(2, 2)), locations()
    with numpyro.plate("n", len(y)):
        on = numpyro.sample("on", dist.Bernoulli(w))
        kind = numpyro.sample(
            "kind", dist.Categorical(logits=jnp.stack([on, 1.0 - on, 0.3 * on], -1))
        )
        numpyro.sample("y", dist.Normal(mu[kind] * on, 1.0 + kind), obs=y)


def two_responses(y):
    mu = locations(2)
    with numpyro.plate("n", len(y)):
        z = numpyro.sample("z", dist.Bernoulli(0.3))
        numpyro.sample("y", dist.Normal(mu[z], 1.0), obs=y)
        numpyro.sample("x", dist.Normal(-mu[z], 2.0), obs=y + 1)


def hmm(y):
    A, mu = transitions(), locations()

    def step(previous, now):
        z = numpyro.sample("z", dist.Categorical(A[previous]), infer={"enumerate": "parallel"})
        numpyro.sample("y", dist.Normal(mu[z], 1.0), obs=now)
        return z, None

    scan(step, 0, y)


def hmm_with_emissions_outside(y):
    A, mu = transitions(), locations()

    def step(previous, _):
        z = numpyro.sample("z", dist.Categorical(A[previous]))
        return z, z

    _, path = scan(step, 0, None, length=6)
    with numpyro.plate("time", 6):
        numpyro.sample("y", dist.Normal(mu[path], 1.0), obs=y)


def hmm_by_loop(y):
    A, mu = transitions(), locations()
    z = 0
    for t in range(6):
        z = numpyro.sample(f"z{t}", dist.Categorical(A[z]))
        numpyro.sample(f"y{t}", dist.Normal(mu[z], 1.0), obs=y[t])


def hmm_of_sequences(y):
    """Two sequences of lengths 4 and 2 in a plate, the tail of the short one masked."""
    A, mu = transitions(2), locations(2)
    lengths = jnp.array([4, 2])

    def step(carry, now):
        previous, t = carry
        with numpyro.plate("sequence", 2), handlers.mask(mask=t < lengths):
            z = numpyro.sample("z", dist.Categorical(A[previous]))
            numpyro.sample("y", dist.Normal(mu[z], 1.0), obs=now)
        return (z, t + 1), None

    scan(step, (jnp.zeros(2, int), 0), jnp.stack([y[:4], y[2:]], 1))


def factorial_hmm(y):
    mu = locations(2)

    def step(carry, now):
        a = numpyro.sample("a", dist.Bernoulli(jnp.array([0.2, 0.7])[carry[0]]))
        b = numpyro.sample("b", dist.Bernoulli(jnp.array([0.4, 0.9])[carry[1]]))
        numpyro.sample("y", dist.Normal(mu[a] + 2 * b, 1.0), obs=now)
        return (a, b), None

    scan(step, (0, 1), y)


def hmm_with_outliers(y):
    mu = locations(2)

    def step(previous, now):
        z = numpyro.sample("z", dist.Bernoulli(jnp.array([0.2, 0.7])[previous]))
        odd = numpyro.sample("odd", dist.Bernoulli(0.1 + 0.2 * previous))
        numpyro.sample("y", dist.Normal(mu[z], 1.0 + 5 * odd), obs=now)
        return z, None

    scan(step, 0, y)


def change_point(y):
    mu = locations(2)
    when = numpyro.sample("when", dist.DiscreteUniform(1, 5))
    late = jnp.arange(len(y)) >= when
    numpyro.sample("y", dist.Normal(jnp.where(late, mu[1], mu[0]), 1.0), obs=y)


def zero_inflated(y):
    rate, gate = numpyro.sample("rate", dist.Gamma(2, 1)), numpyro.sample("gate", dist.Beta(1, 1))
    with numpyro.plate("n", len(y)):
        absent = numpyro.sample("absent", dist.Bernoulli(gate))
        numpyro.sample("y", dist.Poisson(jnp.where(absent, 1e-6, rate)), obs=jnp.array(COUNTS))


def regime_and_kind(y):
    mu = locations(2)
    regime = numpyro.sample("regime", dist.Bernoulli(0.4))
    with numpyro.plate("n", len(y)):
        z = numpyro.sample("z", dist.Bernoulli(0.2 + 0.5 * regime))
        numpyro.sample("y", dist.Normal(mu[z] + regime, 1.0), obs=y)


def nested_plates(y):
    mu = locations(2)
    with numpyro.plate("group", 3, dim=-2):
        g = numpyro.sample("g", dist.Bernoulli(0.3))
        with numpyro.plate("member", 2, dim=-1):
            z = numpyro.sample("z", dist.Bernoulli(0.2 + 0.5 * g))
            numpyro.sample("y", dist.Normal(mu[z] - g, 1.0), obs=jnp.array(PAIRS))


def inclusion(y):
    """Every response uses every indicator, so all of their values are listed together."""
    beta = numpyro.sample("beta", dist.Normal(0, 1).expand([3]).to_event(1))
    with numpyro.plate("predictor", 3):
        used = numpyro.sample("used", dist.Bernoulli(0.3))
    x = jnp.array(np.random.default_rng(0).normal(size=(6, 3)))
    numpyro.sample("y", dist.Normal(x @ (used * beta), 1.0), obs=y)


def binomial(y):
    p, mu = numpyro.sample("p", dist.Beta(2, 2)), locations(2)
    with numpyro.plate("n", len(y)):
        k = numpyro.sample("k", dist.Binomial(3, p))
        numpyro.sample("y", dist.Normal(mu[0] + mu[1] * k, 1.0), obs=y)


def neighbours(y):
    """Each response uses the indicator of another place: no independence in the plate."""
    mu = locations(2)
    with numpyro.plate("n", len(y)):
        z = numpyro.sample("z", dist.Bernoulli(0.3))
        numpyro.sample("y", dist.Normal(mu[z] + mu[z[np.array([1, 2, 0, 4, 3, 3])]], 1.0), obs=y)


def shifted(y):
    """A chain of pairs, written without a loop."""
    mu = locations(2)
    with numpyro.plate("n", len(y)):
        z = numpyro.sample("z", dist.Bernoulli(0.3))
        before = jnp.concatenate([jnp.zeros(1, int), z[:-1]])
        numpyro.factor("pair", 1.5 * z * before)
        numpyro.sample("y", dist.Normal(mu[z], 1.0), obs=y)


def by_matrix(y):
    """Rows of a matrix picked by the value: breaks where values are enumerated by broadcasting."""
    weights = numpyro.sample("weights", dist.Normal(0, 1).expand([3, 2]).to_event(2))
    x = jnp.array(np.random.default_rng(0).normal(size=(6, 2)))
    with numpyro.plate("n", len(y)):
        z = numpyro.sample("z", dist.Categorical(jnp.array([0.5, 0.3, 0.2])))
        numpyro.sample("y", dist.Normal((x * weights[z]).sum(-1), 1.0), obs=y)


def vectors(y):
    """Observations of three numbers share one indicator."""
    mu = locations(2)
    with numpyro.plate("n", 2):
        z = numpyro.sample("z", dist.Bernoulli(0.3))
        numpyro.sample(
            "y", dist.Normal(mu[z][:, None], 1.0).expand([2, 3]).to_event(1), obs=y.reshape(2, 3)
        )


MODELS = [
    *(mixture, two_sites, two_responses, hmm, hmm_with_emissions_outside, hmm_by_loop),
    *(factorial_hmm, hmm_with_outliers, change_point, zero_inflated, regime_and_kind),
    *(nested_plates, inclusion, binomial, neighbours, shifted, by_matrix, vectors),
]
