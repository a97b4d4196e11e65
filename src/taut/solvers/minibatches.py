"""Rows of a model: which arrays, latents and sites grow with them, found by trying fewer rows."""

import dataclasses
import functools
import itertools
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from taut._core.errors import ModelError, listing
from taut._core.precision import double_precision
from taut.problem import Latent, Problem, Program
from taut.solvers.row_plates import resizing
from taut.solvers.row_trial import close

Local = tuple[tuple[str, int], ...]  # latents of rows, and the axis along which they are
TRIED_ROWS = 16  # rows in each of the two parts on which the model is tried
PLAIN = "the program as it was read"  # key in what was compiled for one that reads rows in chunks
MOST_GUESSES = 16  # at which latents belong to rows
HINT = (
    "Minibatches need rows that are independent given the latents that all share, plates that take their size "
    "from the data, such as numpyro.plate('rows', len(y)), and no rows in arrays that set shapes; "
    "without batch_size all rows are fitted at once"
)


@dataclasses.dataclass(frozen=True)
class Rows:
    """What grows with the rows of the data.

    Attributes:
        count: how many rows there are.
        arrays: for each array that the model takes, whether it has a row for each of them.
        local: the latents that belong to rows, with the axis along which they do.
        sites: the sites whose log density is a sum over rows; the others count once.
        resized: whether plates that have the number of rows for their fixed size are run at that
            of a part.
    """

    count: int
    arrays: tuple[bool, ...]
    local: Local
    sites: tuple[str, ...]
    resized: bool = False

    @property
    def latents(self) -> frozenset[str]:
        """Names of the latents that belong to rows."""
        return frozenset(name for name, _ in self.local)

    def take(self, arrays: Any, index: Any) -> dict[str, Any]:
        """What the model takes, for some of the rows."""
        leaves, tree = jax.tree.flatten(_given(arrays))
        pairs = zip(leaves, self.arrays, strict=True)
        return jax.tree.unflatten(tree, [x[index] if grows else x for x, grows in pairs])


def _given(arrays: Any) -> dict[str, Any]:
    """What of a problem's arrays the model takes."""
    return {"data": arrays["data"], "observe": arrays["observe"]}


def batches(count: int, size: int, rng: np.random.Generator) -> Iterator[np.ndarray]:
    """Batches of rows without end, each (size,).

    They are cut from one shuffled epoch after the other; what is left of one begins the next
    batch, so all are full and every row is as likely as any other.
    """
    left = np.zeros(0, int)
    while True:
        while len(left) < size:
            left = np.concatenate([left, rng.permutation(count)])
        yield left[:size]
        left = left[size:]


# --- the model on some of its rows ------------------------------------------------------------


def part_of(problem: Problem, rows: Rows, index: np.ndarray) -> Problem:
    """The problem that the model poses on some of its rows.

    Args:
        problem: on all rows.
        rows: what belongs to them.
        index: the rows, (n,).
    """
    plain = problem.program.compiled.get(PLAIN, problem.program)
    known, key = plain.compiled, ("part", rows, len(index))
    if key not in known:
        known[key] = _program_of_part(plain, rows, len(index))
    arrays = {**rows.take(problem.arrays, index), "centring": {}}
    return dataclasses.replace(problem, program=known[key], arrays=arrays, refold=None)


def _program_of_part(program: Program, rows: Rows, size: int) -> Program:
    latents, start = [], 0
    for latent in program.latents:
        latents.append(dataclasses.replace(_resized(latent, rows, size), start=start))
        start = latents[-1].stop
    discrete = tuple(_resized(s, rows, size) for s in program.discrete)
    if rows.resized:
        program = _at_size(program, rows.count, size)
    return dataclasses.replace(
        program,
        latents=tuple(latents),
        discrete=discrete,
        observed_values=_observed_values(program, (*latents, *discrete)),
        compiled={},
        _hoisted={},
    )


def _at_size(program: Program, count: int, size: int) -> Program:
    """The program with plates of size ``count`` run at ``size``."""
    names = ("log_joint_sites", "densities", "constrain", "unconstrain", "log_likelihood")
    return dataclasses.replace(
        program, **{n: resizing(getattr(program, n), count, size) for n in names}
    )


def _resized(latent: Latent, rows: Rows, size: int) -> Latent:
    axis = dict(rows.local).get(latent.name)
    if axis is None:
        return latent
    shape = (*latent.shape[:axis], size, *latent.shape[axis + 1 :])
    inner = latent.unconstrained_shape
    if not latent.discrete:
        inner = (*inner[:axis], size, *inner[axis + 1 :])
    return dataclasses.replace(latent, shape=shape, unconstrained_shape=inner, centring=None)


def _observed_values(
    program: Program, latents: tuple[Latent, ...]
) -> Callable[[Any], dict[str, Any]]:
    """A function: arrays -> observed site -> its values on a part of the rows."""
    names = {o.name for o in program.observed}

    def observed_values(arrays: Any) -> dict[str, Any]:
        values = {s.name: jnp.zeros(s.shape, int if s.discrete else float) for s in latents}
        sites = _sites(program, values, arrays)
        return {n: s.value for n, s in sites.items() if n in names}

    return observed_values


class _Site(NamedTuple):
    """A site of a traced model: its log density, the shape that it asks for, its value."""

    log_density: Any
    shape: tuple[int, ...]
    value: Any


def _sites(program: Program, values: dict[str, Any], arrays: Any) -> dict[str, _Site]:
    """Trace the model at values of all latents, in their own support."""
    seen: list[Any] = []

    def noting(fn: Any, value: Any, is_data: bool) -> None:
        seen.append((tuple(fn.shape()), value))

    given = {**arrays, "centring": {}}
    found = program.densities(values, given, frozenset(values), noting)  # type: ignore[misc]
    if len(found) != len(seen):
        raise ModelError(
            "minibatches need a NumPyro model, whose sites show what belongs to rows; in the log density of a "
            "taut.Density prior and likelihood cannot be told apart"
        )
    return {n: _Site(found[n], *s) for n, s in zip(found, seen, strict=True)}


# --- trying fewer rows ------------------------------------------------------------------------


def find_rows(problem: Problem) -> Rows:
    """Find what grows with the rows, by trying the model on two parts of them and on both.

    Rows run along the leading axis of the data. Where arrays have different lengths, the longest
    for which the model proves to be a sum over rows is taken.

    Args:
        problem: on all rows; its program has ``densities``.

    Raises:
        ModelError: if no array has rows, or the log joint is no sum over them; it says which site
            is not, and why.
    """
    known = problem.program.compiled
    if "rows" not in known:
        known["rows"] = _find_rows(problem)
    return known["rows"]


def _find_rows(problem: Problem) -> Rows:
    leaves = jax.tree.leaves(_given(problem.arrays))
    lengths = sorted({np.shape(x)[0] for x in leaves if np.ndim(x)} - {1}, reverse=True)
    if not lengths:
        raise ModelError(
            "the model takes no array of data with at least two rows, so there is nothing to draw minibatches from; "
            "pass the observations as arguments of the model"
        )
    reasons: list[ModelError] = []
    for length in lengths:
        for local, resized in itertools.product(_local_by_shape(problem, length), (False, True)):
            try:
                return _tried(problem, length, local, resized)
            except ModelError as reason:
                reasons.append(reason)
    raise ModelError(f"{reasons[0]}. {HINT}") from reasons[0]


def _local_by_shape(problem: Problem, count: int) -> Iterator[Local]:
    """Which latents may belong to rows, and along which axis: all that are as long, first.

    A shape may have that length by chance, on one axis more or on all; few such guesses are made.
    """
    latents = (*problem.latents, *problem.discrete)
    axes = [(*_row_axes(s, count), None) for s in latents]
    for choice in itertools.islice(itertools.product(*axes), MOST_GUESSES):
        pairs = zip(latents, choice, strict=True)
        yield tuple((s.name, axis) for s, axis in pairs if axis is not None)


def _row_axes(latent: Latent, count: int) -> list[int]:
    """The axes that may run along the rows: as long as they are many, and no event's."""
    inner = latent.shape if latent.discrete else latent.unconstrained_shape
    pairs = enumerate(zip(latent.shape, inner, strict=False))
    return [i for i, pair in pairs if pair == (count, count)]


def _tried(problem: Problem, count: int, local: Local, resized: bool) -> Rows:
    """The rows, if they are as many as ``count`` and these latents belong to them."""
    grows = tuple(np.shape(x)[:1] == (count,) for x in jax.tree.leaves(_given(problem.arrays)))
    rows = Rows(count, grows, local, (), resized)
    half = min(TRIED_ROWS, count // 2)
    index = np.random.default_rng(count).permutation(count)[: 2 * half]
    known: dict[int, Any] = {}
    found: dict[str, Any] = {}
    with double_precision():
        for seed in (0, 1):
            values = _random_values(problem, seed)
            for part in (index[::2], index[1::2], index):
                if len(part) not in known:
                    known[len(part)] = _trial(problem.program, rows, len(part))
                run = known[len(part)]
                for name, value in _site_values(run, problem, rows, values, part).items():
                    found.setdefault(name, []).append(value)
    return dataclasses.replace(rows, sites=_sites_of_rows(problem, rows, found))


def _trial(program: Program, rows: Rows, size: int) -> Any:
    """A compiled function: (values, arrays of so many rows) -> site -> log density."""
    part = _at_size(program, rows.count, size) if rows.resized else program
    return jax.jit(functools.partial(_log_densities, part))


def _random_values(problem: Problem, seed: int) -> dict[str, Any]:
    """Values of all latents for all rows, in their own support."""
    rng = np.random.default_rng(seed)
    found = problem.constrain(0.5 * rng.standard_normal(problem.dim))
    values = {s.name: found[s.name] for s in problem.latents}
    support = problem.discrete_support()
    return values | {s.name: rng.choice(support[s.name], s.shape) for s in problem.discrete}


def _site_values(
    run: Any, problem: Problem, rows: Rows, values: dict[str, Any], index: np.ndarray
) -> dict[str, float]:
    """Site by site log joint on some of the rows.

    Raises:
        ModelError: if the model cannot be run on them, or a latent keeps the shape of all rows.
    """
    axes = dict(rows.local)
    here = {n: v.take(index, axes[n]) if n in axes else v for n, v in values.items()}
    try:
        sites = run(here, rows.take(problem.arrays, index))
    except ModelError:
        raise
    except Exception as error:  # the model's own code runs here, on shapes that it may not expect
        first = str(error).strip().split("\n")[0]
        raise ModelError(
            f"the model cannot be run on {len(index)} of its {rows.count:,} rows: {first}"
        ) from error
    return {n: float(v) for n, v in sites.items()}


def _log_densities(program: Program, values: dict[str, Any], arrays: Any) -> dict[str, Any]:
    """Site by site log joint, after a look at whether latents follow the number of rows."""
    sites = _sites(program, values, arrays)
    for name in values:
        shape, given = sites[name].shape, np.shape(values[name])
        if np.broadcast_shapes(shape, given) != given:
            raise ModelError(
                f"the latent '{name}' keeps the shape {shape} when there are fewer rows"
            )
    return {n: s.log_density for n, s in sites.items()}


def _sites_of_rows(problem: Problem, rows: Rows, found: dict[str, Any]) -> tuple[str, ...]:
    """The sites whose log density is a sum over rows.

    Args:
        problem: on all rows.
        rows: the latents that belong to them.
        found: site -> its values on both parts and the whole, at two points.
    """
    shared = {s.name for s in (*problem.latents, *problem.discrete)} - rows.latents
    additive = []
    for name, values in found.items():
        a, b, both = np.reshape(values, (2, 3)).T
        if close(a, both) and close(b, both) and name not in rows.latents:
            continue
        if name in shared:
            raise ModelError(
                f"the prior of '{name}', which all rows share, depends on which rows there are; compute what it "
                "needs beforehand and pass it as an argument"
            )
        if not close(a + b, both):
            raise ModelError(
                f"site '{name}' is no sum over rows: its log density on some rows and on others does not add up to "
                "that on both together"
            )
        additive.append(name)
    if not set(additive) - rows.latents:
        sites = listing(o.name for o in problem.observed)
        raise ModelError(
            f"no observed site grows with the {rows.count:,} rows of the data ({sites})"
        )
    return tuple(additive)
