"""Functions traced once, with their constants as arguments.

A model closes over its data (lists, arrays in the enclosing scope). Left inside, XLA folds
them at compile time, for seconds; taken out, they are ordinary arguments.
"""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.extend.core as jex
import numpy as np

Pytree = Any


def shapes_of(tree: Pytree) -> Pytree:
    """Return the tree with every array replaced by its shape and dtype."""

    def shape_of(x: Any) -> jax.ShapeDtypeStruct:
        # A weakly typed jnp.asarray(1) has 32 bits, though it would be promoted to 64.
        dtype = x.dtype if hasattr(x, "dtype") else jax.dtypes.result_type(x)
        return jax.ShapeDtypeStruct(jax.numpy.shape(x), dtype)

    return jax.tree.map(shape_of, tree)


@dataclasses.dataclass(frozen=True)
class Hoisted:
    """A traced function with its constants taken out.

    Attributes:
        call: ``(constants, *args)``, equal to the function at ``args``.
        constants: the constants.
        width: numbers in the largest array that one call makes on its way; what a batch of
            calls multiplies.
    """

    call: Callable[..., Pytree]
    constants: list[Any]
    width: int


def hoist(fn: Callable[..., Pytree], *examples: Pytree) -> Hoisted:
    """Trace ``fn`` once and take its constants out.

    Args:
        fn: a JAX function of pytrees.
        *examples: arguments, or their shapes and dtypes.
    """
    closed, out_shape = jax.make_jaxpr(fn, return_shape=True)(*examples)
    tree = jax.tree.structure(out_shape)

    def call(constants: list[Any], *args: Pytree) -> Pytree:
        run = jex.jaxpr_as_fun(closed.replace(consts=constants))
        return jax.tree.unflatten(tree, run(*jax.tree.leaves(args)))

    return Hoisted(call, list(closed.consts), _width(closed.jaxpr))


def _width(jaxpr: Any) -> int:
    """Size of the largest array made inside, in nested calls too."""
    widest = 1
    for equation in jaxpr.eqns:
        for out in equation.outvars:
            widest = max(widest, int(np.prod(getattr(out.aval, "shape", ()), dtype=int)))
        for value in equation.params.values():
            inner = getattr(value, "jaxpr", value)
            if hasattr(inner, "eqns"):
                widest = max(widest, _width(inner))
    return widest


def dependencies(
    fn: Callable[..., dict[str, Any]], inputs: dict[str, Any], *rest: Pytree
) -> dict[str, set[str]]:
    """Return, for each output, the names of the ``inputs`` that it depends on.

    Conservative: an equation's outputs depend on all of its inputs.
    """
    closed, out_shape = jax.make_jaxpr(fn, return_shape=True)(inputs, *rest)
    names = sorted(inputs)  # the order in which JAX flattens a dict
    reach: dict[Any, frozenset[str]] = dict(
        zip(closed.jaxpr.invars, (frozenset([n]) for n in names), strict=False)
    )
    for equation in closed.jaxpr.eqns:
        found: frozenset[str] = frozenset().union(
            *(reach.get(v, frozenset()) for v in equation.invars if not isinstance(v, jex.Literal))
        )
        for out in equation.outvars:
            reach[out] = found
    result: dict[str, set[str]] = {name: set() for name in out_shape}
    paths = jax.tree_util.tree_flatten_with_path(out_shape)[0]
    for (path, _), out in zip(paths, closed.jaxpr.outvars, strict=True):
        if not isinstance(out, jex.Literal):
            result[path[0].key] |= reach.get(out, frozenset())
    return result


def scan_parts(params: Any) -> tuple[Any, int, int]:
    """A scan's body as a closed jaxpr, and its numbers of constants and carried values.

    JAX 0.12 replaced the two counts by the tree of the inputs.
    """
    if "num_consts" in params:
        return params["jaxpr"], params["num_consts"], params["num_carry"]
    consts, carry, _ = params["ft_in"].unpack()
    return params["jaxpr"], len(consts), len(carry)
