"""What is minimised: a bound on the log evidence, or a log density, over some rows."""

import dataclasses
import functools
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpyro.distributions as dist
from jaxtyping import Array
from numpyro.distributions.transforms import biject_to

from taut._core.errors import ArgumentError
from taut.bounds import (
    ELBO,
    AbstractBound,
    Estimate,
    ReweightedWakeSleep,
    WakeSleep,
    closed_divergence,
)
from taut.data.feeds import Batch
from taut.deep.guides import AbstractGuide
from taut.deep.rows import RowModel
from taut.solvers.stochastic import Stochastic

LEAST_KL_WEIGHT = 1e-2  # at the first step of a warm-up


class AbstractObjective:
    """What is minimised; it keeps the programs that were compiled for it."""

    model: RowModel

    @functools.cached_property
    def _programs(self) -> dict[Any, Any]:
        return {}

    def compiled(self, function: Callable[..., Any], *settings: Any) -> Callable[..., Any]:
        """``function(self, *settings, ...)`` of the arguments that are left, compiled once.

        Args:
            function: of a module, so that it is the same at the next call.
            settings: hashable.
        """
        key = (function, settings)
        if key not in self._programs:
            self._programs[key] = jax.jit(functools.partial(function, self, *settings))
        return self._programs[key]


@dataclasses.dataclass(frozen=True, eq=False)
class Bound(AbstractObjective):
    """A bound for a model, q and settings, as training and evaluation call it.

    Attributes:
        model: the model.
        guide: q.
        settings: bound, warm-up and free bits.
        num_rows: rows of the data in all.
        steps_per_epoch: for the warm-up.
        independent: latents whose prior depends on no other latent.
        supervise: partly observed label -> weight of its log q.
    """

    model: RowModel
    guide: AbstractGuide
    settings: Stochastic
    num_rows: int
    steps_per_epoch: int
    independent: frozenset[str]
    supervise: Mapping[str, float]

    def __call__(
        self, params: Any, batch: Batch, key: Any, step: Array
    ) -> tuple[Array, dict[str, Array]]:
        """The loss, nats per row, for :func:`taut.training.train`."""
        weight = self._kl_weight(step)
        bound = self.settings.bound or ELBO()
        found = self.estimate(params, batch, key, bound, weight)
        loss = -found.surrogate * weight
        if self.settings.free_bits:
            loss = loss - self._free(params, batch, key) * weight
        for name, factor in self.supervise.items():
            loss = loss - factor * self._log_labels(name, params, batch)
        return loss / self.num_rows, {}

    def _kl_weight(self, step: Array) -> Array:
        """From nearly 0 to 1 in the epochs of the warm-up."""
        steps = self.settings.kl_warmup * self.steps_per_epoch
        if not steps:
            return jnp.ones(())
        return jnp.clip(step / steps, LEAST_KL_WEIGHT, 1.0)

    def estimate(
        self,
        params: Any,
        batch: Batch,
        key: Any,
        bound: AbstractBound,
        kl_weight: Any = 1.0,
    ) -> Estimate:
        """A bound on some rows, scaled to all of them.

        A weight b of the divergence is that of 1/b for the likelihood, times b all in all.
        """
        theta, columns = params["model"], batch.columns
        prior, labels = self.priors(params, columns)
        skip = frozenset(prior)

        def log_joint(values: dict[str, Any]) -> dict[str, Any]:
            trace = self.model.trace(theta, values, columns, key)
            shared, rows = self.model.log_terms(trace, skip)
            rows = {n: x / kl_weight if n in self.model.observed else x for n, x in rows.items()}
            return {"shared": shared, **rows} if self.model.has_shared_terms else rows

        extra = {}
        if isinstance(bound, WakeSleep | ReweightedWakeSleep):
            extra["dream"] = functools.partial(self._dream, params, columns)
        return bound(
            log_joint,
            self.guide.sites(params["guide"], columns, labels),
            key,
            prior=prior,
            shared=tuple(n for n, s in self.model.latents.items() if not s.local),
            scale=batch.weight,
            **extra,
        )

    def _dream(self, params: Any, columns: Any, key: Any) -> tuple[dict[str, Any], Any]:
        """Latents and data drawn from the model, and q at these data."""
        observed = tuple(self.model.observed)
        trace = self.model.trace(params["model"], {}, columns, key, unobserve=observed)
        found = self.model.values(trace)
        drawn = {a: found[o] for o, a in self.model.arguments.items()}
        if missing := [o for o in observed if o not in self.model.arguments]:
            raise ArgumentError(
                f"the sleep phase draws data, and observed site '{missing[0]}' is no argument of the model itself; "
                "give ReweightedWakeSleep(phase='wake')"
            )
        guide = self.guide.sites(params["guide"], {**columns, **drawn}, {})
        return {n: found[n] for n in self.model.latents}, guide

    def priors(self, params: Any, columns: Any) -> tuple[dict[str, dist.Distribution], Any]:
        """Priors that depend on no other latent, and the labels that were observed."""
        values = self.standing_in(columns)
        trace = self.model.trace(params["model"], values, columns)
        found = self.model.distributions(trace)
        partly = set(self.model.partly)
        priors = {n: found[n] for n in self.independent if n not in partly}
        return priors, self.model.labels(trace)

    def standing_in(self, columns: Any) -> dict[str, Any]:
        """Values of all latents for some rows, of no meaning."""
        rows = len(jax.tree.leaves(columns)[0])
        found = {}
        for name, site in self.model.latents.items():
            value = jnp.asarray(site.initial)
            index = jnp.arange(rows) % site.shape[0] if site.local else None
            found[name] = value[index] if site.local else value
        return found

    def _free(self, params: Any, batch: Batch, key: Any) -> Array:
        """What free bits give back: nothing is gained by a divergence below them.

        Kingma et al. 2016, appendix C.8: for each dimension the mean over the rows counts.
        """
        least = self.settings.free_bits
        total = jnp.zeros(())
        for terms in self.divergences(params, batch.columns, key).values():
            flat = terms.reshape((len(terms), -1))
            each = jnp.einsum("n,nd->d", batch.weight, flat) / self.num_rows
            total = total + self.num_rows * jnp.sum(each - jnp.maximum(each, least))
        return total

    def divergences(self, params: Any, columns: Any, key: Any) -> dict[str, Array]:
        """Latent of rows -> KL(q || prior) by element where there is a closed form, (n, ...)."""
        priors, labels = self.priors(params, columns)
        found, seen = {}, {}

        def sample(name: str, fn: Any) -> Any:
            seen[name] = fn
            return fn.sample(jax.random.fold_in(key, len(seen)))

        self.guide.sites(params["guide"], columns, labels)(sample)
        for name, fn in seen.items():
            if name not in priors or not self.model.latents[name].local:
                continue
            terms = closed_divergence(elements(fn), elements(priors[name]))
            if terms is not None:
                found[name] = terms
        return found

    def _log_labels(self, name: str, params: Any, batch: Batch) -> Array:
        """Log q of the labels that were observed, over the rows."""
        trace = self.model.trace(params["model"], self.standing_in(batch.columns), batch.columns)
        observed, values = self.model.labels(trace)[name]
        fn = self.guide.encode(name, params["guide"], batch.columns, {})  # type: ignore[attr-defined]
        terms = fn.log_prob(jnp.maximum(values, 0))
        return jnp.sum(jnp.where(observed, batch.weight * terms, 0.0))


def elements(fn: Any) -> Any:
    """A distribution whose event axes have become batch axes, where they are independent."""
    if isinstance(fn, dist.Independent):
        return elements(fn.base_dist)
    if isinstance(fn, dist.ExpandedDistribution):
        return (
            elements(fn.base_dist).expand(fn.shape())
            if not fn.base_dist.event_shape
            else (_expanded(fn))
        )
    return fn


def _expanded(fn: Any) -> Any:
    inner = elements(fn.base_dist)
    return inner.expand(fn.shape()) if inner is not fn.base_dist and not inner.event_shape else fn


@dataclasses.dataclass(frozen=True, eq=False)
class LogDensity(AbstractObjective):
    """The log joint at one value of every latent, for maximum likelihood and a posteriori.

    Attributes:
        model: the model.
        num_rows: rows of the data in all.
    """

    model: RowModel
    num_rows: int

    def __call__(
        self, params: Any, batch: Batch, key: Any, step: Array
    ) -> tuple[Array, dict[str, Array]]:
        """The loss, nats per row, for :func:`taut.training.train`."""
        values = self.values(params)
        trace = self.model.trace(params["model"], values, batch.columns, key)
        shared, rows = self.model.log_terms(trace)
        total = shared + sum((jnp.sum(batch.weight * x) for x in rows.values()), jnp.zeros(()))
        return -total / self.num_rows, {}

    def values(self, params: Any) -> dict[str, Any]:
        """Latents in the model's own space."""
        sites = self.model.latents
        return {n: biject_to(sites[n].support)(u) for n, u in params["guide"].items()}
