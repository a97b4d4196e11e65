"""Data that are read a piece at a time, because they are larger than memory; minibatches."""

from taut.data.feeds import AbstractFeed, Batch, InMemory
from taut.data.host import HostBatches
from taut.data.make import make_feed
from taut.data.sources import AbstractBlockSource, AbstractSource, Batches, Parquet
from taut.data.streamed import Streamed

__all__ = [
    "AbstractBlockSource",
    "AbstractFeed",
    "AbstractSource",
    "Batch",
    "Batches",
    "HostBatches",
    "InMemory",
    "Parquet",
    "Streamed",
    "make_feed",
]
