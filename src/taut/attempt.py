"""One attempt at a plan: where to begin, in which coordinates, and what the solver found."""

import dataclasses

import numpy as np

from taut._core.progress import Watch
from taut.expectation import folding
from taut.families import DenseGaussian, MeanField, nearest_gaussian
from taut.plan import DRAWN, FOLDED, Plan
from taut.problem import Problem
from taut.problem.evaluator import Evaluator
from taut.solvers import AbstractSolver, FixedDraws, Natural, Solution, StochasticNatural
from taut.solvers.few_rows import find_start_on_rows
from taut.solvers.row_chunks import in_chunks, in_memory
from taut.solvers.start import Start, carried_over
from taut.trust import certificate, improper

DEAR = 2**15  # numbers that a gradient touches, above which chains take about a second
FIRST_STEPS = 4  # of the natural solver, after which the data's share of information is looked at
COMPILED = (Natural, StochasticNatural)  # solvers that read sites in the coordinates of the fit
PLAIN = 0.8  # share of information in every element, beyond which coordinates are centred at once


@dataclasses.dataclass(frozen=True)
class Attempt:
    """What one plan led to.

    Attributes:
        evaluator: the log joint, in the coordinates of the fit.
        plan: what was done.
        seed: of all randomness.
        start: the paths, and the Gaussian that the solver began from.
        solution: what the solver returned.
        notes: what the user should know, in sentences.
    """

    evaluator: Evaluator
    plan: Plan
    seed: int
    start: Start
    solution: Solution
    notes: tuple[str, ...]

    @staticmethod
    def make(problem: Problem, plan: Plan, seed: int, watch: Watch) -> "Attempt":
        """Start and solve, in the better of the non-centred and the information-weighted coordinates."""
        if isinstance(plan.family, MeanField):
            return Attempt.of_factors(problem, plan, seed, watch)
        evaluator = Evaluator(_folded(problem, plan))
        certificate.prepare_chains(evaluator)
        watch.report("starting", latents=problem.dim)
        start = find_start_on_rows(evaluator, watch, seed)
        evaluator, start, plan = _plainly_centred(evaluator, start, plan, seed, watch)
        solution = _solve(evaluator, plan, start, seed, watch)
        if isinstance(plan.solver, Natural) or "folded" in evaluator.problem.arrays:
            at_home = problem.with_centring(evaluator.problem.arrays["centring"])
            if wrong := folding.mistaken_sites(at_home, solution.q):
                return Attempt.make(problem, _without_compiling(plan, wrong), seed, watch)
        notes = improper.check(evaluator, start, nearest_gaussian(solution.q))
        attempt = Attempt(evaluator, plan, seed, start, solution, (*notes, *solution.notes))
        return attempt.recentred(watch)

    @staticmethod
    def of_factors(problem: Problem, plan: Plan, seed: int, watch: Watch) -> "Attempt":
        """Solve for a mean field, which is at home in the model's own, centred coordinates."""
        ones = {s.name: np.ones(s.centring) for s in problem.latents if s.centring is not None}
        evaluator = Evaluator(in_memory(folding.folded(problem.with_centring(ones))))
        certificate.prepare_chains(evaluator)
        nowhere = Start(np.zeros(problem.dim), np.ones(problem.dim), -np.inf, ())
        solution = plan.solver.solve(evaluator, plan.family, nowhere, seed, watch)
        near = nearest_gaussian(solution.q)
        start = Start(near.mean, near.sd, solution.elbo, ())
        return Attempt(evaluator, plan, seed, start, solution, solution.notes)

    def recentred(self, watch: Watch) -> "Attempt":
        """Move hierarchical latents towards centred coordinates where the data say much of them."""
        problem = self.evaluator.problem
        centring = _information_centring(problem, self.solution)
        if not centring or watch.over:
            return self
        if isinstance(self.plan.solver, COMPILED) and self.evaluator.cost > DEAR:
            centring = {n: np.full_like(c, float(c.mean() > 0.5)) for n, c in centring.items()}
        evaluator, start = _moved(self.evaluator, centring, self.solution, self.seed, watch)
        solution = _solve(evaluator, self.plan, start, self.seed, watch)
        evaluator.num_gradients += self.evaluator.num_gradients
        if not solution.elbo > self.solution.elbo:
            self.evaluator.num_gradients = evaluator.num_gradients
            return self
        shares = ", ".join(f"{name} {value.mean():.2f}" for name, value in centring.items())
        plan = self.plan.then(
            f"coordinates centred by the data's share of information ({shares}): "
            f"the ELBO rose from {self.solution.elbo:.2f} to {solution.elbo:.2f}"
        )
        return Attempt(
            evaluator,
            plan,
            self.seed,
            start,
            solution,
            (*self.notes[: -len(self.solution.notes) or None], *solution.notes),
        )


def _folded(problem: Problem, plan: Plan) -> Problem:
    """The problem with its data folded away, where the plan compiles the ELBO; or its rows in chunks."""
    if problem.discrete or not isinstance(plan.solver, COMPILED):
        return in_memory(problem)
    found = folding.folded(problem)
    if "folded" in found.arrays or isinstance(plan.solver, Natural):
        return found
    return in_chunks(problem, plan.solver.rows)


def _without_compiling(plan: Plan, wrong: tuple[str, ...]) -> Plan:
    step = (
        f"all sites on fixed draws: the compiled mean of {', '.join(wrong)} differed from that of "
        "plain draws of q"
    )
    plain = dataclasses.replace(plan, solver=FixedDraws(), sites=(), integral=DRAWN)
    reasons = tuple(r for r in plan.reasons if r != FOLDED)
    return dataclasses.replace(plain, reasons=reasons).then(step)


def _solve(evaluator: Evaluator, plan: Plan, start: Start, seed: int, watch: Watch) -> Solution:
    """Run the plan's solver, or fixed draws in coordinates that it cannot compile."""
    solver = plan.solver
    if isinstance(solver, Natural) and folding.read(evaluator.problem).reason:
        solver = FixedDraws()
    return solver.solve(evaluator, plan.family, start, seed, watch)


def _plainly_centred(
    evaluator: Evaluator, start: Start, plan: Plan, seed: int, watch: Watch
) -> tuple[Evaluator, Start, Plan]:
    """Centred coordinates at once, where a few steps show that the data say nearly everything.

    Non-centred ones are bent there, and would cost the solver a hundred steps instead of five.
    """
    problem, solver = evaluator.problem, plan.solver
    hierarchical = any(s.parents and s.centring is not None for s in problem.latents)
    if not (hierarchical and isinstance(solver, COMPILED)) or folding.read(problem).reason:
        return evaluator, start, plan
    few = _with_few_steps(solver)
    first = few.solve(evaluator, plan.family, start, seed, watch)
    shares = _information_centring(problem, first)
    if watch.over or not shares or min(float(c.min()) for c in shares.values()) < PLAIN:
        return evaluator, start, plan
    ones = {name: np.ones_like(share) for name, share in shares.items()}
    plan = plan.then(f"centred coordinates for {', '.join(ones)}: the data say nearly all of them")
    return (*_moved(evaluator, ones, first, seed, watch), plan)


def _with_few_steps(solver: Natural | StochasticNatural) -> AbstractSolver:
    if isinstance(solver, StochasticNatural):
        return dataclasses.replace(solver, max_epochs=FIRST_STEPS)
    return dataclasses.replace(solver, max_steps=FIRST_STEPS)


def _moved(
    evaluator: Evaluator, centring: dict[str, np.ndarray], solution: Solution, seed: int, watch: Watch
) -> tuple[Evaluator, Start]:  # fmt: skip
    """An evaluator in other coordinates, and a start there that knows what was found before."""
    new = evaluator.with_centring(centring)
    start = find_start_on_rows(new, watch, seed)
    return new, carried_over(start, evaluator, new, nearest_gaussian(solution.q), seed)


def _information_centring(problem: Problem, solution: Solution) -> dict[str, np.ndarray]:
    """Share of each hierarchical latent's information that comes from the data.

    In non-centred coordinates the prior's precision is 1, so 1 - 1 / P_jj is the share of the
    conditional precision that the data give (Gorinova et al. 2020 learn it; here it is read off).
    """
    known = problem.arrays["centring"]
    moving = [
        s for s in problem.latents
        if s.parents and s.centring is not None and not np.any(known[s.name])
    ]  # fmt: skip
    q = solution.q
    if not moving or not isinstance(q, DenseGaussian) or not np.isfinite(solution.elbo):
        return {}
    inverse = np.linalg.inv(q.factor)
    precision = np.sum(inverse**2, axis=0)
    centring = {
        s.name: np.clip(1.0 - 1.0 / precision[s.slice], 0.0, 1.0).reshape(s.unconstrained_shape)
        for s in moving
    }
    return centring if max(float(c.max()) for c in centring.values()) > 0.3 else {}
