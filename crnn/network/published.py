"""Fronts whose convolutions their authors published, trained further here: what they have in common."""

from abc import abstractmethod
from collections.abc import Callable, Sequence
from pathlib import Path
from pickle import UnpicklingError
from typing import TYPE_CHECKING, ClassVar

import torch
from torch import Tensor, nn

from crnn.features import FRAMES_PER_SECOND
from crnn.network.front import Cost, Front, FrontKind, Maps, Stem, Weights
from crnn.network.mapping import STEP_FRAMES, fold_norms

if TYPE_CHECKING:
    from crnn.network.model import CRNNConfig

FITTED_CLIPS, FITTED_STEPS = 64, 20  # that the statistics of the batch normalisations come from


class PublishedStem(Stem):
    """A net that others trained, without its last layers: our log-mel to steps (batch, out_features, steps).

    Its batch normalisations are part of its convolutions, with the statistics of our training clips; `fit` makes them
    so after `load`. All of it is trained further.
    """

    eps: ClassVar[float]  # of its batch normalisations

    def __init__(self) -> None:
        super().__init__()
        self._norms: dict[str, tuple[Tensor, Tensor]] = {}  # between `load` and `fit`

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
            n_frames = FITTED_STEPS * STEP_FRAMES
            chosen = log_mels[:: -(-len(log_mels) // FITTED_CLIPS)]
            middles = [log_mel[:, max(log_mel.shape[1] - n_frames, 0) // 2 :][:, :n_frames] for log_mel in chosen]
            shortest = min(middle.shape[1] for middle in middles)
            fold_norms(self, self._norms, self.eps, torch.stack([middle[:, :shortest] for middle in middles]))
            self._norms = {}

    def pretrained_parameters(self) -> list[nn.Parameter]:
        """All of it."""
        return list(self.parameters())


class Bottleneck(Front):
    """Steps of many channels to steps of few: standardised, in training without some of them, a linear layer, ReLU."""

    def __init__(self, config: "CRNNConfig", inputs: int) -> None:
        super().__init__()
        self.norm = nn.BatchNorm1d(inputs, affine=False)
        self.dropout = nn.Dropout1d(config.block_dropout)
        self.linear = nn.Linear(inputs, 2 * config.recurrent_size)
        self.out_features = self.linear.out_features

    def forward(self, stem: Tensor) -> Tensor:
        """(batch, inputs, steps) to (batch, steps, out_features)."""
        return self.linear(self.dropout(self.norm(stem)).transpose(1, 2)).relu()

    def maps(self, stem: Tensor) -> tuple[Maps, ...]:
        """The steps."""
        steps = self(stem)[0].T.unsqueeze(1)
        return (Maps("half seconds", steps.numpy(), STEP_FRAMES / FRAMES_PER_SECOND),)


class Published(FrontKind):
    """A published net and a bottleneck of its own for each member."""

    fields = frozenset({"block_dropout"})
    net: ClassVar[type[PublishedStem]]
    file: ClassVar[Weights]
    multiply_adds: ClassVar[int]  # of the net, for one step

    def stem(self) -> PublishedStem:
        """The net, with random weights."""
        return self.net()

    def front(self, config: "CRNNConfig", inputs: int) -> Bottleneck:
        """A bottleneck as wide as the recurrent layer after it."""
        return Bottleneck(config, inputs)

    def step_frames(self, _: "CRNNConfig") -> int:
        """About half a second."""
        return STEP_FRAMES

    def cost(self, config: "CRNNConfig") -> Cost:
        """The net, and the linear layer of each step."""
        steps = config.window_frames // STEP_FRAMES
        features = 2 * config.recurrent_size
        return Cost(steps * self.multiply_adds, steps * self.net.out_features * features, features)

    def load_pretrained(self, stem: PublishedStem, _: Sequence[Front], find: Callable[[Weights], Path]) -> None:
        """Fill in the net's weights; the bottlenecks start at random."""
        stem.load(find(self.file))
