"""A mixture of experts: three regression networks and a gate, with an encoder for the cluster.

Jacobs, Jordan, Nowlan and Hinton 1991, Adaptive mixtures of local experts. Which expert made a row
is a label: q(k | x, y) by a network, and both sums over labels are exact. The process that made the
data has three lines and a soft gate, so the best mean log density is known.
"""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
from scipy.special import log_softmax, logsumexp
from scipy.stats import norm

import taut

EXPERTS, NOISE = 3, 0.2
SLOPES, OFFSETS = np.array([2.0, -2.0, 0.5]), np.array([3.0, 0.0, -3.0])
kg, kx, kq = jax.random.split(jax.random.key(0), 3)
GATE = eqx.nn.MLP(1, EXPERTS, 16, 1, jnp.tanh, key=kg)
MEANS = eqx.nn.MLP(1, EXPERTS, 16, 1, jnp.tanh, key=kx)


def experts(x, y):
    """The gate draws an expert, whose regression gives the mean."""
    gate, means = taut.deep.module("gate", GATE), taut.deep.module("means", MEANS)
    noise = numpyro.param("noise", jnp.ones(EXPERTS), constraint=dist.constraints.positive)
    with numpyro.plate("rows", len(x)):
        k = numpyro.sample("k", dist.Categorical(logits=gate(x[:, None])))
        mean = jnp.take_along_axis(means(x[:, None]), k[:, None], -1)[:, 0]
        numpyro.sample("y", dist.Normal(mean, noise[k]), obs=y)


class Which(eqx.Module):
    """Logits of the experts, from one pair."""

    net: eqx.nn.MLP

    def __call__(self, x, y):
        """Call the network on both."""
        return self.net(jnp.stack([x, y]))


ENCODER = Which(eqx.nn.MLP(2, EXPERTS, 32, 1, jnp.tanh, key=kq))
FAMILY = taut.families.Amortised({"k": ENCODER}, inputs={"k": ("x", "y")})


# --- data -----------------------------------------------------------------------------------------


def log_gate(x):
    """Log probability of each expert, (..., 3): the first rules on the left, the last right."""
    return log_softmax(2.0 * x[..., None] * np.array([-1.0, 0.0, 1.0]), axis=-1)


def simulate(count, rng):
    """Pairs and the expert of each."""
    x = rng.uniform(-2, 2, count)
    k = np.argmax(log_gate(x) + rng.gumbel(size=(count, EXPERTS)), -1)
    y = OFFSETS[k] + SLOPES[k] * x + NOISE * rng.normal(size=count)
    return {"x": x, "y": y}, k


def true_log_density(x, y):
    """Mean log p(y | x) of the process that made the data."""
    means = OFFSETS + SLOPES * x[:, None]
    return float(logsumexp(log_gate(x) + norm.logpdf(y[:, None], means, NOISE), axis=1).mean())


def main():
    """Train on 2,000 pairs; judge on 1,000 new ones."""
    rng = np.random.default_rng(0)
    (data, _), (new, k) = simulate(2000, rng), simulate(1000, rng)
    solver = taut.solvers.Stochastic(epochs=100, learning_rate=0.01)
    posterior = taut.fit(experts, data, family=FAMILY, solver=solver)
    found = posterior.evidence(new, samples=100).estimate / 1000
    truth = true_log_density(**new)
    guess = np.argmax(posterior.encode(new)["k"].logits, -1)
    table = np.array([[np.sum((guess == a) & (k == b)) for b in range(3)] for a in range(3)])
    purity = float(table.max(1).sum() / 1000)
    print(posterior)
    print(f"mean log p(y | x) of new pairs: {found:.3f} nats; of the true process {truth:.3f}")
    print(f"pairs given to the expert that made them: {purity:.1%}")
    return {"gap": truth - found, "purity": purity}


if __name__ == "__main__":
    main()
