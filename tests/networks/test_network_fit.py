"""Options of a fit, and modules of other kinds than dense layers."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from taut._core.status import Status
from taut.networks import BayesianNetwork, FanIn, LastLayer, MeanField
from taut.networks.architecture import take_apart

KEY = jax.random.key(0)
RNG = np.random.default_rng(4)
X = RNG.normal(size=(64, 2))
Y = np.sin(2 * X[:, 0]) + 0.1 * RNG.normal(size=64)
NET = eqx.nn.MLP(2, 1, 8, 1, key=KEY)


class Images(eqx.Module):
    conv: eqx.nn.Conv2d
    head: eqx.nn.Linear

    def __call__(self, x):
        return self.head(jnp.max(jax.nn.relu(self.conv(x)), (1, 2)))


class Tokens(eqx.Module):
    embedding: eqx.nn.Embedding
    head: eqx.nn.Linear

    def __call__(self, x):
        return self.head(jnp.mean(jax.vmap(self.embedding)(x), 0))


def stop_at(step):
    return lambda stage, numbers: numbers.get("step", 0) >= step


def test_a_callback_ends_a_fit_with_what_it_has():
    found = BayesianNetwork(NET).fit(X, Y, epochs=5000, callbacks=[stop_at(60)], progress=False)
    assert found.status is Status.INTERRUPTED
    assert np.isfinite(found.elbo)


def test_a_checkpoint_goes_on_where_it_was(tmp_path):
    network = BayesianNetwork(NET)
    whole = network.fit(X, Y, epochs=200, progress=False)
    stopped = network.fit(
        X, Y, epochs=200, progress=False, callbacks=[stop_at(60)], checkpoint=tmp_path
    )
    assert stopped.status is Status.INTERRUPTED
    resumed = network.fit(X, Y, epochs=200, progress=False, checkpoint=tmp_path)
    assert resumed.status is Status.COMPLETED
    for one, two in zip(
        jax.tree.leaves(whole.params), jax.tree.leaves(resumed.params), strict=True
    ):
        np.testing.assert_array_equal(one, two)


def test_validation_rows_are_watched():
    found = BayesianNetwork(NET).fit(
        X[:48], Y[:48], epochs=200, validation=(X[48:], Y[48:]), progress=False
    )
    assert all(np.isfinite(look.validation) for look in found.history)


def test_the_prior_scale_is_learned_where_it_is_asked_for():
    """The optimum given the posterior: the root mean square of the weights under it."""
    found = BayesianNetwork(NET, prior=FanIn(learned=True)).fit(X, Y, epochs=300, progress=False)
    mean, log_scale = found.params["mean"][0], found.params["log_scale"][0]
    expected = np.sqrt(np.mean(np.asarray(mean) ** 2 + np.exp(2 * np.asarray(log_scale))))
    assert found.prior_scale[".layers[0].weight"] == pytest.approx(expected, rel=1e-5)
    assert found.prior_scale[".layers[0].bias"] == 1.0


def test_fan_in_of_the_prior():
    scales = FanIn(2.0, bias_scale=0.5).scales(take_apart(NET, jnp.zeros(2)))
    assert [s.scale for s in scales] == pytest.approx([2 / np.sqrt(2), 0.5, 2 / np.sqrt(8), 0.5])


def test_the_gain_of_a_normalisation_has_a_prior_around_one():
    module = eqx.nn.Sequential([eqx.nn.LayerNorm(2), eqx.nn.Linear(2, 1, key=KEY)])
    scales = FanIn().scales(take_apart(module, jnp.zeros(2)))
    assert [s.mean for s in scales] == [1.0, 0.0, 0.0, 0.0]


def test_images():
    """A bright row or a bright column, somewhere in the image."""
    images = 0.3 * RNG.normal(size=(120, 1, 6, 6))
    labels = RNG.integers(0, 2, 120)
    for image, label in zip(images, labels, strict=True):
        at = RNG.integers(6)
        image[0][(at, slice(None)) if label else (slice(None), at)] += 2.0
    module = Images(eqx.nn.Conv2d(1, 6, 3, key=KEY), eqx.nn.Linear(6, 2, key=KEY))
    found = BayesianNetwork(module, "categorical").fit(images, labels, epochs=300, progress=False)
    assert found.metrics(images, labels)["accuracy"] > 0.9
    assert any(
        "'.conv.weight': one draw for the batch, with random signs" in n for n in found.notes
    )


def test_tokens():
    """Whole numbers reach the module as they are; an embedding is drawn anew for each datum."""
    tokens = RNG.integers(0, 10, size=(200, 5))
    values = np.linspace(-1, 1, 10)
    y = values[tokens].mean(1) + 0.01 * RNG.normal(size=200)
    module = Tokens(eqx.nn.Embedding(10, 3, key=KEY), eqx.nn.Linear(3, 1, key=KEY))
    found = BayesianNetwork(module, standardise=False).fit(tokens, y, epochs=1500, progress=False)
    assert found.metrics(tokens, y)["rmse"] < 0.5 * y.std()


def test_a_last_layer_above_random_features_beats_mean_field():
    """Its family holds mean field's, and its ELBO is exact in the last layer."""
    options = {"epochs": 1500, "progress": False}
    mean_field = BayesianNetwork(NET, posterior=MeanField()).fit(X, Y, **options)
    last_layer = BayesianNetwork(NET, posterior=LastLayer()).fit(X, Y, **options)
    assert last_layer.elbo > mean_field.elbo + 1.0
    assert np.isnan(last_layer.log_evidence)
