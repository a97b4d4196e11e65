"""Fits that are right, and fits that are wrong in a known way, put before the verdict."""

from collections.abc import Callable, Iterator
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from scipy import special

from exact_targets import LOG_2PI, density, gaussian, logistic_regression, solved, started
from taut import ladder
from taut._core.progress import Watch
from taut._core.status import Status
from taut.families import Dense, DenseGaussian
from taut.plan import make_plan
from taut.problem.evaluator import Evaluator
from taut.solvers import FixedDraws, Solution
from taut.solvers.start import Start


class Case(NamedTuple):
    """A posterior, where its restarts ended, and the best Gaussian for it."""

    evaluator: Evaluator
    start: Start
    q: DenseGaussian


def _case(evaluator: Evaluator, q: DenseGaussian) -> Case:
    return Case(evaluator, started(evaluator), q)


def _correlated(dim: int, rho: float = 0.9) -> Case:
    factor = np.linalg.cholesky(rho + (1.0 - rho) * np.eye(dim))
    mean = np.linspace(-1.0, 1.0, dim)
    return _case(gaussian(mean, factor).evaluator, DenseGaussian(mean, factor))


def _logistic() -> Case:
    evaluator = logistic_regression(5, 200)
    q = solved(FixedDraws(num_draws=1024, tolerance=1e-6), Dense(), evaluator).q
    assert isinstance(q, DenseGaussian)
    return _case(evaluator, q)


def _log_gamma(latents, shape):
    u = latents["u"]
    return jnp.sum(shape * u - jnp.exp(u) - special.gammaln(20.0))


def _skewed() -> Case:
    """Three logarithms of Gamma(20): skewness -0.23.

    The best Gaussian has mean log a - 1 / (2 a) and variance 1 / a.
    """
    evaluator = density(_log_gamma, {"u": (3,)}, shape=np.asarray(20.0))
    return _case(
        evaluator, DenseGaussian(np.full(3, np.log(20.0) - 0.025), np.eye(3) / np.sqrt(20.0))
    )


def _student(latents, freedom):
    return jnp.sum(-0.5 * (freedom + 1.0) * jnp.log1p(latents["u"] ** 2 / freedom))


def _heavy_tailed() -> Case:
    """Three Student-t with 5 degrees of freedom; the sd of the best Gaussian by quadrature."""
    z, w = np.polynomial.hermite_e.hermegauss(120)
    w = w / w.sum()
    sds = np.linspace(0.8, 1.6, 801)
    elbos = [w @ (-3.0 * np.log1p((s * z) ** 2 / 5.0)) + np.log(s) for s in sds]
    evaluator = density(_student, {"u": (3,)}, freedom=np.asarray(5.0))
    return _case(evaluator, DenseGaussian(np.zeros(3), sds[int(np.argmax(elbos))] * np.eye(3)))


def _humps(latents, apart):
    u = latents["u"]
    first = -0.5 * jnp.sum((u - apart) ** 2)
    second = -0.5 * jnp.sum((u + apart) ** 2) + jnp.log(0.5)
    return jnp.logaddexp(first, second) - LOG_2PI * 0.5 * u.size


def two_modes() -> Case:
    """Two Gaussians eight sds apart, with masses 2 : 1; q sits on the first."""
    evaluator = density(_humps, {"u": (2,)}, apart=np.full(2, 4.0))
    return _case(evaluator, DenseGaussian(np.full(2, 4.0), np.eye(2)))


CASES: dict[str, Callable[[], Case]] = {
    "gaussian, D = 2": lambda: _correlated(2),
    "gaussian, D = 20": lambda: _correlated(20),
    "logistic, D = 5": _logistic,
    "skewed, D = 3": _skewed,
    "student-t5, D = 3": _heavy_tailed,
}


def _scaled(q: DenseGaussian, factor: float) -> DenseGaussian:
    return DenseGaussian(q.mean, factor * q.factor)


def _shifted(q: DenseGaussian) -> DenseGaussian:
    """Half an sd of the first latent, the others carried along: 0.5 in whitened distance too."""
    return DenseGaussian(q.mean + 0.5 * q.factor[:, 0], q.factor)


def _conditional(q: DenseGaussian) -> DenseGaussian:
    """Independent, with the sds that each latent has given the others: mean field's answer."""
    precision = np.linalg.inv(q.covariance)
    return DenseGaussian(q.mean, np.diag(1.0 / np.sqrt(np.diagonal(precision))))


WRONG: dict[str, Callable[[DenseGaussian], DenseGaussian]] = {
    "too narrow (x 0.6)": lambda q: _scaled(q, 0.6),
    "too wide (x 1.6)": lambda q: _scaled(q, 1.6),
    "shifted by 0.5 sd": _shifted,
}


def certified(case: Case, q: DenseGaussian, seed: int, correct: bool = False) -> ladder.Outcome:
    """The outcome of a fit that ended, content, with this q."""
    solution = Solution(q, 0.0, Status.CONVERGED, (0.0,))
    plan = make_plan(case.evaluator.problem)
    weighted = ladder.certificate.weigh(case.evaluator, q, seed)
    solution = Solution(q, weighted.elbo, Status.CONVERGED, (weighted.elbo,))
    attempt = ladder.Attempt(case.evaluator, plan, seed, case.start, solution, ())
    return ladder._certify(attempt, Watch(), correct)


def wrong_fits(name: str, case: Case) -> Iterator[tuple[str, DenseGaussian]]:
    """What can be wrong with the fit of a case."""
    for fault, spoil in WRONG.items():
        yield fault, spoil(case.q)
    if name.startswith("gaussian"):
        yield "no correlation", _conditional(case.q)


def summary(outcomes: list[ladder.Outcome]) -> str:
    """One line of the measured table."""
    words = [o.verdict.word for o in outcomes]
    drift = np.array([o.findings.drift for o in outcomes])
    khat = np.array([o.findings.khat for o in outcomes])
    return (
        f"good {words.count('good'):3d} of {len(words)}   drift {drift.min():.3f} to {drift.max():.3f}   "
        f"k-hat {khat.min():5.2f} to {khat.max():5.2f}"
    )
