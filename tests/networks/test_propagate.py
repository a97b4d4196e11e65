"""Local reparameterisation and flipout beside the law of the weights that they stand for.

Statistical tests have fixed seeds. A 5-standard-error bound on a normal mean is broken by chance
with probability 6e-7 for each number compared; the numbers compared in a test are below a thousand.
"""

import functools

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from network_tasks import make_task, some_scales, z_scores

from taut.networks.mean_field import gaussian_draw
from taut.networks.posteriors import describe, expected_outputs, treatments
from taut.networks.propagate import Gaussian, Treatment

KEY = jax.random.key(3)


class Convolutional(eqx.Module):
    conv: eqx.nn.Conv2d
    head: eqx.nn.Linear

    def __call__(self, x):
        return self.head(jnp.ravel(jnp.tanh(self.conv(x))))


class Residual(eqx.Module):
    """A pre-activation that two steps use: they have to see one draw."""

    layer: eqx.nn.Linear

    def __call__(self, x):
        h = self.layer(x)
        return h - jnp.tanh(0.0 * h) - h


class Tied(eqx.Module):
    weight: jax.Array

    def __call__(self, x):
        return self.weight.T @ jnp.tanh(self.weight @ x)


def outputs(task, scales, x, key, estimator="local", positions="flipout"):
    found = treatments(task, estimator, positions)
    weights = list(task.architecture.initial)
    return jax.jit(lambda x, key: expected_outputs(task, found, weights, scales, x, key)[0])(x, key)


def test_dense_moments_are_those_of_the_weights():
    module = eqx.nn.Linear(4, 3, key=KEY)
    task = make_task(module, jnp.zeros(4))
    scales = some_scales(task.architecture.initial, jax.random.key(1))
    x = jax.random.normal(jax.random.key(2), (6, 4))
    found = outputs(task, scales, x, KEY)
    assert isinstance(found, Gaussian)
    w, b = (np.asarray(v, float) for v in task.architecture.initial)
    sw, sb = (np.asarray(v, float) for v in scales)
    rows = np.asarray(x, float)
    np.testing.assert_allclose(found.mean, rows @ w.T + b, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(found.variance, rows**2 @ (sw**2).T + sb**2, rtol=1e-5)


def test_convolution_moments_are_those_of_the_weights():
    module = eqx.nn.Conv2d(2, 3, 3, stride=2, padding=1, key=KEY)
    task = make_task(module, jnp.zeros((2, 6, 6)))
    scales = some_scales(task.architecture.initial, jax.random.key(1))
    # The bias is drawn with the datum; without it the output is left as a Gaussian.
    scales[1] = jnp.zeros_like(scales[1])
    x = jax.random.normal(jax.random.key(2), (1, 2, 6, 6))
    found = outputs(task, scales, x, KEY, positions="marginal")
    assert isinstance(found, Gaussian)
    w, b = (np.asarray(v, float) for v in task.architecture.initial)
    padded = np.pad(np.asarray(x[0], float), ((0, 0), (1, 1), (1, 1)))
    mean, variance = np.zeros((3, 3, 3)), np.zeros((3, 3, 3))
    for i in range(3):
        for j in range(3):
            patch = padded[:, 2 * i : 2 * i + 3, 2 * j : 2 * j + 3]
            mean[:, i, j] = np.tensordot(w, patch, 3) + b[:, 0, 0]
            variance[:, i, j] = np.tensordot(np.asarray(scales[0], float) ** 2, patch**2, 3)
    np.testing.assert_allclose(found.mean[0], mean, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(found.variance[0], variance, rtol=1e-4)


@pytest.mark.stat
@pytest.mark.parametrize("estimator", ["local", "flipout"])
def test_positions_of_a_convolution_stay_dependent(estimator):
    """Second moments between all outputs of one datum are those of drawn weights."""
    module = eqx.nn.Conv1d(1, 2, 2, key=KEY)
    task = make_task(module, jnp.zeros((1, 4)))
    scales = some_scales(task.architecture.initial, jax.random.key(1))
    x = jax.random.normal(jax.random.key(2), (1, 1, 4))

    def moments(key):
        f = outputs(task, scales, x, key, estimator)
        f = f if not isinstance(f, Gaussian) else f.mean
        return jnp.outer(jnp.ravel(f), jnp.ravel(f))

    draws = jax.lax.map(moments, jax.random.split(KEY, 5_000))
    m, b = (np.asarray(v, float) for v in task.architecture.initial)
    s, sb = (np.asarray(v, float) for v in scales)
    # E[f f'] with f = design @ (weights, bias), for each of the two features.
    patches = np.stack([np.asarray(x[0, 0, i : i + 2], float) for i in range(3)])
    expected = np.zeros((2, 3, 2, 3))
    means = np.stack([patches @ m[o, 0] + b[o, 0] for o in range(2)])
    expected += means[:, :, None, None] * means[None, None]
    for o in range(2):
        expected[o, :, o] += patches @ np.diag(s[o, 0] ** 2) @ patches.T + sb[o, 0] ** 2
    assert z_scores(draws, expected.reshape(6, 6)).max() < 5


def test_what_two_steps_use_is_one_draw():
    task = make_task(Residual(eqx.nn.Linear(3, 2, key=KEY)), jnp.zeros(3))
    scales = some_scales(task.architecture.initial, jax.random.key(1))
    found = outputs(task, scales, jax.random.normal(KEY, (5, 3)), KEY)
    np.testing.assert_allclose(found, 0.0, atol=1e-6)


def two_layers():
    """A network without an activation: mean and variance of its output are known."""
    module = eqx.nn.MLP(3, 1, 4, 1, activation=lambda h: h, key=KEY)
    task = make_task(module, jnp.zeros(3))
    weights = list(task.architecture.initial)
    return task, weights, some_scales(weights, jax.random.key(1))


def exact_loss(weights, scales, x, y):
    """E[(y - f)^2] / 2, by the laws of total mean and variance."""
    w, b, v, c = weights
    sw, sb, sv, sc = scales
    mean = x @ w.T + b
    variance = x**2 @ (sw**2).T + sb**2
    out = mean @ v[0] + c[0]
    spread = variance @ (v[0] ** 2 + sv[0] ** 2) + mean**2 @ sv[0] ** 2 + sc[0] ** 2
    return 0.5 * jnp.mean((y - out) ** 2 + spread)


@functools.cache
def gradients(estimator):
    """Gradients of many keys, and the exact one."""
    task, weights, scales = two_layers()
    x = jax.random.normal(jax.random.key(5), (16, 3))
    y = jnp.sin(x[:, 0])
    found = treatments(task, estimator, "flipout")

    def loss(means, scales, key):
        f = expected_outputs(task, found, means, scales, x, key)[0]
        if isinstance(f, Gaussian):
            return 0.5 * jnp.mean((y - f.mean[:, 0]) ** 2 + f.variance[:, 0])
        return 0.5 * jnp.mean((y - f[:, 0]) ** 2)

    def flat(grads):
        return jnp.concatenate([jnp.ravel(g) for g in jax.tree.leaves(grads)])

    each = jax.jit(jax.vmap(lambda k: flat(jax.grad(loss, (0, 1))(weights, scales, k))))
    exact = flat(jax.grad(exact_loss, (0, 1))(weights, scales, x, y))
    return np.asarray(each(jax.random.split(jax.random.key(7), 5000))), np.asarray(exact)


@pytest.mark.stat
@pytest.mark.parametrize("estimator", ["local", "flipout", "shared"])
def test_gradients_are_unbiased(estimator):
    found, exact = gradients(estimator)
    assert z_scores(found, exact).max() < 5


def test_local_reparameterisation_has_the_lowest_variance():
    variance = {e: gradients(e)[0].var(0).sum() for e in ("local", "flipout", "shared")}
    assert variance["local"] < 0.5 * variance["flipout"] < 0.5 * variance["shared"]


@pytest.mark.stat
def test_draws_of_a_whole_network_have_the_law_of_drawn_weights():
    """Mean and mean square of each output, against draws of the weights themselves."""
    module = Convolutional(eqx.nn.Conv2d(1, 2, 3, key=KEY), eqx.nn.Linear(8, 2, key=KEY))
    task = make_task(module, jnp.zeros((1, 4, 4)))
    weights = list(task.architecture.initial)
    scales = some_scales(weights, jax.random.key(1))
    x = jax.random.normal(jax.random.key(2), (2, 1, 4, 4))

    def local(key):
        f = outputs(task, scales, x, key)
        mean, variance = (f.mean, f.variance) if isinstance(f, Gaussian) else (f, 0.0 * f)
        return jnp.stack([mean, mean**2 + variance])

    def drawn(key):
        f = jax.vmap(task.architecture.rebuild(gaussian_draw(weights, scales, key)))(x)
        return jnp.stack([f, f**2])

    keys = jax.random.split(KEY, 10_000)
    one = np.asarray(jax.lax.map(local, keys, batch_size=1000), float)
    two = np.asarray(jax.lax.map(drawn, keys, batch_size=1000), float)
    error = np.sqrt((one.var(0) + two.var(0)) / len(keys))
    assert (np.abs(one.mean(0) - two.mean(0)) / error).max() < 5


def test_data_have_independent_noise():
    """Two equal rows get different draws, but with one draw for the batch they do not."""
    task = make_task(eqx.nn.MLP(3, 1, 4, 1, key=KEY), jnp.zeros(3))
    scales = some_scales(task.architecture.initial, jax.random.key(1))
    x = jnp.ones((2, 3))
    local, shared = (outputs(task, scales, x, KEY, e) for e in ("local", "shared"))
    assert isinstance(local, Gaussian)
    assert abs(float(local.mean[0, 0] - local.mean[1, 0])) > 1e-3
    assert not isinstance(shared, Gaussian)
    assert float(shared[0, 0]) == float(shared[1, 0])


def test_what_falls_back_is_said():
    task = make_task(Tied(jnp.ones((40, 40))), jnp.zeros(40))
    found = treatments(task, "local", "flipout")
    assert found == (Treatment.SHARED,)
    (note,) = describe(task, found, "local")
    assert note == "weight '.weight': one draw for the batch, since it is used more than once"


def test_inputs_of_zero_have_finite_gradients():
    """A layer without a bias whose inputs are all zero has no variance and no slope there."""
    module = eqx.nn.MLP(3, 1, 4, 1, use_bias=False, use_final_bias=False, key=KEY)
    task = make_task(module, jnp.zeros(3))
    weights = list(task.architecture.initial)

    def loss(scales):
        f = outputs(task, scales, jnp.zeros((2, 3)), KEY)
        return jnp.sum(f.mean + f.variance) if isinstance(f, Gaussian) else jnp.sum(f)

    for gradient in jax.grad(loss)(some_scales(weights, KEY)):
        assert np.isfinite(gradient).all()
