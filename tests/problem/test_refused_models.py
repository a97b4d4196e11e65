"""Models that cannot be inferred, each with a sentence that says why and what to do."""

import jax
import jax.numpy as jnp
import jaxtyping
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from numpyro import handlers

from taut._core.errors import ArgumentError, DataError, ModelError
from taut.problem import describe

Y = np.array([0.5, -1.0, 2.0])


def good(y):
    m = numpyro.sample("m", dist.Normal(0, 1))
    numpyro.sample("y", dist.Normal(m, 1), obs=y)


def with_param(y):
    m = numpyro.param("loc", 0.0)
    s = numpyro.sample("s", dist.HalfNormal(1))
    numpyro.sample("y", dist.Normal(m, s), obs=y)


def only_params(y):
    numpyro.sample("y", dist.Normal(numpyro.param("loc", 0.0), 1), obs=y)


def countable(y):
    k = numpyro.sample("k", dist.Poisson(3.0))
    z = numpyro.sample("z", dist.Bernoulli(0.5))
    numpyro.sample("y", dist.Normal(k + z, 1), obs=y)


def delta(y):
    d = numpyro.sample("d", dist.Delta(2.0))
    m = numpyro.sample("m", dist.Normal(0, 1))
    numpyro.sample("y", dist.Normal(m + d, 1), obs=y)


def twice(y):
    numpyro.sample("m", dist.Normal(0, 1))
    good(y)


def nothing_latent(y):
    numpyro.sample("y", dist.Normal(0, 1), obs=y)


def branching(y):
    m = numpyro.sample("m", dist.Normal(0, 1))
    if m > 0:
        numpyro.sample("y", dist.Normal(m, 1), obs=y)


def rounding(y):
    m = numpyro.sample("m", dist.HalfNormal(1))
    numpyro.sample("y", dist.Normal(jnp.arange(int(m)).sum(), 1), obs=y)


def numpy_inside(y):
    m = numpyro.sample("m", dist.Normal(0, 1))
    numpyro.sample("y", dist.Normal(np.exp(m), 1), obs=y)


def spherical(y):
    d = numpyro.sample("d", dist.ProjectedNormal(jnp.zeros(3)))
    numpyro.sample("y", dist.Normal(d[0], 1), obs=y)


def by_position(y, /):
    good(y)


def starred(*args):
    good(*args)


def failing(y):
    raise ZeroDivisionError("my own mistake.")


def random_noise(y):
    m = numpyro.sample("m", dist.Normal(0, 1))
    noise = jax.random.normal(numpyro.prng_key(), (3,))
    numpyro.sample("y", dist.Normal(m + noise, 1), obs=y)


def no_groups(y):
    with numpyro.plate("g", 3):
        numpyro.sample("m", dist.Normal(jnp.zeros((0, 1)), 1))
    numpyro.sample("y", dist.Normal(0, 1), obs=y)


REFUSED = [
    (with_param, r"numpyro.param sites \('loc'\).*give them a prior with numpyro.sample"),
    (only_params, r"numpyro.param sites \('loc'\)"),
    (countable, r"'k' \(Poisson\) has no finite list of values to sum over; use a Categorical"),
    (delta, r"latent 'd' is a Delta.*use numpyro.deterministic\('d', value\)"),
    (twice, "twice uses one site name twice: .*`m`"),
    (nothing_latent, "no latent variables, so there is nothing to infer.*observed sites are 'y'"),
    (branching, "branching branches in Python on the value of a latent.*jnp.where"),
    (rounding, "needs the value of a latent.*use jax.numpy functions throughout"),
    (numpy_inside, "needs the value of a latent.*use jax.numpy functions throughout"),
    (spherical, "'d'.*ProjectedNormalReparam"),
    (by_position, "takes 'y' by position only.*remove the '/'"),
    (starred, r"takes its data as \*args, but data are given by name"),
    (failing, r"failing raised ZeroDivisionError while being traced: my own mistake\. The data"),
    (random_noise, r"site 'y' depends on random numbers .*\(numpyro.prng_key\)"),
]


@pytest.mark.parametrize(("model", "match"), REFUSED, ids=[m.__name__ for m, _ in REFUSED])
def test_refused_with_a_reason(model, match):
    with pytest.raises(ModelError, match=match):
        describe(model, {"y": Y})


def test_latents_without_elements():
    with pytest.raises(DataError, match=r"latent 'm' has shape \(0, 3\), with no elements"):
        describe(no_groups, {"y": Y})


def test_keys_that_do_not_reach_the_density_are_no_reason():
    """As in random networks, whose initial weights are drawn and then replaced by a prior."""

    def model(y):
        jax.random.normal(numpyro.prng_key(), (3,))
        good(y)

    assert describe(model, {"y": Y}).dim == 1
    assert describe(handlers.seed(good, 0), {"y": Y}).dim == 1


@pytest.mark.parametrize(
    ("model", "match"),
    [
        (None, r"got None; pass the function itself, not its result"),
        (3.0, "must be a NumPyro model function or a taut.Density, got float"),
        ({"y": Y}, "got dict; the model comes first, then the data"),
        (dist.Normal(0, 1), r"got a distribution \(Normal\); write a function that samples"),
        (dist.Normal, "got the class Normal; make an instance of it first"),
    ],
)
def test_what_is_no_model(model, match):
    jaxtyping.config.update("jaxtyping_disable", True)
    try:
        with pytest.raises(ModelError, match=match):
            describe(model, {"y": Y})
    finally:
        jaxtyping.config.update("jaxtyping_disable", False)


def test_a_problem_passes_through_but_takes_no_data():
    problem = describe(good, {"y": Y})
    jaxtyping.config.update("jaxtyping_disable", True)
    try:
        assert describe(problem) is problem
        with pytest.raises(ArgumentError, match="a Problem holds its data already"):
            describe(problem, {"y": Y})
    finally:
        jaxtyping.config.update("jaxtyping_disable", False)
