"""Stochastic variational inference against closed forms and coordinate ascent on all rows."""

import itertools

import jax.numpy as jnp
import numpy as np
import pytest

import taut
from marking import slow_but
from solvers import minibatch_models as models
from taut._core.errors import ArgumentError, ModelError
from taut._core.precision import double_precision
from taut._core.progress import Watch
from taut._core.status import Status
from taut.expectation.gaussian import Gaussian
from taut.families import Dense, MeanField
from taut.problem import describe
from taut.problem.evaluator import Evaluator
from taut.solvers import StochasticNatural
from taut.solvers.ascent import ascend, engine_of, first_factors, perturbed
from taut.solvers.minibatch_layout import layout_by_rows
from taut.solvers.minibatch_steps import LocalFit, divided, make_steps
from taut.solvers.minibatches import batches, find_rows
from taut.solvers.start import Start

EXACT = LocalFit(sweeps=500, tolerance=1e-15)
SIXTY = {"y": np.linspace(-2.0, 2.0, 60)}


def solved(model, data, solver, *, callbacks=(), seed=0):
    """What a solver finds for a mean field, without the certificate."""
    problem = describe(model, data)
    start = Start(np.zeros(problem.dim), np.ones(problem.dim), -np.inf, ())
    with Watch(None, False, callbacks) as watch:
        return solver.solve(Evaluator(problem), MeanField(), start, seed, watch)


class Prepared:
    """A model with its rows, its factors and compiled steps on batches of some size."""

    def __init__(self, model, data, size):
        self.problem = describe(model, data)
        self.rows = find_rows(self.problem)
        self.layout = layout_by_rows(self.problem, MeanField(), self.rows)
        self.engine = engine_of(self.problem, self.layout)
        self.sites = self.engine.fold(self.problem.arrays)
        self.shared, self.local = divided(self.engine.blocks, self.rows)
        self.steps = make_steps(self.problem, self.rows, self.layout, size, EXACT)

    def settled(self, sweeps=3):
        """All factors after some sweeps over all rows."""
        q = first_factors(self.problem, self.layout, self.sites, self.engine.blocks)
        q = perturbed(self.problem, q, np.random.default_rng(0))
        for _ in range(sweeps):
            q = self.swept(q)
        return q

    def swept(self, q):
        return self.engine.run(q, self.sites, {})[0]

    def step(self, q, index, rate=1.0):
        """The shared factors after one step on some rows."""
        shared = {b.name: q[b.name] for b in self.shared}
        index, rates = jnp.asarray(index)[None], jnp.full(1, rate)
        return self.steps.advance(shared, self.problem.arrays, index, rates, 1)[0]


def natural(factor):
    """Natural parameters of a factor, as one vector."""
    if isinstance(factor, Gaussian):
        precision = np.linalg.inv(factor.covariance)
        parts = (precision, np.einsum("bij,bj->bi", precision, factor.mean))
    else:
        parts = factor.natural
    return np.concatenate([np.ravel(x) for x in parts])


# --- one step ---------------------------------------------------------------------------------


def test_a_full_step_on_all_rows_is_a_sweep_of_coordinate_ascent():
    """With optimal labels, to 1e-10 in every natural parameter."""
    with double_precision():
        it = Prepared(models.mixture, models.make_points(90), 90)
        q = it.settled()
        stepped, swept = it.step(q, np.arange(90)), it.swept(q)
    for name in stepped:
        assert np.allclose(natural(stepped[name]), natural(swept[name]), rtol=1e-10, atol=1e-10)


CASES = {
    "mixture": (models.mixture_of_known_spread, models.make_points(90), 15, 1e-10),
    "topics": (models.topics, models.make_words(12), 3, 1e-6),
    "counts": (models.counts, models.make_counts(24), 6, 1e-6),
}


@pytest.mark.parametrize("name", slow_but(CASES, "mixture"))
def test_batches_of_an_epoch_average_to_all_rows(name):
    """The mean of the first shared factor's natural parameters over a partition.

    To 1e-10 for labels, whose optimum is one update; to 1e-6 where local factors are iterated.
    """
    model, data, size, tolerance = CASES[name]
    num = len(next(iter(data.values())))
    with double_precision():
        few, whole = Prepared(model, data, size), Prepared(model, data, num)
        q = settled_counts(whole) if name == "counts" else whole.settled()
        first = few.shared[0].name
        order = np.random.default_rng(1).permutation(num).reshape(-1, size)
        each = [natural(few.step(q, index)[first]) for index in order]
        expected = natural(whole.step(q, np.arange(num))[first])
    assert np.allclose(np.mean(each, axis=0), expected, rtol=tolerance, atol=tolerance)
    assert not np.allclose(each[0], expected, rtol=1e-3)


def settled_counts(it):
    """Factors of the model of counts after some sweeps, whose Poisson effects are damped."""
    q = first_factors(it.problem, it.layout, it.sites, it.engine.blocks)
    steps = {b.name: np.float64(1.0) for b in it.engine.blocks if not b.is_conjugate}
    for _ in range(3):
        q, steps, _ = it.engine.run(q, it.sites, steps)
    return q


@pytest.mark.parametrize("size", [1, 7, 100, 5000])
def test_any_batch_stands_for_all_rows(size):
    """5,000 normal rows: after one full step the precision is 5,000.01, whatever the batch."""
    with double_precision():
        it = Prepared(models.mean_of_rows, normal_rows(), size)
        q = first_factors(it.problem, it.layout, it.sites, it.engine.blocks)
        (found,) = it.step(q, np.arange(size)).values()
    assert np.allclose(found.covariance, 1.0 / 5000.01, rtol=1e-12)
    mean = 5000 * normal_rows()["x"][:size].mean() / 5000.01
    assert np.allclose(found.mean, mean, rtol=1e-12)


def normal_rows():
    return {"x": np.random.default_rng(0).normal(1.3, 1.0, 5000)}


def test_batches_are_full_and_give_every_row_its_turn():
    """Seven epochs of 10 rows are 70 / 4 batches and a rest; nothing is left out or doubled."""
    found = list(itertools.islice(batches(10, 4, np.random.default_rng(0)), 35))
    assert {len(b) for b in found} == {4}
    assert np.array_equal(np.bincount(np.concatenate(found)), np.full(10, 14))


# --- whole fits -------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [1, 7, 100, 5000])
def test_a_normal_mean_is_exact_for_every_batch_size(size):
    """Closed form: sd 0.014142, mean to 1e-9, log evidence to 1e-7."""
    x = normal_rows()["x"]
    found = solved(models.mean_of_rows, {"x": x}, StochasticNatural(batch_size=size))
    assert found.q.sd == pytest.approx([0.0141421], abs=1e-7)
    assert found.q.mean == pytest.approx([x.sum() / 5000.01], rel=1e-9)
    evidence = -2500 * np.log(2 * np.pi) - 0.5 * np.log(100 * 5000.01)
    evidence += 0.5 * (x.sum() ** 2 / 5000.01 - x @ x)
    assert found.elbo == pytest.approx(evidence, abs=1e-7)
    assert found.status is Status.CONVERGED


FITS = {
    "mixture": (models.mixture, models.make_points(600), 40, 0.001),
    "topics": (models.topics, models.make_words(80), 16, 3.0),
    "counts": (models.counts, models.make_counts(300), 30, 0.001),
}


@pytest.mark.parametrize("name", slow_but(FITS, "mixture"))
def test_the_bound_is_that_of_coordinate_ascent(name):
    """The ELBO on all rows, within the stated nats of the best that coordinate ascent finds."""
    model, data, size, gap = FITS[name]
    problem = describe(model, data)
    layout = layout_by_rows(problem, MeanField(), find_rows(problem))
    with Watch(None, False, ()) as watch:
        best = ascend(problem, layout, 0, watch)
    found = solved(model, data, StochasticNatural(batch_size=size, max_epochs=1000))
    assert found.status is Status.CONVERGED
    assert best.elbo - gap < found.elbo
    assert found.factors is not None
    with double_precision():
        bound = engine_of(problem, layout).bound(found.factors.q, best.sites)
    assert found.elbo == pytest.approx(float(bound), abs=1e-8)


def test_rows_along_another_axis_are_found():
    """Documents along the last axis of z, whose two axes are as long as each other."""
    data = models.make_words(models.LENGTH)
    found = [find_rows(describe(m, data)) for m in (models.topics, models.topics_across)]
    assert [dict(r.local) for r in found] == [{"theta": 0, "z": 0}, {"theta": 0, "z": 1}]


@pytest.mark.slow
def test_local_factors_along_another_axis_are_put_together():
    """Documents along the last axis of z: the bound is that on all rows of the factors returned."""
    data = models.make_words(30)
    found = solved(models.topics_across, data, StochasticNatural(batch_size=8, max_epochs=5))
    problem = describe(models.topics_across, data)
    layout = layout_by_rows(problem, MeanField(), find_rows(problem))
    with double_precision():
        engine = engine_of(problem, layout)
        bound = engine.bound(found.factors.q, engine.fold(problem.arrays))
    assert found.elbo == pytest.approx(float(bound), abs=1e-8)
    assert found.factors.q["z"].shape == (models.LENGTH, 30)


def test_fit_gives_a_posterior_with_labels_and_a_verdict():
    """Clusters far apart: the labels are those of the nearest centre, the verdict is no worse than usable."""
    data = models.make_points(120)
    posterior = taut.fit(
        models.mixture, data, family=MeanField(), solver=StochasticNatural(batch_size=30),
        progress=False,
    )  # fmt: skip
    distance = np.linalg.norm(data["y"][:, None] - models.CENTRES, axis=2)
    pairs = set(zip(posterior.assignments["z"].tolist(), distance.argmin(1).tolist(), strict=True))
    assert len(pairs) == 3
    assert posterior.trust.verdict in ("good", "usable")
    assert "stochastic natural gradient" in str(posterior.plan)


@pytest.mark.slow
def test_the_same_seed_gives_the_same_answer_bit_for_bit():
    data = models.make_points(200)
    solver = StochasticNatural(batch_size=20)
    one, two, other = (solved(models.mixture, data, solver, seed=s) for s in (3, 3, 4))
    assert one.history == two.history
    assert np.array_equal(one.q.mean, two.q.mean)
    assert one.history != other.history


def test_new_data_of_the_same_shape_compile_nothing():
    data = models.make_points(200)
    solver = StochasticNatural(batch_size=20)
    solved(models.mixture, data, solver)
    problem = describe(models.mixture, data)
    rows = find_rows(problem)
    layout = layout_by_rows(problem, MeanField(), rows)
    with double_precision():
        fit = LocalFit(solver.local_sweeps, solver.local_tolerance)
        steps = make_steps(problem, rows, layout, 20, fit)
    assert steps.advance._cache_size() == 1
    solved(models.mixture, {"y": data["y"] + 1.0}, solver)
    assert steps.advance._cache_size() == 1


def test_ctrl_c_keeps_the_best_so_far():
    """A callback that stops at the first look: the local factors are fitted all the same."""
    stop = lambda stage, numbers: stage.startswith("stochastic")
    found = solved(
        models.mixture, models.make_points(200), StochasticNatural(batch_size=20), callbacks=(stop,)
    )
    assert found.status is Status.INTERRUPTED
    assert np.isfinite(found.elbo)
    assert len(found.history) == 3


# --- refusals ---------------------------------------------------------------------------------


def test_more_rows_than_there_are_means_all_of_them():
    found = solved(models.mean_of_rows, {"x": np.ones(30)}, StochasticNatural(batch_size=256))
    assert found.status is Status.CONVERGED
    assert "fewer than batch_size=256" in found.notes[0]


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"batch_size": 0}, "batch_size must be"),
        ({"forgetting": 0.3}, "forgetting must be above 0.5"),
        ({"forgetting": 0.5}, "forgetting must be above 0.5"),
        ({"forgetting": 1.1}, "forgetting must be above 0.5"),
        ({"delay": 0.0}, "delay must be at least 1"),
        ({"max_epochs": 0}, "max_epochs must be"),
        ({"local_sweeps": 0}, "local_sweeps must be"),
        ({"tolerance": -1.0}, "tolerance must be"),
    ],
)
def test_settings_are_checked(settings, says):
    with pytest.raises(ArgumentError, match=says):
        StochasticNatural(**settings)


@pytest.mark.parametrize(
    ("model", "data", "says"),
    [
        (models.no_data, {}, "takes no array of data"),
        (models.latents_of_fixed_size, SIXTY, "cannot be run on .* of its 60 rows"),
        (models.random_walk, SIXTY, "is no sum over rows"),
        (models.centred_rows, SIXTY, "'y' is no sum over rows"),
        (models.prior_from_data, SIXTY, "the prior of 'm'"),
    ],
)
def test_models_without_rows_are_refused(model, data, says):
    with pytest.raises(ModelError, match=says):
        solved(model, data, StochasticNatural(batch_size=8))


def test_other_families_and_mixed_blocks_are_refused():
    problem = describe(models.counts, models.make_counts(30))
    start = Start(np.zeros(problem.dim), np.ones(problem.dim), -np.inf, ())
    for family in (
        Dense(),
        MeanField(free_form=("tau",)),
        MeanField(blocks=(("slope", "effect"),)),
    ):
        with pytest.raises(ArgumentError, match=r"MeanField\(\)|free_form|block of slope, effect"):
            StochasticNatural().solve(Evaluator(problem), family, start, 0, Watch(None, False, ()))


def test_rows_are_found():
    """Latents and sites of rows; a row for each group is none of the 40."""
    rows = find_rows(describe(models.groups, models.make_groups(40)))
    assert (rows.count, rows.local, rows.sites) == (40, (), ("y",))
    problem = describe(models.counts, models.make_counts(40))
    rows = find_rows(problem)
    assert (rows.local, rows.sites) == ((("effect", 0),), ("effect", "n"))
    few = rows.take(problem.arrays, np.arange(3))["data"]
    assert {n: v.shape for n, v in few.items()} == {"x": (3,), "n": (3,)}
