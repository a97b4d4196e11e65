r"""Natural-gradient steps for mean-field Gaussians at the cost of Adam (IVON).

Source: Shen et al. (2024), Variational Learning is Effective for Large Deep Networks, algorithm 1;
the positive-definite update is that of Lin, Schmidt and Khan (2020), Handling the Positive-Definite
Constraint in the Bayesian Learning Rule. With :math:`\lambda = N` over the tempering,
:math:`\sigma^2 = 1 / (\lambda (h + \delta))` and the reparameterisation trick's Hessian estimate
:math:`\hat h = \nabla_\sigma \bar\ell / \sigma`, which for one shared draw
:math:`\theta = m + \sigma \epsilon` is the paper's :math:`\hat g\,(\theta - m) / \sigma^2`,

.. math::

    g &\leftarrow \beta_1 g + (1 - \beta_1) \hat g, \\
    h &\leftarrow \beta_2 h + (1 - \beta_2) \hat h
        + \tfrac12 (1 - \beta_2)^2 (h - \hat h)^2 / (h + \delta), \\
    m &\leftarrow m - \alpha\, (g / (1 - \beta_1^t) + \delta m) / (h + \delta).

The gradient with respect to the sd is taken by any estimator, so that local reparameterisation's
low variance is to be had here too, which the paper has not. While the divergence from the prior is
weighted down by w, these steps with the full :math:`\lambda` are the algorithm's for the loss divided
by w, with both step sizes, :math:`\alpha` and :math:`1 - \beta_2`, multiplied by w.
"""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any, ClassVar, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array
from typing_extensions import override

from taut._core.errors import ArgumentError
from taut.data.feeds import Batch
from taut.networks.mean_field import check_common, gaussian_draw
from taut.networks.posteriors import (
    AbstractWeightPosterior,
    Task,
    bound,
    describe,
    expected_log_likelihood,
    expected_outputs,
    prior_scales,
    sampled_outputs,
    treatments,
)
from taut.networks.priors import divergence
from taut.training import Optimisers

OTHERS_RATE = 1e-2  # Adam's, for the likelihood's own parameters
LONGEST = 0.1  # step of a mean, in sds of its prior


class IVONState(NamedTuple):
    """State of the natural-gradient steps.

    Attributes:
        momentum: of the gradient with respect to the means, without the prior's part.
        steps: that were taken.
        others: of Adam, for everything but the weights.
    """

    momentum: Any
    steps: Array
    others: Any


def ivon(
    prior: Callable[[Any, Any], tuple[Any, Any]],
    ess: float,
    learning_rate: float,
    beta1: float,
    beta2: float,
) -> optax.GradientTransformationExtraArgs:
    """Steps for parameters {"mean", "scale", ...}, as an Optax transformation.

    The loss is minus the ELBO per row, the divergence from the prior included; its known share in
    the gradients is taken out again where the algorithm has it apart.

    Args:
        prior: (means, sds) -> prior means and prior precisions, each like the means.
        ess: effective sample size, N over the tempering; positive.
        learning_rate: step of the means relative to a Newton step, in (0, 1].
        beta1: decay of the gradient's average.
        beta2: decay of the Hessian's average; the share of a new estimate is 1 - beta2.

    Returns:
        A transformation; ``rate`` among its extra arguments multiplies the learning rate.
    """
    adam = optax.adam(OTHERS_RATE)
    settings = _Rates(learning_rate, beta1, beta2)

    def init(params: Any) -> IVONState:
        momentum = jax.tree.map(jnp.zeros_like, params["mean"])
        return IVONState(momentum, jnp.zeros((), int), adam.init(_others(params)))

    def update(updates: Any, state: Any, params: Any = None, **extra: Any) -> Any:
        rate = jnp.asarray(extra.get("rate", 1.0))
        known = prior(params["mean"], params["scale"])
        found, momentum = _weights_step(updates, state, params, rate, ess, known, settings)
        others, inner = adam.update(_others(updates), state.others, _others(params))
        others = jax.tree.map(lambda u: (u * rate).astype(u.dtype), others)
        return {**found, **others}, IVONState(momentum, state.steps + 1, inner)

    return optax.GradientTransformationExtraArgs(init, update)


class _Rates(NamedTuple):
    learning_rate: float
    beta1: float
    beta2: float


def _weights_step(
    grads: Any, state: Any, params: Any, rate: Array, ess: float, known: Any, rates: _Rates
) -> tuple[dict[str, Any], Any]:
    """Updates of means and sds, and the next momentum."""
    (centre, precision), (step, beta1, beta2) = known, rates
    pull = jax.tree.map(lambda m, c, p: (m - c) * p / ess, params["mean"], centre, precision)
    momentum = jax.tree.map(
        lambda g, new, d: beta1 * g + (1 - beta1) * (new - d), state.momentum, grads["mean"], pull
    )
    debias = 1 - beta1 ** (state.steps + 1).astype(jnp.float32)
    # h + delta, in which alone the Hessian's update is to be had without the prior.
    total = jax.tree.map(lambda g, s: _precision(g, s, ess, beta2), grads["scale"], params["scale"])
    mean = jax.tree.map(
        lambda g, d, h, p: _step(step * rate, (g / debias + d) / h, p).astype(g.dtype),
        momentum, pull, total, precision,
    )  # fmt: skip
    scale = jax.tree.map(
        lambda h, s: (1 / jnp.sqrt(ess * h)).astype(s.dtype) - s, total, params["scale"]
    )
    return {"mean": mean, "scale": scale}, momentum


def _step(rate: Array, newton: Array, prior_precision: Array) -> Array:
    """A step of the means, none longer than a tenth of the prior's sd, as the published code clips.

    Where the curvature is underestimated a single step could leave the region that it holds for.
    """
    most = LONGEST / jnp.sqrt(prior_precision)
    return jnp.clip(-rate * newton, -most, most)


def _others(params: Any) -> Any:
    return {name: part for name, part in params.items() if name not in ("mean", "scale")}


def _precision(gradient: Array, scale: Array, ess: float, beta2: float) -> Array:
    """The next h + delta: positive whatever the estimate (Lin, Schmidt and Khan 2020)."""
    now = 1 / (ess * scale**2)
    # The entropy's share of the gradient is -1 / (ess * scale).
    estimate = (gradient + 1 / (ess * scale)) / scale
    step = (1 - beta2) * (estimate - now)
    return now + step + 0.5 * step**2 / now


@dataclasses.dataclass(frozen=True)
class IVON(AbstractWeightPosterior):
    """The mean-field Gaussian by natural gradients, the cheapest posterior for large networks.

    Attributes:
        learning_rate: step of the means relative to a Newton step.
        beta1: decay of the gradient's average.
        beta2: decay of the Hessian's average; nearer to one for larger networks and longer runs.
        estimator: of the weights' randomness; "shared" is the published algorithm, see
            :class:`MeanField`.
        initial_scale: sd of every weight at the start.
        positions: see :class:`MeanField`.
        warmup: see :class:`MeanField`.
    """

    learning_rate: float = 0.3
    beta1: float = 0.9
    beta2: float = 0.995
    estimator: str = "local"
    initial_scale: float = 0.02
    positions: str = "flipout"
    warmup: float = 0.5
    name: ClassVar[str] = "ivon"

    def __post_init__(self) -> None:
        """Check the settings."""
        check_common(self)
        for name, value in (("beta1", self.beta1), ("beta2", self.beta2)):
            if not 0 <= value < 1:
                raise ArgumentError(f"{name} must be at least 0 and below 1, got {value}")
        if not 0 < self.learning_rate <= 1:
            raise ArgumentError(
                f"learning_rate must be positive and at most 1, a Newton step, got {self.learning_rate}"
            )

    @override
    def start(
        self, task: Task, weights: Sequence[Array], likelihood: dict[str, Any], key: Array
    ) -> dict[str, Any]:
        scale = [jnp.full_like(w, self.initial_scale) for w in weights]
        return {"mean": list(weights), "scale": scale, **likelihood}

    @override
    def loss(
        self, task: Task, params: dict[str, Any], batch: Batch, key: Array, step: Array
    ) -> tuple[Array, dict[str, Array]]:
        found = treatments(task, self.estimator, self.positions)
        x, y = batch.columns["x"], batch.columns["y"]
        means, scales = params["mean"], params["scale"]
        outputs, noise = expected_outputs(task, found, means, scales, x, key)
        log_likelihood = expected_log_likelihood(
            task, outputs, noise, task.likelihood_params(params), y
        )
        return bound(task, batch, log_likelihood, divergence(task.priors, means, scales), step)

    @override
    def optimiser(self, task: Task) -> tuple[Optimisers, float | None]:
        def prior(means: Any, scales: Any) -> tuple[Any, Any]:
            parts = list(zip(task.priors, means, scales, strict=True))
            centre = [jnp.full_like(m, p.mean) for p, m, _ in parts]
            return centre, [jnp.full_like(m, 1.0) / p.variance(m, s) for p, m, s in parts]

        ess = task.num_rows / task.tempering
        return ivon(prior, ess, self.learning_rate, self.beta1, self.beta2), None

    @override
    def outputs(self, task: Task, params: dict[str, Any], x: Array, keys: Array) -> Array:
        means, scales = params["mean"], params["scale"]
        return sampled_outputs(task, lambda k: gaussian_draw(means, scales, k), x, keys)

    @override
    def prior_scale(self, task: Task, params: dict[str, Any]) -> dict[str, float]:
        return prior_scales(task, params["mean"], params["scale"])

    @override
    def notes(self, task: Task) -> tuple[str, ...]:
        return describe(task, treatments(task, self.estimator, self.positions), self.estimator)
