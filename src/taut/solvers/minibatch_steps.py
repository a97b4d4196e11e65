r"""Compiled steps of stochastic variational inference: local factors, then a move of the shared ones.

Of n rows a batch shows b. Their local factors are fitted with the shared ones fixed; then each
shared factor's natural parameter moves towards the optimum that it would have if the batch were
repeated n / b times,

.. math:: \lambda \leftarrow (1 - \rho)\, \lambda + \rho\, \hat\lambda, \qquad
          \hat\lambda = \frac{\partial}{\partial \mu} \Big( E_q[\log p_{shared}]
          + \frac n b\, E_q[\log p_{rows}] \Big)

(Hoffman, Blei, Wang and Paisley 2013, figure 4). Shared factors move in turn, each seeing those
before it, so that a step of size one on all rows is a sweep of coordinate ascent.
"""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from taut.expectation.transform import Compiled
from taut.problem import Problem
from taut.solvers.ascent import engine_of
from taut.solvers.blocks import Block, Factors, damped, expected, updated
from taut.solvers.minibatches import Rows, part_of
from taut.solvers.structure import Layout, default_factors

Sites = Mapping[str, Compiled]


@dataclasses.dataclass(frozen=True)
class LocalFit:
    """When the local factors of a batch are done.

    Attributes:
        sweeps: largest number of sweeps.
        tolerance: gain of a sweep, in nats per row, below which they end.
    """

    sweeps: int
    tolerance: float


@dataclasses.dataclass(frozen=True)
class Steps:
    """The steps of one model on batches of one size, compiled once.

    Attributes:
        advance: (shared factors, arrays, rows (s, b), rates (s,), number of steps) -> shared
            factors after that many steps, local factors of the last batch, and the estimate of
            the ELBO before each step (s,).
        shared: blocks of the factors that all rows share, in the order of updates.
        local: blocks of the factors that belong to rows.
    """

    advance: Callable[..., tuple[Factors, Factors, Any]]
    shared: tuple[Block, ...]
    local: tuple[Block, ...]


def make_steps(problem: Problem, rows: Rows, layout: Layout, size: int, fit: LocalFit) -> Steps:
    """The compiled steps, made once for all data of the same shape.

    Args:
        problem: on all rows.
        rows: what belongs to them.
        layout: the factors, none of which mixes shared and local latents.
        size: rows in a batch, b.
        fit: when local factors are done.
    """
    part = part_of(problem, rows, np.arange(size))
    known, key = part.program.compiled, ("steps", layout, fit)
    if key not in known:
        known[key] = _make_steps(part, rows, layout, size, fit)
    return known[key]


def _make_steps(part: Problem, rows: Rows, layout: Layout, size: int, fit: LocalFit) -> Steps:
    engine = engine_of(part, layout)
    shared, local = divided(engine.blocks, rows)
    weight = rows.count / size

    def advance(factors: Factors, arrays: Any, index: Any, rates: Any, count: Any) -> Any:
        template = default_factors(part, layout)
        start = {b.name: template[b.name] for b in local}

        def once(i: Any, state: Any) -> Any:
            now, _, bounds = state
            sites = engine.fold({**rows.take(arrays, index[i]), "centring": {}})
            own = fitted(now, start, {n: sites[n] for n in rows.sites}, local, fit, size)
            scaled = weighted(sites, rows.sites, weight)
            q = {**now, **own}
            entropies = [f.entropy for f in now.values()]
            entropies += [weight * f.entropy for f in own.values()]
            bound = expected(q, scaled) + sum(entropies)
            return moved(q, scaled, shared, rates[i]), own, bounds.at[i].set(bound)

        return jax.lax.fori_loop(0, count, once, (factors, start, jnp.zeros(rates.shape)))

    return Steps(jax.jit(advance), shared, local)


def divided(blocks: tuple[Block, ...], rows: Rows) -> tuple[tuple[Block, ...], tuple[Block, ...]]:
    """Blocks that all rows share, and blocks that belong to rows."""
    shared = tuple(b for b in blocks if not rows.latents & set(b.latents))
    return shared, tuple(b for b in blocks if b not in shared)


def weighted(sites: Sites, names: tuple[str, ...], weight: float) -> dict[str, Compiled]:
    """The sites with some of them multiplied by a number."""
    return {n: _times(c, weight) if n in names else c for n, c in sites.items()}


def _times(compiled: Compiled, weight: float) -> Compiled:
    if (drawn := compiled.function) is not None:
        return dataclasses.replace(compiled, function=lambda x, data: weight * drawn(x, data))
    return dataclasses.replace(compiled, terms=tuple(t.scaled(weight) for t in compiled.terms))


def fitted(
    shared: Factors, start: Factors, sites: Sites, blocks: tuple[Block, ...], fit: LocalFit,
    size: int,
) -> Factors:  # fmt: skip
    """The local factors of a batch, by coordinate ascent from a fixed start.

    Args:
        shared: the other factors, fixed.
        start: local factors.
        sites: those of the rows, unweighted.
        blocks: of the local factors.
        fit: when to end.
        size: rows in the batch.
    """
    if not blocks:
        return {}
    one = jnp.ones(())

    def sweep(state: Any) -> Any:
        local, steps, before, _, count = state
        local, steps = dict(local), dict(steps)
        for block in blocks:
            q = {**shared, **local}
            if block.is_conjugate:
                local[block.name], _ = updated(q, block, sites)
            else:
                local[block.name], taken, _ = damped(q, block, sites, steps[block.name])
                steps[block.name] = jnp.minimum(1.0, 2.0 * taken)
        bound = expected({**shared, **local}, sites) + sum(f.entropy for f in local.values())
        return local, steps, bound, bound - before, count + 1

    def unfinished(state: Any) -> Any:
        return (state[3] > size * fit.tolerance) & (state[4] < fit.sweeps)

    steps = {b.name: one for b in blocks if not b.is_conjugate}
    state = (dict(start), steps, -jnp.inf * one, jnp.inf * one, jnp.zeros((), int))
    if len(blocks) == 1 and not steps:  # one update is its optimum
        return sweep(state)[0]
    return jax.lax.while_loop(unfinished, sweep, state)[0]


def moved(q: Factors, sites: Sites, blocks: tuple[Block, ...], rate: Any) -> Factors:
    """The factors of some blocks after a step of size ``rate`` in natural parameters.

    Where an optimum has no closed form the step is halved until the batch's own ELBO rises.
    """
    q = dict(q)
    for block in blocks:
        old = q[block.name]
        if block.is_conjugate:
            new, proper = updated(q, block, sites, rate)
            q[block.name] = jax.tree.map(lambda a, b, ok=proper: jnp.where(ok, a, b), new, old)
        else:
            q[block.name], _, _ = damped(q, block, sites, rate)
    return {b.name: q[b.name] for b in blocks}


def joined(
    problem: Problem, rows: Rows, layout: Layout, local: tuple[Block, ...], parts: list[Factors]
) -> Factors:
    """The local factors of all rows from those of consecutive batches.

    Args:
        problem: on all rows.
        rows: what belongs to them.
        layout: the factors.
        local: blocks of the local ones.
        parts: by batch, in the order of the rows; what is beyond the last row is dropped.
    """

    def shapes(part: Problem) -> tuple[list[Any], Any]:
        found = jax.eval_shape(lambda: default_factors(part, layout))
        return jax.tree.flatten({b.name: found[b.name] for b in local})

    one, two = (shapes(part_of(problem, rows, np.arange(n)))[0] for n in (1, 2))
    whole, tree = shapes(problem)
    leaves = []
    for like, a, b, *pieces in zip(whole, one, two, *map(jax.tree.leaves, parts), strict=True):
        axis = next(i for i, (m, n) in enumerate(zip(a.shape, b.shape, strict=True)) if m != n)
        pieced = np.concatenate(pieces, axis)
        leaves.append(jnp.asarray(pieced.take(np.arange(like.shape[axis]), axis)))
    return jax.tree.unflatten(tree, leaves)
