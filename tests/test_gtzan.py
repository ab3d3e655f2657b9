"""Finding, fetching and splitting training data."""

from pathlib import Path

import numpy as np
import pytest

from crnn.features import DatasetError, Features
from crnn.gtzan import (
    FAULT_FILTERED,
    GENRES,
    find_tracks,
    genre_of,
    make_dataset,
    random_split,
)


def features_of(*tracks: str) -> Features:
    logmel = np.zeros((len(tracks), 128, 30), dtype=np.uint8)
    lengths = np.full(len(tracks), 30, dtype=np.int32)
    return Features(logmel, np.full(len(tracks), -80, dtype=np.float32), np.array(tracks), lengths)


def test_fault_filtered_lists() -> None:
    assert {part: len(tracks) for part, tracks in FAULT_FILTERED.items()} == {"train": 443, "valid": 197, "test": 290}
    assert len(set().union(*FAULT_FILTERED.values())) == 930
    assert len(GENRES) == 10


def test_gtzan_is_split_by_its_lists() -> None:
    tracks = [track for part in FAULT_FILTERED.values() for track in part] + ["blues.00001"]
    dropped = {f"blues.{i:05d}" for i in range(100)} - set(tracks[:-1])
    dataset = make_dataset(features_of(*dict.fromkeys(tracks), *sorted(dropped)))
    assert "fault-filtered" in dataset.protocol
    for part, expected in FAULT_FILTERED.items():
        assert sorted(dataset.clips(part).features.track_id.tolist()) == sorted(expected)
    assert len(dataset.clips("all")) == 930
    assert dataset.genres == tuple(sorted(GENRES))


@pytest.mark.parametrize("parts", [("test",), ("valid",), ("valid", "test")])
def test_parts_that_are_there_to_be_measured_stay_whole(parts: tuple[str, ...]) -> None:
    tracks = [track for part in parts for track in FAULT_FILTERED[part]]
    dataset = make_dataset(features_of(*tracks))
    assert "fault-filtered" in dataset.protocol
    for part in parts:
        assert dataset.clips(part).features.track_id.tolist() == list(FAULT_FILTERED[part])
    with pytest.raises(DatasetError, match="no train part"):
        dataset.clips("train")


def test_labels_follow_the_genres_asked_for() -> None:
    dataset = make_dataset(features_of(*[FAULT_FILTERED[part][i] for part in ("train", "valid") for i in (0, -1)]))
    clips = dataset.clips("train", genres=("rock", "x", "blues"))
    assert [("rock", "x", "blues")[label] for label in clips.labels] == [
        genre_of(track) for track in clips.features.track_id
    ]
    with pytest.raises(DatasetError, match="the data has rock too"):
        dataset.clips("train", genres=("blues", "jazz"))
    with pytest.raises(DatasetError, match="no test part"):
        dataset.clips("test")


def test_two_clips_a_genre_are_enough() -> None:
    dataset = make_dataset(features_of("ska/a.mp3", "ska/b.mp3", "polka v2.0/a.mp3", "polka v2.0/b.mp3"))
    assert dataset.genres == ("polka v2.0", "ska")
    assert "random" in dataset.protocol
    for part in ("train", "valid"):
        assert sorted(dataset.clips(part).labels.tolist()) == [0, 1]
    assert len(dataset.splits["test"]) == 0


def test_a_handful_of_gtzan_is_split_at_random() -> None:
    dataset = make_dataset(features_of("blues.00029", "blues.00030", "jazz.00012", "jazz.00033"))
    assert "random" in dataset.protocol
    assert len(dataset.clips("train")) == len(dataset.clips("valid")) == 2


def test_random_split_is_stratified_disjoint_and_stable() -> None:
    tracks = [f"a/{i}.wav" for i in range(100)] + [f"b/{i}.wav" for i in range(40)]
    parts = random_split(tracks)
    assert sorted(track for part in parts.values() for track in part) == sorted(tracks)
    for genre, n in (("a", 100), ("b", 40)):
        counts = {part: sum(genre_of(track) == genre for track in members) for part, members in parts.items()}
        assert counts == {"train": n - 2 * round(0.15 * n), "valid": round(0.15 * n), "test": round(0.15 * n)}
    assert random_split(reversed(tracks)) == parts
    assert parts["test"] != sorted(parts["test"])


@pytest.mark.parametrize(
    ("tracks", "message"),
    [
        (["a/1.wav", "a/2.wav"], "this data has only a"),
        (["a/1.wav", "a/2.wav", "b/1.wav"], "only one clip of b"),
    ],
)
def test_too_little_data_is_refused(tracks: list[str], message: str) -> None:
    with pytest.raises(DatasetError, match=message):
        make_dataset(features_of(*tracks))


@pytest.mark.parametrize(
    "layout", ["", "genres", "genres_original", "Data/genres_original", "archive/Data/genres_original", "gtzan/audio"]
)
def test_find_tracks_in_the_usual_layouts(layout: str, tmp_path: Path) -> None:
    root = tmp_path / layout
    for name in ("blues/blues.00000.wav", "blues/My Song.MP3", "rock/rock.00001.au"):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()
    for name in ("blues/._blues.00000.wav", "blues/cover.jpg", "README.txt"):
        (root / name).touch()
    assert list(find_tracks(tmp_path)) == ["blues/My Song.MP3", "blues.00000", "rock.00001"]


def test_pictures_beside_gtzan_are_passed_over(tmp_path: Path) -> None:
    """Kaggle's copy has a folder of spectrograms, and some copies add cuts of three seconds."""
    names = ("images_original/blues/blues00000.png", "images/blues/blues.00000.png", "z/blues/blues.00000.wav")
    for name in (*names, "genres_3s/blues/blues.00000.0.wav"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    assert find_tracks(tmp_path) == {"blues.00000": tmp_path / names[-1]}


def test_folders_inside_a_genre_belong_to_it(tmp_path: Path) -> None:
    names = ["polka/Anna/first/one.ogg", "polka/two.ogg", "ska/Ben/three.m4a"]
    for name in (*names, "ska/.trash/four.m4a", "five.ogg"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    assert list(find_tracks(tmp_path)) == names
    assert [genre_of(track) for track in names] == ["polka", "polka", "ska"]


def test_find_tracks_without_any(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match="no audio files in genre folders"):
        find_tracks(tmp_path)
    with pytest.raises(DatasetError, match="There is no folder"):
        find_tracks(tmp_path / "nowhere")
