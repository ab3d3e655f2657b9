"""From our log-mel to the input of nets that others trained, and from their batch normalisation to plain convolutions.

The mapping is fixed: straight lines between our mel bands and frames. A step of each of these nets is STEP_FRAMES of
our frames, so that the steps of several stand side by side.
"""

import torch
from torch import Tensor, nn

from crnn.features import N_MELS, band_of_hz, hz_of_mel, mel_of_hz

STEP_FRAMES = 12  # of our log-mel, 0.497 s, one step of the recurrent layer


def counting(start: int, end: int) -> Tensor:
    """The numbers from `start` to `end` - 1, precise enough to tell positions between frames far into a song."""
    return torch.arange(start, end, dtype=torch.float64)


def interpolate(values: Tensor, positions: Tensor) -> Tensor:
    """Values (..., n) read linearly at fractional positions (m,) from 0 to n - 1 on their last axis: (..., m)."""
    below = positions.long().clamp(max=values.shape[-1] - 2)
    share = (positions - below).to(values.device, values.dtype, non_blocking=True)  # a GPU need not wait for them
    below = below.to(values.device, non_blocking=True)
    return torch.lerp(values[..., below], values[..., below + 1], share)


def slaney_centres_hz(n_bands: int, to_hz: float) -> list[float]:
    """The centres of so many bands on Slaney's mel scale from 0 Hz to `to_hz`."""
    return [hz_of_mel(mel_of_hz(to_hz) * band / (n_bands + 1)) for band in range(1, n_bands + 1)]


def places_of(centres_hz: list[float]) -> Tensor:
    """Where other bands lie among our mel bands, float64 (bands,), from the centre of each; the ends are held."""
    places = [min(max(band_of_hz(hz), 0), N_MELS - 1) for hz in centres_hz]  # by clamp, a model that is only described
    return torch.tensor(places, dtype=torch.float64)  # (device "meta") would wait a second for PyTorch's compiler


def at_bands(log_mel: Tensor, positions: Tensor) -> Tensor:
    """Log-mel (batch, 128, frames) in dB read at the places of other bands (bands,): (batch, bands, frames)."""
    return interpolate(log_mel.transpose(1, 2), positions).transpose(1, 2)


def at_frames(bands: Tensor, per_step: int) -> Tensor:
    """Frames (batch, bands, frames) read `per_step` times a step: (batch, bands, steps * per_step).

    What is left over behind the last whole step is cut off.
    """
    steps = bands.shape[-1] // STEP_FRAMES
    bands = bands[..., : steps * STEP_FRAMES]
    positions = counting(0, steps * per_step) * (STEP_FRAMES / per_step)
    return interpolate(bands, positions.clamp(max=bands.shape[-1] - 1))


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
