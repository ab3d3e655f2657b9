"""A model as one graph from waveform to probabilities, for programs without Python or without PyTorch.

What inference does to a song is exported as it is. Two things are not, since no runtime has them or has them fast: the
recursive high-pass and the short-time Fourier transform. Both become matrix products here that give the same.
"""

from collections.abc import Callable

import numpy as np
import torch
import torch.nn.functional as F
from scipy.signal import sosfilt
from torch import Tensor, nn
from torch._higher_order_ops import scan

from crnn.features import N_FFT, N_MELS, RUMBLE, LogMel, sounding_frames, stand_on_level, to_db
from crnn.inference import MOST_WINDOWS, GenreClassifier
from crnn.network.model import in_turn

BLOCK = 128  # samples that the high-pass computes at once
DOUBLINGS = 8  # so that it remembers 2 ** 8 blocks, 1.5 s: after that its poles have left 1e-22 of a sample
FIRST = 32  # of the factors of N_FFT in the fast Fourier transform


class HighPass(nn.Module):
    """The recursive filter RUMBLE, as `scipy.signal.sosfilt` computes it, in matrix products.

    In a block of samples it is a product with the response to a single sample; what a block leaves behind, the state
    of the filter, reaches the later ones by doubling (Hillis and Steele 1986, "Data parallel algorithms").
    """

    def __init__(self) -> None:
        super().__init__()
        sections = (len(RUMBLE), 2)
        n_states = len(RUMBLE) * 2
        nothing = np.zeros(sections)
        inside, left = [], []  # by sample of the block
        for row in np.eye(BLOCK):
            output, state = sosfilt(RUMBLE, row, zi=nothing)
            inside.append(output)
            left.append(state.reshape(-1))
        heard, kept = [], []  # by number of the state
        for row in np.eye(n_states):
            output, state = sosfilt(RUMBLE, np.zeros(BLOCK), zi=row.reshape(sections))
            heard.append(output)
            kept.append(state.reshape(-1))
        for name, rows in (("inside", inside), ("left", left), ("heard", heard)):
            self.register_buffer(name, torch.from_numpy(np.stack(rows)), persistent=False)
        powers = [np.linalg.matrix_power(np.stack(kept), 2**n) for n in range(DOUBLINGS)]
        self.register_buffer("kept", torch.from_numpy(np.stack(powers)), persistent=False)

    def forward(self, waveform: Tensor) -> Tensor:
        """(channels, samples) to the same shape, float32, as if the first sample had always been there."""
        n_samples = waveform.shape[1]
        risen = (waveform - waveform[:, :1]).double()
        blocks = F.pad(risen, (0, -n_samples % BLOCK)).reshape(waveform.shape[0], -1, BLOCK)
        states = blocks @ self.left  # (channels, blocks, states)
        for n in range(DOUBLINGS):
            states = states + F.pad(states, (0, 0, 2**n, 0))[:, : states.shape[1]] @ self.kept[n]
        before = F.pad(states, (0, 0, 1, 0))[:, : states.shape[1]]
        return (blocks @ self.inside + before @ self.heard).flatten(1)[:, :n_samples].float()


class MelPower(nn.Module):
    """The mel power spectrogram of `LogMel`, its Fourier transform in two matrix products (Cooley and Tukey 1965).

    As samples are real, half of the rows of the first is enough; the others are their mirror.
    """

    def __init__(self, front_end: LogMel) -> None:
        super().__init__()
        self.hop_length = front_end.hop_length
        second = N_FFT // FIRST
        rows = np.arange(FIRST // 2 + 1)
        first = np.exp(-2j * np.pi * np.outer(np.arange(FIRST), rows) / FIRST)
        turn = np.exp(-2j * np.pi * np.outer(rows, np.arange(second)) / N_FFT)
        last = np.exp(-2j * np.pi * np.outer(np.arange(second), np.arange(second)) / second)
        # Row k and column m are bin k + FIRST * m, or its mirror; two rows have each bin twice.
        bins = rows[:, None] + FIRST * np.arange(second)
        shares = np.where(np.isin(rows, (0, FIRST // 2)), 0.5, 1.0)[:, None] * np.ones_like(bins)
        shares[bins % (N_FFT // 2) == 0] = 1.0
        filters = front_end.mel.mel_scale.fb.double().numpy()  # (bins, bands)
        filters = filters[np.minimum(bins, N_FFT - bins)] * shares[..., None]
        for name, values in (
            ("window", front_end.mel.spectrogram.window.numpy()),
            ("first", np.concatenate([first.real, first.imag], axis=1).T),
            ("turn", np.stack([turn.real, turn.imag])),
            ("last", np.block([[last.real, last.imag], [-last.imag, last.real]])),
            ("filters", filters.reshape(-1, N_MELS)),
        ):
            self.register_buffer(name, torch.from_numpy(np.ascontiguousarray(values, np.float32)), persistent=False)

    def forward(self, waveform: Tensor) -> Tensor:
        """(channels, samples) to the mean of the channels' mel power, (128, frames)."""
        padded = F.pad(waveform, (N_FFT // 2, N_FFT // 2))
        starts = self.hop_length * torch.arange(waveform.shape[1] // self.hop_length + 1)
        frames = padded[:, starts[:, None] + torch.arange(N_FFT)] * self.window
        half = self.first @ frames.unflatten(-1, (FIRST, -1))  # (channels, frames, real and imaginary rows, columns)
        real, imaginary = half[..., : FIRST // 2 + 1, :], half[..., FIRST // 2 + 1 :, :]
        turned = torch.cat(
            [
                real * self.turn[0] - imaginary * self.turn[1],
                real * self.turn[1] + imaginary * self.turn[0],
            ],
            dim=-1,
        )
        spectrum = turned @ self.last  # (channels, frames, rows, real and imaginary columns)
        power = spectrum.square().unflatten(-1, (2, -1)).sum(dim=-2)
        return (power.flatten(-2) @ self.filters).mean(dim=0).T


class Classifier(nn.Module):
    """What `GenreClassifier.predict_waveform` computes, in one graph without branches."""

    def __init__(self, classifier: GenreClassifier) -> None:
        super().__init__()
        self.high_pass = HighPass()
        self.mel_power = MelPower(classifier.front_end)
        self.model = classifier.model

    def forward(self, waveform: Tensor) -> Tensor:
        """Waveform (channels, samples) of a second at least to probabilities (n_genres,), all 0 where it is silent."""
        config = self.model.config
        log_mel = stand_on_level(to_db(self.mel_power(self.high_pass(waveform))))
        sounds = sounding_frames(log_mel)
        kept = sounds | ~sounds.any()
        heard = log_mel[:, kept]
        n_frames = heard.shape[1]
        torch._check(n_frames > 0)
        size, step = config.window_frames, config.step_frames
        song = heard[:, torch.arange(torch.sym_max(n_frames, size)) % kept.sum()]
        last = song.shape[1] - size
        hop_steps = (torch.sym_max(config.hop_frames, n_frames // MOST_WINDOWS) + step - 1) // step
        n_windows = torch.scalar_tensor(last // (hop_steps * step) + 1, dtype=torch.int64).item()
        torch._check(n_windows >= 1)
        starts = torch.arange(n_windows) * hop_steps
        rows = starts[:, None] + torch.arange(size // step)
        logits = self.model.classify([steps[rows] for steps in self.model.song_steps(song, scanned)])
        tail = self.model(song[None, :, last:])
        shares = (torch.cat([logits, tail]) / config.temperature).softmax(dim=-1)
        is_long = kept.sum().expand_as(starts) > size
        has_tail = ~is_long[:1] | (starts[-1:] * step < last)
        counts = torch.cat([is_long, has_tail]).float()[:, None]
        return (counts * shares).sum(dim=0) / counts.sum() * sounds.any()


def scanned(function: Callable[[Tensor], list[Tensor]], values: Tensor) -> list[Tensor]:
    """What `in_turn` does, as a loop in the graph."""
    if not torch.compiler.is_exporting():
        return in_turn(function, values)

    def body(carried: Tensor, value: Tensor) -> tuple[Tensor, tuple[Tensor, ...]]:
        return carried.clone(), tuple(function(value))

    _, parts = scan(body, torch.zeros(()), values)
    return [part.flatten(0, 1) for part in parts]
