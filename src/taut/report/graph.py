"""The model's graph: from NumPyro's relations to a drawing with plates."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

import numpy as np

from taut.report import charts
from taut.report.content import Graph, Node, NodeKind
from taut.report.layout import Box, Layout, Path, arrange, below_name, shorten

MAX_NODES = 60  # beyond this, or beyond the width, the graph is a list
MAX_WIDTH = 2400.0
_CLONE = "__CLONE"  # NumPyro's mark on a plate that it splits because plates cross


def graph_of(relations: Mapping[str, Any], plate_sizes: Mapping[str, int] | None = None) -> Graph:
    """Reads the dictionary that `numpyro.infer.inspect.get_model_relations` returns.

    Args:
        relations: That dictionary.
        plate_sizes: Size of each plate, which the dictionary does not hold.

    Returns:
        The model's graph. Sites without a distribution of their own (`numpyro.factor`) become
        factors, `numpyro.param` sites point parameters.
    """
    kinds = _kinds(relations)
    members = {plate: set(sites) for plate, sites in relations.get("plate_sample", {}).items()}
    dists = relations.get("sample_dist", {})
    nodes = [
        Node(
            name,
            kind,
            dists.get(name, "") if kind in ("latent", "observed") else "",
            _plates_around(name, members),
        )
        for name, kind in kinds.items()
    ]
    edges: list[tuple[str, str]] = []
    for key in ("sample_sample", "sample_param"):
        for child, parents in relations.get(key, {}).items():
            edges += [(parent, child) for parent in parents]
    edges = [e for e in dict.fromkeys(edges) if e[0] in kinds and e[1] in kinds]
    used = {plate for node in nodes for plate in node.plates}
    sizes = {plate: size for plate, size in (plate_sizes or {}).items() if plate in used}
    return Graph(tuple(nodes), tuple(edges), sizes)


def _kinds(relations: Mapping[str, Any]) -> dict[str, NodeKind]:
    observed = set(relations.get("observed", ()))
    params = [p for ps in relations.get("sample_param", {}).values() for p in ps]
    kinds: dict[str, NodeKind] = dict.fromkeys(
        [*relations.get("param_constraint", {}), *params], "param"
    )
    for name, dist in relations.get("sample_dist", {}).items():
        if dist == "Deterministic":
            kinds[name] = "deterministic"
        elif dist == "Unit":
            kinds[name] = "factor"
        else:
            kinds[name] = "observed" if name in observed else "latent"
    return kinds


def _plates_around(name: str, members: Mapping[str, set[str]]) -> tuple[str, ...]:
    """The plates that hold a site, the one that holds most sites first."""
    around = [plate for plate, sites in members.items() if name in sites]
    around.sort(key=lambda plate: -len(members[plate]))
    return tuple(plate.split(_CLONE)[0] for plate in around)


def draw(graph: Graph) -> str:
    """A drawing of the graph, or a list of its nodes where a drawing would be unreadable.

    Args:
        graph: The model's graph.

    Returns:
        SVG text, or HTML text of a list, or "" for an empty graph.
    """
    if not graph.nodes:
        return ""
    if len(graph.nodes) > MAX_NODES:
        return _apology(graph)
    layout = arrange(graph)
    if layout.width > MAX_WIDTH:
        return _apology(graph)
    body = [_plate(path, box, graph.plates) for path, box in layout.plates.items()]
    body += [_edge(graph, layout, edge) for edge in layout.edges]
    body += [_node(node, layout.nodes[node.name]) for node in graph.nodes]
    label = f"Graph of the model: {len(graph.nodes)} nodes, {len(graph.edges)} edges"
    return charts.svg(layout.width, layout.height, label, body, ' class="graph"')


def listing(graph: Graph) -> str:
    """The graph as a table: what each node is, its plates and what it depends on."""
    rows = []
    for node in graph.nodes:
        parents = ", ".join(a for a, b in graph.edges if b == node.name)
        plates = ", ".join(_plate_label(p, graph.plates) for p in node.plates)
        cells = (node.name, node.kind, node.distribution, plates, parents)
        rows.append("".join(f"<td>{escape(cell)}</td>" for cell in cells))
    heads = ("site", "kind", "distribution", "plates", "depends on")
    head = "".join(f'<th scope="col">{h}</th>' for h in heads)
    body = "".join(f"<tr>{row}</tr>" for row in rows)
    return (
        f'<div class="scroll" tabindex="0"><table class="plain"><thead><tr>{head}</tr></thead>'
        f"<tbody>{body}</tbody></table></div>"
    )


def _apology(graph: Graph) -> str:
    return (
        f"<p>The graph has {len(graph.nodes)} nodes, too many for a readable drawing. "
        f"This table holds the same.</p>{listing(graph)}"
    )


def _plate_label(plate: str, sizes: Mapping[str, int]) -> str:
    return f"{plate} ({sizes[plate]})" if plate in sizes else plate


def _rect(box: Box, css: str, radius: float, extra: str = "") -> str:
    n = charts.num
    return (
        f'<rect class="{css}" x="{n(box.x - box.width / 2)}" y="{n(box.y - box.height / 2)}" '
        f'width="{n(box.width)}" height="{n(box.height)}" rx="{n(radius)}"{extra}/>'
    )


def _plate(path: Path, box: Box, sizes: Mapping[str, int]) -> str:
    words = _plate_label(path[-1], sizes)
    spot = (box.x + box.width / 2 - 9, box.y + box.height / 2 - 7)
    room = max(int((box.width - 18) / 6.2), 4)
    mark = f' data-plate="{escape("/".join(path))}"'
    return _rect(box, "plate", 9.0, mark) + charts.text(
        *spot, shorten(words, room), "plate-name", "end"
    )


def _node(node: Node, box: Box) -> str:
    n = charts.num
    kind = "" if node.kind == "latent" else f" {node.kind}"
    about = f"{node.name}: {node.kind}{f', {node.distribution}' if node.distribution else ''}"
    if node.kind in ("factor", "param"):
        shape = _rect(box, f"node{kind}", 3.0 if node.kind == "factor" else box.height / 2)
    else:
        shape = (
            f'<ellipse class="node{kind}" cx="{n(box.x)}" cy="{n(box.y)}" '
            f'rx="{n(box.width / 2)}" ry="{n(box.height / 2)}"/>'
        )
    below = shorten(below_name(node))
    name = charts.text(box.x, box.y + (-1 if below else 4), shorten(node.name), "node-name")
    small = charts.text(box.x, box.y + 12, below, "node-dist") if below else ""
    return (
        f'<g data-node="{escape(node.name)}"><title>{escape(about)}</title>{shape}{name}{small}</g>'
    )


def _edge(graph: Graph, layout: Layout, edge: tuple[str, str]) -> str:
    """A smooth arrow from the parent's rim to the child's rim."""
    bends = [np.array(p) for p in layout.edges[edge]]
    first, last = layout.nodes[edge[0]], layout.nodes[edge[1]]
    square = {node.name for node in graph.nodes if node.kind == "factor"}
    bends[0] = _rim(first, bends[1], edge[0] in square)
    tip = _rim(last, bends[-2], edge[1] in square)
    toward = tip - bends[-2]
    toward = toward / max(float(np.hypot(*toward)), 1e-9)
    bends[-1] = tip - 7 * toward
    wing = np.array([-toward[1], toward[0]]) * 3.6
    head = " ".join(_xy(p) for p in (tip, bends[-1] + wing, bends[-1] - wing))
    return (
        f'<g class="edge" data-edge="{escape(f"{edge[0]} {edge[1]}")}">'
        f'<path d="{_smooth(bends)}"/><polygon points="{head}"/></g>'
    )


def _rim(box: Box, toward: np.ndarray, square: bool) -> np.ndarray:
    """Where the ray from a shape's centre towards a point leaves the ellipse or the rectangle."""
    centre = np.array([box.x, box.y])
    ray = toward - centre
    across, along = abs(ray[0]) / (box.width / 2), abs(ray[1]) / (box.height / 2)
    size = max(across, along) if square else float(np.hypot(across, along))
    return centre + ray / max(size, 1e-9)


def _smooth(bends: Sequence[np.ndarray]) -> str:
    """A path through the middles of a polyline's pieces, rounded at its bends."""
    parts = [f"M{_xy(bends[0])}"]
    for k in range(1, len(bends) - 1):
        end = (bends[k] + bends[k + 1]) / 2 if k < len(bends) - 2 else bends[-1]
        parts.append(f"Q{_xy(bends[k])} {_xy(end)}")
    if len(bends) == 2:
        parts.append(f"L{_xy(bends[1])}")
    return "".join(parts)


def _xy(point: np.ndarray) -> str:
    return f"{charts.num(float(point[0]))} {charts.num(float(point[1]))}"
