"""The fully convolutional net of Won et al., trained on 50 tags of the Million Song Dataset, fed with our log-mel.

M. Won, A. Ferraro, D. Bogdanov, X. Serra, "Evaluation of CNN-based automatic music tagging models", SMC 2020,
arXiv:2006.00751; the net is that of Choi, Fazekas and Sandler 2016, arXiv:1606.00298. The weights are
models/msd/fcn of minzwon/sota-music-tagging-models, under the MIT licence.
"""

from math import log10
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from crnn.features import FRAMES_PER_SECOND
from crnn.network.blocks import BlocksStem
from crnn.network.front import Maps, Weights
from crnn.network.lean import LeanStem
from crnn.network.licences import Source
from crnn.network.mapping import STEP_FRAMES, at_bands, at_frames, bands_at
from crnn.network.published import Published

# What it was trained on: 96 HTK mel bands to 8 kHz without area normalisation, 62.5 frames a second, decibels.
BANDS = 96
BANDS_TO_HZ = 8_000.0
FRAMES_PER_STEP = 32  # 64.3 a second
FLOOR_DB = -60.0
MEAN_DB, STD_DB = -38.0, 15.0

CHANNELS = (64, 128, 128, 128, 64)
POOLS = ((2, 4), (2, 4), (2, 2), (3, 1), (4, 1))  # bands, frames; the last three were 4, 5, 4 frames


def _bands() -> tuple[list[float], list[float]]:
    """Centre in Hz and width in dB of each band."""
    top = 2595.0 * log10(1 + BANDS_TO_HZ / 700.0)
    edges = [700.0 * (10 ** (n * top / (BANDS + 1) / 2595.0) - 1.0) for n in range(BANDS + 2)]
    widths = [10 * log10(high - low) for low, high in zip(edges, edges[2:], strict=False)]
    return edges[1:-1], [width - widths[0] for width in widths]


class WonStem(BlocksStem):
    """Five blocks of 3 x 3 convolution, ReLU and max pooling; of each block the channels' means over bands."""

    eps = 1e-5
    nets_channels = (2 * CHANNELS,)
    blocks_channels = CHANNELS
    pools = POOLS

    def __init__(self) -> None:
        super().__init__()
        centres_hz, widths_db = _bands()
        self.register_buffer("bands", bands_at(centres_hz), persistent=False)
        self.register_buffer("widths_db", torch.tensor(widths_db)[:, None], persistent=False)

    def activation(self, maps: Tensor) -> Tensor:
        """ReLU."""
        return maps.relu()

    def channels(self, log_mel: Tensor) -> Tensor:
        """Our log-mel (batch, 128, frames) in dB to (batch, channels, steps): the means of all blocks, the maxima."""
        means, maxima = [], []
        for block in self.blocks(log_mel):
            channels = mean_over_bands(block)
            inside = channels.shape[-1] // (log_mel.shape[-1] // STEP_FRAMES)
            means.append(F.avg_pool2d(channels, (1, inside)))
            maxima.append(F.max_pool2d(channels, (1, inside)))
        return torch.cat(means + maxima, dim=1)

    def maps(self, log_mel: Tensor) -> tuple[Maps, ...]:
        """The second and the last block."""
        _, second, *_, last = self.blocks(log_mel[:1])
        frame_seconds = STEP_FRAMES / FRAMES_PER_SECOND
        return (
            Maps("Won, block 2", second[0].numpy(), frame_seconds / 2),
            Maps("Won, block 5", last[0].numpy(), frame_seconds),
        )

    def spectrogram(self, log_mel: Tensor) -> Tensor:
        """Our log-mel to the net's input (batch, 96, 32 * steps)."""
        decibels = at_bands(log_mel, self.bands) + self.widths_db
        return at_frames((decibels.clamp_min(FLOOR_DB) - MEAN_DB) / STD_DB, FRAMES_PER_STEP)

    def read(self, path: Path) -> dict[str, tuple[Tensor, Tensor]]:
        """Fill in what the file of PyTorch has, read without unpickling."""
        weights = torch.load(path, map_location="cpu", weights_only=True)
        norms = {}
        for number, conv in enumerate(self.convs, start=1):
            conv.weight.copy_(weights[f"layer{number}.conv.weight"])
            conv.bias.copy_(weights[f"layer{number}.conv.bias"])
            norms[f"convs.{number - 1}"] = weights[f"layer{number}.bn.weight"], weights[f"layer{number}.bn.bias"]
        return norms


def mean_over_bands(maps: Tensor) -> Tensor:
    """(batch, channels, bands, frames) to (batch, channels, frames): a matrix product where channels are last."""
    rows = maps.permute(0, 2, 3, 1).flatten(2)
    share = rows.new_full((1, maps.shape[2]), 1 / maps.shape[2])
    return (share @ rows).unflatten(-1, (maps.shape[3], maps.shape[1])).squeeze(1).transpose(1, 2)


class LeanWonStem(LeanStem, WonStem):
    """Nearly the same, of fewer multiply-adds."""

    published = WonStem
    blocks_channels = (40, *CHANNELS[1:])
    nets_channels = (2 * blocks_channels,)
    second_rank = 48


class Won(Published):
    """The convolutions of Won's FCN."""

    net = WonStem
    multiply_adds = 39_400_000
    file = Weights(
        "won_msd_fcn.pth",
        "https://raw.githubusercontent.com/minzwon/sota-music-tagging-models/ffcd1f90b97a1e923a50c6e5283f147cf9dd7dfd/models/msd/fcn/best_model.pth",
        "6012aa7eecf864a8081faedca56af054521e8dfb9c5c98659a3dd5d3e1e66f21",
    )
    notice = """\
Convolutions of M. Won's FCN, pretrained on tags of the Million Song Dataset (M. Won, A. Ferraro, D. Bogdanov and
X. Serra, "Evaluation of CNN-based automatic music tagging models", 2020; MIT licence, copyright 2020 Music Technology
Group, Universitat Pompeu Fabra), trained further on the clips below.
"""
    sources = (
        Source(
            'FCN of "Evaluation of CNN-based automatic music tagging models", '
            "https://github.com/minzwon/sota-music-tagging-models",
            "Copyright (c) 2020 Music Technology Group, Universitat Pompeu Fabra",
            "MIT",
        ),
    )


class LeanWon(Won):
    """Nearly the same in half of the multiply-adds."""

    net = LeanWonStem
    multiply_adds = 19_700_000
