"""Optax optimisers by name, and where their parameters are to be read off."""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from optax import contrib

from taut._core.errors import ArgumentError, listing, nearest

Choice = str | optax.GradientTransformation
Optimisers = Choice | Mapping[str, Choice]
"""A name, an Optax optimiser, or one of these for each part of the parameters."""

WARMUP = 100  # steps in which a schedule-free rate rises; others are scaled by the loop
DECAYS = (0.9, 0.999)


class Optimiser(NamedTuple):
    """An optimiser as the loop uses it.

    Attributes:
        transform: of gradients into updates.
        scheduled: whether the loop's schedule multiplies its updates; others have their own.
        evaluated: (its state, parameters) -> the parameters at which the objective is read.
    """

    transform: optax.GradientTransformationExtraArgs
    scheduled: bool
    evaluated: Callable[[Any, Any], Any]


def _as_they_are(state: Any, params: Any) -> Any:
    return params


def _adam(rate: float | None) -> Optimiser:
    return _scheduled(optax.adam(3e-3 if rate is None else rate, *DECAYS))


def _prodigy(rate: float | None) -> Optimiser:
    return _scheduled(contrib.prodigy(1.0 if rate is None else rate, safeguard_warmup=True))


def _sgd(rate: float | None) -> Optimiser:
    return _scheduled(optax.sgd(1e-2 if rate is None else rate, momentum=0.9, nesterov=True))


def _schedule_free(rate: float | None) -> Optimiser:
    peak = 1e-2 if rate is None else rate
    schedule = optax.linear_schedule(0.0, peak, WARMUP)
    # The base optimiser has no first moment: the interpolation takes its place.
    base = optax.chain(optax.scale_by_rms(decay=0.999, bias_correction=True), optax.scale(-1.0))
    base = optax.chain(base, optax.scale_by_schedule(schedule))
    transform = contrib.schedule_free(base, learning_rate=schedule)
    return Optimiser(optax.with_extra_args_support(transform), False, _schedule_free_params)


def _schedule_free_params(state: Any, params: Any) -> Any:
    return contrib.schedule_free_eval_params(state, params)


_NAMED: dict[str, Callable[[float | None], Optimiser]] = {
    "adam": _adam,
    "prodigy": _prodigy,
    "schedule-free": _schedule_free,
    "sgd": _sgd,
}


def _scheduled(transform: optax.GradientTransformation) -> Optimiser:
    return Optimiser(optax.with_extra_args_support(transform), True, _as_they_are)


def make_optimiser(choice: Optimisers, learning_rate: float | None, params: Any) -> Optimiser:
    """The optimiser of a name, of an Optax object, or of one for each part.

    Args:
        choice: "adam", "schedule-free" (Defazio et al. 2024), "prodigy" (Mishchenko and Defazio
            2024, which needs no rate), "sgd"; or an Optax optimiser with a schedule of its own;
            or a mapping from the top-level names of ``params`` to these.
        learning_rate: of named optimisers; None takes the usual one.
        params: what is trained.

    Raises:
        ArgumentError: if a name is unknown, or a mapping does not cover the parameters.
    """
    if learning_rate is not None and not learning_rate > 0:
        raise ArgumentError(f"learning_rate must be positive, got {learning_rate}")
    if not isinstance(choice, Mapping):
        return _one(choice, learning_rate)
    if set(choice) != set(params):
        raise ArgumentError(
            f"optimiser must name each part of the parameters once: {listing(params)}; "
            f"got {listing(choice)}"
        )
    return _partitioned({name: _one(part, learning_rate) for name, part in choice.items()})


def _one(choice: Choice, learning_rate: float | None) -> Optimiser:
    if isinstance(choice, str):
        if choice not in _NAMED:
            raise ArgumentError(
                f"optimiser: no '{choice}'{nearest(choice, _NAMED)} There are {listing(_NAMED)}, "
                "and any Optax optimiser can be given itself"
            )
        return _NAMED[choice](learning_rate)
    if not isinstance(choice, optax.GradientTransformation):
        raise ArgumentError(
            f"optimiser must be a name or an Optax optimiser, got {type(choice).__name__}"
        )
    if learning_rate is not None:
        raise ArgumentError("learning_rate is for optimisers by name; an Optax one has its own")
    return Optimiser(optax.with_extra_args_support(choice), False, _as_they_are)


def _partitioned(parts: dict[str, Optimiser]) -> Optimiser:
    """One optimiser for each top-level name of the parameters, side by side."""

    def init(params: Any) -> Any:
        return {name: part.transform.init(params[name]) for name, part in parts.items()}

    def update(updates: Any, state: Any, params: Any = None, **extra: Any) -> Any:
        rate = extra.pop("rate", jnp.ones(()))
        moves, states = {}, {}
        for name, part in parts.items():
            found, states[name] = part.transform.update(
                updates[name], state[name], params[name], **extra
            )
            moves[name] = scaled(found, rate) if part.scheduled else found
        return moves, states

    def evaluated(state: Any, params: Any) -> Any:
        return {name: part.evaluated(state[name], params[name]) for name, part in parts.items()}

    return Optimiser(optax.GradientTransformationExtraArgs(init, update), False, evaluated)


def scaled(updates: Any, rate: Any) -> Any:
    """Updates times a rate, in their own precision."""
    return jax.tree.map(lambda u: u * rate.astype(u.dtype), updates)
