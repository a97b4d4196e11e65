r"""What a posterior over weights has to offer, and the expected log likelihood that most of them need.

Everything here is in the module's own coordinates and per row of standardised data: the loss is
minus the ELBO divided by the number of rows.
"""

import abc
import dataclasses
import math
from collections.abc import Sequence
from typing import Any, ClassVar, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from taut._core.errors import ArgumentError, listing, nearest
from taut.data.feeds import Batch
from taut.networks.architecture import Architecture
from taut.networks.likelihoods import AbstractLikelihood
from taut.networks.priors import PriorScale
from taut.networks.propagate import Gaussian, Noise, Treatment, needs_shared, propagate, treat
from taut.training import Optimisers

WARMUP_START = 1e-3  # of the factor of the divergence from the prior
ESTIMATORS = ("local", "flipout", "shared")


@dataclasses.dataclass(frozen=True, eq=False)
class Task:
    """What is to be inferred.

    Attributes:
        architecture: the module, taken apart.
        likelihood: of the targets given the outputs.
        priors: of each weight.
        num_rows: N, rows of the training data.
        tempering: factor of the divergence from the prior at the end; 1 for the ELBO.
        warmup: steps in which that factor rises from a tenth.
    """

    architecture: Architecture
    likelihood: AbstractLikelihood
    priors: tuple[PriorScale, ...]
    num_rows: int
    tempering: float = 1.0
    warmup: int = 0

    def divergence_weight(self, step: Array) -> Array:
        """Factor of the divergence from the prior at a step of training, ().

        Without a warm-up most units of a layer are given up before they have learned anything,
        and the bound stays at a worse optimum (Sonderby et al. 2016). It is the ELBO's own
        before training ends.
        """
        if not self.warmup:
            return jnp.full((), self.tempering)
        share = jnp.clip(step / self.warmup, 0.0, 1.0)
        return self.tempering * (WARMUP_START + (1.0 - WARMUP_START) * share)

    def likelihood_params(self, params: dict[str, Any]) -> dict[str, Array]:
        """The likelihood's parameters, known and learned."""
        known = jax.lax.stop_gradient(params["known"])
        return {**known, **params["likelihood"]}


class Curvature(NamedTuple):
    """What a posterior knows of its evidence beside the ELBO, in nats.

    Attributes:
        log_evidence: exact, or Laplace's approximation of it; NaN where there is none.
        exact: whether it is the evidence itself, of the last layer given everything else.
    """

    log_evidence: float
    exact: bool


class AbstractWeightPosterior(abc.ABC):
    """Frozen settings of a posterior over weights, and how it is trained.

    Parameters are a dictionary. Its part "likelihood" holds those of the likelihood that are
    learned, "known" those that are not.
    """

    name: ClassVar[str]
    # Share of training in which the divergence's factor rises.
    warmup: float
    # Whether minus N times the loss is a lower bound on the log evidence.
    is_bound: ClassVar[bool] = True

    @abc.abstractmethod
    def start(
        self, task: Task, weights: Sequence[Array], likelihood: dict[str, Any], key: Array
    ) -> dict[str, Any]:
        """Parameters to begin with.

        Args:
            task: what is to be inferred.
            weights: of the module, to begin at.
            likelihood: the parts "likelihood" and "known".
            key: for random parts.
        """

    @abc.abstractmethod
    def loss(
        self, task: Task, params: dict[str, Any], batch: Batch, key: Array, step: Array
    ) -> tuple[Array, dict[str, Array]]:
        """What is minimised, in nats per row; and {"elbo": an estimate of the bound, in nats}."""

    @abc.abstractmethod
    def optimiser(self, task: Task) -> tuple[Optimisers, float | None]:
        """How the parameters are trained: an optimiser or its name, and the rate of a name."""

    @abc.abstractmethod
    def outputs(self, task: Task, params: dict[str, Any], x: Array, keys: Array) -> Array:
        """Outputs for rows under draws of the weights, (draws, rows, ...).

        Args:
            task: what is inferred.
            params: trained.
            x: rows.
            keys: one for each draw; equal keys give equal weights, whatever the rows.
        """

    def likelihood_params(self, task: Task, params: dict[str, Any], draws: int) -> dict[str, Any]:
        """The likelihood's parameters for each draw, (draws, ...).

        Args:
            task: what is inferred.
            params: trained.
            draws: how many.
        """
        own = task.likelihood_params(params)
        return jax.tree.map(lambda v: jnp.broadcast_to(v, (draws, *v.shape)), own)

    @abc.abstractmethod
    def prior_scale(self, task: Task, params: dict[str, Any]) -> dict[str, float]:
        """Sd of each weight's prior by its name, the learned ones as they were found."""

    @abc.abstractmethod
    def notes(self, task: Task) -> tuple[str, ...]:
        """Sentences that the reader of a result should see."""


def no_evidence() -> Curvature:
    """What is known where there is only a bound."""
    return Curvature(float("nan"), False)


class AbstractFinished(AbstractWeightPosterior):
    """A posterior that needs a pass over all data after training."""

    @abc.abstractmethod
    def finish(
        self, task: Task, params: dict[str, Any], chunks: Sequence[dict[str, Array]]
    ) -> tuple[dict[str, Any], Curvature]:
        """The final parameters, and what is known of the evidence.

        Args:
            task: what is to be inferred.
            params: trained.
            chunks: all rows in order, in pieces.
        """


def check_estimator(estimator: str, positions: str) -> None:
    """Raise an ArgumentError for an unknown estimator of the weights' randomness."""
    if estimator not in ESTIMATORS:
        raise ArgumentError(
            f"estimator: no '{estimator}'{nearest(estimator, ESTIMATORS)} There are {listing(ESTIMATORS)}"
        )
    if positions not in ("flipout", "marginal"):
        raise ArgumentError(f"positions must be 'flipout' or 'marginal', got {positions!r}")


def treatments(task: Task, estimator: str, positions: str) -> tuple[Treatment, ...]:
    """How the randomness of each weight enters."""
    parts = zip(task.architecture.uses, task.architecture.initial, strict=True)
    return tuple(treat(use, w.size, estimator, positions) for use, w in parts)


def describe(task: Task, found: Sequence[Treatment], asked: str) -> tuple[str, ...]:
    """Sentences about weights whose randomness enters otherwise than was asked for."""
    expected = {
        "local": (Treatment.LOCAL, Treatment.DATUM),
        "flipout": (Treatment.FLIPOUT, Treatment.DATUM),
        "shared": (Treatment.SHARED,),
    }[asked]
    notes = []
    for name, use, treatment in zip(
        task.architecture.names, task.architecture.uses, found, strict=True
    ):
        if treatment not in expected:
            why = use.reason or f"it {use.role.value}"
            notes.append(f"weight '{name}': {treatment.value}, since {why}")
    return tuple(notes)


def expected_outputs(
    task: Task,
    found: Sequence[Treatment],
    means: Sequence[Array],
    scales: Sequence[Array],
    x: Array,
    key: Array,
) -> tuple[Array | Gaussian, Array]:
    """Outputs for rows under independent Gaussian weights, and noise to draw the likelihood's part.

    Args:
        task: what is to be inferred.
        found: how the randomness of each weight enters.
        means: of each weight.
        scales: standard deviations of each weight.
        x: rows.
        key: of this step.

    Returns:
        (rows, ...) arrays, or Gaussians of that shape; standard normal noise of that shape.
    """
    common, own = jax.random.split(key)
    shared = shared_noise(found, means, common)
    size = num_normals(task, found, means, scales, shared, x[0])
    shape = task.architecture.output_shape
    noise = jax.random.normal(own, (x.shape[0], size + math.prod(shape)), task.architecture.dtype)
    program = task.architecture.program
    outputs = jax.vmap(lambda n, x: propagate(program, found, means, scales, shared, Noise(n), x))(
        noise[:, :size], x
    )
    return outputs, noise[:, size:].reshape(x.shape[0], *shape)


def shared_noise(
    found: Sequence[Treatment], means: Sequence[Array], key: Array
) -> list[Array | None]:
    """Standard normal noise of the weights that have some in common for a batch."""
    needed = [m for m, t in zip(means, found, strict=True) if needs_shared(t)]
    drawn = iter(normals(needed, key))
    return [next(drawn) if needs_shared(t) else None for t in found]


def normals(like: Sequence[Array], key: Array) -> list[Array]:
    """Standard normal numbers in the shapes of some arrays, drawn in one go."""
    if not like:
        return []
    sizes = [x.size for x in like]
    vector = jax.random.normal(key, (sum(sizes),), jnp.result_type(*like))
    ends = np.cumsum(sizes)
    return [
        vector[end - n : end].reshape(x.shape).astype(x.dtype)
        for x, n, end in zip(like, sizes, ends, strict=True)
    ]


def num_normals(
    task: Task,
    found: Sequence[Treatment],
    means: Sequence[Array],
    scales: Sequence[Array],
    shared: Sequence[Array | None],
    x: Array,
) -> int:
    """Standard normal numbers that one datum takes."""
    counter = Noise(None)
    program = task.architecture.program
    jax.eval_shape(lambda x: propagate(program, found, means, scales, shared, counter, x), x)
    return counter.used


def expected_log_likelihood(
    task: Task, outputs: Array | Gaussian, noise: Array, params: dict[str, Array], y: Array
) -> Array:
    """Expected log probability of each row's target, in nats, (rows,)."""
    likelihood = task.likelihood
    if isinstance(outputs, Gaussian):
        return jax.vmap(
            lambda m, v, e, t: likelihood.expected_log_prob(Gaussian(m, v), t, params, e)
        )(outputs.mean, outputs.variance, noise, y)
    return jax.vmap(lambda f, t: likelihood.log_prob(f, t, params))(outputs, y)


def bound(
    task: Task, batch: Batch, log_likelihood: Array, divergence: Array, step: Array
) -> tuple[Array, dict[str, Array]]:
    """The loss in nats per row, and the ELBO in nats.

    A batch's mean over the rows that are no padding is unbiased for the mean over all rows, and
    there are N of these, whatever the size of the batch.
    """
    weight = (batch.weight / jnp.sum(batch.weight)).astype(log_likelihood.dtype)
    mean = jnp.sum(weight * log_likelihood)
    factor = task.divergence_weight(step).astype(mean.dtype)
    loss = -mean + factor * divergence / task.num_rows
    return loss, {"elbo": task.num_rows * mean - divergence}


def sampled_outputs(task: Task, draw: Any, x: Array, keys: Array) -> Array:
    """Outputs for rows under weights that ``draw`` makes from each key, (draws, rows, ...)."""

    def one(key: Array) -> Array:
        module = task.architecture.rebuild(draw(key))
        return jax.vmap(module)(x)

    return jax.lax.map(one, keys)


def prior_scales(task: Task, means: Sequence[Array], scales: Sequence[Array]) -> dict[str, float]:
    """Sd of each weight's prior by its name, the learned ones at their optimum."""
    parts = zip(task.architecture.names, task.priors, means, scales, strict=True)
    return {name: float(jnp.sqrt(p.variance(m, s))) for name, p, m, s in parts}


def shuffled(weights: Sequence[Array], key: Array) -> list[Array]:
    """Weights to begin with for another of several fits.

    A shuffle within each weight is a new draw from the law by which the module was initialised,
    whatever that was, as long as its elements are exchangeable.
    """
    keys = jax.random.split(key, len(weights))
    return [
        jax.random.permutation(k, w.ravel()).reshape(w.shape)
        for k, w in zip(keys, weights, strict=True)
    ]
