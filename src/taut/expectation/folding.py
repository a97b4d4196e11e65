"""A problem whose data are folded into its log joint, and the ELBO of a dense Gaussian over it."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from taut._core.precision import double_precision
from taut.expectation.check import mistaken
from taut.expectation.evaluate import expect
from taut.expectation.gaussian import Gaussian
from taut.expectation.moments import AtPoint
from taut.expectation.table import log_density
from taut.expectation.transform import Compiled, by_latent, compile_terms
from taut.problem import Problem, Program

BLOCK = "latents"  # key of the one Gaussian block
MOST_TERMS = 300  # of all sites together, beyond which compiling costs more than it saves


@dataclasses.dataclass(frozen=True, eq=False)
class Reading:
    """A program read in the algebra of expectations, all latents in one Gaussian block.

    Attributes:
        fold: arrays -> site -> compiled expectation; jitted.
        look: (sites, mean, covariance) -> expected log joint and its gradients; jitted.
        methods: how each site is integrated.
        reason: why it is not used; "" if it is.
        folds: whether no term is left that costs as much as the data.
    """

    fold: Any
    look: Any
    methods: dict[str, str]
    reason: str
    folds: bool


def read(problem: Problem) -> Reading:
    """Read a program in the problem's coordinates once; it is remembered with it."""
    known, modes = problem.program.compiled, modes_of(problem)
    if modes is None:
        return Reading(None, None, {}, "latents are partially centred, each in its own way", False)
    if ("reading", modes) not in known:
        with double_precision():
            known["reading", modes] = _read(problem, dict(modes))
    return known["reading", modes]


def modes_of(problem: Problem) -> tuple[tuple[str, float], ...] | None:
    """0 or 1 for each latent that is fully non-centred or centred; None if any is in between.

    A number in place of an array lets the terms of centred latents stay affine.
    """
    found = {}
    for name, values in problem.arrays["centring"].items():
        first = float(np.ravel(values)[0]) if np.size(values) else 0.0
        if first not in (0.0, 1.0) or not np.all(np.asarray(values) == first):
            return None
        found[name] = first
    return tuple(sorted(found.items()))


def block_of(program: Program, mean: Any, covariance: Any) -> dict[str, Gaussian]:
    """A Gaussian over the flat vector of all latents, as factors."""
    shapes = {s.name: s.unconstrained_shape for s in program.latents}
    return {BLOCK: Gaussian(shapes, mean, covariance)}


def _site_functions(program: Program, modes: dict[str, float]) -> Any:
    """(coordinates by latent, arrays) -> site -> log density."""
    centring = {name: np.float64(0.0) for name, mode in modes.items() if mode == 0.0}

    def sites(latents: Any, arrays: Any) -> dict[str, Any]:
        given = {**arrays, "centring": centring}
        return program.densities(latents, given, frozenset(), log_density)  # type: ignore[misc]

    return sites


def mistaken_sites(problem: Problem, q: Any) -> tuple[str, ...]:
    """Sites whose compiled mean under a dense Gaussian is not that of draws; looked at once.

    Args:
        problem: not folded, for a folded one would be compared with itself.
        q: a dense Gaussian in its coordinates.
    """
    reading, known, modes = read(problem), problem.program.compiled, modes_of(problem)
    if reading.reason or "folded" in problem.arrays:
        return ()
    if ("checked", modes) not in known:
        with double_precision():
            factors = block_of(problem.program, q.mean, q.covariance)
            compiled = reading.fold(problem.arrays)
        sites = _site_functions(problem.program, dict(modes or ()))
        known["checked", modes] = mistaken(compiled, sites, factors, problem.arrays)
    return known["checked", modes]


def _read(problem: Problem, modes: dict[str, float]) -> Reading:
    program = problem.program
    dim = program.dim
    if program.densities is None or program.discrete or not dim:
        return Reading(None, None, {}, "its log joint is a sum over discrete latents", False)

    sites = _site_functions(program, modes)

    def compiled(arrays: Any) -> dict[str, Compiled]:
        q = block_of(program, np.zeros(dim), np.eye(dim))
        shapes = {
            n: jax.ShapeDtypeStruct(f.place(n)[0], jnp.float64) for n, f in by_latent(q).items()
        }
        names = list(jax.eval_shape(sites, shapes, arrays))
        return {n: compile_terms(lambda u, a, n=n: sites(u, a)[n], q, arrays) for n in names}

    def expected(mean: Any, covariance: Any, folded: Any) -> Any:
        q = block_of(program, mean, covariance)
        return sum((c(q) for c in folded.values()), start=jnp.zeros(()))

    shapes = jax.eval_shape(compiled, problem.arrays)
    methods = {name: c.method for name, c in shapes.items()}
    drawn = [name for name, c in shapes.items() if "fixed draws" in c.method]
    terms = [t for c in shapes.values() for t in c.terms]
    reason = f"site {', '.join(drawn)} has no cheap integral" if drawn else ""
    if len(terms) > MOST_TERMS:
        reason = f"{len(terms)} terms would cost more to compile than they save"
    look = jax.jit(jax.value_and_grad(expected, argnums=(0, 1)))
    folds = not any(t.functions for t in terms)
    return Reading(jax.jit(compiled), look, methods, reason, folds)


def folded(problem: Problem) -> Problem:
    """The same problem with a log joint that costs nothing in the data, where all of it folds.

    The terms that make up an expectation are the log joint itself when they are evaluated at a
    point; so descents, weights and chains never see the data again.
    """
    reading = read(problem)
    if reading.reason or not reading.folds or "folded" in problem.arrays:
        return problem
    with double_precision():
        sites = reading.fold(problem.arrays)
    return dataclasses.replace(
        fold_into(problem, sites), refold=lambda p: folded(_plain(p, problem))
    )


def fold_into(problem: Problem, sites: dict[str, Compiled]) -> Problem:
    """A problem whose log joint is the sum of folded sites."""
    known, modes = problem.program.compiled, modes_of(problem)
    if ("folded", modes) not in known:
        known["folded", modes] = _folded_program(problem.program, read(problem), modes)
    program = known["folded", modes]
    return dataclasses.replace(problem, program=program, arrays={**problem.arrays, "folded": sites})


def _plain(changed: Problem, original: Problem) -> Problem:
    """The original problem with the changed centring."""
    arrays = {**original.arrays, "centring": changed.arrays["centring"]}
    return dataclasses.replace(original, arrays=arrays)


def _folded_program(program: Program, reading: Reading, modes: Any) -> Program:
    def log_joint_sites(u: Any, arrays: Any) -> dict[str, Any]:
        values = {s.name: u[s.slice].reshape(s.unconstrained_shape) for s in program.latents}
        return {
            name: jnp.asarray(expect(c.terms, AtPoint(values, list(c.arrays))), u.dtype)
            for name, c in arrays["folded"].items()
        }

    return dataclasses.replace(
        program,
        log_joint_sites=log_joint_sites,
        compiled={("reading", modes): reading},
        _hoisted={},
    )
