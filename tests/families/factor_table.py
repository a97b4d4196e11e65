"""Members of every exponential-family factor, and the same distributions in SciPy."""

import numpy as np
import pytest
from scipy import stats

from taut.families import Beta, Categorical, Dirichlet, Gamma, InverseGamma, Wishart


def spd(size, batch=(), seed=0):
    x = np.random.default_rng(seed).normal(size=(*batch, size, size + 3))
    return x @ x.swapaxes(-1, -2) / size


SCALE = spd(3, (2,))
MEMBERS = {
    "gamma": lambda: Gamma([0.7, 2.0, 30.0], [1.5, 0.2, 4.0]),
    "gamma scalar": lambda: Gamma(2.5, 3.0),
    "inverse gamma": lambda: InverseGamma([4.5, 6.0], [1.5, 20.0]),
    "beta": lambda: Beta([[0.6, 3.0]], [[2.0], [7.0]]),
    "dirichlet": lambda: Dirichlet([[0.5, 2.0, 8.0], [1.0, 1.0, 1.0]]),
    "wishart": lambda: Wishart([5.5, 9.0], SCALE),
    "wishart single": lambda: Wishart(4.0, SCALE[0]),
    "categorical": lambda: Categorical([[0.1, 0.2, 0.7], [0.5, 0.25, 0.25]]),
}
SCIPY = {
    "gamma": lambda q: [stats.gamma(a, scale=1 / b) for a, b in elements(q.concentration, q.rate)],
    "gamma scalar": lambda q: [stats.gamma(2.5, scale=1 / 3.0)],
    "inverse gamma": lambda q: [
        stats.invgamma(a, scale=b) for a, b in elements(q.concentration, q.rate)
    ],
    "beta": lambda q: [stats.beta(a, b) for a, b in elements(q.concentration1, q.concentration0)],
    "dirichlet": lambda q: [stats.dirichlet(np.asarray(a)) for a in q.concentration],
    "wishart": lambda q: [stats.wishart(5.5, SCALE[0]), stats.wishart(9.0, SCALE[1])],
    "wishart single": lambda q: [stats.wishart(4.0, SCALE[0])],
}
members = pytest.mark.parametrize("name", MEMBERS)
continuous = pytest.mark.parametrize("name", SCIPY)
scalars = pytest.mark.parametrize("name", ["gamma", "inverse gamma", "beta"])


def elements(*arrays):
    return list(zip(*(np.ravel(np.asarray(a)) for a in arrays), strict=True))
