"""Variance, bias and cost of the gradient estimators in taut.bounds.

    python -m benchmarks.estimators
    python -m benchmarks.estimators --keys 20000

Two toys with known gradients. Discrete: ten Bernoulli latents under a nonlinear decoder, the truth
by summing over all 1,024 settings. Continuous: a diagonal Gaussian q for a logistic regression with
two weights, the truth by Gauss-Hermite quadrature; once away from the optimum and once at it.

Every row uses the same number of evaluations of the log joint where its estimator can. Variance is
the sum over q's parameters of the variance of one gradient; bias is the norm of the mean error over
the norm of the gradient (of the largest gradient where it vanishes at the optimum), beside the
noise floor that an unbiased estimator shows; time is of one gradient in the quickest batch.
"""

import argparse
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
from jax.flatten_util import ravel_pytree

from benchmarks import store
from taut import bounds

BATCH = 1000
NUM_BITS, NUM_HIDDEN = 10, 8


class Toy(NamedTuple):
    """A log joint and a guide, with the ELBO's true gradient.

    Attributes:
        title: what it is.
        log_joint: of the values.
        guide: parameters -> guide.
        params: where gradients are taken.
        truth: flat gradient.
        unit: the norm that biases are relative to.
    """

    title: str
    log_joint: Callable[[dict[str, Any]], Any]
    guide: Callable[[Any], Any]
    params: Any
    truth: np.ndarray
    unit: float


class Row(NamedTuple):
    """What was measured of an estimator."""

    name: str
    evaluations: int
    variance: float
    bias: float
    floor: float
    microseconds: float


def discrete_toy() -> Toy:
    """E[log p] of ten bits that meet in a hidden layer."""
    rng = np.random.default_rng(0)
    inner = rng.normal(size=(NUM_BITS, NUM_HIDDEN))
    outer = 3.0 * rng.normal(size=NUM_HIDDEN)
    logits = rng.normal(size=NUM_BITS)

    def log_joint(values: dict[str, Any]) -> Any:
        return jnp.tanh((values["b"] - 0.5) @ inner) @ outer

    def guide(logits: Any) -> Any:
        return {"b": dist.Bernoulli(logits=logits).to_event(1)}

    def elbo(logits: Any) -> Any:
        bits = jnp.asarray(np.arange(2**NUM_BITS)[:, None] >> np.arange(NUM_BITS) & 1)
        log_q = guide(logits)["b"].log_prob(bits)
        return jnp.sum(jnp.exp(log_q) * (log_joint({"b": bits}) - log_q))

    truth = np.asarray(jax.grad(elbo)(logits))
    unit = float(np.linalg.norm(truth))
    return Toy("ten Bernoulli latents", log_joint, guide, logits, truth, unit)


def continuous_toy(title: str, *, at_optimum: bool) -> Toy:
    """Logistic regression with two weights."""
    rng = np.random.default_rng(1)
    x = rng.normal(size=(30, 2))
    y = rng.uniform(size=30) < 1 / (1 + np.exp(-x @ np.array([1.0, -0.5])))

    def log_joint(values: dict[str, Any]) -> Any:
        logits = values["w"] @ x.T
        fit = jnp.sum(jnp.where(y, 0.0, -logits) + jax.nn.log_sigmoid(logits), -1)
        return fit + jnp.sum(dist.Normal().log_prob(values["w"]), -1)

    def guide(params: Any) -> Any:
        return {"w": dist.Normal(params["loc"], jnp.exp(params["log_scale"])).to_event(1)}

    nodes, weights = np.polynomial.hermite_e.hermegauss(60)
    grid = jnp.asarray(np.stack(np.meshgrid(nodes, nodes), -1))
    weight = jnp.asarray(np.outer(weights, weights) / weights.sum() ** 2)

    def elbo(params: Any) -> Any:
        values = params["loc"] + jnp.exp(params["log_scale"]) * grid
        return jnp.sum(weight * (log_joint({"w": values}) - guide(params)["w"].log_prob(values)))

    params = {"loc": jnp.zeros(2), "log_scale": jnp.zeros(2)}
    gradient = jax.jit(jax.grad(elbo))
    unit = float(np.linalg.norm(ravel_pytree(gradient(params))[0]))
    for _ in range(2000 if at_optimum else 0):
        params = jax.tree.map(lambda p, g: p + 0.05 * g, params, gradient(params))
    return Toy(title, log_joint, guide, params, np.asarray(ravel_pytree(gradient(params))[0]), unit)


DISCRETE = {
    "score (REINFORCE)": bounds.ELBO(4, "score"),
    "leave-one-out": bounds.ELBO(4, "leave-one-out"),
    "DisARM": bounds.ELBO(4, "disarm"),
    "straight-through": bounds.ELBO(4, "straight-through"),
    "straight-through Gumbel, t = 0.5": bounds.ELBO(4, bounds.StraightThrough(0.5)),
    "Gumbel, t = 1": bounds.ELBO(4, bounds.Gumbel(1.0)),
    "Gumbel, t = 0.5": bounds.ELBO(4, bounds.Gumbel(0.5)),
    "Gumbel, t = 0.1": bounds.ELBO(4, bounds.Gumbel(0.1)),
    "enumerate": bounds.ELBO(1, "enumerate"),
}
CONTINUOUS = {
    "score (REINFORCE)": bounds.ELBO(4, "score"),
    "leave-one-out": bounds.ELBO(4, "leave-one-out"),
    "pathwise": bounds.ELBO(4, "pathwise"),
    "sticking the landing": bounds.ELBO(4, "sticking-the-landing"),
}


def measure(toy: Toy, name: str, bound: bounds.ELBO, num_keys: int) -> Row:
    """Moments of the gradient over many keys, and the time of one."""

    def surrogate(params: Any, key: Any) -> Any:
        return bound(toy.log_joint, toy.guide(params), key).surrogate

    def one(params: Any, key: Any) -> Any:
        return ravel_pytree(jax.grad(surrogate)(params, key))[0]

    # Parameters of its own for each key, or what no key enters would be computed once for all.
    params = jax.tree.map(lambda p: jnp.tile(p, (BATCH, *(1,) * jnp.ndim(p))), toy.params)
    batch = jax.jit(jax.vmap(one))
    found, seconds = [], []
    for keys in jax.random.split(jax.random.key(0), (num_keys // BATCH, BATCH)):
        start = time.perf_counter()
        found.append(np.asarray(batch(params, keys)))
        seconds.append(time.perf_counter() - start)
    gradients = np.concatenate(found)
    variance = float(gradients.var(0).sum())
    bias = float(np.linalg.norm(gradients.mean(0) - toy.truth) / toy.unit)
    floor = float(np.sqrt(variance / len(gradients)) / toy.unit)
    evaluations = 2**NUM_BITS if name == "enumerate" else bound.samples
    return Row(name, evaluations, variance, bias, floor, 1e6 * min(seconds) / BATCH)


def show(toy: Toy, rows: list[Row]) -> str:
    """A Markdown table."""
    header = ["estimator", "evaluations", "variance", "bias / norm", "noise floor", "us"]
    cells = [
        [row.name, str(row.evaluations), *(f"{value:.2g}" for value in row[2:5]), f"{row[5]:.1f}"]
        for row in rows
    ]
    return f"## {toy.title}\n\n{store.table(header, cells)}\n"


def main(arguments: list[str] | None = None) -> int:
    """Command line."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.estimators",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--keys", type=int, default=20_000, help="gradients per estimator")
    options = parser.parse_args(arguments)
    if options.keys < BATCH:
        parser.error(f"--keys must be at least {BATCH}")
    with jax.enable_x64(True):
        toys = [
            (discrete_toy(), DISCRETE),
            (continuous_toy("logistic regression, q at its start", at_optimum=False), CONTINUOUS),
            (continuous_toy("logistic regression, q at its optimum", at_optimum=True), CONTINUOUS),
        ]
        for toy, methods in toys:
            rows = [measure(toy, name, bound, options.keys) for name, bound in methods.items()]
            print(show(toy, rows), flush=True)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
