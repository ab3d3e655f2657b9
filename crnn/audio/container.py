"""FFmpeg's view of a file: opened without its name, with nothing but the demuxers of sound."""

import ctypes
import errno
import os
from collections.abc import Iterator
from contextlib import suppress
from itertools import islice
from typing import BinaryIO

import av
from av.container import InputContainer

from crnn.audio import foreign
from crnn.audio.announced import corrected_head, understates
from crnn.audio.extent import Extent, read_at
from crnn.audio.faults import KNOWN_FORMATS, Fault, by_name, missing_end, no_sound_file, shortage

# What FFmpeg may do with a file: use one of these demuxers and open nothing else. Playlists and scripts (hls, concat,
# sdp, dash) would make it open the addresses and paths that they name.
OPTIONS = {
    "format_whitelist": "aac,ac3,aiff,amr,ape,asf,au,avi,caf,dsf,dts,dtshd,eac3,flac,flv,iff,matroska,mlp,mov,mp3,mpc,"
    "mpc8,mpeg,mpegts,nistsphere,ogg,oma,qoa,rm,shn,tak,truehd,tta,voc,w64,wav,wv",
    "protocol_whitelist": "none",
}
# Of packets that FFmpeg keeps to find the tracks it takes half a kilobyte for each, even of those that hold one byte.
_PROBED_BYTES, _MOST_PROBED_BYTES = 1_000_000, 5_000_000
_SMALL_PACKET_BYTES = 64
_MOST_FAILURES = 1_000  # to read a packet, one behind the other: an ogg or a broadcast reads on for some 100 kB in each
_MOST_ALLOCATED_BYTES = 2**28  # by FFmpeg in one piece: it would take, and clear, the 4 GB that a tag says it has
# Their demuxers take the duration from the header; the others often estimate it from the size of the file.
TIMED_FORMATS = frozenset("aiff ape au flac mov nistsphere rm tta wv".split())  # noqa: SIM905

with suppress(AttributeError):  # on Windows the libraries of a module are not looked through
    _max_alloc = ctypes.CDLL(av._core.__file__).av_max_alloc
    _max_alloc.argtypes, _max_alloc.restype = [ctypes.c_size_t], None
    _max_alloc(_MOST_ALLOCATED_BYTES)


def open_container(extent: Extent, is_fast: bool = False) -> InputContainer:
    """Open a file for FFmpeg to demux, by its content alone.

    `is_fast`: where there is no index, places are guessed from the bit rate rather than looked for.

    Raises Fault for what is none of the formats that are read, and FFmpegError where the machine is short of memory.
    """
    file = extent.file
    if read_at(file, 0, 4) == b"RIFX":  # of which FFmpeg takes the samples to be little-endian
        raise by_name(file, no_sound_file())
    options = OPTIONS | ({"fflags": "fastseek"} if is_fast else {})
    if understates(extent):
        options["ignore_length"] = "1"
    try:
        container = _probed(extent, options, _PROBED_BYTES)
        if not container.streams.audio and not _has_small_packets(container):  # a video whose sound begins late
            container.close()
            container = _probed(extent, options, _MOST_PROBED_BYTES)
        return container
    except av.FFmpegError as error:
        if shortage(error):
            raise
        if error.errno == errno.EINVAL:  # a format outside the whitelist
            fault = Fault(
                "{name} is of a kind that is not read here: {formats} files work, and so do videos with sound.",
                formats=KNOWN_FORMATS,
            )
        else:
            fault = no_sound_file()
        if read_at(file, 4, 4) == b"ftyp":  # of an mp4, whose index is often at its end
            fault = missing_end()
        raise by_name(file, fault) from error


def decodable_tracks(container: InputContainer, file: BinaryIO) -> list[av.AudioStream]:
    """The audio tracks whose codecs are known. Raises Fault if there is none, or what protects one."""
    tracks = container.streams.audio
    if not tracks:
        raise by_name(
            file,
            Fault(
                "{name} has no audio track: {formats} files work, and so do videos with sound.", formats=KNOWN_FORMATS
            ),
        )
    head = read_at(file, 0, foreign.HEAD_BYTES)
    decodable = [track for track in tracks if track.codec_context is not None]
    for track in decodable:
        if kind := foreign.protection(head, _codec_tag(track)):
            raise Fault(foreign.PROTECTED, kind=kind)
    if not decodable:
        raise Fault(
            "{name} is encoded in a way that cannot be decoded here: {formats} files work, and so do videos with "
            "sound.",
            formats=KNOWN_FORMATS,
        )
    return decodable


def packets_of(container: InputContainer, tracks: list[av.AudioStream]) -> Iterator[av.Packet | None]:
    """The packets of some tracks, in the order of the file, and None where something is read that is no packet.

    Raises FFmpegError where no packet follows any more.
    """
    n_failures = 0
    while True:
        try:
            for packet in container.demux(*tracks):
                n_failures = 0
                yield packet
            return
        except IndexError:  # PyAV ends so where a file's other tracks showed up late
            return
        except av.error.PatchWelcomeError:  # such as another rate in the middle of an ogg
            raise
        except av.FFmpegError as error:  # most formats find their next packet behind it
            n_failures += 1
            if shortage(error) or n_failures > _MOST_FAILURES:
                raise
            yield None


class _Source:
    """A file as FFmpeg reads it: without its name and what stands about its sound, and with a head that it understands.

    It looks for sound in the first megabyte alone, and pictures in tags may have more. Places that are none are told
    rather than raised, as PyAV would print what is raised there.
    """

    def __init__(self, extent: Extent) -> None:
        self._file = extent.file
        self._begin = extent.begin if extent.begin < extent.n_bytes else 0  # as long as the file is no tag
        self._end = extent.end
        self._corrected_place, self._corrected = corrected_head(extent)
        self._file.seek(self._begin)

    def read(self, n_bytes: int) -> bytes:
        """The next bytes, fewer at the end."""
        place = self._file.tell()
        data = self._file.read(max(0, min(n_bytes, self._end - place)))
        at = self._corrected_place - place
        begin, end = max(0, at), min(at + len(self._corrected), len(data))
        return data[:begin] + self._corrected[begin - at : end - at] + data[end:] if begin < end else data

    def tell(self) -> int:
        """Where it is."""
        return self._file.tell() - self._begin

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        """Where it is then, or a negative number."""
        try:
            place = offset + {os.SEEK_SET: self._begin, os.SEEK_CUR: self._file.tell(), os.SEEK_END: self._end}[whence]
            return -errno.EINVAL if place < self._begin else self._file.seek(place) - self._begin
        except (OSError, LookupError, ValueError, OverflowError):
            return -errno.EINVAL


def _probed(extent: Extent, options: dict[str, str], n_bytes: int) -> InputContainer:
    options = options | {"probesize": str(n_bytes)}
    return av.open(_Source(extent), mode="r", container_options=options, metadata_errors="replace")


def _has_small_packets(container: InputContainer) -> bool:
    packets = islice(packets_of(container, container.streams), 1_000)
    sizes = [packet.size for packet in packets if packet is not None]
    return sum(sizes) < _SMALL_PACKET_BYTES * len(sizes)


def _codec_tag(track: av.AudioStream) -> str:
    try:
        return track.codec_context.codec_tag
    except UnicodeDecodeError:  # a number, as in a wav
        return ""
