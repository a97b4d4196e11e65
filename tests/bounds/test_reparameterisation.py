"""Draws of every distribution in the table against densities, which the draws do not use.

The truth of d/dtheta E[f(x)] is the integral of f(x) d/dtheta p(x), with NumPyro's log density and
scipy's quadrature or, for vectors, closed forms of moments.
"""

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import pytest
from gradient_means import assert_unbiased
from jax.flatten_util import ravel_pytree
from numpyro.distributions import transforms

from taut import bounds
from taut._core.errors import ArgumentError
from taut.bounds import paths

REAL, POSITIVE, UNIT = (-np.inf, np.inf), (0.0, np.inf), (0.0, 1.0)

# Class -> (distribution of its parameters, parameters, support).
SCALAR = {
    "Normal": (dist.Normal, (0.3, 0.7), REAL),
    "Laplace": (dist.Laplace, (0.3, 0.7), REAL),
    "Logistic": (dist.Logistic, (0.3, 0.7), REAL),
    "Cauchy": (dist.Cauchy, (0.3, 0.7), REAL),
    "Gumbel": (dist.Gumbel, (0.3, 0.7), REAL),
    "AsymmetricLaplace": (dist.AsymmetricLaplace, (0.3, 0.7, 1.4), REAL),
    "SoftLaplace": (dist.SoftLaplace, (0.3, 0.7), REAL),
    "HalfNormal": (dist.HalfNormal, (0.7,), POSITIVE),
    "HalfCauchy": (dist.HalfCauchy, (0.7,), POSITIVE),
    "Exponential": (dist.Exponential, (0.7,), POSITIVE),
    "Weibull": (dist.Weibull, (0.8, 1.6), POSITIVE),
    "Kumaraswamy": (dist.Kumaraswamy, (1.6, 2.3), UNIT),
    "Gompertz": (dist.Gompertz, (0.8, 1.3), POSITIVE),
    "Gamma": (dist.Gamma, (0.9, 1.3), POSITIVE),
    "Chi2": (dist.Chi2, (2.4,), POSITIVE),
    "InverseGamma": (dist.InverseGamma, (1.9, 1.3), POSITIVE),
    "Beta": (dist.Beta, (0.9, 2.3), UNIT),
    "BetaProportion": (dist.BetaProportion, (0.4, 3.0), UNIT),
    "StudentT": (dist.StudentT, (3.5, 0.3, 0.7), REAL),
    "LogNormal": (dist.LogNormal, (0.3, 0.7), POSITIVE),
    "RelaxedBernoulliLogits": (dist.RelaxedBernoulliLogits, (0.8, 0.4), UNIT),
    "LeftTruncatedDistribution": (
        lambda loc, scale: dist.TruncatedNormal(loc, scale, low=-0.2),
        (0.3, 0.7),
        (-0.2, np.inf),
    ),
    "RightTruncatedDistribution": (
        lambda loc, scale: dist.TruncatedNormal(loc, scale, high=0.9),
        (0.3, 0.7),
        (-np.inf, 0.9),
    ),
    "TwoSidedTruncatedDistribution": (
        lambda loc, scale: dist.TruncatedNormal(loc, scale, low=-0.2, high=0.9),
        (0.3, 0.7),
        (-0.2, 0.9),
    ),
    "TransformedDistribution": (
        lambda loc, scale: dist.TransformedDistribution(
            dist.Logistic(loc, scale), transforms.SoftplusTransform()
        ),
        (0.3, 0.7),
        POSITIVE,
    ),
}


# Class -> (distribution of its parameters, parameters, f, its mean as a function of the parameters).
CLOSED = {
    "Uniform": (dist.Uniform, (0.2, 1.7), lambda x: x**2, lambda a, b: (a**2 + a * b + b**2) / 3),
    "Pareto": (dist.Pareto, (0.8, 3.5), lambda x: 1 / x, lambda s, a: a / (a + 1) / s),
    "LogUniform": (
        dist.LogUniform,
        (0.5, 2.0),
        lambda x: x,
        lambda a, b: (b - a) / (jnp.log(b) - jnp.log(a)),
    ),
    "Delta": (dist.Delta, (0.7,), jnp.sin, jnp.sin),
    "GaussianRandomWalk": (
        lambda s: dist.GaussianRandomWalk(s, 4),
        (0.7,),
        lambda x: x[..., 3] * x[..., 1],
        lambda s: 2 * s**2,
    ),
    "ZeroSumNormal": (
        lambda s: dist.ZeroSumNormal(s, (4,)),
        (0.7,),
        lambda x: x[..., 0] ** 2,
        lambda s: 0.75 * s**2,
    ),
    "MultivariateNormal": (
        lambda m, r: dist.MultivariateNormal(m, scale_tril=r),
        (jnp.array([0.3, -0.5]), jnp.array([[0.7, 0.0], [0.4, 0.9]])),
        lambda x: x[..., 0] * x[..., 1],
        lambda m, r: m[0] * m[1] + (jnp.tril(r) @ jnp.tril(r).T)[0, 1],
    ),
    "LowRankMultivariateNormal": (
        dist.LowRankMultivariateNormal,
        (jnp.array([0.3, -0.5]), jnp.array([[0.7], [0.4]]), jnp.array([0.5, 0.8])),
        lambda x: x[..., 0] * x[..., 1] + x[..., 0] ** 2,
        lambda m, w, d: m[0] * m[1] + w[0, 0] * w[1, 0] + m[0] ** 2 + w[0, 0] ** 2 + d[0],
    ),
    "MatrixNormal": (
        dist.MatrixNormal,
        (
            jnp.array([[0.3, -0.5]]),
            jnp.array([[0.7]]),
            jnp.array([[0.7, 0.0], [0.4, 0.9]]),
        ),
        lambda x: x[..., 0, 0] * x[..., 0, 1],
        lambda m, u, v: m[0, 0] * m[0, 1] + u[0, 0] ** 2 * (v @ v.T)[0, 1],
    ),
    "MultivariateStudentT": (
        dist.MultivariateStudentT,
        (12.0, jnp.array([0.3, -0.5]), jnp.array([[0.7, 0.0], [0.4, 0.9]])),
        lambda x: x[..., 0] * x[..., 1],
        lambda n, m, r: m[0] * m[1] + n / (n - 2) * (r @ r.T)[0, 1],
    ),
    "Dirichlet": (
        dist.Dirichlet,
        (jnp.array([0.7, 1.4, 2.2]),),
        lambda x: x[..., 0] * x[..., 1],
        lambda a: a[0] * a[1] / (a.sum() * (a.sum() + 1)),
    ),
}
# Whose matrices are triangular factors.
TRIANGULAR = {"MultivariateNormal", "MatrixNormal", "MultivariateStudentT"}
ELSEWHERE = {"RelaxedOneHotCategorical", "CategoricalLogits", "CategoricalProbs"}
ELSEWHERE |= {"BernoulliLogits", "BernoulliProbs"}


def of_reals(params):
    return tuple(jnp.asarray(p, float) for p in params)


def lower_part(param):
    """One where a parameter counts: not above the diagonal of a square matrix."""
    square = param.ndim == 2 and param.shape[0] == param.shape[1]
    return jnp.tril(jnp.ones_like(param)) if square else jnp.ones_like(param)


def path_gradients(make, params, function, num_keys):
    def one(key):
        def mean(params):
            return jnp.sum(function(bounds.reparameterisation(make(*params)).sample(key)))

        return ravel_pytree(jax.grad(mean)(params))[0]

    keys = jax.random.split(jax.random.key(1), num_keys)
    return np.asarray(jax.jit(jax.vmap(one))(keys))


def quadrature_gradient(make, params, support):
    """The integral of tanh(x) dp(x)/dtheta, by double-exponential quadrature."""
    u, step = np.linspace(-4.0, 4.0, 4001, retstep=True)
    t, dt = 0.5 * np.pi * np.sinh(u), 0.5 * np.pi * np.cosh(u) * step
    low, high = support
    if np.isfinite(low) and np.isfinite(high):
        x, weights = low + (high - low) / (1 + np.exp(-2 * t)), 0.5 * (high - low) / np.cosh(t) ** 2
    elif np.isfinite(low):
        x, weights = low + np.exp(t), np.exp(t)
    elif np.isfinite(high):
        x, weights = high - np.exp(t), np.exp(t)
    else:
        x, weights = np.sinh(t), np.cosh(t)
    log_prob = np.asarray(make(*params).log_prob(jnp.asarray(x)))
    inside = (x > low) & (x < high) & (log_prob > -600.0)  # elsewhere 0 times infinity may arise
    x, weights = x[inside], (weights * dt)[inside]

    def mean(params):
        return jnp.sum(weights * jnp.tanh(x) * jnp.exp(make(*params).log_prob(x)))

    return np.asarray(ravel_pytree(jax.grad(mean)(params))[0])


# Relatives of others in the same row of the table.
SLOW = {"Logistic", "SoftLaplace", "HalfNormal", "HalfCauchy", "AsymmetricLaplace", "Kumaraswamy"}
SLOW |= {"RightTruncatedDistribution", "TwoSidedTruncatedDistribution", "BetaProportion", "Chi2"}
SLOW |= {"InverseGamma", "LogUniform", "MatrixNormal", "MultivariateStudentT", "LogNormal"}


def named(cases):
    marks = {True: pytest.mark.slow, False: ()}
    return pytest.mark.parametrize("name", [pytest.param(c, marks=marks[c in SLOW]) for c in cases])


@pytest.mark.stat
@named(SCALAR)
def test_paths_have_the_gradient_that_the_density_has(name):
    """False alarm: 6.3e-5 per parameter, 60 parameters in all."""
    make, params, support = SCALAR[name]
    params = of_reals(params)
    assert bounds.reparameterisation(make(*params)).pathwise
    truth = quadrature_gradient(make, params, support)
    # Quadrature across a kink is good to 1e-5, a tenth of the standard error.
    assert_unbiased(path_gradients(make, params, jnp.tanh, 8_000), truth)


@pytest.mark.stat
@named(CLOSED)
def test_paths_have_the_gradient_that_the_moment_has(name):
    """False alarm: 6.3e-5 per parameter, 40 parameters in all."""
    make, params, function, mean = CLOSED[name]
    params = of_reals(params)
    sample = path_gradients(make, params, function, 8_000)
    truth = ravel_pytree(jax.grad(lambda p: mean(*p))(params))[0]
    keep = (
        ravel_pytree(tuple(map(lower_part, params)))[0] > 0 if name in TRIANGULAR else slice(None)
    )
    assert_unbiased(sample[:, keep], truth[keep])


def test_every_distribution_of_the_table_is_tested():
    listed = {cls.__name__ for rule in paths._TABLE for cls in rule.distributions}
    assert listed == SCALAR.keys() | CLOSED.keys() | ELSEWHERE


@pytest.mark.parametrize(
    "matrix",
    [
        {"scale_tril": jnp.array([[0.7, 0.0], [0.4, 0.9]])},
        {"covariance_matrix": jnp.array([[0.5, 0.1], [0.1, 0.9]])},
        {"precision_matrix": jnp.array([[2.0, 0.3], [0.3, 1.0]])},
    ],
    ids=lambda matrix: next(iter(matrix)),
)
def test_a_gaussian_is_drawn_by_a_root_however_it_is_given(matrix):
    found = bounds.reparameterisation(dist.MultivariateNormal(jnp.zeros(2), **matrix))
    assert (found.name, found.pathwise) == ("matrix root", True)


@pytest.mark.parametrize(
    ("distribution", "name"),
    [
        (dist.Normal(jnp.zeros((3, 2)), 1.0).to_event(1), "location-scale"),
        (dist.Gamma(2.0, 1.0).expand([4]).to_event(1), "implicit"),
        (dist.TransformedDistribution(dist.Gamma(2.0), transforms.ExpTransform()), "transformed"),
        (dist.Poisson(3.0), "none"),
        (dist.Geometric(0.3), "none"),
        (dist.VonMises(0.0, 1.0), "none"),
        (
            dist.MixtureSameFamily(dist.Categorical(jnp.ones(2) / 2), dist.Normal(jnp.zeros(2))),
            "none",
        ),
        (dist.Binomial(3, 0.4), "none"),
        (dist.Categorical(jnp.ones(3) / 3), "Gumbel relaxation"),
        (dist.Bernoulli(0.3).expand([3]).to_event(1), "Gumbel relaxation"),
        (dist.Normal(jnp.zeros(2)).mask(jnp.array([True, False])), "own sampler"),
    ],
)
def test_wrappers_and_distributions_without_a_path(distribution, name):
    found = bounds.reparameterisation(distribution)
    assert found.name == name
    assert found.pathwise == (name not in ("none", "Gumbel relaxation"))


def test_draws_without_a_path_have_no_gradient():
    def draw(rate):
        return jnp.sum(
            bounds.reparameterisation(dist.Poisson(rate)).sample(jax.random.key(0)) * 1.0
        )

    assert jax.grad(draw)(3.0) == 0.0


def test_the_table_prints_every_method():
    table = bounds.reparameterisation_table()
    for name in ("location-scale", "matrix root", "inverse CDF", "implicit", "Gumbel", "none"):
        assert name in table


def test_a_temperature_is_positive():
    with pytest.raises(ArgumentError, match="temperature must be positive, got 0"):
        bounds.reparameterisation(dist.Bernoulli(0.3), temperature=0)
