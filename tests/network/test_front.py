"""A front is one module and one registry line: what each says of itself holds, and a new one is taken everywhere."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import train
from crnn import plots
from crnn.checkpoint import save
from crnn.data.features import Features
from crnn.features import FRAMES_PER_SECOND, N_MELS
from crnn.insight.explain import explain
from crnn.insight.inside import trace
from crnn.network.config import CRNNConfig
from crnn.network.devices import best_precision
from crnn.network.front import Cost, Front, FrontKind, Maps, Sizes, Stem, Weights
from crnn.network.fronts import FRONTS, front_of
from crnn.network.model import CRNN
from crnn.sources import load_checkpoint
from crnn.training.trainer import TrainingConfig, parameter_groups

CONFIG = CRNNConfig(genres=("a", "b", "c"), recurrent_size=5, window_frames=100)
BANDS, STEP, WIDTH = 8, 7, 4


class ToyStem(Stem):
    """The mean level of eight parts of the mel axis, about what it is in the training clips."""

    out_features = BANDS

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("level_db", torch.zeros(1))

    def fit(self, log_mels: Sequence[Tensor]) -> None:
        self.level_db.fill_(torch.cat(list(log_mels), dim=1).mean())

    def forward(self, log_mel: Tensor) -> Tensor:
        return (log_mel - self.level_db).unflatten(1, (BANDS, -1)).mean(dim=2) / 20.0


class ToyFront(Front):
    """One convolution that gives a step for seven frames."""

    out_features = WIDTH

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv1d(BANDS, WIDTH, STEP, stride=STEP)

    def forward(self, stem: Tensor) -> Tensor:
        return self.conv(stem).transpose(1, 2)

    def pretrained_parameters(self) -> list[nn.Parameter]:
        return [self.conv.weight]

    def maps(self, stem: Tensor) -> tuple[Maps, ...]:
        return (Maps("toy steps", self.conv(stem)[0].unsqueeze(1).numpy(), STEP / FRAMES_PER_SECOND),)


class Toy(FrontKind):
    """The smallest front that has something to say on every question."""

    notice = "Its convolution is a toy's, under no licence at all.\n"

    def __init__(self, weights: dict[str, Tensor]) -> None:
        self.weights = weights

    def stem(self) -> ToyStem:
        return ToyStem()

    def front(self, _: Sizes, inputs: int) -> ToyFront:
        assert inputs == BANDS
        return ToyFront()

    def step_frames(self, _: Sizes) -> int:
        return STEP

    def cost(self, config: Sizes) -> Cost:
        return Cost(N_MELS * config.window_frames, BANDS * WIDTH * config.window_frames, WIDTH)

    def load_pretrained(self, _: Stem, fronts: Sequence[Front], find: Callable[[Weights], Path]) -> None:  # noqa: ARG002
        for front in fronts:
            front.conv.load_state_dict(self.weights, strict=False)


@pytest.fixture
def toy(monkeypatch: pytest.MonkeyPatch) -> dict[str, Tensor]:
    """The weights that the toy starts from; it stands in the registry."""
    weights = {"weight": torch.randn(WIDTH, BANDS, STEP, generator=torch.Generator().manual_seed(0))}
    monkeypatch.setitem(FRONTS, "toy", Toy(weights))
    return weights


def test_a_new_front_is_trained_saved_shown_and_named_on_the_card(toy: dict[str, Tensor], tmp_path: Path) -> None:
    generator = torch.Generator().manual_seed(0)
    log_mels = [-80 * torch.rand(N_MELS, 120, generator=generator) for _ in range(20)]
    Features.from_log_mels(log_mels, [f"{'ab'[i % 2]}/{i}.wav" for i in range(20)]).save(tmp_path / "f.npz")
    options = ["--features", str(tmp_path / "f.npz"), "--out", str(tmp_path / "run"), "--front", "toy"]
    options += ["--epochs", "1", "--members", "2", "--set", "window_frames=100"]
    assert train.main(options) == 0
    model, origin = load_checkpoint(str(tmp_path / "run" / "model"))
    assert model.config.front == "toy"
    assert model.stem.level_db.item() == pytest.approx(-40, abs=1)
    for member in model.members:
        torch.testing.assert_close(member.front.conv.weight, toy["weight"], atol=0.02, rtol=0)
    assert "Its convolution is a toy's, under no licence at all." in origin.card
    log_mel = log_mels[0].numpy()
    way = trace(model.eval(), log_mel, np.zeros(120 * 914, np.float32))
    assert [maps.name for maps in way.maps] == ["toy steps"]
    assert len(way.states) == 100 // STEP
    assert len([step.figure(way) for step in plots.STEPS]) == len(plots.STEPS)
    assert np.isfinite(explain(model, log_mel, "a").evidence).all()


def test_a_new_front_says_what_its_recipe_may_set(toy: dict[str, Tensor], capsys: pytest.CaptureFixture) -> None:
    assert train.main(["--features", "nowhere.npz", "--front", "toy", "--set", "channels=4,4,4,4"]) == 2
    assert "channels can be set for --config scratch only." in capsys.readouterr().err


def test_a_new_front_is_a_base(toy: dict[str, Tensor], tmp_path: Path) -> None:
    save(CRNN(replace(CONFIG, front="toy")), tmp_path / "base", card="")
    args = train.parse_args(["--init", str(tmp_path / "base")])
    assert train.recipe_of(args, train.load_base(args)).front == "toy"


def test_a_new_front_is_trained_as_it_asks(toy: dict[str, Tensor]) -> None:
    model = CRNN(replace(CONFIG, front="toy"))
    *_, slow = parameter_groups(model, TrainingConfig(epochs=1, batch_size=4, lr=1.0, ema_decay=0.9))
    assert (slow["lr"], slow["weight_decay"]) == (0.1, 0.0)
    assert [id(value) for value in slow["params"]] == [id(model.members[0].front.conv.weight)]
    assert best_precision("toy", "cpu") == "float32"


def test_a_new_front_has_its_bounds(toy: dict[str, Tensor], monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ValueError, match="6 window_frames are fewer than the 7 of one step"):
        replace(CONFIG, front="toy", window_frames=6)
    monkeypatch.setattr(Toy, "cost", lambda _, config: Cost(10**9 * config.window_frames, 0, WIDTH))
    with pytest.raises(ValueError, match="too slow"):
        replace(CONFIG, front="toy")


@pytest.fixture(params=[*FRONTS, "choi+mn04"])
def ready(request: pytest.FixtureRequest) -> CRNN:
    """A model with each front, as it is before its training; published ones know the statistics of noise."""
    torch.manual_seed(0)
    model = CRNN(replace(CONFIG, front=request.param)).eval()
    model.load_pretrained(lambda weights: request.getfixturevalue("pretrained_folder") / weights.name)
    if request.param != "small":
        model.stem.fit(list((-30 - 12 * torch.randn(4, N_MELS, 48)).clamp(-80, 0)))
    return model


def test_what_a_front_says_of_its_steps_holds(ready: CRNN) -> None:
    """As many as fit, one after the other from the start; a noise as long as one is in it."""
    model, front, config = ready, ready.members[0].front, ready.config
    with torch.inference_mode():
        for n_frames in (config.min_frames, 24, 100, 723):
            quiet = torch.full((1, N_MELS, n_frames), -60.0)
            steps = front(model.stem(quiet))
            assert steps.shape == (1, n_frames // config.step_frames, front.out_features)
            for step in range(2, steps.shape[1] - 2, 3):  # where no padding of the edges is near
                loud = quiet.clone()
                loud[:, :, step * config.step_frames : (step + 1) * config.step_frames] = 0.0
                change = (front(model.stem(loud)) - steps).abs().sum(dim=2)[0]
                assert abs(change.argmax().item() - step) <= 1, step
            maps = front.maps(model.stem(quiet))
            assert maps[-1].values.shape == (front.out_features, 1, steps.shape[1])
            np.testing.assert_allclose(maps[-1].values[:, 0].T, steps[0], atol=1e-5)
            assert maps[-1].frame_seconds == pytest.approx(config.step_frames / FRAMES_PER_SECOND)


@pytest.mark.parametrize("name", [*FRONTS, "choi+mn04"])
def test_what_a_front_says_of_its_cost_is_what_it_computes(name: str) -> None:
    """Against PyTorch's own count, which sees convolutions and matrices."""
    from torch.utils.flop_counter import FlopCounterMode

    config = replace(CONFIG, front=name, window_frames=723)
    model, cost = CRNN(config).eval().requires_grad_(False), front_of(name).cost(config)
    log_mel = torch.zeros(1, N_MELS, config.window_frames)
    for said, part, inputs in (
        (cost.shared, model.stem, log_mel),
        (cost.member, model.members[0].front, model.stem(log_mel)),
    ):
        with FlopCounterMode(display=False) as counter, torch.no_grad():
            part(inputs)
        assert said == pytest.approx(counter.get_total_flops() / 2, rel=0.02)
    assert cost.features == model.members[0].front.out_features
