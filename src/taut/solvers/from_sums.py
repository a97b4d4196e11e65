"""The problem whose data are sums over rows: a model's program with sums in place of sites."""

import dataclasses
from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import numpy as np

from taut._core.errors import UnsupportedError, listing
from taut.data.sources import AbstractSource
from taut.expectation.sums import value_at
from taut.expectation.transform import Compiled
from taut.problem import Predictor, Problem, Program
from taut.problem.data import read
from taut.solvers.row_trial import Trial

SUMS = "sums"  # key of the sums among the problem's arrays
LOSS = 1e-3  # nats that rounding of the sums may cost before it is noted

Sites = dict[str, Any]


class Totals(NamedTuple):
    """Sums over all rows.

    Attributes:
        rows: how many.
        sums: observed site -> its folded terms.
        spread: column -> (mean, sd) in the first chunk.
    """

    rows: int
    sums: dict[str, tuple[Compiled, ...]]
    spread: dict[str, tuple[float, float]]


def model_values(program: Program, u: Any, arrays: Any) -> dict[str, Any]:
    """The latents of one unconstrained point, in the model's own space."""
    found = program.constrain(u, arrays)
    return {s.name: found[s.name] for s in program.latents}


def problem_of_sums(
    trial: Trial, totals: Totals, fixed: Mapping[str, Any], columns: tuple[str, ...]
) -> Problem:
    """The model with all rows' sums as its data.

    Args:
        trial: the model on a few rows.
        totals: of all rows.
        fixed: arguments of the model that are no columns.
        columns: names of the columns.
    """
    base = trial.problem
    sums = totals.sums
    notes = (
        f"{totals.rows:,} rows are read once and kept as sums: {listing(trial.sites)}",
        *_notes_on_precision(totals),
        *([f"{listing(trial.dropped)} belong to rows and are left out"] if trial.dropped else []),
    )
    program = _program(base.program, trial, totals.rows, notes)
    return dataclasses.replace(
        base,
        program=program,
        arrays={**base.arrays, SUMS: sums},
        predictor=_Predicting(base, fixed, columns),
        rebind=None if base.rebind is None else _Rebinding(base, fixed),
    )


def _notes_on_precision(totals: Totals) -> list[str]:
    """Columns so far from zero that rounding their squares costs nats."""
    eps = np.finfo(float).eps
    return [
        f"column '{name}' has mean {mean:.4g} and sd {sd:.4g}: rounding of its sum of squares may cost "
        "more than 0.001 nats; subtract a constant from it"
        for name, (mean, sd) in totals.spread.items()
        if sd > 0 and totals.rows * (mean / sd) ** 2 * eps > LOSS
    ]


def _program(base: Program, trial: Trial, rows: int, notes: tuple[str, ...]) -> Program:
    """The template's program with sums in place of the sites of rows."""
    known, key = base.compiled, ("streamed", trial.sites, trial.dropped, rows, notes)
    if key not in known:
        functions = _Functions(base, trial.sites, trial.dropped)
        tried = len(next(iter(jax.tree.leaves(trial.problem.arrays["data"]))))
        known[key] = dataclasses.replace(
            base,
            log_joint_sites=functions.log_joint_sites,
            densities=functions.densities,
            constrain=functions.constrain,
            log_likelihood=_no_log_likelihood,
            observed_values=lambda arrays: {},
            observed=tuple(_of_all_rows(s, trial.sites, tried, rows) for s in base.observed),
            deterministic={n: s for n, s in base.deterministic.items() if n not in trial.dropped},
            notes=(*base.notes, *notes),
            compiled={},
            _hoisted={},
        )
    return known[key]


def _of_all_rows(site: Any, names: tuple[str, ...], tried: int, rows: int) -> Any:
    if site.name not in names:
        return site
    return dataclasses.replace(site, shape=tuple(rows if n == tried else n for n in site.shape))


def _no_log_likelihood(u: Any, arrays: Any) -> dict[str, Any]:
    raise UnsupportedError(
        "the rows were read once and not kept, so they have no pointwise log likelihood; "
        "fit data in memory for leave-one-out comparison"
    )


@dataclasses.dataclass(frozen=True)
class _Functions:
    """The functions of a streamed program.

    Attributes:
        base: the program on a few rows.
        sites: what the sums stand for.
        dropped: deterministic sites that are left out.
    """

    base: Program
    sites: tuple[str, ...]
    dropped: tuple[str, ...]

    def log_joint_sites(self, u: Any, arrays: Any) -> Sites:
        """Site by site log joint at one point."""
        values = model_values(self.base, u, arrays)
        return self._replaced(self.base.log_joint_sites(u, arrays), values, arrays)

    def densities(self, values: Any, arrays: Any, own: frozenset[str], table: Any) -> Sites:
        """Site by site log joint, with some latents in their own support."""
        seen = []

        def noting(fn: Any, value: Any, is_data: bool) -> Any:
            if not is_data:  # the latents, in the order in which the model draws them
                seen.append(value)
            return table(fn, value, is_data)

        sites = self.base.densities(values, arrays, own, noting)  # type: ignore[misc]
        names = [s.name for s in self.base.latents]
        return self._replaced(sites, dict(zip(names, seen, strict=True)), arrays)

    def constrain(self, u: Any, arrays: Any) -> dict[str, Any]:
        """Latents and deterministic sites that all rows share."""
        found = self.base.constrain(u, arrays)
        return {n: v for n, v in found.items() if n not in self.dropped}

    def _replaced(self, sites: Sites, values: Any, arrays: Any) -> Sites:
        return {
            n: value_at(arrays[SUMS][n], values) if n in self.sites else v for n, v in sites.items()
        }


@dataclasses.dataclass(frozen=True)
class _Predicting:
    """Simulates for new rows; those of the fit are not at hand.

    Attributes:
        base: the problem on a few rows.
        fixed: arguments that are no columns, which new data may leave out.
        columns: names of the columns.
    """

    base: Problem
    fixed: Mapping[str, Any]
    columns: tuple[str, ...]

    def __call__(self, new_data: Any = None, sites: tuple[str, ...] | None = None) -> Predictor:
        """As :attr:`Problem.predictor`."""
        if new_data is None:
            raise UnsupportedError(
                "the rows of the fit were read once and not kept: predict(new_data) needs new_data, "
                f"a mapping with columns such as {listing(self.columns)}"
            )
        return self.base.predictor(_with_fixed(self.fixed, new_data), sites)  # type: ignore[misc]


@dataclasses.dataclass(frozen=True)
class _Rebinding:
    """The same model on other data, which are in memory.

    Attributes:
        base: the problem on a few rows.
        fixed: arguments that are no columns, which the data may leave out.
    """

    base: Problem
    fixed: Mapping[str, Any]

    def __call__(self, data: Any, more: Any = None) -> Problem:
        """As :attr:`Problem.rebind`."""
        if isinstance(data, AbstractSource):
            raise UnsupportedError("update takes data in memory; fit all files together instead")
        return self.base.rebind(_with_fixed(self.fixed, data), more)  # type: ignore[misc]


def _with_fixed(fixed: Mapping[str, Any], data: Any) -> dict[str, Any]:
    found = read(data)
    return {**fixed, **{name: found[name] for name in found}}
