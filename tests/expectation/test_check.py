"""A wrong rule cannot pass: mutated rules are caught by the self-check, and named."""

import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest

import taut
from taut._core.precision import double_precision
from taut.expectation import algebra, moments
from taut.expectation.check import mistaken
from taut.expectation.gaussian import Gaussian
from taut.expectation.transform import compile_terms

RNG = np.random.default_rng(4)
X = RNG.standard_normal((30, 2))
Y = X @ np.array([1.0, -0.5]) + 0.5 * RNG.standard_normal(30)


def sites(latents, data):
    residual = (data["y"] - data["x"] @ latents["w"]) * jnp.exp(-latents["s"])
    return {"y": jnp.sum(-0.5 * residual**2 - latents["s"]), "s": -0.5 * latents["s"] ** 2}


def verdict():
    """Sites that the check condemns, under a correlated q."""
    data = {"x": X, "y": Y}
    root = np.array([[0.5, 0.0, 0.0], [0.2, 0.4, 0.0], [0.25, 0.1, 0.1]])
    with double_precision():
        q = {"block": Gaussian({"w": (2,), "s": ()}, np.array([0.8, -0.4, -0.2]), root @ root.T)}
        compiled = {n: compile_terms(lambda u, d, n=n: sites(u, d)[n], q, data) for n in ("y", "s")}
    return mistaken(compiled, sites, q, data)


def test_right_rules_pass():
    assert verdict() == ()


def test_a_wrong_sign_is_caught(monkeypatch):
    right = algebra.on_terms

    def wrong(name, params, nodes, outer):
        return right("add" if name == "sub" else name, params, nodes, outer)

    monkeypatch.setattr(algebra, "on_terms", wrong)
    assert "y" in verdict()


def test_a_false_independence_is_caught(monkeypatch):
    """The trap of the feasibility study: a residual and its scale in one block."""
    monkeypatch.setattr(
        moments.AbstractMoments, "shifted_mean", lambda self, entry, shift: self.mean(entry)
    )
    assert verdict() == ("y",)


def test_a_missing_covariance_is_caught(monkeypatch):
    monkeypatch.setattr(moments.AbstractMoments, "affine_covariance", lambda self, a, b: None)
    assert "y" in verdict()


@pytest.mark.parametrize("family", [None, taut.families.MeanField()], ids=["dense", "factors"])
def test_a_fit_drops_what_is_wrong_and_says_so(monkeypatch, family):
    """With a broken rule the answer is still that of the right one, and the note names the site."""
    x, y = X[:, 0], Y

    def model(x, y):
        w = numpyro.sample("w", dist.Normal(0.0, 2.0))
        s = numpyro.sample("s", dist.Normal(0.0, 1.0))
        numpyro.sample("y", dist.Normal(w * x, jnp.exp(s)), obs=y)

    expected = taut.fit(model, {"x": x, "y": y}, progress=False)
    monkeypatch.setattr(
        moments.AbstractMoments, "tilt", lambda self, shift: moments.Tensor(jnp.asarray(0.5))
    )

    def again(x, y):  # a program of its own, read with the broken rule
        model(x, y + 0.0)

    found = taut.fit(again, {"x": x, "y": y}, family=family, progress=False)
    text = f"{found} {found.plan}"
    assert "compiled mean" in text
    assert "y" in text
    assert found.mean["w"] == pytest.approx(float(expected.mean["w"]), abs=0.05)
