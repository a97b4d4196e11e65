"""What is compared: the methods by name."""

import dataclasses
import importlib
from pathlib import Path
from typing import Any, Protocol

from benchmarks import cases
from benchmarks.timing import Fit

RATES = (0.1, 0.01, 0.001)
SEEDS = (0, 1)  # cold, warm
SHARE = 0.4  # of a process's time limit that each of the two fits may use


class Fitter(Protocol):
    """A method prepared for a case: nothing is compiled before the first run."""

    def run(self, seed: int) -> Fit:
        """Fit once."""
        ...


@dataclasses.dataclass(frozen=True)
class Method:
    """One method.

    Attributes:
        target: ``module:class`` in this package, made with (case, rate, budget).
        label: for tables.
        role: "taut", "bound" (taut with a family given), "peer" or "anchor".
        family: the family of q for comparing ELBOs; empty where there is no such comparison.
        rates: learning rates that are tried; the best counts.
        twin: needs a PyMC version of the model.
        note: what a reader of the table must know.
    """

    target: str
    label: str
    role: str = "peer"
    family: str = ""
    rates: tuple[float | None, ...] = (None,)
    twin: bool = False
    note: str = ""


METHODS = {
    "taut": Method("taut_fit:Taut", "taut", "taut"),
    "taut-diagonal": Method("taut_fit:TautDiagonal", "taut, diagonal q", "bound", "diagonal"),
    "taut-dense": Method("taut_fit:TautDense", "taut, dense q", "bound", "dense"),
    "svi-normal": Method(
        "numpyro_svi:Svi", "NumPyro SVI, AutoNormal", family="diagonal", rates=RATES
    ),
    "svi-mvn": Method(
        "numpyro_svi:SviDense",
        "NumPyro SVI, AutoMultivariateNormal",
        family="dense",
        rates=RATES,
    ),
    "pymc-advi": Method("pymc_vi:Advi", "PyMC ADVI", "peer", "diagonal", RATES, twin=True),
    "pymc-fullrank": Method(
        "pymc_vi:FullRankAdvi", "PyMC full-rank ADVI", "peer", "dense", RATES, twin=True
    ),
    "pymc-pathfinder": Method("pymc_vi:Pathfinder", "pymc-extras Pathfinder", twin=True),
    "blackjax-pathfinder": Method(
        "blackjax_pathfinder:Pathfinder",
        "BlackJAX Pathfinder",
        note="BlackJAX 1.7.1 uses a wrong gradient sign for the mean of its Pathfinder",
    ),
    "nuts": Method("numpyro_nuts:Nuts", "NumPyro NUTS", "anchor"),
}


def names(choice: str) -> list[str]:
    """Expand "all" or a comma-separated list of names."""
    found = list(METHODS) if choice == "all" else [n for n in choice.split(",") if n]
    unknown = [n for n in found if n not in METHODS]
    if unknown:
        raise ValueError(f"no method {', '.join(unknown)}; there are: all, {', '.join(METHODS)}")
    return found


def measure(
    model: str, method: str, rate: float | None, folder: str, limit: float
) -> dict[str, Any]:
    """Fit a model twice by a method; runs in a process of its own."""
    case = cases.load(model, Path(folder))
    module, _, kind = METHODS[method].target.partition(":")
    make = getattr(importlib.import_module(f"benchmarks.{module}"), kind)
    _import_libraries(method)
    fitter: Fitter = make(case, rate, SHARE * limit)
    return {"runs": [fitter.run(seed).to_json() for seed in SEEDS]}


def _import_libraries(method: str) -> None:
    """Importing is not on the clock: do it before the first fit."""
    wanted = {"pymc": ("pymc",), "taut": ("taut._fit", "numpyro"), "blackjax": ("blackjax.vi",)}
    if method == "pymc-pathfinder":
        importlib.import_module("pymc_extras")
    for library in wanted.get(method.partition("-")[0], ("numpyro.infer",)):
        importlib.import_module(library)
