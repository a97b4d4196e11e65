"""Models whose likelihood folds, with data."""

import numpy as np
import numpyro
import numpyro.distributions as dist


def line(x, y=None):
    a = numpyro.sample("a", dist.Normal(0, 10))
    b = numpyro.sample("b", dist.Normal(0, 10))
    s = numpyro.sample("s", dist.HalfNormal(5))
    with numpyro.plate("rows", len(x)):
        mean = numpyro.deterministic("mean", a + b * x)
        numpyro.sample("y", dist.Normal(mean, s), obs=y)


def groups(g, x, num_groups, y=None):
    mu = numpyro.sample("mu", dist.Normal(0, 5))
    tau = numpyro.sample("tau", dist.HalfNormal(2))
    b = numpyro.sample("b", dist.Normal(0, 5))
    s = numpyro.sample("s", dist.HalfNormal(2))
    with numpyro.plate("groups", num_groups):
        theta = numpyro.sample("theta", dist.Normal(mu, tau))
    numpyro.deterministic("spread", tau / s)
    with numpyro.plate("rows", len(g)):
        numpyro.sample("y", dist.Normal(theta[g] + b * x, s), obs=y)


def counts(g, num_groups, y=None):
    shape = numpyro.sample("shape", dist.Gamma(2.0, 1.0))
    rate = numpyro.sample("rate", dist.Gamma(2.0, 1.0))
    with numpyro.plate("groups", num_groups):
        lam = numpyro.sample("lam", dist.Gamma(shape, rate))
    with numpyro.plate("rows", len(g)):
        numpyro.sample("y", dist.Poisson(lam[g]), obs=y)


def matrix(x, y=None):
    s = numpyro.sample("s", dist.Uniform(0.01, 10))
    w = numpyro.sample("w", dist.Normal(0, 1).expand([x.shape[1]]).to_event(1))
    with numpyro.plate("rows", x.shape[0]):
        numpyro.sample("y", dist.Normal(x @ w, s), obs=y)


def data_of(name, rows=3_301, seed=0):
    rng = np.random.default_rng(seed)
    x, g = rng.normal(size=rows), rng.integers(0, 7, rows)
    if name == "line":
        return {"x": x, "y": 1 + 2 * x + 0.7 * rng.normal(size=rows)}, {}
    if name == "groups":
        y = rng.normal(size=7)[g] + 0.5 * x + 0.8 * rng.normal(size=rows)
        return {"g": g, "x": x, "y": y}, {"num_groups": 7}
    if name == "counts":
        return {"g": g, "y": rng.poisson(rng.gamma(3, 1, 7)[g])}, {"num_groups": 7}
    x = rng.normal(size=(rows, 3))
    return {"x": x, "y": x @ [1.0, -1.0, 0.5] + rng.normal(size=rows)}, {}


MODELS = {"line": line, "groups": groups, "counts": counts, "matrix": matrix}
