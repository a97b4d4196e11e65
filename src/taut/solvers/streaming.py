"""Models whose data are read once, a chunk at a time, and kept as sums.

Where a likelihood folds, all that the posterior needs of the rows are sums (sufficient statistics,
such as X'X and X'y, by group where there are groups). They add up over chunks. What comes out is
an ordinary problem with the sums as its data: family, solver, certificate and chains see no
difference, and cost nothing in the number of rows.

Nothing is assumed: that rows are independent, that the prior does not look at them, that the sums
are right, is each tried on rows of the first chunk, and a model that fails is refused.
"""

import inspect
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from taut._core.errors import ArgumentError, DataError, ModelError
from taut._core.precision import double_precision
from taut._core.progress import Watch
from taut.data.chunks import Chunk, read_chunks
from taut.data.sources import AbstractSource
from taut.expectation.gaussian import Gaussian
from taut.expectation.sums import added, constants, merged, summand, value_at, why_not
from taut.expectation.table import log_density
from taut.expectation.transform import Compiled, compile_terms
from taut.families import Beta, Dirichlet, Gamma, Wishart
from taut.problem import Density, Problem, Program, describe
from taut.solvers.from_sums import Totals, model_values, problem_of_sums
from taut.solvers.row_trial import Trial, close

FAR_AT = 700.0  # unconstrained coordinate at which the ends of an interval are looked at


def streamed(model: Callable[..., Any] | Density, source: AbstractSource, watch: Watch) -> Problem:
    """Read all rows and return the problem that is left.

    Args:
        model: a NumPyro model function; its plates over rows must take their size from the data.
        source: of the rows.
        watch: shows the progress; before the last row is read there is no answer to end with.

    Raises:
        ModelError: if the model has discrete or local latents, factor statements, rows that
            depend on each other, or a likelihood that is no sum; it names the site.
        DataError: if the rows cannot be used.
        ArgumentError: if the budget ends before the rows do.
    """
    if isinstance(model, Density) or not callable(model):
        raise ModelError(
            "data from taut.data need a NumPyro model function, whose sites show what the rows are; "
            f"got {type(model).__name__}"
        )
    chunks = read_chunks(source, _wanted(model, source))
    try:
        first = next(chunks)
        with double_precision():
            trial = Trial.make(model, source.fixed, first)
            totals = _Totals(model, source, trial)
        chunk: Chunk | None = first
        while chunk is not None:
            totals.add(chunk)
            watch.report("reading", rows=totals.rows, of=source.num_rows or "unknown")
            chunk = next(chunks, None)
            if chunk is not None and watch.over:
                _refuse_to_stop(totals.rows, source, watch)
    finally:
        chunks.close()  # type: ignore[attr-defined]
    with double_precision():
        found = Totals(totals.rows, totals.sums(), totals.spread)
    return problem_of_sums(trial, found, source.fixed, tuple(first.columns))


def _wanted(model: Callable[..., Any], source: AbstractSource) -> list[str] | None:
    """The columns that the model takes; None for any."""
    parameters = inspect.signature(model).parameters
    if any(p.kind is p.VAR_KEYWORD for p in parameters.values()):
        return None
    return [n for n in parameters if n not in source.fixed]


def _refuse_to_stop(rows: int, source: AbstractSource, watch: Watch) -> None:
    read_so_far = f"{rows:,} of {source.num_rows:,}" if source.num_rows else f"{rows:,}"
    message = (
        f"stopped after {read_so_far} rows: before all are read there is no posterior to return"
    )
    if watch.interrupted:
        raise KeyboardInterrupt(message)
    raise ArgumentError(
        f"budget={watch.budget} s ended too early; {message}. Allow more, or read fewer rows"
    )


# --- folding and adding ------------------------------------------------------------------------------


class _Totals:
    """Sums over the rows read so far.

    Attributes:
        rows: how many.
        parts: the sums of all chunks of one length, by the program that they have.
        spread: column -> (mean, sd) in the first chunk.
    """

    def __init__(self, model: Any, source: AbstractSource, trial: Trial) -> None:
        self._model, self._fixed, self._trial = model, source.fixed, trial
        self._like = _factors(trial.problem)
        self._constants: list[np.ndarray] | None = None
        self.rows = 0
        self.parts: dict[Program, dict[str, Compiled]] = {}
        self.spread: dict[str, tuple[float, float]] = {}

    def add(self, chunk: Chunk) -> None:
        """Fold a chunk and add it."""
        try:
            problem = describe(self._model, {**self._fixed, **chunk.columns})
        except DataError as error:
            raise DataError(
                f"in the rows from {chunk.first:,} on (rows below count from there): {error}"
            ) from error
        with double_precision():
            sums = self._fold(problem)
            self._check_constants(sums, chunk)
            if not self.rows:
                self._check_sums(problem, sums)
                self.spread = {
                    n: (float(v.mean()), float(v.std()))
                    for n, v in chunk.columns.items() if v.dtype.kind == "f"
                }  # fmt: skip
            old = self.parts.get(problem.program)
            sums = sums if old is None else added(old, sums)
            self.parts[problem.program] = jax.block_until_ready(sums)
        self.rows += chunk.rows

    def _fold(self, problem: Problem) -> dict[str, Compiled]:
        known = problem.program.compiled
        key = ("sums", self._trial.sites)
        if key not in known:
            known[key] = jax.jit(self._folding(problem.program))
            looked = jax.eval_shape(self._terms(problem.program), problem.arrays)
            for name, site in looked.items():
                if reason := why_not(site):
                    del known[key]
                    raise ModelError(
                        f"site '{name}' cannot be kept as sums over rows: {reason}. "
                        "Fit data in memory, or a part of them"
                    )
        return known[key](problem.arrays)

    def _terms(self, program: Program) -> Callable[[Any], dict[str, Compiled]]:
        """A function: arrays -> site -> folded terms, in latents of the model's own space."""
        q, names = self._like, self._trial.sites

        def terms(arrays: Any) -> dict[str, Compiled]:
            own = frozenset(s.name for s in program.latents)

            def site(latents: Any, arrays: Any, name: str) -> Any:
                given = {**arrays, "centring": {}}
                return program.densities(latents, given, own, log_density)[name]  # type: ignore[misc]

            return {n: compile_terms(lambda u, a, n=n: site(u, a, n), q, arrays) for n in names}

        return terms

    def _folding(self, program: Program) -> Callable[[Any], dict[str, Compiled]]:
        terms = self._terms(program)
        return lambda arrays: {name: summand(c) for name, c in terms(arrays).items()}

    def _check_constants(self, sums: dict[str, Compiled], chunk: Chunk) -> None:
        """What stands inside of exponentials does not add, so it must be the same everywhere."""
        found = [x for c in sums.values() for x in constants(c)]
        if self._constants is None:
            self._constants = found
        elif len(found) != len(self._constants) or not all(
            map(np.array_equal, found, self._constants)
        ):
            raise ModelError(
                f"the exponent or index of a term differs in the rows from {chunk.first:,} on; "
                "such a likelihood is no sum over rows: fit data in memory"
            )

    def _check_sums(self, problem: Problem, sums: dict[str, Compiled]) -> None:
        """Compare the sums with the distributions' own densities, at two points."""
        program = problem.program
        own = frozenset(s.name for s in program.latents)

        @jax.jit
        def both(u: Any, arrays: Any, sums: Any) -> Any:
            values = model_values(program, u, arrays)
            given = {**arrays, "centring": {}}
            plain = program.densities(values, given, own, lambda *_: None)  # type: ignore[misc]
            return {n: (plain[n], value_at((c,), values)) for n, c in sums.items()}

        for seed in (0, 1):
            u = 0.5 * np.random.default_rng(seed).standard_normal(problem.dim)
            for name, (plain, summed) in both(u, problem.arrays, sums).items():
                if not close(float(plain), float(summed)):
                    raise ModelError(
                        f"the sums of site '{name}' give {float(summed):.10g} where its log density is "
                        f"{float(plain):.10g}: columns far from zero lose their digits when squared; subtract a "
                        "constant from them, or fit data in memory"
                    )

    def sums(self) -> dict[str, tuple[Compiled, ...]]:
        """All rows' sums, those of chunks of different lengths joined where they are alike."""
        found: dict[str, tuple[Compiled, ...]] = {}
        for part in self.parts.values():
            for name, site in part.items():
                old = found.get(name, ())
                joined = merged(old[-1], site) if old else None
                found[name] = (*old, site) if joined is None else (*old[:-1], joined)
        return found


def _factors(problem: Problem) -> dict[str, Any]:
    """A factor for each latent, used for its kind and shape in the model's own space.

    Only identities of the algebra are used that hold at every point, so any factor will do whose
    elements are as the latent's: positive ones have powers and logarithms.
    """
    ends = [problem.constrain(np.full(problem.dim, at)) for at in (-FAR_AT, FAR_AT)]
    found: dict[str, Any] = {}
    for s in problem.latents:
        support, ones = s.support.replace("_", " "), jnp.ones(s.shape)
        low = min(float(np.min(e[s.name])) for e in ends)
        bounded = support.startswith(("interval", "open interval", "greater than"))
        if support == "unit interval":
            found[s.name] = Beta(ones, ones)
        elif support == "simplex":
            found[s.name] = Dirichlet(ones)
        elif support == "positive definite":
            scale = jnp.broadcast_to(jnp.eye(s.shape[-1]), s.shape)
            found[s.name] = Wishart(jnp.full(s.shape[:-2], s.shape[-1] + 1.0), scale)
        elif support in ("positive", "nonnegative") or (bounded and low >= 0.0):
            found[s.name] = Gamma(ones, ones)
        else:
            size = int(np.prod(s.shape, dtype=int))
            found[s.name] = Gaussian({s.name: s.shape}, jnp.zeros(size), jnp.eye(size)[None])
    return found
