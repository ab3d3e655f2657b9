"""The front end against librosa and against real GTZAN features; windows."""

import csv
from collections.abc import Callable
from pathlib import Path

import librosa
import numpy as np
import pytest
import torch

from crnn.audio import load_audio
from crnn.data.features import Features
from crnn.features import (
    FLOOR_DB,
    FRAMES_PER_SECOND,
    HOP_LENGTH,
    N_FFT,
    N_MELS,
    PEAKS_DB,
    SAMPLE_RATE,
    LogMel,
    repeat_to,
    sounding_frames,
    stand_on_level,
    steady_frames,
    windows,
    without_silence,
)

GTZAN_SAMPLE = Path(__file__).parents[2] / "shared" / "gtzan"


def noise(seconds: float, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(0, 0.1, round(seconds * SAMPLE_RATE)).astype(np.float32)


@pytest.mark.usefixtures("compiled")
@pytest.mark.parametrize("hop_length", [HOP_LENGTH, 512])
def test_mel_equals_librosa(hop_length: int) -> None:
    waveform = noise(5)
    expected = librosa.feature.melspectrogram(
        y=waveform, sr=SAMPLE_RATE, n_fft=N_FFT, hop_length=hop_length, n_mels=N_MELS, pad_mode="constant"
    )
    power = np.concatenate([*LogMel(hop_length).powers([waveform[None]])], axis=1)
    assert power.shape == expected.shape
    difference_db = 10 * np.log10(power / expected)
    np.testing.assert_allclose(difference_db[20:, 3:], 0, atol=0.1)
    assert np.abs(difference_db[1:].mean(axis=1)).max() < 0.3
    assert -3 < difference_db[0].mean() < 0  # what is below 22 Hz is in the lowest band


def music(seconds: float = 12.0) -> np.ndarray:
    """Chords in pulses over noise, in two channels that differ: (2, samples)."""
    time = np.arange(round(seconds * SAMPLE_RATE)) / SAMPLE_RATE
    generator = np.random.default_rng(0)
    channels = []
    for chord in ((220, 277, 330), (110, 440, 659)):
        tones = sum(np.sin(2 * np.pi * hz * time) for hz in chord) * (0.3 + 0.7 * (time % 0.5 < 0.3))
        channels.append(0.05 * tones + 0.005 * generator.standard_normal(len(time)))
    return np.float32(channels)


def log_mel_of(waveform: np.ndarray) -> torch.Tensor:
    return LogMel()(torch.from_numpy(np.float32(waveform)))


def test_the_level_is_that_of_the_loud_frames() -> None:
    """A twentieth of the time is louder than 3.1 dB below zero, the headroom of most music."""
    log_mel = log_mel_of(music(30))
    assert log_mel.shape == (N_MELS, 1 + 30 * SAMPLE_RATE // HOP_LENGTH)
    assert log_mel[1:].amax(dim=0).quantile(0.95) == pytest.approx(-3.1, abs=0.1)
    torch.testing.assert_close(stand_on_level(log_mel, FLOOR_DB), log_mel)


@pytest.mark.parametrize("gain_db", [-40, -20, 20])
def test_gain_changes_nothing(gain_db: float) -> None:
    waveform = music()
    torch.testing.assert_close(log_mel_of(10 ** (gain_db / 20) * waveform), log_mel_of(waveform), atol=1e-2, rtol=0)


@pytest.mark.parametrize(("seconds", "louder_db"), [(0.05, 20), (0.05, 40), (0.3, 20), (0.3, 40), (0.6, 30)])
def test_a_brief_noise_moves_nothing_but_itself(seconds: float, louder_db: float) -> None:
    waveform, n = music(), round(seconds * SAMPLE_RATE)
    bumped = waveform.copy()
    rms = np.sqrt((waveform**2).mean())
    bumped[:, 4 * SAMPLE_RATE :][:, :n] += rms * 10 ** (louder_db / 20) * np.random.default_rng(1).standard_normal(n)
    frames = torch.arange(1 + waveform.shape[1] // HOP_LENGTH) / FRAMES_PER_SECOND
    elsewhere = (frames < 3.9) | (frames > 4.6 + seconds)
    before, after = log_mel_of(waveform), log_mel_of(bumped)
    assert (before - after)[:, elsewhere].abs().max() < 1.5
    assert (before - after)[:, ~elsewhere].abs().max() > 10


@pytest.mark.parametrize(
    "change",
    [
        lambda w: w + 0.5,
        lambda w: w - 0.1,
        lambda w: w + 0.3 * np.sin(2 * np.pi * 10 * np.arange(w.shape[1]) / SAMPLE_RATE),
        lambda w: w + 0.1 * np.sin(2 * np.pi * 15 * np.arange(w.shape[1]) / SAMPLE_RATE),
    ],
    ids=["DC", "negative DC", "10 Hz", "15 Hz"],
)
def test_what_lies_below_hearing_changes_nothing(change: Callable[[np.ndarray], np.ndarray]) -> None:
    before, after = log_mel_of(music()), log_mel_of(change(music()))
    assert (before - after)[2:, 12:].abs().max() < 0.5  # after half a second: it begins with a jerk


@pytest.mark.parametrize(
    "mix",
    [
        lambda left, right: [left, -right],
        lambda left, right: [-left, right],
        lambda left, right: [right, left],
        lambda left, right: [left, np.roll(right, 11)],
        lambda left, right: [left, right, left, right, left, right],
        lambda left, right: [left, right, 0 * left, 0 * left, 0 * left, 0 * left],
    ],
    ids=[
        "right inverted",
        "left inverted",
        "swapped",
        "half a millisecond later",
        "six channels",
        "four of six silent",
    ],
)
def test_the_phase_and_the_number_of_channels_change_nothing(
    mix: Callable[[np.ndarray, np.ndarray], list[np.ndarray]],
) -> None:
    difference = (log_mel_of(np.stack(mix(*music()))) - log_mel_of(music())).abs()
    assert difference.mean() < 0.05
    assert (difference > 0.5).float().mean() < 0.005


@pytest.mark.parametrize("sign", [1, -1])
def test_equal_channels_are_mono(sign: float) -> None:
    left = music()[0]
    torch.testing.assert_close(log_mel_of(np.stack([left, sign * left])), log_mel_of(left), atol=1e-2, rtol=0)


@pytest.mark.parametrize("size", [1, 700, 914, 30_000])
def test_blocks_are_one_waveform(size: int) -> None:
    """However a waveform is cut; its channels are the same at first, then they differ."""
    waveform = music(1.5)
    waveform[1, :9_000] = waveform[0, :9_000]
    blocks = [waveform[:, start : start + size] for start in range(0, waveform.shape[1], size)]
    torch.testing.assert_close(LogMel().of_blocks(blocks), log_mel_of(waveform), atol=1e-3, rtol=0)


def test_silences_are_no_part_of_the_music() -> None:
    song, second = music(4), SAMPLE_RATE
    hiss = 10 ** (-50 / 20) * 0.1 * np.random.default_rng(0).standard_normal((2, 6 * second))
    rest = np.zeros((2, second // 2))
    log_mel = log_mel_of(np.concatenate([hiss, song, rest, song, 0 * hiss], axis=1))
    seconds = torch.arange(log_mel.shape[1]) / FRAMES_PER_SECOND
    expected = (seconds > 6.0) & (seconds < 14.5)  # the rest of half a second belongs to it
    assert (sounding_frames(log_mel) != expected).sum() <= 4
    assert not sounding_frames(log_mel_of(0 * song)).any()
    assert torch.equal(without_silence(log_mel), log_mel[:, sounding_frames(log_mel)])


@pytest.mark.parametrize(("seconds", "is_left_out"), [(0.5, False), (0.9, False), (2, True), (10, True)])
def test_rests_stay_and_of_longer_pauses_nothing(seconds: float, is_left_out: bool) -> None:
    song, pause = music(4), np.zeros((2, round(seconds * SAMPLE_RATE)))
    log_mel = log_mel_of(np.concatenate([song, pause, song], axis=1))
    times = torch.arange(log_mel.shape[1]) / FRAMES_PER_SECOND
    pauses = (times > 4) & (times < 4 + seconds) & is_left_out
    assert (sounding_frames(log_mel) == pauses).sum() <= 3  # a frame lasts 93 ms
    assert sounding_frames(log_mel).sum() == pytest.approx(
        (2 * 4 + seconds * (not is_left_out)) * FRAMES_PER_SECOND, abs=4
    )


@pytest.mark.parametrize(("seconds", "is_left_out"), [(0.4, False), (0.8, True)])
def test_less_than_half_a_second_of_silence_at_an_end_stays(seconds: float, is_left_out: bool) -> None:
    song, silence = music(4), np.zeros((2, round(seconds * SAMPLE_RATE)))
    for waveform in (np.concatenate([silence, song], axis=1), np.concatenate([song, silence], axis=1)):
        expected = (4 + seconds * (not is_left_out)) * FRAMES_PER_SECOND
        assert sounding_frames(log_mel_of(waveform)).sum() == pytest.approx(expected, abs=3)


def hum(seconds: float, overtone_db: float = -10.0) -> np.ndarray:
    """What the mains make in two channels, (2, samples), over a hiss of -70 dB."""
    time = np.arange(round(seconds * SAMPLE_RATE)) / SAMPLE_RATE
    tones = sum(10 ** (overtone_db * n / 20) * np.sin(2 * np.pi * 50 * (n + 1) * time) for n in range(6))
    return np.float32([0.1 * tones] * 2) + 3e-5 * np.random.default_rng(0).standard_normal((2, len(time)))


@pytest.mark.parametrize("seconds", [3.5, 3.8, 5, 7.7, 30])
def test_a_tone_that_stays_as_it_is_is_no_music(seconds: float) -> None:
    for waveform in (hum(seconds), hum(seconds)[:1], hum(seconds, overtone_db=-3), np.sign(hum(seconds))):
        assert not sounding_frames(log_mel_of(waveform)).any()


def test_nor_is_it_before_music_or_behind_it() -> None:
    log_mel = log_mel_of(np.concatenate([hum(8), music(6), hum(10)], axis=1))
    times = torch.arange(log_mel.shape[1]) / FRAMES_PER_SECOND
    sounds = sounding_frames(log_mel)
    assert sounds[(times > 8.1) & (times < 13.9)].all()
    assert sounds.sum() <= (6 + 2 * 3 / 8 + 0.2) * FRAMES_PER_SECOND  # looked at in eighths of three seconds


@pytest.mark.parametrize("gain_db", [-20, 20, 40])
def test_music_behind_it_stands_on_its_own_level(gain_db: float) -> None:
    alone = log_mel_of(music(6))
    behind = log_mel_of(np.concatenate([10 ** (gain_db / 20) * hum(8), music(6)], axis=1))[:, -100:]
    torch.testing.assert_close(behind, alone[:, -100:], atol=0.3, rtol=0)
    assert sounding_frames(log_mel_of(10 ** (gain_db / 20) * hum(8))).sum() == 0


@pytest.mark.parametrize("seconds", [0.5, 1.5, 2, 2.9])
@pytest.mark.parametrize("is_beside_music", [False, True])
def test_no_short_tone_moves_the_level(seconds: float, is_beside_music: bool) -> None:
    """As a horn, a telephone or a signal before a song or over it, 14 dB louder than all else."""
    song, n = np.tile(music(6), 5), round(seconds * SAMPLE_RATE)
    tone = 0.5 * np.sin(2 * np.pi * 1_000 * np.arange(n) / SAMPLE_RATE) * np.ones((2, 1))
    if is_beside_music:
        changed = song.copy()
        changed[:, 5 * SAMPLE_RATE :][:, :n] += tone
    else:
        changed = np.concatenate([tone, song], axis=1)
    difference = log_mel_of(changed)[:, -100:] - log_mel_of(song)[:, -100:]
    assert difference[20:100].median().abs() < (PEAKS_DB + 0.1 if is_beside_music else 0.3)


def test_nor_is_a_click_in_it_nor_are_its_ends() -> None:
    waveform = hum(9)
    waveform[:, 4 * SAMPLE_RATE :][:, :500] += 0.5
    assert not sounding_frames(log_mel_of(waveform)).any()
    notes = [np.interp(np.arange(6 * SAMPLE_RATE) * pitch % (9 * SAMPLE_RATE), np.arange(9 * SAMPLE_RATE), hum(9)[0])
             for pitch in (1.0, 1.5, 1.2, 2.0, 1.0, 1.3)]  # fmt: skip
    assert not sounding_frames(log_mel_of(np.concatenate(notes)[None])).any()
    pause = np.zeros((2, 5 * SAMPLE_RATE))
    assert not sounding_frames(log_mel_of(np.concatenate(4 * [hum(6), pause], axis=1))).any()


def test_what_is_heard_beside_a_tone_is_music() -> None:
    quiet = 10 ** (-25 / 20) * music(8)
    assert sounding_frames(log_mel_of(quiet + 0.5 * hum(8, overtone_db=-60))).all()


def test_what_moves_is_no_steady_tone() -> None:
    """Notes, noise, speech-like pulses, music over hum, silence, and tones that are short."""
    noise = 0.1 * np.random.default_rng(0).standard_normal((2, 8 * SAMPLE_RATE))
    notes = hum(8) * np.repeat([1, 0.4, 1, 0.5], 2 * SAMPLE_RATE)
    for waveform in (
        music(8),
        noise,
        noise + 0.1 * hum(8),
        notes,
        music(8) + 0.2 * hum(8),
        hum(2.5),
        hum(1),
        0 * hum(4),
    ):
        assert not steady_frames(log_mel_of(waveform)).any()


def test_silence_is_floor() -> None:
    assert (LogMel()(torch.zeros(SAMPLE_RATE)) == FLOOR_DB).all()


@pytest.mark.skipif(not GTZAN_SAMPLE.is_dir(), reason="the sample of GTZAN is not on this machine")
def test_front_end_agrees_with_published_features() -> None:
    """The sample's features were recovered from plots; its README tells which frames of a hop of 512 they hold."""
    features = Features.load(GTZAN_SAMPLE / "logmel-train-valid.npz")
    row = {track: index for index, track in enumerate(features.track_id.tolist())}
    front_end = LogMel(hop_length=512)
    clips = sorted(GTZAN_SAMPLE.glob("audio/*/*.flac"))
    assert len(clips) == 79
    for path in clips:
        log_mel = front_end(torch.from_numpy(load_audio(path))).numpy()
        published = features.decibels(row[path.stem]).numpy()
        columns = np.arange(published.shape[1])
        log_mel = log_mel[:, np.round((columns + 1.6) / 723.8 * (log_mel.shape[1] - 1)).astype(int)]
        assert np.corrcoef(log_mel.ravel(), published.ravel())[0, 1] >= 0.99, path.stem
        stored = published > published.min()  # what lies deeper is not in the file
        assert np.abs(log_mel - published)[stored].mean() < 1.0, path.stem


@pytest.mark.skipif(not GTZAN_SAMPLE.is_dir(), reason="the sample of GTZAN is not on this machine")
def test_feature_file_of_the_sample_is_whole() -> None:
    features = Features.load(GTZAN_SAMPLE / "logmel-train-valid.npz")
    with (GTZAN_SAMPLE / "tracks.csv").open(encoding="utf-8") as file:
        listed = {row["track_id"] for row in csv.DictReader(file)}
    assert listed - set(features.track_id.tolist()) <= {"jazz.00054"}  # corrupt on most mirrors
    assert features.decibels(0).shape == (N_MELS, 722)


@pytest.mark.parametrize(
    ("n_frames", "expected"),
    [(10, [0]), (11, [0, 1]), (24, [0, 5, 10, 14]), (25, [0, 5, 10, 15]), (26, [0, 5, 10, 15, 16])],
)
def test_windows_cover_the_clip_and_end_with_it(n_frames: int, expected: list[int]) -> None:
    log_mel = torch.arange(n_frames).expand(N_MELS, -1)
    cut, starts = windows(log_mel, window_frames=10, hop_frames=5)
    assert starts == expected
    assert [row[0].tolist() for row in cut] == [list(range(start, start + 10)) for start in starts]
    assert cut[-1, 0, -1] == n_frames - 1


def test_short_clip_is_repeated_to_one_window() -> None:
    cut, starts = windows(torch.arange(4).expand(N_MELS, -1), window_frames=10, hop_frames=5)
    assert starts == [0]
    assert cut.shape == (1, N_MELS, 10)
    assert cut[0, 0].tolist() == [0, 1, 2, 3, 0, 1, 2, 3, 0, 1]


def test_repeat_to_cuts_what_is_longer() -> None:
    assert repeat_to(torch.arange(6), 4).tolist() == [0, 1, 2, 3]
