"""Trees of operations on the arguments of a nonlinear function, and their evaluation."""

from typing import Any

import jax.numpy as jnp
import numpy as np

from taut.expectation.terms import Power

Expr = tuple[Any, ...]
"""("arg", i) | ("const", i) | ("grid", i) | ("number", x) | (name, primitive, parameters, children)."""


def evaluate(expr: Expr, args: list[Any], consts: list[Any], grids: list[Any]) -> Any:
    """Evaluate an expression on arrays that broadcast against each other."""
    memo: dict[int, Any] = {}

    def visit(e: Expr) -> Any:
        if id(e) not in memo:
            memo[id(e)] = _visit(e, visit, {"arg": args, "const": consts, "grid": grids})
        return memo[id(e)]

    return visit(expr)


def _visit(e: Expr, visit: Any, leaves: dict[str, list[Any]]) -> Any:
    kind = e[0]
    if kind in leaves:
        return leaves[kind][e[1]]
    if kind == "number":
        return jnp.asarray(e[1])
    if kind == "op":
        _, name, prim, params, children = e
        return _bind(name, prim, dict(params), [visit(c) for c in children])
    if kind == "power":
        return power_of(visit(e[1]), e[2])
    found = [visit(c) for c in e[1:]]
    if kind == "exp":
        return jnp.exp(found[0])
    total = found[0]
    for x in found[1:]:
        total = total * x if kind == "times" else total + x
    return total


def power_of(x: Any, p: Power) -> Any:
    """x^p log^k(x) (1-x)^r log^l(1-x) of numbers."""
    total: Any = 1.0
    for base, exponent, logs in ((x, p.power, p.logs), (1.0 - x, p.copower, p.cologs)):
        if exponent:
            total = total * (base ** int(exponent) if exponent == int(exponent) else base**exponent)
        if logs:
            total = total * jnp.log(base) ** logs
    return total


def _bind(name: str, prim: Any, params: dict[str, Any], inputs: list[Any]) -> Any:
    if name == "convert_element_type":
        return inputs[0].astype(params["new_dtype"])
    if name in ("copy", "stop_gradient"):
        return inputs[0]
    if name != "select_n" and len(inputs) > 1:
        kind = jnp.result_type(*inputs)
        inputs = [x.astype(kind) for x in inputs]
    elif name == "select_n":
        kind = jnp.result_type(*inputs[1:])
        inputs = [inputs[0], *(x.astype(kind) for x in inputs[1:])]
    shape = np.broadcast_shapes(*(np.shape(x) for x in inputs))
    return prim.bind(*(jnp.broadcast_to(x, shape) for x in inputs), **params)
