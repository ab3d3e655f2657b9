"""The figures of a song, as HTML: its audio features, and the way from it to its genre."""

from collections.abc import Iterator, Sequence
from html import escape

import numpy as np
from matplotlib.figure import Figure

from crnn import plots
from crnn.audio import MAX_SECONDS, SAMPLE_RATE, Opener, load_audio, open_audio
from crnn.audio.resampling import with_channels
from crnn.features import FRAMES_PER_SECOND, HOP_LENGTH
from crnn.inference import Prediction
from crnn.insight.analysis import Waveform
from crnn.insight.inside import trace
from crnn.network.model import CRNN
from crnn.web.page import hint, say

MOST_CHANNELS = 2  # in figures: a file may have 64, of which 15 minutes take gigabytes


def sound_figures(path: str, opener: Opener = open_audio) -> Iterator[str]:
    """The audio features of a song, each as soon as it is computed. Raises AudioError."""
    waveform = Waveform(load_audio(path, opener=opener, most_channels=MOST_CHANNELS))
    if waveform.duration_seconds >= MAX_SECONDS:
        yield hint("Of this long song, these are the first {minutes} minutes.", minutes=MAX_SECONDS // 60)
    for feature in plots.FEATURES:
        values = feature.compute(waveform)
        bpm = getattr(values, "bpm", None)
        value = say("{bpm} beats a minute", bpm=round(bpm)) if bpm else ""
        yield figure(feature.title, feature.meaning, feature.figure(values), value)


def inside_figures(
    model: CRNN, path: str, prediction: Prediction, log_mel: np.ndarray, opener: Opener = open_audio
) -> Iterator[str]:
    """The way from a song that is no silence to its genre, step by step, in the window that spoke most for its answer.

    Windows that lie about a silence are taken only if there are no others.

    `log_mel` (128, frames) is that of the whole song. Raises AudioError.
    """
    n_frames = model.config.window_frames
    heard = np.flatnonzero(prediction.sounds)  # the frames of which windows are made
    starts = np.searchsorted(heard, np.round(prediction.starts_seconds * FRAMES_PER_SECOND))
    # The last window may lack a part of a step at the song's end: it is heard whole, from a little earlier on.
    windows = [heard[start : start + n_frames] for start in starts.clip(max=max(len(heard) - n_frames, 0))]
    has_no_gap = [np.ptp(window) < len(window) for window in windows]  # its figures would tell a wrong time
    answer = prediction.genres.index(next(iter(prediction.probabilities)))  # the most probable, even if it is unsure
    strongest = (prediction.timeline[:, answer] + has_no_gap).argmax()
    window = windows[strongest]
    start_seconds = float(window[0] / FRAMES_PER_SECOND)
    passage = _sounding(path, start_seconds, prediction.sounds[window[0] : window[-1] + 1], opener)
    if not has_no_gap[strongest]:
        yield hint(
            "A silence or steady tone in this part, which the model does not hear, is left out here: times after it "
            "are too early."
        )
    if len(window) < n_frames:
        seconds = round(n_frames / FRAMES_PER_SECOND)
        yield hint("The model listens to {n} seconds at a time; this sound is shorter and is repeated.", n=seconds)
    way = trace(model, log_mel[:, window], passage, start_seconds)
    for step in plots.STEPS:
        yield figure(step.title, step.meaning, step.figure(way))


def _sounding(path: str, start_seconds: float, sounds: np.ndarray, opener: Opener) -> np.ndarray:
    """The samples (channels, n) of those frames from a time on that are among `sounds` (frames,).

    A window may lie about hours of silence, of which nothing is kept. Raises AudioError.
    """
    kept, n_samples = [], -round(start_seconds * SAMPLE_RATE)  # counted as for the log-mel: a file's clock may leap
    with opener(path) as sound:
        for block in sound.blocks():
            frames = np.arange(n_samples, n_samples + block.shape[1]) // HOP_LENGTH
            is_kept = sounds[frames.clip(0, len(sounds) - 1)] & (frames >= 0) & (frames < len(sounds))
            if is_kept.any():
                kept.append(with_channels(block, min(len(block), MOST_CHANNELS))[:, is_kept])
            n_samples += block.shape[1]
            if n_samples >= len(sounds) * HOP_LENGTH:
                break
    return np.concatenate(kept, axis=1)


def figure(title: str, meaning: str, drawing: Figure, value: str = "") -> str:
    """A figure with its title, a line on what it means and maybe a value, as HTML; it can be saved."""
    svg = plots.to_svg(drawing, title).replace("<svg", f'<svg data-say-label="{escape(title)}"', 1)
    caption = f"<h2>{say(title)}</h2><p>{say(meaning)} <b>{value}</b></p>"
    return (
        f'<figure class="figure"><figcaption>{caption}</figcaption>{svg}'
        '<div class="save"><button type="button" data-save="svg">SVG</button>'
        '<button type="button" data-save="png">PNG</button></div></figure>'
    )


def in_columns(parts: Sequence[str]) -> str:
    """Figures in as many columns as there is room for."""
    return f'<div class="figures">{"".join(parts)}</div>'
