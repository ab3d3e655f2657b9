"""The convolutions of EfficientAT's mn04, trained on the 527 classes of AudioSet, fed with our log-mel.

F. Schmid, K. Koutini, G. Widmer, "Efficient large-scale audio tagging via transformer-to-CNN knowledge distillation",
ICASSP 2023, arXiv:2211.04772; a MobileNetV3-Large (Howard et al. 2019, arXiv:1905.02244) of width 0.4. The weights
are mn04_as_mAP_432.pt of fschmid56/EfficientAT, under the MIT licence.
"""

import platform
from collections.abc import Sequence
from dataclasses import replace
from math import cos, exp, log, log10, pi
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from crnn.features import FRAMES_PER_SECOND
from crnn.network.audioset import KindScores
from crnn.network.front import Maps, Piece, Weights, is_inference_on_cpu, middles
from crnn.network.licences import Source
from crnn.network.mapping import STEP_FRAMES, at_bands, at_frames, bands_at, power_of
from crnn.network.published import Published, PublishedStem

# What it was trained on: 128 bands of Kaldi's mel scale to 15 kHz, without area normalisation, 100 frames a second,
# after a pre-emphasis of 0.97 at 32 kHz, (ln(power + 1e-5) + 4.5) / 5.
BANDS = 128
BANDS_TO_HZ = 15_000.0
FRAMES_PER_STEP = 48  # 96.5 a second
PRE_EMPHASIS, SAMPLE_RATE = 0.97, 32_000
EPS_POWER, MIDDLE, SPREAD = 1e-5, 4.5, 5.0
HEARD_TO_HZ = 11_025.0  # where our log-mel ends: the bands above are silent
LEVEL_DB = 24.8  # the power in a band 1 Hz wide without pre-emphasis that stands for our 0 dB, from 40 training clips

FIRST_CHANNELS, LAST_CHANNELS = 8, 384
# (kernel, expanded channels, channels, of squeeze-and-excitation, stride) of blocks 1 to 15
BLOCKS = (
    (3, 8, 8, 0, 1), (3, 24, 16, 0, 2), (3, 32, 16, 0, 1), (5, 32, 16, 8, 2), (5, 48, 16, 16, 1), (5, 48, 16, 16, 1),
    (3, 96, 32, 0, 2), (3, 80, 32, 0, 1), (3, 72, 32, 0, 1), (3, 72, 32, 0, 1), (3, 192, 48, 48, 1),
    (3, 272, 48, 72, 1), (5, 272, 64, 72, 2), (5, 384, 64, 96, 1), (5, 384, 64, 96, 1),
)  # fmt: skip
RELU_BLOCKS = 6  # the first of them; hard swish in the others
HEARD = (6, 10, 12, 15, 16)  # the blocks whose maps become steps
HAS_ONEDNN = torch.backends.mkldnn.is_available() and platform.machine() in ("x86_64", "AMD64")
SMALL_CELLS = 20_480  # of maps, which PyTorch does not leave to oneDNN
FITTED_AT_ONCE, MOST_FITTED = 16, 1_000  # clips
NAMES_OF_KINDS = """\
The names of the kinds of music that it tells apart beside its genres are those of AudioSet's ontology
(Google; https://research.google.com/audioset/), under the Creative Commons Attribution 4.0 International licence.
"""


def _bands() -> tuple[list[float], list[float]]:
    """Centre in Hz and level in dB of each band."""
    edges = [700.0 * (exp(n * log(1 + BANDS_TO_HZ / 700.0) / (BANDS + 1)) - 1.0) for n in range(BANDS + 2)]
    levels = []
    for low, centre, high in zip(edges, edges[1:], edges[2:], strict=False):
        emphasis = 1 + PRE_EMPHASIS**2 - 2 * PRE_EMPHASIS * cos(2 * pi * centre / SAMPLE_RATE)
        levels.append(LEVEL_DB + 10 * log10((high - low) / 2 * emphasis) if centre < HEARD_TO_HZ else -200.0)
    return edges[1:-1], levels


class PointwiseConv(nn.Conv2d):
    """A 1 x 1 convolution as a linear layer, for which PyTorch copies nothing where channels are last, or by oneDNN.

    oneDNN takes half of MKL's time on an AMD. On one core PyTorch hands it only those 1 x 1 convolutions that are large
    and dilated; a dilation of 1 x 1 means nothing.
    """

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__(inputs, outputs, 1)

    def forward(self, maps: Tensor) -> Tensor:
        """(batch, inputs, bands, frames) to (batch, outputs, bands, frames)."""
        if HAS_ONEDNN and is_inference_on_cpu(maps) and (len(maps) > 1 or maps.numel() > SMALL_CELLS):
            return F.conv2d(maps, self.weight, self.bias, dilation=2)
        return F.linear(maps.permute(0, 2, 3, 1), self.weight.flatten(1), self.bias).permute(0, 3, 1, 2)


class SqueezeExcitation(nn.Module):
    """Channels are weighted by what all of them are on average (Hu et al. 2018, arXiv:1709.01507)."""

    def __init__(self, channels: int, squeezed: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(channels, squeezed)
        self.fc2 = nn.Linear(squeezed, channels)

    def forward(self, maps: Tensor) -> Tensor:
        """(batch, channels, bands, frames) to the same shape."""
        weights = self.fc2(self.fc1(maps.mean(dim=(2, 3))).relu()).sigmoid()
        return maps * weights[:, :, None, None]


class InvertedResidual(nn.Module):
    """1 x 1 convolution to more channels, one of each channel alone, squeeze-and-excitation, 1 x 1 to few channels."""

    def __init__(self, number: int, inputs: int, kernel: int, expanded: int, outputs: int, squeezed: int, stride: int):
        super().__init__()
        self.expand = PointwiseConv(inputs, expanded) if expanded != inputs else None
        self.depthwise = nn.Conv2d(expanded, expanded, kernel, stride, kernel // 2, groups=expanded)
        self.excite = SqueezeExcitation(expanded, squeezed) if squeezed else nn.Identity()
        self.project = PointwiseConv(expanded, outputs)
        self.activation = torch.relu_ if number <= RELU_BLOCKS else F.hardswish  # where maps are large, in place
        self.is_residual = stride == 1 and inputs == outputs

    def forward(self, maps: Tensor) -> Tensor:
        """(batch, inputs, bands, frames) to (batch, outputs, bands / stride, frames / stride)."""
        expanded = self.activation(self.expand(maps)) if self.expand is not None else maps
        narrow = self.project(self.excite(self.activation(self.depthwise(expanded))))
        return maps + narrow if self.is_residual else narrow


class EfficientATStem(PublishedStem):
    """mn04's convolutions; of some blocks each channel's mean over bands, by mean and maximum over a step."""

    eps = 1e-3
    nets_channels = (2 * (*(BLOCKS[number - 1][2] for number in HEARD[:-1]), LAST_CHANNELS),)

    def __init__(self) -> None:
        super().__init__()
        centres_hz, levels_db = _bands()
        self.register_buffer("bands", bands_at(centres_hz), persistent=False)
        self.register_buffer("levels_db", torch.tensor(levels_db)[:, None], persistent=False)
        self.first = nn.Conv2d(1, FIRST_CHANNELS, 3, 2, 1)
        outputs = [FIRST_CHANNELS] + [block[2] for block in BLOCKS]
        self.blocks = nn.ModuleList(
            InvertedResidual(number, outputs[number - 1], *block) for number, block in enumerate(BLOCKS, start=1)
        )
        self.last = PointwiseConv(outputs[-1], LAST_CHANNELS)

    def convolved(self, log_mel: Tensor) -> Tensor:
        """As elsewhere, but in float32 on a CPU: with that many layers in bfloat16, probabilities move by 0.05."""
        with torch.autocast("cpu", enabled=False):
            return super().convolved(log_mel)

    def of_stretch(self, stretch: Tensor, pieces: Sequence[Piece]) -> Tensor:
        """As elsewhere, but each piece alone: squeeze-and-excitation hears all that there is."""
        heard = [stretch[..., STEP_FRAMES * start : STEP_FRAMES * end] for start, end, *_ in pieces]
        given = zip(self.convolved(torch.cat(heard)).chunk(len(pieces)), pieces, strict=True)
        return torch.cat([steps[..., first - start : end - start] for steps, (start, _, first, end) in given], dim=-1)

    def channels(self, log_mel: Tensor) -> Tensor:
        """Our log-mel (batch, 128, frames) in dB to (batch, 1088, steps): the means, then the maxima."""
        channels = self.means(log_mel)
        return torch.cat([F.avg_pool2d(channels, (1, 3)), F.max_pool2d(channels, (1, 3))], dim=1)

    def means(self, log_mel: Tensor) -> Tensor:
        """Our log-mel to the means over bands, (batch, 544, 3 * steps): six a second."""
        third = 3 * (log_mel.shape[-1] // STEP_FRAMES)
        return torch.cat([_to_length(maps.mean(dim=2), third) for maps in self.heard(log_mel)], dim=1)

    def heard(self, log_mel: Tensor) -> list[Tensor]:
        """What the blocks of HEARD give, (batch, channels, bands, frames)."""
        maps = F.hardswish(self.first(self.spectrogram(log_mel).unsqueeze(1)))
        heard = []
        for number, block in enumerate(self.blocks, start=1):
            maps = block(maps)
            if number in HEARD:
                heard.append(maps)
        return [*heard, F.hardswish(self.last(maps))]

    def maps(self, log_mel: Tensor) -> tuple[Maps, ...]:
        """An early and the last block."""
        early, *_, last = self.heard(log_mel[:1])
        seconds = log_mel.shape[-1] // STEP_FRAMES * STEP_FRAMES / FRAMES_PER_SECOND
        named = (("mn04, block 6", early), ("mn04, block 16", last))
        return tuple(Maps(name, values[0].numpy(), seconds / values.shape[-1]) for name, values in named)

    def spectrogram(self, log_mel: Tensor) -> Tensor:
        """Our log-mel to the net's input (batch, 128, 48 * steps)."""
        decibels = at_frames(at_bands(log_mel, self.bands), FRAMES_PER_STEP) + self.levels_db
        return (torch.log(power_of(decibels) + EPS_POWER) + MIDDLE) / SPREAD

    def read(self, path: Path) -> dict[str, tuple[Tensor, Tensor]]:
        """Fill in what the file of PyTorch has, read without unpickling."""
        weights = torch.load(path, map_location="cpu", weights_only=True)
        norms = {}
        for name, place in self._places().items():
            conv = self.get_submodule(name)
            conv.weight.copy_(weights[f"{place}.0.weight"])
            conv.bias.zero_()
            norms[name] = weights[f"{place}.1.weight"], weights[f"{place}.1.bias"]
        for number, block in enumerate(self.blocks, start=1):
            if isinstance(block.excite, SqueezeExcitation):
                prefix = f"features.{number}.block.2.conc_se_layers.0."
                part = {key.removeprefix(prefix): value for key, value in weights.items() if key.startswith(prefix)}
                block.excite.load_state_dict(part)
        return norms

    def _places(self) -> dict[str, str]:
        """Where the file keeps each convolution and, under .1, its normalisation."""
        places = {"first": "features.0", "last": "features.16"}
        for number, block in enumerate(self.blocks, start=1):
            layers = [name for name in ("expand", "depthwise", "excite", "project") if _has(block, name)]
            for position, name in enumerate(layers):
                if name != "excite":
                    places[f"blocks.{number - 1}.{name}"] = f"features.{number}.block.{position}"
        return places


class EfficientATKindsStem(EfficientATStem):
    """The same, and what its classifier says of genres of music."""

    def __init__(self) -> None:
        super().__init__()
        self.kinds = KindScores(LAST_CHANNELS)

    def fit(self, log_mels: Sequence[Tensor]) -> None:
        """Take what the classifier needs of the training clips, too."""
        is_new = bool(self._norms)
        super().fit(log_mels)
        if is_new:
            device = self.first.weight.device
            with torch.no_grad():
                parts = middles(log_mels[:: -(-len(log_mels) // MOST_FITTED)]).split(FITTED_AT_ONCE)
                self.kinds.fit(torch.cat([self.means(part.to(device))[:, -LAST_CHANNELS:] for part in parts]))

    def kind_scores(self, means: Tensor) -> Tensor:
        """Of the means of its last block."""
        n_means = self.out_features // 2
        return self.kinds(means[:, n_means - LAST_CHANNELS : n_means])

    def read(self, path: Path) -> dict[str, tuple[Tensor, Tensor]]:
        """Fill in the classifier, too."""
        weights = torch.load(path, map_location="cpu", weights_only=True)
        self.kinds.load(*((weights[f"classifier.{n}.weight"], weights[f"classifier.{n}.bias"]) for n in (2, 5)))
        return super().read(path)


def _to_length(channels: Tensor, length: int) -> Tensor:
    """(batch, channels, n) with a frame in 8, 16 or 32 to one in 16, by the maximum of two or by repetition."""
    if channels.shape[-1] >= 2 * length:
        return F.max_pool2d(channels, (1, 2))
    if channels.shape[-1] < length:
        return channels.unsqueeze(-1).expand(-1, -1, -1, 2).flatten(2)[..., :length]
    return channels


def _has(block: InvertedResidual, name: str) -> bool:
    return not isinstance(getattr(block, name), nn.Identity | None)


class EfficientAT(Published):
    """mn04's convolutions, which have heard the whole world."""

    net = EfficientATStem
    fast_in_bfloat16_on_cpu = False
    multiply_adds = 5_520_000
    file = Weights(
        "mn04_as_mAP_432.pt",
        "https://github.com/fschmid56/EfficientAT/releases/download/v0.0.1/mn04_as_mAP_432.pt",
        "899a8c6217063f6941793102a2780b3dd788ab11fce468d9cf5f0577c453321c",
    )
    notice = """\
Convolutions of EfficientAT's mn04, pretrained on the 527 classes of AudioSet (F. Schmid, K. Koutini and G. Widmer,
"Efficient large-scale audio tagging via transformer-to-CNN knowledge distillation", 2023; MIT licence, copyright 2022
Florian Schmid), trained further on the clips below.
"""
    sources = (
        Source(
            "EfficientAT, mn04, https://github.com/fschmid56/EfficientAT",
            "Copyright (c) 2022 Florian Schmid",
            "MIT",
        ),
    )


class EfficientATKinds(EfficientAT):
    """The same, and what its classifier says of genres of music."""

    net = EfficientATKindsStem
    notice = (
        EfficientAT.notice
        + """\
What its classifier says of genres of music is part of the model, in lower rank; their names are those of AudioSet's
ontology (Google; Creative Commons licence CC BY 4.0).
"""
    )
    sources = (replace(EfficientAT.sources[0], remark=NAMES_OF_KINDS),)
