"""A genre written into a sound file, or what was there before brought back, without risk to the file.

No file is written in place. A copy beside it is changed, then compared with it (packets of sound, pictures, chapters,
all other tags), and takes its place at once. So neither a crash nor a full disk nor a fault in the library that
writes tags can cost a song.
"""

import hashlib
import os
import shutil
import stat
import tempfile
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from errno import EDQUOT, ENOSPC
from itertools import pairwise
from pathlib import Path

import av
from mutagen.mp3 import HeaderNotFoundError

from crnn.audio import AudioError, open_audio
from crnn.audio.container import open_container, packets_of
from crnn.audio.extent import Extent
from crnn.audio.faults import Fault, shortage
from crnn.files import take_away_copies
from crnn.library.tags import Genre, Id3, OtherKindError, Places, TagError, Tags, tags_of
from crnn.library.undo import Change, UndoError

COPIED_BYTES = 2**20  # at once
SOUND_BYTES = 16  # of the digest by which a song is known again


def read_genre(path: Path) -> Genre:
    """What a file says of its genre. Raises TagError, of one of none of the kinds OtherKindError."""
    with _explained(path):
        _check_regular(path.stat())  # a pipe would be waited for
        with path.open("rb") as file:
            return tags_of(file).genre()


def write_genre(
    path: Path,
    name: str,
    keep_times: bool = False,
    over: tuple[str, ...] | None = None,
    note: Callable[[Genre, Places, str], None] | None = None,
    only_try: bool = False,
) -> Genre:
    """Write a genre into a file, in place of what it says of it; returns what it said.

    Args:
        path: a link is followed, and stays one.
        name: of the genre, as people read it.
        over: what the file should say, so that nothing is lost that came meanwhile; None for whatever it says.
        keep_times: whether the file keeps its time of change.
        note: is told what the file says, what its places will hold, and its `sound_of`, just before they do.
        only_try: to write and compare a copy in the temporary folder alone.

    Raises:
        TagError: the file cannot be written, and is as it was.
        UndoError: as `note` does.
    """

    def places_in(tags: Tags, genre: Genre) -> Places:
        if over is not None and genre.names not in (over, (name,)):
            raise TagError(f"somebody else has just given it a genre: {', '.join(genre.names) or 'none'}")
        if genre.elsewhere:
            raise TagError(f"a genre stands in its {genre.elsewhere}, too, where none is written")
        return tags.places_of(name)

    return _rewrite(path, places_in, keep_times, note=note, only_try=only_try)[0]


def restore_genre(
    change: Change, keep_times: bool = False, only_try: bool = False, before: Collection[Places] = ()
) -> bool:
    """Take back a change of a file's genre; returns whether the file changes by that.

    Where its places no longer hold what was written, but the genre that was, that is known by its name and the sound
    together: other programs may have spelled it otherwise, or put it elsewhere, too.

    Args:
        change: as the undo file has it.
        keep_times, only_try: as of `write_genre`.
        before: what the places held before changes that are older: then this one has been taken back already.

    Raises TagError; then the file is as it was. So it does where somebody has changed the genre meanwhile, or where it
    is known by its name alone, as the sound has changed or another song has taken its place.
    """
    path = Path(change.path)

    def places_in(_: Tags, genre: Genre) -> Places:
        if genre.places in (change.later, change.earlier):
            return change.earlier
        if genre.names == (change.genre,):
            if change.sound and sound_of(path) != change.sound:
                raise TagError("its sound has changed, or another song has taken its place, so it stays as it is")
            return change.earlier
        if genre.places in before:
            return genre.places
        said = ", ".join(genre.names) or "none"
        raise TagError(f"its genre was changed by somebody else meanwhile, to {said}")

    genre, places = _rewrite(path, places_in, keep_times, change.had_tag, only_try=only_try)
    return places != genre.places


def _rewrite(
    path: Path,
    places_in: Callable[[Tags, Genre], Places],
    keep_times: bool,
    needs_tag: bool = True,
    note: Callable[[Genre, Places, str], None] | None = None,
    only_try: bool = False,
) -> tuple[Genre, Places]:
    """Have a file's places hold what `places_in` gives; returns what it said before, and that. Raises TagError."""
    with _explained(path, only_try):
        path = path.resolve(strict=True)
        state = _writable(path)
        with path.open("rb") as file:
            tags = tags_of(file)
            genre = tags.genre()
        places = places_in(tags, genre)
        if places == genre.places:
            return genre, places
        sound = sound_of(path) if note and not only_try else ""
        if not only_try:
            take_away_copies(path.parent, r"\.genre-crnn-.{8}\.partial")
        with _copy_of(path, only_try) as copy:
            with copy.open("r+b") as file:
                tags.again(file).write(file, places, needs_tag)
                os.fsync(file.fileno())
            _compare(path, copy, tags, places)
            if _moment(path.stat()) != _moment(state):
                raise TagError("another program has changed it just now, so it stays as it is")
            if only_try:
                with _copy_of(path, only_try=False, is_empty=True) as beside:
                    _take_over(beside, path, state, keep_times)
                return genre, places
            _take_over(copy, path, state, keep_times)
            if note:
                note(genre, places, sound)
            copy.replace(path)
        return genre, places


def _writable(path: Path) -> os.stat_result:
    """The state of a file that may be replaced. Raises TagError."""
    state = path.stat()
    _check_regular(state)
    if not (state.st_mode & 0o222 and os.access(path, os.W_OK)):
        raise TagError("it is read-only")
    if not os.access(path.parent, os.W_OK | os.X_OK):
        raise TagError("its folder is read-only, and to write it safely takes a copy there")
    return state


def _check_regular(state: os.stat_result) -> None:
    """Raises TagError of what is no file."""
    if not stat.S_ISREG(state.st_mode):
        raise TagError("it is no file")


@contextmanager
def _copy_of(path: Path, only_try: bool, is_empty: bool = False) -> Iterator[Path]:
    """A copy of a file beside it, or in the temporary folder, which is gone at the end unless it has taken its place.

    One that `is_empty` has its name alone, to try what may be done beside it.

    Raises TagError if there is no temporary folder.
    """
    try:
        handle, name = tempfile.mkstemp(".partial", ".genre-crnn-", None if only_try else path.parent)
    except OSError as error:
        if only_try:
            raise TagError(_untried(error)) from error
        raise
    try:
        with open(handle, "wb") as copy, path.open("rb") as file:  # noqa: PTH123 - a handle
            if not is_empty:
                shutil.copyfileobj(file, copy, COPIED_BYTES)
        yield Path(name)
    finally:
        Path(name).unlink(missing_ok=True)


def _take_over(copy: Path, path: Path, state: os.stat_result, keep_times: bool) -> None:
    """Owner, rights, extended attributes and maybe times of a file for its copy."""
    if hasattr(os, "chown") and (copy.stat().st_uid, copy.stat().st_gid) != (state.st_uid, state.st_gid):
        try:
            os.chown(copy, state.st_uid, state.st_gid)
        except OSError as error:
            raise TagError("it belongs to somebody else, and would belong to you: let its owner do that") from error
    shutil.copystat(path, copy)
    if not keep_times:
        os.utime(copy)


def _compare(path: Path, copy: Path, tags: Tags, places: Places) -> None:
    """Raises TagError if a copy differs in more than the genre, or not in that."""
    with copy.open("rb") as file:
        written = tags.again(file)
    if written.genre().places != places:
        raise TagError("what is written into it is not found again, as in a file that is cut: fetch or export it again")
    if written.others() != tags.others() or _contents(path, tags) != _contents(copy, written):
        raise TagError("its tags are unusual, and something in them would be lost, so it stays as it is")


def _contents(path: Path, tags: Tags) -> object:
    """What a file holds beside its tags: bytes, or what FFmpeg finds, packets of all streams, chapters and names."""
    if tags.span:
        return _digest(path, *tags.span)
    with av.open(path, format=tags.demuxer, metadata_errors="surrogateescape") as container:
        digests = {stream.index: hashlib.blake2b() for stream in container.streams}
        for packet in container.demux():
            if packet.size:
                digests[packet.stream_index].update(packet)
        streams = [(stream.type, digests[stream.index].digest(), stream.duration) for stream in container.streams]
        chapters = [(chapter["start"], chapter["end"], chapter["metadata"]) for chapter in container.chapters()]
        if isinstance(tags, Id3):  # of which FFmpeg knows less than mutagen
            return streams, chapters
        named = [container.metadata, *(stream.metadata for stream in container.streams)]
        return streams, chapters, [{k: v for k, v in names.items() if k.lower() != "genre"} for names in named]


def sound_of(path: Path) -> str:
    """A digest of the first sound in a file, which no change of its tags moves; "" if there is none, or too little.

    Raises OSError, and MemoryError where the machine has too little of it.
    """
    digest, n_packets = hashlib.blake2b(digest_size=SOUND_BYTES), 0
    try:
        with path.open("rb") as file, open_container(Extent.of(file)) as container:
            packets = packets_of(container, container.streams.audio[:1])
            sounds = (packet for packet in packets if packet is not None and packet.size)
            for packet, _ in pairwise(sounds):  # the last may hold a tag behind the sound
                digest.update(packet)
                n_packets += 1
    except (Fault, av.FFmpegError) as error:
        if shortage(error):  # which would give the digest of another song
            raise
    return digest.hexdigest() if n_packets else ""


def _digest(path: Path, start: int, end: int) -> bytes:
    digest = hashlib.blake2b()
    with path.open("rb") as file:
        file.seek(start)
        while start < end and (part := file.read(min(COPIED_BYTES, end - start))):
            digest.update(part)
            start += len(part)
    return digest.digest()


def _moment(state: os.stat_result) -> tuple:
    return state.st_ino, state.st_size, state.st_mtime_ns


@contextmanager
def _explained(path: Path, only_try: bool = False) -> Iterator[None]:
    """Whatever goes wrong with a file, as a TagError."""
    try:
        yield
    except (TagError, UndoError):
        raise
    except Exception as error:  # what damaged files bring the parsers of others to, too
        kind = OtherKindError if isinstance(error, HeaderNotFoundError) else TagError
        raise kind(_reason(path, error, only_try)) from error


def _reason(path: Path, error: Exception, only_try: bool) -> str:
    fault = next((one for one in (error, *error.args) if isinstance(one, OSError)), None)  # which mutagen passes on
    if isinstance(fault, FileNotFoundError):
        return "it is not there"
    if fault and only_try and fault.errno in (ENOSPC, EDQUOT):
        return _untried(fault)
    if fault:
        return f"it cannot be read or written ({fault.strerror or fault})"
    name = type(error).__name__
    if isinstance(error, MemoryError | ImportError):
        return f"it cannot be read or written ({error or name})"
    try:
        with open_audio(path):
            return f"its tags are damaged, or of a kind that is not known here ({name}), so that it stays as it is"
    except AudioError as refused:
        return str(refused)


def _untried(error: OSError) -> str:
    folder = tempfile.tempdir or "a temporary folder"
    return f"a copy to try it on cannot be made in {folder} ({error.strerror}): TMPDIR names another folder"
