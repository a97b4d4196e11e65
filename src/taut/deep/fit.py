"""The way into deep models: which fits they are, and the results they give."""

from collections.abc import Callable
from typing import Any

import jax
from numpyro import handlers

from taut._core.progress import Watch
from taut.deep.point import PointEstimate
from taut.deep.posterior import TrainedPosterior
from taut.deep.training import Request, fit_rows
from taut.families import AbstractFamily, Amortised, Point
from taut.problem import Density
from taut.problem.data import read
from taut.solvers.stochastic import Stochastic


def is_deep(model: Any, data: Any, family: Any, solver: Any) -> bool:
    """Whether a fit is one by stochastic gradients: it is asked for, or has parameters to train."""
    if isinstance(model, Density):
        return False
    written = callable(family) and not isinstance(family, AbstractFamily)
    if isinstance(family, Amortised | Point) or isinstance(solver, Stochastic) or written:
        return True
    return family is None and solver is None and _has_parameters(model, data)


def _has_parameters(model: Callable[..., Any], data: Any) -> bool:
    """Whether the model has ``numpyro.param`` sites, networks among them."""
    found: list[str] = []

    def look(site: dict[str, Any]) -> None:
        if site["type"] == "param":
            found.append(site["name"])

    try:
        with handlers.seed(rng_seed=0), handlers.trace() as trace:
            jax.eval_shape(lambda: (model(**read(data)), None)[1])
        for site in trace.values():
            look(site)
    except Exception:  # said properly where the model is read
        return False
    return bool(found)


def fit_deep(
    model: Callable[..., Any], name: str, data: Any, asked: Request, watch: Watch
) -> TrainedPosterior | PointEstimate:
    """Train a model, and read off what it is worth."""
    fitted = fit_rows(model, name, data, asked, watch)
    if fitted.guide is None:
        return PointEstimate(fitted, asked.seed)
    return TrainedPosterior(fitted, asked.seed)
