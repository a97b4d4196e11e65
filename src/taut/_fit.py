"""The way in: from a model and data to a posterior."""

import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from taut._core.errors import ArgumentError, DoubtError
from taut._core.progress import Callback, Watch
from taut.data import AbstractSource
from taut.families import AbstractFamily
from taut.ladder import OnDoubt, run
from taut.plan import make_plan
from taut.posterior import Posterior
from taut.posterior.result import check_budget, from_outcome
from taut.problem import Density, Problem, describe
from taut.solvers import AbstractSolver
from taut.solvers.streaming import streamed

DOUBTS = ("escalate", "warn", "raise")


def fit(
    model: Callable[..., Any] | Density,
    data: Any = None,
    *,
    observe: Mapping[str, Any] | None = None,
    family: AbstractFamily | None = None,
    solver: AbstractSolver | None = None,
    seed: int = 0,
    budget: float | None = None,
    on_doubt: OnDoubt = "escalate",
    progress: bool | None = None,
    callbacks: Sequence[Callback] = (),
) -> Posterior:
    """Infer the posterior of everything that was not observed.

    Args:
        model: a NumPyro model function, or a :class:`taut.Density`.
        data: mapping of the model's keyword arguments, or a pandas or polars data frame whose
            columns they are. Arrays travel as arguments of compiled functions; plain Python
            numbers, strings and lists are static, and may set shapes. Or a source of batches,
            such as ``taut.data.Parquet(folder)``, for models that fold: one pass over the rows.
        observe: site name -> values: condition on any sites of the model.
        family: None chooses; or one of :mod:`taut.families`.
        solver: None chooses; or one of :mod:`taut.solvers`.
        seed: same seed, same machine, same answer, bit for bit.
        budget: seconds; None: until converged.
        on_doubt: what a bad verdict does: "escalate" climbs to richer families, longer chains
            and NUTS; "warn" warns; "raise" raises :class:`DoubtError`, which holds the posterior.
        progress: None: a status line on a terminal; True: always; False: silent.
        callbacks: called as ``callback(stage, numbers)``; one that returns True ends the fit
            with the best so far, as Ctrl-C does.

    Returns:
        The posterior with its verdict.

    Raises:
        DataError: if the data do not fit the model, or hold NaN or infinity where it matters.
        ModelError: if the model cannot be used: no latents, infinitely many labels, an improper
            posterior, a log density that is finite nowhere.
        ArgumentError: if an argument breaks its rule.
        DoubtError: if the verdict is bad and ``on_doubt="raise"``.
    """
    _check(seed, budget, on_doubt)
    with Watch(budget, progress, callbacks) as watch:
        problem = _problem(model, data, observe, watch)
        plan = make_plan(problem, family, solver)
        posterior = from_outcome(run(problem, plan, seed, on_doubt, watch), seed, watch)
    return _act_on(posterior, on_doubt)


def _problem(model: Any, data: Any, observe: Any, watch: Watch) -> Problem:
    if not isinstance(data, AbstractSource):
        return describe(model, data, observe)
    if observe:
        raise ArgumentError(
            "observe conditions sites of data in memory; of a source, give the values as a column or in fixed"
        )
    return streamed(model, data, watch)


def _check(seed: int, budget: float | None, on_doubt: str) -> None:
    if not isinstance(seed, int) or isinstance(seed, bool) or seed < 0:
        raise ArgumentError(f"seed must be a whole number of at least 0, got {seed!r}")
    check_budget(budget)
    if on_doubt not in DOUBTS:
        raise ArgumentError(
            f"on_doubt must be one of {', '.join(map(repr, DOUBTS))}, got {on_doubt!r}"
        )


def _act_on(posterior: Posterior, on_doubt: str) -> Posterior:
    if posterior.trust.verdict != "bad":
        return posterior
    message = f"the fit of {posterior.name} is not to be trusted: " + "; ".join(
        posterior.trust.reasons
    )
    if on_doubt == "raise":
        raise DoubtError(f"{message}. The posterior is in this error's .posterior", posterior)
    warnings.warn(f"{message}. Advice: {'; '.join(posterior.trust.advice)}", stacklevel=3)
    return posterior
