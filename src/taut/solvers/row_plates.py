"""Plates of a fixed size, run with fewer rows: ``plate("rows", 5000)`` beside data of any length."""

import functools
from collections.abc import Callable
from typing import Any

import jax.numpy as jnp
import numpy as np
from numpyro.primitives import Messenger


class Resized(Messenger):
    """Handler that runs plates of one size at another, without the scale that NumPyro then adds.

    Whoever uses it counts the rows himself, so the scale would be applied twice.

    Attributes:
        count: size of the plates.
        size: what they are run at.
        names: the plates, as they are met.
    """

    def __init__(self, count: int, size: int) -> None:
        super().__init__(None)
        self.count, self.size = count, size
        self.names: set[str] = set()

    def process_message(self, msg: dict[str, Any]) -> None:
        """Resize a plate; take back its scale from a site within."""
        if msg["type"] == "plate" and msg["args"][0] == self.count:
            self.names.add(msg["name"])
            msg["args"], msg["value"] = (self.size, self.size), jnp.arange(self.size)
        elif msg["type"] == "sample":
            inside = [f for f in msg["cond_indep_stack"] if f.name in self.names]
            if inside and msg["scale"] is not None:
                scale = msg["scale"] * (self.size / self.count) ** len(inside)
                alone = isinstance(scale, float) and np.isclose(scale, 1.0, rtol=1e-12)
                msg["scale"] = None if alone else scale


def resizing(function: Callable[..., Any], count: int, size: int) -> Callable[..., Any]:
    """The function with plates of size ``count`` run at ``size`` in any model that it runs."""

    @functools.wraps(function)
    def resized(*args: Any, **kwargs: Any) -> Any:
        with Resized(count, size):
            return function(*args, **kwargs)

    return resized
