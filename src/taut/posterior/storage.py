"""Saving a posterior and reading it back: arrays and JSON in a zip file, no pickle, no data."""

import contextlib
import dataclasses
import importlib
import io
import json
import os
import secrets
import zipfile
import zlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from taut._core.errors import ArgumentError, FileError, listing
from taut.families import AbstractDistribution
from taut.posterior import carry
from taut.posterior.discrete import Discrete
from taut.posterior.predictive import Forecaster, forecaster_of, in_order
from taut.problem import Density, Latent, Observed, Problem, describe, predictor_without_data
from taut.trust.draws import Draws
from taut.trust.evidence import Evidence
from taut.trust.summary import History, Restarts, Trust

if TYPE_CHECKING:
    from taut.posterior.result import Posterior

FORMAT = 1
HEADER = "taut.json"


@dataclasses.dataclass(frozen=True)
class Coordinates:
    """What a model has to agree with for a posterior to be its own; no data are in it.

    Attributes:
        latents: of the fit, the discrete ones too, in the model's order.
        observed: its observed sites.
        centring: by latent, where coordinates were moved.
        prior: arrays of a prior that replaces the model's own.
        has_data: whether the fit was given arrays.
    """

    latents: tuple[Latent, ...]
    observed: tuple[Observed, ...]
    centring: Mapping[str, np.ndarray]
    prior: Mapping[str, np.ndarray]
    has_data: bool


def coordinates_of(problem: Problem) -> Coordinates:
    """The coordinates of a problem."""
    return Coordinates(
        latents=in_order(problem.latents, problem.discrete),
        observed=problem.observed,
        centring=problem.arrays["centring"],
        prior=carry.prior_of(problem),
        has_data=bool(problem.arrays["data"]),
    )


# --- writing ----------------------------------------------------------------------------------


def save(
    posterior: "Posterior",
    corrected: Draws,
    raw: Draws,
    coordinates: Coordinates,
    path: str | os.PathLike[str],
) -> None:
    """Write the file whole or not at all: to a temporary neighbour first."""
    path = checked_target(path)
    arrays: dict[str, np.ndarray] = {}
    header = {
        "format": FORMAT,
        "name": posterior.name,
        "seed": posterior.seed,
        "versions": dict(posterior.versions),
        "plan": str(posterior.plan),
        "dims": {n: list(d) for n, d in posterior.dims.items()},
        "trust": dataclasses.asdict(posterior.trust),
        "evidence": dataclasses.asdict(posterior.evidence),
        "history": dataclasses.asdict(posterior.history),
        "q": _pack(posterior.q, "q", arrays),
        "corrected": _pack_draws(corrected, "corrected", arrays),
        "raw": _pack_draws(raw, "raw", arrays),
        "coordinates": _pack_coordinates(coordinates, arrays),
        "discrete": _pack_discrete(posterior.discrete, arrays),
    }
    temporary = path.with_name(f"{path.name}.{secrets.token_hex(4)}.part")
    try:
        with (
            open(temporary, "xb") as file,  # with the permissions that the user gives new files
            zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as bundle,
        ):
            bundle.writestr(HEADER, json.dumps(header, default=_plain))
            for name, array in arrays.items():
                buffer = io.BytesIO()
                np.save(buffer, np.asarray(array), allow_pickle=False)
                bundle.writestr(f"{name}.npy", buffer.getvalue())
        os.replace(temporary, path)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(temporary)
        raise


def checked_target(path: str | os.PathLike[str]) -> Path:
    """Return the path of a file to be written, or say why it cannot be.

    Raises:
        FileError: if its folder does not exist, or if it is a folder itself.
    """
    path = Path(path)
    if not path.parent.is_dir():
        raise FileError(f"cannot write {path}: the folder {path.parent} does not exist")
    if path.is_dir():
        raise FileError(f"cannot write {path}: it is a folder; name a file in it")
    return path


def _plain(value: Any) -> Any:
    return value.item() if isinstance(value, np.generic) else list(value)


def _pack(module: Any, prefix: str, arrays: dict[str, np.ndarray]) -> Any:
    """Describe a distribution by class and fields; its arrays go to ``arrays``."""
    if isinstance(module, AbstractDistribution):
        fields = {
            f.name: _pack(getattr(module, f.name), f"{prefix}/{f.name}", arrays)
            for f in dataclasses.fields(module)
        }
        return {"class": type(module).__name__, "fields": fields}
    if isinstance(module, tuple):
        return {"tuple": [_pack(item, f"{prefix}/{i}", arrays) for i, item in enumerate(module)]}
    arrays[prefix] = np.asarray(module)
    return {"array": prefix}


def _pack_draws(draws: Draws, prefix: str, arrays: dict[str, np.ndarray]) -> dict[str, Any]:
    arrays[f"{prefix}/points"] = draws.points
    if draws.weights is not None:
        arrays[f"{prefix}/weights"] = draws.weights
    arrays.update({f"{prefix}/values/{n}": v for n, v in draws.values.items()})
    return {
        "sites": list(draws.values),
        "weighted": draws.weights is not None,
        "left_out": list(draws.left_out),
    }


def _pack_coordinates(found: Coordinates, arrays: dict[str, np.ndarray]) -> dict[str, Any]:
    arrays.update({f"centring/{n}": v for n, v in found.centring.items()})
    arrays.update({f"prior/{n}": v for n, v in found.prior.items()})
    return {
        "latents": [dataclasses.asdict(s) for s in found.latents],
        "observed": [dataclasses.asdict(s) for s in found.observed],
        "centring": list(found.centring),
        "prior": list(found.prior),
        "has_data": found.has_data,
    }


def _pack_discrete(found: Discrete, arrays: dict[str, np.ndarray]) -> list[str]:
    arrays.update({f"discrete/probabilities/{n}": p for n, p in found.probabilities.items()})
    arrays.update({f"discrete/values/{n}": v for n, v in found.values.items()})
    return list(found.probabilities)


# --- reading ----------------------------------------------------------------------------------


def load(
    path: str | os.PathLike[str],
    model: Callable[..., Any] | Density | None = None,
    data: Any = None,
    observe: Mapping[str, Any] | None = None,
) -> "Posterior":
    """Read a saved posterior.

    Args:
        path: of the file.
        model: the model it was fitted with, to predict; None for draws, moments, summary and
            report only.
        data: the data it was fitted to, which the file does not hold: for the log likelihood,
            the posterior predictive at those data, ``to_arviz`` and ``update``.
        observe: values of sites to condition on, as in the fit.

    Returns:
        The posterior.

    Raises:
        FileError: if the file is missing, damaged, or written by a newer taut.
        ArgumentError: if the model's latents are not those of the file.
    """
    path = Path(path)
    header, arrays = _read(path)
    try:
        posterior, coordinates = _assemble(header, arrays)
    except (KeyError, TypeError, AttributeError, ValueError, IndexError) as error:
        raise FileError(
            f"{path} is damaged: its contents are incomplete ({error!r}); save the posterior again"
        ) from error
    if model is None:
        return posterior
    if data is None and coordinates.has_data:
        return dataclasses.replace(
            posterior, _forecaster=_without_data(model, observe, coordinates)
        )
    problem = describe(model, data, observe)
    _check_latents(in_order(problem.latents, problem.discrete), coordinates.latents)
    problem = problem.with_centring(coordinates.centring)
    if coordinates.prior:
        problem = carry.with_prior(problem, **coordinates.prior)
    return dataclasses.replace(posterior, problem=problem, _forecaster=forecaster_of(problem))


def _read(path: Path) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    if not path.exists():
        raise FileError(f"{path} does not exist")
    try:
        with zipfile.ZipFile(path) as bundle:
            header = json.loads(bundle.read(HEADER))
            if header["format"] > FORMAT:
                raise FileError(_newer(path, header))
            names = [n for n in bundle.namelist() if n.endswith(".npy")]
            return header, {
                n[:-4]: np.load(io.BytesIO(bundle.read(n)), allow_pickle=False) for n in names
            }
    except FileError:
        raise
    # A zip file whose bytes were changed makes its reader stumble in all of these ways.
    except (
        zipfile.BadZipFile,
        zlib.error,
        LookupError,
        ValueError,
        TypeError,
        EOFError,
        OSError,
        RuntimeError,
    ) as error:
        raise FileError(f"{path} is not a saved posterior, or is damaged ({error})") from error


def _newer(path: Path, header: Mapping[str, Any]) -> str:
    version = header.get("versions", {}).get("taut", "unknown")
    return (
        f"{path} was written by a newer taut ({version}, file format {header['format']}; "
        f"this one reads up to {FORMAT}): upgrade taut"
    )


def _unpack(record: Any, arrays: Mapping[str, np.ndarray]) -> Any:
    if "array" in record:
        return arrays[record["array"]]
    if "tuple" in record:
        return tuple(_unpack(item, arrays) for item in record["tuple"])
    families = importlib.import_module("taut.families")
    return getattr(families, record["class"])(
        **{n: _unpack(v, arrays) for n, v in record["fields"].items()}
    )


def _unpack_draws(
    record: Mapping[str, Any], prefix: str, arrays: Mapping[str, np.ndarray]
) -> Draws:
    weights = arrays[f"{prefix}/weights"] if record["weighted"] else None
    values = {n: arrays[f"{prefix}/values/{n}"] for n in record["sites"]}
    return Draws(arrays[f"{prefix}/points"], values, weights, tuple(record["left_out"]))


def _unpack_coordinates(record: Mapping[str, Any], arrays: Mapping[str, np.ndarray]) -> Coordinates:
    return Coordinates(
        latents=tuple(Latent(**_tuples(s)) for s in record["latents"]),
        observed=tuple(Observed(**_tuples(s)) for s in record["observed"]),
        centring={n: arrays[f"centring/{n}"] for n in record["centring"]},
        prior={n: arrays[f"prior/{n}"] for n in record["prior"]},
        has_data=record["has_data"],
    )


def _unpack_discrete(names: list[str], arrays: Mapping[str, np.ndarray]) -> Discrete | None:
    if not names:
        return None
    kinds = ("probabilities", "values")
    return Discrete(*({n: arrays[f"discrete/{kind}/{n}"] for n in names} for kind in kinds))


def _tuples(fields: Mapping[str, Any]) -> dict[str, Any]:
    """JSON has lists only; the fields of frozen records are tuples."""
    return {n: tuple(v) if isinstance(v, list) else v for n, v in fields.items()}


def _assemble(
    header: dict[str, Any], arrays: dict[str, np.ndarray]
) -> tuple["Posterior", Coordinates]:
    from taut.posterior.result import Posterior

    trust = _tuples(header["trust"])
    restarts = Restarts(
        tuple(trust["restarts"]["log_joint"]),
        tuple(tuple(m) for m in trust["restarts"]["other_modes"]),
    )
    coordinates = _unpack_coordinates(header["coordinates"], arrays)
    posterior = Posterior(
        name=header["name"],
        q=_unpack(header["q"], arrays),
        plan=header["plan"],
        trust=Trust(**{**trust, "restarts": restarts}),
        evidence=Evidence(**header["evidence"]),
        history=History(**_tuples(header["history"])),
        dims={n: tuple(d) for n, d in header["dims"].items()},
        seed=header["seed"],
        versions=header["versions"],
        problem=None,
        _corrected=_unpack_draws(header["corrected"], "corrected", arrays),
        _raw=_unpack_draws(header["raw"], "raw", arrays),
        _coordinates=coordinates,
        _discrete=_unpack_discrete(header.get("discrete", []), arrays),
    )
    return posterior, coordinates


# --- the model of a file ----------------------------------------------------------------------


def _without_data(
    model: Callable[..., Any] | Density, observe: Mapping[str, Any] | None, found: Coordinates
) -> Forecaster:
    if not isinstance(model, Density) and not callable(model):
        describe(model)  # says what a model is
    sites = tuple(s.name for s in found.observed)
    return Forecaster(found.latents, found.observed, predictor_without_data(model, observe, sites))


def _check_latents(latents: tuple[Latent, ...], saved: tuple[Latent, ...]) -> None:
    here, there = ([(s.name, s.shape, s.support) for s in all_] for all_ in (latents, saved))
    if here != there:
        missing = [s[0] for s in there if s not in here]
        extra = [s[0] for s in here if s not in there]
        raise ArgumentError(
            f"the file is of another model: its latents {listing(missing)} are not those of the "
            f"given one ({listing(extra)}), by name, shape and support"
        )
