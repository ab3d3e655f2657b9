"""The pretrained front of the CRNN: musicnn's convolutions, which have heard 200 000 songs, fed with our log-mel.

J. Pons, X. Serra, "musicnn: Pre-trained convolutional neural networks for music audio tagging", ISMIR 2019
late-breaking session, arXiv:1909.06654. The weights are the package's MSD_musicnn, under the ISC licence; see
assets/pretrained/README.md.
"""

from collections.abc import Callable, Sequence
from pathlib import Path

import torch
import torch.nn.functional as F
from safetensors.torch import load_file
from torch import Tensor, nn

from crnn.bundle import ASSETS
from crnn.features import FRAMES_PER_SECOND
from crnn.network.front import Cost, Front, FrontKind, Maps, Sizes, Stem, Weights
from crnn.network.licences import Source
from crnn.network.mapping import STEP_FRAMES, at_bands, at_frames, bands_at, power_of, slaney_centres_hz

PRETRAINED = ASSETS / "pretrained" / "msd_musicnn.safetensors"

# What musicnn was trained on: 96 Slaney mel bands up to 8 kHz, 62.5 frames a second, log10(10 000 * power + 1). It gets
# 64.3 frames a second, so that its steps are as long as those of other fronts.
BANDS = 96
BANDS_TO_HZ = 8_000.0
COMPRESSION = 10_000.0

# The power that stands for our 0 dB, the loudest cell of a clip, measured on 26 training clips of GTZAN. The bands
# agree to 1 dB, but for the first, narrower than a bin of musicnn's FFT, and the last, on the edge of its resampler.
LEVEL_DB = 19.4
FIRST_BAND_DB, LAST_BAND_DB = 2.6, -8.0

# (filters, bands, frames) of its kernels, without the filters that its training left dead.
TIMBRAL = ((23, 38, 7), (14, 67, 7))
TEMPORAL = ((3, 1, 128), (7, 1, 64), (17, 1, 32))
MIDDLE_CHANNELS, MIDDLE_FRAMES, MIDDLE_LAYERS = 64, 7, 3
FRAMES_PER_STEP = 32  # of musicnn
CACHED_WINDOWS = 2  # at once on a CPU: the maps of more do not stay in its cache, which takes twice as long


class ConvBlock(nn.Module):
    """Convolution that keeps the number of frames, ReLU, and batch normalisation as the straight line it has become."""

    def __init__(self, inputs: int, outputs: int, bands: int, frames: int) -> None:
        super().__init__()
        self.padding = ((frames - 1) // 2, frames // 2)  # TensorFlow pads an even kernel more behind
        self.conv = nn.Conv2d(inputs, outputs, (bands, frames))
        self.scale = nn.Parameter(torch.ones(outputs, 1, 1))
        self.shift = nn.Parameter(torch.zeros(outputs, 1, 1))

    def forward(self, maps: Tensor) -> Tensor:
        """(batch, inputs, n, frames) to (batch, outputs, n - bands + 1, frames)."""
        return self._finish(self.conv(F.pad(maps, self.padding)))

    def best_band(self, maps: Tensor) -> Tensor:
        """The maximum of `forward` over n, (batch, outputs, 1, frames).

        A straight line after ReLU keeps the order of numbers or turns it round, so one number a frame is enough.
        """
        response = self.conv(F.pad(maps, self.padding))
        highest, lowest = response.amax(dim=2, keepdim=True), response.amin(dim=2, keepdim=True)
        return self._finish(torch.where(self.scale >= 0, highest, lowest))

    def _finish(self, response: Tensor) -> Tensor:
        return response.relu() * self.scale + self.shift


class MusicnnStem(Stem):
    """musicnn's timbral and temporal filters, each where it fits best in frequency; they stay as they are."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("bands", bands_at(slaney_centres_hz(BANDS, BANDS_TO_HZ)), persistent=False)
        level_db = torch.full((BANDS, 1), LEVEL_DB)
        level_db[0] += FIRST_BAND_DB
        level_db[-1] += LAST_BAND_DB
        self.register_buffer("level_db", level_db, persistent=False)
        self.scale = nn.Parameter(torch.ones(1))
        self.shift = nn.Parameter(torch.zeros(1))
        self.timbral = nn.ModuleList(ConvBlock(1, *shape) for shape in TIMBRAL)
        self.temporal = nn.ModuleList(ConvBlock(1, *shape) for shape in TEMPORAL)
        self.requires_grad_(False)
        self.out_features = sum(filters for filters, _, _ in TIMBRAL + TEMPORAL)

    def forward(self, log_mel: Tensor) -> Tensor:
        """Our log-mel (batch, 128, frames) in dB to (batch, out_features, musicnn's frames)."""
        parts = log_mel.split(CACHED_WINDOWS) if log_mel.device.type == "cpu" else [log_mel]
        return torch.cat([self.filters(part) for part in parts])

    def filters(self, log_mel: Tensor) -> Tensor:
        """The same for as many windows as memory is near."""
        maps = self.spectrogram(log_mel).unsqueeze(1)
        return torch.cat([block.best_band(maps) for block in (*self.timbral, *self.temporal)], dim=1).squeeze(2)

    def spectrogram(self, log_mel: Tensor) -> Tensor:
        """Our log-mel (batch, 128, frames) in dB to musicnn's normalised input (batch, 96, musicnn's frames)."""
        decibels = at_frames(at_bands(log_mel, self.bands), FRAMES_PER_STEP) + self.level_db
        return torch.log10(COMPRESSION * power_of(decibels) + 1.0) * self.scale + self.shift


class MusicnnFront(Front):
    """musicnn's layers over time, to be trained further, and their channels by peak and mean over half a second."""

    def __init__(self, out_features: int, inputs: int) -> None:
        super().__init__()
        self.middle = nn.ModuleList(
            ConvBlock(inputs if layer == 0 else MIDDLE_CHANNELS, MIDDLE_CHANNELS, 1, MIDDLE_FRAMES)
            for layer in range(MIDDLE_LAYERS)
        )
        pooled = 2 * (inputs + MIDDLE_LAYERS * MIDDLE_CHANNELS)
        self.norm = nn.BatchNorm1d(pooled, affine=False)
        self.linear = nn.Linear(pooled, out_features)
        self.out_features = out_features

    def forward(self, stem: Tensor) -> Tensor:
        """What the stem gives, (batch, inputs, musicnn's frames), to (batch, steps, out_features), two a second."""
        channels = self.channels(stem)
        steps = torch.cat([pool(channels, (1, FRAMES_PER_STEP)) for pool in (F.max_pool2d, F.avg_pool2d)], dim=1)
        return self.linear(self.norm(steps).transpose(1, 2)).relu()

    def channels(self, stem: Tensor) -> Tensor:
        """The filters beside all layers above them, (batch, channels, musicnn's frames)."""
        maps = stem.unsqueeze(2)
        layers = [maps]
        for number, block in enumerate(self.middle):
            maps = block(maps) if number == 0 else maps + block(maps)
            layers.append(maps)
        return torch.cat(layers, dim=1).squeeze(2)

    def pretrained_parameters(self) -> list[nn.Parameter]:
        """musicnn's layers over time."""
        return list(self.middle.parameters())

    def maps(self, stem: Tensor) -> tuple[Maps, ...]:
        """The filters of both kinds, the layers over time, and the steps."""
        timbral = sum(filters for filters, _, _ in TIMBRAL)
        sizes = [timbral, stem.shape[1] - timbral] + [MIDDLE_CHANNELS] * len(self.middle)
        names = ["timbre filters", "rhythm filters", *(f"layer {number + 1}" for number in range(len(self.middle)))]
        step_seconds = STEP_FRAMES / FRAMES_PER_SECOND
        parts = self.channels(stem)[0].unsqueeze(1).split(sizes)
        maps = [
            Maps(name, part.numpy(), step_seconds / FRAMES_PER_STEP) for name, part in zip(names, parts, strict=True)
        ]
        return (*maps, Maps("half seconds", self(stem)[0].T.unsqueeze(1).numpy(), step_seconds))


class Musicnn(FrontKind):
    """Filters that stay as they are, and layers over time that are trained further."""

    notice = """\
Its convolutions are musicnn's, pretrained on tags of 200,000 songs of the Million Song Dataset (J. Pons and X. Serra,
"musicnn", 2019; ISC licence, copyright Music Technology Group, Universitat Pompeu Fabra): the filters as they were, the
layers over time trained further on the clips below, like all that follows them.
"""
    sources = (
        Source(
            "musicnn, https://github.com/jordipons/musicnn",
            "Copyright (c) Music Technology Group, Universitat Pompeu Fabra 2019. "
            "Code developed by Jordi Pons (www.jordipons.me).",
            "ISC",
        ),
    )

    def stem(self) -> MusicnnStem:
        """The filters, with random weights."""
        return MusicnnStem()

    def front(self, config: Sizes, inputs: int) -> MusicnnFront:
        """The layers over time, and steps as wide as the recurrent layer after them."""
        return MusicnnFront(2 * config.recurrent_size, inputs)

    def step_frames(self, _: Sizes) -> int:
        """About half a second."""
        return STEP_FRAMES

    def cost(self, config: Sizes) -> Cost:
        """All convolutions, the stem's at every place in frequency, and the linear layer of each step."""
        n_frames = config.window_frames // STEP_FRAMES * FRAMES_PER_STEP
        timbral = sum(filters * bands * frames * (BANDS - bands + 1) for filters, bands, frames in TIMBRAL)
        temporal = sum(filters * bands * frames * BANDS for filters, bands, frames in TEMPORAL)
        inputs = sum(filters for filters, _, _ in TIMBRAL + TEMPORAL)
        middle = MIDDLE_CHANNELS * MIDDLE_FRAMES * (inputs + MIDDLE_CHANNELS * (MIDDLE_LAYERS - 1))
        features = 2 * config.recurrent_size
        linear = 2 * (inputs + MIDDLE_CHANNELS * MIDDLE_LAYERS) * features // FRAMES_PER_STEP
        return Cost(shared=n_frames * (timbral + temporal), member=n_frames * (middle + linear), features=features)

    def load_pretrained(self, stem: Stem, fronts: Sequence[Front], _: Callable[[Weights], Path]) -> None:
        """Fill in the filters of the stem, and the layers over time of each member."""
        weights = load_file(PRETRAINED)
        middle = {name: value for name, value in weights.items() if name.startswith("middle.")}
        stem.load_state_dict({name: value for name, value in weights.items() if name not in middle}, strict=True)
        for front in fronts:
            front.middle.load_state_dict({name.removeprefix("middle."): value for name, value in middle.items()})
