"""From a posterior to its page."""

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import posterior_models as models
import pytest
from scipy import stats

import taut
from taut.posterior import page


def test_the_page_of_a_fit(schools_fit, tmp_path):
    path = tmp_path / "fit.html"
    schools_fit.report(path)
    text = path.read_text(encoding="utf-8")
    for part in (
        f"Verdict: <strong>{schools_fit.trust.verdict}</strong>",
        "theta[7]",
        "Marginal densities",
        "ELBO history",
        "Posterior predictive check",
        "s graph",
        "school (8)",
        f"{schools_fit.evidence.estimate:.3f}",
    ):
        assert part in text
    assert "http://" not in text.replace("http://www.w3.org", "")
    assert "https://" not in text


def test_the_same_fit_gives_the_same_page(schools_fit, tmp_path):
    for name in ("a", "b"):
        schools_fit.report(tmp_path / name)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_the_page_of_a_mean_field_shows_its_derivation(tmp_path):
    """Its ELBO is the evidence of the conjugate model: a multivariate Student's t."""
    y = np.array([0.3, 1.1, -0.4, 2.0])

    def model(y):
        tau = numpyro.sample("tau", dist.Gamma(2.0, 1.0))
        mean = numpyro.sample("mean", dist.Normal(0.0, 1.0 / jnp.sqrt(tau)))
        with numpyro.plate("rows", len(y)):
            numpyro.sample("y", dist.Normal(mean, 1.0 / jnp.sqrt(tau)), obs=y)

    fit = taut.fit(model, {"y": y})
    fit.report(tmp_path / "page")
    text = (tmp_path / "page").read_text()
    shown = text[text.index('id="derivation"') :]
    evidence = stats.multivariate_t.logpdf(y, np.zeros(4), (np.eye(4) + 1.0) / 2.0, df=4)
    assert f"{evidence:.6f}" in shown
    assert "normal-gamma" in shown
    assert r"\begin{align*}" in shown


def test_the_page_of_a_loaded_fit(schools_fit, tmp_path):
    schools_fit.save(tmp_path / "f")
    taut.load(tmp_path / "f").report(tmp_path / "page")
    text = (tmp_path / "page").read_text()
    assert "theta[7]" in text
    assert "Posterior predictive check" not in text


@pytest.mark.parametrize("simulates", [True, False])
def test_the_page_of_a_density(simulates, tmp_path):
    def simulate(key, v, y):
        return {"y": v["a"] + jax.random.normal(key, y.shape)}

    density = taut.Density(
        lambda v, y: -0.5 * ((y - v["a"]) ** 2).sum(),
        {"a": ()},
        simulate=simulate if simulates else None,
    )
    taut.fit(density, {"y": np.ones(5)}).report(tmp_path / "page")
    assert "<svg" in (tmp_path / "page").read_text()


def test_deterministic_sites_are_in_the_table_only(schools_data):
    fit = taut.fit(models.schools_standardised, schools_data)
    content = page.content_of(fit, fit._corrected, fit._raw)
    assert set(content.draws) == {"mu", "tau", "z"}
    assert "theta[0]" in content.summary.index
    assert content.graph is not None
    assert content.predictive["y"][1].shape == (page.REPLICATES, 8)
