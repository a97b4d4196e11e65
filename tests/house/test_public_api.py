"""Public names exist and are documented: Google style, and `Args:` names what the signature has."""

import inspect
import re
from collections.abc import Iterator
from types import ModuleType
from typing import Any

import pytest

import taut

SECTION = re.compile(
    r"^(Args|Arguments|Returns|Raises|Yields|Notes?|Source|Attributes|Examples?):$"
)


def documented_arguments(docstring: str) -> list[str] | None:
    """Return the names in the Args section of a docstring, or None without such a section."""
    lines = inspect.cleandoc(docstring).splitlines()
    starts = [i for i, line in enumerate(lines) if line.strip() in ("Args:", "Arguments:")]
    if not starts:
        return None
    names: list[str] = []
    for line in lines[starts[0] + 1 :]:
        if SECTION.match(line):
            break
        # Entries are indented by four spaces; deeper lines continue the one before.
        if entry := re.match(r"^ {4}(\*{0,2}\w[\w, *]*?)(?: \([^)]*\))?:", line):
            names += [name.strip().lstrip("*") for name in entry[1].split(",")]
    return names


def signature_arguments(function: Any) -> list[str]:
    names = list(inspect.signature(function).parameters)
    return [name for name in names if name not in ("self", "cls") and not name.startswith("_")]


def public_names() -> Iterator[tuple[str, Any]]:
    """Yield the public names of taut and of the modules that are among them."""
    for name in taut.__all__:
        value = getattr(taut, name)
        yield name, value
        if isinstance(value, ModuleType):
            assert hasattr(value, "__all__"), f"taut.{name} says with __all__ what is public"
            for inner in value.__all__:
                yield f"{name}.{inner}", getattr(value, inner)


def public_functions() -> Iterator[tuple[str, Any]]:
    """Yield every public function and every public method that its class defines itself."""
    for name, value in public_names():
        if inspect.isclass(value):
            for method, member in vars(value).items():
                if method.startswith("_"):
                    continue
                member = getattr(member, "__func__", member)
                # equinox wraps methods; the wrapped function carries the signature.
                member = getattr(member, "method", member)
                if inspect.isfunction(inspect.unwrap(member)):
                    yield f"{name}.{method}", getattr(value, method)
        elif inspect.isroutine(value):
            yield name, value


def complaints(name: str, function: Any, *, needs_section: bool = True) -> list[str]:
    """Return what is wrong with the documentation of a function.

    An Args section must name the arguments in order. It may be missing where ``needs_section`` is
    False: in the methods of classes for people who extend taut, documented on their base class.
    """
    docstring = inspect.getdoc(function)
    if not docstring:
        return [f"{name} has no docstring"]
    expected = signature_arguments(function)
    found = documented_arguments(docstring)
    if not expected:
        return []
    if found is None and not needs_section:
        return []
    if found is None:
        return [f"{name} takes {', '.join(expected)} and has no Args section"]
    return [] if found == expected else [f"{name}: Args has {found}, the signature {expected}"]


def is_for_extending(name: str) -> bool:
    """Say whether a name is a method of a class in families or solvers."""
    return isinstance(getattr(taut, name.split(".")[0]), ModuleType) and name.count(".") > 1


def test_public_names_have_docstrings():
    assert [n for n, value in public_names() if not inspect.getdoc(value)] == []


def test_public_functions_document_their_arguments():
    found = [
        complaint
        for name, function in public_functions()
        for complaint in complaints(name, function, needs_section=not is_for_extending(name))
    ]
    assert found == []


def test_public_properties_have_docstrings():
    missing = [
        f"{name}.{key}"
        for name, value in public_names()
        if inspect.isclass(value)
        for key, member in vars(value).items()
        if isinstance(member, property) and not key.startswith("_") and not inspect.getdoc(member)
    ]
    assert missing == []


def test_dir_lists_every_public_name():
    assert set(taut.__all__) <= set(dir(taut))


def _good(first, *rest, key=None, **others):
    """Say something.

    Args:
        first: the first, as in
            x: y.
        *rest: more.
        key: a key.
        **others: others.

    Returns:
        key: not an argument.
    """


def _short(first):
    """Say something."""


def _wrong(first):
    """Say something.

    Args:
        second: no.
    """


@pytest.mark.parametrize(("function", "count"), [(_good, 0), (_short, 1), (_wrong, 1)])
def test_the_rule_itself(function, count):
    assert len(complaints("f", function)) == count
