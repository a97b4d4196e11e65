"""From a problem to a plan: readable, printable, overridable."""

import dataclasses

import numpy as np

from taut._core.errors import ArgumentError
from taut.expectation.folding import read
from taut.families import AbstractFamily, Dense, Diagonal, MeanField
from taut.problem import Latent, Problem
from taut.solvers import AbstractSolver, FixedDraws, Natural, ResidualLaplace, StochasticNatural
from taut.solvers.ascent import is_exact, site_methods
from taut.solvers.mean_field import describe_factor, layout_of
from taut.solvers.minibatches import find_rows
from taut.solvers.stochastic_natural import layout_by_rows
from taut.solvers.structure import CANDIDATES, support_of

DENSE_LIMIT = 1000  # latents up to which a dense Gaussian is fitted from scratch
LAPLACE_LIMIT = 2000  # latents up to which a d x d matrix is factorised at all
DRAWN = "fixed scrambled-Sobol draws of every site"
FOLDED = "the data are folded away"
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
    problem: Problem, family: AbstractFamily | None = None, solver: AbstractSolver | None = None
) -> Plan:
    """Choose family and solver by the problem's size, unless given.

    Args:
        problem: what is to be inferred.
        family: None to choose.
        solver: None to choose.

    Raises:
        ArgumentError: if either is of the wrong kind.
    """
    if family is not None and not isinstance(family, AbstractFamily):
        raise ArgumentError(
            f"family must be one of taut.families, such as families.Dense(), got {_kind(family)}"
        )
    if solver is not None and not isinstance(solver, AbstractSolver):
        raise ArgumentError(
            f"solver must be one of taut.solvers, such as solvers.FixedDraws(), got {_kind(solver)}"
        )
    reasons = list(problem.program.notes)
    if family is None and isinstance(solver, StochasticNatural):
        family = MeanField()
    if family is None:
        family, reason = choose_family(
            problem, compiled=solver is None or isinstance(solver, Natural)
        )
        reasons.append(reason)
    if solver is None:
        solver, reason = choose_solver(problem, family)
        reasons += [reason] if reason else []
    if isinstance(family, MeanField):
        return _plan_factors(problem, family, solver, tuple(reasons))
    rows = tuple(Row((s.name,), s.size, _coordinates(s)) for s in problem.latents)
    sites = tuple(read(problem).methods.items()) if isinstance(solver, Natural) else ()
    integral = "" if sites else DRAWN
    return Plan(family, solver, rows, integral, tuple(reasons), sites=sites)


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
    problem: Problem, family: MeanField, solver: AbstractSolver, reasons: tuple[str, ...]
) -> Plan:
    """The plan of a mean field: which factor each latent has, how each site is integrated."""
    if isinstance(solver, StochasticNatural):
        layout = layout_by_rows(problem, family, find_rows(problem))
    else:
        layout = layout_of(problem, family)
    rows = tuple(
        Row((s.name,), int(np.prod(s.shape, dtype=int)), describe_factor(s.name, layout))
        for s in (*problem.latents, *problem.discrete)
    )
    return Plan(family, solver, rows, "", reasons, sites=site_methods(problem, layout))


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
