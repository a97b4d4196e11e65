"""q of a deep model: encoders for rows, Gaussians for what all rows share, or a NumPyro guide."""

import abc
import math
from collections.abc import Callable, Mapping
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpyro.distributions as dist
from numpyro import handlers
from numpyro.distributions.transforms import biject_to
from numpyro.primitives import Messenger
from typing_extensions import override

from taut._core.errors import ArgumentError, ModelError, listing, nearest
from taut.bounds.types import Sample
from taut.deep.heads import AbstractHead, as_head, in_own_space
from taut.deep.reading import read_rows
from taut.deep.rows import Clean, RowModel, Site
from taut.families import Amortised

START_SCALE = 0.1  # sd of a latent that all rows share, in unconstrained space
WEIGHT_SCALE = 0.02  # the same of a network's weights, whose start is the network's own
# Scales of posteriors range over decades, locations and weights do not: with one rate for all,
# logarithms of scales are moved this many times as far.
PACE = 10.0
CERTAIN = 1e4  # logit of a label that was observed


class AbstractGuide(abc.ABC):
    """q as a function of its parameters and some rows.

    Attributes:
        initial: its parameters, a pytree of arrays, to begin with.
        names: the latents that it draws.
    """

    initial: Any
    names: tuple[str, ...]

    @abc.abstractmethod
    def sites(
        self, params: Any, columns: Mapping[str, Any], labels: Any
    ) -> Callable[[Sample], Any]:
        """What bounds take as a guide, for some rows.

        Args:
            params: the guide's.
            columns: arguments of the model with rows.
            labels: partly observed latent -> (which rows are observed, their values).
        """


class Encoding(AbstractGuide):
    """Encoders in the order of what they need, and Gaussians beside them.

    Args:
        model: the model.
        family: the encoders; None where no latent belongs to rows.
        starts: latent -> value to begin with, such as a network's own weights.
    """

    initial: Any
    names: tuple[str, ...]

    def __init__(
        self, model: RowModel, family: Amortised | None, starts: Mapping[str, Any]
    ) -> None:
        self.model = model
        self.inputs = {} if family is None else _inputs(model, family)
        encoders = {} if family is None else family.encoders
        _check_latents(model, encoders)
        self.order = _ordered(self.inputs, model)
        heads = {n: as_head(encoders[n], model.latents[n]) for n in self.order}
        arrays = {n: eqx.partition(h, eqx.is_inexact_array) for n, h in heads.items()}
        for name, (weights, _) in arrays.items():
            if not jax.tree.leaves(weights):
                raise ArgumentError(
                    f"the encoder of '{name}' has no weights to train; networks inside of a plain function are hidden: "
                    "make it an eqx.Module"
                )
        self.static = {n: rest for n, (_, rest) in arrays.items()}
        self.shared = tuple(n for n in model.latents if n not in encoders)
        gaussians = {n: _start(model.latents[n], starts) for n in self.shared}
        self.initial = {"encoders": {n: a for n, (a, _) in arrays.items()}, "gaussians": gaussians}
        self.names = (*self.shared, *self.order)

    @override
    def sites(
        self, params: Any, columns: Mapping[str, Any], labels: Any
    ) -> Callable[[Sample], Any]:
        def guide(sample: Sample) -> None:
            values: dict[str, Any] = {}
            for name in self.shared:
                found = gaussian(self.model.latents[name], params["gaussians"][name])
                values[name] = sample(name, found)
            for name in self.order:
                found = self.encode(name, params, columns, values)
                if name in labels:
                    found = _known_where_observed(found, *labels[name])
                values[name] = sample(name, found)

        return guide

    def encode(
        self, name: str, params: Any, columns: Mapping[str, Any], values: Mapping[str, Any]
    ) -> dist.Distribution:
        """Q of one latent, for all rows."""
        head: AbstractHead = eqx.combine(params["encoders"][name], self.static[name])
        given = [values[n] if n in values else columns[n] for n in self.inputs[name]]
        try:
            outputs = jax.vmap(head)(*given)
        except (TypeError, ValueError) as error:
            shapes = {
                n: tuple(jnp.shape(x)[1:]) for n, x in zip(self.inputs[name], given, strict=True)
            }
            line = str(error).strip().split("\n")[0]
            raise ArgumentError(
                f"the encoder of '{name}' cannot be called with one row of {shapes}: {line}"
            ) from error
        return head.distribution(outputs, self.model.latents[name])


def _inputs(model: RowModel, family: Amortised) -> dict[str, tuple[str, ...]]:
    """Latent -> arguments of its encoder."""
    given = family.inputs or {}
    known = (*model.row_names, *model.latents)
    found = {}
    for name in family.encoders:
        if name not in model.latents:
            raise ArgumentError(
                f"encoders has '{name}', which is no latent of {model.name}{nearest(name, model.latents) or ';'} "
                f"its latents are {listing(model.latents)}"
            )
        inputs = given.get(name)
        if inputs is None and len(model.row_names) != 1:
            raise ArgumentError(
                f"inputs must say what the encoder of '{name}' is called with: {model.name} has the arguments "
                f"{listing(model.row_names)}; write inputs={{'{name}': '{next(iter(model.row_names), 'x')}'}}"
            )
        inputs = model.row_names if inputs is None else inputs
        found[name] = (inputs,) if isinstance(inputs, str) else tuple(inputs)
        for one in found[name]:
            if one not in known:
                raise ArgumentError(
                    f"inputs['{name}'] has '{one}', which is neither an argument with rows nor a latent"
                    f"{nearest(one, known)}; there are {listing(known)}"
                )
    return found


def _check_latents(model: RowModel, encoders: Mapping[str, Any]) -> None:
    for name, site in model.latents.items():
        if name in encoders and not site.local:
            raise ArgumentError(
                f"latent '{name}' is shared by all rows, so no encoder can give it from one of them; leave it out of "
                "encoders: it gets a Gaussian"
            )
        if name in encoders and site.row_axis != -len(site.shape) + site.event_dims:
            raise ModelError(
                f"latent '{name}' of shape {site.shape} does not have its rows along the first axis; "
                "enter the plate of the rows with the lowest dim"
            )
        if name not in encoders and (site.local or site.discrete):
            what = "belongs to rows" if site.local else "is discrete"
            raise ArgumentError(
                f"latent '{name}' {what} and has no encoder; write "
                f"family=families.Amortised({{'{name}': network}})"
            )


def _ordered(inputs: Mapping[str, tuple[str, ...]], model: RowModel) -> tuple[str, ...]:
    """Encoders so that each comes after the latents that it is called with."""
    order: list[str] = []
    while len(order) < len(inputs):
        ready = [
            n
            for n, given in inputs.items()
            if n not in order and all(g not in inputs or g in order for g in given)
        ]
        if not ready:
            raise ArgumentError(
                f"inputs go in a circle: {listing(n for n in inputs if n not in order)}"
            )
        order += ready
    return tuple(order)


def _start(site: Site, starts: Mapping[str, Any]) -> dict[str, Any]:
    own = site.name in starts
    value = jnp.asarray(starts[site.name] if own else site.initial)
    loc = biject_to(site.support).inv(value) if own else jnp.zeros(_inner_shape(site))
    scale = math.log(WEIGHT_SCALE if own else START_SCALE) / PACE
    return {"loc": loc, "log_scale": jnp.full_like(loc, scale)}


def _inner_shape(site: Site) -> tuple[int, ...]:
    return tuple(biject_to(site.support).inverse_shape(site.shape))


def gaussian(site: Site, params: Mapping[str, Any]) -> dist.Distribution:
    """Q of a latent that all rows share: independent Gaussians in unconstrained space."""
    scale = jnp.exp(PACE * params["log_scale"])
    return in_own_space(dist.Normal(params["loc"], scale), site)


def _known_where_observed(fn: Any, observed: Any, values: Any) -> dist.Distribution:
    """The encoder's distribution, and certainty where the label was observed."""
    if not isinstance(fn, dist.CategoricalLogits):
        raise ModelError(
            "a partly observed site (obs_mask) needs a categorical distribution, whose missing values are summed "
            f"over; got {type(fn).__name__}"
        )
    logits = jnp.asarray(fn.logits)
    certain = jnp.where(jnp.arange(logits.shape[-1]) == values[..., None], 0.0, -CERTAIN)
    logits = jnp.where(observed[..., None], certain.astype(logits.dtype), logits)
    return dist.CategoricalLogits(logits)


# --- guides written by the user -------------------------------------------------------------------


class _Drawing(Messenger):
    """Hands every latent of a guide to a bound."""

    def __init__(self, fn: Any, sample: Sample) -> None:
        super().__init__(fn)
        self._sample = sample

    def process_message(self, msg: dict[str, Any]) -> None:
        """Draw the site as the bound wants it."""
        if msg["type"] == "sample" and not msg["is_observed"] and msg["value"] is None:
            msg["value"] = self._sample(msg["name"], msg["fn"])


class Written(AbstractGuide):
    """A NumPyro guide function with the model's arguments.

    Args:
        guide: the function.
        model: the model.
        data: the model's arguments, some rows of them at least.
        num_rows: their number.
    """

    initial: Any
    names: tuple[str, ...]

    def __init__(
        self, guide: Callable[..., Any], model: RowModel, data: Mapping[str, Any], num_rows: int
    ) -> None:
        self._rows, _ = read_rows(guide, "the guide", data, num_rows)
        self.initial, self.names = self._rows.params, tuple(self._rows.latents)
        if set(self.names) != set(model.latents):
            odd = sorted(set(self.names) ^ set(model.latents))
            raise ArgumentError(
                f"the guide must draw the model's latents, {listing(model.latents)}; it draws {listing(self.names)}, "
                f"and '{odd[0]}' is not in both"
            )

    @override
    def sites(
        self, params: Any, columns: Mapping[str, Any], labels: Any
    ) -> Callable[[Sample], Any]:
        def guide(sample: Sample) -> None:
            given = {n: self._rows.constrained(n, v) for n, v in params.items()}
            rows = len(jax.tree.leaves(columns)[0])
            drawing = _Drawing(Clean(self._rows.model, rows, frozenset()), sample)
            handlers.seed(handlers.substitute(drawing, data=given), 0)(
                **self._rows.static, **columns
            )

        return guide
