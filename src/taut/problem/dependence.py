"""Which elements of a discrete latent each element of an array depends on, proved from its trace.

Summing a latent out element by element is right only if each log density reads one element of
it. Plates promise that; a model may break the promise (``mu[z[neighbour]]``), and then the sum
would be silently wrong. Here the promise is checked: the traced model is walked equation by
equation, and every array is given, for each axis of each latent, the axis that runs along with
it. What is not understood depends on everything, so mistakes can only refuse.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.extend.core as jex
import numpy as np

from taut._core.tracing import scan_parts

MAX_OFFSETS = 4
STEP_FUNCTION = "taut_at_step"


class Link(NamedTuple):
    """Element i of an array along ``axis`` depends on the latent's elements i + ``offsets``.

    Inside the body of a scan, negative axes stand for the step.
    """

    axis: int
    offsets: frozenset[int]


Links = tuple[Link | None, ...]
"""One entry per axis of the latent; None where any of its elements may matter."""
Dependence = dict[str, Links]
"""By latent; those that do not matter are missing."""
HERE = frozenset([0])


def taut_at_step(states: Any, step: Any) -> Any:
    """Element ``step`` of a latent inside a scan; recognised by its name in the trace."""
    return jax.lax.dynamic_index_in_dim(states, step, keepdims=False)


_jitted_at_step = jax.jit(taut_at_step)


def at_step(states: Any, step: Any) -> Any:
    """Element ``step`` along the first axis, where ``step`` is the one that the scan is at."""
    return _jitted_at_step(states, step)


def trace_dependence(
    fn: Callable[..., dict[str, Any]], states: Mapping[str, Any], *rest: Any
) -> dict[str, Dependence]:
    """Return what each output of ``fn(states, *rest)`` depends on.

    Args:
        fn: returns arrays by name; an output that is a tuple of arrays counts as a whole.
        states: latent -> its shape and dtype.
        *rest: other arguments, or their shapes and dtypes.
    """
    closed, out_shape = jax.make_jaxpr(fn, return_shape=True)(dict(states), *rest)
    names = sorted(states)  # the order in which JAX flattens a dict
    inputs: list[Dependence] = [{} for _ in closed.jaxpr.invars]
    for i, name in enumerate(names):
        inputs[i] = {name: tuple(Link(a, HERE) for a in range(len(states[name].shape)))}
    outputs = _walk(closed.jaxpr, inputs, 0)
    result: dict[str, Dependence] = {name: {} for name in out_shape}
    for (path, _), found in zip(
        jax.tree_util.tree_flatten_with_path(out_shape)[0], outputs, strict=True
    ):
        result[path[0].key] = join([result[path[0].key], found])
    return result


def join(parts: Iterable[Dependence]) -> Dependence:
    """Depend on all that one of the parts depends on."""
    result: Dependence = {}
    for part in parts:
        for name, links in part.items():
            have = result.get(name)
            result[name] = links if have is None else tuple(map(_either, have, links))
    return result


def _either(a: Link | None, b: Link | None) -> Link | None:
    if a is None or b is None or a.axis != b.axis:
        return None
    offsets = a.offsets | b.offsets
    return Link(a.axis, offsets) if len(offsets) <= MAX_OFFSETS else None


def _moved(found: Dependence, move: Callable[[Link], Link | None]) -> Dependence:
    """Move the links that lie along axes; steps of scans around stay what they are."""
    return {
        name: tuple(k if k is None or k.axis < 0 else move(k) for k in links)
        for name, links in found.items()
    }


def _along(found: Dependence, axes: Mapping[int, int]) -> Dependence:
    """Keep the links along the given axes, at their new places."""
    return _moved(found, lambda k: Link(axes[k.axis], k.offsets) if k.axis in axes else None)


def _anything(found: Iterable[Dependence]) -> Dependence:
    """Any element along the arrays' axes; what is the same for a whole step stays so."""
    return join(_along(part, {}) for part in found)


# --- equations --------------------------------------------------------------------------------


def _walk(jaxpr: Any, inputs: Sequence[Dependence], depth: int) -> list[Dependence]:
    """Follow the equations from the inputs' dependence to the outputs'."""
    known: dict[Any, Dependence] = dict(zip(jaxpr.invars, inputs, strict=True))

    def read(atom: Any) -> Dependence:
        return {} if isinstance(atom, jex.Literal) else known.get(atom, {})

    for equation in jaxpr.eqns:
        found = [read(v) for v in equation.invars]
        if any(found):
            outputs = _apply(equation, found, depth)
            known.update(zip(equation.outvars, outputs, strict=True))
    return [read(v) for v in jaxpr.outvars]


def _apply(equation: Any, found: list[Dependence], depth: int) -> list[Dependence]:
    name, outs = equation.primitive.name, len(equation.outvars)
    if name == "scan":
        return _scan(equation, found, depth)
    if equation.params.get("name") == STEP_FUNCTION:
        return [_at_step(found[0], depth)]
    inner = equation.params.get("jaxpr", equation.params.get("call_jaxpr"))
    inner = getattr(inner, "jaxpr", inner)
    if name in CALLS and inner is not None and len(inner.invars) == len(found):
        return _walk(inner, found, depth)
    if name in ELEMENTWISE:
        return [join(found)] * outs
    if name in RULES:
        return [RULES[name](equation, found)] * outs
    return [_anything(found)] * outs


def _at_step(states: Dependence, depth: int) -> Dependence:
    """The first axis becomes the step of the scan around."""
    if depth == 0:
        return _anything([states])
    return _moved(states, lambda k: Link(k.axis - 1 if k.axis else -depth, k.offsets))


def _scan(equation: Any, found: list[Dependence], depth: int) -> list[Dependence]:
    """Find what the carry depends on by iteration: last step's carry lies one step back."""
    step = -depth - 1
    closed, consts, carry = scan_parts(equation.params)
    body = closed.jaxpr
    initial = found[consts : consts + carry]
    xs = [
        _moved(x, lambda k: Link(k.axis - 1 if k.axis else step, k.offsets))
        for x in found[consts + carry :]
    ]
    state = list(initial)
    for _ in range(2 * MAX_OFFSETS + len(state) + 2):
        outs = _walk(body, [*found[:consts], *state, *xs], depth + 1)
        after = [
            join([old, first, _back(out, step)])
            for old, first, out in zip(state, initial, outs[:carry], strict=True)
        ]
        if after == state:
            break
        state = after
    else:
        return [_anything(found)] * len(equation.outvars)
    ends = [_unstepped(s, step, None) for s in outs[:carry]]
    ends = [join([e, i]) for e, i in zip(ends, initial, strict=True)]
    first = (
        None if equation.params["reverse"] else 0
    )  # the other way round, steps run against the axis
    return [*ends, *(_unstepped(y, step, first) for y in outs[carry:])]


def _back(found: Dependence, step: int) -> Dependence:
    return {
        name: tuple(
            Link(step, frozenset(o - 1 for o in k.offsets)) if k and k.axis == step else k
            for k in links
        )
        for name, links in found.items()
    }


def _unstepped(found: Dependence, step: int, axis: int | None) -> Dependence:
    """Outside of the scan: stacked along the first axis, or of unknown steps for None."""
    shift = 0 if axis is None else 1

    def move(k: Link | None) -> Link | None:
        if k is None:
            return None
        if k.axis == step:
            return None if axis is None else Link(axis, k.offsets)
        return k if k.axis < 0 else Link(k.axis + shift, k.offsets)

    return {name: tuple(map(move, links)) for name, links in found.items()}


# --- rules ------------------------------------------------------------------------------------


def _shape(atom: Any) -> tuple[int, ...]:
    return tuple(atom.aval.shape)


def _broadcast(equation: Any, found: list[Dependence]) -> Dependence:
    source, target = _shape(equation.invars[0]), equation.params["shape"]
    to = equation.params["broadcast_dimensions"]
    return _along(found[0], {a: b for a, b in enumerate(to) if source[a] == target[b]})


def _reshape(equation: Any, found: list[Dependence]) -> Dependence:
    source, target = _shape(equation.invars[0]), _shape(equation.outvars[0])
    before = {(int(np.prod(target[:b], dtype=int)), n): b for b, n in enumerate(target)}
    places = ((a, (int(np.prod(source[:a], dtype=int)), n)) for a, n in enumerate(source))
    return _along(found[0], {a: before[p] for a, p in places if p in before and p[1] > 1})


def _squeeze(equation: Any, found: list[Dependence]) -> Dependence:
    return _without(found[0], _shape(equation.invars[0]), equation.params["dimensions"])


def _reduce(equation: Any, found: list[Dependence]) -> Dependence:
    return join(_without(f, _shape(equation.invars[0]), equation.params["axes"]) for f in found)


def _without(found: Dependence, shape: tuple[int, ...], gone: Sequence[int]) -> Dependence:
    kept = [a for a in range(len(shape)) if a not in gone]
    return _along(found, {a: b for b, a in enumerate(kept)})


def _transpose(equation: Any, found: list[Dependence]) -> Dependence:
    return _along(found[0], {a: b for b, a in enumerate(equation.params["permutation"])})


def _running(equation: Any, found: list[Dependence]) -> Dependence:
    axis = equation.params.get("axis", equation.params.get("dimension"))
    rank = len(_shape(equation.outvars[0]))
    return _along(join(found), {a: a for a in range(rank) if a != axis})


def _reverse(equation: Any, found: list[Dependence]) -> Dependence:
    rank, turned = len(_shape(equation.outvars[0])), equation.params["dimensions"]
    return _along(found[0], {a: a for a in range(rank) if a not in turned})


def _slice(equation: Any, found: list[Dependence]) -> Dependence:
    source, target = _shape(equation.invars[0]), _shape(equation.outvars[0])
    starts = equation.params["start_indices"]
    strides = equation.params["strides"] or (1,) * len(source)

    def move(k: Link) -> Link | None:
        a = k.axis
        if target[a] == 1 or strides[a] != 1:  # one element may be broadcast along the axis later
            return None
        return Link(a, frozenset(o + starts[a] for o in k.offsets))

    return _moved(found[0], move)


def _concatenate(equation: Any, found: list[Dependence]) -> Dependence:
    axis, start, parts = equation.params["dimension"], 0, []
    for atom, dependence in zip(equation.invars, found, strict=True):

        def move(k: Link, start: int = start) -> Link:
            return Link(axis, frozenset(o - start for o in k.offsets)) if k.axis == axis else k

        parts.append(_moved(dependence, move))
        start += _shape(atom)[axis]
    return join(parts)


def _dynamic_slice(equation: Any, found: list[Dependence]) -> Dependence:
    source, target = _shape(equation.invars[0]), _shape(equation.outvars[0])
    whole = {a: a for a, n in enumerate(source) if n == target[a]}
    return join([_along(found[0], whole), _anything(found[1:])])


def _dot_general(equation: Any, found: list[Dependence]) -> Dependence:
    (contracted, batch) = equation.params["dimension_numbers"]
    shapes = [_shape(v) for v in equation.invars]
    parts, start = [], len(batch[0])
    for i in (0, 1):
        free = [a for a in range(len(shapes[i])) if a not in contracted[i] and a not in batch[i]]
        axes = {a: b for b, a in enumerate(batch[i])} | {a: start + b for b, a in enumerate(free)}
        parts.append(_along(found[i], axes))
        start += len(free)
    return join(parts)


def _gather(equation: Any, found: list[Dependence]) -> Dependence:
    numbers, sizes = equation.params["dimension_numbers"], equation.params["slice_sizes"]
    operand, indices = (_shape(v) for v in equation.invars)
    rank = len(_shape(equation.outvars[0]))
    offset_dims = tuple(numbers.offset_dims)
    batch = [a for a in range(rank) if a not in offset_dims]  # axes of the indices but the last
    gone = (*numbers.collapsed_slice_dims, *numbers.operand_batching_dims)
    sliced = [a for a in range(len(operand)) if a not in gone]
    whole = {a: o for a, o in zip(sliced, offset_dims, strict=True) if sizes[a] == operand[a]}
    pairs = zip(numbers.operand_batching_dims, numbers.start_indices_batching_dims, strict=True)
    whole |= {a: batch[i] for a, i in pairs}
    by_index = dict(enumerate(batch[: len(indices) - 1]))
    return join([_along(found[0], whole), _along(found[1], by_index)])


def _batched(equation: Any, found: list[Dependence]) -> Dependence:
    """Linear algebra on the last two axes of each argument."""
    ranks = {len(_shape(v)) for v in equation.invars}
    if len(ranks) > 1:
        return _anything(found)
    return _along(join(found), {a: a for a in range(ranks.pop() - 2)})


CALLS = {
    *("jit", "pjit", "closed_call", "core_call", "remat", "checkpoint", "remat2"),
    *("custom_jvp_call", "custom_vjp_call", "custom_vjp_call_jaxpr"),
}
ELEMENTWISE = {
    *("add", "sub", "mul", "div", "rem", "pow", "integer_pow", "exp", "exp2", "log", "log1p"),
    *("expm1", "neg", "sign", "abs", "sqrt", "rsqrt", "cbrt", "square", "logistic", "tanh"),
    *("sin", "cos", "tan", "asin", "acos", "atan", "atan2", "sinh", "cosh", "asinh", "acosh"),
    *("atanh", "max", "min", "and", "or", "xor", "not", "eq", "ne", "lt", "le", "gt", "ge"),
    *("select_n", "clamp", "erf", "erfc", "erf_inv", "lgamma", "digamma", "polygamma", "igamma"),
    *("igammac", "igamma_grad_a", "regularized_incomplete_beta", "bessel_i0e", "bessel_i1e"),
    *("is_finite", "floor", "ceil", "round", "convert_element_type", "stop_gradient", "copy"),
    *("copy_p", "nextafter", "add_any", "shift_left", "shift_right_logical", "population_count"),
    *("shift_right_arithmetic", "reduce_precision", "real", "imag", "clz", "random_gamma_grad"),
}
RULES: dict[str, Callable[[Any, list[Dependence]], Dependence]] = {
    "broadcast_in_dim": _broadcast,
    "reshape": _reshape,
    "squeeze": _squeeze,
    "transpose": _transpose,
    "rev": _reverse,
    "slice": _slice,
    "concatenate": _concatenate,
    "dynamic_slice": _dynamic_slice,
    "dot_general": _dot_general,
    "gather": _gather,
    **dict.fromkeys(
        ("reduce_sum", "reduce_max", "reduce_min", "reduce_prod", "reduce_and", "reduce_or"),
        _reduce,
    ),
    **dict.fromkeys(("argmax", "argmin"), _reduce),
    **dict.fromkeys(("cumsum", "cumprod", "cummax", "cummin", "cumlogsumexp"), _running),
    **dict.fromkeys(("cholesky", "triangular_solve"), _batched),
}
