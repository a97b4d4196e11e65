"""The derivation itself: records, and the pages made of them."""

import dataclasses
from html import escape
from typing import TYPE_CHECKING

from taut._core.status import Status
from taut.derivation import latex, text
from taut.derivation.notation import Formula
from taut.derivation.records import Constant, Factor, Site

if TYPE_CHECKING:
    from taut.report.content import Graph

STYLE = (
    ".taut-graph .node{fill:#fff;stroke:#333}.taut-graph .observed{fill:#ccd9e8}"
    ".taut-graph .deterministic{stroke-dasharray:4 3}.taut-graph .plate{fill:none;stroke:#999}"
    ".taut-graph .edge path{fill:none;stroke:#555}.taut-graph .edge polygon{fill:#555}"
    ".taut-graph text{font:12px sans-serif;text-anchor:middle;fill:#222}"
    ".taut-graph .plate-name{text-anchor:end}.taut-graph .node-dist{font-size:10px}"
)


@dataclasses.dataclass(frozen=True, repr=False)
class Derivation:
    """Mean field for one model, written out; print it.

    Attributes:
        name: the model's name.
        graph: its graph, with plates.
        sites: its sites, with their expected log densities.
        factors: the factors of q, with their updates.
        constants: arrays that stand in formulas under a letter.
        indices: letter, name and length of each dimension.
        factorisation: q as a product.
        elbo: nats.
        history: ELBO after each sweep.
        status: why the ascent ended.
    """

    name: str
    graph: "Graph"
    sites: tuple[Site, ...]
    factors: tuple[Factor, ...]
    constants: tuple[Constant, ...]
    indices: tuple[tuple[str, str, int], ...]
    factorisation: Formula
    elbo: float
    history: tuple[float, ...]
    status: Status

    @property
    def expected_log_likelihood(self) -> dict[str, float]:
        """E_q[log p] of each site that is no latent, nats."""
        return {s.name: s.expected for s in self.sites if s.kind != "latent"}

    @property
    def kl(self) -> dict[str, float]:
        """KL of each factor to its prior given parents, averaged over q of the parents, nats."""
        return {f.name: f.kl for f in self.factors}

    @property
    def residual(self) -> float:
        """Largest relative distance of a parameter from its own update: 0 at the exact optimum."""
        return max((text.residual(p) for f in self.factors for p in f.parameters), default=0.0)

    def latex(self, standalone: bool = False) -> str:
        r"""The derivation in LaTeX: macros and an ``align*`` environment, for amsmath.

        Args:
            standalone: add what makes it a document of its own.
        """
        return latex.page(self, standalone)

    def __str__(self) -> str:
        """The derivation as text."""
        return text.page(self)

    def __repr__(self) -> str:
        return f"<Derivation of {self.name}: {len(self.factors)} factors, ELBO {self.elbo:.4f}>"

    def _repr_html_(self) -> str:
        """The graph and the text, for notebooks."""
        from taut.report.graph import draw  # loads pandas

        drawing = f"<style>{STYLE}</style>{draw(self.graph)}"
        return f'<div class="taut-graph">{drawing}</div><pre>{escape(str(self))}</pre>'

    def _repr_latex_(self) -> str:
        """The formulas, for notebooks, without macros."""
        return latex.inline(self)
