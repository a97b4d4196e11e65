"""A Gaussian over latents that all rows share: Newton steps on growing samples of the rows.

Every answer that is within a small part of an sd of that of all rows has to read nearly all of
them, and steps from few rows reach its neighbourhood. So samples grow fourfold, each counted as
often as makes it stand for all rows, and the last is all of them: there the ELBO and its natural
gradient are exact, no step lowers it, and the noise of minibatches is gone. Rows are
read a chunk at a time and leave sums behind, so that memory does not grow with them.

Growing samples: Byrd, Chin, Nocedal and Wu (2012), "Sample size selection in optimization methods
for machine learning".
"""

import dataclasses
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import numpy as np
from typing_extensions import override

from taut._core.errors import ArgumentError, listing
from taut._core.precision import double_precision
from taut._core.progress import Watch
from taut.expectation.folding import Reading, block_of, mistaken_sites, read
from taut.families import AbstractFamily, Dense, DenseGaussian
from taut.problem import Problem
from taut.problem.evaluator import Evaluator
from taut.solvers.base import Solution
from taut.solvers.compiled import MAX_DENSE_DIM, Natural
from taut.solvers.fixed_draws import FixedDraws
from taut.solvers.minibatches import Rows, find_rows, part_of
from taut.solvers.natural import AbstractObjective, Point, climb, direction, entropy_of
from taut.solvers.row_chunks import chunk_size, in_chunks
from taut.solvers.start import Start

if TYPE_CHECKING:
    from taut.solvers.stochastic_natural import StochasticNatural

GROWTH = 4  # times as many rows in the next sample
ROUGH, FEW_STEPS = 1.0, 20  # nats that a step on a sample must promise, and most steps on one
TOLERANCE = 1e-5  # nats that a step on all rows must promise
CHECKED_ROWS = 32  # on which every site's compiled mean is compared with that of draws


class OnRows(AbstractObjective):
    """The compiled ELBO of a dense Gaussian on some of the rows, counted as if they were all.

    Args:
        problem: on all rows.
        rows: what grows with them.
        order: all rows, in the order in which samples take them.
        size: rows of a chunk.
        num: how many chunks count; rows that fill none count if all chunks do.
    """

    def __init__(
        self, problem: Problem, rows: Rows, order: np.ndarray, size: int, num: int
    ) -> None:
        whole = rows.count // size
        self.problem, self.rows, self.num, self.size = problem, rows, num, size
        self.index = order[: whole * size].reshape(whole, size)
        self.rest = order[whole * size :] if num == whole else order[:0]
        self.weight = rows.count / (num * size + len(self.rest))
        self.arrays = rows.take(problem.arrays, slice(None))

    @override
    def look(self, mean: np.ndarray, root: np.ndarray) -> Point:
        with double_precision():
            at = jnp.asarray(mean), jnp.asarray(root @ root.T)
            look = _look_of(self.problem, self.rows, self.size)
            total = look(*at, self.arrays, self.index, self.num, self.weight, 1.0)
            if len(self.rest):
                look = _look_of(self.problem, self.rows, len(self.rest))
                more = look(*at, self.arrays, self.rest[None], 1, self.weight, 0.0)
                total = jax.tree.map(jnp.add, total, more)
        value, (grad, curvature) = total
        b = root.T @ np.asarray(grad)
        hessian = 2.0 * root.T @ np.asarray(curvature) @ root
        elbo = float(value) + entropy_of(root)
        finite = np.isfinite(elbo) and np.isfinite(b).all() and np.isfinite(hessian).all()
        return Point(mean, root, elbo if finite else -np.inf, direction(b, hessian, 0.0))


def _part(problem: Problem, rows: Rows, index: np.ndarray) -> Problem:
    """The problem on some of its rows, in the same coordinates."""
    part = part_of(problem, rows, index)
    arrays = {**part.arrays, "centring": problem.arrays["centring"]}
    return dataclasses.replace(part, arrays=arrays)


def _look_of(problem: Problem, rows: Rows, size: int) -> Any:
    """Compiled once: the expected log joint of chunks of rows and its gradients."""
    part = _part(problem, rows, np.arange(size))
    reading = read(part)
    known, key = part.program.compiled, ("look at rows", reading)
    if key not in known:
        known[key] = jax.jit(_make_look(part, rows, reading))
    return known[key]


def _make_look(part: Problem, rows: Rows, reading: Reading) -> Any:
    """(mean, covariance, arrays, index (chunks, size), chunks, weight, once) -> value, gradients.

    ``weight`` is how often the rows count and ``once`` how often the sites that all rows share do.
    """
    program = part.program

    def folded(arrays: Any, index: Any) -> Any:
        return reading.fold({**rows.take(arrays, index), "centring": part.arrays["centring"]})

    def expected(mean: Any, covariance: Any, sites: Any, of_rows: bool) -> Any:
        q = block_of(program, mean, covariance)
        chosen = [c for n, c in sites.items() if (n in rows.sites) == of_rows]
        return sum((c(q) for c in chosen), start=jnp.zeros(()))

    looked = jax.value_and_grad(expected, argnums=(0, 1))

    def look(mean: Any, covariance: Any, arrays: Any, index: Any, num: Any, *counts: Any) -> Any:
        weight, once = counts

        def add(number: Any, total: Any) -> Any:
            found = looked(mean, covariance, folded(arrays, index[number]), True)
            return jax.tree.map(lambda a, b: a + weight * b, total, found)

        shared = looked(mean, covariance, folded(arrays, index[0]), False)
        start = jax.tree.map(lambda x: once * x, shared)
        return jax.lax.fori_loop(0, num, add, start)

    return look


# --- the fit ----------------------------------------------------------------------------------


def fit_gaussian(
    settings: "StochasticNatural",
    evaluator: Evaluator,
    family: AbstractFamily,
    start: Start,
    seed: int,
    watch: Watch,
) -> Solution:
    """Fit a Gaussian family over latents that all rows share.

    A dense one by variational Newton steps where the ELBO compiles, with no further look at rows
    whose likelihood folds; others, and models without cheap integrals, on fixed draws, the rows a
    chunk at a time.

    Raises:
        ArgumentError: if latents belong to rows.
    """
    problem = evaluator.problem
    if "folded" in problem.arrays:
        natural = Natural(TOLERANCE, 2 * settings.max_epochs)
        solver = natural if isinstance(family, Dense) else FixedDraws()
        return solver.solve(evaluator, family, start, seed, watch)
    rows = find_rows(problem)
    if local := sorted(rows.latents - {s.name for s in problem.discrete}):
        raise ArgumentError(
            f"{family.describe()} would couple {listing(local)} of all rows, so minibatches cannot fit it; "
            "use family=families.MeanField(), or leave batch_size out"
        )
    reading = read(problem)
    if isinstance(family, Dense) and problem.dim <= MAX_DENSE_DIM and not reading.reason:
        solution = _newton(settings, problem, rows, start, seed, watch)
        if not (wrong := _mistaken(problem, rows, solution.q, seed)):
            return solution
        note = f"all sites are taken on draws: the compiled mean of {listing(wrong)} differed from theirs"
    else:
        note = ""
    chunked = in_chunks(problem, settings.rows)
    if chunked is not problem:
        evaluator = Evaluator(chunked)
    found = FixedDraws().solve(evaluator, family, start, seed, watch)
    return dataclasses.replace(found, notes=(*found.notes, note)) if note else found


def _newton(
    settings: "StochasticNatural", problem: Problem, rows: Rows, start: Start, seed: int,
    watch: Watch,
) -> Solution:  # fmt: skip
    """Newton steps on samples that grow until they are all rows."""
    size = chunk_size(rows, settings.rows)
    order = np.random.default_rng((seed, 23)).permutation(rows.count)
    with double_precision():
        arrays = jax.tree.map(jnp.asarray, problem.arrays)
    problem = dataclasses.replace(problem, arrays=arrays)  # on the device, once
    mean, root = start.mean, start.root if start.root.ndim == 2 else np.diag(start.root)
    num, whole = 1, rows.count // size
    while num * GROWTH <= whole and not watch.over:
        watch.report("natural gradient", rows=num * size)
        sample = OnRows(problem, rows, order, size, num)
        found = climb(sample, mean, root, watch, ROUGH, min(FEW_STEPS, settings.max_epochs))
        if np.isfinite(found.elbo):
            mean, root = found.mean, found.root
        num *= GROWTH
    objective = OnRows(problem, rows, order, size, whole)
    fitted = climb(objective, mean, root, watch, TOLERANCE, settings.max_epochs)
    q = DenseGaussian.from_root(fitted.mean, fitted.root)
    return Solution(q, fitted.elbo, fitted.status, fitted.history, 0.0)


def _mistaken(problem: Problem, rows: Rows, q: Any, seed: int) -> tuple[str, ...]:
    """Sites whose compiled mean is not that of draws; looked at once, on few rows."""
    index = np.random.default_rng((seed, 29)).permutation(rows.count)[:CHECKED_ROWS]
    return mistaken_sites(_part(problem, rows, index), q)
