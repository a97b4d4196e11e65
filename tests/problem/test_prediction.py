"""Drawing observed sites anew: the same data, other lengths, new groups, no data."""

import jax
import numpy as np
import numpyro
import numpyro.distributions as dist
import pandas as pd
import pytest
from scipy import stats

from taut._core.errors import DataError
from taut._core.precision import double_precision
from taut.problem import describe, predictor_without_data

X = np.array([0.5, -1.0, 2.0, 0.0])


def line(x, y=None):
    b = numpyro.sample("b", dist.Normal(0, 1))
    with numpyro.plate("row", len(x)):
        numpyro.sample("y", dist.Normal(b * x, 0.1), obs=y)


def needs_y(x, y):
    line(x, y)


def hierarchy(g, y):
    mu = numpyro.sample("mu", dist.Normal(0, 1))
    with numpyro.plate("group", int(g.max()) + 1):
        theta = numpyro.sample("theta", dist.Normal(mu, 0.5))
    numpyro.sample("y", dist.Normal(theta[g], 0.1), obs=y)


def simulated(problem, values, new_data=None, count=2000, sites=None):
    with double_precision():
        predictor = problem.predictor(new_data, sites=sites)
        keys = jax.random.split(jax.random.key(11), count)
        run = jax.jit(jax.vmap(predictor.simulate, (0, None, None)))
        return {n: np.asarray(v) for n, v in run(keys, values, predictor.arrays).items()}


def agrees(draws, mean, sd):
    """False alarm 1e-4 for all elements together (Bonferroni), seeds fixed."""
    size = draws[0].size
    limit = stats.norm.isf(1e-4 / (4 * size))
    error = sd / np.sqrt(len(draws))
    ok_mean = (np.abs(draws.mean(0) - mean) < limit * error).all()
    ok_sd = (np.abs(draws.std(0) / sd - 1) < limit / np.sqrt(2 * len(draws))).all()
    return bool(ok_mean and ok_sd)


@pytest.mark.stat
@pytest.mark.parametrize("model", [line, needs_y])
def test_in_sample_simulation_has_the_models_moments(model):
    problem = describe(model, {"x": X, "y": X})
    draws = simulated(problem, {"b": 2.0})["y"]
    assert draws.shape == (2000, 4)
    assert agrees(draws, 2.0 * X, 0.1)


@pytest.mark.stat
@pytest.mark.parametrize("model", [line, needs_y])
@pytest.mark.parametrize("wrap", [dict, lambda d: pd.DataFrame(d)])
def test_other_lengths_without_the_response(model, wrap):
    problem = describe(model, wrap({"x": X, "y": X}))
    new = np.arange(7.0)
    draws = simulated(problem, {"b": -1.0}, wrap({"x": new}))["y"]
    assert draws.shape == (2000, 7)
    assert agrees(draws, -new, 0.1)


@pytest.mark.stat
def test_a_response_in_the_new_data_is_not_echoed():
    problem = describe(needs_y, {"x": X, "y": X})
    draws = simulated(problem, {"b": 2.0}, {"x": X, "y": np.full(4, 99.0)})["y"]
    assert agrees(draws, 2.0 * X, 0.1)


@pytest.mark.stat
def test_latents_that_are_not_given_come_from_their_prior():
    problem = describe(hierarchy, {"g": np.array([0, 1, 1]), "y": X[:3]})
    new = {"g": np.array([0, 1, 2, 3])}
    theta = simulated(problem, {"mu": 3.0}, new, sites=("theta",))["theta"]
    assert theta.shape == (2000, 4)
    assert agrees(theta, np.full(4, 3.0), 0.5)
    draws = simulated(problem, {"mu": 3.0}, new)["y"]
    assert agrees(draws, np.full(4, 3.0), np.hypot(0.5, 0.1))


@pytest.mark.stat
def test_the_response_observed_by_name_is_simulated_too():
    problem = describe(line, {"x": X}, {"y": X})
    assert agrees(simulated(problem, {"b": 2.0})["y"], 2.0 * X, 0.1)


def test_a_latent_observed_by_name_is_simulated_as_an_observed_site():
    problem = describe(hierarchy, {"g": np.array([0, 1]), "y": X[:2]}, {"mu": 1.0})
    draws = simulated(problem, {"theta": np.array([0.0, 5.0])}, count=50)
    assert set(draws) == {"mu", "y"}
    assert np.ptp(draws["mu"]) > 0


def test_new_data_are_checked():
    problem = describe(needs_y, {"x": X, "y": X})
    with pytest.raises(
        DataError, match=r"data has 'xx', which is not an argument.*did you mean 'x'"
    ):
        problem.predictor({"xx": X})
    with pytest.raises(DataError, match="data 'x' holds text"):
        problem.predictor({"x": np.array(["a"])})


def fixed_groups(g, k, y):
    with numpyro.plate("group", k):
        theta = numpyro.sample("theta", dist.Normal(0, 1))
    numpyro.sample("y", dist.Normal(theta[g], 1), obs=y)


def test_a_group_that_the_fit_did_not_have_is_no_longer_the_last_one():
    problem = describe(fixed_groups, {"g": np.array([0, 1]), "k": 2, "y": X[:2]})
    with pytest.raises(DataError, match="data 'g' is used as an index and holds 2"):
        problem.predictor({"g": np.array([0, 2]), "k": 2})


def test_categories_of_new_data_are_those_of_the_fit():
    fitted = pd.DataFrame({"g": pd.Categorical(["a", "b", "c"]), "y": X[:3]})
    problem = describe(hierarchy, fitted)
    new = pd.DataFrame({"g": pd.Categorical(["c", "c"])})
    draws = simulated(problem, {"mu": 0.0, "theta": np.array([0.0, 10.0, 20.0])}, new, count=20)
    assert (draws["y"] > 15).all()


def test_prediction_for_new_data_of_the_same_shape_is_compiled_once():
    problem = describe(needs_y, {"x": X, "y": X})
    first = problem.predictor({"x": X})
    assert problem.predictor({"x": X + 1}).simulate is first.simulate
    assert problem.predictor({"x": X[:2]}).simulate is not first.simulate


def test_prediction_without_the_data_of_the_fit():
    predictor = predictor_without_data(line, None, ("y",))({"x": X})
    drawn = predictor.simulate(jax.random.key(0), {"b": 2.0}, predictor.arrays)
    assert drawn["y"].shape == (4,)


def test_rebinding_keeps_observe_and_takes_other_data():
    problem = describe(line, {"x": X}, {"y": X})
    other = problem.rebind({"x": X + 1})
    assert other.program is problem.program
    np.testing.assert_array_equal(other.observed_values()["y"], X)


def test_the_graph_is_numpyros():
    problem = describe(hierarchy, {"g": np.array([0, 1]), "y": X[:2]})
    relations = problem.relations()
    assert relations["sample_sample"]["theta"] == ["mu"]
    assert relations["observed"] == ["y"]
