"""The self-check: every compiled site against plain Monte Carlo, once, at fit time.

A wrong rule would give a wrong answer in silence, so none is trusted.
"""

from collections.abc import Callable, Mapping
from typing import Any

import jax
import numpy as np

from taut._core.precision import double_precision
from taut.expectation.gaussian import Gaussian, Scaled
from taut.expectation.transform import Compiled, Factors

FEWEST, MOST = 256, 4096  # draws of the first look, by the size of the data
MORE = 4  # times as many in the second, without which no site is condemned
ROOM = 2**26  # numbers that the first look may touch
LIMIT = 5.0  # standard errors
ROUNDING = 1e-8  # relative difference that rounding may cause
LANES = 8
HEAVY = 0.7  # share of the variance in the largest hundredth of draws, beyond which errors mislead
NARROWER = (1.0, 4.0, 16.0, 64.0)  # what covariances are divided by until tails are light

Sites = Callable[[dict[str, Any], Any], dict[str, Any]]


def draw(q: Factors, seed: int, num_draws: int) -> dict[str, Any]:
    """Independent draws of all latents, by name, each (num_draws, *shape).

    Gaussian blocks are drawn by NumPy: nothing has to be compiled for them.
    """
    rng, key = np.random.default_rng((seed, num_draws)), jax.random.key(seed)
    found: dict[str, Any] = {}
    for number, (name, factor) in enumerate(q.items()):
        if isinstance(factor, Gaussian):
            values: Any = _gaussian_draws(factor, rng, num_draws)
        else:
            values = factor.sample(jax.random.fold_in(key, number), num_draws)
        found.update(values if isinstance(values, dict) else {name: values})
    return found


def _gaussian_draws(factor: Gaussian, rng: np.random.Generator, num_draws: int) -> dict[str, Any]:
    mean, covariance = np.asarray(factor.mean), np.asarray(factor.covariance)
    try:
        roots = np.linalg.cholesky(covariance)
    except np.linalg.LinAlgError:  # of an improper posterior: its draws say nothing
        roots = np.full_like(covariance, np.nan)
    noise = rng.standard_normal((num_draws, *mean.shape))
    points = mean + np.einsum("bij,nbj->nbi", roots, noise)
    return {n: points[..., factor.place(n)[1]].reshape(num_draws, *s) for n, s in factor.shapes}


def scores(
    compiled: Mapping[str, Compiled], sites: Sites, q: Factors, data: Any, seed: int, num_draws: int
) -> dict[str, float]:
    """Difference between each site's compiled mean and that of draws, in standard errors.

    NaN for sites whose draws have tails too heavy for that, such as exp of an uncertain predictor.

    Args:
        compiled: the sites' compiled expectations.
        sites: (latents, data) -> site -> log density.
        q: the factors.
        data: second argument of ``sites``.
        seed: of the draws.
        num_draws: number of draws.
    """

    @jax.jit
    def evaluate(draws: Any, data: Any, compiled: Any, q: Any) -> tuple[Any, Any]:
        values = jax.lax.map(lambda one: sites(one, data), draws, batch_size=LANES)
        return values, {name: mean(q) for name, mean in compiled.items()}

    with double_precision():
        draws = draw(q, seed, num_draws)
        values, means = evaluate(draws, data, dict(compiled), dict(q))
    found = {}
    for name, mean in means.items():
        v = np.asarray(values[name])
        v = v[np.isfinite(v)]
        error = v.std() / np.sqrt(max(len(v), 1)) + ROUNDING * (1.0 + abs(float(mean)))
        found[name] = float((float(mean) - v.mean()) / error) if len(v) else 0.0
        if _tail_share(v) > HEAVY:
            found[name] = float("nan")
    return found


def _tail_share(values: np.ndarray) -> float:
    """Share of the variance in the largest hundredth of the deviations; normal draws have 0.07."""
    squares = np.sort((values - values.mean()) ** 2) if len(values) else np.zeros(1)
    total = squares.sum()
    return float(squares[-max(len(squares) // 100, 1) :].sum() / total) if total > 0 else 0.0


def narrowed(q: Factors, divisor: float) -> Factors:
    """The factors with smaller covariances; those that are not Gaussian are left as they are."""

    def one(factor: Any) -> Any:
        if isinstance(factor, Scaled):
            return Scaled(one(factor.normal), factor.precision, factor.precision_name)
        if not isinstance(factor, Gaussian) or divisor == 1.0:
            return factor
        return Gaussian(factor.shapes, factor.mean, factor.covariance / divisor, factor.batch_ndim)

    with double_precision():
        return {name: one(factor) for name, factor in q.items()}


def mistaken(
    compiled: Mapping[str, Compiled], sites: Sites, q: Factors, data: Any, seed: int = 0
) -> tuple[str, ...]:
    """Sites whose compiled mean lies beyond what draws of q allow, twice.

    False alarms: about 1e-6 per site for light tails; two independent looks have to agree in sign.
    Rules hold for every q, so sites with heavy tails are looked at under a narrower one.
    """
    size = sum(int(np.size(x)) for x in jax.tree.leaves((data, dict(q))))
    count = int(np.clip(ROOM // max(size, 1), FEWEST, MOST))
    pending, found = dict(compiled), []
    for divisor in NARROWER:
        narrow = narrowed(q, divisor)
        first = scores(pending, sites, narrow, data, seed, count)
        suspects = {n: compiled[n] for n, z in first.items() if abs(z) > LIMIT}
        if suspects:
            second = scores(compiled, sites, narrow, data, seed + 1, MORE * count)
            found += [n for n in suspects if second[n] * np.sign(first[n]) > LIMIT]
        pending = {n: compiled[n] for n, z in first.items() if np.isnan(z)}
        if not pending:
            break
    return tuple(found)
