"""From a posterior to its HTML page."""

import os
from typing import TYPE_CHECKING

import numpy as np

from taut._core.errors import TautError
from taut._core.progress import Watch
from taut.derivation.derive import TOLERANCE, Derivation, derivation_of
from taut.families import MeanField
from taut.plan import Plan
from taut.posterior.storage import checked_target
from taut.report.content import Graph, ReportContent
from taut.report.graph import graph_of
from taut.report.html import render
from taut.solvers.mean_field import solve_factors
from taut.trust.draws import Draws

if TYPE_CHECKING:
    from taut.posterior.result import Posterior

PAGE_DRAWS, REPLICATES = 2000, 60
MAX_OBSERVATIONS = 100_000
MAX_SWEEPS = 1000


def write(
    posterior: "Posterior", corrected: Draws, raw: Draws, path: str | os.PathLike[str]
) -> None:
    """Render the page and write it."""
    path = checked_target(path)
    path.write_text(render(content_of(posterior, corrected, raw)), encoding="utf-8")


def content_of(posterior: "Posterior", corrected: Draws, raw: Draws) -> ReportContent:
    """Everything that the page shows."""
    trust = posterior.trust
    index = corrected.indices(PAGE_DRAWS, posterior.seed)
    raw_index = raw.indices(PAGE_DRAWS, posterior.seed)
    # Deterministic sites have no drift of their own: they are in the table only.
    shown = [n for n in corrected.values if n in posterior.dims]
    derivation = _derivation(posterior)
    return ReportContent(
        title=posterior.name,
        verdict=trust.verdict,
        reasons=trust.reasons,
        advice=(*trust.advice, *trust.notes),
        facts=_facts(posterior),
        plan=str(posterior.plan),
        derivation=str(derivation or ""),
        derivation_latex=derivation.latex() if derivation else "",
        summary=posterior.summary(),
        draws={n: corrected.values[n][index] for n in shown},
        raw_draws={n: raw.values[n][raw_index] for n in shown},
        drift=trust.drift,
        history=[(i, float(e)) for i, e in enumerate(posterior.history.elbo)],
        starts=[float(x) for x in trust.restarts.log_joint],
        predictive=_predictive(posterior),
        graph=_graph(posterior),
        versions=posterior.versions,
    )


def _facts(posterior: "Posterior") -> dict[str, str]:
    e, t, h = posterior.evidence, posterior.trust, posterior.history
    return {
        "ELBO": f"{e.lower:.3f} ± {e.lower_error:.3f} nats",
        "log evidence": f"{e.estimate:.3f} ± {e.estimate_error:.3f} nats ({e.method})",
        "log evidence, from above": f"{e.upper:.3f} ± {e.upper_error:.3f} nats",
        "k-hat": f"{t.khat:.2f}",
        "largest drift": f"{t.max_drift:.2f} sd",
        "draws": f"{t.correction}, effective sample size {t.ess:,.0f}",
        "unconstrained coordinates": f"{len(posterior.q.sd):,}",
        "steps": f"{max(len(h.elbo) - 1, 0)}, {h.status.split(':')[0]}",
        "gradients": f"{h.num_gradients:,}",
        "time": f"{h.seconds:.2f} s, seed {posterior.seed}",
    }


def _predictive(posterior: "Posterior") -> dict[str, tuple[np.ndarray, np.ndarray]]:
    problem = posterior.problem
    if problem is None or not problem.observed:
        return {}
    observed = problem.observed_values()
    if not observed or sum(v.size for v in observed.values()) > MAX_OBSERVATIONS:
        return {}
    try:
        replicated = posterior.predict(num_draws=REPLICATES)
    except (TautError, NotImplementedError):  # a likelihood that cannot be drawn from has no check
        return {}
    return {n: (v, replicated[n]) for n, v in observed.items() if n in replicated}


def _derivation(posterior: "Posterior") -> Derivation | None:
    """What coordinate ascent did, done once more: the posterior keeps its q, not the ascent."""
    problem, plan = posterior.problem, posterior.plan
    if problem is None or problem.relations is None or not isinstance(plan, Plan):
        return None
    family = plan.family
    if not isinstance(family, MeanField):
        return None
    with Watch(None, False, ()) as watch:
        ascent, layout = solve_factors(
            problem, family, posterior.seed, watch, TOLERANCE, MAX_SWEEPS
        )
    return derivation_of(problem, ascent, layout)


def _graph(posterior: "Posterior") -> Graph | None:
    problem = posterior.problem
    if problem is None or problem.relations is None:
        return None
    sizes = {
        d: n
        for s in (*problem.latents, *problem.observed)
        for d, n in zip(s.dims, s.shape, strict=False)
        if d in s.plates
    }
    return graph_of(problem.relations(), sizes)
