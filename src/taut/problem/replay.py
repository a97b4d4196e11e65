"""Running a NumPyro model at given coordinates, as pure functions."""

import functools
import math
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpyro
from numpyro import handlers
from numpyro.distributions.transforms import biject_to
from numpyro.primitives import Messenger

from taut._core.errors import ModelError
from taut.problem import coordinates
from taut.problem.data import Path, join, split
from taut.problem.dependence import at_step
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
    values: Mapping[str, Any],
    centring: Mapping[str, Any],
    states: Mapping[str, Any],
    site: dict[str, Any],
) -> Any:
    """Give a latent site its value from coordinates and add the log Jacobian as a factor."""
    name = site["name"]
    if site["type"] == "sample" and not site["is_observed"] and name in states:
        return _discrete_value(states[name], site)
    if site["type"] != "sample" or site["is_observed"] or name not in values:
        return None
    u, lam = values[name], centring.get(name)
    index = site["infer"].get("_scan_current_index", None)
    if index is not None and jnp.ndim(u) > len(_domain_shape(site["fn"])):
        u, lam = u[index], lam if lam is None or jnp.ndim(lam) == 0 else lam[index]
    value, log_det = coordinates.constrain(site["fn"], u, lam)
    numpyro.factor(LOG_DET.format(name), log_det)
    return value


def _discrete_value(states: Any, site: dict[str, Any]) -> Any:
    """The value with the given index in the support; inside a scan, that of the current step."""
    fn, index = site["fn"], site["infer"].get("_scan_current_index", None)
    support = fn.enumerate_support(expand=False).reshape(-1)
    if index is not None:
        states = at_step(states, index)
    if states.size != math.prod(fn.shape()):
        raise ModelError(
            f"the discrete latent '{site['name']}' lies in a scan inside of a scan, which cannot be summed out; "
            "put one of them into a plate"
        )
    return support[states.reshape(fn.shape())]


def _domain_shape(fn: Any) -> tuple[int, ...]:
    return tuple(biject_to(fn.support).inverse_shape(fn.shape()))


def log_prob(site: Mapping[str, Any]) -> Any:
    """Pointwise log density of a traced site."""
    if site["intermediates"]:
        return site["fn"].log_prob(site["value"], site["intermediates"])
    return site["fn"].log_prob(site["value"])


class Functions:
    """The pure functions of one model structure.

    Attributes:
        model: the model function.
        fixed: those of its arguments that are part of the structure.
        latents: the continuous latents.
        discrete: the discrete latents.
    """

    def __init__(
        self,
        model: Model,
        fixed: Mapping[Path, Any],
        latents: tuple[Latent, ...],
        discrete: tuple[Latent, ...] = (),
    ) -> None:
        self.model, self.fixed, self.latents, self.discrete = model, fixed, latents, discrete

    def trace(self, u: Any, arrays: Arrays, states: Mapping[str, Any] | None = None) -> Trace:
        """Trace the model at one unconstrained point."""
        values = {s.name: u[s.slice].reshape(s.unconstrained_shape) for s in self.latents}
        return self.trace_sites(values, arrays, states=states)

    def trace_sites(
        self,
        values: Mapping[str, Any],
        arrays: Arrays,
        key: Any = None,
        states: Mapping[str, Any] | None = None,
    ) -> Trace:
        """Trace the model at coordinates given by latent.

        Args:
            values: coordinates of the continuous latents.
            arrays: data, observed values, centring.
            key: random key for what the model draws outside of its sites.
            states: index of the value of each element of the discrete latents; None takes the
                first value of all.
        """
        key = jax.random.key(0) if key is None else key
        if states is None:
            states = {s.name: jnp.zeros(s.shape, int) for s in self.discrete}
        substitute = functools.partial(_substitute, values, arrays["centring"], states)
        return run(self.model, self._kwargs(arrays), arrays["observe"], substitute, key)

    def sum_sites(self, trace: Trace, dtype: Any) -> dict[str, Any]:
        """Add up a trace: site -> log density, Jacobians with the latents that they belong to."""
        totals: dict[str, Any] = {}
        jacobians = {LOG_DET.format(s.name): s.name for s in self.latents}
        for name, site in trace.items():
            if site["type"] != "sample":
                continue
            value = jnp.sum(log_prob(site))
            if name not in jacobians and site["scale"] is not None:
                value = value * site["scale"]
            owner = jacobians.get(name, name)
            totals[owner] = totals.get(owner, 0.0) + jnp.asarray(value, dtype)
        return totals

    def log_joint_sites(self, u: Any, arrays: Arrays) -> dict[str, Any]:
        """Site by site log joint at one point."""
        return self.sum_sites(self.trace(u, arrays), u.dtype)

    def densities(
        self,
        values: Mapping[str, Any],
        arrays: Arrays,
        own: frozenset[str],
        log_density: Callable[[Any, Any, bool], Any],
    ) -> dict[str, Any]:
        """Site by site log joint, with some latents in their own support.

        Args:
            values: latent -> its value, for those in ``own``, or else its real coordinates.
            arrays: the data, and the centring of latents that are not left in centred coordinates.
            own: latents given in their own support, discrete ones among them; they get no Jacobian.
            log_density: (distribution, value, whether it is data) -> pointwise log density, or
                None to take the distribution's own.
        """
        substitute = functools.partial(_give_or_map, own, values, arrays["centring"])
        key = jax.random.key(0)
        trace = run(self.model, self._kwargs(arrays), arrays["observe"], substitute, key)
        names = {LOG_DET.format(n): n for n in values if n not in own}
        totals: dict[str, Any] = {}
        for name, site in trace.items():
            if site["type"] != "sample":
                continue
            pointwise = log_density(site["fn"], site["value"], bool(site["is_observed"]))
            total = jnp.sum(log_prob(site) if pointwise is None else pointwise)
            if name not in names and site["scale"] is not None:
                total = total * site["scale"]
            owner = names.get(name, name)
            totals[owner] = totals.get(owner, 0.0) + total
        return totals

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
        observed = self.observed_in(self.trace(u, arrays))
        return {name: log_prob(site) for name, site in observed.items()}

    def observed_values(self, arrays: Arrays) -> dict[str, Any]:
        """Values of the observed sites."""
        point = jnp.zeros(sum(s.size for s in self.latents))
        observed = self.observed_in(self.trace(point, arrays))
        return {name: site["value"] for name, site in observed.items()}

    def _kwargs(self, arrays: Arrays) -> dict[str, Any]:
        dynamic, _ = split(arrays["data"])
        return join(dynamic, self.fixed)

    def observed_in(self, trace: Trace) -> Trace:
        """The observed sites of a trace."""
        return {
            name: site
            for name, site in trace.items()
            if site["type"] == "sample" and site["is_observed"] and not is_factor(site)
        }


def _give_or_map(
    own: frozenset[str],
    values: Mapping[str, Any],
    centring: Mapping[str, Any],
    site: dict[str, Any],
) -> Any:
    """Give a latent its value, as it is or from its real coordinates."""
    if site["name"] in own:
        return _give(values, site)
    return _substitute(values, centring, {}, site)


def _give(values: Mapping[str, Any], site: dict[str, Any]) -> Any:
    """Give a latent site its value; inside a scan, that of the current step."""
    value = values.get(site["name"]) if site["type"] == "sample" else None
    index = site["infer"].get("_scan_current_index", None) if value is not None else None
    if value is not None and index is not None and jnp.ndim(value) > len(site["fn"].shape()):
        return value[index]
    return value
