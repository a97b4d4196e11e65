"""Reading a jaxpr in the algebra of expectations."""

import math
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.extend.core as jex
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jax.interpreters import partial_eval

from taut._core.tracing import scan_parts
from taut.expectation import elementwise
from taut.expectation.elementwise import Node, Unreadable, Value, constant
from taut.expectation.pool import Pool
from taut.expectation.rules import RULES
from taut.expectation.structural import dense, pick
from taut.expectation.terms import Entry, IndexRef, Power, Tensor, Term, fresh

MAX_UNROLLED = 32  # steps of a scan that are written out
SHORT = 6  # elements of a nonlinear value that are reduced one by one
ELEMENTWISE = frozenset(
    "add add_any sub mul div neg exp log log1p expm1 exp2 tanh logistic sqrt rsqrt cbrt abs sign max "
    "min pow integer_pow square lgamma digamma polygamma erf erfc erf_inv sin cos tan asin acos atan "
    "atan2 sinh cosh asinh acosh atanh select_n clamp eq ne lt le gt ge and or xor not is_finite floor "
    "ceil round rem igamma igammac regularized_incomplete_beta bessel_i0e bessel_i1e nextafter "
    "convert_element_type copy stop_gradient reduce_precision".split()
)
CALLS = {
    "pjit": "jaxpr", "jit": "jaxpr", "closed_call": "call_jaxpr", "core_call": "call_jaxpr",
    "custom_jvp_call": "call_jaxpr", "custom_vjp_call": "call_jaxpr", "remat": "jaxpr",
    "remat2": "jaxpr", "checkpoint": "jaxpr", "custom_vjp_call_jaxpr": "fun_jaxpr",
    "custom_lin": "jaxpr",
}  # fmt: skip


def latent_value(pool: Pool, name: str, shape: tuple[int, ...], kind: str) -> Value:
    """A latent as a value.

    Args:
        pool: keeps the index of dimensions of size one.
        name: of the latent.
        shape: its shape.
        kind: "gaussian"; "positive" for powers and logarithms, "unit" for those of 1 - x too;
            "signed" for powers only; "matrix"; or "discrete:K".
    """
    dims = tuple(None if n == 1 else fresh() for n in shape)
    zero = IndexRef(pool.add(np.zeros((), int)), ())
    index = tuple(zero if d is None else d for d in dims)
    entry = Entry(name, index, signed=kind in ("signed", "matrix"), unit=kind == "unit")
    if kind == "gaussian":
        return Value(shape, dims, Node((Term(linear=(entry,)),)))
    if not kind.startswith("discrete"):
        return Value(shape, dims, Node((Term(powers=((entry, Power(1.0)),)),)))
    axis, size = fresh(), int(kind.split(":")[1])
    values = elementwise.constant_node(Tensor(np.arange(size), (axis,)))
    return Value(shape, dims, values, ((entry, axis),))


class Reader:
    """Interprets jaxprs with values of the algebra instead of arrays."""

    def __init__(self, pool: Pool) -> None:
        self.pool = pool

    def read(self, closed: Any, inputs: Sequence[Value]) -> list[Value | Unreadable]:
        """Read a closed jaxpr; an output that cannot be read is the reason why not."""
        used = [True] * len(closed.jaxpr.outvars)
        jaxpr, kept = partial_eval.dce_jaxpr(closed.jaxpr, used)
        args = [x for x, keep in zip(inputs, kept, strict=True) if keep]
        return self._run(jaxpr, [_given(c) for c in closed.consts], args)

    def _run(self, jaxpr: Any, consts: Sequence[Any], args: Sequence[Any]) -> list[Any]:
        env: dict[Any, Any] = dict(zip(jaxpr.constvars, consts, strict=True))
        env.update(zip(jaxpr.invars, args, strict=True))

        def value_of(atom: Any) -> Any:
            return _given(atom.val) if isinstance(atom, jex.Literal) else env[atom]

        for eqn in jaxpr.eqns:
            inputs = [value_of(v) for v in eqn.invars]
            try:
                outputs = self._equation(eqn, inputs)
            except Unreadable as reason:
                outputs = [reason] * len(eqn.outvars)
            env.update(zip(eqn.outvars, outputs, strict=True))
        return [value_of(v) for v in jaxpr.outvars]

    def _equation(self, eqn: Any, inputs: list[Any]) -> list[Any]:
        name, params = eqn.primitive.name, eqn.params
        if name in CALLS:
            return self._call(name, params, inputs)
        for x in inputs:
            if isinstance(x, Unreadable):
                raise x
        if name in ELEMENTWISE:
            return [elementwise.apply(self.pool, name, eqn.primitive, params, inputs)]
        if name == "scan":
            return self._scan(eqn, inputs)
        if all(x.is_constant for x in inputs) and name not in ("broadcast_in_dim", "reshape"):
            return self._on_constants(eqn, inputs)
        if name in RULES:
            if name == "reduce_sum" and (found := self._reduced(inputs[0], params)):
                return [self._with_sum(found, inputs[0], params)]
            return [RULES[name](self.pool, params, *inputs)]
        if name == "reduce_max" and (found := self._reduced(inputs[0], params, jax.lax.max_p)):
            return [found]
        raise Unreadable(f"the operation {name} on something that depends on latents")

    def _call(self, name: str, params: Any, inputs: list[Any]) -> list[Any]:
        inner = params[CALLS[name]]
        if (
            params.get("name") == "log_det"
            and isinstance(inputs[0], Value)
            and not inputs[0].is_constant
        ):
            return [_log_det(inputs[0])]
        jaxpr, consts = (inner.jaxpr, inner.consts) if hasattr(inner, "consts") else (inner, ())
        return self._run(jaxpr, [_given(c) for c in consts], inputs)

    def _on_constants(self, eqn: Any, inputs: list[Value]) -> list[Value]:
        """Evaluate an operation that no latent takes part in."""
        name, params = eqn.primitive.name, eqn.params
        if name == "iota":
            shape, at = params["shape"], params["dimension"]
            line = np.arange(shape[at], dtype=params["dtype"])
            full = line.reshape([-1 if i == at else 1 for i in range(len(shape))])
            found = constant(full)
            dims = tuple(found.dims[i] if i == at else None for i in range(len(shape)))
            return [Value(tuple(shape), dims, found.node)]
        if name in RULES and name != "triangular_solve":
            return [RULES[name](self.pool, params, *inputs)]
        arrays = [x.node.constant.array for x in inputs]  # type: ignore[union-attr]
        shapes = tuple((x.shape, tuple(d is None for d in x.dims)) for x in inputs)
        label = (eqn.primitive, repr(sorted(params.items(), key=lambda i: i[0])), shapes)

        def compute() -> Any:
            found = eqn.primitive.bind(*(jnp.asarray(dense(x)) for x in inputs), **params)
            return found if eqn.primitive.multiple_results else [found]

        return [constant(a) for a in self.pool.once(label, arrays, compute)]

    def _reduced(self, value: Value, params: Any, prim: Any = jax.lax.add_p) -> Value | None:
        """Reduce a short dimension of a nonlinear value one element after the other."""
        axes, node = params["axes"], value.node
        if node.constant is not None or len(axes) != 1 or value.shape[axes[0]] > SHORT:
            return None
        if (
            prim is jax.lax.add_p
            and node.terms is not None
            and all(t.is_affine for t in node.terms)
        ):
            return None
        at, size = axes[0], value.shape[axes[0]]
        shape = tuple(n for i, n in enumerate(value.shape) if i != at)
        dims = tuple(d for i, d in enumerate(value.dims) if i != at)
        total: Value | None = None
        for k in range(size):
            one = pick(self.pool, value, at, Tensor(np.asarray(k)), shape, dims)
            name = prim.name
            total = (
                one if total is None else elementwise.apply(self.pool, name, prim, {}, [total, one])
            )
        return total

    def _with_sum(self, found: Value, value: Value, params: Any) -> Value:
        """A sum that is written out for what is computed from it, but has one einsum as its terms."""
        if found.node.terms is None or found.node.op is None or value.guards:
            return found
        whole = RULES["reduce_sum"](self.pool, params, value)
        if whole.dims != found.dims or whole.node.terms is None:
            return found
        node = Node(whole.node.terms, None, found.node.op, found.node.children)
        return Value(found.shape, found.dims, node)

    def _scan(self, eqn: Any, inputs: list[Value]) -> list[Any]:
        """A loop: as one vectorised step where the carry is made of the inputs only."""
        if all(x.is_constant for x in inputs):
            return self._on_constants(eqn, inputs)
        p = eqn.params
        run = _vectorised(p) or (_unrolled(p) if p["length"] <= MAX_UNROLLED else None)
        if run is None:
            raise Unreadable(
                f"a scan of {p['length']} steps, each of which depends on the one before"
            )
        shapes = [jax.ShapeDtypeStruct(v.aval.shape, v.aval.dtype) for v in eqn.invars]
        return self.read(jax.make_jaxpr(run)(*shapes), inputs)


def _given(x: Any) -> Value:
    """A literal or a constant of a jaxpr."""
    scalar = np.ndim(x) == 0 and not isinstance(x, Tracer)
    return constant(np.asarray(x) if scalar or isinstance(x, np.ndarray) else x)


def _log_det(value: Value) -> Value:
    """The log determinant of a matrix latent times a number: an element with two indices fewer."""
    terms, size = value.node.terms or (), value.shape[-1]
    term = terms[0] if len(terms) == 1 and len(terms[0].powers) == 1 else Term()
    multiple = Term(operands=term.operands, scale=term.scale, powers=term.powers)
    elsewhere = {a for t in term.operands for a in t.axes} - {*value.dims[:-2]}
    if term != multiple or elsewhere or [p for _, p in term.powers] != [Power(1.0)]:
        raise Unreadable("the determinant of a matrix that is computed from latents")
    if term.scale <= 0.0:
        raise Unreadable(f"the determinant of a matrix latent times {term.scale:g}")
    entry = term.powers[0][0]
    inner = entry._replace(index=entry.index[:-2], signed=True)
    found = [Term(powers=((inner, Power(logs=1)),)), Term(scale=size * math.log(term.scale))]
    found += [Term((Tensor(jnp.log(t.array), t.axes),), scale=float(size)) for t in term.operands]
    node = Node(tuple(t for t in found if t.scale))
    return Value(value.shape[:-2], value.dims[:-2], node, value.guards)


def _vectorised(p: Any) -> Callable[..., list[Any]] | None:
    """The loop as one step over all elements at once.

    Possible where no carry but counters of the steps depends on a carry.
    """
    closed, num_consts, num_carry = scan_parts(p)
    step, jaxpr, length = jex.jaxpr_as_fun(closed), closed.jaxpr, p["length"]
    counters = _counters(jaxpr, num_consts, num_carry)
    wanted = [i < num_carry and i not in counters for i in range(len(jaxpr.outvars))]
    _, used = partial_eval.dce_jaxpr(jaxpr, wanted)
    if any(used[num_consts + i] for i in range(num_carry) if i not in counters):
        return None

    def run(*args: Any) -> list[Any]:
        consts, carry, xs = (
            args[:num_consts],
            args[num_consts:][:num_carry],
            args[num_consts + num_carry :],
        )
        if p["reverse"]:
            xs = [jnp.flip(x, 0) for x in xs]
        counts = {i: carry[i] + np.arange(length) * by for i, by in counters.items()}
        first = [counts.get(i, c) for i, c in enumerate(carry)]
        carried = (0 if i in counts else None for i in range(num_carry))
        over = (*(None,) * num_consts, *carried, *(0,) * len(xs))
        every = jax.vmap(lambda *a: step(*a), in_axes=over, axis_size=length)
        after = every(*consts, *first, *xs)[:num_carry]
        before = [
            counts[i] if i in counts
            else jnp.concatenate([jnp.asarray(c)[None].astype(a.dtype), a[:-1]])
            for i, (c, a) in enumerate(zip(carry, after, strict=True))
        ]  # fmt: skip
        over = (*(None,) * num_consts, *(0,) * num_carry, *(0,) * len(xs))
        every = jax.vmap(lambda *a: step(*a), in_axes=over, axis_size=length)
        ys = every(*consts, *before, *xs)[num_carry:]
        if p["reverse"]:
            ys = [jnp.flip(y, 0) for y in ys]
        return [*(a[-1] for a in after), *ys]

    return run


def _counters(jaxpr: Any, num_consts: int, num_carry: int) -> dict[int, int]:
    """Carries to which every step adds the same number, with that number."""
    made = {out: eqn for eqn in jaxpr.eqns for out in eqn.outvars}
    found = {}
    for i in range(num_carry):
        eqn = made.get(jaxpr.outvars[i])
        if eqn is None or eqn.primitive.name != "add":
            continue
        own = [v for v in eqn.invars if v is jaxpr.invars[num_consts + i]]
        by = [v.val for v in eqn.invars if isinstance(v, jex.Literal)]
        if len(own) == len(by) == 1 and np.ndim(by[0]) == 0:
            found[i] = by[0]
    return found


def _unrolled(p: Any) -> Callable[..., list[Any]]:
    closed, num_consts, num_carry = scan_parts(p)
    step = jex.jaxpr_as_fun(closed)

    def run(*args: Any) -> list[Any]:
        consts, carry, xs = (
            args[:num_consts],
            list(args[num_consts:][:num_carry]),
            args[num_consts + num_carry :],
        )
        ys = []
        order = range(p["length"])
        for t in reversed(order) if p["reverse"] else order:
            found = step(*consts, *carry, *(x[t] for x in xs))
            carry = found[:num_carry]
            ys.append(found[num_carry:])
        if p["reverse"]:
            ys.reverse()
        return [*carry, *(jnp.stack(y) for y in zip(*ys, strict=True))]

    return run
