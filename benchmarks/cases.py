"""What is fitted: a model, its data and its known answer, by name."""

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks import fresh, posteriors, quadrature
from benchmarks.accuracy import Truth

TRUTH_LIMIT = 1800.0  # seconds


@dataclasses.dataclass(frozen=True)
class Case:
    """One model with data and answer.

    Attributes:
        name: of the model.
        model: a NumPyro model.
        arguments: its keyword arguments.
        sites: site -> name in the truth.
        truth: the known answer.
    """

    name: str
    model: Callable[..., Any]
    arguments: dict[str, Any]
    sites: dict[str, str]
    truth: Truth


# Name -> model and data in ``benchmarks.shipped``, sites that are compared.
SHIPPED = {
    "regression": ("regression", "regression_data", ("a", "b", "s")),
    "schools-centred": ("schools_centred", "schools_data", ("mu", "tau", "theta")),
    "schools-noncentred": ("schools_noncentred", "schools_data", ("mu", "tau", "theta")),
    "logistic": ("logistic", "logistic_data", ("w",)),
    "poisson-effects": ("poisson_effects", "poisson_data", ("a", "b", "sigma", "u")),
}
SAMPLED = ("logistic", "poisson-effects")


def names(choice: str) -> list[str]:
    """Expand "small", "reference", "all" or a comma-separated list of names."""
    groups = {"small": list(SHIPPED), "reference": posteriors.names()}
    groups["all"] = groups["small"] + groups["reference"]
    found = [n for part in choice.split(",") if part for n in groups.get(part, [part])]
    unknown = [n for n in found if n not in groups["all"]]
    if unknown:
        raise ValueError(f"no model {', '.join(unknown)}; there are: {', '.join(groups['all'])}")
    return list(dict.fromkeys(found))


def load(name: str, folder: Path) -> Case:
    """The case of that name; ``folder`` keeps answers that were sampled."""
    if name not in SHIPPED:
        reference = posteriors.load(name)
        arguments, truth = posteriors.arguments(reference), posteriors.truth(reference)
        return Case(name, reference.model, arguments, dict(reference.NAMES), truth)
    model, data, sites = _parts(name)
    return Case(name, model, data, sites, _truth(name, data, folder))


def _parts(name: str) -> tuple[Callable[..., Any], dict[str, Any], dict[str, str]]:
    from benchmarks import shipped

    model, data, sites = SHIPPED[name]
    return getattr(shipped, model), getattr(shipped, data)(), {s: s for s in sites}


def _truth(name: str, data: dict[str, Any], folder: Path) -> Truth:
    if name == "regression":
        return quadrature.regression(data["x"], data["y"])
    if name.startswith("schools"):
        return quadrature.eight_schools(data["y"], data["sigma"])
    return Truth.from_json(json.loads(_sampled(name, folder).read_text()))


def _sampled(name: str, folder: Path) -> Path:
    return folder / "truth" / f"{name}.json"


def prepare(name: str, folder: Path) -> None:
    """Sample the answer of a synthetic model, unless the folder has it."""
    path = _sampled(name, folder)
    if name not in SAMPLED or path.exists():
        return
    print(f"sampling the answer of {name}", flush=True)
    found = fresh.call("benchmarks.cases:sample", {"name": name}, TRUTH_LIMIT)
    if found["status"] != "ok":
        raise RuntimeError(f"no answer for {name}: {found['reason']}")
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(found["value"], indent=1))


def sample(name: str) -> dict[str, Any]:
    """A long NUTS run: 4 chains of 10,000 draws after 2,000."""
    from benchmarks.numpyro_nuts import long_run

    model, data, sites = _parts(name)
    return long_run(model, data, sites).to_json()
