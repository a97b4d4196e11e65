"""What every test shares.

The annotations of taut are checked at run time while tests run (jaxtyping with beartype). Set
TAUT_TEST_NO_TYPES=1 to switch that off when hunting an error whose traceback it lengthens.
"""

import gc
import os
import sys
from pathlib import Path

import jaxtyping
import pytest

PROJECT = Path(__file__).resolve().parents[1]

if (worker := os.environ.get("PYTEST_XDIST_WORKER")) and "JAX_COMPILATION_CACHE_DIR" in os.environ:
    # JAX does not lock the files of compiled programs, so each test process has its own.
    os.environ["JAX_COMPILATION_CACHE_DIR"] += f"/{worker}"

if os.environ.get("TAUT_TEST_NO_TYPES") != "1":
    # Before any test module imports taut: the hook works on modules loaded after it.
    jaxtyping.install_import_hook("taut", "beartype.beartype")


@pytest.fixture(scope="session")
def project() -> Path:
    """The folder that holds pyproject.toml."""
    return PROJECT


@pytest.fixture(scope="session")
def shared() -> Path:
    """Reference posteriors and data that lie beside the project and are not part of it."""
    folder = PROJECT.parent / "shared"
    if not folder.is_dir():
        pytest.skip("the reference material is not beside the project (../shared)")
    return folder


@pytest.fixture(autouse=True, scope="module")
def _forget_compiled_programs():
    """Drop compiled programs after each module: each holds memory maps, whose number is limited."""
    yield
    if "jax" in sys.modules:
        sys.modules["jax"].clear_caches()
        gc.collect()
