"""Two processes on this machine, through JAX's own runtime, give the result of one."""

import importlib.util
import os
import re
import socket
import subprocess
import sys

import jax
import numpy as np
import pytest


def _free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def _example(project):
    path = project / "examples" / "distributed.py"
    spec = importlib.util.spec_from_file_location("distributed", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return path, module


def _norm(tree):
    return np.sqrt(sum(np.sum(np.asarray(x, float) ** 2) for x in jax.tree.leaves(tree)))


def test_two_processes_give_the_result_of_one(project, tmp_path):
    """Sums of 40 rows in another order: single precision leaves 1e-4 after 200 steps."""
    path, module = _example(project)
    whole = _norm(module.fit(None).params)
    address = f"127.0.0.1:{_free_port()}"
    environment = {**os.environ, "PYTHONPATH": str(project / "src")}
    workers = [
        subprocess.Popen(
            [sys.executable, str(path), address, "2", str(i), str(tmp_path)],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            env=environment,
        )
        for i in range(2)
    ]
    said = [w.communicate(timeout=300)[0] for w in workers]
    assert [w.returncode for w in workers] == [0, 0], said
    found = [float(re.search(r"\|weights\| = ([\d.]+)", text).group(1)) for text in said]
    assert found[0] == found[1]
    assert found[0] == pytest.approx(whole, rel=1e-4)
    assert [p.name for p in tmp_path.iterdir()] == ["checkpoint.taut"]
