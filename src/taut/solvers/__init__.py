"""Solvers: methods that fit a variational distribution."""

from taut.solvers.base import AbstractSolver, Solution
from taut.solvers.compiled import Natural
from taut.solvers.fixed_draws import FixedDraws
from taut.solvers.laplace import Laplace, ResidualLaplace
from taut.solvers.matching import BatchMatch, Pathfinder
from taut.solvers.stochastic import Stochastic
from taut.solvers.stochastic_natural import StochasticNatural

__all__ = [
    "AbstractSolver",
    "BatchMatch",
    "FixedDraws",
    "Laplace",
    "Natural",
    "Pathfinder",
    "ResidualLaplace",
    "Solution",
    "Stochastic",
    "StochasticNatural",
]
