"""Training data: GTZAN and its fault-filtered split, or any folder of genre folders."""

import csv
import hashlib
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from torchaudio.datasets import gtzan

from crnn.audio import SUFFIXES
from crnn.data.clips import Clips
from crnn.features import DatasetError, Features, n_frames_of
from crnn.network.model import CRNN, CRNNConfig

GENRES = tuple(gtzan.gtzan_genres)
GTZAN_TRACK = re.compile(rf"({'|'.join(GENRES)})\.\d{{5}}")
LAYOUTS = ("genres", "genres_original", "Data")  # the folders that copies of GTZAN put around the genre folders
VALID_SHARE = TEST_SHARE = 0.15
NEEDED = ("train", "valid")  # the parts that training cannot do without

# The parts of the fault-filtered split: no repetitions, distortions or wrong labels, artists mostly kept apart
# (Sturm 2013, arXiv:1306.1461; Kereliuk, Sturm and Larsen 2015).
FAULT_FILTERED = {"train": gtzan.filtered_train, "valid": gtzan.filtered_valid, "test": gtzan.filtered_test}
PROTOCOL = "fault-filtered split of GTZAN"
SPLITS = ("fault-filtered", "random", "segments")
SEGMENT_SECONDS = 10.0  # the window of the network
LEAK = (
    f"random split{{}} by segment of {SEGMENT_SECONDS:g} s, which leaks (segments of one track are in all parts, "
    "so that the figures say nothing about other songs)"
)
UNBALANCED = 3  # times as many clips of one genre as of another


@dataclass(frozen=True)
class Dataset:
    """Clips of genres, and which of them are for training, for validation and for testing."""

    features: Features
    genres: tuple[str, ...]
    splits: dict[str, np.ndarray]  # "train", "valid", "test": indices of tracks
    protocol: str  # how it was split, in words

    def warnings(self) -> list[str]:
        """What somebody who trains on this data should know first, in sentences."""
        counts = self.counts("train")
        warnings = []
        if counts and max(counts.values()) > UNBALANCED * min(counts.values()):
            each = ", ".join(f"{count} {genre}" for genre, count in counts.most_common())
            warnings.append(f"The genres are unbalanced, so that the rare ones will seldom be the answer: {each}.")
        if "leaks" in self.protocol:
            warnings.append(f"This is a {self.protocol}; use it for nothing but to show that.")
        return warnings

    def counts(self, part: str) -> Counter[str]:
        """How many clips of each genre a part has; those that it lacks are not among them."""
        return Counter(map(genre_of, self.features.track_id[self.splits[part]].tolist()))

    def check_trainable(self) -> None:
        """Raises DatasetError if the training part lacks a genre, which no model could learn from it."""
        counts = self.counts("train")
        if missing := ", ".join(genre for genre in self.genres if not counts[genre]):
            raise DatasetError(f"The training part of the {self.protocol} has no clip of {missing}; split otherwise.")

    def without(self, part: str) -> "Dataset":
        """The same data with a part of it laid aside."""
        return replace(self, splits={**self.splits, part: self.splits[part][:0]})

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
    """Whether a model was trained on clips of this part of this split, so that its figures there are no test.

    After another split of GTZAN, or one that leaks, this holds for every part.
    """
    for past in model.config.trained_on.split("; "):  # of the model that it was made from, too
        trained_protocol, _, parts = past.rpartition(": ")
        if trained_protocol == protocol:
            if split == "all" or split in parts.split("+") or "leaks" in protocol:
                return True
        elif "GTZAN" in trained_protocol and "GTZAN" in protocol:
            return True
    return False


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


def make_dataset(features: Features, split: str | None = None, artists: Sequence[str] | None = None) -> Dataset:
    """Split features by track: GTZAN by its fault-filtered lists, anything else at random within each genre.

    `split`, one of SPLITS, overrules that: "segments" cuts the tracks up first and spreads the segments of each over
    all parts, to show how good that looks. `artists` has one name a track, and all tracks of an artist go into the same
    part of a random split.

    So few clips of GTZAN that its lists leave a genre without one for training or validation are split at random too,
    unless none of them is for training: a file of the test part alone is there to be measured. The random split depends
    on the names alone, so training and evaluation agree on it. Raises DatasetError if there are not at least two genres
    with two clips each, or the data cannot be split so.
    """
    tracks = features.track_id.tolist()
    genres = _checked_genres(tracks)
    if artists and split not in (None, "random"):
        raise DatasetError(f"The {split} split does not ask who the artists are; leave out them or it.")

    is_gtzan = all(map(GTZAN_TRACK.fullmatch, tracks))
    if split == "fault-filtered" and not is_gtzan:
        raise DatasetError("The fault-filtered split is for GTZAN's tracks, such as blues.00000; this data has others.")
    of_gtzan = " of GTZAN" if is_gtzan else ""
    if split == "segments":
        features = cut_into_segments(features)
        parts, protocol = random_split(features.track_id.tolist()), LEAK.format(of_gtzan)
    elif artists:
        parts, protocol = random_split(tracks, artists), f"random split{of_gtzan} by artist, stratified by genre"
        for part in NEEDED:
            if missing := sorted(set(genres) - set(map(genre_of, parts[part]))):
                raise DatasetError(f"There are too few artists of {', '.join(missing)} to keep them apart.")
    elif is_gtzan and split != "random" and (split or _fits_the_lists(tracks)):
        parts, protocol = FAULT_FILTERED, PROTOCOL
    else:
        parts, protocol = random_split(tracks), f"random split{of_gtzan} by track, stratified by genre"
    position = {track: index for index, track in enumerate(features.track_id.tolist())}
    splits = {
        part: np.array([position[track] for track in members if track in position], dtype=np.int64)
        for part, members in parts.items()
    }
    return Dataset(features, genres, splits, protocol)


def _checked_genres(tracks: list[str]) -> tuple[str, ...]:
    """The genres of tracks. Raises DatasetError where no model can be trained to tell them apart."""
    counts = Counter(map(genre_of, tracks))
    few = sorted(genre for genre, count in counts.items() if count < 2)
    if len(counts) < 2 or few:
        found = f"only one clip of {', '.join(few)}" if few else f"only {', '.join(counts)}"
        raise DatasetError(f"Training needs at least two genres with two clips each; this data has {found}.")
    genres = tuple(sorted(counts))
    try:
        CRNNConfig(genres=genres)
    except ValueError as error:
        raise DatasetError(f"No model can have the genres of this data: {error}.") from error
    return genres


def _fits_the_lists(tracks: list[str]) -> bool:
    """Whether the fault-filtered lists leave tracks of every genre to train and validate with, or only to measure."""
    listed = {
        part: {genre_of(track) for track in set(members).intersection(tracks)}
        for part, members in FAULT_FILTERED.items()
    }
    is_trainable = all(listed[part] == set(map(genre_of, tracks)) for part in NEEDED)
    return is_trainable or (not listed["train"] and any(listed.values()))


def random_split(tracks: Iterable[str], artists: Sequence[str] | None = None) -> dict[str, list[str]]:
    """About 70 % of each genre's tracks for training, 15 % for validation, 15 % for testing (none of less than 7).

    With the artist of each track, artists stay whole, and validation comes before testing where they are few.
    """
    tracks = list(tracks)
    by_genre: dict[str, dict[str, list[str]]] = {}
    named = sorted(zip(artists or tracks, tracks, strict=True), key=lambda names: [*map(_lot, names)])
    for artist, track in named:
        by_genre.setdefault(genre_of(track), {}).setdefault(artist, []).append(track)
    parts: dict[str, list[str]] = {"train": [], "valid": [], "test": []}
    order = ("valid", "test") if artists else ("test", "valid")
    part_of: dict[str, str] = {}  # artist: part, in all genres
    for by_artist in by_genre.values():
        sizes = [len(members) for members in by_artist.values()]
        room = {"test": int(TEST_SHARE * sum(sizes)), "valid": max(round(VALID_SHARE * sum(sizes)), min(sizes))}
        for artist, members in by_artist.items():
            fitting = (part for part in order if len(members) <= room[part])
            part = part_of.setdefault(artist, next(fitting, "train"))
            parts[part] += members
            if part in room:
                room[part] -= len(members)
    return parts


def _lot(name: str) -> bytes:
    """A random place in an order, always the same for a name."""
    return hashlib.sha256(name.encode()).digest()


def cut_into_segments(features: Features) -> Features:
    """All tracks in equal parts of about SEGMENT_SECONDS, named after them: "blues.00000#1"."""
    counts = np.maximum(1, np.round(features.n_frames / n_frames_of(SEGMENT_SECONDS)).astype(int))
    levels, names = [], []
    for track, row, n_frames, count in zip(features.track_id, features.logmel, features.n_frames, counts, strict=True):
        levels += np.split(row[:, :n_frames], np.linspace(0, n_frames, count + 1).astype(int)[1:-1], axis=1)
        names += [f"{track}#{number}" for number in range(1, count + 1)]
    return replace(Features.from_levels(levels, names), floor_db=np.repeat(features.floor_db, counts))


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
