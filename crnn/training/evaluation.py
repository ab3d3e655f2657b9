"""How good a model is on clips."""

from dataclasses import replace

import torch
from torch import Tensor

from crnn.data.clips import Clips
from crnn.features import without_silence
from crnn.network.model import CRNN
from crnn.network.songs import window_logits
from crnn.training.metrics import Calibration, cross_fitted_metrics, is_answered, mean_probabilities, metrics


@torch.inference_mode()
def clip_logits(model: CRNN, clips: Clips) -> list[Tensor]:
    """Logits (n_windows, n_genres) of each clip, in evaluation mode on the CPU: exactly what serving computes.

    Of a clip in which nothing sounds but a steady tone, which serving would not answer, those of all of it.
    """
    model.arranged()
    heard = ((log_mel, without_silence(log_mel)) for log_mel in clips.log_mels())
    return [window_logits(model, sounds if sounds.shape[1] else log_mel)[0] for log_mel, sounds in heard]


def calibrated(model: CRNN, calibration: Calibration) -> CRNN:
    """The model with a calibration written into its configuration."""
    model.config = replace(model.config, **vars(calibration))
    return model


def evaluate(model: CRNN, clips: Clips, cross_fits: bool = False) -> dict:
    """The `metrics` of a model on clips, from the calibrated probabilities and the verdicts that serving gives.

    If it `cross_fits`, the clips are those that calibrated the model, and each is calibrated by others of them.
    """
    logits, config = clip_logits(model, clips), model.config
    if cross_fits:
        return cross_fitted_metrics(logits, clips.labels, config.genres, config.evidence)
    probabilities = mean_probabilities(logits, config.temperature, config.evidence)
    return metrics(probabilities, clips.labels, config.genres, is_answered(logits, Calibration.of(config)))
