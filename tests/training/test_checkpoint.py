import os

import numpy as np
import pytest
from runs import run

from taut._core.errors import FileError
from taut._core.status import Status
from taut.training import Training
from taut.training import checkpoint as checkpoints

SETTINGS = Training(epochs=60)


@pytest.mark.parametrize("step", [30, 100, 200])
def test_a_resumed_run_equals_an_uninterrupted_one_bit_for_bit(tmp_path, step):
    whole = run(SETTINGS)
    first = run(SETTINGS, checkpoint=tmp_path, callbacks=[lambda stage, n: n["step"] >= step])
    assert first.status is Status.INTERRUPTED
    assert first.steps < whole.steps
    second = run(SETTINGS, checkpoint=tmp_path)
    assert second.status is Status.COMPLETED
    assert np.array_equal(second.params["w"], whole.params["w"])
    same = [
        (a.step, a.loss) == (b.step, b.loss) for a, b in zip(second.looks, whole.looks, strict=True)
    ]
    assert all(same)


def test_a_finished_run_is_not_run_again(tmp_path):
    first = run(SETTINGS, checkpoint=tmp_path)
    again = run(SETTINGS, checkpoint=tmp_path)
    assert again.compile_seconds == 0.0
    assert np.array_equal(first.params["w"], again.params["w"])


def test_the_checkpoint_of_another_run_is_refused(tmp_path):
    run(SETTINGS, checkpoint=tmp_path, identity="one model")
    with pytest.raises(FileError, match=r"one model.*another model.*another folder"):
        run(SETTINGS, checkpoint=tmp_path, identity="another model")


def test_the_checkpoint_of_another_optimiser_is_refused(tmp_path):
    run(SETTINGS, checkpoint=tmp_path)
    with pytest.raises(FileError, match="another optimiser"):
        run(Training(epochs=60, optimiser="sgd"), checkpoint=tmp_path)


def test_a_damaged_checkpoint_is_said(tmp_path):
    run(SETTINGS, checkpoint=tmp_path)
    file = tmp_path / checkpoints.NAME
    file.write_bytes(file.read_bytes()[:200])
    with pytest.raises(FileError, match="no checkpoint that can be read"):
        run(SETTINGS, checkpoint=tmp_path)


def test_a_full_disk_keeps_the_last_good_one_and_the_run(tmp_path, monkeypatch):
    run(SETTINGS, checkpoint=tmp_path, callbacks=[lambda stage, n: n["step"] >= 100])
    good = (tmp_path / checkpoints.NAME).read_bytes()

    def full(fd):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    found = run(SETTINGS, checkpoint=tmp_path)
    assert found.status is Status.COMPLETED
    assert any("No space left" in note and "last good one stays" in note for note in found.notes)
    assert [p.name for p in tmp_path.iterdir()] == [checkpoints.NAME]
    assert (tmp_path / checkpoints.NAME).read_bytes() == good


def test_a_folder_that_cannot_be_made_is_said_first(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(FileError, match="cannot be made"):
        run(SETTINGS, checkpoint=tmp_path / "file" / "folder")
