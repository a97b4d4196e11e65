"""Made-up reports: one like a real fit, none of whose numbers come from a fit."""

import numpy as np
import pandas as pd
import pytest

from taut.report.content import Graph, Node, ReportContent


def scalar_labels(draws):
    labels, columns = [], []
    for site, values in draws.items():
        for index in np.ndindex(*values.shape[1:]):
            labels.append(f"{site}[{', '.join(map(str, index))}]" if index else site)
            columns.append(values[(slice(None), *index)])
    return labels, np.column_stack(columns)


def summarise(draws):
    labels, columns = scalar_labels(draws)
    with np.errstate(all="ignore"):
        return pd.DataFrame(
            {
                "mean": columns.mean(axis=0),
                "sd": columns.std(axis=0),
                "hdi_3%": np.quantile(columns, 0.03, axis=0),
                "hdi_97%": np.quantile(columns, 0.97, axis=0),
                "shift": np.linspace(-0.3, 0.3, len(labels)),
            },
            index=labels,
        )


def schools_draws(rng, n, narrow=1.0):
    tau = np.exp(rng.normal(1.0, 0.7 * narrow, n))
    mu = rng.normal(4.4, 3.3 * narrow, n)
    theta = mu[:, None] + tau[:, None] * rng.normal(size=(n, 8)) * narrow
    loadings = rng.normal(size=(n, 3, 2)) @ np.array([[1.0, 0.9], [0.0, 0.4]])
    return {"mu": mu, "tau": tau, "theta": theta, "loadings": loadings}


def schools_graph():
    plates = ("schools",)
    return Graph(
        nodes=(
            Node("mu", "latent", "Normal"),
            Node("tau", "latent", "HalfCauchy"),
            Node("loadings", "latent", "Normal", ("factors",)),
            Node("theta", "latent", "Normal", plates),
            Node("effect", "deterministic", "", ("schools", "pupils")),
            Node("sigma", "param"),
            Node("y", "observed", "Normal", ("schools", "pupils")),
            Node("absences", "observed", "Poisson", ("schools", "pupils")),
            Node("penalty", "factor"),
        ),
        edges=(
            ("mu", "theta"),
            ("tau", "theta"),
            ("theta", "effect"),
            ("loadings", "effect"),
            ("effect", "y"),
            ("effect", "absences"),
            ("sigma", "y"),
            ("tau", "penalty"),
            ("mu", "y"),
        ),
        plates={"schools": 8, "pupils": 25, "factors": 3},
    )


@pytest.fixture(scope="session")
def content():
    rng = np.random.default_rng(7)
    draws, raw = schools_draws(rng, 4000), schools_draws(rng, 4000, narrow=0.65)
    labels, _ = scalar_labels(draws)
    drift = dict(zip(labels, np.round(np.abs(rng.normal(0, 0.1, len(labels))), 3), strict=True))
    drift |= {"tau": 0.42, "mu": 0.31, "theta[3]": 0.28, "theta[5]": 0.22}
    score = rng.gamma(3.0, 2.0, 200) + rng.normal(0, 1, 200)
    location = np.sort(rng.normal(6, 2.5, 200))
    score = location + rng.normal(0, 2.4, 200) + (rng.uniform(size=200) < 0.03) * 9
    iterations = np.arange(0, 240, 3)
    elbo = -312.41 - 2.6e5 * np.exp(-iterations / 6.0) - 40 * np.exp(-iterations / 25)
    return ReportContent(
        title="Eight schools, with absences",
        verdict="usable",
        reasons=(
            "Drift of tau is 0.42 sd: q is too narrow in its right tail.",
            "Pareto k-hat is 0.64, below 0.70.",
            "7 of 8 restarts ended within 0.1 nat of each other.",
        ),
        advice=(
            "Use posterior.draws(), which are corrected, and not posterior.q.",
            "For a closer q, refit with family=taut.families.Dense() or call posterior.refine().",
        ),
        facts={
            "ELBO": "-312.41 \u00b1 0.02 nats",
            "Evidence": "-311.31 (-311.42 to -311.18)",
            "k-hat": "0.64",
            "Largest drift": "0.42 sd (tau)",
            "Family": "dense Gaussian, 16 dimensions",
            "Stopped": "predicted gain below 0.01 nat",
            "Iterations": "240",
            "Seconds": "1.84",
        },
        plan="latent    family          integral             why\n"
        "mu        dense Gaussian  34 quasi-random pts  fewer than 500 latents\n"
        "tau       dense Gaussian  34 quasi-random pts  log scale\n"
        "theta     dense Gaussian  34 quasi-random pts  non-centred: little data",
        summary=summarise(draws),
        draws=draws,
        raw_draws=raw,
        drift=drift,
        history=list(zip(iterations.tolist(), elbo.tolist(), strict=True)),
        starts=(-312.41, -312.42, -312.41, -312.45, -312.41, -312.43, -312.41, -341.8),
        predictive={
            "y": (score, location + rng.normal(0, 2.5, (400, 200))),
            "absences": (rng.poisson(3.0, (8, 25)), rng.poisson(3.3, (400, 8, 25))),
        },
        graph=schools_graph(),
        versions={"taut": "0.1.0", "jax": "0.10.2", "numpyro": "0.22.0", "python": "3.11.9"},
    )
