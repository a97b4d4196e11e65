"""The flow as an encoder's head: its density, and a posterior that no Gaussian fits."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest

import taut
from taut.deep.rows import Site

NOISE = 0.3


def site(size):
    return Site("z", (6, size), 1, dist.constraints.real_vector, False, 0, -1, "Normal", None)


@pytest.mark.parametrize(("size", "context"), [(2, 0), (3, 2), (6, 1)])
def test_the_density_is_that_of_the_change_of_variables(size, context):
    """Against the determinant of the Jacobian that JAX takes."""
    head = taut.deep.Flow(None, size, context, key=jax.random.key(0))
    weights, rest = eqx.partition(head, eqx.is_inexact_array)
    keys = iter(jax.random.split(jax.random.key(1), 100))
    weights = jax.tree.map(lambda w: w + 0.5 * jax.random.normal(next(keys), w.shape), weights)
    head = eqx.combine(weights, rest)
    outputs = jax.random.normal(jax.random.key(2), (6, 2 * size + context))
    found = head.distribution(outputs, site(size))
    noise = jax.random.normal(jax.random.key(3), (6, size))
    for row in range(6):
        one = head.distribution(outputs[row : row + 1], site(size))

        def move(e, transforms=one.transforms):
            for transform in transforms:
                e = transform(e[None])[0] if e.ndim == 1 else transform(e)
            return e

        z = move(noise[row])
        _, log_det = np.linalg.slogdet(np.asarray(jax.jacfwd(move)(noise[row]), float))
        exact = np.sum(-0.5 * np.asarray(noise[row]) ** 2 - 0.5 * np.log(2 * np.pi)) - log_det
        assert float(one.log_prob(z[None])[0]) == pytest.approx(exact, abs=1e-3)
    assert found.sample(jax.random.key(4), (5,)).shape == (5, 6, size)


def bent(x):
    with numpyro.plate("rows", len(x)):
        z = numpyro.sample("z", dist.Normal(0, 1).expand([2]).to_event(1))
        numpyro.sample("x", dist.Normal(z[:, 1] + z[:, 0] ** 2, NOISE), obs=x[:, 0])


def evidence(x):
    """Log evidence of each row by the sum over a grid of both coordinates."""
    grid = np.linspace(-6, 6, 601)
    first, second = np.meshgrid(grid, grid)
    prior = np.exp(-0.5 * (first**2 + second**2)) / (2 * np.pi) * (grid[1] - grid[0]) ** 2
    mean = second + first**2
    density = [np.exp(-0.5 * ((v - mean) / NOISE) ** 2) / (NOISE * np.sqrt(2 * np.pi)) for v in x]
    return np.log([np.sum(prior * d) for d in density])


@pytest.mark.slow
def test_a_bent_posterior_is_fitted():
    rng = np.random.default_rng(0)
    z = rng.normal(size=(256, 2))
    x = (z[:, 1] + z[:, 0] ** 2 + NOISE * rng.normal(size=256)).astype(np.float32)
    exact, gaps = evidence(x).mean(), {}
    for name, size in {"full": 5, "flow": 8}.items():
        net = eqx.nn.MLP(1, size, 32, 1, jnp.tanh, key=jax.random.key(0))
        bending = taut.deep.Flow(net, 2, 4, key=jax.random.key(1))
        head = taut.deep.FullGaussian(net) if name == "full" else bending
        family = taut.families.Amortised({"z": head})
        solver = taut.solvers.Stochastic(epochs=1000, learning_rate=0.005, batch_size=64)
        found = taut.fit(bent, {"x": x[:, None]}, family=family, solver=solver)
        gaps[name] = exact - found.elbo / 256
    # Nats a row that the bound lacks; it cannot be above the evidence but for its error.
    assert -0.02 < gaps["flow"] < 0.2
    assert gaps["flow"] < 0.3 * gaps["full"]


def test_a_single_number_cannot_be_bent():
    with pytest.raises(taut._core.errors.ArgumentError, match="size must be at least 2"):
        taut.deep.Flow(None, 1, key=jax.random.key(0))
