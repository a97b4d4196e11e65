r"""The ELBO, with an estimator of its own for every site.

With weights :math:`w_r` of the runs :math:`r` (equal for samples, products of probabilities for
enumerated settings), costs :math:`f_r` and scores :math:`s_r` of the sites that have them,

.. math:: \sum_r w_r f_r + \sum_r \operatorname{stop}\!\big(w_r (f_r - b)\big)\, s_r

has the gradient wanted (Schulman et al. 2015, Gradient estimation using stochastic computation
graphs). A local site's score of datum i meets only the cost of datum i (Rao-Blackwellisation over
the plate; Ranganath, Gerrish and Blei 2014, section 3.1).
"""

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array
from numpyro.distributions import Distribution
from typing_extensions import override

from taut._core.errors import ArgumentError
from taut.bounds.estimators import (
    AbstractEstimator,
    DisARM,
    Enumerate,
    Estimators,
    LeaveOneOut,
    Pathwise,
    Run,
    Site,
    hashable,
)
from taut.bounds.guide import Draws, Plan, draw, frozen_log_q, learned_baselines, make_plan
from taut.bounds.prior import Prior, check_prior, closed_terms, with_priors
from taut.bounds.terms import Terms, check_samples, gradient_only, log_joint_terms, vectorised
from taut.bounds.types import AbstractBound, Estimate, Guide, LogJoint

SMALL_SUPPORT = 64


class _Runs(NamedTuple):
    """What a run gives; with runs in front, (units, members of a pair, enumerated settings).

    Attributes:
        cost: log p minus log q.
        log_weight: log probability of the enumerated settings.
        scores: site -> score, () or (n,).
        baselines: site -> learned baseline, () or (n,).
    """

    cost: Terms
    log_weight: Terms
    scores: dict[str, Array]
    baselines: dict[str, Array]


def _default(site: Site, settings: int) -> AbstractEstimator:
    """Paths where there are any, small sums exactly, and else the score function."""
    if site.pathwise:
        return Pathwise()
    if 0 < site.num_configurations * settings <= SMALL_SUPPORT:
        return Enumerate()
    return LeaveOneOut()


@dataclasses.dataclass(frozen=True)
class ELBO(AbstractBound):
    """The evidence lower bound, E_q[log p(data, z) - log q(z)].

    Left to choose, sites with reparameterised draws are pathwise, with the divergence from a given
    ``prior`` in closed form; discrete sites are enumerated where their settings (of one datum where
    the site is local) are at most 64 together, and have leave-one-out baselines otherwise. No
    discrete site is ever differentiated through its draw unless a relaxation is asked for by name.

    The cost is that of ``samples`` times the enumerated settings evaluations of the log joint.

    Attributes:
        samples: draws of q, at least 1; leave-one-out needs 2, DisARM an even number.
        estimator: None, a name or settings for all sites, or a mapping for some of them; see
            :mod:`taut.bounds.estimators`.
    """

    samples: int = 1
    estimator: Estimators | None = None

    def __post_init__(self) -> None:
        """Check the number of samples, and make the settings hashable."""
        check_samples(self.samples)
        object.__setattr__(self, "estimator", hashable(self.estimator))

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
    ) -> Estimate:
        plan = make_plan(log_joint, guide, key, self.estimator, shared, _default)
        prior = check_prior(prior, plan)
        members = 2 if plan.using(DisARM) else 1
        units = self._units(plan, members)
        settings = [site.num_configurations for site in plan.using(Enumerate)]
        names = [site.name for site in plan.using(Enumerate)]

        def one(key: Any, flip: Any, setting: Any) -> _Runs:
            indices = jnp.unravel_index(setting, settings) if settings else ()
            run = Run(flip, dict(zip(names, indices, strict=True)))
            return _run(plan, log_joint, guide, prior, draw(plan, guide, key, run))

        keys, flips = jax.random.split(key, units), jnp.arange(members) == 1
        runs = vectorised(one, keys, flips, jnp.arange(math.prod(settings)))
        return _estimate(plan, runs, scale)

    def _units(self, plan: Plan, members: int) -> int:
        if self.samples % members:
            raise ArgumentError(
                "samples must be even, since 'disarm' draws antithetic pairs, "
                f"got {self.samples}; try ELBO(samples={self.samples + 1})"
            )
        units, compared = self.samples // members, plan.using(LeaveOneOut)
        if compared and units < 2:
            raise ArgumentError(
                f"site '{compared[0].name}' ({compared[0].distribution}) has no exact gradient; "
                f"'leave-one-out' compares samples, and samples is {self.samples}. Try "
                f"ELBO(samples={4 * members}), or estimator={{'{compared[0].name}': 'score'}}"
            )
        return units


def _run(plan: Plan, log_joint: LogJoint, guide: Guide, prior: Prior, draws: Draws) -> _Runs:
    """Cost, weight, scores and baselines of one run."""
    log_weight = Terms.zero(plan.num_data)
    for site in plan.using(Enumerate):
        log_weight = log_weight.add(draws.drawn[site.name].log_q)
    scores = {name: d.score for name, d in draws.drawn.items() if d.score is not None}
    cost = _cost(plan, log_joint, guide, prior, draws)
    return _Runs(cost, log_weight, scores, learned_baselines(plan, draws))


def _cost(plan: Plan, log_joint: LogJoint, guide: Guide, prior: Prior, draws: Draws) -> Terms:
    """Log p minus log q, with divergences in closed form where there are any."""
    cost = log_joint_terms(log_joint(draws.values), plan.num_data)
    closed = closed_terms(plan, prior, draws)
    for term in closed.values():
        cost = cost.add(term)
    rest = {name: p for name, p in prior.items() if name not in closed}
    cost = with_priors(cost, plan, rest, draws.values)
    log_q = {name: d.log_q for name, d in draws.drawn.items() if name not in closed}
    frozen = [name for name in log_q if plan[name][1].frozen]
    if frozen:
        log_q |= frozen_log_q(plan, guide, draws.values, frozen)
    for term in log_q.values():
        cost = cost.add(-term)
    return cost


def _estimate(plan: Plan, runs: _Runs, scale: Any) -> Estimate:
    weight = _weights(plan, runs)
    cost = Terms(*map(_weighted, weight, runs.cost))
    local = jnp.sum(cost.local, (0, 1, 2))
    value = jnp.sum(cost.shared) + jnp.sum(scale * local)
    surrogate = value
    total = cost.shared + jnp.sum(scale * cost.local, -1)
    for name, score in runs.scores.items():
        site, estimator = plan[name]
        at_stake, share = (cost.local, weight.local) if site.local else (total, weight.shared)
        baseline, misfit = _baseline(estimator, at_stake, share, runs.baselines.get(name))
        signal = jax.lax.stop_gradient(at_stake - share * baseline)
        gain = jnp.sum(signal * score * (scale if site.local else 1.0))
        surrogate = surrogate + gradient_only(gain - misfit)
    value, local = jax.lax.stop_gradient((value, local))
    return Estimate(value, surrogate, local)


def _weighted(weight: Array, cost: Array) -> Array:
    """Their product; a setting of probability zero may cost infinity."""
    return weight * jnp.where(weight > 0, cost, 0.0)


def _weights(plan: Plan, runs: _Runs) -> Terms:
    """Weights of the runs, which sum to one; each setting of shared sites occurs many times."""
    units, members, _ = runs.log_weight.shared.shape
    repeats = math.prod(s.num_configurations for s in plan.using(Enumerate) if s.local)
    shared = jnp.exp(runs.log_weight.shared) / (units * members)
    return Terms(shared / repeats, shared[..., None] * jnp.exp(runs.log_weight.local))


def _baseline(
    estimator: AbstractEstimator, at_stake: Array, share: Array, learned: Array | None
) -> tuple[Array, Array]:
    """The baseline of a site's cost, and half of its squared error where it is learned."""
    units = len(at_stake)
    unit_costs = jax.lax.stop_gradient(units * jnp.sum(at_stake, (1, 2), keepdims=True))
    if isinstance(estimator, LeaveOneOut):
        others = (jnp.sum(unit_costs, 0, keepdims=True) - unit_costs) / (units - 1)
        return others, jnp.zeros(())
    if learned is None:
        return jnp.zeros(()), jnp.zeros(())
    misfit = 0.5 * jax.lax.stop_gradient(share) * (unit_costs - learned) ** 2
    return learned, jnp.sum(misfit)
