"""Plain log densities: the twin of a NumPyro model, and what is said of mistakes."""

import jax
import jax.numpy as jnp
import jaxtyping
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from numpyro.distributions import constraints
from scipy import stats

from taut import Density
from taut._core.errors import ArgumentError, DataError, ModelError
from taut.problem import describe

X = np.array([[1.0, 0.3], [0.2, -1.0], [2.0, 0.5]])
Y = np.array([0.5, -1.0, 2.0])


def twin(x, y):
    b = numpyro.sample("b", dist.ImproperUniform(constraints.real, (), (2,)))
    c = numpyro.sample("c", dist.ImproperUniform(constraints.ordered_vector, (), (2,)))
    s = numpyro.sample("s", dist.ImproperUniform(constraints.positive, (), ()))
    w = numpyro.sample("w", dist.ImproperUniform(constraints.simplex, (), (3,)))
    numpyro.factor("prior", -0.5 * (b @ b + c @ c) - s + jnp.log(w).sum())
    numpyro.sample("y", dist.Normal(x @ (b + c) + w[0], s), obs=y)


def log_likelihood(latents, x, y):
    mean = x @ (latents["b"] + latents["c"]) + latents["w"][0]
    return {"y": jax.scipy.stats.norm.logpdf(y, mean, latents["s"])}


def log_density(latents, x, y):
    b, c, s, w = (latents[n] for n in "bcsw")
    prior = -0.5 * (b @ b + c @ c) - s + jnp.log(w).sum()
    return prior + log_likelihood(latents, x, y)["y"].sum()


def simulate(key, latents, x, y=None):
    mean = x @ (latents["b"] + latents["c"]) + latents["w"][0]
    return {"y": mean + latents["s"] * jax.random.normal(key, mean.shape)}


SHAPES = {"b": (2,), "c": (2,), "s": (), "w": (3,)}
SUPPORTS = {"c": "ordered_vector", "s": "positive", "w": constraints.simplex}


def density(**changes):
    parts = {"log_likelihood": log_likelihood, "simulate": simulate, **changes}
    return Density(log_density, SHAPES, SUPPORTS, **parts)


@pytest.fixture
def _as_users_run():
    """Without the run-time check of annotations, which would refuse wrong kinds first."""
    jaxtyping.config.update("jaxtyping_disable", True)
    yield
    jaxtyping.config.update("jaxtyping_disable", False)


def test_density_equals_its_numpyro_twin():
    ours, theirs = describe(density(), {"x": X, "y": Y}), describe(twin, {"x": X, "y": Y})
    assert [(s.name, s.shape, s.slice) for s in ours.latents] == [
        (s.name, s.shape, s.slice) for s in theirs.latents
    ]
    for u in np.random.default_rng(0).normal(size=(3, ours.dim)):
        np.testing.assert_allclose(ours.log_joint(u), theirs.log_joint(u), rtol=1e-12)
        for name, value in theirs.constrain(u).items():
            np.testing.assert_allclose(ours.constrain(u)[name], value, rtol=1e-12)
        np.testing.assert_allclose(
            ours.log_likelihood(u)["y"], theirs.log_likelihood(u)["y"], rtol=1e-12
        )
        np.testing.assert_allclose(ours.unconstrain(ours.constrain(u)), u, rtol=1e-8)


def test_density_is_what_scipy_says():
    problem = describe(Density(lambda v: -jnp.sum(v["r"]), {"r": (2,)}, {"r": "positive"}))
    u = np.array([0.2, -0.7])
    want = stats.expon.logpdf(np.exp(u)).sum() + u.sum()
    np.testing.assert_allclose(problem.log_joint(u), want, rtol=1e-12)
    assert describe(Density(lambda v: -(v["a"] @ v["a"]), {"a": (3,)})).dim == 3


def test_observed_sites_are_those_of_the_functions():
    (y,) = describe(density(), {"x": X, "y": Y}).observed
    assert (y.name, y.shape) == ("y", (3,))
    plain = Density(log_density, SHAPES, SUPPORTS)
    assert describe(plain, {"x": X, "y": Y}).observed == ()


def test_new_data_of_the_same_shape_share_the_program():
    one = density()
    first = describe(one, {"x": X, "y": Y})
    assert describe(one, {"x": X, "y": Y + 1}).program is first.program
    assert first.rebind({"x": X, "y": Y + 1}).program is first.program
    assert describe(one, {"x": X[:2], "y": Y[:2]}).program is not first.program


def test_each_function_gets_the_data_that_it_names():
    def forward(key, latents, x):
        return {"y": x @ latents["b"]}

    problem = describe(density(simulate=forward), {"x": X, "y": Y})
    predictor = problem.predictor({"x": X[:2]})
    values = {"b": np.ones(2), "c": np.zeros(2), "s": 1.0, "w": np.ones(3) / 3}
    drawn = predictor.simulate(jax.random.key(0), values, predictor.arrays)
    np.testing.assert_allclose(drawn["y"], X[:2] @ np.ones(2), rtol=1e-6)


@pytest.mark.parametrize(
    ("make", "error", "match"),
    [
        (lambda: Density(log_density, {}), ModelError, "shapes is empty: .* nothing to infer"),
        (
            lambda: Density(log_density, SHAPES, {"S": "positive"}),
            ArgumentError,
            "supports names 'S', which is not in shapes, did you mean 's'",
        ),
        (
            lambda: Density(log_density, SHAPES, {"s": "positve"}),
            ArgumentError,
            "support of 's' is 'positve', which is not known, did you mean 'positive'",
        ),
        (
            lambda: describe(Density(lambda v: 0.0, {"w": ()}, {"w": "simplex"})),
            ModelError,
            r"latent 'w' of shape \(\) cannot have support simplex",
        ),
        (
            lambda: describe(Density(lambda v: 0.0, {"w": (0,)})),
            ModelError,
            "the latents have no elements",
        ),
        (
            lambda: describe(Density(lambda v: v["a"], {"a": (2,)})),
            ModelError,
            r"log_density must return a scalar, got shape \(2,\); sum it",
        ),
        (
            lambda: describe(Density(lambda v: v["b"], {"a": ()})),
            ModelError,
            "raised KeyError.*'b'",
        ),
        (
            lambda: describe(Density(log_density, SHAPES, SUPPORTS), {"x": X, "y": np.ones(4)}),
            DataError,
            r"log_density fails on shapes.*'x' \(3, 2\), 'y' \(4,\)",
        ),
        (
            lambda: describe(Density(log_density, SHAPES, SUPPORTS), {"x": X, "z": Y}),
            DataError,
            "data has 'z', which is not an argument of the density's functions",
        ),
        (
            lambda: describe(Density(log_density, SHAPES, SUPPORTS), {"x": X}),
            DataError,
            "log_density needs 'y', which is not in data; data has 'x'",
        ),
        (
            lambda: describe(density(), {"x": X, "y": Y}, {"b": 1.0}),
            ArgumentError,
            "a Density has none: put the values into data",
        ),
        (
            lambda: describe(density(simulate=None), {"x": X, "y": Y}).predictor(None),
            ModelError,
            "no simulate function, so it cannot predict",
        ),
        (
            lambda: describe(density(log_likelihood=None), {"x": X, "y": Y}).log_likelihood(
                np.zeros(7)
            ),
            ModelError,
            "no pointwise log_likelihood",
        ),
    ],
)
def test_mistakes_are_named(make, error, match):
    with pytest.raises(error, match=match):
        make()
