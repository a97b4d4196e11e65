"""Networks that make weights: as functions, as models of many tasks, and as posteriors."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats
from network_tasks import make_task, some_scales, z_scores

from taut._core.errors import ArgumentError, DataError, ModelError
from taut.networks import (
    BayesianNetwork,
    Hyper,
    HyperNetwork,
    Isotropic,
    MeanField,
    MetaNetwork,
    Normal,
    functional,
)
from taut.networks.priors import divergence

KEY = jax.random.key(0)
NET = eqx.nn.MLP(3, 2, 4, 1, key=KEY)


def test_a_module_as_a_function_of_its_weights():
    f, x = functional(NET), jnp.array([0.1, -0.2, 0.3])
    assert f.size == 3 * 4 + 4 + 4 * 2 + 2
    np.testing.assert_allclose(f(f.initial, x), NET(x), rtol=1e-6)
    doubled = jax.tree.map(lambda w: 2 * w if eqx.is_inexact_array(w) else w, NET)
    np.testing.assert_allclose(f(2 * f.initial, x), doubled(x), rtol=1e-6)
    np.testing.assert_allclose(f.module(2 * f.initial)(x), doubled(x), rtol=1e-6)


def test_a_hypernetwork_makes_the_weights_of_its_net():
    hyper = HyperNetwork(NET, context=2, key=KEY)
    context, x = jnp.array([1.0, -1.0]), jnp.array([0.1, -0.2, 0.3])
    made = hyper.weights(context)
    assert float(jnp.abs(made - hyper.base).max()) > 0
    expected = functional(NET)(made, x)
    np.testing.assert_allclose(hyper(jnp.concatenate([context, x])), expected, rtol=1e-5)


@pytest.mark.stat
@pytest.mark.parametrize("emits", ["scales", "low_rank"])
def test_without_an_effect_of_the_noise_it_is_mean_field(emits):
    """The estimate's mean is then the divergence itself. False alarms: 6e-7, with fixed seeds."""
    task = make_task(eqx.nn.Linear(3, 1, key=KEY), jnp.zeros(3))
    settings = Hyper(noise=2, emits=emits, inner=3)
    params = settings.start(task, task.architecture.initial, {"likelihood": {}, "known": {}}, KEY)
    params["second"] = jnp.zeros_like(params["second"])
    scales = some_scales(params["mean"], KEY)

    def one(key):
        first, second = jax.random.split(key)
        z = jax.random.normal(first, (4, 2))
        several = jax.vmap(lambda z: settings.means(params, z))(z)
        return settings.divergence(task, params["mean"], several, scales, second)

    found = jax.vmap(one)(jax.random.split(KEY, 5000))
    expected = divergence(task.priors, params["mean"], scales)
    assert z_scores(found, expected) < 5


def test_its_bound_lies_between_mean_field_and_the_evidence():
    """Dependent columns, for which independent weights lose more than half a nat."""
    rng = np.random.default_rng(2)
    x = rng.normal(size=(40, 2))
    x[:, 1] = 0.95 * x[:, 0] + 0.3 * x[:, 1]
    y = x @ [0.3, 0.2] + 0.5 * rng.normal(size=40)
    module = eqx.nn.Linear(2, 1, use_bias=False, key=KEY)

    def elbo(posterior, epochs):
        network = BayesianNetwork(module, Normal(0.5), Isotropic(1.0), posterior, standardise=False)
        return network.fit(x, y, epochs=epochs, progress=False)

    covariance = 0.25 * np.eye(40) + x @ x.T
    evidence = scipy.stats.multivariate_normal(np.zeros(40), covariance).logpdf(y)
    independent, hyper = elbo(MeanField(), 800), elbo(Hyper(2, "low_rank", inner=50), 3000)
    assert independent.elbo < evidence - 0.5
    assert independent.elbo + 0.25 < hyper.elbo < evidence + 4 * hyper.elbo_error
    assert any("semi-implicit lower bound with 50" in note for note in hyper.notes)


def test_factors_of_rows():
    """Each row of a weight is multiplied by one number."""
    task = make_task(NET, jnp.zeros(3))
    settings = Hyper(noise=2)
    params = settings.start(task, task.architecture.initial, {"likelihood": {}, "known": {}}, KEY)
    made = settings.means(params, jnp.array([1.0, -2.0]))
    for weight, changed in zip(params["mean"], made, strict=True):
        ratio = np.reshape(changed / weight, (len(weight), -1))
        np.testing.assert_allclose(ratio, np.repeat(ratio[:, :1], ratio.shape[1], 1), rtol=1e-4)
        assert np.ptp(ratio[:, 0]) > 1e-3


def test_a_meta_network_tells_tasks_apart():
    """Slopes of opposite sign, by the task: one line for all would have none."""
    rng = np.random.default_rng(3)
    task = rng.integers(0, 4, 240)
    x = rng.normal(size=240)
    slopes = np.array([1.0, -1.0, 1.0, -1.0])
    y = slopes[task] * x + 0.1 * rng.normal(size=240)
    module = MetaNetwork(eqx.nn.Linear(1, 1, key=KEY), tasks=4, embedding=2, width=8, key=KEY)
    network = BayesianNetwork(module, unscaled=(0,))
    found = network.fit(np.column_stack([task, x]), y, epochs=2000, progress=False)
    prediction = found.predict(np.array([[t, 1.0] for t in range(4)]))
    np.testing.assert_allclose(prediction.mean, slopes, atol=0.3)


def test_bad_input():
    with pytest.raises(ModelError, match="no arrays of floating-point numbers to make"):
        functional(eqx.nn.Identity())
    with pytest.raises(ArgumentError, match="context must be a whole number of at least 1, got 0"):
        HyperNetwork(NET, 0, key=KEY)
    with pytest.raises(ArgumentError, match="tasks must be a whole number of at least 1, got 0"):
        MetaNetwork(NET, 0, key=KEY)
    with pytest.raises(ArgumentError, match="emits: no 'scale', did you mean 'scales'"):
        Hyper(emits="scale")
    with pytest.raises(ArgumentError, match="inner must be a whole number of at least 1, got 0"):
        Hyper(inner=0)
    network = BayesianNetwork(NET, unscaled=(7,))
    with pytest.raises((ArgumentError, DataError), match=r"rows of shape \(3,\), and no column 7"):
        network.fit(np.ones((4, 3)), np.ones((4, 2)))
