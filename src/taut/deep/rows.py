"""NumPyro models with trained parameters, read as sums over rows of the data."""

import dataclasses
import functools
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
from numpyro import handlers
from numpyro.distributions.transforms import biject_to
from numpyro.primitives import Messenger

from taut.problem.replay import log_prob

UNOBSERVED = "_unobserved"  # NumPyro's name for the missing part of a partly observed site
OBSERVED = "_observed"


@dataclasses.dataclass(frozen=True)
class Site:
    """A site of the model.

    Attributes:
        name: its name; of a partly observed one the name without NumPyro's ending.
        shape: with ``size`` rows.
        event_dims: trailing axes that one log density belongs to.
        support: constraint of its values.
        discrete: whether its values are labels or counts.
        num_values: of a finite support; 0 otherwise.
        row_axis: axis of its log density that runs along the rows, from the right of the
            batch shape; None where it is shared by all rows.
        distribution: the name of its distribution's class.
        initial: a value to begin with.
    """

    name: str
    shape: tuple[int, ...]
    event_dims: int
    support: Any
    discrete: bool
    num_values: int
    row_axis: int | None
    distribution: str
    initial: Any = dataclasses.field(compare=False, hash=False)

    @property
    def local(self) -> bool:
        """Whether each row has its own."""
        return self.row_axis is not None


@dataclasses.dataclass(frozen=True, eq=False)
class RowModel:
    """A model as pure functions of its parameters, its latents and some rows.

    Attributes:
        model: a NumPyro model function.
        name: of the model.
        static: arguments that are the same for all rows.
        row_names: arguments with a row for each datum.
        latents: the latents by name; partly observed sites are among them.
        observed: the observed sites; partly observed ones are not among them.
        partly: latent -> argument-free observed values are inside of the model; names only.
        params: parameter -> its initial value, unconstrained.
        constraints: parameter -> its constraint.
        draws_keys: whether the model draws random numbers outside of its sites.
        examples: the arguments with rows, a few rows of them.
        arguments: observed site -> the argument that it is, where it is one.
        has_shared_terms: whether the log joint has terms that all rows share.
    """

    model: Callable[..., Any]
    name: str
    static: Mapping[str, Any]
    row_names: tuple[str, ...]
    latents: dict[str, Site]
    observed: dict[str, Site]
    partly: tuple[str, ...]
    params: dict[str, Any]
    constraints: dict[str, Any]
    draws_keys: bool
    examples: dict[str, Any]
    arguments: dict[str, str]
    has_shared_terms: bool

    def trace(
        self,
        params: Mapping[str, Any],
        values: Mapping[str, Any],
        columns: Mapping[str, Any],
        key: Any = None,
        unobserve: tuple[str, ...] = (),
    ) -> Mapping[str, dict[str, Any]]:
        """Run the model on some rows.

        Args:
            params: unconstrained parameters.
            values: of latents; others are drawn from the model.
            columns: the rows.
            key: of what is drawn.
            unobserve: observed sites to draw, too.
        """
        key = jax.random.key(0) if key is None else key
        given = {n: self.constrained(n, v) for n, v in params.items()}
        rows = len(jax.tree.leaves(columns)[0]) if columns else 0
        model = Clean(self.model, rows, frozenset(unobserve))
        filled = handlers.substitute(
            handlers.seed(model, key), substitute_fn=functools.partial(_give, given, values)
        )
        return handlers.trace(filled).get_trace(**self.static, **columns)

    def constrained(self, name: str, value: Any) -> Any:
        """A parameter in its own space."""
        constraint = self.constraints.get(name)
        return value if constraint is None else biject_to(constraint)(value)

    def log_terms(
        self, trace: Mapping[str, dict[str, Any]], skip: frozenset[str] = frozenset()
    ) -> tuple[Any, dict[str, Any]]:
        """The log joint of a trace: what all rows share, (), and each site's rows, (n,).

        Args:
            trace: of :meth:`trace`.
            skip: latents to leave out.
        """
        terms = self.terms(trace, skip)
        rows = {n: x for n, x in terms.items() if jnp.ndim(x)}
        shared = sum((x for n, x in terms.items() if n not in rows), jnp.zeros(()))
        return shared, rows

    def terms(
        self, trace: Mapping[str, dict[str, Any]], skip: frozenset[str] = frozenset()
    ) -> dict[str, Any]:
        """Site -> its log density in a trace, (n,) where it runs along rows and () otherwise."""
        found = {}
        for name, site in trace.items():
            known = self._known(name)
            if site["type"] != "sample" or (known is not None and known.name in skip):
                continue
            terms = log_prob(site) * _own_scale(trace, site)
            if known is not None and known.row_axis is not None:
                terms = jnp.moveaxis(terms, known.row_axis, 0)
                found[name] = jnp.sum(terms, tuple(range(1, terms.ndim)))
            else:
                found[name] = jnp.sum(terms)
        return found

    def _known(self, name: str) -> Site | None:
        base = name.removesuffix(UNOBSERVED).removesuffix(OBSERVED)
        found = self.latents.get(name) or self.observed.get(name)
        return found or (self.latents.get(base) if base in self.partly else None)

    def distributions(self, trace: Mapping[str, dict[str, Any]]) -> dict[str, Any]:
        """Latent -> its distribution in a trace, in its own support."""
        found = {}
        for name, site in trace.items():
            known = self._known(name) if site["type"] == "sample" else None
            if known is not None and known.name in self.latents and not name.endswith(OBSERVED):
                found[known.name] = _unmasked(site["fn"])
        return found

    def values(self, trace: Mapping[str, dict[str, Any]]) -> dict[str, Any]:
        """Latents, observed and deterministic sites of a trace."""
        wanted = {*self.latents, *self.observed}
        return {
            name: site["value"]
            for name, site in trace.items()
            if name in wanted or site["type"] == "deterministic"
        }

    def labels(self, trace: Mapping[str, dict[str, Any]]) -> dict[str, tuple[Any, Any]]:
        """Partly observed site -> (whether each row is observed, the observed values)."""
        found = {}
        for name in self.partly:
            site = trace[name + OBSERVED]
            found[name] = site["fn"]._mask, site["value"]
        return found


class Clean(Messenger):
    """Runs plates of the rows at the batch's size, and draws what is to be predicted."""

    def __init__(self, fn: Any, rows: int, unobserve: frozenset[str]) -> None:
        super().__init__(fn)
        self.rows, self.unobserve, self.draws_keys = rows, unobserve, False

    def process_message(self, msg: dict[str, Any]) -> None:
        """Replace a plate's own subsample of the rows by all of them; forget observations."""
        if msg["type"] == "prng_key":
            self.draws_keys = True
        if msg["type"] == "plate" and msg["args"][0] == self.rows:
            msg["args"] = (self.rows, self.rows)
            msg["value"] = jnp.arange(self.rows)
        if msg["type"] == "sample" and msg["is_observed"] and msg["name"] in self.unobserve:
            msg["is_observed"], msg["value"] = False, None


def _give(params: Mapping[str, Any], values: Mapping[str, Any], site: dict[str, Any]) -> Any:
    if site["type"] == "param":
        return params.get(site["name"])
    if site["type"] == "sample" and not site["is_observed"]:
        name = site["name"]
        return values.get(name, values.get(name.removesuffix(UNOBSERVED)))
    return None


def _own_scale(trace: Mapping[str, dict[str, Any]], site: dict[str, Any]) -> Any:
    """The site's scale without what plates of subsampled rows put there."""
    scale = 1.0 if site["scale"] is None else site["scale"]
    for frame in site["cond_indep_stack"]:
        size, part = trace[frame.name]["args"] if frame.name in trace else (1, 1)
        if part and size != part:
            scale = scale * (part / size)
    return scale


def _unmasked(fn: Any) -> Any:
    return fn.base_dist if type(fn).__name__ == "MaskedDistribution" else fn
