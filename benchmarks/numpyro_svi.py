"""NumPyro's SVI with Adam: one step function compiled once, a plateau as end."""

import copy
import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np

from benchmarks.cases import Case
from benchmarks.timing import CHUNK, Clock, Fit, descend

NUM_DRAWS = 4000
PARTICLES = 512  # of the ELBO that is looked at
FINAL_BATCHES = 40


class Svi:
    """A guide fitted by Adam at one starting rate."""

    guide = "AutoNormal"

    def __init__(self, case: Case, rate: float | None, budget: float) -> None:
        import jax
        import numpyro
        from numpyro.infer import SVI, Trace_ELBO, autoguide

        numpyro.enable_x64()
        assert rate is not None
        self._case, self._rate, self._budget = case, rate, budget
        self._guide = getattr(autoguide, self.guide)(case.model)
        adam = numpyro.optim.Adam(rate)
        self._svi = SVI(case.model, self._guide, adam, Trace_ELBO())
        self._chunk = jax.jit(self._steps)
        self._elbo = jax.jit(self._bound)
        self._draws = jax.jit(self._sample)

    def _steps(self, state: Any, rate: Any) -> Any:
        """CHUNK steps; the rate is an argument, so that its fall compiles nothing."""
        import jax
        import numpyro

        svi = copy.copy(self._svi)
        svi.optim = numpyro.optim.Adam(lambda step: rate)

        def step(state: Any, _: None) -> Any:
            return svi.stable_update(state, **self._case.arguments)

        return jax.lax.scan(step, state, length=CHUNK)[0]

    def _bound(self, params: Any, key: Any) -> Any:
        from numpyro.infer import Trace_ELBO

        elbo = Trace_ELBO(num_particles=PARTICLES, vectorize_particles=True)
        return -elbo.loss(key, params, self._case.model, self._guide, **self._case.arguments)

    def _sample(self, params: Any, key: Any) -> dict[str, Any]:
        """Draws of the sites that are compared, deterministic ones among them."""
        from numpyro.infer import Predictive

        found = self._guide.sample_posterior(key, params, sample_shape=(NUM_DRAWS,))
        missing = [s for s in self._case.sites if s not in found]
        if missing:
            derive = Predictive(self._case.model, found, return_sites=missing, parallel=True)
            found = found | derive(key, **self._case.arguments)
        return {s: found[s] for s in self._case.sites}

    def run(self, seed: int) -> Fit:
        """Fit once."""
        import jax

        clock = Clock()
        state = self._svi.init(jax.random.key(seed), **self._case.arguments)
        look = jax.random.key(10_000)

        def advance(rate: float) -> None:
            nonlocal state
            state = jax.block_until_ready(self._chunk(state, rate))

        def elbo() -> float:
            return float(self._elbo(self._svi.get_params(state), look))

        def draws() -> Mapping[str, np.ndarray]:
            return jax.device_get(self._draws(self._svi.get_params(state), look))

        fit = descend(self._case, clock, self._rate, advance, elbo, draws, self._budget)
        return dataclasses.replace(fit, elbo=self._final(self._svi.get_params(state)))

    def _final(self, params: Any) -> float:
        """The ELBO on many draws."""
        import jax

        keys = jax.random.split(jax.random.key(20_000), FINAL_BATCHES)
        return float(np.mean([self._elbo(params, k) for k in keys]))


class SviDense(Svi):
    """The same with a full covariance."""

    guide = "AutoMultivariateNormal"
