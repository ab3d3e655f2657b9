"""The song over time, as data for the page's drawing: waveform, genres and mel spectrogram on one axis."""

import base64
import io
from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import torch
from matplotlib import colormaps
from matplotlib.colors import to_hex
from PIL import Image

from crnn.features import FLOOR_DB, FRAMES_PER_SECOND, N_MELS, band_of_hz, to_levels
from crnn.inference import Prediction
from crnn.insight.explain import BAND_EDGES, Explanation
from crnn.plots import genre_colours
from crnn.plots.style import MEL_TICKS_HZ, columns, readable_on

MOST_PEAKS = 6_000  # of the waveform
MOST_FRAMES = 24 * 2_048  # of the spectrogram, half an hour; of a longer song each column is several
COURSE_POINTS = 300  # along the areas of the genres, beside those at silences
MOST_SILENCES = 400  # between the areas
SHARE_DIGITS = 6  # so that whole per cents are hardly ever others than those of what is not rounded
TILE_FRAMES = 2_048  # of a picture: browsers draw nothing wider than some 16,000 pixels
PALETTE = (255 * colormaps["magma"](np.arange(256))[:, :3]).round().astype(np.uint8)
MOST_OPACITY = 200  # of 255: the spectrogram stays visible
SPOKE_FOR, SPOKE_AGAINST = (255, 169, 14), (63, 144, 218)  # orange and blue, which every eye tells apart


def song_view(name: str, prediction: Prediction) -> dict:
    """All that the drawing needs, ready for JSON.

    The genres come most probable first, with their colours and their `shares` at the times `seconds`, which are closest
    where the sound begins or ends, None where the song is silent; `tiles` are pictures of the log-mel, side by side;
    `peaks` is the envelope of the waveform, 0 to 1; `ticks_hz` are frequencies with their height from the bottom, 0 to
    1.
    """
    seconds, shares = course(prediction)
    colours = genre_colours(prediction.genres)
    order = [prediction.genres.index(genre) for genre in prediction.probabilities]
    return {
        "name": name,
        "duration_seconds": prediction.duration_seconds,
        "seconds": seconds.round(3).tolist(),
        "genres": [
            {
                "name": prediction.genres[i],
                "colour": colours[prediction.genres[i]],
                "ink": readable_on(colours[prediction.genres[i]]),  # of its name on its colour
                "share": prediction.probabilities[prediction.genres[i]],
                "shares": [None if np.isnan(share) else round(share, SHARE_DIGITS) for share in shares[:, i].tolist()],
            }
            for i in order
        ],
        "peaks": envelope(prediction.peaks).round(3).tolist(),
        "tiles": list(tiles(to_levels(torch.from_numpy(columns(prediction.log_mel, np.maximum, MOST_FRAMES))))),
        "spectrogram_seconds": prediction.log_mel.shape[1] / FRAMES_PER_SECOND,
        "ticks_hz": [[hz, (band_of_hz(hz) + 0.5) / N_MELS] for hz in MEL_TICKS_HZ],
        "floor_db": int(FLOOR_DB),
        "colours": [to_hex(colour / 255) for colour in PALETTE[::16]],
    }


def course(prediction: Prediction) -> tuple[np.ndarray, np.ndarray]:
    """Times (n,) from a song's start to its end, and its shares (n, n_genres) there, NaN where it is silent.

    They are evenly spread, and on either side of where the sound begins or ends: what sounds for seconds in hours has
    its place. Of more than MOST_SILENCES the shortest are passed over.
    """
    sounds = prediction.sounds.copy()
    silences = np.flatnonzero(np.diff(np.pad(~sounds, 1))).reshape(-1, 2)
    for first, end in silences[np.argsort(silences[:, 0] - silences[:, 1], kind="stable")[MOST_SILENCES:]]:
        sounds[first:end] = True
    edges = np.add.outer(np.flatnonzero(np.diff(sounds)) + 1, (-0.5, 0.5)).ravel() / FRAMES_PER_SECOND
    spread = np.linspace(0, prediction.duration_seconds, COURSE_POINTS)
    seconds = np.union1d(spread, edges.clip(0, prediction.duration_seconds))
    return seconds, replace(prediction, sounds=sounds).course(seconds)


def envelope(peaks: np.ndarray) -> np.ndarray:
    """The peaks (n_peaks,) of a waveform relative to the largest of all, as many as can be drawn."""
    peaks = columns(peaks, np.maximum, MOST_PEAKS)
    return peaks / max(peaks.max(), np.finfo(np.float32).tiny)


def overlay(explanation: Explanation) -> list[dict]:
    """What spoke for the genre, orange, and against it, blue, as pictures to lay over the spectrogram's."""
    n_frames = explanation.frame_edges[-1]
    frames = np.arange(0, n_frames, -(-n_frames // MOST_FRAMES))  # that are drawn
    patches = np.searchsorted(explanation.frame_edges, frames, side="right") - 1
    strength = explanation.evidence / max(np.abs(explanation.evidence).max(), np.finfo(np.float32).tiny)
    colours = np.where(strength[..., None] > 0, np.uint8(SPOKE_FOR), np.uint8(SPOKE_AGAINST))
    opacity = (MOST_OPACITY * np.sqrt(np.abs(strength))).round().astype(np.uint8)  # the root lets weak parts be seen
    picture = np.concatenate([colours, opacity[..., None]], axis=-1)
    return list(tiles(picture[:, patches].repeat(np.diff(BAND_EDGES), axis=0)))


def tiles(picture: np.ndarray) -> Iterator[dict]:
    """PNGs of a picture (128, frames) of levels or (128, frames, 4) of RGBA, the lowest band first.

    Each has its `start` and `width` as shares of the whole and its `href`, a data URI.
    """
    n_frames = picture.shape[1]
    for start in range(0, n_frames, TILE_FRAMES):
        part = picture[::-1, start : start + TILE_FRAMES]
        image = Image.fromarray(np.ascontiguousarray(part))
        if part.ndim == 2:
            image.putpalette(PALETTE.tobytes())
        file = io.BytesIO()
        image.save(file, "PNG")
        code = base64.b64encode(file.getvalue()).decode()
        yield {
            "start": start / n_frames,
            "width": part.shape[1] / n_frames,
            "href": f"data:image/png;base64,{code}",
        }
