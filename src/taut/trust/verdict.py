"""The verdict: its rules and thresholds, all in this one place.

good    q itself can be used: chains started from it do not drift, importance weights have
        a light tail, restarts agree, the solver converged.
usable  q is off, but the corrected draws pass their own checks; ``draws()`` returns those.
bad     neither; do not rely on the numbers.

The thresholds come from a study of 45 fits (drift 0.1 flagged all 32 bad ones and none of 13
good ones) and are validated by tests with fits that are wrong on purpose.
"""

import dataclasses

import numpy as np

MAX_DRIFT = 0.1  # sds, or log sd
MAX_KHAT = 0.7
MIN_ESS = 400.0  # of corrected draws
HEALTHY_SHARE = 0.9  # share of draws that weights keep: above it the tail index is about noise
MAX_RHAT = 1.01
MAX_OUTSIDE = 0.01  # share of q's draws without a density
MAX_STUCK = 0.02
MAX_MISSED_MASS = 0.01
MAX_SPREAD_ERROR = 0.05  # relative standard error of a latent's sd


@dataclasses.dataclass(frozen=True)
class Findings:
    """Everything that the verdict is based on.

    Attributes:
        solver_ok: the solver converged.
        solver_message: why it ended.
        drift: largest drift of the chains from q, NaN if not measured.
        drift_error: standard error of the drift of that parameter.
        drifted: label of that parameter.
        khat: Pareto tail index.
        ess_share: effective sample size of the weights over their number.
        outside: share of q's draws where the log joint is not finite.
        missed_mass: share of the mass in other modes.
        correction: "none", "importance", "chains", "mixture" or "nuts".
        corrected_ess: effective sample size of the corrected draws.
        corrected_ok: the corrected draws passed their own checks.
        corrected_message: what those checks say.
        stuck: share of chains that never moved.
        spread_error: largest relative standard error of a latent's sd.
        spread_of: label of that latent.
        drift_from: "chains", or "weights" where even importance weights stood in for them.
    """

    solver_ok: bool
    solver_message: str
    drift: float
    drift_error: float
    drifted: str
    khat: float
    ess_share: float
    outside: float
    missed_mass: float
    correction: str
    corrected_ess: float
    corrected_ok: bool
    corrected_message: str
    stuck: float
    spread_error: float
    spread_of: str
    drift_from: str = "chains"


@dataclasses.dataclass(frozen=True)
class Verdict:
    """One word, why, and what to do."""

    word: str
    reasons: tuple[str, ...]
    advice: tuple[str, ...]


def judge(findings: Findings) -> Verdict:
    """Apply the rules."""
    faults = _faults_of_q(findings)
    if not faults:
        return Verdict("good", _praise(findings), ())
    if findings.correction != "none" and _corrected_is_fine(findings):
        return Verdict("usable", (*faults, findings.corrected_message), _advice_usable(findings))
    reasons = (*faults, findings.corrected_message) if findings.corrected_message else tuple(faults)
    return Verdict("bad", reasons, _advice_bad(findings))


def _faults_of_q(f: Findings) -> list[str]:
    """What is wrong with q; every rule is written so that NaN is a fault."""
    faults = []
    if not f.solver_ok:
        faults.append(f"the solver did not converge ({f.solver_message})")
    if np.isnan(f.drift):
        faults.append("no chains were run, so how far q is from the posterior is not known")
    elif not f.drift < MAX_DRIFT:
        faults.append(
            f"{_movers(f)} drift by {f.drift:.2f} ± {f.drift_error:.2f} sd (limit {MAX_DRIFT}), "
            f"most of all {f.drifted}"
        )
    if not (f.khat < MAX_KHAT or f.ess_share >= HEALTHY_SHARE):
        faults.append(
            f"importance weights have a heavy tail: k-hat {f.khat:.2f} (limit {MAX_KHAT})"
        )
    if not f.outside <= MAX_OUTSIDE:
        faults.append(f"{100 * f.outside:.1f}% of q's draws have no density")
    if not f.missed_mass <= MAX_MISSED_MASS:
        faults.append(
            f"restarts ended in other modes, which hold about {100 * f.missed_mass:.0f}% of the "
            "mass; means over all of them may describe none"
        )
    if not f.stuck <= MAX_STUCK:
        faults.append(f"{100 * f.stuck:.0f}% of the chains never moved")
    if not f.spread_error <= MAX_SPREAD_ERROR:
        faults.append(
            f"{f.spread_of} has heavy tails: its sd is known to about "
            f"{100 * f.spread_error:.0f}% only; read its median and intervals"
        )
    return faults


def _movers(f: Findings) -> str:
    return (
        "chains started from q"
        if f.drift_from == "chains"
        else "moments under even importance weights"
    )


def _corrected_is_fine(f: Findings) -> bool:
    modes_covered = f.missed_mass <= MAX_MISSED_MASS or f.correction == "mixture"
    return f.corrected_ok and f.corrected_ess >= MIN_ESS and modes_covered


def _praise(f: Findings) -> tuple[str, ...]:
    return (
        f"{_movers(f)} stay: largest drift {f.drift:.2f} ± {f.drift_error:.2f} sd ({f.drifted})",
        f"importance weights are light-tailed: k-hat {f.khat:.2f}"
        if f.khat < MAX_KHAT
        else f"importance weights keep {100 * f.ess_share:.0f}% of the draws",
        "restarts agree",
    )


def _advice_usable(f: Findings) -> tuple[str, ...]:
    return (
        "use draws(), summary() and predict(), which are corrected; posterior.q and draws(corrected=False) are the "
        "approximation itself, off by as much as the shift column says",
    )


def _advice_bad(f: Findings) -> tuple[str, ...]:
    advice = []
    if not f.missed_mass <= MAX_MISSED_MASS:
        advice.append(
            "the posterior has separate modes: say by priors or an ordering which one is meant, or sample each"
        )
    if not f.outside <= MAX_OUTSIDE:
        advice.append(
            "q reaches where the model has no density: check supports, and logs and roots of possible zeros"
        )
    if not f.solver_ok:
        advice.append("give the fit more time with posterior.refine(budget=...)")
    advice.append(
        "reparameterise the model (non-centred effects, standardised predictors), tighten vague priors, or use MCMC"
    )
    return tuple(advice)
