"""The command line: one line a song, bad files on the side, exit statuses that scripts can trust."""

import json
import os
import platform
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from threading import Thread
from types import SimpleNamespace

import numpy as np
import pytest
from hub_server import HubServer

from crnn import checkpoint, sources
from crnn.__main__ import COMMANDS, main
from crnn.audio import SAMPLE_RATE
from crnn.bundle import MODEL_VARIABLE
from crnn.checkpoint import save
from crnn.inference import GenreClassifier
from crnn.library import classify
from crnn.machine import leave_threads_to_pytorch
from crnn.network.model import CRNN
from crnn.sources import Origin
from crnn.terminal import printable

LINE = r"(rock|jazz|disco) \d+%, then (rock|jazz|disco) \d+%, (rock|jazz|disco) \d+%"


@pytest.fixture
def songs(
    tmp_path: Path, tone: Callable[..., np.ndarray], write_wav: Callable[[Path, np.ndarray], Path]
) -> dict[str, Path]:
    """A folder with songs at two levels and files that are none; and one file that is damaged."""
    folder = tmp_path / "songs"
    (folder / "deeper").mkdir(parents=True)
    (folder / "notes.txt").write_text("not a song")
    (folder / "._low.wav").write_bytes(b"what some systems leave beside a song")
    (folder / ".trash").mkdir()
    (folder / ".trash" / "old.wav").write_bytes(b"")
    (folder / "album.mp3").mkdir()
    (tmp_path / "bad.mp3").write_bytes(b"no sound at all")
    (tmp_path / "empty").mkdir()
    return {
        "folder": folder,
        "low": write_wav(folder / "low.wav", tone(2.5, 110)),
        "high": write_wav(folder / "deeper" / "high.WAV", tone(3.5, 2_000)),
        "bad": tmp_path / "bad.mp3",
        "empty": tmp_path / "empty",
    }


def test_a_line_for_each_song(
    model: Path, songs: dict[str, Path], tiny_model: CRNN, capfd: pytest.CaptureFixture[str]
) -> None:
    assert main([str(songs["low"]), str(songs["high"])]) == 0
    out, err = capfd.readouterr()
    assert err == ""
    lines = out.splitlines()
    for line, path in zip(lines, (songs["low"], songs["high"]), strict=True):
        assert re.fullmatch(re.escape(f"{path}: ") + LINE, line)
        assert line == f"{path}: {GenreClassifier.from_pretrained(model).predict(path).summary()}"


def test_json_is_all_there_is_on_standard_output(
    model: Path, songs: dict[str, Path], capfd: pytest.CaptureFixture[str]
) -> None:
    assert main(["--json", str(songs["low"]), str(songs["bad"]), str(songs["high"])]) == 1
    out, err = capfd.readouterr()
    answers = [json.loads(line) for line in out.splitlines()]
    assert [answer["path"] for answer in answers] == [str(songs["low"]), str(songs["high"])]
    for answer in answers:
        expected = GenreClassifier.from_pretrained(model, precision="fastest").predict(answer["path"]).as_dict()
        assert answer == {"path": answer["path"], **expected}
        assert {"genre", "probabilities", "timeline"} <= answer.keys()
    assert err.startswith(f"genre-crnn: {songs['bad']}: bad.mp3 ")
    assert len(err.splitlines()) == 1


def test_folders_are_searched(model: Path, songs: dict[str, Path], capfd: pytest.CaptureFixture[str]) -> None:
    assert main(["--json", str(songs["folder"])]) == 0
    paths = [json.loads(line)["path"] for line in capfd.readouterr().out.splitlines()]
    assert paths == sorted([str(songs["low"]), str(songs["high"])])


def test_a_folder_without_songs_is_reported(
    model: Path, songs: dict[str, Path], capfd: pytest.CaptureFixture[str]
) -> None:
    assert main([str(songs["empty"]), str(songs["low"])]) == 1
    out, err = capfd.readouterr()
    assert len(out.splitlines()) == 1
    assert err == f"genre-crnn: {songs['empty']}: there are no audio files in this folder.\n"


@pytest.mark.parametrize("name", ["missing.wav", "x" * 5_000, "a\nb\x1b[31m.wav", "\udce9.wav", "nul\0sign.wav"])
def test_a_bad_file_is_reported_and_the_rest_go_on(
    model: Path, songs: dict[str, Path], name: str, capfd: pytest.CaptureFixture[str]
) -> None:
    assert main([name, str(songs["low"])]) == 1
    out, err = capfd.readouterr()
    assert re.fullmatch(re.escape(f"{songs['low']}: ") + LINE + "\n", out)
    assert err.startswith("genre-crnn: ")
    assert len(err.splitlines()) == 1
    assert "\x1b" not in err


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere file names are Unicode")
def test_a_file_name_that_is_no_text(model: Path, songs: dict[str, Path], capfd: pytest.CaptureFixture[str]) -> None:
    odd = os.fsdecode(os.fsencode(songs["folder"].parent) + b"/caf\xe9\n\x1b.wav")
    os.link(songs["low"], odd)
    assert main([odd]) == 0
    out = capfd.readouterr().out
    assert re.fullmatch(re.escape(rf"{songs['folder'].parent}/caf\udce9\n\x1b.wav: ") + LINE + "\n", out)
    assert main(["--json", odd]) == 0
    assert json.loads(capfd.readouterr().out)["path"] == odd


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("宇多田\u3000First\xa0Love 👨\u200d👩.mp3", "宇多田\u3000First\xa0Love 👨\u200d👩.mp3"),
        ("می\u200cخواهم ❤\ufe0f.mp3", "می\u200cخواهم ❤\ufe0f.mp3"),
        ("a\u202e3pm.exe\u2028\x85\x1b[2J\udce9", r"a\u202e3pm.exe\u2028\x85\x1b[2J\udce9"),
    ],
)
def test_names_are_shown_as_they_are_but_for_what_would_steer_the_terminal(name: str, shown: str) -> None:
    assert printable(name) == shown


def test_silence(
    model: Path, tmp_path: Path, write_wav: Callable[[Path, np.ndarray], Path], capfd: pytest.CaptureFixture[str]
) -> None:
    path = write_wav(tmp_path / "silence.wav", np.zeros(44_100))
    assert main([str(path)]) == 0
    assert capfd.readouterr().out == f"{path}: no music: the recording is silent\n"


def test_what_is_wrong_with_a_file_is_said_beside_its_answer(
    model: Path, songs: dict[str, Path], capfd: pytest.CaptureFixture[str]
) -> None:
    cut = songs["low"].with_name("cut.wav")
    cut.write_bytes(songs["low"].read_bytes()[:-SAMPLE_RATE])  # the last half second
    said = "Its end is missing: this answer is from the 2 s that are there."
    assert main([str(cut), str(songs["high"])]) == 0
    out, err = capfd.readouterr()
    assert re.fullmatch(re.escape(f"{cut}: ") + LINE, out.splitlines()[0])
    assert err == f"genre-crnn: {cut}: {said}\n"
    assert main(["--json", str(cut)]) == 0
    out, err = capfd.readouterr()
    assert json.loads(out)["notices"] == [said]
    assert err == f"genre-crnn: {cut}: {said}\n"


def test_a_bad_model_is_status_2(
    model: Path, songs: dict[str, Path], monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    assert main(["--model", "no-such-model", str(songs["low"])]) == 2
    out, err = capfd.readouterr()
    assert out == ""
    assert err.startswith("genre-crnn: There is no model 'no-such-model'")
    assert len(err.splitlines()) == 1
    (model / "model.safetensors").write_bytes(b"damage")
    assert main([str(songs["low"])]) == 2
    assert "is damaged" in capfd.readouterr().err
    monkeypatch.delenv(MODEL_VARIABLE)
    monkeypatch.setattr(sources, "BUNDLED", songs["empty"])
    assert main([str(songs["low"])]) == 2
    assert "There is no model" in capfd.readouterr().err


def test_wrong_usage_is_status_2(capfd: pytest.CaptureFixture[str]) -> None:
    for arguments in ([], ["--no-such-option", "song.wav"]):
        with pytest.raises(SystemExit) as caught:
            main(arguments)
        assert caught.value.code == 2
        assert "usage: genre-crnn" in capfd.readouterr().err


def test_a_notice_about_the_model_is_passed_on(
    model: Path, songs: dict[str, Path], monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    classifier = GenreClassifier.from_pretrained(model)
    classifier.origin = Origin("tiny", "This is the cached copy.")
    monkeypatch.setattr(GenreClassifier, "from_pretrained", lambda source, **options: classifier)
    assert main([str(songs["low"])]) == 0
    out, err = capfd.readouterr()
    assert len(out.splitlines()) == 1
    assert err == "genre-crnn: This is the cached copy.\n"


def test_the_option_wins_over_the_environment(
    model: Path, songs: dict[str, Path], monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv(MODEL_VARIABLE, "no-such-model")
    assert main(["--model", str(model), str(songs["low"])]) == 0
    assert main([str(songs["low"])]) == 2


def test_interrupted(
    model: Path, songs: dict[str, Path], monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    def interrupt(self: GenreClassifier, source: Path, *how: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(GenreClassifier, "listen", interrupt)
    assert main([str(songs["low"])]) == 130
    assert capfd.readouterr() == ("", "")


def test_a_reader_that_leaves_early(
    model: Path, songs: dict[str, Path], monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    with os.fdopen(writing, "w") as pipe:
        monkeypatch.setattr(sys, "stdout", pipe)
        assert main([str(songs["low"]), str(songs["high"])]) == 141
        monkeypatch.undo()
    assert capfd.readouterr() == ("", "")  # and closing the pipe, which flushes it, has raised nothing


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="there is no full disk here")
@pytest.mark.parametrize("options", [[], ["--out", "genres.csv"]])
def test_a_full_disk_behind_standard_error(
    options: list[str],
    model: Path,
    songs: dict[str, Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    """What cannot be told costs no answer."""
    monkeypatch.chdir(tmp_path)
    with Path("/dev/full").open("w") as full, monkeypatch.context() as patch:
        patch.setattr(sys, "stderr", full)
        assert main([str(songs["bad"]), str(songs["low"]), *options]) == 1
    answers = (tmp_path / "genres.csv").read_text() if options else capfd.readouterr().out
    assert str(songs["low"]) in answers


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="there is no full disk here")
def test_a_full_disk_behind_standard_output(
    model: Path, songs: dict[str, Path], monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    with Path("/dev/full").open("w") as full, monkeypatch.context() as patch:
        patch.setattr(sys, "stdout", full)
        assert main([str(songs["low"])]) == 2
    assert capfd.readouterr() == ("", "genre-crnn: This cannot go on: No space left on device.\n")


def test_the_real_command_with_a_model_from_the_hub(tiny_model: CRNN, songs: dict[str, Path], tmp_path: Path) -> None:
    """On a terminal that knows ASCII only."""
    save(tiny_model, tmp_path / "model", card="")
    accented = songs["low"].rename(songs["folder"] / "Été.wav")
    with HubServer() as hub:
        hub.push("someone/tiny", tmp_path / "model")
        environment = os.environ | {
            "HF_ENDPOINT": hub.url,
            "HF_HOME": str(tmp_path / "hf"),
            "HF_HUB_OFFLINE": "0",
            "NO_PROXY": "127.0.0.1",
            "PYTHONIOENCODING": "ascii",
            MODEL_VARIABLE: "someone/tiny@main",
        }
        environment.pop("HF_HUB_CACHE", None)
        command = [sys.executable, "-m", "crnn", str(accented), str(songs["bad"])]
        root = Path(checkpoint.__file__).parent.parent
        done = subprocess.run(
            command, cwd=root, env=environment, capture_output=True, text=True, timeout=120, check=False
        )
    assert done.returncode == 1
    assert re.fullmatch(re.escape(rf"{songs['folder']}/\xc9t\xe9.wav: ") + LINE + "\n", done.stdout)
    assert f"genre-crnn: {songs['bad']}: bad.mp3 " in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.skipif(sys.platform == "win32", reason="it keeps the folder in which a program runs")
def test_a_working_folder_that_is_gone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "gone").mkdir()
    monkeypatch.chdir(tmp_path / "gone")
    (tmp_path / "gone").rmdir()
    for command in ("song.mp3", "page", "train"):
        assert main([command]) == 2
        said = (
            "genre-crnn: This cannot go on: go to another folder, this one cannot be had (No such file or directory).\n"
        )
        assert capfd.readouterr() == ("", said)


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere address space has no limit")
@pytest.mark.parametrize(
    ("name", "program"),
    [
        ("genre-crnn", "import sys; sys.argv[1:] = ['song.mp3']; from crnn.__main__ import cli; sys.exit(cli())"),
        ("genre-crnn page", "import sys; sys.argv[1:] = ['page']; from crnn.__main__ import cli; sys.exit(cli())"),
        ("app.py", "import runpy; runpy.run_path('app.py', run_name='__main__')"),
        ("train.py", "import runpy; runpy.run_path('train.py', run_name='__main__')"),
    ],
)
def test_no_room_for_pytorch(name: str, program: str) -> None:
    limit = "import resource; resource.setrlimit(resource.RLIMIT_AS, (300_000_000,) * 2)"
    done = subprocess.run(
        [sys.executable, "-c", f"{limit}; {program}"],
        cwd=Path(checkpoint.__file__).parent.parent,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == f"{name}: There is not enough memory for PyTorch (ulimit -v).\n"


def test_no_room_for_threads(
    model: Path, songs: dict[str, Path], monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    def refuse(_: Thread) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(Thread, "start", refuse)
    assert main([str(songs["low"])]) == 2
    said = "genre-crnn: This cannot go on: the system starts no more threads (ulimit -u, ulimit -v).\n"
    assert capfd.readouterr() == ("", said)


def test_a_command_of_ones_own(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> None:
    """With no more than the recipe of docs/architecture.md asks for."""
    command = SimpleNamespace(
        DESCRIPTION="Count.",
        add_arguments=lambda parser: parser.add_argument("numbers", nargs="+"),
        run=lambda args: len(args.numbers),
    )
    monkeypatch.setitem(sys.modules, "counting", command)
    monkeypatch.setitem(COMMANDS, "count", ("counting", "count numbers"))
    assert main(["count", "1", "2", "3"]) == 3
    with pytest.raises(SystemExit, match="0"):
        main(["--help"])
    assert "count numbers" in capfd.readouterr().out


def test_a_package_that_is_missing_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(classify, "NEEDS", ("no_such_package",))
    with pytest.raises(ModuleNotFoundError, match="no_such_package"):
        main(["song.mp3"])


@pytest.mark.skipif(platform.machine() != "x86_64", reason="PyTorch may compute by OpenBLAS here")
@pytest.mark.parametrize("given", [None, "2"])
def test_pytorch_alone_starts_threads_unless_the_environment_says_otherwise(
    given: str | None, model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENBLAS_NUM_THREADS", given or "")
    if given is None:
        monkeypatch.delenv("OPENBLAS_NUM_THREADS")
    assert main([str(tmp_path / "missing.wav")]) == 1
    assert os.environ["OPENBLAS_NUM_THREADS"] == (given or "1")


def test_a_variable_over_which_an_import_would_fail_is_named(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("HF_HUB_ETAG_TIMEOUT", "x")
    monkeypatch.setattr(sys, "argv", ["genre-crnn"])
    for command, name in (
        ("song.mp3", ""),
        ("similar a.mp3 --in b.csv", ""),
        ("train", " train"),
        ("page", " page"),
    ):
        assert main(command.split()) == 2
        said = f"genre-crnn{name}: HF_HUB_ETAG_TIMEOUT must be a number from 0 to 86400, not 'x'.\n"
        assert capfd.readouterr() == ("", said)
    with pytest.raises(SystemExit, match="0"):  # which needs nothing of that
        main(["--help"])


def test_the_training_is_called_as_it_was(
    tiny_model: CRNN, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """In what it says about going on, too."""
    monkeypatch.setattr(sys, "argv", ["/anywhere/bin/genre-crnn"])
    run, model = tmp_path / "run", tmp_path / "model"
    (run / "unfinished").mkdir(parents=True)
    (run / "unfinished" / "command.json").write_text("[]")
    assert main(["train", "compare", str(run)]) == 2
    unfinished = f"{run} is unfinished; genre-crnn train --resume {run} goes on."
    save(tiny_model, model, "")
    (model / checkpoint.METRICS_FILE).write_text('{"recipe": {}}')
    assert main(["train", "calibrate", "--model", str(model), str(run)]) == 2
    none = f"{run} holds no finished cross-validation; genre-crnn train cross-validate makes one."
    said = capfd.readouterr().err.splitlines()
    assert said == [f"genre-crnn train: {sentence}" for sentence in (unfinished, none)]


@pytest.mark.parametrize(("machine", "threads"), [("x86_64", "1"), ("AMD64", "1"), ("arm64", None)])
def test_openblas_starts_no_threads_where_pytorch_does_without_it(
    machine: str, threads: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("platform.machine", lambda: machine)
    monkeypatch.setattr("os.environ", {})
    leave_threads_to_pytorch()
    assert os.environ.get("OPENBLAS_NUM_THREADS") == threads
