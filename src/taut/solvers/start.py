"""Where to begin: paths to the modes, and a tournament of the Gaussians read off them."""

import dataclasses

import jax
import numpy as np

from taut._core.precision import double_precision
from taut._core.progress import Watch
from taut.expectation import fixed_normals
from taut.families import AbstractGaussian
from taut.problem.evaluator import Evaluator
from taut.problem.nonfinite import explain
from taut.solvers.descent import DescentPath, descend

NUM_PATHS = 8
NUM_DRAWS = 16  # common draws on which candidates are ranked
FIRST_DRAWS = 4  # of those, used to drop hopeless candidates
FINALISTS = 24
MAX_RETRIES = 5
MIN_CARRIED = 256  # draws that carry a fit over to other coordinates
CURVATURE_LIMIT = 1000  # latents up to which the Hessian is among the candidates
FLAT_CURVATURE = 0.1


@dataclasses.dataclass(frozen=True)
class Start:
    """The best Gaussian found on the paths, and the paths.

    Attributes:
        mean: shape (d,).
        root: square root of the covariance, (d, d), or standard deviations, (d,).
        elbo: its ELBO on a few draws; -inf if no candidate's was finite.
        paths: the descent paths, best end first.
    """

    mean: np.ndarray
    root: np.ndarray
    elbo: float
    paths: tuple[DescentPath, ...]


def find_start(evaluator: Evaluator, watch: Watch, seed: int) -> Start:
    """Follow paths from several points and pick the Gaussian of highest ELBO near them.

    In hierarchies the density rises without bound towards degenerate scales; the tournament
    looks at the whole path, so it stops where the mass is, not at the mode.

    Args:
        evaluator: the problem's log joint.
        watch: ends the search early.
        seed: of the starting points and draws.

    Raises:
        StartError: if the log joint is not finite at any starting point.
    """
    starts = starting_points(evaluator, seed)
    paths = tuple(descend(evaluator, starts, watch))
    mean, root, elbo = tournament(evaluator, paths, seed)
    return Start(mean, root, elbo, paths)


def starting_points(evaluator: Evaluator, seed: int, count: int = NUM_PATHS) -> np.ndarray:
    """Finite points around the prior's centre: the centre, jitters and prior draws."""
    rng, dim = np.random.default_rng((seed, 1)), evaluator.problem.dim
    radius = 1.0
    for _ in range(MAX_RETRIES):
        points = np.concatenate(
            [
                np.zeros((1, dim)),
                0.1 * radius * rng.standard_normal((1, dim)),
                radius * rng.standard_normal((count // 2 - 1, dim)),
                radius * rng.uniform(-2.0, 2.0, (count - count // 2 - 1, dim)),
            ]
        )
        values, grads = evaluator.value_and_grad(points)
        finite = np.isfinite(values) & (np.abs(grads).sum(axis=1) < np.inf)
        if finite.any():
            return points[finite]
        radius *= 0.5
    raise explain(evaluator.problem, NUM_PATHS * MAX_RETRIES)


def tournament(
    evaluator: Evaluator, paths: tuple[DescentPath, ...], seed: int
) -> tuple[np.ndarray, np.ndarray, float]:
    """Rank Gaussians read off the paths by their ELBO on common draws.

    Returns:
        Mean, square root of the covariance (a vector of standard deviations where that won or
        beyond the dense limit), and the ELBO.
    """
    noise = fixed_normals(NUM_DRAWS, evaluator.problem.dim, seed)
    candidates = _candidates(paths)
    best_end = paths[0]
    if evaluator.problem.dim <= CURVATURE_LIMIT:
        candidates.append((best_end.end, curvature_root(evaluator, best_end.end)))
    rough = elbos_of(evaluator, candidates, noise[:FIRST_DRAWS])
    order = np.argsort(-np.where(np.isnan(rough), -np.inf, rough))[:FINALISTS]
    finalists = [candidates[i] for i in order]
    elbos = elbos_of(evaluator, finalists, noise)
    best = int(np.argmax(elbos))
    return finalists[best][0], finalists[best][1], float(elbos[best])


def carried_over(
    start: Start, old: Evaluator, new: Evaluator, q: AbstractGaussian, seed: int
) -> Start:
    """Begin in other coordinates from what was found in the old ones, where that is better.

    Args:
        start: found in the new coordinates.
        old: evaluator in the old coordinates.
        new: evaluator in the new ones.
        q: fitted in the old ones; its draws are mapped over and matched by a Gaussian.
        seed: of the draws.
    """
    dim = q.dim
    points = q.place(fixed_normals(max(MIN_CARRIED, 4 * dim), dim, seed))
    moved = _recoordinated(old, new, points)
    root = cholesky(np.cov(moved.T).reshape(dim, dim)) if np.isfinite(moved).all() else None
    if root is None:
        return start
    mean = moved.mean(axis=0)
    elbo = float(elbos_of(new, [(mean, root)], fixed_normals(NUM_DRAWS, dim, seed))[0])
    return (
        dataclasses.replace(start, mean=mean, root=root, elbo=elbo) if elbo > start.elbo else start
    )


def _recoordinated(old: Evaluator, new: Evaluator, points: np.ndarray) -> np.ndarray:
    """The same values of the latents in the new coordinates, (n, d)."""
    names = [s.name for s in old.problem.latents]
    values = {n: v for n, v in old.constrain(points).items() if n in names}
    with double_precision():
        unconstrain = jax.jit(jax.vmap(new.problem.program.unconstrain, (0, None)))
        return np.asarray(unconstrain(values, new.problem.arrays))


def _candidates(paths: tuple[DescentPath, ...]) -> list[tuple[np.ndarray, np.ndarray]]:
    found = []
    for path in paths:
        for snapshot in path.snapshots[-8:]:
            covariance = snapshot.covariance
            diagonal = covariance if covariance.ndim == 1 else np.diagonal(covariance)
            found.append((snapshot.point, np.sqrt(np.maximum(diagonal, 1e-300))))
            if covariance.ndim == 2 and (root := cholesky(covariance)) is not None:
                found.append((snapshot.point, root))
        found.append((path.start, np.ones_like(path.start)))
        found.append((path.end, np.full_like(path.end, 0.1)))
    return found


def elbos_of(
    evaluator: Evaluator, candidates: list[tuple[np.ndarray, np.ndarray]], noise: np.ndarray
) -> np.ndarray:
    """ELBOs of Gaussians, each a mean and a root or standard deviations, on common draws."""
    points, log_dets = [], []
    for mean, root in candidates:
        dense = root.ndim == 2
        points.append(mean + (noise @ root.T if dense else noise * root))
        log_dets.append(np.linalg.slogdet(root)[1] if dense else np.sum(np.log(root)))
    values = evaluator.value(np.concatenate(points)).reshape(len(candidates), len(noise))
    entropy = 0.5 * noise.shape[1] * (1.0 + np.log(2.0 * np.pi)) + np.asarray(log_dets)
    return values.mean(axis=1) + entropy


def cholesky(matrix: np.ndarray) -> np.ndarray | None:
    """Lower Cholesky factor, or None where the matrix is not positive definite."""
    try:
        factor = np.linalg.cholesky(0.5 * (matrix + matrix.T))
    except np.linalg.LinAlgError:
        return None
    return factor if np.isfinite(factor).all() else None


def curvature_root(evaluator: Evaluator, point: np.ndarray) -> np.ndarray:
    """Root of the inverse negative Hessian by central differences of the gradient.

    Costs 2 d gradients. Curvatures that are negative or nearly zero are raised to a tenth of
    the prior's, which is 1 in standardised coordinates: a start, not an answer.
    """
    dim, step = len(point), 1e-4
    shifts = step * np.eye(dim)
    _, grads = evaluator.value_and_grad(np.concatenate([point + shifts, point - shifts]))
    hessian = (grads[:dim] - grads[dim:]) / (2.0 * step)
    values, vectors = np.linalg.eigh(-0.5 * (hessian + hessian.T))
    if not values[0] > 1e-8 * values[-1]:
        values = np.maximum(values, FLAT_CURVATURE)
    return vectors / np.sqrt(values)
