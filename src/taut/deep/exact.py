"""Modes of small models, to machine precision: all rows at once, second-order steps."""

import time
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree
from scipy.optimize import minimize

from taut._core.errors import ModelError
from taut._core.precision import double_precision
from taut._core.progress import Watch
from taut._core.status import Status
from taut.data.feeds import Batch
from taut.deep.objective import LogDensity
from taut.training import Look, Trained

MOST_PARAMETERS = 1000
MOST_NUMBERS = 20_000_000  # rows times parameters, up to which all rows are used at once
MOST_STEPS = 2000


def is_small(params: Any, num_rows: int) -> bool:
    """Whether second-order steps on all rows are cheap, and there is no network to overfit."""
    leaves = jax.tree.leaves(params)
    size = sum(int(np.size(x)) for x in leaves)
    networks = any(name.endswith("$params") for name in params["model"])
    return not networks and size <= MOST_PARAMETERS and size * num_rows <= MOST_NUMBERS


def find_mode(objective: LogDensity, params: Any, columns: Any, watch: Watch) -> Trained:
    """Minimise the loss by BFGS (SciPy) in double precision.

    Raises:
        ModelError: if the log density is not finite at the start.
    """
    began = time.perf_counter()
    with double_precision():
        params = jax.tree.map(lambda x: jnp.asarray(x, float), params)
        start, unravel = ravel_pytree(params)
        descent = _Descent(objective, unravel, columns, watch)
        first, _ = descent(np.asarray(start))
        if not np.isfinite(first):
            raise ModelError(
                f"the log density is {first} at the start, where parameters have their initial values and "
                "latents the middle of their support; look for log(0) or data outside of a distribution's support"
            )
        options = {"maxiter": MOST_STEPS, "gtol": 1e-9}
        found = minimize(
            descent, np.asarray(start), jac=True, method="BFGS", callback=descent.stop,
            options=options,
        )  # fmt: skip
        value, grad = descent(found.x)
        fitted = jax.tree.map(np.asarray, unravel(jnp.asarray(found.x)))
    is_flat = np.abs(grad).max() < 1e-5 * max(1.0, abs(value))
    status = Status.CONVERGED if is_flat else Status.STALLED
    if watch.over:
        status = Status.INTERRUPTED if watch.interrupted else Status.BUDGET
    looks, seconds = tuple(descent.looks), time.perf_counter() - began
    return Trained(fitted, status, looks, len(looks), 0, (), 0.0, seconds)


class _Descent:
    """The loss and its gradient, as SciPy takes them; it remembers the course."""

    def __init__(self, objective: LogDensity, unravel: Any, columns: Any, watch: Watch) -> None:
        count = objective.num_rows
        self._batch = Batch(_wide(columns), jnp.ones(count), jnp.arange(count))
        self._count, self._watch = count, watch
        self.looks: list[Look] = []

        def loss(u: Any, batch: Batch) -> Any:
            return objective(unravel(u), batch, jax.random.key(0), jnp.zeros((), int))[0]

        self._value_and_grad = jax.jit(jax.value_and_grad(loss))

    def __call__(self, u: np.ndarray) -> tuple[float, np.ndarray]:
        value, grad = self._value_and_grad(jnp.asarray(u), self._batch)
        number, seconds = len(self.looks) + 1, self._watch.seconds
        self.looks.append(Look(number, float(number), float(value), np.nan, seconds))
        return float(value), np.asarray(grad)

    def stop(self, u: np.ndarray) -> None:
        """Show the course; end it where the time is over."""
        density = -self.looks[-1].loss * self._count
        self._watch.report("mode", steps=len(self.looks), **{"log density": density})
        if self._watch.over:
            raise StopIteration


def _wide(columns: Any) -> Any:
    """Arrays in double precision; whole numbers stay such."""

    def wide(x: Any) -> Any:
        x = np.asarray(x)
        return jnp.asarray(x, float) if x.dtype.kind == "f" else jnp.asarray(x)

    return jax.tree.map(wide, columns)
