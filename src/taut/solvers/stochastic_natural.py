"""Stochastic variational inference: minibatches of the data's rows, then all of them, exactly."""

import dataclasses
import functools
import itertools
import time
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from typing_extensions import override

from taut._core.errors import ArgumentError
from taut._core.precision import double_precision
from taut._core.progress import Watch
from taut._core.status import Status
from taut.expectation.check import mistaken
from taut.families import AbstractFamily, MeanField
from taut.problem import Problem
from taut.problem.evaluator import Evaluator
from taut.solvers.ascent import Ascent, ascend, engine_of
from taut.solvers.base import AbstractSolver, Solution
from taut.solvers.blocks import Factors
from taut.solvers.mean_field import distribution_of, layout_of
from taut.solvers.minibatch_gaussian import fit_gaussian
from taut.solvers.minibatch_layout import layout_by_rows, split_notes
from taut.solvers.minibatch_steps import (
    LocalFit,
    Steps,
    divided,
    joined,
    make_steps,
    moved,
    weighted,
)
from taut.solvers.minibatches import Rows, batches, find_rows, part_of
from taut.solvers.start import Start
from taut.solvers.structure import Layout, default_factors, site_functions

DEFAULT_ROWS = 256  # in a minibatch
FINISH = 1e-4  # nats that the sweeps over all rows to come must promise
MOST_SWEEPS = 1000  # of them
START_ROWS = 512  # that the start is fitted to
START_SWEEPS = 10
CHECKED_ROWS = 32  # on which every site's compiled mean is compared with that of draws
RESTARTS = 8  # tried on them where labels can be permuted: they are few, so it is cheap
MONITORED = 8  # batches, the same all along, on which the ELBO is compared
WINDOW = 3  # looks that are averaged, and compared with as many before
SPAN = 1.0  # sum of the rates between two looks, in which the past is forgotten by a factor e
FEWEST_STEPS = 16  # between two looks, which cost half as many
MOST_STEPS = 64  # of one compiled call
CALL_SECONDS = 0.2  # that a compiled call should take, so that Ctrl-C is heard


@dataclasses.dataclass(frozen=True)
class StochasticNatural(AbstractSolver):
    """Natural gradients on minibatches of rows, finished on all rows.

    A mean field takes the steps of stochastic variational inference (Hoffman, Blei, Wang and
    Paisley 2013). A step sees a minibatch of rows. It fits their local factors (labels, random
    effects of rows) by coordinate ascent and moves the factors that all rows share by the natural
    gradient, in which the rows count as often as makes them stand for all. Step t has the size
    (t + delay)^-forgetting; the rows of the start count as steps already made. The steps end when
    the ELBO on some fixed batches no longer rises by more than the standard error of the rise, or
    by more than ``tolerance``.

    What noise they leave is removed by coordinate ascent on all rows from there, until the sweeps
    to come promise less than 1e-4 nats. So the answer does not depend on ``batch_size``, and the
    ELBO returned is exact.

    A dense Gaussian over latents that all rows share takes Newton steps on samples of the rows
    that grow until they are all of them, and models without cheap integrals are fitted on fixed
    draws; both read rows a batch at a time, about 8,000 of them, and keep nothing of them.

    What belongs to rows is found by trying the model on fewer of them, and a model that is no sum
    over rows is refused.

    Cost of a step: that of a sweep of coordinate ascent over ``batch_size`` rows, the local part
    of it as often as the local factors need. Worth it where a sweep over all rows is dear; for
    small data :class:`Natural` is faster.

    Attributes:
        batch_size: rows in a minibatch, at least 1; all rows where there are fewer. None: 256.
        forgetting: exponent of the step size, above 0.5 and at most 1.
        delay: at least 1; larger ones make early steps smaller.
        local_sweeps: largest number of sweeps over the local factors of a minibatch.
        local_tolerance: gain of such a sweep, in nats per row, below which they end.
        max_epochs: passes over the data after which the steps end anyway.
        tolerance: rise of the ELBO, in nats per row, that is not worth going on for.
    """

    batch_size: int | None = None
    forgetting: float = 0.7
    delay: float = 1.0
    local_sweeps: int = 100
    local_tolerance: float = 1e-4
    max_epochs: int = 100
    tolerance: float = 1e-6

    def __post_init__(self) -> None:
        """Check the settings."""
        for name in ("batch_size", "local_sweeps", "max_epochs"):
            value = getattr(self, name)
            if value is not None or name != "batch_size":
                check_whole(name, value)
        if not 0.5 < self.forgetting <= 1.0:
            raise ArgumentError(
                "forgetting must be above 0.5 and at most 1 (Robbins and Monro 1951: the steps must add up to "
                f"infinity and their squares must not), got {self.forgetting}"
            )
        if not 1.0 <= self.delay < np.inf:
            raise ArgumentError(
                f"delay must be at least 1, so that no step is larger than 1, got {self.delay}"
            )
        for name in ("local_tolerance", "tolerance"):
            if not getattr(self, name) >= 0:
                raise ArgumentError(
                    f"{name} must be at least 0, in nats per row, got {getattr(self, name)}"
                )

    @property
    def rows(self) -> int:
        """Rows in a minibatch."""
        return DEFAULT_ROWS if self.batch_size is None else self.batch_size

    @override
    def describe(self) -> str:
        return f"stochastic natural gradient on minibatches of {self.rows:,} rows, finished on all rows"

    @override
    def solve(
        self, evaluator: Evaluator, family: AbstractFamily, start: Start, seed: int, watch: Watch
    ) -> Solution:
        if not isinstance(family, MeanField):
            return fit_gaussian(self, evaluator, family, start, seed, watch)
        with double_precision():
            run = _Run.prepare(self, evaluator.problem, family, seed, watch)
            shared, looks, status = run.descend(watch)
            fitted = run.finish(shared, tuple(map(float, looks)), status, watch)
            q = distribution_of(evaluator.problem, fitted.q)
        return Solution(q, fitted.elbo, fitted.status, fitted.history, 0.0, run.notes, fitted)


def check_whole(name: str, value: object) -> None:
    """Refuse what is no whole number of at least 1."""
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise ArgumentError(f"{name} must be a whole number of at least 1, got {value!r}")


# --- a run ------------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class _Run:
    """A fit by minibatches, prepared.

    Attributes:
        settings: of the solver.
        problem: on all rows.
        rows: what belongs to them.
        layout: the factors.
        apart: notes on factors that minibatches keep apart.
        size: rows in a batch.
        steps: compiled for such batches.
        start: the shared factors to begin with.
        seen: batches that the start is worth.
        seed: of the batches.
        arrays: the data, on the device.
        compile_seconds: time spent until here.
    """

    settings: StochasticNatural
    problem: Problem
    rows: Rows
    layout: Layout
    apart: tuple[str, ...]
    size: int
    steps: Steps
    start: Factors
    seen: float
    seed: int
    arrays: Any
    compile_seconds: float

    @staticmethod
    def prepare(
        settings: StochasticNatural, problem: Problem, family: MeanField, seed: int, watch: Watch
    ) -> "_Run":
        """Find the rows, choose the factors, and fit the start to some of the rows."""
        began = time.perf_counter()
        layout_of(problem, family)  # checks the family
        rows = find_rows(problem)
        size = min(settings.rows, rows.count)
        layout = layout_by_rows(problem, family, rows)
        first = min(START_ROWS, rows.count)
        layout, start = _start(problem, rows, layout, first, seed, watch)
        fit = LocalFit(settings.local_sweeps, settings.local_tolerance)
        steps = make_steps(problem, rows, layout, size, fit)
        arrays = jax.tree.map(jnp.asarray, {k: problem.arrays[k] for k in ("data", "observe")})
        apart = split_notes(problem, family, rows)
        seconds = time.perf_counter() - began
        return _Run(
            settings, problem, rows, layout, apart, size, steps, start, first / size, seed, arrays,
            seconds,
        )  # fmt: skip

    def descend(self, watch: Watch) -> tuple[Factors, list[float], Status]:
        """Step until the ELBO no longer rises; the shared factors and the ELBO's estimates."""
        rng = np.random.default_rng((self.seed, 19))
        num = min(MONITORED, self.rows.count // self.size)
        monitor = rng.permutation(self.rows.count)[: num * self.size].reshape(num, -1)
        stream = batches(self.rows.count, self.size, rng)
        most = -(-self.settings.max_epochs * self.rows.count // self.size)
        shared, done, count, looks = self.start, 0, 1, [self._look(self.start, monitor)]
        while True:
            if watch.over:
                status = Status.INTERRUPTED if watch.interrupted else Status.BUDGET
                break
            if (settled := self._has_settled(looks)) or done >= most:
                status = Status.CONVERGED if settled else Status.MAX_STEPS
                break
            rates = self._rates(done)[: most - done]
            moved, count = self._advance(shared, stream, rates, count, watch)
            look = self._look(moved, monitor)
            if not np.isfinite(look).all():
                status = Status.NONFINITE
                break
            shared, done = moved, done + len(rates)
            looks.append(look)
            epochs = done * self.size / self.rows.count
            watch.report("stochastic natural gradient", epochs=epochs, ELBO=float(look.mean()))
        return shared, [float(x.mean()) for x in looks], status

    def _rates(self, done: int) -> np.ndarray:
        """Sizes of the steps until the next look."""
        first = done + self.seen + self.settings.delay
        found: list[float] = []
        while len(found) < FEWEST_STEPS or sum(found) < SPAN:
            found.append((first + len(found)) ** -self.settings.forgetting)
        return np.array(found)

    def _advance(
        self, shared: Factors, stream: Any, rates: np.ndarray, count: int, watch: Watch
    ) -> tuple[Factors, int]:
        """Take steps of these sizes, ``count`` in a call; the next count keeps calls short."""
        index, padded = np.zeros((MOST_STEPS, self.size), int), np.zeros(MOST_STEPS)
        at = 0
        while at < len(rates) and not watch.over:
            num = min(count, len(rates) - at)
            index[:num] = list(itertools.islice(stream, num))
            padded[:num] = rates[at : at + num]
            began = time.perf_counter()
            shared, _, _ = jax.block_until_ready(
                self.steps.advance(shared, self.arrays, index, padded, num)
            )
            seconds = (time.perf_counter() - began) / num
            count, at = int(np.clip(CALL_SECONDS / seconds, 1, MOST_STEPS)), at + num
        return shared, count

    def _look(self, shared: Factors, monitor: np.ndarray) -> np.ndarray:
        """The ELBO as each of the monitored batches has it, (batches,)."""
        index = np.zeros((MOST_STEPS, self.size), int)
        index[: len(monitor)] = monitor
        rates = np.zeros(MOST_STEPS)
        found = self.steps.advance(shared, self.arrays, index, rates, len(monitor))
        return np.asarray(found[2])[: len(monitor)]

    def _has_settled(self, looks: list[np.ndarray]) -> bool:
        """Whether the ELBO's rise is lost in noise, or below the tolerance.

        Noise shows in two ways: batches disagree about the rise, and looks scatter in time. A rise
        that stands out of either is one.
        """
        if len(looks) < 2 * WINDOW:
            return False
        before, last = np.reshape(looks[-2 * WINDOW :], (2, WINDOW, -1))
        rise = last.mean(0) - before.mean(0)
        of_batches = rise.std(ddof=1) / np.sqrt(len(rise)) if len(rise) > 1 else 0.0
        scatter = np.var([before.mean(1), last.mean(1)], axis=1, ddof=1).sum()
        noise = min(of_batches, np.sqrt(scatter / WINDOW))
        return bool(rise.mean() <= max(noise, self.settings.tolerance * self.rows.count))

    def finish(
        self, shared: Factors, history: tuple[float, ...], status: Status, watch: Watch
    ) -> Ascent:
        """Fit all local factors, then sweep over all rows until that promises nothing more."""
        whole = {**shared, **self._all_local(shared)}
        q = {b.name: whole[b.name] for b in engine_of(self.problem, self.layout).blocks}
        found = ascend(self.problem, self.layout, self.seed, watch, FINISH, MOST_SWEEPS, start=q)
        seconds = self.compile_seconds + found.compile_seconds
        failed = status is Status.NONFINITE
        return dataclasses.replace(
            found,
            history=(*history, *found.history),
            status=status if failed else found.status,
            compile_seconds=seconds,
        )

    def _all_local(self, shared: Factors) -> Factors:
        """The local factors of all rows, batch by batch."""
        local = self.steps.local
        if not local:
            return {}
        num = -(-self.rows.count // self.size)
        index, rates = np.zeros((MOST_STEPS, self.size), int), np.zeros(MOST_STEPS)
        parts = []
        for rows in np.resize(np.arange(self.rows.count), (num, self.size)):
            index[0] = rows
            found = self.steps.advance(shared, self.arrays, index, rates, 1)[1]
            parts.append(jax.tree.map(np.asarray, found))
        return joined(self.problem, self.rows, self.layout, local, parts)

    @property
    def notes(self) -> tuple[str, ...]:
        """What the user should know."""
        found = [
            f"site '{n}' is taken on draws: its compiled mean differed from theirs"
            for n in self.layout.drawn
        ]
        found += self.apart
        if self.size < self.settings.rows:
            found.append(
                f"the data have {self.rows.count:,} rows, fewer than batch_size={self.settings.rows:,}: "
                "every step sees all of them, which solvers.Natural() does faster"
            )
        return tuple(found)


def _start(
    problem: Problem, rows: Rows, layout: Layout, first: int, seed: int, watch: Watch
) -> tuple[Layout, Factors]:
    """Shared factors fitted to some of the rows, which then stand for all of them.

    Args:
        problem: on all rows.
        rows: what belongs to them.
        layout: the factors.
        first: how many rows to take.
        seed: of the starts.
        watch: ends the fit early.

    Returns:
        The layout, with the sites to be taken on draws, and the shared factors.
    """
    order = np.random.default_rng((seed, 17)).permutation(rows.count)
    part, few = (part_of(problem, rows, order[:n]) for n in (first, min(CHECKED_ROWS, first)))
    found = ascend(part, layout, seed, watch, max_sweeps=START_SWEEPS, restarts=RESTARTS)
    if wrong := _mistaken(few, layout, found.q, rows, seed):
        layout = dataclasses.replace(layout, drawn=wrong)
        found = ascend(part, layout, seed, watch, max_sweeps=START_SWEEPS, restarts=RESTARTS)
    known, key = part.program.compiled, ("start", layout)
    if key not in known:
        blocks, _ = divided(found.blocks, rows)
        known[key] = jax.jit(functools.partial(moved, blocks=blocks, rate=1.0))
    return layout, known[key](found.q, weighted(found.sites, rows.sites, rows.count / first))


def _mistaken(
    part: Problem, layout: Layout, fitted: Factors, rows: Rows, seed: int
) -> tuple[str, ...]:
    """Sites whose compiled mean is not that of draws; looked at once, on few rows."""
    known, key = part.program.compiled, ("checked", layout)
    if key not in known:
        engine = engine_of(part, layout)
        shared, _ = divided(engine.blocks, rows)
        q = default_factors(part, layout) | {b.name: fitted[b.name] for b in shared}
        sites, given = engine.fold(part.arrays), site_functions(part, layout.own)
        known[key] = mistaken(sites, given, q, part.arrays, seed)
    return known[key]
