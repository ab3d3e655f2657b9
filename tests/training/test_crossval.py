"""Cross-validation: folds that keep their promise, work that is not done twice, and the real command."""

import csv
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from multiprocessing.process import BaseProcess
from pathlib import Path
from unittest.mock import Mock

import numpy as np
import pytest
import torch

from crnn.data.clips import Clips
from crnn.data.features import Features
from crnn.data.heard import n_heard
from crnn.data.workers import started
from crnn.features import N_MELS
from crnn.training import crossval
from crnn.training.crossval import _side_by_side, folds_of, folds_without_a_genre, read_answers
from crnn.training.state import TrainingError
from train import claimed, main

pytestmark = pytest.mark.processes

ROOT = Path(__file__).parents[2]
TRACKS = [f"{genre}.{number:05}" for genre in ("blues", "metal") for number in (29, 30, 31, 32, 33, 34)]
NETWORK = ["channels=4,8", "mel_pools=8,4", "time_pools=4,2", "recurrent_size=8", "window_frames=60"]
ARTISTS = {track: f"{track[:5]} artist {int(track[-2:]) // 2}" for track in TRACKS}


@pytest.fixture
def data(tmp_path: Path) -> list[str]:
    """Options that name a feature file of GTZAN's kind, loud above or below, and its artists."""
    generator = torch.Generator().manual_seed(0)
    log_mels = []
    for track in TRACKS:
        log_mel = -40 + 8 * torch.randn(N_MELS, 60, generator=generator)
        log_mel[64:] += 15 if track.startswith("metal") else -15
        log_mels.append(log_mel.clamp(-80, 0))
    Features.from_log_mels(log_mels, TRACKS).save(tmp_path / "features.npz")
    with (tmp_path / "artists.csv").open("w", newline="") as file:
        csv.writer(file).writerows([("track_id", "artist"), *ARTISTS.items()])
    return ["--features", str(tmp_path / "features.npz"), "--artists", str(tmp_path / "artists.csv")]


def options(data: list[str], out: Path) -> list[str]:
    return [
        *("cross-validate", *data, "--config", "scratch", "--out", str(out)),
        *("--groups", "artist", "--folds", "2", "--epochs", "2", "--batch-size", "4"),
        *("--members", "1", "--set", *NETWORK),
    ]


def test_folds_are_balanced_and_hold_every_clip_out_once() -> None:
    labels = np.repeat([0, 1, 2], 20)
    folds = folds_of(labels, ("a", "b", "c"), None, "clip", 4, seed=0)
    assert sorted(np.concatenate([fold.held_out for fold in folds])) == list(range(60))
    for _, train, held_out in folds:
        assert not set(train) & set(held_out)
        assert np.bincount(labels[held_out]).tolist() == [5, 5, 5]


def test_no_artist_is_on_both_sides() -> None:
    labels = np.repeat([0, 1], 30)
    artists = [f"artist {index // 4}" for index in range(60)]
    for _, train, held_out in folds_of(labels, ("a", "b"), artists, "artist", 3, seed=1):
        assert not {artists[i] for i in train} & {artists[i] for i in held_out}
        assert np.bincount(labels[held_out]).min() > 0


def test_folds_that_nothing_can_be_learned_from_are_refused() -> None:
    labels, artists = np.repeat([0, 1], 4), ["a", "b", "b", "a", "c", "c", "a", "c"]  # a and c come into one fold
    with pytest.raises(TrainingError, match=r"would lack a genre to learn, .*: take more artists"):
        folds_of(labels, ("jazz", "polka"), artists, "artist", 2, seed=0)
    with pytest.raises(TrainingError, match="or clips to ask: take more clips"):
        folds_of(np.zeros(2, int), ("jazz",), None, "clip", 2, seed=0)


@pytest.mark.parametrize(
    ("artists", "n_folds", "message"),
    [
        ("aabbcdef", 1, "'jazz' has 2 artists, so that --folds can be 2 only."),
        ("aabbcdef", 3, "'jazz' has 2 artists, so that --folds can be 2 only."),
        ("aabbcdef", None, "'jazz' has 2 artists, so that --folds can be 2 only (5 is the default)."),
        ("abcdefgg", 4, "'polka' has 3 artists, so that --folds can be 2 to 3."),
        ("abcdeeee", 2, "'polka' has a single artist, and a cross-validation takes two of each genre or more."),
    ],
)
def test_more_folds_than_groups_are_refused(artists: str, n_folds: int | None, message: str) -> None:
    with pytest.raises(TrainingError) as refusal:
        folds_of(np.repeat([0, 1], 4), ("jazz", "polka"), list(artists), "artist", n_folds, seed=0)
    assert str(refusal.value) == message


def test_the_command_measures_and_goes_on_where_it_was_stopped(
    data: list[str], tmp_path: Path, capfd: pytest.CaptureFixture
) -> None:
    """Started once as a person would, and then within this process; its folds have processes of their own."""
    out = tmp_path / "out"
    command = [sys.executable, "train.py", *options(data, out)]
    process = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=300)
    assert process.returncode == 0, process.stderr
    first = process.stdout
    assert {"fold 1  epoch   1", "fold 1  epoch   2", "fold 2  epoch   1", "fold 2  epoch   2"} == {
        line[:17] for line in first.splitlines() if "epoch" in line
    }
    assert "all folds: 12 clips, accuracy" in first
    assert "spread: " in first
    record = json.loads((out / "metrics.json").read_text())
    assert record["groups"] == "artist"
    assert n_heard(record["held_out"], Features.load(data[1])) == 12
    assert sum(fold["n"] for fold in record["valid"]["folds"]) == record["valid"]["n"] == 12
    assert {path.name for path in out.glob("*.png")} == {
        "confusion-cross-validation.png",
        "reliability-cross-validation.png",
    }

    assert not list(out.glob("*.pt"))
    (out / "fold-2.npz").unlink()
    assert main(options(data, out)) == 0
    again = capfd.readouterr().out
    assert [line[:6] for line in again.splitlines() if "epoch" in line] == ["fold 2"] * 2
    repeated = json.loads((out / "metrics.json").read_text())
    for key in ("accuracy", "nll", "confusion"):
        assert repeated["valid"][key] == record["valid"][key]


def test_a_fold_that_was_killed_goes_on_after_its_last_epoch(
    data: list[str], tmp_path: Path, capfd: pytest.CaptureFixture
) -> None:
    killed = [*options(data, tmp_path / "out"), "--jobs", "1", "--epochs", "20"]
    command = [sys.executable, "train.py", *killed]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as process:
        while not process.stdout.readline().startswith("fold 1  epoch   2"):
            pass
        process.kill()
    assert main(killed) == 0
    epochs = [int(line.split()[3]) for line in capfd.readouterr().out.splitlines() if line.startswith("fold 1")]
    assert 2 < epochs[0] <= 20
    assert epochs[-1] == 20


@pytest.mark.parametrize("signal_number", [signal.SIGINT, signal.SIGKILL])
def test_when_it_is_stopped_its_folds_stop_too(signal_number: int, data: list[str], tmp_path: Path) -> None:
    """Its children hold its output open for as long as they live."""
    command = [sys.executable, "train.py", *options(data, tmp_path / "out"), "--epochs", "100000"]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    with subprocess.Popen(command, cwd=ROOT, **pipes) as process:
        assert process.stdout.readline().startswith("fold")
        process.send_signal(signal_number)
        _, error = process.communicate(timeout=60)
    assert "Traceback" not in error
    if signal_number == signal.SIGINT:
        assert error == "train.py: stopped; the same command goes on.\n"
    assert process.returncode == (130 if signal_number == signal.SIGINT else -signal_number)


def test_folds_of_other_settings_are_not_mixed(data: list[str], tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    out = tmp_path / "out"
    out.mkdir()
    (out / "settings.json").write_text("{}")
    assert main(options(data, out)) == 2
    assert "other clips or settings" in capsys.readouterr().err


def test_what_is_no_cross_validation_is_not_written_over(
    data: list[str], tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    out = tmp_path / "out"
    out.mkdir()
    (out / "metrics.json").write_text("{}")
    assert main(options(data, out)) == 2
    assert "is not empty and holds no cross-validation" in capsys.readouterr().err
    assert [(path.name, path.read_text()) for path in out.iterdir()] == [("metrics.json", "{}")]


@pytest.mark.skipif(os.name != "posix", reason="folders cannot be locked here")
def test_no_two_work_in_one_folder(data: list[str], tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    with claimed(tmp_path / "out"):
        assert main(options(data, tmp_path / "out")) == 2
    assert "Another training is at work in" in capsys.readouterr().err
    assert list((tmp_path / "out").iterdir()) == []


class Began:
    """Processes of folds that learn nothing: those of some numbers fail at once, the others go on until ended."""

    def __init__(self, *failing: int) -> None:
        self.failing = failing
        self.numbers: list[int] = []
        self.threads: set[int] = set()
        self.processes: list[BaseProcess] = []

    def __call__(self, _: Callable[..., None], arguments: tuple, **__: Sequence[str]) -> BaseProcess:
        number, *_, threads, _ = arguments
        self.numbers.append(number)
        self.threads.add(threads)
        process = started(sys.exit, [1]) if number in self.failing else started(time.sleep, [60])
        self.processes.append(process)
        return process


def test_after_a_fold_that_fails_none_begins_or_goes_on(
    data: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    """The first is still at work when the second fails."""
    began = Began(1)
    monkeypatch.setattr(crossval, "started", began)
    assert main([*options(data[:2], tmp_path / "out"), "--groups", "none", "--folds", "5", "--jobs", "2"]) == 2
    assert "Fold 2 failed" in capsys.readouterr().err
    assert began.numbers == [0, 1]
    for process in began.processes:
        process.join(20)
    assert [process.exitcode for process in began.processes] == [-signal.SIGTERM, 1]


def test_folds_that_end_at_once_are_not_taken_for_failed() -> None:
    _side_by_side(lambda _: started(time.sleep, [0.01]), range(40), 4)


def test_a_fold_that_the_system_ends_gives_no_reason_of_its_own() -> None:
    with pytest.raises(TrainingError, match=r"^Fold 3 was ended by signal 9, perhaps for want of memory\."):
        _side_by_side(lambda _: started(signal.raise_signal, [signal.SIGKILL]), [2], 1)


@pytest.mark.parametrize(("n_done", "threads"), [(0, 3), (1, 4)])
def test_cores_that_no_fold_asks_for_are_given_to_those_there_are(
    n_done: int, threads: int, data: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    began = Began(*range(5))
    monkeypatch.setattr(crossval, "started", began)
    monkeypatch.setattr(torch, "get_num_threads", lambda: 16)
    command = [*options(data[:2], tmp_path / "out"), "--groups", "none", "--folds", "5", "--jobs", "16"]
    assert main(command) == 2
    for number in range(n_done):
        (tmp_path / "out" / f"fold-{number + 1}.npz").touch()
    began.threads.clear()
    assert main(command) == 2
    assert began.threads == {threads}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (["--artists", "nowhere.csv"], "nowhere.csv cannot be read"),
        (["--artists", __file__], "lacks the columns track_id and artist; its first line has"),
        (["--groups", "genre"], "With --groups genre each genre is a fold"),
        (["--folds", "9"], "artists, so that --folds can be 2 to 4."),
    ],
)
def test_faults_are_one_sentence(
    change: list[str], message: str, data: list[str], tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    assert main([*options(data, tmp_path / "out"), *change]) == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_two_genres_are_too_few_to_leave_one_out(
    data: list[str], tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    out = ["--config", "scratch", "--out", str(tmp_path / "out")]
    assert main(["cross-validate", *data, "--groups", "genre", *out]) == 2
    assert "takes three genres or more" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("copied", "message"),
    [
        ({"b": 2}, r"All clips of 'b' are copies of songs in 'a', .* has none to learn from"),
        ({"b": 3, "c": 3}, "All clips of 'b' and 'c' are copies of songs in 'a'"),
        ({"b": 1}, None),
    ],
)
def test_no_genre_is_learned_from_songs_of_the_one_left_out_alone(copied: dict[str, int], message: str | None) -> None:
    """The first of a genre's clips are those of "a"."""
    generator = np.random.default_rng(0)
    levels = {f"{genre}/{n}": generator.integers(0, 256, (N_MELS, 60), np.uint8) for genre in "abc" for n in range(3)}
    levels |= {f"{genre}/{n}": levels[f"a/{n}"] for genre, count in copied.items() for n in range(count)}
    if copied == {"b": 2}:
        del levels["b/2"]
    features = Features.from_levels(list(levels.values()), list(levels))
    clips = Clips(features, np.array(["abc".index(track[0]) for track in levels]))
    if message:
        with pytest.raises(TrainingError, match=message):
            folds_without_a_genre(clips, ("a", "b", "c"))
    else:
        assert [len(fold.train) for fold in folds_without_a_genre(clips, ("a", "b", "c"))] == [5, 5, 6]


def test_groups_need_artists(data: list[str], capsys: pytest.CaptureFixture) -> None:
    assert main(["cross-validate", *data[:2], "--groups", "artist"]) == 2
    assert "give --artists" in capsys.readouterr().err


def test_a_fold_that_fails_ends_in_a_sentence(data: list[str], tmp_path: Path, capfd: pytest.CaptureFixture) -> None:
    out = tmp_path / "out"
    assert main([*options(data, out), "--lr", "1e30", "--batch-size", "2"]) == 2
    error = capfd.readouterr().err
    assert "The loss is not a number in epoch 1; train anew, into another folder, with a smaller" in error
    assert "failed; its reason stands above" in error
    assert "Traceback" not in error
    assert not list(out.glob("fold-*"))


def test_a_fold_without_memory_ends_in_a_sentence(
    data: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = []
    monkeypatch.setattr(
        crossval, "started", lambda _, arguments, **__: calls.append(arguments) or started(sys.exit, [1])
    )
    assert main([*options(data, tmp_path / "out"), "--jobs", "1"]) == 2
    monkeypatch.setattr(crossval, "fit", Mock(side_effect=RuntimeError("DefaultCPUAllocator: can't allocate memory")))
    monkeypatch.setattr(torch, "set_num_threads", lambda _: None)
    with pytest.raises(SystemExit, match=r"^Fold 1: There is not enough memory: take fewer --jobs"):
        crossval._run_fold(*calls[0])


@pytest.mark.parametrize("windows", [None, [1, 2], [2, 2, 2]])
def test_a_damaged_fold_is_named(
    windows: list[int] | None,
    data: list[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture,
) -> None:
    """No bytes at all, windows that are not those of the logits, clips whose genre is not told."""
    out = tmp_path / "out"
    with monkeypatch.context() as patch:
        patch.setattr(crossval, "started", Began(0, 1))
        assert main(options(data, out)) == 2
    for number in (1, 2):
        (out / f"fold-{number}.npz").touch()
        if windows:
            logits = np.zeros((6, 2), np.float32)
            np.savez(out / f"fold-{number}.npz", logits=logits, windows=windows, genres="ab", truths="ab", seconds=1.0)
    assert main(options(data, out)) == 2
    sentence = f"{out / 'fold-1.npz'} is damaged: delete it, and train.py cross-validate makes it anew."
    assert capsys.readouterr().err.splitlines()[-1] == f"train.py: {sentence}"
    (out / "metrics.json").touch()
    with pytest.raises(TrainingError, match="is damaged: delete it"):
        read_answers(out)

    settings = (out / "settings.json").stat()
    assert main(options(data, out)) == 2
    assert (out / "settings.json").stat().st_mtime_ns == settings.st_mtime_ns


def test_a_state_that_cannot_be_read_is_said(
    data: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(crossval, "started", Began(0, 1))
        assert main(options(data, tmp_path / "out")) == 2
    (tmp_path / "out" / "fold-1.pt").mkdir()
    assert main([*options(data, tmp_path / "out"), "--jobs", "1"]) == 2
    error = capfd.readouterr().err
    assert f"Fold 1: {tmp_path / 'out' / 'fold-1.pt'} cannot be read or written (" in error
    assert "Traceback" not in error
