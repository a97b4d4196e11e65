"""NumPyro model functions as problems."""

import collections
import functools
import inspect
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np

from taut._core.errors import ModelError
from taut._core.precision import double_precision
from taut.problem import checks
from taut.problem.data import Path, join, read, read_observe, split
from taut.problem.identity import fingerprint
from taut.problem.prediction import relations, simulator
from taut.problem.reading import Inputs, Reading, read_model
from taut.problem.replay import Model
from taut.problem.types import Predictor, Problem

MAX_PROGRAMS = 64
_READINGS: collections.OrderedDict[Any, Reading] = collections.OrderedDict()


def from_numpyro(
    model: Model, data: Any = None, observe: Mapping[str, Any] | None = None
) -> Problem:
    """Describe a NumPyro model conditioned on data.

    Args:
        model: a NumPyro model function.
        data: mapping of the model's keyword arguments, or a data frame with them as columns.
        observe: values of any sites to condition on, by site name.

    Returns:
        The problem. Arrays are arguments of its functions; other values are static.

    Raises:
        DataError: if the data do not fit the model's arguments.
        ModelError: if the model cannot be traced or has nothing that can be inferred.
    """
    with double_precision():
        kwargs = bind_arguments(model, read(data))
        inputs = Inputs(model, *split(kwargs), read_observe(observe))
        reading = _reading(inputs)
        dynamic = inputs.dynamic(reading.concrete)
        if reading.indices is not None:
            reading.indices.check(dynamic)
    program = reading.program
    return Problem(
        name=checks.model_name(model),
        program=program,
        arrays={
            "data": join(dynamic),
            "observe": inputs.observed,
            "centring": {
                s.name: np.zeros(s.centring) for s in program.latents if s.centring is not None
            },
        },
        rebind=functools.partial(_rebind, model, data, observe),
        predictor=functools.partial(
            predictor, model, observe, tuple(s.name for s in program.observed), data
        ),
        relations=functools.partial(relations, model, kwargs, inputs.observed),
    )


def predictor(
    model: Model,
    observe: Mapping[str, Any] | None,
    names: tuple[str, ...],
    fitted_to: Any,
    new_data: Any = None,
    sites: tuple[str, ...] | None = None,
) -> Predictor:
    """Return what draws the observed sites for other data; a missing response is None.

    Args:
        model: a NumPyro model function.
        observe: values of sites that the fit was conditioned on.
        names: the observed sites.
        fitted_to: data of the fit, or None where they are not at hand.
        new_data: data to predict for; None for those of the fit.
        sites: sites to return; None for the observed ones.
    """
    with double_precision():
        if new_data is None:
            kwargs = bind_arguments(model, read(fitted_to))
        else:
            kwargs = bind_arguments(model, read(new_data, like=fitted_to), response_optional=True)
        fixed = {n: v for n, v in read_observe(observe).items() if n not in names}
        inputs = Inputs(model, *split(kwargs), fixed)
        wanted = names if sites is None else sites
        key = (_key(inputs), names, wanted)
        found = simulator(key, inputs, names, wanted)
        if found.concrete:  # values set shapes, so they are part of the structure
            found = simulator((*key, _contents(inputs, found.concrete)), inputs, names, wanted)
        dynamic = inputs.dynamic(found.concrete)
        if found.indices is not None:
            found.indices.check(dynamic)
    return Predictor(found.simulate, dynamic)


def bind_arguments(
    model: Model, data: Mapping[str, Any], response_optional: bool = False
) -> dict[str, Any]:
    """Match data to the model's arguments.

    Args:
        model: the model function.
        data: values by name; of a frame, only columns that the model asks for are taken.
        response_optional: give None to arguments that are missing (for prediction).

    Raises:
        DataError: if an argument is missing or a name is not an argument of the model.
        ModelError: if the model's arguments cannot be given by name.
    """
    try:
        parameters = inspect.signature(model).parameters
    except (TypeError, ValueError) as error:
        raise ModelError(
            f"the arguments of {checks.model_name(model)} cannot be read: {error}"
        ) from error
    checks.check_parameters(model, parameters)
    takes_any = any(p.kind is p.VAR_KEYWORD for p in parameters.values())
    named = {n: p for n, p in parameters.items() if p.kind in checks.BY_NAME}
    checks.check_arguments(model, data, named, takes_any, required=not response_optional)
    bound = {name: data[name] for name in data if takes_any or name in named}
    if response_optional:
        bound.update({n: None for n, p in named.items() if n not in bound and p.default is p.empty})
    return bound


def _rebind(
    model: Model, fitted_to: Any, observe: Mapping[str, Any] | None, data: Any, more: Any = None
) -> Problem:
    return from_numpyro(model, read(data, like=fitted_to), observe if more is None else more)


def _reading(inputs: Inputs) -> Reading:
    """Read the model, unless one of the same structure has been read before."""
    key = _key(inputs)
    reading = _remembered(key, inputs)
    if reading.concrete:  # values set shapes, so they are part of the structure
        reading = _remembered((*key, _contents(inputs, reading.concrete)), inputs)
    return reading


def _remembered(key: Any, inputs: Inputs) -> Reading:
    if key not in _READINGS:
        _READINGS[key] = read_model(inputs)
        while len(_READINGS) > MAX_PROGRAMS:
            _READINGS.popitem(last=False)
    _READINGS.move_to_end(key)
    return _READINGS[key]


def _contents(inputs: Inputs, paths: frozenset[Path]) -> str:
    return fingerprint([(p, np.asarray(inputs.arrays[p])) for p in sorted(paths)])


def _key(inputs: Inputs) -> tuple[Any, ...]:
    """What a program depends on: the model with all it refers to, shapes, static values."""

    def kinds(arrays: Mapping[Any, Any]) -> tuple[Any, ...]:
        return tuple(
            sorted((n, np.shape(a), str(jax.dtypes.result_type(a))) for n, a in arrays.items())
        )

    static = fingerprint(sorted(inputs.static.items(), key=lambda item: item[0]))
    return fingerprint(inputs.model), kinds(inputs.arrays), kinds(inputs.observed), static
