"""BayesPy on example models of its documentation, and taut with the same factors."""

from collections.abc import Callable
from typing import Any

import numpy as np

from benchmarks.peers_sweeps import Stopwatch, Sweeps

REGRESSION = {"num": 10_000, "dim": 20}
PCA = {"num": 1000, "wide": 20, "latent": 5}
MIXTURE = {"num": 5000, "dim": 5, "components": 6}
WIDE = 1e-3  # precision of vague priors, and both parameters of vague gammas
REPEATS = 3

Step = Callable[[], float]  # one iteration; returns the bound in nats


# --- linear regression -------------------------------------------------------------------------


def _regression_data() -> dict[str, Any]:
    rng = np.random.default_rng(0)
    x = rng.standard_normal((REGRESSION["num"], REGRESSION["dim"]))
    noise = 0.7 * rng.standard_normal(REGRESSION["num"])
    return {"x": x, "y": x @ rng.standard_normal(REGRESSION["dim"]) + noise}


def regression(x: Any, y: Any) -> None:
    """The documentation's linear regression with more columns."""
    import jax.numpy as jnp
    import numpyro
    import numpyro.distributions as dist

    w = numpyro.sample("w", dist.Normal(0.0, WIDE**-0.5).expand([x.shape[1]]).to_event(1))
    tau = numpyro.sample("tau", dist.Gamma(WIDE, WIDE))
    with numpyro.plate("rows", x.shape[0]):
        numpyro.sample("y", dist.Normal(x @ w, 1.0 / jnp.sqrt(tau)), obs=y)


def _regression_peer(x: Any, y: Any) -> Step:
    from bayespy.nodes import Gamma, GaussianARD, SumMultiply

    w = GaussianARD(0, WIDE, shape=(x.shape[1],))
    tau = Gamma(WIDE, WIDE)
    rows = GaussianARD(SumMultiply("i,i", w, x), tau)
    rows.observe(y)
    return _peer(rows, w, tau)


# --- principal components ----------------------------------------------------------------------


def _pca_data() -> dict[str, Any]:
    rng = np.random.default_rng(1)
    z = rng.standard_normal((PCA["num"], PCA["latent"] - 1))
    loadings = rng.standard_normal((PCA["wide"], PCA["latent"] - 1))
    return {"y": z @ loadings.T + 0.5 * rng.standard_normal((PCA["num"], PCA["wide"]))}


def pca(y: Any) -> None:
    """The documentation's principal components with automatic relevance."""
    import jax.numpy as jnp
    import numpyro
    import numpyro.distributions as dist

    alpha = numpyro.sample("alpha", dist.Gamma(WIDE, WIDE).expand([PCA["latent"]]).to_event(1))
    tau = numpyro.sample("tau", dist.Gamma(WIDE, WIDE))
    with numpyro.plate("columns", y.shape[1]):
        w = numpyro.sample("w", dist.Normal(0.0, 1.0 / jnp.sqrt(alpha)).to_event(1))
    with numpyro.plate("rows", y.shape[0]):
        z = numpyro.sample("z", dist.Normal(0.0, 1.0).expand([PCA["latent"]]).to_event(1))
        numpyro.sample("y", dist.Normal(z @ w.T, 1.0 / jnp.sqrt(tau)).to_event(1), obs=y)


def _pca_start() -> np.ndarray:
    return np.random.default_rng(2).standard_normal((PCA["wide"], PCA["latent"]))


def _pca_peer(y: Any) -> Step:
    from bayespy.nodes import Gamma, GaussianARD, SumMultiply

    z = GaussianARD(0, 1, plates=(y.shape[0], 1), shape=(PCA["latent"],))
    alpha = Gamma(WIDE, WIDE, plates=(PCA["latent"],))
    w = GaussianARD(0, alpha, plates=(1, y.shape[1]), shape=(PCA["latent"],))
    tau = Gamma(WIDE, WIDE)
    rows = GaussianARD(SumMultiply("d,d->", z, w), tau)
    w.initialize_from_value(_pca_start()[None])
    rows.observe(y)
    return _peer(rows, z, w, alpha, tau)


# --- mixture with full covariance --------------------------------------------------------------


def _mixture_data() -> dict[str, Any]:
    rng = np.random.default_rng(3)
    k, d = MIXTURE["components"], MIXTURE["dim"]
    z, centres = rng.choice(k, MIXTURE["num"]), 3.0 * rng.standard_normal((k, d))
    roots = np.eye(d) + 0.3 * rng.standard_normal((k, d, d))
    noise = rng.standard_normal((MIXTURE["num"], d))
    return {"y": centres[z] + np.einsum("nij,nj->ni", roots[z], noise)}


def mixture(y: Any) -> None:
    """The documentation's Gaussian mixture: means and Wishart precisions independent."""
    import jax.numpy as jnp
    import numpyro
    import numpyro.distributions as dist

    k, d = MIXTURE["components"], MIXTURE["dim"]
    weights = numpyro.sample("weights", dist.Dirichlet(jnp.full(k, WIDE)))
    with numpyro.plate("components", k):
        prior = dist.MultivariateNormal(jnp.zeros(d), jnp.eye(d) / WIDE)
        mu = numpyro.sample("mu", prior)
        # BayesPy's Wishart has the inverse scale matrix as its second parameter
        precision = numpyro.sample("precision", dist.Wishart(d, scale_matrix=jnp.eye(d) / WIDE))
    with numpyro.plate("rows", y.shape[0]):
        z = numpyro.sample("z", dist.Categorical(weights))
        of_row = dist.MultivariateNormal(mu[z], precision_matrix=precision[z])
        numpyro.sample("y", of_row, obs=y)


def _mixture_start() -> np.ndarray:
    y = _mixture_data()["y"]
    seeds = y[np.random.default_rng(4).choice(len(y), MIXTURE["components"], replace=False)]
    nearest = np.argmin(((y[:, None] - seeds) ** 2).sum(-1), axis=1)
    return 0.1 / MIXTURE["components"] + 0.9 * np.eye(MIXTURE["components"])[nearest]


def _mixture_peer(y: Any) -> Step:
    from bayespy.nodes import Categorical, Dirichlet, Gaussian, Mixture, Wishart

    k, d = MIXTURE["components"], MIXTURE["dim"]
    weights = Dirichlet(np.full(k, WIDE))
    z = Categorical(weights, plates=(len(y),))
    mu = Gaussian(np.zeros(d), WIDE * np.eye(d), plates=(k,))
    precision = Wishart(d, WIDE * np.eye(d), plates=(k,))
    rows = Mixture(z, Gaussian, mu, precision)
    z.initialize_from_parameters(_mixture_start())
    rows.observe(y)
    return _peer(rows, mu, precision, weights, z)


# --- all ----------------------------------------------------------------------------------------


def _peer(*nodes: Any) -> Step:
    from bayespy.inference import VB

    engine = VB(*nodes)

    def step() -> float:
        engine.update(repeat=1, verbose=False, tol=-1.0)
        return float(engine.L[engine.iter - 1])

    return step


def _start_regression(sweeps: Sweeps) -> dict[str, Any]:
    return sweeps.q


def _start_pca(sweeps: Sweeps) -> dict[str, Any]:
    import dataclasses

    with sweeps.precision():
        w = sweeps.q["w"]
        point = dataclasses.replace(
            w,
            mean=_pca_start().reshape(w.mean.shape),
            covariance=1e-12 * np.ones_like(w.covariance),
        )
    return {**sweeps.q, "w": point}


def _start_mixture(sweeps: Sweeps) -> dict[str, Any]:
    from taut.families import Categorical

    with sweeps.precision():
        return {**sweeps.q, "z": Categorical(_mixture_start())}


CASES: dict[str, tuple[Any, ...]] = {
    "linear regression": (
        regression,
        _regression_peer,
        _regression_data,
        _start_regression,
        None,
        20,
    ),
    "principal components": (pca, _pca_peer, _pca_data, _start_pca, (("z",), ("w",)), 200),
    "mixture": (mixture, _mixture_peer, _mixture_data, _start_mixture, None, 60),
}


def measure() -> dict[str, Any]:
    """The rows of the table."""
    rows = []
    for name, (model, peer, make_data, start, blocks, count) in CASES.items():
        data = make_data()
        sweeps = Sweeps(model, data, blocks)
        setup = {"taut": sweeps.setup, "BayesPy": 0.0}
        times: dict[str, list[Stopwatch]] = {"taut": [], "BayesPy": []}
        bounds: dict[str, float] = {}
        for _ in range(REPEATS):
            q = start(sweeps)
            with (clock := Stopwatch()):
                for _ in range(count):
                    q, bounds["taut"] = sweeps.sweep(q)
            times["taut"].append(clock)
            step = peer(**data)
            with (clock := Stopwatch()):
                for _ in range(count):
                    bounds["BayesPy"] = step()
            times["BayesPy"].append(clock)
        for method, clocks in times.items():
            rows.append({
                "model": name, "method": method, "setup s": setup[method], "iterations": count,
                "ms an iteration": float(np.median([1e3 * c.wall / count for c in clocks])),
                "CPU ms": float(np.median([1e3 * c.cpu / count for c in clocks])),
                "bound": f"{bounds[method]:.4f}",
            })  # fmt: skip
    note = f"Linear regression {REGRESSION}, principal components {PCA}, mixture {MIXTURE}; median of {REPEATS}."
    return {"title": "BayesPy's example models", "rows": rows, "note": note}
