"""What every solver takes and returns."""

import abc
import dataclasses
from typing import TYPE_CHECKING

from taut._core.progress import Watch
from taut._core.status import Status
from taut.families import (
    AbstractFamily,
    AbstractGaussian,
    DenseGaussian,
    DiagonalGaussian,
    Product,
)
from taut.problem.evaluator import Evaluator
from taut.solvers.start import Start

if TYPE_CHECKING:
    from taut.solvers.ascent import Ascent


@dataclasses.dataclass(frozen=True)
class Solution:
    """What a solver found.

    Attributes:
        q: the variational distribution.
        elbo: its ELBO on the solver's own draws, nats; NaN where the solver has none.
        status: why it ended.
        history: ELBO after each step.
        mean_error: Monte Carlo error of q's means in sds of q, largest over coordinates; NaN
            where the solver uses no draws.
        notes: what the user should know, in sentences.
        factors: the factors of a mean field, the discrete ones too.
    """

    q: AbstractGaussian | Product
    elbo: float
    status: Status
    history: tuple[float, ...]
    mean_error: float = float("nan")
    notes: tuple[str, ...] = ()
    factors: "Ascent | None" = None


def gaussian_of(start: Start) -> AbstractGaussian:
    """The Gaussian that the tournament chose."""
    if start.root.ndim == 1:
        return DiagonalGaussian(start.mean, start.root)
    return DenseGaussian.from_root(start.mean, start.root)


class AbstractSolver(abc.ABC):
    """Frozen settings of a method that fits q."""

    @abc.abstractmethod
    def describe(self) -> str:
        """A few words for the plan."""

    @abc.abstractmethod
    def solve(
        self, evaluator: Evaluator, family: AbstractFamily, start: Start, seed: int, watch: Watch
    ) -> Solution:
        """Fit a member of ``family``.

        Args:
            evaluator: the problem's log joint.
            family: which q to fit.
            start: where to begin.
            seed: of the draws.
            watch: ends the fit early.

        Raises:
            ArgumentError: if the solver cannot fit this family; the message says which can.
        """
