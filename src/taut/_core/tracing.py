"""Functions traced once, with their constants as arguments.

A model closes over its data (lists, arrays in the enclosing scope). Left inside, XLA folds
them at compile time, for seconds; taken out, they are ordinary arguments.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.extend.core as jex

Pytree = Any


def shapes_of(tree: Pytree) -> Pytree:
    """Return the tree with every array replaced by its shape and dtype."""
    return jax.tree.map(lambda x: jax.ShapeDtypeStruct(jax.numpy.shape(x), jax.dtypes.result_type(x)), tree)


def hoist(fn: Callable[..., Pytree], *examples: Pytree) -> tuple[Callable[..., Pytree], list[Any]]:
    """Trace ``fn`` once and take its constants out.

    Args:
        fn: a JAX function of pytrees.
        *examples: arguments, or their shapes and dtypes.

    Returns:
        A function ``(constants, *args)`` equal to ``fn(*args)`` for arguments of the same
        structure, and the list of constants.
    """
    closed, out_shape = jax.make_jaxpr(fn, return_shape=True)(*examples)
    tree = jax.tree.structure(out_shape)

    def call(constants: list[Any], *args: Pytree) -> Pytree:
        run = jex.jaxpr_as_fun(jex.ClosedJaxpr(closed.jaxpr, constants))
        return jax.tree.unflatten(tree, run(*jax.tree.leaves(args)))

    return call, list(closed.consts)


def dependencies(fn: Callable[..., dict[str, Any]], inputs: dict[str, Any], *rest: Pytree) -> dict[str, set[str]]:
    """Return, for each output, the names of the ``inputs`` that it depends on.

    Conservative: an equation's outputs depend on all of its inputs.
    """
    closed, out_shape = jax.make_jaxpr(fn, return_shape=True)(inputs, *rest)
    names = list(inputs)  # dicts flatten in sorted key order
    names.sort()
    reach: dict[Any, frozenset[str]] = dict(zip(closed.jaxpr.invars, ({n} for n in names), strict=False))
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
