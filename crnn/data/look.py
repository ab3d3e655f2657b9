"""A look at a folder of training data before anything is decoded: what is there, and what would teach nonsense."""

import os
import re
from collections import Counter
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from itertools import chain, count
from pathlib import Path

from crnn.data.features import DatasetError
from crnn.data.names import (
    GTZAN_TRACK,
    as_text,
    check_folders,
    check_genres,
    genre_of,
    gtzan_name,
    in_its_part,
    listed,
    lost_places,
    own_split,
    part_of_folder,
)
from crnn.walk import Walk, is_folder, is_hidden_folder

LAYOUTS = ("genres", "genres_original", "Data")  # the folders that copies of GTZAN put around the genre folders
ACCEPTABLE = {  # what stops a training unless it is accepted, and what happens then
    "empty": "genres without clips, or of which nothing decodes, are left out",
    "alike": "folders that hold the same folders, or are named like parts of the same genre, are genres",
    "numbers": "numbered folders are genres",
    "few-artists": "a table may know the artists of less than half of the tracks",
    "copies": "of the data's own split, clips to train on stay though there are copies of them in another part",
}
MOST_GENRES_SHOWN = 12
_CUT = re.compile(rf"({GTZAN_TRACK.pattern})\.\d+")  # three seconds of a track, which some copies of GTZAN add


@dataclass(frozen=True)
class Look:
    """What a folder of genre folders holds, by the names of its files alone."""

    folder: Path  # the one that holds the genre folders, or the folders of a split
    tracks: dict[str, Path]  # by track id: "rock/song.mp3", "train/rock/song.mp3", GTZAN's "rock.00000"
    empty: tuple[str, ...]  # genre folders without clips, "rock" or "test/rock", and parts of a split
    passed_over: str  # what else there is, in words
    problems: tuple[str, ...] = ()  # folders that cannot be read, in sentences
    same: Mapping[str, str] = field(default_factory=dict)  # of empty ones, the folders that they are, by links

    @cached_property
    def split(self) -> dict[str, list[str]]:
        """The tracks of each part of the data's own split. Raises DatasetError as `own_split` does."""
        return own_split(list(self.tracks))

    def check(self, accepted: Collection[str] = (), is_to_train: bool = True, measured: str | None = None) -> None:
        """Raises DatasetError where going on would teach nonsense that is not in `accepted`, of ACCEPTABLE.

        `is_to_train`: whether what the data's own split has for training, if it has one, is trained on; `measured`: the
        part of that split that alone is asked for.
        """
        split = self.split
        tracks = list(map(in_its_part, self.tracks))
        around = {tuple(track.split("/")[:-2][:1]) for track in tracks}  # what may be a folder around genre folders
        if len(around) == 1 and "alike" not in accepted and (name := "/".join(*around)):
            where, way = f"{self.folder} has", f"give --data {self.folder / name}"
            if tracks != [*self.tracks]:
                where, way = f"The parts of {self.folder} have", "put these into the parts themselves, as in train/rock"
            raise DatasetError(
                f"{where} only the folder {name}; if that holds the genre folders, {way}; --accept alike takes it "
                "for a genre."
            )
        check_folders(list(self.tracks), self.folder, accepted)
        check_genres(set(map(genre_of, self.tracks)), accepted)
        if is_to_train and (missing := self._missing("train")):
            raise DatasetError(
                f"The train part of {self.folder} has no clips of {listed(missing)}, which other parts have: put some "
                "there, or take the others away."
            )
        empty = [place for place in self.empty if measured not in split or _part_of(place) in (None, measured)]
        if empty and "empty" not in accepted:
            if name := next(filter(self.same.get, empty), None):
                raise DatasetError(
                    f"{name!r} in {self.folder} is the same folder as {self.same[name]!r}, by a link: take one of them "
                    f"away, or give --accept empty to go on without {name!r}."
                )
            has = "have" if len(empty) > 1 else "has"
            raise DatasetError(
                f"{listed(empty)} in {self.folder} {has} no clips: put some there, take the folder away, or give "
                "--accept empty to go on without it."
            )

    def check_decoded(
        self,
        tracks: Collection[str],
        accepted: Collection[str] = (),
        is_split: bool = True,
        measured: str | None = None,
    ) -> None:
        """Raises DatasetError if nothing of a genre, or of one in a part of its own split, is among decoded tracks.

        `is_split`: whether its own split, if it has one, is used; `measured`: the part of it that alone is asked for.
        """
        lost = lost_places(self.tracks, tracks, self.split if is_split else {}, measured)
        if lost and "empty" not in accepted:
            raise DatasetError(
                f"Nothing of {listed(lost)} can be decoded, as said above: put whole files there, take the "
                "folder away, or give --accept empty to go on without it."
            )

    def lines(self) -> Iterator[str]:
        """What there is, in sentences."""
        counts = Counter(map(genre_of, self.tracks)).most_common()
        shown = ", ".join(f"{count} {genre}" for genre, count in counts[:MOST_GENRES_SHOWN])
        more = f" and {len(counts) - MOST_GENRES_SHOWN} genres more" if len(counts) > MOST_GENRES_SHOWN else ""
        yield f"{self.folder}: {len(self.tracks)} clips, {shown}{more}."
        if self.split:
            yield f"It is split already: {', '.join(f'{len(tracks)} {part}' for part, tracks in self.split.items())}."
        for part in ("valid", "test"):
            if missing := self._missing(part):
                yield f"Its {part} part has no clips of {', '.join(missing)}, so that its figures say nothing of that."
        if self.empty:
            yield f"Left out, without clips: {', '.join(self.empty)}."
        if self.passed_over:
            yield f"Passed over: {self.passed_over}."
        yield from self.problems

    def _missing(self, part: str) -> list[str]:
        """The genres that a part of the data's own split has no clips of."""
        members = self.split.get(part)
        return sorted(set(map(genre_of, self.tracks)) - set(map(genre_of, members))) if members else []


def find_tracks(folder: Path) -> dict[str, Path]:
    """The audio files in a folder of genre folders and in the folders inside these, by track id; see `look_at`."""
    return look_at(folder).tracks


def look_at(folder: Path) -> Look:
    """Find the audio files in a folder of genre folders, and in the folders inside these.

    GTZAN is found wherever it lies in the folder, up to four levels down. Genre folders may lie in folders that are
    named after the parts of a split, or the other way round. Raises DatasetError if there are no audio files, or if it
    is not clear which of several folders is meant.
    """
    if not folder.is_dir():
        raise DatasetError(f"There is no folder {folder}.")
    folder = _genre_folders(folder)
    walk = Walk([folder])
    found = [(as_text(path.relative_to(folder).as_posix()), path) for path in walk]
    beside = sum("/" not in track for track, _ in found)
    found = [(track, path) for track, path in found if "/" in track]
    tracks, is_split = {}, _is_split([track for track, _ in found])
    for name, path in found:
        track = name if is_split else gtzan_name(name) or name
        if track in tracks:  # two names that read alike
            track = f"{name.rpartition('/')[0]}/{os.fsencode(path.name).decode(errors='backslashreplace')}"
            numbered = (f"{track} ({number})" for number in count(2))
            track = next(name for name in chain([track], numbered) if name not in tracks)
        tracks[track] = path
    if not tracks:
        raise DatasetError(f"{folder} has no audio files in genre folders, such as {folder / 'blues' / 'song.mp3'}.")
    beside_them = [f"{beside} {'sounds' if beside > 1 else 'sound'} beside the genre folders"] if beside else []
    passed_over = ", ".join(filter(None, [*beside_them, walk.summary()]))
    used = {outer for path in tracks.values() for outer in path.parents if folder in outer.parents}
    empty = _empty(folder, used, is_split)
    real = {path.resolve(): path for path in used} if empty else {}

    def name_of(path: Path) -> str:
        return as_text(path.relative_to(folder).as_posix())

    same = {name_of(path): name_of(real[path.resolve()]) for path in empty if path.resolve() in real}
    return Look(folder, tracks, tuple(map(name_of, empty)), passed_over, tuple(walk.problems), same)


def _is_split(tracks: list[str]) -> bool:
    """Whether folders say how they are parted, be it not clearly."""
    try:
        return bool(own_split(tracks))
    except DatasetError:
        return True


def _empty(folder: Path, used: Collection[Path], is_split: bool) -> list[Path]:
    """The genre folders, and the parts of a split or of a genre's clips, that are none of those with clips."""
    outer = _folders(folder)
    parts = [path for path in outer if part_of_folder(path.name)]
    places = [inner for part in parts for inner in _folders(part) or [part]] if parts else outer
    if is_split and not parts:
        places = [*places, *(inner for genre in outer for inner in _folders(genre) if part_of_folder(inner.name))]
    return sorted(path for path in places if path not in used)


def _part_of(place: str) -> str | None:
    """The part of a split that a place such as "test/rock" or "rock/test" is in."""
    return next(filter(None, map(part_of_folder, place.split("/"))), None)


def _folders(folder: Path) -> list[Path]:
    """The folders in a folder, but for those that a walk passes over."""
    return sorted(path for path in folder.iterdir() if is_folder(path) and not is_hidden_folder(path.name))


def _genre_folders(folder: Path) -> Path:
    """The folder of genre folders, or of a split, that is meant by a folder that may be around it.

    Raises DatasetError if several may be, or if songs lie outside it.
    """
    depths = {path: len(path.relative_to(folder).parts) for path in Walk([folder])}
    clips = [path for path, depth in depths.items() if 2 <= depth <= 5 and _is_gtzan_clip(path)]
    least = min((depths[clip] for clip in clips), default=0)
    around = {clip.parent.parent for clip in clips if depths[clip] == least}
    around = sorted({path.parent if part_of_folder(path.name) and path != folder else path for path in around})
    if len(around) > 1 and folder not in around:
        names = [as_text(path.relative_to(folder).as_posix()) for path in around]
        raise DatasetError(
            f"{listed(names)} in {folder} all hold genre folders of GTZAN: give one of them, as --data {around[0]}, or "
            "put their clips together."
        )
    found = around[0] if around else folder  # the folder itself sorts first
    while not around and (inner := next((found / name for name in LAYOUTS if (found / name).is_dir()), None)):
        found = inner
    others = (path for path in depths if not path.is_relative_to(found) and not _CUT.fullmatch(path.stem))
    if other := next(others, None):
        raise DatasetError(
            f"{found} holds the genre folders, it seems, but {other} lies outside it: give --data {found}, or take one "
            "or the other away."
        )
    return found


def _is_gtzan_clip(path: Path) -> bool:
    """Whether a file is named and placed like one of GTZAN: blues/blues.00000.wav."""
    return bool(gtzan_name(f"{path.parent.name}/{path.name}"))
