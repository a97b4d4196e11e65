"""Maximum likelihood and maximum a posteriori: parameters without an uncertainty."""

import contextlib
import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from typing_extensions import override

from taut._core.precision import double_precision
from taut.data.feeds import Batch
from taut.deep.evaluation import columns_of, mapped
from taut.deep.objective import LogDensity
from taut.deep.trained import PREDICTED, AbstractTrained, check_count
from taut.deep.training import Fitted


class PointEstimate(AbstractTrained):
    """One value of every parameter and latent.

    Attributes:
        seed: of the fit.
    """

    _fitted: Fitted
    seed: int

    def __init__(self, fitted: Fitted, seed: int) -> None:
        self._fitted, self.seed = fitted, seed

    @property
    def _objective(self) -> LogDensity:
        objective = self._fitted.objective
        assert isinstance(objective, LogDensity)
        return objective

    @functools.cached_property
    def values(self) -> dict[str, Any]:
        """The latents at the mode, in the model's own space."""
        wide = any(x.dtype == np.float64 for x in jax.tree.leaves(self._parameters["guide"]))
        with double_precision() if wide else contextlib.nullcontext():
            return {n: np.asarray(x) for n, x in self._objective.values(self._parameters).items()}

    @functools.cached_property
    def log_density(self) -> float:
        """Log likelihood of the data plus log prior of the latents, in nats.

        Of all rows; scaled up from 20,000 where there are more.
        """
        fitted = self._fitted
        shared, each = mapped(
            self._objective, _log_terms, self._parameters, fitted.monitored, self.seed
        )
        return float(shared[0] + fitted.num_rows * np.mean(each, dtype=float))

    @property
    @override
    def plan(self) -> str:
        what = "point (maximum a posteriori)" if self._model.latents else "maximum likelihood"
        return self._plan(what, "gradients of the log density")

    def predict(self, data: Any, draws: int = PREDICTED, seed: int = 0) -> dict[str, np.ndarray]:
        """Draws of the observed sites for new rows, given the point.

        Args:
            data: the model's arguments with rows; what is to be predicted may be missing.
            draws: how many.
            seed: of the draws.

        Returns:
            Site -> draws, (draws, rows, ...); deterministic sites are among them.
        """
        columns, rows = self._given(data)
        draws = check_count("draws", draws)
        return self._simulated(columns, draws, seed, _point_values, rows)

    def log_likelihood(self, data: Any) -> dict[str, np.ndarray]:
        """Log likelihood of each row, by observed site, (n,)."""
        columns = columns_of(self._model, data)
        return mapped(self._objective, _log_likelihoods, self._parameters, columns, 0)

    def __repr__(self) -> str:
        """The parameters, and how the fit ended."""
        sizes = {
            n: sum(np.size(x) for x in jax.tree.leaves(v))
            for n, v in {**self.params, **self.values}.items()
        }
        shown = [f"  {n}  {s:,} number{'s' if s > 1 else ''}" for n, s in sizes.items()]
        shown += [f"  note: {note}" for note in self.notes]
        return "\n".join(
            [
                f"point estimate of {self.name}: log density {self.log_density:,.2f} nats, "
                f"{self.seconds:.1f} s, {self.status.value}",
                *shown,
            ]
        )


def _log_terms(
    objective: LogDensity, params: Any, batch: Batch, key: Any
) -> tuple[jax.Array, jax.Array]:
    """The log joint of some rows: what is shared, repeated, and each row's own, both (n,)."""
    model, values = objective.model, objective.values(params)
    shared, rows = model.log_terms(model.trace(params["model"], values, batch.columns))
    each = sum(rows.values(), jnp.zeros(batch.weight.shape))
    return jnp.broadcast_to(shared, batch.weight.shape), each


def _log_likelihoods(
    objective: LogDensity, params: Any, batch: Batch, key: Any
) -> dict[str, jax.Array]:
    model = objective.model
    found = model.terms(model.trace(params["model"], objective.values(params), batch.columns))
    return {n: found[n] for n, s in model.observed.items() if s.local}


def _point_values(objective: LogDensity, params: Any, columns: Any, key: Any) -> dict[str, Any]:
    return objective.values(params)
