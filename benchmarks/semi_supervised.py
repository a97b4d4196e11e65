"""M1+M2 with 100 labels against the supervised network alone, on binarised MNIST.

    python -m benchmarks.semi_supervised [seeds]

Kingma, Rezende, Mohamed and Welling 2014, section 2: an autoencoder of all images (M1), then on its
means a model with labels that are partly known (M2), whose classifier is what counts. 10,000 images
to train on, ten labels a class, the 10,000 of the test set held out. The supervised network has the
pixels, 200 hidden units and a Gaussian prior for its weights, the best of three scales on the held-out
rows, so that the comparison is kind to it. Settings of M1+M2 are the paper's where it gives them, else
from the split of seed 0; the table is of the seeds after 1. The data lie in ../shared.
"""

import sys
from pathlib import Path
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist

import taut

DATA = Path(__file__).resolve().parents[1].parent / "shared/data/images/mnist.npz"
PIXELS, CLASSES, PER_CLASS, ROWS = 784, 10, 10, 10_000
FEATURES, STYLE = 30, 10  # latents of M1 and M2
SUPERVISE = 0.1 * ROWS  # weight of a known label: the paper's alpha
SCALES = (0.7, 1.0, 2.0)
FIRST = 2  # seed


def features(x: np.ndarray, held: np.ndarray, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """M1: encoders' means, each divided by its sd over the rows."""
    kd, ke = jax.random.split(jax.random.key(seed + 100))
    decoder = eqx.nn.MLP(FEATURES, PIXELS, 200, 1, jnp.tanh, key=kd)
    encoder = eqx.nn.MLP(PIXELS, 2 * FEATURES, 200, 1, jnp.tanh, key=ke)

    def m1(x):
        decode = taut.deep.module("decoder", decoder)
        with numpyro.plate("images", len(x)):
            z = numpyro.sample("z", dist.Normal(0, 1).expand([FEATURES]).to_event(1))
            numpyro.sample("x", dist.Bernoulli(logits=decode(z)).to_event(1), obs=x)

    family = taut.families.Amortised({"z": encoder})
    solver = taut.solvers.Stochastic(epochs=60, batch_size=100)
    fitted = taut.fit(m1, {"x": x}, family=family, solver=solver, seed=seed)
    found, new = (np.asarray(fitted.encode({"x": rows})["z"].mean) for rows in (x, held))
    return found / found.std(0), new / found.std(0)


class Joined(eqx.Module):
    """A network of a row's features and its label."""

    net: eqx.nn.MLP

    def __call__(self, x, y):
        return self.net(jnp.concatenate([x, jax.nn.one_hot(y, CLASSES)]))


def fit_m2(x: np.ndarray, y: np.ndarray, known: np.ndarray, seed: int) -> Any:
    ky, kz, kx = jax.random.split(jax.random.key(seed), 3)
    classifier = eqx.nn.MLP(FEATURES, CLASSES, 100, 1, key=ky)
    style = Joined(eqx.nn.MLP(FEATURES + CLASSES, 2 * STYLE, 100, 1, key=kz))
    decoder = eqx.nn.MLP(STYLE + CLASSES, 2 * FEATURES, 100, 1, key=kx)

    def m2(x, y, known):
        decode = taut.deep.module("decoder", decoder)
        with numpyro.plate("images", len(x)):
            prior = dist.Categorical(logits=jnp.zeros(CLASSES))
            y = numpyro.sample("y", prior, obs=y, obs_mask=known)
            z = numpyro.sample("z", dist.Normal(0, 1).expand([STYLE]).to_event(1))
            both = jnp.concatenate([z, jax.nn.one_hot(y, CLASSES)], -1)
            loc, log_scale = jnp.split(decode(both), 2, -1)
            scale = jnp.exp(jnp.clip(log_scale, -3, 2))
            numpyro.sample("x", dist.Normal(loc, scale).to_event(1), obs=x)

    family = taut.families.Amortised(
        {"y": classifier, "z": style}, {"y": "x", "z": ("x", "y")}, supervise={"y": SUPERVISE}
    )
    solver = taut.solvers.Stochastic(epochs=60, batch_size=100)
    data = {"x": x, "y": np.where(known, y, 0), "known": known}
    return taut.fit(m2, data, family=family, solver=solver, seed=seed)


def fit_supervised(x: np.ndarray, y: np.ndarray, scale: float, seed: int) -> Any:
    classifier = eqx.nn.MLP(PIXELS, CLASSES, 200, 1, key=jax.random.key(seed))

    def model(x, y):
        classify = taut.deep.random_module("classifier", classifier, dist.Normal(0, scale))
        logits = numpyro.deterministic("logits", classify(x))
        with numpyro.plate("images", len(x)):
            numpyro.sample("y", dist.Categorical(logits=logits), obs=y)

    solver = taut.solvers.Stochastic(epochs=1000)
    data = {"x": x, "y": y}
    return taut.fit(model, data, family=taut.families.Point(), solver=solver, seed=seed)


def accuracy(logits: Any, labels: np.ndarray) -> float:
    return 100 * float(np.mean(np.argmax(np.asarray(logits), -1) == labels))


def one(seed: int) -> tuple[float, float]:
    """Percent right on the test set: M1+M2, and the best of the supervised networks."""
    with np.load(DATA) as file:
        rows = np.random.default_rng(seed).permutation(len(file["x_train"]))[:ROWS]
        x, held = ((v > 127).astype(np.float32) for v in (file["x_train"][rows], file["x_test"]))
        y, y_held = file["y_train"][rows].astype(int), file["y_test"].astype(int)
    labelled = np.concatenate([np.flatnonzero(y == k)[:PER_CLASS] for k in range(CLASSES)])
    alone = []
    for scale in SCALES:
        fitted = fit_supervised(x[labelled], y[labelled], scale, seed)
        alone.append(accuracy(fitted.predict({"x": held}, draws=1)["logits"][0], y_held))
    found, new = features(x, held, seed)
    posterior = fit_m2(found, y, np.isin(np.arange(ROWS), labelled), seed)
    blank = {"y": np.zeros(len(new), int), "known": np.zeros(len(new), bool)}
    return accuracy(posterior.encode({"x": new, **blank})["y"].logits, y_held), max(alone)


def run(seeds: int = 5) -> None:
    print("seed  M1+M2  supervised  difference")
    rows = []
    for seed in range(FIRST, FIRST + seeds):
        rows.append(one(seed))
        found, alone = rows[-1]
        print(f"{seed:4}  {found:5.1f}  {alone:10.1f}  {found - alone:+10.1f}", flush=True)
    mean = np.mean(rows, axis=0)
    print(f"mean  {mean[0]:5.1f}  {mean[1]:10.1f}  {mean[0] - mean[1]:+10.1f}")


if __name__ == "__main__":
    if not DATA.exists():
        sys.exit(f"{DATA} is not there: these figures need it")
    run(*map(int, sys.argv[1:]))
