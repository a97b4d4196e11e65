"""Small runs whose answers are known."""

import jax.numpy as jnp
import numpy as np

from taut._core.progress import Watch
from taut.data.feeds import InMemory
from taut.training import Training, train

ROWS = 230
RNG = np.random.default_rng(0)
X = RNG.normal(size=(ROWS, 4)).astype(np.float32)
Y = (X @ np.array([1.0, -2.0, 0.5, 3.0]) + 0.3 * RNG.normal(size=ROWS)).astype(np.float32)
LEAST_SQUARES = np.linalg.lstsq(X.astype(float), Y.astype(float), rcond=None)[0]


def squares(params, batch, key, step):
    """Mean squared error over all rows, estimated from a batch."""
    residual = batch.columns["x"] @ params["w"] - batch.columns["y"]
    return jnp.sum(batch.weight * residual**2) / ROWS, {}


def start():
    return {"w": jnp.zeros(4)}


def feed(batch_size=32, seed=0):
    return InMemory({"x": X, "y": Y}, batch_size, seed)


def run(settings=None, objective=squares, batch_size=32, callbacks=(), budget=None, **options):
    with Watch(budget, False, callbacks) as watch:
        return train(
            objective, start(), feed(batch_size), settings or Training(), 0, watch, **options
        )
