"""Audio in: any sound or video file, or its bytes, as a stream of blocks of its channels at the model's sample rate."""

import ctypes
import errno
import io
import os
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, closing, contextmanager, suppress
from dataclasses import dataclass, field
from fractions import Fraction
from functools import partial
from itertools import chain, groupby, islice
from operator import itemgetter
from pathlib import Path
from queue import SimpleQueue
from threading import Semaphore, Thread
from typing import BinaryIO, Literal, NamedTuple, TypeVar

import av
import numpy as np
from av.container import InputContainer
from av.filter import Graph

from crnn import foreign

SAMPLE_RATE = 22_050  # Hz
MIN_SECONDS = 1.0
MAX_SECONDS = 15 * 60
# What to look for in folders, without .ts, which is mostly a program; a single file is tried whatever its name.
SUFFIXES = frozenset(
    ".3g2 .3gp .aa3 .aac .ac3 .aif .aifc .aiff .amr .ape .asf .au .avi .awb .bwf .caf .dff .dsf .dts "  # noqa: SIM905
    ".dtshd .eac3 .ec3 .f4v .flac .flv .m2ts .m4a .m4b .m4r .m4v .mka .mkv .mlp .mov .mp2 .mp3 .mp4 .mpc "
    ".mpeg .mpg .mts .oga .ogg .ogv .oma .opus .qoa .ra .rf64 .rm .rmvb .shn .snd .spx .tak .thd .tta "
    ".vob .voc .w64 .wav .weba .webm .wma .wmv .wv".split()
)

# What FFmpeg may do with a file: use one of these demuxers and open nothing else. Playlists and scripts (hls, concat,
# sdp, dash) would make it open the addresses and paths that they name.
_CONTAINER_OPTIONS = {
    "format_whitelist": "aac,ac3,aiff,amr,ape,asf,au,avi,caf,dsf,dts,dtshd,eac3,flac,flv,iff,matroska,mlp,mov,mp3,mpc,"
    "mpc8,mpeg,mpegts,nistsphere,ogg,oma,qoa,rm,shn,tak,truehd,tta,voc,w64,wav,wv",
    "protocol_whitelist": "none",
}
# Of packets that FFmpeg keeps to find the tracks it takes half a kilobyte for each, even of those that hold one byte.
_PROBED_BYTES, _MOST_PROBED_BYTES = 1_000_000, 5_000_000
_SMALL_PACKET_BYTES = 64
_MOST_ALLOCATED_BYTES = 2**28  # by FFmpeg in one piece: it would take, and clear, the 4 GB that a tag says it has
_KNOWN_FORMATS = "wav, mp3, flac, ogg, opus, m4a, aac, webm, aiff, wma"

# Within 0.1 dB up to 10 kHz, and below -95 dB from 12 kHz on (at 22 050 Hz out).
_RESAMPLER = "filter_size=64:filter_type=kaiser:kaiser_beta=9:cutoff=0.97:internal_sample_fmt=fltp"

_LOWEST_RATE_HZ, _HIGHEST_RATE_HZ = 4_000, 2_822_400  # of DSD, FFmpeg makes an eighth of its bits a second
_LARGEST_SAMPLE = 2.0**32  # float files are sometimes scaled like 32-bit integers; above this a sample is damage
_SOUNDING = 10 ** (-70 / 20)  # a track that stays below this is silent: hiss of 16 bits, a codec's rounding
_SECONDS_TO_SOUND = 600.0  # in which a track has to, where there are several
_PREROLL_SECONDS = 1.0  # that decoders and resampler may need before a passage
_BRIEF_PREROLL_SECONDS = 0.2  # that suffices where a few samples more or less do not matter
# As much is decoded of a file as packets with this many bytes for a second may hold, yet half an hour of any and no
# more than twelve hours: compressed silence of a day has few bytes. Codecs for speech have fewer yet, music has not.
# The file's own size would tell too much: it may be a film's, or that of the heads of countless packets.
_FEWEST_BYTES_A_SECOND = 2_000
_LEAST_SECONDS, _MOST_SECONDS = 1_800.0, 43_200.0
_SAMPLES_A_SECOND = 2 * 48_000  # of all channels together; more of them, or a new packet, take as long as more seconds
_PACKET_SECONDS = 0.02
_SHARE_THAT_MAY_MISS = 0.02
_SHARE_THAT_IS_NEEDED = 1 / 3
_MUCH_LONGER = 1.5  # times as long as its passages is a song that is worth the trouble
_PADDING_SECONDS = 0.5  # encoders count their delay and padding differently

_BLOCK_SAMPLES = 2**16
_BATCH_SAMPLES = 2**15  # of what passes from the decoder to the resampler at once
_PULLED_SAMPLES = 2**14  # and from FFmpeg to NumPy: what fits a cache is faster
_AHEAD = 3  # batches and blocks that may wait

_UNKNOWN_BYTES = 0x7F00_0000  # recorders that write to a pipe announce this or more in 32 bits
_MOST_CHUNKS = 1_000
_MATROSKA, _MATROSKA_SEGMENT = b"\x1a\x45\xdf\xa3", b"\x18\x53\x80\x67"
_ASF_FILE_PROPERTIES = bytes.fromhex("a1dcab8c47a9cf118ee400c00c205365")
# Their demuxers take the duration from the header; the others often estimate it from the size of the file.
_TIMED_FORMATS = frozenset("aiff ape au flac mov nistsphere rm tta wv".split())  # noqa: SIM905

with suppress(AttributeError):  # on Windows the libraries of a module are not looked through
    _max_alloc = ctypes.CDLL(av._core.__file__).av_max_alloc
    _max_alloc.argtypes, _max_alloc.restype = [ctypes.c_size_t], None
    _max_alloc(_MOST_ALLOCATED_BYTES)

T = TypeVar("T")
Opener = Callable[..., AbstractContextManager["Sound"]]  # `open_audio`, or what opens files elsewhere as it does


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


class _Fault(Exception):  # noqa: N818 - open_audio makes an error of it
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


class Passages(NamedTuple):
    """That a song is heard in so many passages, spread evenly over it, rather than as a whole."""

    count: int
    seconds: float  # of each

    def starts_seconds(self, duration_seconds: float) -> tuple[float, ...]:
        """Where they begin, about the middles of as many equal parts of a song that lasts so long."""
        middles = ((number + 0.5) * duration_seconds / self.count for number in range(self.count))
        return tuple(middle - self.seconds / 2 for middle in middles)


@contextmanager
def open_audio(
    source: str | os.PathLike | bytes,
    sample_rate: int = SAMPLE_RATE,
    start_seconds: float = 0.0,
    passages: Passages | None = None,
) -> Iterator["Sound"]:
    """Open a local sound or video file, to decode it block by block in memory that its duration does not change.

    Everything that `_CONTAINER_OPTIONS` lets in is read, at 4 kHz to 2.8 MHz. Of several audio tracks the container's
    default is heard, or its first, unless it is silent for ten minutes in which another sounds. Integers are scaled
    to [-1, 1); floats keep their scale, also beyond 1, but NaN and infinity become 0.

    A file says how long it should be in seconds (`_TIMED_FORMATS`) or in bytes (wav, rf64, w64, caf, dsf, dff and avi
    by the size of their data, wma, webm and mkv, mp3 with a Xing or Info header, the last page of an ogg), and damaged
    packets, which are skipped, count as missing. If more than 2 % are missing (and of seconds, half a one),
    `Sound.notices` says so; if less than a third is there, the file is refused. Others do not say it (aac, mp3 without
    that header, live recordings), so that what they hold is used. Of a file that decodes to more than twelve
    hours, or to an unlikely length for the size of its packets, the beginning is heard, and a notice says so.

    Args:
        source: the path of a regular file, or the bytes of one; never an address, which is not opened.
        sample_rate: of the blocks, in Hz.
        start_seconds: where they begin.
        passages: decode these alone, one block each. There is none of a song that is hardly longer, or of which it is
            not known how long it is.

    Raises:
        AudioError: no such file, or one that is no sound or is known to be damaged before it is decoded.
    """
    with open_file(source) as (file, name), open_sound(file, name, sample_rate, start_seconds, passages) as sound:
        yield sound


@contextmanager
def open_file(source: str | os.PathLike | bytes) -> Iterator[tuple[BinaryIO, str]]:
    """What `open_audio` reads, as a file that can be sought in, and what to call it. Raises AudioError."""
    name = "The audio" if isinstance(source, bytes) else Path(source).name or "This path"
    with _explained(name):
        file = _open_file(source)
    with file:
        yield file, name


@contextmanager
def open_sound(
    file: BinaryIO, name: str, sample_rate: int, start_seconds: float, passages: Passages | None = None
) -> Iterator["Sound"]:
    """What `open_audio` gives, from a file that is open. Raises AudioError."""
    with _explained(name):
        sound = Sound(file, name, sample_rate, start_seconds, passages)
    try:
        yield sound
    finally:
        sound.close()


def load_audio(
    source: str | os.PathLike | bytes,
    sample_rate: int = SAMPLE_RATE,
    max_seconds: float = MAX_SECONDS,
    start_seconds: float = 0.0,
    opener: Opener = open_audio,
) -> np.ndarray:
    """The blocks of `open_audio` joined: a waveform of shape (channels, samples), float32, contiguous and writable.

    It is up to `max_seconds` long; what follows is neither used nor checked. `opener` opens it as `open_audio` does.

    Raises:
        AudioError: no such file, or one that is no sound, damaged, mostly missing, empty or shorter than 1 s.
    """
    max_samples = round(max_seconds * sample_rate)
    blocks, n_samples = [], 0
    with opener(source, sample_rate, start_seconds) as sound:
        for block in sound.blocks():
            blocks.append(block)
            n_samples += block.shape[1]
            if n_samples >= max_samples:
                blocks[-1] = block[:, : block.shape[1] - (n_samples - max_samples)]
                break
    return np.concatenate(blocks, axis=1)


class Sound:
    """A file that `open_audio` has opened.

    Attributes:
        sample_rate: of the blocks, in Hz.
        notices: what to know about an answer from it; complete when the blocks have ended.
        starts_seconds: where each block begins, if they are passages; likewise.
        duration_seconds: of the song, if the blocks are passages of it.
    """

    def __init__(
        self, file: BinaryIO, name: str, sample_rate: int, start_seconds: float, passages: Passages | None = None
    ) -> None:
        self.sample_rate = sample_rate
        self.notices: tuple[Notice, ...] = ()
        self.starts_seconds: tuple[float, ...] = ()
        self.duration_seconds: float | None = None
        self._passages, self._end_seconds = passages, None
        self._file, self._name, self._start_seconds = file, name, start_seconds
        self._blocks: Iterator[np.ndarray] | None = None
        self._began_seconds = 0.0  # where decoding did, which is before `start_seconds`
        self._ended_seconds = 0.0  # by the file's own clock, which goes on in a hole
        self._n_packets = self._n_damaged = 0
        self._spent_seconds, self._spent_bytes = 0.0, 0  # decoded, and as how many bytes of packets
        self._is_left = False  # before its end
        self._byte_share = _byte_share(file)
        self._is_cut = self._byte_share < 1 or _is_cut_ogg(file)
        self._container = _open_container(file, is_fast=passages is not None)
        try:
            self._stream = self._choose_track()
            if self._byte_share < _SHARE_THAT_IS_NEEDED:
                raise _missing_end()
        except BaseException:
            self._container.close()
            raise

    def blocks(self) -> Iterator[np.ndarray]:
        """The sound from its start, once: blocks of shape (channels, samples), float32, contiguous and writable.

        All have as many channels as the first. They have 2**16 samples, except where a file changes its format and at
        its end, and are decoded ahead by threads.

        Raises:
            AudioError: a file that is damaged, mostly missing, empty or shorter than 1 s.
        """
        if self._blocks is not None:
            raise RuntimeError("the blocks of a sound are read once: open it again")
        self._blocks = self._passage_blocks(self._passages) if self._passages else self._checked_blocks()
        return self._blocks

    def close(self) -> None:
        """End the threads that decode."""
        if self._blocks is not None:
            self._blocks.close()
        self._container.close()

    def _choose_track(self) -> av.AudioStream:
        """The default of the tracks that can be decoded, or the first that sounds."""
        tracks = _decodable_tracks(self._container, self._file)
        best = self._container.streams.best("audio")
        tracks.sort(key=lambda track: best is None or track.index != best.index)
        if len(tracks) == 1:
            return tracks[0]
        indices = [track.index for track in tracks]
        index = self._first_that_sounds(tracks)
        self._spent_seconds, self._spent_bytes = 0.0, 0
        self._reopen()
        tracks = self._container.streams.audio
        chosen = self._container.streams[indices[0] if index is None else index]
        values = {
            "count": len(tracks),
            "track": _describe_track(tracks.index(chosen) + 1, chosen.metadata),
        }
        if index in (None, indices[0]):
            self.notices += (Notice("Of its {count} audio tracks, this answer is for track {track}.", values),)
        else:
            values["silent"] = str([track.index for track in tracks].index(indices[0]) + 1)
            self.notices += (
                Notice(
                    "Of its {count} audio tracks, this answer is for track {track}: track {silent} is silent.", values
                ),
            )
        return chosen

    def _first_that_sounds(self, tracks: list[av.AudioStream]) -> int | None:
        """The index of the first of `tracks` that sounds within `_SECONDS_TO_SOUND`; None if none does."""
        indices = [track.index for track in tracks]
        sounding = set()
        try:
            for packet in _packets(self._container, tracks):
                index = packet.stream.index
                if packet.pts is not None and packet.pts * packet.time_base > _SECONDS_TO_SOUND:
                    break
                if self._is_spent():
                    break
                if index in sounding:
                    continue
                try:
                    frames = self._decode(packet)
                except av.FFmpegError:
                    continue
                if any(_peak(frame) > _SOUNDING for frame in frames):
                    sounding.add(index)
                    if index == indices[0]:
                        break
        except av.FFmpegError:  # what follows is heard, or not, when it is decoded
            pass
        return next((index for index in indices if index in sounding), None)

    def _reopen(self) -> None:
        self._container.close()
        self._file.seek(0)
        self._container = _open_container(self._file)

    def _passage_blocks(self, passages: Passages) -> Iterator[np.ndarray]:
        """The passages of a song that is long enough, a block each."""
        duration_seconds = _duration_seconds(self._container, self._stream)
        if duration_seconds > _MUCH_LONGER * passages.count * passages.seconds:
            for start_seconds in passages.starts_seconds(duration_seconds):
                self._start_seconds, self._end_seconds = start_seconds, start_seconds + passages.seconds
                self._began_seconds = 0.0
                blocks = list(self._checked_blocks())
                if blocks and sum(block.shape[1] for block in blocks) >= MIN_SECONDS * self.sample_rate:
                    self.starts_seconds += (self._start_seconds,)
                    self.duration_seconds = duration_seconds
                    yield np.concatenate(blocks, axis=1)

    def _checked_blocks(self) -> Iterator[np.ndarray]:
        """The blocks from `start_seconds` on, and a look at the length when they end."""
        n_samples = 0
        with _explained(self._name), closing(self._ahead(self._resampled_blocks())) as blocks:
            for block in blocks:
                first, end = (
                    None if seconds is None else round((seconds - self._began_seconds) * self.sample_rate) - n_samples
                    for seconds in (self._start_seconds, self._end_seconds)
                )
                n_samples += block.shape[1]
                heard = block[:, max(0, first) : None if end is None else max(0, end)]
                if heard.shape[1]:
                    yield np.ascontiguousarray(heard)
            if self._end_seconds is None:
                self._check_length(self._began_seconds + n_samples / self.sample_rate)

    def _ahead(self, items: Iterator[T]) -> Iterator[T]:
        """As `_ahead`, but of passages, which are over before threads for them would pay."""
        return items if self._passages else _ahead(items)

    def _check_length(self, seconds: float) -> None:
        if self._is_left:
            if seconds - self._start_seconds < MIN_SECONDS:
                raise _Fault("{name} takes too long to decode: save it as flac or mp3 first.")
            time = f"{seconds // 60:.0f}:{int(seconds % 60):02d}"
            self.notices += (
                Notice(
                    "Only its first {time} minutes are heard: of a file like this, no more is decoded.", {"time": time}
                ),
            )
            return
        promised_seconds = _promised_seconds(self._container, self._stream)
        share = min(self._byte_share, 1 - self._n_damaged / max(1, self._n_packets))
        if _is_too_short(seconds, promised_seconds):
            share = min(share, seconds / promised_seconds)
        is_incomplete = self._is_cut or share < 1 - _SHARE_THAT_MAY_MISS
        if seconds == 0 and self._n_damaged and not promised_seconds:  # no packet was one
            raise _by_name(self._file, _no_sound_file())
        if is_incomplete and (share < _SHARE_THAT_IS_NEEDED or round(seconds, 2) < MIN_SECONDS):
            raise _by_name(self._file, _missing_end())
        if seconds == 0:
            raise _by_name(self._file, _Fault("{name} holds no sound: its audio track is empty."))
        if round(seconds, 2) < MIN_SECONDS or seconds - self._start_seconds < 1 / self.sample_rate:
            raise _Fault(
                "{name} lasts only {seconds} s: at least {least} s is needed.",
                seconds=f"{seconds:.2f}",
                least=f"{self._start_seconds + MIN_SECONDS:g}",
            )
        if is_incomplete:
            is_cut = self._is_cut or _is_too_short(self._ended_seconds, promised_seconds)
            values = {"seconds": f"{seconds:.0f}"}
            self.notices += (
                Notice("Its end is missing: this answer is from the {seconds} s that are there.", values)
                if is_cut
                else Notice("Some of it is damaged: this answer is from the {seconds} s that can be read.", values),
            )

    def _resampled_blocks(self) -> Iterator[np.ndarray]:
        n_channels = 0
        with closing(self._ahead(self._batches())) as batches:
            for kind, same_kind in groupby(batches, key=itemgetter(0)):
                if not _LOWEST_RATE_HZ <= kind.rate_hz <= _HIGHEST_RATE_HZ:
                    raise _Fault(
                        "{name} claims a sample rate of {rate} Hz: 8 000 to 192 000 Hz work.", rate=kind.rate_hz
                    )
                n_channels = n_channels or kind.n_channels
                pieces = _resample((frames for _, frames in same_kind), kind, self.sample_rate)
                for block in _join(pieces, kind.n_channels):
                    yield _with_channels(_mend(block), n_channels)

    def _batches(self) -> Iterator[tuple["_Kind", list[av.AudioFrame]]]:
        """Frames of one kind, some at a time: a file may change its rate and its channels on the way."""
        batch, batch_kind, n_samples = [], None, 0
        for frame in self._frames_before_start():
            if self._end_seconds is not None and (_seconds_of(frame, self._stream) or 0.0) > self._end_seconds:
                break
            kind = _Kind(frame.format.name, frame.layout.name, frame.layout.nb_channels, frame.sample_rate)
            if batch and (kind != batch_kind or n_samples >= _BATCH_SAMPLES):
                yield batch_kind, batch
                batch, n_samples = [], 0
            batch_kind = kind
            batch.append(frame)
            n_samples += frame.samples
        if batch:
            self._ended_seconds = (_seconds_of(batch[-1], self._stream) or 0) + batch[-1].samples / batch_kind.rate_hz
            yield batch_kind, batch

    def _frames_before_start(self) -> Iterator[av.AudioFrame]:
        """From a little before `start_seconds` if the format can be entered there, else from the beginning."""
        is_brief = self._passages is not None
        target_seconds = self._start_seconds - (_BRIEF_PREROLL_SECONDS if is_brief else _PREROLL_SECONDS)
        if target_seconds > 0:
            beginning = self._stream.start_time or 0
            try:
                self._container.seek(beginning + int(target_seconds / self._stream.time_base), stream=self._stream)
                frames = self._frames()
                first = next(frames, None)
            except av.FFmpegError:
                first = None
            began_seconds = None if first is None else _seconds_of(first, self._stream)
            if began_seconds is not None and 0 <= began_seconds <= self._start_seconds:
                self._began_seconds = began_seconds
                return chain([first], frames)
            self._enter_anew()
        return self._frames()

    def _enter_anew(self) -> None:
        """From the beginning, as if nothing had been decoded."""
        index = self._stream.index
        self._reopen()
        self._stream = self._container.streams[index]
        self._n_packets = self._n_damaged = 0

    def _frames(self) -> Iterator[av.AudioFrame]:
        takes_any_float = self._stream.codec_context.codec.name.startswith(("pcm_f", "wavpack"))
        packets = _packets(self._container, [self._stream])
        while True:
            try:
                packet = next(packets, None)
            except av.FFmpegError:
                self._is_cut = True
                return
            if packet is None:
                return
            if self._is_spent():
                self._is_left = True
                return
            self._n_packets += 1
            try:
                frames = self._decode(packet)
            except av.FFmpegError:
                self._n_damaged += 1
                continue
            for frame in frames:
                if takes_any_float:
                    _mend_frame(frame)
                yield frame

    def _decode(self, packet: av.Packet) -> list[av.AudioFrame]:
        """The frames of a packet, which use up what may be spent."""
        spent_seconds = 0.0
        try:
            frames = packet.decode()
            for frame in frames:
                n_samples = frame.samples * frame.layout.nb_channels
                spent_seconds += max(frame.samples / max(frame.sample_rate, 1), n_samples / _SAMPLES_A_SECOND)
            return frames
        finally:
            self._spent_seconds += max(spent_seconds, _PACKET_SECONDS)
            self._spent_bytes += packet.size

    def _is_spent(self) -> bool:
        """Whether as much has been decoded as may be."""
        allowed_seconds = max(_LEAST_SECONDS, self._spent_bytes / _FEWEST_BYTES_A_SECOND)
        return self._spent_seconds > min(allowed_seconds, _MOST_SECONDS)


class _Kind(NamedTuple):
    """What a resampler is made for."""

    sample_format: str
    layout: str
    n_channels: int
    rate_hz: int


def _ahead(items: Iterator[T]) -> Iterator[T]:
    """The items, while a thread makes those that follow: FFmpeg does not hold Python's lock."""
    made, room = SimpleQueue(), Semaphore(_AHEAD)
    is_over = False

    def make() -> None:
        with closing(items):
            try:
                for item in items:
                    made.put((item, None))
                    room.acquire()
                    if is_over:
                        return
                made.put((None, None))
            except BaseException as error:  # raised in the thread that waits
                made.put((None, error))

    thread = Thread(target=make, name="decoding", daemon=True)
    thread.start()
    try:
        while True:
            item, error = made.get()
            if error is not None:
                raise error
            if item is None:
                return
            yield item
            room.release()
    finally:
        is_over = True
        room.release()
        thread.join()


@contextmanager
def _explained(name: str) -> Iterator[None]:
    try:
        yield
    except AudioError:
        raise
    except _Fault as fault:
        raise AudioError(fault.message, name=name, **fault.values) from fault.__cause__
    except (av.FFmpegError, OSError, ValueError, MemoryError) as error:
        raise AudioError(
            "{name} cannot be decoded: it is damaged or incomplete, so fetch or export it again.", name=name
        ) from error


def _open_file(source: str | os.PathLike | bytes) -> BinaryIO:
    file = io.BytesIO(source) if isinstance(source, bytes) else _open_path(Path(source))
    if not file.read(1):
        file.close()
        raise _Fault("{name} is empty (0 bytes): record, fetch or export it again.")
    file.seek(0)
    return file


def _open_path(path: Path) -> BinaryIO:
    name = path.name or "This path"
    try:
        if not path.exists():
            raise AudioError(
                "{name} was not found: give the path of a file on this computer, not an address.", name=name
            )
        if not path.is_file():
            raise AudioError("{name} is a directory or a device: give the path of one sound file.", name=name)
        return path.open("rb")
    except OSError as error:
        raise AudioError(
            "{name} cannot be opened ({why}): check the path and your right to read it.", name=name, why=error.strerror
        ) from error


class _Source:
    """A file as FFmpeg reads it: without its name, and places that are none are told rather than raised.

    PyAV would print what is raised there.
    """

    def __init__(self, file: BinaryIO) -> None:
        self.read, self.tell, self._seek = file.read, file.tell, file.seek

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        """Where it is then, or a negative number."""
        try:
            return self._seek(offset, whence)
        except (OSError, ValueError, OverflowError):
            return -errno.EINVAL


def _open_container(file: BinaryIO, is_fast: bool = False) -> InputContainer:
    """`is_fast`: where there is no index, places are guessed from the bit rate rather than looked for."""
    options = _CONTAINER_OPTIONS | ({"fflags": "fastseek"} if is_fast else {})
    try:
        container = _probed(file, options, _PROBED_BYTES)
        if not container.streams.audio and not _has_small_packets(container):  # a video whose sound begins late
            container.close()
            file.seek(0)
            container = _probed(file, options, _MOST_PROBED_BYTES)
        return container
    except av.FFmpegError as error:
        if error.errno == errno.EINVAL:  # a format outside the whitelist
            fault = _Fault(
                "{name} is of a kind that is not read here: {formats} files work, and so do videos with sound.",
                formats=_KNOWN_FORMATS,
            )
        else:
            fault = _no_sound_file()
        if _read_at(file, 4, 4) == b"ftyp":  # of an mp4, whose index is often at its end
            fault = _missing_end()
        raise _by_name(file, fault) from error


def _probed(file: BinaryIO, options: dict[str, str], n_bytes: int) -> InputContainer:
    options = options | {"probesize": str(n_bytes)}
    return av.open(_Source(file), mode="r", container_options=options, metadata_errors="replace")


def _has_small_packets(container: InputContainer) -> bool:
    sizes = [packet.size for packet in islice(_packets(container, container.streams), 1_000)]
    return sum(sizes) < _SMALL_PACKET_BYTES * len(sizes)


def _by_name(file: BinaryIO, fault: _Fault) -> _Fault:
    """What a file that has this fault is, if that is known, else the fault."""
    found = foreign.what_it_is(_read_at(file, 0, foreign.HEAD_BYTES))
    return fault if found is None else _Fault(found[0], kind=found[1])


def _decodable_tracks(container: InputContainer, file: BinaryIO) -> list[av.AudioStream]:
    tracks = container.streams.audio
    if not tracks:
        raise _by_name(
            file,
            _Fault(
                "{name} has no audio track: {formats} files work, and so do videos with sound.", formats=_KNOWN_FORMATS
            ),
        )
    head = _read_at(file, 0, foreign.HEAD_BYTES)
    decodable = [track for track in tracks if track.codec_context is not None]
    for track in decodable:
        if kind := foreign.protection(head, _codec_tag(track)):
            raise _Fault(foreign.PROTECTED, kind=kind)
    if not decodable:
        raise _Fault(
            "{name} is encoded in a way that cannot be decoded here: {formats} files work, and so do videos with "
            "sound.",
            formats=_KNOWN_FORMATS,
        )
    return decodable


def _codec_tag(track: av.AudioStream) -> str:
    try:
        return track.codec_context.codec_tag
    except UnicodeDecodeError:  # a number, as in a wav
        return ""


def _packets(container: InputContainer, tracks: list[av.AudioStream]) -> Iterator[av.Packet]:
    try:
        yield from container.demux(*tracks)
    except IndexError:  # PyAV ends so where a file's other tracks showed up late
        return


def _peak(frame: av.AudioFrame) -> float:
    """The largest sample, as a share of full scale."""
    samples = frame.to_ndarray()
    if samples.dtype.kind == "f":
        return float(np.nan_to_num(np.abs(samples)).max(initial=0))
    scale = 2.0 ** (8 * samples.dtype.itemsize - 1)
    return (
        float(np.abs(samples.astype(np.float64) - (scale if samples.dtype.kind == "u" else 0)).max(initial=0)) / scale
    )


def _describe_track(number: int, tags: dict[str, str]) -> str:
    """As "2", or "2 (eng, Director's comment)"."""
    words = [tags[key] for key in ("language", "title", "handler_name") if tags.get(key)]
    words = [word for word in words if word not in ("und", "SoundHandler")]
    return f"{number} ({', '.join(words)})" if words else str(number)


def _resample(batches: Iterable[list[av.AudioFrame]], kind: _Kind, to_hz: int) -> Iterator[av.AudioFrame]:
    """All channels alike in one filter, as frames of float32: planar if `_is_planar`, else interleaved."""
    sample_format = "fltp" if _is_planar(kind.n_channels) else "flt"
    graph = Graph()
    source = graph.add_abuffer(
        format=kind.sample_format,
        layout=kind.layout,
        sample_rate=kind.rate_hz,
        time_base=Fraction(1, kind.rate_hz),
    )
    resampler = graph.add("aresample", f"{to_hz}:out_sample_fmt={sample_format}:{_RESAMPLER}")
    collector, sink = graph.add("asetnsamples", f"n={_PULLED_SAMPLES}:p=0"), graph.add("abuffersink")
    graph.link_nodes(source, resampler, collector, sink).configure()
    for batch in chain(batches, [[None]]):  # None flushes the filter
        for frame in batch:
            source.push(frame)
        while (pulled := _pull(sink)) is not None:
            yield pulled


def _is_planar(n_channels: int) -> bool:
    return n_channels < 8  # PyAV counts the planes of more wrongly


def _pull(sink: "av.filter.context.FilterContext") -> av.AudioFrame | None:
    try:
        return sink.pull()
    except (av.error.BlockingIOError, av.error.EOFError):  # wants more, or is done
        return None


def _join(frames: Iterable[av.AudioFrame], n_channels: int) -> Iterator[np.ndarray]:
    """Blocks of `_BLOCK_SAMPLES` or some more, shape (channels, samples), and what remains."""
    collected, n_samples = [], 0
    for frame in frames:
        collected.append(frame)
        n_samples += frame.samples
        if n_samples >= _BLOCK_SAMPLES:
            yield _to_block(collected, n_channels, n_samples)
            collected, n_samples = [], 0
    if collected:
        yield _to_block(collected, n_channels, n_samples)


def _to_block(frames: list[av.AudioFrame], n_channels: int, n_samples: int) -> np.ndarray:
    block = np.empty((n_channels, n_samples), np.float32)
    start = 0
    for frame in frames:
        piece = block[:, start : start + frame.samples]
        if _is_planar(n_channels):
            for channel, plane in zip(piece, frame.planes, strict=True):
                channel[:] = np.frombuffer(plane, np.float32, frame.samples)
        else:
            piece[:] = np.frombuffer(frame.planes[0], np.float32, frame.samples * n_channels).reshape(-1, n_channels).T
        start += frame.samples
    return block


def _with_channels(block: np.ndarray, n_channels: int) -> np.ndarray:
    """Channels that are too many are averaged in turn; those that are too few repeat themselves."""
    if len(block) == n_channels:
        return block
    if len(block) < n_channels:
        return block[np.arange(n_channels) % len(block)]
    return np.stack([block[channel::n_channels].mean(axis=0) for channel in range(n_channels)])


def _mend(samples: np.ndarray) -> np.ndarray:
    """0 in place of NaN, infinity and what is too large to be sound, in place."""
    if samples.size and not (samples.max() < _LARGEST_SAMPLE and samples.min() > -_LARGEST_SAMPLE):  # NaN, too
        samples[~(np.abs(samples) < _LARGEST_SAMPLE)] = 0
    return samples


def _mend_frame(frame: av.AudioFrame) -> None:
    """The same before such samples spread in the resampler, for codecs that keep whatever float they are given."""
    if frame.format.name.startswith(("flt", "dbl")):
        frame.make_writable()
        for plane in frame.planes[: frame.layout.nb_channels if frame.format.is_planar else 1]:
            _mend(np.frombuffer(plane, np.float32 if frame.format.name.startswith("flt") else np.float64))


def _seconds_of(frame: av.AudioFrame, stream: av.AudioStream) -> float | None:
    """When a frame begins, counted from the beginning of its track."""
    if frame.time is None:
        return None
    return frame.time - float((stream.start_time or 0) * stream.time_base)


def _no_sound_file() -> _Fault:
    return _Fault(
        "{name} is damaged or incomplete, or no sound file at all: {formats} files work, and so do videos with sound.",
        formats=_KNOWN_FORMATS,
    )


def _missing_end() -> _Fault:
    return _Fault("{name} is damaged or incomplete, its end is missing: fetch or export it again.")


def _promised_seconds(container: InputContainer, stream: av.AudioStream) -> float:
    """The duration in the file's header; 0 where there is none, and FFmpeg's is often an estimate."""
    if container.format.name.split(",")[0] in _TIMED_FORMATS and stream.duration:
        return float(stream.duration * stream.time_base)
    return 0.0


def _duration_seconds(container: InputContainer, stream: av.AudioStream) -> float:
    """The duration as FFmpeg knows or estimates it; 0 where it does neither."""
    if stream.duration:
        return float(stream.duration * stream.time_base)
    return (container.duration or 0) / av.time_base


def _is_too_short(seconds: float, promised_seconds: float) -> bool:
    return promised_seconds - seconds > max(_PADDING_SECONDS, _SHARE_THAT_MAY_MISS * promised_seconds)


def _byte_share(file: BinaryIO) -> float:
    """How much is there of the bytes that a file announces, which FFmpeg does not tell; 1 where it announces none."""
    n_bytes = _size(file)
    n_tag_bytes = _id3_bytes(_read_at(file, 0, 10))
    head = _read_at(file, n_tag_bytes, 4_096)
    beginning, size = _announced_data(file, n_tag_bytes, head)
    share = max(0, n_bytes - beginning) / size if size else 1.0
    return share if share < 1 - _SHARE_THAT_MAY_MISS else 1.0


def _announced_data(file: BinaryIO, n_tag_bytes: int, head: bytes) -> tuple[int, int]:
    """Where the data of a file begin and how many bytes they should have; 0 where this is not said."""
    chunked = next((chunked for magic, chunked in _CHUNKED.items() if head.startswith(magic)), None)
    if chunked is not None:
        return _data_chunk(file, n_tag_bytes, chunked)
    if (properties := head.find(_ASF_FILE_PROPERTIES)) >= 0:
        return n_tag_bytes, _number(head, properties + 40, 8, "little")
    if head.startswith(_MATROSKA) and (segment := head.find(_MATROSKA_SEGMENT)) >= 0:
        # Its size, in as many bytes, follows a leading 1 bit (RFC 8794).
        width = 9 - _number(head, segment + 4, 1).bit_length()
        unknown = (1 << 7 * width) - 1
        size = _number(head, segment + 4, width) & unknown
        return n_tag_bytes + segment, size if size < unknown else 0
    xing = max(head.find(name, 0, 200) for name in (b"Xing", b"Info"))
    if head.startswith(b"\xff") and xing >= 0 and _number(head, xing + 4, 4) & 3 == 3:  # both the frames and the bytes
        return n_tag_bytes, _number(head, xing + 12, 4)
    return 0, 0


class _Chunked(NamedTuple):
    """How a format of chunks writes them: a name, a size and so many bytes."""

    first: int  # where the first one begins
    name_bytes: int
    size_bytes: int
    order: Literal["big", "little"]
    sizes_with_head: bool = False
    aligned: int = 1
    data: tuple[bytes, ...] = (b"data",)


_CHUNKED = {
    b"RIFF": _Chunked(12, 4, 4, "little", aligned=2),
    b"RF64": _Chunked(12, 4, 4, "little", aligned=2),
    b"BW64": _Chunked(12, 4, 4, "little", aligned=2),
    b"riff": _Chunked(40, 16, 8, "little", sizes_with_head=True, aligned=8),  # w64, which has GUIDs as names
    b"caff": _Chunked(8, 4, 8, "big"),
    b"DSD ": _Chunked(28, 4, 8, "little", sizes_with_head=True),  # dsf
    b"FRM8": _Chunked(16, 4, 8, "big", aligned=2, data=(b"DSD ", b"DST ")),
}


def _data_chunk(file: BinaryIO, beginning: int, chunked: _Chunked) -> tuple[int, int]:
    """Where the data chunk's content begins, and its size; 0 where there is none, or it is not known yet."""
    position, long_size = beginning + chunked.first, 0
    head_bytes = chunked.name_bytes + chunked.size_bytes
    n_bytes = _size(file)
    for _ in range(_MOST_CHUNKS):
        if position >= n_bytes:
            break
        head = _read_at(file, position, head_bytes + 16)
        name, size = head[:4], _number(head, chunked.name_bytes, chunked.size_bytes, chunked.order)
        if len(head) < head_bytes:
            break
        if name == b"ds64":  # of an RF64, whose own sizes are all ones
            long_size = _number(head, head_bytes + 8, 8, "little")
        size = size - head_bytes if chunked.sizes_with_head else size
        if name in chunked.data or (name == b"LIST" and head[head_bytes : head_bytes + 4] == b"movi"):  # of an avi
            is_unknown = size >= (_UNKNOWN_BYTES if chunked.size_bytes == 4 else 1 << 62)
            return position + head_bytes, long_size if is_unknown else size
        position += head_bytes + size + -size % chunked.aligned
    return 0, 0


def _read_at(file: BinaryIO, position: int, n_bytes: int) -> bytes:
    """Bytes from a place of a file that FFmpeg may be reading elsewhere."""
    before = file.tell()
    try:
        file.seek(position)
        return file.read(n_bytes)
    finally:
        file.seek(before)


def _size(file: BinaryIO) -> int:
    before = file.tell()
    try:
        return file.seek(0, os.SEEK_END)
    finally:
        file.seek(before)


def _id3_bytes(head: bytes) -> int:
    """The size of the ID3v2 tag that a file begins with; seven bits a byte."""
    if not head.startswith(b"ID3"):
        return 0
    return 10 + sum((byte & 0x7F) << shift for byte, shift in zip(head[6:10], (21, 14, 7, 0), strict=False))


def _is_cut_ogg(file: BinaryIO) -> bool:
    if not _read_at(file, _id3_bytes(_read_at(file, 0, 10)), 4).startswith(b"OggS"):
        return False
    n_bytes = _size(file)
    return _is_cut_page(_read_at(file, max(0, n_bytes - 65_536), 65_536))  # a page is no longer


def _number(data: bytes, at: int, n_bytes: int, order: Literal["big", "little"] = "big") -> int:
    return int.from_bytes(data[at : at + n_bytes], order)


def _is_cut_page(tail: bytes) -> bool:
    """Whether the last Ogg page lacks bytes; its 27-byte header ends with the number of segment sizes (RFC 3533)."""
    page = tail[max(0, tail.rfind(b"OggS")) :]
    if len(page) < 27:
        return True
    n_segments = page[26]
    return len(page) < 27 + n_segments + sum(page[27 : 27 + n_segments])
