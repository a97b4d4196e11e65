"""A conditional variational autoencoder: a conditional density with two branches.

Sohn, Lee and Yan 2015, Learning structured output representation using deep conditional generative
models. y given x is near x**2 or near -x**2; a regression network with Gaussian noise cannot say
that. The density that made the data is known, and its mean logarithm is what a model can reach.
"""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
from scipy.stats import norm

import taut

NOISE = 0.1
kd, ke = jax.random.split(jax.random.key(0))
DECODER = eqx.nn.MLP(2, 2, 64, 2, jnp.tanh, key=kd)


class Encoder(eqx.Module):
    """Two numbers, mean and log scale, from one pair."""

    net: eqx.nn.MLP

    def __call__(self, x, y):
        """Call the network on both."""
        return self.net(jnp.stack([x, y]))


def conditional(x, y):
    """p(y | x, z): a network gives mean and log scale from x and one hidden number."""
    decode = taut.deep.module("decoder", DECODER)
    with numpyro.plate("rows", len(x)):
        z = numpyro.sample("z", dist.Normal(0, 1))
        mean, log_scale = jnp.moveaxis(decode(jnp.stack([x, z], -1)), -1, 0)
        numpyro.sample("y", dist.Normal(mean, jnp.exp(log_scale)), obs=y)


ENCODER = Encoder(eqx.nn.MLP(2, 2, 64, 2, jnp.tanh, key=ke))
FAMILY = taut.families.Amortised({"z": ENCODER}, inputs={"z": ("x", "y")})


def simulate(count, rng):
    """Pairs of which y takes one of two branches."""
    x = rng.uniform(0.5, 1.5, count)
    sign = rng.choice([-1, 1], count)
    return {"x": x, "y": sign * x**2 + NOISE * rng.normal(size=count)}


def true_log_density(x, y):
    """Mean log p(y | x) of the process that made the data."""
    both = norm.pdf(y, x**2, NOISE) + norm.pdf(y, -(x**2), NOISE)
    return float(np.log(both / 2).mean())


def main():
    """Train on 2,000 pairs; judge on 500 new ones."""
    rng = np.random.default_rng(0)
    data, new = simulate(2000, rng), simulate(500, rng)
    solver = taut.solvers.Stochastic(epochs=200, learning_rate=0.01, kl_warmup=20)
    posterior = taut.fit(conditional, data, family=FAMILY, solver=solver)
    found = posterior.evidence(new, samples=200).estimate / 500
    truth = true_log_density(**new)
    drawn = posterior.sample(1000, data={"x": np.full(1000, 1.2)})["y"]
    up = float((drawn > 0).mean())
    near = float((np.abs(np.abs(drawn) - 1.2**2) < 3 * NOISE).mean())
    print(posterior)
    print(f"mean log p(y | x) of new pairs: {found:.3f} nats; of the true process {truth:.3f}")
    print(f"y drawn at x = 1.2: {up:.0%} above 0, {near:.0%} near one of the branches")
    return {"gap": truth - found, "up": up, "near": near}


if __name__ == "__main__":
    main()
