"""A posterior as the prior of more data."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from taut._core.errors import ModelError, UnsupportedError, listing
from taut._core.precision import double_precision
from taut.posterior.predictive import of_single_observations
from taut.problem import Problem, Program
from taut.problem.types import Enumeration
from taut.trust.draws import Draws

MEAN, WHITEN = "prior_mean", "prior_whiten"
LOG_2PI = float(np.log(2 * np.pi))


def with_posterior_as_prior(problem: Problem, more_data: Any, draws: Draws) -> Problem:
    """The same model on more data, its prior replaced by the draws' Gaussian.

    Args:
        problem: the model with the data of the fit.
        more_data: data in the form that the fit took.
        draws: of the posterior, in the problem's coordinates.

    Raises:
        UnsupportedError: if prior and likelihood cannot be told apart, or if latents change
            their shape with the data.
    """
    if problem.rebind is None:
        raise UnsupportedError("this problem cannot take other data")
    new = problem.rebind(more_data)
    _same_latents(problem, new)
    weights = np.full(len(draws.points), 1.0) if draws.weights is None else draws.weights
    mean = np.average(draws.points, axis=0, weights=weights)
    covariance = np.cov(draws.points.T, aweights=weights).reshape(new.dim, new.dim)
    whiten = np.linalg.inv(np.linalg.cholesky(covariance))
    return with_prior(new.with_centring(problem.arrays["centring"]), mean, whiten)


def with_prior(problem: Problem, prior_mean: np.ndarray, prior_whiten: np.ndarray) -> Problem:
    """The problem with a Gaussian prior over its unconstrained coordinates.

    Args:
        problem: prior and data.
        prior_mean: of the new prior, (d,).
        prior_whiten: inverse of its Cholesky factor, (d, d).
    """
    # Kept with the program it comes from, so that the next update of this shape compiles nothing.
    known = problem.program.compiled
    if "other prior" not in known:
        known["other prior"] = _replace(problem)
    arrays = {**problem.arrays, MEAN: prior_mean, WHITEN: prior_whiten}
    return dataclasses.replace(problem, program=known["other prior"], arrays=arrays)


def prior_of(problem: Problem) -> dict[str, np.ndarray]:
    """The replaced prior's arrays, empty where the model's own prior stands."""
    return {name: problem.arrays[name] for name in (MEAN, WHITEN) if name in problem.arrays}


def _replace(problem: Problem) -> Program:
    program = problem.program
    likelihood, dim = _likelihood_of(problem), program.dim

    def prior(u: Any, arrays: Any) -> Any:
        z = arrays[WHITEN] @ (u - arrays[MEAN])
        log_det = jnp.sum(jnp.log(jnp.diagonal(arrays[WHITEN])))
        return -0.5 * (z @ z + dim * LOG_2PI) + log_det

    def log_joint_sites(u: Any, arrays: Any) -> dict[str, Any]:
        return {"prior": prior(u, arrays), **likelihood(u, arrays)}

    # The new prior is a Gaussian in these very coordinates: they are not to be moved any more.
    latents = tuple(dataclasses.replace(s, centring=None, parents=()) for s in program.latents)
    return dataclasses.replace(
        program,
        log_joint_sites=log_joint_sites,
        latents=latents,
        enumeration=_enumeration(problem, prior),
        densities=None,  # the model's own would bring its own prior back
        compiled={},
        _hoisted={},
    )


def _enumeration(problem: Problem, prior: Any) -> Enumeration | None:
    """How the likelihood's discrete latents are summed out, beside the new prior."""
    old = problem.program.enumeration
    if old is None:
        return None
    kept = {s.name for s in problem.observed} | _sums_of_data(problem) | {"prior"}

    def run(colouring: Any, u: Any, arrays: Any) -> Any:
        alone, log_probs = old.run(colouring, u, arrays)
        return {**alone, "prior": prior(u, arrays)}, log_probs

    def combine(alone: dict[str, Any], log_probs: dict[str, Any]) -> dict[str, Any]:
        return {n: v for n, v in old.combine(alone, log_probs).items() if n in kept}

    return old._replace(run=run, combine=combine)


def _likelihood_of(problem: Problem) -> Any:
    """The part of the log joint that the data make, by site."""
    program, latents = problem.program, {s.name for s in problem.latents}
    observed = {s.name for s in problem.observed} | _sums_of_data(problem)
    point = jax.ShapeDtypeStruct((problem.dim,), float)
    with double_precision():
        sites = set(jax.eval_shape(program.log_joint_sites, point, problem.arrays))
        if sites == {"log_density"}:
            return _of_density(problem, point)
    if factors := sorted(sites - observed - latents):
        enumeration = problem.program.enumeration
        kind = "factor sites" if enumeration is None else "sites"
        raise UnsupportedError(
            f"update cannot tell prior from likelihood in {kind} ({listing(factors)}); "
            "fit the joined data"
        )

    def likelihood(u: Any, arrays: Any) -> dict[str, Any]:
        return {n: v for n, v in program.log_joint_sites(u, arrays).items() if n in observed}

    return likelihood


def _sums_of_data(problem: Problem) -> set[str]:
    """Sums over discrete latents of single observations, which are likelihood as a whole."""
    found, of_data = problem.program.enumeration, {s.name for s in problem.observed}
    if found is None:
        return set()
    own = {s.name for s in problem.discrete if of_single_observations(s, problem.observed)}
    return {key for key, sites in found.sums.items() if set(sites) <= of_data | own}


def _of_density(problem: Problem, point: Any) -> Any:
    """The likelihood of a plain density: the sum of its pointwise log likelihood."""
    program = problem.program
    try:
        jax.eval_shape(program.log_likelihood, point, problem.arrays)
    except ModelError as error:
        raise UnsupportedError(
            "update cannot tell this Density's prior from its likelihood: "
            "pass Density(..., log_likelihood=...), or fit the joined data"
        ) from error

    def likelihood(u: Any, arrays: Any) -> dict[str, Any]:
        return {n: jnp.sum(v) for n, v in program.log_likelihood(u, arrays).items()}

    return likelihood


def _same_latents(old: Problem, new: Problem) -> None:
    shapes = {s.name: s.shape for s in old.latents}
    changed = [s.name for s in new.latents if shapes.get(s.name) != s.shape]
    if changed or len(new.latents) != len(old.latents):
        raise UnsupportedError(
            f"update carries over latents that all data share; {listing(changed)} "
            "changes shape with the data: fit the joined data instead"
        )
