"""From a problem to a plan: readable, printable, overridable."""

import dataclasses

import numpy as np

from taut._core.errors import ArgumentError, listing
from taut.expectation.folding import read
from taut.families import AbstractFamily, Dense, Diagonal, MeanField
from taut.problem import Latent, Problem
from taut.solvers import AbstractSolver, FixedDraws, Natural, ResidualLaplace, StochasticNatural
from taut.solvers.ascent import is_exact, site_methods
from taut.solvers.from_sums import SUMS
from taut.solvers.mean_field import describe_factor, layout_of
from taut.solvers.minibatch_layout import layout_by_rows
from taut.solvers.minibatches import Rows, find_rows
from taut.solvers.stochastic_natural import check_whole
from taut.solvers.structure import CANDIDATES, Layout, support_of

DENSE_LIMIT = 1000  # latents up to which a dense Gaussian is fitted from scratch
LAPLACE_LIMIT = 2000  # latents up to which a d x d matrix is factorised at all
DRAWN = "fixed scrambled-Sobol draws of every site"
FOLDED = "the data are folded away"
Reasons = tuple[str, ...]
Sites = tuple[tuple[str, str], ...]
MAX_LABELS = 20_000  # elements times values of discrete latents, up to which they are summed out


@dataclasses.dataclass(frozen=True)
class Row:
    """What is done with a group of latents."""

    latents: tuple[str, ...]
    size: int
    coordinates: str


@dataclasses.dataclass(frozen=True)
class Plan:
    """What will be done, and why.

    Attributes:
        family: the variational family.
        solver: the method.
        rows: the latents and their coordinates.
        integral: how the ELBO's expectation is taken.
        reasons: why, in sentences.
        steps: what was done beyond the plan (other coordinates, escalation), in order.
        sites: how the expectation of each site is taken, where they differ.
    """

    family: AbstractFamily
    solver: AbstractSolver
    rows: tuple[Row, ...]
    integral: str
    reasons: tuple[str, ...]
    steps: tuple[str, ...] = ()
    sites: tuple[tuple[str, str], ...] = ()

    def __str__(self) -> str:
        """The plan as text."""
        width = max(len(", ".join(r.latents)) for r in self.rows)
        lines = [
            f"family     {self.family.describe()}",
            f"solver     {self.solver.describe()}",
        ]
        lines += [f"integral   {self.integral}"] if self.integral else []
        lines += [f"integral   {name}: {method}" for name, method in self.sites]
        lines += [
            f"latents    {', '.join(r.latents):<{width}}  {r.size:>5}  {r.coordinates}"
            for r in self.rows
        ]
        lines += [f"because    {reason}" for reason in self.reasons]
        lines += [f"then       {step}" for step in self.steps]
        return "\n".join(lines)

    def then(self, *steps: str) -> "Plan":
        """The plan with further steps recorded."""
        return dataclasses.replace(self, steps=(*self.steps, *steps))


def make_plan(
    problem: Problem,
    family: AbstractFamily | None = None,
    solver: AbstractSolver | None = None,
    batch_size: int | None = None,
) -> Plan:
    """Choose family and solver by the problem's size, unless given.

    Args:
        problem: what is to be inferred.
        family: None to choose.
        solver: None to choose.
        batch_size: rows of a minibatch; None for all rows at once, or what the solver says.

    Raises:
        ArgumentError: if any is of the wrong kind, or they contradict each other.
        ModelError: if minibatches are asked for and the model is no sum over rows.
    """
    if family is not None and not isinstance(family, AbstractFamily):
        raise ArgumentError(
            f"family must be one of taut.families, such as families.Dense(), got {_kind(family)}"
        )
    if solver is not None and not isinstance(solver, AbstractSolver):
        raise ArgumentError(
            f"solver must be one of taut.solvers, such as solvers.FixedDraws(), got {_kind(solver)}"
        )
    if batch_size is not None:
        solver = _with_batches(solver, batch_size)
    reasons = list(problem.program.notes)
    if isinstance(solver, StochasticNatural):
        return _plan_by_rows(problem, family, solver, tuple(reasons))
    if family is None:
        family, reason = choose_family(
            problem, compiled=solver is None or isinstance(solver, Natural)
        )
        reasons.append(reason)
    if solver is None:
        solver, reason = choose_solver(problem, family)
        reasons += [reason] if reason else []
    if isinstance(family, MeanField):
        return _plan_factors(problem, family, solver, tuple(reasons), layout_of(problem, family))
    sites = tuple(read(problem).methods.items()) if isinstance(solver, Natural) else ()
    return _plan_gaussian(problem, family, solver, tuple(reasons), sites)


# --- minibatches ------------------------------------------------------------------------------


def _with_batches(solver: AbstractSolver | None, batch_size: int) -> StochasticNatural:
    """The solver that takes minibatches of this size.

    Raises:
        ArgumentError: if another solver, or another size, is asked for as well.
    """
    check_whole("batch_size", batch_size)
    if solver is None:
        return StochasticNatural(batch_size)
    if not isinstance(solver, StochasticNatural):
        raise ArgumentError(
            f"batch_size={batch_size} asks for minibatches, and solvers.{type(solver).__name__} sees all rows in "
            "every step; leave one of the two out, or use solvers.StochasticNatural()"
        )
    if solver.batch_size not in (None, batch_size):
        raise ArgumentError(
            f"batch_size is {batch_size} in fit and {solver.batch_size} in "
            "solvers.StochasticNatural; give it once"
        )
    return dataclasses.replace(solver, batch_size=batch_size)


def _plan_by_rows(
    problem: Problem, family: AbstractFamily | None, solver: StochasticNatural, reasons: Reasons
) -> Plan:
    """The plan of a fit by minibatches.

    Raises:
        ArgumentError: if the rows were read once and kept as sums.
    """
    if SUMS in problem.arrays:
        raise ArgumentError(
            f"batch_size={solver.rows} asks for minibatches of rows, but a source of data is read once, in batches "
            "of its own, and kept as sums: leave batch_size out, or load the rows into memory"
        )
    rows = find_rows(problem)
    reasons = (*reasons, _rows_in_words(rows, solver.rows))
    if family is None:
        family, reason = _choose_family_by_rows(problem, rows)
        reasons = (*reasons, reason)
    if isinstance(family, MeanField):
        layout = layout_by_rows(problem, family, rows)
        return _plan_factors(problem, family, solver, reasons, layout)
    reading = read(problem)
    if isinstance(family, Dense) and problem.dim <= DENSE_LIMIT and not reading.reason:
        sites = tuple(reading.methods.items())
        reasons = (*reasons, f"{FOLDED}, so no row is seen twice") if reading.folds else reasons
        return _plan_gaussian(problem, family, solver, reasons, sites)
    if isinstance(family, Dense):
        reasons = (*reasons, f"drawn, not compiled: {reading.reason}")
    return _plan_gaussian(problem, family, solver, reasons, ())


def _rows_in_words(rows: Rows, size: int) -> str:
    of_rows = listing(n for n in rows.sites)
    if size >= rows.count:
        return f"{rows.count:,} rows ({of_rows}) fit into one minibatch of up to {size:,}"
    return f"{rows.count:,} rows ({of_rows}) are seen {size:,} at a time, and at the end all"


def _choose_family_by_rows(problem: Problem, rows: Rows) -> tuple[AbstractFamily, str]:
    """The family of a fit by minibatches, and why: that of a fit to all rows wherever it can be."""
    continuous = sorted(rows.latents - {s.name for s in problem.discrete})
    if continuous:
        return (
            MeanField(),
            f"{listing(continuous)} belong to rows: they get factors of their own",
        )
    family, reason = choose_family(problem)
    if isinstance(family, Dense) and problem.discrete:
        return family, f"{reason}; the labels of all rows are summed out at once"
    if isinstance(family, Dense) and problem.dim > DENSE_LIMIT:
        if _is_readable(problem):
            return MeanField(), f"{problem.dim:,} coordinates: independent factors, in closed form"
        return Diagonal(), f"{problem.dim:,} coordinates: too many for a full covariance"
    return family, reason


def choose_family(problem: Problem, compiled: bool = True) -> tuple[AbstractFamily, str]:
    """The family for a problem, and why.

    Args:
        problem: what is to be inferred.
        compiled: whether the solver is one that fits factors.
    """
    dim = problem.dim
    size = f"{dim} unconstrained coordinate{'s' if dim > 1 else ''}"
    if compiled and _may_be_exact(problem) and is_exact(problem, layout_of(problem, MeanField())):
        return MeanField(), "every latent is conjugate and independent of the others: q is exact"
    labels = sum(int(np.prod(s.shape, dtype=int)) * s.num_values for s in problem.discrete)
    if compiled and labels > MAX_LABELS and _is_readable(problem):
        return (
            MeanField(),
            f"{labels:,} probabilities of discrete latents: they get factors of their own",
        )
    if dim <= LAPLACE_LIMIT:
        return Dense(), f"{size}: a full covariance is affordable"
    if compiled and _is_readable(problem):
        return MeanField(), f"{size}: independent factors, in closed form"
    return Diagonal(), f"{size}: a full covariance would need {dim**2:,} numbers"


def _may_be_exact(problem: Problem) -> bool:
    """Cheap to see, so that models which cannot be exact are not read for it.

    Several Gaussian latents are in one factor only if a precision scales the priors of all.
    """
    conjugate = [s for s in problem.latents if support_of(s) in CANDIDATES]
    others = [s for s in problem.latents if support_of(s) not in CANDIDATES]
    return (
        problem.program.densities is not None
        and not problem.discrete
        and bool(conjugate)
        and (len(others) <= 1 or all(s.parents for s in others))
    )


def _is_readable(problem: Problem) -> bool:
    """Whether a mean field's sites all have cheap integrals."""
    if problem.program.densities is None:
        return False
    methods = site_methods(problem, layout_of(problem, MeanField()))
    return not any("fixed draws" in m for _, m in methods)


def _plan_factors(
    problem: Problem, family: MeanField, solver: AbstractSolver, reasons: Reasons, layout: Layout
) -> Plan:
    """The plan of a mean field: which factor each latent has, how each site is integrated."""
    rows = tuple(
        Row((s.name,), int(np.prod(s.shape, dtype=int)), describe_factor(s.name, layout))
        for s in (*problem.latents, *problem.discrete)
    )
    return Plan(family, solver, rows, "", reasons, sites=site_methods(problem, layout))


def _plan_gaussian(
    problem: Problem, family: AbstractFamily, solver: AbstractSolver, reasons: Reasons, sites: Sites
) -> Plan:
    """The plan of a Gaussian over all coordinates; no sites where all are taken on draws."""
    rows = tuple(Row((s.name,), s.size, _coordinates(s)) for s in problem.latents)
    integral = "" if sites else DRAWN
    return Plan(family, solver, rows, integral, reasons, sites=sites)


def choose_solver(problem: Problem, family: AbstractFamily) -> tuple[AbstractSolver, str]:
    """The solver for a family, and the reason where it needs one."""
    if isinstance(family, Dense) and problem.dim > DENSE_LIMIT:
        reason = (
            f"more than {DENSE_LIMIT} latents: the covariance starts from the curvature at the mode"
        )
        return ResidualLaplace(), reason
    if isinstance(family, MeanField):
        return Natural(), "coordinate ascent: every factor's optimum given the others"
    if not isinstance(family, Dense):
        return FixedDraws(), ""
    reading = read(problem)
    if reading.reason:
        return FixedDraws(), f"drawn, not compiled: {reading.reason}"
    return Natural(), FOLDED if reading.folds else ""


def _kind(value: object) -> str:
    return (
        f"the class {value.__name__}; add parentheses" if isinstance(value, type) else repr(value)
    )


def _coordinates(latent: Latent) -> str:
    real = (
        "real" if latent.support in ("real", "") else f"{latent.support}, mapped to the real line"
    )
    if latent.centring is None:
        return real
    if latent.parents:
        return f"{real}; non-centred with respect to {', '.join(latent.parents)}"
    return f"{real}; in units of its prior"
