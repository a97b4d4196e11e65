"""The command line: ``taut fit``, ``taut demo`` and ``taut report``.

Nothing heavy is imported until a command runs, so that ``taut --help`` answers at once.
"""

import argparse
import importlib
import importlib.util
import inspect
import json
import os
import sys
import traceback
from collections.abc import Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from taut.datasets.files import InputError, as_array, check_file, codes, read_data

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
    except BrokenPipeError:  # as in `taut fit ... | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return EXIT_FAILED
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
    check_file(options.file, "the model file")
    data = None if options.data is None else read_data(options.data)
    model = load_model(options.file, options.model)
    out = _folder(options.out)

    import taut

    posterior = taut.fit(
        model,
        data,
        observe={name: as_array(value) for name, value in options.observe} or None,
        family=_family(options.family),
        seed=options.seed,
        budget=options.budget,
        on_doubt=options.on_doubt,
        progress=False if options.quiet else None,
    )
    # Files first: nothing is lost when whoever reads the output stops reading.
    if isinstance(posterior, taut.deep.TrainedPosterior | taut.deep.PointEstimate):
        posterior.history.to_csv(out / "history.csv")
        print(posterior)
        print(f"wrote history.csv to {out}; save its parameters from Python (posterior.params)")
        return EXIT_FINE
    _write(posterior, out)
    verdict = posterior.trust.verdict
    for line in [] if options.quiet else codes(data, arguments_of(model)):
        print(line)
    print(f"verdict: {verdict}" if options.quiet else posterior)
    print(f"wrote report.html, summary.csv and fit.taut to {out}")
    return EXIT_BAD_VERDICT if options.strict and verdict == "bad" else EXIT_FINE


def _demo(options: argparse.Namespace) -> int:
    out = _folder(options.out)
    demo = importlib.import_module("taut.demo")
    demo.run(out, seed=options.seed)
    return EXIT_FINE


def _report(options: argparse.Namespace) -> int:
    check_file(options.file, "the saved fit")
    _folder(options.out.parent)

    import taut

    taut.load(options.file).report(options.out)
    print(f"wrote {options.out}")
    return EXIT_FINE


def _write(posterior: Any, out: Path) -> None:
    posterior.summary().to_csv(out / "summary.csv")
    posterior.save(out / "fit.taut")
    posterior.report(out / "report.html")


def _family(word: str | None) -> Any:
    if word is None:
        return None
    families = importlib.import_module("taut.families")
    return getattr(families, FAMILIES[word])()


# ---------------------------------------------------------------- files


def _folder(path: Path) -> Path:
    """Make the folder for the results, before the work whose results go there."""
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"cannot make the folder {path}: {error.strerror}") from error
    return path


def arguments_of(model: Any) -> list[str]:
    """Return the names of a model's arguments."""
    return list(inspect.signature(getattr(model, "log_density", model)).parameters)


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


if __name__ == "__main__":
    sys.exit(main())
