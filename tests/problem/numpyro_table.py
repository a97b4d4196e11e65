"""NumPyro models with data, over which what taut reads is compared with NumPyro's own answers."""

import functools
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
from numpyro import handlers
from numpyro.contrib.control_flow import scan
from numpyro.distributions import constraints
from numpyro.infer.reparam import LocScaleReparam

RNG = np.random.default_rng(20240)
Y = RNG.normal(1.0, 2.0, 6)
X = RNG.normal(size=(6, 3))
GROUP = np.array([0, 0, 1, 1, 2, 2])
GAPS = np.where([True, False, True, True, False, True], Y, np.nan)


class Case(NamedTuple):
    """A model, its data, and names of what it shows."""

    model: Any
    data: dict[str, Any]


def plates(y):
    mu = numpyro.sample("mu", dist.Normal(0.0, 5.0))
    tau = numpyro.sample("tau", dist.HalfCauchy(5.0))
    with numpyro.plate("school", len(y)):
        theta = numpyro.sample("theta", dist.Normal(mu, tau))
        numpyro.sample("y", dist.Normal(theta, 2.0), obs=y)


def nested_plates(y):
    scale = numpyro.sample("scale", dist.LogNormal(0.0, 1.0))
    with numpyro.plate("column", 3, dim=-1):
        a = numpyro.sample("a", dist.StudentT(4.0, 1.0, 2.0))
        with numpyro.plate("row", 2, dim=-2):
            b = numpyro.sample("b", dist.Laplace(a, scale))
            numpyro.sample("y", dist.Cauchy(b, 1.5), obs=y)


def deterministic_and_factor(x, y):
    b = numpyro.sample("b", dist.Normal(0, 1).expand([3]).to_event(1))
    s = numpyro.sample("s", dist.Exponential(0.5))
    mean = numpyro.deterministic("mean", x @ b)
    numpyro.factor("penalty", -0.3 * jnp.sum(b**2) * s)
    numpyro.sample("y", dist.Normal(mean, s), obs=y)


def masked(y):
    m = numpyro.sample("m", dist.Normal(0, 1))
    s = numpyro.sample("s", dist.Gamma(2.0, 3.0))
    with handlers.mask(mask=~jnp.isnan(y)):
        numpyro.sample("y", dist.Normal(m, s), obs=y)


def improper(y):
    a = numpyro.sample("a", dist.ImproperUniform(constraints.real, (), ()))
    s = numpyro.sample("s", dist.ImproperUniform(constraints.positive, (), ()))
    b = numpyro.sample("b", dist.ImproperUniform(constraints.ordered_vector, (), (3,)))
    w = numpyro.sample("w", dist.ImproperUniform(constraints.simplex, (), (3,)))
    p = numpyro.sample("p", dist.ImproperUniform(constraints.unit_interval, (2,), ()))
    numpyro.sample("y", dist.Normal(a + b @ w + p.sum(), s), obs=y)


def dirichlet(y):
    w = numpyro.sample("w", dist.Dirichlet(jnp.array([1.0, 2.0, 0.5])))
    with numpyro.plate("k", 2):
        v = numpyro.sample("v", dist.Dirichlet(jnp.ones(4)))
    numpyro.sample("y", dist.Normal(w @ jnp.arange(3.0) + v[:, 1].sum(), 1.0), obs=y)


def correlation(y):
    factor = numpyro.sample("factor", dist.LKJCholesky(3, 2.0))
    sd = numpyro.sample("sd", dist.HalfNormal(2.0).expand([3]).to_event(1))
    scaled = sd[:, None] * factor
    obs = y.reshape(2, 3)
    numpyro.sample("y", dist.MultivariateNormal(jnp.zeros(3), scale_tril=scaled), obs=obs)


def dynamic_support(y):
    top = numpyro.sample("top", dist.HalfNormal(2.0))
    a = numpyro.sample("a", dist.Uniform(-top, 2 * top))
    b = numpyro.sample("b", dist.TruncatedNormal(0.0, 1.0, low=a))
    numpyro.sample("y", dist.Normal(a + b, 1.0), obs=y)


def ordered(y):
    loc = dist.Normal(0, 1).expand([3]).to_event(1)
    cut = dist.TransformedDistribution(loc, dist.transforms.OrderedTransform())
    c = numpyro.sample("c", cut)
    numpyro.sample("y", dist.Normal(c.sum(), 1.0), obs=y)


def scanned(y):
    s = numpyro.sample("s", dist.HalfNormal(1.0))
    phi = numpyro.sample("phi", dist.Beta(3.0, 2.0))

    def step(carry, value):
        x = numpyro.sample("x", dist.Normal(phi * carry, s))
        numpyro.sample("y", dist.Normal(x, 0.5), obs=value)
        return x, x

    scan(step, 0.3, y)


def tempered(y):
    with handlers.scale(scale=0.4):
        m = numpyro.sample("m", dist.Normal(0.0, 2.0))
    with handlers.scale(scale=2.5):
        numpyro.sample("y", dist.Normal(m, 1.0), obs=y)


def partly_observed(y, seen):
    m = numpyro.sample("m", dist.Normal(0.0, 2.0))
    numpyro.sample("y", dist.Normal(m, 1.0).expand([6]), obs=y, obs_mask=seen)


def multivariate(x, y):
    scale = numpyro.sample("scale", dist.InverseGamma(3.0, 2.0))
    kernel = scale * (x @ x.T + jnp.eye(6))
    f = numpyro.sample("f", dist.MultivariateNormal(jnp.ones(6), kernel))
    numpyro.sample("y", dist.Normal(f, 1.0), obs=y)


def location_scale_priors(y):
    loc = numpyro.sample("loc", dist.Normal(1.0, 3.0))
    scale = numpyro.sample("scale", dist.HalfCauchy(2.0))
    out = 0.0
    for name in ("Normal", "Cauchy", "Laplace", "Logistic", "Gumbel", "SoftLaplace"):
        out = out + numpyro.sample(name.lower(), getattr(dist, name)(loc, scale))
    out = out + numpyro.sample("t", dist.StudentT(3.0, loc, scale))
    out = out + numpyro.sample("lognormal", dist.LogNormal(loc, scale))
    numpyro.sample("y", dist.Normal(out, 1.0), obs=y)


def positive_priors(y):
    rate = numpyro.sample("rate", dist.HalfNormal(2.0))
    out = 0.0
    for name, prior in {
        "half_normal": dist.HalfNormal(rate),
        "half_cauchy": dist.HalfCauchy(rate),
        "weibull": dist.Weibull(rate, 1.5),
        "gamma": dist.Gamma(2.5, rate),
        "inverse_gamma": dist.InverseGamma(2.5, rate),
        "exponential": dist.Exponential(rate),
        "chi2": dist.Chi2(3.0),
        "beta": dist.Beta(rate, 2.0),
        "pareto": dist.Pareto(rate, 2.0),
    }.items():
        out = out + numpyro.sample(name, prior)
    numpyro.sample("y", dist.Normal(out, 1.0), obs=y)


def random_walk(y):
    s = numpyro.sample("s", dist.Gamma(2.0, 2.0))
    with numpyro.plate("series", 2):
        w = numpyro.sample("w", dist.GaussianRandomWalk(s, 6))
    numpyro.sample("y", dist.Normal(w.sum(0), 1.0), obs=y)


def reparameterised(y):
    mu = numpyro.sample("mu", dist.Normal(0.0, 5.0))
    with numpyro.plate("unit", 6), handlers.reparam(config={"theta": LocScaleReparam(0.3)}):
        theta = numpyro.sample("theta", dist.Normal(mu, 2.0))
        numpyro.sample("y", dist.Normal(theta, 1.0), obs=y)


def groups(x, y, group):
    with numpyro.plate("g", int(group.max()) + 1):
        slope = numpyro.sample("slope", dist.Normal(0.0, 1.0))
    b0 = numpyro.sample("b0", dist.Normal(0.0, 1.0))
    with numpyro.plate("n", len(y)):
        numpyro.sample("y", dist.Bernoulli(logits=b0 + slope[group] * x[:, 0]), obs=y)


def expanded_inside(y):
    """A prior whose event was expanded: no centring, but the density must hold."""
    s = numpyro.sample("s", dist.HalfNormal(jnp.ones(2)).to_event(1))
    m = numpyro.sample("m", dist.Normal(jnp.zeros((1, 3)), s[:, None]).to_event(2))
    numpyro.sample("y", dist.Normal(m.sum(), 1.0), obs=y)


def with_scale(y, scale):
    m = numpyro.sample("m", dist.Normal(0, scale))
    numpyro.sample("y", dist.Normal(m, 1), obs=y)


CASES = {
    "plates": Case(plates, {"y": Y}),
    "nested plates": Case(nested_plates, {"y": Y.reshape(2, 3)}),
    "deterministic and factor": Case(deterministic_and_factor, {"x": X, "y": Y}),
    "mask over NaN": Case(masked, {"y": GAPS}),
    "improper": Case(improper, {"y": Y}),
    "dirichlet": Case(dirichlet, {"y": Y}),
    "correlation": Case(correlation, {"y": Y}),
    "dynamic support": Case(dynamic_support, {"y": Y}),
    "ordered": Case(ordered, {"y": Y}),
    "scan": Case(scanned, {"y": Y}),
    "scale": Case(tempered, {"y": Y}),
    "obs_mask": Case(partly_observed, {"y": Y, "seen": ~np.isnan(GAPS)}),
    "multivariate": Case(multivariate, {"x": X, "y": Y}),
    "location-scale priors": Case(location_scale_priors, {"y": Y}),
    "positive priors": Case(positive_priors, {"y": Y}),
    "random walk": Case(random_walk, {"y": Y}),
    "reparameterised": Case(reparameterised, {"y": Y}),
    "groups": Case(groups, {"x": X, "y": (Y > 0).astype(int), "group": GROUP}),
    "expanded inside": Case(expanded_inside, {"y": Y}),
    "partial": Case(functools.partial(with_scale, scale=2.0), {"y": Y}),
    "nothing observed": Case(with_scale, {"y": None, "scale": 1.0}),
}
