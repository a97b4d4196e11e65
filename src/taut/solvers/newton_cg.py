"""Trust-region Newton-CG on the ELBO of fixed draws, for any reparameterised Gaussian family."""

import functools
from typing import TYPE_CHECKING, Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from taut._core.precision import double_precision
from taut._core.progress import Watch
from taut._core.status import Status
from taut.expectation import fixed_normals
from taut.families import AbstractFamily, AbstractForm, DenseGaussian, DiagonalGaussian
from taut.families.gaussian import LOG_2PI
from taut.problem.evaluator import Evaluator
from taut.solvers.base import Solution
from taut.solvers.start import Start

if TYPE_CHECKING:
    from taut.solvers.fixed_draws import FixedDraws

MAX_CG = 60
MIN_DRAWS = 64
ACCEPT, SHRINK, GROW = 1e-4, 0.25, 0.75


def _loss(form: AbstractForm, program: Any, lanes: int, params: Any, noise: Any, prepared: Any) -> Any:
    """Negative ELBO on fixed draws, nats."""
    points, log_det = form.draws(params, noise)
    values = jax.lax.map(lambda u: program.log_joint(u, prepared), points, batch_size=min(lanes, len(noise)))
    return -(values.mean() + 0.5 * form.dim * (1.0 + LOG_2PI) + log_det)


@functools.partial(jax.jit, static_argnums=(0, 1, 2))
def _value_grad(form: Any, program: Any, lanes: int, params: Any, noise: Any, prepared: Any) -> Any:
    return jax.value_and_grad(_loss, 3)(form, program, lanes, params, noise, prepared)


class _Step(NamedTuple):
    step: Any
    predicted: Any
    boundary: Any


@functools.partial(jax.jit, static_argnums=(0, 1, 2))
def _steihaug(
    form: Any, program: Any, lanes: int, params: Any, noise: Any, prepared: Any, gradient: Any, scale: Any, radius: Any
) -> _Step:
    """Steihaug's truncated conjugate gradients, preconditioned by ``scale`` (Nocedal and Wright, 7.2)."""
    value_grad = jax.grad(lambda p: _loss(form, program, lanes, p, noise, prepared))

    def hessian(v: Any) -> Any:  # in preconditioned coordinates
        return scale * jax.jvp(value_grad, (params,), (scale * v,))[1]

    g = scale * gradient
    tolerance = jnp.minimum(0.5, jnp.sqrt(jnp.linalg.norm(g))) * jnp.linalg.norm(g)

    def to_boundary(s: Any, d: Any) -> Any:
        a, b, c = d @ d, 2 * (s @ d), s @ s - radius**2
        return s + d * (-b + jnp.sqrt(jnp.maximum(b * b - 4 * a * c, 0.0))) / (2 * a)

    def body(carry: Any) -> Any:
        s, r, d, hs, count, _, _ = carry
        hd = hessian(d)
        curve = d @ hd
        alpha = (r @ r) / curve
        ahead = s + alpha * d
        leave = (curve <= 0) | (jnp.linalg.norm(ahead) >= radius)
        edge = to_boundary(s, d)
        new_s = jnp.where(leave, edge, ahead)
        fraction = ((new_s - s) @ d) / (d @ d)
        new_r = r + alpha * hd
        beta = (new_r @ new_r) / (r @ r)
        done = leave | (jnp.linalg.norm(new_r) < tolerance)
        return new_s, new_r, -new_r + beta * d, hs + fraction * hd, count + 1, done, leave

    start = (jnp.zeros_like(g), g, -g, jnp.zeros_like(g), 0, jnp.linalg.norm(g) == 0.0, False)
    s, _, _, hs, _, _, leave = jax.lax.while_loop(lambda c: (~c[5]) & (c[4] < MAX_CG), body, start)
    return _Step(scale * s, -(g @ s + 0.5 * s @ hs), leave)


def maximise_on_fixed_draws(
    settings: "FixedDraws", evaluator: Evaluator, family: AbstractFamily, start: Start, seed: int, watch: Watch
) -> Solution:
    """Fit any family by trust-region Newton-CG on its deterministic ELBO.

    Each step costs up to ``MAX_CG`` Hessian-vector products of ``num_draws`` draws; memory
    O(num_draws d). Converged when the step inside the region promises less than the tolerance.

    Source:
        Giordano, Ingram and Broderick (2024), "Black box variational inference with a
        deterministic objective", JMLR 25, with scrambled Sobol draws instead of independent ones.
    """
    form = family.bind(evaluator.problem.latents)
    q = (
        DenseGaussian.from_root(start.mean, start.root)
        if start.root.ndim == 2
        else DiagonalGaussian(start.mean, start.root)
    )
    params = form.initial(q)
    num_draws = settings.num_draws or MIN_DRAWS
    history: list[float] = []
    with double_precision():
        for refresh in range(2):  # the second set of draws, four times as many, removes the first one's bias
            noise = fixed_normals(num_draws * 4**refresh, form.noise_dim, seed + refresh)
            before = params
            params, status, path = _newton(settings, evaluator, form, params, noise, watch)
            history += path if refresh == 0 else path[1:]
            if watch.over or not status.ok:
                break
    fitted = form.gaussian(params)
    shift = np.abs(form.gaussian(before).mean - fitted.mean) / fitted.sd
    return Solution(fitted, history[-1], status, tuple(history), float(shift.max()))


def _newton(
    settings: "FixedDraws", evaluator: Evaluator, form: AbstractForm, params: np.ndarray, noise: np.ndarray, watch: Watch
) -> tuple[np.ndarray, Status, list[float]]:
    fixed = (form, evaluator.problem.program, evaluator.lanes)
    rest = (noise, evaluator.prepared)
    value, gradient = (np.asarray(x) for x in _value_grad(*fixed, params, *rest))
    history, radius, status = [-float(value)], 4.0 * np.sqrt(form.dim), Status.MAX_STEPS
    if not np.isfinite(value):
        return params, Status.NONFINITE, history
    for _ in range(settings.max_steps):
        if watch.over:
            return params, Status.INTERRUPTED if watch.interrupted else Status.BUDGET, history
        scale = np.concatenate([form.gaussian(params).sd, np.ones(len(params) - form.dim)])
        step, predicted, boundary = _steihaug(*fixed, params, *rest, gradient, scale, radius)
        evaluator.num_gradients += len(noise)
        trial = params + np.asarray(step)
        new_value, new_gradient = (np.asarray(x) for x in _value_grad(*fixed, trial, *rest))
        ratio = float((value - new_value) / predicted) if predicted > 0 and np.isfinite(new_value) else -np.inf
        if float(predicted) < settings.tolerance * 0.1 and not boundary:
            if ratio > 0:
                params, value = trial, new_value
                history.append(-float(value))
            return params, Status.CONVERGED, history
        if ratio < SHRINK:
            radius *= 0.25
        elif ratio > GROW and boundary:
            radius *= 2.0
        if ratio > ACCEPT:
            params, value, gradient = trial, new_value, new_gradient
            history.append(-float(value))
            watch.report("Newton-CG", ELBO=-float(value), predicted=float(predicted))
        elif radius < 1e-8:
            return params, Status.STALLED, history
    return params, status, history
