"""Bounds on the log evidence, and estimates of their gradients, for any JAX log density.

A bound is a frozen setting. Called with a log joint, a guide and a key it gives its value and a
*surrogate* to differentiate; see :class:`AbstractBound` for the arguments.

    def loss(params, key):
        q = {"z": dist.Normal(params["loc"], jnp.exp(params["log_scale"]))}
        return -bounds.ELBO()(lambda values: log_joint(**values), q, key).surrogate

    jax.value_and_grad(loss)(params, key)
"""

from taut.bounds.divergence import closed_divergence
from taut.bounds.elbo import ELBO
from taut.bounds.estimators import (
    AbstractEstimator,
    Baseline,
    DisARM,
    Enumerate,
    Gumbel,
    LeaveOneOut,
    Pathwise,
    Score,
    StickingTheLanding,
    StraightThrough,
)
from taut.bounds.paths import Reparameterisation, reparameterisation, reparameterisation_table
from taut.bounds.paths import reparameterisation as reparameterization
from taut.bounds.relaxed import RelaxedOneHotCategorical
from taut.bounds.types import AbstractBound, Estimate
from taut.bounds.wake_sleep import ReweightedWakeSleep, WakeSleep
from taut.bounds.weighted import ImportanceWeighted, Renyi

__all__ = [
    "ELBO",
    "AbstractBound",
    "AbstractEstimator",
    "Baseline",
    "DisARM",
    "Enumerate",
    "Estimate",
    "Gumbel",
    "ImportanceWeighted",
    "LeaveOneOut",
    "Pathwise",
    "RelaxedOneHotCategorical",
    "Renyi",
    "Reparameterisation",
    "ReweightedWakeSleep",
    "Score",
    "StickingTheLanding",
    "StraightThrough",
    "WakeSleep",
    "closed_divergence",
    "reparameterisation",
    "reparameterisation_table",
    "reparameterization",
]
