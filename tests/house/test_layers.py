"""Imports point downwards only. Read from the source, so that imports in functions count too."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

SOURCE = Path(__file__).resolve().parents[2] / "src" / "taut"

# Lowest first. A module may import its own layer and the layers before it. The names in one
# tuple form one layer.
ORDER = (
    ("_core",),
    ("data",),
    ("problem",),
    ("data",),
    ("expectation",),
    ("families",),
    ("bounds",),
    ("training",),
    ("solvers",),
    ("trust",),
    ("plan",),
    ("attempt",),
    ("ladder",),
    ("report",),
    ("derivation",),
    ("posterior",),
    ("deep",),
    ("networks",),
    ("fit",),
    ("cli", "demo", "datasets"),
)
LEVEL = {name: level for level, names in enumerate(ORDER) for name in names}
# Where a module is named otherwise than its layer: `taut.fit` is the function.
ALIASES = {"_fit": "fit"}


def layer_of(name: str) -> str:
    """Return the layer of a dotted module name such as taut.problem.types."""
    part = name.split(".")[1]
    return ALIASES.get(part, part)


def _is_type_checking(node: ast.stmt) -> bool:
    if not isinstance(node, ast.If):
        return False
    test = node.test
    return (isinstance(test, ast.Name) and test.id == "TYPE_CHECKING") or (
        isinstance(test, ast.Attribute) and test.attr == "TYPE_CHECKING"
    )


def _nodes(node: ast.AST) -> Iterator[ast.AST]:
    """Walk a tree, leaving out what only type checkers see."""
    yield node
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.stmt) and _is_type_checking(child):
            for other in child.orelse:  # type: ignore[attr-defined]
                yield from _nodes(other)
        else:
            yield from _nodes(child)


def imported_modules(source: str) -> list[tuple[int, str]]:
    """Return the line and dotted name of every import of a part of taut.

    `importlib.import_module("taut.x")` with a literal name counts as an import.
    """
    found: list[tuple[int, str]] = []
    for node in _nodes(ast.parse(source)):
        if isinstance(node, ast.Import):
            found += [(node.lineno, alias.name) for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module == "taut":
            found += [(node.lineno, f"taut.{alias.name}") for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            found.append((node.lineno, node.module or ""))
        elif isinstance(node, ast.ImportFrom):
            found.append((node.lineno, "relative import"))
        elif isinstance(node, ast.Call) and getattr(node.func, "attr", "") == "import_module":
            found += [(node.lineno, a.value) for a in node.args if isinstance(a, ast.Constant)]
    return [
        (line, name) for line, name in found if name == "relative import" or name.startswith("taut")
    ]


def module_name(path: Path) -> str:
    parts = path.relative_to(SOURCE.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def violations(module: str, source: str) -> list[str]:
    """Return a sentence for every import in ``source`` that points upwards."""
    mine = layer_of(module)
    wrong = []
    for line, target in imported_modules(source):
        if target == "relative import":
            wrong.append(f"{module}:{line}: write absolute imports")
        elif target == "taut":
            if mine != "cli":
                wrong.append(f"{module}:{line}: import the module, not the whole of taut")
        elif (theirs := _known_layer(target, mine)) is None:
            wrong.append(f"{module}:{line}: {target} has no layer; add it to ORDER in this test")
        elif LEVEL[theirs] > LEVEL[mine]:
            wrong.append(f"{module}:{line}: {mine} imports {target}, which is in a higher layer")
    return wrong


def _known_layer(target: str, mine: str) -> str | None:
    """Return the layer of an import; an exported name such as taut.Density is top-level use."""
    layer = layer_of(target)
    if layer in LEVEL:
        return layer
    return mine if mine == "cli" else None


MODULES = sorted(path for path in SOURCE.rglob("*.py") if path != SOURCE / "__init__.py")


@pytest.mark.parametrize("path", MODULES, ids=module_name)
def test_imports_point_downwards(path):
    name = module_name(path)
    assert layer_of(name) in LEVEL, f"{name} has no layer; add it to ORDER in this test"
    assert violations(name, path.read_text(encoding="utf-8")) == []


@pytest.mark.parametrize(
    ("module", "source", "count"),
    [
        ("taut.problem.types", "from taut._core.errors import TautError", 0),
        ("taut.problem.types", "from taut.problem import data", 0),
        ("taut._core.errors", "import taut.problem", 1),
        ("taut.trust", "def f():\n    from taut.posterior import load", 1),
        (
            "taut.trust",
            "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    import taut._fit",
            0,
        ),
        ("taut.trust", "from taut import posterior", 1),
        ("taut.trust", "import importlib\nimportlib.import_module('taut._fit')", 1),
        ("taut.trust", "from . import khat", 1),
        ("taut.cli", "import taut", 0),
        ("taut._fit", "import taut", 1),
        ("taut._fit", "from taut.unheard_of import x", 1),
    ],
)
def test_the_rule_itself(module, source, count):
    assert len(violations(module, source)) == count
