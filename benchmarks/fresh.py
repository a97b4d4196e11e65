"""Call a function in a fresh Python process, with a time limit.

A first fit compiles; only a new process shows what that costs. The function is named as
``package.module:function``, takes keyword arguments that JSON can hold, and returns such a value.
"""

import importlib
import json
import os
import re
import resource
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
# A cache of compiled programs on disk would make a second process warm.
SETTINGS = {"JAX_ENABLE_COMPILATION_CACHE": "false", "TQDM_DISABLE": "1"}


def call(target: str, arguments: dict[str, Any], limit: float) -> dict[str, Any]:
    """Run ``target(**arguments)`` in a process of its own.

    Args:
        target: ``package.module:function``.
        arguments: its keyword arguments.
        limit: seconds, start of Python and imports included.

    Returns:
        ``status`` ("ok", "timeout", "error" or "interrupted"), ``reason``, ``wall_s``,
        ``peak_mb`` and ``value``, what the function returned (None unless ok).
    """
    began = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        answer, log = Path(folder) / "answer.json", Path(folder) / "log.txt"
        code = _spawn(target, arguments, answer, log, limit)
        found = {"status": "ok", "reason": "", "value": None, "peak_mb": None}
        if code is None:
            found |= {"status": "timeout", "reason": f"more than {limit:g} s"}
        elif code or not answer.exists():
            found |= {"status": "error", "reason": _complaint(log) or f"exit code {code}"}
        else:
            found |= json.loads(answer.read_text())
    return found | {"wall_s": time.perf_counter() - began}


def _spawn(
    target: str, arguments: dict[str, Any], answer: Path, log: Path, limit: float
) -> int | None:
    """Run the child; its exit code, or None if it had to be ended."""
    command = [sys.executable, "-m", "benchmarks.fresh", target, json.dumps(arguments), str(answer)]
    env = os.environ | SETTINGS
    with log.open("w") as handle:
        child = subprocess.Popen(
            command, cwd=ROOT, env=env, stdout=handle, stderr=handle, start_new_session=True
        )
        try:
            return child.wait(timeout=limit)
        except subprocess.TimeoutExpired:
            return None
        finally:
            if child.poll() is None:
                os.killpg(child.pid, signal.SIGKILL)
                child.wait()


def _complaint(log: Path) -> str:
    """The line of the log that names the exception, else the last one."""
    lines = [line for line in log.read_text(errors="replace").splitlines() if line.strip()]
    named = [line for line in lines if re.match(r"[\w.]*(Error|Exception|Exit|Interrupt)\b", line)]
    return (named or lines or [""])[-1].strip()[:300]


def main() -> None:
    """Entry of the child: target, arguments and the file for the answer."""
    target, arguments, answer = sys.argv[1:4]
    module, _, function = target.partition(":")
    value = getattr(importlib.import_module(module), function)(**json.loads(arguments))
    unit = 2**20 if sys.platform == "darwin" else 2**10
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / unit
    Path(answer).write_text(json.dumps({"value": value, "peak_mb": round(peak)}))


if __name__ == "__main__":
    main()
