"""Variational families.

Choices (Diagonal, Dense, LowRank, Block), the Gaussians they give, and factors for latents with
conjugate structure (Gamma, Beta, Dirichlet, Wishart, Categorical, Chain, Grid and InverseGamma).
"""

from taut.expectation.gaussian import Gaussian, Scaled
from taut.families.amortised import Amortised, Point
from taut.families.categorical import Categorical
from taut.families.chain import Chain
from taut.families.factors import Gamma, InverseGamma
from taut.families.gaussian import (
    AbstractDistribution,
    AbstractGaussian,
    BlockGaussian,
    DenseGaussian,
    DiagonalGaussian,
    LowRankGaussian,
    MixtureGaussian,
)
from taut.families.grid import Grid
from taut.families.matrix import Wishart
from taut.families.normal_wishart import CholeskyNormalWishart as CholeskyNormalWishart
from taut.families.product import CholeskyWishart as CholeskyWishart
from taut.families.product import LogGamma as LogGamma
from taut.families.product import LogitBeta as LogitBeta
from taut.families.product import Product as Product
from taut.families.product import ScaledNormal as ScaledNormal
from taut.families.product import Tabulated as Tabulated
from taut.families.product import nearest_gaussian as nearest_gaussian
from taut.families.simplex import Beta, Dirichlet
from taut.families.specs import (
    AbstractFamily,
    AbstractForm,
    AbstractGaussianFamily,
    Block,
    Dense,
    Diagonal,
    LowRank,
    MeanField,
)

__all__ = [
    "AbstractDistribution",
    "AbstractFamily",
    "AbstractForm",
    "AbstractGaussian",
    "AbstractGaussianFamily",
    "Amortised",
    "Beta",
    "Block",
    "BlockGaussian",
    "Categorical",
    "Chain",
    "Dense",
    "DenseGaussian",
    "Diagonal",
    "DiagonalGaussian",
    "Dirichlet",
    "Gamma",
    "Gaussian",
    "Grid",
    "InverseGamma",
    "LowRank",
    "LowRankGaussian",
    "MeanField",
    "MixtureGaussian",
    "Point",
    "Scaled",
    "Wishart",
]
