r"""Coordinates in which a latent is inferred.

NumPyro's bijection takes a latent of any support to real coordinates :math:`v`. Where its
prior has a location :math:`a` and a scale :math:`b` there, taut uses

.. math:: v = a + b^{1 - \lambda} (u - \lambda a), \qquad \lambda \in [0, 1],

the partial non-centring of Gorinova, Moore and Hoffman (2020): :math:`\lambda = 1` is the
model as written (centred), :math:`\lambda = 0` makes the prior of ``u`` standard
(non-centred), which also puts every coordinate into units of its prior. ``lambda`` is an
array, an argument of the compiled functions, so changing it compiles nothing.
"""

from typing import Any, NamedTuple

import jax.numpy as jnp
import numpyro.distributions as dist
from numpyro.distributions import constraints
from numpyro.distributions.transforms import biject_to
from numpyro.distributions.util import sum_rightmost

LOCATION_SCALE = (
    dist.Normal,
    dist.StudentT,
    dist.Cauchy,
    dist.Laplace,
    dist.Logistic,
    dist.Gumbel,
    dist.SoftLaplace,
)
POSITIVE_SCALE = (dist.HalfNormal, dist.HalfCauchy, dist.Weibull)
POSITIVE_RATE = (dist.Exponential, dist.Gamma)


class Affine(NamedTuple):
    """Location and log scale of a prior in real coordinates, broadcastable to its shape."""

    location: Any
    log_scale: Any


def unwrap(fn: Any) -> Any:
    """Return the distribution below expansions, masks and event reinterpretations."""
    while isinstance(fn, dist.Independent | dist.ExpandedDistribution | dist.MaskedDistribution):
        fn = fn.base_dist
    return fn


def affine_of(fn: Any) -> Affine | None:
    """Return the location and log scale of ``fn`` in its real coordinates, or None."""
    base, shape = unwrap(fn), fn.shape()
    scale: Any = getattr(base, "scale", None)
    rate: Any = getattr(base, "rate", None)
    if isinstance(base, LOCATION_SCALE):
        return _expand(base.loc, jnp.log(scale), base, shape)
    if isinstance(base, dist.LogNormal):
        return _expand(base.loc, jnp.log(scale), base, shape)
    if isinstance(base, dist.GaussianRandomWalk):
        return _expand(0.0, jnp.log(scale)[..., None], base, shape)
    if isinstance(base, POSITIVE_SCALE):
        return _expand(jnp.log(scale), 0.0, base, shape)
    if isinstance(base, dist.InverseGamma):
        return _expand(jnp.log(rate), 0.0, base, shape)
    if isinstance(base, POSITIVE_RATE):
        return _expand(-jnp.log(rate), 0.0, base, shape)
    return None


def _expand(location: Any, log_scale: Any, base: Any, shape: tuple[int, ...]) -> Affine | None:
    if base.shape() != shape[len(shape) - len(base.shape()) :]:
        return None  # expanded along inner dimensions of size one; leave it centred
    return Affine(jnp.broadcast_to(location, shape), jnp.broadcast_to(log_scale, shape))


def constrain(fn: Any, u: Any, centring: Any | None) -> tuple[Any, Any]:
    """Map coordinates to a value of ``fn``.

    Args:
        fn: the latent's distribution given its parents.
        u: coordinates, in the shape of ``biject_to(fn.support)``'s domain.
        centring: lambda, of ``u``'s shape, or None for the model's own coordinates.

    Returns:
        The value, and log |d value / d u| summed over the event, of batch shape.
    """
    v, log_det = u, jnp.zeros(())
    affine = affine_of(fn) if centring is not None else None
    if affine is not None and centring is not None:
        location, log_scale = affine
        v = location + jnp.exp((1.0 - centring) * log_scale) * (u - centring * location)
        log_det = sum_rightmost((1.0 - centring) * log_scale, fn.event_dim)
    if is_real(fn.support):
        return v, log_det
    transform = biject_to(fn.support)
    value = transform(v)
    inner = transform.log_abs_det_jacobian(v, value)
    return value, log_det + sum_rightmost(inner, inner.ndim - (value.ndim - fn.event_dim))


def unconstrain(fn: Any, value: Any, centring: Any | None) -> Any:
    """Map a value of ``fn`` to its coordinates; the inverse of :func:`constrain`."""
    v = biject_to(fn.support).inv(value)
    affine = affine_of(fn) if centring is not None else None
    if affine is None or centring is None:
        return v
    location, log_scale = affine
    return (v - location) * jnp.exp((centring - 1.0) * log_scale) + centring * location


def is_real(support: Any) -> bool:
    """True for the real line and its products."""
    return support is constraints.real or (
        isinstance(support, constraints.independent) and is_real(support.base_constraint)
    )
