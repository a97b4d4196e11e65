r"""Priors over weights: independent Gaussians whose scale follows the weight's shape and place.

The mean is zero, but one for a weight that the module starts at ones throughout, such as the gain
of a normalisation layer.
"""

import abc
import dataclasses
import math
from collections.abc import Sequence
from typing import ClassVar, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array
from typing_extensions import override

from taut._core.errors import ArgumentError
from taut.networks.architecture import Architecture


class PriorScale(NamedTuple):
    """The prior of one weight: independent Gaussians of one mean and one sd.

    Attributes:
        mean: of every element.
        scale: standard deviation of every element; where it is learned, the one to begin with.
        learned: whether the scale maximises the ELBO.
    """

    mean: float
    scale: float
    learned: bool

    def variance(self, mean: Array, scale: Array) -> Array:
        """The prior variance for a Gaussian posterior of that mean and sd, ().

        A learned one is the maximiser of the ELBO, E_q[mean of (w - prior mean)^2], held fixed:
        there the bound is flat in it.
        """
        if not self.learned:
            return jnp.asarray(self.scale**2, mean.dtype)
        return jax.lax.stop_gradient(jnp.mean((mean - self.mean) ** 2 + scale**2))


class AbstractWeightPrior(abc.ABC):
    """Frozen settings of the prior over all weights."""

    name: ClassVar[str]

    @abc.abstractmethod
    def scales(self, architecture: Architecture) -> tuple[PriorScale, ...]:
        """The prior of each weight."""


def _check_positive(**values: float) -> None:
    for name, value in values.items():
        if not (value > 0 and math.isfinite(value)):
            raise ArgumentError(f"{name} must be positive and finite, got {value}")


@dataclasses.dataclass(frozen=True)
class FanIn(AbstractWeightPrior):
    r"""N(0, scale^2 / fan-in) for what multiplies inputs, N(0, bias_scale^2) for the rest.

    The variance of a unit's input is then the same for layers of any width (Neal 1996).

    Attributes:
        scale: sd of a pre-activation whose inputs have variance one; positive. With 1, units of a
            mean field are given up that held-out data would keep; 2 did better or as well on rows
            held out of the training rows of three regression sets.
        bias_scale: sd of biases and of all weights that multiply no input; positive.
        learned: fit the scale of every weight that multiplies inputs by maximising the ELBO
            (empirical Bayes); ``scale`` is then without effect on them.
    """

    scale: float = 2.0
    bias_scale: float = 1.0
    learned: bool = False
    name: ClassVar[str] = "fan_in"

    def __post_init__(self) -> None:
        """Check the scales."""
        _check_positive(scale=self.scale, bias_scale=self.bias_scale)

    @override
    def scales(self, architecture: Architecture) -> tuple[PriorScale, ...]:
        found = []
        for use, initial in zip(architecture.uses, architecture.initial, strict=True):
            scale = self.scale / math.sqrt(use.fan_in) if use.fan_in else self.bias_scale
            found.append(PriorScale(_mean(initial), scale, self.learned and bool(use.fan_in)))
        return tuple(found)


@dataclasses.dataclass(frozen=True)
class Isotropic(AbstractWeightPrior):
    """N(0, scale^2) for every weight.

    Attributes:
        scale: standard deviation; positive.
        learned: fit one scale for each weight array that multiplies inputs by maximising the ELBO.
    """

    scale: float = 1.0
    learned: bool = False
    name: ClassVar[str] = "isotropic"

    def __post_init__(self) -> None:
        """Check the scale."""
        _check_positive(scale=self.scale)

    @override
    def scales(self, architecture: Architecture) -> tuple[PriorScale, ...]:
        parts = zip(architecture.uses, architecture.initial, strict=True)
        return tuple(
            PriorScale(_mean(x), self.scale, self.learned and bool(use.fan_in)) for use, x in parts
        )


def _mean(initial: Array) -> float:
    return 1.0 if bool(jnp.all(initial == 1.0)) else 0.0


def divergence(
    priors: Sequence[PriorScale], means: Sequence[Array], scales: Sequence[Array]
) -> Array:
    """KL divergence of independent Gaussians from the prior, in nats, ()."""
    terms = []
    for prior, mean, scale in zip(priors, means, scales, strict=True):
        variance = prior.variance(mean, scale)
        excess = ((mean - prior.mean) ** 2 + scale**2) / variance - 1.0
        terms.append(0.5 * jnp.sum(excess + jnp.log(variance) - 2.0 * jnp.log(scale)))
    return jnp.asarray(sum(terms[1:], terms[0]) if terms else 0.0)


def log_density(priors: Sequence[PriorScale], weights: Sequence[Array]) -> Array:
    """Log prior density of weights, in nats, ()."""
    terms = []
    for prior, w in zip(priors, weights, strict=True):
        z = (w - prior.mean) / prior.scale
        constant = 0.5 * math.log(2 * math.pi) + math.log(prior.scale)
        terms.append(-jnp.sum(0.5 * z**2 + constant))
    return jnp.asarray(sum(terms[1:], terms[0]) if terms else 0.0)


PRIORS = {"fan_in": FanIn, "isotropic": Isotropic}
