"""How much of a track was read, and how much of that was no sound."""

from fractions import Fraction

import av

_LEAST_HOLE_BYTES, _LEAP_SECONDS = 1_024, 0.25  # between packets; less is what a format writes there itself


class Tally:
    """The packets that were read of a track in a file whose format FFmpeg calls by a name.

    Attributes:
        n_packets, n_bytes: of all.
        n_damaged, damaged_bytes: of those that could not be decoded or hold no numbers.
        skipped_bytes: that lie between packets and should be some.
        place_bytes: where in the file the packet stands that was read last; 0 where that is not known.
        is_cut: whether what was read last is no packet, as where the file ends and should not.
    """

    def __init__(self, format_name: str) -> None:
        self.n_packets = self.n_bytes = self.n_damaged = self.damaged_bytes = 0
        self.skipped_bytes = self.place_bytes = 0
        self._ticks, self._tick_seconds = 0, Fraction(0)  # fractions that are added up packet by packet take long
        self.is_cut = False
        self._format_name = format_name
        self._last: av.Packet | None = None
        self._ends_bytes = 0  # where it does in the file

    def count(self, packet: av.Packet) -> None:
        """Add a packet."""
        self.n_packets += 1
        self.n_bytes += packet.size
        self._ticks += packet.duration or 0
        self._tick_seconds = self._tick_seconds or packet.time_base
        if not packet.size:  # the last, which is none
            return
        self.place_bytes = packet.pos or self.place_bytes  # which not all have that a parser cuts
        skipped_bytes = self.place_bytes - self._ends_bytes
        if self._last and skipped_bytes > _LEAST_HOLE_BYTES and (self.is_cut or self._leaps(packet)):
            self.skipped_bytes += skipped_bytes
        self._ends_bytes = max(self.place_bytes, self._ends_bytes) + packet.size
        self._last, self.is_cut = packet, False

    def count_damaged(self, packet: av.Packet) -> None:
        """Say of a packet that was counted that it is damaged."""
        self.n_damaged += 1
        self.damaged_bytes += packet.size

    @property
    def seconds(self) -> float:
        """Of all packets."""
        return float(self._ticks * self._tick_seconds)

    @property
    def sound_bytes(self) -> int:
        """Of the packets that could be decoded."""
        return self.n_bytes - self.damaged_bytes

    @property
    def shares_damaged(self) -> tuple[float, float]:
        """How much of what was read could not be decoded, in packets and in bytes.

        Either alone may be nearly all where other sound, or something else, stands behind what can be decoded. Of an
        mp3 both are in packets: one may hold all that stands between songs that were joined, pictures even.
        """
        of_packets = self.n_damaged / max(1, self.n_packets)
        return of_packets, of_packets if self._format_name == "mp3" else self.damaged_bytes / max(1, self.n_bytes)

    def _leaps(self, packet: av.Packet) -> bool:
        """Whether the clock leaps to a packet, which in an mp4 and an ogg may be a pause of the recorder."""
        last = self._last
        if self._format_name.startswith("mov") or self._format_name == "ogg" or None in (last.pts, packet.pts):
            return False
        return (packet.pts - last.pts - (last.duration or 0)) * packet.time_base > _LEAP_SECONDS
