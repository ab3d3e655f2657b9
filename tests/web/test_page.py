"""What the page says in words, and that no stranger's name can become part of its markup."""

import re
from collections.abc import Callable, Iterator
from dataclasses import replace
from html import unescape
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from matplotlib.figure import Figure

from crnn import plots
from crnn.audio import MAX_SECONDS, SAMPLE_RATE, AudioError, Notice, load_audio, open_audio
from crnn.features import FLOOR_DB, FRAMES_PER_SECOND, HOP_LENGTH
from crnn.inference import NO_MUSIC, UNSURE, GenreClassifier, Prediction
from crnn.insight.analysis import Waveform
from crnn.insight.explain import Explanation
from crnn.network.model import CRNN
from crnn.sources import Origin
from crnn.web import page

WriteWav = Callable[[Path, np.ndarray], Path]
SHARES = {"jazz": 0.625, "rock": 0.25, "disco": 0.125}
HOSTILE = (
    "<script>alert(1)</script>",
    '"\' onmouseover=\'alert(1)" x="',
    "</span></style>--><img src=x onerror=alert(1)>",
    "{braces} {0} {0.__class__} {first.__init__.__globals__} %s %(a)s",
    "; background: url(//evil) } { {{}} & &lt;b&gt; $\\frac{1}{2}$ \\",
)


class Shape(HTMLParser):
    """The markup of a page: its elements with the names of their attributes, its texts, and all attributes' values."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.elements: list[tuple] = []
        self.texts: list[str] = []
        self.values: list[str] = []
        self.feed(html)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, *(name for name, _ in attrs)))
        self.values += [value or "" for _, value in attrs]

    def handle_endtag(self, tag: str) -> None:
        self.elements.append((f"/{tag}",))

    def handle_data(self, data: str) -> None:
        self.texts.append(data)

    def handle_comment(self, data: str) -> None:
        self.elements.append(("comment", data))


def words(html: str) -> str:
    """What a reader sees of HTML, in one line."""
    return re.sub(r"\s+", " ", unescape(re.sub(r"<[^>]*>", "", html))).strip()


def prediction_of(shares: dict[str, float], verdict: str | None = None, duration: float = 30.0) -> Prediction:
    """An answer of one window; with no shares it is silence."""
    return Prediction(
        verdict=verdict or next(iter(shares), NO_MUSIC),
        probabilities=shares,
        genres=tuple(sorted(shares)) or ("disco", "jazz", "rock"),
        timeline=np.float32([[shares[genre] for genre in sorted(shares)]] if shares else np.empty((0, 3))),
        starts_seconds=np.zeros(min(len(shares), 1)),
        ends_seconds=np.full(min(len(shares), 1), 10.0),
        log_mel=np.full((128, 724), 0.0 if shares else FLOOR_DB, np.float32),
        sounds=np.full(724, bool(shares)),
        peaks=np.ones(1_448, np.float32),
        duration_seconds=duration,
    )


def pulses(n_samples: int) -> np.ndarray:
    """A tone (samples,) that swells and fades some times a second: one that stays as it is would be no music."""
    n = np.arange(n_samples)
    return np.sin(n / 8) * (0.6 + 0.4 * np.sin(n / 1_000))


@pytest.mark.parametrize(
    ("shares", "verdict", "expected"),
    [
        (SHARES, "jazz", ["jazz 62%", "Of a hundred answers as sure as this one, about 62 were right in tests."]),
        ({"rock": 1.0, "jazz": 0.0}, "rock", ["rock 100%", "about 99 were right"]),
        (
            {"rock": 0.34, "jazz": 0.33, "disco": 0.33},
            UNSURE,
            [
                "Unsure: between rock and jazz",
                "The best guess has 34%; below 45%, too many answers were wrong in tests.",
            ],
        ),
        (
            {"rock": 0.25, "jazz": 0.24, **dict.fromkeys("abc", 0.17)},
            UNSURE,
            ["Unsure: like nothing it knows", "The best guess has 25%; below 45%"],
        ),
        ({}, NO_MUSIC, ["No music here", "The recording is silent. If it should not be, record it louder."]),
    ],
)
def test_the_answer_in_words(shares: dict[str, float], verdict: str, expected: list[str]) -> None:
    said = words(page.answer(prediction_of(shares, verdict), 0.45))
    assert [part for part in expected if part not in said] == []
    assert ("hundred" in said) == (verdict in shares)
    assert ("best guess" in said) == (verdict == UNSURE)
    assert ("example" in said, "long song" in said) == (False, False)


def test_of_a_song_that_is_not_all_heard_only_that_is_called_silent() -> None:
    notice = Notice(
        "Only what lies before {time} is heard: of a file like this, no more is decoded.", {"time": "30:00"}
    )
    said = words(page.answer(replace(prediction_of({}), notices=(notice,)), 0.45))
    assert "What is heard of the recording is silent.Only what lies before 30:00 is heard" in said
    assert "record it louder" not in said


@pytest.mark.parametrize(
    ("notices", "expected"),
    [
        ((), "The recording is nothing but steady tones, such as hum."),
        ((Notice("Cut."),), "What is heard of the recording is nothing but steady tones, such as hum."),
    ],
)
def test_a_steady_tone_is_not_called_silent(notices: tuple[Notice, ...], expected: str) -> None:
    hum = replace(prediction_of({}), log_mel=np.full((128, 100), -5.0, np.float32), notices=notices)
    said = words(page.answer(hum, 0.45))
    assert "No music here" in said
    assert expected in said
    assert "silent" not in said


@pytest.mark.parametrize(
    ("top", "border", "said"),
    [
        (0.6, 0.66, "has 60%; below 66%"),
        (0.6571, 0.66, "has 65.7%; below 66.0%"),
        (0.6071, 0.60746, "has 60.71%; below 60.75%"),
    ],
)
def test_what_is_below_the_border_reads_so(top: float, border: float, said: str) -> None:
    assert said in words(page.meaning(prediction_of({"rock": top, "jazz": 1 - top}, UNSURE), border))


def test_a_song_that_lacks_energy_is_called_strange() -> None:
    said = words(page.answer(replace(prediction_of(SHARES, UNSURE), lacks_energy=True), 0.45))
    assert "Unsure: like nothing it knows" in said
    assert "It sounds unlike all that the model has learned" in said
    assert "best guess" not in said


def test_of_a_strange_song_that_sounds_like_another_kind_that_is_said() -> None:
    techno = replace(prediction_of(SHARES, UNSURE), stranger_kind="techno & <b>")
    said = words(page.answer(replace(techno, lacks_energy=True), 0.45))
    assert "It sounds like techno & <b>, which is none of its genres." in said
    assert "It sounds unlike all that the model has learned" in said
    for known in (techno, replace(techno, verdict="jazz")):  # between two genres, or an answer
        assert "techno" not in words(page.answer(known, 0.45))


@pytest.mark.parametrize(
    ("shares", "verdict", "expected"),
    [
        (SHARES, "jazz", "Its author calls this example jazz: the model agrees."),
        (SHARES, "rock", "Its author calls this example jazz: the model is wrong."),
        (SHARES, UNSURE, "Its author calls this example jazz: the model leaves it open."),
        ({}, NO_MUSIC, "Its author calls this example jazz: the model leaves it open."),
    ],
)
def test_an_example_is_compared_with_what_it_is(shares: dict[str, float], verdict: str, expected: str) -> None:
    assert expected in words(page.answer(prediction_of(shares, verdict), 0.45, "jazz"))


@pytest.mark.parametrize(
    ("answered", "made_as", "said"),
    [
        ("Hip-Hop", "hiphop", "the model agrees"),
        ("Soul/R&B", "hiphop", "the model is wrong"),
        ("Death Metal", "metal", "the model agrees"),
        (UNSURE, "metal", "the model leaves it open"),
        ("Hip-Hop", "reggae", None),
        (UNSURE, "reggae", None),
    ],
)
def test_an_example_is_compared_with_genres_however_they_are_spelt(
    answered: str, made_as: str, said: str | None
) -> None:
    """A model that has no such genre is neither right nor wrong."""
    shares = {"Hip-Hop": 0.4, "Soul/R&B": 0.3, "Death Metal": 0.3}
    answer = words(page.answer(prediction_of(shares, answered), 0.45, made_as))
    assert ("Its author calls this example" in answer) == bool(said)
    assert (said or "") in answer


def test_where_it_is_like_nothing_it_knows_no_genre_is_in_colour() -> None:
    halves = {"rock": 0.26, "jazz": 0.25, **dict.fromkeys("abc", 0.163)}
    less = {"rock": 0.25, "jazz": 0.24, **dict.fromkeys("abc", 0.17)}
    for shares, said, named in ((halves, "between rock and jazz", True), (less, "like nothing it knows", False)):
        html = page.answer(prediction_of(shares, UNSURE), 0.45)
        assert f"Unsure: {said}" in words(html)
        assert ("--first:" in html) == named


def test_what_is_wrong_with_a_file_is_said_beside_its_answer() -> None:
    song = prediction_of(SHARES)
    noticed = replace(song, notices=(Notice("Its end is missing: {seconds} s are there.", {"seconds": 8}),))
    assert "Its end is missing: 8 s are there." in words(page.answer(noticed, 0.45))
    assert "Its end" not in words(page.answer(song, 0.45))


def test_audio_features_of_a_long_song_are_said_to_be_of_its_start(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plots, "FEATURES", ())
    for seconds, said in ((MAX_SECONDS - 1, []), (MAX_SECONDS, ["Of this long song, these are the first 15 minutes."])):
        monkeypatch.setattr(page, "load_audio", lambda *_, n=seconds, **__: np.zeros((1, n * SAMPLE_RATE), np.float32))
        assert [words(html) for html in page.sound_figures("a.mp3")] == said


def test_bars_are_as_wide_as_the_shares_in_the_order_and_the_colours_of_the_genres() -> None:
    html = page.answer(prediction_of(SHARES), 0.45)
    rows = re.findall(
        r'<li style="--share: ([\d.]+); --colour: (#\w+)"><span>(\w+)</span><i></i><b>(\d+%)</b></li>', html
    )
    colours = plots.genre_colours(sorted(SHARES))
    assert rows == [
        ("0.6250", colours["jazz"], "jazz", "62%"),
        ("0.2500", colours["rock"], "rock", "25%"),
        ("0.1250", colours["disco"], "disco", "12%"),
    ]
    assert html.count("<li") == 3
    assert "<li" not in page.answer(prediction_of({}), 0.45)


@pytest.mark.parametrize("n_genres", [2, 10, 200])
def test_while_nothing_is_heard_every_genre_has_its_place(n_genres: int) -> None:
    genres = [f"genre {number}" for number in range(n_genres)]
    html = page.waiting(genres)
    assert re.findall(r"<span>(genre \d+)</span><i></i><b>(.*?)</b>", html) == [(genre, "") for genre in genres]
    assert set(re.findall(r"--share: ([\d.]+)", html)) == {"0.0000"}
    assert len(set(re.findall(r"--colour: (#\w{6})", html))) == n_genres


def test_a_message_says_its_values_and_keeps_its_english_for_the_translation() -> None:
    html = page.say("{n} of {all} <b>", n=2, all="<3> {n}")
    shape = Shape(html)
    assert shape.elements == [("span", "data-say", "data-n", "data-all"), ("/span",)]
    assert shape.values == ["{n} of {all} <b>", "2", "<3> {n}"]
    assert "".join(shape.texts) == "2 of <3> {n} <b>"


@pytest.mark.parametrize(
    ("seconds", "expected"), [(0, "0:00"), (9.99, "0:10"), (59.4, "0:59"), (60, "1:00"), (899.6, "15:00")]
)
def test_clock(seconds: float, expected: str) -> None:
    assert page.clock(seconds) == expected


def test_reasons_in_words() -> None:
    evidence = np.zeros((8, 12), np.float32)
    evidence[0, 0], evidence[7, 11], evidence[4, 5] = 3.0, 1.0, -9.0
    said = words(page.reasons(Explanation("jazz", evidence, np.linspace(0, 1_812, 13).astype(int))))
    assert "Orange spoke for jazz, blue against it." in said
    first, second = re.findall(r"from (\S+) to (\S+), (\d+) to (\d+) Hz: (\d+)%", said)
    assert (first[:3], first[4]) == (("0:00", "0:06", "0"), "75")
    assert (second[:2], second[3:]) == (("1:09", "1:15"), ("11025", "25"))
    short = words(page.reasons(Explanation("jazz", evidence, np.arange(13) * 20)))  # of ten seconds
    assert re.findall(r"from (\S+) to (\S+),", short) == [("0:00.0", "0:00.8"), ("0:09.1", "0:09.9")]
    nothing = page.reasons(Explanation("jazz", -np.ones((8, 1), np.float32), np.array([0, 24])))
    assert words(nothing) == "Nothing in this song spoke for jazz."


def test_footer_says_how_long_songs_stay_and_how_large_they_may_be() -> None:
    said = words(page.footer(100, 3_600))
    assert "deleted from the server within 60 minutes" in said
    assert "Files up to 100 MB work, of which the first twelve hours are heard: wav, mp3" in said


def drawing(text: str) -> Figure:
    """A figure with a word in it."""
    figure = Figure(figsize=(1, 1))
    figure.text(0, 0, text, parse_math=False)
    return figure


def all_parts(name: str) -> dict[str, str]:
    """All that the page says, with a name that a stranger chose wherever there is one."""
    shares = {name: 0.5, f"{name}2": 0.3, "c": 0.2}
    answered = prediction_of(shares)
    evidence = np.ones((8, 2), np.float32)
    edges = np.array([0, 24, 48])
    return {
        "say": page.say("It is {first}, {n}.", first=name, n=1),
        "fault": page.fault(ValueError(name)),
        "audio": page.fault(AudioError("{name} is empty.", name=name)),
        "hint": page.hint("{model} answers.", model=name),
        "answer": page.answer(answered, 0.4, made_as=name),
        "wrong": page.answer(answered, 0.4, made_as=f"{name}2"),
        "unsure": page.answer(replace(answered, verdict=UNSURE), 0.6, made_as=name),
        "silent": page.answer(replace(prediction_of({}), genres=(name, "b")), 0.6, made_as=name),
        "waiting": page.waiting([name, "b"]),
        "reasons": page.reasons(Explanation(name, evidence, edges)),
        "no reasons": page.reasons(Explanation(name, -evidence, edges)),
        "figure": page.figure("A title", "What it means.", drawing(name)),
    }


@pytest.mark.parametrize("name", HOSTILE)
def test_no_name_becomes_markup(name: str) -> None:
    """The elements and attributes are those of a harmless name, and the name is there to be read, letter by letter."""
    for part, harmless in all_parts("blues").items():
        hostile = Shape(all_parts(name)[part])
        assert hostile.elements == Shape(harmless).elements, part
        assert name in "".join(hostile.texts), part
        assert [value for value in hostile.values if name in value and value not in (name, f"{name}2")] == [], part


def test_no_genre_becomes_markup_in_a_picture(
    tiny_model: CRNN, monkeypatch: pytest.MonkeyPatch, write_wav: WriteWav, tmp_path: Path
) -> None:
    monkeypatch.setattr(plots, "STEPS", plots.STEPS[-1:])  # the answer, where the names are
    song = write_wav(tmp_path / "song.wav", 0.5 * pulses(3 * SAMPLE_RATE))

    def picture(first: str) -> Shape:
        model = CRNN(replace(tiny_model.config, genres=(first, "b", "c"))).eval()
        model.load_state_dict(tiny_model.state_dict())
        prediction = GenreClassifier(model, Origin("tiny")).predict(song)
        [html] = page.inside_figures(model, song, prediction, prediction.log_mel)
        return Shape(html)

    harmless = {element[0] for element in picture("a").elements}
    for name in HOSTILE:
        hostile = picture(name)
        assert {element[0] for element in hostile.elements} == harmless
        assert name[:6] in "".join(hostile.texts)
        assert not [value for value in hostile.values if name[:6] in value]


def test_a_figure_has_its_title_its_meaning_and_what_saves_it() -> None:
    html = page.figure('A "title" & <more>', "What it means.", drawing("words"), "<b>5</b>")
    shape = Shape(html)
    said = "".join(shape.texts)
    assert all(part in said for part in ('A "title" & <more>', "What it means.", "5", "words"))
    assert html.count("<svg") == html.count("<figure") == 1
    svg = re.search(r"<svg[^>]*>", html)[0]
    assert 'data-say-label="A &quot;title&quot; &amp; &lt;more&gt;"' in svg
    assert re.findall(r'data-save="(\w+)"', html) == ["svg", "png"]


def test_a_title_cannot_break_its_figure() -> None:
    assert Shape(page.figure(HOSTILE[2], "", drawing(""))).elements == Shape(page.figure("A", "", drawing(""))).elements


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
    figures = page.sound_figures(write_wav(tmp_path / "song.wav", np.zeros(SAMPLE_RATE)))
    assert computed == []
    for number, key in enumerate("abc", start=1):
        assert f"Title {key}" in words(next(figures))
        assert computed == list("abc"[:number])
    assert list(figures) == []


def titles(figures: Iterator[str]) -> list[str]:
    """What figures are called, by their pictures' labels."""
    return [unescape(re.search(r'<svg data-say-label="([^"]*)"', html)[1]) for html in figures]


@pytest.mark.usefixtures("compiled")
def test_every_audio_feature_has_its_figure(write_wav: WriteWav, tmp_path: Path) -> None:
    seconds = np.arange(2 * SAMPLE_RATE) / SAMPLE_RATE
    pulses = 0.3 * np.sin(2 * np.pi * 440 * seconds) * (seconds % 0.5 < 0.1)
    assert titles(page.sound_figures(write_wav(tmp_path / "song.wav", pulses))) == [
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
    figures = [*page.inside_figures(tiny_model, song, prediction, prediction.log_mel)]
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
    figures = page.inside_figures(tiny_model, song, prediction, prediction.log_mel)
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
    monkeypatch.setattr(page, "trace", lambda *of: ways.append(of))
    monkeypatch.setattr(plots, "STEPS", ())
    [told] = page.inside_figures(tiny_model, song, prediction, prediction.log_mel)
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
    monkeypatch.setattr(page, "trace", lambda *of: starts.append(of[3]))
    monkeypatch.setattr(plots, "STEPS", ())
    list(page.inside_figures(tiny_model, song, replace(prediction, timeline=timeline), prediction.log_mel))
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
    monkeypatch.setattr(page, "trace", lambda *of: ways.append(of))
    monkeypatch.setattr(plots, "STEPS", ())
    heard = replace(prediction, timeline=timeline)
    assert list(page.inside_figures(tiny_model, song, heard, prediction.log_mel)) == []
    _, log_mel, passage, start_seconds = ways[0]
    np.testing.assert_array_equal(log_mel, prediction.log_mel[:, -n_frames:])
    assert start_seconds * FRAMES_PER_SECOND == pytest.approx(prediction.log_mel.shape[1] - n_frames)
    assert passage.shape[1] == pytest.approx(n_frames * HOP_LENGTH, abs=HOP_LENGTH)


def test_of_many_channels_two_are_drawn(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []
    monkeypatch.setattr(page, "Waveform", lambda waveform: seen.append(waveform) or Waveform(waveform))
    song = str(tmp_path / "song.wav")
    soundfile.write(song, np.random.default_rng(0).normal(0, 0.1, (2 * SAMPLE_RATE, 6)), SAMPLE_RATE)
    next(page.sound_figures(song))
    assert seen[0].shape[0] == 2


def test_figures_keep_their_order() -> None:
    assert page.figures(["<i>1</i>", "<i>2</i>"]) == '<div class="figures"><i>1</i><i>2</i></div>'


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
    monkeypatch.setattr(page, "trace", lambda *of: starts.append(of[3]))
    monkeypatch.setattr(plots, "STEPS", ())
    list(page.inside_figures(tiny_model, song, replace(prediction, timeline=timeline), prediction.log_mel))
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
    np.testing.assert_array_equal(page._sounding(str(song), start_seconds, sounds, open_audio), expected)
    sounds[10:20] = False
    given = page._sounding(str(song), start_seconds, sounds, open_audio)
    np.testing.assert_array_equal(given, np.delete(expected, np.s_[10 * HOP_LENGTH : 20 * HOP_LENGTH], axis=1))
