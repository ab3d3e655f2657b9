"""Where in a file its sound is: tags may stand before it and behind it, and zeros."""

import os
from dataclasses import dataclass
from typing import BinaryIO, Literal

_HEAD_BYTES = 4_096
# The first is that of mp3, mp2 and aac, then ac3 and dts.
_WITHOUT_PARTS = (b"\xff", b"\x0b\x77", b"\x7f\xfe\x80\x01", b"OggS", b"wvpk", b"MAC ", b"fLaC", b"TTA1")
_MOST_TAGS = 16  # one behind the other
_BLOCK_BYTES, _MANY_ZEROS = 2**16, 1_024


@dataclass(frozen=True)
class Extent:
    """Where in a file its sound is.

    Attributes:
        file: that may be read elsewhere meanwhile (`read_at`).
        n_bytes: of the file.
        begin: where its sound does, behind ID3v2 tags and zeros, by what the tags say of their size.
        end: where its sound does, before tags or zeros, which FFmpeg may take for damaged sound. These are looked for
            in formats that have no account of their parts; else it is the end of the file.
        head: the first 4 kB of the sound.
    """

    file: BinaryIO
    n_bytes: int
    begin: int
    end: int
    head: bytes

    @classmethod
    def of(cls, file: BinaryIO) -> "Extent":
        """That of a file, which is left where it stands. Raises OSError."""
        n_bytes, begin = _size_of(file), _begin_of_sound(file)
        head = read_at(file, begin, _HEAD_BYTES)
        end = _end_of_sound(file, begin, n_bytes) if head.startswith(_WITHOUT_PARTS) else n_bytes
        return cls(file, n_bytes, begin, end, head)


def read_at(file: BinaryIO, position: int, n_bytes: int) -> bytes:
    """Bytes from a place of a file that FFmpeg may be reading elsewhere."""
    before = file.tell()
    try:
        file.seek(position)
        return file.read(n_bytes)
    finally:
        file.seek(before)


def number_in(data: bytes, at: int, n_bytes: int, order: Literal["big", "little"] = "big") -> int:
    """An unsigned integer of so many bytes at a place in others."""
    return int.from_bytes(data[at : at + n_bytes], order)


def _begin_of_sound(file: BinaryIO) -> int:
    begin = 0
    for _ in range(_MOST_TAGS):
        if not (more := _id3_bytes(read_at(file, begin, 10))):
            break
        begin += more
    behind = read_at(file, begin, _BLOCK_BYTES) if begin else b""
    sound = behind.lstrip(b"\0")
    return begin + (len(behind) - len(sound) if sound.startswith(_WITHOUT_PARTS) else 0)


def _end_of_sound(file: BinaryIO, begin: int, n_bytes: int) -> int:
    end = n_bytes
    for _ in range(_MOST_TAGS):
        before, end = end, _end_before_zeros(file, max(0, end - _tag_bytes_before(file, end)))
        if not begin < end < before:
            break
    return end if begin < end else n_bytes


def _tag_bytes_before(file: BinaryIO, end: int) -> int:
    """The size of the tag that ends at a place: ID3v1, APEv2 or Lyrics3; 0 if there is none."""
    if read_at(file, max(0, end - 128), 3) == b"TAG":
        return 128
    foot = read_at(file, max(0, end - 32), 32)
    if foot.startswith(b"APETAGEX"):
        n_head_bytes = 32 * (number_in(foot, 20, 4, "little") >> 31)  # 0 where it has none
        return number_in(foot, 12, 4, "little") + n_head_bytes
    if foot.endswith(b"LYRICS200") and foot[-15:-9].isdigit():
        return int(foot[-15:-9]) + 15
    return 0


def _end_before_zeros(file: BinaryIO, end: int) -> int:
    """The same place, or the beginning of at least 1 kB of zeros that end there."""
    start = end
    while start and not (block := read_at(file, max(0, start - _BLOCK_BYTES), min(_BLOCK_BYTES, start))).strip(b"\0"):
        start -= len(block)
    start -= len(block) - len(block.rstrip(b"\0")) if start else 0
    return start if end - start >= _MANY_ZEROS else end


def _id3_bytes(head: bytes) -> int:
    """The size of the ID3v2 tag that a file begins with, head and foot included: it says what is between them."""
    if not head.startswith(b"ID3"):
        return 0
    n_bytes = sum((byte & 0x7F) << shift for byte, shift in zip(head[6:10], (21, 14, 7, 0), strict=False))
    return n_bytes + (20 if number_in(head, 5, 1) & 0x10 else 10)


def _size_of(file: BinaryIO) -> int:
    before = file.tell()
    try:
        return file.seek(0, os.SEEK_END)
    finally:
        file.seek(before)
