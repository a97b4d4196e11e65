"""Predictions and pointwise likelihoods at draws of the latents."""

import dataclasses
import functools
from collections.abc import Callable, Mapping
from typing import Any

import jax
import numpy as np

from taut._core.errors import ArgumentError, ModelError
from taut._core.precision import double_precision
from taut.problem import Latent, Observed, Predictor, Problem, Program

MAX_LANES = 256  # draws evaluated together
LANE_BUDGET = 2**22  # numbers that they may make, so that memory does not grow with their count
Values = dict[str, np.ndarray]


@functools.partial(jax.jit, static_argnums=0)
def _simulate(
    simulate: Callable[..., Any], seed: Any, index: Any, latents: Any, arrays: Any
) -> Any:
    """Draw ``index`` has its own key, whatever draws are made beside it."""
    keys = jax.vmap(jax.random.fold_in, (None, 0))(jax.random.key(seed), index)
    return jax.vmap(simulate, (0, 0, None))(keys, latents, arrays)


@functools.partial(jax.jit, static_argnums=0)
def _log_likelihood(program: Program, points: Any, arrays: Any) -> Any:
    return jax.vmap(program.log_likelihood, (0, None))(points, arrays)


def in_lanes(run: Callable[[Any], Any], batch: Any, size: int) -> Values:
    """Apply a compiled function to a batch in pieces of one fixed length.

    Args:
        run: takes a piece of ``batch`` and returns a dict of arrays.
        batch: pytree of NumPy arrays with one leading axis.
        size: numbers that one element makes.

    Returns:
        The pieces put together; the same whatever the length of the pieces.
    """
    count = len(jax.tree.leaves(batch)[0])
    lanes = int(np.clip(LANE_BUDGET // max(size, 1), 1, MAX_LANES))
    index = np.arange(-(-count // lanes) * lanes) % count

    def piece(rows: np.ndarray) -> Any:
        return run(jax.tree.map(lambda x: x[rows], batch))  # NumPy: slicing compiles nothing

    parts = [piece(rows) for rows in index.reshape(-1, lanes)]
    return {n: np.concatenate([np.asarray(p[n]) for p in parts])[:count] for n in parts[0]}


@dataclasses.dataclass(frozen=True)
class Forecaster:
    """What predicting needs of a problem; its data are no part of it.

    Attributes:
        latents: as the fit had them, in the model's order; the discrete ones too.
        observed: the sites to simulate.
        predictor: as :attr:`Problem.predictor`.
    """

    latents: tuple[Latent, ...]
    observed: tuple[Observed, ...]
    predictor: Callable[..., Predictor]


def forecaster_of(problem: Problem) -> Forecaster | None:
    """The problem's forecaster, or None where its front-end cannot simulate."""
    if problem.predictor is None:
        return None
    latents = in_order(problem.latents, problem.discrete)
    return Forecaster(latents, problem.observed, problem.predictor)


def in_order(latents: tuple[Latent, ...], discrete: tuple[Latent, ...]) -> tuple[Latent, ...]:
    """All latents in the order of the model; a discrete one starts where the next one does."""
    return tuple(sorted((*discrete, *latents), key=lambda s: (s.start, not s.discrete)))


def kept_discrete(by: Forecaster, new_data: Any) -> list[str]:
    """Discrete latents whose values in the fit matter for a prediction."""
    return [
        s.name
        for s in by.latents
        if s.discrete and (new_data is None or not of_single_observations(s, by.observed))
    ]


def of_single_observations(latent: Latent, observed: tuple[Observed, ...]) -> bool:
    """Whether a discrete latent belongs to observations, not to groups or to the whole.

    So does one in a plate that holds an observed site, and one along an axis without a plate, as
    in a scan.
    """
    own = {plate for site in observed for plate in site.plates}
    return any(d in own or d not in latent.plates for d in latent.dims)


def predict(by: Forecaster, draws: Mapping[str, np.ndarray], new_data: Any, seed: int) -> Values:
    """Simulate the observed sites at draws of the latents.

    Args:
        by: simulates.
        draws: latents, each (n, *shape); discrete ones only where they are to be kept.
        new_data: data in the form that the fit took, or None for those of the fit.
        seed: of the simulation.
    """
    latents = {s.name: draws[s.name] for s in by.latents if s.name in draws}
    with double_precision():
        predictor = by.predictor(new_data)
        if new_data is not None:
            latents = _carried_over(by, latents, new_data, seed)
        return _run(predictor, latents, seed, len(next(iter(draws.values()))))


def _run(predictor: Any, latents: Mapping[str, np.ndarray], seed: int, count: int) -> Values:
    simulate, arrays = predictor
    index = np.arange(count, dtype=np.uint32)
    values = {n: np.asarray(v) for n, v in latents.items()}
    first = {n: v[0] for n, v in values.items()}
    one = jax.eval_shape(lambda v, a: simulate(jax.random.key(0), v, a), first, arrays)
    size = sum(int(np.prod(v.shape, dtype=int)) for v in one.values())
    return in_lanes(
        lambda part: _simulate(simulate, np.uint32(seed % 2**32), *part, arrays),
        (index, values),
        size,
    )


# --- groups that the fit did not have ---------------------------------------------------------


def _carried_over(by: Forecaster, latents: Values, new_data: Any, seed: int) -> Values:
    """Latents as they are under the new data.

    Those of the same shape are kept. Where a plate that groups index (one without observed
    sites in it) has another size, group i stays group i, and groups beyond those of the fit are
    drawn from their prior. Any other latent whose shape changes belongs to the observations
    themselves; it is left out, so that the simulation draws it from its prior.
    """
    shapes = latent_shapes(by, new_data)
    if all(shapes.get(n, v.shape[1:]) == v.shape[1:] for n, v in latents.items()):
        return latents
    own = {plate for site in by.observed for plate in site.plates}
    kept: Values = {}
    for i, latent in enumerate(by.latents):
        if latent.name not in latents:
            continue
        value, shape = latents[latent.name], shapes.get(latent.name)
        if shape is None or shape == value.shape[1:]:
            kept[latent.name] = value
        elif _grows_by_groups(latent, shape, own):
            kept[latent.name] = _extended(by, latent, value, shape, kept, new_data, seed + i)
    return kept


def _grows_by_groups(latent: Latent, shape: tuple[int, ...], own: set[str]) -> bool:
    """Whether the shape differs only along plates that hold no observed site."""
    changed = [d for d, a, b in zip(latent.dims, latent.shape, shape, strict=False) if a != b]
    return len(shape) == len(latent.shape) and all(
        d in latent.plates and d not in own for d in changed
    )


def _extended(
    by: Forecaster,
    latent: Latent,
    value: np.ndarray,
    shape: tuple[int, ...],
    given: Values,
    new_data: Any,
    seed: int,
) -> np.ndarray:
    """A latent with its fitted groups first and prior draws of the others after them."""
    common = (slice(None), *(slice(min(a, b)) for a, b in zip(latent.shape, shape, strict=True)))
    if all(b <= a for a, b in zip(latent.shape, shape, strict=True)):
        return value[common]
    fresh = _run(by.predictor(new_data, sites=(latent.name,)), given, seed, len(value))
    out = fresh[latent.name].copy()
    out[common] = value[common]
    return out


def latent_shapes(by: Forecaster, new_data: Any) -> dict[str, tuple[int, ...]]:
    """Shapes of the latents under other data, without running anything."""
    try:
        simulate, arrays = by.predictor(new_data, sites=tuple(s.name for s in by.latents))
        found = jax.eval_shape(lambda a: simulate(jax.random.key(0), {}, a), arrays)
    except NotImplementedError:  # an improper prior has no draws, so its latent keeps its shape
        return {}
    except ModelError as error:
        if isinstance(error.__cause__, KeyError):
            raise ArgumentError(
                f"the model has no latent {error.__cause__}: it is not the one that was fitted"
            ) from error
        raise
    return {name: tuple(v.shape) for name, v in found.items()}


def log_likelihood(problem: Problem, points: np.ndarray) -> Values:
    """Pointwise log likelihood at unconstrained points (n, d)."""
    program, arrays = problem.program, problem.arrays
    with double_precision():
        one = jax.eval_shape(program.log_likelihood, points[0], arrays)
        size = sum(int(np.prod(v.shape, dtype=int)) for v in one.values())
        return in_lanes(lambda part: _log_likelihood(program, part, arrays), points, size)
