"""Networks inside of NumPyro models: trained with q, or random with a prior."""

import sys
from collections.abc import Callable, Mapping
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpyro
import numpyro.distributions as dist
from numpyro.contrib.module import nnx_module, random_eqx_module

from taut._core.errors import ArgumentError

Prior = dist.Distribution | Mapping[str, dist.Distribution] | Callable[[str, tuple], Any]


class Mapped(eqx.Module):
    """A network of one datum as a function of arrays of data.

    Attributes:
        net: the network.
        event_dims: for each argument how many of its last axes belong to one datum; one number
            for all.
    """

    net: Any
    event_dims: int | tuple[int, ...] = eqx.field(static=True, default=1)

    def __call__(self, *arguments: Any, **options: Any) -> Any:
        """The network's output for each datum; leading axes broadcast like NumPy's."""
        arrays = [jnp.asarray(x) for x in arguments]
        dims = self.event_dims
        dims = (dims,) * len(arrays) if isinstance(dims, int) else dims
        if len(dims) != len(arrays):
            raise ArgumentError(
                f"event_dims has {len(dims)} numbers, the network was called with {len(arrays)} arrays"
            )
        cut = [x.ndim - d for x, d in zip(arrays, dims, strict=True)]
        if min(cut, default=0) < 0:
            raise ArgumentError(
                f"event_dims says that {max(dims)} axes belong to one datum; the network was called with "
                f"shapes {[x.shape for x in arrays]}"
            )
        lead = jnp.broadcast_shapes(*(x.shape[:c] for x, c in zip(arrays, cut, strict=True)))
        flat = [
            jnp.broadcast_to(x, lead + x.shape[c:]).reshape((-1, *x.shape[c:]))
            for x, c in zip(arrays, cut, strict=True)
        ]

        def one(*datum: Any) -> Any:
            return self.net(*datum, **options)

        found = jax.vmap(one)(*flat) if lead else one(*(x[0] for x in flat))
        return jax.tree.map(lambda y: y.reshape(lead + y.shape[1:]), found) if lead else found


def module(name: str, net: Any, event_dims: int | tuple[int, ...] = 1) -> Callable[..., Any]:
    """A network in a model, whose weights are trained by maximising the bound.

    Args:
        name: of the site; its weights are the parameter ``name$params``, as NumPyro names them.
        net: an Equinox module, or any pytree that can be called, of one datum; or a Flax NNX
            module, which maps over the data itself.
        event_dims: how many of the last axes of each argument belong to one datum: 1 for
            vectors, 3 for images with channels, 0 for numbers.

    Returns:
        A function of arrays with any leading axes, over which the network is mapped.
    """
    if _is_nnx(net):
        return nnx_module(name, net)
    _check(name, net)
    params, static = eqx.partition(net, eqx.is_inexact_array)
    params = numpyro.param(f"{name}$params", lambda _: params)
    return Mapped(eqx.combine(params, static), event_dims)


def random_module(
    name: str, net: Any, prior: Prior, event_dims: int | tuple[int, ...] = 1
) -> Callable[..., Any]:
    """A network in a model whose weights are latents.

    Args:
        name: of the network; its sites are ``name/layers[0].weight`` and so on.
        net: an Equinox module of one datum. Its own weights are where q starts.
        prior: of all weights; or by site; or a function (site, shape) -> distribution.
        event_dims: as for :func:`module`.

    Returns:
        A function of arrays with any leading axes, over which the network is mapped.
    """
    _check(name, net)
    return Mapped(random_eqx_module(name, net, prior), event_dims)


def _is_nnx(net: Any) -> bool:
    flax = sys.modules.get("flax.nnx")  # who made such a module has imported it
    return flax is not None and isinstance(net, flax.Module)


def _check(name: str, net: Any) -> None:
    if not callable(net):
        raise ArgumentError(
            f"module '{name}' must be callable on one datum, got {type(net).__name__}"
        )
    if any(isinstance(x, eqx.nn.StateIndex) for x in _nodes(net, eqx.nn.StateIndex)):
        raise ArgumentError(
            f"module '{name}' keeps a state from batch to batch (such as BatchNorm), so its rows are not independent "
            "and the bound has no meaning; use eqx.nn.LayerNorm or GroupNorm"
        )


def _nodes(tree: Any, kind: type) -> list[Any]:
    return jax.tree.leaves(tree, is_leaf=lambda x: isinstance(x, kind))
