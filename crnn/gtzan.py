"""Training data: GTZAN and its fault-filtered split, or any folder of genre folders."""

import csv
import hashlib
import re
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from torchaudio.datasets import gtzan

from crnn.audio import SUFFIXES
from crnn.features import DatasetError, Features
from crnn.model import CRNN
from crnn.training import Clips

GENRES = tuple(gtzan.gtzan_genres)
GTZAN_TRACK = re.compile(rf"({'|'.join(GENRES)})\.\d{{5}}")
LAYOUTS = ("genres", "genres_original", "Data")  # the folders that copies of GTZAN put around the genre folders
VALID_SHARE = TEST_SHARE = 0.15
NEEDED = ("train", "valid")  # the parts that training cannot do without

# The parts of the fault-filtered split: no repetitions, distortions or wrong labels, artists mostly kept apart
# (Sturm 2013, arXiv:1306.1461; Kereliuk, Sturm and Larsen 2015).
FAULT_FILTERED = {"train": gtzan.filtered_train, "valid": gtzan.filtered_valid, "test": gtzan.filtered_test}
PROTOCOL = "fault-filtered split of GTZAN"


@dataclass(frozen=True)
class Dataset:
    """Clips of genres, and which of them are for training, for validation and for testing."""

    features: Features
    genres: tuple[str, ...]
    splits: dict[str, np.ndarray]  # "train", "valid", "test": indices of tracks
    protocol: str  # how it was split, in words

    def clips(self, split: str, genres: tuple[str, ...] | None = None) -> Clips:
        """The clips of a part, of several ("train+valid") or of "all", labelled by their position in `genres`.

        The default of `genres` is the data's own. Raises DatasetError if there are no such clips or a genre is not
        among `genres`.
        """
        parts = list(self.splits) if split == "all" else split.split("+")
        index = np.concatenate([self.splits[part] for part in parts])
        if not len(index):
            raise DatasetError(f"This data has no {split} part.")
        genres = genres or self.genres
        unknown = sorted(set(self.genres) - set(genres))
        if unknown:
            raise DatasetError(f"The model knows {', '.join(genres)}, but the data has {', '.join(unknown)} too.")
        features = self.features.select(index)
        return Clips(features, np.array([genres.index(genre_of(track)) for track in features.track_id]))


def has_heard(model: CRNN, protocol: str, split: str) -> bool:
    """Whether a model was trained on clips of this part of this split, so that its figures there are no test."""
    trained_protocol, _, parts = model.config.trained_on.partition(": ")
    return trained_protocol == protocol and (split == "all" or split in parts.split("+"))


def genre_of(track_id: str) -> str:
    """The genre of a track: "blues" of GTZAN's "blues.00000" and of any other folder's "blues/song.mp3"."""
    return track_id.partition("/")[0] if "/" in track_id else track_id.partition(".")[0]


def read_artists(path: Path, track_ids: Iterable[str]) -> list[str]:
    """The artist of each track, from a CSV with the columns track_id and artist; unknown ones count as one artist each.

    Raises DatasetError if the file is missing or has other columns, or knows the artist of none of the tracks.
    """
    try:
        with path.open(newline="", encoding="utf-8") as file:
            artists = {row["track_id"]: row["artist"] for row in csv.DictReader(file)}
    except OSError as error:
        raise DatasetError(f"{path} cannot be read: {error.strerror}.") from error
    except (KeyError, csv.Error, UnicodeDecodeError) as error:
        raise DatasetError(f"{path} is not a CSV with the columns track_id and artist.") from error
    track_ids = list(track_ids)
    if not any(artists.get(track) for track in track_ids):
        raise DatasetError(f"{path} names the artist of none of these tracks, such as {track_ids[0]}.")
    return [artists.get(track) or f"unknown artist of {track}" for track in track_ids]


def make_dataset(features: Features) -> Dataset:
    """Split features by track: GTZAN by its fault-filtered lists, anything else at random within each genre.

    So few clips of GTZAN that its lists leave a genre without one for training or validation are split at random too,
    unless none of them is for training: a file of the test part alone is there to be measured. The random split depends
    on the names alone, so training and evaluation agree on it. Raises DatasetError if there are not at least two genres
    with two clips each.
    """
    tracks = features.track_id.tolist()
    counts = Counter(map(genre_of, tracks))
    few = sorted(genre for genre, count in counts.items() if count < 2)
    if len(counts) < 2 or few:
        found = f"only one clip of {', '.join(few)}" if few else f"only {', '.join(counts)}"
        raise DatasetError(f"Training needs at least two genres with two clips each; this data has {found}.")
    position = {track: index for index, track in enumerate(tracks)}
    listed = {
        part: {genre_of(track) for track in members if track in position} for part, members in FAULT_FILTERED.items()
    }
    is_trainable = all(listed[part] == set(counts) for part in NEEDED)
    is_for_measuring = not listed["train"] and any(listed.values())
    if all(map(GTZAN_TRACK.fullmatch, tracks)) and (is_trainable or is_for_measuring):
        parts, protocol = FAULT_FILTERED, PROTOCOL
    else:
        parts, protocol = random_split(tracks), "random split by track, stratified by genre"
    splits = {
        part: np.array([position[track] for track in members if track in position], dtype=np.int64)
        for part, members in parts.items()
    }
    return Dataset(features, tuple(sorted(counts)), splits, protocol)


def random_split(tracks: Iterable[str]) -> dict[str, list[str]]:
    """About 70 % of each genre's tracks for training, 15 % for validation, 15 % for testing (none of less than 7)."""
    by_genre: dict[str, list[str]] = {}
    for track in sorted(tracks, key=lambda track: hashlib.sha256(track.encode()).digest()):
        by_genre.setdefault(genre_of(track), []).append(track)
    parts: dict[str, list[str]] = {"train": [], "valid": [], "test": []}
    for members in by_genre.values():
        n_test = int(TEST_SHARE * len(members))
        n_valid = max(1, round(VALID_SHARE * len(members)))
        parts["test"] += members[:n_test]
        parts["valid"] += members[n_test : n_test + n_valid]
        parts["train"] += members[n_test + n_valid :]
    return parts


def find_tracks(folder: Path) -> dict[str, Path]:
    """The audio files in a folder of genre folders and in the folders inside these, by track id.

    GTZAN is found wherever it lies in the folder, up to four levels down. Raises DatasetError if there are no files.
    """
    if not folder.is_dir():
        raise DatasetError(f"There is no folder {folder}.")
    folder = _genre_folders(folder)
    tracks = {}
    for path in sorted(folder.glob("*/**/*")):
        name = path.relative_to(folder)
        if path.suffix.lower() in SUFFIXES and path.is_file() and not any(part.startswith(".") for part in name.parts):
            tracks[path.stem if _is_gtzan_clip(path) else name.as_posix()] = path
    if not tracks:
        raise DatasetError(f"{folder} has no audio files in genre folders, such as {folder / 'blues' / 'song.mp3'}.")
    return tracks


def _genre_folders(folder: Path) -> Path:
    """The folder of genre folders that is meant by a folder that may be around it."""
    for level in ("", "*/", "*/*/", "*/*/*/"):
        if clip := next(filter(_is_gtzan_clip, sorted(folder.glob(f"{level}*/*.[0-9][0-9][0-9][0-9][0-9].*"))), None):
            return clip.parent.parent
    while inner := next((folder / name for name in LAYOUTS if (folder / name).is_dir()), None):
        folder = inner
    return folder


def _is_gtzan_clip(path: Path) -> bool:
    """Whether a file is named and placed like one of GTZAN: blues/blues.00000.wav."""
    is_track = GTZAN_TRACK.fullmatch(path.stem) and genre_of(path.stem) == path.parent.name
    return bool(is_track) and path.suffix.lower() in SUFFIXES
