r"""Expectations of terms under q.

All Gaussian blocks together are one Gaussian with zero covariance between blocks, so moments of
Gaussian elements follow Wick's formula,

.. math:: E[u_1 \cdots u_n e^{a}] = e^{E[a] + V[a]/2} \sum_{\text{pairings}} \prod C_{ij} \prod
          (m_k + \operatorname{Cov}(u_k, a)),

and covariances are looked up entry by entry, never formed for all pairs.
"""

import abc
import dataclasses
from collections.abc import Iterator, Mapping
from typing import Any

import jax.numpy as jnp
import numpy as np
from typing_extensions import override

from taut.expectation.elementwise import Unreadable
from taut.expectation.expression import power_of
from taut.expectation.factor import AbstractChain, AbstractContinuous, AbstractDiscrete
from taut.expectation.gaussian import Gaussian, Scaled
from taut.expectation.indicators import are_distinct, joint_probs
from taut.expectation.pool import StaticIndex, expand
from taut.expectation.terms import (
    Affine,
    Entry,
    IndexRef,
    Power,
    Tensor,
    Term,
    contract,
    fresh,
    rename,
    union,
)  # fmt: skip

GRID_POINTS = 96
MAX_DELTA = (
    4096  # elements of a latent whose covariance with itself is written as a diagonal matrix
)


@dataclasses.dataclass(frozen=True)
class Product:
    """A product of tensors, some of whose labels stand for the same axis.

    ``scales`` names, once for each covariance, the latent that it is divided by.
    """

    tensors: tuple[Tensor, ...]
    same: tuple[tuple[int, int], ...] = ()
    scales: tuple[str, ...] = ()

    def __mul__(self, other: "Product") -> "Product":
        return Product(
            self.tensors + other.tensors, self.same + other.same, self.scales + other.scales
        )


class AbstractMoments(abc.ABC):
    """Moments of the latents' elements, and formulas made of them.

    Args:
        q: factor of each latent; a Gaussian block stands under each of its latents' names.
        arrays: the pool's index arrays.
    """

    def __init__(self, q: Mapping[str, Any], arrays: list[Any]) -> None:
        self.q = q
        self.arrays = [a.array if isinstance(a, StaticIndex) else a for a in arrays]
        self._grids: dict[str, Any] = {}

    # --- looking up ---------------------------------------------------------------------------

    def look_up(self, array: Any, index: tuple[int | IndexRef, ...]) -> Tensor:
        """``array[index]`` as a tensor over the index's axes."""
        if all(isinstance(i, int) for i in index):
            whole = Tensor(array, index)  # type: ignore[arg-type]
            return whole if len(set(index)) == len(index) else contract([whole], union(whole.axes))
        refs = [at for at, i in enumerate(index) if isinstance(i, IndexRef)]
        labels = [i for i in index if isinstance(i, int)]
        if len(refs) == 1:
            at = refs[0]
            ref: Any = index[at]
            if len({*ref.axes, *labels}) == len(ref.axes) + len(labels):
                axes = (*index[:at], *ref.axes, *index[at + 1 :])
                return Tensor(jnp.take(array, self.arrays[ref.slot], axis=at), axes)  # type: ignore[arg-type]
        axes = union(*((i,) if isinstance(i, int) else i.axes for i in index))
        picks = []
        for at, i in enumerate(index):
            if isinstance(i, int):
                picks.append(expand(Tensor(np.arange(array.shape[at]), (i,)), axes))
            else:
                picks.append(expand(Tensor(jnp.asarray(self.arrays[i.slot]), i.axes), axes))
        return Tensor(array[tuple(picks)], axes)

    @abc.abstractmethod
    def mean(self, entry: Entry) -> Tensor:
        """Mean of a Gaussian element."""

    @abc.abstractmethod
    def precision_of(self, entry: Entry) -> str:
        """The latent that the covariance of an element's block is divided by, or ""."""

    @abc.abstractmethod
    def share_block(self, a: Entry, b: Entry) -> bool:
        """Whether two Gaussian elements may be correlated."""

    @abc.abstractmethod
    def covariance(self, a: Entry, b: Entry) -> Product | None:
        """Covariance of two Gaussian elements; None if they are independent."""

    def _equal(self, i: int | IndexRef, j: int | IndexRef, size: int) -> Tensor:
        """Whether two indices are equal."""
        a, b = (
            Tensor(jnp.asarray(self.arrays[x.slot]), x.axes) if isinstance(x, IndexRef)
            else Tensor(np.arange(size), (x,))
            for x in (i, j)
        )  # fmt: skip
        axes = union(a.axes, b.axes)
        return Tensor((expand(a, axes) == expand(b, axes)).astype(float), axes)

    # --- affine forms ---------------------------------------------------------------------------

    def affine_mean(self, form: Affine) -> Tensor:
        """Mean of an affine form."""
        parts = []
        for t in form.terms:
            found = contract([*t.operands, *(self.mean(e) for e in t.linear)], form.axes)
            parts.append(Tensor(t.scale * found.array, found.axes))
        return total(parts)

    def affine_covariance(self, a: Affine, b: Affine) -> Tensor | None:
        """Covariance of two affine forms, elementwise over their axes; None if independent."""
        parts = []
        for s in a.terms:
            for t in b.terms:
                if not (s.linear and t.linear):
                    continue
                s = rename(s, {x: fresh() for x in s.axes if x not in a.axes})
                t = rename(t, {x: fresh() for x in t.axes if x not in b.axes})
                cov = self.covariance(s.linear[0], t.linear[0])
                if cov is None:
                    continue
                kept = union(a.axes, b.axes)
                found = self.contract(cov * Product((*s.operands, *t.operands)), kept)
                parts.append(Tensor(s.scale * t.scale * found.array, found.axes))
        return total(parts) if parts else None

    def contract(self, product: Product, axes: tuple[int, ...]) -> Tensor:
        """Multiply out, with equal labels identified; both labels outer makes a diagonal matrix."""
        tensors, names, masks = list(product.tensors), {}, []
        for i, j in product.same:
            i, j = names.get(i, i), names.get(j, j)
            if i == j:
                continue
            if i in axes and j in axes:
                masks.append((i, j))
            else:
                drop, keep = (i, j) if j in axes else (j, i)
                names = {a: keep if b == drop else b for a, b in names.items()} | {drop: keep}
        tensors = [rename(t, names) for t in tensors]
        sizes = {a: n for t in tensors for a, n in zip(t.axes, np.shape(t.array), strict=True)}
        for i, j in masks:
            size = sizes.get(i, sizes.get(j, 0))
            if size > MAX_DELTA:
                raise Unreadable(f"the covariance of {size} independent elements with each other")
            tensors.append(Tensor(np.eye(size), (i, j)))
        return contract(tensors, axes)

    # --- monomials of Gaussian elements -----------------------------------------------------------

    def wick(self, entries: tuple[Entry, ...], shift: Affine | None) -> Iterator[Product]:
        """Products whose sum is the expectation of a product of Gaussian elements."""
        if not entries:
            yield Product(())
            return
        first, rest = entries[0], entries[1:]
        mean = self.shifted_mean(first, shift)
        for product in self.wick(rest, shift):
            yield Product((mean,)) * product
        for at, other in enumerate(rest):
            cov = self.covariance(first, other)
            if cov is not None:
                for product in self.wick((*rest[:at], *rest[at + 1 :]), shift):
                    yield cov * product

    def shifted_mean(self, entry: Entry, shift: Affine | None) -> Tensor:
        """Mean of an element under q tilted by exp(shift)."""
        mean = self.mean(entry)
        if shift is None:
            return mean
        form = Affine((Term(linear=(entry,)),), entry.axes)
        cov = self.affine_covariance(form, shift)
        return mean if cov is None else total([mean, cov])

    def tilt(self, shift: Affine) -> Tensor:
        """E[exp(shift)]."""
        variance = self.affine_covariance(shift, shift)
        log = self.affine_mean(shift)
        if variance is not None:
            log = total([log, Tensor(0.5 * variance.array, variance.axes)])
        return Tensor(jnp.exp(log.array), log.axes)

    # --- other latents ----------------------------------------------------------------------------

    def power(self, entry: Entry, p: Power) -> Tensor:
        """Moment of an element of a latent that is not Gaussian."""
        factor = self.q[entry.latent]
        if isinstance(factor, Scaled):
            factor = factor.precision
        if isinstance(factor, AbstractContinuous):
            found = self._elementwise(factor, entry, p)
            if found is not None:
                return self.look_up(found, entry.index)
        raise Unreadable(f"the moment {p} of '{entry.latent}'")

    def _elementwise(self, factor: AbstractContinuous, entry: Entry, p: Power) -> Any:
        if factor.kind == "matrix" and len(entry.index) == len(factor.shape) - 2:
            return factor.mean[0] if p == Power(logs=1) else None  # the log determinant
        found = factor.moment(*p)
        if found is not None:
            return found
        if p == Power(1.0) and factor.grid(2) is None:
            return factor.mean[-1]  # a matrix itself
        grid = self.grid(entry.latent)
        if grid is None:
            return None
        points, probabilities = grid
        return jnp.sum(probabilities * power_of(points, p), axis=0)

    def grid(self, latent: str) -> tuple[Any, Any] | None:
        """Points and probabilities of a latent that is integrated on a grid, grid axis first."""
        if isinstance(self.q[latent], Scaled):
            raise Unreadable(f"a nonlinear function of '{latent}', which is joined to its block")
        if latent not in self._grids:
            self._grids[latent] = self.q[latent].grid(GRID_POINTS)
        return self._grids[latent]

    def on_grid(self, entry: Entry, axis: int, which: int) -> Tensor:
        """Points (0) or probabilities (1) of an element along the grid's axis."""
        grid = self.grid(entry.latent)
        if grid is None:
            raise Unreadable(f"a nonlinear function of the matrix '{entry.latent}'")
        return self.look_up(jnp.moveaxis(grid[which], 0, -1), (*entry.index, axis))

    def onehots(self, pairs: tuple[tuple[Entry, int], ...]) -> list[Tensor]:
        """Expectation of a product of indicators."""
        by_latent: dict[str, list[tuple[Entry, int]]] = {}
        for entry, axis in pairs:
            by_latent.setdefault(entry.latent, []).append((entry, axis))
        found = []
        for latent, group in by_latent.items():
            factor = self.q[latent]
            if isinstance(factor, AbstractDiscrete):
                found += self._indicators(factor, group)
            elif len(group) == 1:
                found.append(self.on_grid(*group[0], which=1))
            else:
                raise Unreadable(f"two elements of '{latent}' in one nonlinear function")
        return found

    def _indicators(self, factor: AbstractDiscrete, group: list[tuple[Entry, int]]) -> list[Tensor]:
        """Probability that elements of one latent have given values."""
        if len(group) == 2:
            joint = joint_probs(factor, group[0], group[1], self.arrays)
            if joint is not None:
                return [self.look_up(*joint)]
        dependent = isinstance(factor, AbstractChain) or not are_distinct(group, self.arrays)
        if len(group) > 1 and dependent:
            raise Unreadable(
                f"elements of '{group[0][0].latent}' that may be the same or dependent"
            )
        return [self.look_up(factor.probs, (*e.index, axis)) for e, axis in group]


class Moments(AbstractMoments):
    """Moments under q."""

    @override
    def mean(self, entry: Entry) -> Tensor:
        return self.look_up(self.q[entry.latent].mean_of(entry.latent), entry.index)

    @override
    def precision_of(self, entry: Entry) -> str:
        block = self.q[entry.latent]
        return block.precision_name if isinstance(block, Scaled) else ""

    @override
    def share_block(self, a: Entry, b: Entry) -> bool:
        return b.latent in self.q[a.latent].names

    @override
    def covariance(self, a: Entry, b: Entry) -> Product | None:
        block: Gaussian | Scaled = self.q[a.latent]
        if not self.share_block(a, b):
            return None
        nb, masks, same = block.batch_ndim, [], []
        for at, (i, j) in enumerate(zip(a.index[:nb], b.index[:nb], strict=True)):
            if i == j:
                continue
            if isinstance(i, int) and isinstance(j, int):
                same.append((i, j))
            else:
                masks.append(self._equal(i, j, block.place(a.latent)[0][at]))
        cross = block.cross(a.latent, b.latent)
        found = self.look_up(cross, (*a.index[:nb], *a.index[nb:], *b.index[nb:]))
        scales = (block.precision_name,) if isinstance(block, Scaled) else ()
        return Product((found, *masks), tuple(same), scales)


class AtPoint(AbstractMoments):
    """Moments of a point: elements and their powers themselves, so that terms are simply evaluated.

    Args:
        values: latent -> its value.
        arrays: the pool's index arrays.
    """

    def __init__(self, values: Mapping[str, Any], arrays: list[Any]) -> None:
        super().__init__({}, arrays)
        self.values = values

    @override
    def mean(self, entry: Entry) -> Tensor:
        return self.look_up(self.values[entry.latent], entry.index)

    @override
    def precision_of(self, entry: Entry) -> str:
        return ""

    @override
    def share_block(self, a: Entry, b: Entry) -> bool:
        return False

    @override
    def covariance(self, a: Entry, b: Entry) -> Product | None:
        return None

    @override
    def power(self, entry: Entry, p: Power) -> Tensor:
        value = self.values[entry.latent]
        if len(entry.index) == jnp.ndim(value) - 2:  # a matrix enters by its log determinant
            return self.look_up(p.logs * jnp.linalg.slogdet(value)[1], entry.index)
        element = self.look_up(value, entry.index)
        return Tensor(power_of(element.array, p), element.axes)


def total(tensors: list[Tensor]) -> Tensor:
    """Sum of tensors over the union of their axes."""
    if not tensors:
        return Tensor(jnp.zeros(()))
    axes = union(*(t.axes for t in tensors))
    found: Any = 0.0
    for t in tensors:
        found = found + expand(Tensor(jnp.asarray(t.array), t.axes), axes)
    return Tensor(found, axes)
