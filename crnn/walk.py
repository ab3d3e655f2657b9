"""Which songs there are at some paths: one walk for all that take folders."""

import os
from collections import Counter, deque
from collections.abc import Collection, Iterable, Iterator
from pathlib import Path

from crnn.audio import SUFFIXES

TWICE, SONGS_TWICE = "folders that are named or linked twice", "songs that are named twice"
NOWHERE, BELOW = "links that lead nowhere, or devices", "folders below"
ONE = {  # of these
    TWICE: "folder that is named or linked twice",
    SONGS_TWICE: "song that is named twice",
    NOWHERE: "link that leads nowhere, or device",
    BELOW: "folder below",
}
# Casefolded names of what systems, servers and archives keep for themselves: recycle bins, snapshots, thumbnails.
SERVICE_FOLDERS = frozenset(
    {"$recycle.bin", "system volume information", "lost+found", "__macosx", "#recycle", "#snapshot", "@eadir"}
    | {"@tmp", "@recycle", "@recently-snapshot", "@__thumb"}
)


def is_hidden(name: str) -> bool:
    """Whether the name of a file or a folder hides it; titles may begin with more than one dot, "...Baby One More"."""
    return name.startswith(".") and not name.startswith("..")


def is_hidden_folder(name: str) -> bool:
    """Whether a folder is hidden, or one of SERVICE_FOLDERS, by its name."""
    return is_hidden(name) or name.casefold() in SERVICE_FOLDERS


def is_sound(name: str | os.PathLike, suffixes: Collection[str] = SUFFIXES) -> bool:
    """Whether a file is a sound by its name; what macOS puts beside one on other disks, "._song.mp3", is none."""
    path = Path(name)
    return path.suffix.lower() in suffixes and not path.name.startswith("._")


def is_song(name: str | os.PathLike, suffixes: Collection[str] = SUFFIXES) -> bool:
    """Whether a file in a folder is a song by its name; hidden ones are none."""
    return is_sound(name, suffixes) and not is_hidden(Path(name).name)


def sought_by(suffixes: Collection[str]) -> str:
    """What is looked for in folders, for a sentence that there is none."""
    return "audio files" if suffixes == SUFFIXES else "files with these extensions"


class Walk:
    """The songs at some paths: a file, whatever its name, is one; a folder has those in it and below, sorted by path.

    A file that is named twice, or beside a folder that it is in, comes once, however its path is typed; links to it are
    songs of their own.
    Linked folders are entered too, once each and after the others, so that a link to what is above leads nowhere. What
    is passed over is counted while it is iterated, which can be done once.

    Attributes:
        no_songs: how many files have names that are not those of sounds, by suffix.
        left_out: how many have those of sounds that are not looked for, by suffix.
        passed_over: how many others are no songs, by what they are.
        problems: sentences about folders that cannot be read.
        empty: the folders among `paths` in which there is no song.
    """

    def __init__(self, paths: Iterable[Path], recursive: bool = True, suffixes: Collection[str] = SUFFIXES) -> None:
        self.no_songs: Counter[str] = Counter()
        self.left_out: Counter[str] = Counter()
        self.passed_over: Counter[str] = Counter()
        self.problems: list[str] = []
        self.empty: list[Path] = []
        self._paths, self._recursive, self._suffixes = [*paths], recursive, suffixes
        self._entered: set[tuple[int, int]] = set()  # device and inode of folders

    def __iter__(self) -> Iterator[Path]:
        is_given = dict.fromkeys(map(_place, self._paths), False) if len(self._paths) > 1 else {}
        for path in self._paths:
            before, song = self.passed_over[TWICE], None
            for song in self._below(path) if is_folder(path) else [path]:
                place = _place(song) if is_given else ""
                if is_given.get(place):
                    self.passed_over[SONGS_TWICE] += 1
                    continue
                if place in is_given:
                    is_given[place] = True
                yield song
            if song is None and self.passed_over[TWICE] == before:  # else its songs were there already
                self.empty.append(path)

    def _below(self, root: Path) -> Iterator[Path]:
        linked = deque([root])
        while linked:
            open_folders = [self._entries(linked.popleft())]
            while open_folders:
                entry = next(open_folders[-1], None)
                if entry is None:
                    open_folders.pop()
                elif is_folder(entry):
                    if is_hidden_folder(entry.name):
                        self.passed_over["hidden"] += 1
                    elif not self._recursive:
                        self.passed_over[BELOW] += 1
                    elif entry.is_symlink():
                        linked.append(Path(entry.path))
                    else:
                        open_folders.append(self._entries(Path(entry.path)))
                elif self._is_song(entry):
                    yield Path(entry.path)

    def _entries(self, folder: Path) -> Iterator[os.DirEntry]:
        """What is in a folder, by name; nothing if it has been entered before."""
        try:
            status = folder.stat()
            if (status.st_dev, status.st_ino) in self._entered:
                self.passed_over[TWICE] += 1
                return
            self._entered.add((status.st_dev, status.st_ino))
            with os.scandir(folder) as entries:
                yield from sorted(entries, key=lambda entry: os.fsencode(entry.name))
        except OSError as error:
            self.problems.append(f"{folder}: the folder cannot be read ({error.strerror}).")

    def _is_song(self, entry: os.DirEntry) -> bool:
        if is_hidden(entry.name):
            self.passed_over["hidden"] += 1
        elif not is_song(entry.name, self._suffixes):
            others = self.left_out if is_song(entry.name) else self.no_songs
            others[Path(entry.name).suffix.lower() or "without suffix"] += 1
        elif not _is_file(entry):
            self.passed_over[NOWHERE] += 1
        else:
            return True
        return False

    def faults(self) -> list[str]:
        """Sentences about folders that cannot be read or have no song."""
        sought = sought_by(self._suffixes)
        return [*self.problems, *(f"{folder}: there are no {sought} in this folder." for folder in self.empty)]

    def summary(self) -> str:
        """What was passed over, as a part of a sentence; empty if nothing was."""
        parts = []
        for files, what in (
            (self.no_songs, "with names that are not those of sounds"),
            (self.left_out, "that --extensions leaves out"),
        ):
            if files:
                named = ", ".join(f"{suffix} {n}" for suffix, n in files.most_common(5))
                parts.append(f"{files.total()} {what} ({named})")
        parts += [f"{count} {ONE.get(what, what) if count == 1 else what}" for what, count in self.passed_over.items()]
        return ", ".join(parts)


def _place(path: Path) -> str:
    """Where a file is, however its path is typed: links stay, but those that `..` leads back over."""
    return str(Path(os.path.realpath(path.parent) if ".." in path.parts else path.parent.absolute(), path.name))


def is_folder(path: Path | os.DirEntry) -> bool:
    """Whether the path is a folder, maybe by a link; one that cannot be looked at is none."""
    try:
        return path.is_dir()
    except (OSError, ValueError):
        return False


def _is_file(entry: os.DirEntry) -> bool:
    try:
        return entry.is_file()
    except OSError:
        return False
