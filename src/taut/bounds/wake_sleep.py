r"""Wake-sleep: the model and the guide each climb an objective of their own.

The model's parameters climb a bound with the draws held fixed; the guide's climb
:math:`E_p[\log q(z \mid x)]`, which is minus the divergence :math:`KL(p \| q)` up to a constant:
over dreams of the model, or over the data's own posterior by self-normalised importance weights.
Nothing is differentiated through a draw, so that discrete latents and branching models are welcome.
The surrogate is not that of one function: its gradient with respect to the guide's parameters is
not the bound's.

Source: Hinton, Dayan, Frey and Neal (1995), The wake-sleep algorithm; Bornschein and Bengio (2015),
Reweighted wake-sleep, section 2; Le, Kosiorek, Siddharth, Teh and Wood (2019), Revisiting
reweighted wake-sleep.
"""

import dataclasses
import functools
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import jax
import jax.numpy as jnp
from jaxtyping import Array
from numpyro.distributions import Distribution
from typing_extensions import override

from taut._core.errors import ArgumentError
from taut.bounds import discrete
from taut.bounds.estimators import AbstractEstimator, Score, Site
from taut.bounds.guide import make_plan, run_guide
from taut.bounds.prior import check_prior
from taut.bounds.terms import check_samples, gradient_only
from taut.bounds.types import AbstractBound, Dream, Estimate, Guide, LogJoint
from taut.bounds.weighted import draw_many, log_density, normalised, power_mean


@dataclasses.dataclass(frozen=True)
class WakeSleep(AbstractBound):
    """The wake-sleep algorithm: the ELBO for the model, dreams for the guide.

    Attributes:
        samples: draws of q in the wake phase, at least 1.
    """

    samples: int = 1

    def __post_init__(self) -> None:
        """Check the number of samples."""
        check_samples(self.samples)

    @override
    def __call__(
        self,
        log_joint: LogJoint,
        guide: Guide,
        key: Any,
        *,
        prior: Mapping[str, Distribution] | None = None,
        shared: Sequence[str] = (),
        scale: Any = 1.0,
        dream: Dream | None = None,
    ) -> Estimate:
        """Estimate the ELBO and the two gradients.

        Args:
            log_joint: as in :meth:`AbstractBound.__call__`.
            guide: likewise.
            key: likewise.
            prior: likewise.
            shared: likewise.
            scale: likewise.
            dream: (key) -> latents drawn from the model, and the guide at the data drawn with
                them; as many data as the batch has, for phases of equal weight. Required.

        Raises:
            ArgumentError: as there, or without ``dream``.
        """
        phases = _Phases(order=1.0, samples=self.samples, wake=False, sleep=True)
        return phases.estimate(log_joint, guide, key, prior, shared, scale, dream)


@dataclasses.dataclass(frozen=True)
class ReweightedWakeSleep(AbstractBound):
    """Reweighted wake-sleep: the importance-weighted bound for the model (Bornschein and Bengio).

    The gradients of the guide's wake phase are biased by the weights' normalisation, of order
    1 / samples.

    Attributes:
        samples: draws of q, at least 2.
        phase: what the guide learns from: "wake", the data by weighted draws; "sleep", dreams of
            the model; "both", their sum.
    """

    samples: int = 5
    phase: Literal["wake", "sleep", "both"] = "wake"

    def __post_init__(self) -> None:
        """Check the settings."""
        check_samples(self.samples, 2)
        if self.phase not in ("wake", "sleep", "both"):
            raise ArgumentError(f"phase must be 'wake', 'sleep' or 'both', got '{self.phase}'")

    @override
    def __call__(
        self,
        log_joint: LogJoint,
        guide: Guide,
        key: Any,
        *,
        prior: Mapping[str, Distribution] | None = None,
        shared: Sequence[str] = (),
        scale: Any = 1.0,
        dream: Dream | None = None,
    ) -> Estimate:
        """Estimate the importance-weighted bound and the gradients of the phases.

        Args:
            log_joint: as in :meth:`AbstractBound.__call__`.
            guide: likewise.
            key: likewise.
            prior: likewise.
            shared: likewise.
            scale: likewise.
            dream: as in :meth:`WakeSleep.__call__`; required unless the guide learns awake only.

        Raises:
            ArgumentError: as there, or if ``dream`` is missing.
        """
        wake, sleep = self.phase != "sleep", self.phase != "wake"
        phases = _Phases(order=0.0, samples=self.samples, wake=wake, sleep=sleep)
        return phases.estimate(log_joint, guide, key, prior, shared, scale, dream)


@dataclasses.dataclass(frozen=True)
class _Phases:
    """Which phases there are, and the order of the bound that the model climbs."""

    order: float
    samples: int
    wake: bool
    sleep: bool

    def estimate(
        self,
        log_joint: LogJoint,
        guide: Guide,
        key: Any,
        prior: Mapping[str, Distribution] | None,
        shared: Sequence[str],
        scale: Any,
        dream: Dream | None,
    ) -> Estimate:
        """Both phases."""
        if self.sleep and dream is None:
            raise ArgumentError(
                "dream is missing: the sleep phase draws latents and data from the model; give "
                "dream=(key) -> (latents, guide at those data), or ReweightedWakeSleep(phase='wake')"
            )
        wake_key, sleep_key = jax.random.split(key)
        plan = make_plan(log_joint, guide, wake_key, None, shared, _fixed_draws)
        prior = check_prior(prior, plan)
        drawn = draw_many(plan, guide, jax.random.split(wake_key, self.samples))
        log_p = jax.vmap(functools.partial(log_density, plan, log_joint, prior))(drawn.values)
        log_ratio = jax.lax.stop_gradient(log_p - drawn.log_q)
        weight = normalised(log_ratio, self.order)
        value = power_mean(log_ratio, self.order)
        learned = weight * (log_p + drawn.log_q if self.wake else log_p)
        factor = scale if plan.num_data else 1.0
        surrogate = jnp.sum(factor * value) + gradient_only(jnp.sum(factor * learned))
        if self.sleep and dream is not None:
            dreamt = gradient_only(_asleep(dream, sleep_key))
            surrogate = surrogate + jnp.mean(factor) * dreamt
        local = value if plan.num_data else jnp.zeros(0)
        return Estimate(jnp.sum(factor * value), surrogate, local)


def _fixed_draws(site: Site, settings: int) -> AbstractEstimator:
    return Score()


def _asleep(dream: Dream, key: Any) -> Array:
    """Log density of dreamt latents under the guide at the data dreamt with them."""
    values, guide = dream(key)
    values, total = jax.lax.stop_gradient(dict(values)), []

    def sample(name: str, distribution: Distribution) -> Any:
        if name not in values:
            raise ArgumentError(f"dream: the guide has a site '{name}', and the dream has none")
        total.append(jnp.sum(discrete.log_prob(distribution, values[name])))
        return values[name]

    run_guide(guide, sample)
    return functools.reduce(jnp.add, total)
