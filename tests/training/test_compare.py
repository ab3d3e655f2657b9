"""Runs side by side: figures, settings that differ, and sentences about folders that hold no run."""

import json
import os
import sys
from pathlib import Path

import pytest

from crnn import plots
from crnn.plots import style
from crnn.terminal import cells
from crnn.training.compare import differences, histories, read_run, table
from crnn.training.state import TrainingError
from train import main

FIGURES = {"n": 197, "accuracy": 0.624, "accuracy_error": 0.034, "macro_f1": 0.6, "nll": 1.234, "ece": 0.05}
RECIPE = {"front": "small", "training": {"lr": 0.001, "epochs": 3}, "network": {"channels": [4, 8]}}
HISTORY = """\
epoch,lr,train_loss,train_accuracy,valid_loss,valid_accuracy,seconds
1,0.1,2,0.2,1.9,0.3,90
2,0,1,0.5,1.5,0.4,30
"""


def write(folder: Path, **changes: object) -> Path:
    record = {"command": "python train.py", "parameters": 12_345, "recipe": RECIPE, "valid": FIGURES, **changes}
    folder.mkdir()
    (folder / "metrics.json").write_text(json.dumps(record))
    (folder / "history.csv").write_text(HISTORY)
    return folder


@pytest.fixture
def folders(tmp_path: Path) -> list[Path]:
    other = {**RECIPE, "training": {"lr": 0.002, "epochs": 3}, "network": {"channels": [4, 8, 16]}}
    return [write(tmp_path / "one"), write(tmp_path / "other", recipe=other, test={**FIGURES, "n": 290})]


def test_table_has_a_row_for_each_part_of_each_run(folders: list[Path]) -> None:
    head, *rows = table([read_run(folder) for folder in folders])
    assert head.split() == ["run", "part", "clips", "accuracy", "macro-F1", "nll", "ece", "parameters", "minutes"]
    figures = ["0.624", "±", "0.034", "0.600", "1.234", "0.050", "12,345", "2.0"]
    assert [row.split() for row in rows] == [
        [str(folders[0]), "valid", "197", *figures],
        [str(folders[1]), "valid", "197", *figures],
        [str(folders[1]), "test", "290", *figures],
    ]
    assert len({len(line) for line in [head, *rows]}) == 1


def test_a_run_whose_model_was_calibrated_since_has_no_test_figures(folders: list[Path]) -> None:
    """Those of the run are of the model that it was."""
    record = json.loads((folders[1] / "metrics.json").read_text())
    (folders[1] / "model").mkdir()
    for of_model, n_rows in (
        (record, 2),
        ({**record, "parameters": 1, "calibration": {}}, 2),  # of another run
        ({name: value for name, value in record.items() if name != "test"} | {"calibration": {}}, 1),
    ):
        (folders[1] / "model" / "metrics.json").write_text(json.dumps(of_model))
        assert len(table([read_run(folders[1])])) == 1 + n_rows


def test_wide_names_do_not_move_columns(folders: list[Path]) -> None:
    wide = folders[0].rename(folders[0].with_name("演歌 e\u0301"))
    lines = table([read_run(wide), read_run(folders[1])])
    assert len({cells(line) for line in lines}) == 1


def test_only_what_differs_is_told(folders: list[Path]) -> None:
    lines = differences([read_run(folder) for folder in folders])
    assert [line.split() for line in lines] == [
        ["recipe.training.lr", "0.001", "0.002"],
        ["recipe.network.channels", "4,8", "4,8,16"],
    ]
    assert differences([read_run(folders[0])] * 2) == []


def test_runs_of_other_genres_are_told(tmp_path: Path) -> None:
    runs = [write(tmp_path / name, valid={**FIGURES, "genres": ["jazz", name]}) for name in ("rock", "ska")]
    assert [line.split() for line in differences(list(map(read_run, runs)))] == [["genres", "jazz,rock", "jazz,ska"]]


def test_a_cross_validation_that_left_genres_out_has_no_accuracy(tmp_path: Path) -> None:
    folder = write(tmp_path / "genres", left_out={"jazz": {"n": 3, "taken_for": {}, "seconds": 1}})
    with pytest.raises(TrainingError, match="left genres out"):
        read_run(folder)


def test_what_a_run_started_from_is_told(folders: list[Path], tmp_path: Path) -> None:
    tuned = write(tmp_path / "tuned", recipe={**RECIPE, "base": {"name": "me/base"}}, heard=["valid"])
    lines = differences([read_run(folders[0]), read_run(tuned)])
    assert [line.split() for line in lines] == [["recipe.base.name", "–", "me/base"], ["heard", "–", "valid"]]


def test_a_cross_validation_has_no_curve(tmp_path: Path) -> None:
    folder = write(tmp_path / "folds", valid={**FIGURES, "folds": [{"seconds": 120}, {"seconds": 60}]})
    (folder / "history.csv").unlink()
    run = read_run(folder)
    assert run.history == ()
    assert run.minutes == 3


@pytest.mark.parametrize("text", ["{", "[]", "{}", '{"valid": {"n": 1}}', '{"valid": 3}'])
def test_what_is_no_run_is_a_sentence(tmp_path: Path, text: str) -> None:
    with pytest.raises(TrainingError, match="holds no finished run"):
        read_run(tmp_path)
    (tmp_path / "metrics.json").write_text(text)
    with pytest.raises(TrainingError, match="is not that of a run"):
        read_run(tmp_path)


@pytest.mark.parametrize(
    ("name", "text"), [("metrics.json", 400_000 * "["), ("history.csv", f"epoch\n{200_000 * '1'}\n")]
)
def test_a_damaged_record_is_a_sentence(folders: list[Path], name: str, text: str) -> None:
    (folders[0] / name).write_text(text)
    with pytest.raises(TrainingError, match="is not that of a run"):
        read_run(folders[0])


def test_control_signs_of_a_record_do_not_reach_the_terminal(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    red = {"protocol": "x\x1b[31mRED", "recipe": {"\x1b]0;title\x07": "one\ntwo"}}
    folders = [write(tmp_path / "one", **red), write(tmp_path / "other")]
    assert main(["compare", *map(str, folders), "--out", str(tmp_path / "comparison.png")]) == 0
    printed = capsys.readouterr().out
    assert "\x1b" not in printed
    lines = [line for line in printed.splitlines() if "RED" in line or "title" in line]
    assert len(lines) == 2
    assert len({line.index("–") for line in lines}) == 1


def test_the_command_prints_and_draws(folders: list[Path], tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    picture = tmp_path / "new" / "comparison.png"
    assert main(["compare", *map(str, folders), "--out", str(picture)]) == 0
    printed = capsys.readouterr().out
    assert "0.624 ± 0.034" in printed
    assert "recipe.training.lr" in printed
    assert str(picture) in printed
    assert picture.read_bytes().startswith(b"\x89PNG")


def test_what_is_said_to_show_the_curves_does(
    folders: list[Path], tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    assert main(["compare", *map(str, folders), "--out", str(tmp_path / "curves")]) == 0
    assert f"{tmp_path / 'curves.png'} shows" in capsys.readouterr().out
    assert (tmp_path / "curves.png").is_file()
    assert main(["compare", *map(str, folders), "--out", str(tmp_path / "curves.csv")]) == 2
    printed, error = capsys.readouterr()
    assert ".csv is no kind of picture: take one of" in error
    assert not printed
    assert main(["compare", *map(str, folders), "--out", str(tmp_path / "curves.png" / "a.png")]) == 2
    assert "curves.png" in capsys.readouterr().err


@pytest.mark.skipif(sys.platform != "linux", reason="other systems have no such names")
def test_runs_whose_names_are_no_text_are_drawn(folders: list[Path], tmp_path: Path) -> None:
    odd = folders[0].rename(tmp_path / os.fsdecode(b"caf\xe9"))
    assert main(["compare", str(odd), str(folders[1]), "--out", str(tmp_path / "comparison.png")]) == 0


def test_the_command_refuses_what_is_unfinished(
    folders: list[Path], tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    (folders[0] / "unfinished").mkdir()  # all that is left of one which ended before its command was noted
    assert main(["compare", *map(str, folders), "--out", str(tmp_path / "comparison.png")]) == 0
    (folders[0] / "unfinished" / "command.json").write_text("[]")
    assert main(["compare", *map(str, folders)]) == 2
    assert f"python train.py --resume {folders[0]} goes on" in capsys.readouterr().err


def test_curves_of_runs_are_drawn_from_their_validation() -> None:
    rows = [
        {"epoch": 1, "valid_loss": 2.0, "valid_accuracy": 0.2},
        {"epoch": 2, "valid_loss": 1.0, "valid_accuracy": 0.6},
    ]
    figure = plots.compared({"runs/a": rows, "runs/$b$": rows[:1], "_c": rows[:1]})
    assert [list(line.get_ydata()) for line in figure.axes[0].lines] == [[2.0, 1.0], [2.0], [2.0]]
    assert [list(line.get_ydata()) for line in figure.axes[1].lines] == [[0.2, 0.6], [0.2], [0.2]]
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["runs/a", "runs/$b$", "_c"]
    assert "runs/$b$" in plots.to_svg(figure, "")


def test_curves_have_the_names_of_runs_without_the_folder_that_all_lie_in(folders: list[Path], tmp_path: Path) -> None:
    deeper = write(tmp_path / "more", valid=FIGURES).rename(folders[0] / "more")
    (folders[1] / "history.csv").unlink()
    runs = [read_run(folder) for folder in (folders[0], deeper, folders[1])]
    assert [*histories(runs)] == ["one", str(Path("one", "more"))]
    assert [*histories(runs[:1])] == ["one"]
    assert [*histories(runs[2:])] == []


def test_long_names_do_not_lie_over_the_curves() -> None:
    rows = [{"epoch": epoch, "valid_loss": 2.0, "valid_accuracy": 0.2} for epoch in (1, 2)]
    figure = plots.compared({f"a run with a name as long as this one, which is number {i}": rows for i in range(9)})
    figure.draw_without_rendering()
    names = figure.legends[0].get_window_extent()
    assert min(names.x0, names.y0) >= 0
    assert not any(names.overlaps(axes.get_tightbbox()) for axes in figure.axes)
    assert all(axes.get_window_extent().height > 0.3 * figure.bbox.height for axes in figure.axes)


def test_curves_of_many_runs_are_as_high_as_those_of_one() -> None:
    rows = [{"epoch": epoch, "valid_loss": 2.0, "valid_accuracy": 0.2} for epoch in (1, 2)]
    heights = []
    for n_runs in (1, 60):
        figure = plots.compared({f"run {number}": rows for number in range(n_runs)})
        figure.draw_without_rendering()
        heights += [axes.get_window_extent().height for axes in figure.axes]
    assert heights == pytest.approx(heights[:1] * 4, rel=0.05)


@pytest.mark.parametrize("sign", ["W", "楽", "\udce9"])
def test_names_without_end_are_shortened(sign: str) -> None:
    rows = [{"epoch": epoch, "valid_loss": 2.0, "valid_accuracy": 0.2} for epoch in (1, 2)]
    figure = plots.compared({"a": rows, 200 * sign: rows})
    for text in figure.legends[0].get_texts():
        text.set_text(style.readable(text.get_text()))  # as it is when it is saved
    figure.draw_without_rendering()
    names = figure.legends[0].get_window_extent()
    assert (names.x0 >= 0, names.x1 <= figure.bbox.width) == (True, True)
