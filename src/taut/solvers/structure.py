"""From a model's terms to its factors: what is conjugate, what couples, where to begin."""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from taut.expectation.factor import AbstractDiscrete
from taut.expectation.gaussian import Gaussian, Scaled
from taut.expectation.indicators import positions
from taut.expectation.table import log_density
from taut.expectation.terms import Power, Term
from taut.expectation.transform import Compiled, by_latent, compile_terms
from taut.families import Beta, Categorical, Chain, Dirichlet, Gamma, Grid, InverseGamma, Wishart
from taut.problem import Latent, Problem
from taut.solvers.blocks import Block
from taut.solvers.joint import ONE, batch_of, joint_precision

MAX_BLOCK = 600  # coordinates of one dense Gaussian block
LOG, INVERSE, COLOG = Power(logs=1), Power(power=-1.0), Power(cologs=1)
CONJUGATE = {  # factor -> the statistics through which its latent must enter everywhere
    "gamma": {LOG, ONE},
    "inverse_gamma": {LOG, INVERSE},
    "beta": {LOG, COLOG},
    "dirichlet": {LOG},
    "wishart": {LOG, ONE},
}
CANDIDATES = {  # support -> the factor that is tried first
    "positive": "gamma",
    "unit interval": "beta",
    "simplex": "dirichlet",
    "positive definite": "wishart",
}


@dataclasses.dataclass(frozen=True)
class Layout:
    """Which factor every latent has.

    Attributes:
        kinds: latent -> "gaussian", a key of ``CONJUGATE``, "grid", "categorical" or "chain".
        blocks: latents of each Gaussian block, in the order of updates.
        batches: leading independent dimensions of each Gaussian block.
        scales: the precisions that are joined to each Gaussian block, or "".
        drawn: sites that are taken on draws because their compiled mean was wrong.
    """

    kinds: tuple[tuple[str, str], ...]
    blocks: tuple[tuple[str, ...], ...]
    batches: tuple[int, ...]
    scales: tuple[str, ...]
    drawn: tuple[str, ...] = ()

    @property
    def own(self) -> frozenset[str]:
        """Latents that stay in their own support."""
        return frozenset(n for n, kind in self.kinds if kind != "gaussian")


def site_functions(problem: Problem, own: frozenset[str]) -> Any:
    """(latents, arrays) -> site -> expected log density's integrand.

    Gaussian latents are in the model's own (centred) coordinates: there the updates are the
    textbooks', while non-centring bends what is conjugate (w = u / sqrt(alpha) in place of w).
    """
    densities = problem.program.densities
    assert densities is not None  # a mean field is refused before, where there is none

    def sites(latents: Mapping[str, Any], arrays: Any) -> dict[str, Any]:
        return densities(latents, {**arrays, "centring": {}}, own, log_density)

    return sites


def compile_sites(
    problem: Problem, q: Mapping[str, Any], own: frozenset[str], drawn: tuple[str, ...] = ()
) -> Any:
    """A function of the problem's arrays that returns site -> compiled expectation.

    Run it under ``jax.jit``: then folding is a compiled function of the data.
    """
    sites = site_functions(problem, own)
    shapes = {n: jax.ShapeDtypeStruct(s, float) for n, s in _shapes(q).items()}
    discrete = {n for n, f in by_latent(q).items() if isinstance(f, AbstractDiscrete)}
    shapes = {
        n: jax.ShapeDtypeStruct(s.shape, int) if n in discrete else s for n, s in shapes.items()
    }

    def compiled(arrays: Any) -> dict[str, Compiled]:
        names = list(jax.eval_shape(sites, shapes, arrays))
        return {
            name: compile_terms(
                lambda latents, data, name=name: sites(latents, data)[name],
                q,
                arrays,
                name in drawn,
            )
            for name in names
        }

    return compiled


def _shapes(q: Mapping[str, Any]) -> dict[str, tuple[int, ...]]:
    return {
        n: f.place(n)[0] if isinstance(f, Gaussian | Scaled) else f.shape
        for n, f in by_latent(q).items()
    }


# --- choosing the factors ----------------------------------------------------------------------


def choose_layout(
    problem: Problem, blocks: tuple[tuple[str, ...], ...] | None, free_form: tuple[str, ...] = ()
) -> Layout:
    """Read the model with a conjugate factor for every latent, and keep those that fit.

    Labels of one site that are coupled to their neighbours along its last dimension (a scan) get
    a chain; labels that a Python loop puts into sites of their own are independent in q.
    """
    kinds = {s.name: _first_guess(s, free_form) for s in problem.latents}
    kinds |= {s.name: "categorical" for s in problem.program.discrete}
    found: dict[str, Compiled] = {}
    for _ in range(3):
        q = default_factors(problem, _grouped(problem, kinds, None, ()))
        own = frozenset(n for n, k in kinds.items() if k != "gaussian")
        found = jax.eval_shape(compile_sites(problem, q, own), problem.arrays)
        better = {n: _checked(n, k, found, problem) for n, k in kinds.items()}
        if better == kinds:
            break
        kinds = better
    terms = [t for c in found.values() for t in c.terms]
    return _grouped(problem, kinds, blocks, terms)


def _first_guess(latent: Latent, free_form: tuple[str, ...]) -> str:
    if latent.name in free_form:
        return "grid"
    return CANDIDATES.get(support_of(latent), "gaussian")


def support_of(latent: Latent) -> str:
    """Its support in words; densities in plain JAX write "unit_interval"."""
    return latent.support.replace("_", " ")


def _checked(name: str, kind: str, sites: Mapping[str, Compiled], problem: Problem) -> str:
    """The kind, or the next one to try, given how the latent enters."""
    if kind == "categorical":
        return "chain" if _links_neighbours(name, sites, problem) else kind
    if kind in ("gaussian", "chain", "grid"):
        return kind
    powers = set()
    for compiled in sites.values():
        if compiled.function is not None:
            if compiled.depends_on(name):
                return "gaussian"
            continue
        for term in compiled.terms:
            if name not in term.latents:
                continue
            powers |= {p for e, p in term.powers if e.latent == name} or {None}
            if any(e.latent == name for e, _ in term.onehots):
                powers.add(None)
    if powers <= CONJUGATE[kind]:
        return kind
    return (
        "inverse_gamma" if kind == "gamma" and powers <= CONJUGATE["inverse_gamma"] else "gaussian"
    )


def _links_neighbours(name: str, sites: Mapping[str, Compiled], problem: Problem) -> bool:
    """Whether terms couple elements of a discrete latent, and none but neighbours in a sequence."""
    (shape,) = (s.shape for s in problem.program.discrete if s.name == name)
    linked = False
    for compiled in sites.values():
        for term in compiled.terms:
            mine = [e for e, _ in term.onehots if e.latent == name]
            if len(mine) < 2:
                continue
            pair = len(mine) == 2
            where = positions(mine[0], mine[1], compiled.arrays, shape[-1]) if pair else None
            if where is None or np.any(np.abs(where[0] - where[1]) > 1):
                return False
            linked |= bool(np.any(where[0] != where[1]))
    return linked


def _grouped(problem: Problem, kinds: dict[str, str], blocks: Any, terms: Any) -> Layout:
    names = [s.name for s in problem.latents if kinds[s.name] == "gaussian"]
    latents = {s.name: s for s in problem.latents}
    groups = [list(g) for g in blocks or ()]
    rest = [n for n in names if not any(n in g for g in groups)]
    groups += _coupled(rest, latents, terms) if blocks is None and terms else [[n] for n in rest]

    def scale_of(group: list[str]) -> str:
        return joint_precision(group, kinds, latents, terms, MAX_BLOCK)

    scales = [scale_of(g) for g in groups]
    if blocks is None:
        groups, scales = _sharing(groups, scales, scale_of)
    scales = [s if scales.count(s) == 1 else "" for s in scales]
    batches = tuple(
        len(batch_of(latents[s], kinds[s])) if s else _independent_dims(g, latents, terms)
        for g, s in zip(groups, scales, strict=True)
    )
    return Layout(tuple(kinds.items()), tuple(map(tuple, groups)), batches, tuple(scales))


def _sharing(
    groups: list[list[str]], scales: list[str], scale_of: Callable[[list[str]], str]
) -> tuple[list[list[str]], list[str]]:
    """Join groups that have one precision: given it they are independent, by themselves not."""
    found: list[list[str]] = []
    of_found: list[str] = []
    for group, scale in zip(groups, scales, strict=True):
        at = of_found.index(scale) if scale and scale in of_found else None
        if at is None or scale_of([*found[at], *group]) != scale:
            found.append(group)
            of_found.append(scale)
        else:
            found[at] = [*found[at], *group]
    return found, of_found


def _coupled(
    names: list[str], latents: dict[str, Latent], terms: Sequence[Term]
) -> list[list[str]]:
    """Join latents whose joint terms are quadratic and whose block stays small."""
    groups = [[n] for n in names]
    for term in terms:
        present = sorted(term.latents & set(names), key=names.index)
        if len(present) < 2:
            continue
        touched = [g for g in groups if set(g) & set(present)]
        joined = [n for g in touched for n in g]
        small = sum(latents[n].size for n in joined) <= MAX_BLOCK
        if len(touched) > 1 and small and all(_is_quadratic(t, set(joined)) for t in terms):
            groups = [joined if g is touched[0] else g for g in groups if g not in touched[1:]]
    return groups


def _is_quadratic(term: Term, names: set[str]) -> bool:
    return sum(e.latent in names for e in term.linear) <= 2


def _independent_dims(group: list[str], latents: dict[str, Latent], terms: Sequence[Term]) -> int:
    """Leading dimensions along which a block is not coupled, or cannot be for its size."""
    size = sum(latents[n].size for n in group)
    large = 0 if size <= MAX_BLOCK else _common_plates([latents[n] for n in group])
    return max(large, _uncoupled_dims(group, latents, terms))


def _uncoupled_dims(group: list[str], latents: dict[str, Latent], terms: Sequence[Term]) -> int:
    """Leading dimensions along which no term couples a block: its optimum is independent there.

    Terms are quadratic in the block, so it is enough that both elements have one index.
    """
    mine = [t for t in terms if t.latents & set(group)]
    if not mine or any(t.exponents or t.functions for t in mine):
        return 0
    found = 0
    for dims in zip(*(latents[n].unconstrained_shape for n in group), strict=False):
        indices = [{e.index[found] for e in t.linear if e.latent in group} for t in mine]
        if len(set(dims)) > 1 or any(len(i) > 1 for i in indices):
            break
        found += 1
    return found


def _common_plates(latents: list[Latent]) -> int:
    """Leading dimensions that all of a group's latents share and that are plates."""
    shared = 0
    for dims in zip(*(s.unconstrained_shape for s in latents), strict=False):
        plates = all(len(s.plates) > shared for s in latents)
        if len(set(dims)) > 1 or not plates:
            break
        shared += 1
    return shared


# --- default members ---------------------------------------------------------------------------


def default_factors(
    problem: Problem, layout: Layout, means: Any = None, scale: float = 1.0
) -> dict[str, Any]:
    """A member of the family to start from, or to read shapes off."""
    latents = {s.name: s for s in (*problem.latents, *problem.program.discrete)}
    q: dict[str, Any] = {}
    joined = set(layout.scales) - {""}
    for group, batch, precision in zip(layout.blocks, layout.batches, layout.scales, strict=True):
        shapes = {n: latents[n].unconstrained_shape for n in group}
        size = sum(int(np.prod(s, dtype=int)) for s in shapes.values())
        copies = int(np.prod(next(iter(shapes.values()))[:batch], dtype=int))
        covariance = jnp.broadcast_to(
            scale * jnp.eye(size // copies), (copies, size // copies, size // copies)
        )
        block = Gaussian(shapes, jnp.zeros(size), covariance, batch)
        if precision:
            kind = dict(layout.kinds)[precision]
            block = Scaled(block, _default(kind, latents[precision]), precision)
        q[", ".join((*group, precision) if precision else group)] = block
    for name, kind in layout.kinds:
        if kind != "gaussian" and name not in joined:
            q[name] = _default(kind, latents[name])
    return q


def _default(kind: str, latent: Latent) -> Any:
    shape = latent.shape
    if kind == "gamma":
        return Gamma(jnp.ones(shape), jnp.ones(shape))
    if kind == "inverse_gamma":
        return InverseGamma(jnp.full(shape, 2.0), jnp.ones(shape))
    if kind == "beta":
        return Beta(jnp.ones(shape), jnp.ones(shape))
    if kind == "dirichlet":
        return Dirichlet(jnp.ones(shape))
    if kind == "wishart":
        size = shape[-1]
        return Wishart(jnp.full(shape[:-2], size + 1.0), jnp.broadcast_to(jnp.eye(size), shape))
    size = latent.num_values
    if kind == "categorical":
        return Categorical(jnp.full((*shape, size), 1.0 / size))
    if kind == "chain":
        *batch, length = shape
        return Chain(jnp.zeros((*shape, size)), jnp.zeros((*batch, length - 1, size, size)))
    return _default_grid(latent)


def _default_grid(latent: Latent) -> Grid:
    """A wide grid over the latent's support, even in its real coordinate."""
    z = np.linspace(-8.0, 8.0, 257)
    step = z[1] - z[0]
    if support_of(latent) == "positive":
        points, slope = np.exp(z), np.exp(z)
    elif support_of(latent) == "unit interval":
        points = 1.0 / (1.0 + np.exp(-z))
        slope = points * (1.0 - points)
    else:
        points, slope = 4.0 * z, np.full_like(z, 4.0)
    shape = (len(z), *(1,) * len(latent.shape))
    points, slope = (
        np.broadcast_to(x.reshape(shape), (len(z), *latent.shape)) for x in (points, slope)
    )
    return Grid(points, -0.5 * np.broadcast_to(z.reshape(shape), points.shape) ** 2, slope * step)


def make_blocks(
    layout: Layout, q: Mapping[str, Any], sites: Mapping[str, Compiled]
) -> tuple[Block, ...]:
    """The order of updates: discrete latents last, so that they see better parameters."""
    blocks = []
    for name, factor in q.items():
        latents = factor.names if isinstance(factor, Gaussian | Scaled) else (name,)
        mine = tuple(s for s, c in sites.items() if any(c.depends_on(n) for n in latents))
        blocks.append(Block(name, latents, mine, _is_conjugate(factor, latents, sites, mine)))
    return tuple(sorted(blocks, key=lambda b: isinstance(q[b.name], AbstractDiscrete)))


def _is_conjugate(factor: Any, latents: tuple[str, ...], sites: Any, mine: tuple[str, ...]) -> bool:
    """Whether the expected log joint is linear in the factor's mean parameter."""
    if any(sites[s].function is not None for s in mine):
        return False
    if not isinstance(factor, Gaussian):
        return True  # chosen so; free-form and discrete factors are linear by construction
    terms = [t for s in mine for t in sites[s].terms if t.latents & set(latents)]
    inner = [
        t for x in terms for a in (*x.exponents, *(a for f in x.functions for a in f.args))
        for t in a.terms
    ]  # fmt: skip
    bent = any(t.latents & set(latents) for t in inner)
    return not bent and all(_is_quadratic(t, set(latents)) for t in terms)
