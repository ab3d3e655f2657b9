"""What happens on the page: the handlers of its events and endpoints, which `app.py` wires to its components."""

import base64
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from threading import Lock
from weakref import WeakKeyDictionary, WeakValueDictionary

import gradio as gr
import numpy as np

from crnn.audio import AudioError
from crnn.bundle import ASSETS
from crnn.checkpoint import CheckpointError
from crnn.inference import NO_MUSIC, GenreClassifier, Prediction
from crnn.insight.explain import Explanation, explain
from crnn.network.songs import Report
from crnn.plots import genre_colours
from crnn.sources import load_public
from crnn.walk import is_sound
from crnn.web import about, figures, page
from crnn.web.background import Stopped, as_long_as, in_steps
from crnn.web.cores import Cores
from crnn.web.gate import is_own_trouble, note
from crnn.web.songs import Row, Visit, songs_view, to_json
from crnn.web.uploads import name_of
from crnn.web.view import overlay, song_view

EXAMPLES = ASSETS / "examples"
CREDITS = json.loads((EXAMPLES / "credits.json").read_text("utf-8"))  # by genre: what is heard, whose, which licence
MOST_PASSAGE = 4 * 2**20  # characters of the base64 of a passage: more than a minute
MOST_SPECTROGRAMS = 2**28  # bytes: six hours of sound
MOST_OTHERS = 16  # models that visitors have chosen, of up to 128 MB
NO_LONGER = "This song is no longer on the server: choose it anew to hear it."
NO_SONG = "Choose a song first."
STILL_HEARD = "The song is still being heard: this comes after its answer."
NO_ANSWER = "This song has no answer that could be looked into."
UNCHANGED = gr.skip(), gr.skip(), gr.skip()  # as three outputs without any would be emptied
ABOUT_A_SONG = "why", "sound", "inside"  # kinds of work


@dataclass(frozen=True, eq=False)
class Heard:
    """The song that the page is about now, and who answered."""

    path: str
    prediction: Prediction  # but for the log-mel, which `Spectrograms` has
    classifier: GenreClassifier

    @property
    def key(self) -> tuple[str, str]:
        """What tells it from other songs, and from the same heard by another model."""
        return self.path, self.classifier.origin.name


class Spectrograms:
    """The log-mels of the songs that visitors look at, MOST_SPECTROGRAMS of them: those of a day take a gigabyte."""

    def __init__(self) -> None:
        self._kept: WeakKeyDictionary[Heard, np.ndarray] = WeakKeyDictionary()  # the one asked for last is the last
        self._lock = Lock()

    def keep(self, heard: Heard, log_mel: np.ndarray) -> None:
        """Keep that of a song, float32 (128, frames), at the cost of older ones, as long as it is looked at."""
        with self._lock:
            self._kept.pop(heard, None)
            self._kept[heard] = log_mel
            while len(self._kept) > 1 and sum(kept.nbytes for kept in self._kept.values()) > MOST_SPECTROGRAMS:
                del self._kept[next(iter(self._kept))]

    def of(self, heard: Heard) -> np.ndarray:
        """That of a song, from its file where it is not kept any more. Raises AudioError."""
        log_mel = self._kept.get(heard)
        if log_mel is None:
            log_mel = heard.classifier.listen(heard.path).log_mel.numpy()
        self.keep(heard, log_mel)
        return log_mel


class Handlers:
    """What happens on the page. `classifier` is the host's; a visitor may have chosen another for himself, `own`.

    `shown` is told of each song that the page has an answer to, `answered` of those of programs.
    """

    def __init__(self, classifier: GenreClassifier) -> None:
        self.classifier = classifier
        self.cores = Cores()
        self.spectrograms = Spectrograms()
        self.others: WeakValueDictionary[str, GenreClassifier] = WeakValueDictionary()  # that visitors chose, by name
        self.shown: Callable[[str], None] = lambda _: None
        self.answered: Callable[[str], None] = lambda _: None

    def hear(
        self,
        song: str | None,
        own: GenreClassifier | None,
        visit: Visit,
        progress: gr.Progress = gr.Progress(),  # noqa: B008
    ) -> tuple:
        """A song or another model has come or gone: answer, drawing, reasons, song, table, stop buttons.

        A song for which another has come, or whose visitor has gone, is heard no further.
        """
        classifier = own or self.classifier
        asked = song, classifier.origin.name  # not the model itself: a visit outlives its page
        if visit.about == asked:
            return (gr.skip(),) * 7
        visit.about, visit.lacks = asked, STILL_HEARD if song else NO_SONG
        try:
            return self._hear(asked, own, visit, progress)
        except BaseException as error:
            if visit.about is asked:  # nobody has its answer: it may be asked about again
                visit.about, visit.lacks = None, NO_ANSWER
            if not isinstance(error, Stopped):
                raise
            return (gr.skip(),) * 7

    def _hear(self, asked: tuple, own: GenreClassifier | None, visit: Visit, progress: gr.Progress) -> tuple:
        """The same. Raises Stopped as soon as the visit is about something else than was `asked`, or nobody waits."""
        classifier, song = own or self.classifier, asked[0]
        visit.stop(*ABOUT_A_SONG)
        nothing, idle = gr.update(value="", overlay=""), gr.update(visible=False)
        if song is None:
            return page.waiting(classifier.genres), nothing, "", None, gr.skip(), idle, idle
        self.shown(song)
        fault = None
        try:
            with self.cores.share():
                report = as_long_as(lambda: visit.about is asked, progress)
                prediction = classifier.predict(song, report=report)
        except AudioError as error:
            fault = page.no_answer(_reason(song, error))
        if visit.about is not asked:  # which may be about the same song again
            raise Stopped
        visit.stop(*ABOUT_A_SONG)  # what was begun of the last song while this one was heard
        if fault:
            visit.lacks = NO_ANSWER
            return fault, nothing, "", None, gr.skip(), idle, idle
        model = classifier.origin.name
        others = [row.model for row in visit.rows if row.path == song and row.answer and row.model != model]
        visit.add(Row.of(song, model, prediction))
        made_as = Path(song).stem if Path(song).parent == EXAMPLES else None
        name = CREDITS[made_as] if made_as else name_of(song)
        told = model if own or others else None
        answer = page.answer(prediction, classifier.model.config.unsure_below, made_as, told, others)
        view = gr.update(value=json.dumps(song_view(name, prediction)), overlay="")
        heard = Heard(song, replace(prediction, log_mel=prediction.log_mel[:, :0].copy()), classifier)
        self.spectrograms.keep(heard, prediction.log_mel)
        return answer, view, "", heard, _table_of(visit), idle, idle

    def overhear(self, event: gr.EventData, own: GenreClassifier | None, visit: Visit) -> tuple[str, str]:
        """A passage of a recording that goes on: the answer to it; for the recorder its number and its colour."""
        classifier, about = own or self.classifier, visit.about
        try:
            with self.cores.share():
                prediction = classifier.predict_waveform(_passage(event.samples))
        except AudioError:  # the next one comes in seconds
            return gr.skip(), json.dumps({"number": event.number})
        colour = genre_colours(prediction.genres).get(prediction.verdict)
        has_song = visit.about != about or (about and about[0])  # it may have come meanwhile
        if not has_song:
            visit.lacks = STILL_HEARD
        told = gr.skip() if has_song else page.passing(prediction)
        return told, json.dumps({"number": event.number, "colour": colour})

    def why(
        self,
        event: gr.EventData,
        heard: Heard | None,
        visit: Visit,
        progress: gr.Progress = gr.Progress(),  # noqa: B008
    ) -> Iterator[tuple]:
        """A genre was chosen, to see what spoke for it: overlay, reasons, stop button. The last choice counts."""
        token, genre = visit.start("why"), event.genre
        if heard is None or genre not in heard.classifier.genres:
            yield gr.update(overlay=""), "", gr.update(visible=False)
            return
        yield gr.update(overlay=json.dumps({"genre": genre, "tiles": []})), "", gr.update(visible=True)

        def work(report: Report) -> Explanation:
            with self.cores.share():
                return explain(heard.classifier.model, self.spectrograms.of(heard), genre, report)

        try:
            for step in in_steps(work):
                if not visit.is_latest("why", token):
                    yield UNCHANGED
                    return
                if isinstance(step, float):
                    progress(step)
                    yield UNCHANGED  # where it can be stopped
                    continue
                picture = json.dumps({"genre": genre, "tiles": overlay(step)})
                yield gr.update(overlay=picture), page.reasons(step), gr.update(visible=False)
        except AudioError as error:
            yield gr.update(overlay=""), page.fault(_reason(heard.path, error)), gr.update(visible=False)

    def sound(self, heard: Heard | None, is_open: bool, shown: tuple | None, visit: Visit) -> Iterator[tuple]:
        """The audio features are to be seen, one after another as they are computed: figures, whose, stop button."""
        if is_open:
            opener = self.classifier.opener
            yield from self._one_by_one("sound", heard, shown, visit, partial(figures.sound_figures, opener=opener))
        else:
            yield UNCHANGED

    def inside(self, heard: Heard | None, shown: tuple | None, visit: Visit) -> Iterator[tuple]:
        """The way from the song to its genre is to be seen: figures, whose, stop button."""

        def draw(path: str) -> Iterator[str]:
            log_mel = self.spectrograms.of(heard)
            model, opener = heard.classifier.model, self.classifier.opener
            yield from figures.inside_figures(model, path, heard.prediction, log_mel, opener)

        yield from self._one_by_one("inside", heard, shown, visit, draw)

    def _one_by_one(
        self,
        work: str,
        heard: Heard | None,
        shown: tuple | None,
        visit: Visit,
        draw: Callable[[str], Iterator[str]],
    ) -> Iterator[tuple]:
        if heard is None:
            yield page.hint(visit.lacks or NO_SONG), None, gr.update(visible=False)
            return
        if heard.prediction.verdict == NO_MUSIC:
            yield page.hint("There is no music in this song to look into."), None, gr.update(visible=False)
            return
        if heard.key == shown:
            yield UNCHANGED
            return
        token, parts = visit.start(work), []
        try:
            for figure in self.cores.shared(draw(heard.path)):
                if not visit.is_latest(work, token):
                    yield UNCHANGED
                    return
                parts.append(figure)
                yield figures.in_columns(parts), None, gr.update(visible=True)
        except AudioError as error:
            yield page.fault(_reason(heard.path, error)), None, gr.update(visible=False)
            return
        yield gr.skip(), heard.key, gr.update(visible=False)

    def hear_many(
        self,
        files: list[str] | None,
        own: GenreClassifier | None,
        visit: Visit,
        progress: gr.Progress = gr.Progress(),  # noqa: B008
    ) -> Iterator[tuple]:
        """Several songs have come; those answered before keep their answers: table, what happens, stop button."""
        if not files:
            yield UNCHANGED
            return
        classifier, token = own or self.classifier, visit.latest("many")
        files = [*dict.fromkeys(files)]
        songs = [file for file in files if len(files) == 1 or is_sound(file)]
        n_heard, has_dropped = 0, False
        for number, song in enumerate(songs):
            if not visit.is_latest("many", token):
                yield UNCHANGED
                return
            self.shown(song)
            if visit.has_answer(song, classifier.origin.name):
                n_heard += 1
                continue
            progress((number, len(songs)), desc=name_of(song))
            yield gr.skip(), page.hint("Song {n} of {all} …", n=number + 1, all=len(songs)), gr.update(visible=True)
            try:
                prediction = self._one_of_many(classifier, song, as_long_as(lambda: visit.is_latest("many", token)))
                row = Row.of(song, classifier.origin.name, prediction)
            except Stopped:
                yield UNCHANGED
                return
            except AudioError as error:
                reason = _reason(song, error)
                row = Row(song, classifier.origin.name, fault=(reason.message, reason.values))
            if not visit.is_latest("many", token):
                yield UNCHANGED
                return
            has_dropped |= visit.add(row, below=(songs[number - 1], row.model) if number else None)
            n_heard += not row.fault
            yield _table_of(visit), gr.skip(), gr.skip()
        done = page.hint("Songs heard: {n} of {all}.", n=n_heard, all=len(songs))
        if has_dropped:
            done += " " + page.hint(
                "Only the newest {most} answers are kept; older ones are gone.", most=visit.MOST_ROWS
            )
        if others := len(files) - len(songs):
            done += " " + page.hint("Files left out, as their names are not those of sounds: {others}.", others=others)
        yield gr.skip(), done, gr.update(visible=False)

    def _one_of_many(self, classifier: GenreClassifier, song: str, report: Report) -> Prediction:
        """The answer to one of several songs. Raises AudioError, and what the report does, also before it begins."""
        with self.cores.share(is_of_many=True):
            report(0.0)  # it may have waited for its turn
            return classifier.predict(song, report=report)

    def stop(self, work: str, visit: Visit) -> dict:
        """A kind of work is to end at its next step: the button for that, which goes.

        Not by Gradio's `cancels`, as its client takes work for failed if it is cancelled at the wrong moment.
        """
        visit.stop(work)
        return gr.update(visible=False)

    def open_again(self, event: gr.EventData, visit: Visit) -> tuple:
        """A song was chosen in the table: player, tabs, what happens."""
        row = visit.row(event.id)
        if row is None or not Path(row.path).is_file():
            return gr.skip(), gr.skip(), page.hint(NO_LONGER)
        return row.path, gr.Tabs(selected="listen"), ""

    def as_json(self, visit: Visit) -> str:
        """The songs are to be saved: the text of the file, of which most is never asked for; empty without songs."""
        return to_json(visit.rows) if visit.rows else ""

    def try_model(self, name: str, visit: Visit) -> tuple:
        """A visitor asks for another model for himself; one that cannot be had leaves the current one in place.

        The last one counts that he asks for, and none if he goes back meanwhile.
        """
        token = visit.start("model")
        if not name.strip():
            return gr.skip(), "", *UNCHANGED
        try:
            host = self.classifier
            known = {other.origin.repo for kept in self.others.valuerefs() if (other := kept())}
            chosen = load_public(name, lambda repo: self._check_room(repo in known))
            own = self._shared(GenreClassifier(*chosen, opener=host.opener, precision=host.precision))
            told = own, page.hint("From now on {model} answers you.", model=own.origin.name), *self.about(own)
        except CheckpointError as error:
            if is_own_trouble(error.__cause__):
                note(f"{name} ({error.__cause__})", error)
            told = gr.skip(), page.fault(error), *UNCHANGED
        return told if visit.is_latest("model", token) else (gr.skip(), gr.skip(), *UNCHANGED)

    def go_back(self, visit: Visit) -> tuple:
        """The host's model is to answer again: own model, what is told of it, the name of another."""
        visit.stop("model")
        return None, "", ""

    def _shared(self, chosen: GenreClassifier) -> GenreClassifier:
        """The same model as others have it already. Raises CheckpointError if they have too many others."""
        self._check_room(chosen.name in self.others)
        return self.others.setdefault(chosen.name, chosen)

    def _check_room(self, is_known: bool) -> None:
        """Raises CheckpointError if visitors have too many models for one that is not known to be among them."""
        if not is_known and len(self.others) >= MOST_OTHERS:
            raise CheckpointError("Visitors try as many other models as there is room for: try again in an hour.")

    def about(self, own: GenreClassifier | None) -> tuple:
        """The model that answers: facts, figures and card."""
        classifier = own or self.classifier
        drawn = figures.in_columns([*about.training_figures(classifier.origin, classifier.genres)])
        card = about.card(classifier.origin.card)
        return about.facts(classifier), drawn + (page.in_english() if card else ""), card

    def classify(self, song: str) -> dict:
        """Recognise the genre of a song.

        The answer has `genre` (the most probable one, "unsure", or "no music" for silence and steady tones),
        `probabilities` (of each genre, the highest first), `timeline` (the probabilities in windows of the song, each
        with its `start_seconds` and `end_seconds`), `is_strange` (whether it is unsure as the song is like nothing the
        model knows) and `sounds_like` (the kind of music that such a song sounds like, if that can be told),
        `duration_seconds`, `heard_seconds` (null, as all of it is heard) and `notices`, sentences on what is wrong with
        the file.

        Args:
            song: a sound file, or a video with sound, of at least one second.
        """
        if song is None:
            raise gr.Error("There is no song: send an audio file.", print_exception=False)
        try:
            with self.cores.share():
                return self.classifier.predict(song, report=as_long_as()).as_dict()
        except Stopped as error:
            raise gr.Error("Nobody waits for this answer.", print_exception=False) from error
        except AudioError as error:
            raise gr.Error(str(_named(song, error)), print_exception=False) from error
        finally:
            self.answered(song)

    def classify_batch(self, songs: list[str]) -> list[dict]:
        """Recognise the genres of several songs.

        The answer is a list in their order. Each has `song` (the name of the file) and either what `classify` answers
        or `error`, a sentence that says why there is no answer; one bad file does not spoil the others.

        Args:
            songs: sound files, or videos with sound, of at least one second each.
        """
        if not songs:
            raise gr.Error("There are no songs: send a list of audio files.", print_exception=False)
        answers, report = {}, as_long_as()
        try:
            for song in dict.fromkeys(songs):
                try:
                    answers[song] = self._one_of_many(self.classifier, song, report).as_dict()
                except AudioError as error:
                    answers[song] = _named(song, error)
        except Stopped as error:
            raise gr.Error("Nobody waits for these answers.", print_exception=False) from error
        finally:
            for song in songs:
                self.answered(song)
        return [_told(song, answers[song]) for song in songs]


def _reason(song: str, error: AudioError) -> AudioError:
    """Why a song could not be heard; if its time on the server is over, its path would mean nothing to a visitor."""
    return _named(song, error) if Path(song).is_file() else AudioError(NO_LONGER)


def _named(song: str, error: AudioError) -> AudioError:
    """The same with the name that the visitor knows."""
    given = {"name": name_of(song)} if "name" in error.values else {}
    return AudioError(error.message, **error.values | given)


def _told(song: str, answer: dict | AudioError) -> dict:
    """What a program is told of one song of several: equal ones have one path and one answer, but each its own name."""
    said = {"error": str(_named(song, answer))} if isinstance(answer, AudioError) else answer
    return {"song": name_of(song), **said}


def _passage(code: str) -> np.ndarray:
    """A waveform (samples,), int16, from the base64 of such samples at SAMPLE_RATE. Raises AudioError."""
    if not isinstance(code, str) or len(code) > MOST_PASSAGE:
        raise AudioError("A passage must be the base64 of a few seconds of 16-bit samples.")
    try:
        return np.frombuffer(base64.b64decode(code, validate=True), "<i2")
    except ValueError as error:
        raise AudioError("A passage must be the base64 of 16-bit samples.") from error


def _table_of(visit: Visit) -> str:
    """The value of the table and the map of a visit's songs."""
    return json.dumps(songs_view(visit.rows, visit.places))
