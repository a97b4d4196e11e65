"""Variational inference that finishes by itself and says how far to trust the answer.

    import taut

    posterior = taut.fit(model, data)
    print(posterior)

Importing this package is quick: the names below load what they need when first used.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from taut import bounds as bounds
    from taut import data as data
    from taut import deep as deep
    from taut import expectation as expectation
    from taut import families as families
    from taut import networks as networks
    from taut import solvers as solvers
    from taut import training as training
    from taut._fit import fit as fit
    from taut.bounds import reparameterization as reparameterization
    from taut.derivation import derive as derive
    from taut.networks import BayesianNetwork as BayesianNetwork
    from taut.posterior import Posterior as Posterior
    from taut.posterior import load as load
    from taut.problem import Density as Density

    __version__: str

# Name -> the module that holds it; None where the name is a module itself.
_EXPORTS = {
    "BayesianNetwork": "taut.networks",
    "Density": "taut.problem",
    "Posterior": "taut.posterior",
    "bounds": None,
    "data": None,
    "deep": None,
    "derive": "taut.derivation",
    "expectation": None,
    "families": None,
    "fit": "taut._fit",
    "load": "taut.posterior",
    "networks": None,
    "reparameterization": "taut.bounds",
    "solvers": None,
    "training": None,
}

__all__ = [
    "BayesianNetwork",
    "Density",
    "Posterior",
    "bounds",
    "data",
    "deep",
    "derive",
    "expectation",
    "families",
    "fit",
    "load",
    "networks",
    "reparameterization",
    "solvers",
    "training",
]


def __getattr__(name: str) -> Any:
    """Load an exported name on first use (PEP 562)."""
    if name == "__version__":
        value = importlib.import_module("importlib.metadata").version("taut")
    elif name not in _EXPORTS:
        raise AttributeError(f"module 'taut' has no attribute {name!r}")
    else:
        home = _EXPORTS[name]
        value = (
            importlib.import_module(f"taut.{name}")
            if home is None
            else getattr(importlib.import_module(home), name)
        )
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    """List the public names, loaded or not."""
    return sorted({*globals(), *_EXPORTS, "__version__"})
