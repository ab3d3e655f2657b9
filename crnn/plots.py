"""Every figure, drawn from arrays. They need no display, and several threads may draw at once."""

import io
from collections.abc import Mapping, Sequence
from html import escape
from threading import Lock

import numpy as np
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.colors import to_hex, to_rgb
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator, MultipleLocator, PercentFormatter

from crnn.features import F_MAX, FLOOR_DB, FRAMES_PER_SECOND, N_MELS

# Ten colours that the colour-blind can tell apart: M. Petroff, "Accessible color sequences", 2021, arXiv:2107.02270.
PALETTE = (
    *("#3f90da", "#ffa90e", "#bd1f01", "#94a4a2", "#832db6"),
    *("#a96b59", "#e76300", "#b9ac70", "#717581", "#92dadb"),
)
INK = "#404041"  # text and axes; to_svg puts the page's colour in its place, so nothing else may have it
FONT_POINTS = 8
DPI = 160
WIDTH = 5.0  # inches, of the figures over time
LEFT, RIGHT = 0.12, 0.97  # where their axes begin and end, in shares of the width; all alike, so that times align
MAX_COLUMNS = 720  # of the spectrogram's picture: a page has no more pixels for it
AREA_POINTS = 300  # along the areas of the timeline
MEL_TICKS_HZ = (500, 1_000, 2_000, 4_000, 8_000)
SECONDS_BETWEEN_TICKS = (1, 2, 5, 10, 15, 30, 60, 120, 180, 300)
NAMED_SHARE = 0.17  # an area of the timeline carries its name where it is this high ...
NAMED_POINTS = AREA_POINTS // 5  # ... for this long

_svg_settings = Lock()  # how text is written into an SVG is a setting of the whole process


def genre_colours(genres: Sequence[str]) -> dict[str, str]:
    """A colour "#rrggbb" for each genre: the same wherever the genres come in the same order.

    From the eleventh genre on the colours come again, each round half way closer to white.
    """
    colours = {}
    for number, genre in enumerate(genres):
        turn, place = divmod(number, len(PALETTE))
        colours[genre] = to_hex([1 - (1 - part) * 0.5**turn for part in to_rgb(PALETTE[place])])
    return colours


def mel_spectrogram(log_mel: np.ndarray) -> Figure:
    """A log-mel (128, frames) in dB, 24.1 frames a second, over seconds and Hz.

    Where a song has more frames than the picture has columns, a column shows the loudest of its frames.
    """
    n_frames = log_mel.shape[1]
    figure, axes = _over_time(1.95, n_frames / FRAMES_PER_SECOND, top=0.84)
    first_frames = np.linspace(0, n_frames, min(n_frames, MAX_COLUMNS), endpoint=False).astype(int)
    picture = axes.imshow(
        np.maximum.reduceat(log_mel, first_frames, axis=1),
        cmap="magma",
        vmin=FLOOR_DB,
        vmax=0,
        aspect="auto",
        origin="lower",
        interpolation="none",
        extent=(*axes.get_xlim(), -0.5, N_MELS - 0.5),
    )
    axes.set_yticks([_mel_band(hz) for hz in MEL_TICKS_HZ], MEL_TICKS_HZ)
    axes.set_title("Hz", x=0, pad=4, ha="right", color=INK, size=FONT_POINTS)
    scale = figure.add_axes((0.62, 0.89, 0.25, 0.05))
    figure.colorbar(picture, cax=scale, orientation="horizontal", ticks=[]).outline.set_visible(False)
    _write(scale, -0.03, 0.5, f"{FLOOR_DB:.0f}", ha="right", va="center", transform=scale.transAxes)
    _write(scale, 1.03, 0.5, "0 dB", ha="left", va="center", transform=scale.transAxes)
    return figure


def timeline(
    starts_seconds: np.ndarray,
    window_seconds: float,
    probabilities: np.ndarray,
    genres: Sequence[str],
    duration_seconds: float,
) -> Figure:
    """The probability of each genre over time: areas on top of each other, the most probable at the bottom.

    The `probabilities` (n_windows, n_genres) of a window stand at its middle, with straight lines in between. There is
    a gap where no window lies, which is where the song is silent; without any window the axes are empty.
    """
    figure, axes = _over_time(1.75, duration_seconds, top=0.94)
    axes.set(ylim=(0, 1), yticks=(0, 0.5, 1))
    axes.yaxis.set_major_formatter(PercentFormatter(1))
    if len(probabilities):
        seconds = np.linspace(0, duration_seconds, AREA_POINTS)
        shares = _interpolate(seconds, starts_seconds, min(window_seconds, duration_seconds), probabilities)
        order = np.argsort(-probabilities.mean(axis=0), kind="stable")
        _stack(axes, seconds, {genres[i]: shares[i] for i in order}, genre_colours(genres))
    return figure


def curves(history: Sequence[Mapping[str, float]]) -> Figure:
    """Loss and accuracy over the epochs of a training.

    Each row has the keys epoch, train_loss, valid_loss, train_accuracy and valid_accuracy; others are ignored.
    """
    figure = Figure(figsize=(8, 3), dpi=DPI, layout="constrained")
    epochs = [row["epoch"] for row in history]
    for axes, name in zip(figure.subplots(1, 2), ("loss", "accuracy"), strict=True):
        for part, label, colour in (("train", "training", PALETTE[0]), ("valid", "validation", PALETTE[6])):
            axes.plot(epochs, [row[f"{part}_{name}"] for row in history], color=colour, label=label, marker=".")
        axes.set(xlabel="epoch", ylabel=name)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        _ink(axes)
    figure.axes[1].yaxis.set_major_formatter(PercentFormatter(1))
    figure.axes[0].legend(frameon=False, fontsize=FONT_POINTS, labelcolor=INK)
    return figure


def confusion_matrix(matrix: Sequence[Sequence[int]], genres: Sequence[str]) -> Figure:
    """How many clips of each true genre (rows) got each answer (columns); the darker, the more of its row.

    Beside each genre stands its recall, the share of its clips that got its name.
    """
    counts = np.asarray(matrix)
    recall = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    size = 1.5 + 0.4 * len(genres)
    figure = Figure(figsize=(size, size), dpi=DPI, layout="constrained")
    axes = figure.add_subplot()
    shades = axes.imshow(recall, cmap="Blues", vmin=0, vmax=1).cmap(recall)
    for row, column in zip(*np.nonzero(counts), strict=True):
        colour = _readable_on(shades[row, column])
        _write(axes, column, row, counts[row, column], ha="center", va="center", color=colour)
    axes.set_xticks(range(len(genres)), genres, rotation=45, ha="right", rotation_mode="anchor", parse_math=False)
    rows = [f"{genre}  {recall[i, i]:.0%}" if counts[i].any() else genre for i, genre in enumerate(genres)]
    axes.set_yticks(range(len(genres)), rows, parse_math=False)
    axes.set(xlabel="answer", ylabel="true genre and its recall")
    _ink(axes)
    axes.spines[:].set_visible(False)
    return figure


def reliability(bins: Sequence[Mapping]) -> Figure:
    """How often answers of some confidence are right: the reliability diagram (Niculescu-Mizil and Caruana 2005).

    `bins` have n, confidence and accuracy; points on the diagonal mean what they say. Bars are two standard errors.
    """
    confidence, accuracy, n = (np.array([row[key] for row in bins]) for key in ("confidence", "accuracy", "n"))
    figure = Figure(figsize=(4.0, 4.0), dpi=DPI, layout="constrained")
    axes = figure.add_subplot(xlim=(0, 1), ylim=(0, 1), aspect="equal")
    axes.plot((0, 1), (0, 1), color="#94a4a2", linewidth=1, linestyle="--")
    error = 2 * np.sqrt(confidence * (1 - confidence) / n)  # of the accuracy, if the confidence is true
    axes.errorbar(confidence, accuracy, error, fmt="none", ecolor="#94a4a2", elinewidth=1)
    axes.scatter(confidence, accuracy, s=8 + 2 * n, color=PALETTE[0], zorder=3, clip_on=False)
    for x, y, count in zip(confidence, accuracy, n, strict=True):
        _write(axes, x, y - 0.06, count, ha="center", va="center", fontsize=6)
    axes.xaxis.set_major_formatter(PercentFormatter(1))
    axes.yaxis.set_major_formatter(PercentFormatter(1))
    axes.set(xlabel="probability of the answer", ylabel="share of right answers")
    _ink(axes)
    return figure


def to_svg(figure: Figure, description: str) -> str:
    """A figure as an <svg> element for a page: text and axes in the page's own colour, on its own background.

    The `description` is what a screen reader says.
    """
    page = io.StringIO()
    with _svg_settings, rc_context({"svg.fonttype": "none"}):
        figure.savefig(page, format="svg", transparent=True, metadata={"Date": None})
    _, svg = page.getvalue().split("<svg", maxsplit=1)  # before it stand declarations of XML
    return f'<svg role="img" aria-label="{escape(description)}"{svg.replace(INK, "currentColor")}'


def _over_time(height: float, duration_seconds: float, top: float) -> tuple[Figure, Axes]:
    """A figure of `height` inches, and its axes over the time of a song, which end at `top` of the height."""
    figure = Figure(figsize=(WIDTH, height), dpi=DPI)
    bottom = 0.5 / height
    axes = figure.add_axes((LEFT, bottom, RIGHT - LEFT, top - bottom), xlim=(0, duration_seconds))
    step = next((step for step in SECONDS_BETWEEN_TICKS if duration_seconds <= 7 * step), SECONDS_BETWEEN_TICKS[-1])
    axes.xaxis.set_major_locator(MultipleLocator(step))
    if duration_seconds < 60:
        axes.set_xlabel("seconds", labelpad=5)
    else:
        axes.set_xlabel("minutes:seconds", labelpad=5)
        axes.xaxis.set_major_formatter(FuncFormatter(lambda seconds, _: f"{seconds // 60:.0f}:{seconds % 60:02.0f}"))
    _ink(axes)
    return figure, axes


def _ink(axes: Axes) -> None:
    axes.tick_params(colors=INK, labelsize=FONT_POINTS)
    axes.spines[:].set_color(INK)
    axes.spines[["top", "right"]].set_visible(False)
    for label in (axes.xaxis.label, axes.yaxis.label):
        label.set(color=INK, size=FONT_POINTS)


def _write(axes: Axes, x: float, y: float, text: object, **style: object) -> None:
    """Text as it is: a genre may have a "$" in its name."""
    axes.text(x, y, str(text), **{"color": INK, "fontsize": FONT_POINTS, "parse_math": False, **style})


def _mel_band(hz: float) -> float:
    """Where `hz` lies among the mel bands on Slaney's scale; whole numbers are the centres of bands."""

    def mel(frequency: float) -> float:  # linear up to 1 kHz, logarithmic above
        return 3 * frequency / 200 if frequency < 1_000 else 15 + 27 * np.log(frequency / 1_000) / np.log(6.4)

    return mel(hz) / mel(F_MAX) * (N_MELS + 1) - 1


def _interpolate(
    seconds: np.ndarray, starts_seconds: np.ndarray, window_seconds: float, probabilities: np.ndarray
) -> np.ndarray:
    """The probabilities (n_genres, n_seconds) at `seconds`, NaN where no window lies."""
    middles = starts_seconds + window_seconds / 2
    shares = np.stack([np.interp(seconds, middles, column) for column in probabilities.T])
    into_window = seconds[:, None] - starts_seconds  # (n_seconds, n_windows)
    heard = ((into_window >= 0) & (into_window <= window_seconds)).any(axis=1)
    return np.where(heard, shares, np.nan)


def _stack(axes: Axes, seconds: np.ndarray, shares: Mapping[str, np.ndarray], colours: Mapping[str, str]) -> None:
    bottom = np.zeros_like(seconds)
    for genre, share in shares.items():
        axes.fill_between(seconds, bottom, bottom + share, color=colours[genre], linewidth=0)
        lowest = np.lib.stride_tricks.sliding_window_view(np.nan_to_num(share), NAMED_POINTS).min(axis=1)
        if lowest.max() >= NAMED_SHARE:
            middle = lowest.argmax() + NAMED_POINTS // 2
            style = {"ha": "center", "va": "center", "color": _readable_on(colours[genre])}
            _write(axes, seconds[middle], bottom[middle] + share[middle] / 2, genre, **style)
        bottom = bottom + share


def _readable_on(colour: str | Sequence[float]) -> str:
    """Black or white, whichever has more contrast (WCAG 2.2, relative luminance)."""
    linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in to_rgb(colour)]
    return "black" if np.dot((0.2126, 0.7152, 0.0722), linear) > 0.179 else "white"
