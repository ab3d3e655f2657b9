"""Training data: GTZAN and its fault-filtered split, or any folder of genre folders."""

import csv
import hashlib
import re
import tarfile
from collections import Counter
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import numpy as np
import torch
from huggingface_hub import hf_hub_download
from torchaudio.datasets import gtzan
from tqdm import tqdm

from crnn.audio import SUFFIXES, AudioError, load_audio
from crnn.features import DatasetError, Features, LogMel
from crnn.model import CRNN
from crnn.training import Clips

GENRES = tuple(gtzan.gtzan_genres)
HUB_DATASET = "marsyas/gtzan"
ARCHIVE = "data/genres.tar.gz"
ARCHIVE_SHA256 = "24347e0223d2ba798e0a558c4c172d9d4a19c00bb7963fe055d183dadb4ef2c6"  # of the original, as in torchaudio
GTZAN_TRACK = re.compile(rf"({'|'.join(GENRES)})\.\d{{5}}")
ARCHIVE_MEMBER = re.compile(rf"genres/({'|'.join(GENRES)})/\1\.\d{{5}}\.wav")
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
    """The audio files in a folder of genre folders, by track id; in GTZAN's usual wrappings too.

    Raises DatasetError if there are none.
    """
    if not folder.is_dir():
        raise DatasetError(f"There is no folder {folder}.")
    while inner := next((folder / name for name in LAYOUTS if (folder / name).is_dir()), None):
        folder = inner
    tracks = {}
    for path in sorted(folder.glob("*/*")):
        if path.is_file() and path.suffix.lower() in SUFFIXES and not path.name.startswith("."):
            is_gtzan = GTZAN_TRACK.fullmatch(path.stem) and genre_of(path.stem) == path.parent.name
            tracks[path.stem if is_gtzan else f"{path.parent.name}/{path.name}"] = path
    if not tracks:
        raise DatasetError(f"{folder} has no audio files in genre folders, such as {folder / 'blues' / 'song.mp3'}.")
    return tracks


def extract_features(tracks: dict[str, Path], notice: Callable[[str], None] = print) -> Features:
    """The log-mels of audio files; a file that cannot be decoded is left out with a notice.

    Raises DatasetError if none can be decoded.
    """
    front_end = LogMel()

    def extract(path: Path) -> torch.Tensor | AudioError:
        try:
            return front_end(torch.from_numpy(load_audio(path)))
        except AudioError as error:
            return error

    with ThreadPoolExecutor() as pool:
        results = tqdm(pool.map(extract, tracks.values()), total=len(tracks), unit="clip", desc="log-mels")
        log_mels = dict(zip(tracks, results, strict=True))
    for track, error in log_mels.items():
        if isinstance(error, AudioError):
            notice(f"Left out {track}: {error}")
    log_mels = {track: log_mel for track, log_mel in log_mels.items() if not isinstance(log_mel, AudioError)}
    if not log_mels:
        raise DatasetError("None of the files could be decoded.")
    return Features.from_log_mels(list(log_mels.values()), list(log_mels))


def download_gtzan(folder: Path, notice: Callable[[str], None] = print) -> Path:
    """Fetch GTZAN's archive (1.2 GB) from the Hugging Face Hub and unpack its 1000 clips under `folder`.

    Returns the folder of genre folders. An archive that is not the original is used with a notice. Raises DatasetError
    if it cannot be had or has no clips.
    """
    target = folder / "genres"
    if target.is_dir():
        return target
    try:
        archive = Path(hf_hub_download(HUB_DATASET, ARCHIVE, repo_type="dataset"))
    except Exception as error:  # the client's errors share no base class
        raise DatasetError(
            f"GTZAN could not be downloaded from the Hub ({error.__class__.__name__}); "
            "try again later, or give a copy of your own with --data."
        ) from error
    if sha256_of(archive) != ARCHIVE_SHA256:
        notice(f"{ARCHIVE} is not GTZAN's original archive; going on with what it holds.")
    unpack(archive, target)
    return target


def unpack(archive: Path, target: Path) -> None:
    """Unpack the clips of GTZAN's archive, and nothing else of it: no links, no paths outside, no hidden files."""
    partial = target.with_name(target.name + ".partial")
    try:
        with tarfile.open(archive) as tar:
            for member in tar:
                if member.isfile() and ARCHIVE_MEMBER.fullmatch(member.name):
                    path = partial / PurePosixPath(member.name).relative_to("genres")
                    path.parent.mkdir(parents=True, exist_ok=True)
                    path.write_bytes(tar.extractfile(member).read())
    except (tarfile.TarError, EOFError, OSError) as error:
        raise DatasetError(f"{archive.name} could not be unpacked: {error}.") from error
    if not partial.is_dir():
        raise DatasetError(f"{archive.name} has no clips such as genres/blues/blues.00000.wav in it.")
    partial.replace(target)


def sha256_of(path: Path) -> str:
    """The SHA-256 of a file, in hexadecimal."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()
