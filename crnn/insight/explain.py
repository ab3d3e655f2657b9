"""Why this genre: which passages of a song, in time and frequency, spoke for it and which against it.

Occlusion sensitivity: M. D. Zeiler, R. Fergus, "Visualizing and understanding convolutional networks", ECCV 2014,
arXiv:1311.2901. A patch of the log-mel is hidden, and what the genre loses is what the patch had said for it.
"""

from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import torch
from torch import Tensor

from crnn.features import F_MAX, FLOOR_DB, FRAMES_PER_SECOND, N_MELS, hz_of_band, repeat_to, sounding_frames
from crnn.network.model import CRNN
from crnn.network.songs import Report, to_nobody

# Patches are about an octave high (the lowest is the bass) and a fifth of a window long. Training hid more cells than
# that at a time (SpecAugment), so that the model knows what to do without them.
BAND_EDGES = (0, 8, 16, 32, 48, 64, 80, 96, N_MELS)
WINDOW_PATCHES = 5
MOST_COLUMNS = 240  # of patches; a song of more than eight minutes has longer ones
GROWTH = 0.5  # a passage takes in what speaks at least this much as strongly as the patch that it grew from


@dataclass(frozen=True)
class Passage:
    """A rectangle of the spectrogram, and its share of all that spoke for the genre, from 0 to 1."""

    start_seconds: float
    end_seconds: float
    low_hz: float
    high_hz: float
    share: float


@dataclass(frozen=True, eq=False)  # arrays have no single ==
class Explanation:
    """What each patch of a song said about a genre.

    A patch's evidence is the log-odds, in nats, that the genre loses in the window around the patch when it is hidden:
    positive spoke for the genre, negative against it, and silence is zero. Patches lie side by side, from the first
    frame to the last.
    """

    genre: str
    evidence: np.ndarray  # float32 (bands, columns) of patches, the lowest band first; BAND_EDGES part them
    frame_edges: np.ndarray  # int64 (columns + 1,): where the columns of patches begin and end

    def strongest(self, n: int = 3) -> list[Passage]:
        """The `n` passages that spoke most for the genre, or fewer, the weightiest first; they do not overlap.

        Each grows from the strongest patch that is left, over whole rows of neighbours that speak nearly as strongly.
        """
        left = self.evidence.clip(min=0)
        total = float(left.sum())
        passages = []
        while left.max() > 0:
            low, high, start, end = _grown(left)
            passages.append(
                Passage(
                    start_seconds=float(self.frame_edges[start] / FRAMES_PER_SECOND),
                    end_seconds=float(self.frame_edges[end] / FRAMES_PER_SECOND),
                    low_hz=_edge_hz(BAND_EDGES[low]),
                    high_hz=_edge_hz(BAND_EDGES[high]),
                    share=float(left[low:high, start:end].sum()) / total,
                )
            )
            left[low:high, start:end] = 0
        return sorted(passages, key=lambda passage: -passage.share)[:n]


@torch.inference_mode()
def explain(model: CRNN, log_mel: np.ndarray, genre: str, report: Report = to_nobody) -> Explanation:
    """What in a log-mel (128, frames) in dB spoke for `genre` and what against it, to a model in evaluation mode.

    Silences and steady tones, which the model does not hear, say nothing. `report` is told the share of the work that
    is done. Raises ValueError if the model does not know the genre or the log-mel has another shape.
    """
    config = model.config
    if genre not in config.genres:
        raise ValueError(f"the model knows {', '.join(config.genres)}, not {genre!r}")
    if log_mel.ndim != 2 or log_mel.shape[0] != N_MELS or not log_mel.shape[1]:
        raise ValueError(f"log_mel must be ({N_MELS}, frames), not {log_mel.shape}")
    song = torch.from_numpy(np.require(log_mel, np.float32, ["C", "W"]))
    sounds = sounding_frames(song)
    if not sounds.any():
        return Explanation(genre, np.zeros((len(BAND_EDGES) - 1, 1), np.float32), np.array([0, song.shape[1]]))
    clip = song[:, sounds]
    frame_edges = _frame_edges(clip.shape[1], config.window_frames)
    columns = []
    for number, (start, end) in enumerate(pairwise(frame_edges.tolist()), start=1):
        first = max(min((start + end - config.window_frames) // 2, clip.shape[1] - config.window_frames), 0)
        window = clip[:, first : first + config.window_frames]
        versions = torch.stack([window, *_hidden(window, start - first, end - first)])
        logits = model(repeat_to(versions, config.window_frames)) / config.temperature
        log_odds = _log_odds(logits, config.genres.index(genre))
        is_silent = (versions[1:] == window).all(dim=(1, 2))  # not even rounding may speak for it
        columns.append((log_odds[0] - log_odds[1:]).masked_fill(is_silent, 0.0).numpy())
        report(number / (len(frame_edges) - 1))
    return _with_silences(Explanation(genre, np.stack(columns, axis=1), frame_edges), sounds.numpy())


def _with_silences(heard: Explanation, sounds: np.ndarray) -> Explanation:
    """An explanation of the frames of a song that sound as one of the song; `sounds` is bool (frames,)."""
    column = np.full(len(sounds), -1)  # of each frame, -1 for silence
    column[sounds] = np.repeat(np.arange(heard.evidence.shape[1]), np.diff(heard.frame_edges))
    edges = np.array([0, *(np.flatnonzero(np.diff(column)) + 1), len(sounds)])
    column, frames = column[edges[:-1]], np.diff(edges)
    share = np.where(column < 0, 0, frames / np.diff(heard.frame_edges)[column])  # of a patch that a silence parts
    return Explanation(heard.genre, np.float32(heard.evidence[:, column] * share), edges)


def _frame_edges(n_frames: int, window_frames: int) -> np.ndarray:
    """Where columns of patches begin and end: int64 (columns + 1,), from 0 to `n_frames`."""
    patch_frames = max(min(n_frames, window_frames) // WINDOW_PATCHES, 1)
    most = max(MOST_COLUMNS, 2 * n_frames // window_frames)  # even the longest patch leaves half of its window
    columns = min(round(n_frames / patch_frames), most)
    return np.linspace(0, n_frames, columns + 1).round().astype(np.int64)


def _hidden(window: Tensor, start: int, end: int) -> list[Tensor]:
    """The window (128, frames) with one patch of the frames from `start` to `end` hidden, for each band of patches.

    It is hidden by the mean of the window, as in training: silence would be a sound of its own to the model. Where all
    is silence, there is nothing to hide.
    """
    versions = []
    for low, high in pairwise(BAND_EDGES):
        version = window.clone()
        patch = version[low:high, start:end]
        if patch.max() > FLOOR_DB:
            patch.fill_(window.mean())
        versions.append(version)
    return versions


def _log_odds(logits: Tensor, index: int) -> Tensor:
    """Logits (batch, n_genres) to the log-odds (batch,) of one genre against all others, exact near certainty too."""
    others = [other for other in range(logits.shape[1]) if other != index]
    return logits[:, index] - logits[:, others].logsumexp(dim=1)


def _grown(left: np.ndarray) -> tuple[int, int, int, int]:
    """The rectangle (low, high, start, end) of patches that grows from the strongest of `left` (bands, columns)."""
    band, column = np.unravel_index(left.argmax(), left.shape)
    box = (int(band), int(band) + 1, int(column), int(column) + 1)
    enough = GROWTH * left.max()
    while True:
        low, high, start, end = box
        sides = (
            (left[max(low - 1, 0) : low, start:end], (low - 1, high, start, end)),
            (left[high : high + 1, start:end], (low, high + 1, start, end)),
            (left[low:high, max(start - 1, 0) : start], (low, high, start - 1, end)),
            (left[low:high, end : end + 1], (low, high, start, end + 1)),
        )
        weakest, box = max((strip.min() if strip.size else 0.0, grown) for strip, grown in sides)
        if weakest < enough:
            return low, high, start, end


def _edge_hz(band: int) -> float:
    """The frequency below mel band `band`, half-way to the centre of the one before; 0 below all, F_MAX above all."""
    if band in (0, N_MELS):
        return 0.0 if band == 0 else F_MAX
    return hz_of_band(band - 0.5)
