"""Expectation as a transformation: from a function of latents to its mean under q."""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.interpreters import partial_eval

from taut._core.errors import ArgumentError, ModelError
from taut._core.precision import double_precision
from taut.expectation.draws import matched_normals
from taut.expectation.elementwise import Unreadable, attach, forced
from taut.expectation.evaluate import expect, expect_term, method_of
from taut.expectation.factor import AbstractContinuous, AbstractDiscrete, AbstractFactor
from taut.expectation.fold import fold, paired_onehots
from taut.expectation.functions import join_dependent
from taut.expectation.gaussian import Gaussian, Scaled
from taut.expectation.moments import Moments
from taut.expectation.pool import Pool, StaticIndex
from taut.expectation.reader import Reader, latent_value
from taut.expectation.structural import from_dense
from taut.expectation.terms import Terms

Factors = Mapping[str, Gaussian | Scaled | AbstractFactor]
MIN_DRAWS = 256  # fixed draws of a function that cannot be read
DRAW_KEY = 20240229


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Compiled:
    """A scalar function of latents, read and folded.

    Attributes:
        terms: what it is a sum of; empty where it is estimated by draws.
        arrays: index arrays.
        data: arguments of ``function`` where it is estimated by draws.
        function: the function itself, ``(latents, data) -> scalar``, then.
        reason: why it could not be read, then.
        uses: latents that it depends on, then; None if that is not known.
    """

    terms: Terms
    arrays: tuple[Any, ...]
    data: Any = None
    function: Callable[..., Any] | None = dataclasses.field(default=None, metadata={"static": True})
    reason: str = dataclasses.field(default="", metadata={"static": True})
    uses: tuple[str, ...] | None = dataclasses.field(default=None, metadata={"static": True})

    def __call__(self, q: Factors) -> Any:
        """The mean under q, a scalar."""
        if self.function is not None:
            return by_draws(lambda x: self.function(x, self.data), q, self.uses, self.reason)  # type: ignore[misc]
        return expect(self.terms, Moments(by_latent(q), list(self.arrays)))

    def depends_on(self, latent: str) -> bool:
        """Whether a latent takes part."""
        if self.function is not None:
            return self.uses is None or latent in self.uses
        return any(latent in t.latents for t in self.terms)

    @property
    def methods(self) -> tuple[str, ...]:
        """How the terms are obtained, each method once, the least exact last."""
        if self.function is not None:
            return (f"fixed draws of all latents ({self.reason})",)
        found = dict.fromkeys(method_of(t) for t in self.terms)
        return tuple(sorted(found, key=lambda m: ("fixed draws" in m, m != "exact", m)))

    @property
    def method(self) -> str:
        """The methods in one line."""
        return "; ".join(m for m in self.methods if m != "exact") or "exact"


def compile_terms(
    function: Callable[..., Any], q: Factors, data: Any = None, distrusted: bool = False
) -> Compiled:
    """Read ``function(latents, data)`` in the algebra and fold the data away.

    Args:
        function: of a dict of latents and the data; its value is a scalar.
        q: factors, used for their kinds and shapes only.
        data: a pytree of arrays. Call this inside ``jax.jit`` to make folding a compiled
            function of them.
        distrusted: take it on draws, because its compiled mean was found to be wrong.
    """
    if distrusted:
        return Compiled((), (), data, function, "its compiled mean differed from that of draws")
    kinds = kinds_of(q)
    shapes = {
        name: jax.ShapeDtypeStruct(shape, jnp.int64 if kind.startswith("discrete") else jnp.float64)
        for name, (shape, kind) in kinds.items()
    }
    leaves, treedef = jax.tree.flatten(data)

    def flat(latents: dict[str, Any], leaves: list[Any]) -> Any:
        return function(latents, jax.tree.unflatten(treedef, leaves))

    closed = jax.make_jaxpr(flat)(shapes, [jnp.asarray(x) for x in leaves])
    out: Any = closed.out_avals[0]
    if out.shape != ():
        raise ModelError(f"the function must return a scalar, got shape {out.shape}; sum it")
    pool = Pool()
    inputs = [latent_value(pool, n, *kinds[n]) for n in sorted(kinds)]
    inputs += [from_dense(pool, x if isinstance(x, np.ndarray) else jnp.asarray(x)) for x in leaves]
    try:
        (value,) = Reader(pool).read(closed, inputs)
        if isinstance(value, Unreadable):
            raise value
        blocks = {n: f.names for n, f in by_latent(q).items() if kinds[n][1] == "gaussian"}
        terms = tuple(join_dependent(t, blocks) for t in forced(attach(value)))
        terms = fold(terms, pool, {n: s for n, (s, _) in kinds.items()})
        moments = Moments(by_latent(q), pool.arrays)
        jax.eval_shape(lambda: expect(terms, moments))  # moments without a formula are found here
    except Unreadable as reason:
        return Compiled((), (), data, function, str(reason), _used(closed, sorted(kinds)))
    kept = {
        i.slot for t in terms for e in paired_onehots(t) for i in e.index if not isinstance(i, int)
    }
    return Compiled(terms, tuple(_index(a, at in kept) for at, a in enumerate(pool.arrays)))


def _used(closed: Any, names: list[str]) -> tuple[str, ...]:
    """Latents, which are the first arguments, that a traced function depends on."""
    _, used = partial_eval.dce_jaxpr(closed.jaxpr, [True])
    return tuple(n for n, is_used in zip(names, used, strict=False) if is_used)


def _index(array: Any, is_kept: bool) -> Any:
    """An index array that travels; static where its values decide which moment is meant."""
    keep = is_kept and isinstance(array, np.ndarray | np.generic)
    return StaticIndex(np.asarray(array)) if keep else jnp.asarray(array)


def kinds_of(q: Factors) -> dict[str, tuple[tuple[int, ...], str]]:
    """Shape and kind of every latent."""
    found: dict[str, tuple[tuple[int, ...], str]] = {}
    for name, factor in by_latent(q).items():
        if isinstance(factor, Scaled) and name == factor.precision_name:
            found[name] = (factor.precision.shape, factor.precision.kind)
        elif isinstance(factor, Gaussian | Scaled):
            found[name] = (factor.place(name)[0], "gaussian")
        elif isinstance(factor, AbstractDiscrete):
            found[name] = (factor.shape, f"discrete:{factor.probs.shape[-1]}")
        else:
            found[name] = (factor.shape, "unit" if factor.is_unit else factor.kind)
    return found


def by_latent(q: Factors) -> dict[str, Any]:
    """Factors under the name of every latent."""
    found: dict[str, Any] = {}
    for name, factor in q.items():
        found.update(dict.fromkeys(_names(name, factor), factor))
    return found


# --- draws ----------------------------------------------------------------------------------------


def by_draws(
    function: Callable[[dict[str, Any]], Any],
    q: Factors,
    uses: tuple[str, ...] | None = None,
    reason: str = "",
) -> Any:
    """Mean on fixed draws: moment-matched quasi-random ones of Gaussian blocks.

    Args:
        function: of a dict of all latents.
        q: factors.
        uses: latents that it depends on, where that is known; others are set to zero.
        reason: why it is not read, for the message.

    Raises:
        ModelError: if it depends on a discrete latent, whose draws carry no gradient.
    """
    uses = tuple(by_latent(q)) if uses is None else uses
    held = {n: f for n, f in q.items() if not set(_names(n, f)) & set(uses)}
    used = {n: f for n, f in q.items() if n not in held}
    total = sum(f.mean.size for f in used.values() if isinstance(f, Gaussian))
    num = max(MIN_DRAWS, 2 * total + 2) if total else MIN_DRAWS
    noise = matched_normals(num, total) if total else np.zeros((num, 0))
    draws: dict[str, Any] = {}
    start, key = 0, jax.random.key(DRAW_KEY)
    for name, factor in used.items():
        if isinstance(factor, Gaussian):
            mine = noise[:, start : start + factor.mean.size]
            points = jnp.asarray(mine).reshape((num, *factor.mean.shape))
            draws.update(factor.values(factor.place_noise(points)))
            start += factor.mean.size
        elif isinstance(factor, AbstractDiscrete):
            raise ModelError(
                f"the expectation over the discrete latent '{name}' cannot be taken by draws; "
                f"write the function so that it can be enumerated (it has {reason})"
            )
        else:
            key, mine = jax.random.split(key)
            found = factor.sample(mine, num)
            draws.update(found if isinstance(found, dict) else {name: found})
    still = {
        latent: jnp.zeros(shape, int if kind.startswith("discrete") else float)
        for latent, (shape, kind) in kinds_of(held).items()
    }
    return jnp.mean(jax.vmap(lambda x: function({**still, **x}))(draws))


def _names(name: str, factor: Any) -> tuple[str, ...]:
    return factor.names if isinstance(factor, Gaussian | Scaled) else (name,)


# --- public ---------------------------------------------------------------------------------------


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Expectation:
    """A mean under q, and how its terms were obtained.

    Attributes:
        mean: the mean, a scalar.
        terms: the mean of each term that the function was split into.
        methods: for each term "exact", "enumerated", "quadrature (...)" or "fixed draws (...)".
    """

    mean: Any
    terms: tuple[Any, ...]
    methods: tuple[str, ...] = dataclasses.field(metadata={"static": True})

    def __str__(self) -> str:
        """The terms, one a line."""
        lines = [f"{float(t):>16.6f}  {m}" for t, m in zip(self.terms, self.methods, strict=True)]
        return "\n".join([*lines, f"{float(self.mean):>16.6f}  in all"])

    def __float__(self) -> float:
        return float(self.mean)

    def __iter__(self) -> Any:
        """Unpack as ``mean, methods``."""
        return iter((self.mean, self.methods))


def expectation(function: Callable[[dict[str, Any]], Any], q: Factors) -> Expectation:
    r"""The mean of a scalar function of latents under q, without sampling where possible.

    The function is traced to a jaxpr, which is interpreted in an algebra of sums of lazy einsums
    of elements of latents. Polynomials, exponentials of affine forms, logarithms and indicators
    of discrete latents are exact; nonlinear functions of one or two affine forms of Gaussian
    latents take Gauss-Hermite quadrature, of three to six fixed quasi-random draws in that many
    dimensions; latents that are not Gaussian are integrated on a grid; what is left is estimated
    on fixed draws of all latents. A transformation like ``jax.grad``: it works under ``jit`` and
    ``vmap`` and is differentiable in the parameters of q.

    Args:
        function: of a dict with the latents' values, each in its factor's own support.
        q: latent -> factor of :mod:`taut.families` (``Gamma``, ``Beta``, ``Categorical``, ...); a
            :class:`taut.families.Gaussian` block may hold several latents, its key is free.

    Returns:
        The mean, the mean of each term, and how each was obtained.

    Raises:
        ArgumentError: if q is no mapping of factors.
        ModelError: if the function is no scalar, or needs draws of a discrete latent.

    Source:
        Hoffman, Johnson and Tran (2018), Autoconj, for the idea; Isserlis (1918), Wick (1950).
    """
    check_factors(q)
    with double_precision():
        compiled = compile_terms(lambda latents, _: function(latents), q)
        if compiled.function is not None:
            mean = compiled(q)
            return Expectation(mean, (mean,), compiled.methods)
        moments = Moments(by_latent(q), list(compiled.arrays))
        terms = tuple(t.scale * expect_term(t, moments) for t in compiled.terms)
        mean = sum(terms, start=jnp.zeros(()))
        return Expectation(mean, terms, tuple(method_of(t) for t in compiled.terms))


def check_factors(q: Any) -> None:
    """Refuse what is no mapping from latents to factors."""
    if not isinstance(q, Mapping) or not q:
        raise ArgumentError(
            f"q must be a mapping from latent names to factors, such as {{'x': families.Gamma(2.0, 1.0)}}, got {q!r}"
        )
    seen: dict[str, str] = {}
    for name, factor in q.items():
        if not isinstance(factor, Gaussian | Scaled | AbstractContinuous | AbstractDiscrete):
            raise ArgumentError(
                f"q['{name}'] must be a factor of taut.families (Gaussian, Gamma, Beta, ...), "
                f"got {type(factor).__name__}"
            )
        for latent in factor.names if isinstance(factor, Gaussian | Scaled) else (name,):
            if latent in seen:
                raise ArgumentError(
                    f"latent '{latent}' is in two factors: '{seen[latent]}' and '{name}'"
                )
            seen[latent] = name
