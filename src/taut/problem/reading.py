"""From a NumPyro model to its structure: sites, shapes, coordinates, what depends on what."""

import dataclasses
import functools
from collections.abc import Mapping
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
from taut.problem.replay import Functions, Model, Whole, run
from taut.problem.summed import sum_out, without_discrete
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
    concrete, seen = _look(inputs)
    facts = seen.facts
    checks.check_sites(facts, inputs.observed)
    latents, discrete = _place(facts)
    functions = Functions(inputs.model, inputs.fixed(concrete), latents, discrete)
    example: Arrays = shapes_of(
        {
            "data": join(inputs.dynamic(concrete)),
            "observe": dict(inputs.observed),
            "centring": {s.name: np.zeros(s.centring) for s in latents if s.centring is not None},
        }
    )
    if seen.draws_keys:
        _check_randomness(functions, example)
    summed = None
    if discrete:
        summed = sum_out(functions, example)
        kept = {s.name for s in functions.latents if s.centring is not None}
        example["centring"] = {n: v for n, v in example["centring"].items() if n in kept}
    functions.latents = _with_parents(functions, functions.latents, example)
    notes = [
        f"data {name_of(p)} is static: the model needs its values to set shapes"
        for p in sorted(concrete)
    ]
    program = _program(functions, facts, (*notes, *checks.structure_notes(facts)))
    if summed is not None:
        program = without_discrete(program, summed)
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
        densities=functions.densities,
        latents=functions.latents,
        observed=tuple(
            Observed(f.name, f.shape, f.distribution, f.plates, f.dims)
            for f in facts
            if f.kind == "observed"
        ),
        deterministic={f.name: f.shape for f in facts if f.kind == "deterministic"},
        notes=notes,
    )


@dataclasses.dataclass(frozen=True)
class _Seen:
    """What an abstract run of the model shows."""

    facts: list[checks.SiteFacts]
    subsampled: list[str]
    draws_keys: bool


def _abstract_trace(inputs: Inputs, concrete: frozenset[Path], whole: bool = True) -> _Seen:
    """Run the model without computing anything and return what it shows."""
    dynamic, fixed = inputs.dynamic(concrete), inputs.fixed(concrete)
    model = Whole(inputs.model, whole)
    found: list[Any] = []

    def trace(arrays: list[Any], values: Mapping[str, Any]) -> int:
        kwargs = join(dict(zip(dynamic, arrays, strict=True)), fixed)
        sites = run(model, kwargs, values, init_to_uniform, jax.random.key(0))
        found[:] = [checks.read_sites(sites), checks.subsampled(sites)]
        return 0

    jax.eval_shape(trace, shapes_of(list(dynamic.values())), shapes_of(dict(inputs.observed)))
    facts, plates = found
    return _Seen(facts, plates, model.draws_keys)


def _look(inputs: Inputs) -> tuple[frozenset[Path], _Seen]:
    """Find the arrays whose values the model needs while it is traced, and what it then shows."""
    seen = _try(inputs, frozenset())
    if isinstance(seen, _Seen):
        return frozenset(), seen
    concrete = frozenset(inputs.arrays)
    seen = _try(inputs, concrete)
    if not isinstance(seen, _Seen):
        raise checks.model_failure(inputs.model, inputs.arrays, inputs.static, seen) from seen
    for path in inputs.arrays:
        fewer = _try(inputs, concrete - {path})
        if isinstance(fewer, _Seen):
            concrete, seen = concrete - {path}, fewer
    return concrete, seen


def _try(inputs: Inputs, concrete: frozenset[Path]) -> _Seen | Exception:
    """What the model shows with these arrays concrete, or the error that more might mend."""
    try:
        return _abstract_trace(inputs, concrete)
    except VALUES_NEEDED as error:
        return error
    except Exception as error:
        failure = checks.model_failure(inputs.model, inputs.arrays, inputs.static, error)
        if note := _subsampling_at_fault(inputs, concrete):
            raise type(failure)(f"{failure}. {note}") from error
        raise failure from error


def _subsampling_at_fault(inputs: Inputs, concrete: frozenset[Path]) -> str:
    """Say so if the model runs only with its plates subsampled."""
    try:
        plates = _abstract_trace(inputs, concrete, whole=False).subsampled
    except Exception:  # the model fails for another reason, which is being reported
        return ""
    if not plates:
        return ""
    return (
        f"The model subsamples {', '.join(plates)}; taut runs such plates at their full size, "
        "so give the model all of the data and let numpyro.subsample or the plate's indices pick"
    )


def _place(
    facts: list[checks.SiteFacts],
) -> tuple[tuple[Latent, ...], tuple[Latent, ...]]:
    """Give each continuous latent its slice of the flat vector; the discrete ones apart."""
    latents, discrete, start = [], [], 0
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
            discrete=fact.discrete,
            num_values=fact.num_values,
        )
        if fact.discrete:
            latent = dataclasses.replace(latent, unconstrained_shape=(0,), support="finite")
            discrete.append(latent)
        else:
            latents.append(latent)
            start = latent.stop
    return tuple(latents), tuple(discrete)


def _check_randomness(functions: Functions, example: Arrays) -> None:
    """Refuse a density that depends on random numbers drawn outside of the model's sites."""

    def total(values: dict[str, Any], arrays: Arrays) -> dict[str, Any]:
        key = jax.random.wrap_key_data(values["key"])
        at = {s.name: jnp.zeros(s.unconstrained_shape) for s in functions.latents}
        return functions.sum_sites(functions.trace_sites(at, arrays, key), float)

    key = {"key": jax.ShapeDtypeStruct((2,), jnp.uint32)}
    if fickle := sorted(n for n, found in dependencies(total, key, example).items() if found):
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
