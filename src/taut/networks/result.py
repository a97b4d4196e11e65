"""What a fit of a Bayesian network found."""

import dataclasses
import functools
import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from taut._core.errors import ArgumentError
from taut._core.status import Status
from taut.networks.posteriors import AbstractWeightPosterior, Task
from taut.networks.prediction import LabelPrediction, Prediction, Source, predict
from taut.networks.rows import Scaling, check_inputs
from taut.training import Look

HELD_NUMBERS = 2**22  # outputs that are held at a time, over draws and rows


@dataclasses.dataclass(frozen=True, eq=False)
class NetworkPosterior:
    """A posterior over the weights of a network, and how it was found.

    Attributes:
        elbo: lower bound on the log evidence, in nats, of the targets in their own units; NaN
            where the posterior is not found by maximising one.
        elbo_error: standard error of its estimate, in nats.
        log_evidence: exact for the last layer given everything else, or Laplace's approximation;
            NaN where neither is at hand. In nats, of the targets in their own units.
        status: why training ended.
        history: its course: steps, epochs, mean loss in nats per row (of standardised targets).
        notes: what the reader should know.
        seconds: that the fit took.
        prior_scale: weight -> sd of its prior, the learned ones as they were found.
        params: of the posterior, in the coordinates of standardised data.
        posterior: the settings of the posterior.
        task: what was inferred.
        scaling: of inputs and targets.
        row_shape: of one row of inputs.
        target_shape: of one row's target.
    """

    elbo: float
    elbo_error: float
    log_evidence: float
    status: Status
    history: tuple[Look, ...]
    notes: tuple[str, ...]
    seconds: float
    prior_scale: dict[str, float]
    params: dict[str, Any] = dataclasses.field(repr=False)
    posterior: AbstractWeightPosterior
    task: Task = dataclasses.field(repr=False)
    scaling: Scaling = dataclasses.field(repr=False)
    row_shape: tuple[int, ...]
    target_shape: tuple[int, ...]

    def predict(
        self, x: Any, draws: int = 100, chunk: int | None = None, seed: int = 0
    ) -> Prediction | LabelPrediction:
        """The posterior predictive distribution of the targets of new rows.

        Memory holds ``draws`` outputs for each of ``chunk`` rows, however many rows there are.

        Args:
            x: inputs in the form and units of the training rows.
            draws: of the weights, at least 1; each is used for all rows.
            chunk: rows that are held at a time; None chooses.
            seed: of the draws.

        Raises:
            DataError: if ``x`` has rows of another shape, or NaN.
            ArgumentError: if ``draws`` or ``chunk`` is no count.
        """
        for name, value in (("draws", draws), ("chunk", chunk)):
            if value is not None and (not isinstance(value, int | np.integer) or value < 1):
                raise ArgumentError(f"{name} must be a whole number of at least 1, got {value!r}")
        rows = self.scaling.inputs(
            check_inputs(x, row_shape=self.row_shape), self.task.architecture.dtype
        )
        shape = self.task.architecture.output_shape
        if chunk is None:
            chunk = max(1, HELD_NUMBERS // (draws * max(1, math.prod(shape))))
            chunk = min(chunk, 4096)
        keys = jax.random.split(jax.random.key(seed), draws)

        def outputs(start: int, stop: int) -> Array:
            part = rows[start:stop]
            if len(part) < chunk < len(rows):  # the last is padded: one shape, one program
                part = np.concatenate([part, np.repeat(part[:1], chunk - len(part), 0)])
            found = _outputs(self.posterior, self.task, self.params, jnp.asarray(part), keys)
            return found[:, : stop - start]

        params = self.posterior.likelihood_params(self.task, self.params, draws)
        source = Source(
            outputs, len(rows), int(chunk), self.task.likelihood,
            params, self.scaling, self.target_shape, shape, seed,
        )  # fmt: skip
        return predict(source)

    def metrics(self, x: Any, y: Any, draws: int = 100) -> dict[str, float]:
        """Scores of the predictions for rows whose targets are known.

        Args:
            x: inputs in the form and units of the training rows.
            y: targets in the form of the training rows.
            draws: of the weights.

        Returns:
            See ``metrics`` of the prediction.
        """
        return self.predict(x, draws).metrics(y)

    def __str__(self) -> str:
        """What was found, in a few lines."""
        lines = [
            f"{self.posterior.name} posterior over {self.task.architecture.num_weights} weights, "
            f"{self.task.num_rows} rows, likelihood '{self.task.likelihood.name}'",
            f"{self.status.value}; {self.seconds:.1f} s",
        ]
        if not math.isnan(self.elbo):
            lines.append(f"ELBO {self.elbo:.2f} ± {self.elbo_error:.2f} nats")
        if not math.isnan(self.log_evidence):
            lines.append(f"log evidence {self.log_evidence:.2f} nats")
        return "\n".join([*lines, *(f"note: {note}" for note in self.notes)])


@functools.partial(jax.jit, static_argnums=(0, 1))
def _outputs(
    posterior: AbstractWeightPosterior, task: Task, params: Any, x: Array, keys: Array
) -> Array:
    return posterior.outputs(task, params, x, keys)
