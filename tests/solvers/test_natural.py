"""The natural solver: exact where models are conjugate, equal to drawn solvers where not."""

import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest

import taut
from taut._core.errors import ArgumentError
from taut._core.precision import double_precision
from taut._core.progress import Watch
from taut.expectation.folding import folded, read
from taut.families import Dense, MeanField
from taut.problem import describe
from taut.problem.evaluator import Evaluator
from taut.solvers import FixedDraws, Natural
from taut.solvers.start import find_start
from textbook.books import TRUTHS

RNG = np.random.default_rng(8)
N, GROUPS = 400, 12
X, GROUP = RNG.standard_normal(N), RNG.integers(0, GROUPS, N)
Y = RNG.standard_normal(GROUPS)[GROUP] + 0.5 * X + 0.7 * RNG.standard_normal(N)


def hierarchical(x, group, y):
    mu = numpyro.sample("mu", dist.Normal(0.0, 5.0))
    b = numpyro.sample("b", dist.Normal(0.0, 5.0))
    tau = numpyro.sample("tau", dist.HalfNormal(2.0))
    sigma = numpyro.sample("sigma", dist.HalfNormal(2.0))
    with numpyro.plate("groups", GROUPS):
        a = numpyro.sample("a", dist.Normal(mu, tau))
    with numpyro.plate("rows", len(x)):
        numpyro.sample("y", dist.Normal(a[group] + b * x, sigma), obs=y)


def logistic(x, y):
    w = numpyro.sample("w", dist.Normal(0.0, 2.0).expand([2]).to_event(1))
    numpyro.sample("y", dist.Bernoulli(logits=w[0] + w[1] * x), obs=y)


HIERARCHICAL = {"x": X, "group": GROUP, "y": Y}
LOGISTIC = {"x": X, "y": (Y > 0.3).astype(float)}
MODELS = {"hierarchical": (hierarchical, HIERARCHICAL), "logistic": (logistic, LOGISTIC)}


def quiet():
    return Watch(None, False, ())


@pytest.mark.parametrize(
    "truth", [t for t in TRUTHS if t.name != "normal-Wishart"], ids=lambda t: t.name
)
def test_conjugate_models_are_exact(truth):
    """The bound equals the log evidence to 1e-8; nothing is random."""
    posterior = taut.fit(truth.model, truth.data, progress=False)
    assert abs(posterior.elbo - truth.log_evidence) < 1e-8
    assert posterior.trust.verdict == "good"


@pytest.mark.parametrize("case", MODELS.values(), ids=MODELS)
def test_the_elbo_is_that_of_draws_and_never_falls(case):
    """At the natural solver's end, 2^14 Sobol draws give its ELBO to 5 standard errors (1e-6)."""
    problem = describe(*case)
    evaluator = Evaluator(problem)
    with quiet() as watch:
        start = find_start(evaluator, watch, 0)
        found = Natural().solve(evaluator, Dense(), start, 0, watch)
        drawn = FixedDraws().solve(evaluator, Dense(), start, 0, watch)
    assert found.status.ok
    assert np.all(np.diff(found.history) >= -1e-9)
    points = found.q.sample(np.random.default_rng(1), 2**14)
    ratio = evaluator.value(points) - found.q.log_prob(points)
    assert abs(ratio.mean() - found.elbo) < 5.0 * ratio.std() / 2**7
    assert found.elbo > drawn.elbo - 0.05
    assert np.allclose(found.q.mean, drawn.q.mean, atol=0.1 * found.q.sd.max())


def test_a_folded_problem_is_the_same_problem():
    """Log joint and gradient to 1e-10 relative, at random points, in both coordinates."""
    problem = describe(hierarchical, HIERARCHICAL)
    points = RNG.standard_normal((16, problem.dim))
    for centring in (0.0, 1.0):
        plain = problem.with_centring(
            {
                s.name: np.full(s.centring, centring)
                for s in problem.latents
                if s.centring is not None
            }
        )
        small = folded(plain)
        assert small.program is not plain.program
        largest = max(
            np.size(a) for c in small.arrays["folded"].values() for t in c.terms for o in t.operands
            for a in [o.array]
        )  # fmt: skip
        assert largest <= GROUPS
        for a, b in zip(
            Evaluator(plain).value_and_grad(points),
            Evaluator(small).value_and_grad(points),
            strict=True,
        ):
            assert np.allclose(a, b, rtol=1e-10, atol=1e-8)


def test_recentring_refolds():
    small = folded(describe(hierarchical, HIERARCHICAL))
    moved = small.with_centring({"a": np.ones(GROUPS)})
    whole = describe(hierarchical, HIERARCHICAL).with_centring({"a": np.ones(GROUPS)})
    point = RNG.standard_normal(small.dim)
    assert np.isclose(float(moved.log_joint(point)), float(whole.log_joint(point)), rtol=1e-12)
    partial = small.with_centring({"a": np.full(GROUPS, 0.5)})
    assert read(partial).reason


def test_new_data_of_the_same_shape_compile_nothing():
    problem = describe(hierarchical, HIERARCHICAL)
    other = describe(hierarchical, {**HIERARCHICAL, "y": Y + 1.0})
    assert problem.program is other.program
    with double_precision():
        reading = read(problem)
        reading.fold(problem.arrays)
        size = reading.fold._cache_size()
        reading.fold(other.arrays)
        assert reading.fold._cache_size() == size


def test_labels_get_responsibilities_and_the_elbo_stays_below_the_evidence():
    """Two well separated clusters: the mean field is nearly exact, its labels are certain."""
    rng = np.random.default_rng(2)
    y = np.where(rng.random(60) < 0.4, -4.0, 4.0) + rng.standard_normal(60)

    def mixture(y):
        p = numpyro.sample("p", dist.Dirichlet(jnp.ones(2)))
        with numpyro.plate("components", 2):
            mu = numpyro.sample("mu", dist.Normal(0.0, 5.0))
        with numpyro.plate("rows", len(y)):
            z = numpyro.sample("z", dist.Categorical(p))
            numpyro.sample("y", dist.Normal(mu[z], 1.0), obs=y)

    posterior = taut.fit(mixture, {"y": y}, family=MeanField(), progress=False)
    labels = posterior.assignments["z"]
    assert len({(bool(v > 0), int(k)) for v, k in zip(y, labels, strict=True)}) == 2
    assert np.sort(posterior.mean["mu"]) == pytest.approx(
        [y[y < 0].mean(), y[y > 0].mean()], abs=0.05
    )
    assert posterior.elbo < posterior.evidence.estimate + 3.0 * posterior.evidence.estimate_error


def test_a_free_form_factor_is_the_exact_posterior_of_a_single_latent():
    """q(s) is proportional to the joint; its mean is that of quadrature to 1e-4."""
    y = np.array([0.3, -1.2, 2.1, 0.4])

    def scale(y):
        s = numpyro.sample("s", dist.HalfCauchy(1.0))
        numpyro.sample("y", dist.Normal(0.0, s), obs=y)

    posterior = taut.fit(scale, {"y": y}, family=MeanField(free_form=("s",)), progress=False)
    s = np.exp(np.linspace(-6.0, 6.0, 40001))
    log = -4.0 * np.log(s) - 0.5 * np.sum(y**2) / s**2 - np.log1p(s**2)
    weight = np.exp(log - log.max()) * s
    constant = log.max() + np.log(2.0 / np.pi) - 2.0 * np.log(2.0 * np.pi)
    evidence = constant + np.log(weight.sum() * np.log(s[1] / s[0]))
    assert posterior.elbo == pytest.approx(evidence, abs=1e-6)
    assert posterior.trust.verdict == "good"
    truth = float((weight * s).sum() / weight.sum())
    assert posterior.mean["s"] == pytest.approx(truth, rel=0.05)


def test_refusals_name_what_can_be_done():
    with pytest.raises(ArgumentError, match="no continuous latent; they are"):
        taut.fit(logistic, LOGISTIC, family=MeanField(free_form=("v",)), progress=False)
    with pytest.raises(ArgumentError, match="FixedDraws"):
        taut.fit(
            lambda: numpyro.sample("x", dist.StudentT(3.0, jnp.zeros(2), 1.0).to_event(1)),
            solver=Natural(), family=taut.families.Diagonal(), progress=False,
        )  # fmt: skip
