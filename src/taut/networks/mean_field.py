"""Independent Gaussians over all weights, and those with a low-rank part beside."""

import dataclasses
import math
from collections.abc import Sequence
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
from jaxtyping import Array
from typing_extensions import override

from taut._core.errors import ArgumentError
from taut.data.feeds import Batch
from taut.networks.posteriors import (
    AbstractWeightPosterior,
    Task,
    bound,
    check_estimator,
    describe,
    expected_log_likelihood,
    expected_outputs,
    normals,
    prior_scales,
    sampled_outputs,
    treatments,
)
from taut.networks.priors import divergence
from taut.training import Optimisers


def check_common(settings: Any) -> None:
    """Check the settings that all Gaussians over weights have.

    Raises:
        ArgumentError: if one is out of its range.
    """
    for name in ("initial_scale", "learning_rate"):
        value = getattr(settings, name)
        if not (value > 0 and math.isfinite(value)):
            raise ArgumentError(f"{name} must be positive and finite, got {value}")
    if not 0 <= settings.warmup < 1:
        raise ArgumentError(f"warmup must be a share of training, in [0, 1), got {settings.warmup}")
    check_estimator(settings.estimator, settings.positions)


@dataclasses.dataclass(frozen=True)
class MeanField(AbstractWeightPosterior):
    """Independent Gaussians, which start at the module's own weights with a small sd.

    Attributes:
        estimator: "local" draws pre-activations of each datum in place of weights, which has the
            lowest variance (local reparameterisation; Kingma, Salimans and Welling 2015);
            "flipout" shares one draw with random signs for each datum (Wen et al. 2018); "shared"
            has one draw for a batch.
        initial_scale: sd of every weight at the start.
        positions: what "local" does where a weight meets several positions of one datum, as in a
            convolution. "flipout" keeps the bound; "marginal" draws positions as if they were
            independent, which is common, and no bound.
        warmup: share of training in which the factor of the divergence from the prior rises from
            next to nothing to one; in [0, 1).
        learning_rate: of Adam, at its peak.
    """

    estimator: str = "local"
    initial_scale: float = 0.02
    positions: str = "flipout"
    warmup: float = 0.5
    learning_rate: float = 1e-2
    name: ClassVar[str] = "mean_field"

    def __post_init__(self) -> None:
        """Check the settings."""
        check_common(self)

    @override
    def start(
        self, task: Task, weights: Sequence[Array], likelihood: dict[str, Any], key: Array
    ) -> dict[str, Any]:
        log_scale = [jnp.full_like(w, math.log(self.initial_scale)) for w in weights]
        return {"mean": list(weights), "log_scale": log_scale, **likelihood}

    @override
    def loss(
        self, task: Task, params: dict[str, Any], batch: Batch, key: Array, step: Array
    ) -> tuple[Array, dict[str, Array]]:
        scales = [jnp.exp(s) for s in params["log_scale"]]
        found = treatments(task, self.estimator, self.positions)
        x, y = batch.columns["x"], batch.columns["y"]
        outputs, noise = expected_outputs(task, found, params["mean"], scales, x, key)
        log_likelihood = expected_log_likelihood(
            task, outputs, noise, task.likelihood_params(params), y
        )
        kl = divergence(task.priors, params["mean"], scales)
        return bound(task, batch, log_likelihood, kl, step)

    @override
    def optimiser(self, task: Task) -> tuple[Optimisers, float | None]:
        return "adam", self.learning_rate

    @override
    def outputs(self, task: Task, params: dict[str, Any], x: Array, keys: Array) -> Array:
        scales = [jnp.exp(s) for s in params["log_scale"]]
        return sampled_outputs(task, lambda k: gaussian_draw(params["mean"], scales, k), x, keys)

    @override
    def prior_scale(self, task: Task, params: dict[str, Any]) -> dict[str, float]:
        return prior_scales(task, params["mean"], [jnp.exp(s) for s in params["log_scale"]])

    @override
    def notes(self, task: Task) -> tuple[str, ...]:
        return describe(task, treatments(task, self.estimator, self.positions), self.estimator)


def gaussian_draw(means: Sequence[Array], scales: Sequence[Array], key: Array) -> list[Array]:
    """Weights drawn from independent Gaussians."""
    noise = normals(means, key)
    return [m + s * z for m, s, z in zip(means, scales, noise, strict=True)]


@dataclasses.dataclass(frozen=True)
class LowRank(AbstractWeightPosterior):
    r"""A Gaussian whose covariance is diagonal plus low rank, :math:`D + U U^\top`.

    A batch shares one draw of the low-rank part; given it the weights are independent, and their
    randomness enters as in :class:`MeanField`.

    Attributes:
        rank: columns of U, at least 1.
        estimator: of the independent part; see :class:`MeanField`.
        initial_scale: sd of every weight at the start; that of U's part is a tenth of it.
        positions: see :class:`MeanField`.
        warmup: see :class:`MeanField`.
        learning_rate: of Adam, at its peak.
    """

    rank: int = 4
    estimator: str = "local"
    initial_scale: float = 0.02
    positions: str = "flipout"
    warmup: float = 0.5
    learning_rate: float = 1e-2
    name: ClassVar[str] = "low_rank"

    def __post_init__(self) -> None:
        """Check the settings."""
        if isinstance(self.rank, bool) or not isinstance(self.rank, int) or self.rank < 1:
            raise ArgumentError(f"rank must be a whole number of at least 1, got {self.rank!r}")
        check_common(self)

    @override
    def start(
        self, task: Task, weights: Sequence[Array], likelihood: dict[str, Any], key: Array
    ) -> dict[str, Any]:
        keys = jax.random.split(key, len(weights))
        size = 0.1 * self.initial_scale / math.sqrt(self.rank)
        return {
            "mean": list(weights),
            "log_scale": [jnp.full_like(w, math.log(self.initial_scale)) for w in weights],
            "factor": [
                size * jax.random.normal(k, (self.rank, *w.shape), w.dtype)
                for k, w in zip(keys, weights, strict=True)
            ],
            **likelihood,
        }

    @override
    def loss(
        self, task: Task, params: dict[str, Any], batch: Batch, key: Array, step: Array
    ) -> tuple[Array, dict[str, Array]]:
        first, second = jax.random.split(key)
        scales = [jnp.exp(s) for s in params["log_scale"]]
        found = treatments(task, self.estimator, self.positions)
        means = self._shifted(params, first)
        x, y = batch.columns["x"], batch.columns["y"]
        outputs, noise = expected_outputs(task, found, means, scales, x, second)
        log_likelihood = expected_log_likelihood(
            task, outputs, noise, task.likelihood_params(params), y
        )
        return bound(task, batch, log_likelihood, self._divergence(task, params), step)

    def _shifted(self, params: dict[str, Any], key: Array) -> list[Array]:
        """Means given a draw of the low-rank part."""
        means, factors = params["mean"], params["factor"]
        z = jax.random.normal(key, (self.rank,), means[0].dtype)
        return [m + jnp.tensordot(z, u, 1) for m, u in zip(means, factors, strict=True)]

    def _divergence(self, task: Task, params: dict[str, Any]) -> Array:
        r"""KL divergence from the prior.

        That of independent Gaussians with the same marginal sds, plus half of
        :math:`\log\prod_i (D + UU^\top)_{ii} - \log\det(D + UU^\top)`.
        """
        scales = [jnp.exp(s) for s in params["log_scale"]]
        parts = list(zip(params["factor"], scales, strict=True))
        marginal = _marginal(params)
        whitened = [jnp.reshape(u / s, (self.rank, -1)) for u, s in parts]
        inner = sum((w @ w.T for w in whitened), jnp.eye(self.rank, dtype=scales[0].dtype))
        log_det = 2 * jnp.sum(jnp.log(jnp.diagonal(jnp.linalg.cholesky(inner))))
        log_ratio = sum(
            2 * jnp.sum(jnp.log(m) - jnp.log(s)) for m, s in zip(marginal, scales, strict=True)
        )
        return divergence(task.priors, params["mean"], marginal) + 0.5 * (log_ratio - log_det)

    @override
    def optimiser(self, task: Task) -> tuple[Optimisers, float | None]:
        return "adam", self.learning_rate

    @override
    def outputs(self, task: Task, params: dict[str, Any], x: Array, keys: Array) -> Array:
        scales = [jnp.exp(s) for s in params["log_scale"]]

        def draw(key: Array) -> list[Array]:
            first, second = jax.random.split(key)
            return gaussian_draw(self._shifted(params, first), scales, second)

        return sampled_outputs(task, draw, x, keys)

    @override
    def prior_scale(self, task: Task, params: dict[str, Any]) -> dict[str, float]:
        return prior_scales(task, params["mean"], _marginal(params))

    @override
    def notes(self, task: Task) -> tuple[str, ...]:
        return describe(task, treatments(task, self.estimator, self.positions), self.estimator)


def _marginal(params: dict[str, Any]) -> list[Array]:
    """Sds of the weights, the low-rank part included."""
    parts = zip(params["log_scale"], params["factor"], strict=True)
    return [jnp.sqrt(jnp.exp(2 * s) + jnp.sum(u**2, 0)) for s, u in parts]
