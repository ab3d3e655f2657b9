"""The undo file: a line of JSON for every genre that was written, from just before it was."""

import json
import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from crnn.files import whole_file
from crnn.library.retag import UndoError
from crnn.library.tags import Places

KINDS = {"path": str, "genre": str, "earlier": dict, "later": dict, "had_tag": bool}


@dataclass(frozen=True)
class Change:
    """A genre that was written, or about to be."""

    path: str  # absolute
    genre: str
    earlier: Places
    later: Places
    had_tag: bool  # whether there was a tag at all


class Undo:
    """An undo file to add to. Raises UndoError where it cannot be written."""

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            if path.exists() and not path.is_file():
                raise UndoError(f"{path} is no file, so that nothing could be taken back: --undo names another.")
            self._file = path.open("ab")
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
        self._file.close()
        if not self.path.stat().st_size:
            self.path.unlink()


def read_changes(path: Path) -> tuple[list[Change], list[bytes]]:
    """The changes in an undo file, and the lines that are none. Raises UndoError.

    The last line may be cut off by a crash: then its change was not made.
    """
    try:
        lines = path.read_bytes().splitlines()
    except OSError as error:
        raise UndoError(f"The undo file {path} cannot be read ({error.strerror}).") from error
    changes, others = [], []
    for number, line in enumerate(lines, start=1):
        try:
            change = Change(**json.loads(line))
            if not all(isinstance(getattr(change, name), kind) for name, kind in KINDS.items()):
                raise TypeError("of another kind")
            changes.append(change)
        except (ValueError, TypeError):
            others += [line] if number < len(lines) else []
    return changes, others


def keep_changes(path: Path, changes: Sequence[Change], others: Sequence[bytes]) -> None:
    """Leave only these changes in an undo file, and what are none; it goes if there is nothing."""
    if not changes and not others:
        path.unlink()
        return
    with whole_file(path) as file:
        file.writelines(line + b"\n" for line in others)
        file.writelines(json.dumps(asdict(change)).encode() + b"\n" for change in changes)
