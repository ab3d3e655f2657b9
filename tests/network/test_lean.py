"""Published nets made lean: what is left out of them is what says nothing that the rest does not."""

from pathlib import Path

import pytest
import torch
from torch import Tensor

from crnn.features import N_MELS
from crnn.network.blocks import BlocksStem, Conv, SeparableConv
from crnn.network.choi import ChoiCrnnStem, LeanChoiCrnnStem
from crnn.network.fronts import FRONTS
from crnn.network.lean import LeanStem, few_channels, in_two_parts
from crnn.network.mapping import STEP_FRAMES
from crnn.network.won import LeanWonStem, WonStem

LEAN = {"lean-choi-crnn": LeanChoiCrnnStem, "lean-won": LeanWonStem}


def tones(n_clips: int, seed: int) -> list[Tensor]:
    """Log-mels (128, frames) of a few partials and knocks on a floor: alike, as music is, and all different."""
    generator = torch.Generator().manual_seed(seed)
    bands, frames = torch.arange(N_MELS)[:, None], torch.arange(40 * STEP_FRAMES)
    clips = []
    for _ in range(n_clips):
        power = torch.full((N_MELS, len(frames)), 1e-6)
        for number in range(1, 7):
            band = 12 + 90 * torch.rand(1, generator=generator) + 4 * torch.sin(frames / 30 + number)
            swell = (1 + torch.cos(frames / (3 + 9 * torch.rand(1, generator=generator)))).square() / 4
            power = power + torch.exp(-((bands - band) ** 2) / 4) * swell / number
        knocks = (torch.rand(len(frames), generator=generator) < 0.05) * torch.rand(len(frames), generator=generator)
        clips.append((10 * torch.log10(power + 0.1 * knocks)).clamp(-80, 0))
    return clips


def error(given: Tensor, expected: Tensor) -> float:
    """The share of the variance of channels (batch, channels, steps) that is not explained."""
    return (
        (given - expected).square().sum() / (expected - expected.mean(dim=(0, 2), keepdim=True)).square().sum()
    ).item()


def published_and_lean(lean: type[LeanStem], folder: Path) -> tuple[BlocksStem, LeanStem]:
    name = FRONTS["won" if lean.published is WonStem else "choi"].file.name
    stems = lean.published().eval(), lean().eval()
    for stem in stems:
        stem.load(folder / name)
        stem.fit(tones(12, seed=0))
    return stems


def last_channels(stem: BlocksStem, log_mel: Tensor) -> Tensor:
    """What its last block gives, as its steps may have more channels of the first."""
    return stem.blocks(log_mel)[-1].squeeze(2)


@pytest.mark.parametrize("name", LEAN)
def test_a_lean_net_hears_nearly_what_the_published_one_hears(name: str, pretrained_folder: Path) -> None:
    published, lean = published_and_lean(LEAN[name], pretrained_folder)
    others = torch.stack(tones(4, seed=1))
    with torch.inference_mode():
        assert error(last_channels(lean, others), last_channels(published, others)) < 0.05
        assert lean(others).shape == (4, lean.out_features, 40)
    assert FRONTS[name].multiply_adds < 0.51 * FRONTS[name.removeprefix("lean-")].multiply_adds


@pytest.mark.parametrize("name", LEAN)
def test_with_all_channels_and_of_full_rank_it_is_the_published_one(
    name: str, pretrained_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lean = LEAN[name]
    for attribute in ("blocks_channels", "nets_channels"):
        monkeypatch.setattr(lean, attribute, getattr(lean.published, attribute))
    monkeypatch.setattr(lean, "second_rank", 3 * 64)
    published, whole = published_and_lean(lean, pretrained_folder)
    others = torch.stack(tones(2, seed=1))
    with torch.inference_mode():
        assert error(whole(others), published(others)) < 1e-5


def test_the_rest_of_the_net_is_that_of_the_authors(pretrained_folder: Path) -> None:
    published, lean = published_and_lean(LeanChoiCrnnStem, pretrained_folder)
    theirs = published.state_dict()
    same = {name for name, value in lean.state_dict().items() if name in theirs and theirs[name].equal(value)}
    assert same == {name for name in theirs if not name.startswith(("convs.0.", "convs.1."))}


@pytest.mark.parametrize("name", LEAN)
def test_it_is_made_once_and_of_any_clips(name: str, pretrained_folder: Path) -> None:
    _, lean = published_and_lean(LEAN[name], pretrained_folder)
    before = {key: value.clone() for key, value in lean.state_dict().items()}
    lean.fit(tones(2, seed=5))
    assert all(value.equal(before[key]) for key, value in lean.state_dict().items())
    lean.load(pretrained_folder / FRONTS[name].file.name)
    lean.fit([torch.full((N_MELS, 2 * STEP_FRAMES), -80.0)] * 2)  # silence
    with torch.inference_mode():
        assert lean(torch.stack(tones(1, seed=1))).isfinite().all()


@pytest.mark.parametrize("name", LEAN)
def test_a_step_of_an_optimiser_changes_it_no_more_than_the_published_one(name: str, pretrained_folder: Path) -> None:
    """AdamW moves each weight as far, however large it is: so the two parts have to be as large as each other."""
    published, lean = published_and_lean(LEAN[name], pretrained_folder)
    others = torch.stack(tones(2, seed=1))
    parts = [
        part.weight.square().mean(dim=dims).sqrt()
        for part, dims in ((lean.convs[1].over_frames, (1, 2, 3)), (lean.convs[1].over_bands, (0, 2, 3)))
    ]
    torch.testing.assert_close(*parts, rtol=1e-3, atol=0)
    changes = []
    for stem in (published, lean):
        with torch.inference_mode():
            before = last_channels(stem, others)
        torch.manual_seed(0)
        with torch.no_grad():
            for value in stem.parameters():
                value.add_(1e-4 * torch.randn_like(value).sign())
            changes.append(error(last_channels(stem, others), before))
    assert changes[1] < 3 * changes[0] + 1e-5


@pytest.mark.parametrize("name", LEAN)
def test_half_precision_on_the_disk_changes_little(name: str, pretrained_folder: Path) -> None:
    _, lean = published_and_lean(LEAN[name], pretrained_folder)
    others = torch.stack(tones(2, seed=1))
    with torch.no_grad():
        before = lean(others)
        for value in lean.parameters():
            value.copy_(value.half())
        assert error(lean(others), before) < 1e-4


def test_another_file_is_refused_and_the_net_stays_as_it_is(tmp_path: Path) -> None:
    (tmp_path / "other.h5").write_bytes(b"no HDF5")
    lean = LeanChoiCrnnStem()
    before = {key: value.clone() for key, value in lean.state_dict().items()}
    with pytest.raises(ValueError, match="does not hold the weights"):
        lean.load(tmp_path / "other.h5")
    lean.fit(tones(1, seed=0))
    assert all(value.equal(before[key]) for key, value in lean.state_dict().items())


def test_what_the_published_net_was_is_no_part_of_the_lean_one(pretrained_folder: Path) -> None:
    lean, plain = LeanChoiCrnnStem(), LeanChoiCrnnStem()
    lean.load(pretrained_folder / FRONTS["choi"].file.name)
    assert lean.state_dict().keys() == plain.state_dict().keys()
    assert len(lean.pretrained_parameters()) == len(plain.pretrained_parameters())
    assert issubclass(LeanChoiCrnnStem, ChoiCrnnStem)


def maps_of(sources: int, channels: int) -> Tensor:
    """Maps (3, channels, 7, 50), of which the first `sources` are noise and the others mixtures of these."""
    generator = torch.Generator().manual_seed(0)
    noise = torch.randn(3, sources, 7, 50, generator=generator)
    mixed = torch.einsum("ij,bjkl->bikl", torch.randn(channels - sources, sources, generator=generator), noise)
    return torch.cat([noise, mixed + torch.arange(channels - sources)[:, None, None]], dim=1)


def test_few_channels_say_what_all_say_where_the_others_are_mixtures() -> None:
    maps, weight = maps_of(4, 10), torch.randn(5, 10, 3, 3)
    kept, shares, rest = few_channels(maps, weight, 4)
    assert len(set(kept)) == 4
    assert kept == sorted(kept)
    again = torch.einsum("ck,bkij->bcij", shares, maps[:, kept].double()) + rest[:, None, None]
    torch.testing.assert_close(again, maps.double(), atol=1e-3, rtol=0)


def test_channels_that_the_convolution_does_not_hear_are_not_kept() -> None:
    maps, weight = 100 * maps_of(8, 8), torch.zeros(5, 8, 3, 3)
    weight[:, [1, 6]] = 1.0
    kept, *_ = few_channels(maps, weight, 2)
    assert kept == [1, 6]


@pytest.mark.parametrize("rank", [2, 6, 15])
def test_two_parts_are_the_best_of_their_rank_for_what_is_heard(rank: int) -> None:
    """At full rank the convolution itself; below, nearer to it on such maps than parts made of the weights alone."""
    maps = maps_of(2, 5)
    conv = Conv(5, 8)

    def error_of(parts: tuple[Tensor, Tensor]) -> float:
        separable = SeparableConv(5, rank, 8)
        separable.over_frames.weight.data, separable.over_bands.weight.data = (part.float() for part in parts)
        separable.over_bands.bias.data = conv.bias.data
        with torch.inference_mode():
            return (separable(maps) - conv(maps))[..., 1:-1].square().mean().item()

    with torch.no_grad():
        best = error_of(in_two_parts(conv.weight, maps, rank))
        of_weights = error_of(in_two_parts(conv.weight, torch.randn(200, 5, 7, 50), rank))
    if rank == 15:
        assert best < 1e-8
    else:
        assert best < 0.8 * of_weights
