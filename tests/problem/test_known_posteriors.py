"""The log joint of conjugate models integrates to the known evidence and moments."""

import jax
import numpy as np
import pytest
from scipy import integrate, stats

import targets
from taut._core.precision import double_precision
from taut.problem import describe


@pytest.mark.parametrize("name", [n for n in targets.ALL if n != "regression"])
def test_one_latent_by_quadrature(name):
    known = targets.ALL[name]()
    problem = describe(known.model, known.data)
    (latent,) = problem.latents
    with double_precision():
        log_joint = jax.jit(jax.vmap(problem.log_joint))
        value = jax.jit(jax.vmap(lambda u: problem.constrain(u)[latent.name]))
        grid = np.linspace(-12.0, 12.0, 8001)
        weights = np.exp(np.asarray(log_joint(grid[:, None])) - known.log_evidence)
        values = np.asarray(value(grid[:, None]))
    mean = integrate.simpson(weights * values, x=grid)
    variance = integrate.simpson(weights * (values - mean) ** 2, x=grid)
    assert integrate.simpson(weights, x=grid) == pytest.approx(1.0, rel=1e-8)
    assert mean == pytest.approx(float(known.mean[latent.name]), rel=1e-8)
    assert np.sqrt(variance) == pytest.approx(float(known.sd[latent.name]), rel=1e-8)


def test_regression_is_gaussian_of_known_moments():
    """log joint - log evidence is the posterior's normal density, at any point."""
    known = targets.regression()
    problem = describe(known.model, known.data)
    x = known.data["x"]
    covariance = np.linalg.inv(x.T @ x / 0.7**2 + np.eye(3) / 9.0)
    for u in np.random.default_rng(5).normal(size=(3, 3)):
        b = np.asarray(problem.constrain(u)["b"])
        want = stats.multivariate_normal.logpdf(b, known.mean["b"], covariance)
        jacobian = 3 * np.log(3.0)  # b = 3 u
        assert float(problem.log_joint(u)) - known.log_evidence == pytest.approx(want + jacobian)
