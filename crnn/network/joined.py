"""Several fronts of one model: their steps side by side, "choi+mn04"."""

from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from torch import Tensor, nn

from crnn.network.front import Cost, Front, FrontKind, Maps, Piece, Sizes, Stem, Weights
from crnn.network.published import Published


class JoinedStem(Stem):
    """The stems of all of them: log-mel (batch, 128, frames) in dB to what each gives."""

    def __init__(self, parts: Sequence[Stem]) -> None:
        super().__init__()
        self.parts = nn.ModuleList(parts)
        self.out_features = tuple(part.out_features for part in parts)
        self.groups = sum((part.groups for part in parts), ()) if all(part.groups for part in parts) else ()

    def forward(self, log_mel: Tensor) -> tuple[Tensor, ...]:
        """(batch, 128, frames) to one tensor for each front."""
        return tuple(part(log_mel) for part in self.parts)

    def convolved(self, log_mel: Tensor) -> tuple[Tensor, ...]:
        """Those of each."""
        return tuple(part.convolved(log_mel) for part in self.parts)

    def alone(self, log_mel: Tensor) -> tuple[Tensor, ...]:
        """Those of each."""
        return tuple(part.alone(log_mel) for part in self.parts)

    def of_stretch(self, stretch: Tensor, pieces: Sequence[Piece]) -> tuple[Tensor, ...]:
        """Those of each."""
        return tuple(part.of_stretch(stretch, pieces) for part in self.parts)

    def remembered(self, convolved: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        """What each gives."""
        return tuple(part.remembered(given) for part, given in zip(self.parts, convolved, strict=True))

    def kind_scores(self, means: Tensor) -> Tensor | None:
        """Those of the first that has any."""
        of_parts = zip(self.parts, means.split(self.out_features, dim=1), strict=True)
        given = (part.kind_scores(of_part) for part, of_part in of_parts)
        return next((scores for scores in given if scores is not None), None)

    def fit(self, log_mels: Sequence[Tensor]) -> None:
        """Each takes what it has to know of the training clips."""
        for part in self.parts:
            part.fit(log_mels)

    def pretrained_parameters(self) -> list[nn.Parameter]:
        """Those of each."""
        return [value for part in self.parts for value in part.pretrained_parameters()]

    def maps(self, log_mel: Tensor) -> tuple[Maps, ...]:
        """Those of each."""
        return tuple(maps for part in self.parts for maps in part.maps(log_mel))


class JoinedFront(Front):
    """The layers of all of them behind their stems, and their steps side by side."""

    def __init__(self, parts: Sequence[Front]) -> None:
        super().__init__()
        self.parts = nn.ModuleList(parts)
        self.out_features = sum(part.out_features for part in parts)
        self.is_fitted = any(part.is_fitted for part in parts)

    def fit(self, stem: tuple[Tensor, ...]) -> None:
        """Each takes what it starts from."""
        for part, given in zip(self.parts, stem, strict=True):
            part.fit(given)

    def start_like(self, fitted: "JoinedFront") -> None:
        """Each takes what its counterpart took."""
        for part, other in zip(self.parts, fitted.parts, strict=True):
            part.start_like(other)

    def forward(self, stem: tuple[Tensor, ...]) -> Tensor:
        """What the stems give to steps (batch, steps, out_features)."""
        return torch.cat([part(given) for part, given in zip(self.parts, stem, strict=True)], dim=-1)

    def pretrained_parameters(self) -> list[nn.Parameter]:
        """Those of each."""
        return [value for part in self.parts for value in part.pretrained_parameters()]

    def maps(self, stem: tuple[Tensor, ...]) -> tuple[Maps, ...]:
        """What each shows but for its steps, then the steps of all."""
        of_each = [part.maps(given) for part, given in zip(self.parts, stem, strict=True)]
        last = of_each[0][-1]
        steps = Maps(last.name, self(stem)[0].T.unsqueeze(1).numpy(), last.frame_seconds)
        return (*(maps for part in of_each for maps in part[:-1]), steps)


class Joined(FrontKind):
    """Several fronts whose steps are of the same length.

    Raises ValueError where one follows a whole song, which the others can only hear in pieces.
    """

    def __init__(self, parts: Sequence[FrontKind]) -> None:
        self.parts = tuple(parts)
        if any(part.remembers for part in parts) and not all(isinstance(part, Published) for part in parts):
            raise ValueError("a front with recurrent layers is joined with published ones only")
        self.fields = frozenset().union(*(part.fields for part in parts))
        self.memory_format = self.parts[0].memory_format
        self.stored_in = self.parts[0].stored_in
        self.fast_in_bfloat16_on_cpu = any(part.fast_in_bfloat16_on_cpu for part in parts)
        self.notice = "\n".join(part.notice for part in parts)
        self.sources = tuple(source for part in parts for source in part.sources)

    def stem(self) -> JoinedStem:
        """A new stem of each."""
        return JoinedStem([part.stem() for part in self.parts])

    def front(self, config: Sizes, inputs: tuple[int, ...]) -> JoinedFront:
        """New layers of each."""
        return JoinedFront([part.front(config, n) for part, n in zip(self.parts, inputs, strict=True)])

    def step_frames(self, config: Sizes) -> int:
        """Of all. Raises ValueError where they differ."""
        lengths = {part.step_frames(config) for part in self.parts}
        if len(lengths) > 1:
            raise ValueError(f"fronts with steps of {' and '.join(map(str, sorted(lengths)))} frames cannot be joined")
        return lengths.pop()

    def cost(self, config: Sizes) -> Cost:
        """The sum."""
        costs = [part.cost(config) for part in self.parts]
        return Cost(*(sum(getattr(cost, name) for cost in costs) for name in ("shared", "member", "features")))

    def load_pretrained(self, stem: JoinedStem, fronts: Sequence[JoinedFront], find: Callable[[Weights], Path]) -> None:
        """Fill in the weights of each."""
        for number, part in enumerate(self.parts):
            part.load_pretrained(stem.parts[number], [front.parts[number] for front in fronts], find)
