"""Files that are written whole or not at all, and by one process at a time."""

import errno
import io
import json
import os
import re
import shutil
import stat
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import cache
from itertools import chain, count
from pathlib import Path
from typing import BinaryIO

KEPT_SIGNS = 50  # of a name, so that with more it is none that is too long
LEFT_SECONDS = 3_600  # without a change, then a copy is no longer worked at
KEPT_FREE = 2**30  # bytes of the disk that what strangers send or ask for leaves


@contextmanager
def whole_file(path: Path) -> Iterator[BinaryIO]:
    """A file to write, which takes its place at once when the block is done.

    Killed or out of space, it leaves the earlier one as it was; done, it has the rights of that, and the owner as far
    as may be. Makes the folders around it; raises OSError, which names a file, also where the earlier one may not be
    written. A link stays one, and what is no regular file, such as a terminal, is written to as it is.
    """
    if path.exists() and not path.is_file():
        with io.BufferedWriter(_Named(path, path)) as file:
            yield file
        return
    path = path.resolve() if path.is_symlink() else path
    path.parent.mkdir(parents=True, exist_ok=True)
    name = path.name[-KEPT_SIGNS:]
    take_away_copies(path.parent, rf"{re.escape(name)}\.([0-9]+)\.partial")
    partial = path.with_name(f"{name}.{os.getpid()}.partial")  # others may write the same one
    try:
        earlier = writable_state(path)
        with io.BufferedWriter(_Named(partial, path)) as file:
            if earlier:
                _give_rights(file.fileno(), earlier)
            yield file
            file.flush()
            with _naming(path):
                os.fsync(file.fileno())
        partial.replace(path)
    except BaseException:
        partial.unlink(missing_ok=True)
        raise


def take_away_copies(folder: Path, pattern: str, are_folders: bool = False) -> None:
    """Delete from a folder the partial copies that killed programs left behind.

    `pattern` is the regular expression of their names, which end .partial; a group in it is the number of the process
    that writes there, and as long as one of that number runs, its copy stays.
    """
    for found in filter(None, (re.fullmatch(pattern, name) for name in _partial_in(folder.absolute()))):
        copy = folder / found[0]
        with suppress(OSError):  # it may be somebody else's
            if time.time() - copy.lstat().st_ctime <= LEFT_SECONDS or any(map(_is_running, found.groups())):
                continue
            if not are_folders:
                copy.unlink()
            elif not copy.is_symlink():
                shutil.rmtree(copy)


def _is_running(process: str) -> bool:
    if os.name != "posix":  # there, what a process has open cannot be taken away
        return False
    try:
        os.kill(int(process), 0)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:  # it is somebody else's
        pass
    return True


@cache
def _partial_in(folder: Path) -> tuple[str, ...]:
    """At the first look: what is left later is not by a program that was killed before."""
    try:
        return tuple(path.name for path in folder.glob("*.partial"))
    except OSError:  # a folder that may be written and not read
        return ()


class _Named(io.FileIO):
    """A file to write, whose errors name it by what it becomes: the system's name none, as of a full disk."""

    def __init__(self, path: Path, becomes: Path) -> None:
        super().__init__(path, "w")
        self._becomes = becomes

    def write(self, content: bytes) -> int | None:
        with _naming(self._becomes):
            return super().write(content)


@contextmanager
def _naming(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        error.filename = error.filename or str(path)
        raise


def writable_state(path: Path) -> os.stat_result | None:
    """What the system says of a file that is to be replaced, None if there is none. Raises OSError if it may not be."""
    if not path.exists():
        return None
    with path.open("ab") as file:
        return os.fstat(file.fileno())


def check_writable(path: Path) -> None:
    """Raises OSError, which names a file, if `whole_file` could not write there, as far as it shows beforehand."""
    if path.exists() and not (path.is_file() or path.is_dir()):  # such as a pipe, whose reader would take it for ended
        return
    path = path.resolve() if path.is_symlink() else path
    writable_state(path)  # of a folder, too, it raises OSError
    around = next(parent for parent in path.parents if parent.exists())
    if not around.is_dir():
        raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), str(around))
    if not os.access(around, os.W_OK | os.X_OK, effective_ids=os.access in os.supports_effective_ids):
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(around))


def _give_rights(file: int, earlier: os.stat_result) -> None:
    if os.name != "posix":
        return
    for owner, group in ((earlier.st_uid, -1), (-1, earlier.st_gid)):
        with suppress(OSError):  # what is somebody else's becomes one's own
            os.fchown(file, owner, group)
    with suppress(OSError):  # a file system without rights
        os.fchmod(file, stat.S_IMODE(earlier.st_mode))


def set_aside(path: Path) -> Path:
    """Give what is there, a link itself, the first free name with .bak, .bak2, ... behind; returns that.

    Raises OSError.
    """
    names = (path.with_name(f"{path.name}.bak{number}") for number in chain([""], count(2)))
    return path.rename(next(name for name in names if not os.path.lexists(name)))


def as_json(value: object) -> bytes:
    """A value as JSON that people can read, too."""
    return f"{json.dumps(value, indent=2)}\n".encode()


def write_json(path: Path, value: object) -> None:
    """Write a value as such JSON, with the care of `whole_file`. Raises OSError."""
    with whole_file(path) as file:
        file.write(as_json(value))


def lock(file: int) -> bool:
    """Lock an open file until it is closed; False if another process has it. Where there are no locks, none has."""
    try:
        import fcntl  # noqa: PLC0415 (Unix alone has it)
    except ImportError:
        return True
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:  # a file system without locks
        pass
    return True


def has_room(folder: Path, n_bytes: int) -> bool:
    """Whether the disk of a folder, which need not be there yet, has room for what strangers send or ask for."""
    there = next(parent for parent in (folder, *folder.parents) if parent.is_dir())
    return shutil.disk_usage(there).free - n_bytes > KEPT_FREE
