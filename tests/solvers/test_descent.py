"""Quasi-Newton paths and Newton's method to modes that are known."""

import jax.numpy as jnp
import numpy as np
import pytest

from exact_targets import cliff, density, gaussian, log_gamma, random_root
from taut._core.progress import Watch
from taut._core.status import Status
from taut.solvers.descent import descend, secant_diagonal, two_loop
from taut.solvers.laplace import find_mode


def _rosenbrock(latents, steepness):
    x, y = latents["u"]
    return -0.5 * ((1.0 - x) ** 2 + steepness * (y - x**2) ** 2)


def rosenbrock():
    return density(_rosenbrock, {"u": (2,)}, steepness=np.asarray(100.0))


def test_every_path_finds_the_end_of_a_curved_valley():
    starts = np.array([[-1.2, 1.0], [0.0, 0.0], [2.0, -1.0], [-3.0, 5.0]])
    paths = descend(rosenbrock(), starts, Watch(), tolerance=1e-8)
    assert len(paths) == 4
    for path in paths:
        assert path.converged
        assert np.allclose(path.end, 1.0, atol=1e-3)
        assert path.num_steps < 60
    assert [p.log_joint for p in paths] == sorted((p.log_joint for p in paths), reverse=True)


def top_of(target):
    """The largest log joint of a Gaussian target."""
    log_det = np.linalg.slogdet(target.covariance)[1]
    return target.log_evidence - 0.5 * target.dim * np.log(2 * np.pi) - 0.5 * log_det


@pytest.mark.parametrize(("dim", "condition"), [(2, 1e3), (10, 1e3), (50, 1e4)])
def test_badly_scaled_quadratics(dim, condition):
    rng = np.random.default_rng(dim)
    target = gaussian(rng.standard_normal(dim), random_root(rng, dim, condition))
    paths = descend(target.evaluator, rng.standard_normal((4, dim)), Watch())
    assert paths[0].converged
    assert paths[0].log_joint == pytest.approx(top_of(target), abs=0.05)


@pytest.mark.parametrize(("dim", "condition"), [(2, 1e10), (20, 1e8), (50, 1e6)])
def test_newtons_method_ends_what_paths_began_on_worse_scaled_quadratics(dim, condition):
    """The paths' own inverse Hessian is wrong by then in the flattest directions."""
    rng = np.random.default_rng(dim)
    target = gaussian(rng.standard_normal(dim), random_root(rng, dim, condition))
    paths = descend(target.evaluator, rng.standard_normal((4, dim)), Watch())
    _, history, status = find_mode(target.evaluator, paths[0].end, Watch())
    assert status is Status.CONVERGED
    assert len(history) < 5
    assert history[-1] == pytest.approx(top_of(target), abs=1e-6)


def test_limited_memory_beyond_the_dense_limit():
    rng = np.random.default_rng(0)
    target = gaussian(rng.standard_normal(300), random_root(rng, 300, 100.0))
    (path,) = descend(target.evaluator, np.zeros((1, 300)), Watch())
    assert path.log_joint == pytest.approx(top_of(target), abs=0.05)
    assert path.snapshots[-1].covariance.shape == (300,)
    assert (path.snapshots[-1].covariance > 0).all()


def test_the_inverse_hessian_at_the_end_is_the_covariance():
    """After enough steps BFGS knows the curvature of a quadratic."""
    rng = np.random.default_rng(3)
    target = gaussian(np.zeros(3), random_root(rng, 3, 10.0))
    paths = descend(target.evaluator, 5.0 + rng.standard_normal((4, 3)), Watch(), tolerance=1e-14)
    best = min(np.abs(p.snapshots[-1].covariance - target.covariance).max() for p in paths)
    assert best < 0.02 * target.covariance.max()


def test_two_loop_is_the_dense_update_on_a_quadratic():
    """Nocedal's recursion against the product of rank-one updates written out."""
    rng = np.random.default_rng(1)
    hessian = np.diag([1.0, 3.0, 10.0])
    steps = rng.standard_normal((4, 3))
    pairs = [(s, hessian @ s, 1.0 / float(s @ hessian @ s)) for s in steps]
    s, y, _ = pairs[-1]
    inverse = np.eye(3) * float(s @ y) / float(y @ y)
    for s, y, rho in pairs:
        left = np.eye(3) - rho * np.outer(s, y)
        inverse = left @ inverse @ left.T + rho * np.outer(s, s)
    gradient = rng.standard_normal(3)
    assert np.allclose(two_loop(pairs, gradient), inverse @ gradient)


def test_the_secant_diagonal_is_exact_along_the_last_axis_and_positive():
    hessian = np.array([1.0, 4.0, 100.0])
    for axes in ([0, 1, 2], [2, 1, 0], [1, 2, 2]):
        pairs = [(np.eye(3)[i], hessian * np.eye(3)[i], 1.0) for i in axes]
        diagonal = secant_diagonal(pairs)
        assert diagonal[axes[-1]] == pytest.approx(1.0 / hessian[axes[-1]])
        assert (diagonal > 0).all()


def test_values_that_are_not_finite_are_stepped_around():
    paths = descend(cliff(np.nan, 3), np.array([[0.5] * 3, [5.0] * 3, [-8.0, 0.0, 0.9]]), Watch())
    assert len(paths) == 2  # the start beyond the cliff is left out
    for path in paths:
        assert np.allclose(path.end, -1.5, atol=0.05)


def test_a_spent_budget_keeps_the_starts():
    starts = np.array([[-1.2, 1.0], [0.0, 0.0]])
    paths = descend(rosenbrock(), starts, Watch(budget=0.0))
    assert sorted(p.num_steps for p in paths) == [0, 0]
    assert all(np.isfinite(p.log_joint) and not p.converged for p in paths)


# --- Newton's method --------------------------------------------------------------------------


def test_find_mode_of_a_curved_valley():
    mode, history, status = find_mode(rosenbrock(), np.array([-1.2, 1.0]), Watch())
    assert status is Status.CONVERGED
    assert np.allclose(mode, 1.0, atol=1e-6)
    assert list(history) == sorted(history)


def test_find_mode_of_a_skewed_latent():
    mode, _, status = find_mode(log_gamma(), np.array([-6.0]), Watch())
    assert status is Status.CONVERGED
    assert mode[0] == pytest.approx(np.log(2.0), abs=2e-5)  # to 1e-10 nats


@pytest.mark.parametrize("beyond", [np.nan, -np.inf])
def test_find_mode_from_a_point_without_density_says_so(beyond):
    point, history, status = find_mode(cliff(beyond), np.array([2.0]), Watch())
    assert status is Status.NONFINITE
    assert point[0] == 2.0
    assert history == (-np.inf,)


def _one_and_a_half(latents, scale):
    return -jnp.sum(jnp.abs(latents["u"] / scale) ** 1.5)


def test_find_mode_where_the_hessian_is_not_finite_says_so():
    evaluator = density(_one_and_a_half, {"u": (2,)}, scale=np.asarray(1.0))
    _, _, status = find_mode(evaluator, np.zeros(2), Watch())
    assert status is Status.NONFINITE


def test_find_mode_within_a_budget():
    point, history, status = find_mode(rosenbrock(), np.array([-1.2, 1.0]), Watch(budget=0.0))
    assert status is Status.BUDGET
    assert len(history) == 1
    assert np.array_equal(point, [-1.2, 1.0])
