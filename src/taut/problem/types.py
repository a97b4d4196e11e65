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
        discrete: True for latents of finite support, which have no coordinates.
        num_values: number of values that a discrete latent can take, 0 for others.
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
    num_values: int = 0

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


class Enumeration(NamedTuple):
    """How discrete latents are summed out of the log joint, and what is known of them.

    Attributes:
        runs: values of the discrete latents that the model is run at, (runs, colours).
        run: (row of ``runs``, u, arrays) -> sites that take part in no sum, and what ``combine``
            needs of the others. It is traced once; ``vmap`` has to stay outside, since a trace of a
            batched custom derivative can be differentiated only once.
        combine: (both for all runs) -> site by site log joint.
        marginals: (u, arrays) -> latent -> probability of each value, (*shape, num_values).
        mode: (u, arrays) -> latent -> values that are most probable together, (*shape).
        draw: (key, u, arrays) -> latent -> one exact draw given u and the data, (*shape).
        support: (arrays) -> latent -> the values, (num_values,).
        sums: key of a sum among the sites of the log joint -> sites that take part in it.
    """

    runs: np.ndarray
    run: Callable[[Any, Any, Arrays], tuple[dict[str, Any], dict[str, Any]]]
    combine: Callable[[dict[str, Any], dict[str, Any]], dict[str, Any]]
    marginals: Callable[[Any, Arrays], dict[str, Any]]
    mode: Callable[[Any, Arrays], dict[str, Any]]
    draw: Callable[[Any, Any, Arrays], dict[str, Any]]
    support: Callable[[Arrays], dict[str, Any]]
    sums: dict[str, tuple[str, ...]]


@dataclasses.dataclass(frozen=True, eq=False)
class Program:
    """Pure functions of a model, shared by all problems of the same structure.

    Compared and hashed by identity, so compiled functions that take it as a static argument
    are found again. Every function takes the flat unconstrained vector ``u`` of one point.

    Attributes:
        log_joint_sites: (u, arrays) -> site name -> log density, including the log Jacobian.
            Discrete latents are summed out, with all sites that depend on them under one key.
        constrain: (u, arrays) -> latents and deterministic sites in the model's space.
        unconstrain: (values, arrays) -> u.
        log_likelihood: (u, arrays) -> observed site -> pointwise log likelihood, unscaled.
        observed_values: (arrays) -> observed site -> its values.
        latents: the continuous latents, in the order of ``u``.
        observed: the observed sites; factors are not among them.
        deterministic: names and shapes of deterministic sites.
        notes: what a reader should know of how the model was read.
        discrete: the discrete latents, summed out of the log joint.
        enumeration: what is known of them, or None where there are none.
        densities: (values, arrays, own, log_density) -> site -> log density, with the latents
            in ``own`` in their own support and the others in real, centred coordinates; None
            where the front-end has no such function.
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
    densities: Callable[..., dict[str, Any]] | None = None
    discrete: tuple[Latent, ...] = ()
    enumeration: Enumeration | None = None
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
            if self.enumeration is None:
                density = hoist(self.log_joint_sites, point, shapes)
            else:
                colouring = shapes_of(self.enumeration.runs[0])
                density = hoist(self.enumeration.run, colouring, point, shapes)
            self._hoisted["density"] = density
            self._hoisted["constrain"] = hoist(self.constrain, point, shapes)
        return {
            "model": arrays,
            **{name: hoisted.constants for name, hoisted in self._hoisted.items()},
        }

    @property
    def width(self) -> int:
        """Numbers in the largest array that one log joint makes on its way."""
        runs = 1 if self.enumeration is None else len(self.enumeration.runs)
        return self._hoisted["density"].width * runs

    def sites(self, u: Any, prepared: Arrays) -> dict[str, Any]:
        """Site by site log joint at one point, with constants as arguments."""
        call, enumeration = self._hoisted["density"].call, self.enumeration
        if enumeration is None:
            return call(prepared["density"], u, prepared["model"])

        def run(colouring: Any) -> Any:
            return call(prepared["density"], colouring, u, prepared["model"])

        return enumeration.combine(*jax.vmap(run)(jnp.asarray(enumeration.runs)))

    def log_joint(self, u: Any, prepared: Arrays) -> Any:
        """Log joint density of one unconstrained point, Jacobian included, in nats."""
        return functools.reduce(jnp.add, self.sites(u, prepared).values())

    def values(self, u: Any, prepared: Arrays) -> dict[str, Any]:
        """Latents and deterministic sites of one point, in the model's space."""
        return self._hoisted["constrain"].call(prepared["constrain"], u, prepared["model"])


@functools.partial(jax.jit, static_argnums=0)
def _given(fn: Callable[..., Any], u: Any, arrays: Arrays) -> Any:
    return fn(u, arrays)


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
        refold: makes the same again of a problem whose centring has changed; None where nothing
            was made of it.
    """

    name: str
    program: Program
    arrays: Arrays
    rebind: Callable[..., "Problem"] | None = None
    predictor: Callable[..., Predictor] | None = None
    relations: Callable[[], dict[str, Any]] | None = None
    refold: Callable[["Problem"], "Problem"] | None = None

    @functools.cached_property
    def prepared(self) -> Arrays:
        """The arguments of the program's fast functions."""
        with double_precision():
            return self.program.prepare(self.arrays)

    @property
    def latents(self) -> tuple[Latent, ...]:
        """The continuous latents, in the order of the flat vector."""
        return self.program.latents

    @property
    def discrete(self) -> tuple[Latent, ...]:
        """The discrete latents, which are summed out."""
        return self.program.discrete

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

    def discrete_marginals(self, u: Float[Array | np.ndarray, " d"]) -> dict[str, Array]:
        """Posterior probabilities of the discrete latents given the others and the data.

        Args:
            u: unconstrained point of the continuous latents.

        Returns:
            Latent -> probability of each value, (*shape, num_values), exact.
        """
        found = self.program.enumeration
        with double_precision():
            return _given(found.marginals, jnp.asarray(u, float), self.arrays) if found else {}

    def discrete_mode(self, u: Float[Array | np.ndarray, " d"]) -> dict[str, Array]:
        """The most probable values of all discrete latents together, given the others.

        Args:
            u: unconstrained point of the continuous latents.

        Returns:
            Latent -> values, (*shape); for a chain the best path (Viterbi).
        """
        found = self.program.enumeration
        with double_precision():
            return _given(found.mode, jnp.asarray(u, float), self.arrays) if found else {}

    def discrete_support(self) -> dict[str, np.ndarray]:
        """Values that each discrete latent can take, (num_values,)."""
        found = self.program.enumeration
        with double_precision():
            values = jax.jit(found.support)(self.arrays) if found else {}
            return {name: np.asarray(value) for name, value in values.items()}

    def observed_values(self) -> dict[str, np.ndarray]:
        """Values of the observed sites; empty where the front-end does not name them."""
        with double_precision():
            found = jax.jit(self.program.observed_values)(self.arrays)
            return {name: np.asarray(value) for name, value in found.items()}

    def with_centring(self, centring: Mapping[str, np.ndarray]) -> "Problem":
        """Return the same problem in other coordinates (1 centred, 0 non-centred)."""
        arrays = {**self.arrays, "centring": {**self.arrays["centring"], **centring}}
        changed = dataclasses.replace(self, arrays=arrays)
        return changed if self.refold is None else self.refold(changed)

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
