"""The CRNN: shapes, lengths, what each part gives."""

import re
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from textwrap import dedent

import numpy as np
import pytest
import torch

from crnn.features import FRAMES_PER_SECOND, N_MELS, n_frames_of
from crnn.network import layers
from crnn.network.config import CRNNConfig
from crnn.network.front import middles
from crnn.network.layers import (
    POOLING,
    RECURRENT,
    AttentionMeanPool,
    AttentionPool,
    MeanPool,
    Summary,
    energy,
    mean_logits,
    moments,
    states_of,
)
from crnn.network.model import CRNN, FITTED_AT_ONCE
from crnn.network.songs import hear, plan_of, songs_steps, window_logits

CONFIG = CRNNConfig(
    genres=("a", "b", "c"), channels=(4, 6), mel_pools=(4, 8), time_pools=(2, 2), recurrent_size=5, window_frames=48
)


@pytest.mark.parametrize("seconds", [1, 1.03, 10, 30])
@pytest.mark.parametrize("genres", [("a", "b"), tuple("abcdefghijkl")])
def test_any_length_and_any_genres(seconds: float, genres: tuple[str, ...]) -> None:
    model = CRNN(replace(CONFIG, genres=genres)).eval()
    log_mel = -80 * torch.rand(2, N_MELS, int(seconds * FRAMES_PER_SECOND))
    assert model(log_mel).shape == (2, len(genres))


@pytest.mark.parametrize("shape", [(N_MELS, 48), (1, 64, 48), (1, N_MELS, 3), (1, 1, N_MELS, 48)])
def test_other_shapes_are_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="log_mel must be"):
        CRNN(CONFIG)(torch.zeros(shape))


def test_normalisation_is_part_of_the_weights() -> None:
    model = CRNN(CONFIG).eval()
    assert {"stem.mean", "stem.std"} <= model.state_dict().keys()
    log_mel = -80 * torch.rand(1, N_MELS, 48)
    before = model(log_mel)
    model.stem.mean.fill_(-40)
    model.stem.std.fill_(20)
    assert not torch.allclose(model(log_mel), before)
    torch.testing.assert_close(model.stem(log_mel), (log_mel + 40) / 20)


def test_the_answer_depends_on_order_in_time() -> None:
    """Without a recurrent layer, pooling would lose the order of the steps."""
    torch.manual_seed(0)
    member = CRNN(CONFIG).eval().members[0]
    steps = torch.randn(1, 12, member.front.out_features)
    forward, backward = (member.pool(member.recurrent(order)) for order in (steps, steps.flip(1)))
    assert not torch.allclose(forward, backward, atol=1e-4)


def test_attention_pool_is_a_mean_beside_a_weighted_mean() -> None:
    pool = AttentionMeanPool(4)
    steps = torch.randn(3, 7, 4)
    pooled = pool(steps)
    torch.testing.assert_close(pooled[:, :4], steps.mean(dim=1))
    assert (pooled[:, 4:] <= steps.amax(dim=1)).all()
    assert (pooled[:, 4:] >= steps.amin(dim=1)).all()
    with torch.no_grad():
        pool.score.weight.zero_()
    torch.testing.assert_close(pool(steps)[:, 4:], steps.mean(dim=1))


def test_both_means_are_there_alone_too() -> None:
    both, attention, mean = AttentionMeanPool(4), AttentionPool(4), MeanPool(4)
    attention.load_state_dict(both.state_dict())
    steps = torch.randn(3, 7, 4)
    torch.testing.assert_close(both(steps), torch.cat([mean(steps), attention(steps)], dim=1))
    for pool in (attention, mean):
        torch.testing.assert_close(pool(steps), (pool.weights(steps) * steps).sum(dim=1))
        torch.testing.assert_close(pool.weights(steps).sum(dim=1), torch.ones(3, 1))


def test_a_summary_is_of_mean_and_maximum_whatever_the_order() -> None:
    torch.manual_seed(0)
    summary = Summary(8, 6, dropout=0.5).eval()
    steps = torch.randn(3, 7, 4)
    given = summary(moments(steps))
    expected = np.concatenate([steps.numpy().mean(1), steps.numpy().max(1)], axis=1)
    weight, bias = (value.detach().numpy() for value in (summary.linear.weight, summary.linear.bias))
    np.testing.assert_allclose(given.detach(), np.maximum(expected @ weight.T + bias, 0), atol=1e-6)
    assert given.shape == (3, summary.out_features) == (3, 6)
    torch.testing.assert_close(summary(moments(steps[:, torch.randperm(7)])), given)
    assert not torch.equal(
        summary.train()(moments(steps)), summary(moments(steps))
    )  # some of them are left out in training


def test_the_classifier_reads_the_summary_beside_the_course() -> None:
    torch.manual_seed(0)
    member = CRNN(replace(CONFIG, summary=True)).eval().members[0]
    steps = torch.randn(2, 12, member.front.out_features)
    n_pooled = member.pool.out_features
    assert member.classifier.linear.in_features == n_pooled + member.summary.out_features == n_pooled + 10
    states = member.recurrent(steps)
    logits = member.classify(steps, states)
    read = torch.cat([member.pool(states), member.summary(moments(steps))], dim=1)
    torch.testing.assert_close(member.classifier.linear(read), logits)
    of_summary = member.classifier.linear.weight[:, n_pooled:] @ member.summary(moments(steps)).T
    torch.testing.assert_close(
        member.classify(steps, torch.zeros_like(states)) - member.classify(0 * steps, torch.zeros_like(states)),
        (of_summary - member.classifier.linear.weight[:, n_pooled:] @ member.summary(moments(0 * steps)).T).T,
    )


def test_a_summary_of_channels_reads_the_components_of_all_nets() -> None:
    """The nets count alike, and in each its blocks, however many channels they have; one projection for all members."""
    torch.manual_seed(0)
    config = replace(CONFIG, front="choi+won", members=2, summary=True, summary_channels=True, summary_components=5)
    model = CRNN(config).eval()
    clips = [-80 * torch.rand(N_MELS, 48) for _ in range(9)]
    model.fit(clips)
    model.requires_grad_(False)
    stem = model.stem_of(torch.stack(clips))
    assert [part.shape[1:] for part in stem] == [(128, 4), (1024, 4)]
    rows = torch.cat([stem[0].mean(2), stem[1].mean(2), stem[0].amax(2), stem[1].amax(2)], dim=1).double()
    read = model.of_channels(stem)
    assert read.shape == (9, 5)
    blocks = [128, *2 * [64, 128, 128, 128, 64]]
    nets = [1] + 10 * [10]
    weights = np.concatenate([np.full(size, (n * size) ** -0.5) for size, n in zip(blocks, nets, strict=True)])
    standardised = ((rows - rows.mean(0)) / rows.std(0).clamp_min(1e-3)).numpy() * np.tile(weights, 2)
    left, singular, _ = np.linalg.svd(standardised, full_matrices=False)
    expected = left[:, :5] * singular[:5] / np.sqrt((singular[:5] ** 2 / 9).mean())
    np.testing.assert_allclose(np.abs(read.numpy()), np.abs(expected), atol=1e-3)
    logits = model.logits_of(stem)
    for member, steps, heads in zip(model.members, model.steps(stem), logits.split(2), strict=True):
        torch.testing.assert_close(member.classifier(member.pool(member.recurrent(steps))), heads[0])
        torch.testing.assert_close(member.summary_classifier(member.summary(read)), heads[1])
        classified = member.classify(steps, member.recurrent(steps), read)
        torch.testing.assert_close(classified.softmax(-1), heads.softmax(-1).mean(0))
    known = set(map(id, model.pretrained_parameters()))
    assert known >= set(map(id, model.components.parameters()))
    (pieces,) = hear(model, [plan_of(model, torch.cat(clips[:3], dim=1), hop_frames=24)])
    assert pieces.logits.shape == (5, 3)


def test_a_front_whose_stem_gives_no_steps_has_a_summary_of_its_own_steps() -> None:
    model = CRNN(replace(CONFIG, summary=True, summary_channels=True))
    assert model.components is None
    expected = CRNN(replace(CONFIG, summary=True)).state_dict()
    assert {name: value.shape for name, value in model.state_dict().items()} == {
        name: value.shape for name, value in expected.items()
    }


def test_without_a_summary_the_classifier_reads_the_course_alone() -> None:
    member = CRNN(CONFIG).eval().members[0]
    assert member.summary is None
    assert member.classifier.linear.in_features == member.pool.out_features
    steps, other = torch.randn(2, 2, 12, member.front.out_features)
    states = member.recurrent(steps)
    assert torch.equal(member.classify(steps, states), member.classify(other, states))


def test_without_a_recurrent_layer_order_does_not_matter() -> None:
    member = CRNN(replace(CONFIG, recurrent="none")).eval().members[0]
    steps = torch.randn(1, 12, member.front.out_features)
    forward, backward = (member.pool(member.recurrent(order)) for order in (steps, steps.flip(1)))
    torch.testing.assert_close(forward, backward)


@pytest.mark.parametrize("front", ["small", "musicnn"])
@pytest.mark.parametrize("recurrent", RECURRENT)
@pytest.mark.parametrize("pooling", POOLING)
def test_every_variant_answers(front: str, recurrent: str, pooling: str) -> None:
    model = CRNN(replace(CONFIG, front=front, recurrent=recurrent, pooling=pooling)).eval()
    assert model(-80 * torch.rand(2, N_MELS, 48)).shape == (2, 3)


def test_a_new_layer_is_a_class_and_a_line_as_the_readme_shows(monkeypatch: pytest.MonkeyPatch) -> None:
    readme = (Path(__file__).parents[2] / "README.md").read_text(encoding="utf-8")
    code = re.search(r"^    class Rnn.*?^    RECURRENT = .*?$", readme, re.MULTILINE | re.DOTALL)[0]
    written = dict(vars(layers))
    exec(dedent(code), written)
    assert written["RECURRENT"].keys() >= RECURRENT.keys()
    monkeypatch.setitem(RECURRENT, "rnn", written["RECURRENT"]["rnn"])
    model = CRNN(replace(CONFIG, recurrent="rnn")).eval()
    assert isinstance(model.members[0].recurrent.rnn, torch.nn.RNN)
    assert model(torch.zeros(2, N_MELS, 48)).shape == (2, 3)


@pytest.mark.parametrize(
    "variant", [{}, {"recurrent": "lstm", "pooling": "attention"}, {"summary": True}, {"front": "choi"}], ids=str
)
def test_every_parameter_learns(variant: dict) -> None:
    model = CRNN(replace(CONFIG, **variant))
    model(-80 * torch.rand(4, N_MELS, 48)).square().sum().backward()
    still = [name for name, parameter in model.named_parameters() if parameter.grad.abs().max() == 0]
    assert set(still) <= {"members.0.pool.score.bias"}  # softmax does not see a constant


@pytest.mark.parametrize("recurrent", RECURRENT)
@pytest.mark.parametrize(("batch", "steps"), [(1, 1), (3, 20)])
def test_members_follow_time_together_as_each_would_alone(recurrent: str, batch: int, steps: int) -> None:
    torch.manual_seed(0)
    members = [RECURRENT[recurrent](6, 5) for _ in range(3)]
    given = [torch.randn(batch, steps, 6) for _ in members]
    alone = [layer(of_one) for layer, of_one in zip(members, given, strict=True)]
    with torch.inference_mode():
        torch.testing.assert_close(states_of(members, given), alone, atol=1e-6, rtol=0)


def test_an_ensemble_answers_with_the_mean_of_its_members_probabilities() -> None:
    model = CRNN(replace(CONFIG, members=3)).eval()
    log_mel = -80 * torch.rand(2, N_MELS, 48)
    members = model.member_logits(log_mel)
    assert members.shape == (3, 2, 3)
    assert not torch.allclose(members[0], members[1])
    torch.testing.assert_close(model(log_mel).softmax(-1), members.softmax(-1).mean(0))


def alive(front: str, **changes: object) -> CRNN:
    """A model with random weights whose steps are larger than nothing."""
    torch.manual_seed(0)
    model = CRNN(replace(CONFIG, front=front, **changes)).eval()
    if front == "small":
        model.stem.mean.fill_(-40)
        model.stem.std.fill_(23)
    return model


def test_logits_of_several_have_the_mean_of_their_probabilities_and_the_energy_of_their_mean() -> None:
    logits = 3 * torch.randn(4, 5, 10) + 2
    together = mean_logits(logits)
    torch.testing.assert_close(together.softmax(-1), logits.softmax(-1).mean(0))
    torch.testing.assert_close(energy(together), energy(logits.mean(0)))
    torch.testing.assert_close(mean_logits(logits[:1]), logits[0])


def test_fronts_start_from_what_the_stem_gives_of_the_clips() -> None:
    """Of more clips than go through the convolutions at once; all members start from the same components."""
    model = alive("choi", members=2, bottleneck=7)
    clips = [-80 * torch.rand(N_MELS, 40 + number) for number in range(2 * FITTED_AT_ONCE + 3)]
    model.fit(clips)
    with torch.inference_mode():
        of_members = model.steps(model.stem_of(middles(clips)))
    torch.testing.assert_close(*of_members)
    rows = of_members[0].flatten(0, 1).double()
    assert len(rows) == 6 * len(clips)  # the shorter ones are repeated
    torch.testing.assert_close(rows.mean(dim=0), torch.zeros(7).double(), atol=1e-2, rtol=0)
    covariance = rows.T.cov()
    assert covariance.diagonal().mean().item() == pytest.approx(1.0, abs=0.02)
    assert (covariance - covariance.diagonal().diag()).abs().max() < 0.01


def test_joined_fronts_each_start_from_their_own_part() -> None:
    torch.manual_seed(0)
    together = alive("choi+won", bottleneck=5)
    clips = [-80 * torch.rand(N_MELS, 40) for _ in range(20)]
    together.fit(clips)
    for number, name in enumerate(("choi", "won")):
        alone = alive(name, bottleneck=5)
        alone.stem.load_state_dict(together.stem.parts[number].state_dict())
        alone.fit(clips)
        for mine, theirs in zip(
            alone.members[0].front.parameters(), together.members[0].front.parts[number].parameters(), strict=True
        ):
            torch.testing.assert_close(mine, theirs)


def test_fronts_that_are_learned_from_a_random_start_stay_as_they_are() -> None:
    model = alive("small")
    before = {name: value.clone() for name, value in model.members.state_dict().items()}
    model.fit([-80 * torch.rand(N_MELS, 40) for _ in range(4)])
    assert model.stem.mean.mean().item() == pytest.approx(-40, abs=2)
    assert all(torch.equal(value, before[name]) for name, value in model.members.state_dict().items())


@pytest.mark.parametrize("length", [51, 52, 53, 61, 62, 95, 96, 97, 98, 99, 100, 101, 102, 400, 401])
@pytest.mark.parametrize("size", [48, 50])
def test_windows_cover_a_song_to_its_end(size: int, length: int) -> None:
    """A quarter of a window apart, from its first frame; the last one ends with the step that the song ends in."""
    model = alive("small", window_frames=size)
    with torch.inference_mode():
        logits, starts = window_logits(model, -80 * torch.rand(N_MELS, length))
    assert logits.shape == (len(starts), 3)
    assert starts[0] == 0
    assert all(0 < later - earlier <= 12 for earlier, later in pairwise(starts))
    assert length <= starts[-1] + 48 < length + 4


@pytest.mark.parametrize("members", [1, 2])
def test_windows_are_cut_out_of_the_steps_of_the_song(members: int) -> None:
    """The convolutions are computed once over the song; a last step that is not whole hears what was, backwards."""
    model = alive("small", members=members)
    log_mel = -80 * torch.rand(N_MELS, 102)
    with torch.inference_mode():
        logits, starts = window_logits(model, log_mel)
        assert starts == [0, 12, 24, 36, 48, 56]
        filled = torch.cat([log_mel, log_mel[:, [100, 99]]], dim=-1)
        songs = model.steps(model.stem(filled[None]))
        by_hand = []
        for start in starts:
            cut = [steps[:, start // 4 : start // 4 + 12] for steps in songs]
            members = zip(model.members, cut, strict=True)
            of_members = torch.stack([member.classify(part, member.recurrent(part)) for member, part in members])
            of_any = of_members.mean(0).logsumexp(-1, keepdim=True)
            by_hand.append(of_members.softmax(-1).mean(0).log() + of_any)
    torch.testing.assert_close(logits, torch.cat(by_hand), atol=1e-5, rtol=0)


@pytest.mark.parametrize("front", ["small", "musicnn", "choi", "choi-crnn", "won", "choi-crnn+won", "musicnn+choi"])
@pytest.mark.parametrize("steps", [14, 20, 37, 61])
def test_pieces_of_a_song_give_the_steps_of_the_whole(front: str, steps: int) -> None:
    """What a piece has of its neighbours is all that its convolutions hear. (Those of mn04 hear everything.)"""
    model = alive(front, time_pools=(3, 4), members=2)
    log_mel = -80 * torch.rand(N_MELS, 12 * steps)
    with torch.inference_mode():
        pieces, whole = songs_steps(model, [log_mel])[0], model.steps(model.stem(log_mel[None]))
    for piece, member in zip(pieces, whole, strict=True):
        assert piece.shape == (steps, model.members[0].front.out_features)
        torch.testing.assert_close(piece, member[0], atol=1e-4, rtol=1e-4)
        assert member.std() > 1e-3


@pytest.mark.parametrize("front", ["mn04", "choi+mn04+won"])
@pytest.mark.parametrize("steps", [9, 14, 37, 61])
@pytest.mark.parametrize("at_once", [1, 32])
def test_pieces_that_are_heard_together_give_what_each_gives_alone(front: str, steps: int, at_once: int) -> None:
    """Squeeze-and-excitation takes its means over a piece, whatever else goes through the convolutions with it."""
    model = alive(front, members=2)
    log_mels = list(-80 * torch.rand(2, N_MELS, 12 * steps))
    size, context = 4, 3
    with torch.inference_mode():
        for log_mel, song in zip(log_mels, songs_steps(model, log_mels, at_once), strict=True):
            alone = []
            for first in range(0, steps, size):
                start = min(max(first - context, 0), max(steps - size - 2 * context, 0))
                heard = log_mel[None, :, 12 * start : 12 * (start + size + 2 * context)]
                alone.append(model.steps(model.stem(heard))[1][0, first - start :][:size])
            torch.testing.assert_close(song[1], torch.cat(alone), atol=1e-4, rtol=1e-4)


def test_a_window_alone_hears_nothing_beyond_its_edges_and_the_same_within() -> None:
    model = alive("small", time_pools=(3, 4))
    log_mel = -80 * torch.rand(N_MELS, 12 * 16)
    with torch.inference_mode():
        cut = songs_steps(model, [log_mel])[0][0][6:10]
        alone = model.steps(model.stem_of(log_mel[None, :, 6 * 12 : 10 * 12]))[0][0]
    torch.testing.assert_close(cut[1:-1], alone[1:-1], atol=1e-5, rtol=1e-5)
    for edge in (0, -1):
        assert not torch.allclose(cut[edge], alone[edge], atol=1e-3)


@pytest.mark.parametrize("front", ["small", "mn04"])
def test_the_number_of_windows_at_once_changes_nothing(front: str) -> None:
    model = alive(front, time_pools=(3, 4), members=2)
    log_mel = -80 * torch.rand(N_MELS, 12 * 30 + 5)
    with torch.inference_mode():
        plan = plan_of(model, log_mel, hop_frames=12)
        answers = [hear(model, [plan], batch_size=size)[0].logits for size in (16, 1, 5, 1_000)]
    for logits in answers:
        torch.testing.assert_close(logits, answers[0], atol=1e-5, rtol=0)


def test_a_long_song_takes_the_memory_of_a_short_one() -> None:
    """The convolutions get one piece at a time, a window and 1.5 s on either side at most."""
    model, seen = alive("small"), []
    model.stem.register_forward_pre_hook(lambda _, given: seen.append(given[0].shape))
    for seconds in (10, 300):
        seen.clear()
        with torch.inference_mode():
            window_logits(model, -80 * torch.rand(N_MELS, n_frames_of(seconds)))
        assert {shape[:2] for shape in seen} == {(1, N_MELS)}
        assert max(shape[2] for shape in seen) <= 48 + 2 * 40
        assert len(seen) <= n_frames_of(seconds) // 48 + 2


def test_as_many_pieces_go_through_the_convolutions_at_once_as_were_asked_for() -> None:
    model, seen = alive("small"), []
    model.stem.register_forward_pre_hook(lambda _, given: seen.append(len(given[0])))
    with torch.inference_mode():
        songs_steps(model, [-80 * torch.rand(N_MELS, 100 * 48)], pieces_at_once=32)
    assert max(seen) == 32


def test_windows_that_do_not_overlap_are_computed_alone() -> None:
    model = alive("small")
    log_mel = -80 * torch.rand(N_MELS, 110)
    with torch.inference_mode():
        plan = plan_of(model, log_mel, hop_frames=48)
        (heard,) = hear(model, [plan])
        by_hand = torch.cat([model(log_mel[None, :, start : start + 48]) for start in plan.starts])
    assert plan.starts == [0, 48, 62]
    torch.testing.assert_close(heard.logits, by_hand, atol=1e-5, rtol=0)


def test_print_names_the_parts() -> None:
    text = repr(CRNN(CONFIG))
    for part in ("stem", "members", "front", "block1", "recurrent", "gru", "pool", "classifier"):
        assert f"({part})" in text


@pytest.mark.parametrize("genres", [("c", "new", "a"), ("new", "newer"), tuple("abcdefg"), ("b", "a")])
@pytest.mark.parametrize("members", [1, 2])
@pytest.mark.parametrize("summary", [False, True])
def test_a_base_gives_all_but_the_rows_of_genres_that_it_does_not_know(
    genres: tuple[str, ...], members: int, summary: bool
) -> None:
    torch.manual_seed(0)
    config = replace(CONFIG, members=members, summary=summary)
    base, model = (CRNN(replace(config, genres=known)) for known in (CONFIG.genres, genres))
    base.stem.mean.fill_(-50)
    fresh = {name: value.clone() for name, value in model.state_dict().items()}
    before = {name: value.clone() for name, value in base.state_dict().items()}
    model.load_base(base)
    for name, value in model.state_dict().items():
        if ".classifier." not in name:
            assert torch.equal(value, before[name]), name
            continue
        for row, genre in enumerate(genres):
            known = genre in CONFIG.genres
            expected = before[name][CONFIG.genres.index(genre)] if known else fresh[name][row]
            assert torch.equal(value[row], expected), (name, genre)
    for name, value in base.state_dict().items():
        assert torch.equal(value, before[name]), name


def test_a_base_with_another_network_is_refused() -> None:
    with pytest.raises(RuntimeError, match="mismatch"):
        CRNN(CONFIG).load_base(CRNN(replace(CONFIG, recurrent_size=6)))
