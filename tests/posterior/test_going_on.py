"""More data, more effort: update and refine."""

import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import posterior_models as models
import pytest

import taut
from taut import families
from taut._core.errors import ArgumentError, UnsupportedError

# --- update -----------------------------------------------------------------------------------


def test_two_halves_are_the_whole(line):
    """Gaussian posteriors carry over exactly; what is left is the error of 4,096 draws."""
    first = taut.fit(models.line, {"x": line.x[:20], "y": line.y[:20]})
    second = first.update({"x": line.x[20:], "y": line.y[20:]})
    sd = np.sqrt(np.diag(line.covariance))
    np.testing.assert_allclose(second.mean["beta"], line.mean, atol=0.1 * sd.max())
    np.testing.assert_allclose(second.sd["beta"], sd, rtol=0.07)
    assert second.trust.verdict == "good"
    # The evidence of the second half given the first, from the closed forms of both.
    conditional = line.log_evidence - models.Line(line.x[:20], line.y[:20]).log_evidence
    assert abs(second.evidence.estimate - conditional) < 0.1


def test_four_updates_in_a_row(line):
    fit = taut.fit(models.line, {"x": line.x[:10], "y": line.y[:10]})
    for i in (10, 20, 30):
        fit = fit.update({"x": line.x[i : i + 10], "y": line.y[i : i + 10]})
    sd = np.sqrt(np.diag(line.covariance))
    np.testing.assert_allclose(fit.mean["beta"], line.mean, atol=0.15 * sd.max())
    np.testing.assert_allclose(fit.sd["beta"], sd, rtol=0.1)


def test_the_data_of_the_update_may_have_another_length(line_fit):
    assert line_fit.update({"x": np.ones(3), "y": np.ones(3)}).predict()["y"].shape == (1000, 3)


def test_moved_coordinates_are_carried_over():
    """Group means were moved towards centred coordinates; the prior that replaces theirs stays."""
    both = models.grouped_data(rows=240)
    halves = [
        {"count": 6, **{k: both[k][part] for k in ("group", "y")}}
        for part in (slice(0, 120), slice(120, 240))
    ]
    whole = taut.fit(models.groups, both)
    second = taut.fit(models.groups, halves[0]).update(halves[1])
    for site in ("mu", "alpha"):
        near = 0.2 * whole.sd[site]
        assert (np.abs(second.mean[site] - whole.mean[site]) < near).all()
        np.testing.assert_allclose(second.sd[site], whole.sd[site], rtol=0.15)


def test_a_density_with_a_likelihood_can_be_updated():
    y = np.random.default_rng(0).normal(2.0, 1.0, 40)

    def log_density(v, y):
        return -0.5 * (v["a"] / 10) ** 2 - 0.5 * jnp.sum((y - v["a"]) ** 2)

    density = taut.Density(
        log_density, {"a": ()}, log_likelihood=lambda v, y: {"y": -0.5 * (y - v["a"]) ** 2}
    )
    fit = taut.fit(density, {"y": y[:20]}).update({"y": y[20:]})
    precision = 40 + 0.01
    assert abs(fit.mean["a"] - y.sum() / precision) < 0.1 / np.sqrt(precision)
    assert abs(fit.sd["a"] * np.sqrt(precision) - 1) < 0.07


def test_a_density_without_a_likelihood_says_what_is_missing():
    fit = taut.fit(
        taut.Density(lambda v, y: -0.5 * jnp.sum((y - v["a"]) ** 2), {"a": ()}), {"y": np.ones(3)}
    )
    with pytest.raises(UnsupportedError, match=r"pass Density\(..., log_likelihood=...\)"):
        fit.update({"y": np.ones(3)})


def test_factors_cannot_be_told_from_priors():
    def model(y=None):
        a = numpyro.sample("a", dist.Normal(0, 1))
        numpyro.factor("pull", -0.1 * a**2)
        numpyro.sample("y", dist.Normal(a, 1), obs=y)

    fit = taut.fit(model, {"y": np.ones(3)})
    with pytest.raises(UnsupportedError, match=r"factor sites \('pull'\)"):
        fit.update({"y": np.ones(3)})


def test_latents_of_another_shape_cannot_be_carried_over(schools_fit):
    with pytest.raises(UnsupportedError, match="'theta' changes shape with the data"):
        schools_fit.update({"sigma": np.ones(3), "y": np.ones(3)})


# --- refine -----------------------------------------------------------------------------------


def test_refine_by_a_richer_family(schools_data):
    poor = taut.fit(models.line, models.Line.make().data, family=families.Diagonal())
    rich = poor.refine(family=families.Dense())
    assert rich.elbo > poor.elbo + 0.01
    assert "dense" in str(rich.plan)
    assert rich.trust.verdict == "good"
    assert rich.history.num_gradients > 0


def test_a_good_fit_needs_no_refining(line_fit):
    again = line_fit.refine()
    np.testing.assert_array_equal(again.mean["beta"], line_fit.mean["beta"])


@pytest.mark.slow
def test_refine_by_nuts(schools_fit):
    fit = schools_fit.refine(mcmc_draws=True)
    assert fit.trust.correction == "nuts"
    assert "NUTS" in str(fit.plan)
    assert abs(fit.mean["mu"] - 4.397) < 0.1 * 3.318
    assert abs(fit.mean["tau"] - 3.598) < 0.15 * 3.220


@pytest.mark.parametrize("budget", [0.0, -1.0])
def test_a_budget_that_is_none(line_fit, line, budget):
    with pytest.raises(ArgumentError, match="budget must be a positive number of seconds"):
        line_fit.refine(budget=budget)
    with pytest.raises(ArgumentError, match="budget must be a positive number of seconds"):
        line_fit.update(line.data, budget=budget)
