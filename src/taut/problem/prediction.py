"""Observed sites drawn anew, for the same or other data; and the model's graph."""

import collections
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
from numpyro import handlers

from taut._core.precision import double_precision
from taut._core.tracing import shapes_of
from taut.problem import checks
from taut.problem.data import Path, join
from taut.problem.indices import IndexCheck, make_check
from taut.problem.reading import Inputs
from taut.problem.replay import Model, Unobserve, Whole

MAX_SIMULATORS = 64
_SIMULATORS: collections.OrderedDict[Any, "Simulator"] = collections.OrderedDict()


class Simulator(NamedTuple):
    """A function (key, latents, arrays by path) -> sites.

    Attributes:
        simulate: the function.
        concrete: arrays fixed inside of it.
        indices: checks the values of index arrays, or None.
    """

    simulate: Callable[..., dict[str, Any]]
    concrete: frozenset[Path]
    indices: IndexCheck | None


def simulator(
    key: Any, inputs: Inputs, observed: tuple[str, ...], wanted: tuple[str, ...]
) -> Simulator:
    """Return what draws ``wanted`` sites of a model, once made, for the same key again.

    Args:
        key: of the model, the shapes of its data and the values of what is static.
        inputs: the model and its data; a missing response is None.
        observed: names of the sites that were observed in the fit, to be drawn anew.
        wanted: names of the sites to return.
    """
    if key not in _SIMULATORS:
        _SIMULATORS[key] = _make(inputs, observed, wanted)
        while len(_SIMULATORS) > MAX_SIMULATORS:
            _SIMULATORS.popitem(last=False)
    return _SIMULATORS[key]


def _make(inputs: Inputs, observed: tuple[str, ...], wanted: tuple[str, ...]) -> Simulator:
    def build(fixed: Mapping[Path, Any]) -> Any:
        def simulate(
            key: Any, values: Mapping[str, Any], arrays: Mapping[Path, Any]
        ) -> dict[str, Any]:
            model: Any = Whole(inputs.model)
            if inputs.observed:
                model = handlers.condition(model, data=dict(inputs.observed))
            replay = handlers.substitute(
                handlers.seed(Unobserve(model, observed), key), data=dict(values)
            )
            trace = handlers.trace(replay).get_trace(**join(arrays, fixed))
            return {n: trace[n]["value"] for n in wanted}

        return simulate

    simulate = build(inputs.static)
    key, shapes = jax.random.key(0), shapes_of(dict(inputs.arrays))

    def traced(
        key: Any, *arrays: Any
    ) -> dict[str, Any]:  # shapes: a mapped dict comes back in sorted order
        return simulate(key, {}, dict(zip(shapes, arrays, strict=True)))

    try:
        jax.eval_shape(traced, key, *shapes.values())
        return Simulator(simulate, frozenset(), make_check(traced, key, shapes))
    except (jax.errors.JAXTypeError, jax.errors.JAXIndexError):
        everything = frozenset(inputs.arrays)
        return Simulator(build(inputs.fixed(everything)), everything, None)
    except NotImplementedError:  # an improper prior cannot be drawn from; its value comes later
        return Simulator(simulate, frozenset(), None)
    except Exception as error:
        raise checks.model_failure(inputs.model, inputs.arrays, inputs.static, error) from error


def relations(
    model: Model, kwargs: Mapping[str, Any], observed: Mapping[str, Any]
) -> dict[str, Any]:
    """The model's graph, as NumPyro's ``get_model_relations`` gives it."""
    from numpyro.infer.inspect import get_model_relations

    conditioned = handlers.condition(model, data=dict(observed)) if observed else model
    with double_precision():
        return get_model_relations(conditioned, model_kwargs=dict(kwargs))
