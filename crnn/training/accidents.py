"""What happens to a recording and takes a sound to work out, where there is a log-mel alone."""

from functools import cache
from math import pi

import torch
from torch import Tensor
from torchaudio.functional import melscale_fbanks

from crnn.audio import SAMPLE_RATE
from crnn.features import F_MAX, FLOOR_DB, HOP_LENGTH, N_FFT, N_MELS

LOUD_SHARE = 0.95  # of the frames are softer than what is held where a level changes


def to_power(log_mel: Tensor) -> Tensor:
    """Decibels to power."""
    return 10 ** (0.1 * log_mel)


def as_loud(power: Tensor, log_mel: Tensor) -> Tensor:
    """Mel power (batch, 128, frames) in decibels, its loud frames as loud as those of what it was, a log-mel."""
    heard = 10 * torch.log10(power.clamp_min(to_power(torch.tensor(FLOOR_DB)).item() * 1e-4))
    loud = [each.amax(dim=1).quantile(LOUD_SHARE, dim=1)[:, None, None] for each in (log_mel, heard)]
    return (heard + (loud[0] - loud[1])).clamp_min(FLOOR_DB)


def clipped(log_mel: Tensor, drive_db: Tensor) -> Tensor:
    """Log-mels (batch, 128, frames) in dB of a sound whose peak went `drive_db` (batch, 1) beyond full scale.

    A sound that has such a log-mel, with phases of chance, is made and clipped. What is left of each of its frames is a
    part of what it was and a distortion that has nothing to do with it (Bussgang 1952); that part of the log-mel and
    that distortion are what is heard. Of clips of which the sound is there, clipped as it is, that leaves 2 dB
    unexplained.
    """
    filters = _filters(log_mel.device)
    window = torch.hann_window(N_FFT, device=log_mel.device)
    power = to_power(log_mel)
    of_bins = filters / filters.sum(dim=1, keepdim=True).clamp_min(1e-12) / filters.sum(dim=0)
    amplitude = (of_bins @ power).sqrt()
    spectrum = torch.polar(amplitude, 2 * pi * torch.rand_like(amplitude))
    sound = torch.istft(spectrum, N_FFT, HOP_LENGTH, window=window)
    limit = sound.abs().amax(dim=1, keepdim=True) * 10 ** (-0.05 * drive_db)
    before, after = (
        torch.stft(samples, N_FFT, HOP_LENGTH, window=window, pad_mode="constant", return_complex=True)
        for samples in (sound, sound.clamp(-limit, limit))
    )
    left = (after * before.conj()).real.sum(dim=1) / before.abs().square().sum(dim=1).clamp_min(1e-12)
    distortion = filters.T @ (after - left[:, None] * before).abs().square()
    return as_loud(left[:, None].square() * power + distortion, log_mel)


@cache
def _filters(device: torch.device) -> Tensor:
    """Those of the log-mel, (bins, 128)."""
    return melscale_fbanks(N_FFT // 2 + 1, 0.0, F_MAX, N_MELS, SAMPLE_RATE, "slaney", "slaney").to(device)
