"""Labels that are mostly missing: the semi-supervised model M2, with missing labels enumerated.

Kingma, Rezende, Mohamed and Welling 2014, Semi-supervised learning with deep generative models.
Images are noisy letters, lit from the left or the right; 12 of 2,000 have a label. The classifier
alone, trained on those 12, is compared with the same network as M2's q(y | x).
"""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
from scipy.special import expit

import taut

LETTERS = """
####. .###. #...# .###.
#...# #.... #...# ..#..
####. #.... ##### ..#..
#...# #.... #...# ..#..
####. .###. #...# .###.
"""
SIDE, STYLE, CLASSES, LABELLED = 8, 2, 4, 12
ky, kz, kx = jax.random.split(jax.random.key(0), 3)
CLASSIFIER = eqx.nn.MLP(SIDE**2, CLASSES, 100, 1, key=ky)
DECODER = eqx.nn.MLP(STYLE + CLASSES, SIDE**2, 100, 1, key=kx)


def m2(x, y, known):
    """Label and style, independent of each other, then the pixels."""
    decode = taut.deep.module("decoder", DECODER)
    with numpyro.plate("images", len(x)):
        prior = dist.Categorical(logits=jnp.zeros(CLASSES))
        y = numpyro.sample("y", prior, obs=y, obs_mask=known)
        z = numpyro.sample("z", dist.Normal(0, 1).expand([STYLE]).to_event(1))
        both = jnp.concatenate([z, jax.nn.one_hot(y, CLASSES)], -1)
        numpyro.sample("x", dist.Bernoulli(logits=decode(both)).to_event(1), obs=x)


class Style(eqx.Module):
    """Means and log scales of the style, from an image and its label."""

    net: eqx.nn.MLP

    def __call__(self, x, y):
        """Call the network on both."""
        return self.net(jnp.concatenate([x, jax.nn.one_hot(y, CLASSES)]))


ENCODER = Style(eqx.nn.MLP(SIDE**2 + CLASSES, 2 * STYLE, 100, 1, key=kz))


def fit(data):
    """Train on labelled and unlabelled images together."""
    family = taut.families.Amortised(
        {"y": CLASSIFIER, "z": ENCODER}, inputs={"y": "x", "z": ("x", "y")}, supervise={"y": 50.0}
    )
    solver = taut.solvers.Stochastic(epochs=40, learning_rate=0.005)
    return taut.fit(m2, data, family=family, solver=solver)


def supervised(x, y):
    """The classifier alone."""
    classify = taut.deep.module("classifier", CLASSIFIER)
    with numpyro.plate("images", len(x)):
        numpyro.sample("y", dist.Categorical(logits=classify(x)), obs=y)


# --- data -----------------------------------------------------------------------------------------


def simulate(count, rng):
    """Letters and which they are: log odds of the pixels get a slope from left to right."""
    lines = [line.split() for line in LETTERS.split("\n") if line]
    glyphs = np.array([[[c == "#" for c in part] for part in line] for line in lines])
    labels, slope = rng.integers(CLASSES, size=count), 0.5 * rng.normal(size=count)
    logits = np.full((count, SIDE, SIDE), -1.5)
    logits[:, 2:7, 2:7] += 3.0 * glyphs.transpose(1, 0, 2)[labels]
    logits += slope[:, None, None] * (np.arange(SIDE) - (SIDE - 1) / 2)
    images = rng.random(logits.shape) < expit(logits)
    return images.reshape(count, -1).astype(np.float32), labels


def main():
    """Train on 2,000 images of which 12 have labels; judge on 1,000 new ones."""
    rng = np.random.default_rng(0)
    (x, y), (new, truth) = simulate(2000, rng), simulate(1000, rng)
    known = np.arange(2000) < LABELLED
    posterior = fit({"x": x, "y": np.where(known, y, 0), "known": known})
    blank = {"y": np.zeros(1000, int), "known": np.zeros(1000, bool)}
    m2_accuracy = accuracy(posterior.encode({"x": new, **blank})["y"].logits, truth)
    solver = taut.solvers.Stochastic(epochs=200)
    alone = taut.fit(supervised, {"x": x[:LABELLED], "y": y[:LABELLED]}, solver=solver)
    network = alone.network("classifier", CLASSIFIER)
    alone_accuracy = accuracy(jax.vmap(network)(new), truth)
    print(posterior)
    print(f"accuracy: M2 {m2_accuracy:.1%}, the classifier alone {alone_accuracy:.1%}")
    return {"m2": m2_accuracy, "supervised": alone_accuracy}


def accuracy(logits, labels):
    """Share of labels whose logit is the largest."""
    return float(np.mean(np.argmax(np.asarray(logits), -1) == labels))


if __name__ == "__main__":
    main()
