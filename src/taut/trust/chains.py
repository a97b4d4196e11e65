"""Many short Hamiltonian chains started from q and preconditioned by it.

Chains move from q towards the posterior, so how far their moments drift in a few transitions
bounds from below how wrong q is (Wang, Kasprzak and Huggins 2023); once they have converged,
they are the corrected draws.
"""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from scipy.special import ndtri

from taut._core.precision import double_precision
from taut.problem.evaluator import Evaluator

TRANSITIONS = 12  # in one compiled call
LEAPFROGS = 6
MAX_REFERENCE = 4096  # draws that ranks are taken among
TARGET_ACCEPTANCE, ADAPT_RATE, JITTER = 0.8, 0.6, 0.3


class ChainState(NamedTuple):
    """Whitened positions (c, d), log joint (c,), whitened gradient (c, d), log step size."""

    z: Any
    log_joint: Any
    score: Any
    log_step: Any


class Record(NamedTuple):
    """Draws of one run of chains.

    Attributes:
        z: whitened positions, (transitions, chains, d).
        log_joint: (transitions, chains).
        acceptance: mean acceptance probability per transition, (transitions,).
        moved: for each chain, whether it moved at all.
    """

    z: np.ndarray
    log_joint: np.ndarray
    acceptance: np.ndarray
    moved: np.ndarray


def _whitened(program: Any, prepared: Any, mean: Any, root: Any, lanes: int) -> Any:
    """Log joint and score of whitened points, in batches that stay near the cache."""

    def one(z: Any) -> Any:
        return program.log_joint(mean + (root @ z if root.ndim == 2 else root * z), prepared)

    def many(z: Any) -> Any:
        value, grad = jax.lax.map(jax.value_and_grad(one), z, batch_size=min(lanes, len(z)))
        finite = jnp.isfinite(value) & jnp.all(jnp.isfinite(grad), axis=1)
        return jnp.where(finite, value, -jnp.inf), jnp.where(finite[:, None], grad, 0.0)

    return many


@functools.partial(jax.jit, static_argnums=(0, 7))
def _run(
    program: Any, prepared: Any, mean: Any, root: Any, state: ChainState, key: Any, settings: Any, lanes: int
) -> tuple[ChainState, Any]:
    adapt, leapfrogs = settings
    evaluate = _whitened(program, prepared, mean, root, lanes)

    def transition(state: ChainState, key: Any) -> tuple[ChainState, Any]:
        keys = jax.random.split(key, 3)
        momentum = jax.random.normal(keys[0], state.z.shape)
        jitter = jax.random.uniform(keys[1], (len(state.z), 1), minval=1 - JITTER, maxval=1 + JITTER)
        step = jnp.exp(state.log_step) * jitter

        def leapfrog(_: Any, carry: Any) -> Any:
            z, p, _, score = carry
            p = p + 0.5 * step * score
            z = z + step * p
            value, score = evaluate(z)
            return z, p + 0.5 * step * score, value, score

        z, p, value, score = jax.lax.fori_loop(
            0, leapfrogs, leapfrog, (state.z, momentum, state.log_joint, state.score)
        )
        gain = value - state.log_joint - 0.5 * jnp.sum(p**2 - momentum**2, axis=1)
        chance = jnp.where(jnp.isnan(gain), 0.0, jnp.exp(jnp.minimum(gain, 0.0)))
        accept = jax.random.uniform(keys[2], chance.shape) < chance
        mean_chance = chance.mean()
        new = ChainState(
            jnp.where(accept[:, None], z, state.z),
            jnp.where(accept, value, state.log_joint),
            jnp.where(accept[:, None], score, state.score),
            state.log_step + adapt * ADAPT_RATE * (mean_chance - TARGET_ACCEPTANCE),
        )
        return new, (new.z, new.log_joint, mean_chance, accept)

    keys = jax.random.split(key, TRANSITIONS + 1)
    return jax.lax.scan(transition, state, keys[:-1])


class Chains:
    """Chains of one problem in coordinates whitened by a Gaussian.

    Args:
        evaluator: the problem.
        mean: centre, (d,).
        root: square root of the covariance, (d, d), or standard deviations, (d,).
        z: starting positions in whitened coordinates, (c, d).
        seed: of the momenta.
    """

    def __init__(self, evaluator: Evaluator, mean: np.ndarray, root: np.ndarray, z: np.ndarray, seed: int) -> None:
        self.evaluator, self.mean, self.root = evaluator, mean, root
        first_step = np.log(min(0.5, 1.6 / LEAPFROGS * 1.5) * z.shape[1] ** -0.1)
        self.leapfrogs = LEAPFROGS
        self._seed, self._calls = seed, 0
        self.state = self._state(z, np.float64(first_step))

    def _state(self, z: np.ndarray, log_step: Any) -> ChainState:
        value, grad = self.evaluator.value_and_grad(self.points(z))
        return ChainState(z, value, grad @ self.root if self.root.ndim == 2 else grad * self.root, log_step)

    def run(self, blocks: int, adapt: bool) -> Record:
        """Advance all chains by ``blocks`` times ``TRANSITIONS`` transitions.

        Args:
            blocks: compiled calls.
            adapt: tune the shared step size towards an acceptance of 0.8.
        """
        outs = [self._block(adapt) for _ in range(blocks)]
        z, log_joint, acceptance, accepted = (np.concatenate(parts) for parts in zip(*outs, strict=True))
        return Record(z, log_joint, acceptance, accepted.any(axis=0))

    def _block(self, adapt: bool) -> tuple[np.ndarray, ...]:
        with double_precision():
            key = jax.random.fold_in(jax.random.key(self._seed), self._calls)
            settings = (float(adapt), self.leapfrogs)
            evaluator = self.evaluator
            self.state, out = _run(
                evaluator.problem.program, evaluator.prepared, self.mean, self.root, self.state, key, settings, evaluator.lanes
            )
            self._calls += 1
            evaluator.num_gradients += TRANSITIONS * self.leapfrogs * len(self.state.z)
            return tuple(np.asarray(o) for o in out)

    def points(self, z: np.ndarray) -> np.ndarray:
        """Unconstrained points of whitened positions, (..., d)."""
        return self.mean + (z @ self.root.T if self.root.ndim == 2 else z * self.root)

    def rewhiten(self, mean: np.ndarray, root: np.ndarray) -> None:
        """Go on in coordinates whitened by another Gaussian."""
        centred = self.points(np.asarray(self.state.z)) - mean
        z = np.linalg.solve(root, centred.T).T if root.ndim == 2 else centred / root
        self.mean, self.root = mean, root
        self.state = self._state(z, self.state.log_step)


class Agreement(NamedTuple):
    """How well many chains agree with themselves.

    Attributes:
        iact: largest estimated integrated autocorrelation time, in transitions.
        self_drift: largest move of mean (in sds) or log sd between the halves.
        ess: smallest effective sample size.
        rhat: largest split R-hat.
        converged: all of it within the limits.
    """

    iact: float
    self_drift: float
    ess: float
    rhat: float
    converged: bool


def normal_scores(values: np.ndarray, reference: np.ndarray) -> np.ndarray:
    """Replace values by the normal quantile of their rank among reference draws, column by column.

    Args:
        values: (n, p).
        reference: (m, p).

    Returns:
        Scores, (n, p), within the range of m ranks (3.7 for 4,096).
    """
    size, scores = len(reference), np.empty(values.shape)
    for j in range(values.shape[1]):
        order = np.sort(reference[:, j])
        rank = 0.5 * (np.searchsorted(order, values[:, j], "left") + np.searchsorted(order, values[:, j], "right"))
        scores[:, j] = ndtri((rank + 0.5) / (size + 1.0))
    return scores


def agreement(draws: np.ndarray) -> Agreement:
    """Check whether recorded chains have converged to one distribution.

    Args:
        draws: (transitions, chains, parameters).

    Returns:
        Autocorrelation time T Var(chain mean) / Var(draw), as in nested R-hat (Margossian et
        al. 2024), drift between halves, effective sample size and split R-hat, all of
        rank-normalised draws (Vehtari et al. 2021).
    """
    length, count, dim = draws.shape
    flat = draws.reshape(-1, dim)
    stride = max(1, len(flat) // MAX_REFERENCE)
    scores = normal_scores(flat, flat[::stride]).reshape(length, count, dim)
    variance = np.maximum(scores.var(axis=(0, 1)), 1e-12)
    between = scores.mean(axis=0).var(axis=0, ddof=1)
    iact = np.maximum(length * between / variance, 1e-3)
    halves = scores[: length // 2], scores[length // 2 :]
    (mean_a, sd_a), (mean_b, sd_b) = [(h.mean(axis=(0, 1)), np.maximum(h.std(axis=(0, 1)), 1e-6)) for h in halves]
    move = np.maximum(np.abs(mean_a - mean_b), np.abs(np.log(sd_a / sd_b)))
    ess = float((length * count / np.maximum(iact, 1.0)).min())
    noise = 4.0 / np.sqrt(max(ess / 2.0, 1.0))
    converged = bool(iact.max() < length / 2.0 and move.max() < min(max(0.1, noise), 0.2))
    return Agreement(float(iact.max()), float(move.max()), ess, _split_rhat(halves, length), converged)


def _split_rhat(halves: tuple[np.ndarray, np.ndarray], length: int) -> float:
    half = length // 2
    within = np.concatenate([h.var(axis=0, ddof=1) for h in halves]).mean(axis=0)
    means = np.concatenate([h.mean(axis=0) for h in halves])
    rhat = np.sqrt((half - 1) / half + means.var(axis=0, ddof=1) / np.maximum(within, 1e-12))
    return float(rhat.max())
