"""Rows of data for a network: checked, standardised, in the network's precision."""

import dataclasses
from typing import Any

import numpy as np

from taut._core.errors import ArgumentError, DataError


@dataclasses.dataclass(frozen=True, eq=False)
class Scaling:
    """Shifts and scales of inputs and targets, from the training rows.

    Attributes:
        x_shift: mean of each input; zero where inputs are left as they are.
        x_scale: sd of each input; one where it is constant, or inputs are left as they are.
        y_shift: mean of each number of a target.
        y_scale: sd of each number of a target.
    """

    x_shift: np.ndarray
    x_scale: np.ndarray
    y_shift: np.ndarray
    y_scale: np.ndarray

    def inputs(self, x: np.ndarray, dtype: Any) -> np.ndarray:
        """Standardised inputs in the network's precision; whole numbers stay as they are."""
        if np.issubdtype(x.dtype, np.integer) and not self.x_shift.ndim:
            return x.astype(np.int32)
        return ((x - self.x_shift) / self.x_scale).astype(dtype)

    def targets(self, y: np.ndarray, dtype: Any) -> np.ndarray:
        """Standardised targets; labels stay as they are."""
        if np.issubdtype(y.dtype, np.integer):
            return y
        return ((y - self.y_shift) / self.y_scale).astype(dtype)

    @property
    def log_density(self) -> float:
        """Added to a target's log density on the standardised scale to have it on its own."""
        return -float(np.sum(np.log(self.y_scale)))


def find_scaling(
    x: np.ndarray, y: np.ndarray, inputs: bool, targets: bool, unscaled: tuple[int, ...] = ()
) -> Scaling:
    """Means and sds of the training rows.

    Args:
        x: inputs, (rows, ...).
        y: targets, (rows, k) or labels (rows,).
        inputs: whether inputs are to be standardised.
        targets: whether targets are.
        unscaled: columns of the inputs that are left as they are.

    Raises:
        ArgumentError: if there is no such column.
    """
    x_shift, x_scale = _moments(x) if inputs else (np.zeros(()), np.ones(()))
    for column in unscaled:
        if x.ndim != 2 or not 0 <= column < x.shape[1]:
            raise ArgumentError(
                f"unscaled: x has rows of shape {x.shape[1:]}, and no column {column}"
            )
        if inputs:
            x_shift[column], x_scale[column] = 0.0, 1.0
    y_shift, y_scale = _moments(y) if targets else (np.zeros(()), np.ones(()))
    return Scaling(x_shift, x_scale, y_shift, y_scale)


def _moments(rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    mean, sd = rows.mean(0, dtype=float), rows.std(0, dtype=float)
    # A constant column differs from its mean by rounding only.
    constant = sd <= 1e-12 * np.maximum(np.abs(mean), 1e-300)
    return mean, np.where(constant, 1.0, sd)


def check_inputs(x: Any, name: str = "x", row_shape: tuple[int, ...] | None = None) -> np.ndarray:
    """Inputs as an array with finite numbers and at least one row.

    Args:
        x: array-like, one row for each datum.
        name: of the argument, for messages.
        row_shape: that a row must have; None takes any.

    Raises:
        DataError: otherwise; names the first row that breaks the rule.
    """
    array = _numbers(x, name)
    if row_shape is not None and array.shape[1:] != row_shape:
        raise DataError(
            f"{name} must have rows of shape {row_shape}, as in training, got {array.shape[1:]}"
        )
    return array


def check_targets(y: Any, num_rows: int, name: str = "y") -> np.ndarray:
    """Targets as an array with one finite entry for each row of inputs.

    Raises:
        DataError: otherwise.
    """
    array = _numbers(y, name)
    if len(array) != num_rows:
        raise DataError(f"x has {num_rows} rows and {name} has {len(array)}; they must agree")
    return array


def _numbers(values: Any, name: str) -> np.ndarray:
    array = np.asarray(values)
    if array.dtype == object or not (np.issubdtype(array.dtype, np.number) or array.dtype == bool):
        raise DataError(f"{name} must hold numbers, got an array of {array.dtype}")
    if np.issubdtype(array.dtype, np.complexfloating):
        raise DataError(f"{name} must hold real numbers, got complex ones")
    if array.ndim == 0 or not len(array):
        raise DataError(f"{name} has no rows: its shape is {array.shape}")
    array = array.astype(np.int64) if array.dtype == bool else array
    bad = ~np.isfinite(array).reshape(len(array), -1).all(1)
    if bad.any():
        raise DataError(
            f"{name}: row {int(np.argmax(bad))} holds NaN or an infinity, as do {int(bad.sum())} rows in all; "
            "remove or impute them first"
        )
    return array
