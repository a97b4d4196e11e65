r"""The Concrete distribution: a categorical draw relaxed into the simplex.

With Gumbel noise :math:`g_k`, the index of the largest :math:`\log \pi_k + g_k` is a draw of
Categorical(:math:`\pi`). A softmax at a temperature in place of the maximum gives a vector with a
density, from which gradients flow to :math:`\pi`. NumPyro has the two-valued case only
(``RelaxedBernoulli``).

Source: Maddison, Mnih and Teh (2017), The Concrete distribution, section 3.1 and appendix C; Jang,
Gu and Poole (2017), Categorical reparameterization with Gumbel-softmax.
"""

from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np
from jax.scipy.special import gammaln
from jaxtyping import Array
from numpyro.distributions import Distribution, constraints
from typing_extensions import override

from taut._core.errors import ArgumentError


class RelaxedOneHotCategorical(Distribution):
    """A point of the simplex, near a corner at a low temperature; differentiable draws.

    The probability that element k is the largest is the categorical's own, at any temperature.

    Args:
        temperature: positive, shape (...).
        logits: unnormalised log probabilities, shape (..., k), or
        probs: positive weights, shape (..., k); one of the two.
        validate_args: as in NumPyro.

    Raises:
        ArgumentError: if not exactly one of ``logits`` and ``probs`` is given.
    """

    arg_constraints: ClassVar[dict[str, Any]] = {
        "temperature": constraints.positive,
        "logits": constraints.real_vector,
    }
    _support = constraints.simplex
    reparametrized_params: ClassVar[list[str]] = ["temperature", "logits"]

    def __init__(
        self,
        temperature: Any,
        logits: Any = None,
        probs: Any = None,
        *,
        validate_args: bool | None = None,
    ) -> None:
        if (logits is None) == (probs is None):
            raise ArgumentError("RelaxedOneHotCategorical takes either logits or probs")
        logits = jnp.log(jnp.asarray(probs)) if logits is None else jnp.asarray(logits)
        batch_shape = np.broadcast_shapes(jnp.shape(temperature), logits.shape[:-1])
        self.temperature = jnp.broadcast_to(temperature, batch_shape)
        self.logits = jnp.broadcast_to(logits, (*batch_shape, logits.shape[-1]))
        super().__init__(batch_shape, logits.shape[-1:], validate_args=validate_args)

    @override
    def sample(self, key: Any, sample_shape: tuple[int, ...] = ()) -> Array:
        noise = jax.random.gumbel(key, self.shape(sample_shape), self.logits.dtype)
        point = jax.nn.softmax((self.logits + noise) / self.temperature[..., None])
        return jnp.clip(point, jnp.finfo(point.dtype).tiny)  # the density needs logarithms

    @override
    def log_prob(self, value: Any, intermediates: list[Any] | None = None) -> Array:
        size, temperature = self.event_shape[0], self.temperature
        log_value = jnp.log(value)
        weights = self.logits - temperature[..., None] * log_value
        constant = gammaln(float(size)) + (size - 1) * jnp.log(temperature)
        return (
            constant
            + jnp.sum(weights - log_value, axis=-1)
            - size * jax.scipy.special.logsumexp(weights, axis=-1)
        )
