"""Discrete latents summed out of a NumPyro model exactly.

The model is run once per combination of values under ``vmap``, with its true shapes, so it needs no
code of its own for enumeration. Elements of one latent share their value within a run where they
are independent; latents that meet in no density share a run too (a colouring), and so do the
even and the odd elements of a chain. What may share is proved (:mod:`taut.problem.dependence`).
"""

import dataclasses
import itertools
import math
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from taut._core.errors import ModelError
from taut.problem.dependence import Dependence, Link
from taut.problem.elimination import MAX_NUMBERS, Dim, Table, Variable, too_many
from taut.problem.types import Latent

MAX_JOINT = 4096  # joint values of a latent whose elements cannot be told apart


@dataclasses.dataclass(frozen=True)
class Place:
    """How a discrete latent is enumerated.

    Attributes:
        latent: the latent.
        variable: what is summed out.
        ids: for each axis of the latent the name of the variable's axis, or "" for size one.
        colours: which value of a run its elements take; two for a chain: even and odd ones.
        joint: True where all its elements form one variable with values to the power of elements.
    """

    latent: Latent
    variable: Variable
    ids: tuple[str, ...]
    colours: tuple[int, ...]
    joint: bool

    @property
    def states(self) -> int:
        """Values of the variable."""
        size = int(np.prod(self.latent.shape, dtype=int))
        return self.latent.num_values**size if self.joint else self.latent.num_values

    @property
    def digits(self) -> np.ndarray:
        """Value of each element in each joint state, (states, *shape)."""
        size = int(np.prod(self.latent.shape, dtype=int))
        powers = self.latent.num_values ** np.arange(size)
        digits = np.arange(self.states)[:, None] // powers % self.latent.num_values
        return digits.reshape(self.states, *self.latent.shape)

    def values(self, colouring: Any) -> Any:
        """Index of each element's value in a run that gives every colour a value."""
        chosen = [jnp.minimum(colouring[c], self.states - 1) for c in self.colours]
        if self.joint:
            return jnp.asarray(self.digits)[chosen[0]]
        if not self.variable.chain:
            return jnp.broadcast_to(chosen[0], self.latent.shape)
        return jnp.where(self._odd, chosen[1], chosen[0])

    @property
    def _odd(self) -> np.ndarray:
        axis = self.ids.index(self.variable.chain)
        return np.indices(self.latent.shape)[axis] % 2 == 1


@dataclasses.dataclass(frozen=True)
class Factor:
    """A density that depends on discrete latents.

    Attributes:
        site: its site.
        names: the latents.
        axes: for each axis of its pointwise log density an axis of the variables, or "".
        previous: those among the latents of which it reads the element before, too.
    """

    site: str
    names: tuple[str, ...]
    axes: tuple[str, ...]
    previous: tuple[str, ...] = ()


@dataclasses.dataclass(frozen=True)
class Component:
    """Discrete latents that have to be summed out together."""

    names: tuple[str, ...]
    factors: tuple[Factor, ...]

    @property
    def key(self) -> str:
        """Its name among the sites of the log joint."""
        return f"sum over {', '.join(self.names)}"


@dataclasses.dataclass(frozen=True)
class Structure:
    """How the discrete latents of a model are summed out.

    Attributes:
        places: by latent.
        components: the independent sums.
        sizes: values that each colour takes.
    """

    places: Mapping[str, Place]
    components: tuple[Component, ...]
    sizes: tuple[int, ...]

    @property
    def runs(self) -> np.ndarray:
        """Value of each colour in each run, (runs, colours)."""
        return np.array(list(itertools.product(*(range(n) for n in self.sizes))))

    @property
    def sites(self) -> set[str]:
        """Sites that take part in a sum."""
        return {f.site for c in self.components for f in c.factors}

    def tables(self, component: Component, log_probs: Mapping[str, Any]) -> list[Table]:
        """Tables of a component from the runs' pointwise log densities (runs, *shape)."""
        return [self._table(f, log_probs[f.site]) for f in component.factors]

    def _table(self, factor: Factor, log_prob: Any) -> Table:
        """Read the runs by the values of the factor's own latents; other colours do not matter."""
        count = len(self.sizes)
        array = log_prob.reshape(*self.sizes, *log_prob.shape[1:])
        array = jnp.sum(array, [count + i for i, a in enumerate(factor.axes) if not a])
        axes = [Dim("axis", a) for a in factor.axes if a]
        places = [self.places[n] for n in factor.names]
        used = {c: p.states for p in places for c in p.colours}
        array = array[tuple(slice(used[c]) if c in used else 0 for c in range(count))]
        order = [sorted(used).index(c) for c in used]
        array = jnp.transpose(array, (*order, *range(len(used), array.ndim)))
        dims: list[Dim] = []
        for place in places:
            name, chain = place.latent.name, place.variable.chain
            if chain:
                time = array.ndim - len(axes) + axes.index(Dim("axis", chain))
                array = _by_step(array, len(dims), time)
                if name in factor.previous:
                    dims.append(Dim("previous", name))
                else:
                    array = jax.lax.index_in_dim(array, 0, len(dims), keepdims=False)
            dims.append(Dim("value", name))
        return Table((*dims, *axes), array)

    def nudge(self, name: str, eps: Any) -> Table:
        """A log density that adds ``eps`` (values, *shape) to each value of a latent."""
        place = self.places[name]
        if place.joint:
            chosen = jnp.take_along_axis(eps, jnp.asarray(place.digits), 0)
            return Table((Dim("value", name),), chosen.reshape(place.states, -1).sum(1))
        axes = tuple(Dim("axis", a) for a in place.ids if a)
        sizes = [n for n, a in zip(place.latent.shape, place.ids, strict=True) if a]
        return Table((Dim("value", name), *axes), eps.reshape(-1, *sizes))


def _by_step(array: Any, first: int, time: int) -> Any:
    """Turn dimensions (even, odd) at ``first`` into (previous, current) element along ``time``."""
    shape = [1] * array.ndim
    shape[time] = array.shape[time]
    odd = (np.arange(array.shape[time]) % 2 == 1).reshape(shape)
    return jnp.where(odd, array, jnp.swapaxes(array, first, first + 1))


# --- from dependence to structure -------------------------------------------------------------


def find_structure(
    discrete: Sequence[Latent],
    depends: Mapping[str, Dependence],
    shapes: Mapping[str, tuple[int, ...]],
) -> Structure:
    """Decide how to sum discrete latents out.

    Args:
        discrete: the latents.
        depends: site -> what its pointwise log density depends on.
        shapes: site -> shape of that.

    Raises:
        ModelError: if there is no cheap exact way.
    """
    by_name = {s.name: s for s in discrete}
    depends = {site: found for site, found in depends.items() if found}
    joint = _joint(by_name, depends, shapes)
    chains = {n: _chain_axis(n, depends) for n in by_name if n not in joint}
    ids, axes = _unify(by_name, joint, depends, shapes)
    factors = [
        Factor(
            site=site,
            names=tuple(sorted(found)),
            axes=axes[site],
            previous=tuple(sorted(n for n in found if n not in joint and _reads_before(found[n]))),
        )
        for site, found in depends.items()
    ]
    _check_axes(ids)
    colours = _colour(by_name, chains, factors)
    places = {}
    for name, latent in by_name.items():
        axis = chains.get(name)
        chain = "" if axis is None else ids[name][axis]
        variable = Variable(name, tuple(a for a in ids[name] if a), chain)
        places[name] = Place(latent, variable, ids[name], colours[name], name in joint)
    sizes: dict[int, int] = {}
    for c, place in ((c, p) for p in places.values() for c in p.colours):
        sizes[c] = max(sizes.get(c, 1), place.states)
    runs = math.prod(sizes.values())
    if runs > MAX_NUMBERS:  # before they are listed
        raise too_many(list(by_name), runs)
    return Structure(places, _components(factors), tuple(sizes[c] for c in range(len(sizes))))


def _joint(
    latents: Mapping[str, Latent],
    depends: Mapping[str, Dependence],
    shapes: Mapping[str, tuple[int, ...]],
) -> set[str]:
    """Latents whose elements some density mixes; they are enumerated as a whole, where few."""
    joint = set()
    for site, found in depends.items():
        for name, links in found.items():
            latent = latents[name]
            if _element_by_element(latent, links, shapes[site], _chain_axis(name, depends)):
                continue
            joint.add(name)
            size = math.prod(latent.shape)
            if size * math.log(latent.num_values) > math.log(MAX_JOINT) + 1e-9:
                raise ModelError(
                    f"the discrete latent '{name}' of shape {latent.shape} cannot be summed out element by "
                    f"element: the density of '{site}' may mix its elements, and there are "
                    f"{latent.num_values}^{size} values in all. Put both into one plate and let every "
                    f"element of '{site}' use the element of '{name}' at its own place, or sum by hand "
                    "(logsumexp in a numpyro.factor)"
                )
    return joint


def _element_by_element(
    latent: Latent, links: Sequence[Link | None], shape: tuple[int, ...], chain: int | None
) -> bool:
    """Whether a density of this shape reads one element of a latent, or a chain's last two."""
    axes = set()
    for axis, (size, link) in enumerate(zip(latent.shape, links, strict=True)):
        if size == 1:
            continue
        if link is None or link.axis in axes or shape[link.axis] != size:
            return False
        if not link.offsets <= ({0, -1} if axis == chain else {0}):
            return False
        axes.add(link.axis)
    return True


def _chain_axis(name: str, depends: Mapping[str, Dependence]) -> int | None:
    """The first axis along which some density reads the element before."""
    for found in depends.values():
        for axis, link in enumerate(found.get(name, ())):
            if link is not None and -1 in link.offsets:
                return axis
    return None


def _reads_before(links: Sequence[Link | None]) -> bool:
    return any(link is not None and -1 in link.offsets for link in links)


def _unify(
    latents: Mapping[str, Latent],
    joint: set[str],
    depends: Mapping[str, Dependence],
    shapes: Mapping[str, tuple[int, ...]],
) -> tuple[dict[str, tuple[str, ...]], dict[str, tuple[str, ...]]]:
    """Name axes so that those that run together share a name.

    Returns:
        Latent -> names of its axes, and site -> names of its log density's axes; "" where an axis is
        of size one or no latent's.
    """
    parent: dict[str, str] = {}

    def root(a: str) -> str:
        while parent.setdefault(a, a) != a:
            a = parent[a]
        return a

    owner: dict[tuple[str, int], str] = {}
    for site, found in depends.items():
        for name, links in found.items():
            for axis, link in enumerate(links):
                if name not in joint and link is not None and latents[name].shape[axis] > 1:
                    own = owner.setdefault((site, link.axis), f"{name}.{axis}")
                    parent[root(f"{name}.{axis}")] = root(own)
    ids = {
        n: tuple(
            root(f"{n}.{a}") if size > 1 and n not in joint else ""
            for a, size in enumerate(s.shape)
        )
        for n, s in latents.items()
    }
    sites = {
        site: tuple(
            root(owner[site, a]) if (site, a) in owner else "" for a in range(len(shapes[site]))
        )
        for site in depends
    }
    return ids, sites


def _check_axes(ids: Mapping[str, tuple[str, ...]]) -> None:
    """Refuse a latent of which two axes run along one axis of other sites."""
    for name, own in ids.items():
        named = [a for a in own if a]
        if len(set(named)) < len(named):
            raise ModelError(
                f"two axes of the discrete latent '{name}' run along the same axis of other sites, so no order "
                "of summing it out is cheap; sum it out by hand"
            )


def _colour(
    latents: Mapping[str, Latent], chains: Mapping[str, int | None], factors: Sequence[Factor]
) -> dict[str, tuple[int, ...]]:
    """Give values that meet in a density different colours, greedily."""
    nodes = {n: [(n, 0), (n, 1)] if chains.get(n) is not None else [(n, 0)] for n in latents}
    meet: dict[tuple[str, int], set[tuple[str, int]]] = {}
    for factor in factors:
        together = [node for n in factor.names for node in nodes[n]]
        for node in together:
            meet.setdefault(node, set()).update(together)
    colours: dict[tuple[str, int], int] = {}
    for node in itertools.chain(*nodes.values()):
        taken = {colours[m] for m in meet.get(node, ()) if m in colours}
        colours[node] = next(c for c in itertools.count() if c not in taken)
    return {n: tuple(colours[node] for node in own) for n, own in nodes.items()}


def _components(factors: Sequence[Factor]) -> tuple[Component, ...]:
    groups: list[tuple[set[str], list[Factor]]] = []
    for factor in factors:
        touching = [g for g in groups if g[0] & set(factor.names)]
        groups = [g for g in groups if g not in touching]
        names = set(factor.names).union(*(g[0] for g in touching))
        groups.append((names, [f for g in touching for f in g[1]] + [factor]))
    return tuple(Component(tuple(sorted(n)), tuple(f)) for n, f in groups)
