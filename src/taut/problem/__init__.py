"""What is to be inferred."""

from collections.abc import Callable, Mapping
from typing import Any

from taut._core.errors import ArgumentError, ModelError
from taut.problem.density import Density, from_density
from taut.problem.numpyro_model import from_numpyro
from taut.problem.types import Latent, Observed, Predictor, Problem, Program, scalar_labels


def describe(model: Callable[..., Any] | Density, data: Any = None, observe: Mapping[str, Any] | None = None) -> Problem:
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
            raise ArgumentError("observe conditions sites of NumPyro models; a Density has none: put the values into data")
        return from_density(model, data)
    if isinstance(model, Problem):
        return model
    if not callable(model):
        raise ModelError(
            f"model must be a NumPyro model function or a taut.Density, got {type(model).__name__}"
            + ("; pass the function itself, not its result" if model is None else "")
        )
    return from_numpyro(model, data, observe)


__all__ = ["Density", "Latent", "Observed", "Predictor", "Problem", "Program", "describe", "scalar_labels"]
