"""The convolutional recurrent network: convolutions over the log-mel, a recurrent layer over time, a pooled answer."""

import json
from collections import OrderedDict
from collections.abc import Callable, Sequence
from copy import deepcopy
from dataclasses import asdict
from pathlib import Path

import torch
from huggingface_hub import PyTorchModelHubMixin, constants
from torch import Tensor, nn

from crnn.features import N_MELS
from crnn.network.audioset import Strangeness
from crnn.network.config import CRNNConfig
from crnn.network.front import Components, Front, Weights, as_given, middles, nets_of
from crnn.network.fronts import front_of
from crnn.network.genres import known_as
from crnn.network.layers import POOLING, RECURRENT, Summary, mean_logits, moments, states_of
from crnn.network.licences import NOTICE_FILE, notice_before
from crnn.network.linear import LinearClassifier

FITTED_AT_ONCE = 16  # clips
STRANGENESS = 0.3  # of the energy for a standard deviation of strangeness; 0.2 to 0.5 tell strangers as well


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

    def classify(self, steps: Tensor, states: Tensor, of_channels: Tensor | None = None) -> Tensor:
        """What the front gives, (batch, steps, front.out_features), to logits (batch, n_genres).

        `states` (batch, steps, recurrent.out_features) are what the recurrent layer makes of it, `of_channels` what
        `CRNN.of_channels` gives, for the summary; without it that reads the steps.
        """
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
        self.strangeness = Strangeness(config.genres)
        kind = front_of(config.front)
        self.stem = kind.stem()
        self.components = None  # of what a window holds in all channels of the stem, for the summaries of all members
        if config.summary and config.summary_channels and self.stem.groups:
            self.components = Components(2 * sum(map(sum, self.stem.groups)), config.summary_components)
        self.linear = None  # reads the same
        if self.components and config.linear:
            self.linear = LinearClassifier(config.summary_components, len(config.genres))
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

    def _save_pretrained(self, save_directory: Path) -> None:
        """What the library's `save_pretrained` and `push_to_hub` write beside a card: what can be loaded again.

        The configuration is the model's of now, whatever the library has from the beginning or is given.
        """
        kind = front_of(self.config.front)
        stored = deepcopy(self).to(kind.stored_in, memory_format=torch.contiguous_format)
        super(CRNN, stored)._save_pretrained(save_directory)
        # safetensors keeps it to its owner, and a server is often somebody else
        (save_directory / constants.SAFETENSORS_SINGLE_FILE).chmod(0o644)
        config = json.dumps(asdict(self.config), sort_keys=True, indent=2)
        (save_directory / constants.CONFIG_NAME).write_text(config, encoding="utf-8")
        path = save_directory / NOTICE_FILE
        if notice := notice_before(kind.sources, path.read_text("utf-8", "replace") if path.is_file() else ""):
            path.write_text(notice, encoding="utf-8")

    @torch.no_grad()
    def fit(self, log_mels: Sequence[Tensor]) -> None:
        """Take what stem and fronts have to know of the training clips (128, frames) in dB before they are trained."""
        self.stem.fit(log_mels)
        if self.components or any(member.front.is_fitted for member in self.members):
            self.fit_layers(self.stem_of_middles(log_mels))

    def stem_of_middles(self, log_mels: Sequence[Tensor]) -> Tensor | tuple[Tensor, ...]:
        """What the stem gives of the middle window of each of some log-mels (128, frames), a few at a time."""
        device = next(self.parameters()).device
        return as_one([self.stem_of(part.to(device)) for part in middles(log_mels).split(FITTED_AT_ONCE)])

    @torch.no_grad()
    def fit_layers(self, stem: Tensor | tuple[Tensor, ...]) -> None:
        """Take what the layers behind the stem have to know from what it gives of windows of the training clips."""
        first, *others = (member.front for member in self.members)
        first.fit(stem)
        for front in others:
            front.start_like(first)
        if self.components:
            self.components.fit(moments(channels_of(stem)), channel_weights(self.stem.groups).repeat(2))

    def load_base(self, base: "CRNN") -> None:
        """Start from a model with the same network: all but the classifier, and its rows of the genres that both know.

        These may be spelled otherwise there. Raises RuntimeError if the networks differ.
        """
        shared = known_as(self.config.genres, base.config.genres)
        here = [self.config.genres.index(genre) for genre in shared]
        there = [base.config.genres.index(genre) for genre in shared.values()]
        weights = base.state_dict()
        for name, value in self.state_dict().items():
            if name in weights and ("classifier.linear." in name or name.startswith("linear.")):
                value[here] = weights[name][there]
                weights[name] = value
        self.load_state_dict(weights)
        self.has_base = True

    def pretrained_parameters(self) -> list[nn.Parameter]:
        """What is trained further rather than from a random start."""
        if not self.has_base:
            return self.published_parameters()
        of_members = (value for name, value in self.members.named_parameters() if "classifier." not in name)
        return [*self._shared_pretrained(), *of_members]

    def published_parameters(self) -> list[nn.Parameter]:
        """What of it others have trained, and what was fitted to that: it may rest while the layers behind it learn."""
        of_members = (value for member in self.members for value in member.front.pretrained_parameters())
        return [*self._shared_pretrained(), *of_members]

    def _shared_pretrained(self) -> list[nn.Parameter]:
        return [*self.stem.pretrained_parameters(), *(self.components.parameters() if self.components else ())]

    def forward(self, log_mel: Tensor) -> Tensor:
        """Log-mel (batch, 128, frames) in dB to logits (batch, n_genres); any number of frames from one second up.

        Raises ValueError for any other shape.
        """
        return self.answer_of(self.stem_of(log_mel))

    def member_logits(self, log_mel: Tensor) -> Tensor:
        """Log-mel as in `forward` to the logits of each classifier of each member, (classifiers, batch, n_genres)."""
        return self.logits_of(self.stem_of(log_mel))

    def stem_of(self, log_mel: Tensor) -> Tensor | tuple[Tensor, ...]:
        """Log-mel as in `forward` to what the stem gives of it alone."""
        return self.stem.alone(self.checked(log_mel))

    def checked(self, log_mel: Tensor) -> Tensor:
        """Itself. Raises ValueError if its shape is not as in `forward`."""
        if log_mel.ndim != 3 or log_mel.shape[1] != N_MELS or log_mel.shape[2] < self.config.min_frames:
            raise ValueError(f"log_mel must be (batch, {N_MELS}, a second of frames), not {tuple(log_mel.shape)}")
        return log_mel

    def logits_of(self, stem: Tensor | tuple[Tensor, ...]) -> Tensor:
        """What the stem gives of windows to the logits as `member_logits` gives them."""
        return self._classified(self.steps_and_channels(stem))[0]

    def answer_of(self, stem: Tensor | tuple[Tensor, ...]) -> Tensor:
        """What the stem gives of windows to logits (batch, n_genres), as `forward` gives them."""
        return self.outputs(self.steps_and_channels(stem))[0]

    def logits_of_each(self, stems: Sequence[Tensor | tuple[Tensor, ...]]) -> Tensor:
        """Logits (classifiers, batch, n_genres) where each member hears something else.

        Unlike those of `logits_of`, they are not lowered by strangeness.
        """
        logits = []
        for member, stem in zip(self.members, stems, strict=True):
            steps = member.front(stem)
            logits += member.heads(member.embed(steps, member.recurrent(steps), self.of_channels(stem)))
        return torch.stack(logits)

    def steps(self, stem: Tensor | tuple[Tensor, ...]) -> list[Tensor]:
        """What the stem gives to what each member's recurrent layer reads, (batch, steps, front.out_features)."""
        return [member.front(stem) for member in self.members]

    def of_channels(self, stem: Tensor | tuple[Tensor, ...]) -> Tensor | None:
        """What the summaries read of what the stem gives, (batch, summary_components); None where they read steps."""
        return self.components(moments(channels_of(stem))) if self.components else None

    def steps_and_channels(self, stem: Tensor | tuple[Tensor, ...]) -> list[Tensor]:
        """What the stem gives to `steps`; last, where the summaries read them, to its channels at each step."""
        return [*self.steps(stem), *([channels_of(stem)] if self.components else [])]

    def outputs(self, per_member: Sequence[Tensor]) -> tuple[Tensor, list[Tensor], Tensor]:
        """What `steps_and_channels` gives of windows to logits as of `forward`, each member's `embed`, and kinds.

        Kinds are what the stem's `kind_scores` gives, (batch, 0) where it gives nothing. What sounds like a genre that
        is not the model's has less energy, which changes no probability.
        """
        logits, of_channels, vectors, kinds = self._classified(per_member)
        return mean_logits(logits, self.linear(of_channels) if self.linear else None), vectors, kinds

    def _classified(self, per_member: Sequence[Tensor]) -> tuple[Tensor, Tensor | None, list[Tensor], Tensor]:
        """The same to logits as of `member_logits`, what `of_channels` gives, each member's `embed`, and kinds."""
        *per_member, channels = per_member if self.components else [*per_member, None]
        of_channels = self.components(moments(channels)) if self.components else None
        states = states_of([member.recurrent for member in self.members], per_member)
        vectors = [
            member.embed(steps, of_member, of_channels)
            for member, steps, of_member in zip(self.members, per_member, states, strict=True)
        ]
        heads = [head for member, vector in zip(self.members, vectors, strict=True) for head in member.heads(vector)]
        logits = torch.stack(heads)
        scores = self.stem.kind_scores(channels.mean(dim=1)) if self.components else None
        if scores is None:
            return logits, of_channels, vectors, logits.new_zeros(logits.shape[1], 0)
        return logits - STRANGENESS * self.strangeness(scores)[:, None], of_channels, vectors, scores


def channel_weights(groups: Sequence[Sequence[int]]) -> Tensor:
    """How much each channel counts for the nets of a stem to count alike, and in each net its blocks: (channels,)."""
    return torch.cat([torch.full((size,), (len(net) * size) ** -0.5) for net in groups for size in net])


def channels_of(stem: Tensor | tuple[Tensor, ...]) -> Tensor:
    """What a stem that gives steps gave, all parts side by side, (batch, steps, channels)."""
    return (stem if isinstance(stem, Tensor) else torch.cat(stem, dim=1)).transpose(1, 2)


def as_one(batches: Sequence[Tensor | tuple[Tensor, ...]]) -> Tensor | tuple[Tensor, ...]:
    """What a stem gave of several batches as if of one."""
    return as_given([torch.cat(parts) for parts in zip(*map(nets_of, batches), strict=True)])
