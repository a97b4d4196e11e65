r"""Quadrature nodes that follow a gamma or beta distribution.

The trapezoid rule converges exponentially for analytic integrands that vanish at both ends. It is
applied in log x or logit x, with tails that are merely exponential (left of log x when the
concentration is small) squeezed by :math:`u = z + 1 - e^{-z}`, as in double-exponential
quadrature (Takahasi and Mori 1974). Nodes carry no gradient. The logarithms of their weights are
linear in the natural parameter, exactly, so probabilities have exact derivatives of any order.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.lax import stop_gradient
from jaxtyping import Array, Float

REACH = 37.0  # nats below the mode at which a grid ends
NEWTON_STEPS = 5
MAX_EXPONENT = 50.0

Real = Float[Array, "..."]


class Nodes(NamedTuple):
    """Points and their probabilities, both (num_points, *shape)."""

    points: Array
    probs: Array


def _spread(
    ends: tuple[Array, Array], tails: tuple[Array | float, Array | float], num_points: int
) -> tuple[Array, Array]:
    """Points u between ends around zero, dense at zero, and the log of their spacing.

    They are evenly spaced in z, where u = z + left (1 - exp(-z)) + right (exp(z) - 1), with left
    and right the weights of the tails that are squeezed.
    """
    left, right = tails

    def u_of(z: Array) -> Array:
        return z - left * jnp.expm1(-z) + right * jnp.expm1(z)

    def slope_of(z: Array) -> Array:
        return 1.0 + left * jnp.exp(-z) + right * jnp.exp(z)

    # Newton's method from outside the ends.
    tiny = jnp.finfo(ends[0].dtype).tiny
    low = -jnp.minimum(-ends[0], jnp.log1p(-ends[0] / jnp.maximum(left, tiny)))
    high = jnp.minimum(ends[1], jnp.log1p(ends[1] / jnp.maximum(right, tiny)))
    for _ in range(NEWTON_STEPS):
        low = low - (u_of(low) - ends[0]) / slope_of(low)
        high = high - (u_of(high) - ends[1]) / slope_of(high)
    z = jnp.linspace(low, high, num_points)
    return u_of(z), jnp.log(slope_of(z) * (high - low))


def gamma_nodes(concentration: Real, rate: Real, num_points: int) -> Nodes:
    """Nodes for E[f(x)], x ~ Gamma(concentration, rate), of any shape."""
    a, b = stop_gradient((concentration, rate))
    y = jnp.sqrt(2.0 * REACH / a)
    mode = -jnp.log1p(0.5 / a)  # relative to the centre, at x = (a + 1/2) / b
    # Both ends lie at least REACH nats below the mode: e^u - 1 - u >= y^2/2 at them.
    left, right = mode - y - y**2 / 2.0, mode + jnp.log1p(y + y**2 / 2.0)
    u, log_spacing = _spread((left, right), (1.0, 0.0), num_points)
    centre = (a + 0.5) / b
    base = a * (u - jnp.expm1(u)) - 0.5 * jnp.expm1(u) + log_spacing
    score = (concentration - a) * u - (rate - b) * centre * jnp.expm1(u)  # zero; has a gradient
    points = jnp.clip(centre * jnp.exp(u), jnp.finfo(u.dtype).tiny)
    return Nodes(points, jax.nn.softmax(base + score, axis=0))


def beta_nodes(concentration1: Real, concentration0: Real, num_points: int) -> Nodes:
    """Nodes for E[f(x)], x ~ Beta(concentration1, concentration0), of any shape."""
    a, b = stop_gradient((concentration1, concentration0))
    centre, cocentre = (a + 0.5) / (a + b + 1.0), (b + 0.5) / (a + b + 1.0)
    mode = jnp.log1p(0.5 / b) - jnp.log1p(0.5 / a)
    left, right = mode - _beta_reach(b, a), mode + _beta_reach(a, b)
    tails = 1.0 / (1.0 + a), 1.0 / (1.0 + b)  # a large concentration cuts its tail off
    u, log_spacing = _spread((left, right), tails, num_points)
    log_x, log_1mx = _log_ratios(u, centre, cocentre)
    base = a * log_x + b * log_1mx + log_spacing
    score = (concentration1 - a) * log_x + (concentration0 - b) * log_1mx
    info = jnp.finfo(u.dtype)
    points = jnp.clip(centre * jnp.exp(log_x), info.tiny, 1.0 - info.epsneg)
    return Nodes(points, jax.nn.softmax(base + score, axis=0))


def _log_ratios(u: Array, centre: Array, cocentre: Array) -> tuple[Array, Array]:
    """log(x / centre) and log((1 - x) / (1 - centre)) at logit x = logit(centre) + u.

    Of two forms the one that keeps the digits of the smaller of x and 1 - x, unless it overflows.
    """
    by_x = jnp.where(centre <= 0.5, u < MAX_EXPONENT, u < -MAX_EXPONENT)
    v = jnp.where(by_x, u, -u)
    rest = jnp.log1p(jnp.where(by_x, centre, cocentre) * jnp.expm1(v))
    return jnp.where(by_x, u, 0.0) - rest, jnp.where(by_x, 0.0, -u) - rest


def _beta_reach(a: Array, b: Array) -> Array:
    """Distance right of the mode, in logit x, at which the log density has fallen by REACH.

    Newton's method on a convex function from the right: what is left of the error widens.
    """
    total = a + b
    mode = jnp.log(a) - jnp.log(b)
    y = jnp.sqrt(2.0 * REACH * (1.0 / a + 1.0 / b))
    u = jnp.minimum(y + y**2 / 2.0, (REACH + total * jnp.log1p(b / a)) / b)
    for _ in range(NEWTON_STEPS):
        end = mode + u
        fall = a * (jax.nn.softplus(-end) - jax.nn.softplus(-mode))
        fall = fall + b * (jax.nn.softplus(end) - jax.nn.softplus(mode))
        slope = total * (jax.nn.sigmoid(end) - a / total)
        u = u - jnp.clip((fall - REACH) / slope, 0.0, u / 2.0)
    return u
