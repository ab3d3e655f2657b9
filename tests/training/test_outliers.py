"""Sounds that are no music: they are sound, of every kind, and always the same."""

from collections.abc import Callable

import numpy as np
import pytest

from crnn.audio import SAMPLE_RATE
from crnn.features import FLOOR_DB, N_MELS
from crnn.training.outliers import EACH, KINDS, SECONDS, hum, outlier_log_mels, tone, voice


def test_every_kind_has_its_log_mels() -> None:
    log_mels = outlier_log_mels()
    assert len(log_mels) == EACH * len(KINDS)
    for log_mel in log_mels:
        assert log_mel.shape[0] == N_MELS
        assert log_mel.isfinite().all()
        assert log_mel.min() >= FLOOR_DB
        assert log_mel.std() > 1  # dB
    assert len({log_mel.sum().item() for log_mel in log_mels}) == len(log_mels)


@pytest.mark.parametrize("kind", KINDS)
def test_the_same_generator_makes_the_same_sound(kind: Callable) -> None:
    first, second = (kind(np.random.default_rng(3)) for _ in range(2))
    assert first.shape == (round(SECONDS * SAMPLE_RATE),)
    np.testing.assert_array_equal(first, second)


def strongest_share(waveform: np.ndarray, n_bins: int) -> float:
    """The share of a sound's power in its strongest frequencies."""
    power = np.sort(np.abs(np.fft.rfft(waveform * np.hanning(len(waveform)))) ** 2)
    return power[-n_bins:].sum() / power.sum()


def test_tones_and_hum_stand_out_of_the_noise() -> None:
    assert strongest_share(hum(np.random.default_rng(0)), 200) > 0.8
    assert min(strongest_share(tone(np.random.default_rng(seed)), 20_000) for seed in range(6)) > 0.9


def test_a_voice_speaks_in_syllables() -> None:
    """The strongest modulation of speech is that of its syllables, 2 to 8 a second (Houtgast and Steeneken 1985)."""
    waveform = voice(np.random.default_rng(1))
    frames = np.abs(waveform[: len(waveform) // 441 * 441]).reshape(-1, 441).mean(axis=1)  # 50 a second
    modulation = np.abs(np.fft.rfft(frames - frames.mean()))
    strongest_hz = np.fft.rfftfreq(len(frames), 1 / 50)[1:][modulation[1:].argmax()]
    assert 1 < strongest_hz < 8
