"""Networks that parametrise distributions, without latents: maximum likelihood, and a posteriori.

A network gives mean and scale of y given x, another the probabilities of three classes. Their
weights are trained by maximum likelihood; or they are latents with a prior, of which the most
probable value is found (``families.Point``). Both processes are known, so are the best figures.
"""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
from scipy.special import softmax

import taut

kr, kc = jax.random.split(jax.random.key(0))
REGRESSION = eqx.nn.MLP(1, 2, 32, 2, jnp.tanh, key=kr)
CLASSES = eqx.nn.MLP(2, 3, 32, 2, jnp.tanh, key=kc)
SOLVER = taut.solvers.Stochastic(epochs=100)


def likely(x, y=None):
    """Maximum likelihood of y given x: a mean and a scale by one network."""
    mean, log_scale = jnp.moveaxis(taut.deep.module("net", REGRESSION)(x[:, None]), -1, 0)
    numpyro.deterministic("mean", mean)
    numpyro.deterministic("scale", jnp.exp(log_scale))
    with numpyro.plate("rows", len(x)):
        numpyro.sample("y", dist.Normal(mean, jnp.exp(log_scale)), obs=y)


def probable(x, y=None):
    """Classes with a prior for the weights of the network that gives their probabilities."""
    logits = taut.deep.random_module("net", CLASSES, dist.Normal(0, 1))(x)
    numpyro.deterministic("probability", jax.nn.softmax(logits))
    with numpyro.plate("rows", len(x)):
        numpyro.sample("y", dist.Categorical(logits=logits), obs=y)


# --- data -----------------------------------------------------------------------------------------


def true_scale(x):
    """Standard deviation of y given x."""
    return 0.1 + 0.3 * (1 + np.sin(3 * x))


def true_probability(x):
    """Probabilities of three classes, (..., 3)."""
    a, b = 2 * x[:, 0], 2 * x[:, 1]
    return softmax(np.stack([a * b, np.sin(2 * a), b - 1], -1), axis=-1)


def regression(rng):
    """Errors of the fitted mean and scale, root mean square over a grid."""
    x = rng.uniform(-2, 2, 2000)
    y = np.sin(2 * x) + true_scale(x) * rng.normal(size=2000)
    fitted = taut.fit(likely, {"x": x, "y": y}, solver=SOLVER)
    grid = np.linspace(-1.9, 1.9, 100)
    found = fitted.predict({"x": grid}, draws=1)
    mean, scale = found["mean"][0] - np.sin(2 * grid), found["scale"][0] - true_scale(grid)
    return {"mean": float(np.sqrt(np.mean(mean**2))), "scale": float(np.sqrt(np.mean(scale**2)))}


def classification(rng):
    """Error of the fitted probabilities at new places, root mean square; log density of the fit."""
    x, new = rng.uniform(-1, 1, (2, 2000, 2))
    y = np.argmax(np.log(true_probability(x)) + rng.gumbel(size=(2000, 3)), -1)
    fitted = taut.fit(probable, {"x": x, "y": y}, family=taut.families.Point(), solver=SOLVER)
    error = fitted.predict({"x": new}, draws=1)["probability"][0] - true_probability(new)
    return {"probability": float(np.sqrt(np.mean(error**2)))}


def main():
    """Fit both to 2,000 rows."""
    rng = np.random.default_rng(0)
    found = {**regression(rng), **classification(rng)}
    print("root mean square errors:", ", ".join(f"{n} {e:.3f}" for n, e in found.items()))
    return found


if __name__ == "__main__":
    main()
