import xml.etree.ElementTree as ET
from itertools import combinations, product

import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from numpyro.infer.inspect import get_model_relations

from taut.report.content import Graph, Node
from taut.report.graph import MAX_NODES, draw, graph_of, listing
from taut.report.layout import arrange


def sides(box):
    half_w, half_h = box.width / 2, box.height / 2
    return box.x - half_w, box.y - half_h, box.x + half_w, box.y + half_h


def contains(outer, inner):
    a, b = sides(outer), sides(inner)
    return a[0] <= b[0] and a[1] <= b[1] and a[2] >= b[2] and a[3] >= b[3]


def apart(one, other):
    a, b = sides(one), sides(other)
    return a[2] <= b[0] or b[2] <= a[0] or a[3] <= b[1] or b[3] <= a[1]


def check(graph):
    """Plates hold exactly their own nodes and plates, nothing overlaps, all is on the page."""
    made = arrange(graph)
    paths = {node.name: node.plates for node in graph.nodes}
    for (path, box), (name, place) in product(made.plates.items(), made.nodes.items()):
        inside = paths[name][: len(path)] == path
        assert contains(box, place) if inside else apart(box, place), (path, name)
    for (p, a), (q, b) in combinations(made.plates.items(), 2):
        short, long = sorted((p, q), key=len)
        if long[: len(short)] == short:
            assert contains(made.plates[short], made.plates[long])
        else:
            assert apart(a, b), (p, q)
    for a, b in combinations(made.nodes.values(), 2):
        assert apart(a, b)
    for box in [*made.nodes.values(), *made.plates.values()]:
        left, top, right, bottom = sides(box)
        assert left >= 0
        assert top >= 0
        assert right <= made.width
        assert bottom <= made.height
    return made


def random_graph(rng, size):
    tree = [(), ("a",), ("a", "b"), ("a", "c"), ("d",), ("d", "b"), ("a", "c", "e")]
    kinds = ("latent", "observed", "deterministic", "factor", "param")
    nodes = tuple(
        Node(
            f"n{k}" + "x" * int(rng.integers(0, 14)), kinds[k % 5], "Normal", tree[rng.integers(7)]
        )
        for k in range(size)
    )
    names = [n.name for n in nodes]
    edges = tuple(
        (names[i], names[j]) for i, j in combinations(range(size), 2) if rng.uniform() < 2 / size
    )
    return Graph(nodes, edges, {"a": 3, "b": 1_000_000})


@pytest.mark.parametrize("seed", range(25))
def test_plates_hold_exactly_their_nodes(seed):
    rng = np.random.default_rng(seed)
    check(random_graph(rng, int(rng.integers(1, 40))))


def test_edges_point_down(content):
    made = check(content.graph)
    for parent, child in content.graph.edges:
        assert made.nodes[parent].y < made.nodes[child].y


def test_cycles_self_loops_and_unknown_names_do_no_harm():
    nodes = (Node("a", "latent"), Node("b", "latent"))
    graph = Graph(nodes, (("a", "b"), ("b", "a"), ("a", "a"), ("ghost", "a")))
    check(graph)
    assert draw(graph).startswith("<svg")


def test_the_drawing_has_every_node_edge_and_plate(content):
    picture = ET.fromstring(draw(content.graph))
    assert {e.get("data-node") for e in picture.iter("g")} - {None} == {
        n.name for n in content.graph.nodes
    }
    edges = {e.get("data-edge") for e in picture.iter("g")} - {None}
    assert edges == {f"{a} {b}" for a, b in content.graph.edges}
    plates = {e.get("data-plate") for e in picture.iter("rect")} - {None}
    assert plates == {"schools", "schools/pupils", "factors"}
    words = [e.text for e in picture.iter("text")]
    assert {"schools (8)", "pupils (25)", "factors (3)"} <= set(words)
    shapes = {
        e.get("data-node"): e.find("ellipse").get("class")
        for e in picture.iter("g")
        if e.get("data-node") and e.find("ellipse") is not None
    }
    assert shapes["mu"] == "node"
    assert shapes["y"] == "node observed"
    assert shapes["effect"] == "node deterministic"


def test_a_large_graph_becomes_a_list():
    nodes = tuple(Node(f"x{k}", "latent", "Normal") for k in range(100))
    edges = tuple((f"x{k}", f"x{k + 1}") for k in range(99))
    words = draw(Graph(nodes, edges))
    assert "100 nodes" in words
    assert words.count("<tr>") == 101
    assert draw(Graph(nodes[:MAX_NODES], edges)).startswith("<svg")


def test_a_graph_that_would_be_too_wide_becomes_a_list():
    nodes = tuple(Node(f"a_long_name_of_site_{k}", "latent", "Normal") for k in range(30))
    assert not draw(Graph(nodes, ())).startswith("<svg")


def test_the_empty_graph():
    assert draw(Graph((), ())) == ""
    assert "<tr>" in listing(Graph((), ()))


def nested(x, y=None):
    mu = numpyro.sample("mu", dist.Normal(0, 1))
    sigma = numpyro.param("sigma", 1.0)
    with numpyro.plate("groups", 3, dim=-2):
        theta = numpyro.sample("theta", dist.Normal(mu, 1))
        with numpyro.plate("rows", 4, dim=-1):
            mean = numpyro.deterministic("mean", theta + x)
            numpyro.sample("y", dist.Normal(mean, sigma), obs=y)
    numpyro.factor("penalty", -(mu**2))


def test_relations_of_a_nested_model():
    values = np.zeros((3, 4))
    relations = get_model_relations(nested, model_kwargs={"x": values, "y": values})
    graph = graph_of(relations, {"groups": 3, "rows": 4, "unused": 9})
    about = {n.name: n for n in graph.nodes}
    assert {n.name: n.kind for n in graph.nodes} == {
        "mu": "latent",
        "sigma": "param",
        "theta": "latent",
        "mean": "deterministic",
        "y": "observed",
        "penalty": "factor",
    }
    assert about["theta"].plates == ("groups",)
    assert about["y"].plates == about["mean"].plates == ("groups", "rows")
    assert about["y"].distribution == "Normal"
    assert about["penalty"].distribution == about["mean"].distribution == ""
    assert set(graph.edges) == {
        ("mu", "theta"),
        ("theta", "mean"),
        ("mean", "y"),
        ("sigma", "y"),
        ("mu", "penalty"),
    }
    assert graph.plates == {"groups": 3, "rows": 4}
    check(graph)


def crossed(y=None):
    rows, columns = numpyro.plate("rows", 3, dim=-2), numpyro.plate("columns", 4, dim=-1)
    with rows:
        a = numpyro.sample("a", dist.Normal(0, 1))
    with columns:
        b = numpyro.sample("b", dist.Normal(0, 1))
    with rows, columns:
        numpyro.sample("y", dist.Normal(a + b, 1), obs=y)


def test_crossed_plates_are_split_and_keep_their_name():
    graph = graph_of(
        get_model_relations(crossed, model_kwargs={"y": np.zeros((3, 4))}), {"columns": 4}
    )
    plates = {n.name: set(n.plates) for n in graph.nodes}
    assert plates == {"a": {"rows"}, "b": {"columns"}, "y": {"rows", "columns"}}
    made = check(graph)
    assert len(made.plates) == 3
    assert "columns (4)" in draw(graph)
