"""What every bound takes and returns."""

import abc
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from jaxtyping import Array
from numpyro.distributions import Distribution

Sample = Callable[[str, Distribution], Any]
"""(site name, distribution) -> a draw; what a guide function is called with."""

Guide = Mapping[str, Distribution] | Callable[[Sample], Any]
"""q: independent sites by name, or a function that draws one after the other."""

LogJoint = Callable[[dict[str, Any]], Any]
"""(values of all sites) -> log p(data, values), in nats: terms of shape () or (n,)."""

Dream = Callable[[Any], tuple[Mapping[str, Any], Guide]]
"""(key) -> latents drawn from the model, and the guide at the data drawn with them."""


class Estimate(NamedTuple):
    """A bound at one key.

    Attributes:
        value: the estimate of the bound, all data together, in nats, without gradient.
        surrogate: the same number; its gradient is the estimate of the bound's gradient. What is
            minimised is minus it.
        pointwise: each datum's share of the value, (n,), before ``scale``; shape (0,) where the
            log joint is one number.
    """

    value: Array
    surrogate: Array
    pointwise: Array


class AbstractBound(abc.ABC):
    """Frozen settings of a bound on the log evidence and of its gradient."""

    @abc.abstractmethod
    def __call__(
        self,
        log_joint: LogJoint,
        guide: Guide,
        key: Any,
        *,
        prior: Mapping[str, Distribution] | None = None,
        shared: Sequence[str] = (),
        scale: Any = 1.0,
    ) -> Estimate:
        """Estimate the bound; everything that ``jax.grad`` asks for is closed over.

        Args:
            log_joint: (values of all sites) -> log density of data and latents in nats. One
                number; or an array (n,) whose element i depends on the data's i-th element and on
                element i of the local sites only; or a mapping of such terms, which are added.
            guide: q, by site; or a function (sample) that calls ``sample(name, distribution)`` for
                one site after the other and may use what it returns.
            key: of JAX.
            prior: distributions of some sites that do not depend on other sites; ``log_joint``
                then leaves these out, and their divergence from q is taken in closed form where
                there is one.
            shared: sites that all data share although their batch shape happens to begin with n.
                All other sites with such a batch shape are local: row i belongs to datum i.
            scale: number of data over the batch's; multiplies every term that belongs to a datum.
                One number, or one per datum, (n,), with 0 for data that are padding.

        Returns:
            The bound's value and what to differentiate.

        Raises:
            ArgumentError: if shapes, names or estimators do not fit; the message says which.
        """
