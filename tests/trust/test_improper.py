"""Posteriors that cannot be normalised are refused; directions that data leave open are named."""

import re

import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from numpyro.distributions import constraints

import taut
from targets import line_data, many_predictors
from taut._core.errors import ImproperPosteriorError
from taut._core.progress import Watch
from taut.plan import make_plan
from taut.problem import describe
from taut.problem.evaluator import Evaluator
from taut.solvers.start import find_start
from taut.trust import improper

REAL = dist.ImproperUniform(constraints.real, (), ())
POSITIVE = dist.ImproperUniform(constraints.positive, (), ())
Y = line_data()["y"]


def fit(model, data):
    return taut.fit(model, data, progress=False)


def checked(model, data=None, seed=0):
    """Start, solve and look for improperness and unidentified directions; no certificate."""
    problem = describe(model, data)
    evaluator, plan, watch = Evaluator(problem), make_plan(problem), Watch(budget=60.0)
    start = find_start(evaluator, watch, seed)
    solution = plan.solver.solve(evaluator, plan.family, start, seed, watch)
    return improper.check(evaluator, start, solution.q)


# --- refused ----------------------------------------------------------------------------------


def flat_unused(y):
    numpyro.sample("idle", REAL)
    numpyro.sample("y", dist.Normal(numpyro.sample("m", dist.Normal(0, 1)), 1), obs=y)


def flat_positive_unused(y):
    numpyro.sample("idle", POSITIVE)
    numpyro.sample("y", dist.Normal(numpyro.sample("m", dist.Normal(0, 1)), 1), obs=y)


def rising_line(y):
    numpyro.factor("f", numpyro.sample("a", REAL))


def rising_quartic(y):
    numpyro.factor("f", numpyro.sample("a", dist.Normal(0, 1)) ** 4)


def rising_exponential(y):
    numpyro.factor("f", jnp.exp(numpyro.sample("a", dist.Normal(0, 1)) ** 2))


def rising_density(latents):
    return jnp.sum(latents["a"] ** 2)


def one_value_two_unknowns(y):
    numpyro.sample(
        "y", dist.Normal(numpyro.sample("m", REAL), numpyro.sample("s", POSITIVE)), obs=y
    )


def separable(y):
    x = jnp.array([-2.0, -1.0, 1.0, 2.0])
    numpyro.sample("y", dist.Bernoulli(logits=numpyro.sample("b", REAL) * x), obs=y)


@pytest.mark.parametrize(
    ("model", "data", "match"),
    [
        (flat_unused, {"y": Y}, "along the direction of idle.*proper prior"),
        (flat_positive_unused, {"y": Y}, "along the direction of idle.*proper prior"),
        (rising_line, {"y": Y}, "along the direction of a"),
        (
            rising_quartic,
            {"y": Y},
            "rises without bound along the direction of a.*signs of factors",
        ),
        (rising_exponential, {"y": Y}, "rises without bound along the direction of a"),
        (taut.Density(rising_density, {"a": ()}), None, "along the direction of a"),
        (one_value_two_unknowns, {"y": Y[:1]}, "along the direction of"),
        (
            one_value_two_unknowns,
            {"y": np.ones(5)},
            "onto one value of m.*scale can shrink to zero",
        ),
        (separable, {"y": np.array([0, 0, 1, 1])}, "along the direction of b"),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_posteriors_that_cannot_be_normalised(model, data, match):
    with (
        np.errstate(all="ignore"),
        pytest.raises(ImproperPosteriorError, match="cannot be normalised: .*" + match),
    ):
        fit(model, data)


# --- directions -------------------------------------------------------------------------------


def predictors(kind):
    rng = np.random.default_rng(8)
    x = rng.normal(size=(30, 3))
    if kind == "collinear":
        x[:, 2] = 2 * x[:, 0]
    if kind == "constant":
        x[:, 1] = 3.0
    return {"x": x, "y": 1 + x[:, 0] + 0.5 * rng.normal(size=30)}


DIRECTIONS = {
    "collinear": r"[+-]0\.89 b\[0\] [+-]0\.45 b\[2\]",  # 2 b[0] - b[2], normalised
    "constant": r"[+-]0\.95 a [+-]0\.32 b\[1\]",  # 3 a - b[1]
}


@pytest.mark.parametrize("kind", DIRECTIONS)
def test_flat_priors_and_predictors_that_say_the_same(kind):
    with pytest.raises(ImproperPosteriorError, match=DIRECTIONS[kind]):
        fit(many_predictors, {**predictors(kind), "flat": True})


@pytest.mark.parametrize("kind", DIRECTIONS)
def test_proper_priors_and_predictors_that_say_the_same(kind):
    """The fit works; a note names the direction; what the data do say is right."""
    data = predictors(kind)
    posterior = fit(many_predictors, data)
    assert posterior.trust.verdict != "bad"
    (note,) = [n for n in posterior.trust.notes if "do not identify" in n]
    assert pytest.approx(1.0, abs=0.4) == float(identified(kind, posterior.mean))
    assert note.endswith("only the prior does. Look for collinear or constant predictors")
    assert re.search(DIRECTIONS[kind], note)


def identified(kind, mean):
    """The slope, or the intercept, that the data do identify; both are 1 in truth."""
    a, b = mean["a"], mean["b"]
    return b[0] + 2 * b[2] if kind == "collinear" else a + 3 * b[1]


@pytest.mark.parametrize("flat", [False, True])
def test_nothing_is_said_of_good_predictors(flat):
    posterior = fit(many_predictors, {**predictors("good"), "flat": flat})
    assert posterior.trust.notes == ()


def test_a_latent_that_the_data_say_nothing_of_is_noted():
    def model(g, y):
        with numpyro.plate("group", 3):
            m = numpyro.sample("m", dist.Normal(0, 1))
        numpyro.sample("y", dist.Normal(m[g], 1), obs=y)

    posterior = fit(model, {"g": np.array([0, 0, 2]), "y": np.array([0.3, 0.4, -1.0])})
    assert posterior.trust.notes == (
        "the data say nothing of 'm[1]': the posterior is the prior there",
    )


# --- not refused ------------------------------------------------------------------------------


def flat_normal(y):
    m, s = numpyro.sample("m", REAL), numpyro.sample("s", POSITIVE)
    numpyro.sample("y", dist.Normal(m, s), obs=y)


def vague_precision(y):
    p = numpyro.sample("p", dist.Gamma(1e-3, 1e-3))
    numpyro.sample("y", dist.Normal(numpyro.sample("m", dist.Normal(0, 1e3)), p**-0.5), obs=y)


def heavy_and_idle(y):
    numpyro.sample("c", dist.Cauchy(0, 1))
    numpyro.sample("h", dist.HalfCauchy(5))
    numpyro.sample("g", dist.Gamma(0.01, 0.01))
    numpyro.sample("y", dist.Normal(numpyro.sample("m", dist.Normal(0, 1)), 1), obs=y)


def wide_bounds(y):
    m, s = numpyro.sample("m", dist.Uniform(-1e6, 1e6)), numpyro.sample("s", dist.Uniform(0, 100))
    numpyro.sample("y", dist.Normal(m, s), obs=y)


def horseshoe(y):
    tau = numpyro.sample("tau", dist.HalfCauchy(1))
    lam = numpyro.sample("lam", dist.HalfCauchy(jnp.ones(3)).to_event(1))
    b = numpyro.sample("b", dist.Normal(0, lam * tau).to_event(1))
    numpyro.sample("y", dist.Normal(predictors("good")["x"] @ b, 1.0), obs=y)


def separable_with_prior(y):
    x = jnp.array([-2.0, -1.0, 1.0, 2.0])
    b = numpyro.sample("b", dist.Normal(0, 100))
    numpyro.sample("y", dist.Bernoulli(logits=b * x), obs=(y[:4] > y[:4].mean()).astype(int))


def rare_tail(latents):
    return -0.75 * jnp.log1p(latents["x"] ** 2)  # Student-t of half a degree of freedom


def distant_modes(latents):
    return jnp.logaddexp(-0.5 * latents["x"] ** 2, -0.5 * (latents["x"] - 30.0) ** 2)


def hierarchy_with_a_neck(latents):
    """Centred, so that the density rises without bound into the neck, whose volume is finite."""
    log_tau, mu, theta = latents["log_tau"], latents["mu"], latents["theta"]
    groups = -0.5 * jnp.sum(((theta - mu) / jnp.exp(log_tau)) ** 2) - 8 * log_tau
    data = -0.5 * jnp.sum(((theta - jnp.arange(8.0)) / 10) ** 2)
    return groups + data - 0.5 * (mu / 5) ** 2 + log_tau - jnp.log1p(jnp.exp(2 * log_tau) / 25)


def density(log_density, **shapes):
    return lambda: (taut.Density(log_density, shapes), None)


PROPER = {
    "values of 1e12": lambda: (flat_normal, {"y": 1e12 * (3 + Y)}),
    "values of 1e-9": lambda: (flat_normal, {"y": 1e-9 * Y}),
    "three values": lambda: (flat_normal, {"y": Y[:3]}),  # the mean's marginal is a Cauchy
    "vague precision": lambda: (vague_precision, {"y": Y}),
    "heavy and idle": lambda: (heavy_and_idle, {"y": Y}),
    "wide bounds": lambda: (wide_bounds, {"y": Y}),
    "horseshoe": lambda: (horseshoe, {"y": Y}),
    "separable with a prior": lambda: (separable_with_prior, {"y": Y}),
    "rare tail": density(rare_tail, x=()),
    "distant modes": density(distant_modes, x=()),
    "neck": density(hierarchy_with_a_neck, log_tau=(), mu=(), theta=(8,)),
}


@pytest.mark.parametrize("name", PROPER)
def test_hard_but_proper_posteriors_raise_no_false_alarm(name):
    with np.errstate(all="ignore"):
        assert [checked(*PROPER[name](), seed=seed) for seed in (0, 1, 2)] == [()] * 3


# Badly scaled, heavy-tailed, curved, flat priors: all proper, and identified by their data.
REFERENCES = [
    "analytic-banana",
    "analytic-funnel10",
    "analytic-student3",
    "analytic-two_modes",
    "arK-arK",
    "earnings-logearn_height_male",
    "eight_schools-eight_schools_centered",
    "eight_schools-eight_schools_noncentered",
    "garch-garch11",
    "gym-german_logistic",
    "kidiq_with_mom_work-kidscore_interaction_z",
    "kilpisjarvi_mod-kilpisjarvi",
    "low_dim_gauss_mix-low_dim_gauss_mix",
    "mesquite-logmesquite",
    "nes1972-nes",
    "sblrc-blr",
    "seeds_data-seeds_stanified_model",
    "wells_data-wells_dae_inter_model",
]


@pytest.mark.parametrize("name", REFERENCES)
def test_reference_posteriors_raise_no_false_alarm(shared, name, monkeypatch):
    monkeypatch.syspath_prepend(shared / "posteriors")
    case = pytest.importorskip("benchlib").load(name)
    with np.errstate(all="ignore"):
        assert checked(case.model, {"data": case.data}) == ()
