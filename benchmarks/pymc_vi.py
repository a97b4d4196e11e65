"""PyMC's ADVI and full-rank ADVI, and the Pathfinder of pymc-extras."""

import dataclasses
from typing import Any

import numpy as np

from benchmarks.cases import Case
from benchmarks.timing import CHUNK, Clock, Fit, at_once, descend
from benchmarks.twins import TWINS

NUM_DRAWS = 4000
ELBO_DRAWS = 512
FINAL_DRAWS = 20_000


def _twin(case: Case) -> Any:
    return TWINS[case.name].build(case.arguments)


class Advi:
    """ADVI by Adam at one starting rate, in chunks with ``refine``."""

    method = "ADVI"

    def __init__(self, case: Case, rate: float | None, budget: float) -> None:
        assert rate is not None
        self._case, self._rate, self._budget = case, rate, budget
        self._model = _twin(case)
        self._log_joint: Any = None

    def run(self, seed: int) -> Fit:
        """Fit once."""
        import pymc as pm
        import pytensor

        clock = Clock()
        rate = pytensor.shared(np.asarray(self._rate, dtype=pytensor.config.floatX))
        inference = getattr(pm, self.method)(model=self._model, random_seed=seed)
        optimiser = pm.adam(learning_rate=rate)

        def advance(current: float) -> None:
            rate.set_value(np.asarray(current, dtype=rate.dtype))
            if inference.state is None:
                inference.fit(CHUNK, obj_optimizer=optimiser, progressbar=False)
            else:
                inference.refine(CHUNK, progressbar=False)

        with clock.held():
            gauss = _Gaussian(inference.approx, self._model, self._compiled(), self._case.name)
        fit = descend(
            self._case,
            clock,
            self._rate,
            advance,
            lambda: gauss.elbo(ELBO_DRAWS, 1),
            lambda: gauss.draws(NUM_DRAWS, 2),
            self._budget,
        )
        return dataclasses.replace(fit, elbo=gauss.elbo(FINAL_DRAWS, 3))

    def _compiled(self) -> Any:
        if self._log_joint is None:
            self._log_joint = self._model.compile_logp()
        return self._log_joint


class FullRankAdvi(Advi):
    """The same with a full covariance."""

    method = "FullRankADVI"


class _Gaussian:
    """PyMC's current approximation, read without its slow sampler."""

    def __init__(self, approx: Any, model: Any, log_joint: Any, name: str) -> None:
        import pytensor

        self._moments = pytensor.function([], [approx.mean, approx.cov])
        self._slots = [(v[0], v[1], v[2]) for v in approx.ordering.values()]
        self._names = {model.rvs_to_values[r].name: r.name for r in model.free_RVs}
        self._log_joint, self._derive = log_joint, TWINS[name].derive

    def _points(self, num: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
        """Unconstrained draws, and the Cholesky factor of their covariance."""
        mean, cov = self._moments()
        root = np.linalg.cholesky(np.asarray(cov, dtype=float))
        z = np.random.default_rng(seed).standard_normal((num, len(mean)))
        return mean + z @ root.T, root

    def elbo(self, num: int, seed: int) -> float:
        """Mean log joint of draws plus the entropy."""
        points, root = self._points(num, seed)
        total = [self._log_joint(self._point(p)) for p in points]
        entropy = np.log(np.diag(root)).sum() + 0.5 * len(root) * (1 + np.log(2 * np.pi))
        return float(np.mean(total) + entropy)

    def _point(self, flat: np.ndarray) -> dict[str, np.ndarray]:
        return {name: flat[where].reshape(shape) for name, where, shape in self._slots}

    def draws(self, num: int, seed: int) -> dict[str, np.ndarray]:
        """Draws in the model's own space; every transform here is a logarithm."""
        points, _ = self._points(num, seed)
        found = {}
        for name, where, shape in self._slots:
            value = points[:, where].reshape(num, *shape)
            found[self._names[name]] = np.exp(value) if name.endswith("_log__") else value
        return found | self._derive(found)


class Pathfinder:
    """Multi-path Pathfinder of pymc-extras, importance-resampled."""

    def __init__(self, case: Case, rate: float | None, budget: float) -> None:
        self._case, self._model = case, _twin(case)

    def run(self, seed: int) -> Fit:
        """Fit once: eight paths in this process."""
        import pymc_extras

        clock = Clock()
        found = pymc_extras.fit_pathfinder(
            self._model,
            num_paths=8,
            num_draws=4000,
            num_draws_per_path=1000,
            importance_sampling="psis",
            concurrent=None,
            progressbar=False,
            display_summary=False,
            random_seed=seed,
        )
        seconds = clock.seconds
        posterior = found.posterior
        draws = {k: np.concatenate(np.asarray(posterior[k]), axis=0) for k in posterior.data_vars}
        draws |= TWINS[self._case.name].derive(draws)
        return at_once(self._case, seconds, draws)
