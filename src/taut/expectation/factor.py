r"""What an expectation needs to know of q: factors and their moments.

A factor is an exponential family :math:`q(x) = \exp(\eta^\top T(x) - A(\eta))` over all elements
of one latent, with carrier measure 1, so that the optimum of the ELBO over it, others fixed, has
the natural parameter :math:`\eta = \partial F / \partial \mu`, where F is the expected log joint
and :math:`\mu = E[T(x)]` the mean parameter.
"""

import abc
from typing import Any

import equinox as eqx
from jaxtyping import Array

Parameters = tuple[Array, ...]


class AbstractFactor(eqx.Module):
    r"""q of one latent with an array of independent elements, in the latent's own support.

    Both parameters are leaves. Moments of the sufficient statistics are read off ``mean``, all
    others are computed from ``natural``; so the gradient of an expectation with respect to
    ``mean`` is exact where the model is conjugate, and what arrives at ``natural`` is pulled over
    by the inverse Fisher information (:meth:`gradient`).

    Attributes:
        natural: natural parameters, one array per sufficient statistic.
        mean: mean parameters, of the same shapes.
    """

    natural: eqx.AbstractVar[Parameters]
    mean: eqx.AbstractVar[Parameters]

    @property
    @abc.abstractmethod
    def shape(self) -> tuple[int, ...]:
        """Shape of the latent."""

    @classmethod
    @abc.abstractmethod
    def from_natural(cls, natural: Parameters) -> "AbstractFactor":
        """The member with these natural parameters."""

    def with_natural(self, natural: Parameters) -> "AbstractFactor":
        """The member of the same family with these natural parameters."""
        return type(self).from_natural(natural)

    @abc.abstractmethod
    def is_proper(self) -> Array:
        """Whether the natural parameters are those of a normalisable q: one boolean."""

    @abc.abstractmethod
    def gradient(self, cotangent: Any) -> Parameters:
        """Turn a cotangent of this module into the gradient with respect to the mean parameter.

        ``cotangent.mean + inverse Fisher information @ cotangent.natural``; its value at the
        optimum of the ELBO is the natural parameter itself.
        """

    @property
    @abc.abstractmethod
    def entropy(self) -> Array:
        """Entropy summed over all elements, nats."""

    @abc.abstractmethod
    def log_prob(self, value: Array) -> Array:
        """Log density (or mass) of one value of the whole latent, summed over its elements."""

    @abc.abstractmethod
    def sample(self, key: Array, num_draws: int) -> Array:
        """Draws, shape (num_draws, *shape)."""


class AbstractContinuous(AbstractFactor):
    """A factor over a latent with elements of one sign, of either sign, or a matrix."""

    @property
    def kind(self) -> str:
        """What elements are: "positive" (they have logarithms), "signed" or "matrix"."""
        return "positive"

    @property
    def is_unit(self) -> bool:
        """Whether all elements lie between 0 and 1."""
        return False

    @abc.abstractmethod
    def moment(self, power: float, logs: int, copower: float, cologs: int) -> Array | None:
        """Elementwise E[x^power log(x)^logs (1-x)^copower log(1-x)^cologs], of the latent's shape.

        None where it has no closed form here; then it is integrated on :meth:`grid`.
        """

    @abc.abstractmethod
    def grid(self, num_points: int) -> tuple[Array, Array] | None:
        """Points and probabilities for integrating any function of one element.

        Both of shape (num_points, *shape); the points carry no gradient, the probabilities do
        (through ``natural``). None where elements are not scalar (a matrix).
        """


class AbstractDiscrete(AbstractFactor):
    """A factor over integers 0 ... K-1."""

    @property
    @abc.abstractmethod
    def probs(self) -> Array:
        """Probabilities, shape (*shape, K); a mean parameter."""

    @property
    @abc.abstractmethod
    def log_normalizer(self) -> Array:
        """Log of the sum of exp(natural parameter . statistic) over all values, nats.

        One element for each independent part.
        """


class AbstractChain(AbstractDiscrete):
    """A factor over a sequence of integers that keeps the dependence of neighbours."""

    @property
    @abc.abstractmethod
    def pairs(self) -> Array:
        """Joint probabilities of neighbours, shape (*shape[:-1], T - 1, K, K); a mean parameter."""
