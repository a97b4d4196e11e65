"""Compiling ahead of need, in another thread: XLA works without the interpreter's lock."""

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

from taut._core.precision import double_precision

_POOL = ThreadPoolExecutor(max_workers=1, thread_name_prefix="taut-compile")


def compile_soon(jitted: Any, *args: Any) -> "Future[Callable[..., Any]]":
    """Compile a jitted function for these arguments (or their shapes) in the background.

    Args:
        jitted: a function made by ``jax.jit``.
        *args: its arguments, static ones included.

    Returns:
        A future of the compiled function, which takes the arguments that are not static.
    """

    def work() -> Callable[..., Any]:
        with double_precision():
            return jitted.lower(*args).compile()

    return _POOL.submit(work)
