"""Figures of a song: its mel spectrogram and the features of `crnn.insight.analysis`, which `FEATURES` lists."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, MaxNLocator, NullLocator, PercentFormatter, StrMethodFormatter

from crnn.features import FLOOR_DB, FRAMES_PER_SECOND, band_of_hz
from crnn.insight import analysis
from crnn.insight.analysis import (
    CONTRAST_EDGES_HZ,
    LOWEST_DBFS,
    N_MFCC,
    PITCH_CLASSES,
    Beats,
    Loudness,
    Series,
    Waveform,
)
from crnn.plots.style import (
    BLUE,
    GREY,
    MEL_TICKS_HZ,
    ORANGE,
    columns,
    genre_colours,
    legend,
    name,
    over_time,
    picture,
    readable_on,
    scale,
    unit,
    write,
)

CENTROID_TICKS_HZ = (250, 500, 1_000, 2_000, 4_000, 8_000)
CONTRAST_DB = 60.0
PICTURE_COLUMNS = 360  # of what flickers from frame to frame, or is small
MOST_MARKS = 150  # so many beats can be told apart at the width of a telephone
TEMPO_BEATS = 8  # over which the tempo of a moment is taken
MFCC_DEVIATIONS = 2.5
NAMED_SHARE = 0.09  # of the height of the timeline, which the name of a genre in its area needs
NAME_POINTS = 300  # of the timeline, a fifth of which it needs in a row


def mel_spectrogram(log_mel: np.ndarray, start_seconds: float = 0.0) -> Figure:
    """A log-mel (128, frames) in dB, 24.1 frames a second, over seconds and Hz.

    Where a song has more frames than the picture has columns, a column shows the loudest of its frames.
    """
    end_seconds = start_seconds + log_mel.shape[1] / FRAMES_PER_SECOND
    figure, [axes] = over_time([1.138], end_seconds, start_seconds)
    image = picture(axes, columns(log_mel, np.maximum), end_seconds, vmin=FLOOR_DB, vmax=0)
    axes.set_yticks([band_of_hz(hz) for hz in MEL_TICKS_HZ], MEL_TICKS_HZ)
    unit(axes, "Hz")
    scale(axes, image, f"{FLOOR_DB:.0f}", "0 dB")
    return figure


def mel_spectrograms(log_mels: Mapping[str, np.ndarray]) -> Figure:
    """Log-mels (128, frames) in dB of several songs, each under its name, all over the same time."""
    seconds = [log_mel.shape[1] / FRAMES_PER_SECOND for log_mel in log_mels.values()]
    figure, panels = over_time([0.5] * len(log_mels), max(seconds))
    for axes, song, end_seconds in zip(panels, log_mels, seconds, strict=True):
        image = picture(axes, columns(log_mels[song], np.maximum, PICTURE_COLUMNS), end_seconds, vmin=FLOOR_DB, vmax=0)
        axes.set_yticks([band_of_hz(hz) for hz in MEL_TICKS_HZ[::2]], [f"{hz} Hz" for hz in MEL_TICKS_HZ[::2]])
        name(axes, song, parse_math=False)
    scale(panels[0], image, f"{FLOOR_DB:.0f}", "0 dB")
    return figure


def timeline(seconds: np.ndarray, shares: np.ndarray, genres: Sequence[str]) -> Figure:
    """The probability of each genre over time: areas on top of each other, the most probable at the bottom.

    The `shares` (points, n_genres) are those at rising times `seconds` (points,) from the song's start to its end, NaN
    where it is silent, which leaves a gap. An area carries its name where it is high enough for long enough.
    """
    figure, [axes] = over_time([1.6], seconds[-1])
    name(axes, "probability of each genre")
    axes.set(ylim=(0, 1), yticks=(0, 0.5, 1))
    axes.yaxis.set_major_formatter(PercentFormatter(1))
    colours, bottom, heard = genre_colours(genres), np.zeros(len(shares)), np.nan_to_num(shares)
    evenly = np.searchsorted(seconds, np.linspace(seconds[0], seconds[-1], NAME_POINTS))  # for the names
    for i in np.argsort(-np.gradient(seconds) @ heard, kind="stable"):
        axes.fill_between(seconds, bottom, bottom + shares[:, i], color=colours[genres[i]], linewidth=0)
        lowest = np.lib.stride_tricks.sliding_window_view(heard[evenly, i], NAME_POINTS // 5).min(axis=1)
        if lowest.max() >= NAMED_SHARE:
            middle = evenly[lowest.argmax() + NAME_POINTS // 10]
            style = {"ha": "center", "va": "center", "color": readable_on(colours[genres[i]])}
            write(axes, seconds[middle], bottom[middle] + heard[middle, i] / 2, genres[i], **style)
        bottom = bottom + shares[:, i]
    return figure


def waveform(axes: Axes, samples: np.ndarray) -> None:
    """A waveform (channels, samples) over the time of the axes: the range of the samples in each column."""
    lowest, highest = columns(samples, np.minimum).min(axis=0), columns(samples, np.maximum).max(axis=0)
    seconds = np.linspace(*axes.get_xlim(), len(lowest))
    axes.fill_between(seconds, lowest, highest, color=BLUE, linewidth=0.4)
    peak = max(highest.max(), -lowest.min())
    axes.set_ylim(*(1.05 * (peak if peak > 0 else 1.0) * np.array((-1, 1))))
    axes.yaxis.set_major_locator(MaxNLocator(2, symmetric=True))


def loudness(feature: Loudness) -> Figure:
    """The waveform over its RMS level in dBFS."""
    figure, (upper, lower) = over_time([0.7, 0.8], feature.duration_seconds)
    waveform(upper, feature.waveform)
    name(upper, "waveform")
    # The mean of a column is that of its power, as the level of longer frames would be.
    level = 10 * np.log10(columns(10 ** (feature.dbfs / 10)))
    seconds = _seconds(level, feature.duration_seconds)
    lower.fill_between(seconds, LOWEST_DBFS, level, color=ORANGE, linewidth=0, alpha=0.25)
    lower.plot(seconds, level, color=ORANGE, linewidth=1)
    lower.set(ylim=(min(-60.0, level.min()), max(3.0, level.max())), yticks=(-60, -40, -20, 0))
    name(lower, "RMS level, dBFS")
    return figure


def chroma(feature: Series) -> Figure:
    """The twelve pitch classes over time, those of the white keys by name."""
    figure, [axes] = over_time([1.8], feature.duration_seconds)
    image = picture(axes, columns(feature.values, most=PICTURE_COLUMNS), feature.duration_seconds, vmin=0, vmax=1)
    naturals = [i for i, pitch_class in enumerate(PITCH_CLASSES) if len(pitch_class) == 1]
    axes.set_yticks(naturals, [PITCH_CLASSES[i] for i in naturals])
    name(axes, "pitch class")
    scale(axes, image, "0", "1")
    return figure


def beats(feature: Beats) -> Figure:
    """The strength of onsets with a mark under it for each beat, and the tempo over time."""
    figure, (upper, lower) = over_time([0.9, 0.6], feature.duration_seconds)
    onsets = columns(feature.onset_strength, np.maximum)
    seconds = _seconds(onsets, feature.duration_seconds)
    height = max(onsets.max(), 1.0)  # a steady tone has onsets of thousandths of a decibel
    upper.fill_between(seconds, 0, onsets, color=BLUE, linewidth=0, alpha=0.25)
    upper.plot(seconds, onsets, color=BLUE, linewidth=0.8)
    upper.set_ylim(-0.3 * height, 1.05 * height)
    upper.yaxis.set_major_locator(NullLocator())
    name(upper, "onset strength")
    name(lower, "tempo, bpm")
    if feature.bpm is None:
        lower.yaxis.set_major_locator(NullLocator())
        write(lower, 0.5, 0.5, "no steady beat", ha="center", va="center", transform=lower.transAxes)
        return figure
    times = feature.times_seconds
    if len(times) <= MOST_MARKS:
        upper.vlines(times, -0.25 * height, -0.08 * height, color=ORANGE, linewidth=1.2, label="beat")
        legend(upper)
    lower.axhline(feature.bpm, color=GREY, linewidth=1, linestyle="--", label="mean")
    lowest, highest = 0.8 * feature.bpm, 1.2 * feature.bpm
    for part in filter(lambda part: len(part) > 1, feature.parts_seconds):
        span = min(TEMPO_BEATS, len(part) - 1)
        tempo = 60 * span / (part[span:] - part[:-span])
        lower.plot((part[span:] + part[:-span]) / 2, tempo, color=ORANGE, linewidth=1.2, marker="." * (len(tempo) == 1))
        lowest, highest = min(lowest, tempo.min()), max(highest, tempo.max())
    lower.set_ylim(lowest, highest)
    lower.yaxis.set_major_locator(MaxNLocator(3, integer=True))
    legend(lower)
    return figure


def mfcc(feature: Series) -> Figure:
    """The coefficients over time, each in standard deviations from its own mean."""
    figure, [axes] = over_time([1.3], feature.duration_seconds)
    coefficients = feature.values.astype(float)
    deviation = np.ma.maximum(coefficients.std(axis=1, keepdims=True), 1.0)  # of a steady tone it is next to nothing
    values = columns((coefficients - coefficients.mean(axis=1, keepdims=True)) / deviation, most=PICTURE_COLUMNS)
    limit = MFCC_DEVIATIONS
    image = picture(axes, values, feature.duration_seconds, cmap="RdBu_r", vmin=-limit, vmax=limit)
    axes.set_yticks(range(0, N_MFCC, 4))
    name(axes, "coefficient")
    scale(axes, image, "low", "high")
    return figure


def spectral_centroid(feature: Series) -> Figure:
    """The centroid in Hz over time, by octaves, with its median; there is a gap in silence."""
    figure, [axes] = over_time([1.25], feature.duration_seconds)
    centroid = columns(feature.values)
    axes.plot(_seconds(centroid, feature.duration_seconds), centroid, color=BLUE, linewidth=1, label="centroid")
    if np.ma.count(centroid):
        axes.axhline(np.ma.median(feature.values), color=ORANGE, linewidth=1.2, linestyle="--", label="median")
        legend(axes)
    axes.set(yscale="log", ylim=(min(200.0, np.ma.filled(centroid, np.inf).min()), 11_025.0))
    axes.yaxis.set_major_locator(FixedLocator(CENTROID_TICKS_HZ))
    axes.yaxis.set_minor_locator(NullLocator())
    axes.yaxis.set_major_formatter(StrMethodFormatter("{x:.0f}"))
    unit(axes, "Hz")
    return figure


def spectral_contrast(feature: Series) -> Figure:
    """The contrast of seven bands over time, from low to high, with the frequencies where they meet."""
    figure, [axes] = over_time([1.3], feature.duration_seconds)
    image = picture(
        axes, columns(feature.values, most=PICTURE_COLUMNS), feature.duration_seconds, vmin=0, vmax=CONTRAST_DB
    )
    axes.set_yticks(np.arange(1, 7) - 0.5, CONTRAST_EDGES_HZ[1:-1])
    unit(axes, "Hz")
    scale(axes, image, "0", f"{CONTRAST_DB:.0f} dB")
    return figure


def _seconds(values: np.ndarray, duration_seconds: float) -> np.ndarray:
    """Where the columns (n,) of a line lie, the first at the start of the song and the last at its end."""
    return np.linspace(0, duration_seconds, values.shape[-1])


@dataclass(frozen=True)
class Feature:
    """An audio feature as a page shows it: `figure(compute(waveform))`."""

    title: str
    meaning: str  # to a musician
    compute: Callable[[Waveform], Any]
    figure: Callable[[Any], Figure]


FEATURES = (
    Feature(
        "Loudness",
        "How loud the recording is from moment to moment: 0 dBFS is a sine at full scale, 6 dB less is half "
        "the amplitude.",
        analysis.loudness,
        loudness,
    ),
    Feature(
        "Tempo and beats",
        "Where new sounds begin, and where one would tap a foot; half or double that tempo may feel right as well.",
        analysis.beats,
        beats,
    ),
    Feature(
        "Chroma",
        "How strong each note is, whatever its octave: the bright rows at a moment are its chord.",
        analysis.chroma,
        chroma,
    ),
    Feature(
        "Spectral centroid",
        "Where the energy lies on average: bright sounds are high, dark sounds are low.",
        analysis.spectral_centroid,
        spectral_centroid,
    ),
    Feature(
        "Spectral contrast",
        "How far tones stand out of the noise between them: clear notes are bright, cymbals and distortion are dark.",
        analysis.spectral_contrast,
        spectral_contrast,
    ),
    Feature(
        "Timbre (MFCC)",
        "The colour of the sound in 13 numbers, from its coarse shape to its fine detail: what sounds "
        "alike looks alike.",
        analysis.mfcc,
        mfcc,
    ),
)
