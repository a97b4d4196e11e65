"""Settings of a training run."""

import dataclasses

from taut._core.errors import ArgumentError
from taut.training.optimisers import Optimisers


@dataclasses.dataclass(frozen=True)
class Training:
    """How long to train, and with what.

    Without ``epochs`` the rate warms up and stays until the objective's drift is lost in its
    noise; then it falls to zero over a fifth of the steps so far, and the run is done. With
    ``epochs`` it warms up and falls along a cosine to zero at their end.

    Attributes:
        epochs: passes over the data; None lets the stopping rule decide.
        optimiser: "adam", "schedule-free", "prodigy", "sgd", an Optax optimiser, or a mapping
            with one for each top-level part of the parameters.
        learning_rate: of an optimiser by name; None takes the usual one.
        averaging: evaluate an average of the last iterates (Polyak and Juditsky 1992) in place
            of the last; its window grows with the run.
        patience: with validation data, epochs without a better validation bound after which the
            run ends; None takes 10 or a fifth of the epochs so far, whichever is more.
        max_steps: steps after which a run without ``epochs`` ends in any case.
    """

    epochs: int | None = None
    optimiser: Optimisers = "adam"
    learning_rate: float | None = None
    averaging: bool = True
    patience: int | None = None
    max_steps: int = 50_000

    def __post_init__(self) -> None:
        """Check the numbers."""
        for name in ("epochs", "patience", "max_steps"):
            value = getattr(self, name)
            if value is None and name != "max_steps":
                continue
            if isinstance(value, bool) or not isinstance(value, int) or value < 1:
                raise ArgumentError(f"{name} must be a whole number of at least 1, got {value!r}")
        if self.learning_rate is not None and not self.learning_rate > 0:
            raise ArgumentError(f"learning_rate must be positive, got {self.learning_rate}")

    def describe(self) -> str:
        """A few words for the plan."""
        name = self.optimiser if isinstance(self.optimiser, str) else "Optax optimiser"
        until = f"{self.epochs} epochs" if self.epochs else "until its drift is lost in noise"
        return f"{name}, {until}"
