"""Products of Gaussians with unknown noise: probabilistic PCA and matrix factorisation.

Bishop (1999), Variational principal components; Lim and Teh (2007), Variational Bayesian approach
to movie rating prediction. q has one multivariate normal for each row of either matrix.
"""

import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist

from textbook.ascent import Textbook
from textbook.factors import LOG_2PI, Gamma, Gaussian

K, ROWS, COLUMNS = 2, 40, 5
TAU = Gamma(2.0, 1.0)
LEFT, RIGHT = "z", "w"  # rows (n, k) and columns (d, k) of the product
PRIOR = Gaussian(np.zeros(K), np.eye(K))


def pca_data():
    rng = np.random.default_rng(39)
    z, w = rng.standard_normal((ROWS, K)), rng.standard_normal((COLUMNS, K))
    return {"y": z @ w.T + 0.4 * rng.standard_normal((ROWS, COLUMNS))}


def ratings_data():
    rng = np.random.default_rng(40)
    row, column = np.nonzero(rng.uniform(size=(ROWS, COLUMNS)) < 0.6)
    z, w = rng.standard_normal((ROWS, K)), rng.standard_normal((COLUMNS, K))
    y = np.sum(z[row] * w[column], axis=1) + 0.4 * rng.standard_normal(len(row))
    return {"row": row, "column": column, "y": y}


def pca_model(y):
    tau = numpyro.sample("tau", dist.Gamma(TAU.a, TAU.b))
    w = numpyro.sample("w", dist.Normal(0.0, 1.0).expand([COLUMNS, K]).to_event(2))
    with numpyro.plate("rows", len(y)):
        z = numpyro.sample("z", dist.Normal(0.0, 1.0).expand([K]).to_event(1))
        numpyro.sample("y", dist.Normal(z @ w.T, 1.0 / jnp.sqrt(tau)).to_event(1), obs=y)


def ratings_model(row, column, y):
    tau = numpyro.sample("tau", dist.Gamma(TAU.a, TAU.b))
    with numpyro.plate("rows", ROWS):
        z = numpyro.sample("z", dist.Normal(0.0, 1.0).expand([K]).to_event(1))
    with numpyro.plate("columns", COLUMNS):
        w = numpyro.sample("w", dist.Normal(0.0, 1.0).expand([K]).to_event(1))
    with numpyro.plate("ratings", len(y)):
        score = jnp.sum(z[row] * w[column], axis=-1)
        numpyro.sample("y", dist.Normal(score, 1.0 / jnp.sqrt(tau)), obs=y)


def _entries(data):
    """Row, column and value of each observed entry."""
    if "row" in data:
        return data["row"], data["column"], data["y"]
    row, column = np.indices(data["y"].shape).reshape(2, -1)
    return row, column, data["y"].ravel()


def _update_side(data, q, mine, other, own, across):
    """The rows of one matrix given the other: a ridge regression each."""
    y, tau = _entries(data)[2], q["tau"].mean
    size = q[mine].mean.shape[0]
    precision, total = np.tile(np.eye(K), (size, 1, 1)), np.zeros((size, K))
    np.add.at(precision, own, tau * q[other].second[across])
    np.add.at(total, own, tau * y[:, None] * q[other].mean[across])
    covariance = np.linalg.inv(precision)
    return Gaussian(np.einsum("nij,nj->ni", covariance, total), covariance)


def update_z(data, q):
    row, column, _ = _entries(data)
    return _update_side(data, q, LEFT, RIGHT, row, column)


def update_w(data, q):
    row, column, _ = _entries(data)
    return _update_side(data, q, RIGHT, LEFT, column, row)


def _residual_square(data, q):
    """E sum (y - z'w)^2, with E[(z'w)^2] = tr(E[z z'] E[w w'])."""
    row, column, y = _entries(data)
    z, w = q[LEFT], q[RIGHT]
    score = np.sum(z.mean[row] * w.mean[column], axis=1)
    square = np.sum(z.second[row] * w.second[column], axis=(1, 2))
    return np.sum(y**2 - 2.0 * y * score + square)


def update_tau(data, q):
    return Gamma(TAU.a + 0.5 * data["y"].size, TAU.b + 0.5 * _residual_square(data, q))


def expected_log_joint(data, q):
    tau = q["tau"]
    rows = data["y"].size * (tau.log - LOG_2PI) - tau.mean * _residual_square(data, q)
    sides = PRIOR.mean_log_prob(q[LEFT]) + PRIOR.mean_log_prob(q[RIGHT])
    return 0.5 * rows + sides + TAU.mean_log_prob(tau)


def make_start(data):
    rng = np.random.default_rng(2)  # means of zero never leave it

    def side(size):
        return Gaussian(0.5 * rng.standard_normal((size, K)), np.tile(np.eye(K), (size, 1, 1)))

    return {"z": side(ROWS), "w": side(COLUMNS), "tau": Gamma(1.0, 1.0)}


UPDATES = {"z": update_z, "w": update_w, "tau": update_tau}
BOOKS = (
    Textbook(
        "probabilistic PCA",
        "Bishop (1999), section 3",
        pca_model,
        pca_data,
        make_start,
        UPDATES,
        expected_log_joint,
    ),
    Textbook(
        "matrix factorisation",
        "Lim and Teh (2007), section 3",
        ratings_model,
        ratings_data,
        make_start,
        UPDATES,
        expected_log_joint,
    ),
)
