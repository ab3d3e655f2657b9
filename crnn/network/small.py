"""The small front of the CRNN: a few convolutional blocks on the normalised log-mel, learned with the rest."""

from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import replace
from math import prod

import torch
from torch import Tensor, nn

from crnn.features import FRAMES_PER_SECOND, N_MELS
from crnn.network.front import MOST_CELLS, Cost, Front, FrontKind, Maps, Sizes, Stem


class Normalise(Stem):
    """Subtract the training clips' mean of each mel band and divide by its standard deviation."""

    out_features = N_MELS

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(N_MELS, 1))
        self.register_buffer("std", torch.ones(N_MELS, 1))

    @torch.no_grad()
    def fit(self, log_mels: Sequence[Tensor]) -> None:
        """Take both from the frames of the training clips."""
        frames = torch.cat(list(log_mels), dim=1)
        self.mean.copy_(frames.mean(dim=1, keepdim=True))
        self.std.copy_(frames.std(dim=1, keepdim=True).clamp_min(1.0))  # dB; a band without life stays quiet

    def forward(self, log_mel: Tensor) -> Tensor:
        """(..., n_mels, frames) in dB to the same shape, about zero mean and unit variance."""
        return (log_mel - self.mean) / self.std


class SmallFront(Front):
    """Blocks of 3 x 3 convolution, batch normalisation, ReLU and max pooling; the mel axis becomes channels."""

    def __init__(self, config: Sizes) -> None:
        super().__init__()
        blocks = OrderedDict()
        inputs = 1
        for number, (outputs, mel_pool, time_pool) in enumerate(
            zip(config.channels, config.mel_pools, config.time_pools, strict=True), start=1
        ):
            blocks[f"block{number}"] = nn.Sequential(
                OrderedDict(
                    conv=nn.Conv2d(inputs, outputs, kernel_size=3, padding=1, bias=False),
                    norm=nn.BatchNorm2d(outputs),
                    activation=nn.ReLU(),
                    pool=nn.MaxPool2d((mel_pool, time_pool)),
                    dropout=nn.Dropout2d(config.block_dropout),
                )
            )
            inputs = outputs
        self.blocks = nn.Sequential(blocks)
        self.time_pools = config.time_pools
        self.out_features = inputs * (N_MELS // prod(config.mel_pools))

    def forward(self, stem: Tensor) -> Tensor:
        """Normalised (batch, n_mels, frames) to (batch, steps, out_features)."""
        maps = self.blocks(stem.unsqueeze(1))  # (batch, channels, mels, steps)
        return maps.flatten(1, 2).transpose(1, 2)

    def maps(self, stem: Tensor) -> tuple[Maps, ...]:
        """What each block gives."""
        values, frames, maps = stem.unsqueeze(1), 1, []
        for number, (block, time_pool) in enumerate(zip(self.blocks, self.time_pools, strict=True), start=1):
            values, frames = block(values), frames * time_pool
            maps.append(Maps(f"block {number}", values[0].numpy(), frames / FRAMES_PER_SECOND))
        return (*maps[:-1], replace(maps[-1], values=values.flatten(1, 2)[0].unsqueeze(1).numpy()))


class Small(FrontKind):
    """Convolutions that are learned from a random start; their sizes are the configuration's."""

    fields = frozenset({"channels", "mel_pools", "time_pools", "block_dropout"})
    fast_in_bfloat16_on_cpu = True
    memory_format = torch.channels_last

    def stem(self) -> Normalise:
        """A normalisation that is still to be fitted."""
        return Normalise()

    def front(self, config: Sizes, _: int) -> SmallFront:
        """Blocks of the sizes that the configuration names."""
        return SmallFront(config)

    def step_frames(self, config: Sizes) -> int:
        """What all pools over time leave one step of."""
        return prod(config.time_pools)

    def cost(self, config: Sizes) -> Cost:
        """The convolutions of all blocks; pooling and normalisation are next to nothing."""
        if not len(config.channels) == len(config.mel_pools) == len(config.time_pools) > 0:
            raise ValueError("channels, mel_pools and time_pools need one number for each convolutional block")
        if N_MELS % prod(config.mel_pools):
            raise ValueError(f"mel_pools {config.mel_pools} do not divide the {N_MELS} mel bands")
        if config.window_frames < prod(config.time_pools):
            raise ValueError(f"{config.window_frames} window_frames do not survive the time_pools {config.time_pools}")
        inputs, bands, frames, multiply_adds = 1, N_MELS, config.window_frames, 0
        for outputs, mel_pool, time_pool in zip(config.channels, config.mel_pools, config.time_pools, strict=True):
            cells = outputs * bands * frames
            if cells > MOST_CELLS:
                raise ValueError(f"a map of {outputs} channels, {bands} bands and {frames} frames is too large")
            multiply_adds += 9 * inputs * cells
            inputs, bands, frames = outputs, bands // mel_pool, frames // time_pool
        return Cost(shared=0, member=multiply_adds, features=inputs * bands)
