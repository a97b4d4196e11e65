"""A module's computation on one datum as a list of steps, and what its weights do in it.

The steps are read off the module's jaxpr, so that any module will do. Nested calls are entered
where they take a weight, and left whole elsewhere, so that they keep their own derivatives.
"""

import enum
import math
from collections.abc import Callable, Collection, Sequence
from typing import Any, NamedTuple

import jax
import jax.extend.core as jex
from jaxtyping import Array

CALLS = {
    "pjit": "jaxpr",
    "jit": "jaxpr",
    "closed_call": "call_jaxpr",
    "core_call": "call_jaxpr",
    "custom_jvp_call": "call_jaxpr",
    "custom_vjp_call": "call_jaxpr",
    "custom_vjp_call_jaxpr": "fun_jaxpr",
    "remat": "jaxpr",
    "remat2": "jaxpr",
    "checkpoint": "jaxpr",
}
# Each element of the result is an element of the operand, and every one occurs once.
LAYOUT = frozenset("transpose reshape squeeze expand_dims copy copy_p rev".split())


class Role(enum.Enum):
    """What a weight does in the computation on one datum."""

    PRODUCT = "is multiplied once with an input"
    POSITIONS = "is multiplied with several positions of the input"
    ADDED = "is added once"
    OTHER = "is used otherwise"


class Use(NamedTuple):
    """How a weight is used.

    Attributes:
        role: what it does.
        fan_in: elements of the input that one output sums over; None where it is no factor.
        reason: for messages, why the role is OTHER.
    """

    role: Role
    fan_in: int | None
    reason: str = ""


class Step(NamedTuple):
    """One primitive operation; values live in numbered slots."""

    primitive: Any
    params: dict[str, Any]
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]

    @property
    def name(self) -> str:
        """Name of the primitive."""
        return self.primitive.name

    def bind(self, *values: Any) -> list[Any]:
        """Apply the operation to arrays."""
        found = self.primitive.get_bind_params(self.params)
        # Older releases of JAX give the functions of a call apart from its parameters.
        functions, params = found if isinstance(found, tuple) else ((), found)
        found = self.primitive.bind(*functions, *values, **params)
        return list(found) if self.primitive.multiple_results else [found]


class Program(NamedTuple):
    """The computation of a module on one datum.

    Attributes:
        steps: in order.
        constants: slot -> value known from the start.
        weights: slots of the weights.
        datum: slot of the datum.
        output: slot of the output.
        shapes: slot -> shape.
        uses: slot -> the number of its uses, as the output included.
    """

    steps: tuple[Step, ...]
    constants: dict[int, Any]
    weights: tuple[int, ...]
    datum: int
    output: int
    shapes: dict[int, tuple[int, ...]]
    uses: dict[int, int]


def trace(apply: Callable[[list[Array], Array], Array], weights: Sequence[Any], x: Any) -> Program:
    """Read the steps of a function of weights and one datum.

    Args:
        apply: (weights, datum) -> one array.
        weights: arrays or shapes.
        x: the datum, an array or a shape.
    """
    closed = jax.make_jaxpr(apply)(list(weights), x)
    return _Reader().read(closed, len(weights))


class _Reader:
    """Numbers the variables of a jaxpr and of the calls in it that take weights."""

    def __init__(self) -> None:
        self.steps: list[Step] = []
        self.constants: dict[int, Any] = {}
        self.shapes: dict[int, tuple[int, ...]] = {}
        self.of_weight: set[int] = set()

    def read(self, closed: Any, num_weights: int) -> Program:
        inputs = [self._slot(v.aval.shape) for v in closed.jaxpr.invars]
        self.of_weight.update(inputs[:num_weights])
        (output,) = self._run(closed.jaxpr, closed.consts, inputs)
        steps = _live(self.steps, output)
        uses: dict[int, int] = {output: 1}
        for step in steps:
            for slot in step.inputs:
                uses[slot] = uses.get(slot, 0) + 1
        weights = tuple(inputs[:num_weights])
        return Program(steps, self.constants, weights, inputs[-1], output, self.shapes, uses)

    def _slot(self, shape: tuple[int, ...]) -> int:
        self.shapes[slot := len(self.shapes)] = tuple(shape)
        return slot

    def _constant(self, value: Any) -> int:
        self.constants[slot := self._slot(getattr(value, "shape", ()))] = value
        return slot

    def _run(self, jaxpr: Any, consts: Sequence[Any], inputs: Sequence[int]) -> list[int]:
        known = dict(zip(jaxpr.constvars, map(self._constant, consts), strict=True))
        known.update(zip(jaxpr.invars, inputs, strict=True))

        def slot_of(atom: Any) -> int:
            return self._constant(atom.val) if isinstance(atom, jex.Literal) else known[atom]

        for eqn in jaxpr.eqns:
            given = [slot_of(atom) for atom in eqn.invars]
            known.update(zip(eqn.outvars, self._equation(eqn, given), strict=True))
        return [slot_of(atom) for atom in jaxpr.outvars]

    def _equation(self, eqn: Any, given: list[int]) -> list[int]:
        name = eqn.primitive.name
        of_weight = not self.of_weight.isdisjoint(given)
        if of_weight and name in CALLS:
            inner = eqn.params[CALLS[name]]
            jaxpr, consts = (inner.jaxpr, inner.consts) if hasattr(inner, "consts") else (inner, ())
            return self._run(jaxpr, consts, given)
        outputs = [self._slot(v.aval.shape) for v in eqn.outvars]
        step = Step(eqn.primitive, dict(eqn.params), tuple(given), tuple(outputs))
        if of_weight and is_layout(step, self.shapes):
            self.of_weight.update(outputs)
        self.steps.append(step)
        return outputs


def _live(steps: Sequence[Step], output: int) -> tuple[Step, ...]:
    """The steps that the output depends on."""
    needed, kept = {output}, []
    for step in reversed(steps):
        if not needed.isdisjoint(step.outputs):
            needed.update(step.inputs)
            kept.append(step)
    return tuple(reversed(kept))


def is_layout(step: Step, shapes: dict[int, tuple[int, ...]]) -> bool:
    """Whether a step only rearranges its operand, repeating nothing."""
    if step.name == "broadcast_in_dim":
        return math.prod(shapes[step.inputs[0]]) == math.prod(shapes[step.outputs[0]])
    if step.name == "convert_element_type":
        return jax.numpy.issubdtype(step.params["new_dtype"], jax.numpy.floating)
    return step.name in LAYOUT


def uses(program: Program) -> tuple[Use, ...]:
    """How each weight is used."""
    return tuple(_use(program, slot) for slot in program.weights)


def _use(program: Program, slot: int) -> Use:
    while True:
        if slot not in program.uses:
            return Use(Role.ADDED, None)
        if program.uses[slot] > 1:
            return Use(Role.OTHER, None, "it is used more than once")
        step = next((s for s in program.steps if slot in s.inputs), None)
        if step is None:
            return Use(Role.OTHER, None, "it is returned as it is")
        if not is_layout(step, program.shapes):
            return _end_use(program, step, slot)
        slot = step.outputs[0]


def _end_use(program: Program, step: Step, slot: int) -> Use:
    """The use of a weight whose layout's only use is a step that is no layout."""
    other = next((s for s in step.inputs if s != slot), None)
    if step.name in ("dot_general", "conv_general_dilated") and other is not None:
        if _roots(program, other):
            return Use(Role.OTHER, None, "it is multiplied with another weight")
        found = (
            _dot(program, step, slot) if step.name == "dot_general" else _conv(program, step, slot)
        )
        if found is not None:
            fan_in, positions = found
            return Use(Role.POSITIONS if positions > 1 else Role.PRODUCT, fan_in)
    same = all(program.shapes[s] == program.shapes[step.outputs[0]] for s in step.inputs)
    if step.name in ("add", "sub", "add_any") and same:
        return Use(Role.ADDED, None)
    return Use(Role.OTHER, None, f"it goes into '{step.name}'")


def _roots(program: Program, slot: int) -> bool:
    """Whether a slot is a weight or a layout of one."""
    while slot not in program.weights:
        step = next((s for s in program.steps if slot in s.outputs), None)
        if step is None or not is_layout(step, program.shapes):
            return False
        slot = step.inputs[0]
    return True


def _dot(program: Program, step: Step, slot: int) -> tuple[int, int]:
    """Fan-in, and the number of positions that the weight meets."""
    contract, batch = step.params["dimension_numbers"]
    side = step.inputs.index(slot)
    shape, other = program.shapes[slot], program.shapes[step.inputs[1 - side]]
    taken = {*contract[1 - side], *batch[1 - side]}
    positions = math.prod(n for axis, n in enumerate(other) if axis not in taken)
    return math.prod(shape[axis] for axis in contract[side]), positions


def _conv(program: Program, step: Step, slot: int) -> tuple[int, int] | None:
    """Fan-in, and the number of positions that the kernel meets; None where it is the image."""
    if step.inputs.index(slot) != 1 or step.params["batch_group_count"] != 1:
        return None
    numbers, kernel = step.params["dimension_numbers"], program.shapes[slot]
    out = program.shapes[step.outputs[0]]
    fan_in = math.prod(kernel) // kernel[numbers.rhs_spec[0]]
    return fan_in, math.prod(out) // out[numbers.out_spec[1]]


_AFFINE = frozenset(
    "add sub add_any neg reduce_sum concatenate convert_element_type broadcast_in_dim slice".split()
)
_BILINEAR = frozenset(("mul", "dot_general", "conv_general_dilated"))


def is_affine(program: Program, weights: Collection[int]) -> bool:
    """Whether the output is an affine function of some weights together, all others held fixed.

    Args:
        program: the steps.
        weights: slots.
    """
    reached = set(weights)
    for step in program.steps:
        hit = [slot for slot in step.inputs if slot in reached]
        if not hit:
            continue
        alone = len(hit) == 1
        linear = (
            step.name in _AFFINE
            or is_layout(step, program.shapes)
            or (step.name in _BILINEAR and alone)
            or (step.name == "div" and alone and hit[0] == step.inputs[0])
        )
        if not linear:
            return False
        reached.update(step.outputs)
    return program.output in reached
