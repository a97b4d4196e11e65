"""The natural solver on the compiled ELBO."""

import dataclasses
from typing import Any

import jax.numpy as jnp
import numpy as np
from typing_extensions import override

from taut._core.errors import ArgumentError
from taut._core.precision import double_precision
from taut._core.progress import Watch
from taut.expectation.folding import Reading, read
from taut.families import AbstractFamily, Dense, DenseGaussian, MeanField
from taut.problem import Problem
from taut.problem.evaluator import Evaluator
from taut.solvers.base import AbstractSolver, Solution
from taut.solvers.mean_field import distribution_of, solve_factors
from taut.solvers.natural import AbstractObjective, Point, climb, direction, entropy_of
from taut.solvers.start import Start

MAX_DENSE_DIM = 1000
MIN_SWEEPS = 1000  # coordinate ascent takes more and cheaper steps


class OnTerms(AbstractObjective):
    """The compiled ELBO of a dense Gaussian, exact or by low-dimensional quadrature.

    Args:
        reading: the program in the algebra of expectations.
        problem: with the data.
    """

    def __init__(self, reading: Reading, problem: Problem) -> None:
        self.reading = reading
        with double_precision():
            self.sites: Any = problem.arrays.get("folded") or reading.fold(problem.arrays)

    @override
    def look(self, mean: np.ndarray, root: np.ndarray) -> Point:
        with double_precision():
            value, (grad, curvature) = self.reading.look(
                jnp.asarray(mean), jnp.asarray(root @ root.T), self.sites
            )
        b = root.T @ np.asarray(grad)
        hessian = 2.0 * root.T @ np.asarray(curvature) @ root
        elbo = float(value) + entropy_of(root)
        finite = np.isfinite(elbo) and np.isfinite(b).all() and np.isfinite(hessian).all()
        return Point(mean, root, elbo if finite else -np.inf, direction(b, hessian, 0.0))


@dataclasses.dataclass(frozen=True)
class Natural(AbstractSolver):
    """The one update rule on the compiled ELBO: natural parameter = gradient in mean parameters.

    Variational Newton steps for a dense Gaussian, block coordinate ascent for a mean field. Nothing
    is drawn: every site's expectation is exact or a quadrature of one or two dimensions, so the
    ELBO never falls and the end is a test, not a guess.

    Attributes:
        tolerance: stop when a step promises less than this many nats.
        max_steps: largest number of steps.
    """

    tolerance: float = 1e-5
    max_steps: int = 200

    def __post_init__(self) -> None:
        """Check the settings."""
        if not self.tolerance > 0:
            raise ArgumentError(f"tolerance must be positive, in nats, got {self.tolerance}")

    @override
    def describe(self) -> str:
        return "natural gradient (variational Newton) on the compiled ELBO"

    @override
    def solve(
        self, evaluator: Evaluator, family: AbstractFamily, start: Start, seed: int, watch: Watch
    ) -> Solution:
        problem = evaluator.problem
        if isinstance(family, MeanField):
            return self._solve_factors(problem, family, seed, watch)
        reading = read(problem)
        if not isinstance(family, Dense) or problem.dim > MAX_DENSE_DIM:
            raise ArgumentError(
                f"the natural solver fits families.Dense() of up to {MAX_DENSE_DIM} latents and families.MeanField(), "
                f"got {family.describe()} over {problem.dim}; use solver=None or solvers.FixedDraws()"
            )
        if reading.reason:
            raise ArgumentError(
                f"the natural solver cannot compile this ELBO: {reading.reason}; "
                "use solver=None or solvers.FixedDraws()"
            )
        root = start.root if start.root.ndim == 2 else np.diag(start.root)
        fitted = climb(
            OnTerms(reading, problem), start.mean, root, watch, self.tolerance, self.max_steps
        )
        q = DenseGaussian.from_root(fitted.mean, fitted.root)
        return Solution(q, fitted.elbo, fitted.status, fitted.history, 0.0)

    def _solve_factors(
        self, problem: Problem, family: MeanField, seed: int, watch: Watch
    ) -> Solution:
        tolerance, sweeps = self.tolerance, max(self.max_steps, MIN_SWEEPS)
        ascent, layout = solve_factors(problem, family, seed, watch, tolerance, sweeps)
        with double_precision():
            q = distribution_of(problem, ascent.q)
        notes = tuple(
            f"site '{name}' is taken on draws: its compiled mean differed from theirs"
            for name in layout.drawn
        )
        return Solution(q, ascent.elbo, ascent.status, ascent.history, 0.0, notes, factors=ascent)
