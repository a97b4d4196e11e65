"""Labels of many rows: summed out a few rows at a time, or not at all, and never refused too soon."""

import jax
import numpy as np
import pytest
from scipy import stats
from scipy.special import logsumexp

from marking import slow_but
from solvers import minibatch_models as models
from taut._core.errors import ModelError
from taut._core.precision import double_precision
from taut._core.progress import Watch
from taut.attempt import Attempt
from taut.families import MeanField
from taut.plan import make_plan
from taut.problem import describe, elimination
from taut.problem.evaluator import Evaluator
from taut.solvers import row_chunks
from taut.solvers.row_chunks import in_memory


@pytest.fixture
def small_memory(monkeypatch):
    """Sums of 100 numbers are large, and those of 1,000 do not fit."""
    monkeypatch.setattr(row_chunks, "LARGE", 100)
    monkeypatch.setattr(row_chunks, "ROOM", 64)
    monkeypatch.setattr(elimination, "MAX_NUMBERS", 1000)


def centred(model, data):
    problem = describe(model, data)
    ones = {s.name: np.ones(s.centring) for s in problem.latents if s.centring is not None}
    return problem.with_centring(ones)


def random_point(problem, seed=0):
    return 0.5 * np.random.default_rng(seed).standard_normal(problem.dim)


def log_joint_of_mixture(problem, u, y):
    """Of ``mixture_of_known_spread``, written out: two dimensions, three components."""
    mu = np.asarray(problem.constrain(u)["mu"])
    prior = stats.norm.logpdf(mu, 0.0, 5.0).sum()
    each = stats.norm.logpdf(y[:, None], mu, 1.0).sum(-1) + np.log([0.5, 0.3, 0.2])
    return prior + logsumexp(each, axis=1).sum()


@pytest.mark.parametrize("num", [401, 402])
def test_a_sum_too_large_for_memory_is_made_in_chunks(num, small_memory):
    """A chunk leaves a rest or none; 401 is prime. The log joint is written out with logsumexp."""
    data = models.make_points(num)
    problem = centred(models.mixture_of_known_spread, data)
    u = random_point(problem)
    with pytest.raises(ModelError, match=r"needs tables of [0-9,]+ numbers .* a few at a time"):
        problem.log_joint(u)
    chunked = in_memory(problem)
    # A standard normal in units of the prior has the density of mu times the units' volume.
    truth = log_joint_of_mixture(chunked, u, data["y"])
    assert float(chunked.log_joint(u)) == pytest.approx(truth, rel=1e-10)


LABELLED = {
    "mixture": (models.mixture, models.make_points(411)),
    "topics": (models.topics, models.make_words(23)),
    "topics across": (models.topics_across, models.make_words(25)),
}


@pytest.mark.parametrize("name", slow_but(LABELLED, "mixture"))
def test_chunks_change_nothing(name, monkeypatch):
    """Sites, gradients, probabilities and best values against the same at once; LDA has local theta."""
    model, data = LABELLED[name]
    problem = centred(model, data)
    monkeypatch.setattr(row_chunks, "LARGE", 1)
    monkeypatch.setattr(row_chunks, "ROOM", problem.program.width // 5 if problem.prepared else 0)
    chunked, u = in_memory(problem), random_point(problem)
    assert chunked.prepared
    assert chunked.program.width < problem.program.width
    expected, found = problem.log_joint_sites(u), chunked.log_joint_sites(u)
    assert set(found) == set(expected)
    assert all(float(found[n]) == pytest.approx(float(expected[n]), rel=1e-11) for n in found)
    a, b = (Evaluator(p).value_and_grad(u[None])[1][0] for p in (problem, chunked))
    assert np.allclose(a, b, rtol=1e-9, atol=1e-11)
    for one, other in (
        (problem.discrete_marginals(u), chunked.discrete_marginals(u)),
        (problem.discrete_mode(u), chunked.discrete_mode(u)),
    ):
        assert {n: v.shape for n, v in one.items()} == {n: v.shape for n, v in other.items()}
        assert all(np.allclose(one[n], other[n], atol=1e-12) for n in one)


@pytest.mark.stat
def test_draws_of_labels_by_chunks_have_their_probabilities(monkeypatch):
    """2,000 draws of 60 labels: every frequency within five standard errors.

    False alarms: 180 comparisons at 6e-7 each, below 1e-3 in all; fixed seeds.
    """
    problem = centred(models.mixture_of_known_spread, models.make_points(60))
    monkeypatch.setattr(row_chunks, "LARGE", 1)
    monkeypatch.setattr(row_chunks, "ROOM", 30)
    chunked, u = in_memory(problem), random_point(problem)
    probabilities = np.asarray(problem.discrete_marginals(u)["z"])
    with double_precision():
        draw = jax.jit(jax.vmap(chunked.program.enumeration.draw, (0, None, None)))
        labels = np.asarray(draw(jax.random.split(jax.random.key(0), 2000), u, chunked.arrays)["z"])
    shares = np.mean(labels[..., None] == np.arange(3), axis=0)
    error = np.sqrt(probabilities * (1.0 - probabilities) / 2000) + 1e-3
    assert np.all(np.abs(shares - probabilities) < 5.0 * error)


def test_factors_of_their_own_need_no_sum(small_memory):
    """A mixture whose sum is refused is fitted as a mean field, to the same bound as if it were not."""
    data = models.make_points(421)
    problem = describe(models.mixture, data)
    with Watch(None, False, ()) as watch:
        plan = make_plan(problem, MeanField())
        found = Attempt.make(problem, plan, 0, watch)
    labels = found.solution.factors.q["z"].probs
    distance = np.linalg.norm(data["y"][:, None] - models.CENTRES, axis=2)
    pairs = set(zip(np.argmax(labels, -1).tolist(), distance.argmin(1).tolist(), strict=True))
    assert len(pairs) < 6  # one for each component, and a few points between two
    drawn = found.solution.q.sample(np.random.default_rng(0), 64)
    weights = found.evaluator.value(drawn) - found.solution.q.log_prob(drawn)
    assert np.isfinite(weights).all()
    assert weights.mean() > found.solution.elbo  # labels summed out leave a tighter bound


def test_sums_without_rows_are_refused_where_they_are_wanted(small_memory):
    """A chain of labels has no rows; the plan's factors need no sum, the certificate does."""
    import numpyro
    import numpyro.distributions as dist

    def joined(y):
        mu = numpyro.sample("mu", dist.Normal(0.0, 1.0))
        with numpyro.plate("labels", 3):
            z = numpyro.sample("z", dist.DiscreteUniform(0, 999))
            numpyro.sample("y", dist.Normal(mu * z, 1.0), obs=y)

    problem = describe(joined, {"y": np.ones(3)})
    with pytest.raises(ModelError, match=r"needs tables of"):
        Evaluator(in_memory(problem)).value(np.zeros((1, 1)))
