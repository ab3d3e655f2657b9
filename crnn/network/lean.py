"""Published nets that take half of the time and give nearly the same: what is alike in them is computed once.

Most of their multiply-adds are in the second convolution, most of their memory in the first block. What the channels
of that block say of music, few of them say as well (Y. He, X. Zhang, J. Sun, "Channel pruning for accelerating very
deep neural networks", ICCV 2017, arXiv:1707.06168), and the second convolution is nearly one of low rank for what it
hears (X. Zhang, J. Zou, K. He, J. Sun, "Accelerating very deep convolutional networks for classification and
detection", 2015, arXiv:1505.06798). Both are solved for in closed form, from some of the training clips.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar

import torch
from torch import Tensor

from crnn.network.blocks import BlocksStem, pooled
from crnn.network.published import some_middles

RIDGE = 1e-6  # of the mean variance, so that channels that are always alike are no fault
SILENT = 1e-12  # a variance that is none


class LeanStem(BlocksStem):
    """A net with fewer channels in its first block and a second convolution in two parts, for a published one."""

    published: ClassVar[type[BlocksStem]]

    def __init__(self) -> None:
        super().__init__()
        self._published: tuple[BlocksStem, ...] = ()  # the published one between `load` and `fit`, no part of this

    def load(self, path: Path) -> None:
        """Read the authors' weights. Raises ValueError if the file is not theirs."""
        published = self.published()
        published.load(path)
        self._published = (published,)

    @torch.no_grad()
    def fit(self, log_mels: Sequence[Tensor]) -> None:
        """Become as much like the published net as may be on some training clips, if it is new."""
        if not self._published:
            return
        (published,), self._published = self._published, ()
        published.to(next(self.parameters()).device).fit(log_mels)
        theirs = published.state_dict()
        own = {name: value for name, value in self.named_parameters() if not name.startswith(("convs.0.", "convs.1."))}
        for name, value in own.items():
            value.copy_(theirs[name])
        first, second, *_ = published.convs
        log_mel = some_middles(log_mels).to(second.weight.device)
        given = [pooled(first, published.spectrogram(clip[None])[None], self.pools[0]) for clip in log_mel]
        heard = torch.cat([published.activation(maps) for maps in given])
        kept, shares, rest = few_channels(heard, second.weight, self.blocks_channels[0])
        self.convs[0].weight.copy_(first.weight[kept])
        self.convs[0].bias.copy_(first.bias[kept])
        weight = torch.einsum("ocbf,ck->okbf", second.weight.double(), shares)
        over_frames, over_bands = in_two_parts(weight, heard[:, kept], self.second_rank)
        self.convs[1].over_frames.weight.copy_(over_frames)
        self.convs[1].over_bands.weight.copy_(over_bands)
        self.convs[1].over_bands.bias.copy_(second.bias + torch.einsum("ocbf,c->o", second.weight.double(), rest))


def few_channels(heard: Tensor, weight: Tensor, n: int) -> tuple[list[int], Tensor, Tensor]:
    """The `n` channels of maps (batch, channels, bands, frames) that say most of what a convolution takes from all.

    `weight` (outputs, channels, 3, 3) says how much each counts. They are chosen one after the other, each for what it
    explains of what is left. Gives also, in float64, how all channels are best put together from those, as shares
    (channels, n) and what is added (channels,).
    """
    rows = heard.transpose(0, 1).flatten(1).double()
    mean = rows.mean(dim=1)
    covariance = rows.cov(correction=0)
    covariance.diagonal().add_(RIDGE * covariance.diagonal().mean() + SILENT)
    counts = weight.double().square().sum(dim=(0, 2, 3))
    left, kept = covariance.clone(), []
    for _ in range(n):
        explained = (left.square() * counts[:, None]).sum(dim=0) / left.diagonal()
        explained[kept] = -1.0
        chosen = int(explained.argmax())
        kept.append(chosen)
        left -= torch.outer(left[:, chosen], left[chosen]) / left[chosen, chosen]
        left.diagonal().clamp_min_(SILENT)
    kept = sorted(kept)
    shares = torch.linalg.solve(covariance[kept][:, kept], covariance[kept]).T
    return kept, shares, mean - shares @ mean[kept]


def in_two_parts(weight: Tensor, heard: Tensor, rank: int) -> tuple[Tensor, Tensor]:
    """A convolution (outputs, inputs, 3, 3) as those of a `SeparableConv`, with the least squared error on maps.

    The maps (batch, inputs, bands, frames) are what it hears; what a patch of three frames says is taken by itself in
    each band. Gives (rank, inputs, 1, 3) and (outputs, rank, 3, 1), float64.
    """
    n_outputs, n_inputs, *_ = weight.shape
    second_moments, n_patches = torch.zeros(3 * n_inputs, 3 * n_inputs, dtype=torch.float64, device=weight.device), 0
    for maps in heard:
        patches = maps.double().unfold(-1, 3, 1).transpose(0, 1).transpose(1, 2).flatten(0, 1).flatten(1)
        second_moments += patches.T @ patches
        n_patches += len(patches)
    second_moments /= n_patches
    flat = weight.double().permute(2, 0, 1, 3).reshape(3 * n_outputs, 3 * n_inputs)
    over_bands, over_frames = of_low_rank(flat, second_moments, rank)
    # As large as each other, or a step of the optimiser would change one of them beyond recognition.
    balance = (over_bands.square().mean(dim=0) / over_frames.square().mean(dim=1)).pow(0.25).clamp_min(SILENT)
    over_frames, over_bands = over_frames * balance[:, None], (over_bands / balance).reshape(3, n_outputs, rank)
    return over_frames.reshape(rank, n_inputs, 1, 3), over_bands.permute(1, 2, 0).unsqueeze(-1)


def of_low_rank(weight: Tensor, second_moments: Tensor, rank: int) -> tuple[Tensor, Tensor]:
    """A matrix (outputs, inputs) as a product (outputs, rank) times (rank, inputs), the best for what it hears.

    `second_moments` (inputs, inputs), float64, are those of its inputs.
    """
    second_moments = second_moments.clone()
    second_moments.diagonal().add_(RIDGE * second_moments.diagonal().mean() + SILENT)
    root = torch.linalg.cholesky(second_moments)  # an input is as likely as this times white noise
    left, strengths, right = torch.linalg.svd(weight.to(root) @ root, full_matrices=False)
    inner = torch.linalg.solve_triangular(root, right[:rank], upper=False, left=False)
    return left[:, :rank] * strengths[:rank], inner
