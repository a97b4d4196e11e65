"""Letters for axes and for constant arrays, the same throughout one derivation."""

import itertools
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import jax
import numpy as np

from taut.derivation.notation import both
from taut.derivation.records import Constant
from taut.problem import Problem

AXES = "ijklnrstuvpd"
ARRAYS = "ABCDGHJKLMPRSTUXYZ"
INDICES = "gco"


class Symbols:
    """Who is called what.

    Attributes:
        dims: name of a dimension -> its letter.
        sizes: name of a dimension -> its length.
    """

    def __init__(self, problem: Problem) -> None:
        sites = (*problem.latents, *problem.discrete, *problem.observed)
        self.dims: dict[str, str] = {}
        self.sizes: dict[str, int] = {}
        self._of_site = {s.name: s.dims for s in sites}
        self._shapes = {s.name: s.shape for s in sites}
        self._data = _named_arrays(problem.arrays.get("data", {}))
        self._taken = {*(s.name for s in sites), *self._data}
        letters = _letters(AXES, self._taken)
        for site in sites:
            for dim, size in zip(site.dims, site.shape, strict=False):
                if dim not in self.dims:
                    self.dims[dim], self.sizes[dim] = next(letters), int(size)
        self._arrays = _letters(ARRAYS, self._taken)
        self._indices = _letters(INDICES, {*self._taken, *self.dims.values()})
        self._data |= {n: np.asarray(v) for n, v in problem.observed_values().items()}
        self._known: dict[int, tuple[str, Any]] = {}
        self.constants: dict[str, Constant] = {}

    def letters_of(self, site: str, ndim: int) -> list[str]:
        """A letter for each dimension of a site; fresh ones where it has no such dimensions."""
        dims = self._of_site.get(site, ())
        if len(dims) == ndim:
            return [self.dims[d] for d in dims]
        spare = (x for x in AXES if x not in self.dims.values())
        return list(itertools.islice(spare, ndim))

    def plate_letter(self, size: int, used: Iterable[str]) -> str | None:
        """The letter of the only dimension with this length, if it is free."""
        fitting = [d for d, n in self.sizes.items() if n == size]
        if len(fitting) == 1 and self.dims[fitting[0]] not in used:
            return self.dims[fitting[0]]
        return None

    def spare(self, used: Iterable[str]) -> str:
        """A letter that is not used in a formula, rather one that names no dimension."""
        used = set(used)
        pool = [x for x in AXES if x not in self._taken]
        outside = [x for x in pool if x not in self.dims.values()]
        return next(x for x in (*outside, *pool, *(f"i{n}" for n in range(99))) if x not in used)

    def of_array(self, array: Any, is_index: bool = False) -> str:
        """Name of a constant array: that of the data where it is data, or else a letter."""
        if id(array) in self._known:
            return self._known[id(array)][0]
        value = np.asarray(array)
        for name, data in self._data.items():
            if data.shape == value.shape and np.array_equal(data, value):
                found, what = name, "data"
                break
        else:
            found, what = self._remembered(value), "made of data and constants"
            found = found or next(self._indices if is_index else self._arrays)
        self._known[id(array)] = (found, array)
        self.constants.setdefault(
            found, Constant(both(lambda n: n.name(found)), value, "indices" if is_index else what)
        )
        return found

    def _remembered(self, value: np.ndarray) -> str | None:
        """The letter of an equal array."""
        for name, constant in self.constants.items():
            if constant.value.shape == value.shape and np.array_equal(constant.value, value):
                return name
        return None


def _letters(letters: str, taken: Iterable[str]) -> Iterator[str]:
    taken = set(taken)
    numbered = (f"{x}{n}" for n in itertools.count(1) for x in letters)
    return (x for x in itertools.chain(letters, numbered) if x not in taken)


def _named_arrays(data: Mapping[str, Any]) -> dict[str, np.ndarray]:
    """Arrays of the data by the last part of their path."""
    found = {}
    for path, leaf in jax.tree_util.tree_flatten_with_path(data)[0]:
        found[str(getattr(path[-1], "key", getattr(path[-1], "idx", path[-1])))] = np.asarray(leaf)
    return found
