"""The same problem with its rows read a chunk at a time, so that memory does not grow with them.

The log joint adds up over rows. Here it does so in a loop over chunks of them, whose intermediates
are recomputed for the gradient instead of kept; starts, weights and chains of a fit see no
difference but the memory. Labels of rows are summed out chunk by chunk, and their probabilities
and draws are put together from chunks.
"""

import dataclasses
import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from taut._core.errors import ModelError
from taut._core.tracing import shapes_of
from taut.problem import Problem, Program
from taut.problem.summed import PARTS, enumeration_of
from taut.problem.types import Enumeration
from taut.solvers.minibatches import PLAIN, Rows, find_rows, part_of

CHUNK_ROWS = 8192  # that are read at once, or a minibatch where that is larger
ROOM = 2**22  # numbers in the largest array that sums over labels of one chunk make
LARGE = 2**23  # numbers from which on such sums are made in chunks

Sites = dict[str, Any]


def chunk_size(rows: Rows, batch_size: int) -> int:
    """Rows that are read at once when all of them are.

    Chunks of one size, where such a divisor is near, leave no rest that is compiled by itself.
    """
    return _near_divisor(rows.count, max(batch_size, CHUNK_ROWS))


def _near_divisor(count: int, size: int) -> int:
    size = min(max(size, 1), count)
    near = [n for n in range(size, size // 2, -1) if count % n == 0]
    return near[0] if near else size


def in_chunks(problem: Problem, batch_size: int) -> Problem:
    """The problem whose log joint reads so many rows at once, or a few more.

    Problems of which a chunk is everything stay as they are, and those that do not come apart:
    with discrete latents that rows share, or latents of rows in coordinates that are not centred.

    Raises:
        ModelError: if the log joint is no sum over rows.
    """
    if PLAIN in problem.program.compiled:
        return problem
    rows = find_rows(problem)
    return _in_chunks(problem, rows, chunk_size(rows, batch_size))


def in_memory(problem: Problem) -> Problem:
    """The problem, with its rows in chunks where its sums over labels would be large at once."""
    if not problem.discrete or PLAIN in problem.program.compiled or not problem.prepared:
        return problem
    if problem.program.width < LARGE:
        return problem
    try:
        rows = find_rows(problem)
    except ModelError:  # it is no sum over rows
        return problem
    size = ROOM * rows.count // problem.program.width
    return _in_chunks(problem, rows, _near_divisor(rows.count, size))


def _in_chunks(problem: Problem, rows: Rows, size: int) -> Problem:
    if size == rows.count or not _comes_apart(problem, rows):
        return problem
    known, key = problem.program.compiled, ("in chunks", size)
    if key not in known:
        chunks = _Chunks(problem, rows, size)
        known[key] = dataclasses.replace(
            problem.program,
            log_joint_sites=chunks.log_joint_sites,
            enumeration=chunks.enumeration(problem.program.enumeration),
            compiled={"rows": rows, PLAIN: problem.program},
            _hoisted={},
        )
    return dataclasses.replace(problem, program=known[key])


def _comes_apart(problem: Problem, rows: Rows) -> bool:
    names, centring = {s.name for s in problem.discrete}, problem.arrays["centring"]
    if names and (rows.resized or PARTS not in problem.program.compiled):
        return False
    own = [centring[n] for n in rows.latents if n in centring]
    return names <= rows.latents and all(np.all(np.asarray(c) == 1.0) for c in own)


class _Chunks:
    """The functions of a program whose rows are read in chunks.

    Attributes:
        latents: the continuous latents.
        rows: what grows with the rows.
        size: rows of a chunk.
        num: number of chunks beside those that come first: what is left, 1 to ``size`` rows.
        first, other: programs of the first rows and of a chunk.
    """

    def __init__(self, problem: Problem, rows: Rows, size: int) -> None:
        self.latents, self.rows, self.size = problem.latents, rows, size
        self.num = (rows.count - 1) // size
        self.left = np.arange(self.num * size, rows.count)
        self.first = _program_of(problem, rows, self.left)
        self.other = _program_of(problem, rows, np.arange(size))

    def log_joint_sites(self, u: Any, arrays: Any) -> Sites:
        """Site by site log joint, the rows in chunks."""

        def add(totals: Sites, number: Any) -> tuple[Sites, None]:
            found = self.other.log_joint_sites(*self._part(u, arrays, number))
            return {n: totals[n] + found[n] for n in totals}, None

        first = self.first.log_joint_sites(*self._part(u, arrays))
        sums = self.other.enumeration.sums if self.other.enumeration else ()
        start = {n: v for n, v in first.items() if n in self.rows.sites or n in sums}
        totals, _ = jax.lax.scan(jax.checkpoint(add), start, jnp.arange(self.num))
        return {**first, **totals}

    def _part(self, u: Any, arrays: Any, number: Any = None) -> tuple[Any, Any]:
        """A point and the data of a chunk, or of the first rows."""
        index = self.left if number is None else number * self.size + np.arange(self.size)
        axes = dict(self.rows.local)
        blocks = []
        for s in self.latents:
            block = u[s.slice].reshape(s.unconstrained_shape)
            block = jnp.take(block, index, axes[s.name]) if s.name in axes else block
            blocks.append(block.ravel())
        own = {n: v for n, v in arrays["centring"].items() if n not in axes}
        return jnp.concatenate(blocks), {**self.rows.take(arrays, index), "centring": own}

    def enumeration(self, known: Enumeration | None) -> Enumeration | None:
        """What is known of the labels: sums, probabilities and draws, chunk by chunk."""
        if known is None:
            return None
        first, other = self.first.enumeration, self.other.enumeration
        assert first is not None
        assert other is not None
        return known._replace(
            runs=np.zeros((1, 1), int),
            run=lambda _, u, arrays: (self.log_joint_sites(u, arrays), {}),
            combine=lambda sites, _: {n: v[0] for n, v in sites.items()},
            marginals=self._by_chunks(first.marginals, other.marginals),
            mode=self._by_chunks(first.mode, other.mode),
            draw=self._draw(first.draw, other.draw),
            support=lambda arrays: first.support(self._part(self._origin(), arrays)[1]),
        )

    def _origin(self) -> Any:
        return jnp.zeros(sum(s.size for s in self.latents))

    def _by_chunks(self, first: Any, other: Any) -> Callable[[Any, Any], Any]:
        def found(u: Any, arrays: Any) -> Any:
            each = jax.lax.map(lambda i: other(*self._part(u, arrays, i)), jnp.arange(self.num))
            return self._joined(each, first(*self._part(u, arrays)))

        return found

    def _draw(self, first: Any, other: Any) -> Callable[[Any, Any, Any], Any]:
        def found(key: Any, u: Any, arrays: Any) -> Any:
            def one(number: Any) -> Any:
                own = jax.random.fold_in(key, number)
                return other(own, *self._part(u, arrays, number))

            own = jax.random.fold_in(key, self.num)
            each = jax.lax.map(one, jnp.arange(self.num))
            return self._joined(each, first(own, *self._part(u, arrays)))

        return found

    def _joined(self, each: Any, last: Any) -> Any:
        """Values by label of all rows from those of chunks, (chunks, ...), and of what is left."""
        axes, found = dict(self.rows.local), {}
        for name, value in last.items():
            axis = axes[name]
            moved = jnp.moveaxis(each[name], 0, axis)
            shape = (*moved.shape[:axis], math.prod(moved.shape[axis : axis + 2]))
            moved = moved.reshape(*shape, *moved.shape[axis + 2 :])
            found[name] = jnp.concatenate([moved, value], axis)
        return found


def _program_of(problem: Problem, rows: Rows, index: np.ndarray) -> Program:
    """The program of some of the rows, their labels summed out."""
    part = part_of(problem, rows, index)
    program = part.program
    if not program.discrete:
        return program
    known, key = program.compiled, "with labels summed out"
    if key not in known:
        own = {n: v for n, v in problem.arrays["centring"].items() if n not in rows.latents}
        example = {**part.arrays, "centring": own}
        made = problem.program.compiled[PARTS](
            program.latents, program.discrete, shapes_of(example)
        )
        known[key] = dataclasses.replace(
            program, log_joint_sites=made.log_joint_sites, enumeration=enumeration_of(made)
        )
    return known[key]
