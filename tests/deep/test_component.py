"""Probabilistic PCA with one component: a linear encoder can be the exact posterior."""

import jax
import numpy as np
import pytest
from models import NOISE, component_data, component_evidence, component_model, fit_component

import taut
from taut.training import Training

X, W, B = component_data()
SOLVER = taut.solvers.Stochastic(epochs=150, batch_size=100, learning_rate=0.02)


@pytest.fixture(scope="module")
def posterior():
    return fit_component(X, solver=SOLVER)


def test_training_finds_the_maximum_likelihood(posterior):
    """Tipping and Bishop 1999, equation 7: the first eigenvector of the sample covariance."""
    values, vectors = np.linalg.eigh(np.cov(X.T.astype(float), bias=True))
    best = vectors[:, -1] * np.sqrt(values[-1] - NOISE**2)
    found = posterior.params["w"]
    assert np.abs(found) == pytest.approx(np.abs(best), abs=0.03)
    assert posterior.params["b"] == pytest.approx(X.mean(0), abs=0.03)


def test_the_elbo_reaches_the_evidence(posterior):
    exact = component_evidence(
        X, np.asarray(posterior.params["w"]), np.asarray(posterior.params["b"])
    )
    assert posterior.elbo == pytest.approx(exact.sum(), abs=1.0)
    assert abs(posterior.elbo - exact.sum()) < 5 * posterior.elbo_error + 1.0


@pytest.mark.stat
def test_the_evidence_of_new_rows_is_the_exact_one(posterior):
    """q is nearly exact, so weights are even: an error of 0.02 nats a row is five deviations."""
    new = component_data(100, seed=0)[0][:50] + 0.1
    exact = component_evidence(
        new, np.asarray(posterior.params["w"]), np.asarray(posterior.params["b"])
    )
    found = posterior.evidence({"x": new}, samples=200)
    assert found.estimate_rows == pytest.approx(exact, abs=0.02)
    assert found.lower_rows == pytest.approx(exact, abs=0.2)
    assert found.lower <= found.estimate + 0.5
    assert found.samples == 200


def test_the_encoder_gives_the_exact_posterior(posterior):
    w, b = np.asarray(posterior.params["w"], float), np.asarray(posterior.params["b"], float)
    precision = 1 + w @ w / NOISE**2
    q = posterior.encode({"x": X[:20]})["z"]
    assert q.mean == pytest.approx((X[:20] - b) @ w / NOISE**2 / precision, abs=0.1)
    assert np.sqrt(q.variance) == pytest.approx(np.full(20, precision**-0.5), rel=0.05)


def test_the_report_of_the_latents(posterior):
    usage = posterior.usage.loc["z[0]"]
    q = posterior.encode({"x": X})["z"]
    mean, variance = np.asarray(q.mean, float), np.asarray(q.variance, float)
    assert usage["kl"] == pytest.approx(
        np.mean(variance + mean**2 - 1 - np.log(variance)) / 2, rel=1e-3
    )
    assert usage["activity"] == pytest.approx(mean.var(), rel=1e-3)
    assert bool(usage["active"])
    # The aggregated posterior is the prior, so the information is nearly all of the divergence.
    assert 0.8 * usage["kl"] < posterior.information < min(1.1 * usage["kl"], np.log(len(X)))


def test_new_rows_have_the_moments_of_the_model(posterior):
    """10,000 rows: a covariance is off by 0.1 with probability below 1e-6."""
    new = posterior.sample(10_000)["x"]
    w = np.asarray(posterior.params["w"], float)
    assert np.cov(new.T) == pytest.approx(np.outer(w, w) + NOISE**2 * np.eye(5), abs=0.2)
    assert new.shape == (10_000, 5)


def test_replications_stay_near_their_rows(posterior):
    found = posterior.predict({"x": X[:100]}, draws=50)["x"]
    assert found.shape == (50, 100, 5)
    assert np.corrcoef(found.mean(0).ravel(), X[:100].ravel())[0, 1] > 0.8


def test_refinement_closes_the_gap_of_a_bad_encoder():
    bad = fit_component(X, solver=taut.solvers.Stochastic(epochs=2, batch_size=100))
    found = bad.refine({"x": X[:50]}, steps=400)
    exact = component_evidence(X[:50], np.asarray(bad.params["w"]), np.asarray(bad.params["b"]))
    assert found.before.mean() < exact.mean() - 0.05
    assert found.after == pytest.approx(exact, abs=0.15)


# --- settings -------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [37, 600, 10_000])
def test_every_batch_size_ends_at_the_same_bound(size, posterior):
    """Fewer rows a step are more steps an epoch."""
    epochs = 150 if size < 100 else 1500
    solver = taut.solvers.Stochastic(epochs=epochs, learning_rate=0.02)
    found = fit_component(X, batch_size=size, solver=solver)
    assert found.elbo == pytest.approx(posterior.elbo, abs=3.0)


@pytest.mark.parametrize(
    "bound",
    [
        taut.bounds.ImportanceWeighted(5),
        taut.bounds.Renyi(0.5, 5),
        taut.bounds.ReweightedWakeSleep(5),
        taut.bounds.ELBO(2, "sticking-the-landing"),
        taut.bounds.ELBO(4, "leave-one-out"),
    ],
    ids=["importance", "renyi", "wake", "landing", "score"],
)
def test_other_bounds_end_near_the_same_model(bound, posterior):
    solver = taut.solvers.Stochastic(epochs=150, batch_size=100, learning_rate=0.02, bound=bound)
    found = fit_component(X, solver=solver)
    assert np.abs(found.params["w"]) == pytest.approx(np.abs(posterior.params["w"]), abs=0.1)


def test_free_bits_keep_a_divergence(posterior):
    """A latent without use for the data keeps the divergence that costs nothing."""
    noise = np.random.default_rng(3).normal(size=(400, 5)).astype(np.float32) * NOISE
    options = {"epochs": 60, "batch_size": 100, "learning_rate": 0.02}
    plain = fit_component(noise, solver=taut.solvers.Stochastic(**options))
    free = fit_component(noise, solver=taut.solvers.Stochastic(free_bits=0.3, **options))
    assert plain.usage["kl"].iloc[0] < 0.05
    assert free.usage["kl"].iloc[0] > 0.1


def test_a_collapse_is_said():
    import pandas as pd

    from taut.deep.collapse import warning

    table = pd.DataFrame({"kl": 0.01, "activity": 1e-4, "active": False}, index=list("abcdefghij"))
    assert "0 of 10 latent dimensions" in warning(table)
    table.loc["a", "active"] = True
    assert "1 of 10" in warning(table)
    table["active"] = True
    assert warning(table) == ""


def test_a_warm_up_ends_at_the_bound(posterior):
    solver = taut.solvers.Stochastic(epochs=150, batch_size=100, learning_rate=0.02, kl_warmup=20)
    assert fit_component(X, solver=solver).elbo == pytest.approx(posterior.elbo, abs=2.0)


def test_a_guide_function_is_q(posterior):
    import jax.numpy as jnp
    import numpyro
    import numpyro.distributions as dist

    def guide(x):
        a = numpyro.param("a", jnp.zeros(5))
        c = numpyro.param("c", 0.0)
        s = numpyro.param("s", 1.0, constraint=dist.constraints.positive)
        with numpyro.plate("rows", len(x)):
            numpyro.sample("z", dist.Normal((x @ a) + c, s))

    found = taut.fit(component_model, {"x": X}, family=guide, solver=SOLVER)
    assert found.elbo == pytest.approx(posterior.elbo, abs=2.0)


def test_a_source_gives_the_same_as_arrays(posterior):
    source = taut.data.Batches(lambda: ({"x": X[i : i + 150]} for i in range(0, 600, 150)), 600)
    found = taut.fit(component_model, source, family=_family(), solver=SOLVER)
    assert found.elbo == pytest.approx(posterior.elbo, abs=2.0)


def _family():
    from models import Linear

    return taut.families.Amortised({"z": Linear(5, 1, jax.random.key(1))})


def test_resuming_and_a_mesh_change_nothing(posterior, tmp_path):
    def stop(stage, numbers):
        return numbers.get("step", 0) > 300

    first = fit_component(X, solver=SOLVER, checkpoint=tmp_path, callbacks=[stop])
    assert first.history["step"].iloc[-1] < posterior.history["step"].iloc[-1]
    second = fit_component(X, solver=SOLVER, checkpoint=tmp_path)
    assert np.array_equal(second.params["w"], posterior.params["w"])
    done = fit_component(X, solver=SOLVER, checkpoint=tmp_path)  # nothing is left to do
    assert np.array_equal(done.params["w"], second.params["w"])
    assert done.history["step"].tolist() == second.history["step"].tolist()
    mesh = jax.make_mesh((1,), ("data",))
    third = fit_component(X, solver=SOLVER, mesh=mesh)
    assert third.params["w"] == pytest.approx(np.asarray(posterior.params["w"]), abs=1e-5)


def test_settings_are_those_of_training():
    assert SOLVER.training == Training(epochs=150, learning_rate=0.02)
