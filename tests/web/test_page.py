"""What the page says in words, and that no stranger's name can become part of its markup."""

import re
from dataclasses import replace

import numpy as np
import pytest
from markup import HOSTILE, Shape, words

from crnn import plots
from crnn.audio import AudioError, Notice
from crnn.features import FLOOR_DB
from crnn.inference import NO_MUSIC, UNSURE, Prediction
from crnn.insight.explain import Explanation
from crnn.web import page

SHARES = {"jazz": 0.625, "rock": 0.25, "disco": 0.125}


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
    }


@pytest.mark.parametrize("name", HOSTILE)
def test_no_name_becomes_markup(name: str) -> None:
    """The elements and attributes are those of a harmless name, and the name is there to be read, letter by letter."""
    for part, harmless in all_parts("blues").items():
        hostile = Shape(all_parts(name)[part])
        assert hostile.elements == Shape(harmless).elements, part
        assert name in "".join(hostile.texts), part
        assert [value for value in hostile.values if name in value and value not in (name, f"{name}2")] == [], part
