"""Divergences in closed form against sums over the support and quadrature."""

import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import pytest
from gradient_means import hermite

from taut import bounds


def enumerated(q, p):
    values = q.enumerate_support()
    return jnp.sum(jnp.exp(q.log_prob(values)) * (q.log_prob(values) - p.log_prob(values)), 0)


@pytest.mark.parametrize(
    ("q", "p"),
    [
        (dist.Bernoulli(jnp.array([0.2, 0.7])), dist.Bernoulli(logits=0.4)),
        (dist.Bernoulli(logits=jnp.array([0.2, 0.7])), dist.Bernoulli(0.3)),
        (dist.Categorical(jnp.array([[0.2, 0.7, 0.1]])), dist.Categorical(logits=jnp.arange(3.0))),
        (dist.Categorical(logits=jnp.ones((2, 3))), dist.Categorical(jnp.array([0.2, 0.7, 0.1]))),
    ],
)
def test_discrete(q, p):
    assert np.allclose(bounds.closed_divergence(q, p), enumerated(q, p))


def test_elements_of_an_event_are_added():
    q = dist.Bernoulli(jnp.array([[0.2, 0.7], [0.4, 0.9]]))
    p = dist.Bernoulli(0.5).expand([2])
    found = bounds.closed_divergence(q.to_event(1), p.to_event(1))
    assert np.allclose(found, enumerated(q, dist.Bernoulli(0.5)).sum(-1))


def test_probabilities_of_zero():
    q, p = (
        dist.Categorical(jnp.array([0.0, 0.4, 0.6])),
        dist.Categorical(jnp.array([0.0, 0.5, 0.5])),
    )
    expected = 0.4 * np.log(0.8) + 0.6 * np.log(1.2)
    assert bounds.closed_divergence(q, p) == pytest.approx(expected)
    assert bounds.closed_divergence(dist.Categorical(jnp.ones(3) / 3), p) == jnp.inf


@pytest.mark.parametrize(
    ("q", "p", "of_normal"),
    [
        (dist.Normal(0.3, 0.7), dist.Normal(-0.2, 1.1), lambda z: 0.3 + 0.7 * z),
        (dist.LogNormal(0.3, 0.7), dist.LogNormal(-0.2, 1.1), lambda z: jnp.exp(0.3 + 0.7 * z)),
    ],
)
def test_normal_and_its_exponential(q, p, of_normal):
    nodes, weights = hermite()
    x = of_normal(nodes)
    expected = jnp.sum(weights * (q.log_prob(x) - p.log_prob(x)))
    assert bounds.closed_divergence(q, p) == pytest.approx(float(expected))


def test_log_normal_events():
    q = dist.LogNormal(jnp.zeros((2, 3)), 0.5).to_event(1)
    p = dist.LogNormal(jnp.ones(3), 0.7).to_event(1)
    elements = bounds.closed_divergence(dist.LogNormal(0.0, 0.5), dist.LogNormal(1.0, 0.7))
    assert np.allclose(bounds.closed_divergence(q, p), 3 * elements)


def test_numpyros_registry_is_used_for_the_rest():
    q, p = dist.Dirichlet(jnp.array([1.2, 0.7, 2.0])), dist.Dirichlet(jnp.ones(3))
    # E_q log p is constant for the flat prior: log 2.
    assert bounds.closed_divergence(q, p) == pytest.approx(-float(q.entropy()) - np.log(2.0))


@pytest.mark.parametrize(
    ("q", "p"),
    [
        (dist.Normal(0.0, 1.0), dist.Laplace(0.0, 1.0)),
        (dist.Kumaraswamy(1.5, 2.0), dist.Beta(1.0, 1.0)),  # NumPyro's is a truncated series
        (dist.Bernoulli(0.4).mask(jnp.array(True)), dist.Bernoulli(0.4)),
        (dist.Bernoulli(0.4), dist.Categorical(jnp.ones(2) / 2)),
    ],
)
def test_there_is_none(q, p):
    assert bounds.closed_divergence(q, p) is None
