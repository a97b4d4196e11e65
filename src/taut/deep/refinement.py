"""Improving an amortised q row by row."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import optax
from jaxtyping import Array

from taut._core.errors import ArgumentError
from taut.bounds import ELBO
from taut.data.feeds import Batch
from taut.deep.collapse import distributions
from taut.deep.evaluation import mapped
from taut.deep.objective import Bound, elements

RATE = 0.02
SAMPLES = 8  # draws of q a step


class Refined(NamedTuple):
    """A q with parameters of its own for every row.

    Attributes:
        mean: latent -> mean of its Gaussian, (n, ...).
        sd: latent -> its standard deviation, (n, ...).
        before: ELBO of each row with the encoders' q, nats, (n,).
        after: the same with the refined one.
    """

    mean: dict[str, np.ndarray]
    sd: dict[str, np.ndarray]
    before: np.ndarray
    after: np.ndarray


def refine(
    objective: Bound, params: Any, columns: Mapping[str, Any], steps: int, seed: int
) -> Refined:
    """Climb the ELBO of each row in the Gaussian's own parameters.

    Raises:
        ArgumentError: if a latent is shared, discrete, or no Gaussian.
    """
    for name, site in objective.model.latents.items():
        if not site.local or site.discrete:
            raise ArgumentError(
                f"refine is for Gaussian latents of rows, and '{name}' is {site.distribution}"
                + ("" if site.local else ", shared by all rows")
            )

    found, before, after = mapped(objective, _refined, params, columns, seed, steps, seed)
    return Refined(
        {n: q[0] for n, q in found.items()}, {n: q[1] for n, q in found.items()}, before, after
    )


def _refined(objective: Bound, steps: int, seed: int, params: Any, batch: Batch, key: Any) -> Any:
    """Means and sds of some rows, and their bounds before and after."""
    start = _gaussians(objective, params, batch.columns, key)
    found = _climb(objective, params, batch, start, steps, key)
    bounds = [_rows(objective, params, batch, q, jax.random.key(seed)) for q in (start, found)]
    return {n: (q[0], jnp.exp(q[1])) for n, q in found.items()}, *bounds


def _gaussians(objective: Bound, params: Any, columns: Any, key: Any) -> dict[str, Any]:
    """Latent -> mean and log sd, each with the rows first."""
    found = {}
    for name, fn in distributions(objective, params, columns, key).items():
        base = elements(fn)
        if not isinstance(base, dist.Normal):
            raise ArgumentError(
                f"refine is for Gaussian latents, and q of '{name}' is {type(base).__name__}"
            )
        found[name] = jnp.asarray(base.loc), jnp.log(jnp.asarray(base.scale))
    return found


def _climb(objective: Bound, params: Any, batch: Batch, start: Any, steps: int, key: Any) -> Any:
    optimiser = optax.adam(optax.cosine_decay_schedule(RATE, steps))

    def loss(q: Any, key: Any) -> Array:
        return -jnp.sum(_rows(objective, params, batch, q, key))

    def step(carry: Any, key: Any) -> Any:
        q, state = carry
        updates, state = optimiser.update(jax.grad(loss)(q, key), state, q)
        return (optax.apply_updates(q, updates), state), None

    return jax.lax.scan(step, (start, optimiser.init(start)), jax.random.split(key, steps))[0][0]


def _rows(objective: Bound, params: Any, batch: Batch, q: Any, key: Any) -> Array:
    """ELBO of each row with Gaussians given by their parameters; differentiable."""
    model, columns = objective.model, batch.columns
    sites = model.latents
    guide = {
        n: dist.Normal(loc, jnp.exp(log_sd)).to_event(sites[n].event_dims)
        for n, (loc, log_sd) in q.items()
    }

    def log_joint(values: dict[str, Any]) -> dict[str, Any]:
        return model.log_terms(model.trace(params["model"], values, columns, key))[1]

    # Each row's own weight is one; the surrogate of the sum has the gradient of all of them.
    found = ELBO(SAMPLES)(log_joint, guide, key)
    return found.pointwise + (found.surrogate - jax.lax.stop_gradient(found.surrogate)) / len(
        batch.weight
    )
