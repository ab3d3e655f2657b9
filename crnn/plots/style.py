"""What all figures share: colours, text, axes over time, and the way into a page."""

import io
import re
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from html import escape
from math import ceil
from os import PathLike
from pathlib import Path
from threading import Lock

import numpy as np
from matplotlib import font_manager, rc_context
from matplotlib.axes import Axes
from matplotlib.backend_bases import FigureCanvasBase
from matplotlib.colors import to_hex, to_rgb
from matplotlib.figure import Figure
from matplotlib.image import AxesImage
from matplotlib.text import Text
from matplotlib.ticker import FuncFormatter, MultipleLocator

from crnn.files import whole_file

# Ten colours that the colour-blind can tell apart: M. Petroff, "Accessible color sequences", 2021, arXiv:2107.02270.
PALETTE = (
    *("#3f90da", "#ffa90e", "#bd1f01", "#94a4a2", "#832db6"),
    *("#a96b59", "#e76300", "#b9ac70", "#717581", "#92dadb"),
)
BLUE, ORANGE, GREY = PALETTE[0], PALETTE[6], PALETTE[3]  # those that are readable on white and on black
MOST_BLACK, MOST_WHITE = 0.35, 0.5  # that is mixed into them, so that they are seen on black and on white
GOLDEN = 0.618  # whose multiples, without what is before the point, lie far apart
INK = "#404041"  # text and axes; to_svg puts the page's colour in its place, so nothing else may have it
TAG_INK = re.compile(f"{INK}(?=[^<>]*>)")  # within a tag of an SVG: a genre may have its name
FONT = "DejaVu Sans"  # which Matplotlib has with it
NO_FONTS = ("Last Resort", "STIX", "cm")  # beginnings of names of fonts that have signs of their own in some places
FONT_POINTS = 8
DPI = 160
WIDTH = 5.0  # inches, of the figures over time
LEFT, RIGHT = 0.12, 0.97  # where their axes begin and end, in shares of the width; all alike, so that times align
ABOVE, BELOW = 0.31, 0.5  # inches over each panel, for its name, and under the last, for the time
MAX_COLUMNS = 720  # of a picture: a page has no more pixels for it
MOST_TICKS = 7  # of time, for which there is room
MEL_TICKS_HZ = (500, 1_000, 2_000, 4_000, 8_000)
SECONDS_BETWEEN_TICKS = (0.2, 0.5, 1, 2, 5, 10, 15, 30, 60, 120, 180, 300, 600, 900, 1_800, 3_600, 7_200)

_svg_settings = Lock()  # how text is written into an SVG is a setting of the whole process


def genre_colours(genres: Sequence[str]) -> dict[str, str]:
    """A colour "#rrggbb" for each genre: the same wherever the genres come in the same order.

    From the eleventh genre on the colours come again, round by round mixed with white, with black, and each time by
    another share.
    """
    colours = {}
    for number, genre in enumerate(genres):
        turn, place = divmod(number, len(PALETTE))
        other, most = (1, MOST_WHITE) if turn % 2 else (0, MOST_BLACK)
        share = most * (1 - 0.8 * ((turn - 1) // 2 * GOLDEN % 1)) if turn else 0
        colours[genre] = to_hex([part + (other - part) * share for part in to_rgb(PALETTE[place])])
    return colours


def to_svg(figure: Figure, description: str) -> str:
    """A figure as an <svg> element for a page: text and axes in the page's own colour, on its own background.

    The `description` is what a screen reader says.
    """
    page = io.StringIO()
    with _svg_settings, rc_context({"svg.fonttype": "none"}), _whatever_the_font():
        figure.savefig(page, format="svg", transparent=True, metadata={"Date": None})
    _, svg = page.getvalue().split("<svg", maxsplit=1)  # before it stand declarations of XML
    return f'<svg role="img" aria-label="{escape(description)}"{TAG_INK.sub("currentColor", svg)}'


def picture_file(path: Path) -> Path:
    """The path of a picture, of a PNG if it has no ending. Raises ValueError of a kind of picture that there is not."""
    path = path if path.suffix else path.with_name(f"{path.name}.png")
    kinds = [kind for kind in FigureCanvasBase.get_supported_filetypes() if kind != "pgf"]  # which asks for LaTeX
    if path.suffix[1:].lower() not in kinds:
        raise ValueError(f"{path.suffix} is no kind of picture: take one of .{', .'.join(kinds)}")
    return path


def save_picture(figure: Figure, path: str | PathLike) -> None:
    """Write a figure to a file in which all can read its text, in any script: in a font that has it, or as escapes.

    Without an ending it is a PNG, which gets one. Raises OSError, and the file is as it was, or ValueError of a kind of
    picture that there is not.
    """
    for axes in figure.axes:
        for axis in (axes.xaxis, axes.yaxis):
            labels = [label.get_text() for label in axis.get_ticklabels()]  # which get their texts then
            if (texts := [*map(readable, labels)]) != labels:
                axis.set_ticks(axis.get_ticklocs(), texts)
    for text in figure.findobj(Text):
        text.set_text(readable(text.get_text()))
        families = dict.fromkeys([FONT, *filter(None, map(_family_of, text.get_text()))])
        if len(families) > 1:
            text.set_fontfamily(list(families))
    path, content = picture_file(Path(path)), io.BytesIO()
    figure.savefig(content, format=path.suffix[1:])
    with whole_file(path) as file:
        file.write(content.getvalue())


def readable(text: str) -> str:
    """The text, with escapes for signs that no font here has, or that are none to see, but for ends of lines."""
    has_font = ((sign, sign == "\n" or (sign.isprintable() and _family_of(sign))) for sign in text)
    return "".join(sign if is_there else sign.encode("unicode_escape").decode() for sign, is_there in has_font)


@cache
def _family_of(sign: str) -> str | None:
    """The name of a font of this machine that has a sign, our own if it does."""
    others = [font for font in font_manager.fontManager.ttflist if not font.name.startswith((FONT, *NO_FONTS))]
    upright_first = sorted(others, key=lambda font: (font.style != "normal", font.weight != 400, font.name))
    for name, path in [(FONT, font_manager.findfont(FONT)), *((font.name, font.fname) for font in upright_first)]:
        try:
            if font_manager.get_font(path).get_char_index(ord(sign)):
                return name
        except (OSError, RuntimeError):  # it is gone, or of a kind that Matplotlib cannot draw
            continue
    return None


@contextmanager
def _whatever_the_font() -> Iterator[None]:
    """No warnings of signs that a font lacks, where that is seen to."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", r"Glyph .* missing from")
        yield


def over_time(
    heights: Sequence[float], end_seconds: float, start_seconds: float = 0.0, above: float = ABOVE
) -> tuple[Figure, list[Axes]]:
    """A figure with panels of these `heights` (inches) from top to bottom, all over the same time of a song."""
    height = sum(heights) + above * len(heights) + BELOW
    figure = Figure(figsize=(WIDTH, height), dpi=DPI)
    panels, top, step = [], height, _seconds_between_ticks(end_seconds - start_seconds)
    for inches in heights:
        top -= above + inches
        place = (LEFT, top / height, RIGHT - LEFT, inches / height)
        axes = figure.add_axes(place, xlim=(start_seconds, end_seconds))
        axes.xaxis.set_major_locator(MultipleLocator(step))
        axes.tick_params(labelbottom=False)
        ink(axes)
        panels.append(axes)
    last = panels[-1]
    last.tick_params(labelbottom=True)
    if end_seconds < 60:
        last.set_xlabel("seconds", labelpad=5)
    elif end_seconds < 3_600 or step < 60:
        last.set_xlabel("minutes:seconds", labelpad=5)
        last.xaxis.set_major_formatter(FuncFormatter(lambda seconds, _: _minutes(seconds, step)))
    else:
        last.set_xlabel("hours:minutes", labelpad=5)
        last.xaxis.set_major_formatter(FuncFormatter(lambda seconds, _: _minutes(seconds / 60, step)))
    return figure, panels


def _minutes(seconds: float, step_seconds: float) -> str:
    """Seconds as minutes:seconds, as exactly as ticks so far apart need, and minutes as hours:minutes."""
    decimals, width = (0, 2) if step_seconds >= 1 else (1, 4)
    minutes, rest = divmod(round(seconds, decimals), 60)
    return f"{minutes:.0f}:{rest:0{width}.{decimals}f}"


def _seconds_between_ticks(span_seconds: float) -> float:
    longest = SECONDS_BETWEEN_TICKS[-1] * ceil(span_seconds / MOST_TICKS / SECONDS_BETWEEN_TICKS[-1])
    return next((step for step in SECONDS_BETWEEN_TICKS if span_seconds <= MOST_TICKS * step), longest)


def ink(axes: Axes) -> None:
    """Axes and their labels in the page's colour."""
    axes.tick_params(colors=INK, labelsize=FONT_POINTS)
    axes.spines[:].set_color(INK)
    axes.spines[["top", "right"]].set_visible(False)
    for label in (axes.xaxis.label, axes.yaxis.label):
        label.set(color=INK, size=FONT_POINTS)


def write(axes: Axes, x: float, y: float, text: object, **style: object) -> None:
    """Text as it is: a genre may have a "$" in its name."""
    axes.text(x, y, str(text), **{"color": INK, "fontsize": FONT_POINTS, "parse_math": False, **style})


def unit(axes: Axes, text: str) -> None:
    """The unit of the vertical axis, over it."""
    axes.set_title(text, x=0, pad=4, ha="right", color=INK, size=FONT_POINTS)


def name(axes: Axes, text: str, **style: object) -> None:
    """The name of a panel, over its left end."""
    axes.set_title(text, x=0, pad=4, ha="left", color=INK, size=FONT_POINTS, **style)


def legend(axes: Axes) -> None:
    """What the lines of a panel mean, over its right end, with room for larger and longer words."""
    style = {"frameon": False, "fontsize": FONT_POINTS, "labelcolor": INK, "handlelength": 1.5, "columnspacing": 4.5}
    place = {"loc": "lower right", "bbox_to_anchor": (0.88, 1.0), "borderaxespad": 0, "borderpad": 0.3}
    axes.legend(ncols=9, **style, **place)


def scale(axes: Axes, picture: AxesImage, low: str, high: str) -> None:
    """What the colours of a picture mean, over its right end."""
    box, height = axes.get_position(), axes.figure.get_figheight()
    bar = axes.figure.add_axes((0.62, box.y1 + 0.1 / height, 0.25, 0.1 / height))
    axes.figure.colorbar(picture, cax=bar, orientation="horizontal", ticks=[]).outline.set_visible(False)
    write(bar, -0.03, 0.5, low, ha="right", va="center", transform=bar.transAxes)
    write(bar, 1.03, 0.5, high, ha="left", va="center", transform=bar.transAxes)


def columns(values: np.ndarray, reduce: np.ufunc | None = None, most: int = MAX_COLUMNS) -> np.ndarray:
    """Values (..., n) as a picture of at most `most` columns, each the mean of its values or `reduce` of them.

    Masked values have no part in the mean; a column of nothing else is masked.
    """
    n = values.shape[-1]
    first = np.linspace(0, n, min(n, most), endpoint=False).astype(int)
    if reduce is not None:
        return reduce.reduceat(values, first, axis=-1)
    heard = ~np.ma.getmaskarray(values)
    counts = np.add.reduceat(heard.astype(int), first, axis=-1)
    sums = np.add.reduceat(np.ma.filled(values, 0.0), first, axis=-1)
    means = sums / np.maximum(counts, 1)
    return np.ma.masked_where(counts == 0, means) if np.ma.isMaskedArray(values) else means


def picture(axes: Axes, values: np.ndarray, end_seconds: float, **style: object) -> AxesImage:
    """A picture of values (rows, columns) from the start of the axes' time to its own end, row 0 at the bottom."""
    extent = (axes.get_xlim()[0], end_seconds, -0.5, len(values) - 0.5)
    settings = {"cmap": "magma", "aspect": "auto", "origin": "lower", "interpolation": "none", "extent": extent}
    limits = axes.get_xlim()
    image = axes.imshow(values, **(settings | style))
    axes.set_xlim(limits)
    return image


def readable_on(colour: str | Sequence[float]) -> str:
    """Black or white, whichever has more contrast (WCAG 2.2, relative luminance)."""
    linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in to_rgb(colour)]
    return "black" if np.dot((0.2126, 0.7152, 0.0722), linear) > 0.179 else "white"
