"""Stochastic optimisation that needs no tuning: minibatches, schedules, stopping, checkpoints."""

from taut.training.course import Look
from taut.training.loop import Trained, train
from taut.training.optimisers import Optimiser, Optimisers, make_optimiser
from taut.training.placing import Placing
from taut.training.records import JsonLines, TensorBoard
from taut.training.settings import Training
from taut.training.step import Objective as Objective

__all__ = [
    "JsonLines",
    "Look",
    "Optimiser",
    "Optimisers",
    "Placing",
    "TensorBoard",
    "Trained",
    "Training",
    "make_optimiser",
    "train",
]
