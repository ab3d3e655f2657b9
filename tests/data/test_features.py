"""The feature file."""

import io
import json
import re
import zipfile
from pathlib import Path

import librosa
import numpy as np
import pytest
import torch

from crnn.data.features import DatasetError, Features
from crnn.features import (
    FEATURE_SETTINGS,
    FLOOR_DB,
    SAMPLE_RATE,
    LogMel,
    stand_on_level,
)

ARRAYS = ("logmel", "floor_db", "track_id", "n_frames")
TAKEN = "they are taken as made with today's settings."


def noise(seconds: float, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(0, 0.1, round(seconds * SAMPLE_RATE)).astype(np.float32)


def sweep(seconds: float) -> np.ndarray:
    return librosa.chirp(fmin=50, fmax=10_000, sr=SAMPLE_RATE, duration=seconds).astype(np.float32)


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


def test_an_old_file_stands_on_the_level_anew(features: Features, tmp_path: Path) -> None:
    """One that does not say how it was made, its zero somewhere else: told, and read as if made today."""
    lower = Features(features.logmel // 2, features.floor_db, features.track_id, features.n_frames)
    np.savez(tmp_path / "f.npz", **{name: getattr(lower, name) for name in ARRAYS})
    told = []
    loaded = Features.load(tmp_path / "f.npz", told.append)
    assert told == [f"{tmp_path / 'f.npz'} does not say how its log-mels were made; {TAKEN}"]
    for index in range(3):
        expected = stand_on_level(lower.decibels(index), FLOOR_DB)
        assert (loaded.decibels(index) - expected).abs().max() <= 0.16
        assert loaded.decibels(index)[1:].max() > -5


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({**FEATURE_SETTINGS, "hop_length": 512}, "hop_length 512, here 914"),
        ({**FEATURE_SETTINGS, "floor_db": -60.0}, "floor_db -60.0, here -80.0"),
        ({key: value for key, value in FEATURE_SETTINGS.items() if key != "reference"}, "reference None, here '95 %"),
        ([], "cannot be read"),
    ],
    ids=["hop", "floor", "reference", "none"],
)
def test_a_file_of_other_settings_is_refused(features: Features, tmp_path: Path, settings: object, words: str) -> None:
    arrays = {name: getattr(features, name) for name in ARRAYS}
    np.savez(tmp_path / "f.npz", **arrays, settings=json.dumps(settings))
    with pytest.raises(DatasetError, match=re.escape(words)):
        Features.load(tmp_path / "f.npz")


def test_file_without_lengths_has_equal_ones(features: Features, tmp_path: Path) -> None:
    np.savez(tmp_path / "f.npz", logmel=features.logmel, floor_db=features.floor_db, track_id=features.track_id)
    assert Features.load(tmp_path / "f.npz").n_frames.tolist() == [features.logmel.shape[2]] * 3


def test_select_keeps_rows_together(features: Features) -> None:
    selected = features.select(np.array([2, 0]))
    assert selected.track_id.tolist() == ["b/z.wav", "a/x.wav"]
    torch.testing.assert_close(selected.decibels(0), features.decibels(2))


@pytest.mark.filterwarnings("error")
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
        {"n_frames": lambda f: f.n_frames.astype(np.int64) + 2**32},
        {"n_frames": lambda f: f.n_frames * np.nan},
        {"floor_db": lambda f: f.floor_db.astype(np.float64) * 1e300},
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


@pytest.mark.parametrize(
    "change",
    [
        {"n_frames": np.array(["many"] * 3)},
        {"floor_db": np.array(["low"] * 3)},
        {"track_id": np.array("a/x.wav")},
        {"track_id": np.array([["a/x.wav"], ["a/y.wav"], ["b/z.wav"]])},
    ],
)
def test_arrays_of_another_kind_are_damage(features: Features, change: dict, tmp_path: Path) -> None:
    np.savez(tmp_path / "f.npz", **{name: getattr(features, name) for name in ARRAYS} | change)
    with pytest.raises(DatasetError, match="not a feature file, or it is damaged"):
        Features.load(tmp_path / "f.npz")


def test_flipped_bits_are_damage(features: Features, tmp_path: Path) -> None:
    features.save(tmp_path / "f.npz")
    content = bytearray((tmp_path / "f.npz").read_bytes())
    for place in range(40, 240):
        content[place] ^= 255
    (tmp_path / "f.npz").write_bytes(content)
    with pytest.raises(DatasetError, match="not a feature file, or it is damaged"):
        Features.load(tmp_path / "f.npz")


@pytest.mark.parametrize(("place", "sign"), [(b")", b"("), (b")", b"\xeb"), (b"}", b"{"), (b":", b"\0")])
def test_a_damaged_header_is_damage(features: Features, place: bytes, sign: bytes, tmp_path: Path) -> None:
    """Which NumPy reads as if it were a program, with the errors of one."""
    content = io.BytesIO()
    np.save(content, features.logmel)
    with zipfile.ZipFile(tmp_path / "f.npz", "w") as file:
        file.writestr("logmel.npy", content.getvalue().replace(place, sign, 1))
    with pytest.raises(DatasetError, match="not a feature file, or it is damaged"):
        Features.load(tmp_path / "f.npz")


def test_floors_of_double_precision_become_single(features: Features, tmp_path: Path) -> None:
    arrays = {name: getattr(features, name) for name in ARRAYS} | {"floor_db": features.floor_db.astype(np.float64)}
    np.savez(tmp_path / "f.npz", **arrays, settings=json.dumps(FEATURE_SETTINGS))
    assert Features.load(tmp_path / "f.npz").floor_db.dtype == np.float32


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
