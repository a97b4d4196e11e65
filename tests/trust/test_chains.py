"""Convergence checks of chains on autoregressions, whose autocorrelation is known; drift."""

import numpy as np
import pytest
from scipy import stats

from exact_targets import gaussian, random_root
from taut.families import DenseGaussian
from taut.trust import certificate
from taut.trust.chains import agreement, normal_scores
from taut.trust.improper import in_words


def autoregression(phi, length=400, count=256, dim=2, seed=0):
    """Stationary AR(1) chains: correlation phi^t, autocorrelation time (1 + phi) / (1 - phi)."""
    rng = np.random.default_rng(seed)
    draws = np.empty((length, count, dim))
    draws[0] = rng.standard_normal((count, dim))
    for t in range(1, length):
        draws[t] = phi * draws[t - 1] + np.sqrt(1.0 - phi**2) * rng.standard_normal((count, dim))
    return draws


@pytest.mark.parametrize("phi", [-0.5, 0.0, 0.5, 0.8])
@pytest.mark.stat
def test_autocorrelation_time_is_the_one_of_an_autoregression(phi):
    """A variance of 256 chain means has relative error 0.09; 5 of them: false alarms below 1e-6."""
    found = agreement(autoregression(phi))
    truth = (1.0 + phi) / (1.0 - phi)
    assert found.iact == pytest.approx(truth, rel=0.45)
    assert found.iact > 0.7 * truth
    assert found.ess == pytest.approx(400 * 256 / max(found.iact, 1.0), rel=1e-9)
    assert found.converged
    assert found.rhat < 1.05


def test_autocorrelation_time_on_average():
    """The largest of one parameter: its mean over 40 seeds within 5%."""
    found = [agreement(autoregression(0.6, 200, 64, 1, seed)).iact for seed in range(40)]
    assert np.mean(found) == pytest.approx(4.0, rel=0.05)


def test_chains_longer_than_their_memory_are_needed():
    assert not agreement(autoregression(0.99, length=12)).converged
    assert agreement(autoregression(0.0, length=12)).converged


@pytest.mark.parametrize(
    "spoil",
    [
        lambda x: x + np.linspace(0, 2, len(x))[:, None, None],
        lambda x: x * np.geomspace(1, 2, len(x))[:, None, None],
        lambda x: x + 3.0 * (np.arange(x.shape[1]) % 2)[:, None],
    ],
    ids=["mean drifts", "spread drifts", "chains in two places"],
)
def test_chains_that_have_not_converged_are_told(spoil):
    assert not agreement(spoil(autoregression(0.3, length=24))).converged


def test_agreement_does_not_depend_on_a_parameters_scale():
    x = autoregression(0.5, length=24)
    plain, bent = agreement(x), agreement(np.exp(3.0 * x))
    assert bent.iact == pytest.approx(plain.iact, rel=1e-9)
    assert bent.rhat == pytest.approx(plain.rhat, rel=1e-9)


def test_constant_chains_do_not_divide_by_zero():
    found = agreement(np.zeros((12, 16, 2)))
    assert np.isfinite(found.iact)


def test_normal_scores_of_draws_of_the_reference_are_standard_normal():
    rng = np.random.default_rng(0)
    reference, values = np.exp(rng.standard_normal((2, 4096, 1)))
    scores = normal_scores(values, reference)
    assert stats.kstest(scores[:, 0], "norm").pvalue > 1e-4
    assert scores.mean() == pytest.approx(0.0, abs=0.1)


def test_normal_scores_measure_shifts_in_sds_and_do_not_overflow():
    reference = stats.norm.ppf((np.arange(4096) + 0.5) / 4096)[:, None]
    assert np.allclose(normal_scores(reference + 1e-9, reference), reference, atol=0.3)
    assert normal_scores(reference + 0.5, reference).mean() == pytest.approx(0.5, abs=0.01)
    ends = normal_scores(np.array([[-1e300], [1e300]]), reference)
    assert np.allclose(ends, [[-3.67], [3.67]], atol=0.05)
    tied = normal_scores(np.zeros((3, 1)), np.zeros((100, 1)))
    assert np.allclose(tied, 0.0)


def as_moved(draws):
    return certificate.Moved(
        draws, np.zeros(draws.shape[:2]), agreement(draws), 0.9, 0.0, len(draws)
    )


@pytest.mark.parametrize("phi", [0.0, 0.5])
@pytest.mark.stat
def test_drift_of_chains_whose_distance_from_q_is_known(phi):
    """q standard normal; chains with mean 0.3 and sd 0.8 in u[1]. Limits: 5 standard errors."""
    target = gaussian(np.zeros(2), np.eye(2))
    draws = autoregression(phi, length=12) * [1.0, 0.8] + [0.0, 0.3]
    reference = np.random.default_rng(1).standard_normal((4096, 2))
    drift = certificate.measure_drift(
        target.evaluator.problem, as_moved(draws), {"u": reference}, {"u": draws.reshape(-1, 2)}
    )
    noise = 5.0 * np.hypot(drift.error, 1.0 / np.sqrt(4096))
    assert drift.labels == ("u[0]", "u[1]")
    assert (np.abs(drift.mean - [0.0, 0.3]) < noise).all()
    assert (np.abs(drift.log_sd - [0.0, np.log(0.8)]) < noise).all()
    assert drift.worst == 1
    assert drift.largest == pytest.approx(0.3, abs=0.1)


@pytest.mark.stat
def test_the_error_of_the_drift_is_calibrated():
    """Over 60 seeds the drift of stationary chains has the sd that is claimed, within 40%.

    The relative error of an sd of 60 is 0.09; false alarms about 1e-5.
    """
    target = gaussian(np.zeros(1), np.eye(1))
    reference = stats.norm.ppf((np.arange(4096) + 0.5) / 4096)[:, None]
    means, errors = [], []
    for seed in range(60):
        draws = autoregression(0.5, length=12, count=128, dim=1, seed=seed)
        drift = certificate.measure_drift(
            target.evaluator.problem, as_moved(draws), {"u": reference}, {"u": draws.reshape(-1, 1)}
        )
        means.append(drift.mean[0])
        errors.append(drift.error[0])
    assert np.std(means) == pytest.approx(np.mean(errors), rel=0.4)


def test_chains_from_an_exact_q_stay_and_sample_it():
    """Twelve transitions of preconditioned chains: draws are nearly independent."""
    rng = np.random.default_rng(2)
    target = gaussian(rng.standard_normal(5), random_root(rng, 5, 1e6))
    q = DenseGaussian.from_root(target.mean, np.linalg.cholesky(target.covariance))
    moved, _ = certificate.first_move(certificate.start_chains(target.evaluator, q, 0))
    assert moved.agreement.converged
    assert moved.agreement.iact < 2.5
    assert moved.stuck == 0.0
    assert 0.6 < moved.acceptance <= 1.0
    whitened = q.whiten(moved.flat - target.mean)
    ess = len(whitened) / max(moved.agreement.iact, 1.0)
    assert np.abs(whitened.mean(axis=0)).max() < 5.0 / np.sqrt(ess)
    assert np.abs(whitened.std(axis=0) - 1.0).max() < 5.0 / np.sqrt(2.0 * ess)


def test_the_same_seed_gives_the_same_chains():
    target = gaussian(np.zeros(2), np.eye(2))
    q = DenseGaussian(np.zeros(2), np.eye(2))
    first, second = (
        certificate.first_move(certificate.start_chains(target.evaluator, q, 4))[0]
        for _ in range(2)
    )
    assert np.array_equal(first.points, second.points)


def test_directions_in_words():
    target = gaussian(np.zeros(6), np.eye(6), {"mu": (), "beta": (5,)})
    words = in_words(target.evaluator, np.array([0.05, 0.0, -0.7, 0.1, 0.7, 0.0]))
    assert words == "the direction -0.70 beta[1] +0.70 beta[3] +0.10 beta[2]"
    many = in_words(target.evaluator, np.full(6, -(6.0**-0.5)))
    assert many.startswith("the direction -0.41 ")
    assert many.endswith(" and 2 more")
