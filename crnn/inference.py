"""From a song to its genre: what every front (page, command line, API) calls and shows."""

import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import chain, pairwise
from math import floor, log, nan
from numbers import Integral, Real
from os import PathLike

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import Tensor

from crnn.audio import MIN_SECONDS, SAMPLE_RATE, AudioError, Notice, Opener, Passages, Sound, open_audio
from crnn.checkpoint import digest
from crnn.features import FLOOR_DB, FRAMES_PER_SECOND, HOP_LENGTH, LogMel, n_frames_of, on_level, sounding_frames
from crnn.network.config import NO_MUSIC, UNSURE
from crnn.network.devices import best_precision, checked
from crnn.network.layers import energy, window_weights
from crnn.network.model import CRNN
from crnn.network.songs import Plan, Report, Windows, hear, plan_of, to_nobody
from crnn.sources import Origin, load_checkpoint

MOST_WINDOWS = 120  # a song of more than five minutes has them further apart, all over it
STRANGE_BELOW = 0.5  # of the two most probable genres together
DOUBT_LOG_ODDS, DOUBT_ENERGY = 0.72, 0.23  # standard deviations of passages from whole songs (docs/experiments.md)
GPU_PIECES = 32  # of songs that a GPU hears at once
LISTENING_SHARE = 0.4  # of the time that an answer takes
LEAST_FRAMES = n_frames_of(MIN_SECONDS)  # that sound
PRECISIONS = ("float32", "bfloat16", "fastest")
FULL_SCALES = {"uint8": 2.0**7, "int16": 2.0**15, "int32": 2.0**31}  # of the integers in sound files
PEAK_SAMPLES = HOP_LENGTH // 2  # of which `Prediction.peaks` has the largest

if hasattr(os, "register_at_fork"):  # as Windows, where nothing forks, has not
    # PyTorch's other threads do not survive a fork: a process that waits for them would wait for ever.
    os.register_at_fork(after_in_child=lambda: torch.set_num_threads(1))


@dataclass(frozen=True, eq=False)  # arrays have no single ==
class Prediction:
    """What a model heard in a song.

    Silence is cut out before the song is parted into windows, so that each is full of sound; one that lies about a
    silence ends that much later. So are tones that stay as they are, such as hum. Where nothing else sounds, there is
    nothing to recognise. Times count what can be decoded, and the silence of a film before its sound begins: of a file
    whose clock leaps, in a hole of a stream, they are earlier than those of a player behind it.

    Its probabilities are the mean over windows, of which those count less in which little speaks for any genre, as far
    as the model asks for that (`network.layers.window_weights`).

    The embedding, float32, is what the classifiers of the model's members read, one after the other, as the mean over
    windows; empty for NO_MUSIC. Songs that sound alike have alike ones (`crnn.library.similar`), by one model: those of
    others have other axes. `crnn-transfer` has 6 members with 384 features each, `crnn-scratch` 3 with 256.
    """

    verdict: str  # a genre, UNSURE or NO_MUSIC
    probabilities: dict[str, float]  # by genre, most probable first; empty for NO_MUSIC
    genres: tuple[str, ...]  # the columns of the timeline
    timeline: np.ndarray  # float32 (n_windows, n_genres): the probabilities in each window
    starts_seconds: np.ndarray  # float64 (n_windows,): where each window starts in the song
    ends_seconds: np.ndarray  # float64 (n_windows,): where it ends
    # These three are of the whole song or, of passages, of what was heard, one behind the other.
    log_mel: np.ndarray  # float32 (128, frames) dB, 24.1 frames a second
    sounds: np.ndarray  # bool (frames,): what is no silence and no steady tone, and so was heard
    peaks: np.ndarray  # float32 (n_peaks,): the largest absolute sample of any channel in each PEAK_SAMPLES
    duration_seconds: float  # of the song
    embedding: np.ndarray = field(default_factory=lambda: np.zeros(0, np.float32))  # (features,)
    heard_seconds: float | None = None  # of the song, where these are passages; None where it is all of it
    energy: float = nan  # how much in it speaks for any genre at all, of `network.layers.energy`: mean over windows
    lacks_energy: bool = False  # whether that is less than the model's border asks for
    stranger_kind: str = ""  # of music, none of the model's genres, if there is more of it than of any that is
    notices: tuple[Notice, ...] = ()  # what the person should know about the file

    def summary(self, most: int = 3) -> str:
        """The answer in one line: the genre, its probability and the runners-up, `most` of them in all.

        Raises ValueError if `most` is less than 1.
        """
        if most < 1:
            raise ValueError(f"most is how many genres are named, from 1 up, not {most!r}.")
        if self.verdict == NO_MUSIC:
            sound = "silent" if self.is_silent else "nothing but steady tones"
            return f"no music: {'what is heard' if self.notices else 'the recording'} is {sound}"
        first, *runners_up = [f"{genre} {share:.0%}" for genre, share in self.probabilities.items()][:most]
        if self.verdict == UNSURE:
            why = ", like nothing it knows" if self.is_strange else ""
            why += f" but like {self.sounds_like}" if self.sounds_like else ""
            return f"unsure{why}: {', '.join([first, *runners_up])}"
        return f"{first}, then {', '.join(runners_up)}" if runners_up else first

    @property
    def is_silent(self) -> bool:
        """Whether nothing sounds at all, not even a tone that stays as it is."""
        return bool((self.log_mel <= FLOOR_DB).all())

    @property
    def is_strange(self) -> bool:
        """Whether it is unsure because the song is like nothing that it knows, rather than between two genres.

        That is where it lacks energy, or even the two most probable ones have less than STRANGE_BELOW together.
        """
        is_spread = sum([*self.probabilities.values()][:2]) < STRANGE_BELOW
        return self.verdict == UNSURE and (self.lacks_energy or is_spread)

    @property
    def sounds_like(self) -> str:
        """The kind of music that a strange song sounds like, where that can be told."""
        return self.stranger_kind if self.is_strange else ""

    def course(self, seconds: ArrayLike) -> np.ndarray:
        """The probabilities (..., n_genres) at times (...), NaN where nothing sounds but a steady tone or time is NaN.

        Those of a window stand at its middle, with straight lines in between. Raises ValueError where passages alone
        were heard.
        """
        if self.heard_seconds is not None:
            raise ValueError("Only passages of this song were heard, and between them nothing: see its timeline.")
        seconds = np.asarray(seconds, float)
        if not len(self.timeline):
            return np.full((*seconds.shape, len(self.genres)), np.nan)
        middles = (self.starts_seconds + self.ends_seconds) / 2
        shares = np.stack([np.interp(seconds, middles, column) for column in self.timeline.T], axis=-1)
        frames = np.nan_to_num(np.clip(seconds * FRAMES_PER_SECOND, 0, len(self.sounds) - 1)).astype(int)
        return np.where(self.sounds[frames][..., None], shares, np.nan)

    def as_dict(self) -> dict:
        """The answer ready for JSON, without what it was made of.

        That is `log_mel`, `sounds`, `peaks`, `embedding` and `energy`. `heard_seconds` is None where all was heard.
        """
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
            "is_strange": self.is_strange,
            "sounds_like": self.sounds_like,
            "duration_seconds": self.duration_seconds,
            "heard_seconds": self.heard_seconds,
            "notices": [str(notice) for notice in self.notices],
        }


class GenreClassifier:
    """A model ready for songs. It keeps no state between calls, so several threads may use one.

    So may processes: what is forked computes in one thread, as PyTorch's others do not survive that; those that are
    spawned, or come from a forkserver, have all.

    `batch_size` is the number of windows that go through the model at once: memory and speed, not results. `opener`
    opens songs as `open_audio` does, or elsewhere (`crnn.decoding`). `device` is where the model computes and
    `precision` in which numbers, of PRECISIONS. `unsure_below`, from 0 to 1, stands for the model's own border of
    probability; of what is like nothing that it knows, it is unsure all the same. Raises ValueError if one of these
    cannot be.
    """

    def __init__(
        self,
        model: CRNN,
        origin: Origin,
        batch_size: int = 16,
        opener: Opener = open_audio,
        device: str | torch.device = "cpu",
        precision: str = "float32",
        unsure_below: float | None = None,
    ) -> None:
        if precision not in PRECISIONS:
            raise ValueError(f"There is no precision {precision!r}: try {', '.join(PRECISIONS)}.")
        if not (isinstance(batch_size, Integral) and batch_size > 0):
            raise ValueError(f"batch_size is how many windows are computed at once, from 1 up, not {batch_size!r}.")
        if not (unsure_below is None or (isinstance(unsure_below, Real) and 0 <= unsure_below <= 1)):
            raise ValueError(f"unsure_below is a probability, from 0 to 1, or None, not {unsure_below!r}.")
        self.device, self.precision = checked(device), precision
        chosen = best_precision(model.config.front, self.device) if precision == "fastest" else precision
        self._is_in_bfloat16 = chosen == "bfloat16"
        self.unsure_below = model.config.unsure_below if unsure_below is None else unsure_below
        self.strange_below = model.config.strange_below
        self.model = model.arranged().to(self.device)
        self.origin = origin
        self.batch_size = batch_size
        self.opener = opener
        self.front_end = LogMel()

    @classmethod
    def from_pretrained(
        cls, source: str | PathLike | None = None, fallback: bool = False, **options: object
    ) -> "GenreClassifier":
        """Load a model as `crnn.sources.load_checkpoint` does; `options` are those of the class.

        Raises CheckpointError, and ValueError as the class does.
        """
        return cls(*load_checkpoint(source, fallback), **options)

    @property
    def genres(self) -> tuple[str, ...]:
        """The genres it can tell apart."""
        return self.model.config.genres

    @cached_property
    def name(self) -> str:
        """Where its model came from, and which one it was: what a folder or this program holds may be another later."""
        return self.origin.name if self.origin.revision else f"{self.origin.name} {digest(self.model)[:7]}"

    def predict(
        self,
        source: str | PathLike | bytes,
        passages: Passages | None = None,
        report: Report = to_nobody,
        whole_in_doubt: bool = False,
    ) -> Prediction:
        """Classify an audio file of any length, or its bytes; the whole, or passages of it.

        With `whole_in_doubt` a song whose passages leave its verdict open is heard as a whole. `report` is called again
        and again with the share of the work that is done, about 0 to 1, and from 0 again for the whole; what it raises
        ends the work and passes through. Raises AudioError.
        """
        recording = self.listen(source, passages, lambda share: report(LISTENING_SHARE * share))
        prediction = self._one(recording, lambda share: report(LISTENING_SHARE + (1 - LISTENING_SHARE) * share))
        return self.predict(source, report=report) if whole_in_doubt and self.is_in_doubt(prediction) else prediction

    def is_in_doubt(self, prediction: Prediction) -> bool:
        """Whether an answer to passages is so near to another verdict that the whole song may well have that one.

        That is within a standard deviation of what passages and whole songs differ by, in the log odds of probabilities
        and in energy.
        """
        if prediction.heard_seconds is None:
            return False
        first, second, *_ = [*prediction.probabilities.values(), 0.0]
        of_first, of_second, of_border = map(_log_odds, (first, second, self.unsure_below))
        margins = [(of_first - of_border) / DOUBT_LOG_ODDS, (prediction.energy - self.strange_below) / DOUBT_ENERGY]
        if prediction.verdict != UNSURE:
            margins.append((of_first - of_second) / DOUBT_LOG_ODDS)
        return abs(min(margins)) < 1

    def predict_waveform(self, waveform: ArrayLike) -> Prediction:
        """Classify a waveform (samples,) or (channels, samples) at 22 050 Hz.

        Its samples, also of a tensor or in lists, are floats with full scale 1, or the integers of FULL_SCALES. Raises
        AudioError if they are others, if it is shorter than one second, sounds for less or is not finite, or if the
        model breaks down on it.
        """
        waveform = np.atleast_2d(_as_float32(waveform))
        if waveform.ndim != 2 or waveform.shape[1] < MIN_SECONDS * SAMPLE_RATE or not len(waveform):
            raise AudioError(
                "A waveform must be (samples,) or (channels, samples) of at least {least} s at {rate} Hz; this one has "
                "shape {shape}.",
                least=f"{MIN_SECONDS:g}",
                rate=SAMPLE_RATE,
                shape=waveform.shape,
            )
        return self._one(_long_enough(self._listen([waveform])))

    def listen(
        self,
        source: str | PathLike | bytes,
        passages: Passages | None = None,
        report: Report = to_nobody,
    ) -> "Recording":
        """What `answer` needs of a file, without the model; `report` is told how much of a whole song has come.

        A song that is too short for the passages, lacks one, or hardly sounds in all of them, is heard as a whole.
        Raises AudioError, also where it sounds for less than a second, but is neither silent nor a steady tone.
        """
        if passages:
            with self.opener(source, passages=passages) as sound:
                blocks = list(sound.blocks())
                recording = self._listen(blocks, is_parted=True) if sound.starts_seconds else None
                if recording and recording.sounds.sum() >= max(LEAST_FRAMES, self.model.config.min_frames):
                    return replace(
                        recording,
                        duration_seconds=sound.duration_seconds,
                        starts_seconds=sound.starts_seconds,
                        notices=sound.notices,
                    )
        with self.opener(source) as sound:
            return replace(_long_enough(self._listen(_reported(sound, report))), notices=sound.notices)

    @torch.inference_mode()
    def answer(self, recordings: Sequence["Recording"], report: Report = to_nobody) -> list["Prediction | AudioError"]:
        """Classify several songs at once; an error in place of an answer where the model breaks down on a song.

        `report` is told the share of what the convolutions hear that is done.
        """
        pieces_at_once = 1 if self.device.type == "cpu" else GPU_PIECES
        parted = [self._windows(recording) for recording in recordings]
        plans = [plan for plan, _ in parted if plan.starts]
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self._is_in_bfloat16):
            given = iter(hear(self.model, plans, self.batch_size, pieces_at_once, report))
        return [
            self._prediction(recording, next(given) if plan.starts else None, frames)
            for recording, (plan, frames) in zip(recordings, parted, strict=True)
        ]

    def _one(self, recording: "Recording", report: Report = to_nobody) -> Prediction:
        (prediction,) = self.answer([recording], report)
        if isinstance(prediction, AudioError):
            raise prediction
        return prediction

    @torch.inference_mode()
    def _listen(self, blocks: Iterable[np.ndarray], is_parted: bool = False) -> "Recording":
        """The recording of a waveform that comes in blocks (channels, samples); `is_parted` if each is a passage."""
        envelope = Envelope()
        blocks = envelope.watch(blocks)
        if is_parted:
            parts = [[*self.front_end.powers([block])] for block in blocks]
            lengths = [sum(part.shape[1] for part in of_block) for of_block in parts]
            log_mel = on_level(chain.from_iterable(parts))
        else:
            log_mel, lengths = self.front_end.of_blocks(blocks), []
        peaks = envelope.peaks()
        if not (log_mel.isfinite().all() and np.isfinite(peaks).all()):
            raise AudioError(
                "A waveform must be finite, with full scale 1; this one has NaN, infinite or huge samples."
            )
        seconds = envelope.n_samples / SAMPLE_RATE
        return Recording(log_mel, sounding_frames(log_mel), peaks, seconds, seconds, tuple(lengths))

    def _windows(self, recording: "Recording") -> tuple[Plan, np.ndarray]:
        """The windows of what sounds, and the frames (n, 2) where they begin and end."""
        config, log_mel = self.model.config, recording.log_mel
        frames = recording.sounds.nonzero()[:, 0]
        if recording.starts_seconds:
            parts = as_long_as_windows(frames.split(recording.sounding_lengths()), config.window_frames)
            parts = [part for part in parts if len(part) >= config.min_frames]
            plan = Plan([int(part[0]) for part in parts], [log_mel[:, part].to(self.device) for part in parts])
            return plan, np.array([(part[0], part[-1] + 1) for part in parts]).reshape(-1, 2)
        if not len(frames):
            return Plan([], []), np.zeros((0, 2), int)
        heard = (log_mel if len(frames) == log_mel.shape[1] else log_mel[:, frames]).to(self.device)
        plan = plan_of(self.model, heard, max(config.hop_frames, len(frames) // MOST_WINDOWS))
        starts = np.array(plan.starts)
        lasts = np.minimum(starts + config.window_frames, len(frames)) - 1
        frames = frames.numpy()
        return plan, np.stack([frames[starts], frames[lasts] + 1], axis=1)

    def _prediction(
        self, recording: "Recording", windows: Windows | None, edges_frames: np.ndarray
    ) -> "Prediction | AudioError":
        timeline, embedding = np.zeros((0, len(self.genres)), np.float32), np.zeros(0, np.float32)
        weights = np.zeros(0, np.float32)
        of_any, stranger_kind = nan, ""
        if windows is not None:
            timeline = (windows.logits / self.model.config.temperature).softmax(dim=-1).cpu().numpy()
            embedding = windows.embeddings.mean(dim=0).cpu().numpy()
            energies = energy(windows.logits)
            of_any = energies.mean().item()
            weights = window_weights(energies, self.model.config.evidence).cpu().numpy()
            stranger_kind = self.model.strangeness.sounds_like(windows.kinds.mean(dim=0))
            # Finite logits may still overflow on their way through a temperature, a product or a mean.
            if not all(np.isfinite(numbers).all() for numbers in (timeline, weights, of_any, embedding)):
                return AudioError(
                    "The model {model} gives no valid probabilities for this song: try another model.",
                    model=self.origin.name,
                )
        edges_seconds = recording.seconds_of(edges_frames)
        lacks_energy = of_any < self.strange_below
        probabilities, verdict = self._answer(timeline, weights, lacks_energy)
        return Prediction(
            verdict=verdict,
            probabilities=probabilities,
            genres=self.genres,
            timeline=timeline,
            starts_seconds=edges_seconds[:, 0],
            ends_seconds=np.minimum(edges_seconds[:, 1], recording.duration_seconds),
            log_mel=recording.log_mel.numpy(),
            sounds=recording.sounds.numpy(),
            peaks=recording.peaks,
            duration_seconds=recording.duration_seconds,
            heard_seconds=recording.heard_seconds if recording.starts_seconds else None,
            embedding=embedding,
            energy=of_any,
            lacks_energy=lacks_energy,
            stranger_kind=stranger_kind,
            notices=recording.notices,
        )

    def _answer(self, timeline: np.ndarray, weights: np.ndarray, lacks_energy: bool) -> tuple[dict[str, float], str]:
        """The probabilities of the whole, most probable first, and the verdict."""
        if not len(timeline):
            return {}, NO_MUSIC
        shares = zip(self.genres, (weights @ timeline).tolist(), strict=True)
        probabilities = dict(sorted(shares, key=lambda item: -item[1]))
        top = next(iter(probabilities))
        return probabilities, UNSURE if lacks_energy or probabilities[top] < self.unsure_below else top


def _as_float32(waveform: ArrayLike) -> np.ndarray:
    """Samples with full scale 1. Raises AudioError for what is no array of samples."""
    kind = type(waveform).__name__
    try:
        if isinstance(waveform, Tensor):
            waveform = waveform.detach().cpu()
            waveform = (waveform.float() if waveform.is_floating_point() else waveform).numpy()  # which has no bfloat16
        samples = np.asarray(waveform)
        kind = samples.dtype.name
    except (TypeError, ValueError, RuntimeError):  # such as a list with channels of different lengths
        samples = np.zeros(0, object)
    if kind in FULL_SCALES:
        middle = FULL_SCALES[kind] if samples.dtype.kind == "u" else 0.0
        return (samples.astype(np.float32, order="C") - np.float32(middle)) / np.float32(FULL_SCALES[kind])
    if samples.dtype.kind != "f":
        raise AudioError(
            "A waveform must be an array of floats with full scale 1, or of integers as in sound files ({kinds}), not "
            "{kind}.",
            kinds=", ".join(FULL_SCALES),
            kind=kind,
        )
    with np.errstate(over="ignore"):  # what becomes infinite is told
        return np.ascontiguousarray(samples, np.float32)


def _log_odds(share: float) -> float:
    share = min(max(share, 1e-9), 1 - 1e-9)  # a sum of float32 may be a little more than 1, a border much
    return log(share / (1 - share))


def _reported(sound: Sound, report: Report) -> Iterator[np.ndarray]:
    """The blocks of a sound; `report` is called with the share of it that has come, 0 where nobody knows its length."""
    n_samples = 0
    for block in sound.blocks():
        n_samples += block.shape[1]
        seconds = n_samples / sound.sample_rate
        report(min(seconds / sound.expected_seconds, 1.0) if sound.expected_seconds > 0 else 0.0)
        yield block


def _long_enough(recording: "Recording") -> "Recording":
    """The same. Raises AudioError for one that sounds, but too briefly to be recognised."""
    if 0 < (n_frames := int(recording.sounds.sum())) < LEAST_FRAMES:
        raise AudioError(
            "Only {seconds} s of it sounds: at least {least} s is needed.",
            seconds=f"{floor(10 * n_frames / FRAMES_PER_SECOND) / 10:.1f}",
            least=f"{MIN_SECONDS:g}",
        )
    return recording


def as_long_as_windows(passages: Sequence[Tensor], window_frames: int) -> list[Tensor]:
    """The frames (n,) of passages; those shorter than a window are joined until they are as long as one.

    So a model hears as much at once as it was trained on: of less it is less sure, and more often than of a whole song.
    """
    n_windows = max(1, min(len(passages), sum(map(len, passages)) // window_frames))
    edges = [len(passages) * number // n_windows for number in range(n_windows + 1)]
    return [torch.cat(passages[start:end]) for start, end in pairwise(edges)]


@dataclass(frozen=True, eq=False)
class Recording:
    """What is heard of a song before a model is asked: all of it, or passages one behind the other."""

    log_mel: Tensor  # (128, frames) dB
    sounds: Tensor  # bool (frames,): what is no silence and no steady tone
    peaks: np.ndarray  # as in Prediction
    duration_seconds: float  # of the song
    heard_seconds: float
    lengths_frames: tuple[int, ...] = ()  # of each passage
    starts_seconds: tuple[float, ...] = ()  # of each passage in the song; none where all of it is heard
    notices: tuple[Notice, ...] = ()

    def sounding_lengths(self) -> list[int]:
        """How many frames of each passage sound."""
        return [int(part.sum()) for part in self.sounds.split(list(self.lengths_frames))]

    def seconds_of(self, edges_frames: np.ndarray) -> np.ndarray:
        """Where windows (n, 2), from their first frame to that behind their last one, begin and end in the song."""
        if not self.starts_seconds:
            return edges_frames / FRAMES_PER_SECOND
        firsts = np.cumsum((0, *self.lengths_frames[:-1]))
        part = np.searchsorted(firsts, edges_frames - (0, 1), side="right") - 1  # of the last frame, not behind it
        return np.array(self.starts_seconds)[part] + (edges_frames - firsts[part]) / FRAMES_PER_SECOND


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
