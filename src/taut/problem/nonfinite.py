"""Why a log joint density is finite nowhere: which data, which site, which value."""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from taut._core.errors import DataError, StartError, TautError
from taut._core.precision import double_precision
from taut.problem.data import Path, nonfinite, split
from taut.problem.evaluator import where_not_finite
from taut.problem.types import Problem


def explain(problem: Problem, num_tried: int) -> TautError:
    """Return the error for a problem whose log joint is finite at no start.

    Args:
        problem: the problem.
        num_tried: points that were tried.

    Returns:
        A DataError that names the arrays with NaN or infinity and their first row; otherwise a
        StartError that names the sites, and where it can, the first value at fault.
    """
    sites = where_not_finite(problem, np.zeros(problem.dim))
    at_fault = _entries(problem)
    named = "; ".join(f"site '{n}' is {v}{at_fault.get(n, '')}" for n, v in sites.items())
    if broken := nonfinite(_arrays(problem)):
        where = f" ({named})" if named else ""
        return DataError(
            f"{'; '.join(broken)}. Drop or impute those rows, or mask them with "
            f"numpyro.handlers.mask{where}"
        )
    if not named:
        named = _gradients(problem) or "its gradient is not finite"
    return StartError(
        f"the log joint density is not finite at any of {num_tried} starting points: "
        f"{named}{_hint(sites)}"
    )


def _hint(sites: Mapping[str, float]) -> str:
    if any(np.isnan(v) for v in sites.values()):
        return "; NaN usually means a log, root or division of a value out of range"
    if any(v > 0 for v in sites.values()):
        return "; +inf means a density without bound, such as a scale of zero"
    if sites:
        return "; -inf means that values lie outside of the site's support (a negative count, a probability of 0)"
    return "; look for a root, norm or division at zero"


def _arrays(problem: Problem) -> dict[Path, Any]:
    """Data and observed values by path; sites whose values come from elsewhere too."""
    found = dict(split(problem.arrays["data"])[0])
    found.update({("observe", n): v for n, v in problem.arrays.get("observe", {}).items()})
    if not nonfinite(found):
        try:
            values = problem.observed_values()
        except (
            Exception
        ):  # the model itself is being diagnosed: whatever fails here is not the news
            return found
        found.update({(n,): v for n, v in values.items()})
    return found


def _entries(problem: Problem) -> dict[str, str]:
    """For each observed site with a bad entry, where the first one is, in words."""
    try:
        with double_precision():
            terms = jax.jit(problem.program.log_likelihood)(jnp.zeros(problem.dim), problem.arrays)
        values = problem.observed_values()
    except Exception:  # no pointwise likelihood: the site's name has to do
        return {}
    found = {}
    for name, term in terms.items():
        bad = np.argwhere(~np.isfinite(np.asarray(term)))
        if not len(bad) or not np.ndim(term):
            continue
        first = tuple(map(int, bad[0]))
        where = first[0] if len(first) == 1 else first
        value = _entry(values.get(name), first, np.shape(term))
        found[name] = f" at {len(bad)} of {np.size(term):,} values, first at index {where}{value}"
    return found


def _entry(values: Any, first: tuple[int, ...], shape: tuple[int, ...]) -> str:
    if values is None or np.shape(values) != shape:
        return ""
    return f", where it is {np.asarray(values)[first]:.6g}"


def _gradients(problem: Problem) -> str:
    """Sites whose gradient is not finite at the origin."""
    with double_precision():
        gradients = jax.jit(jax.jacrev(problem.program.sites))(
            jnp.zeros(problem.dim), problem.prepared
        )
    bad = [n for n, g in gradients.items() if not np.isfinite(np.asarray(g)).all()]
    return "; ".join(f"the gradient of site '{n}' is not finite" for n in bad)
