"""The command line: ``taut fit``, ``taut demo`` and ``taut report``.

Nothing heavy is imported until a command runs, so that ``taut --help`` answers at once.
"""

import argparse
import importlib
import importlib.util
import inspect
import json
import sys
import traceback
from collections.abc import Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import Any

EXIT_FINE = 0
EXIT_FAILED = 1
EXIT_USAGE = 2  # argparse's own
EXIT_BAD_VERDICT = 3
EXIT_INTERRUPTED = 130

# The one place where words become objects: --family WORD -> class in taut.families.
FAMILIES = {"diagonal": "Diagonal", "dense": "Dense", "lowrank": "LowRank", "block": "Block"}

EXAMPLES = """\
examples:
  taut demo
  taut fit model.py --data data.csv --out fit/
  taut fit model.py --data data.json --observe y=1.2,3.4 --strict
  taut report fit/fit.taut --out report.html

exit codes:
  0  fine
  1  the fit failed, or its input was bad
  2  the command line was not understood
  3  the verdict is "bad" and --strict was given
"""


class InputError(Exception):
    """Something that the user named cannot be used; the message says what and what to try."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line.

    Args:
        arguments: the words after ``taut``; None reads them from the process.

    Returns:
        The exit code, see ``taut --help``.
    """
    options = _parser().parse_args(arguments)
    try:
        return options.command(options)
    except KeyboardInterrupt:
        print("taut: interrupted", file=sys.stderr)
        return EXIT_INTERRUPTED
    except Exception as error:
        if options.traceback:
            traceback.print_exc()
        else:
            print(_one_message(error), file=sys.stderr)
        return EXIT_FAILED


def _one_message(error: Exception) -> str:
    """Return what to print for an error: its own words if they were written for the user."""
    if isinstance(error, InputError):
        return f"taut: {error}"
    # No module of taut that could raise a TautError is loaded without this one.
    errors = sys.modules.get("taut._core.errors")
    if errors is not None and isinstance(error, errors.TautError):
        return f"taut: {error}"
    return f"taut: {type(error).__name__}: {error}\n(--traceback shows where it was raised)"


# ---------------------------------------------------------------- the parser


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="taut",
        description="Variational inference with a verdict on every answer.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action=_Version)
    commands = parser.add_subparsers(metavar="COMMAND", required=True)
    shared = argparse.ArgumentParser(add_help=False)
    shared.add_argument("--traceback", action="store_true", help="show where an error was raised")
    _add_fit(commands.add_parser("fit", parents=[shared], help="fit a model to data"))
    _add_demo(commands.add_parser("demo", parents=[shared], help="fit a bundled real data set"))
    _add_report(
        commands.add_parser("report", parents=[shared], help="write the report of a saved fit")
    )
    return parser


class _Version(argparse.Action):
    """Look the version up only when asked: reading the package metadata takes a while."""

    def __init__(self, option_strings: Sequence[str], dest: str, **_: Any) -> None:
        super().__init__(option_strings, dest, nargs=0, help="print the version")

    def __call__(self, parser: argparse.ArgumentParser, *_: Any) -> None:
        import taut

        print(f"taut {taut.__version__}")
        parser.exit()


def _add_fit(parser: argparse.ArgumentParser) -> None:
    parser.set_defaults(command=_fit)
    add = parser.add_argument
    add("file", metavar="model.py", type=Path, help="Python file with the model function")
    add("--model", metavar="NAME", default="model", help="its name in the file (default: model)")
    add("--data", metavar="FILE", type=Path, help="the data: .csv, .parquet, .json or .npz")
    add(
        "--observe",
        metavar="NAME=VALUE",
        type=_observation,
        nargs="+",
        action="extend",
        default=[],
        help="condition on a site: a number, numbers with commas between, or JSON",
    )
    add("--out", metavar="FOLDER", type=Path, default=Path("fit"), help="default: fit")
    add("--family", choices=FAMILIES, help="variational family (default: chosen)")
    add("--seed", type=int, default=0, help="default: 0")
    add("--budget", metavar="SECONDS", type=_seconds, help="default: until converged")
    add("--on-doubt", choices=("escalate", "warn", "raise"), default="escalate")
    add("--strict", action="store_true", help='exit with 3 if the verdict is "bad"')
    add("--quiet", action="store_true", help="no progress bar and no table")


def _add_demo(parser: argparse.ArgumentParser) -> None:
    parser.set_defaults(command=_demo)
    parser.add_argument("--out", metavar="FOLDER", type=Path, default=Path("demo"))
    parser.add_argument("--seed", type=int, default=0, help="default: 0")


def _add_report(parser: argparse.ArgumentParser) -> None:
    parser.set_defaults(command=_report)
    parser.add_argument("file", metavar="fit.taut", type=Path, help="written by taut fit")
    parser.add_argument("--out", metavar="FILE", type=Path, default=Path("report.html"))


def _seconds(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not value > 0:
        raise argparse.ArgumentTypeError(f"must be a number of seconds above 0, got {text!r}")
    return value


def _observation(text: str) -> tuple[str, Any]:
    """Read NAME=VALUE, where the value is a number, numbers with commas between, or JSON."""
    name, equals, value = text.partition("=")
    if not (name and equals and value):
        raise argparse.ArgumentTypeError(f"write NAME=VALUE, got {text!r}")
    for candidate in (value, f"[{value}]"):
        try:
            return name, json.loads(candidate)
        except json.JSONDecodeError:
            continue
    raise argparse.ArgumentTypeError(
        f"the value of {name} must be a number, numbers with commas between, or JSON, got {value!r}"
    )


# ---------------------------------------------------------------- the commands


def _fit(options: argparse.Namespace) -> int:
    # Cheap checks first: a typing error should not cost the seconds that JAX takes to load.
    _check_file(options.file, "the model file")
    data = None if options.data is None else read_data(options.data)
    model = load_model(options.file, options.model)
    out = _folder(options.out)

    import taut

    posterior = taut.fit(
        model,
        data,
        observe={name: _as_array(value) for name, value in options.observe} or None,
        family=_family(options.family),
        seed=options.seed,
        budget=options.budget,
        on_doubt=options.on_doubt,
        progress=False if options.quiet else None,
    )
    verdict = posterior.trust.verdict
    print(f"verdict: {verdict}" if options.quiet else posterior)
    _write(posterior, out)
    return EXIT_BAD_VERDICT if options.strict and verdict == "bad" else EXIT_FINE


def _demo(options: argparse.Namespace) -> int:
    out = _folder(options.out)
    demo = importlib.import_module("taut.demo")
    demo.run(out, seed=options.seed)
    return EXIT_FINE


def _report(options: argparse.Namespace) -> int:
    _check_file(options.file, "the saved fit")
    _folder(options.out.parent)

    import taut

    taut.load(options.file).report(options.out)
    print(f"wrote {options.out}")
    return EXIT_FINE


def _write(posterior: Any, out: Path) -> None:
    posterior.summary().to_csv(out / "summary.csv")
    posterior.save(out / "fit.taut")
    posterior.report(out / "report.html")
    print(f"wrote report.html, summary.csv and fit.taut to {out}")


def _family(word: str | None) -> Any:
    if word is None:
        return None
    families = importlib.import_module("taut.families")
    return getattr(families, FAMILIES[word])()


# ---------------------------------------------------------------- files


def _check_file(path: Path, what: str) -> None:
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


def _folder(path: Path) -> Path:
    """Make the folder for the results, before the work whose results go there."""
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"cannot make the folder {path}: {error.strerror}") from error
    return path


def load_model(path: Path, name: str) -> Any:
    """Return the model that a Python file defines.

    Args:
        path: the file; its folder is importable while it runs.
        name: the function in it, or a ``taut.Density``.

    Raises:
        InputError: if the file cannot be run, or defines no such model; the message lists the
            functions that it does define.
    """
    # The prefix keeps a file named like a library, such as json.py, from taking its place.
    spec = importlib.util.spec_from_file_location(f"taut_model_{path.stem}", path)
    if spec is None or spec.loader is None:
        raise InputError(f"the model file {path} must be Python code with the ending .py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look their module up
    sys.path.insert(0, str(path.parent.resolve()))
    try:
        spec.loader.exec_module(module)
    except Exception as error:
        raise InputError(
            f"running {path} failed{_line_in(error, path)}: {type(error).__name__}: {error}"
        ) from error
    found = getattr(module, name, None)
    if callable(found) or type(found).__name__ == "Density":
        return found
    raise InputError(_no_such_model(module, path, name))


def _line_in(error: Exception, path: Path) -> str:
    """Return " in line n" for the innermost frame of an error that lies in the file."""
    if isinstance(error, SyntaxError):
        return f" in line {error.lineno}"
    frames = traceback.extract_tb(error.__traceback__)
    lines = [frame.lineno for frame in frames if Path(frame.filename).resolve() == path.resolve()]
    return f" in line {lines[-1]}" if lines else ""


def _no_such_model(module: Any, path: Path, name: str) -> str:
    functions = [
        key
        for key, value in vars(module).items()
        if inspect.isfunction(value) and value.__module__ == module.__name__
    ]
    message = f"{path} defines no function named {name!r}"
    if not functions:
        return f"{message}, and no other function either"
    close = get_close_matches(name, functions, n=1)
    choice = close[0] if close else functions[0]
    return f"{message}; it defines {', '.join(functions)}. Try --model {choice}"


# ---------------------------------------------------------------- data


def read_data(path: Path) -> Any:
    """Read a data file into what ``taut.fit`` accepts.

    Args:
        path: .csv and .parquet give a data frame, whose columns become the model's arguments;
            .npz and .json a dict. In JSON, lists of numbers become arrays, and a list of records
            becomes a data frame; single numbers and text stay what they are.

    Raises:
        InputError: if the file is missing, of another kind, or cannot be read.
    """
    _check_file(path, "the data file")
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

    return pd.read_csv(path)


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

        return pd.DataFrame(value)
    if not isinstance(value, dict):
        raise InputError(f"the data file {path} must hold an object or a list of records")
    return _arrays_in(value)


def _arrays_in(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _arrays_in(inner) for key, inner in value.items()}
    return _as_array(value) if isinstance(value, list) else value


def _as_array(value: Any) -> Any:
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


if __name__ == "__main__":
    sys.exit(main())
