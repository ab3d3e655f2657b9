"""Figures and calibration against values worked out by hand and properties that they must have."""

import math
import tracemalloc

import numpy as np
import pytest
import torch

from crnn.training.metrics import (
    TEMPERATURES,
    at_an_end,
    chance_calibration_error,
    cross_fitted_metrics,
    expected_calibration_error,
    fit_among_strangers,
    fit_calibration,
    mean_probabilities,
    metrics,
    negative_log_likelihood,
    reliability,
    unsure_threshold,
)

PROBABILITIES = np.array([[0.8, 0.1, 0.1], [0.3, 0.6, 0.1], [0.4, 0.5, 0.1], [0.9, 0.05, 0.05]], dtype=np.float32)
LABELS = np.array([0, 1, 0, 1])


def test_metrics_by_hand() -> None:
    figures = metrics(PROBABILITIES, LABELS, ("a", "b", "c"), answered=np.array([True, False, False, True]))
    assert (figures["n"], figures["accuracy"], figures["genres"]) == (4, 0.5, ["a", "b", "c"])
    assert figures["accuracy_error"] == pytest.approx(0.25)
    assert figures["confusion"] == [[1, 1, 0], [1, 1, 0], [0, 0, 0]]
    assert figures["per_genre"] == {"a": 0.5, "b": 0.5, "c": None}
    assert figures["macro_f1"] == pytest.approx(0.5)  # over the genres that have clips
    assert figures["nll"] == pytest.approx(-sum(math.log(p) for p in (0.8, 0.6, 0.4, 0.05)) / 4)
    assert (figures["answered"], figures["answered_right"]) == (0.5, 0.5)
    # Four bins: |1 - 0.8|, |1 - 0.6|, |0 - 0.5| and |0 - 0.9|, each a quarter of the clips.
    assert figures["ece"] == pytest.approx((0.2 + 0.4 + 0.5 + 0.9) / 4)
    assert [row["n"] for row in figures["reliability"]] == [1, 1, 1, 1]


@pytest.mark.parametrize("labels", [(0, 0), (1, 1)])
def test_few_clips_that_are_all_right_or_all_wrong_do_not_make_certain(labels: tuple[int, int]) -> None:
    figures = metrics(np.float32([[0.9, 0.1]] * 2), np.array(labels), ("a", "b"), np.ones(2, bool))
    assert figures["accuracy"] in (0.0, 1.0)
    assert figures["accuracy_error"] == pytest.approx((1 / 6 * 5 / 6 / 3) ** 0.5)


def test_nothing_answered_has_no_share_of_right_answers() -> None:
    assert metrics(PROBABILITIES, LABELS, ("a", "b", "c"), np.zeros(4, bool))["answered_right"] is None


def forecasts(n: int) -> tuple[np.ndarray, np.ndarray]:
    """Top probabilities, and answers that are right exactly as often."""
    generator = np.random.default_rng(0)
    confidence = generator.uniform(0.5, 1.0, n)
    return confidence, generator.uniform(size=n) < confidence


def test_calibration_error_of_an_honest_forecast_is_small() -> None:
    confidence, right = forecasts(20_000)
    assert expected_calibration_error(confidence, right) < 0.02
    assert expected_calibration_error(np.sqrt(confidence), right) > 0.05


def test_chance_explains_the_calibration_error_of_an_honest_forecast_of_few_clips() -> None:
    by_chance = [chance_calibration_error(forecasts(n)[0]) for n in (200, 20_000)]
    confidence, right = forecasts(200)
    assert by_chance[0] == pytest.approx(expected_calibration_error(confidence, right), rel=0.5)
    assert by_chance[0] > 5 * by_chance[1]


def test_chance_takes_little_memory_for_many_clips() -> None:
    confidence = forecasts(20_000)[0]
    tracemalloc.start()
    try:
        chance_calibration_error(confidence)
        assert tracemalloc.get_traced_memory()[1] < 20e6
    finally:
        tracemalloc.stop()


def test_reliability_counts_every_clip_once() -> None:
    confidence, right = forecasts(1_000)
    rows = reliability(confidence, right)
    assert sum(row["n"] for row in rows) == 1_000
    assert sum(row["n"] * row["accuracy"] for row in rows) == pytest.approx(right.sum())
    assert [row["confidence"] for row in rows] == sorted(row["confidence"] for row in rows)


def logits_of(n: int, sharpness: float) -> tuple[list[torch.Tensor], np.ndarray]:
    """Clips of two windows whose labels are drawn from the softmax of their logits, which are then multiplied."""
    generator = torch.Generator().manual_seed(0)
    logits = 1.5 * torch.randn(n, 1, 3, generator=generator)
    labels = torch.multinomial(logits[:, 0].softmax(-1), 1, generator=generator)[:, 0].numpy()
    return list((sharpness * logits).repeat(1, 2, 1)), labels


@pytest.mark.parametrize("sharpness", [0.5, 4.0])
def test_the_fitted_temperature_undoes_sharpness(sharpness: float) -> None:
    logits, labels = logits_of(2_000, sharpness)
    calibration = fit_calibration(logits, labels)
    assert calibration.temperature == pytest.approx(sharpness, rel=0.1)
    probabilities = mean_probabilities(logits, calibration.temperature)
    assert calibration.unsure_below == unsure_threshold(
        probabilities.max(axis=1), probabilities.argmax(axis=1) == labels
    )


@pytest.mark.parametrize("margin", [0.5, 1.0, 4.0])
@pytest.mark.parametrize("n", [4, 40])
def test_clips_that_are_all_right_make_no_surer_than_so_many_can(n: int, margin: float) -> None:
    """As if one more were right as often as the model's own softmax says."""
    logits, labels = [torch.tensor([[margin, 0.0]])] * n, np.zeros(n, int)
    own = mean_probabilities(logits)[0, 0]
    calibrations = (fit_calibration(logits, labels), fit_among_strangers(logits, labels, [logits], 0.2, 0.1))
    for temperature in {calibration.temperature for calibration in calibrations}:
        assert TEMPERATURES[0] < temperature < 1
        assert 1 - mean_probabilities(logits, temperature)[0, 0] == pytest.approx((1 - own) / (n + 1), rel=0.1)
    fitting = n - n // min(n, 10)  # the others of a part
    nll = cross_fitted_metrics(logits, labels, ("a", "b"))["nll"]
    assert 1 - math.exp(-nll) == pytest.approx((1 - own) / (fitting + 1), rel=0.1)


@pytest.mark.parametrize("n", [200, 640])
@pytest.mark.parametrize("sharpness", [0.5, 1.0, 4.0])
def test_hundreds_of_clips_speak_for_themselves(n: int, sharpness: float) -> None:
    """With errors among them, the temperature of the highest likelihood is no more than a step away."""
    logits, labels = logits_of(n, sharpness)
    at_each = (mean_probabilities(logits, temperature) for temperature in TEMPERATURES)
    likeliest = np.argmin([negative_log_likelihood(probabilities, labels) for probabilities in at_each])
    fitted = int(np.abs(TEMPERATURES - fit_calibration(logits, labels).temperature).argmin())
    assert abs(fitted - likeliest) <= 1


def test_a_temperature_at_an_end_is_told() -> None:
    assert "0.1 is the lowest that is tried: the model may still be less sure" in at_an_end(TEMPERATURES[0])
    assert "10 is the highest that is tried: the model may still be surer" in at_an_end(TEMPERATURES[-1])
    assert at_an_end(1.0) == at_an_end(TEMPERATURES[1]) == ""


def test_cross_fitted_figures_are_those_of_calibrated_probabilities() -> None:
    logits, labels = logits_of(2_000, 4.0)
    figures = cross_fitted_metrics(logits, labels, ("a", "b", "c"))
    honest = mean_probabilities(logits, 4.0)
    assert figures["accuracy"] == (honest.argmax(axis=1) == labels).mean()
    assert figures["nll"] == pytest.approx(-np.log(honest[np.arange(2_000), labels]).mean(), rel=0.01)
    assert figures["ece"] < 0.05
    assert 0.94 < figures["answered_right"] < 1.0  # what the other parts promise holds about here
    assert 0 < figures["answered"] < 1


def test_the_border_of_a_clip_does_not_come_from_itself() -> None:
    """A clip that is right and surest of all cannot lower its own border: the others are all wrong."""
    logits = [torch.tensor([[9.0, 0.0]])] + [torch.tensor([[4.0 - i / 100, 0.0]]) for i in range(19)]
    labels = np.array([0] + [1] * 19)
    assert cross_fitted_metrics(logits, labels, ("a", "b"))["answered_right"] in (None, 1.0)


def test_clips_that_are_equally_sure_are_on_one_side_of_the_border() -> None:
    confidence = np.array([1.0] * 20 + [0.5])
    right = np.array([True] * 8 + [False] * 12 + [True])
    for order in (np.arange(21), np.arange(21)[::-1]):
        threshold = unsure_threshold(confidence[order], right[order])
        assert threshold == 1.0  # as nothing keeps the promise, almost everything is unsure
    right = np.array([True] * 20 + [False])
    assert unsure_threshold(confidence, right) == 1.0


def test_unsure_threshold_is_the_lowest_that_keeps_97_of_100_right() -> None:
    confidence = np.linspace(0.99, 0.6, 40)
    right = np.arange(40) < 33
    threshold = unsure_threshold(confidence, right)
    answered = confidence >= threshold
    assert answered.sum() == 34  # 33 right of 34 are more than 97 %, of 35 less
    assert right[answered].mean() >= 0.97


def test_unsure_threshold_where_nothing_is_right() -> None:
    assert unsure_threshold(np.array([0.9, 0.8]), np.array([False, False])) == 0.9
