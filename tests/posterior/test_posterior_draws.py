"""Draws, moments, the summary table and what is printed."""

import jaxtyping
import numpy as np
import posterior_models as models
import pytest

import taut
from taut._core.errors import ArgumentError
from taut.posterior.table import MAX_ROWS, as_text, highest_density
from taut.trust.draws import Draws

SITES = {"mu": (), "tau": (), "theta": (8,)}


def pool(count=3000, weighted=True, seed=0):
    rng = np.random.default_rng(seed)
    points = rng.normal(size=(count, 2))
    weights = rng.gamma(0.5, size=count) if weighted else None
    values = {"a": points[:, 0], "b": np.exp(points)}
    return Draws(points, values, weights)


# --- draws ------------------------------------------------------------------------------------


@pytest.mark.parametrize("corrected", [True, False])
@pytest.mark.parametrize("count", [1, 7, 1000, 20_000])
def test_draws_have_the_shapes_of_the_sites(schools_fit, corrected, count):
    draws = schools_fit.draws(count, corrected=corrected)
    assert {n: v.shape for n, v in draws.items()} == {n: (count, *s) for n, s in SITES.items()}
    assert all(np.isfinite(v).all() for v in draws.values())
    assert (draws["tau"] > 0).all()


def test_deterministic_sites_are_drawn_too(schools_data):
    fit = taut.fit(models.schools_standardised, schools_data)
    draws = fit.draws(500)
    rebuilt = draws["mu"][:, None] + draws["tau"][:, None] * draws["z"]
    np.testing.assert_allclose(draws["theta"], rebuilt, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("corrected", [True, False])
def test_the_seed_decides(schools_fit, corrected):
    first, again, other = (
        schools_fit.draws(300, corrected=corrected, seed=s)["theta"] for s in (3, 3, 4)
    )
    np.testing.assert_array_equal(first, again)
    assert first.mean() != other.mean()
    np.testing.assert_array_equal(
        schools_fit.draws(300, corrected=corrected)["mu"],
        schools_fit.draws(300, corrected=corrected, seed=0)["mu"],
    )


def test_draws_of_a_site_belong_together(line_fit, line):
    beta = line_fit.draws(8000)["beta"]
    found = np.cov(beta.T)
    np.testing.assert_allclose(found, line.covariance, rtol=0.15)


@pytest.mark.parametrize("count", [0, -1])
def test_a_count_that_is_none(schools_fit, count):
    with pytest.raises(ArgumentError, match="num_draws must be a whole number of at least 1"):
        schools_fit.draws(count)


@pytest.mark.parametrize("count", [2.5, "many"])
def test_a_count_of_another_kind(schools_fit, count):
    """The annotations are checked while tests run, and catch it before our own words do."""
    with pytest.raises((ArgumentError, jaxtyping.TypeCheckError), match="num_draws"):
        schools_fit.draws(count)


def test_equal_weights_give_rows_once_while_there_are_enough():
    draws = pool(weighted=False)
    for count in (1, 100, 2999, 3000):
        assert len(set(draws.indices(count, 0))) == count
    twice = np.bincount(draws.indices(6000, 0))
    assert (twice == 2).all()


def test_weights_are_resampled_right():
    """Systematic resampling: every row appears its expected number of times, to within one."""
    draws = pool()
    probability = draws.weights / draws.weights.sum()
    for count in (500, 20_000):
        found = np.bincount(draws.indices(count, 1), minlength=3000)
        assert np.abs(found - count * probability).max() < 1


@pytest.mark.stat
def test_resampled_moments_agree_with_weighted_ones():
    """z < 5 for 3 means: a false alarm in about 600,000 runs; the seed is fixed besides."""
    draws, count = pool(), 4000
    means, sds = draws.moments()
    index = draws.indices(count, 5)
    for name, values in draws.values.items():
        error = np.abs(values[index].mean(axis=0) - means[name])
        assert (error < 5 * sds[name] / np.sqrt(count)).all()
        np.testing.assert_allclose(values[index].std(axis=0), sds[name], rtol=0.15)


# --- moments and the table --------------------------------------------------------------------


def test_mean_and_sd_are_those_of_the_summary(schools_fit):
    table = schools_fit.summary()
    for name in SITES:
        rows = table.index.str.split("[").str[0] == name
        np.testing.assert_allclose(table.loc[rows, "mean"], np.ravel(schools_fit.mean[name]))
        np.testing.assert_allclose(table.loc[rows, "sd"], np.ravel(schools_fit.sd[name]))


def test_mean_and_sd_are_those_of_the_draws(schools_fit):
    draws = schools_fit.draws(8000)
    for name in SITES:
        near = 5 * schools_fit.sd[name] / np.sqrt(schools_fit.trust.ess)
        assert (np.abs(draws[name].mean(axis=0) - schools_fit.mean[name]) < near).all()


def test_the_closed_form_comes_out(line_fit, line):
    sd = np.sqrt(np.diag(line.covariance))
    np.testing.assert_allclose(line_fit.mean["beta"], line.mean, atol=0.05 * sd.max())
    np.testing.assert_allclose(line_fit.sd["beta"], sd, rtol=0.05)
    assert abs(line_fit.elbo - line.log_evidence) < 0.02
    assert abs(line_fit.evidence.estimate - line.log_evidence) < 0.02
    assert line_fit.trust.verdict == "good"


def test_the_layout_of_the_summary(schools_fit):
    table = schools_fit.summary()
    assert list(table.index) == ["mu", "tau", *(f"theta[{i}]" for i in range(8))]
    assert list(table.columns) == ["mean", "sd", "hdi_3%", "hdi_97%", "mcse_mean", "shift"]
    assert (table["hdi_3%"] < table["mean"]).all()
    assert (table["mean"] < table["hdi_97%"]).all()
    assert list(schools_fit.summary(hdi_prob=0.5).columns[2:4]) == ["hdi_25%", "hdi_75%"]
    assert list(schools_fit.summary("tau").index) == ["tau"]
    assert list(schools_fit.summary(["theta", "mu"]).index)[-1] == "mu"


def test_shift_is_the_distance_from_q_in_sds(schools_fit):
    raw = schools_fit.draws(50_000, corrected=False)["tau"].mean()
    shift = (schools_fit.mean["tau"] - raw) / schools_fit.sd["tau"]
    assert abs(schools_fit.summary().loc["tau", "shift"] - shift) < 0.05


def test_intervals_are_arvizs_on_the_same_draws(schools_fit):
    az = pytest.importorskip("arviz")
    theta = schools_fit.draws(3000)["theta"]
    low, high = highest_density(theta, 0.9)
    expected = [np.ravel(az.hdi(theta[:, i], 0.9)) for i in range(8)]
    np.testing.assert_allclose(np.stack([low, high], axis=1), expected, rtol=1e-9)


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (["thta"], "var_names has 'thta', which is not a site, did you mean 'theta'?"),
        ("sigma", "sites: 'mu', 'tau', 'theta'"),
    ],
)
def test_a_name_that_is_no_site(schools_fit, names, message):
    with pytest.raises(ArgumentError, match=message.replace("?", r"\?")):
        schools_fit.summary(names)


@pytest.mark.parametrize("prob", [0.0, 1.0, 94.0])
def test_a_probability_that_is_none(schools_fit, prob):
    with pytest.raises(ArgumentError, match="hdi_prob must be between 0 and 1"):
        schools_fit.summary(hdi_prob=prob)


# --- printing ---------------------------------------------------------------------------------


def test_what_is_printed(schools_fit):
    text = str(schools_fit)
    assert max(map(len, text.splitlines())) <= 100
    lines = text.splitlines()
    assert lines[0].split() == list(schools_fit.summary().columns)
    assert len({line.index(".") for line in lines[1:11]}) == 1, "decimal points are aligned"
    for part in ("verdict: ", "k-hat ", "drift ", "log evidence: ", "gradients", " s\n"):
        assert part in text
    assert repr(schools_fit) == text


def test_evidence_trust_history_and_plan_print(schools_fit):
    evidence = schools_fit.evidence
    assert f"{evidence.estimate:.3f} ± {evidence.estimate_error:.3f}" in str(evidence)
    assert schools_fit.elbo == evidence.lower
    assert evidence.lower - 3 * evidence.lower_error < evidence.estimate
    assert evidence.estimate < evidence.upper + 3 * evidence.upper_error
    assert str(schools_fit.trust).startswith(f"verdict: {schools_fit.trust.verdict}")
    assert schools_fit.history.status in str(schools_fit.history)
    assert schools_fit.history.seconds > 0
    assert schools_fit.history.num_gradients > 100
    assert np.isfinite(schools_fit.history.elbo).all()
    plan = str(schools_fit.plan)
    for word in ("family", "solver", "integral", "because", "non-centred with respect to mu, tau"):
        assert word in plan


def test_long_sites_are_abbreviated():
    rng = np.random.default_rng(0)
    points = rng.normal(size=(200, 1))
    values = {
        "a": points[:, 0],
        "theta": rng.normal(size=(200, 500)),
        "const": np.ones((200, 2)),
    }
    draws = Draws(points, values, None)
    from taut.posterior.table import summary_table

    table = summary_table(draws, draws, 200.0, list(draws.values), 0.94, 0)
    text = as_text(table)
    lines = text.splitlines()
    assert len(lines) <= MAX_ROWS + 2
    assert any(line.strip().endswith("more") for line in lines)
    assert any(line.startswith("theta[499]") for line in lines)
    assert lines[-1].split() == ["const[1]", "1", "0", "1", "1", "0", "0.00"]


def test_a_thousand_sites_still_print_shortly():
    points = np.random.default_rng(0).normal(size=(50, 1))
    draws = Draws(points, {f"site{i}": points[:, 0] for i in range(1000)}, None)
    from taut.posterior.table import summary_table

    lines = as_text(summary_table(draws, draws, 50.0, list(draws.values), 0.94, 0)).splitlines()
    assert len(lines) < 100
    assert lines[-1] == f"... {1000 - 2 * MAX_ROWS} more rows: posterior.summary()"
