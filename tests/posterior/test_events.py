"""Bayesian networks over events, whose latents are all discrete: any evidence, any query."""

import itertools

import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest

import taut

# Lauritzen and Spiegelhalter 1988, the chest clinic.
TABLES = {
    "asia": (0.01,),
    "smoker": (0.5,),
    "tuberculosis": (0.01, 0.05),
    "cancer": (0.01, 0.1),
    "bronchitis": (0.3, 0.6),
    "xray": (0.05, 0.98),
    "dyspnoea": ((0.1, 0.8), (0.7, 0.9)),
}


def clinic():
    p = {name: jnp.array(table) for name, table in TABLES.items()}
    asia = numpyro.sample("asia", dist.Bernoulli(p["asia"][0]))
    smoker = numpyro.sample("smoker", dist.Bernoulli(p["smoker"][0]))
    tuberculosis = numpyro.sample("tuberculosis", dist.Bernoulli(p["tuberculosis"][asia]))
    cancer = numpyro.sample("cancer", dist.Bernoulli(p["cancer"][smoker]))
    bronchitis = numpyro.sample("bronchitis", dist.Bernoulli(p["bronchitis"][smoker]))
    either = jnp.maximum(tuberculosis, cancer)
    numpyro.sample("xray", dist.Bernoulli(p["xray"][either]))
    numpyro.sample("dyspnoea", dist.Bernoulli(p["dyspnoea"][either, bronchitis]))


def enumerated(evidence):
    """Log evidence and marginals by going through all 256 worlds."""
    total, marginals = 0.0, dict.fromkeys(TABLES, 0.0)
    for world in itertools.product((0, 1), repeat=7):
        a, s, t, c, b, *_ = world
        e = max(t, c)
        chances = (
            TABLES["asia"][0], TABLES["smoker"][0], TABLES["tuberculosis"][a],
            TABLES["cancer"][s], TABLES["bronchitis"][s], TABLES["xray"][e],
            TABLES["dyspnoea"][e][b],
        )  # fmt: skip
        values = dict(zip(TABLES, world, strict=True))
        if any(values[n] != v for n, v in evidence.items()):
            continue
        weight = np.prod([p if v else 1 - p for p, v in zip(chances, world, strict=True)])
        total += weight
        for name, value in values.items():
            marginals[name] += weight * value
    return np.log(total), {n: m / total for n, m in marginals.items()}


@pytest.mark.parametrize(
    "evidence",
    [{}, {"dyspnoea": 1}, {"asia": 1, "xray": 1}, {"smoker": 0, "dyspnoea": 1, "xray": 0}],
)
def test_any_evidence_and_any_query(evidence):
    observe = {n: jnp.array(v) for n, v in evidence.items()}
    posterior = taut.fit(clinic, observe=observe or None, progress=False)
    log_evidence, marginals = enumerated(evidence)
    assert posterior.elbo == pytest.approx(log_evidence, abs=1e-8)
    assert set(posterior.responsibilities) == set(TABLES) - set(evidence)
    for name, found in posterior.responsibilities.items():
        assert found == pytest.approx([1 - marginals[name], marginals[name]], abs=1e-8)
    assert posterior.trust.verdict == "good"


def test_what_stands_in_is_not_shown(tmp_path):
    posterior = taut.fit(clinic, observe={"xray": 1}, progress=False)
    assert posterior.mean == {}
    assert posterior.draws(10) == {}
    assert posterior.summary().empty
    shown = str(posterior)
    assert "smoker        P(0) 0.3122  P(1) 0.6878" in shown
    assert "the data say nothing" not in shown
    posterior.report(tmp_path / "report.html")
    posterior.save(tmp_path / "fit.taut")
    loaded = taut.load(tmp_path / "fit.taut")
    assert loaded.responsibilities["smoker"] == pytest.approx(posterior.responsibilities["smoker"])
    repeated = posterior.predict(num_draws=4000)
    assert {n: x.shape for n, x in repeated.items()} == {"xray": (4000,)}
