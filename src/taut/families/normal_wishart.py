"""The normal-Wishart density over the real coordinates of a problem."""

import numpy as np
from jaxtyping import Float
from typing_extensions import override

from taut.families.gaussian import LOG_2PI, Points, Vector
from taut.families.product import AbstractPart, CholeskyWishart


class CholeskyNormalWishart(AbstractPart):
    """Vectors mu ~ N(location, (kappa Lambda)^-1) with Wishart matrices Lambda.

    All mu come first, then the coordinates of the matrices. With Lambda = L L' the vectors are
    location + L'^-1 z / sqrt(kappa), z standard normal (Bishop 2006, eq. 2.157).

    Attributes:
        location: of the vectors, shape (b, p).
        kappa: shape (b,).
        wishart: density of the b matrices' Cholesky factors.
    """

    location: np.ndarray
    kappa: np.ndarray
    wishart: CholeskyWishart

    @property
    @override
    def mean(self) -> Vector:
        return np.append(self.location, self.wishart.mean)

    @property
    @override
    def sd(self) -> Vector:
        """Of the vectors where they have one (df > p + 1), else the scale of their density."""
        p, df = self.location.shape[1], self.wishart.df
        inverse = np.linalg.inv(self.wishart.factor)
        diagonal = (inverse**2).sum(axis=1)
        freedom = np.where(df > p + 1.0, df - p - 1.0, df)
        return np.append(np.sqrt(diagonal / (self.kappa * freedom)[:, None]), self.wishart.sd)

    @override
    def place(self, noise: Points) -> Points:
        size = self.location.size
        matrices = self.wishart.place(noise[:, size:])
        z = noise[:, :size].reshape(-1, *self.location.shape)
        upper = self.wishart.roots(matrices).swapaxes(-1, -2)
        away = np.linalg.solve(upper, z[..., None])[..., 0] / np.sqrt(self.kappa)[:, None]
        return np.concatenate([(self.location + away).reshape(-1, size), matrices], axis=1)

    @override
    def log_prob(self, points: Points) -> Float[np.ndarray, " n"]:
        size, p = self.location.size, self.location.shape[1]
        matrices = points[:, size:]
        away = points[:, :size].reshape(-1, *self.location.shape) - self.location
        roots = self.wishart.roots(matrices)
        square = self.kappa * (np.einsum("nbij,nbi->nbj", roots, away) ** 2).sum(axis=2)
        log_det = np.log(np.einsum("nbii->nbi", roots)).sum(axis=2)
        normal = log_det + 0.5 * (p * (np.log(self.kappa) - LOG_2PI) - square)
        return normal.sum(axis=1) + self.wishart.log_prob(matrices)
