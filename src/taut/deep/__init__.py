"""Networks in models: trained by maximum likelihood, as encoders, or random."""

from taut.deep.flow import Flow
from taut.deep.heads import AbstractHead, FullGaussian, Gaussian, Labels
from taut.deep.modules import module, random_module
from taut.deep.point import PointEstimate
from taut.deep.posterior import TrainedPosterior

__all__ = [
    "AbstractHead",
    "Flow",
    "FullGaussian",
    "Gaussian",
    "Labels",
    "PointEstimate",
    "TrainedPosterior",
    "module",
    "random_module",
]
