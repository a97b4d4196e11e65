"""What cannot be fitted is said before anything is computed."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from models import Linear, component_data, component_model

import taut
from taut._core.errors import ArgumentError, DataError, ModelError

X = component_data(100)[0]
KEY = jax.random.key(0)


def family(net=None, **options):
    return taut.families.Amortised({"z": net or Linear(5, 1, KEY)}, **options)


@pytest.mark.parametrize(
    ("net", "words"),
    [
        (Linear(4, 1, KEY), r"encoder of 'z' cannot be called with one row of \{'x': \(5,\)\}"),
        (Linear(5, 3, KEY), r"encoder of 'z' must end in 2 numbers .* gives shape \(6,\)"),
    ],
    ids=["input", "output"],
)
def test_an_encoder_of_the_wrong_shape(net, words):
    with pytest.raises(ArgumentError, match=words):
        taut.fit(component_model, {"x": X}, family=family(net))


def test_an_encoder_of_an_unknown_latent():
    wrong = taut.families.Amortised({"zz": Linear(5, 1, KEY)})
    with pytest.raises(ArgumentError, match=r"'zz', which is no latent .*did you mean 'z'"):
        taut.fit(component_model, {"x": X}, family=wrong)


def test_an_input_that_is_not_there():
    with pytest.raises(ArgumentError, match=r"inputs\['z'\] has 'y'"):
        taut.fit(component_model, {"x": X}, family=family(inputs={"z": "y"}))


def test_a_latent_of_rows_without_an_encoder():
    with pytest.raises(ArgumentError, match=r"latent 'z' belongs to rows and has no encoder"):
        taut.fit(component_model, {"x": X}, solver=taut.solvers.Stochastic())


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_a_value_that_is_not_finite_names_its_row(value):
    broken = X.copy()
    broken[37, 2] = value
    with pytest.raises(DataError, match="37"):
        taut.fit(component_model, {"x": broken}, family=family())


def test_a_late_row_of_a_source_is_named():
    broken = X.copy()
    broken[93, 0] = np.nan
    source = taut.data.Batches(lambda: ({"x": broken[i : i + 10]} for i in range(0, 100, 10)), 100)
    with pytest.raises(DataError, match="row 93"):
        taut.fit(component_model, source, family=family())


@pytest.mark.parametrize("declared", [90, 120])
def test_a_wrong_number_of_rows_is_said(declared):
    pieces = taut.data.Batches(lambda: ({"x": X[i : i + 10]} for i in range(0, 100, 10)), declared)
    with pytest.raises((DataError, ArgumentError), match=str(declared)):
        taut.fit(component_model, pieces, family=family(), solver=taut.solvers.Stochastic(epochs=3))


def test_a_source_shorter_than_a_batch_is_one_batch():
    source = taut.data.Batches(lambda: iter([{"x": X}]), 100)
    found = taut.fit(
        component_model,
        source,
        family=family(),
        batch_size=5000,
        solver=taut.solvers.Stochastic(epochs=2),
    )
    assert found.history["step"].iloc[-1] == 2


def test_a_module_with_a_state_is_refused():
    class Normed(eqx.Module):
        norm: eqx.nn.BatchNorm

        def __call__(self, x):
            return x

    net = Normed(eqx.nn.BatchNorm(5, "batch", mode="ema"))

    def model(x):
        f = taut.deep.module("net", net)
        with numpyro.plate("rows", len(x)):
            numpyro.sample("x", dist.Normal(f(x), 1.0).to_event(1), obs=x)

    with pytest.raises((ArgumentError, ModelError), match="LayerNorm"):
        taut.fit(model, {"x": X}, solver=taut.solvers.Stochastic())


def test_a_model_that_mixes_rows_is_refused():
    def model(x):
        w = numpyro.param("w", jnp.zeros(5))
        with numpyro.plate("rows", len(x)):
            numpyro.sample("x", dist.Normal(x.mean(0) + w, 1.0).to_event(1), obs=x)

    with pytest.raises(ModelError, match="changes with the other rows"):
        taut.fit(model, {"x": X}, batch_size=10)


def test_a_sum_over_rows_is_refused():
    def model(x):
        w = numpyro.param("w", jnp.zeros(5))
        numpyro.factor("likelihood", -jnp.sum((x - w) ** 2))

    with pytest.raises(ModelError, match="adds up over rows unseen"):
        taut.fit(model, {"x": X}, batch_size=10)


def test_a_plate_that_subsamples_is_scaled_once():
    """The user's own scale N / B is replaced by the engine's, and never applied beside it."""

    def model(x):
        w = numpyro.param("w", jnp.zeros(5))
        with numpyro.plate("rows", 100, subsample_size=len(x)):
            numpyro.sample("x", dist.Normal(w, 1.0).to_event(1), obs=x)

    found = taut.fit(
        model,
        {"x": X},
        batch_size=10,
        solver=taut.solvers.Stochastic(epochs=100, learning_rate=0.02),
    )
    w = np.asarray(found.params["w"], float)
    exact = np.sum(-0.5 * (X - w) ** 2 - 0.5 * np.log(2 * np.pi))
    assert found.log_density == pytest.approx(exact, rel=1e-4)
    assert w == pytest.approx(X.mean(0), abs=0.1)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"batch_size": 0}, "batch_size must be a whole number"),
        ({"solver": taut.solvers.Natural()}, "trained by solvers.Stochastic"),
        ({"batch_size": 10, "solver": taut.solvers.Stochastic(batch_size=20)}, "give it once"),
    ],
    ids=["zero", "solver", "twice"],
)
def test_options_that_make_no_sense(options, words):
    with pytest.raises(Exception, match=words):
        taut.fit(component_model, {"x": X}, family=family(), **options)


def test_what_only_training_takes_is_said_elsewhere(tmp_path):
    def model(y):
        m = numpyro.sample("m", dist.Normal(0, 1))
        with numpyro.plate("rows", len(y)):
            numpyro.sample("y", dist.Normal(m, 1), obs=y)

    with pytest.raises(ArgumentError, match="checkpoint is for fits by stochastic gradients"):
        taut.fit(model, {"y": X[:, 0]}, checkpoint=tmp_path)


def test_rows_of_another_shape_are_said():
    found = taut.fit(
        component_model, {"x": X}, family=family(), solver=taut.solvers.Stochastic(epochs=1)
    )
    with pytest.raises(DataError, match=r"rows of shape \(4,\), the fit had \(5,\)"):
        found.encode({"x": X[:, :4]})
    with pytest.raises(DataError, match="lacks 'x'"):
        found.evidence({"y": X})
