"""Whether the log joint is a sum over rows, so that some of them speak for all."""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from taut._core.errors import ModelError
from taut.deep.rows import UNOBSERVED, RowModel

TRIED = 4  # rows in each of the two parts on which the model is tried


def check_rows(rows: RowModel, columns: Mapping[str, Any]) -> None:
    """Check that the log joint is a sum over rows: two parts of them must add up to both.

    Raises:
        ModelError: if a site's rows change with the others, or a site sums over them unseen.
    """
    if rows.draws_keys:
        return  # random masks differ with the shape of a batch
    count = len(jax.tree.leaves(columns)[0])
    half = min(TRIED, count // 2)
    if not half:
        return
    index = np.random.default_rng(count).permutation(count)[: 2 * half]
    taken = jax.tree.map(lambda x: jnp.asarray(np.asarray(x)[index]), dict(columns))
    parts = (None, slice(half), slice(half, None))
    found = jax.jit(lambda full: [_terms(rows, full, part) for part in parts])(taken)
    whole, first, second = jax.tree.map(np.asarray, found)
    for name, value in whole.items():
        a, b = first[name], second[name]
        together = np.concatenate([a, b]) if np.ndim(value) else a
        if not np.isfinite(value).all() or _same(value, together):
            continue
        is_sum = not np.ndim(value) and _same(value, a + b)
        raise ModelError(_mixed(name, np.ndim(value) > 0, is_sum))


def _same(value: np.ndarray, other: np.ndarray | np.floating) -> bool:
    return bool(np.allclose(value, other, rtol=1e-3, atol=1e-4 * (1 + np.abs(value).max())))


def _mixed(name: str, has_rows: bool, is_sum: bool) -> str:
    if has_rows:
        return (
            f"the log density of '{name}' for one row changes with the other rows of its batch (a mean over the batch "
            "does that, as in batch normalisation), so a minibatch says nothing about all rows"
        )
    hint = (
        "it adds up over rows unseen: "
        if is_sum
        else "it changes with the rows and is no sum over them: "
    )
    return (
        f"site '{name}' has no axis along the rows, yet {hint}write it as one term a row inside of "
        "numpyro.plate('rows', len(y)), so that minibatches can be scaled rightly"
    )


def _terms(rows: RowModel, full: Mapping[str, Any], part: slice | None) -> dict[str, Any]:
    """Site -> its log density on part of some rows at fixed values: (n,) or ()."""
    trace = rows.trace(rows.params, {}, full, jax.random.key(7))
    values = {}
    for name, site in rows.latents.items():
        value = trace[name if name in trace else name + UNOBSERVED]["value"]
        if part is not None and site.row_axis is not None:
            axis = site.row_axis - site.event_dims + value.ndim
            value = jnp.moveaxis(jnp.moveaxis(value, axis, 0)[part], 0, axis)
        values[name] = value
    if part is not None:
        full = jax.tree.map(lambda x: x[part], dict(full))
    return rows.terms(rows.trace(rows.params, values, full))
