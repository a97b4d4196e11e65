"""The one compiled function of a fit: log joint and gradient of a batch of points."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from taut._core.precision import double_precision
from taut.problem.types import Arrays, Problem, Program

MAX_LANES = 64
SMALL = 2**14  # numbers up to which a gradient costs less than compiling the value alone
LANE_BUDGET = 2**22  # numbers that one batch may touch, so that intermediates stay near the cache


@functools.partial(jax.jit, static_argnums=0)
def _value_and_grad(program: Program, prepared: Arrays, points: Any) -> Any:
    return jax.vmap(jax.value_and_grad(program.log_joint), (0, None))(points, prepared)


@functools.partial(jax.jit, static_argnums=0)
def _value(program: Program, prepared: Arrays, points: Any) -> Any:
    return jax.vmap(program.log_joint, (0, None))(points, prepared)


@functools.partial(jax.jit, static_argnums=0)
def _constrain(program: Program, prepared: Arrays, points: Any) -> Any:
    return jax.vmap(program.values, (0, None))(points, prepared)


class Evaluator:
    """Evaluates a problem's log joint at many points, on the host's behalf.

    Points go through one compiled function in batches of a fixed size, so a fit compiles the
    gradient once, whatever numbers of points its stages ask for.

    Attributes:
        problem: the problem.
        num_gradients: gradients evaluated so far.
        cost: numbers that one gradient reads and makes, a measure of its time.
        batch: points whose intermediates stay near the cache.
        lanes: points in one call of the compiled function.
    """

    def __init__(self, problem: Problem) -> None:
        self.problem = problem
        self.num_gradients = 0
        with double_precision():
            prepared = problem.prepared
            self.cost = (
                sum(int(np.size(a)) for a in jax.tree.leaves(prepared))
                + problem.program.width
                + problem.dim
            )
            self.batch = int(max(LANE_BUDGET // problem.program.width, 4))
            self.lanes = min(self.batch, MAX_LANES)
            self._device = jax.device_put(prepared)

    @property
    def prepared(self) -> Arrays:
        """The arguments of the program's functions, on the device."""
        return self._device

    def with_centring(self, centring: dict[str, np.ndarray]) -> "Evaluator":
        """An evaluator of the same problem in other coordinates; compiles nothing."""
        return Evaluator(self.problem.with_centring(centring))

    def value_and_grad(self, points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Log joint and its gradient.

        Args:
            points: unconstrained points, shape (n, d).

        Returns:
            Log joint, shape (n,), with -inf where it is NaN or its gradient is not finite;
            and gradients, shape (n, d), zero there.
        """
        self.num_gradients += len(points)
        values, grads = self._map(_value_and_grad, points)
        bad = ~(np.isfinite(values) & np.isfinite(grads).all(axis=1))
        if bad.any():
            values, grads = np.where(bad, -np.inf, values), np.where(bad[:, None], 0.0, grads)
        return values, grads

    def value(self, points: np.ndarray) -> np.ndarray:
        """Log joint of points (n, d), shape (n,); -inf where it is NaN."""
        if self.cost < SMALL:
            return self.value_and_grad(points)[0]
        (values,) = self._map(lambda *args: (_value(*args),), points)
        return np.where(np.isnan(values), -np.inf, values)

    def constrain(self, points: np.ndarray) -> dict[str, np.ndarray]:
        """Latents and deterministic sites of points (n, d); each of shape (n, *shape)."""
        with double_precision():
            return {k: np.asarray(v) for k, v in self._batches(_constrain, points).items()}

    def _map(self, fn: Any, points: np.ndarray) -> tuple[np.ndarray, ...]:
        with double_precision():
            out = self._batches(fn, points)
        return tuple(np.asarray(o) for o in out)

    def _batches(self, fn: Any, points: np.ndarray) -> Any:
        points = np.asarray(points, float)
        n, lanes = len(points), self.lanes
        padded = np.concatenate([points, np.repeat(points[-1:], -n % lanes, axis=0)])
        parts = [
            fn(self.problem.program, self.prepared, padded[i : i + lanes])
            for i in range(0, n, lanes)
        ]
        if len(parts) == 1:
            return jax.tree.map(lambda x: np.asarray(x)[:n], parts[0])
        return jax.tree.map(lambda *xs: np.concatenate([np.asarray(x) for x in xs])[:n], *parts)


def where_not_finite(problem: Problem, u: np.ndarray) -> dict[str, float]:
    """Sites whose log density is not finite at one point, with the value."""
    with double_precision():
        sites = jax.jit(problem.program.sites)(jnp.asarray(u, float), problem.prepared)
        return {name: float(v) for name, v in sites.items() if not np.isfinite(v)}
