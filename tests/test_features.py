"""The front end against librosa and against real GTZAN features; windows; the feature file."""

import csv
import re
from pathlib import Path

import librosa
import numpy as np
import pytest
import torch

from crnn.audio import load_audio
from crnn.features import (
    FLOOR_DB,
    FRAMES_PER_SECOND,
    HOP_LENGTH,
    N_FFT,
    N_MELS,
    SAMPLE_RATE,
    DatasetError,
    Features,
    LogMel,
    repeat_to,
    windows,
)

GTZAN_SAMPLE = Path(__file__).parents[2] / "shared" / "gtzan"


def noise(seconds: float, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(0, 0.1, round(seconds * SAMPLE_RATE)).astype(np.float32)


def sweep(seconds: float) -> np.ndarray:
    return librosa.chirp(fmin=50, fmax=10_000, sr=SAMPLE_RATE, duration=seconds).astype(np.float32)


@pytest.mark.parametrize("hop_length", [HOP_LENGTH, 512])
def test_mel_equals_librosa(hop_length: int) -> None:
    waveform = noise(5)
    expected = librosa.feature.melspectrogram(
        y=waveform, sr=SAMPLE_RATE, n_fft=N_FFT, hop_length=hop_length, n_mels=N_MELS, pad_mode="constant"
    )
    mel = LogMel(hop_length).mel(torch.from_numpy(waveform)).numpy()
    np.testing.assert_allclose(mel, expected, rtol=1e-4)


def test_log_mel_equals_librosa_in_decibels() -> None:
    waveform = sweep(3)
    mel = librosa.feature.melspectrogram(
        y=waveform, sr=SAMPLE_RATE, n_fft=N_FFT, hop_length=HOP_LENGTH, n_mels=N_MELS, pad_mode="constant"
    )
    expected = librosa.power_to_db(mel, ref=np.max, top_db=-FLOOR_DB)
    np.testing.assert_allclose(LogMel()(torch.from_numpy(waveform)).numpy(), expected, atol=0.01)


def test_log_mel_is_relative_to_the_loudest_cell() -> None:
    waveform = torch.from_numpy(noise(2))
    log_mel = LogMel()(waveform)
    assert log_mel.shape == (N_MELS, 1 + len(waveform) // HOP_LENGTH)
    assert log_mel.max() == 0
    torch.testing.assert_close(LogMel()(waveform * 1e-3), log_mel, atol=1e-3, rtol=0)


def test_silence_is_floor() -> None:
    assert (LogMel()(torch.zeros(SAMPLE_RATE)) == FLOOR_DB).all()


@pytest.mark.skipif(not GTZAN_SAMPLE.is_dir(), reason="the sample of GTZAN is not on this machine")
def test_front_end_agrees_with_published_features() -> None:
    """The sample's features were recovered from plots; its README tells which frames of a hop of 512 they hold."""
    features = Features.load(GTZAN_SAMPLE / "logmel-train-valid.npz")
    row = {track: index for index, track in enumerate(features.track_id.tolist())}
    front_end = LogMel(hop_length=512)
    clips = sorted(GTZAN_SAMPLE.glob("audio/*/*.flac"))
    assert len(clips) == 79
    for path in clips:
        log_mel = front_end(torch.from_numpy(load_audio(path))).numpy()
        published = features.decibels(row[path.stem]).numpy()
        columns = np.arange(published.shape[1])
        log_mel = log_mel[:, np.round((columns + 1.6) / 723.8 * (log_mel.shape[1] - 1)).astype(int)]
        assert np.corrcoef(log_mel.ravel(), published.ravel())[0, 1] >= 0.99, path.stem
        assert np.abs(log_mel - published).mean() < 1.0, path.stem


@pytest.mark.skipif(not GTZAN_SAMPLE.is_dir(), reason="the sample of GTZAN is not on this machine")
def test_feature_file_of_the_sample_is_whole() -> None:
    features = Features.load(GTZAN_SAMPLE / "logmel-train-valid.npz")
    with (GTZAN_SAMPLE / "tracks.csv").open(encoding="utf-8") as file:
        listed = {row["track_id"] for row in csv.DictReader(file)}
    assert listed - set(features.track_id.tolist()) <= {"jazz.00054"}  # corrupt on most mirrors
    assert features.decibels(0).shape == (N_MELS, 722)


@pytest.mark.parametrize(
    ("n_frames", "expected"),
    [(10, [0]), (11, [0, 1]), (24, [0, 5, 10, 14]), (25, [0, 5, 10, 15]), (26, [0, 5, 10, 15, 16])],
)
def test_windows_cover_the_clip_and_end_with_it(n_frames: int, expected: list[int]) -> None:
    log_mel = torch.arange(n_frames).expand(N_MELS, -1)
    cut, starts = windows(log_mel, window_frames=10, hop_frames=5)
    assert starts == expected
    assert [row[0].tolist() for row in cut] == [list(range(start, start + 10)) for start in starts]
    assert cut[-1, 0, -1] == n_frames - 1


def test_short_clip_is_repeated_to_one_window() -> None:
    cut, starts = windows(torch.arange(4).expand(N_MELS, -1), window_frames=10, hop_frames=5)
    assert starts == [0]
    assert cut.shape == (1, N_MELS, 10)
    assert cut[0, 0].tolist() == [0, 1, 2, 3, 0, 1, 2, 3, 0, 1]


def test_repeat_to_cuts_what_is_longer() -> None:
    assert repeat_to(torch.arange(6), 4).tolist() == [0, 1, 2, 3]


def test_frames_per_second() -> None:
    assert pytest.approx(24.125, abs=0.001) == FRAMES_PER_SECOND


@pytest.fixture
def features() -> Features:
    front_end = LogMel()
    clips = [noise(1), noise(2.5, seed=1), sweep(2)]
    return Features.from_log_mels(
        [front_end(torch.from_numpy(clip)) for clip in clips], ["a/x.wav", "a/y.wav", "b/z.wav"]
    )


def test_feature_file_round_trip(features: Features, tmp_path: Path) -> None:
    features.save(tmp_path / "new" / "features.npz")
    loaded = Features.load(tmp_path / "new" / "features.npz")
    for name in ("logmel", "floor_db", "track_id", "n_frames"):
        np.testing.assert_array_equal(getattr(loaded, name), getattr(features, name))
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["features.npz"]


def test_quantisation_errs_by_half_a_step(features: Features) -> None:
    original = LogMel()(torch.from_numpy(noise(2.5, seed=1)))
    stored = features.decibels(1)
    assert stored.shape == original.shape
    assert (stored - original).abs().max() <= -FLOOR_DB / 255 / 2 + 1e-4


def test_file_without_lengths_has_equal_ones(features: Features, tmp_path: Path) -> None:
    np.savez(tmp_path / "f.npz", logmel=features.logmel, floor_db=features.floor_db, track_id=features.track_id)
    assert Features.load(tmp_path / "f.npz").n_frames.tolist() == [features.logmel.shape[2]] * 3


def test_select_keeps_rows_together(features: Features) -> None:
    selected = features.select(np.array([2, 0]))
    assert selected.track_id.tolist() == ["b/z.wav", "a/x.wav"]
    torch.testing.assert_close(selected.decibels(0), features.decibels(2))


@pytest.mark.parametrize(
    "change",
    [
        {"logmel": lambda f: f.logmel.astype(np.float32)},
        {"logmel": lambda f: f.logmel[:, :64]},
        {"logmel": lambda f: f.logmel[:2]},
        {"floor_db": lambda f: -f.floor_db},
        {"floor_db": lambda f: f.floor_db * np.nan},
        {"track_id": lambda f: np.array(["a/x.wav"] * 3)},
        {"track_id": lambda f: np.array([1, 2, 3])},
        {"n_frames": lambda f: f.n_frames * 0},
        {"n_frames": lambda f: f.n_frames + 1000},
    ],
)
def test_unusable_feature_file_is_refused(features: Features, change: dict, tmp_path: Path) -> None:
    arrays = {name: getattr(features, name) for name in ("logmel", "floor_db", "track_id", "n_frames")}
    arrays.update({name: make(features) for name, make in change.items()})
    np.savez(tmp_path / "f.npz", **arrays)
    with pytest.raises(DatasetError, match=r"f\.npz is not a usable feature file"):
        Features.load(tmp_path / "f.npz")


@pytest.mark.parametrize("content", [b"", b"not a zip", b"PK\x03\x04 cut short"])
def test_damaged_feature_file_is_refused(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "f.npz").write_bytes(content)
    with pytest.raises(DatasetError, match="not a feature file, or it is damaged"):
        Features.load(tmp_path / "f.npz")


def test_feature_file_with_missing_array_or_pickle_is_refused(features: Features, tmp_path: Path) -> None:
    np.savez(tmp_path / "missing.npz", logmel=features.logmel)
    np.savez(tmp_path / "pickle.npz", logmel=np.array([{}]), floor_db=features.floor_db, track_id=features.track_id)
    np.save(tmp_path / "array.npy", features.logmel)
    for name in ("missing.npz", "pickle.npz", "array.npy"):
        with pytest.raises(DatasetError, match=re.escape(name)):
            Features.load(tmp_path / name)


def test_missing_feature_file() -> None:
    with pytest.raises(DatasetError, match=r"There is no feature file nowhere\.npz"):
        Features.load("nowhere.npz")
