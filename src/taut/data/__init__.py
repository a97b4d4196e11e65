"""Data that are read a piece at a time, because they are larger than memory."""

from taut.data.sources import AbstractSource, Batches, Parquet

__all__ = ["AbstractSource", "Batches", "Parquet"]
