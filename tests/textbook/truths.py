"""Conjugate models with their exact posteriors and log evidence.

Formulas: Murphy (2007), Conjugate Bayesian analysis of the Gaussian distribution; Bishop (2006),
chapters 2 and 3; Gelman et al. (2013), Bayesian Data Analysis, chapters 2 and 3.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
from scipy import stats
from scipy.special import betaln, gammaln, multigammaln

from textbook.ascent import Names
from textbook.factors import (
    LOG_2PI,
    AbstractFactor,
    Beta,
    Dirichlet,
    Gamma,
    Gaussian,
    InverseGamma,
    Normal,
)
from textbook.joint_factors import NormalGamma, NormalWishart

RNG = np.random.default_rng(42)


@dataclass(frozen=True)
class Truth:
    """A model whose posterior is known.

    Attributes:
        name: unique.
        model: a NumPyro model.
        data: its keyword arguments.
        posterior: latent, or tuple of latents, -> its exact factor.
        log_evidence: in nats.
    """

    name: str
    model: Callable[..., None]
    data: Mapping[str, Any]
    posterior: Mapping[Names, AbstractFactor]
    log_evidence: float


BETA, GAMMA, DIRICHLET = Beta(1.5, 2.5), Gamma(2.0, 1.5), Dirichlet(np.array([0.7, 1.5, 2.0]))


def beta_binomial() -> Truth:
    def model(total, y):
        p = numpyro.sample("p", dist.Beta(BETA.a, BETA.b))
        numpyro.sample("y", dist.Binomial(total, probs=p), obs=y)

    total = np.array([8, 12, 5])
    y = np.array([3, 4, 1])
    choose = np.sum(gammaln(total + 1.0) - gammaln(y + 1.0) - gammaln(total - y + 1.0))
    q = Beta(BETA.a + y.sum(), BETA.b + (total - y).sum())
    evidence = choose + betaln(q.a, q.b) - betaln(BETA.a, BETA.b)
    return Truth("beta-binomial", model, {"total": total, "y": y}, {"p": q}, float(evidence))


def beta_bernoulli() -> Truth:
    def model(y):
        p = numpyro.sample("p", dist.Beta(BETA.a, BETA.b))
        with numpyro.plate("rows", len(y)):
            numpyro.sample("y", dist.Bernoulli(p), obs=y)

    y = (RNG.uniform(size=25) < 0.3).astype(int)
    q = Beta(BETA.a + y.sum(), BETA.b + (1 - y).sum())
    evidence = betaln(q.a, q.b) - betaln(BETA.a, BETA.b)
    return Truth("beta-Bernoulli", model, {"y": y}, {"p": q}, float(evidence))


def _gamma_gap(q: Gamma) -> float:
    """Log normaliser of the posterior less that of the prior."""
    prior = GAMMA.a * np.log(GAMMA.b) - gammaln(GAMMA.a)
    return float(prior - q.a * np.log(q.b) + gammaln(q.a))


def gamma_poisson() -> Truth:
    def model(y):
        rate = numpyro.sample("rate", dist.Gamma(GAMMA.a, GAMMA.b))
        with numpyro.plate("rows", len(y)):
            numpyro.sample("y", dist.Poisson(rate), obs=y)

    y = RNG.poisson(2.3, 20)
    q = Gamma(GAMMA.a + y.sum(), GAMMA.b + len(y))
    evidence = _gamma_gap(q) - np.sum(gammaln(y + 1.0))
    return Truth("gamma-Poisson", model, {"y": y}, {"rate": q}, float(evidence))


def gamma_exponential() -> Truth:
    def model(y):
        rate = numpyro.sample("rate", dist.Gamma(GAMMA.a, GAMMA.b))
        with numpyro.plate("rows", len(y)):
            numpyro.sample("y", dist.Exponential(rate), obs=y)

    y = RNG.exponential(0.6, 20)
    q = Gamma(GAMMA.a + len(y), GAMMA.b + y.sum())
    return Truth("gamma-exponential", model, {"y": y}, {"rate": q}, _gamma_gap(q))


def normal_normal() -> Truth:
    def model(y):
        mu = numpyro.sample("mu", dist.Normal(0.5, 2.0))
        with numpyro.plate("rows", len(y)):
            numpyro.sample("y", dist.Normal(mu, 0.7), obs=y)

    y = 1.0 + 0.7 * RNG.standard_normal(20)
    variance = 1.0 / (1.0 / 2.0**2 + len(y) / 0.7**2)
    q = Normal(variance * (0.5 / 2.0**2 + y.sum() / 0.7**2), variance)
    marginal = 0.7**2 * np.eye(len(y)) + 2.0**2
    evidence = stats.multivariate_normal(np.full(len(y), 0.5), marginal).logpdf(y)
    return Truth("normal-normal", model, {"y": y}, {"mu": q}, float(evidence))


def normal_gamma() -> Truth:
    prior = NormalGamma(0.5, 0.4, 2.0, 1.5)

    def model(y):
        tau = numpyro.sample("tau", dist.Gamma(prior.a, prior.b))
        mu = numpyro.sample("mu", dist.Normal(prior.mean, 1.0 / jnp.sqrt(prior.kappa * tau)))
        with numpyro.plate("rows", len(y)):
            numpyro.sample("y", dist.Normal(mu, 1.0 / jnp.sqrt(tau)), obs=y)

    y = 1.0 + 0.7 * RNG.standard_normal(20)
    n, mean = len(y), y.mean()
    kappa = prior.kappa + n
    pull = prior.kappa * n / kappa * (mean - prior.mean) ** 2
    b = prior.b + 0.5 * (np.sum((y - mean) ** 2) + pull)
    q = NormalGamma((prior.kappa * prior.mean + n * mean) / kappa, kappa, prior.a + 0.5 * n, b)
    evidence = gammaln(q.a) - gammaln(prior.a) + prior.a * np.log(prior.b) - q.a * np.log(q.b)
    evidence += 0.5 * np.log(prior.kappa / kappa) - 0.5 * n * LOG_2PI
    return Truth("normal-gamma", model, {"y": y}, {("mu", "tau"): q}, float(evidence))


def _dirichlet_gap(q: Dirichlet) -> float:
    def log_beta(a):
        return np.sum(gammaln(a)) - gammaln(np.sum(a))

    return float(log_beta(q.a) - log_beta(DIRICHLET.a))


def dirichlet_multinomial() -> Truth:
    def model(y):
        p = numpyro.sample("p", dist.Dirichlet(jnp.asarray(DIRICHLET.a)))
        numpyro.sample("y", dist.Multinomial(14, probs=p), obs=y)

    y = np.array([3, 9, 2])
    q = Dirichlet(DIRICHLET.a + y)
    evidence = gammaln(15.0) - np.sum(gammaln(y + 1.0)) + _dirichlet_gap(q)
    return Truth("Dirichlet-multinomial", model, {"y": y}, {"p": q}, float(evidence))


def dirichlet_categorical() -> Truth:
    def model(y):
        p = numpyro.sample("p", dist.Dirichlet(jnp.asarray(DIRICHLET.a)))
        with numpyro.plate("rows", len(y)):
            numpyro.sample("y", dist.Categorical(p), obs=y)

    y = RNG.choice(3, size=25, p=[0.2, 0.5, 0.3])
    q = Dirichlet(DIRICHLET.a + np.bincount(y, minlength=3))
    return Truth("Dirichlet-categorical", model, {"y": y}, {"p": q}, _dirichlet_gap(q))


def inverse_gamma_normal() -> Truth:
    prior = InverseGamma(3.0, 2.0)

    def model(y):
        v = numpyro.sample("v", dist.InverseGamma(prior.a, prior.b))
        with numpyro.plate("rows", len(y)):
            numpyro.sample("y", dist.Normal(0.3, jnp.sqrt(v)), obs=y)

    y = 0.3 + 0.9 * RNG.standard_normal(20)
    q = InverseGamma(prior.a + 0.5 * len(y), prior.b + 0.5 * np.sum((y - 0.3) ** 2))
    # The marginal is a multivariate Student t with 2 a degrees of freedom.
    shape = prior.b / prior.a * np.eye(len(y))
    marginal = stats.multivariate_t(np.full(len(y), 0.3), shape, df=2.0 * prior.a)
    return Truth("inverse-gamma variance", model, {"y": y}, {"v": q}, float(marginal.logpdf(y)))


def linear_regression() -> Truth:
    def model(x, y):
        w = numpyro.sample("w", dist.Normal(0.0, 2.0).expand([x.shape[1]]).to_event(1))
        with numpyro.plate("rows", x.shape[0]):
            numpyro.sample("y", dist.Normal(x @ w, 0.7), obs=y)

    x = np.column_stack([np.ones(30), RNG.standard_normal((30, 2))])
    y = x @ np.array([0.5, -1.0, 0.3]) + 0.7 * RNG.standard_normal(30)
    covariance = np.linalg.inv(np.eye(3) / 2.0**2 + x.T @ x / 0.7**2)  # PRML 3.54
    q = Gaussian(covariance @ x.T @ y / 0.7**2, covariance)
    marginal = 0.7**2 * np.eye(30) + 2.0**2 * x @ x.T
    evidence = stats.multivariate_normal(np.zeros(30), marginal).logpdf(y)
    return Truth("linear regression", model, {"x": x, "y": y}, {"w": q}, float(evidence))


def normal_wishart() -> Truth:
    scale = np.array([[0.5, 0.1], [0.1, 0.4]])
    prior = NormalWishart(np.array([0.5, -0.5]), 0.4, 4.0, scale)

    def model(y):
        precision = numpyro.sample("precision", dist.Wishart(prior.df, scale_matrix=scale))
        centre = jnp.asarray(prior.mean)
        of_mu = dist.MultivariateNormal(centre, precision_matrix=prior.kappa * precision)
        mu = numpyro.sample("mu", of_mu)
        with numpyro.plate("rows", len(y)):
            numpyro.sample("y", dist.MultivariateNormal(mu, precision_matrix=precision), obs=y)

    y = RNG.multivariate_normal([1.0, 0.0], [[1.0, 0.6], [0.6, 2.0]], 25)
    n, mean = y.shape[0], y.mean(axis=0)
    kappa, away, pull = prior.kappa + n, y - mean, mean - prior.mean
    inverse = np.linalg.inv(scale) + away.T @ away
    inverse = inverse + prior.kappa * n / kappa * np.outer(pull, pull)
    centre = (prior.kappa * prior.mean + n * mean) / kappa
    q = NormalWishart(centre, kappa, prior.df + n, np.linalg.inv(inverse))
    # Murphy (2007), eq. 234.
    evidence = -n * np.log(np.pi) + multigammaln(0.5 * q.df, 2) - multigammaln(0.5 * prior.df, 2)
    log_dets = q.df * np.linalg.slogdet(q.scale)[1] - prior.df * np.linalg.slogdet(scale)[1]
    evidence += 0.5 * log_dets + np.log(prior.kappa / kappa)
    return Truth("normal-Wishart", model, {"y": y}, {("mu", "precision"): q}, float(evidence))


TRUTHS: tuple[Truth, ...] = (
    beta_binomial(),
    beta_bernoulli(),
    gamma_poisson(),
    gamma_exponential(),
    normal_normal(),
    normal_gamma(),
    dirichlet_multinomial(),
    dirichlet_categorical(),
    inverse_gamma_normal(),
    linear_regression(),
    normal_wishart(),
)
