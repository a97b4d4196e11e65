"""Discrete latents summed out, against the list of all of their values."""

import itertools

import discrete_models as models
import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from numpyro.contrib.control_flow import scan
from scipy import stats
from scipy.special import logsumexp

from taut._core.errors import ModelError
from taut._core.precision import double_precision
from taut.problem import describe
from taut.problem.evaluator import Evaluator

Y = models.Y
DATA = {"y": Y}


def point(problem, seed=1):
    return 0.7 * np.random.default_rng(seed).normal(size=problem.dim)


def sites_of(problem, u):
    with double_precision():
        found = jax.jit(problem.program.sites)(jnp.asarray(u), problem.prepared)
        return {name: float(value) for name, value in found.items()}


def every_value(problem, model):
    """All values of the discrete latents, and the log joint at each by conditioning on them."""
    support = problem.discrete_support()
    cells = [(s.name, i) for s in problem.discrete for i in np.ndindex(*s.shape)]
    rows = np.array(list(itertools.product(*(support[n] for n, _ in cells))))
    values, start = {}, 0
    for s in problem.discrete:
        size = int(np.prod(s.shape))
        values[s.name] = rows[:, start : start + size].reshape(-1, *s.shape)
        start += size
    known = describe(model, DATA, observe={n: v[0] for n, v in values.items()})

    def log_joint(u, given):
        return sum(known.program.log_joint_sites(u, {**known.arrays, "observe": given}).values())

    with double_precision():
        run = jax.jit(jax.vmap(log_joint, (None, 0)))
        return values, np.asarray(run(jnp.asarray(point(problem)), values))


@pytest.fixture(scope="module", params=models.MODELS, ids=lambda m: m.__name__)
def listed(request):
    problem = describe(request.param, DATA)
    return problem, *every_value(problem, request.param)


def test_the_log_joint_is_the_sum_over_all_values(listed):
    problem, _, log_joint = listed
    u = point(problem)
    sites = sites_of(problem, u)
    assert sum(name.startswith("sum over ") for name in sites) == 1
    np.testing.assert_allclose(sum(sites.values()), logsumexp(log_joint), rtol=1e-12)


def test_marginals_are_those_of_the_list(listed):
    problem, values, log_joint = listed
    found = problem.discrete_marginals(point(problem))
    weight = np.exp(log_joint - logsumexp(log_joint))
    for name, support in problem.discrete_support().items():
        hit = values[name][..., None] == support
        np.testing.assert_allclose(
            found[name], np.tensordot(weight, hit.astype(float), 1), atol=1e-10
        )


def test_the_mode_is_the_best_of_the_list(listed):
    problem, values, log_joint = listed
    found = problem.discrete_mode(point(problem))
    best = log_joint.argmax()
    for name, value in found.items():
        np.testing.assert_array_equal(value, values[name][best])


@pytest.mark.stat
def test_draws_have_the_joint_distribution(listed):
    """Expected counts of the listed values against 4,000 draws: chi-square with p > 1e-6."""
    problem, values, log_joint = listed
    count = 4000
    with double_precision():
        keys = jax.random.split(jax.random.key(0), count)
        run = jax.jit(jax.vmap(problem.program.enumeration.draw, (0, None, None)))
        found = run(keys, jnp.asarray(point(problem)), problem.arrays)
    flat = {n: v.reshape(len(v), -1) for n, v in values.items()}
    rows = np.concatenate(list(flat.values()), axis=1)
    index = {tuple(row): i for i, row in enumerate(rows.tolist())}
    drawn = np.concatenate([np.asarray(found[n]).reshape(count, -1) for n in flat], axis=1)
    counts = np.bincount([index[tuple(r)] for r in drawn.tolist()], minlength=len(rows))
    expected = count * np.exp(log_joint - logsumexp(log_joint))
    often = expected > 8
    if (~often).any():
        expected = np.append(expected[often], expected[~often].sum())
        counts = np.append(counts[often], counts[~often].sum())
    statistic = ((counts - expected) ** 2 / np.maximum(expected, 1e-9)).sum()
    assert stats.chi2.sf(statistic, max(len(counts) - 1, 1)) > 1e-6


def test_gradients_are_finite_and_those_of_the_sum(listed):
    problem, *_ = listed
    u, eps = point(problem), 1e-5
    steps = eps * np.eye(problem.dim)
    values, gradients = Evaluator(problem).value_and_grad(
        np.vstack([u + steps, u - steps, u[None]])
    )
    slope = (values[: problem.dim] - values[problem.dim : -1]) / (2 * eps)
    np.testing.assert_allclose(gradients[-1], slope, rtol=1e-5, atol=1e-6)


# --- against formulas written down by hand ------------------------------------------------------


def test_a_mixture_has_its_closed_form():
    problem = describe(models.mixture, DATA)
    u = point(problem)
    c = {n: np.asarray(v) for n, v in problem.constrain(u).items()}
    terms = np.log(c["w"]) + stats.norm.logpdf(Y[:, None], c["mu"])
    np.testing.assert_allclose(problem.log_likelihood(u)["y"], logsumexp(terms, axis=1), rtol=1e-12)
    found = problem.discrete_marginals(u)["z"]
    assert found.shape == (6, 3)
    np.testing.assert_allclose(found, np.exp(terms - logsumexp(terms, axis=1, keepdims=True)))


def forward_backward(log_initial, log_transition, log_emission):
    """Rabiner (1989), equations 20, 25 and 27."""
    forward, backward = [log_initial + log_emission[0]], [np.zeros(len(log_initial))]
    for emission in log_emission[1:]:
        forward.append(logsumexp(forward[-1][:, None] + log_transition, axis=0) + emission)
    for emission in log_emission[:0:-1]:
        backward.append(logsumexp(log_transition + emission + backward[-1], axis=1))
    both = np.array(forward) + np.array(backward[::-1])
    return logsumexp(forward[-1]), np.exp(both - logsumexp(both, axis=1, keepdims=True))


def test_a_long_chain_has_forward_backwards_answer():
    y = np.random.default_rng(2).normal(size=301)
    problem = describe(models.hmm, {"y": y})
    u = point(problem)
    c = {n: np.asarray(v) for n, v in problem.constrain(u).items()}
    emission = stats.norm.logpdf(y[:, None], c["mu"])
    log_evidence, marginals = forward_backward(np.log(c["A"][0]), np.log(c["A"]), emission)
    np.testing.assert_allclose(sites_of(problem, u)["sum over z"], log_evidence, rtol=1e-12)
    np.testing.assert_allclose(problem.discrete_marginals(u)["z"], marginals, atol=1e-10)


def test_the_masked_tail_of_a_sequence_counts_for_nothing():
    problem = describe(models.hmm_of_sequences, DATA)
    u = point(problem)
    c = {n: np.asarray(v) for n, v in problem.constrain(u).items()}
    total, each = 0.0, []
    for y in (Y[:4], Y[2:4]):
        emission = stats.norm.logpdf(y[:, None], c["mu"])
        one, _ = forward_backward(np.log(c["A"][0]), np.log(c["A"]), emission)
        total, each = total + one, [*each, one]
    np.testing.assert_allclose(sites_of(problem, u)["sum over z"], total, rtol=1e-12)
    np.testing.assert_allclose(problem.log_likelihood(u)["y"], each, rtol=1e-12)


def spike_and_slab(y):
    with numpyro.plate("effect", len(y)):
        slab = numpyro.sample("slab", dist.Bernoulli(0.3))
        beta = numpyro.sample("beta", dist.Normal(0, jnp.where(slab, 3.0, 0.1)))
        numpyro.deterministic("doubled", 2 * beta)
        numpyro.deterministic("state", slab + 1)
        numpyro.sample("y", dist.Normal(beta, 1.0), obs=y)


def test_a_prior_that_depends_on_a_discrete_latent_keeps_its_coordinates():
    problem = describe(spike_and_slab, DATA)
    assert problem.latents[0].centring is None
    u = point(problem)
    found = problem.constrain(u)
    assert set(found) == {"beta", "doubled"}
    assert "state" not in problem.program.deterministic
    assert any("'state' left out" in note for note in problem.program.notes)
    terms = np.log([0.7, 0.3]) + stats.norm.logpdf(u[:, None], 0, [0.1, 3.0])
    expected = logsumexp(terms, axis=1).sum() + stats.norm.logpdf(Y, u).sum()
    np.testing.assert_allclose(sum(sites_of(problem, u).values()), expected, rtol=1e-12)
    np.testing.assert_allclose(problem.log_likelihood(u)["y"], stats.norm.logpdf(Y, u))


def test_large_plates_are_summed_element_by_element():
    y = np.random.default_rng(0).normal(size=5000)
    problem = describe(models.mixture, {"y": y})
    assert problem.discrete[0].num_values == 3
    assert problem.discrete[0].size == 0
    assert problem.dim == 5
    assert Evaluator(problem).cost < 20 * len(y)


@pytest.mark.slow
def test_a_long_loop_shares_runs():
    """Colours: a chain of 40 latents needs as many runs of the model as one of three."""

    def model(y):
        A, z = models.transitions(2), 0
        for t in range(40):
            z = numpyro.sample(f"z{t}", dist.Categorical(A[z]))
            numpyro.sample(f"y{t}", dist.Normal(z, 1.0), obs=y[t])

    y = np.random.default_rng(0).normal(size=40)
    problem = describe(model, {"y": y})
    assert len(problem.program.enumeration.runs) == 4
    u = point(problem)
    A = np.asarray(problem.constrain(u)["A"])
    emission = stats.norm.logpdf(y[:, None], [0, 1])
    log_evidence, _ = forward_backward(np.log(A[0]), np.log(A), emission)
    total = next(v for n, v in sites_of(problem, u).items() if n.startswith("sum over"))
    np.testing.assert_allclose(total, log_evidence, rtol=1e-12)


def test_impossible_transitions_leave_finite_gradients():
    def model(y):
        mu = models.locations(3)
        logits = jnp.array([[0.0, 0.0, -jnp.inf], [-jnp.inf, 0.0, 0.0], [-jnp.inf, -jnp.inf, 0.0]])

        def step(previous, now):
            z = numpyro.sample("z", dist.Categorical(logits=logits[previous]))
            numpyro.sample("y", dist.Normal(mu[z], 1.0), obs=now)
            return z, None

        scan(step, 0, y)

    problem = describe(model, DATA)
    u = point(problem)
    values, gradients = Evaluator(problem).value_and_grad(u[None])
    assert np.isfinite(values).all()
    assert (gradients != 0).any(), "zero is where it is not finite"
    marginals = problem.discrete_marginals(u)["z"]
    assert np.isfinite(marginals).all()
    assert marginals[0, 2] == 0


# --- refused ------------------------------------------------------------------------------------


def poisson(y):
    models.locations()
    k = numpyro.sample("k", dist.Poisson(3.0))
    numpyro.sample("y", dist.Normal(k, 1), obs=y)


def many_neighbours(y):
    mu = models.locations(2)
    with numpyro.plate("n", 60):
        z = numpyro.sample("z", dist.Bernoulli(0.3))
        numpyro.sample("x", dist.Normal(mu[z[np.arange(60)[::-1]]], 1.0), obs=jnp.zeros(60))


def by_sum(y):
    mu = models.locations(1)
    with numpyro.plate("n", 60):
        z = numpyro.sample("z", dist.Bernoulli(0.3))
    numpyro.sample("y", dist.Normal(mu[0] + z.sum(), 1.0), obs=y)


def long_memory(y):
    mu = models.locations(2)

    def step(total, now):
        z = numpyro.sample("z", dist.Bernoulli(0.3))
        numpyro.sample("y", dist.Normal(mu[z] + total, 1.0), obs=now)
        return total + z, None

    scan(step, 0, jnp.zeros(60))


def crossed(y):
    mu = models.locations(2)
    with numpyro.plate("row", 20, dim=-2):
        a = numpyro.sample("a", dist.Bernoulli(0.3))
    with numpyro.plate("column", 30, dim=-1):
        b = numpyro.sample("b", dist.Bernoulli(0.3))
    numpyro.sample("x", dist.Normal(mu[0] * a + mu[1] * b, 1.0), obs=jnp.zeros((20, 30)))


def moving_support(y):
    z = numpyro.sample("z", dist.Bernoulli(0.3))
    high = numpyro.sample("high", dist.Uniform(0.0, 1.0 + z))
    numpyro.sample("y", dist.Normal(high, 1.0), obs=y)


def weighted(y):
    mu = models.locations(2)
    with numpyro.plate("n", 6), numpyro.handlers.scale(scale=2.0):
        z = numpyro.sample("z", dist.Bernoulli(0.3))
        numpyro.sample("y", dist.Normal(mu[z], 1.0), obs=y)


def too_many(y):
    mu = models.locations(2)
    with numpyro.plate("n", 3):
        z = numpyro.sample("z", dist.DiscreteUniform(0, 9999))
        numpyro.sample(
            "x", dist.Normal(mu[0] * z[:, None], 1.0).to_event(1), obs=jnp.zeros((3, 9999))
        )


def sets_a_shape(y):
    models.locations()
    n = numpyro.sample("n", dist.Bernoulli(0.5))
    numpyro.sample("y", dist.Normal(jnp.zeros(int(n)).sum(), 1), obs=y)


REFUSED = [
    (poisson, r"'k' \(Poisson\) has no finite list of values"),
    (many_neighbours, r"'z' of shape \(60,\).*the density of 'x' may mix its elements.*2\^60"),
    (by_sum, "the density of 'y' may mix its elements"),
    (long_memory, "the density of 'y' may mix its elements"),
    (crossed, "'a', 'b' depend on each other across different plates"),
    (moving_support, "the support of latent 'high' depends on the discrete 'z'"),
    (weighted, r"site 'z' is under handlers.scale|site 'y' is under handlers.scale"),
    (sets_a_shape, "needs the value of a latent"),
]


@pytest.mark.parametrize(("model", "match"), REFUSED, ids=[m.__name__ for m, _ in REFUSED])
def test_refused_with_a_reason(model, match):
    with pytest.raises(ModelError, match=match):
        describe(model, DATA)


def discrete_beside_an_unused(y):
    numpyro.sample("unused", dist.Normal(0.0, 1.0))
    z = numpyro.sample("z", dist.Bernoulli(0.3))
    with numpyro.plate("n", 3):
        w = numpyro.sample("w", dist.Categorical(jnp.array([0.2, 0.5, 0.3])))
        numpyro.sample("y", dist.Normal(2.0 * z + w, 1.0), obs=y)


def test_the_advice_for_models_without_continuous_latents_holds():
    """Beside a latent that nothing depends on: log evidence and probabilities by enumeration."""
    y = np.array([0.1, 2.0, 3.5])
    problem = describe(discrete_beside_an_unused, {"y": y})
    each = stats.norm.logpdf(y[:, None], 2.0 * np.arange(2)[:, None, None] + np.arange(3), 1.0)
    joint = logsumexp(each + np.log([0.2, 0.5, 0.3]), axis=-1).sum(-1) + np.log([0.7, 0.3])
    unused = stats.norm.logpdf(0.4)
    assert float(problem.log_joint(np.array([0.4]))) == pytest.approx(unused + logsumexp(joint))
    marginals = problem.discrete_marginals(np.array([0.4]))["z"]
    assert np.allclose(marginals, np.exp(joint - logsumexp(joint)))


def test_sums_that_do_not_fit_into_memory_are_refused_when_they_are_wanted():
    """Not by describe: factors of their own for the labels need no sum."""
    problem = describe(too_many, DATA)
    for wanted in (problem.log_joint, problem.log_joint_sites, problem.discrete_marginals):
        with pytest.raises(ModelError, match=r"needs tables of [0-9,]+ numbers"):
            wanted(np.zeros(problem.dim))


@pytest.mark.parametrize("model", [models.change_point, models.hmm], ids=["global", "chain"])
def test_dependent_data_have_no_pointwise_likelihood(model):
    problem = describe(model, DATA)
    with pytest.raises(ModelError, match=r"dependent through the discrete .* no pointwise"):
        problem.log_likelihood(point(problem))


def test_responses_that_share_a_latent_make_one_term():
    problem = describe(models.two_responses, DATA)
    found = problem.log_likelihood(point(problem))
    assert {n: v.shape for n, v in found.items()} == {"x+y": (6,)}


# --- what must not be taken for independent -----------------------------------------------------

READS = {
    "reversed": lambda z: z[::-1],
    "rolled": lambda z: jnp.roll(z, 1),
    "sorted": jnp.sort,
    "cumulative": jnp.cumsum,
    "strided": lambda z: jnp.repeat(z[::2], 2),
    "broadcast": lambda z: jnp.broadcast_to(z[2:3], (4,)),
    "ahead": lambda z: jnp.concatenate([z[1:], z[:1]]),
    "two back": lambda z: jnp.concatenate([jnp.zeros(2, int), z[:2]]),
    "by itself": lambda z: z[z],
    "gathered": lambda z: z[jnp.array([0, 1, 3, 3])],
    "matrix": lambda z: jnp.ones((4, 4)) @ z,
    "square": lambda z: (z[:, None] * z).sum(0),
    "transposed": lambda z: z.reshape(2, 2).T.ravel(),
    "by condition": lambda z: jnp.where(z[0] > 0, z, 1 - z),
    "set": lambda z: z.at[0].set(z[3]),
    "by lax.cond": lambda z: jax.lax.cond(z[1] > 0, lambda: z, lambda: 1 - z),
    "convolved": lambda z: jnp.convolve(z, jnp.array([1.0, 2.0]), mode="same"),
    "searched": lambda z: jnp.searchsorted(jnp.cumsum(z), jnp.arange(4)),
    "scanned": lambda z: jax.lax.scan(lambda c, x: (c + x, c), 0, z)[1],
    "scanned back": lambda z: jax.lax.scan(lambda c, x: (x, c + x), 0, z, reverse=True)[1],
    "mapped": lambda z: jax.lax.map(lambda i: z[i], jnp.arange(3, -1, -1)),
    "looped": lambda z: jax.lax.fori_loop(0, 3, lambda i, v: v.at[i].add(v[i + 1]), z),
    "associative": lambda z: jax.lax.associative_scan(jnp.add, z),
    "own place": lambda z: 2 * z[:, None].T[0] + jnp.stack([z, z], 1)[:, 0],
}


@pytest.mark.parametrize("read", READS.values(), ids=READS)
def test_any_way_to_read_a_latent_gives_the_sum_over_all_values(read):
    def model(y):
        mu = models.locations(2)
        with numpyro.plate("n", 4):
            z = numpyro.sample("z", dist.Bernoulli(jnp.array([0.3, 0.6, 0.2, 0.7])))
            scale = 1.0 + jnp.abs(read(z))
            numpyro.sample("x", dist.Normal(mu[z] + 0.7 * read(z), scale), obs=jnp.array(y[:4]))

    problem = describe(model, DATA)
    _, log_joint = every_value(problem, model)
    found = sum(sites_of(problem, point(problem)).values())
    np.testing.assert_allclose(found, logsumexp(log_joint), rtol=1e-12)


def test_a_square_of_indicators_may_be_read_across():
    def model(y):
        mu = models.locations(2)
        with numpyro.plate("row", 3, dim=-2), numpyro.plate("column", 3, dim=-1):
            chance = jnp.linspace(0.1, 0.9, 9).reshape(3, 3)
            z = numpyro.sample("z", dist.Bernoulli(chance))
            x = jnp.outer(y[:3], y[3:])
            numpyro.sample("x", dist.Normal(mu[z.T], 1.0), obs=x)

    problem = describe(model, DATA)
    assert len(problem.program.enumeration.runs) == 2
    _, log_joint = every_value(problem, model)
    found = sum(sites_of(problem, point(problem)).values())
    np.testing.assert_allclose(found, logsumexp(log_joint), rtol=1e-12)
