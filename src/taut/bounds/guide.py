"""Running a guide: what its sites are, draws of them, and densities at given values."""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array
from numpyro.distributions import Distribution

from taut._core.errors import ArgumentError, listing, nearest
from taut.bounds import discrete
from taut.bounds.estimators import (
    MAX_CONFIGURATIONS,
    AbstractEstimator,
    Baseline,
    DisARM,
    Drawn,
    Estimators,
    Run,
    Site,
    has_path,
    named,
)
from taut.bounds.types import Guide, LogJoint, Sample

Default = Callable[[Site, int], AbstractEstimator]
"""(site, settings enumerated so far) -> the estimator that a bound chooses."""


@dataclasses.dataclass(frozen=True)
class Plan:
    """The sites of a guide with their estimators.

    Attributes:
        sites: in the order of drawing.
        estimators: one per site.
        num_data: length of the data axis; 0 where the log joint is one number.
    """

    sites: tuple[Site, ...]
    estimators: tuple[AbstractEstimator, ...]
    num_data: int

    def __getitem__(self, name: str) -> tuple[Site, AbstractEstimator]:
        """A site and its estimator."""
        index = next(site.index for site in self.sites if site.name == name)
        return self.sites[index], self.estimators[index]

    def using(self, *kinds: type[AbstractEstimator]) -> tuple[Site, ...]:
        """The sites whose estimator is of some kinds."""
        pairs = zip(self.sites, self.estimators, strict=True)
        return tuple(site for site, estimator in pairs if isinstance(estimator, kinds))


def run_guide(guide: Guide, sample: Sample) -> None:
    """Draw every site in turn."""
    if isinstance(guide, Mapping):
        for name, distribution in guide.items():
            sample(name, distribution)
    else:
        guide(sample)


def make_plan(
    log_joint: LogJoint,
    guide: Guide,
    key: Any,
    estimator: Estimators | None,
    shared: Sequence[str],
    default: Default,
) -> Plan:
    """Find the sites and the data axis without computing anything, and choose estimators."""
    chosen = _chosen(estimator)
    shared = (shared,) if isinstance(shared, str) else shared
    found, num_data = _discover(log_joint, guide, key, chosen)
    unknown = [name for name in (*chosen, *shared) if name != "" and name not in found]
    if unknown:
        raise ArgumentError(
            f"the guide has no site '{unknown[0]}'{nearest(unknown[0], found)} "
            f"It has {listing(found)}"
        )
    sites, estimators, settings = [], [], 1
    for name, (site, batch_shape) in found.items():
        local = num_data > 0 and batch_shape[:1] == (num_data,) and name not in shared
        site = dataclasses.replace(site, local=local)
        pick = chosen.get(name, chosen.get("")) or default(site, settings)
        pick.check(site)
        settings *= site.num_configurations if pick.name == "enumerate" else 1
        sites.append(site)
        estimators.append(pick)
    if settings > MAX_CONFIGURATIONS:
        raise ArgumentError(
            f"estimator: the enumerated sites have {settings} settings together, and at most "
            f"{MAX_CONFIGURATIONS} are summed over; try 'leave-one-out' for some of them"
        )
    plan = Plan(tuple(sites), tuple(estimators), num_data)
    _check_pairs(plan, guide)
    return plan


def _chosen(estimator: Estimators | None) -> dict[str, AbstractEstimator]:
    """Site -> estimator; "" stands for all sites."""
    if estimator is None:
        return {}
    if isinstance(estimator, Mapping):
        estimator = tuple(estimator.items())
    if isinstance(estimator, tuple):
        return {name: named(choice) for name, choice in estimator}
    return {"": named(estimator)}


def _check_pairs(plan: Plan, guide: Guide) -> None:
    antithetic = plan.using(DisARM)
    if len(antithetic) > 1 and not isinstance(guide, Mapping):
        raise ArgumentError(
            "estimator: 'disarm' is for one site of a guide function, since the members of a pair "
            f"must have the same logits; got {listing(s.name for s in antithetic)}. Try "
            "'leave-one-out' for the others, or a mapping if the sites are independent"
        )


def _discover(
    log_joint: LogJoint, guide: Guide, key: Any, chosen: dict[str, AbstractEstimator]
) -> tuple[dict[str, tuple[Site, tuple[int, ...]]], int]:
    found: dict[str, tuple[Site, tuple[int, ...]]] = {}

    def trace(key: Any) -> Any:
        values = {}

        def sample(name: str, distribution: Distribution) -> Any:
            _check_site(name, distribution, found)
            site = _site(name, len(found), distribution)
            found[name] = site, distribution.batch_shape
            pick = chosen.get(name, chosen.get(""))
            values[name] = distribution.sample(key)
            if pick is not None and pick.relaxes and site.relaxable:
                values[name] = discrete.relaxed_draw(distribution, key, 1.0)
            return values[name]

        run_guide(guide, sample)
        return log_joint(values)

    terms = jax.eval_shape(trace, key)
    if not found:
        raise ArgumentError("the guide draws no site; give at least one distribution")
    return found, _data_axis(terms)


def _check_site(name: str, distribution: Distribution, found: Mapping[str, Any]) -> None:
    if not isinstance(distribution, Distribution):
        raise ArgumentError(
            f"guide: site '{name}' must be a NumPyro distribution, got {type(distribution).__name__}"
        )
    if name in found:
        raise ArgumentError(f"guide: site '{name}' is drawn twice; give each site its own name")


def _data_axis(terms: Any) -> int:
    shapes = [jnp.shape(leaf) for leaf in jax.tree.leaves(terms)]
    lengths = {shape[0] for shape in shapes if len(shape) == 1}
    if not shapes or any(len(shape) > 1 for shape in shapes) or len(lengths) > 1:
        raise ArgumentError(
            "log_joint must return a number, an array with one element per datum, or a mapping of "
            f"those with equal lengths; got shapes {shapes}. Sum over the axes after the first"
        )
    return lengths.pop() if lengths else 0


def _site(name: str, index: int, distribution: Distribution) -> Site:
    element = discrete.element_of(distribution)
    is_discrete = discrete.is_discrete(distribution)
    return Site(
        name=name,
        index=index,
        distribution=type(element).__name__,
        shape=tuple(distribution.shape()),
        event_shape=tuple(distribution.event_shape),
        local=False,
        discrete=is_discrete,
        pathwise=not is_discrete and has_path(distribution),
        relaxable=isinstance(element, discrete.RELAXABLE),
        binary=isinstance(element, discrete.BERNOULLI),
        num_values=discrete.support_size(distribution) if is_discrete else 0,
    )


@dataclasses.dataclass(frozen=True)
class Draws:
    """One run of a guide.

    Attributes:
        values: site -> value.
        drawn: site -> value, log density and score.
        distributions: site -> its distribution in this run.
        earlier: site -> the values drawn before it.
    """

    values: dict[str, Any]
    drawn: dict[str, Drawn]
    distributions: dict[str, Distribution]
    earlier: dict[str, dict[str, Any]]


def draw(plan: Plan, guide: Guide, key: Any, run: Run) -> Draws:
    """Draw all sites once, each with a key of its own."""
    found = Draws({}, {}, {}, {})

    def sample(name: str, distribution: Distribution) -> Any:
        site, estimator = plan[name]
        site_key = jax.random.fold_in(key, site.index)
        found.earlier[name] = dict(found.values)
        found.distributions[name] = distribution
        found.drawn[name] = estimator.draw(site, distribution, site_key, run)
        found.values[name] = found.drawn[name].value
        return found.values[name]

    run_guide(guide, sample)
    return found


def learned_baselines(plan: Plan, draws: Draws) -> dict[str, Array]:
    """Site -> its baseline given the values drawn before it, () or (n,)."""
    found = {}
    for name, earlier in draws.earlier.items():
        site, estimator = plan[name]
        if isinstance(estimator, Baseline):
            baseline = estimator.function(jax.lax.stop_gradient(earlier))
            found[name] = jnp.broadcast_to(baseline, (plan.num_data,) if site.local else ())
    return found


def frozen_log_q(
    plan: Plan, guide: Guide, values: dict[str, Any], names: Sequence[str]
) -> dict[str, Array]:
    """Log density of some sites at given values, whose gradient takes the values' way only.

    What the guide closes over is stopped, not the distributions: their parameters may depend on
    values of earlier sites, through which gradients flow.
    """

    def replay(values: dict[str, Any]) -> dict[str, Array]:
        found = {}

        def sample(name: str, distribution: Distribution) -> Any:
            if name in names:
                found[name] = plan[name][0].log_prob(distribution, values[name])
            return values[name]

        run_guide(guide, sample)
        return found

    closed, captured = jax.closure_convert(replay, values)
    return closed(values, *jax.lax.stop_gradient(captured))
