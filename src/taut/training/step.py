"""One step of a run, and many of them in one compiled call."""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array

from taut.data.feeds import AbstractFeed, Batch
from taut.training.optimisers import Optimiser, scaled

Objective = Callable[[Any, Batch, Any, Array], tuple[Array, dict[str, Array]]]
"""(parameters, batch, key, step) -> (what is minimised, in nats per row; numbers to record)."""

SHARPNESS = 16  # the average has a window of about a seventeenth of the steps


class State(NamedTuple):
    """What the next step needs.

    Attributes:
        params: the parameters.
        opt_state: of the optimiser.
        average: of the last iterates; the parameters themselves where none is kept.
        step: how many steps were taken.
        skipped: steps in a row, until now, whose objective or gradient was not finite.
    """

    params: Any
    opt_state: Any
    average: Any
    step: Array
    skipped: Array


class Stepper:
    """Compiled steps of one objective.

    Args:
        objective: what is minimised.
        optimiser: of its parameters.
        feed: of the batches; only how it makes a batch is used.
        averaging: whether an average is kept.
    """

    def __init__(
        self, objective: Objective, optimiser: Optimiser, feed: AbstractFeed, averaging: bool
    ) -> None:
        self._objective, self._optimiser, self._batch = objective, optimiser, feed.batch
        self._averaging = averaging
        self.advance = jax.jit(self._advance, donate_argnums=0)
        self.losses = jax.jit(self._losses)

    def start(self, params: Any) -> State:
        """The state before the first step; the parameters are copied."""
        params = _own(params)
        average = _own(params) if self._averaging else None
        # Moments of the optimiser may share buffers, which cannot be given away twice.
        opt_state = _own(self._optimiser.transform.init(params))
        return State(params, opt_state, average, *_own((0, 0)))

    def parameters(self, state: State) -> Any:
        """The parameters that the run stands for."""
        if self._averaging:
            return state.average
        return self._optimiser.evaluated(state.opt_state, state.params)

    def _advance(
        self, state: State, resident: Any, items: Any, rates: Array, key: Any, num: Array
    ) -> tuple[State, Array, dict[str, Array]]:
        """Take the first ``num`` steps; their losses, and the means of what they recorded."""
        step = functools.partial(self._step, resident, key)
        first = jax.tree.map(lambda x: x[0], items)
        shapes = jax.eval_shape(step, state, first, rates[0])[2]
        sums = jax.tree.map(lambda s: jnp.zeros(s.shape, s.dtype), shapes)

        def body(i: Array, carry: Any) -> Any:
            state, losses, sums = carry
            state, loss, info = step(state, jax.tree.map(lambda x: x[i], items), rates[i])
            return state, losses.at[i].set(loss), jax.tree.map(jnp.add, sums, info)

        losses = jnp.full(rates.shape, jnp.nan, rates.dtype)
        state, losses, sums = jax.lax.fori_loop(0, num, body, (state, losses, sums))
        return _strong(state), losses, jax.tree.map(lambda x: x / num, sums)

    def _step(
        self, resident: Any, key: Any, state: State, item: Any, rate: Array
    ) -> tuple[State, Array, dict[str, Array]]:
        batch = self._batch(resident, item)
        gradient = jax.value_and_grad(self._objective, has_aux=True)
        key = jax.random.fold_in(key, state.step)
        (loss, info), grads = gradient(state.params, batch, key, state.step)
        fine = jnp.isfinite(loss) & jnp.isfinite(_size(grads))
        state = self._move(state, loss, grads, rate, fine)
        skipped = jnp.where(fine, 0, state.skipped + 1)
        info = jax.tree.map(lambda x: jnp.where(fine, x, 0.0).astype(loss.dtype), info)
        # A step is counted also where it moves nothing, so that its key is not used again.
        return state._replace(step=state.step + 1, skipped=skipped), loss, info

    def _move(self, state: State, loss: Array, grads: Any, rate: Array, fine: Array) -> State:
        """Follow the gradient; nothing moves where it is not finite, but moments decay.

        Selecting between two states would be another pass over all of both.
        """
        optimiser = self._optimiser
        grads = jax.tree.map(lambda g: jnp.where(fine, g, 0), grads)
        extra = {"value": jnp.where(fine, loss, 0), "rate": rate}
        updates, opt_state = optimiser.transform.update(
            grads, state.opt_state, state.params, **extra
        )
        updates = scaled(updates, jnp.where(fine, rate if optimiser.scheduled else 1.0, 0.0))
        params = optax.apply_updates(state.params, updates)
        average = state.average
        if self._averaging:
            share = jnp.where(fine, (SHARPNESS + 1) / (state.step + SHARPNESS + 1), 0.0)
            average = jax.tree.map(
                lambda a, x: a + (share * (x - a)).astype(a.dtype), average, params
            )
        return State(params, opt_state, average, state.step, state.skipped)

    def _losses(
        self, params: Any, resident: Any, items: Any, key: Any, num: Array, scale: Array
    ) -> Array:
        """The objective on each of the first ``num`` batches, without a step, (batches,).

        Weights of other rows than the objective's own, times ``scale``, stand for as many as those.
        """

        def body(i: Array, losses: Array) -> Array:
            batch = self._batch(resident, jax.tree.map(lambda x: x[i], items))
            batch = batch._replace(weight=scale * batch.weight)
            found = self._objective(params, batch, jax.random.fold_in(key, i), jnp.asarray(NEVER))
            return losses.at[i].set(found[0])

        count = len(jax.tree.leaves(items)[0])
        return jax.lax.fori_loop(0, num, body, jnp.full(count, jnp.nan))


def _size(tree: Any) -> Array:
    """The sum of all absolute values: finite if they are."""
    return sum((jnp.sum(jnp.abs(x)) for x in jax.tree.leaves(tree)), jnp.zeros(()))


def _strong(tree: Any) -> Any:
    """Without weak types, which would compile the next call again."""
    return jax.tree.map(lambda x: jax.lax.convert_element_type(x, jnp.asarray(x).dtype), tree)


def _own(tree: Any) -> Any:
    """Copies of arrays."""
    return jax.tree.map(lambda x: jnp.array(x, jnp.asarray(x).dtype), tree)


NEVER = jnp.iinfo(jnp.int32).max  # the step of evaluations: every warm-up is over
