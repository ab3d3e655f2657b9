"""What sounds like a genre that a model does not know has less energy, and nothing else changes."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from crnn.features import N_MELS
from crnn.network import audioset
from crnn.network.audioset import KINDS, KindScores, Strangeness
from crnn.network.config import CRNNConfig
from crnn.network.efficientat import LAST_CHANNELS, EfficientATKindsStem
from crnn.network.front import middles
from crnn.network.fronts import FRONTS
from crnn.network.layers import energy, mean_logits
from crnn.network.model import CRNN, STRANGENESS
from crnn.network.songs import hear, plan_of, songs_steps

GTZAN = ("blues", "classical", "country", "disco", "hiphop", "jazz", "metal", "pop", "reggae", "rock")
CONFIG = CRNNConfig(
    genres=("blues", "jazz"), front="mn04-kinds", members=2, bottleneck=3, recurrent_size=4, summary=True,
    summary_channels=True, summary_components=5,
)  # fmt: skip


def clips(n: int = 6) -> list[Tensor]:
    generator = torch.Generator().manual_seed(0)
    return [(-30 - 12 * torch.randn(N_MELS, 241, generator=generator)).clamp(-80, 0) for _ in range(n)]


def named(*names: str) -> list[int]:
    return [number for number, kind in enumerate(KINDS) if kind.name in names]


@pytest.fixture
def stem(pretrained_folder: Path) -> EfficientATKindsStem:
    made = EfficientATKindsStem().eval()
    made.load(pretrained_folder / FRONTS["mn04"].file.name)
    made.fit(clips())
    return made


def test_scores_are_those_of_the_authors_classifier_by_deviation(
    pretrained_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In plain NumPy, on clips of the training; of full rank exactly, of lower rank nearly."""
    weights = torch.load(pretrained_folder / FRONTS["mn04"].file.name, weights_only=True)
    arrays = [weights[f"classifier.{n}.{kind}"].double().numpy() for n in (2, 5) for kind in ("weight", "bias")]
    for rank, most in ((LAST_CHANNELS, 1e-3), (audioset.RANK, 0.2)):
        monkeypatch.setattr(audioset, "RANK", rank)
        stem = EfficientATKindsStem().eval()
        stem.load(pretrained_folder / FRONTS["mn04"].file.name)
        stem.fit(clips())
        with torch.inference_mode():
            channels = stem(middles(clips()))
            given = stem.kind_scores(channels.mean(dim=2)).numpy()
        heard = channels.mean(dim=2)[:, 544 - LAST_CHANNELS : 544].double().numpy()
        hidden = heard @ arrays[0].T + arrays[1]
        hidden = hidden * np.clip(hidden + 3, 0, 6) / 6
        classes = (hidden @ arrays[2].T + arrays[3])[:, [kind.number for kind in KINDS]]
        expected = (classes - classes.mean(0)) / classes.std(0)
        assert np.abs(given - expected).mean() < most


def test_scores_are_kept_with_the_weights_and_learn_nothing(stem: EfficientATKindsStem) -> None:
    assert not [name for name, _ in stem.named_parameters() if "kinds" in name]
    assert {f"kinds.{name}" for name in ("narrow", "hidden", "hidden_bias", "scores", "scores_bias")} <= set(
        stem.state_dict()
    )


@pytest.mark.parametrize("log_mel", [torch.full((N_MELS, 241), -80.0), torch.zeros(N_MELS, 25)])
def test_clips_that_are_all_alike_give_numbers(log_mel: Tensor, pretrained_folder: Path) -> None:
    stem = EfficientATKindsStem().eval()
    stem.load(pretrained_folder / FRONTS["mn04"].file.name)
    stem.fit([log_mel] * 3)
    with torch.inference_mode():
        assert stem.kind_scores(stem(torch.stack(clips())).mean(dim=2)).abs().max() <= audioset.MOST_DEVIATIONS


def test_a_model_knows_the_kinds_of_its_genres() -> None:
    known = {KINDS[number].name for number in Strangeness(GTZAN).known}
    assert {"blues", "opera", "bluegrass", "hip-hop", "swing", "heavy metal", "ska", "punk"} <= known
    assert not known & {"techno", "electronic", "folk", "salsa", "soul", "flamenco"}
    for spelling in ("Hip-Hop", "hip hop", "HipHop", "hip hop music", "hip+hop", "Ｈｉｐ Ｈｏｐ", "east coast hip-hop"):
        assert [KINDS[number].name for number in Strangeness((spelling, "rap")).known] == ["hip-hop"]
    for name, kinds in (
        ("R&B", ["rhythm and blues"]),
        ("Soul/R&B", ["rhythm and blues", "soul"]),
        ("soul-r'n'b", ["rhythm and blues", "soul"]),
        ("Rhythm And Blues", ["rhythm and blues", "blues"]),
        ("Rock 'n' Roll", ["rock and roll"]),
        ("Opéra", ["opera"]),
    ):
        assert [KINDS[number].name for number in Strangeness((name, name)).known] == kinds
    assert "heavy metal" in {KINDS[number].name for number in Strangeness(("death metal", "jazz")).known}
    assert len({kind.number for kind in KINDS}) == len(KINDS)


def test_strangeness_is_how_much_another_kind_stands_out() -> None:
    scores = torch.zeros(3, len(KINDS))
    scores[0, named("techno")] = 3.0
    scores[1, named("jazz")] = 3.0
    assert Strangeness(("blues", "jazz"))(scores).tolist() == [3.0, -3.0, 0.0]
    assert Strangeness(("techno", "house"))(scores).tolist()[0] < 0
    for genres in (("one of its own", "another"), ("blues", "one of its own")):  # which may sound like techno
        assert Strangeness(genres)(scores).tolist() == [0.0, 0.0, 0.0]
        assert Strangeness(genres).sounds_like(scores[0]) == ""


def test_half_precision_on_the_disk_changes_scores_little(stem: EfficientATKindsStem) -> None:
    means = 3 * torch.rand(5, 1088)
    before = stem.kind_scores(means)
    assert (stem.half().float().kind_scores(means) - before).abs().max() < 0.05


def test_a_kind_is_named_where_it_stands_out() -> None:
    scores = torch.zeros(len(KINDS))
    scores[named("techno")] = 0.9
    of = Strangeness(("blues", "jazz"))
    assert of.sounds_like(scores) == ""
    scores[named("techno")] = 1.1
    assert of.sounds_like(scores) == "techno"
    scores[named("jazz")] = 0.2
    assert of.sounds_like(scores) == ""
    assert of.sounds_like(torch.zeros(0)) == ""  # of a model that hears no kinds


def test_the_energy_of_what_sounds_strange_is_lower_and_probabilities_are_the_same(pretrained_folder: Path) -> None:
    torch.manual_seed(0)
    model = CRNN(CONFIG).eval()
    model.load_pretrained(lambda weights: pretrained_folder / weights.name)
    model.fit(clips())
    song = torch.cat(clips(3), dim=1)
    with torch.inference_mode():
        (told,) = hear(model, [plan_of(model, song, 120)])
        strangeness, model.strangeness = model.strangeness, lambda scores: torch.zeros(len(scores))
        (untold,) = hear(model, [plan_of(model, song, 120)])
        channels = songs_steps(model, [song])[0][-1]
        first = channels[: model.config.window_frames // 12].mean(dim=0)[None]
        lowered = STRANGENESS * strangeness(model.stem.kind_scores(first))
    torch.testing.assert_close(told.logits.softmax(-1), untold.logits.softmax(-1), atol=1e-5, rtol=0)
    change = energy(untold.logits) - energy(told.logits)
    assert change[0].item() == pytest.approx(lowered.item(), abs=1e-4)
    assert change.abs().max() > 0.05


def test_one_of_several_nets_has_them() -> None:
    torch.manual_seed(0)
    joined = CRNN(replace(CONFIG, front="lean-won+mn04-kinds")).eval()
    alone = joined.stem.parts[1]
    torch.nn.init.normal_(alone.kinds.scores)
    for name in ("narrow", "hidden"):
        torch.nn.init.normal_(getattr(alone.kinds, name))
    log_mel = torch.stack(clips(2))
    with torch.inference_mode():
        won, mn04 = joined.stem(log_mel)
        means = torch.cat([won, mn04], dim=1).mean(dim=2)
        scores = joined.stem.kind_scores(means)
        assert torch.equal(scores, alone.kind_scores(mn04.mean(dim=2)))
        assert scores.std() > 0
        assert CRNN(replace(CONFIG, front="lean-won")).stem.kind_scores(means) is None
        logits = joined(log_mel)
    torch.testing.assert_close(mean_logits(joined.member_logits(log_mel)), logits)
    assert isinstance(alone.kinds, KindScores)
