"""What stands behind the convolutions: layers over time, poolings, the summary, and the mean of several networks."""

from collections.abc import Sequence
from math import log

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from crnn.network.front import is_inference_on_cpu

CLEAR_ENERGY = 3.0  # about where models begin to answer: from a window's energy of this on, all count alike


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


def states_of(layers: Sequence[nn.Module], steps: Sequence[Tensor]) -> list[Tensor]:
    """What the recurrent layers of all members make of steps, (batch, steps, features) of each.

    On a CPU, unless they learn, GRUs follow time together: to begin so many small products takes longer than these.
    """
    if len(layers) > 1 and is_inference_on_cpu(steps[0]) and all(isinstance(layer, Gru) for layer in layers):
        return _together([layer.gru for layer in layers], steps)
    return [layer(of_one) for layer, of_one in zip(layers, steps, strict=True)]


def _together(grus: Sequence[nn.GRU], steps: Sequence[Tensor]) -> list[Tensor]:
    """`states_of` bidirectional GRUs of one size; the formulas are those of `nn.GRU`."""
    parameters = [gru.all_weights[way] for way in (0, 1) for gru in grus]  # forwards, then backwards
    heard = [*steps, *(of_one.flip(1) for of_one in steps)]
    given = [F.linear(of_one, weight, bias) for of_one, (weight, _, bias, _) in zip(heard, parameters, strict=True)]
    weight = torch.stack([weight.T for _, weight, *_ in parameters])
    bias = torch.stack([bias for *_, bias in parameters])[:, None]
    n_gated = 2 * grus[0].hidden_size  # numbers of the reset and the update gate, before those of the candidate
    state, states = given[0].new_zeros(len(given), len(given[0]), grus[0].hidden_size), []
    for now in torch.stack(given).unbind(2):
        kept = torch.baddbmm(bias, state, weight)
        reset, update = torch.sigmoid(now[..., :n_gated] + kept[..., :n_gated]).chunk(2, dim=-1)
        state = torch.lerp(torch.tanh(torch.addcmul(now[..., n_gated:], reset, kept[..., n_gated:])), state, update)
        states.append(state)
    forwards, backwards = torch.stack(states, dim=2).chunk(2)
    return list(torch.cat([forwards, backwards.flip(2)], dim=-1))


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


def mean_logits(of_members: Tensor, beside: Tensor | None = None) -> Tensor:
    """Logits (members, batch, n_genres) to those of the mean of their probabilities, (batch, n_genres).

    The probabilities of what is `beside` them, logits (batch, n_genres), count as much as all theirs. The `energy` is
    that of the mean of the members' logits, so that those of a single member stay as they are.
    """
    of_members = of_members.float()
    mean = of_members.log_softmax(dim=-1).logsumexp(dim=0) - log(len(of_members))
    if beside is not None:
        mean = torch.stack([mean, beside.float().log_softmax(dim=-1)]).logsumexp(dim=0) - log(2)
    return mean + energy(of_members.mean(0))[:, None]


def window_weights(energies: Tensor, evidence: float) -> Tensor:
    """How much each window of a song counts, (n,) with sum 1: exp(evidence * `clear` of its `energy`).

    A voice before a song, applause behind it or a noise over a part of it has less energy, as it speaks for no genre.
    With no `evidence` all count alike.
    """
    return (evidence * clear(energies)).softmax(dim=0)


def clear(energies: Tensor) -> Tensor:
    """Energies up to CLEAR_ENERGY: what speaks clearly for some genre counts as much as what does so more clearly.

    Without that bound a part of a song that is easier than the rest would answer for all of it.
    """
    return energies.clamp(max=CLEAR_ENERGY)


def energy(logits: Tensor) -> Tensor:
    """How much in a window speaks for any genre at all: logits (batch, n_genres) to (batch,).

    It is low for what is like nothing that a model was trained on, where probabilities may still be high (W. Liu,
    X. Wang, J. Owens, Y. Li, "Energy-based out-of-distribution detection", NeurIPS 2020, arXiv:2010.03759; there with
    the other sign).
    """
    return logits.logsumexp(dim=-1)
