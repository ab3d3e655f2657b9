"""From a song to its genre: what every front (page, command line, API) calls and shows."""

from dataclasses import dataclass
from os import PathLike

import numpy as np
import torch

from crnn.audio import MIN_SECONDS, SAMPLE_RATE, AudioError, load_audio
from crnn.checkpoint import CheckpointError, Origin, load_checkpoint
from crnn.features import FRAMES_PER_SECOND, HOP_LENGTH, LogMel
from crnn.network.model import CRNN

UNSURE = "unsure"
NO_MUSIC = "no music"
MOST_WINDOWS = 120  # a song of more than five minutes has them further apart, until they only adjoin
SILENCE_RMS = 1e-3  # of full scale, -60 dB, about the mean: a window that stays below is silent


@dataclass(frozen=True, eq=False)  # arrays have no single ==
class Prediction:
    """What a model heard in a song. Windows of silence are left out; where all are, there is nothing to recognise."""

    verdict: str  # a genre, UNSURE or NO_MUSIC
    probabilities: dict[str, float]  # by genre, most probable first: the mean over windows; empty for NO_MUSIC
    genres: tuple[str, ...]  # the columns of the timeline
    timeline: np.ndarray  # float32 (n_windows, n_genres): the probabilities in each window
    starts_seconds: np.ndarray  # float64 (n_windows,): where each window starts
    window_seconds: float  # how long each window is
    log_mel: np.ndarray  # float32 (128, frames) dB, 24.1 frames a second
    duration_seconds: float

    def summary(self) -> str:
        """The answer in one line: the genre, its probability and the runners-up."""
        if self.verdict == NO_MUSIC:
            return "no music: the recording is silent"
        first, *runners_up = [f"{genre} {share:.0%}" for genre, share in self.probabilities.items()][:3]
        if self.verdict == UNSURE:
            return f"unsure: {', '.join([first, *runners_up])}"
        return f"{first}, then {', '.join(runners_up)}"

    def course(self, seconds: np.ndarray) -> np.ndarray:
        """The probabilities (len(seconds), n_genres) at some times, NaN where no window lies: there the song is silent.

        Those of a window stand at its middle, with straight lines in between.
        """
        if not len(self.timeline):
            return np.full((len(seconds), len(self.genres)), np.nan)
        window_seconds = min(self.window_seconds, self.duration_seconds)
        middles = self.starts_seconds + window_seconds / 2
        shares = np.stack([np.interp(seconds, middles, column) for column in self.timeline.T], axis=1)
        into_window = seconds[:, None] - self.starts_seconds  # (n_seconds, n_windows)
        heard = ((into_window >= 0) & (into_window <= window_seconds)).any(axis=1)
        return np.where(heard[:, None], shares, np.nan)

    def as_dict(self) -> dict:
        """The answer without the spectrogram, ready for JSON."""
        rows = zip(self.starts_seconds.tolist(), self.timeline.tolist(), strict=True)
        return {
            "genre": self.verdict,
            "probabilities": self.probabilities,
            "timeline": [
                {
                    "start_seconds": start,
                    "end_seconds": min(start + self.window_seconds, self.duration_seconds),
                    "probabilities": dict(zip(self.genres, shares, strict=True)),
                }
                for start, shares in rows
            ],
            "duration_seconds": self.duration_seconds,
        }


class GenreClassifier:
    """A model ready for songs. It keeps no state between calls, so several threads may use one.

    `batch_size` is the number of windows that go through the model at once: memory and speed, not results. Raises
    CheckpointError if a genre of the model has the name of another verdict.
    """

    def __init__(self, model: CRNN, origin: Origin, batch_size: int = 16) -> None:
        if taken := {UNSURE, NO_MUSIC} & set(model.config.genres):
            raise CheckpointError(
                f"The model {origin.name} has a genre {taken.pop()!r}, which stands for no genre here."
            )
        self.model = model.eval()
        self.origin = origin
        self.batch_size = batch_size
        self.front_end = LogMel()

    @classmethod
    def from_pretrained(cls, source: str | PathLike | None = None, fallback: bool = False) -> "GenreClassifier":
        """Load a model as `crnn.checkpoint.load_checkpoint` does. Raises CheckpointError."""
        return cls(*load_checkpoint(source, fallback))

    @property
    def genres(self) -> tuple[str, ...]:
        """The genres it can tell apart."""
        return self.model.config.genres

    def predict(self, source: str | PathLike | bytes) -> Prediction:
        """Classify an audio file, or its bytes. Raises AudioError."""
        return self.predict_waveform(load_audio(source))

    @torch.inference_mode()
    def predict_waveform(self, waveform: np.ndarray) -> Prediction:
        """Classify a waveform (samples,), mono float at 22 050 Hz, full scale 1.

        Raises AudioError if it is shorter than one second, not mono or not finite, or if the model breaks down on it.
        """
        waveform = np.require(waveform, np.float32, ["C", "W"])  # what torch can take without a copy
        if waveform.ndim != 1 or len(waveform) < MIN_SECONDS * SAMPLE_RATE:
            raise AudioError(
                "A waveform must be mono and at least {least} s at {rate} Hz; this one has shape {shape}.",
                least=f"{MIN_SECONDS:g}",
                rate=SAMPLE_RATE,
                shape=waveform.shape,
            )
        config = self.model.config
        log_mel = self.front_end(torch.from_numpy(waveform))
        if not log_mel.isfinite().all():
            raise AudioError(
                "A waveform must be finite, with full scale 1; this one has NaN, infinite or huge samples."
            )
        hop_frames = min(max(config.hop_frames, log_mel.shape[1] // MOST_WINDOWS), config.window_frames)
        logits, starts = self.model.window_logits(log_mel, hop_frames, self.batch_size)
        if not logits.isfinite().all():
            raise AudioError(
                "The model {model} finds no numbers for this song: try another model.", model=self.origin.name
            )
        timeline = (logits / config.temperature).softmax(dim=-1).numpy()
        starts_samples = np.array(starts) * HOP_LENGTH
        audible = [
            waveform[start : start + config.window_frames * HOP_LENGTH].std() >= SILENCE_RMS for start in starts_samples
        ]
        timeline, starts_samples = timeline[audible], starts_samples[audible]
        probabilities, verdict = self._answer(timeline)
        return Prediction(
            verdict=verdict,
            probabilities=probabilities,
            genres=self.genres,
            timeline=timeline,
            starts_seconds=starts_samples / SAMPLE_RATE,
            window_seconds=config.window_frames / FRAMES_PER_SECOND,
            log_mel=log_mel.numpy(),
            duration_seconds=len(waveform) / SAMPLE_RATE,
        )

    def _answer(self, timeline: np.ndarray) -> tuple[dict[str, float], str]:
        """The probabilities of the whole, most probable first, and the verdict."""
        if not len(timeline):
            return {}, NO_MUSIC
        shares = zip(self.genres, timeline.mean(axis=0).tolist(), strict=True)
        probabilities = dict(sorted(shares, key=lambda item: -item[1]))
        top = next(iter(probabilities))
        return probabilities, top if probabilities[top] >= self.model.config.unsure_below else UNSURE
