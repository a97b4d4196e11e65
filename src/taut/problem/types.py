"""What is to be inferred: the frozen description that every front-end ends in."""

import dataclasses
import functools
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from taut._core.precision import double_precision
from taut._core.tracing import Hoisted, hoist, shapes_of

Arrays = dict[str, Any]
"""Everything that travels into compiled functions: data, centring, hoisted constants."""


@dataclasses.dataclass(frozen=True)
class Latent:
    """A latent variable and its place in the flat unconstrained vector.

    Attributes:
        name: site name.
        shape: shape in the model's own (constrained) space.
        support: the constraint's name, such as "real" or "positive".
        distribution: the prior's name, such as "HalfCauchy", or "" if unknown.
        plates: names of the plates around it, outermost first.
        dims: a name for each axis of ``shape``; plates give theirs.
        unconstrained_shape: shape in the unconstrained space.
        start: first index in the flat unconstrained vector.
        centring: shape of its centring parameters, or None where its prior has no location
            or scale that could be moved into the coordinates.
        parents: latents that the location or scale of its prior depends on.
        discrete: True for latents of finite or countable support.
    """

    name: str
    shape: tuple[int, ...]
    support: str
    distribution: str
    plates: tuple[str, ...]
    dims: tuple[str, ...]
    unconstrained_shape: tuple[int, ...]
    start: int
    centring: tuple[int, ...] | None = None
    parents: tuple[str, ...] = ()
    discrete: bool = False

    @property
    def size(self) -> int:
        """Number of unconstrained coordinates."""
        return int(np.prod(self.unconstrained_shape, dtype=int))

    @property
    def stop(self) -> int:
        """One past the last index in the flat unconstrained vector."""
        return self.start + self.size

    @property
    def slice(self) -> slice:
        """Its coordinates in the flat unconstrained vector."""
        return slice(self.start, self.stop)


@dataclasses.dataclass(frozen=True)
class Observed:
    """An observed site: name, shape, prior's name, plates, one name per axis."""

    name: str
    shape: tuple[int, ...]
    distribution: str
    plates: tuple[str, ...]
    dims: tuple[str, ...]


@dataclasses.dataclass(frozen=True, eq=False)
class Program:
    """Pure functions of a model, shared by all problems of the same structure.

    Compared and hashed by identity, so compiled functions that take it as a static argument
    are found again. Every function takes the flat unconstrained vector ``u`` of one point.

    Attributes:
        log_joint_sites: (u, arrays) -> site name -> log density, including the log Jacobian.
        constrain: (u, arrays) -> latents and deterministic sites in the model's space.
        unconstrain: (values, arrays) -> u.
        log_likelihood: (u, arrays) -> observed site -> pointwise log likelihood, unscaled.
        observed_values: (arrays) -> observed site -> its values.
        latents: the latents, in the order of ``u``.
        observed: the observed sites; factors are not among them.
        deterministic: names and shapes of deterministic sites.
        notes: what a reader should know of how the model was read.
        compiled: functions compiled ahead of need, by what they were compiled for.
    """

    log_joint_sites: Callable[[Any, Arrays], dict[str, Any]]
    constrain: Callable[[Any, Arrays], dict[str, Any]]
    unconstrain: Callable[[Mapping[str, Any], Arrays], Any]
    log_likelihood: Callable[[Any, Arrays], dict[str, Any]]
    observed_values: Callable[[Arrays], dict[str, Any]]
    latents: tuple[Latent, ...]
    observed: tuple[Observed, ...]
    deterministic: dict[str, tuple[int, ...]]
    notes: tuple[str, ...] = ()
    compiled: dict[Any, Any] = dataclasses.field(default_factory=dict, repr=False)
    _hoisted: dict[str, Hoisted] = dataclasses.field(default_factory=dict, repr=False)

    @property
    def dim(self) -> int:
        """Number of unconstrained coordinates."""
        return sum(latent.size for latent in self.latents)

    def prepare(self, arrays: Arrays) -> Arrays:
        """Return ``arrays`` with the model's hoisted constants beside them."""
        if not self._hoisted:
            point = jax.ShapeDtypeStruct((self.dim,), jnp.float64)
            shapes = shapes_of(arrays)
            self._hoisted["density"] = hoist(self.log_joint_sites, point, shapes)
            self._hoisted["constrain"] = hoist(self.constrain, point, shapes)
        return {
            "model": arrays,
            **{name: hoisted.constants for name, hoisted in self._hoisted.items()},
        }

    @property
    def width(self) -> int:
        """Numbers in the largest array that one log joint makes on its way."""
        return self._hoisted["density"].width

    def sites(self, u: Any, prepared: Arrays) -> dict[str, Any]:
        """Site by site log joint at one point, with constants as arguments."""
        return self._hoisted["density"].call(prepared["density"], u, prepared["model"])

    def log_joint(self, u: Any, prepared: Arrays) -> Any:
        """Log joint density of one unconstrained point, Jacobian included, in nats."""
        return functools.reduce(jnp.add, self.sites(u, prepared).values())

    def values(self, u: Any, prepared: Arrays) -> dict[str, Any]:
        """Latents and deterministic sites of one point, in the model's space."""
        return self._hoisted["constrain"].call(prepared["constrain"], u, prepared["model"])


class Predictor(NamedTuple):
    """Draws observed sites given latents.

    Attributes:
        simulate: (key, latents in the model's space, arrays) -> site -> values: the observed
            sites, or those asked for. Latents that are left out are drawn from their prior.
        arrays: the data.
    """

    simulate: Callable[[Any, Mapping[str, Any], Any], dict[str, Any]]
    arrays: Any


@dataclasses.dataclass(frozen=True, eq=False)
class Problem:
    """What is to be inferred: a program together with its data.

    Attributes:
        name: the model's name.
        program: the pure functions.
        arrays: data arrays and centring, the arguments of those functions.
        rebind: (new data, observe) -> a problem of the same model with other data; None
            where the front-end cannot.
        predictor: (new data or None, sites=None) -> :class:`Predictor`; None where the front-end cannot.
        relations: () -> the model's graph as NumPyro's ``get_model_relations`` gives it, or None.
    """

    name: str
    program: Program
    arrays: Arrays
    rebind: Callable[..., "Problem"] | None = None
    predictor: Callable[..., Predictor] | None = None
    relations: Callable[[], dict[str, Any]] | None = None

    @functools.cached_property
    def prepared(self) -> Arrays:
        """The arguments of the program's fast functions."""
        with double_precision():
            return self.program.prepare(self.arrays)

    @property
    def latents(self) -> tuple[Latent, ...]:
        """The latents, in the order of the flat vector."""
        return self.program.latents

    @property
    def observed(self) -> tuple[Observed, ...]:
        """The observed sites."""
        return self.program.observed

    @property
    def dim(self) -> int:
        """Number of unconstrained coordinates."""
        return self.program.dim

    def log_joint(self, u: Float[Array | np.ndarray, " d"]) -> Float[Array, ""]:
        """Log joint density at one unconstrained point, Jacobian included, in nats."""
        with double_precision():
            return self.program.log_joint(jnp.asarray(u, float), self.prepared)

    def log_joint_sites(self, u: Float[Array | np.ndarray, " d"]) -> dict[str, Float[Array, ""]]:
        """The log joint density at one point, site by site."""
        with double_precision():
            return self.program.sites(jnp.asarray(u, float), self.prepared)

    def constrain(self, u: Float[Array | np.ndarray, " d"]) -> dict[str, Array]:
        """Map one unconstrained point to latents and deterministic sites."""
        with double_precision():
            return self.program.values(jnp.asarray(u, float), self.prepared)

    def unconstrain(self, values: Mapping[str, Any]) -> Float[Array, " d"]:
        """Map values of all latents to the unconstrained vector."""
        with double_precision():
            return self.program.unconstrain(values, self.arrays)

    def log_likelihood(self, u: Float[Array | np.ndarray, " d"]) -> dict[str, Array]:
        """Pointwise log likelihood of the observed sites at one point, unscaled."""
        with double_precision():
            return self.program.log_likelihood(jnp.asarray(u, float), self.arrays)

    def observed_values(self) -> dict[str, np.ndarray]:
        """Values of the observed sites; empty where the front-end does not name them."""
        with double_precision():
            found = jax.jit(self.program.observed_values)(self.arrays)
            return {name: np.asarray(value) for name, value in found.items()}

    def with_centring(self, centring: Mapping[str, np.ndarray]) -> "Problem":
        """Return the same problem in other coordinates (1 centred, 0 non-centred)."""
        arrays = {**self.arrays, "centring": {**self.arrays["centring"], **centring}}
        return dataclasses.replace(self, arrays=arrays)

    def labels(self) -> list[str]:
        """One label per unconstrained coordinate, such as ``theta[3]``."""
        return [
            label
            for latent in self.latents
            for label in scalar_labels(latent.name, latent.unconstrained_shape)
        ]


def scalar_labels(name: str, shape: tuple[int, ...]) -> list[str]:
    """Return a label for every element, in ArviZ's form: ``beta[0, 2]``."""
    if not shape:
        return [name]
    return [f"{name}[{', '.join(map(str, index))}]" for index in np.ndindex(*shape)]
