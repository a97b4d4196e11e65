"""From what the ladder found to how far it can be trusted."""

from taut.ladder import Outcome
from taut.trust.summary import Restarts, Trust


def trust_of(outcome: Outcome) -> Trust:
    """The verdict on an outcome, with its numbers, reasons and advice."""
    examined = outcome.examined
    drift, moved = examined.drift, examined.moved
    return Trust(
        verdict=outcome.verdict.word,
        reasons=outcome.verdict.reasons,
        advice=outcome.verdict.advice,
        notes=(*outcome.problem.program.notes, *outcome.notes),
        khat=examined.weighted.khat,
        weight_ess=examined.weighted.ess,
        drift=dict(zip(drift.labels, drift.size.tolist(), strict=True)) if drift else {},
        drift_error=dict(zip(drift.labels, drift.error.tolist(), strict=True)) if drift else {},
        correction=outcome.pool.method,
        ess=outcome.pool.ess,
        rhat=moved.agreement.rhat if moved else float("nan"),
        acceptance=moved.acceptance if moved else float("nan"),
        restarts=Restarts(
            tuple(p.log_joint for p in outcome.start.paths),
            tuple((m.elbo, m.weight) for m in examined.other_modes),
        ),
        mean_error=outcome.solution.mean_error,
    )
