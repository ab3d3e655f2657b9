"""Feature files as others make them."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from crnn.data.features import DatasetError, Features
from crnn.data.stored import load_features
from crnn.features import N_MELS


def file_of(path: Path, *tracks: str, silent: int = 0) -> Path:
    """A feature file of noise, of which the first clips are silent."""
    levels = torch.randint(1, 255, (len(tracks), N_MELS, 30), dtype=torch.uint8).numpy()
    levels[:silent, :, :20] = 0
    n_frames = np.full(len(tracks), 20, np.int32)
    replace(Features.from_levels(list(levels), list(tracks)), n_frames=n_frames).save(path / "features.npz")
    return path / "features.npz"


def test_tracks_are_called_as_elsewhere(tmp_path: Path) -> None:
    written = ["rock\\a.mp3", ".\\train\\rock\\b.mp3", "./jazz/c", "jazz/d: e", "blues.00000", "blues.00001.wav"]
    tracks = ["rock/a.mp3", "train/rock/b.mp3", "jazz/c", *written[3:]]
    assert load_features(file_of(tmp_path, *written), pytest.fail).track_id.tolist() == tracks


@pytest.mark.parametrize("track", ["/home/me/rock/a.mp3", "C:\\rock\\a.mp3", "song.mp3", "7", "../rock/a.mp3", ""])
def test_a_track_that_says_no_genre_is_named(track: str, tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match=r"has the track_id '.*', which .* must look like rock/song.mp3"):
        load_features(file_of(tmp_path, "rock/b.mp3", track), pytest.fail)


@pytest.mark.parametrize("other", ["rock\\a.mp3", "./rock/a.mp3"])
def test_a_track_that_is_written_in_two_ways_is_named(other: str, tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match=r"has 'rock/a\.mp3' more than once, written otherwise"):
        load_features(file_of(tmp_path, "rock/a.mp3", "rock/b.mp3", other), pytest.fail)


def test_folders_that_seem_none_of_genres_stop_it_unless_that_is_accepted(tmp_path: Path) -> None:
    path = file_of(tmp_path, *(f"{part}/{genre}/1.mp3" for part in ("tr", "te") for genre in ("rock", "jazz")))
    with pytest.raises(DatasetError, match=r"'te' and 'tr' in .*features\.npz hold the same folders"):
        load_features(path, pytest.fail)
    assert len(load_features(path, pytest.fail, ["alike"])) == 4


def test_what_is_silent_is_left_out_and_named(tmp_path: Path) -> None:
    told: list[str] = []
    features = load_features(file_of(tmp_path, "a/1", "a/2", "a/3", "b/1", silent=2), told.append)
    assert (features.track_id.tolist(), told) == (["a/3", "b/1"], ["Left out 'a/1' and 'a/2', which are silent."])
    with pytest.raises(DatasetError, match=r"All clips of .* are silent"):
        load_features(file_of(tmp_path, "a/1", silent=1), told.append)


def test_a_genre_of_which_all_is_silent_stops_it_unless_that_is_accepted(tmp_path: Path) -> None:
    path = file_of(tmp_path, "a/1", "a/2", "b/1", silent=2)
    with pytest.raises(DatasetError, match=r"All clips of 'a' in .* are silent: .* --accept empty"):
        load_features(path, lambda _: None)
    assert load_features(path, lambda _: None, ["empty"]).track_id.tolist() == ["b/1"]


def test_what_is_silent_in_another_part_than_the_measured_one_stops_nothing(tmp_path: Path) -> None:
    path = file_of(tmp_path, "train/a/1", "train/b/1", "test/a/1", "test/b/1", silent=1)
    for ways in ({}, {"measured": "train"}, {"measured": "all"}):
        with pytest.raises(DatasetError, match=r"All clips of 'train/a' in"):
            load_features(path, lambda _: None, **ways)
    assert len(load_features(path, lambda _: None, measured="test")) == 3
    assert len(load_features(path, lambda _: None, is_split=False)) == 3
