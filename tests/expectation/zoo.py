"""Models for checking E_q[log p]: every kind that the expectation should read, with its factors.

`CASES` lists them; `monte_carlo` estimates the mean of each site's log probability from draws of q.
"""

import zoo_draws
import zoo_exact
import zoo_latent
import zoo_quadrature
from zoo_case import (
    FACTORS,
    METHODS,
    Case,
    Mean,
    latents_of,
    monte_carlo,
    site_log_probs,
    spread_draws,
)

__all__ = [
    "CASES",
    "FACTORS",
    "METHODS",
    "Case",
    "Mean",
    "latents_of",
    "monte_carlo",
    "site_log_probs",
    "spread_draws",
]

CASES: list[Case] = [
    *zoo_exact.CASES,
    *zoo_latent.CASES,
    *zoo_quadrature.CASES,
    *zoo_draws.CASES,
]
