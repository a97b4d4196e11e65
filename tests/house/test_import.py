"""Importing taut does nothing but import: no arrays, no settings, no heavy libraries.

Each check runs in a process of its own, because this one has imported everything already.
"""

import json
import subprocess
import sys
import time

import pytest

# Everything that a use of the public names would load.
LOAD = """
import taut
for name in taut.__all__:
    getattr(taut, name)
"""

HEAVY = ("arviz", "arviz_stats", "blackjax", "matplotlib", "pandas", "polars", "pymc", "xarray")


def answer_of(program: str) -> str:
    """Run a program in a new interpreter and return the last line that it prints."""
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip().splitlines()[-1]


def test_import_makes_no_arrays():
    program = f"import jax\n{LOAD}\nprint(len(jax.live_arrays()))"
    assert answer_of(program) == "0"


def test_import_changes_no_setting_of_jax():
    program = f"""
import jax, json, numpyro
before = dict(jax.config.values)
{LOAD}
after = dict(jax.config.values)
print(json.dumps([key for key in after if after[key] != before.get(key, after[key])]))
"""
    assert json.loads(answer_of(program)) == []


def test_import_loads_nothing_heavy():
    program = f"import sys\n{LOAD}\nprint([m for m in {HEAVY} if m in sys.modules])"
    assert answer_of(program) == "[]"


def test_taut_alone_does_not_load_jax():
    assert answer_of("import sys, taut\nprint('jax' in sys.modules)") == "False"


def test_import_takes_little_more_than_its_parents():
    """Counted in modules, since the machine may be busy: a heavy dependency brings hundreds."""
    program = f"""
import sys
import jax, numpyro, equinox, optax
import jax.numpy, scipy.stats
before = set(sys.modules)
{LOAD}
print(len([m for m in set(sys.modules) - before if not m.startswith("taut")]))
"""
    assert int(answer_of(program)) < 40


def test_fit_is_the_function_even_when_its_module_is_loaded():
    program = "import taut._fit, taut\nprint(callable(taut.fit), taut.fit.__name__)"
    assert answer_of(program) == "True fit"


def test_unknown_names_are_attribute_errors():
    import taut

    with pytest.raises(AttributeError, match="module 'taut' has no attribute 'fitt'"):
        taut.fitt  # noqa: B018


def test_help_answers_within_a_second():
    """The best of three, because another program may be in the way."""
    command = [sys.executable, "-m", "taut.cli", "--help"]
    seconds = []
    for _ in range(3):
        start = time.perf_counter()
        done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
        seconds.append(time.perf_counter() - start)
    assert "taut fit" in done.stdout
    assert min(seconds) < 1.0


def test_help_does_not_load_jax():
    program = """
import sys
from taut.cli import main
try:
    main(["--help"])
except SystemExit:
    pass
print([m for m in ("jax", "numpy", "pandas") if m in sys.modules])
"""
    assert answer_of(program) == "[]"
