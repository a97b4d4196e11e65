r"""A dense Gaussian over the last layer's weights, with features that are trained beside it.

The bound for a minibatch has the expected log likelihood of Gaussian outputs in closed form where
the likelihood has one (variational Bayesian last layers; Harrison, Willes and Snoek 2024). For a
Normal likelihood the last layer is conjugate given the features: after training its posterior is
replaced by the exact one, and noise and prior scale by those of largest evidence (MacKay 1992).
"""

import dataclasses
import functools
import math
from collections.abc import Sequence
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array
from typing_extensions import override

from taut._core.errors import ArgumentError, ModelError
from taut.data.feeds import Batch
from taut.networks.affine import (
    Selection,
    Statistics,
    check_dense,
    conjugate,
    matched,
    maximise,
    over_slopes,
    select,
)
from taut.networks.mean_field import MeanField, gaussian_draw
from taut.networks.posteriors import (
    AbstractFinished,
    Curvature,
    Task,
    bound,
    no_evidence,
    num_normals,
    shared_noise,
    treatments,
)
from taut.networks.priors import divergence, log_density
from taut.networks.propagate import Gaussian, Noise, Treatment, propagate
from taut.networks.regression import Normal
from taut.training import Optimisers

MEAN_FIELD = MeanField()
FEATURE_DRAWS = 32  # over which the last layer's sums are averaged where features are random


@dataclasses.dataclass(frozen=True)
class LastLayer(AbstractFinished):
    """A dense Gaussian over the last layer's weights.

    Attributes:
        features: the posterior over all other weights: a :class:`MeanField`, or None for a point,
            the maximum of bound plus log prior. With a point the ELBO is that of the last layer
            given the features.
        learn_prior: whether the prior sd of the last layer's weights maximises the evidence after
            training (Normal likelihood).
        initial_scale: sd of the last layer's weights at the start.
        warmup: see :class:`MeanField`.
        learning_rate: of Adam, at its peak.
    """

    features: MeanField | None = MEAN_FIELD
    learn_prior: bool = True
    initial_scale: float = 0.02
    warmup: float = 0.5
    learning_rate: float = 1e-2
    name: ClassVar[str] = "last_layer"

    def __post_init__(self) -> None:
        """Check the settings."""
        for name in ("initial_scale", "learning_rate"):
            value = getattr(self, name)
            if not (value > 0 and math.isfinite(value)):
                raise ArgumentError(f"{name} must be positive and finite, got {value}")
        if not 0 <= self.warmup < 1:
            raise ArgumentError(f"warmup must be a share of training, in [0, 1), got {self.warmup}")

    # --- what is trained ----------------------------------------------------------------------

    @override
    def start(
        self, task: Task, weights: Sequence[Array], likelihood: dict[str, Any], key: Array
    ) -> dict[str, Any]:
        last = last_layer(task)
        mean = last.take(weights)
        inner = [w for i, w in enumerate(weights) if i not in last.positions]
        params = {
            "mean": inner,
            "last_mean": mean,
            "last_root": math.log(self.initial_scale) * jnp.eye(last.dim, dtype=mean.dtype),
            "last_prior": jnp.asarray(
                np.log([task.priors[p].scale for p in last.positions]), mean.dtype
            ),
            **likelihood,
        }
        if self.features is not None:
            start = math.log(self.features.initial_scale)
            params["log_scale"] = [jnp.full_like(w, start) for w in inner]
        return params

    @override
    def loss(
        self, task: Task, params: dict[str, Any], batch: Batch, key: Array, step: Array
    ) -> tuple[Array, dict[str, Array]]:
        first, second = jax.random.split(key)
        x, y = batch.columns["x"], batch.columns["y"]
        offset, slope = self.affine(task, params, x, first)
        noise = jax.random.normal(second, offset.shape, offset.dtype)
        mean = offset + slope @ params["last_mean"]
        half = slope @ _root(params["last_root"])
        likelihood, own = task.likelihood, task.likelihood_params(params)
        if likelihood.separable:
            variance = jnp.sum(half**2, -1)
            log_likelihood = jax.vmap(
                lambda m, v, t, e: likelihood.expected_log_prob(Gaussian(m, v), t, own, e)
            )(mean, variance, y, noise)
        else:
            f = jax.vmap(_joint_draw)(mean, half, noise)
            log_likelihood = jax.vmap(lambda f, t: likelihood.log_prob(f, t, own))(f, y)
        kl = self._last_divergence(task, params)
        if self.features is not None:
            scales = [jnp.exp(s) for s in params["log_scale"]]
            return bound(
                task, batch, log_likelihood,
                kl + divergence(_inner(task, task.priors), params["mean"], scales), step,
            )  # fmt: skip
        loss, info = bound(task, batch, log_likelihood, kl, step)
        penalty = log_density(_inner(task, task.priors), params["mean"])
        weight = task.divergence_weight(step).astype(loss.dtype)
        return loss - weight * penalty / task.num_rows, info

    def affine(
        self, task: Task, params: dict[str, Any], x: Array, key: Array
    ) -> tuple[Array, Array]:
        """Outputs as affine functions of the last layer, under a draw of the features.

        Returns:
            Offsets (rows, outputs) and slopes (rows, outputs, dim).
        """
        last, architecture = last_layer(task), task.architecture
        found = self._treatments(task)
        means = _interleaved(task, params["mean"], last)
        scales = [jnp.zeros_like(m) for m in means]
        if self.features is not None:
            scales = _interleaved(task, [jnp.exp(s) for s in params["log_scale"]], last)
        common, own = jax.random.split(key)
        shared = shared_noise(found, means, common)
        size = num_normals(task, found, means, scales, shared, x[0])
        noise = jax.random.normal(own, (x.shape[0], size), architecture.dtype)
        zero = jnp.zeros(last.dim, means[0].dtype)

        def one(noise: Array, x: Array) -> tuple[Array, Array]:
            def output(vector: Array) -> Array:
                full = last.put(means, vector)
                given = Noise(noise)
                f = propagate(architecture.program, found, full, scales, shared, given, x)
                assert not isinstance(f, Gaussian), "the last layer is no Gaussian here"
                return jnp.reshape(f, (-1,))

            return output(zero), jax.jacrev(output)(zero)

        return jax.vmap(one)(noise, x)

    def _treatments(self, task: Task) -> tuple[Treatment, ...]:
        last = last_layer(task).positions
        if self.features is None:
            return (Treatment.SHARED,) * len(task.architecture.names)
        found = treatments(task, self.features.estimator, self.features.positions)
        return tuple(Treatment.SHARED if i in last else t for i, t in enumerate(found))

    def _last_divergence(self, task: Task, params: dict[str, Any]) -> Array:
        """KL divergence of the last layer's Gaussian from its prior, in nats."""
        last, lower = last_layer(task), _root(params["last_root"])
        scale = _spread(last, jnp.exp(jax.lax.stop_gradient(params["last_prior"])))
        centre = jnp.asarray(last.spread([task.priors[p].mean for p in last.positions]))
        z = (params["last_mean"] - centre.astype(scale.dtype)) / scale
        trace = jnp.sum((lower / scale[:, None]) ** 2)
        log_det = 2 * jnp.sum(jnp.log(scale)) - 2 * jnp.sum(jnp.log(jnp.diagonal(lower)))
        return 0.5 * (trace + z @ z - last.dim + log_det)

    @override
    def optimiser(self, task: Task) -> tuple[Optimisers, float | None]:
        return "adam", self.learning_rate

    # --- after training -----------------------------------------------------------------------

    @override
    def finish(
        self, task: Task, params: dict[str, Any], chunks: Sequence[dict[str, Array]]
    ) -> tuple[dict[str, Any], Curvature]:
        if not isinstance(task.likelihood, Normal):
            return params, no_evidence()
        last, dtype = last_layer(task), params["last_mean"].dtype
        statistics = self._statistics(task, params, chunks)
        own = task.likelihood_params(params)
        noise, learned = np.exp(np.asarray(own["log_scale"], float)), bool(params["likelihood"])
        priors = [task.priors[p] for p in last.positions]
        scales = np.exp(np.asarray(params["last_prior"], float))
        # Biases and such keep their prior: of a single number there is no scale to learn.
        free = [i for i, n in enumerate(last.sizes) if n > 1 and self.learn_prior]
        centre = last.spread([p.mean for p in priors])

        def settled(v: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
            sds = noise * np.exp(v[: len(noise)]) if learned else noise
            factors = np.ones(len(scales))
            factors[free] = np.exp(v[len(v) - len(free) :])
            return sds, scales * factors

        def evidence(v: np.ndarray) -> float:
            sds, prior = settled(v)
            return conjugate(statistics, sds, centre, last.spread(prior)).log_evidence

        sds, prior = settled(maximise(evidence, learned * len(noise) + len(free)))
        exact = conjugate(statistics, sds, centre, last.spread(prior))
        lower = exact.root
        packed = np.tril(lower, -1) + np.diag(np.log(np.diagonal(lower)))
        found = {
            **params,
            "last_mean": jnp.asarray(exact.mean, dtype),
            "last_root": jnp.asarray(packed, dtype),
            "last_prior": jnp.asarray(np.log(prior), dtype),
        }
        if learned:
            found["likelihood"] = {"log_scale": jnp.asarray(np.log(sds), dtype)}
        is_evidence = self.features is None
        return found, Curvature(exact.log_evidence if is_evidence else math.nan, is_evidence)

    def _statistics(
        self, task: Task, params: dict[str, Any], chunks: Sequence[dict[str, Array]]
    ) -> Statistics:
        """Sums over all rows, averaged over draws of the features."""
        draws = 1 if self.features is None else FEATURE_DRAWS
        keys = jax.random.split(jax.random.key(0), draws * len(chunks)).reshape(len(chunks), draws)
        total: Any = None
        for chunk, several in zip(chunks, keys, strict=True):
            for key in several:
                offset, slope = _affine(self, task, params, chunk["x"], key)
                part = [p / draws for p in _sums(offset, slope, chunk["y"])]
                total = part if total is None else [a + b for a, b in zip(total, part, strict=True)]
        return Statistics(*total, rows=task.num_rows)

    # --- predictions --------------------------------------------------------------------------

    @override
    def outputs(self, task: Task, params: dict[str, Any], x: Array, keys: Array) -> Array:
        last, lower = last_layer(task), _root(params["last_root"])
        mean, shape = params["last_mean"], (-1, *task.architecture.output_shape)

        def draw(key: Array) -> Array:
            first, second = jax.random.split(key)
            inner = params["mean"]
            if self.features is not None:
                inner = gaussian_draw(inner, [jnp.exp(s) for s in params["log_scale"]], first)
            z = jax.random.normal(second, (last.dim,), mean.dtype)
            weights = last.put(_interleaved(task, inner, last), mean + lower @ z)
            return jax.vmap(task.architecture.rebuild(weights))(x)

        found = jax.lax.map(draw, keys)
        if self.features is not None:
            return found
        weights = _interleaved(task, params["mean"], last)

        def output(vector: Array, x: Array) -> Array:
            return task.architecture.apply(last.put(weights, vector), x)

        centre, variance = over_slopes(
            output, mean, x, lambda f, slope: (f, jnp.sum((slope @ lower) ** 2, -1))
        )
        return matched(found, centre.reshape(shape), variance.reshape(shape))

    @override
    def prior_scale(self, task: Task, params: dict[str, Any]) -> dict[str, float]:
        names, last = task.architecture.names, last_layer(task)
        found = {name: p.scale for name, p in zip(names, task.priors, strict=True)}
        for position, value in zip(last.positions, params["last_prior"], strict=True):
            found[names[position]] = float(jnp.exp(value))
        return found

    @override
    def notes(self, task: Task) -> tuple[str, ...]:
        names = ", ".join(task.architecture.names[p] for p in last_layer(task).positions)
        note = f"the last layer is {names}"
        if self.features is None:
            note += (
                "; ELBO and evidence are those of the last layer given all other weights, which nothing "
                "keeps from overfitting but their prior"
            )
        return (note,)


def last_layer(task: Task) -> Selection:
    """The weights of the last layer.

    Raises:
        ModelError: if the module's output is no affine function of them, or they are too many.
    """
    positions = task.architecture.last_layer
    if not positions:
        raise ModelError(
            "posterior: the module's output is no affine function of any of its weights, so that it has no "
            "last layer with an exact posterior; leave the last activation to the likelihood, or try 'mean_field'"
        )
    found = select(task.architecture.initial, positions)
    check_dense(found, "'mean_field', or a narrower last layer")
    return found


def _inner(task: Task, values: Sequence[Any]) -> list[Any]:
    """Those that do not belong to the last layer."""
    last = last_layer(task).positions
    return [v for i, v in enumerate(values) if i not in last]


def _interleaved(task: Task, inner: Sequence[Array], last: Selection) -> list[Array]:
    """Values for all weights from those of the features, with zeros for the last layer."""
    rest = iter(inner)
    return [
        jnp.zeros_like(w) if i in last.positions else next(rest)
        for i, w in enumerate(task.architecture.initial)
    ]


def _root(packed: Array) -> Array:
    """A lower-triangular matrix from one with the logs of its diagonal."""
    return jnp.tril(packed, -1) + jnp.diag(jnp.exp(jnp.diagonal(packed)))


def _spread(last: Selection, values: Array) -> Array:
    return jnp.concatenate([jnp.full(n, v) for v, n in zip(values, last.sizes, strict=True)])


def _joint_draw(mean: Array, half: Array, noise: Array) -> Array:
    """A draw of dependent Gaussian outputs with covariance half @ half.T."""
    covariance = half @ half.T
    ridge = 1e-6 * jnp.mean(jnp.diagonal(covariance)) + 1e-12
    return mean + jnp.linalg.cholesky(covariance + ridge * jnp.eye(len(mean))) @ noise


@functools.partial(jax.jit, static_argnums=(0, 1))
def _affine(posterior: LastLayer, task: Task, params: Any, x: Array, key: Array) -> Any:
    return posterior.affine(task, params, x, key)


def _sums(offset: Any, slope: Any, y: Any) -> tuple[np.ndarray, ...]:
    """Sums over rows in double precision, in which the Gram matrix has no negative eigenvalue."""
    slopes = np.moveaxis(np.asarray(slope, float), 1, 0)
    residuals = (np.asarray(y, float) - np.asarray(offset, float)).T
    gram = np.stack([s.T @ s for s in slopes])
    cross = np.stack([s.T @ r for s, r in zip(slopes, residuals, strict=True)])
    return gram, cross, np.sum(residuals**2, 1)
