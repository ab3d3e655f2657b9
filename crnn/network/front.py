"""What a front is: the convolutions that turn a log-mel into steps, and all that the house asks of them.

A front is a module of this folder and a line in `crnn.network.fronts`. It has three parts: the stem, which all members
of a model share; the layers behind it, of which each member has its own; and its kind, which says what has to be known
before either is made.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple, Protocol

import numpy as np
import torch
from torch import Tensor, nn

from crnn.features import n_frames_of, repeat_to
from crnn.network.licences import Source

MOST_CELLS = 4_000_000  # of the largest map of one window; crnn-scratch has 0.5 million


class Sizes(Protocol):
    """What a front may ask of the CRNNConfig that it is made for."""

    channels: tuple[int, ...]
    mel_pools: tuple[int, ...]
    time_pools: tuple[int, ...]
    block_dropout: float
    bottleneck: int
    recurrent_size: int
    window_frames: int


@dataclass(frozen=True, eq=False)  # arrays have no single ==
class Maps:
    """What a convolution gives: (channels, bands, frames); a single band where frequency has become channels."""

    name: str
    values: np.ndarray  # float32
    frame_seconds: float


@dataclass(frozen=True)
class Weights:
    """A file of weights as its authors publish it."""

    name: str
    url: str  # of one commit or release
    sha256: str


@dataclass(frozen=True)
class Cost:
    """What a front takes, in multiply-adds for one window of a model's `window_frames`, and what it gives."""

    shared: int  # by the stem
    member: int  # by the layers of each member
    features: int  # of a step


class Piece(NamedTuple):
    """A part of a stretch of a song, in steps of the stretch; what is heard of its neighbours, too, is not kept."""

    heard_from: int
    heard_to: int
    kept_from: int
    kept_to: int


class Stem(nn.Module):
    """What the members of a model share: log-mel (batch, 128, frames) in dB to what the layers behind it take."""

    out_features: int | tuple[int, ...]  # the size of axis 1 of what it gives; of each part, where it gives several
    groups: tuple[tuple[int, ...], ...] = ()  # of a net that gives steps, the channels of its blocks; a tuple a net

    def convolved(self, log_mel: Tensor) -> Tensor | tuple[Tensor, ...]:
        """What its convolutions give, of which a song is heard in pieces."""
        return self(log_mel)

    def of_stretch(self, stretch: Tensor, pieces: Sequence[Piece]) -> Tensor | tuple[Tensor, ...]:
        """The steps that adjoining pieces keep of log-mels (batch, 128, frames) in dB, of a stem that gives steps.

        Where a step hears no more than its neighbours, what two pieces hear is computed once.
        """
        return self.convolved(stretch)[..., pieces[0].kept_from : pieces[-1].kept_to]

    def remembered(self, convolved: Tensor) -> Tensor | tuple[Tensor, ...]:
        """What `convolved` gives of a whole song, (1, channels, steps), to what the stem gives of it.

        Here the recurrent layers of a published net go over the song.
        """
        return convolved

    def alone(self, log_mel: Tensor) -> Tensor | tuple[Tensor, ...]:
        """What it gives of log-mels (batch, 128, frames) in dB of which nothing before is known.

        Recurrent layers have heard each once already, as they have other music of a song in the middle of it.
        """
        return self(log_mel)

    def kind_scores(self, means: Tensor) -> Tensor | None:  # noqa: ARG002
        """How much of each of AudioSet's genres is in windows, as `KindScores` says it, (batch, kinds); mostly nothing.

        `means` (batch, channels) are over time, of what the stem gives.
        """
        return None

    def fit(self, log_mels: Sequence[Tensor]) -> None:
        """Take what it has to know of the training clips from their log-mels (128, frames) in dB; mostly nothing."""

    def pretrained_parameters(self) -> list[nn.Parameter]:
        """Those that are trained further, slowly and without decay, for all members together."""
        return []

    def maps(self, _: Tensor) -> tuple[Maps, ...]:
        """What "How it works" shows of the stem for the first of the log-mels (batch, 128, frames); mostly nothing."""
        return ()


def nets_of(given: Tensor | tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    """What a stem gives, of each of its nets."""
    return given if isinstance(given, tuple) else (given,)


def as_given(nets: Sequence[Tensor]) -> Tensor | tuple[Tensor, ...]:
    """That of each net as a stem gives it: one tensor of one, a tuple of several."""
    return tuple(nets) if len(nets) > 1 else nets[0]


class Components(nn.Linear):
    """Many channels that are much alike to few: their principal components, a start from which it is trained further.

    A layer that starts at random finds in many channels, but few clips, what is chance.
    """

    @torch.no_grad()
    def fit(self, rows: Tensor, weights: Tensor | None = None) -> None:
        """Take the first components of rows (n, in_features), standardised; they have unit variance on average.

        `weights` (in_features,) say how much each channel counts; without them all count alike.
        """
        rows = rows.double()
        mean, scale = rows.mean(dim=0), rows.std(dim=0).clamp_min(1e-3)
        scale = scale if weights is None else scale / weights.to(rows)
        variances, axes = _principal_axes((rows - mean) / scale, self.out_features)
        spread = variances.mean().clamp_min(1e-6).sqrt()  # clips may be all alike
        weight = axes / spread / scale
        self.weight[: len(weight)] = weight.float()
        self.bias[: len(weight)] = -(weight @ mean).float()


def _principal_axes(rows: Tensor, n: int) -> tuple[Tensor, Tensor]:
    """The n largest variances of rows (m, channels) about zero, and their axes (n, channels); fewer if there are."""
    if len(rows) < rows.shape[1]:
        _, singular, axes = torch.linalg.svd(rows, full_matrices=False)
        return singular[:n] ** 2 / len(rows), axes[:n]
    variances, axes = torch.linalg.eigh(rows.T @ rows / len(rows))
    return variances[-n:].flip(0), axes[:, -n:].flip(1).T


class Front(nn.Module):
    """The convolutions of one member: what the stem gives to steps (batch, steps, out_features)."""

    out_features: int
    is_fitted = False  # whether it starts from what the stem gives of the training clips

    def fit(self, stem: Tensor) -> None:
        """Take what it starts from of what the stem gives of the middles of the training clips."""

    def start_like(self, fitted: "Front") -> None:
        """Take what that of another member took by `fit`: it is the same for all, and takes a while."""

    def pretrained_parameters(self) -> list[nn.Parameter]:
        """Those that are trained further, slowly and without decay, rather than from a random start."""
        return []

    def maps(self, stem: Tensor) -> tuple[Maps, ...]:
        """What "How it works" shows of the first window of what the stem gives.

        The last is what the recurrent layer reads: (out_features, 1, steps).
        """
        raise NotImplementedError


def is_inference_on_cpu(given: Tensor) -> bool:
    """Whether a net computes on a CPU what it gives, no more: no gradient is recorded, and nothing is exported."""
    return given.device.type == "cpu" and not (torch.is_grad_enabled() or torch.compiler.is_exporting())


def middles(log_mels: Sequence[Tensor]) -> Tensor:
    """The middle ten seconds of clips (128, frames) in dB, or as much as the longest has: (clips, 128, n).

    Shorter ones are repeated.
    """
    n_frames = min(n_frames_of(10.0), max(log_mel.shape[1] for log_mel in log_mels))
    log_mels = [repeat_to(log_mel, max(n_frames, log_mel.shape[1])) for log_mel in log_mels]
    starts = [(log_mel.shape[1] - n_frames) // 2 for log_mel in log_mels]
    return torch.stack([log_mel[:, start:][:, :n_frames] for log_mel, start in zip(log_mels, starts, strict=True)])


class FrontKind(ABC):
    """What is known of a front before one is made. Its instance in the registry is the only thing that others ask."""

    fields: frozenset[str] = frozenset()  # of CRNNConfig, those that mean something to this front alone
    memory_format = torch.contiguous_format  # in which a CPU computes its convolutions fastest
    stored_in = torch.float32  # on disk
    remembers = False  # whether its stem has recurrent layers, which hear a song in one piece
    fast_in_bfloat16_on_cpu = False  # where the CPU computes in it; a GPU that does so always gains
    notice = ""  # for the model card, in Markdown: where its weights come from, whose they are, under which licence
    sources: tuple[Source, ...] = ()  # the same, for the notice that goes with a model

    @abstractmethod
    def stem(self) -> Stem:
        """A new stem."""

    @abstractmethod
    def front(self, config: Sizes, inputs: int) -> Front:
        """New layers of one member, for a stem of `inputs` features."""

    @abstractmethod
    def step_frames(self, config: Sizes) -> int:
        """How many frames of the log-mel one step spans; steps adjoin, the first starts with frame 0."""

    @abstractmethod
    def cost(self, config: Sizes) -> Cost:
        """What it takes for one window. Raises ValueError where its fields are at odds or ask for too much."""

    def load_pretrained(self, stem: Stem, fronts: Sequence[Front], find: Callable[[Weights], Path]) -> None:  # noqa: B027
        """Fill in the weights that it starts from in a stem and the layers of all members; without any, all is random.

        `find` gives the path of a file that its authors publish. Raises what that raises, and ValueError if the file
        is not theirs.
        """
