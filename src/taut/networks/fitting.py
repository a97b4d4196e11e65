"""From a module and rows of data to a posterior over its weights."""

import dataclasses
import functools
import hashlib
import math
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array

from taut._core.progress import Watch
from taut.data.feeds import Batch, InMemory, check_batch_size
from taut.networks.architecture import take_apart
from taut.networks.ensemble import side_by_side
from taut.networks.likelihoods import AbstractLikelihood
from taut.networks.posteriors import (
    AbstractFinished,
    AbstractWeightPosterior,
    Task,
    no_evidence,
    shuffled,
)
from taut.networks.priors import AbstractWeightPrior
from taut.networks.result import NetworkPosterior
from taut.networks.rows import Scaling, check_inputs, check_targets, find_scaling
from taut.training import Trained, Training, train

BATCH_SIZE = 256
STEPS = 5_000  # of a fit that names no epochs
EVALUATED_ROWS = 200_000  # over all draws of the ELBO's estimate
EVALUATED_DRAWS = 32  # at most
NEVER = 2**31 - 1  # a step after every warm-up
CHUNK = 4096  # rows in a pass over all data


@dataclasses.dataclass(frozen=True)
class Settings:
    """How a posterior is trained; see :meth:`BayesianNetwork.fit`."""

    batch_size: int | None
    epochs: int | None
    seed: int
    checkpoint: str | Path | None

    def rows_per_batch(self, num_rows: int) -> int:
        """Rows of a minibatch."""
        wanted = BATCH_SIZE if self.batch_size is None else check_batch_size(self.batch_size)
        return min(wanted, num_rows)

    def passes(self, num_rows: int) -> int:
        """Passes over the data."""
        if self.epochs is not None:
            return self.epochs
        return math.ceil(STEPS / math.ceil(num_rows / self.rows_per_batch(num_rows)))

    def steps(self, num_rows: int) -> int:
        """Steps in all."""
        return self.passes(num_rows) * math.ceil(num_rows / self.rows_per_batch(num_rows))


@dataclasses.dataclass(frozen=True, eq=False)
class Prepared:
    """Data brought into the network's form.

    Attributes:
        task: what is to be inferred.
        columns: "x" and "y", standardised, (rows, ...).
        start: the likelihood's parameters to begin with, "likelihood" and "known".
        scaling: how the data were standardised.
        row_shape: of one row of inputs.
        target_shape: of one row's target.
    """

    task: Task
    columns: dict[str, np.ndarray]
    start: dict[str, Any]
    scaling: Scaling
    row_shape: tuple[int, ...]
    target_shape: tuple[int, ...]


def prepare(
    module: Any,
    likelihood: AbstractLikelihood,
    prior: AbstractWeightPrior,
    tempering: float,
    standardise: bool,
    unscaled: tuple[int, ...],
    x: Any,
    y: Any,
) -> Prepared:
    """Check module and data against each other, and standardise the data.

    Args:
        module: of one datum.
        likelihood: of the targets.
        prior: over the weights.
        tempering: factor of the divergence from the prior.
        standardise: whether feature vectors and real targets are standardised.
        unscaled: columns that are left as they are.
        x: inputs.
        y: targets.

    Raises:
        DataError: if the data cannot be used.
        ModelError: if the module does not fit them.
    """
    x = check_inputs(x)
    y = check_targets(y, len(x))
    real = np.issubdtype(x.dtype, np.floating) or (x.ndim == 2 and standardise)
    datum = jnp.zeros(x.shape[1:], jnp.result_type(float) if real else int)
    architecture = take_apart(module, datum)
    targets = likelihood.targets(y, architecture.output_shape)
    vectors = standardise and x.ndim == 2
    scaling = find_scaling(x, targets, vectors, standardise and likelihood.standardised, unscaled)
    dtype = architecture.dtype
    columns = {"x": scaling.inputs(x, dtype), "y": scaling.targets(targets, dtype)}
    learned, known = likelihood.start(columns["y"], scaling.y_scale)
    start = jax.tree.map(lambda v: v.astype(dtype), {"likelihood": learned, "known": known})
    task = Task(architecture, likelihood, prior.scales(architecture), len(x), tempering)
    return Prepared(task, columns, start, scaling, x.shape[1:], y.shape[1:])


def fit_one(
    posterior: AbstractWeightPosterior,
    prepared: Prepared,
    settings: Settings,
    validation: tuple[Any, Any] | None,
    watch: Watch,
) -> NetworkPosterior:
    """Train a posterior on one set of rows."""
    task = _with_warmup(posterior, prepared.task, settings)
    prepared = dataclasses.replace(prepared, task=task)
    key = jax.random.key(settings.seed)
    params = posterior.start(task, task.architecture.initial, prepared.start, key)

    def objective(params: Any, batch: Batch, key: Any, step: Any) -> Any:
        return posterior.loss(task, params, batch, key, step)

    held_out = None if validation is None else _validation(prepared, validation)
    trained = _train(
        objective, params, prepared.columns, posterior, prepared, settings, watch, held_out, 1
    )
    return _result(posterior, prepared, trained, trained.params, settings.seed, watch)


def fit_lanes(
    posterior: AbstractWeightPosterior,
    prepared: Sequence[Prepared],
    settings: Settings,
    watch: Watch,
) -> list[NetworkPosterior]:
    """Train one posterior for each of several sets of as many rows, all in one program."""
    # One task for all, so that they share what is compiled for it.
    task, lanes = _with_warmup(posterior, prepared[0].task, settings), len(prepared)
    prepared = [dataclasses.replace(p, task=task) for p in prepared]
    params = _stacked_start(posterior, prepared, settings.seed)
    columns = {n: np.stack([p.columns[n] for p in prepared], 1) for n in ("x", "y")}

    def lane(params: Any, columns: Any, key: Any, batch: Batch, step: Any) -> Any:
        return posterior.loss(task, params, batch._replace(columns=columns), key, step)

    def objective(params: Any, batch: Batch, key: Any, step: Any) -> Any:
        each = jax.vmap(lane, (0, 1, 0, None, None))
        losses, info = each(params, batch.columns, jax.random.split(key, lanes), batch, step)
        # The sum, so that every lane has its own gradient and not a share of it.
        return jnp.sum(losses), jax.tree.map(jnp.mean, info)

    trained = _train(
        objective, params, columns, posterior, prepared[0], settings, watch, None, lanes
    )
    found = []
    for i, p in enumerate(prepared):
        params = jax.tree.map(lambda v, i=i: v[i], trained.params)
        found.append(_result(posterior, p, trained, params, settings.seed, watch))
    return found


def _stacked_start(
    posterior: AbstractWeightPosterior, prepared: Sequence[Prepared], seed: int
) -> Any:
    """Parameters of all lanes; the first begins at the module's weights, the others at shuffles."""
    own, found = prepared[0].task.architecture.initial, []
    keys = jax.random.split(jax.random.key(seed), len(prepared))
    for i, (p, key) in enumerate(zip(prepared, keys, strict=True)):
        weights = shuffled(own, key) if i else own
        found.append(posterior.start(p.task, weights, p.start, key))
    return jax.tree.map(lambda *parts: jnp.stack(parts), *found)


def _with_warmup(posterior: AbstractWeightPosterior, task: Task, settings: Settings) -> Task:
    steps = int(posterior.warmup * settings.steps(task.num_rows))
    return dataclasses.replace(task, warmup=steps)


def _train(
    objective: Callable[..., Any],
    params: Any,
    columns: dict[str, np.ndarray],
    posterior: AbstractWeightPosterior,
    prepared: Prepared,
    settings: Settings,
    watch: Watch,
    validation: InMemory | None,
    lanes: int,
) -> Trained:
    size = settings.rows_per_batch(len(columns["x"]))
    feed = InMemory(columns, size, settings.seed)
    optimiser, rate = posterior.optimiser(prepared.task)
    if lanes > 1 and isinstance(optimiser, optax.GradientTransformation):
        optimiser = side_by_side(optimiser)
    training = Training(settings.passes(feed.num_rows), optimiser, rate)
    return train(
        objective, params, feed, training, settings.seed, watch,
        validation=validation, checkpoint=settings.checkpoint,
        identity=_identity(posterior, prepared, size), unit=("ELBO", -len(columns["x"]) / lanes),
    )  # fmt: skip


def _validation(prepared: Prepared, validation: tuple[Any, Any]) -> InMemory:
    x = check_inputs(validation[0], "validation", prepared.row_shape)
    y = check_targets(validation[1], len(x), "validation")
    architecture, scaling = prepared.task.architecture, prepared.scaling
    targets = prepared.task.likelihood.targets(y, architecture.output_shape)
    columns = {
        "x": scaling.inputs(x, architecture.dtype),
        "y": scaling.targets(targets, architecture.dtype),
    }
    return InMemory(columns, min(CHUNK, len(x)), shuffle=False)


def _identity(posterior: AbstractWeightPosterior, prepared: Prepared, size: int) -> str:
    """Of the module's shapes, the settings and the data, so that another's checkpoint is refused."""
    task, columns = prepared.task, prepared.columns
    shapes = [w.shape for w in task.architecture.initial]
    text = repr((posterior, task.likelihood, task.priors, task.architecture.names, shapes, size))
    found = hashlib.sha256(text.encode())
    for name in ("x", "y"):
        found.update(np.ascontiguousarray(columns[name]).tobytes())
    return found.hexdigest()


def _result(
    posterior: AbstractWeightPosterior,
    prepared: Prepared,
    trained: Trained,
    params: Any,
    seed: int,
    watch: Watch,
) -> NetworkPosterior:
    task, columns, evidence = prepared.task, prepared.columns, no_evidence()
    if isinstance(posterior, AbstractFinished):
        pieces = list(_pieces(columns))
        params, evidence = posterior.finish(task, params, pieces)
    elbo, error = float("nan"), 0.0
    if posterior.is_bound:
        elbo, error = _elbo(posterior, task, params, columns, seed)
    jacobian = task.num_rows * prepared.scaling.log_density
    notes = [*trained.notes, *posterior.notes(task)]
    if trained.steps < task.warmup:
        notes.append(
            "training ended while the divergence from the prior was weighted down, so that the posterior is "
            "too narrow; give it more time, or posterior settings with warmup=0"
        )
    if task.tempering != 1.0:
        notes.append(
            f"the divergence from the prior was multiplied by {task.tempering:g} in training"
        )
    return NetworkPosterior(
        elbo=elbo + jacobian,
        elbo_error=error,
        log_evidence=evidence.log_evidence + jacobian,
        status=trained.status,
        history=trained.looks,
        notes=tuple(notes),
        seconds=watch.seconds,
        prior_scale=posterior.prior_scale(task, params),
        params=params,
        posterior=posterior,
        task=task,
        scaling=prepared.scaling,
        row_shape=prepared.row_shape,
        target_shape=prepared.target_shape,
    )


def _pieces(columns: dict[str, np.ndarray]) -> Iterator[dict[str, Array]]:
    """All rows in order, in pieces."""
    for start in range(0, len(columns["x"]), CHUNK):
        yield {n: jnp.asarray(c[start : start + CHUNK]) for n, c in columns.items()}


def _elbo(
    posterior: AbstractWeightPosterior, task: Task, params: Any, columns: Any, seed: int
) -> tuple[float, float]:
    """The bound on all rows, and the standard error of its estimate."""
    draws = int(np.clip(EVALUATED_ROWS // task.num_rows, 4, EVALUATED_DRAWS))
    keys = jax.random.split(jax.random.fold_in(jax.random.key(seed), 1), draws)
    total = np.zeros(draws)
    for piece in _pieces(columns):
        size = len(piece["x"])
        total += size / task.num_rows * np.asarray(_elbos(posterior, task, params, piece, keys))
    return float(total.mean()), float(total.std(ddof=1) / np.sqrt(draws))


@functools.partial(jax.jit, static_argnums=(0, 1))
def _elbos(
    posterior: AbstractWeightPosterior, task: Task, params: Any, columns: Any, keys: Array
) -> Array:
    size = columns["x"].shape[0]
    batch = Batch(columns, jnp.ones(size), jnp.arange(size))
    step = jnp.full((), NEVER)
    return jax.lax.map(lambda key: posterior.loss(task, params, batch, key, step)[1]["elbo"], keys)
