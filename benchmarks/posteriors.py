"""The reference posteriors, where the checkout has them beside it.

They live in ``../shared/posteriors``, seen from the project's root, or where the environment
variable TAUT_POSTERIORS says. Nothing of them is part of this project.
"""

import functools
import importlib.util
import os
from pathlib import Path
from types import ModuleType
from typing import Any

from benchmarks.accuracy import Truth
from benchmarks.fresh import ROOT


def folder() -> Path | None:
    """Where the reference posteriors are, or None."""
    place = Path(os.environ.get("TAUT_POSTERIORS") or ROOT.parent / "shared" / "posteriors")
    return place if (place / "benchlib.py").exists() else None


@functools.cache
def _library() -> ModuleType:
    place = folder()
    if place is None:
        raise FileNotFoundError("no reference posteriors: set TAUT_POSTERIORS to their folder")
    spec = importlib.util.spec_from_file_location("reference_posteriors", place / "benchlib.py")
    if spec is None or spec.loader is None:
        raise ImportError(f"cannot read {place}")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def names() -> list[str]:
    """Names of all reference posteriors; none where the folder is missing."""
    return list(_library().names()) if folder() else []


def load(name: str) -> Any:
    """One posterior: ``model``, ``data``, ``NAMES`` and ``ref``."""
    return _library().load(name)


def truth(reference: Any) -> Truth:
    """Its known moments."""
    ref = reference.ref
    return Truth(
        tuple(ref["names"]), ref["mean"], ref["sd"], ref.get("source", ""), ref.get("log_evidence")
    )


def arguments(reference: Any) -> dict[str, Any]:
    """Keyword arguments of its model."""
    return {"data": reference.data} if reference.data else {}
