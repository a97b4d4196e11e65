"""Bayesian neural networks."""

from taut.networks.classification import Bernoulli, Categorical
from taut.networks.ensemble import Ensemble
from taut.networks.hypernetwork import HyperNetwork, MetaNetwork, functional
from taut.networks.ivon import IVON
from taut.networks.laplace import Laplace
from taut.networks.last_layer import LastLayer
from taut.networks.mean_field import LowRank, MeanField
from taut.networks.network import BayesianNetwork
from taut.networks.prediction import LabelPrediction, Prediction
from taut.networks.priors import FanIn, Isotropic
from taut.networks.regression import Heteroscedastic, Normal, Poisson
from taut.networks.result import NetworkPosterior
from taut.networks.semi_implicit import Hyper

__all__ = [
    "IVON",
    "BayesianNetwork",
    "Bernoulli",
    "Categorical",
    "Ensemble",
    "FanIn",
    "Heteroscedastic",
    "Hyper",
    "HyperNetwork",
    "Isotropic",
    "LabelPrediction",
    "Laplace",
    "LastLayer",
    "LowRank",
    "MeanField",
    "MetaNetwork",
    "NetworkPosterior",
    "Normal",
    "Poisson",
    "Prediction",
    "functional",
]
