"""The state of a run in a folder: arrays and JSON in a zip file, whole or not at all."""

import io
import json
import os
import secrets
import zipfile
from pathlib import Path
from typing import Any

import jax
import numpy as np

from taut._core.errors import FileError

NAME = "checkpoint.taut"
FORMAT = 1


class Store:
    """A folder with the newest state of one run.

    Args:
        folder: made if it does not exist.
        identity: of the run; what is found under another one is refused.

    Raises:
        FileError: if the folder cannot be made.
    """

    def __init__(self, folder: Path, identity: str) -> None:
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise FileError(f"checkpoint: the folder {folder} cannot be made: {error}") from error
        self.path, self._identity = folder / NAME, identity

    def save(self, arrays: Any, host: dict[str, Any]) -> str:
        """Write the state; the last one stays where that fails.

        Args:
            arrays: pytree of arrays.
            host: what JSON can hold.

        Returns:
            "" or, where the disk refused, a sentence that says so.
        """
        if jax.process_index():
            return ""  # the first process writes for all
        temporary = self.path.with_name(f"{NAME}.{secrets.token_hex(4)}.part")
        try:
            with open(temporary, "xb") as file:
                _write(file, {"format": FORMAT, "identity": self._identity, **host}, arrays)
                file.flush()
                os.fsync(file.fileno())
            os.replace(temporary, self.path)
        except OSError as error:
            temporary.unlink(missing_ok=True)
            return f"checkpoint could not be written to {self.path}: {error}; the last good one stays there"
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise
        return ""

    def load(self, like: Any) -> tuple[Any, dict[str, Any]] | None:
        """The newest state, or None where there is none.

        Args:
            like: arrays of the same structure, shapes and kinds.

        Raises:
            FileError: if the file is damaged, or of another run.
        """
        if not self.path.exists():
            return None
        try:
            with zipfile.ZipFile(self.path) as bundle:
                host = json.loads(bundle.read("run.json"))
                count = host["arrays"]
                found = [np.load(io.BytesIO(bundle.read(f"{i}.npy"))) for i in range(count)]
        except (OSError, ValueError, KeyError, zipfile.BadZipFile) as error:
            raise FileError(f"{self.path} is no checkpoint that can be read: {error}") from error
        if host["identity"] != self._identity:
            raise FileError(
                f"{self.path} is of another run: it was made with {host['identity'] or 'another model'}, and this is "
                f"{self._identity or 'another model'}. Use another folder, or delete this one"
            )
        return _restored(found, like, self.path), host


def _write(file: Any, header: dict[str, Any], arrays: Any) -> None:
    leaves = jax.tree.leaves(arrays)
    with zipfile.ZipFile(file, "w", zipfile.ZIP_STORED) as bundle:
        bundle.writestr("run.json", json.dumps({**header, "arrays": len(leaves)}))
        for i, leaf in enumerate(leaves):
            buffer = io.BytesIO()
            np.save(buffer, np.asarray(leaf), allow_pickle=False)
            bundle.writestr(f"{i}.npy", buffer.getvalue())


def _restored(found: list[np.ndarray], like: Any, path: Path) -> Any:
    leaves, tree = jax.tree.flatten(like)
    shapes = [(np.shape(x), np.asarray(x).dtype) for x in found]
    wanted = [(np.shape(x), np.asarray(x).dtype) for x in leaves]
    if shapes != wanted:
        odd = next((i for i, p in enumerate(zip(shapes, wanted, strict=False)) if p[0] != p[1]), -1)
        what = (
            f"array {odd} has {shapes[odd]}, wanted is {wanted[odd]}"
            if odd >= 0
            else (f"it has {len(found)} arrays, wanted are {len(leaves)}")
        )
        raise FileError(
            f"{path} is of another model or another optimiser: {what}. Use another folder, or delete this one"
        )
    return jax.tree.unflatten(tree, found)
