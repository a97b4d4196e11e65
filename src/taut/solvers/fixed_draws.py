"""The default solver: a deterministic ELBO on fixed draws, and second-order steps on it."""

import dataclasses

import numpy as np
from typing_extensions import override

from taut._core.errors import ArgumentError
from taut._core.progress import Watch
from taut.families import AbstractFamily, Dense, DenseGaussian
from taut.problem.evaluator import Evaluator
from taut.solvers.base import AbstractSolver, Solution
from taut.solvers.natural import Fitted, OnDraws, climb
from taut.solvers.newton_cg import maximise_on_fixed_draws
from taut.solvers.start import Start

MIN_DRAWS, MAX_DRAWS = 64, 4096
MAX_DENSE_DIM = 1000  # O(d^3) work and 2 d draws a step beyond this are not worth it
NOISE_FREE_DIM = 25
ERROR_TARGET = 0.05  # sds of q
MAX_REFRESHES = 4


@dataclasses.dataclass(frozen=True)
class FixedDraws(AbstractSolver):
    """Maximise the ELBO on fixed scrambled-Sobol draws.

    A dense Gaussian takes natural-gradient steps from least-squares estimates of the expected
    gradient and Hessian; other families take trust-region Newton-CG steps. Draws are refreshed,
    and increased, until the answer no longer moves by more than its own Monte Carlo error.

    Attributes:
        num_draws: draws of the first round; None chooses by dimension.
        tolerance: stop when a step promises less than this many nats.
        max_steps: largest number of steps in each round.
    """

    num_draws: int | None = None
    tolerance: float = 0.01
    max_steps: int = 200

    def __post_init__(self) -> None:
        """Check the settings."""
        if self.num_draws is not None and self.num_draws < 2:
            raise ArgumentError(f"num_draws must be at least 2, got {self.num_draws}")
        if not self.tolerance > 0:
            raise ArgumentError(f"tolerance must be positive, in nats, got {self.tolerance}")

    @override
    def describe(self) -> str:
        return "deterministic ELBO on fixed quasi-random draws, second-order steps"

    @override
    def solve(
        self, evaluator: Evaluator, family: AbstractFamily, start: Start, seed: int, watch: Watch
    ) -> Solution:
        dim = evaluator.problem.dim
        if not isinstance(family, Dense):
            return maximise_on_fixed_draws(self, evaluator, family, start, seed, watch)
        if dim > MAX_DENSE_DIM:
            raise ArgumentError(
                f"a dense Gaussian over {dim} latents needs {dim**2} numbers and O(d^3) steps; "
                f"beyond {MAX_DENSE_DIM} use families.LowRank(), families.Block() or families.Diagonal()"
            )
        return self._climb_dense(evaluator, start, seed, watch)

    def _climb_dense(self, evaluator: Evaluator, start: Start, seed: int, watch: Watch) -> Solution:
        dim = evaluator.problem.dim
        num_draws = max(self.num_draws or MIN_DRAWS, power_of_two(2 * dim + 2))
        root = start.root if start.root.ndim == 2 else np.diag(start.root)
        # With many latents the fixed draws determine the optimum less sharply than that: do not chase their noise.
        tolerance = self.tolerance * max(1.0, dim / NOISE_FREE_DIM)
        objective = OnDraws(evaluator, num_draws, seed)
        fitted = climb(objective, start.mean, root, watch, tolerance, self.max_steps)
        history, shift = list(fitted.history), np.inf
        for refresh in range(1, MAX_REFRESHES + 1):
            if watch.over or not fitted.status.ok:
                break
            num_draws = min(
                max(num_draws, power_of_two(4 * dim)) if refresh == 1 else 2 * num_draws, MAX_DRAWS
            )
            before = fitted
            objective = OnDraws(evaluator, num_draws, seed + refresh)
            fitted = climb(objective, before.mean, before.root, watch, tolerance, self.max_steps)
            history += fitted.history[1:]
            shift = _shift(before, fitted)
            if max(shift, fitted.mean_error) < ERROR_TARGET or num_draws == MAX_DRAWS:
                break
        q = DenseGaussian.from_root(fitted.mean, fitted.root)
        error = float(np.fmin(max(shift, fitted.mean_error), 1e3))
        return Solution(q, fitted.elbo, fitted.status, tuple(history), error)


def _shift(before: Fitted, after: Fitted) -> float:
    """Largest move of the mean between two sets of draws, in sds of q."""
    sd = np.sqrt(np.sum(after.root**2, axis=1))
    return float(np.max(np.abs(after.mean - before.mean) / sd))


def power_of_two(n: int) -> int:
    """Smallest power of two that is at least n."""
    return 1 << max(int(n) - 1, 0).bit_length()
