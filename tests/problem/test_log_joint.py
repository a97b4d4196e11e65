"""The log joint against NumPyro's, and against SciPy's log densities, in any coordinates."""

import zlib

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from numpyro import handlers
from numpyro.infer.util import potential_energy
from numpyro_table import CASES, X, Y
from scipy import stats

from taut._core.precision import double_precision
from taut.problem import describe
from taut.problem.evaluator import Evaluator


@pytest.fixture(autouse=True)
def _float64():
    with double_precision():
        yield


def problem_of(name):
    return describe(CASES[name].model, CASES[name].data)


def points(name, dim, count=3):
    rng = np.random.default_rng(zlib.crc32(name.encode()))
    return rng.normal(size=(count, dim))


def centred(problem, value=1.0):
    return problem.with_centring(
        {s.name: np.full(s.centring, value) for s in problem.latents if s.centring is not None}
    )


def by_name(problem, u):
    return {s.name: jnp.reshape(u[s.slice], s.unconstrained_shape) for s in problem.latents}


def numpyro_log_joint(name, problem):
    """NumPyro's own log joint over the unconstrained space."""
    model, data = CASES[name]
    seeded = handlers.seed(model, jax.random.key(3))
    return lambda u: -potential_energy(seeded, (), data, by_name(problem, u))


@pytest.mark.parametrize("name", CASES)
def test_centred_log_joint_and_gradient_are_numpyros(name):
    problem = centred(problem_of(name))
    ours, theirs = problem.log_joint, numpyro_log_joint(name, problem)
    us = points(name, problem.dim)
    value, grad = jax.jit(jax.vmap(jax.value_and_grad(ours)))(us)
    want, want_grad = jax.jit(jax.vmap(jax.value_and_grad(theirs)))(us)
    assert np.isfinite(want).all()
    np.testing.assert_allclose(value, want, rtol=1e-10, atol=1e-10)
    np.testing.assert_allclose(grad, want_grad, rtol=1e-9, atol=1e-9)


def some_coordinates(name, problem):
    """A share of centring for each latent: one of them 0, one of them 1, the others between."""
    rng = np.random.default_rng(zlib.crc32(name.encode()))
    movable = [s for s in problem.latents if s.centring is not None]
    shares = {s.name: rng.uniform(size=s.centring) for s in movable}
    for share, s in zip([0.0, 1.0], movable[1:], strict=False):
        shares[s.name] = np.full(s.centring, share)
    return shares


@pytest.mark.parametrize("name", CASES)
def test_density_transforms_with_the_coordinates(name):
    """log p(u) = log p(v(u)) + log |det dv/du|, the determinant from the map itself."""
    problem = problem_of(name)
    moved, plain = problem.with_centring(some_coordinates(name, problem)), centred(problem)

    def to_centred(u):
        return plain.unconstrain(moved.constrain(u))

    def everything(u):
        v, jacobian = to_centred(u), jax.jacfwd(to_centred)(u)
        sign, log_det = jnp.linalg.slogdet(jacobian)
        back = moved.unconstrain(moved.constrain(u))
        return sign, moved.log_joint(u), plain.log_joint(v) + log_det, back

    us = points(name, problem.dim)
    sign, ours, transformed, back = jax.jit(jax.vmap(everything))(us)
    assert (sign > 0).all()
    np.testing.assert_allclose(ours, transformed, rtol=1e-9, atol=1e-8)
    np.testing.assert_allclose(back, us, rtol=1e-7, atol=1e-7)
    shapes = jax.eval_shape(moved.constrain, us[0])
    assert {s.name: s.shape for s in problem.latents}.items() <= {
        n: v.shape for n, v in shapes.items()
    }.items()


@pytest.mark.parametrize("name", ["plates", "deterministic and factor", "scan", "improper"])
def test_evaluator_gives_the_same_numbers_in_batches(name):
    problem = problem_of(name)
    us = points(name, problem.dim, 70)  # more than one batch
    values, grads = Evaluator(problem).value_and_grad(us)
    want, want_grads = jax.jit(jax.vmap(jax.value_and_grad(problem.log_joint)))(us)
    np.testing.assert_allclose(values, want, rtol=1e-10)
    np.testing.assert_allclose(grads, want_grads, rtol=1e-9, atol=1e-9)
    np.testing.assert_allclose(Evaluator(problem).value(us), want, rtol=1e-10)


# --- site by site -----------------------------------------------------------------------------


def regression(x, y):
    a = numpyro.sample("a", dist.Normal(1.0, 3.0))
    b = numpyro.sample("b", dist.StudentT(5.0, 0.0, 2.0).expand([3]).to_event(1))
    s = numpyro.sample("s", dist.Gamma(2.0, 4.0))
    k = numpyro.sample("k", dist.Beta(2.0, 3.0))
    numpyro.factor("extra", -k * a)
    numpyro.deterministic("double", 2 * a)
    numpyro.sample("y", dist.Normal(a + x @ b, s), obs=y)


def scipy_sites(values):
    """Log densities of the sites of ``regression`` in the model's own space."""
    a, b, s, k = (np.asarray(values[n]) for n in "absk")
    return {
        "a": stats.norm.logpdf(a, 1.0, 3.0),
        "b": stats.t.logpdf(b, 5.0, 0.0, 2.0).sum(),
        "s": stats.gamma.logpdf(s, 2.0, scale=1 / 4.0),
        "k": stats.beta.logpdf(k, 2.0, 3.0),
        "extra": -k * a,
        "y": stats.norm.logpdf(Y, a + X @ b, s).sum(),
    }


def test_sites_are_scipys_and_add_up_to_the_total():
    problem = centred(describe(regression, {"x": X, "y": Y}))
    for u in points("sites", problem.dim):
        values, sites = problem.constrain(u), problem.log_joint_sites(u)
        want = scipy_sites(values)
        want["s"] += np.log(values["s"])  # log Jacobian of exp
        want["k"] += np.log(values["k"]) + np.log1p(-values["k"])  # and of the logistic
        assert set(sites) == set(want)
        for name, value in want.items():
            np.testing.assert_allclose(sites[name], value, rtol=1e-10, atol=1e-10, err_msg=name)
        np.testing.assert_allclose(problem.log_joint(u), sum(want.values()), rtol=1e-10)
        np.testing.assert_allclose(values["double"], 2 * values["a"], rtol=1e-14)


def test_noncentred_coordinates_are_standard_under_their_prior():
    """At centring 0 a normal latent's coordinate is (value - location) / scale."""
    problem = describe(CASES["plates"].model, CASES["plates"].data)
    for u in points("standard", problem.dim):
        values = problem.constrain(u)
        at = by_name(problem, u)
        np.testing.assert_allclose(values["mu"], 5.0 * at["mu"], rtol=1e-12)
        np.testing.assert_allclose(values["tau"], 5.0 * np.exp(at["tau"]), rtol=1e-12)
        want = values["mu"] + values["tau"] * at["theta"]
        np.testing.assert_allclose(values["theta"], want, rtol=1e-12)
        np.testing.assert_allclose(
            problem.log_joint_sites(u)["theta"], stats.norm.logpdf(at["theta"]).sum(), rtol=1e-12
        )


def test_pointwise_log_likelihood_is_scipys_and_leaves_factors_out():
    problem = describe(regression, {"x": X, "y": Y})
    u = points("pointwise", problem.dim, 1)[0]
    values = problem.constrain(u)
    found = problem.log_likelihood(u)
    assert set(found) == {"y"}
    want = stats.norm.logpdf(Y, values["a"] + X @ np.asarray(values["b"]), values["s"])
    np.testing.assert_allclose(found["y"], want, rtol=1e-10)


def test_pointwise_log_likelihood_is_unscaled():
    problem = describe(CASES["scale"].model, {"y": Y})
    u = np.array([0.4])
    want = stats.norm.logpdf(Y, problem.constrain(u)["m"], 1.0)
    np.testing.assert_allclose(problem.log_likelihood(u)["y"], want, rtol=1e-10)
    np.testing.assert_allclose(problem.log_joint_sites(u)["y"], 2.5 * want.sum(), rtol=1e-10)


def test_a_scaled_prior_is_scaled_in_the_models_own_space():
    """p(s)^3, with the Jacobian once: the answer must not depend on the coordinates.

    NumPyro scales the Jacobian too, so its answer is that of another prior; here the truth is SciPy's.
    """

    def model():
        with handlers.scale(scale=3.0):
            numpyro.sample("s", dist.HalfNormal(2.0))

    problem = centred(describe(model))
    for u in np.array([[-1.3], [0.2], [1.1]]):
        s = np.exp(u[0])
        want = 3.0 * stats.halfnorm.logpdf(s, scale=2.0) + u[0]
        np.testing.assert_allclose(problem.log_joint(u), want, rtol=1e-10)


def test_mask_leaves_gradients_finite_under_nan():
    problem = problem_of("mask over NaN")
    grad = jax.grad(problem.log_joint)(jnp.full(problem.dim, 0.2))
    assert np.isfinite(grad).all()
    seen = ~np.isnan(CASES["mask over NaN"].data["y"])
    pointwise = problem.log_likelihood(jnp.full(problem.dim, 0.2))["y"]
    assert (np.asarray(pointwise)[~seen] == 0).all()
    assert (np.asarray(pointwise)[seen] != 0).all()
