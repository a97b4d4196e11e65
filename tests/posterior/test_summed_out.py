"""Fits of models with discrete latents: what is said of those, and predictions with them."""

import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from scipy import stats
from scipy.special import logsumexp

import taut
from taut._core.errors import UnsupportedError
from taut.posterior import predictive

CHANCE = np.array([0.6, 0.4])


def mixture(y=None, count=None):
    """Two components in order, so that there is one mode."""
    base = numpyro.sample("base", dist.Normal(0, 3))
    gap = numpyro.sample("gap", dist.HalfNormal(4))
    mu = jnp.stack([base, base + gap])
    with numpyro.plate("n", len(y) if count is None else count):
        z = numpyro.sample("z", dist.Bernoulli(CHANCE[1]))
        numpyro.deterministic("centre", mu[z])
        numpyro.sample("y", dist.Normal(mu[z], 1.0), obs=y)


@pytest.fixture(scope="module")
def y():
    rng = np.random.default_rng(5)
    return np.where(rng.uniform(size=30) < CHANCE[1], 2.5, 0.0) + rng.normal(size=30)


@pytest.fixture(scope="module")
def fit(y):
    return taut.fit(mixture, {"y": y})


@pytest.fixture(scope="module")
def exact(y):
    """Posterior by summing over a fine grid of the two continuous latents."""
    base, gap = np.meshgrid(np.linspace(-2, 3, 161), np.linspace(1e-3, 6, 161), indexing="ij")
    terms = np.stack(
        [stats.norm.logpdf(y, m[..., None], 1.0) for m in (base, base + gap)], -1
    ) + np.log(CHANCE)
    likelihood = logsumexp(terms, axis=-1)
    log_joint = (
        stats.norm.logpdf(base, 0, 3) + stats.halfnorm.logpdf(gap, scale=4) + likelihood.sum(-1)
    )
    weight = np.exp(log_joint - logsumexp(log_joint))
    each = np.exp(terms - likelihood[..., None])
    return {
        "base": (weight * base).sum(),
        "gap": (weight * gap).sum(),
        "z": np.tensordot(weight, each, 2),
    }


@pytest.mark.stat
def test_the_continuous_latents_have_their_exact_means(fit, exact):
    """Errors of 0.15 sd and more fail; the draws' own are about 0.03 sd."""
    for name in ("base", "gap"):
        assert abs(fit.mean[name] - exact[name]) < 0.15 * fit.sd[name]


@pytest.mark.stat
def test_responsibilities_are_the_exact_posterior(fit, exact):
    """256 draws of two latents: standard errors of at most 0.02."""
    np.testing.assert_allclose(fit.responsibilities["z"].sum(-1), 1.0, rtol=1e-9)
    np.testing.assert_allclose(fit.responsibilities["z"], exact["z"], atol=0.06)
    sure = np.abs(exact["z"][:, 0] - 0.5) > 0.1
    np.testing.assert_array_equal(fit.assignments["z"][sure], exact["z"].argmax(-1)[sure])


def test_what_is_shown(fit):
    assert "discrete latent 'z' summed out exactly" in str(fit)
    assert "deterministic 'centre' left out" in str(fit)
    assert set(fit.draws(10)) == {"base", "gap"}


@pytest.mark.stat
def test_predictions_at_the_data_keep_the_indicators(fit, exact):
    """Means of 4,000 draws of sd below 1.7: 5 standard errors are 0.14, and 0.15 sd of base."""
    found = fit.predict(num_draws=4000)["y"]
    assert found.shape == (4000, 30)
    expected = exact["base"] + exact["z"][:, 1] * exact["gap"]
    np.testing.assert_allclose(found.mean(0), expected, atol=0.3)


@pytest.mark.stat
def test_predictions_for_new_data_draw_indicators_anew(fit, exact):
    found = fit.predict({"count": 3}, num_draws=4000)["y"]
    assert found.shape == (4000, 3)
    expected = exact["base"] + CHANCE[1] * exact["gap"]
    np.testing.assert_allclose(found.mean(0), expected, atol=0.3)


def test_pointwise_likelihood_is_that_of_the_mixture(fit, y):
    found = fit.log_likelihood(num_draws=20, seed=3)["y"]
    draws = fit.draws(20, seed=3)
    terms = np.stack(
        [
            stats.norm.logpdf(y, draws["base"][:, None] + k * draws["gap"][:, None], 1.0)
            for k in (0, 1)
        ],
        -1,
    )
    np.testing.assert_allclose(found, logsumexp(terms + np.log(CHANCE), axis=-1), rtol=1e-9)


def test_the_length_of_the_pieces_does_not_matter(fit, monkeypatch):
    draws = fit.predict(num_draws=100)["y"]
    whole = taut.posterior.discrete.posterior_of(fit.problem, fit._corrected, fit.seed)
    monkeypatch.setattr(predictive, "MAX_LANES", 7)
    monkeypatch.setattr(predictive, "LANE_BUDGET", 5000)
    np.testing.assert_array_equal(fit.predict(num_draws=100)["y"], draws)
    pieces = taut.posterior.discrete.posterior_of(fit.problem, fit._corrected, fit.seed)
    np.testing.assert_allclose(pieces.probabilities["z"], whole.probabilities["z"], rtol=1e-12)


def test_arviz_gets_the_probabilities(fit):
    pytest.importorskip("arviz")
    found = fit.to_arviz(num_draws=50)["constant_data"]["z_probability"]
    assert found.dims == ("n", "z_value")
    np.testing.assert_array_equal(found.values, fit.responsibilities["z"])


def test_files_keep_them(fit, y, tmp_path):
    path = tmp_path / "fit.taut"
    fit.save(path)
    alone = taut.load(path)
    np.testing.assert_array_equal(alone.responsibilities["z"], fit.responsibilities["z"])
    np.testing.assert_array_equal(alone.assignments["z"], fit.assignments["z"])
    without_data = taut.load(path, model=mixture)
    assert without_data.predict({"count": 4}, num_draws=10)["y"].shape == (10, 4)
    whole = taut.load(path, model=mixture, data={"y": y})
    np.testing.assert_array_equal(whole.predict(num_draws=10)["y"], fit.predict(num_draws=10)["y"])


def test_the_page_is_written(fit, tmp_path):
    fit.report(tmp_path / "fit.html")
    assert (tmp_path / "fit.html").stat().st_size > 10_000


def test_more_data_update_it(fit):
    rng = np.random.default_rng(6)
    more = np.where(rng.uniform(size=40) < CHANCE[1], 2.5, 0.0) + rng.normal(size=40)
    updated = fit.update({"y": more})
    assert updated.sd["gap"] < fit.sd["gap"]
    assert updated.responsibilities["z"].shape == (40, 2)


# --- a latent of all the data -------------------------------------------------------------------


def change_point(x, y=None):
    mu = numpyro.sample("mu", dist.Normal(0, 5).expand([2]).to_event(1))
    when = numpyro.sample("when", dist.DiscreteUniform(1, 9))
    with numpyro.plate("n", len(x)):
        numpyro.sample("y", dist.Normal(jnp.where(x >= when, mu[1], mu[0]), 0.5), obs=y)


@pytest.fixture(scope="module")
def changed():
    x = np.arange(10.0)
    return taut.fit(change_point, {"x": x, "y": np.where(x >= 4, 3.0, -3.0)})


def test_a_latent_of_all_the_data_is_kept_for_new_data(changed, tmp_path):
    assert changed.assignments["when"] == 4
    assert changed.responsibilities["when"][3] > 0.99
    found = changed.predict({"x": np.array([0.0, 3.4, 4.2, 20.0])}, num_draws=500)["y"]
    np.testing.assert_allclose(found.mean(0), [-3, -3, 3, 3], atol=0.3)
    path = tmp_path / "fit.taut"
    changed.save(path)
    with pytest.raises(UnsupportedError, match="discrete latents of the fit needs the model"):
        taut.load(path, model=change_point).predict({"x": np.array([1.0])})


def test_a_latent_of_all_the_data_cannot_be_updated(changed):
    with pytest.raises(
        UnsupportedError, match=r"cannot tell prior from likelihood in sites \('sum over when'\)"
    ):
        changed.update({"x": np.arange(10.0), "y": np.zeros(10)})


def test_a_model_without_discrete_latents_has_none(line_fit):
    assert line_fit.responsibilities == {}
    assert line_fit.assignments == {}
