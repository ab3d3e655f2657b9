"""Log-mels on all cores: the right ones, once each, and no file stops the others."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import awkward_worker
import numpy as np
import pytest
import soundfile
import torch

from crnn.audio import load_audio
from crnn.data import extraction
from crnn.data.extraction import extract_features
from crnn.data.features import DatasetError
from crnn.data.look import find_tracks
from crnn.features import SAMPLE_RATE, LogMel, n_frames_of, to_levels

pytestmark = pytest.mark.processes

ROOT = Path(__file__).parents[2]


def write_clip(path: Path, seconds: float = 1.5, seed: int = 0) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    samples = np.random.default_rng(seed).normal(0, 0.1, round(seconds * SAMPLE_RATE))
    soundfile.write(path, samples, SAMPLE_RATE)
    return path


@pytest.fixture
def no_workers(monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    """When it is called, no more processes may be started."""

    def forbid() -> None:
        monkeypatch.setattr(extraction, "_work", lambda connection: None)  # cannot be pickled

    return forbid


def test_what_cannot_be_decoded_is_left_out_by_name(tmp_path: Path) -> None:
    write_clip(tmp_path / "blues" / "blues.00000.wav", 1.5)
    write_clip(tmp_path / "rock" / "long.flac", 4)
    write_clip(tmp_path / "rock" / "short.wav", 0.4)
    (tmp_path / "rock" / "broken.wav").write_bytes(b"not audio")
    notices: list[str] = []
    features = extract_features(find_tracks(tmp_path), tmp_path / "cache", notices.append)
    assert features.track_id.tolist() == ["blues.00000", "rock/long.flac"]
    assert features.n_frames.tolist() == [1 + int(1.5 * SAMPLE_RATE) // 914, 1 + 4 * SAMPLE_RATE // 914]
    assert [notice.partition(": ")[0] for notice in notices] == ["Left out rock/broken.wav", "Left out rock/short.wav"]
    assert "lasts only 0.40 s" in notices[1]


def test_log_mels_are_those_of_serving_and_are_kept(tmp_path: Path, no_workers: Callable[[], None]) -> None:
    tracks = {f"a/{seed}.wav": write_clip(tmp_path / f"{seed}.wav", 1.2, seed) for seed in range(3)}
    features = extract_features(tracks, tmp_path / "cache")
    for row, path in zip(features.logmel, tracks.values(), strict=True):
        np.testing.assert_array_equal(row, to_levels(LogMel()(torch.from_numpy(load_audio(path)))))
    no_workers()
    np.testing.assert_array_equal(extract_features(tracks, tmp_path / "cache").logmel, features.logmel)


def test_channels_are_averaged_as_power_whatever_their_phase(tmp_path: Path) -> None:
    """Two channels that would cancel each other sound as either does alone; of different ones each has its half."""
    generator = np.random.default_rng(0)
    left, right = generator.normal(0, 0.1, (2, SAMPLE_RATE))
    sounds = {"mono": left, "against": np.stack([left, -left]), "different": np.stack([left, right])}
    tracks = {f"a/{name}": tmp_path / f"{name}.wav" for name in sounds}
    for path, sound in zip(tracks.values(), sounds.values(), strict=True):
        soundfile.write(path, sound.T, SAMPLE_RATE, subtype="FLOAT")
    features = extract_features(tracks, tmp_path / "cache")
    mono, against, different = features.logmel.astype(int)
    assert np.abs(mono - against).max() <= 1
    expected = to_levels(LogMel()(torch.from_numpy(np.stack([left, right]).astype(np.float32)))).astype(int)
    assert np.abs(different - expected).max() <= 1
    assert np.abs(different - mono).mean() > 3


def test_changed_file_and_damaged_cache_are_decoded_again(tmp_path: Path) -> None:
    tracks = {name: write_clip(tmp_path / name, 1.2) for name in ("a.wav", "b.wav")}
    before = extract_features(tracks, tmp_path / "cache")
    write_clip(tracks["a.wav"], 1.2, seed=1)
    os.utime(tracks["a.wav"], (0, 0))
    for place in (tmp_path / "cache").iterdir():
        place.write_bytes(place.read_bytes()[:500])
    after = extract_features(tracks, tmp_path / "cache")
    assert not np.array_equal(after.logmel[0], before.logmel[0])
    np.testing.assert_array_equal(after.logmel[1], before.logmel[1])


@pytest.mark.parametrize(
    "levels", [np.zeros((12, 30), np.uint8), np.zeros((128, 0), np.uint8), np.zeros((128, 30), np.int8), np.uint8(3)]
)
def test_levels_of_another_kind_in_the_cache_are_decoded_again(levels: np.ndarray, tmp_path: Path) -> None:
    tracks = {"a.wav": write_clip(tmp_path / "a.wav", 1.2)}
    before = extract_features(tracks, tmp_path / "cache")
    [place] = (tmp_path / "cache").iterdir()
    np.save(place, levels)
    np.testing.assert_array_equal(extract_features(tracks, tmp_path / "cache").logmel, before.logmel)
    header = place.read_bytes().replace(b")", b"(", 1)
    place.write_bytes(header)
    np.testing.assert_array_equal(extract_features(tracks, tmp_path / "cache").logmel, before.logmel)


def test_of_a_long_song_the_middle_minute(tmp_path: Path) -> None:
    time_s = np.arange(80 * SAMPLE_RATE) / SAMPLE_RATE
    hz = np.where(np.abs(time_s - 40) < 30, 440, 4_000)
    soundfile.write(tmp_path / "a.wav", 0.3 * np.sin(2 * np.pi * hz * time_s), SAMPLE_RATE)
    features = extract_features({"a/a.wav": tmp_path / "a.wav"}, tmp_path / "cache")
    assert features.n_frames.tolist() == [n_frames_of(60)]
    assert len(set(features.decibels(0)[:, 3:-3].argmax(dim=0).tolist())) == 1


def test_nothing_decodable(tmp_path: Path) -> None:
    (tmp_path / "broken.wav").write_bytes(b"not audio")
    with pytest.raises(DatasetError, match="None of the files"):
        extract_features({"rock/broken.wav": tmp_path / "broken.wav"}, tmp_path / "cache", lambda text: None)


def test_cache_that_cannot_be_written(tmp_path: Path) -> None:
    clip = write_clip(tmp_path / "a.wav")
    with pytest.raises(
        DatasetError,
        match=r"a\.wav.* \(Not a directory\); when that is mended, the same command",
    ):
        extract_features({"a": clip}, clip / "cache")


def test_files_that_hang_or_crash_the_decoder_stop_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(extraction, "_work", awkward_worker.work)
    tracks = {f"a/{name}": tmp_path / f"{name}.wav" for name in ("hang", "one", "crash", "two")}
    for path in tracks.values():
        path.touch()
    notices: list[str] = []
    features = extract_features(tracks, tmp_path / "cache", notices.append, most_seconds=3)
    assert features.track_id.tolist() == ["a/one", "a/two"]
    assert notices == [
        "Left out a/hang: it was not decoded within 3 s.",
        "Left out a/crash: it crashes the decoder.",
    ]


@pytest.mark.skipif(sys.platform == "win32", reason="signals")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
def test_a_stopped_extraction_leaves_no_process_and_goes_on(number: signal.Signals, tmp_path: Path) -> None:
    """The real command, stopped as a terminal does it: its whole group of processes is told."""
    for seed in range(24):
        write_clip(tmp_path / "music" / "ab"[seed % 2] / f"{seed}.flac", 20, seed)
    out, cache = tmp_path / "out", tmp_path / "data" / "log-mels"
    command = [sys.executable, ROOT / "train.py", "--data", tmp_path / "music", "--config", "scratch", "--out", out]
    process = subprocess.Popen(command, cwd=tmp_path, stderr=subprocess.PIPE, text=True, start_new_session=True)
    deadline = time.monotonic() + 120
    while len(list(cache.glob("*.npy"))) < 2:
        assert time.monotonic() < deadline
        time.sleep(0.005)
    if number == signal.SIGINT:
        os.killpg(process.pid, number)
    else:
        process.kill()
    _, errors = process.communicate(timeout=60)  # ends when no process has the pipe any more
    assert "Traceback" not in errors
    if number == signal.SIGINT:
        assert errors.splitlines()[-1] == "train.py: stopped."

    kept = {place: place.stat().st_mtime_ns for place in cache.glob("*.npy")}
    assert 2 <= len(kept) < 24
    features = extract_features(find_tracks(tmp_path / "music"), cache)
    assert len(features) == 24
    assert {place: place.stat().st_mtime_ns for place in kept} == kept


def test_a_file_that_vanishes_meanwhile_ends_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A drive that drops out is no reason to train on what is left."""
    tracks = {f"{name}/1": write_clip(tmp_path / f"{name}.wav") for name in "ab"}
    aside, original = tmp_path / "aside.wav", extraction._extract

    def vanish(*arguments: object) -> Iterator[tuple[str, str | None]]:
        tracks["b/1"].rename(aside)
        return original(*arguments)

    monkeypatch.setattr(extraction, "_extract", vanish)
    with pytest.raises(DatasetError, match=r"b\.wav cannot be read .*No such file.* goes on where it stopped"):
        extract_features(tracks, tmp_path / "cache")
    monkeypatch.undo()
    aside.rename(tracks["b/1"])
    assert extract_features(tracks, tmp_path / "cache").track_id.tolist() == ["a/1", "b/1"]


def test_silence_is_no_clip_of_any_genre(tmp_path: Path) -> None:
    write_clip(tmp_path / "a.wav", 1, 0)
    soundfile.write(tmp_path / "b.wav", np.zeros(SAMPLE_RATE), SAMPLE_RATE)
    notices = []
    tracks = {"a/a": tmp_path / "a.wav", "b/b": tmp_path / "b.wav"}
    features = extract_features(tracks, tmp_path / "cache", notices.append)
    assert features.track_id.tolist() == ["a/a"]
    assert notices == ["Left out b/b: b.wav is silent."]


def test_a_silence_in_the_middle_is_not_what_is_kept(tmp_path: Path) -> None:
    """As before a hidden song at the end of an album."""
    silent = np.zeros(100 * SAMPLE_RATE)
    noise = np.random.default_rng(0).normal(0, 0.1, 3 * SAMPLE_RATE)
    soundfile.write(tmp_path / "a.wav", np.concatenate([noise, silent, noise[:SAMPLE_RATE]]), SAMPLE_RATE)
    features = extract_features({"a/a": tmp_path / "a.wav"}, tmp_path / "cache")
    assert features.decibels(0).max() > -10
