"""What happens to a recording and takes more than a log-mel to work out: too high a level, people who talk."""

from functools import cache
from math import pi

import torch
from torch import Tensor
from torchaudio.functional import melscale_fbanks

from crnn.audio import SAMPLE_RATE
from crnn.features import F_MAX, FLOOR_DB, FRAMES_PER_SECOND, HOP_LENGTH, N_FFT, N_MELS, hz_of_band

LOUD_SHARE = 0.95  # of the frames are softer than what is held where a level changes
SYLLABLES_PER_SECOND = (3.5, 7.0)
WORDS = 6  # syllables, after which somebody may pause
PAUSES = 0.25  # the share of these that are silent
PITCH_HZ = (90.0, 260.0)
FORMANTS_HZ = ((300.0, 850.0), (850.0, 2_400.0), (2_300.0, 3_400.0))
CENTRES_HZ = [hz_of_band(band) for band in range(N_MELS)]
WIDTHS_HZ = [hz_of_band(band + 0.5) - hz_of_band(band - 0.5) for band in range(N_MELS)]


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


def voice(like: Tensor) -> Tensor:
    """The mel power of somebody who speaks, of the shape of log-mels (batch, 128, frames), with a mean of 1.

    Syllables of a pitch, three formants and a loudness of their own, some with a hiss behind them, and pauses: source
    and filter (Fant 1960).
    """
    batch, _, n_frames = like.shape
    hz, width = (torch.tensor(values, device=like.device)[:, None] for values in (CENTRES_HZ, WIDTHS_HZ))

    def between(low: float, high: float, *shape: int) -> Tensor:
        return torch.empty(batch, *shape, device=like.device).uniform_(low, high)

    tempo = between(*SYLLABLES_PER_SECOND, 1) * torch.exp(0.4 * torch.randn(batch, n_frames, device=like.device))
    position = torch.cumsum(tempo / FRAMES_PER_SECOND, dim=1)
    number, share = position.long(), position.frac()
    n_syllables = int(number.max()) + 2

    def course(low: float, high: float) -> Tensor:
        """From a value to the next one, syllable by syllable: (batch, 1, frames)."""
        values = between(low, high, n_syllables)
        return torch.lerp(values.gather(1, number), values.gather(1, number + 1), share)[:, None]

    pitch = between(*PITCH_HZ, 1, 1) * 2 ** course(-0.25, 0.25)
    formants = [course(*range_hz) for range_hz in FORMANTS_HZ]
    mouth = 0.003 + sum(1 / (1 + ((hz - formant) / (40 + 0.1 * formant)).square()) for formant in formants)
    told_apart = (1 - width / pitch).clamp_min(0)  # how far the harmonics are, by bands of this width
    between_harmonics = to_power(-12.5 * told_apart * (1 - torch.cos(2 * pi * hz / pitch)))
    throat = 1 / (1 + (90 / hz).square()) / (1 + (hz / 500) ** between(1.5, 2.5, 1, 1))
    vowel = mouth * throat * between_harmonics
    loudness = course(-15, 0) - 15 * (2 * share - 1).square()[:, None]
    has_hiss = (between(0, 1, n_syllables) < 0.4).float().gather(1, number) * (share > 0.8)
    hiss = 6e-5 * has_hiss[:, None] * torch.sigmoid((hz - 3_500) / 500)
    speaks = (between(0, 1, n_syllables // WORDS + 1) > PAUSES).float().gather(1, number // WORDS)[:, None]
    power = speaks * (to_power(loudness) * vowel + hiss)
    return power / power.mean(dim=(1, 2), keepdim=True).clamp_min(1e-12)
