"""Families bound to a model: parameters, draws and layouts."""

import inspect
from typing import Any

import jax
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from gaussian_table import block, dense, diagonal
from jaxtyping import TypeCheckError
from scipy import stats

from taut import families
from taut._core.errors import ArgumentError
from taut._core.precision import double_precision
from taut.families import AbstractGaussianFamily, Block, Dense, Diagonal, LowRank
from taut.problem import Latent
from taut.problem.numpyro_model import from_numpyro

FAMILIES = {
    "diagonal": Diagonal(),
    "dense": Dense(),
    "low rank": LowRank(2),
    "block by latent": Block(),
    "block by plate": Block("plate"),
}
each = pytest.mark.parametrize("family", FAMILIES.values(), ids=FAMILIES)


def latent(name, shape, start, plates=()):
    dims = tuple(plates) + tuple(f"{name}_{i}" for i in range(len(shape) - len(plates)))
    return Latent(name, shape, "real", "Normal", tuple(plates), dims, shape, start)


LATENTS = (
    latent("mu", (), 0),
    latent("theta", (3,), 1, ("group",)),
    latent("effect", (3, 2), 4, ("group",)),
    latent("tau", (), 10),
)


def form_and_params(family, seed=0):
    form = family.bind(LATENTS)
    params = form.initial(dense(11).q)
    rng = np.random.default_rng(seed)
    return form, params + 0.3 * rng.standard_normal(len(params))


def test_every_exported_family_is_in_the_table():
    exported = {
        value
        for name in families.__all__
        if inspect.isclass(value := getattr(families, name))
        and issubclass(value, AbstractGaussianFamily)
    }
    assert exported - {AbstractGaussianFamily} == {type(f) for f in FAMILIES.values()}


@each
def test_draws_have_the_distribution_that_gaussian_returns(family):
    """Draws are affine in the noise: their exact moments are the mean and covariance of q."""
    form, params = form_and_params(family)
    q = form.gaussian(params)
    with double_precision():
        noise = np.concatenate([np.zeros((1, form.noise_dim)), np.eye(form.noise_dim)])
        points, log_det = jax.jit(form.draws)(params, noise)
        points, log_det = np.asarray(points), float(log_det)
    root = points[1:] - points[0]
    assert np.allclose(points[0], q.mean, atol=1e-12)
    assert np.allclose(root.T @ root, q.covariance, rtol=1e-10, atol=1e-12)
    assert log_det == pytest.approx(q.log_det, abs=1e-10)
    assert log_det == pytest.approx(0.5 * np.linalg.slogdet(root.T @ root)[1], abs=1e-9)


@each
def test_draws_are_differentiable_in_the_parameters(family):
    form, params = form_and_params(family)
    noise = np.random.default_rng(1).standard_normal((4, form.noise_dim))

    def loss(p):
        points, log_det = form.draws(p, noise)
        return (points**2).sum() * 0.01 + log_det

    with double_precision():
        gradient = np.asarray(jax.jit(jax.grad(loss))(params))
        step = 1e-5 * np.eye(len(params))
        moved = jax.jit(jax.vmap(loss))(np.concatenate([params + step, params - step]))
        numeric = (moved[: len(params)] - moved[len(params) :]) / 2e-5
    assert np.allclose(gradient, numeric, rtol=1e-5, atol=1e-6)


@each
@pytest.mark.parametrize("make", [diagonal, dense, block])
def test_the_initial_member_keeps_the_marginals(family, make):
    q, form = make(11).q, family.bind(LATENTS)
    member = form.gaussian(form.initial(q))
    assert np.allclose(member.mean, q.mean)
    assert np.allclose(member.sd, q.sd, rtol=1e-8)


@pytest.mark.parametrize("family", [Dense(), Block("plate"), Block()])
def test_the_initial_member_keeps_correlations_within_blocks_of_ill_conditioned_roots(family):
    root = np.linalg.qr(np.random.default_rng(4).standard_normal((11, 11)))[0] * np.geomspace(
        1, 1e-9, 11
    )
    q = families.DenseGaussian.from_root(np.zeros(11), root)  # its covariance is singular in floats
    form = family.bind(LATENTS)
    member = form.gaussian(form.initial(q))
    for blocks in form.layout:
        for index in blocks:
            inside = np.ix_(index, index)
            assert np.allclose(
                member.covariance[inside], q.covariance[inside], rtol=1e-8, atol=1e-14
            )
    assert np.isfinite(member.log_det)


@each
def test_scaled_multiplies_every_sd(family):
    form, params = form_and_params(family)
    before = params.copy()
    q, narrow = form.gaussian(params), form.gaussian(form.scaled(params, 0.5))
    assert np.array_equal(params, before)
    assert np.allclose(narrow.covariance, 0.25 * q.covariance, rtol=1e-10)
    assert np.array_equal(narrow.mean, q.mean)


def test_low_rank_of_full_rank_reaches_any_covariance():
    """With as many directions as coordinates S = D (I + V V') D is any S above D^2."""
    target = dense(4).covariance
    form = LowRank(10).bind((latent("u", (4,), 0),))
    assert form.rank == 4
    scale = np.full(4, 0.5 * np.sqrt(np.linalg.eigvalsh(target)[0]))
    values, vectors = np.linalg.eigh(target / np.outer(scale, scale) - np.eye(4))
    params = np.concatenate([np.zeros(4), np.log(scale), (vectors * np.sqrt(values)).ravel()])
    q = form.gaussian(params)
    assert np.allclose(q.covariance, target, rtol=1e-10)
    points = np.random.default_rng(0).standard_normal((5, 4))
    assert np.allclose(
        q.log_prob(points), stats.multivariate_normal(np.zeros(4), target).logpdf(points)
    )


def test_one_block_per_latent():
    layout = Block().bind(LATENTS).layout
    assert layout == (((0,), (10,)), ((1, 2, 3),), ((4, 5, 6, 7, 8, 9),))


def test_one_block_per_plate_element_couples_its_latents():
    layout = Block("plate").bind(LATENTS).layout
    assert layout == (((0, 10),), ((1, 4, 5), (2, 6, 7), (3, 8, 9)))


def nested(y=None):
    mu = numpyro.sample("mu", dist.Normal(0.0, 1.0))
    with numpyro.plate("school", 2, dim=-2):
        a = numpyro.sample("a", dist.Normal(mu, 1.0))
        with numpyro.plate("pupil", 3, dim=-1):
            b = numpyro.sample("b", dist.Normal(a, 1.0))
            c = numpyro.sample("c", dist.Dirichlet(np.ones(3)))
    numpyro.sample("y", dist.Normal(b.sum() + c.sum(), 1.0), obs=y)


def test_nested_plates_of_a_numpyro_model():
    with double_precision():
        latents = from_numpyro(nested, {"y": np.asarray(1.0)}).latents
    at = {s.name: np.arange(s.start, s.stop).reshape(s.unconstrained_shape) for s in latents}
    assert at["c"].shape == (2, 3, 2)
    pupils = {(at["b"][i, j], *at["c"][i, j]) for i in range(2) for j in range(3)}
    expected = {(int(at["mu"]),)} | {(int(v),) for v in at["a"].ravel()} | pupils
    layout = Block("plate").bind(latents).layout
    assert {tuple(sorted(b)) for blocks in layout for b in blocks} == {
        tuple(sorted(map(int, e))) for e in expected
    }


def test_bad_settings_are_refused():
    with pytest.raises(
        ArgumentError, match=r"rank must be at least 1, got 0; use families\.Diagonal"
    ):
        LowRank(0)
    wrong: Any = "group"
    with pytest.raises(
        (ArgumentError, TypeCheckError), match="group"
    ):  # types are checked in tests
        Block(wrong)


@each
def test_families_and_forms_are_hashable_settings(family):
    assert family.bind(LATENTS) == family.bind(LATENTS)
    assert hash(family.bind(LATENTS)) == hash(family.bind(LATENTS))
    assert family.describe()
