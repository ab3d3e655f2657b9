"""Finding, fetching and splitting training data."""

import hashlib
import io
import tarfile
from pathlib import Path

import numpy as np
import pytest
import soundfile

from crnn import gtzan
from crnn.features import SAMPLE_RATE, DatasetError, Features
from crnn.gtzan import (
    FAULT_FILTERED,
    GENRES,
    download_gtzan,
    extract_features,
    find_tracks,
    genre_of,
    make_dataset,
    random_split,
    sha256_of,
    unpack,
)


def features_of(*tracks: str) -> Features:
    logmel = np.zeros((len(tracks), 128, 30), dtype=np.uint8)
    lengths = np.full(len(tracks), 30, dtype=np.int32)
    return Features(logmel, np.full(len(tracks), -80, dtype=np.float32), np.array(tracks), lengths)


def write_clip(path: Path, seconds: float = 1.5) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    samples = np.random.default_rng(0).normal(0, 0.1, round(seconds * SAMPLE_RATE))
    soundfile.write(path, samples, SAMPLE_RATE)


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


@pytest.mark.parametrize("layout", ["", "genres", "genres_original", "Data/genres_original"])
def test_find_tracks_in_the_usual_layouts(layout: str, tmp_path: Path) -> None:
    root = tmp_path / layout
    for name in ("blues/blues.00000.wav", "blues/My Song.MP3", "rock/rock.00001.au"):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()
    for name in ("blues/._blues.00000.wav", "blues/cover.jpg", "README.txt"):
        (root / name).touch()
    assert list(find_tracks(tmp_path)) == ["blues/My Song.MP3", "blues.00000", "rock.00001"]


def test_find_tracks_without_any(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match="no audio files in genre folders"):
        find_tracks(tmp_path)
    with pytest.raises(DatasetError, match="There is no folder"):
        find_tracks(tmp_path / "nowhere")


def test_extraction_leaves_out_what_cannot_be_decoded(tmp_path: Path) -> None:
    write_clip(tmp_path / "blues" / "blues.00000.wav", 1.5)
    write_clip(tmp_path / "rock" / "long.flac", 4)
    (tmp_path / "rock" / "broken.wav").write_bytes(b"not audio")
    notices: list[str] = []
    features = extract_features(find_tracks(tmp_path), notices.append)
    assert features.track_id.tolist() == ["blues.00000", "rock/long.flac"]
    assert features.n_frames.tolist() == [1 + int(1.5 * SAMPLE_RATE) // 914, 1 + 4 * SAMPLE_RATE // 914]
    assert len(notices) == 1
    assert notices[0].startswith("Left out rock/broken.wav: ")


def test_nothing_decodable(tmp_path: Path) -> None:
    (tmp_path / "rock").mkdir()
    (tmp_path / "rock" / "broken.wav").write_bytes(b"not audio")
    with pytest.raises(DatasetError, match="None of the files"):
        extract_features(find_tracks(tmp_path), lambda text: None)


@pytest.fixture
def archive(tmp_path: Path) -> Path:
    """A small archive like GTZAN's, with what has no business in it."""
    path = tmp_path / "genres.tar.gz"
    with tarfile.open(path, "w:gz") as tar:

        def add(name: str, content: bytes = b"RIFF", **attributes: object) -> None:
            info = tarfile.TarInfo(name)
            info.size = len(content)
            for key, value in attributes.items():
                setattr(info, key, value)
            tar.addfile(info, io.BytesIO(content))

        add("genres/blues/blues.00000.wav", b"blue")
        add("genres/rock/rock.00001.wav", b"rock")
        add("genres/blues/._blues.00000.wav")
        add("genres/rock/blues.00003.wav")
        add("genres/blues/blues.00002.wav", b"", type=tarfile.SYMTYPE, linkname="/etc/passwd")
        add("../blues/blues.00004.wav")
        add("/genres/blues/blues.00005.wav")
        add("genres/blues/../../../blues.00006.wav")
        add("genres/bextract_single.mf")
    return path


def test_unpack_takes_the_clips_and_nothing_else(archive: Path, tmp_path: Path) -> None:
    unpack(archive, tmp_path / "data" / "genres")
    files = {path.relative_to(tmp_path).as_posix(): path.read_bytes() for path in tmp_path.rglob("*.wav")}
    assert files == {"data/genres/blues/blues.00000.wav": b"blue", "data/genres/rock/rock.00001.wav": b"rock"}
    assert not list(tmp_path.rglob("*.partial"))


def test_cut_archive_leaves_no_folder_that_looks_whole(archive: Path, tmp_path: Path) -> None:
    archive.write_bytes(archive.read_bytes()[:150])
    with pytest.raises(DatasetError, match="could not be unpacked"):
        unpack(archive, tmp_path / "genres")
    assert not (tmp_path / "genres").exists()


def test_archive_without_clips(tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "other.tar.gz", "w:gz"):
        pass
    with pytest.raises(DatasetError, match="has no clips"):
        unpack(tmp_path / "other.tar.gz", tmp_path / "genres")


def test_download_unpacks_once_and_tells_of_another_archive(
    archive: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[tuple] = []

    def hub(*args: str, **kwargs: str) -> str:
        asked.append((*args, kwargs["repo_type"]))
        return str(archive)

    monkeypatch.setattr(gtzan, "hf_hub_download", hub)
    notices: list[str] = []
    folder = download_gtzan(tmp_path / "data", notices.append)
    assert len(find_tracks(folder)) == 2
    assert asked == [("marsyas/gtzan", "data/genres.tar.gz", "dataset")]
    assert len(notices) == 1
    assert "not GTZAN's original archive" in notices[0]
    assert download_gtzan(tmp_path / "data", notices.append) == folder
    assert len(asked) == len(notices) == 1

    monkeypatch.setattr(gtzan, "ARCHIVE_SHA256", sha256_of(archive))
    download_gtzan(tmp_path / "again", notices.append)
    assert len(notices) == 1


def test_hub_out_of_reach(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def hub(*args: str, **kwargs: str) -> str:
        raise ConnectionError("no route")

    monkeypatch.setattr(gtzan, "hf_hub_download", hub)
    with pytest.raises(DatasetError, match=r"could not be downloaded .* --data"):
        download_gtzan(tmp_path)


def test_sha256(tmp_path: Path) -> None:
    content = bytes(range(256)) * 9000
    (tmp_path / "x").write_bytes(content)
    assert sha256_of(tmp_path / "x") == hashlib.sha256(content).hexdigest()
