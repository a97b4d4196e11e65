"""Reading numbers off a trained model, a compiled batch at a time."""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from taut._core.errors import ArgumentError, DataError, listing
from taut.bounds import ELBO, AbstractBound, ImportanceWeighted
from taut.data.feeds import Batch, weights
from taut.deep.objective import AbstractObjective, Bound
from taut.deep.rows import RowModel
from taut.problem.data import read

CHUNK = 500  # rows evaluated in a compiled call
EVALUATIONS = 4  # of a bound, whose scatter gives its error
PLAIN_DRAWS = 8  # of q for the ELBO of a row
MOST_WEIGHTS = 50  # draws with weights at once


class RowEvidence(NamedTuple):
    """The log evidence of some rows under a trained model, in nats.

    Attributes:
        lower: the ELBO of all rows.
        estimate: the importance-weighted bound, which rises to the log evidence with the draws.
        lower_rows: the ELBO of each row, (n,).
        estimate_rows: the weighted bound of each row, (n,).
        samples: draws per row that the estimate used.
    """

    lower: float
    estimate: float
    lower_rows: np.ndarray
    estimate_rows: np.ndarray
    samples: int


def columns_of(model: RowModel, data: Any, optional: tuple[str, ...] = ()) -> dict[str, Any]:
    """The arguments with rows, checked.

    Args:
        model: the model.
        data: mapping or frame.
        optional: arguments that may be left out.

    Raises:
        DataError: if one is missing, or lengths differ.
    """
    given = read(data)
    missing = [n for n in model.row_names if n not in given and n not in optional]
    if missing:
        raise DataError(
            f"data lacks '{missing[0]}', an argument of {model.name} with rows; it has {listing(given)}"
        )
    found = {n: jax.tree.map(np.asarray, given[n]) for n in model.row_names if n in given}
    lengths = {n: len(jax.tree.leaves(v)[0]) for n, v in found.items()}
    if len(set(lengths.values())) > 1:
        raise DataError(f"the arguments with rows have different lengths: {lengths}")
    for name, value in found.items():
        _check_form(name, value, model.examples[name])
    return found


def _check_form(name: str, value: Any, example: Any) -> None:
    pairs = zip(jax.tree.leaves(value), jax.tree.leaves(example), strict=False)
    for leaf, known in pairs:
        if np.shape(leaf)[1:] != np.shape(known)[1:]:
            raise DataError(
                f"'{name}' has rows of shape {np.shape(leaf)[1:]}, the fit had {np.shape(known)[1:]}"
            )


def mapped(
    objective: AbstractObjective,
    function: Callable[..., Any],
    params: Any,
    columns: Mapping[str, Any],
    seed: int,
    *settings: Any,
) -> Any:
    """A function of batches over all rows, joined: a pytree of arrays (n, ...).

    Args:
        objective: keeps the compiled program.
        function: (objective, *settings, params, batch, key) -> arrays with the rows along their
            first axis; of a module.
        params: the parameters.
        columns: all rows.
        seed: of the keys.
        settings: hashable arguments of the function.
    """
    program = objective.compiled(function, *settings)
    columns = jax.tree.map(np.asarray, dict(columns))
    count = len(jax.tree.leaves(columns)[0])
    size, parts = min(CHUNK, count), []
    for i, start in enumerate(range(0, count, size)):
        real = min(size, count - start)
        rows = np.resize(np.arange(start, start + real), size)  # padded by repeating
        taken = jax.tree.map(lambda x, rows=rows: jnp.asarray(x[rows]), columns)
        batch = Batch(taken, jnp.asarray(weights(count, size, real)), jnp.asarray(rows))
        found = program(params, batch, jax.random.fold_in(jax.random.key(seed), i))
        parts.append(jax.tree.map(lambda x, n=real: np.asarray(x)[:n], found))
    return jax.tree.map(lambda *xs: np.concatenate(xs), *parts)


def row_evidence(
    objective: Bound, params: Any, columns: Mapping[str, Any], samples: int, seed: int
) -> RowEvidence:
    """The ELBO and the importance-weighted bound of every row.

    Raises:
        ArgumentError: if latents are shared by the rows.
    """
    if objective.model.has_shared_terms:
        shared = [n for n, s in objective.model.latents.items() if not s.local]
        raise ArgumentError(
            f"the evidence of a row is defined where nothing is shared by the rows; here is {listing(shared)}"
        )
    plain = _plain_bound(objective, PLAIN_DRAWS)
    lower = mapped(objective, _pointwise, params, columns, seed, plain)
    size = min(samples, MOST_WEIGHTS)
    rounds = -(-samples // size)
    weighted = _weighted_bound(objective, size)
    estimate = mapped(objective, _many, params, columns, seed, weighted, rounds)
    return RowEvidence(
        float(np.sum(lower, dtype=float)),
        float(np.sum(estimate, dtype=float)),
        lower,
        estimate,
        size * rounds,
    )


def _plain_bound(objective: Bound, samples: int) -> ELBO:
    """The ELBO without divergences in closed form.

    Where q is close to the posterior log p - log q hardly depends on the draw, while the
    likelihood alone does.
    """
    sites = objective.model.latents
    smooth = [n for n in objective.guide.names if not sites[n].discrete]
    return ELBO(samples, estimator=tuple((n, "sticking-the-landing") for n in smooth) or None)


def _weighted_bound(objective: Bound, size: int) -> AbstractBound:
    discrete = [n for n in objective.guide.names if objective.model.latents[n].discrete]
    estimator = tuple((n, "score") for n in discrete) or None
    return ImportanceWeighted(size, estimator=estimator, doubly_reparameterised=False)


def _pointwise(
    objective: Bound, bound: AbstractBound, params: Any, batch: Batch, key: Any
) -> Array:
    return objective.estimate(params, batch, key, bound).pointwise


def _many(
    objective: Bound, bound: AbstractBound, rounds: int, params: Any, batch: Batch, key: Any
) -> Array:
    """The logarithm of the mean of all weights, some draws at a time."""

    def one(key: Any) -> Array:
        return _pointwise(objective, bound, params, batch, key)

    found = jax.lax.map(one, jax.random.split(key, rounds))
    return jax.scipy.special.logsumexp(found, axis=0) - jnp.log(float(rounds))


def total_bound(
    objective: Bound, params: Any, columns: Mapping[str, Any], num_rows: int, seed: int
) -> tuple[float, float]:
    """The ELBO of all rows together, and its Monte Carlo error.

    Args:
        objective: the bound's model and guide.
        params: the parameters.
        columns: all rows, or some that stand for them.
        num_rows: how many there are in all.
        seed: of the draws.
    """
    shared, local = mapped(objective, _scattered, params, columns, seed)
    bounds = shared.mean(0, dtype=float) + num_rows * local.mean(0, dtype=float)
    return float(bounds.mean()), float(bounds.std(ddof=1) / np.sqrt(EVALUATIONS))


def _scattered(objective: Bound, params: Any, batch: Batch, key: Any) -> tuple[Array, Array]:
    """Several estimates of the ELBO: what is shared, and what is a row's own, (n, estimates)."""
    bound = _plain_bound(objective, 2)

    def one(key: Any) -> tuple[Array, Array]:
        found = objective.estimate(params, batch, key, bound)
        local = jnp.sum(batch.weight * found.pointwise)
        # What is shared comes with every batch: the mean over the rows counts it once.
        return jnp.broadcast_to(found.value - local, batch.weight.shape), found.pointwise

    found = jax.lax.map(one, jax.random.split(key, EVALUATIONS))
    return jax.tree.map(lambda x: jnp.moveaxis(x, 0, 1), found)
