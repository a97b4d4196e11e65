"""Positions for a model's graph: layers by longest path, order by barycentre, plates as boxes.

Every plate becomes a box that holds its own nodes and nothing else. A group of nodes that share a
plate is laid out first and then moved as one block, so boxes nest or stay apart by construction.
Long edges pass through invisible nodes of their own and so keep clear of boxes they do not enter.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from itertools import pairwise

import numpy as np

from taut.report.content import Graph, Node

NODE_HEIGHT = 46.0
_ROW_GAP = 34.0
_COLUMN_GAP = 18.0
_PAD = 12.0  # between a plate's border and what it holds
_LABEL = 16.0  # room for the plate's label, below
_MARGIN = 6.0
_SWEEPS = 12

Path = tuple[str, ...]


@dataclass(frozen=True)
class Box:
    """A rectangle by its centre and size."""

    x: float
    y: float
    width: float
    height: float


@dataclass(frozen=True)
class Layout:
    """Where everything goes: nodes by name, plates by path, bends of each edge in order."""

    width: float
    height: float
    nodes: Mapping[str, Box]
    plates: Mapping[Path, Box]
    edges: Mapping[tuple[str, str], tuple[tuple[float, float], ...]]


def node_width(node: Node) -> float:
    """Width of a node's shape, enough for its texts."""
    name, below = len(shorten(node.name)), len(shorten(below_name(node)))
    return max(52.0, 7.3 * name + 26, 5.9 * below + 26)


def below_name(node: Node) -> str:
    """The small text under a node's name."""
    return node.distribution or {"factor": "factor", "param": "parameter"}.get(node.kind, "")


def shorten(name: str, most: int = 20) -> str:
    """A name cut to `most` characters."""
    return name if len(name) <= most else f"{name[: most - 1]}\u2026"


@dataclass
class _Spot:
    """A node, or one layer's part of a long edge, while the layout is made."""

    path: Path
    layer: int
    width: float
    order: float = 0.0


@dataclass
class _Block:
    """A spot or a whole plate, placed by its left end relative to the plate around it."""

    layers: range
    width: float
    order: float
    holds: dict[str, float] = field(default_factory=dict)  # spot -> centre from the block's left
    left: float = 0.0


def arrange(graph: Graph) -> Layout:
    """Finds a position for every node, plate and edge of a graph."""
    names = [n.name for n in graph.nodes]
    edges = sorted({(a, b) for a, b in graph.edges if a != b and a in names and b in names})
    layers = _layers(names, edges)
    spots = {n.name: _Spot(n.plates, layers[n.name], node_width(n)) for n in graph.nodes}
    chains = _chains(spots, edges)
    links = [pair for chain in chains.values() for pair in pairwise(chain)]
    _barycentres(spots, links)
    paths = {n.plates[:k] for n in graph.nodes for k in range(1, len(n.plates) + 1)}
    inside: dict[Path, _Block] = {}
    root = _pack((), spots, links, paths, inside)
    rows, bands = _rows(spots)
    centres = {name: _MARGIN + x for name, x in root.holds.items()}
    boxes = {
        name: Box(centres[name], rows[s.layer], s.width, NODE_HEIGHT) for name, s in spots.items()
    }
    lefts = _plate_lefts(paths, inside, centres)
    plates = {}
    for path in sorted(paths, key=len):
        top, bottom = bands[path]
        width = inside[path].width
        plates[path] = Box(lefts[path] + width / 2, (top + bottom) / 2, width, bottom - top)
    bends = {e: tuple((boxes[s].x, boxes[s].y) for s in chain) for e, chain in chains.items()}
    ends = [b.y + b.height / 2 for b in [*boxes.values(), *plates.values()]]
    nodes = {name: boxes[name] for name in names}
    return Layout(root.width + 2 * _MARGIN, max(ends, default=0.0) + _MARGIN, nodes, plates, bends)


def _layers(names: list[str], edges: list[tuple[str, str]]) -> dict[str, int]:
    """Longest-path layers, then each node as low as its children allow; cycles are cut."""
    parents: dict[str, set[str]] = {n: set() for n in names}
    for a, b in edges:
        parents[b].add(a)
    order: list[str] = []
    waiting = list(names)
    while waiting:
        ready = [n for n in waiting if parents[n] <= set(order)] or waiting[:1]
        order += ready
        waiting = [n for n in waiting if n not in set(ready)]
    rank = {n: k for k, n in enumerate(order)}
    forward = [e for e in edges if rank[e[0]] < rank[e[1]]]
    layer = dict.fromkeys(names, 0)
    for name in order:
        layer[name] = max((layer[a] + 1 for a, b in forward if b == name), default=0)
    for name in reversed(order):
        below = [layer[b] for a, b in forward if a == name]
        if below:
            layer[name] = min(below) - 1
    lowest = min(layer.values(), default=0)
    return {n: k - lowest for n, k in layer.items()}


def _chains(
    spots: dict[str, _Spot], edges: list[tuple[str, str]]
) -> dict[tuple[str, str], list[str]]:
    """The spots that each edge passes; adds one for every layer that it crosses."""
    chains = {}
    spans = _spans(spots)
    for k, (a, b) in enumerate(edges):
        chain = [a]
        for layer in range(spots[a].layer + 1, spots[b].layer):
            name = f"\x00{k}/{layer}"
            path = max(
                _within(spots[a].path, layer, spans), _within(spots[b].path, layer, spans), key=len
            )
            spots[name] = _Spot(path, layer, 10.0)
            chain.append(name)
        chains[(a, b)] = [*chain, b]
    return chains


def _spans(spots: Mapping[str, _Spot]) -> dict[Path, tuple[int, int]]:
    """First and last layer of each plate."""
    spans: dict[Path, tuple[int, int]] = {}
    for spot in spots.values():
        for k in range(1, len(spot.path) + 1):
            first, last = spans.get(spot.path[:k], (spot.layer, spot.layer))
            spans[spot.path[:k]] = (min(first, spot.layer), max(last, spot.layer))
    return spans


def _within(path: Path, layer: int, spans: Mapping[Path, tuple[int, int]]) -> Path:
    """The innermost of the plates around an edge's end that reach a layer."""
    depth = 0
    while depth < len(path):
        first, last = spans[path[: depth + 1]]
        if not first <= layer <= last:
            break
        depth += 1
    return path[:depth]


def _barycentres(spots: dict[str, _Spot], links: list[tuple[str, str]]) -> None:
    """Orders the spots of each layer by the mean place of their neighbours."""
    rows: dict[int, list[str]] = {}
    for name, spot in spots.items():
        rows.setdefault(spot.layer, []).append(name)
    near: dict[str, list[str]] = {name: [] for name in spots}
    for a, b in links:
        near[a].append(b)
        near[b].append(a)
    for row in rows.values():
        _spread(row, spots)
    for sweep in range(_SWEEPS):
        down = sweep % 2 == 0
        for layer in sorted(rows, reverse=not down):
            pull = {}
            for name in rows[layer]:
                side = [m for m in near[name] if (spots[m].layer < layer) == down]
                places = [spots[m].order for m in side]
                pull[name] = float(np.mean(places)) if places else spots[name].order
            rows[layer].sort(key=lambda n: pull[n])
            _spread(rows[layer], spots)


def _spread(row: list[str], spots: dict[str, _Spot]) -> None:
    for k, name in enumerate(row):
        spots[name].order = (k + 0.5) / len(row)


def _pack(
    path: Path,
    spots: dict[str, _Spot],
    links: list[tuple[str, str]],
    paths: set[Path],
    inside: dict[Path, _Block],
) -> _Block:
    """Lays out what a plate holds and returns it as one block."""
    blocks = []
    for name, spot in spots.items():
        if spot.path == path:
            middle = {name: spot.width / 2}
            blocks.append(_Block(range(spot.layer, spot.layer + 1), spot.width, spot.order, middle))
    for child in sorted(p for p in paths if len(p) == len(path) + 1 and p[: len(path)] == path):
        blocks.append(_pack(child, spots, links, paths, inside))
    blocks.sort(key=lambda b: b.order)
    _place(blocks, links)
    pad = _PAD if path else 0.0
    start = min((b.left for b in blocks), default=0.0) - pad
    end = max((b.left + b.width for b in blocks), default=0.0) + pad
    holds = {name: b.left + x - start for b in blocks for name, x in b.holds.items()}
    layers = [k for b in blocks for k in b.layers] or [0]
    order = float(np.mean([spots[name].order for name in holds])) if holds else 0.0
    label = 7.0 * len(path[-1]) + 60 if path else 0.0
    slack = max(label - (end - start), 0.0)
    holds = {name: x + slack / 2 for name, x in holds.items()}
    block = _Block(range(min(layers), max(layers) + 1), end - start + slack, order, holds)
    inside[path] = block
    return block


def _place(blocks: list[_Block], links: list[tuple[str, str]]) -> None:
    """Moves blocks below their neighbours while keeping their order wherever they share a layer."""
    owner = {name: k for k, b in enumerate(blocks) for name in b.holds}
    joined = [(a, b) for a, b in links if a in owner and b in owner and owner[a] != owner[b]]
    before = [[j for j in range(k) if _meet(blocks[j], blocks[k])] for k in range(len(blocks))]
    after = [[j for j in range(len(blocks)) if k in before[j]] for k in range(len(blocks))]
    want = np.array([-b.width / 2 for b in blocks])
    for sweep in range(_SWEEPS + 1):
        if sweep:
            pulls: list[list[float]] = [[] for _ in blocks]
            for a, b in joined:
                i, j = blocks[owner[a]], blocks[owner[b]]
                gap = (j.left + j.holds[b]) - (i.left + i.holds[a])
                pulls[owner[a]].append(i.left + gap)
                pulls[owner[b]].append(j.left - gap)
            want = np.array(
                [np.mean(p) if p else b.left for p, b in zip(pulls, blocks, strict=True)]
            )
        right = want.copy()
        for k in range(len(blocks)):
            for j in before[k]:
                right[k] = max(right[k], right[j] + blocks[j].width + _COLUMN_GAP)
        left = want.copy()
        for k in reversed(range(len(blocks))):
            for j in after[k]:
                left[k] = min(left[k], left[j] - blocks[k].width - _COLUMN_GAP)
        for k, block in enumerate(blocks):
            block.left = float(right[k] + left[k]) / 2


def _meet(a: _Block, b: _Block) -> bool:
    return a.layers.start < b.layers.stop and b.layers.start < a.layers.stop


def _rows(
    spots: dict[str, _Spot],
) -> tuple[dict[int, float], dict[Path, tuple[float, float]]]:
    """Height of each layer's centre, and top and bottom of each plate."""
    reach = _spans(spots)
    above: dict[Path, float] = {}
    below: dict[Path, float] = {}
    for path in sorted(reach, key=len, reverse=True):
        within = [p for p in above if len(p) == len(path) + 1 and p[: len(path)] == path]
        first, last = reach[path]
        above[path] = _PAD + max((above[p] for p in within if reach[p][0] == first), default=0.0)
        below[path] = (
            _PAD + _LABEL + max((below[p] for p in within if reach[p][1] == last), default=0.0)
        )
    centre: dict[int, float] = {}
    y = _MARGIN
    for layer in range(max((s.layer for s in spots.values()), default=-1) + 1):
        y += max((above[p] for p in reach if reach[p][0] == layer), default=0.0)
        centre[layer] = y + NODE_HEIGHT / 2
        y += NODE_HEIGHT + _ROW_GAP
        y += max((below[p] for p in reach if reach[p][1] == layer), default=0.0)
    half = NODE_HEIGHT / 2
    bands = {
        p: (centre[reach[p][0]] - half - above[p], centre[reach[p][1]] + half + below[p])
        for p in reach
    }
    return centre, bands


def _plate_lefts(
    paths: Iterable[Path], inside: dict[Path, _Block], centres: dict[str, float]
) -> dict[Path, float]:
    """Left end of each plate, from any node that it holds."""
    lefts = {}
    for path in paths:
        name, offset = next(iter(inside[path].holds.items()))
        lefts[path] = centres[name] - offset
    return lefts
