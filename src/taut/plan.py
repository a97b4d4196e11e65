"""From a problem to a plan: readable, printable, overridable."""

import dataclasses

from taut._core.errors import ArgumentError
from taut.families import AbstractFamily, Dense, Diagonal
from taut.problem import Latent, Problem
from taut.solvers import AbstractSolver, FixedDraws, ResidualLaplace

DENSE_LIMIT = 1000  # latents up to which a dense Gaussian is fitted from scratch
LAPLACE_LIMIT = 2000  # latents up to which a d x d matrix is factorised at all


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
    """

    family: AbstractFamily
    solver: AbstractSolver
    rows: tuple[Row, ...]
    integral: str
    reasons: tuple[str, ...]
    steps: tuple[str, ...] = ()

    def __str__(self) -> str:
        """The plan as text."""
        width = max(len(", ".join(r.latents)) for r in self.rows)
        lines = [
            f"family     {self.family.describe()}",
            f"solver     {self.solver.describe()}",
            f"integral   {self.integral}",
        ]
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
    dim, reasons = problem.dim, list(problem.program.notes)
    if family is None:
        family = Dense() if dim <= LAPLACE_LIMIT else Diagonal()
        size = f"{dim} unconstrained coordinate{'s' if dim > 1 else ''}"
        reasons.append(
            f"{size}: a full covariance is affordable" if dim <= LAPLACE_LIMIT
            else f"{size}: a full covariance would need {dim**2:,} numbers"
        )  # fmt: skip
    if solver is None:
        large = isinstance(family, Dense) and dim > DENSE_LIMIT
        solver = ResidualLaplace() if large else FixedDraws()
        if large:
            reasons.append(
                f"more than {DENSE_LIMIT} latents: the covariance starts from the curvature at the mode"
            )
    rows = tuple(Row((s.name,), s.size, _coordinates(s)) for s in problem.latents)
    return Plan(family, solver, rows, "fixed scrambled-Sobol draws of every site", tuple(reasons))


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
