"""What is read off a model: latents, supports, plates, dims, parents, notes."""

import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from numpyro import handlers
from numpyro.distributions import constraints
from numpyro_table import CASES, Y

from taut.problem import describe


def latents_of(name):
    problem = describe(CASES[name].model, CASES[name].data)
    return {s.name: s for s in problem.latents}, problem


def test_latents_lie_one_after_the_other():
    latents, problem = latents_of("correlation")
    assert [s.start for s in problem.latents] == [0, 3]
    assert latents["factor"].shape == (3, 3)
    assert latents["factor"].unconstrained_shape == (3,)
    assert problem.dim == 6
    assert problem.labels() == ["factor[0]", "factor[1]", "factor[2]", "sd[0]", "sd[1]", "sd[2]"]


def test_supports_are_named_in_words():
    latents, _ = latents_of("improper")
    assert {n: s.support for n, s in latents.items()} == {
        "a": "real",
        "s": "positive",
        "b": "ordered vector",
        "w": "simplex",
        "p": "unit interval",
    }
    assert latents_of("correlation")[0]["factor"].support == "corr cholesky"


def test_plates_and_dims():
    latents, problem = latents_of("nested plates")
    assert latents["b"].plates == ("row", "column")
    assert latents["b"].dims == ("row", "column")
    assert latents["a"].dims == ("column",)
    assert latents["scale"].dims == ()
    (y,) = problem.observed
    assert (y.shape, y.dims, y.distribution) == ((2, 3), ("row", "column"), "Cauchy")
    latents, _ = latents_of("dirichlet")
    assert latents["v"].dims == ("k", "v_dim_1")
    assert latents["v"].unconstrained_shape == (2, 3)


def test_parents_are_those_of_location_and_scale():
    latents, _ = latents_of("plates")
    assert latents["theta"].parents == ("mu", "tau")
    assert latents["mu"].parents == latents["tau"].parents == ()
    latents, _ = latents_of("nested plates")
    assert latents["b"].parents == ("a", "scale")
    assert latents_of("random walk")[0]["w"].parents == ("s",)
    assert set(latents_of("scan")[0]["x"].parents) >= {"phi", "s"}


def test_centring_is_offered_where_the_prior_has_a_scale():
    latents, problem = latents_of("positive priors")
    movable = {n for n, s in latents.items() if s.centring is not None}
    assert movable >= {"half_normal", "half_cauchy", "weibull", "gamma", "inverse_gamma"}
    assert "beta" not in movable
    assert "pareto" not in movable
    assert set(problem.arrays["centring"]) == movable
    assert all((c == 0).all() for c in problem.arrays["centring"].values())
    assert latents_of("expanded inside")[0]["m"].centring is not None
    assert latents_of("multivariate")[0]["f"].centring is None


def test_deterministic_sites_come_with_their_shapes():
    _, problem = latents_of("deterministic and factor")
    assert problem.program.deterministic == {"mean": (6,)}
    u = np.full(problem.dim, 0.3)
    values = problem.constrain(u)
    assert set(values) == {"b", "s", "mean"}
    want = CASES["deterministic and factor"].data["x"] @ np.asarray(values["b"])
    np.testing.assert_allclose(values["mean"], want, rtol=1e-12)


def test_factors_are_not_observed_sites():
    _, problem = latents_of("deterministic and factor")
    assert [s.name for s in problem.observed] == ["y"]
    np.testing.assert_array_equal(problem.observed_values()["y"], Y)


def test_a_model_without_observed_sites_is_noted():
    _, problem = latents_of("nothing observed")
    assert "no observed site" in problem.program.notes[0]
    assert {s.name for s in problem.latents} == {"m", "y"}
    assert latents_of("plates")[1].program.notes == ()


def test_names_of_models():
    def named(y):
        numpyro.sample("m", dist.Normal())

    class Callable:
        def __call__(self, y):
            named(y)

    assert describe(named, {"y": Y}).name == "named"
    assert describe(Callable(), {"y": Y}).name == "Callable"
    assert describe(CASES["partial"].model, {"y": Y}).name == "with_scale"


# --- subsampled plates ------------------------------------------------------------------------


def subsampled(y):
    m = numpyro.sample("m", dist.Normal(0, 1))
    with numpyro.plate("n", 6, subsample_size=2):
        batch = numpyro.subsample(y, 0)
        z = numpyro.sample("z", dist.Normal(m, 1))
        numpyro.sample("y", dist.Normal(z, 1), obs=batch)


def whole(y):
    m = numpyro.sample("m", dist.Normal(0, 1))
    with numpyro.plate("n", 6):
        z = numpyro.sample("z", dist.Normal(m, 1))
        numpyro.sample("y", dist.Normal(z, 1), obs=y)


def by_index(y):
    m = numpyro.sample("m", dist.Normal(0, 1))
    with numpyro.plate("n", 6, subsample_size=3) as index:
        z = numpyro.sample("z", dist.Normal(m, 1))
        numpyro.sample("y", dist.Normal(z, 1), obs=y[index])


@pytest.mark.parametrize("model", [subsampled, by_index])
def test_subsampled_plates_are_run_whole(model):
    problem, full = describe(model, {"y": Y}), describe(whole, {"y": Y})
    assert [s.shape for s in problem.latents] == [(), (6,)]
    u = np.random.default_rng(0).normal(size=7)
    np.testing.assert_allclose(problem.log_joint(u), full.log_joint(u), rtol=1e-13)
    assert "plate 'n' subsamples" in problem.program.notes[0]
    assert "all of it was used" in problem.program.notes[0]


def test_a_batch_given_to_a_subsampled_plate_is_refused():
    def model(y):
        m = numpyro.sample("m", dist.Normal(0, 1))
        with numpyro.plate("n", 12, subsample_size=6):
            numpyro.sample("y", dist.Normal(m, 1), obs=y)

    with pytest.raises(ValueError, match=r"subsamples plate 'n' \(6 of 12\).* all of the data"):
        describe(model, {"y": Y})


# --- kinds of callable ------------------------------------------------------------------------


def test_any_callable_is_a_model():
    import functools

    import equinox as eqx

    def model(y, scale=2.0):
        m = numpyro.sample("m", dist.Normal(0, scale))
        numpyro.sample("y", dist.Normal(m, 1), obs=y)

    class Holder:
        def method(self, y):
            model(y)

        def __call__(self, y):
            model(y)

    class Module(eqx.Module):
        scale: jnp.ndarray

        def __call__(self, y):
            model(y, self.scale)

    forms = [
        lambda y: model(y),
        functools.partial(model, scale=2.0),
        Holder(),
        Holder().method,
        Module(jnp.array(2.0)),
        handlers.scale(model, scale=1.0),
        lambda **kwargs: model(kwargs["y"]),
        lambda y, *args, **kwargs: model(y),
    ]
    want = describe(model, {"y": Y}).log_joint(np.array([0.3]))
    for form in forms:
        np.testing.assert_allclose(describe(form, {"y": Y}).log_joint(np.array([0.3])), want)
    given = describe(functools.partial(model, scale=2.0), {"y": Y, "scale": 5.0})
    assert abs(float(given.log_joint(np.array([0.3])) - want)) > 0.1


def test_improper_uniform_of_a_bounded_interval():
    def model():
        numpyro.sample("p", dist.ImproperUniform(constraints.interval(1.0, 3.0), (), (2,)))

    (latent,) = describe(model).latents
    assert latent.support == "interval"
    assert latent.shape == (2,)
