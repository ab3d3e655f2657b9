"""Clips with their genres: what the data gives and training takes."""

from dataclasses import dataclass, field
from hashlib import sha256

import numpy as np
from torch import Tensor

from crnn.data.features import Features


@dataclass(frozen=True)
class Clips:
    """Log-mels with the index of the genre of each."""

    features: Features
    labels: np.ndarray  # int64 (tracks,)
    cache: dict[str, str] = field(default_factory=dict, compare=False, repr=False)  # of the fingerprint

    def __len__(self) -> int:
        return len(self.labels)

    def select(self, indices: np.ndarray) -> "Clips":
        """The clips at `indices`, in that order."""
        return Clips(self.features.select(indices), self.labels[indices])

    def log_mels(self) -> list[Tensor]:
        """All log-mels (128, frames), float32 dB."""
        return [self.features.decibels(index) for index in range(len(self))]

    def fingerprint(self) -> str:
        """Tells clips and their genres from others, in hexadecimal."""
        if not self.cache:
            digest = sha256(self.labels.tobytes())
            for index in range(len(self)):  # one at a time: together they take four times the memory of their levels
                digest.update(self.features.decibels(index).numpy().data)
            self.cache["fingerprint"] = digest.hexdigest()
        return self.cache["fingerprint"]


def fingerprints(train: Clips, valid: Clips | None) -> dict[str, str | None]:
    """Those of the clips that decide the weights of a training, by what people call them."""
    return {"training clips": train.fingerprint(), "validation clips": valid.fingerprint() if valid else None}
