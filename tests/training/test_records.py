import json

from runs import run

from taut._core.progress import Watch
from taut.training import JsonLines, TensorBoard, Training


def test_json_lines_hold_every_report(tmp_path):
    path = tmp_path / "run.jsonl"
    seen = []
    run(Training(epochs=5), callbacks=[JsonLines(path), lambda stage, n: seen.append(n) and None])
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    assert [line["step"] for line in lines] == [n["step"] for n in seen]
    assert {line["stage"] for line in lines} == {"training"}


def test_tensorboard_files_are_written(tmp_path):
    run(Training(epochs=5), callbacks=[TensorBoard(tmp_path)])
    files = list(tmp_path.glob("events.out.tfevents.*"))
    assert len(files) == 1
    assert b"training/loss" in files[0].read_bytes()


def test_the_status_line_has_a_bar_and_the_time_left(capsys):
    with Watch(None, True) as watch:
        watch.report("training", step=5, epoch=5.0, epochs=10, ELBO=-1.5)
    shown = capsys.readouterr().err
    assert "[##########..........]" in shown
    assert "left" in shown
    assert "ELBO -1.5" in shown
