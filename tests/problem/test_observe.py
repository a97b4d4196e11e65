"""Conditioning on sites by name."""

import jax
import jaxtyping
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from numpyro.contrib.control_flow import scan
from numpyro_table import Y
from scipy import stats

from taut._core.errors import ArgumentError, DataError, ModelError
from taut.problem import describe


def two(y=None):
    m = numpyro.sample("m", dist.Normal(0, 3))
    s = numpyro.sample("s", dist.HalfNormal(2))
    numpyro.deterministic("ratio", m / s)
    numpyro.sample("y", dist.Normal(m, s).expand([6]), obs=y)


def test_observing_a_latent_is_substituting_it():
    """Same density in what is left: log p(m=0.7, s, y) against SciPy."""
    problem = describe(two, {"y": Y}, {"m": 0.7})
    assert [s.name for s in problem.latents] == ["s"]
    assert {s.name for s in problem.observed} == {"m", "y"}
    for u in np.array([[-0.4], [0.9]]):
        s = 2 * np.exp(u[0])  # in units of the prior's scale
        want = stats.norm.logpdf(0.7, 0, 3) + stats.halfnorm.logpdf(s, scale=2) + np.log(s)
        want += stats.norm.logpdf(Y, 0.7, s).sum()
        np.testing.assert_allclose(problem.log_joint(u), want, rtol=1e-10)


def test_observing_differs_from_substituting_by_the_priors_constant_only():
    def substituted(y):
        s = numpyro.sample("s", dist.HalfNormal(2))
        numpyro.sample("y", dist.Normal(0.7, s).expand([6]), obs=y)

    a, b = describe(two, {"y": Y}, {"m": 0.7}), describe(substituted, {"y": Y})
    gaps = [float(a.log_joint(u) - b.log_joint(u)) for u in np.array([[-1.0], [0.0], [1.5]])]
    np.testing.assert_allclose(gaps, stats.norm.logpdf(0.7, 0, 3), rtol=1e-12)


def test_observing_the_response_is_passing_it_as_data():
    a, b = describe(two, observe={"y": Y}), describe(two, {"y": Y})
    u = np.array([0.3, -0.2])
    np.testing.assert_allclose(a.log_joint(u), b.log_joint(u), rtol=1e-14)
    np.testing.assert_array_equal(a.observed_values()["y"], Y)
    np.testing.assert_allclose(a.log_likelihood(u)["y"], b.log_likelihood(u)["y"], rtol=1e-14)


def test_observe_overrides_data():
    a, b = describe(two, {"y": Y}, {"y": 2 * Y}), describe(two, {"y": 2 * Y})
    u = np.array([0.3, -0.2])
    np.testing.assert_allclose(a.log_joint(u), b.log_joint(u), rtol=1e-14)


def test_observe_takes_lists_frames_columns_and_numbers():
    import pandas as pd

    u = np.array([0.3, -0.2])
    want = describe(two, observe={"y": Y}).log_joint(u)
    for values in (Y.tolist(), tuple(Y), pd.Series(Y), jax.numpy.asarray(Y, float)):
        found = describe(two, observe={"y": values}).log_joint(u)
        np.testing.assert_allclose(found, want, rtol=1e-6)


def test_observing_a_discrete_latent_makes_it_data():
    def model(y):
        z = numpyro.sample("z", dist.Bernoulli(0.3))
        m = numpyro.sample("m", dist.Normal(z, 1))
        numpyro.sample("y", dist.Normal(m, 1), obs=y)

    problem = describe(model, {"y": Y}, {"z": 1})
    assert [s.name for s in problem.latents] == ["m"]
    sites = problem.log_joint_sites(np.zeros(1))
    np.testing.assert_allclose(sites["z"], np.log(0.3), rtol=1e-6)


def test_observing_inside_a_scan():
    def model(n):
        def step(carry, _):
            x = numpyro.sample("x", dist.Normal(carry, 1.0))
            numpyro.sample("y", dist.Normal(x, 0.5))
            return x, None

        scan(step, 0.0, None, length=n)

    problem = describe(model, {"n": 6}, {"y": Y})
    assert [(s.name, s.shape) for s in problem.latents] == [("x", (6,))]
    u = np.random.default_rng(0).normal(size=6)
    x = np.cumsum(u)  # non-centred: each step's innovation
    want = stats.norm.logpdf(u).sum() + stats.norm.logpdf(Y, x, 0.5).sum()
    np.testing.assert_allclose(problem.log_joint(u), want, rtol=1e-10)


@pytest.fixture
def _as_users_run():
    """Without the run-time check of annotations, which would refuse wrong kinds first."""
    jaxtyping.config.update("jaxtyping_disable", True)
    yield
    jaxtyping.config.update("jaxtyping_disable", False)


@pytest.mark.usefixtures("_as_users_run")
@pytest.mark.parametrize(
    ("observe", "error", "match"),
    [
        ({"yy": Y}, ArgumentError, "observe names 'yy'.*did you mean 'y'"),
        ({"sigma": 1.0}, ArgumentError, "observe names 'sigma'.*its sites are 'm', 's', 'y'"),
        ({"ratio": 1.0}, ArgumentError, "'ratio', which is a deterministic site"),
        ([1.0], ArgumentError, "observe must be a mapping of site names to values, got list"),
        ({"m": None}, ArgumentError, r"observe\['m'\] is None"),
        ({"m": "a"}, DataError, r"observe\['m'\] holds text"),
        ({"y": [[1.0], [2.0, 3.0]]}, DataError, r"observe\['y'\] is no array"),
        ({"y": np.ones(4)}, DataError, r"site 'y' has values of shape \(4,\).* shape \(6,\)"),
        ({"m": 0.1, "s": 1.0}, ModelError, "no latent variables"),
    ],
)
def test_observe_says_what_is_wrong(observe, error, match):
    with pytest.raises(error, match=match):
        describe(two, {"y": Y}, observe)
