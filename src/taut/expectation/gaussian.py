"""Gaussian blocks of q: one covariance over several latents, or many small ones along plates."""

from collections.abc import Mapping
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from taut._core.errors import ArgumentError
from taut.expectation.factor import AbstractContinuous

LOG_2PI = float(np.log(2.0 * np.pi))


class Gaussian(eqx.Module):
    r"""A Gaussian block: independent copies, along leading dimensions, of one joint normal.

    By the theorems of Bonnet and Price, the gradient of an expectation with respect to ``mean``
    is the expected gradient, and twice that with respect to ``covariance`` the expected Hessian.

    Attributes:
        shapes: the block's latents with their shapes.
        batch_ndim: leading dimensions of every latent that are independent. 0 makes one dense
            block of everything; all of them make the elements of one latent independent.
        mean: shape (copies, size of one copy).
        covariance: shape (copies, size, size).
    """

    mean: Array
    covariance: Array
    shapes: tuple[tuple[str, tuple[int, ...]], ...] = eqx.field(static=True)
    batch_ndim: int = eqx.field(static=True)

    def __init__(
        self,
        shapes: Mapping[str, tuple[int, ...]] | tuple[tuple[str, tuple[int, ...]], ...],
        mean: Any,
        covariance: Any,
        batch_ndim: int = 0,
    ) -> None:
        self.shapes = tuple(shapes.items()) if isinstance(shapes, Mapping) else tuple(shapes)
        self.batch_ndim = batch_ndim
        copies, size = self.layout
        self.mean = jnp.asarray(mean, float).reshape(copies, size)
        covariance = jnp.asarray(covariance, float)
        if covariance.size != copies * size * size:
            raise ArgumentError(
                f"covariance of the block {', '.join(n for n, _ in self.shapes)} must have shape "
                f"({copies}, {size}, {size}), got {covariance.shape}"
            )
        self.covariance = covariance.reshape(copies, size, size)

    @property
    def layout(self) -> tuple[int, int]:
        """Number of copies and size of one."""
        batches = {shape[: self.batch_ndim] for _, shape in self.shapes}
        if len(batches) != 1:
            raise ArgumentError(
                f"latents of one block must share their {self.batch_ndim} leading dimensions, got {dict(self.shapes)}"
            )
        size = sum(int(np.prod(s[self.batch_ndim :], dtype=int)) for _, s in self.shapes)
        return int(np.prod(batches.pop(), dtype=int)), size

    @property
    def names(self) -> tuple[str, ...]:
        """The latents."""
        return tuple(n for n, _ in self.shapes)

    def place(self, name: str) -> tuple[tuple[int, ...], slice]:
        """Shape of a latent, and its elements within a copy."""
        start = 0
        for other, shape in self.shapes:
            size = int(np.prod(shape[self.batch_ndim :], dtype=int))
            if other == name:
                return shape, slice(start, start + size)
            start += size
        raise KeyError(name)

    def mean_of(self, name: str) -> Array:
        """Mean of one latent, in its shape."""
        shape, where = self.place(name)
        return self.mean[:, where].reshape(shape)

    def cross(self, a: str, b: str) -> Array:
        """Covariance of two latents: batch dimensions, then the rest of a's, then of b's.

        Symmetrised, so that gradients with respect to the covariance are symmetric too.
        """
        (shape_a, at_a), (shape_b, at_b) = self.place(a), self.place(b)
        nb = self.batch_ndim
        symmetric = 0.5 * (self.covariance + self.covariance.mT)
        return symmetric[:, at_a, at_b].reshape((*shape_a[:nb], *shape_a[nb:], *shape_b[nb:]))

    def values(self, points: Array) -> dict[str, Array]:
        """Split points of the block, (..., copies, size), by latent."""
        lead = points.shape[:-2]
        return {n: points[..., self.place(n)[1]].reshape((*lead, *s)) for n, s in self.shapes}

    @property
    def factor(self) -> Array:
        """Lower Cholesky factors of the covariances, (copies, size, size)."""
        return jnp.linalg.cholesky(self.covariance)

    @property
    def entropy(self) -> Array:
        """Entropy, nats."""
        copies, size = self.layout
        diagonal = jnp.diagonal(self.factor, axis1=1, axis2=2)
        return 0.5 * copies * size * (1.0 + LOG_2PI) + jnp.sum(jnp.log(diagonal))

    def place_noise(self, noise: Array) -> Array:
        """Turn standard normals (..., copies, size) into points."""
        return self.mean + jnp.einsum("bij,...bj->...bi", self.factor, noise)

    def sample(self, key: Array, num_draws: int) -> dict[str, Array]:
        """Draws by latent, (num_draws, *shape)."""
        noise = jax.random.normal(key, (num_draws, *self.mean.shape), float)
        return self.values(self.place_noise(noise))

    def log_prob(self, values: Mapping[str, Array]) -> Array:
        """Log density of one value of all latents of the block, nats."""
        copies = self.mean.shape[0]
        parts = [jnp.asarray(values[n], float).reshape(copies, -1) for n, _ in self.shapes]
        centred = jnp.concatenate(parts, axis=1) - self.mean
        noise = jax.scipy.linalg.solve_triangular(self.factor, centred[..., None], lower=True)
        diagonal = jnp.diagonal(self.factor, axis1=1, axis2=2)
        return (
            -0.5 * jnp.sum(noise**2) - 0.5 * self.mean.size * LOG_2PI - jnp.sum(jnp.log(diagonal))
        )


class Scaled(eqx.Module):
    r"""A Gaussian block and the precisions that divide its covariances, jointly.

    :math:`q(w, \tau) = N(w \mid m, V / \tau)\, q(\tau)`, copy by copy; with a Gamma
    :math:`q(\tau)` the normal-gamma distribution, the exact posterior of conjugate linear models.
    With a Wishart :math:`q(\Lambda)` it is the normal-Wishart distribution, V being the identity
    over kappa and its quotient :math:`\Lambda^{-1} / \kappa` (Bishop 2006, section 2.3.6). Given
    the precision, Wick's formula holds.

    Attributes:
        normal: the block, with V as its covariance.
        precision: factor of the precisions, of the shape of the block's batch dimensions, or of
            matrices; its statistics are (log tau, tau) or (log det, matrix).
        precision_name: their latent's name.
    """

    normal: Gaussian
    precision: AbstractContinuous
    precision_name: str = eqx.field(static=True)

    def __check_init__(self) -> None:
        """Check that every copy has its precision."""
        batch = self.normal.shapes[0][1][: self.batch_ndim]
        expected = (*batch, self.size, self.size) if self.is_matrix else batch
        if self.precision.shape != expected:
            raise ArgumentError(
                f"the precision '{self.precision_name}' of the block {', '.join(self.normal.names)} "
                f"must have shape {expected}, got {self.precision.shape}; set batch_ndim of the block "
                "to the number of dimensions that both share"
            )
        if self.is_matrix and [len(s) for _, s in self.normal.shapes] != [len(batch) + 1]:
            raise ArgumentError(
                f"the block of the matrix precision '{self.precision_name}' must hold one vector per "
                f"matrix, got the shapes {dict(self.normal.shapes)}"
            )

    @property
    def batch_ndim(self) -> int:
        """Leading dimensions of every latent that are independent."""
        return self.normal.batch_ndim

    @property
    def size(self) -> int:
        """Gaussian elements that have one precision."""
        return self.normal.layout[1]

    @property
    def is_matrix(self) -> bool:
        """Whether precisions are matrices."""
        return self.precision.kind == "matrix"

    @property
    def names(self) -> tuple[str, ...]:
        """The latents, the precision last."""
        return (*self.normal.names, self.precision_name)

    def place(self, name: str) -> tuple[tuple[int, ...], slice]:
        """Shape of a latent, and its elements within a copy of the block."""
        if name == self.precision_name:
            return self.precision.shape, slice(0, 0)
        return self.normal.place(name)

    def mean_of(self, name: str) -> Array:
        """Mean of one latent of the Gaussian block."""
        return self.normal.mean_of(name)

    def cross(self, a: str, b: str) -> Array:
        """Covariance of two latents where the precision is one, or the identity."""
        return self.normal.cross(a, b)

    @property
    def entropy(self) -> Array:
        """Entropy, nats."""
        mean_log = jnp.sum(self.precision.mean[0])
        shrunk = 0.5 * mean_log * (1.0 if self.is_matrix else self.size)
        return self.normal.entropy - shrunk + self.precision.entropy

    def sample(self, key: Array, num_draws: int) -> dict[str, Array]:
        """Draws by latent, (num_draws, *shape)."""
        first, second = jax.random.split(key)
        drawn = self.precision.sample(first, num_draws)
        noise = jax.random.normal(second, (num_draws, *self.normal.mean.shape), float)
        if self.is_matrix:
            root = jnp.linalg.cholesky(drawn.reshape(*noise.shape, self.size))
            noise = jax.scipy.linalg.solve_triangular(root.mT, noise[..., None], lower=False)[
                ..., 0
            ]
        else:
            noise = noise / jnp.sqrt(drawn.reshape(*noise.shape[:-1], 1))
        return {**self.normal.values(self.normal.place_noise(noise)), self.precision_name: drawn}
