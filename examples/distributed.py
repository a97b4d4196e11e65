"""One fit by several processes, on one machine or on many.

Run it once per process, with the address of the first one:

    python distributed.py 127.0.0.1:12411 2 0 &
    python distributed.py 127.0.0.1:12411 2 1

Every process reads the same data and keeps its own part of each minibatch; gradients are summed by
JAX. The result is that of one process. On several hosts give the first host's address, and start one
process per host; JAX finds their accelerators.
"""

import sys

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist

import taut

EPOCHS = 10


def data() -> np.ndarray:
    """Binary rows with two hidden causes."""
    rng = np.random.default_rng(0)
    logits = 4 * rng.normal(size=(400, 2)) @ rng.normal(size=(2, 12))
    return (rng.random((400, 12)) < 1 / (1 + np.exp(-logits))).astype(np.float32)


def fit(mesh: jax.sharding.Mesh | None, folder: str | None = None) -> taut.deep.TrainedPosterior:
    """Fit a small variational autoencoder, its minibatches shared out over a mesh."""
    kd, ke = jax.random.split(jax.random.key(0))
    decoder = eqx.nn.MLP(2, 12, 16, 1, jnp.tanh, key=kd)
    encoder = eqx.nn.MLP(12, 4, 16, 1, jnp.tanh, key=ke)

    def vae(x):
        decode = taut.deep.module("decoder", decoder)
        with numpyro.plate("rows", len(x)):
            z = numpyro.sample("z", dist.Normal(0, 1).expand([2]).to_event(1))
            numpyro.sample("x", dist.Bernoulli(logits=decode(z)).to_event(1), obs=x)

    return taut.fit(
        vae,
        {"x": data()},
        family=taut.families.Amortised({"z": encoder}),
        solver=taut.solvers.Stochastic(epochs=EPOCHS, batch_size=40),
        mesh=mesh,
        checkpoint=folder,
    )


def main(address: str, count: int, index: int, folder: str | None = None) -> None:
    """Join the other processes, fit, and say what was found."""
    jax.distributed.initialize(address, num_processes=count, process_id=index)
    mesh = jax.make_mesh((jax.device_count(),), ("rows",))
    posterior = fit(mesh, folder)
    weights = jax.tree.leaves(posterior.params)
    norm = float(np.sqrt(sum(np.sum(np.asarray(w, float) ** 2) for w in weights)))
    print(f"process {index} of {count}: |weights| = {norm:.6f}")
    jax.distributed.shutdown()


if __name__ == "__main__":
    address, count, index, *rest = sys.argv[1:]
    main(address, int(count), int(index), *rest)
