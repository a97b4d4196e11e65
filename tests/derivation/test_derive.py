"""Numbers and formulas of derivations, against closed forms and plain Monte Carlo."""

import derived_models as models
import jax
import numpy as np
import pytest
from scipy import stats
from scipy.special import digamma, gammaln

from taut import families
from taut._core.errors import ArgumentError, ModelError
from taut._core.precision import double_precision
from taut._core.progress import Watch
from taut.derivation import derivation_of, derive
from taut.expectation.gaussian import Gaussian
from taut.problem import Density, describe
from taut.solvers.ascent import ascend
from taut.solvers.structure import choose_layout

CASES = {
    "normal": (models.normal_normal, {"y": models.Y}),
    "poisson": (models.gamma_poisson, {"y": models.COUNTS}),
    "regression": (models.regression, models.regression_data()),
    "mixture": (models.mixture, models.mixture_data()),
    "logistic": (models.logistic, models.logistic_data()),
}


@pytest.fixture(scope="module")
def derived():
    """Name -> (problem, ascent, derivation), made when first asked for."""
    made: dict = {}

    def get(name):
        if name not in made:
            problem = describe(*CASES[name])
            with double_precision():
                layout = choose_layout(problem, None)
            with Watch(None, False, ()) as watch:
                ascent = ascend(problem, layout, 0, watch, tolerance=1e-10)
            made[name] = problem, ascent, derivation_of(problem, ascent, layout)
        return made[name]

    return get


def parameter(derivation, factor, at):
    (found,) = [f for f in derivation.factors if f.name == factor]
    return found.parameters[at]


# --- numbers --------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", CASES)
def test_elbo_is_expected_log_likelihood_minus_divergences(derived, name):
    _, ascent, d = derived(name)
    total = sum(d.expected_log_likelihood.values()) - sum(d.kl.values())
    assert total == pytest.approx(ascent.elbo, abs=1e-8)
    assert all(kl > 0 for kl in d.kl.values())


@pytest.mark.stat
@pytest.mark.parametrize("name", CASES)
def test_split_agrees_with_monte_carlo(derived, name):
    """Every site and the whole bound within 4 standard errors: false alarm below 1 in 500."""
    problem, ascent, d = derived(name)
    num = 20_000
    with double_precision():
        draws, log_q = {}, 0.0
        for key, (factor_name, q) in zip(
            jax.random.split(jax.random.key(1), len(ascent.q)), ascent.q.items(), strict=True
        ):
            drawn = q.sample(key, num)
            log_q = log_q + jax.vmap(q.log_prob)(drawn)
            draws |= drawn if isinstance(q, Gaussian) else {factor_name: drawn}
        own = frozenset(n for n, q in ascent.q.items() if not isinstance(q, Gaussian))

        def sites(values):
            arrays = {**problem.arrays, "centring": {}}
            return problem.program.densities(values, arrays, own, lambda *_: None)

        sampled = {n: np.asarray(v) for n, v in jax.jit(jax.vmap(sites))(draws).items()}
    for site in d.sites:
        _agrees(sampled[site.name], site.expected)
    _agrees(sum(sampled.values()) - np.asarray(log_q), d.elbo)


def _agrees(values, mean):
    error = values.std() / np.sqrt(len(values))
    assert abs(values.mean() - mean) <= 4 * error + 1e-9 * (1 + abs(mean))


@pytest.mark.parametrize("name", CASES)
def test_factors_are_at_their_updates(derived, name):
    *_, d = derived(name)
    assert d.status.ok
    assert d.residual < 1e-4


def test_normal_normal_in_closed_form(derived):
    *_, d = derived("normal")
    precision = parameter(d, "mu", 0)
    assert precision.messages["mu"].item() == pytest.approx(1 / 2.0**2)
    assert precision.messages["y"].item() == pytest.approx(4 / 0.7**2)
    pull = parameter(d, "mu", 1)
    assert pull.messages["mu"].item() == pytest.approx(0.5 / 2.0**2)
    assert pull.messages["y"].item() == pytest.approx(models.Y.sum() / 0.7**2)
    marginal = 0.7**2 * np.eye(4) + 2.0**2
    evidence = stats.multivariate_normal(np.full(4, 0.5), marginal).logpdf(models.Y)
    assert d.elbo == pytest.approx(evidence, abs=1e-8)
    variance = 1 / precision.value.item()
    mean = variance * pull.value.item()
    kl = 0.5 * ((variance + (mean - 0.5) ** 2) / 4 - 1 - np.log(variance / 4))
    assert d.kl["mu"] == pytest.approx(kl, abs=1e-8)


def test_gamma_poisson_in_closed_form(derived):
    *_, d = derived("poisson")
    a, b = parameter(d, "rate", 0), parameter(d, "rate", 1)
    assert a.rule.text == "1 + dF/dE[log rate]"
    assert b.rule.text == "-dF/dE[rate]"
    assert [p.text for p in a.written] == ["1", "+ 1", "+ 10"]
    assert [p.text for p in b.written] == ["1.5", "+ 5"]
    assert (a.value.item(), b.value.item()) == pytest.approx((12.0, 6.5))
    assert {k: v.item() for k, v in a.messages.items()} == pytest.approx({"rate": 1.0, "y": 10.0})
    kl = 10 * digamma(12) - gammaln(12) + gammaln(2) + 2 * np.log(6.5 / 1.5) + 12 * (1.5 / 6.5 - 1)
    assert d.kl["rate"] == pytest.approx(kl, abs=1e-8)


def test_regression_updates_are_the_textbook_ones(derived):
    *_, d = derived("regression")
    data = models.regression_data()
    a, b = parameter(d, "tau", 0), parameter(d, "tau", 1)
    precision, pull = parameter(d, "w", 0), parameter(d, "w", 1)
    tau = a.value / b.value
    want = np.eye(2) / 2.0**2 + tau * data["x"].T @ data["x"]
    np.testing.assert_allclose(precision.value[0], want, rtol=1e-4)
    np.testing.assert_allclose(precision.messages["w"][0], np.eye(2) / 4, atol=1e-12)
    covariance = np.linalg.inv(precision.value[0])
    mean = covariance @ pull.value[0]
    away = np.sum((data["y"] - data["x"] @ mean) ** 2)
    square = away + np.trace(data["x"].T @ data["x"] @ covariance)
    assert a.value.item() == pytest.approx(2 + 12 / 2)
    assert b.messages["y"].item() == pytest.approx(square / 2, rel=1e-9)
    assert "V^-1[w_i, w_i] += 0.25" in [w.text for w in precision.written]


def test_mixture_updates(derived):
    _, ascent, d = derived("mixture")
    alpha, log_r = parameter(d, "pi", 0), parameter(d, "z", 0)
    counts = np.asarray(ascent.q["z"].probs).sum(axis=0)
    np.testing.assert_allclose(alpha.value, 1.5 + counts, rtol=1e-6)
    np.testing.assert_allclose(np.exp(log_r.value), ascent.q["z"].probs, rtol=1e-9)
    np.testing.assert_allclose(np.exp(log_r.optimum), ascent.q["z"].probs, atol=1e-4)
    assert d.factorisation.text == "q(pi, mu, z) = q(pi) prod_j q(mu_j) prod_k q(z_k)"


def test_joint_factor_of_a_gaussian_model_reaches_the_evidence():
    y = np.array([0.3, 1.2, 2.1])
    joint = derive(models.groups, {"y": y}, family=[("mu", "a")])
    apart = derive(models.groups, {"y": y}, family=families.Block("latent"))
    marginal = (0.5**2 + 1.0) * np.eye(3) + 3.0**2
    evidence = stats.multivariate_normal(np.zeros(3), marginal).logpdf(y)
    assert joint.elbo == pytest.approx(evidence, abs=1e-8)
    assert apart.elbo < evidence - 0.01
    assert len(apart.factors) == 2


def test_normal_gamma_in_closed_form():
    """Murphy (2007), section 3.5: the joint factor is the posterior, so the ELBO the evidence."""
    d = derive(models.normal_gamma, {"y": models.Y})
    n, centre = len(models.Y), models.Y.mean()
    kappa, a = 0.4 + n, 2.0 + n / 2
    pull = 0.4 * n / kappa * (centre - 0.5) ** 2
    b = 1.5 + 0.5 * (np.sum((models.Y - centre) ** 2) + pull)
    (factor,) = d.factors
    values = [p.value.item() for p in factor.parameters]
    assert values == pytest.approx([kappa, 0.2 + n * centre, a, b])
    assert d.residual < 1e-10
    evidence = gammaln(a) - gammaln(2.0) + 2 * np.log(1.5) - a * np.log(b)
    evidence += 0.5 * np.log(0.4 / kappa) - 0.5 * n * np.log(2 * np.pi)
    assert d.elbo == pytest.approx(evidence, abs=1e-8)


# --- what is refused ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"family": "dense"}, "family must be None"),
        ({"family": [("mu", "nobody")]}, "each once"),
        ({"family": [("mu",), ("mu",)]}, "each once"),
        ({"seed": -1}, "seed must be"),
    ],
)
def test_bad_arguments(options, words):
    with pytest.raises(ArgumentError, match=words):
        derive(models.normal_normal, {"y": models.Y}, **options)


def test_density_has_no_sites():
    density = Density(lambda latents: -0.5 * latents["x"] ** 2, {"x": ()})
    with pytest.raises(ModelError, match="has none"):
        derive(density)
