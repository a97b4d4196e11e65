"""Why a run ended. Each value is the message shown to the user."""

import enum


class Status(enum.Enum):
    """Why an iterative run ended; the value is its message."""

    CONVERGED = "converged: the predicted gain fell below the tolerance"
    STALLED = "stalled: no step raised the ELBO although a gain was predicted"
    MAX_STEPS = "stopped at the largest number of steps before converging"
    BUDGET = "stopped by the time budget before converging; the best so far is kept"
    INTERRUPTED = "interrupted from the keyboard; the best so far is kept"
    NONFINITE = "met values that are not finite and could not step around them"
    SETTLED = "converged: the rise of the bound is lost in its noise"
    COMPLETED = "done: all epochs that were asked for"
    EARLY_STOP = "done: the validation bound no longer rises; the best is kept"
    INDEFINITE = "the negative Hessian at the mode is not positive definite"

    @property
    def ok(self) -> bool:
        """True if the run ended because it was done."""
        return self in (
            Status.CONVERGED,
            Status.SETTLED,
            Status.COMPLETED,
            Status.EARLY_STOP,
        )
