"""Posteriors of linear models, for which everything is known in closed form.

With noise sd s, prior sd t and design X (a column of ones included), the posterior has precision
L = X'X / s^2 + I / t^2 and mean L^-1 X'y / s^2; the best mean-field Gaussian has that mean and
variances 1 / L_ii; the ELBO falls short of the log evidence by the divergence between the two.
"""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats
from network_tasks import regression

from taut.networks import (
    IVON,
    BayesianNetwork,
    Ensemble,
    Isotropic,
    Laplace,
    LastLayer,
    LowRank,
    MeanField,
    Normal,
)

NOISE, SCALE, ROWS = 0.5, 0.7, 80
X, _, _ = regression(jax.random.key(11), ROWS, 3)
X[:, 1] += 0.8 * X[:, 0]  # dependent columns, so that mean field and posterior differ
Y = X @ [0.4, -0.3, 0.2] + 0.2 + NOISE * np.random.default_rng(1).normal(size=ROWS)
DESIGN = np.column_stack([X, np.ones(ROWS)])


def linear(bias=True):
    return eqx.nn.Linear(3, 1, use_bias=bias, key=jax.random.key(0))


def exact(design=DESIGN, y=Y, noise=NOISE, scale=SCALE):
    precision = design.T @ design / noise**2 + np.eye(design.shape[1]) / scale**2
    return np.linalg.solve(precision, design.T @ y / noise**2), precision


def log_evidence(y=Y, noise=NOISE, scales=SCALE):
    covariance = noise**2 * np.eye(len(y)) + (DESIGN * np.square(scales)) @ DESIGN.T
    return scipy.stats.multivariate_normal(np.zeros(len(y)), covariance).logpdf(y)


def fitted(posterior, x=X, y=Y, epochs=800, noise=NOISE, scale=SCALE, **options):
    network = BayesianNetwork(
        linear(), Normal(noise), Isotropic(scale), posterior, standardise=False
    )
    return network.fit(x, y, epochs=epochs, progress=False, **options)


def flat(parts):
    return np.concatenate([np.ravel(p) for p in parts])


@pytest.fixture(scope="module")
def mean_field():
    return fitted(MeanField())


def test_mean_field_is_the_best_one(mean_field):
    mean, precision = exact()
    sd = 1 / np.sqrt(np.diagonal(precision))
    np.testing.assert_allclose(flat(mean_field.params["mean"]), mean, atol=0.02 * sd.min())
    np.testing.assert_allclose(np.exp(flat(mean_field.params["log_scale"])), sd, rtol=0.01)


def test_its_elbo_is_the_evidence_less_the_divergence(mean_field):
    _, precision = exact()
    gap = 0.5 * (np.sum(np.log(np.diagonal(precision))) - np.linalg.slogdet(precision)[1])
    assert gap > 0.1
    assert mean_field.elbo == pytest.approx(log_evidence() - gap, abs=0.01)
    assert mean_field.elbo_error < 1e-3  # nothing is left to chance in a linear model


def test_minibatches_have_the_same_optimum():
    """Padded, too: 80 rows in batches of 32. Gradients are noisy, so it is the looser."""
    found = fitted(MeanField(), epochs=1500, batch_size=32)
    mean, precision = exact()
    sd = 1 / np.sqrt(np.diagonal(precision))
    np.testing.assert_allclose(flat(found.params["mean"]), mean, atol=0.3 * sd.min())
    np.testing.assert_allclose(np.exp(flat(found.params["log_scale"])), sd, rtol=0.05)


def test_twice_the_data_have_half_the_variance():
    once, twice = (
        fitted(MeanField(), np.tile(X, (n, 1)), np.tile(Y, n), scale=100.0) for n in (1, 2)
    )
    ratio = np.exp(2 * (flat(twice.params["log_scale"]) - flat(once.params["log_scale"])))
    np.testing.assert_allclose(ratio, 0.5, rtol=0.02)


@pytest.mark.parametrize("estimator", ["local", "shared"])
def test_ivon_reaches_the_best_mean_field_gaussian(estimator):
    """With one shared draw a step it is stochastic, and the looser."""
    found = fitted(IVON(learning_rate=0.2, beta2=0.99, estimator=estimator), epochs=3000)
    mean, precision = exact()
    sd = 1 / np.sqrt(np.diagonal(precision))
    noisy = estimator == "shared"
    np.testing.assert_allclose(
        flat(found.params["mean"]), mean, atol=(0.3 if noisy else 0.02) * sd.min()
    )
    np.testing.assert_allclose(flat(found.params["scale"]), sd, rtol=0.15 if noisy else 0.01)


def test_low_rank_comes_closer_than_mean_field(mean_field):
    found = fitted(LowRank(rank=3), epochs=3000)
    assert mean_field.elbo + 0.05 < found.elbo < log_evidence() + 3 * found.elbo_error + 0.01


def test_the_last_layer_of_a_linear_model_is_all_of_it():
    """With everything known the posterior is the exact one, and the ELBO is the evidence."""
    found = fitted(LastLayer(None, learn_prior=False), epochs=50)
    mean, precision = exact()
    root = np.asarray(found.params["last_root"], float)
    root = np.tril(root, -1) + np.diag(np.exp(np.diagonal(root)))
    np.testing.assert_allclose(found.params["last_mean"], mean, rtol=1e-4)
    np.testing.assert_allclose(root @ root.T, np.linalg.inv(precision), rtol=1e-3, atol=1e-6)
    assert found.log_evidence == pytest.approx(log_evidence(), abs=1e-3)
    assert found.elbo == pytest.approx(log_evidence(), abs=1e-2)


def test_the_last_layer_learns_noise_and_prior_by_the_evidence():
    network = BayesianNetwork(
        linear(), Normal(), Isotropic(SCALE), LastLayer(None), standardise=False
    )
    found = network.fit(X, Y, epochs=50, progress=False)
    noise = float(np.exp(found.params["likelihood"]["log_scale"][0]))
    scales = np.array([found.prior_scale[".weight"]] * 3 + [found.prior_scale[".bias"]])
    assert scales[3] == pytest.approx(SCALE)  # there is nothing to learn from one number
    best = log_evidence(noise=noise, scales=scales)
    assert found.log_evidence == pytest.approx(best, abs=1e-3)
    for factor in (0.9, 1.1):
        assert log_evidence(noise=noise * factor, scales=scales) < best
        moved = scales * np.array([factor] * 3 + [1.0])
        assert log_evidence(noise=noise, scales=moved) < best


@pytest.mark.parametrize("structure", ["full", "last"])
def test_laplace_is_exact_for_a_linear_model(structure):
    found = fitted(Laplace(structure, learn_prior=False), epochs=1500)
    mean, precision = exact()
    covariance = np.linalg.inv(precision)
    root = np.asarray(found.params["root"], float)
    np.testing.assert_allclose(flat(found.params["mean"]), mean, atol=1e-3)
    np.testing.assert_allclose(root @ root.T, covariance, rtol=1e-3, atol=1e-6)
    assert found.log_evidence == pytest.approx(log_evidence(), abs=0.01)
    new = np.array([[0.3, -1.0, 2.0], [1.0, 1.0, 1.0]])
    prediction = found.predict(new, draws=20)
    design = np.column_stack([new, np.ones(2)])
    np.testing.assert_allclose(prediction.mean, design @ mean, atol=5e-3)
    expected = np.einsum("ni,ij,nj->n", design, covariance, design)
    np.testing.assert_allclose(prediction.epistemic, expected, rtol=2e-3)
    np.testing.assert_allclose(prediction.aleatoric, NOISE**2, rtol=1e-5)


def test_laplace_diagonal_has_the_precision_s_diagonal():
    found = fitted(Laplace("diagonal", learn_prior=False), epochs=100)
    _, precision = exact()
    expected = 1 / np.sqrt(np.diagonal(precision))
    np.testing.assert_allclose(found.params["root"], expected, rtol=1e-3)


def test_laplace_learns_the_prior_by_the_evidence():
    """The evidence at fixed weights, written down anew, is highest at the factor it found."""
    found = fitted(Laplace("full"), epochs=500)
    weights = flat(found.params["mean"])
    gram, residual = DESIGN.T @ DESIGN / NOISE**2, Y - DESIGN @ weights

    def evidence(scale):
        precision = gram + np.eye(4) / scale**2
        fit = np.sum(residual**2) / NOISE**2 + ROWS * np.log(2 * np.pi * NOISE**2)
        prior = np.sum(weights**2) / scale**2 + 8 * np.log(scale)
        return -0.5 * (fit + prior + np.linalg.slogdet(precision)[1])

    scale = found.prior_scale[".weight"]
    assert found.log_evidence == pytest.approx(evidence(scale), abs=0.01)
    assert evidence(scale) > max(evidence(0.9 * scale), evidence(1.1 * scale))


def test_several_data_sets_at_once():
    """Each lane finds the optimum of its own data."""
    xs, ys = np.stack([X, 2 * X]), np.stack([Y, Y[::-1]])
    network = BayesianNetwork(
        linear(), Normal(NOISE), Isotropic(SCALE), MeanField(), standardise=False
    )
    for found, x, y in zip(
        network.fit_many(xs, ys, epochs=800, progress=False), xs, ys, strict=True
    ):
        mean, precision = exact(np.column_stack([x, np.ones(ROWS)]), y)
        sd = 1 / np.sqrt(np.diagonal(precision))
        np.testing.assert_allclose(flat(found.params["mean"]), mean, atol=0.02 * sd.min())
        np.testing.assert_allclose(np.exp(flat(found.params["log_scale"])), sd, rtol=0.01)


def test_members_of_an_ensemble_of_a_convex_problem_agree():
    found = fitted(Ensemble(MeanField(), members=3), epochs=800)
    mean, precision = exact()
    sd = 1 / np.sqrt(np.diagonal(precision))
    members = jax.tree.leaves(found.params["members"]["mean"])
    for i in range(3):
        np.testing.assert_allclose(flat([m[i] for m in members]), mean, atol=0.02 * sd.min())
    gap = 0.5 * (np.sum(np.log(np.diagonal(precision))) - np.linalg.slogdet(precision)[1])
    assert found.elbo == pytest.approx(log_evidence() - gap, abs=0.02)


def test_ivon_in_an_ensemble():
    found = fitted(Ensemble(IVON(learning_rate=0.2, beta2=0.99), members=2), epochs=1500)
    mean, precision = exact()
    members = found.params["members"]
    for i in range(2):
        np.testing.assert_allclose(flat([m[i] for m in members["mean"]]), mean, atol=5e-3)
        scale = flat([s[i] for s in members["scale"]])
        np.testing.assert_allclose(scale, 1 / np.sqrt(np.diagonal(precision)), rtol=0.02)


def test_laplace_of_a_logistic_model_has_the_hessian():
    labels = (Y > 0.4).astype(int)
    network = BayesianNetwork(
        linear(), "bernoulli", Isotropic(SCALE), Laplace("full", learn_prior=False),
        standardise=False,
    )  # fmt: skip
    found = network.fit(X, labels, epochs=1500, progress=False)

    def loss(w):
        logits = jnp.asarray(DESIGN) @ w
        likelihood = jnp.sum(jnp.asarray(labels) * logits - jnp.logaddexp(0.0, logits))
        return -likelihood + 0.5 * jnp.sum(w**2) / SCALE**2

    mode = jnp.asarray(flat(found.params["mean"]))
    np.testing.assert_allclose(jax.grad(loss)(mode), 0.0, atol=0.02)
    root = np.asarray(found.params["root"], float)
    np.testing.assert_allclose(
        np.linalg.inv(root @ root.T), jax.hessian(loss)(mode), rtol=2e-3, atol=1e-2
    )
