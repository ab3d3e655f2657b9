"""What the names of tracks say: their genre, the part of a split that they lie in; and which names genres can have."""

import os
import re
import unicodedata
from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from functools import cache
from pathlib import Path

from torchaudio.datasets import gtzan

from crnn.data.features import DatasetError
from crnn.network.config import MOST_CHARACTERS, VERDICTS
from crnn.network.genres import spelling

GENRES = tuple(gtzan.gtzan_genres)
GTZAN_TRACK = re.compile(rf"({'|'.join(GENRES)})\.\d{{5}}")

PARTS = {"train": "train", "training": "train", "test": "test", "testing": "test"}  # folders of a split by their names
PARTS |= dict.fromkeys(("valid", "val", "validation", "dev", "development"), "valid")
PARTS |= dict.fromkeys(("eval", "evaluation", "holdout", "heldout", "held-out", "unseen"), "test")
_OF_PART = "set|data|split|songs|tracks|clips|audio|music|files|wavs?|mp3s?|flac|small|medium|large|full"
_PART = re.compile(rf"[\W_\d]*({'|'.join(PARTS)})([\W_\d]*({_OF_PART}))*[\W_\d]*k?")  # "train_set", "1 test", "val-22k"

# Folders that only spread many files out: 000 to 155, 100-199, "CD 1 of 2", "Disc One", the first signs of a hash.
_KINDS = "cd|dis[ck]|part|fold(er)?|batch|chunk|shard|vol(ume)?|side|set|subset|split|group|dir|class|label|cluster"
_NUMBERS = r"((?<!\d)\d+(?!\d)|one|two|three|four|five|six|seven|eight|nine|ten)"
_NUMBER = re.compile(rf"({_KINDS})?[\s_.-]*{_NUMBERS}([\s_.-]*(of[\s_.-]*)?{_NUMBERS})*\.?")
_HASH = re.compile(r"[0-9a-f]{2,3}")
_RELEASES = "albums?|singles?|eps?|live|studio|compilations?|best of|various( artists)?|unknown( artist| album)?"
# Folders of kinds of files, of decades, of kinds of releases.
_IN_ANY_GENRE = re.compile(rf"{_OF_PART}|(19|20)?\d0['’]?s|{_RELEASES}")


def genre_of(track_id: str) -> str:
    """The genre of a track: "blues" of GTZAN's "blues.00000", of "blues/song.mp3" and of "train/blues/song.mp3"."""
    folder, slash, _ = in_its_part(track_id).partition("/")
    return folder if slash else track_id.partition(".")[0]


def in_its_part(track_id: str) -> str:
    """The name of a track below the part of a split that it lies in, if it does: "blues/song.mp3"."""
    outer, _, inner = track_id.partition("/")
    return inner if "/" in inner and part_of_folder(outer) else track_id


def slashed(track: str) -> str:
    """The name of a track that may have been written on Windows, or from the folder that it is in."""
    return track.replace("\\", "/").removeprefix("./")


def gtzan_name(track_id: str) -> str | None:
    """The name that GTZAN's lists have for a track, "blues.00000"; None for one that is not of GTZAN."""
    name = track_id.rpartition("/")[2]
    stem = name.rpartition(".")[0] if "/" in track_id else name
    return stem if GTZAN_TRACK.fullmatch(stem) and stem.startswith(f"{genre_of(track_id)}.") else None


@cache
def part_of_folder(folder: str) -> str | None:
    """The part of a split that a folder is named after."""
    found = _PART.fullmatch(folder.casefold())
    return PARTS[found[1]] if found else None


def part_in_genre(genre: str, folder: str) -> str | None:
    """The part of a split that a folder in that of a genre is named after, as "train" or "rock_train"."""
    return part_of_folder(folder.casefold().removeprefix(genre.casefold()))


def own_split(tracks: Sequence[str]) -> dict[str, list[str]]:
    """The tracks of each part, where folders say it: "train/rock/a.mp3", or "rock/train/a.mp3"; {} where they do not.

    Raises DatasetError if some lie in such folders and others beside them, or in no genre folder there.
    """
    folders = [track.split("/")[:-1] for track in tracks]
    outer = [part_of_folder(names[0]) if len(names) > 1 else None for names in folders]
    if any(outer) and not all(outer):
        is_loose = [len(names) == 1 and part_of_folder(names[0]) for names in folders]
        if loose := [track for track, is_so in zip(tracks, is_loose, strict=True) if is_so]:
            raise DatasetError(
                f"{listed(loose)} {_is(loose)} in a part of a split, but in no genre folder there: move it into one, "
                "as in train/rock, or take it away."
            )
        of_split = sorted({names[0] for names, part in zip(folders, outer, strict=True) if part})
        others = sorted(
            {names[0] if names else track for names, track in zip(folders, tracks, strict=True)} - {*of_split}
        )
        raise DatasetError(
            f"{listed(of_split)} {_is(of_split)} named like a part of a split, but {listed(others)} beside it "
            f"{_is(others)} not: take one or the other away, or rename it."
        )
    inner = [part_in_genre(*names[:2]) if len(names) > 1 else None for names in folders]
    parts_in = defaultdict(set)
    for names, part in zip(folders, inner, strict=True):
        parts_in[names[0] if names else ""].update({part} - {None})
    if None in inner and any(len(parts) > 1 for parts in parts_in.values()):  # with one part only, it may be a band
        of_split = sorted({names[1] for names, part in zip(folders, inner, strict=True) if part})
        others = sorted(track for track, part in zip(tracks, inner, strict=True) if not part)
        raise DatasetError(
            f"{listed(of_split)} in genre folders are named like parts of a split, but {listed(others)} {_is(others)} "
            "in none of them: move it into one, or take one or the other away."
        )
    for parts in (outer, inner):
        found = set(parts)
        if None not in found and (len(found) > 1 or (parts is outer and "train" not in found)):
            by_part = defaultdict(list)
            for track, part in zip(tracks, parts, strict=True):
                by_part[part].append(track)
            return dict(by_part)
    return {}


def places_of(tracks: Iterable[str], split: Mapping[str, Sequence[str]]) -> dict[str, str]:
    """Where each track stands: in a genre, "rock", or where the data is split already in one of a part, "test/rock"."""
    parts = {track: f"{part}/" for part, members in split.items() for track in members}
    return {track: parts.get(track, "") + genre_of(track) for track in tracks}


def lost_places(
    tracks: Iterable[str], kept: Iterable[str], split: Mapping[str, Sequence[str]], measured: str | None = None
) -> list[str]:
    """The genres, or those in the parts of a split, of which there are tracks and none of them is kept.

    `split`: the tracks' own, {} where they have none or it is not used; `measured`: the part that alone is asked for.
    """
    place_of = places_of(tracks, split)
    lost = {*place_of.values()} - {place_of[track] for track in kept}
    return sorted(place for place in lost if measured not in split or place.startswith(f"{measured}/"))


def folders_alike(tracks: Sequence[str]) -> tuple[list[str], list[str]]:
    """Folders that hold the same folders, if they are all and no genres, it seems, and these.

    That is where most of what they hold is in each of them, or they are named like each other or parts of a split.
    """
    inner: dict[str, set[str]] = defaultdict(set)
    for outer, *others in {tuple(track.split("/")[:-1][:2]) for track in tracks if "/" in track}:
        inner[outer] |= {name for name in others if not (part_in_genre(outer, name) or _is_in_any_genre(name))}
    common = sorted(set.intersection(*inner.values())) if len(inner) > 1 else []
    words = [_words(name) for name in inner]
    of_parts = all({*of_name, *(word.rstrip("s") for word in of_name)} & PARTS.keys() for of_name in words)
    texts = {" ".join(of_name) for of_name in words}
    are_alike = len(texts) == 1 or all(len(text) < 2 for text in texts)
    are_alike |= 2 * len(common) > len(set().union(*inner.values()))
    return (sorted(inner), common) if (common and of_parts) or (len(common) > 1 and are_alike) else ([], [])


def check_folders(tracks: Sequence[str], place: Path, accepted: Collection[str] = ()) -> None:
    """Raises DatasetError where folders in a place, or in the parts of its split, hold others that seem the genres.

    With "alike" among `accepted`, they are genres.
    """
    below = list(map(in_its_part, tracks))
    outer, inner = ([], []) if "alike" in accepted else folders_alike(below)
    if outer:
        where, way = f"in {place}", "call the ones around them train, valid and test, or put their clips together"
        if below != [*tracks]:
            where, way = f"in the parts of {place}", "put the clips of each together, as in train/rock"
        raise DatasetError(
            f"{listed(outer)} {where} hold the same folders, {listed(inner)}: if these are the genres, {way}; --accept "
            "alike takes the outer ones for genres."
        )


def _is_in_any_genre(name: str) -> bool:
    """Whether a folder says nothing of what is around it: one of many numbers, of a kind of files or releases."""
    return bool(_numbers([name]) or _IN_ANY_GENRE.fullmatch(name.casefold()))


def _words(name: str) -> list[str]:
    """The words of a folder's name, without what tells it from others of its kind: numbers, or a letter, "fold_a"."""
    words = [word for word in re.split(r"[\W_\d]+", name.casefold()) if word]
    return words[:-1] if len(words) > 1 and len(words[-1]) == 1 < len(words[-2]) else words


def as_text(name: str) -> str:
    """A file's name as text: bytes that are no UTF-8 are read as Windows and its zip files mostly meant them."""
    raw = os.fsencode(name)
    try:
        return raw.decode()
    except UnicodeDecodeError:
        return raw.decode("cp1252", "backslashreplace")


def check_genres(genres: Iterable[str], accepted: Collection[str] = ()) -> None:
    """Raises DatasetError, naming it, where a genre has a name that no model can have or that is none of a genre.

    With "numbers" among `accepted`, numbers are; with "alike", such names as "rock_train" and "rock_test".
    """
    genres = sorted(genres)
    if parts := [name for name in genres if part_of_folder(name)]:
        raise DatasetError(
            f"{listed(parts)} {_is(parts)} named like a part of a split, not like a genre: put folders of genres into "
            "it, as in train/rock, or rename it."
        )
    if "alike" not in accepted and (parted := _parts_of_one(genres)):
        raise DatasetError(
            f"{listed(parted)} are named like parts of one genre, not like genres: put them into folders of the parts, "
            "as train/rock and test/rock, or rename them; --accept alike takes them for genres."
        )
    if "numbers" not in accepted and (numbers := _numbers(genres)):
        raise DatasetError(
            f"The folders are numbers, {listed(numbers)}, and no genres: sort the clips into folders that are named "
            "after genres, or give --accept numbers if these are their names."
        )
    for name in genres:
        if not (name.strip() and name.isprintable() and len(name) <= MOST_CHARACTERS):
            raise DatasetError(
                f"No model can have the genre {name if name.isprintable() else ascii(name)[1:-1]}: the name of a genre "
                f"is a line of 1 to {MOST_CHARACTERS} characters; rename it."
            )
        if taken := {spelling(verdict): verdict for verdict in VERDICTS}.get(spelling(name)):
            raise DatasetError(
                f"No genre can be called {name!r}: the answer {taken!r} means that it is none; rename it."
            )
    by_spelling = defaultdict(list)
    for name in genres:
        by_spelling[spelling(name)].append(name)
    if alike := next((names for names in by_spelling.values() if len(names) > 1), None):
        is_seen = len({unicodedata.normalize("NFC", name) for name in alike}) > 1
        how = "" if is_seen else f", which only computers tell apart ({', '.join(map(ascii, alike))})"
        raise DatasetError(f"{listed(alike)} are spellings of one genre{how}: put them into one folder, or rename one.")


def _parts_of_one(genres: Iterable[str]) -> list[str]:
    """The names of the first genre that has several parts of a split by names such as "rock_train" and "rock_test"."""
    found: dict[str, dict[str, str]] = defaultdict(dict)
    for name in genres:
        words = [word for word in re.split(r"[\W_]+", name.casefold()) if word]
        for place in range(1, len(words)):
            for genre, part in ((words[:place], words[place:]), (words[place:], words[:place])):
                if known := part_of_folder(" ".join(part)):
                    found[" ".join(genre)].setdefault(known, name)
    return next(([*names.values()] for names in found.values() if len(names) > 1), [])


def _numbers(genres: Sequence[str]) -> Sequence[str]:
    """The names that are numbers, if these are so many that the folders are none of genres."""
    names = [name.casefold() for name in genres]
    are_hashes = all(map(_HASH.fullmatch, names)) and any(map(str.isdigit, "".join(names)))
    if are_hashes and len(set(map(len, names))) == 1:
        return genres
    numbers = [name for name in genres if _NUMBER.fullmatch(name.casefold())]
    return numbers if len(numbers) == len(genres) or len(numbers) > max(2, len(genres) / 2) else []


def listed(names: Sequence[str], most: int = 5) -> str:
    """Names in a sentence, not all if they are many."""
    shown = [repr(name) for name in names[:most]]
    rest = [f"{len(names) - most} more"] if len(names) > most else []
    *first, last = shown + rest
    return f"{', '.join(first)} and {last}" if first else last


def _is(names: Sequence[str]) -> str:
    return "are" if len(names) > 1 else "is"
