"""Where a run is: all that its decisions depend on beside the arrays."""

import dataclasses
from typing import Any, NamedTuple


class Look(NamedTuple):
    """The mean of some steps, an epoch at least where epochs are short.

    Attributes:
        step: how many steps were taken.
        epoch: the same in passes over the data.
        loss: mean of the objective over the look's steps, nats per row.
        validation: the objective on the validation data; NaN where there are none.
        seconds: since the fit began.
    """

    step: int
    epoch: float
    loss: float
    validation: float
    seconds: float


@dataclasses.dataclass(frozen=True)
class Course:
    """Where a run is. JSON can hold it.

    Attributes:
        looks: so far.
        pending: losses since the last look.
        decay: first step and end of the cool-down.
        factor: of the rate, after retreats.
        skipped: steps that moved nothing.
        first_skip: the first of them; -1 where there is none.
        best: look with the lowest validation loss; -1 before any.
        status: name of why the run ended; "" while it goes on.
    """

    looks: tuple[Look, ...] = ()
    pending: tuple[float, ...] = ()
    decay: tuple[int, int] | None = None
    factor: float = 1.0
    skipped: int = 0
    first_skip: int = -1
    best: int = -1
    status: str = ""


def course_of(stored: dict[str, Any]) -> Course:
    """The course that JSON gave back."""
    looks = tuple(Look(*x) for x in stored["looks"])
    decay = tuple(stored["decay"]) if stored["decay"] is not None else None
    return Course(**{**stored, "looks": looks, "pending": tuple(stored["pending"]), "decay": decay})
