"""Gaussian mixtures with full covariance: mean and precision independent, or normal-Wishart.

Bishop (2006), section 10.2; with independent factors: Ghahramani and Beal (1999) and Blei,
Kucukelbir and McAuliffe (2017), section 3.
"""

import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist

from textbook.ascent import Textbook
from textbook.factors import LOG_2PI, Categorical, Dirichlet, Gaussian, Wishart
from textbook.joint_factors import NormalWishart

K, D = 3, 2
WEIGHTS = Dirichlet(np.full(K, 1.2))
MEANS = Gaussian(np.array([0.3, -0.2]), np.array([[8.0, 1.0], [1.0, 6.0]]))
PRECISIONS = Wishart(4.0, np.array([[0.5, 0.1], [0.1, 0.4]]))
KAPPA = 0.3
JOINT = NormalWishart(MEANS.mean, KAPPA, PRECISIONS.df, PRECISIONS.scale)


def make_data():
    rng = np.random.default_rng(38)
    centres = np.array([[-2.0, 0.0], [1.0, 2.0], [2.0, -2.0]])
    roots = np.array(
        [[[0.8, 0.0], [0.5, 0.4]], [[0.5, 0.0], [-0.3, 0.6]], [[0.4, 0.0], [0.0, 1.0]]]
    )
    z = rng.choice(K, size=70, p=[0.5, 0.3, 0.2])
    noise = rng.standard_normal((70, D))
    return {"y": centres[z] + np.einsum("nij,nj->ni", roots[z], noise)}


def _rows(pi, mu, precision, y):
    with numpyro.plate("rows", len(y)):
        z = numpyro.sample("z", dist.Categorical(pi))
        of_row = dist.MultivariateNormal(mu[z], precision_matrix=precision[z])
        numpyro.sample("y", of_row, obs=y)


def factorised_model(y):
    pi = numpyro.sample("pi", dist.Dirichlet(jnp.asarray(WEIGHTS.a)))
    with numpyro.plate("components", K):
        prior = dist.MultivariateNormal(jnp.asarray(MEANS.mean), jnp.asarray(MEANS.covariance))
        mu = numpyro.sample("mu", prior)
        scale = jnp.asarray(PRECISIONS.scale)
        precision = numpyro.sample("precision", dist.Wishart(PRECISIONS.df, scale_matrix=scale))
    _rows(pi, mu, precision, y)


def joint_model(y):
    pi = numpyro.sample("pi", dist.Dirichlet(jnp.asarray(WEIGHTS.a)))
    with numpyro.plate("components", K):
        scale = jnp.asarray(PRECISIONS.scale)
        precision = numpyro.sample("precision", dist.Wishart(PRECISIONS.df, scale_matrix=scale))
        centre = jnp.asarray(JOINT.mean)
        prior = dist.MultivariateNormal(centre, precision_matrix=KAPPA * precision)
        mu = numpyro.sample("mu", prior)
    _rows(pi, mu, precision, y)


BOTH = ("mu", "precision")


def _squares(data, q):
    """E[(y - mu)' Lambda (y - mu)], (n, k): PRML 10.64 for the joint factor."""
    if BOTH in q:
        both, precision = q[BOTH], q[BOTH].precision
        mean, slack = both.mean, D / both.kappa
    else:
        precision, mean = q["precision"], q["mu"].mean
        slack = np.sum(q["mu"].covariance * precision.mean, axis=(1, 2))
    away = data["y"][:, None, :] - mean
    return np.einsum("nki,kij,nkj->nk", away, precision.mean, away) + slack


def _fit_of_rows(data, q):
    """E[log N(y_n | mu_k, Lambda_k^-1)], (n, k)."""
    precision = q[BOTH].precision if BOTH in q else q["precision"]
    return 0.5 * (precision.log_det - D * LOG_2PI - _squares(data, q))


def update_pi(data, q):
    """PRML 10.58."""
    return Dirichlet(WEIGHTS.a + q["z"].probs.sum(axis=0))


def update_z(data, q):
    """PRML 10.46, 10.49."""
    return Categorical.from_logits(q["pi"].log + _fit_of_rows(data, q))


def update_mu(data, q):
    r, precision = q["z"].probs, q["precision"].mean
    prior = np.linalg.inv(MEANS.covariance)
    covariance = np.linalg.inv(prior + r.sum(axis=0)[:, None, None] * precision)
    total = prior @ MEANS.mean + np.einsum("kij,kj->ki", precision, r.T @ data["y"])
    return Gaussian(np.einsum("kij,kj->ki", covariance, total), covariance)


def update_precision(data, q):
    r, mu = q["z"].probs, q["mu"]
    away = data["y"][:, None, :] - mu.mean
    scatter = np.einsum("nk,nki,nkj->kij", r, away, away)
    scatter = scatter + r.sum(axis=0)[:, None, None] * mu.covariance
    scale = np.linalg.inv(np.linalg.inv(PRECISIONS.scale) + scatter)
    return Wishart(PRECISIONS.df + r.sum(axis=0), scale)


def update_joint(data, q):
    """PRML 10.60 to 10.63."""
    r, y = q["z"].probs, data["y"]
    count = r.sum(axis=0)
    mean = r.T @ y / count[:, None]
    away, pull = y[:, None, :] - mean, mean - JOINT.mean
    kappa = KAPPA + count
    inverse = np.linalg.inv(JOINT.scale) + np.einsum("nk,nki,nkj->kij", r, away, away)
    inverse = inverse + np.einsum("k,ki,kj->kij", KAPPA * count / kappa, pull, pull)
    centre = (KAPPA * JOINT.mean + count[:, None] * mean) / kappa[:, None]
    return NormalWishart(centre, kappa, JOINT.df + count, np.linalg.inv(inverse))


def expected_log_joint(data, q):
    r = q["z"].probs
    total = WEIGHTS.mean_log_prob(q["pi"]) + np.sum(r * (q["pi"].log + _fit_of_rows(data, q)))
    if BOTH in q:
        return total + JOINT.mean_log_prob(q[BOTH])
    return total + MEANS.mean_log_prob(q["mu"]) + PRECISIONS.mean_log_prob(q["precision"])


def _labels(data):
    """Soft labels from thirds of the order along the first coordinate."""
    rank = np.argsort(np.argsort(data["y"][:, 0]))
    third = rank * K // len(rank)
    return Categorical(np.full((len(rank), K), 0.1) + 0.7 * np.eye(K)[third])


def factorised_start(data):
    eyes = np.tile(np.eye(D), (K, 1, 1))
    return {
        "pi": Dirichlet(np.ones(K)),
        "mu": Gaussian(np.zeros((K, D)), eyes),
        "precision": Wishart(np.full(K, D + 1.0), eyes / (D + 1.0)),
        "z": _labels(data),
    }


def joint_start(data):
    ones, eyes = np.ones(K), np.tile(np.eye(D), (K, 1, 1))
    both = NormalWishart(np.zeros((K, D)), ones, (D + 1.0) * ones, eyes / (D + 1.0))
    return {"pi": Dirichlet(ones), BOTH: both, "z": _labels(data)}


BOOKS = (
    Textbook(
        "full Gaussian mixture, factorised",
        "Blei, Kucukelbir and McAuliffe (2017), section 3; Bishop (2006), section 10.2",
        factorised_model,
        make_data,
        factorised_start,
        {"pi": update_pi, "mu": update_mu, "precision": update_precision, "z": update_z},
        expected_log_joint,
    ),
    Textbook(
        "full Gaussian mixture, normal-Wishart",
        "Bishop (2006), section 10.2",
        joint_model,
        make_data,
        joint_start,
        {"pi": update_pi, BOTH: update_joint, "z": update_z},
        expected_log_joint,
    ),
)
