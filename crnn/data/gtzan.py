"""Training data and how it is split: GTZAN by its fault-filtered lists, other data by its folders or at random."""

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from torchaudio.datasets import gtzan

from crnn.data.clips import Clips, fingerprints
from crnn.data.copies import copies_of, keep_together
from crnn.data.features import DatasetError, Features
from crnn.data.heard import n_heard
from crnn.data.names import check_genres, genre_of, gtzan_name, own_split
from crnn.data.splits import about_artists, about_commonest, about_copies, random_split, with_validation, without_copies
from crnn.features import n_frames_of
from crnn.network.config import CRNNConfig
from crnn.network.genres import known_as
from crnn.network.model import CRNN

PARTS = ("train", "valid", "test")
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
    notes: tuple[str, ...] = ()  # what is odd about its clips, in sentences
    songs: Features | None = None  # whole, where the clips are segments
    caches: dict = field(default_factory=dict, init=False, compare=False, repr=False)  # of clips, by part and genres

    def warnings(self) -> list[str]:
        """What somebody who trains on this data should know first, in sentences."""
        counts = self.counts("train")
        warnings = list(self.notes)
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
        """Raises DatasetError if the training part lacks a genre, or if there is a single clip to measure on."""
        counts = self.counts("train")
        if missing := ", ".join(genre for genre in self.genres if not counts[genre]):
            raise DatasetError(f"The training part of the {self.protocol} has no clip of {missing}; split otherwise.")
        if not len(self.splits["valid"]):
            raise DatasetError(
                "There is no clip to validate on: take others, or, where those there are copies of songs of the test "
                "part, give --accept copies."
            )
        if len(self.splits["valid"]) == 1:
            raise DatasetError("There is a single clip to validate on, which makes no figures: take two or more.")

    def without(self, part: str) -> "Dataset":
        """The same data with a part of it laid aside."""
        return replace(self, splits={**self.splits, part: self.splits[part][:0]})

    def clips(self, split: str, genres: tuple[str, ...] | None = None) -> Clips:
        """The clips of a part, of several ("train+valid") or of "all", labelled by their position in `genres`.

        The default of `genres` is the data's own; those of a model may be spelled otherwise. Raises DatasetError if
        there are no such clips or a genre is not among `genres`.
        """
        parts = list(self.splits) if split == "all" else split.split("+")
        index = np.concatenate([self.splits[part] for part in parts])
        if not len(index):
            raise DatasetError(f"This data has no {split} part.")
        genres = genres or self.genres
        check_known(self.genres, genres)
        features, names = self.features.select(index), known_as(self.genres, genres)
        labels = np.array([genres.index(names[genre_of(track)]) for track in features.track_id])
        return Clips(features, labels, self.caches.setdefault((split, genres), {}))

    def settings(self) -> dict:
        """What tells it from other data to train on, as JSON can have it. Raises DatasetError as `clips` does."""
        return {"genres": list(self.genres), **fingerprints(self.clips("train"), self.clips("valid"))}

    def is_heard_by(self, model: CRNN, split: str) -> bool:
        """Whether a model was trained on clips of a part, or their songs. Raises DatasetError as `clips` does."""
        clips = self.clips(split).features
        if self.songs:
            songs = [track.rpartition("#")[0] for track in clips.track_id.tolist()]
            clips = self.songs.select(np.flatnonzero(np.isin(self.songs.track_id, songs)))
        return has_heard(model, self.protocol, split, clips)


def has_heard(model: CRNN, protocol: str, split: str, clips: Features | None = None) -> bool:
    """Whether a model was trained on clips of this part of this split, so that its figures there are no test.

    After another split of GTZAN, or one that leaks, this holds for every part. Of other data the model has a record of
    each clip, which tells more than the split does where the part's `clips` are given.
    """
    has_record = clips is not None and bool(model.config.heard)
    if has_record and n_heard(model.config.heard, clips):
        return True
    for past in model.config.trained_on.split("; "):  # of the model that it was made from, too
        trained_protocol, _, parts = past.rpartition(": ")
        if has_record and not ("GTZAN" in trained_protocol or "leaks" in trained_protocol):
            continue
        if trained_protocol == protocol:
            if split == "all" or split in parts.split("+") or "leaks" in protocol:
                return True
        elif "leaks" in trained_protocol or ("GTZAN" in trained_protocol and "GTZAN" in protocol):
            return True
    return False


def make_dataset(
    features: Features,
    split: str | None = None,
    artists: Sequence[str | None] | None = None,
    accepted: Collection[str] = (),
    is_to_train: bool = True,
) -> Dataset:
    """Split features by track: as folders say, GTZAN by its fault-filtered lists, anything else at random by genre.

    `split`, one of SPLITS, overrules that: "segments" cuts the tracks up first and spreads the segments of each over
    all parts, to show how good that looks. `artists` has one name a track, None where it is not known, and all tracks
    of an artist go into the same part of a random split, as do copies of a song (`copies_of`) in any case.

    So few clips of GTZAN that its lists leave a genre without one for training or validation are split at random too,
    unless none of them is for training: a file of the test part alone is there to be measured. The random split depends
    on the names and copies alone, so training and evaluation agree on it. `accepted` has what is not to be refused, of
    `crnn.data.look.ACCEPTABLE`. Raises DatasetError if their names are none of genres, the data cannot be split so or,
    where it `is_to_train`, there are not two genres with two clips each, or too few to have them in all parts.
    """
    tracks = features.track_id.tolist()
    genres = checked_genres(tracks, accepted, is_to_train)
    check_split(tracks, split, artists)
    is_gtzan = all(map(gtzan_name, tracks))
    of_gtzan = " of GTZAN" if is_gtzan else ""
    if split == "segments":
        segments = cut_into_segments(features)
        parts = random_split(segments.track_id.tolist())
        return Dataset(segments, genres, _indices(segments, parts), LEAK.format(of_gtzan), songs=features)

    copies = copies_of(features)
    names = [artist or track for artist, track in zip(artists or tracks, tracks, strict=True)]
    groups = dict(zip(tracks, keep_together(names, copies), strict=True))
    song_of = dict(zip(tracks, copies.tolist(), strict=True))
    if split is None and (own := own_split(tracks)):
        parts = own if "copies" in accepted else without_copies(own, song_of)
        protocol = f"own split{of_gtzan} by folders, {' and '.join(part for part in PARTS if part in own)}"
        if "train" in own and "valid" not in own:
            drawn = random_split(parts["train"], groups, bool(artists), test_share=0.0)
            parts = {**parts, "train": drawn["train"], "valid": drawn["valid"]}
            protocol += ", validation at random from train, stratified by genre"
    elif is_gtzan and not artists and split != "random" and (split or _fits_the_lists(list(map(gtzan_name, tracks)))):
        track_of = {gtzan_name(track): track for track in tracks}
        parts = {part: [track_of[name] for name in names if name in track_of] for part, names in FAULT_FILTERED.items()}
        protocol = PROTOCOL
    else:
        parts = with_validation(random_split(tracks, groups, bool(artists)), groups)
        protocol = f"random split{of_gtzan} by {'artist' if artists else 'track'}, stratified by genre"
        for part in NEEDED if is_to_train else ():
            if missing := sorted(set(genres) - set(map(genre_of, parts[part]))):
                kind = "artists" if artists else "different songs"
                why = f"There are too few {kind} of {', '.join(missing)} to keep them apart."
                raise DatasetError(" ".join([why, *about_commonest(tracks, artists)]))
    notes = (*about_artists(tracks, artists, parts), *about_copies(song_of, parts))
    return Dataset(features, genres, _indices(features, parts), protocol, notes)


def check_split(tracks: Sequence[str], split: str | None, artists: Sequence[str | None] | None) -> None:
    """Raises DatasetError where tracks of these names cannot be split so; the arguments are those of `make_dataset`."""
    if artists and split not in (None, "random"):
        raise DatasetError(f"The {split} split does not ask who the artists are; leave out them or it.")
    if split == "fault-filtered" and not all(map(gtzan_name, tracks)):
        raise DatasetError("The fault-filtered split is for GTZAN's tracks, such as blues.00000; this data has others.")


def check_known(genres: Collection[str], known: Sequence[str]) -> None:
    """Raises DatasetError if a genre of the data is not among those that a model knows."""
    if unknown := sorted(set(genres) - known_as(genres, known).keys()):
        raise DatasetError(f"The model knows {', '.join(known)}, but the data has {', '.join(unknown)} too.")


def _indices(features: Features, parts: Mapping[str, Sequence[str]]) -> dict[str, np.ndarray]:
    """Where the tracks of each part are."""
    position = {track: index for index, track in enumerate(features.track_id.tolist())}
    return {part: np.array([position[track] for track in parts.get(part, [])], dtype=np.int64) for part in PARTS}


def checked_genres(tracks: list[str], accepted: Collection[str], is_to_train: bool = True) -> tuple[str, ...]:
    """The genres of tracks.

    Raises DatasetError where no model can have them or, if one `is_to_train`, learn to tell them apart.
    """
    counts = Counter(map(genre_of, tracks))
    check_genres(counts, accepted)
    if not is_to_train:
        return tuple(sorted(counts))
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


def cut_into_segments(features: Features) -> Features:
    """All tracks in equal parts of about SEGMENT_SECONDS, named after them: "blues.00000#1"."""
    counts = np.maximum(1, np.round(features.n_frames / n_frames_of(SEGMENT_SECONDS)).astype(int))
    levels, names = [], []
    for track, row, n_frames, count in zip(features.track_id, features.logmel, features.n_frames, counts, strict=True):
        levels += np.split(row[:, :n_frames], np.linspace(0, n_frames, count + 1).astype(int)[1:-1], axis=1)
        names += [f"{track}#{number}" for number in range(1, count + 1)]
    return replace(Features.from_levels(levels, names), floor_db=np.repeat(features.floor_db, counts))
