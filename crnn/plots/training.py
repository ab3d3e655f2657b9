"""Figures of a training and of what came of it."""

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, PercentFormatter

from crnn.plots.style import (
    BLUE,
    DPI,
    FONT_POINTS,
    GREY,
    INK,
    ORANGE,
    WIDTH,
    genre_colours,
    ink,
    name,
    readable,
    readable_on,
    write,
)

LARGEST_DISC = 200  # points², of a reliability diagram
USUAL_SIGNS, MOST_SIGNS = 10, 28  # of the names of genres beside a confusion matrix
ROW_INCHES, MOST_SIGNS_IN_ROW = 0.17, 64  # of the names of runs under their curves, as wide as a "W" each


def curves(history: Sequence[Mapping[str, float]]) -> Figure:
    """Loss and accuracy over the epochs of a training.

    Each row has the keys epoch, train_loss, valid_loss, train_accuracy and valid_accuracy; others are ignored.
    """
    figure = Figure(figsize=(WIDTH, 4.4), dpi=DPI, layout="constrained")
    epochs = [row["epoch"] for row in history]
    for axes, measure in zip(figure.subplots(2, 1), ("loss", "accuracy"), strict=True):
        for part, label, colour in (("train", "training", BLUE), ("valid", "validation", ORANGE)):
            axes.plot(epochs, [row[f"{part}_{measure}"] for row in history], color=colour, label=label, marker=".")
        _over_epochs(axes)
        name(axes, measure)  # over the axis: beside it, larger text on small screens would run into the numbers
    figure.axes[1].yaxis.set_major_formatter(PercentFormatter(1))
    figure.axes[0].legend(frameon=False, fontsize=FONT_POINTS, labelcolor=INK)
    return figure


def compared(histories: Mapping[str, Sequence[Mapping[str, float]]]) -> Figure:
    """Validation loss and accuracy over the epochs of several trainings, by name; rows are as for `curves`."""
    figure = Figure(figsize=(8, 3 + ROW_INCHES * len(histories)), dpi=DPI, layout="constrained")
    colours = genre_colours(list(histories))
    for axes, measure in zip(figure.subplots(1, 2), ("loss", "accuracy"), strict=True):
        lines = []
        for run, history in histories.items():
            values = [row[f"valid_{measure}"] for row in history]
            (line,) = axes.plot([row["epoch"] for row in history], values, color=colours[run], marker=".")
            lines.append(line)
        axes.set(ylabel=f"validation {measure}")
        _over_epochs(axes)
    figure.axes[1].yaxis.set_major_formatter(PercentFormatter(1))
    style = {"frameon": False, "fontsize": FONT_POINTS, "labelcolor": INK}
    legend = figure.legend(lines, ["run"] * len(lines), loc="outside lower left", **style)
    for text, run in zip(legend.get_texts(), histories, strict=True):
        text.set_text(_shortened(run, MOST_SIGNS_IN_ROW))  # only now, as labels that begin with "_" would be left out
        text.set_parse_math(False)
    return figure


def _over_epochs(axes: Axes) -> None:
    axes.set(xlabel="epoch")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))  # one where there is one epoch
    ink(axes)


def confusion_matrix(matrix: Sequence[Sequence[int]], genres: Sequence[str]) -> Figure:
    """How many clips of each true genre (rows) got each answer (columns); the darker, the more of its row.

    Beside each genre stands its recall, the share of its clips that got its name.
    """
    genres = [_shortened(genre, MOST_SIGNS) for genre in genres]
    counts = np.asarray(matrix)
    recall = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    size = 1.5 + 0.4 * len(genres) + 0.06 * max(0, max(len(readable(genre)) for genre in genres) - USUAL_SIGNS)
    figure = Figure(figsize=(size, size), dpi=DPI, layout="constrained")
    axes = figure.add_subplot()
    shades = axes.imshow(recall, cmap="Blues", vmin=0, vmax=1).cmap(recall)
    for row, column in zip(*np.nonzero(counts), strict=True):
        colour = readable_on(shades[row, column])
        write(axes, column, row, counts[row, column], ha="center", va="center", color=colour)
    axes.set_xticks(range(len(genres)), genres, rotation=45, ha="right", rotation_mode="anchor", parse_math=False)
    rows = [f"{genre}  {recall[i, i]:.0%}" if counts[i].any() else genre for i, genre in enumerate(genres)]
    axes.set_yticks(range(len(genres)), rows, parse_math=False)
    axes.set(xlabel="answer")
    ink(axes)
    name(axes, "true genre and its recall")
    axes.spines[:].set_visible(False)
    return figure


def _shortened(name: str, most_signs: int) -> str:
    """A name that takes no more signs in a picture, be it in escapes."""
    fitting = (name[:end] for end in range(len(name), 0, -1) if len(readable(name[:end])) <= most_signs)
    start = next(fitting, name[:1])
    return name if start == name else f"{start}…"


def reliability(bins: Sequence[Mapping]) -> Figure:
    """How often answers of some confidence are right: the reliability diagram (Niculescu-Mizil and Caruana 2005).

    `bins` have n, confidence and accuracy; points on the diagonal mean what they say. Bars are two standard errors.
    """
    confidence, accuracy, n = (np.array([row[key] for row in bins]) for key in ("confidence", "accuracy", "n"))
    figure = Figure(figsize=(5.5, 5.5), dpi=DPI, layout="constrained")
    axes = figure.add_subplot(xlim=(0, 1), ylim=(0, 1), aspect="equal")
    axes.plot((0, 1), (0, 1), color=GREY, linewidth=1, linestyle="--")
    error = 2 * np.sqrt(confidence * (1 - confidence) / n)  # of the accuracy, if the confidence is true
    axes.errorbar(confidence, accuracy, error, fmt="none", ecolor=GREY, elinewidth=1)
    sizes = 8 + n * min(2, LARGEST_DISC / n.max(initial=1))
    axes.scatter(confidence, accuracy, s=sizes, color=BLUE, zorder=3, clip_on=False)
    for x, y, count in zip(confidence, accuracy, n, strict=True):
        write(axes, x, y - 0.06 if y > 0.1 else y + 0.06, count, ha="center", va="center", fontsize=6)
    axes.xaxis.set_major_formatter(PercentFormatter(1))
    axes.yaxis.set_major_formatter(PercentFormatter(1))
    axes.set(xlabel="probability of the answer")
    ink(axes)
    name(axes, "share of right answers")
    return figure
