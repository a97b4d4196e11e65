"""The demonstration: eighteen batting averages, pulled towards each other as far as is right."""

import time
from pathlib import Path
from typing import Any

import numpy as np
import numpyro
import numpyro.distributions as dist
from jax.scipy.special import expit

from taut._fit import fit
from taut.datasets import baseball
from taut.posterior import Posterior


def batting(at_bats: Any, hits: Any) -> None:
    """Hits of players whose abilities, on the logit scale, scatter about a common mean."""
    mu = numpyro.sample("mu", dist.Normal(-1.0, 1.0))
    tau = numpyro.sample("tau", dist.HalfNormal(1.0))
    with numpyro.plate("player", len(at_bats)):
        ability = numpyro.sample("ability", dist.Normal(mu, tau))
        numpyro.deterministic("average", expit(ability))
        numpyro.sample("hits", dist.Binomial(at_bats, logits=ability), obs=hits)


def mean_squared_errors(ability: np.ndarray, data: dict[str, np.ndarray]) -> tuple[float, float]:
    """Compare two forecasts of the rest of the season: posterior means and raw averages.

    Args:
        ability: draws of the abilities on the logit scale, shape (n, players).
        data: the records of ``taut.datasets.baseball``.

    Returns:
        The mean squared errors of the posterior means and of the averages so far.
    """
    pooled = (1.0 / (1.0 + np.exp(-ability))).mean(axis=0)
    raw = data["hits"] / data["at_bats"]
    truth = data["rest_of_season"]
    return float(np.mean((pooled - truth) ** 2)), float(np.mean((raw - truth) ** 2))


def _compare(posterior: Posterior, data: dict[str, np.ndarray]) -> str:
    """Each player's average so far, its posterior, and what the rest of the season brought."""
    table = posterior.summary("average", hdi_prob=0.9)
    mean, low, high = (table.iloc[:, k].to_numpy() for k in (0, 2, 3))
    raw, truth = data["hits"] / data["at_bats"], data["rest_of_season"]
    lines = [f"{'':<12}  so far  posterior     90% interval  rest of season"]
    lines += [
        f"{name:<12}  {a:6.3f}  {m:9.3f}    {lo:.3f} to {hi:.3f}  {t:14.3f}"
        for name, a, m, lo, hi, t in zip(data["player"], raw, mean, low, high, truth, strict=True)
    ]
    inside = int(np.sum((low <= truth) & (truth <= high)))
    pooled, apart = mean_squared_errors(posterior.draws(4000)["ability"], data)
    ratio = apart / pooled
    verb = f"{ratio:.1f} times smaller" if ratio > 1 else f"{1 / ratio:.1f} times larger"
    return "\n".join(
        [
            *lines,
            f"The intervals hold {inside} of the {len(truth)} averages of the rest of the season.",
            "Mean squared error as a forecast of it:",
            f"{pooled:.5f} for the posterior means, {apart:.5f} for the averages so far ({verb}).",
        ]
    )


def run(out: str | Path = "demo", *, seed: int = 0, progress: bool | None = None) -> Posterior:
    """Fit the model, print the table and the verdict, write the report.

    Args:
        out: folder for ``report.html``; made if missing.
        seed: seed of the fit.
        progress: None shows a bar on a terminal, False none.

    Returns:
        The fitted posterior.
    """
    start = time.perf_counter()
    data = baseball()
    print(
        "18 baseball players of 1970: hits in the first 45 at-bats (Efron and Morris 1975).\n"
        "Model: hits ~ Binomial(45, ability), logit ability ~ Normal(mu, tau).\n"
    )
    posterior = fit(
        batting,
        {"at_bats": data["at_bats"], "hits": data["hits"]},
        seed=seed,
        progress=progress,
    )
    assert isinstance(posterior, Posterior)
    print(posterior)
    print()
    print(_compare(posterior, data))
    page = Path(out) / "report.html"
    page.parent.mkdir(parents=True, exist_ok=True)
    posterior.report(page)
    print(f"Report: {page} ({time.perf_counter() - start:.1f} s for everything)")
    return posterior
