"""The rules one by one: means of small functions against tensor quadrature of all latents.

The truth knows nothing of the algebra: it multiplies Gauss rules of the factors.
"""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import special, stats

import taut
from taut._core.precision import double_precision
from taut.families import Beta, Categorical, Gamma, Gaussian

MEAN = np.array([0.3, -0.7, 1.1])
COVARIANCE = np.array([[0.5, 0.2, -0.1], [0.2, 0.8, 0.3], [-0.1, 0.3, 0.6]])
SHAPE, RATE = 3.5, 2.0
ALPHA, BETA = 2.5, 4.0
PROBS = np.array([0.2, 0.5, 0.3])
W_MEAN, W_SD = np.array([0.5, -0.4]), np.array([0.6, 0.8])
TABLE = np.array([0.4, -1.2, 2.5])
MOST = 2**22  # nodes of a product rule


@pytest.fixture(scope="module")
def q():
    with double_precision():
        return {
            "block": Gaussian({"a": (), "u": (), "v": ()}, jnp.asarray(MEAN), jnp.asarray(COVARIANCE)),
            "w": Gaussian({"w": (2,)}, jnp.asarray(W_MEAN), jnp.diag(jnp.asarray(W_SD**2))),
            "tau": Gamma(jnp.asarray(SHAPE), jnp.asarray(RATE)),
            "p": Beta(jnp.asarray(ALPHA), jnp.asarray(BETA)),
            "z": Categorical(jnp.asarray(PROBS)),
        }  # fmt: skip


def rule(name, nodes):
    """Nodes (n, elements) and weights of one factor: Gauss-Hermite, or trapezoids of its logit."""
    if name in ("block", "w"):
        x, w = np.polynomial.hermite_e.hermegauss(nodes)
        dim = 3 if name == "block" else 2
        grid = np.array(list(itertools.product(*[x] * dim)))
        weights = np.prod(np.array(list(itertools.product(*[w] * dim))), axis=1)
        mean, root = (MEAN, np.linalg.cholesky(COVARIANCE)) if dim == 3 else (W_MEAN, np.diag(W_SD))
        return mean + grid @ root.T, weights / weights.sum()
    if name == "tau":
        s = np.linspace(-12.0, 3.5, 300)
        logs = SHAPE * s - RATE * np.exp(s)
        return np.exp(s)[:, None], special.softmax(logs)
    if name == "p":
        s = np.linspace(-16.0, 12.0, 300)
        logs = ALPHA * special.log_expit(s) + BETA * special.log_expit(-s)
        return special.expit(s)[:, None], special.softmax(logs)
    return np.arange(3)[:, None], PROBS


LATENTS = {"block": ("a", "u", "v"), "w": ("w",), "tau": ("tau",), "p": ("p",), "z": ("z",)}


def truth(function, used):
    """The mean by the product of the factors' rules."""
    nodes = 44 if len(used) == 1 or "z" in used else 20
    rules = [rule(name, nodes) for name in used]
    assert np.prod([len(w) for _, w in rules]) < MOST
    at = [np.ravel(i) for i in np.meshgrid(*(np.arange(len(w)) for _, w in rules), indexing="ij")]
    weights = np.prod([w[i] for (_, w), i in zip(rules, at, strict=True)], axis=0)
    latents = {}
    for name, (nodes, _), i in zip(used, rules, at, strict=True):
        if name == "w":
            latents["w"] = nodes[i]
        else:
            latents |= {n: nodes[i, k] for k, n in enumerate(LATENTS[name])}
    with double_precision():
        latents = {n: jnp.asarray(v, int if n == "z" else float) for n, v in latents.items()}
        values = jax.lax.map(function, latents, batch_size=4096)
    return float(np.asarray(values) @ weights)


# Name: function, factors that it needs, and for quadrature the tolerance.
EXACT = {
    "constant": (lambda x: 3.0 + 0.0 * x["a"], ["block"]),
    "polynomial": (lambda x: (x["a"] - 2.0 * x["u"]) ** 2 * x["v"] + x["u"] ** 3, ["block"]),
    "fourth moments of a block": (lambda x: x["a"] ** 2 * x["u"] * x["v"], ["block"]),
    "sixth moments of a block": (lambda x: (x["a"] * x["u"] * x["v"]) ** 2, ["block"]),
    "exp of an affine form": (lambda x: jnp.exp(0.4 * x["a"] - 0.3 * x["u"] + 0.1), ["block"]),
    "exp times a quadratic": (lambda x: jnp.exp(0.5 * x["a"]) * x["u"] * x["v"], ["block"]),
    "exp times a cubic": (lambda x: jnp.exp(-0.5 * x["a"]) * x["a"] * x["u"] ** 2, ["block"]),
    "square of exp": (lambda x: jnp.square(jnp.exp(0.3 * x["u"]) - 1.0), ["block"]),
    "product of exps": (lambda x: jnp.exp(0.3 * x["u"]) * jnp.exp(-0.2 * x["v"]), ["block"]),
    "quotient by exp": (lambda x: x["u"] ** 2 / jnp.exp(0.4 * x["v"]), ["block"]),
    "logistic as a quotient of itself": (lambda x: jnp.log(jnp.exp(x["a"])) * x["u"], ["block"]),
    "powers of a gamma": (lambda x: x["tau"] ** 2 + 1.0 / x["tau"] + jnp.sqrt(x["tau"]), ["tau"]),
    "log of a gamma": (lambda x: jnp.log(x["tau"]) * x["tau"], ["tau"]),
    "log of a product": (lambda x: jnp.log(2.0 * x["tau"] ** 3), ["tau"]),
    "gamma times a square": (lambda x: x["tau"] * (x["w"][0] - x["w"][1]) ** 2, ["tau", "w"]),
    "two factors' logs": (lambda x: jnp.log(x["tau"]) * jnp.log1p(-x["p"]), ["tau", "p"]),
    "a beta and one minus it": (lambda x: x["p"] * (1.0 - x["p"]) ** 2, ["p"]),
    "logit of a beta": (lambda x: jnp.log(x["p"]) - jnp.log1p(-x["p"]), ["p"]),
    "a table": (lambda x: jnp.asarray(TABLE)[x["z"]] * x["u"], ["z", "block"]),
    "an indicator": (lambda x: jnp.where(x["z"] == 1, x["u"], x["v"] ** 2), ["z", "block"]),
    "square of a table": (lambda x: (jnp.asarray(TABLE)[x["z"]] - x["u"]) ** 2, ["z", "block"]),
    "dot of a vector": (lambda x: jnp.dot(jnp.array([1.0, 2.0]), x["w"]) ** 2 * x["u"], ["w", "block"]),
}  # fmt: skip
QUADRATURE = {
    "softplus": (lambda x: jax.nn.softplus(x["a"] - 0.5 * x["u"]), ["block"], 1e-8),
    "log sigmoid": (lambda x: jax.nn.log_sigmoid(2.0 * x["v"]), ["block"], 1e-6),
    "nonlinear times linear": (lambda x: jax.nn.softplus(x["a"]) * x["u"], ["block"], 1e-8),
    "nonlinear times quadratic": (lambda x: jax.nn.softplus(x["a"]) * x["u"] * x["v"], ["block"], 1e-8),
    "nonlinear times cubic": (lambda x: jnp.tanh(x["a"]) * x["u"] ** 2 * x["v"], ["block"], 1e-6),
    "nonlinear times exp": (lambda x: jnp.tanh(x["a"]) * jnp.exp(0.3 * x["u"]), ["block"], 1e-6),
    "two nonlinear functions": (lambda x: jnp.tanh(x["a"]) * jnp.cos(x["u"]), ["block"], 1e-5),
    "nested": (lambda x: jnp.log1p(jnp.exp(jnp.sin(x["u"]) + x["v"])), ["block"], 1e-4),
    "nonlinear times another factor": (lambda x: x["tau"] * jnp.cos(x["a"]), ["tau", "block"], 1e-8),
    "nonlinear of a gamma": (lambda x: jnp.log1p(x["tau"]), ["tau"], 1e-6),
    "nonlinear of an indicator": (lambda x: jnp.cos(jnp.asarray(TABLE)[x["z"]] + x["u"]), ["z", "block"], 1e-8),
    "student's logarithm": (lambda x: -2.0 * jnp.log1p((x["u"] - 0.4) ** 2 / 3.0), ["block"], 1e-4),
}  # fmt: skip


@pytest.mark.parametrize("name", EXACT)
def test_exact_rules(q, name):
    function, used = EXACT[name]
    found = taut.expectation(function, q)
    assert not [m for m in found.methods if m not in ("exact", "enumerated")], found.methods
    assert float(found.mean) == pytest.approx(truth(function, used), rel=1e-8, abs=1e-8)


def test_an_absolute_value_is_exact(q):
    found = taut.expectation(lambda x: jnp.abs(x["w"][0] - 0.2), q)
    assert found.methods == ("exact",)
    assert float(found.mean) == pytest.approx(stats.foldnorm.mean(0.3 / 0.6, scale=0.6), rel=1e-10)


@pytest.mark.parametrize("name", QUADRATURE)
def test_rules_with_quadrature(q, name):
    function, used, tolerance = QUADRATURE[name]
    found = taut.expectation(function, q)
    assert not [m for m in found.methods if "draws" in m], found.methods
    assert float(found.mean) == pytest.approx(truth(function, used), rel=tolerance, abs=tolerance)
