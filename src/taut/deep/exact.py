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
        count = objective.num_rows
        batch = Batch(_wide(columns), jnp.ones(count), jnp.arange(count))

        @jax.jit
        def value_and_grad(u: Any, batch: Batch) -> Any:
            def loss(u: Any) -> Any:
                return objective(unravel(u), batch, jax.random.key(0), jnp.zeros((), int))[0]

            return jax.value_and_grad(loss)(u)

        looks: list[Look] = []

        def evaluated(u: np.ndarray) -> tuple[float, np.ndarray]:
            value, grad = value_and_grad(jnp.asarray(u), batch)
            looks.append(
                Look(len(looks) + 1, len(looks) + 1.0, float(value), np.nan, watch.seconds)
            )
            return float(value), np.asarray(grad)

        def stop(u: np.ndarray) -> None:
            watch.report("mode", steps=len(looks), **{"log density": -looks[-1].loss * count})
            if watch.over:
                raise StopIteration

        first, _ = evaluated(np.asarray(start))
        if not np.isfinite(first):
            raise ModelError(
                f"the log density is {first} at the start, where parameters have their initial values and "
                "latents the middle of their support; look for log(0) or data outside of a distribution's support"
            )
        options = {"maxiter": MOST_STEPS, "gtol": 1e-9}
        found = minimize(
            evaluated, np.asarray(start), jac=True, method="BFGS", callback=stop, options=options
        )
        value, grad = evaluated(found.x)
        fitted = jax.tree.map(np.asarray, unravel(jnp.asarray(found.x)))
    status = (
        Status.CONVERGED if np.abs(grad).max() < 1e-5 * max(1.0, abs(value)) else Status.STALLED
    )
    if watch.over:
        status = Status.INTERRUPTED if watch.interrupted else Status.BUDGET
    return Trained(
        fitted, status, tuple(looks), len(looks), 0, (), 0.0, time.perf_counter() - began
    )


def _wide(columns: Any) -> Any:
    """Arrays in double precision; whole numbers stay such."""

    def wide(x: Any) -> Any:
        x = np.asarray(x)
        return jnp.asarray(x, float) if x.dtype.kind == "f" else jnp.asarray(x)

    return jax.tree.map(wide, columns)
