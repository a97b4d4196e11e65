"""Bounds by importance weights on models whose evidence is known.

Statistical comparisons are at four standard errors: false alarm 6.3e-5 per number, fixed keys.
"""

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import pytest
from gradient_means import assert_unbiased, estimates, flat_gradient, hermite, settings

from taut import bounds
from taut.bounds.weighted import power_mean

RNG = np.random.default_rng(5)
LOADING, NOISE = RNG.normal(size=(4, 2)), 0.7
DATA = RNG.normal(size=(3, 4))


def log_joint(values):
    """z ~ N(0, I), x given z ~ N(Wz, s^2), for each of three data."""
    z = values["z"]
    prior = dist.Normal().log_prob(z).sum(-1)
    return prior + dist.Normal(z @ LOADING.T, NOISE).log_prob(DATA).sum(-1)


def log_evidence():
    covariance = LOADING @ LOADING.T + NOISE**2 * jnp.eye(4)
    return float(dist.MultivariateNormal(jnp.zeros(4), covariance).log_prob(DATA).sum())


PARAMS = {"loc": 0.3 * DATA[:, :2], "log_scale": np.full((3, 2), -0.3)}


def guide_of(params):
    return {"z": dist.Normal(params["loc"], jnp.exp(params["log_scale"])).to_event(1)}


def call(bound, fn=log_joint, guide=guide_of):
    return lambda params, key: bound(fn, guide(params), key)


def test_bounds_are_in_order():
    """ELBO < IWAE-5 < IWAE-50 < log evidence, Renyi falling in alpha, gaps above 4 s.e."""
    chain = [
        bounds.Renyi(2.0, 5),
        bounds.ELBO(),
        bounds.Renyi(0.5, 5),
        bounds.ImportanceWeighted(5),
        bounds.ImportanceWeighted(50),
    ]
    samples = [estimates(call(bound), PARAMS, 2000)[0] for bound in chain]
    means = [s.mean() for s in samples]
    errors = [s.std() / np.sqrt(len(s)) for s in samples]
    for low, high in zip(range(4), range(1, 5), strict=True):
        assert means[high] - means[low] > 4 * np.hypot(errors[low], errors[high])
    assert means[-1] < log_evidence() + 4 * errors[-1]


def test_the_bound_is_the_evidence_where_q_is_the_posterior():
    precision = jnp.eye(2) + LOADING.T @ LOADING / NOISE**2
    mean = DATA @ LOADING @ jnp.linalg.inv(precision) / NOISE**2
    q = {"z": dist.MultivariateNormal(mean, precision_matrix=precision)}
    for bound in (bounds.ELBO(), bounds.ImportanceWeighted(3), bounds.Renyi(0.3, 4)):
        estimate = bound(log_joint, q, jax.random.key(1))
        assert estimate.value == pytest.approx(log_evidence(), abs=1e-10)
        assert estimate.pointwise.shape == (3,)
        assert estimate.pointwise.sum() == pytest.approx(log_evidence(), abs=1e-10)


def test_renyi_at_its_ends_and_near_one():
    key, guide = jax.random.key(2), guide_of(PARAMS)
    orders = (0, 1, 1 - 1e-9, 1 + 1e-9)
    at = {a: float(bounds.Renyi(a, 6)(log_joint, guide, key).value) for a in orders}
    weighted = bounds.ImportanceWeighted(6)(log_joint, guide, key).value
    assert at[0] == pytest.approx(float(weighted))
    assert at[1 - 1e-9] == pytest.approx(at[1], abs=1e-6)
    assert at[1 + 1e-9] == pytest.approx(at[1], abs=1e-6)


@pytest.mark.stat
def test_alpha_one_is_the_elbo():
    """Its mean and its gradient, whose truth is the closed form of a Gaussian."""

    def elbo(params):
        scale = jnp.exp(params["log_scale"])
        second = params["loc"] ** 2 + scale**2
        prior = -0.5 * jnp.sum(second + jnp.log(2 * jnp.pi))
        residual = jnp.sum((DATA - params["loc"] @ LOADING.T) ** 2)
        spread = jnp.sum(scale**2 @ (LOADING**2).T)
        size = DATA.size * jnp.log(2 * jnp.pi * NOISE**2)
        entropy = jnp.sum(params["log_scale"] + 0.5 * jnp.log(2 * jnp.pi * jnp.e))
        return prior - 0.5 * ((residual + spread) / NOISE**2 + size) + entropy

    values, gradients = estimates(call(bounds.Renyi(1, 2)), PARAMS)
    assert_unbiased(values, elbo(PARAMS))
    assert_unbiased(gradients, flat_gradient(elbo, PARAMS))


# --- doubly reparameterised gradients -----------------------------------------------------------

SHARP = {"theta": np.array(0.8), "loc": np.array(0.2), "log_scale": np.array(-0.1)}


def sharp_log_p(theta, z):
    return dist.Normal().log_prob(z) + dist.Normal(theta * z, 0.5).log_prob(1.2)


def sharp_bound(params, order):
    """The bound with two draws by quadrature over both, which no estimator enters."""
    nodes, weights = hermite(60)
    scale = jnp.exp(params["log_scale"])
    z = params["loc"] + scale * nodes
    ratio = sharp_log_p(params["theta"], z) - dist.Normal(params["loc"], scale).log_prob(z)
    pairs = jnp.stack(jnp.meshgrid(ratio, ratio))
    return jnp.sum(weights[:, None] * weights * power_mean(pairs, order))


@pytest.mark.stat
@pytest.mark.parametrize(
    ("order", "doubly"),
    [
        (0, True),
        (0.5, True),
        (0.5, False),
        *(pytest.param(a, d, marks=pytest.mark.slow) for a in (1, 1.7) for d in (True, False)),
    ],
)
def test_gradients_are_those_of_quadrature(order, doubly):
    def one(params, key):
        q = {"z": dist.Normal(params["loc"], jnp.exp(params["log_scale"]))}
        bound = bounds.Renyi(order, 2, doubly_reparameterised=doubly)
        return bound(lambda v: sharp_log_p(params["theta"], v["z"]), q, key)

    values, gradients = estimates(one, SHARP, 8000)
    assert_unbiased(gradients, flat_gradient(lambda p: sharp_bound(p, order), SHARP))
    assert_unbiased(values, sharp_bound(SHARP, order))


@pytest.mark.stat
def test_doubly_reparameterised_gradients_have_the_lower_variance():
    """With 50 draws, for the guide's parameters: at most a third; and the same mean."""
    plain, doubly = (
        estimates(call(bounds.ImportanceWeighted(50, doubly_reparameterised=d)), PARAMS, 2000)[1]
        for d in (False, True)
    )
    assert doubly.var(0).sum() < plain.var(0).sum() / 3
    assert_unbiased(doubly - plain, 0.0)


def test_doubly_reparameterised_gradients_vanish_at_the_posterior():
    """Also where a site's parameters depend on an earlier site."""

    def joint(v):
        return dist.Normal(0.3, 0.6).log_prob(v["a"]) + dist.Normal(v["a"], 0.4).log_prob(v["b"])

    def one(params, key):
        def guide(sample):
            a = sample("a", dist.Normal(params[0], 0.6))
            sample("b", dist.Normal(params[1] * a, 0.4))

        return bounds.ImportanceWeighted(4)(joint, guide, key)

    values, gradients = estimates(one, jnp.array([0.3, 1.0]), 20)
    assert np.abs(gradients).max() < 1e-12
    assert values == pytest.approx(0.0, abs=1e-12)


# --- discrete sites ------------------------------------------------------------------------------

LABELS = {"phi": np.array([0.4, -0.3, 0.8]), "theta": np.array([0.2, 1.4, -0.6])}


def labels_bound(params):
    log_q = jax.nn.log_softmax(params["phi"])
    ratio = params["theta"] - log_q
    return sum(
        jnp.exp(log_q[a] + log_q[b] + log_q[c]) * power_mean(ratio[jnp.stack([a, b, c])], 0.5)
        for a, b, c in settings(3, 3, 3)
    )


@pytest.mark.stat
@pytest.mark.parametrize("name", [None, "baseline", pytest.param("score", marks=pytest.mark.slow)])
def test_discrete_gradients_are_those_of_enumeration(name):
    """All 27 triples of draws; without a choice the estimator is VIMCO's."""
    chosen = bounds.Baseline(lambda earlier: 0.5) if name == "baseline" else name

    def one(params, key):
        q = {"z": dist.Categorical(logits=params["phi"])}
        return bounds.Renyi(0.5, 3, chosen)(lambda v: params["theta"][v["z"]], q, key)

    values, gradients = estimates(one, LABELS, 8000)
    assert_unbiased(gradients, flat_gradient(labels_bound, LABELS))
    assert_unbiased(values, labels_bound(LABELS))


def test_priors_and_scale():
    def likelihood(v):
        return dist.Normal(v["z"] @ LOADING.T, NOISE).log_prob(DATA).sum(-1)

    key, prior = jax.random.key(4), {"z": dist.Normal().expand([2]).to_event(1)}
    bound, guide = bounds.ImportanceWeighted(5), guide_of(PARAMS)
    whole = float(bound(log_joint, guide, key).value)
    assert bound(likelihood, guide, key, prior=prior).value == pytest.approx(whole)
    assert bound(log_joint, guide, key, scale=7.0).value == pytest.approx(7.0 * whole)
