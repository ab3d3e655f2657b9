"""The songs of a visit: one row each, to compare, to go back to, and to take away as CSV or JSON."""

import csv
import io
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from crnn.inference import NO_MUSIC, Prediction
from crnn.plots import genre_colours

FORMULA_SIGNS = ("=", "+", "-", "@", "\t", "\r", "\n")  # a spreadsheet would compute a cell that begins with one


@dataclass(frozen=True)
class Row:
    """What became of one song. Either it has an answer, or an `error` that says why not."""

    path: str  # of the file on the server, while it is kept
    model: str
    answer: dict | None = None  # Prediction.as_dict()
    colours: tuple[str, ...] = ()  # of the genres, most probable first
    error: str = ""

    @classmethod
    def of(cls, path: str, model: str, prediction: Prediction) -> "Row":
        """The row of a song that has an answer."""
        colours = genre_colours(prediction.genres)
        return cls(path, model, prediction.as_dict(), tuple(colours[genre] for genre in prediction.probabilities))

    @property
    def name(self) -> str:
        """The name of the file."""
        return Path(self.path).name


def added(rows: Sequence[Row], row: Row) -> list[Row]:
    """The rows with one more, the newest first; a song that the same model has heard before moves up."""
    return [row, *(old for old in rows if (old.path, old.model) != (row.path, row.model))]


def to_json(rows: Sequence[Row]) -> str:
    """A JSON array with an object for each song."""
    songs = [{"song": row.name, "model": row.model, **(row.answer or {"error": row.error})} for row in rows]
    return json.dumps(songs, indent=1, ensure_ascii=False)


def to_csv(rows: Sequence[Row]) -> str:
    """A table (RFC 4180) with a line for each song and a column for each genre that any of the models knows."""
    genres = sorted({genre for row in rows if row.answer for genre in row.answer["probabilities"]})
    text = io.StringIO()
    table = csv.writer(text)
    table.writerow(map(_harmless, ["song", "model", "genre", "duration_seconds", *genres, "error"]))
    for row in rows:
        answer = row.answer or {"genre": "", "duration_seconds": None, "probabilities": {}}
        seconds = answer["duration_seconds"]
        shares = [answer["probabilities"].get(genre) for genre in genres]
        cells = [row.name, row.model, answer["genre"], seconds and round(seconds, 2)]
        cells += [None if share is None else round(share, 4) for share in shares]
        table.writerow(map(_harmless, [*cells, row.error]))
    return text.getvalue()


def songs_view(rows: Sequence[Row]) -> dict:
    """What the page's table shows, ready for JSON, and the two files to take away."""
    return {
        "rows": [_cells(number, row) for number, row in enumerate(rows)],
        "csv": to_csv(rows),
        "json": to_json(rows),
    }


def _cells(number: int, row: Row) -> dict:
    cells = {"id": number, "song": row.name, "model": row.model, "error": row.error}
    if row.answer:
        top = [
            {"genre": genre, "share": share, "colour": colour}
            for (genre, share), colour in zip(row.answer["probabilities"].items(), row.colours, strict=True)
        ]
        cells |= {"verdict": row.answer["genre"], "top": top[:2], "seconds": row.answer["duration_seconds"]}
        cells["is_genre"] = row.answer["genre"] != NO_MUSIC and row.answer["genre"] in row.answer["probabilities"]
    return cells


def _harmless(cell: object) -> object:
    return f"'{cell}" if isinstance(cell, str) and cell.startswith(FORMULA_SIGNS) else cell
