"""The table of speed: its rows are there, each beside something, and one that cannot be measured says why."""

import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from benchmarks import latency, library, speed
from crnn.inference import GenreClassifier
from crnn.network.model import CRNN
from crnn.sources import Origin


def test_a_row() -> None:
    assert str(speed.Row("a song", "decoding it", 2.0, 0.5)) == "| a song | 2.00 s | decoding it: 500 ms | 4.00 |"
    assert str(speed.Row("a song", "others", why="not here")) == "| a song | not measured | others: not here |  |"


def test_steps_go_by_turns_and_the_first_round_does_not_count() -> None:
    order = []
    times = speed.alternately([lambda: order.append("a"), lambda: order.append("b")], runs=2)
    assert order == ["a", "b"] * 3
    assert len(times) == 2


def test_multiply_adds_are_those_of_the_layers(tiny_model: CRNN) -> None:
    left, right = torch.ones(3, 5), torch.ones(5, 7)
    assert speed.multiply_adds(lambda: left @ right) == 3 * 5 * 7
    step = speed.network(GenreClassifier(tiny_model, Origin("tiny")), torch.zeros(128, tiny_model.config.window_frames))
    without_memory = [part for member in tiny_model.members for part in (member.front, member.classifier)]
    weights = sum(value.numel() for part in without_memory for value in part.parameters())
    assert speed.multiply_adds(step) > weights  # each is used once at least


def test_all_of_the_table(model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(speed, "MATRIX", 32)
    monkeypatch.setattr(speed, "features_and_svm", lambda path: path.read_bytes)
    monkeypatch.setattr(speed, "n_cores", lambda: 1)
    monkeypatch.setattr(latency, "peer", lambda _: None)  # as without transformers
    monkeypatch.setattr(library, "started", lambda *_: (0.5, 0.25))
    monkeypatch.setitem(sys.modules, "playwright", None)
    monkeypatch.setattr(speed, "find_spec", lambda _: None)
    rows = list(speed.rows(str(model), 1, 2, {"2 s": 2, "3 s": 3}, tmp_path))
    measured = [row for row in rows if not row.why]
    assert {row.beside for row in rows if row.why} == {
        "DistilHuBERT's forward pass",
        "musicnn as published",
        "a line of text in Gradio",
    }
    assert all(row.seconds > 0 and row.beside_seconds > 0 for row in measured)
    for part in (
        "song to answer, 2 s",
        "song to answer, 3 s",
        "thorough",
        "--quick",
        "network alone",
        "--help",
        "cold",
    ):
        assert any(part in row.what for row in measured), part
    assert all(str(row).count(" | ") == 3 for row in measured)


def test_songs_are_as_long_as_they_should_be(tmp_path: Path) -> None:
    path = tmp_path / "song.mp3"
    path.write_bytes(latency.stereo_mp3(31))  # longer than the example that it repeats
    waveform = speed.load_audio(path)
    assert abs(waveform.shape[1] / speed.SAMPLE_RATE - 31) < 0.1
    assert np.abs(waveform[:, -speed.SAMPLE_RATE :]).max() > 0.01
