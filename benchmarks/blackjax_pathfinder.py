"""BlackJAX's Pathfinder: 1.7.1 takes the gradient of its mean with the wrong sign."""

from typing import Any

from benchmarks.cases import Case
from benchmarks.timing import Clock, Fit, at_once

NUM_DRAWS = 4000


class Pathfinder:
    """A single path on the log density that NumPyro gives."""

    def __init__(self, case: Case, rate: float | None, budget: float) -> None:
        import jax
        import numpyro

        numpyro.enable_x64()
        self._case = case
        self._parts: Any = None
        self._fit = jax.jit(self._approximate)

    def _setup(self, key: Any) -> Any:
        from numpyro.infer.util import initialize_model

        return initialize_model(key, self._case.model, model_kwargs=self._case.arguments)

    def _approximate(self, key: Any, start: Any) -> Any:
        import jax
        from blackjax.vi import pathfinder

        search, draw = jax.random.split(key)
        found, _ = pathfinder.approximate(search, lambda u: -self._parts.potential_fn(u), start)
        points, _ = pathfinder.sample(draw, found, NUM_DRAWS)
        return found.elbo, jax.vmap(self._parts.postprocess_fn)(points)

    def run(self, seed: int) -> Fit:
        """Fit once; the compiled program is kept for the next seed."""
        import jax

        clock = Clock()
        first, second = jax.random.split(jax.random.key(seed))
        parts = self._setup(first)
        self._parts = self._parts or parts
        elbo, draws = jax.device_get(self._fit(second, parts.param_info.z))
        return at_once(self._case, clock.seconds, draws, float(elbo))
