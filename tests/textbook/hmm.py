"""Hidden Markov models: q(z) is a Markov chain, exact given the other factors.

MacKay (1997), Ensemble learning for hidden Markov models; Beal (2003), Variational algorithms for
approximate Bayesian inference, chapter 3. The labels are the sites z_0, z_1, ...; ``scan_model``
is the Gaussian model with all of them in the site z of a scan.
"""

import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
from numpyro.contrib.control_flow import scan

from textbook.ascent import Textbook
from textbook.factors import LOG_2PI, Dirichlet, Normal
from textbook.joint_factors import Chain

K, SYMBOLS, LENGTH, SD = 3, 4, 30, 0.8
INITIAL = np.array([0.5, 0.3, 0.2])
ROWS, MU, EMISSION = Dirichlet(np.full(K, 1.3)), Normal(0.5, 9.0), Dirichlet(np.full(SYMBOLS, 0.9))
LABELS = tuple(f"z_{t}" for t in range(LENGTH))


def _labels(rng):
    rows, z = np.array([[0.8, 0.1, 0.1], [0.1, 0.8, 0.1], [0.3, 0.0, 0.7]]), [0]
    for _ in range(LENGTH - 1):
        z.append(rng.choice(K, p=rows[z[-1]]))
    return np.array(z)


def gaussian_data():
    rng = np.random.default_rng(36)
    return {"y": np.array([-2.0, 0.5, 3.0])[_labels(rng)] + SD * rng.standard_normal(LENGTH)}


def categorical_data():
    rng = np.random.default_rng(37)
    table = np.array([[0.7, 0.1, 0.1, 0.1], [0.1, 0.8, 0.1, 0.0], [0.0, 0.1, 0.3, 0.6]])
    return {"y": np.array([rng.choice(SYMBOLS, p=table[k]) for k in _labels(rng)])}


def _sites(rows, of_label, y):
    z = numpyro.sample("z_0", dist.Categorical(jnp.asarray(INITIAL)))
    numpyro.sample("y_0", of_label(z), obs=y[0])
    for t in range(1, len(y)):
        z = numpyro.sample(f"z_{t}", dist.Categorical(rows[z]))
        numpyro.sample(f"y_{t}", of_label(z), obs=y[t])


def gaussian_model(y):
    with numpyro.plate("states", K):
        rows = numpyro.sample("rows", dist.Dirichlet(jnp.asarray(ROWS.a)))
        mu = numpyro.sample("mu", dist.Normal(MU.mean, MU.variance**0.5))
    _sites(rows, lambda z: dist.Normal(mu[z], SD), y)


def scan_model(y):
    """The Gaussian model with the sites z and y, each (t,), in a scan."""
    with numpyro.plate("states", K):
        rows = numpyro.sample("rows", dist.Dirichlet(jnp.asarray(ROWS.a)))
        mu = numpyro.sample("mu", dist.Normal(MU.mean, MU.variance**0.5))
    table = jnp.concatenate([rows, jnp.asarray(INITIAL)[None]])  # its last row starts the chain

    def step(previous, y_t):
        z = numpyro.sample("z", dist.Categorical(table[previous]))
        numpyro.sample("y", dist.Normal(mu[z], SD), obs=y_t)
        return z, None

    scan(step, jnp.asarray(K), y)


def categorical_model(y):
    with numpyro.plate("states", K):
        rows = numpyro.sample("rows", dist.Dirichlet(jnp.asarray(ROWS.a)))
        emission = numpyro.sample("emission", dist.Dirichlet(jnp.asarray(EMISSION.a)))
    _sites(rows, lambda z: dist.Categorical(emission[z]), y)


def _fit_of_labels(data, q):
    """E[log p(y_t | z_t = k)], (t, k)."""
    y = data["y"]
    if "emission" in q:
        return q["emission"].log.T[y]
    mu = q["mu"]
    square = (y[:, None] - mu.mean) ** 2 + mu.variance
    return -0.5 * (LOG_2PI + np.log(SD**2) + square / SD**2)


def update_labels(data, q):
    """Forward-backward with exp of expected log parameters: Beal (2003), eq. 3.64 on."""
    return Chain.from_potentials(np.log(INITIAL), q["rows"].log, _fit_of_labels(data, q))


def update_rows(data, q):
    return Dirichlet(ROWS.a + q[LABELS].pairs.sum(axis=0))


def update_mu(data, q):
    r = q[LABELS].marginals
    precision = 1.0 / MU.variance + r.sum(axis=0) / SD**2
    return Normal((MU.mean / MU.variance + r.T @ data["y"] / SD**2) / precision, 1.0 / precision)


def update_emission(data, q):
    return Dirichlet(EMISSION.a + q[LABELS].marginals.T @ np.eye(SYMBOLS)[data["y"]])


def expected_log_joint(data, q):
    chain = q[LABELS]
    total = np.sum(chain.initial * np.log(INITIAL)) + np.sum(chain.pairs * q["rows"].log)
    total += np.sum(chain.marginals * _fit_of_labels(data, q)) + ROWS.mean_log_prob(q["rows"])
    if "emission" in q:
        return total + EMISSION.mean_log_prob(q["emission"])
    return total + MU.mean_log_prob(q["mu"])


def _start_labels():
    return Chain(np.full(K, 1.0 / K), np.full((LENGTH - 1, K, K), 1.0 / K))


def gaussian_start(data):
    spread = np.quantile(data["y"], [0.2, 0.5, 0.8])
    rows = Dirichlet(np.ones((K, K)) + np.eye(K))
    return {"rows": rows, "mu": Normal(spread, np.ones(K)), LABELS: _start_labels()}


def categorical_start(data):
    emission = Dirichlet(1.0 + 2.0 * np.eye(K, SYMBOLS))
    return {
        "rows": Dirichlet(np.ones((K, K)) + np.eye(K)),
        "emission": emission,
        LABELS: _start_labels(),
    }


SOURCE = "MacKay (1997); Beal (2003), chapter 3"
BOOKS = (
    Textbook(
        "hidden Markov model, Gaussian emission",
        SOURCE,
        gaussian_model,
        gaussian_data,
        gaussian_start,
        {LABELS: update_labels, "rows": update_rows, "mu": update_mu},
        expected_log_joint,
    ),
    Textbook(
        "hidden Markov model, categorical emission",
        SOURCE,
        categorical_model,
        categorical_data,
        categorical_start,
        {LABELS: update_labels, "rows": update_rows, "emission": update_emission},
        expected_log_joint,
    ),
)
