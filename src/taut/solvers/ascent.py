"""Driving block coordinate ascent: starts, sweeps, the test for convergence."""

import dataclasses
import functools
import time
from collections.abc import Callable
from typing import Any

import jax
import numpy as np

from taut._core.errors import SolverError
from taut._core.precision import double_precision
from taut._core.progress import Watch
from taut._core.status import Status
from taut.expectation.factor import AbstractDiscrete
from taut.expectation.gaussian import Gaussian
from taut.expectation.transform import Compiled
from taut.problem import Problem
from taut.solvers import seeding
from taut.solvers.blocks import Block, elbo, sweep, touching, updated
from taut.solvers.structure import Layout, compile_sites, default_factors, make_blocks

ROUNDING = 1e-9  # relative fall of the ELBO that rounding may cause
TRIAL_SWEEPS = 10  # of each restart, before the best goes on


@dataclasses.dataclass(frozen=True)
class Ascent:
    """Where coordinate ascent ended.

    Attributes:
        q: the factors.
        sites: the compiled expectation of each site.
        blocks: in the order of updates.
        elbo: nats.
        history: ELBO after each sweep.
        status: why it ended.
        compile_seconds: time spent on tracing, compiling and folding.
    """

    q: dict[str, Any]
    sites: dict[str, Compiled]
    blocks: tuple[Block, ...]
    elbo: float
    history: tuple[float, ...]
    status: Status
    compile_seconds: float


@dataclasses.dataclass(frozen=True)
class Engine:
    """Compiled functions of one program and layout, shared by all data of the same shape.

    Attributes:
        fold: arrays -> compiled sites.
        run: (q, sites, steps) -> the same after one sweep, and the ELBO.
        bound: (q, sites) -> ELBO.
        blocks: in the order of updates.
        methods: how the expectation of each site is taken.
        together: the latents of each term.
    """

    fold: Callable[[Any], dict[str, Compiled]]
    run: Callable[..., Any]
    bound: Callable[..., Any]
    blocks: tuple[Block, ...]
    methods: tuple[tuple[str, str], ...]
    together: frozenset[frozenset[str]]


def site_methods(problem: Problem, layout: Layout) -> tuple[tuple[str, str], ...]:
    """How the expectation of each site is taken."""
    with double_precision():
        return engine_of(problem, layout).methods


def engine_of(problem: Problem, layout: Layout) -> Engine:
    """The compiled functions, made once."""
    key = ("ascent", layout)
    if key not in problem.program.compiled:
        problem.program.compiled[key] = _make_engine(problem, layout)
    return problem.program.compiled[key]


def is_exact(problem: Problem, layout: Layout) -> bool:
    """Whether the posterior is a product of the layout's factors: conjugate, and uncoupled."""
    with double_precision():
        engine = engine_of(problem, layout)
    own = {n: b.name for b in engine.blocks for n in b.latents}
    coupled = any(len({own[n] for n in latents}) > 1 for latents in engine.together)
    return all(b.is_conjugate for b in engine.blocks) and not coupled


def _make_engine(problem: Problem, layout: Layout) -> Engine:
    template = default_factors(problem, layout)
    compiled = compile_sites(problem, template, layout.own, layout.drawn)
    shapes = jax.eval_shape(compiled, problem.arrays)
    blocks = make_blocks(layout, template, shapes)
    run = jax.jit(functools.partial(sweep, blocks=blocks))
    methods = tuple((name, c.method) for name, c in shapes.items())
    together = frozenset(t.latents for c in shapes.values() for t in c.terms)
    return Engine(jax.jit(compiled), run, jax.jit(elbo), blocks, methods, together)


def ascend(
    problem: Problem, layout: Layout, seed: int, watch: Watch, tolerance: float = 1e-6,
    max_sweeps: int = 1000, restarts: int | None = None, start: dict[str, Any] | None = None,
) -> Ascent:  # fmt: skip
    """Raise the ELBO block by block until the sweeps to come promise less than ``tolerance``.

    Args:
        problem: what is to be inferred.
        layout: the factors.
        seed: of the starts.
        watch: ends the ascent early.
        tolerance: nats that are left, as extrapolated from the last sweeps.
        max_sweeps: largest number of sweeps.
        restarts: starts that are tried; None chooses (several where labels can be permuted).
        start: factors to begin from, instead.

    Raises:
        SolverError: if an update lowered the ELBO, which would be a fault of its rule.
    """
    began = time.perf_counter()
    with double_precision():
        engine = engine_of(problem, layout)
        sites = engine.fold(problem.arrays)
        q = start or first_factors(problem, layout, sites, engine.blocks)
        steps = {b.name: np.float64(1.0) for b in engine.blocks if not b.is_conjugate}
        jax.block_until_ready(engine.run(q, sites, steps)[2])
        seconds = time.perf_counter() - began
        if start is None:
            q = _best_start(problem, q, sites, engine, steps, seed, restarts, watch)
        q, history, status = _climb(q, sites, engine, steps, watch, tolerance, max_sweeps)
    return Ascent(q, sites, engine.blocks, history[-1], tuple(history), status, seconds)


def _climb(
    q: Any, sites: Any, engine: Engine, steps: Any, watch: Watch, tolerance: float, max_sweeps: int
) -> tuple[Any, list[float], Status]:
    history, status = [float(engine.bound(q, sites))], Status.MAX_STEPS
    for _ in range(max_sweeps):
        if watch.over:
            status = Status.INTERRUPTED if watch.interrupted else Status.BUDGET
            break
        new, steps, bound = engine.run(q, sites, steps)
        bound = float(bound)
        if not np.isfinite(bound):
            status = Status.NONFINITE
            break
        if bound < history[-1] - ROUNDING * (1.0 + abs(bound)):
            _blame(q, sites, engine)
        history.append(bound)
        q = new
        watch.report("coordinate ascent", ELBO=bound)
        if _is_converged(history, tolerance):
            status = Status.CONVERGED
            break
    return q, history, status


def _is_converged(history: list[float], tolerance: float) -> bool:
    """Whether the geometric series of gains to come adds up to less than ``tolerance``."""
    if len(history) < 3:
        return False
    last, before = history[-1] - history[-2], history[-2] - history[-3]
    rounding = 1e-13 * (1.0 + abs(history[-1]))
    if last <= rounding:
        return True
    rate = min(last / before, 0.999) if before > 0 else 0.999
    return last * rate / (1.0 - rate) < tolerance and last < tolerance


def _blame(q: Any, sites: Any, engine: Engine) -> None:
    """Say which block's update lowers the ELBO."""
    before = float(engine.bound(q, sites))
    for block in engine.blocks:
        if not block.is_conjugate:
            continue
        new, _ = updated(q, block, sites)
        q = {**q, block.name: new}
        after = float(engine.bound(q, sites))
        if not after >= before - ROUNDING * (1.0 + abs(after)):
            raise SolverError(
                f"the update of the block '{block.name}' lowered the ELBO from {before:.10g} to {after:.10g}; "
                "coordinate ascent cannot do that, so please report it. "
                "solver=taut.solvers.FixedDraws() fits without this rule"
            )
        before = after


# --- starts -------------------------------------------------------------------------------------


def first_factors(
    problem: Problem, layout: Layout, sites: dict[str, Compiled], blocks: tuple[Block, ...]
) -> dict[str, Any]:
    """Factors set to their priors, in the order of the model."""
    q = default_factors(problem, layout)
    order = {s.name: i for i, s in enumerate(problem.latents)}
    for block in sorted(blocks, key=lambda b: order.get(b.latents[0], len(order))):
        own = tuple(s for s in block.sites if s in block.latents)
        if isinstance(q[block.name], AbstractDiscrete) or not own:
            continue
        new, proper = jax.jit(updated, static_argnums=1)(
            q, dataclasses.replace(block, sites=own), touching(sites, block.latents)
        )
        if bool(proper) and all(np.isfinite(x).all() for x in jax.tree.leaves(new)):
            q[block.name] = new
    return q


def _best_start(
    problem: Problem, q: dict[str, Any], sites: Any, engine: Engine, steps: Any, seed: int,
    restarts: int | None, watch: Watch,
) -> dict[str, Any]:  # fmt: skip
    """The start that is highest after a few sweeps."""
    symmetric = any(isinstance(f, AbstractDiscrete) for f in q.values()) or _is_bilinear(q, engine)
    count = restarts if restarts is not None else (4 if symmetric else 1)
    if not symmetric:
        return q
    best, highest = q, -np.inf
    for number in range(count):
        rng = np.random.default_rng((seed, 11, number))
        trial, own = perturbed(problem, q, rng), steps
        bound: Any = -np.inf
        for _ in range(TRIAL_SWEEPS):
            if watch.over:
                break
            trial, own, bound = engine.run(trial, sites, own)
        watch.report("starts", number=number + 1, ELBO=float(bound))
        if float(bound) > highest:
            best, highest = trial, float(bound)
    return best


def _is_bilinear(q: dict[str, Any], engine: Engine) -> bool:
    """Whether blocks multiply each other, so that zero means are a saddle point."""
    gaussians = [b for b in engine.blocks if isinstance(q[b.name], Gaussian)]
    return any(
        set(a.sites) & set(b.sites) - {*a.latents, *b.latents}
        for a in gaussians for b in gaussians if a is not b
    )  # fmt: skip


def perturbed(problem: Problem, q: dict[str, Any], rng: np.random.Generator) -> dict[str, Any]:
    """Break the symmetry between components: random means, data-driven responsibilities."""
    found = {}
    for name, factor in q.items():
        if isinstance(factor, Gaussian):
            sd = np.sqrt(np.einsum("bii->bi", np.asarray(factor.covariance)))
            noise = np.minimum(sd, 1.0) * rng.standard_normal(sd.shape)
            found[name] = dataclasses.replace(factor, mean=factor.mean + 0.5 * noise)
        elif isinstance(factor, AbstractDiscrete):
            probs = seeding.responsibilities(problem, name, factor.probs.shape, rng)
            found[name] = seeding.centred_on(factor, probs)
        else:
            found[name] = seeding.jittered(factor, rng)
    return found
