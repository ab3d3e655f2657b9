"""The log-mels of many clips, and the file that keeps them."""

import json
import zipfile
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from os import PathLike
from pathlib import Path
from tokenize import TokenError

import numpy as np
import torch
from torch import Tensor

from crnn.features import FEATURE_SETTINGS, FLOOR_DB, N_MELS, stand_on_level, to_decibels, to_levels
from crnn.files import whole_file

# What NumPy raises for a file that is damaged or not its own, and what arrays of unexpected types or shapes raise.
DAMAGE = (
    EOFError,
    zipfile.BadZipFile,
    zlib.error,
    SyntaxError,
    TokenError,
    OverflowError,
    ValueError,
    LookupError,
    TypeError,
    AttributeError,
    RuntimeError,
)


class DatasetError(ValueError):
    """Training data that cannot be used; the message is one sentence that says why and what would work."""


@dataclass(frozen=True)
class Features:
    """The log-mels of many clips, as 8-bit decibels: steps of 0.3 dB, a quarter of the memory of float32.

    logmel    uint8 (tracks, 128, frames); decibels = floor_db * (1 - logmel / 255), band 0 is the lowest
    floor_db  float32 (tracks,), at most 0
    track_id  str (tracks,)
    n_frames  int32 (tracks,): how many of the frames belong to the track, the rest is padding
    """

    logmel: np.ndarray
    floor_db: np.ndarray
    track_id: np.ndarray
    n_frames: np.ndarray

    def __len__(self) -> int:
        return len(self.track_id)

    def decibels(self, index: int) -> Tensor:
        """The log-mel (128, frames) of one track, float32 dB."""
        levels = torch.from_numpy(self.logmel[index, :, : self.n_frames[index]])
        return to_decibels(levels, float(self.floor_db[index]))

    def on_level(self) -> "Features":
        """The same clips, each on the level of its loud frames, from their stored decibels."""
        log_mels = [stand_on_level(self.decibels(index), float(self.floor_db[index])) for index in range(len(self))]
        return Features.from_log_mels(log_mels, self.track_id)

    def select(self, indices: np.ndarray) -> "Features":
        """The tracks at `indices`, in that order."""
        return Features(self.logmel[indices], self.floor_db[indices], self.track_id[indices], self.n_frames[indices])

    @classmethod
    def from_log_mels(cls, log_mels: Sequence[Tensor], track_ids: Sequence[str]) -> "Features":
        """Quantise log-mels (128, frames) of any lengths."""
        return cls.from_levels([to_levels(log_mel) for log_mel in log_mels], track_ids)

    @classmethod
    def from_levels(cls, levels: Sequence[np.ndarray], track_ids: Sequence[str]) -> "Features":
        """Put what `to_levels` gave, uint8 (128, frames) of any lengths, into one array."""
        n_frames = np.array([level.shape[-1] for level in levels], dtype=np.int32)
        logmel = np.zeros((len(levels), N_MELS, n_frames.max()), dtype=np.uint8)
        for row, level in zip(logmel, levels, strict=True):
            row[:, : level.shape[-1]] = level
        return cls(logmel, np.full(len(levels), FLOOR_DB, dtype=np.float32), np.array(track_ids), n_frames)

    @classmethod
    def concatenate(cls, parts: Sequence["Features"]) -> "Features":
        """All tracks of several, in that order."""
        widest = max(part.logmel.shape[2] for part in parts)
        padded = [np.pad(part.logmel, ((0, 0), (0, 0), (0, widest - part.logmel.shape[2]))) for part in parts]
        others = ([getattr(part, name) for part in parts] for name in ("floor_db", "track_id", "n_frames"))
        return cls(np.concatenate(padded), *map(np.concatenate, others))

    def save(self, path: str | PathLike) -> None:
        """Write the feature file (NumPy .npz); it appears under its name only when it is complete."""
        with whole_file(Path(path)) as file:
            np.savez_compressed(
                file,
                logmel=self.logmel,
                floor_db=self.floor_db,
                track_id=self.track_id,
                n_frames=self.n_frames,
                settings=json.dumps(FEATURE_SETTINGS),
            )

    @classmethod
    def load(cls, path: str | PathLike, notice: Callable[[str], None] = lambda _: None) -> "Features":
        """Read a feature file; one without `n_frames` has the same number of frames in every track.

        One that does not say how it was made is taken as if today's settings had made it, but for the level, which is
        found anew; `notice` is told.

        Raises DatasetError if the file is missing, damaged, not a feature file or made with other settings.
        """
        path = Path(path)
        try:
            with np.load(path, allow_pickle=False) as arrays:
                settings = json.loads(str(arrays["settings"])) if "settings" in arrays else None
                logmel, floor_db, track_id = arrays["logmel"], arrays["floor_db"], arrays["track_id"]
                n_frames = arrays["n_frames"] if "n_frames" in arrays else np.full(len(logmel), logmel.shape[-1])
            with np.errstate(over="ignore"):  # infinite ones are told
                features = cls(logmel, floor_db.astype(np.float32), track_id, n_frames)
            problem = features._problem()
            features = features if problem else replace(features, n_frames=n_frames.astype(np.int32))
        except FileNotFoundError as error:
            raise DatasetError(f"There is no feature file {path}.") from error
        except (OSError, *DAMAGE) as error:
            raise DatasetError(f"{path} is not a feature file, or it is damaged; make it again.") from error
        if problem:
            raise DatasetError(f"{path} is not a usable feature file: {problem}.")
        if settings is None:
            notice(f"{path} does not say how its log-mels were made; they are taken as made with today's settings.")
            return features.on_level()
        if settings != FEATURE_SETTINGS:
            differing = _differing(settings)
            raise DatasetError(f"{path} was made with other settings ({differing}): make it again from the audio.")
        return features

    def _problem(self) -> str | None:
        tracks = len(self.track_id)
        if self.logmel.dtype != np.uint8 or self.logmel.ndim != 3 or self.logmel.shape[:2] != (tracks, N_MELS):
            return f"logmel is {self.logmel.dtype} {self.logmel.shape}, not uint8 ({tracks}, {N_MELS}, frames)"
        if self.floor_db.shape != (tracks,) or not (np.isfinite(self.floor_db).all() and (self.floor_db <= 0).all()):
            return "floor_db is not one number of at most 0 dB a track"
        in_range = (self.n_frames > 0) & (self.n_frames <= self.logmel.shape[2])
        if self.n_frames.shape != (tracks,) or not in_range.all():
            return "n_frames is not one number of frames a track"
        if tracks == 0 or self.track_id.dtype.kind != "U" or len(set(self.track_id.tolist())) != tracks:
            return "the track_id are not text, not unique, or there are none"
        return None


def _differing(settings: object) -> str:
    """What of the settings of a feature file is not as here, in words."""
    if not isinstance(settings, dict):
        return "they cannot be read"
    names = [name for name in {**FEATURE_SETTINGS, **settings} if settings.get(name) != FEATURE_SETTINGS.get(name)]
    return ", ".join(f"{name} {settings.get(name)!r}, here {FEATURE_SETTINGS.get(name)!r}" for name in names)
