"""Reading what the user passes as data: mappings, data frames, arrays, plain Python values."""

from collections.abc import Iterable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from taut._core.errors import ArgumentError, DataError

Path = tuple[str, ...]


def read(data: Any, like: Any = None) -> dict[str, Any]:
    """Return ``data`` as a dict whose frames and columns have become NumPy arrays.

    Args:
        data: a mapping, a pandas or polars data frame, or None for no data.
        like: data of an earlier fit; categories keep the codes that they have there.

    Raises:
        DataError: if it is neither, or if a column cannot become an array.
    """
    if data is None:
        return {}
    if isinstance(data, LazyColumns):
        return data
    if is_frame(data):
        return LazyColumns(data, like)
    if not isinstance(data, Mapping):
        raise DataError(
            "data must be a mapping of the model's keyword arguments or a data frame, "
            f"got {type(data).__name__}; write data={{'x': x, 'y': y}}"
        )
    return {str(key): _value(value, (str(key),), _inside(like, key)) for key, value in data.items()}


def read_observe(observe: Any) -> dict[str, np.ndarray]:
    """Return the values of sites to condition on as arrays.

    Raises:
        ArgumentError: if ``observe`` is no mapping.
        DataError: if a value cannot become an array of numbers.
    """
    if observe is None:
        return {}
    if not isinstance(observe, Mapping):
        raise ArgumentError(
            f"observe must be a mapping of site names to values, got {type(observe).__name__}; "
            "write observe={'y': y}"
        )
    found = {}
    for name, value in observe.items():
        if value is None:
            raise ArgumentError(f"observe['{name}'] is None; leave it out to infer that site")
        path = ("observe", str(name))
        value = _value(value, path)
        try:
            found[str(name)] = _array(np.asarray(value), path)
        except ValueError as error:
            if isinstance(error, DataError):
                raise
            raise DataError(f"{_called(path)} is no array: {str(error).split('.')[0]}") from error
    return found


class LazyColumns(dict):
    """The columns of a frame, converted only when the model asks for them.

    A frame often has text columns that the model does not use; they are no error.
    """

    def __init__(self, frame: Any, like: Any = None) -> None:
        super().__init__({str(name): None for name in frame.columns})
        self._columns = {str(name): name for name in frame.columns}
        self._frame, self._like = frame, like

    def __getitem__(self, name: str) -> Any:
        """Return one column as an array."""
        column = self._columns[name]
        return _value(self._frame[column], (name,), _inside(self._like, column))


def is_frame(value: Any) -> bool:
    """True for pandas and polars data frames, without importing either."""
    return _package(value) in ("pandas", "polars") and type(value).__name__ == "DataFrame"


def _is_series(value: Any) -> bool:
    names = ("Series", "Categorical", "Index")
    return _package(value) in ("pandas", "polars") and type(value).__name__ in names


def _package(value: Any) -> str:
    return type(value).__module__.split(".")[0]


def _inside(data: Any, key: Any) -> Any:
    """The same entry of other data, or None."""
    if is_frame(data):
        return data[key] if key in list(data.columns) else None
    return data.get(key) if isinstance(data, Mapping) else None


def _value(value: Any, path: Path, like: Any = None) -> Any:
    if is_frame(value):
        columns = {str(n): n for n in value.columns}
        return {n: _value(value[c], (*path, n), _inside(like, c)) for n, c in columns.items()}
    if isinstance(value, Mapping):
        return {str(k): _value(v, (*path, str(k)), _inside(like, k)) for k, v in value.items()}
    if _is_series(value):
        return _array(_series(value, path, like), path)
    if isinstance(value, np.ma.MaskedArray):
        raise DataError(
            f"{_called(path)} is a masked array, whose mask would be lost; pass values and mask apart "
            "and use numpyro.handlers.mask, or obs_mask in numpyro.sample"
        )
    if isinstance(value, np.ndarray | np.generic):
        return _array(value, path)
    if isinstance(value, jax.Array):
        if not jnp.issubdtype(value.dtype, jax.dtypes.extended):
            _check_kind(value, path)
        return value
    if _package(value) == "xarray" and type(value).__name__ == "DataArray":
        return _array(value.to_numpy(), path)
    return value


def _categories(series: Any) -> list[Any] | None:
    """The categories of a column in the order of their codes, or None."""
    kind = str(series.dtype)
    if kind == "category":
        holder = (
            series if type(series).__name__ == "Categorical" else getattr(series, "cat", series)
        )
        return list(holder.categories)
    if kind.startswith("Enum"):
        return list(series.dtype.categories)
    if kind.startswith("Categorical"):  # polars numbers these across all columns: not from 0
        return sorted(series.drop_nulls().unique().cast(str).to_list())
    return None


def _series(series: Any, path: Path, like: Any = None) -> np.ndarray:
    """A column as an array; categories become their codes."""
    categories = _categories(series)
    if categories is not None:
        return _codes(series, categories, path, like)
    array = series.to_numpy()
    return array if array.dtype != object else _without_gaps(array)


def _without_gaps(array: np.ndarray) -> np.ndarray:
    """Numbers in an array of objects become floats, with NaN where they are missing."""
    missing = [v is None or type(v).__name__ in ("NAType", "NaTType") for v in array]
    filled = [float("nan") if gap else v for gap, v in zip(missing, array, strict=True)]
    if all(isinstance(v, int | float | np.number) for v in filled) and not _too_big(filled):
        return np.asarray(filled)
    return np.asarray([*filled, None], object)[:-1]


def _codes(series: Any, categories: list[Any], path: Path, like: Any) -> np.ndarray:
    fitted = _categories(like) if _is_series(like) else None
    values = np.asarray(series.to_list() if _package(series) == "polars" else series, object)
    missing = [i for i, v in enumerate(values) if v is None or v != v]
    if missing:
        raise DataError(
            f"{_called(path)} has {len(missing)} missing categories, first at row {missing[0]}; "
            "drop those rows, or give them a category of their own"
        )
    known = list(categories if fitted is None else fitted)
    order = {c: i for i, c in enumerate([*known, *(c for c in categories if c not in set(known))])}
    return np.asarray([order[v] for v in values], np.int64)


def _array(array: Any, path: Path) -> np.ndarray:
    array = np.asarray(array)
    if array.dtype == object and array.size and all(type(v) is int for v in array.flat):
        if _too_big(array.flat):
            raise DataError(
                f"{_called(path)} holds integers beyond 64 bits, which JAX cannot represent; "
                "pass it as float or rescale it"
            )
        array = array.astype(np.int64)
    _check_kind(array, path)
    if array.dtype == np.uint64 and array.max() > np.iinfo(np.int64).max:
        raise DataError(
            f"{_called(path)} has values up to {array.max()}, beyond the largest 64-bit integer; "
            "pass it as float"
        )
    return array


def _check_kind(array: Any, path: Path) -> None:
    """Refuse arrays of a kind or size that no model can compute with."""
    kind, called = array.dtype.kind, _called(path)
    if kind in "OUSTV":
        text = kind in "UST" or (kind == "O" and any(isinstance(v, str) for v in array.flat))
        if kind == "O" and any(
            type(v).__name__ in ("date", "datetime", "Timestamp") for v in array.flat
        ):
            raise DataError(
                f"{called} holds dates; convert it to numbers, such as days since the first"
            )
        raise DataError(
            f"{called} holds {'text' if text else 'Python objects'}, which a model cannot compute with; "
            f"encode it as integers, for a pandas column frame['{path[-1]}'].astype('category')"
        )
    if kind in "mM":
        raise DataError(
            f"{called} holds dates ({array.dtype}); convert it to numbers, such as days since the first"
        )
    if kind == "c":
        raise DataError(f"{called} holds complex numbers; pass real and imaginary part apart")
    if array.size == 0:
        raise DataError(f"{called} is empty (shape {array.shape}); a fit needs at least one value")


def _too_big(values: Iterable[Any]) -> bool:
    limits = np.iinfo(np.int64)
    return any(isinstance(v, int) and not limits.min <= v <= limits.max for v in values)


def _called(path: Path) -> str:
    """What to call an array in a message: ``data 'y'``, ``observe['y']``."""
    return (
        f"observe['{path[1]}']"
        if path[0] == "observe" and len(path) == 2
        else f"data {name_of(path)}"
    )


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
        elif isinstance(value, np.ndarray | jax.Array) and not jnp.issubdtype(
            value.dtype, jax.dtypes.extended
        ):
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


def nonfinite(data: Mapping[Path, Any]) -> list[str]:
    """Describe each array that holds NaN or infinity: its name, how many, and where first."""
    return [text for path, array in data.items() if (text := _broken(np.asarray(array), path))]


def _broken(values: np.ndarray, path: Path) -> str:
    if values.dtype.kind != "f" or np.isfinite(values).all():
        return ""
    bad = np.argwhere(~np.isfinite(values))
    first = tuple(map(int, bad[0]))
    if values.ndim == 0:
        where = ""
    elif values.ndim == 1:
        where = f", first at row {first[0]}"
    else:
        where = f", first at row {first[0]}, index {first}"
    count = f"{len(bad)} of {values.size:,} values"
    nans = int(np.isnan(values).sum())
    kind = "NaN" if nans == len(bad) else "infinite" if nans == 0 else "NaN or infinite"
    return f"{_called(path)} is {kind} in {count}{where}"
