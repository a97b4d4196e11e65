"""Posterior predictive distributions, for a chunk of rows at a time.

Nothing is kept but what is asked for: each method goes through the rows again, with the same draws
of the weights.
"""

import abc
import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.scipy.special import logsumexp
from jaxtyping import Array
from typing_extensions import override

from taut._core.errors import ArgumentError, DataError
from taut.networks import metrics
from taut.networks.likelihoods import (
    AbstractClassification,
    AbstractLikelihood,
    AbstractRegression,
)
from taut.networks.regression import Poisson
from taut.networks.rows import Scaling, check_targets

BISECTIONS = 60  # halvings of a bracket of some 20 sds


@dataclasses.dataclass(frozen=True, eq=False)
class Source:
    """Where a prediction's numbers come from; the same draws every time.

    Attributes:
        outputs: (start, stop) of rows -> outputs under every draw, (draws, rows, ...).
        num_rows: rows in all.
        chunk: rows that are held at a time.
        likelihood: of the targets.
        params: of the likelihood, for each draw, (draws, ...).
        scaling: of the targets.
        target_shape: of one row's target, as it was given.
        output_shape: of the module for one datum.
        seed: of drawn targets.
    """

    outputs: Callable[[int, int], Array]
    num_rows: int
    chunk: int
    likelihood: AbstractLikelihood
    params: Any
    scaling: Scaling
    target_shape: tuple[int, ...]
    output_shape: tuple[int, ...]
    seed: int

    def over_rows(self, function: Callable[..., Any], *columns: np.ndarray) -> Any:
        """What a function of (likelihood, outputs, its parameters, columns) gives, joined.

        It is compiled once for each likelihood; rows are the first axis of all that it gives.
        """
        found = []
        for start in range(0, self.num_rows, self.chunk):
            stop = min(start + self.chunk, self.num_rows)
            pieces = [jnp.asarray(c[start:stop]) for c in columns]
            part = function(self.likelihood, self.outputs(start, stop), self.params, *pieces)
            found.append(jax.tree.map(np.asarray, part))
        return jax.tree.map(lambda *parts: np.concatenate(parts), *found)

    def targets(self, y: Any) -> np.ndarray:
        """Targets as the likelihood takes them, on the standardised scale.

        Raises:
            DataError: if they have the wrong shape or values outside the support.
        """
        y = check_targets(y, self.num_rows)
        if y.shape[1:] != self.target_shape:
            raise DataError(
                f"y must have rows of shape {self.target_shape}, as in training, got {y.shape[1:]}"
            )
        return self.scaling.targets(self.likelihood.targets(y, self.output_shape), float)

    def shaped(self, values: np.ndarray) -> np.ndarray:
        """Numbers for each element of a target in the shape the targets were given in."""
        return values.reshape(len(values), *self.target_shape)


class AbstractPrediction(abc.ABC):
    """The posterior predictive distribution of the targets of some rows."""

    _source: Source

    def log_prob(self, y: Any) -> np.ndarray:
        """Log posterior predictive density of targets: the log of the mean over draws.

        Args:
            y: one target for each row, in the form it had in training.

        Returns:
            Nats, in the units of y, (rows,).

        Raises:
            DataError: if ``y`` does not match the rows.
        """
        return self._source.over_rows(_log_prob, self._source.targets(y)) + (
            self._source.scaling.log_density
        )

    @abc.abstractmethod
    def draws(self) -> np.ndarray:
        """Posterior predictive draws, one for each draw of the weights, (draws, rows, ...)."""

    @abc.abstractmethod
    def metrics(self, y: Any) -> dict[str, float]:
        """Scores of the prediction for what happened.

        Args:
            y: one target for each row, in the form it had in training.
        """


@dataclasses.dataclass(frozen=True, eq=False)
class Prediction(AbstractPrediction):
    """The posterior predictive distribution of numbers.

    Attributes:
        mean: of each target, in the units and shape of y, (rows, ...).
        epistemic: the part of the variance that more data would take away: that of the targets'
            mean over the posterior of the weights, in squared units of y.
        aleatoric: the part that would stay: the mean variance of a target given the weights.
    """

    mean: np.ndarray
    epistemic: np.ndarray
    aleatoric: np.ndarray
    _source: Source = dataclasses.field(repr=False)

    @property
    def sd(self) -> np.ndarray:
        """Standard deviation of each target, in the units of y."""
        return np.sqrt(self.epistemic + self.aleatoric)

    def interval(self, level: float = 0.9) -> tuple[np.ndarray, np.ndarray]:
        """Ends of the central interval that holds a target with a given probability.

        Args:
            level: the probability, between 0 and 1.

        Returns:
            Lower and upper ends, in the units and shape of y.

        Raises:
            ArgumentError: if the level is no probability.
        """
        if not 0 < level < 1:
            raise ArgumentError(f"level must lie between 0 and 1, got {level}")
        source, ends = self._source, []
        for p in (0.5 * (1 - level), 0.5 * (1 + level)):
            (found,) = source.over_rows(_quantile, np.full(source.num_rows, p))
            ends.append(source.shaped(found * source.scaling.y_scale + source.scaling.y_shift))
        return ends[0], ends[1]

    @override
    def draws(self) -> np.ndarray:
        source = self._source
        keys = _row_keys(source)
        (found,) = source.over_rows(_sampled, keys)
        found = found * source.scaling.y_scale + source.scaling.y_shift
        return np.moveaxis(found, 1, 0).reshape(found.shape[1], len(found), *source.target_shape)

    @override
    def metrics(self, y: Any) -> dict[str, float]:
        """Scores of the prediction for what happened.

        Args:
            y: one target for each row, in the form it had in training.

        Returns:
            "rmse" of the mean; "log_likelihood", mean over rows, in nats; "crps", mean over rows
            and elements, in the units of y; "coverage_50" and "coverage_90", shares of the
            elements inside their central intervals.
        """
        source = self._source
        targets, log_likelihood = source.targets(y), self.log_prob(y)
        score = count_crps if isinstance(source.likelihood, Poisson) else normal_crps
        (crps,) = source.over_rows(score, targets)
        given = np.asarray(y, float)
        inside = {}
        for percent in (50, 90):
            low, high = self.interval(percent / 100)
            inside[f"coverage_{percent}"] = float(np.mean((low <= given) & (given <= high)))
        return {
            "rmse": float(np.sqrt(np.mean((given - self.mean) ** 2))),
            "log_likelihood": float(np.mean(log_likelihood)),
            "crps": float(np.mean(crps * source.scaling.y_scale)),
            **inside,
        }


@dataclasses.dataclass(frozen=True, eq=False)
class LabelPrediction(AbstractPrediction):
    """The posterior predictive distribution of labels.

    Attributes:
        proba: probability of each label, (rows, labels).
        entropy: of the label, in nats, (rows,).
        aleatoric: the part that more data would not take away: its mean entropy given the weights.
        epistemic: the rest: the mutual information between label and weights.
    """

    proba: np.ndarray
    entropy: np.ndarray
    aleatoric: np.ndarray
    epistemic: np.ndarray
    _source: Source = dataclasses.field(repr=False)

    @property
    def label(self) -> np.ndarray:
        """The most probable label, (rows,)."""
        return self.proba.argmax(1)

    @override
    def draws(self) -> np.ndarray:
        (found,) = self._source.over_rows(_sampled, _row_keys(self._source))
        return np.moveaxis(found, 1, 0)

    @override
    def metrics(self, y: Any) -> dict[str, float]:
        """Scores of the prediction for what happened.

        Args:
            y: one label for each row.

        Returns:
            "accuracy"; "log_likelihood", mean over rows, in nats; "brier", in [0, 2]; "ece", the
            expected calibration error in 15 bins of confidence.
        """
        labels = self._source.targets(y)
        return {
            "accuracy": float(np.mean(self.label == labels)),
            "log_likelihood": float(np.mean(self.log_prob(y))),
            "brier": metrics.brier(self.proba, labels),
            "ece": metrics.calibration_error(self.proba, labels),
        }


def predict(source: Source) -> Prediction | LabelPrediction:
    """The prediction for the rows of a source."""
    if isinstance(source.likelihood, AbstractClassification):
        proba, total, aleatoric = source.over_rows(_label_moments)
        return LabelPrediction(proba, total, aleatoric, np.maximum(total - aleatoric, 0.0), source)
    mean, epistemic, aleatoric = source.over_rows(_moments)
    scale, shift = source.scaling.y_scale, source.scaling.y_shift
    return Prediction(
        source.shaped(mean * scale + shift),
        source.shaped(epistemic * scale**2),
        source.shaped(aleatoric * scale**2),
        source,
    )


def _over_draws(function: Any, outputs: Array, params: Any) -> Array:
    """A likelihood's function of (output, parameters) for every draw and row."""
    return jax.vmap(lambda fs, p: jax.vmap(lambda f: function(f, p))(fs))(outputs, params)


def _against(function: Any, outputs: Array, params: Any, y: Array) -> Array:
    """A likelihood's function of (output, target, parameters) for every draw and row."""

    def draw(outputs: Array, params: Any) -> Array:
        return jax.vmap(lambda f, t: function(f, t, params))(outputs, y)

    return jax.vmap(draw)(outputs, params)


@functools.partial(jax.jit, static_argnums=0)
def _moments(likelihood: AbstractRegression, outputs: Array, params: Any) -> tuple[Array, ...]:
    means = _over_draws(likelihood.mean, outputs, params)
    variances = _over_draws(likelihood.variance, outputs, params)
    return jnp.mean(means, 0), jnp.var(means, 0), jnp.mean(variances, 0)


@functools.partial(jax.jit, static_argnums=0)
def _label_moments(
    likelihood: AbstractClassification, outputs: Array, params: Any
) -> tuple[Array, ...]:
    log_proba = jax.vmap(jax.vmap(likelihood.log_proba))(outputs)
    mean = logsumexp(log_proba, 0) - jnp.log(len(log_proba))
    return jnp.exp(mean), metrics.entropy(mean), jnp.mean(metrics.entropy(log_proba), 0)


@functools.partial(jax.jit, static_argnums=0)
def _log_prob(likelihood: AbstractLikelihood, outputs: Array, params: Any, y: Array) -> Array:
    y = y.astype(outputs.dtype) if jnp.issubdtype(y.dtype, jnp.floating) else y
    found = _against(likelihood.log_prob, outputs, params, y)
    return logsumexp(found, 0) - jnp.log(len(found))


@functools.partial(jax.jit, static_argnums=0)
def _sampled(likelihood: AbstractLikelihood, outputs: Array, params: Any, keys: Array) -> Any:
    """A target for every draw, (rows, draws, ...)."""

    def row(outputs: Array, key: Array) -> Array:
        drawn = jax.random.split(jax.random.wrap_key_data(key), len(outputs))
        return jax.vmap(likelihood.sample)(outputs, params, drawn)

    return (jax.vmap(row, (1, 0))(outputs, keys),)


def _row_keys(source: Source) -> np.ndarray:
    """A key for each row, which does not depend on the chunks."""
    keys = jax.random.split(jax.random.key(source.seed), source.num_rows)
    return np.asarray(jax.random.key_data(keys))


@functools.partial(jax.jit, static_argnums=0)
def _quantile(
    likelihood: AbstractRegression, outputs: Array, params: Any, p: Array
) -> tuple[Array]:
    """Quantiles of the mixture over draws, by bisection of its distribution function."""
    means = _over_draws(likelihood.mean, outputs, params)
    sds = jnp.sqrt(_over_draws(likelihood.variance, outputs, params))
    low, high = jnp.min(means - 10 * sds, 0) - 1e-3, jnp.max(means + 10 * sds, 0) + 10.0
    p = p.astype(low.dtype)[:, None]

    def cdf(y: Array) -> Array:
        return jnp.mean(_against(likelihood.cdf, outputs, params, y), 0)

    def halve(_: Any, ends: tuple[Array, Array]) -> tuple[Array, Array]:
        middle = 0.5 * (ends[0] + ends[1])
        below = cdf(middle) < p
        return jnp.where(below, middle, ends[0]), jnp.where(below, ends[1], middle)

    _, found = jax.lax.fori_loop(0, BISECTIONS, halve, (low, high))
    # Of a count the bracket closes at a whole number from above.
    return (jnp.round(found) if isinstance(likelihood, Poisson) else found,)


@functools.partial(jax.jit, static_argnums=0)
def normal_crps(likelihood: AbstractRegression, outputs: Array, params: Any, y: Array) -> Any:
    """Score of each element of a target under a mixture of Gaussians, (rows, k)."""
    means = _over_draws(likelihood.mean, outputs, params)
    variances = _over_draws(likelihood.variance, outputs, params)
    each = jax.vmap(jax.vmap(metrics.normal_mixture_crps, (0, 1, 1)), (0, 1, 1))
    return (each(y.astype(means.dtype), means, variances),)


@functools.partial(jax.jit, static_argnums=0)
def count_crps(likelihood: AbstractRegression, outputs: Array, params: Any, y: Array) -> Any:
    """Score of each element of a target that is a count, (rows, k)."""

    def at(count: Array) -> Array:
        where = jnp.full(y.shape, count, outputs.dtype)
        return jnp.mean(_against(likelihood.cdf, outputs, params, where), 0)

    cdf = jax.lax.map(at, jnp.arange(metrics.MAX_COUNTS, dtype=outputs.dtype))
    return (jax.vmap(jax.vmap(metrics.count_crps, (0, 1)), (0, 1))(y, cdf),)
