"""Running a NumPyro model at given coordinates, as pure functions."""

import functools
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpyro
from numpyro import handlers
from numpyro.distributions.transforms import biject_to
from numpyro.primitives import Messenger

from taut.problem import coordinates
from taut.problem.data import Path, join, split
from taut.problem.types import Arrays, Latent

Model = Callable[..., Any]
Trace = Mapping[str, dict[str, Any]]
LOG_DET = "_{}_log_det"


class Whole(Messenger):
    """Handler that runs subsampled plates at their full size.

    A subsample drawn while the model is traced would be frozen into the density.

    Attributes:
        active: False leaves plates as they are.
        draws_keys: True once the model has asked for a random key of its own.
    """

    def __init__(self, fn: Model, active: bool = True) -> None:
        super().__init__(fn)
        self.active, self.draws_keys = active, False

    def process_message(self, msg: dict[str, Any]) -> None:
        """Replace a plate's subsample by all of it; remember requests for keys."""
        if msg["type"] == "prng_key":
            self.draws_keys = True
        if msg["type"] != "plate" or not self.active:
            return
        size, subsample_size = msg["args"]
        if subsample_size is not None and subsample_size != size:
            msg["args"], msg["value"] = (size, size), jnp.arange(size)
            msg["infer"] = {"subsample_size": subsample_size}


class Unobserve(Messenger):
    """Handler that forgets the values of observed sites, so that they are drawn anew."""

    def __init__(self, fn: Model, names: tuple[str, ...]) -> None:
        super().__init__(fn)
        self.names = names

    def process_message(self, msg: dict[str, Any]) -> None:
        """Turn the named observed sites into sites to be drawn."""
        if msg["type"] == "sample" and msg["is_observed"] and msg["name"] in self.names:
            msg["is_observed"], msg["value"] = False, None


def run(
    model: Model,
    kwargs: Mapping[str, Any],
    observed: Mapping[str, Any],
    substitute_fn: Any,
    key: Any,
) -> Trace:
    """Trace the model, conditioned on ``observed``, other sites given by ``substitute_fn``."""
    whole = model if isinstance(model, Whole) else Whole(model)
    conditioned = handlers.condition(whole, data=dict(observed)) if observed else whole
    substituted = handlers.substitute(handlers.seed(conditioned, key), substitute_fn=substitute_fn)
    return handlers.trace(substituted).get_trace(**kwargs)


def is_factor(site: Mapping[str, Any]) -> bool:
    """True for sites made by ``numpyro.factor``."""
    return isinstance(coordinates.unwrap(site["fn"]), numpyro.distributions.Unit)


def _substitute(
    values: Mapping[str, Any], centring: Mapping[str, Any], site: dict[str, Any]
) -> Any:
    """Give a latent site its value from coordinates and add the log Jacobian as a factor."""
    name = site["name"]
    if site["type"] != "sample" or site["is_observed"] or name not in values:
        return None
    u, lam = values[name], centring.get(name)
    index = site["infer"].get("_scan_current_index", None)
    if index is not None and jnp.ndim(u) > len(_domain_shape(site["fn"])):
        u, lam = u[index], None if lam is None else lam[index]
    value, log_det = coordinates.constrain(site["fn"], u, lam)
    numpyro.factor(LOG_DET.format(name), log_det)
    return value


def _domain_shape(fn: Any) -> tuple[int, ...]:
    return tuple(biject_to(fn.support).inverse_shape(fn.shape()))


def _log_prob(site: Mapping[str, Any]) -> Any:
    """Pointwise log density of a traced site."""
    if site["intermediates"]:
        return site["fn"].log_prob(site["value"], site["intermediates"])
    return site["fn"].log_prob(site["value"])


class Functions:
    """The pure functions of one model structure."""

    def __init__(
        self, model: Model, fixed: Mapping[Path, Any], latents: tuple[Latent, ...]
    ) -> None:
        self.model, self.fixed, self.latents = model, fixed, latents

    def trace(self, u: Any, arrays: Arrays) -> Trace:
        """Trace the model at one unconstrained point."""
        values = {s.name: u[s.slice].reshape(s.unconstrained_shape) for s in self.latents}
        return self.trace_sites(values, arrays)

    def trace_sites(self, values: Mapping[str, Any], arrays: Arrays, key: Any = None) -> Trace:
        """Trace the model at coordinates given by latent."""
        key = jax.random.key(0) if key is None else key
        substitute = functools.partial(_substitute, values, arrays["centring"])
        return run(self.model, self._kwargs(arrays), arrays["observe"], substitute, key)

    def sum_sites(self, trace: Trace, dtype: Any) -> dict[str, Any]:
        """Add up a trace: site -> log density, Jacobians with the latents that they belong to."""
        totals: dict[str, Any] = {}
        jacobians = {LOG_DET.format(s.name): s.name for s in self.latents}
        for name, site in trace.items():
            if site["type"] != "sample":
                continue
            value = jnp.sum(_log_prob(site))
            if name not in jacobians and site["scale"] is not None:
                value = value * site["scale"]
            owner = jacobians.get(name, name)
            totals[owner] = totals.get(owner, 0.0) + jnp.asarray(value, dtype)
        return totals

    def log_joint_sites(self, u: Any, arrays: Arrays) -> dict[str, Any]:
        """Site by site log joint at one point."""
        return self.sum_sites(self.trace(u, arrays), u.dtype)

    def constrain(self, u: Any, arrays: Arrays) -> dict[str, Any]:
        """Latents and deterministic sites at one point."""
        latents = {s.name for s in self.latents}
        return {
            name: jnp.asarray(site["value"])
            for name, site in self.trace(u, arrays).items()
            if name in latents or site["type"] == "deterministic"
        }

    def unconstrain(self, values: Mapping[str, Any], arrays: Arrays) -> Any:
        """The point at which the latents have these values."""
        given = {s.name: jnp.asarray(values[s.name], float) for s in self.latents}
        substitute = functools.partial(_give, given)
        trace = run(
            self.model, self._kwargs(arrays), arrays["observe"], substitute, jax.random.key(0)
        )
        centring = arrays["centring"]
        parts = [
            coordinates.unconstrain(
                trace[s.name]["fn"], trace[s.name]["value"], centring.get(s.name)
            )
            for s in self.latents
        ]
        return jnp.concatenate([jnp.ravel(p) for p in parts])

    def log_likelihood(self, u: Any, arrays: Arrays) -> dict[str, Any]:
        """Pointwise log likelihood of the observed sites at one point."""
        return {name: _log_prob(site) for name, site in self._observed(u, arrays).items()}

    def observed_values(self, arrays: Arrays) -> dict[str, Any]:
        """Values of the observed sites."""
        point = jnp.zeros(sum(s.size for s in self.latents))
        return {name: site["value"] for name, site in self._observed(point, arrays).items()}

    def _kwargs(self, arrays: Arrays) -> dict[str, Any]:
        dynamic, _ = split(arrays["data"])
        return join(dynamic, self.fixed)

    def _observed(self, u: Any, arrays: Arrays) -> Trace:
        return {
            name: site
            for name, site in self.trace(u, arrays).items()
            if site["type"] == "sample" and site["is_observed"] and not is_factor(site)
        }


def _give(values: Mapping[str, Any], site: dict[str, Any]) -> Any:
    """Give a latent site its value; inside a scan, that of the current step."""
    value = values.get(site["name"]) if site["type"] == "sample" else None
    index = site["infer"].get("_scan_current_index", None) if value is not None else None
    if value is not None and index is not None and jnp.ndim(value) > len(site["fn"].shape()):
        return value[index]
    return value
