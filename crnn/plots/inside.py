"""Figures of the way from sound to genre, from a `crnn.insight.inside.Trace`; `STEPS` lists them in their order."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.image import AxesImage
from matplotlib.ticker import FuncFormatter, MaxNLocator, NullLocator

from crnn.audio import SAMPLE_RATE
from crnn.features import (
    F_MAX,
    FLOOR_DB,
    FRAMES_PER_SECOND,
    HOP_LENGTH,
    N_FFT,
    N_MELS,
    band_of_hz,
    hz_of_band,
)
from crnn.insight.inside import Trace, hann
from crnn.network.front import Maps
from crnn.plots import audio
from crnn.plots.style import (
    BELOW,
    BLUE,
    DPI,
    GREY,
    INK,
    LEFT,
    MEL_TICKS_HZ,
    ORANGE,
    RIGHT,
    WIDTH,
    columns,
    genre_colours,
    ink,
    legend,
    name,
    over_time,
    picture,
    scale,
    write,
)

ZOOM_SECONDS = 0.2
SHOWN_CHANNELS = 4  # of a convolution, the most active
MOST_COLUMNS = 240  # of a layer of musicnn: finer pictures of so many channels are large
EVERY_BAND = 8  # of the filterbank is drawn
LOWEST_SPECTRUM_DB = -80.0
MOST_GENRES, MOST_LETTERS = 12, 12  # for which there is room


def waveform(trace: Trace) -> Figure:
    """The waveform of the window."""
    figure, [axes] = _over_window(trace, 0.9)
    audio.waveform(axes, trace.waveform)
    name(axes, "waveform")
    return figure


def frames(trace: Trace) -> Figure:
    """A fifth of a second about the loudest frame, and the Hann windows of the frames there."""
    centre = trace.loudest_frame * HOP_LENGTH / SAMPLE_RATE
    channel = trace.waveform[np.abs(trace.waveform).max(axis=1).argmax()]  # the loudest
    seconds = np.arange(len(channel)) / SAMPLE_RATE - centre
    shown = np.abs(seconds) <= ZOOM_SECONDS / 2
    figure, axes = _wide(1.2)
    samples = channel[shown]
    peak = max(np.abs(samples).max(), 1e-6)
    axes.plot(1_000 * (seconds[shown] + ZOOM_SECONDS / 2), samples / peak, color=BLUE, linewidth=0.6, label="waveform")
    window_ms = 1_000 * (np.arange(N_FFT) - N_FFT / 2) / SAMPLE_RATE
    for step in range(-3, 4):
        style = (
            {"color": ORANGE, "linewidth": 1.6, "label": "this frame"}
            if step == 0
            else {"color": GREY, "linewidth": 1.2, "linestyle": "--", "label": "other frames" if step == 1 else None}
        )
        axes.plot(window_ms + 1_000 * (ZOOM_SECONDS / 2 + step / FRAMES_PER_SECOND), hann(), **style)
    axes.set(xlim=(0, 1_000 * ZOOM_SECONDS), ylim=(-1.1, 1.1), xlabel="milliseconds")
    axes.yaxis.set_major_locator(NullLocator())
    legend(axes)
    return figure


def spectrum(trace: Trace) -> Figure:
    """The spectrum of the loudest frame under some triangles of the mel filterbank, and the energies of its bands."""
    figure = Figure(figsize=(WIDTH, 3.15), dpi=DPI)
    upper = figure.add_axes((LEFT, 1.84 / 3.15, RIGHT - LEFT, 1.0 / 3.15), xlim=(0, F_MAX))
    lower = figure.add_axes((LEFT, BELOW / 3.15, RIGHT - LEFT, 0.7 / 3.15), xlim=(-0.5, N_MELS - 0.5))
    decibels = np.maximum(trace.spectrum_db(trace.loudest_frame), LOWEST_SPECTRUM_DB)
    upper.plot(np.linspace(0, F_MAX, len(decibels)), decibels, color=BLUE, linewidth=0.6, label="spectrum")
    drawn = np.arange(EVERY_BAND // 2, N_MELS, EVERY_BAND)
    for band in drawn:
        corners = [hz_of_band(band + offset) for offset in (-1, 0, 1)]
        upper.fill(corners, (LOWEST_SPECTRUM_DB, 0, LOWEST_SPECTRUM_DB), color=ORANGE, alpha=0.3, linewidth=0)
        upper.plot(corners, (LOWEST_SPECTRUM_DB, 0, LOWEST_SPECTRUM_DB), color=ORANGE, linewidth=0.7)
    upper.set(ylim=(LOWEST_SPECTRUM_DB, 0), yticks=(-80, -40, 0))
    energies = trace.log_mel[:, trace.loudest_frame]
    colours = np.where(np.isin(np.arange(N_MELS), drawn), ORANGE, BLUE)
    lower.bar(np.arange(N_MELS), energies - FLOOR_DB, 0.8, FLOOR_DB, color=colours)
    lower.set(ylim=(FLOOR_DB, 0), yticks=(-80, -40, 0), xlabel="Hz")
    lower.set_xticks([band_of_hz(hz) for hz in MEL_TICKS_HZ], MEL_TICKS_HZ)
    for axes in (upper, lower):
        ink(axes)
    name(upper, "spectrum, dB")
    name(lower, "energy in each mel band, dB")
    return figure


def log_mel(trace: Trace) -> Figure:
    """The log-mel of the window."""
    return audio.mel_spectrogram(trace.log_mel, trace.start_seconds)


def convolutions(trace: Trace) -> Figure:
    """The most active channels of each convolution that keeps frequency, and all channels of those that do not."""
    figure, panels = _over_window(trace, *[0.7] * len(trace.maps))
    for axes, maps in zip(panels, trace.maps, strict=True):
        name(axes, maps.name)
        if _keeps_frequency(maps):
            _channels(axes, maps.values)
        else:
            rows = by_likeness(np.sqrt(_stretch(columns(maps.values[:, 0], most=MOST_COLUMNS))))
            _heat(axes, rows, trace, maps.values.shape[-1] * maps.frame_seconds, vmin=0, vmax=1)
    return figure


def recurrent(trace: Trace) -> Figure:
    """The states over time of the units of each direction, and the attention each step gets."""
    figure, (*panels, lower) = _over_window(trace, *[0.8] * len(trace.directions), 0.6)
    peak = max(1.0, np.abs(trace.states).max())
    parts = np.split(trace.states.T, len(trace.directions))
    for axes, states, text in zip(panels, parts, trace.directions, strict=True):
        style = {"cmap": "RdBu_r", "vmin": -peak, "vmax": peak}
        image = _heat(axes, by_likeness(states), trace, len(trace.states) * trace.step_seconds, **style)
        name(axes, text)
    scale(panels[0], image, f"{-peak:.2g}", f"{peak:.2g}")
    edges = trace.start_seconds + trace.step_seconds * np.arange(len(trace.attention) + 1)
    lower.stairs(trace.attention, edges, color=ORANGE, fill=True, alpha=0.35)
    lower.stairs(trace.attention, edges, color=ORANGE, linewidth=1.2)
    lower.axhline(1 / len(trace.attention), color=GREY, linewidth=1, linestyle="--", label="all alike")
    lower.set_ylim(0, 1.1 * max(trace.attention.max(), 2 / len(trace.attention)))
    lower.yaxis.set_major_locator(MaxNLocator(2))
    lower.yaxis.set_major_formatter(FuncFormatter(lambda share, _: f"{100 * share:g}%"))
    name(lower, "attention")
    legend(lower)
    return figure


def softmax(trace: Trace) -> Figure:
    """The logits about their mean, which makes no difference to softmax, and the probabilities, highest first."""
    order = np.argsort(-trace.probabilities, kind="stable")[:MOST_GENRES]
    all_colours = genre_colours(trace.genres)
    colours = [all_colours[trace.genres[i]] for i in order]
    names = [_shorten(trace.genres[i]) for i in order]
    height = 0.2 * len(order) + 0.55
    figure = Figure(figsize=(WIDTH, height), dpi=DPI)
    shape = (0.2 * len(order) / height, 0.2 / height)
    left = figure.add_axes((0.2, shape[1], 0.32, shape[0]))
    right = figure.add_axes((0.58, shape[1], 0.39, shape[0]), xlim=(0, 1.3))
    logits = (trace.logits - trace.logits.mean())[order]
    left.barh(range(len(order)), logits, 0.7, color=colours)
    left.axvline(0, color=INK, linewidth=0.8)
    left.set_yticks(range(len(order)), names, parse_math=False)
    right.barh(range(len(order)), trace.probabilities[order], 0.7, color=colours)
    for row, share in enumerate(trace.probabilities[order]):
        write(right, share + 0.03, row, f"{share:.0%}", ha="left", va="center")
    for axes, text in ((left, "logits"), (right, "probabilities")):
        ink(axes)
        axes.set_ylim(len(order) - 0.5, -0.5)
        axes.tick_params(length=0)
        axes.xaxis.set_major_locator(NullLocator())
        axes.spines["bottom"].set_visible(False)
        name(axes, text)
    left.spines["left"].set_visible(False)
    right.yaxis.set_major_locator(NullLocator())
    return figure


def by_likeness(rows: np.ndarray) -> np.ndarray:
    """Rows (n, steps) in an order in which neighbours are alike: by angle in the plane of their two principal axes."""
    left, strengths, _ = np.linalg.svd(rows, full_matrices=False)
    first, second = np.pad(left * strengths, ((0, 0), (0, 1)))[:, :2].T  # a single row or step has one axis only
    return rows[np.argsort(np.arctan2(first, second), kind="stable")]


def _over_window(trace: Trace, *heights: float) -> tuple[Figure, list[Axes]]:
    return over_time(heights, trace.start_seconds + trace.duration_seconds, trace.start_seconds)


def _wide(height: float) -> tuple[Figure, Axes]:
    """A figure like those over time, over something else."""
    figure, [axes] = over_time([height], 1.0)
    axes.xaxis.set_major_locator(MaxNLocator(5))
    return figure, axes


def _keeps_frequency(maps: Maps) -> bool:
    return maps.values.shape[1] > 1


def _shorten(genre: str) -> str:
    return genre if len(genre) <= MOST_LETTERS else f"{genre[: MOST_LETTERS - 1]}…"


def _stretch(rows: np.ndarray) -> np.ndarray:
    """Each row (n, steps) from 0 at its lowest to 1 at its highest."""
    rows = rows - rows.min(axis=1, keepdims=True)
    return rows / np.maximum(rows.max(axis=1, keepdims=True), 1e-6)


def _channels(axes: Axes, values: np.ndarray) -> None:
    """Side by side, the channels (channels, bands, frames) that change most, in place of the axes."""
    axes.set_axis_off()
    most_active = np.sort(np.argsort(-values.std(axis=(1, 2)), kind="stable")[:SHOWN_CHANNELS])
    width = 1 / SHOWN_CHANNELS
    for place, channel in enumerate(most_active):
        inset = axes.inset_axes((place * width, 0, 0.94 * width, 1))
        inset.imshow(values[channel], cmap="magma", aspect="auto", origin="lower", interpolation="none")
        inset.set_axis_off()


def _heat(axes: Axes, rows: np.ndarray, trace: Trace, span_seconds: float, **style: object) -> AxesImage:
    """Rows (n, frames) over the time of the window; what is left of it after the last whole frame stays empty."""
    axes.yaxis.set_major_locator(NullLocator())
    return picture(axes, rows, trace.start_seconds + span_seconds, **style)


@dataclass(frozen=True)
class Step:
    """One step on the way from sound to genre, as a page shows it: `figure(trace)`."""

    title: str
    meaning: str
    figure: Callable[[Trace], Figure]


STEPS = (
    Step(
        "Sound is a row of numbers",
        "22 050 times a second, the recording says where the membrane of a loudspeaker should be. "
        "This is the part of the song that spoke most for the answer.",
        waveform,
    ),
    Step(
        "It is cut into short frames",
        "A fifth of a second, seen closely: windows that swell and fade cut out frames of 93 ms, "
        "which overlap so that nothing is lost between them.",
        frames,
    ),
    Step(
        "Each frame becomes a spectrum, summed up in mel bands",
        "The Fourier transform tells how strong each frequency of the frame is. "
        "128 triangles, some of them drawn here, sum it up as the ear does: narrow for low sounds, wide for high ones.",
        spectrum,
    ),
    Step(
        "Frame by frame, a picture of the sound",
        "The bands of all frames side by side: time goes to the right, pitch goes up, and bright is loud. "
        "This is all that the network sees.",
        log_mel,
    ),
    Step(
        "Convolutions look for patterns",
        "Small filters slide over the picture and light up where they find what they have learned: onsets, held notes, "
        "noise. Each layer finds patterns among those of the layer before.",
        convolutions,
    ),
    Step(
        "A recurrent layer follows them through time",
        "Each row is a unit with a memory of what came before it, or after it; red is active, blue the "
        "opposite. "
        "Attention says how much each moment counts for the answer.",
        recurrent,
    ),
    Step(
        "The answer, as probabilities",
        "Each genre gets a number, its logit, and softmax turns them into shares that "
        "add up to 1: "
        "a small lead in logits is a large lead in probability.",
        softmax,
    ),
)
