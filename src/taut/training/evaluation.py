"""The objective on all rows, a compiled call of many batches at a time."""

from typing import Any

import jax
import numpy as np

from taut.data.feeds import AbstractFeed
from taut.training.placing import Placing
from taut.training.step import Stepper

MOST_STEPS = 512  # batches in a call
ITEM_BYTES = 2**23  # of the batches that a call is given


def evaluate(
    stepper: Stepper, params: Any, feed: AbstractFeed, num_rows: int, key: Any, placing: Placing
) -> float:
    """The objective on all rows of a feed, nats per row; its batches weigh by their rows.

    Args:
        stepper: of the objective.
        params: the parameters.
        feed: of the rows.
        num_rows: rows that the objective is about, for which those of the feed stand.
        key: of the draws.
        placing: of arrays on devices.
    """
    feed.restore({"epoch": 0, "step": 0})
    losses, left, most, num = [], feed.steps_per_epoch, 0, 1
    while left:
        found = feed.take(num)
        most = most or most_steps(found, num)
        items = placing.share(jax.tree.map(lambda x, m=most: padded(x, m), found))
        resident, now = placing.replicate(feed.resident), jax.random.fold_in(key, len(losses))
        scale = num_rows / feed.num_rows
        found = stepper.losses(params, resident, items, now, num, scale)
        losses += list(np.asarray(found, float)[:num])
        left -= num
        num = min(most, left)
    rows = np.full(len(losses), feed.batch_size)
    rows[-1] = feed.num_rows - feed.batch_size * (len(losses) - 1)
    return float(np.average(losses, weights=rows))


def most_steps(items: Any, num: int) -> int:
    """Steps in a call whose batches are small enough to be copied."""
    bytes_each = sum(np.asarray(x).nbytes for x in jax.tree.leaves(items)) / num
    return int(np.clip(ITEM_BYTES / max(bytes_each, 1), 1, MOST_STEPS))


def padded(x: np.ndarray, most: int) -> np.ndarray:
    """Repeat the first element until there are as many as the compiled call takes."""
    if len(x) == most:
        return x
    return np.concatenate([x, np.broadcast_to(x[:1], (most - len(x), *x.shape[1:]))])
