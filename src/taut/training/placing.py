"""Where arrays live: on one device, or shared out over a mesh of devices and processes."""

import dataclasses
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from taut._core.errors import ArgumentError


@dataclasses.dataclass(frozen=True)
class Placing:
    """A data-parallel layout: rows of a batch are shared out, all else is on every device.

    Attributes:
        mesh: devices, of one process or of several; None for the default device. Rows are shared
            out along its first axis.
    """

    mesh: Mesh | None = None

    def __post_init__(self) -> None:
        """Let the compiler share out the work: axes of explicit type would have to be said in models."""
        if self.mesh is not None:
            object.__setattr__(self, "mesh", Mesh(self.mesh.devices, self.mesh.axis_names))

    @property
    def parts(self) -> tuple[int, int]:
        """Which part of every batch this process holds: (index, number of parts)."""
        return (0, 1) if self.mesh is None else (jax.process_index(), jax.process_count())

    def check(self, batch_size: int) -> None:
        """Raise an ArgumentError where a batch cannot be shared out evenly."""
        if self.mesh is None:
            return
        shares = self.mesh.shape[self.mesh.axis_names[0]]
        if batch_size % shares:
            raise ArgumentError(
                f"batch_size must be a multiple of the {shares} devices along the mesh's axis "
                f"'{self.mesh.axis_names[0]}', got {batch_size}"
            )

    def replicate(self, tree: Any) -> Any:
        """The same arrays on every device."""
        if self.mesh is None:
            return jax.tree.map(jax.numpy.asarray, tree)
        return jax.tree.map(self._replicated, tree)

    def _replicated(self, x: Any) -> Any:
        sharding = NamedSharding(self.mesh, PartitionSpec())  # type: ignore[arg-type]
        if isinstance(x, jax.Array) and x.sharding == sharding:
            return x
        if jax.process_count() == 1:
            return jax.device_put(x, sharding)
        if jax.numpy.issubdtype(x.dtype, jax.dtypes.prng_key):
            data = self._replicated(np.asarray(jax.random.key_data(x)))
            return jax.random.wrap_key_data(data)
        return jax.make_array_from_process_local_data(sharding, np.asarray(x), np.shape(x))

    def collect(self, tree: Any) -> Any:
        """Replicated arrays as arrays of the default device."""
        if self.mesh is None:
            return tree
        return jax.tree.map(lambda x: jax.numpy.asarray(np.asarray(x)), tree)

    def share(self, items: Any) -> Any:
        """Batches of a compiled call, (steps, rows, ...): rows go to the devices in turn.

        Arrays with one number per step are on every device.
        """
        if self.mesh is None:
            return items
        return jax.tree.map(self._shared, items)

    def _shared(self, x: Any) -> Any:
        if np.ndim(x) < 2:
            return self._replicated(np.asarray(x))
        spec = PartitionSpec(None, self.mesh.axis_names[0])  # type: ignore[union-attr]
        sharding = NamedSharding(self.mesh, spec)  # type: ignore[arg-type]
        return jax.make_array_from_process_local_data(sharding, np.asarray(x))
