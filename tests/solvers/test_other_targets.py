"""Solvers on skewed and logistic targets, against quadrature and SciPy."""

import numpy as np
import pytest
from scipy import integrate, optimize, special

from exact_targets import (
    density,
    log_gamma,
    logistic_3d,
    logistic_data,
    logistic_regression,
    solved,
)
from taut._core.status import Status
from taut.families import Block, Dense, Diagonal, LowRank
from taut.solvers import BatchMatch, FixedDraws, Laplace, Pathfinder, ResidualLaplace


def best_gaussian_for_log_gamma() -> tuple[float, float, float]:
    """Mean, sd and ELBO of the KL-optimal Gaussian by quadrature and Nelder-Mead."""

    def log_joint(u):
        return 2.0 * u - np.exp(u) - special.gammaln(2.0)

    def loss(params):
        mean, sd = params[0], np.exp(params[1])
        weight = lambda z: np.exp(-0.5 * z * z) / np.sqrt(2 * np.pi)
        expected = integrate.quad(lambda z: weight(z) * log_joint(mean + sd * z), -12, 12)[0]
        return -expected - 0.5 * np.log(2 * np.pi * np.e) - np.log(sd)

    found = optimize.minimize(
        loss, [0.0, 0.0], method="Nelder-Mead", options={"xatol": 1e-7, "fatol": 1e-11}
    )
    return found.x[0], np.exp(found.x[1]), -found.fun


def test_the_best_gaussian_by_quadrature_agrees_with_its_closed_form():
    """E_q[log p] = a m - exp(m + s^2 / 2) + const, so s^2 = 1 / a and m = log a - 1 / (2 a)."""
    mean, sd, _ = best_gaussian_for_log_gamma()
    assert mean == pytest.approx(np.log(2.0) - 0.25, abs=1e-5)
    assert sd == pytest.approx(np.sqrt(0.5), abs=1e-5)


@pytest.mark.parametrize(
    "family", [Dense(), Diagonal(), Block(), LowRank(1)], ids=lambda f: type(f).__name__
)
def test_a_skewed_latent_gets_the_kl_optimal_gaussian(family):
    mean, sd, elbo = best_gaussian_for_log_gamma()
    solution = solved(FixedDraws(tolerance=1e-5), family, log_gamma())
    assert solution.status is Status.CONVERGED
    assert abs(solution.q.mean[0] - mean) < 0.02 * sd
    assert solution.q.sd[0] == pytest.approx(sd, rel=0.02)
    assert solution.elbo == pytest.approx(elbo, abs=0.015)  # on 256 draws


def test_residual_laplace_of_a_skewed_latent_is_the_kl_optimal_gaussian_too():
    """In one dimension mean and scale are all there is to correct."""
    mean, sd, elbo = best_gaussian_for_log_gamma()
    solution = solved(ResidualLaplace(), Dense(), log_gamma())
    assert solution.status is Status.CONVERGED
    assert abs(solution.q.mean[0] - mean) < 0.05 * sd
    assert solution.q.sd[0] == pytest.approx(sd, rel=0.05)
    assert solution.elbo == pytest.approx(elbo, abs=0.02)


SOLVERS = {
    "fixed draws": (FixedDraws(), Dense(), 0.03, 0.03, 0.02),
    "low rank": (FixedDraws(), LowRank(3), 0.05, 0.05, 0.02),
    "batch and match": (BatchMatch(), Dense(), 0.1, 0.05, 0.05),
    "residual laplace": (ResidualLaplace(), Dense(), 0.05, 0.05, 0.03),
    "pathfinder": (Pathfinder(), Dense(), 0.3, 0.3, 0.5),
}


@pytest.mark.parametrize("case", SOLVERS.values(), ids=SOLVERS)
def test_logistic_regression_against_quadrature(case):
    """Mean, sds and evidence; the posterior is 0.01 nats from its best Gaussian."""
    solver, family, mean, sd, gap = case
    target = logistic_3d()
    solution = solved(solver, family, target.evaluator)
    assert solution.status is Status.CONVERGED
    assert np.abs((solution.q.mean - target.mean) / target.sd).max() < mean
    assert np.abs(np.log(solution.q.sd / target.sd)).max() < sd
    assert target.log_evidence - gap < solution.elbo < target.log_evidence + 0.01


def test_laplace_is_scipys_mode_and_inverse_hessian():
    x, y = logistic_data(3, 40)

    def loss(beta):
        logit = x @ beta
        return -(y * logit - np.logaddexp(0, logit)).sum() + 0.5 * beta @ beta

    mode = optimize.minimize(loss, np.zeros(3), method="BFGS", options={"gtol": 1e-9}).x
    weight = special.expit(x @ mode) * special.expit(-x @ mode)
    covariance = np.linalg.inv(x.T @ (x * weight[:, None]) + np.eye(3))
    solution = solved(Laplace(), Dense(), logistic_regression(3, 40))
    assert solution.status is Status.CONVERGED
    assert np.allclose(solution.q.mean, mode, atol=1e-6)
    assert np.allclose(solution.q.covariance, covariance, rtol=1e-5)


@pytest.mark.slow
def test_residual_laplace_of_a_hundred_coefficients_is_near_the_dense_fit():
    evaluator = logistic_regression(100, 300)
    dense = solved(FixedDraws(), Dense(), evaluator)
    residual = solved(ResidualLaplace(), Dense(), evaluator)
    laplace = solved(Laplace(), Dense(), evaluator)
    assert residual.status is Status.CONVERGED
    assert dense.status is Status.CONVERGED
    error = np.abs((residual.q.mean - dense.q.mean) / dense.q.sd).max()
    assert error < 0.1
    assert error < 0.5 * np.abs((laplace.q.mean - dense.q.mean) / dense.q.sd).max()
    assert np.abs(np.log(residual.q.sd / dense.q.sd)).max() < 0.05
    assert residual.elbo == pytest.approx(dense.elbo, abs=0.5)


def _funnel_like(latents, scale):
    """Log-normal scale of ten observations of zero: moderately skewed, D = 2."""
    s, x = latents["s"], latents["x"]
    return -0.5 * (s / scale) ** 2 - 0.5 * (x / (1.0 + 0.5 * x**2)) ** 2 - 0.5 * (x - s) ** 2


def test_solvers_of_one_family_agree():
    """Deterministic optimiser and natural gradient maximise the same ELBO."""
    evaluator = density(_funnel_like, {"s": (), "x": ()}, scale=np.asarray(1.0))
    dense = solved(FixedDraws(num_draws=512, tolerance=1e-5), Dense(), evaluator)
    newton = solved(FixedDraws(num_draws=512, tolerance=1e-5), Block("plate"), evaluator)
    assert dense.elbo == pytest.approx(newton.elbo, abs=0.01)
    assert np.abs((dense.q.mean - newton.q.mean) / dense.q.sd).max() < 0.03
    assert np.allclose(dense.q.covariance, newton.q.covariance, atol=0.05 * dense.q.variance.max())
