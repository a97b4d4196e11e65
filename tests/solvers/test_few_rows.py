"""Starts with many rows, followed on some of them, against the posterior of all."""

import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest

from solvers import batch_models, minibatch_models
from taut._core.progress import Watch
from taut.attempt import Attempt
from taut.expectation.folding import folded
from taut.families import DenseGaussian
from taut.plan import make_plan
from taut.problem import describe
from taut.problem.evaluator import Evaluator
from taut.solvers import few_rows
from taut.solvers.few_rows import find_start_on_rows
from taut.trust.modes import other_modes


@pytest.fixture(autouse=True)
def few(monkeypatch):
    """250 of at least 1,000 rows, however cheap they are."""
    monkeypatch.setattr(few_rows, "FEW_ROWS", 250)
    monkeypatch.setattr(few_rows, "MANY_ROWS", 1000)
    monkeypatch.setattr(few_rows, "DEAR", 0)


def started(problem):
    evaluator = Evaluator(problem)
    with Watch(None, False, ()) as watch:
        return evaluator, find_start_on_rows(evaluator, watch, 0)


def test_the_start_is_near_and_its_paths_cost_no_gradient_of_all_rows():
    """Within five widths of the posterior of the 250 rows; values are those of all rows."""
    data = batch_models.make_binary(2000)
    evaluator, start = started(describe(batch_models.logistic, data))
    mean, covariance = batch_models.logistic_fit(**data)
    wide = np.sqrt(np.diag(covariance)) * np.sqrt(2000 / 250)
    assert np.all(np.abs(2.0 * start.mean - mean) < 5.0 * wide)
    assert evaluator.num_gradients <= 2 * len(start.paths) + 64
    ends = evaluator.value(np.stack([p.end for p in start.paths]))
    assert [p.log_joint for p in start.paths] == pytest.approx(ends.tolist())
    assert ends.tolist() == sorted(ends.tolist(), reverse=True)


def test_the_fit_from_there_is_that_of_all_rows():
    data = batch_models.make_binary(2000)
    problem = describe(batch_models.logistic, data)
    with Watch(None, False, ()) as watch:
        q = Attempt.make(problem, make_plan(problem), 0, watch).solution.q
    mean, covariance = batch_models.logistic_fit(**data)
    assert np.allclose(2.0 * q.mean, mean, atol=1e-3 * np.sqrt(covariance.max()))
    assert np.allclose(4.0 * q.covariance, covariance, rtol=1e-3, atol=1e-7)


def squared(y):
    """Both signs of m explain the rows."""
    m = numpyro.sample("m", dist.Normal(0.0, 2.0))
    with numpyro.plate("rows", len(y)):
        numpyro.sample("y", dist.StudentT(5.0, jnp.square(m), 1.0), obs=y)


def test_separate_modes_are_found_from_paths_on_some_rows():
    """The other sign holds half of the mass."""
    data = {"y": 2.0 + np.random.default_rng(0).standard_t(5.0, 1200)}
    evaluator, start = started(describe(squared, data))
    q = DenseGaussian(start.paths[0].end, np.full((1, 1), 0.01))
    elbo = start.paths[0].log_joint
    with Watch(None, False, ()) as watch:
        (mode,) = other_modes(evaluator, start, q, elbo, 0, watch)
    assert mode.q.mean == pytest.approx(-q.mean, abs=0.1)


def test_models_without_rows_or_with_folded_ones_start_as_before():
    walk = {"y": np.cumsum(np.random.default_rng(0).standard_normal(1200))}
    evaluator, _ = started(describe(minibatch_models.random_walk, walk))
    assert evaluator.num_gradients > 64
    line = folded(describe(batch_models.line, batch_models.make_line(1200)))
    evaluator, _ = started(line)
    assert evaluator.num_gradients > 64
