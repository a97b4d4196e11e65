"""Every distribution in taut.families against SciPy, quadrature and the definitions."""

import inspect
import zlib

import numpy as np
import pytest
from gaussian_table import DISTRIBUTIONS, GAUSSIANS
from scipy import stats

from taut import families
from taut.families import AbstractDistribution, DenseGaussian, MixtureGaussian

FALSE_ALARM = 1e-4  # of each Kolmogorov-Smirnov test, with a fixed key

distributions = pytest.mark.parametrize("cls", DISTRIBUTIONS, ids=lambda c: c.__name__)
gaussians = pytest.mark.parametrize("cls", GAUSSIANS, ids=lambda c: c.__name__)
dims = pytest.mark.parametrize("dim", [1, 2, 5])


def rng_of(request) -> np.random.Generator:
    return np.random.default_rng(zlib.crc32(request.node.name.encode()))


def test_every_exported_distribution_is_in_the_table():
    exported = {
        value
        for name in families.__all__
        if inspect.isclass(value := getattr(families, name))
        and issubclass(value, AbstractDistribution)
        and not inspect.isabstract(value)
    }
    assert exported == set(DISTRIBUTIONS)


@distributions
@dims
def test_log_prob_is_scipys(cls, dim, request):
    member, rng = DISTRIBUTIONS[cls](dim), rng_of(request)
    points = member.q.mean + 3.0 * rng.standard_normal((50, dim))
    assert np.allclose(member.q.log_prob(points), member.logpdf(points), rtol=1e-9, atol=1e-9)
    assert member.q.dim == dim


@distributions
@pytest.mark.parametrize("dim", [1, 2])
def test_the_density_integrates_to_one(cls, dim):
    q = DISTRIBUTIONS[cls](dim).q
    axes = [np.linspace(m - 10 * s, m + 10 * s, 400) for m, s in zip(q.mean, q.sd, strict=True)]
    points = np.stack(np.meshgrid(*axes, indexing="ij"), -1).reshape(-1, dim)
    cell = np.prod([axis[1] - axis[0] for axis in axes])
    assert np.exp(q.log_prob(points)).sum() * cell == pytest.approx(1.0, abs=1e-8)


@distributions
@dims
def test_marginal_sds_are_those_of_the_covariance(cls, dim):
    member = DISTRIBUTIONS[cls](dim)
    mean = sum(w * m for w, m, _ in member.parts)
    second = sum(w * (np.diagonal(c) + (m - mean) ** 2) for w, m, c in member.parts)
    assert np.allclose(member.q.mean, mean, rtol=1e-12)
    assert np.allclose(member.q.sd, np.sqrt(second), rtol=1e-12)


@distributions
@dims
@pytest.mark.stat
def test_draws_follow_the_density(cls, dim, request):
    """Kolmogorov-Smirnov on three random projections; false-alarm rate 1e-4 each."""
    member, rng = DISTRIBUTIONS[cls](dim), rng_of(request)
    draws = member.q.sample(rng, 4000)
    assert draws.shape == (4000, dim)
    for direction in rng.standard_normal((3, dim)):

        def cdf(x, a=direction):
            each = [w * stats.norm(a @ m, np.sqrt(a @ c @ a)).cdf(x) for w, m, c in member.parts]
            return np.sum(each, axis=0)

        assert stats.kstest(draws @ direction, cdf).pvalue > FALSE_ALARM


@distributions
def test_draws_repeat_with_their_generator(cls):
    q = DISTRIBUTIONS[cls](3).q
    first, second = (q.sample(np.random.default_rng(1), 20) for _ in range(2))
    assert np.array_equal(first, second)


@gaussians
@dims
def test_whitening_inverts_colouring(cls, dim, request):
    q, z = GAUSSIANS[cls](dim).q, rng_of(request).standard_normal((20, dim))
    assert np.allclose(q.whiten(q.colour(z)), z, rtol=0, atol=1e-11)
    assert np.allclose(q.colour(q.whiten(z)), z, rtol=0, atol=1e-11)
    assert np.allclose(q.place(z), q.mean + q.colour(z))


@gaussians
@dims
def test_pulling_back_is_the_transpose_of_colouring(cls, dim, request):
    q, rng = GAUSSIANS[cls](dim).q, rng_of(request)
    z, g = rng.standard_normal((2, 7, dim))
    assert np.allclose(q.colour(z) @ g.T, z @ q.pull_back(g).T, rtol=1e-11, atol=1e-11)


@gaussians
@dims
def test_covariance_variance_determinant_and_entropy_agree(cls, dim):
    member = GAUSSIANS[cls](dim)
    q, truth = member.q, member.covariance
    assert np.allclose(q.covariance, truth, rtol=1e-11, atol=1e-12)
    assert np.allclose(q.variance, np.diagonal(truth), rtol=1e-11)
    assert q.log_det == pytest.approx(0.5 * np.linalg.slogdet(truth)[1], abs=1e-10)
    assert q.entropy == pytest.approx(stats.multivariate_normal(q.mean, truth).entropy(), abs=1e-10)


@gaussians
def test_the_density_of_placed_noise_is_the_density_there(cls, request):
    q, z = GAUSSIANS[cls](4).q, rng_of(request).standard_normal((9, 4))
    assert np.allclose(q.log_prob_of_noise(z), q.log_prob(q.place(z)), atol=1e-10)


@pytest.mark.filterwarnings("ignore:invalid value:RuntimeWarning")
def test_points_that_are_not_finite_give_nan_or_minus_infinity_and_no_error():
    points = np.array([[np.nan, 0.0], [np.inf, 0.0]])
    for cls, make in GAUSSIANS.items():
        values = make(2).q.log_prob(points)
        assert not np.isfinite(values).any(), cls


def test_a_factor_from_any_root_is_triangular_with_a_positive_diagonal():
    root = np.random.default_rng(0).standard_normal((5, 5)) * np.geomspace(1, 1e-9, 5)
    q = DenseGaussian.from_root(np.zeros(5), root)
    assert np.allclose(q.covariance, root @ root.T, rtol=1e-12, atol=1e-15)
    assert np.array_equal(q.factor, np.tril(q.factor))
    assert (np.diagonal(q.factor) > 0).all()
    assert q.log_det == pytest.approx(np.linalg.slogdet(root)[1], abs=1e-10)


def test_a_mixtures_sd_survives_a_mean_far_from_zero():
    part = DenseGaussian(np.array([1e9]), np.array([[1e-3]]))
    q = MixtureGaussian((part, part), np.log([0.5, 0.5]))
    assert q.sd == pytest.approx(1e-3)


def test_a_mixture_draws_with_weights_that_miss_one_by_rounding():
    part = DenseGaussian(np.zeros(1), np.eye(1))
    q = MixtureGaussian((part, part), np.array([1e-10, -60.0]))  # of ELBOs near -1e6
    assert q.sample(np.random.default_rng(0), 5).shape == (5, 1)
