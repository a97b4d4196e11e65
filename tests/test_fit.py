"""From a model and data to a posterior: what the way in promises."""

import contextlib
import os
import signal
import subprocess
import sys
import textwrap
import time
import warnings

import jax
import jax.numpy as jnp
import jaxtyping
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest

import taut
from taut._core.errors import ArgumentError, DoubtError
from taut._core.status import Status

SIGMA = np.array([15.0, 10, 16, 11, 9, 11, 10, 18])
EFFECT = np.array([28.0, 8, -3, 7, -1, 1, 18, 12])
DATA = {"sigma": SIGMA, "y": EFFECT}


def regression(x, y=None):
    a = numpyro.sample("a", dist.Normal(0, 100))
    b = numpyro.sample("b", dist.Normal(0, 100))
    s = numpyro.sample("s", dist.HalfCauchy(5))
    numpyro.sample("y", dist.Normal(a + b * x, s), obs=y)


def centred(sigma, y=None):
    mu = numpyro.sample("mu", dist.Normal(0, 5))
    tau = numpyro.sample("tau", dist.HalfCauchy(5))
    with numpyro.plate("school", len(sigma)):
        theta = numpyro.sample("theta", dist.Normal(mu, tau))
        numpyro.sample("y", dist.Normal(theta, sigma), obs=y)


def standardised(sigma, y=None):
    mu = numpyro.sample("mu", dist.Normal(0, 5))
    tau = numpyro.sample("tau", dist.HalfCauchy(5))
    with numpyro.plate("school", len(sigma)):
        z = numpyro.sample("z", dist.Normal(0, 1))
        numpyro.sample("y", dist.Normal(mu + tau * z, sigma), obs=y)


def funnel():
    """Neal's: no Gaussian is near it, and chains do not come down its neck."""

    def log_density(latents):
        v, x = latents["v"], latents["x"]
        return -0.5 * (v / 3) ** 2 - 0.5 * jnp.sum(x**2) * jnp.exp(-v) - 4.5 * v

    return taut.Density(log_density, {"v": (), "x": (9,)})


@contextlib.contextmanager
def quietly():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def close(fit, site, mean, sd):
    """The issue's bar: means within 0.1 sd, sds within 10%."""
    assert abs(fit.mean[site] - mean) < 0.1 * sd
    assert abs(fit.sd[site] / sd - 1) < 0.1


# --- published failures -----------------------------------------------------------------------


def test_the_regression_on_seven_points():
    """Slope and evidence by quadrature; other libraries' defaults give a slope of about +2."""
    x = np.array([1.17, 2.97, 3.26, 4.69, 5.83, 6, 6.41])
    y = np.array([78.93, 58.2, 67.47, 37.47, 45.65, 32.92, 29.97])
    fit = taut.fit(regression, {"x": x, "y": y})
    assert fit.trust.verdict != "bad"
    close(fit, "b", -8.885, 1.782)
    assert abs(fit.evidence.estimate + 32.371) < 0.1
    assert fit.evidence.lower - 3 * fit.evidence.lower_error < -32.371
    assert fit.evidence.upper + 3 * fit.evidence.upper_error > -32.371


@pytest.mark.parametrize("model", [centred, standardised])
def test_eight_schools(model):
    fit = taut.fit(model, DATA)
    assert fit.trust.verdict != "bad"
    close(fit, "tau", 3.598, 3.220)
    close(fit, "mu", 4.397, 3.318)
    assert abs(fit.evidence.estimate + 31.311) < 0.1


# --- the same again ---------------------------------------------------------------------------


def test_same_seed_same_answer():
    first, again, other = (taut.fit(centred, DATA, seed=s) for s in (5, 5, 6))
    for site in first.mean:
        np.testing.assert_array_equal(first.draws(100)[site], again.draws(100)[site])
    assert first.elbo == again.elbo
    assert first.mean["mu"] != other.mean["mu"]


@contextlib.contextmanager
def compilations():
    """Collect an entry for every program that XLA compiles meanwhile, in whatever thread."""
    found = []

    def listen(event, duration, **_):
        if event.endswith("backend_compile_duration"):
            found.append(event)

    jax.monitoring.register_event_duration_secs_listener(listen)
    try:
        yield found
    finally:
        jax.monitoring.clear_event_listeners()


def test_new_data_of_the_same_shape_compile_nothing():
    taut.fit(centred, DATA)
    with compilations() as compiled:
        fit = taut.fit(centred, {"sigma": SIGMA + 1, "y": EFFECT - 2})
    assert compiled == []
    with compilations() as compiled:
        fit.predict({"sigma": SIGMA})
        fit.log_likelihood()
    assert len(compiled) <= 4, "one program to predict, one for the likelihood, and keys"
    again = taut.fit(centred, {"sigma": SIGMA, "y": EFFECT + 1})
    with compilations() as compiled:
        again.predict({"sigma": SIGMA - 1})
        again.log_likelihood(num_draws=700)
    assert compiled == []


def test_the_listener_hears_compilations():
    with compilations() as compiled:
        jax.jit(lambda x: x * 3.25 + 1)(1.0)
    assert compiled


def test_settings_of_jax_are_left_alone():
    before = jax.config.jax_enable_x64, jax.config.jax_default_matmul_precision
    taut.fit(centred, DATA)
    assert (jax.config.jax_enable_x64, jax.config.jax_default_matmul_precision) == before


# --- doubt ------------------------------------------------------------------------------------


def test_on_doubt_warn():
    with pytest.warns(UserWarning, match="the fit of log_density is not to be trusted: .*Advice: "):
        fit = taut.fit(funnel(), on_doubt="warn")
    assert fit.trust.verdict == "bad"
    assert fit.trust.reasons
    assert fit.trust.advice


def test_on_doubt_raise_carries_the_posterior():
    with pytest.raises(DoubtError, match="is not to be trusted") as caught:
        taut.fit(funnel(), on_doubt="raise")
    assert isinstance(caught.value.posterior, taut.Posterior)
    assert caught.value.posterior.trust.verdict == "bad"


@pytest.mark.slow
def test_on_doubt_escalate_climbs_and_says_so():
    with quietly():
        fit = taut.fit(funnel())
    assert fit.trust.verdict != "good"
    assert fit.trust.correction in ("chains", "nuts")
    if fit.trust.verdict == "bad":
        with pytest.warns(UserWarning, match="not to be trusted"):
            taut.fit(funnel())
    else:
        assert abs(fit.mean["v"]) < 0.1 * 3


def test_a_poor_family_is_escalated():
    """Two predictors that are nearly the same: independent coordinates cannot do."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=100)
    columns = np.stack([x, x + 0.1 * rng.normal(size=100)], axis=1)

    def model(x, y=None):
        b = numpyro.sample("b", dist.Normal(0, 10).expand([2]).to_event(1))
        numpyro.sample("y", dist.Normal(x @ b, 1.0), obs=y)

    data = {"x": columns, "y": columns @ [1.0, 2.0] + rng.normal(size=100)}
    with quietly():
        kept = taut.fit(model, data, family=taut.families.Diagonal(), on_doubt="warn")
    assert kept.trust.verdict == "bad"
    climbed = taut.fit(model, data, family=taut.families.Diagonal())
    assert climbed.trust.verdict in ("good", "usable")
    precision = columns.T @ columns + np.eye(2) / 100
    sd = np.sqrt(np.diag(np.linalg.inv(precision)))
    np.testing.assert_allclose(climbed.sd["b"], sd, rtol=0.1)


# --- stopping early ---------------------------------------------------------------------------


@pytest.mark.parametrize("after", [1, 2, 3, 5, 8, 12, 18])
def test_a_callback_ends_the_fit_with_an_honest_verdict(after):
    seen = []

    def callback(stage, numbers):
        seen.append(stage)
        assert isinstance(numbers, dict)
        return len(seen) >= after

    with quietly():
        fit = taut.fit(centred, DATA, callbacks=[callback])
    if len(seen) < after:
        pytest.skip(f"the fit has only {len(seen)} reports")
    assert all(np.isfinite(v).all() for v in fit.draws(100).values())
    assert str(fit)
    if not fit.trust.drift:
        assert fit.trust.verdict != "good"
        assert fit.history.status == Status.INTERRUPTED.value
        assert not fit.history.converged
        assert "no chains were run" in str(fit.trust).replace("\n    ", " ")
    if fit.trust.verdict != "bad":
        assert abs(fit.mean["mu"] - 4.397) < 0.5 * 3.318
        assert abs(fit.mean["tau"] - 3.598) < 0.5 * 3.220


def test_callbacks_see_every_stage():
    seen = []
    taut.fit(centred, DATA, callbacks=[lambda stage, numbers: seen.append(stage)])
    assert seen[0] == "starting"
    assert "certificate" in seen


INTERRUPTED = """
import sys, threading, warnings
import numpy as np, numpyro, numpyro.distributions as dist
import taut

def model(sigma, y=None):
    mu = numpyro.sample("mu", dist.Normal(0, 5))
    tau = numpyro.sample("tau", dist.HalfCauchy(5))
    with numpyro.plate("school", len(sigma)):
        theta = numpyro.sample("theta", dist.Normal(mu, tau))
        numpyro.sample("y", dist.Normal(theta, sigma), obs=y)

y = np.array([28.0, 8, -3, 7, -1, 1, 18, 12])
sigma = np.array([15.0, 10, 16, 11, 9, 11, 10, 18])

def say(stage, numbers):
    if stage == "starting":
        print("go", flush=True)

warnings.simplefilter("ignore")
fit = taut.fit(model, {"sigma": sigma, "y": y}, callbacks=[say])
print(fit.trust.verdict, len(fit.trust.drift), fit.history.status, flush=True)
"""


@pytest.mark.slow
@pytest.mark.parametrize("delay", [0.0, 0.7, 1.9, 3.1])
def test_ctrl_c_returns_the_best_so_far(delay):
    """The moment is arbitrary; what comes back is a posterior with an honest verdict."""
    process = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(INTERRUPTED)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ},
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "go\n"
    time.sleep(delay)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 0, err
    verdict, drifts, status = out.strip().split(" ", 2)
    if status == Status.INTERRUPTED.value and drifts == "0":
        assert verdict != "good"
    else:
        assert verdict in ("good", "usable", "bad")


def test_the_keyboard_is_given_back():
    before = signal.getsignal(signal.SIGINT)
    taut.fit(centred, DATA)
    assert signal.getsignal(signal.SIGINT) is before


def walk(y=None, count=60):
    """A random walk as long as the series: the default fit takes many seconds."""
    q = numpyro.sample("q", dist.HalfNormal(1))
    r = numpyro.sample("r", dist.HalfNormal(1))
    z = numpyro.sample("z", dist.GaussianRandomWalk(q, num_steps=count))
    numpyro.sample("y", dist.Normal(z, r), obs=y)


def test_the_budget_is_kept():
    rng = np.random.default_rng(1)
    y = np.cumsum(rng.normal(0, 0.3, 60)) + rng.normal(0, 0.5, 60)
    start = time.perf_counter()
    with quietly():
        fit = taut.fit(walk, {"y": y}, budget=1.0)
    seconds = time.perf_counter() - start
    assert seconds < 15  # a second, and what was being compiled when it was over
    assert all(np.isfinite(v).all() for v in fit.draws(10).values())
    if not fit.history.converged:
        assert fit.trust.verdict != "good"
        assert "budget" in fit.history.status
    assert fit.history.seconds <= seconds


def test_a_large_budget_changes_nothing():
    free, limited = taut.fit(centred, DATA), taut.fit(centred, DATA, budget=1000.0)
    np.testing.assert_array_equal(free.draws(10)["theta"], limited.draws(10)["theta"])


# --- what the user sees while it runs ---------------------------------------------------------


def test_progress_is_silent_unless_asked_for(capsys):
    taut.fit(centred, DATA, progress=False)
    taut.fit(centred, DATA)  # no terminal here
    assert capsys.readouterr() == ("", "")
    taut.fit(centred, DATA, progress=True)
    shown = capsys.readouterr().err
    assert "starting" in shown
    assert "certificate" in shown
    assert shown.endswith("\r"), "the line is cleared"


# --- arguments --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"seed": -1}, "seed must be a whole number of at least 0, got -1"),
        ({"budget": 0.0}, "budget must be a positive number of seconds or None, got 0.0"),
        ({"budget": float("nan")}, "budget must be a positive number of seconds or None, got nan"),
    ],
)
def test_arguments_that_break_their_rule(settings, message):
    with pytest.raises(ArgumentError, match=message):
        taut.fit(centred, DATA, **settings)


@pytest.mark.parametrize(
    "settings",
    [
        {"seed": 1.5},
        {"on_doubt": "panic"},
        {"family": taut.families.Dense},
        {"solver": "newton"},
    ],
)
def test_arguments_of_another_kind(settings):
    """The annotations are checked while tests run, and catch it before our own words do."""
    (name,) = settings
    with pytest.raises((ArgumentError, jaxtyping.TypeCheckError), match=name):
        taut.fit(centred, DATA, **settings)
