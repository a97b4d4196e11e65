"""A variational autoencoder on static binarised MNIST: taut, NumPyro's SVI, plain JAX and Optax.

    python -m benchmarks.vae speed            seconds per epoch, side by side
    python -m benchmarks.vae train [epochs]   test bound after a run

Network 784-200-200-50 with tanh each way, batches of 100. The data lie in ../shared, whose test rows
are sorted by class: all of them are evaluated.
"""

import sys
import time
from pathlib import Path

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import optax

import taut

DATA = Path(__file__).resolve().parents[1].parent / "shared/data/images/mnist_static_binary.npz"
HIDDEN, LATENT, PIXELS, BATCH = 200, 50, 784, 100
ROUNDS = 3


def networks():
    kd, ke = jax.random.split(jax.random.key(0))
    decoder = eqx.nn.MLP(LATENT, PIXELS, HIDDEN, 2, jnp.tanh, key=kd)
    encoder = eqx.nn.MLP(PIXELS, 2 * LATENT, HIDDEN, 2, jnp.tanh, key=ke)
    return decoder, encoder


def images():
    with np.load(DATA) as file:
        return {n: np.unpackbits(file[n], axis=1).astype(np.float32) for n in ("train", "test")}


def taut_model(decoder):
    def vae(x):
        decode = taut.deep.module("decoder", decoder)
        with numpyro.plate("images", len(x)):
            z = numpyro.sample("z", dist.Normal(0, 1).expand([LATENT]).to_event(1))
            numpyro.sample("x", dist.Bernoulli(logits=decode(z)).to_event(1), obs=x)

    return vae


def fit_taut(x, epochs, **options):
    decoder, encoder = networks()
    family = taut.families.Amortised({"z": encoder})
    solver = taut.solvers.Stochastic(epochs=epochs, batch_size=BATCH)
    return taut.fit(taut_model(decoder), {"x": x}, family=family, solver=solver, **options)


def seconds_taut(x, epochs):
    marks = []

    def watch(stage, numbers):
        if stage == "training":
            marks.append((numbers["epoch"], time.perf_counter()))

    fit_taut(x, epochs, callbacks=[watch])
    (first, began), (last, ended) = marks[0], marks[-1]
    return (ended - began) / (last - first)


def seconds_numpyro(x, epochs):
    from numpyro.contrib.module import eqx_module
    from numpyro.infer import SVI, TraceMeanField_ELBO

    decoder, encoder = networks()

    def model(batch):
        decode = jax.vmap(eqx_module("decoder", decoder))
        with numpyro.plate("images", len(x), subsample_size=BATCH):
            z = numpyro.sample("z", dist.Normal(0, 1).expand([LATENT]).to_event(1))
            numpyro.sample("x", dist.Bernoulli(logits=decode(z)).to_event(1), obs=batch)

    def guide(batch):
        encode = jax.vmap(eqx_module("encoder", encoder))
        with numpyro.plate("images", len(x), subsample_size=BATCH):
            loc, raw = jnp.split(encode(batch), 2, axis=-1)
            numpyro.sample("z", dist.Normal(loc, jnp.exp(raw)).to_event(1))

    svi = SVI(model, guide, numpyro.optim.Adam(1e-3), TraceMeanField_ELBO())
    data = jnp.asarray(x)
    state = svi.init(jax.random.key(0), data[:BATCH])

    @jax.jit
    def epoch(state, order):
        return jax.lax.scan(lambda s, rows: svi.update(s, data[rows]), state, order)

    return _timed_epochs(epoch, state, len(x), epochs)


def seconds_jax(x, epochs):
    networks_ = networks()
    params, static = eqx.partition(networks_, eqx.is_inexact_array)
    optimiser, data = optax.adam(1e-3), jnp.asarray(x)

    def loss(params, batch, key):
        decoder, encoder = eqx.combine(params, static)
        loc, raw = jnp.split(jax.vmap(encoder)(batch), 2, axis=-1)
        z = loc + jnp.exp(raw) * jax.random.normal(key, loc.shape)
        logits = jax.vmap(decoder)(z)
        likelihood = jnp.sum(batch * logits - jax.nn.softplus(logits))
        kl = 0.5 * jnp.sum(jnp.exp(2 * raw) + loc**2 - 1 - 2 * raw)
        return (kl - likelihood) / BATCH

    @jax.jit
    def epoch(state, order):
        def step(state, rows):
            params, opt_state, key = state
            key, now = jax.random.split(key)
            value, grads = jax.value_and_grad(loss)(params, data[rows], now)
            updates, opt_state = optimiser.update(grads, opt_state, params)
            return (optax.apply_updates(params, updates), opt_state, key), value

        return jax.lax.scan(step, state, order)

    state = params, optimiser.init(params), jax.random.key(0)
    return _timed_epochs(epoch, state, len(x), epochs)


def _timed_epochs(epoch, state, count, epochs):
    """Median seconds of an epoch after the first, which is compiled."""
    rng, seconds = np.random.default_rng(0), []
    for _ in range(epochs + 1):
        order = rng.permutation(count)[: count // BATCH * BATCH].reshape(-1, BATCH)
        began = time.perf_counter()
        state, losses = epoch(state, order)
        losses.block_until_ready()
        seconds.append(time.perf_counter() - began)
    return float(np.median(seconds[1:]))


def speed(epochs=2):
    x = images()["train"]
    found = {"taut": [], "NumPyro SVI": [], "plain JAX": []}
    for _ in range(ROUNDS):  # in turn, so that other work on the machine meets all alike
        found["taut"].append(seconds_taut(x, epochs))
        found["NumPyro SVI"].append(seconds_numpyro(x, epochs))
        found["plain JAX"].append(seconds_jax(x, epochs))
    base = np.median(found["taut"])
    print(f"{'':12}  s/epoch  against taut")
    for name, seconds in found.items():
        print(f"{name:12}  {np.median(seconds):7.2f}  {np.median(seconds) / base:5.2f}x")


def train(epochs=60):
    data = images()
    began = time.perf_counter()
    posterior = fit_taut(data["train"], epochs)
    seconds = time.perf_counter() - began
    found = posterior.evidence({"x": data["test"]}, samples=100)
    count = len(data["test"])
    print(posterior)
    print(
        f"{epochs} epochs in {seconds:.0f} s; test -ELBO {-found.lower / count:.2f} nats, "
        f"importance-weighted ({found.samples}) {-found.estimate / count:.2f}"
    )


if __name__ == "__main__":
    if not DATA.exists():
        sys.exit(f"{DATA} is not there: these figures need it")
    task, *rest = sys.argv[1:] or ["speed"]
    {"speed": speed, "train": train}[task](*map(int, rest))
