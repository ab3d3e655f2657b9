"""Published fronts against a plain NumPy pass of the same arrays, and what can be done with their steps."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import plain
import pytest
import torch
from torch import Tensor, nn

from crnn.features import FRAMES_PER_SECOND, N_MELS, n_frames_of
from crnn.network import blocks, won
from crnn.network.blocks import Conv, SeparableConv, pooled
from crnn.network.choi import ChoiCrnnStem, ChoiStem
from crnn.network.config import CRNNConfig
from crnn.network.efficientat import EfficientATStem, PointwiseConv
from crnn.network.fronts import FRONTS
from crnn.network.mapping import STEP_FRAMES, fold_norms
from crnn.network.published import FITTED_CLIPS, Bottleneck, PublishedStem
from crnn.network.won import WonStem

STEMS: dict[str, type[PublishedStem]] = {
    "choi": ChoiStem,
    "choi-crnn": ChoiCrnnStem,
    "mn04": EfficientATStem,
    "won": WonStem,
}
Norms = dict[str, tuple[Tensor, Tensor]]


def music(frames: int = 4 * STEP_FRAMES, batch: int = 2) -> Tensor:
    """Log-mels (batch, 128, frames) that differ everywhere, from -80 to 0 dB."""
    generator = torch.Generator().manual_seed(0)
    return (-30 - 12 * torch.randn(batch, N_MELS, frames, generator=generator)).clamp(-80, 0)


def random_stem(name: str) -> tuple[PublishedStem, Norms]:
    """A stem with random weights, and random normalisations for it."""
    torch.manual_seed(1)
    stem = STEMS[name]()
    convs = {path: conv for path, conv in stem.named_modules() if isinstance(conv, nn.Conv2d)}
    return stem, {
        path: (torch.rand(conv.out_channels) + 0.5, torch.randn(conv.out_channels)) for path, conv in convs.items()
    }


def fitted(name: str, log_mel: Tensor) -> PublishedStem:
    """A stem with random weights that knows the statistics of these clips."""
    stem, norms = random_stem(name)
    fold_norms(stem, norms, stem.eps, log_mel)
    return stem


# The same nets in plain NumPy, in float64: log-mel (batch, 128, frames), parameters and normalisations to steps.


def slaney_mel(hz: np.ndarray) -> np.ndarray:
    return np.where(hz < 1000, 3 * hz / 200, 15 + 27 * np.log(np.maximum(hz, 1) / 1000) / np.log(6.4))


def mapped(log_mel: Tensor, centres_hz: np.ndarray, per_step: int) -> tuple[np.ndarray, np.ndarray]:
    """The log-mel at other bands, and where the net's frames lie among ours."""
    bands = np.clip(slaney_mel(centres_hz) / slaney_mel(np.array(11025.0)) * 129 - 1, 0, 127)
    values = plain.read_line(log_mel.double().numpy().transpose(0, 2, 1), bands).transpose(0, 2, 1)
    steps = values.shape[-1] // STEP_FRAMES
    frames = np.minimum(np.arange(steps * per_step) * STEP_FRAMES / per_step, steps * STEP_FRAMES - 1)
    return values, frames


def plain_choi(log_mel: Tensor, p: dict, norms: dict) -> np.ndarray:
    mels = slaney_mel(np.array(6000.0)) * np.arange(1, 97) / 97
    hz = np.where(mels < 15, 200 * mels / 3, 1000 * 6.4 ** ((mels - 15) / 27))
    x, frames = mapped(log_mel, hz, 24)
    maps = plain.read_line(1.49 * (np.clip(x, -40, 0) + 34.3) / 7.1 - 0.07, frames)[:, None]
    for layer, size in enumerate(((2, 2), (3, 3), (4, 4), (4, 1))):
        maps = plain.conv(maps, p[f"convs.{layer}.weight"], p[f"convs.{layer}.bias"])
        maps = plain.pool(plain.elu(plain.norm(maps, *norms[f"convs.{layer}"], 1e-5)), *size)
    return maps[:, :, 0]


def plain_choi_crnn(log_mel: Tensor, p: dict, norms: dict) -> np.ndarray:
    """Four steps together, those of the last group as far as there are any; a state for each of the four."""
    convolved = plain_choi(log_mel, p, norms)
    n_steps = convolved.shape[-1]
    states = np.stack([convolved[..., start : start + 4].max(-1) for start in range(0, n_steps, 4)], axis=1)
    for layer in range(2):
        arrays = (p[f"recurrent.{layer}.{name}"] for name in ("inputs.weight", "inputs.bias"))
        states = plain.gru(
            states, *arrays, p[f"recurrent.{layer}.gates.weight"], p[f"recurrent.{layer}.candidate.weight"]
        )
    return np.concatenate([convolved, states.repeat(4, axis=1)[:, :n_steps].transpose(0, 2, 1)], axis=1)


def plain_won(log_mel: Tensor, p: dict, norms: dict) -> np.ndarray:
    edges = 700 * (10 ** (np.arange(98) * 2595 * np.log10(1 + 8000 / 700) / 97 / 2595) - 1)
    x, frames = mapped(log_mel, edges[1:-1], 32)
    width = 10 * np.log10(edges[2:] - edges[:-2])
    x = np.maximum(x + (width - width[0])[:, None], won.FLOOR_DB)
    maps = plain.read_line((x - won.MEAN_DB) / won.STD_DB, frames)[:, None]
    means, maxima = [], []
    for layer, size in enumerate(((2, 4), (2, 4), (2, 2), (3, 1), (4, 1))):
        maps = plain.conv(maps, p[f"convs.{layer}.weight"], p[f"convs.{layer}.bias"])
        maps = plain.pool(plain.relu(plain.norm(maps, *norms[f"convs.{layer}"], 1e-5)), *size)
        bands = maps.mean(2).reshape(*maps.shape[:2], log_mel.shape[-1] // STEP_FRAMES, -1)
        means.append(bands.mean(-1))
        maxima.append(bands.max(-1))
    return np.concatenate(means + maxima, axis=1)


# Kernel, stride, expanded and squeezed channels of MobileNetV3-Large's blocks, at 0.4 of its width.
MOBILE_NET = (
    (3, 1, 8, 0), (3, 2, 24, 0), (3, 1, 32, 0), (5, 2, 32, 8), (5, 1, 48, 16), (5, 1, 48, 16), (3, 2, 96, 0),
    (3, 1, 80, 0), (3, 1, 72, 0), (3, 1, 72, 0), (3, 1, 192, 48), (3, 1, 272, 72), (5, 2, 272, 72), (5, 1, 384, 96),
    (5, 1, 384, 96),
)  # fmt: skip


def plain_mn04(log_mel: Tensor, p: dict, norms: dict) -> np.ndarray:
    edges = 700 * (np.exp(np.arange(130) * np.log(1 + 15000 / 700) / 129) - 1)
    x, frames = mapped(log_mel, edges[1:-1], 48)
    emphasis = 1 + 0.97**2 - 2 * 0.97 * np.cos(2 * np.pi * edges[1:-1] / 32000)
    level = np.where(edges[1:-1] < 11025, 24.8 + 10 * np.log10((edges[2:] - edges[:-2]) / 2 * emphasis), -200)
    power = 10 ** ((plain.read_line(x, frames) + level[:, None]) / 10)
    maps = ((np.log(power + 1e-5) + 4.5) / 5)[:, None]

    def layer(maps: np.ndarray, name: str, stride: int = 1, groups: int = 1) -> np.ndarray:
        return plain.norm(plain.conv(maps, p[f"{name}.weight"], None, stride, groups), *norms[name], 1e-3)

    maps = plain.hard_swish(layer(maps, "first", 2))
    heard = {}
    for number, (kernel, stride, expanded, squeezed) in enumerate(MOBILE_NET, start=1):
        act = plain.relu if number <= 6 else plain.hard_swish
        name = f"blocks.{number - 1}"
        assert (f"{name}.expand.weight" in p) == (number > 1)
        inner = act(layer(maps, f"{name}.expand")) if number > 1 else maps
        assert inner.shape[1] == expanded
        assert p[f"{name}.depthwise.weight"].shape[-1] == kernel
        inner = act(layer(inner, f"{name}.depthwise", stride, expanded))
        if squeezed:
            hidden = plain.relu(inner.mean((2, 3)) @ p[f"{name}.excite.fc1.weight"].T + p[f"{name}.excite.fc1.bias"])
            assert hidden.shape[1] == squeezed
            gate = hidden @ p[f"{name}.excite.fc2.weight"].T + p[f"{name}.excite.fc2.bias"]
            inner = inner / (1 + np.exp(-gate))[:, :, None, None]
        inner = layer(inner, f"{name}.project")
        maps = maps + inner if stride == 1 and maps.shape[1] == inner.shape[1] else inner
        heard[number] = maps.mean(2)
    heard[16] = plain.hard_swish(layer(maps, "last")).mean(2)
    third = 3 * (log_mel.shape[-1] // STEP_FRAMES)
    pairs = heard[6].reshape(*heard[6].shape[:2], third, 2).max(-1)
    slow = [np.repeat(heard[n], 2, axis=-1)[..., :third] for n in (15, 16)]
    channels = np.concatenate([pairs, heard[10], heard[12], *slow], axis=1)
    threes = channels.reshape(*channels.shape[:2], -1, 3)
    return np.concatenate([threes.mean(-1), threes.max(-1)], axis=1)


PLAIN = {"choi": plain_choi, "choi-crnn": plain_choi_crnn, "mn04": plain_mn04, "won": plain_won}


def assert_like_plain(name: str, stem: PublishedStem, norms: Norms) -> None:
    """The stem, its normalisations part of its convolutions, beside the plain pass where they are layers."""
    log_mel = music(10 * STEP_FRAMES)
    arrays = {key: value.detach().double().numpy().copy() for key, value in stem.named_parameters()}
    numbers = {key: [value.double().numpy() for value in pair] for key, pair in norms.items()}
    expected = PLAIN[name](log_mel, arrays, numbers)
    stem.double()
    fold_norms(stem, norms, stem.eps, log_mel.double())
    with torch.inference_mode():
        steps = stem.float()(log_mel).double().numpy()
    assert steps.shape == expected.shape == (2, stem.out_features, 10)
    assert np.abs(steps - expected).max() <= 1e-4 * max(1.0, np.abs(expected).max())
    assert (expected.std(axis=(0, 2)) > 1e-3).mean() > 0.5  # the comparison is one of signals, not of zeros


@pytest.mark.parametrize("name", STEMS)
def test_random_weights_give_what_a_plain_pass_gives(name: str) -> None:
    assert_like_plain(name, *random_stem(name))


@pytest.mark.parametrize("name", STEMS)
def test_the_authors_weights_give_what_a_plain_pass_gives(name: str, pretrained_folder: Path) -> None:
    stem = STEMS[name]()
    with torch.no_grad():
        norms = stem.read(pretrained_folder / FRONTS[name].file.name)
    assert {path for path, part in stem.named_modules() if isinstance(part, nn.Conv2d)} == norms.keys()
    assert_like_plain(name, stem, norms)


@pytest.mark.parametrize("name", STEMS)
def test_fit_takes_statistics_once_and_after_load(name: str, pretrained_folder: Path) -> None:
    """Of the middles of clips that are spread over all; clips of a song's length and of a second."""
    path = pretrained_folder / FRONTS[name].file.name
    stem, expected = STEMS[name](), STEMS[name]()
    with torch.no_grad():
        norms = expected.read(path)
    clips = list(music(30 * STEP_FRAMES, 2 * FITTED_CLIPS // 16))
    n_frames = n_frames_of(10.0)
    start = (30 * STEP_FRAMES - n_frames) // 2
    fold_norms(expected, norms, expected.eps, torch.stack(clips)[..., start : start + n_frames])
    stem.load(path)
    stem.fit(clips)
    assert all(torch.equal(value, expected.get_parameter(key)) for key, value in stem.named_parameters())
    stem.fit(list(music(30 * STEP_FRAMES) - 20))
    assert all(torch.equal(value, expected.get_parameter(key)) for key, value in stem.named_parameters())
    stem.load(path)
    stem.fit([*clips, music(2 * STEP_FRAMES)[0]])
    assert stem(music()).isfinite().all()


def test_fit_spreads_its_clips_over_all() -> None:
    """Of many clips every few are taken, so that no genre is left out."""
    stem, norms = random_stem("mn04")
    stem._norms = norms
    seen, channels = [], stem.channels
    stem.channels = lambda log_mel: seen.append(log_mel) or channels(log_mel)
    clips = [torch.full((N_MELS, STEP_FRAMES), -float(number % 80)) for number in range(2 * FITTED_CLIPS + 7)]
    stem.fit(clips)
    assert [int(-clip[0, 0]) for clip in seen[0]] == [number % 80 for number in range(0, len(clips), 3)]


@pytest.mark.parametrize("name", STEMS)
def test_norms_of_layers_that_are_not_there_are_refused(name: str) -> None:
    stem, norms = random_stem(name)
    with pytest.raises(ValueError, match="norms of layers that the net does not have"):
        fold_norms(stem, {**norms, "other": norms[next(iter(norms))]}, stem.eps, music())


@pytest.mark.parametrize("name", STEMS)
def test_every_layer_learns(name: str) -> None:
    stem = fitted(name, music())
    assert {id(value) for value in stem.pretrained_parameters()} == {id(value) for value in stem.parameters()}
    stem(music(10 * STEP_FRAMES)).square().sum().backward()
    still = [key for key, value in stem.named_parameters() if value.grad is None or value.grad.abs().sum() == 0]
    assert still == []


@pytest.mark.parametrize("name", ["choi", "won"])
def test_steps_in_the_middle_of_a_song_are_those_of_a_window_there(name: str) -> None:
    """mn04 weighs its channels by all that it hears at once, so that its steps depend on what is far away too."""
    song = music(40 * STEP_FRAMES, 1)
    stem = fitted(name, song)
    with torch.inference_mode():
        of_song = stem(song)[..., 10:30]
        of_window = stem(song[..., 10 * STEP_FRAMES : 30 * STEP_FRAMES])
    torch.testing.assert_close(of_song[..., 3:-3], of_window[..., 3:-3], atol=1e-4, rtol=1e-4)
    assert not torch.allclose(of_song[..., :1], of_window[..., :1], atol=1e-2)


def test_recurrent_layers_remember_a_song_and_know_nothing_of_what_comes() -> None:
    """But for the two seconds that they take together; and of what was more than 32 s ago."""
    song = music(100 * STEP_FRAMES, 1)
    stem = fitted("choi-crnn", song)
    other_start, other_end = song.clone(), song.clone()
    other_start[..., : 2 * STEP_FRAMES] = -60
    other_end[..., 28 * STEP_FRAMES :] = -60
    with torch.inference_mode():
        states, after, before = (stem(given)[0, 128:] for given in (song, other_start, other_end))
        whole, later = stem(song)[0, 128:], stem(song[..., 32 * STEP_FRAMES :])[0, 128:]
    assert (after - states).abs().amax(dim=0)[:16].min() > 1e-4
    torch.testing.assert_close(after[:, 64:], states[:, 64:], atol=1e-5, rtol=0)
    torch.testing.assert_close(before[:, :24], states[:, :24], atol=1e-5, rtol=0)
    assert (before - states).abs().amax(dim=0)[28:].min() > 1e-4
    torch.testing.assert_close(whole[:, 67:96], later[:, 35:64], atol=0.05, rtol=0)  # they start alike, but for edges


@pytest.mark.parametrize("name", STEMS)
def test_what_is_left_over_is_cut(name: str) -> None:
    stem = STEMS[name]()
    with torch.inference_mode():
        longer = music(4 * STEP_FRAMES + 11)
        torch.testing.assert_close(stem(longer), stem(longer[..., : 4 * STEP_FRAMES]))
        assert stem(music(STEP_FRAMES)).shape == (2, stem.out_features, 1)


@pytest.mark.parametrize("name", STEMS)
@pytest.mark.parametrize("steps", [1, 2, 3, 7, 40])
def test_maps_are_of_the_whole_window(name: str, steps: int) -> None:
    """Each has its channels, bands and frames, and its frames last as long as the window, to less than a frame."""
    stem = fitted(name, music())
    window = music(STEP_FRAMES * steps + 5, 2)
    with torch.inference_mode():
        maps = stem.maps(window)
        alone = stem.maps(window[:1])
    channels = {"choi": [128, 128], "choi-crnn": [128, 128], "mn04": [16, 384], "won": [128, 64]}[name]
    bands = {"choi": [16, 1], "choi-crnn": [16, 1], "mn04": [16, 4], "won": [24, 1]}[name]
    assert [part.values.shape[:2] for part in maps] == list(zip(channels, bands, strict=True))
    for part, first in zip(maps, alone, strict=True):
        np.testing.assert_allclose(part.values, first.values, atol=1e-4)
        assert part.values.dtype == np.float32
        seconds = part.values.shape[2] * part.frame_seconds
        assert seconds == pytest.approx(steps * STEP_FRAMES / FRAMES_PER_SECOND)


@pytest.mark.parametrize("name", STEMS)
def test_silence_and_noise_give_numbers(name: str) -> None:
    stem = fitted(name, music())
    for log_mel in (torch.full((1, N_MELS, 48), -80.0), torch.zeros(1, N_MELS, 48)):
        assert stem(log_mel).isfinite().all()
    silent = fitted(name, torch.full((2, N_MELS, 48), -80.0))  # statistics without any spread
    assert silent(music()).isfinite().all()


def bottleneck(inputs: int, outputs: int, **changes: object) -> Bottleneck:
    torch.manual_seed(0)
    return Bottleneck(CRNNConfig(genres=("a", "b"), bottleneck=outputs, **changes), inputs)


def alike(clips: int = 8, inputs: int = 24, steps: int = 40) -> Tensor:
    """Channels (clips, inputs, steps) of any mean and scale, that are mixtures of a few things and a little noise."""
    generator = torch.Generator().manual_seed(0)
    things = torch.randn(clips, steps, 6, generator=generator) * torch.tensor([9.0, 5.0, 3.0, 2.0, 1.0, 0.5])
    mixed = things @ torch.randn(6, inputs, generator=generator)
    mixed += 0.3 * torch.randn(clips, steps, inputs, generator=generator)
    scale = torch.logspace(-2, 2, inputs)
    return (mixed * scale + 7 * scale.flip(0)).transpose(1, 2)


def test_a_bottleneck_starts_as_the_principal_components_of_standardised_channels() -> None:
    """Those of NumPy's singular value decomposition, whose signs are arbitrary, by one number for all."""
    given, front = alike(), bottleneck(24, 5).eval()
    front.fit(given)
    rows = given.transpose(1, 2).flatten(0, 1).double().numpy()
    rows = (rows - rows.mean(0)) / rows.std(0, ddof=1)
    _, singular, axes = np.linalg.svd(rows, full_matrices=False)
    expected = rows @ axes[:5].T / np.sqrt((singular[:5] ** 2).mean() / len(rows))
    with torch.inference_mode():
        components = front(given).flatten(0, 1).double().numpy()
    signs = np.sign((components * expected).sum(0))
    np.testing.assert_allclose(components * signs, expected, atol=1e-3)


def test_components_have_unit_variance_on_average_and_are_uncorrelated() -> None:
    given, front = alike(), bottleneck(24, 5).eval()
    front.fit(given)
    with torch.inference_mode():
        components = front(given)
    assert components.shape == (8, 40, 5)
    rows = components.flatten(0, 1).double()
    torch.testing.assert_close(rows.mean(dim=0), torch.zeros(5).double(), atol=1e-3, rtol=0)
    covariance = rows.T.cov()
    variances = covariance.diagonal()
    assert variances.mean().item() == pytest.approx(1.0, abs=0.01)
    assert (variances.diff() < 0).all()
    assert (covariance - variances.diag()).abs().max() < 1e-3
    axes = front.linear.weight.double() * given.transpose(1, 2).flatten(0, 1).std(dim=0)
    overlaps = axes @ axes.T
    torch.testing.assert_close(overlaps, overlaps[0, 0] * torch.eye(5).double(), atol=1e-4, rtol=0)


def test_a_bottleneck_wider_than_its_channels_has_all_components_first() -> None:
    given, front = alike(inputs=6), bottleneck(6, 9).eval()
    random = front.linear.weight[6:].clone()
    front.fit(given)
    with torch.inference_mode():
        covariance = front(given).flatten(0, 1).T.cov()[:6, :6]
    assert (covariance - covariance.diagonal().diag()).abs().max() < 1e-3
    assert torch.equal(front.linear.weight[6:], random)


@pytest.mark.parametrize("dead", [slice(0, 3), slice(None)], ids=["some", "all"])
def test_channels_that_never_change_are_no_fault(dead: slice) -> None:
    given, front = alike(), bottleneck(24, 5).eval()
    given[:, dead] = 4.0
    front.fit(given)
    with torch.inference_mode():
        components = front(given)
    assert components.isfinite().all()
    assert (components.std() < 1e-3) == (dead == slice(None))


def test_a_bottleneck_drops_whole_components_in_training_only() -> None:
    given, front = alike(clips=40), bottleneck(24, 10, block_dropout=0.5)
    front.fit(given)
    with torch.inference_mode():
        dropped = (front(given) == 0).all(dim=1)
        kept = (front(given) != 0).any(dim=1)
        assert dropped.float().mean() == pytest.approx(0.5, abs=0.1)
        assert kept.float().mean() == pytest.approx(0.5, abs=0.1)
        front.eval()
        assert torch.equal(front(given), front(given))
        assert (front(given) != 0).any(dim=1).all()


@pytest.mark.parametrize("name", STEMS)
def test_windows_at_once_change_nothing(name: str) -> None:
    """On a CPU, where a few go through the net at a time."""
    windows = music(batch=5)
    stem = fitted(name, windows)
    with torch.inference_mode():
        torch.testing.assert_close(stem.convolved(windows), stem.channels(windows), atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("name", STEMS)
def test_maps_in_parts_have_the_normalisations_of_whole_ones(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = fitted(name, music())
    monkeypatch.setattr(blocks, "NEAR_CELLS", 0)
    parted = fitted(name, music())
    with torch.no_grad():
        torch.testing.assert_close(parted(music()), whole(music()), atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("name", STEMS)
def test_on_a_cpu_nets_of_few_layers_alone_compute_in_bfloat16(name: str) -> None:
    stem = fitted(name, music())
    with torch.no_grad():
        exact = stem(music())
        with torch.autocast("cpu", torch.bfloat16):
            given = stem(music())
    assert given.dtype == (torch.bfloat16 if FRONTS[name].fast_in_bfloat16_on_cpu else torch.float32)
    torch.testing.assert_close(given.float(), exact, atol=0.05 * exact.abs().max().item(), rtol=0)
    assert torch.equal(given, exact) == (name == "mn04")


@pytest.mark.parametrize("pool", [(2, 2), (2, 4), (3, 3), (4, 1)])
@pytest.mark.parametrize("frames", [24, 61, 65])
@pytest.mark.parametrize("kind", [Conv, lambda inputs, outputs: SeparableConv(inputs, 4, outputs)])
def test_a_large_map_is_pooled_in_parts_that_make_the_whole(
    kind: Callable[[int, int], Conv | SeparableConv],
    pool: tuple[int, int],
    frames: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    torch.manual_seed(0)
    conv, given = kind(3, 5), torch.randn(2, 3, 12, frames)
    of_training = pooled(conv, given, pool)
    torch.testing.assert_close(of_training, nn.functional.max_pool2d(conv(given), pool), atol=0, rtol=0)
    with torch.inference_mode():
        for at_once in (1, 7, 20, frames):
            monkeypatch.setattr(blocks, "NEAR_CELLS", 2 * 5 * 12 * at_once)
            torch.testing.assert_close(pooled(conv, given, pool), of_training, atol=1e-5, rtol=0)


@pytest.mark.parametrize(("batch", "frames"), [(1, 64), (1, 400), (2, 64)])  # on either side of SMALL_CELLS
def test_a_pointwise_convolution_is_a_linear_layer_of_each_cell(batch: int, frames: int) -> None:
    torch.manual_seed(0)
    conv, maps = PointwiseConv(8, 5), torch.randn(batch, 8, 8, frames).contiguous(memory_format=torch.channels_last)
    expected = torch.einsum("oi,bihw->bohw", conv.weight[..., 0, 0], maps) + conv.bias[:, None, None]
    torch.testing.assert_close(conv(maps), expected, atol=1e-5, rtol=0)
    with torch.inference_mode():
        torch.testing.assert_close(conv(maps), expected, atol=1e-5, rtol=0)


def test_what_is_heard_alone_is_remembered_as_if_heard_before() -> None:
    stem = fitted("choi-crnn", music())
    window = music(20 * STEP_FRAMES)
    with torch.inference_mode():
        alone, once = stem.alone(window), stem(window)
        twice = stem.remembered(stem.convolved(window).repeat(1, 1, 2))[..., 20:]
    torch.testing.assert_close(alone[:, :128], once[:, :128])
    torch.testing.assert_close(alone, twice)
    assert (alone - once)[:, 128:].abs().amax(dim=(0, 1)).min() > 1e-4
