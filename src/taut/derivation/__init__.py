"""The derivation of a model's variational updates and bound, shown for that very model."""

from taut.derivation.derivation import Derivation
from taut.derivation.derive import derivation_of, derive

__all__ = ["Derivation", "derivation_of", "derive"]
