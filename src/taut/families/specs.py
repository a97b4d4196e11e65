"""Which variational family to use: frozen settings, without parameters.

Each family says how a flat parameter vector and standard normals become draws, in JAX, so
that any of them can be fitted on fixed draws by the same second-order solver.
"""

import abc
import dataclasses
from typing import Any, Literal

import jax.numpy as jnp
import numpy as np

from taut._core.errors import ArgumentError
from taut.families.gaussian import (
    AbstractGaussian,
    BlockGaussian,
    DenseGaussian,
    DiagonalGaussian,
    LowRankGaussian,
)
from taut.problem import Latent

Layout = tuple[tuple[tuple[int, ...], ...], ...]
"""Blocks of coordinates grouped by size: for each size, its blocks' coordinates."""


class AbstractFamily(abc.ABC):
    """A choice of variational family."""

    @abc.abstractmethod
    def describe(self) -> str:
        """A few words for the plan."""

    @abc.abstractmethod
    def bind(self, latents: tuple[Latent, ...]) -> "AbstractForm":
        """Fix the family to the latents of a problem."""


class AbstractForm(abc.ABC):
    """A family bound to a dimension: the map from parameters and noise to draws.

    Forms are hashable settings, static arguments of compiled functions.
    """

    dim: int

    @property
    def noise_dim(self) -> int:
        """Standard normals used per draw."""
        return self.dim

    @abc.abstractmethod
    def initial(self, q: AbstractGaussian) -> np.ndarray:
        """Parameters of the member closest to a Gaussian, marginals kept."""

    @abc.abstractmethod
    def draws(self, params: Any, noise: Any) -> tuple[Any, Any]:
        """Draws, shape (n, d), and half the log determinant of the covariance (JAX)."""

    @abc.abstractmethod
    def gaussian(self, params: np.ndarray) -> AbstractGaussian:
        """The distribution with these parameters."""


@dataclasses.dataclass(frozen=True)
class Diagonal(AbstractFamily):
    """Mean field: independent Gaussians. Underestimates spread where latents are coupled."""

    def describe(self) -> str:
        return "diagonal Gaussian (mean field)"

    def bind(self, latents: tuple[Latent, ...]) -> AbstractForm:
        return DiagonalForm(latents[-1].stop)


@dataclasses.dataclass(frozen=True)
class Dense(AbstractFamily):
    """One Gaussian with full covariance over all latents."""

    def describe(self) -> str:
        return "dense Gaussian (full covariance)"

    def bind(self, latents: tuple[Latent, ...]) -> AbstractForm:
        dim = latents[-1].stop
        return BlockForm(dim, ((tuple(range(dim)),),))


@dataclasses.dataclass(frozen=True)
class LowRank(AbstractFamily):
    """Gaussian with diagonal plus low-rank covariance.

    Attributes:
        rank: number of directions beyond the diagonal, at least 1.
    """

    rank: int = 10

    def __post_init__(self) -> None:
        """Check the rank."""
        if self.rank < 1:
            raise ArgumentError(f"rank must be at least 1, got {self.rank}; use families.Diagonal() for no rank at all")

    def describe(self) -> str:
        return f"Gaussian with diagonal plus rank-{self.rank} covariance"

    def bind(self, latents: tuple[Latent, ...]) -> AbstractForm:
        dim = latents[-1].stop
        return LowRankForm(dim, min(self.rank, dim))


@dataclasses.dataclass(frozen=True)
class Block(AbstractFamily):
    """Independent dense Gaussians.

    Attributes:
        by: "latent": one block per latent; "plate": one block per element of each plate,
            coupling all latents of that element, and one block for the latents in no plate.
    """

    by: Literal["latent", "plate"] = "latent"

    def __post_init__(self) -> None:
        """Check the grouping."""
        if self.by not in ("latent", "plate"):
            raise ArgumentError(f"by must be 'latent' or 'plate', got '{self.by}'")

    def describe(self) -> str:
        return f"block-diagonal Gaussian, one dense block per {'latent' if self.by == 'latent' else 'plate element'}"

    def bind(self, latents: tuple[Latent, ...]) -> AbstractForm:
        groups = [list(range(s.start, s.stop)) for s in latents] if self.by == "latent" else _plate_groups(latents)
        sizes = sorted({len(g) for g in groups})
        layout = tuple(tuple(tuple(g) for g in groups if len(g) == size) for size in sizes)
        return BlockForm(latents[-1].stop, layout)


def _plate_groups(latents: tuple[Latent, ...]) -> list[list[int]]:
    """Coordinates grouped by the innermost plate element that they belong to."""
    groups: dict[Any, list[int]] = {}
    for s in latents:
        axes = [i for i, d in enumerate(s.dims) if d in s.plates]
        index = np.arange(s.start, s.stop).reshape(s.unconstrained_shape)
        for position in np.ndindex(*s.unconstrained_shape):
            at = tuple(position[a] for a in axes if a < len(position))
            groups.setdefault((tuple(s.plates), at), []).append(int(index[position]))
    return list(groups.values())


@dataclasses.dataclass(frozen=True)
class DiagonalForm(AbstractForm):
    """Parameters: mean, log standard deviations."""

    dim: int

    def initial(self, q: AbstractGaussian) -> np.ndarray:
        return np.concatenate([q.mean, np.log(q.sd)])

    def draws(self, params: Any, noise: Any) -> tuple[Any, Any]:
        mean, log_sd = params[: self.dim], params[self.dim :]
        return mean + jnp.exp(log_sd) * noise, jnp.sum(log_sd)

    def gaussian(self, params: np.ndarray) -> AbstractGaussian:
        return DiagonalGaussian(params[: self.dim], np.exp(params[self.dim :]))


@dataclasses.dataclass(frozen=True)
class BlockForm(AbstractForm):
    """Parameters: mean, then for each block log diagonal and strict lower part of its factor.

    The strict part is stored relative to the row's diagonal, which makes it unit-free.
    """

    dim: int
    layout: Layout

    def _factors(self, params: Any, xp: Any) -> list[Any]:
        start, factors = self.dim, []
        for blocks in self.layout:
            count, size = len(blocks), len(blocks[0])
            lower = size * (size + 1) // 2
            flat = params[start : start + count * lower].reshape(count, lower)
            start += count * lower
            scale = xp.exp(flat[:, :size])
            rows, columns = np.tril_indices(size, -1)
            unit = xp.broadcast_to(xp.eye(size), (count, size, size))
            if xp is jnp:
                unit = unit.at[:, rows, columns].set(flat[:, size:])
            else:
                unit = unit.copy()
                unit[:, rows, columns] = flat[:, size:]
            factors.append(unit * scale[:, :, None])
        return factors

    def initial(self, q: AbstractGaussian) -> np.ndarray:
        parts, covariance = [q.mean], q.covariance
        for blocks in self.layout:
            index = np.asarray(blocks)
            factor = np.linalg.cholesky(covariance[index[:, :, None], index[:, None, :]])
            scale = np.einsum("bii->bi", factor)
            rows, columns = np.tril_indices(index.shape[1], -1)
            unit = factor / scale[:, :, None]
            parts.append(np.concatenate([np.log(scale), unit[:, rows, columns]], axis=1).ravel())
        return np.concatenate(parts)

    def draws(self, params: Any, noise: Any) -> tuple[Any, Any]:
        out, log_det = jnp.zeros_like(noise), 0.0
        for blocks, factor in zip(self.layout, self._factors(params, jnp), strict=True):
            index = np.asarray(blocks)
            out = out.at[:, index].set(jnp.einsum("bij,nbj->nbi", factor, noise[:, index]))
            log_det = log_det + jnp.sum(jnp.log(jnp.einsum("bii->bi", factor)))
        return params[: self.dim] + out, log_det

    def gaussian(self, params: np.ndarray) -> AbstractGaussian:
        factors = self._factors(params, np)
        if len(self.layout) == 1 and len(self.layout[0]) == 1:
            return DenseGaussian(params[: self.dim], factors[0][0])
        return BlockGaussian(params[: self.dim], tuple(np.asarray(b) for b in self.layout), tuple(factors))


@dataclasses.dataclass(frozen=True)
class LowRankForm(AbstractForm):
    """Parameters: mean, log scale, V by rows."""

    dim: int
    rank: int

    @property
    def noise_dim(self) -> int:
        return self.dim + self.rank

    def initial(self, q: AbstractGaussian) -> np.ndarray:
        sd = q.sd
        correlation = q.covariance / np.outer(sd, sd)
        values, vectors = np.linalg.eigh(correlation)
        top = np.argsort(values)[::-1][: self.rank]
        columns = vectors[:, top] * np.sqrt(np.maximum(values[top] - 1.0, 1e-4))
        share = 1.0 / np.sqrt(1.0 + np.sum(columns**2, axis=1))  # keeps the marginal variances
        return np.concatenate([q.mean, np.log(sd * share), columns.ravel()])

    def draws(self, params: Any, noise: Any) -> tuple[Any, Any]:
        d, r = self.dim, self.rank
        mean, log_scale, columns = params[:d], params[d : 2 * d], params[2 * d :].reshape(d, r)
        inner = jnp.eye(r) + columns.T @ columns
        log_det = jnp.sum(log_scale) + 0.5 * jnp.linalg.slogdet(inner)[1]
        return mean + jnp.exp(log_scale) * (noise[:, :d] + noise[:, d:] @ columns.T), log_det

    def gaussian(self, params: np.ndarray) -> AbstractGaussian:
        d, r = self.dim, self.rank
        return LowRankGaussian.from_columns(params[:d], np.exp(params[d : 2 * d]), params[2 * d :].reshape(d, r))
