"""A variational autoencoder on images of strokes, against the evidence of the true process.

Kingma and Welling 2014, Auto-Encoding Variational Bayes. The images are simulated from two hidden
factors, slope and height, so that the log evidence of an image under the process that made it is
known by quadrature: no model does better on average.
"""

import equinox as eqx
import jax
import numpy as np
import numpyro
import numpyro.distributions as dist
from scipy.special import expit, logsumexp

import taut

SIDE = 8
kd, ke = jax.random.split(jax.random.key(0))
DECODER = eqx.nn.MLP(2, SIDE * SIDE, 128, 2, key=kd)
ENCODER = eqx.nn.MLP(SIDE * SIDE, 4, 128, 2, key=ke)


def vae(x):
    """Two standard normal factors; a network says how probable each pixel is."""
    decode = taut.deep.module("decoder", DECODER)
    with numpyro.plate("images", len(x)):
        z = numpyro.sample("z", dist.Normal(0, 1).expand([2]).to_event(1))
        numpyro.sample("x", dist.Bernoulli(logits=decode(z)).to_event(1), obs=x)


def fit(x):
    """Train decoder and encoder."""
    return taut.fit(
        vae,
        {"x": x},
        family=taut.families.Amortised({"z": ENCODER}),
        solver=taut.solvers.Stochastic(epochs=60),
    )


# --- data -----------------------------------------------------------------------------------------


def logits(slope, height):
    """Log odds of the pixels of strokes, (..., 64)."""
    row, column = np.mgrid[:SIDE, :SIDE].reshape(2, -1) - (SIDE - 1) / 2
    distance = np.abs(row - height[..., None] - slope[..., None] * column)
    return np.clip(6.0 - 6.0 * distance, -4.0, 4.0)


def strokes(count, rng):
    """Images, (count, 64)."""
    slope, height = rng.uniform(-1, 1, count), rng.uniform(-2, 2, count)
    return (rng.random((count, SIDE**2)) < expit(logits(slope, height))).astype(np.float32)


def true_evidence(x, cells=80):
    """Mean log evidence under the process that made the images, by the midpoint rule."""
    middle = (np.arange(cells) + 0.5) / cells * 2 - 1
    slope, height = (g.ravel() for g in np.meshgrid(middle, 2 * middle))
    u = logits(slope, height)
    terms = x @ u.T - np.logaddexp(0, u).sum(-1)
    return float(np.mean(logsumexp(terms, axis=1) - np.log(cells**2)))


def main():
    """Train on 4,000 images; judge on 500 new ones."""
    rng = np.random.default_rng(0)
    posterior = fit(strokes(4000, rng))
    new = strokes(500, rng)
    found = posterior.evidence({"x": new}, samples=200).estimate / len(new)
    truth = true_evidence(new)
    images = posterior.sample(3)["x"].reshape(3, SIDE, SIDE).astype(int)
    print(posterior)
    print(f"log evidence of a new image: {found:.2f} nats; of the true process {truth:.2f}")
    for lines in zip(*images, strict=True):
        print("   ".join("".join(".#"[pixel] for pixel in line) for line in lines))
    return {"gap": truth - found, "active": int(posterior.usage["active"].sum())}


if __name__ == "__main__":
    main()
