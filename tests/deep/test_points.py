"""Maximum likelihood and maximum a posteriori, against formulas."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest

import taut
from taut._core.errors import ArgumentError, ModelError

RNG = np.random.default_rng(0)
X = RNG.normal(size=(200, 3))
Y = X @ np.array([1.0, -1.0, 0.5]) + 0.3 * RNG.normal(size=200)
OLS = np.linalg.lstsq(X, Y, rcond=None)[0]


def regression(x, y=None):
    w = numpyro.param("w", jnp.zeros(3))
    s = numpyro.param("s", 1.0, constraint=dist.constraints.positive)
    with numpyro.plate("rows", len(x)):
        numpyro.sample("y", dist.Normal(x @ w, s), obs=y)


def ridge(x, y=None):
    w = numpyro.sample("w", dist.Normal(0, 0.2).expand([3]).to_event(1))
    with numpyro.plate("rows", len(x)):
        numpyro.sample("y", dist.Normal(x @ w, 0.3), obs=y)


def test_maximum_likelihood_of_a_regression_is_least_squares():
    found = taut.fit(regression, {"x": X, "y": Y})
    assert isinstance(found, taut.deep.PointEstimate)
    assert found.params["w"] == pytest.approx(OLS, abs=1e-6)
    variance = np.mean((Y - X @ OLS) ** 2)
    assert float(found.params["s"]) == pytest.approx(np.sqrt(variance), abs=1e-6)
    best = -0.5 * len(Y) * (np.log(2 * np.pi * variance) + 1)
    assert found.log_density == pytest.approx(best, abs=1e-2)
    assert found.log_likelihood({"x": X, "y": Y})["y"].sum() == pytest.approx(best, abs=1e-2)


def test_the_same_by_minibatches():
    solver = taut.solvers.Stochastic(epochs=300, learning_rate=0.02)
    found = taut.fit(regression, {"x": X, "y": Y}, solver=solver, batch_size=50)
    assert found.params["w"] == pytest.approx(OLS, abs=0.01)


def test_maximum_a_posteriori_of_a_normal_model_is_ridge_regression():
    found = taut.fit(ridge, {"x": X, "y": Y}, family=taut.families.Point())
    exact = np.linalg.solve(X.T @ X + np.eye(3) * (0.3 / 0.2) ** 2, X.T @ Y)
    assert found.values["w"] == pytest.approx(exact, abs=1e-6)


def test_the_mode_is_that_of_the_models_own_space():
    """Beta(2, 5) with 3 of 10: the mode of Beta(5, 12), (5 - 1) / (17 - 2), without a Jacobian."""

    def coin(n, k):
        p = numpyro.sample("p", dist.Beta(2, 5))
        with numpyro.plate("rows", len(k)):
            numpyro.sample("k", dist.Binomial(n, p), obs=k)

    data = {"n": np.array([4.0, 6.0]), "k": np.array([1.0, 2.0])}
    found = taut.fit(coin, data, family=taut.families.Point())
    assert float(found.values["p"]) == pytest.approx(4 / 15, abs=1e-6)


def test_predictions_are_of_the_fitted_distribution():
    """20,000 draws: the mean is off by 0.02 with probability below 1e-9."""
    found = taut.fit(regression, {"x": X, "y": Y})
    draws = found.predict({"x": X[:4]}, draws=20_000)["y"]
    assert draws.shape == (20_000, 4)
    assert draws.mean(0) == pytest.approx(X[:4] @ OLS, abs=0.02)
    assert draws.std(0) == pytest.approx(np.full(4, float(found.params["s"])), rel=0.05)


def test_a_network_learns_a_class_and_comes_back_with_its_weights():
    net = eqx.nn.MLP(3, 2, 16, 1, key=jax.random.key(0))
    labels = (X[:, 0] * X[:, 1] > 0).astype(int)

    def classes(x, y=None):
        logits = taut.deep.module("net", net)(x)
        with numpyro.plate("rows", len(x)):
            numpyro.sample("y", dist.Categorical(logits=logits), obs=y)

    solver = taut.solvers.Stochastic(epochs=200, learning_rate=0.01)
    found = taut.fit(classes, {"x": X, "y": labels}, solver=solver)
    trained = jax.vmap(found.network("net", net))(X.astype(np.float32))
    assert np.mean(np.argmax(trained, 1) == labels) > 0.95
    with pytest.raises(ArgumentError, match="did you mean 'net'"):
        found.network("nett", net)


def test_a_start_that_is_not_finite_is_said():
    def bad(y):
        s = numpyro.param("s", -1.0)
        with numpyro.plate("rows", len(y)):
            numpyro.factor("f", jnp.log(s) - y**2)

    with pytest.raises(ModelError, match="at the start"):
        taut.fit(bad, {"y": Y})


def test_products_of_latents_leave_the_saddle_at_zero():
    """The best approximation of rank 1, shrunk as the priors say (Srebro et al. 2005, nuclear norm)."""
    rng = np.random.default_rng(5)
    y = np.outer(rng.normal(size=8), rng.normal(size=6)) + 0.05 * rng.normal(size=(8, 6))

    def model(row, column, y):
        left = numpyro.sample("left", dist.Normal(0, 1).expand([8]).to_event(1))
        right = numpyro.sample("right", dist.Normal(0, 1).expand([6]).to_event(1))
        with numpyro.plate("cells", len(y)):
            numpyro.sample("y", dist.Normal(left[row] * right[column], 0.1), obs=y)

    row, column = (x.ravel() for x in np.indices(y.shape))
    data = {"row": row, "column": column, "y": y.ravel()}
    found = taut.fit(model, data, family=taut.families.Point())
    u, s, v = np.linalg.svd(y)
    best = (s[0] - 0.1**2) * np.outer(u[:, 0], v[0])
    product = np.outer(found.values["left"], found.values["right"])
    assert product == pytest.approx(best, abs=1e-3)


def test_bounds_that_the_model_computes_are_read():
    """A uniform latent between two numbers made from an argument; its mode is the larger bound."""

    def model(bounds, y):
        low, high = jnp.min(bounds), jnp.max(bounds) * 2.0
        level = numpyro.sample("level", dist.Uniform(low, high))
        with numpyro.plate("rows", len(y)):
            numpyro.sample("y", dist.Normal(level, 1.0), obs=y)

    data = {"bounds": np.array([1.0, 2.0, 1.5]), "y": np.full(50, 30.0)}
    found = taut.fit(model, data, family=taut.families.Point())
    assert found.values["level"] == pytest.approx(4.0, abs=1e-3)
