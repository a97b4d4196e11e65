"""Which variational family to use: frozen settings, without parameters.

Each family says how a flat parameter vector and standard normals become draws, in JAX, so
that any of them can be fitted on fixed draws by the same second-order solver.
"""

import abc
import dataclasses
from typing import Any, Literal

import jax.numpy as jnp
import numpy as np
from typing_extensions import override

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


class AbstractGaussianFamily(AbstractFamily):
    """A family of Gaussians over all coordinates, which fixed draws can fit."""

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

    @property
    @abc.abstractmethod
    def width(self) -> int:
        """Most scale parameters of one coordinate; with fewer draws ELBOs are unbounded."""

    @abc.abstractmethod
    def initial(self, q: AbstractGaussian) -> np.ndarray:
        """Parameters of the member closest to a Gaussian, marginals kept."""

    @abc.abstractmethod
    def draws(self, params: Any, noise: Any) -> tuple[Any, Any]:
        """Draws, shape (n, d), and half the log determinant of the covariance (JAX)."""

    @abc.abstractmethod
    def scaled(self, params: np.ndarray, factor: float) -> np.ndarray:
        """Parameters of the member with all standard deviations multiplied by ``factor``."""

    @abc.abstractmethod
    def gaussian(self, params: np.ndarray) -> AbstractGaussian:
        """The distribution with these parameters."""


@dataclasses.dataclass(frozen=True)
class Diagonal(AbstractGaussianFamily):
    """Mean field: independent Gaussians. Underestimates spread where latents are coupled."""

    @override
    def describe(self) -> str:
        return "diagonal Gaussian (mean field)"

    @override
    def bind(self, latents: tuple[Latent, ...]) -> AbstractForm:
        return DiagonalForm(latents[-1].stop)


@dataclasses.dataclass(frozen=True)
class Dense(AbstractGaussianFamily):
    """One Gaussian with full covariance over all latents."""

    @override
    def describe(self) -> str:
        return "dense Gaussian (full covariance)"

    @override
    def bind(self, latents: tuple[Latent, ...]) -> AbstractForm:
        dim = latents[-1].stop
        return BlockForm(dim, ((tuple(range(dim)),),))


@dataclasses.dataclass(frozen=True)
class LowRank(AbstractGaussianFamily):
    """Gaussian with diagonal plus low-rank covariance.

    Attributes:
        rank: number of directions beyond the diagonal, at least 1.
    """

    rank: int = 10

    def __post_init__(self) -> None:
        """Check the rank."""
        if self.rank < 1:
            raise ArgumentError(
                f"rank must be at least 1, got {self.rank}; use families.Diagonal() for no rank at all"
            )

    @override
    def describe(self) -> str:
        return f"Gaussian with diagonal plus rank-{self.rank} covariance"

    @override
    def bind(self, latents: tuple[Latent, ...]) -> AbstractForm:
        dim = latents[-1].stop
        return LowRankForm(dim, min(self.rank, dim))


@dataclasses.dataclass(frozen=True)
class Block(AbstractGaussianFamily):
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

    @override
    def describe(self) -> str:
        return f"block-diagonal Gaussian, one dense block per {'latent' if self.by == 'latent' else 'plate element'}"

    @override
    def bind(self, latents: tuple[Latent, ...]) -> AbstractForm:
        groups = (
            [list(range(s.start, s.stop)) for s in latents]
            if self.by == "latent"
            else _plate_groups(latents)
        )
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

    @property
    @override
    def width(self) -> int:
        return 1

    @override
    def initial(self, q: AbstractGaussian) -> np.ndarray:
        return np.concatenate([q.mean, np.log(q.sd)])

    @override
    def draws(self, params: Any, noise: Any) -> tuple[Any, Any]:
        mean, log_sd = params[: self.dim], params[self.dim :]
        return mean + jnp.exp(log_sd) * noise, jnp.sum(log_sd)

    @override
    def scaled(self, params: np.ndarray, factor: float) -> np.ndarray:
        out = params.copy()
        out[self.dim : 2 * self.dim] += np.log(factor)
        return out

    @override
    def gaussian(self, params: np.ndarray) -> AbstractGaussian:
        return DiagonalGaussian(params[: self.dim], np.exp(params[self.dim :]))


@dataclasses.dataclass(frozen=True)
class BlockForm(AbstractForm):
    """Parameters: mean, then for each block log diagonal and strict lower part of its factor.

    The strict part is stored relative to the row's diagonal, which makes it unit-free.
    """

    dim: int
    layout: Layout

    @property
    @override
    def width(self) -> int:
        return max(len(blocks[0]) for blocks in self.layout)

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

    @override
    def initial(self, q: AbstractGaussian) -> np.ndarray:
        parts = [q.mean]
        independent = isinstance(q, DiagonalGaussian)
        root = None if independent else q.colour(np.eye(self.dim))
        for blocks in self.layout:
            index = np.asarray(blocks)
            size = index.shape[1]
            if root is None:
                scale, unit = q.sd[index], np.zeros((len(index), size, size))
            else:  # by QR: a covariance would lose half of the digits
                upper = np.asarray(np.linalg.qr(root[:, index].transpose(1, 0, 2), mode="r"))
                diagonal = np.einsum("bii->bi", upper)
                scale = np.maximum(np.abs(diagonal), np.finfo(float).tiny)
                unit = (upper * np.where(diagonal < 0, -1.0, 1.0)[:, :, None]).transpose(0, 2, 1)
                unit = unit / scale[:, :, None]
            rows, columns = np.tril_indices(size, -1)
            parts.append(np.concatenate([np.log(scale), unit[:, rows, columns]], axis=1).ravel())
        return np.concatenate(parts)

    @override
    def draws(self, params: Any, noise: Any) -> tuple[Any, Any]:
        out, log_det = jnp.zeros_like(noise), 0.0
        for blocks, factor in zip(self.layout, self._factors(params, jnp), strict=True):
            index = np.asarray(blocks)
            out = out.at[:, index].set(jnp.einsum("bij,nbj->nbi", factor, noise[:, index]))
            log_det = log_det + jnp.sum(jnp.log(jnp.einsum("bii->bi", factor)))
        return params[: self.dim] + out, log_det

    @override
    def scaled(self, params: np.ndarray, factor: float) -> np.ndarray:
        out, start = params.copy(), self.dim
        for blocks in self.layout:
            count, size = len(blocks), len(blocks[0])
            stop = start + count * (size * (size + 1) // 2)
            out[start:stop].reshape(count, -1)[:, :size] += np.log(factor)  # a view
            start = stop
        return out

    @override
    def gaussian(self, params: np.ndarray) -> AbstractGaussian:
        factors = self._factors(params, np)
        if len(self.layout) == 1 and len(self.layout[0]) == 1:
            return DenseGaussian(params[: self.dim], factors[0][0])
        return BlockGaussian(
            params[: self.dim], tuple(np.asarray(b) for b in self.layout), tuple(factors)
        )


@dataclasses.dataclass(frozen=True)
class LowRankForm(AbstractForm):
    """Parameters: mean, log scale, V by rows."""

    dim: int
    rank: int

    @property
    @override
    def noise_dim(self) -> int:
        return self.dim + self.rank

    @property
    @override
    def width(self) -> int:
        return self.rank + 1

    @override
    def initial(self, q: AbstractGaussian) -> np.ndarray:
        columns = self._columns(q)
        share = 1.0 / np.sqrt(1.0 + np.sum(columns**2, axis=1))  # keeps the marginal variances
        return np.concatenate([q.mean, np.log(q.sd * share), columns.ravel()])

    def _columns(self, q: AbstractGaussian) -> np.ndarray:
        """Leading directions of the correlation; small ones in all directions if q has none."""
        if isinstance(q, DiagonalGaussian):
            return 0.01 * np.random.default_rng(0).standard_normal((self.dim, self.rank))
        sd = q.sd
        correlation = q.covariance / np.outer(sd, sd)
        values, vectors = np.linalg.eigh(correlation)
        top = np.argsort(values)[::-1][: self.rank]
        return vectors[:, top] * np.sqrt(np.maximum(values[top] - 1.0, 1e-4))

    @override
    def draws(self, params: Any, noise: Any) -> tuple[Any, Any]:
        d, r = self.dim, self.rank
        mean, log_scale, columns = params[:d], params[d : 2 * d], params[2 * d :].reshape(d, r)
        inner = jnp.eye(r) + columns.T @ columns
        log_det = jnp.sum(log_scale) + 0.5 * jnp.linalg.slogdet(inner)[1]
        return mean + jnp.exp(log_scale) * (noise[:, :d] + noise[:, d:] @ columns.T), log_det

    @override
    def scaled(self, params: np.ndarray, factor: float) -> np.ndarray:
        out = params.copy()
        out[self.dim : 2 * self.dim] += np.log(factor)
        return out

    @override
    def gaussian(self, params: np.ndarray) -> AbstractGaussian:
        d, r = self.dim, self.rank
        return LowRankGaussian.from_columns(
            params[:d], np.exp(params[d : 2 * d]), params[2 * d :].reshape(d, r)
        )


@dataclasses.dataclass(frozen=True)
class MeanField(AbstractFamily):
    """Independent factors, each in the family that the model makes optimal for it.

    Latents that are conditionally conjugate keep their own support (Gamma, InverseGamma, Beta,
    Dirichlet, Wishart), discrete latents get categorical or chain factors, and all others join
    Gaussian blocks over real coordinates, as large as leaves their updates in closed form.

    Attributes:
        blocks: names of the latents in each Gaussian block; None chooses.
        free_form: latents whose factor is a density on a grid, the calculus of variations' own
            answer q(z) proportional to exp E[log p]; scalar elements only.
    """

    blocks: tuple[tuple[str, ...], ...] | None = None
    free_form: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        """Make the settings hashable."""
        if self.blocks is not None:
            groups = tuple((b,) if isinstance(b, str) else tuple(b) for b in self.blocks)
            object.__setattr__(self, "blocks", groups)
        names = (self.free_form,) if isinstance(self.free_form, str) else tuple(self.free_form)
        object.__setattr__(self, "free_form", names)

    @override
    def describe(self) -> str:
        return "mean field of conjugate factors and Gaussian blocks"
