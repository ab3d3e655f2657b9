"""What the page says about the model that answers: facts, its card, and the figures of its training."""

import csv
import io
import json
import re
from collections.abc import Iterator, Sequence
from html import escape

import numpy as np
from matplotlib.figure import Figure

from crnn import plots
from crnn.checkpoint import HISTORY_FILE, METRICS_FILE, UNFIT, optional_text, own_parts
from crnn.features import FRAMES_PER_SECOND
from crnn.inference import GenreClassifier
from crnn.network.model import CRNN
from crnn.sources import Origin, page_of
from crnn.web.figures import figure
from crnn.web.page import say

MARKUP = re.compile(r"!(?=\[)|<(?=[A-Za-z/!?])|```(?=mermaid)")  # what begins a picture, HTML or a diagram
MOST_GENRES, MOST_BINS, MOST_EPOCHS = 30, 100, 2_000  # that can be drawn
MOST = 1_000_000  # of clips in a cell or a bin, of epochs, of a loss


def facts(classifier: GenreClassifier) -> str:
    """A table of what the model is, as HTML."""
    model, origin = classifier.model, classifier.origin
    config = model.config
    rows = [
        (say("Answers come from"), escape(origin.name)),
        (say("Genres"), escape(", ".join(config.genres))),
        (say("Trained on"), escape(config.trained_on or "–")),
        (say("Parameters"), f"{sum(parameter.numel() for parameter in model.parameters()):,}".replace(",", "\u202f")),
        (say("Networks whose probabilities are averaged"), _voices(model)),
        (say("Listens to windows of"), f"{config.window_frames / FRAMES_PER_SECOND:.0f} s"),
        (say("Says unsure below"), f"{config.unsure_below:.0%}"),
        *_measurements(origin),
    ]
    if origin.repo:
        address = page_of(origin.repo, origin.revision)
        link = f'<a href="{escape(address)}" target="_blank" rel="noopener">{escape(address)}</a>'
        rows.append((say("On the Hub"), link))
    cells = "".join(f'<tr><th scope="row">{name}</th><td>{value}</td></tr>' for name, value in rows)
    return f'<table class="facts">{cells}</table>'


def _voices(model: CRNN) -> str:
    n = len(model.members)
    return say("{n}, and a linear classifier that counts as much as all of them", n=n) if model.linear else str(n)


def _measurements(origin: Origin) -> list[tuple[str, str]]:
    try:
        record = _record(origin)
    except UNFIT:
        return []
    return [*_accuracy(record), *_answers(record)]


def _accuracy(record: dict) -> list[tuple[str, str]]:
    try:
        part = _part(record)
        n = int(_number(record[part], "n", 1, MOST))
        right, error = (f"{_number(record[part], name, 0, 1):.0%}" for name in ("accuracy", "accuracy_error"))
        heard_since = part in own_parts(str(record.get("trained_on", ""))).split("+")
    except UNFIT:
        return []
    name = say("Right about new clips, trained without them" if heard_since else "Right about clips it had not heard")
    return [(name, say("{right} ± {error} of {n}", right=right, error=error, n=n))]


def _answers(record: dict) -> list[tuple[str, str]]:
    """By the model's own borders, where those are not of the measured clips."""
    try:
        part = record["calibration"]["known"] if "calibration" in record else record[_part(record)]
        share, right = (f"{_number(part, name, 0, 1):.0%}" for name in ("answered", "answered_right"))
    except UNFIT:
        return []
    return [(say("Sure enough to answer"), say("{share}, and right about {right} of these", share=share, right=right))]


def card(text: str) -> str:
    """A model card, as Markdown, without its metadata, which is for the Hub, and without pictures and HTML.

    A stranger may have written it, and a picture would tell him who reads it.
    """
    if text.startswith("---\n"):
        _, end, rest = f"{text}\n".partition("\n---\n")
        text = rest if end else text
    return MARKUP.sub(r"\g<0> ", text)  # a space, as what is taken away may leave new markup behind


def training_figures(origin: Origin, genres: Sequence[str]) -> Iterator[str]:
    """Confusion matrix, reliability and curves, as far as the files that a training left beside the model have them.

    The files may come from a stranger: what does not hold the numbers that `train.py` writes gives no figure.
    """
    for title, meaning, draw in TRAINING_FIGURES:
        try:
            drawn = figure(title, meaning, draw(origin, genres))
        except UNFIT:
            continue
        yield drawn


def _confusion_matrix(origin: Origin, genres: Sequence[str]) -> Figure:
    matrix = np.array(_measured(origin)["confusion"], dtype=np.int64)
    if len(genres) > MOST_GENRES or matrix.shape != (len(genres), len(genres)):
        raise ValueError
    if not 0 <= matrix.min() <= matrix.max() <= MOST:
        raise ValueError
    return plots.confusion_matrix(matrix, genres)


def _reliability(origin: Origin, _: Sequence[str]) -> Figure:
    bins = _measured(origin)["reliability"]
    if not 0 < len(bins) <= MOST_BINS:
        raise ValueError
    rows = [
        {
            "n": int(_number(row, "n", 1, MOST)),
            "confidence": _number(row, "confidence", 0, 1),
            "accuracy": _number(row, "accuracy", 0, 1),
        }
        for row in bins
    ]
    return plots.reliability(rows)


def _curves(origin: Origin, _: Sequence[str]) -> Figure:
    if "valid" in _record(origin).get("heard", []):
        raise ValueError
    rows = list(csv.DictReader(io.StringIO(optional_text(origin.folder, HISTORY_FILE))))
    if not 0 < len(rows) <= MOST_EPOCHS:
        raise ValueError
    names = ("epoch", "train_loss", "valid_loss", "train_accuracy", "valid_accuracy")
    return plots.curves([{name: _number(row, name, 0, MOST) for name in names} for row in rows])


def _number(row: dict, name: str, least: float, most: float) -> float:
    number = float(row[name])
    if not least <= number <= most:  # nor is NaN
        raise ValueError
    return number


def _record(origin: Origin) -> dict:
    return json.loads(optional_text(origin.folder, METRICS_FILE) or "{}")


def _part(record: dict) -> str:
    """The part that a model was measured on."""
    part = "test" if "test" in record else "valid"
    if part in record.get("heard", []):
        raise ValueError
    return part


def _measured(origin: Origin) -> dict:
    record = _record(origin)
    return record[_part(record)]


TRAINING_FIGURES = (
    (
        "Confusion matrix",
        "Which genres the model takes for which, in clips it had not heard: rows are what they are, columns what it "
        "said.",
        _confusion_matrix,
    ),
    (
        "Reliability",
        "How often answers are right, by how sure they were; on the dashed line, a probability keeps its word.",
        _reliability,
    ),
    (
        "Curves",
        "Loss and accuracy while the model learned, on the clips it learned from and on those it had not heard.",
        _curves,
    ),
)
