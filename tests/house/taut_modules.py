"""Every module of taut, imported."""

import importlib
import pkgutil
from types import ModuleType

import taut


def all_modules() -> list[ModuleType]:
    """Import and return every module of taut."""
    names = [module.name for module in pkgutil.walk_packages(taut.__path__, "taut.")]
    return [importlib.import_module(name) for name in names if not name.endswith("__main__")]
