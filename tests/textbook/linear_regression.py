"""Linear regression, w with one multivariate normal; unknown precisions have gamma factors.

Three models: noise precision tau unknown; weight precision alpha unknown (Bishop 2006, section
10.3); both.
"""

import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist

from textbook.ascent import Textbook
from textbook.factors import LOG_2PI, Gamma, Gaussian

ALPHA, TAU = 1.5, 2.0  # where they are known
TAU_PRIOR, ALPHA_PRIOR = Gamma(2.0, 1.0), Gamma(1.5, 2.0)


def make_data():
    rng = np.random.default_rng(31)
    x = np.column_stack([np.ones(40), rng.standard_normal((40, 3))])
    return {"x": x, "y": x @ np.array([0.5, -1.0, 0.3, 0.0]) + 0.7 * rng.standard_normal(40)}


def _weights(x, alpha):
    return numpyro.sample(
        "w", dist.Normal(0.0, 1.0 / jnp.sqrt(alpha)).expand([x.shape[1]]).to_event(1)
    )


def _rows(x, y, w, tau):
    with numpyro.plate("rows", x.shape[0]):
        numpyro.sample("y", dist.Normal(x @ w, 1.0 / jnp.sqrt(tau)), obs=y)


def unknown_noise(x, y):
    tau = numpyro.sample("tau", dist.Gamma(TAU_PRIOR.a, TAU_PRIOR.b))
    _rows(x, y, _weights(x, ALPHA), tau)


def unknown_prior(x, y):
    alpha = numpyro.sample("alpha", dist.Gamma(ALPHA_PRIOR.a, ALPHA_PRIOR.b))
    _rows(x, y, _weights(x, alpha), TAU)


def unknown_both(x, y):
    tau = numpyro.sample("tau", dist.Gamma(TAU_PRIOR.a, TAU_PRIOR.b))
    alpha = numpyro.sample("alpha", dist.Gamma(ALPHA_PRIOR.a, ALPHA_PRIOR.b))
    _rows(x, y, _weights(x, alpha), tau)


def _precision(q, name, known):
    """E[precision], E[log precision]."""
    return (q[name].mean, q[name].log) if name in q else (known, np.log(known))


def _residual_square(data, q):
    """E |y - X w|^2; PRML 10.102 gives the same sum."""
    x, y, w = data["x"], data["y"], q["w"]
    return np.sum((y - x @ w.mean) ** 2) + np.sum(x.T @ x * w.covariance)


def update_w(data, q):
    """PRML 10.100, 10.101."""
    alpha, tau = _precision(q, "alpha", ALPHA)[0], _precision(q, "tau", TAU)[0]
    x, y = data["x"], data["y"]
    covariance = np.linalg.inv(alpha * np.eye(x.shape[1]) + tau * x.T @ x)
    return Gaussian(tau * covariance @ x.T @ y, covariance)


def update_alpha(data, q):
    """PRML 10.94, 10.95."""
    square = np.trace(q["w"].second)
    return Gamma(ALPHA_PRIOR.a + 0.5 * data["x"].shape[1], ALPHA_PRIOR.b + 0.5 * square)


def update_tau(data, q):
    """As alpha, with the residual in place of w."""
    return Gamma(TAU_PRIOR.a + 0.5 * len(data["y"]), TAU_PRIOR.b + 0.5 * _residual_square(data, q))


def expected_log_joint(data, q):
    (n, d), w = data["x"].shape, q["w"]
    alpha, log_alpha = _precision(q, "alpha", ALPHA)
    tau, log_tau = _precision(q, "tau", TAU)
    total = 0.5 * (n * (log_tau - LOG_2PI) - tau * _residual_square(data, q))
    total += 0.5 * (d * (log_alpha - LOG_2PI) - alpha * np.trace(w.second))
    for name, prior in (("alpha", ALPHA_PRIOR), ("tau", TAU_PRIOR)):
        total += prior.mean_log_prob(q[name]) if name in q else 0.0
    return total


def _start(*names):
    def make_start(data):
        d = data["x"].shape[1]
        q = {"w": Gaussian(np.zeros(d), np.eye(d))}
        return q | {name: Gamma(1.0, 1.0) for name in names}

    return make_start


UPDATES = {"w": update_w, "alpha": update_alpha, "tau": update_tau}


def _book(name, model, *unknown):
    updates = {key: value for key, value in UPDATES.items() if key in ("w", *unknown)}
    source = "Bishop (2006), section 10.3"
    start = _start(*unknown)
    return Textbook(name, source, model, make_data, start, updates, expected_log_joint)


BOOKS = (
    _book("linear regression, unknown noise", unknown_noise, "tau"),
    _book("linear regression, unknown prior precision", unknown_prior, "alpha"),
    _book("linear regression, unknown precisions", unknown_both, "tau", "alpha"),
)
