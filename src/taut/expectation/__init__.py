"""Expectations under q: a transformation of functions of latents.

The module is itself the transformation: ``taut.expectation(f, q)``; see
:func:`taut.expectation.transform.expectation`.
"""

import sys
import types
from typing import TYPE_CHECKING, Any

from taut.expectation.draws import fixed_normals, matched_normals

if TYPE_CHECKING:
    from taut.expectation.transform import Expectation


class _Callable(types.ModuleType):
    """A module that is called like the function that it is named after."""

    def __call__(self, function: Any, q: Any) -> "Expectation":
        from taut.expectation.transform import expectation

        return expectation(function, q)


sys.modules[__name__].__class__ = _Callable

__all__ = ["fixed_normals", "matched_normals"]
