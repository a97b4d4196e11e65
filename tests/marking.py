"""Marks for cases of a parametrised test."""

from collections.abc import Iterable
from typing import Any

import pytest


def slow_but(cases: Iterable[Any], *quick: Any) -> list[Any]:
    """The cases; all but the quick ones are slow."""
    return [c if c in quick else pytest.param(c, marks=pytest.mark.slow) for c in cases]
