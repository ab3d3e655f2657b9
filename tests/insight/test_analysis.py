"""Audio features of sounds whose features are known, and their figures."""

import subprocess
import sys
import warnings
from xml.etree import ElementTree

import numpy as np
import pytest

from crnn import plots
from crnn.audio import SAMPLE_RATE
from crnn.insight import analysis
from crnn.insight.analysis import FINE_FRAMES_PER_SECOND, PITCH_CLASSES, Waveform

pytestmark = pytest.mark.usefixtures("compiled")

A4_HZ = 440.0
RNG = np.random.default_rng(0)


def sine(hz, seconds=3.0, peak=0.5):
    return (peak * np.sin(2 * np.pi * hz * np.arange(round(seconds * SAMPLE_RATE)) / SAMPLE_RATE)).astype(np.float32)


def noise(seconds=20.0):
    return 0.1 * RNG.standard_normal(round(seconds * SAMPLE_RATE)).astype(np.float32)


def click_track(bpm, seconds=20.0):
    """Short tones at `bpm`, the first after 0.3 s, and when they begin."""
    starts = np.arange(0.3, seconds - 0.1, 60 / bpm)
    waveform = np.zeros(round(seconds * SAMPLE_RATE), np.float32)
    click = np.exp(-np.arange(600) / 100) * sine(1_500, 600 / SAMPLE_RATE)
    for start in np.round(starts * SAMPLE_RATE).astype(int):
        waveform[start : start + 600] += click
    return waveform, starts


def one_click(seconds):
    waveform = np.zeros(round(seconds * SAMPLE_RATE), np.float32)
    waveform[len(waveform) // 2] = 1.0
    return waveform


def texts(figure):
    svg = ElementTree.fromstring(plots.to_svg(figure, ""))
    return [text.text for text in svg.iter("{http://www.w3.org/2000/svg}text")]


@pytest.mark.parametrize("dbfs", [0.0, -20.0, -50.0, -85.0])
def test_level_of_a_sine_is_that_of_its_peak(dbfs):
    level = analysis.loudness(Waveform(sine(1_000, peak=10 ** (dbfs / 20)))).dbfs
    assert level[3:-3] == pytest.approx(dbfs, abs=0.01)


def test_level_of_silence_is_the_lowest():
    assert set(analysis.loudness(Waveform(np.zeros(SAMPLE_RATE))).dbfs) == {analysis.LOWEST_DBFS}


@pytest.mark.parametrize("seconds", [1.0, 60.0])
def test_power_agrees_with_librosa(seconds):
    import librosa

    waveform = noise(seconds)
    expected = np.abs(librosa.stft(waveform, n_fft=analysis.N_FFT, hop_length=analysis.FINE_HOP_LENGTH)) ** 2
    assert np.allclose(Waveform(waveform).power, expected, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("number", range(12))
def test_chroma_names_the_note(number):
    hz = A4_HZ * 2 ** ((number - PITCH_CLASSES.index("A")) / 12)
    chroma = analysis.chroma(Waveform(sine(hz))).values
    assert chroma.shape == (12, 1 + 3 * SAMPLE_RATE // analysis.FINE_HOP_LENGTH)
    assert set(chroma.argmax(axis=0)) == {number}
    assert chroma.max() == pytest.approx(1.0)


def test_beats_agree_with_librosa():
    import librosa

    waveform, _ = click_track(112.0, 150.0)
    onsets = librosa.onset.onset_strength(y=waveform, sr=SAMPLE_RATE)
    _, frames = librosa.beat.beat_track(onset_envelope=onsets, sr=SAMPLE_RATE)
    beats = analysis.beats(Waveform(waveform))
    assert beats.onset_strength == pytest.approx(onsets, abs=1e-2)
    assert beats.times_seconds == pytest.approx(frames / FINE_FRAMES_PER_SECOND)


@pytest.mark.parametrize("bpm", [97.0, 120.0, 132.0])
def test_beats_of_a_click_track(bpm):
    waveform, starts = click_track(bpm)
    beats = analysis.beats(Waveform(waveform))
    assert beats.bpm == pytest.approx(bpm, rel=0.01)
    nearest = np.abs(beats.times_seconds[:, None] - starts).min(axis=1)
    assert nearest.max() < 0.05
    assert len(beats.times_seconds) >= len(starts) - 2


@pytest.mark.parametrize("bpm", [25.0, 30.0])
def test_a_slow_pulse_of_short_sounds_is_no_row_of_rests(bpm):
    waveform, starts = click_track(bpm, 60.0)
    beats = analysis.beats(Waveform(waveform))
    assert beats.bpm == pytest.approx(bpm, rel=0.001)
    assert len(beats.times_seconds) >= len(starts) - 2
    _, *tempos = plots.FEATURES[1].figure(beats).axes[1].lines
    assert len(tempos) == 1


@pytest.mark.parametrize("rest_seconds", [3.0, 20.0])
def test_no_beat_is_in_a_long_silence_nor_counted_through_it(rest_seconds):
    clicks, _ = click_track(120.0, 10.0)
    waveform = np.concatenate([clicks, np.zeros(round(rest_seconds * SAMPLE_RATE), np.float32), clicks])
    beats = analysis.beats(Waveform(waveform))
    assert beats.bpm == pytest.approx(120.0, rel=0.01)
    assert len(beats.times_seconds) > 30
    assert not ((beats.times_seconds > 10.5) & (beats.times_seconds < 9.5 + rest_seconds)).any()
    _, *tempos = plots.FEATURES[1].figure(beats).axes[1].lines
    assert [line.get_xdata().mean() for line in tempos] == pytest.approx([5.0, 15.0 + rest_seconds], abs=0.5)
    assert all(line.get_ydata() == pytest.approx(120.0, rel=0.05) for line in tempos)


def test_a_fast_tempo_may_be_heard_at_half():
    assert analysis.beats(Waveform(click_track(180.0)[0])).bpm == pytest.approx(90.0, rel=0.01)


@pytest.mark.parametrize(
    "waveform",
    [sine(A4_HZ, 20.0), noise(20.0), noise(3.0), noise(1.0), np.zeros(5 * SAMPLE_RATE), one_click(20.0)],
    ids=["tone", "noise", "short noise", "a second of noise", "silence", "one click"],
)
def test_there_is_no_beat_where_nothing_repeats(waveform):
    beats = analysis.beats(Waveform(waveform))
    assert beats.bpm is None
    assert beats.times_seconds.size == 0
    assert "no steady beat" in texts(plots.FEATURES[1].figure(beats))


def test_pulse_clarity_is_that_of_the_period():
    pulses = np.tile([1.0, *[0.0] * 19], 50)
    assert analysis.pulse_clarity(pulses, 20) > 0.9
    assert analysis.pulse_clarity(pulses, 10) < 0.1
    assert analysis.pulse_clarity(np.zeros(100), 20) == 0.0


@pytest.mark.parametrize("hz", [A4_HZ, 3_000.0])
def test_centroid_of_a_tone_is_its_frequency(hz):
    centroid = analysis.spectral_centroid(Waveform(sine(hz))).values
    assert centroid.compressed()[3:-3] == pytest.approx(hz, rel=0.01)


def test_centroid_of_white_noise_is_in_the_middle():
    assert analysis.spectral_centroid(Waveform(noise())).values.mean() == pytest.approx(SAMPLE_RATE / 4, rel=0.01)


def test_contrast_tells_tones_from_noise():
    contrast_of_tone = analysis.spectral_contrast(Waveform(sine(1_000) + 1e-3 * noise(3.0))).values.mean(axis=1)
    contrast_of_noise = analysis.spectral_contrast(Waveform(noise(3.0))).values.mean(axis=1)
    assert contrast_of_tone.argmax() == 3  # 800 to 1600 Hz
    assert contrast_of_noise.shape == (7,)
    assert contrast_of_tone[3] > contrast_of_noise.max() + 20


def test_mfcc_agree_with_librosa():
    import librosa

    waveform = noise(2.0)
    expected = librosa.feature.mfcc(y=waveform, sr=SAMPLE_RATE, n_mfcc=13)
    assert np.asarray(analysis.mfcc(Waveform(waveform)).values) == pytest.approx(expected, abs=1e-2)


def test_features_of_silence_are_masked():
    half_silent = np.concatenate([sine(A4_HZ), np.zeros(3 * SAMPLE_RATE, np.float32)])
    for compute in (analysis.chroma, analysis.mfcc, analysis.spectral_centroid, analysis.spectral_contrast):
        mask = np.atleast_2d(np.ma.getmaskarray(compute(Waveform(half_silent)).values))
        assert not mask[:, : round(2.9 * FINE_FRAMES_PER_SECOND)].any()
        assert mask[:, round(3.1 * FINE_FRAMES_PER_SECOND) :].all()


def test_silence_is_what_is_far_below_the_song_itself():
    fading = np.geomspace(0.5, 1e-4, 5 * SAMPLE_RATE) * sine(A4_HZ, 5.0, peak=1.0)
    loud, quiet = (Waveform(gain * fading).silent for gain in (1.0, 0.1))
    assert loud.tolist() == sorted(loud.tolist())
    assert 0.1 < loud.mean() < 0.5
    assert quiet.tolist() == loud.tolist()
    assert not Waveform(sine(A4_HZ, peak=10 ** (-75 / 20))).silent.any()
    assert Waveform(1e-5 * noise()).silent.all()


@pytest.mark.parametrize("feature", plots.FEATURES, ids=lambda feature: feature.title)
@pytest.mark.parametrize(
    "sound",
    [
        Waveform(np.zeros(SAMPLE_RATE)),
        Waveform(one_click(1.0)),
        Waveform(one_click(5.0)),
        Waveform(noise(1.0)),
        Waveform(click_track(120.0)[0]),
        Waveform(sine(A4_HZ)),
        Waveform(noise(90.0)),
    ],
    ids=["silence", "short click", "click", "short noise", "beat", "tone", "long noise"],
)
def test_figures_of_any_sound(feature, sound):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        figure = feature.figure(feature.compute(sound))
        svg = plots.to_svg(figure, feature.title)
    assert len(svg) < 300_000
    assert {"seconds", "minutes:seconds"} & set(texts(figure))
    for axes in figure.axes:
        for line in axes.lines:
            assert np.isfinite(np.ma.compressed(line.get_ydata())).all()
        for image in axes.images:
            assert np.isfinite(np.ma.compressed(image.get_array())).all()
            assert image.get_array().shape[1] <= 720


def test_figures_share_their_time_axis():
    sound = Waveform(click_track(120.0)[0])
    places = {
        (axes.get_position().x0, axes.get_position().x1, axes.get_xlim())
        for feature in plots.FEATURES
        for axes in feature.figure(feature.compute(sound)).axes
        if axes.get_xlim()[1] == sound.duration_seconds
    }
    assert len(places) == 1


def test_chroma_figure_shows_the_note_in_its_row():
    feature = next(feature for feature in plots.FEATURES if feature.title == "Chroma")
    figure = feature.figure(feature.compute(Waveform(sine(A4_HZ))))
    row = figure.axes[0].images[0].get_array().mean(axis=1).argmax()
    ticks = {label.get_text(): tick for tick, label in zip(*plots_ticks(figure.axes[0]), strict=True)}
    assert ticks["A"] == row


def plots_ticks(axes):
    return axes.get_yticks(), axes.get_yticklabels()


def test_beats_are_marked_where_they_are():
    beats = analysis.beats(Waveform(click_track(120.0)[0]))
    axes = plots.FEATURES[1].figure(beats).axes[0]
    marks = next(marks for marks in axes.collections if marks.get_label() == "beat")
    assert [segment[0, 0] for segment in marks.get_segments()] == pytest.approx(beats.times_seconds)


def test_meanings_are_whole_sentences():
    assert all(feature.meaning.endswith(".") for feature in plots.FEATURES)


def test_import_does_not_load_librosa():
    """It takes seconds; the page must not wait for it."""
    script = "import sys, crnn.plots; sys.exit(any(name in sys.modules for name in ('librosa', 'numba')))"
    subprocess.run([sys.executable, "-c", script], check=True)
