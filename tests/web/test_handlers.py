"""What the handlers answer when songs and models come and go while others are heard, and when files are gone."""

import base64
import json
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from copy import deepcopy
from functools import partial
from pathlib import Path

import gradio as gr
import numpy as np
import pytest
import torch
from hub_server import HubServer
from huggingface_hub import constants

from crnn import files
from crnn.audio import SAMPLE_RATE, AudioError, Sound
from crnn.bundle import DEFAULT_MODEL
from crnn.checkpoint import CheckpointError
from crnn.inference import GenreClassifier, Prediction
from crnn.network.model import CRNN
from crnn.network.songs import Report, to_nobody
from crnn.sources import Origin
from crnn.web import background, handlers
from crnn.web.handlers import NO_ANSWER, NO_LONGER, NO_SONG, STILL_HEARD, Handlers, Heard
from crnn.web.server import file_input
from crnn.web.songs import Visit
from crnn.web.uploads import Song

ABOUT = "why", "sound", "inside"  # kinds of work that are about one song


class Listener(GenreClassifier):
    """Notes the songs that it is asked about; `meanwhile` happens while it hears one."""

    def __init__(self, model: CRNN) -> None:
        super().__init__(model, Origin("tiny"))
        self.asked: list[str] = []
        self.meanwhile: Callable[[], object] = lambda: None

    def predict(self, song: str, passages: None = None, report: Report = to_nobody) -> Prediction:
        self.asked.append(song)
        self.meanwhile()
        return super().predict(song, passages, report)


@pytest.fixture
def listener(tiny_model: CRNN) -> Listener:
    return Listener(tiny_model)


@pytest.fixture
def happens(listener: Listener) -> Handlers:
    return Handlers(listener)


@pytest.fixture
def songs(tmp_path: Path, tone: Callable, write_wav: Callable) -> list[str]:
    return [
        str(write_wav(tmp_path / f"{name}.wav", tone(1.5, hz))) for name, hz in (("a", 220), ("b", 440), ("c", 880))
    ]


@pytest.fixture
def text(tmp_path: Path) -> str:
    """A file that is no sound."""
    (tmp_path / "text.mp3").write_text("These are words, not music.")
    return str(tmp_path / "text.mp3")


def table(value: str) -> dict[str, dict]:
    """The rows of the table, by the names of the songs."""
    return {row["song"]: row for row in json.loads(value)["rows"]}


def test_a_late_error_of_a_song_that_was_left_changes_nothing(happens: Handlers, listener: Listener, text: str) -> None:
    visit = Visit()
    listener.meanwhile = lambda: setattr(visit, "about", ("another.mp3", listener))
    assert happens.hear(text, None, visit) == (gr.skip(),) * 7


def test_a_song_that_was_left_is_heard_no_further(happens: Handlers, listener: Listener, songs: list[str]) -> None:
    visit, blocks = Visit(), []
    opener = listener.opener

    @contextmanager
    def watched(song: str) -> Iterator[Sound]:
        with opener(song) as sound:
            yield sound
            blocks.append("all")

    listener.opener = watched
    listener.meanwhile = lambda: setattr(visit, "about", (None, "tiny"))
    assert happens.hear(songs[0], None, visit) == (gr.skip(),) * 7
    assert (visit.rows, blocks) == ([], [])
    listener.meanwhile = lambda: None
    happens.hear(songs[0], None, visit)
    assert [row.name for row in visit.rows] == ["a.wav"]


def test_a_song_that_is_chosen_again_while_it_is_left_is_answered(
    happens: Handlers, listener: Listener, songs: list[str]
) -> None:
    """A, B and A again, before what heard A first has seen that it was left."""
    visit, again = Visit(), []

    def come_back() -> None:
        listener.meanwhile = lambda: None
        visit.about = (songs[1], "tiny")
        again.append(happens.hear(songs[0], None, visit))

    listener.meanwhile = come_back
    assert happens.hear(songs[0], None, visit) == (gr.skip(),) * 7
    assert again[0][3].path == songs[0]
    assert visit.about == (songs[0], "tiny")


def test_a_song_whose_visitor_has_gone_is_heard_no_further_and_anew_when_he_is_back(
    happens: Handlers, songs: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    visit = Visit()
    monkeypatch.setattr(background, "is_awaited", lambda: False)
    assert happens.hear(songs[0], None, visit) == (gr.skip(),) * 7
    with pytest.raises(gr.Error, match="Nobody waits"):
        happens.classify(songs[0])
    assert [*happens.hear_many(songs, None, visit, lambda *_, **__: None)][-1] == (gr.skip(),) * 3
    assert visit.rows == []
    monkeypatch.undo()
    assert happens.hear(songs[0], None, visit)[3].path == songs[0]


@pytest.mark.parametrize("step", ["predict", "song_view"])
def test_a_song_that_fails_in_no_foreseen_way_is_heard_when_it_is_chosen_again(
    happens: Handlers, songs: list[str], monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    def fails(*_: object, **__: object) -> None:
        raise MemoryError

    visit = Visit()
    monkeypatch.setattr(happens.classifier if step == "predict" else handlers, step, fails)
    with pytest.raises(MemoryError):
        happens.hear(songs[0], None, visit)
    monkeypatch.undo()
    assert happens.hear(songs[0], None, visit)[3].path == songs[0]


def test_how_far_a_long_song_is_heard_is_told(
    happens: Handlers, songs: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    shares: list[float] = []
    happens.hear(songs[0], None, Visit(), shares.append)
    assert shares == []  # nobody has lost patience
    monkeypatch.setattr(background, "PATIENCE_SECONDS", 0.0)
    happens.hear(songs[1], None, Visit(), shares.append)
    assert shares
    assert 0 < shares[0] <= shares[-1] <= 1


@pytest.mark.parametrize("is_sound", [True, False])
def test_what_is_begun_of_the_last_song_while_the_next_is_heard_ends_with_the_answer(
    happens: Handlers, listener: Listener, songs: list[str], text: str, is_sound: bool
) -> None:
    visit, tokens = Visit(), {}
    listener.meanwhile = lambda: tokens.update({work: visit.start(work) for work in ABOUT})
    happens.hear(songs[0] if is_sound else text, None, visit)
    assert tokens.keys() == set(ABOUT)
    assert not [work for work, token in tokens.items() if visit.is_latest(work, token)]


@pytest.mark.parametrize(("song", "is_told"), [(None, True), ("song.mp3", False)])
def test_a_passage_is_answered_only_while_no_song_is_there(
    happens: Handlers, listener: Listener, song: str | None, is_told: bool
) -> None:
    visit = Visit()
    visit.about = song, listener
    samples = base64.b64encode(np.full(3 * SAMPLE_RATE, 9_000, "<i2").tobytes()).decode()
    answer, told = happens.overhear(gr.EventData(None, {"number": 1, "samples": samples}), None, visit)
    assert (answer != gr.skip()) == is_told
    assert json.loads(told)["number"] == 1


@pytest.mark.parametrize("samples", [None, 7, "?", "AAA", base64.b64encode(bytes(3)).decode(), "A" * 2**23])
def test_a_passage_that_is_none_changes_nothing(happens: Handlers, samples: object) -> None:
    answer, told = happens.overhear(gr.EventData(None, {"number": 1, "samples": samples}), None, Visit())
    assert answer == gr.skip()
    assert json.loads(told) == {"number": 1}


def test_a_late_passage_does_not_cover_the_answer_to_a_song(
    happens: Handlers, listener: Listener, monkeypatch: pytest.MonkeyPatch
) -> None:
    visit, predict = Visit(), listener.predict_waveform

    def meanwhile(waveform: np.ndarray) -> Prediction:
        visit.about = "song.mp3", listener
        return predict(waveform)

    monkeypatch.setattr(listener, "predict_waveform", meanwhile)
    samples = base64.b64encode(np.full(3 * SAMPLE_RATE, 9_000, "<i2").tobytes()).decode()
    answer, told = happens.overhear(gr.EventData(None, {"number": 1, "samples": samples}), None, visit)
    assert answer == gr.skip()
    assert json.loads(told)["number"] == 1


def many(happens: Handlers, visit: Visit, songs: list[str]) -> tuple[dict[str, dict], str]:
    """What the table and the status are after several songs have come."""
    steps = [*happens.hear_many(songs, None, visit, lambda *_, **__: None)]
    told = [rows for rows, _, _ in steps if isinstance(rows, str)]
    return table(told[-1]) if told else {}, steps[-1][1]


def test_names_that_begin_with_dots_are_those_of_songs_but_for_what_macos_adds(
    happens: Handlers, songs: list[str], text: str
) -> None:
    names = ["...One More Time.wav", ".a.wav"]
    given = [shutil.copy(songs[0], Path(songs[0]).with_name(name)) for name in names]
    rows, status = many(happens, Visit(), [*given, shutil.copy(text, Path(text).with_name("._a.wav"))])
    assert [*rows] == names
    assert "their names are not those of sounds: 1." in status


def test_songs_that_come_to_others_are_heard_alone(happens: Handlers, listener: Listener, songs: list[str]) -> None:
    visit = Visit()
    many(happens, visit, songs[:2])
    Path(songs[0]).unlink()  # its hour is over
    rows, status = many(happens, visit, songs)
    assert listener.asked == songs
    assert "Songs heard: 3 of 3." in status
    assert [name for name, row in rows.items() if "error" in row] == []
    _, status = many(happens, visit, songs)
    assert [row.name for row in visit.rows] == [Path(song).name for song in songs]
    assert len(listener.asked) == 3
    assert "Songs heard: 3 of 3." in status


def test_a_song_without_answer_and_another_model_are_tried_again(
    happens: Handlers, listener: Listener, songs: list[str], text: str, tiny_model: CRNN
) -> None:
    visit = Visit()
    for _ in range(2):
        many(happens, visit, [songs[0], text])
    assert listener.asked == [songs[0], text, text]
    own = Listener(tiny_model)
    own.origin = Origin("another")
    list(happens.hear_many([songs[0]], own, visit, lambda *_, **__: None))
    assert own.asked == [songs[0]]


def test_a_song_that_other_models_have_heard_says_who_answers_and_where_their_answers_are(
    happens: Handlers, songs: list[str], tiny_model: CRNN
) -> None:
    visit, own = Visit(), Listener(tiny_model)
    own.origin = Origin("another")
    told = "Answered by {}; the answer of {} is among your songs."
    answers = [happens.hear(song, model, visit)[0] for model in (None, own, None) for song in (songs[0], None)][::2]
    assert "Answered by" not in answers[0]
    assert told.format("another", "tiny") in answers[1]
    assert told.format("tiny", "another") in answers[2]
    assert "Answered by another." in happens.hear(songs[1], own, visit)[0]


def test_stopped_between_two_songs_nothing_is_begun(happens: Handlers, listener: Listener, songs: list[str]) -> None:
    visit = Visit()
    steps = happens.hear_many(songs, None, visit, lambda *_, **__: None)
    next(steps)  # it hears the first song
    next(steps)  # its row
    visit.stop("many")
    assert list(steps) == [(gr.skip(),) * 3]
    assert listener.asked == songs[:1]


def test_the_windows_of_songs_are_sent_only_when_they_are_to_be_saved(happens: Handlers, songs: list[str]) -> None:
    visit = Visit()
    told = [*happens.hear_many(songs, None, visit, lambda *_, **__: None)]
    assert not [part for parts in told for part in parts if "start_seconds" in str(part)]
    assert [song["song"] for song in json.loads(happens.as_json(visit))] == ["a.wav", "b.wav", "c.wav"]
    assert happens.as_json(Visit()) == ""


@pytest.mark.parametrize(("most", "is_said"), [(2, True), (3, False)])
def test_answers_that_do_not_fit_into_the_table_are_named(
    happens: Handlers, songs: list[str], monkeypatch: pytest.MonkeyPatch, most: int, is_said: bool
) -> None:
    monkeypatch.setattr(Visit, "MOST_ROWS", most)
    rows, status = many(happens, Visit(), songs)
    assert len(rows) == most
    assert (f"Only the newest {most} answers are kept" in status) == is_said


def test_songs_of_one_name_are_numbered_in_their_order(
    happens: Handlers, songs: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    alike = []
    for song in songs:
        folder = Path(song).with_suffix("")
        folder.mkdir()
        alike.append(shutil.copy(song, folder / "song.wav"))
    visit = Visit()
    assert [*many(happens, visit, alike)[0]] == ["song.wav", "song.wav (2)", "song.wav (3)"]
    monkeypatch.setattr(Visit, "MOST_ROWS", 3)
    assert [*many(happens, visit, songs)[0]] == ["a.wav", "b.wav", "c.wav"]
    monkeypatch.setattr(Visit, "MOST_ROWS", 2)  # of more songs than there is room for, the last ones stay
    assert [*many(happens, Visit(), songs)[0]] == ["b.wav", "c.wav"]


def test_names_are_those_that_visitors_know(happens: Handlers, songs: list[str], text: str) -> None:
    """But for signs that turn what is read, as they would the sentence about a song."""
    good, bad = (
        shutil.move(path, str(Path(path).with_name(f"%22say%22\u202e {Path(path).name}"))) for path in (songs[0], text)
    )
    names = ['"say" a.wav', '"say" text.mp3']
    answers = happens.classify_batch([good, bad])
    assert [answer["song"] for answer in answers] == names
    assert answers[1]["error"].startswith(names[1])
    rows, _ = many(happens, Visit(), [good, bad])
    assert [*rows] == names
    assert rows[names[1]]["error"]["values"]["name"] == names[1]
    _, view, *_ = happens.hear(good, None, Visit())
    assert json.loads(view["value"])["name"] == names[0]


def test_names_that_a_disk_of_the_server_would_not_take_are_kept(
    happens: Handlers, songs: list[str], text: str
) -> None:
    good, other, bad = Song(songs[0], "Why?\ud800.flac"), Song(songs[1], "Why.flac"), Song(text, f"{'?' * 300}.mp3")
    rows, _ = many(happens, Visit(), [good, other, bad])
    assert [*rows] == ["Why?.flac", "Why.flac", "?" * 255]
    assert rows["?" * 255]["error"]["values"]["name"] == "?" * 255
    assert [answer["song"] for answer in happens.classify_batch([good, other])] == ["Why?.flac", "Why.flac"]
    visit = Visit()
    _, view, *_ = happens.hear(good, None, visit)
    assert json.loads(view["value"])["name"] == "Why?.flac"
    song, *_ = happens.open_again(gr.EventData(None, {"id": visit.rows[0].id}), visit)
    assert file_input("Song").postprocess(song).orig_name == "Why?.flac"


def test_equal_songs_have_their_own_names_in_a_batch(happens: Handlers, songs: list[str], text: str) -> None:
    names = ["one.wav", "two.wav", "one.mp3", "two.mp3", r"\u202e"]
    paths = [songs[0], songs[0], text, text, songs[0]]
    sent = [Song(path, name) for path, name in zip(paths, [*names[:4], "\u202e"], strict=True)]
    answers = happens.classify_batch(sent)
    assert [answer["song"] for answer in answers] == names
    for answer, name in zip(answers[2:4], names[2:4], strict=True):
        assert answer["error"].startswith(name)


def gone(path: str) -> str:
    """The path of a song that was deleted."""
    return str(Path(path).with_name("gone.wav"))


def test_a_song_that_is_gone_is_said_to_be_no_longer_there(happens: Handlers, songs: list[str], text: str) -> None:
    answer, *_ = happens.hear(gone(songs[0]), None, Visit())
    assert NO_LONGER in answer
    answer, *_ = happens.hear(text, None, Visit())
    assert "text.mp3" in answer
    assert NO_LONGER not in answer
    rows, _ = many(happens, Visit(), [gone(songs[0])])
    assert rows["gone.wav"]["error"] == {"message": NO_LONGER, "values": {}}


@pytest.mark.parametrize("work", ["sound", "inside"])
def test_figures_that_fail_say_why(
    happens: Handlers, listener: Listener, songs: list[str], monkeypatch: pytest.MonkeyPatch, work: str
) -> None:
    def fails(*_: object, **__: object) -> Iterator[str]:
        raise AudioError("The decoder of {name} was killed.", name="a.wav")
        yield

    monkeypatch.setattr(handlers.figures, f"{work}_figures", fails)
    prediction = listener.predict(songs[0])
    for path, said in ((songs[0], "The decoder of a.wav was killed."), (gone(songs[0]), NO_LONGER)):
        heard = Heard(path, prediction, listener)
        happens.spectrograms.keep(heard, prediction.log_mel)
        given = [heard, *([True] if work == "sound" else []), None, Visit()]
        [(figures, shown, _)] = getattr(happens, work)(*given)
        assert said in figures
        assert shown is None


def test_what_cannot_be_looked_into_yet_says_why(
    happens: Handlers, listener: Listener, songs: list[str], text: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    visit, samples = Visit(), base64.b64encode(np.full(3 * SAMPLE_RATE, 9_000, "<i2").tobytes()).decode()

    def said() -> str:
        [(sound, *_)], [(inside, *_)] = happens.sound(None, True, None, visit), happens.inside(None, None, visit)
        assert sound == inside
        return sound

    assert NO_SONG in said()
    happens.overhear(gr.EventData(None, {"number": 1, "samples": samples}), None, visit)
    assert STILL_HEARD in said()
    for song, last in ((None, NO_SONG), (text, NO_ANSWER), (songs[0], NO_ANSWER)):
        meanwhile = []
        listener.meanwhile = lambda meanwhile=meanwhile: meanwhile.append(said())
        if song == songs[0]:
            monkeypatch.setattr(handlers, "song_view", lambda *_: 1 / 0)
        with suppress(ZeroDivisionError):
            happens.hear(song, None, visit)
        assert all(STILL_HEARD in during for during in meanwhile)
        assert len(meanwhile) == bool(song)
        assert last in said()


@pytest.mark.parametrize("work", ["why", "sound", "inside"])
def test_what_is_made_of_a_song_takes_its_share_of_the_cores(
    happens: Handlers, songs: list[str], monkeypatch: pytest.MonkeyPatch, work: str
) -> None:
    threads: list[int] = []

    def figures(*_: object, **__: object) -> Iterator[str]:
        threads.append(torch.get_num_threads())
        yield "a figure"
        threads.append(torch.get_num_threads())
        raise AudioError("That is enough.")

    for name in ("sound_figures", "inside_figures"):
        monkeypatch.setattr(handlers.figures, name, figures)
    monkeypatch.setattr(handlers, "explain", lambda *_: [*figures()])
    visit, event = Visit(), gr.EventData(None, {"genre": "jazz"})
    heard, n_cores = happens.hear(songs[0], None, visit)[3], torch.get_num_threads()
    given = {
        "why": (event, heard, visit, lambda *_: None),
        "sound": (heard, True, None, visit),
        "inside": (heard, None, visit),
    }
    happens.cores.n_cores = 4
    try:
        with happens.cores.share():
            assert [*getattr(happens, work)(*given[work])]
        assert threads == [2, 2]
    finally:
        torch.set_num_threads(n_cores)


@pytest.mark.parametrize("name", ["", "someone/missing"])
def test_a_model_that_cannot_be_had_undoes_nothing(
    happens: Handlers, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    """The visitor may have gone back to the default while it was looked for."""

    def missing(*_: object) -> None:
        raise CheckpointError("There is no such model.")

    monkeypatch.setattr(handlers, "load_public", missing)
    own, told, *seen = happens.try_model(name, Visit())
    assert [own, *seen] == [gr.skip()] * 4
    assert ("There is no such model." in told) == bool(name)


def test_spectrograms_that_are_too_many_are_made_anew_and_go_with_their_visits(
    happens: Handlers, songs: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(handlers, "MOST_SPECTROGRAMS", 1)
    heard = [happens.hear(song, None, Visit())[3] for song in songs[:2]]
    assert [one.prediction.log_mel.size for one in heard] == [0, 0]
    expected = happens.classifier.predict(songs[0]).log_mel
    np.testing.assert_array_equal(happens.spectrograms.of(heard[0]), expected)
    assert len(happens.spectrograms._kept) == 1
    Path(songs[1]).unlink()
    with pytest.raises(AudioError):
        happens.spectrograms.of(heard[1])
    heard.clear()
    assert not happens.spectrograms._kept


def test_visitors_who_choose_the_same_model_share_it_and_not_too_many_others(
    happens: Handlers, hub: HubServer, model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(handlers, "MOST_OTHERS", 1)
    hub.push("someone/a", model)
    (model / "README.md").write_text("other words")
    hub.push("someone/a", model, branch="older")
    hub.push("someone/ab", model)
    visit = Visit()
    own, *_ = happens.try_model("someone/a", visit)
    for name in ("someone/a", f"{hub.url}/someone/a"):
        assert happens.try_model(name, Visit())[0] is own
    happens.hear(None, own, visit)
    for name in ("someone/a@older", "someone/ab", DEFAULT_MODEL):
        refused, told, *_ = happens.try_model(name, Visit())
        assert refused == gr.skip()
        assert "try again" in told
    assert not any("someone/ab" in request for request in hub.requests)  # so that nothing of it is fetched
    assert "There is no model" in happens.try_model("someone a", Visit())[1]
    del own  # the page is closed; what Gradio keeps of a visit stays longer
    own, *_ = happens.try_model("someone/ab", Visit())
    assert own.origin.repo == "someone/ab"


def test_the_host_hears_of_a_disk_that_has_no_room_for_models(
    happens: Handlers, hub: HubServer, model: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    hub.push("someone/a", model)
    monkeypatch.setattr(files, "KEPT_FREE", 2**60)
    for name in ("someone/a", "someone/none"):
        happens.try_model(name, Visit())
    logged = capsys.readouterr().err
    assert logged.count("\n") == 1
    assert "someone/a ([Errno 28] " in logged
    assert constants.HF_HUB_CACHE in logged


@pytest.mark.parametrize("is_there", [True, False])
def test_a_model_that_nobody_waits_for_any_more_changes_nothing(
    happens: Handlers, tiny_model: CRNN, monkeypatch: pytest.MonkeyPatch, is_there: bool
) -> None:
    visit, meanwhile = Visit(), []

    def slow(name: str, _: object) -> tuple:
        if name == "someone/slow":
            meanwhile.pop()()
            if not is_there:
                raise CheckpointError("There is no such model.")
        return deepcopy(tiny_model), Origin(name)

    monkeypatch.setattr(handlers, "load_public", slow)
    for what in (partial(happens.go_back, visit), partial(happens.try_model, "someone/other", visit)):
        meanwhile.append(what)
        assert happens.try_model("someone/slow", visit) == (gr.skip(),) * 5
    meanwhile.append(partial(happens.go_back, Visit()))  # another visitor
    own, told, *_ = happens.try_model("someone/slow", visit)
    assert ("someone/slow" in told) == is_there
    assert (own == gr.skip()) != is_there
