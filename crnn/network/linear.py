"""A linear classifier beside the networks: what so few clips can teach a layer without chance in it."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

SHARPNESS = 0.6  # networks that learn from mixtures and smoothed labels are so much less sure of themselves
PENALTY = 3e-3  # of the mean squared weights' sum, beside the mean loss
MOST_STEPS = 100


class LinearClassifier(nn.Linear):
    """Logistic regression: it is fitted once, to what the networks behind the same components begin with, and rests."""

    def __init__(self, inputs: int, n_genres: int) -> None:
        super().__init__(inputs, n_genres)
        nn.init.zeros_(self.weight)  # all genres alike until it is fitted
        nn.init.zeros_(self.bias)
        self.requires_grad_(False)

    def fit(self, rows: Tensor, targets: Tensor, counts: Tensor) -> None:
        """Take the weights with the least cross-entropy to `targets` (n, n_genres), and a penalty on their squares.

        Rows are (n, inputs); each counts as many times as `counts` (n,) says. Their logits are then made less sharp, so
        that one temperature serves these and those of the networks. All that matters is convex: there is one solution.
        """
        shares = counts.to(rows) / counts.sum()
        weight = torch.zeros_like(self.weight, requires_grad=True)
        bias = torch.zeros_like(self.bias, requires_grad=True)
        optimizer = torch.optim.LBFGS([weight, bias], max_iter=MOST_STEPS, line_search_fn="strong_wolfe")

        def loss() -> Tensor:
            optimizer.zero_grad()
            losses = F.cross_entropy(F.linear(rows, weight, bias), targets, reduction="none")
            value = shares @ losses + PENALTY * weight.square().sum()
            value.backward()
            return value

        with torch.enable_grad():
            optimizer.step(loss)
        self.weight.copy_(SHARPNESS * weight.detach())
        self.bias.copy_(SHARPNESS * bias.detach())
