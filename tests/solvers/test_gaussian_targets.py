"""On Gaussian targets every solver's answer is known in closed form."""

import numpy as np
import pytest

from exact_targets import gaussian, gaussian_kl, linear_regression, random_root, solved, started
from taut._core.status import Status
from taut.families import Block, Dense, Diagonal, LowRank
from taut.solvers import BatchMatch, FixedDraws, Laplace, Pathfinder, ResidualLaplace


def target_of(dim, condition=30.0, shapes=None):
    rng = np.random.default_rng(dim)
    return gaussian(rng.standard_normal(dim), random_root(rng, dim, condition), shapes)


def assert_exact(solution, target, tolerance=1e-6):
    """Mean and covariance in the target's own units."""
    whitener = np.linalg.inv(np.linalg.cholesky(target.covariance))
    shift = whitener @ (solution.q.mean - target.mean)
    ratio = whitener @ solution.q.covariance @ whitener.T
    assert np.abs(shift).max() < tolerance
    assert np.abs(ratio - np.eye(target.dim)).max() < tolerance


@pytest.mark.parametrize(
    ("dim", "condition"),
    [
        (1, 1.0),
        (2, 30.0),
        (2, 1e6),
        (20, 1e4),
        (50, 30.0),
        pytest.param(300, 30.0, marks=pytest.mark.slow),
    ],
)
def test_dense_on_fixed_draws_is_exact(dim, condition):
    target = target_of(dim, condition)
    solution = solved(FixedDraws(tolerance=1e-10), Dense(), target.evaluator)
    assert solution.status is Status.CONVERGED
    assert_exact(solution, target, 1e-4)
    assert solution.elbo == pytest.approx(target.log_evidence, abs=1e-8)
    assert solution.mean_error < 1e-3


@pytest.mark.parametrize("dim", [2, 20, 100])
def test_dense_on_fixed_draws_keeps_its_default_tolerance(dim):
    """The last step promised less than 0.01 nat; so much may be missing."""
    target = target_of(dim)
    solution = solved(FixedDraws(), Dense(), target.evaluator)
    assert solution.status is Status.CONVERGED
    gap = gaussian_kl(solution.q.mean, solution.q.covariance, target)
    assert gap < 0.015
    assert solution.elbo == pytest.approx(target.log_evidence - gap, abs=1e-8)


@pytest.mark.parametrize("dim", [2, 10])
def test_dense_on_fixed_draws_with_condition_number_1e10(dim):
    """Eigenvalues of the covariance from 1 to 1e-10; the fit's error is its KL, in nats."""
    target = target_of(dim, 1e10)
    solution = solved(FixedDraws(tolerance=1e-8), Dense(), target.evaluator)
    assert solution.status is Status.CONVERGED
    assert solution.elbo == pytest.approx(target.log_evidence, abs=1e-6)


def test_conjugate_regression_gives_its_posterior_and_evidence():
    target = linear_regression()
    solution = solved(FixedDraws(tolerance=1e-10), Dense(), target.evaluator)
    assert_exact(solution, target, 1e-4)
    assert solution.elbo == pytest.approx(target.log_evidence, abs=1e-8)


@pytest.mark.parametrize("solver", [Laplace(), ResidualLaplace()])
@pytest.mark.parametrize(("dim", "condition"), [(1, 1.0), (2, 30.0), (50, 1e4)])
def test_laplace_is_exact_on_gaussians(solver, dim, condition):
    target = target_of(dim, condition)
    solution = solved(solver, Dense(), target.evaluator)
    assert solution.status is Status.CONVERGED
    assert solution.notes == ()
    assert_exact(solution, target, 1e-5)
    assert solution.elbo == pytest.approx(target.log_evidence, abs=1e-6)


def test_laplace_sees_through_bad_units():
    """Standard deviations from 1e-8 to 1e8: the Hessian is positive definite in any units."""
    root = np.linalg.cholesky(0.5 * np.eye(5) + 0.5) * np.geomspace(1e-8, 1e8, 5)[:, None]
    target = gaussian(np.geomspace(1e-8, 1e8, 5), root)
    solution = solved(Laplace(), Dense(), target.evaluator)
    assert solution.notes == ()
    assert np.allclose(solution.q.sd, target.sd, rtol=1e-5)


@pytest.mark.parametrize("dim", [1, 2, 20])
def test_batch_and_match_is_exact_on_gaussians(dim):
    target = target_of(dim)
    solution = solved(BatchMatch(), Dense(), target.evaluator)
    assert solution.status is Status.CONVERGED
    assert_exact(solution, target, 1e-3)
    assert solution.elbo == pytest.approx(target.log_evidence, abs=1e-3)


@pytest.mark.parametrize("dim", [1, 2, 5])
def test_pathfinder_finds_gaussians(dim):
    """Its means are x + H g: with the other sign they are as far off as the iterate itself."""
    target = target_of(dim)
    solution = solved(Pathfinder(), Dense(), target.evaluator)
    assert solution.status is Status.CONVERGED
    assert np.abs((solution.q.mean - target.mean) / target.sd).max() < 0.02
    assert gaussian_kl(solution.q.mean, solution.q.covariance, target) < 0.1
    assert solution.elbo <= target.log_evidence + 0.05


def test_pathfinder_moves_from_the_iterate_along_the_gradient():
    """On paths cut before their end x + H g lies nearer to the mean than x does."""
    import dataclasses

    from taut.families import DenseGaussian
    from taut.solvers.matching import _best_on_path

    target = target_of(3, 5.0)
    path = started(target.evaluator).paths[-1]
    early = dataclasses.replace(path, snapshots=path.snapshots[3:4])
    noise = np.random.default_rng(0).standard_normal((25, 3))
    found = _best_on_path(target.evaluator, early, noise)
    assert found is not None
    assert isinstance(found[1], DenseGaussian)
    before = gaussian_kl(early.snapshots[0].point, early.snapshots[0].covariance, target)
    assert gaussian_kl(found[1].mean, found[1].covariance, target) < before


# --- restricted families: the best member is known --------------------------------------------


@pytest.mark.parametrize("dim", [2, 10, 40])
def test_diagonal_optimum_of_a_correlated_gaussian(dim):
    """Mean exact, variances 1 / P_ii, ELBO short by half the log of prod(P_ii) / det(P)."""
    target = target_of(dim)
    precision = np.linalg.inv(target.covariance)
    solution = solved(FixedDraws(tolerance=1e-6), Diagonal(), target.evaluator)
    gap = 0.5 * (np.log(np.diagonal(precision)).sum() - np.linalg.slogdet(precision)[1])
    assert solution.status is Status.CONVERGED
    assert np.allclose(solution.q.mean, target.mean, atol=1e-3 * target.sd.max())
    assert np.allclose(solution.q.variance, 1.0 / np.diagonal(precision), rtol=2e-3)
    assert solution.elbo == pytest.approx(target.log_evidence - gap, abs=1e-5)


@pytest.mark.parametrize("by", ["latent", "plate"])
def test_block_optimum_of_a_correlated_gaussian(by):
    """Each block's covariance is the inverse of the precision's block."""
    target = target_of(7, shapes={"a": (3,), "b": (), "c": (3,)})
    precision = np.linalg.inv(target.covariance)
    blocks = [[0, 1, 2], [3], [4, 5, 6]] if by == "latent" else [list(range(7))]
    truth = np.zeros((7, 7))
    for b in blocks:
        truth[np.ix_(b, b)] = np.linalg.inv(precision[np.ix_(b, b)])
    gap = 0.5 * (-np.linalg.slogdet(truth)[1] - np.linalg.slogdet(precision)[1])
    solution = solved(FixedDraws(tolerance=1e-6), Block(by), target.evaluator)
    scale = np.sqrt(np.outer(np.diagonal(truth), np.diagonal(truth)))
    assert solution.status is Status.CONVERGED
    assert np.abs(solution.q.covariance - truth).max() < 5e-3 * scale.max()
    assert solution.elbo == pytest.approx(target.log_evidence - gap, abs=1e-5)


def test_a_wide_block_takes_more_draws_than_it_has_columns():
    """With fewer draws than a block has coordinates the ELBO on them would have no maximum."""
    target = target_of(80, shapes={"a": (80,)})
    solution = solved(FixedDraws(), Block(), target.evaluator)
    assert solution.status is Status.CONVERGED
    assert gaussian_kl(solution.q.mean, solution.q.covariance, target) < 0.05


@pytest.mark.parametrize(("dim", "rank"), [(6, 2), (30, 3)])
def test_low_rank_reaches_a_gaussian_of_its_own_family(dim, rank):
    rng = np.random.default_rng(dim)
    scale, columns = np.exp(0.5 * rng.standard_normal(dim)), rng.standard_normal((dim, rank))
    root = np.concatenate([np.diag(scale), scale[:, None] * columns], axis=1)
    target = gaussian(rng.standard_normal(dim), np.linalg.cholesky(root @ root.T))
    solution = solved(FixedDraws(tolerance=1e-4), LowRank(rank), target.evaluator)
    assert solution.status is Status.CONVERGED
    assert gaussian_kl(solution.q.mean, solution.q.covariance, target) < 1e-3
    assert solution.elbo == pytest.approx(target.log_evidence, abs=1e-3)


def test_low_rank_lies_between_diagonal_and_dense():
    target = target_of(10, 1e3)
    solver = FixedDraws(tolerance=1e-9)
    elbos = [
        solved(solver, f, target.evaluator).elbo
        for f in (Diagonal(), LowRank(2), LowRank(5), Dense())
    ]
    assert elbos == sorted(elbos)
    assert elbos[-1] == pytest.approx(target.log_evidence, abs=1e-8)
