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

from taut._core.background import compile_soon
from taut._core.precision import double_precision
from taut.problem.evaluator import Evaluator

TRANSITIONS = 8  # in one compiled call
TRAJECTORY = np.pi / 2.0  # longest, in whitened units: a quarter turn forgets a Gaussian's start
LEAPFROGS, MAX_LEAPFROGS = 6, 16
SHORT_MEMORY = 4.0  # autocorrelation time, in transitions, that the shortest runs may have
MAX_REFERENCE = 4096  # draws that ranks are taken among
TARGET_ACCEPTANCE, ADAPT_RATE, JITTER = 0.8, 0.6, 0.3


class ChainState(NamedTuple):
    """Whitened positions (c, d), log joint (c,), whitened gradient (c, d), log step size."""

    z: Any
    log_joint: Any
    score: Any
    log_step: Any


class Noise(NamedTuple):
    """Randomness of one compiled call, drawn on the host: generators take XLA long to compile."""

    momentum: Any
    jitter: Any
    uniform: Any


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
        both = jax.value_and_grad(one)
        value, grad = (
            jax.vmap(both)(z) if lanes >= len(z) else jax.lax.map(both, z, batch_size=lanes)
        )
        finite = jnp.isfinite(value) & jnp.all(jnp.isfinite(grad), axis=1)
        return jnp.where(finite, value, -jnp.inf), jnp.where(finite[:, None], grad, 0.0)

    return many


@functools.partial(jax.jit, static_argnums=(0, 7))
def _run(
    program: Any,
    prepared: Any,
    mean: Any,
    root: Any,
    state: ChainState,
    noise: Noise,
    settings: Any,
    lanes: int,
) -> tuple[ChainState, Any]:
    adapt, leapfrogs, trajectory = settings
    evaluate = _whitened(program, prepared, mean, root, lanes)
    longest = jnp.log(trajectory / leapfrogs)

    def transition(state: ChainState, noise: Noise) -> tuple[ChainState, Any]:
        step = jnp.exp(state.log_step) * noise.jitter[:, None]

        def leapfrog(_: Any, carry: Any) -> Any:
            z, p, _, score = carry
            p = p + 0.5 * step * score
            z = z + step * p
            value, score = evaluate(z)
            return z, p + 0.5 * step * score, value, score

        z, p, value, score = jax.lax.fori_loop(
            0, leapfrogs, leapfrog, (state.z, noise.momentum, state.log_joint, state.score)
        )
        gain = value - state.log_joint - 0.5 * jnp.sum(p**2 - noise.momentum**2, axis=1)
        chance = jnp.where(jnp.isnan(gain), 0.0, jnp.exp(jnp.minimum(gain, 0.0)))
        accept = noise.uniform < chance
        mean_chance = chance.mean()
        new = ChainState(
            jnp.where(accept[:, None], z, state.z),
            jnp.where(accept, value, state.log_joint),
            jnp.where(accept[:, None], score, state.score),
            jnp.minimum(
                state.log_step + adapt * ADAPT_RATE * (mean_chance - TARGET_ACCEPTANCE), longest
            ),
        )
        return new, (new.z, new.log_joint, mean_chance, accept)

    return jax.lax.scan(transition, state, noise)


def _compiled(evaluator: Evaluator, count: int, root_ndim: int) -> Any:
    """The future of the chains' compiled program, begun by whoever asks first."""
    program, dim = evaluator.problem.program, evaluator.problem.dim
    lanes = min(count, evaluator.batch)
    key = ("chains", count, root_ndim, lanes)
    if key not in program.compiled:
        array = functools.partial(jax.ShapeDtypeStruct, dtype=np.float64)
        state = ChainState(array((count, dim)), array((count,)), array((count, dim)), array(()))
        noise = Noise(
            array((TRANSITIONS, count, dim)),
            array((TRANSITIONS, count)),
            array((TRANSITIONS, count)),
        )
        settings = (array(()), jax.ShapeDtypeStruct((), np.int64), array(()))
        prepared = jax.tree.map(
            lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), evaluator.prepared
        )
        program.compiled[key] = compile_soon(
            _run,
            program,
            prepared,
            array((dim,)),
            array((dim,) * root_ndim),
            state,
            noise,
            settings,
            lanes,
        )
    return program.compiled[key]


def prepare(evaluator: Evaluator, count: int, root_ndim: int) -> None:
    """Begin to compile the chains' program in the background."""
    _compiled(evaluator, count, root_ndim)


class Chains:
    """Chains of one problem in coordinates whitened by a Gaussian.

    Args:
        evaluator: the problem.
        mean: centre, (d,).
        root: square root of the covariance, (d, d), or standard deviations, (d,).
        z: starting positions in whitened coordinates, (c, d).
        seed: of the momenta.
    """

    def __init__(
        self, evaluator: Evaluator, mean: np.ndarray, root: np.ndarray, z: np.ndarray, seed: int
    ) -> None:
        self.evaluator, self.mean, self.root = evaluator, mean, root
        first_step = np.log(TRAJECTORY / LEAPFROGS * z.shape[1] ** -0.1)
        self.leapfrogs, self.trajectory = LEAPFROGS, TRAJECTORY
        self._rng = np.random.default_rng((seed, 17))
        self.state = self._state(z, np.float64(first_step))

    def _state(self, z: np.ndarray, log_step: Any) -> ChainState:
        value, grad = self.evaluator.value_and_grad(self.points(z))
        return ChainState(
            z, value, grad @ self.root if self.root.ndim == 2 else grad * self.root, log_step
        )

    def run(self, blocks: int, adapt: bool) -> Record:
        """Advance all chains by ``blocks`` times ``TRANSITIONS`` transitions.

        Args:
            blocks: compiled calls.
            adapt: tune the shared step size towards an acceptance of 0.8.
        """
        outs = [self._block(adapt) for _ in range(blocks)]
        z, log_joint, acceptance, accepted = (
            np.concatenate(parts) for parts in zip(*outs, strict=True)
        )
        return Record(z, log_joint, acceptance, np.any(accepted, axis=0))

    def _block(self, adapt: bool) -> tuple[np.ndarray, ...]:
        evaluator, shape = self.evaluator, (TRANSITIONS, *self.state.z.shape)
        noise = Noise(
            self._rng.standard_normal(shape),
            self._rng.uniform(1.0 - JITTER, 1.0 + JITTER, shape[:2]),
            self._rng.uniform(size=shape[:2]),
        )
        settings = (np.float64(adapt), np.int64(self.leapfrogs), np.float64(self.trajectory))
        run = _compiled(evaluator, shape[1], self.root.ndim).result()
        with double_precision():
            self.state, out = run(
                evaluator.prepared, self.mean, self.root, self.state, noise, settings
            )
        evaluator.num_gradients += TRANSITIONS * self.leapfrogs * shape[1]
        return tuple(np.asarray(o) for o in out)

    def lengthen(self) -> None:
        """Allow trajectories twice as long, with as many steps as the tuned step size needs."""
        self.trajectory = 2.0 * TRAJECTORY
        needed = np.ceil(self.trajectory / np.exp(float(self.state.log_step)))
        self.leapfrogs = int(np.clip(needed, LEAPFROGS, MAX_LEAPFROGS))

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
        rank = 0.5 * (
            np.searchsorted(order, values[:, j], "left")
            + np.searchsorted(order, values[:, j], "right")
        )
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
    (mean_a, sd_a), (mean_b, sd_b) = [
        (h.mean(axis=(0, 1)), np.maximum(h.std(axis=(0, 1)), 1e-6)) for h in halves
    ]
    move = np.maximum(np.abs(mean_a - mean_b), np.abs(np.log(sd_a / sd_b)))
    ess = float((length * count / np.maximum(iact, 1.0)).min())
    noise = 4.0 / np.sqrt(max(ess / 2.0, 1.0))
    # Short runs may remember half of their length; long ones have had the time to forget.
    forgets = iact.max() < max(length / 6.0, min(length / 2.0, SHORT_MEMORY))
    converged = bool(forgets and move.max() < min(max(0.1, noise), 0.2))
    return Agreement(
        float(iact.max()), float(move.max()), ess, _split_rhat(halves, length), converged
    )


def _split_rhat(halves: tuple[np.ndarray, np.ndarray], length: int) -> float:
    half = length // 2
    within = np.concatenate([h.var(axis=0, ddof=1) for h in halves]).mean(axis=0)
    means = np.concatenate([h.mean(axis=0) for h in halves])
    rhat = np.sqrt((half - 1) / half + means.var(axis=0, ddof=1) / np.maximum(within, 1e-12))
    return float(rhat.max())
