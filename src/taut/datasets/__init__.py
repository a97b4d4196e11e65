"""Small real data sets for demonstrations and documentation."""

from taut.datasets._baseball import baseball

__all__ = ["baseball"]
