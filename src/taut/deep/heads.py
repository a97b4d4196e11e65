"""From a network's numbers to a distribution of a latent."""

import abc
import math
from typing import Any

import equinox as eqx
import jax.numpy as jnp
import numpyro.distributions as dist
from jaxtyping import Array
from numpyro.distributions.transforms import biject_to
from typing_extensions import override

from taut._core.errors import ArgumentError
from taut.deep.rows import Site

LARGEST_LOG_SCALE = 8.0  # scales lie between exp(-8) and exp(8): no network can make them 0


class AbstractHead(eqx.Module):
    """A network of one datum that gives the parameters of a distribution.

    Attributes:
        net: maps one datum to numbers.
    """

    net: eqx.AbstractVar[Any]

    def __call__(self, *datum: Any) -> Any:
        """The parameters for one datum."""
        return self.net(*datum)

    @abc.abstractmethod
    def distribution(self, outputs: Array, site: Site) -> dist.Distribution:
        """The distribution of a latent, for all rows.

        Args:
            outputs: of the network, (n, ...).
            site: the latent.

        Raises:
            ArgumentError: if the outputs are not as many as the latent needs.
        """


class Gaussian(AbstractHead):
    """Independent Gaussians in unconstrained space: the network gives means and log scales."""

    net: Any

    @override
    def distribution(self, outputs: Array, site: Site) -> dist.Distribution:
        inner = _unconstrained(site)
        size = math.prod(inner)
        check_outputs(outputs, 2 * size, site, f"{size} means and {size} log scales")
        loc, raw = (x.reshape((-1, *inner)) for x in jnp.split(outputs, 2, axis=-1))
        return in_own_space(dist.Normal(loc, bounded_scale(raw)), site)


class FullGaussian(AbstractHead):
    """A Gaussian with full covariance in unconstrained space: means, then a Cholesky factor."""

    net: Any

    @override
    def distribution(self, outputs: Array, site: Site) -> dist.Distribution:
        size = vector_size(site, "deep.FullGaussian")
        below = size * (size - 1) // 2
        check_outputs(
            outputs, 2 * size + below, site, f"{size} means, {size} log scales and {below} others"
        )
        loc, raw, rest = jnp.split(outputs, [size, 2 * size], axis=-1)
        lower = jnp.zeros((len(outputs), size, size), outputs.dtype)
        lower = lower.at[(slice(None), *jnp.tril_indices(size, -1))].set(rest)
        diagonal = bounded_scale(raw)
        tril = diagonal[..., None] * (jnp.eye(size, dtype=outputs.dtype) + lower)
        return in_own_space(dist.MultivariateNormal(loc, scale_tril=tril), site)


class Labels(AbstractHead):
    """A categorical or Bernoulli distribution: the network gives logits."""

    net: Any

    @override
    def distribution(self, outputs: Array, site: Site) -> dist.Distribution:
        rest = site.shape[1:]
        if site.distribution.startswith("Bernoulli"):
            check_outputs(outputs, math.prod(rest), site, "one logit for each element")
            logits = outputs.reshape((-1, *rest))
            return dist.BernoulliLogits(logits).to_event(site.event_dims)
        count = site.num_values * math.prod(rest)
        check_outputs(outputs, count, site, f"{site.num_values} logits for each element")
        logits = outputs.reshape((-1, *rest, site.num_values))
        return dist.CategoricalLogits(logits).to_event(site.event_dims)


def as_head(net: Any, site: Site) -> AbstractHead:
    """A network with the head that a latent needs; heads are left alone.

    Raises:
        ArgumentError: if the latent is discrete and infinite.
    """
    if isinstance(net, AbstractHead):
        return net
    if not site.discrete:
        return Gaussian(net)
    if not site.num_values:
        raise ArgumentError(
            f"latent '{site.name}' ({site.distribution}) has infinitely many values, for which there is no encoder; "
            "sum it out by hand, or use a distribution with finitely many"
        )
    return Labels(net)


def bounded_scale(raw: Array) -> Array:
    """A positive scale, log-linear near 1 and bounded on both sides."""
    return jnp.exp(LARGEST_LOG_SCALE * jnp.tanh(raw / LARGEST_LOG_SCALE))


def _unconstrained(site: Site) -> tuple[int, ...]:
    """Shape of one row's coordinates."""
    return tuple(biject_to(site.support).inverse_shape(site.shape))[1:]


def in_own_space(base: Any, site: Site) -> dist.Distribution:
    """Gaussians of a latent's coordinates as a distribution of its values.

    Axes beyond the latent's event stay batch axes, as they are in the model.

    Args:
        base: of the coordinates: elementwise, or with the last axis as its event.
        site: the latent.
    """
    if _is_plain_real(site.support):
        return base.to_event(site.event_dims - len(base.event_shape))
    transform = biject_to(site.support)
    base = base.to_event(transform.domain.event_dim - len(base.event_shape))
    found = dist.TransformedDistribution(base, transform)
    return found.to_event(site.event_dims - len(found.event_shape))


def _is_plain_real(support: Any) -> bool:
    while hasattr(support, "base_constraint"):
        support = support.base_constraint
    return type(support).__name__ in ("_Real", "_RealVector")


def vector_size(site: Site, head: str) -> int:
    """Coordinates of a latent that is one vector a row.

    Raises:
        ArgumentError: if it is none.
    """
    if not site.event_dims:
        raise ArgumentError(
            f"{head} correlates the numbers of a vector, and '{site.name}' is declared as single numbers; give its "
            "distribution .to_event(1)"
        )
    inner = _unconstrained(site)
    if len(inner) != 1:
        raise ArgumentError(
            f"{head} is for latents that are one vector a row; '{site.name}' has {inner}"
        )
    return inner[0]


def check_outputs(outputs: Array, wanted: int, site: Site, what: str) -> None:
    """Check how many numbers a network gives.

    Raises:
        ArgumentError: if they are not as many as the latent needs.
    """
    found = math.prod(outputs.shape[1:])
    if outputs.ndim != 2 or found != wanted:
        raise ArgumentError(
            f"the encoder of '{site.name}' must end in {wanted} numbers ({what}), it gives shape {outputs.shape[1:]}"
        )
