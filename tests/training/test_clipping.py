"""Clipped log-mels against those of clipped sounds."""

import numpy as np
import pytest
import torch

from crnn.audio import SAMPLE_RATE
from crnn.features import FLOOR_DB, LogMel
from crnn.training.clipping import clipped


@pytest.fixture(scope="module")
def music() -> np.ndarray:
    """Ten seconds of chords that fade, with noise, (samples,)."""
    rng = np.random.default_rng(0)
    t = np.arange(SAMPLE_RATE // 2) / SAMPLE_RATE
    beats = []
    for _ in range(20):
        chord = sum(
            np.sin(2 * np.pi * hz * k * t + rng.uniform(0, 6)) / k
            for hz in rng.choice([110, 147, 165, 220, 262, 330, 392], 3)
            for k in range(1, 8)
        )
        beats.append((chord + 0.1 * rng.normal(size=len(t))) * np.exp(-t / 0.3))
    return np.concatenate(beats).astype(np.float32)


def log_mel(sound: np.ndarray) -> torch.Tensor:
    return LogMel()(torch.from_numpy(sound))


def rms(decibels: torch.Tensor) -> float:
    return decibels.square().mean().sqrt().item()


@pytest.mark.parametrize("drive_db", [12.0, 18.0])
def test_a_clipped_log_mel_is_near_that_of_the_clipped_sound(music: np.ndarray, drive_db: float) -> None:
    torch.manual_seed(0)
    limit = np.abs(music).max() * 10 ** (-0.05 * drive_db)
    clean, really = log_mel(music), log_mel(np.clip(music, -limit, limit))
    supposed = clipped(clean[None], torch.tensor([[drive_db]]))[0]
    assert rms(supposed - really) < 0.6 * rms(clean - really)
    assert rms(clean - really) > 6


def test_what_does_not_reach_full_scale_stays_as_it_is(music: np.ndarray) -> None:
    clean = log_mel(music)
    torch.testing.assert_close(clipped(clean[None], torch.tensor([[-1.0]]))[0], clean, atol=0.1, rtol=0)


def test_the_loud_frames_stay_as_loud(music: np.ndarray) -> None:
    clean = log_mel(music)[None]
    heard = clipped(clean, torch.tensor([[20.0]]))
    loud = heard.amax(dim=1).quantile(0.95)
    torch.testing.assert_close(loud, clean.amax(dim=1).quantile(0.95), atol=1e-3, rtol=0)
    assert heard.min() >= FLOOR_DB
