"""Bayesian neural networks from modules as they are."""

import dataclasses
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from taut._core.errors import ArgumentError, DataError
from taut._core.progress import Callback, Watch
from taut.networks.classification import Bernoulli, Categorical
from taut.networks.ensemble import Ensemble
from taut.networks.fitting import Settings, fit_lanes, fit_one, prepare
from taut.networks.ivon import IVON
from taut.networks.laplace import Laplace
from taut.networks.last_layer import LastLayer
from taut.networks.likelihoods import AbstractLikelihood
from taut.networks.mean_field import LowRank, MeanField
from taut.networks.naming import by_name
from taut.networks.posteriors import AbstractWeightPosterior
from taut.networks.priors import PRIORS, AbstractWeightPrior
from taut.networks.regression import Heteroscedastic, Normal, Poisson
from taut.networks.result import NetworkPosterior
from taut.networks.semi_implicit import Hyper

_LIKELIHOODS: dict[str, Any] = {
    cls.name: cls for cls in (Normal, Heteroscedastic, Categorical, Bernoulli, Poisson)
}

_POSTERIORS: dict[str, Any] = {
    cls.name: cls for cls in (MeanField, LowRank, IVON, LastLayer, Laplace, Ensemble, Hyper)
}


@dataclasses.dataclass(frozen=True, eq=False)
class BayesianNetwork:
    """A neural network whose weights have a prior, for an unmodified module.

    Attributes:
        module: an Equinox module, or any callable pytree, of one datum: it is called with one row
            of x, and its arrays of floating-point numbers are the weights. They are also where
            inference begins.
        likelihood: "normal" (noise of one sd, learned), "heteroscedastic" (the module emits means,
            then log sds), "categorical" (one output for each class), "bernoulli" (one output, the
            log odds), "poisson" (the log mean), or an object of :mod:`taut.networks`.
        prior: "fan_in", "isotropic", or an object.
        posterior: "mean_field", "low_rank", "ivon", "last_layer", "laplace", "ensemble",
            "hyper", or an object, which has settings.
        standardise: bring feature vectors and real targets to mean zero and sd one; predictions
            are in the data's own units all the same. Inputs of more axes than one are left alone.
        unscaled: columns of x that are left as they are all the same, such as codes.
        tempering: factor of the divergence from the prior in training; other than 1 it is no
            Bayesian inference for the model as it stands, and the result says so.

    Raises:
        ArgumentError: if a name is unknown, or the tempering is not positive.
    """

    module: Any
    likelihood: str | AbstractLikelihood = "normal"
    prior: str | AbstractWeightPrior = "fan_in"
    posterior: str | AbstractWeightPosterior = "mean_field"
    standardise: bool = True
    unscaled: tuple[int, ...] = ()
    tempering: float = 1.0

    def __post_init__(self) -> None:
        """Turn names into objects."""
        for name, kind, named in (
            ("likelihood", AbstractLikelihood, _LIKELIHOODS),
            ("prior", AbstractWeightPrior, PRIORS),
            ("posterior", AbstractWeightPosterior, _POSTERIORS),
        ):
            object.__setattr__(self, name, by_name(name, getattr(self, name), kind, named))
        if not (self.tempering > 0 and math.isfinite(self.tempering)):
            raise ArgumentError(f"tempering must be positive, got {self.tempering}")

    def fit(
        self,
        x: Any,
        y: Any,
        *,
        batch_size: int | None = None,
        epochs: int | None = None,
        seed: int = 0,
        validation: tuple[Any, Any] | None = None,
        budget: float | None = None,
        progress: bool | None = None,
        callbacks: Sequence[Callback] = (),
        checkpoint: str | Path | None = None,
    ) -> NetworkPosterior:
        """Infer the weights from data.

        The number of rows is known from the data, so that likelihood and prior have the weights
        that Bayes' rule gives them, whatever the batch size.

        Args:
            x: inputs, one row for each datum, (rows, ...).
            y: targets: numbers, (rows,) or (rows, k); or labels, (rows,).
            batch_size: rows of a minibatch; None: 256, or all where there are fewer.
            epochs: passes over the data; None: as many as make 5,000 steps.
            seed: of shuffles and draws.
            validation: (x, y) on which the bound is watched; the best parameters are kept.
            budget: seconds; None for no limit.
            progress: True shows a status line, False none, None only on a terminal.
            callbacks: called with the stage and its numbers; returning True ends training.
            checkpoint: folder from which an interrupted fit goes on.

        Raises:
            DataError: if the data hold NaN, or do not match each other or the likelihood.
            ModelError: if the module cannot be called with a row, or emits the wrong shape.
            UnsupportedError: if the module keeps a state or draws noise.
        """
        prepared = self._prepare(x, y)
        settings = Settings(batch_size, epochs, seed, checkpoint)
        with Watch(budget, progress, callbacks) as watch:
            return fit_one(self._posterior, prepared, settings, validation, watch)

    def fit_many(
        self,
        x: Any,
        y: Any,
        *,
        batch_size: int | None = None,
        epochs: int | None = None,
        seed: int = 0,
        budget: float | None = None,
        progress: bool | None = None,
        callbacks: Sequence[Callback] = (),
    ) -> list[NetworkPosterior]:
        """Infer the weights from each of several data sets of one size, in one compiled program.

        For cross-validation and simulation studies of small networks: the fits share each step's
        overhead. The first begins at the module's own weights, the others at shuffles of them.

        Args:
            x: inputs, (data sets, rows, ...).
            y: targets, (data sets, rows, ...).
            batch_size: rows of a minibatch; None: 256, or all where there are fewer.
            epochs: passes over the data; None: as many as make 5,000 steps.
            seed: of shuffles and draws.
            budget: seconds for all together; None for no limit.
            progress: True shows a status line, False none, None only on a terminal.
            callbacks: called with the stage and its numbers; returning True ends training.

        Raises:
            DataError: if the data hold NaN, or do not match each other or the likelihood.
            ModelError: if the module cannot be called with a row, or emits the wrong shape.
        """
        x, y = np.asarray(x), np.asarray(y)
        if x.ndim < 2 or y.ndim < 2 or x.shape[:2] != y.shape[:2] or not len(x):
            raise DataError(
                "x and y must be (data sets, rows, ...) with as many rows in each data set, got shapes "
                f"{x.shape} and {y.shape}"
            )
        prepared = [self._prepare(x[i], y[i]) for i in range(len(x))]
        settings = Settings(batch_size, epochs, seed, None)
        with Watch(budget, progress, callbacks) as watch:
            return fit_lanes(self._posterior, prepared, settings, watch)

    @property
    def _posterior(self) -> AbstractWeightPosterior:
        assert isinstance(self.posterior, AbstractWeightPosterior)
        return self.posterior

    def _prepare(self, x: Any, y: Any) -> Any:
        assert isinstance(self.likelihood, AbstractLikelihood)
        assert isinstance(self.prior, AbstractWeightPrior)
        return prepare(
            self.module,
            self.likelihood,
            self.prior,
            self.tempering,
            self.standardise,
            tuple(self.unscaled),
            x,
            y,
        )
