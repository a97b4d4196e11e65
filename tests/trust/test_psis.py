"""Pareto smoothing against ArviZ and against tails whose index is known."""

import numpy as np
import pytest
from scipy import stats

from taut._core.errors import ArgumentError
from taut.trust.psis import fit_pareto, pareto_smooth

SIZE = 4096
TAIL = 192  # three times the square root of that


def arviz_psislw(log_ratio):
    """ArviZ's smoothed log weights and k-hat of log ratios.

    ``arviz.psislw`` (0.x) takes log ratios; arviz-stats (with ArviZ 1.x) takes their negative.
    """
    arviz = pytest.importorskip("arviz")
    if hasattr(arviz, "psislw"):
        weights, khat = arviz.psislw(log_ratio)
    else:
        from arviz_stats.base import array_stats

        weights, khat = array_stats.psislw(-log_ratio)
    return np.asarray(weights), float(khat)


def ratios(name, seed=0):
    rng = np.random.default_rng(seed)
    z = rng.standard_normal(SIZE)
    return {
        "normal, light": 0.3 * z,
        "normal, heavy": 2.0 * z,
        "normal, far from zero": 1.5 * z - 1e4,
        "exponential": rng.exponential(0.6, SIZE),
        "pareto": 0.9 * rng.exponential(size=SIZE),
        "student": stats.t(4).logpdf(z) - stats.norm.logpdf(z),
        "bounded": np.log(rng.uniform(size=SIZE)),
        "chi squared, 20 latents": 0.2 * (rng.standard_normal((SIZE, 20)) ** 2).sum(axis=1),
    }[name]


@pytest.mark.parametrize(
    "name",
    [
        "normal, light",
        "normal, heavy",
        "normal, far from zero",
        "exponential",
        "pareto",
        "student",
        "bounded",
        "chi squared, 20 latents",
    ],
)
def test_arviz_finds_the_same_tail_and_weights(name):
    log_ratio = ratios(name)
    ours = pareto_smooth(log_ratio)
    weights, khat = arviz_psislw(log_ratio)
    assert ours.khat == pytest.approx(khat, abs=1e-2)
    theirs = np.exp(weights - np.logaddexp.reduce(weights))
    assert np.allclose(np.exp(ours.log_weights), theirs, rtol=2e-2, atol=1e-7)


@pytest.mark.parametrize("k", [0.3, 0.5, 0.7, 1.0])
@pytest.mark.stat
def test_a_pareto_tail_is_recognised(k):
    """Ratios U^-k have the tail index k exactly; the prior pulls estimates towards a half.

    The mean of 60 estimates must lie within 5 standard errors (and a bias of 0.01) of
    (192 k + 5) / 202: false-alarm rate below 1e-6 for each k.
    """
    found = [
        pareto_smooth(k * np.random.default_rng(s).exponential(size=SIZE)).khat for s in range(60)
    ]
    expected = (TAIL * k + 5.0) / (TAIL + 10.0)
    assert abs(np.mean(found) - expected) < 0.01 + 5.0 * np.std(found, ddof=1) / np.sqrt(60)
    assert np.std(found) < 0.15


@pytest.mark.parametrize("k", [-0.3, 0.2, 0.8])
def test_the_pareto_fit_recovers_shape_and_scale(k):
    """Quantiles of a generalised Pareto, not draws: nothing random."""
    exceed = stats.genpareto(k, scale=2.5).ppf((np.arange(2000) + 0.5) / 2000)
    shape, scale = fit_pareto(exceed)
    assert (shape * 2010 - 5.0) / 2000 == pytest.approx(k, abs=0.02)
    assert scale == pytest.approx(2.5, rel=0.03)


@pytest.mark.parametrize("noise", [0.0, 1e-9])
def test_equal_ratios_have_equal_weights_and_no_tail(noise):
    log_ratio = 3.0 + noise * np.random.default_rng(0).standard_normal(SIZE)
    smoothed = pareto_smooth(log_ratio)
    assert smoothed.khat == -np.inf
    assert np.allclose(np.exp(smoothed.log_weights), 1.0 / SIZE, rtol=1e-7)
    assert smoothed.ess == pytest.approx(SIZE)
    assert smoothed.log_mean == pytest.approx(3.0, abs=1e-8)


def test_weights_are_normalised_and_keep_their_order():
    log_ratio = ratios("normal, heavy")
    smoothed = pareto_smooth(log_ratio)
    assert np.exp(smoothed.log_weights).sum() == pytest.approx(1.0)
    order = np.argsort(log_ratio)
    assert (np.diff(smoothed.log_weights[order]) >= -1e-12).all()
    assert 1.0 <= smoothed.ess <= SIZE


def test_a_constant_added_to_all_ratios_moves_the_log_mean_alone():
    log_ratio = ratios("exponential")
    plain, moved = pareto_smooth(log_ratio), pareto_smooth(log_ratio - 700.0)
    assert moved.khat == pytest.approx(plain.khat, abs=1e-9)
    assert np.allclose(moved.log_weights, plain.log_weights)
    assert moved.log_mean == pytest.approx(plain.log_mean - 700.0)


def test_the_log_mean_is_the_log_evidence():
    """E_q[p / q] = 1 for a normalised p: here the mean over 4,096 quantiles of q."""
    z = stats.norm.ppf((np.arange(SIZE) + 0.5) / SIZE)
    log_ratio = stats.norm(0.2, 0.9).logpdf(z) - stats.norm.logpdf(z)
    assert pareto_smooth(log_ratio).log_mean == pytest.approx(0.0, abs=0.005)


def test_ratios_of_minus_infinity_are_weights_of_zero():
    log_ratio = ratios("normal, light")
    log_ratio[:100] = -np.inf
    smoothed = pareto_smooth(log_ratio)
    assert np.isfinite(smoothed.khat)
    assert (smoothed.log_weights[:100] == -np.inf).all()
    assert np.exp(smoothed.log_weights).sum() == pytest.approx(1.0)


def test_equal_largest_ratios_are_no_tail():
    """A truncated target and its untruncated q: most ratios are equal up to rounding."""
    rng = np.random.default_rng(0)
    log_ratio = 1e-15 * rng.standard_normal(SIZE)
    log_ratio[:200] = -5.0 * rng.uniform(size=200)
    assert pareto_smooth(log_ratio).khat == -np.inf


def test_one_ratio_that_outweighs_all_is_a_heavy_tail():
    log_ratio = np.zeros(SIZE)
    log_ratio[7] = 50.0
    assert pareto_smooth(log_ratio).khat > 0.7


@pytest.mark.parametrize("spread", [10.0, 100.0, 900.0, 1e5])
def test_ratios_beyond_the_range_of_floats_are_a_heavy_tail_and_never_nan(spread):
    smoothed = pareto_smooth(spread * np.random.default_rng(0).standard_normal(SIZE))
    assert smoothed.khat > 0.7
    assert np.isfinite(smoothed.log_mean)
    assert smoothed.ess >= 1.0


@pytest.mark.parametrize(
    ("log_ratio", "message"),
    [
        (np.zeros(99), "log_ratio must hold at least 100 draws, got 99"),
        (np.where(np.arange(200) < 3, np.nan, 0.0), "3 of 200 values that are NaN or"),
        (np.where(np.arange(200) < 2, np.inf, 0.0), "2 of 200 values that are NaN or"),
        (np.full(200, -np.inf), "-inf at all of 200 draws"),
    ],
)
def test_bad_ratios_are_refused(log_ratio, message):
    with pytest.raises(ArgumentError, match=message):
        pareto_smooth(log_ratio)
