"""A streamed fit is the fit of all rows; what cannot be streamed is refused by name."""

import functools

import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from feed_kinds import pieces_of
from jaxtyping import TypeCheckError
from numpyro.distributions import HalfNormal, Normal
from scipy import stats
from streaming_models import MODELS, data_of, groups, line

import taut
from marking import slow_but
from taut._core.errors import ArgumentError, DataError, ModelError, UnsupportedError


def streamed(name, size=333, batch_rows=1000, **options):
    columns, fixed = data_of(name)
    source = taut.data.Batches(pieces_of(columns, size), batch_rows=batch_rows, fixed=fixed)
    return taut.fit(MODELS[name], source, **options)


@functools.cache
def whole(name):
    columns, fixed = data_of(name)
    return taut.fit(MODELS[name], {**columns, **fixed}, on_doubt="warn")


@pytest.mark.filterwarnings("ignore:the fit of")
@pytest.mark.parametrize("name", slow_but(MODELS, "line", "groups"))
def test_streamed_fit_is_the_whole_fit(name):
    found, expected = streamed(name, on_doubt="warn"), whole(name)
    assert found.elbo == pytest.approx(expected.elbo, rel=1e-9)
    np.testing.assert_allclose(found.q.mean, expected.q.mean, rtol=1e-6, atol=1e-8)
    np.testing.assert_allclose(found.q.sd, expected.q.sd, rtol=1e-6)


def known_noise(x, y):
    w = numpyro.sample("w", Normal(0.0, 1.0).expand([2]).to_event(1))
    numpyro.sample("y", Normal(w[0] + w[1] * x, 1.0), obs=y)


def test_streamed_fit_is_the_exact_posterior():
    """A conjugate model: posterior and evidence by their formulas."""
    columns, _ = data_of("line", rows=1300)
    found = taut.fit(known_noise, taut.data.Batches(pieces_of(columns, 300)))
    rows = np.stack([np.ones(1300), columns["x"]], 1)
    covariance = np.linalg.inv(rows.T @ rows + np.eye(2))
    marginal = np.eye(1300) + rows @ rows.T
    evidence = stats.multivariate_normal.logpdf(columns["y"], np.zeros(1300), marginal)
    assert found.elbo == pytest.approx(evidence, rel=1e-9)
    assert found.q.mean == pytest.approx(covariance @ rows.T @ columns["y"], rel=1e-8)
    assert found.q.covariance == pytest.approx(covariance, rel=1e-7)
    assert found.trust.verdict == "good"


@pytest.mark.parametrize(
    ("size", "batch_rows"), [(100, 150), (3_301, None), (1_650, 3_300), (7, 2_000)]
)
def test_any_batch_size_gives_the_same_log_joint(size, batch_rows):
    """The log joint is what is summed, so no fit is needed to compare it."""
    from taut._core.progress import Watch
    from taut.problem import describe
    from taut.solvers.streaming import streamed as sums_of

    columns, fixed = data_of("groups")
    source = taut.data.Batches(lambda: pieces_of(columns, size), batch_rows=batch_rows, fixed=fixed)
    with Watch() as watch:
        problem = sums_of(groups, source, watch)
    whole = describe(groups, {**columns, **fixed})
    u = 0.3 * np.random.default_rng(1).standard_normal(whole.dim)
    found, expected = problem.log_joint_sites(u), whole.log_joint_sites(u)
    assert set(found) == set(expected)
    for name, value in expected.items():
        assert float(found[name]) == pytest.approx(float(value), rel=1e-11)


@pytest.fixture(scope="module")
def line_fit():
    return streamed("line")


def test_posterior_of_a_stream_works_but_for_its_rows(line_fit, tmp_path):
    assert line_fit.trust.verdict == "good"
    assert set(line_fit.draws(10)) == {"a", "b", "s"}
    assert "kept as sums" in str(line_fit.plan)
    assert line_fit.predict({"x": np.zeros(5)}, num_draws=50)["y"].shape == (50, 5)
    line_fit.save(tmp_path / "fit.taut")
    again = taut.load(tmp_path / "fit.taut")
    assert again.elbo == line_fit.elbo
    line_fit.report(tmp_path / "fit.html")
    for call in (line_fit.log_likelihood, line_fit.predict):
        with pytest.raises(UnsupportedError, match="not kept"):
            call()


def test_a_stream_can_be_updated_with_rows_in_memory(line_fit):
    columns, _ = data_of("line", rows=200, seed=1)
    updated = line_fit.update(columns)
    assert updated.sd["a"] < line_fit.sd["a"]


# --- Parquet ---------------------------------------------------------------------------------------


@pytest.fixture
def written(tmp_path):
    pa = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    columns, _ = data_of("groups")
    table = pa.table({**columns, "text": ["a"] * len(columns["x"])})
    parquet.write_table(table.slice(0, 2000), tmp_path / "part-0.parquet", row_group_size=700)
    parquet.write_table(table.slice(2000), tmp_path / "part-1.parquet")
    return tmp_path


def log_joint_of(model, source):
    from taut._core.progress import Watch
    from taut.solvers.streaming import streamed as sums_of

    with Watch() as watch:
        problem = sums_of(model, source, watch)
    return float(problem.log_joint(np.full(problem.dim, 0.1)))


def test_parquet_folder(written):
    from taut.problem import describe

    columns, fixed = data_of("groups")
    source = taut.data.Parquet(written, batch_rows=900, fixed=fixed)
    assert source.num_rows == 3_301
    whole = describe(groups, {**columns, **fixed})
    expected = float(whole.log_joint(np.full(whole.dim, 0.1)))
    assert log_joint_of(groups, source) == pytest.approx(expected, rel=1e-11)


def test_parquet_matrix_column(tmp_path):
    pa = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    from taut.problem import describe

    columns, _ = data_of("matrix")
    lists = pa.FixedSizeListArray.from_arrays(pa.array(columns["x"].ravel()), 3)
    parquet.write_table(pa.table({"x": lists, "y": columns["y"]}), tmp_path / "m.parquet")
    whole = describe(MODELS["matrix"], columns)
    expected = float(whole.log_joint(np.full(whole.dim, 0.1)))
    found = log_joint_of(MODELS["matrix"], taut.data.Parquet(tmp_path, batch_rows=700))
    assert found == pytest.approx(expected, rel=1e-11)


def test_missing_parquet_and_columns_are_named(written):
    with pytest.raises(ArgumentError, match="does not exist"):
        taut.data.Parquet(written / "none.parquet")
    with pytest.raises(ArgumentError, match="did you mean 'x'"):
        taut.data.Parquet(written, columns=["X"])


def test_sources_refuse_what_they_cannot_be():
    with pytest.raises((ArgumentError, TypeCheckError), match="batches"):
        taut.data.Batches(3)
    with pytest.raises(DataError, match="no rows"):
        taut.fit(line, taut.data.Batches(lambda: iter(())))
    once = taut.data.Batches(iter(pieces_of(data_of("line")[0], 500)))
    log_joint_of(line, once)
    with pytest.raises(DataError, match="can be read once only"):
        log_joint_of(line, once)


# --- refusals --------------------------------------------------------------------------------------


def test_nan_is_named_by_row_and_column():
    columns, _ = data_of("line")
    columns["y"][2_345] = np.nan
    with pytest.raises(DataError, match=r"'y' is NaN.*row 2,345"):
        taut.fit(line, taut.data.Batches(pieces_of(columns, 500)))


def test_index_out_of_range_is_found_in_any_chunk():
    columns, fixed = data_of("groups")
    columns["g"][3_000] = 7
    with pytest.raises(DataError, match="rows from 2,000"):
        taut.fit(groups, taut.data.Batches(pieces_of(columns, 1000), fixed=fixed))


def local(x, y=None):
    s = numpyro.sample("s", HalfNormal(1))
    with numpyro.plate("rows", len(x)):
        z = numpyro.sample("z", Normal(0, s))
        numpyro.sample("y", Normal(z, 1), obs=y)


def lagged(x, y=None):
    b = numpyro.sample("b", Normal(0, 1))
    numpyro.sample("y", Normal(b * y[:-1], 1), obs=y[1:])


def centring(x, y=None):
    b = numpyro.sample("b", Normal(0, 1))
    with numpyro.plate("rows", len(x)):
        numpyro.sample("y", Normal(b * (x - x.mean()), 1), obs=y)


def peeking(x, y=None):
    b = numpyro.sample("b", Normal(0, y.std()))
    with numpyro.plate("rows", len(x)):
        numpyro.sample("y", Normal(b * x, 1), obs=y)


def tempered(x, y=None):
    b = numpyro.sample("b", Normal(0, 1.0 / len(x)))
    with numpyro.plate("rows", len(x)):
        numpyro.sample("y", Normal(b * x, 1), obs=y)


def factored(x, y=None):
    b = numpyro.sample("b", Normal(0, 1))
    numpyro.factor("penalty", -(b**2))
    with numpyro.plate("rows", len(x)):
        numpyro.sample("y", Normal(b * x, 1), obs=y)


def logistic(x, y=None):
    b = numpyro.sample("b", Normal(0, 1))
    with numpyro.plate("rows", len(x)):
        numpyro.sample("y", dist.Bernoulli(logits=b * x), obs=(y > 0).astype(int))


def log_linear(x, y=None):
    b = numpyro.sample("b", Normal(0, 1))
    with numpyro.plate("rows", len(x)):
        numpyro.sample(
            "y", dist.Poisson(numpyro.deterministic("m", np.e ** (b * x))), obs=abs(y) // 1
        )


def labelled(x, y=None):
    p = numpyro.sample("p", dist.Beta(1, 1))
    with numpyro.plate("rows", len(x)):
        z = numpyro.sample("z", dist.Bernoulli(p))
        numpyro.sample("y", Normal(z, 1), obs=y)


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (local, "'z' has an element for every row"),
        (lagged, "'y' is no sum over rows"),
        (centring, "'y' is no sum over rows"),
        (peeking, "prior of 'b' reads 'y'"),
        (tempered, "prior of 'b' follows the number of rows"),
        (factored, "'penalty' is a factor"),
        (logistic, "'y' cannot be kept as sums"),
        (log_linear, "'y' cannot be kept as sums"),
        (labelled, "'z' is discrete"),
    ],
)
def test_models_that_cannot_be_streamed_are_refused(model, message):
    columns, _ = data_of("line", rows=500)
    with pytest.raises(ModelError, match=message):
        taut.fit(model, taut.data.Batches(pieces_of(columns, 200)))


def test_sizes_from_values_are_refused():
    def sized(g, y=None):
        with numpyro.plate("groups", int(g.max()) + 1):
            a = numpyro.sample("a", Normal(0, 1))
        numpyro.sample("y", Normal(a[g], 1), obs=y)

    columns, _ = data_of("groups", rows=500)
    source = taut.data.Batches(pieces_of({"g": columns["g"], "y": columns["y"]}, 200))
    with pytest.raises(ModelError, match=r"values of column 'g'.*fixed"):
        taut.fit(sized, source)


def test_stopping_before_the_end_says_so():
    columns, _ = data_of("line")
    source = taut.data.Batches(pieces_of(columns, 500), num_rows=3_301)
    with pytest.raises(KeyboardInterrupt, match=r"of 3,301 rows: before all are read"):
        taut.fit(line, source, callbacks=[lambda stage, numbers: True])


def test_wrong_num_rows_is_noticed():
    columns, _ = data_of("line")
    with pytest.raises(DataError, match="3,301 rows, but num_rows says 4,000"):
        taut.fit(line, taut.data.Batches(pieces_of(columns, 500), num_rows=4_000))
