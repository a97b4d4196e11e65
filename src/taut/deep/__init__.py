"""Networks in models: trained by maximum likelihood, as encoders, or random."""

from taut.deep.posterior import TrainedPosterior
from taut.deep.fit import fit_deep, is_deep
from taut.deep.heads import AbstractHead, FullGaussian, Gaussian, Labels
from taut.deep.modules import module, random_module
from taut.deep.point import PointEstimate

__all__ = [
    "AbstractHead",
    "TrainedPosterior",
    "FullGaussian",
    "Gaussian",
    "Labels",
    "PointEstimate",
    "fit_deep",
    "is_deep",
    "module",
    "random_module",
]
