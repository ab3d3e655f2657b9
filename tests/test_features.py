"""The front end against librosa and against real GTZAN features; windows; the feature file."""

import csv
import io
import json
import re
import zipfile
from collections.abc import Callable
from pathlib import Path

import librosa
import numpy as np
import pytest
import torch

from crnn.audio import load_audio
from crnn.features import (
    FEATURE_SETTINGS,
    FLOOR_DB,
    FRAMES_PER_SECOND,
    HOP_LENGTH,
    N_FFT,
    N_MELS,
    PEAKS_DB,
    SAMPLE_RATE,
    DatasetError,
    Features,
    LogMel,
    repeat_to,
    sounding_frames,
    stand_on_level,
    steady_frames,
    windows,
    without_silence,
)

ARRAYS = ("logmel", "floor_db", "track_id", "n_frames")
TAKEN = "they are taken as made with today's settings."
GTZAN_SAMPLE = Path(__file__).parents[2] / "shared" / "gtzan"


def noise(seconds: float, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(0, 0.1, round(seconds * SAMPLE_RATE)).astype(np.float32)


def sweep(seconds: float) -> np.ndarray:
    return librosa.chirp(fmin=50, fmax=10_000, sr=SAMPLE_RATE, duration=seconds).astype(np.float32)


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


def hiss(seconds: float) -> np.ndarray:
    """What is left of a room where nobody plays, 50 dB below `music`: (2, samples)."""
    return 10 ** (-50 / 20) * 0.1 * np.random.default_rng(0).standard_normal((2, round(seconds * SAMPLE_RATE)))


def test_silences_are_no_part_of_the_music() -> None:
    song = music(4)
    log_mel = log_mel_of(np.concatenate([hiss(6), song, hiss(0.5), song, 0 * hiss(6)], axis=1))
    seconds = torch.arange(log_mel.shape[1]) / FRAMES_PER_SECOND
    expected = (seconds > 6.0) & (seconds < 14.5)  # the rest of half a second belongs to it
    assert (sounding_frames(log_mel) != expected).sum() <= 4
    assert not sounding_frames(log_mel_of(0 * song)).any()
    assert torch.equal(without_silence(log_mel), log_mel[:, sounding_frames(log_mel)])


@pytest.mark.parametrize(("seconds", "is_left_out"), [(0.5, False), (0.9, False), (2, True), (10, True)])
def test_rests_stay_and_of_longer_pauses_nothing(seconds: float, is_left_out: bool) -> None:
    log_mel = log_mel_of(np.concatenate([music(4), hiss(seconds), music(4)], axis=1))
    times = torch.arange(log_mel.shape[1]) / FRAMES_PER_SECOND
    pauses = (times > 4) & (times < 4 + seconds) & is_left_out
    assert (sounding_frames(log_mel) == pauses).sum() <= 3  # a frame lasts 93 ms
    assert sounding_frames(log_mel).sum() == pytest.approx(
        (2 * 4 + seconds * (not is_left_out)) * FRAMES_PER_SECOND, abs=4
    )


@pytest.mark.parametrize("seconds", [0.2, 0.5, 0.9, 2])
def test_nothing_stays_of_a_gap_in_the_recording(seconds: float) -> None:
    """However short it is: no recording of music is as silent."""
    gap = 0 * hiss(seconds)
    log_mel = without_silence(log_mel_of(np.concatenate([music(4), gap, music(4), gap, music(4)], axis=1)))
    assert log_mel[1:].amax(dim=0).min() > -45
    assert log_mel.shape[1] == pytest.approx(12 * FRAMES_PER_SECOND, abs=8)


@pytest.mark.parametrize(("seconds", "is_left_out"), [(0.4, False), (0.8, True)])
def test_less_than_half_a_second_of_silence_at_an_end_stays(seconds: float, is_left_out: bool) -> None:
    song, silence = music(4), hiss(seconds)
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


@pytest.fixture
def features() -> Features:
    front_end = LogMel()
    clips = [noise(1), noise(2.5, seed=1), sweep(2)]
    return Features.from_log_mels(
        [front_end(torch.from_numpy(clip)) for clip in clips], ["a/x.wav", "a/y.wav", "b/z.wav"]
    )


def test_feature_file_round_trip(features: Features, tmp_path: Path) -> None:
    features.save(tmp_path / "new" / "features.npz")
    loaded = Features.load(tmp_path / "new" / "features.npz")
    for name in ("logmel", "floor_db", "track_id", "n_frames"):
        np.testing.assert_array_equal(getattr(loaded, name), getattr(features, name))
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["features.npz"]


def test_quantisation_errs_by_half_a_step(features: Features) -> None:
    original = LogMel()(torch.from_numpy(noise(2.5, seed=1)))
    stored = features.decibels(1)
    assert stored.shape == original.shape
    assert (stored - original).abs().max() <= -FLOOR_DB / 255 / 2 + 1e-4


def test_an_old_file_stands_on_the_level_anew(features: Features, tmp_path: Path) -> None:
    """One that does not say how it was made, its zero somewhere else: told, and read as if made today."""
    lower = Features(features.logmel // 2, features.floor_db, features.track_id, features.n_frames)
    np.savez(tmp_path / "f.npz", **{name: getattr(lower, name) for name in ARRAYS})
    told = []
    loaded = Features.load(tmp_path / "f.npz", told.append)
    assert told == [f"{tmp_path / 'f.npz'} does not say how its log-mels were made; {TAKEN}"]
    for index in range(3):
        expected = stand_on_level(lower.decibels(index), FLOOR_DB)
        assert (loaded.decibels(index) - expected).abs().max() <= 0.16
        assert loaded.decibels(index)[1:].max() > -5


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({**FEATURE_SETTINGS, "hop_length": 512}, "hop_length 512, here 914"),
        ({**FEATURE_SETTINGS, "floor_db": -60.0}, "floor_db -60.0, here -80.0"),
        ({key: value for key, value in FEATURE_SETTINGS.items() if key != "reference"}, "reference None, here '95 %"),
        ([], "cannot be read"),
    ],
    ids=["hop", "floor", "reference", "none"],
)
def test_a_file_of_other_settings_is_refused(features: Features, tmp_path: Path, settings: object, words: str) -> None:
    arrays = {name: getattr(features, name) for name in ARRAYS}
    np.savez(tmp_path / "f.npz", **arrays, settings=json.dumps(settings))
    with pytest.raises(DatasetError, match=re.escape(words)):
        Features.load(tmp_path / "f.npz")


def test_file_without_lengths_has_equal_ones(features: Features, tmp_path: Path) -> None:
    np.savez(tmp_path / "f.npz", logmel=features.logmel, floor_db=features.floor_db, track_id=features.track_id)
    assert Features.load(tmp_path / "f.npz").n_frames.tolist() == [features.logmel.shape[2]] * 3


def test_select_keeps_rows_together(features: Features) -> None:
    selected = features.select(np.array([2, 0]))
    assert selected.track_id.tolist() == ["b/z.wav", "a/x.wav"]
    torch.testing.assert_close(selected.decibels(0), features.decibels(2))


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize(
    "change",
    [
        {"logmel": lambda f: f.logmel.astype(np.float32)},
        {"logmel": lambda f: f.logmel[:, :64]},
        {"logmel": lambda f: f.logmel[:2]},
        {"floor_db": lambda f: -f.floor_db},
        {"floor_db": lambda f: f.floor_db * np.nan},
        {"track_id": lambda f: np.array(["a/x.wav"] * 3)},
        {"track_id": lambda f: np.array([1, 2, 3])},
        {"n_frames": lambda f: f.n_frames * 0},
        {"n_frames": lambda f: f.n_frames + 1000},
        {"n_frames": lambda f: f.n_frames.astype(np.int64) + 2**32},
        {"n_frames": lambda f: f.n_frames * np.nan},
        {"floor_db": lambda f: f.floor_db.astype(np.float64) * 1e300},
    ],
)
def test_unusable_feature_file_is_refused(features: Features, change: dict, tmp_path: Path) -> None:
    arrays = {name: getattr(features, name) for name in ("logmel", "floor_db", "track_id", "n_frames")}
    arrays.update({name: make(features) for name, make in change.items()})
    np.savez(tmp_path / "f.npz", **arrays)
    with pytest.raises(DatasetError, match=r"f\.npz is not a usable feature file"):
        Features.load(tmp_path / "f.npz")


@pytest.mark.parametrize("content", [b"", b"not a zip", b"PK\x03\x04 cut short"])
def test_damaged_feature_file_is_refused(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "f.npz").write_bytes(content)
    with pytest.raises(DatasetError, match="not a feature file, or it is damaged"):
        Features.load(tmp_path / "f.npz")


@pytest.mark.parametrize(
    "change",
    [
        {"n_frames": np.array(["many"] * 3)},
        {"floor_db": np.array(["low"] * 3)},
        {"track_id": np.array("a/x.wav")},
        {"track_id": np.array([["a/x.wav"], ["a/y.wav"], ["b/z.wav"]])},
    ],
)
def test_arrays_of_another_kind_are_damage(features: Features, change: dict, tmp_path: Path) -> None:
    np.savez(tmp_path / "f.npz", **{name: getattr(features, name) for name in ARRAYS} | change)
    with pytest.raises(DatasetError, match="not a feature file, or it is damaged"):
        Features.load(tmp_path / "f.npz")


def test_flipped_bits_are_damage(features: Features, tmp_path: Path) -> None:
    features.save(tmp_path / "f.npz")
    content = bytearray((tmp_path / "f.npz").read_bytes())
    for place in range(40, 240):
        content[place] ^= 255
    (tmp_path / "f.npz").write_bytes(content)
    with pytest.raises(DatasetError, match="not a feature file, or it is damaged"):
        Features.load(tmp_path / "f.npz")


@pytest.mark.parametrize(("place", "sign"), [(b")", b"("), (b")", b"\xeb"), (b"}", b"{"), (b":", b"\0")])
def test_a_damaged_header_is_damage(features: Features, place: bytes, sign: bytes, tmp_path: Path) -> None:
    """Which NumPy reads as if it were a program, with the errors of one."""
    content = io.BytesIO()
    np.save(content, features.logmel)
    with zipfile.ZipFile(tmp_path / "f.npz", "w") as file:
        file.writestr("logmel.npy", content.getvalue().replace(place, sign, 1))
    with pytest.raises(DatasetError, match="not a feature file, or it is damaged"):
        Features.load(tmp_path / "f.npz")


def test_floors_of_double_precision_become_single(features: Features, tmp_path: Path) -> None:
    arrays = {name: getattr(features, name) for name in ARRAYS} | {"floor_db": features.floor_db.astype(np.float64)}
    np.savez(tmp_path / "f.npz", **arrays, settings=json.dumps(FEATURE_SETTINGS))
    assert Features.load(tmp_path / "f.npz").floor_db.dtype == np.float32


def test_feature_file_with_missing_array_or_pickle_is_refused(features: Features, tmp_path: Path) -> None:
    np.savez(tmp_path / "missing.npz", logmel=features.logmel)
    np.savez(tmp_path / "pickle.npz", logmel=np.array([{}]), floor_db=features.floor_db, track_id=features.track_id)
    np.save(tmp_path / "array.npy", features.logmel)
    for name in ("missing.npz", "pickle.npz", "array.npy"):
        with pytest.raises(DatasetError, match=re.escape(name)):
            Features.load(tmp_path / name)


def test_missing_feature_file() -> None:
    with pytest.raises(DatasetError, match=r"There is no feature file nowhere\.npz"):
        Features.load("nowhere.npz")
