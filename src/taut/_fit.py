"""The way in: from a model and data to a posterior."""

import dataclasses
import warnings
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from jax.sharding import Mesh

from taut._core.errors import ArgumentError, DoubtError
from taut._core.progress import Callback, Watch
from taut.data import AbstractSource
from taut.deep import PointEstimate, TrainedPosterior
from taut.deep.fit import fit_deep, is_deep, with_observed
from taut.deep.training import Request
from taut.families import AbstractFamily
from taut.ladder import OnDoubt, run
from taut.plan import make_plan
from taut.posterior import Posterior
from taut.posterior.result import check_budget, from_outcome
from taut.problem import Density, Problem, describe
from taut.problem.checks import model_name
from taut.solvers import AbstractSolver, Stochastic
from taut.solvers.streaming import streamed

DOUBTS = ("escalate", "warn", "raise")


def fit(
    model: Callable[..., Any] | Density,
    data: Any = None,
    *,
    observe: Mapping[str, Any] | None = None,
    family: AbstractFamily | Callable[..., Any] | None = None,
    solver: AbstractSolver | Stochastic | None = None,
    batch_size: int | None = None,
    validation: Any = None,
    seed: int = 0,
    budget: float | None = None,
    on_doubt: OnDoubt = "escalate",
    progress: bool | None = None,
    callbacks: Sequence[Callback] = (),
    mesh: Mesh | None = None,
    checkpoint: str | Path | None = None,
) -> Posterior | TrainedPosterior | PointEstimate:
    """Infer the posterior of everything that was not observed.

    Models with networks, encoders or other parameters to train are fitted by stochastic gradients
    (:class:`taut.solvers.Stochastic`); what they return has no verdict, but the evidence of new
    rows and a report on the latents.

    Args:
        model: a NumPyro model function, or a :class:`taut.Density`.
        data: mapping of the model's keyword arguments, or a pandas or polars data frame whose
            columns they are. Arrays travel as arguments of compiled functions; plain Python
            numbers, strings and lists are static, and may set shapes. Or a source of batches,
            such as ``taut.data.Parquet(folder)``, for models that fold: one pass over the rows.
        observe: site name -> values: condition on any sites of the model.
        family: None chooses; or one of :mod:`taut.families`: ``Amortised`` with encoders, ``Point``
            for maximum a posteriori; or a NumPyro guide function.
        solver: None chooses; or one of :mod:`taut.solvers`.
        batch_size: rows of a minibatch; None takes all rows at once, or lets
            :class:`taut.solvers.Stochastic` choose where there are networks.
        validation: data like ``data``, on which the bound is read while networks are trained; the
            parameters with the best one are kept.
        seed: same seed, same machine, same answer, bit for bit.
        budget: seconds; None: until converged.
        on_doubt: what a bad verdict does: "escalate" climbs to richer families, longer chains
            and NUTS; "warn" warns; "raise" raises :class:`DoubtError`, which holds the posterior.
        progress: None: a status line on a terminal; True: always; False: silent.
        callbacks: called as ``callback(stage, numbers)``; one that returns True ends the fit
            with the best so far, as Ctrl-C does.
        mesh: devices over which the rows of a minibatch are shared out, along its first axis.
        checkpoint: folder for the state of training; a run found there is gone on with, exactly.

    Returns:
        The posterior with its verdict; a :class:`taut.deep.PointEstimate` where nothing but
        parameters was asked for, a :class:`taut.deep.TrainedPosterior` of models with networks.

    Raises:
        DataError: if the data do not fit the model, or hold NaN or infinity where it matters.
        ModelError: if the model cannot be used: no latents, infinitely many labels, an improper
            posterior, a log density that is finite nowhere.
        ArgumentError: if an argument breaks its rule.
        DoubtError: if the verdict is bad and ``on_doubt="raise"``.
    """
    _check(seed, budget, on_doubt)
    asked = Request(family, None, batch_size, validation, seed, mesh, checkpoint)
    with Watch(budget, progress, callbacks) as watch:
        if is_deep(model, data, family, solver):
            return _deep(model, data, observe, asked, solver, watch)
        _check_shallow(asked)
        problem = _problem(model, data, observe, watch)
        plan = make_plan(problem, family, solver, batch_size)  # type: ignore[arg-type]
        posterior = from_outcome(run(problem, plan, seed, on_doubt, watch), seed, watch)
    return _act_on(posterior, on_doubt)


def _deep(
    model: Any, data: Any, observe: Any, asked: Request, solver: Any, watch: Watch
) -> TrainedPosterior | PointEstimate:
    if solver is not None and not isinstance(solver, Stochastic):
        raise ArgumentError(
            f"networks and encoders are trained by solvers.Stochastic(), got {type(solver).__name__}; leave solver out"
        )
    name, asked = model_name(model), dataclasses.replace(asked, solver=solver)
    if observe:
        model, data = with_observed(model, data, observe)
    return fit_deep(model, name, data, asked, watch)


def _check_shallow(asked: Request) -> None:
    """Refuse what only training by stochastic gradients takes."""
    for name in ("validation", "mesh", "checkpoint"):
        if getattr(asked, name) is not None:
            raise ArgumentError(
                f"{name} is for fits by stochastic gradients; this model needs none. Leave it out, or ask for them: "
                "solver=solvers.Stochastic()"
            )


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
