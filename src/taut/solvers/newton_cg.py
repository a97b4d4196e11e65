"""Trust-region Newton-CG on the ELBO of fixed draws, for any reparameterised Gaussian family."""

import functools
from typing import TYPE_CHECKING, Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from taut._core.errors import ArgumentError
from taut._core.precision import double_precision
from taut._core.progress import Watch
from taut._core.status import Status
from taut.expectation import matched_normals
from taut.families import AbstractFamily, AbstractForm, AbstractGaussianFamily
from taut.families.gaussian import LOG_2PI
from taut.problem.evaluator import Evaluator
from taut.solvers.base import Solution, gaussian_of
from taut.solvers.start import Start

if TYPE_CHECKING:
    from taut.solvers.fixed_draws import FixedDraws

MAX_CG = 60
MIN_DRAWS = 64
MAX_HALVINGS = 20
CHEAP = 2**22  # numbers that the gradients of one step touch
UNKNOWN_ERROR = 1e3  # of the mean, where no second set of draws was tried
ACCEPT, SHRINK, GROW = 1e-4, 0.25, 0.75


def _loss(
    form: AbstractForm, program: Any, lanes: int, params: Any, noise: Any, prepared: Any
) -> Any:
    """Negative ELBO on fixed draws, nats."""
    points, log_det = form.draws(params, noise)
    values = jax.lax.map(
        lambda u: program.log_joint(u, prepared), points, batch_size=min(lanes, len(noise))
    )
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
    form: Any, program: Any, lanes: int, params: Any, noise: Any, prepared: Any,
    gradient: Any, scale: Any, radius: Any,
) -> _Step:  # fmt: skip
    """Steihaug's truncated conjugate gradients (Nocedal and Wright, 7.2), scaled by ``scale``."""
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
    settings: "FixedDraws",
    evaluator: Evaluator,
    family: AbstractFamily,
    start: Start,
    seed: int,
    watch: Watch,
) -> Solution:
    """Fit any family by trust-region Newton-CG on its deterministic ELBO.

    Each step costs up to ``MAX_CG`` Hessian-vector products of ``num_draws`` draws; memory
    O(num_draws d). Converged when the step inside the region promises less than the tolerance.

    Source:
        Giordano, Ingram and Broderick (2024), "Black box variational inference with a
        deterministic objective", JMLR 25, with scrambled Sobol draws instead of independent ones.
    """
    if not isinstance(family, AbstractGaussianFamily):
        raise ArgumentError(
            f"fixed draws fit Gaussian families, got {family.describe()}; use solver=None or solvers.Natural()"
        )
    form = family.bind(evaluator.problem.latents)
    params = form.initial(gaussian_of(start))
    num_draws = max(settings.num_draws or MIN_DRAWS, 2 * form.width + 2)
    # Compiling for two numbers of draws takes longer than cheap gradients of the larger one.
    first = 4 * num_draws if evaluator.cost * num_draws < CHEAP else num_draws
    noise = matched_normals(first, form.noise_dim, seed)
    with double_precision():
        params, status, path = _newton(settings, evaluator, form, params, noise, watch)
        elbo, history, error = path[-1], path, UNKNOWN_ERROR
        if status.ok and not watch.over:  # other draws show the first ones' error
            noise = matched_normals(4 * num_draws, form.noise_dim, seed + 1)
            new, new_status, path = _newton(settings, evaluator, form, params, noise, watch)
            if np.isfinite(path[-1]):
                before = form.gaussian(params).mean
                params, status, elbo, history = new, new_status, path[-1], history + path[1:]
                error = float(
                    np.max(np.abs(form.gaussian(params).mean - before) / form.gaussian(params).sd)
                )
    return Solution(form.gaussian(params), elbo, status, tuple(history), error)


def _made_finite(loss: Any, form: AbstractForm, params: np.ndarray) -> tuple[np.ndarray, Any, Any]:
    """Narrow q until all of its draws have a density; the loss and gradient there."""
    value, gradient = (np.asarray(x) for x in loss(params))
    for _ in range(MAX_HALVINGS):
        if np.isfinite(value) and np.isfinite(gradient).all():
            break
        params = form.scaled(params, 0.5)
        value, gradient = (np.asarray(x) for x in loss(params))
    return params, value, gradient


def _newton(
    settings: "FixedDraws",
    evaluator: Evaluator,
    form: AbstractForm,
    params: np.ndarray,
    noise: np.ndarray,
    watch: Watch,
) -> tuple[np.ndarray, Status, list[float]]:
    fixed = (form, evaluator.problem.program, evaluator.lanes)
    rest = (noise, evaluator.prepared)
    params, value, gradient = _made_finite(lambda p: _value_grad(*fixed, p, *rest), form, params)
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
        finite = np.isfinite(new_value) and np.isfinite(new_gradient).all()
        ratio = float((value - new_value) / predicted) if predicted > 0 and finite else -np.inf
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
