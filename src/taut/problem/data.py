"""Reading what the user passes as data: mappings, data frames, arrays, plain Python values."""

import hashlib
import pickle
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np

from taut._core.errors import DataError

Path = tuple[str, ...]


def read(data: Any) -> dict[str, Any]:
    """Return ``data`` as a dict whose frames and columns have become NumPy arrays.

    Args:
        data: a mapping, a pandas or polars data frame, or None for no data.

    Raises:
        DataError: if it is neither, or if a column cannot become an array.
    """
    if data is None:
        return {}
    if is_frame(data):
        return LazyColumns(data)
    if not isinstance(data, Mapping):
        raise DataError(
            f"data must be a mapping of the model's keyword arguments or a data frame, got {type(data).__name__}; "
            "write data={'x': x, 'y': y}"
        )
    return {str(key): _value(value, (str(key),)) for key, value in data.items()}


class LazyColumns(dict):
    """The columns of a frame, converted only when the model asks for them.

    A frame often has text columns that the model does not use; they are no error.
    """

    def __init__(self, frame: Any) -> None:
        super().__init__({str(name): None for name in frame.columns})
        self._frame = frame

    def __getitem__(self, name: str) -> Any:
        """Return one column as an array."""
        if name not in self:
            raise KeyError(name)
        return _value(self._frame[name], (name,))


def is_frame(value: Any) -> bool:
    """True for pandas and polars data frames, without importing either."""
    module = type(value).__module__.split(".")[0]
    return module in ("pandas", "polars") and type(value).__name__ == "DataFrame"


def _is_series(value: Any) -> bool:
    module = type(value).__module__.split(".")[0]
    return module in ("pandas", "polars") and type(value).__name__ in ("Series", "Categorical")


def _value(value: Any, path: Path) -> Any:
    if is_frame(value):
        return {str(name): _value(value[name], (*path, str(name))) for name in value.columns}
    if isinstance(value, Mapping):
        return {str(key): _value(item, (*path, str(key))) for key, item in value.items()}
    if _is_series(value):
        return _array(_series(value, path), path)
    if isinstance(value, np.ndarray | np.generic):
        return _array(value, path)
    if type(value).__module__.split(".")[0] == "xarray" and type(value).__name__ == "DataArray":
        return _array(value.to_numpy(), path)
    return value


def _series(series: Any, path: Path) -> np.ndarray:
    """A column as an array; categories become their codes."""
    if str(series.dtype) == "category":
        return np.asarray(series.cat.codes)
    if str(series.dtype) in ("Categorical", "Enum") or str(series.dtype).startswith(("Categorical(", "Enum(")):
        return series.to_physical().to_numpy()
    array = series.to_numpy()
    if array.dtype == object and all(isinstance(v, int | float | bool | None.__class__) for v in array):
        array = np.asarray([np.nan if v is None else v for v in array])
    return array


def _array(array: Any, path: Path) -> np.ndarray:
    array = np.asarray(array)
    name = name_of(path)
    if array.dtype.kind in "OUS":
        if array.dtype == object and _too_big(array):
            raise DataError(
                f"data {name} holds integers beyond 64 bits, which JAX cannot represent; pass it as float or rescale it"
            )
        raise DataError(
            f"data {name} holds {'text' if array.dtype.kind in 'US' or _has_text(array) else 'Python objects'}, "
            "which a model cannot compute with; encode it as integers, for a pandas column "
            f"frame['{path[-1]}'].astype('category')"
        )
    if array.dtype.kind in "mM":
        raise DataError(f"data {name} holds dates ({array.dtype}); convert it to numbers, such as days since the first")
    if array.dtype == np.uint64 and array.size and array.max() > np.iinfo(np.int64).max:
        raise DataError(f"data {name} has values up to {array.max()}, beyond the largest 64-bit integer; pass it as float")
    if array.size == 0:
        raise DataError(f"data {name} is empty (shape {array.shape}); a fit needs at least one value")
    return array


def _too_big(array: np.ndarray) -> bool:
    return any(isinstance(v, int) and abs(v) > np.iinfo(np.int64).max for v in array.ravel())


def _has_text(array: np.ndarray) -> bool:
    return any(isinstance(v, str) for v in array.ravel())


def name_of(path: Path) -> str:
    """Write a path into nested data as the user would: ``'data'['y']``."""
    return f"'{path[0]}'" + "".join(f"['{p}']" for p in path[1:])


def split(data: Mapping[str, Any]) -> tuple[dict[Path, Any], dict[Path, Any]]:
    """Split nested data into arrays and static values, each by path."""
    arrays: dict[Path, Any] = {}
    static: dict[Path, Any] = {}

    def walk(value: Any, path: Path) -> None:
        if isinstance(value, Mapping) and value:
            for key in value:
                walk(value[key], (*path, key))
        elif isinstance(value, np.ndarray | jax.Array) and not jax.dtypes.issubdtype(value.dtype, jax.dtypes.extended):
            arrays[path] = value
        else:
            static[path] = value

    for key in data:
        walk(data[key], (key,))
    return arrays, static


def join(*parts: Mapping[Path, Any]) -> dict[str, Any]:
    """Put values by path back into nested dicts."""
    result: dict[str, Any] = {}
    for part in parts:
        for path, value in part.items():
            inner = result
            for key in path[:-1]:
                inner = inner.setdefault(key, {})
            inner[path[-1]] = value
    return result


def fingerprint(value: Any) -> str:
    """Hash a static value by its content; objects that cannot be pickled by their identity."""
    try:
        content = pickle.dumps(value)
    except Exception:  # pickling runs arbitrary code of the object; any failure means "by identity"
        content = f"{type(value)}{id(value)}".encode()
    return hashlib.sha256(content).hexdigest()


def nonfinite(data: Mapping[Path, Any]) -> list[str]:
    """Describe each array that holds NaN or infinity: its name, how many, and where first."""
    found = []
    for path, array in data.items():
        values = np.asarray(array)
        if values.dtype.kind != "f":
            continue
        bad = ~np.isfinite(values)
        if bad.any():
            first = np.argwhere(bad)[0]
            where = "" if values.ndim == 0 else f", first at index {tuple(map(int, first)) if len(first) > 1 else int(first[0])}"
            kind = "NaN" if np.isnan(values[bad]).all() else "infinite or NaN values"
            found.append(f"data {name_of(path)} has {int(bad.sum())} {kind}{where}")
    return found
