"""From a song to its genre: what every front (page, command line, API) calls and shows."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from os import PathLike

import numpy as np
import torch

from crnn.audio import MIN_SECONDS, SAMPLE_RATE, AudioError, Notice, Opener, open_audio
from crnn.checkpoint import CheckpointError, Origin, load_checkpoint
from crnn.features import FRAMES_PER_SECOND, HOP_LENGTH, LogMel, sounding_frames
from crnn.network.model import CRNN, NO_MUSIC, UNSURE, VERDICTS

MOST_WINDOWS = 120  # a song of more than five minutes has them further apart, all over it
STRANGE_BELOW = 0.5  # of the two most probable genres together
PEAK_SAMPLES = HOP_LENGTH // 2  # of which `Prediction.peaks` has the largest


@dataclass(frozen=True, eq=False)  # arrays have no single ==
class Prediction:
    """What a model heard in a song.

    Silence is cut out before the song is parted into windows, so that each is full of sound; one that lies about a
    silence ends that much later. Where all is silent, there is nothing to recognise.

    The embedding, float32, is what the classifiers of the model's members read, one after the other, as the mean over
    windows; empty for NO_MUSIC. Songs that sound alike have alike ones (`crnn.library.similar`), by one model: those of
    others have other axes. `crnn-transfer` has 3 members with 384 features each, 1152; `crnn-scratch` has 256.
    """

    verdict: str  # a genre, UNSURE or NO_MUSIC
    probabilities: dict[str, float]  # by genre, most probable first: the mean over windows; empty for NO_MUSIC
    genres: tuple[str, ...]  # the columns of the timeline
    timeline: np.ndarray  # float32 (n_windows, n_genres): the probabilities in each window
    starts_seconds: np.ndarray  # float64 (n_windows,): where each window starts
    ends_seconds: np.ndarray  # float64 (n_windows,): where it ends
    log_mel: np.ndarray  # float32 (128, frames) dB, 24.1 frames a second
    sounds: np.ndarray  # bool (frames,): what is no silence, and so was heard
    peaks: np.ndarray  # float32 (n_peaks,): the largest absolute sample of any channel in each PEAK_SAMPLES
    duration_seconds: float
    embedding: np.ndarray = field(default_factory=lambda: np.zeros(0, np.float32))  # (features,), see below
    notices: tuple[Notice, ...] = ()  # what the person should know about the file

    def summary(self) -> str:
        """The answer in one line: the genre, its probability and the runners-up."""
        if self.verdict == NO_MUSIC:
            return "no music: the recording is silent"
        first, *runners_up = [f"{genre} {share:.0%}" for genre, share in self.probabilities.items()][:3]
        if self.verdict == UNSURE:
            why = ", like nothing it knows" if self.is_strange else ""
            return f"unsure{why}: {', '.join([first, *runners_up])}"
        return f"{first}, then {', '.join(runners_up)}"

    @property
    def is_strange(self) -> bool:
        """Whether it is unsure because the song is like nothing that it knows, rather than between two genres.

        That is where even the two most probable ones have less than STRANGE_BELOW together.
        """
        return self.verdict == UNSURE and sum([*self.probabilities.values()][:2]) < STRANGE_BELOW

    def course(self, seconds: np.ndarray) -> np.ndarray:
        """The probabilities (len(seconds), n_genres) at some times, NaN where the song is silent.

        Those of a window stand at its middle, with straight lines in between.
        """
        if not len(self.timeline):
            return np.full((len(seconds), len(self.genres)), np.nan)
        middles = (self.starts_seconds + self.ends_seconds) / 2
        shares = np.stack([np.interp(seconds, middles, column) for column in self.timeline.T], axis=1)
        frames = np.clip((seconds * FRAMES_PER_SECOND).astype(int), 0, len(self.sounds) - 1)
        return np.where(self.sounds[frames, None], shares, np.nan)

    def as_dict(self) -> dict:
        """The answer without the spectrogram, ready for JSON."""
        rows = zip(self.starts_seconds.tolist(), self.ends_seconds.tolist(), self.timeline.tolist(), strict=True)
        return {
            "genre": self.verdict,
            "probabilities": self.probabilities,
            "timeline": [
                {
                    "start_seconds": start,
                    "end_seconds": end,
                    "probabilities": dict(zip(self.genres, shares, strict=True)),
                }
                for start, end, shares in rows
            ],
            "duration_seconds": self.duration_seconds,
            "notices": [str(notice) for notice in self.notices],
        }


class GenreClassifier:
    """A model ready for songs. It keeps no state between calls, so several threads may use one.

    `batch_size` is the number of windows that go through the model at once: memory and speed, not results. `opener`
    opens songs as `open_audio` does, or elsewhere (`crnn.decoding`). Raises CheckpointError if a genre of the model has
    the name of another verdict.
    """

    def __init__(self, model: CRNN, origin: Origin, batch_size: int = 16, opener: Opener = open_audio) -> None:
        if taken := set(VERDICTS).intersection(model.config.genres):
            raise CheckpointError(
                f"The model {origin.name} has a genre {taken.pop()!r}, which stands for no genre here."
            )
        self.model = model.arranged()
        self.origin = origin
        self.batch_size = batch_size
        self.opener = opener
        self.front_end = LogMel()

    @classmethod
    def from_pretrained(
        cls, source: str | PathLike | None = None, fallback: bool = False, opener: Opener = open_audio
    ) -> "GenreClassifier":
        """Load a model as `crnn.checkpoint.load_checkpoint` does. Raises CheckpointError."""
        return cls(*load_checkpoint(source, fallback), opener=opener)

    @property
    def genres(self) -> tuple[str, ...]:
        """The genres it can tell apart."""
        return self.model.config.genres

    def predict(self, source: str | PathLike | bytes) -> Prediction:
        """Classify an audio file of any length, or its bytes. Raises AudioError."""
        with self.opener(source) as sound:
            prediction = self._predict(sound.blocks())
            return replace(prediction, notices=sound.notices)

    def predict_waveform(self, waveform: np.ndarray) -> Prediction:
        """Classify a waveform (samples,) or (channels, samples), float at 22 050 Hz, full scale 1.

        Raises AudioError if it is shorter than one second or not finite, or if the model breaks down on it.
        """
        waveform = np.atleast_2d(np.require(waveform, np.float32, ["C"]))
        if waveform.ndim != 2 or waveform.shape[1] < MIN_SECONDS * SAMPLE_RATE or not len(waveform):
            raise AudioError(
                "A waveform must be (samples,) or (channels, samples) of at least {least} s at {rate} Hz; this one has "
                "shape {shape}.",
                least=f"{MIN_SECONDS:g}",
                rate=SAMPLE_RATE,
                shape=waveform.shape,
            )
        return self._predict([waveform])

    @torch.inference_mode()
    def _predict(self, blocks: Iterable[np.ndarray]) -> Prediction:
        """Classify a waveform that comes in blocks (channels, samples)."""
        envelope = Envelope()
        log_mel = self.front_end.of_blocks(envelope.watch(blocks))
        peaks = envelope.peaks()
        if not (log_mel.isfinite().all() and np.isfinite(peaks).all()):
            raise AudioError(
                "A waveform must be finite, with full scale 1; this one has NaN, infinite or huge samples."
            )
        config, duration_seconds = self.model.config, envelope.n_samples / SAMPLE_RATE
        sounds = sounding_frames(log_mel)
        frames = sounds.nonzero()[:, 0].numpy()  # of the song, one for each of those that are heard
        timeline, edges_seconds = np.zeros((0, len(self.genres)), np.float32), np.zeros((0, 2))
        embedding = np.zeros(0, np.float32)
        if len(frames):
            hop_frames = max(config.hop_frames, len(frames) // MOST_WINDOWS)
            heard = log_mel if len(frames) == log_mel.shape[1] else log_mel[:, sounds]
            logits, embeddings, starts = self.model.hear([heard], [hop_frames], self.batch_size)[0]
            if not logits.isfinite().all():
                raise AudioError(
                    "The model {model} finds no numbers for this song: try another model.", model=self.origin.name
                )
            timeline = (logits / config.temperature).softmax(dim=-1).numpy()
            embedding = embeddings.mean(dim=0).numpy()
            lasts = np.minimum(np.array(starts) + config.window_frames, len(frames)) - 1
            edges_seconds = np.stack([frames[starts], frames[lasts] + 1], axis=1) / FRAMES_PER_SECOND
        probabilities, verdict = self._answer(timeline)
        return Prediction(
            verdict=verdict,
            probabilities=probabilities,
            genres=self.genres,
            timeline=timeline,
            starts_seconds=edges_seconds[:, 0],
            ends_seconds=np.minimum(edges_seconds[:, 1], duration_seconds),
            log_mel=log_mel.numpy(),
            sounds=sounds.numpy(),
            peaks=peaks,
            duration_seconds=duration_seconds,
            embedding=embedding,
        )

    def _answer(self, timeline: np.ndarray) -> tuple[dict[str, float], str]:
        """The probabilities of the whole, most probable first, and the verdict."""
        if not len(timeline):
            return {}, NO_MUSIC
        shares = zip(self.genres, timeline.mean(axis=0).tolist(), strict=True)
        probabilities = dict(sorted(shares, key=lambda item: -item[1]))
        top = next(iter(probabilities))
        return probabilities, top if probabilities[top] >= self.model.config.unsure_below else UNSURE


class Envelope:
    """How loud a waveform is over time, while it passes in blocks (channels, samples)."""

    def __init__(self) -> None:
        self.n_samples = 0
        self._peaks: list[np.ndarray] = []
        self._rest = np.zeros(0, np.float32)

    def watch(self, blocks: Iterable[np.ndarray]) -> Iterator[np.ndarray]:
        """The same blocks."""
        for block in blocks:
            self.n_samples += block.shape[1]
            loudest = np.concatenate([self._rest, np.abs(block).max(axis=0)])
            whole = len(loudest) // PEAK_SAMPLES * PEAK_SAMPLES
            self._peaks.append(loudest[:whole].reshape(-1, PEAK_SAMPLES).max(axis=1))
            self._rest = loudest[whole:]
            yield block

    def peaks(self) -> np.ndarray:
        """The largest absolute sample of any channel in each PEAK_SAMPLES, the last part included: (n_peaks,)."""
        rest = [self._rest.max(keepdims=True)] if len(self._rest) else []
        return np.concatenate([*self._peaks, *rest])
