"""Free-form factors on grids, against the distributions that they tabulate."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import integrate, stats

from taut._core.precision import double_precision
from taut.families import Grid

FALSE_ALARM = 1e-4  # of each Kolmogorov-Smirnov test, with a fixed key


@pytest.fixture(autouse=True)
def _float64():
    with double_precision():
        yield


def normals(num_points=120):
    """Two elements, N(0, 1) and N(3, 0.5), each on points of its own."""
    loc, scale = np.array([0.0, 3.0]), np.array([1.0, 0.5])
    points = loc + scale * np.linspace(-9, 9, num_points)[:, None]
    return Grid(points, stats.norm.logpdf(points, loc, scale) + np.array([5.0, -2.0])), loc, scale


def gammas(num_points=200):
    x = np.exp(np.linspace(-40, 4.5, num_points))
    return Grid(x, stats.gamma.logpdf(x, 1.5)), stats.gamma(1.5)


def test_moments_and_entropy_of_normals():
    q, loc, scale = normals()
    assert q.shape == (2,)
    assert np.allclose(q.moment(1, 0, 0, 0), loc, atol=1e-12)
    assert np.allclose(q.moment(2.0, 0, 0.0, 0), loc**2 + scale**2, atol=1e-12)
    expected = stats.norm(loc, scale).entropy().sum()
    assert float(q.entropy) == pytest.approx(expected, abs=1e-12)
    assert np.allclose(q.log_density, stats.norm.logpdf(q.points, loc, scale), atol=1e-11)


def test_points_even_in_log_x_are_exact_but_for_the_entropy():
    q, law = gammas()
    h = np.log(q.points[1] / q.points[0])
    assert float(q.moment(1, 0, 0, 0)) == pytest.approx(law.mean(), rel=1e-10)
    expected = law.expect(np.log)
    assert float(q.moment(0, 1, 0, 0)) == pytest.approx(expected, rel=1e-8)
    assert float(q.entropy) == pytest.approx(law.entropy() + h**2 / 6, abs=h**4 / 100)


def test_the_optimum_is_the_log_joint():
    """Maximise F + entropy over probabilities, uneven points: the log density is dF/dp."""
    rng = np.random.default_rng(0)
    points = np.sort(rng.normal(size=40)) * 3
    joint = jnp.asarray(-0.5 * (points - 0.4) ** 2 - 0.1 * points**4)
    q = Grid(points, np.zeros(40))
    gradient = q.gradient(jax.grad(lambda q: q.mean[0] @ joint)(q))
    best = q.with_natural(gradient)

    def elbo(q):
        return q.mean[0] @ joint + q.entropy

    total = best.gradient(jax.grad(elbo)(best))[0]
    held = np.asarray(best.probs) > 0
    assert np.ptp(np.asarray(total)[held]) < 1e-9
    for _ in range(20):
        other = best.with_natural((best.natural[0] + 0.1 * rng.normal(size=40),))
        assert elbo(other) < elbo(best)


def test_entropy_is_differentiable_through_log_weights():
    points = jnp.linspace(-5.0, 5.0, 30) ** 3
    logs = -0.1 * points**2 / 20 + jnp.sin(points) / 5

    def entropy(logs):
        return Grid(points, logs).entropy

    numerical = [
        (entropy(logs + 1e-5 * e) - entropy(logs - 1e-5 * e)) / 2e-5 for e in np.eye(30)[10:20]
    ]
    assert np.allclose(jax.grad(entropy)(logs)[10:20], numerical, atol=1e-9)


def test_log_prob_is_normalised_and_close_to_the_density():
    q, _loc, _scale = normals()
    one = Grid(q.points[:, 1], q.natural[0][:, 1])
    x = np.linspace(-1.4, 7.4, 20_001)
    logs = np.asarray(jax.vmap(one.log_prob)(jnp.asarray(x)))
    assert integrate.trapezoid(np.exp(logs), x) == pytest.approx(1.0, abs=1e-6)
    h = 18 / 119  # a chord of the parabola is off by at most h^2/8, normalisation by h^2/12
    away = np.abs(logs - stats.norm.logpdf(x, 3.0, 0.5))
    assert away.max() < h**2 / 8 + h**2 / 12
    assert float(one.log_prob(jnp.array(99.0))) == -np.inf


@pytest.mark.stat
def test_draws_follow_the_density():
    q, loc, scale = normals()
    draws = np.asarray(q.sample(jax.random.key(0), 4000))
    assert draws.shape == (4000, 2)
    for x, a, b in zip(draws.T, loc, scale, strict=True):
        assert stats.kstest(x, stats.norm(a, b).cdf).pvalue > FALSE_ALARM
    q, law = gammas()
    draws = np.asarray(q.sample(jax.random.key(1), 4000))
    assert stats.kstest(draws, law.cdf).pvalue > FALSE_ALARM


def test_draws_and_log_prob_with_flat_and_empty_cells():
    q = Grid([0.0, 1.0, 2.0, 3.0, 4.0], [0.0, 0.0, -np.inf, -800.0, -1.0])
    draws = np.asarray(q.sample(jax.random.key(0), 500))
    assert np.all(np.isfinite(draws))
    assert np.all((draws >= 0) & (draws <= 4))
    assert np.isfinite(q.entropy)


def test_scalar_and_broadcast_elements():
    q = Grid(np.linspace(0, 1, 11), np.zeros((11, 2, 3)))
    assert q.shape == (2, 3)
    assert float(q.entropy) == pytest.approx(0.0, abs=1e-14)
    assert q.sample(jax.random.key(0), 5).shape == (5, 2, 3)
    assert Grid([0.0, 1.0], [0.0, 0.0]).shape == ()


# --- refitting -----------------------------------------------------------------------------------


def test_refit_finds_mass_that_lies_outside():
    """Points left of most of the mass; each refit carries the log density over in its tails."""
    points = np.linspace(-3.0, 0.5, 60)
    q = Grid(points, stats.norm.logpdf(points, 2.0, 0.3))
    for _ in range(4):
        q = q.refit(150)
        q = q.with_natural((jnp.asarray(stats.norm.logpdf(q.points, 2.0, 0.3)),))
    q = q.refit(150)
    assert float(q.moment(1, 0, 0, 0)) == pytest.approx(2.0, abs=1e-4)
    assert float(q.entropy) == pytest.approx(stats.norm(2.0, 0.3).entropy(), abs=1e-3)
    assert 2.0 - 3.0 < q.points[0] < 2.0 - 7 * 0.3
    assert 2.0 + 7 * 0.3 < q.points[-1] < 2.0 + 3.0


def test_refit_zooms_in():
    points = np.linspace(-100.0, 100.0, 2001)
    q = Grid(points, stats.norm.logpdf(points, 1.0, 0.5)).refit(100)
    assert len(q.points) == 100
    assert q.points[0] > -5.0
    assert q.points[-1] < 7.0
    fresh = q.with_natural((jnp.asarray(stats.norm.logpdf(q.points, 1.0, 0.5)),))
    assert float(fresh.moment(1, 0, 0, 0)) == pytest.approx(1.0, abs=1e-12)
    assert float(fresh.moment(2, 0, 0, 0)) == pytest.approx(1.25, abs=1e-12)
    assert float(q.moment(2, 0, 0, 0)) == pytest.approx(1.25, abs=2e-3)


@pytest.mark.parametrize(
    ("law", "support"),
    [
        (stats.gamma(2.0), (0.0, np.inf)),
        (stats.halfnorm(), (0.0, np.inf)),
        (stats.lognorm(2.0), (0.0, np.inf)),
        (stats.beta(0.7, 4.0), (0.0, 1.0)),
        (stats.t(5.0), (-np.inf, np.inf)),
        (stats.norm(-3.0, 0.1), (-np.inf, 0.0)),
    ],
    ids=lambda x: getattr(getattr(x, "dist", None), "name", str(x)),
)
def test_refit_respects_the_support(law, support):
    """After refits to the law itself, means are the law's: quadrature is spectrally accurate."""
    points = law.ppf(np.linspace(0.01, 0.99, 50))
    q = Grid(points, law.logpdf(points))
    for _ in range(3):
        q = q.refit(200, *support)
        q = q.with_natural((jnp.asarray(law.logpdf(q.points)),))
    assert np.all((q.points > support[0]) & (q.points < support[1]))
    assert float(q.moment(1, 0, 0, 0)) == pytest.approx(law.mean(), rel=1e-6, abs=1e-9)
    assert float(q.entropy) == pytest.approx(law.entropy(), abs=1e-6)


def test_refit_keeps_shapes_and_elements_apart():
    q, loc, _scale = normals()
    new = q.refit(64)
    assert new.points.shape == (64, 2)
    assert np.allclose(new.moment(1, 0, 0, 0), loc, atol=1e-3)
    assert Grid(q.points[:, 0], q.natural[0][:, 0]).refit().shape == ()
