"""The audio track of a file that is heard, and its frames from any place on, as many as may be decoded."""

from collections.abc import Iterator
from contextlib import suppress
from functools import cached_property
from itertools import chain
from math import inf

import av
import numpy as np
from av.stream import Disposition

from crnn.audio.announced import SHARE_THAT_MAY_MISS
from crnn.audio.container import TIMED_FORMATS, decodable_tracks, open_container, packets_of
from crnn.audio.extent import Extent
from crnn.audio.faults import Notice, shortage
from crnn.audio.resampling import mend_frame
from crnn.audio.tally import Tally

_SOUNDING = 10 ** (-70 / 20)  # a track that stays below this is silent: hiss of 16 bits, a codec's rounding
_SECONDS_TO_SOUND = 600.0  # in which a track has to, where there are several
_LOOK_SECONDS, _LOOK_EACH_SECONDS = 0.2, 1.0  # what is decoded for that, as a codec may need what was just before
# At most so many seconds are decoded as its packets have bytes / 2 000, but never less than 30 minutes nor more than 12
# hours: a day of silence compresses to few bytes, music never below 16 kbit/s, speech alone does. The size of the file
# would allow too much: it may be a film's, or that of the heads of countless packets.
_FEWEST_BYTES_A_SECOND = 2_000
_LEAST_SECONDS, MOST_SECONDS = 1_800.0, 43_200.0
_LATE_SECONDS = 0.1  # after the pictures is where sound begins late; less is an encoder's delay
_BYTE_RATED = frozenset({"wav", "w64"})  # where FFmpeg seeks by the bytes a second that the head claims
_JOINABLE = frozenset({"ogg", "mpegts", "mpeg"})
_PAGE_BYTES = 65_307  # of an ogg, at most
_PREROLL_SECONDS = 0.2  # that decoders and resampler need before a passage, but for a few samples more or less
_SAMPLES_A_SECOND = 2 * 48_000  # of all channels together; more of them, or a new packet, take as long as more seconds
_PACKET_SECONDS = 0.02


class Track:
    """The audio track of a file that is heard: its default one, or the first that sounds if that is silent.

    Attributes:
        notices: which one it is, where there are several.
        began_seconds: where decoding did, which is before the place that was asked for.
        late_seconds: that a player is silent for before the sound of a film begins, where decoding began there.
        tally: of the packets that were read.
        format_name: of the file, by FFmpeg.
        is_left: whether it is so much that the rest is not decoded.
    """

    def __init__(self, extent: Extent, is_fast: bool = False) -> None:
        """Open a file. `is_fast`: places may be guessed. Raises Fault if nothing in it can be decoded."""
        self.notices: tuple[Notice, ...] = ()
        self.began_seconds = self.late_seconds = 0.0
        self.is_left = False
        self._extent, self._is_fast = extent, is_fast
        self._begins_bytes = 0  # where the first packet does
        self._spent_seconds, self._spent_bytes = 0.0, 0  # decoded, and as how many bytes of packets
        self.container = open_container(extent, is_fast)
        self.format_name = self.container.format.name
        self.tally = Tally(self.format_name)
        try:
            self.stream = self._choose()
            if is_fast and self.may_be_several:  # a picture may stand before the sound
                self._begins_bytes = self._first_place()
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Close what FFmpeg has open; the file stays."""
        self.container.close()

    def frames(self, start_seconds: float = 0.0) -> Iterator[av.AudioFrame]:
        """From shortly before a place if the format can be entered there, else from the beginning."""
        self.began_seconds = self.late_seconds = 0.0
        target_seconds = start_seconds - _PREROLL_SECONDS
        if target_seconds > 0:
            beginning = round(self._begins_seconds / self.stream.time_base)
            frames = self._decoded()
            try:
                self.container.seek(beginning + int(target_seconds / self.stream.time_base), stream=self.stream)
                first = next(frames, None)
            except (av.FFmpegError, OverflowError):
                first = None
            began_seconds = None if first is None else self.seconds_of(first)
            if began_seconds is not None and 0 <= began_seconds <= start_seconds and self._is_found():
                self.began_seconds = began_seconds
                return chain([first], frames)
            self._enter_anew()
        return self._from_beginning()

    def seconds_of(self, frame: av.AudioFrame) -> float | None:
        """When a frame begins, counted from the beginning of the track, or of the film whose sound begins late."""
        if frame.time is None:
            return None
        return frame.time - self._begins_seconds

    @property
    def is_indexed(self) -> bool:
        """Whether the file lists its packets, so that none of them is overlooked."""
        return self.format_name.startswith("mov")

    @property
    def share_passed(self) -> float:
        """How much of the sound lies before the packet that was read last, in bytes of the file."""
        return (self.tally.place_bytes - self._begins_bytes) / max(1, self.container.size - self._begins_bytes)

    @property
    def share_skipped(self) -> float:
        """How much of the file lies between packets and should be some, in bytes."""
        return self.tally.skipped_bytes / max(1, self.container.size)

    @property
    def may_be_several(self) -> bool:
        """Whether recordings behind each other make one file, of which FFmpeg takes the last clock for the whole."""
        return self.format_name in _JOINABLE

    @property
    def has_no_pauses(self) -> bool:
        """Whether its clock leaps mostly where packets are missing; that of FLAC in ogg begins at 0 in any case."""
        return self.format_name == "ogg" and self.stream.codec_context.name != "flac"

    @property
    def promised_seconds(self) -> float:
        """The duration in the file's header; 0 where there is none, and FFmpeg's is often an estimate."""
        if self.format_name.split(",")[0] in TIMED_FORMATS and self.stream.duration:
            return self._end_of_track_seconds
        return 0.0

    @property
    def duration_seconds(self) -> float:
        """The duration as FFmpeg knows or estimates it; 0 where it does neither."""
        is_counted_from_0 = self.format_name in ("matroska,webm", "asf") or self._is_opus_in_ogg
        if self.stream.duration and not is_counted_from_0:
            return self._end_of_track_seconds
        seconds = (self.container.duration or 0) / av.time_base
        if is_counted_from_0:  # whenever it begins
            seconds = 0.0 if self.stream.start_time is None else seconds - self._begins_seconds
        return max(seconds, 0.0)

    @property
    def _is_opus_in_ogg(self) -> bool:
        return self.format_name == "ogg" and self.stream.codec_context.name == "opus"

    @property
    def _begins_seconds(self) -> float:
        film_seconds = (self.container.start_time or 0) / av.time_base
        is_late = self._is_film and _LATE_SECONDS <= self._track_begins_seconds - film_seconds <= _LEAST_SECONDS
        return film_seconds if is_late else self._track_begins_seconds

    @property
    def _track_begins_seconds(self) -> float:
        return float((self.stream.start_time or 0) * self.stream.time_base)

    @property
    def _end_of_track_seconds(self) -> float:
        late_seconds = self._track_begins_seconds - self._begins_seconds
        return float(self.stream.duration * self.stream.time_base) + late_seconds

    @cached_property
    def _is_film(self) -> bool:
        """Whether another track, which is no cover, may begin before this one."""
        others = (stream for stream in self.container.streams if stream.index != self.stream.index)
        return any(
            other.type in ("audio", "video") and not other.disposition & Disposition.attached_pic for other in others
        )

    def _is_found(self) -> bool:
        """Whether a place that has been sought is where FFmpeg takes it to be, as far as packets can tell."""
        if self.format_name not in _BYTE_RATED or not self.stream.bit_rate:
            return True
        claimed_bytes = self.tally.seconds * self.stream.bit_rate / 8
        return abs(claimed_bytes - self.tally.n_bytes) <= SHARE_THAT_MAY_MISS * self.tally.n_bytes

    def _first_place(self) -> int:
        with suppress(av.FFmpegError):
            first = next(packets_of(self.container, [self.stream]), None)
            place_bytes = (first and first.pos) or 0
            return place_bytes if place_bytes > _PAGE_BYTES else 0  # places are those of pages
        return 0

    def _choose(self) -> av.AudioStream:
        tracks = decodable_tracks(self.container, self._extent.file)
        best = self.container.streams.best("audio")
        tracks.sort(key=lambda track: best is None or track.index != best.index)
        if len(tracks) == 1:
            return tracks[0]
        indices = [track.index for track in tracks]
        index = self._first_that_sounds(tracks)
        self._spent_seconds, self._spent_bytes = 0.0, 0
        self._reopen()
        tracks = self.container.streams.audio
        chosen = self.container.streams[indices[0] if index is None else index]
        values = {
            "count": len(tracks),
            "track": _describe_track(tracks.index(chosen) + 1, chosen.metadata),
        }
        if index in (None, indices[0]):
            self.notices = (Notice("Of its {count} audio tracks, this answer is for track {track}.", values),)
        else:
            values["silent"] = str([track.index for track in tracks].index(indices[0]) + 1)
            self.notices = (
                Notice(
                    "Of its {count} audio tracks, this answer is for track {track}: track {silent} is silent.", values
                ),
            )
        return chosen

    def _first_that_sounds(self, tracks: list[av.AudioStream]) -> int | None:
        """The index of the first of `tracks` that sounds within `_SECONDS_TO_SOUND`; None if none does."""
        indices = [track.index for track in tracks]
        sounding, seconds = set(), 0.0
        begins_seconds, looks_seconds = {}, {}  # of each track, and where the last look at it began
        try:
            for packet in packets_of(self.container, tracks):
                if packet is None:
                    self._spent_seconds += _PACKET_SECONDS
                    continue
                index = packet.stream.index
                if packet.pts is not None:  # counted from where the track begins, in a broadcast anywhere
                    seconds = float(packet.pts * packet.time_base)
                    seconds -= begins_seconds.setdefault(index, seconds)
                if self._is_spent() or max(seconds, self._spent_seconds / len(tracks)) > _SECONDS_TO_SOUND:
                    break
                if seconds - looks_seconds.get(index, -inf) >= _LOOK_EACH_SECONDS:
                    looks_seconds[index] = seconds
                if index in sounding or seconds - looks_seconds[index] >= _LOOK_SECONDS:
                    self._spent_seconds += _PACKET_SECONDS  # to read countless packets takes time, too
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
        self.container.close()
        self.container = open_container(self._extent, self._is_fast)

    def _enter_anew(self) -> None:
        """From the beginning, as if nothing had been decoded."""
        index, self._is_fast = self.stream.index, False
        self._reopen()
        self.stream = self.container.streams[index]
        self.tally = Tally(self.format_name)

    def _from_beginning(self) -> Iterator[av.AudioFrame]:
        frames = self._decoded()
        for first in frames:
            late_seconds = self.seconds_of(first) or 0.0
            if self._is_film and _LATE_SECONDS <= late_seconds <= _LEAST_SECONDS:
                self.late_seconds = late_seconds
            yield first
            yield from frames

    def _decoded(self) -> Iterator[av.AudioFrame]:
        takes_any_float = self.stream.codec_context.codec.name.startswith(("pcm_f", "wavpack"))
        try:
            for packet in packets_of(self.container, [self.stream]):
                if self._is_spent():
                    self.is_left = True
                    return
                if packet is None:
                    self.tally.is_cut = True  # unless more follows
                    self._spent_seconds += _PACKET_SECONDS
                    continue
                self.tally.count(packet)
                try:
                    frames = self._decode(packet)
                except av.FFmpegError as error:
                    if shortage(error):
                        raise
                    self.tally.count_damaged(packet)
                    continue
                whole = [frame for frame in frames if not (takes_any_float and mend_frame(frame))]
                if len(whole) < len(frames):
                    self.tally.count_damaged(packet)
                yield from whole
        except av.error.PatchWelcomeError:
            self.is_left = True
        except av.FFmpegError as error:
            if shortage(error):
                raise
            self.tally.is_cut = True

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
        return self._spent_seconds > min(allowed_seconds, MOST_SECONDS)


def _peak(frame: av.AudioFrame) -> float:
    """The largest sample, as a share of full scale."""
    samples = frame.to_ndarray()
    if samples.dtype.kind == "f":
        return float(np.fmax.reduce(np.abs(samples), axis=None, initial=0))  # which passes over NaN
    scale = 2.0 ** (8 * samples.dtype.itemsize - 1)
    middle = scale if samples.dtype.kind == "u" else 0.0
    return max(samples.max(initial=int(middle)) - middle, middle - samples.min(initial=int(middle))) / scale


def _describe_track(number: int, tags: dict[str, str]) -> str:
    """As "2", or "2 (eng, Director's comment)"."""
    words = [tags[key] for key in ("language", "title", "handler_name") if tags.get(key)]
    words = [word for word in words if word not in ("und", "SoundHandler")]
    return f"{number} ({', '.join(words)})" if words else str(number)
