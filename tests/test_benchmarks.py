"""Small benchmarks do what they say with what is odd: silent clips, unknown artists, nothing to do."""

import runpy
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from benchmarks import agreement, load, similar, training
from crnn.bundle import ROOT
from crnn.checkpoint import save
from crnn.data.features import Features
from crnn.features import FLOOR_DB, n_frames_of
from crnn.inference import GenreClassifier
from crnn.network.config import CRNNConfig
from crnn.network.model import CRNN
from crnn.sources import Origin
from crnn.training.recipes import RECIPES, Recipe

PROGRAMS = [
    path for path in (ROOT / "benchmarks").rglob("*.py") if 'if __name__ == "__main__"' in path.read_text("utf-8")
]
OPTIONAL = ("atheris", "onnx", "onnxruntime", "onnxscript", "playwright", "playwright.sync_api", "ray")
SILENT = np.zeros((128, n_frames_of(4.0)), np.uint8)


def clip(genre: int, seed: int) -> np.ndarray:
    """Levels (128, frames) of a clip that is loud in some bands."""
    levels = np.random.default_rng(seed).integers(0, 60, SILENT.shape, dtype=np.uint8)
    levels[20 * genre + 10 : 20 * genre + 30] += 180
    return levels


@pytest.fixture
def model(tiny_model: CRNN, tmp_path: Path) -> str:
    save(tiny_model, tmp_path / "model", "")
    return str(tmp_path / "model")


@pytest.fixture
def features(tmp_path: Path) -> Path:
    """Four clips each of two genres, and two in which nothing sounds."""
    levels = {f"{genre}.{n:05}": clip(number, n) for number, genre in enumerate(("rock", "jazz")) for n in range(4)}
    levels |= {"rock.00008": SILENT, "jazz.00008": SILENT}
    Features.from_levels([*levels.values()], [*levels]).save(tmp_path / "features.npz")
    return tmp_path / "features.npz"


def test_a_song_of_parts_lasts_a_minute_and_silence_makes_none() -> None:
    assert agreement.song_of(torch.zeros(128, 50), 0).shape == (128, n_frames_of(agreement.SONG_SECONDS))
    with pytest.raises(ValueError, match="nothing sounds"):
        agreement.song_of(torch.full((128, 0), FLOOR_DB), 0)


def test_agreement_leaves_silent_clips_out(features: Path, model: str, capsys: pytest.CaptureFixture) -> None:
    agreement.main([str(features), "--model", model])
    assert capsys.readouterr().out.startswith("8 songs\n")
    with pytest.raises(SystemExit):
        agreement.main([str(features), "--songs", "0"])
    assert "0 is not positive" in capsys.readouterr().err


def test_the_nearest_are_of_other_artists_as_far_as_these_are_known(
    features: Path, tiny_model: CRNN, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    compared = []

    def precision(_: np.ndarray, genres: np.ndarray, artists: np.ndarray) -> float:
        compared.append(dict(zip(genres, [[*artists[genres == genre]] for genre in genres], strict=True)))
        return 0.0

    monkeypatch.setattr(similar, "precision", precision)
    table = tmp_path / "artists.csv"
    table.write_text("track_id,artist\nrock.00000,A\nrock.00001,A\njazz.00000,B\njazz.00001,B\njazz.00008,B\n")
    classifier = GenreClassifier(tiny_model, Origin("tiny"))
    similar.report(features, classifier, table)
    assert compared[0] == {
        "rock": ["A", "A", "rock.00002", "rock.00003"],
        "jazz": ["B", "B", "jazz.00002", "jazz.00003"],
    }
    out, err = capsys.readouterr()
    assert "8 clips, 2 genres" in out
    assert "nothing sounds in 2 of 10 clips" in err
    similar.report(features, classifier, None)
    assert compared[-1]["rock"] == [f"rock.{n:05}" for n in range(4)]


@pytest.mark.parametrize(
    ("record", "is_sound"),
    [
        (load.Record(), False),
        (load.Record(seconds=[1.0], lost=2, most_lost=1), True),
        (load.Record(seconds=[1.0], most_lost=2), False),
        (load.Record(seconds=[1.0], wrong=1), False),
        (load.Record(seconds=[1.0], mixed_up=1), False),
    ],
)
def test_visitors_without_an_answer_are_no_success(record: load.Record, is_sound: bool) -> None:
    assert record.is_sound() == is_sound


@pytest.mark.parametrize("name", ["transfer", "scratch"])
def test_what_a_training_does_in_turn_is_timed_apart(
    name: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    small = {"recurrent_size": 4, "window_frames": 96}
    if name == "scratch":
        small |= {"channels": (4, 6), "mel_pools": (4, 8), "time_pools": (2, 4)}
    recipe = replace(RECIPES[name], front={"transfer": "mn04", "scratch": "small"}[name], members=1, network=small)
    recipe = replace(recipe, training=replace(recipe.training, copies=min(recipe.training.copies, 1), batch_size=2))
    monkeypatch.setitem(training.RECIPES, name, recipe)
    monkeypatch.setattr(
        Recipe, "build", lambda self, genres: CRNN(CRNNConfig(genres=genres, front=self.front, **small))
    )
    for constant, value in (("N_TRAIN", 8), ("N_VALID", 2), ("CLIP_SECONDS", 5.0)):
        monkeypatch.setattr(training, constant, value)
    training.main(["--config", name, "--device", "cpu", "--epochs", "1"])
    heads = [line.partition(":")[0] for line in capsys.readouterr().out.splitlines()[1:]]
    rest = ["hearing 1 copies of each clip, once", "an epoch while published nets rest"] if name == "transfer" else []
    assert [head for head in heads if not head.startswith("data")] == [*rest, "an epoch in which all is trained"]
    assert heads[-1].startswith("data and augmentation take ")


def run_without_optional_packages(path: Path, monkeypatch: pytest.MonkeyPatch, *arguments: str) -> str | int | None:
    """What a benchmark ends with as a program, where packages of its own are not installed."""
    for name in OPTIONAL:
        monkeypatch.setitem(sys.modules, name, None)
    monkeypatch.setattr(sys, "argv", [str(path), *arguments])
    monkeypatch.setattr(sys, "path", [str(path.parent), *sys.path])
    with pytest.raises(SystemExit) as end:
        runpy.run_path(str(path), run_name="__main__")
    return end.value.code


@pytest.mark.parametrize("path", PROGRAMS, ids=lambda path: path.stem)
def test_each_says_what_it_does(path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture) -> None:
    assert run_without_optional_packages(path, monkeypatch, "--help") == 0
    assert capsys.readouterr().out.startswith(f"usage: {path.name}")


@pytest.mark.parametrize(
    ("program", "packages"),
    [
        ("cluster", "'ray[data]'"),
        ("export", "onnx onnxscript onnxruntime"),
        ("page", "playwright"),
        ("torture/fuzz", "-r requirements-fuzz.txt"),
    ],
)
def test_what_it_needs_is_said(program: str, packages: str, monkeypatch: pytest.MonkeyPatch) -> None:
    said = run_without_optional_packages(ROOT / "benchmarks" / f"{program}.py", monkeypatch)
    assert said.endswith(f"not installed: pip install {packages}.")
