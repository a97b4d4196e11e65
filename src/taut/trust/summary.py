"""What a result says of itself: the verdict with the numbers behind it."""

import dataclasses
import textwrap
from collections.abc import Iterable, Mapping

import numpy as np


@dataclasses.dataclass(frozen=True)
class Restarts:
    """Where the restarts ended.

    Attributes:
        log_joint: at the end of each path, best first, nats.
        other_modes: (ELBO, share of the mass) of each separate mode found.
    """

    log_joint: tuple[float, ...]
    other_modes: tuple[tuple[float, float], ...]


@dataclasses.dataclass(frozen=True)
class Trust:
    """How far to trust a fit.

    Attributes:
        verdict: "good", "usable" or "bad"; rules in ``taut.trust.verdict``.
        reasons: why, in words.
        advice: what to do, in words.
        notes: what else was noticed, such as directions that the data do not identify.
        khat: Pareto tail index of the importance weights of q.
        weight_ess: effective sample size of those weights.
        drift: scalar parameter -> drift of short chains from q, in sds of q.
        drift_error: scalar parameter -> its standard error.
        correction: how ``draws()`` are corrected: "none", "importance", "chains", "mixture", "nuts".
        ess: effective sample size of the corrected draws.
        rhat: largest split R-hat of the chains, NaN if none were run.
        acceptance: mean acceptance of the chains, NaN if none were run.
        restarts: where the restarts ended.
        mean_error: Monte Carlo error of q's means in its sds.
    """

    verdict: str
    reasons: tuple[str, ...]
    advice: tuple[str, ...]
    notes: tuple[str, ...]
    khat: float
    weight_ess: float
    drift: Mapping[str, float]
    drift_error: Mapping[str, float]
    correction: str
    ess: float
    rhat: float
    acceptance: float
    restarts: Restarts
    mean_error: float

    @property
    def max_drift(self) -> float:
        """Largest drift of any parameter, NaN if not measured."""
        return max(self.drift.values(), default=float("nan"))

    def __str__(self) -> str:
        """The verdict with numbers, reasons and advice."""
        lines = [
            f"verdict: {self.verdict}",
            f"  k-hat {self.khat:.2f}, drift {self.max_drift:.2f} sd",
            f"  draws() {_CORRECTIONS[self.correction]}, effective sample size {self.ess:,.0f}",
        ]
        lines += [f"  - {reason}" for reason in self.reasons]
        lines += [f"  > {advice}" for advice in self.advice]
        lines += [f"  note: {note}" for note in self.notes]
        return wrapped(lines)


def wrapped(lines: Iterable[str], width: int = 100) -> str:
    """The lines, broken where they are longer than a terminal is wide."""
    return "\n".join(
        textwrap.fill(line, width, subsequent_indent="    ", break_on_hyphens=False)
        for line in lines
    )


_CORRECTIONS = {
    "none": "from q itself",
    "importance": "from q, importance-corrected",
    "chains": "from Hamiltonian chains started at q",
    "mixture": "from a mixture over modes, importance-corrected",
    "nuts": "from NUTS started at q",
}


@dataclasses.dataclass(frozen=True)
class History:
    """How the fit went.

    Attributes:
        elbo: after each step, nats.
        status: why it ended, in words.
        converged: whether that was because it was done.
        num_gradients: gradients of the log joint evaluated in all.
        seconds: wall time of the fit.
    """

    elbo: tuple[float, ...]
    status: str
    converged: bool
    num_gradients: int
    seconds: float

    def __str__(self) -> str:
        """One line."""
        return f"{self.effort}; {self.status}"

    @property
    def effort(self) -> str:
        """What it took, in words."""
        ends = (
            f", ELBO {self.elbo[0]:.2f} to {self.elbo[-1]:.2f}"
            if self.elbo and np.isfinite(self.elbo[-1])
            else ""
        )
        return (
            f"{max(len(self.elbo) - 1, 0)} steps{ends}, "
            f"{self.num_gradients:,} gradients, {self.seconds:.2f} s"
        )
