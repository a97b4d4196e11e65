"""Exponential-family factors against SciPy, quadrature, automatic and numerical differentiation.

Reference values for extreme concentrations were computed with mpmath at 60 digits.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from factor_table import MEMBERS, SCALE, SCIPY, continuous, members, scalars
from jax.scipy.special import gammaln, multigammaln
from scipy import stats

from taut._core.errors import ArgumentError
from taut._core.precision import double_precision
from taut.families import Beta, Categorical, Dirichlet, Gamma, Grid, InverseGamma, Wishart

FALSE_ALARM = 1e-4  # of each Kolmogorov-Smirnov test, with a fixed key


@pytest.fixture(autouse=True)
def _float64():
    with double_precision():
        yield


def event_dims(name):
    return 2 if name.startswith("wishart") else 1 if name == "dirichlet" else 0


def split(name, value):
    """A value of the latent as a list of elements."""
    value, event = np.asarray(value), event_dims(name)
    return list(value.reshape(-1, *value.shape[value.ndim - event :]))


# --- densities, entropies and means -------------------------------------------------------------


@continuous
def test_log_prob_is_scipys(name):
    q = MEMBERS[name]()
    for value in q.sample(jax.random.key(1), 20):
        parts = zip(SCIPY[name](q), split(name, value), strict=True)
        # SciPy checks the sum of a simplex more strictly than a float64 softmax is.
        scipys = sum(p.logpdf(x / x.sum() if name == "dirichlet" else x) for p, x in parts)
        assert float(q.log_prob(value)) == pytest.approx(float(scipys), rel=1e-10, abs=1e-10)


@continuous
def test_entropy_is_scipys(name):
    q = MEMBERS[name]()
    expected = sum(p.entropy() for p in SCIPY[name](q))
    assert float(q.entropy) == pytest.approx(float(expected), rel=1e-10, abs=1e-10)


def test_categorical_entropy_and_log_prob():
    q = MEMBERS["categorical"]()
    p = np.asarray(q.probs)
    assert float(q.entropy) == pytest.approx(-np.sum(p * np.log(p)), rel=1e-14)
    assert float(q.log_prob(jnp.array([2, 1]))) == pytest.approx(np.log(0.7 * 0.25), rel=1e-14)
    assert q.shape == (2,)


EXTREME = [
    (lambda: Gamma(1e-3, 1.0), -992.66681747449461569),
    (lambda: Gamma(1e-2, 1.0), -94.945796725247963969),
    (lambda: Gamma(1.0, 1.0), 1.0),
    (lambda: Gamma(30.0, 1.0), 3.1083331192877875898),
    (lambda: Gamma(1e8, 1.0), 10.629278901847522136),
    (lambda: InverseGamma(1e-3, 1.0), 1008.4843263891259436),
    (lambda: InverseGamma(1e8, 1.0), -26.212082576057208791),
    (lambda: Beta(1e-3, 1e-3), -991.40237857123447593),
    (lambda: Beta(1e-3, 1e8), -1011.0874982134619812),
    (lambda: Beta(1e8, 1e8), -8.8311226121114279709),
    (lambda: Dirichlet([1e-3, 2.0, 1e8]), -1027.9309633375228135),
    (lambda: Dirichlet([1e8, 1e8, 3e7]), -18.267062899024424435),
]


@pytest.mark.parametrize(("make", "expected"), EXTREME)
def test_entropy_of_extreme_concentrations(make, expected):
    # Below one the natural parameter a - 1 itself keeps only 1e-13 of a.
    assert float(make().entropy) == pytest.approx(expected, rel=3e-13)


def test_means_of_extreme_concentrations():
    expected = [-1018.99625267077265, -1.00000000499500004e-11]
    assert np.allclose(Beta(1e-3, 1e8).mean, expected, rtol=3e-13, atol=0)
    assert np.allclose(Beta(1e8, 1e8).mean, -0.693147183059945316, rtol=1e-14, atol=0)


def test_log_prob_of_large_concentrations_keeps_its_digits():
    """At the mean of a gamma variable the log density is that of the matched normal, nearly."""
    for a in (1e6, 1e8):
        normal = -0.5 * np.log(2 * np.pi * a)
        assert float(Gamma(a, 1.0).log_prob(jnp.array(a))) == pytest.approx(normal, abs=1.0 / a)
        normal = -0.5 * np.log(2 * np.pi * 0.125 / a) + 0.25 / a
        at_half = float(Beta(a, a).log_prob(jnp.array(0.5)))
        assert at_half == pytest.approx(normal, abs=2.0 / a)


def log_normalizer(name):
    def gamma(n):
        return jnp.sum(gammaln(n[0] + 1) - (n[0] + 1) * jnp.log(-n[1]))

    def inverse(n):
        return jnp.sum(gammaln(-n[0] - 1) + (n[0] + 1) * jnp.log(-n[1]))

    def beta(n):
        return jnp.sum(gammaln(n[0] + 1) + gammaln(n[1] + 1) - gammaln(n[0] + n[1] + 2))

    def dirichlet(n):
        alpha = n[0] + 1
        return jnp.sum(jnp.sum(gammaln(alpha), -1) - gammaln(jnp.sum(alpha, -1)))

    def wishart(n):
        a = n[0] + 2.0
        each = [multigammaln(x, 3) for x in jnp.atleast_1d(a)]
        return jnp.sum(jnp.stack(each)) - jnp.sum(a * jnp.linalg.slogdet(-n[1])[1])

    def categorical(n):
        return jnp.sum(jax.nn.logsumexp(n[0], -1))

    table = {"gamma": gamma, "inverse": inverse, "beta": beta, "dirichlet": dirichlet}
    table |= {"wishart": wishart, "categorical": categorical}
    return table[name.split()[0]]


@members
def test_mean_is_the_gradient_of_the_log_normalizer(name):
    q = MEMBERS[name]()
    for mean, expected in zip(q.mean, jax.grad(log_normalizer(name))(q.natural), strict=True):
        assert np.allclose(mean, expected, rtol=1e-11, atol=1e-11)


@members
def test_from_natural_gives_the_member_back(name):
    q = MEMBERS[name]()
    again = type(q).from_natural(q.natural)
    assert jax.tree.structure(q) == jax.tree.structure(again)
    for a, b in zip(jax.tree.leaves(q), jax.tree.leaves(again), strict=True):
        assert np.allclose(a, b, rtol=1e-11, atol=1e-13)


# --- gradients in the mean parameter -------------------------------------------------------------


@members
def test_gradient_solves_the_fisher_information(name):
    """Checked against a dense Jacobian of the mean parameter by the natural parameter."""
    q, rng = MEMBERS[name](), np.random.default_rng(5)

    def mean(natural):
        return type(q).from_natural(natural).mean

    direction = jax.tree.map(lambda x: jnp.asarray(rng.normal(size=x.shape)), q.natural)
    if name.startswith("wishart"):
        direction = direction[0], direction[1] + jnp.swapaxes(direction[1], -1, -2)
    _, image = jax.jvp(mean, (q.natural,), (direction,))
    cotangent = zeros_like(q, natural=image)
    found = q.gradient(cotangent)
    if name == "categorical":  # natural parameters are known up to a constant
        direction, found = ((x[0] - x[0].mean(-1, keepdims=True),) for x in (direction, found))
    for a, b in zip(found, direction, strict=True):
        assert np.allclose(a, b, rtol=1e-9, atol=1e-10)


def zeros_like(q, **fields):
    zero = jax.tree.map(jnp.zeros_like, q)
    for name, value in fields.items():
        object.__setattr__(zero, name, value)
    return zero


@members
def test_entropy_has_minus_the_natural_parameter_as_gradient(name):
    q = MEMBERS[name]()
    found = q.gradient(jax.grad(lambda q: q.entropy)(q))
    expected = jax.tree.map(jnp.negative, q.natural)
    if name == "categorical":
        found, expected = ((x[0] - x[0].mean(-1, keepdims=True),) for x in (found, expected))
    for a, b in zip(found, expected, strict=True):
        assert np.allclose(a, b, rtol=1e-9, atol=1e-9)


def natural_at(cls, mean, start):
    """Natural parameter of the member with this mean, by Newton's method on the mean map."""

    def mean_of(natural):
        return jnp.stack(cls.from_natural(tuple(natural)).mean)

    @jax.jit
    def step(natural):
        return natural + jnp.linalg.solve(jax.jacobian(mean_of)(natural), mean - mean_of(natural))

    natural = jnp.stack(start)
    for _ in range(6):  # mean is within 1e-5 of the start's
        natural = step(natural)
    return tuple(natural)


FUNCTIONS = {
    "square": lambda q: q.moment(2.0, 0, 0.0, 0),
    "root and log": lambda q: q.moment(0.5, 1, 0.0, 0) * q.mean[0],
    "grid": lambda q: jnp.sum(jnp.prod(jnp.stack([q.grid(64)[1], jnp.log1p(q.grid(64)[0])]), 0)),
    "sum": lambda q: 3.0 * q.mean[0] - 2.0 * q.mean[1] + q.moment(1.5, 0, 0.0, 0),
}


@pytest.mark.parametrize("f", FUNCTIONS)
@pytest.mark.parametrize("make", [Gamma, InverseGamma, Beta])
def test_gradient_is_the_derivative_in_mean_parameters(make, f):
    """The identity behind the update rule; central differences are good to about 1e-7."""
    q, f = make(3.7, 2.2), FUNCTIONS[f]
    found = np.array(q.gradient(jax.grad(f)(q)))
    mean, step = np.array(q.mean), 1e-5
    for i in range(2):
        values = [
            f(make.from_natural(natural_at(make, mean + sign * step * np.eye(2)[i], q.natural)))
            for sign in (1.0, -1.0)
        ]
        numerical = float(values[0] - values[1]) / (2 * step)
        assert found[i] == pytest.approx(numerical, rel=1e-6, abs=1e-7)


def test_sufficient_statistics_are_read_off_the_mean():
    for q, power, stat in [
        (Gamma(2.0, 3.0), (1, 0, 0, 0), 1),
        (Gamma(2.0, 3.0), (0, 1, 0, 0), 0),
        (InverseGamma(2.0, 3.0), (-1, 0, 0, 0), 1),
        (InverseGamma(2.0, 3.0), (0, 1, 0, 0), 0),
        (Beta(2.0, 3.0), (0, 1, 0, 0), 0),
        (Beta(2.0, 3.0), (0, 0, 0, 1), 1),
    ]:
        cotangent = jax.grad(lambda q, power=power: q.moment(*power))(q)
        assert [float(c) for c in cotangent.natural] == [0.0, 0.0]
        assert [float(c) for c in cotangent.mean] == [float(i == stat) for i in range(2)]
        assert float(q.moment(*power)) == float(q.mean[stat])
    q = Dirichlet([1.0, 2.0, 3.0])
    cotangent = jax.grad(lambda q: q.moment(0, 1, 0, 0)[1])(q)
    assert np.array_equal(cotangent.mean[0], [0, 1, 0])
    assert not np.any(cotangent.natural[0])


# --- draws ---------------------------------------------------------------------------------------


@continuous
@pytest.mark.stat
def test_draws_have_the_mean_parameters(name):
    q = MEMBERS[name]()
    draws = q.sample(jax.random.key(3), 20_000)
    assert draws.shape == (20_000, *q.shape)
    kinds = {"gamma": (jnp.log, jnp.array), "inverse": (jnp.log, jnp.reciprocal)}
    kinds |= {"beta": (jnp.log, lambda x: jnp.log1p(-x)), "dirichlet": (jnp.log,)}
    kinds |= {"wishart": (lambda x: jnp.linalg.slogdet(x)[1], jnp.array)}
    for statistic, mean in zip(kinds[name.split()[0]], q.mean, strict=True):
        values = statistic(draws)
        error = jnp.std(values, axis=0) / np.sqrt(20_000)
        assert np.all(np.abs(values.mean(0) - mean) < 5 * error)


@scalars
@pytest.mark.stat
def test_draws_follow_scipys_law(name):
    q = MEMBERS[name]()
    draws = np.asarray(q.sample(jax.random.key(4), 2000)).reshape(2000, -1)
    for law, x in zip(SCIPY[name](q), draws.T, strict=True):
        assert stats.kstest(x, law.cdf).pvalue > FALSE_ALARM


def test_draws_of_tiny_concentrations_stay_inside_the_support():
    key = jax.random.key(0)
    assert np.all(Gamma(1e-3, 1.0).sample(key, 100) > 0)
    assert np.all(np.isfinite(InverseGamma(1e-3, 1.0).sample(key, 100)))
    x = Beta(1e-3, 1e-3).sample(key, 100)
    assert np.all((x > 0) & (x < 1))


def test_categorical_draws_have_its_frequencies():
    q = MEMBERS["categorical"]()
    draws = np.asarray(q.sample(jax.random.key(3), 20_000))
    assert draws.shape == (20_000, 2)
    frequencies = (draws[..., None] == np.arange(3)).mean(0)
    assert np.allclose(frequencies, q.probs, atol=5 * 0.5 / np.sqrt(20_000))


def test_categorical_with_impossible_values():
    q = Categorical([0.0, 0.4, 0.6])
    assert float(q.entropy) == pytest.approx(-(0.4 * np.log(0.4) + 0.6 * np.log(0.6)))
    assert np.all(np.isfinite(q.gradient(jax.grad(lambda q: q.probs @ jnp.arange(3.0))(q))[0]))
    assert bool(q.is_proper())


# --- transformations and errors ------------------------------------------------------------------


@members
def test_all_of_it_compiles_and_maps(name):
    q = MEMBERS[name]()

    def everything(natural, key):
        q = type(q0).from_natural(natural)
        draw = q.sample(key, 2)
        gradient = q.gradient(jax.grad(lambda q: q.entropy + sum(map(jnp.sum, q.mean)))(q))
        return q.entropy, q.log_prob(draw[0]), gradient, q.is_proper()

    q0, key = q, jax.random.key(0)
    plain = everything(q.natural, key)
    stacked = jax.tree.map(lambda x: jnp.stack([x, x]), q.natural)
    mapped = jax.jit(jax.vmap(everything, (0, None)))(stacked, key)
    assert bool(plain[3])
    for a, b in zip(jax.tree.leaves(plain), jax.tree.leaves(mapped), strict=True):
        # Natural parameters of near-singular problems amplify rounding.
        assert np.allclose(a, b[0], rtol=1e-9, atol=1e-9)


def test_constructors_run_under_jit_and_vmap():
    a = jnp.array([0.5, 2.0])
    q = jax.jit(jax.vmap(lambda a: Gamma(a, 3.0)))(a)
    assert np.allclose(q.mean[1], a / 3.0)
    q = jax.jit(lambda s: Wishart(5.0, s))(SCALE)
    assert np.allclose(q.scale, SCALE)
    assert jax.jit(lambda p: Categorical(p).entropy)(jnp.array([0.5, 0.5])) == pytest.approx(
        np.log(2)
    )


def test_single_precision_is_kept():
    with jax.enable_x64(False):
        q = Gamma([0.5, 20.0], 3.0)
        assert q.entropy.dtype == q.grid(32)[1].dtype == jnp.float32
        expected = sum(stats.gamma(a, scale=1 / 3.0).entropy() for a in (0.5, 20.0))
        assert float(q.entropy) == pytest.approx(expected, rel=1e-5)


def test_improper_parameters_are_known():
    one = jnp.array(1.0)
    assert not Gamma.from_natural((-2 * one, -one)).is_proper()
    assert not Gamma.from_natural((one, one)).is_proper()
    assert not InverseGamma.from_natural((-0.5 * one, -one)).is_proper()
    assert not Beta.from_natural((one, -1.5 * one)).is_proper()
    assert not Dirichlet.from_natural((jnp.array([0.0, -1.0]),)).is_proper()
    assert not Wishart.from_natural((one, jnp.eye(2))).is_proper()
    assert not Wishart.from_natural((-2 * one, -jnp.eye(2))).is_proper()
    assert not Categorical.from_natural((jnp.array([0.0, jnp.nan]),)).is_proper()


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: Gamma(-1.0, 1.0), "Gamma.concentration must be positive and finite, got -1"),
        (lambda: Gamma(1.0, [1.0, np.inf]), "Gamma.rate must be positive and finite, got inf"),
        (lambda: InverseGamma(0.0, 1.0), "InverseGamma.concentration must be positive"),
        (lambda: Beta(1.0, np.nan), "Beta.concentration0 must be positive and finite, got nan"),
        (lambda: Dirichlet(1.0), "last axis of two or more categories, got shape"),
        (lambda: Wishart(1.5, np.eye(3)), "Wishart.df must be larger than 2 for 3 x 3"),
        (lambda: Wishart(5.0, np.ones((2, 3))), "Wishart.scale must be square"),
        (lambda: Wishart(5.0, -np.eye(3)), "Wishart.scale must be positive definite"),
        (lambda: Wishart(5.0, np.triu(np.ones((2, 2)))), "Wishart.scale must be symmetric"),
        (lambda: Categorical([0.5, 0.6]), "Categorical.probs must be non-negative and sum to 1"),
        (lambda: Grid([1.0, 1.0], [0.0, 0.0]), "Grid.points must be strictly increasing"),
        (lambda: Grid([1.0, 2.0], [0.0]), "Grid.log_weights must have one value per point"),
        (lambda: Grid(1.0, 0.0), "Grid.points must have two or more points"),
        (lambda: Grid.from_natural((jnp.zeros(2),)), "Grid.from_natural must be given points"),
    ],
)
def test_wrong_parameters_are_explained(make, words):
    with pytest.raises(ArgumentError, match=words):
        make()
