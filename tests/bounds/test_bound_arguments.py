"""What bounds refuse, and what they choose; nothing here is statistical."""

import jax
import jax.numpy as jnp
import numpyro.distributions as dist
import pytest

from taut import bounds
from taut._core.errors import ArgumentError

KEY = jax.random.key(0)
NORMAL, BIT = dist.Normal(jnp.zeros(2), 1.0), dist.Bernoulli(logits=jnp.zeros(2))
MANY = dist.Bernoulli(logits=jnp.zeros(20))


def total(values):
    return sum(jnp.sum(v) for v in values.values())


def twice(sample):
    sample("z", NORMAL)
    sample("z", NORMAL)


def chained(sample):
    first = sample("a", BIT)
    sample("b", dist.Bernoulli(logits=first * 1.0))


def local(values):
    return 1.0 * values["z"]


REFUSED = {
    "no path": (bounds.ELBO(1, "pathwise"), {"z": BIT}, "'pathwise' is for distributions with rep"),
    "no path to land": (bounds.ELBO(1, "sticking-the-landing"), {"z": BIT}, "site 'z' is Bern"),
    "one sample": (bounds.ELBO(), {"z": MANY}, r"'leave-one-out' compares.*ELBO\(samples=4\)"),
    "infinite": (bounds.ELBO(1, "enumerate"), {"z": dist.Poisson(3.0)}, "finite support"),
    "too many": (bounds.ELBO(1, "enumerate"), {"z": MANY}, r"2\^20 settings"),
    "together": (
        bounds.ELBO(1, "enumerate"),
        {"a": dist.Bernoulli(jnp.ones(9) / 2), "b": dist.Bernoulli(jnp.ones(9) / 2)},
        "have 262144 settings together",
    ),
    "masked": (
        bounds.ELBO(1, "enumerate"),
        {"z": BIT.mask(jnp.array([True, False]))},
        "finite support",
    ),
    "odd": (bounds.ELBO(3, "disarm"), {"z": BIT}, "samples must be even"),
    "pairs of pairs": (bounds.ELBO(2, "disarm"), chained, "one site of a guide function"),
    "not binary": (bounds.ELBO(2, "disarm"), {"z": NORMAL}, "is for Bernoulli distributions"),
    "not relaxable": (bounds.ELBO(1, "gumbel"), {"z": NORMAL}, "try 'pathwise'"),
    "unknown site": (bounds.ELBO(1, {"zz": "score"}), {"z": BIT}, "no site 'zz', did you mean 'z'"),
    "unknown name": (bounds.ELBO(1, "scores"), {"z": BIT}, "did you mean 'score'"),
    "no function": (bounds.ELBO(1, "baseline"), {"z": BIT}, r"bounds.Baseline\(function\)"),
    "drawn twice": (bounds.ELBO(), twice, "site 'z' is drawn twice"),
    "no site": (bounds.ELBO(), {}, "draws no site"),
    "for the ELBO": (bounds.ImportanceWeighted(2, "disarm"), {"z": BIT}, "is for the ELBO"),
    "one weight": (bounds.ImportanceWeighted(1), {"z": BIT}, "compares samples"),
    "no double": (
        bounds.ImportanceWeighted(2, doubly_reparameterised=True),
        {"z": BIT},
        "needs a pathwise estimator for every site",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_refused(case):
    bound, guide, message = REFUSED[case]
    with pytest.raises(ArgumentError, match=message):
        bound(total, guide, KEY)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: bounds.ELBO(0), "samples must be at least 1, got 0"),
        (lambda: bounds.ImportanceWeighted(0), "samples must be at least 1"),
        (lambda: bounds.ReweightedWakeSleep(1), "samples must be at least 2"),
        (lambda: bounds.Renyi(-1.0, 2), "alpha must be at least 0"),
        (lambda: bounds.Renyi(float("inf"), 2), "alpha must be at least 0 and finite"),
        (lambda: bounds.Gumbel(0.0), "temperature must be positive"),
    ],
)
def test_settings_are_checked(make, message):
    with pytest.raises(ArgumentError, match=message):
        make()


@pytest.mark.parametrize(
    ("prior", "message"),
    [
        ({"y": NORMAL}, "prior: the guide has no site 'y'"),
        ({"z": NORMAL.to_event(1)}, r"event shape \(\) in the guide"),
        ({"z": dist.Normal(jnp.zeros(3), 1.0)}, r"to which \(3,\) does not broadcast"),
    ],
)
def test_priors_are_checked(prior, message):
    with pytest.raises(ArgumentError, match=message):
        bounds.ELBO()(total, {"z": NORMAL}, KEY, prior=prior)


def test_a_relaxed_site_has_a_discrete_prior():
    with pytest.raises(ArgumentError, match="must be Bernoulli or categorical"):
        bounds.ELBO(1, "gumbel")(total, {"z": BIT}, KEY, prior={"z": dist.Poisson(jnp.ones(2))})


@pytest.mark.parametrize(
    "returned", [jnp.zeros((2, 3)), {"a": jnp.zeros(2), "b": jnp.zeros(3)}, {}]
)
def test_log_joints_have_at_most_one_axis(returned):
    with pytest.raises(ArgumentError, match="log_joint must return a number, an array"):
        bounds.ELBO()(lambda v: returned, {"z": NORMAL}, KEY)


def test_weights_of_each_datum_need_local_sites():
    guide = {"w": dist.Normal(), "z": NORMAL}
    with pytest.raises(ArgumentError, match="site 'w' of shape"):
        bounds.ImportanceWeighted(2)(local, guide, KEY)
    with pytest.raises(ArgumentError, match="a term of log_joint is shared"):
        bounds.ImportanceWeighted(2)(lambda v: (local(v), 0.0), {"z": NORMAL}, KEY)


def test_a_shared_site_can_look_like_a_local_one():
    """Its cost is then that of all data; without the word it would be the first axis' own."""

    def gradient(shared):
        def surrogate(logits):
            q = {"z": dist.Bernoulli(logits=logits)}
            log_joint = lambda v: jnp.sum(v["z"]) * jnp.array([1.0, 2.0])
            return bounds.ELBO()(log_joint, q, KEY, shared=shared).surrogate

        return jax.grad(surrogate)(jnp.zeros(2))

    # d/dlogit of 3 (p1 + p2) plus the entropy, which is flat at one half.
    assert jnp.allclose(gradient(("z",)), 0.75, atol=1e-6)
    assert not jnp.allclose(gradient(()), 0.75)


def test_shared_sites_exist():
    with pytest.raises(ArgumentError, match="no site 'y'"):
        bounds.ELBO()(local, {"z": BIT}, KEY, shared=("y",))


def test_local_sites_are_summed_out_datum_by_datum():
    """A million settings of all data together, and two of each."""
    estimate = bounds.ELBO()(local, {"z": MANY}, KEY)
    assert estimate.pointwise.shape == (20,)
    assert jnp.allclose(estimate.pointwise, 0.5 + jnp.log(2.0))


def test_bounds_are_hashable_settings():
    found = bounds.ELBO(2, {"z": "score"})
    assert hash(found) == hash(bounds.ELBO(2, {"z": "score"}))
    assert found(total, {"z": BIT}, KEY).value.shape == ()


def test_a_setting_without_probability_may_cost_infinity():
    q = {"z": dist.Categorical(jnp.array([0.5, 0.5, 0.0]))}
    cost = jnp.array([1.0, 2.0, -jnp.inf])
    estimate = bounds.ELBO()(lambda v: cost[v["z"]], q, KEY)
    assert jnp.allclose(estimate.value, 1.5 + jnp.log(2.0))


def test_estimates_compile_and_keep_the_precision():
    estimate = jax.jit(lambda key: bounds.ELBO(2)(total, {"z": NORMAL}, key))(KEY)
    assert jnp.allclose(estimate.value, estimate.surrogate)
    assert estimate.pointwise.shape == (0,)


@pytest.mark.parametrize("flow", ["function", "mapping"])
def test_flows_are_drawn_with_what_their_density_needs(flow):
    """An exponential of a normal: E[x] and the entropy are known; the draws agree in the mean."""
    q = dist.TransformedDistribution(
        dist.Normal(jnp.full(4000, 0.2), 0.5), dist.transforms.ExpTransform()
    )
    guide = {"x": q} if flow == "mapping" else (lambda sample: sample("x", q))
    estimate = bounds.ELBO()(lambda v: 0.0 * v["x"], guide, KEY)
    entropy = 0.2 + 0.5 * jnp.log(2 * jnp.pi * jnp.e * 0.25)
    assert jnp.abs(estimate.pointwise.mean() - entropy) < 0.06  # four standard errors
