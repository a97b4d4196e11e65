"""Posteriors whose truth is known without taut: Gaussians, a conjugate regression, a log-gamma.

Truths come from closed forms, SciPy or NumPy quadrature.
"""

import functools
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from scipy import optimize, special, stats

from taut._core.precision import double_precision
from taut._core.progress import Watch
from taut.problem.density import Density, from_density
from taut.problem.evaluator import Evaluator
from taut.solvers.start import Start, find_start

LOG_2PI = np.log(2.0 * np.pi)


class Target(NamedTuple):
    """A problem with its posterior mean, covariance and log evidence."""

    evaluator: Evaluator
    mean: np.ndarray
    covariance: np.ndarray
    log_evidence: float

    @property
    def sd(self) -> np.ndarray:
        return np.sqrt(np.diagonal(self.covariance))

    @property
    def dim(self) -> int:
        return len(self.mean)


@functools.cache
def _density(fn, shapes, supports) -> Density:
    return Density(fn, dict(shapes), dict(supports))


def density(fn, shapes, supports=None, **data) -> Evaluator:
    """The evaluator of a plain log density; each density is traced and compiled once."""
    described = _density(fn, tuple(shapes.items()), tuple((supports or {}).items()))
    with double_precision():
        return Evaluator(from_density(described, data))


def started(evaluator: Evaluator, seed: int = 0) -> Start:
    return find_start(evaluator, Watch(), seed)


def solved(solver, family, evaluator: Evaluator, seed: int = 0, watch: Watch | None = None):
    """Start and solve."""
    return solver.solve(evaluator, family, started(evaluator, seed), seed, watch or Watch())


# --- Gaussians --------------------------------------------------------------------------------


@functools.cache
def _gaussian_density(shapes) -> Density:
    def log_density(latents, whitener, mean, constant):
        u = jnp.concatenate([jnp.ravel(latents[name]) for name, _ in shapes])
        return constant - 0.5 * jnp.sum((whitener @ (u - mean)) ** 2)

    return Density(log_density, dict(shapes))


def gaussian(mean, root, shapes=None, log_evidence=0.7) -> Target:
    """A Gaussian with covariance B B', times the exponential of ``log_evidence``."""
    mean, root = np.asarray(mean, float), np.asarray(root, float)
    shapes = shapes or {"u": (len(mean),)}
    constant = log_evidence - 0.5 * len(mean) * LOG_2PI - np.linalg.slogdet(root)[1]
    data = {"whitener": np.linalg.inv(root), "mean": mean, "constant": np.asarray(constant)}
    with double_precision():
        problem = from_density(_gaussian_density(tuple(shapes.items())), data)
        return Target(Evaluator(problem), mean, root @ root.T, log_evidence)


def random_root(rng, dim: int, condition: float = 30.0) -> np.ndarray:
    """A root of a covariance with that ratio of its largest to its smallest eigenvalue."""
    left, _ = np.linalg.qr(rng.standard_normal((dim, dim)))
    return left * np.geomspace(1.0, condition**-0.5, dim)


def gaussian_kl(mean, covariance, target: Target) -> float:
    """KL(q || p) between Gaussians: log evidence minus the true ELBO."""
    precision = np.linalg.inv(target.covariance)
    away = mean - target.mean
    log_dets = np.linalg.slogdet(target.covariance)[1] - np.linalg.slogdet(covariance)[1]
    trace = np.trace(precision @ covariance)
    return float(0.5 * (trace + away @ precision @ away - target.dim + log_dets))


# --- regressions ------------------------------------------------------------------------------

NOISE, PRIOR = 0.7, 2.0


def _linear(latents, x, y):
    residual = (y - x @ latents["beta"]) / NOISE
    prior = latents["beta"] / PRIOR
    constant = len(y) * (0.5 * LOG_2PI + np.log(NOISE))
    constant += x.shape[1] * (0.5 * LOG_2PI + np.log(PRIOR))
    return -0.5 * jnp.sum(residual**2) - 0.5 * jnp.sum(prior**2) - constant


def linear_regression(dim: int = 4, rows: int = 30) -> Target:
    """Conjugate regression with known noise: Bishop (2006), eqs. 3.50, 3.51; evidence by SciPy."""
    rng = np.random.default_rng(11)
    x = rng.standard_normal((rows, dim)) * np.geomspace(0.1, 10.0, dim)
    y = x @ rng.standard_normal(dim) + NOISE * rng.standard_normal(rows)
    covariance = np.linalg.inv(x.T @ x / NOISE**2 + np.eye(dim) / PRIOR**2)
    marginal = stats.multivariate_normal(
        np.zeros(rows), NOISE**2 * np.eye(rows) + PRIOR**2 * x @ x.T
    )
    evaluator = density(_linear, {"beta": (dim,)}, x=x, y=y)
    return Target(evaluator, covariance @ x.T @ y / NOISE**2, covariance, float(marginal.logpdf(y)))


def _logistic(latents, x, y):
    logit = x @ latents["beta"]
    prior = jnp.sum(-0.5 * latents["beta"] ** 2 - 0.5 * LOG_2PI)
    return jnp.sum(y * logit - jnp.logaddexp(0.0, logit)) + prior


def logistic_data(dim: int, rows: int, seed: int = 5):
    rng = np.random.default_rng(seed)
    x = rng.standard_normal((rows, dim))
    y = (
        rng.uniform(size=rows) < special.expit(x @ rng.standard_normal(dim) / np.sqrt(dim))
    ).astype(float)
    return x, y


def logistic_regression(dim: int, rows: int) -> Evaluator:
    x, y = logistic_data(dim, rows)
    return density(_logistic, {"beta": (dim,)}, x=x, y=y)


@functools.cache
def logistic_3d() -> Target:
    """Three coefficients, 40 rows; moments on a grid of 81 trapezoid nodes in each direction."""
    x, y = logistic_data(3, 40)

    def log_joint(beta):
        logit = beta @ x.T
        return (
            (y * logit - np.logaddexp(0, logit)).sum(-1) - 0.5 * (beta**2).sum(-1) - 1.5 * LOG_2PI
        )

    mode = optimize.minimize(lambda b: -log_joint(b), np.zeros(3)).x
    weight = special.expit(x @ mode) * (1 - special.expit(x @ mode))
    root = np.linalg.cholesky(np.linalg.inv(x.T @ (x * weight[:, None]) + np.eye(3)))
    line = np.linspace(-8.0, 8.0, 81)
    z = np.stack(np.meshgrid(line, line, line, indexing="ij"), -1).reshape(-1, 3)
    points = mode + z @ root.T
    logs = np.concatenate([log_joint(part) for part in np.array_split(points, 20)])
    total = np.logaddexp.reduce(logs)
    weights = np.exp(logs - total)
    mean = weights @ points
    covariance = (points - mean).T @ ((points - mean) * weights[:, None])
    cell = np.log(line[1] - line[0]) * 3 + np.linalg.slogdet(root)[1]
    return Target(logistic_regression(3, 40), mean, covariance, float(total + cell))


# --- one latent, skewed -----------------------------------------------------------------------


def _log_gamma(latents, shape):
    u = latents["u"]
    return shape * u - jnp.exp(u) - special.gammaln(2.0)


def log_gamma() -> Evaluator:
    """u = log x with x ~ Gamma(2, 1): evidence 1, a longer tail on the left."""
    return density(_log_gamma, {"u": ()}, shape=np.asarray(2.0))


def _cliff(latents, edge, beyond):
    u = latents["u"]
    inside = -0.5 * jnp.sum((u + 1.5) ** 2) - 0.5 * LOG_2PI * u.size
    return jnp.where(jnp.any(u > edge), beyond, inside)


def cliff(beyond: float, dim: int = 1) -> Evaluator:
    """Standard normals around -1.5 whose density is ``beyond`` (NaN or -inf) where any u > 1."""
    return density(_cliff, {"u": (dim,)}, edge=np.asarray(1.0), beyond=np.asarray(beyond))
