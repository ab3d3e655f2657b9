"""Fitting, metrics and calibration, on tiny models and synthetic clips."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from crnn.augment import NO_AUGMENTATION, Augmentation
from crnn.features import FLOOR_DB, N_MELS, Features
from crnn.model import CRNN, CRNNConfig
from crnn.training import (
    Clips,
    TrainingConfig,
    TrainingError,
    calibrate,
    clip_logits,
    evaluate,
    expected_calibration_error,
    fit,
    fit_normalisation,
    mean_probabilities,
    metrics,
    negative_log_likelihood,
    parameter_groups,
    unsure_threshold,
)

GENRES = ("high", "low")
CONFIG = CRNNConfig(
    genres=GENRES, channels=(4, 8), mel_pools=(4, 8), time_pools=(2, 2), recurrent_size=8, window_frames=24, dropout=0.0
)


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
    config = training(epochs=80, batch_size=8, lr=1e-2, label_smoothing=0.0)
    everywhere = replace(NO_AUGMENTATION, window_position=1.0)
    model, history = fit(CRNN(replace(CONFIG, block_dropout=0.0)), clips, clips, config, everywhere)
    assert history[0].train_loss > 0.5
    assert history[-1].train_loss < 0.05
    assert evaluate(model, clips)["accuracy"] == 1.0


def test_what_is_learned_holds_for_other_clips() -> None:
    model, _ = fit(CRNN(CONFIG), make_clips(24), make_clips(12, 1), training(epochs=12), Augmentation())
    assert evaluate(model, make_clips(20, seed=2))["accuracy"] >= 0.9


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_same_seed_same_model(precision: str) -> None:
    results = []
    for seed in (5, 5, 6):
        torch.manual_seed(0)
        model = CRNN(CONFIG)
        results.append(
            fit(model, make_clips(8), make_clips(4, 1), training(seed=seed, precision=precision), Augmentation())
        )
    (first, first_history), (second, second_history), (other, _) = results
    for name, value in first.state_dict().items():
        assert torch.equal(value, second.state_dict()[name]), name
    assert not torch.equal(first.classifier.linear.weight, other.classifier.linear.weight)
    assert [replace(row, seconds=0) for row in first_history] == [replace(row, seconds=0) for row in second_history]


def test_history_and_the_kept_epoch() -> None:
    valid, seen = make_clips(6, seed=1), []
    model, history = fit(CRNN(CONFIG), make_clips(12), valid, training(epochs=4), Augmentation(), seen.append)
    assert seen == history
    assert [row.epoch for row in history] == [1, 2, 3, 4]
    probabilities = mean_probabilities(clip_logits(model, valid, training()))
    kept = negative_log_likelihood(probabilities, valid.labels)
    assert kept == pytest.approx(min(row.valid_loss for row in history), rel=1e-5)


def test_a_loss_that_is_no_number_ends_in_a_sentence() -> None:
    with pytest.raises(TrainingError, match="smaller learning rate"):
        fit(CRNN(CONFIG), make_clips(8), make_clips(4), training(lr=1e30, epochs=5), NO_AUGMENTATION)


def test_normalisation_comes_from_the_training_clips() -> None:
    model, clips = CRNN(CONFIG), make_clips(4)
    fit_normalisation(model, clips)
    normalised = model.front.normalise(torch.cat(clips.log_mels(), dim=1))
    torch.testing.assert_close(normalised.mean(dim=1), torch.zeros(N_MELS), atol=1e-4, rtol=0)
    torch.testing.assert_close(normalised.std(dim=1), torch.ones(N_MELS), atol=1e-4, rtol=0)


def test_weight_decay_spares_biases_and_normalisation() -> None:
    model = CRNN(CONFIG)
    decayed, spared = parameter_groups(model, 0.1)
    assert {id(parameter) for parameter in spared["params"]} == {
        id(parameter) for name, parameter in model.named_parameters() if "bias" in name or ".norm." in name
    }
    assert len(decayed["params"]) + len(spared["params"]) == len(list(model.parameters()))


def test_evaluation_averages_calibrated_windows() -> None:
    model, clips = CRNN(CONFIG).eval(), make_clips(3)
    model.config = replace(CONFIG, temperature=2.5)
    by_hand = []
    with torch.inference_mode():
        for log_mel in clips.log_mels():
            logits, starts = model.window_logits(log_mel)
            assert len(starts) > 1
            by_hand.append((logits / 2.5).softmax(-1).mean(0))
    expected = metrics(torch.stack(by_hand).numpy(), clips.labels, GENRES)
    figures = evaluate(model, clips)
    assert figures["confusion"] == expected["confusion"]
    assert figures["nll"] == pytest.approx(expected["nll"], rel=1e-5)


PROBABILITIES = np.array([[0.8, 0.1, 0.1], [0.3, 0.6, 0.1], [0.4, 0.5, 0.1], [0.9, 0.05, 0.05]], dtype=np.float32)
LABELS = np.array([0, 1, 0, 1])


def test_metrics_by_hand() -> None:
    figures = metrics(PROBABILITIES, LABELS, ("a", "b", "c"))
    assert set(figures) == {"n", "accuracy", "macro_f1", "nll", "ece", "per_genre", "confusion", "genres"}
    assert (figures["n"], figures["accuracy"], figures["genres"]) == (4, 0.5, ["a", "b", "c"])
    assert figures["confusion"] == [[1, 1, 0], [1, 1, 0], [0, 0, 0]]
    assert figures["per_genre"] == {"a": 0.5, "b": 0.5, "c": None}
    assert figures["macro_f1"] == pytest.approx(0.5)  # over the genres that have clips
    assert figures["nll"] == pytest.approx(-sum(math.log(p) for p in (0.8, 0.6, 0.4, 0.05)) / 4)
    # Four bins: |1 - 0.8|, |1 - 0.6|, |0 - 0.5| and |0 - 0.9|, each a quarter of the clips.
    assert figures["ece"] == pytest.approx((0.2 + 0.4 + 0.5 + 0.9) / 4)


def test_calibration_error_of_an_honest_forecast_is_small() -> None:
    generator = np.random.default_rng(0)
    top = generator.uniform(0.5, 1.0, 20_000)
    labels = (generator.uniform(size=top.size) > top).astype(int)
    honest = np.stack([top, 1 - top], axis=1)
    assert expected_calibration_error(honest, labels) < 0.02
    boasting = np.stack([np.sqrt(top), 1 - np.sqrt(top)], axis=1)
    assert expected_calibration_error(boasting, labels) > 0.05


def test_calibration_undoes_over_confidence() -> None:
    """Logits blown up fourfold get four times the temperature, and the probabilities stay."""
    clips = make_clips(40, seed=3, difference_db=3.0)
    labels = clips.labels.copy()
    labels[::5] = 1 - labels[::5]  # no model can be sure of these
    valid = Clips(clips.features, labels)
    model, _ = fit(CRNN(CONFIG), make_clips(24, difference_db=3.0), valid, training(epochs=6), NO_AUGMENTATION)
    before, fitted = evaluate(model, valid), model.config.temperature
    with torch.no_grad():
        model.classifier.linear.weight.mul_(4)
        model.classifier.linear.bias.mul_(4)
    assert evaluate(model, valid)["nll"] > before["nll"] + 0.1
    calibrate(model, valid)
    assert model.config.temperature == pytest.approx(4 * fitted, rel=0.05)
    assert evaluate(model, valid)["nll"] == pytest.approx(before["nll"], abs=1e-3)
    assert 0.5 <= model.config.unsure_below <= 1


def test_unsure_threshold_is_the_lowest_that_keeps_nine_of_ten_right() -> None:
    confidence = np.linspace(0.99, 0.6, 40)
    probabilities = np.stack([confidence, 1 - confidence], axis=1)
    labels = np.zeros(40, dtype=int)
    labels[20:] = 1  # everything below the twentieth is wrong
    threshold = unsure_threshold(probabilities, labels)
    answered = confidence >= threshold
    assert answered.sum() == 22  # 20 right of 22 are more than 90 %, of 23 less
    assert (labels[answered] == 0).mean() >= 0.9


def test_unsure_threshold_where_nothing_is_right() -> None:
    probabilities = np.array([[0.9, 0.1], [0.8, 0.2]])
    assert unsure_threshold(probabilities, np.array([1, 1])) == 0.9
