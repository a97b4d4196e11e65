"""Where to begin with many rows: the paths are followed on some of them.

What a path to the mode costs grows with the rows, where it leads does not: the posterior of a
thousand rows has its mass where that of all rows has it, up to the former's own width, which a
solver crosses in a few steps.
"""

import dataclasses

import numpy as np

from taut._core.errors import ModelError
from taut._core.progress import Watch
from taut.expectation import fixed_normals
from taut.problem import Problem
from taut.problem.evaluator import Evaluator
from taut.solvers.minibatches import find_rows, part_of
from taut.solvers.start import NUM_DRAWS, Start, elbos_of, find_start

FEW_ROWS = 1024
MANY_ROWS = 4 * FEW_ROWS  # from which on fewer are tried
DEAR = 2**16  # numbers that a gradient touches, from which on it is worth finding out what rows are


def find_start_on_rows(evaluator: Evaluator, watch: Watch, seed: int) -> Start:
    """Where to begin, with the paths followed on some rows where that is much cheaper.

    Args:
        evaluator: the problem's log joint.
        watch: ends the search early.
        seed: of the starting points and draws.

    Raises:
        StartError: if the log joint is not finite at any starting point.
    """
    problem = evaluator.problem
    part = None if evaluator.cost < DEAR or "folded" in problem.arrays else _few_rows(problem)
    if part is None:
        return find_start(evaluator, watch, seed)
    few, share = part
    rough = find_start(Evaluator(few), watch, seed)
    narrow = np.sqrt(share) * rough.root
    noise = fixed_normals(NUM_DRAWS, problem.dim, seed)
    elbos = elbos_of(evaluator, [(rough.mean, rough.root), (rough.mean, narrow)], noise)
    elbos = np.where(np.isnan(elbos), -np.inf, elbos)
    root = (rough.root, narrow)[int(np.argmax(elbos))]
    ends = evaluator.value(np.stack([p.end for p in rough.paths]))
    paths = [
        dataclasses.replace(p, log_joint=float(v)) for p, v in zip(rough.paths, ends, strict=True)
    ]
    paths.sort(key=lambda path: -path.log_joint)
    return Start(rough.mean, root, float(elbos.max()), tuple(paths))


def _few_rows(problem: Problem) -> tuple[Problem, float] | None:
    """The problem on some of its rows, and their share; None where there are few or no rows."""
    try:
        rows = find_rows(problem)
    except ModelError:
        return None
    if rows.count < MANY_ROWS or rows.latents or problem.discrete:
        return None
    order = np.random.default_rng(rows.count).permutation(rows.count)
    part = part_of(problem, rows, np.sort(order[:FEW_ROWS]))
    arrays = {**part.arrays, "centring": problem.arrays["centring"]}
    return dataclasses.replace(part, arrays=arrays), FEW_ROWS / rows.count
