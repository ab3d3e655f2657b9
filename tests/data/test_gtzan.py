"""Finding, fetching and splitting training data."""

import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from crnn.data.features import DatasetError, Features
from crnn.data.gtzan import FAULT_FILTERED, LEAK, PROTOCOL, has_heard, make_dataset
from crnn.data.look import find_tracks
from crnn.data.names import GENRES, genre_of
from crnn.data.splits import random_split, with_validation
from crnn.network.model import CRNN


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
    spelled = dataset.clips("train", genres=("Rock", "blues!", "blues"))
    assert spelled.labels.tolist() == [0 if label == 0 else 2 for label in clips.labels]
    with pytest.raises(DatasetError, match="the data has rock too"):
        dataset.clips("train", genres=("blues", "jazz"))
    with pytest.raises(DatasetError, match="no test part"):
        dataset.clips("test")


def test_a_part_can_be_laid_aside() -> None:
    whole = make_dataset(features_of(*(track for part in FAULT_FILTERED.values() for track in part)))
    rest = whole.without("test")
    assert [len(rest.clips(part)) for part in ("train", "valid", "all")] == [443, 197, 640]
    assert len(whole.clips("test")) == 290
    with pytest.raises(DatasetError, match="no test part"):
        rest.clips("test")


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


def test_random_split_stays_what_it_was() -> None:
    """Models say by its name what they have heard."""
    tracks = [f"{genre}/{number}.wav" for genre in "ab" for number in range(7)]
    parts = random_split(tracks)
    assert parts["test"] == ["b/6.wav", "a/3.wav"]
    assert parts["valid"] == ["b/0.wav", "a/4.wav"]


@pytest.mark.parametrize("artists", [None, ["A", "B", "C", "D", "D"]])
def test_the_only_clip_of_a_genre_or_its_only_artist_is_for_training(artists: list[str] | None) -> None:
    """In a split by folders; the artist may have clips of other genres, of which there are more."""
    train = ["train/ska/1.mp3", "train/ska/2.mp3", "train/ska/3.mp3", "train/ska/4.mp3", "train/polka/5.mp3"]
    test = ["test/ska/6.mp3", "test/polka/7.mp3"]
    dataset = make_dataset(features_of(*train, *test), artists=artists and [*artists, "E", "F"])
    dataset.without("valid").clips("train")
    assert dataset.counts("train")["polka"] == 1
    assert dataset.counts("valid") == {"ska": 1}


def test_artists_of_two_genres_leave_none_without_clips_to_train_on() -> None:
    """Both artists of the small genre may be drawn for other parts with their clips of the large one."""
    tracks = [f"{name}.mp3" for name in ("polka/1", "polka/2", *(f"ska/{number}" for number in range(14)))]
    for draw in range(300):
        artists = [f"{draw} {name}" for name in ("A", "B", "A", "B", *range(12))]
        parts = random_split(tracks, dict(zip(tracks, artists, strict=True)), by_artist=True)
        assert {*map(genre_of, parts["train"])} == {"polka", "ska"}


def test_a_split_by_artist_keeps_artists_whole() -> None:
    tracks = [f"{genre}/{number}.wav" for genre in "ab" for number in range(100)]
    artists = [f"{track[0]} {int(track[2:-4]) // 3}" for track in tracks]
    artists[5] = artists[105] = "in both genres"
    dataset = make_dataset(features_of(*tracks), artists=artists)
    assert dataset.protocol == "random split by artist, stratified by genre"
    artist_of = dict(zip(tracks, artists, strict=True))
    seen: dict[str, set[str]] = {}
    for part in ("train", "valid", "test"):
        clips = dataset.clips(part)
        seen[part] = {artist_of[track] for track in clips.features.track_id}
        share = np.bincount(clips.labels) / 100
        assert np.abs(share - (0.7 if part == "train" else 0.15)).max() <= 0.03
    assert not seen["train"] & seen["valid"]
    assert not seen["train"] & seen["test"]
    assert not seen["valid"] & seen["test"]


def test_artists_of_many_tracks_and_too_few_artists() -> None:
    tracks = [f"{genre}/{number}.wav" for genre in "ab" for number in range(8)]
    two_each = make_dataset(features_of(*tracks), artists=[f"{track[0]} {track[2] < '3'}" for track in tracks])
    assert np.bincount(two_each.clips("valid").labels).tolist() == [3, 3]
    assert np.bincount(two_each.clips("train").labels).tolist() == [5, 5]
    with pytest.raises(DatasetError, match=r"too few artists of b to keep them apart\.$"):
        make_dataset(features_of(*tracks), artists=[track if track[0] == "a" else "one" for track in tracks])


def test_an_artist_of_too_many_clips_to_be_one_is_named() -> None:
    tracks = [f"{genre}/{number}.wav" for genre in "abc" for number in range(8)]
    about = r"'Okänd' has {} of 24 clips, in {} genres, .*: if that is no artist, leave these cells"

    def artists(known: str) -> list[str]:
        return [track if track[2] in known else "Okänd" for track in tracks]

    notes = make_dataset(features_of(*tracks), artists=artists("01234")).notes
    assert any(re.match(about.format(9, 3), note) for note in notes)
    assert not make_dataset(features_of(*tracks), artists=artists("012345")).notes
    with pytest.raises(DatasetError, match=f"too few artists of a, b, c to keep them apart. {about.format(24, 3)}"):
        make_dataset(features_of(*tracks), artists=artists(""))


def test_songs_of_which_all_but_one_are_there_twice_are_enough() -> None:
    """The one goes to the test part, and pairs are larger than a share of nine clips."""
    tracks = [f"{genre}/{number}.wav" for genre in "ab" for number in range(9)]
    groups = {track: f"{track[:2]}{int(track[2]) // 2}" for track in tracks}
    sounds = {song: np.random.default_rng(n).integers(0, 255, (128, 400)) for n, song in enumerate(groups.values())}
    logmel = np.array([sounds[song] for song in groups.values()], dtype=np.uint8)
    floors, lengths = np.full(len(tracks), -80, np.float32), np.full(len(tracks), 400, np.int32)
    dataset = make_dataset(Features(logmel, floors, np.array(tracks), lengths))
    assert dataset.counts("valid") == {"a": 2, "b": 2}
    assert dataset.counts("train") == {"a": 6, "b": 6}
    assert sorted(dataset.clips("test").features.track_id) == ["a/8.wav", "b/8.wav"]


def test_no_genre_gives_its_last_songs_for_another_to_be_validated() -> None:
    groups = {"a/1": "both", "b/1": "both", "a/2": "x", "a/3": "x", "b/2": "y"}
    parts = {"train": ["a/1", "b/1", "a/2", "a/3"], "valid": ["b/2"], "test": []}
    assert with_validation(parts, groups) == {"train": ["a/1", "b/1"], "valid": ["b/2", "a/2", "a/3"], "test": []}
    alone = {"train": ["a/1", "b/1"], "valid": [], "test": []}
    assert with_validation(alone, groups) == alone


def test_a_split_by_segment_says_that_it_leaks() -> None:
    tracks = [f"{genre}.{number:05}" for genre in ("blues", "jazz") for number in range(20)]
    levels = [np.full((128, 722 + number), number, dtype=np.uint8) for number in range(len(tracks))]
    features = replace(Features.from_levels(levels, tracks), floor_db=-np.arange(40, dtype=np.float32))
    dataset = make_dataset(features, "segments")
    assert "GTZAN by segment of 10 s, which leaks" in dataset.protocol
    assert any("leaks" in warning for warning in dataset.warnings())
    assert sum(map(len, dataset.splits.values())) == len(dataset.features) == 3 * 40
    assert dataset.features.n_frames.min() >= 240
    for track, segment in zip(np.repeat(np.arange(40), 3), range(120), strict=True):
        assert dataset.features.track_id[segment].startswith(tracks[track] + "#")
        assert (dataset.features.logmel[segment, :, :240] == track).all()
        assert dataset.features.floor_db[segment] == -track
    sides = [{track.partition("#")[0] for track in dataset.clips(part).features.track_id} for part in ("train", "test")]
    assert len(sides[0] & sides[1]) > 10


def test_splits_that_are_asked_for() -> None:
    gtzan = [track for part in FAULT_FILTERED.values() for track in part]
    assert make_dataset(features_of(*gtzan), "random").protocol == "random split of GTZAN by track, stratified by genre"
    assert make_dataset(features_of(*gtzan), "fault-filtered").protocol == PROTOCOL
    others = features_of(*(f"{genre}/{number}.wav" for genre in "ab" for number in range(8)))
    with pytest.raises(DatasetError, match="for GTZAN's tracks"):
        make_dataset(others, "fault-filtered")
    with pytest.raises(DatasetError, match="does not ask who the artists are"):
        make_dataset(others, "segments", artists=["x"] * 16)


@pytest.mark.parametrize(
    ("trained_on", "protocol", "split", "heard"),
    [
        (f"{PROTOCOL}: train+valid", PROTOCOL, "valid", True),
        (f"{PROTOCOL}: train+valid", PROTOCOL, "test", False),
        (f"{PROTOCOL}: train+valid", PROTOCOL, "all", True),
        (f"{PROTOCOL}: train+valid", "random split of GTZAN by track, stratified by genre", "test", True),
        ("random split of GTZAN by artist, stratified by genre: train", PROTOCOL, "test", True),
        ("random split by track, stratified by genre: train", PROTOCOL, "test", False),
        (f"{LEAK.format('')}: train", LEAK.format(""), "test", True),
        (f"{PROTOCOL}: train+valid; random split by track, stratified by genre: train", PROTOCOL, "valid", True),
        ("", PROTOCOL, "test", False),
    ],
)
def test_what_a_model_has_heard(trained_on: str, protocol: str, split: str, heard: bool, tiny_model: CRNN) -> None:
    tiny_model.config = replace(tiny_model.config, trained_on=trained_on)
    assert has_heard(tiny_model, protocol, split) == heard


def test_unbalanced_genres_are_counted() -> None:
    tracks = [f"{genre}/{number}.wav" for genre, count in (("rock", 100), ("polka", 20)) for number in range(count)]
    assert make_dataset(features_of(*tracks)).warnings() == [
        "The genres are unbalanced, so that the rare ones will seldom be the answer: 70 rock, 14 polka."
    ]
    assert make_dataset(features_of(*tracks[60:])).warnings() == []


def test_names_of_genres_that_no_model_can_have() -> None:
    with pytest.raises(DatasetError, match=r"No model can have the genre b{65}: .* 1 to 64 characters"):
        make_dataset(features_of("a/1.wav", "a/2.wav", f"{'b' * 65}/1.wav", f"{'b' * 65}/2.wav"))


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


def test_a_genre_that_cannot_be_learned_is_named() -> None:
    test_only = [track for track in FAULT_FILTERED["test"] if track.startswith("blues")]
    tracks = [*FAULT_FILTERED["train"][-40:], *FAULT_FILTERED["valid"], *test_only]
    make_dataset(features_of(*tracks)).check_trainable()
    with pytest.raises(DatasetError, match=r"fault-filtered split of GTZAN has no clip of blues, .*; split otherwise"):
        make_dataset(features_of(*tracks), "fault-filtered").check_trainable()


def test_validation_clips_that_are_all_copies_of_test_clips_are_told() -> None:
    songs = [f"{genre}/{number}.mp3" for genre in ("rock", "ska") for number in range(3)]
    noise = np.random.default_rng(0).integers(0, 255, (2, len(songs), 128, 400), dtype=np.uint8)
    tracks = [f"{part}/{song}" for part in ("train", "valid", "test") for song in songs]
    logmel = np.concatenate([noise[0], noise[1], noise[1]])
    floors, lengths = np.full(len(tracks), -80, np.float32), np.full(len(tracks), 400, np.int32)
    features = Features(logmel, floors, np.array(tracks), lengths)
    with pytest.raises(DatasetError, match=r"no clip to validate on.* --accept copies"):
        make_dataset(features).check_trainable()
    make_dataset(features, accepted=("copies",)).check_trainable()


def test_a_single_clip_measures_nothing() -> None:
    tracks = [*FAULT_FILTERED["train"], FAULT_FILTERED["valid"][0]]
    with pytest.raises(DatasetError, match="a single clip to validate on"):
        make_dataset(features_of(*tracks), "fault-filtered").check_trainable()
