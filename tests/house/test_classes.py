"""Classes are abstract or final: nobody subclasses a class that can be instantiated."""

import enum
import inspect

import pytest
from taut_modules import all_modules


def is_abstract(cls: type) -> bool:
    named = cls.__name__.lstrip("_").startswith("Abstract")
    return named or inspect.isabstract(cls) or getattr(cls, "_is_protocol", False)


def is_exempt(cls: type) -> bool:
    return issubclass(cls, BaseException | enum.Enum)


def concrete_parents(cls: type) -> list[str]:
    """Return the classes of taut that ``cls`` inherits from although they are not abstract."""
    return [
        base.__qualname__
        for base in cls.__mro__[1:]
        if base.__module__.split(".")[0] == "taut" and not is_abstract(base) and not is_exempt(base)
    ]


def classes() -> list[type]:
    found = {
        value
        for module in all_modules()
        for value in vars(module).values()
        if inspect.isclass(value) and value.__module__ == module.__name__
    }
    return sorted(found, key=lambda cls: (cls.__module__, cls.__qualname__))


def test_classes_are_abstract_or_final():
    wrong = {f"{c.__module__}.{c.__qualname__}": concrete_parents(c) for c in classes()}
    assert {name: parents for name, parents in wrong.items() if parents} == {}


def test_abstract_names_are_kept_for_abstract_classes():
    """A class with open abstract methods says so in its name, where authors look first."""
    wrong = [
        f"{cls.__module__}.{cls.__qualname__}"
        for cls in classes()
        if inspect.isabstract(cls)
        and not getattr(cls, "_is_protocol", False)
        and not cls.__name__.lstrip("_").startswith("Abstract")
    ]
    assert wrong == []


class AbstractThing:
    __module__ = "taut.example"


class Thing(AbstractThing):
    __module__ = "taut.example"


class Derived(Thing):
    __module__ = "taut.example"


@pytest.mark.parametrize(("cls", "parents"), [(Thing, []), (Derived, ["Thing"])])
def test_the_rule_itself(cls, parents):
    assert concrete_parents(cls) == parents
