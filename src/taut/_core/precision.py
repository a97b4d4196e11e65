"""Precision is a scope, never a global switch."""

import contextlib
from collections.abc import Iterator

import jax


@contextlib.contextmanager
def double_precision() -> Iterator[None]:
    """Run the body with float64 enabled and leave the user's setting as it was.

    Matrix products keep full precision on accelerators, whose reduced defaults ruin
    Hessians and ELBO differences.
    """
    with jax.enable_x64(True), jax.default_matmul_precision("highest"):
        yield
