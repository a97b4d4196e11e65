"""Expectations under q. Here: fixed quasi-random draws; the base of every other estimate."""

from taut.expectation.draws import fixed_normals, matched_normals

__all__ = ["fixed_normals", "matched_normals"]
