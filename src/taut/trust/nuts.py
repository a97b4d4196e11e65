"""The top of the ladder: NUTS started at q and preconditioned by it."""

from typing import Any, NamedTuple

import numpy as np

from taut._core.precision import double_precision
from taut._core.progress import Watch
from taut.families.gaussian import AbstractDistribution, AbstractGaussian
from taut.problem.evaluator import Evaluator
from taut.trust.certificate import whitening
from taut.trust.chains import agreement

NUM_CHAINS, WARMUP, DRAWS = 4, 500, 1000
SECONDS_PER_GRADIENT_CAP = 0.05  # a slower gradient would take an hour


class Sampled(NamedTuple):
    """NUTS draws and their diagnostics.

    Attributes:
        points: (n, d), unconstrained.
        rhat: largest split R-hat.
        ess: smallest effective sample size (bulk).
        divergences: share of divergent transitions.
        from_q: largest distance of a mean from q's, in sds of the draws.
        num_chains: chains run.
    """

    points: np.ndarray
    rhat: float
    ess: float
    divergences: float
    from_q: float
    num_chains: int


def sample(
    evaluator: Evaluator, q: AbstractDistribution, points: np.ndarray, weights: np.ndarray | None, seed: int, watch: Watch
) -> Sampled | None:
    """Run NumPyro's NUTS in coordinates whitened by q.

    Args:
        evaluator: the problem.
        q: the preconditioner.
        points: draws to start from.
        weights: their probabilities, or None.
        seed: of the chains.
        watch: budget; NUTS runs in slices, so that it can be stopped between them.

    Returns:
        The draws, or None if the time ran out before half of them were made.
    """
    import jax
    from numpyro.diagnostics import effective_sample_size, split_gelman_rubin
    from numpyro.infer import MCMC, NUTS

    mean, root = (q.mean, whitening(q)) if isinstance(q, AbstractGaussian) else (points.mean(axis=0), np.cov(points.T))
    if not isinstance(q, AbstractGaussian):
        root = np.linalg.cholesky(root)
    rng = np.random.default_rng((seed, 5))
    chosen = points[rng.choice(len(points), NUM_CHAINS, p=weights)]
    z = np.linalg.solve(root, (chosen - mean).T).T if root.ndim == 2 else (chosen - mean) / root
    program = evaluator.problem.program
    with double_precision():
        prepared = evaluator.prepared

        def potential(z: Any) -> Any:
            return -program.log_joint(mean + (root @ z if root.ndim == 2 else root * z), prepared)

        dense = q.dim <= 200
        kernel = NUTS(potential_fn=potential, dense_mass=dense, target_accept_prob=0.9)
        mcmc = MCMC(
            kernel, num_warmup=WARMUP, num_samples=DRAWS // 4, num_chains=NUM_CHAINS, chain_method="vectorized", progress_bar=False
        )
        slices, divergent = [], []
        for part in range(4):
            if part:
                mcmc.post_warmup_state = mcmc.last_state
            watch.report("NUTS", slice=part + 1)
            init = z if not part else None
            mcmc.run(jax.random.fold_in(jax.random.key(seed), part), init_params=init, extra_fields=("diverging",))
            slices.append(np.asarray(mcmc.get_samples(group_by_chain=True)))
            divergent.append(np.asarray(mcmc.get_extra_fields()["diverging"]))
            if watch.over:
                break
    draws = np.concatenate(slices, axis=1)
    if len(slices) < 2:
        return None
    u = mean + (draws @ root.T if root.ndim == 2 else draws * root)
    rhat, ess = split_gelman_rubin(u), effective_sample_size(u)
    flat = u.reshape(-1, u.shape[2])
    from_q = float(np.max(np.abs(flat.mean(axis=0) - mean) / flat.std(axis=0)))
    return Sampled(flat, float(rhat.max()), float(ess.min()), float(np.mean(divergent)), from_q, NUM_CHAINS)


__all__ = ["Sampled", "agreement", "sample"]
