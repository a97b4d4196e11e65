"""The top of the ladder: NUTS started at q and preconditioned by it."""

from typing import Any, NamedTuple

import jax
import numpy as np

from taut._core.precision import double_precision
from taut._core.progress import Watch
from taut.families import AbstractDistribution, AbstractGaussian
from taut.problem.evaluator import Evaluator
from taut.trust.certificate import whitening

NUM_CHAINS, WARMUP, SLICE, SLICES = 4, 500, 500, 2
DENSE_MASS_LIMIT = 200  # latents up to which NUTS adapts a dense mass matrix on top of q's
ACCEPTANCE = 0.9


class Sampled(NamedTuple):
    """NUTS draws and their diagnostics.

    Attributes:
        points: (n, d), unconstrained.
        rhat: largest split R-hat.
        ess: smallest effective sample size.
        divergences: share of divergent transitions.
        from_q: largest distance of a mean from q's, in sds of the draws.
    """

    points: np.ndarray
    rhat: float
    ess: float
    divergences: float
    from_q: float


def sample(
    evaluator: Evaluator, q: AbstractDistribution, starts: np.ndarray, seed: int, watch: Watch
) -> Sampled | None:
    """Run NumPyro's NUTS in coordinates whitened by q.

    Args:
        evaluator: the problem.
        q: the preconditioner.
        starts: points to start from, (chains, d).
        seed: of the chains.
        watch: NUTS runs in slices and can be stopped between them.

    Returns:
        The draws, or None if the time was up before the first.
    """
    if watch.over:
        return None
    mean = q.mean if isinstance(q, AbstractGaussian) else starts.mean(axis=0)
    root = whitening(q) if isinstance(q, AbstractGaussian) else q.sd
    centred = starts - mean
    z = np.linalg.solve(root, centred.T).T if root.ndim == 2 else centred / root
    slices, divergent, steps = _run(evaluator, mean, root, z, seed, watch)
    evaluator.num_gradients += steps
    draws = np.concatenate(slices, axis=1)
    u = mean + (draws @ root.T if root.ndim == 2 else draws * root)
    return _diagnose(u, np.concatenate(divergent, axis=1), mean)


def _run(
    evaluator: Evaluator, mean: np.ndarray, root: np.ndarray, z: np.ndarray, seed: int, watch: Watch
) -> tuple[list[np.ndarray], list[np.ndarray], int]:
    """Warm up and draw slice by slice, each in one compiled call: run eagerly, NUTS sets up for half a minute."""
    from numpyro.infer import MCMC, NUTS

    program = evaluator.problem.program
    dense = z.shape[1] <= DENSE_MASS_LIMIT
    extra = ("diverging", "num_steps")

    def run(key: Any, z: Any, state: Any, prepared: Any) -> Any:
        def potential(z: Any) -> Any:
            return -program.log_joint(mean + (root @ z if root.ndim == 2 else root * z), prepared)

        kernel = NUTS(potential_fn=potential, dense_mass=dense, target_accept_prob=ACCEPTANCE)
        mcmc = MCMC(
            kernel,
            num_warmup=WARMUP,
            num_samples=SLICE,
            num_chains=len(z),
            chain_method="vectorized",
            progress_bar=False,
        )
        mcmc.post_warmup_state = state
        mcmc.run(key, init_params=z, extra_fields=extra)
        return (
            mcmc.get_samples(group_by_chain=True),
            mcmc.get_extra_fields(group_by_chain=True),
            mcmc.last_state,
        )

    slices, divergent, steps, state = [], [], 0, None
    with double_precision():
        compiled = jax.jit(run)
        for part in range(SLICES):
            watch.report("NUTS", slice=part + 1)
            key = jax.random.fold_in(jax.random.key(seed), part)
            draws, fields, state = compiled(key, z, state, evaluator.prepared)
            slices.append(np.asarray(draws))
            divergent.append(np.asarray(fields["diverging"]))
            steps += int(np.sum(fields["num_steps"]))
            if watch.over:
                break
    return slices, divergent, steps


def _diagnose(u: np.ndarray, divergent: np.ndarray, q_mean: np.ndarray) -> Sampled:
    from numpyro.diagnostics import effective_sample_size, split_gelman_rubin

    flat = u.reshape(-1, u.shape[2])
    from_q = np.abs(flat.mean(axis=0) - q_mean) / np.maximum(flat.std(axis=0), 1e-300)
    rhat, ess = np.max(split_gelman_rubin(u)), np.min(effective_sample_size(u))
    return Sampled(flat, float(rhat), float(ess), float(divergent.mean()), float(from_q.max()))
