"""Every format, channel layout, rate and level gives the sound that it was made from."""

import io
import struct
import tempfile
from collections import Counter
from pathlib import Path

import av
import numpy as np
import pytest
import soundfile as sf
from av.stream import Disposition
from sounds import (
    EVERY_KIND,
    LOSSLESS,
    add_track,
    delay_and_match,
    encode,
    heard,
    level_db,
    melody,
    mono,
    patch,
    picture,
    refusal,
    song,
    spectrum_peak_hz,
    tone,
    write,
)

from crnn.audio import SAMPLE_RATE, AudioError, load_audio, open_audio
from crnn.audio.extent import Extent
from crnn.audio.track import Track


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
    assert "too much of it is missing" in refusal(file[: len(file) * 2 // 10])


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


@pytest.mark.parametrize(("subtype", "valid_bits"), [("PCM_32", 24), ("PCM_32", 16), ("PCM_24", 16), ("PCM_16", 12)])
def test_samples_of_a_wav_have_the_size_of_their_containers(subtype, valid_bits):
    """Of WAVE_FORMAT_EXTENSIBLE, in which recorders often write 24 bits in 32."""
    file = write(melody(SAMPLE_RATE), SAMPLE_RATE, "WAVEX", subtype)
    told = patch(file, file.index(b"fmt ") + 8 + 18, bytes([valid_bits]))
    assert told != file
    for source in (told, b"ID3\4\0\0\0\0\1\0" + bytes(128) + told):
        np.testing.assert_array_equal(mono(source), mono(file))


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


def test_a_track_of_a_broadcast_sounds_as_late_as_its_clock_is():
    """Which began hours before."""
    music = tone(500, 48_000)[:, None]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "film.ts")
        with av.open(path, "w", format="mpegts", options={"output_ts_offset": "5000"}) as output:
            for encode_track in [add_track(output, "mp2", samples, 48_000) for samples in (0 * music, music)]:
                encode_track()
        waveform, notices = heard(path)
    assert notices == ["Of its 2 audio tracks, this answer is for track 2: track 1 is silent."]
    assert spectrum_peak_hz(waveform[0]) == pytest.approx(500, abs=1)


def test_little_of_a_silent_track_is_decoded(monkeypatch):
    """Else a film of which the first is silent takes a page longer than it waits for its decoders."""
    decoded = Counter()
    decode = Track._decode
    monkeypatch.setattr(
        Track, "_decode", lambda self, packet: decoded.update([packet.stream.index]) or decode(self, packet)
    )
    silence = np.zeros(30 * 48_000, np.float32)
    Track(Extent.of(io.BytesIO(film(silence, tone(500, 48_000, 30))))).close()
    assert decoded[0] < 0.3 * 30 * 48_000 / 1_024


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


@pytest.mark.parametrize("subtype", ["FLOAT", "DOUBLE"])
def test_passages_that_are_no_numbers_are_said(subtype):
    """They are damage, and no silence that asks for a louder recording."""
    damaged = np.tile(melody(SAMPLE_RATE), 10)
    damaged[4 * SAMPLE_RATE : 5 * SAMPLE_RATE] = np.nan
    with open_audio(write(damaged, SAMPLE_RATE, "WAV", subtype)) as sound:
        assert sum(block.shape[1] for block in sound.blocks()) == pytest.approx(len(damaged) - SAMPLE_RATE, abs=1_024)
        [notice] = sound.notices
    assert str(notice) == "Some of it is damaged: this answer is from the 19 s that can be read."
    with pytest.raises(AudioError, match="damaged"):
        mono(write(np.full(SAMPLE_RATE * 3, np.nan, np.float32), SAMPLE_RATE, "WAV", subtype))
