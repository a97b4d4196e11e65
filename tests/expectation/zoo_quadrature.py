"""Models whose expected log joint needs quadrature in one or two dimensions."""

from functools import partial

import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
from zoo_case import Case, register

CASES: list[Case] = []
quadrature = partial(register, CASES, method="quadrature")

RNG = np.random.default_rng(22)
N, D = 24, 3
X = RNG.standard_normal((N, D))
ETA = X @ np.array([0.6, -0.4, 0.2]) + 0.3
Y = ETA + 0.5 * RNG.standard_normal(N)
BINARY = (RNG.uniform(size=N) < 1.0 / (1.0 + np.exp(-ETA))).astype(int)
COUNTS = RNG.poisson(np.exp(ETA))
TIMES = RNG.exponential(np.exp(ETA)) + 0.01


def coefficients(x, scale=1.5):
    return numpyro.sample("w", dist.Normal(0.0, scale).expand([x.shape[1]]).to_event(1))


@quadrature("logistic regression", factors={"w": "gaussian"}, x=X, y=BINARY)
def logistic(x, y):
    w = coefficients(x)
    with numpyro.plate("rows", len(y)):
        numpyro.sample("y", dist.Bernoulli(logits=x @ w), obs=y)


@quadrature("probit regression", factors={"w": "gaussian"}, x=X, y=BINARY)
def probit(x, y):
    numpyro.sample("y", dist.Bernoulli(dist.Normal(0.0, 1.0).cdf(x @ coefficients(x))), obs=y)


@quadrature("binomial regression", factors={"w": "gaussian"}, x=X, total=COUNTS + 2, y=COUNTS)
def binomial(x, total, y):
    numpyro.sample("y", dist.Binomial(total, logits=x @ coefficients(x)), obs=y)


@quadrature("negative binomial regression", factors={"w": "gaussian"}, x=X, y=COUNTS)
def negative_binomial(x, y):
    mean = jnp.exp(x @ coefficients(x))
    numpyro.sample("y", dist.NegativeBinomial2(mean, 3.0), obs=y)


@quadrature(
    "negative binomial regression, unknown dispersion",
    factors={"w": "gaussian", "dispersion": "gamma"},
    x=X,
    y=COUNTS,
)
def negative_binomial_dispersion(x, y):
    dispersion = numpyro.sample("dispersion", dist.Gamma(3.0, 1.0))
    numpyro.sample("y", dist.NegativeBinomial2(jnp.exp(x @ coefficients(x)), dispersion), obs=y)


@quadrature("zero-inflated Poisson", factors={"w": "gaussian", "gate": "beta"}, x=X, y=COUNTS)
def zero_inflated(x, y):
    gate = numpyro.sample("gate", dist.Beta(1.5, 3.0))
    rate = jnp.exp(x @ coefficients(x))
    numpyro.sample("y", dist.ZeroInflatedPoisson(gate, rate=rate), obs=y)


HORSESHOE = {"tau": "gaussian", "lam": "gaussian", "w": "gaussian", "precision": "gamma"}


@quadrature("horseshoe regression", factors=HORSESHOE, x=X, y=Y)
def horseshoe(x, y):
    tau = numpyro.sample("tau", dist.HalfCauchy(0.5))
    lam = numpyro.sample("lam", dist.HalfCauchy(1.0).expand([x.shape[1]]).to_event(1))
    precision = numpyro.sample("precision", dist.Gamma(2.0, 1.0))
    w = numpyro.sample("w", dist.Normal(0.0, tau * lam).to_event(1))
    numpyro.sample("y", dist.Normal(x @ w, 1.0 / jnp.sqrt(precision)), obs=y)


SCALES = {"mu": "gaussian", "sd": "gaussian:own", "a": "gaussian", "sigma": "gaussian:own"}


@quadrature("hierarchical, half-Cauchy scales", factors=SCALES, group=np.arange(N) % 4, y=Y)
def half_cauchy(group, y):
    mu = numpyro.sample("mu", dist.Normal(0.0, 3.0))
    sd = numpyro.sample("sd", dist.HalfCauchy(1.0))
    sigma = numpyro.sample("sigma", dist.HalfCauchy(2.0))
    with numpyro.plate("groups", 4):
        a = numpyro.sample("a", dist.Normal(mu, sd))
    numpyro.sample("y", dist.Normal(a[group], sigma), obs=y)


PERSON, ITEM = np.divmod(np.arange(40), 5)
ANSWER = RNG.integers(0, 2, 40)
ANSWERS = {"person": PERSON, "item": ITEM, "y": ANSWER}


@quadrature(
    "item response, one parameter", factors={"theta": "gaussian", "b": "gaussian"}, **ANSWERS
)
def rasch(person, item, y):
    with numpyro.plate("persons", 8):
        theta = numpyro.sample("theta", dist.Normal(0.0, 1.0))
    with numpyro.plate("items", 5):
        b = numpyro.sample("b", dist.Normal(0.0, 1.5))
    numpyro.sample("y", dist.Bernoulli(logits=theta[person] - b[item]), obs=y)


TWO_PL = {"theta": "gaussian", "a": "gaussian:own", "b": "gaussian"}


@quadrature("item response, two parameters", factors=TWO_PL, **ANSWERS)
def two_parameter(person, item, y):
    with numpyro.plate("persons", 8):
        theta = numpyro.sample("theta", dist.Normal(0.0, 1.0))
    with numpyro.plate("items", 5):
        a = numpyro.sample("a", dist.LogNormal(0.0, 0.5))
        b = numpyro.sample("b", dist.Normal(0.0, 1.5))
    numpyro.sample("y", dist.Bernoulli(logits=a[item] * (theta[person] - b[item])), obs=y)


@quadrature("Student-t regression", factors={"w": "gaussian", "sigma": "gaussian"}, x=X, y=Y)
def student_t(x, y):
    sigma = numpyro.sample("sigma", dist.HalfNormal(1.0))
    numpyro.sample("y", dist.StudentT(4.0, x @ coefficients(x), sigma), obs=y)


@quadrature("Student-t, unknown degrees of freedom", factors={"mu": "gaussian", "df": "grid"}, y=Y)
def student_df(y):
    mu = numpyro.sample("mu", dist.Normal(0.0, 3.0))
    df = numpyro.sample("df", dist.Gamma(2.0, 0.1))
    numpyro.sample("y", dist.StudentT(df, mu, 0.6), obs=y)


@quadrature("Laplace regression", factors={"w": "gaussian", "b": "inverse_gamma"}, x=X, y=Y)
def laplace(x, y):
    b = numpyro.sample("b", dist.InverseGamma(3.0, 2.0))
    numpyro.sample("y", dist.Laplace(x @ coefficients(x), b), obs=y)


@quadrature("Weibull, unknown shape", factors={"log_scale": "gaussian", "shape": "grid"}, y=TIMES)
def weibull_shape(y):
    log_scale = numpyro.sample("log_scale", dist.Normal(0.0, 1.0))
    shape = numpyro.sample("shape", dist.Uniform(0.3, 4.0))
    numpyro.sample("y", dist.Weibull(jnp.exp(log_scale), shape), obs=y)


TABLE = RNG.multinomial(12, [0.2, 0.5, 0.3], 8)


@quadrature("Dirichlet-multinomial", factors={"total": "gamma"}, y=TABLE)
def dirichlet_multinomial(y):
    total = numpyro.sample("total", dist.Gamma(2.0, 0.5))
    base = total * jnp.array([0.3, 0.4, 0.3])
    numpyro.sample("y", dist.DirichletMultinomial(base, total_count=12), obs=y)


ORDER = np.digitize(Y, [-0.5, 0.6])


@quadrature("ordered logistic, known cutpoints", factors={"w": "gaussian"}, x=X, y=ORDER)
def ordered_logistic(x, y):
    cutpoints = jnp.array([-0.5, 0.6])
    numpyro.sample("y", dist.OrderedLogistic(x @ coefficients(x), cutpoints), obs=y)


@quadrature("truncated normal regression", factors={"w": "gaussian"}, x=X, y=np.abs(Y))
def truncated_normal(x, y):
    numpyro.sample("y", dist.TruncatedNormal(x @ coefficients(x), 0.8, low=0.0), obs=y)


CEILING = 0.9
CENSORED = {"x": X, "y": np.minimum(Y, CEILING), "above": Y > CEILING}


@quadrature("censored normal regression", factors={"w": "gaussian"}, **CENSORED)
def censored_normal(x, y, above):
    """Rows at the ceiling add the log probability of lying above it."""
    eta = x @ coefficients(x)
    with numpyro.handlers.mask(mask=~above):
        numpyro.sample("y", dist.Normal(eta, 0.8), obs=y)
    with numpyro.handlers.mask(mask=above):
        beyond = dist.Normal(eta, 0.8).cdf(CEILING)
        numpyro.sample("above", dist.Bernoulli(1.0 - beyond), obs=jnp.ones_like(y))


SHARE = RNG.beta(3.0, 4.0, N)


@quadrature("beta regression", factors={"w": "gaussian", "phi": "gamma"}, x=X, y=SHARE)
def beta_regression(x, y):
    phi = numpyro.sample("phi", dist.Gamma(3.0, 0.5))
    mean = 1.0 / (1.0 + jnp.exp(-(x @ coefficients(x))))
    numpyro.sample("y", dist.Beta(mean * phi, (1.0 - mean) * phi), obs=y)


TIME = np.linspace(0.0, 3.0, 12)
KERNEL = np.exp(-0.5 * (TIME[:, None] - TIME) ** 2) + 1e-4 * np.eye(12)


@quadrature("Gaussian process classifier", factors={"f": "gaussian"}, kernel=KERNEL, y=BINARY[:12])
def gaussian_process_classifier(kernel, y):
    f = numpyro.sample("f", dist.MultivariateNormal(jnp.zeros(len(y)), kernel))
    numpyro.sample("y", dist.Bernoulli(logits=f), obs=y)
