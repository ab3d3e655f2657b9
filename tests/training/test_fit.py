"""Fitting, metrics and calibration, on tiny models and synthetic clips."""

import errno
import os
from collections.abc import Callable
from copy import deepcopy
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from tqdm import tqdm

from crnn.data.clips import Clips
from crnn.data.features import Features
from crnn.features import FLOOR_DB, N_MELS
from crnn.network.config import CRNNConfig
from crnn.network.model import CRNN
from crnn.network.songs import hear, plan_of, window_logits
from crnn.training.augment import AUGMENTATIONS, Augmentation
from crnn.training.evaluation import calibrated, clip_logits, evaluate
from crnn.training.fit import Epoch, best_epoch, fit
from crnn.training.metrics import Calibration, mean_probabilities, metrics, negative_log_likelihood
from crnn.training.outliers import outlier_log_mels
from crnn.training.state import TrainingError
from crnn.training.trainer import MovingAverage, Trainer, TrainingConfig, parameter_groups

GENRES = ("high", "low")
CONFIG = CRNNConfig(
    genres=GENRES, channels=(4, 8), mel_pools=(4, 8), time_pools=(2, 2), recurrent_size=8, window_frames=24, dropout=0.0
)
NO_AUGMENTATION = Augmentation(**dict.fromkeys(AUGMENTATIONS, 0))


def make_clips(n: int, seed: int = 0, difference_db: float = 15.0) -> Clips:
    """Noise in which the upper bands are louder in every second clip."""
    generator = torch.Generator().manual_seed(seed)
    labels = np.arange(n) % 2
    log_mels = []
    for label in labels:
        log_mel = -40 + 8 * torch.randn(N_MELS, 30 + 10 * int(label), generator=generator)
        log_mel[64:] += difference_db * (1 if label == 0 else -1)
        log_mels.append(log_mel.clamp(FLOOR_DB, 0))
    return Clips(Features.from_log_mels(log_mels, [f"{GENRES[label]}/{i}" for i, label in enumerate(labels)]), labels)


def training(**changes: object) -> TrainingConfig:
    return replace(TrainingConfig(epochs=3, batch_size=4, lr=5e-3, ema_decay=0.8), **changes)


def test_a_tiny_model_overfits_eight_clips() -> None:
    """Clips of pure noise with arbitrary labels: nothing but memory can tell them apart."""
    clips = make_clips(8, difference_db=0.0)
    torch.manual_seed(0)
    config = training(epochs=80, batch_size=8, lr=1e-2, label_smoothing=0.0, outlier_share=0.0)
    everywhere = replace(NO_AUGMENTATION, window_position=1.0)
    model, history = fit(CRNN(replace(CONFIG, block_dropout=0.0)), clips, config, everywhere)
    assert history[0].train_loss > 0.5
    assert history[-1].train_loss < 0.05
    assert evaluate(model, clips)["accuracy"] == 1.0


def test_what_is_learned_holds_for_other_clips() -> None:
    model, _ = fit(CRNN(CONFIG), make_clips(24), training(epochs=12), Augmentation())
    assert evaluate(model, make_clips(20, seed=2))["accuracy"] >= 0.9


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_same_seed_same_model(precision: str) -> None:
    results = []
    for seed in (5, 5, 6):
        torch.manual_seed(0)
        model = CRNN(CONFIG)
        results.append(
            fit(model, make_clips(8), training(seed=seed, precision=precision), Augmentation(), make_clips(4, 1))
        )
    (first, first_history), (second, second_history), (other, _) = results
    for name, value in first.state_dict().items():
        assert torch.equal(value, second.state_dict()[name]), name
    assert not torch.equal(first.members[0].classifier.linear.weight, other.members[0].classifier.linear.weight)
    assert [replace(row, seconds=0) for row in first_history] == [replace(row, seconds=0) for row in second_history]


def test_history_watches_the_average_that_is_returned() -> None:
    valid, seen = make_clips(6, seed=1), []
    model, history = fit(CRNN(CONFIG), make_clips(12), training(epochs=4), Augmentation(), valid, seen.append)
    assert seen == history
    assert [row.epoch for row in history] == [1, 2, 3, 4]
    n_frames = CONFIG.window_frames
    with torch.inference_mode():
        plans = [plan_of(model, log_mel, hop_frames=n_frames) for log_mel in valid.log_mels()]
        logits = [windows.logits for windows in hear(model, plans)]
    probabilities = mean_probabilities(logits)
    assert negative_log_likelihood(probabilities, valid.labels) == pytest.approx(history[-1].valid_loss, rel=1e-5)


def test_the_average_forgets_faster_at_first() -> None:
    model = torch.nn.BatchNorm1d(1)
    average, expected = MovingAverage(model, decay=0.3), 0.0
    for n in range(6):
        model.weight.data.fill_(n)
        model.num_batches_tracked.fill_(n)
        average.update(model)
        keep = min(0.3, (1 + n) / (10 + n)) if n else 0.0
        expected = keep * expected + (1 - keep) * n
        assert average.module.weight.item() == pytest.approx(expected, rel=1e-6)
        assert average.module.num_batches_tracked == n
    assert model.weight.item() == 5


def test_validation_clips_change_nothing() -> None:
    models = []
    for valid in (None, make_clips(6, seed=1)):
        torch.manual_seed(0)
        model, history = fit(CRNN(CONFIG), make_clips(8), training(), Augmentation(), valid)
        assert (history[0].valid_loss is None) == (valid is None)
        models.append(model.state_dict())
    for name, value in models[0].items():
        assert torch.equal(value, models[1][name]), name


def test_members_learn_apart_from_each_other() -> None:
    """The first of two members ends where it would alone, if it starts there and nothing but the clips is random."""
    plain = training(epochs=2, batch_size=8, outlier_share=0.0)
    torch.manual_seed(0)
    alone = CRNN(replace(CONFIG, block_dropout=0.0))
    pair = CRNN(replace(CONFIG, block_dropout=0.0, members=2))
    pair.members[0].load_state_dict(alone.members[0].state_dict())
    for model in (alone, pair):
        fit(model, make_clips(8), plain, NO_AUGMENTATION)
    for name, value in alone.members[0].named_parameters():
        torch.testing.assert_close(pair.members[0].get_parameter(name), value, rtol=1e-3, atol=1e-4)
    assert not torch.allclose(pair.members[0].classifier.linear.weight, pair.members[1].classifier.linear.weight)


def test_outliers_make_the_model_unsure_of_them() -> None:
    """The mean of three trainings, as tiny models differ."""
    noise, sure = outlier_log_mels()[0], []
    for share in (0.0, 0.5):
        of_seeds = []
        for seed in range(3):
            torch.manual_seed(seed)
            config = training(epochs=12, outlier_share=share, seed=seed)
            model, _ = fit(CRNN(CONFIG), make_clips(24), config, NO_AUGMENTATION)
            with torch.inference_mode():
                of_seeds.append(window_logits(model, noise)[0].softmax(-1).mean(0).max().item())
            assert evaluate(model, make_clips(20, seed=2))["accuracy"] >= 0.9
        sure.append(np.mean(of_seeds))
    assert sure[1] < sure[0] - 0.1


@pytest.mark.parametrize("steps", range(1, 8))
def test_a_training_can_be_of_few_steps(steps: int) -> None:
    _, history = fit(CRNN(CONFIG), make_clips(2), training(epochs=steps, outlier_share=0.0), NO_AUGMENTATION)
    assert len(history) == steps


def test_a_loss_that_is_no_number_ends_in_a_sentence() -> None:
    with pytest.raises(TrainingError, match="smaller learning rate"):
        fit(CRNN(CONFIG), make_clips(8), training(lr=1e30, epochs=5), NO_AUGMENTATION)


@pytest.mark.parametrize("greedy", [torch.empty, np.empty])
def test_where_memory_runs_out_a_sentence_says_what_takes_less(greedy: Callable) -> None:
    with pytest.raises(TrainingError, match="--batch-size"):
        fit(CRNN(CONFIG), make_clips(4), training(epochs=2), NO_AUGMENTATION, None, lambda _: greedy(10**13))
    with pytest.raises(RuntimeError, match="mat1"):
        fit(
            CRNN(CONFIG),
            make_clips(4),
            training(),
            NO_AUGMENTATION,
            None,
            lambda _: torch.ones(2, 3).mm(torch.ones(2, 3)),
        )


def test_normalisation_comes_from_the_training_clips() -> None:
    model, clips = CRNN(CONFIG), make_clips(4)
    model.stem.fit(clips.log_mels())
    normalised = model.stem(torch.cat(clips.log_mels(), dim=1))
    torch.testing.assert_close(normalised.mean(dim=1), torch.zeros(N_MELS), atol=1e-4, rtol=0)
    torch.testing.assert_close(normalised.std(dim=1), torch.ones(N_MELS), atol=1e-4, rtol=0)


def test_weight_decay_spares_biases_and_normalisation() -> None:
    model = CRNN(CONFIG)
    decayed, spared = parameter_groups(model, training())
    assert {id(parameter) for parameter in spared["params"]} == {
        id(parameter) for name, parameter in model.named_parameters() if "bias" in name or ".norm." in name
    }
    assert len(decayed["params"]) + len(spared["params"]) == len(list(model.parameters()))


def test_pretrained_layers_learn_slowly_and_without_decay() -> None:
    model = CRNN(replace(CONFIG, front="musicnn", members=2))
    *fresh, pretrained = parameter_groups(model, training(lr=1e-3, pretrained_lr=0.1))
    assert pretrained["lr"] == pytest.approx(1e-4)
    assert pretrained["weight_decay"] == 0
    assert {id(value) for value in pretrained["params"]} == {
        id(value) for name, value in model.named_parameters() if ".middle." in name
    }
    stem = {id(value) for value in model.stem.parameters()}
    assert not stem & {id(value) for group in (*fresh, pretrained) for value in group["params"]}


def test_pretrained_weights_rest_until_they_are_thawed() -> None:
    """They stay exactly as they are, in the average too, while all others learn."""
    from tests.training.thaw_worker import course  # which has its clips from here

    rest, move = [True] * 2, [False] * 2
    said = course(0.5)
    assert (said["model"], said["average"], said["others"]) == (rest + move, rest + move, [False] * 4)
    said = course(0.0)
    assert (said["model"], said["average"], said["others"]) == ([False] * 4, [False] * 4, [False] * 4)


def test_a_training_starts_from_the_components_of_its_clips() -> None:
    torch.manual_seed(0)
    model, clips = CRNN(replace(CONFIG, front="choi", bottleneck=3, members=2)), make_clips(4)
    expected = deepcopy(model).to(memory_format=torch.channels_last)  # as a trainer has it: to the same bits
    expected.fit(clips.log_mels())
    before = model.members[0].front.linear.weight.clone()
    Trainer(model, clips, training(), NO_AUGMENTATION)
    assert not torch.equal(model.members[0].front.linear.weight, before)
    for name, value in model.state_dict().items():
        assert torch.equal(value, expected.state_dict()[name]), name


@pytest.mark.parametrize("front", ["small", "choi"])
def test_what_a_base_knows_of_its_clips_it_keeps(front: str) -> None:
    torch.manual_seed(0)
    config = replace(CONFIG, front=front, bottleneck=3)
    base, model = CRNN(config), CRNN(replace(config, genres=("low", "new")))
    base.fit(make_clips(4, seed=3).log_mels())
    model.load_base(base)
    Trainer(model, make_clips(4), training(), NO_AUGMENTATION)
    for name, value in model.state_dict().items():
        if ".classifier." not in name:
            assert torch.equal(value, base.state_dict()[name]), name


def test_of_a_base_rests_what_of_a_new_model_rests() -> None:
    torch.manual_seed(0)
    config = replace(CONFIG, front="choi", bottleneck=3)
    base, model = CRNN(config), CRNN(replace(config, genres=("low", "new")))
    model.load_base(base)
    trainer = Trainer(model, make_clips(8), training(thaw=1.0), NO_AUGMENTATION)
    before = deepcopy(model.state_dict())
    with tqdm(disable=True) as bar:
        trainer.epoch(bar)
    moved = {name for name, value in model.state_dict().items() if not torch.equal(value, before[name])}
    rests = {name for name in before if name.startswith("stem.") or ".front." in name}
    assert moved == {name for name, _ in model.named_parameters()} - rests


def test_a_batch_larger_than_the_data_has_no_more_sounds_that_are_none() -> None:
    trainer = Trainer(CRNN(CONFIG), make_clips(8), training(batch_size=4_096, outlier_share=0.25), NO_AUGMENTATION)
    assert trainer.n_outliers == 2


def fine_tuned() -> tuple[CRNN, CRNN]:
    """A model with other clips behind it, and another that starts from it."""
    torch.manual_seed(0)
    base, model = CRNN(CONFIG), CRNN(replace(CONFIG, genres=("low", "new")))
    base.stem.fit(make_clips(4, seed=3).log_mels())
    model.load_base(base)
    return base, model


@pytest.mark.parametrize(
    "network", [{"front": "small"}, {"front": "musicnn"}, {"front": "choi", "summary": True}], ids=str
)
def test_all_that_a_base_has_learned_is_trained_slowly_and_without_decay(network: dict) -> None:
    base, model = (CRNN(replace(CONFIG, members=2, **network)) for _ in range(2))
    model.load_base(base)
    *fresh, pretrained = parameter_groups(model, training(lr=1e-3, pretrained_lr=0.1))
    assert pretrained["lr"] == pytest.approx(1e-4)
    assert pretrained["weight_decay"] == 0
    classifiers = {id(value) for name, value in model.named_parameters() if ".classifier." in name}
    assert {id(value) for group in fresh for value in group["params"]} == classifiers
    learned = {id(value) for value in model.parameters() if value.requires_grad}
    assert {id(value) for value in pretrained["params"]} == learned - classifiers


def test_fine_tuning_keeps_the_normalisation_and_moves_the_classifier_most() -> None:
    base, model = fine_tuned()
    start = {name: value.clone() for name, value in model.named_parameters()}
    model, _ = fit(model, make_clips(12), training(), Augmentation())
    assert torch.equal(model.stem.mean, base.stem.mean)
    assert torch.equal(model.stem.std, base.stem.std)
    moved = {name: (value - start[name]).abs().mean() for name, value in model.named_parameters()}
    head = moved.pop("members.0.classifier.linear.weight")
    for name, distance in moved.items():
        if name.endswith("weight"):
            assert 0 < distance < head / 2, name


def test_evaluation_averages_calibrated_windows() -> None:
    model, clips = CRNN(CONFIG).eval(), make_clips(3)
    model.config = replace(CONFIG, temperature=2.5)
    by_hand = []
    with torch.inference_mode():
        for log_mel in clips.log_mels():
            logits, starts = window_logits(model, log_mel)
            assert len(starts) > 1
            by_hand.append((logits / 2.5).softmax(-1).mean(0))
    expected = metrics(torch.stack(by_hand).numpy(), clips.labels, GENRES, answered=np.ones(3, bool))
    figures = evaluate(model, clips)
    assert figures["confusion"] == expected["confusion"]
    assert figures["nll"] == pytest.approx(expected["nll"], rel=1e-5)


def test_evaluation_answers_as_serving_does() -> None:
    model, clips = CRNN(CONFIG).eval(), make_clips(6)
    top = mean_probabilities(clip_logits(model, clips)).max(axis=1)
    border = float(np.sort(top)[2])
    assert evaluate(calibrated(model, Calibration(1.0, border)), clips)["answered"] == pytest.approx(4 / 6)


def fit_until(
    epoch: int, state: Path | None = None, seed: int = 0, valid: bool = True, **changes: object
) -> tuple[CRNN, list[Epoch]] | None:
    """A training of five epochs from the first weights of `seed`, or None if it is stopped after an earlier one."""

    def stop(row: Epoch) -> None:
        if row.epoch == epoch:
            raise KeyboardInterrupt

    torch.manual_seed(seed)
    network = {name: changes.pop(name) for name in ("front", "summary", "summary_channels") if name in changes}
    config = training(**{"epochs": 5, **changes})
    clips = make_clips(10), make_clips(6, 1) if valid else None
    try:
        return fit(CRNN(replace(CONFIG, **network)), clips[0], config, Augmentation(), clips[1], stop, state=state)
    except KeyboardInterrupt:
        return None


def assert_same(one: tuple[CRNN, list[Epoch]], other: tuple[CRNN, list[Epoch]]) -> None:
    for name, value in one[0].state_dict().items():
        assert torch.equal(value, other[0].state_dict()[name]), name
    histories = [[replace(row, seconds=0) for row in history] for _, history in (one, other)]
    assert histories[0] == histories[1]


@pytest.mark.parametrize(
    "change",
    [
        {},
        {"precision": "bfloat16"},
        {"valid": False},
        {"patience": 4},
        {"front": "choi", "thaw": 0.2},  # just where it is stopped
        {"front": "choi", "thaw": 0.5, "summary": True},
        {"front": "choi", "thaw": 0.5, "copies": 2, "summary": True, "summary_channels": True},
    ],
    ids=str,
)
def test_a_training_with_breaks_comes_to_the_same(change: dict, tmp_path: Path) -> None:
    """After each break it starts from other weights and random numbers: what was saved is all that counts."""
    state = tmp_path / "state.pt"
    for seed, epoch in enumerate((1, 3, 5)):
        assert fit_until(epoch, state, seed, **change) is None
    assert_same(fit_until(9, state, seed=9, **change), fit_until(9, **change))


def test_saving_changes_nothing(tmp_path: Path) -> None:
    assert_same(fit_until(9, tmp_path / "state.pt"), fit_until(9))


def test_a_state_of_other_settings_is_refused(tmp_path: Path) -> None:
    state = tmp_path / "state.pt"
    fit_until(1, state)
    with pytest.raises(TrainingError, match=r"\(lr 0.005 there, 0.001 here\)"):
        fit_until(1, state, lr=1e-3)
    with pytest.raises(TrainingError, match="validation clips"):
        fit_until(1, state, valid=False)


def test_a_full_disk_costs_no_more_than_an_epoch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    state = tmp_path / "state.pt"
    fit_until(2, state)
    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        fit_until(9, state)
    monkeypatch.undo()
    assert torch.load(state, weights_only=True)["history"][-1]["epoch"] == 2
    assert_same(fit_until(9, state), fit_until(9))


def test_a_loss_that_is_no_number_is_not_saved(tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match="not a number"):
        fit_until(9, tmp_path / "state.pt", lr=1e30)
    assert not list(tmp_path.iterdir())


def test_patience_takes_the_best_epoch() -> None:
    """Noise with arbitrary labels: the more of it is learned by heart, the worse it goes on other clips."""
    clips, valid = make_clips(8, difference_db=0.0), make_clips(8, seed=1, difference_db=0.0)

    def run(**changes: int) -> tuple[CRNN, list[Epoch]]:
        torch.manual_seed(0)
        config = training(epochs=40, lr=1e-2, label_smoothing=0.0, patience=changes.pop("patience", 0))
        return fit(CRNN(CONFIG), clips, config, NO_AUGMENTATION, valid, **changes)

    stopped, history = run(patience=3)
    best = best_epoch(history)
    assert len(history) == best + 3 < 40
    assert history[best - 1].valid_loss == min(row.valid_loss for row in history)
    until_best = run(stop_after=best)
    assert_same((stopped, history[:best]), until_best)
