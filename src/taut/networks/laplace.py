r"""Laplace's approximation: a Gaussian at the maximum of the posterior density.

Its precision is the generalised Gauss-Newton matrix plus the prior's. Predictions are those of the
module linearised at the maximum, of which that Gaussian is the exact posterior for a Normal
likelihood (Immer, Korzepa and Bauer 2021); the prior's scale maximises the approximate evidence
(MacKay 1992).
"""

import dataclasses
import functools
import math
from collections.abc import Sequence
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np
import scipy.linalg
from jaxtyping import Array
from typing_extensions import override

from taut._core.errors import ArgumentError, listing, nearest
from taut._core.precision import double_precision
from taut.data.feeds import Batch
from taut.networks.affine import Selection, check_dense, matched, maximise, over_slopes, select
from taut.networks.last_layer import last_layer
from taut.networks.posteriors import AbstractFinished, Curvature, Task
from taut.networks.priors import log_density
from taut.training import Optimisers

STRUCTURES = ("diagonal", "last", "full")


@dataclasses.dataclass(frozen=True)
class Laplace(AbstractFinished):
    """A Gaussian at the maximum of the posterior density, with its curvature there.

    Attributes:
        structure: of the covariance: "diagonal" over all weights, "last" dense over those of the
            last layer and none elsewhere, "full" dense over all weights.
        learn_prior: multiply the prior's sds by the factor that maximises the approximate evidence.
        learning_rate: of Adam, at its peak.
    """

    structure: str = "last"
    learn_prior: bool = True
    learning_rate: float = 1e-2
    name: ClassVar[str] = "laplace"
    warmup: ClassVar[float] = 0.0
    is_bound: ClassVar[bool] = False

    def __post_init__(self) -> None:
        """Check the settings."""
        if self.structure not in STRUCTURES:
            raise ArgumentError(
                f"structure: no '{self.structure}'{nearest(self.structure, STRUCTURES)} "
                f"There are {listing(STRUCTURES)}"
            )
        if not (self.learning_rate > 0 and math.isfinite(self.learning_rate)):
            raise ArgumentError(
                f"learning_rate must be positive and finite, got {self.learning_rate}"
            )

    @override
    def start(
        self, task: Task, weights: Sequence[Array], likelihood: dict[str, Any], key: Array
    ) -> dict[str, Any]:
        self._selection(task)
        return {"mean": list(weights), **likelihood}

    def _selection(self, task: Task) -> Selection:
        if self.structure == "last":
            return last_layer(task)
        found = select(task.architecture.initial, range(len(task.architecture.initial)))
        if self.structure == "full":
            check_dense(found, "structure='diagonal' or 'last'")
        return found

    @override
    def loss(
        self, task: Task, params: dict[str, Any], batch: Batch, key: Array, step: Array
    ) -> tuple[Array, dict[str, Array]]:
        own, likelihood = task.likelihood_params(params), task.likelihood
        module = task.architecture.rebuild(params["mean"])
        found = jax.vmap(lambda x, y: likelihood.log_prob(module(x), y, own))(
            batch.columns["x"], batch.columns["y"]
        )
        weight = (batch.weight / jnp.sum(batch.weight)).astype(found.dtype)
        prior = task.tempering * log_density(task.priors, params["mean"])
        log_joint = jnp.sum(weight * found) + prior / task.num_rows
        return -log_joint, {"log_joint": task.num_rows * log_joint}

    @override
    def optimiser(self, task: Task) -> tuple[Optimisers, float | None]:
        return "adam", self.learning_rate

    @override
    def finish(
        self, task: Task, params: dict[str, Any], chunks: Sequence[dict[str, Array]]
    ) -> tuple[dict[str, Any], Curvature]:
        selection = self._selection(task)
        with double_precision():
            wide = jax.tree.map(_wide, params)
            parts = [_curvature(self, task, wide, _wide(c["x"]), _wide(c["y"])) for c in chunks]
            parts = jax.tree.map(np.asarray, parts)
        log_likelihood = float(sum(float(p[0]) for p in parts))
        matrix = np.sum([np.asarray(p[1], float) for p in parts], 0)
        chosen = [task.priors[p] for p in selection.positions]
        scale = selection.spread([p.scale for p in chosen])
        distance = np.asarray(selection.take(params["mean"]), float)
        distance = distance - selection.spread([p.mean for p in chosen])

        def evidence(v: np.ndarray) -> float:
            sds = scale * np.exp(v[0]) if len(v) else scale
            log_det = _log_det(matrix, sds**-2.0)
            fit = np.sum((distance / sds) ** 2) + 2 * np.sum(np.log(sds)) + log_det
            return log_likelihood - 0.5 * float(fit)

        factor = maximise(evidence, int(self.learn_prior))
        sds = scale * np.exp(factor[0]) if self.learn_prior else scale
        dtype = params["mean"][0].dtype
        root = _root(matrix, sds**-2.0)
        found = {**params, "root": jnp.asarray(root, dtype)}
        found["factor"] = jnp.asarray(np.exp(factor), dtype)
        return found, Curvature(evidence(factor), False)

    @override
    def outputs(self, task: Task, params: dict[str, Any], x: Array, keys: Array) -> Array:
        selection, root = self._selection(task), params["root"]
        weights, shape = params["mean"], (-1, *task.architecture.output_shape)
        z = jax.vmap(lambda k: jax.random.normal(k, (selection.dim,), root.dtype))(keys)

        def use(centre: Array, slope: Array) -> tuple[Array, Array, Array]:
            half = slope * root if root.ndim == 1 else slope @ root
            return centre, jnp.sum(half**2, -1), centre + z @ half.T

        function = _function(task, selection, weights)
        centre, variance, draws = over_slopes(function, selection.take(weights), x, use)
        found = matched(jnp.swapaxes(draws, 0, 1), centre, variance)
        return found.reshape(len(keys), *shape)

    @override
    def prior_scale(self, task: Task, params: dict[str, Any]) -> dict[str, float]:
        chosen = self._selection(task).positions
        factor = float(params["factor"][0]) if len(params["factor"]) else 1.0
        return {
            name: p.scale * (factor if i in chosen else 1.0)
            for i, (name, p) in enumerate(zip(task.architecture.names, task.priors, strict=True))
        }

    @override
    def notes(self, task: Task) -> tuple[str, ...]:
        covered = {"last": "of the last layer only", "diagonal": "of all weights, diagonal"}
        which = covered.get(self.structure, "of all weights")
        return (f"Laplace's approximation is no lower bound; its covariance is that {which}",)


def _wide(x: Array) -> Array:
    """Real numbers in double precision."""
    return jnp.asarray(x, float) if jnp.issubdtype(x.dtype, jnp.floating) else x


def _function(task: Task, selection: Selection, weights: Sequence[Array]) -> Any:
    return lambda vector, x: task.architecture.apply(selection.put(weights, vector), x)


@functools.partial(jax.jit, static_argnums=(0, 1))
def _curvature(posterior: Laplace, task: Task, params: Any, x: Array, y: Array) -> Any:
    """Log likelihood, and the Gauss-Newton matrix or its diagonal, summed over rows."""
    selection, own = posterior._selection(task), task.likelihood_params(params)
    weights, likelihood = params["mean"], task.likelihood
    function = _function(task, selection, weights)
    point, shape = selection.take(weights), task.architecture.output_shape
    diagonal = posterior.structure == "diagonal"

    def one(total: Any, row: Any) -> tuple[Any, None]:
        x, y = row

        def flat(v: Array) -> Array:
            return jnp.reshape(function(v, x), (-1,))

        f, slope = flat(point), jax.jacrev(flat)(point)
        weighted = likelihood.fisher(f.reshape(shape), own) @ slope
        part = jnp.sum(slope * weighted, 0) if diagonal else slope.T @ weighted
        value = likelihood.log_prob(f.reshape(shape), y, own)
        return (total[0] + value, total[1] + part), None

    size = (selection.dim,) if diagonal else (selection.dim, selection.dim)
    zero = jnp.zeros((), point.dtype), jnp.zeros(size, point.dtype)
    return jax.lax.scan(one, zero, (x, y))[0]


def _log_det(matrix: np.ndarray, precision: np.ndarray) -> float:
    """Log determinant of a matrix, or of a diagonal one, plus a diagonal."""
    if matrix.ndim == 1:
        return float(np.sum(np.log(matrix + precision)))
    lower = scipy.linalg.cholesky(matrix + np.diag(precision), lower=True)
    return float(2 * np.sum(np.log(np.diagonal(lower))))


def _root(matrix: np.ndarray, precision: np.ndarray) -> np.ndarray:
    """A root of the inverse: a matrix R with R @ R.T, or the sds where all is diagonal."""
    if matrix.ndim == 1:
        return 1 / np.sqrt(matrix + precision)
    lower = scipy.linalg.cholesky(matrix + np.diag(precision), lower=True)
    return scipy.linalg.solve_triangular(lower, np.eye(len(lower)), lower=True, trans=1)
