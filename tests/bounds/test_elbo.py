"""The ELBO's estimators against enumeration, quadrature and closed forms.

Statistical comparisons are at four standard errors: false alarm 6.3e-5 per gradient element (at most
a dozen per test), with fixed keys.
"""

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import pytest
from gradient_means import assert_unbiased, estimates, flat_gradient, hermite, settings

from taut import bounds

RNG = np.random.default_rng(3)
WEIGHT = RNG.normal(size=(3, 2))
LOGITS = np.array([0.3, -0.8, 1.2])


def bits_log_p(bits, params):
    """Not additive in the bits, and with a parameter of its own."""
    return 3.0 * jnp.sum(jnp.tanh(bits @ WEIGHT * params["theta"]) ** 2, -1)


BITS = {"phi": LOGITS, "theta": np.array([0.7, 1.3])}


def bits_elbo(params):
    q = dist.Bernoulli(logits=params["phi"]).to_event(1)
    values = settings(2, 2, 2)
    return sum(jnp.exp(q.log_prob(b)) * (bits_log_p(b, params) - q.log_prob(b)) for b in values)


def call_bits(bound):
    def call(params, key):
        q = {"b": dist.Bernoulli(logits=params["phi"]).to_event(1)}
        return bound(lambda v: bits_log_p(v["b"], params), q, key)

    return call


UNBIASED = [
    bounds.ELBO(1),
    bounds.ELBO(1, "enumerate"),
    bounds.ELBO(2, "score"),
    bounds.ELBO(2, "leave-one-out"),
    bounds.ELBO(2, {"b": "disarm"}),
    bounds.ELBO(4, bounds.DisARM()),
    bounds.ELBO(1, bounds.Baseline(lambda earlier: 2.0)),
]


@pytest.mark.stat
@pytest.mark.parametrize("bound", UNBIASED, ids=lambda b: str(b).split(" at 0x")[0])
def test_bernoulli_estimators_have_the_mean_of_enumeration(bound):
    values, gradients = estimates(call_bits(bound), BITS)
    assert_unbiased(gradients, flat_gradient(bits_elbo, BITS))
    assert_unbiased(values, bits_elbo(BITS))


def test_enumeration_is_exact():
    for bound in (bounds.ELBO(), bounds.ELBO(estimator="enumerate")):
        estimate = call_bits(bound)(BITS, jax.random.key(0))
        assert estimate.value == pytest.approx(float(bits_elbo(BITS)), abs=1e-12)


@pytest.mark.stat
def test_baselines_lower_the_variance():
    """Leave-one-out and DisARM against the score function, whose variance is larger threefold."""

    def variance(name):
        return estimates(call_bits(bounds.ELBO(4, name)), BITS)[1][:, :3].var(0).sum()

    score = variance("score")
    assert variance("leave-one-out") < 0.3 * score
    assert variance("disarm") < 0.3 * score


# --- categorical sites, a plate, sites that depend on each other -------------------------------

LABELS = {"phi": RNG.normal(size=(2, 2, 3)), "theta": np.array([0.4, -0.9, 0.6])}
SLOPES = np.array([0.5, 1.5])


def labels_log_p(z, theta):
    """Datum by datum, (n,), from the labels of shape (..., n, 2)."""
    return 2.0 * jnp.sin(jnp.sum(theta[z], -1) * SLOPES) * theta[z[..., 0]]


def labels_elbo(params):
    total, log_q = 0.0, jax.nn.log_softmax(params["phi"])
    for a, b in settings(3, 3):
        row = log_q[:, 0, a] + log_q[:, 1, b]
        cost = labels_log_p(jnp.tile(jnp.stack([a, b]), (2, 1)), params["theta"]) - row
        total = total + 5.0 * jnp.sum(jnp.exp(row) * cost)
    return total


@pytest.mark.stat
@pytest.mark.parametrize(
    "bound", [bounds.ELBO(2, "leave-one-out"), bounds.ELBO(1, "score"), bounds.ELBO()], ids=str
)
def test_local_labels_have_the_mean_of_enumeration(bound):
    def call(params, key):
        q = {"z": dist.Categorical(logits=params["phi"]).to_event(1)}
        return bound(lambda v: labels_log_p(v["z"], params["theta"]), q, key, scale=5.0)

    values, gradients = estimates(call, LABELS)
    assert_unbiased(gradients, flat_gradient(labels_elbo, LABELS))
    assert_unbiased(values, labels_elbo(LABELS))


@pytest.mark.stat
def test_a_local_site_meets_only_its_own_cost():
    """With every other datum's cost noisy by 1000 nats, the first's gradient is none the noisier."""

    def call(noise):
        def inner(params, key):
            q = {"z": dist.Bernoulli(logits=params).to_event(1)}
            size = jnp.array([1.0, noise])
            return bounds.ELBO(2, "leave-one-out")(lambda v: size * v["z"].sum(-1), q, key)

        return inner

    logits = jnp.array([[0.3, -0.5], [0.2, 0.9]])
    quiet, noisy = (estimates(call(size), logits)[1] for size in (1.0, 1000.0))
    assert np.allclose(quiet[:, :2], noisy[:, :2])


MIXED = {
    "w": np.array(0.4),
    "loc": np.array([0.3, -0.6, 0.8]),
    "z": np.array([[0.2, -0.4], [0.9, 0.1], [-0.3, 0.6]]),
}


def mixed_terms(w, x, z, params):
    """A prior that all share, and a term for each of three data."""
    del params
    return -0.5 * (w - 0.5) ** 2 - w, jnp.sin(x + w) * (1.0 + z) - 0.5 * x**2


def mixed_guide(params):
    def guide(sample):
        w = sample("w", dist.Bernoulli(logits=params["w"]))
        x = sample("x", dist.Normal(params["loc"] + w, 0.5))
        sample("z", dist.Bernoulli(logits=params["z"][:, 0] + params["z"][:, 1] * x * (1.0 - w)))

    return guide


def mixed_elbo(params):
    """Sums over w and z, quadrature over x."""
    nodes, weights = hermite()
    total = 0.0
    for w in (0, 1):
        q_w = dist.Bernoulli(logits=params["w"])
        x = params["loc"][:, None] + w + 0.5 * nodes
        logits = params["z"][:, :1] + params["z"][:, 1:] * x * (1.0 - w)
        q_x, local = dist.Normal(params["loc"][:, None] + w, 0.5), 0.0
        for z in (0, 1):
            log_q = dist.Bernoulli(logits=logits).log_prob(z)
            cost = mixed_terms(w, x, z, params)[1] - log_q - q_x.log_prob(x)
            local = local + jnp.sum(weights * jnp.exp(log_q) * cost)
        shared = mixed_terms(w, x, 0, params)[0] - q_w.log_prob(w)
        total = total + jnp.exp(q_w.log_prob(w)) * (shared + 3.0 * local)
    return total


CHOICES = {
    "chosen": None,
    "w summed": {"w": "enumerate", "z": "leave-one-out"},
    "w scored": {"w": "leave-one-out", "z": "enumerate"},
    "both scored": {"w": "score", "z": "leave-one-out"},
    "pairs of z": {"w": "enumerate", "z": "disarm"},
    "pairs of w": {"w": "disarm", "z": "leave-one-out"},
    "pairs of w, z summed": {"w": "disarm", "z": "enumerate"},
    "landing": {"w": "leave-one-out", "x": "sticking-the-landing", "z": "leave-one-out"},
    "all scored": {"w": "score", "x": "leave-one-out", "z": "leave-one-out"},
    "learned": {"w": bounds.Baseline(lambda e: 1.0), "z": bounds.Baseline(lambda e: 0.1 * e["x"])},
}
QUICK = ("chosen", "w scored", "pairs of z", "landing")


@pytest.mark.stat
@pytest.mark.parametrize(
    "choice", [pytest.param(c, marks=() if c in QUICK else pytest.mark.slow) for c in CHOICES]
)
def test_sites_that_depend_on_each_other_have_the_mean_of_quadrature(choice):
    def call(params, key):
        def log_joint(v):
            shared, local = mixed_terms(v["w"], v["x"], v["z"], params)
            return {"prior": shared, "likelihood": local}

        bound = bounds.ELBO(4, CHOICES[choice])
        return bound(log_joint, mixed_guide(params), key, scale=3.0)

    values, gradients = estimates(call, MIXED)
    assert_unbiased(gradients, flat_gradient(mixed_elbo, MIXED))
    assert_unbiased(values, mixed_elbo(MIXED))


# --- continuous sites --------------------------------------------------------------------------

GAMMA = {"a": np.array(1.7), "b": np.array(0.9)}


def gamma_elbo(params):
    """Gamma(3, 2) prior, no likelihood: minus the divergence, in closed form."""
    return -bounds.closed_divergence(dist.Gamma(params["a"], params["b"]), dist.Gamma(3.0, 2.0))


@pytest.mark.stat
@pytest.mark.parametrize("name", ["pathwise", "sticking-the-landing", "leave-one-out"])
def test_gamma_has_the_gradient_of_its_divergence(name):
    def call(params, key):
        q = {"x": dist.Gamma(params["a"], params["b"])}
        return bounds.ELBO(2, name)(lambda v: dist.Gamma(3.0, 2.0).log_prob(v["x"]), q, key)

    values, gradients = estimates(call, GAMMA)
    assert_unbiased(gradients, flat_gradient(gamma_elbo, GAMMA))
    assert_unbiased(values, gamma_elbo(GAMMA))


BETA = {"a": np.array(1.2), "b": np.array(2.5)}


@pytest.mark.stat
@pytest.mark.parametrize("given", [True, False], ids=["closed", "sampled"])
def test_beta_posterior_of_a_proportion(given):
    """3 of 10 under a Beta(2, 2) prior: E[log likelihood] and the divergence in closed form."""

    def elbo(params):
        a, b = params["a"], params["b"]
        log_x, log_rest = (jax.scipy.special.digamma(c) for c in (a, b))
        total = jax.scipy.special.digamma(a + b)
        fit = 3 * (log_x - total) + 7 * (log_rest - total)
        return fit - bounds.closed_divergence(dist.Beta(a, b), dist.Beta(2.0, 2.0))

    def call(params, key):
        def log_joint(v):
            fit = 3 * jnp.log(v["p"]) + 7 * jnp.log1p(-v["p"])
            return fit if given else fit + dist.Beta(2.0, 2.0).log_prob(v["p"])

        q = {"p": dist.Beta(params["a"], params["b"])}
        prior = {"p": dist.Beta(2.0, 2.0)} if given else None
        return bounds.ELBO()(log_joint, q, key, prior=prior)

    values, gradients = estimates(call, BETA)
    assert_unbiased(gradients, flat_gradient(elbo, BETA))
    assert_unbiased(values, elbo(BETA))


@pytest.mark.stat
def test_a_prior_without_closed_divergence_is_sampled():
    """Laplace prior of a normal q; the truth by quadrature."""

    def elbo(params):
        nodes, weights = hermite(200)
        q = dist.Normal(params, 0.5)
        x = params + 0.5 * nodes
        return jnp.sum(weights * (jnp.sin(x) + dist.Laplace(4.0).log_prob(x) - q.log_prob(x)))

    def call(params, key):
        q, prior = {"x": dist.Normal(params, 0.5)}, {"x": dist.Laplace(4.0)}
        return bounds.ELBO()(lambda v: jnp.sin(v["x"]), q, key, prior=prior)

    params = jnp.array(1.5)
    values, gradients = estimates(call, params)
    assert_unbiased(gradients, flat_gradient(elbo, params))
    assert_unbiased(values, elbo(params))


def chain_guide(params):
    """z2 depends on z1; q is the posterior of the chain at params = (0.3, 0.7)."""

    def guide(sample):
        z = sample("z1", dist.Normal(params[0], 0.6))
        sample("z2", dist.Normal(params[1] * z, 0.4))

    return guide


@pytest.mark.parametrize("num_samples", [1, 3])
def test_sticking_the_landing_has_no_gradient_at_the_posterior(num_samples):
    """To rounding, for every key, also where a site's parameters depend on an earlier site."""
    at = jnp.array([0.3, 0.7])

    def call(params, key, name):
        def log_joint(v):
            first = dist.Normal(0.3, 0.6).log_prob(v["z1"])
            return first + dist.Normal(0.7 * v["z1"], 0.4).log_prob(v["z2"]) + 1.5

        return bounds.ELBO(num_samples, name)(log_joint, chain_guide(params), key)

    values, gradients = estimates(lambda p, k: call(p, k, "sticking-the-landing"), at, 50)
    assert np.abs(gradients).max() < 1e-12
    assert values == pytest.approx(1.5, abs=1e-12)
    assert estimates(lambda p, k: call(p, k, "pathwise"), at, 50)[1].std(0).min() > 0.1


# --- relaxations, which are biased ------------------------------------------------------------


@pytest.mark.stat
def test_the_relaxations_bias_vanishes_with_the_temperature():
    """Bias falls with the temperature; at 0.05 it is under a tenth of that at 1."""
    truth = flat_gradient(bits_elbo, BITS)

    def bias(temperature):
        bound = bounds.ELBO(1, bounds.Gumbel(temperature))
        return np.linalg.norm(estimates(call_bits(bound), BITS, 40_000)[1].mean(0) - truth)

    warm, cold, frozen = map(bias, (1.0, 0.3, 0.05))
    assert warm > 2 * cold > 2 * frozen
    assert frozen < 0.1 * warm


@pytest.mark.stat
def test_straight_through_has_the_right_value_and_a_biased_gradient():
    values, gradients = estimates(call_bits(bounds.ELBO(1, "straight-through")), BITS)
    truth = flat_gradient(bits_elbo, BITS)
    assert_unbiased(values, bits_elbo(BITS))
    assert np.abs(gradients.mean(0) - truth)[:3].max() > 0.03


@pytest.mark.stat
@pytest.mark.parametrize("name", ["gumbel", "straight-through"])
def test_relaxations_of_a_linear_cost_are_exact_in_value_or_gradient(name):
    """For E[c'z] plus a closed divergence straight-through is exact; a cold Gumbel nearly."""
    cost = jnp.array([0.5, -1.0, 2.0])
    logits = jnp.array([0.2, 0.7, -0.4])
    prior = dist.Categorical(logits=jnp.zeros(3))

    def elbo(logits):
        log_q = jax.nn.log_softmax(logits)
        return jnp.sum(jnp.exp(log_q) * (cost - log_q - jnp.log(3.0)))

    def call(logits, key):
        q = {"z": dist.Categorical(logits=logits)}
        chosen = bounds.StraightThrough() if name == "straight-through" else bounds.Gumbel(0.05)
        bound = bounds.ELBO(1, chosen)
        return bound(lambda v: v["z"] @ cost, q, key, prior={"z": prior})

    values, gradients = estimates(call, logits, 20_000)
    assert np.abs(gradients.mean(0) - jax.grad(elbo)(logits)).max() < 0.05
    assert values.mean() == pytest.approx(float(elbo(logits)), abs=0.03)


# --- learned baselines -----------------------------------------------------------------------


def test_a_baseline_learns_the_cost():
    """Its gradient is that of minus half the mean squared error, and no other parameter's."""

    def call(params, key):
        bound = bounds.ELBO(2, bounds.Baseline(lambda earlier: params["baseline"]))
        return call_bits(bound)(params, key)

    params = BITS | {"baseline": jnp.array(1.0)}
    _, gradients = estimates(call, params)
    assert_unbiased(gradients[:, 0], float(bits_elbo(BITS)) - 1.0)
    assert_unbiased(gradients[:, 1:], flat_gradient(bits_elbo, BITS))
