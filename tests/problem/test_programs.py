"""When a model is read again, and when not; precision; what is left alone."""

import contextlib
import functools
import threading

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from numpyro import handlers
from scipy import stats

from taut.problem import describe
from taut.problem.evaluator import Evaluator
from taut.problem.identity import fingerprint

SCALE = 1.0
WEIGHTS = np.ones(3)
Y = np.array([0.5, -1.0, 2.0])


def model(y):
    m = numpyro.sample("m", dist.Normal(0, 1))
    numpyro.sample("y", dist.Normal(m, 1), obs=y)


def by_global(y):
    m = numpyro.sample("m", dist.Normal(0, 1))
    numpyro.sample("y", dist.Normal(m * _weights(), SCALE), obs=y)


def _weights():
    return WEIGHTS


def likelihood(problem, u=0.3):
    return float(problem.log_joint_sites(np.array([u]))["y"])


@contextlib.contextmanager
def compilations():
    """Count the programs that XLA compiles."""
    found = []

    def listen(event, seconds, **kwargs):
        if event == "/jax/core/compile/backend_compile_duration":
            found.append(event)

    jax.monitoring.register_event_duration_secs_listener(listen)
    try:
        yield found
    finally:
        jax.monitoring.unregister_event_duration_listener(listen)


def test_new_data_of_the_same_shape_compile_nothing():
    us = np.random.default_rng(0).normal(size=(5, 1))
    first = describe(model, {"y": Y})
    Evaluator(first).value_and_grad(us)
    with compilations() as compiled:
        for shift in (1.0, 2.0):
            second = describe(model, {"y": Y + shift})
            values, _ = Evaluator(second).value_and_grad(us)
            want = stats.norm.logpdf(us[:, 0]) + stats.norm.logpdf(Y + shift, us, 1).sum(axis=1)
            np.testing.assert_allclose(values, want, rtol=1e-12)
    assert second.program is first.program
    assert compiled == []
    with compilations() as compiled:  # the counter counts
        Evaluator(describe(model, {"y": np.append(Y, 1.0)})).value_and_grad(us)
    assert compiled


def test_other_shapes_and_types_are_other_programs():
    first = describe(model, {"y": Y}).program
    assert describe(model, {"y": Y[:2]}).program is not first
    assert describe(model, {"y": Y.astype(np.float32)}).program is not first


def test_a_new_function_of_the_same_content_is_the_same_program():
    """Lambdas, partial objects and methods are made anew by every call."""

    def make():
        return lambda y: model(y)

    assert describe(make(), {"y": Y}).program is describe(make(), {"y": Y}).program
    one, other = functools.partial(model, y=Y), functools.partial(model, y=Y)
    assert describe(one).program is describe(other).program


# --- nothing stale ----------------------------------------------------------------------------


def test_globals_that_changed_are_seen(monkeypatch):
    before = likelihood(describe(by_global, {"y": Y}))
    monkeypatch.setattr("test_programs.SCALE", 2.0)
    want = stats.norm.logpdf(Y, 0.3, 2.0).sum()
    assert likelihood(describe(by_global, {"y": Y})) == pytest.approx(want, rel=1e-12)
    assert before == pytest.approx(stats.norm.logpdf(Y, 0.3, 1.0).sum(), rel=1e-12)


def test_arrays_changed_in_place_are_seen(monkeypatch):
    monkeypatch.setattr("test_programs.WEIGHTS", np.ones(3))
    describe(by_global, {"y": Y})
    WEIGHTS[:] = [1.0, 2.0, 3.0]
    want = stats.norm.logpdf(Y, 0.3 * np.array([1.0, 2.0, 3.0]), SCALE).sum()
    assert likelihood(describe(by_global, {"y": Y})) == pytest.approx(want, rel=1e-12)


def test_closures_attributes_and_defaults_that_changed_are_seen():
    class Holder:
        scale = 1.0

        def __init__(self):
            self.loc = 0.0

        def method(self, y):
            m = numpyro.sample("m", dist.Normal(0, 1))
            numpyro.sample("y", dist.Normal(m + self.loc, 1), obs=y)

    holder = Holder()
    describe(holder.method, {"y": Y})
    holder.loc = 1.0
    want = stats.norm.logpdf(Y, 1.3, 1.0).sum()
    assert likelihood(describe(holder.method, {"y": Y})) == pytest.approx(want, rel=1e-12)

    def closing(y):
        m = numpyro.sample("m", dist.Normal(0, 1))
        numpyro.sample("y", dist.Normal(m, scale), obs=y)

    scale = 1.0
    describe(closing, {"y": Y})
    scale = 3.0
    want = stats.norm.logpdf(Y, 0.3, 3.0).sum()
    assert likelihood(describe(closing, {"y": Y})) == pytest.approx(want, rel=1e-12)


def test_fingerprints_tell_content_apart():
    same = [
        (np.ones(3), np.ones(3)),
        ({"a": [1, 2]}, {"a": [1, 2]}),
        (handlers.condition(model, {"m": 1.0}), handlers.condition(model, {"m": 1.0})),
        (dist.Normal(0.0, 1.0), dist.Normal(0.0, 1.0)),
    ]
    different = [
        (np.ones(3), np.ones(3, np.float32)),
        (np.ones(3), np.ones((3, 1))),
        ([1, 2], [2, 1]),
        (1, 1.0),
        (True, 1),
        ("1", 1),
        (model, by_global),
        (handlers.condition(model, {"m": 1.0}), handlers.condition(model, {"m": 2.0})),
        (dist.Normal(0.0, 1.0), dist.Normal(0.0, 2.0)),
        (threading.Lock(), threading.Lock()),
    ]
    for a, b in same:
        assert fingerprint(a) == fingerprint(b)
    for a, b in different:
        assert fingerprint(a) != fingerprint(b)


def test_fingerprints_survive_cycles_and_objects_that_cannot_be_pickled():
    loop = [1]
    loop.append(loop)
    assert fingerprint(loop) == fingerprint(loop)
    lock = threading.Lock()
    assert fingerprint(lock) == fingerprint(lock)


# --- static arrays ----------------------------------------------------------------------------


def grouped(g, y):
    with numpyro.plate("group", int(g.max()) + 1):
        m = numpyro.sample("m", dist.Normal(0, 1))
    numpyro.sample("y", dist.Normal(m[g], 1), obs=y)


def test_arrays_whose_values_set_shapes_become_static_by_themselves():
    g = np.array([0, 1, 1])
    problem = describe(grouped, {"g": g, "y": Y})
    assert problem.program.notes == (
        "data 'g' is static: the model needs its values to set shapes",
    )
    assert list(problem.arrays["data"]) == ["y"]
    assert problem.dim == 2
    assert describe(grouped, {"g": np.array([0, 1, 2]), "y": Y}).dim == 3  # values are structure
    again = describe(grouped, {"g": g.copy(), "y": Y + 1})
    assert again.program is problem.program
    u = np.array([0.1, -0.4])
    want = stats.norm.logpdf(u).sum() + stats.norm.logpdf(Y + 1, u[g], 1).sum()
    np.testing.assert_allclose(again.log_joint(u), want, rtol=1e-12)


def test_python_numbers_may_set_shapes_and_branches():
    def sized(k, kind):
        with numpyro.plate("k", k):
            prior = dist.Normal() if kind == "normal" else dist.Cauchy()
            numpyro.sample("m", prior)

    assert describe(sized, {"k": 3, "kind": "normal"}).dim == 3
    (latent,) = describe(sized, {"k": np.int64(4), "kind": "other"}).latents
    assert (latent.shape, latent.distribution) == ((4,), "Cauchy")


# --- precision --------------------------------------------------------------------------------


def test_integers_beyond_32_bits_come_through_exactly():
    big = np.array([2**40 + 1, 2**53 - 1, -(2**40)])

    def counts(n):
        m = numpyro.sample("m", dist.Normal(0, 1))
        numpyro.deterministic("n", n)
        numpyro.factor("f", -m * 0)

    assert (
        np.asarray(describe(counts, {"n": big}).constrain(np.zeros(1))["n"]).tolist()
        == big.tolist()
    )


def test_float32_data_stay_float32_and_the_density_is_float64():
    def shows(y):
        m = numpyro.sample("m", dist.Normal(0, 1))
        numpyro.deterministic("kind", jnp.zeros(3, y.dtype))
        numpyro.sample("y", dist.Normal(m, 1), obs=y)

    problem = describe(shows, {"y": Y.astype(np.float32)})
    assert problem.arrays["data"]["y"].dtype == np.float32
    assert problem.constrain(np.zeros(1))["kind"].dtype == np.float32
    assert problem.log_joint(np.zeros(1)).dtype == np.float64


def test_precision_is_double_whoever_asks_first_and_the_global_setting_stays():
    assert not jax.config.jax_enable_x64
    problem = describe(lambda y: model(y * 1.0), {"y": Y + 1e-9})
    value = problem.log_joint(np.array([0.123456789012]))
    want = stats.norm.logpdf(0.123456789012) + stats.norm.logpdf(Y + 1e-9, 0.123456789012).sum()
    assert float(value) == pytest.approx(want, rel=1e-14)
    gradient = jax.grad(problem.log_joint)(jnp.array([0.5]))  # float32 in, float32 out
    assert float(gradient[0]) == pytest.approx(-0.5 + (Y - 0.5).sum(), rel=1e-6)
    assert not jax.config.jax_enable_x64
    assert jnp.ones(1).dtype == np.float32
