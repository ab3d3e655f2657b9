"""What published nets give of clips and of augmented ones, computed once: as long as they rest it stays the same."""

from collections.abc import Callable, Iterator
from dataclasses import replace
from itertools import product

import torch
from torch import Tensor
from tqdm import tqdm

from crnn.network.config import CRNNConfig
from crnn.network.front import as_given, nets_of
from crnn.training.augment import Augmentation, Augmenter, ClipStore, mixed

Hear = Callable[[Tensor], Tensor | tuple[Tensor, ...]]  # log-mel (batch, 128, frames) in dB to what a stem gives

CLIPS_AT_ONCE = 8
FITTED_COPIES = 2  # that principal components are taken from


class StemCopies:
    """Clips and copies of them, each changed at random once, as a stem that gives steps hears them, in half precision.

    The layers behind it learn from windows of these steps in a small part of the time that the nets take.
    """

    @torch.no_grad()
    def __init__(
        self,
        hear: Hear,
        config: CRNNConfig,
        clips: ClipStore,
        augmentation: Augmentation,
        n_copies: int,
        progress: bool = False,
    ) -> None:
        """Compute each of the clips and `n_copies` of it by `hear`, the stem of a model of this configuration.

        Randomness comes from torch's global generators. `progress` shows a bar.
        """
        step = config.step_frames
        self.window_steps = config.window_frames // step
        longest = int(max(clips.lengths) / (1.0 + augmentation.time_stretch))
        self.n_steps = max(longest // step, self.window_steps)
        self.mixup, self.changed_share = augmentation.mixup, augmentation.probability
        unchanged, changed = (
            Augmenter(replace(augmentation, mixup=0, probability=share), self.n_steps * step) for share in (0.0, 1.0)
        )
        everything = torch.arange(len(clips), device=clips.levels.device)
        batches = [(unchanged, index) for index in everything.split(CLIPS_AT_ONCE)]
        batches += [(changed, index) for index in everything.repeat(n_copies).split(CLIPS_AT_ONCE)]
        parts = []
        bar = tqdm(batches, "copies", unit="batch", dynamic_ncols=True, leave=False, disable=not progress)
        for augmenter, index in bar:
            log_mel, _ = augmenter(clips, index, index)
            parts.append([net.half() for net in nets_of(hear(log_mel))])
        # of each net (1 + copies, clips, channels, steps), the unchanged ones first
        self.copies = [torch.cat(net).unflatten(0, (1 + n_copies, len(clips))) for net in zip(*parts, strict=True)]

    def middles(self, n_clips: int) -> Tensor | tuple[Tensor, ...]:
        """What the stem gives of the middles of some copies of the first `n_clips`, as long as a window."""
        first = (self.n_steps - self.window_steps) // 2
        return as_given(
            [
                net[:FITTED_COPIES, :n_clips, :, first : first + self.window_steps].flatten(0, 1).float()
                for net in self.copies
            ]
        )

    def spread(self) -> Iterator[tuple[Tensor | tuple[Tensor, ...], float]]:
        """What the stem gives of windows of all clips and of each copy, at their beginning, middle and end.

        Beside them, how much they count for changed ones to be as many as `draw` gives.
        """
        last = self.n_steps - self.window_steps
        n_copies = len(self.copies[0]) - 1
        for copy, start in product(range(1 + n_copies), (0, last // 2, last)):
            count = self.changed_share / n_copies if copy else 1 - self.changed_share
            windows = [net[copy, :, :, start : start + self.window_steps].float() for net in self.copies]
            yield as_given(windows), count

    def draw(self, index: Tensor, targets: Tensor) -> tuple[Tensor | tuple[Tensor, ...], Tensor]:
        """What the stem gives of a window of each of the clips at `index` (batch,), or of some copy, and targets.

        How many are copies, and that both are mixed, is as the augmentation says; targets are (batch, n_genres).
        """
        copy = torch.randint(1, len(self.copies[0]), (len(index),), device=index.device)
        copy *= torch.rand(len(index), device=index.device) < self.changed_share
        start = torch.randint(self.n_steps - self.window_steps + 1, (len(index), 1, 1), device=index.device)
        steps = start + torch.arange(self.window_steps, device=index.device)
        drawn = [net[copy, index] for net in self.copies]
        drawn = [net.gather(2, steps.expand(-1, net.shape[1], -1)).float() for net in drawn]
        if self.mixup:
            *drawn, targets = mixed(self.mixup, *drawn, targets)
        return as_given(drawn), targets
