r"""The joint factors of a Gaussian block and its precisions: normal-gamma and normal-Wishart.

.. math:: q(w, \Lambda) = N(w \mid m, \Lambda^{-1} / \kappa)\, W(\Lambda \mid W, \nu)

has the statistics :math:`w^\top \Lambda w, \Lambda w, \Lambda, \log|\Lambda|`, with the means
:math:`D / \kappa + m^\top S m, S m, S` where :math:`S = E[\Lambda] = \nu W`, and
:math:`E[\log|\Lambda|]`. The natural parameter of the optimum is the gradient
:math:`(c, b, L, e)` of the expected log joint with respect to them, so

.. math:: \kappa = -2 c, \qquad \kappa m = b, \qquad W^{-1} = -2 L - \kappa m m^\top, \qquad
          \tfrac12 (\nu - D) = e.

The normal-gamma :math:`N(w \mid m, V / \tau)\, \mathrm{Gamma}(\tau \mid a, b)` is the same with a
scalar :math:`\tau` and a matrix :math:`C = -V^{-1} / 2` of :math:`\tau w w^\top` in place of c.

Source: Bishop (2006), sections 2.3.6 and 10.2, eqs. 10.60 to 10.63; Murphy (2007), Conjugate
Bayesian analysis of the Gaussian distribution, sections 3 and 8.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array

from taut.expectation.elementwise import Unreadable
from taut.expectation.factor import Parameters
from taut.expectation.gaussian import Gaussian, Scaled
from taut.expectation.terms import Entry, Term, union

# --- the update -----------------------------------------------------------------------------------


class Natural(NamedTuple):
    """Natural parameters, or a gradient with respect to the mean parameters, copy by copy.

    Attributes:
        square: C of tau w w', shape (copies, size, size); c times the identity for matrices.
        linear: b, shape (copies, size).
        level: L of the precision, shape (copies,) or (copies, size, size).
        log: e of its log, or of its log determinant, shape (copies,).
    """

    square: Array
    linear: Array
    level: Array
    log: Array


def natural_of(factor: Scaled) -> Natural:
    """The natural parameters of a joint factor; costs O(copies size^3)."""
    mean, square = factor.normal.mean, -0.5 * jnp.linalg.inv(factor.normal.covariance)
    linear = -2.0 * _times(square, mean)
    log, level = _by_copy(factor, factor.precision.natural)
    level = level - _absorbed(factor, mean, square, linear)
    return Natural(square, linear, level, log + _half_dim(factor))


def gradient(factor: Scaled, cotangent: Scaled) -> Natural:
    """The gradient with respect to the mean parameters: at the optimum, the natural parameters.

    Args:
        factor: where it was taken.
        cotangent: gradient of the expected log joint with respect to the factor's fields.
    """
    mean, square = factor.normal.mean, cotangent.normal.covariance
    _, expected = _by_copy(factor, factor.precision.mean)
    if factor.is_matrix:
        share = jnp.trace(square, axis1=1, axis2=2) / factor.size
        square = share[:, None, None] * jnp.eye(factor.size)
        slope = jnp.linalg.solve(expected, cotangent.normal.mean[..., None])[..., 0]
    else:
        slope = cotangent.normal.mean / expected[:, None]
    linear = slope - 2.0 * _times(square, mean)
    log, level = _by_copy(factor, factor.precision.gradient(cotangent.precision))
    return Natural(square, linear, level - _absorbed(factor, mean, square, linear), log)


def with_natural(factor: Scaled, natural: Natural) -> tuple[Scaled, Array]:
    """The joint factor of the same latents with these parameters, and whether it is proper."""
    precision = -(natural.square + natural.square.mT)
    root = jnp.linalg.cholesky(precision)
    eye = jnp.broadcast_to(jnp.eye(factor.size), root.shape)
    covariance = jax.scipy.linalg.cho_solve((root, True), eye)
    mean = _times(covariance, natural.linear)
    level = natural.level + _absorbed(factor, mean, natural.square, natural.linear)
    log, shapes = natural.log - _half_dim(factor), [x.shape for x in factor.precision.natural]
    new: Any = factor.precision.with_natural((log.reshape(shapes[0]), level.reshape(shapes[1])))
    block = Gaussian(factor.normal.shapes, mean, covariance, factor.batch_ndim)
    proper = new.is_proper() & jnp.all(jnp.isfinite(covariance))
    return Scaled(block, new, factor.precision_name), proper


def _absorbed(factor: Scaled, mean: Array, square: Array, linear: Array) -> Array:
    """What the statistics of w add to the precision's own parameter at a mean of w."""
    pair = (_times(square, mean) + linear)[:, :, None] * mean[:, None, :]
    return 0.5 * (pair + pair.mT) if factor.is_matrix else jnp.trace(pair, axis1=1, axis2=2)


def _half_dim(factor: Scaled) -> float:
    """How often the log of w's density has half the log of the precision's statistic."""
    return 0.5 if factor.is_matrix else 0.5 * factor.size


def _by_copy(factor: Scaled, pair: Parameters) -> Parameters:
    """Arrays of the precision's statistics with one dimension of copies."""
    log, level = pair
    copies, _ = factor.normal.layout
    return log.reshape(copies), level.reshape(copies, *level.shape[log.ndim :])


def _times(matrices: Array, vectors: Array) -> Array:
    return jnp.einsum("bij,bj->bi", matrices, vectors)


# --- terms ----------------------------------------------------------------------------------------


def precision_entry(term: Term, block: Scaled) -> Entry:
    """The element of a block's precision that the block's elements in a term are scaled by.

    Raises:
        Unreadable: if they may be scaled by several, so that moments given one do not serve.
    """
    name, nb = block.precision_name, block.batch_ndim
    mine = [e for e in term.linear if e.latent in block.normal.names]
    known = [e for e, _ in term.powers if e.latent == name]
    entry = known[0] if known else Entry(name, mine[0].index[:nb])
    if len(known) > 1:
        raise Unreadable(f"a product of different elements of '{name}'")
    if len(mine) > 1 and any(e.index[:nb] != entry.index[:nb] for e in mine):
        raise Unreadable(f"a product of elements with precisions of their own in '{name}'")
    if len(mine) > 1 and block.is_matrix and not is_contracted(term, entry, mine, block.size):
        raise Unreadable(f"a product of elements of a vector but for w' {name} w")
    return entry


def is_contracted(term: Term, matrix: Entry, vectors: Sequence[Entry], size: int) -> bool:
    r"""Whether a term has :math:`\Lambda w` or :math:`w^\top \Lambda w` and no other part of them.

    The axes in which matrix and vectors meet must be in nothing else.

    Args:
        term: that the entries are in.
        matrix: element of the precision, its last two indices those of rows and columns.
        vectors: one or two elements of the block.
        size: of the vectors.
    """
    sides, met = matrix.index[-2:], [e.index[-1] for e in vectors]
    if size == 1:
        return len(vectors) < 3
    whole = all(isinstance(i, int) for i in sides) and len({*sides}) == 2
    if not whole or len({*met}) != len(met) or not {*met} <= {*sides}:
        return False
    rest = union(
        *(t.axes for t in term.operands),
        *(a.axes for a in (*term.exponents, *term.functions)),
        *((*e.axes, axis) for e, axis in term.onehots),
        *(e.axes for e in term.linear if e not in vectors),
        *(e.axes for e, _ in term.powers if e != matrix),
        *((i,) if isinstance(i, int) else i.axes for e in vectors for i in e.index[:-1]),
    )
    return not {*met} & {*rest}
