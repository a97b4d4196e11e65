"""The result of a fit."""

import dataclasses
import functools
import importlib.metadata
import os
from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd

from taut._core.errors import ArgumentError, UnsupportedError, listing, nearest
from taut._core.progress import Watch
from taut.families import AbstractDistribution, AbstractFamily
from taut.ladder import Outcome, escalate, mcmc, run
from taut.plan import Plan, make_plan
from taut.posterior import export, page, predictive, storage
from taut.trust.draws import Draws, make_draws
from taut.posterior.table import summary_table
from taut.problem import Problem
from taut.problem.evaluator import Evaluator
from taut.solvers import AbstractSolver
from taut.trust.evidence import Evidence
from taut.trust.summary import History, Restarts, Trust


@dataclasses.dataclass(frozen=True, repr=False)
class Posterior:
    """A posterior: draws, moments, evidence, and how far to trust them.

    Made by :func:`taut.fit` and :func:`taut.load`.

    Attributes:
        name: the model's name.
        q: the variational distribution over the unconstrained space: sample, log_prob, entropy.
        plan: what was done, and why; printable.
        trust: the verdict with its numbers, reasons and advice.
        evidence: log evidence from below, by estimate and from above, nats.
        history: ELBO by iteration, and why it stopped.
        dims: site -> name of each axis.
        seed: seed of the fit.
        versions: package -> version it was fitted with.
        problem: the model with its data; None for a loaded posterior without its model.
    """

    name: str
    q: AbstractDistribution
    plan: Plan | str
    trust: Trust
    evidence: Evidence
    history: History
    dims: Mapping[str, tuple[str, ...]]
    seed: int
    versions: Mapping[str, str]
    problem: Problem | None
    _corrected: Draws
    _raw: Draws
    _outcome: Outcome | None = None

    # --- draws and moments --------------------------------------------------------------------

    def draws(self, num_draws: int = 1000, *, corrected: bool = True, seed: int | None = None) -> dict[str, np.ndarray]:
        """Draw from the posterior, in the model's own space.

        Args:
            num_draws: number of draws, at least 1. Beyond the number kept (up to 8,192) draws
                repeat.
            corrected: True: the best available, by importance weights, chains or NUTS as
                ``trust.correction`` says; False: of q itself.
            seed: of the choice; None takes the fit's.

        Returns:
            Latent and deterministic site -> draws, (num_draws, *shape).
        """
        _positive(num_draws, "num_draws")
        if not corrected and self.problem is not None:
            rng = np.random.default_rng((self.seed if seed is None else seed, 13))
            found = make_draws(Evaluator(self.problem), self.q.sample(rng, num_draws))
            return dict(found.values)
        pool = self._corrected if corrected else self._raw
        index = pool.indices(num_draws, self.seed if seed is None else seed)
        return {name: values[index] for name, values in pool.values.items()}

    @property
    def mean(self) -> dict[str, np.ndarray]:
        """Posterior means by site, from all corrected draws."""
        return self._corrected.moments()[0]

    @property
    def sd(self) -> dict[str, np.ndarray]:
        """Posterior standard deviations by site, from all corrected draws."""
        return self._corrected.moments()[1]

    @property
    def elbo(self) -> float:
        """Evidence lower bound of q, in nats, with every constant; its error is in ``evidence``."""
        return self.evidence.lower

    def summary(self, var_names: list[str] | None = None, *, hdi_prob: float = 0.94) -> pd.DataFrame:
        """Summarise the posterior in ArviZ's layout.

        Args:
            var_names: sites to show; None shows all.
            hdi_prob: probability of the highest-density interval, between 0 and 1.

        Returns:
            One row per scalar: mean, sd, interval, Monte Carlo error of the mean, and ``shift``,
            the corrected mean's distance from q's in sds.
        """
        if not 0.0 < hdi_prob < 1.0:
            raise ArgumentError(f"hdi_prob must be between 0 and 1, got {hdi_prob}")
        for name in var_names or ():
            if name not in self._corrected.values:
                known = list(self._corrected.values)
                raise ArgumentError(f"var_names has '{name}', which is not a site{nearest(name, known) or ';'} sites: {listing(known)}")
        return summary_table(self._corrected, self._raw, self.trust.ess, var_names, hdi_prob, self.seed)

    # --- predictions --------------------------------------------------------------------------

    def predict(self, new_data: Any = None, *, num_draws: int = 1000, seed: int | None = None) -> dict[str, np.ndarray]:
        """Draw from the posterior predictive distribution.

        Args:
            new_data: data of any length in the form that ``fit`` took, the response left out;
                None predicts at the data of the fit. Latents whose shape changes with the data
                (new groups) are drawn from their prior given the others.
            num_draws: number of draws, at least 1.
            seed: None takes the fit's.

        Returns:
            Observed site -> draws, (num_draws, *shape).

        Raises:
            UnsupportedError: if the posterior was loaded without its model.
        """
        _positive(num_draws, "num_draws")
        problem = self._need_model("predict")
        seed = self.seed if seed is None else seed
        return predictive.predict(problem, self.draws(num_draws, seed=seed), new_data, seed)

    def log_likelihood(self, *, num_draws: int = 1000, seed: int | None = None) -> dict[str, np.ndarray]:
        """Pointwise log likelihood at corrected draws, unscaled, for leave-one-out comparison.

        Args:
            num_draws: number of draws, at least 1.
            seed: None takes the fit's.

        Returns:
            Observed site -> log likelihood, (num_draws, *shape).
        """
        _positive(num_draws, "num_draws")
        problem = self._need_model("log_likelihood")
        index = self._corrected.indices(num_draws, self.seed if seed is None else seed)
        return predictive.log_likelihood(problem, self._corrected.points[index])

    def to_arviz(self, *, num_draws: int = 2000, predictive: bool = True) -> Any:
        """Convert to what the installed ArviZ reads.

        Args:
            num_draws: draws in the posterior group.
            predictive: include the posterior predictive.

        Returns:
            ``arviz.InferenceData`` for ArviZ below 1, ``xarray.DataTree`` from 1 on, with groups
            posterior, sample_stats, observed_data and, where the model is known, log_likelihood
            and posterior_predictive; chain = 1, draw = num_draws. ``az.loo`` works on it.
        """
        _positive(num_draws, "num_draws")
        return export.to_arviz(self, self._corrected, num_draws, predictive)

    # --- going on -----------------------------------------------------------------------------

    def refine(
        self, *, budget: float | None = None, family: AbstractFamily | None = None, solver: AbstractSolver | None = None,
        mcmc_draws: bool = False,
    ) -> "Posterior":  # fmt: skip
        """Keep going from here.

        Args:
            budget: seconds; None until done.
            family: a richer family to fit; None keeps this one.
            solver: another solver; None chooses.
            mcmc_draws: draw from NUTS, started at q and preconditioned by it.

        Returns:
            A new posterior; with neither family, solver nor NUTS, the ladder's next rungs if the
            verdict is bad.
        """
        problem, outcome = self._need_model("refine"), self._outcome
        if outcome is None:
            raise UnsupportedError("refine needs the fit itself; a loaded posterior has only its draws: fit again")
        with Watch(budget) as watch:
            if family is not None or solver is not None:
                outcome = run(problem, make_plan(problem, family, solver), self.seed, "escalate", watch)
            elif mcmc_draws:
                outcome = mcmc(outcome, self.seed, watch)
            else:
                outcome = escalate(outcome, self.seed + 1, watch)
        return from_outcome(outcome, self.seed)

    def update(self, more_data: Any, *, budget: float | None = None) -> "Posterior":
        """Fit more data with this posterior as the prior.

        Args:
            more_data: data in the form that ``fit`` took.
            budget: seconds; None until done.

        Returns:
            The posterior given both. The prior is the Gaussian with the corrected draws' mean and
            covariance in unconstrained space, so it is approximate where they are not Gaussian.

        Raises:
            UnsupportedError: if the model has factors, or latents whose shape changes with the data.
        """
        problem = predictive.with_prior(self._need_model("update"), more_data, self._corrected)
        with Watch(budget) as watch:
            outcome = run(problem, make_plan(problem), self.seed, "escalate", watch)
        return from_outcome(outcome, self.seed)

    # --- showing and keeping ------------------------------------------------------------------

    def report(self, path: str | os.PathLike[str]) -> None:
        """Write one self-contained HTML page.

        Args:
            path: of the file; its folder must exist.
        """
        page.write(self, self._corrected, self._raw, path)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Save draws, q and diagnostics, without the data.

        Args:
            path: of the file, written whole or not at all.
        """
        storage.save(self, self._corrected, self._raw, path)

    def __repr__(self) -> str:
        """Table, verdict, and how long it took."""
        table = self.summary()
        rows = table if len(table) <= 30 else table.head(30)
        text = rows.to_string(float_format=lambda x: f"{x:.4g}")
        more = f"\n... {len(table) - 30} more rows: posterior.summary()" if len(table) > 30 else ""
        return f"{text}{more}\n\n{self.trust}\nlog evidence: {self.evidence}\n{self.history}"

    def _need_model(self, what: str) -> Problem:
        if self.problem is None:
            raise UnsupportedError(f"{what} needs the model: load with taut.load(path, model=model, data=data)")
        return self.problem


def _positive(value: int, name: str) -> None:
    if not isinstance(value, int | np.integer) or value < 1:
        raise ArgumentError(f"{name} must be a whole number of at least 1, got {value!r}")


@functools.cache
def versions() -> dict[str, str]:
    """Versions of the packages that a fit depends on."""
    found = {}
    for package in ("taut", "jax", "numpyro", "numpy", "scipy"):
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            found[package] = "unknown"
    return found


def from_outcome(outcome: Outcome, seed: int) -> Posterior:
    """Wrap what the ladder found."""
    problem = outcome.problem
    dims = {s.name: s.dims for s in (*problem.latents, *problem.observed)}
    return Posterior(
        name=problem.name,
        q=outcome.q,
        plan=outcome.plan,
        trust=_trust(outcome),
        evidence=outcome.evidence,
        history=History(
            elbo=outcome.solution.history,
            status=outcome.status.value,
            converged=outcome.status.ok,
            num_gradients=outcome.num_gradients,
            seconds=outcome.seconds,
        ),
        dims=dims,
        seed=seed,
        versions=versions(),
        problem=problem,
        _corrected=outcome.pool.draws,
        _raw=outcome.raw,
        _outcome=outcome,
    )


def _trust(outcome: Outcome) -> Trust:
    drift, moved = outcome.drift, outcome.moved
    return Trust(
        verdict=outcome.verdict.word,
        reasons=outcome.verdict.reasons,
        advice=outcome.verdict.advice,
        notes=(*outcome.problem.program.notes, *outcome.notes),
        khat=outcome.weighted.khat,
        weight_ess=outcome.weighted.ess,
        drift=dict(zip(drift.labels, drift.size.tolist(), strict=True)) if drift else {},
        drift_error=dict(zip(drift.labels, drift.error.tolist(), strict=True)) if drift else {},
        correction=outcome.pool.method,
        ess=outcome.pool.ess,
        rhat=moved.agreement.rhat if moved else float("nan"),
        acceptance=moved.acceptance if moved else float("nan"),
        restarts=Restarts(
            tuple(p.log_joint for p in outcome.start.paths), tuple((m.elbo, m.weight) for m in outcome.other_modes)
        ),
        mean_error=outcome.solution.mean_error,
    )
