"""The natural-gradient steps beside the published algorithm, written down by itself."""

import jax.numpy as jnp
import numpy as np
import pytest

from taut._core.errors import ArgumentError
from taut.networks import IVON
from taut.networks.ivon import ivon

ESS, DELTA, RATE, BETA1, BETA2 = 50.0, 0.04, 0.1, 0.9, 0.98


def published(m, sigma, gradients, hessians):
    """Algorithm 1 of Shen et al. (2024), lines 4 to 9, for given estimates of g and h."""
    h = 1 / (ESS * sigma**2) - DELTA
    g = np.zeros_like(m)
    for t, (g_hat, h_hat) in enumerate(zip(gradients, hessians, strict=True), 1):
        g = BETA1 * g + (1 - BETA1) * g_hat
        h = (
            BETA2 * h
            + (1 - BETA2) * h_hat
            + 0.5 * (1 - BETA2) ** 2 * (h - h_hat) ** 2 / (h + DELTA)
        )
        m = m - RATE * (g / (1 - BETA1**t) + DELTA * m) / (h + DELTA)
        sigma = 1 / np.sqrt(ESS * (h + DELTA))
    return m, sigma


def test_the_steps_are_the_published_ones():
    rng = np.random.default_rng(0)
    m, sigma = rng.normal(size=4), rng.uniform(0.05, 0.2, size=4)
    # Small enough for no step to be cut off.
    gradients, hessians = 0.1 * rng.normal(size=(20, 4)), rng.normal(1.0, 2.0, size=(20, 4))
    expected = published(m, sigma, gradients, hessians)
    prior = lambda m, s: ([jnp.zeros_like(m[0])], [jnp.full_like(m[0], ESS * DELTA)])
    transform = ivon(prior, ESS, RATE, BETA1, BETA2)
    params = {"mean": [jnp.asarray(m)], "scale": [jnp.asarray(sigma)], "likelihood": {}}
    state = transform.init(params)
    for g, h in zip(gradients, hessians, strict=True):
        m, s = params["mean"][0], params["scale"][0]
        # Gradients of minus the ELBO per row: the loss's, the prior's and the entropy's.
        grads = {
            "mean": [jnp.asarray(g) + DELTA * m],
            "scale": [h * s + DELTA * s - 1 / (ESS * s)],
            "likelihood": {},
        }
        updates, state = transform.update(grads, state, params)
        params = {
            "mean": [m + updates["mean"][0]],
            "scale": [s + updates["scale"][0]],
            "likelihood": {},
        }
    np.testing.assert_allclose(params["mean"][0], expected[0], rtol=1e-3)
    np.testing.assert_allclose(params["scale"][0], expected[1], rtol=1e-3)


@pytest.mark.parametrize("estimate", [-1e4, 1e4])
def test_sds_stay_positive_whatever_the_estimate(estimate):
    prior = lambda m, s: ([jnp.zeros(1)], [jnp.ones(1)])
    transform = ivon(prior, 10.0, 0.1, 0.9, 0.5)
    params = {"mean": [jnp.zeros(1)], "scale": [jnp.full(1, 0.1)], "likelihood": {}}
    grads = {"mean": [jnp.zeros(1)], "scale": [jnp.full(1, estimate)], "likelihood": {}}
    updates, _ = transform.update(grads, transform.init(params), params)
    scale = float(params["scale"][0][0] + updates["scale"][0][0])
    assert 0 < scale < 1


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"beta1": 1.0}, "beta1 must be at least 0 and below 1, got 1.0"),
        ({"learning_rate": 1.5}, "learning_rate must be positive and at most 1"),
        ({"initial_scale": 0.0}, "initial_scale must be positive and finite, got 0.0"),
        ({"estimator": "locale"}, "no 'locale', did you mean 'local'"),
        ({"positions": "all"}, "positions must be 'flipout' or 'marginal', got 'all'"),
        ({"warmup": 1.0}, r"warmup must be a share of training, in \[0, 1\), got 1.0"),
    ],
)
def test_bad_settings(settings, message):
    with pytest.raises(ArgumentError, match=message):
        IVON(**settings)


def test_no_step_is_longer_than_a_tenth_of_the_priors_sd():
    prior = lambda m, s: ([jnp.zeros(2)], [jnp.array([4.0, 100.0])])
    transform = ivon(prior, 10.0, 0.3, 0.9, 0.99)
    params = {"mean": [jnp.zeros(2)], "scale": [jnp.ones(2)], "likelihood": {}}
    grads = {"mean": [jnp.array([1e6, -1e6])], "scale": [jnp.zeros(2)], "likelihood": {}}
    updates, _ = transform.update(grads, transform.init(params), params)
    np.testing.assert_allclose(updates["mean"][0], [-0.05, 0.01], rtol=1e-5)
