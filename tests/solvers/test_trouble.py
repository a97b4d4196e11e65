"""Budgets, interrupts, regions without density, Hessians that are not definite, refusals."""

import dataclasses
import inspect

import jax.numpy as jnp
import numpy as np
import pytest
from jaxtyping import TypeCheckError

from exact_targets import LOG_2PI, cliff, density, logistic_regression, solved, started
from taut import solvers
from taut._core.errors import ArgumentError, StartError
from taut._core.progress import Watch
from taut._core.status import Status
from taut.families import Block, Dense, DenseGaussian, Diagonal, LowRank
from taut.solvers import (
    AbstractSolver,
    BatchMatch,
    FixedDraws,
    Laplace,
    Natural,
    Pathfinder,
    ResidualLaplace,
    StochasticNatural,
)
from taut.solvers.start import Start

CASES = {
    "fixed draws, dense": (FixedDraws(), Dense()),
    "natural, dense": (Natural(), Dense()),
    "fixed draws, diagonal": (FixedDraws(), Diagonal()),
    "fixed draws, block": (FixedDraws(), Block()),
    "fixed draws, low rank": (FixedDraws(), LowRank(1)),
    "laplace": (Laplace(), Dense()),
    "residual laplace": (ResidualLaplace(), Dense()),
    "batch and match": (BatchMatch(), Dense()),
    "pathfinder": (Pathfinder(), Dense()),
}
each = pytest.mark.parametrize("case", CASES.values(), ids=CASES)


def test_every_exported_solver_is_in_the_table():
    exported = {
        value
        for name in solvers.__all__
        if inspect.isclass(value := getattr(solvers, name)) and issubclass(value, AbstractSolver)
    }
    # StochasticNatural needs rows and a mean field: test_stochastic_natural.py.
    listed = {type(solver) for solver, _ in CASES.values()} | {StochasticNatural}
    assert exported - {AbstractSolver} == listed


@each
def test_solvers_are_hashable_settings_that_describe_themselves(case):
    solver, _ = case
    assert hash(solver) == hash(dataclasses.replace(solver))
    assert solver.describe()


@pytest.fixture(scope="module")
def logistic():
    evaluator = logistic_regression(3, 40)
    return evaluator, started(evaluator)


@each
@pytest.mark.parametrize("status", [Status.BUDGET, Status.INTERRUPTED])
def test_out_of_time_the_best_so_far_is_returned(case, status, logistic):
    (solver, family), (evaluator, start) = case, logistic
    watch = Watch(budget=0.0)
    if status is Status.INTERRUPTED:
        watch = Watch()
        watch.interrupted = True
    solution = solver.solve(evaluator, family, start, 0, watch)
    assert solution.status is status
    assert np.isfinite(solution.q.mean).all()
    assert (solution.q.sd > 0).all()
    assert np.isfinite(solution.elbo)
    assert solution.elbo > start.elbo - 0.5


@pytest.mark.parametrize("name", ["fixed draws, dense", "fixed draws, diagonal", "batch and match"])
def test_an_interrupt_in_the_middle_keeps_what_was_reached(name, logistic):
    (solver, family), (evaluator, start) = CASES[name], logistic
    poor = dataclasses.replace(start, mean=start.mean + 2.0, root=np.full(3, 0.1))
    watch = Watch(callbacks=[lambda stage, numbers: True])  # asks to stop at the first report
    solution = solver.solve(evaluator, family, poor, 0, watch)
    nothing = solver.solve(evaluator, family, poor, 0, Watch(budget=0.0))
    assert solution.status is Status.INTERRUPTED
    assert solution.elbo >= nothing.elbo
    assert len(solution.history) >= 2


@each
def test_the_same_seed_gives_the_same_answer(case, logistic):
    (solver, family), (evaluator, start) = case, logistic
    first, second = (solver.solve(evaluator, family, start, 3, Watch()) for _ in range(2))
    assert np.array_equal(first.q.mean, second.q.mean)
    assert np.array_equal(first.q.covariance, second.q.covariance)
    assert first.elbo == second.elbo


# --- no density -------------------------------------------------------------------------------


@pytest.mark.parametrize("name", [n for n in CASES if n != "natural, dense"])
@pytest.mark.parametrize("beyond", [np.nan, -np.inf])
@pytest.mark.parametrize("dim", [1, 3])
def test_regions_without_density_are_stepped_around(name, beyond, dim):
    """A normal with 0.6% of its mass cut off: q stays near it, and its ELBO is a number or -inf.

    What moves q by the ELBO on fixed draws keeps those draws where the density is.
    """
    solver, family = CASES[name]
    solution = solved(solver, family, cliff(beyond, dim))
    assert np.isfinite(solution.q.mean).all()
    assert np.abs(solution.q.mean + 1.5).max() < 0.6
    assert (solution.q.sd > 0.2).all()
    assert (solution.q.sd < 1.5).all()
    assert not np.isnan(solution.elbo)
    assert np.isfinite(solution.elbo) or not isinstance(solver, FixedDraws | ResidualLaplace)


def test_the_natural_solver_says_that_it_cannot_integrate_a_cliff():
    solver, family = CASES["natural, dense"]
    with pytest.raises(ArgumentError, match="no cheap integral"):
        solved(solver, family, cliff(np.nan, 3))


@pytest.mark.parametrize(
    "name", [n for n in CASES if n.startswith("fixed draws, ") and n != "fixed draws, dense"]
)
def test_a_start_that_reaches_beyond_the_cliff_is_narrowed(name):
    solver, family = CASES[name]
    evaluator = cliff(np.nan, 2)
    wide = dataclasses.replace(started(evaluator), root=np.full(2, 50.0))
    solution = solver.solve(evaluator, family, wide, 0, Watch())
    assert np.isfinite(solution.elbo)
    assert (solution.q.sd < 1.5).all()


def _nowhere(latents, edge):
    return jnp.where(latents["u"] > edge, 0.0, jnp.nan)


def test_no_finite_start_is_an_error_that_names_the_site():
    with pytest.raises(
        StartError, match=r"not finite at any of .* starting points: site 'log_density' is nan"
    ):
        started(density(_nowhere, {"u": ()}, edge=np.asarray(1e6)))


# --- not definite -----------------------------------------------------------------------------


def _quartic(latents, scale):
    u, v = latents["u"], latents["v"]
    return -0.25 * (u / scale) ** 4 - 0.5 * v**2


def _two_humps(latents, scale):
    u, v = latents["u"], latents["v"]
    return jnp.logaddexp(-0.5 * (u - 3) ** 2, -0.5 * (u + 3) ** 2) - 0.5 * v**2 - LOG_2PI * scale


def _collapsing(latents, y):
    s, x = latents["u"], latents["v"]
    return -10.0 * s - 0.5 * 10.0 * (x * jnp.exp(-s)) ** 2 - 0.5 * (y - x) ** 2


def _start_at(evaluator, point):
    start = started(evaluator)
    return dataclasses.replace(
        start, paths=(dataclasses.replace(start.paths[0], end=np.asarray(point, float)),)
    )


INDEFINITE = {
    "flat mode": (_quartic, {"scale": 1.0}, [0.0, 0.0], "u"),
    "saddle": (_two_humps, {"scale": 1.0}, [0.0, 0.0], "u"),
}


@pytest.mark.parametrize("case", INDEFINITE.values(), ids=INDEFINITE)
def test_laplace_is_never_silent_on_a_hessian_that_is_not_definite(case):
    fn, data, point, name = case
    evaluator = density(fn, {"u": (), "v": ()}, **{k: np.asarray(v) for k, v in data.items()})
    solution = Laplace().solve(evaluator, Dense(), _start_at(evaluator, point), 0, Watch())
    assert solution.status is Status.INDEFINITE
    assert "not positive definite in 1 of 2 directions" in solution.notes[0]
    assert f"mostly {name})" in solution.notes[0]
    assert np.isfinite(solution.q.covariance).all()
    assert solution.q.sd[1] == pytest.approx(1.0, rel=1e-6)


def test_laplace_on_a_density_without_a_mode_does_not_claim_to_have_converged():
    """The log density rises without bound as the scale u falls and v goes to zero."""
    evaluator = density(_collapsing, {"u": (), "v": ()}, y=np.asarray(1.0))
    solution = Laplace().solve(evaluator, Dense(), _start_at(evaluator, [0.0, 0.3]), 0, Watch())
    assert not solution.status.ok
    assert not np.isnan(solution.q.covariance).any()


def _one_and_a_half(latents, scale):
    return -(jnp.abs(latents["u"] / scale) ** 1.5) - 0.5 * latents["v"] ** 2


@pytest.mark.parametrize("solver", [Laplace(), ResidualLaplace()])
def test_a_hessian_that_is_not_finite_gives_a_status_or_a_note_and_finite_numbers(solver):
    evaluator = density(_one_and_a_half, {"u": (), "v": ()}, scale=np.asarray(1.0))
    solution = solver.solve(evaluator, Dense(), _start_at(evaluator, [0.0, 0.0]), 0, Watch())
    assert "not finite" in solution.notes[0]
    assert np.isfinite(solution.q.covariance).all()
    assert np.isfinite(solution.elbo)
    assert solver != Laplace() or solution.status is Status.NONFINITE


def test_residual_laplace_at_a_flat_mode_is_corrected_and_noted():
    evaluator = density(_quartic, {"u": (), "v": ()}, scale=np.asarray(1.0))
    solution = ResidualLaplace().solve(
        evaluator, Dense(), _start_at(evaluator, [0.0, 0.0]), 0, Watch()
    )
    assert "not positive definite" in solution.notes[0]
    assert solution.q.sd[0] == pytest.approx(
        3.0**-0.25, rel=0.1
    )  # E[u^2] = 1 / sqrt(3) at the best Gaussian


# --- refusals ---------------------------------------------------------------------------------


@pytest.mark.parametrize("solver", [Laplace(), ResidualLaplace(), BatchMatch(), Pathfinder()])
def test_solvers_of_dense_gaussians_refuse_other_families(solver, logistic):
    evaluator, start = logistic
    with pytest.raises(
        ArgumentError, match=rf"solvers\.{type(solver).__name__} fits families\.Dense\(\) only"
    ):
        solver.solve(evaluator, Diagonal(), start, 0, Watch())


def _many(latents, scale):
    return -0.5 * jnp.sum((latents["u"] / scale) ** 2)


@pytest.mark.parametrize(
    ("solver", "dim", "message"),
    [
        (FixedDraws(), 1001, r"beyond 1000 use families\.LowRank"),
        (Laplace(), 2001, "this problem has 2001"),
    ],
)
def test_too_many_latents_are_refused_before_any_work(solver, dim, message):
    evaluator = density(_many, {"u": (dim,)}, scale=np.asarray(1.0))
    empty = Start(np.zeros(dim), np.ones(dim), 0.0, ())
    with pytest.raises(ArgumentError, match=message):
        solver.solve(evaluator, Dense(), empty, 0, Watch())


@pytest.mark.parametrize(
    ("settings", "message"), [({"num_draws": 1}, "at least 2"), ({"tolerance": 0.0}, "positive")]
)
def test_settings_out_of_range_are_refused(settings, message):
    with pytest.raises((ArgumentError, TypeCheckError), match=message):
        FixedDraws(**settings)


def test_diagonal_newton_works_beyond_the_dense_limit():
    """No d by d matrix is formed: 2,000 latents take under a second once compiled."""
    dim = 2000
    evaluator = density(_many, {"u": (dim,)}, scale=np.full(dim, 2.0))
    start = Start(np.full(dim, 0.5), np.ones(dim), 0.0, ())
    solution = FixedDraws().solve(evaluator, Diagonal(), start, 0, Watch())
    assert solution.status is Status.CONVERGED
    assert np.allclose(solution.q.sd, 2.0, rtol=0.2)
    assert not isinstance(solution.q, DenseGaussian)
