"""Gaussian mixtures with diagonal covariance: means and precisions independent, or joint.

Updates: Bishop (2006), section 10.2, with the Wishart replaced by gammas; factorised form as in
Blei, Kucukelbir and McAuliffe (2017), section 3.
"""

import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist

from textbook.ascent import Textbook
from textbook.factors import LOG_2PI, Categorical, Dirichlet, Gamma, Normal
from textbook.joint_factors import NormalGamma

K, D = 3, 2
WEIGHTS = Dirichlet(np.full(K, 1.5))
MEANS, PRECISIONS = Normal(0.5, 9.0), Gamma(2.0, 1.5)
KAPPA = 0.2
JOINT = NormalGamma(0.5, KAPPA, PRECISIONS.a, PRECISIONS.b)


def make_data():
    rng = np.random.default_rng(32)
    centres = np.array([[-2.0, 0.0], [1.0, 2.0], [2.0, -2.0]])
    spreads = np.array([[0.5, 1.0], [0.8, 0.4], [1.0, 0.7]])
    z = rng.choice(K, size=60, p=[0.5, 0.3, 0.2])
    return {"y": centres[z] + spreads[z] * rng.standard_normal((60, D))}


def _rows(pi, mu, tau, y):
    with numpyro.plate("rows", len(y)):
        z = numpyro.sample("z", dist.Categorical(pi))
        numpyro.sample("y", dist.Normal(mu[z], 1.0 / jnp.sqrt(tau[z])).to_event(1), obs=y)


def factorised_model(y):
    pi = numpyro.sample("pi", dist.Dirichlet(jnp.asarray(WEIGHTS.a)))
    with numpyro.plate("components", K):
        mu = numpyro.sample(
            "mu", dist.Normal(MEANS.mean, MEANS.variance**0.5).expand([D]).to_event(1)
        )
        tau = numpyro.sample("tau", dist.Gamma(PRECISIONS.a, PRECISIONS.b).expand([D]).to_event(1))
    _rows(pi, mu, tau, y)


def joint_model(y):
    pi = numpyro.sample("pi", dist.Dirichlet(jnp.asarray(WEIGHTS.a)))
    with numpyro.plate("components", K):
        tau = numpyro.sample("tau", dist.Gamma(PRECISIONS.a, PRECISIONS.b).expand([D]).to_event(1))
        mu = numpyro.sample("mu", dist.Normal(JOINT.mean, 1.0 / jnp.sqrt(KAPPA * tau)).to_event(1))
    _rows(pi, mu, tau, y)


def _squares(data, q):
    """E[tau], E[log tau], E[tau (y - mu)^2]: (k, d), (k, d), (n, k, d)."""
    away = data["y"][:, None, :]
    if ("mu", "tau") in q:
        both = q["mu", "tau"]
        square = both.tau.mean * (away - both.mean) ** 2 + 1.0 / both.kappa
        return both.tau.mean, both.tau.log, square
    mu, tau = q["mu"], q["tau"]
    return tau.mean, tau.log, tau.mean * ((away - mu.mean) ** 2 + mu.variance)


def _fit_of_rows(data, q):
    """E[log N(y_n | mu_k, tau_k)], (n, k)."""
    _, log, square = _squares(data, q)
    return 0.5 * np.sum(log - LOG_2PI - square, axis=-1)


def update_pi(data, q):
    """PRML 10.58."""
    return Dirichlet(WEIGHTS.a + q["z"].probs.sum(axis=0))


def update_z(data, q):
    """PRML 10.46, 10.49."""
    return Categorical.from_logits(q["pi"].log + _fit_of_rows(data, q))


def update_mu(data, q):
    r, tau = q["z"].probs, q["tau"].mean
    precision = 1.0 / MEANS.variance + r.sum(axis=0)[:, None] * tau
    return Normal(
        (MEANS.mean / MEANS.variance + tau * (r.T @ data["y"])) / precision, 1.0 / precision
    )


def update_tau(data, q):
    r, mu = q["z"].probs, q["mu"]
    square = (data["y"][:, None, :] - mu.mean) ** 2 + mu.variance
    a = np.broadcast_to(PRECISIONS.a + 0.5 * r.sum(axis=0)[:, None], (K, D))
    return Gamma(a, PRECISIONS.b + 0.5 * np.einsum("nk,nkd->kd", r, square))


def update_joint(data, q):
    """PRML 10.60 to 10.63 in one dimension each."""
    r, y = q["z"].probs, data["y"]
    count = r.sum(axis=0)[:, None]
    mean = r.T @ y / count
    spread = np.einsum("nk,nkd->kd", r, (y[:, None, :] - mean) ** 2)
    kappa = KAPPA + count
    pull = KAPPA * count / kappa * (mean - JOINT.mean) ** 2
    return NormalGamma(
        (KAPPA * JOINT.mean + count * mean) / kappa,
        np.broadcast_to(kappa, (K, D)),
        np.broadcast_to(JOINT.a + 0.5 * count, (K, D)),
        JOINT.b + 0.5 * (spread + pull),
    )


def expected_log_joint(data, q):
    r = q["z"].probs
    total = WEIGHTS.mean_log_prob(q["pi"]) + np.sum(r * (q["pi"].log + _fit_of_rows(data, q)))
    if ("mu", "tau") in q:
        return total + JOINT.mean_log_prob(q["mu", "tau"])
    return total + MEANS.mean_log_prob(q["mu"]) + PRECISIONS.mean_log_prob(q["tau"])


def _labels(data):
    """Soft labels from thirds of the order along the first coordinate."""
    rank = np.argsort(np.argsort(data["y"][:, 0]))
    third = rank * K // len(rank)
    return Categorical(np.full((len(rank), K), 0.1) + 0.7 * np.eye(K)[third])


def factorised_start(data):
    return {
        "pi": Dirichlet(np.ones(K)),
        "mu": Normal(np.zeros((K, D)), np.ones((K, D))),
        "tau": Gamma(np.ones((K, D)), np.ones((K, D))),
        "z": _labels(data),
    }


def joint_start(data):
    ones = np.ones((K, D))
    both = NormalGamma(0.0 * ones, ones, ones, ones)
    return {"pi": Dirichlet(np.ones(K)), ("mu", "tau"): both, "z": _labels(data)}


BOOKS = (
    Textbook(
        "diagonal Gaussian mixture, factorised",
        "Blei, Kucukelbir and McAuliffe (2017), section 3; Bishop (2006), section 10.2",
        factorised_model,
        make_data,
        factorised_start,
        {"pi": update_pi, "mu": update_mu, "tau": update_tau, "z": update_z},
        expected_log_joint,
    ),
    Textbook(
        "diagonal Gaussian mixture, normal-gamma",
        "Bishop (2006), section 10.2",
        joint_model,
        make_data,
        joint_start,
        {"pi": update_pi, ("mu", "tau"): update_joint, "z": update_z},
        expected_log_joint,
    ),
)
