"""Predictions and pointwise likelihoods."""

import jax
import jax.numpy as jnp
import numpy as np
import posterior_models as models
import pytest
from scipy import stats

import taut
from taut._core.errors import ArgumentError, DataError, ModelError
from taut.posterior import predictive


def test_predict_at_the_data_of_the_fit(schools_fit):
    found = schools_fit.predict(num_draws=300)
    assert {n: v.shape for n, v in found.items()} == {"y": (300, 8)}
    assert not (found["y"] == models.EFFECT).any(), "the observed values are forgotten"


@pytest.mark.stat
def test_the_posterior_predictive_has_its_closed_form(line_fit, line):
    """z < 5 for 6 numbers: a false alarm in about 300,000 runs; the seed is fixed besides."""
    x = np.array([-4.0, 0.0, 10.0])
    count = 8000
    found = line_fit.predict({"x": x}, num_draws=count)["y"]
    assert found.shape == (count, 3)
    design = np.column_stack([np.ones(3), x])
    variance = 1 + np.einsum("ni,ij,nj->n", design, line.covariance, design)
    mean_error = np.sqrt(variance / min(count, line_fit.trust.ess))
    assert (np.abs(found.mean(axis=0) - design @ line.mean) < 5 * mean_error).all()
    sd_error = np.sqrt(variance / 2 / min(count, line_fit.trust.ess))
    assert (np.abs(found.std(axis=0) - np.sqrt(variance)) < 5 * sd_error).all()


def test_the_response_may_stay_in_the_data(line_fit, line):
    without = line_fit.predict({"x": line.x}, num_draws=50)
    with_it = line_fit.predict(line.data, num_draws=50)
    np.testing.assert_array_equal(without["y"], with_it["y"])


def test_frames_are_data_too(line_fit):
    pd = pytest.importorskip("pandas")
    frame = pd.DataFrame({"x": [1.0, 2.0], "note": ["a", "b"]})
    assert line_fit.predict(frame, num_draws=20)["y"].shape == (20, 2)


def test_the_seed_decides(line_fit):
    first, again, other = (line_fit.predict(num_draws=50, seed=s)["y"] for s in (1, 1, 2))
    np.testing.assert_array_equal(first, again)
    assert (first != other).any()


def test_a_draw_does_not_depend_on_how_many_there_are():
    """Its key is its own; which latents it sees is up to the resampling."""
    density = taut.Density(
        lambda v, y: -0.5 * v["a"] ** 2,
        {"a": ()},
        simulate=lambda key, v, y: {"y": jax.random.normal(key, y.shape)},
    )
    fit = taut.fit(density, {"y": np.zeros(2)})
    few, many = (fit.predict(num_draws=n)["y"] for n in (10, 700))
    np.testing.assert_array_equal(few, many[:10])


def test_the_length_of_the_pieces_does_not_matter(line_fit, monkeypatch):
    whole = line_fit.predict(num_draws=300)["y"]
    likelihood = line_fit.log_likelihood(num_draws=300)["y"]
    monkeypatch.setattr(predictive, "MAX_LANES", 7)
    np.testing.assert_array_equal(line_fit.predict(num_draws=300)["y"], whole)
    np.testing.assert_allclose(line_fit.log_likelihood(num_draws=300)["y"], likelihood, rtol=1e-12)


def test_large_predictions_are_made_in_small_pieces(line_fit, monkeypatch):
    monkeypatch.setattr(predictive, "LANE_BUDGET", 40 * 3)
    lanes = []
    inner = predictive._simulate

    def spy(simulate, seed, index, latents, arrays):
        lanes.append(len(index))
        return inner(simulate, seed, index, latents, arrays)

    monkeypatch.setattr(predictive, "_simulate", spy)
    line_fit.predict(num_draws=10)
    assert lanes == [3, 3, 3, 3]


# --- groups -----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def grouped():
    return taut.fit(models.groups, models.grouped_data())


def test_new_groups_come_after_those_of_the_fit(grouped):
    """Six fitted groups keep their means; the seventh and eighth scatter like the prior."""
    new = {"group": np.arange(8), "count": 8}
    found = grouped.predict(new, num_draws=4000)["y"]
    np.testing.assert_allclose(found.mean(axis=0)[:6], np.linspace(-3, 3, 6), atol=0.6)
    assert found.std(axis=0)[:6].max() < 0.8
    assert found.std(axis=0)[6:].min() > 1.5
    spread = np.abs(found.mean(axis=0)[6:] - grouped.mean["mu"])
    assert (spread < 0.3).all()


def test_fewer_groups_are_the_first_ones(grouped):
    found = grouped.predict({"group": np.arange(2), "count": 2}, num_draws=2000)["y"]
    np.testing.assert_allclose(found.mean(axis=0), [-3, -1.8], atol=0.6)


def test_effects_of_single_observations_are_drawn_anew():
    rng = np.random.default_rng(3)
    x = rng.normal(size=30)
    y = rng.poisson(np.exp(x + 0.8 * rng.normal(size=30)))
    fit = taut.fit(models.with_effects, {"x": x, "y": y})
    found = fit.predict({"x": np.zeros(3)}, num_draws=4000)["y"]
    means = found.mean(axis=0)
    assert np.ptp(np.log(means)) < 0.5, "no row keeps the effect of a row of the fit"


# --- mistakes ---------------------------------------------------------------------------------


def test_a_name_that_the_model_does_not_know(line_fit):
    with pytest.raises(DataError, match="'xs', which is not an argument of line, did you mean 'x'"):
        line_fit.predict({"xs": [1.0]})


def test_new_data_of_another_kind(line_fit):
    with pytest.raises(DataError, match="data must be a mapping"):
        line_fit.predict(np.ones(3))


def test_a_count_of_draws_that_is_none(line_fit):
    with pytest.raises(ArgumentError, match="num_draws"):
        line_fit.predict(num_draws=0)
    with pytest.raises(ArgumentError, match="num_draws"):
        line_fit.log_likelihood(num_draws=0)


# --- pointwise likelihood ---------------------------------------------------------------------


def test_log_likelihood_is_scipys(schools_fit):
    found = schools_fit.log_likelihood(num_draws=200, seed=4)
    theta = schools_fit.draws(200, seed=4)["theta"]
    expected = stats.norm.logpdf(models.EFFECT, theta, models.SIGMA)
    np.testing.assert_allclose(found["y"], expected, rtol=1e-9)


def test_a_poisson_log_likelihood_is_scipys():
    y = np.array([0, 1, 5, 2])

    def model(y=None):
        import numpyro
        import numpyro.distributions as dist

        rate = numpyro.sample("rate", dist.Gamma(2.0, 1.0))
        numpyro.sample("y", dist.Poisson(rate).expand([4]), obs=y)

    fit = taut.fit(model, {"y": y})
    rate = fit.draws(100)["rate"]
    found = fit.log_likelihood(num_draws=100)["y"]
    np.testing.assert_allclose(found, stats.poisson.logpmf(y, rate[:, None]), rtol=1e-9)
    exact = (2 + y.sum()) / (1 + len(y))
    assert abs(fit.mean["rate"] - exact) < 0.05 * fit.sd["rate"]


# --- a plain density --------------------------------------------------------------------------


def log_density(latents, y):
    a = latents["a"]
    return -0.5 * (a / 10) ** 2 - 0.5 * jnp.sum((y - a) ** 2)


def test_a_density_without_its_functions_says_which_is_missing():
    fit = taut.fit(taut.Density(log_density, {"a": ()}), {"y": np.ones(4)})
    with pytest.raises(ModelError, match=r"simulate=\.\.\."):
        fit.predict()
    with pytest.raises(ModelError, match=r"log_likelihood=\.\.\."):
        fit.log_likelihood()


def test_a_density_with_its_functions_predicts():
    density = taut.Density(
        log_density,
        {"a": ()},
        log_likelihood=lambda v, y: {"y": -0.5 * (y - v["a"]) ** 2},
        simulate=lambda key, v, y: {"y": v["a"] + jax.random.normal(key, y.shape)},
    )
    fit = taut.fit(density, {"y": np.full(25, 3.0)})
    assert abs(fit.predict(num_draws=4000)["y"].mean() - 3.0) < 0.1
    assert fit.predict({"y": np.zeros(2)}, num_draws=30)["y"].shape == (30, 2)
    assert fit.log_likelihood(num_draws=30)["y"].shape == (30, 25)
