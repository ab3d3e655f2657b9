"""The pretrained front against a second, plain computation of the same network, and what it promises."""

from copy import deepcopy

import numpy as np
import pytest
import torch
from numpy.lib.stride_tricks import sliding_window_view
from safetensors.numpy import load_file

from crnn.audio import SAMPLE_RATE
from crnn.features import FRAMES_PER_SECOND, N_MELS, LogMel
from crnn.network import musicnn
from crnn.network.musicnn import PRETRAINED, Musicnn, MusicnnFront, MusicnnStem


@pytest.fixture(scope="module")
def parts() -> tuple[MusicnnStem, MusicnnFront]:
    """musicnn's filters and, behind them, its layers over time."""
    stem = MusicnnStem()
    front = MusicnnFront(16, stem.out_features)
    Musicnn().load_pretrained(stem, [front], None)  # its file is part of the repository
    return stem.eval(), front.eval()


def music(seconds: float) -> torch.Tensor:
    """A chord with a beat, (samples,)."""
    time = torch.arange(int(seconds * SAMPLE_RATE)) / SAMPLE_RATE
    chord = sum(torch.sin(2 * torch.pi * hz * time) for hz in (110.0, 277.2, 329.6, 1760.0))
    noise = torch.rand(len(time), generator=torch.Generator().manual_seed(0)) - 0.5
    return 0.1 * chord + noise * torch.exp(-8 * (time % 0.5))


def slaney_centres(n_mels: int, f_max: float) -> np.ndarray:
    """Centre frequencies in mel of a Slaney filter bank from 0 Hz, after librosa."""
    librosa = pytest.importorskip("librosa")
    return librosa.hz_to_mel(librosa.mel_frequencies(n_mels + 2, fmin=0.0, fmax=f_max))[1:-1]


def reference(log_mel: np.ndarray) -> np.ndarray:
    """Log-mel (128, frames) to musicnn's channels (channels, 32 frames a step), with NumPy alone, in float64."""
    arrays = {name: array.astype(np.float64) for name, array in load_file(PRETRAINED).items()}

    ours, theirs = slaney_centres(N_MELS, 11_025.0), slaney_centres(96, 8_000.0)
    bands = np.stack([np.interp(theirs, ours, frame) for frame in log_mel.T], axis=1)
    n_frames = log_mel.shape[1] // 12 * 12
    frames = np.arange(n_frames / 12 * 32) * 12 / 32  # 32 of musicnn's for 12 of ours
    decibels = np.stack([np.interp(frames, np.arange(n_frames), band[:n_frames]) for band in bands])
    decibels += musicnn.LEVEL_DB
    decibels[0] += musicnn.FIRST_BAND_DB
    decibels[-1] += musicnn.LAST_BAND_DB
    image = np.log10(10_000 * 10 ** (decibels / 10) + 1) * arrays["scale"] + arrays["shift"]

    def block(name: str, maps: np.ndarray) -> np.ndarray:
        """(inputs, bands, frames) to (outputs, positions, frames)."""
        kernel = arrays[f"{name}.conv.weight"]
        taps = kernel.shape[3]
        padded = np.pad(maps, ((0, 0), (0, 0), ((taps - 1) // 2, taps // 2)))
        patches = sliding_window_view(padded, kernel.shape[1:])[0]  # (positions, frames, inputs, bands, taps)
        summed = np.tensordot(kernel, patches, axes=([1, 2, 3], [2, 3, 4])) + arrays[f"{name}.conv.bias"][:, None, None]
        return np.maximum(summed, 0) * arrays[f"{name}.scale"] + arrays[f"{name}.shift"]

    filters = [f"timbral.{i}" for i in range(2)] + [f"temporal.{i}" for i in range(3)]
    layers = [np.concatenate([block(name, image[None]).max(axis=1) for name in filters])]
    layers.append(block("middle.0", layers[0][:, None])[:, 0])
    for name in ("middle.1", "middle.2"):
        layers.append(layers[-1] + block(name, layers[-1][:, None])[:, 0])
    return np.concatenate(layers)


def test_the_convolutions_equal_a_plain_computation(parts: tuple[MusicnnStem, MusicnnFront]) -> None:
    log_mel = LogMel()(music(3.0)).double()
    stem, front = (deepcopy(part).double() for part in parts)
    with torch.inference_mode():
        channels = front.channels(stem(log_mel[None]))[0].numpy()
    expected = reference(log_mel.numpy())
    assert channels.shape == expected.shape
    np.testing.assert_allclose(channels, expected, rtol=1e-5, atol=1e-5)
    assert (expected.std(axis=1) > 1e-3).mean() > 0.5  # the comparison is one of signals, not of zeros


@pytest.mark.parametrize("seconds", [1.0, 1.03, 10.0, 30.0])
def test_any_length_from_a_second(parts: tuple[MusicnnStem, MusicnnFront], seconds: float) -> None:
    stem, front = parts
    log_mel = -80 * torch.rand(3, N_MELS, round(seconds * FRAMES_PER_SECOND))
    with torch.inference_mode():
        steps = front(stem(log_mel))
    assert steps.shape[::2] == (3, front.out_features)
    assert steps.shape[1] == round(seconds * FRAMES_PER_SECOND) // 12
    assert steps.isfinite().all()


def test_the_shortest_input_is_one_step(parts: tuple[MusicnnStem, MusicnnFront]) -> None:
    stem, front = parts
    assert front(stem(torch.zeros(1, N_MELS, Musicnn().step_frames(None)))).shape[1] == 1


def test_windows_do_not_depend_on_their_batch(parts: tuple[MusicnnStem, MusicnnFront]) -> None:
    windows = -80 * torch.rand(5, N_MELS, 48)
    together = parts[0](windows)
    torch.testing.assert_close(together, torch.cat([parts[0](window[None]) for window in windows]))


def test_the_level_of_a_recording_does_not_matter(parts: tuple[MusicnnStem, MusicnnFront]) -> None:
    stem, front = parts
    waveform = music(2.0)
    with torch.inference_mode():
        loud, quiet = (front(stem(LogMel()(gain * waveform)[None])) for gain in (1.0, 0.01))
    torch.testing.assert_close(loud, quiet, rtol=1e-3, atol=1e-3)


def test_gradients_reach_the_input_and_what_is_to_be_trained(parts: tuple[MusicnnStem, MusicnnFront]) -> None:
    stem, front = parts
    log_mel = LogMel()(music(2.0))[None].clone().requires_grad_()
    front(stem(log_mel)).square().mean().backward()
    assert log_mel.grad.abs().sum() > 0
    assert front.linear.weight.grad.abs().sum() > 0
    assert all(parameter.grad.isfinite().all() for parameter in front.middle.parameters())  # trained further
    assert all(parameter.grad is None for parameter in stem.parameters())  # fixed


def test_silence_and_noise_give_numbers(parts: tuple[MusicnnStem, MusicnnFront]) -> None:
    stem, front = parts
    for log_mel in (torch.full((1, N_MELS, 48), -80.0), torch.zeros(1, N_MELS, 48)):
        assert front(stem(log_mel)).isfinite().all()
