"""Results in ArviZ's form."""

import contextlib
import importlib.metadata
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import xarray as xr

from taut._core.errors import ModelError, UnsupportedError
from taut.posterior import predictive as prediction
from taut.posterior.discrete import as_dataset
from taut.problem.evaluator import Evaluator
from taut.problem.stand_in import without_stand_in
from taut.trust.draws import Draws

if TYPE_CHECKING:
    from taut.posterior.result import Posterior


def dataset(
    values: Mapping[str, np.ndarray], dims: Mapping[str, tuple[str, ...]], sample: bool = True
) -> xr.Dataset:
    """Label arrays: (draw, *shape) with one chain added, or plain data."""
    variables, sizes = {}, {}
    for name, array in values.items():
        array = np.asarray(array)[None] if sample else np.asarray(array)
        lead = ["chain", "draw"] if sample else []
        own = dims.get(name) or ()
        if len(own) != array.ndim - len(lead):
            own = tuple(f"{name}_dim_{i}" for i in range(array.ndim - len(lead)))
        axes = [*lead, *own]
        for i, (axis, size) in enumerate(zip(axes, array.shape, strict=True)):
            if sizes.setdefault(axis, size) != size:  # a plate of another size under the same name
                axes[i] = f"{name}_dim_{i - len(lead)}"
                sizes[axes[i]] = size
        variables[name] = (axes, array)
    return xr.Dataset(variables, coords={axis: np.arange(size) for axis, size in sizes.items()})


def to_arviz(posterior: "Posterior", pool: Draws, num_draws: int, predictive: bool) -> Any:
    """Build every group that ArviZ expects."""
    index = pool.indices(num_draws, posterior.seed)
    values = without_stand_in(pool.values)
    groups = {"posterior": dataset({n: v[index] for n, v in values.items()}, posterior.dims)}
    points = pool.points[index]
    log_q = posterior.q.log_prob(points)
    stats = {"log_q": log_q}
    problem = posterior.problem
    if problem is not None:
        stats["lp"] = Evaluator(problem).value(points)
        stats["log_ratio"] = stats["lp"] - log_q
        groups |= _model_groups(posterior, points, num_draws, predictive)
    groups["sample_stats"] = dataset(stats, {})
    if posterior.discrete.probabilities:
        groups["constant_data"] = as_dataset(posterior.discrete, posterior.dims)
    groups["posterior"].attrs.update(_attributes(posterior))
    return _container(groups)


def _model_groups(
    posterior: "Posterior", points: np.ndarray, num_draws: int, predictive: bool
) -> dict[str, xr.Dataset]:
    problem, dims, groups = posterior.problem, posterior.dims, {}
    assert problem is not None
    if not problem.observed:
        return groups
    # A Density may lack these functions, a sum over all data at once has no pointwise likelihood;
    # the other groups stand.
    with contextlib.suppress(ModelError, UnsupportedError):
        groups["log_likelihood"] = dataset(prediction.log_likelihood(problem, points), dims)
    with contextlib.suppress(ModelError, UnsupportedError):
        if predictive:
            groups["posterior_predictive"] = dataset(posterior.predict(num_draws=num_draws), dims)
    observed = problem.observed_values()
    if observed:
        groups["observed_data"] = dataset(observed, dims, sample=False)
    return groups


def _attributes(posterior: "Posterior") -> dict[str, Any]:
    return {
        "inference_library": "taut",
        "inference_library_version": posterior.versions["taut"],
        "verdict": posterior.trust.verdict,
        "correction": posterior.trust.correction,
        "khat": posterior.trust.khat,
        "elbo": posterior.elbo,
        "elbo_error": posterior.evidence.lower_error,
        "seed": posterior.seed,
        "seconds": posterior.history.seconds,
    }


def _container(groups: dict[str, xr.Dataset]) -> Any:
    try:
        major = int(importlib.metadata.version("arviz").split(".")[0])
    except importlib.metadata.PackageNotFoundError:
        major = 1  # newest form; needs xarray only
    if major >= 1:
        return xr.DataTree.from_dict(groups)
    import arviz

    return arviz.InferenceData(**groups)  # type: ignore[arg-type]
