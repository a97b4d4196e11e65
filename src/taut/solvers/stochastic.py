"""Settings of stochastic gradients, for what has no natural geometry: networks, encoders."""

import dataclasses

from taut._core.errors import ArgumentError
from taut.bounds import AbstractBound
from taut.data.feeds import check_batch_size
from taut.training import Optimisers, Training


@dataclasses.dataclass(frozen=True)
class Stochastic:
    """Stochastic gradients of a bound over minibatches, with Optax.

    Left to itself it chooses the rate's course and when to stop; see :class:`taut.training.Training`.

    Attributes:
        batch_size: rows in a minibatch; None takes 128, or all rows where they are fewer than 512.
        epochs: passes over the data; None until the bound's rise is lost in its noise.
        optimiser: "adam", "schedule-free", "prodigy", "sgd", an Optax optimiser, or a mapping
            ``{"model": ..., "guide": ...}`` with one for each.
        learning_rate: of an optimiser by name; None takes the usual one.
        bound: None is :class:`taut.bounds.ELBO`; or another of :mod:`taut.bounds`, whose
            ``estimator`` says how gradients of each site are estimated.
        kl_warmup: epochs in which the divergence's weight rises from nearly 0 to 1 (Bowman et al.
            2016), against posterior collapse.
        free_bits: nats of divergence per latent dimension, averaged over the rows, below which it
            costs nothing (Kingma et al. 2016).
        averaging: evaluate an average of the last iterates.
        patience: with validation data, epochs without a better bound after which it ends.
        max_steps: steps after which a run without ``epochs`` ends.
    """

    batch_size: int | None = None
    epochs: int | None = None
    optimiser: Optimisers = "adam"
    learning_rate: float | None = None
    bound: AbstractBound | None = None
    kl_warmup: float | int = 0
    free_bits: float | int = 0
    averaging: bool = True
    patience: int | None = None
    max_steps: int = 50_000

    def __post_init__(self) -> None:
        """Check the settings."""
        if self.batch_size is not None:
            check_batch_size(self.batch_size)
        for name in ("kl_warmup", "free_bits"):
            if not getattr(self, name) >= 0:
                raise ArgumentError(f"{name} must be at least 0, got {getattr(self, name)}")
        if self.bound is not None and not isinstance(self.bound, AbstractBound):
            raise ArgumentError(
                f"bound must be one of taut.bounds, such as bounds.ELBO(), got {type(self.bound).__name__}"
            )
        self.training  # noqa: B018 - checks the rest

    @property
    def training(self) -> Training:
        """How long to train, and with what."""
        return Training(
            epochs=self.epochs,
            optimiser=self.optimiser,
            learning_rate=self.learning_rate,
            averaging=self.averaging,
            patience=self.patience,
            max_steps=self.max_steps,
        )

    def describe(self) -> str:
        """A few words for the plan."""
        bound = "ELBO" if self.bound is None else type(self.bound).__name__
        return f"stochastic gradients of the {bound}: {self.training.describe()}"
