"""Bad input through the front door: each kind has an error that says what and where, or a note."""

import jax.numpy as jnp
import jaxtyping
import numpy as np
import numpyro
import numpyro.distributions as dist
import pandas as pd
import pytest

import taut
from targets import line, line_data
from taut._core.errors import (
    ArgumentError,
    DataError,
    ImproperPosteriorError,
    ModelError,
    StartError,
    TautError,
)

DATA = line_data()


def fit(*args, **kwargs):
    return taut.fit(*args, **{"progress": False, **kwargs})


def spoiled(name, row, value):
    column = DATA[name].copy()
    column[row] = value
    return {**DATA, name: column}


@pytest.fixture
def _as_users_run():
    """Without the run-time check of annotations, which would refuse wrong kinds first."""
    jaxtyping.config.update("jaxtyping_disable", True)
    yield
    jaxtyping.config.update("jaxtyping_disable", False)


# --- data -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("data", "match"),
    [
        (spoiled("y", 7, np.nan), "data 'y' is NaN in 1 of 30 values, first at row 7.*site 'y'"),
        (spoiled("y", [3, 9], np.inf), "data 'y' is infinite in 2 of 30 values, first at row 3"),
        (spoiled("x", 0, np.nan), "data 'x' is NaN in 1 of 30 .*row 0.*numpyro.handlers.mask"),
        (spoiled("x", 29, -np.inf), "data 'x' is infinite in 1 of 30 values, first at row 29"),
        (
            pd.DataFrame(spoiled("y", 5, np.nan)),
            "data 'y' is NaN in 1 of 30 values, first at row 5",
        ),
        ({"x": np.array([]), "y": np.array([])}, r"data 'x' is empty \(shape \(0,\)\)"),
        (pd.DataFrame({"x": [], "y": []}, dtype=float), "data 'x' is empty"),
        ({**DATA, "y": DATA["y"][:, None]}, r"'y' has values of shape \(30, 1\).*several times"),
        ({**DATA, "y": DATA["y"][:4]}, r"'y' has values of shape \(4,\), which do not fit"),
        ({**DATA, "z": DATA["y"]}, "data has 'z', which is not an argument of line"),
        ({"x": DATA["x"], "Y": DATA["y"]}, "data has 'Y'.* did you mean 'y'"),
        ({"x": DATA["x"]}, "line needs 'y', which is not in data; data has 'x'"),
        (None, "line needs 'x', 'y', which are not in data; data has none"),
        ({**DATA, "x": np.full(30, "a")}, "data 'x' holds text"),
        ({**DATA, "x": np.full(30, "2020-01-01", "M8[D]")}, "data 'x' holds dates"),
        ({**DATA, "x": np.array([2**80] * 30, object)}, "data 'x' holds integers beyond 64 bits"),
        ({**DATA, "x": np.array([[]] * 30 + [None], object)[:30]}, "data 'x' holds Python objects"),
        (DATA["x"], "data must be a mapping of the model's keyword arguments"),
    ],
)
def test_data_that_cannot_be_used(data, match):
    with pytest.raises(DataError, match=match):
        fit(line, data)


def test_nan_from_inside_the_model_or_observe_is_found_too():
    def closed(x):
        line(x, spoiled("y", 4, np.nan)["y"])

    with pytest.raises(DataError, match="data 'y' is NaN in 1 of 30 values, first at row 4"):
        fit(closed, {"x": DATA["x"]})
    with pytest.raises(DataError, match=r"observe\['y'\] is NaN in 1 of 30 values, first at row 6"):
        fit(line, {"x": DATA["x"], "y": None}, observe={"y": spoiled("y", 6, np.nan)["y"]})


def test_plate_of_another_size():
    def model(y):
        m = numpyro.sample("m", dist.Normal(0, 1))
        with numpyro.plate("row", 5):
            numpyro.sample("y", dist.Normal(m, 1), obs=y)

    with pytest.raises(DataError, match=r"'y' has values of shape \(4,\).*plate 'row' of size 5"):
        fit(model, {"y": np.ones(4)})


def test_integers_beyond_32_bits_are_exact():
    """2**40 + 1 and 2**40 differ by one only in 64 bits."""

    def model(n):
        m = numpyro.sample("m", dist.Normal(0, 1))
        numpyro.deterministic("rest", n - 2**40)
        numpyro.sample("y", dist.Normal(m, 1), obs=(n - 2**40).astype(float))

    posterior = fit(model, {"n": np.array([2**40 + 1, 2**40])})
    np.testing.assert_allclose(posterior.mean["rest"], [1.0, 0.0], atol=1e-12)
    assert posterior.mean["m"] == pytest.approx(1 / 3, abs=0.05)


# --- models -----------------------------------------------------------------------------------


def no_latents(y):
    numpyro.sample("y", dist.Normal(0, 1), obs=y)


@pytest.mark.usefixtures("_as_users_run")
@pytest.mark.parametrize(
    ("model", "match"),
    [
        (no_latents, "no latent variables, so there is nothing to infer"),
        (None, "got None; pass the function itself, not its result"),
        (7, "must be a NumPyro model function or a taut.Density, got int"),
        (DATA, "got dict; the model comes first, then the data"),
    ],
)
def test_models_that_cannot_be_used(model, match):
    with pytest.raises(ModelError, match=match):
        fit(model, {"y": DATA["y"]})


# --- finite nowhere ---------------------------------------------------------------------------


def poisson(y):
    m = numpyro.sample("m", dist.Normal(0, 1))
    numpyro.sample("y", dist.Poisson(jnp.exp(m)), obs=y)


def root_of_negative(y):
    r = numpyro.sample("r", dist.HalfNormal(1))
    numpyro.sample("spread", dist.HalfNormal(1))
    numpyro.sample("y", dist.Normal(0, jnp.sqrt(-r)), obs=y)


def hopeless_factor(y):
    m = numpyro.sample("m", dist.Normal(0, 1))
    numpyro.factor("penalty", jnp.where(m == jnp.pi, 0.0, -jnp.inf))
    numpyro.sample("y", dist.Normal(m, 1), obs=y)


def broken_gradient(y):
    m = numpyro.sample("m", dist.Normal(0, 1))
    numpyro.factor("root", -jnp.sqrt(jnp.abs(m - m)))
    numpyro.sample("y", dist.Normal(m, 1), obs=y)


@pytest.mark.parametrize(
    ("model", "y", "match"),
    [
        (
            poisson,
            [2, -1, 3],
            r"site 'y' is -inf at 1 of 3 values, first at index 1, where it is -1",
        ),
        (
            root_of_negative,
            [0.5, 1.0],
            "site 'y' is nan.*NaN usually means a log, root or division",
        ),
        (hopeless_factor, [0.5], "site 'penalty' is -inf"),
        (broken_gradient, [0.5], "the gradient of site 'root' is not finite"),
    ],
)
def test_a_density_that_is_finite_nowhere_names_its_site(model, y, match):
    with pytest.raises(StartError, match="not finite at any of 40 starting points: .*" + match):
        fit(model, {"y": np.array(y)})


# --- arguments --------------------------------------------------------------------------------


@pytest.mark.usefixtures("_as_users_run")
@pytest.mark.parametrize(
    ("changes", "match"),
    [
        ({"family": "dense"}, "family must be one of taut.families.*got 'dense'"),
        ({"family": taut.families.Dense}, "family must be.*got the class Dense; add parentheses"),
        ({"solver": "adam"}, "solver must be one of taut.solvers.*got 'adam'"),
        ({"solver": taut.solvers.FixedDraws}, "got the class FixedDraws; add parentheses"),
        ({"seed": -1}, "seed must be a whole number of at least 0, got -1"),
        ({"seed": 1.5}, "seed must be a whole number of at least 0, got 1.5"),
        ({"seed": "0"}, "seed must be a whole number of at least 0, got '0'"),
        ({"seed": None}, "seed must be a whole number of at least 0, got None"),
        ({"seed": True}, "seed must be a whole number of at least 0, got True"),
        ({"budget": 0}, "budget must be a positive number of seconds or None, got 0"),
        ({"budget": -3.0}, "budget must be a positive number of seconds or None, got -3.0"),
        ({"budget": float("nan")}, "budget must be a positive number of seconds or None, got nan"),
        ({"budget": "1 s"}, "budget must be a positive number of seconds or None, got '1 s'"),
        (
            {"on_doubt": "ignore"},
            "on_doubt must be one of 'escalate', 'warn', 'raise', got 'ignore'",
        ),
        ({"on_doubt": None}, "on_doubt must be one of .*, got None"),
        ({"observe": [1]}, "observe must be a mapping of site names to values, got list"),
        ({"observe": {"slope": 1.0}}, "observe names 'slope'.*its sites are 'a', 'b', 's', 'y'"),
        ({"observe": {"yy": 1.0}}, "observe names 'yy'.*did you mean 'y'"),
    ],
)
def test_arguments_of_a_wrong_kind(changes, match):
    with pytest.raises(ArgumentError, match=match):
        fit(line, DATA, **changes)


def test_every_refusal_is_a_tauterror_and_a_plain_value_error():
    for error in (DataError, ModelError, ArgumentError, StartError, ImproperPosteriorError):
        assert issubclass(error, TautError)
        assert issubclass(error, ValueError)


# --- repetition -------------------------------------------------------------------------------


def test_same_seed_same_answer_bit_for_bit_and_another_seed_another():
    first, again, other = (fit(line, DATA, seed=seed) for seed in (4, 4, 5))
    for name, draws in first.draws(500).items():
        np.testing.assert_array_equal(draws, again.draws(500)[name])
        assert (draws != other.draws(500)[name]).any()
    assert first.elbo == again.elbo
    assert first.elbo == pytest.approx(other.elbo, abs=0.1)
