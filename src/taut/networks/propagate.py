r"""A module's output on one datum while its weights are independent Gaussians.

A product of a Gaussian weight :math:`W_{ij} \sim N(m_{ij}, s_{ij}^2)` with an input :math:`x` is
Gaussian with mean :math:`\sum_j m_{ij} x_j` and variance :math:`\sum_j s_{ij}^2 x_j^2`, independent
across :math:`i`. Drawing it instead of :math:`W`, anew for every datum, leaves the law of the output
for each datum as it is, and makes the noise of different data independent (local
reparameterisation; Kingma, Salimans and Welling 2015). Sums of such values stay Gaussian and are
drawn when something else needs them; an output that is still Gaussian is given as such.

A weight that meets several positions of one datum (convolutions, sequences) makes them dependent.
Its draw is then shared by the batch with random signs for every datum (flipout; Wen et al. 2018),
which keeps the law of all positions together; ``marginal`` draws positions independently instead,
the usual approximation (Molchanov, Ashukha and Vetrov 2017).
"""

import enum
import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax.numpy as jnp
from jaxtyping import Array

from taut.networks.program import Program, Role, Step, Use, is_layout

SMALL_WEIGHT = 1024  # elements that may be drawn anew for every datum


class Treatment(enum.Enum):
    """How the randomness of a weight enters; the value says so to a reader."""

    LOCAL = "drawn as pre-activations of each datum"
    MARGINAL = (
        "drawn as pre-activations of each datum and position, as if positions were independent"
    )
    FLIPOUT = "one draw for the batch, with random signs for each datum"
    DATUM = "drawn anew for each datum"
    SHARED = "one draw for the batch"


class Gaussian(NamedTuple):
    """Independent Gaussians, mean and variance of one shape."""

    mean: Array
    variance: Array


class _Weight(NamedTuple):
    """A weight that has not been drawn: mean, sd, standard normal noise that the batch shares."""

    mean: Array
    scale: Array
    noise: Array | None
    treatment: Treatment

    def map(self, step: Step) -> "_Weight":
        """The same with its elements rearranged."""
        noise = None if self.noise is None else step.bind(self.noise)[0]
        return _Weight(step.bind(self.mean)[0], step.bind(self.scale)[0], noise, self.treatment)


class Noise:
    """Standard normal numbers for one datum, handed out in order.

    Args:
        values: as many as will be asked for; None counts only.
    """

    def __init__(self, values: Array | None) -> None:
        self.values, self.used = values, 0

    def normal(self, shape: tuple[int, ...], dtype: Any) -> Array:
        """The next numbers, as an array of a shape."""
        start, count = self.used, math.prod(shape)
        self.used += count
        if self.values is None:
            return jnp.zeros(shape, dtype)
        return self.values[start : self.used].reshape(shape).astype(dtype)


def treat(use: Use, size: int, estimator: str, positions: str = "flipout") -> Treatment:
    """How a weight's randomness enters.

    Args:
        use: what the weight does.
        size: its number of elements.
        estimator: "local", "flipout" or "shared".
        positions: "flipout" or "marginal": what "local" does where a weight meets several positions.
    """
    if estimator == "shared":
        return Treatment.SHARED
    if use.role in (Role.PRODUCT, Role.POSITIONS):
        if estimator == "flipout":
            return Treatment.FLIPOUT
        if use.role is Role.PRODUCT:
            return Treatment.LOCAL
        return Treatment.MARGINAL if positions == "marginal" else Treatment.FLIPOUT
    if use.role is Role.ADDED and estimator == "local":
        return Treatment.LOCAL
    return Treatment.DATUM if size <= SMALL_WEIGHT else Treatment.SHARED


def propagate(
    program: Program,
    treatments: Sequence[Treatment],
    means: Sequence[Array],
    scales: Sequence[Array],
    shared: Sequence[Array | None],
    noise: Noise,
    x: Array,
) -> Array | Gaussian:
    """The output for one datum: an array, or a Gaussian that has not been drawn.

    Args:
        program: the module's steps.
        treatments: of each weight.
        means: of each weight.
        scales: standard deviations of each weight.
        shared: standard normal noise of each weight that the batch shares; None where none is
            needed.
        noise: of this datum.
        x: the datum.
    """
    values: dict[int, Any] = dict(program.constants)
    values[program.datum] = x
    parts = zip(program.weights, treatments, means, scales, shared, strict=True)
    for slot, treatment, mean, scale, common in parts:
        if treatment is Treatment.SHARED:
            assert common is not None
            values[slot] = mean + scale * common
        elif treatment is Treatment.DATUM:
            values[slot] = mean + scale * noise.normal(mean.shape, mean.dtype)
        else:
            values[slot] = _Weight(mean, scale, common, treatment)
    for step in program.steps:
        found = _step(program, step, [values[slot] for slot in step.inputs], noise)
        for slot, value in zip(step.outputs, found, strict=True):
            # What two steps use has to be one draw.
            several = isinstance(value, Gaussian) and program.uses.get(slot, 0) > 1
            values[slot] = _drawn(value, noise) if several else value
    return values[program.output]


def needs_shared(treatment: Treatment) -> bool:
    """Whether a weight has noise that the batch shares."""
    return treatment in (Treatment.SHARED, Treatment.FLIPOUT)


def _step(program: Program, step: Step, given: list[Any], noise: Noise) -> list[Any]:
    special = [x for x in given if isinstance(x, _Weight | Gaussian)]
    if not special:
        return step.bind(*given)
    if is_layout(step, program.shapes):
        (x,) = given
        return [x.map(step) if isinstance(x, _Weight) else _rearranged(step, x)]
    if isinstance(special[0], _Weight) and step.name in ("dot_general", "conv_general_dilated"):
        side = 0 if isinstance(given[0], _Weight) else 1
        return [_product(step, side, given[side], _drawn(given[1 - side], noise), noise)]
    if step.name in ("add", "sub", "add_any"):
        return [_sum(step, *map(_as_gaussian, given))]
    if step.name == "neg":
        return [Gaussian(-given[0].mean, given[0].variance)]
    if step.name == "mul" and sum(isinstance(x, Gaussian) for x in given) == 1:
        gaussian, factor = sorted(given, key=lambda x: not isinstance(x, Gaussian))
        return [Gaussian(gaussian.mean * factor, gaussian.variance * factor**2)]
    return step.bind(*(_drawn(x, noise) for x in given))


def _rearranged(step: Step, x: Gaussian) -> Gaussian:
    return Gaussian(step.bind(x.mean)[0], step.bind(x.variance)[0])


def _as_gaussian(x: Any) -> Any:
    return Gaussian(x.mean, x.scale**2) if isinstance(x, _Weight) else x


def _sum(step: Step, left: Any, right: Any) -> Gaussian:
    """Sum or difference; each weight is used once, so the two are independent."""
    means = [x.mean if isinstance(x, Gaussian) else x for x in (left, right)]
    variances = [x.variance for x in (left, right) if isinstance(x, Gaussian)]
    mean = step.bind(*means)[0]
    return Gaussian(mean, jnp.broadcast_to(sum(variances[1:], variances[0]), mean.shape))


def _drawn(x: Any, noise: Noise) -> Any:
    if not isinstance(x, Gaussian):
        return x
    return x.mean + root(x.variance) * noise.normal(x.mean.shape, x.mean.dtype)


def root(variance: Array) -> Array:
    """Square root with a gradient of zero at zero, where inputs are zero and nothing is random."""
    positive = variance > 0
    return jnp.where(positive, jnp.sqrt(jnp.where(positive, variance, 1.0)), 0.0)


def _product(step: Step, side: int, weight: _Weight, x: Array, noise: Noise) -> Any:
    def product(w: Array, x: Array) -> Array:
        return step.bind(*((w, x) if side == 0 else (x, w)))[0]

    mean = product(weight.mean, x)
    if weight.treatment is not Treatment.FLIPOUT:
        return Gaussian(mean, product(weight.scale**2, x**2))
    dot = step.name == "dot_general"
    before, after = _dot_signs(step, side, x, mean) if dot else _conv_signs(step, x, mean)
    before = jnp.sign(noise.normal(before, x.dtype))
    after = jnp.sign(noise.normal(after, x.dtype))
    assert weight.noise is not None
    return mean + product(weight.scale * weight.noise, x * before) * after


def _dot_signs(step: Step, side: int, x: Array, out: Array) -> tuple[Any, Any]:
    """Shapes of the signs of the input and of the output; 1 where positions share them."""
    contract, batch = step.params["dimension_numbers"]
    taken = {*contract[1 - side], *batch[1 - side]}
    before = tuple(n if axis in taken else 1 for axis, n in enumerate(x.shape))
    # The axes of the result are those of the batch, of the left and of the right operand.
    free = x.ndim - len(taken)
    start = len(batch[0]) if side == 1 else out.ndim - free
    after = tuple(1 if start <= axis < start + free else n for axis, n in enumerate(out.shape))
    return before, after


def _conv_signs(step: Step, x: Array, out: Array) -> tuple[Any, Any]:
    numbers = step.params["dimension_numbers"]
    channels, features = numbers.lhs_spec[1], numbers.out_spec[1]
    before = tuple(n if axis == channels else 1 for axis, n in enumerate(x.shape))
    after = tuple(n if axis == features else 1 for axis, n in enumerate(out.shape))
    return before, after
