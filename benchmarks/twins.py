"""The shipped models once more, written in PyMC."""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

Draws = dict[str, np.ndarray]


@dataclasses.dataclass(frozen=True)
class Twin:
    """A PyMC version of a model.

    Attributes:
        build: data -> ``pymc.Model``.
        derive: draws of the latents -> quantities that the NumPyro version has as deterministic.
    """

    build: Callable[[Mapping[str, Any]], Any]
    derive: Callable[[Draws], Draws] = lambda draws: {}


def _regression(data: Mapping[str, Any]) -> Any:
    import pymc as pm

    with pm.Model() as model:
        a, b = pm.Normal("a", 0.0, 100.0), pm.Normal("b", 0.0, 100.0)
        s = pm.HalfCauchy("s", 5.0)
        pm.Normal("obs", a + b * data["x"], s, observed=data["y"])
    return model


def _schools_centred(data: Mapping[str, Any]) -> Any:
    import pymc as pm

    with pm.Model() as model:
        mu, tau = pm.Normal("mu", 0.0, 5.0), pm.HalfCauchy("tau", 5.0)
        theta = pm.Normal("theta", mu, tau, shape=8)
        pm.Normal("obs", theta, data["sigma"], observed=data["y"])
    return model


def _schools_noncentred(data: Mapping[str, Any]) -> Any:
    import pymc as pm

    with pm.Model() as model:
        mu, tau = pm.Normal("mu", 0.0, 5.0), pm.HalfCauchy("tau", 5.0)
        z = pm.Normal("z", 0.0, 1.0, shape=8)
        pm.Normal("obs", mu + tau * z, data["sigma"], observed=data["y"])
    return model


def _schools_effects(draws: Draws) -> Draws:
    return {"theta": draws["mu"][:, None] + draws["tau"][:, None] * draws["z"]}


def _logistic(data: Mapping[str, Any]) -> Any:
    import pymc as pm

    with pm.Model() as model:
        w = pm.Normal("w", 0.0, 2.5, shape=data["x"].shape[1])
        pm.Bernoulli("obs", logit_p=pm.math.dot(data["x"], w), observed=data["y"].astype(int))
    return model


def _poisson_effects(data: Mapping[str, Any]) -> Any:
    import pymc as pm

    with pm.Model() as model:
        a, b = pm.Normal("a", 0.0, 2.0), pm.Normal("b", 0.0, 1.0)
        sigma = pm.HalfNormal("sigma", 1.0)
        u = pm.Normal("u", 0.0, sigma, shape=40)
        rate = pm.math.exp(a + b * data["x"] + u[data["group"]])
        pm.Poisson("obs", rate, observed=data["y"])
    return model


TWINS: dict[str, Twin] = {
    "regression": Twin(_regression),
    "schools-centred": Twin(_schools_centred),
    "schools-noncentred": Twin(_schools_noncentred, _schools_effects),
    "logistic": Twin(_logistic),
    "poisson-effects": Twin(_poisson_effects),
}
