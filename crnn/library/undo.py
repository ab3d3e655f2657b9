"""The undo file: a line of JSON for every genre that was written, from just before it was."""

import json
import os
from codecs import BOM_UTF8
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path

from crnn.files import check_writable, lock, whole_file
from crnn.library.rows import is_begun
from crnn.library.tags import Places

KINDS = {"path": str, "genre": str, "earlier": dict, "later": dict, "had_tag": bool, "sound": str}


class UndoError(ValueError):
    """What happens cannot be noted, so that nothing may happen; the message is one sentence."""


@dataclass(frozen=True)
class Change:
    """A genre that was written, or about to be."""

    path: str  # absolute
    genre: str
    earlier: Places
    later: Places
    had_tag: bool  # whether there was a tag at all
    sound: str  # a digest of it, by which the song is known again; "" if there is none


class Undo:
    """An undo file to add to. Raises UndoError where it cannot be written, or is none, or another command has it.

    With `only_try`, nothing in it is changed.
    """

    def __init__(self, path: Path, only_try: bool = False) -> None:
        self.path = path
        try:
            if path.exists() and not path.is_file():
                raise UndoError(f"{path} is no file, so that nothing could be taken back: --undo names another.")
            path.open("ab").close()  # for there to be one that can be locked
            with ExitStack() as opened:
                opened.enter_context(alone_with(path))
                self._file = opened.enter_context(path.open("ab"))
                there = path.read_bytes()
                is_cut = b"\n" not in there and is_begun(there) and not there.endswith(b"}")
                if is_cut or not there.removeprefix(BOM_UTF8).strip():  # the first, before it was made; or no change
                    if not only_try:
                        self._file.truncate(0)
                    there = b""
                if there and not read_changes(path)[0]:
                    raise UndoError(f"{path} is there and holds no changes of genre-crnn tag: --undo names another.")
                if there and not there.endswith(b"\n"):  # what a crash has cut off, to which no change is added
                    self._file.write(b"" if only_try else b"\n")
                self._opened = opened.pop_all()
        except OSError as error:
            raise UndoError(
                f"The undo file {path} cannot be written ({error.strerror}): --undo names another."
            ) from error

    def add(self, change: Change) -> None:
        """Note a change; when this returns, it is on the disk."""
        try:
            self._file.write(json.dumps(asdict(change)).encode() + b"\n")
            self._file.flush()
            os.fsync(self._file.fileno())
        except OSError as error:
            raise UndoError(
                f"The undo file {self.path} cannot be written ({error.strerror}): nothing more is."
            ) from error

    def close(self) -> None:
        """End; a file without changes goes."""
        with self._opened, suppress(OSError):  # of which `add` has told
            self._file.close()
            if not self.path.stat().st_size:
                self.path.resolve().unlink()


@contextmanager
def alone_with(path: Path) -> Iterator[None]:
    """Keep other commands from an undo file that is there. Raises UndoError, also where one has it."""
    if os.name != "posix":  # there an open file could not be taken away
        yield
        return
    with ExitStack() as opened:
        try:
            file = opened.enter_context(path.open("rb")).fileno()
            is_ours = lock(file) and os.path.samestat(os.fstat(file), path.stat())  # else it was replaced meanwhile
        except OSError as error:
            raise UndoError(f"The undo file {path} cannot be read ({error.strerror}).") from error
        if not is_ours:
            raise UndoError(f"Another command has the undo file {path} just now: wait until it is done.")
        yield


def read_changes(path: Path) -> tuple[list[Change], list[bytes]]:
    """The changes in an undo file, and the lines that are none. Raises UndoError.

    The last line may be cut off by a crash: then its change was not made.
    """
    try:
        lines = path.read_bytes().removeprefix(BOM_UTF8).splitlines()
    except OSError as error:
        raise UndoError(f"The undo file {path} cannot be read ({error.strerror}).") from error
    changes, others = [], []
    for number, line in enumerate(lines, start=1):
        if not line.strip():  # which editors leave
            continue
        try:
            change = Change(**json.loads(line))
            if not all(isinstance(getattr(change, name), kind) for name, kind in KINDS.items()):
                raise TypeError("of another kind")
            changes.append(change)
        except (ValueError, TypeError, RecursionError):  # as depths of brackets give
            others += [line] if number < len(lines) else []
    return changes, others


def check_kept(path: Path) -> None:
    """Raises UndoError if `keep_changes` could not write an undo file that is there."""
    try:
        check_writable(path)
    except OSError as error:
        raise UndoError(
            f"The undo file {path} cannot be written ({error.strerror}): copy it to where it can."
        ) from error


def keep_changes(path: Path, changes: Sequence[Change], others: Sequence[bytes]) -> None:
    """Leave only these changes in an undo file, and what are none; it goes if there is nothing."""
    if not changes and not others:
        path.resolve().unlink()  # a link is left without its file, not the file without its link
        return
    with whole_file(path) as file:
        file.writelines(line + b"\n" for line in others)
        file.writelines(json.dumps(asdict(change)).encode() + b"\n" for change in changes)
