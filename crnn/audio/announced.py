"""How large a file says that it is, which FFmpeg does not tell, and how much of it is there."""

from typing import Literal, NamedTuple

from crnn.audio.extent import Extent, number_in, read_at

_UNKNOWN_BYTES = 0x7F00_0000  # recorders that write to a pipe announce this or more in 32 bits
_MOST_CHUNKS = 1_000
_MATROSKA, _MATROSKA_SEGMENT = b"\x1a\x45\xdf\xa3", b"\x18\x53\x80\x67"
_ASF_FILE_PROPERTIES = bytes.fromhex("a1dcab8c47a9cf118ee400c00c205365")
_GUESSED = frozenset("aac ac3 amr dts eac3 mlp mp3 shn truehd".split())  # noqa: SIM905
_BOXES = frozenset(b"ftyp styp sidx emsg prft moov moof mdat free skip wide uuid meta udta mfra".split())
_MOST_BOXES = 100_000
_PCM = (b"\x01\0", b"\x03\0", b"\xfe\xff")  # integers, floats, and those whose kind is told behind
_MOST_FRAME_BYTES = 1_441  # of layer III
_BLOCK_BYTES = 2**16
SHARE_THAT_MAY_MISS = 0.02


def byte_share(extent: Extent) -> float:
    """The share that is there of the bytes a file announces; 1 if 2 % or less are missing, or it announces none."""
    beginning, size = _announced_data(extent)
    share = max(0, extent.n_bytes - beginning) / size if size else 1.0
    return share if share < 1 - SHARE_THAT_MAY_MISS else 1.0


def understates(extent: Extent) -> bool:
    """Whether a wav of PCM goes on behind what it announces, as where a recorder died before it wrote the last size."""
    head = extent.head
    if extent.begin or not (head.startswith(b"RIFF") and head[8:16] == b"WAVEfmt " and head[20:22] in _PCM):
        return False
    beginning, size = _data_chunk(extent, _CHUNKED[b"RIFF"])
    file, end, n_bytes = extent.file, beginning + size, extent.n_bytes
    if not size or n_bytes - end <= SHARE_THAT_MAY_MISS * n_bytes:
        return False
    if any(_is_chunk_or_tag(read_at(file, place, 8), n_bytes - place) for place in (end, end + 1)):  # padded or not
        return False
    ends = read_at(file, end, _BLOCK_BYTES), read_at(file, max(end, n_bytes - _BLOCK_BYTES), _BLOCK_BYTES)
    return any(part.strip(b"\0") for part in ends)  # no padding


def corrected_head(extent: Extent) -> tuple[int, bytes]:
    """A place in the head of a wav or w64 of PCM, and what to read there; else b"".

    FFmpeg takes the bits of a sample that are valid for its size, which WAVE_FORMAT_EXTENSIBLE tells before (24 in 32
    is frequent), and seeks by the size of a block, which some programs get wrong.
    """
    magic = extent.head[:4]
    if magic not in (b"RIFF", b"RF64", b"BW64", b"riff"):  # a dsf has such a chunk, too
        return 0, b""
    beginning, size = _data_chunk(extent, _CHUNKED[magic]._replace(data=(b"fmt ",)))
    head = read_at(extent.file, beginning, 26)
    is_extensible = head.startswith(b"\xfe\xff")
    if size < (40 if is_extensible else 16) or (head[24:] if is_extensible else head[:2]) not in _PCM:
        return 0, b""
    block_bytes = number_in(head, 2, 2, "little") * -(-number_in(head, 14, 2, "little") // 8)
    block = (block_bytes & 0xFFFF).to_bytes(2, "little") + head[14:16]
    return beginning + 12, block + head[16:18] + head[14:16] if is_extensible else block


def _is_chunk_or_tag(head: bytes, n_bytes: int) -> bool:
    """Whether a chunk of a wav begins like this, for which there is room, or what taggers write behind all of them."""
    name, size = head[:4].rstrip(b"\0"), number_in(head, 4, 4, "little")
    is_name = len(name) >= 3 and all(0x20 <= byte < 0x7F for byte in name)
    return head.startswith((b"ID3", b"TAG")) or (is_name and 8 + size <= n_bytes + 1)


def is_cut_ogg(extent: Extent) -> bool:
    """Whether it is an ogg whose last page lacks bytes."""
    if not extent.head.startswith(b"OggS"):
        return False
    return _is_cut_page(read_at(extent.file, max(0, extent.end - 65_536), 65_536))  # a page is no longer


class Fragments(NamedTuple):
    """What an mp4 says of itself piece by piece rather than in an index (ISO/IEC 14496-12)."""

    are_there: bool
    are_cut: bool  # the file ends within one of them


def fragments_of(extent: Extent) -> Fragments:
    """Whether a file is such an mp4; it may be of any format."""
    position, names = 0, []
    for _ in range(_MOST_BOXES):
        head = read_at(extent.file, position, 16)
        name, size = head[4:8], number_in(head, 0, 4)
        size = number_in(head, 8, 8) if size == 1 else size
        if name not in (_BOXES if names else (b"ftyp",)) or size < 8:  # one of size 0 goes on to the end
            break
        names.append(name)
        position += size
    are_there = b"moof" in names
    return Fragments(are_there, are_there and position > extent.n_bytes and names[-1] in (b"moof", b"mdat"))


def frame_bytes(extent: Extent) -> int:
    """How many bytes at least the frames of sound in an mp3 have by its header; 0 of a file without one."""
    return max(0, _xing_bytes(extent.head) - _MOST_FRAME_BYTES)  # it counts itself


def has_more_sound(extent: Extent) -> bool:
    """Whether an mp3 is longer than it says, as of several that were joined: FFmpeg finds no place in it then."""
    size = _xing_bytes(extent.head)
    return bool(size) and extent.end - extent.begin > size * (1 + SHARE_THAT_MAY_MISS)


def guessed_bytes(extent: Extent, format_name: str) -> int:
    """The size of the sound in a format, as FFmpeg calls it, in which that alone tells how long it is; else 0."""
    is_guessed = format_name in _GUESSED and not _xing_bytes(extent.head) and extent.head[36:40] != b"VBRI"
    return extent.end - extent.begin if is_guessed else 0


def _announced_data(extent: Extent) -> tuple[int, int]:
    """Where the data of a file begin and how many bytes they should have; 0 where this is not said."""
    head = extent.head
    chunked = next((chunked for magic, chunked in _CHUNKED.items() if head.startswith(magic)), None)
    if chunked is not None:
        return _data_chunk(extent, chunked)
    if (properties := head.find(_ASF_FILE_PROPERTIES)) >= 0:
        return extent.begin, number_in(head, properties + 40, 8, "little")
    if head.startswith(_MATROSKA) and (segment := head.find(_MATROSKA_SEGMENT)) >= 0:
        # Its size, in as many bytes, follows a leading 1 bit (RFC 8794).
        width = 9 - number_in(head, segment + 4, 1).bit_length()
        unknown = (1 << 7 * width) - 1
        size = number_in(head, segment + 4, width) & unknown
        return extent.begin + segment, size if size < unknown else 0
    return extent.begin, _xing_bytes(head)


def _xing_bytes(head: bytes) -> int:
    """How many bytes an mp3 has by its Xing or Info header; 0 where there is none, or one without their number."""
    xing = max(head.find(name, 0, 200) for name in (b"Xing", b"Info"))
    says_it = head.startswith(b"\xff") and xing >= 0 and number_in(head, xing + 4, 4) & 3 == 3  # and of the frames
    return number_in(head, xing + 12, 4) if says_it and number_in(head, xing + 8, 4) else 0


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


def _data_chunk(extent: Extent, chunked: _Chunked) -> tuple[int, int]:
    """Where the data chunk's content begins, and its size; 0 where there is none, or it is not known yet."""
    position, long_size = extent.begin + chunked.first, 0
    head_bytes = chunked.name_bytes + chunked.size_bytes
    for _ in range(_MOST_CHUNKS):
        if position >= extent.n_bytes:
            break
        head = read_at(extent.file, position, head_bytes + 16)
        name, size = head[:4], number_in(head, chunked.name_bytes, chunked.size_bytes, chunked.order)
        if len(head) < head_bytes:
            break
        if name == b"ds64":  # of an RF64, whose own sizes are all ones
            long_size = number_in(head, head_bytes + 8, 8, "little")
        size = size - head_bytes if chunked.sizes_with_head else size
        if name in chunked.data or (name == b"LIST" and head[head_bytes : head_bytes + 4] == b"movi"):  # of an avi
            is_unknown = size >= (_UNKNOWN_BYTES if chunked.size_bytes == 4 else 1 << 62)
            return position + head_bytes, long_size if is_unknown else size
        position += head_bytes + size + -size % chunked.aligned
    return 0, 0


def _is_cut_page(tail: bytes) -> bool:
    """Whether the last Ogg page lacks bytes; its 27-byte header ends with the number of segment sizes (RFC 3533)."""
    page = tail[max(0, tail.rfind(b"OggS")) :]
    if len(page) < 27:
        return True
    n_segments = page[26]
    return len(page) < 27 + n_segments + sum(page[27 : 27 + n_segments])
