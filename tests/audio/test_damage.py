"""What is cut or damaged is heard as far as it goes, and refused where that is too little."""

import io
import struct
from pathlib import Path

import av
import numpy as np
import pytest
from sounds import (
    EVERY_KIND,
    WITHOUT_LENGTH,
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
    write,
)

from crnn.audio import SAMPLE_RATE, AudioError, Passages, load_audio, open_audio

WITH_LENGTH = [kind for kind in EVERY_KIND if kind not in {*WITHOUT_LENGTH, "m4a in fragments"}]
INDEX_AT_THE_END = {"alac m4a", "m4a", "m4b", "3gp", "mp4 video"}  # and without it, nothing can be decoded


@pytest.mark.parametrize("kind", WITH_LENGTH)
def test_little_of_a_file_is_refused(kind):
    file = long_song(kind)
    assert "damaged or incomplete" in refusal(file[: int(0.02 * len(file))])
    if "ogg" not in kind and "opus" not in kind:  # which do not say how long they should be
        missing = "its end" if kind in INDEX_AT_THE_END else "too much of it"
        assert f"damaged or incomplete, {missing} is missing" in refusal(file[: int(0.2 * len(file))])


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


@pytest.mark.parametrize("kind", [kind for kind in [*WITH_LENGTH, "m4a in fragments"] if kind not in INDEX_AT_THE_END])
def test_of_a_song_that_is_cut_behind_them_no_passages_are_taken(kind):
    """Else it would pass for a whole one. They end after 10 s of 12."""
    file = long_song(kind)
    for share, is_whole in ((1.0, True), (0.92, False)):
        with open_audio(file[: int(share * len(file))], passages=Passages(2, 2.0)) as sound:
            list(sound.blocks())
        assert bool(sound.starts_seconds) == is_whole, share


def test_a_pause_of_a_recorder_is_no_damage():
    """The clock of an mp4 goes on in it."""
    source, output = io.BytesIO(long_song("m4a")), io.BytesIO()
    with av.open(source) as given, av.open(output, "w", format="mp4") as paused:
        stream = paused.add_stream_from_template(given.streams.audio[0])
        for packet in given.demux(audio=0):
            if packet.size:
                if packet.pts * packet.time_base > 6:
                    packet.pts = packet.dts = packet.pts + round(60 / packet.time_base)
                packet.stream = stream
                paused.mux(packet)
    waveform, notices = heard(output.getvalue())
    assert notices == []
    assert waveform.shape[1] / SAMPLE_RATE == pytest.approx(12, abs=0.2)


@pytest.mark.parametrize("codec", ["VORBIS", "OPUS"])
def test_a_hole_in_an_ogg_is_told(codec):
    pages = pages_of(write(melody(48_000, 24), 48_000, "OGG", codec))
    assert len(pages) > 8
    middle = len(pages) // 2
    waveform, notices = heard(b"".join(pages[: middle - 1] + pages[middle + 1 :]))
    seconds = waveform.shape[1] / SAMPLE_RATE
    assert 12 < seconds < 23
    assert notices == [f"Some of it is damaged: this answer is from the {seconds:.0f} s that can be read."]
    assert heard(b"".join(pages[:2] + pages[middle:]))[1] == []  # recorded from the middle of a broadcast


@pytest.mark.parametrize("part", [2, 4])
def test_flac_from_the_middle_of_a_broadcast_is_whole(part):
    """FFmpeg begins its clock at 0, and lets it leap to where the station's stands."""
    file = encode("ogg", "flac", melody(44_100, 24), 44_100)
    pages = pages_of(file)
    assert heard(b"".join(pages[:2] + pages[-len(pages) // part :]))[1] == []


def test_of_a_file_in_fragments_those_that_are_missing_are_told():
    """Such as were not fetched: their clock goes on, and no packet of them is damaged."""
    options = {"movflags": "frag_keyframe+empty_moov+default_base_moof", "frag_duration": "1000000"}
    file, places = encode("mp4", "aac", melody(44_100, 12), 44_100, **options), []
    while (place := file.find(b"moof", places[-1] + 8 if places else 0)) >= 0:
        places.append(place - 4)
    assert len(places) > 9
    assert heard(file[: places[4]] + file[places[7] :])[1] == [
        "Some of it is damaged: this answer is from the 9 s that can be read."
    ]
    assert heard(file[: places[-3] + 500])[1][0].startswith("Its end is missing")


@pytest.mark.parametrize("kind", EVERY_KIND)
def test_a_whole_file_has_no_notices(kind):
    assert heard(song(kind))[1] == heard(long_song(kind))[1] == []


@pytest.mark.parametrize("behind", [b"TAG" + bytes(125), bytes(100_000)])
@pytest.mark.parametrize("kind", ["wavpack", "flac 16 bit", "ogg vorbis", "opus", "aac", "mp2", "ac3"])
def test_what_stands_behind_the_sound_is_not_missing(kind, behind):
    waveform, notices = heard(long_song(kind) + behind)
    assert notices == []
    assert waveform.shape[1] / SAMPLE_RATE == pytest.approx(12, abs=0.2)


def test_an_ogg_that_goes_on_at_another_rate_is_heard_so_far():
    first, second = (write(melody(rate_hz, 4), rate_hz, "OGG", "VORBIS") for rate_hz in (48_000, 44_100))
    waveform, notices = heard(first + second)
    is_all = waveform.shape[1] / SAMPLE_RATE == pytest.approx(8, abs=0.1)  # FFmpeg 8.0 goes on
    assert is_all or waveform.shape[1] / SAMPLE_RATE == pytest.approx(4, abs=0.1)
    told = ["Only what lies before 0:04 is heard: of a file like this, no more is decoded."]
    assert notices == ([] if is_all else told)


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


@pytest.mark.parametrize(
    "kind",
    [
        *("flac 16 bit", "alac m4a", "m4a", "m4a for the web", "mp3", "wma", "flv", "mpeg-ts video"),
        *("opus", "flac mka", "webm", "webm recorded live"),
    ],
)
def test_a_file_with_a_hole_is_heard_around_it(kind):
    file = long_song(kind)
    waveform, notices = heard(patch(file, len(file) // 4, bytes(len(file) // 2)))
    seconds = waveform.shape[1] / SAMPLE_RATE
    assert 4 < seconds < 8
    assert notices == [f"Some of it is damaged: this answer is from the {seconds:.0f} s that can be read."]
    if "m4a" in kind or kind in ("flac 16 bit", "mp3"):  # which say how much they hold, piece by piece
        assert "damaged or incomplete" in refusal(patch(file, len(file) // 10, bytes(len(file) * 8 // 10)))


@pytest.mark.parametrize(("container", "codec"), [("ogg", "libopus"), ("ogg", "flac"), ("mpegts", "mp2")])
def test_sound_goes_on_behind_more_than_a_format_skips(container, codec):
    """FFmpeg gives up after some 100 kB, and reads on where it is asked again."""
    noise = np.random.default_rng(0).uniform(-0.5, 0.5, 30 * 48_000).astype(np.float32)
    file = encode(container, codec, noise, 48_000)
    hole = len(file) // 3
    waveform, notices = heard(patch(file, len(file) // 4, bytes(hole)))
    seconds = waveform.shape[1] / SAMPLE_RATE
    assert 18 < seconds < 21
    assert notices == [f"Some of it is damaged: this answer is from the {seconds:.0f} s that can be read."]
    assert delay_and_match(waveform[0, -5 * SAMPLE_RATE :], mono(file)[-5 * SAMPLE_RATE :])[1] > 0.7


def test_what_is_no_sound_behind_it_takes_none_of_it_away():
    """Most of the bytes then, if few of the packets."""
    waveform, notices = heard(song("aac") + song("wav 16 bit"))
    assert waveform.shape[1] >= 1.9 * SAMPLE_RATE
    assert "Some of it is damaged" in notices[0]


def test_what_goes_on_in_another_codec_is_heard_so_far():
    first, second = (encode("matroska", codec, melody(48_000, 4), 48_000) for codec in ("flac", "libopus"))
    waveform, notices = heard(first + second)
    assert waveform.shape[1] / SAMPLE_RATE == pytest.approx(4, abs=0.1)
    assert notices == ["Some of it is damaged: this answer is from the 4 s that can be read."]


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
