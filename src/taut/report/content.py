"""What a report is made of: plain frozen records, filled elsewhere, drawn by `taut.report.html`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
import pandas as pd

NodeKind = Literal["latent", "observed", "deterministic", "factor", "param"]


@dataclass(frozen=True)
class Node:
    """One site of the model.

    Attributes:
        name: The site's name.
        kind: What the site is; "param" is a point parameter without a prior.
        distribution: Name of the site's distribution, "" where it has none.
        plates: The plates around the site, outermost first.
    """

    name: str
    kind: NodeKind
    distribution: str = ""
    plates: tuple[str, ...] = ()


@dataclass(frozen=True)
class Graph:
    """A model as a directed graph.

    Attributes:
        nodes: The sites.
        edges: Pairs (parent, child) of site names.
        plates: Size of each plate; a plate that is missing here is drawn without a size.
    """

    nodes: tuple[Node, ...]
    edges: tuple[tuple[str, str], ...]
    plates: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class ReportContent:
    """Everything that a report shows; only `title` and `verdict` are required.

    Attributes:
        title: Heading of the page, usually the model's name.
        verdict: The one word: "good", "usable" or "bad".
        reasons: Why the verdict is what it is, in plain words.
        advice: What the reader can do about it, in plain words.
        facts: Label to text (ELBO, evidence, k-hat, seconds), in the order of display.
        plan: Which latents got which family, integral and solver.
        derivation: The updates and the ELBO site by site, as text, if q is a mean field.
        derivation_latex: The same in LaTeX.
        summary: One row per scalar parameter, labelled as in `theta[3]`; columns mean, sd, hdi_3%,
            hdi_97% and any others.
        draws: Corrected draws by site, each (n, *shape).
        raw_draws: Draws of q itself, likewise; may be empty.
        drift: Drift in sd by scalar label.
        history: Pairs (iteration, ELBO).
        starts: ELBO or log density that each restart ended at.
        predictive: Observed site to (observed values, replicated values (n, *shape)).
        graph: The model's graph, if known.
        versions: Package to version.
    """

    title: str
    verdict: str
    reasons: tuple[str, ...] = ()
    advice: tuple[str, ...] = ()
    facts: Mapping[str, str] = field(default_factory=dict)
    plan: str = ""
    derivation: str = ""
    derivation_latex: str = ""
    summary: pd.DataFrame = field(default_factory=pd.DataFrame)
    draws: Mapping[str, np.ndarray] = field(default_factory=dict)
    raw_draws: Mapping[str, np.ndarray] = field(default_factory=dict)
    drift: Mapping[str, float] = field(default_factory=dict)
    history: Sequence[tuple[int, float]] = ()
    starts: Sequence[float] = ()
    predictive: Mapping[str, tuple[np.ndarray, np.ndarray]] = field(default_factory=dict)
    graph: Graph | None = None
    versions: Mapping[str, str] = field(default_factory=dict)
