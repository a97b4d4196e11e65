r"""Bounds by importance weights.

With :math:`K` draws and :math:`\ell_k = \log p - \log q` of each,

.. math:: \mathcal L_\alpha = \frac{1}{1-\alpha} \log \frac1K \sum_k e^{(1-\alpha)\ell_k}

is the importance-weighted bound for :math:`\alpha = 0`, tends to the ELBO for :math:`\alpha \to 1`
and is the Monte Carlo estimate of Renyi's bound between. Its derivative with respect to
:math:`\ell_k` is the normalised weight :math:`c_k`.

Doubly reparameterised, the gradient with respect to q's parameters is

.. math:: \sum_k \big(\alpha c_k + (1-\alpha) c_k^2\big)\,
    \frac{\partial \ell_k}{\partial z_k} \frac{\partial z_k}{\partial \phi},

since reparameterising the score of :math:`\log q(z_k)` in the gradient of the bound turns its
factor :math:`c_k` into :math:`\partial c_k / \partial \ell_k = (1-\alpha) c_k (1-c_k)`.

Source: Burda, Grosse and Salakhutdinov (2016), Importance weighted autoencoders; Li and Turner
(2016), Renyi divergence variational inference; Tucker, Lawson, Gu and Maddison (2019), Doubly
reparameterized gradient estimators, sections 5 and 6; Mnih and Rezende (2016), Variational
inference for Monte Carlo objectives.
"""

import abc
import dataclasses
import functools
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array
from numpyro.distributions import Distribution
from typing_extensions import override

from taut._core.errors import ArgumentError
from taut.bounds.estimators import (
    AbstractEstimator,
    AbstractRelaxation,
    Baseline,
    Estimators,
    LeaveOneOut,
    Pathwise,
    Run,
    Score,
    Site,
    hashable,
)
from taut.bounds.guide import Plan, draw, frozen_log_q, learned_baselines, make_plan
from taut.bounds.prior import Prior, check_prior, with_priors
from taut.bounds.terms import check_samples, gradient_only, log_joint_terms
from taut.bounds.types import AbstractBound, Estimate, Guide, LogJoint

_ALLOWED = (Pathwise, Score, LeaveOneOut, Baseline, AbstractRelaxation)


class AbstractWeighted(AbstractBound):
    """What bounds by importance weights share."""

    samples: int
    estimator: Estimators | None
    doubly_reparameterised: bool | None

    @property
    @abc.abstractmethod
    def order(self) -> float | int:
        """Renyi's alpha."""

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
        self._check(plan)
        prior = check_prior(prior, plan)
        drawn = draw_many(plan, guide, jax.random.split(key, self.samples))
        log_p = functools.partial(log_density, plan, log_joint, prior)
        log_ratio = jax.vmap(log_p)(drawn.values) - drawn.log_q
        bound = power_mean(log_ratio, self.order)
        surrogate = bound
        if self._doubly(plan):
            surrogate = self._doubly_reparameterised(plan, guide, log_p, drawn.values, log_ratio)
        for name, score in drawn.scores.items():
            estimator, learned = plan[name][1], drawn.baselines.get(name)
            signal, misfit = _signal(estimator, log_ratio, bound, self.order, learned)
            gain = jnp.sum(jax.lax.stop_gradient(signal) * score, 0)
            surrogate = surrogate + gradient_only(gain - misfit)
        value = jax.lax.stop_gradient(bound)
        local = value if plan.num_data else jnp.zeros(0)
        factor = scale if plan.num_data else 1.0
        return Estimate(jnp.sum(factor * value), jnp.sum(factor * surrogate), local)

    def _check(self, plan: Plan) -> None:
        for site, estimator in zip(plan.sites, plan.estimators, strict=True):
            if not isinstance(estimator, _ALLOWED):
                raise ArgumentError(
                    f"estimator: '{estimator.name}' of site '{site.name}' is for the ELBO; in a "
                    "bound by importance weights try 'pathwise' (doubly reparameterised by "
                    "itself) or 'leave-one-out'"
                )
        compared = plan.using(LeaveOneOut)
        if compared and self.samples < 2:
            raise ArgumentError(
                f"site '{compared[0].name}' ({compared[0].distribution}) has 'leave-one-out' for "
                f"its gradient, which compares samples, and samples is {self.samples}; try 5"
            )

    def _doubly(self, plan: Plan) -> bool:
        others = [
            s for s, e in zip(plan.sites, plan.estimators, strict=True) if e.name != "pathwise"
        ]
        if self.doubly_reparameterised and others:
            raise ArgumentError(
                "doubly_reparameterised needs a pathwise estimator for every site, and "
                f"'{others[0].name}' ({others[0].distribution}) has none; leave it at None"
            )
        return not others if self.doubly_reparameterised is None else self.doubly_reparameterised

    def _doubly_reparameterised(
        self,
        plan: Plan,
        guide: Guide,
        log_p: Callable[[dict[str, Any]], Array],
        values: dict[str, Any],
        log_ratio: Array,
    ) -> Array:
        """The bound, with gradients through draws weighed by their own weights once more."""
        weight = jax.lax.stop_gradient(normalised(log_ratio, self.order))
        names = [site.name for site in plan.sites]

        def again(values: dict[str, Any], factor: Array) -> Array:
            values = {name: scale_gradient(value, factor) for name, value in values.items()}
            log_q = frozen_log_q(plan, guide, values, names)
            return log_p(values) - sum(log_q.values())

        factor = self.order + (1.0 - self.order) * weight
        terms = weight * jax.vmap(again)(values, factor)
        bound = jax.lax.stop_gradient(power_mean(log_ratio, self.order))
        return bound + gradient_only(jnp.sum(terms, 0))


def _default(site: Site, settings: int) -> AbstractEstimator:
    return Pathwise() if site.pathwise else LeaveOneOut()


@dataclasses.dataclass(frozen=True)
class ImportanceWeighted(AbstractWeighted):
    """The importance-weighted bound, E[log 1/K sum_k p/q] (Burda, Grosse and Salakhutdinov 2016).

    It grows with ``samples`` from the ELBO towards the log evidence. Values of several data are
    added, each with weights of its own. The cost is that of ``samples`` evaluations of the log
    joint, twice that to differentiate where draws are doubly reparameterised.

    Attributes:
        samples: K, draws of q, at least 1; sites without reparameterised draws need 2.
        estimator: None, a name or settings for all sites, or a mapping for some of them: pathwise,
            score, leave-one-out (VIMCO's, the default without a path; its memory grows with the
            square of ``samples``), a Baseline, or a relaxation. Sites with a sum over their values
            belong into the log joint.
        doubly_reparameterised: None: where all sites are pathwise. The gradient is unbiased with
            and without; without, its signal-to-noise ratio falls as ``samples`` grows.
    """

    samples: int
    estimator: Estimators | None = None
    doubly_reparameterised: bool | None = None

    def __post_init__(self) -> None:
        """Check the number of samples, and make the settings hashable."""
        check_samples(self.samples)
        object.__setattr__(self, "estimator", hashable(self.estimator))

    @property
    @override
    def order(self) -> float | int:
        return 0.0


@dataclasses.dataclass(frozen=True)
class Renyi(AbstractWeighted):
    """The estimate of Renyi's alpha bound with several draws (Li and Turner 2016).

    Its expectation falls with alpha: the importance-weighted bound at 0, the ELBO at 1. All is
    as in :class:`ImportanceWeighted` otherwise.

    Attributes:
        alpha: at least 0, finite.
        samples: draws of q, at least 1.
        estimator: as in ImportanceWeighted.
        doubly_reparameterised: as in ImportanceWeighted.
    """

    alpha: float | int
    samples: int
    estimator: Estimators | None = None
    doubly_reparameterised: bool | None = None

    def __post_init__(self) -> None:
        """Check alpha and the number of samples, and make the settings hashable."""
        check_samples(self.samples)
        object.__setattr__(self, "estimator", hashable(self.estimator))
        if not (math.isfinite(self.alpha) and self.alpha >= 0):
            raise ArgumentError(
                f"alpha must be at least 0 and finite, got {self.alpha}; 0 is the "
                "importance-weighted bound, 1 the ELBO"
            )

    @property
    @override
    def order(self) -> float | int:
        return self.alpha


class Drawn(NamedTuple):
    """Independent draws of all sites, (samples, ...).

    Attributes:
        values: site -> values.
        log_q: joint log density, (samples,) or (samples, n).
        scores: site -> score, of the sites that have one.
        baselines: site -> learned baseline.
    """

    values: dict[str, Any]
    log_q: Array
    scores: dict[str, Array]
    baselines: dict[str, Array]


def draw_many(plan: Plan, guide: Guide, keys: Array) -> Drawn:
    """Draw all sites for each key.

    Raises:
        ArgumentError: if the data have an axis that a site lacks: weights are per datum.
    """
    for site in plan.sites:
        if plan.num_data and not site.local:
            raise ArgumentError(
                f"each datum has importance weights of its own, and site '{site.name}' of shape "
                f"{site.shape} is shared by all {plan.num_data}; return one number from log_joint "
                "for weights of all data together"
            )

    def one(key: Any) -> Drawn:
        draws = draw(plan, guide, key, Run(False, {}))
        log_q = functools.reduce(jnp.add, (d.log_q for d in draws.drawn.values()))
        scores = {name: d.score for name, d in draws.drawn.items() if d.score is not None}
        return Drawn(draws.values, log_q, scores, learned_baselines(plan, draws))

    return jax.vmap(one)(keys)


def log_density(plan: Plan, log_joint: LogJoint, prior: Prior, values: dict[str, Any]) -> Array:
    """Log joint density of one draw, () or (n,).

    Raises:
        ArgumentError: if the data have an axis and a term of the log joint has not.
    """
    terms = log_joint(values)
    if plan.num_data and any(jnp.ndim(leaf) == 0 for leaf in jax.tree.leaves(terms)):
        raise ArgumentError(
            "each datum has importance weights of its own, and a term of log_joint is shared by "
            f"all {plan.num_data}; return one number for weights of all data together"
        )
    total = with_priors(log_joint_terms(terms, plan.num_data), plan, prior, values)
    return total.local if plan.num_data else total.shared


def normalised(log_ratio: Array, order: float | int = 0.0) -> Array:
    """Weights that sum to one over the first axis."""
    return jax.nn.softmax((1.0 - order) * log_ratio, axis=0)


def power_mean(log_ratio: Array, order: float | int = 0.0) -> Array:
    """The bound's estimate from log ratios, over the first axis; accurate for alpha near 1."""
    if order == 1:
        return jnp.mean(log_ratio, 0)
    extreme = jnp.max(log_ratio, 0) if order < 1 else jnp.min(log_ratio, 0)
    shift = jax.lax.stop_gradient(jnp.where(jnp.isfinite(extreme), extreme, 0.0))
    excess = jnp.expm1((1.0 - order) * (log_ratio - shift))
    return shift + jnp.log1p(jnp.mean(excess, 0)) / (1.0 - order)


@jax.custom_jvp
def scale_gradient(value: Array, factor: Array) -> Array:
    """The value, with its gradient multiplied by () or one number per datum."""
    return value


@scale_gradient.defjvp
def _scale_gradient_jvp(primals: Any, tangents: Any) -> tuple[Array, Array]:
    (value, factor), (tangent, _) = primals, tangents
    spread = jnp.reshape(factor, factor.shape + (1,) * (value.ndim - factor.ndim))
    return value, (spread * tangent).astype(value.dtype)


def _signal(
    estimator: AbstractEstimator,
    log_ratio: Array,
    bound: Array,
    order: float | int,
    learned: Array | None,
) -> tuple[Array, Array]:
    """What a score is multiplied by, draw by draw, and the squared error of a learned baseline."""
    if isinstance(estimator, LeaveOneOut):
        return bound - _without_each(jax.lax.stop_gradient(log_ratio), order), jnp.zeros(())
    if learned is None:
        return jnp.broadcast_to(bound, log_ratio.shape), jnp.zeros(())
    misfit = 0.5 * jnp.mean((jax.lax.stop_gradient(bound) - learned) ** 2, 0)
    return bound - jax.lax.stop_gradient(learned), misfit


def _without_each(log_ratio: Array, order: float | int) -> Array:
    """The bound with each draw's log ratio replaced by the mean of the others' (VIMCO, eq. 10)."""
    count = len(log_ratio)
    others = (jnp.sum(log_ratio, 0) - log_ratio) / (count - 1)
    own = jnp.eye(count, dtype=bool).reshape(count, count, *(1,) * (log_ratio.ndim - 1))
    return power_mean(jnp.where(own, others[:, None], log_ratio[:, None]), order)
