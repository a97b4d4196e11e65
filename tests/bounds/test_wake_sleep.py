"""Wake-sleep and its reweighted form against sums over all latents and data.

Statistical comparisons are at four standard errors: false alarm 6.3e-5 per number, fixed keys.
"""

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import pytest
from gradient_means import assert_unbiased, estimates, flat_gradient, settings

from taut import bounds
from taut._core.errors import ArgumentError

PARAMS = {"phi": np.array([0.3, -0.7]), "theta": np.array([0.4, -0.5, 1.6])}
X = jnp.array([1, 0, 1])


def log_prior(z, theta):
    return dist.Bernoulli(logits=theta[0]).log_prob(z)


def log_joint(x, z, theta):
    return log_prior(z, theta) + dist.Bernoulli(logits=theta[1] + theta[2] * z).log_prob(x)


def guide_of(phi, x):
    return {"z": dist.Bernoulli(logits=phi[0] + phi[1] * x)}


def dream_of(params):
    def dream(key):
        z_key, x_key = jax.random.split(key)
        z = dist.Bernoulli(logits=params["theta"][0]).sample(z_key, X.shape)
        x = dist.Bernoulli(logits=params["theta"][1] + params["theta"][2] * z).sample(x_key)
        return {"z": z}, guide_of(params["phi"], x)

    return dream


def call(bound, *, asleep=True):
    def one(params, key):
        q = guide_of(params["phi"], X)
        dream = {"dream": dream_of(params)} if asleep else {}
        return bound(lambda v: log_joint(X, v["z"], params["theta"]), q, key, **dream)

    return one


def sleep_gradient(params):
    """Of E_p[log q(z | x)] for three data, with respect to phi."""

    def objective(phi):
        total = 0.0
        for x, z in settings(2, 2):
            p = jnp.exp(log_joint(x, z, params["theta"]))
            total = total + len(X) * p * guide_of(phi, x)["z"].log_prob(z)
        return total

    return flat_gradient(objective, jnp.asarray(params["phi"]))


def wake_gradients(params, num_samples):
    """Expected self-normalised gradients of log q and log p, over all draws of each datum."""
    fixed = jax.tree.map(jnp.asarray, params)

    def objective(params):
        log_q, log_p = 0.0, 0.0
        for x in X:
            for draws in settings(*[2] * num_samples):
                prob = jnp.exp(guide_of(fixed["phi"], x)["z"].log_prob(draws).sum())
                ratio = log_joint(x, draws, fixed["theta"])
                ratio = ratio - guide_of(fixed["phi"], x)["z"].log_prob(draws)
                weight = prob * jax.nn.softmax(ratio)
                log_q = log_q + jnp.sum(weight * guide_of(params["phi"], x)["z"].log_prob(draws))
                log_p = log_p + jnp.sum(weight * log_joint(x, draws, params["theta"]))
        return log_q + log_p

    found = flat_gradient(objective, fixed)
    return found[:2], found[2:]


def elbo(params):
    total = 0.0
    for x in X:
        for z in (0, 1):
            log_q = guide_of(params["phi"], x)["z"].log_prob(z)
            total = total + jnp.exp(log_q) * (log_joint(x, z, params["theta"]) - log_q)
    return total


@pytest.mark.stat
def test_wake_sleep():
    """The ELBO for the model, dreams for the guide."""
    values, gradients = estimates(call(bounds.WakeSleep(2)), PARAMS)
    assert_unbiased(values, elbo(PARAMS))
    assert_unbiased(gradients[:, :2], sleep_gradient(PARAMS))
    assert_unbiased(gradients[:, 2:], flat_gradient(elbo, PARAMS)[2:])


@pytest.mark.stat
@pytest.mark.parametrize("phase", ["wake", "sleep", "both"])
def test_reweighted_wake_sleep(phase):
    bound = bounds.ReweightedWakeSleep(3, phase)
    _, gradients = estimates(call(bound, asleep=phase != "wake"), PARAMS)
    for_guide, for_model = wake_gradients(PARAMS, 3)
    expected = {"wake": for_guide, "sleep": sleep_gradient(PARAMS)}
    expected["both"] = expected["wake"] + expected["sleep"]
    assert_unbiased(gradients[:, :2], expected[phase])
    assert_unbiased(gradients[:, 2:], for_model)


def test_the_value_is_the_importance_weighted_bound():
    evidence = sum(
        jax.scipy.special.logsumexp(log_joint(x, jnp.arange(2), PARAMS["theta"])) for x in X
    )
    values, _ = estimates(call(bounds.ReweightedWakeSleep(200), asleep=False), PARAMS, 50)
    assert values.mean() == pytest.approx(float(evidence), abs=0.02)


@pytest.mark.parametrize("bound", [bounds.WakeSleep(), bounds.ReweightedWakeSleep(phase="both")])
def test_sleep_needs_dreams(bound):
    with pytest.raises(ArgumentError, match="dream is missing"):
        call(bound, asleep=False)(PARAMS, jax.random.key(0))


def test_a_dream_has_every_site():
    with pytest.raises(ArgumentError, match="the guide has a site 'z', and the dream has none"):
        bounds.WakeSleep()(
            lambda v: log_joint(X, v["z"], PARAMS["theta"]),
            guide_of(PARAMS["phi"], X),
            jax.random.key(0),
            dream=lambda key: ({}, guide_of(PARAMS["phi"], X)),
        )
