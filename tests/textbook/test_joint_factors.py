"""Normal-gamma and normal-Wishart factors: the exact posterior and its evidence, however written.

The truth is SciPy's multivariate Student t: the marginal of rows with a normal-gamma prior, and,
row by row, the predictive of a normal-Wishart prior (Murphy 2007, eqs. 110 and 232). Nothing here
is random but the data, which have fixed seeds: no test can fail by chance.
"""

import functools

import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from scipy import stats

import taut
from taut._core.precision import double_precision
from taut._core.progress import Watch
from taut.expectation.gaussian import Scaled
from taut.problem import describe
from taut.problem.evaluator import Evaluator
from taut.solvers.ascent import ascend, is_exact
from taut.solvers.mean_field import describe_factor, distribution_of
from taut.solvers.structure import choose_layout

K, D, KAPPA, DF = 3, 2, 0.4, 4.5
CENTRE, SCALE = np.array([0.5, -0.5]), np.array([[0.5, 0.1], [0.1, 0.4]])
KAPPAS = np.array([0.3, 0.5, 2.0])
G = np.repeat(np.arange(K), [6, 9, 4])
LEVEL = np.array([[-1.0, 0.5], [0.0, 2.0], [1.5, 1.0]])
Y = LEVEL[G] + np.random.default_rng(71).standard_normal((len(G), D)) * (0.5 + 0.4 * G[:, None])


def gamma_evidence(y, kappa=KAPPA, blocks=1):
    """Rows N(mu, 1 / tau) with mu ~ N(0.5, 1 / (kappa tau)), tau ~ Gamma(2, 1.5)."""
    n = len(y) // blocks
    shared = np.kron(np.eye(blocks), np.ones((n, n))) / kappa
    return stats.multivariate_t(
        np.full(len(y), 0.5), 1.5 / 2.0 * (np.eye(len(y)) + shared), df=4.0
    ).logpdf(y)


def wishart_evidence(y, kappa=KAPPA, centre=CENTRE, scale=SCALE):
    total, m, df, inverse = 0.0, np.array(centre, float), DF, np.linalg.inv(scale)
    for row in y:
        freedom, away = df - len(m) + 1.0, row - m
        shape = inverse * (kappa + 1.0) / (kappa * freedom)
        total += stats.multivariate_t(m, shape, df=freedom).logpdf(row)
        inverse = inverse + kappa / (kappa + 1.0) * np.outer(away, away)
        m, kappa, df = m + away / (kappa + 1.0), kappa + 1.0, df + 1.0
    return total


def by_group(evidence, **of_group):
    extra = [{n: v[k] for n, v in of_group.items()} for k in range(K)]
    return sum(evidence(Y[G == k], **extra[k]) for k in range(K))


# --- models ---------------------------------------------------------------------------------------


def scalars_of_groups(g, y):
    with numpyro.plate("groups", K):
        tau = numpyro.sample("tau", dist.Gamma(2.0, 1.5))
        mu = numpyro.sample("mu", dist.Normal(0.5, 1.0 / jnp.sqrt(KAPPA * tau)))
    with numpyro.plate("rows", len(y)):
        numpyro.sample("y", dist.Normal(mu[g], 1.0 / jnp.sqrt(tau[g])), obs=y[:, 0])


def elements_of_groups(g, y):
    with numpyro.plate("groups", K):
        tau = numpyro.sample("tau", dist.Gamma(2.0, 1.5).expand([D]).to_event(1))
        mu = numpyro.sample("mu", dist.Normal(0.5, 1.0 / jnp.sqrt(KAPPA * tau)).to_event(1))
    with numpyro.plate("rows", len(y)):
        numpyro.sample("y", dist.Normal(mu[g], 1.0 / jnp.sqrt(tau[g])).to_event(1), obs=y)


def vectors_of_groups(g, y):
    with numpyro.plate("groups", K):
        tau = numpyro.sample("tau", dist.Gamma(2.0, 1.5))
        sd = 1.0 / jnp.sqrt(tau)[:, None]
        prior = dist.Normal(0.5, sd / np.sqrt(KAPPA)).expand([K, D]).to_event(1)
        mu = numpyro.sample("mu", prior)
    with numpyro.plate("rows", len(y)):
        numpyro.sample("y", dist.Normal(mu[g], sd[g]).to_event(1), obs=y)


def two_means_of_one_precision(y):
    tau = numpyro.sample("tau", dist.Gamma(2.0, 1.5))
    sd = 1.0 / jnp.sqrt(tau)
    for at, name in enumerate("ab"):
        mean = numpyro.sample(name, dist.Normal(0.5, sd / np.sqrt(KAPPA)))
        numpyro.sample(f"of_{name}", dist.Normal(mean, sd).expand([len(y)]), obs=y[:, at])


def matrix(y):
    precision = numpyro.sample("precision", dist.Wishart(DF, scale_matrix=jnp.asarray(SCALE)))
    prior = dist.MultivariateNormal(jnp.asarray(CENTRE), precision_matrix=KAPPA * precision)
    mu = numpyro.sample("mu", prior)
    with numpyro.plate("rows", len(y)):
        numpyro.sample("y", dist.MultivariateNormal(mu, precision_matrix=precision), obs=y)


def matrices_of_groups(g, y):
    with numpyro.plate("groups", K):
        root = jnp.linalg.cholesky(jnp.asarray(SCALE))
        precision = numpyro.sample("precision", dist.Wishart(DF, scale_tril=root))
        of_mu = jnp.asarray(KAPPAS)[:, None, None] * precision
        prior = dist.MultivariateNormal(jnp.asarray(CENTRE), precision_matrix=of_mu)
        mu = numpyro.sample("mu", prior)
    with numpyro.plate("rows", len(y)):
        numpyro.sample("y", dist.MultivariateNormal(mu[g], precision_matrix=precision[g]), obs=y)


def matrix_of_size_one(y):
    rate = jnp.full((1, 1), 2.0)
    precision = numpyro.sample("precision", dist.Wishart(DF, rate_matrix=rate))
    prior = dist.MultivariateNormal(jnp.zeros(1), precision_matrix=KAPPA * precision)
    mu = numpyro.sample("mu", prior)
    with numpyro.plate("rows", len(y)):
        of_row = dist.MultivariateNormal(mu, precision_matrix=precision)
        numpyro.sample("y", of_row, obs=y[:, :1])


GAMMA, WISHART = "normal-gamma", "normal-Wishart"
EXACT = {
    scalars_of_groups: (
        f"{GAMMA} factors along their plates over mu and tau",
        by_group(lambda y: gamma_evidence(y[:, 0])),
    ),
    elements_of_groups: (
        f"{GAMMA} factors along their plates over mu and tau",
        by_group(lambda y: sum(gamma_evidence(y[:, d]) for d in range(D))),
    ),
    vectors_of_groups: (
        f"{GAMMA} factors along their plates over mu and tau",
        by_group(lambda y: gamma_evidence(y.T.ravel(), blocks=D)),
    ),
    two_means_of_one_precision: (
        f"{GAMMA} factor over a, b and tau",
        gamma_evidence(Y.T.ravel(), blocks=D),
    ),
    matrix: (f"{WISHART} factor over mu and precision", wishart_evidence(Y)),
    matrices_of_groups: (
        f"{WISHART} factors along their plates over mu and precision",
        by_group(wishart_evidence, kappa=KAPPAS),
    ),
    matrix_of_size_one: (
        f"{WISHART} factor over mu and precision",
        wishart_evidence(Y[:, :1], centre=np.zeros(1), scale=np.full((1, 1), 0.5)),
    ),
}


def data_of(model):
    return {"g": G, "y": Y} if "g" in model.__code__.co_varnames[:2] else {"y": Y}


@functools.cache
def fitted(model):
    problem = describe(model, data_of(model))
    with double_precision():
        layout = choose_layout(problem, None)
        with Watch(None, False, ()) as watch:
            return problem, layout, ascend(problem, layout, 0, watch)


@pytest.mark.parametrize("model", EXACT, ids=lambda m: m.__name__)
def test_the_bound_is_the_evidence(model):
    words, evidence = EXACT[model]
    problem, layout, ascent = fitted(model)
    assert {describe_factor(n, layout) for n, _ in layout.kinds} == {f"{words}, conjugate"}
    assert is_exact(problem, layout)
    assert abs(ascent.elbo - evidence) < 1e-8


EVERY_LAYOUT = [
    elements_of_groups,
    vectors_of_groups,
    two_means_of_one_precision,
    matrices_of_groups,
]


@pytest.mark.parametrize("model", EVERY_LAYOUT, ids=lambda m: m.__name__)
def test_the_density_over_real_coordinates_is_the_joint_over_the_evidence(model):
    """Everywhere: so its index, its change of variables and its constants are right."""
    problem, _, ascent = fitted(model)
    with double_precision():
        q = distribution_of(problem, ascent.q)
        points = q.sample(np.random.default_rng(72), 5)
        centred = {n: np.ones_like(x) for n, x in problem.arrays["centring"].items()}
        log_joint = Evaluator(problem.with_centring(centred)).value(points)
    assert np.allclose(q.log_prob(points), log_joint - EXACT[model][1], rtol=0.0, atol=1e-7)


# --- where the terms do not allow it --------------------------------------------------------------


def mean_with_its_own_prior(g, y):
    with numpyro.plate("groups", K):
        tau = numpyro.sample("tau", dist.Gamma(2.0, 1.5))
        mu = numpyro.sample("mu", dist.Normal(0.5, 2.0))
    with numpyro.plate("rows", len(y)):
        numpyro.sample("y", dist.Normal(mu[g], 1.0 / jnp.sqrt(tau[g])), obs=y[:, 0])


def precision_of_another_group(g, y):
    with numpyro.plate("groups", K):
        tau = numpyro.sample("tau", dist.Gamma(2.0, 1.5))
        mu = numpyro.sample("mu", dist.Normal(0.5, 1.0 / jnp.sqrt(KAPPA * tau)))
    with numpyro.plate("rows", len(y)):
        of_row = dist.Normal(mu[g], 1.0 / jnp.sqrt(tau[(g + 1) % K]))
        numpyro.sample("y", of_row, obs=y[:, 0])


def part_of_a_vector(y):
    precision = numpyro.sample("precision", dist.Wishart(DF, scale_matrix=jnp.asarray(SCALE)))
    prior = dist.MultivariateNormal(jnp.asarray(CENTRE), precision_matrix=KAPPA * precision)
    mu = numpyro.sample("mu", prior)
    with numpyro.plate("rows", len(y)):
        of_row = dist.MultivariateNormal(mu * jnp.array([1.0, 0.3]), precision_matrix=precision)
        numpyro.sample("y", of_row, obs=y)


@pytest.mark.parametrize(
    "model", [mean_with_its_own_prior, precision_of_another_group, part_of_a_vector]
)
def test_other_models_keep_independent_factors(model):
    """And their bound, which no shortcut has spoilt, rises from sweep to sweep."""
    problem, layout, ascent = fitted(model)
    assert layout.scales == ("",)
    assert not any(isinstance(f, Scaled) for f in ascent.q.values())
    assert not is_exact(problem, layout)
    assert np.all(np.diff(ascent.history) > -1e-9)


# --- through the front door -----------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("model", [scalars_of_groups, matrix], ids=lambda m: m.__name__)
def test_a_plain_fit_is_exact_and_can_be_saved(model, tmp_path):
    words, evidence = EXACT[model]
    posterior = taut.fit(model, data_of(model), progress=False)
    assert abs(posterior.elbo - evidence) < 1e-8
    assert words in str(posterior.plan)
    assert posterior.trust.verdict == "good"
    posterior.save(tmp_path / "fit.taut")
    again = taut.load(tmp_path / "fit.taut")
    points = posterior.q.sample(np.random.default_rng(73), 4)
    assert np.array_equal(again.q.log_prob(points), posterior.q.log_prob(points))
