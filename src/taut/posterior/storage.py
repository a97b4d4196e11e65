"""Saving a posterior and reading it back: arrays and JSON in a zip file, no pickle, no data."""

import contextlib
import dataclasses
import importlib
import io
import json
import os
import tempfile
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from taut._core.errors import ArgumentError, FileError, listing
from taut.families import AbstractDistribution
from taut.trust.draws import Draws
from taut.problem import Density, describe
from taut.trust.evidence import Evidence
from taut.trust.summary import History, Restarts, Trust

if TYPE_CHECKING:
    from taut.posterior.result import Posterior

FORMAT = 1
HEADER = "taut.json"


def save(posterior: "Posterior", corrected: Draws, raw: Draws, path: str | os.PathLike[str]) -> None:
    """Write the file whole or not at all: to a temporary neighbour first."""
    path = Path(path)
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
        "latents": _structure(posterior),
        "centring": sorted(posterior.problem.arrays["centring"]) if posterior.problem else [],
    }
    if posterior.problem:
        arrays |= {f"centring/{n}": v for n, v in posterior.problem.arrays["centring"].items()}
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=path.name, suffix=".part")
    try:
        with os.fdopen(handle, "wb") as file, zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as bundle:
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


def _plain(value: Any) -> Any:
    return value.item() if isinstance(value, np.generic) else list(value)


def _structure(posterior: "Posterior") -> list[list[Any]]:
    return [[s.name, list(s.shape), s.support] for s in posterior.problem.latents] if posterior.problem else []


def _pack(module: Any, prefix: str, arrays: dict[str, np.ndarray]) -> Any:
    """Describe a distribution by class and fields; its arrays go to ``arrays``."""
    if isinstance(module, AbstractDistribution):
        fields = {f.name: _pack(getattr(module, f.name), f"{prefix}/{f.name}", arrays) for f in dataclasses.fields(module)}
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
    return {"sites": list(draws.values), "weighted": draws.weights is not None, "left_out": list(draws.left_out)}


def load(
    path: str | os.PathLike[str], model: Callable[..., Any] | Density | None = None, data: Any = None,
    observe: Mapping[str, Any] | None = None,
) -> "Posterior":  # fmt: skip
    """Read a saved posterior.

    Args:
        path: of the file.
        model: the model it was fitted with, to predict and export with; None for draws,
            moments, summary and report only.
        data: the data it was fitted to, which the file does not hold.
        observe: values of sites to condition on, as in the fit.

    Returns:
        The posterior; without the model, ``predict`` and ``log_likelihood`` are not available.

    Raises:
        FileError: if the file is missing, damaged, or written by a newer taut.
        ArgumentError: if the model's latents are not those of the file.
    """
    header, arrays = _read(Path(path))
    try:
        return _assemble(header, arrays, model, data, observe)
    except (KeyError, TypeError, AttributeError) as error:
        raise FileError(f"{path} is damaged: its contents are incomplete ({error!r}); save the posterior again") from error


def _read(path: Path) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    if not path.exists():
        raise FileError(f"{path} does not exist")
    try:
        with zipfile.ZipFile(path) as bundle:
            header = json.loads(bundle.read(HEADER))
            if header["format"] > FORMAT:
                raise FileError(
                    f"{path} was written by a newer taut ({header['versions'].get('taut')}, file format {header['format']}; "
                    f"this one reads up to {FORMAT}): upgrade taut"
                )
            names = [n for n in bundle.namelist() if n.endswith(".npy")]
            return header, {n[:-4]: np.load(io.BytesIO(bundle.read(n)), allow_pickle=False) for n in names}
    except (zipfile.BadZipFile, KeyError, ValueError, TypeError, EOFError, OSError) as error:
        if isinstance(error, FileError):
            raise
        raise FileError(f"{path} is not a saved posterior, or is damaged ({error})") from error


def _unpack(record: Any, arrays: Mapping[str, np.ndarray]) -> Any:
    if "array" in record:
        return arrays[record["array"]]
    if "tuple" in record:
        return tuple(_unpack(item, arrays) for item in record["tuple"])
    families = importlib.import_module("taut.families")
    return getattr(families, record["class"])(**{n: _unpack(v, arrays) for n, v in record["fields"].items()})


def _unpack_draws(record: Mapping[str, Any], prefix: str, arrays: Mapping[str, np.ndarray]) -> Draws:
    weights = arrays[f"{prefix}/weights"] if record["weighted"] else None
    values = {n: arrays[f"{prefix}/values/{n}"] for n in record["sites"]}
    return Draws(arrays[f"{prefix}/points"], values, weights, tuple(record["left_out"]))


def _assemble(header: dict[str, Any], arrays: dict[str, np.ndarray], model: Any, data: Any, observe: Any) -> "Posterior":
    from taut.posterior.result import Posterior

    trust = dict(header["trust"])
    restarts = Restarts(tuple(trust["restarts"]["log_joint"]), tuple(tuple(m) for m in trust["restarts"]["other_modes"]))
    sequences = {k: tuple(trust[k]) for k in ("reasons", "advice", "notes")}
    problem = None
    if model is not None:
        problem = describe(model, data, observe)
        _check_latents(problem.latents, header["latents"])
        problem = problem.with_centring({n: arrays[f"centring/{n}"] for n in header["centring"]})
    return Posterior(
        name=header["name"],
        q=_unpack(header["q"], arrays),
        plan=header["plan"],
        trust=Trust(**{**trust, **sequences, "restarts": restarts}),
        evidence=Evidence(**header["evidence"]),
        history=History(**{**header["history"], "elbo": tuple(header["history"]["elbo"])}),
        dims={n: tuple(d) for n, d in header["dims"].items()},
        seed=header["seed"],
        versions=header["versions"],
        problem=problem,
        _corrected=_unpack_draws(header["corrected"], "corrected", arrays),
        _raw=_unpack_draws(header["raw"], "raw", arrays),
    )


def _check_latents(latents: Any, saved: list[list[Any]]) -> None:
    if not saved:
        return
    here = [[s.name, list(s.shape), s.support] for s in latents]
    if here != saved:
        missing = [s[0] for s in saved if s not in here]
        extra = [s[0] for s in here if s not in saved]
        raise ArgumentError(
            f"the file is of another model: its latents {listing(missing)} are not those of the given one ({listing(extra)}), "
            "by name, shape and support"
        )
