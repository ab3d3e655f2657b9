"""What a recording level that is too high makes of a log-mel, worked out on a sound that has such a log-mel."""

from functools import cache
from math import pi

import torch
from torch import Tensor

from crnn.features import FLOOR_DB, HOP_LENGTH, N_FFT, mel_filters, to_db

LOUD_SHARE = 0.95  # of the frames are softer than those whose level is held
NOTHING = 1e-12  # of power: -120 dB


def clipped(log_mel: Tensor, drive_db: Tensor) -> Tensor:
    """Log-mels (batch, 128, frames) in dB of a sound whose peak goes `drive_db` (batch, 1) beyond full scale.

    A sound of such a log-mel, with phases of chance, is made and clipped. What is left of each of its frames is a part
    of what it was and a distortion that has nothing to do with it (Bussgang 1952); that part of the log-mel and that
    distortion are what is heard, its loud frames as loud as before. Of clips of which the sound is there, clipped as it
    is, that leaves 2 dB unexplained.
    """
    filters = _filters(log_mel.device)
    window = torch.hann_window(N_FFT, device=log_mel.device)
    power = 10 ** (0.1 * log_mel)
    of_bins = filters / filters.sum(dim=1, keepdim=True).clamp_min(NOTHING) / filters.sum(dim=0)
    amplitude = (of_bins @ power).sqrt()
    spectrum = torch.polar(amplitude, 2 * pi * torch.rand_like(amplitude))
    sound = torch.istft(spectrum, N_FFT, HOP_LENGTH, window=window)
    limit = sound.abs().amax(dim=1, keepdim=True) * 10 ** (-0.05 * drive_db)
    before, after = (
        torch.stft(samples, N_FFT, HOP_LENGTH, window=window, pad_mode="constant", return_complex=True)
        for samples in (sound, sound.clamp(-limit, limit))
    )
    left = (after * before.conj()).real.sum(dim=1) / before.abs().square().sum(dim=1).clamp_min(NOTHING)
    distortion = filters.T @ (after - left[:, None] * before).abs().square()
    heard = to_db(left[:, None].square() * power + distortion)
    return (heard + _level(log_mel) - _level(heard)).clamp_min(FLOOR_DB)


def _level(log_mel: Tensor) -> Tensor:
    """The level of the loud frames of each, (batch, 1, 1)."""
    return log_mel.amax(dim=1).quantile(LOUD_SHARE, dim=1)[:, None, None]


@cache
def _filters(device: torch.device) -> Tensor:
    """Those of the log-mel, (bins, 128)."""
    return mel_filters().to(device)
