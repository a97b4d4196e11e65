"""Families of deep models: encoders for latents of rows, and points."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

from typing_extensions import override

from taut._core.errors import ArgumentError, listing
from taut.families.specs import AbstractFamily


@dataclasses.dataclass(frozen=True, eq=False)
class Amortised(AbstractFamily):
    """q(z | x) by networks for latents of rows; the others get Gaussians (mean field).

    Attributes:
        encoders: latent -> network of one datum. One that ends in twice as many numbers as the
            latent has gives a diagonal Gaussian in unconstrained space, for labels it gives their
            logits; a head of :mod:`taut.deep` says otherwise, such as ``deep.FullGaussian(net)``.
        inputs: latent -> what its network is called with, names of the model's arguments and of
            other latents; None where the model has one argument with rows.
        supervise: partly observed label -> weight of log q(label | x) on rows that have it, beside
            the bound (Kingma et al. 2014, equation 9, whose alpha times N it is per labelled row).
    """

    encoders: Mapping[str, Any]
    inputs: Mapping[str, str | Sequence[str]] | None = None
    supervise: Mapping[str, float] | None = None

    def __post_init__(self) -> None:
        """Check what can be checked without the model."""
        if not isinstance(self.encoders, Mapping) or not self.encoders:
            raise ArgumentError(
                f"encoders must be a mapping from latents to networks, got {type(self.encoders).__name__}"
            )
        for name, net in self.encoders.items():
            if not callable(net):
                raise ArgumentError(
                    f"encoders['{name}'] must be a network that can be called on one datum, got {type(net).__name__}"
                )
        for what in ("inputs", "supervise"):
            for name in getattr(self, what) or {}:
                if name not in self.encoders:
                    raise ArgumentError(
                        f"{what} has '{name}', which has no encoder; there are {listing(self.encoders)}"
                    )

    @override
    def describe(self) -> str:
        return f"amortised: q({', '.join(self.encoders)} | data) by networks"


@dataclasses.dataclass(frozen=True)
class Point(AbstractFamily):
    """One value of every latent: maximum a posteriori, in the model's own space.

    The mode of the density with respect to the latents as the model writes them: no Jacobian of a
    change of variables takes part. Without latents it is maximum likelihood of the parameters.
    """

    @override
    def describe(self) -> str:
        return "point (maximum a posteriori)"
