"""Nets of blocks, each a 3 x 3 convolution, an activation and max pooling: what Choi's and Won's have in common."""

from functools import reduce
from itertools import pairwise
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from crnn.network.front import is_inference_on_cpu
from crnn.network.published import PublishedStem

NEAR_CELLS = 2_000_000  # of a map: for many more malloc keeps no memory at hand, and to fetch it takes longer


class Conv(nn.Conv2d):
    """A 3 x 3 convolution, (batch, inputs, bands, frames) to as many bands and frames."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__(inputs, outputs, 3, padding=1)

    def inside(self, given: Tensor) -> Tensor:
        """The same of all frames but the first and the last, which are heard only."""
        return F.conv2d(given, self.weight, self.bias, padding=(1, 0))


class SeparableConv(nn.Module):
    """A 3 x 3 convolution in two parts, over frames to `rank` channels and from these over bands.

    M. Jaderberg, A. Vedaldi, A. Zisserman, "Speeding up convolutional neural networks with low rank expansions",
    BMVC 2014, arXiv:1405.3866.
    """

    def __init__(self, inputs: int, rank: int, outputs: int) -> None:
        super().__init__()
        self.out_channels = outputs
        self.over_frames = nn.Conv2d(inputs, rank, (1, 3), padding=(0, 1), bias=False)
        self.over_bands = nn.Conv2d(rank, outputs, (3, 1), padding=(1, 0))

    def forward(self, given: Tensor) -> Tensor:
        """(batch, inputs, bands, frames) to (batch, outputs, bands, frames)."""
        return self.over_bands(self.over_frames(given))

    def inside(self, given: Tensor) -> Tensor:
        """The same of all frames but the first and the last, which are heard only."""
        return self.over_bands(F.conv2d(given, self.over_frames.weight))


class BlocksStem(PublishedStem):
    """A net of such blocks; `convs` has their convolutions."""

    blocks_channels: ClassVar[tuple[int, ...]]
    pools: ClassVar[tuple[tuple[int, int], ...]]  # bands, frames
    second_rank: ClassVar[int | None] = None  # of its second convolution, where that is in two parts

    def __init__(self) -> None:
        super().__init__()
        self.convs = nn.ModuleList(Conv(n, m) for n, m in pairwise((1, *self.blocks_channels)))
        if self.second_rank:
            self.convs[1] = SeparableConv(self.blocks_channels[0], self.second_rank, self.blocks_channels[1])

    def spectrogram(self, log_mel: Tensor) -> Tensor:
        """Our log-mel (batch, 128, frames) in dB to the net's input (batch, bands, frames)."""
        raise NotImplementedError

    def activation(self, maps: Tensor) -> Tensor:
        """An increasing one, so that it may wait until pooling has left fewer numbers."""
        raise NotImplementedError

    def blocks(self, log_mel: Tensor) -> list[Tensor]:
        """What each block gives, (batch, channels, bands, frames)."""
        given = [self.spectrogram(log_mel).unsqueeze(1)]
        for conv, pool in zip(self.convs, self.pools, strict=True):
            given.append(self.activation(pooled(conv, given[-1], pool)))
        return given[1:]


def pooled(conv: Conv | SeparableConv, given: Tensor, pool: tuple[int, int]) -> Tensor:
    """A convolution of (batch, inputs, bands, frames) and max pooling of what it gives.

    On a CPU, unless it learns, a large map is made and pooled a stretch of time after the other, unless a hook has to
    see all of it.
    """
    batch, _, n_bands, n_frames = given.shape
    if not is_inference_on_cpu(given) or conv._forward_hooks:
        return F.max_pool2d(conv(given), pool)
    at_once = pool[1] * max(NEAR_CELLS // (batch * conv.out_channels * n_bands * pool[1]), 1)
    if n_frames <= at_once:
        return maxima(conv(channels_last(given)), pool)
    padded, end = F.pad(given, (1, 1)), n_frames // pool[1] * pool[1]
    stretches = (padded[..., start : min(start + at_once, end) + 2] for start in range(0, end, at_once))
    return torch.cat([maxima(conv.inside(channels_last(stretch)), pool) for stretch in stretches], dim=-1)


def channels_last(maps: Tensor) -> Tensor:
    """Itself in that layout, said outright: what has one channel has both and is pooled slowly in the other."""
    return maps.contiguous(memory_format=torch.channels_last)


def maxima(maps: Tensor, pool: tuple[int, int]) -> Tensor:
    """Max pooling of (batch, channels, bands, frames), in half of PyTorch's time where channels are last."""
    bands, frames = pool
    n_bands, n_frames = maps.shape[2] // bands * bands, maps.shape[3] // frames * frames
    rows = reduce(torch.maximum, (maps[:, :, band:n_bands:bands] for band in range(bands)))
    return reduce(torch.maximum, (rows[..., frame:n_frames:frames] for frame in range(frames)))
