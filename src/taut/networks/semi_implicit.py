r"""A posterior over weights whose means are made by a hypernetwork from noise.

With noise :math:`z \sim N(0, I)` and weights :math:`w \mid z \sim N(\mu(z), s^2)` the marginal
:math:`q(w)` has no density in closed form, and its entropy is bounded with K further draws of the
noise (Yin and Zhou 2018, Semi-Implicit Variational Inference, equation 8):

.. math::

    E \Big[ \log p(y, w) - \log \tfrac{1}{K + 1} \sum_{k=0}^{K} q(w \mid z_k) \Big]
    \le \mathrm{ELBO},

where w was drawn with :math:`z_0`. It is a lower bound on the log evidence for every K.
"""

import dataclasses
import math
from collections.abc import Sequence
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
from jax.scipy.special import logsumexp
from jaxtyping import Array
from typing_extensions import override

from taut._core.errors import ArgumentError, listing, nearest
from taut.data.feeds import Batch
from taut.networks.mean_field import check_common, gaussian_draw
from taut.networks.posteriors import (
    AbstractWeightPosterior,
    Task,
    bound,
    describe,
    expected_log_likelihood,
    expected_outputs,
    prior_scales,
    sampled_outputs,
    treatments,
)
from taut.training import Optimisers

EMITS = ("scales", "low_rank")
HALF_LOG_2PI = 0.9189385332046727


@dataclasses.dataclass(frozen=True)
class Hyper(AbstractWeightPosterior):
    r"""A Gaussian mixed over what a hypernetwork makes of noise.

    Attributes:
        noise: dimension of the noise z.
        emits: "scales": one factor for each row of every weight, as in multiplicative normalising
            flows (Louizos and Welling 2017; Krueger et al. 2017); "low_rank": a shift of all
            weights along ``rank`` learned directions.
        width: hidden units of the hypernetwork.
        rank: directions of "low_rank".
        inner: K, further draws in the bound of the entropy; more are tighter.
        estimator: of the randomness of w given z; see :class:`MeanField`.
        initial_scale: sd of every weight at the start.
        positions: see :class:`MeanField`.
        warmup: see :class:`MeanField`.
        learning_rate: of Adam, at its peak.
    """

    noise: int = 8
    emits: str = "scales"
    width: int = 32
    rank: int = 4
    inner: int = 20
    estimator: str = "local"
    initial_scale: float = 0.02
    positions: str = "flipout"
    warmup: float = 0.5
    learning_rate: float = 1e-2
    name: ClassVar[str] = "hyper"

    def __post_init__(self) -> None:
        """Check the settings."""
        check_common(self)
        for name in ("noise", "width", "rank", "inner"):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int) or value < 1:
                raise ArgumentError(f"{name} must be a whole number of at least 1, got {value!r}")
        if self.emits not in EMITS:
            raise ArgumentError(
                f"emits: no '{self.emits}'{nearest(self.emits, EMITS)} There are {listing(EMITS)}"
            )

    @override
    def start(
        self, task: Task, weights: Sequence[Array], likelihood: dict[str, Any], key: Array
    ) -> dict[str, Any]:
        keys = jax.random.split(key, 3)
        emitted = sum(_rows(w) for w in weights) if self.emits == "scales" else self.rank
        normal = lambda k, shape: jax.random.normal(k, shape, task.architecture.dtype)
        params = {
            "mean": list(weights),
            "log_scale": [jnp.full_like(w, math.log(self.initial_scale)) for w in weights],
            "first": normal(keys[0], (self.width, self.noise)) / math.sqrt(self.noise),
            "second": 0.1 * normal(keys[1], (emitted, self.width)) / math.sqrt(self.width),
            **likelihood,
        }
        if self.emits == "low_rank":
            parts = jax.random.split(keys[2], len(weights))
            params["factor"] = [
                0.1 * normal(k, (self.rank, *w.shape)) for k, w in zip(parts, weights, strict=True)
            ]
        return params

    def means(self, params: dict[str, Any], z: Array) -> list[Array]:
        """Means of the weights given the noise."""
        emitted = params["second"] @ jnp.tanh(params["first"] @ z)
        if self.emits == "low_rank":
            return [
                m + jnp.tensordot(emitted, u, 1)
                for m, u in zip(params["mean"], params["factor"], strict=True)
            ]
        found, start = [], 0
        for m in params["mean"]:
            rows = _rows(m)
            factor = 1.0 + emitted[start : start + rows]
            found.append(m * factor.reshape(_column(m)))
            start += rows
        return found

    @override
    def loss(
        self, task: Task, params: dict[str, Any], batch: Batch, key: Array, step: Array
    ) -> tuple[Array, dict[str, Array]]:
        first, second, third = jax.random.split(key, 3)
        scales = [jnp.exp(s) for s in params["log_scale"]]
        z = jax.random.normal(first, (self.inner + 1, self.noise), task.architecture.dtype)
        several = jax.vmap(lambda z: self.means(params, z))(z)
        means = [m[0] for m in several]
        found = treatments(task, self.estimator, self.positions)
        x, y = batch.columns["x"], batch.columns["y"]
        outputs, noise = expected_outputs(task, found, means, scales, x, second)
        log_likelihood = expected_log_likelihood(
            task, outputs, noise, task.likelihood_params(params), y
        )
        divergence = self.divergence(task, params["mean"], several, scales, third)
        return bound(task, batch, log_likelihood, divergence, step)

    def divergence(
        self,
        task: Task,
        base: Sequence[Array],
        several: list[Array],
        scales: list[Array],
        key: Array,
    ) -> Array:
        """An estimate whose mean is no less than the divergence from the prior, in nats."""
        means = [m[0] for m in several]
        drawn = gaussian_draw(means, scales, key)
        log_q = jnp.zeros(self.inner + 1, drawn[0].dtype)
        log_p = jnp.zeros((), drawn[0].dtype)
        for w, b, m, s, prior in zip(drawn, base, several, scales, task.priors, strict=True):
            z = (w - m) / s
            axes = tuple(range(1, z.ndim))
            log_q = log_q - jnp.sum(0.5 * z**2 + jnp.log(s) + HALF_LOG_2PI, axes)
            # A learned prior must not follow the draw: it follows the base.
            variance = prior.variance(b, s)
            # In expectation over w given z this has a closed form.
            square = ((m[0] - prior.mean) ** 2 + s**2) / variance
            log_p = log_p - jnp.sum(0.5 * square + 0.5 * jnp.log(variance) + HALF_LOG_2PI)
        return logsumexp(log_q) - math.log(self.inner + 1) - log_p

    @override
    def optimiser(self, task: Task) -> tuple[Optimisers, float | None]:
        return "adam", self.learning_rate

    @override
    def outputs(self, task: Task, params: dict[str, Any], x: Array, keys: Array) -> Array:
        scales = [jnp.exp(s) for s in params["log_scale"]]

        def draw(key: Array) -> list[Array]:
            first, second = jax.random.split(key)
            z = jax.random.normal(first, (self.noise,), task.architecture.dtype)
            return gaussian_draw(self.means(params, z), scales, second)

        return sampled_outputs(task, draw, x, keys)

    @override
    def prior_scale(self, task: Task, params: dict[str, Any]) -> dict[str, float]:
        scales = [jnp.exp(s) for s in params["log_scale"]]
        return prior_scales(task, params["mean"], scales)

    @override
    def notes(self, task: Task) -> tuple[str, ...]:
        entropy = (
            f"the entropy is a semi-implicit lower bound with {self.inner} further draws, so that the ELBO is "
            "a lower bound of the true one"
        )
        found = treatments(task, self.estimator, self.positions)
        return (entropy, *describe(task, found, self.estimator))


def _rows(weight: Array) -> int:
    """Rows of a weight, each of which has a factor: the units of a layer."""
    return weight.shape[0] if weight.ndim else 1


def _column(weight: Array) -> tuple[int, ...]:
    return (weight.shape[0],) + (1,) * (weight.ndim - 1) if weight.ndim else ()
