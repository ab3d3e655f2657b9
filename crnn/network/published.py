"""Fronts whose convolutions their authors published, trained further here: what they have in common."""

from abc import abstractmethod
from collections.abc import Callable, Sequence
from pathlib import Path
from pickle import UnpicklingError
from typing import ClassVar

import torch
from torch import Tensor, nn

from crnn.features import FRAMES_PER_SECOND
from crnn.network.front import Components, Cost, Front, FrontKind, Maps, Sizes, Stem, Weights, middles
from crnn.network.mapping import STEP_FRAMES, fold_norms

CACHED_WINDOWS = 2  # at once on a CPU: the maps of more do not stay in its cache
FITTED_CLIPS = 64  # that the statistics of the batch normalisations come from


class PublishedStem(Stem):
    """A net that others trained, without its last layers: our log-mel to steps (batch, out_features, steps).

    Its batch normalisations are part of its convolutions, with the statistics of our training clips; `fit` makes them
    so after `load`. All of it is trained further.
    """

    nets_channels: ClassVar[tuple[tuple[int, ...], ...]]  # how many each of the blocks has that it gives; see `groups`
    eps: ClassVar[float]  # of its batch normalisations

    def __init__(self) -> None:
        super().__init__()
        self.out_features, self.groups = sum(map(sum, self.nets_channels)), self.nets_channels
        self._norms: dict[str, tuple[Tensor, Tensor]] = {}  # between `load` and `fit`

    def forward(self, log_mel: Tensor) -> Tensor:
        """Our log-mel (batch, 128, frames) in dB to (batch, out_features, steps)."""
        return self.remembered(self.convolved(log_mel))

    def convolved(self, log_mel: Tensor) -> Tensor:
        """The channels of its convolutions, (batch, channels, steps)."""
        if log_mel.device.type != "cpu":
            return self.channels(log_mel)
        return torch.cat([self.channels(part) for part in log_mel.split(CACHED_WINDOWS)])

    @abstractmethod
    def channels(self, log_mel: Tensor) -> Tensor:
        """The same for as many windows as memory is near."""

    @abstractmethod
    def read(self, path: Path) -> dict[str, tuple[Tensor, Tensor]]:
        """Fill in the authors' convolutions; gives gain and offset of the normalisation behind each, by its name.

        Nothing is unpickled. Raises what reading raises.
        """

    def load(self, path: Path) -> None:
        """Fill in the authors' weights. Raises ValueError if the file is not theirs."""
        try:
            with torch.no_grad():
                self._norms = self.read(path)
        except (OSError, EOFError, LookupError, RuntimeError, TypeError, AttributeError, UnpicklingError) as error:
            raise ValueError(f"{path} does not hold the weights that it should.") from error

    def fit(self, log_mels: Sequence[Tensor]) -> None:
        """Take the statistics of the batch normalisations from the middles of some training clips, if they are new."""
        if self._norms:
            fold_norms(self, self._norms, self.eps, some_middles(log_mels).to(next(self.parameters()).device))
            self._norms = {}

    def pretrained_parameters(self) -> list[nn.Parameter]:
        """All of it."""
        return list(self.parameters())


def some_middles(log_mels: Sequence[Tensor]) -> Tensor:
    """The `middles` of FITTED_CLIPS clips at most, spread over all of them."""
    return middles(log_mels[:: -(-len(log_mels) // FITTED_CLIPS)])


class Bottleneck(Front):
    """Steps of many channels to steps of few: their principal components, some left out in training."""

    is_fitted = True

    def __init__(self, config: Sizes, inputs: int) -> None:
        super().__init__()
        self.linear = Components(inputs, config.bottleneck)
        self.dropout = nn.Dropout1d(config.block_dropout)
        self.out_features = config.bottleneck

    def fit(self, stem: Tensor) -> None:
        """Take the components of the steps of the clips."""
        self.linear.fit(stem.transpose(1, 2).flatten(0, 1))

    def start_like(self, fitted: "Bottleneck") -> None:
        """Take its components."""
        self.linear.load_state_dict(fitted.linear.state_dict())

    def forward(self, stem: Tensor) -> Tensor:
        """(batch, inputs, steps) to (batch, steps, out_features)."""
        return self.dropout(self.linear(stem.transpose(1, 2)).transpose(1, 2)).transpose(1, 2)

    def pretrained_parameters(self) -> list[nn.Parameter]:
        """The components."""
        return list(self.parameters())

    def maps(self, stem: Tensor) -> tuple[Maps, ...]:
        """The steps."""
        steps = self(stem)[0].T.unsqueeze(1)
        return (Maps("half seconds", steps.numpy(), STEP_FRAMES / FRAMES_PER_SECOND),)


class Published(FrontKind):
    """A published net and a bottleneck of its own for each member."""

    fields = frozenset({"block_dropout", "bottleneck", "summary_channels", "summary_components"})
    fast_in_bfloat16_on_cpu = True
    memory_format = torch.channels_last
    stored_in = torch.float16  # the nets are large, and what it rounds is a thousandth of their own noise
    net: ClassVar[type[PublishedStem]]
    file: ClassVar[Weights]
    multiply_adds: ClassVar[int]  # of the net, for one step

    def stem(self) -> PublishedStem:
        """The net, with random weights."""
        return self.net()

    def front(self, config: Sizes, inputs: int) -> Bottleneck:
        """A bottleneck."""
        return Bottleneck(config, inputs)

    def step_frames(self, _: Sizes) -> int:
        """About half a second."""
        return STEP_FRAMES

    def cost(self, config: Sizes) -> Cost:
        """The net, and the linear layer of each step."""
        steps = config.window_frames // STEP_FRAMES
        member = steps * sum(map(sum, self.net.nets_channels)) * config.bottleneck
        return Cost(steps * self.multiply_adds, member, config.bottleneck)

    def load_pretrained(self, stem: PublishedStem, _: Sequence[Front], find: Callable[[Weights], Path]) -> None:
        """Fill in the net's weights; the bottlenecks are fitted later."""
        stem.load(find(self.file))
