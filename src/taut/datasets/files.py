"""Data files for the command line. Nothing heavy is imported until a file is read."""

import importlib
import json
from collections.abc import Iterable
from difflib import get_close_matches
from pathlib import Path
from typing import Any

MAX_LEVELS = 12


class InputError(Exception):
    """Something that the user named cannot be used; the message says what and what to try."""


def check_file(path: Path, what: str) -> None:
    """Refuse a path that is no file, and name the file in its folder that was perhaps meant.

    Args:
        path: of the file.
        what: what it holds, for the message.

    Raises:
        InputError: if it is a folder or does not exist.
    """
    if path.is_dir():
        raise InputError(f"{what} {path} is a folder")
    if path.exists():
        return
    message = f"{what} {path} does not exist"
    if path.parent.is_dir():
        names = [entry.name for entry in path.parent.iterdir()]
        if close := get_close_matches(path.name, names, n=1):
            message += f"; did you mean {path.parent / close[0]}?"
    raise InputError(message)


def read_data(path: Path) -> Any:
    """Read a data file into what ``taut.fit`` accepts.

    Args:
        path: .csv and .parquet give a data frame, whose columns become the model's arguments;
            .npz and .json a dict. In JSON, lists of numbers become arrays, and a list of records
            becomes a data frame; single numbers and text stay what they are.

    Raises:
        InputError: if the file is missing, of another kind, or cannot be read.
    """
    check_file(path, "the data file")
    readers = {
        ".csv": _read_csv,
        ".parquet": _read_parquet,
        ".json": _read_json,
        ".npz": _read_npz,
    }
    reader = readers.get(path.suffix.lower())
    if reader is None:
        raise InputError(
            f"the data file {path} must end in {', '.join(readers)}, got {path.suffix or 'no ending'!r}"
        )
    try:
        return reader(path)
    except InputError:
        raise
    except Exception as error:
        raise InputError(
            f"the data file {path} cannot be read as {path.suffix}: {str(error).strip()}"
        ) from error


def _read_csv(path: Path) -> Any:
    import pandas as pd

    return _categories(pd.read_csv(path))


def _read_parquet(path: Path) -> Any:
    """Read with whichever library is there: pandas needs pyarrow for it, polars nothing."""
    for library in ("polars", "pandas"):
        try:
            return importlib.import_module(library).read_parquet(path)
        except ImportError:
            continue
    raise InputError("reading Parquet needs polars or pyarrow: pip install polars")


def _read_npz(path: Path) -> Any:
    import numpy as np

    with np.load(path, allow_pickle=False) as arrays:
        return {name: arrays[name] for name in arrays.files}


def _read_json(path: Path) -> Any:
    value = json.loads(path.read_text(encoding="utf-8"))
    if isinstance(value, list) and value and all(isinstance(row, dict) for row in value):
        import pandas as pd

        return _categories(pd.DataFrame(value))
    if not isinstance(value, dict):
        raise InputError(f"the data file {path} must hold an object or a list of records")
    return _arrays_in(value)


def _arrays_in(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _arrays_in(inner) for key, inner in value.items()}
    return as_array(value) if isinstance(value, list) else value


def as_array(value: Any) -> Any:
    """Turn numbers into an array, null into NaN; leave lists of anything else alone."""
    import numpy as np

    array = np.array(value, dtype=object)
    if array.size and any(item is None for item in array.flat):
        array = np.where(array == None, np.nan, array)  # noqa: E711 (elementwise)
    try:
        converted = np.array(array.tolist())
    except ValueError:
        return value
    return converted if converted.dtype.kind in "biuf" else value


def _categories(frame: Any) -> Any:
    """Make categories of columns of text: a model gets their codes, in alphabetical order."""
    import pandas as pd

    text = [
        name
        for name in frame.columns
        if not pd.api.types.is_numeric_dtype(frame[name])
        and all(isinstance(value, str) for value in frame[name].dropna())
    ]
    return frame.astype(dict.fromkeys(text, "category"))


def codes(data: Any, names: Iterable[str]) -> list[str]:
    """Say what the codes of categories mean, a line for each column.

    Args:
        data: what :func:`read_data` returned.
        names: columns that the model asks for.

    Returns:
        Lines such as "site: 0 north, 1 south"; none where there are no categories.
    """
    lines = []
    for name in names:
        levels = getattr(getattr(data, "dtypes", {}).get(name), "categories", None)
        if levels is not None:
            shown = [f"{i} {level}" for i, level in enumerate(levels[:MAX_LEVELS])]
            more = [f"... {len(levels) - MAX_LEVELS} more"] if len(levels) > MAX_LEVELS else []
            lines.append(f"{name}: {', '.join([*shown, *more])}")
    return lines
