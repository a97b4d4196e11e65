"""Plan, solve, certify, escalate: the numerical work of a fit, from a problem to an outcome."""

import dataclasses
import time
from typing import Literal

import numpy as np

from taut._core.progress import Watch
from taut._core.status import Status
from taut.attempt import DEAR, Attempt
from taut.families import (
    AbstractDistribution,
    Dense,
    DenseGaussian,
    MixtureGaussian,
    nearest_gaussian,
)
from taut.plan import DENSE_LIMIT, LAPLACE_LIMIT, Plan
from taut.problem import Problem
from taut.problem.evaluator import Evaluator
from taut.solvers import FixedDraws, ResidualLaplace, Solution
from taut.solvers.start import Start
from taut.trust import certificate, evidence, modes, nuts, verdict
from taut.trust.certificate import Drift, Moved, Weighted
from taut.trust.draws import Draws, make_draws, thinned

OnDoubt = Literal["escalate", "warn", "raise"]
POOL = 8192  # corrected draws that a result keeps
LIGHT_TAIL = 0.5  # k-hat below which importance weights are preferred to chains
NEARLY_EXACT = 0.7  # share of the draws that weights keep, for them to stand in for chains
MOST_SECONDS = 300.0  # that chains may take before they are left out, and that is said


@dataclasses.dataclass(frozen=True)
class Pool:
    """Draws that stand for the posterior.

    Attributes:
        draws: the draws, with weights where they have any.
        method: "none" (q itself), "importance", "chains", "mixture" or "nuts".
        ess: their effective sample size.
        ok: whether they passed their own checks.
        message: what those checks say.
    """

    draws: Draws
    method: str
    ess: float
    ok: bool
    message: str


@dataclasses.dataclass(frozen=True)
class Examined:
    """What the certificate saw of a q.

    Attributes:
        q: the variational distribution.
        weighted: draws of q with importance weights.
        raw: the same draws in the model's space.
        drift: movement away from q; None if it was not measured.
        moved: chains started from q; None if none were run.
        other_modes: separate modes that restarts ended in.
    """

    q: AbstractDistribution
    weighted: Weighted
    raw: Draws
    drift: Drift | None
    moved: Moved | None
    other_modes: tuple[modes.Mode, ...]


@dataclasses.dataclass(frozen=True)
class Outcome:
    """Everything that a fit found; the posterior is a view of it.

    Attributes:
        problem: what was inferred, in the coordinates of the fit.
        plan: what was done.
        solution: what the solver returned.
        start: the restarts.
        examined: the certificate.
        pool: the draws that stand for the posterior.
        evidence: the log evidence from both sides.
        findings: what the verdict is based on.
        verdict: the word, reasons and advice.
        notes: what the user should know, in sentences.
        status: why the fit ended.
        num_gradients: gradients evaluated in all.
        seconds: wall time.
    """

    problem: Problem
    plan: Plan
    solution: Solution
    start: Start
    examined: Examined
    pool: Pool
    evidence: evidence.Evidence
    findings: verdict.Findings
    verdict: verdict.Verdict
    notes: tuple[str, ...]
    status: Status
    num_gradients: int
    seconds: float


def run(problem: Problem, plan: Plan, seed: int, on_doubt: OnDoubt, watch: Watch) -> Outcome:
    """Fit, certify, and climb the ladder while the verdict is bad.

    Args:
        problem: what is to be inferred.
        plan: family and solver.
        seed: of all randomness.
        on_doubt: "escalate" climbs; otherwise the first verdict stands.
        watch: budget, interrupt, progress.

    Raises:
        StartError: if the log joint is not finite at any start.
        ImproperPosteriorError: if the posterior cannot be normalised.
    """
    attempt = Attempt.make(problem, plan, seed, watch)
    outcome = _certify(attempt, watch, correct=on_doubt == "escalate")
    if on_doubt == "escalate":
        outcome = escalate(outcome, seed, watch)
    return outcome


def escalate(outcome: Outcome, seed: int, watch: Watch) -> Outcome:
    """Climb rung by rung until the verdict is no longer bad or the budget is used up."""
    unaffordable = outcome.examined.drift is None and not watch.over
    for rung in (_richer, _other_starts, _mixture, mcmc):
        if outcome.verdict.word != "bad" or watch.over or unaffordable:
            break
        watch.report(f"escalating: {rung.__name__.strip('_').replace('_', ' ')}")
        outcome = rung(outcome, seed, watch)
    return outcome


# --- certificate and correction ---------------------------------------------------------------


def _certify(attempt: Attempt, watch: Watch, correct: bool) -> Outcome:
    evaluator, q, seed = attempt.evaluator, attempt.solution.q, attempt.seed
    watch.report("certificate")
    weighted = certificate.weigh(evaluator, q, seed + 7, watch=watch)
    raw = make_draws(evaluator, weighted.points)
    near = nearest_gaussian(q)
    others = modes.other_modes(evaluator, attempt.start, near, attempt.solution.elbo, seed, watch)
    moved = drift = None
    if _nearly_exact(evaluator, weighted):
        drift = certificate.weighted_drift(evaluator.problem, raw, weighted)
    elif not watch.over and _affordable(evaluator, near.mean):
        chains = certificate.start_chains(evaluator, q, seed)
        moved, _ = certificate.first_move(chains)
        moved_values = evaluator.constrain(moved.flat)
        drift = certificate.measure_drift(evaluator.problem, moved, raw.values, moved_values)
        fine = drift.largest < verdict.MAX_DRIFT and weighted.khat < LIGHT_TAIL
        if correct and not fine:
            moved = certificate.keep_moving(chains, moved, watch)
    examined = Examined(q, weighted, raw, drift, moved, others)
    return _outcome(attempt, examined, _choose_pool(evaluator, examined), watch)


def _affordable(evaluator: Evaluator, point: np.ndarray) -> bool:
    """False where the certificate's chains would take many minutes."""
    if evaluator.cost < DEAR:
        return True
    points = np.broadcast_to(point, (evaluator.lanes, len(point)))
    evaluator.value_and_grad(points)  # compiled before it is timed
    began = time.perf_counter()
    evaluator.value_and_grad(points)
    each = (time.perf_counter() - began) / evaluator.lanes
    return each * certificate.FIRST_MOVE < MOST_SECONDS


def _nearly_exact(evaluator: Evaluator, weighted: Weighted) -> bool:
    """True where gradients are dear and the weights so even that they are the better certificate."""
    even = weighted.ess > NEARLY_EXACT * len(weighted.log_ratio) and weighted.khat < LIGHT_TAIL
    return even and evaluator.cost > DEAR


def _outcome(attempt: Attempt, examined: Examined, pool: Pool, watch: Watch) -> Outcome:
    """Judge, and put everything together."""
    moved, solution, evaluator = examined.moved, attempt.solution, attempt.evaluator
    log_q = None
    if moved is not None:
        log_q = examined.q.log_prob(moved.flat).reshape(moved.log_joint.shape)
    findings = _findings(evaluator.problem, solution, examined, pool)
    return Outcome(
        problem=evaluator.problem,
        plan=attempt.plan,
        solution=solution,
        start=attempt.start,
        examined=examined,
        pool=pool,
        evidence=_evidence(solution, examined, log_q),
        findings=findings,
        verdict=verdict.judge(findings),
        notes=attempt.notes,
        status=solution.status if not watch.interrupted else Status.INTERRUPTED,
        num_gradients=evaluator.num_gradients,
        seconds=watch.seconds,
    )


def _evidence(
    solution: Solution, examined: Examined, log_q: np.ndarray | None
) -> evidence.Evidence:
    """The bracket, with the compiled ELBO as its lower end where there is one."""
    found = evidence.bracket(examined.weighted, examined.moved, log_q)
    exact = solution.mean_error == 0.0 and examined.q is solution.q and np.isfinite(solution.elbo)
    return dataclasses.replace(found, lower=solution.elbo, lower_error=0.0) if exact else found


def _findings(
    problem: Problem, solution: Solution, examined: Examined, pool: Pool
) -> verdict.Findings:
    weighted, drift, moved = examined.weighted, examined.drift, examined.moved
    spread_error, spread_of = pool.draws.spread_error(problem, pool.ess)
    return verdict.Findings(
        solver_ok=solution.status.ok,
        solver_message=solution.status.value,
        drift=drift.largest if drift else float("nan"),
        drift_error=float(drift.error[drift.worst]) if drift else float("nan"),
        drifted=drift.labels[drift.worst] if drift else "",
        khat=weighted.khat,
        ess_share=weighted.ess / len(weighted.log_ratio),
        outside=weighted.num_outside / len(weighted.log_ratio),
        missed_mass=sum((m.weight for m in examined.other_modes), start=0.0),
        correction=pool.method,
        corrected_ess=pool.ess,
        corrected_ok=pool.ok,
        corrected_message=pool.message,
        stuck=moved.stuck if moved else 0.0,
        spread_error=spread_error,
        spread_of=spread_of,
        drift_from="chains" if moved or not drift else "weights",
    )


def _choose_pool(evaluator: Evaluator, examined: Examined) -> Pool:
    """The best corrected draws: light-tailed weights of a good q, else converged chains."""
    importance = _importance_pool(examined.weighted, examined.raw)
    if examined.moved is None or examined.drift is None:
        return importance
    stays = examined.drift.largest < verdict.MAX_DRIFT
    if stays and examined.weighted.khat < LIGHT_TAIL and importance.ok:
        return importance
    chains = _chain_pool(evaluator, examined.moved)
    return importance if importance.ok and stays and not chains.ok else chains


def _importance_pool(weighted: Weighted, raw: Draws) -> Pool:
    if weighted.smoothed is None:
        return Pool(raw, "none", 0.0, False, "importance weights could not be computed")
    ok = weighted.khat < verdict.MAX_KHAT and weighted.ess >= verdict.MIN_ESS
    message = f"importance-corrected draws: k-hat {weighted.khat:.2f}, effective sample size {weighted.ess:.0f}"
    draws = dataclasses.replace(raw, weights=np.exp(weighted.smoothed.log_weights))
    return Pool(draws, "importance", weighted.ess, ok, message)


def _chain_pool(evaluator: Evaluator, moved: Moved) -> Pool:
    a = moved.agreement
    message = (
        f"{moved.points.shape[1]} chains of {moved.num_transitions} transitions from q "
        f"{'agree' if a.converged else 'have not converged'}: autocorrelation time {a.iact:.1f}, R-hat {a.rhat:.3f}, "
        f"effective sample size {a.ess:.0f}"
    )
    ok = a.converged and a.ess >= verdict.MIN_ESS and moved.stuck <= verdict.MAX_STUCK
    return Pool(make_draws(evaluator, thinned(moved.flat, POOL)), "chains", a.ess, ok, message)


# --- rungs ------------------------------------------------------------------------------------


def _richer(outcome: Outcome, seed: int, watch: Watch) -> Outcome:
    """From a restricted Gaussian to a dense one, where its size allows."""
    dim = outcome.problem.dim
    if isinstance(outcome.plan.family, Dense) or dim > LAPLACE_LIMIT:
        return outcome
    solver = FixedDraws() if dim <= DENSE_LIMIT else ResidualLaplace()
    plan = dataclasses.replace(outcome.plan, family=Dense(), solver=solver).then(
        f"from {outcome.plan.family.describe()} to a dense Gaussian"
    )
    return _retry(outcome, plan, seed, watch)


def _other_starts(outcome: Outcome, seed: int, watch: Watch) -> Outcome:
    """Other starting points, where the solver did not converge."""
    if outcome.solution.status.ok:
        return outcome
    plan = outcome.plan.then("the solver did not converge: again from other starting points")
    return _retry(outcome, plan, seed + 1, watch)


def _retry(outcome: Outcome, plan: Plan, seed: int, watch: Watch) -> Outcome:
    attempt = Attempt.make(outcome.problem, plan, seed, watch)
    new = _certify(attempt, watch, correct=True)
    rose = new.examined.weighted.elbo > outcome.examined.weighted.elbo
    kept = new if rose or new.verdict.word != "bad" else outcome
    return dataclasses.replace(kept, num_gradients=outcome.num_gradients + new.num_gradients)


def _mixture(outcome: Outcome, seed: int, watch: Watch) -> Outcome:
    """One Gaussian per mode, weighed by importance sampling."""
    examined = outcome.examined
    parts = [m.q for m in examined.other_modes if isinstance(m.q, DenseGaussian)]
    if not parts or not isinstance(examined.q, DenseGaussian):
        return outcome
    elbos = np.array([outcome.solution.elbo, *(m.elbo for m in examined.other_modes)])
    mixture = MixtureGaussian((examined.q, *parts), elbos - np.logaddexp.reduce(elbos))
    points = mixture.sample(np.random.default_rng((seed, 3)), 2 * certificate.NUM_DRAWS)
    evaluator = Evaluator(outcome.problem)
    evaluator.num_gradients = outcome.num_gradients
    weighted = certificate.weigh_points(points, evaluator.value(points), mixture.log_prob(points))
    raw = make_draws(evaluator, points)
    pool = _importance_pool(weighted, raw)
    message = f"mixture of {len(elbos)} Gaussians, {pool.message}"
    pool = dataclasses.replace(pool, method="mixture", message=message)
    plan = outcome.plan.then(
        f"{len(elbos)} separate modes: a mixture of their Gaussians, corrected by importance weights"
    )
    attempt = Attempt(evaluator, plan, seed, outcome.start, outcome.solution, outcome.notes)
    found = dataclasses.replace(examined, q=mixture, weighted=weighted, raw=raw, moved=None)
    new = _outcome(attempt, found, pool, watch)
    return new if new.verdict.word != "bad" else outcome


def mcmc(outcome: Outcome, seed: int, watch: Watch) -> Outcome:
    """NUTS started at the best draws so far and preconditioned by q."""
    evaluator = Evaluator(outcome.problem)
    evaluator.num_gradients = outcome.num_gradients
    draws = outcome.pool.draws
    starts = draws.points[draws.indices(nuts.NUM_CHAINS, seed)]
    found = nuts.sample(evaluator, outcome.examined.q, starts, seed, watch)
    if found is None:
        return outcome
    ok = found.rhat < verdict.MAX_RHAT and found.divergences < verdict.MAX_STUCK
    message = (
        f"NUTS, {nuts.NUM_CHAINS} chains from q: R-hat {found.rhat:.3f}, effective sample size {found.ess:.0f}, "
        f"{100 * found.divergences:.1f}% divergent; its means differ from q's by up to {found.from_q:.2f} sd"
    )
    moved = outcome.examined.moved
    chains_rhat = moved.agreement.rhat if moved and outcome.pool.method == "chains" else np.inf
    if not ok and chains_rhat < found.rhat:
        plan = outcome.plan.then(f"{message}; not better, the chains' draws are kept")
        return dataclasses.replace(outcome, plan=plan, num_gradients=evaluator.num_gradients)
    pool = Pool(make_draws(evaluator, thinned(found.points, POOL)), "nuts", found.ess, ok, message)
    plan = outcome.plan.then("NUTS started at q and preconditioned by it")
    attempt = Attempt(evaluator, plan, seed, outcome.start, outcome.solution, outcome.notes)
    return _outcome(attempt, outcome.examined, pool, watch)
