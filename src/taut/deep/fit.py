"""The way into deep models: which fits they are, and the results they give."""

import inspect
from collections.abc import Callable, Mapping
from typing import Any

import jax
from numpyro import handlers

from taut._core.errors import ArgumentError
from taut._core.progress import Watch
from taut.data import AbstractSource
from taut.deep.point import PointEstimate
from taut.deep.posterior import TrainedPosterior
from taut.deep.training import Request, fit_rows
from taut.families import AbstractFamily, Amortised, Point
from taut.problem import Density
from taut.problem.data import read, read_observe
from taut.problem.numpyro_model import bind_arguments
from taut.solvers.stochastic import Stochastic


def is_deep(model: Any, data: Any, family: Any, solver: Any) -> bool:
    """Whether a fit is one by stochastic gradients: it is asked for, or has parameters to train."""
    if isinstance(model, Density) or isinstance(family, type):
        return False
    written = callable(family) and not isinstance(family, AbstractFamily)
    if isinstance(family, Amortised | Point) or isinstance(solver, Stochastic) or written:
        return True
    return family is None and solver is None and _has_parameters(model, data)


def _has_parameters(model: Callable[..., Any], data: Any) -> bool:
    """Whether the model has ``numpyro.param`` sites, networks among them."""
    try:
        arguments = bind_arguments(model, read(data))
        with handlers.seed(rng_seed=0), handlers.trace() as trace:
            jax.eval_shape(lambda: (model(**arguments), None)[1])
    except Exception:  # said properly where the model is read
        return False
    return any(site["type"] == "param" for site in trace.values())


def with_observed(
    model: Callable[..., Any], data: Any, observe: Mapping[str, Any]
) -> tuple[Callable[..., Any], dict[str, Any]]:
    """A model whose observed values are arguments, so that they are cut into rows like these.

    Raises:
        ArgumentError: if the data are a source.
    """
    if isinstance(data, AbstractSource):
        raise ArgumentError(
            "observe conditions sites of data in memory; of a source, give the values as a column of it"
        )
    given, values = bind_arguments(model, read(data)), read_observe(observe)
    names = {f"observed_{i}": site for i, site in enumerate(values)}
    signature = inspect.signature(model)
    kind = inspect.Parameter.KEYWORD_ONLY
    added = [inspect.Parameter(n, kind) for n in names]

    def conditioned(**arguments: Any) -> Any:
        known = {site: arguments.pop(n) for n, site in names.items()}
        return handlers.condition(model, data=known)(**arguments)

    conditioned.__signature__ = signature.replace(  # type: ignore[attr-defined]
        parameters=[*signature.parameters.values(), *added]
    )
    return conditioned, {**given, **{n: values[site] for n, site in names.items()}}


def fit_deep(
    model: Callable[..., Any], name: str, data: Any, asked: Request, watch: Watch
) -> TrainedPosterior | PointEstimate:
    """Train a model, and read off what it is worth."""
    fitted = fit_rows(model, name, data, asked, watch)
    if fitted.guide is None:
        return PointEstimate(fitted, asked.seed)
    return TrainedPosterior(fitted, asked.seed)
