"""Binary latents: a sigmoid belief network, with estimators chosen by one argument.

Neal 1992, Connectionist learning of belief networks; Mnih and Gregor 2014. With six binary
latents the evidence of any such network is a sum over 64 settings, so each way to estimate
gradients can be judged by the exact evidence of the network that it trained.
"""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
from scipy.special import expit, logsumexp

import taut

SIDE, BITS, ON = 4, 6, 0.2
kd, ke = jax.random.split(jax.random.key(0))
# A start at which bits light pixels that are dark without them; else some bits come to mean "off".
DECODER = eqx.tree_at(
    lambda net: (net.weight, net.bias),
    eqx.nn.Linear(BITS, SIDE**2, key=kd),
    replace_fn=lambda x: jnp.abs(x) if x.ndim == 2 else x - 2,
)
ENCODER = eqx.nn.MLP(SIDE**2, BITS, 32, 1, key=ke)
ESTIMATORS = {
    "enumerate": taut.bounds.ELBO(estimator="enumerate"),
    "leave-one-out": taut.bounds.ELBO(samples=4, estimator="leave-one-out"),
    "gumbel": taut.bounds.ELBO(samples=4, estimator="gumbel"),
    "straight-through": taut.bounds.ELBO(samples=4, estimator="straight-through"),
}


def belief_network(x):
    """Six bits, each rarely on, and pixels with log odds linear in them."""
    decode = taut.deep.module("decoder", DECODER)
    with numpyro.plate("images", len(x)):
        z = numpyro.sample("z", dist.Bernoulli(ON).expand([BITS]).to_event(1))
        numpyro.sample("x", dist.Bernoulli(logits=decode(1.0 * z)).to_event(1), obs=x)


def fit(x, bound):
    """Train with one of the bounds."""
    family = taut.families.Amortised({"z": ENCODER})
    solver = taut.solvers.Stochastic(epochs=60, learning_rate=0.03, bound=bound)
    return taut.fit(belief_network, {"x": x}, family=family, solver=solver)


# --- data and the exact evidence ------------------------------------------------------------------


def bars():
    """Weights and offsets of the pixels' log odds: a bit for each of three rows and columns."""
    each, ones = np.eye(SIDE)[:3], np.ones(SIDE)
    weight = np.concatenate([np.kron(each, ones), np.kron(ones, each)]).T
    return 6.0 * weight, np.full(SIDE**2, -3.0)


def simulate(count, rng):
    """Images with a fifth of the bars, (count, 16)."""
    weight, offset = bars()
    z = rng.random((count, BITS)) < ON
    return (rng.random((count, SIDE**2)) < expit(z @ weight.T + offset)).astype(np.float32)


def exact_evidence(x, weight, offset):
    """Mean log evidence: a sum over all settings of the bits."""
    z = np.arange(2**BITS)[:, None] >> np.arange(BITS) & 1
    prior = np.log(np.where(z, ON, 1 - ON)).sum(-1)
    u = z @ weight.T + offset
    return float(np.mean(logsumexp(prior + x @ u.T - np.logaddexp(0, u).sum(-1), axis=1)))


def main():
    """Train on 2,000 images with each estimator; judge on 1,000 new ones."""
    rng = np.random.default_rng(0)
    x, new = simulate(2000, rng), simulate(1000, rng)
    truth, gaps = exact_evidence(new, *bars()), {}
    for name, bound in ESTIMATORS.items():
        posterior = fit(x, bound)
        decoder = posterior.network("decoder", DECODER)
        found = exact_evidence(new, np.asarray(decoder.weight), np.asarray(decoder.bias))
        gaps[name] = truth - found
        print(f"{name:17} exact evidence {found:.3f} nats, {gaps[name]:.3f} below the truth")
    return gaps


if __name__ == "__main__":
    main()
