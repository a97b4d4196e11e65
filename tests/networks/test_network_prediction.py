"""Predictive distributions: their parts, their units, and what does not depend on chunks."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats

from taut.networks import BayesianNetwork, Ensemble, LabelPrediction, MeanField, Prediction
from taut.networks import metrics as scores

RNG = np.random.default_rng(5)
X = RNG.normal(size=(60, 2))
Y = 40.0 + 10.0 * np.sin(X[:, 0]) + 2.0 * RNG.normal(size=60)
GRID = np.linspace(-60.0, 140.0, 2001)


def small(outputs=1):
    return eqx.nn.MLP(2, outputs, 8, 1, key=jax.random.key(0))


def network(outputs=1, likelihood="normal", posterior="mean_field"):
    return BayesianNetwork(small(outputs), likelihood, posterior=posterior)


@pytest.fixture(scope="module")
def found():
    return network().fit(X, Y, epochs=150, progress=False)


@pytest.fixture(scope="module")
def on_a_grid(found):
    """One row, asked for its density at many values: the weights' draws are the same for all."""
    return found.predict(np.tile([[0.5, -0.5]], (len(GRID), 1)), draws=30)


def test_the_density_integrates_to_one(on_a_grid):
    assert np.trapezoid(np.exp(on_a_grid.log_prob(GRID)), GRID) == pytest.approx(1.0, abs=1e-4)


def test_mean_and_sd_are_those_of_the_density(on_a_grid):
    density = np.exp(on_a_grid.log_prob(GRID))
    mean = np.trapezoid(GRID * density, GRID)
    variance = np.trapezoid((GRID - mean) ** 2 * density, GRID)
    assert on_a_grid.mean[0] == pytest.approx(mean, rel=1e-4)
    assert on_a_grid.sd[0] ** 2 == pytest.approx(variance, rel=1e-3)
    assert on_a_grid.epistemic[0] + on_a_grid.aleatoric[0] == pytest.approx(variance, rel=1e-3)


def test_intervals_hold_their_level(on_a_grid):
    low, high = on_a_grid.interval(0.8)
    inside = (low[0] < GRID) & (high[0] > GRID)
    density = np.exp(on_a_grid.log_prob(GRID))
    assert np.trapezoid(density[inside], GRID[inside]) == pytest.approx(0.8, abs=0.01)
    below = low[0] > GRID
    assert np.trapezoid(density[below], GRID[below]) == pytest.approx(0.1, abs=0.01)


@pytest.mark.stat
def test_draws_have_the_predictive_law(found):
    """A Kolmogorov-Smirnov test of one row; false alarms: 1 in 10,000, with a fixed seed."""
    prediction = found.predict(X[:1], draws=3000)
    draws = prediction.draws()[:, 0]
    others = found.predict(np.tile(X[:1], (len(GRID), 1)), draws=3000, chunk=500)
    density = np.exp(others.log_prob(GRID))
    cdf = np.concatenate([[0.0], np.cumsum(0.5 * (density[1:] + density[:-1]) * np.diff(GRID))])
    assert scipy.stats.kstest(draws, lambda v: np.interp(v, GRID, cdf)).pvalue > 1e-4


def test_chunks_change_nothing(found):
    whole, pieces = found.predict(X, draws=20), found.predict(X, draws=20, chunk=7)
    np.testing.assert_allclose(pieces.mean, whole.mean, rtol=1e-6)
    np.testing.assert_allclose(pieces.epistemic, whole.epistemic, rtol=1e-3)
    np.testing.assert_allclose(pieces.log_prob(Y), whole.log_prob(Y), rtol=1e-5)
    np.testing.assert_allclose(pieces.interval()[0], whole.interval()[0], rtol=1e-5)
    np.testing.assert_allclose(pieces.draws(), whole.draws(), rtol=1e-5)


def test_units_are_undone(found):
    """Thousandths of the unit, and another origin: numbers follow, densities by the Jacobian."""
    other = network().fit(X, 1000.0 * Y + 5.0, epochs=150, progress=False)
    one, two = found.predict(X, draws=20), other.predict(X, draws=20)
    np.testing.assert_allclose(two.mean, 1000.0 * one.mean + 5.0, rtol=1e-3)
    np.testing.assert_allclose(two.sd, 1000.0 * one.sd, rtol=1e-2)
    shift = two.log_prob(1000.0 * Y + 5.0) - one.log_prob(Y)
    np.testing.assert_allclose(shift, -np.log(1000.0), atol=0.02)
    assert other.elbo - found.elbo == pytest.approx(
        -60 * np.log(1000.0), abs=4 * found.elbo_error + 0.5
    )


def test_the_same_seed_gives_the_same_fit(found):
    again = network().fit(X, Y, epochs=150, progress=False)
    assert again.elbo == found.elbo
    for one, two in zip(jax.tree.leaves(again.params), jax.tree.leaves(found.params), strict=True):
        np.testing.assert_array_equal(one, two)


def test_metrics_of_numbers(found):
    prediction = found.predict(X, draws=50)
    given = prediction.metrics(Y)
    assert given["rmse"] == pytest.approx(np.sqrt(np.mean((prediction.mean - Y) ** 2)))
    assert given["log_likelihood"] == pytest.approx(prediction.log_prob(Y).mean())
    low, high = prediction.interval(0.9)
    assert given["coverage_90"] == np.mean((low <= Y) & (high >= Y))
    # Of draws, E|X - y| - E|X - X'| / 2 with an error of a few percent.
    draws = found.predict(X, draws=2000).draws()
    half = np.abs(draws[:1000] - draws[1000:]).mean() / 2
    assert given["crps"] == pytest.approx(np.abs(draws - Y).mean() - half, rel=0.05)


def test_crps_of_a_mixture_is_the_integral():
    means, variances = np.array([-1.0, 0.5, 2.0]), np.array([0.3, 1.0, 0.1])
    grid = np.linspace(-15, 15, 60_001)
    cdf = scipy.stats.norm.cdf(grid[:, None], means, np.sqrt(variances)).mean(1)
    expected = np.trapezoid((cdf - (grid >= 0.7)) ** 2, grid)
    found = scores.normal_mixture_crps(jnp.asarray(0.7), jnp.asarray(means), jnp.asarray(variances))
    assert float(found) == pytest.approx(expected, rel=1e-4)


def test_calibration_error_by_hand():
    """Confidence 0.9 and right 3 times in 4; confidence 0.6 and right once in 2."""
    proba = np.array([[0.9, 0.1]] * 4 + [[0.4, 0.6]] * 2)
    labels = np.array([0, 0, 0, 1, 1, 0])
    expected = (4 * abs(0.9 - 0.75) + 2 * abs(0.6 - 0.5)) / 6
    assert scores.calibration_error(proba, labels) == pytest.approx(expected)
    assert scores.brier(proba[:1], labels[:1]) == pytest.approx(0.01 + 0.01)


LABELS = (X[:, 0] > 0).astype(int) + (X[:, 1] > 0.5)


def test_labels_and_the_parts_of_their_entropy():
    fit = network(3, "categorical").fit(X, LABELS, epochs=200, progress=False)
    prediction = fit.predict(X, draws=40)
    assert isinstance(prediction, LabelPrediction)
    outputs = np.asarray(prediction._source.outputs(0, 60), float)
    each = np.exp(outputs) / np.exp(outputs).sum(-1, keepdims=True)
    mean = each.mean(0)
    np.testing.assert_allclose(prediction.proba, mean, rtol=1e-4)
    inside = -(each * np.log(each)).sum(-1).mean(0)
    total = -(mean * np.log(mean)).sum(-1)
    np.testing.assert_allclose(prediction.entropy, total, rtol=1e-4)
    np.testing.assert_allclose(prediction.aleatoric, inside, rtol=1e-4)
    np.testing.assert_allclose(prediction.epistemic, total - inside, atol=1e-5)
    at = mean[np.arange(60), LABELS]
    np.testing.assert_allclose(prediction.log_prob(LABELS), np.log(at), rtol=1e-4)
    right = np.mean(mean.argmax(1) == LABELS)
    assert prediction.metrics(LABELS)["accuracy"] == pytest.approx(right)
    assert right > 0.6  # the labels' shares are at most 0.5


def test_two_labels_with_one_output():
    labels = (X[:, 0] > 0).astype(int)
    fit = network(1, "bernoulli").fit(X, labels, epochs=200, progress=False)
    prediction = fit.predict(X)
    assert prediction.proba.shape == (60, 2)
    np.testing.assert_allclose(prediction.proba.sum(1), 1.0, rtol=1e-5)
    assert prediction.metrics(labels)["accuracy"] > 0.9


def test_noise_that_grows_with_the_input():
    x = RNG.uniform(-1, 1, size=(600, 1))
    y = 3 * x[:, 0] + np.exp(x[:, 0]) * RNG.normal(size=600)
    module = eqx.nn.Linear(1, 2, key=jax.random.key(1))
    fit = BayesianNetwork(module, "heteroscedastic").fit(x, y, epochs=400, progress=False)
    prediction = fit.predict(np.array([[-0.8], [0.8]]))
    # The noise's sd is known within 3 % a standard error: 5 of them.
    np.testing.assert_allclose(np.sqrt(prediction.aleatoric), np.exp([-0.8, 0.8]), rtol=0.15)


def test_counts():
    x = RNG.normal(size=(400, 1))
    y = RNG.poisson(np.exp(0.5 + 0.7 * x[:, 0]))
    module = eqx.nn.Linear(1, 1, key=jax.random.key(1))
    fit = BayesianNetwork(module, "poisson").fit(x, y, epochs=600, progress=False)
    prediction = fit.predict(np.array([[0.0], [1.0]]))
    np.testing.assert_allclose(prediction.mean, np.exp([0.5, 1.2]), rtol=0.2)
    low, high = prediction.interval(0.9)
    np.testing.assert_array_equal(low, scipy.stats.poisson.ppf(0.05, prediction.mean))
    np.testing.assert_array_equal(high, scipy.stats.poisson.ppf(0.95, prediction.mean))
    total = np.exp(fit.predict(np.zeros((60, 1))).log_prob(np.arange(60))).sum()
    assert total == pytest.approx(1.0, abs=1e-4)


def test_targets_with_several_numbers():
    y = np.column_stack([Y, 0.01 * X[:, 1]])
    fit = network(2).fit(X, y, epochs=100, progress=False)
    prediction = fit.predict(X[:5])
    assert isinstance(prediction, Prediction)
    assert prediction.mean.shape == prediction.sd.shape == (5, 2)
    assert prediction.draws().shape == (100, 5, 2)
    assert prediction.log_prob(y[:5]).shape == (5,)


def test_an_ensemble_is_the_mixture_of_its_members():
    posterior = Ensemble(MeanField(), members=3)
    fit = network(posterior=posterior).fit(X, Y, epochs=100, progress=False)
    prediction = fit.predict(X, draws=30)
    outputs = np.asarray(prediction._source.outputs(0, 60), float)[..., 0]
    means = outputs.reshape(10, 3, 60).mean(0)
    assert np.abs(means[0] - means[1]).max() > 1e-3
    np.testing.assert_allclose(prediction.mean, means.mean(0) * Y.std() + Y.mean(), rtol=1e-5)
    noise = np.exp(np.asarray(fit.params["members"]["likelihood"]["log_scale"], float))
    np.testing.assert_allclose(prediction.aleatoric, np.mean(noise**2) * Y.var(), rtol=1e-4)


def test_text(found):
    text = str(found)
    assert "mean_field posterior over 33 weights, 60 rows, likelihood 'normal'" in text
    assert "ELBO" in text
