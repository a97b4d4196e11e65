"""From a NumPyro model to its structure: sites, shapes, coordinates, what depends on what."""

import dataclasses
import functools
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from numpyro.infer import init_to_uniform

from taut._core.errors import ModelError
from taut._core.tracing import dependencies, shapes_of
from taut.problem import checks, coordinates
from taut.problem.data import Path, join, name_of
from taut.problem.indices import IndexCheck, make_check
from taut.problem.replay import Functions, Model, Trace, Whole, run
from taut.problem.types import Arrays, Latent, Observed, Program

VALUES_NEEDED = (jax.errors.JAXTypeError, jax.errors.JAXIndexError, NotImplementedError)


@dataclasses.dataclass(frozen=True)
class Reading:
    """What was read off a model.

    Attributes:
        program: its pure functions.
        concrete: arrays whose values set shapes, fixed inside the program.
        indices: checks the values of index arrays, or None where there are none.
    """

    program: Program
    concrete: frozenset[Path]
    indices: IndexCheck | None


@dataclasses.dataclass(frozen=True)
class Inputs:
    """A model with what it is given.

    Attributes:
        model: the model function.
        arrays: its data arrays.
        static: its other arguments.
        observed: values of sites to condition on.
    """

    model: Model
    arrays: Mapping[Path, Any]
    static: Mapping[Path, Any]
    observed: Mapping[str, Any]

    def dynamic(self, concrete: frozenset[Path]) -> dict[Path, Any]:
        """Arrays that travel as arguments."""
        return {p: a for p, a in self.arrays.items() if p not in concrete}

    def fixed(self, concrete: frozenset[Path]) -> dict[Path, Any]:
        """What is part of the structure."""
        return {**self.static, **{p: np.asarray(self.arrays[p]) for p in concrete}}


def read_model(inputs: Inputs) -> Reading:
    """Read a model's structure.

    Raises:
        DataError: if the data do not fit the model.
        ModelError: if the model cannot be traced or has nothing that can be inferred.
    """
    concrete = _concrete_arrays(inputs)
    facts = _abstract_trace(inputs, concrete, checks.read_sites)
    checks.check_sites(facts, inputs.observed)
    latents = _place(facts)
    functions = Functions(inputs.model, inputs.fixed(concrete), latents)
    example: Arrays = shapes_of(
        {
            "data": join(inputs.dynamic(concrete)),
            "observe": dict(inputs.observed),
            "centring": {s.name: np.zeros(s.centring) for s in latents if s.centring is not None},
        }
    )
    _check_randomness(inputs, functions, example)
    functions.latents = _with_parents(functions, latents, example)
    notes = [
        f"data {name_of(p)} is static: the model needs its values to set shapes"
        for p in sorted(concrete)
    ]
    program = _program(functions, facts, (*notes, *checks.structure_notes(facts)))
    return Reading(program, concrete, _index_check(program, inputs.dynamic(concrete), example))


def _program(
    functions: Functions, facts: list[checks.SiteFacts], notes: tuple[str, ...]
) -> Program:
    return Program(
        log_joint_sites=functions.log_joint_sites,
        constrain=functions.constrain,
        unconstrain=functions.unconstrain,
        log_likelihood=functions.log_likelihood,
        observed_values=functions.observed_values,
        latents=functions.latents,
        observed=tuple(
            Observed(f.name, f.shape, f.distribution, f.plates, f.dims)
            for f in facts
            if f.kind == "observed"
        ),
        deterministic={f.name: f.shape for f in facts if f.kind == "deterministic"},
        notes=notes,
    )


def _abstract_trace(
    inputs: Inputs, concrete: frozenset[Path], inspect: Callable[[Trace], Any], whole: bool = True
) -> Any:
    """Run the model without computing anything and return what ``inspect`` reads off it."""
    dynamic, fixed = inputs.dynamic(concrete), inputs.fixed(concrete)
    found: list[Any] = []

    def trace(arrays: list[Any], values: Mapping[str, Any]) -> int:
        kwargs = join(dict(zip(dynamic, arrays, strict=True)), fixed)
        model = inputs.model if whole else _as_written(inputs.model)
        found[:] = [inspect(run(model, kwargs, values, init_to_uniform, jax.random.key(0)))]
        return 0

    jax.eval_shape(trace, shapes_of(list(dynamic.values())), shapes_of(dict(inputs.observed)))
    return found[0]


def _as_written(model: Model) -> Whole:
    """The model, its plates left subsampled."""
    wrapped = Whole(model)
    wrapped.process_message = lambda msg: None  # type: ignore[method-assign]
    return wrapped


def _concrete_arrays(inputs: Inputs) -> frozenset[Path]:
    """Find the arrays whose values the model needs while it is traced (for shapes or branches)."""
    error = _failure(inputs, frozenset())
    if error is None:
        return frozenset()
    concrete = frozenset(inputs.arrays)
    if (error := _failure(inputs, concrete)) is not None:
        raise checks.model_failure(inputs.model, inputs.arrays, inputs.static, error) from error
    for path in inputs.arrays:
        if _failure(inputs, concrete - {path}) is None:
            concrete -= {path}
    return concrete


def _failure(inputs: Inputs, concrete: frozenset[Path]) -> Exception | None:
    """The error of tracing with these arrays concrete, if more of them might mend it."""
    try:
        _abstract_trace(inputs, concrete, checks.read_sites)
    except VALUES_NEEDED as error:
        return error
    except Exception as error:
        failure = checks.model_failure(inputs.model, inputs.arrays, inputs.static, error)
        if note := _subsampling_at_fault(inputs, concrete):
            raise type(failure)(f"{failure}. {note}") from error
        raise failure from error
    return None


def _subsampling_at_fault(inputs: Inputs, concrete: frozenset[Path]) -> str:
    """Say so if the model runs only with its plates subsampled."""
    try:
        plates = _abstract_trace(inputs, concrete, checks.subsampled, whole=False)
    except Exception:  # the model fails for another reason, which is being reported
        return ""
    if not plates:
        return ""
    return (
        f"The model subsamples {', '.join(plates)}; taut runs such plates at their full size, "
        "so give the model all of the data and let numpyro.subsample or the plate's indices pick"
    )


def _place(facts: list[checks.SiteFacts]) -> tuple[Latent, ...]:
    """Give each latent its slice of the flat vector."""
    latents, start = [], 0
    for fact in facts:
        if fact.kind != "latent":
            continue
        latent = Latent(
            name=fact.name,
            shape=fact.shape,
            support=fact.support,
            distribution=fact.distribution,
            plates=fact.plates,
            dims=fact.dims,
            unconstrained_shape=fact.unconstrained_shape,
            start=start,
            centring=fact.unconstrained_shape if fact.movable else None,
        )
        latents.append(latent)
        start = latent.stop
    return tuple(latents)


def _check_randomness(inputs: Inputs, functions: Functions, example: Arrays) -> None:
    """Refuse a density that depends on random numbers drawn outside of the model's sites."""
    whole = Whole(inputs.model)
    traced = Functions(whole, functions.fixed, functions.latents)

    def total(values: dict[str, Any], arrays: Arrays) -> dict[str, Any]:
        key = jax.random.wrap_key_data(values["key"])
        at = {s.name: jnp.zeros(s.unconstrained_shape) for s in functions.latents}
        return traced.sum_sites(traced.trace_sites(at, arrays, key), float)

    key = jax.ShapeDtypeStruct((2,), jnp.uint32)
    jax.eval_shape(total, {"key": key}, example)
    if not whole.draws_keys:
        return
    if fickle := sorted(
        n for n, found in dependencies(total, {"key": key}, example).items() if found
    ):
        raise ModelError(
            f"the density of site '{fickle[0]}' depends on random numbers that the model draws outside of its "
            "sites (numpyro.prng_key), so it is no fixed density: draw them with numpyro.sample, or pass them as data"
        )


def _with_parents(
    functions: Functions, latents: tuple[Latent, ...], example: Arrays
) -> tuple[Latent, ...]:
    """Record which latents each movable prior's location and scale depend on."""
    movable = [s.name for s in latents if s.centring is not None]
    if not movable:
        return latents

    def affines(values: dict[str, Any], arrays: Arrays) -> dict[str, Any]:
        trace = functions.trace_sites(values, {**arrays, "centring": {}})
        return {name: coordinates.affine_of(trace[name]["fn"]) for name in movable}

    inputs = {s.name: jax.ShapeDtypeStruct(s.unconstrained_shape, jnp.float64) for s in latents}
    parents = dependencies(affines, inputs, example)
    return tuple(
        dataclasses.replace(s, parents=tuple(sorted(parents.get(s.name, ())))) for s in latents
    )


def _index_check(
    program: Program, dynamic: Mapping[Path, Any], example: Arrays
) -> IndexCheck | None:
    def log_joint(u: Any, *arrays: Any) -> Any:
        data = join(dict(zip(shapes, arrays, strict=True)))
        sites = program.log_joint_sites(u, {**constants, "data": data})
        return functools.reduce(jnp.add, sites.values())

    constants = {
        name: jax.tree.map(lambda s: jnp.zeros(s.shape, s.dtype), example[name])
        for name in ("observe", "centring")
    }
    point = jax.ShapeDtypeStruct((program.dim,), jnp.float64)
    shapes = shapes_of(dict(dynamic))  # a mapped dict comes back in sorted order
    return make_check(log_joint, point, shapes)
