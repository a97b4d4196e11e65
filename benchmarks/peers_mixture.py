"""Gaussian mixtures, diagonal and full: taut and scikit-learn from the same responsibilities.

Both have a joint factor of each mean and precision (normal-gamma, normal-Wishart), and scikit-learn's
bound leaves out constants.
So the answers are compared by the held-out log density at their posterior means, and by taut's ELBO
of the factors that are optimal for each method's responsibilities.
"""

from typing import Any

import numpy as np

from benchmarks.peers_sweeps import Stopwatch, Sweeps

ROWS, HELD_OUT, DIM, COMPONENTS = {"diag": 100_000, "full": 50_000}, 20_000, 10, 10
ITERATIONS, REPEATS = 30, 3
KAPPA = 0.01  # prior weight of the means


def make_data(num: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Rows, held-out rows and responsibilities to start from."""
    rng = np.random.default_rng(0)
    centres = rng.normal(0.0, 2.0, (COMPONENTS, DIM))
    sds = np.exp(rng.normal(0.0, 0.3, (COMPONENTS, DIM)))
    z = rng.choice(COMPONENTS, num + HELD_OUT, p=rng.dirichlet(np.full(COMPONENTS, 5.0)))
    rows = centres[z] + sds[z] * rng.standard_normal((len(z), DIM))
    seeds = rows[rng.choice(num, COMPONENTS, replace=False)]
    nearest = np.argmin(((rows[:num, None] - seeds) ** 2).sum(-1), axis=1)
    start = np.full((num, COMPONENTS), 0.1 / COMPONENTS) + 0.9 * np.eye(COMPONENTS)[nearest]
    return rows[:num], rows[num:], start


def model(x: Any) -> None:
    """Bishop (2006), section 10.2, with diagonal covariance."""
    import jax.numpy as jnp
    import numpyro
    import numpyro.distributions as dist

    weights = numpyro.sample("weights", dist.Dirichlet(jnp.ones(COMPONENTS)))
    with numpyro.plate("components", COMPONENTS):
        prior = dist.Gamma(0.5 * DIM, 0.5).expand([DIM]).to_event(1)
        tau = numpyro.sample("tau", prior)
        mu = numpyro.sample("mu", dist.Normal(0.0, 1.0 / jnp.sqrt(KAPPA * tau)).to_event(1))
    with numpyro.plate("rows", x.shape[0]):
        z = numpyro.sample("z", dist.Categorical(weights))
        numpyro.sample("x", dist.Normal(mu[z], 1.0 / jnp.sqrt(tau[z])).to_event(1), obs=x)


def full_model(x: Any) -> None:
    """Bishop (2006), section 10.2."""
    import jax.numpy as jnp
    import numpyro
    import numpyro.distributions as dist

    weights = numpyro.sample("weights", dist.Dirichlet(jnp.ones(COMPONENTS)))
    with numpyro.plate("components", COMPONENTS):
        tau = numpyro.sample("tau", dist.Wishart(float(DIM), rate_matrix=jnp.eye(DIM)))
        prior = dist.MultivariateNormal(jnp.zeros(DIM), precision_matrix=KAPPA * tau)
        mu = numpyro.sample("mu", prior)
    with numpyro.plate("rows", x.shape[0]):
        z = numpyro.sample("z", dist.Categorical(weights))
        numpyro.sample("x", dist.MultivariateNormal(mu[z], precision_matrix=tau[z]), obs=x)


MODELS = {"diag": model, "full": full_model}


def log_density(rows: np.ndarray, weights: Any, means: Any, precisions: Any) -> float:
    """Mean log density of held-out rows at point estimates, nats a row."""
    from scipy.special import logsumexp

    if precisions.ndim == 2:
        precisions = np.einsum("kd,de->kde", precisions, np.eye(DIM))
    away = rows[:, None] - means
    squares = np.einsum("nkd,kde,nke->nk", away, precisions, away, optimize=True)
    logs = 0.5 * (np.linalg.slogdet(precisions / (2.0 * np.pi))[1] - squares)
    return float(np.mean(logsumexp(logs + np.log(weights), axis=1)))


def _peer(
    kind: str, rows: np.ndarray, start: np.ndarray, threads: int | None
) -> tuple[Any, Stopwatch]:
    from sklearn.mixture import BayesianGaussianMixture
    from threadpoolctl import threadpool_limits

    fitted = BayesianGaussianMixture(
        n_components=COMPONENTS, covariance_type=kind, max_iter=ITERATIONS, tol=0.0, reg_covar=0.0,
        weight_concentration_prior_type="dirichlet_distribution", weight_concentration_prior=1.0,
        mean_precision_prior=KAPPA, mean_prior=np.zeros(DIM), degrees_of_freedom_prior=DIM,
        covariance_prior=np.ones(DIM) if kind == "diag" else np.eye(DIM),
    )  # fmt: skip
    fitted._initialize_parameters = lambda X, *_, **__: fitted._initialize(X, start)
    clock = Stopwatch()
    with threadpool_limits(threads), clock:
        fitted.fit(rows)
    return fitted, clock


def measure(kind: str) -> dict[str, Any]:
    """The rows of the table."""
    import warnings

    from taut.families import Categorical

    warnings.simplefilter("ignore")  # scikit-learn complains that it has not converged
    rows, held_out, start = make_data(ROWS[kind])
    sweeps = Sweeps(MODELS[kind], {"x": rows})
    first = sweeps.q | {"z": _labels(sweeps, start, Categorical)}
    times: dict[str, list[Stopwatch]] = {"taut": [], "1 thread": [], "all threads": []}
    peers = {}
    for _ in range(REPEATS):
        clock, q, bound = Stopwatch(), first, 0.0
        with clock:
            for _ in range(ITERATIONS):
                q, bound = sweeps.sweep(q)
        times["taut"].append(clock)
        for label, threads in (("1 thread", 1), ("all threads", None)):
            peers[label], clock = _peer(kind, rows, start, threads)
            times[label].append(clock)
    mine = log_density(held_out, _mean_weights(q), *_point(q))
    found = [
        _row("taut", times["taut"], ITERATIONS)
        | {"setup s": sweeps.setup, "ELBO": bound, "held out": mine}
    ]
    for label, fitted in peers.items():
        theirs = sweeps.q | {"z": _labels(sweeps, fitted.predict_proba(rows), Categorical)}
        # fit: one M step, then E, M and bound for each iteration, and one E step at the end
        row = _row(f"scikit-learn, {label}", times[label], ITERATIONS + 1)
        found.append(row | {
            "ELBO": sweeps.sweep(theirs)[1],
            "held out": log_density(held_out, fitted.weights_, fitted.means_, fitted.precisions_),
        })  # fmt: skip
    note = (
        f"N = {ROWS[kind]}, D = {DIM}, K = {COMPONENTS}; {ITERATIONS} iterations from the same responsibilities, "
        f"median of {REPEATS}. ELBO: taut's, in nats; of scikit-learn after one more sweep from its responsibilities. "
        "Held out: nats a row at posterior means."
    )
    return {"title": f"Gaussian mixture, {kind}", "rows": found, "note": note}


def _labels(sweeps: Sweeps, probs: np.ndarray, kind: Any) -> Any:
    with sweeps.precision():
        return kind(probs / probs.sum(-1, keepdims=True))


def _mean_weights(q: dict[str, Any]) -> np.ndarray:
    a = np.asarray(q["weights"].concentration)
    return a / a.sum()


def _point(q: dict[str, Any]) -> tuple[np.ndarray, np.ndarray]:
    (joint,) = (f for name, f in q.items() if "mu" in name)
    means, precisions = np.asarray(joint.normal.mean), np.asarray(joint.precision.mean[1])
    return means.reshape(COMPONENTS, DIM), precisions


def _row(method: str, times: list[Stopwatch], count: int) -> dict[str, Any]:
    wall, cpu = ([1e3 * getattr(t, k) / count for t in times] for k in ("wall", "cpu"))
    return {
        "method": method, "ms an iteration": float(np.median(wall)), "fastest": min(wall),
        "CPU ms": float(np.median(cpu)),
    }  # fmt: skip
