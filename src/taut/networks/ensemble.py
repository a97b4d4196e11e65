"""Several posteriors found from different starts, as an even mixture."""

import dataclasses
from collections.abc import Sequence
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array
from typing_extensions import override

from taut._core.errors import ArgumentError
from taut.data.feeds import Batch
from taut.networks.mean_field import MeanField
from taut.networks.posteriors import (
    AbstractFinished,
    AbstractWeightPosterior,
    Curvature,
    Task,
    no_evidence,
    shuffled,
)
from taut.training import Optimisers

MEAN_FIELD = MeanField()


@dataclasses.dataclass(frozen=True)
class Ensemble(AbstractFinished):
    """An even mixture of posteriors of one kind, trained side by side in one program.

    The first member begins at the module's own weights, the others at shuffles of them. The ELBO
    is the mean over members, a lower bound on that of the mixture, which is higher by up to
    log(members).

    Attributes:
        of: the posterior of a member.
        members: how many, at least 2.
    """

    of: AbstractWeightPosterior = MEAN_FIELD
    members: int = 5
    name: ClassVar[str] = "ensemble"

    def __post_init__(self) -> None:
        """Check the settings."""
        count = self.members
        if isinstance(count, bool) or not isinstance(count, int) or count < 2:
            raise ArgumentError(f"members must be a whole number of at least 2, got {count!r}")
        if isinstance(self.of, Ensemble):
            raise ArgumentError("of: an ensemble of ensembles is an ensemble; give more members")

    @property
    def warmup(self) -> float:
        """That of a member."""
        return self.of.warmup

    @property
    def is_bound(self) -> bool:
        """Whether members maximise a bound."""
        return self.of.is_bound

    @override
    def start(
        self, task: Task, weights: Sequence[Array], likelihood: dict[str, Any], key: Array
    ) -> dict[str, Any]:
        keys = jax.random.split(key, self.members)
        found = [
            self.of.start(task, weights if i == 0 else shuffled(weights, k), likelihood, k)
            for i, k in enumerate(keys)
        ]
        members = jax.tree.map(lambda *parts: jnp.stack(parts), *found)
        return {"members": members, "likelihood": {}, "known": {}}

    @override
    def loss(
        self, task: Task, params: dict[str, Any], batch: Batch, key: Array, step: Array
    ) -> tuple[Array, dict[str, Array]]:
        keys = jax.random.split(key, self.members)
        member = lambda params, key: self.of.loss(task, params, batch, key, step)
        losses, info = jax.vmap(member)(params["members"], keys)
        # The sum, so that every member has its own gradient and not a share of it.
        return jnp.sum(losses), jax.tree.map(jnp.mean, info)

    @override
    def optimiser(self, task: Task) -> tuple[Optimisers, float | None]:
        choice, rate = self.of.optimiser(task)
        if not isinstance(choice, optax.GradientTransformation):
            return choice, rate
        inner = side_by_side(choice)

        def init(params: Any) -> Any:
            return inner.init(params["members"])

        def update(updates: Any, state: Any, params: Any = None, **extra: Any) -> Any:
            found, state = inner.update(updates["members"], state, params["members"], **extra)
            return {**updates, "members": found}, state

        return optax.GradientTransformationExtraArgs(init, update), None

    @override
    def finish(
        self, task: Task, params: dict[str, Any], chunks: Sequence[dict[str, Array]]
    ) -> tuple[dict[str, Any], Curvature]:
        if not isinstance(self.of, AbstractFinished):
            return params, no_evidence()
        found = [self.of.finish(task, self._member(params, i), chunks) for i in range(self.members)]
        members = jax.tree.map(lambda *parts: jnp.stack(parts), *(p for p, _ in found))
        return {**params, "members": members}, no_evidence()

    def _member(self, params: dict[str, Any], index: int) -> dict[str, Any]:
        return jax.tree.map(lambda v: v[index], params["members"])

    @override
    def outputs(self, task: Task, params: dict[str, Any], x: Array, keys: Array) -> Array:
        per_member = -(-len(keys) // self.members)
        # Draw k is of member k modulo their number; the last round may be cut short.
        padded = jnp.concatenate([keys, keys[: per_member * self.members - len(keys)]])
        each = lambda params, keys: self.of.outputs(task, params, x, keys)
        found = jax.vmap(each)(
            params["members"], padded.reshape(per_member, self.members).swapaxes(0, 1)
        )
        found = jnp.swapaxes(found, 0, 1)
        return found.reshape(-1, *found.shape[2:])[: len(keys)]

    @override
    def likelihood_params(self, task: Task, params: dict[str, Any], draws: int) -> dict[str, Any]:
        each = jax.vmap(task.likelihood_params)(params["members"])
        return jax.tree.map(lambda v: v[jnp.arange(draws) % self.members], each)

    @override
    def prior_scale(self, task: Task, params: dict[str, Any]) -> dict[str, float]:
        found = [self.of.prior_scale(task, self._member(params, i)) for i in range(self.members)]
        return {name: sum(f[name] for f in found) / len(found) for name in found[0]}

    @override
    def notes(self, task: Task) -> tuple[str, ...]:
        return self.of.notes(task)


def side_by_side(
    transform: optax.GradientTransformation,
) -> optax.GradientTransformationExtraArgs:
    """A transformation for several sets of parameters stacked along a first axis, each by itself."""
    inner = optax.with_extra_args_support(transform)

    def update(updates: Any, state: Any, params: Any = None, **extra: Any) -> Any:
        return jax.vmap(lambda u, s, p: inner.update(u, s, p, **extra))(updates, state, params)

    return optax.GradientTransformationExtraArgs(jax.vmap(inner.init), update)
