"""The convolutional recurrent network: convolutions over the log-mel, a recurrent layer over time, a pooled answer."""

from collections import OrderedDict
from collections.abc import Callable, Hashable, Iterator, Sequence
from dataclasses import dataclass, field
from math import log
from pathlib import Path
from typing import NamedTuple

import torch
import torch.nn.functional as F
from huggingface_hub import PyTorchModelHubMixin
from torch import Tensor, nn

from crnn.features import FEATURE_SETTINGS, N_MELS, n_frames_of, windows
from crnn.network.front import Components, Front, Piece, Weights, middles
from crnn.network.fronts import front_of

CONFIG_VERSION = 2

# What a configuration may ask for: a stranger's may not take the memory and the time of everybody else. The bundled
# models stay far below.
MOST = {
    "members": 16,
    "channels": 1_024,
    "mel_pools": N_MELS,
    "time_pools": 1_024,
    "recurrent_size": 512,
    "bottleneck": 512,
    "summary_components": 512,
    "window_frames": n_frames_of(60.0),
}
MOST_BLOCKS = 12
MOST_GENRES = 200
MOST_CHARACTERS = 64  # of a genre's name
UNSURE, NO_MUSIC = VERDICTS = ("unsure", "no music")  # answers that are no genre
FITTED_AT_ONCE = 16  # clips
CONTEXT_SECONDS = 1.5  # that convolutions hear on both sides of a piece of a song
STRETCH_PIECES = 4  # adjoining ones, of which a stem that gives steps hears so many at once
NOTHING_STRANGE = -1_000.0  # an energy that no song is below
MOST_WEIGHTS = 32_000_000  # of all members behind their fronts
MOST_MULTIPLY_ADDS = 10_000_000  # for one frame, of all members; crnn-transfer needs 8.2 million, crnn-scratch 0.4


@dataclass(frozen=True)
class CRNNConfig:
    """All that is needed to rebuild a CRNN and to use it as it was trained; stored as config.json beside the weights.

    Raises ValueError where the fields contradict each other or ask for too much.
    """

    genres: tuple[str, ...]  # in the order of the logits
    front: str = "small"  # the convolutions, of `crnn.network.fronts`: "small", learned with the rest, or pretrained
    members: int = 1  # CRNNs whose probabilities are averaged; they share what is not learned
    channels: tuple[int, ...] = (16, 48, 96, 192)  # of each convolutional block of the small front
    mel_pools: tuple[int, ...] = (4, 2, 4, 4)  # pooling over mel bands after each block
    time_pools: tuple[int, ...] = (2, 2, 2, 1)  # pooling over time after each block
    recurrent: str = "gru"  # the layer that follows the steps through time: "gru", "lstm" or "none"
    recurrent_size: int = 64  # hidden units in each of the two directions
    pooling: str = "attention+mean"  # over time: "attention", "mean" or both
    bottleneck: int = 64  # principal components of the channels of a published front
    summary: bool = False  # whether the classifier reads mean and maximum of the front's steps beside the pooled ones
    summary_channels: bool = False  # of all channels of published fronts instead, for a classifier of its own
    summary_components: int = 192  # principal components of these channels that it reads
    block_dropout: float = 0.1  # of whole channels, after each convolutional block or bottleneck
    dropout: float = 0.4  # before the classifier
    window_frames: int = n_frames_of(10.0)  # the length that it was trained on
    temperature: float = 1.0  # divides the logits, fitted on validation clips (Guo et al. 2017)
    unsure_below: float = 0.0  # a top probability under this is no answer
    strange_below: float = NOTHING_STRANGE  # nor is what it makes of a song with less energy than this
    trained_on: str = ""  # the split and its parts, so that nobody takes what it has heard for a test
    features: dict = field(default_factory=lambda: dict(FEATURE_SETTINGS))  # of the log-mel that goes in
    version: int = CONFIG_VERSION

    def __post_init__(self) -> None:
        for name in ("genres", "channels", "mel_pools", "time_pools"):  # JSON has lists only
            object.__setattr__(self, name, tuple(getattr(self, name)))
        if len(self.genres) < 2 or len(set(self.genres)) != len(self.genres):
            raise ValueError(f"a CRNN needs at least two different genres, not {list(self.genres[:10])}")
        front_of(self.front)
        for name, variants in (("recurrent", RECURRENT), ("pooling", POOLING)):
            if getattr(self, name) not in variants:
                raise ValueError(f"{name} is one of {', '.join(variants)}, not {getattr(self, name)!r}")
        self._check_sizes()
        if not all(0 <= share < 1 for share in (self.block_dropout, self.dropout)):
            raise ValueError("dropout and block_dropout are shares from 0 to less than 1")
        if not 0.001 <= self.temperature <= 1_000:
            raise ValueError(f"the temperature must be positive, from 0.001 to 1000, not {self.temperature}")
        self._check_cost()

    def _check_sizes(self) -> None:
        """Every number within its bounds, every list no longer than it may be."""
        for name, most in MOST.items():
            value = getattr(self, name)
            if not all(1 <= number <= most for number in (value if isinstance(value, tuple) else [value])):
                raise ValueError(f"{name} must be at least 1 and at most {most}")
        if len(self.channels) > MOST_BLOCKS or len(self.genres) > MOST_GENRES:
            raise ValueError(f"a CRNN has at most {MOST_BLOCKS} convolutional blocks and {MOST_GENRES} genres")
        if not all(name.strip() and name.isprintable() and len(name) <= MOST_CHARACTERS for name in self.genres):
            raise ValueError(f"the name of a genre is a line of 1 to {MOST_CHARACTERS} characters")

    def _check_cost(self) -> None:
        """The time that a window takes, and the memory of the weights, which are used once for a step or a window."""
        cost = front_of(self.front).cost(self)
        if self.window_frames < self.min_frames:
            raise ValueError(f"{self.window_frames} window_frames are fewer than the {self.min_frames} of one step")
        if self.hop_frames < 1:
            raise ValueError(f"{self.window_frames} window_frames are too few to overlap")
        gates = 2 * RECURRENT[self.recurrent].gates  # of a unit, in both directions
        steps = int(self.window_frames / self.step_frames)
        recurrent = gates * self.recurrent_size * (cost.features + self.recurrent_size)
        summary = 2 * cost.features * 2 * self.recurrent_size if self.summary else 0
        classified = cost.features if self.recurrent == "none" else 2 * self.recurrent_size
        classifier = len(self.genres) * (2 * classified + 2 * self.recurrent_size)
        multiply_adds = cost.shared + self.members * (cost.member + recurrent * steps + summary + classifier)
        if multiply_adds > MOST_MULTIPLY_ADDS * self.window_frames:
            raise ValueError("its channels, pools, recurrent_size and members make it too slow")
        if self.members * (recurrent + summary + classifier) > MOST_WEIGHTS:
            raise ValueError("its recurrent_size, summary, genres and members make it too large")

    @property
    def hop_frames(self) -> int:
        """Frames from one window of a song to the next: a quarter of a window."""
        return self.window_frames // 4

    @property
    def min_frames(self) -> int:
        """Frames of the shortest input."""
        return front_of(self.front).min_frames(self)

    @property
    def step_frames(self) -> int:
        """Frames of the log-mel that one step of the recurrent layer spans."""
        return front_of(self.front).step_frames(self)


class Gru(nn.Module):
    """A bidirectional GRU over time (Cho et al. 2014)."""

    gates = 3
    directions = ("forwards", "backwards")  # what its features are, in equal parts

    def __init__(self, inputs: int, hidden_size: int) -> None:
        super().__init__()
        self.gru = nn.GRU(inputs, hidden_size, batch_first=True, bidirectional=True)
        self.out_features = 2 * hidden_size

    def forward(self, steps: Tensor) -> Tensor:
        """(batch, steps, inputs) to (batch, steps, 2 * hidden_size)."""
        return self.gru(steps)[0]


class Lstm(nn.Module):
    """A bidirectional LSTM over time (Hochreiter and Schmidhuber 1997)."""

    gates = 4
    directions = ("forwards", "backwards")

    def __init__(self, inputs: int, hidden_size: int) -> None:
        super().__init__()
        self.lstm = nn.LSTM(inputs, hidden_size, batch_first=True, bidirectional=True)
        self.out_features = 2 * hidden_size

    def forward(self, steps: Tensor) -> Tensor:
        """(batch, steps, inputs) to (batch, steps, 2 * hidden_size)."""
        return self.lstm(steps)[0]


class NoMemory(nn.Module):
    """No recurrent layer, to see what one is worth: each step stays as it is."""

    gates = 0
    directions = ("without a recurrent layer",)

    def __init__(self, inputs: int, _: int) -> None:
        super().__init__()
        self.out_features = inputs

    def forward(self, steps: Tensor) -> Tensor:
        """(batch, steps, inputs) as they are."""
        return steps


# Layers over time, made from the number of their inputs and of their hidden units.
RECURRENT = {"gru": Gru, "lstm": Lstm, "none": NoMemory}


class MeanPool(nn.Module):
    """The mean over time: what goes on throughout."""

    def __init__(self, inputs: int) -> None:
        super().__init__()
        self.out_features = inputs

    def weights(self, steps: Tensor) -> Tensor:
        """How much each of the steps (batch, steps, inputs) counts, (batch, steps, 1) with sum 1: all alike."""
        return torch.full_like(steps[..., :1], 1 / steps.shape[1])

    def forward(self, steps: Tensor) -> Tensor:
        """(batch, steps, inputs) to (batch, inputs)."""
        return steps.mean(dim=1)


class AttentionPool(nn.Module):
    """A mean over time weighted by learned attention: what stands out.

    Attention as in Bahdanau et al. 2015, with one learned query.
    """

    def __init__(self, inputs: int) -> None:
        super().__init__()
        self.score = nn.Linear(inputs, 1)
        self.out_features = inputs

    def weights(self, steps: Tensor) -> Tensor:
        """The attention that each of the steps (batch, steps, inputs) gets, (batch, steps, 1) with sum 1."""
        return self.score(steps).softmax(dim=1)

    def forward(self, steps: Tensor) -> Tensor:
        """(batch, steps, inputs) to (batch, inputs)."""
        return (self.weights(steps) * steps).sum(dim=1)


class AttentionMeanPool(AttentionPool):
    """The mean over time beside a mean weighted by attention: what goes on throughout, and what stands out."""

    def __init__(self, inputs: int) -> None:
        super().__init__(inputs)
        self.out_features = 2 * inputs

    def forward(self, steps: Tensor) -> Tensor:
        """(batch, steps, inputs) to (batch, 2 * inputs)."""
        return torch.cat([steps.mean(dim=1), super().forward(steps)], dim=-1)


# Poolings over time, made from the number of their inputs.
POOLING = {"attention+mean": AttentionMeanPool, "attention": AttentionPool, "mean": MeanPool}


class Summary(nn.Module):
    """What a window holds whatever its order: its `moments`, or components of them, through a linear layer."""

    def __init__(self, inputs: int, out_features: int, dropout: float) -> None:
        super().__init__()
        self.dropout = nn.Dropout(dropout)
        self.linear = nn.Linear(inputs, out_features)
        self.out_features = out_features

    def forward(self, moments: Tensor) -> Tensor:
        """(batch, inputs) to (batch, out_features)."""
        return self.linear(self.dropout(moments)).relu()


def moments(steps: Tensor) -> Tensor:
    """Mean and maximum over time: (batch, steps, channels) to (batch, 2 * channels)."""
    return torch.cat([steps.mean(dim=1), steps.amax(dim=1)], dim=-1)


class Member(nn.Module):
    """One network of the ensemble: front, recurrent layer, pooling over time, classifier."""

    def __init__(self, config: CRNNConfig, front: Front, has_two_heads: bool) -> None:
        super().__init__()
        self.front = front
        self.recurrent = RECURRENT[config.recurrent](front.out_features, config.recurrent_size)
        self.pool = POOLING[config.pooling](self.recurrent.out_features)
        self.summary = None
        if config.summary:
            inputs = config.summary_components if has_two_heads else 2 * front.out_features
            self.summary = Summary(inputs, 2 * config.recurrent_size, config.block_dropout)
        read = [self.pool.out_features] + ([self.summary.out_features] if self.summary else [])
        self.classifier = classifier(read[0] if has_two_heads else sum(read), config)
        self.summary_classifier = classifier(read[1], config) if has_two_heads else None

    def forward(self, steps: Tensor, of_channels: Tensor | None = None) -> Tensor:
        """What the front gives, (batch, steps, front.out_features), to logits (batch, n_genres).

        `of_channels` is what `CRNN.of_channels` gives, for the summary; without it that reads the steps.
        """
        return self.classify(steps, self.recurrent(steps), of_channels)

    def classify(self, steps: Tensor, states: Tensor, of_channels: Tensor | None = None) -> Tensor:
        """The same with the states of the recurrent layer, (batch, steps, recurrent.out_features), at hand."""
        heads = self.heads(self.embed(steps, states, of_channels))
        return mean_logits(torch.stack(heads)) if self.summary_classifier else heads[0]

    def embed(self, steps: Tensor, states: Tensor, of_channels: Tensor | None = None) -> Tensor:
        """What the classifiers read, (batch, embedding_size): the pooled states, then the summary if there is one."""
        pooled = self.pool(states)
        if not self.summary:
            return pooled
        return torch.cat([pooled, self.summary(moments(steps) if of_channels is None else of_channels)], dim=-1)

    def heads(self, embedding: Tensor) -> list[Tensor]:
        """What `embed` gives to the logits (batch, n_genres) of each classifier.

        A summary of all channels has one of its own: beside so much that can be learned at once, the course over time
        would not be.
        """
        if not self.summary_classifier:
            return [self.classifier(embedding)]
        pooled, summary = embedding.tensor_split([self.pool.out_features], dim=-1)
        return [self.classifier(pooled), self.summary_classifier(summary)]

    @property
    def embedding_size(self) -> int:
        """The features of `embed`."""
        return self.pool.out_features + (self.summary.out_features if self.summary else 0)


def classifier(inputs: int, config: CRNNConfig) -> nn.Sequential:
    """The last layer: (batch, inputs) to logits (batch, n_genres)."""
    layers = OrderedDict(dropout=nn.Dropout(config.dropout), linear=nn.Linear(inputs, len(config.genres)))
    return nn.Sequential(layers)


class CRNN(
    nn.Module,
    PyTorchModelHubMixin,
    library_name="genre-crnn",
    license="mit",
    pipeline_tag="audio-classification",
    tags=["music", "music-genre-classification", "crnn"],
):
    """Convolutional recurrent network for music genre recognition, after Choi et al.

    Convolutions turn the log-mel into a sequence of local features, a recurrent layer follows them through time, and
    pooling over time gives one vector from which the genre is read. Several such networks, the members, differ in
    nothing but their random start; the mean of their probabilities is the answer (deep ensemble).

    K. Choi, G. Fazekas, M. Sandler, K. Cho, "Convolutional recurrent neural networks for music classification",
    ICASSP 2017, arXiv:1609.04243. B. Lakshminarayanan, A. Pritzel, C. Blundell, "Simple and scalable predictive
    uncertainty estimation using deep ensembles", NeurIPS 2017, arXiv:1612.01474.
    """

    def __init__(self, config: CRNNConfig) -> None:
        super().__init__()
        self.config = config
        self.has_base = False  # with one, all but the classifier is trained further; see `load_base`
        kind = front_of(config.front)
        self.stem = kind.stem()
        self.components = None  # of what a window holds in all channels of the stem, for the summaries of all members
        if config.summary and config.summary_channels and self.stem.groups:
            self.components = Components(2 * sum(map(sum, self.stem.groups)), config.summary_components)
        self.members = nn.ModuleList(
            Member(config, kind.front(config, self.stem.out_features), has_two_heads=self.components is not None)
            for _ in range(config.members)
        )

    def load_pretrained(self, find: Callable[[Weights], Path]) -> None:
        """Fill in the pretrained weights, where the front has them.

        `find` gives the path of a file that its authors publish. Raises what that raises, and ValueError if a file is
        not theirs.
        """
        front_of(self.config.front).load_pretrained(self.stem, [member.front for member in self.members], find)

    def arranged(self) -> "CRNN":
        """Itself, in evaluation mode, with its weights where a CPU finds them fastest."""
        return self.eval().to(memory_format=front_of(self.config.front).memory_format)

    @torch.no_grad()
    def fit(self, log_mels: Sequence[Tensor]) -> None:
        """Take what stem and fronts have to know of the training clips (128, frames) in dB before they are trained."""
        self.stem.fit(log_mels)
        if self.components or any(member.front.is_fitted for member in self.members):
            device = next(self.parameters()).device
            self.fit_layers(as_one([self.stem(part.to(device)) for part in middles(log_mels).split(FITTED_AT_ONCE)]))

    @torch.no_grad()
    def fit_layers(self, stem: Tensor | tuple[Tensor, ...]) -> None:
        """Take what the layers behind the stem have to know from what it gives of windows of the training clips."""
        for member in self.members:
            member.front.fit(stem)
        if self.components:
            self.components.fit(moments(channels_of(stem)), channel_weights(self.stem.groups).repeat(2))

    def load_base(self, base: "CRNN") -> None:
        """Start from a model with the same network: all but the classifier, and its rows of the genres that both know.

        Raises RuntimeError if the networks differ.
        """
        shared = [genre for genre in self.config.genres if genre in base.config.genres]
        here, there = ([model.config.genres.index(genre) for genre in shared] for model in (self, base))
        weights = base.state_dict()
        for name, value in self.state_dict().items():
            if "classifier.linear." in name:
                value[here] = weights[name][there]
                weights[name] = value
        self.load_state_dict(weights)
        self.has_base = True

    def pretrained_parameters(self) -> list[nn.Parameter]:
        """What is trained further rather than from a random start."""
        shared = [*self.stem.pretrained_parameters(), *(self.components.parameters() if self.components else ())]
        if self.has_base:
            return [*shared, *(value for name, value in self.members.named_parameters() if "classifier." not in name)]
        return [*shared, *(value for member in self.members for value in member.front.pretrained_parameters())]

    def forward(self, log_mel: Tensor) -> Tensor:
        """Log-mel (batch, 128, frames) in dB to logits (batch, n_genres); any number of frames from one second up.

        Raises ValueError for any other shape.
        """
        return mean_logits(self.member_logits(log_mel))

    def member_logits(self, log_mel: Tensor) -> Tensor:
        """Log-mel as in `forward` to the logits of each classifier of each member, (classifiers, batch, n_genres)."""
        return self.logits_of(self.stem_of(log_mel))

    def stem_of(self, log_mel: Tensor) -> Tensor | tuple[Tensor, ...]:
        """Log-mel as in `forward` to what the stem gives."""
        if log_mel.ndim != 3 or log_mel.shape[1] != N_MELS or log_mel.shape[2] < self.config.min_frames:
            raise ValueError(f"log_mel must be (batch, {N_MELS}, a second of frames), not {tuple(log_mel.shape)}")
        return self.stem(log_mel)

    def logits_of(self, stem: Tensor | tuple[Tensor, ...]) -> Tensor:
        """What the stem gives of windows to the logits as `member_logits` gives them."""
        return self.outputs(self.steps_and_channels(stem))[0]

    def steps(self, stem: Tensor | tuple[Tensor, ...]) -> list[Tensor]:
        """What the stem gives to what each member's recurrent layer reads, (batch, steps, front.out_features)."""
        return [member.front(stem) for member in self.members]

    def of_channels(self, stem: Tensor | tuple[Tensor, ...]) -> Tensor | None:
        """What the summaries read of what the stem gives, (batch, summary_components); None where they read steps."""
        return self._of_channels(channels_of(stem)) if self.components else None

    def window_logits(
        self, log_mel: Tensor, hop_frames: int | None = None, batch_size: int = 16
    ) -> tuple[Tensor, list[int]]:
        """Logits (n_windows, n_genres) of the windows of one log-mel (128, frames), and the frame where each starts."""
        plan = self.plan(log_mel, hop_frames or self.config.hop_frames)
        return self.hear([plan], batch_size)[0].logits, plan.starts

    def plan(self, log_mel: Tensor, hop_frames: int) -> "Plan":
        """The windows of a log-mel (128, frames), `config.window_frames` long and about `hop_frames` apart.

        Where they overlap, the convolutions are computed once over the song, so that at its edges a window hears its
        neighbours rather than nothing. The last one ends with a step that may not be whole.
        """
        size, step = self.config.window_frames, self.config.step_frames
        if hop_frames >= size or log_mel.shape[-1] <= size:
            batch, starts = windows(log_mel, size, hop_frames)
            return Plan(starts, list(batch))
        last = -(-log_mel.shape[-1] // step) - size // step
        starts = [*range(0, last, -(-hop_frames // step)), last]  # in steps
        slices = [slice(start, start + size // step) for start in starts]
        return Plan([start * step for start in starts], [], log_mel, slices)

    def hear(self, plans: Sequence["Plan"], batch_size: int = 16, pieces_at_once: int = 1) -> list["Windows"]:
        """What it makes of the windows of several songs, whose log-mels are on the model's device.

        `batch_size` windows are computed at once, of whatever songs, and so many pieces of `songs_steps`: memory and
        speed, not results.
        """
        songs = iter(self.songs_steps([plan.song for plan in plans if plan.slices], pieces_at_once))
        alone = iter(self._steps_of([window for plan in plans for window in plan.alone], batch_size))
        steps: list[list[Tensor]] = []  # of each window, those of all members
        for plan in plans:
            song = next(songs) if plan.slices else []
            steps += [[member[part] for member in song] for part in plan.slices] + [next(alone) for _ in plan.alone]
        heard: list[tuple[Tensor, Tensor]] = [()] * len(steps)
        for numbers in _alike([len(window[0]) for window in steps], batch_size):
            per_member = [torch.stack(of).float() for of in zip(*(steps[number] for number in numbers), strict=True)]
            # In float32 always: to convert weights anew for each of so small products takes longer than they do.
            with torch.autocast(per_member[0].device.type, enabled=False):
                logits, vectors = self.outputs(per_member)
            embeddings = torch.cat(vectors, dim=-1).float()
            for number, *of_window in zip(numbers, mean_logits(logits), embeddings, strict=True):
                heard[number] = of_window
        of_song = iter(heard)
        return [Windows(*map(torch.stack, zip(*(next(of_song) for _ in plan.starts), strict=True))) for plan in plans]

    def songs_steps(self, log_mels: Sequence[Tensor], pieces_at_once: int = 1) -> list[list[Tensor]]:
        """What each member's recurrent layer reads of whole log-mels (128, frames), (steps, front.out_features).

        Last, where the summaries read them, the channels of the stem, (steps, channels). A song goes through the
        convolutions in pieces as long as a window, each with some of what is before and behind it, to spare memory:
        what they give is in the near cache of a processor. A stem that gives steps hears adjoining ones together
        where it may. A GPU takes many pieces at once. A last step that is not whole is filled up with what is before
        it, mirrored.
        """
        step = self.config.step_frames
        stretches, plans, kept = [], [], [[] for _ in log_mels]
        for log_mel, of_song in zip(log_mels, kept, strict=True):
            pieces = self._pieces(-(-log_mel.shape[-1] // step))
            n_pieces = STRETCH_PIECES if self.stem.groups else 1
            for first in range(0, len(pieces), n_pieces):
                together = pieces[first : first + n_pieces]
                start, end = together[0].heard_from, together[-1].heard_to
                of_song.append(len(stretches))
                stretch = log_mel[:, start * step : end * step]
                stretches.append(F.pad(stretch, (0, (end - start) * step - stretch.shape[-1]), mode="reflect"))
                plans.append(tuple(Piece(*(place - start for place in piece)) for piece in together))
        given: list[list[Tensor]] = [[] for _ in stretches]
        for numbers in _alike(plans, max(1, pieces_at_once // STRETCH_PIECES)):
            steps = self._of_stretches(torch.stack([stretches[number] for number in numbers]), plans[numbers[0]])
            for number, *of_stretch in zip(numbers, *steps, strict=True):
                given[number] = of_stretch
        return [[torch.cat(parts) for parts in zip(*(given[n] for n in numbers), strict=True)] for numbers in kept]

    def _pieces(self, n_steps: int) -> list[Piece]:
        """As long as a window each; all hear as much, but of a song that is shorter."""
        context = -(-n_frames_of(CONTEXT_SECONDS) // self.config.step_frames)
        size = max(self.config.window_frames // self.config.step_frames, 1)
        heard = min(size + 2 * context, n_steps)
        starts = [(first, min(max(first - context, 0), n_steps - heard)) for first in range(0, n_steps, size)]
        return [Piece(start, start + heard, first, min(first + size, n_steps)) for first, start in starts]

    def _of_stretches(self, stretches: Tensor, pieces: Sequence[Piece]) -> list[Tensor]:
        """What `steps_and_channels` gives of what pieces of log-mels (batch, 128, frames) keep."""
        if self.stem.groups:
            return self.steps_and_channels(self.stem.of_stretch(stretches, pieces))
        (piece,) = pieces
        given = self.steps_and_channels(self.stem_of(stretches))
        return [steps[:, piece.kept_from : piece.kept_to] for steps in given]

    def _steps_of(self, log_mels: Sequence[Tensor], at_once: int) -> list[list[Tensor]]:
        """Those of each member, (steps, front.out_features), of log-mels (128, frames) of any lengths."""
        given: list[list[Tensor]] = [[] for _ in log_mels]
        for numbers in _alike([log_mel.shape[-1] for log_mel in log_mels], at_once):
            stem = self.stem_of(torch.stack([log_mels[number] for number in numbers]))
            per_member = self.steps_and_channels(stem)
            for number, *steps in zip(numbers, *per_member, strict=True):
                given[number] = steps
        return given

    def steps_and_channels(self, stem: Tensor | tuple[Tensor, ...]) -> list[Tensor]:
        """What the stem gives to `steps`; last, where the summaries read them, to its channels at each step."""
        return [*self.steps(stem), *([channels_of(stem)] if self.components else [])]

    def _of_channels(self, channels: Tensor) -> Tensor:
        return self.components(moments(channels))

    def outputs(self, per_member: Sequence[Tensor]) -> tuple[Tensor, list[Tensor]]:
        """What `steps_and_channels` gives of windows to logits as of `member_logits`, and to each member's `embed`."""
        *per_member, channels = per_member if self.components else [*per_member, None]
        of_channels = self._of_channels(channels) if self.components else None
        vectors = [
            member.embed(steps, member.recurrent(steps), of_channels)
            for member, steps in zip(self.members, per_member, strict=True)
        ]
        logits = [head for member, vector in zip(self.members, vectors, strict=True) for head in member.heads(vector)]
        return torch.stack(logits), vectors


class Windows(NamedTuple):
    """What a model makes of the windows of a song."""

    logits: Tensor  # (n_windows, n_genres), as `mean_logits` gives them
    embeddings: Tensor  # (n_windows, members * features): what the members' classifiers read, one behind the other


class Plan(NamedTuple):
    """The windows of a song: those that are `slices` of the steps of all of it, then those that are heard alone."""

    starts: list[int]  # in frames
    alone: list[Tensor]  # log-mels (128, frames)
    song: Tensor | None = None  # (128, frames)
    slices: Sequence[slice] = ()


def _alike(kinds: Sequence[Hashable], at_once: int) -> Iterator[list[int]]:
    """Where equal ones stand, at most so many at once."""
    numbers: dict[Hashable, list[int]] = {}
    for number, kind in enumerate(kinds):
        numbers.setdefault(kind, []).append(number)
    for same in numbers.values():
        for first in range(0, len(same), at_once):
            yield same[first : first + at_once]


def channel_weights(groups: Sequence[Sequence[int]]) -> Tensor:
    """How much each channel counts for the nets of a stem to count alike, and in each net its blocks: (channels,)."""
    return torch.cat([torch.full((size,), (len(net) * size) ** -0.5) for net in groups for size in net])


def channels_of(stem: Tensor | tuple[Tensor, ...]) -> Tensor:
    """What a stem that gives steps gave, all parts side by side, (batch, steps, channels)."""
    return (stem if isinstance(stem, Tensor) else torch.cat(stem, dim=1)).transpose(1, 2)


def as_one(batches: Sequence[Tensor | tuple[Tensor, ...]]) -> Tensor | tuple[Tensor, ...]:
    """What a stem gave of several batches as if of one."""
    if isinstance(batches[0], Tensor):
        return torch.cat(list(batches))
    return tuple(torch.cat(parts) for parts in zip(*batches, strict=True))


def mean_logits(of_members: Tensor) -> Tensor:
    """Logits (members, batch, n_genres) to those of the mean of their probabilities, (batch, n_genres).

    Their `energy` is that of the mean of the members' logits, so that those of a single member stay as they are.
    """
    of_members = of_members.float()
    return of_members.log_softmax(dim=-1).logsumexp(dim=0) - log(len(of_members)) + energy(of_members.mean(0))[:, None]


def energy(logits: Tensor) -> Tensor:
    """How much in a window speaks for any genre at all: logits (batch, n_genres) to (batch,).

    It is low for what is like nothing that a model was trained on, where probabilities may still be high (W. Liu,
    X. Wang, J. Owens, Y. Li, "Energy-based out-of-distribution detection", NeurIPS 2020, arXiv:2010.03759; there with
    the other sign).
    """
    return logits.logsumexp(dim=-1)
