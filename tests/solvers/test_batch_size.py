"""Fits by minibatches are fits to all rows, whatever the batch: closed forms, grids, quadrature."""

import numpy as np
import pytest

from marking import slow_but
from solvers import batch_models, minibatch_models
from taut._core.errors import ArgumentError, ModelError
from taut._core.progress import Watch
from taut.attempt import Attempt
from taut.families import Dense, Diagonal, MeanField
from taut.plan import make_plan
from taut.problem import describe
from taut.problem.evaluator import Evaluator
from taut.solvers import FixedDraws, Natural, StochasticNatural, minibatch_gaussian, row_chunks
from taut.solvers.minibatch_gaussian import OnRows
from taut.solvers.minibatches import find_rows
from taut.solvers.row_chunks import chunk_size, in_chunks

SHARED = {
    "grouped": (batch_models.grouped, batch_models.make_grouped(3000)),
    "counts": (batch_models.grouped_counts, batch_models.make_grouped_counts(3000)),
    "growth": (batch_models.growth, batch_models.make_growth(3000)),
}


@pytest.fixture
def small_chunks(monkeypatch):
    """Chunks of about 400 rows, so that a few thousand rows are many of them."""
    monkeypatch.setattr(row_chunks, "CHUNK_ROWS", 400)


def attempt(model, data, batch_size=None, family=None, solver=None):
    """What the plan leads to, without the certificate."""
    problem = describe(model, data)
    with Watch(None, False, ()) as watch:
        plan = make_plan(problem, family, solver, batch_size)
        return Attempt.make(problem, plan, 0, watch)


def assert_same(found, truth):
    """Means within 0.05 sd and sds within 5%, the requirement on any batch size."""
    mean, sd = truth
    assert np.all(np.abs(found.mean - mean) < 0.05 * sd)
    assert np.all(np.abs(found.sd / sd - 1.0) < 0.05)


# --- whole fits against truths ----------------------------------------------------------------


@pytest.mark.parametrize("size", [1, 7, 100, 5000])
def test_a_normal_mean_has_its_exact_sd_for_every_batch(size):
    """5,000 rows of N(m, 1) with m ~ N(0, 10): in units of the prior's sd, 0.00141421."""
    x = np.random.default_rng(0).normal(1.3, 1.0, 5000)
    found = attempt(minibatch_models.mean_of_rows, {"x": x}, size).solution
    assert found.q.sd * 10.0 == pytest.approx([0.0141421], abs=1e-7)
    assert found.q.mean * 10.0 == pytest.approx([x.sum() / 5000.01], rel=1e-9)


@pytest.mark.parametrize("size", slow_but([1, 10, 50, 500, 3001], 50))
def test_logistic_regression_reaches_the_best_gaussian(size, small_chunks):
    """Coefficients in one dense block against the fixed point by quadrature; 3,001 is prime."""
    data = batch_models.make_binary(3001)
    mean, covariance = batch_models.logistic_fit(**data)
    found = attempt(batch_models.logistic, data, size).solution
    scale = 2.0  # the prior's sd, the unit of the coordinates
    assert found.status.ok
    assert np.allclose(found.q.mean * scale, mean, atol=1e-3 * np.sqrt(covariance.max()))
    assert np.allclose(found.q.covariance * scale**2, covariance, rtol=1e-3, atol=1e-7)
    assert found.elbo == pytest.approx(
        batch_models.logistic_elbo(mean, covariance, **data), abs=1e-4
    )


@pytest.mark.parametrize("size", slow_but([1, 10, 50, 500, 3000], 50))
def test_a_hierarchy_has_the_posterior_of_a_grid(size):
    """Effects of groups and unknown scales; mu and slope against a grid over both scales."""
    model, data = SHARED["grouped"]
    mean, sd = batch_models.grouped_posterior(**data)
    made = attempt(model, data, size)
    values = made.evaluator.constrain(made.solution.q.sample(np.random.default_rng(0), 20_000))
    for name, m, s in zip(("mu", "slope"), mean, sd, strict=True):
        assert abs(values[name].mean() - m) < 0.05 * s  # the draws' own error is 0.007 sd
        assert values[name].std() == pytest.approx(s, rel=0.05)


@pytest.mark.parametrize("name", slow_but(["counts", "growth"], "growth"))
@pytest.mark.parametrize("size", slow_but([1, 10, 50, 500], 50))
def test_other_models_have_the_fit_of_all_rows(name, size, small_chunks):
    """A Poisson mixed model and a mean function that is not readable, against the whole."""
    model, data = SHARED[name]
    whole, found = attempt(model, data), attempt(model, data, size)
    assert_same(found.solution.q, (whole.solution.q.mean, whole.solution.q.sd))
    assert np.allclose(
        found.evaluator.problem.arrays["centring"].get("a", 0),
        whole.evaluator.problem.arrays["centring"].get("a", 0),
        atol=1e-3,
    )


@pytest.mark.slow
@pytest.mark.parametrize("size", [1, 10, 500])
def test_labels_of_rows_have_the_fit_of_all_rows(size):
    """A mixture of 1,000 points as a mean field, components matched by their means."""
    data = minibatch_models.make_points(1000)
    fits = [
        attempt(minibatch_models.mixture, data, solver=s, family=MeanField()).solution
        for s in (Natural(1e-8), StochasticNatural(size))
    ]
    whole, found = ({n: f for n, f in s.factors.q.items() if n != "z"} for s in fits)
    means = [np.asarray(q["mu"].mean).reshape(3, 2) for q in (whole, found)]
    order = [int(np.argmin(np.linalg.norm(means[1] - m, axis=1))) for m in means[0]]
    sd = np.sqrt(np.diagonal(whole["mu"].covariance, axis1=1, axis2=2)).reshape(3, 2)
    assert sorted(order) == [0, 1, 2]
    assert np.all(np.abs(means[1][order] - means[0]) < 0.05 * sd)
    for name, field in (("tau", "rate"), ("pi", "concentration")):
        a, b = np.asarray(getattr(whole[name], field)), np.asarray(getattr(found[name], field))
        assert np.allclose(b[order], a, rtol=0.01)
    assert fits[1].elbo == pytest.approx(fits[0].elbo, abs=1e-3)


# --- sums over chunks -------------------------------------------------------------------------


@pytest.mark.parametrize("size", [1, 7, 64, 200, 201])
def test_rows_in_chunks_have_the_bound_of_all_rows(size):
    """201 rows in chunks that divide them or leave a rest, against quadrature written out."""
    data = batch_models.make_binary(201)
    problem = describe(batch_models.logistic, data)
    rng = np.random.default_rng(2)
    mean, root = (
        rng.standard_normal(4),
        0.05 * np.tril(rng.standard_normal((4, 4))) + 0.1 * np.eye(4),
    )
    objective = OnRows(problem, find_rows(problem), rng.permutation(201), size, 201 // size)
    truth = batch_models.logistic_elbo(2.0 * mean, 4.0 * root @ root.T, **data)
    assert objective.look(mean, root).elbo == pytest.approx(truth, rel=1e-10)


def test_a_sample_counts_for_all_rows():
    """Samples that make up all rows average to their bound: no scale twice, none left out."""
    data = batch_models.make_binary(200)
    problem = describe(batch_models.logistic, data)
    rows, mean, root = find_rows(problem), np.full(4, 0.3), 0.2 * np.eye(4)
    order = np.arange(200)
    parts = [
        OnRows(problem, rows, np.roll(order, -50 * k), 25, 2).look(mean, root) for k in range(4)
    ]
    whole = OnRows(problem, rows, order, 25, 8).look(mean, root)
    assert np.mean([p.elbo for p in parts]) == pytest.approx(whole.elbo, rel=1e-12)
    assert np.allclose(np.mean([p.direction.b for p in parts], axis=0), whole.direction.b)
    assert abs(parts[0].elbo - whole.elbo) > 1.0


@pytest.mark.parametrize("num", [1000, 1009])
def test_the_log_joint_in_chunks_is_the_log_joint(num, small_chunks):
    """Values and gradients of all sites; 1,009 is prime, so a rest is left."""
    problem = describe(batch_models.grouped_counts, batch_models.make_grouped_counts(num))
    chunked = in_chunks(problem, 10)
    u = 0.3 * np.random.default_rng(0).standard_normal(problem.dim)
    expected, found = problem.log_joint_sites(u), chunked.log_joint_sites(u)
    assert {n: float(v) for n, v in found.items()} == pytest.approx(
        {n: float(v) for n, v in expected.items()}, rel=1e-12
    )
    a, b = (Evaluator(p).value_and_grad(u[None])[1][0] for p in (problem, chunked))
    assert np.allclose(a, b, rtol=1e-10)
    assert chunked.program.width < problem.program.width


def test_chunks_leave_no_rest_where_a_divisor_is_near(small_chunks):
    rows = find_rows(describe(batch_models.growth, batch_models.make_growth(1000)))
    assert [chunk_size(rows, n) for n in (1, 450, 600, 5000)] == [250, 250, 500, 1000]


# --- plates that the user subsamples ----------------------------------------------------------


PLATES = {
    "by index": (batch_models.by_index, {}),
    "by numpyro.subsample": (batch_models.by_subsample, {}),
    "by numbers": (batch_models.by_numbers, {"total": 600, "size": 50}),
    "of fixed size": (batch_models.of_fixed_size, {}),
    "plain": (batch_models.line, {}),
}


@pytest.mark.parametrize("name", PLATES)
@pytest.mark.parametrize("family", [None, MeanField()])
def test_plates_that_are_subsampled_count_every_row_once(name, family):
    """The exact posterior of 600 rows, though the model itself would scale 50 of them."""
    data = batch_models.make_line(600)
    model, more = PLATES[name]
    q = attempt(model, {**data, **more}, 40, family).solution.q
    mean, sd = batch_models.line_posterior(**data)
    unit = 2.0 if family is None else 1.0
    assert q.mean * unit == pytest.approx(mean, abs=1e-8)
    assert q.sd * unit == pytest.approx(sd, rel=1e-8)


@pytest.mark.parametrize("family", [None, MeanField()])
def test_a_scale_that_the_user_sets_is_kept(family):
    data = batch_models.make_line(600)
    q = attempt(batch_models.scaled_by_hand, data, 40, family).solution.q
    mean, sd = batch_models.line_posterior(**data, times=3.0)
    unit = 2.0 if family is None else 1.0
    assert q.mean * unit == pytest.approx(mean, abs=1e-8)
    assert q.sd * unit == pytest.approx(sd, rel=1e-8)


# --- the plan ---------------------------------------------------------------------------------


def test_the_plan_says_what_is_done_with_rows():
    problem = describe(batch_models.logistic, batch_models.make_binary(600))
    plan = make_plan(problem, batch_size=50)
    assert isinstance(plan.family, Dense)
    assert plan.solver == StochasticNatural(50)
    assert "600 rows ('y') are seen 50 at a time" in str(plan)
    assert "fit into one minibatch" in str(make_plan(problem, batch_size=601))
    local = describe(minibatch_models.counts, minibatch_models.make_counts(300))
    plan = make_plan(local, batch_size=50)
    assert isinstance(plan.family, MeanField)
    assert "'effect' belong to rows" in str(plan)


def test_a_size_may_be_given_twice_if_it_is_the_same():
    problem = describe(batch_models.line, batch_models.make_line(60))
    plan = make_plan(problem, solver=StochasticNatural(20, forgetting=0.6), batch_size=20)
    assert plan.solver == StochasticNatural(20, forgetting=0.6)
    plan = make_plan(problem, solver=StochasticNatural(forgetting=0.6), batch_size=20)
    assert plan.solver == StochasticNatural(20, forgetting=0.6)
    with pytest.raises(ArgumentError, match="20 in fit and 30 in"):
        make_plan(problem, solver=StochasticNatural(30), batch_size=20)


@pytest.mark.parametrize("size", [0, -3, True])
def test_sizes_are_whole_numbers(size):
    problem = describe(batch_models.line, batch_models.make_line(60))
    with pytest.raises(ArgumentError, match="batch_size must be a whole number of at least 1"):
        make_plan(problem, batch_size=size)


@pytest.mark.parametrize("solver", [Natural(), FixedDraws()])
def test_solvers_that_see_all_rows_take_no_batches(solver):
    problem = describe(batch_models.line, batch_models.make_line(60))
    with pytest.raises(ArgumentError, match="batch_size=20 asks for minibatches, and solvers"):
        make_plan(problem, solver=solver, batch_size=20)


def test_models_that_are_no_sum_over_rows_are_refused():
    y = {"y": np.linspace(-2.0, 2.0, 60)}
    problem = describe(minibatch_models.random_walk, y)
    with pytest.raises(ModelError, match=r"no sum over rows.*without batch_size"):
        make_plan(problem, batch_size=8)


def test_latents_of_rows_do_not_go_into_a_dense_gaussian():
    data = minibatch_models.make_counts(300)
    with pytest.raises(ArgumentError, match=r"would couple 'effect'.*MeanField\(\)"):
        attempt(minibatch_models.counts, data, 30, Dense())


def test_other_gaussian_families_take_fixed_draws(small_chunks):
    """A diagonal Gaussian of a nearly diagonal posterior: the closed form, each in prior sds."""
    data = batch_models.make_line(1200)
    q = attempt(batch_models.line, data, 30, Diagonal()).solution.q
    assert_same(q, tuple(v / 2.0 for v in batch_models.line_posterior(**data)))


@pytest.mark.slow
def test_blocks_that_are_split_are_named():
    """Slope and effects are one Gaussian block of all rows, and two of minibatches."""
    problem_data = minibatch_models.make_counts(60)
    found = attempt(minibatch_models.counts, problem_data, 20)
    assert any("'slope'" in n and "'effect'" in n and "belong to rows" in n for n in found.notes)
    alone = attempt(minibatch_models.mean_of_rows, {"x": np.ones(60)}, 20, MeanField())
    assert not any("belong to rows" in n for n in alone.notes)


def test_wrong_sites_are_taken_on_draws(monkeypatch):
    """Where the self-check condemns a site, the fit goes on without the compiled mean."""
    monkeypatch.setattr(minibatch_gaussian, "mistaken_sites", lambda *_: ("y",))
    data = batch_models.make_binary(300)
    found = attempt(batch_models.logistic, data, 100).solution
    mean, covariance = batch_models.logistic_fit(**data)
    assert any("differed from theirs" in n for n in found.notes)
    sd = np.sqrt(np.diag(covariance))
    assert_same(found.q, (mean / 2.0, sd / 2.0))
