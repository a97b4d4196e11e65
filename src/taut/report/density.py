"""Densities of draws for drawing: smoothed histograms in one dimension, contours in two."""

from __future__ import annotations

import numpy as np

_FINE = 512  # cells of the histogram that is smoothed
_HUGE = 1e300
_GRID = 56  # cells per side of the two-dimensional one

Polyline = np.ndarray  # (m, 2)


def usable(draws: np.ndarray) -> np.ndarray:
    """Which entries can be drawn: finite, and small enough for a difference of two to be finite."""
    return np.isfinite(draws) & (np.abs(draws) < _HUGE)


def finite(draws: np.ndarray) -> np.ndarray:
    """The usable entries of `draws`, as one float64 vector."""
    flat = np.asarray(draws, dtype=float).reshape(-1)
    return flat[usable(flat)]


def is_discrete(draws: np.ndarray, most: int = 60) -> bool:
    """Whether finite draws are whole numbers with few enough values to get a bar each."""
    if draws.size == 0 or np.any(draws != np.round(draws)):
        return False
    return bool(np.ptp(draws) < most) and np.unique(draws).size > 1


def reach(draws: np.ndarray, tail: float = 0.005) -> tuple[float, float]:
    """Interval that holds all but `tail` of the draws on each side."""
    if draws.size < 20:
        return float(draws.min()), float(draws.max())
    low, high = np.quantile(draws, [tail, 1 - tail])
    return float(low), float(high)


def widen(low: float, high: float, share: float = 0.06) -> tuple[float, float]:
    """Widens an interval by a share of its length; a point gets a length too."""
    if high > low and np.isfinite(high - low):
        pad = share * (high - low)
        return low - pad, high + pad
    pad = max(abs(low) * 0.05, 1e-12) if low else 1.0
    return low - pad, high + pad


def shares(draws: np.ndarray, values: np.ndarray) -> np.ndarray:
    """Share of the draws at each of the given values."""
    return (draws[:, None] == values[None, :]).mean(axis=0)


def bandwidth(draws: np.ndarray) -> float:
    """Bandwidth between the normal reference rule and one that fits the densest quarter.

    The reference rule alone blurs separated modes and sharp peaks; the densest quarter alone makes
    long tails lumpy. The geometric mean of the two does neither visibly.
    """
    quarter, three = np.quantile(draws, [0.25, 0.75])
    iqr = float(three - quarter) / 1.349
    wide = min(float(draws.std()), iqr) if iqr > 0 else float(draws.std())
    ordered = np.sort(draws)
    gap = draws.size // 4
    dense = float((ordered[gap:] - ordered[:-gap]).min()) / 0.637 if gap else wide
    scale = np.sqrt(wide * dense) if 0 < dense < wide else wide
    return float(1.06 * scale * draws.size**-0.2)


def fine_grid(low: float, high: float, count: int, *sets: np.ndarray) -> np.ndarray:
    """Increasing points of [low, high]: evenly spread, and more where the draws are."""
    levels = np.linspace(0.01, 0.99, count // 2)
    dense = [np.quantile(s, levels) for s in sets if s.size > 1]
    grid = np.unique(np.concatenate([np.linspace(low, high, count), *dense]))
    grid = grid[(grid >= low) & (grid <= high)]
    bins = np.floor((grid - low) / (high - low) * 8 * count)
    return grid[np.unique(bins, return_index=True)[1]]


def smooth_density(draws: np.ndarray, at: np.ndarray) -> np.ndarray:
    """Kernel density estimate of finite draws on an increasing grid.

    Draws that never leave [0, inf) or [0, 1] are reflected at the bound, so that the curve of a scale
    or of a probability does not leak over it.

    Args:
        draws: At least two finite draws that are not all equal.
        at: Where the density is wanted.

    Returns:
        The density at `at`.
    """
    start, span = float(at[0]), float(at[-1] - at[0])
    bounds = _bounds(draws)
    z, walls = (draws - start) / span, [(b - start) / span for b in bounds]  # squares may overflow
    width = max(bandwidth(z), 1e-5)
    low, high = min(0.0, float(z.min())) - 4 * width, max(1.0, float(z.max())) + 4 * width
    if high - low > 200:  # a very long tail: keep the resolution where it is seen
        low, high = -4 * width, 1 + 4 * width
    cells = int(np.clip(np.ceil(4 * (high - low) / width), _FINE, 20 * _FINE))
    edges = np.linspace(low, high, cells + 1)
    mirrored = np.concatenate([z, *(2 * wall - z for wall in walls)])
    counts = np.histogram(mirrored, edges)[0] / draws.size
    step = edges[1] - edges[0]
    half = min(int(np.ceil(4 * width / step)), cells // 2 - 1)
    kernel = np.exp(-0.5 * (np.arange(-half, half + 1) * step / max(width, step / 2)) ** 2)
    smoothed = np.convolve(counts, kernel / kernel.sum(), mode="same") / step
    density = np.interp((at - start) / span, (edges[:-1] + edges[1:]) / 2, smoothed) / span
    beyond = (at < bounds[0]) if bounds else np.zeros(at.shape, bool)
    if len(bounds) == 2:
        beyond |= at > bounds[1]
    return np.where(beyond, 0.0, density)


def _bounds(draws: np.ndarray) -> tuple[float, ...]:
    """Where draws seem to end: at zero, at zero and one, or nowhere."""
    if draws.min() < 0:
        return ()
    return (0.0, 1.0) if draws.max() <= 1 else (0.0,)


def mass_contours(xy: np.ndarray, masses: tuple[float, ...]) -> list[list[Polyline]]:
    """Contours of a two-dimensional density that enclose given shares of the draws.

    The draws are whitened before they are smoothed, so strong correlation is not blurred.

    Args:
        xy: (n, 2) finite draws.
        masses: Shares to enclose, such as (0.5, 0.9).

    Returns:
        For each mass the polylines of its contour; empty lists where the draws span no area.
    """
    if xy.shape[0] < 50 or np.ptp(xy, axis=0).min() == 0:
        return [[] for _ in masses]
    size = np.abs(xy).max(axis=0)
    mean, cov = xy.mean(axis=0), np.cov((xy / size).T)
    if np.diag(cov).min() < 1e-20:
        return [[] for _ in masses]
    spread = np.sqrt(np.diag(cov))
    scale = size * spread
    correlation = cov / np.outer(spread, spread)
    if abs(correlation[0, 1]) > 1 - 1e-9:
        return [[] for _ in masses]
    root = np.linalg.cholesky(correlation)
    white = np.linalg.solve(root, ((xy - mean) / scale).T).T
    centres, grid = _grid_density(white)
    ordered = np.sort(grid.ravel())[::-1]
    below = np.cumsum(ordered) / ordered.sum()
    contours = []
    for mass in masses:
        level = float(ordered[min(int(np.searchsorted(below, mass)), ordered.size - 1)])
        lines = _join(_march(grid, level))
        contours.append([_unwhiten(line, centres, root) * scale + mean for line in lines])
    return contours


def _unwhiten(line: np.ndarray, centres: tuple[np.ndarray, ...], root: np.ndarray) -> np.ndarray:
    steps = np.arange(_GRID)
    return np.column_stack([np.interp(line[:, k], steps, centres[k]) for k in (0, 1)]) @ root.T


def _grid_density(white: np.ndarray) -> tuple[tuple[np.ndarray, np.ndarray], np.ndarray]:
    reaches = [widen(*reach(white[:, k], 0.002), share=0.15) for k in (0, 1)]
    counts, ex, ey = np.histogram2d(white[:, 0], white[:, 1], bins=_GRID, range=reaches)
    width = white.shape[0] ** (-1 / 6)  # Silverman in two dimensions, unit scale
    smooth = _kernel_matrix(ex, width) @ counts @ _kernel_matrix(ey, width).T
    return ((ex[1:] + ex[:-1]) / 2, (ey[1:] + ey[:-1]) / 2), smooth


def _kernel_matrix(edges: np.ndarray, width: float) -> np.ndarray:
    centres = (edges[1:] + edges[:-1]) / 2
    return np.exp(-0.5 * ((centres[:, None] - centres[None, :]) / width) ** 2)


# Corners of a cell, counter-clockwise from its low corner; side k joins corners k and k + 1.
_CORNERS = ((0, 0), (1, 0), (1, 1), (0, 1))

Point = tuple[float, float]


def _march(grid: np.ndarray, level: float) -> list[tuple[Point, Point]]:
    """Marching squares: pieces of the level line, one or two per cell."""
    above = np.pad(grid, 1)  # the rim is below every level, so each line closes
    pieces: list[tuple[Point, Point]] = []
    high = above >= level
    mixed = high[:-1, :-1] + 0 + high[1:, :-1] + high[:-1, 1:] + high[1:, 1:]
    for i, j in zip(*np.nonzero((mixed > 0) & (mixed < 4)), strict=True):
        crossings: list[Point] = []
        for k in range(4):
            a, b = _CORNERS[k], _CORNERS[(k + 1) % 4]
            va, vb = above[i + a[0], j + a[1]], above[i + b[0], j + b[1]]
            if (va >= level) != (vb >= level):
                t = (level - va) / (vb - va)
                x, y = i + a[0] + t * (b[0] - a[0]), j + a[1] + t * (b[1] - a[1])
                crossings.append((round(float(x) - 1, 6), round(float(y) - 1, 6)))
        pieces += [(crossings[k], crossings[k + 1]) for k in range(0, len(crossings) - 1, 2)]
    return pieces


def _join(pieces: list[tuple[Point, Point]]) -> list[Polyline]:
    """Joins pieces that share end points into polylines."""
    at: dict[Point, list[int]] = {}
    for k, piece in enumerate(pieces):
        for end in piece:
            at.setdefault(end, []).append(k)
    unused = set(range(len(pieces)))
    lines = []
    for start in range(len(pieces)):
        if start not in unused:
            continue
        unused.discard(start)
        line = list(pieces[start])
        while True:
            following = [k for k in at[line[-1]] if k in unused]
            if not following:
                break
            unused.discard(following[0])
            a, b = pieces[following[0]]
            line.append(b if a == line[-1] else a)
        lines.append(np.array(line))
    return lines
