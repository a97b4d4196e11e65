"""When two models are the same: fingerprints by content.

Compiled programs are kept by model. A model is more than its function object: the values that
it closes over, the globals that it reads and the attributes of its object may change between
two fits, and a program made for the old values would silently answer for the new ones.
"""

import dataclasses
import functools
import hashlib
import inspect
import marshal
import pickle
import sys
import sysconfig
import types
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np

MAX_VISITS = 20_000  # objects looked at before an object counts by identity
_PLAIN = (type(None), bool, int, float, complex, str, bytes)


def fingerprint(value: Any) -> str:
    """Hash a value by its content; objects that have none that can be read, by their identity."""
    walk = _Walk()
    walk.visit(value)
    return walk.digest.hexdigest()


class _Walk:
    """Feeds everything reachable from a value into one digest."""

    def __init__(self) -> None:
        self.digest = hashlib.blake2b(digest_size=16)
        self.seen: dict[int, int] = {}
        self.keep: list[Any] = []  # so that no address is used twice during the walk

    def visit(self, value: Any) -> None:
        if isinstance(value, _PLAIN):
            self._feed(f"{type(value).__name__}:{value!r}")
            return
        if id(value) in self.seen or len(self.seen) > MAX_VISITS:
            self._feed(f"again:{self.seen.get(id(value), id(value))}")
            return
        self.seen[id(value)] = len(self.seen)
        self.keep.append(value)
        self._feed(type(value).__qualname__)
        self._visit_inside(value)

    def _visit_inside(self, value: Any) -> None:
        if isinstance(value, np.ndarray | np.generic | jax.Array):
            self._array(value)
        elif isinstance(value, Mapping):
            for key in value:
                self.visit(key)
                self.visit(value[key])
        elif isinstance(value, list | tuple):
            self._sequence(value)
        elif isinstance(value, types.FunctionType):
            self._function(value)
        elif isinstance(value, functools.partial):
            self.visit((value.func, value.args, dict(value.keywords)))
        elif isinstance(value, types.MethodType):
            self.visit((value.__func__, value.__self__))
        elif isinstance(value, type | types.ModuleType | types.BuiltinFunctionType):
            self._feed(f"{getattr(value, '__module__', '')}.{value.__name__}")
        else:
            self._object(value)

    def _sequence(self, value: list[Any] | tuple[Any, ...]) -> None:
        if all(type(item) in _PLAIN for item in value):
            self.digest.update(marshal.dumps(value, 2))  # version 2: by value, without references
            return
        for item in value:
            self.visit(item)

    def _array(self, value: Any) -> None:
        try:
            array = np.ascontiguousarray(value)
            self._feed(f"{array.dtype.str}{array.shape}")
            self.digest.update(array.tobytes() if array.dtype == object else array.data.cast("B"))
        except Exception:  # traced values, typed keys, zero sizes: by identity
            self._feed(f"id:{id(value)}")

    def _function(self, value: types.FunctionType) -> None:
        self._feed(f"{value.__module__}.{value.__qualname__}")
        if _is_installed(value.__module__):
            return
        self._code(value.__code__)
        self.visit((value.__defaults__, value.__kwdefaults__))
        for cell in value.__closure__ or ():
            try:
                self.visit(cell.cell_contents)
            except ValueError:  # not yet filled in
                self._feed("empty")
        for name in sorted(_global_names(value.__code__)):
            if name in value.__globals__:
                self._feed(name)
                self.visit(value.__globals__[name])

    def _code(self, code: types.CodeType) -> None:
        self.digest.update(code.co_code)
        self._feed(repr(code.co_names))
        for constant in code.co_consts:
            if isinstance(constant, types.CodeType):
                self._code(constant)
            else:
                self._feed(repr(constant))

    def _object(self, value: Any) -> None:
        """An object by its class's call and its attributes; a plain value by its pickle."""
        state = getattr(value, "__dict__", None)
        call = inspect.getattr_static(type(value), "__call__", None)
        if isinstance(call, types.FunctionType):
            self.visit(call)
        if dataclasses.is_dataclass(value):
            self.visit({f.name: getattr(value, f.name, None) for f in dataclasses.fields(value)})
        elif isinstance(state, dict) and (
            callable(value) or not _is_installed(type(value).__module__)
        ):
            self.visit(state)
        else:
            self._pickle(value)

    def _pickle(self, value: Any) -> None:
        try:
            self.digest.update(pickle.dumps(value))
        except Exception:  # pickling runs the object's own code; any failure means no content
            self._feed(f"id:{id(value)}")

    def _feed(self, text: str) -> None:
        self.digest.update(text.encode())
        self.digest.update(b"\0")


def _global_names(code: types.CodeType) -> set[str]:
    names = set(code.co_names)
    for constant in code.co_consts:
        if isinstance(constant, types.CodeType):
            names |= _global_names(constant)
    return names


@functools.cache
def _is_installed(module: str | None) -> bool:
    """True for modules of installed packages and the standard library, which do not change."""
    if module is None or module.split(".")[0] in ("jax", "numpyro", "numpy", "taut", "builtins"):
        return module is not None
    file = getattr(sys.modules.get(module), "__file__", None)
    roots = {sysconfig.get_path(name) for name in ("purelib", "platlib", "stdlib")}
    return file is not None and any(file.startswith(root) for root in roots if root)
