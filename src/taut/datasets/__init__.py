"""Small real data sets for demonstrations and documentation; reading the user's own."""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from taut.datasets._baseball import baseball as baseball

__all__ = ["baseball"]


def __getattr__(name: str) -> Any:
    """Load a data set on first use, so that the command line starts without NumPy."""
    if name not in __all__:
        raise AttributeError(f"module 'taut.datasets' has no attribute {name!r}")
    return getattr(importlib.import_module("taut.datasets._baseball"), name)
