"""Audio in: any sound or video file, or its bytes, to a mono waveform at the model's sample rate."""

import errno
import io
import os
from collections.abc import Iterable, Iterator
from fractions import Fraction
from functools import partial
from itertools import chain, groupby
from operator import itemgetter
from pathlib import Path
from typing import BinaryIO, Literal

import av
import numpy as np
from av.container import InputContainer
from av.filter import Graph

SAMPLE_RATE = 22_050  # Hz
MIN_SECONDS = 1.0
MAX_SECONDS = 15 * 60
# What to look for in folders; a single file is tried whatever its name.
SUFFIXES = frozenset(
    ".aac .aif .aiff .au .avi .caf .flac .m4a .mkv .mov .mp3 .mp4 .oga .ogg .opus .wav .webm .wma .wv".split()  # noqa: SIM905
)

# What FFmpeg may do with a file: use one of these demuxers and open nothing else. Playlists and scripts (hls, concat,
# sdp, dash) would make it open the addresses and paths that they name.
_CONTAINER_OPTIONS = {
    "format_whitelist": "aac,aiff,asf,au,avi,caf,flac,flv,matroska,mov,mp3,mpeg,mpegts,ogg,w64,wav,wv",
    "protocol_whitelist": "none",
}
_KNOWN_FORMATS = "wav, mp3, flac, ogg, opus, m4a, aac, webm, aiff, wma"

# Within 0.1 dB up to 10 kHz, and below -95 dB from 12 kHz on (at 22 050 Hz out).
_RESAMPLER = "filter_size=64:filter_type=kaiser:kaiser_beta=9:cutoff=0.97"

_LOWEST_RATE_HZ, _HIGHEST_RATE_HZ = 4_000, 768_000
_LARGEST_SAMPLE = 2.0**32  # float files are sometimes scaled like 32-bit integers; above this a sample is damage
_SHARE_THAT_MAY_MISS = 0.02
_PADDING_SECONDS = 0.5  # encoders count their delay and padding differently
_UNKNOWN_RIFF_BYTES = 0x7FFF_0000  # recorders that write to a pipe announce this or more
_MATROSKA, _MATROSKA_SEGMENT = b"\x1a\x45\xdf\xa3", b"\x18\x53\x80\x67"
_ASF_FILE_PROPERTIES = bytes.fromhex("a1dcab8c47a9cf118ee400c00c205365")


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


class _Fault(Exception):  # noqa: N818 - load_audio makes an error of it
    """What is wrong with a file whose {name} is not known here."""

    def __init__(self, message: str, **values: object) -> None:
        super().__init__(message)
        self.message, self.values = message, values


def load_audio(
    source: str | os.PathLike | bytes, sample_rate: int = SAMPLE_RATE, max_seconds: float = MAX_SECONDS
) -> np.ndarray:
    """Decode a local sound or video file to a mono waveform.

    Everything that `_CONTAINER_OPTIONS` lets in is read, at 4 to 768 kHz; of a video, its best audio track. Channels
    are averaged with equal weights, as librosa does: in-phase stereo keeps its level, anti-phase stereo cancels.
    Integers are scaled to [-1, 1); floats keep their scale, also beyond 1, but NaN and infinity become 0.

    A file that is cut short is refused where it says how long it should be: in seconds (flac, aiff, mp4, m4a) if more
    than 2 % and more than half a second are missing, or in bytes (wav, avi, wma, webm, mkv, mp3 with a Xing or Info
    header, the last page of an ogg) if more than 2 % are. Others do not say it (aac, mp3 without that header, live
    recordings), so that what they hold is used. Damaged packets are skipped, and their seconds count as missing.

    Args:
        source: the path of a regular file, or the bytes of one; never an address, which is not opened.
        sample_rate: of the waveform, in Hz.
        max_seconds: where decoding stops; what follows is neither used nor checked.

    Returns:
        The waveform, shape (samples,), float32, contiguous and writable, of 1 s to `max_seconds`.

    Raises:
        AudioError: no such file, or one that is no sound, damaged, cut short, empty or shorter than 1 s.
    """
    name = "The audio" if isinstance(source, bytes) else Path(source).name or "This path"
    max_samples = round(max_seconds * sample_rate)
    try:
        with _open_file(source) as file:
            return _read(file, sample_rate, max_samples)
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


def _read(file: BinaryIO, sample_rate: int, max_samples: int) -> np.ndarray:
    with _open_container(file) as container:
        stream = _best_stream(container)
        waveform = _collect(_decode(container, stream, sample_rate), max_samples)
        promised_seconds = _promised_seconds(container, stream)
    seconds = waveform.size / sample_rate
    if waveform.size < max_samples and (_is_too_short(seconds, promised_seconds) or _ends_too_early(file)):
        raise _Fault("{name} is damaged or incomplete, its end is missing: fetch or export it again.")
    if waveform.size == 0:
        raise _Fault("{name} holds no sound: its audio track is empty.")
    if waveform.size < max_samples and round(seconds, 2) < MIN_SECONDS:
        raise _Fault(
            "{name} lasts only {seconds} s: at least {least} s is needed.",
            seconds=f"{seconds:.2f}",
            least=f"{MIN_SECONDS:g}",
        )
    return waveform


def _open_container(file: BinaryIO) -> InputContainer:
    try:
        return av.open(file, mode="r", container_options=_CONTAINER_OPTIONS, metadata_errors="replace")
    except av.FFmpegError as error:
        if error.errno == errno.EINVAL:  # a format outside the whitelist
            raise _Fault(
                "{name} has no audio track, it looks like a picture, a text or a playlist: {formats} files work, and "
                "so do videos with sound.",
                formats=_KNOWN_FORMATS,
            ) from error
        raise _Fault(
            "{name} is damaged or incomplete, or no sound file at all: {formats} files work, and so do videos with "
            "sound.",
            formats=_KNOWN_FORMATS,
        ) from error


def _best_stream(container: InputContainer) -> av.AudioStream:
    stream = container.streams.best("audio")
    if stream is None:
        raise _Fault(
            "{name} has no audio track: {formats} files work, and so do videos with sound.", formats=_KNOWN_FORMATS
        )
    if stream.codec_context is None:
        raise _Fault(
            "{name} is encoded in a way that cannot be decoded here: {formats} files work, and so do videos with "
            "sound.",
            formats=_KNOWN_FORMATS,
        )
    return stream


def _collect(chunks: Iterable[np.ndarray], max_samples: int) -> np.ndarray:
    """Join chunks until `max_samples` are there, without asking for more."""
    collected = [np.zeros(0, np.float32)]
    n_missing = max_samples
    for chunk in chunks:
        collected.append(chunk)
        n_missing -= chunk.size
        if n_missing <= 0:
            break
    return np.concatenate(collected)[:max_samples]


def _decode(container: InputContainer, stream: av.AudioStream, sample_rate: int) -> Iterator[np.ndarray]:
    """Mono chunks at `sample_rate`; a file may change its own rate on the way."""
    for rate_hz, frames in groupby(_mono_frames(container, stream), key=itemgetter(0)):
        if not _LOWEST_RATE_HZ <= rate_hz <= _HIGHEST_RATE_HZ:
            raise _Fault("{name} claims a sample rate of {rate} Hz: 8 000 to 192 000 Hz work.", rate=rate_hz)
        yield from _resample((mono for _, mono in frames), rate_hz, sample_rate)


def _mono_frames(container: InputContainer, stream: av.AudioStream) -> Iterator[tuple[int, np.ndarray]]:
    for packet in container.demux(stream):
        try:
            frames = packet.decode()
        except av.FFmpegError:  # costs some milliseconds; too many of them show in the duration
            continue
        for frame in frames:
            yield frame.sample_rate, _to_mono(frame)


def _to_mono(frame: av.AudioFrame) -> np.ndarray:
    """The mean over the channels of one frame, shape (samples,), float32, integers scaled to [-1, 1)."""
    samples = frame.to_ndarray()  # (channels, samples), or (1, samples * channels) where they are interleaved
    if frame.format.is_packed:
        samples = samples.reshape(-1, frame.layout.nb_channels).T
    if samples.dtype.kind == "f":
        sane = np.abs(samples) < _LARGEST_SAMPLE  # false for NaN, too
        return np.where(sane, samples, 0).mean(axis=0, dtype=np.float32)
    scale = 2.0 ** (8 * samples.dtype.itemsize - 1)
    offset = scale if samples.dtype.kind == "u" else 0
    return (samples.mean(axis=0, dtype=np.float32) - np.float32(offset)) / np.float32(scale)


def _resample(chunks: Iterable[np.ndarray], from_hz: int, to_hz: int) -> Iterator[np.ndarray]:
    """Change the rate of a stream of chunks, shape (samples,); equal rates pass through untouched."""
    if from_hz == to_hz:
        yield from chunks
        return
    graph = Graph()
    source = graph.add_abuffer(format="fltp", layout="mono", sample_rate=from_hz, time_base=Fraction(1, from_hz))
    sink = graph.add("abuffersink")
    graph.link_nodes(source, graph.add("aresample", f"{to_hz}:{_RESAMPLER}"), sink).configure()
    for chunk in chain(chunks, [None]):  # None flushes the filter
        source.push(None if chunk is None else _to_frame(chunk, from_hz))
        yield from _pull(sink)


def _to_frame(chunk: np.ndarray, rate_hz: int) -> av.AudioFrame:
    frame = av.AudioFrame.from_ndarray(chunk[np.newaxis], format="fltp", layout="mono")
    frame.sample_rate = rate_hz
    return frame


def _pull(sink: "av.filter.context.FilterContext") -> Iterator[np.ndarray]:
    while True:
        try:
            yield sink.pull().to_ndarray()[0]
        except (av.error.BlockingIOError, av.error.EOFError):  # wants more, or is done
            return


def _promised_seconds(container: InputContainer, stream: av.AudioStream) -> float:
    """The duration in the header of a flac, aiff or mp4; 0 for other formats, where FFmpeg's is often an estimate."""
    if container.format.name.split(",")[0] in ("flac", "aiff", "mov") and stream.duration:
        return float(stream.duration * stream.time_base)
    return 0.0


def _is_too_short(seconds: float, promised_seconds: float) -> bool:
    return promised_seconds - seconds > max(_PADDING_SECONDS, _SHARE_THAT_MAY_MISS * promised_seconds)


def _ends_too_early(file: BinaryIO) -> bool:
    """Whether a file has fewer bytes than it announces, which FFmpeg does not tell."""
    n_bytes = file.seek(0, os.SEEK_END)
    n_tag_bytes = _id3_bytes(_read_at(file, 0, 10))
    head = _read_at(file, n_tag_bytes, 4_096)
    if head.startswith(b"OggS"):
        return _is_cut_page(_read_at(file, max(0, n_bytes - 65_536), 65_536))  # a page is no longer
    return n_bytes - n_tag_bytes < (1 - _SHARE_THAT_MAY_MISS) * _announced_bytes(head)


def _read_at(file: BinaryIO, position: int, n_bytes: int) -> bytes:
    file.seek(position)
    return file.read(n_bytes)


def _id3_bytes(head: bytes) -> int:
    """The size of the ID3v2 tag that a file begins with; seven bits a byte."""
    if not head.startswith(b"ID3"):
        return 0
    return 10 + sum((byte & 0x7F) << shift for byte, shift in zip(head[6:10], (21, 14, 7, 0), strict=False))


def _announced_bytes(head: bytes) -> int:
    """The file size by a RIFF (wav, avi), ASF (wma), Matroska (webm) or Xing (mp3) header, 0 where it gives none."""
    if head.startswith(b"RIFF"):
        size = _number(head, 4, 4, "little")
        return size if size < _UNKNOWN_RIFF_BYTES else 0
    if (properties := head.find(_ASF_FILE_PROPERTIES)) >= 0:
        return _number(head, properties + 40, 8, "little")
    if head.startswith(_MATROSKA) and (segment := head.find(_MATROSKA_SEGMENT)) >= 0:
        width = (
            9 - _number(head, segment + 4, 1).bit_length()
        )  # in bytes; the size follows the leading 1 bit (RFC 8794)
        unknown = (1 << 7 * width) - 1
        size = _number(head, segment + 4, width) & unknown
        return segment + size if size < unknown else 0
    xing = max(head.find(name, 0, 200) for name in (b"Xing", b"Info"))
    if (
        head.startswith(b"\xff") and xing >= 0 and _number(head, xing + 4, 4) & 3 == 3
    ):  # has both the frames and the bytes
        return _number(head, xing + 12, 4)
    return 0


def _number(data: bytes, at: int, n_bytes: int, order: Literal["big", "little"] = "big") -> int:
    return int.from_bytes(data[at : at + n_bytes], order)


def _is_cut_page(tail: bytes) -> bool:
    """Whether the last Ogg page lacks bytes; its 27-byte header ends with the number of segment sizes (RFC 3533)."""
    page = tail[max(0, tail.rfind(b"OggS")) :]
    if len(page) < 27:
        return True
    n_segments = page[26]
    return len(page) < 27 + n_segments + sum(page[27 : 27 + n_segments])
