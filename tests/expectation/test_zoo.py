"""The zoo itself: its descriptions fit its models, and its Monte Carlo truth is right."""

import numpy as np
import numpyro.distributions as dist
import pytest
from scipy import stats
from zoo import CASES, FACTORS, METHODS, latents_of, monte_carlo, spread_draws

SUPPORTS = {
    "gamma": dist.constraints.positive,
    "inverse_gamma": dist.constraints.positive,
    "beta": dist.constraints.unit_interval,
    "dirichlet": dist.constraints.simplex,
    "wishart": dist.constraints.positive_definite,
}
each = pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)


def innermost(support):
    while hasattr(support, "base_constraint"):
        support = support.base_constraint
    return support


def test_names_are_unique():
    assert len({case.name for case in CASES}) == len(CASES)


@each
def test_factors_fit_the_latents(case):
    sites = latents_of(case)
    assert set(case.factors) == set(sites)
    assert set(case.factors.values()) <= set(FACTORS)
    assert case.method in METHODS
    for name, factor in case.factors.items():
        fn = sites[name]["fn"]
        assert fn.support.is_discrete == (factor == "categorical"), name
        if factor in SUPPORTS:
            assert innermost(fn.support) == SUPPORTS[factor], name


@each
def test_log_probs_are_finite(case):
    means = monte_carlo(case, spread_draws(case, 0), 64)
    assert all(np.isfinite(mean.mean) and np.isfinite(mean.error) for mean in means.values())


def test_monte_carlo_agrees_with_closed_forms():
    """False alarm: under 1e-4, fixed key."""
    case = next(case for case in CASES if case.name == "linear regression")
    x, y = case.data["x"], case.data["y"]
    rng, mean = np.random.default_rng(5), np.array([0.5, -0.2, 0.1])
    means = monte_carlo(
        case, lambda n: {"w": mean + 0.4 * rng.standard_normal((n, 3))}, 20_000, chunk=7_000
    )
    prior = stats.norm(0.0, 2.0).logpdf(mean).sum() - 3 * 0.5 * 0.4**2 / 4.0
    fitted = stats.norm(x @ mean, 0.7).logpdf(y).sum() - 0.5 * 0.4**2 * np.sum(x**2) / 0.7**2
    for name, truth in {"w": prior, "y": fitted, "total": prior + fitted}.items():
        assert abs(means[name].mean - truth) < 4 * means[name].error
