"""A file opened, as a whole or in passages, and a look at whether as much was there as it says."""

import io
import os
import re
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, closing, contextmanager
from datetime import timedelta
from itertools import chain, groupby, islice, takewhile
from operator import itemgetter
from pathlib import Path
from typing import BinaryIO, NamedTuple

import av
import numpy as np

from crnn.audio.ahead import ahead
from crnn.audio.announced import (
    SHARE_THAT_MAY_MISS,
    byte_share,
    fragments_of,
    frame_bytes,
    guessed_bytes,
    has_more_sound,
    is_cut_ogg,
)
from crnn.audio.extent import Extent
from crnn.audio.faults import (
    AudioError,
    Fault,
    Notice,
    by_name,
    explained,
    missing_much,
    no_sound_file,
    not_now,
    shortage,
)
from crnn.audio.resampling import AudioFormat, join, mend, resample, silence, with_channels
from crnn.audio.track import MOST_SECONDS, Track

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

_LOWEST_RATE_HZ, _HIGHEST_RATE_HZ = 4_000, 2_822_400  # of DSD, FFmpeg makes an eighth of its bits a second
_SHARE_THAT_IS_NEEDED = 1 / 3
_MUCH_LONGER = 1.5  # times as long as its passages is a song that is worth the trouble
_MOST_ASTRAY = 0.15  # a place in time from one in bytes, as shares of one recording; of two it is 0.25 somewhere
_MOST_OFF_SECONDS = 0.1  # may a passage lack, as where a packet is damaged; more is a hole, or the end
_PADDING_SECONDS = 0.5  # encoders count their delay and padding differently
_BATCH_SAMPLES = 2**15  # of what passes from the decoder to the resampler at once

Opener = Callable[..., AbstractContextManager["Sound"]]  # `open_audio`, or what opens files elsewhere as it does


class Passages(NamedTuple):
    """Which part of a song to hear: `count` passages of `seconds` each, spread evenly."""

    count: int
    seconds: float

    def starts_seconds(self, duration_seconds: float) -> tuple[float, ...]:
        """Where they begin in a song that lasts so long: each is the middle of one of `count` equal parts."""
        middles = ((number + 0.5) * duration_seconds / self.count for number in range(self.count))
        return tuple(middle - self.seconds / 2 for middle in middles)


@contextmanager
def open_audio(
    source: str | os.PathLike | bytes, sample_rate: int = SAMPLE_RATE, passages: Passages | None = None
) -> Iterator["Sound"]:
    """Open a local sound or video file, to decode it block by block in memory that its duration does not change.

    Everything that `container.OPTIONS` lets in is read, at 4 kHz to 2.8 MHz. Of several audio tracks the container's
    default is heard, or its first, unless it is silent for ten minutes in which another sounds. Integers are scaled
    to [-1, 1); floats keep their scale, also beyond 1, but NaN and infinity become 0.

    A file says how long it should be in seconds (`container.TIMED_FORMATS`) or in bytes (wav, rf64, w64, caf, dsf, dff
    and avi by the size of their data, wma, webm and mkv, mp3 with a Xing or Info header, the last page of an ogg), and
    damaged packets, which are skipped, count as missing, by their number or their bytes. If more than 2 % are missing
    (and of seconds, half a one), `Sound.notices` says so, as it does where the clock of an ogg leaps, or FFmpeg skips
    as much of a file because it fails to read a packet or the clock leaps with it; if less than a third is there,
    whichever way it is counted, the file is refused. Others do not say it (aac, mp3 without that header, live
    recordings), so that what they hold is used. Of a file that decodes to more than twelve hours, or to an unlikely
    length for the size of its packets, the beginning is heard, and a notice says so. Where the sound of a film begins
    up to half an hour after its pictures, it is silent till then, as in a player.

    Args:
        source: the path of a regular file, or the bytes of one; never an address, which is not opened.
        sample_rate: of the blocks, in Hz.
        passages: decode these alone, one block each. `Sound.starts_seconds` is empty, whatever came, for a song that is
            hardly longer, or of which it is not known how long it is, or of which one is missing, and for several songs
            behind each other in a file.

    Raises:
        AudioError: no such file, or one that is no sound or is known to be damaged before it is decoded.
    """
    with open_file(source) as (file, name), open_sound(file, name, sample_rate, passages) as sound:
        yield sound


@contextmanager
def open_file(source: str | os.PathLike | bytes) -> Iterator[tuple[BinaryIO, str]]:
    """Open a source of `open_audio` as a seekable file, and say by which name messages call it. Raises AudioError."""
    name = "The audio" if isinstance(source, bytes) else Path(source).name or "This path"
    with explained(name):
        file = _open_file(source)
    with file:
        yield file, name


@contextmanager
def open_sound(file: BinaryIO, name: str, sample_rate: int, passages: Passages | None = None) -> Iterator["Sound"]:
    """As `open_audio`, of a file that is open and stays so; `name` is what messages call it. Raises AudioError."""
    with explained(name):
        sound = Sound(file, name, sample_rate, passages)
    try:
        yield sound
    finally:
        sound.close()


def load_audio(
    source: str | os.PathLike | bytes,
    sample_rate: int = SAMPLE_RATE,
    max_seconds: float = MAX_SECONDS,
    opener: Opener = open_audio,
    most_channels: int | None = None,
) -> np.ndarray:
    """The blocks of `open_audio` joined: a waveform of shape (channels, samples), float32, contiguous and writable.

    It is up to `max_seconds` long; what follows is neither used nor checked. `opener` opens it as `open_audio` does.
    Of more than `most_channels`, so many are made (`resampling.with_channels`).

    Raises:
        AudioError: no such file, or one that is no sound, damaged, mostly missing, empty or shorter than 1 s.
    """
    max_samples = round(max_seconds * sample_rate)
    blocks, n_samples = [], 0
    with opener(source, sample_rate) as sound:
        for block in sound.blocks():
            blocks.append(with_channels(block, min(len(block), most_channels or len(block))))
            n_samples += block.shape[1]
            if n_samples >= max_samples:
                blocks[-1] = blocks[-1][:, : block.shape[1] - (n_samples - max_samples)]
                break
    return np.concatenate(blocks, axis=1)


class _Found(NamedTuple):
    """How much there is of a song."""

    seconds: float  # without the silence before a film sounds, as the next
    promised_seconds: float  # by the head of its file; 0 where that does not say
    share: float  # the least, of all ways to count
    is_incomplete: bool
    is_cut: bool  # if so, at its end


class Sound:
    """A file that `open_audio` has opened.

    Attributes:
        sample_rate: of the blocks, in Hz.
        expected_seconds: that it should last, as its file says or FFmpeg estimates; 0 where neither does.
        notices: what to know about an answer from it; complete when the blocks have ended.
        starts_seconds: where each block begins, if they are passages and all are there; likewise.
        duration_seconds: of the song, if so; likewise.
    """

    def __init__(self, file: BinaryIO, name: str, sample_rate: int, passages: Passages | None = None) -> None:
        self.sample_rate = sample_rate
        self.starts_seconds: tuple[float, ...] = ()
        self.duration_seconds: float | None = None
        self._name, self._passages = name, passages
        self._blocks: Iterator[np.ndarray] | None = None
        self._ended_seconds = 0.0  # by the file's own clock, which goes on in a hole
        self._extent = Extent.of(file)
        self._byte_share = byte_share(self._extent)
        self._fragments = fragments_of(self._extent)
        self._is_cut = self._byte_share < 1 or self._fragments.are_cut or is_cut_ogg(self._extent)
        self._track = Track(self._extent, is_fast=passages is not None)
        self.expected_seconds = min(self._track.duration_seconds, MOST_SECONDS)
        self.notices = self._track.notices
        if self._byte_share < _SHARE_THAT_IS_NEEDED:
            self._track.close()
            raise missing_much()

    def blocks(self) -> Iterator[np.ndarray]:
        """The sound, once: blocks of shape (channels, samples), float32, contiguous and writable.

        All have as many channels as the first. They have 2**16 samples, except where a file changes its format and at
        its end, and are decoded ahead by a thread.

        Raises:
            AudioError: a file that is damaged, mostly missing, empty or shorter than 1 s.
        """
        if self._blocks is not None:
            raise RuntimeError("the blocks of a sound are read once: open it again")
        self._blocks = self._passage_blocks(self._passages) if self._passages else self._whole_blocks()
        return self._blocks

    def close(self) -> None:
        """End the thread that decodes."""
        if self._blocks is not None:
            self._blocks.close()
        self._track.close()

    def _passage_blocks(self, passages: Passages) -> Iterator[np.ndarray]:
        """The passages of a song that is long enough, a block each; up to one that is not there."""
        duration_seconds = self._track.duration_seconds
        is_long_enough = duration_seconds > _MUCH_LONGER * passages.count * passages.seconds
        if self._is_cut or has_more_sound(self._extent) or not is_long_enough:
            return
        starts_seconds, place_bytes = passages.starts_seconds(duration_seconds), 0
        for start_seconds in starts_seconds:
            end_seconds = start_seconds + passages.seconds
            blocks = list(self._passage(start_seconds, end_seconds))
            least_seconds = max(MIN_SECONDS, passages.seconds - _MOST_OFF_SECONDS)
            if sum(block.shape[1] for block in blocks) < least_seconds * self.sample_rate:
                return
            if 0 < self._track.tally.place_bytes <= place_bytes:  # by a table of places that is of no use
                return
            place_bytes = self._track.tally.place_bytes
            astray = abs(self._track.share_passed - end_seconds / duration_seconds)
            if self._track.may_be_several and astray > _MOST_ASTRAY:
                return
            yield np.concatenate(blocks, axis=1)
        if (lasts_seconds := self._lasts_seconds(duration_seconds)) is not None:
            self.starts_seconds, self.duration_seconds = starts_seconds, lasts_seconds

    def _lasts_seconds(self, duration_seconds: float) -> float | None:
        """How long a song of which passages are heard lasts, None where its end is missing or nobody knows.

        Where FFmpeg has guessed it, the bytes a second of the passages tell more, unless they are quite other ones.
        """
        track = self._track
        if n_bytes := guessed_bytes(self._extent, track.format_name):
            lasts_seconds = n_bytes * track.tally.seconds / max(1, track.tally.n_bytes)
            is_near = abs(duration_seconds - lasts_seconds) <= SHARE_THAT_MAY_MISS * lasts_seconds
            return lasts_seconds if is_near else None
        if not track.promised_seconds:
            return duration_seconds
        last_seconds = track.promised_seconds - _seconds_that_may_miss(track.promised_seconds)
        with explained(self._name):
            ends_seconds = (
                (track.seconds_of(frame) or 0.0) + frame.samples / frame.sample_rate
                for frame in track.frames(last_seconds)
            )
            return duration_seconds if any(seconds > last_seconds for seconds in ends_seconds) else None

    def _passage(self, start_seconds: float, end_seconds: float) -> Iterator[np.ndarray]:
        """What is there between two places, decoded without threads, which would pay for longer ones alone."""
        track, n_samples = self._track, 0
        with explained(self._name):
            frames = track.frames(start_seconds)
            until_end = takewhile(lambda frame: (track.seconds_of(frame) or 0.0) <= end_seconds, frames)
            one_at_least = islice(frames, 1)  # as a passage may be the silence before
            for block in self._resampled(self._batches(chain(one_at_least, until_end))):
                first, end = (
                    max(0, round((seconds - track.began_seconds) * self.sample_rate) - n_samples)
                    for seconds in (start_seconds, end_seconds)
                )
                n_samples += block.shape[1]
                if first < min(end, block.shape[1]):  # an empty view would keep the rest in memory
                    yield block[:, first:end]

    def _whole_blocks(self) -> Iterator[np.ndarray]:
        """All blocks, and a look at the length when they end."""
        n_samples = 0
        # Resampling has no thread of its own: of several that call FFmpeg for each frame, all wait for Python's lock.
        batches = ahead(self._batches(self._track.frames()))
        with explained(self._name), closing(self._resampled(batches)) as blocks:
            for block in blocks:
                n_samples += block.shape[1]
                yield block
            self._check_length(n_samples / self.sample_rate)

    def _check_length(self, lasts_seconds: float) -> None:
        """Refuse a song of which too little is there, and say what is missing of another."""
        if self._track.is_left:
            self._say_where_it_is_left(lasts_seconds)
            return
        found = self._found(lasts_seconds)
        if found.seconds == 0 and self._track.tally.n_damaged and not found.promised_seconds:  # no packet was one
            raise by_name(self._extent.file, no_sound_file())
        if found.is_incomplete and (found.share < _SHARE_THAT_IS_NEEDED or round(found.seconds, 2) < MIN_SECONDS):
            raise by_name(self._extent.file, missing_much())
        if found.seconds == 0:
            raise by_name(self._extent.file, Fault("{name} holds no sound: its audio track is empty."))
        if round(lasts_seconds, 2) < MIN_SECONDS:
            raise Fault(
                "{name} lasts only {seconds} s: at least {least} s is needed.",
                seconds=f"{lasts_seconds:.2f}",
                least=f"{MIN_SECONDS:g}",
            )
        if found.is_incomplete:
            values = {"seconds": f"{found.seconds:.0f}"}
            self.notices += (
                Notice("Its end is missing: this answer is from the {seconds} s that are there.", values)
                if found.is_cut
                else Notice("Some of it is damaged: this answer is from the {seconds} s that can be read.", values),
            )

    def _say_where_it_is_left(self, lasts_seconds: float) -> None:
        if lasts_seconds < MIN_SECONDS:
            raise Fault("{name} takes too long to decode: save it as flac or mp3 first.")
        time = re.sub("^0:0?", "", str(timedelta(seconds=int(lasts_seconds))))  # 0:04, 30:00, 12:00:00
        self.notices += (
            Notice("Only what lies before {time} is heard: of a file like this, no more is decoded.", {"time": time}),
        )

    def _found(self, lasts_seconds: float) -> "_Found":
        """What there was of a song that has been decoded, in so many seconds."""
        track, tally = self._track, self._track.tally
        # Of the silence before a film sounds nothing can be missing.
        seconds, ended_seconds, promised_seconds = (
            max(0.0, end - track.late_seconds) for end in (lasts_seconds, self._ended_seconds, track.promised_seconds)
        )
        ends_early = _is_too_short(ended_seconds, promised_seconds)
        has_end = bool(promised_seconds) and not ends_early
        # Where a recorder paused; what is not fetched of a file in fragments leaves a hole, too.
        has_pauses = track.is_indexed and not self._fragments.are_there and has_end and not tally.n_damaged
        shares = [self._byte_share, 1 - min(tally.shares_damaged)]
        if n_bytes := frame_bytes(self._extent):
            shares.append(tally.sound_bytes / n_bytes)
        if _is_too_short(seconds, promised_seconds) and not has_pauses:
            shares.append(seconds / promised_seconds)
        leaps = track.has_no_pauses and _is_too_short(seconds, ended_seconds)
        has_gap = leaps or max(track.share_skipped, *tally.shares_damaged) > SHARE_THAT_MAY_MISS
        is_cut = self._is_cut or (tally.is_cut and not has_end)  # tags behind the sound may be no packets
        is_incomplete = is_cut or has_gap or min(shares) < 1 - SHARE_THAT_MAY_MISS
        return _Found(seconds, promised_seconds, min(shares), is_incomplete, is_cut or ends_early)

    def _resampled(self, batches: Iterator[tuple[AudioFormat, list[av.AudioFrame]]]) -> Iterator[np.ndarray]:
        n_channels = 0
        with closing(batches):
            for audio_format, same_format in groupby(batches, key=itemgetter(0)):
                if not _LOWEST_RATE_HZ <= audio_format.rate_hz <= _HIGHEST_RATE_HZ:
                    raise Fault(
                        "{name} claims a sample rate of {rate} Hz: 4 000 to 2 822 400 Hz work.",
                        rate=audio_format.rate_hz,
                    )
                if not n_channels:
                    n_channels = audio_format.n_channels
                    yield from silence(n_channels, round(self._track.late_seconds * self.sample_rate))
                pieces = resample((frames for _, frames in same_format), audio_format, self.sample_rate)
                for block in join(pieces, audio_format.n_channels):
                    yield with_channels(mend(block), n_channels)

    def _batches(self, frames: Iterator[av.AudioFrame]) -> Iterator[tuple[AudioFormat, list[av.AudioFrame]]]:
        """Frames of one format, some at a time: a file may change its rate and its channels on the way."""
        batch, batch_format, n_samples = [], None, 0
        for frame in frames:
            audio_format = AudioFormat(
                frame.format.name, frame.layout.name, frame.layout.nb_channels, frame.sample_rate
            )
            if batch and (audio_format != batch_format or n_samples >= _BATCH_SAMPLES):
                yield batch_format, batch
                batch, n_samples = [], 0
            batch_format = audio_format
            batch.append(frame)
            n_samples += frame.samples
        if batch:
            self._ended_seconds = (self._track.seconds_of(batch[-1]) or 0) + batch[-1].samples / batch_format.rate_hz
            yield batch_format, batch


def _open_file(source: str | os.PathLike | bytes) -> BinaryIO:
    file = io.BytesIO(source) if isinstance(source, bytes) else _open_path(Path(source))
    if not file.read(1):
        file.close()
        raise Fault("{name} is empty (0 bytes): record, fetch or export it again.")
    file.seek(0)
    return file


def _open_path(path: Path) -> BinaryIO:
    name = path.name or "This path"
    try:
        if not path.exists():
            if re.match("[^/]{2,}:/", path.as_posix()):
                raise AudioError("{name} was not found: an address is no file on this computer, fetch it.", name=name)
            raise AudioError("{name} was not found: check its path.", name=name)
        if not path.is_file():
            raise AudioError("{name} is a directory or a device: give the path of one sound file.", name=name)
        return path.open("rb")
    except OSError as error:
        if why := shortage(error):
            raise not_now(name, why) from error
        raise AudioError(
            "{name} cannot be opened ({why}): check the path and your right to read it.", name=name, why=error.strerror
        ) from error


def _is_too_short(seconds: float, promised_seconds: float) -> bool:
    return promised_seconds - seconds > _seconds_that_may_miss(promised_seconds)


def _seconds_that_may_miss(promised_seconds: float) -> float:
    return max(_PADDING_SECONDS, SHARE_THAT_MAY_MISS * promised_seconds)
