"""Explanations: evidence is where it was planted, with its sign and size, and looking for it changes nothing."""

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from itertools import pairwise

import librosa
import numpy as np
import pytest
import torch
from torch import Tensor, nn

from crnn.features import FLOOR_DB, FRAMES_PER_SECOND
from crnn.insight.explain import BAND_EDGES, Explanation, explain
from crnn.network.config import CRNNConfig
from crnn.network.model import CRNN

WINDOW = 50  # frames
GENRES = ("rock", "jazz", "disco")


class Additive(nn.Module):
    """Rock's logit is a weighted sum of the cells, the others' are zero: what each patch says is known."""

    def __init__(self, weights: Tensor, temperature: float = 1.0) -> None:
        super().__init__()
        self.config = CRNNConfig(GENRES, window_frames=WINDOW, temperature=temperature)
        self.register_buffer("weights", weights)

    def forward(self, log_mel: Tensor) -> Tensor:
        rock = ((log_mel - FLOOR_DB) * self.weights).sum(dim=(1, 2))
        return torch.stack([rock, 0 * rock, 0 * rock], dim=1)


def noise(n_frames: int, seed: int = 0) -> np.ndarray:
    """A log-mel (128, frames) of loud and quiet cells."""
    return np.random.default_rng(seed).uniform(-70, 0, (128, n_frames)).astype(np.float32)


def log_odds(model: nn.Module, log_mel: np.ndarray, index: int) -> float:
    """By hand, in double precision: log p / (1 - p)."""
    with torch.no_grad():
        logits = model(torch.from_numpy(log_mel)[None])[0].double() / model.config.temperature
    p = logits.softmax(dim=0)[index].item()
    return np.log(p / (1 - p))


def test_additive_evidence_is_found_exactly() -> None:
    """For and against, each where it is, nothing elsewhere; all together is what the whole is worth (completeness)."""
    weights = torch.zeros(128, WINDOW)
    weights[16:32, 20:30], weights[70:75, 32:38] = 1e-3, -2e-3
    log_mel = noise(WINDOW)
    log_mel[16:32, 20:30] = log_mel[70:75, 32:38] = -5
    model = Additive(weights)
    explanation = explain(model, log_mel, "rock")
    above_mean = -5 - log_mel.mean()
    expected = np.zeros((8, 5))
    expected[2, 2], expected[5, 3] = 160 * 1e-3 * above_mean, 30 * -2e-3 * above_mean
    np.testing.assert_array_equal(explanation.frame_edges, [0, 10, 20, 30, 40, 50])
    np.testing.assert_allclose(explanation.evidence, expected, atol=2e-5)
    whole = log_odds(model, log_mel, 0) - log_odds(model, np.full_like(log_mel, log_mel.mean()), 0)
    assert explanation.evidence.sum() == pytest.approx(whole, abs=1e-4)


@pytest.mark.parametrize("temperature", [0.5, 2.0])
def test_the_temperature_divides_log_odds(temperature: float) -> None:
    weights = torch.full((128, WINDOW), 1e-4)
    plain, other = (explain(Additive(weights, t), noise(WINDOW), "rock").evidence for t in (1.0, temperature))
    np.testing.assert_allclose(other, plain / temperature, atol=1e-5)


def test_what_speaks_for_one_of_two_genres_speaks_against_the_other(tiny_model: CRNN) -> None:
    model = CRNN(replace(tiny_model.config, genres=("rock", "jazz"))).eval()
    rock, jazz = (explain(model, noise(100), genre).evidence for genre in ("rock", "jazz"))
    np.testing.assert_allclose(rock, -jazz, atol=1e-5)
    assert rock.min() < 0 < rock.max()


@pytest.mark.parametrize("front", ["small", "musicnn"])
@pytest.mark.parametrize("genre", GENRES)
def test_a_patch_is_worth_what_the_network_loses_without_it(tiny_model: CRNN, front: str, genre: str) -> None:
    model = CRNN(replace(tiny_model.config, front=front, members=2, temperature=0.7)).eval()
    n_frames, window = 131, model.config.window_frames
    log_mel = noise(n_frames)
    explanation = explain(model, log_mel, genre)
    for band, column, first in ((0, 0, 0), (3, 7, 41), (7, 14, n_frames - window)):
        start, end = explanation.frame_edges[column : column + 2]
        assert 0 <= start - first < end - first <= window
        part = log_mel[:, first : first + window]
        hidden = part.copy()
        hidden[BAND_EDGES[band] : BAND_EDGES[band + 1], start - first : end - first] = part.mean()
        index = GENRES.index(genre)
        expected = log_odds(model, part, index) - log_odds(model, hidden, index)
        assert explanation.evidence[band, column] == pytest.approx(expected, abs=1e-5)


def test_a_certain_model_is_explained_too() -> None:
    """Where the probability is 1 to the last bit, its log-odds still tell the patches apart."""
    weights = torch.zeros(128, WINDOW)
    weights[:, 10:20] = 1e-2
    log_mel = noise(WINDOW)
    log_mel[:, 10:20] = 0
    model = Additive(weights)
    assert model(torch.from_numpy(log_mel)[None]).softmax(dim=1)[0, 0] == 1
    evidence = explain(model, log_mel, "rock").evidence
    assert (evidence[:, 1] > 1).all()
    np.testing.assert_array_equal(np.delete(evidence, 1, axis=1), 0)


@pytest.mark.parametrize("n_frames", [1, 7, 20, 49])
def test_a_short_clip_is_judged_on_its_true_frames(n_frames: int) -> None:
    """It is repeated to fill the window, and hidden in each repetition."""
    weights = torch.rand(128, WINDOW, generator=torch.Generator().manual_seed(0)) / 1e3
    log_mel = noise(n_frames)
    explanation = explain(Additive(weights), log_mel, "rock")
    assert explanation.frame_edges[-1] == n_frames
    for column, (start, end) in enumerate(pairwise(explanation.frame_edges)):
        hidden = log_mel.copy()
        hidden[16:32, start:end] = log_mel.mean()
        lost = np.tile(log_mel - hidden, 50)[:, :WINDOW]
        assert explanation.evidence[2, column] == pytest.approx((lost * weights.numpy()).sum(), abs=1e-4)


@pytest.mark.parametrize("n_frames", [1, 11, WINDOW, WINDOW + 1, 3 * WINDOW + 17, 5_003, 700 * WINDOW])
def test_the_map_covers_every_frame_once(n_frames: int) -> None:
    explanation = explain(Additive(torch.full((128, WINDOW), 1e-5)), noise(n_frames), "jazz")
    assert (explanation.frame_edges[0], explanation.frame_edges[-1]) == (0, n_frames)
    assert explanation.evidence.shape == (8, len(explanation.frame_edges) - 1)
    assert np.isfinite(explanation.evidence).all()
    lengths = np.diff(explanation.frame_edges)
    assert lengths.min() >= 1
    assert lengths.max() <= WINDOW // 2 + 1
    assert lengths.max() - lengths.min() <= 1


@pytest.mark.parametrize("start", [0, 71, 157])
def test_a_burst_in_a_long_silence_is_found(start: int) -> None:
    """A ragged end, and a burst that has no regard for the edges of patches; silence speaks for nothing."""
    weights = torch.zeros(128, WINDOW)
    weights[32:48] = 1e-4
    log_mel = np.full((128, 3 * WINDOW + 17), FLOOR_DB, np.float32)
    log_mel[32:48, start : start + 10] = 0
    explanation = explain(Additive(weights), log_mel, "rock")
    evidence = explanation.evidence
    assert not np.delete(evidence, 3, axis=0).any()
    for value, first, end in zip(evidence[3], explanation.frame_edges, explanation.frame_edges[1:], strict=False):
        assert (value != 0) == (first < start + 10 and end > start)
    passages = explanation.strongest()
    assert sum(passage.share for passage in passages) == pytest.approx(1)
    assert min(passage.start_seconds for passage in passages) <= start / FRAMES_PER_SECOND
    assert max(passage.end_seconds for passage in passages) >= (start + 10) / FRAMES_PER_SECOND
    assert sum(passage.end_seconds - passage.start_seconds for passage in passages) < 1.0


def test_silence_speaks_for_nothing(tiny_model: CRNN) -> None:
    explanation = explain(tiny_model, np.full((128, 120), FLOOR_DB, np.float32), "rock")
    assert not explanation.evidence.any()
    assert explanation.strongest() == []


def explained(evidence: np.ndarray) -> Explanation:
    """Patches of ten frames."""
    return Explanation("rock", np.float32(evidence), np.arange(evidence.shape[1] + 1) * 10)


def test_strongest_passages() -> None:
    """They grow over neighbours that speak nearly as strongly, do not overlap, and share what spoke for the genre."""
    evidence = np.zeros((8, 6))
    evidence[0, :4] = 3, 4, 3, 1  # the bass, for three patches
    evidence[4:6, 4:6] = [[3, 3], [3, 0.5]]  # no rectangle: two, and one beside them
    evidence[7, 0] = 5  # the strongest patch, alone, is no match for the wider passages
    evidence[7, 1:] = -9
    passages = explained(evidence).strongest(9)
    total = 10 + 1 + 9 + 0.5 + 5
    assert [round(passage.share * total, 4) for passage in passages] == [10, 6, 5, 3, 1, 0.5]
    first, second, *_ = passages
    assert (first.start_seconds, first.low_hz) == (0, 0)
    assert first.end_seconds == pytest.approx(30 / FRAMES_PER_SECOND)
    assert first.high_hz == pytest.approx(219, abs=1)
    assert explained(evidence).strongest(2) == [first, second]


def test_frequencies_are_those_of_the_mel_bands() -> None:
    """The edge below a band lies half-way between centres, as an image draws it; the first and last are the ends."""
    edges_hz = librosa.mel_to_hz((np.array(BAND_EDGES) + 0.5) / 129 * librosa.hz_to_mel(11_025))
    edges_hz[[0, -1]] = 0, 11_025
    for row, expected in enumerate(pairwise(edges_hz)):
        evidence = np.zeros((8, 2))
        evidence[row, 0] = 1
        [passage] = explained(evidence).strongest()
        assert (passage.low_hz, passage.high_hz) == pytest.approx(expected)
        assert passage.share == 1


def test_no_evidence_for_it_is_no_passage() -> None:
    assert explained(np.full((8, 3), -1.0)).strongest() == []


def test_an_unknown_genre_is_refused(tiny_model: CRNN) -> None:
    with pytest.raises(ValueError, match="the model knows rock, jazz, disco, not 'polka'"):
        explain(tiny_model, noise(60), "polka")


@pytest.mark.parametrize("shape", [(128,), (64, 100), (128, 0), (1, 128, 100)])
def test_what_is_no_log_mel_is_refused(tiny_model: CRNN, shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="log_mel must be"):
        explain(tiny_model, np.zeros(shape, np.float32), "rock")


def test_progress_runs_to_one(tiny_model: CRNN) -> None:
    shares: list[float] = []
    explain(tiny_model, noise(200), "rock", shares.append)
    assert len(shares) > 5
    assert shares == sorted(set(shares))
    assert shares[0] > 0
    assert shares[-1] == 1


def test_a_cancelled_request_stops_at_once(tiny_model: CRNN) -> None:
    class CancelledError(Exception):
        pass

    calls: list[float] = []

    def cancel(share: float) -> None:
        calls.append(share)
        raise CancelledError

    with pytest.raises(CancelledError):
        explain(tiny_model, noise(200), "rock", cancel)
    assert len(calls) == 1
    assert not torch.is_inference_mode_enabled()


def test_the_model_and_the_sound_are_left_untouched(tiny_model: CRNN) -> None:
    log_mel = noise(200)
    log_mel.flags.writeable = False  # as an array that is shared
    weights = {name: tensor.clone() for name, tensor in tiny_model.state_dict().items()}
    before, random_state = log_mel.copy(), torch.get_rng_state()
    explain(tiny_model, log_mel, "jazz")
    np.testing.assert_array_equal(log_mel, before)
    assert not tiny_model.training
    assert torch.is_grad_enabled()
    assert torch.equal(torch.get_rng_state(), random_state)
    for name, parameter in tiny_model.named_parameters():
        assert parameter.grad is None, name
        assert parameter.requires_grad, name
    for name, tensor in tiny_model.state_dict().items():
        assert torch.equal(tensor, weights[name]), name


def test_threads_may_share_a_model(tiny_model: CRNN) -> None:
    def evidence(seed: int) -> np.ndarray:
        return explain(tiny_model, noise(150 + seed, seed), GENRES[seed % 3]).evidence

    expected = [evidence(seed) for seed in range(4)]
    with ThreadPoolExecutor(2) as pool:
        for found, alone in zip(pool.map(evidence, 2 * list(range(4))), 2 * expected, strict=True):
            np.testing.assert_allclose(found, alone, atol=1e-6)
