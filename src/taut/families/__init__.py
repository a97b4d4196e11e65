"""Variational families: choices (Diagonal, Dense, LowRank, Block) and the distributions they give."""

from taut.families.gaussian import (
    AbstractDistribution,
    AbstractGaussian,
    BlockGaussian,
    DenseGaussian,
    DiagonalGaussian,
    LowRankGaussian,
    MixtureGaussian,
)
from taut.families.specs import AbstractFamily, AbstractForm, Block, Dense, Diagonal, LowRank

__all__ = [
    "AbstractDistribution",
    "AbstractFamily",
    "AbstractForm",
    "AbstractGaussian",
    "Block",
    "BlockGaussian",
    "Dense",
    "DenseGaussian",
    "Diagonal",
    "DiagonalGaussian",
    "LowRank",
    "LowRankGaussian",
    "MixtureGaussian",
]
