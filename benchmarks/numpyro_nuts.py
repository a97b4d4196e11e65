"""NumPyro's NUTS: the anchor of accuracy, and the answers that have no closed form."""

import functools
from collections.abc import Iterable
from typing import Any

import numpy as np

from benchmarks.accuracy import Truth, scalars
from benchmarks.cases import Case
from benchmarks.timing import Clock, Fit, at_once


def _sampler(model: Any, warmup: int, samples: int, **settings: Any) -> Any:
    import numpyro
    from numpyro.infer import MCMC, NUTS

    numpyro.enable_x64()
    kernel = NUTS(model, **settings)
    options = {"chain_method": "vectorized", "progress_bar": False}
    return MCMC(kernel, num_warmup=warmup, num_samples=samples, num_chains=4, **options)


class Nuts:
    """Four vectorised chains, 1,000 draws each after 1,000; compiled once."""

    def __init__(self, case: Case, rate: float | None, budget: float) -> None:
        import jax

        self._case = case
        # Bound beforehand: the sampler takes only arrays as arguments.
        self._sampler = _sampler(functools.partial(case.model, **case.arguments), 1000, 1000)
        self._run = jax.jit(self._sample)

    def _sample(self, key: Any) -> Any:
        """The whole run; left to itself the sampler compiles again for every run."""
        self._sampler.run(key)
        extra = self._sampler.get_extra_fields()
        return self._sampler.get_samples(group_by_chain=True), extra["diverging"].sum()

    def run(self, seed: int) -> Fit:
        """Sample once."""
        import jax

        clock = Clock()
        chains, lost = jax.device_get(self._run(jax.random.key(seed)))
        seconds = clock.seconds
        draws = {k: np.concatenate(v, axis=0) for k, v in chains.items()}
        said = f"R-hat {_rhat(chains.values()):.3f}, {int(lost)} divergent"
        return at_once(self._case, seconds, draws, verdict=said)


def _rhat(arrays: Iterable[np.ndarray]) -> float:
    """The largest split R-hat; quantities that do not vary have none."""
    from numpyro.diagnostics import split_gelman_rubin

    with np.errstate(all="ignore"):
        return max(float(np.nanmax(split_gelman_rubin(a))) for a in arrays)


def long_run(model: Any, data: dict[str, Any], sites: dict[str, str]) -> Truth:
    """Means and sds from 4 chains of 10,000 draws after 2,000."""
    import jax
    from numpyro.diagnostics import effective_sample_size

    sampler = _sampler(model, 2000, 10_000, target_accept_prob=0.9)
    sampler.run(jax.random.key(2024), **data)
    chains = sampler.get_samples(group_by_chain=True)
    arrays = [np.asarray(chains[s]) for s in sites]
    rhat = _rhat(arrays)
    ess = min(float(np.min(effective_sample_size(a))) for a in arrays)
    if rhat > 1.01:
        raise RuntimeError(f"the long run has not converged: R-hat {rhat:.3f}")
    draws = scalars(sampler.get_samples(), sites)
    return Truth(
        names=tuple(draws),
        mean=np.array([v.mean() for v in draws.values()]),
        sd=np.array([v.std(ddof=1) for v in draws.values()]),
        source=f"NUTS, 40,000 draws, R-hat {rhat:.4f}, smallest effective sample size {ess:.0f}",
    )
