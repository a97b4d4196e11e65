r"""Expectations of nonlinear functions, alone and times elements that they are correlated with.

Arguments of a function are jointly normal, :math:`a = \mu + L z` with standard normal z. A Gaussian
element is regressed on z, :math:`u = m + c^\top z + r`, with r independent of z, so that

.. math:: E[\phi(a) u_1 u_2] = E[\phi(a) (m_1 + c_1^\top z)(m_2 + c_2^\top z)]
          + E[\phi(a)] (C_{12} - c_1^\top c_2),

and so on for more elements; with a factor exp(affine) all means are those of the tilted q.
"""

import dataclasses
from collections.abc import Iterator
from typing import Any

import jax.numpy as jnp
import numpy as np

from taut.expectation import quadrature
from taut.expectation.elementwise import Unreadable
from taut.expectation.expression import evaluate
from taut.expectation.functions import absolute_form
from taut.expectation.moments import AbstractMoments, Product, total
from taut.expectation.pool import expand
from taut.expectation.terms import Affine, Entry, Function, Tensor, Term, union

MAX_TOUCHED = 3  # elements that a function is multiplied with and correlated with
Orders = tuple[int, ...]


@dataclasses.dataclass(frozen=True)
class Arguments:
    """Joint normal of a function's arguments, over common axes.

    Attributes:
        axes: those axes.
        means: under the tilted q.
        variances: lower triangle of the covariance; None for zero.
        root: rows of its Cholesky factor; None for zero.
    """

    axes: tuple[int, ...]
    means: list[Any]
    variances: list[list[Any]]
    root: list[list[Any]]


def _arguments(function: Function, shift: Affine | None, moments: AbstractMoments) -> Arguments:
    means, rows = [], []
    for i, arg in enumerate(function.args):
        mean = moments.affine_mean(arg)
        tilt = None if shift is None else moments.affine_covariance(arg, shift)
        means.append(mean if tilt is None else total([mean, tilt]))
        rows.append([moments.affine_covariance(arg, other) for other in function.args[: i + 1]])
    inner = [c for row in rows for c in row if c is not None]
    axes = union(function.axes, *(m.axes for m in means), *(c.axes for c in inner))
    variances = [[None if c is None else expand(c, axes) for c in row] for row in rows]
    means = [expand(m, axes) for m in means]
    return Arguments(axes, means, variances, quadrature.root(variances))


def of_function(
    function: Function,
    shift: Affine | None,
    moments: AbstractMoments,
    orders: Orders = (),
    arguments: Arguments | None = None,
) -> Tensor:
    """Expectation of a nonlinear function by quadrature, over its axes.

    Args:
        function: phi.
        shift: affine form of a factor exp(shift) that it is multiplied with.
        moments: of q.
        orders: multiply by powers of the standard normals: E[phi(a) z_1^k z_2^l].
        arguments: their joint normal, if known.
    """
    a = arguments or _arguments(function, shift, moments)
    consts = [expand(Tensor(jnp.asarray(c.array), c.axes), a.axes) for c in function.consts]
    grids = [expand(moments.on_grid(e, g, which=0), a.axes) for e, g in function.grids]
    others = [*consts, *grids, *a.means]
    if not function.args:
        return Tensor(_broadcast(evaluate(function.expr, [], consts, grids), others), a.axes)
    if (form := absolute_form(function)) is not None and not any(orders):
        scale, shift_by = form
        mean = scale * a.means[0] + evaluate(shift_by, [], consts, grids)
        variance = jnp.zeros(()) if a.variances[0][0] is None else a.variances[0][0]
        found = quadrature.folded_normal_mean(mean, scale**2 * variance)
        return Tensor(_broadcast(found, others), a.axes)
    z, weights = quadrature.nodes(len(a.means))
    for k, order in enumerate(orders):
        weights = weights * z[:, k] ** order
    points = quadrature.coloured(a.means, a.root, z)
    wide = [c[..., None] for c in consts], [g[..., None] for g in grids]
    values = evaluate(function.expr, points, *wide) * jnp.ones(len(z))
    return Tensor(_broadcast(values @ weights, others), a.axes)


def _broadcast(found: Any, others: list[Any]) -> Any:
    shape = np.broadcast_shapes(np.shape(found), *(np.shape(x) for x in others))
    return jnp.broadcast_to(found, shape)


# --- times elements ---------------------------------------------------------------------------


def with_elements(
    function: Function, touched: tuple[Entry, ...], shift: Affine | None, moments: AbstractMoments
) -> list[Product]:
    """Products whose sum is the mean of a function times Gaussian elements of its blocks.

    Raises:
        Unreadable: if they are too many.
    """
    if len(touched) > MAX_TOUCHED:
        raise Unreadable("a nonlinear function times many latents that it depends on")
    a = _arguments(function, shift, moments)
    slopes = [_slopes(function, a, e, moments) for e in touched]
    means = [moments.shifted_mean(e, shift) for e in touched]
    known: dict[Orders, Tensor] = {}
    found = []
    for orders, rest in _expanded(touched, means, slopes, moments, (0,) * len(a.means)):
        if orders not in known:
            known[orders] = of_function(function, shift, moments, orders, a)
        found.append(Product((known[orders],)) * rest)
    return found


def _slopes(
    function: Function, a: Arguments, entry: Entry, moments: AbstractMoments
) -> list[Tensor | None]:
    """Regression c of an element on the standard normals: L c = Cov(a, u)."""
    form = Affine((Term(linear=(entry,)),), entry.axes)
    axes = union(a.axes, entry.axes)
    pad = (...,) + (None,) * (len(axes) - len(a.axes))
    root = [[None if x is None else x[pad] for x in row] for row in a.root]
    covariance = [moments.affine_covariance(arg, form) for arg in function.args]
    arrays = [None if c is None else expand(c, axes) for c in covariance]
    solved = quadrature.forward_substitution(root, arrays)
    return [None if x is None else _squeezed(x, axes) for x in solved]


def _squeezed(array: Any, axes: tuple[int, ...]) -> Tensor:
    """A tensor over only the axes along which its size is not one."""
    kept = tuple(i for i, n in enumerate(array.shape) if n != 1)
    return Tensor(array.reshape(tuple(array.shape[i] for i in kept)), tuple(axes[i] for i in kept))


def _expanded(
    entries: tuple[Entry, ...],
    means: list[Tensor],
    slopes: list[list[Tensor | None]],
    moments: AbstractMoments,
    orders: Orders,
) -> Iterator[tuple[Orders, Product]]:
    """The product of regressed elements, with its residuals paired as in Wick's formula."""
    if not entries:
        yield orders, Product(())
        return
    first, rest = entries[0], range(1, len(entries))

    def without(*left_out: int) -> Iterator[tuple[Orders, Product]]:
        kept = [i for i in rest if i not in left_out]
        return _expanded(
            tuple(entries[i] for i in kept), [means[i] for i in kept],
            [slopes[i] for i in kept], moments, orders,
        )  # fmt: skip

    for found, product in without():
        yield found, Product((means[0],)) * product
        for k, slope in enumerate(slopes[0]):
            if slope is not None:
                raised = tuple(n + (i == k) for i, n in enumerate(found))
                yield raised, Product((slope,)) * product
    for j in rest:
        cov = moments.covariance(first, entries[j])
        explained = [
            Product((Tensor(jnp.asarray(-1.0)), s, t))
            for s, t in zip(slopes[0], slopes[j], strict=True) if s is not None and t is not None
        ]  # fmt: skip
        for residual in ([] if cov is None else [cov]) + explained:
            for found, product in without(j):
                yield found, residual * product
