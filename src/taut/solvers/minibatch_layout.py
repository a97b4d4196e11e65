"""The factors of a mean field that minibatches can fit: none mixes latents of rows and shared ones."""

import dataclasses

from taut._core.errors import ArgumentError, ModelError, listing
from taut.families import MeanField
from taut.problem import Problem
from taut.solvers.mean_field import layout_of
from taut.solvers.minibatches import Rows
from taut.solvers.structure import Layout, choose_layout


def layout_by_rows(problem: Problem, family: MeanField, rows: Rows) -> Layout:
    """The factors of a mean field, none of which mixes latents of rows and shared ones.

    Given the shared latents rows are independent, so Gaussian blocks of rows are, too.

    Raises:
        ArgumentError: if the family asks for a block that mixes them, or for free forms.
        ModelError: if a Gaussian latent does not have its rows along its first axis.
    """
    if family.free_form:
        raise ArgumentError(
            "free_form factors are refitted to where their mass is, which needs all rows at once: "
            "use solvers.Natural()"
        )
    layout, local = layout_of(problem, family), rows.latents
    parts = [
        ([n for n in g if n not in local], [n for n in g if n in local]) for g in layout.blocks
    ]
    if mixed := [g for g, p in zip(layout.blocks, parts, strict=True) if all(p)]:
        if family.blocks is not None:
            raise ArgumentError(
                f"families.MeanField has a block of {', '.join(mixed[0])}, of which some belong to rows and others "
                "to all of them; minibatches need them in blocks of their own"
            )
        layout = choose_layout(problem, tuple(tuple(p) for pair in parts for p in pair if p))
    of_rows = [bool(local & set(g)) for g in layout.blocks]
    for name, axis in rows.local:
        if axis and any(name in g for g in layout.blocks):
            raise ModelError(
                f"the latent '{name}' has its rows along axis {axis}; its Gaussian factor needs them "
                "along the first: enter the plate of the rows with the lowest dim"
            )
    batches = (max(b, 1) if r else b for b, r in zip(layout.batches, of_rows, strict=True))
    scales = (s if (s in local) == r else "" for s, r in zip(layout.scales, of_rows, strict=True))
    return dataclasses.replace(layout, batches=tuple(batches), scales=tuple(scales))


def split_notes(problem: Problem, family: MeanField, rows: Rows) -> tuple[str, ...]:
    """What the factors of all rows at once join and minibatches have to keep apart."""
    whole, local = layout_of(problem, family), rows.latents
    joined = [
        (*group, scale) if scale else group
        for group, scale in zip(whole.blocks, whole.scales, strict=True)
    ]
    return tuple(
        f"{listing(n for n in group if n not in local)} and {listing(n for n in group if n in local)} have "
        "factors of their own, because the latter belong to rows; fitted to all rows at once they are joined, "
        "which holds their dependence and raises the ELBO: leave batch_size out where that is affordable"
        for group in joined
        if 0 < len(local & set(group)) < len(group)
    )
