"""How large the steps are, and when there have been enough: drift against noise."""

import math
from collections.abc import Sequence

import numpy as np

WARMUP = 0.05  # share of a run of known length in which the rate rises
FIRST_STEPS = 200  # the same, in steps, where the length is not known
COOLDOWN = 0.25  # steps in which the rate falls to zero, over those before
FEWEST_LOOKS = 12  # before a run may be called settled
LEAST_STEPS = 50  # steps of a look: short epochs are joined
STANDS_OUT = 1.0  # standard errors above which a fall of the losses counts as drift
NEGLIGIBLE = 5e-4  # of the loss's own range so far: drift that is not worth going on for


def planned_rate(step: int, total: int) -> float:
    """The rate of a step in a run of known length: a warm-up, then a cosine to zero."""
    warmup = max(1, int(WARMUP * total))
    if step < warmup:
        return (step + 1) / warmup
    return 0.5 * (1.0 + math.cos(math.pi * (step - warmup) / max(1, total - warmup)))


def open_rate(step: int, decay: tuple[int, int] | None) -> float:
    """The rate of a step in a run without a planned end.

    Args:
        step: from 0.
        decay: first step of the cool-down and the step at which it ends; None before it.
    """
    if decay is None:
        return min(1.0, (step + 1) / FIRST_STEPS)
    begin, end = decay
    return min(1.0, (step + 1) / FIRST_STEPS) * max(0.0, (end - step) / max(1, end - begin))


def cooldown(step: int, each: int) -> tuple[int, int]:
    """First and last step of a cool-down that begins now, whole looks of ``each`` steps."""
    looks = max(1, math.ceil(COOLDOWN * step / each))
    return step, step + looks * each


def has_settled(losses: Sequence[float]) -> bool:
    """Whether the fall of the losses is lost in their noise.

    A straight line through the looks of the run's second half says by how much they fall, their
    scatter around it how well that is known. As long as the fall is larger than its own standard
    error the run goes on: without drift that happens with probability 0.16 at each look, which
    costs a look; a fall of three standard errors is overlooked with probability 0.02.

    Args:
        losses: the mean loss of each look so far, nats per row.
    """
    if len(losses) < FEWEST_LOOKS:
        return False
    last = np.asarray(losses[len(losses) // 2 :], float)
    at = np.arange(len(last)) - (len(last) - 1) / 2
    slope = float(at @ last / (at @ at))
    scatter = float(np.sum((last - last.mean() - slope * at) ** 2) / (len(last) - 2))
    fall, error = -slope * len(last), len(last) * math.sqrt(scatter / float(at @ at))
    return fall <= max(STANDS_OUT * error, NEGLIGIBLE * (max(losses) - min(losses)))
