"""From a model to its derivation: choose the factors, climb, and write down what was done."""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from taut._core.errors import ArgumentError, ModelError, listing
from taut._core.precision import double_precision
from taut._core.progress import Watch
from taut.derivation import conjugate, gaussian, scaled
from taut.derivation.derivation import Derivation
from taut.derivation.model import formulas
from taut.derivation.notation import PLAIN, AbstractNotation, Formula, both, signed_sum
from taut.derivation.records import Factor, Site
from taut.derivation.reroll import rerolled
from taut.derivation.symbols import Symbols
from taut.derivation.terms import Writer, free_constant
from taut.expectation.factor import AbstractChain, AbstractDiscrete
from taut.expectation.gaussian import Gaussian, Scaled
from taut.expectation.transform import by_latent
from taut.families import AbstractFamily, Block, Dense, Diagonal, Dirichlet, Wishart
from taut.problem import Density, Problem, describe
from taut.solvers.ascent import Ascent, ascend
from taut.solvers.blocks import touching
from taut.solvers.structure import Layout, choose_layout

if TYPE_CHECKING:
    from taut.report.content import Graph

MAX_TERMS = 40  # of one site that are written out
TOLERANCE = 1e-10  # nats; so that all shown digits are those of the optimum
FAMILIES = {"inverse_gamma": "inverse gamma", "dirichlet": "Dirichlet", "wishart": "Wishart"}
TO_REAL = {"positive": "log", "unit interval": "logit"}
Family = AbstractFamily | Sequence[Sequence[str]] | None


def derive(
    model: Callable[..., Any] | Density,
    data: Any = None,
    *,
    observe: Mapping[str, Any] | None = None,
    family: Any = None,
    seed: int = 0,
) -> Derivation:
    """Derive the mean-field updates and the ELBO of a model, and show them.

    The factors are chosen, coordinate ascent is run to its end, and everything is written down for
    this very model: the factorisation, the updates, the integrals, the ELBO site by site.

    Args:
        model: a NumPyro model function.
        data: as in :func:`taut.fit`.
        observe: site name -> values: condition on any sites of the model.
        family: how latents with a Gaussian factor are joined. None chooses; ``families.Dense()``
            joins all; ``families.Block("latent")`` none; ``families.Diagonal()`` makes their
            elements independent too; tuples of names, such as ``[("a", "b"), ("c",)]``, say which.
        seed: of the starts.

    Returns:
        The derivation: print it, or see its ``latex()`` and ``graph``.

    Raises:
        ArgumentError: if an argument breaks its rule.
        DataError: if the data do not fit the model.
        ModelError: if the model cannot be used or has no sites to read.
    """
    if not isinstance(seed, int) or isinstance(seed, bool) or seed < 0:
        raise ArgumentError(f"seed must be a whole number of at least 0, got {seed!r}")
    problem = describe(model, data, observe)
    _check_sites(problem)
    with double_precision():
        layout = grouped(problem, choose_layout(problem, None), family)
    with Watch(None, False, ()) as watch:
        ascent = ascend(problem, layout, seed, watch, tolerance=TOLERANCE)
    return derivation_of(problem, ascent, layout)


def _check_sites(problem: Problem) -> None:
    if problem.program.densities is None or problem.relations is None:
        raise ModelError(
            "derive reads the sites of a model, and a Density has none: write it as a NumPyro model, "
            "or use fit"
        )


def grouped(problem: Problem, layout: Layout, family: Any) -> Layout:
    """The layout with its Gaussian latents joined as the family says."""
    names = [n for n, kind in layout.kinds if kind == "gaussian"]
    if family is None:
        return layout
    if isinstance(family, Diagonal):
        ndim = {s.name: len(s.unconstrained_shape) for s in problem.latents}
        blocks, batches = tuple((n,) for n in names), tuple(ndim[n] for n in names)
        return dataclasses.replace(
            layout, blocks=blocks, batches=batches, scales=("",) * len(names)
        )
    if isinstance(family, Dense):
        blocks = (tuple(names),) if names else ()
    elif isinstance(family, Block) and family.by == "latent":
        blocks = tuple((n,) for n in names)
    else:
        blocks = _given_blocks(family, names)
    count = len(blocks)
    return dataclasses.replace(layout, blocks=blocks, batches=(0,) * count, scales=("",) * count)


def _given_blocks(family: Any, names: list[str]) -> tuple[tuple[str, ...], ...]:
    is_list = isinstance(family, list | tuple) and all(isinstance(g, list | tuple) for g in family)
    if not is_list:
        raise ArgumentError(
            "family must be None, families.Dense(), families.Block('latent'), families.Diagonal() or "
            f"tuples of latent names such as [('a', 'b'), ('c',)], got {family!r}"
        )
    given = [n for group in family for n in group]
    unknown = [n for n in given if n not in names]
    if unknown or len(set(given)) < len(given):
        raise ArgumentError(
            "family must name latents with a Gaussian factor, each once: "
            f"{listing(names)}, got {listing(map(str, given))}"
        )
    rest = [(n,) for n in names if n not in given]
    return (*(tuple(g) for g in family if g), *rest)


def derivation_of(problem: Problem, ascent: Ascent, layout: Layout) -> Derivation:
    """Write down what coordinate ascent has done.

    Args:
        problem: what was inferred.
        ascent: where it ended.
        layout: the factors that it had.
    """
    _check_sites(problem)
    with double_precision():
        reader = _Reader(problem, ascent, layout)
        sites = tuple(reader.site(name) for name in reader.order)
        place = {x: i for i, x in enumerate(reader.order)}
        names = sorted(ascent.q, key=lambda n: min(place[x] for x in reader.latents_of(n)))
        factors = tuple(reader.factor(name) for name in names)
        dims, sizes = reader.symbols.dims, reader.symbols.sizes
        return Derivation(
            problem.name, _graph(problem), sites, factors, tuple(reader.symbols.constants.values()),
            tuple((dims[d], d, sizes[d]) for d in dims), _factorised(factors), ascent.elbo,
            ascent.history, ascent.status,
        )  # fmt: skip


def _graph(problem: Problem) -> "Graph":
    from taut.report.graph import graph_of  # loads pandas

    sizes = {
        d: n
        for s in (*problem.latents, *problem.discrete, *problem.observed)
        for d, n in zip(s.dims, s.shape, strict=False) if d in s.plates
    }  # fmt: skip
    return graph_of({} if problem.relations is None else problem.relations(), sizes)


def _factorised(factors: tuple[Factor, ...]) -> Formula:
    """The joint q as the product of its factors."""
    latents = [x for f in factors for x in f.latents]
    return both(
        lambda n: (
            f"q({', '.join(map(n.name, latents))}) = "
            + n.product(f.formula.latex if n is not PLAIN else f.formula.text for f in factors)
        )
    )


class _Reader:
    """What is needed to write sites and factors.

    Attributes:
        order: the sites, in the order of the model.
        symbols: letters.
    """

    def __init__(self, problem: Problem, ascent: Ascent, layout: Layout) -> None:
        self.problem, self.ascent, self.layout = problem, ascent, layout
        self.symbols = Symbols(problem)
        self.known = {s.name: s for s in (*problem.latents, *problem.discrete, *problem.observed)}
        self.heads = _heads(problem)
        self.order = [n for n in self.heads if n in ascent.sites]
        self.order += [n for n in ascent.sites if n not in self.order]
        self.blocks = {x: b.name for b in ascent.blocks for x in b.latents}
        self.shapes = {
            n: f.place(n)[0] if isinstance(f, Gaussian | Scaled) else f.shape
            for n, f in by_latent(ascent.q).items()
        }
        self.writers = {n: self._writer(n) for n in ascent.sites}
        self.terms = {n: rerolled(c.terms, c.arrays, self.shapes) for n, c in ascent.sites.items()}

    def _writer(self, site: str) -> Writer:
        kinds = dict(self.layout.kinds)
        latents = {s.name: s.support for s in self.problem.latents}
        coordinates = {
            n: TO_REAL.get(support.replace("_", " "), "T") for n, support in latents.items()
            if kinds.get(n) == "gaussian" and support not in ("real", "")
        }  # fmt: skip
        matrices = frozenset(n for n, k in kinds.items() if k == "wishart")
        arrays = self.ascent.sites[site].arrays
        return Writer(self.symbols, arrays, self.shapes, self.blocks, matrices, coordinates)

    # --- sites -----------------------------------------------------------------------------------

    def site(self, name: str) -> Site:
        """One site of the model."""
        compiled, about = self.ascent.sites[name], self.known.get(name)
        latent = name in self.blocks
        kind = "latent" if latent else "factor" if about is None else "observed"
        plain = both(lambda n: n.name(name))
        sizes = {} if about is None else dict(zip(about.dims, about.shape, strict=False))
        return Site(
            name, kind, self.heads.get(name, plain) if about is not None else plain,
            () if about is None else tuple(about.shape),
            () if about is None else tuple((p, int(sizes.get(p, 0))) for p in about.plates),
            compiled.methods, self._written(name), float(compiled(self.ascent.q)),
        )  # fmt: skip

    def _written(self, name: str) -> tuple[Formula, ...]:
        """Expected log density of a site, summand by summand."""
        constant, terms = free_constant(self.terms[name])
        if len(terms) > MAX_TERMS:
            return ()
        parts = [self.writers[name].summand(t) for t in terms]
        if constant:
            parts.append((constant, both(lambda n: n.number(abs(constant)))))
        return tuple(
            both(lambda n, k=k, s=s, b=b: _signed(k, s, b, n)) for k, (s, b) in enumerate(parts)
        )

    # --- factors ---------------------------------------------------------------------------------

    def latents_of(self, name: str) -> tuple[str, ...]:
        """The latents of a factor."""
        q = self.ascent.q[name]
        return q.names if isinstance(q, Gaussian | Scaled) else (name,)

    def factor(self, name: str) -> Factor:
        """One factor of q."""
        q, latents = self.ascent.q, self.latents_of(name)
        found = touching(self.ascent.sites, latents)
        sites = {s: found[s] for s in (*latents, *self.order) if s in found}
        terms = {s: tuple(t for t in self.terms[s] if t.latents & set(latents)) for s in sites}
        prior = sum(float(self.ascent.sites[n](q)) for n in latents)
        entropy = float(q[name].entropy)
        if isinstance(q[name], Scaled):
            parameters = scaled.parameters(name, q, sites, self.writers, terms)
            why = (
                f"every term of {', '.join(latents[:-1])} is quadratic and carries {latents[-1]} once, "
                f"so the {_joint(q[name])} is conjugate and no dependence is lost"
            )
        elif isinstance(q[name], Gaussian):
            readable = all(c.function is None for c in sites.values())
            quadratic = readable and gaussian.is_read_off(terms, latents)
            parameters = gaussian.parameters(name, q, sites, self.writers, terms, quadratic)
            why = self._why_gaussian(latents, quadratic)
        else:
            writers = {s: self.writers[s] for s in sites}
            parameters = conjugate.parameters(name, q, sites, writers, terms)
            why = conjugate.WHY[type(q[name])].format(x=name)
        return Factor(
            name, latents, self._place(name, latents), self._family(name), why, parameters,
            entropy, -(prior + entropy),
        )  # fmt: skip

    def _place(self, name: str, latents: tuple[str, ...]) -> Formula:
        """A factor as a product over its independent elements."""
        q = self.ascent.q[name]
        if isinstance(q, Gaussian | Scaled):
            count = q.batch_ndim
        elif isinstance(q, AbstractChain):
            count = len(q.shape) - 1
        else:
            count = len(q.shape) - (isinstance(q, Dirichlet) + 2 * isinstance(q, Wishart))
        letters = self.symbols.letters_of(latents[0], len(self.shapes[latents[0]]))[:count]

        def write(n: AbstractNotation) -> str:
            inner = ", ".join(n.indexed(n.name(x), letters) for x in latents)
            if not letters:
                return f"q({inner})"
            head = "prod_" if n is PLAIN else r"\prod_"
            index = "".join(letters) if n is PLAIN else f"{{{','.join(letters)}}}"
            return f"{head}{index} q({inner})"

        return both(write)

    def _family(self, name: str) -> str:
        q, kind = self.ascent.q[name], dict(self.layout.kinds).get(name, "gaussian")
        if isinstance(q, Gaussian):
            copies, size = q.layout
            many = f"{copies} independent Gaussians of dimension {size}"
            return many if copies > 1 else f"Gaussian N(m, V) of dimension {size}"
        if isinstance(q, Scaled):
            x, (copies, size) = q.precision_name, q.normal.layout
            many = f"{copies} independent " if copies > 1 else ""
            if q.is_matrix:
                return f"{many}{_joint(q)} N(m, {x}^-1 / kappa) Wishart(nu, W) of dimension {size} + {size} x {size}"
            return f"{many}{_joint(q)} N(m, V / {x}) Gamma(a, b) of dimension {size} + 1"
        if isinstance(q, AbstractChain):
            return f"Markov chain over {q.probs.shape[-1]} values"
        if isinstance(q, AbstractDiscrete):
            return f"categorical over {q.probs.shape[-1]} values"
        return {"grid": "free form"}.get(kind, FAMILIES.get(kind, kind))

    def _why_gaussian(self, latents: tuple[str, ...], quadratic: bool) -> str:
        names = ", ".join(latents)
        mapped = self.writers[self.order[0]].coordinates
        moved = [f"{mapped[n]}({n})" for n in latents if n in mapped]
        where = f" in the coordinates {', '.join(moved)}" if moved else ""
        if quadratic:
            return f"every site is quadratic in {names}{where}, so the Gaussian is conjugate"
        return (
            f"some site is not quadratic in {names}{where}: no conjugate family, so a Gaussian is "
            "chosen and found by variational Newton steps"
        )


def _joint(factor: Scaled) -> str:
    return "normal-Wishart" if factor.is_matrix else "normal-gamma"


def _heads(problem: Problem) -> dict[str, Formula]:
    """The sites with their distributions, in the order of the model."""
    try:
        return formulas(problem)
    except (
        Exception
    ):  # the heads are for reading only: a model that cannot be shown is derived all the same
        known = (*problem.latents, *problem.discrete, *problem.observed)
        return {
            s.name: both(lambda n, s=s: f"{n.name(s.name)} {n.words(f'~ {s.distribution}')}")
            for s in known
        }


def _signed(k: int, sign: float, body: Formula, n: AbstractNotation) -> str:
    text = body.text if n is PLAIN else body.latex
    return signed_sum([(sign, text)], n) if k == 0 else f"{'-' if sign < 0 else '+'} {text}"


__all__ = ["derivation_of", "derive", "grouped"]
