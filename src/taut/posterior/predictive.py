"""Predictions, pointwise likelihoods, and a posterior as the next prior."""

import dataclasses
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from taut._core.errors import UnsupportedError, listing
from taut._core.precision import double_precision
from taut.trust.draws import Draws
from taut.problem import Problem

CHUNK = 250  # draws predicted together, so that memory does not grow with their number


def predict(problem: Problem, draws: Mapping[str, np.ndarray], new_data: Any, seed: int) -> dict[str, np.ndarray]:
    """Simulate the observed sites at draws of the latents."""
    if problem.predictor is None:
        raise UnsupportedError("this problem cannot simulate its observed sites")
    with double_precision():
        simulate, arrays = problem.predictor(new_data)
        latents = {s.name: draws[s.name] for s in problem.latents}
        if new_data is not None and problem.rebind is not None:
            latents = _shared(problem, latents, new_data)
        count = len(next(iter(draws.values())))
        run = jax.jit(jax.vmap(simulate, (0, 0, None)))
        keys = jax.random.split(jax.random.key(seed), count)
        parts = [
            run(keys[i : i + CHUNK], {n: jnp.asarray(v[i : i + CHUNK]) for n, v in latents.items()}, arrays)
            for i in range(0, count, CHUNK)
        ]
        return {n: np.concatenate([np.asarray(p[n]) for p in parts]) for n in parts[0]}


def _shared(problem: Problem, latents: dict[str, np.ndarray], new_data: Any) -> dict[str, np.ndarray]:
    """Latents whose shape is the same under the new data; the others are new groups."""
    shapes = latent_shapes(problem, new_data)
    return {n: v for n, v in latents.items() if shapes.get(n, v.shape[1:]) == v.shape[1:]}


def latent_shapes(problem: Problem, new_data: Any) -> dict[str, tuple[int, ...]]:
    """Shapes of the latents under other data, without running anything."""
    if problem.predictor is None:
        return {}
    simulate, arrays = problem.predictor(new_data, sites=tuple(s.name for s in problem.latents))
    try:
        found = jax.eval_shape(lambda a: simulate(jax.random.key(0), {}, a), arrays)
    except NotImplementedError:  # an improper prior has no draws, so its latent keeps its shape
        return {}
    return {name: tuple(v.shape) for name, v in found.items()}


def log_likelihood(problem: Problem, points: np.ndarray) -> dict[str, np.ndarray]:
    """Pointwise log likelihood at unconstrained points (n, d)."""
    with double_precision():
        run = jax.jit(jax.vmap(problem.program.log_likelihood, (0, None)))
        arrays = problem.arrays
        parts = [run(points[i : i + CHUNK], arrays) for i in range(0, len(points), CHUNK)]
        return {n: np.concatenate([np.asarray(p[n]) for p in parts]) for n in parts[0]}


def with_prior(problem: Problem, more_data: Any, draws: Draws) -> Problem:
    """The same model on more data, its prior replaced by the draws' Gaussian."""
    if problem.rebind is None:
        raise UnsupportedError("this problem cannot take other data")
    new = problem.rebind(more_data)
    old_shapes = {s.name: s.shape for s in problem.latents}
    changed = [s.name for s in new.latents if old_shapes.get(s.name) != s.shape]
    if changed or len(new.latents) != len(problem.latents):
        raise UnsupportedError(
            f"update carries over latents that all data share; {listing(changed)} "
            "changes shape with the data: fit the joined data instead"
        )
    observed = {s.name for s in new.observed}
    with double_precision():
        sites = jax.eval_shape(new.program.log_joint_sites, jax.ShapeDtypeStruct((new.dim,), float), new.arrays)
    factors = [n for n in sites if n not in observed and n not in old_shapes]
    if factors:
        raise UnsupportedError(f"update cannot tell prior from likelihood in factor sites ({listing(factors)}); fit the joined data")
    weights = np.full(len(draws.points), 1.0) if draws.weights is None else draws.weights
    mean = np.average(draws.points, axis=0, weights=weights)
    covariance = np.cov(draws.points.T, aweights=weights).reshape(new.dim, new.dim)
    whiten = np.linalg.inv(np.linalg.cholesky(covariance))
    inner = new.program.log_joint_sites

    def log_joint_sites(u: Any, arrays: Any) -> dict[str, Any]:
        z = arrays["prior_whiten"] @ (u - arrays["prior_mean"])
        log_det = jnp.sum(jnp.log(jnp.diagonal(arrays["prior_whiten"])))
        prior = -0.5 * (z @ z + new.dim * np.log(2 * np.pi)) + log_det
        likelihood = {n: v for n, v in inner(u, arrays).items() if n in observed}
        return {"prior": prior, **likelihood}

    program = dataclasses.replace(new.program, log_joint_sites=log_joint_sites, compiled={}, _hoisted={})
    arrays = {**new.arrays, "centring": problem.arrays["centring"], "prior_mean": mean, "prior_whiten": whiten}
    return dataclasses.replace(new, program=program, arrays=arrays)
