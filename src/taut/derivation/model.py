"""The model as it was written: each site's distribution with its parameters."""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.extend.core as jex
import jax.numpy as jnp
import numpy as np

from taut.derivation.notation import PLAIN, AbstractNotation, Formula, both
from taut.problem import Problem

MAX_LENGTH = 48  # characters of one parameter, beyond which only its arguments are named
SHOWN = 4  # elements of a constant that are written out


class Piece(NamedTuple):
    """A value met while a model is read: how it is written, and its array if it is a constant.

    ``rank`` is 2 for a single symbol, 1 for a product, 0 for a sum.
    """

    text: str
    rank: int = 2
    value: Any = None
    of: frozenset[str] = frozenset()


def formulas(problem: Problem) -> dict[str, Formula]:
    """Site -> "w ~ Normal(0, 2)", its distribution with its parameters as the model has them."""
    heads: dict[str, tuple[str, tuple[str, ...]]] = {}
    latents = {
        s.name: jax.ShapeDtypeStruct(s.shape, int if s.discrete else float)
        for s in (*problem.latents, *problem.discrete)
    }
    read = _parameters(problem, frozenset(latents), heads)
    closed, out = jax.make_jaxpr(read, return_shape=True)(latents, problem.arrays)
    paths = jax.tree_util.tree_flatten_with_path((latents, problem.arrays))[0]
    names = [_last(path) for path, _ in paths]
    keys = [_last(path) for path, _ in jax.tree_util.tree_flatten_with_path(out)[0]]
    drawn = set(latents)

    def write(n: AbstractNotation) -> dict[str, str]:
        inputs = [Piece(n.name(x), of=frozenset([x] if x in drawn else [])) for x in names]
        constants = [_constant(c, n) for c in closed.consts]
        pieces = dict(zip(keys, _walk(closed.jaxpr, [*constants, *inputs], n), strict=True))
        return {site: _written(site, *head, pieces, n) for site, head in heads.items()}

    found: dict[str, list[str]] = {}
    both(lambda n: str([found.setdefault(s, []).append(t) for s, t in write(n).items()]))
    return {site: Formula(*texts) for site, texts in found.items()}


def _parameters(
    problem: Problem, own: frozenset[str], heads: dict[str, tuple[str, tuple[str, ...]]]
) -> Callable[..., dict[str, Any]]:
    """A function of latents and data that returns the parameters of all sites' distributions."""

    def read(latents: Mapping[str, Any], arrays: Any) -> dict[str, Any]:
        met: list[Any] = []

        def look(fn: Any, value: Any, is_data: bool = False) -> Any:
            met.append(_unwrapped(fn))
            return jnp.zeros(())

        assert problem.program.densities is not None
        sites = problem.program.densities(latents, arrays, own, look)
        found: dict[str, Any] = {}
        for site, fn in zip(sites, met, strict=True):
            given = _given(fn) or _given(getattr(fn, "base_dist", None))
            heads[site] = (type(fn).__name__, tuple(given))
            found.update({f"{site}\n{p}": jnp.asarray(v) for p, v in given.items()})
        return found

    return read


def _given(fn: Any) -> dict[str, Any]:
    """The parameters that a distribution was given, without those that it derives from others."""
    known = {p: vars(fn).get(p) for p in getattr(fn, "arg_constraints", {})}
    found = {p: v for p, v in known.items() if hasattr(v, "dtype") or isinstance(v, int | float)}
    if len({"covariance_matrix", "precision_matrix", "rate_matrix", "scale_matrix"} & set(found)):
        found.pop("scale_tril", None)
    return found


def _unwrapped(fn: Any) -> Any:
    """The distribution below expansions, masks and event reinterpretations."""
    while type(fn).__name__ in ("Independent", "ExpandedDistribution", "MaskedDistribution"):
        fn = fn.base_dist
    return fn


def _last(path: Any) -> str:
    return str(getattr(path[-1], "key", getattr(path[-1], "idx", path[-1])))


def _written(
    site: str, family: str, parameters: tuple[str, ...], pieces: Mapping[str, Piece],
    n: AbstractNotation,
) -> str:  # fmt: skip
    by_name = family.endswith("Logits")
    family = family.removesuffix("Probs").removesuffix("Logits")
    shown = [pieces[f"{site}\n{p}"].text for p in parameters]
    if by_name or len(parameters) > 3:
        shown = [f"{n.words(p)} = {x}" for p, x in zip(parameters, shown, strict=True)]
    head = n.words(family) if n is PLAIN else f"\\operatorname{{{family}}}"
    tilde = "~" if n is PLAIN else r"\sim"
    return f"{n.name(site)} {tilde} {head}({', '.join(shown)})"


# --- reading a jaxpr ------------------------------------------------------------------------------


def _constant(value: Any, n: AbstractNotation) -> Piece:
    array = np.asarray(value)
    flat = array.reshape(-1)
    if not np.issubdtype(array.dtype, np.number) and array.dtype != bool:
        return Piece(n.words("key"), value=None)
    if flat.size and (flat == flat[0]).all():
        return Piece(n.number(float(flat[0])), 2 if flat[0] >= 0 else 0, array)
    if array.ndim == 1 and flat.size <= SHOWN:
        return Piece(f"[{', '.join(n.number(float(x)) for x in flat)}]", 2, array)
    return Piece(n.words(f"array {' x '.join(map(str, array.shape))}"), 2, array)


def _walk(jaxpr: Any, inputs: list[Piece], n: AbstractNotation) -> list[Piece]:
    known: dict[Any, Piece] = dict(zip((*jaxpr.constvars, *jaxpr.invars), inputs, strict=True))
    made: dict[Any, str] = {}

    def get(x: Any) -> Piece:
        return _constant(x.val, n) if isinstance(x, jex.Literal) else known[x]

    for equation in jaxpr.eqns:
        pieces = [get(x) for x in equation.invars]
        shapes = [tuple(getattr(x.aval, "shape", ())) for x in equation.invars]
        for x, piece in zip(
            equation.outvars, _result(equation, pieces, shapes, made, n), strict=True
        ):
            known[x] = piece
            made[x] = equation.primitive.name
    return [get(x) for x in jaxpr.outvars]


def _result(
    equation: Any, pieces: list[Piece], shapes: list[tuple[int, ...]], made: Mapping[Any, str],
    n: AbstractNotation,
) -> list[Piece]:  # fmt: skip
    """What one equation gives."""
    name, params = equation.primitive.name, equation.params
    inner = params.get("jaxpr", params.get("call_jaxpr"))
    if inner is not None and name in (
        "pjit",
        "jit",
        "closed_call",
        "custom_jvp_call",
        "custom_vjp_call",
    ):
        consts = [_constant(c, n) for c in getattr(inner, "consts", ())]
        return _walk(getattr(inner, "jaxpr", inner), [*consts, *pieces], n)
    if all(p.value is not None for p in pieces) and len(equation.outvars) == 1:
        try:
            return [_constant(equation.primitive.bind(*(p.value for p in pieces), **params), n)]
        except Exception:  # some primitives cannot be run alone; then they are only named
            pass
    of = frozenset().union(*(p.of for p in pieces))
    found = _named(name, params, equation, pieces, shapes, made, n)
    if found is None or len(found.text) > 2 * MAX_LENGTH:
        args = ", ".join(sorted(n.name(x) for x in of)) or n.words("data")
        found = Piece(f"{n.name('f')}({args})")
    return [found._replace(of=of)] * len(equation.outvars)


PASSED = {
    "broadcast_in_dim", "reshape", "convert_element_type", "copy", "squeeze", "expand_dims",
    "stop_gradient",
}  # fmt: skip
SUMS = {"add": "+", "add_any": "+", "sub": "-"}
FUNCTIONS = {"logistic": "sigmoid", "rsqrt": "rsqrt", "abs": "abs", "max": "max", "min": "min"}


def _named(
    name: str, params: Mapping[str, Any], equation: Any, xs: list[Piece],
    shapes: list[tuple[int, ...]], made: Mapping[Any, str], n: AbstractNotation,
) -> Piece | None:  # fmt: skip
    """The result in words of its operands; None where there are none for it."""
    if name in PASSED:
        return xs[0]
    if name in SUMS:
        right = _group(xs[1], 1) if name == "sub" else xs[1].text
        return Piece(f"{xs[0].text} {SUMS[name]} {right}", 0)
    if name == "mul":
        return Piece(n.scaled(_group(x, 1) for x in xs), 1)
    if name == "div":
        return Piece(n.ratio(_group(xs[0], 1), _group(xs[1], 2)), 1)
    if name == "neg":
        return Piece(f"-{_group(xs[0], 1)}", 0)
    if name in ("integer_pow", "square"):
        return Piece(n.power(_group(xs[0], 2), params.get("y", 2)), 1)
    if name == "rsqrt":
        return Piece(n.ratio("1", n.function("sqrt", xs[0].text)), 1)
    if name == "dot_general":
        return Piece(n.matmul(_group(xs[0], 1), _group(xs[1], 2)), 1)
    if name == "transpose":
        return Piece(n.function("transpose", xs[0].text)) if len(shapes[0]) > 1 else xs[0]
    if name == "gather":
        return Piece(f"{_group(xs[0], 2)}[{xs[1].text}]")
    if name == "dynamic_slice":  # one element, the others whole
        at = [x.text for x in xs[1:] if x.value is None]
        return Piece(f"{_group(xs[0], 2)}[{', '.join(at)}]") if at else None
    if name == "select_n":  # a negative index, counted from the end
        is_index = made.get(equation.invars[0]) == "lt" and len(xs) == 3
        return xs[1] if is_index else None
    if name in ("lt", "gt", "le", "ge", "eq", "ne"):
        return Piece(n.words(name))
    if name in ("exp", "log", "log1p", "expm1", "sqrt", "tanh", *FUNCTIONS):
        return Piece(n.function(FUNCTIONS.get(name, name), *(x.text for x in xs)))
    if name == "reduce_sum":
        return Piece(n.function("sum", xs[0].text))
    return None


def _group(piece: Piece, rank: int) -> str:
    """In parentheses where it binds less than what it is put into."""
    return piece.text if piece.rank >= rank else f"({piece.text})"
