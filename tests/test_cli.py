"""The command line: exit codes, messages, files; with a stand-in for the fit but in one test."""

import json
import sys
from types import SimpleNamespace

import numpy as np
import pytest

import taut
from taut import cli
from taut._core.errors import DataError

MODEL = """
import numpyro
import numpyro.distributions as dist

def model(x, y=None):
    slope = numpyro.sample("slope", dist.Normal(0, 10))
    noise = numpyro.sample("noise", dist.HalfNormal(5))
    numpyro.sample("y", dist.Normal(slope * x, noise), obs=y)

def other(x):
    pass
"""


class FakePosterior:
    """Writes files with a word in them and has the verdict that it was made with."""

    def __init__(self, verdict="good"):
        self.trust = SimpleNamespace(verdict=verdict)

    def __str__(self):
        return f"the table, verdict {self.trust.verdict}"

    def summary(self):
        import pandas as pd

        return pd.DataFrame({"mean": [1.0]}, index=["slope"])

    def report(self, path):
        path.write_text("report")

    def save(self, path):
        path.write_text("saved")


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    (tmp_path / "model.py").write_text(MODEL)
    (tmp_path / "data.csv").write_text("x,y\n1,2.1\n2,3.9\n3,6.2\n")
    return tmp_path


@pytest.fixture
def calls(monkeypatch):
    """Replace taut.fit; the list holds what it was called with."""
    seen = []

    def fake_fit(model, data=None, **settings):
        seen.append(SimpleNamespace(model=model, data=data, **settings))
        return FakePosterior()

    monkeypatch.setitem(vars(taut), "fit", fake_fit)
    return seen


def fail_with(monkeypatch, error):
    def failing_fit(*_, **__):
        raise error

    monkeypatch.setitem(vars(taut), "fit", failing_fit)


def test_fit_writes_the_results_and_prints_the_table(folder, calls, capsys):
    assert cli.main(["fit", "model.py", "--data", "data.csv", "--out", "a/b"]) == 0
    assert {path.name for path in (folder / "a/b").iterdir()} == {
        "report.html",
        "summary.csv",
        "fit.taut",
    }
    assert "slope" in (folder / "a/b/summary.csv").read_text()
    assert "the table, verdict good" in capsys.readouterr().out
    (call,) = calls
    assert call.model.__name__ == "model"
    assert list(call.data["x"]) == [1, 2, 3]
    assert (call.seed, call.budget, call.on_doubt) == (0, None, "escalate")
    assert (call.observe, call.family, call.progress) == (None, None, None)


def test_fit_passes_the_options_on(folder, calls, capsys):
    words = "fit model.py --model other --observe y=1,2.5 z=3 --seed 7 --budget 2.5 --on-doubt warn"
    assert cli.main([*words.split(), "--quiet"]) == 0
    (call,) = calls
    assert call.model.__name__ == "other"
    assert call.data is None
    np.testing.assert_array_equal(call.observe["y"], [1, 2.5])
    assert call.observe["z"] == 3
    assert (call.seed, call.budget, call.on_doubt, call.progress) == (7, 2.5, "warn", False)
    assert "the table" not in capsys.readouterr().out


@pytest.mark.parametrize("word", sorted(cli.FAMILIES))
def test_family_words_name_families(word):
    pytest.importorskip("taut.families")
    assert type(cli._family(word)).__name__ == cli.FAMILIES[word]


@pytest.mark.parametrize(
    ("verdict", "strict", "code"),
    [("good", True, 0), ("usable", True, 0), ("bad", True, 3), ("bad", False, 0)],
)
def test_strict_turns_a_bad_verdict_into_an_exit_code(folder, monkeypatch, verdict, strict, code):
    monkeypatch.setitem(vars(taut), "fit", lambda *_, **__: FakePosterior(verdict))
    words = ["fit", "model.py", *(["--strict"] if strict else [])]
    assert cli.main(words) == code
    assert (folder / "fit" / "report.html").exists()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["modl.py"], "the model file modl.py does not exist; did you mean model.py?"),
        (["."], "the model file . is a folder"),
        (["data.csv"], "must be Python code"),
        (["model.py", "--data", "dat.csv"], "dat.csv does not exist; did you mean data.csv?"),
        (["model.py", "--data", "model.py"], "must end in .csv, .parquet, .json, .npz, got '.py'"),
        (["model.py", "--model", "modle"], "it defines model, other. Try --model model"),
        (["broken.py"], "running broken.py failed in line 2: ZeroDivisionError"),
        (["syntax.py"], "running syntax.py failed in line 1: SyntaxError"),
        (["empty.py"], "no function named 'model', and no other function either"),
        (["model.py", "--data", "bad.json"], "bad.json cannot be read as .json: Expecting"),
        (["model.py", "--data", "number.json"], "must hold an object or a list of records"),
        (["model.py", "--data", "bad.csv"], "bad.csv cannot be read as .csv"),
        (["model.py", "--out", "data.csv"], "cannot make the folder data.csv"),
    ],
)
def test_bad_input_is_named_without_a_traceback(folder, calls, capsys, words, message):
    (folder / "broken.py").write_text("a = 1\nb = 1 / 0\n")
    (folder / "syntax.py").write_text("def f(:\n")
    (folder / "empty.py").write_text("")
    (folder / "bad.json").write_text("{")
    (folder / "number.json").write_text("3")
    (folder / "bad.csv").write_text("")
    assert cli.main(["fit", *words]) == 1
    printed = capsys.readouterr().err
    assert message in printed
    assert printed.startswith("taut: ")
    assert "Traceback" not in printed
    assert calls == []


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "COMMAND"),
        (["fit"], "model.py"),
        (["fit", "model.py", "--family", "round"], "invalid choice"),
        (["fit", "model.py", "--budget", "0"], "must be a number of seconds above 0, got '0'"),
        (
            ["fit", "model.py", "--budget", "soon"],
            "must be a number of seconds above 0, got 'soon'",
        ),
        (["fit", "model.py", "--observe", "y"], "write NAME=VALUE, got 'y'"),
        (["fit", "model.py", "--observe", "y=tall"], "must be a number"),
    ],
)
def test_usage_errors_exit_with_two(capsys, words, message):
    with pytest.raises(SystemExit) as stop:
        cli.main(words)
    assert stop.value.code == 2
    assert message in capsys.readouterr().err


def test_errors_of_the_fit_show_their_message_only(folder, monkeypatch, capsys):
    fail_with(monkeypatch, DataError("the model needs 'z', which data does not have"))
    assert cli.main(["fit", "model.py", "--data", "data.csv"]) == 1
    assert capsys.readouterr().err == "taut: the model needs 'z', which data does not have\n"


def test_other_errors_show_their_kind_and_how_to_see_more(folder, monkeypatch, capsys):
    fail_with(monkeypatch, KeyError("z"))
    assert cli.main(["fit", "model.py"]) == 1
    assert capsys.readouterr().err == (
        "taut: KeyError: 'z'\n(--traceback shows where it was raised)\n"
    )


def test_traceback_on_request(folder, monkeypatch, capsys):
    fail_with(monkeypatch, DataError("no"))
    assert cli.main(["fit", "model.py", "--traceback"]) == 1
    assert "Traceback" in capsys.readouterr().err


def test_an_interrupt_exits_as_shells_expect(folder, monkeypatch):
    fail_with(monkeypatch, KeyboardInterrupt())
    assert cli.main(["fit", "model.py"]) == 130


def test_data_formats(folder):
    np.savez(folder / "d.npz", x=np.arange(3.0))
    (folder / "d.json").write_text('{"J": 3, "x": [1, 2, null], "deep": {"w": [[1], [2]]}}')
    (folder / "rows.json").write_text('[{"x": 1, "y": 2}, {"x": 3, "y": 4}]')
    np.testing.assert_array_equal(cli.read_data(folder / "d.npz")["x"], [0, 1, 2])
    read = cli.read_data(folder / "d.json")
    assert read["J"] == 3
    assert isinstance(read["J"], int)
    np.testing.assert_array_equal(read["x"], [1, 2, np.nan])
    assert read["x"].dtype == float
    assert read["deep"]["w"].shape == (2, 1)
    assert list(cli.read_data(folder / "rows.json")["y"]) == [2, 4]


def test_text_becomes_codes_that_are_explained(folder, calls, capsys):
    (folder / "data.csv").write_text("x,y,place\n1,2.1,south\n2,3.9,north\n3,6.2,south\n")
    (folder / "model.py").write_text("def model(x, place, y=None):\n    pass\n")
    assert cli.main(["fit", "model.py", "--data", "data.csv"]) == 0
    (call,) = calls
    assert list(call.data["place"].cat.codes) == [1, 0, 1]
    assert "place: 0 north, 1 south\n" in capsys.readouterr().out
    assert cli.main(["fit", "model.py", "--data", "data.csv", "--quiet"]) == 0
    assert "north" not in capsys.readouterr().out


def test_lists_that_are_no_arrays_stay_lists():
    assert cli.as_array(["a", "b"]) == ["a", "b"]
    assert cli.as_array([[1], [2, 3]]) == [[1], [2, 3]]
    assert cli.as_array([1, 2]).dtype.kind == "i"


def test_parquet_is_read(folder):
    polars = pytest.importorskip("polars")
    polars.DataFrame({"x": [1.0, 2.0]}).write_parquet(folder / "d.parquet")
    assert list(cli.read_data(folder / "d.parquet")["x"]) == [1, 2]


def test_report_of_a_saved_fit(folder, monkeypatch, capsys):
    monkeypatch.setitem(vars(taut), "load", lambda path: FakePosterior())
    (folder / "fit.taut").write_text("saved")
    assert cli.main(["report", "fit.taut", "--out", "pages/r.html"]) == 0
    assert (folder / "pages" / "r.html").read_text() == "report"
    assert "wrote pages/r.html" in capsys.readouterr().out
    assert cli.main(["report", "fit.tout"]) == 1
    assert "did you mean fit.taut?" in capsys.readouterr().err


def test_version(capsys):
    with pytest.raises(SystemExit) as stop:
        cli.main(["--version"])
    assert stop.value.code == 0
    assert capsys.readouterr().out.startswith("taut 0.")


def test_fit_end_to_end(folder, capsys):
    """The real thing: a regression through the origin, whose answer is known."""
    pytest.importorskip("taut._fit")
    x = np.arange(1.0, 21.0)
    y = 2.0 * x + np.resize([0.5, -0.5, 0.3, -0.3], 20)
    (folder / "data.json").write_text(json.dumps({"x": x.tolist(), "y": y.tolist()}))
    words = "fit model.py --data data.json --out out --strict --quiet --traceback"
    assert cli.main(words.split()) == 0
    assert "verdict: " in capsys.readouterr().out

    import pandas as pd

    table = pd.read_csv(folder / "out" / "summary.csv", index_col=0)
    assert abs(table.loc["slope", "mean"] - (x @ y) / (x @ x)) < 0.005
    assert cli.main(["report", "out/fit.taut", "--out", "again.html"]) == 0
    assert "<html" in (folder / "again.html").read_text().lower()
