"""The pure functions of a NumPyro model whose discrete latents are summed out."""

import dataclasses
import functools
import math
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpyro.distributions as dist

from taut._core.errors import ModelError, listing
from taut._core.tracing import hoist, shapes_of
from taut.problem import coordinates, elimination
from taut.problem.dependence import Dependence, trace_dependence
from taut.problem.discrete import Component, Structure, find_structure
from taut.problem.elimination import Combine, Table, TooManyError
from taut.problem.replay import Functions, log_prob
from taut.problem.stand_in import NOTE, STAND_IN
from taut.problem.types import Arrays, Enumeration, Latent, Program

ANY = 0  # run of a site that is the same in all runs
PARTS = "sums over fewer rows"  # key of ``Summed.of_part`` in the compiled functions of a program


class Summed:
    """The functions of one model structure, its discrete latents summed out.

    Attributes:
        functions: those of the model at given values of all latents.
        structure: how to sum.
        varying: deterministic sites that depend on discrete latents.
        refusal: raised where the sum is wanted, because it would not fit into memory. Not before:
            factors of their own for the discrete latents need no sum, nor do a few rows at a time.
    """

    def __init__(self, functions: Functions, structure: Structure, varying: frozenset[str]) -> None:
        self.functions, self.structure, self.varying = functions, structure, varying
        self.refusal: TooManyError | None = None
        self._values = {s.name: s.num_values for s in functions.discrete}

    # --- the marginal log joint ---------------------------------------------------------------

    def log_joint_sites(self, u: Any, arrays: Arrays) -> dict[str, Any]:
        """Site by site log joint at one point; every sum has a key of its own."""
        return self._combined(*self._all_runs(u, arrays))

    def of_part(
        self, latents: tuple[Latent, ...], discrete: tuple[Latent, ...], example: Arrays
    ) -> "Summed":
        """The same for fewer rows.

        Args:
            latents: the continuous latents, with the shapes that they have there.
            discrete: the discrete ones.
            example: shapes of the data.
        """
        functions = Functions(self.functions.model, self.functions.fixed, latents, discrete)
        return sum_out(functions, example)

    def run(self, colouring: Any, u: Any, arrays: Arrays) -> tuple[dict[str, Any], dict[str, Any]]:
        """Run the model at one row of values of the discrete latents.

        Returns:
            Log densities of the sites that take part in no sum, and pointwise ones of the others.
        """
        summed = self.structure.sites
        states = {n: p.values(colouring) for n, p in self.structure.places.items()}
        trace = self.functions.trace(u, arrays, states)
        rest = {n: site for n, site in trace.items() if n not in summed}
        found = {n: self.log_prob(n, trace[n]) for n in sorted(summed)}
        return self.functions.sum_sites(rest, u.dtype), found

    def combine(self, alone: dict[str, Any], log_probs: dict[str, Any]) -> dict[str, Any]:
        """Sum the discrete latents out of all runs.

        Raises:
            TooManyError: if that would not fit into memory.
        """
        self._refuse()
        return self._combined(alone, log_probs)

    def _refuse(self) -> None:
        if self.refusal is not None:
            raise self.refusal

    def _combined(
        self, alone: dict[str, Any], log_probs: dict[str, Any], most: int | None = None
    ) -> dict[str, Any]:
        sites = {n: v[ANY] for n, v in alone.items()}
        for component in self.structure.components:
            tables = self.structure.tables(component, log_probs)
            sites[component.key] = jnp.sum(
                self._eliminate(component, tables, elimination.log_sum, most=most).array
            )
        return sites

    def log_likelihood(self, u: Any, arrays: Arrays) -> dict[str, Any]:
        """Pointwise log likelihood of the observed sites at one point.

        Observed sites that share discrete latents make one term, named after all of them, with
        one element for each independent element of the latents.
        """
        trace = self.functions.trace(u, arrays)
        observed = self.functions.observed_in(trace)
        summed = self.structure.sites
        result = {n: log_prob(site) for n, site in observed.items() if n not in summed}
        tables = self._tables(u, arrays)
        for component, own in zip(self.structure.components, tables, strict=True):
            if names := self._pointwise(component, set(observed)):
                found = self._eliminate(component, own, elimination.log_sum)
                result["+".join(names)] = self._in_order(component, found, names)
        return result

    def constrain(self, u: Any, arrays: Arrays) -> dict[str, Any]:
        """Latents and deterministic sites at one point, as far as they are not discrete."""
        found = self.functions.constrain(u, arrays)
        return {n: v for n, v in found.items() if n not in self.varying}

    def _all_runs(self, u: Any, arrays: Arrays) -> tuple[dict[str, Any], dict[str, Any]]:
        return jax.vmap(self.run, (0, None, None))(jnp.asarray(self.structure.runs), u, arrays)

    def _tables(self, u: Any, arrays: Arrays) -> list[list[Table]]:
        """The tables of each sum."""
        self._refuse()
        _, log_probs = self._all_runs(u, arrays)
        return [self.structure.tables(c, log_probs) for c in self.structure.components]

    def log_prob(self, name: str, site: Mapping[str, Any]) -> Any:
        """Pointwise log density; a discrete latent that is masked is uniform, so it sums to one."""
        value, fn = log_prob(site), site["fn"]
        if name in self._values and isinstance(fn, dist.MaskedDistribution):
            value = jnp.where(fn._mask, value, -math.log(self._values[name]))
        return value

    def _eliminate(
        self, component: Component, tables: list[Table], combine: Combine, key: Any = None,
        most: int | None = None,
    ) -> Table:  # fmt: skip
        variables = [self.structure.places[n].variable for n in component.names]
        return elimination.eliminate(tables, variables, combine, key, most)

    def _pointwise(self, component: Component, observed: set[str]) -> list[str]:
        """The observed sites of a sum, or the reason why it has no pointwise likelihood."""
        sites = [f.site for f in component.factors]
        names = [n for n in sites if n in observed]
        others = [n for n in sites if n not in observed and n not in self._values]
        if names and others:
            raise ModelError(
                f"the pointwise log likelihood of {listing(names)} cannot be told from {listing(others)}: both "
                f"depend on the discrete {listing(component.names)}"
            )
        return names

    def _in_order(self, component: Component, found: Table, names: list[str]) -> Any:
        if not found.dims:
            raise ModelError(
                f"the values of {listing(names)} are dependent through the discrete {listing(component.names)}, "
                "summed over all of them at once, so there is no pointwise log likelihood"
            )
        factor = next(f for f in component.factors if f.site == names[0])
        order = [d for a in factor.axes if (d := elimination.Dim("axis", a)) in found.dims]
        return jnp.transpose(found.array, [found.dims.index(d) for d in order])

    # --- the discrete latents given the others ------------------------------------------------

    def marginals(self, u: Any, arrays: Arrays) -> dict[str, Any]:
        """Probability of each value of each discrete latent at one point, (*shape, values)."""
        return self._gradient(u, arrays, elimination.log_sum)

    def mode(self, u: Any, arrays: Arrays) -> dict[str, Any]:
        """Values of all discrete latents that are most probable together, at one point."""
        return self._chosen(u, arrays, elimination.maximum)

    def draw(self, key: Any, u: Any, arrays: Arrays) -> dict[str, Any]:
        """One exact draw of all discrete latents given the others and the data, at one point."""
        return self._chosen(u, arrays, elimination.draw, key)

    def support(self, arrays: Arrays) -> dict[str, Any]:
        """Values that each discrete latent can take."""
        u = jnp.zeros(sum(s.size for s in self.functions.latents))
        trace = self.functions.trace(u, arrays)
        return {n: trace[n]["fn"].enumerate_support(False).reshape(-1) for n in self._values}

    def _chosen(self, u: Any, arrays: Arrays, combine: Combine, key: Any = None) -> dict[str, Any]:
        marked, support = self._gradient(u, arrays, combine, key), self.support(arrays)
        return {n: support[n][jnp.argmax(v, -1)] for n, v in marked.items()}

    def _gradient(
        self, u: Any, arrays: Arrays, combine: Combine, key: Any = None
    ) -> dict[str, Any]:
        """Derivatives of the marginal log joint by the log probability of each value.

        For the log of the sum they are the posterior marginals; Darwiche (2003), section 4.
        """
        tables = self._tables(u, arrays)

        def total(eps: Mapping[str, Any]) -> Any:
            terms = []
            for i, (component, own) in enumerate(
                zip(self.structure.components, tables, strict=True)
            ):
                nudges = [self.structure.nudge(n, eps[n]) for n in component.names]
                part = None if key is None else jax.random.fold_in(key, i)
                found = self._eliminate(component, [*own, *nudges], combine, part)
                terms.append(jnp.sum(found.array))
            return functools.reduce(jnp.add, terms)

        zero = {s.name: jnp.zeros((s.num_values, *s.shape)) for s in self.functions.discrete}
        return {n: jnp.moveaxis(g, 0, -1) for n, g in jax.grad(total)(zero).items()}


# --- from a model with discrete latents to one without ----------------------------------------


def sum_out(functions: Functions, example: Arrays) -> Summed:
    """Find out how to sum the discrete latents of a model out.

    Latents whose prior's location or scale depends on discrete ones are left in the model's own
    coordinates from now on: others would move with the discrete values.

    Args:
        functions: of the model; its ``latents`` are replaced.
        example: shapes of the data.

    Raises:
        ModelError: if there is no cheap exact way.
    """
    found = _Look(functions)
    latents, discrete = functions.latents, functions.discrete
    states = {s.name: jax.ShapeDtypeStruct(s.shape, int) for s in discrete}
    at = {s.name: jax.ShapeDtypeStruct(s.unconstrained_shape, float) for s in latents}
    depends = trace_dependence(found, states, at, example)
    by_kind: dict[str, dict[str, Dependence]] = {k: {} for k in ("density", *_Look.OTHERS)}
    for key, links in depends.items():
        kind, _, name = key.partition("/")
        by_kind[kind][name] = links
    _refuse(by_kind, found.scaled)
    functions.latents = tuple(
        dataclasses.replace(s, centring=None) if by_kind["affine"].get(s.name) else s
        for s in latents
    )
    structure = find_structure(discrete, by_kind["density"], found.shapes)
    varying = frozenset(n for n, links in by_kind["computed"].items() if links)
    summed = Summed(functions, structure, varying)
    point = jax.ShapeDtypeStruct((sum(s.size for s in latents),), float)
    centring = {s.name: example["centring"][s.name] for s in functions.latents if s.centring}
    summed.refusal = _try(summed, point, {**example, "centring": centring})
    return summed


def _refuse(by_kind: Mapping[str, Mapping[str, Dependence]], scaled: list[str]) -> None:
    """Refuse what a sum over discrete values would get wrong."""
    for name, links in by_kind["value"].items():
        if links:
            raise ModelError(
                f"the support of latent '{name}' depends on the discrete {listing(sorted(links))}, so it has no "
                "coordinates of its own; give it a fixed support and scale or mask it afterwards"
            )
    for name in scaled:
        if by_kind["density"][name]:
            raise ModelError(
                f"site '{name}' is under handlers.scale and depends on discrete latents, whose sum does not scale "
                "with it; repeat the data instead of weighting them, or sum by hand"
            )


def _try(summed: Summed, point: Any, example: Arrays) -> TooManyError | None:
    """Refuse sums that have no order; say which would not fit into memory."""
    runs, names = summed.structure.runs, [s.name for s in summed.functions.discrete]
    hoisted = hoist(summed.run, shapes_of(runs[0]), point, example)
    constants = shapes_of(hoisted.constants)
    one = jax.eval_shape(hoisted.call, constants, shapes_of(runs[0]), point, example)
    every = jax.tree.map(lambda s: jax.ShapeDtypeStruct((len(runs), *s.shape), s.dtype), one)
    jax.eval_shape(summed._combined, *every)
    if len(runs) * hoisted.width > elimination.MAX_NUMBERS:
        return elimination.too_many(names, len(runs) * hoisted.width)
    try:
        jax.eval_shape(functools.partial(summed._combined, most=elimination.MAX_NUMBERS), *every)
    except TooManyError as refusal:
        return refusal
    return None


class _Look:
    """What the discrete latents might reach, as a function of their values.

    Attributes:
        shapes: site -> shape of its pointwise log density.
        scaled: sites under ``handlers.scale``.
    """

    OTHERS = ("value", "affine", "computed")

    def __init__(self, functions: Functions) -> None:
        self.functions = functions
        self.shapes: dict[str, tuple[int, ...]] = {}
        self.scaled: list[str] = []

    def __call__(self, states: Any, values: Any, arrays: Arrays) -> dict[str, Any]:
        functions, found = self.functions, {}
        plain = {**arrays, "centring": {}}
        trace = functions.trace_sites(values, plain, states=states)
        for name, site in trace.items():
            if site["type"] == "deterministic":
                found[f"computed/{name}"] = site["value"]
            elif site["type"] == "sample":
                density = log_prob(site)
                found[f"density/{name}"] = density
                self.shapes[name] = jnp.shape(density)
                self.scaled += [name] if site["scale"] is not None else []
        for latent in functions.latents:
            found[f"value/{latent.name}"] = trace[latent.name]["value"]
            if latent.centring is not None:
                found[f"affine/{latent.name}"] = coordinates.affine_of(trace[latent.name]["fn"])
        return found


def without_discrete(program: Program, summed: Summed) -> Program:
    """The program with its discrete latents summed out.

    Args:
        program: of the model at given discrete values.
        summed: its functions with the sums.
    """
    stands_in = any(s.name == STAND_IN for s in program.latents)
    notes = (*program.notes, *_notes(summed), *([NOTE] if stands_in else []))
    return dataclasses.replace(
        program,
        log_joint_sites=summed.log_joint_sites,
        constrain=summed.constrain,
        log_likelihood=summed.log_likelihood,
        deterministic={n: s for n, s in program.deterministic.items() if n not in summed.varying},
        discrete=summed.functions.discrete,
        enumeration=enumeration_of(summed),
        notes=notes,
        compiled={PARTS: summed.of_part},
    )


def enumeration_of(summed: Summed) -> Enumeration:
    """How the discrete latents are summed out, and what is known of them."""
    structure = summed.structure
    return Enumeration(
        runs=structure.runs,
        run=summed.run,
        combine=summed.combine,
        marginals=summed.marginals,
        mode=summed.mode,
        draw=summed.draw,
        support=summed.support,
        sums={c.key: tuple(f.site for f in c.factors) for c in structure.components},
    )


def _notes(summed: Summed) -> list[str]:
    names = [s.name for s in summed.functions.discrete]
    plural = "s" * (len(names) > 1)
    notes = [
        f"discrete latent{plural} {listing(names)} summed out exactly from the log joint: see responsibilities"
    ]
    if summed.varying:
        notes.append(
            f"deterministic {listing(sorted(summed.varying))} left out: computed from discrete latents"
        )
    return notes
