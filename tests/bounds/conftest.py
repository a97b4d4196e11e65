"""Bounds follow the precision of what they are given; their truths want 64 bits."""

import pytest

from taut._core.precision import double_precision


@pytest.fixture(autouse=True)
def _double_precision():
    with double_precision():
        yield
