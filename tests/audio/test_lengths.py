"""How much of a file is heard, from where, and in how much memory."""

import io
import re
import subprocess
import sys
import threading
import tracemalloc
from fractions import Fraction
from functools import partial

import av
import numpy as np
import pytest
from mutagen.oggopus import OggOpus
from sounds import (
    EVERY_KIND,
    delay_and_match,
    encode,
    heard,
    long_song,
    melody,
    mono,
    pages_of,
    patch,
    refusal,
    song,
    wav_header,
    write,
)

from benchmarks.torture.corpus import missing_tag, tiny_matroska_packets, tiny_opus_packets
from crnn.audio import SAMPLE_RATE, AudioError, Passages, container, extent, load_audio, open_audio, track


def test_a_longer_file_is_read_up_to_the_limit():
    file = write(melody(44_100, 5), 44_100)
    waveform = mono(file, max_seconds=2)
    assert waveform.size == 2 * SAMPLE_RATE
    np.testing.assert_array_equal(waveform, mono(file)[: waveform.size])


def test_memory_follows_the_blocks_and_not_the_file():
    file = write(np.zeros((20 * 60 * 8_000, 2), np.int16), 8_000, "FLAC")
    n_samples = 0
    tracemalloc.start()
    try:
        with open_audio(file) as sound:
            for block in sound.blocks():
                n_samples += block.shape[1]
        peak_bytes = tracemalloc.get_traced_memory()[1]
        tracemalloc.reset_peak()
        waveform = load_audio(file, max_seconds=10)
        peak_of_ten_seconds = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert n_samples == 20 * 60 * SAMPLE_RATE
    assert peak_bytes < 8 * 2 * 2**16 * 4
    assert waveform.shape[1] == 10 * SAMPLE_RATE
    assert peak_of_ten_seconds < 4 * waveform.nbytes


@pytest.mark.parametrize(("least_seconds", "told"), [(1_800, "30:0."), (7_205, "2:00:0.")])
def test_a_small_file_of_hours_is_heard_for_half_an_hour(monkeypatch, least_seconds, told):
    assert track._LEAST_SECONDS == 1_800
    monkeypatch.setattr(track, "_LEAST_SECONDS", least_seconds)
    file = write(np.zeros(3 * 3_600 * 4_000, np.int16), 4_000, "FLAC")
    assert len(file) < 1_800_000
    waveform, notices = heard(file, sample_rate=4_000)
    assert 0 <= waveform.shape[1] / 4_000 - least_seconds < 5
    assert re.fullmatch(f"Only what lies before {told} is heard: of a file like this, no more is decoded.", *notices)


def test_samples_of_countless_packets_are_not_all_waited_for():
    waveform, notices = heard(tiny_opus_packets(200_000))  # of 2.5 ms
    assert 90_000 <= waveform.shape[1] / SAMPLE_RATE / 0.0025 < 91_000
    assert "is heard: of a file like this, no more is decoded." in notices[0]


def test_heads_of_countless_packets_are_no_sound_that_more_is_decoded_for(monkeypatch):
    monkeypatch.setattr(track, "_LEAST_SECONDS", 60.0)
    file = tiny_matroska_packets(100_000)  # of 20 ms, as a byte with a head of six
    waveform, notices = heard(file)
    assert waveform.shape[1] / SAMPLE_RATE == pytest.approx(60.0, abs=1)
    assert len(file) / 2_000 > 300
    assert "no more is decoded" in notices[0]


def test_sound_that_begins_late_in_a_film(tmp_path):
    path = tmp_path / "late.flv"  # whose head does not tell its tracks
    with av.open(path, "w") as output:
        picture, sound = output.add_stream("flv", rate=25), output.add_stream("libmp3lame", rate=44_100, layout="mono")
        picture.width, picture.height, picture.pix_fmt, picture.bit_rate = 320, 240, "yuv420p", 10_000_000
        rng = np.random.default_rng(0)
        for number in range(50):
            frame = av.VideoFrame.from_ndarray(rng.integers(0, 256, (360, 320), np.uint8), "yuv420p")
            frame.pts, frame.time_base = number, Fraction(1, 25)
            output.mux(picture.encode(frame))
        output.mux(picture.encode(None))
        samples = (8_000 * melody(44_100)).astype(np.int16)[None]
        frame = av.AudioFrame.from_ndarray(samples, "s16", "mono")
        frame.sample_rate, frame.time_base, frame.pts = 44_100, Fraction(1, 44_100), 44_100
        resampler = av.AudioResampler("s16p", "mono", 44_100, frame_size=sound.codec_context.frame_size)
        for part in resampler.resample(frame):
            output.mux(sound.encode(part))
        output.mux(sound.encode(None))
    assert path.read_bytes().index(b"LAME") > container._PROBED_BYTES
    assert load_audio(path).shape[1] > 0.9 * len(melody(SAMPLE_RATE))


FILMS = {  # container, codecs of pictures and sound, options
    "mp4": ("mp4", "libx264", "aac", {}),
    "mov": ("mov", "libx264", "aac", {}),
    "mkv": ("matroska", "mpeg4", "libmp3lame", {}),
    "webm": ("webm", "libvpx", "libopus", {}),
    "flv": ("flv", "flv", "libmp3lame", {}),
    "mts of a broadcast": ("mpegts", "mpeg4", "mp2", {"output_ts_offset": "18000"}),
}


def late_film(kind: str, begins_seconds: float) -> bytes:
    """Twelve seconds of `melody` that begin so long after the first picture."""
    container, video, codec, options = FILMS[kind]
    rate_hz = 48_000 if codec == "libopus" else 44_100
    sound = melody(rate_hz, 12)
    return encode(container, codec, sound, rate_hz, video=video, begins_seconds=begins_seconds, **options)


@pytest.mark.parametrize("kind", FILMS)
def test_the_sound_of_a_film_begins_when_a_player_plays_it(kind):
    file = late_film(kind, 4)
    whole, notices = heard(file)
    delay_seconds, match, _ = delay_and_match(whole[0], melody(SAMPLE_RATE, 12))
    assert notices == []
    assert match > 0.95
    assert delay_seconds == pytest.approx(4, abs=0.1)
    assert not whole[0, : 3 * SAMPLE_RATE].any()
    with open_audio(file, passages=Passages(5, 2.0)) as sound:  # of which the first is silent
        blocks = [block[0] for block in sound.blocks()]
    assert bool(sound.starts_seconds) == (kind != "mts of a broadcast")
    for seconds, passage in zip(sound.starts_seconds, blocks, strict=False):
        expected = whole[0, round(seconds * SAMPLE_RATE) :][: 2 * SAMPLE_RATE]
        assert passage.size == pytest.approx(expected.size, abs=1)
        assert not passage.any() if not expected.any() else delay_and_match(passage, expected)[1] > 0.95


def test_the_silence_before_a_film_sounds_is_nothing_that_is_there():
    file = encode("mp4", "aac", melody(44_100, 12), 44_100, video="libx264", begins_seconds=6, movflags="faststart")
    waveform, notices = heard(file[: len(file) * 7 // 10])
    seconds = waveform.shape[1] / SAMPLE_RATE - 6
    assert 5 < seconds < 10
    assert notices == [f"Its end is missing: this answer is from the {seconds:.0f} s that are there."]
    assert "too much of it is missing" in refusal(file[: len(file) * 2 // 10])


@pytest.mark.parametrize(("begins_seconds", "most_seconds"), [(0.05, 1_800.0), (4, 3.0)])
@pytest.mark.parametrize("kind", ["mp4", "mkv"])
def test_neither_an_encoders_delay_nor_hours_before_a_sound_are_silence(
    monkeypatch, kind, begins_seconds, most_seconds
):
    monkeypatch.setattr(track, "_LEAST_SECONDS", most_seconds)
    assert heard(late_film(kind, begins_seconds))[0].shape[1] / SAMPLE_RATE == pytest.approx(12, abs=0.07)


def test_blocks_are_large_and_alike():
    with open_audio(write(np.stack([melody(44_100, 12)] * 2, axis=1), 44_100)) as sound:
        blocks = list(sound.blocks())
    assert [block.shape for block in blocks[:-1]] == [(2, 2**16)] * (len(blocks) - 1)
    assert sum(block.shape[1] for block in blocks) == 12 * SAMPLE_RATE
    assert all(block.dtype == np.float32 and block.flags.c_contiguous and block.flags.writeable for block in blocks)


def listen_badly():
    with open_audio(long_song("mp3")) as sound:
        for _ in sound.blocks():
            raise ValueError("an error of who listens stays one")


def test_who_stops_listening_leaves_no_thread():
    before = set(threading.enumerate())
    with pytest.raises(ValueError, match="an error of who listens stays one"):
        listen_badly()
    with open_audio(long_song("mp3")):
        pass
    assert set(threading.enumerate()) == before


def test_where_no_thread_can_be_started_it_is_the_same_sound(monkeypatch):
    def refuse(_):
        raise RuntimeError("can't start new thread")

    expected = mono(song("mp3"))
    monkeypatch.setattr(threading.Thread, "start", refuse)
    assert np.array_equal(mono(song("mp3")), expected)


HEARD_WHOLE = {"aac", "webm recorded live"}  # of which nobody knows how long they are


@pytest.mark.parametrize("kind", EVERY_KIND)
def test_passages_sound_as_the_song_does_there(kind):
    file = long_song(kind)
    whole = mono(file)
    with open_audio(file, passages=Passages(2, 2.0)) as sound:
        passages = [block.mean(axis=0) for block in sound.blocks()]
    assert len(sound.starts_seconds) == (0 if kind in HEARD_WHOLE else 2)
    for seconds, passage in zip(sound.starts_seconds, passages, strict=kind not in HEARD_WHOLE):
        assert passage.size == 2 * SAMPLE_RATE
        start = round(seconds * SAMPLE_RATE)
        delay_seconds, match, level = delay_and_match(passage, whole[start : start + passage.size])
        assert delay_seconds == pytest.approx(0, abs=0.1)  # by the file's own clock, or its bytes
        assert match > 0.94  # resampled half a sample apart at most
        assert level == pytest.approx(1, abs=0.02)


def ape_tag(n_bytes: int) -> bytes:
    """An APEv2 tag whose only value has so many bytes, with a head and a foot."""
    item = n_bytes.to_bytes(4, "little") + bytes(4) + b"Cover\0" + b"x" * n_bytes
    facts = b"APETAGEX" + (2_000).to_bytes(4, "little") + (len(item) + 32).to_bytes(4, "little") + b"\1\0\0\0"
    return facts + bytes.fromhex("000000a0") + bytes(8) + item + facts + bytes.fromhex("00000080") + bytes(8)


ID3 = b"ID3\4\0\0\0\0\1\0" + bytes(128), b"ID3\4\0\x10\0\0\1\0" + bytes(128) + b"3DI\4\0\x10\0\0\1\0"
BEHIND = [ape_tag(300_000), ape_tag(100) + b"TAG" + bytes(125), b"TAG" + bytes(125), bytes(500_000), b""]


@pytest.mark.parametrize("behind", BEHIND, ids=len)
@pytest.mark.parametrize("before", [b"", ID3[0] + bytes(3_000), ID3[1]], ids=len)  # with padding, with a foot
def test_what_stands_around_the_sound_of_an_mp3_is_no_sound(before, behind):
    file = before + long_song("mp3")
    assert heard(file + behind)[1] == []
    with open_audio(file) as sound:
        whole = np.concatenate(list(sound.blocks()), axis=1)[0]
    with open_audio(file + behind, passages=Passages(2, 2.0)) as sound:
        passages = [block[0] for block in sound.blocks()]
    assert sound.duration_seconds == pytest.approx(12, abs=0.1)
    for seconds, passage in zip(sound.starts_seconds, passages, strict=True):
        start = round(seconds * SAMPLE_RATE)
        assert delay_and_match(passage, whole[start : start + passage.size])[1] > 0.9


@pytest.mark.parametrize("padding", [b"picture", b"\0"])
@pytest.mark.parametrize("kind", ["flac 16 bit", "tta", "aac", "ac3", "eac3", "mp2", "mp3", "wavpack"])
def test_a_large_picture_before_the_sound_is_no_obstacle(kind, padding):
    """FFmpeg looks for sound in the first megabyte."""
    n_bytes = 3 << 19
    size = bytes(n_bytes >> shift & 0x7F for shift in (21, 14, 7, 0))
    file = b"ID3\4\0\0" + size + (padding * n_bytes)[:n_bytes] + bytes(100) + long_song(kind)
    np.testing.assert_array_equal(load_audio(file), load_audio(long_song(kind)))
    durations = []
    for source in (file, long_song(kind)):
        with open_audio(source, passages=Passages(2, 2.0)) as sound:
            list(sound.blocks())
        durations.append(sound.duration_seconds)
    assert durations[0] == durations[1]


@pytest.mark.parametrize("tag", [b"ID3\4\0\0\0\0\0\0", b"TAG" + bytes(range(1, 126)), b"LYRICSBEGIN000000LYRICS200"])
def test_no_more_tags_are_looked_at_than_files_have(tag, monkeypatch):
    looks = []
    read_at = extent.read_at
    monkeypatch.setattr(extent, "read_at", lambda *given: looks.append(given) or read_at(*given))
    file = tag * 10_000 + song("mp3") if tag.startswith(b"ID3") else song("mp3") + tag * 10_000
    extent.Extent.of(io.BytesIO(file))
    assert len(looks) < 200


def test_a_tag_that_is_larger_than_its_file_is_none():
    facts = b"APETAGEX" + (2_000).to_bytes(4, "little") + b"\xff\xff\xff\x7f" + bytes(16)
    file = song("mp3") + facts
    assert extent.Extent.of(io.BytesIO(file)).end == len(file)


@pytest.mark.parametrize("between", [b"", b"TAG" + bytes(125), bytes(4_096)])
def test_an_mp3_that_is_longer_than_it_says_is_heard_as_a_whole(between):
    file = long_song("mp3") + between + song("mp3")
    with open_audio(file, passages=Passages(2, 2.0)) as sound:
        assert list(sound.blocks()) == []
    assert not sound.starts_seconds
    assert mono(file).size / SAMPLE_RATE == pytest.approx(14, abs=0.2)


def test_a_song_of_which_the_length_is_guessed_wrongly_is_heard_as_a_whole():
    """Of an mp3 without a header FFmpeg takes all to have as many bytes a second as its beginning."""
    sound_, options = melody(44_100, 24), {"write_xing": "0"}
    sound_[: 8 * 44_100] = 0
    variable = {"global_quality": "400", "flags": "+qscale"}
    for encoder, is_known in ((variable, False), ({}, True)):
        file = encode("mp3", "libmp3lame", sound_, 44_100, encoder=encoder, **options)
        with open_audio(file, passages=Passages(2, 2.0)) as sound:
            list(sound.blocks())
        assert bool(sound.starts_seconds) == is_known
        assert mono(file).size / SAMPLE_RATE == pytest.approx(24, abs=0.2)
    with open_audio(encode("mp3", "libmp3lame", sound_, 44_100, encoder=variable), passages=Passages(2, 2.0)) as sound:
        list(sound.blocks())
    assert sound.duration_seconds == pytest.approx(24, abs=0.2)  # with its header


def test_a_length_that_is_guessed_is_told_by_the_bytes_that_were_heard():
    """FFmpeg takes such an aac for 1.2 % longer than it is, but finds places in it."""
    noise = np.random.default_rng(0).standard_normal(60 * 44_100, np.float32)
    file = encode("adts", "aac", 0.5 * melody(44_100, 60) + 0.1 * noise, 44_100)
    whole = mono(file)
    with open_audio(file, passages=Passages(4, 2.0)) as sound:
        blocks = [block[0] for block in sound.blocks()]
    assert sound.expected_seconds > 60.5
    assert sound.duration_seconds == pytest.approx(60, abs=0.1)
    for seconds, block in zip(sound.starts_seconds, blocks, strict=True):
        delay_seconds, match, _ = delay_and_match(block, whole[round(seconds * SAMPLE_RATE) :][: 2 * SAMPLE_RATE])
        assert delay_seconds == pytest.approx(0, abs=0.01)
        assert match > 0.9


@pytest.mark.parametrize(
    "make",
    [partial(write, container="OGG", subtype="VORBIS"), *(partial(encode, name, "mp2") for name in ("mpegts", "vob"))],
)
def test_songs_behind_each_other_are_heard_as_a_whole(make):
    """FFmpeg takes the clock of the last one for that of all."""
    file = make(samples=melody(44_100, 24), rate_hz=44_100)
    for parts, is_one in ((file, True), (file + file, False)):
        with open_audio(parts, passages=Passages(4, 2.0)) as sound:
            list(sound.blocks())
        assert bool(sound.starts_seconds) == is_one
    assert mono(file + file).size / SAMPLE_RATE == pytest.approx(48, abs=0.3)


def test_a_picture_in_front_costs_no_passages():
    """It stands before the sound of an opus file, which many have that is a third of it."""
    file = io.BytesIO(write(melody(48_000, 24), 48_000, "OGG", "OPUS"))
    tags = OggOpus(file)
    tags["metadata_block_picture"] = "A" * (len(file.getvalue()) // 2 + 70_000)
    file.seek(0)
    tags.save(file)
    with open_audio(file.getvalue(), passages=Passages(4, 2.0)) as sound:
        assert len(list(sound.blocks())) == len(sound.starts_seconds) == 4


@pytest.mark.parametrize("container", ["wav", "w64"])
def test_places_are_found_where_the_head_claims_another_byte_rate(container):
    """FFmpeg itself writes such of ADPCM, 16 kB for a second of any, and seeks by it."""
    file = encode(container, "adpcm_ms", melody(44_100, 24), 44_100)
    whole = mono(file)
    with open_audio(file, passages=Passages(2, 2.0)) as sound:
        passages = list(sound.blocks())
    for seconds, passage in zip(sound.starts_seconds, passages, strict=True):
        np.testing.assert_array_equal(passage[0], whole[round(seconds * SAMPLE_RATE) :][: 2 * SAMPLE_RATE])


def test_memory_follows_the_passages_where_no_place_is_found():
    """What lies before them is decoded then, and not kept."""
    file = encode("wav", "adpcm_ms", np.zeros(8 * 60 * 8_000, np.float32), 8_000)
    tracemalloc.start()
    try:
        with open_audio(file, passages=Passages(1, 2.0)) as sound:
            assert [block.shape for block in sound.blocks()] == [(1, 2 * SAMPLE_RATE)]
        assert tracemalloc.get_traced_memory()[1] < 8 * 2**16 * 4
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("begins_seconds", ["0", "7", "100"])
@pytest.mark.parametrize(("container", "codec"), [("webm", "libopus"), ("ogg", "libopus"), ("asf", "wmav2")])
def test_how_long_a_sound_lasts_that_begins_late(container, codec, begins_seconds):
    file = encode(container, codec, melody(48_000, 12), 48_000, output_ts_offset=begins_seconds)
    whole = mono(file)
    with open_audio(file, passages=Passages(2, 2.0)) as sound:
        blocks = [block[0] for block in sound.blocks()]
    assert sound.expected_seconds == sound.duration_seconds == pytest.approx(12, abs=0.1)
    for seconds, block in zip(sound.starts_seconds, blocks, strict=True):
        start = round(seconds * SAMPLE_RATE)
        assert delay_and_match(block, whole[start : start + block.size])[0] == pytest.approx(0, abs=0.15)


def test_a_sound_whose_clock_begins_long_before_0_is_heard_as_a_whole():
    """FFmpeg does not tell where, and the duration is that of what lies behind 0."""
    options = {"begins_seconds": -20, "avoid_negative_ts": "disabled"}
    file = encode("matroska", "flac", melody(22_050, 40), 22_050, **options)
    with open_audio(file, passages=Passages(2, 2.0)) as sound:
        assert list(sound.blocks()) == []
    assert mono(file).size / SAMPLE_RATE == pytest.approx(40, abs=0.1)


def test_a_song_with_a_hole_in_a_passage_is_heard_as_a_whole():
    pages = pages_of(write(melody(48_000, 24), 48_000, "OGG", "OPUS"))
    file = b"".join(pages[: len(pages) // 2] + pages[len(pages) // 2 + 1 :])
    with open_audio(file, passages=Passages(1, 8.0)) as sound:
        list(sound.blocks())
    assert not sound.starts_seconds


@pytest.mark.parametrize(("at", "value"), [(16, bytes(100)), (8, bytes(4))], ids=["table of places", "frames"])
def test_an_mp3_whose_header_is_of_no_use_is_heard_as_a_whole(at, value):
    """With a table that leads to its beginning from anywhere, or no frames, of which FFmpeg guesses how long it is."""
    noise = np.random.default_rng(0).uniform(-0.5, 0.5, 24 * 44_100).astype(np.float32)
    noise[8 * 44_100 : 16 * 44_100] *= 0.001
    file = encode("mp3", "libmp3lame", noise, 44_100, encoder={"global_quality": "400", "flags": "+qscale"})
    for head, is_whole in ((file, True), (patch(file, file.index(b"Xing") + at, value), False)):
        with open_audio(head, passages=Passages(4, 2.0)) as sound:
            list(sound.blocks())
        assert bool(sound.starts_seconds) == is_whole
    assert mono(head).size / SAMPLE_RATE == pytest.approx(24, abs=0.2)


@pytest.mark.parametrize("block_bytes", [0, 3, 8])
def test_places_are_found_where_the_head_claims_another_size_of_blocks(block_bytes):
    file = write(melody(44_100, 24), 44_100)
    told = patch(file, file.index(b"fmt ") + 8 + 12, bytes([block_bytes, 0]))
    with open_audio(told, passages=Passages(2, 2.03)) as sound:
        passages = list(sound.blocks())
    whole = mono(file)
    for seconds, passage in zip(sound.starts_seconds, passages, strict=True):
        assert delay_and_match(passage[0], whole[round(seconds * SAMPLE_RATE) :][: passage.shape[1]])[1] > 0.98
    assert len(passages) == 2


CHUNK = (60_000).to_bytes(4, "little") + b"list" * 15_000
NO_SOUND = [
    *(name + CHUNK for name in (b"LIST", b"_PMX", b"id3\0", b"\0LIST")),
    b"ID3\3\0\0\0\0\1\0" + CHUNK,
    bytes(60_000),
]


@pytest.mark.parametrize("behind", NO_SOUND, ids=lambda behind: repr(behind[:5]))
def test_what_stands_behind_the_sound_of_a_wav_is_no_sound(behind):
    sound_ = (30_000 * melody(8_000, 12)).astype("<i2").tobytes()
    assert mono(wav_header(8_000, 1, len(sound_)) + sound_ + behind).size / SAMPLE_RATE == pytest.approx(12, abs=0.1)


@pytest.mark.parametrize("silent_seconds", [0, 6])
def test_a_wav_whose_last_size_was_not_written_is_heard_to_its_end(silent_seconds):
    sound_ = (30_000 * melody(8_000, 12)).astype("<i2")
    sound_[2 * 8_000 :][: silent_seconds * 8_000] = 0
    file = wav_header(8_000, 1, 4 * 8_000) + sound_.tobytes()
    assert mono(file).size / SAMPLE_RATE == pytest.approx(12, abs=0.1)


@pytest.mark.parametrize("rate_hz", [8_000, 44_100])
def test_one_second_is_enough_and_less_is_not(rate_hz):
    assert mono(write(melody(rate_hz, 1), rate_hz)).size == SAMPLE_RATE
    with pytest.raises(AudioError, match=r"lasts only 0\.95 s: at least 1 s is needed"):
        mono(write(melody(rate_hz, 0.95), rate_hz))


def test_no_samples():
    with pytest.raises(AudioError, match="holds no sound"):
        mono(write(np.zeros(0), 44_100))


@pytest.mark.skipif(sys.platform != "linux", reason="peaks of memory are read from /proc")
@pytest.mark.parametrize("n_bytes", [10**9, 2**32 - 100])
def test_a_tag_costs_no_memory_for_what_it_claims(tmp_path, n_bytes):
    file = tmp_path / "tag.wav"
    file.write_bytes(missing_tag(n_bytes))
    program = (
        "import re, sys\n"
        "from pathlib import Path\n"
        "from crnn.audio import AudioError, load_audio\n"
        "def peak_kb(): return int(re.search(r'VmHWM:\\s+(\\d+)', Path('/proc/self/status').read_text())[1])\n"
        "before = peak_kb()\n"
        "try:\n    load_audio(sys.argv[1])\n"
        "except AudioError:\n    print(peak_kb() / before)"
    )
    run = subprocess.run([sys.executable, "-c", program, file], capture_output=True, text=True, check=True)
    assert float(run.stdout) < 3


@pytest.mark.parametrize("rate_hz", [1, 1_000, 2_000_000_000])
def test_absurd_rates_are_refused_before_they_cost_memory(rate_hz):
    with pytest.raises(AudioError, match=f"sample rate of {rate_hz} Hz"):
        mono(wav_header(rate_hz, 1, 200_000) + bytes(200_000))
