"""What is wrong with a sound, and what to know about it, in sentences for the person who chose it."""

import errno
import mmap
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import BinaryIO

import av

from crnn.audio import foreign
from crnn.audio.extent import read_at

ROOM_BYTES = 2**26  # for which a machine has room unless it is short of memory
KNOWN_FORMATS = "wav, mp3, flac, ogg, opus, m4a, aac, webm, aiff, wma"


class AudioError(ValueError):
    """A sound that cannot be used, in one sentence for the person who chose the file.

    It is `message` with the `values` in place of its {names}, so that it can be said in other languages.
    """

    def __init__(self, message: str, **values: object) -> None:
        super().__init__(message.format(**values))
        self.message, self.values = message, values

    def __reduce__(self) -> tuple:
        """How it comes from one process to another."""
        return partial(type(self), self.message, **self.values), ()


class Fault(Exception):  # noqa: N818 - `explained` makes an error of it
    """What is wrong with a file whose {name} is not known here."""

    def __init__(self, message: str, **values: object) -> None:
        super().__init__(message)
        self.message, self.values = message, values


@dataclass(frozen=True)
class Notice:
    """What to know about an answer, in one sentence: `message` with the `values` in place of its {names}."""

    message: str
    values: dict[str, object] = field(default_factory=dict)

    def __str__(self) -> str:
        return self.message.format(**self.values)


@contextmanager
def explained(name: str) -> Iterator[None]:
    """Whatever goes wrong with a file inside is an AudioError that calls it by its name."""
    try:
        yield
    except AudioError:
        raise
    except Fault as fault:
        raise AudioError(fault.message, name=name, **fault.values) from fault.__cause__
    except (av.FFmpegError, OSError, ValueError, MemoryError) as error:
        if why := shortage(error):
            raise not_now(name, why) from error
        raise AudioError(
            "{name} cannot be decoded: it is damaged or incomplete, so fetch or export it again.", name=name
        ) from error


def shortage(error: Exception) -> str | None:
    """What the machine has too little of, in its words, where an error comes of that and not of the file; else None.

    A damaged file that claims to be huge gets no memory either, on a machine that has enough.
    """
    number = errno.ENOMEM if isinstance(error, MemoryError) else getattr(error, "errno", None)
    if number in (errno.EMFILE, errno.ENFILE) or (number == errno.ENOMEM and not _has_room()):
        return os.strerror(number)
    return None


def _has_room() -> bool:
    try:
        mmap.mmap(-1, ROOM_BYTES).close()
    except OSError:
        return False
    return True


def not_now(name: str, why: str) -> AudioError:
    """What is to be said of a file that the machine cannot decode just now."""
    return AudioError("{name} cannot be decoded just now ({why}): try again later.", name=name, why=why)


def no_sound_file() -> Fault:
    """What FFmpeg takes for none of its formats."""
    return Fault(
        "{name} is damaged or incomplete, or no sound file at all: {formats} files work, and so do videos with sound.",
        formats=KNOWN_FORMATS,
    )


def missing_end() -> Fault:
    """What is needed to read a file stands at its end, which is not there."""
    return Fault("{name} is damaged or incomplete, its end is missing: fetch or export it again.")


def missing_much() -> Fault:
    """Too little is there of what a file announces."""
    return Fault("{name} is damaged or incomplete, too much of it is missing: fetch or export it again.")


def by_name(file: BinaryIO, fault: Fault) -> Fault:
    """What a file that has this fault is, if that is known, else the fault."""
    found = foreign.what_it_is(read_at(file, 0, foreign.HEAD_BYTES))
    return fault if found is None else Fault(found[0], kind=found[1])
