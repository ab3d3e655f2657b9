"""The training command from the outside: data in, a run folder out, and the same figures from `evaluate`."""

import csv
import errno
import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import tarfile
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from unittest.mock import Mock

import numpy as np
import pytest
import soundfile
import torch
from hub_server import HubServer
from huggingface_hub import ModelCard
from safetensors.torch import load_file

import train
from crnn.checkpoint import save
from crnn.data import clips, download
from crnn.data.features import Features
from crnn.data.gtzan import FAULT_FILTERED
from crnn.data.heard import record_of
from crnn.data.names import genre_of
from crnn.features import N_MELS, SAMPLE_RATE
from crnn.network.config import CRNNConfig
from crnn.network.model import CRNN
from crnn.network.musicnn import PRETRAINED
from crnn.sources import BUNDLED, load_checkpoint
from crnn.terminal import cells
from crnn.training import runs
from crnn.training.card import PARTS, as_text
from crnn.training.fit import Epoch
from crnn.training.options import without_device
from crnn.training.recipes import NETWORK, RECIPES
from tests.warm import Command
from train import load_dataset, main, parse_args

pytestmark = pytest.mark.processes

ROOT = Path(__file__).parents[1]
SMALL = ["--members", "1", "--set"]
SMALL += ["channels=4,8", "mel_pools=8,4", "time_pools=2,2", "recurrent_size=6", "window_frames=48"]
KEYS = {"n", "accuracy", "macro_f1", "nll", "ece", "answered", "per_genre", "confusion", "reliability", "genres"}


def write_clip(path: Path, low: bool, seed: int) -> None:
    """Two seconds of hum (low) or of hiss."""
    time = np.arange(2 * SAMPLE_RATE) / SAMPLE_RATE
    hum = np.sin(2 * np.pi * (80 + 5 * seed) * time)
    hiss = np.diff(np.random.default_rng(seed).normal(0, 0.5, len(time) + 1))
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, 0.3 * (hum if low else hiss), SAMPLE_RATE)


@pytest.fixture(autouse=True)
def own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What commands keep for the next time is nothing to the next test."""
    monkeypatch.setattr(train, "DATA", tmp_path / "data")


@pytest.fixture(scope="module")
def music(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of two genres that nobody could confuse, ten clips each."""
    folder = tmp_path_factory.mktemp("music")
    for seed in range(10):
        write_clip(folder / "drone" / f"{seed}.wav", True, seed)
        write_clip(folder / "hiss & noise" / f"{seed}.flac", False, seed)
    return folder


@pytest.fixture(scope="module")
def desk(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where somebody works with the music: its log-mels stay in data/."""
    return tmp_path_factory.mktemp("desk")


@pytest.fixture
def at_the_desk(desk: Path, own_folder: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is kept there is there for this test."""
    monkeypatch.setattr(train, "DATA", desk / "data")


@pytest.fixture(scope="module")
def run(music: Path, desk: Path) -> tuple[Path, subprocess.CompletedProcess]:
    """One real training as a user would start it."""
    out = desk / "first"
    command = [
        sys.executable,
        ROOT / "train.py",
        "--config",
        "scratch",
        "--data",
        music,
        "--out",
        out,
        "--epochs",
        "2",
        "--batch-size",
        "4",
        "--seed",
        "1",
        *SMALL,
    ]
    return out, subprocess.run(command, cwd=desk, capture_output=True, text=True, check=False, timeout=300)


def test_run_folder_is_complete(run: tuple[Path, subprocess.CompletedProcess]) -> None:
    out, process = run
    assert process.returncode == 0, process.stderr
    assert {path.name for path in out.iterdir()} == {
        "model",
        "validated",
        "metrics.json",
        "history.csv",
        "curves.png",
        "confusion-valid.png",
        "confusion-test.png",
        "reliability-valid.png",
        "reliability-test.png",
    }
    model = {"config.json", "model.safetensors", "README.md", "metrics.json", "history.csv"}
    assert {path.name for path in (out / "model").iterdir()} == model
    for picture in out.glob("*.png"):
        assert picture.read_bytes().startswith(b"\x89PNG")
        assert picture.stat().st_size > 5_000


def test_output_is_an_honest_line_an_epoch(run: tuple[Path, subprocess.CompletedProcess]) -> None:
    found, artists, *lines = run[1].stdout.splitlines()
    assert found.endswith("music0: 20 clips, 10 drone, 10 hiss & noise.")
    assert "artists are not known" in artists
    assert lines[0] == "2 genres, 14 train, 4 valid, 2 test clips (random split by track, stratified by genre)"
    assert lines[1].startswith("If it is stopped, python train.py --resume ")
    epochs = [line.split()[1] for line in lines if line.startswith("epoch")]
    assert epochs == ["1", "2", "1", "2"]  # to validate, and again on all clips
    assert sum("valid loss" in line for line in lines) == 2


def test_record_tells_how_the_model_was_made(run: tuple[Path, subprocess.CompletedProcess], music: Path) -> None:
    out = run[0]
    record = json.loads((out / "metrics.json").read_text())
    assert record["valid"].keys() == record["test"].keys() > KEYS
    assert record["clips"] == {"train": 14, "valid": 4, "test": 2}
    assert record["command"].startswith("python train.py --config scratch --data ")
    assert {"python", "torch", "torchaudio"} <= record["versions"].keys()
    with (out / "history.csv").open() as file:
        history = list(csv.DictReader(file))
    assert [row["epoch"] for row in history] == ["1", "2"]
    card = (out / "model" / "README.md").read_text()
    assert record["command"] in card
    assert f"{record['valid']['accuracy']:.3f}" in card
    assert "drone" in card


def test_figures_that_cannot_be_written_are_refused_before_anything_is_measured(
    base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    monkeypatch.setattr(train, "load_dataset", lambda *_: pytest.fail("It began."))
    (tmp_path / "taken").touch()
    for name in ("taken/figures.json", "taken/new/figures.json"):
        assert main(["evaluate", "--model", str(base), "--json", str(tmp_path / name)]) == 2
        assert re.fullmatch(r"train.py: .*taken cannot be written \(Not a directory\)\.\n", capsys.readouterr().err)


def test_figures_are_written_over_nothing_but_earlier_ones(
    base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    monkeypatch.setattr(train, "load_dataset", lambda *_: pytest.fail("It began."))
    monkeypatch.setattr(train, "MOST_FIGURES", 100)
    figures = json.dumps({"n": 3, "accuracy": 0.9, "confusion": [[]]}).encode()
    contents = {
        "song.mp3": b"ID3\4",
        "large.json": figures.ljust(101),
        "metrics.json": b'{"valid": {"n": 3, "accuracy": 0.9}}',
        "list.json": b"[[1]]",
    }
    for name, content in contents.items():
        (tmp_path / name).write_bytes(content)
    (tmp_path / "link.json").symlink_to(base / "config.json")
    for name, why in (
        *((name, "is there and was not written by --json") for name in contents),
        ("base/config.json", "is in the folder of the model itself"),
        ("base/new.json", "is in the folder of the model itself"),
        ("base/new/figures.json", "is in the folder of the model itself"),
        ("link.json", "is in the folder of the model itself"),
    ):
        assert main(["evaluate", "--model", str(base), "--json", str(tmp_path / name)]) == 2
        assert f"{tmp_path / name} {why}" in capsys.readouterr().err
    assert {name: (tmp_path / name).read_bytes() for name in contents} == contents
    assert {path.name for path in base.iterdir()} == {"config.json", "model.safetensors", "README.md"}
    assert load_checkpoint(base)


@pytest.mark.usefixtures("at_the_desk")
@pytest.mark.parametrize(("split", "model"), [("valid", "validated"), ("test", "model")])
def test_evaluate_gives_the_figures_of_the_run(
    run: tuple[Path, subprocess.CompletedProcess],
    music: Path,
    split: str,
    model: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture,
) -> None:
    out, figures = run[0], tmp_path / "new" / "figures.json"
    options = ["--model", str(out / model), "--data", str(music), "--split", split, "--json", str(figures)]
    assert main(["evaluate", *options]) == 0
    measured = json.loads(figures.read_text())
    assert train.is_figures(figures)
    recorded = json.loads((out / "metrics.json").read_text())[split]
    assert measured["confusion"] == recorded["confusion"]
    for name in ("nll", "ece", "answered"):  # of validation clips by the calibration that others of them speak for
        assert measured[name] == pytest.approx(recorded[name], rel=1e-4)
    printed, notices = capsys.readouterr()
    assert ("These clips calibrated" in notices) == (split == "valid")
    assert "say nothing about other songs" not in notices
    assert f"{split}: {measured['n']} clips, accuracy {measured['accuracy']:.3f}" in printed
    assert "confusion" in printed
    assert "hiss & noise" in printed


def test_only_what_calibrated_a_model_is_calibrated_anew(
    run: tuple[Path, subprocess.CompletedProcess], music: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    model, others = tmp_path / "validated", tmp_path / "others"
    shutil.copytree(run[0] / "validated", model)
    for seed in range(10, 20):
        write_clip(others / "drone" / f"{seed}.wav", True, seed)
        write_clip(others / "hiss & noise" / f"{seed}.flac", False, seed)
    record = json.loads((model / "metrics.json").read_text())
    for data, changes in ((others, {}), (music, {"calibration": {}}), (music, {"clips": [1]}), (music, {"clips": {}})):
        (model / "metrics.json").write_text(json.dumps(record | changes))
        assert main(["evaluate", "--model", str(model), "--data", str(data), "--split", "valid"]) == 0
        assert "These clips calibrated" not in capsys.readouterr().err


def test_what_calibrated_a_model_in_cross_validation_is_told(
    run: tuple[Path, subprocess.CompletedProcess], music: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    model = tmp_path / "validated"
    shutil.copytree(run[0] / "validated", model)
    dataset = train.load_dataset(train.parse_args(["evaluate", "--data", str(music)]))
    clips = dataset.clips("valid").features
    record = json.loads((model / "metrics.json").read_text())
    for calibration, n_clips in (({"held_out": record_of(clips.select([0]))}, 1), ({}, 0), ("", 0)):
        (model / "metrics.json").write_text(json.dumps(record | {"calibration": calibration}))
        assert main(["evaluate", "--model", str(model), "--data", str(music), "--split", "valid"]) == 0
        told = f"1 of these {len(clips)} clips calibrated {model}" in capsys.readouterr().err
        assert told == bool(n_clips)


@pytest.mark.parametrize(("columns", "n_genres"), [("80", 2), ("80", 10), ("120", 30)])
def test_a_table_of_confusion_fits_into_a_terminal(
    columns: str, n_genres: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    """Its columns stand below each other, whatever the genres are called."""
    monkeypatch.setenv("COLUMNS", columns)
    genres = ["演歌", "한국 트로트", "e\u0301lectro", "très_long_nom_de_genre_musical_régional", *map(str, range(30))]
    genres = genres[:n_genres]
    runs.print_confusion({"genres": genres, "confusion": np.full((n_genres, n_genres), 20).tolist()})
    head, *rows = capsys.readouterr().out.splitlines()
    assert len({cells(line) for line in (head, *rows)}) == 1
    assert cells(head) <= int(columns)
    assert ("演歌" in head) == (n_genres == 2)
    assert all(genre[:20] in row for genre, row in zip(genres, rows, strict=True))


@pytest.mark.usefixtures("at_the_desk")
def test_a_single_genre_can_be_measured(
    run: tuple[Path, subprocess.CompletedProcess], music: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    shutil.copytree(music / "drone", tmp_path / "one" / "drone")
    options = ["--model", str(run[0] / "model"), "--data", str(tmp_path / "one"), "--split", "all"]
    assert main(["evaluate", *options]) == 0
    assert f"all: {len(list((music / 'drone').iterdir()))} clips" in capsys.readouterr().out


@pytest.mark.usefixtures("at_the_desk")
def test_a_part_of_which_nothing_decodes_stops_it_unless_that_is_accepted(
    music: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    for genre in music.iterdir():
        shutil.copytree(genre, tmp_path / "own" / "train" / genre.name)
        (tmp_path / "own" / "test" / genre.name).mkdir(parents=True)
        (tmp_path / "own" / "test" / genre.name / "a.mp3").write_bytes(b"version https://git-lfs.github.com/spec/v1")
    data = ["--data", str(tmp_path / "own"), "--out", str(tmp_path / "out")]
    assert main([*data, "--config", "scratch"]) == 2
    assert "Nothing of 'test/drone' and 'test/hiss & noise' can be decoded" in capsys.readouterr().err


@pytest.mark.usefixtures("at_the_desk")
def test_what_a_model_was_trained_on_is_no_test_of_it(
    run: tuple[Path, subprocess.CompletedProcess], music: Path, capsys: pytest.CaptureFixture
) -> None:
    for model, noticed in (("model", True), ("validated", False)):
        assert main(["evaluate", "--model", str(run[0] / model), "--data", str(music), "--split", "valid"]) == 0
        assert ("say nothing about other songs" in capsys.readouterr().err) == noticed


def test_songs_are_known_again_where_they_are_split_otherwise(
    run: tuple[Path, subprocess.CompletedProcess], music: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    grown, others = tmp_path / "grown", tmp_path / "others"
    shutil.copytree(music, grown)
    for seed in range(10, 30):
        for folder in (grown, others):
            write_clip(folder / "drone" / f"{seed}.wav", True, seed)
            write_clip(folder / "hiss & noise" / f"{seed}.flac", False, seed)
    for folder, noticed in ((grown, True), (others, False)):
        assert main(["evaluate", "--model", str(run[0] / "model"), "--data", str(folder), "--split", "train"]) == 0
        assert ("say nothing about other songs" in capsys.readouterr().err) == noticed


@pytest.mark.usefixtures("at_the_desk")
def test_without_refit_the_validated_model_is_the_model(music: Path, tmp_path: Path) -> None:
    options = ["--config", "scratch", "--epochs", "1", "--no-refit", *SMALL]
    assert main(["--data", str(music), "--out", str(tmp_path), *options]) == 0
    assert not (tmp_path / "validated").exists()
    model, _ = load_checkpoint(tmp_path / "model")
    assert model.config.trained_on == "random split by track, stratified by genre: train"


def test_model_of_a_run_is_calibrated_for_its_genres(run: tuple[Path, subprocess.CompletedProcess]) -> None:
    model, _ = load_checkpoint(run[0] / "model")
    assert model.config.genres == ("drone", "hiss & noise")
    assert model.config.temperature != 1
    assert 0 < model.config.unsure_below <= 1
    assert not model.training


def test_the_recipe_decides_the_network() -> None:
    transfer, scratch = (train.recipe_of(parse_args(options)) for options in ([], ["--config", "scratch"]))
    assert (transfer.front, transfer.members) == ("lean-choi-crnn+mn04-kinds+lean-won", 6)
    config = transfer.config(("a", "b"))
    assert (config.summary, config.bottleneck, config.block_dropout) == (True, 64, 0.2)
    assert (transfer.training.thaw, transfer.training.copies, config.summary_channels) == (0.92, 12, True)
    assert (scratch.front, scratch.members, scratch.training.thaw) == ("small", 3, 0.0)
    assert not scratch.config(("a", "b")).summary
    assert parse_args(["--config", "scratch"]).config == "scratch"
    assert RECIPES["scratch"].front == "small"


def test_the_front_decides_what_is_trained_further(features: list[str], tmp_path: Path) -> None:
    """musicnn's filters stay as they were and its layers move a little; the small front's are learned."""
    options = [
        "--front",
        "musicnn",
        "--members",
        "2",
        "--epochs",
        "2",
        "--batch-size",
        "4",
        "--no-refit",
        "--thaw",
        "0.5",
    ]
    options += ["--out", str(tmp_path / "run")]
    assert main([*features[:2], *options, "--set", "window_frames=48", "recurrent_size=4"]) == 0
    model, _ = load_checkpoint(str(tmp_path / "run" / "model"))
    pretrained = load_file(PRETRAINED)
    assert model.config.front == "musicnn"
    for name, value in model.stem.state_dict().items():
        assert torch.equal(value, pretrained[name]), name
    for member in model.members:
        for name, value in member.front.middle.state_dict().items():
            assert 0 < (value - pretrained[f"middle.{name}"]).abs().max() < 0.1, name


def test_data_without_a_test_part_says_so(music: Path, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    for genre in ("drone", "hiss & noise"):
        for path in sorted((music / genre).iterdir())[:2]:
            (tmp_path / "few" / genre).mkdir(parents=True, exist_ok=True)
            shutil.copy(path, tmp_path / "few" / genre)
    data, out = ["--data", str(tmp_path / "few")], tmp_path / "out"
    options = ["--config", "scratch", "--epochs", "1", "--augment", "mixup=0.2", "spec_augment=0", *SMALL]
    assert main([*data, "--out", str(out), *options]) == 0
    assert "test" not in json.loads((out / "metrics.json").read_text())
    assert main(["evaluate", "--model", str(out / "model"), *data]) == 2
    assert "This data has no test part." in capsys.readouterr().err


def test_without_data_it_fetches_gtzan_and_keeps_its_features(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    """The download is replaced by a small archive of GTZAN's shape; everything after it is real."""
    tracks = [track for part in FAULT_FILTERED.values() for track in part if track.startswith(("blues", "rock"))]
    archive = tmp_path / "genres.tar.gz"
    with tarfile.open(archive, "w:gz") as tar:
        for track in tracks[::20]:
            wav = tmp_path / f"{track}.wav"
            write_clip(wav, track.startswith("blues"), int(track[-2:]))
            tar.add(wav, f"genres/{genre_of(track)}/{wav.name}")
    monkeypatch.setattr(download, "fetch_archive", lambda folder: archive)
    monkeypatch.chdir(tmp_path)
    assert main(["--config", "scratch", "--epochs", "1", *SMALL]) == 0
    assert "fault-filtered split" in capsys.readouterr().out
    assert sorted(Features.load("data/gtzan-logmel.npz").track_id.tolist()) == sorted(tracks[::20])
    assert len(list(tmp_path.glob("runs/*/model/model.safetensors"))) == 1

    archive.unlink()
    shutil.rmtree("data/genres")
    assert main(["evaluate", "--model", str(next(tmp_path.glob("runs/*/model"))), "--split", "all"]) == 0


def test_a_clip_of_gtzan_that_fails_once_is_asked_for_again(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    clips = [train.DATA / "genres" / genre / f"{genre}.00000.wav" for genre in ("blues", "rock")]
    for clip in clips:
        write_clip(clip, True, 0)
    whole = clips[1].read_bytes()
    clips[1].write_bytes(b"RIFF")
    assert train.load_features(parse_args([])).track_id.tolist() == ["blues.00000"]
    clips[1].write_bytes(whole)
    assert train.load_features(parse_args([])).track_id.tolist() == ["blues.00000", "rock.00000"]
    assert "Left out rock.00000" in capsys.readouterr().out
    shutil.rmtree(train.DATA / "genres")
    assert len(train.load_features(parse_args([]))) == 2


@pytest.mark.usefixtures("at_the_desk")
def test_a_leaking_split_is_named_wherever_its_figures_are(
    music: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    options = ["--split", "segments", "--config", "scratch", "--epochs", "1", "--no-refit", *SMALL]
    assert main(["--data", str(music), "--out", str(tmp_path / "out"), *options]) == 0
    printed, notices = capsys.readouterr()
    assert "which leaks" in printed.splitlines()[2]  # after what was found
    assert "train.py: This is a random split by segment of 10 s, which leaks" in notices
    assert "which leaks" in json.loads((tmp_path / "out" / "metrics.json").read_text())["protocol"]
    assert "which leaks" in (tmp_path / "out" / "model" / "README.md").read_text()
    model = str(tmp_path / "out" / "model")
    assert main(["evaluate", "--model", model, "--data", str(music), "--protocol", "segments"]) == 0
    assert "say nothing about other songs" in capsys.readouterr().err


def test_training_and_evaluation_part_artists_alike(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    tracks = [f"{genre}/{number}.mp3" for genre in ("polka", "ska") for number in range(20)]
    levels = [np.full((128, 30), 6 * number + 6, dtype=np.uint8) for number in range(40)]
    Features.from_levels(levels, tracks).save(tmp_path / "features.npz")
    with (tmp_path / "artists.csv").open("w", newline="") as file:
        rows = [
            ("track_id", "artist"),
            *((track, f"{track[:5]} {int(track[-6:-4].strip('/')) // 2}") for track in tracks),
        ]
        csv.writer(file).writerows(rows)
    data = ["--features", str(tmp_path / "features.npz")]
    artists = [*data, "--artists", str(tmp_path / "artists.csv")]
    grouped, again = (load_dataset(parse_args([command, *artists])) for command in ("train", "evaluate"))
    assert grouped.protocol == "random split by artist, stratified by genre"
    for part, index in grouped.splits.items():
        assert index.tolist() == again.splits[part].tolist()
        assert len(index) >= 4
    assert "by track" in load_dataset(parse_args([*data, "--groups", "none"])).protocol
    for command in ("train", "evaluate", "cross-validate"):
        model = ["--model", "crnn-scratch"] if command == "evaluate" else []
        assert main([command, *model, *artists, "--groups", "none"]) == 2
        assert "--groups none does not ask who the artists are" in capsys.readouterr().err
    assert main([*data, "--groups", "artist"]) == 2
    assert "give --artists" in capsys.readouterr().err


def test_a_cross_validation_lays_aside_what_a_training_tests_with(tmp_path: Path) -> None:
    tracks = [f"{genre}/{number}.wav" for genre in ("ska", "polka") for number in range(40)]
    Features.from_log_mels([torch.zeros(128, 30) - n for n in range(80)], tracks).save(tmp_path / "own.npz")
    with (tmp_path / "artists.csv").open("w", newline="") as file:
        rows = [(track, f"{track.split('/')[0]} {number % 10}") for number, track in enumerate(tracks)]
        csv.writer(file).writerows([("track_id", "artist"), *rows])
    options = ["--features", str(tmp_path / "own.npz"), "--artists", str(tmp_path / "artists.csv")]
    trained, validated = (load_dataset(parse_args([command, *options])) for command in ("train", "cross-validate"))
    assert len(trained.splits["test"])
    assert trained.splits["test"].tolist() == validated.splits["test"].tolist()


def test_too_little_memory_for_the_data_is_a_sentence(
    features: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    def load(*_: object) -> None:
        raise MemoryError("Unable to allocate 2 GiB")

    monkeypatch.setattr(Features, "load", load)
    assert train.main(["evaluate", "--model", "crnn-scratch", *features[:2]]) == 2
    assert capsys.readouterr().err == (
        "train.py: There is not enough memory for this data: take fewer clips, or a larger machine.\n"
    )


def test_a_network_too_large_for_so_many_genres_is_a_sentence(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    tracks = [f"genre {genre}/{number}.wav" for genre in range(200) for number in range(6)]
    log_mels = [torch.full((128, 30), -80.0 + number % 60) for number in range(len(tracks))]
    Features.from_log_mels(log_mels, tracks).save(tmp_path / "many.npz")
    options = ["--config", "scratch", "--members", "16", "--set", "recurrent_size=512", "channels=16,16,16,128"]
    assert train.main(["--features", str(tmp_path / "many.npz"), "--accept", "copies", *options]) == 2
    assert "There is no such network: " in capsys.readouterr().err


def test_what_cannot_be_trained_on_is_refused_before_it_is_decoded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    for name in ("ska/1.wav", "ska/2.wav", "polka/1.wav"):
        path = tmp_path / "music" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        write_clip(path, True, len(name))
    monkeypatch.setattr(train, "extract_features", None)
    assert train.main(["--data", str(tmp_path / "music")]) == 2
    assert "only one clip of polka" in capsys.readouterr().err


def test_import_loads_nothing_that_only_some_processes_need() -> None:
    """Every process of an extraction, of a fold and of a training in several would wait seconds for it."""
    late = {"gradio", "librosa", "matplotlib", "scipy", "sklearn"}
    script = f"import sys, train; print({late} & sys.modules.keys())"
    process = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=True)
    assert process.stdout == "set()\n"


def test_train_is_the_default_command() -> None:
    assert parse_args([]).command == "train"
    assert parse_args(["--epochs", "3"]).epochs == 3
    assert parse_args(["evaluate"]).split == "test"


@pytest.mark.parametrize(
    "options",
    [
        ["--epochs", "0"],
        ["--lr", "-1"],
        ["--lr", "nan"],
        ["--lr", "1e38"],
        ["--seed", "-1"],
        ["--seed", "4294967296"],
        ["--batch-size", "99999999999999999999"],
        ["--augment", "mixup=1e39"],
        ["--augment", "time_stretch=1e30"],
        ["--augment", "probability=1.1"],
        ["--augment", "gain_db=nan"],
        ["--augment", "everything=1"],
        ["--augment", "mixup=-1"],
        ["--augment", "mixup"],
        ["--set", "genres=a,b"],
        ["--set", "channels=few"],
        ["--set", "summary=yes"],
        ["--set", "summary=1"],
        ["--set", "summary="],
        ["--set", "bottleneck=wide"],
        ["--augment", "reverberation=-0.1"],
        ["--device", "abacus"],
        ["--device", "cuda:99"],
        ["--set", "dropout"],
        ["--data", "a", "--features", "b"],
    ],
)
def test_impossible_options_are_refused(options: list[str], capsys: pytest.CaptureFixture) -> None:
    with pytest.raises(SystemExit) as stop:
        main(options)
    assert stop.value.code == 2
    assert "usage:" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("options", "wanted"),
    [
        (["--epochs", "1e3"], "this takes a whole number, not '1e3'"),
        (["--lr", "0,001"], "this takes a number, not '0,001'"),
        (["--seed", "one"], "this takes a whole number, not 'one'"),
        (["--copies", "1.5"], "this takes a whole number, not '1.5'"),
        (["--thaw", "half"], "this takes a number, not 'half'"),
        (["--augment", "mixup=0,3"], "mixup takes a number, not '0,3'"),
    ],
)
def test_what_is_no_number_is_told_what_is(options: list[str], wanted: str, capsys: pytest.CaptureFixture) -> None:
    with pytest.raises(SystemExit, match="2"):
        main(options)
    assert capsys.readouterr().err.endswith(f"error: argument {options[0]}: {wanted}\n")


@pytest.mark.parametrize(
    "arguments",
    [
        *([option] for option in ("--data", "--features", "--artists", "--out", "--resume")),
        *([option] for option in ("--init", "--pretrained", "--device")),
        ["evaluate", "--model"],
        ["evaluate", "--json"],
        ["calibrate", "--model", "run", "one"],
        ["calibrate", "one", "--model"],
        ["compare"],
        ["compare", "run", "--out"],
        ["push", "--repo", "user/name", "--model"],
        ["push", "--model", "run", "--repo", "user/name", "--revision"],
        ["push", "--model", "run", "--repo", "user/name", "--message"],
        ["export", "--onnx"],
        ["export", "--pt2"],
    ],
)
def test_an_empty_name_is_none(arguments: list[str], capsys: pytest.CaptureFixture) -> None:
    """Of a variable that is not set; as a path it would be the folder where one is."""
    with pytest.raises(SystemExit, match="2"):
        main([*arguments, ""])
    assert capsys.readouterr().err.endswith(": this cannot be empty\n")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--features", "nowhere.npz"], "There is no feature file nowhere.npz."),
        (["--data", "nowhere"], "There is no folder nowhere."),
        (["evaluate", "--model", "nowhere", "--features", "x.npz"], "There is no model 'nowhere'"),
        (["--init", "nowhere", "--features", "x.npz"], "There is no model 'nowhere'"),
        (["cross-validate", "--init", "nowhere", "--features", "x.npz"], "There is no model 'nowhere'"),
        (["push", "--repo", "a/b", "--model", "c/d"], "There is no folder c/d: push takes the folder of a model."),
        (
            ["push", "--repo", "a/b", "--model", "crnn-scratch"],
            "There is no folder crnn-scratch: push takes the folder of a model, such as a copy of "
            f"{BUNDLED / 'crnn-scratch'}.",
        ),
        (
            ["calibrate", "--model", "crnn-scratch", "runs/a", "runs/b"],
            "There is no folder crnn-scratch: calibrate takes the folder of a model, such as a copy of "
            f"{BUNDLED / 'crnn-scratch'}.",
        ),
    ],
)
def test_faults_are_one_sentence_and_status_two(
    arguments: list[str], message: str, capsys: pytest.CaptureFixture
) -> None:
    assert main(arguments) == 2
    error = capsys.readouterr().err
    assert error.startswith(f"train.py: {message}")
    assert error.count("\n") == 1


@pytest.fixture(scope="module")
def features(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """Options of a short training on a feature file of noise, loud above or below."""
    generator = torch.Generator().manual_seed(0)
    tracks = [f"{genre}/{number}" for genre in ("high", "low") for number in range(20)]
    log_mels = []
    for track in tracks:
        log_mel = -40 + 8 * torch.randn(N_MELS, 60, generator=generator)
        log_mel[64:] += 15 if track.startswith("high") else -15
        log_mels.append(log_mel.clamp(-80, 0))
    path = tmp_path_factory.mktemp("features") / "features.npz"
    Features.from_log_mels(log_mels, tracks).save(path)
    training = ["--config", "scratch", "--epochs", "6", "--batch-size", "4", "--device", "cpu"]
    return ["--features", str(path), *training, *SMALL]


def test_a_network_that_could_not_be_loaded_again_is_not_trained(
    features: list[str], tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    arguments = [*features[:4], "--set", "recurrent_size=512", "--members", "8", "--out", str(tmp_path / "run")]
    assert main(arguments) == 2
    assert re.fullmatch(r"train.py: This network has weights of \d+ MB, and .*\n", capsys.readouterr().err)
    assert not (tmp_path / "run").exists()


@pytest.mark.skipif(os.name != "posix", reason="folders cannot be locked here")
def test_two_trainings_do_not_write_into_one_folder(
    features: list[str], tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    with train.claimed(tmp_path / "run"):
        assert main([*features, "--out", str(tmp_path / "run")]) == 2
    assert "Another training is at work in" in capsys.readouterr().err
    assert list((tmp_path / "run").iterdir()) == []


def test_a_folder_that_another_has_filled_while_this_one_prepared_stays_as_it_is(
    features: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    def assembled(args: SimpleNamespace) -> tuple:
        (tmp_path / "run").mkdir()
        (tmp_path / "run" / "metrics.json").write_text("{}")
        return assemble(args)

    assemble = train.assemble
    monkeypatch.setattr(train, "assemble", assembled)
    assert main([*features, "--out", str(tmp_path / "run")]) == 2
    assert "is not empty" in capsys.readouterr().err
    assert [path.name for path in (tmp_path / "run").iterdir()] == ["metrics.json"]


def wait_for_epoch(process: Command, epoch: int) -> None:
    while line := process.stdout.readline():
        if line.startswith(f"epoch {epoch:3d}"):
            return
    raise AssertionError(process.stderr.read())


def results(out: Path) -> tuple:
    """All that a run comes to, but for the time it took and the name of its folder."""
    weights = [(out / name / "model.safetensors").read_bytes() for name in ("model", "validated")]
    with (out / "history.csv").open() as file:
        history = [{**row, "seconds": ""} for row in csv.DictReader(file)]
    return weights, history, {**json.loads((out / "metrics.json").read_text()), "command": ""}


def test_a_training_that_is_killed_twice_comes_to_the_same(
    features: list[str], tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    """Once while it validates and once while it trains again on all clips, each time in the middle of an epoch."""
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    options = [*features, "--epochs", "12"]
    assert main([*options, "--out", str(whole)]) == 0
    with Command(*options, "--out", str(broken)) as process:
        wait_for_epoch(process, 2)
        process.kill()
    assert {path.name for path in broken.iterdir()} == {"unfinished"}
    with Command("--resume", str(broken)) as process:
        wait_for_epoch(process, 12)
        wait_for_epoch(process, 2)
        process.kill()
    assert (broken / "unfinished" / "train+valid.pt").is_file()
    capsys.readouterr()
    assert main(["--resume", str(broken)]) == 0
    epochs = [line.split()[1] for line in capsys.readouterr().out.splitlines() if line.startswith("epoch")]
    assert epochs == [str(number) for number in range(13 - len(epochs), 13)]
    assert len(epochs) <= 10  # of the second training; the first is complete
    assert results(broken) == results(whole)
    assert {path.name for path in broken.iterdir()} == {path.name for path in whole.iterdir()}


def test_one_interrupt_stops_after_the_epoch_and_two_at_once(features: list[str], tmp_path: Path) -> None:
    out = tmp_path / "out"
    with Command(*features, "--out", str(out), "--epochs", "100000") as process:
        wait_for_epoch(process, 1)
        process.send_signal(signal.SIGINT)
        output, error = process.communicate(timeout=60)
    assert process.returncode == 130
    assert error.split("\n")[1:-1] == [
        "train.py: stopping after this epoch; Ctrl-C again stops at once.",
        f"train.py: stopped; python train.py --resume {out} goes on.",
    ]
    rows = torch.load(out / "unfinished" / "train.pt", weights_only=True)["history"]
    assert len(output.splitlines()) == len(rows) - 1

    with Command("--resume", str(out)) as process:
        wait_for_epoch(process, len(rows) + 1)
        process.send_signal(signal.SIGINT)
        process.send_signal(signal.SIGINT)
        _, error = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "Traceback" not in error


@pytest.fixture
def stopped(features: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of a training that was stopped after its second epoch."""
    out = tmp_path / "stopped"

    def stop(epoch: Epoch) -> None:
        if epoch.epoch == 2:
            raise KeyboardInterrupt

    monkeypatch.setattr(runs, "report", stop)
    assert main([*features, "--out", str(out)]) == 130
    monkeypatch.undo()
    return out


def test_options_may_be_given_again_but_not_changed(
    stopped: Path, features: list[str], capsys: pytest.CaptureFixture
) -> None:
    assert main([*features, "--resume", str(stopped), "--seed", "3"]) == 2
    assert f"was started with python train.py {shlex.join(features)}" in capsys.readouterr().err
    assert main([*features, "--out", str(stopped)]) == 2
    assert f"python train.py --resume {stopped} goes on with the training there" in capsys.readouterr().err
    assert main([*features, "--resume", str(stopped)]) == 0
    assert main(["--resume", str(stopped)]) == 2
    assert "holds no unfinished training." in capsys.readouterr().err


def test_a_training_goes_on_in_spite_of_what_is_found_meanwhile(
    music: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    """A folder of a genre that has no clips yet was made beside the others."""
    data, out = tmp_path / "music", tmp_path / "out"
    shutil.copytree(music, data)
    with monkeypatch.context() as patch:
        patch.setattr(train, "train_and_measure", Mock(side_effect=KeyboardInterrupt))
        assert main(["--data", str(data), "--out", str(out), *TINY]) == 130
    (data / "blues").mkdir()
    assert main(["--resume", str(out)]) == 2
    assert "give --accept empty to go on without it" in capsys.readouterr().err
    with monkeypatch.context() as patch:
        patch.setattr(train, "train_and_measure", Mock(side_effect=KeyboardInterrupt))
        assert main(["--resume", str(out), "--accept", "empty"]) == 130
        assert f"python train.py --resume {out} --accept empty goes on" in capsys.readouterr().err
    assert main(["--resume", str(out), "--accept", "empty"]) == 0
    assert load_checkpoint(out / "model")


@pytest.mark.parametrize("text", [400_000 * "[", "{}", "3"])
def test_a_training_whose_command_notes_nothing_cannot_go_on(
    tmp_path: Path, text: str, capsys: pytest.CaptureFixture
) -> None:
    (tmp_path / "unfinished").mkdir()
    (tmp_path / "unfinished" / "command.json").write_text(text)
    assert main(["--resume", str(tmp_path)]) == 2
    assert "command.json is gone or damaged; train anew" in capsys.readouterr().err


def test_a_training_goes_on_on_another_device(stopped: Path, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    """It was begun with `--device` of a GPU, which is not here."""
    path = stopped / "unfinished" / "train.pt"
    state = torch.load(path, weights_only=True)
    state["settings"]["training"] |= {"device": "cuda:99", "precision": "bfloat16"}
    state["random"][0]["cuda:99"] = torch.zeros(16, dtype=torch.uint8)
    torch.save(state, path)
    command = stopped / "unfinished" / "command.json"
    noted = json.loads(command.read_text())
    command.write_text(json.dumps({**noted, "arguments": [*noted["arguments"], "--device=cuda:99"]}))
    capsys.readouterr()
    with pytest.raises(SystemExit):
        main(["--resume", str(stopped), "--device", "cuda:99"])
    capsys.readouterr()
    assert main(["--resume", str(stopped), "--device", "cpu"]) == 0
    notices = capsys.readouterr().err
    assert notices.count("It goes on elsewhere than it began (device cuda:99 there, cpu here") == 1
    assert load_checkpoint(stopped / "model")


def test_the_device_is_taken_out_of_arguments() -> None:
    argv = ["--data", "x", "--device", "cuda", "--epochs", "3", "--dev=cpu"]
    assert without_device(argv) == (["--data", "x", "--epochs", "3"], "cpu")
    assert without_device(["--data", "--device"]) == (["--data"], None)


def test_a_full_disk_is_a_sentence_and_loses_nothing(
    stopped: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    before = (stopped / "unfinished" / "train.pt").read_bytes()
    monkeypatch.setattr(os, "fsync", full)
    capsys.readouterr()
    assert main(["--resume", str(stopped)]) == 2
    assert capsys.readouterr().err == (
        f"train.py: {stopped / 'unfinished' / 'train.pt'} cannot be read or written (No space left on device); "
        f"when that is mended, python train.py --resume {stopped} goes on.\n"
    )
    assert (stopped / "unfinished" / "train.pt").read_bytes() == before


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="there is no full disk here")
def test_a_full_disk_behind_standard_error_stops_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    leaking = SimpleNamespace(warnings=lambda: ["This split leaks."])
    for tell, status in (
        (lambda: main(["compare", str(tmp_path)]), 2),
        (lambda: train.warn(SimpleNamespace(base=None), leaking, ()), None),
    ):
        with Path("/dev/full").open("w") as full, monkeypatch.context() as patch:
            patch.setattr(sys, "stderr", full)
            assert tell() == status


def test_a_state_that_cannot_be_read_is_not_called_damaged(stopped: Path, capsys: pytest.CaptureFixture) -> None:
    state = stopped / "unfinished" / "train.pt"
    state.unlink()
    state.mkdir()
    capsys.readouterr()
    assert main(["--resume", str(stopped)]) == 2
    assert capsys.readouterr().err.startswith(f"train.py: {state} cannot be read or written (")


def test_features_that_are_gone_or_others_are_a_sentence(
    stopped: Path, features: list[str], capsys: pytest.CaptureFixture
) -> None:
    path = Path(features[1])
    aside = path.rename(path.with_suffix(".aside"))
    try:
        assert main(["--resume", str(stopped)]) == 2
        assert f"There is no {path} any more; if it has moved, python train.py --resume" in capsys.readouterr().err
        others = Features.load(aside)
        Features(255 - others.logmel, others.floor_db, others.track_id, others.n_frames).save(path)
        assert main(["--resume", str(stopped)]) == 2
        assert "other data or options (other training clips, other validation clips)" in capsys.readouterr().err
    finally:
        aside.replace(path)


def test_a_training_of_which_nothing_is_saved_goes_on_with_its_own_data(
    music: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    data, out = shutil.copytree(music, tmp_path / "music"), tmp_path / "out"
    with monkeypatch.context() as patch:
        patch.setattr(train, "train_and_measure", Mock(side_effect=KeyboardInterrupt))
        assert main(["--data", str(data), "--out", str(out), *TINY]) == 130
    others = shutil.copytree(music, tmp_path / "others")
    (others / "drone").rename(others / "hum")
    (others / "hum" / "0.wav").unlink()
    capsys.readouterr()
    assert main(["--resume", str(out), "--data", str(others)]) == 2
    error = capsys.readouterr().err
    assert f"{out / 'unfinished' / 'command.json'} is of a training with other data or options (genres " in error
    assert "drone,hiss & noise there, hiss & noise,hum here, other training clips" in error
    moved = data.rename(tmp_path / "moved")
    assert main(["--resume", str(out), "--data", str(moved)]) == 0
    assert load_checkpoint(out / "model")[0].config.genres == ("drone", "hiss & noise")


@pytest.mark.parametrize("is_saved", [True, False])
def test_a_training_goes_on_though_its_test_clips_are_others(
    is_saved: bool, stopped: Path, features: list[str], tmp_path: Path
) -> None:
    if not is_saved:
        (stopped / "unfinished" / "train.pt").unlink()
    dataset = train.load_dataset(train.parse_args(features))
    songs, test = dataset.features, dataset.splits["test"]
    songs.logmel[test] = 255 - songs.logmel[test]
    songs.save(tmp_path / "others.npz")
    assert main(["--resume", str(stopped), "--features", str(tmp_path / "others.npz")]) == 0


def test_the_clips_of_a_training_are_read_for_their_fingerprint_once(
    features: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = Mock(wraps=clips.sha256)
    monkeypatch.setattr(clips, "sha256", made)
    assert main([*features, "--epochs", "1", "--no-refit", "--out", str(tmp_path / "out")]) == 0
    assert made.call_count == 2


def test_a_training_goes_on_with_data_that_has_moved(
    stopped: Path, features: list[str], tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    path = Path(features[1])
    others = Features.load(path)
    Features(255 - others.logmel, others.floor_db, others.track_id, others.n_frames).save(tmp_path / "others.npz")
    moved = path.rename(tmp_path / "moved.npz")
    try:
        assert main(["--resume", str(stopped), "--features", str(tmp_path / "others.npz")]) == 2
        assert "other data or options (other training clips, other validation clips)" in capsys.readouterr().err
        assert main(["--resume", str(stopped), "--features", str(moved)]) == 0
        epochs = [line.split()[1] for line in capsys.readouterr().out.splitlines() if line.startswith("epoch")]
        assert epochs[0] == "3"
    finally:
        moved.replace(path)


def test_a_training_goes_on_from_another_folder_with_its_own_data(
    features: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    """There the name that was typed is that of something else."""

    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    begun, out = Path(features[1]).parent, tmp_path / "out"
    with monkeypatch.context() as patch:
        patch.chdir(begun)
        patch.setattr(train, "train_and_measure", stop)
        assert main(["--features", Path(features[1]).name, *features[2:], "--epochs", "1", "--out", str(out)]) == 130
    (tmp_path / Path(features[1]).name).write_bytes(b"something else")
    monkeypatch.chdir(tmp_path)
    assert main(["--resume", str(out)]) == 0
    assert load_checkpoint(out / "model")


def test_a_training_of_which_nothing_is_saved_says_that_it_begins_anew(
    stopped: Path, capsys: pytest.CaptureFixture
) -> None:
    (stopped / "unfinished" / "train.pt").unlink()
    capsys.readouterr()
    assert main(["--resume", str(stopped)]) == 0
    printed = capsys.readouterr().out
    assert "No epoch of it is saved: it begins with the first." in printed
    assert "epoch   1" in printed


@pytest.mark.parametrize("is_killed", [False, True], ids=["full", "killed"])
def test_a_training_that_could_not_note_its_command_is_begun_anew(
    is_killed: bool, features: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    def full(path: Path, _: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))

    out = tmp_path / "out"
    if is_killed:  # after the model that --init names, before its command
        (out / "unfinished" / "base").mkdir(parents=True)
    else:
        with monkeypatch.context() as patch:
            patch.setattr(train, "write_json", full)
            assert main([*features, "--out", str(out)]) == 2
        assert capsys.readouterr().err.endswith("; when that is mended, the same command begins anew.\n")
    assert main(["--resume", str(out)]) == 2
    assert "holds no unfinished training." in capsys.readouterr().err
    assert main([*features, "--out", str(out)]) == 0
    assert load_checkpoint(out / "model")


@pytest.mark.parametrize("content", [None, b"", b'{"folder": "/"}'], ids=["gone", "empty", "other"])
def test_a_training_whose_command_cannot_be_read_is_not_begun_anew_in_its_folder(
    content: bytes | None, stopped: Path, features: list[str], capsys: pytest.CaptureFixture
) -> None:
    command, state = stopped / "unfinished" / "command.json", stopped / "unfinished" / "train.pt"
    command.unlink() if content is None else command.write_bytes(content)
    before = state.read_bytes()
    capsys.readouterr()
    for argv in ([*features, "--out", str(stopped)], ["--resume", str(stopped)], ["compare", str(stopped)]):
        assert main(argv) == 2
        said = f"train.py: {command} is gone or damaged; train anew, into another folder.\n"
        assert capsys.readouterr().err == said
    assert state.read_bytes() == before


def test_the_network_can_be_changed(features: list[str], tmp_path: Path) -> None:
    network = ["recurrent=lstm", "recurrent_size=6", "pooling=attention", "dropout=0.1", "summary=true"]
    fewer = ["channels=4,8", "mel_pools=8,4", "time_pools=2,2"]
    options = ["--epochs", "1", "--no-refit", "--set", *network, *fewer]
    assert main([*features, "--out", str(tmp_path), *options]) == 0
    model, _ = load_checkpoint(tmp_path / "model")
    assert (model.config.recurrent, model.config.recurrent_size, model.config.pooling) == ("lstm", 6, "attention")
    assert (model.config.channels, model.config.dropout) == ((4, 8), 0.1)
    assert model.config.summary
    assert model.members[0].summary.out_features == 12
    assert main([*features, "--out", str(tmp_path / "without"), *options, "summary=False"]) == 0
    model, _ = load_checkpoint(tmp_path / "without" / "model")
    assert not model.config.summary
    assert model.members[0].summary is None


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("recurrent=rnn", "recurrent is one of gru, lstm, none, not 'rnn'"),
        ("channels=4,8", "channels, mel_pools and time_pools need one number for each convolutional block"),
        ("channels=4,8,16,32", "channels can be set for --config scratch only."),
        ("bottleneck=0", "bottleneck must be at least 1 and at most 512"),
        ("bottleneck=8", "bottleneck can be set for --config transfer only."),
        ("dropout=2", "dropout and block_dropout are shares from 0 to less than 1"),
        ("block_dropout=nan", "dropout and block_dropout are shares from 0 to less than 1"),
    ],
)
def test_an_impossible_network_is_a_sentence(change: str, message: str, capsys: pytest.CaptureFixture) -> None:
    config = [] if "scratch only" in message or change == "bottleneck=0" else ["--config", "scratch"]
    assert main(["--features", "nowhere.npz", *config, "--set", change]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1


@pytest.mark.parametrize(
    ("options", "named"),
    [
        (["--thaw", "0.5", "--copies", "2"], "--thaw, --copies would change nothing with the front small"),
        (["--pretrained-lr", "0.5"], "--pretrained-lr would"),
        (["--pretrained", "folder"], "--pretrained would"),
        (["--front", "musicnn", "--pretrained-lr", "0.5", "--thaw", "0.5", "--copies", "2"], "--copies would change"),
        (["--init", "crnn-scratch", "--pretrained-lr", "0.5", "--thaw", "0.5"], "--thaw would change"),
    ],
)
def test_what_would_change_nothing_is_refused(options: list[str], named: str, capsys: pytest.CaptureFixture) -> None:
    for command in ("train", "cross-validate"):
        assert main([command, "--features", "nowhere.npz", "--config", "scratch", *options]) == 2
        assert f"train.py: {named}" in capsys.readouterr().err
    published = [
        "--front",
        "choi",
        "--pretrained-lr",
        "0.5",
        "--thaw",
        "0.5",
        "--copies",
        "2",
        "--pretrained",
        "folder",
    ]
    assert train.recipe_of(parse_args(published)).training.copies == 2
    assert main(["cross-validate", "--features", "nowhere.npz", "--groups", "genre", "--folds", "3"]) == 2
    assert "With --groups genre each genre is a fold: leave out --folds." in capsys.readouterr().err


def test_patience_tells_which_epoch_was_chosen(features: list[str], tmp_path: Path) -> None:
    assert main([*features, "--out", str(tmp_path), "--epochs", "40", "--lr", "0.01", "--patience", "2"]) == 0
    record = json.loads((tmp_path / "metrics.json").read_text())
    with (tmp_path / "history.csv").open() as file:
        losses = [float(row["valid_loss"]) for row in csv.DictReader(file)]
    assert len(losses) == record["chosen_epoch"] + 2 < 40
    assert losses[record["chosen_epoch"] - 1] == min(losses)
    assert f"epoch {record['chosen_epoch']} of 40" in (tmp_path / "model" / "README.md").read_text()


def test_without_tensorboard_it_says_how_to_install_it(
    features: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    monkeypatch.setattr(train, "find_spec", lambda _: None)
    assert main([*features, "--out", str(tmp_path), "--tensorboard"]) == 2
    assert "pip install tensorboard" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_epochs_are_logged_for_tensorboard(
    features: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A stand-in for its writer notes what it is given."""
    noted = {}

    class SummaryWriter:
        def __init__(self, folder: Path) -> None:
            self.folder = folder

        def __enter__(self) -> "SummaryWriter":
            return self

        def __exit__(self, *_: object) -> None:
            pass

        def flush(self) -> None:
            pass

        def add_scalar(self, tag: str, value: float, step: int) -> None:
            noted[self.folder.name, tag, step] = value

    monkeypatch.setattr(train, "find_spec", lambda name: name)
    monkeypatch.setattr(runs, "import_module", lambda _: SimpleNamespace(SummaryWriter=SummaryWriter))
    assert main([*features, "--out", str(tmp_path), "--epochs", "2", "--tensorboard"]) == 0
    tags = {"lr", "loss/train", "accuracy/train", "seconds"}
    assert {tag for parts, tag, _ in noted if parts == "train+valid"} == tags
    assert {tag for parts, tag, _ in noted if parts == "train"} == tags | {"loss/valid", "accuracy/valid"}
    with (tmp_path / "history.csv").open() as file:
        losses = [float(row["valid_loss"]) for row in csv.DictReader(file)]
    assert [noted["train", "loss/valid", epoch] for epoch in (1, 2)] == losses


def test_earlier_results_are_not_overwritten(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    (tmp_path / "metrics.json").touch()
    assert main(["--data", str(tmp_path), "--out", str(tmp_path)]) == 2
    assert "is not empty" in capsys.readouterr().err


OWN = "random split by track, stratified by genre"


@pytest.fixture
def base(tmp_path: Path) -> Path:
    """The folder of a tiny model that knows one of the genres of the features and has heard other songs."""
    config = CRNNConfig(
        genres=("Low", "loud", "late"),
        channels=(4, 8),
        mel_pools=(8, 4),
        time_pools=(2, 2),
        recurrent="lstm",
        recurrent_size=6,
        window_frames=48,
        temperature=3.0,
        unsure_below=0.9,
        trained_on="fault-filtered split of GTZAN: train+valid",
    )
    torch.manual_seed(3)
    model = CRNN(config)
    model.stem.mean.fill_(-47)
    save(model, tmp_path / "base", "")
    return tmp_path / "base"


def rename_past(base: Path, trained_on: str) -> None:
    config = json.loads((base / "config.json").read_text())
    (base / "config.json").write_text(json.dumps({**config, "trained_on": trained_on}))


def test_fine_tuning_keeps_the_network_and_tells_where_it_comes_from(
    features: list[str], base: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    out = tmp_path / "out"
    assert main([*features, "--init", str(base), "--out", str(out), "--epochs", "1", "--no-refit"]) == 0
    printed, notices = capsys.readouterr()
    assert printed.splitlines()[1] == f"It starts from {base} (folder), which knows low."
    assert all("temperature" in line for line in notices.splitlines())  # of so few clips it may be at an end
    (before, _), (model, _) = load_checkpoint(base), load_checkpoint(out / "model")
    assert model.config.genres == ("high", "low")
    assert {name: getattr(model.config, name) for name in NETWORK} == {
        name: getattr(before.config, name) for name in NETWORK
    }
    assert torch.equal(model.stem.mean, before.stem.mean)
    heads = (each.members[0].classifier.linear.weight[number] for each, number in ((before, 0), (model, 1)))
    torch.testing.assert_close(*heads, atol=0.02, rtol=0)
    assert (model.config.temperature, model.config.unsure_below) != (3.0, 0.9)
    assert model.config.trained_on == f"{OWN}: train; fault-filtered split of GTZAN: train+valid"
    record = json.loads((out / "metrics.json").read_text())
    assert record["recipe"]["base"]["name"] == f"{base} (folder)"
    assert "heard" not in record
    card = (out / "model" / "README.md").read_text()
    assert f"it started from {as_text(str(base))} (folder)" in card
    assert "have heard its parts train.\n" in card
    assert ModelCard(card).data.base_model is None


@pytest.mark.parametrize("name", ["taken", "taken/new"])
def test_a_file_in_the_way_is_said_before_anything_is_decoded(
    name: str, music: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    monkeypatch.setattr(train, "extract_features", lambda *_: pytest.fail("It began."))
    (tmp_path / "taken").touch()
    for command in (["train"], ["cross-validate"]):
        assert main([*command, "--data", str(music), "--config", "scratch", "--out", str(tmp_path / name)]) == 2
        assert capsys.readouterr().err == f"train.py: {tmp_path / 'taken'} cannot be written (Not a directory).\n"


def test_what_is_kept_of_the_data_is_in_nobodys_way(music: Path, tmp_path: Path) -> None:
    assert main(["--data", str(music), "--out", str(tmp_path), *TINY]) == 0
    assert load_checkpoint(tmp_path / "model")
    assert (tmp_path / "data" / "log-mels").is_dir()


def test_the_recipe_is_that_of_the_front(features: list[str], base: Path) -> None:
    without_config = [*features[:2], "--init", str(base)]
    args = parse_args(without_config)
    recipe = train.recipe_of(args, train.load_base(args))
    assert recipe.training.epochs == RECIPES["scratch"].training.epochs
    assert recipe.augmentation == RECIPES["scratch"].augmentation
    args = parse_args(["--init", "crnn-transfer", "--members", "6"])
    recipe = train.recipe_of(args, train.load_base(args))
    assert recipe.training.epochs == RECIPES["transfer"].training.epochs
    assert recipe.members == 6


def test_a_fine_tuning_goes_on_without_its_base(
    features: list[str], base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is stopped while it validates; the training on all clips starts from the base as well."""
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    options = [*features, "--init", str(base), "--epochs", "3"]
    assert main([*options, "--out", str(whole)]) == 0

    def stop(epoch: Epoch) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(runs, "report", stop)
        assert main([*options, "--out", str(broken)]) == 130
    shutil.rmtree(base)
    assert main(["--resume", str(broken)]) == 0
    assert results(broken) == results(whole)
    assert {path.name for path in broken.iterdir()} == {path.name for path in whole.iterdir()}


def test_a_damaged_copy_of_the_base_is_a_sentence(
    features: list[str], base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    def stop(epoch: Epoch) -> None:
        raise KeyboardInterrupt

    out = tmp_path / "out"
    with monkeypatch.context() as patch:
        patch.setattr(runs, "report", stop)
        assert main([*features, "--init", str(base), "--out", str(out)]) == 130
    (out / "unfinished" / "base" / "model.safetensors").write_bytes(b"nothing")
    capsys.readouterr()
    assert main(["--resume", str(out)]) == 2
    assert capsys.readouterr().err.endswith("base is damaged; train anew, into another folder.\n")


@pytest.mark.parametrize(
    ("options", "kept"),
    [
        (["--members", "2"], "members=1"),
        (["--set", "recurrent=gru", "channels=8,8"], "recurrent=lstm, channels=(4, 8)"),
        (["--config", "transfer"], "front=small"),
    ],
)
def test_what_contradicts_the_base_is_refused(
    options: list[str], kept: str, base: Path, capsys: pytest.CaptureFixture
) -> None:
    assert main(["--features", "nowhere.npz", "--init", str(base), *options]) == 2
    assert capsys.readouterr().err == (
        f"train.py: --init keeps the network of {base} (folder), {kept}: leave out what contradicts it.\n"
    )


def test_clips_that_the_base_has_heard_are_no_test(
    features: list[str], base: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    rename_past(base, f"{OWN}: train+valid")
    out = tmp_path / "out"
    assert main([*features, "--init", str(base), "--out", str(out), "--epochs", "1"]) == 0
    assert "where it has heard these valid clips, their figures say nothing about other" in capsys.readouterr().err
    assert load_checkpoint(out / "model")[0].config.trained_on == f"{OWN}: train+valid"
    assert json.loads((out / "metrics.json").read_text())["heard"] == ["valid"]
    card = (out / "model" / "README.md").read_text()
    assert "**That model has heard such valid clips**" in card
    assert "| valid (heard before) |" in card
    assert "| test |" in card
    assert {result.dataset_split for result in ModelCard(card).data.eval_results} == {PARTS["test"]}


def test_a_base_of_the_hub_is_named_with_its_commit(
    hub: HubServer, features: list[str], base: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    commit = hub.push("someone/base", base)
    options = [*features, "--init", "someone/base", "--epochs", "1", "--no-refit"]
    assert main([*options, "--out", str(tmp_path / "first")]) == 0
    started_from = json.loads((tmp_path / "first" / "metrics.json").read_text())["recipe"]["base"]
    assert (started_from["name"], started_from["revision"]) == ("someone/base", commit)
    card = (tmp_path / "first" / "model" / "README.md").read_text()
    assert f"({hub.url}/someone/base) at commit {commit}" in card
    assert ModelCard(card).data.base_model == "someone/base"
    assert ModelCard(card).data.license == "other"  # it is not ours to give

    hub.stop()
    capsys.readouterr()
    assert main([*options, "--out", str(tmp_path / "again")]) == 0
    assert "this is the copy of someone/base kept here." in capsys.readouterr().err
    again = json.loads((tmp_path / "again" / "metrics.json").read_text())
    assert again["recipe"]["base"] == started_from


def test_folds_can_start_from_a_model(
    features: list[str], base: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    out = tmp_path / "folds"
    options = ["--init", str(base), "--folds", "2", "--jobs", "1", "--epochs", "2", "--out", str(out)]
    assert main(["cross-validate", *features, *options]) == 0
    assert not capsys.readouterr().err
    assert json.loads((out / "metrics.json").read_text())["recipe"]["base"]["name"] == f"{base} (folder)"
    rename_past(base, f"{OWN}: valid")
    assert main(["cross-validate", *features, *options]) == 2
    warning, error = capsys.readouterr().err.splitlines()
    assert "where it has heard these valid clips" in warning
    assert "holds folds of other clips or settings" in error


def test_two_clips_a_genre_and_many_genres_are_enough(base: Path, tmp_path: Path) -> None:
    """Six genres from a base of three, one of them with ten times as many clips."""
    counts = {"low": 20, "a": 2, "b": 2, "c": 3, "loud": 2, "z": 2}
    tracks = [f"{genre}/{number}" for genre, count in counts.items() for number in range(count)]
    log_mels = [-40 + 8 * torch.randn(N_MELS, 5 + 7 * number) for number, _ in enumerate(tracks)]
    Features.from_log_mels([log_mel.clamp(-80, 0) for log_mel in log_mels], tracks).save(tmp_path / "features.npz")
    options = ["--features", str(tmp_path / "features.npz"), "--init", str(base), "--epochs", "1"]
    assert main([*options, "--out", str(tmp_path / "out")]) == 0
    assert load_checkpoint(tmp_path / "out" / "model")[0].config.genres == ("a", "b", "c", "loud", "low", "z")


TINY = ["--config", "scratch", "--epochs", "1", "--no-refit", *SMALL]


def test_names_that_are_no_utf8_and_an_output_that_is_ascii(tmp_path: Path) -> None:
    """Genres in two scripts, a file and a folder named in Latin-1, and a terminal that can write none of it."""
    data = tmp_path / os.fsdecode(b"donn\xe9es")
    for seed in range(3):
        write_clip(tmp_path / "one.wav", True, seed)
        (data / "古典音楽").mkdir(parents=True, exist_ok=True)
        (tmp_path / "one.wav").rename(data / "古典音楽" / f"{seed}.wav")
        write_clip(tmp_path / "one.wav", False, seed)  # its writer knows text only
        folder = data / os.fsdecode(b"\xe9lectro")
        folder.mkdir(exist_ok=True)
        (tmp_path / "one.wav").rename(folder / os.fsdecode(b"caf\xe9 %d.wav" % seed))
    out = tmp_path / "out"
    environment = {**os.environ, "PYTHONIOENCODING": "ascii", "LC_ALL": "C", "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-W", "error::UserWarning:matplotlib", ROOT / "train.py"]
    process = subprocess.run(
        [*command, "--data", data, "--out", out, *TINY],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    assert process.returncode == 0, process.stderr
    assert "Glyph" not in process.stderr
    assert "3 \\u53e4\\u5178\\u97f3\\u697d" in process.stdout
    assert load_checkpoint(out / "model")[0].config.genres == ("électro", "古典音楽")
    card = (out / "model" / "README.md").read_text(encoding="utf-8")
    assert "| 古典音楽 |" in card
    assert "donn\\udce9es" in card
    assert "électro" in json.loads((out / "metrics.json").read_text())["valid"]["per_genre"]
    again = [*command, "evaluate", "--model", out / "model", "--data", data, "--split", "valid"]
    process = subprocess.run(
        again, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False, timeout=300
    )
    assert process.returncode == 0, process.stderr
    assert "\\xe9lectro" in process.stdout


def test_a_genre_of_which_nothing_decodes_stops_it(music: Path, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    data = tmp_path / "data"
    shutil.copytree(music, data)
    (data / "blues").mkdir()
    for number in range(2):
        (data / "blues" / f"{number}.mp3").write_bytes(bytes(range(256)))
    options = ["--data", str(data), "--out", str(tmp_path / "out"), *TINY]
    assert main(options) == 2
    assert "Nothing of 'blues' can be decoded, as said above" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
    assert main([*options, "--accept", "empty"]) == 0
    assert load_checkpoint(tmp_path / "out" / "model")[0].config.genres == ("drone", "hiss & noise")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("empty", "'blues' in "),
        ("numbers", "The folders are numbers, '0' and '1'"),
        ("artists", "knows the artists of 1 of 20 tracks"),
    ],
)
def test_nothing_is_decoded_of_data_that_teaches_nonsense(
    change: str,
    message: str,
    music: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture,
) -> None:
    data = tmp_path / "data"
    shutil.copytree(music, data)
    options = ["--data", str(data), "--out", str(tmp_path / "out"), *TINY]
    if change == "empty":
        (data / "blues").mkdir()
    elif change == "numbers":
        for number, folder in enumerate(sorted(data.iterdir())):
            folder.rename(data / str(number))
    else:
        (tmp_path / "artists.csv").write_text("track_id;artist\ndrone/0.wav;Ann\n")
        options += ["--artists", str(tmp_path / "artists.csv")]
    monkeypatch.setattr(train, "extract_features", None)
    assert main(options) == 2
    assert message in capsys.readouterr().err


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["evaluate", "--model", "crnn-scratch"], "but the data has drone, hiss & noise too"),
        (["train", "--split", "fault-filtered"], "The fault-filtered split is for GTZAN's tracks"),
        (["train", "--split", "segments", "--artists", "TABLE"], "The segments split does not ask who the artists are"),
    ],
)
def test_nothing_is_decoded_where_names_tell_that_it_cannot_be_used(
    options: list[str],
    message: str,
    music: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture,
) -> None:
    table = tmp_path / "artists.csv"
    table.write_text("track_id;artist\n" + "".join(f"{path.relative_to(music)};Ann\n" for path in music.glob("*/*")))
    monkeypatch.setattr(train, "extract_features", None)
    assert main([*(option.replace("TABLE", str(table)) for option in options), "--data", str(music)]) == 2
    assert message in capsys.readouterr().err


def test_data_that_is_split_already_is_used_so(music: Path, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    for genre in music.iterdir():
        for path in genre.iterdir():
            part = "test" if int(path.stem) > 6 else "train"
            (tmp_path / "data" / part / genre.name).mkdir(parents=True, exist_ok=True)
            shutil.copy(path, tmp_path / "data" / part / genre.name)
    shutil.copy(music / "drone" / "1.wav", tmp_path / "data" / "test" / "drone" / "also.wav")
    data = ["--data", str(tmp_path / "data")]
    assert main([*data, "--out", str(tmp_path / "out"), *TINY]) == 0
    printed, notices = capsys.readouterr()
    assert "It is split already: 7 test, 14 train." in printed or "It is split already: 14 train, 7 test." in printed
    assert "1 of 21 clips is a copy of others by the sound" in notices
    assert "1 of these copies are left out" in notices
    assert json.loads((tmp_path / "out" / "metrics.json").read_text())["clips"] == {"train": 11, "valid": 2, "test": 7}
    model, _ = load_checkpoint(tmp_path / "out" / "model")
    assert model.config.genres == ("drone", "hiss & noise")
    assert main(["evaluate", "--model", str(tmp_path / "out" / "model"), *data]) == 0
    assert "test: 7 clips" in capsys.readouterr().out


def test_folds_keep_copies_together(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    generator = np.random.default_rng(0)
    songs = {f"{genre}/{n}": generator.integers(0, 256, (128, 60)).astype(np.uint8) for genre in "ab" for n in range(6)}
    levels = {f"{track} ({copy})": level for track, level in songs.items() for copy in range(2)}
    Features.from_levels(list(levels.values()), list(levels)).save(tmp_path / "features.npz")
    given = {}

    def note(clips: object, genres: object, groups: Sequence[str], *_: object) -> None:
        given.update(zip(clips.features.track_id.tolist(), groups, strict=True))
        raise train.TrainingError("enough")

    monkeypatch.setattr(train, "cross_validate", note)
    options = ["--features", str(tmp_path / "features.npz"), "--config", "scratch", "--out", str(tmp_path / "folds")]
    assert main(["cross-validate", *options]) == 2
    assert {given[track] == given[track.replace("(0)", "(1)")] for track in given} == {True}
    assert len(set(given.values())) == len(given) / 2


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="there is no full disk here")
def test_a_fault_that_cannot_be_said_is_one() -> None:
    environment = {**os.environ, "HF_HUB_ETAG_TIMEOUT": "x"}
    with Path("/dev/full").open("w") as full:
        command = [sys.executable, "train.py", "compare", "nowhere"]
        assert subprocess.run(command, cwd=ROOT, env=environment, stderr=full, check=False).returncode == 2


@pytest.mark.skipif(sys.platform == "win32", reason="its shell is another one")
def test_a_training_starts_whatever_is_closed_empty_or_shows_figures() -> None:
    command = f"exec {shlex.quote(sys.executable)} train.py compare nowhere >&-"
    environment = {**os.environ, "MPLBACKEND": "nonsense", "HF_ENDPOINT": ""}
    done = subprocess.run(
        command, shell=True, cwd=ROOT, env=environment, stderr=subprocess.PIPE, text=True, check=False
    )
    assert done.returncode == 2
    assert done.stderr.startswith("train.py: nowhere ")
