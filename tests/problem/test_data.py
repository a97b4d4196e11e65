"""What may be passed as data, and what is said of what may not."""

import datetime

import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pandas as pd
import polars as pl
import pytest
import xarray as xr

from taut._core.errors import DataError
from taut.problem import describe
from taut.problem.data import join, nonfinite, read, split

FRAMES = {"pandas": pd.DataFrame, "polars": pl.DataFrame}


def line(x, y):
    b = numpyro.sample("b", dist.Normal(0, 1))
    numpyro.sample("y", dist.Normal(b * x, 1), obs=y)


COLUMNS = {"x": [0.5, 1.0, -2.0], "y": [1.0, 2.0, 3.0]}
ARRAYS = {k: np.array(v) for k, v in COLUMNS.items()}


@pytest.mark.parametrize("frame", FRAMES.values(), ids=FRAMES)
def test_frames_give_their_columns_and_extra_text_is_ignored(frame):
    data = frame({**COLUMNS, "name": ["a", "b", "c"], "other": [1, 2, 3]})
    problem = describe(line, data)
    assert set(problem.arrays["data"]) == {"x", "y"}
    want = describe(line, ARRAYS).log_joint(np.array([0.4]))
    np.testing.assert_allclose(problem.log_joint(np.array([0.4])), want, rtol=1e-14)


@pytest.mark.parametrize("frame", FRAMES.values(), ids=FRAMES)
def test_a_text_column_that_the_model_asks_for_is_refused(frame):
    data = frame({"x": ["a", "b", "c"], "y": [1.0, 2.0, 3.0]})
    with pytest.raises(DataError, match=r"data 'x' holds text.*frame\['x'\].astype\('category'\)"):
        describe(line, data)


def test_columns_may_stand_in_a_mapping():
    frame = pd.DataFrame(COLUMNS)
    for data in (
        {"x": frame["x"], "y": pl.Series(COLUMNS["y"])},
        {"x": frame["x"].astype("Float64"), "y": xr.DataArray(COLUMNS["y"])},
        {"x": frame["x"].astype(object), "y": jnp.array(COLUMNS["y"])},
    ):
        np.testing.assert_array_equal(
            np.asarray(describe(line, data).arrays["data"]["x"]), ARRAYS["x"]
        )


def nested(d, label):
    assert label == "some text"
    b = numpyro.sample("b", dist.Normal(0, d["prior"]["scale"]))
    numpyro.sample("y", dist.Normal(b, 1), obs=d["y"])


def test_nested_mappings_reach_the_model_as_they_are():
    data = {"d": {"y": ARRAYS["y"], "prior": {"scale": 2.0}}, "label": "some text"}
    problem = describe(nested, data)
    assert list(problem.arrays["data"]) == ["d"]
    assert list(problem.arrays["data"]["d"]) == ["y"]  # numbers and text are static
    with pytest.raises(DataError, match=r"data 'd'\['y'\] holds text"):
        describe(nested, {"d": {"y": np.array(["a"]), "prior": {"scale": 2.0}}, "label": ""})


def test_split_and_join_are_inverse():
    data = {"a": np.ones(2), "b": {"c": np.ones(3), "d": {"e": "x", "f": 3}}, "g": [1], "h": {}}
    arrays, static = split(data)
    assert set(arrays) == {("a",), ("b", "c")}
    assert join(arrays, static) == data


def test_missing_numbers_become_nan():
    for column in (pd.Series([1, None, 3], dtype="Int64"), pl.Series([1, None, 3])):
        found = read({"y": column})["y"]
        assert found.dtype == float
        assert np.isnan(found).tolist() == [False, True, False]
    assert read({"y": pd.Series([True, False])})["y"].dtype == bool


# --- categories -------------------------------------------------------------------------------


def make_categories(kind, values, levels=None):
    if kind == "pandas":
        return pd.Series(pd.Categorical(values, categories=levels))
    if kind == "polars enum":
        return pl.Series(values, dtype=pl.Enum(levels or sorted(set(values))))
    pl.Series(["zebra", "yak"]).cast(pl.Categorical)  # numbers of its own for every column
    return pl.Series(values).cast(pl.Categorical)


KINDS = ["pandas", "polars enum", "polars categorical"]


@pytest.mark.parametrize("kind", KINDS)
def test_categories_become_codes_from_zero(kind):
    found = read({"g": make_categories(kind, ["b", "a", "c", "a"])})["g"]
    assert found.tolist() == [1, 0, 2, 0]
    assert found.dtype == np.int64


@pytest.mark.parametrize("kind", KINDS)
def test_new_data_keep_the_codes_of_the_fit(kind):
    """Predicting for group c alone must not take group a's effect; a new group comes last."""
    fitted = {"g": make_categories(kind, ["b", "a", "c", "a"])}
    assert read({"g": make_categories(kind, ["c", "c"])}, like=fitted)["g"].tolist() == [2, 2]
    assert read({"g": make_categories(kind, ["aa", "c"])}, like=fitted)["g"].tolist() == [3, 2]
    if kind == "pandas":
        frame = read(pd.DataFrame({"g": make_categories(kind, ["c"])}), like=pd.DataFrame(fitted))
        assert frame["g"].tolist() == [2]


@pytest.mark.parametrize("kind", ["pandas", "polars categorical"])
def test_missing_categories_are_refused(kind):
    with pytest.raises(DataError, match="data 'g' has 1 missing categories, first at row 1"):
        read({"g": make_categories(kind, ["b", None, "a"])})


# --- what is refused --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("value", "match"),
    [
        (np.array([]), r"data 'y' is empty \(shape \(0,\)\); a fit needs at least one value"),
        (jnp.zeros((0, 3)), r"data 'y' is empty \(shape \(0, 3\)\)"),
        (pd.Series([], dtype=float), "data 'y' is empty"),
        (np.array(["a", "b", "c"]), "data 'y' holds text"),
        (np.array(["a", 1.0, None], object), "data 'y' holds text"),
        (np.array([{}, [], None], object), "data 'y' holds Python objects"),
        (np.array([2**70, 1], object), "data 'y' holds integers beyond 64 bits"),
        (pd.Series([2**70, 1]), "data 'y' holds integers beyond 64 bits"),
        (
            np.array([2**63 + 1, 1], np.uint64),
            "beyond the largest 64-bit integer; pass it as float",
        ),
        (np.array(["2020-01-01"], "datetime64[D]"), "data 'y' holds dates.*days since the first"),
        (pd.Series(pd.to_datetime(["2020-01-01"])), "data 'y' holds dates"),
        (pl.Series([datetime.date(2020, 1, 1)]), "data 'y' holds dates"),
        (np.array([datetime.date(2020, 1, 1)], object), "data 'y' holds dates"),
        (np.array([1 + 2j]), "data 'y' holds complex numbers"),
        (np.ma.masked_array([1.0, 2.0], [True, False]), "masked array, whose mask would be lost"),
        (np.array([(1, 2.0)], dtype="i4,f8"), "data 'y' holds Python objects"),
    ],
)
def test_kinds_that_no_model_can_compute_with(value, match):
    with pytest.raises(DataError, match=match):
        read({"y": value})


@pytest.mark.parametrize("data", [np.ones(3), [1, 2], "y", 3.0])
def test_data_must_be_a_mapping_or_frame(data):
    with pytest.raises(DataError, match="data must be a mapping of the model's keyword arguments"):
        read(data)


def test_small_integers_of_any_size_pass():
    assert read({"y": np.array([2**40, 1], object)})["y"].dtype == np.int64
    assert read({"y": np.array([2**63 - 1, 1], np.uint64)})["y"].max() == 2**63 - 1


@pytest.mark.parametrize(
    ("values", "text"),
    [
        ([1.0, np.nan, np.nan], "data 'y' is NaN in 2 of 3 values, first at row 1"),
        ([1.0, 2.0, -np.inf], "data 'y' is infinite in 1 of 3 values, first at row 2"),
        ([np.inf, 2.0, np.nan], "data 'y' is NaN or infinite in 2 of 3 values, first at row 0"),
        ([[1.0, 2.0], [3.0, np.nan]], "NaN in 1 of 4 values, first at row 1, index (1, 1)"),
        (np.nan, "data 'y' is NaN in 1 of 1 values"),
    ],
)
def test_entries_that_are_not_finite_are_described(values, text):
    (found,) = nonfinite({("y",): np.array(values)})
    assert text in found
    assert nonfinite({("y",): np.array([1, 2]), ("x",): np.ones(3)}) == []


@pytest.mark.parametrize(
    ("data", "match"),
    [
        (
            {"x": 1.0, "yy": 1.0},
            "data has 'yy', which is not an argument of line, did you mean 'y'",
        ),
        ({"x": 1.0, "y": 1.0, "sigma": 2.0}, "'sigma', which is not an argument.*are 'x', 'y'"),
        ({"x": 1.0}, "line needs 'y', which is not in data; data has 'x'"),
        ({}, "line needs 'x', 'y', which are not in data; data has none"),
        (pd.DataFrame({"x": [1.0], "Y": [1.0]}), "line needs 'y'.* did you mean 'Y'"),
    ],
)
def test_names_that_do_not_fit(data, match):
    with pytest.raises(DataError, match=match):
        describe(line, data)


@pytest.mark.parametrize(
    ("x", "y", "match"),
    [
        (np.ones(3), np.ones((3, 1)), r"'y' has values of shape \(3, 1\).*broadcast to \(3, 3\)"),
        (np.ones((3, 1)), np.ones(3), r"'y' has values of shape \(3,\).*y\[:, 0\] or y.ravel\(\)"),
        (np.ones(3), np.ones(1), r"'y' has values of shape \(1,\).*counting every value several"),
        (np.ones(3), np.ones(4), r"'y' has values of shape \(4,\), which do not fit.*\(3,\)"),
        (np.ones(3), [1.0, 2.0, 3.0], "'y' was given a list; give it an array.*np.asarray"),
        ([1.0, 2.0], np.ones(2), "'x' came as a list; if the model computes with it"),
    ],
)
def test_shapes_that_do_not_fit(x, y, match):
    with pytest.raises(DataError, match=match):
        describe(line, {"x": x, "y": y})


def test_a_plate_of_another_size_is_named():
    def model(y):
        m = numpyro.sample("m", dist.Normal(0, 1))
        with numpyro.plate("row", 5):
            numpyro.sample("y", dist.Normal(m, 1), obs=y)

    with pytest.raises(DataError, match=r"'y' has values of shape \(4,\).*plate 'row' of size 5"):
        describe(model, {"y": np.ones(4)})


def test_one_number_for_many_is_allowed():
    """A scalar observed against a vector, as in a soft constraint, is no accident."""

    def model():
        f = numpyro.sample("f", dist.Normal(0, 1).expand([3]).to_event(1))
        numpyro.sample("zero", dist.Normal(f, 0.1), obs=0.0)

    assert describe(model).dim == 3
