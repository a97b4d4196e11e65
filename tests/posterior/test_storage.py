"""Saving and loading: bit for bit, without the data, and never half a file."""

import json
import os
import zipfile

import jaxtyping
import numpy as np
import posterior_models as models
import pytest

import taut
from taut import families
from taut._core.errors import ArgumentError, DataError, FileError, ModelError, UnsupportedError
from taut.posterior import storage
from taut.problem.evaluator import Evaluator


@pytest.fixture
def saved(schools_fit, tmp_path):
    path = tmp_path / "fit.taut"
    schools_fit.save(path)
    return path


def same(one, other):
    assert one.keys() == other.keys()
    for name in one:
        np.testing.assert_array_equal(one[name], other[name])


def rewrite(path, change):
    """Apply ``change`` to the members of a zip file."""
    with zipfile.ZipFile(path) as bundle:
        members = {name: bundle.read(name) for name in bundle.namelist()}
    change(members)
    with zipfile.ZipFile(path, "w") as bundle:
        for name, content in members.items():
            bundle.writestr(name, content)


# --- round trip -------------------------------------------------------------------------------


def test_everything_comes_back_bit_for_bit(saved, schools_fit, schools_data):
    again = taut.load(saved, models.schools, schools_data)
    same(again.draws(2000), schools_fit.draws(2000))
    same(again.draws(50, corrected=False), schools_fit.draws(50, corrected=False))
    same(again.predict(num_draws=100), schools_fit.predict(num_draws=100))
    same(again.log_likelihood(num_draws=100), schools_fit.log_likelihood(num_draws=100))
    same(again.mean, schools_fit.mean)
    assert str(again) == str(schools_fit)
    assert str(again.plan) == str(schools_fit.plan)
    assert again.trust == schools_fit.trust
    assert again.evidence == schools_fit.evidence
    assert again.history == schools_fit.history
    assert again.versions == schools_fit.versions
    assert again.dims == schools_fit.dims
    points = schools_fit.q.sample(np.random.default_rng(0), 5)
    np.testing.assert_array_equal(again.q.log_prob(points), schools_fit.q.log_prob(points))


def test_without_its_model(saved, schools_fit, tmp_path):
    again = taut.load(saved)
    same(again.draws(100), schools_fit.draws(100))
    same(again.mean, schools_fit.mean)
    assert again.draws(100, corrected=False)["theta"].shape == (100, 8)
    assert str(again) == str(schools_fit)
    again.report(tmp_path / "page.html")
    assert "theta[7]" in (tmp_path / "page.html").read_text()
    with pytest.raises(UnsupportedError, match=r"predict needs a model .* taut\.load\(path, model"):
        again.predict()
    for method in (again.log_likelihood, again.refine):
        with pytest.raises(UnsupportedError, match="needs the model and its data"):
            method()
    with pytest.raises(UnsupportedError, match="update needs the model and its data"):
        again.update({})


def test_with_its_model_and_no_data_it_predicts(saved, schools_fit):
    again = taut.load(saved, models.schools)
    new = {"sigma": models.SIGMA}
    same(again.predict(new, num_draws=50), schools_fit.predict(new, num_draws=50))
    assert again.predict({"sigma": np.ones(3)}, num_draws=50)["y"].shape == (50, 3)
    with pytest.raises(DataError, match="'sigma'"):
        again.predict()
    with pytest.raises(UnsupportedError, match="log_likelihood needs the model and its data"):
        again.log_likelihood()


def test_a_model_without_data_needs_none(tmp_path):
    y = np.array([1.0, 2.0])

    def model():
        import numpyro
        import numpyro.distributions as dist

        a = numpyro.sample("a", dist.Normal(0, 1))
        numpyro.sample("y", dist.Normal(a, 1), obs=y)

    fit = taut.fit(model)
    fit.save(tmp_path / "f")
    same(taut.load(tmp_path / "f", model).predict(), fit.predict())


def test_a_loaded_posterior_can_be_saved_again(saved, schools_data, tmp_path, schools_fit):
    """Also its coordinates, which the likelihood depends on, are in the second file."""
    taut.load(saved).save(tmp_path / "again.taut")
    again = taut.load(tmp_path / "again.taut", models.schools, schools_data)
    same(again.log_likelihood(num_draws=20), schools_fit.log_likelihood(num_draws=20))


def test_an_updated_posterior_keeps_its_prior(line, tmp_path):
    halves = [{"x": line.x[part], "y": line.y[part]} for part in (slice(0, 20), slice(20, 40))]
    fit = taut.fit(models.line, halves[0]).update(halves[1])
    fit.save(tmp_path / "f")
    again = taut.load(tmp_path / "f", models.line, halves[1])
    points = fit.q.sample(np.random.default_rng(0), 4)
    values = [Evaluator(p.problem).value(points) for p in (fit, again)]
    np.testing.assert_array_equal(*values)


@pytest.mark.parametrize(
    "family", [families.Diagonal(), families.LowRank(rank=1), families.Dense()], ids=repr
)
def test_every_family_comes_back(family, line, tmp_path):
    fit = taut.fit(models.line, line.data, family=family, on_doubt="escalate")
    fit.save(tmp_path / "f")
    points = np.random.default_rng(0).normal(size=(5, 2))
    again = taut.load(tmp_path / "f")
    assert type(again.q) is type(fit.q)
    np.testing.assert_array_equal(again.q.log_prob(points), fit.q.log_prob(points))


def test_no_data_are_in_the_file(tmp_path):
    """Neither as numbers of 8 or 4 bytes nor as text, of any value that the model saw."""
    rng = np.random.default_rng(6)
    data = models.Line.make(30, seed=8).data | {"x": rng.normal(size=30)}
    taut.fit(models.line, data).save(tmp_path / "f")
    with zipfile.ZipFile(tmp_path / "f") as bundle:
        content = b"".join(bundle.read(name) for name in bundle.namelist())
    for value in np.concatenate([data["x"], data["y"]]):
        assert np.float64(value).tobytes() not in content
        assert np.float32(value).tobytes() not in content
        assert repr(float(value)).encode() not in content


# --- damaged files ----------------------------------------------------------------------------


def test_a_missing_file(tmp_path):
    with pytest.raises(FileError, match=r"none\.taut does not exist"):
        taut.load(tmp_path / "none.taut")


@pytest.mark.parametrize("share", [0.0, 0.1, 0.5, 0.99])
def test_a_truncated_file(saved, share):
    content = saved.read_bytes()
    saved.write_bytes(content[: int(share * len(content))])
    with pytest.raises(FileError, match="is not a saved posterior, or is damaged"):
        taut.load(saved)


def test_random_bytes(tmp_path):
    path = tmp_path / "f"
    path.write_bytes(np.random.default_rng(0).bytes(5000))
    with pytest.raises(FileError, match="is not a saved posterior, or is damaged"):
        taut.load(path)


def test_changed_bytes_are_noticed_or_harmless(saved):
    """Either an error of ours, or the same draws: never another exception, never other numbers."""
    content, rng = bytearray(saved.read_bytes()), np.random.default_rng(1)
    expected = taut.load(saved).draws(20)
    for _ in range(60):
        changed = bytearray(content)
        for place in rng.integers(0, len(content), 3):
            changed[place] ^= int(rng.integers(1, 256))
        saved.write_bytes(changed)
        try:
            found = taut.load(saved)
        except FileError:
            continue
        same(found.draws(20), expected)


def test_a_zip_file_of_something_else(saved):
    rewrite(saved, lambda members: members.pop("taut.json"))
    with pytest.raises(FileError, match="is not a saved posterior, or is damaged"):
        taut.load(saved)


@pytest.mark.parametrize("lost", ["corrected/points.npy", "q/mean.npy", "raw/values/tau.npy"])
def test_a_missing_array(saved, lost):
    rewrite(saved, lambda members: members.pop(lost))
    with pytest.raises(FileError, match="is damaged: its contents are incomplete"):
        taut.load(saved)


@pytest.mark.parametrize("lost", ["trust", "q", "coordinates", "history"])
def test_a_missing_part_of_the_header(saved, lost):
    def change(members):
        header = json.loads(members["taut.json"])
        del header[lost]
        members["taut.json"] = json.dumps(header)

    rewrite(saved, change)
    with pytest.raises(FileError, match="is damaged: its contents are incomplete"):
        taut.load(saved)


def test_a_newer_format(saved):
    def change(members):
        header = json.loads(members["taut.json"])
        header["format"], header["versions"]["taut"] = storage.FORMAT + 1, "9.1"
        members["taut.json"] = json.dumps(header)

    rewrite(saved, change)
    with pytest.raises(
        FileError, match=r"newer taut \(9\.1, file format 2; this one reads up to 1"
    ):
        taut.load(saved)


def test_pickles_are_not_read(saved):
    def change(members):
        import io

        buffer = io.BytesIO()
        np.save(buffer, np.array([{}], dtype=object), allow_pickle=True)
        members["q/mean.npy"] = buffer.getvalue()

    rewrite(saved, change)
    with pytest.raises(FileError, match="is not a saved posterior, or is damaged"):
        taut.load(saved)


# --- another model ----------------------------------------------------------------------------


def test_the_file_of_another_model(saved, line):
    with pytest.raises(
        ArgumentError, match="the file is of another model: its latents 'mu', 'tau'"
    ):
        taut.load(saved, models.line, line.data)
    with pytest.raises(ArgumentError, match="the model has no latent 'mu': it is not the one that"):
        taut.load(saved, models.line).predict({"x": line.x})


def test_something_that_is_no_model(saved):
    with pytest.raises((ModelError, jaxtyping.TypeCheckError), match="model"):
        taut.load(saved, 3)


def test_data_of_another_shape(saved):
    with pytest.raises(ArgumentError, match="its latents 'theta' are not those of the given one"):
        taut.load(saved, models.schools, {"sigma": np.ones(3), "y": np.ones(3)})


# --- writing ----------------------------------------------------------------------------------


def test_saving_is_all_or_nothing(saved, line_fit, monkeypatch):
    before = saved.read_bytes()

    def fails(*_, **__):
        raise OSError("no space left on device")

    monkeypatch.setattr(np, "save", fails)
    with pytest.raises(OSError, match="no space left"):
        line_fit.save(saved)
    assert saved.read_bytes() == before
    assert os.listdir(saved.parent) == [saved.name], "nothing is left lying about"


def test_the_file_can_be_read_by_whom_new_files_can(saved, tmp_path):
    (tmp_path / "other").write_text("")
    assert saved.stat().st_mode == (tmp_path / "other").stat().st_mode


def test_saving_over_a_file_replaces_it(saved, line_fit):
    line_fit.save(saved)
    assert "beta" in taut.load(saved).mean


@pytest.mark.parametrize("method", ["save", "report"])
def test_a_folder_that_does_not_exist(line_fit, tmp_path, method):
    with pytest.raises(FileError, match=r"cannot write .*none/f: the folder .*none does"):
        getattr(line_fit, method)(tmp_path / "none" / "f")
    with pytest.raises(FileError, match="it is a folder"):
        getattr(line_fit, method)(tmp_path)
