"""A module taken apart: its weights, and what it computes on one datum."""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.tree_util as jtu
import numpy as np
from jaxtyping import Array

from taut._core.errors import ModelError, UnsupportedError
from taut.networks.program import Program, Use, is_affine, trace, uses

_STATEFUL = (eqx.nn.BatchNorm, eqx.nn.StateIndex, eqx.nn.SpectralNorm)


@dataclasses.dataclass(frozen=True, eq=False)
class Architecture:
    """The computation of a module, and its weights by name.

    Attributes:
        names: of the weights: every array of floating-point numbers in the module, named by its
            place, such as ".layers[0].weight".
        initial: the weights that the module came with.
        program: what it computes on one datum.
        uses: how each weight is used.
        output_shape: of its output for one datum.
        rebuild: weights -> the module with them.
    """

    names: tuple[str, ...]
    initial: tuple[Array, ...]
    program: Program
    uses: tuple[Use, ...]
    output_shape: tuple[int, ...]
    rebuild: Callable[[Sequence[Array]], Any]

    def apply(self, weights: Sequence[Array], x: Array) -> Array:
        """The output for one datum."""
        return self.rebuild(weights)(x)

    @property
    def num_weights(self) -> int:
        """Elements of all weights together."""
        return sum(w.size for w in self.initial)

    @property
    def dtype(self) -> Any:
        """Of the weights."""
        return jnp.result_type(*self.initial)

    @property
    def last_layer(self) -> tuple[int, ...]:
        """Positions of the weights of the last layer: those in which the output is affine.

        From the last weight on, each is taken in with which the output is affine in all of them
        together; two factors of one product are not.
        """
        found: list[int] = []
        slots = self.program.weights
        for i in reversed(range(len(self.names))):
            if is_affine(self.program, [slots[j] for j in (i, *found)]):
                found.insert(0, i)
        return tuple(found)


def take_apart(module: Any, datum: Array) -> Architecture:
    """Read a module's weights and its computation.

    Args:
        module: an Equinox module, or any callable pytree; of one datum.
        datum: an example, for its shape and type.

    Raises:
        UnsupportedError: if it is no callable, keeps a state, or draws random numbers.
        ModelError: if it has no weights, or cannot be called with one datum.
    """
    check_module(module)
    weights, static = eqx.partition(module, eqx.is_inexact_array)
    paths, treedef = jtu.tree_flatten_with_path(weights)
    if not paths:
        raise ModelError(
            "module: it has no arrays of floating-point numbers, so that there is nothing to infer"
        )
    names = tuple(jtu.keystr(path) for path, _ in paths)
    initial = tuple(jnp.asarray(leaf) for _, leaf in paths)
    _check_finite(names, initial)

    def rebuild(weights: Sequence[Array]) -> Any:
        return eqx.combine(jax.tree.unflatten(treedef, list(weights)), static)

    def apply(weights: Sequence[Array], x: Array) -> Array:
        return rebuild(weights)(x)

    shape = _output_shape(apply, initial, datum)
    program = trace(apply, initial, datum)
    return Architecture(names, initial, program, uses(program), shape, rebuild)


def check_module(module: Any) -> None:
    """Refuse what is no function of weights and one datum.

    Raises:
        UnsupportedError: with the offending part and a remedy.
    """
    if not callable(module):
        raise UnsupportedError(
            f"module must be an Equinox module or another callable pytree, got {type(module).__name__}"
        )
    leaves = jax.tree.leaves(module, is_leaf=lambda x: isinstance(x, (*_STATEFUL, eqx.nn.Dropout)))
    for part in leaves:
        if isinstance(part, _STATEFUL):
            raise UnsupportedError(
                f"module: it holds a {type(part).__name__}, which keeps a state between calls, so that its output "
                "is no function of weights and one datum; try GroupNorm, LayerNorm or WeightNorm"
            )
        if isinstance(part, eqx.nn.Dropout) and part.p and not part.inference:
            raise UnsupportedError(
                "module: it holds an active Dropout, which draws noise of its own beside that of the "
                "weights' posterior; try equinox.nn.inference_mode(module), or leave it out"
            )


def _check_finite(names: Sequence[str], initial: Sequence[Array]) -> None:
    for name, value in zip(names, initial, strict=True):
        if jnp.issubdtype(value.dtype, jnp.complexfloating):
            raise UnsupportedError(f"module: weight '{name}' is complex; weights must be real")
        if not np.isfinite(np.asarray(value)).all():
            raise ModelError(f"module: weight '{name}' holds values that are not finite")


def _output_shape(apply: Any, initial: Sequence[Array], datum: Array) -> tuple[int, ...]:
    try:
        found = jax.eval_shape(apply, list(initial), datum)
    except Exception as error:
        raise ModelError(
            f"module: it cannot be called with one datum of shape {tuple(datum.shape)} "
            f"({type(error).__name__}: {str(error).strip().splitlines()[0]}). "
            "It is called with one row of x at a time, without a batch axis and without a key"
        ) from error
    if not isinstance(found, jax.ShapeDtypeStruct) or not jnp.issubdtype(found.dtype, jnp.inexact):
        raise ModelError(
            f"module: its output for one datum must be one array of real numbers, got {found}"
        )
    return tuple(found.shape)
