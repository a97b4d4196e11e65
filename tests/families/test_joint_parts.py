"""Normal-gamma and normal-Wishart factors against SciPy, NumPyro and draws.

Monte Carlo means may lie 4 standard errors off: each comparison is a false alarm with probability
6e-5 if it were not for the fixed seed.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from factor_table import spd
from numpyro.distributions import biject_to, constraints
from scipy import stats

from taut import expectation
from taut._core.errors import ArgumentError
from taut._core.precision import double_precision
from taut.expectation.scaled import gradient, natural_of, with_natural
from taut.expectation.table import log_det
from taut.families import (
    CholeskyNormalWishart,
    CholeskyWishart,
    Gamma,
    Gaussian,
    LogGamma,
    Scaled,
    ScaledNormal,
    Wishart,
)


@pytest.fixture(autouse=True)
def _float64():
    with double_precision():
        yield


B, P, DRAWS = 2, 3, 20_000
LOCATION = np.random.default_rng(81).standard_normal((B, P))
KAPPA, DF, W = np.array([0.5, 3.0]), np.array([9.0, 14.5]), spd(P, (B,), 82)
A, RATE, V = np.array([5.0, 9.5]), np.array([1.5, 8.0]), spd(P, (B,), 83)
RNG = np.random.default_rng(84)


def normal_gamma():
    return Scaled(Gaussian({"w": (B, P)}, LOCATION, V, 1), Gamma(A, RATE), "tau")


def normal_wishart():
    block = Gaussian({"w": (B, P)}, LOCATION, np.eye(P) / KAPPA[:, None, None], 1)
    return Scaled(block, Wishart(DF, W), "tau")


def scaled_normal():
    return ScaledNormal(LOCATION, np.linalg.cholesky(V), LogGamma(A, RATE, np.ones(B)))


def cholesky_normal_wishart():
    return CholeskyNormalWishart(LOCATION, KAPPA, CholeskyWishart(DF, np.linalg.cholesky(W)))


def normal_gamma_log_prob(w, tau):
    """In the latents' own support, (n,)."""
    total = stats.gamma(A, scale=1.0 / RATE).logpdf(tau).sum(axis=1)
    for n, b in np.ndindex(tau.shape):
        total[n] += stats.multivariate_normal(LOCATION[b], V[b] / tau[n, b]).logpdf(w[n, b])
    return total


def normal_wishart_log_prob(w, matrix):
    total = np.zeros(len(w))
    for n, b in np.ndindex(w.shape[:2]):
        covariance = np.linalg.inv(KAPPA[b] * matrix[n, b])
        total[n] += stats.multivariate_normal(LOCATION[b], covariance).logpdf(w[n, b])
        total[n] += stats.wishart(DF[b], W[b]).logpdf(matrix[n, b])
    return total


PAIRS = {
    "normal-gamma": (normal_gamma, scaled_normal, normal_gamma_log_prob, constraints.positive),
    "normal-Wishart": (
        normal_wishart, cholesky_normal_wishart, normal_wishart_log_prob,
        constraints.positive_definite,
    ),
}  # fmt: skip
kinds = pytest.mark.parametrize("kind", PAIRS)


def in_own_support(points, support):
    """w, the precisions, and the log determinant of the change of variables."""
    w, u = points[:, : B * P].reshape(-1, B, P), points[:, B * P :].reshape(len(points), B, -1)
    u = u[..., 0] if support is constraints.positive else u
    transform = biject_to(support)
    precision = transform(u)
    slope = transform.log_abs_det_jacobian(u, precision)
    return w, np.asarray(precision), np.asarray(slope).sum(axis=1)


@functools.cache
def drawn(kind):
    """w and the precisions, drawn from the factor."""
    draws = PAIRS[kind][0]().sample(jax.random.key(87), DRAWS)
    return np.asarray(draws["w"]), np.asarray(draws["tau"])


def assert_mean(draws, expected):
    error = draws.std(axis=0) / np.sqrt(len(draws))
    assert np.all(np.abs(draws.mean(axis=0) - expected) < 4.0 * error)


# --- the density over real coordinates --------------------------------------------------------


@kinds
def test_density_is_scipys_with_the_change_of_variables(kind):
    _, part, log_prob, support = PAIRS[kind]
    points = part().sample(np.random.default_rng(85), 20)
    points = points + 0.1 * RNG.standard_normal(points.shape)
    *values, slope = in_own_support(points, support)
    assert np.allclose(part().log_prob(points), log_prob(*values) + slope, rtol=1e-10)


@pytest.mark.parametrize("of", ["part", "factor"])
@kinds
def test_draws_have_the_moments_of_the_statistics(kind, of):
    """Of the precision, precision times w, its quadratic form, and w itself."""
    _, part, _, support = PAIRS[kind]
    if of == "part":
        points = part().sample(np.random.default_rng(86), DRAWS)
        w, precision, _ = in_own_support(points, support)
    else:
        w, precision = drawn(kind)
    if kind == "normal-gamma":
        inverse, mean = np.linalg.inv(V), A / RATE
        linear = precision[..., None] * w
        square = np.einsum("nb,nbi,bij,nbj->nb", precision, w, inverse, w)
        of_linear = mean[:, None] * LOCATION
        of_square = P + mean * np.einsum("bi,bij,bj->b", LOCATION, inverse, LOCATION)
    else:
        mean = DF[:, None, None] * W
        linear = np.einsum("nbij,nbj->nbi", precision, w)
        square = np.einsum("nbi,nbi->nb", w, linear)
        of_linear = np.einsum("bij,bj->bi", mean, LOCATION)
        of_square = P / KAPPA + np.einsum("bi,bi->b", LOCATION, of_linear)
    found = ((precision, mean), (linear, of_linear), (square, of_square), (w, LOCATION))
    for values, expected in found:
        assert_mean(values, expected)


@kinds
def test_mean_and_scales_are_those_of_draws(kind):
    """Those of a matrix are taken on draws themselves, of which 1,024 leave 5%."""
    part = PAIRS[kind][1]()
    draws = part.sample(np.random.default_rng(88), DRAWS)
    assert np.all(np.abs(draws.mean(axis=0) - part.mean) < 0.05 * part.sd)
    assert np.allclose(draws.std(axis=0), part.sd, rtol=0.05)
    assert part.dim == len(part.mean) == draws.shape[1]


# --- the factor ---------------------------------------------------------------------------------


@kinds
def test_entropy_is_minus_the_mean_log_density(kind):
    make, _, log_prob, _ = PAIRS[kind]
    w, precision = drawn(kind)
    assert_mean(-log_prob(w[:1000], precision[:1000]), make().entropy)


@kinds
def test_natural_parameters_are_those_of_the_factor(kind):
    q = PAIRS[kind][0]()
    again, proper = with_natural(q, natural_of(q))
    assert proper
    for start, end in zip(jax.tree.leaves(q), jax.tree.leaves(again), strict=True):
        assert np.allclose(start, end, rtol=1e-12, atol=1e-12)


@kinds
def test_the_gradient_of_the_mean_log_density_is_its_natural_parameter(kind):
    """Of one member under another: log q is linear in the statistics, but for a constant."""
    q = PAIRS[kind][0]()
    away = Gaussian({"w": (B, P)}, LOCATION + 0.3, 1.5 * q.normal.covariance, 1)
    wider = q.precision.with_natural(tuple(0.7 * x for x in q.precision.natural))
    other = Scaled(away, wider, "tau")

    def log_density(x):
        return _statistics(natural_of(q), x["w"], x["tau"])

    cotangent = jax.grad(lambda f: expectation(log_density, {"b": f}).mean)(other)
    for found, expected in zip(gradient(other, cotangent), natural_of(q), strict=True):
        assert np.allclose(found, expected, rtol=1e-10, atol=1e-10)


def _statistics(natural, w, tau):
    """Natural parameters times statistics, written anew."""
    if tau.ndim == 1:
        square = jnp.einsum("b,bi,bij,bj->", tau, w, natural.square, w)
        linear = jnp.einsum("b,bi,bi->", tau, natural.linear, w)
        return square + linear + natural.level @ tau + natural.log @ jnp.log(tau)
    square = jnp.einsum("b,bi,bij,bj->", natural.square[:, 0, 0], w, tau, w)
    linear = jnp.einsum("bi,bij,bj->", natural.linear, tau, w)
    return square + linear + jnp.sum(natural.level * tau) + natural.log @ log_det(tau)


def test_precisions_of_the_wrong_shape_are_refused():
    block = Gaussian({"w": (B, P)}, LOCATION, V, 1)
    with pytest.raises(ArgumentError, match=r"'tau' .* must have shape \(2,\), got \(3,\)"):
        Scaled(block, Gamma(np.ones(3), np.ones(3)), "tau")
    two = Gaussian({"a": (), "b": ()}, np.zeros(2), np.eye(2))
    with pytest.raises(ArgumentError, match="one vector per matrix"):
        Scaled(two, Wishart(4.0, np.eye(2)), "tau")


# --- expectations -------------------------------------------------------------------------------

MOMENTS = {
    "normal-gamma": [
        lambda w, tau: tau[0] * w[0, 1] ** 2,
        lambda w, tau: w[1, 0] * w[1, 2],
        lambda w, tau: tau[1] ** 2 * w[1, 1],
        lambda w, tau: tau[0] * w[1, 0],
        lambda w, tau: jnp.sum(tau * jnp.sum(w, axis=1) ** 2),
    ],
    "normal-Wishart": [
        lambda w, tau: jnp.einsum("bi,bij,bj->", w, tau, w),
        lambda w, tau: jnp.einsum("bi,bij,j->", w, tau, jnp.arange(3.0)),
        lambda w, tau: w[1, 2],
        lambda w, tau: tau[0, 1, 2] * w[1, 0],
    ],
}
NOT_GIVEN_THE_PRECISION = {
    "normal-gamma": [lambda w, tau: tau[0] * w[1, 0] ** 2],
    "normal-Wishart": [
        lambda w, tau: tau[0, 0, 1] * w[0, 0] * w[0, 1],
        lambda w, tau: w[0, 0] ** 2,
    ],
}


@pytest.mark.parametrize(
    ("kind", "at"), [(k, i) for k, fs in MOMENTS.items() for i in range(len(fs))]
)
def test_moments_are_those_of_draws(kind, at):
    function = MOMENTS[kind][at]
    found = expectation(lambda x: function(x["w"], x["tau"]), {"b": PAIRS[kind][0]()})
    assert set(found.methods) == {"exact"}
    assert_mean(np.asarray(jax.vmap(function)(*drawn(kind))), float(found))


@pytest.mark.parametrize(
    ("kind", "at"), [(k, i) for k, fs in NOT_GIVEN_THE_PRECISION.items() for i in range(len(fs))]
)
def test_moments_without_a_formula_are_taken_on_draws(kind, at):
    """Of 256 draws, so within 4 standard errors of both."""
    function = NOT_GIVEN_THE_PRECISION[kind][at]
    found = expectation(lambda x: function(x["w"], x["tau"]), {"b": PAIRS[kind][0]()})
    assert all("fixed draws of all latents" in m for m in found.methods)
    values = np.asarray(jax.vmap(function)(*drawn(kind)))
    assert abs(float(found) - values.mean()) < 4.0 * values.std() * np.sqrt(1 / 256 + 1 / DRAWS)
