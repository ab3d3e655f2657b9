"""Clips with their genres, and how good a model is on them."""

from dataclasses import dataclass, replace
from hashlib import sha256

import numpy as np
import torch
from torch import Tensor

from crnn.features import Features, without_silence
from crnn.network.model import CRNN
from crnn.training.metrics import Calibration, mean_probabilities, metrics


@dataclass(frozen=True)
class Clips:
    """Log-mels with the index of the genre of each."""

    features: Features
    labels: np.ndarray  # int64 (tracks,)

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
        digest = sha256(self.labels.tobytes())
        for log_mel in self.log_mels():
            digest.update(log_mel.numpy().data)
        return digest.hexdigest()


@torch.inference_mode()
def clip_logits(model: CRNN, clips: Clips) -> list[Tensor]:
    """Logits (n_windows, n_genres) of each clip, in evaluation mode on the CPU: exactly what serving computes."""
    model.eval()
    return [model.window_logits(without_silence(log_mel))[0] for log_mel in clips.log_mels()]


def calibrated(model: CRNN, calibration: Calibration) -> CRNN:
    """The model with a calibration written into its configuration."""
    model.config = replace(model.config, **vars(calibration))
    return model


def evaluate(model: CRNN, clips: Clips) -> dict:
    """The `metrics` of a model on clips, from the calibrated probabilities and the verdicts that serving gives."""
    probabilities = mean_probabilities(clip_logits(model, clips), model.config.temperature)
    answered = probabilities.max(axis=1) >= model.config.unsure_below
    return metrics(probabilities, clips.labels, model.config.genres, answered)
