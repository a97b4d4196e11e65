"""Fixed draws: moments, determinism, dimension limits."""

import numpy as np
import pytest
from scipy import stats

from taut.expectation import draws as module
from taut.expectation import fixed_normals, matched_normals

both = pytest.mark.parametrize("draw", [fixed_normals, matched_normals])


@both
@pytest.mark.parametrize(("num_draws", "dim"), [(64, 1), (128, 7), (100, 3), (256, 300)])
def test_shape_and_finiteness(draw, num_draws, dim):
    z = draw(num_draws, dim)
    assert z.shape == (num_draws, dim)
    assert np.isfinite(z).all()


@both
def test_draws_depend_on_the_seed_alone(draw):
    assert np.array_equal(draw(64, 5, 3), draw(64, 5, 3))
    assert not np.array_equal(draw(64, 5, 3), draw(64, 5, 4))


def test_moments_have_far_less_error_than_independent_draws():
    """A mean of 1,024 independent normals has error 0.031; Sobol's is at most a tenth of that."""
    z = fixed_normals(1024, 10)
    assert np.abs(z.mean(axis=0)).max() < 0.003
    assert np.abs(z.var(axis=0) - 1.0).max() < 0.03
    assert stats.kstest(z[:, 0], "norm").statistic < 0.002  # independent: about 0.04


def test_matched_draws_have_exact_moments():
    z = matched_normals(64, 20)
    assert np.allclose(z.mean(axis=0), 0.0, atol=1e-13)
    assert np.allclose(z.T @ z / 64, np.eye(20), atol=1e-12)
    assert np.abs(z - fixed_normals(64, 20)).max() < 2.0  # a correction, not other draws


def test_matched_draws_match_variances_where_covariances_cannot_be():
    z = matched_normals(64, 50)
    assert np.allclose(z.mean(axis=0), 0.0, atol=1e-13)
    assert np.allclose(np.mean(z**2, axis=0), 1.0, atol=1e-12)


@both
def test_beyond_the_tabulated_dimensions_draws_are_antithetic_and_standardised(draw, monkeypatch):
    monkeypatch.setattr(module, "MAX_SOBOL_DIM", 5)
    z = draw(32, 6)
    assert np.allclose(z[:16], -z[16:])
    assert np.allclose(np.mean(z**2, axis=0), 1.0)
    assert np.array_equal(z, draw(32, 6))
    assert np.isfinite(draw(7, 6)).all()


def test_the_limit_is_the_one_of_scipy():
    from scipy.stats import qmc

    assert qmc.Sobol.MAXDIM == module.MAX_SOBOL_DIM
