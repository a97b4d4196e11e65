"""What all trained models have in common."""

import abc
import functools
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import equinox as eqx
import jax
import numpy as np

from taut._core.errors import ArgumentError, listing, nearest
from taut._core.status import Status
from taut.deep.evaluation import CHUNK, columns_of
from taut.deep.objective import AbstractObjective
from taut.deep.rows import RowModel
from taut.deep.training import Fitted

if TYPE_CHECKING:
    import pandas as pd

PREDICTED = 200  # draws, where none are asked for


class AbstractTrained(abc.ABC):
    """A model trained by stochastic gradients."""

    _fitted: Fitted
    seed: int

    @property
    def name(self) -> str:
        """The model's name."""
        return self._model.name

    @property
    def _model(self) -> RowModel:
        return self._fitted.model

    @property
    def _parameters(self) -> Any:
        return self._fitted.trained.params

    @functools.cached_property
    def params(self) -> dict[str, Any]:
        """Parameters of the model, each in its own space: ``numpyro.param`` sites, networks.

        The weights of a network ``taut.deep.module("decoder", net)`` are under ``decoder$params``;
        :meth:`network` puts them into the module.
        """
        found = self._parameters["model"]
        return {n: self._model.constrained(n, v) for n, v in found.items()}

    def network(self, name: str, net: Any) -> Any:
        """A network with its trained weights.

        Args:
            name: that the model gave it.
            net: the module as it was before training.

        Raises:
            ArgumentError: if the model has no network of that name.
        """
        key, known = f"{name}$params", [n.removesuffix("$params") for n in self.params]
        if key not in self.params:
            raise ArgumentError(
                f"{self.name} has no network '{name}'{nearest(name, known) or ';'} it has {listing(known)}"
            )
        _, static = eqx.partition(net, eqx.is_inexact_array)
        return eqx.combine(self.params[key], static)

    @property
    def status(self) -> Status:
        """Why training ended."""
        return self._fitted.trained.status

    @property
    def seconds(self) -> float:
        """Wall time of the training."""
        return self._fitted.trained.seconds

    @property
    def notes(self) -> tuple[str, ...]:
        """What the user should know, in sentences."""
        return self._fitted.trained.notes

    @functools.cached_property
    def history(self) -> "pd.DataFrame":
        """The course of the training, a row for every look.

        Columns: step, epoch, bound and validation in nats for all rows of the data, seconds.
        """
        import pandas as pd

        trained, scale = self._fitted.trained, -float(self._fitted.num_rows)
        table = pd.DataFrame(
            [look._asdict() for look in trained.looks],
            columns=["step", "epoch", "loss", "validation", "seconds"],
        )
        table["validation"] = scale * table["validation"]
        table.insert(2, "bound", scale * table.pop("loss"))
        return table

    @property
    @abc.abstractmethod
    def plan(self) -> str:
        """What was done, and why, as text."""

    def _plan(self, family: str, method: str) -> str:
        model, num_rows = self._model, self._fitted.num_rows
        lines = [f"family     {family}", f"solver     {method}"]
        for name, value in model.params.items():
            size = sum(int(np.size(x)) for x in jax.tree.leaves(value))
            lines.append(f"parameter  {name}  {size:,} numbers, trained")
        for name, site in model.latents.items():
            rows = f"{num_rows:,} rows of " if site.local else ""
            shape = site.shape[1:] if site.local else site.shape
            lines.append(f"latent     {name}  {rows}{site.distribution} {shape}")
        lines += [f"because    {reason}" for reason in self._fitted.reasons]
        return "\n".join(lines)

    def _simulated(
        self, columns: Mapping[str, Any], draws: int, seed: int, values_of: Any, rows: int
    ) -> dict[str, np.ndarray]:
        """Observed and deterministic sites, (draws, rows, ...), a chunk of rows at a time.

        Args:
            columns: arguments with rows; observed ones may be missing.
            draws: how many.
            seed: of the draws.
            values_of: (objective, params, batch's columns, key) -> values of the latents; of a
                module, so that it is compiled once.
            rows: how many.
        """
        many = self._fitted.objective.compiled(_simulated, values_of)
        full, parts = self._filled(columns, rows), []
        size = min(CHUNK, rows)
        for start in range(0, rows, size):
            index = np.resize(np.arange(start, min(start + size, rows)), size)
            keys = jax.random.split(jax.random.fold_in(jax.random.key(seed), start), draws)
            found = many(self._parameters, jax.tree.map(lambda x, i=index: x[i], full), keys)
            real = min(size, rows - start)
            parts.append({n: self._cut(n, x, real, size) for n, x in found.items()})
        return {
            n: np.concatenate([p[n] for p in parts], axis=1) if self._has_rows(n) else parts[0][n]
            for n in parts[0]
        }

    def _cut(self, name: str, x: Any, real: int, size: int) -> np.ndarray:
        x = np.asarray(x)
        return x[:, :real] if self._has_rows(name) and x.shape[1:2] == (size,) else x

    def _has_rows(self, name: str) -> bool:
        site = self._model.observed.get(name) or self._model.latents.get(name)
        return site is None or site.local

    def _filled(self, columns: Mapping[str, Any], rows: int) -> dict[str, Any]:
        """Columns with zeros for those that are missing: they only give shapes."""
        found = dict(columns)
        for name, example in self._model.examples.items():
            if name not in found:
                found[name] = jax.tree.map(
                    lambda x: np.zeros((rows, *x.shape[1:]), x.dtype), example
                )
        return found

    def _given(self, data: Any) -> tuple[dict[str, Any], int]:
        """New rows; the observed sites' own arguments may be missing."""
        optional = tuple(self._model.arguments.values())
        columns = columns_of(self._model, data, optional)
        if not columns:
            raise ArgumentError(
                f"data has none of the arguments with rows, {listing(self._model.row_names)}"
            )
        return columns, len(jax.tree.leaves(columns)[0])


def _simulated(
    objective: AbstractObjective, values_of: Any, params: Any, columns: Any, keys: Any
) -> dict[str, Any]:
    """Sites of some rows for every key, (keys, rows, ...)."""
    model, observed = objective.model, tuple(objective.model.observed)

    def one(key: Any) -> dict[str, Any]:
        first, second = jax.random.split(key)
        values = values_of(objective, params, columns, first)
        trace = model.trace(params["model"], values, columns, second, unobserve=observed)
        return model.values(trace)

    return jax.vmap(one)(keys)


def check_count(name: str, value: Any) -> int:
    """A positive whole number.

    Raises:
        ArgumentError: if it is none.
    """
    if isinstance(value, bool) or not isinstance(value, int | np.integer) or value < 1:
        raise ArgumentError(f"{name} must be a whole number of at least 1, got {value!r}")
    return int(value)
