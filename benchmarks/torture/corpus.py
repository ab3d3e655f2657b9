"""Broken sound files, thousands of them, each the same whenever it is made: `case(seed, number)`.

Most are files of every kind of container and codec that was changed somewhere; `TRAPS` are made by hand, one by one.
"""

import base64
import io
import struct
import tempfile
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from fractions import Fraction
from functools import cache
from pathlib import Path

import av
import numpy as np
import soundfile

from crnn.audio import SUFFIXES, foreign

KINDS = {  # suffix: muxer, encoder, its sample format, rate
    "wav": ("wav", "pcm_s16le", "s16", 44_100),
    "float.wav": ("wav", "pcm_f32le", "flt", 22_050),
    "adpcm.wav": ("wav", "adpcm_ms", "s16", 22_050),
    "mp3": ("mp3", "libmp3lame", "s16p", 44_100),
    "mp2": ("mp2", "mp2", "s16", 44_100),
    "flac": ("flac", "flac", "s16", 44_100),
    "opus": ("ogg", "libopus", "s16", 48_000),
    "ogg": ("ogg", "vorbis", "", 44_100),
    "oga": ("ogg", "flac", "s16", 44_100),
    "m4a": ("ipod", "aac", "fltp", 44_100),
    "alac.m4a": ("ipod", "alac", "s16p", 44_100),
    "mp4": ("mp4", "aac", "fltp", 48_000),
    "mov": ("mov", "pcm_s24le", "s32", 44_100),
    "aac": ("adts", "aac", "fltp", 44_100),
    "webm": ("webm", "libopus", "s16", 48_000),
    "mka": ("matroska", "flac", "s16", 44_100),
    "wma": ("asf", "wmav2", "fltp", 44_100),
    "aiff": ("aiff", "pcm_s16be", "s16", 44_100),
    "au": ("au", "pcm_s16be", "s16", 22_050),
    "caf": ("caf", "alac", "s16p", 44_100),
    "w64": ("w64", "pcm_s16le", "s16", 22_050),
    "voc": ("voc", "pcm_s16le", "s16", 22_050),
    "ac3": ("ac3", "ac3", "fltp", 48_000),
    "eac3": ("eac3", "eac3", "fltp", 48_000),
    "tta": ("tta", "tta", "s16", 44_100),
    "wv": ("wv", "wavpack", "s16p", 44_100),
    "avi": ("avi", "libmp3lame", "s16p", 44_100),
    "flv": ("flv", "libmp3lame", "s16p", 44_100),
    "mpg": ("mpeg", "mp2", "s16", 44_100),
    "mts": ("mpegts", "aac", "fltp", 48_000),
    "rm": ("rm", "ac3", "fltp", 44_100),
}
SECONDS = 3
NAMES = (
    "a song",
    "two\nlines",
    "tab\there",
    "quo\"te'`s",
    "-i",
    "--json",
    "%d%s%n",
    "{name}{0.__class__}",
    "$(id);|&",
    "a:b",
    "http:__127.0.0.1_x",
    "concat:a|b",
    "pipe:0",
    "<img src=x onerror=alert(1)>",
    "\u202egpj",
    "\U0001f3b5" * 30,
    "..",
    " ",
    "x" * 200,
    "\udcff\udcfe",
    "#1 100 %20",
    "CON",
    "file,subfile,,start,0,end,0,,:x",
)
EXTREMES = (0, 1, 0x7F, 0x80, 0xFF, 0x7FFF, 0xFFFF, 0x7FFF_FFFF, 0x8000_0000, 0xFFFF_FFFE, 0xFFFF_FFFF)


@dataclass(frozen=True)
class Case:
    """A broken file: what was done, its name and its bytes."""

    label: str
    name: str
    content: bytes
    is_refused: bool = False  # whether anything but an error would be wrong


def case(seed: int, number: int, host: str = "127.0.0.1:9", secret: str = "/etc/hostname") -> Case:
    """The traps first, then changed files without end. `host` and `secret` are what playlists name."""
    random = np.random.default_rng([seed, number])
    stem = NAMES[random.integers(len(NAMES))]
    traps = list(TRAPS)
    if number < len(traps):
        suffix, is_refused, make = TRAPS[traps[number]]
        return Case(traps[number], f"{stem}.{suffix}", make(host, secret), is_refused)
    kind = list(KINDS)[number % len(KINDS)]
    label, content = kind, whole(kind)
    for _ in range(random.choice([1, 1, 1, 2, 3])):
        change = CHANGES[random.integers(len(CHANGES))]
        if not content:
            break
        content = change(content, random)
        label += f", {change.__name__}"
    suffix = kind.split(".")[-1]
    if random.random() < 0.2:
        suffix = sorted(SUFFIXES)[random.integers(len(SUFFIXES))][1:]
        label += f" as {suffix}"
    return Case(label, f"{stem}.{suffix}", content)


def encode(muxer: str, codec: str, samples: np.ndarray, rate_hz: int, sample_format: str, n_tracks: int = 1) -> bytes:
    """Encode shape (channels, samples) with FFmpeg, into several tracks alike."""
    layout = {1: "mono", 2: "stereo", 8: "7.1"}[len(samples)]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "file")  # some muxers go back in it
        options = {"fflags": "bitexact"} if muxer in ("matroska", "webm") else {}  # else it draws its tracks' UIDs
        with av.open(path, "w", format=muxer, options=options) as output:
            tracks = [output.add_stream(codec, rate=rate_hz) for _ in range(n_tracks)]
            for track in tracks:
                track.codec_context.layout, track.codec_context.format = layout, sample_format
                track.codec_context.bit_rate = 128_000
            for track in tracks:
                resampler = av.AudioResampler(sample_format, layout, rate_hz)
                for start in range(0, samples.shape[1], 2**20):
                    interleaved = np.ascontiguousarray(samples[:, start : start + 2**20].T).reshape(1, -1)
                    frame = av.AudioFrame.from_ndarray(interleaved, "s16", layout)
                    frame.sample_rate, frame.time_base, frame.pts = rate_hz, Fraction(1, rate_hz), start
                    for part in resampler.resample(frame):
                        output.mux(track.encode(part))
                output.mux(track.encode(None))
        return path.read_bytes()


@cache
def whole(kind: str) -> bytes:
    """A file of a kind before anything happened to it: stereo, tones and noise."""
    muxer, codec, sample_format, rate_hz = KINDS[kind]
    t = np.arange(SECONDS * rate_hz) / rate_hz
    noise = np.random.default_rng(0).standard_normal((2, len(t)))
    samples = 6_000 * np.sin(2 * np.pi * np.array([[220], [330]]) * t) + 1_000 * noise
    if codec == "vorbis":  # the wheels of PyAV have no such encoder
        file = io.BytesIO()
        soundfile.write(file, samples.T / 32_768, rate_hz, format="OGG", subtype="VORBIS")
        content = file.getvalue()
    else:
        content = encode(muxer, codec, samples.astype(np.int16), rate_hz, sample_format)
    return with_serial(content, list(KINDS).index(kind)) if muxer == "ogg" else content


def truncate(content: bytes, random: np.random.Generator) -> bytes:
    """Its beginning; often a short one, where the headers are."""
    return content[: random.integers(1, min(len(content), random.choice([64, 4_096, 10**9])) + 1)]


def flip_bits(content: bytes, random: np.random.Generator) -> bytes:
    """From one bit to one in a hundred bytes, anywhere."""
    n_bits = random.choice([1, 10, 100, max(1, len(content) // 100)])
    return _altered(content, random, n_bits, len(content), lambda old: old ^ (1 << random.integers(0, 8, old.shape)))


def flip_header(content: bytes, random: np.random.Generator) -> bytes:
    """Some bits in the first bytes."""
    most = random.choice([64, 512, 4_096])
    return _altered(
        content, random, random.integers(1, 30), most, lambda old: old ^ (1 << random.integers(0, 8, old.shape))
    )


def put_extremes(content: bytes, random: np.random.Generator) -> bytes:
    """Numbers of the header as large or as small as they can be."""
    changed = bytearray(content)
    for _ in range(random.integers(1, 5)):
        at, n_bytes = random.integers(0, min(len(content), 1_024) + 1), random.choice([1, 2, 4, 8])
        value = EXTREMES[random.integers(len(EXTREMES))] % 256 ** int(n_bytes)
        changed[at : at + n_bytes] = value.to_bytes(int(n_bytes), ["little", "big"][random.integers(2)])
    return bytes(changed)


def put_noise(content: bytes, random: np.random.Generator) -> bytes:
    """Random bytes, zeros or ones over a part of it."""
    first, end = np.sort(random.integers(0, len(content) + 1, 2))
    filling = [random.bytes(end - first), b"\0" * (end - first), b"\xff" * (end - first)][random.integers(3)]
    return content[:first] + filling + content[end:]


def leave_out(content: bytes, random: np.random.Generator) -> bytes:
    """A part of it is gone."""
    first, end = np.sort(random.integers(0, len(content) + 1, 2))
    return content[:first] + content[end:]


def repeat(content: bytes, random: np.random.Generator) -> bytes:
    """A part of it comes again and again."""
    first, end = np.sort(random.integers(0, len(content) + 1, 2))
    return content[:end] + content[first:end] * random.integers(1, 6) + content[end:]


def insert(content: bytes, random: np.random.Generator) -> bytes:
    """Bytes in between, from one to many."""
    at = random.integers(0, len(content) + 1)
    return content[:at] + random.bytes(random.choice([1, 3, 100, 70_000])) + content[at:]


def splice(content: bytes, random: np.random.Generator) -> bytes:
    """Its beginning, and another kind's end."""
    other = whole(list(KINDS)[random.integers(len(KINDS))])
    return content[: random.integers(1, len(content) + 1)] + other[random.integers(len(other)) :]


def chain(content: bytes, random: np.random.Generator) -> bytes:
    """Another file behind it."""
    return content + whole(list(KINDS)[random.integers(len(KINDS))])


CHANGES = truncate, flip_bits, flip_header, put_extremes, put_noise, leave_out, repeat, insert, splice, chain


def _altered(content: bytes, random: np.random.Generator, count: int, most: int, change: Callable) -> bytes:
    changed = np.frombuffer(content, np.uint8).copy()
    places = random.integers(0, max(1, min(len(changed), most)), count)
    changed[places] = change(changed[places]).astype(np.uint8)
    return changed.tobytes()


def silence(muxer: str, codec: str, n_channels: int, rate_hz: int, seconds: int) -> bytes:
    """So many seconds of nothing, which compresses well."""
    samples = np.broadcast_to(np.int16(0), (n_channels, seconds * rate_hz))
    return encode(muxer, codec, samples, rate_hz, "s16")


def wav_header(n_channels: int, rate_hz: int, n_bytes: int) -> bytes:
    """Of 16-bit PCM, with any claim."""
    block = 2 * n_channels
    head = struct.pack(
        "<4sI8sIHHII", b"RIFF", 0xFFFF_FFFF, b"WAVEfmt ", 16, 1, n_channels, rate_hz, rate_hz * block % 2**32
    )
    return head + struct.pack("<HH4sI", block % 65_536, 16, b"data", n_bytes)


def missing_tag(n_bytes: int) -> bytes:
    """A wav with a tag that claims so many bytes and has none."""
    tag = b"INFO" + b"INAM" + struct.pack("<I", n_bytes)
    listed = b"LIST" + struct.pack("<I", n_bytes + len(tag)) + tag
    return whole("wav")[:36] + listed


def tiny_caf_packets(count: int) -> bytes:
    """A caf whose µ-law samples are packets of their own."""
    description = struct.pack(">d4sIIIII", 8_000.0, b"ulaw", 0, 1, 1, 1, 8)
    data = b"\0\0\0\0" + bytes(np.random.default_rng(0).integers(0, 256, count, np.uint8))
    return (
        b"caff\0\1\0\0"
        + b"desc"
        + struct.pack(">q", len(description))
        + description
        + b"data"
        + struct.pack(">q", len(data))
        + data
    )


def tiny_matroska_packets(count: int, n_tracks: int = 1) -> bytes:
    """A webm with a cluster of so many blocks of a byte, in some tracks in turn."""
    content = whole("webm")
    if n_tracks > 1:
        content = encode("webm", "libopus", np.zeros((1, 48_000), np.int16), 48_000, "s16", n_tracks)
    cluster = content.index(b"\x1f\x43\xb6\x75")
    # SimpleBlock of five bytes: its track, time 0, a key frame of 1 byte
    blocks = b"".join(b"\xa3\x85%c\0\0\x80\xfc" % (0x81 + track) for track in range(n_tracks))
    head = content[:cluster] + b"\x1f\x43\xb6\x75\x01\xff\xff\xff\xff\xff\xff\xff\xe7\x81\0"
    return head + blocks * (count // n_tracks)


def tiny_flv_packets(count: int) -> bytes:
    """A flv, whose head does not tell its tracks, with so many tags of a sample of A-law."""
    return b"FLV\1\4\0\0\0\x09\0\0\0\0" + (b"\x08\0\0\2" + b"\0" * 7 + b"\x72\1\0\0\0\x0d") * count


@cache
def _ogg_table() -> list[int]:
    table = []
    for value in range(256):
        remainder = value << 24
        for _ in range(8):
            remainder = ((remainder << 1) ^ (0x04C1_1DB7 if remainder & 0x8000_0000 else 0)) & 0xFFFF_FFFF
        table.append(remainder)
    return table


def ogg_page(serial: int, number: int, granule: int, packets: list[bytes], flags: int = 0) -> bytes:
    """A page of whole packets of up to 254 bytes each, with the right checksum (RFC 3533)."""
    head = struct.pack("<4sBBqIIIB", b"OggS", 0, flags, granule, serial, number, 0, len(packets))
    return _with_checksum(head + bytes(map(len, packets)) + b"".join(packets))


def with_serial(content: bytes, serial: int) -> bytes:
    """An Ogg stream with another serial number than the one that its muxer has drawn."""
    pages = (b"OggS" + page for page in content.split(b"OggS")[1:])
    return b"".join(_with_checksum(page[:14] + struct.pack("<I", serial) + page[18:]) for page in pages)


def _with_checksum(page: bytes) -> bytes:
    table, remainder = _ogg_table(), 0
    for byte in page[:22] + bytes(4) + page[26:]:
        remainder = (remainder << 8 & 0xFFFF_FFFF) ^ table[remainder >> 24 ^ byte]
    return page[:22] + struct.pack("<I", remainder) + page[26:]


def tiny_opus_packets(count: int) -> bytes:
    """An Opus stream of packets of one byte, which are silence of 2.5 ms."""
    head = b"OpusHead\1\1\0\0" + struct.pack("<I", 48_000) + b"\0\0\0"
    pages = [ogg_page(1, 0, 0, [head], 2), ogg_page(1, 1, 0, [b"OpusTags" + b"\0" * 8])]
    for number in range(count // 255):
        pages.append(ogg_page(1, number + 2, 120 * 255 * (number + 1), [b"\x80"] * 255))
    return b"".join(pages)


def multiplexed_ogg() -> bytes:
    """The pages of two streams in turn."""
    first, second = ([b"OggS" + page for page in whole(kind).split(b"OggS")[1:]] for kind in ("opus", "oga"))
    return b"".join(page for pages in zip(first, second, strict=False) for page in pages)


def id3_picture(n_bytes: int) -> bytes:
    """An mp3 that begins with a cover of so many bytes."""
    frame = b"\0image/jpeg\0\3\0\xff\xd8\xff" + b"\x5a" * n_bytes
    sized = b"APIC" + struct.pack(">I", len(frame)) + b"\0\0" + frame
    size = bytes(len(sized) >> shift & 0x7F for shift in (21, 14, 7, 0))
    return b"ID3\3\0\0" + size + sized + whole("mp3")


def flac_pictures(count: int) -> bytes:
    """A flac with covers of 16 MB, the largest it can have."""
    content = whole("flac")
    picture = struct.pack(">III", 3, 10, 0)[:4] + struct.pack(">I", 9) + b"image/png" + b"\0" * 20
    n_bytes = 2**24 - 1 - len(picture) - 4
    block = picture + struct.pack(">I", n_bytes) + b"\x5a" * n_bytes
    return content[:42] + (b"\6" + len(block).to_bytes(3, "big") + block) * count + content[42:]


def mp4_picture(n_bytes: int) -> bytes:
    """An m4a with a cover of so many bytes in an atom of its own at its end."""
    data = struct.pack(">I4sII", 16 + n_bytes, b"data", 13, 0) + b"\x5a" * n_bytes
    covr = struct.pack(">I4s", 8 + len(data), b"covr") + data
    ilst = struct.pack(">I4s", 8 + len(covr), b"ilst") + covr
    hdlr = struct.pack(">I4sII4s", 33, b"hdlr", 0, 0, b"mdir") + b"appl" + b"\0" * 9
    meta = struct.pack(">I4sI", 12 + len(hdlr) + len(ilst), b"meta", 0) + hdlr + ilst
    udta = struct.pack(">I4s", 8 + len(meta), b"udta") + meta
    return whole("m4a") + struct.pack(">I4s", 8 + len(udta), b"moov") + udta


def reference_movie(address: str) -> bytes:
    """A QuickTime file that is nothing but the address of another."""
    url = address.encode() + b"\0"
    rdrf = struct.pack(">I4sI4sI", 20 + len(url), b"rdrf", 0, b"url ", len(url)) + url
    rmda = struct.pack(">I4s", 8 + len(rdrf), b"rmda") + rdrf
    rmra = struct.pack(">I4s", 8 + len(rmda), b"rmra") + rmda
    return (
        struct.pack(">I4s4sI4s", 20, b"ftyp", b"qt  ", 0, b"qt  ") + struct.pack(">I4s", 8 + len(rmra), b"moov") + rmra
    )


def external_data(address: str) -> bytes:
    """An m4a whose samples are said to be in another file."""
    content = whole("m4a")
    at = content.index(b"url \0\0\0\1") - 4
    entry = struct.pack(">I4sI", 12 + len(address) + 1, b"url ", 0) + address.encode() + b"\0"
    return content[:at] + entry + content[at + 12 :]


def zipped(content: bytes) -> bytes:
    """As a gzip stream, which is small."""
    squeeze = zlib.compressobj(wbits=31)
    return squeeze.compress(content) + squeeze.flush()


def _traps() -> Iterator[tuple[str, tuple[str, bool, Callable[[str, str], bytes]]]]:
    """Label: suffix, whether it has to be refused, and the bytes for a host and a path."""
    either, refused = False, True
    yield "five hours of silence, flac", ("flac", either, lambda *_: silence("flac", "flac", 1, 8_000, 18_000))
    yield (
        "two hours of silence, flac at 44.1 kHz",
        ("flac", either, lambda *_: silence("flac", "flac", 1, 44_100, 7_200)),
    )
    yield (
        "20 minutes of silence, wavpack",
        ("wv", either, lambda *_: encode("wv", "wavpack", np.zeros((1, 44_100 * 1_200), np.int16), 44_100, "s16p")),
    )
    frame = b"\xff\xe3\x18\xc4" + b"\0" * 68  # MPEG 2.5, 8 kbit/s, 8 kHz, mono: 72 ms
    yield "24 hours of mp3 frames", ("mp3", either, lambda *_: frame * 1_200_000)
    yield "192 kHz with 8 channels, flac", ("flac", either, lambda *_: silence("flac", "flac", 8, 192_000, 90))
    noise = np.random.default_rng(0).integers(-9_000, 9_000, (8, 192_000), np.int16)
    yield (
        "192 kHz with 8 channels, wav",
        ("wav", either, lambda *_: wav_header(8, 192_000, 0xFFFF_FFFF) + noise.tobytes() * 25),
    )
    for n_channels in (0, 9, 64, 255, 256, 512, 1_000, 65_535):
        yield (
            f"{n_channels} channels",
            (
                "wav",
                either,
                lambda *_, n=n_channels: wav_header(n, 22_050, 0xFFFF_FFFF) + noise.tobytes()[:3_000_000] * 4,
            ),
        )
    for rate_hz in (0, 1, 3_999, 4_000, 2_822_401, 2**31 - 1, 2**32 - 1):
        yield (
            f"{rate_hz} Hz",
            ("wav", either, lambda *_, n=rate_hz: wav_header(1, n, 400_000) + noise.tobytes()[:400_000]),
        )
    yield "a million tiny packets, caf", ("caf", either, lambda *_: tiny_caf_packets(1_000_000))
    yield "a million tiny packets, webm", ("webm", either, lambda *_: tiny_matroska_packets(1_000_000))
    yield (
        "a million tiny packets in two tracks, webm",
        ("webm", either, lambda *_: tiny_matroska_packets(1_000_000, 2)),
    )
    yield "a million tiny packets times five, flv", ("flv", either, lambda *_: tiny_flv_packets(5_500_000))
    yield "a million tiny packets, opus", ("opus", either, lambda *_: tiny_opus_packets(1_000_000))
    for n_bytes in (1_000_000_000, 2**32 - 100):
        yield f"a tag of {n_bytes} bytes that are not there", ("wav", refused, lambda *_, n=n_bytes: missing_tag(n))
    yield "a cover of 100 MB, mp3", ("mp3", either, lambda *_: id3_picture(100_000_000))
    yield "covers of 100 MB, flac", ("flac", either, lambda *_: flac_pictures(6))
    yield "a cover of 100 MB, m4a", ("m4a", either, lambda *_: mp4_picture(100_000_000))
    yield (
        "a comment of 60 MB, ogg",
        (
            "ogg",
            either,
            lambda *_: whole("ogg").replace(b"\3vorbis", b"\3vorbis" + base64.b64encode(b"\1" * 45_000_000), 1),
        ),
    )
    yield "chained ogg", ("ogg", either, lambda *_: whole("ogg") + whole("opus") + whole("oga") + whole("ogg"))
    yield "chained ogg, a thousand times", ("ogg", either, lambda *_: whole("ogg") * 1_000)
    yield "multiplexed ogg", ("ogg", either, lambda *_: multiplexed_ogg())
    yield (
        "60 tracks",
        ("mka", either, lambda *_: encode("matroska", "pcm_s16le", noise[:1, :40_000], 22_050, "s16", 60)),
    )
    yield "every kind behind another", ("mp3", either, lambda *_: b"".join(map(whole, KINDS)))
    yield "a reference movie", ("mov", refused, lambda host, _: reference_movie(f"http://{host}/a.mp3"))
    yield "data in another file", ("m4a", either, lambda _, secret: external_data(f"file://{secret}"))
    yield "data at an address", ("m4a", either, lambda host, _: external_data(f"http://{host}/a"))
    for suffix in ("mp3", "m4a", "ts"):
        for name, text in PLAYLISTS.items():
            yield (
                f"{name} as {suffix}",
                (suffix, refused, lambda h, s, t=text: t.replace("HOST", h).replace("SECRET", s).encode()),
            )
    yield "hls in utf-16", ("mp3", refused, lambda h, _: PLAYLISTS["hls"].replace("HOST", h).encode("utf-16"))
    yield (
        "hls behind a tag",
        ("mp3", either, lambda h, _: b"ID3\3\0\0\0\0\0\0" + PLAYLISTS["hls"].replace("HOST", h).encode()),
    )
    for _, kind, position, magic in foreign._MAGIC:
        yield (
            f"only begins as {kind} {magic[:4]}",
            ("mp3", refused, lambda *_, p=position, m=magic: b"\0" * p + m + np.random.default_rng(1).bytes(20_000)),
        )
    for filling in (
        b"\0",
        b"\xff",
        b"A",
        b"\n",
        b"OggS",
        b"RIFF",
        b"\xff\xfb",
        b"ID3\4\0\0\x7f\x7f\x7f\x7f",
        b"\x1a\x45\xdf\xa3",
    ):
        for n_bytes in (1, 5, 1_000, 3_000_000):
            yield f"{n_bytes} bytes of {filling[:4]!r}", ("mp3", either, lambda *_, f=filling, n=n_bytes: (f * n)[:n])
    yield "nothing", ("wav", refused, lambda *_: b"")
    yield "a bomb, gzip", ("mp3", refused, lambda *_: zipped(b"\0" * 300_000_000))
    yield "slow patterns", ("mp3", refused, lambda *_: b"<?xml\n" * 4 + b"<project " * 400_000)


PLAYLISTS = {
    "m3u": "http://HOST/a.mp3\n",
    "m3u of files": "#EXTM3U\n#EXTINF:1,a\nSECRET\n../../SECRET\n",
    "hls": "#EXTM3U\n#EXT-X-TARGETDURATION:9\n#EXTINF:9,\nhttp://HOST/a.ts\n#EXTINF:9,\nfile://SECRET\n#EXT-X-ENDLIST\n",
    "hls with a key": '#EXTM3U\n#EXT-X-KEY:METHOD=AES-128,URI="http://HOST/k"\n#EXTINF:9,\nconcat:SECRET|SECRET\n',
    "pls": "[playlist]\nFile1=http://HOST/a.mp3\nNumberOfEntries=1\n",
    "concat": "ffconcat version 1.0\nfile 'SECRET'\nfile http://HOST/a\n",
    "sdp": "v=0\no=- 0 0 IN IP4 HOST\ns=x\nc=IN IP4 127.0.0.1\nt=0 0\nm=audio 9 RTP/AVP 0\na=rtpmap:0 PCMU/8000\n",
    "dash": '<?xml version="1.0"?>\n<MPD><Period><BaseURL>http://HOST/</BaseURL></Period></MPD>',
    "asx": '<asx version="3.0"><entry><ref href="http://HOST/a"/></entry></asx>',
    "asf reference": "[Reference]\nRef1=http://HOST/a\n",
    "xspf": '<?xml version="1.0"?><playlist><trackList><track><location>http://HOST/a</location></track></trackList></playlist>',
    "smil": '<smil><body><audio src="http://HOST/a"/></body></smil>',
    "ram": "rtsp://HOST/a\n",
    "cue": 'FILE "SECRET" WAVE\n  TRACK 01 AUDIO\n    INDEX 01 00:00:00\n',
    "url": "[InternetShortcut]\nURL=http://HOST/a\n",
    "ffmetadata": ";FFMETADATA1\ntitle=x\n",
    "imf": '<?xml version="1.0"?><CompositionPlaylist><Id>x</Id></CompositionPlaylist>',
    "vapoursynth": "import subprocess\n",
    "svg": '<svg xmlns:xlink="http://www.w3.org/1999/xlink"><image xlink:href="http://HOST/a"/></svg>',
    "subfile": "subfile,,start,0,end,9,,:SECRET\n",
}

TRAPS = dict(_traps())
