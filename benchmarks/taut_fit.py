"""taut, as a user calls it; and with a family given, to compare its bound with the peers'."""

import warnings
from typing import Any

from benchmarks.accuracy import finite
from benchmarks.cases import Case
from benchmarks.timing import Clock, Fit, at_once

NUM_DRAWS = 20_000


class Taut:
    """Defaults."""

    family: str | None = None

    def __init__(self, case: Case, rate: float | None, budget: float) -> None:
        import taut

        self._case, self._fit = case, taut.fit
        self._options: dict[str, Any] = {"progress": False}
        if self.family is not None:
            chosen = getattr(taut.families, self.family)()
            self._options |= {"family": chosen, "on_doubt": "warn"}

    def run(self, seed: int) -> Fit:
        """Fit once; drawing is on the clock. With a family given the draws are q's own."""
        clock = Clock()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # the verdict is in the table
            posterior = self._fit(
                self._case.model, self._case.arguments, seed=seed, **self._options
            )
        draws = posterior.draws(NUM_DRAWS, corrected=self.family is None)
        seconds = clock.seconds
        return at_once(
            self._case,
            seconds,
            draws,
            finite(posterior.elbo),
            verdict=f"{posterior.trust.verdict} ({posterior.trust.correction})",
            steps=posterior.history.num_gradients,
            ended=str(posterior.history.status),
        )


class TautDiagonal(Taut):
    """A diagonal Gaussian, no escalation."""

    family = "Diagonal"


class TautDense(Taut):
    """A dense Gaussian, no escalation."""

    family = "Dense"
