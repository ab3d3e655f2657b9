"""Copies of songs are known by their sound, and nothing else is taken for one."""

from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
import torch

from crnn.audio import SAMPLE_RATE, load_audio
from crnn.data.copies import copies_of, keep_together
from crnn.data.features import DatasetError, Features
from crnn.data.gtzan import make_dataset
from crnn.features import LogMel


def music(seconds: float, seed: int) -> np.ndarray:
    """Notes and hits at times of their own, (samples,)."""
    random = np.random.default_rng(seed)
    samples = np.zeros(round(seconds * SAMPLE_RATE))
    for start in np.cumsum(random.uniform(0.05, 0.6, round(4 * seconds))):
        t = np.arange(SAMPLE_RATE // 2) / SAMPLE_RATE
        note = np.sin(2 * np.pi * random.uniform(80, 3_000) * t) * np.exp(-t * random.uniform(2, 20))
        note = note + 0.3 * random.normal(size=len(t)) * np.exp(-40 * t)
        place = samples[round(start * SAMPLE_RATE) :][: len(note)]
        place += random.uniform(0.2, 1) * note[: len(place)]
    return (0.5 * samples / np.abs(samples).max()).astype(np.float32)


def encoded(path: Path, waveform: np.ndarray, codec: str, bit_rate: int) -> np.ndarray:
    """The sound after a codec at 48 kHz."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=48_000, layout="mono")
        stream.bit_rate = bit_rate
        frame = av.AudioFrame.from_ndarray(waveform[None], format="fltp", layout="mono")
        frame.sample_rate, frame.time_base = SAMPLE_RATE, Fraction(1, SAMPLE_RATE)
        resampler = av.AudioResampler(format=stream.codec_context.format, layout="mono", rate=48_000)
        for part in (*resampler.resample(frame), *resampler.resample(None)):
            container.mux(stream.encode(part))
        container.mux(stream.encode(None))
    return load_audio(path)


def features_of(waveforms: dict[str, np.ndarray]) -> Features:
    front_end = LogMel()
    return Features.from_log_mels([front_end(torch.from_numpy(wave)) for wave in waveforms.values()], list(waveforms))


def test_copies_are_found_however_they_were_made(tmp_path: Path) -> None:
    song = music(14, 0)
    copies = {
        "a/song.wav": song,
        "a/song (1).wav": song.copy(),
        "a/quieter": 0.1 * song,
        "a/later": song[SAMPLE_RATE:],
        "b/mp3": encoded(tmp_path / "a.mp3", song, "libmp3lame", 64_000),
        "b/opus": encoded(tmp_path / "a.opus", song, "libopus", 48_000),
        "b/aac": encoded(tmp_path / "a.m4a", song, "aac", 96_000),
    }
    others = {f"c/{seed}": music(14, seed) for seed in range(1, 9)}
    songs = copies_of(features_of({**copies, **others}))
    assert len(set(songs[: len(copies)])) == 1
    assert len(set(songs)) == 1 + len(others)


def test_sounds_without_a_course_are_copies_only_if_they_are_equal() -> None:
    """Noise is like noise, a hum like a hum, silence like silence: none is a copy for that."""
    random, t = np.random.default_rng(0), np.arange(12 * SAMPLE_RATE) / SAMPLE_RATE
    hums = [(0.3 * np.sin(2 * np.pi * hz * t)).astype(np.float32) for hz in (80, 85, 90)]
    noises = [random.normal(0, 0.1, len(t)).astype(np.float32) for _ in range(3)]
    features = features_of({f"a/{n}": wave for n, wave in enumerate([*hums, *noises, hums[0], noises[0]])})
    songs = copies_of(features).tolist()
    assert songs[6:] == [songs[0], songs[3]]
    assert len(set(songs)) == 6
    silence = Features.from_levels([np.zeros((128, 300), dtype=np.uint8)] * 2, ["a/1", "a/2"])
    assert len(set(copies_of(silence))) == 2


def test_short_clips_have_to_be_equal() -> None:
    """Two bars of one beat are soon alike."""
    loop = music(3, 0)
    hit = loop + 0.05 * music(3, 1)
    songs = copies_of(features_of({"a/1": loop, "a/2": hit, "a/3": loop.copy()}))
    assert songs[0] == songs[2] != songs[1]


def test_groups_hold_artists_and_copies_together() -> None:
    names = ["Ann", "Ann", "Ben", "d", "e"]
    assert keep_together(names, np.array([0, 1, 1, 2, 3])) == ["Ann", "Ann", "Ann", "d", "e"]
    assert keep_together(names, np.arange(5)) == names


def levels(seed: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (128, 60)).astype(np.uint8)


def dataset_of(tracks: dict[str, int]) -> Features:
    return Features.from_levels([levels(seed) for seed in tracks.values()], list(tracks))


def test_copies_stay_in_one_part_and_are_counted() -> None:
    tracks = {
        f"{genre}/{n} ({copy})": 100 * number + n
        for number, genre in enumerate("ab")
        for n in range(12)
        for copy in range(3)
    }
    dataset = make_dataset(dataset_of(tracks))
    for one, other in (("train", "valid"), ("train", "test"), ("valid", "test")):
        songs = [{tracks[track] for track in dataset.clips(part).features.track_id} for part in (one, other)]
        assert all(songs)
        assert not songs[0] & songs[1]
    assert [warning for warning in dataset.warnings() if "copies" in warning] == [
        "48 of 72 clips are copies of others by the sound, such as 'a/0 (1)' of 'a/0 (0)'; all copies of a song are in "
        "one part."
    ]


def test_one_song_in_two_genres_is_named() -> None:
    tracks = {f"{genre}/{n}": 100 * number + n for number, genre in enumerate("ab") for n in range(8)} | {"b/again": 3}
    dataset = make_dataset(dataset_of(tracks))
    assert "One song is in more than one genre, which teaches all of them: 'a/3' and 'b/again'." in dataset.notes
    where = [
        part
        for part, index in dataset.splits.items()
        for track in dataset.features.track_id[index]
        if tracks[track] == 3
    ]
    assert len(where) == 2
    assert len(set(where)) == 1


def test_clips_that_are_all_copies_of_one_are_too_few() -> None:
    with pytest.raises(DatasetError, match="too few different songs of b to keep them apart"):
        make_dataset(dataset_of({"a/1": 1, "a/2": 2, "a/3": 3, "b/1": 9, "b/2": 9, "b/3": 9}))


def test_a_split_of_folders_is_used_without_what_would_leak() -> None:
    tracks = {f"train/{genre}/{n}": 100 * g + n for g, genre in enumerate("ab") for n in range(10)}
    tracks |= {f"test/{genre}/{n}": 100 * g + n for g, genre in enumerate("ab") for n in range(9, 13)}
    dataset = make_dataset(dataset_of(tracks))
    assert dataset.genres == ("a", "b")
    assert dataset.protocol == (
        "own split by folders, train and test, validation at random from train, stratified by genre"
    )
    assert {part: len(index) for part, index in dataset.splits.items()} == {"train": 16, "valid": 2, "test": 8}
    assert sorted(dataset.clips("test").features.track_id) == sorted(
        track for track in tracks if track.startswith("test")
    )
    assert any("2 of these copies are left out" in note for note in dataset.notes)
    kept = make_dataset(dataset_of(tracks), accepted=["copies"])
    assert sum(map(len, kept.splits.values())) == 28
    assert any("2 songs are in more than one part" in note for note in kept.notes)
    assert make_dataset(dataset_of(tracks), "random").protocol == "random split by track, stratified by genre"


def test_a_whole_split_of_folders_is_used_as_it_is() -> None:
    names = {"training": "train", "val": "valid", "testing": "test"}
    tracks = {
        f"{name}/{genre}/{n}": 1_000 * len(name) + 100 * ord(genre) + n
        for name in names
        for genre in "ab"
        for n in range(3)
    }
    dataset = make_dataset(dataset_of(tracks))
    assert dataset.protocol == "own split by folders, train and valid and test"
    for name, part in names.items():
        assert {track.split("/")[0] for track in dataset.clips(part).features.track_id} == {name}


def test_artists_on_both_sides_of_a_split_of_folders_are_counted() -> None:
    tracks = {
        f"{part}/{genre}/{n}": 100 * g + 10 * p + n
        for p, part in enumerate(("train", "test"))
        for g, genre in enumerate("ab")
        for n in range(4)
    }
    artists = [f"{track[-3]} {int(track[-1]) // 2}" if track[-1] != "3" else None for track in tracks]
    notes = make_dataset(dataset_of(tracks), artists=artists).notes
    assert any("The artists of 12 of 16 clips are known" in note for note in notes)
    assert any("4 artists are in more than one part" in note for note in notes)
