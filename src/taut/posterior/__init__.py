"""The result of a fit, and reading it back."""

from taut.posterior.result import Posterior
from taut.posterior.storage import load

__all__ = ["Posterior", "load"]
