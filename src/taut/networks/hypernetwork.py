"""Networks that make the weights of other networks.

A hypernetwork here is a module of one datum like any other, so that
:class:`~taut.networks.BayesianNetwork` takes it as it is: with a prior over the weights of the
hypernetwork and over what it is told of each task, that is a Bayesian meta network.
"""

import math
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jax.flatten_util import ravel_pytree
from jaxtyping import Array

from taut._core.errors import ArgumentError, ModelError
from taut.networks.architecture import check_module


class Functional(eqx.Module):
    """A module as a function of one vector of weights and one datum.

    Attributes:
        size: elements of the vector.
    """

    _initial: tuple[float, ...] = eqx.field(static=True)
    _rebuild: Any = eqx.field(static=True)
    size: int = eqx.field(static=True)

    def __call__(self, vector: Array, x: Any) -> Array:
        """The module's output for one datum with weights of one's own.

        Args:
            vector: the weights, (size,).
            x: the datum.
        """
        return self._rebuild(vector)(x)

    def module(self, vector: Array) -> Any:
        """The module with these weights.

        Args:
            vector: the weights, (size,).
        """
        return self._rebuild(vector)

    @property
    def initial(self) -> Array:
        """The weights that the module came with, (size,)."""
        return jnp.asarray(self._initial)


def functional(module: Any) -> Functional:
    """A module as a function of one vector of weights and one datum.

    Args:
        module: an Equinox module or another callable pytree, of one datum.

    Raises:
        UnsupportedError: if it keeps a state or draws random numbers.
        ModelError: if it has no weights.
    """
    check_module(module)
    weights, static = eqx.partition(module, eqx.is_inexact_array)
    vector, unravel = ravel_pytree(weights)
    if not vector.size:
        raise ModelError("module: it has no arrays of floating-point numbers to make")

    def rebuild(vector: Array) -> Any:
        return eqx.combine(unravel(vector), static)

    return Functional(tuple(vector.tolist()), rebuild, vector.size)


class HyperNetwork(eqx.Module):
    r"""A network whose weights are made by another one from a context.

    The weights of ``net`` are :math:`w_0 + A \tanh(B c + b)` with the context c, the base
    :math:`w_0` where ``net`` begins, and a matrix A that is small at the start, so that training
    begins near the unmodified network.

    Attributes:
        net: what the weights are for.
        base: its weights without a context, (net.size,).
        inner: context -> hidden units.
        outer: hidden units -> weights.
    """

    net: Functional
    base: Array
    inner: eqx.nn.Linear
    outer: eqx.nn.Linear

    def __init__(self, module: Any, context: int, width: int = 16, *, key: Array) -> None:
        """Make the layers.

        Args:
            module: whose weights are made; of one datum.
            context: numbers that the context has.
            width: hidden units.
            key: of the layers' first weights.
        """
        for name, value in (("context", context), ("width", width)):
            if isinstance(value, bool) or value < 1:
                raise ArgumentError(f"{name} must be a whole number of at least 1, got {value!r}")
        first, second = jax.random.split(key)
        self.net = functional(module)
        self.base = self.net.initial
        self.inner = eqx.nn.Linear(context, width, key=first)
        outer = eqx.nn.Linear(width, self.net.size, use_bias=False, key=second)
        self.outer = eqx.tree_at(lambda m: m.weight, outer, outer.weight / math.sqrt(width))

    def weights(self, context: Array) -> Array:
        """The weights for a context, (net.size,).

        Args:
            context: what is known of the task, (context,).
        """
        return self.base + self.outer(jnp.tanh(self.inner(context)))

    def __call__(self, x: Array) -> Array:
        """The output for one datum that begins with its context.

        Args:
            x: context and inputs, one vector.
        """
        context = self.inner.in_features
        assert isinstance(context, int)
        return self.net(self.weights(x[:context]), x[context:])


class MetaNetwork(eqx.Module):
    """A network for many tasks: a hypernetwork makes its weights from the task's embedding.

    A datum is a vector: the number of its task, from 0, and then the inputs. In
    :class:`~taut.networks.BayesianNetwork` name that column in ``unscaled=(0,)``; with a prior over
    all weights the embeddings are inferred like the rest, each from the rows of its task.

    Attributes:
        hyper: makes the weights.
        embeddings: one row for each task, (tasks, embedding).
    """

    hyper: HyperNetwork
    embeddings: Array

    def __init__(
        self, module: Any, tasks: int, embedding: int = 4, width: int = 16, *, key: Array
    ) -> None:
        """Make the layers.

        Args:
            module: whose weights are made; of one datum, without the task's number.
            tasks: how many.
            embedding: numbers in the description of a task.
            width: hidden units of the hypernetwork.
            key: of the first weights and embeddings.
        """
        if isinstance(tasks, bool) or tasks < 1:
            raise ArgumentError(f"tasks must be a whole number of at least 1, got {tasks!r}")
        first, second = jax.random.split(key)
        self.hyper = HyperNetwork(module, embedding, width, key=first)
        self.embeddings = jax.random.normal(second, (tasks, embedding))

    def __call__(self, x: Array) -> Array:
        """The output for one datum.

        Args:
            x: the task's number and the inputs, one vector.
        """
        embedding = self.embeddings[x[0].astype(int)]
        return self.hyper.net(self.hyper.weights(embedding), x[1:])
