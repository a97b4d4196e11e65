"""Trying a model on a few rows: what adds up over rows, what counts once, what is refused."""

import dataclasses
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np

from taut._core.errors import DataError, ModelError, listing
from taut._core.tracing import dependencies, shapes_of
from taut.data.chunks import Chunk
from taut.problem import Problem, describe

TRIED_ROWS = 256  # rows in each of the two parts on which the model is tried
AGREE = 1e-8  # relative difference that rounding may cause


@dataclasses.dataclass(frozen=True)
class Trial:
    """What a few rows show of a model.

    Attributes:
        problem: the model on a few rows.
        sites: observed sites that add up over rows; the other sites count once.
        dropped: deterministic sites that belong to rows.
    """

    problem: Problem
    sites: tuple[str, ...]
    dropped: tuple[str, ...]

    @staticmethod
    def make(model: Any, fixed: Mapping[str, Any], chunk: Chunk) -> "Trial":
        """Try a model on two sets of rows and on both together."""
        half = min(TRIED_ROWS, chunk.rows // 2)
        if half < 1:
            raise DataError("the source has a single row; a streamed fit needs at least two")
        rows = np.linspace(0, chunk.rows - 1, 2 * half).astype(int)
        parts = [rows[::2], rows[1::2], rows]
        a, b, both = (
            describe(model, {**fixed, **{n: v[i] for n, v in chunk.columns.items()}}) for i in parts
        )
        columns = tuple(chunk.columns)
        _check_structure(a, both, columns)
        values = [_site_values(p, seed) for p in (a, b, both) for seed in (0, 1)]
        found = {n: tuple(np.array([v[n] for v in values]).reshape(3, 2)) for n in values[0]}
        sites = _sites_of_rows(a, columns, found)
        return Trial(a, sites, _of_rows(a, both, columns))


def _check_structure(a: Problem, both: Problem, columns: tuple[str, ...]) -> None:
    """Refuse latents of rows, factors, and shapes that are set by values in columns."""
    if discrete := [s.name for s in a.discrete]:
        raise ModelError(
            f"the latent '{discrete[0]}' is discrete; sums of rows know no discrete latents: "
            "fit data in memory, or sum it out in the model (numpyro.distributions.Mixture...)"
        )
    for name in columns:
        if name not in a.arrays["data"]:
            raise ModelError(
                f"the model needs the values of column '{name}' to set shapes, which differ from chunk to chunk; "
                "pass that number in fixed, such as taut.data.Parquet(path, fixed={'num_groups': 500})"
            )
    small, large = ({s.name: s.shape for s in p.latents} for p in (a, both))
    if small != large:
        local = next(iter(n for n in {**small, **large} if small.get(n) != large.get(n)))
        raise ModelError(
            f"the latent '{local}' has an element for every row, or a shape that follows the number of rows; "
            "only latents that all rows share are kept while rows are read: integrate it out in the model, "
            "or fit data in memory"
        )
    sites = jax.eval_shape(a.program.log_joint_sites, _point(a), a.arrays)
    known = {s.name for s in (*a.latents, *a.observed)}
    if factors := [n for n in sites if n not in known]:
        raise ModelError(
            f"site '{factors[0]}' is a factor: whether it belongs to rows or to the whole cannot be told; "
            "write it as an observed site with numpyro.sample(..., obs=...)"
        )


def _point(problem: Problem) -> Any:
    return jax.ShapeDtypeStruct((problem.dim,), float)


def _site_values(problem: Problem, seed: int) -> dict[str, float]:
    """Site by site log joint at a point that means the same values for any rows."""
    ones = {s.name: np.ones(s.centring) for s in problem.latents if s.centring is not None}
    problem = problem.with_centring(ones)
    u = 0.5 * np.random.default_rng(seed).standard_normal(problem.dim)
    return {name: float(v) for name, v in problem.log_joint_sites(u).items()}


def _read_columns(function: Any, problem: Problem, columns: tuple[str, ...]) -> dict[str, set[str]]:
    """Outputs of a function of (u, arrays) -> columns that they depend on."""
    data = problem.arrays["data"]

    def of_columns(given: dict[str, Any], u: Any, arrays: Any) -> dict[str, Any]:
        return function(u, {**arrays, "data": {**arrays["data"], **given}})

    given = shapes_of({n: data[n] for n in columns})
    return dependencies(of_columns, given, _point(problem), shapes_of(problem.arrays))


def _sites_of_rows(
    problem: Problem, columns: tuple[str, ...], found: Mapping[str, Any]
) -> tuple[str, ...]:
    """The observed sites whose log density is a sum over rows.

    Args:
        problem: on the first part of the rows.
        columns: names of the columns.
        found: site -> its values for both parts and the whole, at two points each.
    """
    reads = _read_columns(problem.program.log_joint_sites, problem, columns)
    latents, additive = {s.name for s in problem.latents}, []
    for name, (a, b, both) in found.items():
        once = not reads.get(name) and close(a, both) and close(a, b)
        if once:
            continue
        if name in latents:
            cause = (
                f"reads {listing(sorted(reads[name]))}"
                if reads.get(name)
                else "follows the number of rows"
            )
            raise ModelError(
                f"the prior of '{name}' {cause}; a prior is counted once and may not look at the rows: "
                "compute what it needs beforehand and pass it in fixed"
            )
        if not close(a + b, both):
            raise ModelError(
                f"site '{name}' is no sum over rows: the log likelihood of some rows and of others is not that of "
                "both together. Rows may not depend on each other (differences, lags, centring by x.mean(), a plate "
                "whose size is not the number of rows); compute such columns beforehand"
            )
        additive.append(name)
    if not additive:
        raise ModelError(
            "no observed site of the model depends on the rows; is the response a column?"
        )
    return tuple(additive)


def close(a: Any, b: Any) -> bool:
    """Whether numbers differ by no more than rounding."""
    return bool(np.all(np.abs(a - b) <= AGREE * (1.0 + np.maximum(np.abs(a), np.abs(b)))))


def _of_rows(a: Problem, both: Problem, columns: tuple[str, ...]) -> tuple[str, ...]:
    """Deterministic sites that belong to rows."""
    reads = _read_columns(a.program.constrain, a, columns)
    small, large = a.program.deterministic, both.program.deterministic
    return tuple(n for n, shape in small.items() if reads.get(n) or large.get(n) != shape)
