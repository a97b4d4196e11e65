"""Evidence from below, by estimate and from above, where it is known."""

import jax.numpy as jnp
import numpy as np
import pytest
from scipy import integrate, stats

from exact_targets import LOG_2PI, density, gaussian, random_root, solved
from taut._core.progress import Watch
from taut.families import Dense, DenseGaussian
from taut.solvers import FixedDraws
from taut.trust import certificate
from taut.trust.chains import agreement
from taut.trust.evidence import bracket, bridge

SEEDS = 20


def scenario(seed, shift=0.3, widen=1.0, dim=4):
    """A Gaussian target with evidence e^0.7, a q that is off, and independent draws of both."""
    rng = np.random.default_rng(seed)
    target = gaussian(rng.standard_normal(dim), random_root(rng, dim))
    factor = np.linalg.cholesky(target.covariance)
    q = DenseGaussian(target.mean + shift * factor[:, 0], widen * factor)
    weighted = certificate.weigh(target.evaluator, q, seed)
    draws = target.mean + rng.standard_normal((12, 128, dim)) @ factor.T
    log_joint = target.evaluator.value(draws.reshape(-1, dim)).reshape(12, 128)
    moved = certificate.Moved(draws, log_joint, agreement(draws), 0.9, 0.0, 24)
    log_q = q.log_prob(draws.reshape(-1, dim)).reshape(12, 128)
    return target, weighted, moved, log_q


@pytest.mark.parametrize(("shift", "widen"), [(0.3, 1.0), (0.0, 0.8), (0.3, 1.2), (0.5, 1.6)])
@pytest.mark.stat
def test_the_bracket_holds_the_evidence(shift, widen):
    """Each of 20 seeds within 5 standard errors on either side: false alarms below 1e-4 in all."""
    for seed in range(SEEDS):
        target, weighted, moved, log_q = scenario(seed, shift, widen)
        truth, found = target.log_evidence, bracket(weighted, moved, log_q)
        assert found.lower <= truth + 5.0 * found.lower_error + 1e-9
        assert found.upper >= truth - 5.0 * found.upper_error - 1e-9
        assert abs(found.estimate - truth) < 5.0 * found.estimate_error + 1e-9
        assert found.estimate_error < 0.1


def test_both_bounds_are_off_by_the_two_divergences():
    """For a pure shift KL(q, p) = KL(p, q) = shift^2 / 2."""
    target, weighted, moved, log_q = scenario(1, shift=0.5)
    found = bracket(weighted, moved, log_q)
    assert target.log_evidence - found.lower == pytest.approx(0.125, abs=0.01)
    assert found.upper - target.log_evidence == pytest.approx(0.125, abs=6.0 * found.upper_error)
    assert " <= " in str(found)
    assert found.method in str(found)


@pytest.mark.stat
def test_the_error_of_the_bridge_is_calibrated():
    """Standardised errors over 60 seeds have mean 0 and sd 1 within 5 standard errors."""
    scores = []
    for seed in range(60):
        rng = np.random.default_rng(seed)
        z, u = rng.standard_normal(2000), 0.6 + 0.7 * rng.standard_normal((20, 100))
        p, q = stats.norm(0.6, 0.7), stats.norm()
        estimate, error = bridge(3.0 + p.logpdf(z) - q.logpdf(z), 3.0 + p.logpdf(u) - q.logpdf(u))
        scores.append((estimate - 3.0) / error)
    assert abs(np.mean(scores)) < 5.0 / np.sqrt(60)
    assert 0.6 < np.std(scores) < 1.5


def test_the_bridge_where_q_reaches_beyond_the_target():
    """A half-normal target has no density at half of q's draws; the evidence is 0.5."""
    rng = np.random.default_rng(0)
    z, u = rng.standard_normal(4000), np.abs(rng.standard_normal((20, 100)))
    log_ratio = np.where(z > 0, 0.0, -np.inf)
    estimate, error = bridge(log_ratio, np.zeros_like(u))
    assert abs(estimate - np.log(0.5)) < 5.0 * error
    assert error == pytest.approx(1.0 / np.sqrt(4000), rel=0.2)
    log_ratio[z < -1] = np.nan
    assert bridge(log_ratio, np.zeros_like(u))[0] == pytest.approx(estimate)


def test_the_bridge_with_hardly_any_overlap_knows_that_it_is_poor():
    """Eight sds apart: neither set of draws reaches the other's."""
    rng = np.random.default_rng(0)
    z, u = rng.standard_normal(2000), 8.0 + rng.standard_normal((20, 100))
    ratio = lambda x: stats.norm(8, 1).logpdf(x) - stats.norm.logpdf(x)
    estimate, error = bridge(ratio(z), ratio(u))
    assert error > 0.2
    assert abs(estimate) < 6.0 * error


def test_without_chains_weights_of_a_light_tail_give_all_three():
    target, weighted, _, _ = scenario(3, widen=1.2)
    found = bracket(weighted, None, None)
    assert found.method == "importance sampling"
    assert found.lower < target.log_evidence < found.upper + 5.0 * found.upper_error
    assert found.estimate == pytest.approx(target.log_evidence, abs=0.05)


def test_nothing_is_claimed_from_weights_without_a_density():
    log_joint = np.full(200, -np.inf)
    weighted = certificate.weigh_points(np.zeros((200, 1)), log_joint, np.zeros(200))
    found = bracket(weighted, None, None)
    assert found.method == "none"
    assert np.isnan(found.estimate)
    assert found.lower == -np.inf
    assert found.upper == np.inf
    assert weighted.khat == np.inf
    assert weighted.num_outside == 200


def test_chains_that_do_not_agree_are_not_used():
    _, weighted, moved, log_q = scenario(3, shift=0.0, widen=0.6)
    drifting = moved.points + np.linspace(0, 5, 12)[:, None, None]
    bad = certificate.Moved(drifting, moved.log_joint, agreement(drifting), 0.9, 0.0, 24)
    assert bracket(weighted, bad, log_q).method == "importance sampling"
    assert bracket(weighted, moved, log_q).upper < np.inf


# --- two published models ---------------------------------------------------------------------

Y = np.array([28.0, 8.0, -3.0, 7.0, -1.0, 1.0, 18.0, 12.0])
SIGMA = np.array([15.0, 10.0, 16.0, 11.0, 9.0, 11.0, 10.0, 18.0])


def _normal(x, mean, sd):
    return -0.5 * ((x - mean) / sd) ** 2 - jnp.log(sd) - 0.5 * LOG_2PI


def _half_cauchy(x, scale):
    return jnp.log(2.0 / (np.pi * scale)) - jnp.log1p((x / scale) ** 2)


def _eight_schools(latents, y, sigma):
    mu, tau, z = latents["mu"], latents["tau"], latents["z"]
    prior = _normal(mu, 0.0, 5.0) + _half_cauchy(tau, 5.0) + _normal(z, 0.0, 1.0).sum()
    return prior + _normal(y, mu + tau * z, sigma).sum()


def eight_schools_by_quadrature() -> float:
    """Schools integrated out in closed form, mu and tau = exp(t) by Simpson's rule."""
    mu, t = np.linspace(-40, 40, 801), np.linspace(-12, 8, 1601)
    sd = np.sqrt(SIGMA**2 + np.exp(2 * t)[:, None, None])
    log = stats.norm.logpdf(Y, mu[None, :, None], sd).sum(-1) + stats.norm.logpdf(mu, 0, 5)
    log = log + (stats.halfcauchy.logpdf(np.exp(t), scale=5) + t)[:, None]
    return float(np.log(integrate.simpson(integrate.simpson(np.exp(log), x=mu), x=t)))


X7 = np.array([1.17, 2.97, 3.26, 4.69, 5.83, 6.0, 6.41])
Y7 = np.array([78.93, 58.2, 67.47, 37.47, 45.65, 32.92, 29.97])


def _seven_points(latents, x, y):
    a, b, s = latents["a"], latents["b"], latents["s"]
    prior = _normal(a, 0.0, 100.0) + _normal(b, 0.0, 100.0) + _half_cauchy(s, 5.0)
    return prior + _normal(y, a + b * x, s).sum()


def seven_points_by_quadrature() -> float:
    """Intercept and slope integrated out in closed form, s = exp(t) by Simpson's rule."""
    design = np.stack([np.ones(7), X7], axis=1)
    t = np.linspace(-3, 8, 2201)
    covariance = [np.exp(2 * v) * np.eye(7) + 1e4 * design @ design.T for v in t]
    log = [stats.multivariate_normal(np.zeros(7), c).logpdf(Y7) for c in covariance]
    log = np.array(log) + stats.halfcauchy.logpdf(np.exp(t), scale=5) + t
    return float(np.log(integrate.simpson(np.exp(log), x=t)))


def test_quadrature_gives_the_published_evidences():
    assert eight_schools_by_quadrature() == pytest.approx(-31.311, abs=0.002)
    assert seven_points_by_quadrature() == pytest.approx(-32.371, abs=0.002)


MODELS = {
    "eight schools": (
        _eight_schools,
        {"mu": (), "tau": (), "z": (8,)},
        {"tau": "positive"},
        {"y": Y, "sigma": SIGMA},
        -31.311,
    ),
    "seven points": (
        _seven_points,
        {"a": (), "b": (), "s": ()},
        {"s": "positive"},
        {"x": X7, "y": Y7},
        -32.371,
    ),
}


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.stat
def test_the_evidence_of_published_models(name):
    """The whole certificate: within 5 standard errors, and 0.05 nats."""
    fn, shapes, supports, data, truth = MODELS[name]
    evaluator = density(fn, shapes, supports, **data)
    q = solved(FixedDraws(), Dense(), evaluator).q
    weighted = certificate.weigh(evaluator, q, 7)
    chains = certificate.start_chains(evaluator, q, 0)
    moved, _ = certificate.first_move(chains)
    moved = certificate.keep_moving(chains, moved, Watch())
    log_q = q.log_prob(moved.flat).reshape(moved.log_joint.shape)
    found = bracket(weighted, moved, log_q)
    assert found.lower < truth + 0.01
    assert found.upper > truth - 5.0 * found.upper_error
    assert abs(found.estimate - truth) < 5.0 * found.estimate_error + 0.001
    assert found.estimate == pytest.approx(truth, abs=0.05)
    ratio = moved.log_joint - log_q
    estimate, error = bridge(weighted.log_ratio, ratio)
    assert estimate == pytest.approx(truth, abs=5.0 * error + 0.001)
