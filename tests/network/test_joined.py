"""Several fronts in one model: each does what it does alone, and their steps stand side by side."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

import train
from crnn.checkpoint import CheckpointError, read, save
from crnn.features import FRAMES_PER_SECOND, N_MELS
from crnn.insight.inside import trace
from crnn.network.config import CRNNConfig
from crnn.network.front import Cost
from crnn.network.fronts import FRONTS, front_of
from crnn.network.model import CRNN

CONFIG = CRNNConfig(
    genres=("a", "b", "c"), recurrent_size=5, window_frames=48, channels=(4, 6), mel_pools=(4, 8), time_pools=(3, 4)
)
TWELVES = ["choi+mn04", "won+choi", "musicnn+mn04", "small+choi", "mn04+small+choi"]


def noise(n_frames: int = 60, batch: int = 2) -> Tensor:
    return -80 * torch.rand(batch, N_MELS, n_frames, generator=torch.Generator().manual_seed(0))


@pytest.fixture(params=TWELVES)
def model(request: pytest.FixtureRequest) -> CRNN:
    """Of two members, with random weights; all its steps are twelve frames long."""
    torch.manual_seed(0)
    return CRNN(replace(CONFIG, front=request.param, members=2)).eval()


def test_steps_side_by_side_are_those_of_each(model: CRNN) -> None:
    """Each front in a model of its own, with the same weights."""
    names = model.config.front.split("+")
    with torch.inference_mode():
        joined = model.steps(model.stem_of(noise()))
    for place, member in enumerate(joined):
        expected = []
        for number, name in enumerate(names):
            alone = CRNN(replace(CONFIG, front=name)).eval()
            alone.stem.load_state_dict(model.stem.parts[number].state_dict())
            alone.members[0].front.load_state_dict(model.members[place].front.parts[number].state_dict())
            with torch.inference_mode():
                expected.append(alone.steps(alone.stem_of(noise()))[0])
        torch.testing.assert_close(member, torch.cat(expected, dim=-1))
        assert member.shape == (2, 5, model.members[place].front.out_features)
    assert not torch.allclose(*joined)


def test_cost_and_fields_are_those_of_all(model: CRNN) -> None:
    parts = [FRONTS[name] for name in model.config.front.split("+")]
    costs = [part.cost(model.config) for part in parts]
    joined = front_of(model.config.front)
    assert joined.cost(model.config) == Cost(
        sum(cost.shared for cost in costs), sum(cost.member for cost in costs), sum(cost.features for cost in costs)
    )
    assert joined.fields == set().union(*(part.fields for part in parts))
    assert all(part.notice in joined.notice for part in parts)
    assert model.config.step_frames == model.config.min_frames == 12


def test_what_is_trained_further_is_what_each_names(model: CRNN) -> None:
    named = {id(value) for value in model.pretrained_parameters()}
    expected = set()
    for place, part in enumerate(model.stem.parts):
        expected |= {id(value) for value in part.pretrained_parameters()}
        for member in model.members:
            expected |= {id(value) for value in member.front.parts[place].pretrained_parameters()}
    assert named == expected


def test_saved_and_read_it_answers_alike(model: CRNN, tmp_path: Path) -> None:
    """Published nets are kept in half precision: read again, each weight is the nearest of its numbers."""
    save(model, tmp_path, card="")
    again = read(tmp_path, "it")
    assert again.config == model.config
    stored_in = torch.float32 if model.config.front.startswith(("small", "musicnn")) else torch.float16
    for name, value in model.state_dict().items():
        kept = value.to(stored_in).to(value.dtype) if value.is_floating_point() else value
        assert torch.equal(again.state_dict()[name], kept), name
        assert again.state_dict()[name].dtype == value.dtype, name
    tolerance = {} if stored_in == torch.float32 else {"atol": 1e-2, "rtol": 0}
    with torch.inference_mode():
        torch.testing.assert_close(again(noise()), model(noise()), **tolerance)


def test_a_file_in_full_precision_is_no_file_of_a_published_net(tmp_path: Path) -> None:
    save(CRNN(replace(CONFIG, front="choi")), tmp_path, card="")
    path = tmp_path / "model.safetensors"
    halves = load_file(path)
    assert {value.dtype for value in halves.values()} == {torch.float16}
    save_file({name: value.float() for name, value in halves.items()}, path)
    with pytest.raises(CheckpointError, match=r"damaged or does not fit its config\.json"):
        read(tmp_path, "it")
    save_file(halves, path)
    assert read(tmp_path, "it").config.front == "choi"


def test_each_takes_what_it_has_to_know_of_the_clips() -> None:
    model = CRNN(replace(CONFIG, front="choi+small")).eval()
    convs = {path: part for path, part in model.stem.parts[0].named_modules() if isinstance(part, nn.Conv2d)}
    model.stem.parts[0]._norms = {
        path: (torch.ones(part.out_channels), torch.zeros(part.out_channels)) for path, part in convs.items()
    }
    before = model.stem.parts[0].convs[0].weight.clone()
    model.stem.fit(list(noise()))
    assert not torch.equal(model.stem.parts[0].convs[0].weight, before)
    assert model.stem.parts[1].mean.mean().item() == pytest.approx(-40, abs=2)


def test_each_finds_its_own_weights(pretrained_folder: Path) -> None:
    asked = []

    def find(weights: object) -> Path:
        asked.append(weights)
        return pretrained_folder / weights.name

    model = CRNN(replace(CONFIG, front="choi+musicnn+mn04", members=2))
    model.load_pretrained(find)
    assert asked == [FRONTS["choi"].file, FRONTS["mn04"].file]
    for number, name in enumerate(("choi", "musicnn", "mn04")):
        alone = CRNN(replace(CONFIG, front=name))
        alone.load_pretrained(find)
        for key, value in alone.stem.state_dict().items():
            assert torch.equal(model.stem.parts[number].state_dict()[key], value), key
    middles = [member.front.parts[1].middle.state_dict() for member in model.members]
    assert all(torch.equal(value, middles[1][key]) for key, value in middles[0].items())


def test_how_it_works_shows_the_maps_of_each_and_their_steps_once(model: CRNN) -> None:
    way = trace(model, noise(batch=1)[0].numpy(), np.zeros(60 * 914, np.float32))
    *maps, last = way.maps
    assert len({shown.name for shown in way.maps}) == len(way.maps)
    for shown in maps:
        n_frames = shown.values.shape[2] * shown.frame_seconds * FRAMES_PER_SECOND
        assert n_frames == pytest.approx(48, abs=1), shown.name
    for name, shown in (("choi", "Choi, block 4"), ("mn04", "mn04, block 16"), ("won", "Won, block 5")):
        assert (name in model.config.front.split("+")) == (shown in [part.name for part in maps])
    assert last.values.shape == (model.members[0].front.out_features, 1, 4)
    assert last.frame_seconds == pytest.approx(12 / FRAMES_PER_SECOND)
    with torch.inference_mode():
        np.testing.assert_allclose(
            last.values[:, 0].T, model.steps(model.stem_of(noise(batch=1)[..., :48]))[0][0], atol=1e-5
        )
    assert way.step_seconds == pytest.approx(12 / FRAMES_PER_SECOND)


def test_steps_of_other_lengths_are_refused(capsys: pytest.CaptureFixture) -> None:
    for name in ("small+choi", "mn04+small"):
        with pytest.raises(ValueError, match="fronts with steps of 4 and 12 frames cannot be joined"):
            replace(CONFIG, front=name, time_pools=(2, 2))
    assert train.main(["--features", "nowhere.npz", "--front", "small+choi"]) == 2
    said = "train.py: There is no such network: fronts with steps of 8 and 12 frames cannot be joined.\n"
    assert capsys.readouterr().err == said


@pytest.mark.parametrize("name", ["choi+choi", "choi+", "+", "+choi", "choi+large", "choi + mn04", "Choi", ""])
def test_unknown_and_repeated_names_are_refused(name: str, capsys: pytest.CaptureFixture) -> None:
    with pytest.raises(ValueError, match=r"front is one of small, .*, or different ones joined by \+, not"):
        replace(CONFIG, front=name)
    with pytest.raises(SystemExit):
        train.main(["--front", name])
    said = "argument --front: front is one of small, musicnn, choi, choi-crnn, lean-choi-crnn, mn04, mn04-kinds, won"
    assert said in capsys.readouterr().err


def test_members_start_alike_only_in_what_is_fitted() -> None:
    torch.manual_seed(0)
    model = CRNN(replace(CONFIG, front="musicnn+choi", members=2, bottleneck=5)).eval()
    learned, fitted = ([member.front.parts[number] for member in model.members] for number in (0, 1))
    before = [[value.clone() for value in part.parameters()] for part in learned]
    fits: list[int] = []
    fitted[1].fit = fits.append  # that takes a while, and is the same for all
    model.fit([-80 * torch.rand(N_MELS, 40) for _ in range(20)])
    assert not fits
    assert all(map(torch.equal, *(part.parameters() for part in fitted)))
    for part, values in zip(learned, before, strict=True):
        assert all(map(torch.equal, part.parameters(), values))
    assert not all(map(torch.equal, *(part.parameters() for part in learned)))
