"""The songs of a visit: one row each, to compare, to go back to, and to take away as CSV or JSON."""

import csv
import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from hashlib import sha256
from itertools import groupby, islice
from threading import Lock
from typing import ClassVar

import numpy as np

from crnn.inference import Prediction
from crnn.library.likeness import Place, lay_out, nearest
from crnn.library.table import harmless
from crnn.plots import genre_colours
from crnn.web.uploads import name_of

LEAST_ON_MAP = 3  # songs
NEAREST = 3  # that are named


@dataclass(frozen=True, eq=False)
class Row:
    """What became of one song. Either it has an answer, or a `fault` that says why not."""

    path: str  # of the file on the server, while it is kept
    model: str
    answer: Prediction | None = None  # without its arrays over frames
    fault: tuple[str, dict] | None = None  # message and values of the AudioError, without what that holds on to
    copy: int = 1  # of the files of a visit that have the same name

    @classmethod
    def of(cls, path: str, model: str, prediction: Prediction) -> "Row":
        """The row of a song that has an answer."""
        no_frames = {name: getattr(prediction, name)[..., :0].copy() for name in ("log_mel", "sounds", "peaks")}
        return cls(path, model, replace(prediction, **no_frames))

    @property
    def key(self) -> tuple[str, str]:
        """What tells it from other rows."""
        return self.path, self.model

    @property
    def name(self) -> str:
        """The name of the file, and which of that name it is if there are several."""
        name = name_of(self.path)
        return name if self.copy == 1 else f"{name} ({self.copy})"

    @property
    def error(self) -> str:
        """What is wrong with the song, in English."""
        message, values = self.fault or ("", {})
        return message.format(**values)

    @property
    def id(self) -> str:
        """What stays when rows move."""
        return sha256(f"{self.path}\n{self.model}".encode()).hexdigest()[:16]


class Visit:
    """What one visitor has done. Several events may change it at once, so that it is one object, never copied back."""

    MOST_ROWS = 200
    _changing: ClassVar[Lock] = Lock()

    def __init__(self) -> None:
        self.rows: list[Row] = []  # the newest first
        self.places: dict[str, Place] = {}  # on the map, by the id of the row
        self.about: tuple | None = None  # the song, and the name of the model, that the page was last asked about
        self.lacks = ""  # why there is no answer to look into, if there is none
        self._latest: dict[str, object] = {}  # the last start of each kind of work

    def add(self, row: Row, below: tuple[str, str] | None = None) -> bool:
        """Put a row on top, or below that with a key, which came with it. Returns whether an older one had to go."""
        with self._changing:
            rows = added(self.rows, row, below)
            is_last = len(rows) > 1 and rows[-1].key == row.key  # then older ones that came with it stand on top
            self.rows = rows[-self.MOST_ROWS :] if is_last else rows[: self.MOST_ROWS]
            self.places = places_of(self.rows, self.places)
        return len(rows) > self.MOST_ROWS

    def row(self, id: str) -> Row | None:  # noqa: A002
        """The row with this id."""
        return next((row for row in self.rows if row.id == id), None)

    def has_answer(self, path: str, model: str) -> bool:
        """Whether this model's answer to a song is in a row."""
        return any(row.key == (path, model) and row.fault is None for row in self.rows)

    def start(self, work: str) -> object:
        """Work of a kind begins, and what went on of it ends; what it gives back is for `is_latest`."""
        self._latest[work] = token = object()
        return token

    def stop(self, *works: str) -> None:
        """What goes on of these kinds of work ends."""
        for work in works:
            self.start(work)

    def latest(self, work: str) -> object:
        """The last start, for work that goes on beside others of its kind until all of them are stopped."""
        return self._latest.get(work)

    def is_latest(self, work: str, token: object) -> bool:
        """Whether no other work of the kind has begun since."""
        return self._latest.get(work) is token


def added(rows: Sequence[Row], row: Row, below: tuple[str, str] | None = None) -> list[Row]:
    """The rows with one more, the newest first; a song that the same model has heard before moves up.

    Those that came together are in the order in which they came: each is put `below` the key of the one before it.
    """
    copies = {old.path: old.copy for old in rows if name_of(old.path) == name_of(row.path)}
    row = replace(row, copy=copies.get(row.path, max(copies.values(), default=0) + 1))
    others = [old for old in rows if old.key != row.key]
    place = next((number for number, old in enumerate(others, start=1) if old.key == below), 0)
    return [*others[:place], row, *others[place:]]


def comparable(rows: Sequence[Row]) -> list[Row]:
    """The songs that can be compared: those with music in them that the model of the newest has heard."""
    with_music = [row for row in rows if row.answer and len(row.answer.embedding)]
    return [row for row in with_music if row.model == with_music[0].model]


def places_of(rows: Sequence[Row], earlier: dict[str, Place]) -> dict[str, Place]:
    """Where the songs lie on a map by likeness, close to where they lay earlier, by the id of the row."""
    alike = comparable(rows)
    if len(alike) < LEAST_ON_MAP:
        return {}
    return lay_out([row.id for row in alike], np.stack([row.answer.embedding for row in alike]), earlier)


def nearest_of(rows: Sequence[Row]) -> dict[str, list[str]]:
    """The songs that sound most like each, most alike first, all by the id of the row."""
    alike = comparable(rows)
    if len(alike) < LEAST_ON_MAP:
        return {}
    others = nearest(np.stack([row.answer.embedding for row in alike]), NEAREST)
    return {row.id: [alike[number].id for number in near] for row, near in zip(alike, others.tolist(), strict=True)}


def to_json(rows: Sequence[Row]) -> str:
    """A JSON array with an object for each song."""
    answers = [_rounded(row.answer.as_dict()) if row.answer else {"error": row.error} for row in rows]
    songs = [{"song": row.name, "model": row.model, **answer} for row, answer in zip(rows, answers, strict=True)]
    return json.dumps(songs, ensure_ascii=False)


def to_csv(rows: Sequence[Row]) -> str:
    """A table (RFC 4180) with a line for each song and a column for each genre that any of the models knows."""
    genres = sorted({genre for row in rows if row.answer for genre in row.answer.probabilities})
    text = io.StringIO()
    table = csv.writer(text)
    facts = ("genre", "is_strange", "sounds_like", "duration_seconds")
    table.writerow(map(_harmless, ["song", "model", *facts, *genres, "notices", "error"]))
    for row in rows:
        cells = [""] * (len(facts) + len(genres) + 1)
        if answer := row.answer:
            shares = [_rounded(answer.probabilities.get(genre)) for genre in genres]
            notices = " ".join(map(str, answer.notices))
            seconds = round(answer.duration_seconds, 2)
            cells = [answer.verdict, answer.is_strange, answer.sounds_like, seconds, *shares, notices]
        table.writerow(map(_harmless, [row.name, row.model, *cells, row.error]))
    return text.getvalue()


def songs_view(rows: Sequence[Row], places: Mapping[str, Place] | None = None) -> dict:
    """What the page's table and map show, ready for JSON, and the CSV, which is there without the server, too.

    On the map are the songs that have `places`.
    """
    view = {"rows": [_cells(row) for row in rows], "csv": to_csv(rows)}
    if places:
        view["map"] = {"places": places, "nearest": nearest_of(rows)}
    return view


def _cells(row: Row) -> dict:
    cells = {"id": row.id, "song": row.name, "model": row.model}
    if row.fault:
        return cells | {"error": _sentence(*row.fault)}
    answer, colours = row.answer, genre_colours(row.answer.genres)
    top = [
        {"genre": genre, "share": share, "colour": colours[genre]}
        for genre, share in islice(answer.probabilities.items(), 2)
    ]
    return cells | {
        "verdict": answer.verdict,
        "top": top,
        "seconds": round(answer.duration_seconds, 4),
        "course": _course(answer, colours),
        "notices": [_sentence(notice.message, notice.values) for notice in answer.notices],
        "is_genre": answer.verdict in answer.probabilities,
        "is_strange": answer.is_strange,  # so that the nearest genre says nothing
    }


def _sentence(message: str, values: dict[str, object]) -> dict:
    return {"message": message, "values": {name: str(value) for name, value in values.items()}}


def _course(answer: Prediction, colours: Mapping[str, str]) -> list[dict]:
    """The most probable genre of stretch after stretch of a song, with its colour and its share of the windows."""
    genres = [answer.genres[number] for number in answer.timeline.argmax(axis=1)]
    return [
        {"genre": genre, "colour": colours[genre], "share": round(len(list(stretch)) / len(genres), 4)}
        for genre, stretch in groupby(genres)
    ]


def _rounded(value: object) -> object:
    """Numbers of an answer to four digits after the point: more mean nothing."""
    if isinstance(value, float):
        return round(value, 4)
    if isinstance(value, dict):
        return {key: _rounded(item) for key, item in value.items()}
    return [_rounded(item) for item in value] if isinstance(value, list) else value


def _harmless(cell: object) -> object:
    return harmless(cell) if isinstance(cell, str) else cell
