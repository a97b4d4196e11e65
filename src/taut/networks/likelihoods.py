r"""Likelihoods: the distribution of a target given the module's output for its row.

Regressions see targets that were standardised; what they say of them is undone by the caller. All
methods are for one row, and are mapped over rows and draws.
"""

import abc
from typing import ClassVar

import numpy as np
from jaxtyping import Array

from taut._core.errors import DataError
from taut.networks.propagate import Gaussian, root

Params = dict[str, Array]


class AbstractLikelihood(abc.ABC):
    """Frozen settings of p(target | output).

    Attributes:
        name: of its class in messages and tables.
        standardised: whether targets are real numbers, shifted and scaled before training.
        separable: whether the log probability is a sum of functions of one output each, so that
            its mean over Gaussian outputs does not depend on their covariances.
    """

    name: ClassVar[str]
    standardised: ClassVar[bool] = False
    separable: ClassVar[bool] = True

    @abc.abstractmethod
    def targets(self, y: np.ndarray, output_shape: tuple[int, ...]) -> np.ndarray:
        """Check the targets against the module's output, and bring them into one form.

        Args:
            y: targets, one row each.
            output_shape: of the module for one datum.

        Raises:
            DataError: if a target is outside the support; names the row.
            ModelError: if the output has the wrong shape.
        """

    @abc.abstractmethod
    def start(self, y: np.ndarray, scale: np.ndarray) -> tuple[Params, Params]:
        """Parameters of its own to begin with: those that are learned, and those that are known.

        Args:
            y: standardised targets.
            scale: what they were divided by.
        """

    @abc.abstractmethod
    def log_prob(self, output: Array, y: Array, params: Params) -> Array:
        """Log probability of a row's target, in nats, ()."""

    @abc.abstractmethod
    def expected_log_prob(self, output: Gaussian, y: Array, params: Params, noise: Array) -> Array:
        """Mean of ``log_prob`` over a Gaussian output, in closed form or by one draw, in nats, ().

        Args:
            output: independent Gaussians.
            y: the row's target.
            params: of the likelihood.
            noise: standard normal numbers in the shape of the output, for a draw.
        """

    @abc.abstractmethod
    def fisher(self, output: Array, params: Params) -> Array:
        """Fisher information of the flattened output, (outputs, outputs).

        It is the negative Hessian of the log probability where that does not depend on the target
        (generalised Gauss-Newton), and its mean over targets elsewhere.
        """

    @abc.abstractmethod
    def sample(self, output: Array, params: Params, key: Array) -> Array:
        """Draw a target."""


class AbstractRegression(AbstractLikelihood):
    """A likelihood of numbers, with a mean and a variance."""

    @abc.abstractmethod
    def mean(self, output: Array, params: Params) -> Array:
        """Mean of the target, in its shape."""

    @abc.abstractmethod
    def variance(self, output: Array, params: Params) -> Array:
        """Variance of the target, in its shape."""

    @abc.abstractmethod
    def cdf(self, output: Array, y: Array, params: Params) -> Array:
        """Probability of at most ``y``, for each element of the target."""


class AbstractClassification(AbstractLikelihood):
    """A likelihood of labels."""

    @abc.abstractmethod
    def log_proba(self, output: Array) -> Array:
        """Log probabilities of the labels, (classes,)."""


def drawn(output: Gaussian, noise: Array) -> Array:
    """A draw of Gaussian outputs."""
    return output.mean + root(output.variance) * noise


def check_rows(values: np.ndarray, valid: np.ndarray, rule: str) -> None:
    """Raise a DataError that names the first row with a value that is not valid."""
    if not valid.all():
        at = np.argwhere(~valid)[0]
        raise DataError(
            f"y: each target must be {rule}, and row {at[0]} is {values[tuple(at)]:g}; "
            f"{np.sum(~valid)} of {valid.size} break the rule"
        )
