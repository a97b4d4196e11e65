"""The natural solver of a mean field: factors from the model's structure, then sweeps."""

import dataclasses
from typing import Any

import numpy as np
from scipy import special

from taut._core.errors import ArgumentError, ModelError, listing
from taut._core.precision import double_precision
from taut._core.progress import Watch
from taut.expectation.check import mistaken
from taut.expectation.gaussian import Gaussian, Scaled
from taut.families import (
    AbstractDistribution,
    BlockGaussian,
    CholeskyWishart,
    DenseGaussian,
    Grid,
    LogGamma,
    LogitBeta,
    MeanField,
    Product,
    ScaledNormal,
    Tabulated,
    Wishart,
)  # fmt: skip
from taut.families.normal_wishart import CholeskyNormalWishart
from taut.problem import Latent, Problem
from taut.solvers.ascent import Ascent, ascend
from taut.solvers.structure import Layout, choose_layout, site_functions, support_of

GRID_ROUNDS = 3  # times that the points of free-form factors are moved to where the mass is


def layout_of(problem: Problem, family: MeanField) -> Layout:
    """The factors that a model gets, chosen once.

    Raises:
        ArgumentError: if the family names latents that do not exist, or that it cannot hold.
        ModelError: if the front-end does not say how its sites depend on latents.
    """
    _check(problem, family)
    known, key = problem.program.compiled, ("layout", family)
    if key not in known:
        with double_precision():
            known[key] = choose_layout(problem, family.blocks, family.free_form)
    return known[key]


def _check(problem: Problem, family: MeanField) -> None:
    if problem.program.densities is None:
        raise ModelError("this model does not give its sites' densities, which a mean field needs")
    latents = {s.name: s for s in problem.latents}
    named = [*family.free_form, *(n for b in family.blocks or () for n in b)]
    for name in named:
        if name not in latents:
            raise ArgumentError(
                f"families.MeanField names '{name}', which is no continuous latent; they are {listing(latents)}"
            )
        if named.count(name) > 1:
            raise ArgumentError(f"families.MeanField names '{name}' twice; a latent has one factor")
    for name in family.free_form:
        if support_of(latents[name]) not in ("real", "positive", "unit interval"):
            raise ArgumentError(
                f"free_form holds '{name}', whose support is {latents[name].support}; a grid needs scalar "
                "elements that are real, positive or in the unit interval"
            )


def solve_factors(
    problem: Problem, family: MeanField, seed: int, watch: Watch, tolerance: float, max_sweeps: int
) -> tuple[Ascent, Layout]:
    """Fit the factors; free-form ones have their points refined in between."""
    layout = layout_of(problem, family)
    ascent = ascend(problem, layout, seed, watch, tolerance, max_sweeps)
    if wrong := _mistaken(problem, layout, ascent, seed):
        layout = dataclasses.replace(layout, drawn=wrong)
        ascent = ascend(problem, layout, seed, watch, tolerance, max_sweeps)
    for _ in range(GRID_ROUNDS if family.free_form else 0):
        if watch.over:
            break
        q = _regridded(problem, ascent.q)
        again = ascend(problem, layout, seed, watch, tolerance, max_sweeps, start=q)
        ascent = dataclasses.replace(again, history=(*ascent.history, *again.history))
    return ascent, layout


def _mistaken(problem: Problem, layout: Layout, ascent: Ascent, seed: int) -> tuple[str, ...]:
    """Sites whose compiled mean is not that of draws; looked at once per program and layout."""
    known, key = problem.program.compiled, ("checked", layout)
    if key not in known:
        sites = site_functions(problem, layout.own)
        known[key] = mistaken(ascent.sites, sites, ascent.q, problem.arrays, seed)
    return known[key]


def _regridded(problem: Problem, q: dict[str, Any]) -> dict[str, Any]:
    bounds = {"positive": (0.0, np.inf), "unit interval": (0.0, 1.0)}
    supports = {s.name: support_of(s) for s in problem.latents}
    with double_precision():
        return {
            n: f.refit(None, *bounds.get(supports[n], (-np.inf, np.inf)))
            if isinstance(f, Grid)
            else f
            for n, f in q.items()
        }


# --- to the problem's coordinates ----------------------------------------------------------------


def distribution_of(problem: Problem, q: dict[str, Any]) -> Product:
    """The factors of the continuous latents as one density over the real, centred coordinates."""
    latents = {s.name: s for s in problem.latents}
    parts: list[AbstractDistribution] = []
    indices: list[np.ndarray] = []
    for name, factor in q.items():
        if isinstance(factor, Gaussian):
            part, index = _gaussian_part(factor, latents)
        elif isinstance(factor, Scaled):
            part, index = _joint_part(factor, latents)
        elif name in latents:
            part, index = (
                _part(factor, latents[name]),
                np.arange(latents[name].start, latents[name].stop),
            )
        else:
            continue
        parts.append(part)
        indices.append(index)
    return Product(tuple(parts), tuple(indices))


def _gaussian_part(
    factor: Gaussian, latents: dict[str, Latent]
) -> tuple[AbstractDistribution, np.ndarray]:
    copies, size = factor.layout
    mean, roots = np.asarray(factor.mean), np.linalg.cholesky(np.asarray(factor.covariance))
    index = _places(factor, latents)
    if copies == 1:
        return DenseGaussian(mean[0], roots[0]), index
    places = np.arange(copies * size).reshape(copies, size)
    return BlockGaussian(mean.ravel(), (places,), (roots,)), index


def _places(factor: Gaussian, latents: dict[str, Latent]) -> np.ndarray:
    """Coordinates of a block's latents, copy after copy."""
    copies, _ = factor.layout
    each = [np.arange(latents[n].start, latents[n].stop).reshape(copies, -1) for n in factor.names]
    return np.concatenate(each, axis=1).ravel()


def _joint_part(
    factor: Scaled, latents: dict[str, Latent]
) -> tuple[AbstractDistribution, np.ndarray]:
    precision = latents[factor.precision_name]
    of_precision: Any = _part(factor.precision, precision)
    mean, covariance = np.asarray(factor.normal.mean), np.asarray(factor.normal.covariance)
    if factor.is_matrix:
        part = CholeskyNormalWishart(mean, 1.0 / covariance[:, 0, 0], of_precision)
    else:
        part = ScaledNormal(mean, np.linalg.cholesky(covariance), of_precision)
    own = np.arange(precision.start, precision.stop)
    return part, np.append(_places(factor.normal, latents), own)


def _part(factor: Any, latent: Latent) -> AbstractDistribution:
    kind = type(factor).__name__
    if kind in ("Gamma", "InverseGamma"):
        a, b = (np.asarray(x, float).ravel() for x in (factor.concentration, factor.rate))
        return LogGamma(a, b, np.full(a.shape, 1.0 if kind == "Gamma" else -1.0))
    if kind == "Beta":
        a, b = (np.asarray(x).ravel() for x in (factor.concentration1, factor.concentration0))
        return LogitBeta(a, b, np.zeros(a.shape))
    if kind == "Dirichlet":
        return LogitBeta.of_dirichlet(np.asarray(factor.concentration))
    if isinstance(factor, Wishart):
        scale = np.asarray(factor.scale)
        flat = scale.reshape(-1, *scale.shape[-2:])
        return CholeskyWishart(np.asarray(factor.df, float).ravel(), np.linalg.cholesky(flat))
    return _tabulated(factor, latent)


def _tabulated(factor: Grid, latent: Latent) -> Tabulated:
    """A free-form factor in the real coordinate of its support."""
    shape = (len(factor.points), -1)
    x, logs = (
        np.asarray(factor.points).reshape(shape),
        np.asarray(factor.log_density).reshape(shape),
    )
    if support_of(latent) == "positive":
        return Tabulated(np.log(x), logs + np.log(x))
    if support_of(latent) == "unit interval":
        return Tabulated(special.logit(x), logs + np.log(x) + np.log1p(-x))
    return Tabulated(x, logs)


def describe_factor(name: str, layout: Layout) -> str:
    """Which factor a latent has, in words."""
    kinds = dict(layout.kinds)
    kind = kinds[name]
    for group, batch, precision in zip(layout.blocks, layout.batches, layout.scales, strict=True):
        if precision and name in (*group, precision):
            kind = {"gamma": "normal-gamma", "wishart": "normal-Wishart"}[kinds[precision]]
            many = "factors along their plates" if batch else "factor"
            return f"{kind} {many} over {', '.join(group)} and {precision}, conjugate"
    words = {
        "gamma": "Gamma factor, conjugate", "inverse_gamma": "InverseGamma factor, conjugate",
        "beta": "Beta factor, conjugate", "dirichlet": "Dirichlet factor, conjugate",
        "wishart": "Wishart factor, conjugate", "grid": "free-form factor on a grid",
        "categorical": "categorical factor, enumerated",
        "chain": "chain of categorical factors, forward-backward",
    }  # fmt: skip
    if kind in words:
        return words[kind]
    group = next(b for b in layout.blocks if name in b)
    independent = layout.batches[layout.blocks.index(group)]
    shape = "Gaussian block" if not independent else "Gaussian blocks along its plates"
    return f"{shape} over {', '.join(group)}, real coordinates"
