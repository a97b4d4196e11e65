"""How far draws are from a known answer: means in its standard deviations, and ratios of sds."""

import dataclasses
import math
from collections.abc import Mapping
from typing import Any

import numpy as np

MEAN_LIMIT = 0.1  # sd
SD_LIMIT = 0.1  # relative


@dataclasses.dataclass(frozen=True)
class Truth:
    """A known posterior: mean and sd of every scalar parameter.

    Attributes:
        names: scalar parameters; entries of arrays are ``name[i]``, counted from 1.
        mean: their posterior means.
        sd: their posterior standard deviations.
        source: how they were found.
        log_evidence: nats, where it is known.
    """

    names: tuple[str, ...]
    mean: np.ndarray
    sd: np.ndarray
    source: str
    log_evidence: float | None = None

    def to_json(self) -> dict[str, Any]:
        """Plain lists and numbers."""
        plain = dataclasses.asdict(self)
        return plain | {k: np.asarray(plain[k]).tolist() for k in ("mean", "sd")}

    @staticmethod
    def from_json(plain: Mapping[str, Any]) -> "Truth":
        """Read what ``to_json`` wrote."""
        arrays = {k: np.asarray(plain[k], dtype=float) for k in ("mean", "sd")}
        return Truth(**{**plain, **arrays, "names": tuple(plain["names"])})


@dataclasses.dataclass(frozen=True)
class Accuracy:
    """The worst errors over all parameters.

    Attributes:
        mean_error: largest |mean - true mean| in true sds; infinite where draws are not finite.
        mean_at: the parameter that has it.
        sd_ratio: the ratio of sd to true sd that is farthest from 1, as a ratio.
        sd_at: the parameter that has it.
        num_compared: parameters compared.
        num_known: parameters whose answer is known.
    """

    mean_error: float
    mean_at: str
    sd_ratio: float
    sd_at: str
    num_compared: int
    num_known: int

    @property
    def means_fine(self) -> bool:
        """Every mean is within the limit."""
        return self.mean_error <= MEAN_LIMIT

    @property
    def fine(self) -> bool:
        """Every mean and every sd is within its limit, and none was left out."""
        ratio_fine = 1 - SD_LIMIT <= self.sd_ratio <= 1 + SD_LIMIT
        return self.means_fine and ratio_fine and self.num_compared == self.num_known

    def to_json(self) -> dict[str, Any]:
        """Plain values; what is not finite becomes None."""
        plain = dataclasses.asdict(self) | {"fine": self.fine}
        return {k: finite(v) if isinstance(v, float) else v for k, v in plain.items()}


def finite(value: float | None) -> float | None:
    """The number, or None where JSON has no name for it."""
    return float(value) if value is not None and math.isfinite(value) else None


def scalars(samples: Mapping[str, Any], sites: Mapping[str, str]) -> dict[str, np.ndarray]:
    """Split draws into scalar parameters.

    Args:
        samples: site -> draws, (n, *shape).
        sites: site -> name in the truth; other sites are left out.

    Returns:
        ``name`` or ``name[i,j]``, counted from 1 -> draws, (n,).
    """
    found = {}
    for site, name in sites.items():
        value = np.asarray(samples[site], dtype=float)
        for index in np.ndindex(*value.shape[1:]):
            label = f"{name}[{','.join(str(i + 1) for i in index)}]" if index else name
            found[label] = value[(slice(None), *index)]
    return found


def compare(samples: Mapping[str, Any], sites: Mapping[str, str], truth: Truth) -> Accuracy:
    """Compare draws with the truth, parameter by parameter."""
    draws = scalars(samples, sites)
    known = [(i, n) for i, n in enumerate(truth.names) if n in draws]
    if not known:
        raise ValueError(f"none of {truth.names} is among {sorted(draws)}")
    labels = [n for _, n in known]
    keep = [i for i, _ in known]
    stacked = np.stack([draws[n] for n in labels])
    with np.errstate(all="ignore"):
        error = np.abs(stacked.mean(axis=1) - truth.mean[keep]) / truth.sd[keep]
        ratio = stacked.std(axis=1, ddof=1) / truth.sd[keep]
        away = np.abs(np.log(ratio))
    error, away = (np.where(np.isfinite(a), a, np.inf) for a in (error, away))
    i, j = int(error.argmax()), int(away.argmax())
    return Accuracy(
        float(error[i]), labels[i], float(ratio[j]), labels[j], len(keep), len(truth.names)
    )
