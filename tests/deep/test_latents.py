"""Labels that are partly known, discrete latents, random weights: against exact answers."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from models import Linear, component_data, component_model

import taut
from taut.data.feeds import Batch, InMemory
from taut.deep.reading import read_rows
from taut.deep.training import _bound, _guide

RNG = np.random.default_rng(1)


class Table(eqx.Module):
    """Logits of two labels from the sum of a row."""

    weight: jax.Array

    def __call__(self, x):
        return jnp.stack([0.0 * jnp.sum(x), self.weight * jnp.sum(x)])


def two_groups(x):
    mu = numpyro.param("mu", jnp.array([-1.0, 1.0]))
    with numpyro.plate("rows", len(x)):
        k = numpyro.sample("k", dist.Categorical(probs=jnp.array([0.3, 0.7])))
        numpyro.sample("x", dist.Normal(mu[k][:, None], 1.0).expand([len(x), 2]).to_event(1), obs=x)


def group_evidence(x, mu):
    terms = [
        np.log(p) + np.sum(-0.5 * (x - m) ** 2 - 0.5 * np.log(2 * np.pi), 1)
        for p, m in zip((0.3, 0.7), mu, strict=True)
    ]
    return np.logaddexp(*terms)


K = RNG.choice(2, 400, p=[0.3, 0.7])
GROUPS = (np.array([-1.0, 1.5])[K][:, None] + RNG.normal(size=(400, 2))).astype(np.float32)


def test_enumerated_labels_reach_the_evidence():
    """The posterior's log odds are linear in the sum of a row, which the encoder can be."""

    class Odds(eqx.Module):
        a: jax.Array
        b: jax.Array

        def __call__(self, x):
            return jnp.stack([jnp.zeros(()), self.a * jnp.sum(x) + self.b])

    family = taut.families.Amortised({"k": Odds(jnp.zeros(()), jnp.zeros(()))})
    solver = taut.solvers.Stochastic(epochs=200, learning_rate=0.03, batch_size=50)
    found = taut.fit(two_groups, {"x": GROUPS}, family=family, solver=solver)
    exact = group_evidence(GROUPS, np.asarray(found.params["mu"], float)).sum()
    assert found.elbo == pytest.approx(exact, abs=2.0)
    assert found.elbo <= exact + 1e-2
    probs = np.asarray(found.encode({"x": GROUPS})["k"].probs)
    assert np.mean(np.argmax(probs, 1) == K) > 0.9


def partly(x, y, known):
    with numpyro.plate("rows", len(x)):
        k = numpyro.sample(
            "k", dist.Categorical(probs=jnp.array([0.3, 0.7])), obs=y, obs_mask=known
        )
        z = numpyro.sample("z", dist.Normal(0.0, 1.0))
        numpyro.sample(
            "x", dist.Normal(z[:, None] + k[:, None], 1.0).expand([len(x), 2]).to_event(1), obs=x
        )


def _estimates(model, data, encoders, inputs, count=4000):
    """Row by row mean and error of the ELBO's estimates at fixed parameters."""
    rows, num = read_rows(model, "model", data)
    family = taut.families.Amortised(encoders, inputs)
    guide = _guide(rows, family, data, num)

    feed = InMemory({n: data[n] for n in rows.row_names}, num)
    params = {"model": rows.params, "guide": guide.initial}
    bound = _bound(rows, guide, family, taut.solvers.Stochastic(), num, feed, params)
    batch = Batch({n: jnp.asarray(data[n]) for n in rows.row_names}, jnp.ones(num), jnp.arange(num))

    @jax.jit
    @jax.vmap
    def one(key):
        return bound.estimate(params, batch, key, taut.bounds.ELBO()).pointwise

    found = np.asarray(one(jax.random.split(jax.random.key(0), count)), float)
    return found.mean(0), found.std(0) / np.sqrt(count)


@pytest.mark.stat
def test_known_labels_count_as_known_and_missing_ones_are_summed_over():
    """Kingma et al. 2014, equations 6 and 7; 5 standard errors, 8 rows: false alarm below 1e-5."""
    x = RNG.normal(size=(8, 2)).astype(np.float32)
    y, known = np.array([0, 1, 0, 1, 0, 0, 0, 0]), np.arange(8) < 4
    encoders = {"k": Table(jnp.asarray(0.4)), "z": Joint(jnp.asarray([0.2, -0.3]))}
    inputs = {"k": "x", "z": ("x", "k")}
    found, error = _estimates(partly, {"x": x, "y": y, "known": known}, encoders, inputs)
    exact = np.array(
        [_labelled(a, b) if o else _unlabelled(a) for a, b, o in zip(x, y, known, strict=True)]
    )
    assert np.all(np.abs(found - exact) < 5 * error + 1e-5)


class Joint(eqx.Module):
    """A Gaussian of z whose mean depends on the row and its label."""

    weight: jax.Array

    def __call__(self, x, k):
        return jnp.stack([self.weight[0] * jnp.sum(x) + self.weight[1] * k, -0.5])


def _labelled(x, k):
    """E_q(z|x,k)[log p(x|z,k) + log p(k) + log p(z) - log q(z|x,k)] for Gaussians."""
    m, s = 0.2 * x.sum() - 0.3 * k, np.exp(8 * np.tanh(-0.5 / 8))
    likelihood = np.sum(-0.5 * ((x - m - k) ** 2 + s**2) - 0.5 * np.log(2 * np.pi))
    kl = 0.5 * (s**2 + m**2 - 1 - np.log(s**2))
    return likelihood + np.log((0.3, 0.7)[k]) - kl


def _unlabelled(x):
    logits = np.array([0.0, 0.4 * x.sum()])
    log_q = logits - np.logaddexp(*logits)
    return sum(np.exp(log_q[k]) * (_labelled(x, k) - log_q[k]) for k in (0, 1))


def test_random_weights_reach_the_mean_field_optimum():
    """Linear regression: means of the exact posterior, precisions of its diagonal."""
    x = RNG.normal(size=(300, 3)).astype(np.float32)
    y = (x @ np.array([0.5, -1.0, 0.2]) + 0.5 * RNG.normal(size=300)).astype(np.float32)
    net = eqx.nn.Linear(3, 1, use_bias=False, key=jax.random.key(0))

    def model(x, y):
        f = taut.deep.random_module("net", net, dist.Normal(0, 1))
        with numpyro.plate("rows", len(x)):
            numpyro.sample("y", dist.Normal(f(x)[:, 0], 0.5), obs=y)

    solver = taut.solvers.Stochastic(epochs=4000, learning_rate=5e-3)
    found = taut.fit(model, {"x": x, "y": y}, solver=solver)
    precision = x.T @ x / 0.25 + np.eye(3)
    exact = np.linalg.solve(precision, x.T @ y / 0.25)
    sd = np.diag(precision) ** -0.5
    mean, spread = found.mean["net/weight"][0], found.sd["net/weight"][0]
    assert mean == pytest.approx(exact, abs=0.3 * sd.max())
    assert spread == pytest.approx(sd, rel=0.1)
    assert found.summary().index.tolist()[0] == "net/weight[0, 0]"


def test_an_encoder_beside_what_all_rows_share():
    """Local means under one shared mean: ELBO below the exact evidence, shared mean near it."""
    x = (2.0 + RNG.normal(size=(200, 1)) * np.sqrt(2)).astype(np.float32)

    def model(x):
        m = numpyro.sample("m", dist.Normal(0.0, 10.0))
        with numpyro.plate("rows", len(x)):
            z = numpyro.sample("z", dist.Normal(m, 1.0))
            numpyro.sample("x", dist.Normal(z[:, None], 1.0).to_event(1), obs=x)

    family = taut.families.Amortised({"z": Linear(1, 1, jax.random.key(0))})
    solver = taut.solvers.Stochastic(epochs=400, learning_rate=0.01, batch_size=50)
    found = taut.fit(model, {"x": x}, family=family, solver=solver)
    total = 2.0 * np.eye(200) + 100.0
    residual = x[:, 0].astype(float)
    exact = -0.5 * (
        residual @ np.linalg.solve(total, residual) + np.linalg.slogdet(2 * np.pi * total)[1]
    )
    assert found.elbo <= exact + 3 * found.elbo_error
    assert found.mean["m"] == pytest.approx(x.mean(), abs=0.1)
    with pytest.raises(ValueError, match="nothing is shared"):
        found.evidence({"x": x[:5]})


def test_validation_is_on_the_scale_of_all_rows():
    """The rows themselves, twice, as validation: the same bound, with what is shared counted once."""
    rng = np.random.default_rng(4)
    y = np.float32(1.5 + rng.normal(size=200))

    def model(y):
        m = numpyro.sample("m", dist.Normal(0, 10))
        with numpyro.plate("rows", len(y)):
            numpyro.sample("y", dist.Normal(m, 1), obs=y)

    solver = taut.solvers.Stochastic(epochs=400, learning_rate=0.05)
    posterior = taut.fit(
        model, {"y": y}, solver=solver, batch_size=100, validation={"y": np.tile(y, 2)}
    )
    seen = posterior.history["validation"].to_numpy()[-1]
    # Four draws scatter by about a nat; a sum over twice the rows would be off by 280.
    assert abs(seen - posterior.elbo) < 5
    assert abs(posterior.elbo - normal_mean_evidence(y)) < 0.2


def normal_mean_evidence(y):
    """Log evidence of N(m, 1) data with m ~ N(0, 10)."""
    cov = 100.0 + np.eye(len(y))
    solved = np.linalg.solve(cov, np.asarray(y, float))
    return -0.5 * (y @ solved + np.linalg.slogdet(2 * np.pi * cov)[1])


def test_a_second_look_at_rows_is_not_compiled_again():
    """The model runs in Python only while it is compiled."""
    runs = 0

    def counted(x):
        nonlocal runs
        runs += 1
        component_model(x)

    x, _, _ = component_data(80)
    encoder = Linear(x.shape[1], 1, jax.random.key(1))
    family = taut.families.Amortised({"z": encoder})
    posterior = taut.fit(counted, {"x": x}, family=family, solver=taut.solvers.Stochastic(epochs=2))

    def looks():
        posterior.evidence({"x": x[:40]}, samples=8)
        posterior.predict({"x": x[:40]}, draws=3)
        posterior.encode({"x": x[:40]})

    looks()
    before = runs
    looks()
    assert runs == before
