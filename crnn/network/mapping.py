"""From our log-mel to the input of nets that others trained, and from their batch normalisation to plain convolutions.

The mapping is fixed: straight lines between our mel bands and frames. A step of each of these nets is STEP_FRAMES of
our frames, so that the steps of several stand side by side.
"""

from math import log

import torch
from torch import Tensor, nn

from crnn.features import N_MELS, band_of_hz, hz_of_mel, mel_of_hz

STEP_FRAMES = 12  # of our log-mel, 0.497 s, one step of the recurrent layer


def slaney_centres_hz(n_bands: int, to_hz: float) -> list[float]:
    """The centres of so many bands on Slaney's mel scale from 0 Hz to `to_hz`."""
    return [hz_of_mel(mel_of_hz(to_hz) * band / (n_bands + 1)) for band in range(1, n_bands + 1)]


def bands_at(centres_hz: list[float]) -> Tensor:
    """How much of each of our mel bands is read at the centres of other bands: (bands, 128); the ends are held."""
    rows = []
    for hz in centres_hz:
        place = min(max(band_of_hz(hz), 0), N_MELS - 1)
        rows.append([max(0.0, 1.0 - abs(place - band)) for band in range(N_MELS)])
    return torch.tensor(rows)


def at_bands(log_mel: Tensor, bands: Tensor) -> Tensor:
    """Log-mel (batch, 128, frames) in dB read at other bands, as `bands_at` has them: (batch, bands, frames)."""
    with torch.autocast(log_mel.device.type, enabled=False):  # decibels are no numbers for bfloat16
        return bands @ log_mel.to(bands.dtype)


def at_frames(bands: Tensor, per_step: int) -> Tensor:
    """Frames (batch, bands, frames) read `per_step` times a step, linearly: (batch, bands, steps * per_step).

    What is left over behind the last whole step is cut off.
    """
    steps = bands.shape[-1] // STEP_FRAMES
    frames, places = (torch.arange(n, device=bands.device, dtype=bands.dtype) for n in (STEP_FRAMES + 1, per_step))
    shares = (1 - (places * (STEP_FRAMES / per_step) - frames[:, None]).abs()).clamp_min(0)
    inside = bands[..., : steps * STEP_FRAMES].unflatten(-1, (steps, STEP_FRAMES))
    behind = torch.cat([inside[:, :, 1:, :1], inside[:, :, -1:, -1:]], dim=2)  # the frame after each step
    with torch.autocast(bands.device.type, enabled=False):
        return (torch.cat([inside, behind], dim=-1) @ shares).flatten(-2)


def power_of(decibels: Tensor) -> Tensor:
    """Decibels as power, several times as fast as by raising to a power."""
    return torch.exp(decibels * (log(10.0) / 10.0))


@torch.no_grad()
def fold_norms(net: nn.Module, norms: dict[str, tuple[Tensor, Tensor]], eps: float, log_mel: Tensor) -> None:
    """Make a net's batch normalisations, with the statistics of these clips, part of the convolutions before them.

    `norms` has the gain and the offset of each, (channels,), by the name of the convolution before it; `log_mel` is
    (batch, 128, frames) in dB. One forward pass goes layer by layer. Whatever the net was trained on, its layers then
    get numbers of the mean and the deviation that they know (Li et al. 2017, "Revisiting batch normalization for
    practical domain adaptation", arXiv:1603.04779).

    Raises ValueError if there are norms of layers that the net does not have.
    """

    def fold(conv: nn.Conv2d, _: tuple, output: Tensor) -> Tensor:
        gain, offset = (values.to(output.device) for values in norms[names[conv]])
        variance, mean = torch.var_mean(output, dim=(0, 2, 3), correction=0)
        scale = gain / torch.sqrt(variance + eps)
        shift = offset - mean * scale
        conv.weight *= scale[:, None, None, None]
        conv.bias.copy_(conv.bias * scale + shift)
        return output * scale[:, None, None] + shift[:, None, None]

    names = {module: name for name, module in net.named_modules() if name in norms}
    if len(names) != len(norms):
        raise ValueError("there are norms of layers that the net does not have")
    hooks = [conv.register_forward_hook(fold) for conv in names]
    try:
        net.channels(log_mel)  # all at once: the statistics are of all
    finally:
        for hook in hooks:
            hook.remove()
