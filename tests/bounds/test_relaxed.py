"""The Concrete distribution against its definition: normalised, and the density of its draws."""

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import pytest
from gradient_means import assert_unbiased

from taut import bounds
from taut._core.errors import ArgumentError

LOGITS = np.array([0.3, -0.8, 0.5])
SIZE = 600


def simplex():
    """Midpoints of softmax coordinates of the 3-simplex, and their area by dx1 dx2."""
    axis = np.linspace(-36.0, 36.0, SIZE)
    t = np.stack(np.meshgrid(axis, axis, indexing="ij"), -1).reshape(-1, 2)
    point = jax.nn.softmax(jnp.concatenate([t, np.zeros((len(t), 1))], -1))
    return point, jnp.prod(point, -1) * (axis[1] - axis[0]) ** 2


@pytest.mark.parametrize("temperature", [0.5, 1.0, 2.0])
def test_the_density_integrates_to_one(temperature):
    point, area = simplex()
    q = bounds.RelaxedOneHotCategorical(temperature, logits=LOGITS)
    assert jnp.sum(area * jnp.exp(q.log_prob(point))) == pytest.approx(1.0, abs=1e-5)


@pytest.mark.stat
def test_draws_have_the_density():
    """Means of x, x^2 and log x by quadrature; false alarm 6.3e-5 for each of nine."""

    def features(x):
        return jnp.concatenate([x, x**2, jnp.log(x)], -1)

    point, area = simplex()
    q = bounds.RelaxedOneHotCategorical(0.7, logits=LOGITS)
    mass = area * jnp.exp(q.log_prob(point))
    truth = jnp.sum(mass[:, None] * features(point), 0)
    assert_unbiased(np.asarray(features(q.sample(jax.random.key(0), (20_000,)))), truth)


@pytest.mark.stat
@pytest.mark.parametrize("temperature", [0.1, 5.0])
def test_the_largest_element_has_the_categorical_law(temperature):
    """At any temperature (Maddison et al. 2017, proposition 1); false alarm 6.3e-5 each."""
    q = bounds.RelaxedOneHotCategorical(temperature, logits=LOGITS)
    largest = jnp.argmax(q.sample(jax.random.key(1), (20_000,)), -1)
    assert_unbiased(np.asarray(jax.nn.one_hot(largest, 3)), jax.nn.softmax(LOGITS))


def test_two_categories_are_numpyros_relaxed_bernoulli():
    x = jnp.array([0.2, 0.5, 0.93])
    q = bounds.RelaxedOneHotCategorical(0.6, probs=jnp.array([0.3, 0.7]))
    expected = dist.RelaxedBernoulli(0.6, probs=0.7).log_prob(x)
    assert np.allclose(q.log_prob(jnp.stack([1 - x, x], -1)), expected)


def test_a_uniform_concrete_at_a_point():
    """Maddison et al. (2017), definition 1: (n-1)! t^(n-1) prod(x^(-t-1)) / (sum x^-t)^n."""
    size, temperature = 4, 0.5
    q = bounds.RelaxedOneHotCategorical(temperature, logits=jnp.zeros(size))
    expected = (
        6 * temperature**3 * (1 / size) ** (-1.5 * size) / (size * (1 / size) ** -0.5) ** size
    )
    assert jnp.exp(q.log_prob(jnp.full(size, 1 / size))) == pytest.approx(expected)


def test_shapes_broadcast_and_survive_transformations():
    q = bounds.RelaxedOneHotCategorical(jnp.array([[0.5], [1.0]]), logits=jnp.zeros((3, 4)))
    assert (q.batch_shape, q.event_shape) == ((2, 3), (4,))
    draws = jax.jit(lambda q, key: q.sample(key, (5,)))(q, jax.random.key(0))
    assert draws.shape == (5, 2, 3, 4)
    assert q.log_prob(draws).shape == (5, 2, 3)
    assert np.allclose(draws.sum(-1), 1.0)


@pytest.mark.stat
def test_draws_are_differentiable():
    """dE[x]/dlogits by quadrature of the density; false alarm 6.3e-5 for each of three."""
    point, area = simplex()

    def mean(logits):
        q = bounds.RelaxedOneHotCategorical(0.7, logits=logits)
        return jnp.sum(area * jnp.exp(q.log_prob(point)) * point[:, 0])

    def draw(logits, key):
        return bounds.RelaxedOneHotCategorical(0.7, logits=logits).sample(key)[0]

    keys = jax.random.split(jax.random.key(2), 20_000)
    sample = jax.vmap(jax.grad(draw), (None, 0))(LOGITS, keys)
    assert_unbiased(np.asarray(sample), jax.grad(mean)(LOGITS))


@pytest.mark.parametrize("given", [{}, {"logits": LOGITS, "probs": jnp.ones(3) / 3}])
def test_either_logits_or_probs(given):
    with pytest.raises(ArgumentError, match="takes either logits or probs"):
        bounds.RelaxedOneHotCategorical(0.5, **given)
