r"""Free-form factors of scalar latents: a density tabulated on points.

With points :math:`x_g` and their spacings :math:`\Delta_g`, a log density
:math:`\ell_g` gives the probabilities :math:`p_g \propto \Delta_g e^{\ell_g}`. An expected log joint
is linear in them, :math:`F = \sum_g p_g f_g`, and the entropy is
:math:`\sum_g p_g (\log \Delta_g - \log p_g)`; setting the derivative of their sum to a constant gives
:math:`\ell_g = f_g = \partial F / \partial p_g`. So with the log density as natural parameter and the
probabilities as mean parameter, the update is that of any other factor; spacings enter only where
the first is turned into the second.
"""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array
from typing_extensions import override

from taut._core.errors import ArgumentError
from taut.expectation.factor import AbstractContinuous, Parameters
from taut.families.categorical import masked_product, softmax_solve
from taut.families.factors import Number, all_true, build, is_concrete, positive
from taut.families.nodes import Nodes

DEPTH = 40.0  # nats below the mode at which a refitted grid ends
MAX_GROWTH = 2.0  # of the range, in one refit


class Grid(AbstractContinuous):
    """A free-form density of each element on fixed points.

    The entropy and all moments are sums over the points. They are exact to rounding when the density
    is smooth, ends in negligible tails and has a few points per standard deviation on points that
    are even, or that are a smooth function x(z) of even z with ``spacing`` dx/dz times the step;
    with trapezoid spacings the error is of second order there.

    Args:
        points: strictly increasing over the first axis, shape (G, ...), G at least 2.
        log_weights: log density at the points, up to a constant per element; no spacing inside.
        spacing: quadrature weights of the points, positive; those of the trapezoid rule where None.
    """

    natural: Parameters
    mean: Parameters
    points: Array
    spacing: Array
    is_positive: bool = eqx.field(static=True)

    def __init__(self, points: Any, log_weights: Any, spacing: Any = None) -> None:
        points, logs = jnp.asarray(points, dtype=float), jnp.asarray(log_weights, dtype=float)
        if points.ndim == 0 or len(points) < 2:
            raise ArgumentError(
                f"Grid.points must have two or more points, got shape {points.shape}; try 100"
            )
        if is_concrete(points) and not np.all(np.asarray(points)[1:] > np.asarray(points)[:-1]):
            raise ArgumentError(
                "Grid.points must be strictly increasing over the first axis, got points that are "
                "not; sort them and drop repetitions"
            )
        if logs.ndim == 0 or len(logs) != len(points):
            raise ArgumentError(
                f"Grid.log_weights must have one value per point, got shape {logs.shape} for points "
                f"of shape {points.shape}; evaluate the log density at the points"
            )
        shape = np.broadcast_shapes(points.shape[1:], logs.shape[1:])
        if spacing is None:
            gaps = jnp.diff(points, axis=0)
            spacing = 0.5 * jnp.concatenate([gaps[:1], gaps[1:] + gaps[:-1], gaps[-1:]])
        padded = _padded(points, shape), _padded(positive("Grid.spacing", spacing), shape)
        made = self.from_natural((_padded(logs, shape),), *padded)
        self.natural, self.mean = made.natural, made.mean
        self.points, self.spacing, self.is_positive = padded[0], padded[1], made.is_positive

    @classmethod
    @override
    def from_natural(
        cls, natural: Parameters, points: Array | None = None, spacing: Array | None = None
    ) -> "Grid":
        if points is None or spacing is None:
            raise ArgumentError(
                "Grid.from_natural must be given points and spacing, got None; "
                "use with_natural of a Grid"
            )
        probs = jax.nn.softmax(natural[0] + jnp.log(spacing), axis=0)
        is_positive = is_concrete(points) and bool(np.all(np.asarray(points) > 0.0))
        fields = {"points": points, "spacing": spacing, "is_positive": is_positive}
        return build(cls, natural=natural, mean=(probs,), **fields)

    @property
    @override
    def kind(self) -> str:
        return "positive" if self.is_positive else "signed"

    def with_natural(self, natural: Parameters) -> "Grid":
        """The member on the same points with this log density."""
        made = self.from_natural(natural, self.points, self.spacing)
        fields = {"points": self.points, "spacing": self.spacing, "is_positive": self.is_positive}
        return build(type(self), natural=natural, mean=made.mean, **fields)

    @property
    def probs(self) -> Array:
        """Probabilities of the points, shape (G, ...); the mean parameter."""
        return self.mean[0]

    @property
    def log_density(self) -> Array:
        """Log density at the points, normalised by their spacings, shape (G, ...)."""
        logs = self.natural[0]
        return logs - jax.nn.logsumexp(logs + jnp.log(self.spacing), axis=0)

    @property
    @override
    def shape(self) -> tuple[int, ...]:
        return self.points.shape[1:]

    @override
    def is_proper(self) -> Array:
        logs = self.natural[0]
        return all_true(~jnp.isnan(logs), jnp.isfinite(jnp.max(logs, axis=0)))

    @override
    def gradient(self, cotangent: Any) -> Parameters:
        return (cotangent.mean[0] + softmax_solve(self.mean[0], cotangent.natural[0]),)

    @property
    @override
    def entropy(self) -> Array:
        return -jnp.sum(masked_product(self.mean[0], self.log_density))

    @override
    def log_prob(self, value: Array) -> Array:
        """Log density, linear between the points and normalised as such, summed; -inf outside."""
        points, logs = _columns(self.points), _columns(self._continuous)
        each = jax.vmap(_interpolated)(jnp.ravel(value), points, logs)
        return jnp.sum(each)

    @override
    def sample(self, key: Array, num_draws: int) -> Array:
        """Draws by the inverse of the cdf that belongs to :meth:`log_prob`."""
        points, logs = _columns(self.points), _columns(self._continuous)
        uniform = jax.random.uniform(key, (len(points), num_draws), points.dtype)
        draws = jax.vmap(_inverse_cdf)(uniform, points, logs)
        return draws.T.reshape(num_draws, *self.shape)

    @property
    def _continuous(self) -> Array:
        """Log density at the points, normalised for straight lines between them."""
        logs = self.natural[0] - jnp.max(self.natural[0], axis=0)
        return logs - jnp.log(jnp.sum(_cell_masses(self.points, logs), axis=0))

    @override
    def moment(self, power: Number, logs: int, copower: Number, cologs: int) -> Array | None:
        """Any moment, as a sum over the points: linear in the mean parameter."""
        x, value = self.points, jnp.ones_like(self.points)
        value = value * x**power if power else value
        value = value * jnp.log(x) ** logs if logs else value
        value = value * (1.0 - x) ** copower if copower else value
        value = value * jnp.log1p(-x) ** cologs if cologs else value
        return jnp.sum(self.mean[0] * value, axis=0)

    @override
    def grid(self, num_points: int) -> Nodes:
        """The grid itself, whatever the number of points asked for."""
        return Nodes(self.points, self.mean[0])

    def refit(
        self, num_points: int | None = None, low: float = -np.inf, high: float = np.inf
    ) -> "Grid":
        """Move the points to where the mass is and carry the log density over.

        Points cover all that lies less than 40 nats below the mode, twice as dense at the centre
        as far from it; beyond the old points the log density goes on in straight lines. With
        bounds the points are spread over log(x - low), or the logit. Runs in NumPy, not under jit.

        Args:
            num_points: of the new grid; as many as before where None.
            low: lower end of the support; if finite, ``high`` may be finite too.
            high: upper end of the support.

        Returns:
            A grid of the same shape.
        """
        num_points, support = num_points or len(self.points), (float(low), float(high))
        columns = zip(_columns(self.points), _columns(self.natural[0]), strict=True)
        made = [_refit(np.asarray(x), np.asarray(l), num_points, support) for x, l in columns]
        shape = (num_points, *self.shape)
        parts = (np.stack(part, axis=1).reshape(shape) for part in zip(*made, strict=True))
        return Grid(*parts)


def _padded(x: Array, shape: tuple[int, ...]) -> Array:
    """Broadcast all axes but the first."""
    x = x.reshape(len(x), *(1,) * (len(shape) + 1 - x.ndim), *x.shape[1:])
    return jnp.broadcast_to(x, (len(x), *shape))


def _columns(x: Array) -> Array:
    """Shape (G, ...) to (elements, G)."""
    return x.reshape(len(x), -1).T


# --- a log density that is linear between points ----------------------------------------------


def _cell_masses(points: Array, logs: Array) -> Array:
    """Integral of the density over each cell."""
    rise = jnp.diff(logs, axis=0)
    # Integral of exp(top - |rise| t) over t in (0, 1), with its series near |rise| = 0.
    size = jnp.abs(rise)
    small = size < 1e-4
    safe = jnp.where(small, 1.0, size)
    mean = jnp.where(small, 1.0 - size / 2.0 + size**2 / 6.0, -jnp.expm1(-safe) / safe)
    return jnp.diff(points, axis=0) * jnp.exp(jnp.maximum(logs[1:], logs[:-1])) * mean


def _interpolated(x: Array, points: Array, logs: Array) -> Array:
    """Log density of one element at one value."""
    i = jnp.clip(jnp.searchsorted(points, x, side="right") - 1, 0, len(points) - 2)
    share = (x - points[i]) / (points[i + 1] - points[i])
    inside = (x >= points[0]) & (x <= points[-1])
    return jnp.where(inside, logs[i] + share * (logs[i + 1] - logs[i]), -jnp.inf)


def _inverse_cdf(uniform: Array, points: Array, logs: Array) -> Array:
    """Draws of one element."""
    masses = _cell_masses(points, logs)
    cdf = jnp.concatenate([jnp.zeros_like(masses[:1]), jnp.cumsum(masses)])
    uniform = uniform * cdf[-1]
    i = jnp.clip(jnp.searchsorted(cdf, uniform, side="right") - 1, 0, len(masses) - 1)
    share = jnp.clip((uniform - cdf[i]) / masses[i], 0.0, 1.0)
    rise = logs[i + 1] - logs[i]
    # Solve expm1(rise t) = share expm1(rise), from the end at which the density is larger.
    size, near = jnp.abs(rise), jnp.where(rise > 0, 1.0 - share, share)
    safe = jnp.where(size < 1e-6, 1.0, size)
    bent = jnp.where(size < 1e-6, near, -jnp.log1p(near * jnp.expm1(-safe)) / safe)
    bent = jnp.clip(jnp.where(rise > 0, 1.0 - bent, bent), 0.0, 1.0)
    return points[i] + bent * (points[i + 1] - points[i])


# --- moving the points (NumPy) ----------------------------------------------------------------


def _refit(
    points: np.ndarray, logs: np.ndarray, num_points: int, support: tuple[float, float]
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """New points, log density and spacing of one element."""
    from scipy.interpolate import PchipInterpolator  # slow to import

    z = _unbounded(points, support)
    held = np.isfinite(logs) & np.isfinite(z)
    z, density = z[held], logs[held] + _log_slope(z[held], support)
    z, density = _extended(z, density - density.max())
    curve = PchipInterpolator(z, density)
    fine = np.linspace(z[0], z[-1], 20 * len(points))
    fine_density = curve(fine)
    active = fine[fine_density > fine_density.max() - DEPTH]
    weights = np.exp(fine_density - fine_density.max())
    centre = np.average(fine, weights=weights)
    width = np.sqrt(np.average((fine - centre) ** 2, weights=weights))
    width = 5.0 * (width + 1e-12 * (fine[-1] - fine[0]))
    ends = np.clip(active[[0, -1]] + (fine[1] - fine[0]) * np.array([-1.0, 1.0]), z[0], z[-1])
    first, last = np.arcsinh((ends - centre) / width)
    even = np.linspace(first, last, num_points)
    new = np.clip(centre + width * np.sinh(even), z[0], z[-1])
    slope = _log_slope(new, support)
    spacing = width * np.cosh(even) * (even[1] - even[0]) * np.exp(slope)
    spacing[[0, -1]] /= 2.0
    return _bounded(new, support), curve(new) - slope, spacing


def _extended(z: np.ndarray, density: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Add straight tails where the mass reaches the ends, at most MAX_GROWTH ranges long."""
    reach = MAX_GROWTH * (z[-1] - z[0])
    for _ in range(2):  # one end, then, mirrored, the other
        slope = (density[-1] - density[-2]) / (z[-1] - z[-2])
        missing = DEPTH + density[-1] - density.max()
        if missing > 0:
            length = min(missing / max(-slope, 1e-300), reach)
            more = length * np.linspace(0.0, 1.0, 9)[1:]
            z = np.append(z, z[-1] + more)
            density = np.append(density, density[-1] + min(slope, 0.0) * more)
        z, density = -z[::-1], density[::-1]
    return z, density


def _unbounded(x: np.ndarray, support: tuple[float, float]) -> np.ndarray:
    low, high = support
    with np.errstate(divide="ignore"):
        below = np.log(x - low) if np.isfinite(low) else np.zeros_like(x)
        above = np.log(high - x) if np.isfinite(high) else np.zeros_like(x)
    return below - above if np.isfinite(low) or np.isfinite(high) else x


def _bounded(z: np.ndarray, support: tuple[float, float]) -> np.ndarray:
    low, high = support
    if np.isfinite(low) and np.isfinite(high):
        return low + (high - low) / (1.0 + np.exp(-z))
    if np.isfinite(low):
        return low + np.exp(z)
    return high - np.exp(-z) if np.isfinite(high) else z


def _log_slope(z: np.ndarray, support: tuple[float, float]) -> np.ndarray:
    """Log derivative of x with respect to z."""
    low, high = support
    if np.isfinite(low) and np.isfinite(high):
        return np.log(high - low) - np.logaddexp(0.0, z) - np.logaddexp(0.0, -z)
    if np.isfinite(low):
        return z
    return -z if np.isfinite(high) else np.zeros_like(z)
