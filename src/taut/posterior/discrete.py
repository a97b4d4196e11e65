"""Discrete latents that were summed out: their posterior probabilities and draws."""

import dataclasses
import functools
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import jax
import numpy as np

from taut._core.precision import double_precision
from taut.posterior import predictive
from taut.problem import Problem, Program
from taut.trust.draws import Draws

if TYPE_CHECKING:
    import xarray as xr

NUM_DRAWS = 256  # of the continuous latents, over which probabilities are averaged


@dataclasses.dataclass(frozen=True)
class Discrete:
    """Posterior of the discrete latents, each on its own.

    Attributes:
        probabilities: latent -> (*shape, num_values), averaged over draws of the other latents.
        values: latent -> the values that these belong to, (num_values,).
    """

    probabilities: Mapping[str, np.ndarray] = dataclasses.field(default_factory=dict)
    values: Mapping[str, np.ndarray] = dataclasses.field(default_factory=dict)

    @property
    def assignments(self) -> dict[str, np.ndarray]:
        """The most probable value of each element, (*shape)."""
        best = {n: p.argmax(-1) for n, p in self.probabilities.items()}
        return {n: np.asarray(self.values[n][i]) for n, i in best.items()}


@functools.partial(jax.jit, static_argnums=0)
def _marginals(program: Program, points: Any, weights: Any, arrays: Any) -> Any:
    assert program.enumeration is not None
    found = jax.vmap(program.enumeration.marginals, (0, None))(points, arrays)
    return {n: jax.numpy.tensordot(weights, p, 1) for n, p in found.items()}


@functools.partial(jax.jit, static_argnums=0)
def _draws(program: Program, seed: Any, index: Any, points: Any, arrays: Any) -> Any:
    assert program.enumeration is not None
    keys = jax.vmap(jax.random.fold_in, (None, 0))(jax.random.key(seed), index)
    return jax.vmap(program.enumeration.draw, (0, 0, None))(keys, points, arrays)


def posterior_of(problem: Problem, draws: Draws, seed: int) -> Discrete:
    """Average the exact conditional probabilities over draws of the continuous latents.

    Args:
        problem: with discrete latents.
        draws: of its posterior.
        seed: picks the draws.
    """
    points = draws.points[draws.indices(NUM_DRAWS, seed)]
    lanes = int(np.clip(predictive.LANE_BUDGET // _size(problem), 1, NUM_DRAWS))
    total: dict[str, np.ndarray] = {}
    weights = np.full(-(-NUM_DRAWS // lanes) * lanes, 1 / NUM_DRAWS)
    weights[NUM_DRAWS:] = 0.0
    index = np.arange(len(weights)) % NUM_DRAWS
    with double_precision():
        for rows in np.arange(len(weights)).reshape(-1, lanes):
            part = _marginals(problem.program, points[index[rows]], weights[rows], problem.arrays)
            for name, value in part.items():
                total[name] = total.get(name, 0.0) + np.asarray(value)
    return Discrete({s.name: total[s.name] for s in problem.discrete}, problem.discrete_support())


def draw(
    problem: Problem, points: np.ndarray, seed: int, names: list[str]
) -> dict[str, np.ndarray]:
    """Draw the discrete latents given draws of the others, exactly.

    Args:
        problem: with discrete latents.
        points: unconstrained points, (n, d).
        seed: of the draws.
        names: those to return.

    Returns:
        Latent -> values, (n, *shape).
    """
    index = np.arange(len(points), dtype=np.uint32)
    with double_precision():
        found = predictive.in_lanes(
            lambda part: _draws(
                problem.program, np.uint32((seed + 1) % 2**32), *part, problem.arrays
            ),
            (index, points),
            _size(problem),
        )
    return {n: v for n, v in found.items() if n in names}


def _size(problem: Problem) -> int:
    return problem.program.width if problem.prepared else 1


def as_dataset(found: Discrete, dims: Mapping[str, tuple[str, ...]]) -> "xr.Dataset":
    """The probabilities as a data set, ``z_probability`` along ``z_value``."""
    import xarray as xr

    return xr.Dataset(
        {
            f"{name}_probability": ((*dims[name], f"{name}_value"), array)
            for name, array in found.probabilities.items()
        },
        coords={f"{name}_value": values for name, values in found.values.items()},
    )
