"""The robustness benchmark: each degradation does what its name says, and a whole run gives tables and figures."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from benchmarks import robustness
from benchmarks.robustness import CONDITIONS, Answer, main, summarise
from crnn.audio import SAMPLE_RATE, load_audio
from crnn.checkpoint import save
from crnn.data.gtzan import FAULT_FILTERED
from crnn.data.names import genre_of
from crnn.network.model import CRNN

UNSPOKEN = [condition for condition in CONDITIONS if not condition.is_spoken]
TO_FILE = {condition.name: condition.to_file for condition in CONDITIONS}


def sine(hz: float, seconds: float = 3.0, peak: float = 0.3) -> np.ndarray:
    return (peak * np.sin(2 * np.pi * hz * np.arange(round(seconds * SAMPLE_RATE)) / SAMPLE_RATE)).astype(np.float32)


def through(name: str, waveform: np.ndarray) -> np.ndarray:
    """What the classifier hears under a condition, in its first channel."""
    return load_audio(TO_FILE[name](waveform))[0]


def db(waveform: np.ndarray) -> float:
    return 20 * np.log10(waveform.std() + 1e-12)


def pitch_hz(waveform: np.ndarray) -> float:
    return np.abs(np.fft.rfft(waveform)).argmax() * SAMPLE_RATE / len(waveform)


def test_clean_is_the_waveform_itself(tone: Callable[..., np.ndarray]) -> None:
    waveform = 4 * tone(2.0)  # beyond full scale at places
    np.testing.assert_array_equal(through("clean", waveform), waveform)


@pytest.mark.parametrize("condition", UNSPOKEN, ids=lambda condition: condition.name)
def test_conditions_are_pure_and_repeat(condition: robustness.Condition, tone: Callable[..., np.ndarray]) -> None:
    waveform = tone(2.0)
    before = waveform.copy()
    heard = load_audio(condition.to_file(waveform))
    np.testing.assert_array_equal(waveform, before)
    np.testing.assert_array_equal(load_audio(condition.to_file(waveform)), heard)
    if condition.name != "clean":
        assert heard.shape != (1, len(waveform)) or np.abs(heard - waveform).max() > 1e-3


@pytest.mark.parametrize(("name", "snr_db"), [("white noise, 20 dB", 20), ("white noise, 10 dB", 10)])
def test_white_noise_is_as_loud_as_it_says(name: str, snr_db: float) -> None:
    signal = sine(440)
    noise = through(name, signal) - signal
    assert db(signal) - db(noise) == pytest.approx(snr_db, abs=0.05)
    power = np.abs(np.fft.rfft(noise)) ** 2
    assert power[: len(power) // 2].mean() == pytest.approx(power[len(power) // 2 :].mean(), rel=0.1)


def test_pink_noise_has_as_much_in_every_octave() -> None:
    signal = sine(440)
    noise = through("pink noise, 10 dB", signal) - signal
    assert db(signal) - db(noise) == pytest.approx(10, abs=0.05)
    power, hz = np.abs(np.fft.rfft(noise)) ** 2, np.fft.rfftfreq(len(noise), 1 / SAMPLE_RATE)
    octaves = [power[(low <= hz) & (hz < 2 * low)].sum() for low in (100, 200, 400, 800, 1_600, 3_200)]
    assert max(octaves) < 1.5 * min(octaves)


@pytest.mark.parametrize(
    ("hz", "least", "most"), [(100, -200, -40), (500, -1, 0.5), (1_000, -1, 0.5), (3_000, -1, 0.5), (5_000, -200, -40)]
)
def test_the_phone_band(hz: float, least: float, most: float) -> None:
    middle = slice(SAMPLE_RATE, 2 * SAMPLE_RATE)  # the filter has settled
    change = db(through("phone band", sine(hz))[middle]) - db(sine(hz)[middle])
    assert least < change < most


def test_a_room_answers_for_as_long_as_it_says() -> None:
    click = np.zeros(2 * SAMPLE_RATE, np.float32)
    click[0] = 0.5
    response = through("room", click)
    assert response[0] == pytest.approx(0.5, abs=1e-4)  # the direct sound
    assert np.linalg.norm(response[1:]) == pytest.approx(0.5, rel=0.01)  # as much reverberation
    early, late = (response[round(at * SAMPLE_RATE) :][: SAMPLE_RATE // 20] for at in (0.05, 0.35))
    assert db(early) - db(late) == pytest.approx(60 * 0.3 / robustness.RT60, abs=2)


@pytest.mark.parametrize(("name", "seconds"), [("bump, 0.3 s", 0.3), ("click, 50 ms", 0.05)])
def test_a_knock_is_brief_and_loud(name: str, seconds: float) -> None:
    signal = sine(440)
    knock = through(name, signal) - signal
    sounds = np.abs(knock).nonzero()[0]
    assert len(knock[sounds[0] : sounds[-1]]) / SAMPLE_RATE == pytest.approx(seconds, rel=0.02)
    assert db(knock[sounds[0] : sounds[-1]]) - db(signal) == pytest.approx(20, abs=0.5)


@pytest.mark.parametrize(
    ("name", "n_channels", "inverted"), [("right inverted", 2, [1]), ("rear inverted, 5.1", 6, [4, 5])]
)
def test_channels_cancel_each_other(name: str, n_channels: int, inverted: list[int]) -> None:
    signal = sine(440)
    heard = load_audio(TO_FILE[name](signal))
    assert len(heard) == n_channels
    np.testing.assert_array_equal(heard[0], signal)
    for channel in inverted:
        np.testing.assert_array_equal(heard[channel], -signal)
    np.testing.assert_allclose(heard.sum(axis=0), 0, atol=1e-6)


@pytest.mark.parametrize(("name", "seconds"), [("right 0.5 ms late", 0.0005), ("right 10 ms late", 0.01)])
def test_one_channel_is_late(name: str, seconds: float, tone: Callable[..., np.ndarray]) -> None:
    left, right = load_audio(TO_FILE[name](tone(2.0)))
    n_samples = round(seconds * SAMPLE_RATE)
    np.testing.assert_array_equal(right[n_samples:], left[:-n_samples])
    assert not right[:n_samples].any()


@pytest.mark.parametrize(("name", "seconds"), [("cut 10 ms later", 0.01), ("cut 30 ms later", 0.03)])
def test_a_cut_takes_the_beginning_alone(name: str, seconds: float) -> None:
    np.testing.assert_array_equal(through(name, sine(440)), sine(440)[round(seconds * SAMPLE_RATE) :])


def test_levels_are_what_their_names_say() -> None:
    signal = sine(440)
    assert 20 * np.log10(np.abs(through("peaks at -50 dBFS", signal)).max()) == pytest.approx(-50, abs=0.01)
    assert through("DC of half scale", signal).mean() == pytest.approx(0.5, abs=1e-3)
    heard = through("hiss first", signal)
    assert len(heard) - len(signal) == 120 * SAMPLE_RATE
    assert db(heard[: -len(signal)]) == pytest.approx(-50, abs=0.05)
    assert np.abs(heard[-len(signal) :]).max() == pytest.approx(10 ** (-6 / 20), rel=0.01)
    shaken = through("rumble at 12 Hz", signal)
    assert np.abs(shaken - signal * np.float32(0.5 / 0.3)).max() == pytest.approx(0.5, rel=0.01)
    assert pitch_hz(shaken - signal * np.float32(0.5 / 0.3)) == pytest.approx(12, abs=0.5)
    silent = through("silence about it", signal)
    assert np.mean(silent == 0) == pytest.approx(0.5, abs=0.01)


@pytest.mark.parametrize("name", ["mp3, 32 kbit/s", "opus, 32 kbit/s"])
def test_codecs_are_small_and_keep_duration_and_pitch(name: str, tone: Callable[..., np.ndarray]) -> None:
    waveform = tone(5.0)
    file = TO_FILE[name](waveform)
    heard = load_audio(file)[0]
    assert 0.5 * 32_000 * 5 / 8 < len(file) < 1.5 * 32_000 * 5 / 8 < len(TO_FILE["clean"](waveform)) / 10
    assert len(heard) / SAMPLE_RATE == pytest.approx(5.0, abs=0.1)
    assert pitch_hz(through(name, sine(1_000))) == pytest.approx(1_000, abs=1)


@pytest.mark.parametrize(("name", "change_db"), [("gain +12 dB", 12), ("gain -12 dB", -12)])
def test_gain_changes_nothing_but_the_level(name: str, change_db: float, tone: Callable[..., np.ndarray]) -> None:
    waveform = 3 * tone(2.0)
    np.testing.assert_allclose(through(name, waveform), waveform * 10 ** (change_db / 20), rtol=1e-5)


def test_clipping_clips_at_full_scale_whatever_the_level() -> None:
    heard = through("clipping, 12 dB", sine(440, peak=0.05))
    assert np.abs(heard).max() == 1
    assert np.mean(np.abs(heard) == 1) == pytest.approx(1 - 2 / np.pi * np.arcsin(10 ** (-12 / 20)), abs=0.02)
    np.testing.assert_allclose(through("clipping, 12 dB", sine(440, peak=0.8)), heard, atol=1e-5)


@pytest.mark.parametrize(("name", "factor"), [("speed +5 %", 1.05), ("speed -5 %", 0.95)])
def test_speed_changes_pitch_and_duration(name: str, factor: float) -> None:
    heard = through(name, sine(1_000, seconds=4))
    assert len(heard) / SAMPLE_RATE == pytest.approx(4 / factor, abs=0.001)
    assert pitch_hz(heard) == pytest.approx(1_000 * factor, abs=1)


def test_clicks_are_short_and_as_many_as_it_says() -> None:
    crackle = through("crackle", sine(440)) - sine(440, peak=1)
    starts = np.diff((np.abs(crackle) > 0.01).astype(int), prepend=0) == 1
    assert 50 < starts.sum() <= 60  # some are soft, or fall on others
    assert 0.001 < np.mean(np.abs(crackle) > 0.01) < 0.02


def test_automatic_gain_makes_soft_as_loud_as_loud() -> None:
    signal = sine(440) * np.repeat(np.float32([1, 0.1, 1]), SAMPLE_RATE)
    heard = through("automatic gain", signal)
    loud, soft = (db(heard[at : at + SAMPLE_RATE // 2]) for at in (SAMPLE_RATE // 2, 3 * SAMPLE_RATE // 2))
    assert loud == pytest.approx(soft, abs=0.5)


def test_a_swell_reaches_silence_and_full_level_three_times_a_second() -> None:
    heard = np.abs(through("swelling, 3 Hz", sine(440)))
    for third in range(6):
        silent, full = (round((third + share) * SAMPLE_RATE / 3) for share in (0, 0.5))
        assert heard[silent:][:50].max() < 1e-3
        assert heard[full - 50 : full + 50].max() == pytest.approx(0.3, rel=0.01)


def test_what_is_over_a_sound_is_as_loud_as_it_says() -> None:
    signal = sine(440)
    assert db(signal) - db(through("crowd, 6 dB below", signal) - signal) == pytest.approx(6, abs=0.1)
    short = robustness.under(signal, signal[:1000], 20) - signal
    np.testing.assert_allclose(short[1000:2000], short[:1000], atol=1e-6)


def test_sounds_are_finite_and_alike_in_level() -> None:
    for name, waveforms in robustness.sounds(seconds=2).items():
        for waveform in waveforms:
            assert waveform.dtype == np.float32
            assert len(waveform) == 2 * SAMPLE_RATE
            assert name == "silence" or waveform.std() == pytest.approx(robustness.SOUND_RMS, rel=0.3)
        assert len({waveform.tobytes() for waveform in waveforms}) == len(waveforms)


def test_figures_are_paired() -> None:
    genres = ["rock", "rock", "jazz", "jazz"]
    unsure, silent = Answer("unsure", "jazz", 0.4), Answer("no music", None, 0.0)
    clean = [Answer("rock", "rock", 0.9), unsure, Answer("jazz", "jazz", 0.9), silent]
    worse = [Answer("jazz", "jazz", 0.9), unsure, Answer("jazz", "jazz", 0.8), silent]
    assert summarise(genres, clean, clean) == {
        "accuracy": 0.5,
        "change": 0.0,
        "change_error": 0.0,
        "agreement": 1.0,
        "same_verdict": 1.0,
        "answered": 0.5,
        "right_of_answered": 1.0,
    }
    figures = summarise(genres, worse, clean)
    assert (figures["accuracy"], figures["change"], figures["agreement"]) == (0.25, -0.25, 0.75)
    assert figures["same_verdict"] == 0.75
    assert summarise(genres, [Answer("unsure", "rock", 0.4), *clean[1:]], clean)["same_verdict"] == 0.75
    assert figures["change_error"] == pytest.approx(np.std([-1, 0, 0, 0]) / 2)
    assert figures["right_of_answered"] == 0.5
    assert summarise(genres[1:2], clean[1:2], clean[1:2])["right_of_answered"] is None


@pytest.fixture
def model(tiny_model: CRNN, tmp_path: Path) -> Path:
    save(tiny_model, tmp_path / "model", card="")
    return tmp_path / "model"


@pytest.fixture
def clips(tmp_path: Path, tone: Callable[..., np.ndarray], write_wav: Callable[[Path, np.ndarray], Path]) -> Path:
    """Two validation clips of rock and of jazz, and one for training."""
    members = [
        track
        for part, n in (("valid", 2), ("train", 1))
        for genre in ("rock", "jazz")
        for track in [track for track in FAULT_FILTERED[part] if genre_of(track) == genre][:n]
    ]
    for hz, track in zip((110, 220, 440, 880, 1_760), members, strict=False):
        path = tmp_path / "audio" / genre_of(track) / f"{track}.wav"
        path.parent.mkdir(parents=True, exist_ok=True)
        write_wav(path, tone(2.0, hz))
    return tmp_path / "audio"


def test_a_whole_run(
    model: Path, clips: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("PATH", "")  # no espeak-ng
    monkeypatch.setattr(robustness, "speeches", robustness.speeches.__wrapped__)
    monkeypatch.setattr(robustness, "SOUND_SECONDS", (1, 2))
    outputs = []
    for name in ("first.json", "second.json"):
        assert main(["--data", str(clips), "--model", str(model), "--json", str(tmp_path / name)]) == 0
        outputs.append(capsys.readouterr().out)
    assert outputs[0] == outputs[1]
    assert (tmp_path / "first.json").read_text() == (tmp_path / "second.json").read_text()
    figures = json.loads((tmp_path / "first.json").read_text())
    assert (figures["split"], figures["n"]) == ("valid", 4)
    assert list(figures["conditions"]) == [condition.name for condition in UNSPOKEN]
    assert figures["conditions"]["clean"]["change"] == 0
    assert figures["no_music"]["silence"] == {"verdicts": {"no music": 4}, "highest_probability": 0}
    assert figures["no_music"]["speech"] == {"verdicts": {}, "highest_probability": None}
    lines = outputs[0].splitlines()
    for name in (*TO_FILE, *figures["no_music"]):
        assert sum(line.startswith(f"{name}  ") for line in lines) == 1
    assert sum("skipped: espeak-ng" in line for line in lines) == 4
    assert lines[-1].startswith("Worst fall: ")


def test_faults_are_one_sentence_and_status_2(
    model: Path, clips: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = str(clips)
    for argv, message in (
        (["--data", str(tmp_path / "nowhere"), "--model", str(model)], "There is no folder"),
        (["--data", folder, "--model", str(model), "--split", "test"], "has no clips of the test part"),
        (["--data", folder, "--model", str(tmp_path / "none")], "robustness.py: "),
    ):
        assert main(argv) == 2
        out, err = capsys.readouterr()
        assert out == ""
        assert message in err
        assert len(err.splitlines()) == 1
