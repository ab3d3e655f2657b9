"""The figures of a song: what they are of, in their order, and that no name can become part of their markup."""

import re
from collections.abc import Callable, Iterator
from dataclasses import replace
from html import unescape
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from markup import HOSTILE, Shape, words
from matplotlib.figure import Figure

from crnn import plots
from crnn.audio import MAX_SECONDS, SAMPLE_RATE, load_audio, open_audio
from crnn.features import FRAMES_PER_SECOND, HOP_LENGTH
from crnn.inference import GenreClassifier
from crnn.insight.analysis import Waveform
from crnn.network.model import CRNN
from crnn.sources import Origin
from crnn.web import figures
from crnn.web.figures import _sounding, figure, in_columns, inside_figures, sound_figures

WriteWav = Callable[[Path, np.ndarray], Path]


def pulses(n_samples: int) -> np.ndarray:
    """A tone (samples,) that swells and fades some times a second: one that stays as it is would be no music."""
    n = np.arange(n_samples)
    return np.sin(n / 8) * (0.6 + 0.4 * np.sin(n / 1_000))


def drawing(text: str) -> Figure:
    """A figure with a word in it."""
    figure = Figure(figsize=(1, 1))
    figure.text(0, 0, text, parse_math=False)
    return figure


def test_audio_features_of_a_long_song_are_said_to_be_of_its_start(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plots, "FEATURES", ())
    for seconds, said in ((MAX_SECONDS - 1, []), (MAX_SECONDS, ["Of this long song, these are the first 15 minutes."])):
        monkeypatch.setattr(
            figures, "load_audio", lambda *_, n=seconds, **__: np.zeros((1, n * SAMPLE_RATE), np.float32)
        )
        assert [words(html) for html in sound_figures("a.mp3")] == said


@pytest.mark.parametrize("name", HOSTILE)
def test_no_word_in_a_picture_becomes_markup(name: str) -> None:
    hostile, harmless = (Shape(figure("A title", "What it means.", drawing(word))) for word in (name, "blues"))
    assert hostile.elements == harmless.elements
    assert name in "".join(hostile.texts)
    assert not [value for value in hostile.values if name in value]


def test_no_genre_becomes_markup_in_a_picture(
    tiny_model: CRNN, monkeypatch: pytest.MonkeyPatch, write_wav: WriteWav, tmp_path: Path
) -> None:
    monkeypatch.setattr(plots, "STEPS", plots.STEPS[-1:])  # the answer, where the names are
    song = write_wav(tmp_path / "song.wav", 0.5 * pulses(3 * SAMPLE_RATE))

    def picture(first: str) -> Shape:
        model = CRNN(replace(tiny_model.config, genres=(first, "b", "c"))).eval()
        model.load_state_dict(tiny_model.state_dict())
        prediction = GenreClassifier(model, Origin("tiny")).predict(song)
        [html] = inside_figures(model, song, prediction, prediction.log_mel)
        return Shape(html)

    harmless = {element[0] for element in picture("a").elements}
    for name in HOSTILE:
        hostile = picture(name)
        assert {element[0] for element in hostile.elements} == harmless
        assert name[:6] in "".join(hostile.texts)
        assert not [value for value in hostile.values if name[:6] in value]


def test_a_figure_has_its_title_its_meaning_and_what_saves_it() -> None:
    html = figure('A "title" & <more>', "What it means.", drawing("words"), "<b>5</b>")
    shape = Shape(html)
    said = "".join(shape.texts)
    assert all(part in said for part in ('A "title" & <more>', "What it means.", "5", "words"))
    assert html.count("<svg") == html.count("<figure") == 1
    svg = re.search(r"<svg[^>]*>", html)[0]
    assert 'data-say-label="A &quot;title&quot; &amp; &lt;more&gt;"' in svg
    assert re.findall(r'data-save="(\w+)"', html) == ["svg", "png"]


def test_a_title_cannot_break_its_figure() -> None:
    assert Shape(figure(HOSTILE[2], "", drawing(""))).elements == Shape(figure("A", "", drawing(""))).elements


def test_figures_of_the_sound_come_one_after_another_as_they_are_computed(
    monkeypatch: pytest.MonkeyPatch, write_wav: WriteWav, tmp_path: Path
) -> None:
    computed = []

    def feature(key: str) -> plots.Feature:
        def compute(sound: object) -> str:
            computed.append(key)
            return key

        return plots.Feature(f"Title {key}", "What it means.", compute, drawing)

    monkeypatch.setattr(plots, "FEATURES", tuple(feature(key) for key in "abc"))
    figures = sound_figures(write_wav(tmp_path / "song.wav", np.zeros(SAMPLE_RATE)))
    assert computed == []
    for number, key in enumerate("abc", start=1):
        assert f"Title {key}" in words(next(figures))
        assert computed == list("abc"[:number])
    assert list(figures) == []


def titles(parts: Iterator[str]) -> list[str]:
    """What figures are called, by their pictures' labels."""
    return [unescape(re.search(r'<svg data-say-label="([^"]*)"', html)[1]) for html in parts]


@pytest.mark.usefixtures("compiled")
def test_every_audio_feature_has_its_figure(write_wav: WriteWav, tmp_path: Path) -> None:
    seconds = np.arange(2 * SAMPLE_RATE) / SAMPLE_RATE
    pulses = 0.3 * np.sin(2 * np.pi * 440 * seconds) * (seconds % 0.5 < 0.1)
    assert titles(sound_figures(write_wav(tmp_path / "song.wav", pulses))) == [
        feature.title for feature in plots.FEATURES
    ]


@pytest.mark.parametrize("sound", ["music", "with silences", "short"])
def test_every_step_of_the_inside_has_its_figure(
    tiny_model: CRNN, sound: str, write_wav: WriteWav, tmp_path: Path
) -> None:
    waveform = 0.5 * pulses((1 if sound == "short" else 9) * SAMPLE_RATE)
    if sound == "with silences":
        waveform[: 3 * SAMPLE_RATE] = waveform[5 * SAMPLE_RATE : 8 * SAMPLE_RATE] = 0
    song = write_wav(tmp_path / "song.wav", waveform)
    prediction = GenreClassifier(tiny_model, Origin("tiny")).predict(song)
    assert prediction.sounds.all() == (sound != "with silences")
    figures = [*inside_figures(tiny_model, song, prediction, prediction.log_mel)]
    if sound == "short":
        assert "this sound is shorter and is repeated" in words(figures.pop(0))
    assert titles(figures) == [step.title for step in plots.STEPS]


def test_the_inside_is_that_of_the_strongest_window_and_drawn_step_by_step(
    tiny_model: CRNN, monkeypatch: pytest.MonkeyPatch, write_wav: WriteWav, tmp_path: Path
) -> None:
    ways = []

    def step(key: str) -> plots.Step:
        def figure(way: object) -> Figure:
            ways.append(way)
            return drawing(key)

        return plots.Step(f"Title {key}", "What it means.", figure)

    monkeypatch.setattr(plots, "STEPS", tuple(step(key) for key in "ab"))
    seconds = np.arange(9 * SAMPLE_RATE) / SAMPLE_RATE
    song = write_wav(tmp_path / "song.wav", 0.3 * np.sin(2 * np.pi * 200 * seconds * (1 + seconds)))
    prediction = GenreClassifier(tiny_model, Origin("tiny")).predict(song)
    figures = inside_figures(tiny_model, song, prediction, prediction.log_mel)
    assert "Title a" in words(next(figures))
    assert len(ways) == 1
    strongest = prediction.timeline[:, prediction.genres.index(next(iter(prediction.probabilities)))].argmax()
    assert ways[0].start_seconds == pytest.approx(prediction.starts_seconds[strongest], abs=1e-6)
    # The timeline's convolutions ran over the whole song, those of the figures over the window alone: at its edges they
    # hear padding in place of its neighbours. Other windows are further off.
    np.testing.assert_allclose(ways[0].probabilities, prediction.timeline[strongest], atol=1e-3)
    assert np.abs(prediction.timeline - prediction.timeline[strongest]).max() > 5e-3
    window = prediction.log_mel[:, round(prediction.starts_seconds[strongest] * FRAMES_PER_SECOND) :][:, :48]
    with torch.no_grad():
        alone = tiny_model(torch.from_numpy(window)[None]).softmax(dim=1)[0]
    np.testing.assert_allclose(ways[0].probabilities, alone, atol=1e-5)
    assert titles(figures) == ["Title b"]
    assert ways[1] is ways[0]


def test_of_a_window_about_a_silence_the_sound_alone_is_read(
    tiny_model: CRNN, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tone = 0.3 * np.sin(np.arange(SAMPLE_RATE) / 8)
    waveform = np.concatenate([tone, np.zeros(20 * SAMPLE_RATE), tone])
    song = str(tmp_path / "song.wav")
    soundfile.write(song, np.stack(6 * [waveform], axis=1), SAMPLE_RATE)
    prediction = GenreClassifier(tiny_model, Origin("tiny")).predict(song)
    assert prediction.ends_seconds[0] - prediction.starts_seconds[0] > 20
    ways = []
    monkeypatch.setattr(figures, "trace", lambda *of: ways.append(of))
    monkeypatch.setattr(plots, "STEPS", ())
    [told] = inside_figures(tiny_model, song, prediction, prediction.log_mel)
    assert "A silence or steady tone in this part" in words(told)
    _, log_mel, passage, _ = ways[0]
    n_frames = tiny_model.config.window_frames
    assert log_mel.shape[1] == pytest.approx(n_frames, abs=1)
    assert passage.shape == (2, pytest.approx(n_frames * HOP_LENGTH, abs=2 * HOP_LENGTH))
    assert np.abs(passage).mean() > 0.08  # of the tones it is 0.19


def test_a_window_that_speaks_more_for_another_genre_than_the_answer_is_not_the_strongest(
    tiny_model: CRNN, write_wav: WriteWav, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    song = write_wav(tmp_path / "song.wav", 0.3 * pulses(5 * SAMPLE_RATE))
    prediction = GenreClassifier(tiny_model, Origin("tiny")).predict(song)
    answer = prediction.genres.index(next(iter(prediction.probabilities)))
    timeline = np.full_like(prediction.timeline, 0.2)
    timeline[1, answer], timeline[2, answer - 1] = 0.6, 0.9
    starts = []
    monkeypatch.setattr(figures, "trace", lambda *of: starts.append(of[3]))
    monkeypatch.setattr(plots, "STEPS", ())
    list(inside_figures(tiny_model, song, replace(prediction, timeline=timeline), prediction.log_mel))
    assert starts == pytest.approx(prediction.starts_seconds[1:2])


def test_the_last_window_is_as_long_as_the_others_and_nothing_of_it_is_repeated(
    tiny_model: CRNN, write_wav: WriteWav, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    n_frames = tiny_model.config.window_frames
    song = write_wav(tmp_path / "song.wav", 0.3 * pulses(round(1.5 * n_frames) * HOP_LENGTH))
    prediction = GenreClassifier(tiny_model, Origin("tiny")).predict(song)
    assert prediction.log_mel.shape[1] - round(prediction.starts_seconds[-1] * FRAMES_PER_SECOND) < n_frames
    timeline = np.full_like(prediction.timeline, 0.2)
    timeline[-1] = 0.6
    ways = []
    monkeypatch.setattr(figures, "trace", lambda *of: ways.append(of))
    monkeypatch.setattr(plots, "STEPS", ())
    heard = replace(prediction, timeline=timeline)
    assert list(inside_figures(tiny_model, song, heard, prediction.log_mel)) == []
    _, log_mel, passage, start_seconds = ways[0]
    np.testing.assert_array_equal(log_mel, prediction.log_mel[:, -n_frames:])
    assert start_seconds * FRAMES_PER_SECOND == pytest.approx(prediction.log_mel.shape[1] - n_frames)
    assert passage.shape[1] == pytest.approx(n_frames * HOP_LENGTH, abs=HOP_LENGTH)


def test_of_many_channels_two_are_drawn(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []
    monkeypatch.setattr(figures, "Waveform", lambda waveform: seen.append(waveform) or Waveform(waveform))
    song = str(tmp_path / "song.wav")
    soundfile.write(song, np.random.default_rng(0).normal(0, 0.1, (2 * SAMPLE_RATE, 6)), SAMPLE_RATE)
    next(sound_figures(song))
    assert seen[0].shape[0] == 2


def test_figures_keep_their_order() -> None:
    assert in_columns(["<i>1</i>", "<i>2</i>"]) == '<div class="figures"><i>1</i><i>2</i></div>'


def test_a_window_about_no_silence_comes_first_however_strong_others_are(
    tiny_model: CRNN, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tone = 0.3 * pulses(4 * SAMPLE_RATE)
    song = str(tmp_path / "song.wav")
    soundfile.write(song, np.concatenate([tone, np.zeros(20 * SAMPLE_RATE), tone]), SAMPLE_RATE)
    prediction = GenreClassifier(tiny_model, Origin("tiny")).predict(song)
    lengths = prediction.ends_seconds - prediction.starts_seconds
    about_silence = int(lengths.argmax())
    assert lengths[about_silence] > 20
    timeline = np.full_like(prediction.timeline, 1 / prediction.timeline.shape[1])
    timeline[about_silence] = np.eye(timeline.shape[1])[0]
    starts = []
    monkeypatch.setattr(figures, "trace", lambda *of: starts.append(of[3]))
    monkeypatch.setattr(plots, "STEPS", ())
    list(inside_figures(tiny_model, song, replace(prediction, timeline=timeline), prediction.log_mel))
    assert lengths[prediction.starts_seconds.tolist().index(pytest.approx(starts[0], abs=1e-6))] < 3


@pytest.mark.parametrize("start_seconds", [0.0, 4.25, 12.5])
def test_the_sound_of_a_window_is_where_the_song_has_it_whatever_the_clock_of_the_file(
    tmp_path: Path, start_seconds: float
) -> None:
    """Two files in one, as by `cat`: the clock begins anew, or leaps."""
    rng, parts = np.random.default_rng(0), []
    for number, seconds in enumerate((8, 12)):
        soundfile.write(tmp_path / f"{number}.flac", 0.1 * rng.normal(size=seconds * SAMPLE_RATE), SAMPLE_RATE)
        parts.append((tmp_path / f"{number}.flac").read_bytes())
    song = tmp_path / "song.flac"
    song.write_bytes(b"".join(parts))
    first = round(start_seconds * SAMPLE_RATE)
    expected = load_audio(song)[:, first:][:, : 48 * HOP_LENGTH]
    sounds = np.ones(48, bool)
    np.testing.assert_array_equal(_sounding(str(song), start_seconds, sounds, open_audio), expected)
    sounds[10:20] = False
    given = _sounding(str(song), start_seconds, sounds, open_audio)
    np.testing.assert_array_equal(given, np.delete(expected, np.s_[10 * HOP_LENGTH : 20 * HOP_LENGTH], axis=1))
