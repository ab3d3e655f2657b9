"""What holds for any input: windows, the reference level, log-mels, what is made of windows, the feature file."""

import os
import tempfile
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from crnn.audio import SAMPLE_RATE
from crnn.data.features import DatasetError, Features
from crnn.features import (
    FLOOR_DB,
    N_MELS,
    SILENCE_DB,
    LogMel,
    repeat_to,
    sounding_frames,
    stand_on_level,
    to_decibels,
    to_levels,
    windows,
    without_silence,
)
from crnn.inference import GenreClassifier
from crnn.network.config import NO_MUSIC, UNSURE, CRNNConfig
from crnn.network.model import CRNN
from crnn.sources import Origin

settings.register_profile("here", max_examples=25, deadline=None, derandomize=bool(os.environ.get("CI")))
settings.load_profile("here")
LOG_MEL = LogMel()
SEEDS = st.integers(0, 2**32 - 1)


def generator(seed: int) -> np.random.Generator:
    return np.random.default_rng(seed)


def loud_frames(seed: int, n_frames: int, spread_db: float) -> torch.Tensor:
    """Mel power (128, frames) in dB of music whose frames differ by up to `spread_db`, well above silence."""
    random = generator(seed)
    loudness = random.uniform(-spread_db, 0, n_frames)
    return torch.from_numpy(np.float32(loudness - random.uniform(0, 30, (N_MELS, n_frames))))


# Windows


@given(st.integers(1, 200), st.integers(1, 60), st.integers(1, 60))
def test_windows_are_all_of_the_clip_in_order(n_frames: int, window_frames: int, hop_frames: int) -> None:
    assume(hop_frames <= window_frames)
    clip = torch.arange(2 * n_frames, dtype=torch.float32).reshape(2, n_frames)
    cut, starts = windows(clip, window_frames, hop_frames)
    assert cut.shape == (len(starts), 2, window_frames)
    assert starts == sorted(set(starts))
    assert starts[0] == 0
    if n_frames <= window_frames:
        assert torch.equal(cut[0], clip[:, torch.arange(window_frames) % n_frames])
    else:
        for window, start in zip(cut, starts, strict=True):
            assert torch.equal(window, clip[:, start : start + window_frames])
        assert {frame for start in starts for frame in range(start, start + window_frames)} == {*range(n_frames)}
        assert all(later - earlier <= hop_frames for earlier, later in pairwise(starts))


@given(st.integers(1, 50), st.integers(1, 200))
def test_repeating_goes_round_the_clip(n_frames: int, wanted: int) -> None:
    clip = torch.arange(n_frames)[None]
    assert torch.equal(repeat_to(clip, wanted)[0], torch.arange(wanted) % n_frames)


# The reference level


@given(SEEDS, st.integers(50, 400), st.floats(0, 35), st.floats(-30, 60))
def test_gain_does_not_move_the_level(seed: int, n_frames: int, spread_db: float, gain_db: float) -> None:
    decibels = loud_frames(seed, n_frames, spread_db)
    assume((decibels[1:].amax(dim=0) + min(gain_db, 0) > SILENCE_DB).all())
    torch.testing.assert_close(stand_on_level(decibels + gain_db), stand_on_level(decibels), atol=1e-3, rtol=0)


@given(SEEDS, st.integers(300, 600), st.floats(0, 20), st.integers(1, 8), st.floats(1, 60))
def test_a_brief_accident_hardly_moves_the_level(
    seed: int, n_frames: int, spread_db: float, n_struck: int, louder_db: float
) -> None:
    """No more than the level of frames differs that a few more or fewer exceed."""
    decibels = loud_frames(seed, n_frames, spread_db)
    first = generator(seed).integers(0, n_frames - n_struck)
    struck = decibels.clone()
    struck[:, first : first + n_struck] += louder_db
    elsewhere = torch.ones(n_frames, dtype=torch.bool)
    elsewhere[first : first + n_struck] = False
    moved = (stand_on_level(struck) - stand_on_level(decibels))[:, elsewhere].abs().max()
    ranked = decibels[1:].amax(dim=0).sort(descending=True).values
    rank = max(24, n_frames // 20)  # a second, or a twentieth of the frames
    step = ranked[rank - n_struck] - ranked[rank + n_struck]  # between the ranks that it can come from
    assert moved <= step + 1e-3


@given(SEEDS, st.integers(1, 300), st.floats(0, 60), st.floats(-10, 40))
def test_a_log_mel_on_its_level_stays_there(seed: int, n_frames: int, spread_db: float, gain_db: float) -> None:
    decibels = loud_frames(seed, n_frames, spread_db) + gain_db
    assume((decibels[1:].amax(dim=0) > SILENCE_DB).all())
    once = stand_on_level(decibels)
    assert FLOOR_DB <= once.min() <= once.max() <= 0
    torch.testing.assert_close(stand_on_level(once, FLOOR_DB), once, atol=1e-3, rtol=0)


@given(SEEDS, st.integers(1, 300), st.integers(0, 100), st.integers(0, 100))
def test_silence_about_a_song_goes_and_its_frames_stay(seed: int, n_frames: int, before: int, after: int) -> None:
    log_mel = stand_on_level(loud_frames(seed, n_frames, 0.0) + 20)
    about = torch.nn.functional.pad(log_mel, (before, after), value=FLOOR_DB)
    sounds = sounding_frames(about)
    assert sounds[before : before + n_frames].all()
    stays = sum(silent for silent in (before, after) if silent <= 12)  # half a second
    assert without_silence(about).shape[1] == sounds.sum() == n_frames + stays


# From the waveform


@given(SEEDS, st.lists(st.integers(1, 40_000), min_size=1, max_size=5), st.integers(1, 2))
def test_blocks_of_any_length_give_the_log_mel_of_the_whole(seed: int, lengths: list[int], n_channels: int) -> None:
    waveform = np.float32(generator(seed).normal(0, 0.1, (n_channels, sum(lengths))))
    blocks = np.split(waveform, np.cumsum(lengths)[:-1], axis=1)
    whole = LOG_MEL(torch.from_numpy(waveform))
    assert whole.shape == (N_MELS, 1 + sum(lengths) // LOG_MEL.hop_length)
    torch.testing.assert_close(LOG_MEL.of_blocks(blocks), whole, atol=1e-2, rtol=0)


@given(SEEDS, st.floats(-40, 15), st.booleans())
def test_gain_and_polarity_change_no_log_mel(seed: int, gain_db: float, is_inverted: bool) -> None:
    waveform = torch.from_numpy(np.float32(generator(seed).normal(0, 0.1, (1, 2 * SAMPLE_RATE))))
    changed = waveform * 10 ** (gain_db / 20) * (-1 if is_inverted else 1)
    torch.testing.assert_close(LOG_MEL(changed), LOG_MEL(waveform), atol=1e-2, rtol=0)


# What is made of windows


@settings(max_examples=10)
@given(seed=SEEDS, seconds=st.floats(1.3, 12), unsure_below=st.floats(0, 1))
def test_the_answer_is_the_mean_of_the_windows(
    classifier: GenreClassifier, seed: int, seconds: float, unsure_below: float
) -> None:
    classifier.unsure_below = unsure_below
    random = generator(seed)
    hz = random.uniform(100, 4_000)
    time = np.arange(round(seconds * SAMPLE_RATE)) / SAMPLE_RATE
    prediction = classifier.predict_waveform(
        0.3 * np.sin(2 * np.pi * hz * time) * (time % 1 < random.uniform(0.2, 0.9))
    )
    assert prediction.verdict != NO_MUSIC
    np.testing.assert_allclose(prediction.timeline.sum(axis=1), 1, atol=1e-5)
    shares = [*prediction.probabilities.values()]
    assert shares == sorted(shares, reverse=True)
    by_column = [prediction.probabilities[genre] for genre in prediction.genres]
    np.testing.assert_allclose(by_column, prediction.timeline.mean(axis=0), atol=1e-6)
    first = next(iter(prediction.probabilities))
    assert prediction.verdict == (first if shares[0] >= unsure_below else UNSURE)
    assert (prediction.starts_seconds < prediction.ends_seconds).all()
    assert prediction.starts_seconds.min() >= 0
    assert prediction.ends_seconds.max() <= prediction.duration_seconds


@pytest.fixture(scope="module")
def classifier() -> GenreClassifier:
    """Of a tiny model with random weights."""
    torch.manual_seed(0)
    config = CRNNConfig(
        genres=("rock", "jazz", "disco"),
        channels=(4, 4),
        mel_pools=(8, 16),
        time_pools=(4, 4),
        recurrent_size=4,
        window_frames=48,
    )
    model = CRNN(config).eval()
    model.stem.mean.fill_(-50)
    model.stem.std.fill_(20)
    torch.nn.init.normal_(model.members[0].classifier.linear.weight)
    return GenreClassifier(model, Origin("tiny"))


# The feature file


@given(SEEDS, st.integers(1, 40))
def test_levels_are_exact_to_half_a_step(seed: int, n_frames: int) -> None:
    log_mel = torch.from_numpy(np.float32(generator(seed).uniform(FLOOR_DB, 0, (N_MELS, n_frames))))
    levels = to_levels(log_mel)
    back = to_decibels(torch.from_numpy(levels), FLOOR_DB)
    assert (back - log_mel).abs().max() <= -FLOOR_DB / 255 / 2 + 1e-4
    assert np.array_equal(to_levels(back), levels)


NAMES = st.lists(
    st.text(st.characters(codec="utf-8", exclude_characters="\0"), min_size=1, max_size=12),
    min_size=1,
    max_size=5,
    unique=True,
)


@given(SEEDS, NAMES, st.data())
def test_a_feature_file_gives_back_what_it_got(seed: int, names: list[str], data: st.DataObject) -> None:
    lengths = [data.draw(st.integers(1, 60)) for _ in names]
    random = generator(seed)
    levels = [random.integers(0, 256, (N_MELS, length)).astype(np.uint8) for length in lengths]
    features = Features.from_levels(levels, names)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "features.npz"
        features.save(path)
        loaded = Features.load(path)
    assert loaded.track_id.tolist() == names
    for index, level in enumerate(levels):
        assert torch.equal(loaded.decibels(index), to_decibels(torch.from_numpy(level), FLOOR_DB))
    order = random.permutation(len(names))
    assert loaded.select(order).track_id.tolist() == [names[index] for index in order]
    both = Features.concatenate([loaded.select(order[:1]), loaded.select(order[1:])]) if len(names) > 1 else loaded
    assert sorted(both.track_id.tolist()) == sorted(names)


@given(SEEDS, st.floats(0, 1), st.binary(max_size=20))
def test_a_damaged_feature_file_is_a_sentence_or_what_it_was(seed: int, place: float, put: bytes) -> None:
    features = Features.from_levels([np.full((N_MELS, 9), seed % 256, np.uint8)], ["a"])
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "features.npz"
        features.save(path)
        content = path.read_bytes()
        at = round(place * len(content))
        path.write_bytes(content[:at] + put)  # the end is missing, or something else stands there
        try:
            loaded = Features.load(path)
        except DatasetError:
            return
    assert np.array_equal(loaded.logmel, features.logmel)
