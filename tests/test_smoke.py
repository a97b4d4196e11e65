"""The main path in half a minute: fit, read, predict, keep, show. Run it first."""

import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest

import taut


def model(x, group, y=None):
    mu = numpyro.sample("mu", dist.Normal(0, 5))
    spread = numpyro.sample("spread", dist.HalfNormal(2))
    slope = numpyro.sample("slope", dist.Normal(0, 2))
    with numpyro.plate("group", 5):
        start = numpyro.sample("start", dist.Normal(mu, spread))
    noise = numpyro.sample("noise", dist.HalfNormal(2))
    with numpyro.plate("row", len(x)):
        numpyro.sample("y", dist.Normal(start[group] + slope * x, noise), obs=y)


@pytest.fixture(scope="module")
def data():
    rng = np.random.default_rng(0)
    x, group = rng.normal(size=120), rng.integers(0, 5, 120)
    y = np.array([-1.0, 0, 1, 2, 3])[group] + 0.5 * x + 0.3 * rng.normal(size=120)
    return {"x": x, "group": group, "y": y}


@pytest.fixture(scope="module")
def fit(data):
    return taut.fit(model, data)


def test_the_answer_is_right_and_says_so(fit):
    assert fit.trust.verdict in ("good", "usable")
    np.testing.assert_allclose(fit.mean["start"], [-1, 0, 1, 2, 3], atol=0.25)
    assert abs(fit.mean["slope"] - 0.5) < 0.1
    assert abs(fit.mean["noise"] - 0.3) < 0.07
    assert fit.evidence.lower <= fit.evidence.estimate + 3 * fit.evidence.estimate_error


def test_it_prints(fit):
    text = str(fit)
    assert "verdict: " in text
    assert "start[4]" in text
    assert "family" in str(fit.plan)


def test_the_table_and_the_draws_agree(fit):
    table, draws = fit.summary(), fit.draws(4000)
    assert abs(table.loc["slope", "mean"] - draws["slope"].mean()) < 0.1 * table.loc["slope", "sd"]
    assert draws["start"].shape == (4000, 5)


def test_it_predicts(fit):
    found = fit.predict({"x": np.zeros(5), "group": np.arange(5)})["y"]
    np.testing.assert_allclose(found.mean(axis=0), fit.mean["start"], atol=0.1)


def test_it_keeps_and_shows(fit, data, tmp_path):
    fit.save(tmp_path / "fit.taut")
    again = taut.load(tmp_path / "fit.taut", model, data)
    np.testing.assert_array_equal(again.draws(10)["start"], fit.draws(10)["start"])
    fit.report(tmp_path / "fit.html")
    assert "Verdict" in (tmp_path / "fit.html").read_text()


def test_the_pointwise_likelihood_is_there(fit):
    assert fit.log_likelihood(num_draws=50)["y"].shape == (50, 120)


def test_more_data(fit, data):
    more = fit.update({"x": data["x"][:20], "group": data["group"][:20], "y": data["y"][:20]})
    assert more.sd["slope"] < fit.sd["slope"]
