"""The table of log densities against NumPyro's own, to 1e-10 at random parameters and values."""

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import pytest
from numpyro.distributions import constraints
from scipy import stats

from taut._core.precision import double_precision
from taut.expectation.table import TABLE, log_density, log_det, pick, register

TOLERANCE = 1e-10


@pytest.fixture(autouse=True)
def _float64():
    with double_precision():
        yield


class Draws:
    """Random parameters of one batch shape."""

    def __init__(self, batch, seed=0):
        self.batch, self.rng = batch, np.random.default_rng(seed)

    def real(self, *event, low=-2.0, high=2.0):
        return jnp.asarray(self.rng.uniform(low, high, (*self.batch, *event)))

    def positive(self, *event):
        return self.real(*event, low=0.4, high=3.0)

    def unit(self):
        return self.real(low=0.1, high=0.9)

    def simplex(self, size=4):
        x = self.positive(size)
        return x / x.sum(-1, keepdims=True)

    def count(self):
        return jnp.asarray(self.rng.integers(3, 12, self.batch))

    def ordered(self, size=3):
        return jnp.cumsum(self.positive(size), axis=-1) - 3.0

    def spd(self, size=3):
        x = self.real(size, size + 2)
        return x @ jnp.swapaxes(x, -1, -2) + 0.3 * jnp.eye(size)

    def tril(self, size=3):
        return jnp.linalg.cholesky(self.spd(size))


CASES = {
    "Normal": lambda p: dist.Normal(p.real(), p.positive()),
    "StudentT": lambda p: dist.StudentT(p.positive(), p.real(), p.positive()),
    "Cauchy": lambda p: dist.Cauchy(p.real(), p.positive()),
    "Laplace": lambda p: dist.Laplace(p.real(), p.positive()),
    "SoftLaplace": lambda p: dist.SoftLaplace(p.real(), p.positive()),
    "Logistic": lambda p: dist.Logistic(p.real(), p.positive()),
    "Gumbel": lambda p: dist.Gumbel(p.real(), p.positive()),
    "GaussianRandomWalk": lambda p: dist.GaussianRandomWalk(p.positive(), 5),
    "TruncatedNormal low": lambda p: dist.TruncatedNormal(p.real(), p.positive(), low=p.real()),
    "TruncatedNormal high": lambda p: dist.TruncatedNormal(p.real(), p.positive(), high=p.real()),
    "LogNormal": lambda p: dist.LogNormal(p.real(), p.positive()),
    "HalfNormal": lambda p: dist.HalfNormal(p.positive()),
    "HalfCauchy": lambda p: dist.HalfCauchy(p.positive()),
    "Exponential": lambda p: dist.Exponential(p.positive()),
    "Gamma": lambda p: dist.Gamma(p.positive(), p.positive()),
    "Chi2": lambda p: dist.Chi2(p.positive()),
    "InverseGamma": lambda p: dist.InverseGamma(p.positive(), p.positive()),
    "Weibull": lambda p: dist.Weibull(p.positive(), p.positive()),
    "Pareto": lambda p: dist.Pareto(p.positive(), p.positive()),
    "Levy": lambda p: dist.Levy(p.real(), p.positive()),
    "LogUniform": lambda p: dist.LogUniform(p.positive(), 5.0 + p.positive()),
    "Uniform": lambda p: dist.Uniform(p.real(), 3.0 + p.positive()),
    "Beta": lambda p: dist.Beta(p.positive(), p.positive()),
    "BetaProportion": lambda p: dist.BetaProportion(p.unit(), p.positive()),
    "Kumaraswamy": lambda p: dist.Kumaraswamy(p.positive(), p.positive()),
    "Dirichlet": lambda p: dist.Dirichlet(p.positive(4)),
    "MVN tril": lambda p: dist.MultivariateNormal(p.real(3), scale_tril=p.tril()),
    "MVN covariance": lambda p: dist.MultivariateNormal(p.real(3), p.spd()),
    "MVN precision": lambda p: dist.MultivariateNormal(p.real(3), precision_matrix=p.spd()),
    "MVN shared": lambda p: dist.MultivariateNormal(p.real(3), scale_tril=Draws(()).tril()),
    "Wishart scale": lambda p: dist.Wishart(2.5 + p.positive(), scale_matrix=p.spd()),
    "Wishart rate": lambda p: dist.Wishart(2.5 + p.positive(), rate_matrix=p.spd()),
    "Wishart tril": lambda p: dist.Wishart(2.5 + p.positive(), scale_tril=p.tril()),
    "LKJCholesky": lambda p: dist.LKJCholesky(4, p.positive()),
    "LKJ": lambda p: dist.LKJ(3, p.positive()),
    "Unit": lambda p: dist.Unit(p.real()),
    "BernoulliProbs": lambda p: dist.Bernoulli(probs=p.unit()),
    "BernoulliLogits": lambda p: dist.Bernoulli(logits=p.real()),
    "CategoricalProbs": lambda p: dist.Categorical(probs=p.simplex()),
    "CategoricalLogits": lambda p: dist.Categorical(logits=p.real(4)),
    "OrderedLogistic": lambda p: dist.OrderedLogistic(p.real(), p.ordered()),
    "OrderedLogistic shared": lambda p: dist.OrderedLogistic(p.real(), Draws(()).ordered()),
    "DiscreteUniform": lambda p: dist.DiscreteUniform(p.count() - 5, p.count() + 8),
    "BinomialProbs": lambda p: dist.Binomial(p.count(), probs=p.unit()),
    "BinomialLogits": lambda p: dist.Binomial(p.count(), logits=p.real()),
    "BetaBinomial": lambda p: dist.BetaBinomial(p.positive(), p.positive(), p.count()),
    "MultinomialProbs": lambda p: dist.Multinomial(7, probs=p.simplex()),
    "MultinomialLogits": lambda p: dist.Multinomial(7, logits=p.real(4)),
    "DirichletMultinomial": lambda p: dist.DirichletMultinomial(p.positive(4), 7),
    "Poisson": lambda p: dist.Poisson(p.positive()),
    "GeometricProbs": lambda p: dist.Geometric(probs=p.unit()),
    "GeometricLogits": lambda p: dist.Geometric(logits=p.real()),
    "GammaPoisson": lambda p: dist.GammaPoisson(p.positive(), p.positive()),
    "NegativeBinomial2": lambda p: dist.NegativeBinomial2(p.positive(), p.positive()),
    "NegativeBinomialProbs": lambda p: dist.NegativeBinomialProbs(p.positive(), p.unit()),
    "NegativeBinomialLogits": lambda p: dist.NegativeBinomialLogits(p.positive(), p.real()),
    "ZeroInflatedPoisson": lambda p: dist.ZeroInflatedPoisson(p.unit(), p.positive()),
    "ZeroInflatedProbs": lambda p: dist.ZeroInflatedDistribution(
        dist.NegativeBinomial2(p.positive(), p.positive()), gate=p.unit()
    ),
    "ZeroInflatedLogits": lambda p: dist.ZeroInflatedDistribution(
        dist.Poisson(p.positive()), gate_logits=p.real()
    ),
}
# NumPyro's beta function is off by up to 1e-6: these are compared with SciPy to TOLERANCE below.
LOOSE = {"BetaBinomial", "GammaPoisson", "NegativeBinomial2", "NegativeBinomialProbs"}
LOOSE |= {"ZeroInflatedProbs"}
BATCHES = [(), (2, 3)]
every = pytest.mark.parametrize("name", CASES)


def draw(fn, seed=0):
    return fn.sample(jax.random.key(seed))


def agrees(fn, value, is_data=False, name=""):
    """Compare with NumPyro, shape and all."""
    found, expected = log_density(fn, value, is_data), fn.log_prob(value)
    assert found is not None
    assert jnp.shape(found) == jnp.shape(expected)
    tolerance = 1e-5 if name in LOOSE else TOLERANCE
    np.testing.assert_allclose(found, expected, rtol=tolerance, atol=tolerance)


@every
@pytest.mark.parametrize("batch", BATCHES, ids=str)
def test_equals_numpyro(name, batch):
    fn = CASES[name](Draws(batch, seed=len(name)))
    agrees(fn, draw(fn), name=name)


@every
def test_plates_and_events(name):
    """Expanded, independent, and values with sample dimensions."""
    fn = CASES[name](Draws((3, 1), seed=1))
    wide = fn.expand((2, 3, 4))
    value = draw(wide)
    agrees(wide, value, name=name)
    agrees(wide.to_event(2), value, name=name)
    agrees(wide.to_event(1).expand((5, 2, 3)), jnp.stack([value] * 5), name=name)
    agrees(fn, value[..., :1, *(slice(None),) * fn.event_dim], name=name)
    scalar = CASES[name](Draws((), seed=2)).expand((3,))
    agrees(scalar.to_event(1), draw(scalar), name=name)


@every
def test_masks(name):
    fn = CASES[name](Draws((3,), seed=1))
    value = draw(fn)
    mask = jnp.array([True, False, True])
    agrees(fn.mask(mask), value, name=name)
    agrees(fn.mask(True), value, name=name)
    agrees(fn.mask(False), value)
    if jnp.issubdtype(value.dtype, jnp.floating) and name != "Unit":
        gaps = jnp.where(mask.reshape(3, *(1,) * fn.event_dim), value, jnp.nan)
        agrees(fn.mask(mask), gaps, is_data=True)


def test_counts_are_scipys():
    x, a, b, n, p = jnp.arange(6), 1.3, 0.7, 8, 0.3
    for fn, expected in [
        (dist.BetaBinomial(a, b, n), stats.betabinom.logpmf(x, n, a, b)),
        (dist.GammaPoisson(a, b), stats.nbinom.logpmf(x, a, b / (1 + b))),
        (dist.NegativeBinomial2(2.5, a), stats.nbinom.logpmf(x, a, a / (a + 2.5))),
        (dist.NegativeBinomialProbs(a, p), stats.nbinom.logpmf(x, a, 1 - p)),
        (dist.NegativeBinomialLogits(a, 0.4), stats.nbinom.logpmf(x, a, 1 / (1 + np.exp(0.4)))),
    ]:
        np.testing.assert_allclose(log_density(fn, x), expected, rtol=TOLERANCE, atol=TOLERANCE)
    inflated = dist.ZeroInflatedDistribution(dist.NegativeBinomial2(2.5, a), gate=p)
    mass = (1 - p) * stats.nbinom.pmf(x, a, a / (a + 2.5)) + p * (np.asarray(x) == 0)
    np.testing.assert_allclose(log_density(inflated, x), np.log(mass), rtol=TOLERANCE)


def test_plain_numbers_as_parameters():
    agrees(dist.Normal(0, 1), 0.3)
    agrees(dist.Normal(0.0, 2).expand((3,)).to_event(1), np.array([0.1, 0.2, 0.3]))
    agrees(dist.Uniform(0, 1), jnp.array([0.1, 0.9]))
    agrees(dist.Binomial(10, 0.3), 4)
    agrees(dist.Categorical(np.array([0.2, 0.8])), 1)
    agrees(dist.ImproperUniform(constraints.real, (2,), ()), jnp.zeros(2))


def test_zero_counts_of_zero_inflated_distributions():
    for fn in (
        dist.ZeroInflatedPoisson(0.3, 2.0),
        dist.ZeroInflatedDistribution(dist.Binomial(5, 0.2), gate_logits=0.4),
        dist.ZeroInflatedDistribution(dist.Geometric(0.3), gate=jnp.array([0.4, 0.5])),
    ):
        agrees(fn.expand((2,)), jnp.array([0, 3]))


def test_every_entry_is_tried():
    tried = {type(CASES[name](Draws(()))) for name in CASES} | {dist.ImproperUniform}
    assert set(TABLE) - tried == set()


def test_no_entry_is_none():
    fn = dist.CAR(jnp.zeros(2), 0.1, 1.0, jnp.array([[0.0, 1.0], [1.0, 0.0]]))
    assert log_density(fn, jnp.zeros(2)) is None
    assert log_density(fn.mask(jnp.array(True)), jnp.zeros(2)) is None
    assert log_density(dist.TruncatedCauchy(low=0.0).expand((2,)).to_event(1), jnp.ones(2)) is None
    inflated = dist.ZeroInflatedDistribution(dist.BetaNegativeBinomial(1.0, 2.0, 3), gate=0.1)
    assert log_density(inflated, 2) is None


def test_subclasses_are_not_guessed():
    class Mine(dist.Normal):
        pass

    assert log_density(Mine(0.0, 1.0), 0.0) is None
    try:
        register(Mine)(lambda d, x: x - d.loc)
        assert log_density(Mine(1.0, 1.0).expand((2,)), jnp.array([1.0, 3.0])).tolist() == [0, 2]
    finally:
        TABLE.pop(Mine)


@pytest.mark.parametrize("table", [(4,), (3, 4), (3, 1, 4), (1, 4), (2, 3, 4), (1, 1, 4)])
@pytest.mark.parametrize("index", [(), (3,), (2, 3), (5, 2, 3), (1, 1)])
def test_pick_is_a_gather_over_batch_axes(table, index):
    rng = np.random.default_rng(0)
    try:
        batch = np.broadcast_shapes(table[:-1], index)
    except ValueError:
        pytest.skip("shapes do not broadcast")
    p, k = rng.normal(size=table), rng.integers(0, 4, index)
    expected = np.take_along_axis(
        np.broadcast_to(p, (*batch, 4)), np.broadcast_to(k, batch)[..., None], -1
    )[..., 0]
    assert np.array_equal(pick(jnp.asarray(p), jnp.asarray(k)), expected)


GUARDS = {"clamp", "is_finite", "stop_gradient", "cond"}
SELECTIONS = {"select_n", "concatenate"}


def equations(jaxpr):
    for equation in jaxpr.eqns:
        yield equation
        for value in equation.params.values():
            inner = getattr(value, "jaxpr", None)
            if inner is not None and equation.params.get("name") not in ("softplus", "log_det"):
                yield from equations(inner)


def test_log_det_keeps_its_name():
    jaxpr = jax.make_jaxpr(log_det)(jnp.eye(3))
    assert [e.params["name"] for e in jaxpr.eqns] == ["log_det"]
    assert np.allclose(log_det(jnp.eye(3) * 2.0), 3 * np.log(2.0))


GUARDED = {"OrderedLogistic", "OrderedLogistic shared"} | {n for n in CASES if "ZeroInfl" in n}


@pytest.mark.parametrize("name", sorted(set(CASES) - GUARDED))
def test_formulas_are_plain(name):
    """No guards in what depends on a continuous value or on parameters."""
    fn = CASES[name](Draws((3,), seed=1))
    value = draw(fn)

    def function(parameters, value):
        return log_density(jax.tree.unflatten(structure, parameters), value)

    parameters, structure = jax.tree.flatten(fn)
    jaxpr = jax.make_jaxpr(function)(parameters, value).jaxpr
    found = {str(e.primitive) for e in equations(jaxpr)}
    assert not found & GUARDS
    # Gathers bring indices into range, and NumPyro looks at the matrices that it is given.
    if not any(word in name for word in ("Categorical", "LKJ", "MVN", "Wishart")):
        assert not found & SELECTIONS
