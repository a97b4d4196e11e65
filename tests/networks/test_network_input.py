"""What cannot be used is refused, with the argument, the rule, the value and a remedy."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from taut._core.errors import ArgumentError, DataError, ModelError, UnsupportedError
from taut.networks import (
    BayesianNetwork,
    Ensemble,
    FanIn,
    Isotropic,
    Laplace,
    LastLayer,
    LowRank,
    MeanField,
    Normal,
)

KEY = jax.random.key(0)
X, Y = np.ones((6, 3)) * np.arange(6)[:, None], np.arange(6.0)
NET = eqx.nn.MLP(3, 1, 4, 1, key=KEY)


class WithDropout(eqx.Module):
    layer: eqx.nn.Linear
    dropout: eqx.nn.Dropout

    def __call__(self, x):
        return self.dropout(self.layer(x), key=KEY)


class WithBatchNorm(eqx.Module):
    norm: eqx.nn.BatchNorm

    def __call__(self, x):
        return x


def with_value(array, row, value):
    changed = np.array(array, float)
    changed[row] = value
    return changed


@pytest.mark.parametrize(
    ("x", "y", "message"),
    [
        (with_value(X, 4, np.nan), Y, "x: row 4 holds NaN or an infinity, as do 1 rows in all"),
        (X, with_value(Y, 2, np.inf), "y: row 2 holds NaN or an infinity"),
        (X, Y[:5], "x has 6 rows and y has 5; they must agree"),
        (X[:0], Y[:0], r"x has no rows: its shape is \(0, 3\)"),
        (np.array([["a"]]), Y, "x must hold numbers"),
    ],
)
def test_bad_data(x, y, message):
    with pytest.raises(DataError, match=message):
        BayesianNetwork(NET).fit(x, y)


@pytest.mark.parametrize(
    ("likelihood", "outputs", "y", "error", "message"),
    [
        ("categorical", 3, np.array([0, 1, 2, 3, 0, 0]), DataError,
         "each target must be a label from 0 to 2, and row 3 is 3; 1 of 6 break the rule"),
        ("categorical", 3, np.eye(6), DataError, r"one-hot rows take y.argmax\(-1\)"),
        ("categorical", 1, np.zeros(6, int), ModelError, "one output there is 'bernoulli'"),
        ("bernoulli", 1, np.array([0, 1, 0, 1, 0.5, 1]), DataError, "row 4 is 0.5"),
        ("bernoulli", 2, np.zeros(6, int), ModelError, "for several classes there is 'categorical'"),
        ("poisson", 1, np.array([0, 1, -2, 1, 3, 1]), DataError, "a count: .* row 2 is -2"),
        ("normal", 2, Y, ModelError, r"shape \(2,\), and likelihood 'normal' needs one number"),
        ("heteroscedastic", 1, Y, ModelError, "needs a mean and a log scale for each of the 1"),
    ],
)  # fmt: skip
def test_targets_that_do_not_fit(likelihood, outputs, y, error, message):
    module = eqx.nn.MLP(3, outputs, 4, 1, key=KEY)
    with pytest.raises(error, match=message):
        BayesianNetwork(module, likelihood).fit(X, y)


@pytest.mark.parametrize(
    ("module", "error", "message"),
    [
        (3.0, UnsupportedError, "module must be an Equinox module or another callable pytree"),
        (WithDropout(eqx.nn.Linear(3, 1, key=KEY), eqx.nn.Dropout(0.5)), UnsupportedError,
         "active Dropout, .* try equinox.nn.inference_mode"),
        (WithBatchNorm(eqx.nn.BatchNorm(3, "batch", mode="ema")), UnsupportedError,
         "BatchNorm, which keeps a state"),
        (eqx.nn.Identity(), ModelError, "no arrays of floating-point numbers"),
        (eqx.nn.MLP(4, 1, 4, 1, key=KEY), ModelError,
         r"cannot be called with one datum of shape \(3,\) .* without a batch axis"),
        (eqx.tree_at(lambda m: m.layers[0].weight, NET, jnp.full((4, 3), jnp.nan)), ModelError,
         r"weight '.layers\[0\].weight' holds values that are not finite"),
    ],
)  # fmt: skip
def test_modules_that_cannot_be_used(module, error, message):
    with pytest.raises(error, match=message):
        BayesianNetwork(module).fit(X, Y)


def test_dropout_that_is_switched_off_is_no_hindrance():
    module = eqx.nn.inference_mode(WithDropout(eqx.nn.Linear(3, 1, key=KEY), eqx.nn.Dropout(0.5)))
    found = BayesianNetwork(module).fit(X, Y, epochs=2, progress=False)
    assert np.isfinite(found.elbo)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: BayesianNetwork(NET, "gaussian"), "likelihood: no 'gaussian'"),
        (lambda: BayesianNetwork(NET, prior="fanin"), "prior: no 'fanin', did you mean 'fan_in'"),
        (lambda: BayesianNetwork(NET, posterior="meanfield"), "did you mean 'mean_field'"),
        (lambda: BayesianNetwork(NET, tempering=0.0), "tempering must be positive, got 0.0"),
        (lambda: Normal(-1.0), "noise must be positive and finite, or None, got -1.0"),
        (lambda: FanIn(bias_scale=0.0), "bias_scale must be positive and finite, got 0.0"),
        (lambda: Isotropic(np.inf), "scale must be positive and finite, got inf"),
        (lambda: MeanField("loca"), "no 'loca', did you mean 'local'"),
        (lambda: LowRank(rank=0), "rank must be a whole number of at least 1, got 0"),
        (lambda: LastLayer(warmup=1.0), "warmup must be a share of training"),
        (lambda: LastLayer(initial_scale=-1.0), "initial_scale must be positive and finite"),
        (lambda: Laplace("kron"), "structure: no 'kron'"),
        (lambda: Laplace(learning_rate=0.0), "learning_rate must be positive and finite, got 0"),
        (lambda: Ensemble(members=1), "members must be a whole number of at least 2, got 1"),
        (lambda: Ensemble(Ensemble()), "an ensemble of ensembles is an ensemble"),
    ],
)
def test_bad_settings(make, message):
    with pytest.raises(ArgumentError, match=message):
        make()


def test_a_network_without_an_affine_last_layer():
    module = eqx.nn.MLP(3, 1, 4, 1, final_activation=jnp.tanh, key=KEY)
    with pytest.raises(ModelError, match="no affine function of any of its weights"):
        BayesianNetwork(module, posterior="last_layer").fit(X, Y)


def test_a_covariance_that_would_be_too_large():
    module = eqx.nn.MLP(3, 1, 2000, 1, key=KEY)
    with pytest.raises(ModelError, match=r"dense covariance of 10001 weights .* try structure='d"):
        BayesianNetwork(module, posterior=Laplace("full")).fit(X, Y)


def test_data_sets_of_different_sizes():
    with pytest.raises(DataError, match="as many rows in each data set, got shapes"):
        BayesianNetwork(NET).fit_many(X[None], Y[None, :4])


def test_what_predictions_refuse():
    found = BayesianNetwork(NET).fit(X, Y, epochs=2, progress=False)
    with pytest.raises(DataError, match=r"x must have rows of shape \(3,\), as in training, got"):
        found.predict(X[:, :2])
    with pytest.raises(DataError, match="row 1 holds NaN"):
        found.predict(with_value(X, 1, np.nan))
    with pytest.raises(ArgumentError, match="draws must be a whole number of at least 1, got 0"):
        found.predict(X, draws=0)
    prediction = found.predict(X)
    with pytest.raises(ArgumentError, match="level must lie between 0 and 1, got 1"):
        prediction.interval(1.0)
    with pytest.raises(DataError, match="x has 6 rows and y has 5"):
        prediction.log_prob(Y[:5])
    with pytest.raises(DataError, match=r"y must have rows of shape \(\), as in training"):
        prediction.log_prob(np.ones((6, 2)))


def test_tempering_is_said():
    found = BayesianNetwork(NET, tempering=0.5).fit(X, Y, epochs=2, progress=False)
    assert any("multiplied by 0.5" in note for note in found.notes)


def test_a_constant_input_is_no_hindrance():
    x = np.column_stack([X[:, :2], np.full(6, 7.0)])
    found = BayesianNetwork(NET).fit(x, Y, epochs=2, progress=False)
    assert np.isfinite(found.predict(x).mean).all()
