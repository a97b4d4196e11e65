"""The bundled data and the demonstration."""

import time

import numpy as np
import pytest

from taut.datasets import baseball


def test_baseball_is_what_the_paper_printed():
    """Totals by hand from Table 1: 215 hits in 18 times 45 at-bats, mean .2654."""
    data = baseball()
    assert {name: len(column) for name, column in data.items()} == dict.fromkeys(
        ("player", "at_bats", "hits", "rest_of_season"), 18
    )
    assert data["hits"].sum() == 215
    assert len(set(data["player"])) == 18
    assert round(float(np.mean(data["hits"] / data["at_bats"])), 4) == 0.2654
    assert data["rest_of_season"][0] == 0.346


def test_mean_squared_errors_by_hand():
    demo = pytest.importorskip("taut.demo")
    data = {
        "hits": np.array([9, 36]),
        "at_bats": np.array([45, 45]),
        "rest_of_season": np.array([0.5, 0.6]),
    }
    pooled, raw = demo.mean_squared_errors(np.zeros((5, 2)), data)
    assert pooled == pytest.approx((0.0 + 0.01) / 2)
    assert raw == pytest.approx((0.09 + 0.04) / 2)


def test_the_demo_runs_and_beats_the_raw_averages(tmp_path, capsys):
    demo = pytest.importorskip("taut.demo")
    start = time.perf_counter()
    posterior = demo.run(tmp_path, progress=False)
    seconds = time.perf_counter() - start
    printed = capsys.readouterr().out
    assert posterior.trust.verdict in ("good", "usable")
    assert "times smaller" in printed
    assert (tmp_path / "report.html").stat().st_size > 1000
    assert seconds < 60  # 20 on an idle machine; annotations are checked at run time here
