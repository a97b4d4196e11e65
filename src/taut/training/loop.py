"""The training loop: compiled chunks of steps, driven from the host."""

import dataclasses
import math
import time
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from taut._core.errors import ModelError
from taut._core.progress import Watch
from taut._core.status import Status
from taut.data.feeds import AbstractFeed
from taut.training import checkpoint as checkpoints
from taut.training import schedule
from taut.training.course import Course, Look, course_of
from taut.training.evaluation import MOST_STEPS, evaluate, most_steps, padded
from taut.training.optimisers import make_optimiser
from taut.training.placing import Placing
from taut.training.settings import Training
from taut.training.step import Objective, State, Stepper

CALL_SECONDS = 0.3  # of one compiled call, so that Ctrl-C and the display are answered
TOLERATED = 20  # steps in a row that are not finite, before a run goes back
RETREATS = 5  # times that a run goes back, each with half the rate
LAST_SHARE = 0.8  # of a budget in seconds, after which the rate begins to fall


@dataclasses.dataclass(frozen=True)
class Trained:
    """What a run found.

    Attributes:
        params: the parameters.
        status: why it ended.
        looks: its course.
        steps: steps taken.
        skipped: steps that were not finite and moved nothing.
        notes: what the user should know.
        compile_seconds: until the first step was done.
        seconds: of the run.
    """

    params: Any
    status: Status
    looks: tuple[Look, ...]
    steps: int
    skipped: int
    notes: tuple[str, ...]
    compile_seconds: float
    seconds: float


def train(
    objective: Objective,
    params: Any,
    feed: AbstractFeed,
    settings: Training,
    seed: int,
    watch: Watch,
    *,
    validation: AbstractFeed | None = None,
    checkpoint: str | Path | None = None,
    identity: str = "",
    placing: Placing | None = None,
    unit: tuple[str, float] = ("loss", 1.0),
) -> Trained:
    """Minimise an objective over minibatches.

    Args:
        objective: (parameters, batch, key, step) -> (loss in nats per row, numbers to record).
        params: pytree of arrays to begin with.
        feed: of the batches.
        settings: how long, and with what.
        seed: of the draws.
        watch: ends the run early, keeping the best; shows its course.
        validation: rows on which the objective is read after every look; the parameters with the
            lowest value are kept.
        checkpoint: folder in which the run's state is kept; a run found there is gone on with.
        identity: of the model and data, so that another's checkpoint is refused.
        placing: of arrays on devices; None takes the default device.
        unit: name and factor under which the loss is shown, such as ("ELBO", -num_rows).

    Raises:
        ModelError: if the objective is not finite at the start, on any of the first batches.
        FileError: if the checkpoint is of another run, or cannot be read.
    """
    placing = Placing() if placing is None else placing
    optimiser = make_optimiser(settings.optimiser, settings.learning_rate, params)
    stepper = Stepper(objective, optimiser, feed, settings.averaging and optimiser.scheduled)
    store = None if checkpoint is None else checkpoints.Store(Path(checkpoint), identity)
    beside = _Beside(validation, store, placing, unit)
    run = _Run(stepper, stepper.start(params), feed, settings, seed, watch, beside)
    run.resume()
    return run.go()


@dataclasses.dataclass(frozen=True)
class _Beside:
    """What a run has beside its data.

    Attributes:
        validation: rows on which the objective is read.
        store: of its state.
        placing: of arrays on devices.
        unit: name and factor under which the loss is shown.
    """

    validation: AbstractFeed | None
    store: checkpoints.Store | None
    placing: Placing
    unit: tuple[str, float]


class _Run:
    """A run in progress; the one place with mutable state."""

    def __init__(
        self,
        stepper: Stepper,
        state: State,
        feed: AbstractFeed,
        settings: Training,
        seed: int,
        watch: Watch,
        beside: _Beside,
    ) -> None:
        self.stepper, self.feed, self.settings, self.watch = stepper, feed, settings, watch
        self.validation, self.store, self.unit = beside.validation, beside.store, beside.unit
        self.placing = beside.placing
        self.state: State = self.placing.replicate(state)
        self.key = self.placing.replicate(jax.random.key(seed))
        self.resident = self.placing.replicate(feed.resident)
        self.course, self.step, self.notes = Course(), 0, []
        self.best: Any = None  # parameters with the lowest validation loss
        self.good: State | None = None  # the state at the last look
        self.compile_seconds, self.began = 0.0, time.perf_counter()
        epoch = feed.steps_per_epoch
        self.each = epoch * math.ceil(schedule.LEAST_STEPS / epoch)
        self.total = epoch * settings.epochs if settings.epochs else None
        self.count, self.most = 1, MOST_STEPS

    # --- the loop -----------------------------------------------------------------------------

    def go(self) -> Trained:
        """Step until the run is done."""
        while not self.course.status:
            if ended := self._why_over():
                # Nothing is decided by an interrupt: the run can be gone on with.
                self._save()
                return self._trained(ended)
            self._advance(min(self._until_look(), self.count))
            if self.step % self.each == 0 or self.step == self.total:
                self._look()
                self._save()
        self._save()
        return self._trained(Status[self.course.status])

    def _why_over(self) -> Status | None:
        if not self.watch.over:
            return None
        return Status.INTERRUPTED if self.watch.interrupted else Status.BUDGET

    def _until_look(self) -> int:
        left = self.each - self.step % self.each
        return left if self.total is None else min(left, self.total - self.step)

    def _advance(self, num: int) -> None:
        """Take some steps in one compiled call."""
        items = self.feed.take(num)
        if self.compile_seconds == 0.0:
            self.most = most_steps(items, num)
        items = self.placing.share(jax.tree.map(lambda x: padded(x, self.most), items))
        rates = np.zeros(self.most, np.float32)
        rates[:num] = [self._rate(self.step + i) for i in range(num)]
        began = time.perf_counter()
        self.state, losses, info = self.stepper.advance(
            self.state, self.resident, items, self.placing.replicate(rates), self.key, num
        )
        losses = np.asarray(losses, float)[:num]
        seconds = time.perf_counter() - began
        if self.compile_seconds == 0.0:
            self.compile_seconds = seconds
        else:
            self.count = int(np.clip(CALL_SECONDS * num / seconds, 1, min(self.most, 2 * num)))
        self._record(losses)
        self.step += num
        self._show(losses, {n: float(v) for n, v in info.items()})

    def _rate(self, step: int) -> float:
        if self.total is not None:
            return self.course.factor * schedule.planned_rate(step, self.total)
        return self.course.factor * schedule.open_rate(step, self.course.decay)

    def _record(self, losses: np.ndarray) -> None:
        """Keep the losses; see to those that are not finite."""
        bad = np.flatnonzero(~np.isfinite(losses))
        course = dataclasses.replace(self.course, pending=(*self.course.pending, *losses))
        if len(bad):
            first = course.first_skip if course.first_skip >= 0 else self.step + int(bad[0])
            skipped = course.skipped + len(bad)
            course = dataclasses.replace(course, skipped=skipped, first_skip=first)
        self.course = course
        if int(self.state.skipped) >= min(TOLERATED, max(3, self.each)):
            self._retreat()

    def _retreat(self) -> None:
        """Go back to the last look's parameters, with half the rate."""
        if self.good is None and not np.isfinite(self.course.pending).any():
            raise ModelError(
                "the objective is not finite on any of the first batches. Look for log(0), division by zero or "
                "scales that may be zero in the model, and for outputs of networks that need a bound; "
                "with the start as it is, no step can be made"
            )
        factor = self.course.factor / 2
        if self.good is not None:
            self.state = jax.tree.map(jnp.array, self.good)._replace(step=self.state.step)
        self.state = self.state._replace(skipped=jnp.zeros_like(self.state.skipped))
        self.course = dataclasses.replace(self.course, factor=factor)
        if factor < 0.5**RETREATS:
            self.course = dataclasses.replace(self.course, status=Status.NONFINITE.name)

    # --- looks --------------------------------------------------------------------------------

    def _look(self) -> None:
        """Take stock: the mean loss, the validation loss, whether to cool down or to end."""
        finite = [x for x in self.course.pending if np.isfinite(x)]
        loss = float(np.mean(finite)) if finite else float("nan")
        found = float("nan") if self.validation is None else self.evaluate(self.validation)
        epoch = self.step / self.feed.steps_per_epoch
        look = Look(self.step, epoch, loss, found, self.watch.seconds)
        looks = (*self.course.looks, look)
        self.course = dataclasses.replace(self.course, looks=looks, pending=())
        if finite:
            self.good = jax.tree.map(jnp.array, self.state)
        self._keep_best()
        self._decide()

    def _keep_best(self) -> None:
        looks, best = self.course.looks, self.course.best
        if self.validation is None or not np.isfinite(looks[-1].validation):
            return
        if best < 0 or looks[-1].validation < looks[best].validation:
            self.best = jax.tree.map(jnp.array, self.stepper.parameters(self.state))
            self.course = dataclasses.replace(self.course, best=len(looks) - 1)

    def _decide(self) -> None:
        course, status = self.course, None
        if self.total is not None:
            status = Status.COMPLETED if self.step >= self.total else None
        elif course.decay is not None:
            status = Status.SETTLED if self.step >= course.decay[1] else None
        elif self._is_time_to_cool():
            course = dataclasses.replace(course, decay=schedule.cooldown(self.step, self.each))
        if self._is_out_of_patience():
            status = Status.EARLY_STOP
        if self.total is None and self.step >= self.settings.max_steps:
            status = Status.MAX_STEPS if course.decay is None else status or Status.MAX_STEPS
        self.course = dataclasses.replace(course, status=status.name if status else course.status)

    def _is_time_to_cool(self) -> bool:
        budget = self.watch.budget
        if budget is not None and self.watch.seconds > LAST_SHARE * budget:
            return True
        left = self.settings.max_steps - self.step
        if left <= schedule.COOLDOWN * self.step:
            return True
        return schedule.has_settled([look.loss for look in self.course.looks])

    def _is_out_of_patience(self) -> bool:
        best, looks = self.course.best, self.course.looks
        if best < 0:
            return False
        waited = looks[-1].epoch - looks[best].epoch
        patience = self.settings.patience
        most = max(10.0, 0.2 * looks[-1].epoch) if patience is None else patience
        return waited >= most and len(looks) - 1 > best

    def evaluate(self, feed: AbstractFeed) -> float:
        """The objective on all rows of a feed, at the parameters that the run stands for."""
        params = self.stepper.parameters(self.state)
        return evaluate(self.stepper, params, feed, self.feed.num_rows, self.key, self.placing)

    # --- telling and keeping ------------------------------------------------------------------

    def _show(self, losses: np.ndarray, info: dict[str, float]) -> None:
        finite = losses[np.isfinite(losses)]
        name, factor = self.unit
        done = self.step / self.feed.steps_per_epoch
        numbers: dict[str, Any] = {"epoch": done}
        if self.settings.epochs:
            numbers["epochs"] = self.settings.epochs
        if len(finite):
            numbers[name] = factor * float(finite.mean())
        if self.course.looks and np.isfinite(self.course.looks[-1].validation):
            numbers["validation"] = factor * self.course.looks[-1].validation
        self.watch.report("training", step=self.step, **numbers, **info)

    def resume(self) -> None:
        """Go on from the checkpoint, if there is one."""
        found = None if self.store is None else self.store.load((self.state, self.best_like()))
        if found is None:
            return
        (state, best), host = found
        self.state = self.placing.replicate(state)
        self.course, self.step = course_of(host["course"]), host["step"]
        self.best = self.placing.replicate(best) if self.course.best >= 0 else None
        self.good = jax.tree.map(jnp.array, self.state)
        self.feed.restore(host["feed"])

    def best_like(self) -> Any:
        """The best parameters so far, or something of their form."""
        return self.stepper.parameters(self.state) if self.best is None else self.best

    def _save(self) -> None:
        if self.store is None:
            return
        course = dataclasses.asdict(self.course)
        host = {"course": course, "step": self.step, "feed": self.feed.state()}
        if message := self.store.save((self.state, self.best_like()), host):
            self.notes = [n for n in self.notes if not n.startswith("checkpoint")] + [message]

    def _trained(self, status: Status) -> Trained:
        params = self.stepper.parameters(self.state) if self.best is None else self.best
        notes, course = list(self.notes), self.course
        if course.skipped:
            notes.append(
                f"{course.skipped:,} of {self.step:,} steps were not finite and were left out, the first at step "
                f"{course.first_skip:,}"
                + (f"; the rate was cut to {course.factor:g} of it" if course.factor < 1 else "")
            )
        return Trained(
            params=self.placing.collect(params),
            status=status,
            looks=course.looks,
            steps=self.step,
            skipped=course.skipped,
            notes=tuple(notes),
            compile_seconds=self.compile_seconds,
            seconds=time.perf_counter() - self.began,
        )
