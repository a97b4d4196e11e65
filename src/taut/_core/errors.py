"""Errors that name the argument or the site, the rule, the value they got and what to try."""

import difflib
from collections.abc import Iterable


class TautError(Exception):
    """Base of every error that taut raises on purpose."""


class ArgumentError(TautError, ValueError):
    """An argument of a public function breaks its rule."""


class DataError(TautError, ValueError):
    """The data cannot be used with the model."""


class ModelError(TautError, ValueError):
    """The model cannot be used for inference."""


class StartError(ModelError):
    """The log joint density is not finite at any start."""


class ImproperPosteriorError(ModelError):
    """The posterior cannot be normalised: a direction is unbounded or unidentified."""


class UnsupportedError(TautError, TypeError):
    """A thing of a kind that taut does not handle here."""


class DoubtError(TautError, RuntimeError):
    """The verdict is bad and ``on_doubt="raise"`` was asked for; carries the posterior.

    Attributes:
        posterior: the result that earned the bad verdict.
    """

    def __init__(self, message: str, posterior: object) -> None:
        super().__init__(message)
        self.posterior = posterior


class FileError(TautError, OSError):
    """A saved posterior cannot be read."""


def nearest(name: str, known: Iterable[str]) -> str:
    """Return ", did you mean 'x'?" for the known name closest to ``name``, or an empty string."""
    by_lower = {k.lower(): k for k in known}
    close = difflib.get_close_matches(name.lower(), list(by_lower), n=1, cutoff=0.5)
    return f", did you mean '{by_lower[close[0]]}'?" if close else ""


def listing(names: Iterable[str], limit: int = 12) -> str:
    """Return names quoted and joined by commas, cut after ``limit`` of them."""
    names = list(names)
    shown = ", ".join(f"'{n}'" for n in names[:limit])
    return (
        shown + (f" and {len(names) - limit} more" if len(names) > limit else "")
        if names
        else "none"
    )


class SolverError(TautError, RuntimeError):
    """A solver broke a rule that it must keep; a fault of the library, not of the model."""
