"""What is to be inferred."""

import functools
from collections.abc import Callable, Mapping
from typing import Any

from numpyro.distributions import Distribution

from taut._core.errors import ArgumentError, ModelError
from taut.problem.density import Density, from_density
from taut.problem.density import predictor as density_predictor
from taut.problem.numpyro_model import from_numpyro
from taut.problem.numpyro_model import predictor as numpyro_predictor
from taut.problem.stand_in import STAND_IN, with_stand_in
from taut.problem.types import Latent, Observed, Predictor, Problem, Program, scalar_labels


def describe(
    model: Callable[..., Any] | Density, data: Any = None, observe: Mapping[str, Any] | None = None
) -> Problem:
    """Turn a model of any front-end and its data into a problem.

    Args:
        model: a NumPyro model function or a :class:`Density`.
        data: mapping of the model's keyword arguments, or a data frame.
        observe: values of sites to condition on, by name.

    Raises:
        ModelError: if ``model`` is of no known kind, or cannot be used.
        DataError: if the data do not fit the model.
    """
    if isinstance(model, Density):
        if observe:
            raise ArgumentError(
                "observe conditions sites of NumPyro models; a Density has none: put the values into data"
            )
        return from_density(model, data)
    if isinstance(model, Problem):
        if data is not None or observe:
            raise ArgumentError(
                "a Problem holds its data already; give data and observe with the model itself"
            )
        return model
    _check_kind(model)
    problem = from_numpyro(model, data, observe)
    if not problem.latents:
        return from_numpyro(with_stand_in(model), data, observe)
    return problem


def _check_kind(model: Any) -> None:
    """Refuse what is no model, and say what was probably meant."""
    if isinstance(model, type):
        hint = f"the class {model.__name__}; make an instance of it first"
    elif model is None:
        hint = (
            "None; pass the function itself, not its result: fit(model, data), not fit(model(...))"
        )
    elif isinstance(model, Distribution):
        hint = f"a distribution ({type(model).__name__}); write a function that samples from it"
    elif not callable(model):
        hint = f"{type(model).__name__}"
        if type(model).__name__ == "DataFrame" or isinstance(model, Mapping):
            hint += "; the model comes first, then the data"
    else:
        return
    raise ModelError(f"model must be a NumPyro model function or a taut.Density, got {hint}")


def predictor_without_data(
    model: Callable[..., Any] | Density, observe: Mapping[str, Any] | None, sites: tuple[str, ...]
) -> Callable[..., Predictor]:
    """Return what draws the observed sites of a model whose data are not at hand.

    Args:
        model: a NumPyro model function or a :class:`Density`.
        observe: as in :func:`describe`.
        sites: names of the observed sites.

    Returns:
        What :attr:`Problem.predictor` is; it needs new data.
    """
    if isinstance(model, Density):
        return functools.partial(density_predictor, model, None)
    return functools.partial(numpyro_predictor, model, observe, sites, None)


__all__ = [
    "STAND_IN",
    "Density",
    "Latent",
    "Observed",
    "Predictor",
    "Problem",
    "Program",
    "describe",
    "predictor_without_data",
    "scalar_labels",
]
