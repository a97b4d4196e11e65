"""A flow as the head of an encoder: posteriors that no Gaussian can be."""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpyro.distributions as dist
from jaxtyping import Array
from numpyro.distributions import constraints
from numpyro.distributions.transforms import AffineTransform, IndependentTransform, Transform
from typing_extensions import override

from taut._core.errors import ArgumentError
from taut.deep.heads import AbstractHead, bounded_scale, check_outputs, in_own_space, vector_size
from taut.deep.rows import Site

STEEPEST = 2.0  # largest logarithm of what one coupling stretches by


class _Conditioner(eqx.Module):
    """Shifts and log scales of one half from the other half and the context."""

    first: eqx.nn.Linear
    second: eqx.nn.Linear

    def __init__(self, size_in: int, size_out: int, hidden: int, key: Array) -> None:
        self.first = eqx.nn.Linear(size_in, hidden, key=key)
        last = eqx.nn.Linear(hidden, 2 * size_out, key=key)
        # Zero, so that the flow begins as the Gaussian that it transforms.
        self.second = jax.tree.map(jnp.zeros_like, last)

    def __call__(self, half: Array, context: Array) -> tuple[Array, Array]:
        """Shift and log scale, (..., size_out), of arrays with any axes in front."""
        given = jnp.concatenate(
            [half, jnp.broadcast_to(context, (*half.shape[:-1], context.shape[-1]))], -1
        )
        first, second = (jnp.vectorize(f, signature="(i)->(o)") for f in (self.first, self.second))
        shift, raw = jnp.split(second(jnp.tanh(first(given))), 2, axis=-1)
        return shift, STEEPEST * jnp.tanh(raw / STEEPEST)


class Coupling(Transform):
    """Scales and shifts one half of a vector by functions of the other half and a context.

    Dinh, Sohl-Dickstein and Bengio 2017, section 3.2; both directions cost the same.

    Args:
        net: of the half that is kept.
        context: (..., c), with the batch's axes.
        flip: whether the first half is changed, and not the second.
    """

    def __init__(self, net: _Conditioner, context: Array, flip: bool) -> None:
        self.net, self.context, self.flip = net, context, flip

    @property
    @override
    def domain(self) -> Any:
        return constraints.real_vector

    @property
    @override
    def codomain(self) -> Any:
        return constraints.real_vector

    def __call__(self, x: Array) -> Array:
        """The transformed vector."""
        kept, moved = self._halves(x)
        shift, log_scale = self.net(kept, self.context)
        return self._joined(kept, moved * jnp.exp(log_scale) + shift)

    def _inverse(self, y: Array) -> Array:
        kept, moved = self._halves(y)
        shift, log_scale = self.net(kept, self.context)
        return self._joined(kept, (moved - shift) * jnp.exp(-log_scale))

    def log_abs_det_jacobian(self, x: Array, y: Array, intermediates: Any = None) -> Array:
        """The logarithm of the change of volume."""
        return jnp.sum(self.net(self._halves(x)[0], self.context)[1], -1)

    def _halves(self, x: Array) -> tuple[Array, Array]:
        split = x.shape[-1] // 2
        first, second = x[..., :split], x[..., split:]
        return (second, first) if self.flip else (first, second)

    def _joined(self, kept: Array, moved: Array) -> Array:
        return jnp.concatenate([moved, kept] if self.flip else [kept, moved], -1)

    def tree_flatten(self) -> Any:
        """What JAX needs to take it apart."""
        return (self.net, self.context), (("net", "context"), {"flip": self.flip})


class Flow(AbstractHead):
    """A Gaussian bent by couplings: real, non-volume preserving transformations.

    The network of a row ends in ``2 * size + context`` numbers: means and log scales, as for
    :class:`Gaussian`, and what the couplings see of the row. The divergence from the prior has no
    closed form and is estimated by draws.

    Args:
        net: maps one datum to numbers.
        size: coordinates of the latent, at least 2.
        context: numbers of a row that the couplings see; 0 bends all rows alike.
        num_couplings: each changes one half of the coordinates.
        hidden: units of each coupling's network.
        key: of the couplings' initial weights.

    Raises:
        ArgumentError: if the latent has a single coordinate, which no coupling can bend.
    """

    net: Any
    couplings: tuple[_Conditioner, ...]
    size: int = eqx.field(static=True)
    context: int = eqx.field(static=True)

    def __init__(
        self,
        net: Any,
        size: int,
        context: int = 0,
        num_couplings: int = 4,
        hidden: int = 32,
        *,
        key: Array,
    ) -> None:
        least = {"size": (size, 2), "context": (context, 0), "num_couplings": (num_couplings, 1)}
        for name, (value, smallest) in {**least, "hidden": (hidden, 1)}.items():
            if value < smallest:
                raise ArgumentError(f"{name} must be at least {smallest}, got {value}")
        self.net, self.size, self.context = net, size, context
        first, second = size // 2, size - size // 2
        self.couplings = tuple(
            _Conditioner(
                (second if _flips(i) else first) + context,
                first if _flips(i) else second,
                hidden,
                jax.random.fold_in(key, i),
            )
            for i in range(num_couplings)
        )

    @override
    def distribution(self, outputs: Array, site: Site) -> dist.Distribution:
        size = vector_size(site, "deep.Flow")
        if size != self.size:
            raise ArgumentError(
                f"deep.Flow has size={self.size}, and latent '{site.name}' has {size} coordinates"
            )
        what = f"{size} means, {size} log scales and a context of {self.context}"
        check_outputs(outputs, 2 * size + self.context, site, what)
        loc, raw, context = jnp.split(outputs, [size, 2 * size], axis=-1)
        base = dist.Normal(jnp.zeros_like(loc), 1.0).to_event(1)
        bent = [Coupling(net, context, _flips(i)) for i, net in enumerate(self.couplings)]
        placed = IndependentTransform(AffineTransform(loc, bounded_scale(raw)), 1)
        return in_own_space(dist.TransformedDistribution(base, [*bent, placed]), site)


def _flips(i: int) -> bool:
    return i % 2 == 1
