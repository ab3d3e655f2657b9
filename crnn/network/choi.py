"""Choi's CRNN, trained on 50 tags of 244 000 songs, fed with our log-mel: its convolutions, and its recurrent layers.

K. Choi, G. Fazekas, M. Sandler, K. Cho, "Convolutional recurrent neural networks for music classification",
ICASSP 2017, arXiv:1609.04243. The weights are those of keunwoochoi/music-auto_tagging-keras, under the MIT licence.
"""

from math import prod
from pathlib import Path
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from crnn.features import FRAMES_PER_SECOND
from crnn.network.blocks import BlocksStem
from crnn.network.front import Maps, Weights
from crnn.network.lean import LeanStem
from crnn.network.licences import Source
from crnn.network.mapping import STEP_FRAMES, at_bands, at_frames, bands_at, slaney_centres_hz
from crnn.network.published import Published

# What it was trained on: 96 Slaney mel bands to 6 kHz, 46.9 frames a second, 40 of our decibels standardised.
BANDS = 96
BANDS_TO_HZ = 6_000.0
FRAMES_PER_STEP = 24  # 48.25 a second
FLOOR_DB = -40.0
MEAN_DB, STD_DB = -34.3, 7.1  # of these 40 dB over the training clips of GTZAN
GAIN, OFFSET = 1.49, -0.07  # the middle of its first normalisation, which has one line for each of 1440 frames

POOLS = ((2, 2), (3, 3), (4, 4), (4, 1))  # bands, frames; the last was 4 frames
CONVOLVED = 128  # channels
STEPS_AT_ONCE = 4  # so that its recurrent layers have four of ours together
MEMORY = 16  # of these fours, 32 s: they were trained on 29, and what they remember of more fills up
UNITS = 32  # of each of its recurrent layers


class ChoiStem(BlocksStem):
    """Four blocks of 3 x 3 convolution, ELU and max pooling; the last has one band left."""

    eps = 1e-5
    nets_channels: ClassVar = ((CONVOLVED,),)
    blocks_channels = (64, 128, 128, CONVOLVED)
    pools = POOLS

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("bands", bands_at(slaney_centres_hz(BANDS, BANDS_TO_HZ)), persistent=False)

    def activation(self, maps: Tensor) -> Tensor:
        """ELU."""
        return F.elu(maps)

    def channels(self, log_mel: Tensor) -> Tensor:
        """Our log-mel (batch, 128, frames) in dB to (batch, 128, steps)."""
        return self.blocks(log_mel)[-1].squeeze(2)

    def maps(self, log_mel: Tensor) -> tuple[Maps, ...]:
        """The second and the last block."""
        _, second, _, last = self.blocks(log_mel[:1])
        frame_seconds = STEP_FRAMES / FRAMES_PER_SECOND
        return (
            Maps("Choi, block 2", second[0].numpy(), frame_seconds / prod(frames for _, frames in POOLS[2:])),
            Maps("Choi, block 4", last[0].numpy(), frame_seconds),
        )

    def spectrogram(self, log_mel: Tensor) -> Tensor:
        """Our log-mel to the net's input (batch, 96, 24 * steps)."""
        decibels = at_bands(log_mel, self.bands).clamp(FLOOR_DB, 0.0)
        return at_frames((decibels - MEAN_DB) * (GAIN / STD_DB) + OFFSET, FRAMES_PER_STEP)

    def read(self, path: Path) -> dict[str, tuple[Tensor, Tensor]]:
        """Fill in what the HDF5 file of Keras has."""
        import h5py  # noqa: PLC0415 (a tenth of a second that answers do without)

        norms = {}
        with h5py.File(path) as file:

            def array(layer: str, name: str) -> Tensor:
                return torch.from_numpy(file[f"{layer}/{layer}_{name}_1:0"][:])

            for number, conv in enumerate(self.convs, start=1):
                conv.weight.copy_(array(f"conv{number}", "W"))
                conv.bias.copy_(array(f"conv{number}", "b"))
                norms[f"convs.{number - 1}"] = array(f"bn{number}", "gamma"), array(f"bn{number}", "beta")
        return norms


class FormerGru(nn.Module):
    """A gated recurrent unit (Cho et al. 2014, arXiv:1406.1078) as Keras 1 had it, which PyTorch's is not.

    Its gates are hard sigmoids, and the state is reset before it is multiplied rather than behind it.
    """

    def __init__(self, inputs: int, units: int) -> None:
        super().__init__()
        self.inputs = nn.Linear(inputs, 3 * units)  # to the update gate, the reset gate and the candidate
        self.gates = nn.Linear(units, 2 * units, bias=False)
        self.candidate = nn.Linear(units, units, bias=False)

    def forward(self, steps: Tensor) -> Tensor:
        """(time, batch, inputs) to the states (time, batch, units)."""
        given = self.inputs(steps)
        state, states = given.new_zeros(given.shape[1], self.candidate.in_features), []
        for of_gates, of_candidate in zip(*given.tensor_split([self.gates.out_features], dim=-1), strict=True):
            update, reset = F.hardtanh(0.2 * (of_gates + self.gates(state)) + 0.5, 0.0, 1.0).chunk(2, dim=-1)
            state = torch.lerp(torch.tanh(of_candidate + self.candidate(reset * state)), state, update)
            states.append(state)
        return torch.stack(states)


class ChoiCrnnStem(ChoiStem):
    """The same, followed by the published recurrent layers: what they remember of a song stands beside each step.

    They begin anew every half MEMORY, one before the step that reads them; so what a step remembers is the last 16 to
    32 s, or as much as there was.
    """

    nets_channels: ClassVar = ((CONVOLVED,), (UNITS,))

    def __init__(self) -> None:
        super().__init__()
        self.recurrent = nn.ModuleList(FormerGru(n, UNITS) for n in (self.blocks_channels[-1], UNITS))

    def remembered(self, convolved: Tensor) -> Tensor:
        """(batch, 128, steps) to (batch, 160, steps)."""
        n_steps, device, half = convolved.shape[-1], convolved.device, MEMORY // 2
        four = torch.arange(n_steps, device=device) // STEPS_AT_ONCE  # that a step belongs to
        beginning = (four // half - 1).clamp_min(0)  # number of the one from which on it remembers
        n_beginnings = (n_steps - 1) // (STEPS_AT_ONCE * half) + 1
        fours = half * torch.arange(n_beginnings, device=device)[:, None] + torch.arange(MEMORY, device=device)
        steps = STEPS_AT_ONCE * fours[..., None] + torch.arange(STEPS_AT_ONCE, device=device)
        with torch.autocast(device.type, enabled=False):
            together = convolved.float()[..., steps.clamp(max=n_steps - 1)].amax(dim=-1)
            states = together.permute(3, 0, 2, 1).flatten(1, 2)  # (MEMORY, batch * beginnings, channels)
            for layer in self.recurrent:
                states = layer(states)
        states = states.unflatten(1, (len(convolved), -1)).permute(1, 3, 2, 0).flatten(2)
        of_steps = states[..., beginning * MEMORY + four - half * beginning]
        return torch.cat([convolved, of_steps.to(convolved.dtype)], dim=1)

    def alone(self, log_mel: Tensor) -> Tensor:
        """(batch, 128, frames) in dB to (batch, 160, steps)."""
        convolved = self.convolved(log_mel)
        return self.remembered(torch.cat([convolved, convolved], dim=-1))[..., convolved.shape[-1] :]

    def read(self, path: Path) -> dict[str, tuple[Tensor, Tensor]]:
        """Fill in the recurrent layers, too."""
        import h5py  # noqa: PLC0415 (as above)

        with h5py.File(path) as file:
            for number, layer in enumerate(self.recurrent, start=1):
                name = f"gru{number}"
                arrays = {key: torch.from_numpy(array[:].T) for key, array in file[name].items()}
                layer.inputs.weight.copy_(torch.cat([arrays[f"{name}_W_{gate}:0"] for gate in "zrh"]))
                layer.inputs.bias.copy_(torch.cat([arrays[f"{name}_b_{gate}:0"] for gate in "zrh"]))
                layer.gates.weight.copy_(torch.cat([arrays[f"{name}_U_{gate}:0"] for gate in "zr"]))
                layer.candidate.weight.copy_(arrays[f"{name}_U_h:0"])
        return super().read(path)


class LeanChoiCrnnStem(LeanStem, ChoiCrnnStem):
    """Nearly the same, of fewer multiply-adds."""

    published = ChoiCrnnStem
    blocks_channels = (40, *ChoiStem.blocks_channels[1:])
    second_rank = 32


class Choi(Published):
    """Choi's convolutions, which hear nothing above 6 kHz."""

    net = ChoiStem
    multiply_adds = 54_000_000
    file = Weights(
        "music_tagger_crnn_weights_tensorflow.h5",
        "https://raw.githubusercontent.com/keunwoochoi/music-auto_tagging-keras/90b294091adaada477b9003201dd20a9fe15a3c1/data/"
        "music_tagger_crnn_weights_tensorflow.h5",
        "df63638de9f3113780768181670c554f122fbd1297c63c065836d70a251115a8",
    )
    notice = """\
Convolutions of K. Choi's CRNN, pretrained on tags of 244,000 songs of the Million Song Dataset (K. Choi, G. Fazekas,
M. Sandler and K. Cho, "Convolutional recurrent neural networks for music classification", 2017; MIT licence, copyright
2016 Keunwoo Choi), trained further on the clips below.
"""
    sources = (
        Source(
            "Choi's CRNN, https://github.com/keunwoochoi/music-auto_tagging-keras",
            "Copyright (c) 2016 Keunwoo Choi",
            "MIT",
        ),
    )


class ChoiCrnn(Choi):
    """All of Choi's CRNN but its last layer."""

    net = ChoiCrnnStem
    remembers = True
    notice = Choi.notice.replace("Convolutions", "Convolutions and recurrent layers")


class LeanChoiCrnn(ChoiCrnn):
    """Nearly the same in 0.4 of the multiply-adds."""

    net = LeanChoiCrnnStem
    multiply_adds = 20_300_000
