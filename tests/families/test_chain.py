"""The chain factor against a sum over all paths.

Monte Carlo: 4 standard errors, fixed key; false alarm under 1e-4 for each of 26 numbers.
"""

import itertools
import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.special import logsumexp

from taut._core.errors import ArgumentError
from taut._core.precision import double_precision
from taut.expectation.transform import expectation
from taut.families import Chain

K, LENGTH = 3, 4
PATHS = np.array(list(itertools.product(range(K), repeat=LENGTH)))


def logits(seed, batch=()):
    rng = np.random.default_rng((71, seed))
    pairs = 2.0 * rng.standard_normal((*batch, LENGTH - 1, K, K))
    pairs[..., 1, 0, 2] = -np.inf  # a step that cannot be
    return 2.0 * rng.standard_normal((*batch, LENGTH, K)), pairs


def log_weights(alone, pairs):
    """Of each path, unnormalised, (paths,)."""
    at = np.arange(LENGTH)
    steps = pairs[at[:-1], PATHS[:, :-1], PATHS[:, 1:]]
    return alone[at, PATHS].sum(axis=1) + steps.sum(axis=1)


def test_moments_entropy_and_log_prob_are_those_of_all_paths():
    alone, pairs = logits(0, (2,))
    with double_precision():
        q = Chain(alone, pairs)
        assert q.shape == (2, LENGTH)
        entropy = 0.0
        for n in range(2):
            logs = log_weights(alone[n], pairs[n])
            p = np.exp(logs - logsumexp(logs))
            onehots = np.eye(K)[PATHS]
            both = np.einsum("p,pti,ptj->tij", p, onehots[:, :-1], onehots[:, 1:])
            assert np.allclose(q.probs[n], np.einsum("p,pti->ti", p, onehots), atol=1e-13)
            assert np.allclose(q.pairs[n], both, rtol=0, atol=1e-13)
            entropy -= np.sum(p[p > 0] * np.log(p[p > 0]))
        assert np.isclose(q.entropy, entropy, rtol=0, atol=1e-12)
        value = np.array([[0, 1, 2, 0], [2, 2, 1, 1]])
        expected = sum(
            log_weights(a, b)[np.all(path == PATHS, axis=1)][0] - logsumexp(log_weights(a, b))
            for a, b, path in zip(alone, pairs, value, strict=True)
        )
        assert np.isclose(q.log_prob(jnp.asarray(value)), expected, rtol=0, atol=1e-12)


def test_draws_have_the_pairs_probabilities():
    alone, pairs = logits(1)
    num = 20_000
    with double_precision():
        q = Chain(alone, pairs)
        draws = np.asarray(q.sample(jax.random.key(72), num))
        both = np.eye(K)[draws[:, :-1]][..., None] * np.eye(K)[draws[:, 1:]][..., None, :]
        expected = np.asarray(q.pairs)
    error = np.sqrt(expected * (1.0 - expected) / num)
    assert np.all(np.abs(both.mean(axis=0) - expected) <= 4.0 * error + 1e-12)
    assert draws.shape == (num, LENGTH)


def test_the_gradient_in_mean_parameters_is_the_natural_parameter():
    """q proportional to exp(f) maximises E[f] + entropy, so it is its own update."""
    alone, pairs = logits(2)
    pairs = np.where(np.isfinite(pairs), pairs, -3.0)
    with double_precision():
        start = Chain(np.zeros_like(alone), np.zeros_like(pairs))

        def expected(q):
            return jnp.sum(q.probs * alone) + jnp.sum(q.pairs * pairs)

        found = start.with_natural(start.gradient(jax.grad(expected)(start)))
        best = float(expected(found) + found.entropy)
        assert np.isclose(best, logsumexp(log_weights(alone, pairs)), rtol=0, atol=1e-12)
        assert bool(found.is_proper())


def test_expectations_read_pairs():
    """E[a[z_t] b[z_{t+1}]] of neighbours, which is no product of marginals."""
    alone, pairs = logits(3)
    with double_precision():
        q, table = Chain(alone, pairs), np.random.default_rng(73).standard_normal((K, K))
        found = expectation(
            lambda x: jnp.sum(jnp.asarray(table)[x["z"][:-1], x["z"][1:]]), {"z": q}
        )
        swapped = expectation(
            lambda x: jnp.sum(jnp.asarray(table)[x["z"][1:], x["z"][:-1]]), {"z": q}
        )
        assert np.isclose(float(found), np.sum(q.pairs * table), rtol=0, atol=1e-12)
        assert np.isclose(float(swapped), np.sum(q.pairs * table.T), rtol=0, atol=1e-12)


def test_elements_further_apart_are_refused():
    with double_precision():
        q = {"z": Chain(np.zeros((4, 2)), np.zeros((3, 2, 2)))}
        with pytest.raises(Exception, match=r"dependent|enumerated"):
            expectation(lambda x: jnp.sum(jnp.eye(2)[x["z"][:-2], x["z"][2:]]), q)


def test_long_chains_keep_their_digits():
    """A chain that never leaves its state: the probability of the first, at every time."""
    length, stay = 20_000, np.where(np.eye(2) > 0, 0.0, -np.inf)
    first = np.zeros((length, 2))
    first[0] = np.log([0.3, 0.7])
    with double_precision():
        q = Chain(first + 1e3, np.broadcast_to(stay, (length - 1, 2, 2)))
        assert np.allclose(q.probs, [0.3, 0.7], rtol=0, atol=1e-12)
        entropy = -0.3 * np.log(0.3) - 0.7 * np.log(0.7)
        assert np.isclose(q.entropy, entropy, rtol=0, atol=1e-7)  # of a sum of 2e7


def test_one_element_is_categorical():
    with double_precision():
        q = Chain([[0.0, 1.0, 2.0]], np.zeros((0, 3, 3)))
        p = np.exp([0.0, 1.0, 2.0]) / np.sum(np.exp([0.0, 1.0, 2.0]))
        assert np.allclose(q.probs[0], p, rtol=0, atol=1e-15)
        assert np.isclose(q.entropy, -np.sum(p * np.log(p)), rtol=0, atol=1e-14)
        assert q.sample(jax.random.key(1), 5).shape == (5, 1)


def test_wrong_arguments_are_named():
    with pytest.raises(ArgumentError, match=r"Chain.pair_logits .* \(4, 3\) and \(4, 3, 3\)"):
        Chain(np.zeros((4, 3)), np.zeros((4, 3, 3)))
    with pytest.raises(ArgumentError, match="at least one path"):
        Chain(np.full((4, 3), -np.inf), np.zeros((3, 3, 3)))


def test_factors_of_impossible_logits_are_improper():
    with double_precision():
        q = Chain(np.zeros((4, 3)), np.zeros((3, 3, 3)))
        assert not bool(q.with_natural((q.natural[0] - np.inf, q.natural[1])).is_proper())
        assert not bool(q.with_natural((q.natural[0] * np.nan, q.natural[1])).is_proper())
        unused = types.SimpleNamespace(mean=q.natural, natural=None)
        assert q.gradient(unused) is q.natural
