"""Mixture of products of Bernoullis: the model of Bishop (2006), section 9.3.3, with priors."""

import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist

from textbook.ascent import Textbook
from textbook.factors import Beta, Categorical, Dirichlet

K, D = 3, 6
WEIGHTS, THETA = Dirichlet(np.full(K, 2.0)), Beta(1.2, 1.4)


def make_data():
    rng = np.random.default_rng(35)
    theta = rng.beta(0.5, 0.5, (K, D))
    z = rng.choice(K, size=60, p=[0.4, 0.4, 0.2])
    return {"y": (rng.uniform(size=(60, D)) < theta[z]).astype(int)}


def model(y):
    pi = numpyro.sample("pi", dist.Dirichlet(jnp.asarray(WEIGHTS.a)))
    with numpyro.plate("components", K):
        theta = numpyro.sample("theta", dist.Beta(THETA.a, THETA.b).expand([D]).to_event(1))
    with numpyro.plate("rows", len(y)):
        z = numpyro.sample("z", dist.Categorical(pi))
        numpyro.sample("y", dist.Bernoulli(theta[z]).to_event(1), obs=y)


def _logits(data, q):
    """E[log pi_k] + E[log p(y_n | theta_k)], (n, k)."""
    y, theta = data["y"], q["theta"]
    return q["pi"].log + y @ theta.log.T + (1 - y) @ theta.log_rest.T


def update_pi(data, q):
    return Dirichlet(WEIGHTS.a + q["z"].probs.sum(axis=0))


def update_theta(data, q):
    y, r = data["y"], q["z"].probs
    return Beta(THETA.a + r.T @ y, THETA.b + r.T @ (1 - y))


def update_z(data, q):
    return Categorical.from_logits(_logits(data, q))


def expected_log_joint(data, q):
    rows = np.sum(q["z"].probs * _logits(data, q))
    return rows + WEIGHTS.mean_log_prob(q["pi"]) + THETA.mean_log_prob(q["theta"])


def make_start(data):
    """Soft labels from the first two columns."""
    label = np.minimum(data["y"][:, 0] + data["y"][:, 1], K - 1)
    return {
        "pi": Dirichlet(np.ones(K)),
        "theta": Beta(np.ones((K, D)), np.ones((K, D))),
        "z": Categorical(np.full((len(label), K), 0.1) + 0.7 * np.eye(K)[label]),
    }


BOOKS = (
    Textbook(
        "Bernoulli mixture",
        "Bishop (2006), section 9.3.3 with the factorisation of section 10.2",
        model,
        make_data,
        make_start,
        {"pi": update_pi, "theta": update_theta, "z": update_z},
        expected_log_joint,
    ),
)
