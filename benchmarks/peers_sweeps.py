"""taut's coordinate ascent as a thing to be timed: set up once, then one sweep at a time."""

import time
from collections.abc import Callable
from typing import Any

import numpy as np

Factors = dict[str, Any]


class Sweeps:
    """Coordinate ascent of one model and data set.

    Attributes:
        q: factors set to their priors.
        setup: seconds for reading the model, folding the data and compiling.
        precision: context in which factors are made.
    """

    def __init__(self, model: Callable[..., Any], data: dict[str, Any], blocks: Any = None) -> None:
        import jax

        from taut._core.precision import double_precision
        from taut.problem import describe
        from taut.solvers.ascent import engine_of, first_factors
        from taut.solvers.structure import choose_layout

        began = time.perf_counter()
        self.precision = double_precision
        problem = describe(model, data)
        with double_precision():
            layout = choose_layout(problem, blocks)
            self._engine = engine_of(problem, layout)
            self._sites = self._engine.fold(problem.arrays)
            self.q = first_factors(problem, layout, self._sites, self._engine.blocks)
            self._steps = {
                b.name: np.float64(1.0) for b in self._engine.blocks if not b.is_conjugate
            }
            float(self._engine.run(self.q, self._sites, self._steps)[2])
        self._repeat = jax.jit(self._updates, static_argnums=2)
        self.setup = time.perf_counter() - began

    def sweep(self, q: Factors) -> tuple[Factors, float]:
        """The factors after one sweep, and the ELBO in nats."""
        with self.precision():
            q, self._steps, bound = self._engine.run(q, self._sites, self._steps)
            return q, float(bound)

    def repeat(self, q: Factors, names: tuple[str, ...], count: int) -> Factors:
        """The factors after so many updates of some blocks in turn."""
        with self.precision():
            return self._repeat(q, self._sites, names, count)

    def _updates(self, q: Factors, sites: Any, names: tuple[str, ...], count: int) -> Factors:
        import jax

        from taut.solvers.blocks import updated

        blocks = {b.name: b for b in self._engine.blocks}

        def body(_: int, q: Factors) -> Factors:
            for name in names:
                q = {**q, name: updated(q, blocks[name], sites)[0]}
            return q

        return jax.lax.fori_loop(0, count, body, q)


class Stopwatch:
    """Wall and processor seconds of what is done inside."""

    wall = cpu = 0.0

    def __enter__(self) -> "Stopwatch":
        self._began = time.perf_counter(), time.process_time()
        return self

    def __exit__(self, *_: object) -> None:
        self.wall += time.perf_counter() - self._began[0]
        self.cpu += time.process_time() - self._began[1]
