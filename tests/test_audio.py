"""`open_audio` on files of every kind, made here from a known sound, and on what people give it by mistake."""

import functools
import io
import os
import pickle
import socket
import struct
import subprocess
import sys
import tempfile
import threading
import tracemalloc
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
import soundfile as sf
from av.stream import Disposition

from benchmarks.torture.corpus import missing_tag, tiny_matroska_packets, tiny_opus_packets
from crnn.audio import SAMPLE_RATE, AudioError, container, foreign, load_audio, open_audio, track

SAMPLE_FORMATS = {  # of the encoders; else fltp
    "libopus": "flt",
    "flac": "s16",
    "alac": "s16p",
    "pcm_s16le": "s16",
    "g722": "s16",
    "mp2": "s16",
    "tta": "s16",
    "wavpack": "s16p",
}
LAYOUTS = {1: "mono", 2: "stereo", 6: "5.1"}


def melody(rate_hz: int, seconds: float = 2.0) -> np.ndarray:
    """The same sound at any rate, shape (samples,): tones up to 3 kHz under an envelope that never repeats."""
    t = np.arange(round(seconds * rate_hz)) / rate_hz
    tones = sum(np.sin(2 * np.pi * hz * t) for hz in (220, 1_000, 3_000))
    return (0.15 * tones * (1 + np.sin(2 * np.pi * (0.7 * t + 0.9 * t**2)))).astype(np.float32)


def tone(hz: float, rate_hz: int, seconds: float = 2.0) -> np.ndarray:
    """A sine of amplitude 0.5, shape (samples,)."""
    return (0.5 * np.sin(2 * np.pi * hz * np.arange(round(seconds * rate_hz)) / rate_hz)).astype(np.float32)


def mono(source, *args, **options) -> np.ndarray:
    """The mean of the channels, shape (samples,)."""
    return load_audio(source, *args, **options).mean(axis=0)


def heard(source, **options) -> tuple[np.ndarray, list[str]]:
    """The waveform, shape (channels, samples), and the notices."""
    with open_audio(source, **options) as sound:
        return np.concatenate(list(sound.blocks()), axis=1), [str(notice) for notice in sound.notices]


def level_db(waveform: np.ndarray) -> float:
    """Level against `tone`'s, away from both ends, where every encoder and resampler has its own way."""
    middle = waveform[waveform.size // 8 : -waveform.size // 8].astype(np.float64)
    return 10 * np.log10(np.mean(middle**2) / 0.125 + 1e-20)


def spectrum_peak_hz(waveform: np.ndarray) -> float:
    return np.abs(np.fft.rfft(waveform)).argmax() * SAMPLE_RATE / waveform.size


def delay_and_match(decoded: np.ndarray, reference: np.ndarray) -> tuple[float, float, float]:
    """How many seconds `decoded` lags, the normalised correlation at that delay (1 = equal), and the level ratio."""
    size = decoded.size + reference.size
    correlation = np.fft.irfft(np.fft.rfft(decoded, size) * np.fft.rfft(reference, size).conj(), size)
    delay = int(correlation.argmax())
    norms = np.linalg.norm(decoded), np.linalg.norm(reference)
    delay_seconds = (delay - size if delay > size // 2 else delay) / SAMPLE_RATE
    return delay_seconds, correlation[delay] / (norms[0] * norms[1]), norms[0] / norms[1]


def write(samples: np.ndarray, rate_hz: int, container: str = "WAV", subtype: str | None = None) -> bytes:
    """Encode shape (samples,) or (samples, channels) with libsndfile."""
    buffer = io.BytesIO()
    sf.write(buffer, samples, rate_hz, format=container, subtype=subtype)
    return buffer.getvalue()


def add_track(output, codec: str, samples: np.ndarray, rate_hz: int, **options: str):
    """Add an audio track to a container that PyAV writes, and return what encodes shape (samples, channels) into it."""
    stream = output.add_stream(codec, rate=rate_hz, options=options)
    stream.codec_context.bit_rate = 160_000
    stream.codec_context.format = SAMPLE_FORMATS.get(codec, "fltp")
    stream.codec_context.layout = layout = LAYOUTS[samples.shape[1]]
    frame = av.AudioFrame.from_ndarray(np.ascontiguousarray(samples.T), format="fltp", layout=layout)
    frame.sample_rate, frame.time_base, frame.pts = rate_hz, Fraction(1, rate_hz), 0
    return lambda: [output.mux(stream.encode(part)) for part in (frame, None)]


def add_pictures(output, codec: str, n_frames: int = 5, pixels: str = "yuv420p"):
    """The same for a video track of grey pictures, ten a second."""
    stream = output.add_stream(codec, rate=10)
    stream.width, stream.height, stream.pix_fmt = 64, 64, pixels
    frames = [av.VideoFrame.from_ndarray(np.full((64, 64, 3), i, np.uint8), format="rgb24") for i in range(n_frames)]
    return lambda: [output.mux(stream.encode(part)) for part in (*frames, None)]


def picture(codec: str, pixels: str) -> bytes:
    buffer = io.BytesIO()
    with av.open(buffer, "w", format="image2pipe") as output:
        add_pictures(output, codec, 1, pixels)()
    return buffer.getvalue()


def encode(
    container: str, codec: str, samples: np.ndarray, rate_hz: int, *, video="", encoder=None, **options
) -> bytes:
    """Encode shape (samples,) or (samples, channels) with FFmpeg; `options` are the container's."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "file")  # the muxer rereads it where the index goes to the front
        with av.open(path, "w", format=container, options=options) as output:
            tracks = [add_pictures(output, video)] if video else []
            tracks.append(add_track(output, codec, samples.reshape(len(samples), -1), rate_hz, **(encoder or {})))
            for encode_track in tracks:
                encode_track()
        return path.read_bytes()


def patch(file: bytes, at: int, *values: bytes) -> bytes:
    data = b"".join(values)
    return file[:at] + data + file[at + len(data) :]


def wav_header(rate_hz: int, n_channels: int, n_data_bytes: int) -> bytes:
    """Of 16-bit PCM, taking any claim."""
    block = 2 * n_channels
    sizes = 16, 1, n_channels, rate_hz, rate_hz * block & 0xFFFFFFFF, block & 0xFFFF, 16
    return struct.pack("<4sI8sIHHIIHH4sI", b"RIFF", 36 + n_data_bytes, b"WAVEfmt ", *sizes, b"data", n_data_bytes)


LIBSNDFILE = {  # container, subtype
    "wav 8 bit": ("WAV", "PCM_U8"),
    "wav 16 bit": ("WAV", "PCM_16"),
    "wav 24 bit": ("WAV", "PCM_24"),
    "wav 32 bit": ("WAV", "PCM_32"),
    "wav float": ("WAV", "FLOAT"),
    "wav double": ("WAV", "DOUBLE"),
    "wav extensible": ("WAVEX", "PCM_24"),
    "aiff 16 bit": ("AIFF", "PCM_16"),
    "aiff 24 bit": ("AIFF", "PCM_24"),
    "w64": ("W64", "PCM_16"),
    "rf64": ("RF64", "PCM_16"),
    "au": ("AU", "PCM_16"),
    "caf": ("CAF", "PCM_16"),
    "flac 16 bit": ("FLAC", "PCM_16"),
    "flac 24 bit": ("FLAC", "PCM_24"),
    "mp3": ("MP3", None),
    "ogg vorbis": ("OGG", "VORBIS"),
    "opus": ("OGG", "OPUS"),
}
FFMPEG = {  # container, codec, options of the container or the video codec
    "alac m4a": ("ipod", "alac", {}),
    "tta": ("tta", "tta", {}),
    "wavpack": ("wv", "wavpack", {}),
    "flac mka": ("matroska", "flac", {}),
    "mp3 of ffmpeg": ("mp3", "libmp3lame", {}),
    "mp3 without its header": ("mp3", "libmp3lame", {"write_xing": "0"}),
    "aac": ("adts", "aac", {}),
    "m4a": ("ipod", "aac", {}),
    "m4a for the web": ("ipod", "aac", {"movflags": "faststart"}),
    "m4a in fragments": ("mp4", "aac", {"movflags": "frag_keyframe+empty_moov", "frag_duration": "1000000"}),
    "opus of ffmpeg": ("ogg", "libopus", {}),
    "webm": ("webm", "libopus", {}),
    "webm recorded live": ("webm", "libopus", {"live": "1"}),
    "wma": ("asf", "wmav2", {}),
    "mp4 video": ("mp4", "aac", {"video": "libx264"}),
    "webm video": ("webm", "libopus", {"video": "libvpx"}),
    "mkv video": ("matroska", "libmp3lame", {"video": "mpeg4"}),
    "avi video": ("avi", "libmp3lame", {"video": "mpeg4"}),
    "mpeg-ts video": ("mpegts", "aac", {"video": "mpeg4"}),
    "ac3": ("ac3", "ac3", {}),
    "eac3": ("eac3", "eac3", {}),
    "mp2": ("mp2", "mp2", {}),
    "m4b": ("ipod", "aac", {"brand": "M4B "}),
    "3gp": ("3gp", "aac", {}),
    "mka": ("matroska", "libopus", {}),
    "rm": ("rm", "ac3", {}),
    "flv": ("flv", "libmp3lame", {}),
}
EVERY_KIND = [*LIBSNDFILE, *FFMPEG]
LOSSLESS = [*list(LIBSNDFILE)[:15], "alac m4a", "tta", "wavpack", "flac mka"]
OPUS = [kind for kind in EVERY_KIND if "opus" in kind or "webm" in kind or kind == "mka"]
DOLBY = ["ac3", "eac3", "rm"]  # these know 48 kHz and its divisors, and at least 32 kHz
# These do not say how long they should be, or only where this is not worth the code.
WITHOUT_LENGTH = {
    "aac",
    "ac3",
    "eac3",
    "mp2",
    "flv",
    "mp3 without its header",
    "webm recorded live",
    "mpeg-ts video",
}


def make(kind: str, samples: np.ndarray, rate_hz: int) -> bytes:
    if kind in LIBSNDFILE:
        return write(samples, rate_hz, *LIBSNDFILE[kind])
    container, codec, options = FFMPEG[kind]
    return encode(container, codec, samples, rate_hz, **options)


@functools.cache
def song(kind: str) -> bytes:
    """Two seconds of `melody` in stereo as a file of one of these kinds."""
    rate_hz = 48_000 if kind in OPUS else 44_100
    return make(kind, np.stack([melody(rate_hz)] * 2, axis=1), rate_hz)


@functools.cache
def long_song(kind: str) -> bytes:
    """Twelve seconds in mono, of which 5 % are more than encoders' padding."""
    rate_hz = 24_000 if kind in OPUS else 22_050 if kind not in {*LOSSLESS, *DOLBY} else 44_100  # for speed
    return make(kind, melody(rate_hz, 12), rate_hz)


# Formats


@pytest.mark.parametrize("kind", EVERY_KIND)
def test_every_format_gives_the_same_sound(kind):
    channels = load_audio(song(kind))
    waveform = channels.mean(axis=0)
    delay_seconds, match, level = delay_and_match(waveform, melody(SAMPLE_RATE))
    assert channels.dtype == np.float32
    assert len(channels) == 2
    assert channels.flags.c_contiguous
    assert channels.flags.writeable
    assert waveform.size / SAMPLE_RATE == pytest.approx(2, abs=1e-4 if kind in LOSSLESS else 0.05)  # encoders pad
    assert delay_seconds == pytest.approx(0, abs=1e-4 if kind in LOSSLESS else 0.05)
    assert level == pytest.approx(1, abs=0.001 if kind in LOSSLESS else 0.06)  # LAME turns down by 5 %
    assert match > (0.9995 if kind in LOSSLESS else 0.98)


def test_a_codec_whose_tag_is_no_text():
    assert delay_and_match(mono(encode("wav", "g722", melody(16_000), 16_000)), melody(SAMPLE_RATE))[1] > 0.95


def dsd(container: str, hz: int, seconds: float = 2.0) -> bytes:
    """A square wave as bits, 2.8 million a second, as DSF or DSDIFF."""
    rate_hz, n_bytes = 2_822_400, round(seconds * 2_822_400 / 8 / 4_096) * 4_096
    bits = np.where(np.arange(n_bytes) * 8 * 2 * hz // rate_hz % 2, 0xFF, 0x00).astype(np.uint8).tobytes()
    if container == "dsf":
        chunks = b"fmt " + struct.pack("<Q6IQ2I", 52, 1, 0, 1, 1, rate_hz, 1, 8 * n_bytes, 4_096, 0)
        chunks += b"data" + struct.pack("<Q", 12 + n_bytes) + bits
        return b"DSD " + struct.pack("<3Q", 28, 28 + len(chunks), 0) + chunks

    def chunk(name: bytes, content: bytes) -> bytes:
        return name + struct.pack(">Q", len(content)) + content

    properties = chunk(b"FS  ", struct.pack(">I", rate_hz)) + chunk(b"CHNL", b"\0\1C   ")
    properties += chunk(b"CMPR", b"DSD \x0fnot compressed\0\0")[: 12 + 20]
    form = b"DSD " + chunk(b"FVER", b"\1\5\0\0") + chunk(b"PROP", b"SND " + properties) + chunk(b"DSD ", bits)
    return chunk(b"FRM8", form)


@pytest.mark.parametrize("container", ["dsf", "dff"])
def test_dsd(container):
    file = dsd(container, 500)
    waveform, notices = heard(file)
    assert waveform.shape[1] / SAMPLE_RATE == pytest.approx(2, abs=0.02)
    assert spectrum_peak_hz(waveform[0]) == pytest.approx(500, abs=1)
    assert notices == []
    assert heard(file[: len(file) * 8 // 10])[1] == ["Its end is missing: this answer is from the 2 s that are there."]
    assert "its end is missing" in refusal(file[: len(file) * 2 // 10])


@pytest.mark.parametrize("rate_hz", [8_000, 11_025, 16_000, 32_000, 44_100, 48_000, 96_000, 192_000])
def test_every_sample_rate_gives_the_same_sound(rate_hz):
    waveform = mono(write(melody(rate_hz), rate_hz, "WAV", "FLOAT"))
    edge = 500  # samples in which the resampler lacks the past or the future
    assert waveform.size == 2 * SAMPLE_RATE
    np.testing.assert_allclose(waveform[edge:-edge], melody(SAMPLE_RATE)[edge:-edge], atol=1e-4)


@pytest.mark.parametrize("sample_rate", [16_000, 44_100])
def test_another_output_rate(sample_rate):
    waveform = mono(write(melody(48_000), 48_000, "WAV", "FLOAT"), sample_rate=sample_rate)
    np.testing.assert_allclose(waveform[500:-500], melody(sample_rate)[500:-500], atol=1e-4)


@pytest.mark.parametrize(("container", "subtype"), [("WAV", "PCM_16"), ("FLAC", "PCM_16"), ("AIFF", "PCM_16")])
def test_16_bit_mono_at_our_rate_is_exact(container, subtype):
    file = write(melody(SAMPLE_RATE), SAMPLE_RATE, container, subtype)
    np.testing.assert_array_equal(mono(file), sf.read(io.BytesIO(file), dtype="float32")[0])


def test_a_path_and_its_bytes_are_the_same(tmp_path):
    file = song("ogg vorbis")
    path = tmp_path / "song.ogg"
    path.write_bytes(file)
    for source in (path, str(path)):
        np.testing.assert_array_equal(mono(source), mono(file))


def test_the_name_of_a_file_does_not_matter(tmp_path):
    (tmp_path / "song.mp3").write_bytes(write(melody(44_100), 44_100, "FLAC"))
    assert delay_and_match(mono(tmp_path / "song.mp3"), melody(SAMPLE_RATE))[1] > 0.9995


def film(*tracks: np.ndarray, default: int | None = None, **tags: str) -> bytes:
    """A Matroska file of several audio tracks, shape (samples,); `tags` are the last one's."""
    buffer = io.BytesIO()
    with av.open(buffer, "w", format="matroska") as output:
        encoders = [add_track(output, "aac", track[:, None], 48_000) for track in tracks]
        for number, stream in enumerate(output.streams):
            stream.disposition = Disposition.default.value if number == default else 0
        output.streams[-1].metadata.update(tags)
        for encode_track in encoders:
            encode_track()
    return buffer.getvalue()


def test_the_default_of_several_tracks_is_used():
    waveform, notices = heard(film(tone(3_000, 48_000), tone(500, 48_000), default=1, language="ger", title="Film"))
    assert spectrum_peak_hz(waveform[0]) == pytest.approx(500, abs=1)
    assert notices == ["Of its 2 audio tracks, this answer is for track 2 (ger, Film)."]


def test_of_several_tracks_the_first_that_sounds_is_used():
    music, hiss = tone(500, 48_000), 1e-5 * np.random.default_rng(0).standard_normal(96_000)
    for silence in (0 * music, hiss.astype(np.float32)):
        for tracks, number in (([silence, music], 2), ([silence, silence, music, tone(900, 48_000)], 3)):
            waveform, notices = heard(film(*tracks))
            assert spectrum_peak_hz(waveform[0]) == pytest.approx(500, abs=1)
            assert notices == [
                f"Of its {len(tracks)} audio tracks, this answer is for track {number}: track 1 is silent."
            ]
    late = np.concatenate([0 * music, music])
    assert heard(film(late, tone(900, 48_000)))[1] == ["Of its 2 audio tracks, this answer is for track 1."]
    assert np.abs(load_audio(film(0 * music, 0 * music))).max() == 0


def test_a_cover_picture_is_no_obstacle():
    body = b"\0image/png\0\x03\0" + picture("png", "rgb24")
    frame = b"APIC" + struct.pack(">IH", len(body), 0) + body
    size = bytes(len(frame) >> shift & 0x7F for shift in (21, 14, 7, 0))
    tag = b"ID3\x03\0\0" + size + frame
    assert delay_and_match(mono(tag + song("mp3")), melody(SAMPLE_RATE))[1] > 0.99
    assert heard(tag + song("mp3"))[1] == []
    assert heard(tag + song("mp3")[:-2_000])[1] != []


def test_tags_in_another_encoding_are_no_obstacle():
    title = struct.pack("<4sI4s4sI4s", b"LIST", 16, b"INFO", b"INAM", 4, b"\xe9t\xe9\xff")
    file = write(melody(SAMPLE_RATE), SAMPLE_RATE) + title
    assert mono(patch(file, 4, struct.pack("<I", len(file) - 8))).size == 2 * SAMPLE_RATE


def test_a_sample_rate_that_changes_on_the_way():
    file = b"".join(encode("adts", "aac", tone(440, rate_hz), rate_hz) for rate_hz in (44_100, 32_000))
    waveform = mono(file)
    assert waveform.size / SAMPLE_RATE == pytest.approx(4, abs=0.1)
    for half in np.split(waveform[: waveform.size // 2 * 2], 2):
        assert spectrum_peak_hz(half) == pytest.approx(440, abs=2)


# Channels, levels and rates


@pytest.mark.parametrize("n_channels", [1, 2, 3, 6, 7, 8, 16])
@pytest.mark.parametrize("rate_hz", [SAMPLE_RATE, 44_100])
def test_channels_stay_as_they_are(n_channels, rate_hz):
    expected = np.stack([tone(100 * (channel + 1), rate_hz) for channel in range(n_channels)], axis=1)
    channels = load_audio(write(expected, rate_hz, "WAV", "FLOAT"))
    assert channels.shape == (n_channels, 2 * SAMPLE_RATE)
    if rate_hz == SAMPLE_RATE:
        np.testing.assert_array_equal(channels, expected.T)
    for channel, samples in enumerate(channels):
        assert spectrum_peak_hz(samples) == pytest.approx(100 * (channel + 1), abs=1)
        assert level_db(samples) == pytest.approx(0, abs=0.01)


def test_surround_in_a_lossy_file_keeps_its_level():
    channels = np.stack([tone(100, 48_000)] * 6, axis=1)  # low enough for the bass channel
    for samples in load_audio(encode("mp4", "aac", channels, 48_000)):
        assert level_db(samples) == pytest.approx(0, abs=0.3)


def test_opposite_channels_both_sound():
    file = write(np.stack([melody(44_100), -melody(44_100)], axis=1), 44_100, "WAV", "FLOAT")
    left, right = load_audio(file)
    np.testing.assert_array_equal(left, -right)
    assert delay_and_match(left, melody(SAMPLE_RATE))[1] > 0.9995


@pytest.mark.parametrize(("first", "then"), [(1, 2), (2, 1), (2, 6), (6, 2)])
def test_channels_that_change_on_the_way(first, then):
    """As broadcasts do between news and music: nothing is lost, and the number stays that of the first."""
    parts = [np.stack([tone(440, 48_000)] * n_channels, axis=1) for n_channels in (first, then)]
    channels = load_audio(b"".join(encode("ac3", "ac3", part, 48_000) for part in parts))
    assert len(channels) == first
    assert channels.shape[1] / SAMPLE_RATE == pytest.approx(4, abs=0.1)
    for samples in channels[: min(first, 3)]:  # the fourth is the bass channel
        for half in np.split(samples[: samples.size // 2 * 2], 2):
            assert spectrum_peak_hz(half) == pytest.approx(440, abs=2)
            assert level_db(half) == pytest.approx(0, abs=0.5)


@pytest.mark.parametrize("rate_hz", [44_100, 48_000, 96_000, 192_000])
@pytest.mark.parametrize("hz", [100, 1_000, 5_000, 9_500, 10_000])
def test_what_fits_keeps_its_level(rate_hz, hz):
    assert level_db(mono(write(tone(hz, rate_hz), rate_hz, "WAV", "FLOAT"))) == pytest.approx(0, abs=0.1)


@pytest.mark.parametrize("rate_hz", [44_100, 48_000, 96_000, 192_000])
@pytest.mark.parametrize("hz", [12_000, 15_000, 20_000])
def test_what_does_not_fit_vanishes(rate_hz, hz):
    assert level_db(mono(write(tone(hz, rate_hz), rate_hz, "WAV", "FLOAT"))) < -90


def test_loud_float_samples_are_kept():
    loud = 3 * melody(SAMPLE_RATE)
    np.testing.assert_array_equal(mono(write(loud, SAMPLE_RATE, "WAV", "FLOAT")), loud)


@pytest.mark.parametrize("subtype", ["FLOAT", "DOUBLE"])
def test_samples_that_are_no_numbers_become_silence(subtype):
    damaged, expected = melody(SAMPLE_RATE), melody(SAMPLE_RATE)
    damaged[1_000:1_005], expected[1_000:1_005] = (np.nan, np.inf, -np.inf, 1e38, -1e38), 0
    np.testing.assert_array_equal(mono(write(damaged, SAMPLE_RATE, "WAV", subtype)), expected)
    resampled = mono(write(damaged, SAMPLE_RATE, "WAV", subtype), sample_rate=16_000)
    assert np.abs(resampled).max() < 1.1 * np.abs(melody(16_000)).max()


# Lengths


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


def test_a_small_file_of_hours_is_heard_for_half_an_hour():
    file = write(np.zeros(3 * 3_600 * 4_000, np.int16), 4_000, "FLAC")
    assert len(file) < 1_800_000
    waveform, notices = heard(file, sample_rate=4_000)
    assert 0 <= waveform.shape[1] / 4_000 - 1_800 < 10
    assert notices == ["Only its first 30:00 minutes are heard: of a file like this, no more is decoded."]


def test_samples_of_countless_packets_are_not_all_waited_for():
    waveform, notices = heard(tiny_opus_packets(200_000))  # of 2.5 ms
    assert 90_000 <= waveform.shape[1] / SAMPLE_RATE / 0.0025 < 91_000
    assert "are heard: of a file like this, no more is decoded." in notices[0]


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


@pytest.mark.parametrize("kind", EVERY_KIND)
@pytest.mark.parametrize("start_seconds", [0.5, 6.25])
def test_a_passage(kind, start_seconds):
    file = long_song(kind)
    start = round(start_seconds * SAMPLE_RATE)
    whole, passage = mono(file), mono(file, max_seconds=3, start_seconds=start_seconds)
    assert passage.size == 3 * SAMPLE_RATE
    delay_seconds, match, level = delay_and_match(passage, whole[start : start + passage.size])
    assert delay_seconds == pytest.approx(0, abs=0.1 if kind == "wma" else 0.01)  # by the file's own clock
    assert match > 0.95  # resampled half a sample apart at most
    assert level == pytest.approx(1, abs=0.02)
    assert mono(file, start_seconds=start_seconds).size / SAMPLE_RATE == pytest.approx(12 - start_seconds, abs=0.1)


def test_a_passage_after_the_end():
    assert "lasts only 12.00 s: at least 31 s is needed" in refusal(long_song("wav 16 bit"), start_seconds=30)


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


# Damage


WITH_LENGTH = [kind for kind in EVERY_KIND if kind not in {*WITHOUT_LENGTH, "m4a in fragments"}]
INDEX_AT_THE_END = {"alac m4a", "m4a", "m4b", "3gp", "mp4 video"}  # and without it, nothing can be decoded


@pytest.mark.parametrize("kind", WITH_LENGTH)
def test_little_of_a_file_is_refused(kind):
    file = long_song(kind)
    assert "damaged or incomplete" in refusal(file[: int(0.02 * len(file))])
    if "ogg" not in kind and "opus" not in kind:  # which do not say how long they should be
        assert "damaged or incomplete, its end is missing" in refusal(file[: int(0.2 * len(file))])


@pytest.mark.parametrize("share", [0.5, 0.9])
@pytest.mark.parametrize("kind", [kind for kind in WITH_LENGTH if kind not in INDEX_AT_THE_END])
def test_most_of_a_file_is_heard(kind, share):
    file = long_song(kind)
    waveform, notices = heard(file[: int(share * len(file))])
    seconds = waveform.shape[1] / SAMPLE_RATE
    assert seconds == pytest.approx(12 * share, abs=2)  # a page or a packet can be seconds
    assert notices == [f"Its end is missing: this answer is from the {seconds:.0f} s that are there."]
    start = waveform[0, : 4 * SAMPLE_RATE]
    assert delay_and_match(start, melody(SAMPLE_RATE, 4))[1] > 0.98


@pytest.mark.parametrize("kind", EVERY_KIND)
def test_a_whole_file_has_no_notices(kind):
    assert heard(song(kind))[1] == heard(long_song(kind))[1] == []


@pytest.mark.parametrize("kind", sorted(INDEX_AT_THE_END))
def test_without_its_index_a_file_is_refused(kind):
    file = long_song(kind)
    assert "its end is missing" in refusal(file[: int(0.95 * len(file))])


@pytest.mark.parametrize("kind", sorted(WITHOUT_LENGTH))
def test_a_cut_that_cannot_be_seen_leaves_the_rest(kind):
    file = long_song(kind)
    assert mono(file[: len(file) // 2]).size / SAMPLE_RATE == pytest.approx(6, abs=1)


def test_a_cut_beyond_the_limit_does_not_matter():
    file = long_song("flac 16 bit")
    assert mono(file[: len(file) // 2], max_seconds=2).size == 2 * SAMPLE_RATE


@pytest.mark.parametrize("size", [0, 0x7F00_0000, 0x7FFF_F000, 0xFFFF_FFFF])
def test_a_wav_recorded_through_a_pipe_has_no_size(size):
    file = song("wav 16 bit")
    size_bytes = struct.pack("<I", size)
    waveform, notices = heard(patch(patch(file, 4, size_bytes), file.index(b"data") + 4, size_bytes))
    assert (waveform.shape[1], notices) == (2 * SAMPLE_RATE, [])


@pytest.mark.parametrize("kind", ["wav 16 bit", "wav float", "wav extensible"])
def test_only_the_data_of_a_wav_says_whether_it_is_cut(kind):
    file = song(kind)
    waveform, notices = heard(patch(file, 4, struct.pack("<I", 3 * len(file))))
    assert (waveform.shape[1], notices) == (2 * SAMPLE_RATE, [])
    chunk = b"junk" + struct.pack("<I", 3_001) + bytes(3_002)
    with_chunk = file[:12] + chunk + file[12:]
    assert heard(with_chunk)[1] == []
    assert heard(with_chunk[: -len(file) // 10])[1] != []


def test_a_flac_recorded_through_a_pipe_has_no_length():
    file = song("flac 16 bit")
    assert mono(patch(file, 21, bytes([file[21] & 0xF0]), bytes(4))).size == 2 * SAMPLE_RATE


@pytest.mark.parametrize("write_xing", ["0", "1"])
@pytest.mark.parametrize("loud_first", [True, False])
def test_a_variable_bit_rate_is_no_cut(loud_first, write_xing):
    """Without the header FFmpeg estimates the length from the bit rate of the beginning, far from the truth."""
    noise = np.random.default_rng(0).uniform(-0.5, 0.5, 3 * 44_100).astype(np.float32)
    samples = np.concatenate([noise, 0 * noise, 0 * noise] if loud_first else [0 * noise, 0 * noise, noise])
    variable = {"global_quality": "354", "flags": "+qscale"}
    file = encode("mp3", "libmp3lame", samples, 44_100, encoder=variable, write_xing=write_xing)
    assert mono(file).size / SAMPLE_RATE == pytest.approx(9, abs=0.1)


@pytest.mark.parametrize("tail", [b"TAG" + bytes(125), b"\xff\xf1" + bytes(range(256)) * 8])
@pytest.mark.parametrize("kind", EVERY_KIND)
def test_what_other_programs_append_is_ignored(kind, tail):
    assert mono(song(kind) + tail).size / SAMPLE_RATE == pytest.approx(2, abs=0.1)


@pytest.mark.parametrize("kind", ["wav 16 bit", "mp3", "flac 16 bit", "ogg vorbis", "m4a for the web", "aac", "wma"])
def test_a_few_damaged_bytes_are_survived(kind):
    file = long_song(kind)
    waveform = mono(patch(file, len(file) // 2, bytes(range(200))))
    assert 8 * SAMPLE_RATE < waveform.size < 12.1 * SAMPLE_RATE  # a page of ogg can be seconds
    assert delay_and_match(waveform[: 4 * SAMPLE_RATE], melody(SAMPLE_RATE, 4))[1] > 0.98


@pytest.mark.parametrize("kind", ["flac 16 bit", "alac m4a", "m4a", "m4a for the web"])
def test_a_file_with_a_hole_is_heard_around_it(kind):
    file = long_song(kind)
    waveform, notices = heard(patch(file, len(file) // 4, bytes(len(file) // 2)))
    seconds = waveform.shape[1] / SAMPLE_RATE
    assert notices == [f"Some of it is damaged: this answer is from the {seconds:.0f} s that can be read."]
    assert "damaged or incomplete" in refusal(patch(file, len(file) // 10, bytes(len(file) * 8 // 10)))


def waveform_or_message(path: Path) -> np.ndarray | str:
    try:
        return load_audio(path)
    except AudioError as error:
        return str(error)


def test_broken_files_never_fail_in_another_way(tmp_path, capfd):
    """Files of random damage give a waveform or an AudioError, and FFmpeg's own words stay off the terminal."""
    random = np.random.default_rng(0)
    path = tmp_path / "broken.mp3"
    for kind in EVERY_KIND:
        file = song(kind)
        for n_bytes in (1, 12, 60, 500, len(file)):
            broken = np.frombuffer(file[:n_bytes], np.uint8).copy()
            broken[random.integers(0, n_bytes, 5)] = random.integers(0, 256, 5)
            path.write_bytes(broken.tobytes())
            outcome = waveform_or_message(path)
            assert outcome.startswith("broken.mp3 ") if isinstance(outcome, str) else np.isfinite(outcome).all()
    assert capfd.readouterr() == ("", "")


# What is no sound


def refusal(source, **options) -> str:
    with pytest.raises(AudioError) as caught:
        mono(source, **options)
    return str(caught.value)


def test_no_file(tmp_path):
    assert refusal(tmp_path / "song.mp3").startswith("song.mp3 was not found")


def test_a_directory(tmp_path):
    assert refusal(tmp_path) == f"{tmp_path.name} is a directory or a device: give the path of one sound file."


def test_an_empty_file(tmp_path):
    (tmp_path / "song.mp3").touch()
    assert refusal(tmp_path / "song.mp3").startswith("song.mp3 is empty")
    assert refusal(b"").startswith("The audio is empty")


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no FIFOs here")
def test_special_files_are_refused_without_waiting(tmp_path):
    os.mkfifo(tmp_path / "pipe.wav")
    (tmp_path / "link.wav").symlink_to("/dev/zero")
    for path in (tmp_path / "pipe.wav", tmp_path / "link.wav", "/dev/zero", "/dev/stdin"):
        assert "is a directory or a device" in refusal(path)


def test_a_path_that_the_system_refuses():
    assert "cannot be opened (File name too long)" in refusal("x" * 5_000)


@pytest.mark.parametrize(
    "file",
    [
        b"\0" * 100_000,
        np.random.default_rng(0).bytes(100_000),
    ],
    ids=["zeros", "noise"],
)
def test_no_sound_under_a_sound_files_name(tmp_path, file):
    (tmp_path / "song.mp3").write_bytes(file)
    for source in (tmp_path / "song.mp3", file):
        assert "wav, mp3, flac" in refusal(source)
    assert str(tmp_path) not in refusal(tmp_path / "song.mp3")


@pytest.mark.parametrize(("codec", "pixels"), [("png", "rgb24"), ("mjpeg", "yuvj420p")])
def test_a_picture(tmp_path, codec, pixels):
    (tmp_path / "cover.jpg").write_bytes(picture(codec, pixels))
    kind = {"png": "PNG", "mjpeg": "JPEG"}[codec]
    assert refusal(tmp_path / "cover.jpg").startswith(f"cover.jpg is a picture ({kind}), which holds no sound")


@pytest.mark.parametrize(
    ("message", "kind", "file"),
    [
        (foreign.NOTES, "MIDI", b"MThd\0\0\0\x06\0\0\0\x01\0\x60MTrk\0\0\0\x04\0\xff\x2f\0"),
        (foreign.NOTES, "MIDI", b"RIFF\x40\0\0\0RMIDdata\x34\0\0\0MThd" + bytes(48)),
        (foreign.NOTES, "MOD", bytes(1_080) + b"M.K." + bytes(3_000)),
        (foreign.NOTES, "MusicXML", b'<?xml version="1.0"?>\n<!DOCTYPE score-partwise PUBLIC "x">\n<score-partwise/>'),
        (foreign.PROJECT, "FL Studio", b"FLhd\6\0\0\0" + bytes(1_000)),
        (foreign.PICTURE, "GIF", b"GIF89a" + bytes(1_000)),
        (foreign.PICTURE, "SVG", b'<?xml version="1.0"?><svg xmlns="http://www.w3.org/2000/svg"/>'),
        (foreign.PICTURE, "HEIC", b"\0\0\0\x18ftypheic" + bytes(1_000)),
        (foreign.DOCUMENT, "PDF", b"%PDF-1.7\n" * 100),
        (foreign.DOCUMENT, "TXT", b"These are the words of a song.\n" * 300),
        (foreign.DOCUMENT, "TXT", "Noël où les élèves\n".encode("latin-1") * 10),
        (foreign.DOCUMENT, "TXT", "歌词\n".encode("utf-16") * 10),
        (foreign.DOCUMENT, "Microsoft Office", b"PK\3\4\x14\0" + bytes(24) + b"[Content_Types].xml" + bytes(99)),
        (foreign.ARCHIVE, "ZIP", b"PK\3\4\x14\0" + bytes(24) + b"song.mp3" + bytes(1_000)),
        (foreign.ARCHIVE, "RAR", b"Rar!\x1a\7\1\0" + bytes(1_000)),
        (foreign.WEB_PAGE, "HTML", b"\n<!DOCTYPE html><html><title>404 Not Found</title></html>"),
        (foreign.LINK, "M3U", b"#EXTM3U\n#EXTINF:3,Song\nsong.mp3\n"),
        (foreign.LINK, "M3U", b"Music/Band/Song.mp3\nMusic/Band/Next.mp3\n"),
        (foreign.LINK, "CUE", b'REM GENRE Jazz\nFILE "set.flac" WAVE\n  TRACK 01 AUDIO\n    INDEX 01 00:00:00\n'),
        (foreign.LINK, "torrent", b"d8:announce35:http://tracker.example/announce4:infod6:lengthi1eee"),
        (foreign.UNREAD, "OptimFROG", b"OFR \x0f\0\0\0" + bytes(1_000)),
        (foreign.PROTECTED, "Audible", b"\0\x10\0\0\x57\x90\x75\x36" + bytes(1_000)),
    ],
)
def test_what_holds_no_sound_is_called_by_its_name(tmp_path, message, kind, file):
    (tmp_path / "song.mp3").write_bytes(file)
    assert refusal(tmp_path / "song.mp3") == message.format(name="song.mp3", kind=kind)


@pytest.mark.parametrize(("tag", "kind"), [(b"drms", "FairPlay"), (b"enca", "Common Encryption"), (b"aavd", "Audible")])
def test_copy_protection_of_an_mp4(tag, kind):
    assert f"protected against copying ({kind})" in refusal(song("m4a").replace(b"mp4a", tag))


def test_copy_protection_of_a_wma():
    file, encryption = song("wma"), bytes.fromhex("fbb3112223bdd211b4b700a0c955fc6e")
    n_header_bytes, n_objects = struct.unpack("<QI", file[16:28])
    header = struct.pack("<QI", n_header_bytes + 40, n_objects + 1)
    protected = file[:16] + header + file[28:30] + encryption + struct.pack("<Q", 40) + bytes(16) + file[30:]
    assert "protected against copying (Windows Media DRM)" in refusal(protected)


def test_a_silent_film():
    buffer = io.BytesIO()
    with av.open(buffer, "w", format="mp4") as output:
        add_pictures(output, "libx264")()
    assert refusal(buffer.getvalue()).startswith("The audio has no audio track")


@pytest.fixture
def visits():
    """A web server's address, and the list of who has called there."""
    callers = []
    with socket.create_server(("127.0.0.1", 0)) as server:

        def listen():
            while True:
                try:
                    connection, caller = server.accept()
                except OSError:  # closed
                    return
                connection.close()
                callers.append(caller)

        threading.Thread(target=listen, daemon=True).start()
        yield f"127.0.0.1:{server.getsockname()[1]}", callers
        server.shutdown(socket.SHUT_RDWR)


@pytest.mark.parametrize("scheme", ["http", "rtsp", "hls+http", "tcp", "concat:http", "subfile,,start,0,end,0,,:http"])
def test_an_address_is_never_called(visits, scheme):
    address, callers = visits
    assert "was not found" in refusal(f"{scheme}://{address}/song.mp3")
    assert callers == []


@pytest.mark.parametrize("target", ["file", "address"])
@pytest.mark.parametrize(
    "name", ["hls.m3u8", "concat.txt", "session.sdp", "dash.mpd", "list.m3u", "list.pls", "song.wav"]
)
def test_nothing_inside_a_playlist_is_opened(tmp_path, visits, name, target):
    address, callers = visits
    (tmp_path / "real.ts").write_bytes(song("mpeg-ts video"))
    entry = (tmp_path / "real.ts").as_posix() if target == "file" else f"http://{address}/real.ts"
    hls = f"#EXTM3U\n#EXT-X-TARGETDURATION:3\n#EXTINF:3,\n{entry}\n#EXT-X-ENDLIST\n"
    texts = {
        "hls.m3u8": hls,
        "song.wav": hls,
        "concat.txt": f"ffconcat version 1.0\nfile '{entry}'\n",
        "session.sdp": f"v=0\no=- 0 0 IN IP4 127.0.0.1\ns=x\nc=IN IP4 127.0.0.1\nt=0 0\n"
        f"m=audio {address.split(':')[1]} RTP/AVP 0\n",
        "dash.mpd": f"<MPD><Period><AdaptationSet><Representation><BaseURL>{entry}</BaseURL></Representation>"
        "</AdaptationSet></Period></MPD>",
        "list.m3u": f"{entry}\n",
        "list.pls": f"[playlist]\nFile1={entry}\n",
    }
    (tmp_path / name).write_text(texts[name])
    for source in (tmp_path / name, texts[name].encode()):
        assert "only says where a sound is: choose the sound itself" in refusal(source)
    assert callers == []


def test_an_error_comes_from_one_process_to_another(tmp_path: Path) -> None:
    (tmp_path / "{0} {name}.wav").touch()
    with pytest.raises(AudioError) as error:
        mono(tmp_path / "{0} {name}.wav")
    again = pickle.loads(pickle.dumps(error.value))
    assert str(again) == str(error.value) == "{0} {name}.wav is empty (0 bytes): record, fetch or export it again."
    assert (again.message, again.values) == (error.value.message, error.value.values)
