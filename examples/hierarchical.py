"""Two stochastic layers, z2 -> z1 -> x, with encoders that are conditioned on other latents.

q(z1 | x) q(z2 | z1), as in Burda, Grosse and Salakhutdinov 2016, section 2. The data are simulated
from such a hierarchy: z2 moves along an arc, z1 is near it, x is linear in z1. Given z2 all is
Gaussian, so the log evidence of the true process is known by quadrature over one number.
"""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
from scipy.special import logsumexp
from scipy.stats import multivariate_normal, spearmanr

import taut

FEATURES, NEAR, NOISE = 8, 0.15, 0.3
k1, k2, k3, k4 = jax.random.split(jax.random.key(0), 4)
UPPER = eqx.nn.MLP(1, 2, 32, 1, jnp.tanh, key=k1)
LOWER = eqx.nn.MLP(2, FEATURES, 32, 1, jnp.tanh, key=k2)
ENCODERS = {
    "z1": eqx.nn.MLP(FEATURES, 4, 32, 1, jnp.tanh, key=k3),
    "z2": eqx.nn.MLP(2, 2, 32, 1, jnp.tanh, key=k4),
}


def hierarchy(x):
    """One number, two numbers around a function of it, and the data around a function of them."""
    upper, lower = taut.deep.module("upper", UPPER), taut.deep.module("lower", LOWER)
    near, noise = (numpyro.param(n, 0.5, constraint=POSITIVE) for n in ("near", "noise"))
    with numpyro.plate("rows", len(x)):
        z2 = numpyro.sample("z2", dist.Normal(0, 1).expand([1]).to_event(1))
        z1 = numpyro.sample("z1", dist.Normal(upper(z2), near).to_event(1))
        numpyro.sample("x", dist.Normal(lower(z1), noise).to_event(1), obs=x)


POSITIVE = dist.constraints.positive
FAMILY = taut.families.Amortised(ENCODERS, inputs={"z1": "x", "z2": "z1"})


# --- data -----------------------------------------------------------------------------------------


def arc(z2):
    """Where z1 is expected, (..., 2)."""
    return 2.0 * np.stack([np.cos(0.9 * z2), np.sin(0.9 * z2)], -1)


def simulate(count, loadings, rng):
    """Data and the z2 behind them."""
    z2 = rng.normal(size=count)
    z1 = arc(z2) + NEAR * rng.normal(size=(count, 2))
    return z1 @ loadings.T + NOISE * rng.normal(size=(count, FEATURES)), z2


def true_evidence(x, loadings):
    """Mean log evidence under the process that made the data: a sum over z2, a Gaussian given it."""
    z2 = np.linspace(-6, 6, 600)
    weight = -0.5 * z2**2 - logsumexp(-0.5 * z2**2)
    cov = NEAR**2 * loadings @ loadings.T + NOISE**2 * np.eye(FEATURES)
    centred = x[:, None] - arc(z2) @ loadings.T
    terms = multivariate_normal(np.zeros(FEATURES), cov).logpdf(centred)
    return float(logsumexp(weight + terms, axis=1).mean())


def main():
    """Train on 2,000 rows; judge on 500 new ones."""
    rng = np.random.default_rng(0)
    loadings = rng.normal(size=(FEATURES, 2))
    (x, _), (new, z2) = (simulate(n, loadings, rng) for n in (2000, 500))
    solver = taut.solvers.Stochastic(epochs=100, learning_rate=0.01)
    posterior = taut.fit(hierarchy, {"x": x}, family=FAMILY, solver=solver)
    found = posterior.evidence({"x": new}, samples=200).estimate / len(new)
    truth = true_evidence(new, loadings)
    order = abs(spearmanr(posterior.encode({"x": new})["z2"].mean[:, 0], z2).statistic)
    print(posterior)
    print(f"log evidence of a new row: {found:.2f} nats; of the true process {truth:.2f}")
    print(f"rank correlation of encoded and true z2: {order:.3f}")
    return {"gap": truth - found, "order": float(order)}


if __name__ == "__main__":
    main()
