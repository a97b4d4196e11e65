"""The references themselves: updates climb and are optimal, ELBOs and evidences are right.

Monte Carlo tests: 4 standard errors, fixed keys; false alarm under 1e-4 each.
"""

import jax
import numpy as np
import pytest
from numpyro.infer.util import log_density
from scipy import stats

from taut._core.precision import double_precision
from textbook import hmm
from textbook.ascent import draws_of, log_q
from textbook.books import BOOKS, TRUTHS
from textbook.truths import BETA, DIRICHLET, GAMMA

each_book = pytest.mark.parametrize("book", BOOKS, ids=lambda book: book.name)
each_truth = pytest.mark.parametrize("truth", TRUTHS, ids=lambda truth: truth.name)
TRUTH = {truth.name: truth for truth in TRUTHS}
DRAWS = 4000


def log_joint(model, data, draws) -> np.ndarray:
    """log p(x, z) of NumPyro at each draw, (n,), in nats."""
    with double_precision():
        evaluate = jax.jit(jax.vmap(lambda latents: log_density(model, (), dict(data), latents)[0]))
        return np.asarray(evaluate({name: jax.numpy.asarray(x) for name, x in draws.items()}))


@each_book
def test_elbo_rises_until_it_stands(book):
    history = book.reference(iterations=300).history
    assert np.all(np.diff(history) > -1e-9)
    assert history[-1] - history[-2] < 1e-6
    assert history[-1] > history[1]


@each_book
@pytest.mark.parametrize("sweeps", [0, 1, 200])
def test_elbo_is_the_mean_of_numpyros_log_joint_less_log_q(book, sweeps):
    data, rng = book.make_data(), np.random.default_rng((50, sweeps))
    reference = book.reference(data, iterations=sweeps)
    draws = draws_of(reference.factors, rng, DRAWS)
    values = log_joint(book.model, data, draws) - log_q(reference.factors, draws)
    error = values.std(ddof=1) / np.sqrt(DRAWS)
    assert abs(values.mean() - reference.elbo) < 4.0 * error
    assert error < 0.5 or sweeps == 0


@each_book
def test_each_update_is_the_best_factor(book):
    """Any small change of an updated factor lowers the ELBO, from an unfinished start."""
    data, rng = book.make_data(), np.random.default_rng(51)
    q = dict(book.reference(data, iterations=1).factors)
    for names, update in book.updates.items():
        q[names] = update(data, q)
        best = book.elbo(data, q)
        for _ in range(20):
            assert book.elbo(data, {**q, names: q[names].nudged(rng, 1e-3)}) < best


@each_book
def test_a_start_that_is_given_is_used(book):
    data = book.make_data()
    first = book.reference(data, iterations=2)
    again = book.reference(data, iterations=3, start=first.factors)
    assert np.array_equal(again.history, book.reference(data, iterations=5).history[2:])


def test_the_scan_is_the_same_model():
    book = hmm.BOOKS[0]
    data = book.make_data()
    draws = draws_of(book.reference(data, iterations=5).factors, np.random.default_rng(52), 50)
    labels = np.stack([draws[name] for name in hmm.LABELS], axis=1)
    scanned = {"rows": draws["rows"], "mu": draws["mu"], "z": labels}
    of_loop = log_joint(hmm.gaussian_model, data, draws)
    assert np.allclose(log_joint(hmm.scan_model, data, scanned), of_loop, rtol=0, atol=1e-9)


@each_truth
def test_joint_over_posterior_is_the_evidence(truth):
    """log p(x, z) - log p(z | x) is the log evidence at every z."""
    draws = draws_of(truth.posterior, np.random.default_rng(53), 200)
    gap = log_joint(truth.model, truth.data, draws) - log_q(truth.posterior, draws)
    assert np.allclose(gap, truth.log_evidence, rtol=0, atol=1e-8)


ONE_LATENT = {
    "beta-binomial": ("p", 0.0, 1.0),
    "beta-Bernoulli": ("p", 0.0, 1.0),
    "gamma-Poisson": ("rate", 0.0, np.inf),
    "gamma-exponential": ("rate", 0.0, np.inf),
    "normal-normal": ("mu", -np.inf, np.inf),
    "inverse-gamma variance": ("v", 0.0, np.inf),
}


@pytest.mark.parametrize("name", ONE_LATENT)
def test_evidence_is_the_integral_of_the_joint(name):
    """Gauss-Legendre on 400 nodes over where the posterior has its mass."""
    truth, (latent, low, high) = TRUTH[name], ONE_LATENT[name]
    points = truth.posterior[latent].draw(np.random.default_rng(54), 20_000)
    centre, sd = points.mean(), points.std()
    low, high = max(low, centre - 12.0 * sd), min(high, centre + 30.0 * sd)
    nodes, weights = np.polynomial.legendre.leggauss(400)
    values = low + 0.5 * (high - low) * (nodes + 1.0)
    joint = log_joint(truth.model, truth.data, {latent: values})
    integral = 0.5 * (high - low) * np.sum(weights * np.exp(joint - truth.log_evidence))
    assert abs(np.log(integral)) < 1e-6


def test_evidence_is_scipys_marginal():
    """Counts: where SciPy has the marginal, after the first row that of the updated prior."""
    truth = TRUTH["beta-binomial"]
    a, b, total = BETA.a, BETA.b, 0.0
    for n, y in zip(truth.data["total"], truth.data["y"], strict=True):
        total += stats.betabinom(n, a, b).logpmf(y)
        a, b = a + y, b + n - y
    assert np.isclose(total, truth.log_evidence, rtol=0, atol=1e-10)
    truth = TRUTH["gamma-Poisson"]
    a, b, total = GAMMA.a, GAMMA.b, 0.0
    for y in truth.data["y"]:
        total += stats.nbinom(a, b / (b + 1.0)).logpmf(y)
        a, b = a + y, b + 1.0
    assert np.isclose(total, truth.log_evidence, rtol=0, atol=1e-10)
    truth = TRUTH["Dirichlet-multinomial"]
    marginal = stats.dirichlet_multinomial(DIRICHLET.a, 14).logpmf(truth.data["y"])
    assert np.isclose(marginal, truth.log_evidence, rtol=0, atol=1e-10)
