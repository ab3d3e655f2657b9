"""The high-pass against SciPy's, which goes sample by sample."""

import numpy as np
import pytest
from scipy.signal import butter, sosfilt, sosfilt_zi

from crnn.audio import SAMPLE_RATE
from crnn.features import RUMBLE_HZ
from crnn.highpass import HighPass


@pytest.mark.parametrize("sizes", [[100_077], [65_536, 1, 0, 30, 40_000, 7], [5]])
def test_the_high_pass_is_the_recursive_one(sizes: list[int]) -> None:
    """However loud what it takes out is, and however the sound comes."""
    loud = np.random.default_rng(0).standard_normal((2, sum(sizes))).astype(np.float32)
    loud[1] += 5 + 3 * np.sin(np.arange(loud.shape[1]) / 2_000)  # 1.75 Hz
    sections = butter(6, RUMBLE_HZ, "highpass", fs=SAMPLE_RATE, output="sos")
    expected, _ = sosfilt(sections, loud, zi=sosfilt_zi(sections)[:, None] * loud[None, :, :1])
    blocks = HighPass(sections)(np.split(loud, np.cumsum(sizes)[:-1], axis=1))
    np.testing.assert_allclose(np.concatenate([*blocks], axis=1), expected, rtol=0, atol=1e-5)


def test_channels_may_become_more_where_all_were_alike() -> None:
    left, right = np.random.default_rng(0).standard_normal((2, 30_000)).astype(np.float32)
    right[:10_001] = left[:10_001]
    high_pass = HighPass(butter(6, RUMBLE_HZ, "highpass", fs=SAMPLE_RATE, output="sos"))
    whole = np.concatenate([*high_pass([np.stack([left, right])])], axis=1)
    first, *others = high_pass([left[None, :10_001], np.stack([left, right])[:, 10_001:]])
    given = np.concatenate([np.broadcast_to(first, (2, first.shape[1])), *others], axis=1)
    np.testing.assert_allclose(given, whole, rtol=0, atol=1e-6)


@pytest.mark.parametrize(("order", "hz"), [(3, RUMBLE_HZ), (6, 0.5)])
def test_a_filter_that_it_cannot_be_is_refused(order: int, hz: float) -> None:
    """With a pole that is real, or that remembers for longer."""
    with pytest.raises(ValueError, match="poles"):
        HighPass(butter(order, hz, "highpass", fs=SAMPLE_RATE, output="sos"))


def test_a_huge_first_sample_is_forgotten() -> None:
    """As a damaged one may be in a file of floats: what follows is as exact as without it."""
    loud = np.random.default_rng(0).standard_normal((1, 2 * SAMPLE_RATE)).astype(np.float32)
    damaged = loud.copy()
    damaged[0, 0] = 1e9
    high_pass = HighPass(butter(6, RUMBLE_HZ, "highpass", fs=SAMPLE_RATE, output="sos"))
    expected, given = (np.concatenate([*high_pass([sound])], axis=1)[:, SAMPLE_RATE:] for sound in (loud, damaged))
    np.testing.assert_allclose(given, expected, rtol=0, atol=1e-4)
