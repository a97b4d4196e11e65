"""Export to whichever ArviZ is installed."""

import importlib.metadata
import warnings

import numpy as np
import posterior_models as models
import pytest
import xarray as xr

import taut

az = pytest.importorskip("arviz")
NEW = int(importlib.metadata.version("arviz").split(".")[0]) >= 1
GROUPS = {"posterior", "sample_stats", "log_likelihood", "posterior_predictive", "observed_data"}

pytestmark = pytest.mark.filterwarnings("ignore")  # ArviZ's own, which are not ours to fix


@pytest.fixture(scope="module")
def exported(schools_fit):
    return schools_fit.to_arviz(num_draws=1500)


def group(exported, name):
    return exported[name].dataset if NEW else exported[name]


def test_the_container_and_its_groups(exported):
    if NEW:
        assert isinstance(exported, xr.DataTree)
        assert set(exported.children) == GROUPS
    else:
        assert isinstance(exported, az.InferenceData)
        assert set(exported.groups()) == GROUPS


def test_shapes_and_dims(exported):
    posterior = group(exported, "posterior")
    assert dict(posterior.sizes) == {"chain": 1, "draw": 1500, "school": 8}
    assert posterior["theta"].dims == ("chain", "draw", "school")
    assert posterior["mu"].dims == ("chain", "draw")
    for name in ("log_likelihood", "posterior_predictive"):
        assert group(exported, name)["y"].dims == ("chain", "draw", "school")
    observed = group(exported, "observed_data")["y"]
    assert observed.dims == ("school",)
    np.testing.assert_array_equal(observed, models.EFFECT)


def test_values_and_attributes(exported, schools_fit):
    posterior = group(exported, "posterior")
    np.testing.assert_array_equal(posterior["theta"][0], schools_fit.draws(1500)["theta"])
    likelihood = group(exported, "log_likelihood")["y"][0]
    np.testing.assert_array_equal(likelihood, schools_fit.log_likelihood(num_draws=1500)["y"])
    stats = group(exported, "sample_stats")
    np.testing.assert_allclose(stats["log_ratio"], stats["lp"] - stats["log_q"])
    assert posterior.attrs["inference_library"] == "taut"
    assert posterior.attrs["verdict"] == schools_fit.trust.verdict
    assert posterior.attrs["elbo"] == schools_fit.elbo


def test_loo_works(exported):
    found = az.loo(exported)
    value = found.elpd if NEW else found.elpd_loo
    assert -32.0 < float(value) < -30.0  # -30.8 with NUTS, on the web for many years


def test_summary_works(exported, schools_fit):
    options = {"ci_kind": "hdi", "ci_prob": 0.94, "round_to": "none"} if NEW else {"round_to": None}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        table = az.summary(exported, kind="stats", **options)
    ours = schools_fit.summary()
    assert list(table.index) == list(ours.index)
    np.testing.assert_allclose(table["mean"], ours["mean"], atol=0.3)
    if not NEW:
        assert list(table.columns) == list(ours.columns)[:4]


def test_plots_work(exported):
    matplotlib = pytest.importorskip("matplotlib")
    matplotlib.use("agg")
    import matplotlib.pyplot as plt

    if NEW:
        pytest.importorskip("arviz_plots")
        az.plot_forest(exported, var_names=["theta"], backend="matplotlib")
        az.plot_ppc_dist(exported, num_samples=20, backend="matplotlib")
    else:
        az.plot_forest(exported, var_names=["theta"])
        az.plot_ppc(exported, num_pp_samples=20)
    plt.close("all")


def test_the_predictive_group_may_be_left_out(schools_fit):
    found = schools_fit.to_arviz(num_draws=10, predictive=False)
    assert "posterior_predictive" not in (found.children if NEW else found.groups())


def test_a_density_gives_what_it_can():
    fit = taut.fit(taut.Density(lambda v: -0.5 * v["a"] ** 2, {"a": ()}))
    found = fit.to_arviz(num_draws=10)
    assert set(found.children if NEW else found.groups()) == {"posterior", "sample_stats"}


def test_a_plate_of_the_same_name_and_another_size_gets_another_dim():
    from taut.posterior.export import dataset

    values = {"a": np.zeros((5, 3)), "b": np.zeros((5, 4))}
    found = dataset(values, {"a": ("plate",), "b": ("plate",)})
    assert found["a"].dims == ("chain", "draw", "plate")
    assert found["b"].dims == ("chain", "draw", "b_dim_0")


def test_without_arviz_the_newest_form_is_made(schools_fit, monkeypatch):
    inner = importlib.metadata.version

    def version(name):
        if name == "arviz":
            raise importlib.metadata.PackageNotFoundError(name)
        return inner(name)

    monkeypatch.setattr(importlib.metadata, "version", version)
    assert isinstance(schools_fit.to_arviz(num_draws=10, predictive=False), xr.DataTree)
