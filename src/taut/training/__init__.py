"""Stochastic optimisation that needs no tuning: minibatches, schedules, stopping, checkpoints."""

from taut.training.loop import Look, Trained, train
from taut.training.optimisers import Optimiser, Optimisers, make_optimiser
from taut.training.settings import Training
from taut.training.step import Objective

__all__ = [
    "Look",
    "Objective",
    "Optimiser",
    "Optimisers",
    "Trained",
    "Training",
    "make_optimiser",
    "train",
]
