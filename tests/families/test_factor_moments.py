"""Moments and quadrature nodes of factors against integrals and closed forms."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from factor_table import MEMBERS, scalars
from scipy import stats

from taut._core.precision import double_precision
from taut.families import Beta, Dirichlet, Gamma, InverseGamma, Wishart


@pytest.fixture(autouse=True)
def _float64():
    with double_precision():
        yield


POWERS = [
    (1, 0, 0, 0), (2.0, 0, 0.0, 0), (3, 0, 0, 0), (-1, 0, 0, 0), (-2, 0, 0, 0), (0.5, 0, 0, 0),
    (-0.5, 0, 0, 0), (1.3, 1, 0, 0), (0, 1, 0, 0), (0, 2, 0, 0), (1, 2, 0, 0), (-1, 1, 0, 0),
]  # fmt: skip
BETA_POWERS = [
    *POWERS, (0, 0, 1, 0), (1, 0, 1, 0), (0, 0, 0, 1), (0, 0, 0, 2), (1, 1, 0.5, 0),
    (0.5, 1, 1, 1), (0, 1, 0, 1), (1, 0, 2, 2), (-0.5, 0, -0.5, 1),
]  # fmt: skip


def integral(density, power, lower, upper):
    """E[x^p log(x)^k (1-x)^r log(1-x)^l] by Gauss-Legendre panels in log x or logit x."""
    p, k, r, l = power

    def of_log(t):  # x = exp(t)
        x = np.exp(t)
        return x ** (p + 1) * t**k * density(x)

    def of_logit(t):
        x, y = 1 / (1 + np.exp(-t)), 1 / (1 + np.exp(t))
        return x ** (p + 1) * np.log(x) ** k * y ** (r + 1) * np.log(y) ** l * density(x)

    f = of_logit if upper == 1 else of_log
    nodes, weights = np.polynomial.legendre.leggauss(40)
    edges = np.linspace(-60, 60 if upper == 1 else 20, 81)
    half = np.diff(edges)[:, None] / 2
    return float(np.sum(half * weights * f(edges[:-1, None] + half * (1 + nodes))))


@pytest.mark.parametrize("power", POWERS, ids=str)
@pytest.mark.parametrize("make", [Gamma, InverseGamma])
def test_gamma_moments_are_integrals(make, power):
    q = make(4.3, 2.1)
    law = stats.gamma(4.3, scale=1 / 2.1) if make is Gamma else stats.invgamma(4.3, scale=2.1)
    expected = integral(law.pdf, power, 0, np.inf)
    assert float(q.moment(*power)) == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize("power", BETA_POWERS, ids=str)
def test_beta_moments_are_integrals(power):
    expected = integral(stats.beta(3.3, 1.8).pdf, power, 0, 1)
    assert float(Beta(3.3, 1.8).moment(*power)) == pytest.approx(expected, rel=1e-9)
    elements = Dirichlet([3.3, 0.7, 1.1]).moment(*power)
    assert float(elements[0]) == pytest.approx(expected, rel=1e-9)


def test_moments_that_do_not_exist_are_infinite():
    assert float(Gamma(0.5, 1.0).moment(-1, 0, 0, 0)) == np.inf
    assert float(Gamma(0.5, 1.0).moment(-0.5, 1, 0, 0)) == -np.inf
    assert float(InverseGamma(1.0, 1.0).moment(1, 0, 0, 0)) == np.inf
    assert float(Beta(0.5, 1.0).moment(-1, 0, 0, 0)) == np.inf
    gradient = jax.grad(lambda a: Gamma(a, 1.0).moment(-1, 0, 0, 0))(jnp.array(0.5))
    assert not np.isnan(gradient)


def test_moments_without_closed_form_are_left_to_the_grid():
    assert Gamma(2.0, 1.0).moment(0, 3, 0, 0) is None
    assert Gamma(2.0, 1.0).moment(0, 0, 1, 0) is None
    assert Beta(2.0, 1.0).moment(0, 2, 0, 1) is None
    q = Wishart(5.0, np.eye(3))
    assert q.moment(2, 0, 0, 0) is None
    assert q.grid(10) is None
    assert np.allclose(q.moment(1, 0, 0, 0), 5 * np.eye(3))


def test_pair_is_the_second_moment_of_a_dirichlet():
    q = MEMBERS["dirichlet"]()
    for i, alpha in enumerate(np.asarray(q.concentration)):
        law = stats.dirichlet(alpha)
        expected = law.cov() + np.outer(law.mean(), law.mean())
        assert np.allclose(q.pair()[i], expected, rtol=1e-12)


CONCENTRATIONS = [0.05, 0.5, 1.0, 3.0, 50.0, 1e4, 1e8]


@pytest.mark.parametrize("a", CONCENTRATIONS)
def test_the_grid_of_a_gamma_integrates_smooth_functions(a):
    """Closed forms with rate 2: mean, mean log, root, Laplace transform at (rate/a)/2."""
    q = Gamma(a, 2.0)
    points, probs = q.grid(64)
    t = 1.0 / max(a, 1.0)
    for values, expected in [
        (points, q.mean[1]),
        (jnp.log(points), q.mean[0]),
        (jnp.sqrt(points), q.moment(0.5, 0, 0, 0)),
        (jnp.exp(-t * points), np.exp(-a * np.log1p(t / 2.0))),
    ]:
        assert float(jnp.sum(probs * values)) == pytest.approx(float(expected), rel=1e-10)
    inverse, probs = InverseGamma(a, 2.0).grid(64)
    assert np.allclose(inverse, 1 / points)


@pytest.mark.parametrize("a", [0.1, 1.0, 20.0, 1e4, 1e8])
@pytest.mark.parametrize("b", [0.2, 1.0, 300.0, 1e8])
def test_the_grid_of_a_beta_integrates_smooth_functions(a, b):
    q = Beta(a, b)
    points, probs = q.grid(128)
    # Points closer to 1 than float64 can tell are put at 1 - 1e-16, which has a mass of its own.
    lump = 1e-16**b
    for values, expected in [
        (points, q.moment(1, 0, 0, 0)),
        (jnp.log(points), q.mean[0]),
        (jnp.sqrt(points), q.moment(0.5, 0, 0, 0)),
        (points * (1 - points), q.moment(1, 0, 1, 0)),
    ]:
        total = float(jnp.sum(probs * values))
        assert total == pytest.approx(float(expected), rel=1e-10 + lump)


@scalars
def test_grid_probabilities_have_the_derivatives_of_the_integral(name):
    """Of E[sqrt(x)], first and second, against those of the closed form."""
    q = MEMBERS[name]()

    def integrated(natural):
        points, probs = type(q).from_natural(natural).grid(96)
        return jnp.sum(probs * jnp.sqrt(points))

    def closed(natural):
        return jnp.sum(type(q).from_natural(natural).moment(0.5, 0, 0, 0))

    assert float(integrated(q.natural)) == pytest.approx(float(closed(q.natural)), rel=1e-10)
    for derivative in (jax.grad, lambda f: jax.jacobian(jax.grad(f))):
        found, expected = derivative(integrated)(q.natural), derivative(closed)(q.natural)
        for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
            assert np.allclose(a, b, rtol=1e-8, atol=1e-9)


def test_grid_of_a_dirichlet_is_that_of_its_beta_marginals():
    q = Dirichlet([[0.5, 2.0, 8.0], [1.0, 1.0, 1.0]])
    points, probs = q.grid(64)
    assert points.shape == (64, 2, 3)
    assert np.allclose(jnp.sum(probs * jnp.log(points), 0), q.mean[0], rtol=1e-9)
    gradient = jax.grad(lambda n: jnp.sum(Dirichlet.from_natural(n).grid(64)[1] * jnp.log(points)))
    expected = jax.grad(lambda n: jnp.sum(Dirichlet.from_natural(n).mean[0]))(q.natural)
    assert np.allclose(gradient(q.natural)[0], expected[0], rtol=1e-8, atol=1e-10)
