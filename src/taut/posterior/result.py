"""The result of a fit."""

import dataclasses
import functools
import importlib.metadata
import os
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from taut._core.errors import ArgumentError, UnsupportedError, listing, nearest
from taut._core.progress import Watch
from taut._core.status import Status
from taut.families import AbstractDistribution, AbstractFamily
from taut.ladder import Outcome, escalate, mcmc, run
from taut.plan import Plan, make_plan
from taut.posterior import carry, predictive, storage
from taut.posterior import discrete as summed
from taut.posterior.discrete import Discrete
from taut.posterior.judged import trust_of
from taut.problem import Problem
from taut.problem.evaluator import Evaluator
from taut.problem.stand_in import without_stand_in
from taut.solvers import AbstractSolver
from taut.trust.draws import Draws, make_draws
from taut.trust.evidence import Evidence
from taut.trust.summary import History, Trust, wrapped

if TYPE_CHECKING:
    import pandas


FEW_LABELS = 18  # elements of discrete latents, all in all, whose probabilities are printed


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
    _coordinates: storage.Coordinates
    _forecaster: predictive.Forecaster | None = None
    _outcome: Outcome | None = None
    _discrete: Discrete | None = None

    # --- draws and moments --------------------------------------------------------------------

    def draws(
        self, num_draws: int = 1000, *, corrected: bool = True, seed: int | None = None
    ) -> dict[str, np.ndarray]:
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
            return without_stand_in(found.values)
        pool = self._corrected if corrected else self._raw
        index = pool.indices(num_draws, self.seed if seed is None else seed)
        return {name: values[index] for name, values in without_stand_in(pool.values).items()}

    @property
    def mean(self) -> dict[str, np.ndarray]:
        """Posterior means by site, from all corrected draws."""
        return without_stand_in(self._corrected.moments()[0])

    @property
    def sd(self) -> dict[str, np.ndarray]:
        """Posterior standard deviations by site, from all corrected draws."""
        return without_stand_in(self._corrected.moments()[1])

    @property
    def responsibilities(self) -> dict[str, np.ndarray]:
        """Probabilities of discrete latents: site -> (*shape, num_values), over 256 draws."""
        return dict(self.discrete.probabilities)

    @property
    def assignments(self) -> dict[str, np.ndarray]:
        """The most probable value of each element of the discrete latents: site -> (*shape)."""
        return self.discrete.assignments

    @functools.cached_property
    def discrete(self) -> Discrete:
        """Posterior of the discrete latents, as a whole."""
        if self._discrete is not None or self.problem is None or not self.problem.discrete:
            return self._discrete or Discrete()
        return summed.posterior_of(self.problem, self._corrected, self.seed)

    @property
    def elbo(self) -> float:
        """Evidence lower bound of q, in nats, with every constant; its error is in ``evidence``."""
        return self.evidence.lower

    def summary(
        self, var_names: Sequence[str] | str | None = None, *, hdi_prob: float = 0.94
    ) -> "pandas.DataFrame":
        """Summarise the posterior in ArviZ's layout.

        Args:
            var_names: a site or several; None shows all.
            hdi_prob: probability of the highest-density interval, between 0 and 1.

        Returns:
            One row per scalar: mean, sd, interval, Monte Carlo error of the mean, and ``shift``,
            the corrected mean's distance from q's in sds.
        """
        from taut.posterior.table import summary_table  # pandas, only when asked for

        if not 0.0 < hdi_prob < 1.0:
            raise ArgumentError(f"hdi_prob must be between 0 and 1, got {hdi_prob}")
        names = [var_names] if isinstance(var_names, str) else list(var_names or ())
        known = list(without_stand_in(self._corrected.values))
        for name in names:
            if name not in known:
                raise ArgumentError(
                    f"var_names has '{name}', which is not a site{nearest(name, known) or ';'} "
                    f"sites: {listing(known)}"
                )
        return summary_table(
            self._corrected, self._raw, self.trust.ess, names or known, hdi_prob, self.seed
        )

    # --- predictions --------------------------------------------------------------------------

    def predict(
        self, new_data: Any = None, *, num_draws: int = 1000, seed: int | None = None
    ) -> dict[str, np.ndarray]:
        """Draw from the posterior predictive distribution.

        Args:
            new_data: data of any length in the form that ``fit`` took, the response left out;
                None predicts at the data of the fit. Group i stays group i: where the number of
                groups grows, the new ones come after those of the fit and are drawn from their
                prior given the other latents. Latents of single observations, and all others
                whose shape changes, are drawn from their prior. Discrete latents are drawn too:
                for None from their posterior given the data, otherwise by the same rules.
            num_draws: number of draws, at least 1.
            seed: None takes the fit's.

        Returns:
            Observed site -> draws, (num_draws, *shape).

        Raises:
            UnsupportedError: if the posterior was loaded without its model.
        """
        _positive(num_draws, "num_draws")
        if self._forecaster is None:
            raise UnsupportedError(
                "predict needs a model that can simulate its observed sites; of a file, load with "
                "taut.load(path, model=model), and data=data too to predict at the data of the fit"
            )
        seed = self.seed if seed is None else seed
        draws = self.draws(num_draws, seed=seed)
        kept = predictive.kept_discrete(self._forecaster, new_data)
        if kept:
            problem = self._need_model("predicting with discrete latents of the fit")
            points = self._corrected.points[self._corrected.indices(num_draws, seed)]
            draws |= summed.draw(problem, points, seed, kept)
        return predictive.predict(self._forecaster, draws, new_data, seed)

    def log_likelihood(
        self, *, num_draws: int = 1000, seed: int | None = None
    ) -> dict[str, np.ndarray]:
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
        from taut.posterior import export  # xarray, only when asked for

        _positive(num_draws, "num_draws")
        return export.to_arviz(self, self._corrected, num_draws, predictive)

    # --- going on -----------------------------------------------------------------------------

    def refine(
        self,
        *,
        budget: float | None = None,
        family: AbstractFamily | None = None,
        solver: AbstractSolver | None = None,
        mcmc_draws: bool = False,
    ) -> "Posterior":
        """Keep going from here.

        Args:
            budget: seconds; None until done.
            family: a richer family to fit; None keeps this one.
            solver: another solver; None chooses.
            mcmc_draws: draw from NUTS, started at q and preconditioned by it.

        Returns:
            A new posterior; with neither family, solver nor NUTS, the ladder's next rungs if the
            verdict is bad.

        Raises:
            UnsupportedError: if the posterior was loaded from a file.
        """
        check_budget(budget)
        problem, outcome = self._need_model("refine"), self._outcome
        if outcome is None:
            raise UnsupportedError(
                "refine needs the fit itself; a loaded posterior has only its draws: fit again"
            )
        with Watch(budget) as watch:
            if family is not None or solver is not None:
                problem = problem.with_centring(
                    {
                        s.name: np.zeros(s.centring)
                        for s in problem.latents
                        if s.centring is not None
                    }
                )
                plan = make_plan(problem, family, solver)
                outcome = run(problem, plan, self.seed, "escalate", watch)
            elif mcmc_draws:
                outcome = mcmc(outcome, self.seed, watch)
            else:
                outcome = escalate(outcome, self.seed + 1, watch)
        return from_outcome(outcome, self.seed, watch)

    def update(self, more_data: Any, *, budget: float | None = None) -> "Posterior":
        """Fit more data with this posterior as the prior.

        Args:
            more_data: data in the form that ``fit`` took.
            budget: seconds; None until done.

        Returns:
            The posterior given both. The prior is the Gaussian with the corrected draws' mean and
            covariance in unconstrained space, so it is approximate where they are not Gaussian.

        Raises:
            UnsupportedError: if prior and likelihood cannot be told apart (a model with factors, a
                Density without ``log_likelihood``), or if latents change shape with the data.
        """
        check_budget(budget)
        before = self._need_model("update")
        with Watch(budget) as watch:
            problem = carry.with_posterior_as_prior(before, more_data, self._corrected)
            outcome = run(problem, make_plan(problem), self.seed, "escalate", watch)
        return from_outcome(outcome, self.seed, watch)

    # --- showing and keeping ------------------------------------------------------------------

    def report(self, path: str | os.PathLike[str]) -> None:
        """Write one self-contained HTML page.

        Args:
            path: of the file.

        Raises:
            FileError: if its folder does not exist.
        """
        from taut.posterior import page

        page.write(self, self._corrected, self._raw, path)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Save draws, q and diagnostics, without the data.

        Args:
            path: of the file, written whole or not at all.

        Raises:
            FileError: if its folder does not exist.
        """
        storage.save(self, self._corrected, self._raw, self._coordinates, path)

    def __repr__(self) -> str:
        """Tables, verdict, and how long it took."""
        from taut.posterior.table import as_text, labels_as_text

        history = self.history
        ends = wrapped((f"log evidence: {self.evidence}", history.effort, history.status))
        tables = [as_text(self.summary())] if self.mean else []
        known = self.problem is None or sum(s.size for s in self.problem.discrete) <= FEW_LABELS
        if known and (shown := labels_as_text(self.discrete.probabilities, self.discrete.values)):
            tables.append(shown)
        return "\n\n".join([*tables, f"{self.trust}\n{ends}"])

    def _need_model(self, what: str) -> Problem:
        if self.problem is None:
            raise UnsupportedError(
                f"{what} needs the model and its data, which a file does not hold: "
                "load with taut.load(path, model=model, data=data)"
            )
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


def check_budget(budget: float | None) -> None:
    """Refuse budgets that are no positive number of seconds."""
    if budget is not None and not (isinstance(budget, int | float) and budget > 0):
        raise ArgumentError(f"budget must be a positive number of seconds or None, got {budget!r}")


def from_outcome(outcome: Outcome, seed: int, watch: Watch) -> Posterior:
    """Wrap what the ladder found.

    Args:
        outcome: of the ladder.
        seed: of the fit.
        watch: of the fit; what ended it is the status if that was not the solver.
    """
    problem, status = outcome.problem, outcome.status
    if watch.over and outcome.verdict.word == "bad":
        status = Status.INTERRUPTED if watch.interrupted else Status.BUDGET
    dims = {s.name: s.dims for s in (*problem.latents, *problem.discrete, *problem.observed)}
    return Posterior(
        name=problem.name,
        q=outcome.examined.q,
        plan=outcome.plan,
        trust=trust_of(outcome),
        evidence=outcome.evidence,
        history=History(
            elbo=outcome.solution.history,
            status=status.value,
            converged=status.ok,
            num_gradients=outcome.num_gradients,
            seconds=watch.seconds,
        ),
        dims=dims,
        seed=seed,
        versions=versions(),
        problem=problem,
        _corrected=outcome.pool.draws,
        _raw=outcome.examined.raw,
        _coordinates=storage.coordinates_of(problem),
        _forecaster=predictive.forecaster_of(problem),
        _outcome=outcome,
    )
