"""Copies of clips as a resting stem hears them: what is drawn from them is what the stem would give."""

from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import pytest
import torch
from torch import Tensor
from torch.nn.functional import cross_entropy
from tqdm import tqdm

from crnn.network.config import CRNNConfig
from crnn.network.front import middles
from crnn.network.model import CRNN
from crnn.training import trainer as trainer_module
from crnn.training.augment import Augmentation, ClipStore
from crnn.training.copies import StemCopies
from crnn.training.fit import fit
from crnn.training.trainer import Trainer
from tests.training.test_fit import CONFIG, NO_AUGMENTATION, make_clips, training

TWO_NETS = replace(CONFIG, front="choi+won", bottleneck=3, summary=True, summary_channels=True, summary_components=4)
LINEAR = replace(TWO_NETS, linear=True)


def loud_steps(log_mel: Tensor) -> Tensor:
    """A stem of one channel, which has no more context than a step: (batch, 128, frames) to (batch, 1, steps)."""
    return log_mel[..., : log_mel.shape[-1] // 12 * 12].unflatten(-1, (-1, 12)).mean(dim=(1, 3)).unsqueeze(1)


def copies_of(
    store: ClipStore, augmentation: Augmentation, n: int = 1, hear: Callable = loud_steps, config: CRNNConfig = TWO_NETS
) -> StemCopies:
    torch.manual_seed(0)
    return StemCopies(hear, config, store, augmentation, n)


def test_what_is_drawn_is_what_the_stem_gives_of_a_window() -> None:
    clips = make_clips(6)
    store = ClipStore(clips.features)
    copies = copies_of(store, NO_AUGMENTATION)
    assert copies.n_steps == 3  # of 40 frames
    targets = torch.eye(6)
    for _ in range(5):
        index = torch.tensor([5, 1, 3])
        given, drawn = copies.draw(index, targets[index])
        assert torch.equal(drawn, targets[index])
        assert given.shape == (3, 1, 2)
        for row, clip in zip(given, index.tolist(), strict=True):
            steps = loud_steps(store.log_mel(clip)[None, :, 2:])[0]  # from the middle
            assert any(torch.allclose(row, steps[:, start : start + 2], atol=0.05) for start in range(2))


def test_a_clip_shorter_than_a_window_is_repeated() -> None:
    store = ClipStore(make_clips(2).features)
    copies = copies_of(store, NO_AUGMENTATION, config=replace(TWO_NETS, window_frames=60))
    given, _ = copies.draw(torch.tensor([0]), torch.eye(2)[:1])
    twice = torch.cat([store.log_mel(0)] * 2, dim=1)[None, :, :60]
    torch.testing.assert_close(given, loud_steps(twice), atol=0.05, rtol=0)


def test_copies_are_changed_each_in_its_own_way_and_mixed() -> None:
    store = ClipStore(make_clips(6).features)
    loud = replace(NO_AUGMENTATION, gain_db=6.0, probability=1.0)
    copies = copies_of(store, loud, n=3)
    (net,) = copies.copies
    assert net.shape == (1 + 3, 6, 1, 3)
    assert len(net[:, 0].mean(dim=(1, 2)).unique()) == 1 + 3
    index = torch.arange(6)
    _, targets = copies_of(store, replace(loud, mixup=1.0)).draw(index, torch.eye(6))
    torch.testing.assert_close(targets.sum(dim=1), torch.ones(6))
    assert (targets.max(dim=1).values < 1).any()
    middle = copies.middles(4)
    assert middle.shape == (2 * 4, 1, 2)
    torch.testing.assert_close(middle[:4], net[0, :4, :, :2].float())


@pytest.mark.parametrize("share", [0.0, 0.25, 1.0])
def test_so_many_of_what_is_drawn_are_copies(share: float) -> None:
    torch.manual_seed(0)
    store = ClipStore(make_clips(2).features)
    copies = copies_of(store, replace(NO_AUGMENTATION, gain_db=6.0, probability=share), n=3)
    index = torch.ones(2_000, dtype=torch.long)
    given, _ = copies.draw(index, index)
    itself = loud_steps(store.log_mel(1)[None, :, 2:])[0]  # from the middle
    is_itself = torch.stack([(given - itself[:, start : start + 2]).abs().amax((1, 2)) < 0.05 for start in range(2)])
    assert is_itself.any(dim=0).float().mean().item() == pytest.approx(1 - share, abs=0.04)


@pytest.mark.parametrize("copies", [0, 2])
def test_the_nets_are_heard_once_while_they_rest(copies: int) -> None:
    torch.manual_seed(0)
    trainer = Trainer(
        CRNN(TWO_NETS), make_clips(8), training(thaw=0.5, epochs=4, copies=copies), Augmentation(), make_clips(4, 1)
    )
    heard: list[int] = []
    for part in (trainer.model.stem, trainer.average.module.stem):
        part.alone = lambda log_mel, alone=part.alone: heard.append(1) or alone(log_mel)
    counts, stem = [], [value.clone() for value in trainer.model.stem.parameters()]
    with tqdm(disable=True) as bar:
        for epoch in range(4):
            trainer.epoch(bar)
            trainer.validate()
            counts.append(len(heard))
            heard.clear()
            moved = any(not torch.equal(a, b) for a, b in zip(stem, trainer.model.stem.parameters(), strict=True))
            assert moved == (epoch >= 2)
    assert counts == ([1, 0, 3, 3] if copies else [3, 3, 3, 3])  # two batches and the validation clips


@pytest.mark.parametrize(("epochs", "copies_heard"), [(1, 1), (2, 0)])
def test_a_training_that_goes_on_hears_copies_only_if_it_uses_them(
    epochs: int, copies_heard: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The nets rest in the first two of four epochs."""
    heard, hear, histories = [], Trainer.heard_copies, []
    monkeypatch.setattr(Trainer, "heard_copies", lambda self: heard.append(1) or hear(self))
    config = training(thaw=0.5, epochs=4, copies=1)
    for stop_after in (epochs, None):
        heard.clear()
        torch.manual_seed(0)
        arguments = (CRNN(LINEAR), make_clips(8), config, Augmentation(), make_clips(4, 1))
        histories.append(fit(*arguments, progress=False, state=tmp_path / "state.pt", stop_after=stop_after)[1])
    assert len(heard) == copies_heard
    torch.manual_seed(0)
    _, at_once = fit(CRNN(LINEAR), make_clips(8), config, Augmentation(), make_clips(4, 1), progress=False)
    assert [row.train_loss for row in histories[1]] == [row.train_loss for row in at_once]


def test_validation_from_what_was_heard_is_the_same() -> None:
    torch.manual_seed(0)
    trainer = Trainer(CRNN(TWO_NETS), make_clips(8), training(thaw=1.0, copies=1), Augmentation(), make_clips(4, 1))
    with tqdm(disable=True) as bar:
        trainer.epoch(bar)
    first = trainer.validate()
    assert trainer.valid_heard
    assert (trainer.validate() == first).all()
    trainer.valid_heard.clear()
    assert (trainer.validate() == first).all()


def test_each_member_draws_copies_of_its_own() -> None:
    """The loss is the mean of those that each would have alone with what it drew."""
    torch.manual_seed(0)
    model = CRNN(replace(TWO_NETS, members=3, dropout=0.0, block_dropout=0.0))
    config = training(thaw=1.0, copies=2, outlier_share=0.0)
    trainer = Trainer(model, make_clips(8), config, replace(NO_AUGMENTATION, gain_db=6.0, mixup=1.0))
    draw, drawn = trainer.copies.draw, []
    trainer.copies.draw = lambda *arguments: drawn.append(draw(*arguments)) or drawn[-1]
    loss, _ = trainer.backward(torch.arange(8), 1.0)
    assert len(drawn) == 3
    assert not any(torch.equal(one[0], other[0]) for (one, _), (other, _) in pairwise(drawn))
    losses = []
    for number, (given, targets) in enumerate(drawn):
        of_member = model.logits_of(given)[2 * number : 2 * number + 2]
        losses += [cross_entropy(logits, targets, label_smoothing=config.label_smoothing) for logits in of_member]
    torch.testing.assert_close(loss, torch.stack(losses).mean())


def test_windows_are_spread_over_clips_and_copies_which_count_as_they_are_drawn() -> None:
    store = ClipStore(make_clips(3).features)
    copies = copies_of(store, replace(NO_AUGMENTATION, probability=0.4, gain_db=6.0), n=2)
    windows, counts = zip(*copies.spread(), strict=True)
    assert counts == pytest.approx([0.6] * 3 + [0.2] * 6)
    for number, window in enumerate(windows):
        start = (0, 0, 1)[number % 3]  # of 3 steps
        assert torch.equal(window, copies.copies[0][number // 3, :, :, start : start + 2].float())


@pytest.mark.parametrize("n_copies", [0, 2])
def test_the_linear_classifier_is_fitted_before_the_training_and_rests(n_copies: int) -> None:
    torch.manual_seed(0)
    clips = make_clips(8)
    trainer = Trainer(CRNN(LINEAR), clips, training(thaw=0.5, epochs=2, copies=n_copies), NO_AUGMENTATION)
    fitted = trainer.model.linear.weight.clone()
    with torch.inference_mode():
        rows = trainer.model.of_channels(trainer.model.eval().stem_of(middles(clips.log_mels())))
    assert (trainer.model.linear(rows).argmax(1).numpy() == clips.labels).all()
    with tqdm(disable=True) as bar:
        for _ in range(2):
            trainer.epoch(bar)
    assert torch.equal(trainer.model.linear.weight, fitted)
    torch.testing.assert_close(trainer.average.module.linear.weight, fitted)


def test_a_linear_classifier_learns_anew_what_a_base_did_not_know() -> None:
    torch.manual_seed(0)
    base = Trainer(CRNN(LINEAR), make_clips(8), training(thaw=1.0, copies=1), NO_AUGMENTATION).model
    model = CRNN(replace(LINEAR, genres=("polka", "ska")))
    model.load_base(base)
    trainer = Trainer(model, make_clips(8), training(thaw=1.0, copies=1), NO_AUGMENTATION)
    assert trainer.model.linear.weight.abs().sum() > 0
    assert torch.equal(trainer.model.components.weight, base.components.weight)


def test_the_linear_classifier_is_not_sure_of_outliers(monkeypatch: pytest.MonkeyPatch) -> None:
    """They are taken for all genres, as much as there are of them in a batch, however many there are."""
    torch.manual_seed(0)
    clips = make_clips(8)
    outliers = tuple(make_clips(4, seed=3, difference_db=30.0).log_mels())
    monkeypatch.setattr(trainer_module, "_outliers", lambda: outliers)
    heard = []
    for share in (0.0, 0.5):
        config = training(thaw=1.0, copies=1, outlier_share=share)
        model = Trainer(CRNN(LINEAR), clips, config, NO_AUGMENTATION).model.eval()
        with torch.inference_mode():
            rows = model.of_channels(model.stem_of(middles(outliers)))
        heard.append(model.linear(rows).softmax(-1).max(-1).values.mean().item())
    assert heard[1] < heard[0] - 0.02
