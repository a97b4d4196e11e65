"""Priors given as distributions: checked against the guide, and their divergence from q."""

from collections.abc import Mapping
from typing import Any

import jax.numpy as jnp
from jaxtyping import Array
from numpyro.distributions import Distribution

from taut._core.errors import ArgumentError, listing, nearest
from taut.bounds import discrete
from taut.bounds.divergence import closed_divergence
from taut.bounds.estimators import AbstractEstimator, Site, StickingTheLanding
from taut.bounds.guide import Draws, Plan
from taut.bounds.terms import Terms

Prior = Mapping[str, Distribution]


def check_prior(prior: Prior | None, plan: Plan) -> Prior:
    """The priors; an error where one cannot be that of its site."""
    prior = {} if prior is None else prior
    names = [site.name for site in plan.sites]
    for name, distribution in prior.items():
        if name not in names:
            raise ArgumentError(
                f"prior: the guide has no site '{name}'{nearest(name, names)} "
                f"It has {listing(names)}"
            )
        _check_shapes(distribution, *plan[name])
    return prior


def _check_shapes(prior: Distribution, site: Site, estimator: AbstractEstimator) -> None:
    if tuple(prior.event_shape) != site.event_shape:
        size = len(site.event_shape)
        raise ArgumentError(
            f"prior: site '{site.name}' has event shape {site.event_shape} in the guide, and its "
            f"prior {tuple(prior.event_shape)}; use prior.expand({list(site.event_shape)})"
            f".to_event({size}), or to_event in the guide"
        )
    batch_shape = site.shape[: len(site.shape) - len(site.event_shape)]
    if not _broadcasts(tuple(prior.batch_shape), batch_shape):
        raise ArgumentError(
            f"prior: site '{site.name}' has batch shape {batch_shape} in the guide, to which "
            f"{tuple(prior.batch_shape)} does not broadcast"
        )
    if estimator.relaxes and not _is_relaxable(prior):
        raise ArgumentError(
            f"prior: site '{site.name}' is relaxed by '{estimator.name}', and its prior must be "
            f"Bernoulli or categorical like it, got {type(prior).__name__}"
        )


def _broadcasts(shape: tuple[int, ...], target: tuple[int, ...]) -> bool:
    try:
        return jnp.broadcast_shapes(shape, target) == target
    except ValueError:
        return False


def _is_relaxable(prior: Distribution) -> bool:
    return isinstance(discrete.element_of(prior), discrete.RELAXABLE)


def log_prior(site: Site, estimator: AbstractEstimator, prior: Distribution, value: Any) -> Array:
    """Log prior density of a site's value, () or (n,)."""
    if estimator.relaxes:
        return site.reduce(discrete.linear_log_prob(prior, value))
    return site.log_prob(prior, value)


def closed_terms(plan: Plan, prior: Prior, draws: Draws) -> dict[str, Array]:
    """Minus the divergences that have a closed form, by site, () or (n,)."""
    found = {}
    for name, distribution in prior.items():
        site, estimator = plan[name]
        if isinstance(estimator, StickingTheLanding):
            continue  # its point is that log p and log q cancel draw by draw
        divergence = closed_divergence(draws.distributions[name], distribution)
        if divergence is not None:
            found[name] = -site.reduce(divergence)
    return found


def with_priors(terms: Terms, plan: Plan, prior: Prior, values: dict[str, Any]) -> Terms:
    """Add the log prior densities of the sites that have one."""
    for name, distribution in prior.items():
        terms = terms.add(log_prior(*plan[name], distribution, values[name]))
    return terms
