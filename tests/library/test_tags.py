"""Genres in the files' own tags: nothing else changes, nothing is lost, everything can be taken back."""

import errno
import json
import os
import sys
from collections.abc import Callable
from dataclasses import replace
from io import BytesIO
from pathlib import Path

import av
import mutagen
import numpy as np
import pytest
import torch
from mutagen.apev2 import APEBinaryValue, APEv2
from mutagen.asf import ASF, ASFByteArrayAttribute, ASFUnicodeAttribute
from mutagen.flac import FLAC, Picture
from mutagen.id3 import APIC, COMM, ID3, PRIV, TCON, TIT2, TXXX, TYER
from mutagen.mp4 import MP4, MP4Cover, MP4FreeForm
from mutagen.oggopus import OggOpus

from crnn import files
from crnn.__main__ import main
from crnn.bundle import MODEL_VARIABLE
from crnn.checkpoint import save
from crnn.inference import GenreClassifier
from crnn.library import retag
from crnn.library.retag import read_genre, restore_genre, sound_of, write_genre
from crnn.library.tags import TagError, usual_name
from crnn.library.undo import Change, Undo, read_changes
from crnn.network.model import CRNN

PICTURE = bytes(range(256)) * 5
CODECS = {  # by suffix: encoder, its rate, the muxer if the suffix does not say it
    ".mp3": ("libmp3lame", 44_100, None),
    ".flac": ("flac", 44_100, None),
    ".ogg": ("vorbis", 44_100, None),
    ".oga": ("flac", 44_100, "ogg"),
    ".opus": ("libopus", 48_000, None),
    ".m4a": ("aac", 44_100, "ipod"),
    ".wav": ("pcm_s16le", 44_100, None),
    ".aiff": ("pcm_s16be", 44_100, None),
    ".wma": ("wmav2", 44_100, "asf"),
    ".wv": ("wavpack", 44_100, None),
    ".tta": ("tta", 44_100, None),
}
DSD_RATE = 2_822_400


def write_song(path: Path, tags: bool = True, seed: int = 0) -> Path:
    """Two seconds of stereo noise in the format that the suffix says, with a title."""
    if path.suffix == ".dsf":
        path.write_bytes(dsf(seed))
        if tags:
            song = mutagen.File(path)
            song.add_tags()
            for frame in (TIT2(encoding=3, text="A title"), COMM(encoding=3, lang="eng", desc="", text="So it is")):
                song.tags.add(frame)
            song.save()
        return path
    codec, rate, muxer = CODECS[path.suffix]
    noise = np.random.default_rng(seed).normal(0, 0.1, (2, 2 * rate)).astype(np.float32)
    with av.open(str(path), "w", format=muxer) as container:
        options = {"strict": "experimental"}
        stream = container.add_stream(codec, rate=rate, layout="stereo", bit_rate=128_000, options=options)
        if tags:
            container.metadata.update({"title": "A title", "artist": "Ärzte", "comment": "So it is"})
        frame = av.AudioFrame.from_ndarray(noise, format="fltp", layout="stereo")
        frame.sample_rate, frame.pts = rate, 0
        resampler = av.AudioResampler(format=stream.format, layout="stereo", rate=rate)
        for part in [*resampler.resample(frame), *resampler.resample(None)]:
            container.mux(stream.encode(part))
        container.mux(stream.encode(None))
    return path


def write_film(path: Path, muxer: str, options: dict[str, str] | None = None, **metadata: str) -> Path:
    """Two seconds of noise to be seen and heard."""
    codecs = ("mpeg1video", "mp2") if muxer == "mpeg" else ("mpeg4", "aac")
    random = np.random.default_rng(0)
    with av.open(str(path), "w", format=muxer, options=options or {}) as container:
        container.metadata.update({"title": "A title", **metadata})
        pictures, sound = container.add_stream(codecs[0], rate=25), container.add_stream(codecs[1], rate=44_100)
        pictures.width, pictures.height, pictures.pix_fmt = 32, 32, "yuv420p"
        for number in range(50):
            frame = av.VideoFrame.from_ndarray(random.integers(0, 255, (32, 32, 3), np.uint8), format="rgb24")
            frame.pts = number
            container.mux(pictures.encode(frame))
        container.mux(pictures.encode(None))
        noise = random.normal(0, 0.1, (1, 2 * 44_100)).astype(np.float32)
        frame = av.AudioFrame.from_ndarray(noise, format="fltp", layout="mono")
        frame.sample_rate, frame.pts = 44_100, 0
        resampler = av.AudioResampler(format=sound.format, layout=sound.layout, rate=44_100)
        for part in [*resampler.resample(frame), *resampler.resample(None), None]:
            container.mux(sound.encode(part))
    return path


def dsf(seed: int) -> bytes:
    """A tenth of a second in stereo, whose blocks of 4096 bytes are a channel's."""
    n_blocks = DSD_RATE // 8 // 10 // 4_096 + 1
    data = np.random.default_rng(seed).bytes(2 * 4_096 * n_blocks)
    form = [1, 0, 2, 2, DSD_RATE, 1]
    head = b"fmt " + (52).to_bytes(8, "little") + b"".join(number.to_bytes(4, "little") for number in form)
    head += (8 * 4_096 * n_blocks).to_bytes(8, "little") + (4_096).to_bytes(4, "little") + bytes(4)
    content = head + b"data" + (12 + len(data)).to_bytes(8, "little") + data
    sizes = [28, 28 + len(content), 0]  # of itself, of the file, the place of a tag
    return b"DSD " + b"".join(number.to_bytes(8, "little") for number in sizes) + content


# The least that says what they are, of formats that FFmpeg does not write; sound is any bytes.
HEADS = {
    ".ape": b"MAC " + (3_990).to_bytes(2, "little") + bytes(50) + b"\0\x20\1\0\0\1\0\0\2\0\0\0\x10\0\2\0\x44\xac\0\0",
    ".mpc": b"MP+\x07" + bytes([9, 0, 0, 0]) + bytes(24),
    ".tak": b"tBaK" + b"\x01\x0d\0\0" + bytes(13) + bytes(4),
}


def heard(path: Path) -> tuple[list[bytes], np.ndarray]:
    """The packets of a file and its decoded samples."""
    with av.open(str(path)) as container:
        packets = [bytes(packet) for packet in container.demux(audio=0)]
    with av.open(str(path)) as container:
        return packets, np.concatenate([frame.to_ndarray() for frame in container.decode(audio=0)], axis=1)


def other_tags(path: Path) -> dict[str, str]:
    """What FFmpeg reads of a file's tags beside the genre."""
    with av.open(str(path)) as container:
        found = {**container.metadata, **container.streams.audio[0].metadata}
    return {name: value for name, value in found.items() if name.lower() != "genre"}


def ffmpeg_genre(path: Path) -> str | None:
    """What FFmpeg takes for the genre of a file."""
    with av.open(str(path)) as container:
        found = {**container.metadata, **container.streams.audio[0].metadata}
    return next((value for name, value in found.items() if name.lower() == "genre"), None)


def write_noted(path: Path, name: str, **options: bool) -> Change:
    """Write a genre; what an undo file would hold of that."""
    noted = []
    write_genre(path, name, note=lambda *facts: noted.append(facts), **options)
    ((genre, later, sound),) = noted
    return Change(str(path), name, genre.places, later, genre.has_tag, sound)


def take_back(change: Change) -> None:
    """As it comes out of an undo file."""
    restore_genre(Change(**json.loads(json.dumps(vars(change)))))


@pytest.mark.parametrize("tags", [True, False])
@pytest.mark.parametrize("suffix", [*CODECS, ".dsf"])
def test_a_genre_is_written_beside_all_else_and_taken_back(tmp_path: Path, suffix: str, tags: bool) -> None:
    song = write_song(tmp_path / f"song{suffix}", tags)
    packets, samples = heard(song)
    others = other_tags(song)
    assert read_genre(song).names == ()
    change = write_noted(song, "Hip-Hop")
    for genre in (("Hip-Hop",), ()):
        assert read_genre(song).names == genre
        assert ffmpeg_genre(song) == (genre[0] if genre else None)
        assert other_tags(song) == others
        now = heard(song)
        assert now[0] == packets
        np.testing.assert_array_equal(now[1], samples)
        if genre:
            take_back(change)
    assert [path.name for path in tmp_path.iterdir()] == [song.name]


@pytest.mark.parametrize("id3v1", [b"", b"TAG" + b"Another title".ljust(124, b"\0") + b"\xff"])
@pytest.mark.parametrize("suffix", HEADS)
def test_an_ape_tag_is_written_between_sound_and_id3v1(tmp_path: Path, suffix: str, id3v1: bytes) -> None:
    song, sound = tmp_path / f"song{suffix}", HEADS[suffix] + np.random.default_rng(0).bytes(5_000)
    song.write_bytes(sound + id3v1)
    change = write_noted(song, "Jazz")
    now = song.read_bytes()
    assert now.startswith(sound + b"APETAGEX")
    assert now.endswith(id3v1 and id3v1[:-1] + b"\x08")  # 8 is Jazz
    take_back(change)
    assert song.read_bytes() == sound + id3v1
    tag = APEv2()
    tag["TITLE"], tag["Artist"], tag["genre"] = "Ein Titel", ["One", "Ärzte"], ["Swing", "Bop"]
    tag["Cover Art (Front)"] = APEBinaryValue(b"cover.png\0" + PICTURE)
    song.write_bytes(sound)
    tag.save(song)
    before = dict(APEv2(song))
    song.write_bytes(song.read_bytes() + id3v1)
    assert read_genre(song).names == ("Swing", "Bop")
    change = write_noted(song, "Jazz")
    assert dict(APEv2(song)) == before | {"genre": "Jazz"}
    assert song.read_bytes().endswith(id3v1 and id3v1[:-1] + b"\x08")
    take_back(change)
    assert song.read_bytes() == sound + _ape_bytes(song) + id3v1
    assert dict(APEv2(song)) == before


def _ape_bytes(path: Path) -> bytes:
    """What mutagen writes of the tag of a file."""
    tag, alone = APEv2(path), BytesIO()
    tag.save(alone)
    return alone.getvalue()


def test_a_genre_in_id3v1_counts_beside_an_ape_tag_that_has_none(tmp_path: Path) -> None:
    song = tmp_path / "song.mpc"
    song.write_bytes(HEADS[".mpc"] + bytes(5_000) + b"TAG" + bytes(124) + b"\x11")
    assert read_genre(song).names == ("Rock",)


def test_a_tag_of_ape_with_the_same_name_twice_is_not_touched(tmp_path: Path) -> None:
    """Of which mutagen would keep one."""
    song = tmp_path / "song.ape"
    song.write_bytes(HEADS[".ape"] + bytes(5_000))
    tag = APEv2()
    tag["Artist"], tag["Brtist"] = "One", "Two"
    tag.save(song)
    before = song.read_bytes().replace(b"Brtist", b"ARTIST")
    song.write_bytes(before)
    with pytest.raises(TagError, match="would be lost"):
        write_genre(song, "Jazz")
    assert song.read_bytes() == before


def test_attributes_of_asf_stay(tmp_path: Path) -> None:
    song = write_song(tmp_path / "song.wma")
    file = ASF(song)
    file["WM/Genre"] = ["Swing", "Bop"]
    file["WM/Picture"] = [ASFByteArrayAttribute(b"\x03" + PICTURE)]
    file["WM/TrackNumber"] = [3]
    file["IsCompilation"] = [True]
    file["WM/Mood"] = [ASFUnicodeAttribute("ruhig", language=0, stream=1)]
    file.save()
    before = _attributes(song)
    assert read_genre(song).names == ("Swing", "Bop")
    change = write_noted(song, "Jazz")
    others = [row for row in before if row[0] != "WM/Genre"]
    assert _attributes(song) == sorted([*others, ("WM/Genre", "'Jazz'", None, None)], key=str)
    take_back(change)
    assert _attributes(song) == before


def _attributes(path: Path) -> list[tuple]:
    rows = [(name, repr(value.value), value.language, value.stream) for name, value in [*ASF(path).tags]]
    return sorted(rows, key=str)


def test_where_true_audio_has_an_ape_tag_the_genre_goes_there(tmp_path: Path) -> None:
    song = write_song(tmp_path / "song.tta")
    assert APEv2(song)["Title"] == "A title"
    write_genre(song, "Jazz")
    assert APEv2(song)["Genre"] == "Jazz"
    assert not _head(song)
    APEv2(song).delete()
    write_genre(song, "Rock")
    assert ID3(song)["TCON"].text == ["Rock"]


@pytest.mark.parametrize("suffix", [".mp3", ".wav", ".aiff", ".dsf"])
def test_where_no_tag_was_not_a_byte_stays(tmp_path: Path, suffix: str) -> None:
    song = write_song(tmp_path / f"song{suffix}", tags=False)
    if suffix == ".mp3":
        mutagen.File(song).delete()
    before = song.read_bytes()
    change = write_noted(song, "Jazz")
    assert song.read_bytes() != before
    take_back(change)
    assert song.read_bytes() == before


@pytest.mark.parametrize("version", [2, 3, 4])
def test_frames_of_every_version_stay_byte_for_byte(tmp_path: Path, version: int) -> None:
    """Cover, comments, private and unknown frames, one that no library can read, and ID3v1 with another title."""
    song = write_song(tmp_path / "song.mp3", tags=False)
    sound = song.read_bytes()[_head(song) :]
    tag = ID3()
    frames = [
        TIT2(encoding=1, text="Ein Titel – lang"),
        TYER(encoding=0, text="1999"),
        APIC(encoding=0, mime="image/png", type=3, desc="cover", data=PICTURE),
        COMM(encoding=1, lang="deu", desc="", text="schön"),
        TXXX(encoding=0, desc="MOOD", text="calm"),
        PRIV(owner="somebody", data=b"\x00\xff\xfe"),
    ]
    for frame in frames:
        tag.add(frame)
    tag.save(song, v2_version=max(version, 3), padding=lambda _: 0)
    body = song.read_bytes()[10 : _head(song)]
    if version == 2:
        body = (
            b"TT2\x00\x00\x08\x00A title"
            + b"PIC\x00\x00\x0d\x00PNG\x03\x00\x89PNG..."
            + b"COM\x00\x00\x08\x00eng\x00abc"
        )
    else:
        size = 5  # the same in both notations
        body += b"XABC" + bytes([0, 0, 0, size, 0, 0]) + b"12345"  # of no version
        body += b"TDEN" + bytes([0, 0, 0, size, 0x40, 0x30]) + b"\x09\xff\xff\xff\xff"
    n = len(body)
    head = b"ID3" + bytes([version, 0, 0, n >> 21 & 127, n >> 14 & 127, n >> 7 & 127, n & 127])
    id3v1 = b"TAG" + b"Another title".ljust(122, b"\0") + bytes(2) + b"\xff"
    song.write_bytes(head + body + sound + id3v1)
    change = write_noted(song, "Reggae")
    now = song.read_bytes()
    assert now.endswith(sound + id3v1[:-1] + b"\x10")  # 16 is Reggae
    assert now[3] == max(version, 3)
    if version == 2:  # which nobody writes any more
        names = {frame.FrameID for frame in ID3(song, translate=False).values()}
        assert names == {"TIT2", "APIC", "COMM", "TCON"}
    else:
        assert body in now
    assert ffmpeg_genre(song) == "Reggae"
    take_back(change)
    now = song.read_bytes()
    assert now.endswith(sound + id3v1)
    assert version == 2 or now[: _head(song)].rstrip(b"\0") == (now[:10] + body).rstrip(b"\0")


def _head(path: Path) -> int:
    try:
        return ID3(path).size
    except mutagen.id3.ID3NoHeaderError:
        return 0


def test_a_song_with_id3v1_alone_keeps_its_names_for_players_of_id3v2(tmp_path: Path) -> None:
    song = write_song(tmp_path / "song.mp3", tags=False)
    mutagen.File(song).delete()
    id3v1 = b"TAG" + b"Title".ljust(30, b"\0") + b"Artist".ljust(30, b"\0") + bytes(64) + b"\xff"
    before = song.read_bytes() + id3v1
    song.write_bytes(before)
    change = write_noted(song, "Jazz")
    assert other_tags(song)["title"] == "Title"
    take_back(change)
    assert song.read_bytes() == before


def test_an_ape_tag_stays_as_it_is(tmp_path: Path) -> None:
    song = write_song(tmp_path / "song.mp3")
    ape = APEv2()
    ape["MP3GAIN_MINMAX"] = "000,179"
    ape.save(song)
    behind = song.read_bytes()[-120:]
    write_genre(song, "Jazz")
    assert song.read_bytes().endswith(behind)
    assert APEv2(song)["MP3GAIN_MINMAX"] == "000,179"
    ape["Genre"] = "Swing"
    ape.save(song)
    assert read_genre(song).names == ("Jazz",)
    with pytest.raises(TagError, match="APE tag"):
        write_genre(song, "Rock")


@pytest.mark.parametrize("earlier", [["(17)"], ["Rock", "Pop"], ["AC/DC rock"]])
def test_an_earlier_genre_of_id3_comes_back_as_it_was_written(tmp_path: Path, earlier: list[str]) -> None:
    song = write_song(tmp_path / "song.mp3")
    tag = ID3(song, translate=False)
    tag.add(TCON(encoding=0, text=earlier))
    tag.save(song, v23_sep=None)
    take_back(write_noted(song, "Jazz"))
    assert ID3(song, translate=False)["TCON"].text == earlier


def test_vorbis_comments_keep_their_case_order_and_pictures(tmp_path: Path) -> None:
    song = write_song(tmp_path / "song.flac", tags=False)
    file = FLAC(song)
    comments = [("Title", "A"), ("genre", "Old"), ("Genre", "Older"), ("ARTIST", "x"), ("artist", "y=z"), ("TITLE", "")]
    file.tags[:] = comments
    picture = Picture()
    picture.data, picture.mime, picture.type = PICTURE, "image/png", 3
    file.add_picture(picture)
    file.save()
    change = write_noted(song, "Jazz")
    file = FLAC(song)
    assert list(file.tags) == [("Title", "A"), ("genre", "Jazz"), *comments[3:]]
    assert file.pictures[0].data == PICTURE
    take_back(change)
    assert list(FLAC(song).tags) == comments


def test_comments_that_are_no_text_are_not_touched(tmp_path: Path) -> None:
    """mutagen would put a sign of its own in the place of bytes that are no UTF-8."""
    song = write_song(tmp_path / "song.opus")
    song.write_bytes(song.read_bytes())
    file = OggOpus(song)
    file["note"] = "caf_e"
    file.save()
    whole = song.read_bytes()
    page = bytearray(whole.replace(b"caf_e", b"caf\xe9e"))
    at = page.rindex(b"OggS", 0, page.index(b"OpusTags"))
    page[at + 22 : at + 26] = bytes(4)
    end = page.index(b"OggS", at + 4)
    page[at + 22 : at + 26] = _ogg_crc(bytes(page[at:end])).to_bytes(4, "little")
    song.write_bytes(page)
    assert OggOpus(song)["note"] == ["caf\ufffde"]
    with pytest.raises(TagError, match="would be lost"):
        write_genre(song, "Jazz")
    assert song.read_bytes() == bytes(page)


def _ogg_crc(data: bytes) -> int:
    register = 0
    for byte in data:
        register ^= byte << 24
        for _ in range(8):
            register = register << 1 ^ (0x104C11DB7 if register >> 31 else 0)
    return register


def test_atoms_of_mp4_stay(tmp_path: Path) -> None:
    song = write_song(tmp_path / "song.m4a")
    file = MP4(song)
    file["covr"] = [MP4Cover(PICTURE, MP4Cover.FORMAT_PNG)]
    file["----:com.apple.iTunes:MOOD"] = [b"calm"]
    file["trkn"] = [(3, 11)]
    file["cpil"] = True
    file.save()
    before = dict(MP4(song).tags)
    change = write_noted(song, "Jazz")
    assert dict(MP4(song).tags) == before | {"\xa9gen": ["Jazz"]}
    take_back(change)
    assert dict(MP4(song).tags) == before


def frame(name: str, body: bytes, flags: bytes = bytes(2)) -> bytes:
    """A frame of ID3v2.3, or of ID3v2.2 if its name has three letters."""
    size = len(body).to_bytes(len(name), "big")
    return name.encode() + size + (flags if len(name) == 4 else b"") + body


def write_frames(path: Path, *frames: bytes, version: int = 3, flags: int = 0) -> bytes:
    """A song that begins with an ID3v2 tag of these frames; returns all of it."""
    sound = write_song(path, tags=False).read_bytes()[_head(path) :]
    body = b"".join(frames)
    path.write_bytes(b"ID3" + bytes([version, 0, flags, 0, 0, len(body) >> 7, len(body) & 127]) + body + sound)
    return path.read_bytes()


NO_UTF8 = b"Fran\xe7aise"


@pytest.mark.parametrize(
    "genre",
    [
        frame("TCON", b"\x03" + NO_UTF8),
        frame("TCON", b"\x09Rock"),
        frame("TCON", b"\x01\xff\xfe\x00\xd8"),
        frame("TCON", b"\x01Rock", b"\0\x40"),  # encrypted
        frame("TCON", b"\x03Rock") + frame("TCON", b"\x03" + NO_UTF8),
    ],
)
@pytest.mark.parametrize("version", [3, 4])
def test_a_genre_in_id3_that_is_no_text_is_not_written_over(tmp_path: Path, version: int, genre: bytes) -> None:
    """mutagen passes over it, so that the file seems to have none."""
    if version == 4:
        genre = genre.replace(b"\0\x40\x01Rock", b"\0\x04\x01Rock")
    whole = write_frames(tmp_path / "song.mp3", frame("TIT2", b"\x03A title"), genre, version=version)
    for asked in (read_genre, lambda path: write_genre(path, "Jazz")):
        with pytest.raises(TagError, match="its genre is no text"):
            asked(tmp_path / "song.mp3")
    assert (tmp_path / "song.mp3").read_bytes() == whole


@pytest.mark.parametrize("texts", [["Fran_aise"], ["Rock", "Fran_aise"]])
def test_a_genre_in_mp4_that_is_no_text_is_not_written_over(tmp_path: Path, texts: list[str]) -> None:
    song = write_song(tmp_path / "song.m4a")
    file = MP4(song)
    file["\xa9gen"] = texts
    file.save()
    song.write_bytes(song.read_bytes().replace(b"Fran_aise", NO_UTF8))
    whole = song.read_bytes()
    with pytest.raises(TagError, match="its genre is no text"):
        write_genre(song, "Jazz")
    assert song.read_bytes() == whole


def test_a_genre_in_comments_that_is_no_text_is_not_written_over(tmp_path: Path) -> None:
    song = write_song(tmp_path / "song.flac")
    write_genre(song, "Fran_aise")
    song.write_bytes(song.read_bytes().replace(b"Fran_aise", NO_UTF8))
    whole = song.read_bytes()
    with pytest.raises(TagError, match="its genre is no text"):
        write_genre(song, "Jazz")
    assert song.read_bytes() == whole


@pytest.mark.parametrize(
    ("version", "flags", "other"),
    [
        (4, 0x80, frame("TIT2", b"\x03Caf\xe9")),
        (4, 0x80, frame("XRGA", b"\xff\x00\xe0AB")),  # unsynchronised, as its flag will no longer say
        (2, 0, frame("TT2", b"\x01\xff\xfe\x00\xd8")),
        (2, 0, frame("CRM", b"somebody\x00why\x00encrypted")),
        (3, 0, frame("TXX ", b"\x00A title")),
    ],
)
def test_frames_that_would_be_lost_keep_a_song_as_it_is(tmp_path: Path, version: int, flags: int, other: bytes) -> None:
    song = tmp_path / "song.mp3"
    frames = [frame("TP1" if version == 2 else "TPE1", b"\x00Somebody"), other]
    whole = write_frames(song, *frames, version=version, flags=flags)
    assert read_genre(song).names == ()
    with pytest.raises(TagError, match="would be lost"):
        write_genre(song, "Jazz")
    assert song.read_bytes() == whole


@pytest.mark.parametrize("version", [2, 3, 4])
@pytest.mark.parametrize("content", [b"\x00", b"\x03", b"\x01\xff\xfe", b"\x00\x00"])
def test_a_genre_that_is_empty_is_none(tmp_path: Path, version: int, content: bytes) -> None:
    genre, artist = ("TCO", "TP1") if version == 2 else ("TCON", "TPE1")
    write_frames(tmp_path / "song.mp3", frame(genre, content), frame(artist, content), version=version)
    assert write_genre(tmp_path / "song.mp3", "Jazz").names == ()
    assert read_genre(tmp_path / "song.mp3").names == ("Jazz",)


def test_a_frame_that_cannot_be_read_stays(tmp_path: Path) -> None:
    title = frame("TIT2", b"\x03Caf\xe9")
    write_frames(tmp_path / "song.mp3", title)
    take_back(write_noted(tmp_path / "song.mp3", "Jazz"))
    assert title in (tmp_path / "song.mp3").read_bytes()


def test_a_genre_in_a_list_chunk_counts_and_is_not_contradicted(tmp_path: Path) -> None:
    song = write_song(tmp_path / "song.wav")
    info = b"LIST" + (18).to_bytes(4, "little") + b"INFOIGNR" + (6).to_bytes(4, "little") + b"Swing\0"
    data = song.read_bytes() + info
    song.write_bytes(data[:4] + (len(data) - 8).to_bytes(4, "little") + data[8:])
    assert read_genre(song).names == ("Swing",)
    with pytest.raises(TagError, match="LIST chunk"):
        write_genre(song, "Jazz")


@pytest.mark.parametrize(
    ("suffix", "place", "named"),
    [
        (".mp3", TXXX(encoding=3, desc="GENRE", text=["Swing"]), "TXXX frame"),
        (".wav", TXXX(encoding=3, desc="genre", text=["Swing"]), "TXXX frame"),
        (".m4a", {"----:com.apple.iTunes:GENRE": [MP4FreeForm(b"Swing")]}, "own atom"),
        (".wma", {"Genre": "Swing"}, "Genre attribute"),
    ],
)
def test_a_genre_in_a_field_of_a_programs_own_counts_and_is_not_contradicted(
    tmp_path: Path, suffix: str, place: TXXX | dict, named: str
) -> None:
    song = write_song(tmp_path / f"song{suffix}")
    file = mutagen.File(song)
    if file.tags is None:
        file.add_tags()
    file.tags.update(place if isinstance(place, dict) else {place.HashKey: place})
    file.save()
    assert ffmpeg_genre(song) == "Swing"
    assert read_genre(song).names == ("Swing",)
    with pytest.raises(TagError, match=named):
        write_genre(song, "Jazz")


@pytest.mark.parametrize("options", [{}, {"movflags": "use_metadata_tags"}])
def test_a_genre_of_quicktime_counts_and_is_not_contradicted(tmp_path: Path, options: dict[str, str]) -> None:
    film = write_film(tmp_path / "film.mp4", "mov", options, genre="Swing")
    assert read_genre(film).names == ("Swing",)
    with pytest.raises(TagError, match="QuickTime metadata"):
        write_genre(film, "Jazz")


@pytest.mark.parametrize("version", [b"", bytes(4)])
@pytest.mark.parametrize("around", ["moov", "udta"])
def test_a_genre_counts_in_a_list_of_quicktime_that_has_no_version_too(
    tmp_path: Path, version: bytes, around: str
) -> None:
    """Apple's programs write none; that is of MP4."""

    def atom(name: bytes, content: bytes) -> bytes:
        return (8 + len(content)).to_bytes(4, "big") + name + content

    film = write_film(tmp_path / "film.mov", "mov")
    content = film.read_bytes()
    moov, udta = content.rindex(b"moov"), content.rindex(b"udta")
    assert content.index(b"mdat") < moov  # so that the places of the sound stay
    name, value = atom(b"mdta", b"com.apple.quicktime.genre"), atom(b"data", b"\0\0\0\1" + bytes(4) + b"Swing")
    atoms = (
        atom(b"hdlr", bytes(8) + b"mdta" + bytes(13)),
        atom(b"keys", bytes(4) + b"\0\0\0\1" + name),
        atom(b"ilst", atom(b"\0\0\0\1", value)),
    )
    meta = atom(b"meta", version + b"".join(atoms))
    meta = atom(b"udta", meta) if around == "udta" else meta
    film.write_bytes(content[: moov - 4] + atom(b"moov", content[moov + 4 : udta - 4] + meta))
    assert read_genre(film).names == ("Swing",)
    with pytest.raises(TagError, match="QuickTime metadata"):
        write_genre(film, "Jazz")


def test_rights_and_times_and_links_stay(tmp_path: Path) -> None:
    song, link = write_song(tmp_path / "a song.mp3"), tmp_path / "link.mp3"
    song.chmod(0o640)
    os.utime(song, ns=(10**18, 10**18 + 5))
    link.symlink_to(song.name)
    write_genre(link, "Jazz", keep_times=True)
    assert link.is_symlink()
    assert read_genre(song).names == ("Jazz",)
    assert (song.stat().st_mode & 0o777, song.stat().st_mtime_ns) == (0o640, 10**18 + 5)
    write_genre(link, "Rock")
    assert song.stat().st_mtime_ns > 10**18 + 5


def test_what_is_there_already_is_not_written_again(tmp_path: Path) -> None:
    song = write_song(tmp_path / "song.ogg")
    write_genre(song, "Jazz")
    state = song.stat()
    write_genre(song, "Jazz")
    assert (song.stat().st_ino, song.stat().st_mtime_ns) == (state.st_ino, state.st_mtime_ns)


def test_a_crash_at_any_moment_leaves_the_song(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    song = write_song(tmp_path / "song.mp3")
    before = song.read_bytes()

    def crash(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    for place in ("mutagen.id3.ID3.save", "crnn.library.retag._contents", "pathlib.Path.replace"):
        with monkeypatch.context() as patch:
            patch.setattr(place, crash)
            with pytest.raises(KeyboardInterrupt):
                write_genre(song, "Jazz")
        assert song.read_bytes() == before
        assert list(tmp_path.iterdir()) == [song]


def test_a_fault_of_the_tag_library_is_noticed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One that damages the sound, one that loses another tag."""
    song = write_song(tmp_path / "song.mp3")
    before, save_tag = song.read_bytes(), ID3.save

    def damage(tag: ID3, file: object, **options: object) -> None:
        save_tag(tag, file, **options)
        file.seek(-1_000, 2)
        file.write(b"\0\0\0\0")

    def lose(tag: ID3, file: object, **options: object) -> None:
        tag.unknown_frames.clear()
        save_tag(tag, file, **options)

    for fault in (damage, lose):
        monkeypatch.setattr(ID3, "save", fault)
        with pytest.raises(TagError, match="would be lost"):
            write_genre(song, "Jazz")
        assert song.read_bytes() == before


def test_a_genre_that_somebody_changed_stays(tmp_path: Path) -> None:
    song = write_song(tmp_path / "song.opus")
    change = write_noted(song, "Jazz")
    write_genre(song, "Free Jazz")
    with pytest.raises(TagError, match="changed by somebody else meanwhile, to Free Jazz"):
        take_back(change)
    assert read_genre(song).names == ("Free Jazz",)


def test_a_genre_that_somebody_gives_while_a_song_is_heard_stays(tmp_path: Path) -> None:
    song = write_song(tmp_path / "song.flac")
    there = read_genre(song).names
    write_genre(song, "Free Jazz")
    with pytest.raises(TagError, match="just given it a genre: Free Jazz"):
        write_genre(song, "Jazz", over=there)
    assert read_genre(song).names == ("Free Jazz",)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("text.mp3", b"no sound", "text.mp3 is a document"),
        ("empty.mp3", b"", "empty.mp3 is empty"),
        ("empty.flac", b"", "empty.flac is empty"),
        ("song.xyz", b"no sound", "of which this is none"),
    ],
)
def test_files_that_are_none_are_one_sentence(tmp_path: Path, name: str, content: bytes, message: str) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(TagError, match=message):
        read_genre(tmp_path / name)
    with pytest.raises(TagError, match="not there"):
        read_genre(tmp_path / "missing.mp3")


def test_tags_of_a_kind_that_is_not_known_are_one_sentence(tmp_path: Path) -> None:
    song = write_song(tmp_path / "song.mp3", tags=False)
    song.write_bytes(b"ID3\x05" + bytes(6) + song.read_bytes())
    with pytest.raises(TagError, match="its tags are damaged, or of a kind that is not known here"):
        read_genre(song)


@pytest.mark.parametrize(
    ("kind", "called"), [(".flac", ".mp3"), (".mp3", ".flac"), (".flac", ".wav"), (".ogg", ".mp3")]
)
def test_a_file_that_is_called_by_another_ending_has_the_tags_of_its_kind(
    tmp_path: Path, kind: str, called: str
) -> None:
    song = write_song(tmp_path / f"song{kind}")
    song = song.rename(song.with_suffix(called))
    before = heard(song)[0], other_tags(song)
    change = write_noted(song, "Jazz")
    assert ffmpeg_genre(song) == "Jazz"
    assert (heard(song)[0], other_tags(song)) == before
    take_back(change)
    assert ffmpeg_genre(song) is None


@pytest.mark.parametrize("suffix", [".m4v", ".mov"])
def test_a_film_keeps_its_pictures(tmp_path: Path, suffix: str) -> None:
    def packets() -> list[bytes]:
        with av.open(str(film)) as container:
            return [bytes(packet) for packet in container.demux()]

    film = write_film(tmp_path / f"film{suffix}", {".m4v": "ipod"}.get(suffix, "mov"))
    before = packets()
    change = write_noted(film, "Jazz")
    assert ffmpeg_genre(film) == "Jazz"
    assert packets() == before
    take_back(change)
    assert packets() == before
    assert ffmpeg_genre(film) is None


def test_a_song_whose_owner_cannot_be_kept_is_refused_by_a_trial_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise TagError("it belongs to somebody else")

    song = write_song(tmp_path / "song.mp3")
    monkeypatch.setattr(retag, "_take_over", refuse)
    for only_try in (True, False):
        with pytest.raises(TagError, match="it belongs to somebody else"):
            write_genre(song, "Jazz", only_try=only_try)
    assert list(tmp_path.iterdir()) == [song]


@pytest.mark.parametrize("is_there", [True, False])
def test_a_trial_without_room_names_the_temporary_folder(
    tmp_path: Path, is_there: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    song, temporary = write_song(tmp_path / "song.mp3"), tmp_path / "temporary"
    monkeypatch.setattr("tempfile.tempdir", str(temporary))
    if is_there:
        temporary.mkdir()
        monkeypatch.setattr("shutil.copyfileobj", refuse)
    with pytest.raises(TagError, match=r"cannot be made in .*temporary \(No .*\): TMPDIR names another folder"):
        write_genre(song, "Jazz", only_try=True)


def test_copies_that_killed_commands_have_left_are_taken_away(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """And not those that are still worked at, nor when nothing is to be written."""
    left, other = tmp_path / ".genre-crnn-abcd1234.partial", tmp_path / ".genre-crnn-notes.partial"
    for path in (left, other):
        path.touch()
    song = write_song(tmp_path / "song.mp3")
    for genre, seconds, only_try in (("Jazz", 3_600, False), ("Rock", -1, True), ("Rock", -1, False)):
        assert left.exists()
        monkeypatch.setattr(files, "LEFT_SECONDS", seconds)
        files._partial_in.cache_clear()  # as of another command
        write_genre(song, genre, only_try=only_try)
    assert {*tmp_path.iterdir()} == {song, other}


def test_genres_are_called_as_people_call_them() -> None:
    names = {
        "hiphop": "Hip-Hop",
        "rock": "Rock",
        "drum-and-bass": "Drum & Bass",
        "rnb": "R&B",
        "free jazz": "Free Jazz",
        "EBM": "EBM",
        "электро": "Электро",
        "lo-fi beats": "Lo-fi Beats",
    }
    assert {genre: usual_name(genre) for genre in names} == names


# The commands


@pytest.fixture
def music(tiny_model: CRNN, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of songs, of which the model thinks that they are disco with 99 %; the working folder is another."""
    with torch.no_grad():
        linear = tiny_model.members[0].classifier.linear
        linear.weight.zero_()
        linear.bias.copy_(torch.tensor([0.015, 0.005, 0.98]).log())
    tiny_model.config = replace(tiny_model.config, unsure_below=0.9)
    save(tiny_model, tmp_path / "model", card="")
    monkeypatch.setenv(MODEL_VARIABLE, str(tmp_path / "model"))
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    folder = tmp_path / "music"
    (folder / "album").mkdir(parents=True)
    write_song(folder / "album" / "new.mp3")
    write_genre(write_song(folder / "old.flac"), "Swing")
    write_genre(write_song(folder / "other.flac"), "Other")
    (folder / "bad.mp3").write_text("no sound")
    return folder


@pytest.fixture
def genres(music: Path) -> Callable[[], dict[str, tuple[str, ...]]]:
    """What the songs say of their genre now."""
    return lambda: {path.name: read_genre(path).names for path in [*music.glob("*.flac"), *music.rglob("new.mp3")]}


BEFORE = {"old.flac": ("Swing",), "other.flac": ("Other",), "new.mp3": ()}


def test_tag_and_untag(
    music: Path, genres: Callable[[], dict], tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    assert main(["tag", "--dry-run", str(music)]) == 1  # for bad.mp3
    out, err = capfd.readouterr()
    assert out == f"{music / 'album' / 'new.mp3'}: no genre → Disco (98%)\n"
    assert "bad.mp3: bad.mp3 is a document" in err
    assert genres() == BEFORE
    assert not list((tmp_path / "here").iterdir())
    assert main(["tag", str(music)]) == 1
    assert capfd.readouterr().out == out
    assert genres() == BEFORE | {"new.mp3": ("Disco",)}
    assert main(["tag", "--replace", "other", str(music)]) == 1
    assert genres() == BEFORE | {"new.mp3": ("Disco",), "other.flac": ("Disco",)}
    assert main(["tag", "--overwrite", "--name", "disco=Nu Disco", str(music)]) == 1
    assert genres() == dict.fromkeys(BEFORE, ("Nu Disco",))
    assert main(["untag", "--dry-run"]) == 0
    assert genres() == dict.fromkeys(BEFORE, ("Nu Disco",))
    assert main(["untag"]) == 0
    assert genres() == BEFORE
    assert not list((tmp_path / "here").iterdir())
    assert main(["untag"]) == 2
    assert "cannot be read (No such file" in capfd.readouterr().err


def test_where_the_model_is_not_sure_nothing_is_written(
    music: Path, genres: Callable[[], dict], tiny_model: CRNN, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    assert main(["tag", "--threshold", "0.99", str(music)]) == 1
    assert "1 below 99%" in capfd.readouterr().err
    assert main(["tag", "--name", "disco=", str(music)]) == 1
    assert "1 of disco, which is not to be written" in capfd.readouterr().err
    tiny_model.config = replace(tiny_model.config, unsure_below=0.99)
    save(tiny_model, tmp_path / "model", card="")
    assert main(["tag", "--threshold", "0", str(music)]) == 1
    assert "1 that the model is unsure about" in capfd.readouterr().err
    assert genres() == BEFORE


def test_genres_are_taken_from_a_table_for_songs_that_are_as_they_were(
    music: Path, genres: Callable[[], dict], capfd: pytest.CaptureFixture[str]
) -> None:
    rows = []
    for name, genre, probability in (
        ("album/new.mp3", "jazz", 0.97),
        ("old.flac", "jazz", 0.96),
        ("other.flac", "unsure", 0.5),
    ):
        status = (music / name).stat()
        row = {"path": str(music / name), "size_bytes": status.st_size, "modified_ns": status.st_mtime_ns}
        rows.append(row | {"genre": genre, "probabilities": {genre: probability}, "error": None})
    table = Path("genres.jsonl")
    table.write_text("".join(json.dumps(row) + "\n" for row in rows))
    os.utime(music / "old.flac", ns=(0, 0))
    assert main(["tag", "--from", str(table), "--overwrite", str(music)]) == 1
    out, err = capfd.readouterr()
    assert out == f"{music / 'album' / 'new.mp3'}: no genre → Jazz (97%)\n"
    assert "1 changed since they were heard" in err
    assert "1 that the model is unsure about" in err
    assert genres() == BEFORE | {"new.mp3": ("Jazz",)}
    assert main(["tag", "--from", str(music / "missing.csv"), str(music)]) == 2
    assert "missing.csv cannot be read" in capfd.readouterr().err


def test_a_song_that_another_has_replaced_while_it_was_heard_gets_no_genre(
    music: Path, genres: Callable[[], dict], monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    song, listen = music / "album" / "new.mp3", GenreClassifier.listen

    def replaced(classifier: GenreClassifier, source: Path, *more: object) -> object:
        recording = listen(classifier, source, *more)
        write_song(music / "another.mp3", tags=False).replace(song)
        return recording

    monkeypatch.setattr(GenreClassifier, "listen", replaced)
    assert main(["tag", str(song)]) == 0
    assert "1 changed since they were heard" in capfd.readouterr().err
    assert genres() == BEFORE


def test_a_table_that_went_through_floating_point_numbers_is_taken(music: Path, genres: Callable[[], dict]) -> None:
    song = music / "album" / "new.mp3"
    size, time_ns = float(song.stat().st_size), float(song.stat().st_mtime_ns)
    Path("genres.csv").write_text(
        f"path,size_bytes,modified_ns,genre,probability\n{song},{size},{time_ns},jazz,0.97\ngone.mp3,,,,\n"
    )
    assert main(["tag", "--from", "genres.csv", str(song)]) == 0
    assert genres() == BEFORE | {"new.mp3": ("Jazz",)}


@pytest.mark.parametrize(
    "options", [["--quick"], ["--seconds", "8", "--jobs", "2"], ["--model", "m"], ["--precision", "float32"]]
)
def test_answers_are_taken_from_a_table_or_heard(
    options: list[str], music: Path, genres: Callable[[], dict], capfd: pytest.CaptureFixture[str]
) -> None:
    assert main(["tag", "--from", "genres.csv", *options, str(music)]) == 2
    told = capfd.readouterr().err
    assert "--from takes the answers from a table, and hears no song: leave out --" in told
    assert all(option in told for option in options if option.startswith("--"))
    assert genres() == BEFORE


@pytest.mark.parametrize("table", ["top.csv", "top.jsonl", "sure.jsonl"])
def test_a_name_for_a_genre_that_no_song_of_a_table_has_is_told_and_taken(
    table: str, music: Path, genres: Callable[[], dict], capfd: pytest.CaptureFixture[str]
) -> None:
    """Of the most probable genres alone: the model may know others."""
    song = music / "album" / "new.mp3"
    row = {"path": str(song), "size_bytes": song.stat().st_size, "modified_ns": song.stat().st_mtime_ns}
    row |= {"genre": "jazz", "probability": 0.97}
    cells = row | {"genre_1": "jazz", "probability_1": 0.97}
    Path("top.csv").write_text(",".join(cells) + "\n" + ",".join(map(str, cells.values())) + "\n")
    whole = {"path": "whole.mp3", "genre": "unsure", "probabilities": {"jazz": 0.5, "rock": 0.5}}
    lines = [row | whole, row | {"probabilities": {"jazz": 0.97}}]
    Path("top.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    Path("sure.jsonl").write_text(json.dumps(row | {"probabilities": {"jazz": 0.99995}}))
    assert main(["tag", "--from", table, "--name", "pop=Pop", "--name", "jazz=Bebop", str(song)]) == 0
    assert f"No song of {table} has the genre 'pop'; they have jazz." in capfd.readouterr().err
    assert genres() == BEFORE | {"new.mp3": ("Bebop",)}


@pytest.mark.parametrize(("kind", "called"), [(".m4a", ".aac"), (".mp3", ".mp2"), (".wav", ".bwf"), (".wma", ".xyz")])
def test_a_song_is_tagged_by_what_it_is_though_its_ending_is_not_of_those(music: Path, kind: str, called: str) -> None:
    song = write_song(music / f"other{kind}")
    song = song.rename(song.with_suffix(called))
    assert main(["tag", str(song)]) == 0
    assert ffmpeg_genre(song) == "Disco"


@pytest.mark.parametrize("damage", ["cut", "no text", "unreadable"])
def test_a_song_whose_tags_cannot_be_read_has_failed_whatever_its_ending(
    music: Path, damage: str, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    song = write_song(music / "other.m4a").rename(music / "other.aac")
    if damage == "cut":
        content = song.read_bytes()
        song.write_bytes(content[: content.index(b"stsd")])
    elif damage == "no text":
        write_genre(song, "Fran_aise")
        song.write_bytes(song.read_bytes().replace(b"Fran_aise", NO_UTF8))
    else:
        openly = Path.open

        def refuse(path: Path, *how: object, **more: object) -> object:
            if path == song:
                raise PermissionError(13, "Permission denied", str(path))
            return openly(path, *how, **more)

        monkeypatch.setattr(Path, "open", refuse)
    assert main(["tag", str(song)]) == 1
    assert f"{song}: " in capfd.readouterr().err


FILMS = {".mkv": "matroska", ".mpg": "mpeg", ".mpeg": "mpegts", ".avi": "avi"}


@pytest.mark.parametrize("kind", [*FILMS, ".aac"])  # all but the first seem to be of one of its kinds to mutagen
def test_a_song_or_film_that_has_no_place_for_tags_is_left(
    music: Path, kind: str, capfd: pytest.CaptureFixture[str]
) -> None:
    film = music / f"film{kind}"
    if kind == ".aac":
        film.write_bytes(b"ID3\4" + bytes(6) + b"\xff\xf1" + bytes(10_000))  # ADTS
    else:
        write_film(film, FILMS[kind])
    content = film.read_bytes()
    assert main(["tag", str(film)]) == 0
    assert f"1 whose tags cannot be written ({kind})" in capfd.readouterr().err
    assert film.read_bytes() == content


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="there are no named pipes here")
def test_a_pipe_is_not_waited_for(music: Path, capfd: pytest.CaptureFixture[str]) -> None:
    os.mkfifo(music / "pipe.mp3")
    assert main(["tag", "--dry-run", str(music / "pipe.mp3")]) == 1
    assert "pipe.mp3: it is no file" in capfd.readouterr().err


def test_a_name_for_a_genre_that_a_table_lacks_is_refused(
    music: Path, genres: Callable[[], dict], capfd: pytest.CaptureFixture[str]
) -> None:
    song = music / "old.flac"
    row = {"path": str(song), "size_bytes": song.stat().st_size, "modified_ns": song.stat().st_mtime_ns}
    row |= {"genre": "jazz", "probability": 0.97, "probability_of_jazz": 0.97, "probability_of_metal": 0.03}
    Path("genres.csv").write_text(",".join(row) + "\n" + ",".join(map(str, row.values())) + "\n")
    lines = row | {"probabilities": {"jazz": 0.97, "metal": 0.03}}
    Path("genres.jsonl").write_text(json.dumps(lines) + "\n")
    for table in ("genres.csv", "genres.jsonl"):
        assert main(["tag", "--from", table, "--name", "Metal=", "--overwrite", str(song)]) == 2
        assert "knows no genre 'Metal'; it knows jazz, metal." in capfd.readouterr().err
        assert genres() == BEFORE
        assert main(["tag", "--from", table, "--name", "metal=", "--dry-run", "--overwrite", str(song)]) == 0


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="there is no full disk here")
def test_a_full_disk_is_one_sentence(
    music: Path, genres: Callable[[], dict], monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """For what is printed; for the undo file, after which nothing is written."""
    open_file = Path.open

    def open_full(path: Path, mode: str = "r", *more: object, **options: object) -> object:
        return open_file(Path("/dev/full") if mode == "ab" else path, mode, *more, **options)

    with Path("/dev/full").open("w") as full, monkeypatch.context() as patch:
        patch.setattr(sys, "stdout", full)
        assert main(["tag", str(music / "album" / "new.mp3")]) == 2
    err = capfd.readouterr().err
    assert "This cannot go on: No space left on device." in err
    assert "Written: 1 (1 Disco)" in err
    monkeypatch.setattr(Path, "open", open_full)
    assert main(["tag", "--overwrite", str(music / "old.flac")]) == 2
    assert "cannot be written (No space left on device): nothing more is." in capfd.readouterr().err
    assert genres() == BEFORE | {"new.mp3": ("Disco",)}


def test_an_undo_file_that_cannot_be_replaced_is_told(
    music: Path, genres: Callable[[], dict], monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    def refuse(path: Path, *_: object) -> None:
        raise PermissionError(13, "Permission denied", str(path))

    assert main(["tag", "--undo", "undo.jsonl", str(music)]) == 1
    monkeypatch.setattr("crnn.library.undo.keep_changes", refuse)
    assert main(["untag", "undo.jsonl"]) == 2
    err = capfd.readouterr().err
    assert "Taken back: 1 of 1." in err
    assert "This cannot go on: Permission denied (undo.jsonl)." in err


def test_a_reader_that_leaves_early_costs_no_change_and_leaves_no_empty_undo_file(
    music: Path, genres: Callable[[], dict], monkeypatch: pytest.MonkeyPatch
) -> None:
    def run(*command: str) -> int:
        reading, writing = os.pipe()
        os.close(reading)
        with os.fdopen(writing, "w") as pipe, monkeypatch.context() as patch:
            for stream in ("stdout", "stderr"):
                patch.setattr(sys, stream, pipe)
            return main([*command])

    assert run("tag", str(music / "old.flac")) == 141
    assert not list(Path().iterdir())
    assert main(["tag", "--overwrite", str(music)]) == 1
    assert run("untag") == 141
    (undo,) = Path().iterdir()
    left = {Path(change.path).name for change in read_changes(undo)[0]}
    assert len(left) == 2
    assert genres() == BEFORE | dict.fromkeys(left, ("Disco",))


def test_files_that_cannot_be_written_are_told_and_the_rest_goes_on(
    music: Path, genres: Callable[[], dict], capfd: pytest.CaptureFixture[str]
) -> None:
    (music / "old.flac").chmod(0o444)
    os.link(music / "other.flac", music / "twin")
    assert main(["tag", "--overwrite", str(music)]) == 1
    err = capfd.readouterr().err
    assert f"{music / 'old.flac'}: it is read-only\n" in err
    assert "of its 2 names (hard links), the others keep the file as it was" in err
    assert "Written: 2 (2 Disco)" in err
    assert genres() == dict.fromkeys(BEFORE, ("Disco",)) | {"old.flac": ("Swing",)}
    assert read_genre(music / "twin").names == ("Other",)


def test_without_a_place_for_the_undo_file_nothing_is_written(
    music: Path, genres: Callable[[], dict], tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    assert main(["tag", "--undo", str(tmp_path / "no folder" / "undo"), str(music)]) == 2
    assert "undo file" in capfd.readouterr().err
    assert genres() == BEFORE


def test_untag_leaves_what_others_changed_and_survives_a_cut_off_line(
    music: Path, genres: Callable[[], dict], capfd: pytest.CaptureFixture[str]
) -> None:
    undo = Path("undo.jsonl")
    assert main(["tag", "--overwrite", "--undo", str(undo), str(music)]) == 1
    write_genre(music / "old.flac", "Bebop")
    with undo.open("a") as file:
        file.write('{"path": "/cut')
    assert main(["untag", str(undo)]) == 1
    assert "changed by somebody else meanwhile, to Bebop" in capfd.readouterr().err
    assert genres() == BEFORE | {"old.flac": ("Bebop",)}
    assert len(undo.read_text().splitlines()) == 1
    write_genre(music / "old.flac", "Disco")
    assert main(["untag", str(undo)]) == 0
    assert genres() == BEFORE


def test_a_dry_run_says_what_would_come_of_it(
    music: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """Also of songs that turn out to be unusual only in what is written of them."""
    write_frames(music / "unusual.mp3", frame("TT2", b"\x01\xff\xfe\x00\xd8"), version=2)
    (tmp_path / "temporary").mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "temporary"))
    before = {path: path.read_bytes() for path in music.rglob("*.*")}
    said = []
    for dry in (["--dry-run"], []):
        assert main(["tag", "--overwrite", *dry, str(music)]) == 1
        out, err = capfd.readouterr()
        err, _, _ = err.replace("Would be written", "Written").partition("\ngenre-crnn: To take it back")
        said.append((out, err.strip()))
        if dry:
            assert {path: path.read_bytes() for path in music.rglob("*.*")} == before
    assert said[0] == said[1]
    assert "unusual.mp3: its tags are unusual" in said[0][1]
    assert main(["tag", "--overwrite", "--name", "disco=Nu Disco", str(music)]) == 1
    for dry in (["--dry-run"], []):
        assert main(["untag", *dry]) == 0
        assert "aken back: 6 of 6." in capfd.readouterr().err
    assert {path: path.read_bytes() for path in music.rglob("*.flac")}.items() <= before.items()
    assert not list((tmp_path / "temporary").iterdir())


def test_untag_goes_on_where_it_was_killed(
    music: Path, genres: Callable[[], dict], capfd: pytest.CaptureFixture[str]
) -> None:
    """Of a song that was tagged twice, both changes have been taken back, and neither is out of the undo file."""
    for name in ("Disco", "Nu Disco"):
        assert main(["tag", "--overwrite", "--name", f"disco={name}", str(music)]) == 1
    undo = next(Path.cwd().iterdir())
    changes = undo.read_bytes()
    assert main(["untag"]) == 0
    undo.write_bytes(changes)
    capfd.readouterr()
    for dry in (["--dry-run"], []):
        assert main(["untag", *dry]) == 0
        assert "aken back: 0 of " in capfd.readouterr().err
    assert genres() == BEFORE
    assert not undo.exists()


def test_untag_does_not_tell_of_a_change_that_was_noted_and_not_made(
    music: Path, genres: Callable[[], dict], monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    def end(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Path, "replace", end)
        assert main(["tag", "--overwrite", str(music / "old.flac")]) == 130
    capfd.readouterr()
    for dry in (["--dry-run"], []):
        assert main(["untag", *dry]) == 0
        out, err = capfd.readouterr()
        assert out == f"{music / 'old.flac'}: Disco is not there, so it stays as it is\n"
        assert "aken back: 0 of 1." in err
    assert genres() == BEFORE


def test_untag_knows_its_genre_where_another_program_has_spelled_it_otherwise(music: Path, genres: Callable) -> None:
    assert main(["tag", "--overwrite", str(music)]) == 1
    tag = ID3(music / "album" / "new.mp3")
    tag.add(TIT2(encoding=3, text="Another title"))
    tag.save(v1=2)  # which says the genre, too
    file = FLAC(music / "old.flac")
    file.tags[:] = [(key.lower(), value) for key, value in file.tags]
    file.save()
    assert main(["untag"]) == 0
    assert genres() == BEFORE
    assert str(ID3(music / "album" / "new.mp3")["TIT2"]) == "Another title"


def test_untag_leaves_a_song_that_has_taken_the_place_of_another(
    music: Path, genres: Callable[[], dict], capfd: pytest.CaptureFixture[str]
) -> None:
    """As a better copy does, which says the same genre otherwise; one without a digest is known by its genre alone."""
    song, undo = music / "old.flac", Path("undo.jsonl")
    assert main(["tag", "--overwrite", "--undo", str(undo), str(song)]) == 0
    write_genre(write_song(song, seed=1), "Disco")
    file = FLAC(song)
    file.tags[:] = [(key.lower(), value) for key, value in file.tags]
    file.save()
    capfd.readouterr()
    for dry in (["--dry-run"], []):
        assert main(["untag", str(undo), *dry]) == 1
        out, err = capfd.readouterr()
        assert "old.flac: its sound has changed, or another song has taken its place" in err
        assert "aken back: 0 of 1." in err
        assert not out
    assert genres() == BEFORE | {"old.flac": ("Disco",)}
    assert main(["tag", "--overwrite", "--name", "disco=Nu Disco", "--undo", str(undo), str(song)]) == 0
    for dry in (["--dry-run"], []):
        assert main(["untag", str(undo), *dry]) == 1
        assert "aken back: 1 of 2." in capfd.readouterr().err
    assert genres() == BEFORE | {"old.flac": ("Disco",)}
    (change,) = map(json.loads, undo.read_text().splitlines())
    undo.write_text(json.dumps(change | {"sound": ""}))
    assert main(["untag", str(undo)]) == 0
    assert genres() == BEFORE


def test_untag_knows_its_work_in_a_song_that_was_compressed_again(
    music: Path, genres: Callable[[], dict], capfd: pytest.CaptureFixture[str]
) -> None:
    """Or made as loud as others, which changes its packets, too."""
    song = music / "old.flac"
    assert main(["tag", "--overwrite", str(song)]) == 0
    assert main(["tag", "--overwrite", "--name", "disco=Nu Disco", str(song)]) == 0
    tags = FLAC(song).tags
    file = FLAC(write_song(song, seed=1))
    file.tags[:] = tags
    file.save()
    capfd.readouterr()
    for dry in (["--dry-run"], []):
        assert main(["untag", *dry]) == 0
        assert "aken back: 2 of 2." in capfd.readouterr().err
    assert genres() == BEFORE


def test_a_song_that_the_machine_cannot_open_just_now_is_no_other_song(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def open_none(_: object) -> None:
        raise av.error.classes[errno.EMFILE](errno.EMFILE, "Too many open files")

    song = write_song(tmp_path / "song.flac")
    content = song.read_bytes()
    monkeypatch.setattr(retag, "open_container", open_none)
    with pytest.raises(TagError, match=r"cannot be read or written .*Too many open files"):
        write_noted(song, "Jazz")
    assert song.read_bytes() == content


def test_a_try_does_not_look_for_what_is_only_noted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    read = []
    monkeypatch.setattr(retag, "sound_of", lambda path: read.append(path) or "")
    song, noted = write_song(tmp_path / "song.flac"), []
    for only_try in (True, False):
        write_genre(song, "Jazz", note=lambda *facts: noted.append(facts), only_try=only_try)
        assert len(read) == len(noted) == (not only_try)


@pytest.mark.parametrize("suffix", [*CODECS, ".dsf"])
def test_a_song_is_known_again_whatever_its_tags_are(tmp_path: Path, suffix: str) -> None:
    song = write_song(tmp_path / f"song{suffix}")
    sound = sound_of(song)
    assert sound == sound_of(write_song(tmp_path / f"untagged{suffix}", tags=False))
    write_genre(song, "Hip-Hop")
    file = mutagen.File(song)
    if file.tags is None:
        file.add_tags()
    if isinstance(file.tags, ID3):
        file.tags.add(TIT2(encoding=3, text="Another title" * 400))
    else:
        file["\xa9nam" if suffix == ".m4a" else "Title"] = "Another title" * 400
    file.save(**({"v1": 2} if suffix == ".mp3" else {}))
    assert sound == sound_of(song)
    assert sound != sound_of(write_song(song, seed=1))


def test_an_undo_file_behind_a_link_is_gone_when_all_is_taken_back(music: Path, tmp_path: Path) -> None:
    undo, link = tmp_path / "undo.jsonl", Path("undo.jsonl")
    link.symlink_to(undo)
    assert main(["tag", "--undo", str(link), str(music / "old.flac")]) == 0  # which has a genre
    assert not undo.exists()
    assert main(["tag", "--undo", str(link), str(music)]) == 1
    assert main(["untag", str(link)]) == 0
    assert not undo.exists()


@pytest.mark.parametrize("content", [b"{}\nno json\n[]\n", b"ID3 and more", b"", 100_000 * b"["])
def test_untag_deletes_no_file_of_others(
    content: bytes, music: Path, genres: Callable[[], dict], capfd: pytest.CaptureFixture[str]
) -> None:
    other = Path("song.mp3")
    other.write_bytes(content)
    assert main(["untag", str(other)]) == 2
    assert "holds no changes" in capfd.readouterr().err
    assert other.read_bytes() == content
    assert genres() == BEFORE


def test_lines_of_others_stay_in_the_undo_file(music: Path) -> None:
    undo = Path("undo.jsonl")
    assert main(["tag", "--undo", str(undo), str(music)]) == 1
    undo.write_text("a note\n" + undo.read_text())
    assert main(["tag", "--overwrite", "--undo", str(undo), str(music)]) == 1
    assert main(["untag", str(undo)]) == 0
    assert undo.read_text() == "a note\n"


def test_blank_lines_do_not_outlast_the_changes_of_an_undo_file(
    music: Path, genres: Callable[[], dict], capfd: pytest.CaptureFixture[str]
) -> None:
    undo = Path("undo.jsonl")
    assert main(["tag", "--undo", str(undo), str(music)]) == 1
    undo.write_bytes(b"\xef\xbb\xbf\r\n" + undo.read_bytes().replace(b"\n", b"\r\n \r\n"))
    assert main(["tag", "--overwrite", "--undo", str(undo), str(music)]) == 1
    assert main(["untag", str(undo)]) == 0
    assert "passed over" not in capfd.readouterr().err
    assert genres() == BEFORE
    assert not undo.exists()


def test_a_cut_off_line_spoils_no_later_change(music: Path, genres: Callable[[], dict]) -> None:
    undo = Path("undo.jsonl")
    assert main(["tag", "--undo", str(undo), str(music)]) == 1
    with undo.open("a") as file:
        file.write('{"path": "/cut')
    assert main(["tag", "--overwrite", "--undo", str(undo), str(music)]) == 1
    assert len(read_changes(undo)[0]) == 3
    assert main(["untag", str(undo)]) == 0
    assert genres() == BEFORE


@pytest.mark.parametrize(
    "content",
    [
        b"{",
        b'{"pa',
        b'{"path": "/music/a.fl',
        b'{"path": "/a", "genre": "Jazz", "earlier": {',
        b"\n",
        b"\xef\xbb\xbf\r\n",
    ],
)
def test_a_first_line_that_was_cut_off_is_begun_anew(content: bytes, music: Path, genres: Callable[[], dict]) -> None:
    undo = Path("undo.jsonl")
    undo.write_bytes(content)
    assert main(["tag", "--undo", str(undo), str(music)]) == 1
    assert genres() == BEFORE | {"new.mp3": ("Disco",)}
    assert main(["untag", str(undo)]) == 0
    assert genres() == BEFORE
    assert not undo.exists()


@pytest.mark.parametrize("content", [b'{"path": "a.mp3"}', b'{"path": "a.mp3"}\n{"path": "', b'{"name": "', b"{}"])
def test_json_of_others_is_no_undo_file(content: bytes, music: Path, genres: Callable[[], dict]) -> None:
    Path("others.jsonl").write_bytes(content)
    assert main(["tag", "--undo", "others.jsonl", str(music)]) == 2
    assert Path("others.jsonl").read_bytes() == content
    assert genres() == BEFORE


def test_a_song_is_no_undo_file(music: Path, genres: Callable[[], dict], capfd: pytest.CaptureFixture[str]) -> None:
    song = music / "old.flac"
    content = song.read_bytes()
    assert main(["tag", "--undo", str(song), str(music / "other.flac")]) == 2
    assert "old.flac is there and holds no changes of genre-crnn tag" in capfd.readouterr().err
    assert song.read_bytes() == content
    assert genres() == BEFORE


@pytest.mark.skipif(sys.platform == "win32", reason="open files are not locked there")
def test_two_commands_do_not_share_an_undo_file(
    music: Path, genres: Callable[[], dict], capfd: pytest.CaptureFixture[str]
) -> None:
    path = Path("undo.jsonl")
    undo = Undo(path)
    undo.add(Change("/a.mp3", "Jazz", {}, {}, True, ""))
    for command in (["tag", "--overwrite", "--undo", str(path), str(music)], ["untag", str(path)]):
        assert main(command) == 2
        assert "Another command has the undo file undo.jsonl just now" in capfd.readouterr().err
    undo.close()
    assert genres() == BEFORE
    assert list(Path().iterdir()) == [path]
    assert main(["tag", "--undo", str(path), str(music)]) == 1
    assert len(read_changes(path)[0]) == 2


@pytest.mark.skipif(sys.platform == "win32", reason="it has no such devices")
def test_what_is_no_file_is_no_undo_file(music: Path, capfd: pytest.CaptureFixture[str]) -> None:
    os.mkfifo("undo")
    assert main(["tag", "--undo", "undo", str(music)]) == 2
    assert "undo is no file" in capfd.readouterr().err
    assert Path("undo").exists()


def test_a_song_that_is_named_twice_is_tagged_once(
    music: Path, genres: Callable[[], dict], capfd: pytest.CaptureFixture[str]
) -> None:
    song = str(next(music.glob("*.flac")))
    assert main(["tag", "--overwrite", song, song, str(music)]) == 1
    assert "Traceback" not in capfd.readouterr().err


@pytest.mark.skipif(sys.platform == "win32", reason="links need rights there")
def test_a_song_that_is_linked_is_heard_and_tagged_once(
    music: Path, genres: Callable[[], dict], monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    heard, listen = [], GenreClassifier.listen
    monkeypatch.setattr(
        GenreClassifier, "listen", lambda self, source, *how: heard.append(source) or listen(self, source, *how)
    )
    (music / "z.mp3").symlink_to(music / "album" / "new.mp3")
    assert main(["tag", str(music / "album"), str(music / "z.mp3")]) == 0
    assert heard == [music / "album" / "new.mp3"]
    err = capfd.readouterr().err
    assert "Left as they are: 1 named already, by another name." in err
    assert genres() == BEFORE | {"new.mp3": ("Disco",)}


@pytest.mark.parametrize("name", ["mistyped", "gone.mp3", "gone.txt", 300 * "a"])
def test_a_song_that_is_not_there_has_failed(name: str, music: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert main(["tag", str(music / name)]) == 1
    assert f"{name}: it " in capfd.readouterr().err


@pytest.mark.parametrize(("name", "called"), [("README", "without suffix"), ("notes.TXT", ".txt")])
def test_a_file_of_another_kind_is_left(name: str, called: str, music: Path, capfd: pytest.CaptureFixture[str]) -> None:
    (music / name).touch()
    assert main(["tag", str(music / name)]) == 0
    assert f"Left as they are: 1 whose tags cannot be written ({called})." in capfd.readouterr().err


@pytest.mark.skipif(sys.platform == "win32", reason="it has no such rights")
def test_an_undo_file_that_may_not_be_written_is_told_at_once(
    as_somebody: Callable, music: Path, genres: Callable[[], dict], capfd: pytest.CaptureFixture[str]
) -> None:
    """By what only says what would come of it, too, which leaves one that was cut off as it is."""
    undo = Path("undo.jsonl")
    assert main(["tag", "--undo", str(undo), str(music)]) == 1
    undo.write_text(undo.read_text() + '{"path": "/cut')
    before, tagged = undo.read_bytes(), genres()
    assert main(["tag", "--dry-run", "--undo", str(undo), str(music / "old.flac")]) == 0
    assert undo.read_bytes() == before
    undo.chmod(0o444)
    capfd.readouterr()
    for dry in ([], ["--dry-run"]):
        for command in (["tag", "--undo", str(undo), str(music)], ["untag", str(undo)]):
            with as_somebody():
                assert main([*command, *dry]) == 2
            assert "The undo file undo.jsonl cannot be written (Permission denied): " in capfd.readouterr().err
    assert (undo.read_bytes(), genres()) == (before, tagged)


def test_a_name_that_is_no_text_is_refused(capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["tag", "--name", "disco=\udcff", "song.mp3"])
    assert "this takes a name that is text" in capfd.readouterr().err


def test_a_device_that_is_not_here_is_said(music: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert main(["tag", "--device", "banana", str(music)]) == 2
    assert "There is no device banana here" in capfd.readouterr().err
