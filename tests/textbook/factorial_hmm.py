"""Factorial hidden Markov model, known parameters: each chain exact given the other.

Ghahramani and Jordan (1997), Factorial hidden Markov models, section 3.3 (structured mean field).
y_t ~ N(LEVEL_a[a_t] + LEVEL_b[b_t], SD^2).
"""

import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist

from textbook.ascent import Textbook
from textbook.factors import LOG_2PI
from textbook.joint_factors import Chain

LENGTH, SD = 20, 0.6
INITIAL = {"a": np.array([0.6, 0.4]), "b": np.array([0.2, 0.5, 0.3])}
ROWS = {
    "a": np.array([[0.9, 0.1], [0.2, 0.8]]),
    "b": np.array([[0.6, 0.3, 0.1], [0.1, 0.8, 0.1], [0.2, 0.2, 0.6]]),
}
LEVEL = {"a": np.array([-1.0, 1.5]), "b": np.array([0.0, 2.0, 4.5])}
SITES = {name: tuple(f"{name}_{t}" for t in range(LENGTH)) for name in ("a", "b")}


def _labels(rng, name):
    z = [rng.choice(len(INITIAL[name]), p=INITIAL[name])]
    for _ in range(LENGTH - 1):
        z.append(rng.choice(len(INITIAL[name]), p=ROWS[name][z[-1]]))
    return np.array(z)


def make_data():
    rng = np.random.default_rng(41)
    mean = LEVEL["a"][_labels(rng, "a")] + LEVEL["b"][_labels(rng, "b")]
    return {"y": mean + SD * rng.standard_normal(LENGTH)}


def model(y):
    initial, rows, level = (
        {k: jnp.asarray(v) for k, v in x.items()} for x in (INITIAL, ROWS, LEVEL)
    )
    a, b = None, None
    for t in range(len(y)):
        a = numpyro.sample(f"a_{t}", dist.Categorical(rows["a"][a] if t else initial["a"]))
        b = numpyro.sample(f"b_{t}", dist.Categorical(rows["b"][b] if t else initial["b"]))
        numpyro.sample(f"y_{t}", dist.Normal(level["a"][a] + level["b"][b], SD), obs=y[t])


def _update_chain(data, q, mine, other):
    """Ghahramani and Jordan (1997), eq. 12: the other chain's mean is taken off the data."""
    rest = data["y"] - q[SITES[other]].marginals @ LEVEL[other]
    emission = -0.5 * (rest[:, None] - LEVEL[mine]) ** 2 / SD**2  # constants in the label cancel
    return Chain.from_potentials(np.log(INITIAL[mine]), np.log(ROWS[mine]), emission)


def update_a(data, q):
    return _update_chain(data, q, "a", "b")


def update_b(data, q):
    return _update_chain(data, q, "b", "a")


def expected_log_joint(data, q):
    total, mean, variance = 0.0, 0.0, 0.0
    for name, sites in SITES.items():
        chain, level = q[sites], LEVEL[name]
        total += np.sum(chain.initial * np.log(INITIAL[name]))
        total += np.sum(chain.pairs * np.log(ROWS[name]))
        first = chain.marginals @ level
        mean, variance = mean + first, variance + chain.marginals @ level**2 - first**2
    square = (data["y"] - mean) ** 2 + variance
    return total - 0.5 * np.sum(LOG_2PI + np.log(SD**2) + square / SD**2)


def make_start(data):
    sizes = {name: len(value) for name, value in INITIAL.items()}
    return {
        SITES[name]: Chain(np.full(k, 1.0 / k), np.full((LENGTH - 1, k, k), 1.0 / k))
        for name, k in sizes.items()
    }


BOOKS = (
    Textbook(
        "factorial hidden Markov model",
        "Ghahramani and Jordan (1997), section 3.3",
        model,
        make_data,
        make_start,
        {SITES["a"]: update_a, SITES["b"]: update_b},
        expected_log_joint,
    ),
)
