"""Arguments that are given by name, or as an object with settings."""

from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from taut._core.errors import ArgumentError, listing, nearest

T = TypeVar("T")


def by_name(argument: str, value: Any, kind: type[T], named: Mapping[str, Callable[[], T]]) -> T:
    """The object that a name stands for; objects are left alone.

    Args:
        argument: its name, for messages.
        value: a name or an object.
        kind: class of such objects.
        named: name -> what makes the object with its usual settings.

    Raises:
        ArgumentError: if there is none of that name, or it is neither.
    """
    if isinstance(value, kind):
        return value
    if not isinstance(value, str):
        got = (
            f"the class {value.__name__}; make an object of it, {value.__name__}()"
            if isinstance(value, type)
            else type(value).__name__
        )
        raise ArgumentError(
            f"{argument} must be one of {listing(named)} or an object of taut.networks, got {got}"
        )
    if value not in named:
        raise ArgumentError(
            f"{argument}: no '{value}'{nearest(value, named) or '.'} There are {listing(named)}"
        )
    return named[value]()
